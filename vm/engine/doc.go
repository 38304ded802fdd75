// Package engine is the contract between the vm, which owns memory, maps and
// helpers, and the engines that execute linked programs for it: vm/interp and
// vm/jit. Both give the same results, bit for bit.
//
// It imports only isa, and knows neither maps nor helpers. Start reading at
// [Program], what an engine is given, then [State], what one run consists of,
// then [Exit], how a run comes back; [Engine] ties them together.
//
// # A run
//
//	code, err := eng.Compile(program, engine.Options{})
//	s := engine.NewState(frames)      // once per virtual CPU, reused
//	s.Base, s.StackLimit = ...        // the cage, and how deep r10 may go
//
//	s.Regs[1], s.Regs[10], s.Budget = ctx, top, engine.Quantum
//	if err := code.Start(s, 0); err != nil { ... }
//	for {
//		switch eng.Run(s) {
//		case engine.Done:     return s.Regs[0]
//		case engine.HostCall: s.Regs[0] = host[s.Arg](s)
//		case engine.TailCall: if next := lookup(s); next != nil { next.Tail(s) } else { s.Regs[0] = ... }
//		case engine.Packet:   s.Regs[0], s.Fail = ... // legacy packet access
//		case engine.Budget:   s.Budget = engine.Quantum // after a look at the context
//		case engine.Fault:    return engine.FaultClass(s.Arg) // s.PC says where
//		}
//	}
//
// # The cage
//
// Registers hold cage addresses. An access of n bytes at register r with offset
// o touches the n host bytes from Base + uint64(uint32(r)) + int64(o): the upper
// half of the register is ignored and the sum is taken in 64 bits. So the host
// maps everything from Base - 32,768 to Base + 4 GiB + 32,767 + 8, readable and
// writable, and no access faults. Cage addresses 0 to 4095 are never given out
// and hold zeros, which is what a load through a null pointer reads.
//
// # What both engines do alike
//
//   - When Start enters function 0, r0 and r6 to r9 are zero, and r1 to r5 and
//     r10 come from Regs. When it enters another function, r0 to r10 come from Regs.
//   - When Tail enters function 0, it takes the place of the function that made
//     the call: r6 to r9 are what they were when that was entered, r10 is
//     the same, and r0 to r5 come from Regs.
//   - A local call lowers r10 by [FrameSize], keeps r6 to r9 for the caller,
//     and shares r0 to r5 with it in both directions. If r10 would come below
//     StackLimit the run ends in [FaultStack].
//   - At a host call r1 to r9 are in Regs, and after it r0 to r9 are what Regs
//     says then. A host function that changes only Regs[0] has the meaning a
//     helper has for the kernel.
//   - After [Done] only Regs[0] is defined; after the other exits all registers are.
//   - Division by zero gives 0, remainder by zero the dividend; the smallest
//     number divided by -1 gives itself, remainder 0 (RFC 9669, section 4.1).
//     Shifts use the low 5 or 6 bits of their count.
//   - Atomics, load-acquire and store-release at an address that is no multiple
//     of their size end the run in [FaultAlign], whatever the hardware can do.
//     They are sequentially consistent where they fetch.
//   - may_goto counts in each activation of a function, [MaxLoops] for all
//     may_goto of it together, then jumps.
//   - An address space cast clears the upper half: all spaces are the cage.
//
// # Budget
//
// The budget counts instructions, from above: the entry of a function charges
// the number of its instructions, a jump back (to its own instruction or before)
// charges the number of instructions from its target up to itself, both included.
// Program.EntryCost and Program.JumpCost have these numbers. So a run executes at
// most as many instructions as it was charged. When a charge takes the budget
// below zero the run leaves by [Budget] after the jump or the entry, and goes on
// there; it was charged. What the host does on behalf of a program it charges to
// s.Budget itself.
//
// # Callbacks
//
// A host function that calls back into the program suspends the run, starts a
// function in the same state, and drives it like any run until [Done]:
//
//	saved := s.Suspend()
//	s.Regs[1], s.Regs[2] = index, ctx
//	s.Regs[10] -= engine.FrameSize       // Start fails when this is too deep
//	err := code.Start(s, fn) ...         // and the loop above
//	result := s.Regs[0]
//	s.Resume(saved)
//
// A run that is given up, at whatever depth, is forgotten by s.Reset.
//
// # Trust
//
// [New] checks the form of a program so far that no engine needs to look again:
// jumps stay within their function, no function runs off its end, r10 is never
// written. It assumes nothing about what programs do; they may be hostile, never
// verified. Return addresses, saved registers, counters of may_goto and
// the budget live in State, which lies outside the cage. A host function must
// treat Regs, and everything it reads from the cage, as hostile.
package engine
