package runner

import (
	"slices"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/object"
)

// A Format is a format string of the tracing language, taken apart once so
// that filling it in costs no memory.
type Format struct {
	ops []formatOp
}

// A formatOp is literal text and, after it, one conversion.
type formatOp struct {
	text  string
	verb  byte // 0 when there is only text
	mode  byte // of %r: 0, x or h
	minus bool
	plus  bool
	space bool
	sharp bool
	zero  bool
	star  bool // the width is an argument
	width int
	prec  int // -1 when there is none
	bits  int // of the length modifier; 0 when there is none
}

// The widest field, so that no format can ask for all memory.
const maxWidth = 1 << 16

// ParseFormat takes a format string apart. What is no conversion stays text.
func ParseFormat(format string) *Format {
	f := &Format{}
	var text strings.Builder
	for i := 0; i < len(format); {
		if format[i] != '%' {
			text.WriteByte(format[i])
			i++
			continue
		}
		op, n := parseVerb(format[i:])
		switch {
		case n == 0:
			text.WriteString(format[i:])
			n = len(format) - i
		case op.verb == '%':
			text.WriteByte('%')
		default:
			op.text = text.String()
			text.Reset()
			f.ops = append(f.ops, op)
		}
		i += n
	}
	if text.Len() > 0 {
		f.ops = append(f.ops, formatOp{text: text.String()})
	}
	return f
}

// parseVerb parses the conversion at the start of s and returns its length,
// or 0 when s ends inside it.
func parseVerb(s string) (op formatOp, n int) {
	op.prec = -1
	i := 1
	for ; i < len(s) && strings.IndexByte("-+ #0", s[i]) >= 0; i++ {
		switch s[i] {
		case '-':
			op.minus = true
		case '+':
			op.plus = true
		case ' ':
			op.space = true
		case '#':
			op.sharp = true
		case '0':
			op.zero = true
		}
	}
	number := func() int {
		n := 0
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			n = min(n*10+int(s[i]-'0'), maxWidth)
		}
		return n
	}
	if i < len(s) && s[i] == '*' {
		op.star = true
		i++
	} else {
		op.width = number()
	}
	if i < len(s) && s[i] == '.' {
		i++
		op.prec = number()
	}
	for ; i < len(s) && strings.IndexByte("hlqjzt", s[i]) >= 0; i++ {
		switch {
		case s[i] != 'h':
			op.bits = 64
		case op.bits == 16:
			op.bits = 8
		default:
			op.bits = 16
		}
	}
	if i >= len(s) {
		return op, 0
	}
	op.verb = s[i]
	i++
	if op.verb == 'r' && i < len(s) && (s[i] == 'x' || s[i] == 'h') {
		op.mode = s[i]
		i++
	}
	if op.verb == 'g' && i < len(s) && s[i] == 'r' {
		i++ // of names of flags, which the value's type has
	}
	return op, i
}

// Append fills values in and appends the result to dst. Text that came from
// the traced system goes through esc; what the author of the format wrote does
// not.
func (f *Format) Append(dst []byte, values []Value, esc Escape) []byte {
	next := 0
	for i := range f.ops {
		op := &f.ops[i]
		dst = append(dst, op.text...)
		if op.verb == 0 {
			continue
		}
		width, minus := op.width, op.minus
		if op.star {
			if next >= len(values) {
				continue
			}
			w := values[next].Int
			next++
			if w < 0 {
				w, minus = -w, true
			}
			width = int(min(max(w, 0), maxWidth))
		}
		if next >= len(values) {
			dst = append(dst, '%', op.verb)
			continue
		}
		v := &values[next]
		next++
		start := len(dst)
		switch op.verb {
		case 'd', 'i', 'u', 'o', 'x', 'X', 'p':
			dst = op.number(dst, v, width, minus)
		case 'c':
			dst = esc.append(dst, []byte{byte(v.Int)})
		case 'r':
			dst = op.buffer(dst, v, esc)
		default:
			dst = op.string(dst, v, esc)
		}
		dst = pad(dst, start, width, minus)
	}
	return dst
}

// pad makes what starts at start at least width bytes wide.
func pad(dst []byte, start, width int, minus bool) []byte {
	n := width - (len(dst) - start)
	if n <= 0 {
		return dst
	}
	at := start
	if minus {
		at = len(dst)
	}
	dst = slices.Grow(dst, n)
	end := len(dst)
	dst = dst[:end+n]
	copy(dst[at+n:], dst[at:end])
	for i := at; i < at+n; i++ {
		dst[i] = ' '
	}
	return dst
}

// number writes an integer as printf(3) does. Without a length modifier the
// width is that of the value, and at least that of an int.
func (op *formatOp) number(dst []byte, v *Value, width int, minus bool) []byte {
	n := v.Int
	u := uint64(n)
	if v.Type.Size < 8 {
		u = uint64(uint32(n))
	}
	switch op.bits {
	case 8:
		n, u = int64(int8(n)), uint64(uint8(n))
	case 16:
		n, u = int64(int16(n)), uint64(uint16(n))
	case 64:
		u = uint64(n)
	}
	prefix := ""
	base, upper := 10, false
	switch op.verb {
	case 'd', 'i':
		switch {
		case n < 0:
			prefix, u = "-", -uint64(n)
		case op.plus:
			prefix, u = "+", uint64(n)
		case op.space:
			prefix, u = " ", uint64(n)
		default:
			u = uint64(n)
		}
	case 'o':
		base = 8
	case 'x', 'X':
		base, upper = 16, op.verb == 'X'
		if op.sharp && u != 0 {
			prefix = "0" + string(op.verb)
		}
	case 'p':
		if v.Uint() == 0 {
			return append(dst, "(nil)"...)
		}
		base, prefix, u = 16, "0x", v.Uint()
	}
	var buf [24]byte
	digits := strconv.AppendUint(buf[:0], u, base)
	if upper {
		for i, c := range digits {
			if c >= 'a' {
				digits[i] = c - 'a' + 'A'
			}
		}
	}
	if op.prec == 0 && u == 0 {
		digits = digits[:0]
	}
	zeros := max(op.prec-len(digits), 0)
	if op.verb == 'o' && op.sharp && zeros == 0 && (len(digits) == 0 || digits[0] != '0') {
		zeros = 1
	}
	if op.zero && !minus && op.prec < 0 {
		zeros = max(zeros, width-len(prefix)-len(digits))
	}
	dst = append(dst, prefix...)
	for range zeros {
		dst = append(dst, '0')
	}
	return append(dst, digits...)
}

func (op *formatOp) string(dst []byte, v *Value, esc Escape) []byte {
	if op.prec < 0 {
		return v.Append(dst, esc)
	}
	if v.Type != nil && v.Type.Kind == object.TypeString && !v.Cut && v.text == "" {
		return esc.append(dst, v.Bytes[:min(op.prec, len(v.Bytes))])
	}
	text := v.Append(nil, nil)
	return esc.append(dst, text[:min(op.prec, len(text))])
}

func (op *formatOp) buffer(dst []byte, v *Value, esc Escape) []byte {
	if len(v.Elems) > 0 {
		data := make([]byte, len(v.Elems))
		for i, e := range v.Elems {
			data[i] = byte(e.Int)
		}
		return appendBuffer(dst, data, op.mode)
	}
	if v.Type != nil && v.Type.Kind != object.TypeBuffer && v.Type.Kind != object.TypeString && v.Type.Kind != object.TypeMAC {
		return v.Append(dst, esc)
	}
	return appendBuffer(dst, v.Bytes, op.mode)
}
