package verifier

import (
	"math/bits"

	"github.com/skep-bpf/skep/isa"
)

// A backtracker holds which registers and stack slots are to become precise,
// for each frame.
type backtracker struct {
	frame int
	regs  [maxFrames]uint16
	slots [maxFrames]uint64
}

func (b *backtracker) empty() bool {
	for i := range b.regs {
		if b.regs[i] != 0 || b.slots[i] != 0 {
			return false
		}
	}
	return true
}

func (b *backtracker) has(r isa.Register) bool { return b.regs[b.frame]>>r&1 != 0 }
func (b *backtracker) set(r isa.Register)      { b.regs[b.frame] |= 1 << r }
func (b *backtracker) clear(r isa.Register)    { b.regs[b.frame] &^= 1 << r }

// linkedRegs packs places of equal scalars: ten bits each (frame, register or
// slot, which of both) above a count of four bits, six at most.
type linkedRegs uint64

const maxLinked = 6

func (l linkedRegs) len() int { return int(l & 15) }

func (l linkedRegs) at(i int) (frame, index int, isReg bool) {
	e := uint64(l) >> (4 + 10*i)
	return int(e & 7), int(e >> 3 & 63), e>>9&1 != 0
}

func (l linkedRegs) add(frame, index int, isReg bool) (linkedRegs, bool) {
	n := l.len()
	if n == maxLinked {
		return l, false
	}
	e := uint64(frame) | uint64(index)<<3
	if isReg {
		e |= 1 << 9
	}
	return l | linkedRegs(e<<(4+10*n)) + 1, true
}

// precise notes that the exact value of a register mattered: states that led
// here may stand for others only where those agree on what it was made from
// (mark_chain_precision). It walks back over the instructions of the path.
func (v *verifier) precise(r isa.Register) *Error {
	b := &v.bt
	*b = backtracker{frame: v.st.cur}
	if !v.cfg.Caps.bpf() || v.st.frame().regs[r].typ != scalar {
		return nil
	}
	b.set(r)
	if v.cfg.Trace != nil {
		v.cfg.Trace.sought(v.insn, b.regs[b.frame])
	}
	return v.backtrack()
}

func (v *verifier) backtrack() *Error {
	b := &v.bt
	st := v.st
	last := v.insn
	after := -1
	skip := true // the instruction itself has not been done
	for !b.empty() {
		if last < 0 {
			// The start of a global function, whose arguments are taken for
			// any value anyway.
			f := st.frames[0]
			for i := range f.regs {
				if b.regs[0]>>i&1 != 0 && f.regs[i].typ == scalar {
					f.regs[i].precise = true
				}
			}
			return nil
		}
		n := len(st.history)
		for i := last; ; {
			if skip {
				skip = false
			} else {
				var h *hop
				if n > 0 && int(st.history[n-1].insn) == i {
					h = &st.history[n-1]
				}
				if !v.backInsn(i, after, h) {
					v.allPrecise()
					return nil
				}
				if v.cfg.Trace != nil {
					v.cfg.Trace.sought(i, b.regs[b.frame])
				}
				if b.empty() {
					return nil
				}
			}
			after = i
			if i == int(st.first) && (n == 0 || n == 1 && int(st.history[0].insn) == i) {
				break
			}
			if n > 0 && int(st.history[n-1].insn) == i {
				n--
				i = int(st.history[n].prev)
			} else {
				i--
				if i >= 0 && v.insns[i].op.Op == 0 {
					i-- // the second slot of a wide load
				}
			}
			if i < 0 {
				v.allPrecise()
				return nil
			}
		}
		first := int(st.first)
		st = st.parent
		if st == nil {
			break
		}
		v.markState(st)
		after = first
		last = int(st.last)
	}
	if !b.empty() {
		v.allPrecise()
	}
	return nil
}

// markState marks what is sought in a kept state; what was marked before needs
// no more walking.
func (v *verifier) markState(st *state) {
	b := &v.bt
	for f := b.frame; f >= 0; f-- {
		fr := st.frames[f]
		if fr == nil {
			b.regs[f], b.slots[f] = 0, 0
			continue
		}
		for m := b.regs[f]; m != 0; m &= m - 1 {
			i := bits.TrailingZeros16(m)
			if r := &fr.regs[i]; r.typ != scalar || r.precise {
				b.regs[f] &^= 1 << i
			} else {
				r.precise = true
			}
		}
		for m := b.slots[f]; m != 0; m &= m - 1 {
			i := bits.TrailingZeros64(m)
			if i >= len(fr.stack) || !fr.stack[i].spilled() || fr.stack[i].typ != scalar || fr.stack[i].precise {
				b.slots[f] &^= 1 << i
			} else {
				fr.stack[i].precise = true
			}
		}
	}
}

// allPrecise is for what cannot be walked back over.
func (v *verifier) allPrecise() {
	for st := v.st.parent; st != nil; st = st.parent {
		st.regsDo(func(r *reg) {
			if r.typ == scalar {
				r.precise = true
			}
		})
	}
	v.bt = backtracker{}
}

// syncLinked adds the registers that were equal to one that is sought.
func (b *backtracker) syncLinked(h *hop) {
	if h == nil || h.linked == 0 {
		return
	}
	l := linkedRegs(h.linked)
	any := false
	for i := range l.len() {
		f, k, isReg := l.at(i)
		any = any || isReg && b.regs[f]>>k&1 != 0 || !isReg && b.slots[f]>>k&1 != 0
	}
	if !any {
		return
	}
	for i := range l.len() {
		f, k, isReg := l.at(i)
		if isReg {
			b.regs[f] |= 1 << k
		} else {
			b.slots[f] |= 1 << k
		}
	}
}

const argRegs = 0x3e // r1 to r5

