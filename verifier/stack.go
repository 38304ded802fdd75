package verifier

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/skep-bpf/skep/isa"
)

// slotOf returns the slot and the byte in it (see slot.kind) of the byte at an
// offset from the frame pointer.
func slotOf(off int) (slot, index int) { return (-off - 1) / 8, (-off - 1) % 8 }

// stackBounds checks that an access lies in the stack, and makes the frame as
// deep (check_stack_access_within_bounds).
func (v *verifier) stackBounds(p *reg, at int, off, size int, write bool) (lo, hi int, err *Error) {
	f := v.st.frameOf(p)
	var min64, max64 int64
	if p.IsConst() {
		min64 = int64(p.Bits.Value) + int64(off)
		max64 = min64
	} else {
		if p.SMax >= maxOffset || p.SMin <= -maxOffset {
			return 0, 0, v.fail("stack-unbounded", at, "a stack access at an offset (r%d) that has no bounds", at)
		}
		min64, max64 = p.SMin+int64(off), p.SMax+int64(off)
	}
	least := int64(-stackSize)
	if !write && !v.cfg.Caps.perfmon() {
		least = -int64(len(f.stack) * 8)
	}
	if min64 < least || min64 > -1 || max64+int64(size) > 0 {
		what := fmt.Sprintf("%d bytes at fp%+d", size, min64)
		if !p.IsConst() {
			what = fmt.Sprintf("%d bytes at fp%+d to fp%+d", size, min64, max64)
		}
		if least > -stackSize && min64 >= -stackSize && min64 < least {
			return 0, 0, v.fail("stack-out-of-bounds", at, "%s are read, of which nothing was written", what)
		}
		return 0, 0, v.fail("stack-out-of-bounds", at, "%s are outside of the stack, which is fp-%d to fp-1", what, stackSize)
	}
	f.grow(int(-min64))
	if sub := &v.subprogs[f.subprog]; sub.depth < int(-min64) {
		sub.depth = (int(-min64) + 7) &^ 7
	}
	return int(min64), int(max64), nil
}

// spillable reports whether a pointer may be put on the stack.
func spillable(r *reg) bool {
	switch r.typ {
	case ptrMapValue, ptrStack, ptrCtx, ptrPacket, ptrPacketMeta, ptrPacketEnd, ptrFlowKeys, constPtrMap, ptrSocket,
		ptrSockCommon, ptrTCPSock, ptrXDPSock, ptrBTF, ptrBuf, ptrMem, ptrFunc, ptrMapKey, ptrArena:
		return true
	}
	return false
}

// bounded reports whether something is known of the size of a number
// (register_is_bounded).
func bounded(r *reg) bool {
	return r.UMin > 0 || r.UMax < math.MaxUint64 || r.SMin > math.MinInt64 || r.SMax < math.MaxInt64 ||
		r.U32Min > 0 || r.U32Max < math.MaxUint32 || r.S32Min > math.MinInt32 || r.S32Max < math.MaxInt32
}

// saveReg puts a register into a slot (save_register_state).
func saveReg(sl *slot, r *reg, size int) {
	sl.reg = *r
	for i := 7; i >= 0; i-- {
		switch {
		case i >= 8-size:
			sl.kind[i] = slotSpill
		case sl.kind[i] != slotZero && sl.kind[i] != slotInvalid:
			sl.kind[i] = slotMisc
		}
	}
}

