package main

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/vm"
)

// byteOrder reads and writes as this machine does.
type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

func nativeOrder() byteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// An execEvent is what a program sent through a ring buffer or a perf event
// array.
type execEvent struct {
	Map  string `json:"map"`
	CPU  *int   `json:"cpu,omitempty"`
	Data string `json:"data"`
	// Value is Data as the map's type of values has it, where it has one.
	Value any `json:"value,omitempty"`
}

// text is the value where its type is known, and otherwise the bytes in hex.
func (e *execEvent) text() string {
	if e.Value != nil {
		return execText(e.Value)
	}
	return e.Data
}

// mostElements is how many elements of a map are shown.
const mostElements = 1000

// An execElement is a key and its value; values of maps per CPU are lists.
type execElement struct {
	Key   any `json:"key"`
	Value any `json:"value"`
}

// showMaps returns the contents of the maps that an object's author named, and
// of its variables.
func showMaps(c *skep.Collection) map[string]any {
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(c.Maps)) {
		m := c.Maps[name]
		if strings.Contains(name, ".") || m.ValueSize() == 0 || m.KeySize() == 0 {
			continue
		}
		out[name] = showMap(m)
	}
	for name, v := range c.Variables {
		if v.ReadOnly() || strings.HasPrefix(name, "__") {
			continue
		}
		var b []byte
		if v.Get(&b) == nil {
			out[name] = show(v.Type(), b)
		}
	}
	return out
}

// showMap returns the elements of a map. Those of arrays that are zero are left
// out.
func showMap(m *vm.Map) []execElement {
	key, value := m.Types()
	array := strings.HasSuffix(m.Type().String(), "array")
	list := []execElement{}
	for k, v := range m.All() {
		if array && !slices.ContainsFunc(v, func(b byte) bool { return b != 0 }) {
			continue
		}
		if len(list) == mostElements {
			break
		}
		e := execElement{Key: show(key, k)}
		if m.PerCPU() {
			var each []any
			stride := (m.ValueSize() + 7) / 8 * 8
			for at := 0; at < len(v); at += stride {
				each = append(each, show(value, v[at:][:m.ValueSize()]))
			}
			e.Value = each
		} else {
			e.Value = show(value, v)
		}
		list = append(list, e)
	}
	return list
}

// show returns bytes as their type has them: a number, a text, a list, an
// object, or hex where the type is not known.
func show(t btf.Type, b []byte) any {
	if t == nil {
		return hex.EncodeToString(b)
	}
	size, err := btf.Sizeof(t)
	if err != nil || size > len(b) {
		return hex.EncodeToString(b)
	}
	b = b[:size]
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int:
		if n, ok := integer(b, t.Encoding == btf.Signed); ok {
			return n
		}
	case *btf.Enum:
		n, ok := integer(b, t.Signed)
		for _, v := range t.Values {
			if ok && fmt.Sprint(n) == fmt.Sprint(v.Value) {
				return v.Name
			}
		}
		if ok {
			return n
		}
	case *btf.Array:
		if i, ok := btf.UnderlyingType(t.Type).(*btf.Int); ok && i.Size == 1 && isText(b) {
			text, _, _ := strings.Cut(string(b), "\x00")
			return text
		}
		each, err := btf.Sizeof(t.Type)
		if err != nil || each == 0 {
			break
		}
		list := []any{}
		for at := 0; at+each <= len(b); at += each {
			list = append(list, show(t.Type, b[at:][:each]))
		}
		return list
	case *btf.Struct:
		m := map[string]any{}
		for _, f := range t.Members {
			if f.BitfieldSize != 0 || f.Name == "" || int(f.Offset.Bytes()) > len(b) {
				return hex.EncodeToString(b)
			}
			m[f.Name] = show(f.Type, b[f.Offset.Bytes():])
		}
		return m
	}
	return hex.EncodeToString(b)
}

func integer(b []byte, signed bool) (any, bool) {
	o := nativeOrder()
	var n uint64
	switch len(b) {
	case 1:
		n = uint64(b[0])
		if signed {
			return int64(int8(n)), true
		}
	case 2:
		n = uint64(o.Uint16(b))
		if signed {
			return int64(int16(n)), true
		}
	case 4:
		n = uint64(o.Uint32(b))
		if signed {
			return int64(int32(n)), true
		}
	case 8:
		n = o.Uint64(b)
		if signed {
			return int64(n), true
		}
	default:
		return nil, false
	}
	return n, true
}

