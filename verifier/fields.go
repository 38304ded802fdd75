package verifier

import (
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// A fieldKind is what is special in a map's value (enum btf_field_type).
type fieldKind uint8

const (
	fieldSpinLock fieldKind = iota
	fieldTimer
	fieldWorkqueue
	fieldKptrUntrusted
	fieldKptrRef
	fieldKptrPercpu
	fieldListHead
	fieldTreeRoot
	fieldListNode
	fieldTreeNode
	fieldRefcount
	fieldOther
)

var fieldNames = [...]string{
	"bpf_spin_lock", "bpf_timer", "bpf_wq", "kernel pointer", "kernel pointer", "kernel pointer",
	"bpf_list_head", "bpf_rb_root", "bpf_list_node", "bpf_rb_node", "bpf_refcount", "special field",
}

func (k fieldKind) String() string { return fieldNames[k] }

func (k fieldKind) isKptr() bool { return k >= fieldKptrUntrusted && k <= fieldKptrPercpu }

// A mapField is a place in a map's value that instructions must not touch, or
// only in a certain way.
type mapField struct {
	kind      fieldKind
	off, size uint32
	to        btf.Type // of a kernel pointer; of a list or tree, what is in it
	contains  string   // of a list or tree: "STRUCT:FIELD"
	nodeOff   uint32   // of a list or tree: where the node is in to
}

func (k fieldKind) isRoot() bool { return k == fieldListHead || k == fieldTreeRoot }

func (k fieldKind) isNode() bool { return k == fieldListNode || k == fieldTreeNode }

func (m *Map) has(k fieldKind) bool { return m.field(k) != nil }

func (m *Map) field(k fieldKind) *mapField {
	for i := range m.fields {
		if m.fields[i].kind == k {
			return &m.fields[i]
		}
	}
	return nil
}

var specialStructs = map[string]struct {
	kind fieldKind
	size uint32
}{
	"bpf_spin_lock": {fieldSpinLock, 4}, "bpf_timer": {fieldTimer, 16}, "bpf_wq": {fieldWorkqueue, 16},
	"bpf_list_head": {fieldListHead, 16}, "bpf_rb_root": {fieldTreeRoot, 16}, "bpf_list_node": {fieldListNode, 24},
	"bpf_rb_node": {fieldTreeNode, 32}, "bpf_refcount": {fieldRefcount, 4}, "bpf_res_spin_lock": {fieldOther, 8},
	"bpf_task_work": {fieldOther, 8},
}

// prepareMap finds the special fields of a map's value (btf_parse_fields).
func (v *verifier) prepareMap(m *Map) *Error {
	if m.Value != nil && m.fields == nil {
		m.fields = []mapField{}
		m.fields = collect(m.fields, m.Value, 0, 0)
		v.linkRoots(m.fields)
	}
	if m.Inner != nil {
		return v.prepareMap(m.Inner)
	}
	return nil
}

// collect adds the special fields of a type at off.
func collect(fields []mapField, t btf.Type, off uint32, depth int) []mapField {
	if depth > 8 {
		return fields
	}
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		if s, ok := specialStructs[t.Name]; ok && t.Size == s.size {
			return append(fields, mapField{kind: s.kind, off: off, size: s.size})
		}
		for _, mem := range t.Members {
			if mem.BitfieldSize == 0 {
				fields = collectMember(fields, mem.Type, mem.Tags, off+mem.Offset.Bytes(), depth)
			}
		}
	case *btf.Datasec:
		for _, s := range t.Vars {
			if vr, ok := s.Type.(*btf.Var); ok {
				fields = collectMember(fields, vr.Type, vr.Tags, off+s.Offset, depth)
			}
		}
	}
	return fields
}

var kptrTags = map[string]fieldKind{"kptr_untrusted": fieldKptrUntrusted, "kptr": fieldKptrRef, "percpu_kptr": fieldKptrPercpu}

func collectMember(fields []mapField, t btf.Type, tags []string, off uint32, depth int) []mapField {
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		before := len(fields)
		fields = collect(fields, u, off, depth+1)
		if len(fields) == before+1 && fields[before].kind.isRoot() {
			for _, tag := range tags {
				if what, ok := strings.CutPrefix(tag, "contains:"); ok {
					fields[before].contains = what
				}
			}
		}
	case *btf.Array:
		size, err := btf.Sizeof(u.Type)
		if err != nil || u.Nelems > 64 {
			return fields
		}
		before := len(fields)
		for i := range u.Nelems {
			fields = collectMember(fields, u.Type, tags, off+i*uint32(size), depth+1)
			if len(fields) == before {
				return fields
			}
		}
	case *btf.Pointer:
		if tag, ok := u.Target.(*btf.TypeTag); ok {
			if k, ok := kptrTags[tag.Value]; ok {
				fields = append(fields, mapField{kind: k, off: off, size: 8, to: btf.UnderlyingType(tag.Type)})
			}
		}
	}
	return fields
}

