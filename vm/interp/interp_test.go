package interp_test

import (
	"math"
	"testing"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/cage"
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/interp"
)

type machine struct {
	e *interp.Engine
	s *engine.State
	c *cage.Cage
}

const stackTop = 1 << 20

func newMachine(t testing.TB) *machine {
	t.Helper()
	c, err := cage.New(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m := &machine{e: interp.New(c), s: engine.NewState(8), c: c}
	m.s.Base = uintptr(c.Base())
	m.s.StackLimit = stackTop - 8*engine.FrameSize + engine.FrameSize
	return m
}

func (m *machine) compile(t testing.TB, funcs []int, calls []engine.Call, insns ...isa.Instruction) engine.Code {
	t.Helper()
	p, err := engine.New("test", insns, funcs, calls)
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.e.Compile(p, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *machine) start(t testing.TB, c engine.Code, fn int) {
	t.Helper()
	m.s.Regs[10] = stackTop
	m.s.Budget = engine.Quantum
	if err := c.Start(m.s, fn); err != nil {
		t.Fatal(err)
	}
}

// The corners of RFC 9669, section 4.
func TestArithmetic(t *testing.T) {
	m := newMachine(t)
	minInt64, minInt32 := uint64(1<<63), uint64(1<<31)
	for _, c := range []struct {
		name string
		in   isa.Instruction
		a, b uint64 // r0 and r1 before
		want uint64
	}{
		{"division by zero", isa.ALU64(isa.Div, 0, 1), 7, 0, 0},
		{"remainder by zero", isa.ALU64(isa.Mod, 0, 1), 7, 0, 7},
		{"remainder by zero in 32 bits", isa.ALU32(isa.Mod, 0, 1), 7<<32 | 5, 0, 5},
		{"smallest by -1", isa.ALU64(isa.SDiv, 0, 1), minInt64, math.MaxUint64, minInt64},
		{"remainder of the smallest by -1", isa.ALU64(isa.SMod, 0, 1), minInt64, math.MaxUint64, 0},
		{"smallest by -1 in 32 bits", isa.ALU32(isa.SDiv, 0, 1), minInt32, math.MaxUint32, minInt32},
		{"signed division", isa.ALU64Imm(isa.SDiv, 0, -3), uint64(10), 0, uint64(math.MaxUint64 - 2)},
		{"signed remainder", isa.ALU64Imm(isa.SMod, 0, 3), uint64(math.MaxUint64 - 9), 0, math.MaxUint64},
		{"unsigned division by a negative number", isa.ALU64Imm(isa.Div, 0, -1), math.MaxUint64, 0, 1},
		{"shift counts", isa.ALU64(isa.LSh, 0, 1), 1, 65, 2},
		{"shift counts in 32 bits", isa.ALU32(isa.ArSh, 0, 1), 0x80000000, 33, 0xc0000000},
		{"arithmetic shift", isa.ALU64Imm(isa.ArSh, 0, 63), minInt64, 0, math.MaxUint64},
		{"32 bits clear the rest", isa.ALU32Imm(isa.Add, 0, 1), math.MaxUint64, 0, 0},
		{"immediates are signed", isa.ALU64Imm(isa.And, 0, -2), math.MaxUint64, 0, math.MaxUint64 - 1},
		{"negation in 32 bits", isa.Neg32(0), 1, 0, math.MaxUint32},
		{"sign extension", isa.MovSX64(0, 1, 8), 0, 0x80, math.MaxUint64 - 0x7f},
		{"sign extension in 32 bits", isa.MovSX32(0, 1, 16), 0, 0x8000, 0xffff8000},
		{"bswap16", isa.Bswap(0, 16), 0x1234567890abcdef, 0, 0xefcd},
		{"bswap64", isa.Bswap(0, 64), 0x1234567890abcdef, 0, 0xefcdab9078563412},
	} {
		code := m.compile(t, []int{0}, nil,
			isa.LoadImm64(0, int64(c.a)), isa.LoadImm64(1, int64(c.b)), c.in, isa.Exit())
		m.start(t, code, 0)
		if exit := m.e.Run(m.s); exit != engine.Done || m.s.Regs[0] != c.want {
			t.Errorf("%s: %v with %#x, want %#x", c.name, exit, m.s.Regs[0], c.want)
		}
	}
}

// A run leaves when its budget is spent and goes on to the same end.
func TestBudget(t *testing.T) {
	m := newMachine(t)
	code := m.compile(t, []int{0}, nil,
		isa.Mov64Imm(1, 1000), isa.ALU64Imm(isa.Add, 0, 2), isa.ALU64Imm(isa.Sub, 1, 1), isa.JumpIfImm(isa.NE, 1, 0, -3), isa.Exit())
	m.start(t, code, 0)
	left := 0
	for m.s.Budget = 10; m.e.Run(m.s) == engine.Budget; left++ {
		m.s.Budget = 10
	}
	if m.s.Exit != engine.Done || m.s.Regs[0] != 2000 || left < 200 {
		t.Errorf("%v with %d, after %d budgets", m.s.Exit, m.s.Regs[0], left)
	}
}

// Calls nest to eight frames, and r6 to r9 are the caller's.
func TestCalls(t *testing.T) {
	m := newMachine(t)
	// f calls itself r1 times, and adds what r6 was.
	code := m.compile(t, []int{0, 3}, nil,
		isa.Mov64Imm(6, 100), isa.CallLocal(1), isa.Exit(),
		isa.Mov64(6, 1), isa.ALU64Imm(isa.Sub, 1, 1), isa.Mov64Imm(0, 0), isa.JumpIfImm(isa.Eq, 6, 0, 1), isa.CallLocal(-5), isa.ALU64(isa.Add, 0, 6), isa.Exit())
	m.s.Regs[1] = 6
	m.start(t, code, 0)
	if exit := m.e.Run(m.s); exit != engine.Done || m.s.Regs[0] != 21 {
		t.Errorf("%v with %d", exit, m.s.Regs[0])
	}
	m.s.Regs[1] = 20
	m.start(t, code, 0)
	if exit := m.e.Run(m.s); exit != engine.Fault || engine.FaultClass(m.s.Arg) != engine.FaultStack {
		t.Errorf("too deep: %v %d", exit, m.s.Arg)
	}
	m.s.Reset()
}

// A tail call in a subprogram returns to the caller of the subprogram, in the
// program that called it.
func TestTailCall(t *testing.T) {
	m := newMachine(t)
	other := m.compile(t, []int{0}, nil, isa.Mov64Imm(0, 5), isa.Exit())
	code := m.compile(t, []int{0, 3}, []engine.Call{{Kind: engine.CallTail}},
		isa.CallLocal(2), isa.ALU64Imm(isa.Add, 0, 1), isa.Exit(),
		isa.Call(0), isa.Mov64Imm(0, 70), isa.Exit())
	for _, follow := range []bool{true, false} {
		m.start(t, code, 0)
		if exit := m.e.Run(m.s); exit != engine.TailCall || m.s.PC != 3 {
			t.Fatalf("%v at %d", exit, m.s.PC)
		}
		want := uint64(71)
		if follow {
			other.Tail(m.s)
			want = 6
		}
		if exit := m.e.Run(m.s); exit != engine.Done || m.s.Regs[0] != want || m.s.Code != code {
			t.Errorf("%v with %d, want %d", exit, m.s.Regs[0], want)
		}
	}
}

func TestAtomicFault(t *testing.T) {
	m := newMachine(t)
	for _, size := range []isa.Size{isa.Word, isa.Double} {
		code := m.compile(t, []int{0}, nil, isa.Mov64Imm(0, 1), isa.Atomic(isa.FetchAdd, size, 10, -3, 0), isa.Exit())
		m.start(t, code, 0)
		if exit := m.e.Run(m.s); exit != engine.Fault || engine.FaultClass(m.s.Arg) != engine.FaultAlign || m.s.PC != 1 {
			t.Errorf("%v: %v %d at %d", size, exit, m.s.Arg, m.s.PC)
		}
		m.s.Reset()
	}
}

// The numbers of closed programs are used again.
func TestClose(t *testing.T) {
	m := newMachine(t)
	for range 1000 {
		if err := m.compile(t, []int{0}, nil, isa.Exit()).Close(); err != nil {
			t.Fatal(err)
		}
	}
	code := m.compile(t, []int{0}, nil, isa.Mov64Imm(0, 3), isa.Exit())
	m.start(t, code, 0)
	if m.e.Run(m.s) != engine.Done || m.s.Regs[0] != 3 {
		t.Errorf("r0 is %d", m.s.Regs[0])
	}
}
