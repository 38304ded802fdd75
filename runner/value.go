package runner

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"

	"github.com/skep-bpf/skep/object"
)

// A Value is one decoded value. Which fields count depends on Type.Kind.
//
// A Value of an event may refer to the event's record and is good until the
// next one; Clone makes one that stays.
type Value struct {
	Type *object.Type
	// Int holds integers, pointers, addresses and identifiers; read it as
	// uint64 unless Type.Signed. Of times it holds nanoseconds.
	Int int64
	// Bytes are those of strings (without the terminating zero), buffers and
	// hardware addresses.
	Bytes []byte
	// Elems are the elements of arrays and the fields of tuples and records.
	Elems []Value
	// Cut is set when a string filled all the room it had.
	Cut bool
	// PID is the process that a user address or stack belongs to.
	PID int
	// Frames is how many frames of a stack are to be shown.
	Frames int
	// Mode is the clock of a time, see [Clock].
	Mode Clock

	short bool // the data ended before the value did
	index int  // into Manifest.Strings
	text  string
	names *names
}

// Escape appends traced text to dst in a form that is safe to show. A nil
// Escape appends it as it is.
type Escape func(dst, text []byte) []byte

func (esc Escape) append(dst, text []byte) []byte {
	if esc == nil {
		return append(dst, text...)
	}
	return esc(dst, text)
}

func (esc Escape) appendString(dst []byte, text string) []byte {
	if esc == nil {
		return append(dst, text...)
	}
	return esc(dst, []byte(text))
}

// Uint is Int as an unsigned number of the type's width.
func (v Value) Uint() uint64 {
	if v.Type.Size < 8 && v.Type.Size > 0 {
		return uint64(v.Int) & (1<<(8*v.Type.Size) - 1)
	}
	return uint64(v.Int)
}

