package verifier

import "github.com/skep-bpf/skep/isa"

// A state in a loop that is still being explored cannot stand for another one
// with what is known of it so far: what will be read, and what must be precise,
// may not have been found yet. Loops that are meant to converge (iterators,
// may_goto, callbacks) end when a state is found whose values all lie within
// those of an earlier one; states on such a loop remember its first, topmost
// state, and count as open for as long as that does (update_loop_entry).

// entry is the topmost state of the loops that s is on, or nil.
func (s *state) entry() *state {
	top := s.loopEntry
	for top != nil && top.loopEntry != nil && top != top.loopEntry {
		top = top.loopEntry
	}
	for st := s; st != nil && st.loopEntry != top; {
		st, st.loopEntry = st.loopEntry, top
	}
	return top
}

// enterLoop notes that the path through s came back to head.
func (s *state) enterLoop(head *state) {
	a, b := s.entry(), head.entry()
	if a == nil {
		a = s
	}
	if b == nil {
		b = head
	}
	if b.branches > 0 && b.depth <= a.depth {
		s.loopEntry = head
		head.usedAsEntry = true
	}
}

// endPath takes a path from the states it came through.
func (v *verifier) endPath(s *state) {
	for st := s; st != nil; st = st.parent {
		st.branches--
		if st.branches == 0 && st.parent != nil && st.loopEntry != nil {
			st.parent.enterLoop(st.loopEntry)
		}
		if st.branches > 0 {
			return
		}
	}
}

func (in *insnInfo) isMayGoto() bool {
	return in.op.Class() == isa.ClassJMP && in.op.Op.JumpOp() == isa.JCond
}

// itersAdvanced reports whether an iterator went on between two states.
func itersAdvanced(old, cur *state) bool {
	for f := 0; f <= old.cur; f++ {
		for i := range old.frames[f].stack {
			o := &old.frames[f].stack[i]
			if o.kind[0] == slotIter && o.aux == iterActive && i < len(cur.frames[f].stack) && o.off != cur.frames[f].stack[i].off {
				return true
			}
		}
	}
	return false
}
