package vm

import (
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/interp"
)

// A Step is the moment before an instruction. It is good until the function that
// it was given to returns; see [Options.Step].
type Step struct {
	r *run
	s *engine.State
}

// A StepFrame is a function that runs, or waits for one that it called.
type StepFrame struct {
	Program *Program
	// Insn is the index of the instruction that is next, or of the call.
	Insn int
	// FP is r10 of the function, and Saved are r6 to r9 where they are known:
	// those of functions that wait for another.
	FP    uint64
	Saved [4]uint64
}

// stepper makes a function of the host one that the engine calls.
func (vm *VM) stepper(step func(*Step) error) func(*engine.State) bool {
	return func(s *engine.State) bool {
		r := vm.runs[s.CPU]
		if err := step(&Step{r: r, s: s}); err != nil {
			r.giveUp(err)
			return false
		}
		return true
	}
}

// Program returns the program whose instruction it is: another one than was
// started after a tail call.
func (s *Step) Program() *Program { return s.r.vm.programOf(s.s.Code) }

// Insn returns the index of the instruction in the program; wide loads count
// once.
func (s *Step) Insn() int { return int(s.s.PC) }

// Regs are r0 to r10. They may be changed, but for r10.
func (s *Step) Regs() *[11]uint64 { return &s.s.Regs }

// CPU is the virtual processor.
func (s *Step) CPU() int { return s.r.cpu }

// Callbacks is how many callbacks of helpers the function is in.
func (s *Step) Callbacks() int { return s.r.depth }

// Frames returns the functions that run, the innermost first, up to the program
// or the callback that it is in.
func (s *Step) Frames() []StepFrame {
	e, ok := s.r.vm.engine.(*interp.Stepper)
	if !ok {
		return nil
	}
	var list []StepFrame
	for i, f := range e.Frames(s.s) {
		list = append(list, StepFrame{
			Program: s.r.vm.programOf(f.Code), Insn: f.PC, FP: s.s.Regs[10] + uint64(i)*engine.FrameSize, Saved: f.Callee,
		})
	}
	return list
}

// Memory returns n bytes at an address of the program: of its stack, its context,
// its packet, a map's value. ok is false for what is no memory of the vm.
func (s *Step) Memory(addr uint64, n int) (b []byte, ok bool) {
	if n < 0 {
		return nil, false
	}
	return s.r.bytes(addr, uint64(n))
}

// Map returns the map that a register stands for, or nil.
func (s *Step) Map(addr uint64) *Map { return s.r.vm.mapAt(addr) }

// Packet returns the packet as it is, nil where there is none, and the address of
// its first byte.
func (s *Step) Packet() (data []byte, addr uint64) {
	k := &s.r.packet
	if k.end == k.data {
		return nil, 0
	}
	return s.r.bytesOf(k.data, k.end), uint64(k.buf) + uint64(k.data)
}
