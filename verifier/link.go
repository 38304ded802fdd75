package verifier

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
)

// Programs returns the programs of an object as they would be loaded: with the
// functions that they call, and with what the object leaves open filled in
// from types, the kernel's BTF, which may be nil where nothing depends on it.
// It fails only where the object cannot be loaded at all.
func Programs(o *object.Object, types *btf.Spec) ([]*Program, error) {
	l := &linker{o: o, maps: map[*object.Map]*Map{}, sections: map[string]*section{}, locals: map[uint32]btf.Type{}}
	if err := l.layout(); err != nil {
		return nil, err
	}
	if err := l.relocate(types); err != nil {
		return nil, err
	}
	var out []*Program
	for _, f := range o.Funcs {
		if f.Section == "" {
			continue
		}
		p, err := l.program(f)
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", f.Name, err)
		}
		out = append(out, p)
	}
	return out, nil
}

type linker struct {
	o        *object.Object
	maps     map[*object.Map]*Map
	sections map[string]*section
	// fixed are instructions as CO-RE has them on the target.
	fixed map[site]isa.Instruction
	// locals are the types of the object that instructions, lists and trees name.
	locals map[uint32]btf.Type
}

// A site is an instruction of a function.
type site struct {
	fn    string
	index int
}

// A section is global data, which programs see as a map with one value.
type section struct {
	m    *Map
	offs map[*object.Var]uint32
	// config are the offsets of values of the kernel's configuration.
	config map[string]uint32
}

// layout places global variables.
func (l *linker) layout() error {
	for _, v := range l.o.Vars {
		s := l.sections[v.Section]
		if s == nil {
			s = &section{m: &Map{Name: v.Section, Type: abi.MapArray, KeySize: 4, MaxEntries: 1}, offs: map[*object.Var]uint32{}}
			if strings.HasPrefix(v.Section, ".rodata") {
				s.m.Flags = mapReadOnlyProg
			}
			l.sections[v.Section] = s
		}
		align := uint32(8)
		if v.Align > 0 {
			align = uint32(v.Align)
		}
		off := (s.m.ValueSize + align - 1) &^ (align - 1)
		size := v.Size()
		s.offs[v] = off
		s.m.ValueSize = off + uint32(size)
		if v.Type != nil {
			// What the kernel is told of them: where locks and timers are.
			sec, ok := s.m.Value.(*btf.Datasec)
			if !ok {
				sec = &btf.Datasec{Name: v.Section}
				s.m.Value = sec
			}
			sec.Size = s.m.ValueSize
			sec.Vars = append(sec.Vars, btf.VarSecinfo{Type: &btf.Var{Name: v.Name, Type: v.Type}, Offset: off, Size: uint32(size)})
		}
		if s.m.Flags&mapReadOnlyProg != 0 {
			s.m.Contents = append(s.m.Contents, make([]byte, int(off)-len(s.m.Contents))...)
			s.m.Contents = append(s.m.Contents, v.Init...)
			s.m.Contents = append(s.m.Contents, make([]byte, size-len(v.Init))...)
		}
	}
	return nil
}

// relocate applies CO-RE relocations. Those are package ebpf's to resolve.
func (l *linker) relocate(types *btf.Spec) error {
	l.fixed = map[site]isa.Instruction{}
	any := false
	for _, f := range l.o.Funcs {
		any = any || len(f.CORE) > 0
	}
	if !any || types == nil {
		return nil
	}
	spec, err := object.ToCollectionSpec(l.o)
	if err != nil {
		spec, err = object.ToCollectionSpec(l.bare())
	}
	if err != nil {
		return err
	}
	for _, p := range spec.Programs {
		if err := l.relocateProgram(p, types); err != nil {
			return err
		}
	}
	return nil
}

