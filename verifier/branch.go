package verifier

import (
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

// conds are the comparisons by the high half of their opcodes.
var conds = [16]domain.Cond{
	isa.Eq >> 4: domain.EQ, isa.NE >> 4: domain.NE, isa.GT >> 4: domain.GT, isa.GE >> 4: domain.GE, isa.LT >> 4: domain.LT,
	isa.LE >> 4: domain.LE, isa.SGT >> 4: domain.SGT, isa.SGE >> 4: domain.SGE, isa.SLT >> 4: domain.SLT, isa.SLE >> 4: domain.SLE,
	isa.Set >> 4: domain.Set,
}

// maxPacketOffset is how far into a packet a program can look (MAX_PACKET_OFF).
const maxPacketOffset = 0xffff

// branch does a conditional jump (check_cond_jmp_op). Where both ways are
// possible, the jump is put off and the path goes on behind it.
func (v *verifier) branch(op isa.Instruction) (next, *Error) {
	target := int(v.insns[v.insn].target)
	if op.Op.JumpOp() == isa.JCond {
		return v.mayGoto(target)
	}
	if err := v.read(op.Dst); err != nil {
		return 0, err
	}
	cond := conds[op.Op.JumpOp()>>4]
	only32 := op.Class() == isa.ClassJMP32
	byReg := op.Op.Source() == isa.SourceReg
	regs := v.regs()
	dst := &regs[op.Dst]
	src := &v.scratch[0]
	var stackFlags uint16
	if byReg {
		if err := v.read(op.Src); err != nil {
			return 0, err
		}
		src = &regs[op.Src]
		if !(dst.isPacketAny() && src.isPacketAny()) && v.leaks(src) {
			return 0, v.pointerCompared(op.Src)
		}
		if src.typ == ptrStack {
			stackFlags |= hopSrcReg
		}
	} else {
		*src = constReg(uint64(op.Imm))
	}
	if dst.typ == ptrStack {
		stackFlags |= hopDstReg
	}
	if stackFlags != 0 {
		v.pushHop(stackFlags, 0)
	}
	if taken := v.taken(cond, dst, src, only32); taken != domain.Maybe {
		if dst.typ == scalar {
			if err := v.precise(op.Dst); err != nil {
				return 0, err
			}
		}
		if byReg && src.typ == scalar {
			if err := v.precise(op.Src); err != nil {
				return 0, err
			}
		}
		if taken == domain.Always {
			if err := v.speculate(op, v.insn+1); err != nil {
				return 0, err
			}
			v.insn = target
			return nextHere, nil
		}
		return nextInsn, v.speculate(op, target)
	}

	var linked linkedRegs
	if byReg && src.typ == scalar && src.id != 0 {
		linked = v.collectLinked(src.id, linked)
	}
	if dst.typ == scalar && dst.id != 0 {
		linked = v.collectLinked(dst.id, linked)
	}
	if linked.len() > 1 {
		v.pushHop(0, uint64(linked))
	}
	other, err := v.push(target, v.insn, false)
	if err != nil {
		return 0, err
	}
	oregs := &other.frame().regs
	odst, osrc := &oregs[op.Dst], &v.scratch[1]
	if byReg {
		osrc = &oregs[op.Src]
	} else {
		*osrc = *src
	}
	if dst.typ == scalar && src.typ == scalar {
		// A number that is compared with itself is no exception, as in the
		// kernel: one of the ways is then one that no run takes.
		v.rules.Assume(cond.Not(), &dst.Scalar, &src.Scalar, only32)
		v.rules.Assume(cond, &odst.Scalar, &osrc.Scalar, only32)
		v.sane(dst)
		v.sane(src)
		v.sane(odst)
		v.sane(osrc)
	}
	if byReg && src.typ == scalar && src.id != 0 {
		v.syncLinked(v.st, src, linked)
		v.syncLinked(other, osrc, linked)
	}
	if dst.typ == scalar && dst.id != 0 {
		v.syncLinked(v.st, dst, linked)
		v.syncLinked(other, odst, linked)
	}
	v.equalPointers(op, cond, only32, dst, src, odst, osrc)
	if !only32 && !byReg && op.Imm == 0 && (cond == domain.EQ || cond == domain.NE) && dst.has(maybeNull) {
		v.markNull(v.st, op.Dst, cond == domain.NE)
		v.markNull(other, op.Dst, cond == domain.EQ)
		return nextInsn, nil
	}
	if !only32 && byReg && v.packetCompared(cond, op, other) {
		return nextInsn, nil
	}
	if v.leaks(dst) {
		return 0, v.pointerCompared(op.Dst)
	}
	return nextInsn, nil
}

func (v *verifier) pointerCompared(r isa.Register) *Error {
	return v.fail("pointer-compared", int(r), "comparing a pointer (r%d) needs CAP_PERFMON", r)
}

// equalPointers: a pointer that equals one that is not null is not null.
func (v *verifier) equalPointers(op isa.Instruction, cond domain.Cond, only32 bool, dst, src, odst, osrc *reg) {
	if only32 || op.Op.Source() == isa.SourceImm || !src.isPointer() || !dst.isPointer() || src.typ == ptrBTF || dst.typ == ptrBTF {
		return
	}
	switch cond {
	case domain.EQ:
		dst, src = odst, osrc
	case domain.NE:
	default:
		return
	}
	dn, sn := v.notNull(dst), v.notNull(src)
	if dn && src.has(maybeNull) {
		v.setNotNull(src)
	}
	if sn && dst.has(maybeNull) {
		v.setNotNull(dst)
	}
}

// notNull reports whether a pointer is known not to be null (reg_not_null).
func (v *verifier) notNull(r *reg) bool {
	if r.has(maybeNull) {
		return false
	}
	switch r.typ {
	case ptrSocket, ptrTCPSock, ptrMapValue, ptrMapKey, ptrSockCommon, constPtrMap:
		return true
	case ptrBTF:
		return r.ref != 0 || r.has(trusted) && !r.has(untrusted)
	case ptrMem:
		return !r.has(untrusted)
	}
	return false
}

// taken says what is known of a jump (is_branch_taken).
func (v *verifier) taken(cond domain.Cond, a, b *reg, only32 bool) domain.Truth {
	if a.isPacketAny() && b.isPacketAny() && !only32 {
		return packetTaken(cond, a, b)
	}
	if a.isPointer() || b.isPointer() {
		if only32 {
			return domain.Maybe
		}
		if !(b.typ == scalar && b.IsConst()) {
			a, b = b, a
		}
		if b.typ != scalar || !b.isNull() || !a.isPointer() || !v.notNull(a) {
			return domain.Maybe
		}
		switch cond {
		case domain.EQ:
			return domain.Never
		case domain.NE:
			return domain.Always
		}
		return domain.Maybe
	}
	return v.rules.Compare(cond, &a.Scalar, &b.Scalar, only32)
}

// packetTaken is taken for packet pointers that were compared with the end
// before.
func packetTaken(cond domain.Cond, a, b *reg) domain.Truth {
	p := a
	switch {
	case b.typ == ptrPacketEnd:
	case a.typ == ptrPacketEnd:
		p, cond = b, cond.Swap()
	default:
		return domain.Maybe
	}
	switch {
	case p.aux >= 0:
	case cond == domain.LE || cond == domain.GT:
		if p.aux == beyondPacketEnd {
			return truth(cond == domain.GT)
		}
	case cond == domain.LT || cond == domain.GE:
		return truth(cond == domain.GE)
	}
	return domain.Maybe
}

func truth(b bool) domain.Truth {
	if b {
		return domain.Always
	}
	return domain.Never
}

// collectLinked adds all places with the number id (collect_linked_regs).
func (v *verifier) collectLinked(id uint32, l linkedRegs) linkedRegs {
	id &^= addConst
	add := func(r *reg, f, i int, isReg bool) {
		if r.typ != scalar || r.id&^addConst != id {
			return
		}
		var ok bool
		if l, ok = l.add(f, i, isReg); !ok {
			r.clearID()
		}
	}
	for f := v.st.cur; f >= 0; f-- {
		fr := v.st.frames[f]
		for i := range fp {
			add(&fr.regs[i], f, i, true)
		}
		for i := range fr.stack {
			if s := &fr.stack[i]; s.spilled() {
				add(&s.reg, f, i, false)
			}
		}
	}
	return l
}

// syncLinked passes on what was found out about a number to its copies
// (sync_linked_regs).
func (v *verifier) syncLinked(st *state, known *reg, l linkedRegs) {
	for i := range l.len() {
		f, k, isReg := l.at(i)
		var r *reg
		if isReg {
			r = &st.frames[f].regs[k]
		} else {
			r = &st.frames[f].stack[k].reg
		}
		if r.typ != scalar || r == known || r.id&^addConst != known.id&^addConst {
			continue
		}
		if r.id&addConst == 0 && known.id&addConst == 0 || r.off == known.off {
			*r = *known
			continue
		}
		id, off := r.id, r.off
		d := domain.Const(uint64(int64(r.off - known.off)))
		*r = *known
		r.id, r.off = id, off
		v.rules.Add(&r.Scalar, &d)
	}
}

// setNotNull makes a pointer that may be null one that is not
// (mark_ptr_not_null_reg).
func (v *verifier) setNotNull(r *reg) {
	r.flags &^= maybeNull
	if r.typ != ptrMapValue {
		return
	}
	m := v.maps[r.obj]
	switch {
	case m.Inner != nil:
		r.typ = constPtrMap
		r.obj = v.mapIndex(m.Inner)
		r.aux = int32(r.id)
	case m.Type == mapXskMap:
		r.typ = ptrXDPSock
	case m.Type == mapSockMap || m.Type == mapSockHash:
		r.typ = ptrSocket
	}
}

// markNull says of all copies of a pointer that they are null, or are not
// (mark_ptr_or_null_regs).
func (v *verifier) markNull(st *state, at isa.Register, null bool) {
	r := &st.frame().regs[at]
	id, ref := r.id, r.ref
	if null && ref != 0 && ref == id {
		st.releaseRef(id)
	}
	st.regsDo(func(r *reg) {
		if !r.has(maybeNull) || r.id != id {
			return
		}
		if null {
			p := r.precise
			*r = constReg(0)
			r.precise = p
			return
		}
		v.setNotNull(r)
		if !v.mayHoldLock(r) {
			r.id = 0
		}
	})
}

// packetCompared learns how much of a packet there is from comparing a pointer
// with its end (try_match_pkt_pointers).
func (v *verifier) packetCompared(cond domain.Cond, op isa.Instruction, other *state) bool {
	dst, src := &v.regs()[op.Dst], &v.regs()[op.Src]
	at := op.Dst
	start := func(r *reg) bool {
		return r.typ == ptrPacket && r.off == 0 && r.IsConst() && r.Bits.Value == 0
	}
	switch {
	case dst.typ == ptrPacket && src.typ == ptrPacketEnd, dst.typ == ptrPacketMeta && start(src):
	case dst.typ == ptrPacketEnd && src.typ == ptrPacket, start(dst) && src.typ == ptrPacketMeta:
		dst, at, cond = src, op.Src, cond.Swap()
	default:
		return false
	}
	// Now it is "packet pointer cond end": this path goes on where it is
	// false, other where it is true.
	p := *dst
	switch cond {
	case domain.GT:
		goodPacket(v.st, &p, false)
		markPacketEnd(other, at, true)
	case domain.GE:
		goodPacket(v.st, &p, true)
		markPacketEnd(other, at, false)
	case domain.LT:
		goodPacket(other, &p, true)
		markPacketEnd(v.st, at, false)
	case domain.LE:
		goodPacket(other, &p, false)
		markPacketEnd(v.st, at, true)
	default:
		return false
	}
	return true
}

// goodPacket notes that the packet reaches up to p, and one byte beyond with
// open, for all pointers with the same variable part (find_good_pkt_pointers).
func goodPacket(st *state, p *reg, open bool) {
	if p.off < 0 || p.off == 0 && open || p.UMax > maxPacketOffset || p.UMax+uint64(p.off) > maxPacketOffset {
		return
	}
	n := p.off
	if open {
		n++
	}
	st.regsDo(func(r *reg) {
		if r.typ == p.typ && r.id == p.id {
			r.aux = max(r.aux, n)
		}
	})
}

// markPacketEnd notes that a packet pointer is at or beyond the end.
func markPacketEnd(st *state, at isa.Register, beyond bool) {
	r := &st.frame().regs[at]
	if r.typ != ptrPacket {
		return
	}
	r.aux = atPacketEnd
	if beyond {
		r.aux = beyondPacketEnd
	}
}
