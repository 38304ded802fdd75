package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/vm"
)

// inputFlags are the flags that say what a program is run over.
func (e *execFlags) inputFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&e.program, "program", "p", "", "the `NAME` of the program, where the object has several")
	f.StringVar(&e.packet, "packet", "", "a packet, in `HEX`, or @FILE that has it")
	f.StringVar(&e.context, "context", "", "the context, as `JSON`, or @FILE that has it")
}

// input returns what a program is run over.
func (a *app) input(e *execFlags, spec *ebpf.CollectionSpec, p *vm.Program) (o vm.RunOptions, err error) {
	if e.context != "" {
		text, err := fileOr(e.context)
		if err != nil {
			return o, err
		}
		v, err := decodeJSON(text)
		if err != nil {
			return o, usagef("--context is no JSON: %v", err)
		}
		b, err := contextOf(spec, p).encode(v)
		if err != nil {
			return o, usagef("--context: %v", err)
		}
		o.Context = b
	}
	if e.packet != "" {
		text, err := fileOr(e.packet)
		if err != nil {
			return o, err
		}
		if o.Data, err = unhex("--packet", text); err != nil {
			return o, err
		}
	}
	return o, nil
}

// fileOr returns a text, or for @FILE what is in the file.
func fileOr(text string) (string, error) {
	name, ok := strings.CutPrefix(text, "@")
	if !ok {
		return text, nil
	}
	b, err := os.ReadFile(name)
	return string(b), err
}

// unhex reads hex digits, with white space, colons or a 0x anywhere between bytes.
func unhex(what, text string) ([]byte, error) {
	clean := strings.NewReplacer(" ", "", "\n", "", "\t", "", "\r", "", ":", "", "0x", "").Replace(text)
	b, err := hex.DecodeString(clean)
	if err != nil {
		return nil, usagef("%s is not hex: %v", what, err)
	}
	return b, nil
}

// decodeJSON reads one value, with numbers as they are written.
func decodeJSON(text string) (any, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("something follows the value")
	}
	return v, nil
}

// A contextType says how a program's context is written in JSON.
type contextType struct {
	typ    abi.ProgType
	fields []vm.ContextField
	btf    *btf.Struct // where there are no fixed fields, but the program has a type
}

// contextOf returns how a program's context is written: with the fields of its
// type of program, or else of the type that the program gives it.
func contextOf(spec *ebpf.CollectionSpec, p *vm.Program) *contextType {
	c := &contextType{typ: p.Type(), fields: vm.ContextFields(p.Type())}
	if c.fields != nil || spec == nil || spec.Programs[p.Name()] == nil {
		return c
	}
	insns := spec.Programs[p.Name()].Instructions
	if len(insns) == 0 {
		return c
	}
	f := btf.FuncMetadata(&insns[0])
	if f == nil {
		return c
	}
	proto, ok := f.Type.(*btf.FuncProto)
	if !ok || len(proto.Params) != 1 {
		return c
	}
	ptr, ok := btf.UnderlyingType(proto.Params[0].Type).(*btf.Pointer)
	if !ok {
		return c
	}
	c.btf, _ = btf.UnderlyingType(ptr.Target).(*btf.Struct)
	// A program that is adjusted to the kernel sees the kernel's layout.
	if c.btf != nil && slices.ContainsFunc(insns, func(in asm.Instruction) bool { return btf.CORERelocationMetadata(&in) != nil }) {
		if types, err := btf.LoadKernelSpec(); err == nil {
			var s *btf.Struct
			if types.TypeByName(c.btf.Name, &s) == nil {
				c.btf = s
			}
		}
	}
	return c
}

// encode makes a context from a JSON value: a string of hex, an array of 64-bit
// numbers, or an object with fields.
func (c *contextType) encode(v any) ([]byte, error) {
	switch v := v.(type) {
	case string:
		return unhex("the context", v)
	case []any:
		var b []byte
		for _, x := range v {
			n, err := jsonNumber(x)
			if err != nil {
				return nil, err
			}
			b = nativeOrder().AppendUint64(b, n)
		}
		return b, nil
	case map[string]any:
		switch {
		case c.fields != nil:
			return fieldsToBytes(c.fields, v)
		case c.btf != nil:
			return encodeType(c.btf, int(c.btf.Size), v)
		}
		return nil, fmt.Errorf("the context of a program of type %s has no fields: give an array of 64-bit numbers, or a string of bytes in hex", c.typ)
	}
	return nil, fmt.Errorf("give an object of fields, an array of numbers, or a string of hex")
}

// decode shows a context as encode takes it.
func (c *contextType) decode(b []byte) any {
	switch {
	case c.fields != nil:
		return fieldsOf(c.fields, b)
	case c.btf != nil && len(b) >= int(c.btf.Size):
		return show(c.btf, b)
	}
	return hex.EncodeToString(b)
}

func fieldsToBytes(fields []vm.ContextField, v map[string]any) ([]byte, error) {
	last := fields[len(fields)-1]
	b := make([]byte, last.Offset+last.Size*last.Count)
	for name, x := range v {
		i := slices.IndexFunc(fields, func(f vm.ContextField) bool { return f.Name == name })
		if i < 0 {
			return nil, unknownName("field", name, func(yield func(string) bool) {
				for _, f := range fields {
					if !yield(f.Name) {
						return
					}
				}
			})
		}
		f := fields[i]
		list, ok := x.([]any)
		if !ok {
			list = []any{x}
		}
		if len(list) > f.Count {
			return nil, fmt.Errorf("field %s has %d elements", name, f.Count)
		}
		for k, x := range list {
			n, err := jsonNumber(x)
			if err != nil {
				return nil, fmt.Errorf("field %s: %w", name, err)
			}
			if err := putInteger(b[f.Offset+k*f.Size:][:f.Size], n); err != nil {
				return nil, fmt.Errorf("field %s: %w", name, err)
			}
		}
	}
	return b, nil
}