// linkRoots finds what lists and trees hold: "contains:STRUCT:FIELD" names a
// structure of the program.
func (v *verifier) linkRoots(fields []mapField) {
	for i := range fields {
		f := &fields[i]
		name, field, ok := strings.Cut(f.contains, ":")
		if !f.kind.isRoot() || !ok {
			continue
		}
		for _, t := range v.prog.Locals {
			s, ok := t.(*btf.Struct)
			if !ok || s.Name != name {
				continue
			}
			for _, m := range s.Members {
				if m.Name == field {
					f.to, f.nodeOff = s, m.Offset.Bytes()
				}
			}
		}
	}
}

// objectFields are the special fields of a structure of the program.
func (v *verifier) objectFields(t uint32) []mapField {
	fields, ok := v.objects[t]
	if !ok {
		fields = collect(nil, v.types.list[t], 0, 0)
		v.linkRoots(fields)
		if v.objects == nil {
			v.objects = map[uint32][]mapField{}
		}
		v.objects[t] = fields
	}
	return fields
}

// fieldsAt are the special fields of what a pointer leads to.
func (v *verifier) fieldsAt(r *reg) []mapField {
	switch {
	case r.typ == ptrMapValue:
		return v.maps[r.obj].fields
	case r.typ == ptrBTF && r.has(alloc):
		return v.objectFields(r.obj)
	}
	return nil
}

// fieldOf returns the first field of one of the kinds, or nil.
func fieldOf(fields []mapField, kinds ...fieldKind) *mapField {
	for i := range fields {
		if slices.Contains(kinds, fields[i].kind) {
			return &fields[i]
		}
	}
	return nil
}

// fieldExactly returns the field of one of the kinds at off, or nil.
func fieldExactly(fields []mapField, off int64, kinds ...fieldKind) *mapField {
	for i := range fields {
		if int64(fields[i].off) == off && slices.Contains(kinds, fields[i].kind) {
			return &fields[i]
		}
	}
	return nil
}

// mayHoldLock reports whether a lock may be in what a pointer points to, whose
// identity then matters (reg_may_point_to_spin_lock).
func (v *verifier) mayHoldLock(r *reg) bool {
	return fieldOf(v.fieldsAt(r), fieldSpinLock) != nil
}

// constField checks a pointer that must point to a field of a kind.
func (v *verifier) constField(r *reg, at int, k fieldKind) *Error {
	if !r.IsConst() {
		return v.fail("field-offset", at, "the %s in r%d must be at a constant offset", k, at)
	}
	where := "struct"
	if r.typ == ptrMapValue {
		m := v.maps[r.obj]
		if m.Value == nil {
			return v.fail("field-missing", at, "map %s has no type, which a %s needs", m.Name, k)
		}
		where = "map " + m.Name
	}
	f := fieldOf(v.fieldsAt(r), k)
	if f == nil {
		return v.fail("field-missing", at, "there is no %s in the %s that r%d points to", k, where, at)
	}
	if int64(f.off) != int64(r.off)+int64(r.Bits.Value) {
		return v.fail("field-offset", at, "r%d points to offset %d of the %s, and the %s is at %d", at, int64(r.off)+int64(r.Bits.Value), where, k, f.off)
	}
	return nil
}

// lockObject says where a lock is: in a map, or in an object of the program,
// which are told apart by their ids.
func lockObject(r *reg) uint32 {
	if r.typ == ptrBTF {
		return 1 << 31
	}
	return r.obj
}

// spinLock takes or leaves a lock (process_spin_lock).
func (v *verifier) spinLock(r *reg, at int, take bool) *Error {
	if err := v.constField(r, at, fieldSpinLock); err != nil {
		return err
	}
	st := v.st
	if take {
		if st.activeLocks > 0 {
			return v.fail("two-locks", at, "a second lock is taken while one is held")
		}
		st.activeLocks++
		st.refs = append(st.refs, ref{id: r.id, insn: int32(v.insn), kind: refLock, obj: lockObject(r)})
		return nil
	}
	if st.activeLocks == 0 {
		return v.fail("lock-not-held", at, "a lock is released that was not taken")
	}
	for i := range st.refs {
		l := &st.refs[i]
		if l.kind != refLock {
			continue
		}
		if l.obj != lockObject(r) || l.id != r.id {
			return v.fail("other-lock", at, "another lock is released than was taken at instruction %d", l.insn)
		}
		st.refs = append(st.refs[:i], st.refs[i+1:]...)
		st.activeLocks--
		break
	}
	// What was borrowed from a list or a tree is good no longer.
	st.regsDo(func(r *reg) {
		if r.has(nonOwning) {
			v.invalidate(r)
		}
	})
	return nil
}

// timer checks a timer (process_timer_func).
func (v *verifier) timer(r *reg, at int, meta *callMeta) *Error {
	if err := v.constField(r, at, fieldTimer); err != nil {
		return err
	}
	meta.m, meta.uid = int(r.obj), r.aux
	return nil
}
