package object

import (
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
)

// Types of maps that have rules of their own here (enum bpf_map_type).
const (
	bpfMapTypeProgArray      = 3
	bpfMapTypePerfEventArray = 4
	bpfMapTypeRingbuf        = 27
)

// pinByName is LIBBPF_PIN_BY_NAME.
const pinByName = 1

// hasValues reports whether the definition has the member "values".
func (m *Map) hasValues() bool { return m.Inner != nil || len(m.Values) > 0 }

// A mapField is a member of the struct that defines a map: a number, written
// int (*name)[number], or a pointer to a type.
type mapField struct {
	name   string
	number uint64
	typ    btf.Type
}

// mapFields lists the members that define m, "values" at last and without a
// type, as libbpf's macros __uint, __type and __array make them.
func mapFields(m *Map) ([]mapField, error) {
	fields := []mapField{{name: "type", number: uint64(m.Type)}}
	number := func(name string, n uint64) {
		if n != 0 {
			fields = append(fields, mapField{name: name, number: n})
		}
	}
	sized := func(name string, t btf.Type, size uint32) error {
		if t == nil {
			number(name+"_size", uint64(size))
			return nil
		}
		n, err := btf.Sizeof(t)
		if err != nil {
			return fmt.Errorf("its %s has no size: %w", name, err)
		}
		if size != 0 && int(size) != n {
			return fmt.Errorf("its %s has %d bytes, the type of that %d", name, size, n)
		}
		fields = append(fields, mapField{name: name, typ: t})
		return nil
	}
	if err := sized("key", m.Key, m.KeySize); err != nil {
		return nil, err
	}
	if m.hasValues() {
		if m.Value != nil || m.ValueSize != 0 && m.ValueSize != 4 {
			return nil, errors.New("its values are maps or programs, whose size is 4")
		}
		if m.Inner == nil && m.Type != bpfMapTypeProgArray {
			return nil, errors.New("it has values, but is neither a map of maps nor a program array")
		}
	} else if err := sized("value", m.Value, m.ValueSize); err != nil {
		return nil, err
	}
	number("max_entries", uint64(m.MaxEntries))
	number("map_flags", uint64(m.Flags))
	number("map_extra", m.Extra)
	number("numa_node", uint64(m.NUMANode))
	if m.Pinned {
		number("pinning", pinByName)
	}
	if m.hasValues() {
		fields = append(fields, mapField{name: "values"})
	}
	return fields, nil
}

// A typeSection collects the types of an object.
type typeSection struct {
	copier  *typeCopier
	builder *btf.Builder
	strings *stringTable
	int     btf.Type
	index   btf.Type // of arrays
}

// placeTypes writes .BTF and .BTF.ext.
func (e *writer) placeTypes() error {
	builder := new(btf.Builder)
	t := &typeSection{copier: e.copier, builder: builder}
	t.int = t.copier.intern(&btf.Int{Name: "int", Size: 4, Encoding: btf.Signed})
	t.index = t.copier.intern(&btf.Int{Name: "__ARRAY_SIZE_TYPE__", Size: 4})
	e.types = t

	funcs := make(map[*Func]btf.TypeID, len(e.funcs))
	for _, f := range e.funcs {
		typ, err := t.signature(f)
		if err == nil {
			funcs[f], err = builder.Add(typ)
		}
		if err != nil {
			return fmt.Errorf("function %s: its type: %w", f.Name, err)
		}
	}
	if err := e.addDatasecs(); err != nil {
		return err
	}
	relos, err := t.addCORE(e.funcs)
	if err != nil {
		return err
	}

	raw, err := builder.Marshal(nil, &btf.MarshalOptions{Order: e.order})
	if err != nil {
		return fmt.Errorf("types: %w", err)
	}
	// The strings of .BTF.ext stand behind those of the types.
	stringOff := int(e.order.Uint32(raw[4:]) + e.order.Uint32(raw[16:]))
	t.strings = newStrings(raw[stringOff:])
	ext, err := e.extInfo(funcs, relos)
	if err != nil {
		return err
	}
	raw = append(raw[:stringOff], t.strings.data...)
	e.order.PutUint32(raw[20:], uint32(len(t.strings.data)))

	e.section(sectionBTF, elf.SHT_PROGBITS, 0, 4).data = raw
	if ext != nil {
		e.section(sectionBTFExt, elf.SHT_PROGBITS, 0, 4).data = ext
	}
	return nil
}

