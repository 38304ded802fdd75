package interp

import (
	"sync"

	"github.com/skep-bpf/skep/vm/cage"
	"github.com/skep-bpf/skep/vm/engine"
)

// A Stepper is an Engine that asks before each instruction. What it compiles
// consists of stops; the one that is run is put in place for the time it takes. So
// an Engine that does not step has nothing to look at.
type Stepper struct {
	Engine
	before func(s *engine.State) bool
	mu     sync.Mutex // held while an instruction stands in place of its stop
}

// stepped is how run comes back from a stop. It never leaves this package.
const stepped = ^engine.Exit(0)

// NewStepper returns an engine for programs over c. It calls before for each
// instruction, which is number s.PC of s.Code. If that returns false, the run
// leaves by [engine.Budget] without executing it.
//
// An instruction that jumps to itself counts as one, however often it does.
func NewStepper(c *cage.Cage, before func(s *engine.State) bool) *Stepper {
	e := &Stepper{before: before}
	e.memory = newMemory(c)
	e.codes.Store(&[]*code{nil})
	return e
}

// Compile implements [engine.Engine].
func (e *Stepper) Compile(p *engine.Program, o engine.Options) (engine.Code, error) {
	x, err := e.Engine.Compile(p, o)
	if err != nil {
		return nil, err
	}
	c := x.(*code)
	c.stepper, c.real = e, c.insns
	c.insns = make([]insn, len(c.real))
	for i := range c.insns {
		c.insns[i].op = opStop
	}
	return c, nil
}

// Run implements [engine.Engine].
func (e *Stepper) Run(s *engine.State) engine.Exit {
	for {
		if s.Budget < 0 {
			s.Exit = engine.Budget
			return s.Exit
		}
		c, i := s.Code.(*code), s.ResumePC
		// After a packet access that failed, the function returns without an
		// instruction of its own.
		if s.Fail == 0 {
			s.PC = uint32(i)
			if !e.before(s) {
				s.Exit = engine.Budget
				return s.Exit
			}
		}
		if exit := e.one(s, c, i); exit != stepped {
			s.Exit = exit
			return exit
		}
	}
}

// one runs instruction i of c.
func (e *Stepper) one(s *engine.State, c *code, i uintptr) engine.Exit {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.Fail != 0 {
		return e.run(s, c)
	}
	c.insns[i] = c.real[i]
	defer func() { c.insns[i] = insn{op: opStop} }()
	return e.run(s, c)
}

// A Frame is an activation of a function.
type Frame struct {
	Code engine.Code
	// PC is the instruction that runs next, or the call that has not returned.
	PC int
	// Callee are r6 to r9 as the function that this one called found them. The
	// innermost frame has none.
	Callee [4]uint64
}

// Frames returns the activations of a run that before was called for, the
// innermost first, up to where the host started it.
func (e *Stepper) Frames(s *engine.State) []Frame {
	list := []Frame{{Code: s.Code, PC: int(s.PC)}}
	for sp := s.SP; sp != 0 && int(sp)+engine.FrameWords <= len(s.Stack); sp += engine.FrameWords {
		f := s.Stack[sp:]
		if f[frameReturn] == toHost {
			break
		}
		c := (*e.codes.Load())[f[frameCode]]
		list = append(list, Frame{Code: c, PC: int(f[frameReturn]) - 1, Callee: [4]uint64(f[frameR6:])})
	}
	return list
}
