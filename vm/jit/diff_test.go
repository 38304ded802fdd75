//go:build linux && (amd64 || arm64)

package jit

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/cage"
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/interp"
)

var programs = flag.Int("programs", 3000, "how many random programs TestRandom compares")

var fixedSeed = flag.Uint64("seed", 0, "the seed of TestRandom, 0 for a new one")

func newCage(t testing.TB) *cage.Cage {
	t.Helper()
	c, err := cage.New(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A world is what the programs of one test run in: an engine, its cage and state,
// and their code.
type world struct {
	eng   engine.Engine
	mem   []byte
	s     *engine.State
	codes []engine.Code
	log   []uint64
	left  int // exits that may still happen
	depth int
}

const (
	stackTop   = 0x8008_0000
	stackDepth = 12
)

func newWorld(t testing.TB, eng engine.Engine, c *cage.Cage) *world {
	w := &world{eng: eng, s: engine.NewState(stackDepth)}
	w.mem = unsafe.Slice((*byte)(c.Base()), c.Size())
	w.s.Base = uintptr(c.Base())
	w.s.StackLimit = stackTop - (stackDepth-1)*engine.FrameSize
	w.s.CPU = 1
	t.Cleanup(func() { w.compile(t, engine.Options{}) }) // closes what there is
	return w
}

func (w *world) compile(t testing.TB, o engine.Options, ps ...*engine.Program) {
	for _, c := range w.codes {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	w.codes = w.codes[:0]
	for _, p := range ps {
		c, err := w.eng.Compile(p, o)
		if err != nil {
			t.Fatal(err)
		}
		w.codes = append(w.codes, c)
	}
}

// run runs function 0 of the first code, and notes every exit in w.log. The host
// that it plays depends on nothing but the registers.
func (w *world) run(args [5]uint64, budget int64) {
	w.s.Reset()
	w.log, w.left, w.depth = w.log[:0], 60, 0
	copy(w.s.Regs[1:6], args[:])
	w.s.Regs[10] = stackTop
	w.s.Budget = budget
	if err := w.codes[0].Start(w.s, 0); err != nil {
		panic(err)
	}
	w.drive(budget)
}

func (w *world) note(exit engine.Exit) {
	s := w.s
	w.log = append(w.log, uint64(exit), s.Regs[0], uint64(s.Budget))
	if exit == engine.Done {
		return
	}
	w.log = append(w.log, s.Regs[1:]...)
	w.log = append(w.log, uint64(slices.Index(w.codes, s.Code)))
	if exit != engine.Budget {
		w.log = append(w.log, uint64(s.Arg), uint64(s.PC))
	}
}

// drive reports whether the run reached its end.
func (w *world) drive(budget int64) bool {
	s := w.s
	for {
		exit := w.eng.Run(s)
		w.note(exit)
		if w.left--; w.left < 0 {
			return false
		}
		switch exit {
		case engine.Done:
			return true
		case engine.Budget:
			s.Budget = budget
		case engine.Packet:
			s.Regs[0] = s.Regs[0]*0x9e3779b97f4a7c15 + uint64(s.Arg)
			if s.Regs[0]>>60 < 4 {
				s.Fail = 1
			}
		case engine.TailCall:
			if n := s.Regs[3] % uint64(len(w.codes)+1); n > 0 {
				w.codes[n-1].Tail(s)
			} else {
				s.Regs[0] = ^uint64(1)
			}
		case engine.HostCall:
			h := s.Regs[1]
			for _, v := range s.Regs[2:6] {
				h = h*0x9e3779b97f4a7c15 + v
			}
			s.Regs[0] = h
			if s.Arg != 1 {
				break
			}
			// A callback.
			c := s.Code
			saved := s.Suspend()
			s.Regs[10] -= engine.FrameSize
			err := c.Start(s, int(h%uint64(len(c.Program().Funcs))))
			if err == nil {
				if !w.drive(budget) {
					return false
				}
				h = s.Regs[0]
			}
			s.Resume(saved)
			s.Regs[0] = h
		default:
			return false
		}
	}
}

func (p *progGen) imm() int32 {
	switch p.IntN(4) {
	case 0:
		return int32(p.IntN(16)) - 8
	case 1:
		return int32(1) << p.IntN(32)
	case 2:
		return []int32{0, 1, -1, 127, 128, -128, -129, 0x7fffffff, -0x80000000, 0xffff, 0x10000}[p.IntN(11)]
	}
	return int32(p.Uint32())
}

// A progGen writes random programs, of any instruction that has a valid form, with
// no regard to what they do.
type progGen struct {
	*rand.Rand
}

var (
	aluOps     = []isa.ALUOp{isa.Add, isa.Sub, isa.Mul, isa.Div, isa.SDiv, isa.Or, isa.And, isa.LSh, isa.RSh, isa.Neg, isa.Mod, isa.SMod, isa.Xor, isa.Mov, isa.ArSh, isa.End}
	jumpOps    = []isa.JumpOp{isa.Eq, isa.NE, isa.Set, isa.GT, isa.GE, isa.LT, isa.LE, isa.SGT, isa.SGE, isa.SLT, isa.SLE}
	sizes      = []isa.Size{isa.Byte, isa.Half, isa.Word, isa.Double}
	atomicOps  = []isa.AtomicOp{isa.AtomicAdd, isa.AtomicOr, isa.AtomicAnd, isa.AtomicXor, isa.FetchAdd, isa.FetchOr, isa.FetchAnd, isa.FetchXor, isa.Xchg, isa.CmpXchg, isa.LoadAcquireOp, isa.StoreReleaseOp}
	swapWidths = []int{16, 32, 64}
	hostCalls  = []engine.Call{
		{Kind: engine.CallHost, Name: "host"},
		{Kind: engine.CallHost, Name: "callback"},
		{Kind: engine.CallTail, Name: "tail"},
		{Kind: engine.CallArray, Base: 0x1000, Size: 8, Count: 1 << 20},
		{Kind: engine.CallPerCPUArray, Base: 0x4000_0000, Size: 24, Count: 1 << 24, Stride: 0x2000},
		{Kind: engine.CallCPU},
	}
)

func (p *progGen) reg() isa.Register { return isa.Register(p.IntN(10)) }

// any returns a register that is only read.
func (p *progGen) any() isa.Register { return isa.Register(p.IntN(11)) }

func pick[T any](p *progGen, of []T) T { return of[p.IntN(len(of))] }

func (p *progGen) off(size isa.Size) int16 {
	switch p.IntN(8) {
	case 0:
		return int16(p.Uint32())
	case 1:
		return int16(p.IntN(600)) - 520
	}
	return int16(p.IntN(64)-64) * int16(size.Bytes())
}

func (p *progGen) base() isa.Register {
	if p.IntN(3) > 0 {
		return isa.R10
	}
	return p.any()
}

func (p *progGen) alu() isa.Instruction {
	op := pick(p, aluOps)
	switch op {
	case isa.Neg:
		return pick(p, []isa.Instruction{isa.Neg64(p.reg()), isa.Neg32(p.reg())})
	case isa.End:
		bits := pick(p, swapWidths)
		return pick(p, []isa.Instruction{isa.SwapLE(p.reg(), bits), isa.SwapBE(p.reg(), bits), isa.Bswap(p.reg(), bits)})
	case isa.Mov:
		switch p.IntN(6) {
		case 0:
			return isa.MovSX64(p.reg(), p.any(), pick(p, []int{8, 16, 32}))
		case 1:
			return isa.MovSX32(p.reg(), p.any(), pick(p, []int{8, 16}))
		case 2:
			return isa.AddrSpaceCast(p.reg(), p.any(), 0, 1)
		}
	}
	switch p.IntN(4) {
	case 0:
		return isa.ALU64Imm(op, p.reg(), p.imm())
	case 1:
		return isa.ALU32Imm(op, p.reg(), p.imm())
	case 2:
		return isa.ALU32(op, p.reg(), p.any())
	}
	return isa.ALU64(op, p.reg(), p.any())
}

func (p *progGen) memory() isa.Instruction {
	size := pick(p, sizes)
	switch p.IntN(6) {
	case 0:
		return isa.LoadMem(size, p.reg(), p.base(), p.off(size))
	case 1:
		if size == isa.Double {
			size = isa.Word
		}
		return isa.LoadMemSX(size, p.reg(), p.base(), p.off(size))
	case 2:
		return isa.StoreImm(size, p.base(), p.off(size), p.imm())
	case 3:
		return isa.StoreMem(size, p.base(), p.off(size), p.any())
	case 4:
		if p.IntN(4) == 0 {
			return isa.LoadImm64(p.reg(), int64(p.Uint64())>>p.IntN(64))
		}
	}
	op := pick(p, atomicOps)
	switch op {
	case isa.LoadAcquireOp:
		return isa.LoadAcquire(size, p.reg(), p.base(), p.off(size))
	case isa.StoreReleaseOp:
		return isa.StoreRelease(size, p.base(), p.off(size), p.any())
	}
	if size.Bytes() < 4 {
		size = isa.Word
	}
	return isa.Atomic(op, size, p.base(), p.off(size), p.reg())
}

// jump leads anywhere within n slots of which the next is the at-th.
func (p *progGen) jump(at, n int) isa.Instruction {
	to := at + p.IntN(n-at)
	if p.IntN(6) == 0 {
		to = p.IntN(n)
	}
	off := int16(to - at)
	switch p.IntN(12) {
	case 0:
		return isa.Jump(off)
	case 1:
		return isa.JumpLong(int32(off))
	case 2:
		return isa.MayGoto(off)
	}
	op := pick(p, jumpOps)
	switch p.IntN(4) {
	case 0:
		return isa.JumpIf(op, p.any(), p.any(), off)
	case 1:
		return isa.JumpIf32(op, p.any(), p.any(), off)
	case 2:
		return isa.JumpIf32Imm(op, p.any(), p.imm(), off)
	}
	return isa.JumpIfImm(op, p.any(), p.imm(), off)
}

// program returns a program of a few functions.
func (p *progGen) program(t testing.TB) *engine.Program {
	var insns []isa.Instruction
	var funcs []int
	lengths := make([]int, 1+p.IntN(3))
	for f := range lengths {
		lengths[f] = 4 + p.IntN(40)
	}
	start := 0
	for _, n := range lengths {
		funcs = append(funcs, len(insns))
		for at := 0; at < n-1; {
			var insn isa.Instruction
			switch k := p.IntN(100); {
			case k < 45:
				insn = p.alu()
			case k < 78:
				insn = p.memory()
			case k < 92:
				insn = p.jump(at+1, n)
			case k < 95:
				callee, to := p.IntN(len(lengths)), 0
				for _, m := range lengths[:callee] {
					to += m
				}
				insn = isa.CallLocal(int32(to - (start + at + 1)))
			case k < 99:
				insn = isa.Call(int32(p.IntN(len(hostCalls))))
			default:
				insn = isa.LoadInd(isa.Half, p.reg(), p.imm())
			}
			if insn.IsWide() {
				if at+2 > n-1 {
					continue
				}
				at++
			}
			at++
			insns = append(insns, insn)
		}
		insns = append(insns, isa.Exit())
		start += n
	}
	prog, err := engine.New("random", insns, funcs, hostCalls)
	if err != nil {
		if strings.Contains(err.Error(), "no instruction of this function") {
			return p.program(t) // into the middle of a wide one
		}
		t.Fatal(err)
	}
	return prog
}

func listing(p *engine.Program) string {
	var b strings.Builder
	for i, insn := range p.Insns {
		fmt.Fprintf(&b, "%3d: %v", i, insn)
		if t := p.Target(i); t >= 0 {
			fmt.Fprintf(&b, "\t; -> %d", t)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// differ returns where two logs part, and what they say there.
func differ(a, b []uint64) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			from := max(0, i-12)
			return fmt.Sprintf("word %d: %#x, want %#x", i, a[from:min(i+8, len(a))], b[from:min(i+8, len(b))])
		}
	}
	if len(a) != len(b) {
		return fmt.Sprintf("%d words, want %d", len(a), len(b))
	}
	return ""
}

// TestRandom compares the JIT with the interpreter on random programs: every
// exit with all registers, and all memory at the end.
func TestRandom(t *testing.T) {
	seed := *fixedSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %#x", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	jit, err := New()
	if err != nil {
		t.Fatal(err)
	}
	jit.(*JIT).generate = auditedNative
	ourCage, theirCage := newCage(t), newCage(t)
	ours, theirs := newWorld(t, jit, ourCage), newWorld(t, interp.New(theirCage), theirCage)
	for at := 0; at < len(ours.mem); at += 8 {
		binary.LittleEndian.PutUint64(ours.mem[at:], r.Uint64())
	}
	copy(theirs.mem, ours.mem)
	equal := func(n int) bool { // what programs touch most each time, all now and then
		if n%2000 == 0 || n == *programs-1 {
			return bytes.Equal(ours.mem, theirs.mem)
		}
		at := stackTop % len(ours.mem)
		return bytes.Equal(ours.mem[at-1<<14:at+1<<13], theirs.mem[at-1<<14:at+1<<13])
	}
	exits := map[uint64]int{}
	for n := range *programs {
		g := &progGen{rand.New(rand.NewPCG(seed, uint64(n+1)))}
		ps := []*engine.Program{g.program(t), g.program(t)}
		jit.(*JIT).options = nativeOptions()
		if n%8 == 0 {
			jit.(*JIT).options = options{} // as if the processor had no extensions
		}
		ours.compile(t, engine.Options{Blind: n%2 == 1, DirectTailCalls: n%4 < 2}, ps...)
		theirs.compile(t, engine.Options{}, ps...)
		args := [5]uint64{g.Uint64(), uint64(g.Uint32()), uint64(g.IntN(100)), g.Uint64() >> g.IntN(64), 0}
		budget := int64(1 + g.IntN(500))
		theirs.run(args, budget)
		ours.run(args, budget)
		diff := differ(ours.log, theirs.log)
		if diff != "" || !equal(n) {
			t.Fatalf("program %d of seed %#x, args %#x, budget %d: memory is the same: %v; exits differ at %s\n%s\n%s", n, seed, args, budget,
				bytes.Equal(ours.mem, theirs.mem), diff, listing(ps[0]), listing(ps[1]))
		}
		for _, e := range ours.log[:1] {
			exits[e]++
		}
	}
	t.Logf("first exits: %v", exits)
}