// isText reports whether bytes are printable up to zeros that fill the rest.
func isText(b []byte) bool {
	text, rest, _ := strings.Cut(string(b), "\x00")
	for _, r := range text {
		if r < ' ' || r > '~' {
			return false
		}
	}
	return text != "" && strings.Trim(rest, "\x00") == ""
}

func (a *app) printExec(out *execResult, c *skep.Collection) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s returned %d (%#x)", out.Program, out.Retval, out.Retval)
	if out.Runs > 1 {
		fmt.Fprintf(&b, " the last of %d times, %.0f ns each", out.Runs, out.NsPerRun)
	}
	fmt.Fprintf(&b, " [%s]\n", out.Engine)
	for _, v := range slices.Sorted(maps.Keys(out.Retvals)) {
		fmt.Fprintf(&b, "  %s: %d packets\n", v, out.Retvals[v])
	}
	if r := out.Redirect; r != nil {
		fmt.Fprintf(&b, "redirect: %s", r.Kind)
		if r.Map != "" {
			fmt.Fprintf(&b, " %s[%d]", r.Map, r.Key)
		} else {
			fmt.Fprintf(&b, " %d", r.Ifindex)
		}
		b.WriteString("\n")
	}
	if out.Packet != "" {
		fmt.Fprintf(&b, "packet: %s\n", out.Packet)
	}
	if out.Context != nil {
		fmt.Fprintf(&b, "context: %v\n", execText(out.Context))
	}
	for _, e := range out.Events {
		fmt.Fprintf(&b, "event %s: %s\n", e.Map, e.text())
	}
	for _, name := range slices.Sorted(maps.Keys(out.Maps)) {
		list, ok := out.Maps[name].([]execElement)
		if !ok {
			fmt.Fprintf(&b, "variable %s: %s\n", name, execText(out.Maps[name]))
			continue
		}
		m := c.Maps[name]
		fmt.Fprintf(&b, "map %s: %s, %d elements\n", name, m.Type(), len(list))
		for _, e := range list {
			fmt.Fprintf(&b, "  %s: %s\n", execText(e.Key), execText(e.Value))
		}
	}
	_, err := a.stdout.Write([]byte(b.String()))
	return err
}

// execText writes what show returned on a line.
func execText(v any) string {
	switch v := v.(type) {
	case []any:
		var parts []string
		for _, x := range v {
			parts = append(parts, execText(x))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, k+": "+execText(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v)
}

// execReaders are the readers of all that the programs of an object send through.
type execReaders []execReader

type execReader struct {
	name string
	perf bool
	r    *vm.Reader
	typ  btf.Type // of what is sent; nil where it is not known
}

func readEvents(c *skep.Collection) (execReaders, error) {
	var list execReaders
	for _, name := range slices.Sorted(maps.Keys(c.Maps)) {
		m := c.Maps[name]
		var r *vm.Reader
		var err error
		switch m.Type() {
		case abi.MapRingbuf:
			r, err = vm.NewRingReader(m)
		case abi.MapPerfEventArray:
			r, err = vm.NewPerfReader(m, 1<<20)
		default:
			continue
		}
		if err != nil {
			list.close()
			return nil, err
		}
		r.SetDeadline(time.Unix(1, 0)) // what is there, and no waiting
		x := execReader{name: name, perf: m.Type() == abi.MapPerfEventArray, r: r}
		if !x.perf { // whose values are descriptors
			_, x.typ = m.Types()
		}
		list = append(list, x)
	}
	return list, nil
}

// all returns everything that was sent.
func (list execReaders) all() []execEvent {
	var events []execEvent
	for _, x := range list {
		for {
			rec, err := x.r.Read()
			if err != nil {
				break
			}
			e := execEvent{Map: x.name, Data: hex.EncodeToString(rec.RawSample)}
			if size, err := btf.Sizeof(x.typ); x.typ != nil && err == nil && size > 0 && size <= len(rec.RawSample) {
				e.Value = show(x.typ, rec.RawSample)
			}
			if x.perf {
				e.CPU = &rec.CPU
			}
			events = append(events, e)
		}
	}
	return events
}

func (list execReaders) close() {
	for _, x := range list {
		x.r.Close()
	}
}