// backInsn turns what is sought after an instruction into what is sought
// before it (backtrack_insn). It returns false where it cannot.
func (v *verifier) backInsn(i, after int, h *hop) bool {
	b := &v.bt
	op := v.insns[i].op
	if op.Op == 0 {
		return true
	}
	b.syncLinked(h)
	if !v.backOp(i, after, op, h) {
		return false
	}
	b.syncLinked(h)
	return true
}

func (v *verifier) backOp(i, after int, op isa.Instruction, h *hop) bool {
	b := &v.bt
	stackHop := h != nil && h.flags&hopStack != 0
	switch op.Class() {
	case isa.ClassALU, isa.ClassALU64:
		if !b.has(op.Dst) {
			return true
		}
		reg := op.Op.Source() == isa.SourceReg
		switch op.ALUOp() {
		case isa.End, isa.Neg:
		case isa.Mov:
			b.clear(op.Dst)
			if reg && op.Src != fp {
				b.set(op.Src)
			}
		default:
			if reg && op.Src != fp {
				b.set(op.Src)
			}
		}
		return true
	case isa.ClassLDX:
		return v.backLoad(op.Dst, h, stackHop)
	case isa.ClassST, isa.ClassSTX:
		if op.IsAtomic() {
			switch a := op.AtomicOp(); {
			case a == isa.LoadAcquireOp:
				return v.backLoad(op.Dst, h, stackHop)
			case a == isa.CmpXchg:
				return v.backLoad(0, h, stackHop)
			case a != isa.StoreReleaseOp && a&isa.Fetch != 0:
				return v.backLoad(op.Src, h, stackHop)
			}
		}
		if b.has(op.Dst) {
			return false // a pointer that came from a subtraction of pointers
		}
		if !stackHop {
			return true
		}
		f, k := h.stack()
		if b.slots[f]>>k&1 == 0 {
			return true
		}
		b.slots[f] &^= 1 << k
		if op.Class() == isa.ClassSTX {
			b.set(op.Src)
		}
		return true
	case isa.ClassLD:
		if op.IsWide() {
			b.clear(op.Dst)
			return true
		}
		if b.has(0) {
			return false
		}
		if after != i+1 && b.frame+1 < maxFrames {
			b.frame++ // the load ended a function
		}
		return true
	}
	switch {
	case op.IsExit():
		// Walking back into a function that was called.
		fromCall := after > 0 && v.insns[after-1].op.IsCall() && v.insns[after-1].op.Src == isa.CallPseudo
		r0 := fromCall && b.has(0)
		if fromCall && b.regs[b.frame]&argRegs != 0 {
			return false
		}
		b.clear(0)
		if b.frame+1 >= maxFrames {
			return false
		}
		b.frame++
		if r0 {
			b.set(0)
		}
		return true
	case op.IsCall() && op.Src == isa.CallPseudo:
		if k := v.insns[v.insns[i].target].subprog; v.subprogs[k].global {
			if b.regs[b.frame]&argRegs != 0 {
				return false
			}
			b.clear(0)
			return true
		}
		return v.backCall(true)
	case op.IsCall() && v.insns[i].callback && after != i+1:
		return v.backCall(false)
	case op.IsCall():
		b.clear(0)
		return b.regs[b.frame]&argRegs == 0
	case isUncond(op), op.Op.JumpOp() == isa.JCond:
		return true
	case op.Op.Source() == isa.SourceReg:
		if !b.has(op.Dst) && !b.has(op.Src) {
			return true
		}
		if h == nil || h.flags&hopSrcReg == 0 {
			b.set(op.Src)
		}
		if h == nil || h.flags&hopDstReg == 0 {
			b.set(op.Dst)
		}
	}
	return true
}

// backCall walks from the start of a function to its caller.
func (v *verifier) backCall(args bool) bool {
	b := &v.bt
	if b.frame == 0 || b.regs[b.frame]&^argRegs != 0 || b.slots[b.frame] != 0 {
		return false
	}
	if args {
		b.regs[b.frame-1] |= b.regs[b.frame] & argRegs
	}
	b.regs[b.frame] = 0
	b.frame--
	return true
}

func (v *verifier) backLoad(r isa.Register, h *hop, stackHop bool) bool {
	b := &v.bt
	if !b.has(r) {
		return true
	}
	b.clear(r)
	if stackHop {
		f, k := h.stack()
		b.slots[f] |= 1 << k
	}
	return true
}

func (h *hop) stack() (frame, slot int) { return int(h.flags >> 6 & 7), int(h.flags & 63) }

func stackHopFlags(frame, slot int) uint16 { return hopStack | uint16(frame)<<6 | uint16(slot) }

// propagatePrecision makes precise, on the way to the current state, what is
// precise in the kept state that stands for it.
func (v *verifier) propagatePrecision(old *state) *Error {
	b := &v.bt
	*b = backtracker{frame: v.st.cur}
	if !v.cfg.Caps.bpf() {
		return nil
	}
	for f := old.cur; f >= 0; f-- {
		fr := old.frames[f]
		for i := 0; i < fp; i++ {
			if r := &fr.regs[i]; r.typ == scalar && r.precise && v.liveIn(old, f, i) {
				b.regs[f] |= 1 << i
			}
		}
		for i := range fr.stack {
			if s := &fr.stack[i]; s.spilled() && s.typ == scalar && s.precise && fr.read>>i&1 != 0 {
				b.slots[f] |= 1 << i
			}
		}
	}
	return v.backtrack()
}

// liveIn reports whether a register of frame f matters after a kept state.
func (v *verifier) liveIn(st *state, f, r int) bool {
	at := int(st.insn)
	if f < st.cur {
		at = int(st.frames[f+1].callsite)
	}
	return at >= 0 && v.insns[at].live>>r&1 != 0
}
