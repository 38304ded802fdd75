package verifier

import (
	"slices"

	"github.com/skep-bpf/skep/verifier/domain"
)

// exactness says how alike two states have to be.
type exactness uint8

const (
	notExact    exactness = iota // the old one allows all that the new one is
	exact                        // equal
	rangeWithin                  // notExact, with all registers taken for precise
)

// idMap maps ids of an old state to those of the new one.
type idMap struct {
	pairs [][2]uint32
	fresh uint32
}

func (m *idMap) check(old, cur uint32) bool {
	if (old == 0) != (cur == 0) {
		return false
	}
	if old == 0 {
		return true
	}
	for _, p := range m.pairs {
		if p[0] == old {
			return p[1] == cur
		}
		if p[1] == cur {
			return false
		}
	}
	m.pairs = append(m.pairs, [2]uint32{old, cur})
	return true
}

// checkScalar is check for ids of scalars, of which the new state may have
// more that are equal than the old one asks for, never fewer.
func (m *idMap) checkScalar(old, cur uint32) bool {
	if old == 0 {
		return true
	}
	if cur == 0 {
		m.fresh++
		cur = m.fresh
	}
	if !m.check(old, cur) {
		return false
	}
	if old&addConst != 0 {
		return m.check(old&^addConst, cur&^addConst)
	}
	return true
}

func (m *idMap) reset(ids uint32) {
	m.pairs = m.pairs[:0]
	m.fresh = ids
}

// visited compares the state with those that were kept at slot (is_state_visited).
// It reports whether one of them makes following the path needless, and keeps
// the state otherwise, where that is worth its price.
func (v *verifier) visited(slot int) (bool, *Error) {
	in := &v.insns[slot]
	cur := v.st
	force := in.checkpoint || len(cur.history) > 40
	add := force || v.jumps-v.lastJumps >= 2 && v.processed-v.lastInsns >= 8
	list := v.explored[slot]
	for i := len(list) - 1; i >= 0; i-- {
		old := list[i]
		if old.cur != cur.cur || !sameCallsites(old, cur) {
			continue
		}
		var hit bool
		if old.branches > 0 {
			var err *Error
			if hit, err = v.looping(in, old, cur, force, &add); err != nil {
				return false, err
			}
		} else {
			hit = v.covers(old, cur)
		}
		if hit {
			old.hits++
			v.propagateReads(old, cur)
			if in.jump {
				v.pushHop(0, 0)
			}
			return true, v.propagatePrecision(old)
		}
		if add {
			old.misses++
		}
		n := int32(3)
		if in.checkpoint && old.branches > 0 {
			n = 64
		}
		if old.misses > old.hits*n+n {
			list = slices.Delete(list, i, i+1)
			v.explored[slot] = list
			v.kept--
			if old.branches == 0 && !old.usedAsEntry {
				v.free(old)
			}
		}
	}
	if !v.cfg.Caps.bpf() && len(list) > maxStates || !add {
		return false, nil
	}
	v.keep(slot)
	return false, nil
}

// covers reports whether a state all of whose paths were followed stands for
// cur too.
func (v *verifier) covers(old, cur *state) bool {
	entry := old.entry()
	if entry == nil || entry.branches == 0 {
		return v.equal(old, cur, notExact)
	}
	if !v.equal(old, cur, rangeWithin) {
		return false
	}
	cur.enterLoop(entry)
	return true
}

// keep keeps the current state, for others to be compared with.
func (v *verifier) keep(slot int) {
	cur := v.st
	v.total++
	v.kept++
	v.peak = max(v.peak, v.kept)
	v.lastJumps, v.lastInsns = v.jumps, v.processed
	if v.cfg.Caps.bpf() {
		cur.regsDo(func(r *reg) {
			if r.typ == scalar {
				r.precise = false
			}
		})
	}
	kept := v.newState()
	v.copyState(kept, cur)
	kept.insn = int32(slot)
	kept.hits, kept.misses = 0, 0
	cur.parent = kept
	cur.first = int32(slot)
	cur.history = cur.history[:0]
	cur.depth = kept.depth + 1
	cur.branches = 1
	kept.branches = 1
	for i := 0; i <= cur.cur; i++ {
		cur.frames[i].linked = true
		cur.frames[i].written = 0
	}
	v.explored[slot] = append(v.explored[slot], kept)
}

