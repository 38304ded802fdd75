package verifier

import "github.com/skep-bpf/skep/isa"

// next says how exploration goes on after an instruction.
type next uint8

const (
	nextInsn next = iota // at the following slot
	nextHere             // v.insn has been set
	nextDone             // the path is at its end
)

// explore follows every path from the current state (do_check).
func (v *verifier) explore() *Error {
	v.prev = -1
	for {
		v.hop = nil
		if v.insn >= len(v.insns) {
			return v.fail("falls-through", -1, "the path leads past the program's end")
		}
		v.processed++
		if v.processed > v.cfg.limit {
			v.insn = v.prev
			return v.fail("too-complex", -1, "more than %d instructions were processed", v.cfg.limit)
		}
		v.st.last = int32(v.prev)
		if v.cfg.Trace != nil {
			v.cfg.Trace.note(v.st, v.insn)
		}
		in := &v.insns[v.insn]
		n := nextInsn
		if in.prune {
			seen, err := v.visited(v.insn)
			if err != nil {
				return err
			}
			if seen {
				n = nextDone
			}
		}
		if n != nextDone {
			if in.jump {
				v.pushHop(0, 0)
			}
			if v.st.speculative && in.noSpec {
				n = nextDone
			} else {
				at := v.insn
				var err *Error
				n, err = v.step(in)
				if err != nil {
					if !v.recoverable(err) {
						return err
					}
					// The kernel puts a barrier there, which no speculation
					// gets past.
					in.noSpec = true
					in.alu = alu{}
					n = nextDone
				}
				if v.st.speculative && in.noSpecResult && v.cfg.Kernel >= linux6_17 {
					n = nextDone
				}
				v.prev = at
			}
		}
		switch n {
		case nextInsn:
			v.insn += in.op.Size()
		case nextDone:
			if !v.pop() {
				return nil
			}
		}
	}
}

// recoverable reports whether an error on a speculative path is no error of
// the program (error_recoverable_with_nospec, Linux 6.17).
func (v *verifier) recoverable(err *Error) bool {
	return v.st != nil && v.st.speculative && v.cfg.Kernel >= linux6_17 &&
		err.Category != CatComplexity && err.Category != CatUnsupported
}

// pop ends the current path and takes up the branch that was put off last.
func (v *verifier) pop() bool {
	v.endPath(v.st)
	v.free(v.st)
	v.st = nil
	n := len(v.pending)
	if n == 0 {
		return false
	}
	p := v.pending[n-1]
	v.pending = v.pending[:n-1]
	v.st, v.insn, v.prev = p.st, p.insn, p.prev
	return true
}

// push puts off a branch: the current state, to go on at insn.
func (v *verifier) push(insn, prev int, speculative bool) (*state, *Error) {
	if len(v.pending) >= maxPending {
		return nil, v.fail("too-many-branches", -1, "%d branches wait to be followed, which is too many", len(v.pending))
	}
	st := v.newState()
	v.copyState(st, v.st)
	st.speculative = st.speculative || speculative
	st.loopEntry = nil
	if st.parent != nil {
		st.parent.branches++
	}
	v.pending = append(v.pending, pending{st, insn, prev})
	return st, nil
}

// step does one instruction.
func (v *verifier) step(in *insnInfo) (next, *Error) {
	op := in.op
	if v.cfg.unknownForm(op) {
		return 0, v.fail("invalid-instruction", -1, "Linux %s does not have this form of the instruction", v.cfg.Kernel)
	}
	switch op.Class() {
	case isa.ClassALU, isa.ClassALU64:
		return nextInsn, v.arithmetic(op)
	case isa.ClassLDX:
		return nextInsn, v.load(op)
	case isa.ClassSTX:
		if op.IsAtomic() {
			return nextInsn, v.atomic(op)
		}
		return nextInsn, v.store(op)
	case isa.ClassST:
		return nextInsn, v.store(op)
	case isa.ClassLD:
		if op.IsWide() {
			return nextInsn, v.loadImm64(op)
		}
		return v.loadPacket(op)
	}
	v.jumps++
	switch {
	case op.IsExit():
		return v.exit()
	case op.IsCall():
		return v.call(op)
	case isUncond(op):
		v.insn = int(in.target)
		return nextHere, nil
	}
	return v.branch(op)
}

// regs are the registers of the frame that runs.
func (v *verifier) regs() *[numRegs]reg { return &v.st.frame().regs }

// read checks that a register may be read.
func (v *verifier) read(r isa.Register) *Error {
	if v.regs()[r].typ == notInit {
		return v.fail("uninitialised-register", int(r), "r%d is read, but nothing was written to it on this path", r)
	}
	return nil
}

// writable checks that a register may be written.
func (v *verifier) writable(r isa.Register) *Error {
	if r == fp {
		return v.fail("frame-pointer-written", fp, "r10, the frame pointer, cannot be written")
	}
	return nil
}

// leaks reports whether storing or returning r would show an address to those
// who may not see it (is_pointer_value).
func (v *verifier) leaks(r *reg) bool { return !v.cfg.Caps.perfmon() && r.isPointer() }

// pushHop adds to the history of the path (push_insn_history).
func (v *verifier) pushHop(flags uint16, linked uint64) {
	if v.hop != nil {
		v.hop.flags |= flags
		if linked != 0 {
			v.hop.linked = linked
		}
		return
	}
	st := v.st
	st.history = append(st.history, hop{int32(v.insn), int32(v.prev), flags, linked})
	v.hop = &st.history[len(st.history)-1]
}
