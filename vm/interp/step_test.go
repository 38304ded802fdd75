package interp_test

import (
	"slices"
	"testing"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/cage"
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/interp"
)

// TestStepper runs a program with a loop, a function, an atomic, a host call, a
// failed packet access and a spent budget, and holds the order of its steps and
// its result against those that the interpreter gives.
func TestStepper(t *testing.T) {
	insns := []isa.Instruction{
		isa.Mov64Imm(isa.R6, 2),                                    // 0
		isa.Mov64(isa.R1, isa.R6),                                  // 1
		isa.CallLocal(9),                                           // 2: to 12, as slots
		isa.StoreMem(isa.Double, isa.R10, -8, isa.R0),              // 3
		isa.Atomic(isa.AtomicAdd, isa.Double, isa.R10, -8, isa.R6), // 4
		isa.ALU64Imm(isa.Sub, isa.R6, 1),                           // 5
		isa.JumpIfImm(isa.NE, isa.R6, 0, -6),                       // 6: to 1
		isa.Call(0),                                                // 7
		isa.LoadMem(isa.Double, isa.R1, isa.R10, -8),               // 8
		isa.ALU64(isa.Add, isa.R0, isa.R1),                         // 9
		isa.Exit(),                                                 // 10
		isa.Exit(),                                                 // 11
		isa.Mov64Imm(isa.R6, 5),                                    // 12: a function
		isa.LoadAbs(isa.Byte, 100),                                 // 13: returns 0 from it
		isa.Exit(),                                                 // 14
	}
	p, err := engine.New("p", insns, []int{0, 12}, []engine.Call{{Kind: engine.CallHost, Name: "host"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := cage.New(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run := func(e engine.Engine, budget int64) (result uint64, budgets int) {
		s := engine.NewState(8)
		s.Base = uintptr(c.Base())
		s.StackLimit = stackTop - 7*engine.FrameSize
		s.Regs[10] = stackTop
		s.Budget = budget
		code, err := e.Compile(p, engine.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer code.Close()
		if err := code.Start(s, 0); err != nil {
			t.Fatal(err)
		}
		for {
			switch exit := e.Run(s); exit {
			case engine.Done:
				return s.Regs[0], budgets
			case engine.HostCall:
				s.Regs[0] = 100
			case engine.Packet:
				s.Fail = 1
			case engine.Budget:
				budgets++
				s.Budget = budget
			default:
				t.Fatal(exit)
			}
		}
	}
	want, n := run(interp.New(c), 15)
	if want != 101 || n == 0 {
		t.Fatalf("%d after %d budgets", want, n)
	}
	var steps []int
	var depth []int
	var e *interp.Stepper
	e = interp.NewStepper(c, func(s *engine.State) bool {
		steps = append(steps, int(s.PC))
		frames := e.Frames(s)
		depth = append(depth, len(frames))
		if len(frames) == 2 && (frames[1].PC != 2 || frames[1].Callee[0] == 0) {
			t.Errorf("called from %d, with r6 %d", frames[1].PC, frames[1].Callee[0])
		}
		return true
	})
	got, again := run(e, 15)
	if got != want || again != n {
		t.Errorf("%d after %d budgets, want %d after %d", got, again, want, n)
	}
	if w := []int{0, 1, 2, 12, 13, 3, 4, 5, 6, 1, 2, 12, 13, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(steps, w) {
		t.Errorf("steps %v, want %v", steps, w)
	}
	if w := []int{1, 1, 1, 2, 2, 1}; !slices.Equal(depth[:6], w) {
		t.Errorf("depths %v, want %v", depth[:6], w)
	}
	// A run that is stopped has not done the instruction.
	e = interp.NewStepper(c, func(s *engine.State) bool { return s.PC != 0 })
	s := engine.NewState(8)
	s.Base, s.StackLimit, s.Budget = uintptr(c.Base()), stackTop-7*engine.FrameSize, 100
	s.Regs[10] = stackTop
	code, err := e.Compile(p, engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := code.Start(s, 0); err != nil {
		t.Fatal(err)
	}
	if exit := e.Run(s); exit != engine.Budget || s.Regs[6] != 0 {
		t.Errorf("%v, r6 is %d", exit, s.Regs[6])
	}
}