// stackWrite stores to the stack (check_stack_write_fixed_off); val is nil for
// a constant or unknown value, the former in op.
func (v *verifier) stackWrite(p *reg, at, off, size int, val *reg, op isa.Instruction, valReg int) *Error {
	if !p.IsConst() {
		return v.stackWriteVar(p, at, off, size, val, op, valReg)
	}
	f := v.st.frameOf(p)
	off += int(int64(p.Bits.Value))
	k, index := slotOf(off)
	sl := &f.stack[k]
	if !v.cfg.Caps.perfmon() && sl.spilled() && (sl.typ != scalar || v.cfg.Kernel < linux6_12) && size != 8 {
		return v.fail("pointer-corrupted", at, "part of a pointer that is kept at fp-%d would be overwritten", (k+1)*8)
	}
	if !v.cfg.Caps.perfmon() && (val != nil && spillable(val) || !plain(sl.kind[index-size+1:index+1])) {
		// A load may overtake the store, and see what was there before.
		v.insns[v.insn].noSpecResult = true
	}
	if err := v.overwriteObject(f, int(p.frame), k, off); err != nil {
		return err
	}
	sl = &f.stack[k]
	if size == 8 {
		f.written |= 1 << k
	}
	aligned := off%8 == 0
	stored := op.Class() == isa.ClassST && op.Op.Mode() == isa.ModeMem
	flags := stackHopFlags(int(p.frame), k)
	switch {
	case val != nil && aligned && val.typ == scalar && v.cfg.Caps.bpf() && (v.cfg.spillsAll() || bounded(val) && !val.isNull()):
		fits := val.width() <= 8*size
		if fits && v.cfg.spillsAll() {
			v.linkScalar(val)
		}
		saveReg(sl, val, size)
		if !fits {
			sl.clearID()
		}
	case val == nil && aligned && stored && v.cfg.Caps.bpf() && (v.cfg.spillsAll() || op.Imm != 0):
		r := constReg(uint64(op.Imm))
		saveReg(sl, &r, size)
	case val != nil && spillable(val):
		if size != 8 {
			return v.fail("partial-spill", valReg, "a pointer (r%d) can be kept on the stack as a whole only, and these are %d bytes", valReg, size)
		}
		if f != v.st.frame() && val.typ == ptrStack {
			return v.fail("stack-pointer-escapes", valReg, "a pointer into this function's stack is stored in its caller's")
		}
		saveReg(sl, val, size)
	default:
		kind := slotMisc
		if sl.special() {
			sl.scrub()
		}
		sl.typ = notInit
		if val != nil && val.isNull() || val == nil && stored && op.Imm == 0 {
			if valReg >= 0 {
				if err := v.precise(isa.Register(valReg)); err != nil {
					return err
				}
			}
			kind = slotZero
		}
		for i := range size {
			sl.kind[index-i] = kind
		}
		flags = 0
	}
	if flags != 0 {
		v.pushHop(flags, 0)
	}
	return nil
}

// plain reports whether bytes hold numbers of which nothing is kept.
func plain(kinds []slotKind) bool {
	for _, k := range kinds {
		if k != slotMisc && k != slotZero {
			return false
		}
	}
	return true
}

// stackWriteVar stores at an offset that is not known
// (check_stack_write_var_off).
func (v *verifier) stackWriteVar(p *reg, at, off, size int, val *reg, op isa.Instruction, valReg int) *Error {
	f := v.st.frameOf(p)
	lo, hi := int(p.SMin)+off, int(p.SMax)+off+size
	zero := val != nil && val.isNull() || val == nil && op.Class() == isa.ClassST && op.Op.Mode() == isa.ModeMem && op.Imm == 0
	used := false
	for i := lo; i < hi; i++ {
		k, _ := slotOf(i)
		if err := v.overwriteObject(f, int(p.frame), k, i); err != nil {
			return err
		}
	}
	for i := lo; i < hi; i++ {
		k, index := slotOf(i)
		sl := &f.stack[k]
		kind := &sl.kind[index]
		if !v.cfg.Caps.perfmon() && *kind != slotMisc && *kind != slotZero {
			if *kind == slotInvalid {
				return v.fail("stack-variable-write", at, "a write at a variable offset reaches fp%+d, where nothing was written, which needs CAP_PERFMON", i)
			}
			return v.fail("stack-variable-write", at, "a write at a variable offset reaches the value kept at fp%+d, which needs CAP_PERFMON", i)
		}
		if zero && *kind == slotSpill && sl.typ == scalar && sl.IsConst() && sl.Bits.Value == 0 {
			used = true
			continue
		}
		sl.typ = notInit
		if sl.special() {
			sl.scrub()
		}
		if zero && *kind == slotZero {
			used = true
			continue
		}
		*kind = slotMisc
	}
	if used && valReg >= 0 {
		return v.precise(isa.Register(valReg))
	}
	return nil
}

