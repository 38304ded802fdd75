package runner

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/object"
)

// A Value is one decoded value. Which fields count depends on Type.Kind.
type Value struct {
	Type *object.Type
	// Int holds integers, pointers, addresses and identifiers; read it as
	// uint64 unless Type.Signed.
	Int int64
	// Bytes are those of strings (without the terminating zero), buffers and
	// addresses.
	Bytes []byte
	// Elems are the elements of arrays and the fields of tuples and records.
	Elems []Value
	// Text is how values are shown that only the runner can name: symbols,
	// stacks, probes, times.
	Text string
	// Cut is set when a string filled all the room it had.
	Cut bool
}

// Uint is Int as an unsigned number of the type's width.
func (v Value) Uint() uint64 {
	if v.Type.Size < 8 && v.Type.Size > 0 {
		return uint64(v.Int) & (1<<(8*v.Type.Size) - 1)
	}
	return uint64(v.Int)
}

// integer reads size bytes as a number.
func integer(order binary.ByteOrder, data []byte, size int, signed bool) int64 {
	switch size {
	case 1:
		if signed {
			return int64(int8(data[0]))
		}
		return int64(data[0])
	case 2:
		n := order.Uint16(data)
		if signed {
			return int64(int16(n))
		}
		return int64(n)
	case 4:
		n := order.Uint32(data)
		if signed {
			return int64(int32(n))
		}
		return int64(n)
	}
	return int64(order.Uint64(data))
}

// decode reads a value of type t at the start of data. Data that is too
// short, which a hostile object could cause, gives a value that says so.
func (r *run) decode(t *object.Type, data []byte) Value {
	v := Value{Type: t}
	if len(data) < t.Size || t.Size < 0 {
		v.Text = "<cut short>"
		return v
	}
	data = data[:t.Size]
	switch t.Kind {
	case object.TypeInt, object.TypeBool, object.TypeEnum, object.TypePointer, object.TypeUsername,
		object.TypeKsym, object.TypeProbe, object.TypeErrno, object.TypeSignal, object.TypeSyscall:
		switch t.Size {
		case 1, 2, 4, 8:
			v.Int = integer(r.order, data, t.Size, t.Signed)
		}
		r.name(&v)
	case object.TypeString:
		end := bytes.IndexByte(data, 0)
		if end < 0 {
			end = len(data)
		}
		v.Cut = end >= len(data)-1 && len(data) > 1
		v.Bytes = bytes.Clone(data[:end])
	case object.TypeBuffer:
		n := 0
		if len(data) >= 4 {
			n = min(int(r.order.Uint32(data)), len(data)-4)
			data = data[4:]
		}
		v.Bytes = bytes.Clone(data[:n])
	case object.TypeMAC:
		v.Bytes = bytes.Clone(data)
		parts := make([]string, len(data))
		for i, b := range data {
			parts[i] = fmt.Sprintf("%02X", b)
		}
		v.Text = strings.Join(parts, ":")
	case object.TypeInet:
		v.Text = r.inet(data)
	case object.TypeArray:
		for i := range t.Len {
			at := i * t.Elem.Size
			if at+t.Elem.Size > len(data) {
				break
			}
			v.Elems = append(v.Elems, r.decode(t.Elem, data[at:]))
		}
	case object.TypeTuple, object.TypeRecord:
		v.Elems = r.decodeFields(t.Fields, data)
	default:
		v.Bytes = bytes.Clone(data)
		r.symbolic(&v, data)
	}
	return v
}

func (r *run) decodeFields(fields []object.Field, data []byte) []Value {
	out := make([]Value, 0, len(fields))
	for i := range fields {
		f := &fields[i]
		if f.Offset < 0 || f.Offset > len(data) {
			out = append(out, Value{Type: &f.Type, Text: "<cut short>"})
			continue
		}
		v := r.decode(&f.Type, data[f.Offset:])
		if f.Bits > 0 {
			shift := 64 - f.Bits - f.BitOffset
			if shift >= 0 {
				n := v.Uint() << shift
				if f.Type.Signed {
					v.Int = int64(n) >> (64 - f.Bits)
				} else {
					v.Int = int64(n >> (64 - f.Bits))
				}
			}
		}
		out = append(out, v)
	}
	return out
}

func (r *run) inet(data []byte) string {
	if len(data) < 24 {
		return ""
	}
	switch r.order.Uint64(data) {
	case 2:
		a, _ := netip.AddrFromSlice(data[8:12])
		return a.String()
	case 10, 23, 30:
		a, _ := netip.AddrFromSlice(data[8:24])
		return a.String()
	}
	return ""
}

// name gives the text of numbers that have one.
func (r *run) name(v *Value) {
	switch v.Type.Kind {
	case object.TypeEnum:
		for _, e := range v.Type.Values {
			if e.Value == v.Int {
				v.Text = e.Name
				return
			}
		}
	case object.TypeProbe:
		if i := int(v.Int); i >= 0 && i < len(r.man.Probes) {
			v.Text = r.man.Probes[i].Name
		}
	}
}

// symbolic names addresses and stacks.
func (r *run) symbolic(v *Value, data []byte) {
	if len(data) >= 8 {
		v.Int = int64(r.order.Uint64(data))
		v.Text = "0x" + strconv.FormatUint(uint64(v.Int), 16)
	}
}

// String is the value as print shows it.
func (v Value) String() string {
	if v.Text != "" {
		return v.Text
	}
	switch v.Type.Kind {
	case object.TypeBool:
		return strconv.FormatBool(v.Int != 0)
	case object.TypeInt, object.TypeEnum, object.TypeUsername:
		if v.Type.Signed {
			return strconv.FormatInt(v.Int, 10)
		}
		return strconv.FormatUint(v.Uint(), 10)
	case object.TypePointer, object.TypeKsym:
		return "0x" + strconv.FormatUint(uint64(v.Int), 16)
	case object.TypeString:
		return string(v.Bytes)
	case object.TypeBuffer:
		return escapeBuffer(v.Bytes)
	case object.TypeArray:
		return "[" + joinValues(v.Elems, ",") + "]"
	case object.TypeTuple:
		return "(" + joinValues(v.Elems, ", ") + ")"
	case object.TypeRecord:
		parts := make([]string, len(v.Elems))
		for i, e := range v.Elems {
			parts[i] = "." + v.Type.Fields[i].Name + " = " + e.String()
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return strconv.FormatInt(v.Int, 10)
}

func joinValues(list []Value, sep string) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = v.String()
	}
	return strings.Join(parts, sep)
}

func escapeBuffer(b []byte) string {
	var s strings.Builder
	for _, c := range b {
		if c >= 0x20 && c < 0x7f {
			s.WriteByte(c)
		} else {
			fmt.Fprintf(&s, `\x%02x`, c)
		}
	}
	return s.String()
}
