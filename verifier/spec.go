package verifier

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
)

// ProgramsOf is [Programs] for a spec of package ebpf, by name. Nothing of the
// spec is changed.
func ProgramsOf(spec *ebpf.CollectionSpec, types *btf.Spec) ([]*Program, error) {
	l := &specLinker{spec: spec, types: types, maps: map[string]*Map{}}
	var out []*Program
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p, err := l.program(spec.Programs[name])
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		out = append(out, p)
	}
	return out, nil
}

// A specLinker turns programs of a spec into those that are verified. Package
// ebpf has put the functions that a program calls behind it.
type specLinker struct {
	spec  *ebpf.CollectionSpec
	types *btf.Spec
	maps  map[string]*Map
}

// sleepableFlag is BPF_F_SLEEPABLE.
const sleepableFlag = 1 << 4

func (l *specLinker) program(s *ebpf.ProgramSpec) (*Program, error) {
	p := &Program{
		Name: s.Name, Type: abi.ProgType(s.Type), Attach: abi.AttachType(s.AttachType), License: s.License,
		Sleepable: s.Flags&sleepableFlag != 0, AttachTo: s.AttachTo,
	}
	in := slices.Clone(s.Instructions)
	if err := l.relocate(in); err != nil {
		return nil, err
	}
	slots := make([]int, len(in)+1)
	symbols := map[string]int{}
	for i := range in {
		slots[i+1] = slots[i] + int(in[i].Size()/asm.InstructionSize)
		if name := in[i].Symbol(); name != "" {
			symbols[name] = slots[i]
		}
	}
	seen := map[string]int32{}
	mapOf := func(name string) (int32, error) {
		if i, ok := seen[name]; ok {
			return i, nil
		}
		m, err := l.mapOf(name)
		if err != nil {
			return 0, err
		}
		seen[name] = int32(len(p.Maps))
		p.Maps = append(p.Maps, m)
		return seen[name], nil
	}
	for i := range in {
		ins := &in[i]
		f := btf.FuncMetadata(ins)
		if name := ins.Symbol(); i == 0 || name != "" && (f != nil || isFunction(in, name)) {
			if name == "" {
				name = s.Name
			}
			p.Funcs = append(p.Funcs, Func{Name: name, Start: slots[i], Global: f != nil && f.Linkage == btf.GlobalFunc, Type: f})
		}
		if line, ok := ins.Source().(*btf.Line); ok && line.LineNumber() > 0 {
			p.Lines = append(p.Lines, Line{
				Slot: slots[i], File: line.FileName(), Row: int(line.LineNumber()), Col: int(line.LineColumn()), Text: line.Line(),
			})
		}
		out, err := l.instruction(p, ins, slots[i+1], symbols, mapOf)
		if err != nil {
			return nil, fmt.Errorf("instruction %d: %w", i, err)
		}
		p.Insns = append(p.Insns, out)
	}
	return p, nil
}

// isFunction reports whether a symbol is one that is called or whose address
// is taken, rather than a label to jump to.
func isFunction(in asm.Instructions, name string) bool {
	return slices.ContainsFunc(in, func(i asm.Instruction) bool {
		return i.Reference() == name && (i.IsFunctionCall() || i.OpCode.IsDWordLoad() && i.Src == asm.PseudoFunc)
	})
}

