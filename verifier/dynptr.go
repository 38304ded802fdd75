package verifier

import (
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

// The types of dynptrs (enum bpf_dynptr_type): aux of their slots. obj is 1 in
// the slot at the lower address, which comes first.
const (
	dynptrLocal = iota + 1
	dynptrRingbuf
	dynptrSkbData
	dynptrXDPData
)

var dynptrNames = [...]string{"any", "local", "ringbuf", "skb", "xdp"}

// objectSlot is the slot of an object of n slots at a stack pointer
// (stack_slot_obj_get_spi). It is the one at the lowest address.
func (v *verifier) objectSlot(r *reg, at, n int, what string) (int, *Error) {
	if !r.IsConst() {
		return 0, v.fail("object-offset", at, "a %s has to be at a constant offset of the stack", what)
	}
	off := int(r.off) + int(int64(r.Bits.Value))
	if off%8 != 0 || off > -8*n || off < -stackSize {
		return 0, v.fail("object-offset", at, "a %s cannot be at fp%+d", what, off)
	}
	k, _ := slotOf(off)
	return k, nil
}

func dynptrTypeOf(t abi.ArgType) int32 {
	switch {
	case t.Has(abi.DynptrTypeLocal):
		return dynptrLocal
	case t.Has(abi.DynptrTypeRingbuf):
		return dynptrRingbuf
	case t.Has(abi.DynptrTypeSkb):
		return dynptrSkbData
	case t.Has(abi.DynptrTypeXDP):
		return dynptrXDPData
	}
	return 0
}

// dynptrArgument checks a dynptr, or makes one (process_dynptr_func).
func (v *verifier) dynptrArgument(r *reg, at int, t abi.ArgType, meta *callMeta) *Error {
	typ := dynptrTypeOf(t)
	if t.Has(abi.MemUninit) {
		if r.typ != ptrStack {
			return v.fail("object-initialised", at, "%s makes a dynptr, and r%d holds one already", meta.helper.Name, at)
		}
		if !v.cfg.wholeDynptrs() {
			if err := v.dynptrFree(r, at); err != nil {
				return err
			}
		}
		if v.cfg.wholeDynptrs() {
			if _, err := v.objectSlot(r, at, 2, "dynptr"); err != nil {
				return err
			}
		}
		for i := range 2 {
			if err := v.memAccess(r, at, 8*i, 8, true, nil, -1, isa.Instruction{}, false); err != nil {
				return err
			}
		}
		k, err := v.objectSlot(r, at, 2, "dynptr")
		if err != nil {
			return err
		}
		f := v.st.frameOf(r)
		v.ids++
		d := reg{Scalar: domain.Const(0), typ: constPtrDynptr, aux: typ, id: v.ids}
		if typ == dynptrRingbuf {
			if d.ref = meta.cloned; d.ref == 0 {
				d.ref = v.acquire(refPointer, 0)
			}
		}
		for i := range 2 {
			sl := &f.stack[k-i]
			sl.reg = d
			sl.obj = uint32(1 - i)
			for j := range sl.kind {
				sl.kind[j] = slotDynptr
			}
			f.written |= 1 << (k - i)
		}
		return nil
	}
	if r.typ == constPtrDynptr {
		if !t.Has(abi.MemRdonly) {
			return v.fail("object-read", at, "%s changes the dynptr in r%d, which can be read only", meta.helper.Name, at)
		}
		if typ != 0 && r.aux != typ {
			return v.fail("object-type-other", at, "%s takes a dynptr of type %s in r%d, and it holds one of type %s", meta.helper.Name, dynptrNames[typ], at, dynptrNames[r.aux])
		}
		meta.dynptr, meta.dynptrType, meta.dynptrRef = r.id, r.aux, r.ref
		return nil
	}
	k, sl, err := v.dynptrAt(r, at)
	if err != nil {
		return err
	}
	if typ != 0 && sl.aux != typ {
		return v.fail("object-type-other", at, "%s takes a dynptr of type %s in r%d, and it holds one of type %s", meta.helper.Name, dynptrNames[typ], at, dynptrNames[sl.aux])
	}
	v.st.markRead(int(r.frame), k)
	v.st.markRead(int(r.frame), k-1)
	meta.dynptr, meta.dynptrType, meta.dynptrRef = sl.id, sl.aux, sl.ref
	return nil
}

// dynptrFree checks that a dynptr can be made at a stack pointer by the rules of
// Linux 6.1: where there is none, which a store ends too.
func (v *verifier) dynptrFree(r *reg, at int) *Error {
	if r.off%8 != 0 {
		return v.fail("object-offset", at, "a dynptr cannot be at fp%+d", r.off)
	}
	f := v.st.frameOf(r)
	k, _ := slotOf(int(r.off))
	for i := k - 1; i >= 0 && i <= k && i < len(f.stack); i++ {
		for _, b := range f.stack[i].kind {
			if b == slotDynptr {
				return v.fail("object-initialised", at, "there is a dynptr at r%d already", at)
			}
		}
	}
	return nil
}

// dynptrAt is the dynptr that a stack pointer points to.
func (v *verifier) dynptrAt(r *reg, at int) (int, *slot, *Error) {
	k, err := v.objectSlot(r, at, 2, "dynptr")
	if err != nil {
		return 0, nil, err
	}
	f := v.st.frameOf(r)
	if k >= len(f.stack) || f.stack[k].kind[7] != slotDynptr || f.stack[k].obj != 1 || f.stack[k-1].kind[7] != slotDynptr {
		return 0, nil, v.fail("object-uninitialised", at, "r%d points to no dynptr", at)
	}
	return k, &f.stack[k], nil
}

func (v *verifier) releasableDynptr(r *reg, at int) *Error {
	if r.typ != ptrStack {
		return v.fail("reference-missing", at, "a dynptr that came as an argument cannot be given back")
	}
	k, err := v.objectSlot(r, at, 2, "dynptr")
	if err != nil {
		return v.fail("reference-missing", at, "r%d is no reference that could be given back", at)
	}
	f := v.st.frameOf(r)
	if !v.cfg.wholeDynptrs() && k < len(f.stack) && f.stack[k].kind[7] != slotDynptr && f.stack[k].ref != 0 {
		return nil // the reference is still there, and what it was for is asked next
	}
	if k >= len(f.stack) || f.stack[k].kind[7] != slotDynptr || f.stack[k].ref == 0 {
		return v.fail("reference-missing", at, "r%d is no reference that could be given back", at)
	}
	return nil
}

// releaseDynptr gives a dynptr back, with all that was made from it
// (unmark_stack_slots_dynptr).
func (v *verifier) releaseDynptr(r *reg, at int) *Error {
	k, sl, err := v.dynptrAt(r, at)
	if err != nil {
		return err
	}
	if ref := sl.ref; ref != 0 {
		if !v.st.releaseRef(ref) {
			return v.fail("reference-unknown", at, "the dynptr in r%d is not held", at)
		}
		v.invalidateRef(ref)
		v.endClones(ref)
	}
	v.clearObject(v.st.frameOf(r), k-1, 2)
	return nil
}

// endClones ends the dynptrs that hold a reference.
func (v *verifier) endClones(ref uint32) {
	for i := 0; i <= v.st.cur; i++ {
		f := v.st.frames[i]
		for k := range f.stack {
			if sl := &f.stack[k]; sl.kind[7] == slotDynptr && sl.obj == 1 && sl.ref == ref {
				v.clearObject(f, k-1, 2)
			}
		}
	}
}

// clearObject makes slots hold nothing.
func (v *verifier) clearObject(f *frame, first, n int) {
	for i := first; i < first+n; i++ {
		f.stack[i] = slot{}
		f.written |= 1 << i
	}
}

// dynptrWritten notes that a write through a dynptr may move the packet.
func (v *verifier) dynptrWritten(meta *callMeta) *Error {
	if meta.dynptrType == dynptrSkbData {
		meta.changes = true
	}
	return nil
}

// overwriteObject is for stores to slot k: a dynptr there is gone, unless it
// has to be given back (destroy_if_dynptr_stack_slot).
func (v *verifier) overwriteObject(f *frame, _, k, off int) *Error {
	sl := &f.stack[k]
	if sl.kind[7] != slotDynptr || !v.cfg.wholeDynptrs() {
		return nil
	}
	if sl.obj == 0 {
		k++
		sl = &f.stack[k]
	}
	if sl.aux == dynptrRingbuf {
		return v.fail("object-overwritten", -1, "the dynptr at fp%+d, which has to be given back, would be overwritten", off)
	}
	id := sl.id
	v.clearObject(f, k-1, 2)
	v.st.regsDo(func(r *reg) {
		if r.typ == ptrMem && r.dynptr == id && id != 0 {
			v.invalidate(r)
		}
	})
	return nil
}
