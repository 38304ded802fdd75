package engine

import (
	"fmt"
	"slices"

	"github.com/skep-bpf/skep/isa"
)

// Program is a linked program: nothing in it is left to be resolved. It does not
// change once New has made it, and engines may share it.
type Program struct {
	// Name is for messages.
	Name string
	// Insns are the instructions of all functions. A 64-bit immediate is a plain
	// number (Src is 0): maps are cage addresses or handles, functions
	// are what the host's bpf_loop and its like understand. A call with Src
	// isa.CallHelper has an index into Calls as its immediate; there is none with
	// isa.CallKernel. Calls with isa.CallPseudo and jumps are as RFC 9669 has
	// them, in slots.
	Insns []isa.Instruction
	// Funcs are the indices of the functions' first instructions, ascending.
	// Functions lie one behind the other; the first is where the program starts.
	Funcs []int
	// Calls is what the program asks of its host.
	Calls []Call

	targets []int32 // of jumps: an instruction; of local calls: a function; else -1
}

// CallKind says what a call does. Engines know the kinds that are worth
// not leaving for.
type CallKind uint8

const (
	// CallHost leaves by HostCall.
	CallHost CallKind = iota
	// CallTail leaves by TailCall.
	CallTail
	// CallArray looks up an array: with k the 32-bit word at r2, r0 is Base + k*Size
	// if k < Count, else 0. The other registers stay.
	CallArray
	// CallPerCPUArray is CallArray with Base + State.CPU*Stride as its base.
	CallPerCPUArray
	// CallCPU sets r0 to State.CPU.
	CallCPU
)

// Call is one entry of a program's table of calls.
type Call struct {
	Kind CallKind
	// Name is for messages and listings.
	Name string
	// Base is the cage address of an array's first value, Size the distance of
	// values, Count their number, and Stride the distance between the arrays of
	// two CPUs. All results must be below 4 GiB.
	Base, Size, Count, Stride uint32
}

// New checks the form of a program and links its jumps; see [Program] for the
// arguments. It fails with an [*isa.EncodingError] for the first instruction that
// is wrong.
func New(name string, insns []isa.Instruction, funcs []int, calls []Call) (*Program, error) {
	p := &Program{Name: name, Insns: insns, Funcs: funcs, Calls: calls}
	if len(insns) == 0 {
		return nil, fmt.Errorf("program %s is empty", name)
	}
	if len(funcs) == 0 || funcs[0] != 0 {
		return nil, fmt.Errorf("program %s has no function at its start", name)
	}
	for i, f := range funcs[1:] {
		if f <= funcs[i] || f >= len(insns) {
			return nil, fmt.Errorf("program %s: functions start at %v, which is not ascending within %d instructions", name, funcs, len(insns))
		}
	}
	slots := make([]int, len(insns)+1)
	for i, insn := range insns {
		slots[i+1] = slots[i] + insn.Size()
	}
	fail := func(i int, format string, args ...any) error {
		return fmt.Errorf("program %s: %w", name, &isa.EncodingError{Index: i, Slot: slots[i], Err: fmt.Errorf(format, args...)})
	}
	p.targets = make([]int32, len(insns))
	for f, start := range funcs {
		end := p.End(f)
		for i := start; i < end; i++ {
			insn := insns[i]
			if err := insn.Check(); err != nil {
				return nil, fail(i, "%w", err)
			}
			if Writes(insn, isa.R10) {
				return nil, fail(i, "r10 is read only")
			}
			p.targets[i] = -1
			switch jump, ok := insn.Jump(); {
			case ok:
				at, found := slices.BinarySearch(slots[:len(insns)], slots[i+1]+jump)
				if !found || at < start || at >= end {
					return nil, fail(i, "jump to slot %d, which is no instruction of this function", slots[i+1]+jump)
				}
				p.targets[i] = int32(at)
			case insn.IsWide() && insn.Src != 0:
				return nil, fail(i, "64-bit immediate of kind %d is not linked", insn.Src)
			case insn.IsCall() && insn.Src == isa.CallPseudo:
				at, found := slices.BinarySearch(slots[:len(insns)], slots[i+1]+int(insn.Imm))
				callee, starts := slices.BinarySearch(funcs, at)
				if !found || !starts {
					return nil, fail(i, "call to slot %d, where no function starts", slots[i+1]+int(insn.Imm))
				}
				p.targets[i] = int32(callee)
			case insn.IsCall() && insn.Src == isa.CallKernel:
				return nil, fail(i, "call of a kernel function is not linked")
			case insn.IsCall() && (insn.Imm < 0 || insn.Imm >= int64(len(calls))):
				return nil, fail(i, "call %d is not in the table of %d calls", insn.Imm, len(calls))
			}
		}
		if last := insns[end-1]; !last.IsExit() && !isGoto(last) {
			return nil, fail(end-1, "the function can run off its end")
		}
	}
	return p, nil
}

func isGoto(i isa.Instruction) bool { return i.Class().IsJump() && i.Op.JumpOp() == isa.Always }

// Writes reports whether the instruction i names r and writes it. What calls,
// packet accesses and CmpXchg do to r0 to r5 without naming them does not count.
func Writes(i isa.Instruction, r isa.Register) bool {
	switch i.Class() {
	case isa.ClassALU, isa.ClassALU64, isa.ClassLDX:
		return i.Dst == r
	case isa.ClassLD:
		return i.IsWide() && i.Dst == r
	case isa.ClassSTX:
		if !i.IsAtomic() {
			return false
		}
		op := i.AtomicOp()
		if op == isa.LoadAcquireOp {
			return i.Dst == r
		}
		return op&isa.Fetch != 0 && op != isa.CmpXchg && i.Src == r
	}
	return false
}

// End returns the index behind the last instruction of function f.
func (p *Program) End(f int) int {
	if f+1 < len(p.Funcs) {
		return p.Funcs[f+1]
	}
	return len(p.Insns)
}

// FuncOf returns the function that instruction i belongs to.
func (p *Program) FuncOf(i int) int {
	f, found := slices.BinarySearch(p.Funcs, i)
	if !found {
		f--
	}
	return f
}

// Target returns the index of the instruction that the jump i leads to, the
// function that the local call i enters, and -1 for other instructions.
func (p *Program) Target(i int) int { return int(p.targets[i]) }

// EntryCost returns what the entry of function f charges.
func (p *Program) EntryCost(f int) int { return p.End(f) - p.Funcs[f] }

// JumpCost returns what jump i charges when it is taken: nothing when it leads
// forward.
func (p *Program) JumpCost(i int) int {
	if t := p.Target(i); t <= i {
		return i - t + 1
	}
	return 0
}