// stackRead loads from the stack into dst; dst is nil where only the access is
// checked (check_stack_read).
func (v *verifier) stackRead(p *reg, at, off, size int, dst *reg) *Error {
	if !p.IsConst() {
		if dst == nil {
			return v.fail("stack-variable-argument", at, "a stack pointer at a variable offset cannot be used here")
		}
		if err := v.stackInit(p, at, off, size, false, direct, false, nil); err != nil {
			return err
		}
		v.stackBytes(v.st.frameOf(p), int(p.SMin)+off, int(p.SMax)+off+size, dst)
		return nil
	}
	off += int(int64(p.Bits.Value))
	f := v.st.frameOf(p)
	k, index := slotOf(off)
	sl := &f.stack[k]
	v.st.markRead(int(p.frame), k)
	if !sl.spilled() {
		if err := v.stackDefined(sl, at, off, size, index); err != nil {
			return err
		}
		if dst != nil {
			v.stackBytes(f, off, off+size, dst)
		}
		return nil
	}
	n := 1
	for n < 8 && sl.kind[7-n] == slotSpill {
		n++
	}
	if size != 8 || n != 8 {
		if sl.typ != scalar {
			return v.fail("partial-fill", at, "%d bytes are read of the pointer that is kept at fp-%d; it can be read as a whole only", size, (k+1)*8)
		}
		if dst == nil {
			return nil
		}
		narrow := off % 8
		if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
			narrow = 8 - n
		}
		if narrow == 0 && (size == n || size < n && v.cfg.spillsAll()) {
			*dst = sl.reg
			if dst.width() > 8*size {
				dst.clearID()
			}
		} else {
			spills, zeros := 0, 0
			for i := range size {
				switch sl.kind[index-i] {
				case slotSpill:
					spills++
				case slotZero:
					zeros++
				}
			}
			if err := v.stackDefined(sl, at, off, size, index); err != nil {
				return err
			}
			switch {
			case !v.cfg.spillsAll():
				v.setUnknown(dst)
			case spills == size && sl.IsConst() && sl.Bits.Value == 0:
				v.setConst(dst, 0)
				v.pushHop(stackHopFlags(int(p.frame), k), 0)
			case zeros == size:
				v.setConst(dst, 0)
			default:
				v.setUnknown(dst)
			}
			return nil
		}
	} else if dst != nil {
		*dst = sl.reg
	} else if v.leaks(&sl.reg) {
		return v.fail("pointer-leaked", at, "the pointer that is kept at fp-%d would become visible", (k+1)*8)
	}
	v.pushHop(stackHopFlags(int(p.frame), k), 0)
	return nil
}

// stackDefined checks that bytes of a slot may be read.
func (v *verifier) stackDefined(sl *slot, at, off, size, index int) *Error {
	for i := range size {
		switch sl.kind[index-i] {
		case slotSpill, slotMisc, slotZero:
			continue
		case slotInvalid:
			if v.cfg.Caps.perfmon() {
				continue
			}
			return v.fail("stack-uninitialised", at, "the byte at fp%+d is read, but nothing was written to it on this path", off+i)
		}
		return v.fail("stack-object-read", at, "the byte at fp%+d is part of a dynptr, an iterator or a saved flag, which cannot be read", off+i)
	}
	return nil
}

// stackBytes is what bytes that are no register give (mark_reg_stack_read).
func (v *verifier) stackBytes(f *frame, lo, hi int, dst *reg) {
	for i := lo; i < hi; i++ {
		if k, index := slotOf(i); f.stack[k].kind[index] != slotZero {
			v.setUnknown(dst)
			return
		}
	}
	v.setConst(dst, 0)
}

