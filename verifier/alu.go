package verifier

import (
	"math"
	"math/bits"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

// maxOffset is how far pointers may be moved (BPF_MAX_VAR_OFF).
const maxOffset = 1 << 29

// sane forgets the ranges of a scalar in which no number is left, which only
// impossible paths have (reg_bounds_sanity_check).
func (v *verifier) sane(r *reg) {
	if r.typ == scalar && v.cfg.Kernel >= linux6_12 && r.Contradictory() {
		r.ForgetRanges()
	}
}

// arithmetic does an instruction of the ALU classes (check_alu_op).
func (v *verifier) arithmetic(op isa.Instruction) *Error {
	alu := op.ALUOp()
	switch alu {
	case isa.End, isa.Neg:
		return v.unary(op, alu)
	case isa.Mov:
		return v.move(op)
	}
	if op.Op.Source() == isa.SourceReg {
		if err := v.read(op.Src); err != nil {
			return err
		}
	}
	if err := v.read(op.Dst); err != nil {
		return err
	}
	if op.Op.Source() == isa.SourceImm {
		width := int64(64)
		if op.Class() == isa.ClassALU {
			width = 32
		}
		switch alu {
		case isa.Div, isa.Mod, isa.SDiv, isa.SMod:
			if op.Imm == 0 {
				return v.fail("division-by-zero", -1, "the divisor is the constant 0")
			}
		case isa.LSh, isa.RSh, isa.ArSh:
			if op.Imm < 0 || op.Imm >= width {
				return v.fail("invalid-shift", int(op.Dst), "a shift by %d of %d bits", op.Imm, width)
			}
		}
	}
	if err := v.writable(op.Dst); err != nil {
		return err
	}
	if err := v.binary(op, alu); err != nil {
		return err
	}
	v.sane(&v.regs()[op.Dst])
	return nil
}

func (v *verifier) unary(op isa.Instruction, alu isa.ALUOp) *Error {
	if err := v.read(op.Dst); err != nil {
		return err
	}
	r := &v.regs()[op.Dst]
	if v.leaks(r) {
		return v.fail("pointer-arithmetic", int(op.Dst), "arithmetic on a pointer (r%d) needs CAP_PERFMON", op.Dst)
	}
	if err := v.writable(op.Dst); err != nil {
		return err
	}
	if alu == isa.End || r.typ != scalar || v.cfg.Kernel < linux6_17 {
		v.setUnknown(r)
		return nil
	}
	r.Neg()
	if op.Class() == isa.ClassALU {
		r.ZeroExtend32()
	}
	v.rules.Sync(&r.Scalar)
	r.clearID()
	v.sane(r)
	return nil
}

// linkScalar gives a scalar that is being copied an id, by which what is found
// out about the copy holds for it too.
func (v *verifier) linkScalar(r *reg) {
	if r.typ != scalar || r.IsConst() {
		return
	}
	if r.id&addConst != 0 {
		r.clearID()
	}
	if r.id == 0 {
		v.ids++
		r.id = v.ids
	}
}

// move does dst = src and dst = imm, with and without extension.
func (v *verifier) move(op isa.Instruction) *Error {
	reg64 := op.Class() == isa.ClassALU64
	if op.Op.Source() == isa.SourceImm {
		if err := v.writable(op.Dst); err != nil {
			return err
		}
		n := uint64(op.Imm)
		if !reg64 {
			n = uint64(uint32(n))
		}
		v.setConst(&v.regs()[op.Dst], n)
		return nil
	}
	if op.IsAddrSpaceCast() {
		return v.unsupported("arena address space casts")
	}
	if err := v.read(op.Src); err != nil {
		return err
	}
	if err := v.writable(op.Dst); err != nil {
		return err
	}
	dst, src := &v.regs()[op.Dst], &v.regs()[op.Src]
	size := int(op.Off) / 8
	if reg64 && size == 0 {
		v.linkScalar(src)
		*dst = *src
		return nil
	}
	if v.leaks(src) {
		return v.fail("pointer-truncated", int(op.Src), "part of a pointer (r%d) is copied", op.Src)
	}
	if src.typ != scalar {
		v.setUnknown(dst)
		if !reg64 {
			dst.ZeroExtend32()
			v.rules.Sync(&dst.Scalar)
		}
		return nil
	}
	// A copy that keeps the value keeps what links it to the original.
	same := src.width() <= 32 && v.cfg.Kernel >= linux6_12
	if size > 0 {
		same = src.UMax < 1<<(8*size-1)
	}
	if same {
		v.linkScalar(src)
	}
	*dst = *src
	if !same {
		dst.clearID()
	}
	switch {
	case reg64:
		dst.SignExtend(size)
	default:
		if size > 0 {
			dst.SignExtend32(size)
		}
		dst.ZeroExtend32()
		v.rules.Sync(&dst.Scalar)
	}
	v.sane(dst)
	return nil
}

// binary does dst = dst op src (adjust_reg_min_max_vals).
func (v *verifier) binary(op isa.Instruction, alu isa.ALUOp) *Error {
	regs := v.regs()
	dst := &regs[op.Dst]
	var src *reg
	if op.Op.Source() == isa.SourceReg {
		src = &regs[op.Src]
	} else {
		v.scratch[0] = constReg(uint64(op.Imm))
		src = &v.scratch[0]
	}
	if dst.typ == ptrArena || src.typ == ptrArena {
		return v.unsupported("arena pointers")
	}
	switch {
	case src.typ != scalar && dst.typ != scalar:
		if alu == isa.Sub && v.cfg.Caps.perfmon() {
			v.setUnknown(dst)
			return nil
		}
		return v.fail("pointer-arithmetic", int(op.Dst), "arithmetic between two pointers, r%d and r%d", op.Dst, op.Src)
	case src.typ != scalar:
		if err := v.precise(op.Dst); err != nil {
			return err
		}
		off := *dst
		return v.movePointer(op, alu, src, &off)
	case dst.typ != scalar:
		if op.Op.Source() == isa.SourceReg {
			if err := v.precise(op.Src); err != nil {
				return err
			}
		}
		return v.movePointer(op, alu, dst, src)
	}
	if dst.precise && op.Op.Source() == isa.SourceReg {
		if err := v.precise(op.Src); err != nil {
			return err
		}
	}
	o := *src
	if err := v.scalarOp(op, alu, dst, &o); err != nil {
		return err
	}
	// Adding a constant leaves a number linked to where it came from.
	if v.cfg.Caps.bpf() && alu == isa.Add && op.Class() == isa.ClassALU64 && dst.id != 0 && o.IsConst() &&
		!(op.Op.Source() == isa.SourceReg && op.Src == op.Dst) && v.cfg.Kernel >= linux6_12 {
		if dst.id&addConst != 0 || o.Bits.Value > math.MaxInt32 {
			dst.clearID()
		} else {
			dst.id |= addConst
			dst.off = int32(o.Bits.Value)
		}
	} else {
		dst.clearID()
	}
	return nil
}

// constIn reports whether r is one number, or its lower half is.
func (r *reg) constIn(only32 bool) bool {
	if only32 {
		return r.IsConst32()
	}
	return r.IsConst()
}

// contradictoryIn reports whether no number is left in the part of r that an
// operation takes, by its ranges.
func (r *reg) contradictoryIn(only32 bool) bool {
	if only32 {
		return r.IsConst32() && (r.S32Min != r.S32Max || r.U32Min != r.U32Max) || r.S32Min > r.S32Max || r.U32Min > r.U32Max
	}
	return r.IsConst() && (r.SMin != r.SMax || r.UMin != r.UMax) || r.SMin > r.SMax || r.UMin > r.UMax
}

// computable reports whether the range of a result is computed
// (is_safe_to_compute_dst_reg_range).
func computable(alu isa.ALUOp, only32 bool, o *reg) bool {
	switch alu {
	case isa.Add, isa.Sub, isa.And, isa.Xor, isa.Or, isa.Mul:
		return true
	case isa.LSh, isa.RSh, isa.ArSh:
		if only32 {
			return o.IsConst32() && o.S32Min == o.S32Max && o.U32Min == o.U32Max && o.UMax < 32
		}
		return o.IsConst() && o.SMin == o.SMax && o.UMin == o.UMax && o.UMax < 64
	}
	return false
}

// scalarOp computes the range of a number (adjust_scalar_min_max_vals).
func (v *verifier) scalarOp(op isa.Instruction, alu isa.ALUOp, dst, o *reg) *Error {
	only32 := op.Class() == isa.ClassALU
	if v.cfg.Kernel < linux6_12 && o.contradictoryIn(only32) {
		v.setUnknown(dst)
		return nil
	}
	if v.cfg.Kernel < linux6_12 && (alu == isa.Or || alu == isa.Xor || alu == isa.Mul) && !o.constIn(only32) || !computable(alu, only32, o) {
		v.setUnknown(dst)
		if only32 && v.cfg.Kernel >= linux6_18 {
			dst.Scalar = domain.Unknown
		}
		return nil
	}
	if alu == isa.Add || alu == isa.Sub {
		if err := v.sanitizeScalar(op); err != nil {
			return err
		}
	}
	switch alu {
	case isa.Add:
		v.rules.Add(&dst.Scalar, &o.Scalar)
	case isa.Sub:
		v.rules.Sub(&dst.Scalar, &o.Scalar)
	case isa.Mul:
		v.rules.Mul(&dst.Scalar, &o.Scalar)
	case isa.And, isa.Or:
		if o.IsConst() {
			if err := v.forkSign(op, dst); err != nil {
				return err
			}
		}
		if alu == isa.And {
			v.rules.And(&dst.Scalar, &o.Scalar)
		} else {
			v.rules.Or(&dst.Scalar, &o.Scalar)
		}
	case isa.Xor:
		v.rules.Xor(&dst.Scalar, &o.Scalar)
	default:
		n := uint(o.UMin)
		switch {
		case alu == isa.LSh && only32:
			dst.Lsh32(n)
		case alu == isa.LSh:
			dst.Lsh(n)
		case alu == isa.RSh && only32:
			dst.Rsh32(n)
		case alu == isa.RSh:
			dst.Rsh(n)
		case only32:
			dst.Arsh32(n)
		default:
			dst.Arsh(n)
		}
	}
	if only32 {
		dst.ZeroExtend32()
	}
	v.rules.Sync(&dst.Scalar)
	return nil
}

// forkSign follows 0 and -1 apart: a mask that was made by shifting a sign
// down is what compilers choose between two constants with
// (maybe_fork_scalars).
func (v *verifier) forkSign(op isa.Instruction, dst *reg) *Error {
	whole := dst.SMin == -1 && dst.SMax == 0
	half := dst.S32Min == -1 && dst.S32Max == 0
	if !v.cfg.forksSigns() || !whole && !half {
		return nil
	}
	st, err := v.push(v.insn, v.insn, false)
	if err != nil {
		return err
	}
	zero, ones := &st.frame().regs[op.Dst], dst
	if whole {
		zero.Scalar, ones.Scalar = domain.Const(0), domain.Const(math.MaxUint64)
		return nil
	}
	zero.SetLow32(0)
	ones.SetLow32(math.MaxUint32)
	return nil
}

// offsetSane reports why a pointer cannot be where it would be
// (check_reg_sane_offset).
func (v *verifier) offsetSane(r *reg, at int, typ string) *Error {
	n := int64(r.Bits.Value)
	switch {
	case r.IsConst() && (n >= maxOffset || n <= -maxOffset):
		return v.fail("pointer-out-of-bounds", at, "a %s pointer cannot be moved by %d", typ, n)
	case r.typ != scalar && (r.off >= maxOffset || r.off <= -maxOffset):
		return v.fail("pointer-out-of-bounds", at, "a %s pointer cannot have the offset %d", typ, r.off)
	case r.SMin == math.MinInt64:
		return v.fail("pointer-unbounded", at, "a %s pointer is moved by a number that has no lower bound", typ)
	case r.SMin >= maxOffset || r.SMin <= -maxOffset:
		return v.fail("pointer-out-of-bounds", at, "a %s pointer is moved by %d or more, which is out of bounds", typ, r.SMin)
	}
	return nil
}

// movePointer does dst = ptr op off (adjust_ptr_min_max_vals). ptr may be the
// destination; off is not.
func (v *verifier) movePointer(op isa.Instruction, alu isa.ALUOp, ptr, off *reg) *Error {
	dst := &v.regs()[op.Dst]
	d := int(op.Dst)
	known := off.IsConst()
	if known && (off.SMin != off.SMax || off.UMin != off.UMax) || off.SMin > off.SMax || off.UMin > off.UMax {
		v.setUnknown(dst) // on a path that no run takes
		return nil
	}
	if op.Class() == isa.ClassALU {
		if alu == isa.Sub && v.cfg.Caps.perfmon() {
			v.setUnknown(dst)
			return nil
		}
		return v.fail("pointer-arithmetic-32", d, "32-bit arithmetic on a pointer")
	}
	name := v.typeName(ptr)
	if ptr.has(maybeNull) {
		return v.fail("null-arithmetic", d, "arithmetic on a pointer of type %s that may be null", name)
	}
	switch ptr.typ {
	case ptrCtx, ptrMapValue, ptrMapKey, ptrStack, ptrPacketMeta, ptrPacket, ptrTPBuffer, ptrBTF, ptrMem, ptrBuf, ptrFunc, constPtrDynptr:
	case ptrFlowKeys:
		if !known {
			return v.fail("pointer-arithmetic", d, "a pointer of type %s can be moved by constants only", name)
		}
	case constPtrMap:
		if !known || off.SMin != 0 || alu != isa.Add {
			return v.fail("pointer-arithmetic", d, "arithmetic on a pointer of type %s", name)
		}
	default:
		return v.fail("pointer-arithmetic", d, "arithmetic on a pointer of type %s", name)
	}
	old := *ptr // ptr may be dst, and dst is about to change
	inPlace := ptr == dst
	if !inPlace {
		*dst = old
	}
	if err := v.offsetSane(off, d, name); err != nil {
		return err
	}
	if err := v.offsetSane(&old, d, name); err != nil {
		return err
	}
	addOrSub := alu == isa.Add || alu == isa.Sub
	var limit sanitizer
	if addOrSub {
		if err := v.sanitizePointer(op, &limit, &old, off, dst, inPlace, false); err != nil {
			return err
		}
	}
	dst.U32Min, dst.U32Max, dst.S32Min, dst.S32Max = 0, math.MaxUint32, math.MinInt32, math.MaxInt32
	switch alu {
	case isa.Add:
		if known && fits32(int64(old.off)+off.SMin) {
			dst.off = old.off + int32(off.SMin)
			break
		}
		addRanges(dst, off)
		if old.isPacket() {
			v.ids++
			dst.id, dst.aux = v.ids, 0
		}
	case isa.Sub:
		if !inPlace {
			return v.fail("pointer-from-scalar", d, "a pointer is subtracted from a number")
		}
		if old.typ == ptrStack {
			return v.fail("stack-pointer-subtraction", d, "a number is subtracted from a stack pointer; add a negative constant")
		}
		if known && fits32(int64(old.off)-off.SMin) {
			dst.off = old.off - int32(off.SMin)
			break
		}
		subRanges(dst, off)
		if old.isPacket() {
			v.ids++
			dst.id = v.ids
			if off.SMin < 0 {
				dst.aux = 0
			}
		}
	default:
		return v.fail("pointer-operator", d, "a pointer takes addition and subtraction only")
	}
	if err := v.offsetSane(dst, d, name); err != nil {
		return err
	}
	v.rules.Sync(&dst.Scalar)
	if err := v.sanitizeBounds(op, dst); err != nil {
		return err
	}
	if addOrSub {
		return v.sanitizePointer(op, &limit, dst, off, dst, true, true)
	}
	return nil
}

func fits32(n int64) bool { return n == int64(int32(n)) }

// addRanges and subRanges move the variable part of a pointer. They differ from
// what is done to numbers: ends that both wrap are forgotten.
func addRanges(p, off *reg) {
	lo, hi := p.SMin+off.SMin, p.SMax+off.SMax
	if (p.SMin^lo)&(off.SMin^lo) < 0 || (p.SMax^hi)&(off.SMax^hi) < 0 {
		lo, hi = math.MinInt64, math.MaxInt64
	}
	p.SMin, p.SMax = lo, hi
	ulo, c1 := bits.Add64(p.UMin, off.UMin, 0)
	uhi, c2 := bits.Add64(p.UMax, off.UMax, 0)
	if c1|c2 != 0 {
		ulo, uhi = 0, math.MaxUint64
	}
	p.UMin, p.UMax = ulo, uhi
	p.Bits = p.Bits.Add(off.Bits)
}

func subRanges(p, off *reg) {
	lo, hi := p.SMin-off.SMax, p.SMax-off.SMin
	if (p.SMin^off.SMax)&(p.SMin^lo) < 0 || (p.SMax^off.SMin)&(p.SMax^hi) < 0 {
		lo, hi = math.MinInt64, math.MaxInt64
	}
	p.SMin, p.SMax = lo, hi
	if p.UMin < off.UMax {
		p.UMin, p.UMax = 0, math.MaxUint64
	} else {
		p.UMin, p.UMax = p.UMin-off.UMax, p.UMax-off.UMin
	}
	p.Bits = p.Bits.Sub(off.Bits)
}