// looping compares with a state that is still being followed: the path is in
// a loop.
func (v *verifier) looping(in *insnInfo, old, cur *state, force bool, add *bool) (hit bool, err *Error) {
	of, cf := old.frame(), cur.frame()
	switch {
	case of.inAsync && of.asyncEntry != cf.asyncEntry:
	case v.isIterNext(in.op):
		if v.equal(old, cur, rangeWithin) && v.iterActive(cur) {
			cur.enterLoop(old)
			return true, nil
		}
	case in.isMayGoto() && old.mayGoto != cur.mayGoto && v.equal(old, cur, rangeWithin):
		cur.enterLoop(old)
		return true, nil
	case in.callback:
		if v.equal(old, cur, rangeWithin) {
			return true, nil
		}
	default:
		how := exact
		if v.cfg.Kernel < linux6_12 {
			how = notExact
		}
		if old.mayGoto == cur.mayGoto && old.callbackGen == cur.callbackGen && sameRegs(of, cf) &&
			v.equal(old, cur, how) && !itersAdvanced(old, cur) {
			return false, v.fail("endless-loop", -1, "the loop through instruction %d comes back to it with nothing changed", v.insn)
		}
	}
	if !force && v.jumps-v.lastJumps < 20 && v.processed-v.lastInsns < 100 {
		*add = false
	}
	return false, nil
}

func sameCallsites(a, b *state) bool {
	for i := 0; i <= a.cur; i++ {
		if a.frames[i].callsite != b.frames[i].callsite || a.frames[i].subprog != b.frames[i].subprog {
			return false
		}
	}
	return true
}

func sameRegs(a, b *frame) bool {
	for i := range a.regs {
		x, y := &a.regs[i], &b.regs[i]
		if !x.exactly(y) || x.id != y.id || x.ref != y.ref {
			return false
		}
	}
	return true
}

// equal reports whether all that may follow from cur follows from old too
// (states_equal).
func (v *verifier) equal(old, cur *state, how exactness) bool {
	if old.cur != cur.cur || old.speculative && !cur.speculative ||
		old.activeLocks != cur.activeLocks || old.rcu != cur.rcu || old.preempt != cur.preempt {
		return false
	}
	v.idmap.reset(v.ids)
	if len(old.refs) != len(cur.refs) {
		return false
	}
	for i := range old.refs {
		o, c := &old.refs[i], &cur.refs[i]
		if o.kind != c.kind || o.obj != c.obj || !v.idmap.check(o.id, c.id) {
			return false
		}
	}
	for i := 0; i <= old.cur; i++ {
		of, cf := old.frames[i], cur.frames[i]
		if of.callsite != cf.callsite || of.subprog != cf.subprog || of.callbackDepth > cf.callbackDepth {
			return false
		}
		at := v.insn
		if i < old.cur {
			at = int(cur.frames[i+1].callsite)
		}
		live := v.insns[at].live
		for r := range of.regs {
			if how == notExact && live>>r&1 == 0 && r != fp {
				continue // whatever it holds is never read
			}
			if !v.regSafe(&of.regs[r], &cf.regs[r], how) {
				return false
			}
		}
		if !v.stackSafe(of, cf, how) {
			return false
		}
	}
	return true
}