// signature returns the type of f.
func (t *typeSection) signature(f *Func) (btf.Type, error) {
	linkage := btf.StaticFunc
	if f.Global || f.Weak || f.Section != "" {
		linkage = btf.GlobalFunc
	}
	if f.Type == nil {
		proto := &btf.FuncProto{Return: t.int}
		if f.Section != "" {
			proto.Params = []btf.FuncParam{{Name: "ctx", Type: t.copier.intern(&btf.Pointer{Target: &btf.Void{}})}}
		}
		return &btf.Func{Name: f.Name, Type: t.copier.intern(proto), Linkage: linkage}, nil
	}
	proto, ok := f.Type.Type.(*btf.FuncProto)
	if !ok {
		return nil, fmt.Errorf("%v is no signature", f.Type.Type)
	}
	if len(f.Type.ParamTags) > len(proto.Params) {
		return nil, errors.New("it has tags for more parameters than it has")
	}
	typ, err := t.copier.copyFull(&btf.Func{
		Name: f.Name, Type: proto, Linkage: linkage, Tags: f.Type.Tags, ParamTags: f.Type.ParamTags,
	}, false)
	return typ, err
}

// addDatasecs adds a DATASEC for maps, variables and externs each.
func (e *writer) addDatasecs() error {
	t := e.types
	add := func(ds *btf.Datasec) error {
		if len(ds.Vars) == 0 {
			return nil
		}
		_, err := t.builder.Add(ds)
		return err
	}
	maps := &btf.Datasec{Name: sectionMaps}
	for _, m := range e.o.Maps {
		def, err := t.mapType(m)
		if err != nil {
			return fmt.Errorf("map %s: %w", m.Name, err)
		}
		sym := e.symbols[m]
		maps.Size = uint32(len(sym.section.data))
		maps.Vars = append(maps.Vars, btf.VarSecinfo{
			Type:   &btf.Var{Name: m.Name, Type: def, Linkage: btf.GlobalVar},
			Offset: uint32(sym.value), Size: uint32(sym.size),
		})
	}
	if err := add(maps); err != nil {
		return fmt.Errorf("maps: %w", err)
	}
	for _, s := range e.sections {
		if err := e.addVars(s, add); err != nil {
			return err
		}
	}
	return e.addExterns(add)
}

// addVars adds the DATASEC of the variables of s.
func (e *writer) addVars(s *section, add func(*btf.Datasec) error) error {
	ds := &btf.Datasec{Name: s.name, Size: uint32(s.size)}
	for _, v := range s.vars {
		if v.Type == nil {
			continue
		}
		typ, err := e.types.copier.copyFull(v.Type, false)
		if err != nil {
			return fmt.Errorf("variable %s: its type: %w", v.Name, err)
		}
		linkage := btf.GlobalVar
		if v.Static {
			linkage = btf.StaticVar
		}
		sym := e.symbols[v]
		ds.Vars = append(ds.Vars, btf.VarSecinfo{
			Type:   &btf.Var{Name: v.Name, Type: typ, Linkage: linkage},
			Offset: uint32(sym.value), Size: uint32(sym.size),
		})
	}
	if err := add(ds); err != nil {
		return fmt.Errorf("section %s: %w", s.name, err)
	}
	return nil
}

// addExterns adds .ksyms and .kconfig. As in clang's objects they have no size
// and no offsets, because no section of the file stands behind them.
func (e *writer) addExterns(add func(*btf.Datasec) error) error {
	t := e.types
	ksyms, kconfig := &btf.Datasec{Name: sectionKsyms}, &btf.Datasec{Name: sectionKconfig}
	for _, x := range e.o.Externs {
		var typ btf.Type = &btf.Void{}
		size := 0
		if x.Type != nil {
			var err error
			copied := func(typ btf.Type) (btf.Type, error) { return t.copier.copyFull(typ, false) }
			if x.Kind == ExternKfunc {
				copied = t.copier.copyKfunc
			}
			if typ, err = copied(x.Type); err != nil {
				return fmt.Errorf("extern %s: its type: %w", x.Name, err)
			}
		}
		info := btf.VarSecinfo{}
		if fn, ok := typ.(*btf.Func); ok && x.Kind == ExternKfunc {
			info.Type = &btf.Func{Name: x.Name, Type: fn.Type, Linkage: btf.ExternFunc, Tags: fn.Tags, ParamTags: fn.ParamTags}
		} else {
			if _, void := typ.(*btf.Void); !void {
				var err error
				if size, err = btf.Sizeof(typ); err != nil {
					return fmt.Errorf("extern %s: its type has no size: %w", x.Name, err)
				}
			}
			info.Type = &btf.Var{Name: x.Name, Type: typ, Linkage: btf.ExternVar}
		}
		info.Size = uint32(size)
		ds := ksyms
		if x.Kind == ExternKconfig {
			ds = kconfig
		}
		ds.Vars = append(ds.Vars, info)
	}
	for _, ds := range []*btf.Datasec{ksyms, kconfig} {
		if err := add(ds); err != nil {
			return fmt.Errorf("externs: %w", err)
		}
	}
	return nil
}

