package vm

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"fmt"
	"reflect"
	"unsafe"
)

// marshal returns the n bytes that v stands for in memory: a []byte, a string
// (with zeros behind), an encoding.BinaryMarshaler, or a value of fixed size,
// or a pointer to one, in this machine's byte order.
func marshal(v any, n int) ([]byte, error) {
	var b []byte
	switch v := v.(type) {
	case nil:
		return nil, fmt.Errorf("nothing was given for %d bytes", n)
	case []byte:
		b = v
	case string:
		b = make([]byte, n)
		if copy(b, v) < len(v) {
			return nil, fmt.Errorf("a string of %d bytes does not fit into %d", len(v), n)
		}
		return b, nil
	case uint32:
		b = binary.NativeEndian.AppendUint32(make([]byte, 0, 4), v)
	case uint64:
		b = binary.NativeEndian.AppendUint64(make([]byte, 0, 8), v)
	case encoding.BinaryMarshaler:
		var err error
		if b, err = v.MarshalBinary(); err != nil {
			return nil, err
		}
	default:
		var err error
		if b, err = binary.Append(nil, binary.NativeEndian, v); err != nil {
			// Structs with padding, as the compiler of the host lays them out.
			return nil, fmt.Errorf("a %T has no fixed size: give []byte, or numbers, arrays and structs of them", v)
		}
	}
	if len(b) != n {
		return nil, fmt.Errorf("a %T has %d bytes, and %d are needed", v, len(b), n)
	}
	return b, nil
}

// unmarshal is the reverse, into a pointer.
func unmarshal(b []byte, out any) error {
	switch out := out.(type) {
	case *[]byte:
		*out = bytes.Clone(b)
		return nil
	case *uint32:
		if len(b) == 4 {
			*out = binary.NativeEndian.Uint32(b)
			return nil
		}
	case *uint64:
		if len(b) == 8 {
			*out = binary.NativeEndian.Uint64(b)
			return nil
		}
	case []byte:
		if len(out) < len(b) {
			return fmt.Errorf("a []byte of length %d cannot take %d bytes", len(out), len(b))
		}
		copy(out, b)
		return nil
	case *string:
		*out = string(b)
		return nil
	case encoding.BinaryUnmarshaler:
		return out.UnmarshalBinary(b)
	case unsafe.Pointer:
		return fmt.Errorf("an unsafe.Pointer has no length: give a slice")
	}
	n, err := binary.Decode(b, binary.NativeEndian, out)
	if err != nil {
		return fmt.Errorf("%d bytes do not fit a %T: %w", len(b), out, err)
	}
	if n != len(b) {
		return fmt.Errorf("a %T takes %d bytes, and there are %d", out, n, len(b))
	}
	return nil
}

// marshalAll returns the values of all processors, each rounded up to 8 bytes,
// from a slice with one for each.
func (m *Map) marshalAll(v any) ([]byte, error) {
	stride := m.valueStride()
	b := make([]byte, m.fullSize())
	if raw, ok := v.([]byte); ok && len(raw) == len(b) {
		copy(b, raw)
		return b, nil
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Slice || rv.Len() > m.vm.cpus {
		return nil, fmt.Errorf("map %s has a value for each of %d processors, which takes a slice of them, and not a %T", m.name, m.vm.cpus, v)
	}
	for cpu := range rv.Len() {
		one, err := marshal(rv.Index(cpu).Interface(), m.valueSize)
		if err != nil {
			return nil, err
		}
		copy(b[cpu*stride:], one)
	}
	return b, nil
}

// unmarshalAll fills a pointer to a slice with the values of all processors.
func (m *Map) unmarshalAll(b []byte, out any) error {
	if raw, ok := out.(*[]byte); ok {
		*raw = bytes.Clone(b)
		return nil
	}
	p := reflect.ValueOf(out)
	if p.Kind() == reflect.Slice && p.Len() >= m.vm.cpus {
		q := reflect.New(p.Type())
		q.Elem().Set(p)
		p = q
	}
	if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Slice {
		return fmt.Errorf("map %s has a value for each of %d processors, which takes a pointer to a slice of them, and not a %T", m.name, m.vm.cpus, out)
	}
	s := p.Elem()
	if s.Len() < m.vm.cpus {
		s.Set(reflect.MakeSlice(s.Type(), m.vm.cpus, m.vm.cpus))
	}
	for cpu := range m.vm.cpus {
		if err := unmarshal(b[cpu*m.valueStride():][:m.valueSize], s.Index(cpu).Addr().Interface()); err != nil {
			return err
		}
	}
	return nil
}

// marshalAny returns the bytes of a value of any fixed size.
func marshalAny(v any) ([]byte, error) {
	if m, ok := v.(encoding.BinaryMarshaler); ok {
		return m.MarshalBinary()
	}
	b, err := binary.Append(nil, binary.NativeEndian, v)
	if err != nil {
		return nil, fmt.Errorf("a %T has no fixed size: give []byte, or numbers, arrays and structs of them", v)
	}
	return b, nil
}