// instruction links one; next is the slot behind it.
func (l *specLinker) instruction(p *Program, in *asm.Instruction, next int, symbols map[string]int, mapOf func(string) (int32, error)) (isa.Instruction, error) {
	ref := in.Reference()
	at, named := symbols[ref]
	dst := isa.Register(in.Dst)
	switch {
	case in.OpCode.IsDWordLoad() && in.Src == asm.PseudoFunc:
		if !named {
			return object.FromAsm(*in)
		}
		// The distance is counted from the first slot of two.
		return isa.LoadFunc(dst, int32(at-next+1)), nil
	case in.OpCode.IsDWordLoad() && (in.Src == asm.PseudoMapFD || in.Src == asm.PseudoMapValue):
		n, err := mapOf(ref)
		if err != nil {
			return isa.Instruction{}, err
		}
		if in.Src == asm.PseudoMapFD {
			return isa.LoadMapFD(dst, n), nil
		}
		return isa.LoadMapValue(dst, n, uint32(in.Constant>>32)), nil
	case in.OpCode.IsDWordLoad() && in.Src == 0 && ref != "":
		return l.symbol(p, dst, ref, mapOf)
	case in.IsFunctionCall() && named:
		return isa.CallLocal(int32(at - next)), nil
	case in.IsKfuncCall():
		i := slices.IndexFunc(p.Kfuncs, func(k Kfunc) bool { return k.Name == ref })
		if i < 0 {
			i = len(p.Kfuncs)
			p.Kfuncs = append(p.Kfuncs, Kfunc{Name: ref})
		}
		return isa.CallKfunc(int32(-1-i), 0), nil
	}
	one := *in
	if in.OpCode.Class().IsJump() && ref != "" && named {
		if one.OpCode.Class() == asm.Jump32Class && one.OpCode.JumpOp() == asm.Ja {
			one.Constant = int64(at - next)
		} else {
			if one.Offset = int16(at - next); int(one.Offset) != at-next {
				return isa.Instruction{}, fmt.Errorf("label %s is %d slots away, which no jump reaches", ref, at-next)
			}
		}
	}
	return object.FromAsm(one)
}

// symbol links what is found in the kernel: a value of its configuration, the
// address of a symbol, a variable with a type.
func (l *specLinker) symbol(p *Program, dst isa.Register, name string, mapOf func(string) (int32, error)) (isa.Instruction, error) {
	if l.spec.Types != nil {
		var config, ksyms *btf.Datasec
		if l.spec.Types.TypeByName(".kconfig", &config) == nil {
			for _, v := range config.Vars {
				if v.Type.TypeName() == name {
					n, err := mapOf(".kconfig")
					return isa.LoadMapValue(dst, n, v.Offset), err
				}
			}
		}
		if l.spec.Types.TypeByName(".ksyms", &ksyms) == nil {
			for _, v := range ksyms.Vars {
				if k, ok := v.Type.(*btf.Var); ok && k.Name == name && !isVoid(k.Type) {
					p.Ksyms = append(p.Ksyms, Ksym{Name: name, Type: k.Type})
					return isa.LoadBTFID(dst, int32(-len(p.Ksyms)), 0), nil
				}
			}
		}
	}
	return isa.LoadImm64(dst, kernelAddress), nil
}

// mapOf returns what has to be known of a map.
func (l *specLinker) mapOf(name string) (*Map, error) {
	if m := l.maps[name]; m != nil {
		return m, nil
	}
	s := l.spec.Maps[name]
	if s == nil && name == ".kconfig" {
		var ds *btf.Datasec
		if err := l.spec.Types.TypeByName(name, &ds); err != nil {
			return nil, err
		}
		s = &ebpf.MapSpec{Name: name, Type: ebpf.Array, KeySize: 4, ValueSize: ds.Size, MaxEntries: 1, Flags: mapReadOnlyProg}
	}
	if s == nil {
		return nil, fmt.Errorf("there is no map %q", name)
	}
	m := specMap(s)
	if s.Flags&mapReadOnlyProg != 0 && strings.HasPrefix(name, ".rodata") && len(s.Contents) == 1 {
		data, ok, err := object.DataSection(l.spec, name)
		if err != nil {
			return nil, err
		}
		if !ok {
			data, _ = s.Contents[0].Value.([]byte)
		}
		m.Contents = data
	}
	l.maps[name] = m
	return m, nil
}

func specMap(s *ebpf.MapSpec) *Map {
	m := &Map{
		Name: s.Name, Type: abi.MapType(s.Type), KeySize: s.KeySize, ValueSize: s.ValueSize,
		MaxEntries: s.MaxEntries, Flags: s.Flags, Extra: s.MapExtra, Value: s.Value,
	}
	if s.InnerMap != nil {
		m.Inner = specMap(s.InnerMap)
	}
	return m
}

// relocate adjusts instructions to the types of the kernel (CO-RE).
func (l *specLinker) relocate(in asm.Instructions) error {
	if l.types == nil {
		return nil
	}
	b, err := btf.NewBuilder(nil, nil)
	if err != nil {
		return err
	}
	order := l.spec.ByteOrder
	if order == nil {
		order = binary.NativeEndian
	}
	return object.Relocate(in, order, func() (*btf.Spec, error) { return l.types, nil }, b.Add)
}
