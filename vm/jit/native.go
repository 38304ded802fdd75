//go:build linux && (amd64 || arm64)

package jit

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"
	"unsafe"

	"github.com/skep-bpf/skep/vm/engine"
)

// JIT is the engine that compiles.
type JIT struct {
	generate generator
	options  options

	mu    sync.RWMutex
	codes []*code // what is not closed, by address
}

var probe = sync.OnceValue(func() error {
	m, err := newRegion(make([]byte, 1), newKeys())
	if err != nil {
		return err
	}
	return m.close()
})

// New returns the engine. It fails with [engine.ErrUnavailable] where the system
// does not let a process make code executable, as SELinux and systemd's
// MemoryDenyWriteExecute can forbid.
func New() (engine.Engine, error) {
	if err := probe(); err != nil {
		return nil, err
	}
	return &JIT{generate: nativeGenerate, options: nativeOptions()}, nil
}

// Name returns "jit".
func (*JIT) Name() string { return "jit" }

// Compile implements [engine.Engine].
func (j *JIT) Compile(p *engine.Program, o engine.Options) (engine.Code, error) {
	if len(p.Insns) > maxInsns {
		return nil, fmt.Errorf("program %s has %d instructions, more than the JIT's %d", p.Name, len(p.Insns), maxInsns)
	}
	opts := j.options
	opts.Options = o
	k := newKeys()
	out, err := j.generate(p, opts, k)
	if err != nil {
		return nil, err
	}
	mem, err := newRegion(out.code, k)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", p.Name, err)
	}
	c := &code{jit: j, program: p, mem: mem, tail: mem.start + uintptr(out.funcs[0])}
	for _, at := range out.starts {
		c.starts = append(c.starts, mem.start+uintptr(at))
	}
	c.start = c.starts[0]
	c.first, c.length = mem.start, uintptr(len(out.code))
	j.mu.Lock()
	defer j.mu.Unlock()
	i, _ := j.search(c.first)
	j.codes = slices.Insert(j.codes, i, c)
	return c, nil
}

// search returns the index of the first code that does not lie before pc, and
// whether it starts there.
func (j *JIT) search(pc uintptr) (int, bool) {
	return slices.BinarySearchFunc(j.codes, pc, func(c *code, pc uintptr) int { return cmp.Compare(c.first, pc) })
}

// find returns the code that pc lies in.
func (j *JIT) find(pc uintptr) *code {
	j.mu.RLock()
	defer j.mu.RUnlock()
	i, found := j.search(pc)
	if !found {
		i--
	}
	return j.codes[i]
}

// enter calls s.ResumePC. It is written in assembly. Without go:noescape, so that
// states never lie on stacks, which move.
func enter(s *engine.State)

// stateResumePC is for the assembly of enter.
//
//lint:ignore U1000 go_asm.h has it
const stateResumePC = engine.OffsetResumePC

// Run implements [engine.Engine].
func (j *JIT) Run(s *engine.State) engine.Exit {
	if s.ResumePC == 0 {
		s.Exit, s.Arg = engine.Fault, uint32(engine.FaultIdle)
		return engine.Fault
	}
	enter(s)
	if s.Exit == engine.Done {
		return engine.Done
	}
	return j.left(s)
}

// left finds out what runs after an exit in the midst of a run.
func (j *JIT) left(s *engine.State) engine.Exit {
	// What a tail call put in the place of a function has returned to another
	// program, if the run goes on in that.
	if c, ok := s.Code.(*code); !ok || s.ResumePC-c.first >= c.length {
		s.Code = j.find(s.ResumePC)
	}
	if s.Exit == engine.Fault {
		s.ResumePC = 0
	}
	return s.Exit
}

type code struct {
	jit     *JIT
	program *engine.Program
	mem     *region
	start   uintptr // of function 0
	starts  []uintptr
	tail    uintptr
	first   uintptr // of length bytes of code
	length  uintptr
}

func (c *code) Start(s *engine.State, fn int) error {
	fp := s.Regs[10]
	if uint(fn) >= uint(len(c.starts)) || fp < uint64(s.StackLimit) || fp > math.MaxUint32 || fp%16 != 0 || s.Base == 0 {
		return s.CheckStart(c.program, fn)
	}
	bottom := uintptr(unsafe.Pointer(unsafe.SliceData(s.Stack)))
	if s.SP == 0 {
		s.SP = bottom + 8*uintptr(len(s.Stack))
	}
	// Calls are only held against StackLimit, so all that it allows has to fit.
	activations := (fp-uint64(s.StackLimit))/engine.FrameSize + 1
	if 8*engine.FrameWords*activations > uint64(s.SP-bottom) {
		return fmt.Errorf("program %s: the state has no room for %d nested calls: %w", c.program.Name, activations, engine.FaultStack)
	}
	if s.IdleSP == 0 {
		s.IdleSP = s.SP
	}
	if s.SP == s.IdleSP {
		s.IdleFP = fp
	}
	s.ResumePC, s.Target, s.Fail = c.starts[fn], 0, 0
	if s.Code != engine.Code(c) {
		s.Code = c
	}
	return nil
}

// Enter implements [engine.Code].
func (c *code) Enter(s *engine.State) engine.Exit {
	if s.SP != s.IdleSP || s.Regs[10] != s.IdleFP || s.SP == 0 {
		if c.Start(s, 0) != nil {
			s.Exit, s.Arg = engine.Fault, uint32(engine.FaultStack)
			return engine.Fault
		}
	}
	s.ResumePC = c.start
	enter(s)
	if s.Exit == engine.Done {
		return engine.Done
	}
	s.Code = c
	return c.jit.left(s)
}

func (c *code) Tail(s *engine.State) {
	s.Target = c.tail
	s.Code = c
}

func (c *code) Program() *engine.Program { return c.program }

func (c *code) Size() int { return len(c.mem.pages) }

func (c *code) Close() error {
	j := c.jit
	j.mu.Lock()
	defer j.mu.Unlock()
	if i, found := j.search(c.first); found && j.codes[i] == c {
		j.codes = slices.Delete(j.codes, i, i+1)
	}
	return c.mem.close()
}
