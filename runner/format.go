package runner

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/object"
)

// Format fills the values into a format string of the tracing language.
// escape is applied to text that came from the traced system, not to what the
// author of the format wrote.
func Format(format string, values []Value, escape func(string) string) string {
	var b strings.Builder
	next := 0
	take := func() (Value, bool) {
		if next >= len(values) {
			return Value{}, false
		}
		next++
		return values[next-1], true
	}
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		start := i
		i++
		flags := i
		for i < len(format) && strings.IndexByte("-+ #0", format[i]) >= 0 {
			i++
		}
		spec := "%" + format[flags:i]
		if i < len(format) && format[i] == '*' {
			i++
			if w, ok := take(); ok {
				spec += strconv.FormatInt(w.Int, 10)
			}
		}
		for i < len(format) && (format[i] >= '0' && format[i] <= '9' || format[i] == '.') {
			spec += string(format[i])
			i++
		}
		for i < len(format) && strings.IndexByte("hlqjzt", format[i]) >= 0 {
			i++
		}
		if i >= len(format) {
			b.WriteString(format[start:])
			break
		}
		verb := format[i]
		if verb == '%' {
			b.WriteByte('%')
			continue
		}
		v, ok := take()
		if !ok {
			b.WriteString(format[start : i+1])
			continue
		}
		switch verb {
		case 'd', 'i':
			if v.Type.Signed || v.Type.Kind != object.TypeInt && v.Type.Kind != object.TypeEnum {
				fmt.Fprintf(&b, spec+"d", v.Int)
			} else {
				fmt.Fprintf(&b, spec+"d", v.Uint())
			}
		case 'u':
			fmt.Fprintf(&b, spec+"d", v.Uint())
		case 'x', 'X', 'o':
			fmt.Fprintf(&b, spec+string(verb), v.Uint())
		case 'p':
			b.WriteString(fmt.Sprintf(strings.ReplaceAll(spec, "#", "")+"s", "0x"+strconv.FormatUint(v.Uint(), 16)))
		case 'c':
			b.WriteString(fmt.Sprintf(spec+"s", escape(string([]byte{byte(v.Int)}))))
		case 'r':
			mode := byte(0)
			if i+1 < len(format) && (format[i+1] == 'x' || format[i+1] == 'h') {
				i++
				mode = format[i]
			}
			b.WriteString(fmt.Sprintf(spec+"s", buffer(v, mode)))
		default:
			b.WriteString(fmt.Sprintf(spec+"s", escape(v.String())))
		}
	}
	return b.String()
}

func buffer(v Value, mode byte) string {
	data := v.Bytes
	for _, e := range v.Elems {
		data = append(data, byte(e.Int))
	}
	if mode == 0 {
		return escapeBuffer(data)
	}
	var b strings.Builder
	for i, c := range data {
		if mode == 'h' && i > 0 {
			b.WriteByte(' ')
		}
		if mode == 'x' {
			b.WriteString(`\x`)
		}
		fmt.Fprintf(&b, "%02x", c)
	}
	return b.String()
}