// bare is the object with nothing but instructions and their CO-RE
// relocations: what else it refers to need not be loadable by package ebpf.
func (l *linker) bare() *object.Object {
	o := &object.Object{Arch: l.o.Arch, Big: l.o.Big, License: l.o.License}
	for _, f := range l.o.Funcs {
		n := &object.Func{Name: f.Name, Section: f.Section, Global: f.Global, Type: f.Type, CORE: f.CORE}
		n.Insns = append(n.Insns, f.Insns...)
		for _, r := range f.Relocs {
			if in := &n.Insns[r.Insn]; in.IsWide() {
				*in = isa.LoadImm64(in.Dst, 0)
			} else {
				*in = isa.Mov64Imm(0, 0)
			}
		}
		if f.Section == "" {
			// Subprograms that nothing calls would be left out.
			n.Section = "raw_tp"
		}
		o.Funcs = append(o.Funcs, n)
	}
	return o
}

// addLocal gives a type of the object an id, by which instructions name it.
func (l *linker) addLocal(t btf.Type) (btf.TypeID, error) {
	for id, have := range l.locals {
		if have == t {
			return btf.TypeID(id), nil
		}
	}
	id := uint32(len(l.locals) + 1)
	l.locals[id] = t
	return btf.TypeID(id), nil
}

func (l *linker) relocateProgram(p *ebpf.ProgramSpec, types *btf.Spec) error {
	var relos []*btf.CORERelocation
	var sites []site
	var insns []*asm.Instruction
	at := site{fn: p.Name}
	for i := range p.Instructions {
		ins := &p.Instructions[i]
		if name := ins.Symbol(); name != "" {
			at = site{fn: name}
		}
		if r := btf.CORERelocationMetadata(ins); r != nil {
			relos, sites, insns = append(relos, r), append(sites, at), append(insns, ins)
		}
		at.index++
	}
	if len(relos) == 0 {
		return nil
	}
	fixups, err := btf.CORERelocate(relos, []*btf.Spec{types}, l.o.ByteOrder(), l.addLocal)
	if err != nil {
		return err
	}
	for i := range fixups {
		if err := fixups[i].Apply(insns[i]); err != nil {
			return err
		}
		ins := insns[i]
		orig, ok := l.insn(sites[i])
		if !ok {
			return fmt.Errorf("a relocation at instruction %d of %s leads nowhere", sites[i].index, sites[i].fn)
		}
		orig.Off, orig.Imm = ins.Offset, ins.Constant
		if ins.OpCode != 0 && ins.IsBuiltinCall() {
			// A relocation without an answer: an invalid call in its place.
			orig = isa.Call(int32(ins.Constant))
		}
		l.fixed[sites[i]] = orig
	}
	return nil
}

func (l *linker) insn(s site) (isa.Instruction, bool) {
	for _, f := range l.o.Funcs {
		if f.Name == s.fn && s.index < len(f.Insns) {
			return f.Insns[s.index], true
		}
	}
	return isa.Instruction{}, false
}

