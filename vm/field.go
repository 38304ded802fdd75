package vm

import (
	"errors"

	"github.com/cilium/ebpf/btf"
)

type fieldKind uint8

const (
	fieldLock  fieldKind = iota // struct bpf_spin_lock
	fieldTimer                  // struct bpf_timer
)

// A field is a part of a value that only helpers may change. What stands there
// in the cage means nothing: locks and timers are kept outside, by address.
type field struct {
	kind   fieldKind
	offset int
	size   int
}

// specialFields finds those of a value's type (btf_parse_fields in
// kernel/bpf/btf.c).
func specialFields(t btf.Type, size int) ([]field, error) {
	var list []field
	var walk func(t btf.Type, offset, depth int) error
	walk = func(t btf.Type, offset, depth int) error {
		if t == nil || depth > 16 {
			return nil
		}
		switch t := btf.UnderlyingType(t).(type) {
		case *btf.Struct:
			kind, n := fieldKind(0), 0
			switch t.Name {
			case "bpf_spin_lock":
				n = 4
			case "bpf_timer":
				kind, n = fieldTimer, 16
			}
			if n > 0 {
				if offset+n > size {
					return errors.New("a field of its type lies outside the value")
				}
				for _, f := range list {
					if f.kind == kind {
						return errors.New("its values have two fields of type struct " + t.Name)
					}
				}
				list = append(list, field{kind, offset, n})
				return nil
			}
			for _, m := range t.Members {
				if m.BitfieldSize == 0 {
					if err := walk(m.Type, offset+int(m.Offset.Bytes()), depth+1); err != nil {
						return err
					}
				}
			}
		case *btf.Datasec:
			for _, v := range t.Vars {
				if err := walk(v.Type, int(v.Offset), depth+1); err != nil {
					return err
				}
			}
		case *btf.Var:
			return walk(t.Type, offset, depth+1)
		case *btf.Array:
			if t.Nelems == 1 {
				return walk(t.Type, offset, depth+1)
			}
		}
		return nil
	}
	if err := walk(t, 0, 0); err != nil {
		return nil, err
	}
	return list, nil
}

func (m *Map) field(kind fieldKind) (field, bool) {
	for _, f := range m.fields {
		if f.kind == kind {
			return f, true
		}
	}
	return field{}, false
}

func (m *Map) hasLock() bool {
	_, ok := m.field(fieldLock)
	return ok
}

// lockAddress is where the lock of the value at addr stands.
func (m *Map) lockAddress(addr uint32) uint32 {
	f, _ := m.field(fieldLock)
	return addr + uint32(f.offset)
}

// copyFields copies a value except for those fields.
func (m *Map) copyFields(dst, src []byte) {
	if len(m.fields) == 0 {
		copy(dst, src)
		return
	}
	for i := 0; i < len(dst); i++ {
		if f := m.inField(i); f != nil {
			i = f.offset + f.size - 1
			continue
		}
		dst[i] = src[i]
	}
}

func (m *Map) inField(i int) *field {
	for k := range m.fields {
		if f := &m.fields[k]; i >= f.offset && i < f.offset+f.size {
			return f
		}
	}
	return nil
}

// hideFields clears those fields in a copy for the host.
func (m *Map) hideFields(value []byte) {
	for _, f := range m.fields {
		clear(value[f.offset:][:f.size])
	}
}

// freeFields ends what hangs on the value at addr, which is going away. It
// returns false if values of this map have nothing of the kind.
func (m *Map) freeFields(addr uint32) bool {
	f, ok := m.field(fieldTimer)
	if ok {
		m.vm.timers.drop(addr + uint32(f.offset))
	}
	return ok
}