// mapType returns the struct that defines m.
func (t *typeSection) mapType(m *Map) (btf.Type, error) {
	fields, err := mapFields(m)
	if err != nil {
		return nil, err
	}
	def := &btf.Struct{Size: uint32(8 * len(fields))}
	for i, f := range fields {
		member := btf.Member{Name: f.name, Offset: btf.Bits(64 * i)}
		switch {
		case f.name == "values":
			var elem btf.Type
			if m.Inner != nil {
				if m.Inner.hasValues() || m.Inner.Pinned {
					return nil, errors.New("its inner map has values or is pinned, which no loader allows")
				}
				var err error
				if elem, err = t.mapType(m.Inner); err != nil {
					return nil, fmt.Errorf("inner map: %w", err)
				}
			} else {
				elem = t.copier.intern(&btf.FuncProto{Return: &btf.Void{}})
			}
			// An array without elements, whatever its initial ones are.
			member.Type = t.copier.intern(&btf.Array{Index: t.index, Type: t.pointer(elem)})
			def.Size -= 8
		case f.typ != nil:
			typ, err := t.copier.copyFull(f.typ, false)
			if err != nil {
				return nil, fmt.Errorf("type of its %s: %w", f.name, err)
			}
			member.Type = t.pointer(typ)
		case f.number > math.MaxUint32:
			// libbpf's macro __ulong, which libbpf 1.2 is the first to know.
			member.Type = t.copier.intern(&btf.Enum{Size: 8, Values: []btf.EnumValue{{Name: "__unique_value_" + f.name, Value: f.number}}})
		default:
			// The kernel refuses arrays of 4 GiB and more.
			elem := t.int
			if f.number > math.MaxUint32/4 {
				elem = t.copier.intern(&btf.Int{Name: "char", Size: 1, Encoding: btf.Signed})
			}
			member.Type = t.pointer(t.copier.intern(&btf.Array{Index: t.index, Type: elem, Nelems: uint32(f.number)}))
		}
		def.Members = append(def.Members, member)
	}
	return t.copier.intern(def), nil
}

func (t *typeSection) pointer(to btf.Type) btf.Type {
	return t.copier.intern(&btf.Pointer{Target: to})
}

// A coreRecord is struct bpf_core_relo before its string has an offset.
type coreRecord struct {
	slot   int
	typ    btf.TypeID
	access string
	kind   COREKind
}

