package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/object"
)

// ManifestOf derives a manifest from an object that has none, one of clang and
// libbpf: programs are attached by their section names, maps, buffers and
// global variables are shown through their types.
func ManifestOf(elf []byte) (*object.Manifest, error) {
	spec, err := object.ReadSpec(elf)
	if err != nil {
		return nil, fmt.Errorf("the object cannot be read: %w", err)
	}
	man := &object.Manifest{Version: object.ManifestVersion, Settings: map[string]string{}}
	for _, name := range sortedKeys(spec.Programs) {
		p := spec.Programs[name]
		if prints(p) {
			man.Prints = true
		}
		if pt, err := hook.ParseSection(p.SectionName); err == nil && pt.Manual {
			continue
		}
		man.Programs = append(man.Programs, object.Program{Name: name, Kind: object.KindAttach, Probes: []int{len(man.Probes)}})
		man.Probes = append(man.Probes, object.Probe{Name: p.SectionName})
	}
	records := recordTypes(spec)
	for _, name := range sortedKeys(spec.Maps) {
		m := spec.Maps[name]
		switch m.Type {
		case ebpf.RingBuf, ebpf.PerfEventArray:
			b := object.Buffer{Map: name, Types: records}
			if t, ok := foreignType(m.Value); ok {
				b.Types = []object.Type{t}
			}
			man.Buffers = append(man.Buffers, b)
		case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.Array, ebpf.PerCPUArray:
			if !strings.HasPrefix(name, ".") {
				man.Maps = append(man.Maps, foreignMap(name, m))
			}
		}
	}
	for _, name := range sortedKeys(spec.Variables) {
		v := spec.Variables[name]
		if v.Constant() || !shown(v.SectionName) || v.Type == nil {
			continue
		}
		if _, ok := recordType(v); ok {
			continue
		}
		if t, ok := foreignType(v.Type.Type); ok && t.Size == int(v.Size()) {
			man.Maps = append(man.Maps, object.MapShow{Name: name, Var: name, Value: t, Present: -1})
		}
	}
	return man, nil
}

// shown tells whether variables of a section change while programs run.
func shown(section string) bool {
	return section == ".data" || section == ".bss" || strings.HasPrefix(section, ".data.") || strings.HasPrefix(section, ".bss.")
}

// prints tells whether a program calls bpf_trace_printk or bpf_trace_vprintk.
func prints(p *ebpf.ProgramSpec) bool {
	return slices.ContainsFunc(p.Instructions, func(ins asm.Instruction) bool {
		return ins.IsBuiltinCall() && (ins.Constant == int64(asm.FnTracePrintk) || ins.Constant == int64(asm.FnTraceVprintk))
	})
}

// recordTypes are what records of a buffer without a type may be: authors
// keep the type of records in BTF by a variable that points to it,
// "const struct event *unused".
func recordTypes(spec *ebpf.CollectionSpec) []object.Type {
	var list []object.Type
	for _, name := range sortedKeys(spec.Variables) {
		if t, ok := recordType(spec.Variables[name]); ok {
			list = append(list, t)
		}
	}
	return list
}

// recordType is the struct that a variable points to and so names.
func recordType(v *ebpf.VariableSpec) (object.Type, bool) {
	if v.Type == nil {
		return object.Type{}, false
	}
	p, ok := btf.As[*btf.Pointer](v.Type.Type)
	if !ok {
		return object.Type{}, false
	}
	if _, ok := btf.As[*btf.Struct](p.Target); !ok {
		return object.Type{}, false
	}
	return foreignType(p.Target)
}

func foreignMap(name string, m *ebpf.MapSpec) object.MapShow {
	show := object.MapShow{Name: name, Map: name, KeySize: int(m.KeySize), Present: -1, PerCPU: m.Type == ebpf.PerCPUHash || m.Type == ebpf.LRUCPUHash || m.Type == ebpf.PerCPUArray}
	key, ok := foreignType(m.Key)
	if !ok || key.Size != int(m.KeySize) {
		key = bytesType(int(m.KeySize))
	}
	show.Keys = []object.Field{{Type: key}}
	value, ok := foreignType(m.Value)
	if !ok || value.Size != int(m.ValueSize) {
		value = bytesType(int(m.ValueSize))
	}
	show.Value = value
	return show
}

// bytesType shows bytes of which nothing is known.
func bytesType(n int) object.Type {
	b := object.Type{Kind: object.TypeInt, Size: 1}
	return object.Type{Kind: object.TypeArray, Size: n, Len: n, Elem: &b}
}

// maxNest bounds how deep types are followed.
const maxNest = 16

// foreignType says how a value of a type of C is shown; false for types that
// have no size or are not known.
func foreignType(t btf.Type) (object.Type, bool) {
	if t == nil {
		return object.Type{}, false
	}
	return foreignNested(t, 0)
}

func foreignNested(t btf.Type, nest int) (object.Type, bool) {
	t = btf.UnderlyingType(t)
	size, err := btf.Sizeof(t)
	if err != nil || size <= 0 || nest > maxNest {
		return object.Type{}, false
	}
	o := object.Type{Size: size}
	switch t := t.(type) {
	case *btf.Int:
		o.Kind, o.Signed = object.TypeInt, t.Encoding == btf.Signed
		if t.Encoding == btf.Bool && size == 1 {
			o.Kind = object.TypeBool
		}
		if size > 8 {
			return bytesType(size), true
		}
	case *btf.Pointer:
		o.Kind = object.TypePointer
	case *btf.Enum:
		o.Kind, o.Name, o.Signed = object.TypeEnum, t.Name, t.Signed
		for _, v := range t.Values {
			o.Values = append(o.Values, object.EnumValue{Name: v.Name, Value: int64(v.Value)})
		}
	case *btf.Array:
		if i, ok := btf.UnderlyingType(t.Type).(*btf.Int); ok && i.Size == 1 && (i.Encoding == btf.Char || i.Name == "char") {
			o.Kind = object.TypeString
			return o, true
		}
		elem, ok := foreignNested(t.Type, nest+1)
		if !ok {
			return o, false
		}
		o.Kind, o.Len, o.Elem = object.TypeArray, int(t.Nelems), &elem
	case *btf.Struct:
		o.Kind, o.Name = object.TypeRecord, t.Name
		o.Fields = foreignFields(t.Members, nest)
	case *btf.Union:
		o.Kind, o.Name = object.TypeRecord, t.Name
		o.Fields = foreignFields(t.Members, nest)
	default:
		return o, false
	}
	return o, true
}

func foreignFields(members []btf.Member, nest int) []object.Field {
	var out []object.Field
	for _, m := range members {
		t, ok := foreignNested(m.Type, nest+1)
		if !ok {
			continue
		}
		out = append(out, object.Field{
			Name: m.Name, Offset: int(m.Offset / 8), Bits: int(m.BitfieldSize), BitOffset: int(m.Offset % 8), Type: t,
		})
	}
	return out
}
