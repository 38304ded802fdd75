package verifier

import (
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
	fieldGraphRoot
	fieldGraphNode
	fieldRefcount
	fieldOther
)

var fieldNames = [...]string{
	"bpf_spin_lock", "bpf_timer", "bpf_wq", "kernel pointer", "kernel pointer", "kernel pointer", "list head or tree root",
	"list or tree node", "bpf_refcount", "special field",
}

func (k fieldKind) String() string { return fieldNames[k] }

func (k fieldKind) isKptr() bool { return k >= fieldKptrUntrusted && k <= fieldKptrPercpu }

// A mapField is a place in a map's value that instructions must not touch, or
// only in a certain way.
type mapField struct {
	kind      fieldKind
	off, size uint32
	to        btf.Type // of a kernel pointer
}

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
	"bpf_list_head": {fieldGraphRoot, 16}, "bpf_rb_root": {fieldGraphRoot, 16}, "bpf_list_node": {fieldGraphNode, 24},
	"bpf_rb_node": {fieldGraphNode, 32}, "bpf_refcount": {fieldRefcount, 4}, "bpf_res_spin_lock": {fieldOther, 8},
	"bpf_task_work": {fieldOther, 8},
}

// prepareMap finds the special fields of a map's value (btf_parse_fields).
func (v *verifier) prepareMap(m *Map) *Error {
	if m.Value != nil && m.fields == nil {
		m.fields = []mapField{}
		m.collect(m.Value, 0, 0)
	}
	if m.Inner != nil {
		return v.prepareMap(m.Inner)
	}
	return nil
}

func (m *Map) collect(t btf.Type, off uint32, depth int) {
	if depth > 8 {
		return
	}
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		if s, ok := specialStructs[t.Name]; ok && t.Size == s.size {
			m.fields = append(m.fields, mapField{kind: s.kind, off: off, size: s.size})
			return
		}
		for _, mem := range t.Members {
			if mem.BitfieldSize == 0 {
				m.member(mem.Type, off+mem.Offset.Bytes(), depth)
			}
		}
	case *btf.Datasec:
		for _, s := range t.Vars {
			if vr, ok := s.Type.(*btf.Var); ok {
				m.member(vr.Type, off+s.Offset, depth)
			}
		}
	}
}

func (m *Map) member(t btf.Type, off uint32, depth int) {
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		m.collect(u, off, depth+1)
	case *btf.Array:
		size, err := btf.Sizeof(u.Type)
		if err != nil || u.Nelems > 64 {
			return
		}
		before := len(m.fields)
		for i := range u.Nelems {
			m.member(u.Type, off+i*uint32(size), depth+1)
			if len(m.fields) == before {
				return
			}
		}
	case *btf.Pointer:
		if tag, ok := u.Target.(*btf.TypeTag); ok {
			kinds := map[string]fieldKind{"kptr_untrusted": fieldKptrUntrusted, "kptr": fieldKptrRef, "percpu_kptr": fieldKptrPercpu}
			if k, ok := kinds[tag.Value]; ok {
				m.fields = append(m.fields, mapField{kind: k, off: off, size: 8, to: btf.UnderlyingType(tag.Type)})
			}
		}
	}
}

// mayHoldLock reports whether a lock may be in what a pointer points to, whose
// identity then matters (reg_may_point_to_spin_lock).
func (v *verifier) mayHoldLock(r *reg) bool {
	return r.typ == ptrMapValue && v.maps[r.obj].has(fieldSpinLock) || r.typ == ptrBTF && r.has(alloc)
}

// constField checks a pointer that must point to a field of a kind.
func (v *verifier) constField(r *reg, at int, k fieldKind) *Error {
	if !r.IsConst() {
		return v.fail("field-offset", at, "the %s in r%d must be at a constant offset", k, at)
	}
	if r.typ != ptrMapValue {
		return v.unsupported("a %s in an allocated object", k)
	}
	m := v.maps[r.obj]
	if m.Value == nil {
		return v.fail("field-missing", at, "map %s has no type, which a %s needs", m.Name, k)
	}
	f := m.field(k)
	if f == nil {
		return v.fail("field-missing", at, "the values of map %s have no %s", m.Name, k)
	}
	if int64(f.off) != int64(r.off)+int64(r.Bits.Value) {
		return v.fail("field-offset", at, "r%d points to offset %d of map %s, and the %s is at %d", at, int64(r.off)+int64(r.Bits.Value), m.Name, k, f.off)
	}
	return nil
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
		st.refs = append(st.refs, ref{id: r.id, insn: int32(v.insn), kind: refLock, obj: r.obj})
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
		if l.obj != r.obj || l.id != r.id {
			return v.fail("other-lock", at, "another lock is released than was taken at instruction %d", l.insn)
		}
		st.refs = append(st.refs[:i], st.refs[i+1:]...)
		st.activeLocks--
		break
	}
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