// Clone returns a copy that does not refer to a record, and whose text is
// what it is now.
func (v Value) Clone() Value {
	v.Bytes = bytes.Clone(v.Bytes)
	if v.names != nil {
		switch v.Type.Kind {
		case object.TypeArray, object.TypeTuple, object.TypeRecord, object.TypeString, object.TypeBuffer:
		default:
			v.text = string(v.Append(nil, nil))
		}
	}
	v.names = nil
	elems := v.Elems
	v.Elems = nil
	for _, e := range elems {
		v.Elems = append(v.Elems, e.Clone())
	}
	return v
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

// A decoder reads values from memory. It makes no memory for what it was
// given to reuse, and never reads past data.
type decoder struct {
	order binary.ByteOrder
	names *names
	// cut counts the strings that filled their room.
	cut uint64
}

// maxElems bounds the parts of one value, which a hostile manifest could
// nest to any number; no language makes near as many.
const maxElems = 1 << 16

// decode reads a value of type t at the start of data into v, whose Elems are
// used again.
func (d *decoder) decode(v *Value, t *object.Type, data []byte) {
	room := maxElems
	d.value(v, t, data, &room)
}

func (d *decoder) value(v *Value, t *object.Type, data []byte, room *int) {
	*v = Value{Type: t, Elems: v.Elems[:0], names: d.names}
	*room--
	if t.Size < 0 || len(data) < t.Size || *room < 0 {
		v.short = true
		return
	}
	data = data[:t.Size]
	switch t.Kind {
	case object.TypeInt, object.TypeBool, object.TypeEnum, object.TypeFlags, object.TypePointer, object.TypeUsername,
		object.TypeKsym, object.TypeProbe, object.TypeErrno, object.TypeSignal, object.TypeSyscall:
		switch t.Size {
		case 1, 2, 4, 8:
			v.Int = integer(d.order, data, t.Size, t.Signed)
		default:
			v.short = true
		}
	case object.TypeString:
		end := bytes.IndexByte(data, 0)
		if end < 0 {
			end = len(data)
			v.Cut = len(data) > 0
			d.cut++
		}
		v.Bytes = data[:end]
	case object.TypeBuffer:
		if len(data) < 4 {
			v.short = true
			return
		}
		v.Bytes = data[4:][:min(uint64(d.order.Uint32(data)), uint64(len(data)-4))]
	case object.TypeMAC:
		v.Bytes = data
	case object.TypeInet:
		if len(data) < 24 {
			v.short = true
			return
		}
		v.Int, v.Bytes = int64(d.order.Uint64(data)), data[8:24]
	case object.TypeUsym:
		if len(data) < 16 {
			v.short = true
			return
		}
		v.Int, v.PID = int64(d.order.Uint64(data)), int(d.order.Uint32(data[8:]))
		v.index = int(d.order.Uint32(data[12:]))
		d.names.seen(v.PID)
	case object.TypeKstack, object.TypeUstack:
		if len(data) < object.StackSize {
			v.short = true
			return
		}
		v.Int, v.PID, v.Frames = int64(d.order.Uint64(data)), int(d.order.Uint32(data[8:])), int(d.order.Uint32(data[12:]))
		if t.Kind == object.TypeUstack {
			d.names.seen(v.PID)
		}
	case object.TypeTimestamp:
		if len(data) < 16 {
			v.short = true
			return
		}
		v.Int, v.Mode, v.index = int64(d.order.Uint64(data)), Clock(d.order.Uint32(data[8:])), int(d.order.Uint32(data[12:]))
	case object.TypeCgroup:
		if len(data) < 16 {
			v.short = true
			return
		}
		v.Int, v.index = int64(d.order.Uint64(data)), int(min(d.order.Uint64(data[8:]), 1<<31-1))
	case object.TypeArray:
		if t.Elem == nil || t.Elem.Size <= 0 {
			return
		}
		for i := 0; i < t.Len && (i+1)*t.Elem.Size <= len(data) && *room > 0; i++ {
			d.value(grow(&v.Elems), t.Elem, data[i*t.Elem.Size:], room)
		}
	case object.TypeTuple, object.TypeRecord:
		v.Elems = d.fields(v.Elems, t.Fields, data, room)
	}
}

// grow makes list one longer and returns the new element, as it was left there
// when the list was longer before.
func grow(list *[]Value) *Value {
	if n := len(*list); n < cap(*list) {
		*list = (*list)[:n+1]
	} else {
		*list = append(*list, Value{})
	}
	return &(*list)[len(*list)-1]
}

func (d *decoder) decodeFields(list []Value, fields []object.Field, data []byte) []Value {
	room := maxElems
	return d.fields(list[:0], fields, data, &room)
}

func (d *decoder) fields(list []Value, fields []object.Field, data []byte, room *int) []Value {
	for i := range fields {
		f := &fields[i]
		v := grow(&list)
		if f.Offset < 0 || f.Offset > len(data) {
			*v = Value{Type: &f.Type, short: true}
			continue
		}
		d.value(v, &f.Type, data[f.Offset:], room)
		if f.Bits > 0 {
			v.Int = bitfield(d.order, v.Uint(), f)
		}
	}
	return list
}

// bitfield cuts the bits of f from the bytes around them.
func bitfield(order binary.ByteOrder, n uint64, f *object.Field) int64 {
	shift := f.BitOffset
	if order == binary.ByteOrder(binary.BigEndian) {
		shift = 8*f.Type.Size - f.BitOffset - f.Bits
	}
	if shift < 0 || f.Bits > 64 || shift > 63 {
		return 0
	}
	n = n >> shift << (64 - f.Bits)
	if f.Type.Signed {
		return int64(n) >> (64 - f.Bits)
	}
	return int64(n >> (64 - f.Bits))
}

// String is the value as print shows it, without escaping.
func (v Value) String() string { return string(v.Append(nil, nil)) }

// Append appends the value as print shows it to dst. Text from the traced
// system goes through esc.
func (v *Value) Append(dst []byte, esc Escape) []byte { return v.append(dst, esc, 8) }

// append is Append with the number of spaces before frames of stacks.
func (v *Value) append(dst []byte, esc Escape, indent int) []byte {
	if v.Type == nil {
		return dst
	}
	if v.text != "" {
		return esc.appendString(dst, v.text)
	}
	if v.short {
		return append(dst, "<cut short>"...)
	}
	switch v.Type.Kind {
	case object.TypeNone:
		return append(dst, "null"...)
	case object.TypeInt:
		return v.appendNumber(dst)
	case object.TypeBool:
		return strconv.AppendBool(dst, v.Int != 0)
	case object.TypeEnum:
		for i := range v.Type.Values {
			if v.Type.Values[i].Value == v.Int {
				return esc.appendString(dst, v.Type.Values[i].Name)
			}
		}
		return v.appendNumber(dst)
	case object.TypeFlags:
		return v.appendFlags(dst)
	case object.TypePointer:
		return strconv.AppendUint(append(dst, "0x"...), v.Uint(), 16)
	case object.TypeString:
		dst = esc.append(dst, v.Bytes)
		if v.Cut {
			dst = append(dst, v.names.trailer()...)
		}
		return dst
	case object.TypeBuffer:
		return appendBuffer(dst, v.Bytes, 0)
	case object.TypeMAC:
		for i, c := range v.Bytes {
			if i > 0 {
				dst = append(dst, ':')
			}
			dst = append(dst, "0123456789ABCDEF"[c>>4], "0123456789ABCDEF"[c&15])
		}
		return dst
	case object.TypeInet:
		return appendInet(dst, v.Int, v.Bytes)
	case object.TypeArray:
		return appendList(dst, v.Elems, '[', ",", ']', esc, indent)
	case object.TypeTuple:
		if len(v.Type.Fields) > 0 && v.Type.Fields[0].Name != "" {
			return v.appendNamed(dst, "(", "", ")", esc, indent)
		}
		return appendList(dst, v.Elems, '(', ", ", ')', esc, indent)
	case object.TypeRecord:
		if len(v.Elems) == 0 {
			return append(dst, "{}"...)
		}
		return v.appendNamed(dst, "{ ", ".", " }", esc, indent)
	}
	return v.names.append(dst, v, esc, indent)
}

func (v *Value) appendNumber(dst []byte) []byte {
	if v.Type.Signed {
		return strconv.AppendInt(dst, v.Int, 10)
	}
	return strconv.AppendUint(dst, v.Uint(), 10)
}

func (v *Value) appendNamed(dst []byte, open, dot, end string, esc Escape, indent int) []byte {
	dst = append(dst, open...)
	for i := range v.Elems {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(dst, dot...)
		dst = esc.appendString(dst, v.Type.Fields[i].Name)
		dst = append(dst, " = "...)
		dst = v.Elems[i].append(dst, esc, indent)
	}
	return append(dst, end...)
}

func appendList(dst []byte, list []Value, open byte, sep string, end byte, esc Escape, indent int) []byte {
	dst = append(dst, open)
	for i := range list {
		if i > 0 {
			dst = append(dst, sep...)
		}
		dst = list[i].append(dst, esc, indent)
	}
	return append(dst, end)
}

// appendFlags writes the names of the bits of a number as the kernel does: the
// first that fit, and what is left as a number.
func (v *Value) appendFlags(dst []byte) []byte {
	rest := v.Uint()
	start := len(dst)
	for _, f := range v.Type.Values {
		bits := uint64(f.Value)
		if bits == 0 || rest&bits != bits {
			continue
		}
		if len(dst) > start {
			dst = append(dst, '|')
		}
		dst = append(dst, f.Name...)
		rest &^= bits
	}
	switch {
	case rest != 0 && len(dst) > start:
		dst = append(dst, '|')
		fallthrough
	case rest != 0:
		dst = strconv.AppendUint(append(dst, "0x"...), rest, 16)
	case len(dst) == start:
		dst = append(dst, "none"...)
	}
	return dst
}

// AppendKey appends the parts of a map's key as they stand between brackets.
func AppendKey(dst []byte, key []Value, esc Escape) []byte {
	for i := range key {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = key[i].append(dst, esc, 4)
	}
	return dst
}

// appendInet writes an address as inet_ntop(3) does; af is AF_INET or
// AF_INET6.
func appendInet(dst []byte, af int64, b []byte) []byte {
	switch af {
	case 2:
		a, _ := netip.AddrFromSlice(b[:4])
		return a.AppendTo(dst)
	case 10:
		a, _ := netip.AddrFromSlice(b)
		return a.AppendTo(dst)
	}
	return dst
}

// appendBuffer writes bytes: mode 0 shows printable ones as they are and
// others as \xNN, 'x' all as \xNN, 'h' all as NN with spaces between.
func appendBuffer(dst, data []byte, mode byte) []byte {
	const digits = "0123456789abcdef"
	for i, c := range data {
		switch {
		case mode == 0 && c >= 0x20 && c < 0x7f:
			dst = append(dst, c)
		case mode == 'h':
			if i > 0 {
				dst = append(dst, ' ')
			}
			dst = append(dst, digits[c>>4], digits[c&15])
		default:
			dst = append(dst, '\\', 'x', digits[c>>4], digits[c&15])
		}
	}
	return dst
}