// stackInit checks that a range of the stack can be read by a function, and
// takes it for overwritten where it may be (check_stack_range_initialized). raw
// says that the function writes it without reading.
func (v *verifier) stackInit(p *reg, at, off, size int, zeroOK bool, by accessBy, write bool, raw *rawMem) *Error {
	if size == 0 && !zeroOK {
		return v.fail("zero-size", at, "a size of 0 is not allowed here")
	}
	clobber := by == byHelper
	if v.cfg.Kernel >= linux6_15 {
		clobber = clobber && write
	}
	lo, hi, err := v.stackBounds(p, at, off, size, clobber)
	if err != nil {
		return err
	}
	if !p.IsConst() {
		if !v.cfg.Caps.perfmon() {
			return v.fail("stack-variable-access", at, "an access to the stack at an offset that is not constant (r%d) needs CAP_PERFMON", at)
		}
		raw = nil
	}
	f := v.st.frameOf(p)
	if raw != nil && raw.uninit {
		for i := lo; i < hi+size; i++ {
			if k, index := slotOf(i); v.cfg.wholeDynptrs() && k < len(f.stack) && f.stack[k].kind[index] == slotDynptr {
				return v.fail("object-overwritten", at, "the dynptr at fp%+d would be overwritten", i)
			}
		}
		raw.reg, raw.size = at, size
		return nil
	}
	for i := lo; i < hi+size; i++ {
		k, index := slotOf(i)
		sl := &f.stack[k]
		kind := &sl.kind[index]
		switch {
		case *kind == slotMisc:
		case *kind == slotZero, *kind == slotInvalid && v.cfg.Caps.perfmon():
			if clobber {
				*kind = slotMisc
			}
		case sl.spilled() && (sl.typ == scalar || v.cfg.Caps.perfmon()):
			if clobber {
				v.setUnknown(&sl.reg)
				sl.scrub()
			}
		default:
			return v.fail("stack-uninitialised", at, "the byte at fp%+d is read, but it holds no value that may be read here", i)
		}
		v.st.markRead(int(p.frame), k)
	}
	return nil
}

// rawMem is memory that a function fills without reading it.
type rawMem struct {
	uninit bool
	reg    int
	size   int
}

// clobberStack makes unknown what a function filled.
func (v *verifier) clobberStack(raw *rawMem) *Error {
	p := &v.regs()[raw.reg]
	for i := range raw.size {
		if err := v.memAccess(p, raw.reg, i, 1, true, nil, -1, isa.Instruction{Op: isa.Opcode(isa.ClassST) | isa.Opcode(isa.ModeMem), Imm: math.MinInt32}, false); err != nil {
			return err
		}
	}
	return nil
}

// constantKey is the key that lies at p on the stack, where that is one number
// (get_constant_map_key).
func (v *verifier) constantKey(p *reg, size int) (key uint64, ok bool, err *Error) {
	if !v.cfg.Caps.bpf() || p.typ != ptrStack || !p.IsConst() {
		return 0, false, nil
	}
	f := v.st.frameOf(p)
	k, index := slotOf(int(p.off) + int(int64(p.Bits.Value)))
	sl := &f.stack[k]
	zeros, spills := 0, 0
	for i := index; i >= 0 && sl.kind[i] == slotZero; i-- {
		zeros++
	}
	if zeros >= size {
		return 0, true, nil
	}
	if !sl.spilled() || sl.typ != scalar {
		return 0, false, nil
	}
	for i := index; i >= 0 && sl.kind[i] == slotSpill; i-- {
		spills++
	}
	if spills != size || !sl.IsConst() {
		return 0, false, nil
	}
	v.bt = backtracker{frame: v.st.cur}
	v.bt.slots[p.frame] |= 1 << k
	return sl.Bits.Value, true, v.backtrack()
}
