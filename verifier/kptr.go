package verifier

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
)

// rcuProtected are the kernel's types whose objects outlive an RCU read-side
// critical section (rcu_protected_types).
var rcuProtected = map[string]bool{"cgroup": true, "bpf_cpumask": true, "task_struct": true, "bpf_crypto_ctx": true}

// kptrTarget is the type of what a pointer in a map leads to; local says that
// it is one of the program's.
func (v *verifier) kptrTarget(f *mapField) (t uint32, local bool, err *Error) {
	if v.cfg.Types == nil {
		return 0, false, v.unsupported("pointers to objects in maps without the kernel's types")
	}
	var s *btf.Struct
	if e := v.cfg.Types.TypeByName(f.to.TypeName(), &s); e == nil {
		return v.typeIndex(s), false, nil
	}
	return v.typeIndex(f.to), true, nil
}

// kptrAccess checks an instruction that loads or stores a pointer in a map
// (check_map_kptr_access).
func (v *verifier) kptrAccess(_ *reg, f *mapField, write bool, val *reg, valReg int) *Error {
	op := v.insns[v.insn].op
	if op.IsAtomic() || op.Op.Mode() != isa.ModeMem {
		return v.fail("kptr-access", -1, "a pointer in a map is loaded and stored by plain instructions only")
	}
	t, local, err := v.kptrTarget(f)
	if err != nil {
		return err
	}
	if !write {
		if val == nil {
			return nil
		}
		fl := maybeNull
		safe := f.kind == fieldKptrPercpu || f.kind == fieldKptrRef && (local || rcuProtected[f.to.TypeName()])
		switch {
		case !safe || !v.inRCU():
			fl |= untrusted
		case f.kind == fieldKptrPercpu:
			fl |= rcu | percpu
		default:
			fl |= rcu
			if local {
				fl |= alloc
				if fieldOf(v.objectFields(t), fieldListNode, fieldTreeNode) != nil {
					fl |= nonOwning
				}
			}
		}
		*val = pointer(ptrBTF, fl, t)
		v.ids++
		val.id = v.ids
		return nil
	}
	if f.kind != fieldKptrUntrusted {
		return v.fail("kptr-store", -1, "a pointer in a map that owns its object cannot be stored to")
	}
	if op.Class() == isa.ClassST {
		if op.Imm != 0 {
			return v.fail("kptr-store", -1, "of constants, only 0 can be stored into a pointer in a map")
		}
		return nil
	}
	if val.isNull() {
		return v.precise(isa.Register(valReg))
	}
	return v.kptrMatches(f, val, valReg)
}

// kptrMatches checks that a register may be put into a pointer in a map
// (map_kptr_match_type).
func (v *verifier) kptrMatches(f *mapField, r *reg, at int) *Error {
	t, local, err := v.kptrTarget(f)
	if err != nil {
		return err
	}
	bad := func() *Error {
		return v.fail("kptr-type", at, "r%d (%s) cannot be put into a pointer to struct %s", at, v.typeName(r), f.to.TypeName())
	}
	if r.typ != ptrBTF {
		return bad()
	}
	allowed := maybeNull | trusted | rcu
	if f.kind == fieldKptrUntrusted {
		allowed |= untrusted
	}
	if r.has(alloc) {
		allowed = maybeNull | alloc
		if f.kind == fieldKptrPercpu {
			allowed |= percpu
		}
	}
	if r.flags&^allowed != 0 || r.has(alloc) != local {
		return bad()
	}
	if err := v.fixedOffset(r, at, true); err != nil {
		return err
	}
	if !matches(v.types.list[r.obj], v.types.list[t], int(r.off), f.kind != fieldKptrUntrusted) {
		return bad()
	}
	return nil
}

// kptrArgument checks where bpf_kptr_xchg puts a pointer (process_kptr_func).
func (v *verifier) kptrArgument(r *reg, at int, meta *callMeta) *Error {
	if r.typ == ptrMapValue {
		m := v.maps[r.obj]
		if m.Value == nil {
			return v.fail("field-missing", at, "map %s has no type, which bpf_kptr_xchg needs", m.Name)
		}
		meta.m = int(r.obj)
	}
	if !r.IsConst() {
		return v.fail("field-offset", at, "the kernel pointer in r%d must be at a constant offset", at)
	}
	kinds := []fieldKind{fieldKptrUntrusted, fieldKptrRef, fieldKptrPercpu}
	fields := v.fieldsAt(r)
	if fieldOf(fields, kinds...) == nil {
		return v.fail("field-missing", at, "there is no kernel pointer in what r%d points to", at)
	}
	off := int64(r.off) + int64(r.Bits.Value)
	f := fieldExactly(fields, off, kinds...)
	if f == nil {
		return v.fail("kptr-access", at, "r%d points to offset %d, where there is no kernel pointer", at, off)
	}
	if f.kind == fieldKptrUntrusted {
		return v.fail("kptr-access", at, "the pointer at offset %d owns nothing that could be exchanged", off)
	}
	meta.field = f
	return nil
}

// checkFormat checks a format and the size of its arguments
// (check_bpf_snprintf_call).
func (v *verifier) checkFormat(f *reg, at int, size *reg) *Error {
	text, err := v.stringAt(f, at)
	if err != nil {
		return err
	}
	if size.typ == scalar && size.IsConst() && size.Bits.Value%8 != 0 {
		return v.fail("argument-format", at, "the arguments of the format take %d bytes, which is no multiple of 8", size.Bits.Value)
	}
	n := 0
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			continue
		}
		if i+1 < len(text) && text[i+1] == '%' {
			i++
			continue
		}
		n++
	}
	if size.typ == scalar && size.IsConst() && n > int(size.Bits.Value/8) {
		return v.fail("argument-format", at, "the format takes %d arguments, and %d are given", n, size.Bits.Value/8)
	}
	return nil
}
