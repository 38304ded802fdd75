package vm

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// TestStep watches a program with a callback, changes a register and ends a run.
func TestStep(t *testing.T) {
	stop := errors.New("enough")
	var deepest, steps int
	var packet []byte
	limit := 1 << 30
	v, err := New(Options{CPUs: 1, Step: func(s *Step) error {
		steps++
		deepest = max(deepest, s.Callbacks())
		if steps == 1 && packet == nil {
			b, _ := s.Packet()
			packet = append(packet, b...)
			if s.Program().Name() != "p" || s.Insn() != 0 || len(s.Frames()) != 1 || s.Frames()[0].FP != s.Regs()[10] {
				t.Errorf("at instruction %d of %v: %v", s.Insn(), s.Program(), s.Frames())
			}
			if b, ok := s.Memory(s.Regs()[1], 4); !ok || native.Uint32(b) == 0 {
				t.Errorf("the context begins with %x", b)
			}
		}
		if s.Insn() == 7 {
			s.Regs()[0] += 40
		}
		if steps >= limit {
			return stop
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	p, err := v.NewProgram(&ebpf.ProgramSpec{Name: "p", Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R1, 3).WithSymbol("p"),
		asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference("each"),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnLoop.Call(),
		asm.Mov.Imm(asm.R6, 0),
		asm.Mov.Imm(asm.R7, 0),
		asm.Return(), // 7
		asm.Mov.Imm(asm.R0, 0).WithSymbol("each"),
		asm.Return(),
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 64)
	in[5] = 7
	got, _, err := p.Test(in)
	if got != 43 || err != nil || steps != 8+3*2 || deepest != 1 {
		t.Errorf("%d, %v after %d steps, %d callbacks deep; want 43 after 14, 1 deep", got, err, steps, deepest)
	}
	if len(packet) != 64 || packet[5] != 7 {
		t.Errorf("the packet is %x", packet)
	}
	steps, limit = 0, 6
	var run *RunError
	if _, _, err := p.Test(in); !errors.Is(err, stop) || !errors.As(err, &run) || run.Program != "p" {
		t.Errorf("%v, want that the run was ended", err)
	}
	// What was ended leaves nothing behind.
	steps, limit = 0, 1<<30
	if got, _, err := p.Test(in); got != 43 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}