// addCORE adds the types of CO-RE relocations, the last types to be added.
func (t *typeSection) addCORE(funcs []*Func) (map[*Func][]coreRecord, error) {
	each := func(do func(f *Func, r *CORE) error) error {
		for _, f := range funcs {
			for i := range f.CORE {
				if err := do(f, &f.CORE[i]); err != nil {
					return fmt.Errorf("function %s: instruction %d: %w", f.Name, f.CORE[i].Insn, err)
				}
			}
		}
		return nil
	}
	if err := each(func(f *Func, r *CORE) error {
		if r.Insn < 0 || r.Insn >= len(f.Insns) {
			return fmt.Errorf("there are only %d instructions", len(f.Insns))
		}
		if r.isWhole() {
			_, err := t.copier.copyFull(r.Type, false)
			return err
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if err := each(func(_ *Func, r *CORE) error { return t.copier.use(r) }); err != nil {
		return nil, err
	}
	records := make(map[*Func][]coreRecord)
	slots := make(map[*Func][]int)
	err := each(func(f *Func, r *CORE) error {
		typ, access, err := t.copier.relocate(r)
		if err != nil {
			return err
		}
		id, err := t.builder.Add(typ)
		if err != nil {
			return err
		}
		if slots[f] == nil {
			slots[f] = slotOffsets(f.Insns)
		}
		records[f] = append(records[f], coreRecord{slots[f][r.Insn], id, access, r.Kind})
		return nil
	})
	return records, err
}

// Limits of struct bpf_line_info.
const (
	maxRow = 1<<22 - 1
	maxCol = 1<<10 - 1
)

// extInfo returns .BTF.ext: func_info, line_info and core_relo by section,
// offsets in bytes from the section's start. It is nil without functions.
//
// Loaders disagree on what empty parts look like (libbpf: length 0 or it drops
// everything, cilium/ebpf: at least a record size), so every function has a
// type and a line, as the kernel wants it where there are any at all.
func (e *writer) extInfo(types map[*Func]btf.TypeID, relos map[*Func][]coreRecord) ([]byte, error) {
	if len(e.o.Funcs) == 0 {
		return nil, nil
	}
	u32 := func(b []byte, values ...uint32) []byte {
		for _, v := range values {
			b = e.order.AppendUint32(b, v)
		}
		return b
	}
	funcInfo, lineInfo, coreInfo := u32(nil, 8), u32(nil, 16), u32(nil, 16)
	for _, s := range e.sections {
		if len(s.funcs) == 0 {
			continue
		}
		var funcs, lines, cores []byte
		for _, f := range s.funcs {
			base := uint32(e.symbols[f].value)
			funcs = u32(funcs, base, uint32(types[f]))
			records, err := lineRecords(f)
			if err != nil {
				return nil, fmt.Errorf("function %s: %w", f.Name, err)
			}
			for _, l := range records {
				lines = u32(lines, base+uint32(l.slot*isa.SlotSize), e.types.strings.add(l.File),
					e.types.strings.add(l.Text), uint32(clamp(l.Row, maxRow)<<10|clamp(l.Col, maxCol)))
			}
			slices.SortFunc(relos[f], func(a, b coreRecord) int { return a.slot - b.slot })
			last := -1
			for _, r := range relos[f] {
				if r.slot == last {
					return nil, fmt.Errorf("function %s: an instruction has two CO-RE relocations", f.Name)
				}
				last = r.slot
				cores = u32(cores, base+uint32(r.slot*isa.SlotSize), uint32(r.typ), e.types.strings.add(r.access), uint32(r.kind))
			}
		}
		name := e.types.strings.add(s.name)
		funcInfo = append(u32(funcInfo, name, uint32(len(funcs)/8)), funcs...)
		lineInfo = append(u32(lineInfo, name, uint32(len(lines)/16)), lines...)
		if len(cores) > 0 {
			coreInfo = append(u32(coreInfo, name, uint32(len(cores)/16)), cores...)
		}
	}
	if len(coreInfo) == 4 {
		coreInfo = nil
	}
	const headerSize = 32
	out := e.order.AppendUint16(nil, 0xeb9f)
	out = append(out, 1, 0)
	out = u32(out, headerSize,
		0, uint32(len(funcInfo)),
		uint32(len(funcInfo)), uint32(len(lineInfo)),
		uint32(len(funcInfo)+len(lineInfo)), uint32(len(coreInfo)))
	return append(append(append(out, funcInfo...), lineInfo...), coreInfo...), nil
}

func clamp(n, most int) int { return max(0, min(n, most)) }

type lineRecord struct {
	slot int
	Place
}

// lineRecords returns the lines of f without repetitions. There is always one
// for the first instruction.
func lineRecords(f *Func) ([]lineRecord, error) {
	slots := slotOffsets(f.Insns)
	var all []lineRecord
	last := 0
	for _, l := range f.Lines {
		if l.Insn < last || l.Insn >= len(f.Insns) {
			return nil, fmt.Errorf("line of instruction %d of %d is out of order or range", l.Insn, len(f.Insns))
		}
		if l.Insn == last && len(all) > 0 {
			all = all[:len(all)-1] // the last word on an instruction counts
		}
		last = l.Insn
		all = append(all, lineRecord{slots[l.Insn], l.Where()})
	}
	if len(all) == 0 {
		return []lineRecord{{}}, nil
	}
	all[0].slot = 0
	return slices.CompactFunc(all, func(a, b lineRecord) bool { return a.Place == b.Place }), nil
}