// regSafe reports whether what is done with old may be done with cur (regsafe).
func (v *verifier) regSafe(old, cur *reg, how exactness) bool {
	same := func() bool {
		return old.exactly(cur) && v.idmap.check(old.id, cur.id) && v.idmap.check(old.ref, cur.ref)
	}
	if how == exact {
		return same()
	}
	if old.typ == notInit {
		return how == notExact || cur.typ == notInit
	}
	if old.typ != cur.typ || old.flags != cur.flags {
		return false
	}
	switch old.typ {
	case scalar:
		if v.exploreALU {
			return old.Scalar == cur.Scalar && old.off == cur.off && v.idmap.checkScalar(old.id, cur.id)
		}
		if !old.precise && how == notExact {
			return true
		}
		if v.cfg.Kernel < linux6_12 {
			return cur.In(&old.Scalar)
		}
		if old.id != 0 && (old.id&addConst) != (cur.id&addConst) {
			return false
		}
		if old.id&addConst != 0 && old.off != cur.off {
			return false
		}
		return v.idmap.checkScalar(old.id, cur.id) && cur.In(&old.Scalar)
	case ptrMapKey, ptrMapValue, ptrMem, ptrBuf, ptrTPBuffer:
		return old.off == cur.off && old.obj == cur.obj && old.aux == cur.aux && cur.In(&old.Scalar) &&
			v.idmap.check(old.id, cur.id) && v.idmap.check(old.ref, cur.ref)
	case ptrPacket, ptrPacketMeta:
		if old.aux < 0 || cur.aux < 0 {
			if old.aux != cur.aux {
				return false
			}
		} else if old.aux > cur.aux {
			return false
		}
		return old.off == cur.off && v.idmap.check(old.id, cur.id) && cur.In(&old.Scalar)
	case ptrStack:
		return same() && old.frame == cur.frame
	case ptrArena:
		return true
	}
	return same()
}

var anyScalar = scalarReg(domain.Unknown)

// asScalar is the scalar that a slot stands for, if it is one as a whole.
func (v *verifier) asScalar(s *slot) *reg {
	if s.spilledScalar64() {
		return &s.reg
	}
	for _, k := range s.kind {
		if k != slotMisc && !(k == slotInvalid && v.cfg.Caps.perfmon()) {
			return nil
		}
	}
	return &anyScalar
}

// stackSafe is regSafe for a frame's stack (stacksafe).
func (v *verifier) stackSafe(old, cur *frame, how exactness) bool {
	if how != notExact && len(old.stack) > len(cur.stack) {
		return false
	}
	uninit := v.cfg.Caps.perfmon()
	for i := range old.stack {
		os := &old.stack[i]
		if how != notExact && os.kind != cur.stack[i].kind {
			return false
		}
		if how == notExact && old.read>>i&1 == 0 {
			continue
		}
		var cs *slot
		if i < len(cur.stack) {
			cs = &cur.stack[i]
		}
		needs := false
		for _, k := range os.kind {
			if k != slotInvalid && !(uninit && k == slotMisc) {
				needs = true
			}
		}
		if !needs {
			continue
		}
		if cs == nil {
			return false
		}
		if o, c := v.asScalar(os), v.asScalar(cs); o != nil && c != nil {
			if !v.regSafe(o, c, how) {
				return false
			}
			continue
		}
		for j, k := range os.kind {
			switch {
			case k == slotInvalid, uninit && k == slotMisc:
			case k == slotMisc && cs.kind[j] == slotZero:
			case k != cs.kind[j]:
				return false
			}
		}
		o, c := &os.reg, &cs.reg
		switch os.kind[7] {
		case slotSpill:
			if !v.regSafe(o, c, how) {
				return false
			}
		case slotDynptr, slotIRQ:
			if o.obj != c.obj || o.aux != c.aux || !v.idmap.check(o.ref, c.ref) {
				return false
			}
		case slotIter:
			if o.typ != c.typ || o.obj != c.obj || o.aux != c.aux || o.flags != c.flags || !v.idmap.check(o.ref, c.ref) {
				return false
			}
		}
	}
	return true
}

// propagateReads carries over what is read after old to what led to cur
// (propagate_liveness).
func (v *verifier) propagateReads(old, cur *state) {
	for f := 0; f <= old.cur; f++ {
		read := old.frames[f].read
		for i := 0; read != 0; i++ {
			if read&1 != 0 && i < len(cur.frames[f].stack) {
				cur.markRead(f, i)
			}
			read >>= 1
		}
	}
}
