package engine_test

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// TestOffsets holds the constants that generated code uses against the layout
// that the compiler chose.
func TestOffsets(t *testing.T) {
	var s engine.State
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"Regs", engine.OffsetRegs, unsafe.Offsetof(s.Regs)},
		{"Base", engine.OffsetBase, unsafe.Offsetof(s.Base)},
		{"Budget", engine.OffsetBudget, unsafe.Offsetof(s.Budget)},
		{"Exit", engine.OffsetExit, unsafe.Offsetof(s.Exit)},
		{"Arg", engine.OffsetArg, unsafe.Offsetof(s.Arg)},
		{"PC", engine.OffsetPC, unsafe.Offsetof(s.PC)},
		{"CPU", engine.OffsetCPU, unsafe.Offsetof(s.CPU)},
		{"StackLimit", engine.OffsetStackLimit, unsafe.Offsetof(s.StackLimit)},
		{"Fail", engine.OffsetFail, unsafe.Offsetof(s.Fail)},
		{"ResumePC", engine.OffsetResumePC, unsafe.Offsetof(s.ResumePC)},
		{"SP", engine.OffsetSP, unsafe.Offsetof(s.SP)},
		{"HostSP", engine.OffsetHostSP, unsafe.Offsetof(s.HostSP)},
		{"Target", engine.OffsetTarget, unsafe.Offsetof(s.Target)},
		{"Scratch", engine.OffsetScratch, unsafe.Offsetof(s.Scratch)},
	} {
		if f.got != f.want {
			t.Errorf("Offset%s is %d, the field is at %d", f.name, f.got, f.want)
		}
	}
}

func TestNew(t *testing.T) {
	exit := isa.Exit()
	wide := isa.LoadImm64(isa.R0, 1<<40)
	for _, c := range []struct {
		name  string
		insns []isa.Instruction
		funcs []int
		calls []engine.Call
		want  string // part of the error; empty: none
	}{
		{"smallest", []isa.Instruction{exit}, []int{0}, nil, ""},
		{"empty", nil, []int{0}, nil, "empty"},
		{"no function", []isa.Instruction{exit}, nil, nil, "no function at its start"},
		{"function behind the end", []isa.Instruction{exit}, []int{0, 1}, nil, "not ascending"},
		{"two at one place", []isa.Instruction{exit, exit}, []int{0, 1, 1}, nil, "not ascending"},
		{"off the end", []isa.Instruction{isa.Mov64Imm(isa.R0, 0)}, []int{0}, nil, "run off its end"},
		{"first function off its end", []isa.Instruction{wide, exit}, []int{0, 1}, nil, "run off its end"},
		{"into an immediate", []isa.Instruction{isa.Jump(1), wide, exit}, []int{0}, nil, "no instruction"},
		{"over an immediate", []isa.Instruction{isa.Jump(2), wide, exit}, []int{0}, nil, ""},
		{"out of the function", []isa.Instruction{isa.Jump(1), exit, exit}, []int{0, 2}, nil, "no instruction of this function"},
		{"before the start", []isa.Instruction{isa.Jump(-2), exit}, []int{0}, nil, "no instruction"},
		{"r10", []isa.Instruction{isa.Mov64Imm(isa.R10, 0), exit}, []int{0}, nil, "read only"},
		{"r10 by xchg", []isa.Instruction{isa.Atomic(isa.Xchg, isa.Double, isa.R1, 0, isa.R10), exit}, []int{0}, nil, "read only"},
		{"r10 to cmpxchg", []isa.Instruction{isa.Atomic(isa.CmpXchg, isa.Double, isa.R1, 0, isa.R10), exit}, []int{0}, nil, ""},
		{"call of nothing", []isa.Instruction{isa.Call(1), exit}, []int{0}, make([]engine.Call, 1), "not in the table"},
		{"call", []isa.Instruction{isa.Call(0), exit}, []int{0}, make([]engine.Call, 1), ""},
		{"call into a function", []isa.Instruction{isa.CallLocal(1), exit, wide, exit}, []int{0, 2}, nil, ""},
		{"call beside a function", []isa.Instruction{isa.CallLocal(3), exit, wide, exit}, []int{0, 2}, nil, "no function starts"},
		{"bad form", []isa.Instruction{{Op: 0xff}, exit}, []int{0}, nil, "unknown opcode"},
	} {
		_, err := engine.New("p", c.insns, c.funcs, c.calls)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.want)
		}
	}
}

func TestTargetsAndCosts(t *testing.T) {
	p, err := engine.New("p", []isa.Instruction{
		isa.LoadImm64(isa.R1, 3), // 0
		isa.CallLocal(3),         // 1
		isa.ALU64Imm(isa.Sub, isa.R1, 1),
		isa.JumpIfImm(isa.NE, isa.R1, 0, -3), // 3: back to 1
		isa.Exit(),                           // 4
		isa.Jump(-1),                         // 5: itself
	}, []int{0, 5}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{-1, 1, -1, 1, -1, 5} {
		if got := p.Target(i); got != want {
			t.Errorf("target of %d is %d, want %d", i, got, want)
		}
	}
	if back, self := p.JumpCost(3), p.JumpCost(5); back != 3 || self != 1 {
		t.Errorf("jumps back cost %d and %d, want 3 and 1", back, self)
	}
	if p.EntryCost(0) != 5 || p.EntryCost(1) != 1 || p.FuncOf(4) != 0 || p.FuncOf(5) != 1 {
		t.Errorf("entry costs %d and %d, functions of 4 and 5: %d and %d", p.EntryCost(0), p.EntryCost(1), p.FuncOf(4), p.FuncOf(5))
	}
}
