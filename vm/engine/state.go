package engine

import (
	"fmt"
	"math"
)

// FrameSize is by how many bytes a local call lowers r10: the stack that a
// function has (MAX_BPF_STACK in include/linux/filter.h).
const FrameSize = 512

// MaxLoops is how often the may_goto of one activation of a function fall
// through before they jump (BPF_MAX_LOOPS in include/linux/bpf.h).
const MaxLoops = 8 << 20

// Quantum is the budget that keeps a run in native code, where Go can neither
// preempt it nor collect garbage, well below a millisecond even if every
// instruction misses the caches, while leaving costs below a percent. It does not
// bound what the first touch of a page costs, some microseconds: a host that runs
// hostile programs looks at the clock at each Budget exit, and halves the budget
// of a run that stays too long.
const Quantum = 1 << 13

// Exit says why a run came back.
type Exit uint32

const (
	// Done: function 0, or the function that was started, returned Regs[0].
	Done Exit = iota
	// HostCall: the program calls Program.Calls[Arg] with r1 to r5. The host puts
	// the result into Regs[0] and runs on.
	HostCall
	// TailCall: the program wants to be replaced, by Program.Calls[Arg] of kind
	// CallTail, with r1 the context, r2 the map and r3 the index. The host
	// calls Code.Tail of the target, or sets Regs[0], and runs on.
	TailCall
	// Packet: a legacy packet access (BPF_ABS, BPF_IND) of Arg bytes at the
	// packet offset Regs[0], a 32-bit number, sign extended (negative ones are the
	// kernel's SKF_AD_OFF and its like); r6 is the context. The host puts the value
	// in host byte order into Regs[0], or sets Fail; then the function returns 0.
	Packet
	// Budget: the budget is below zero. The host sets a new one and runs on.
	Budget
	// Fault: the program did what a verified one cannot; Arg is the FaultClass.
	// The run is over.
	Fault
)

func (e Exit) String() string {
	if int(e) < len(exitNames) {
		return exitNames[e]
	}
	return fmt.Sprintf("exit %d", uint32(e))
}

var exitNames = [...]string{"done", "host call", "tail call", "packet access", "budget spent", "fault"}

// FaultClass says what a faulty program did. It is the error of its run.
type FaultClass uint32

const (
	// FaultStack: calls nest deeper than State.StackLimit allows.
	FaultStack FaultClass = 1 + iota
	// FaultAlign: an atomic access at an address that is no multiple of its size.
	FaultAlign
	// FaultIdle: the host ran a state in which nothing runs.
	FaultIdle
)

func (f FaultClass) Error() string {
	switch f {
	case FaultStack:
		return "calls nest too deeply for the stack of the program"
	case FaultAlign:
		return "atomic access to an address that is not a multiple of its size"
	case FaultIdle:
		return "nothing was started, or the run is over"
	}
	return fmt.Sprintf("fault %d", uint32(f))
}

// State is one run, or none yet. A goroutine uses it at a time. It must not be
// copied, and not lie on a goroutine's stack: native code keeps its address.
//
// Generated code reads and writes it at the Offset constants.
type State struct {
	// Regs are r0 to r10. Regs[10] must be a cage address that is a multiple of 16.
	Regs [11]uint64
	// Base is the host address of cage address 0. It and StackLimit stay as they are
	// at the first Start.
	Base uintptr
	// Budget is how many instructions may still be charged.
	Budget int64
	// Exit and Arg say why the run came back.
	Exit Exit
	Arg  uint32
	// PC is the index of the instruction that left by HostCall, TailCall,
	// Packet or Fault, in the program that runs.
	PC uint32
	// CPU is the virtual CPU of the run, below the CPU count that per-CPU
	// memory was laid out for.
	CPU uint32
	// StackLimit is the lowest cage address that r10 may have, at least
	// FrameSize: the stack of the deepest function is below it.
	StackLimit uint32
	// Fail answers a Packet exit: the access failed. The engine clears it.
	Fail uint32

	// What follows is the engine's own.

	// ResumePC is where the run goes on: a host address, or what an engine likes.
	ResumePC uintptr
	// SP is the top of Stack in use, growing down; 0 when nothing runs.
	SP uintptr
	// HostSP is how native code gets back: the stack pointer of the goroutine, or
	// on arm64 the address to return to.
	HostSP uintptr
	// Target answers a TailCall exit; 0 means that the tail call failed.
	Target uintptr
	// Scratch are words for generated code that runs out of registers.
	Scratch [2]uint64

	// IdleSP is the SP at which nothing runs, and IdleFP a r10 with which Start has
	// begun a run there.
	IdleSP uintptr
	IdleFP uint64

	// Code is what runs: its Program is the one that Arg and PC are about.
	Code Code
	// Stack holds return addresses and saved registers.
	Stack []uint64

	_ [64]byte // what lies behind may be another processor's
}

// The offsets of State's fields in bytes, for generated code.
const (
	OffsetRegs       = 0
	OffsetBase       = 88
	OffsetBudget     = 96
	OffsetExit       = 104
	OffsetArg        = 108
	OffsetPC         = 112
	OffsetCPU        = 116
	OffsetStackLimit = 120
	OffsetFail       = 124
	OffsetResumePC   = 128
	OffsetSP         = 136
	OffsetHostSP     = 144
	OffsetTarget     = 152
	OffsetScratch    = 160
)

// FrameWords is how many words of State.Stack an engine may use for each
// activation of a function.
const FrameWords = 8

// NewState returns a state for runs of at most the given number of nested
// activations, callbacks included. StackLimit must be such that r10 cannot
// be lowered more often.
func NewState(activations int) *State {
	// One more than promised, for what Start pushes.
	return &State{Stack: make([]uint64, (activations+1)*FrameWords)}
}

// Reset forgets a run that is given up.
func (s *State) Reset() {
	s.SP, s.ResumePC, s.Target, s.Fail, s.Code = 0, 0, 0, 0, nil
}

// Suspended is a run at a host call, put aside for a callback.
type Suspended struct {
	regs         [11]uint64
	pc           uint32
	resumePC, sp uintptr
	code         Code
}

// Suspend puts the run aside, so that Code.Start can begin another one deeper
// in the same state.
func (s *State) Suspend() Suspended {
	return Suspended{regs: s.Regs, pc: s.PC, resumePC: s.ResumePC, sp: s.SP, code: s.Code}
}

// Resume takes back what Suspend put aside.
func (s *State) Resume(saved Suspended) {
	s.Regs, s.PC, s.ResumePC, s.SP, s.Code = saved.regs, saved.pc, saved.resumePC, saved.sp, saved.code
}

// CheckStart reports why a function cannot be started in s. Engines call it in
// Start.
func (s *State) CheckStart(p *Program, fn int) error {
	switch {
	case fn < 0 || fn >= len(p.Funcs):
		return fmt.Errorf("program %s has no function %d, only %d", p.Name, fn, len(p.Funcs))
	case s.Base == 0:
		return fmt.Errorf("program %s: the state has no cage", p.Name)
	case s.Regs[10] > math.MaxUint32 || uint32(s.Regs[10]) < s.StackLimit:
		return FaultStack
	case s.Regs[10]%16 != 0:
		return fmt.Errorf("program %s: the stack ends at %#x, which is not a multiple of 16", p.Name, s.Regs[10])
	}
	return nil
}