// program links one program.
func (l *linker) program(entry *object.Func) (*Program, error) {
	p := &Program{Name: entry.Name, License: l.o.License, Locals: l.locals}
	if s, extras, ok := abi.ParseSection(entry.Section); ok {
		p.Type, p.Attach, p.Sleepable = s.ProgType, s.AttachType, s.Sleepable
		p.AttachTo = extras
	}
	index := map[*Map]int32{}
	mapOf := func(m *Map) int32 {
		i, ok := index[m]
		if !ok {
			i = int32(len(p.Maps))
			index[m] = i
			p.Maps = append(p.Maps, m)
		}
		return i
	}
	starts := map[*object.Func]int{}
	type call struct {
		insn, slot int
		to         *object.Func
	}
	var calls []call
	slot := 0
	queue := []*object.Func{entry}
	reach := func(f *object.Func) {
		for _, have := range queue {
			if have == f {
				return
			}
		}
		queue = append(queue, f)
	}
	for n := 0; n < len(queue); n++ {
		f := queue[n]
		starts[f] = slot
		p.Funcs = append(p.Funcs, Func{Name: f.Name, Start: slot, Global: f.Global, Type: f.Type})
		relocs := map[int]object.Reloc{}
		for _, r := range f.Relocs {
			relocs[r.Insn] = r
		}
		lines := f.Lines
		for i, in := range f.Insns {
			for len(lines) > 0 && lines[0].Insn <= i {
				if w := lines[0].Where(); w.Row > 0 {
					p.Lines = append(p.Lines, Line{Slot: slot, File: w.File, Row: w.Row, Col: w.Col, Text: w.Text})
				}
				lines = lines[1:]
			}
			if fixed, ok := l.fixed[site{f.Name, i}]; ok {
				in = fixed
			}
			if r, ok := relocs[i]; ok {
				switch r.Kind {
				case object.RelocMap:
					in = isa.LoadMapFD(in.Dst, mapOf(l.mapOf(r.Symbol.(*object.Map))))
				case object.RelocVar:
					v := r.Symbol.(*object.Var)
					s := l.sections[v.Section]
					off := int32(s.offs[v])
					if in.Src == isa.PseudoMapValue {
						off += in.High()
					} else {
						off += int32(in.Imm)
					}
					in = isa.LoadMapValue(in.Dst, mapOf(s.m), uint32(off))
				case object.RelocCall, object.RelocFuncAddr:
					to := r.Symbol.(*object.Func)
					reach(to)
					calls = append(calls, call{len(p.Insns), slot, to})
				case object.RelocExtern:
					x := r.Symbol.(*object.Extern)
					if x.Kind == object.ExternKconfig {
						m, off := l.kconfig(x)
						in = isa.LoadMapValue(in.Dst, mapOf(m), off)
					} else {
						in = l.extern(p, in, x)
					}
				}
			}
			p.Insns = append(p.Insns, in)
			slot += in.Size()
		}
	}
	for _, c := range calls {
		d := int32(starts[c.to] - c.slot - 1)
		if in := &p.Insns[c.insn]; in.IsWide() {
			*in = isa.LoadFunc(in.Dst, d)
		} else {
			*in = isa.CallLocal(d)
		}
	}
	return p, nil
}

// extern refers to a thing of the kernel: by a number below zero into the
// program's tables, which stands where the kernel has an id.
func (l *linker) extern(p *Program, in isa.Instruction, x *object.Extern) isa.Instruction {
	switch x.Kind {
	case object.ExternKfunc:
		for i, k := range p.Kfuncs {
			if k.Name == x.Name {
				return isa.CallKfunc(int32(-1-i), 0)
			}
		}
		p.Kfuncs = append(p.Kfuncs, Kfunc{Name: x.Name, Weak: x.Weak})
		return isa.CallKfunc(int32(-len(p.Kfuncs)), 0)
	case object.ExternKsym:
		if x.Type == nil || isVoid(x.Type) {
			// The address of a symbol, a number that is not known here.
			return isa.LoadImm64(in.Dst, kernelAddress)
		}
	}
	p.Ksyms = append(p.Ksyms, Ksym{Name: x.Name, Type: x.Type, Weak: x.Weak})
	return isa.LoadBTFID(in.Dst, int32(-len(p.Ksyms)), 0)
}

// kconfig returns where a value of the kernel's configuration is: in a map that
// can be read only, and whose contents are not known here.
func (l *linker) kconfig(x *object.Extern) (*Map, uint32) {
	s := l.sections[".kconfig"]
	if s == nil {
		s = &section{m: &Map{Name: ".kconfig", Type: abi.MapArray, KeySize: 4, MaxEntries: 1, Flags: mapReadOnlyProg}, config: map[string]uint32{}}
		l.sections[".kconfig"] = s
	}
	off, ok := s.config[x.Name]
	if !ok {
		size, err := btf.Sizeof(x.Type)
		if err != nil {
			size = 8
		}
		off = s.m.ValueSize
		s.config[x.Name] = off
		s.m.ValueSize += uint32(size+7) &^ 7
	}
	return s.m, off
}

// kernelAddress stands for the addresses of untyped symbols.
const kernelAddress = -0x7f000000

func (l *linker) mapOf(m *object.Map) *Map {
	if have := l.maps[m]; have != nil {
		return have
	}
	key, value := m.Sizes()
	n := &Map{
		Name: m.Name, Type: abi.MapType(m.Type), KeySize: uint32(key), ValueSize: uint32(value),
		MaxEntries: m.MaxEntries, Flags: m.Flags, Extra: m.Extra, Value: m.Value,
	}
	l.maps[m] = n
	if m.Inner != nil {
		n.Inner = l.mapOf(m.Inner)
	}
	return n
}