func fieldsOf(fields []vm.ContextField, b []byte) any {
	m := map[string]any{}
	for _, f := range fields {
		if f.Offset+f.Size*f.Count > len(b) {
			continue
		}
		var list []any
		for k := range f.Count {
			n, _ := integer(b[f.Offset+k*f.Size:][:f.Size], false)
			list = append(list, n)
		}
		if f.Count == 1 {
			m[f.Name] = list[0]
		} else {
			m[f.Name] = list
		}
	}
	return m
}

// jsonNumber reads a number of 64 bits, signed or not, or a text that C has for
// one ("0x10").
func jsonNumber(x any) (uint64, error) {
	text := ""
	switch x := x.(type) {
	case json.Number:
		text = x.String()
	case string:
		text = x
	case bool:
		if x {
			return 1, nil
		}
		return 0, nil
	default:
		return 0, fmt.Errorf("%v is no number", execText(x))
	}
	if u, err := strconv.ParseUint(text, 0, 64); err == nil {
		return u, nil
	}
	i, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%s is no 64-bit number", text)
	}
	return uint64(i), nil
}

// putInteger writes a number where it fits, as one with a sign or without.
func putInteger(b []byte, n uint64) error {
	bits := uint(len(b)) * 8
	if bits < 64 && n>>bits != 0 && (int64(n) >= 0 || int64(n) < math.MinInt64>>(64-bits)) {
		return fmt.Errorf("%d does not fit into %d bytes", int64(n), len(b))
	}
	switch o := nativeOrder(); len(b) {
	case 1:
		b[0] = byte(n)
	case 2:
		o.PutUint16(b, uint16(n))
	case 4:
		o.PutUint32(b, uint32(n))
	case 8:
		o.PutUint64(b, n)
	default:
		return fmt.Errorf("there are no numbers of %d bytes", len(b))
	}
	return nil
}

// encodeType makes the bytes of a JSON value of a type, as show writes it: a
// number, the name of an enumerator, a text for characters, a list, an object with
// the members; and {"hex": "..."} for bytes of any type. Members and elements that
// are not there are zero.
func encodeType(t btf.Type, size int, v any) ([]byte, error) {
	b := make([]byte, size)
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		if text, ok := m["hex"].(string); ok {
			raw, err := unhex("hex", text)
			if err == nil && len(raw) != size {
				err = fmt.Errorf("%d bytes of hex for %d", len(raw), size)
			}
			return raw, err
		}
	}
	switch u := underlying(t).(type) {
	case nil:
		if text, ok := v.(string); ok && !strings.HasPrefix(text, "0x") {
			raw, err := unhex("a value without a type", text)
			if err == nil && len(raw) != size {
				err = fmt.Errorf("%d bytes of hex for %d", len(raw), size)
			}
			return raw, err
		}
	case *btf.Enum:
		for _, x := range u.Values {
			if v == x.Name {
				return b, putInteger(b, x.Value)
			}
		}
	case *btf.Array:
		each, err := btf.Sizeof(u.Type)
		if err != nil {
			return nil, err
		}
		if text, ok := v.(string); ok && each == 1 {
			if len(text) > len(b) {
				return nil, fmt.Errorf("a text of %d bytes for %d", len(text), len(b))
			}
			copy(b, text)
			return b, nil
		}
		list, ok := v.([]any)
		if !ok || len(list) > int(u.Nelems) {
			return nil, fmt.Errorf("%s is no list of at most %d elements", execText(v), u.Nelems)
		}
		for i, x := range list {
			one, err := encodeType(u.Type, each, x)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			copy(b[i*each:], one)
		}
		return b, nil
	case *btf.Struct:
		return b, encodeMembers(b, u.Members, v)
	case *btf.Union:
		return b, encodeMembers(b, u.Members, v)
	}
	n, err := jsonNumber(v)
	if err != nil {
		return nil, err
	}
	return b, putInteger(b, n)
}

func underlying(t btf.Type) btf.Type {
	if t == nil {
		return nil
	}
	return btf.UnderlyingType(t)
}

func encodeMembers(b []byte, members []btf.Member, v any) error {
	m, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no object with members", execText(v))
	}
	for name, x := range m {
		i := slices.IndexFunc(members, func(f btf.Member) bool { return f.Name == name })
		if i < 0 {
			return unknownName("member", name, func(yield func(string) bool) {
				for _, f := range members {
					if !yield(f.Name) {
						return
					}
				}
			})
		}
		f := members[i]
		if f.BitfieldSize != 0 {
			return fmt.Errorf("member %s is a bit field: give the whole as {\"hex\": \"...\"}", name)
		}
		size, err := btf.Sizeof(f.Type)
		if err != nil {
			return err
		}
		at := int(f.Offset.Bytes())
		if at+size > len(b) {
			return fmt.Errorf("member %s lies outside", name)
		}
		one, err := encodeType(f.Type, size, x)
		if err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		copy(b[at:], one)
	}
	return nil
}

// completeObjects completes the names of object files, and of directories.
func completeObjects(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"o"}, cobra.ShellCompDirectiveFilterFileExt
}

// completePrograms completes the names of programs of the object that is on the
// command line.
func completePrograms(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	data, err := os.ReadFile(filepath.Clean(args[0]))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	spec, err := object.ReadSpec(data)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for name := range spec.Programs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, cobra.ShellCompDirectiveNoFileComp
}
