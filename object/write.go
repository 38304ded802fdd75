package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
)

// Names of sections with a meaning of their own (libbpf's docs, and
// Documentation/bpf/btf.rst of the kernel for the BTF ones).
const (
	sectionText    = ".text"
	sectionMaps    = ".maps"
	sectionLicense = "license"
	sectionBTF     = ".BTF"
	sectionBTFExt  = ".BTF.ext"
	sectionKsyms   = ".ksyms"
	sectionKconfig = ".kconfig"
)

// Types of relocations (llvm's docs, BPF ELF relocations).
const (
	relBPF64_64    = 1  // R_BPF_64_64: lddw
	relBPF64_ABS64 = 2  // R_BPF_64_ABS64: 8 bytes of data
	relBPF64_32    = 10 // R_BPF_64_32: call
)

// Sizes of ELF64 structures in bytes.
const (
	ehdrSize = 64
	shdrSize = 64
	symSize  = 24
	relSize  = 16
)

// Write writes o as an ELF file that libbpf, bpftool, cilium/ebpf and [Read]
// understand. Equal objects give equal bytes.
func Write(w io.Writer, o *Object) error {
	data, err := o.Marshal()
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// Marshal returns the ELF file that [Write] writes. It fails when something
// in o refers to nothing, is named twice, or cannot be expressed.
func (o *Object) Marshal() ([]byte, error) {
	e := &writer{
		o: o, order: o.byteOrder(),
		byName:  map[string]*section{"": nil},
		symbols: make(map[any]*symbol),
		defined: make(map[string]string),
		copier:  newTypeCopier(),
	}
	if err := e.build(); err != nil {
		return nil, fmt.Errorf("cannot write BPF object: %w", err)
	}
	return e.link()
}

// A section of the file that is being written.
type section struct {
	name    string
	typ     elf.SectionType
	flags   elf.SectionFlag
	data    []byte
	size    int // of SHT_NOBITS
	align   int
	entry   int
	link    int
	info    int
	index   int
	nameOff uint32
	fileOff int
	relocs  []relocation
	vars    []*Var
	funcs   []*Func
	self    *symbol // the section's own symbol
}

type relocation struct {
	offset int
	symbol *symbol
	typ    uint32
}

type symbol struct {
	name    string
	section *section // nil: undefined
	value   int
	size    int
	typ     elf.SymType
	bind    elf.SymBind
	index   int
}

type writer struct {
	o        *Object
	order    byteOrder
	sections []*section
	byName   map[string]*section
	symbols  map[any]*symbol // of *Func, *Map, *Var, *Extern
	list     []*symbol
	defined  map[string]string // what has the name
	funcs    []*Func           // by section
	copier   *typeCopier
	types    *typeSection
}

func (e *writer) section(name string, typ elf.SectionType, flags elf.SectionFlag, align int) *section {
	if s := e.byName[name]; s != nil {
		return s
	}
	s := &section{name: name, typ: typ, flags: flags, align: align}
	e.byName[name] = s
	e.sections = append(e.sections, s)
	return s
}

func (e *writer) symbol(key any, s *symbol) *symbol {
	if key != nil {
		e.symbols[key] = s
	}
	e.list = append(e.list, s)
	return s
}

// sectionSymbol returns the symbol of s itself.
func (e *writer) sectionSymbol(s *section) *symbol {
	if s.self == nil {
		s.self = e.symbol(nil, &symbol{section: s, typ: elf.STT_SECTION, bind: elf.STB_LOCAL})
	}
	return s.self
}

const staticVariable = "static variable"

// define makes sure that a name can be one and is given once.
func (e *writer) define(what, name string) error {
	if !isName(name) || what == "function" && strings.ContainsRune(name, '.') {
		return fmt.Errorf("%s %q: a name consists of letters, digits and _, for all but functions also of ., and begins with no digit", what, name)
	}
	if what == staticVariable {
		return nil // as many as there are functions with one
	}
	if other, ok := e.defined[name]; ok {
		return fmt.Errorf("%s %q: a %s has that name already", what, name, other)
	}
	e.defined[name] = what
	return nil
}

// isName reports whether the kernel takes name as one of a type or a variable
// (btf_name_valid_identifier in kernel/bpf/btf.c).
func isName(name string) bool {
	if name == "" || len(name) > 511 {
		return false
	}
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '.':
		case c >= '0' && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return true
}

func (e *writer) build() error {
	if err := e.placeFuncs(); err != nil {
		return err
	}
	if err := e.placeLicense(); err != nil {
		return err
	}
	if err := e.placeMaps(); err != nil {
		return err
	}
	if err := e.placeVars(); err != nil {
		return err
	}
	if err := e.placeExterns(); err != nil {
		return err
	}
	for _, s := range e.sections {
		for _, f := range s.funcs {
			if err := e.encode(s, f); err != nil {
				return fmt.Errorf("function %s: %w", f.Name, err)
			}
		}
	}
	if err := e.fillMaps(); err != nil {
		return err
	}
	if err := e.placeTypes(); err != nil {
		return err
	}
	return e.placeManifest()
}

const (
	flagsCode = elf.SHF_ALLOC | elf.SHF_EXECINSTR
	flagsData = elf.SHF_ALLOC | elf.SHF_WRITE
)

func (e *writer) placeFuncs() error {
	// Compilers put .text first, whether or not it is empty.
	e.section(sectionText, elf.SHT_PROGBITS, flagsCode, isa.SlotSize)
	e.funcs = bySection(e.o.Funcs, func(f *Func) string { return f.Section })
	for _, f := range e.funcs {
		if err := e.define("function", f.Name); err != nil {
			return err
		}
		if len(f.Insns) == 0 {
			return fmt.Errorf("function %s has no instructions", f.Name)
		}
		name := f.Section
		if name == "" {
			name = sectionText
			if f.Global && f.Type == nil {
				return fmt.Errorf("function %s is global and has no type, which it is verified by", f.Name)
			}
		} else if isReserved(name) || strings.ContainsRune(name, 0) {
			return fmt.Errorf("function %s: section %q is not one for programs", f.Name, name)
		}
		s := e.section(name, elf.SHT_PROGBITS, flagsCode, isa.SlotSize)
		size := isa.Slots(f.Insns) * isa.SlotSize
		sym := e.symbol(f, &symbol{name: f.Name, section: s, value: s.size, size: size, typ: elf.STT_FUNC, bind: elf.STB_GLOBAL})
		switch {
		case f.Weak:
			sym.bind = elf.STB_WEAK
		case f.Section == "" && !f.Global:
			sym.bind = elf.STB_LOCAL
		}
		s.funcs = append(s.funcs, f)
		s.size += size
	}
	return nil
}

// bySection returns list with what is of one section together, the nameless
// one first and the others as they come.
func bySection[T any](list []T, section func(T) string) []T {
	rank := map[string]int{"": 0}
	for _, x := range list {
		if _, ok := rank[section(x)]; !ok {
			rank[section(x)] = len(rank)
		}
	}
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b T) int { return rank[section(a)] - rank[section(b)] })
	return out
}

// isReserved reports whether loaders see something else than programs in
// sections of that name.
func isReserved(name string) bool {
	switch name {
	case sectionMaps, sectionLicense, sectionBTF, sectionBTFExt, sectionKsyms, sectionKconfig,
		ManifestSection, sectionText, "version", "maps", ".symtab", ".strtab":
		return true
	}
	return isDataSection(name) || strings.HasPrefix(name, ".rel")
}

// isDataSection reports whether a section of that name holds variables.
func isDataSection(name string) bool {
	base, _, _ := strings.Cut(strings.TrimPrefix(name, "."), ".")
	return strings.HasPrefix(name, ".") && (base == "data" || base == "rodata" || name == ".bss" || isStructOps(name))
}

func isStructOps(name string) bool { return name == ".struct_ops" || name == ".struct_ops.link" }

func (e *writer) placeLicense() error {
	if e.o.License == "" {
		return nil
	}
	if strings.ContainsRune(e.o.License, 0) {
		return errors.New("the license contains a zero byte")
	}
	s := e.section(sectionLicense, elf.SHT_PROGBITS, flagsData, 1)
	s.data = append([]byte(e.o.License), 0)
	return nil
}

func (e *writer) placeMaps() error {
	if len(e.o.Maps) == 0 {
		return nil
	}
	s := e.section(sectionMaps, elf.SHT_PROGBITS, flagsData, 8)
	for _, m := range e.o.Maps {
		if err := e.define("map", m.Name); err != nil {
			return err
		}
		def, err := mapFields(m)
		if err != nil {
			return fmt.Errorf("map %s: %w", m.Name, err)
		}
		size := 8 * (len(def) + len(m.Values))
		if m.hasValues() {
			size -= 8 // "values" has elements in place of a pointer
		}
		e.symbol(m, &symbol{name: m.Name, section: s, value: len(s.data), size: size, typ: elf.STT_OBJECT, bind: elf.STB_GLOBAL})
		s.data = append(s.data, make([]byte, size)...)
	}
	return nil
}

// fillMaps relocates the initial elements of maps of maps and program arrays.
func (e *writer) fillMaps() error {
	for _, m := range e.o.Maps {
		sym := e.symbols[m]
		for i, v := range m.Values {
			if v == nil {
				continue
			}
			to := e.symbols[v]
			if to == nil {
				return fmt.Errorf("map %s: element %d is not of this object", m.Name, i)
			}
			_, isFunc := v.(*Func)
			_, isMap := v.(*Map)
			if isFunc == (m.Inner != nil) || isMap == (m.Inner == nil) {
				return fmt.Errorf("map %s: element %d is a %T, which the map cannot hold", m.Name, i, v)
			}
			offset := sym.value + sym.size - 8*(len(m.Values)-i)
			sym.section.relocs = append(sym.section.relocs, relocation{offset, to, relBPF64_ABS64})
		}
	}
	return nil
}

func (e *writer) placeVars() error {
	for _, v := range bySection(e.o.Vars, func(v *Var) string { return v.Section }) {
		what := "variable"
		if v.Static {
			what = staticVariable
		}
		if err := e.define(what, v.Name); err != nil {
			return err
		}
		if err := e.placeVar(v); err != nil {
			return fmt.Errorf("variable %s: %w", v.Name, err)
		}
	}
	// A section's bytes are put together at last, when the order is known.
	for _, s := range e.sections {
		if len(s.vars) == 0 || s.typ == elf.SHT_NOBITS {
			continue
		}
		s.data = make([]byte, s.size)
		for _, v := range s.vars {
			sym := e.symbols[v]
			copy(s.data[sym.value:], v.Init)
			for _, p := range v.Pointers {
				to := e.symbols[p.Func]
				if p.Func == nil || to == nil || p.Offset < 0 || p.Offset > sym.size-8 || !isStructOps(s.name) {
					return fmt.Errorf("variable %s: it cannot have a pointer to a function at offset %d", v.Name, p.Offset)
				}
				s.relocs = append(s.relocs, relocation{sym.value + p.Offset, to, relBPF64_ABS64})
			}
		}
	}
	return nil
}

func (e *writer) placeVar(v *Var) error {
	if !isDataSection(v.Section) {
		return fmt.Errorf("section %q is not one for variables: .data, .rodata (both with a suffix if need be) and .bss are", v.Section)
	}
	size := v.Size()
	if v.Type != nil {
		n, err := btf.Sizeof(v.Type)
		if err != nil {
			return fmt.Errorf("its type has no size: %w", err)
		}
		if size != n {
			return fmt.Errorf("its value has %d bytes and its type %d", size, n)
		}
	}
	if size <= 0 || size > math.MaxInt32 {
		return fmt.Errorf("its size of %d bytes is out of range", size)
	}
	typ, flags := elf.SHT_PROGBITS, flagsData
	switch {
	case v.Section == ".bss":
		typ = elf.SHT_NOBITS
		if len(bytes.Trim(v.Init, "\x00")) > 0 {
			return errors.New("a value other than zero cannot be in .bss")
		}
	case strings.HasPrefix(v.Section, ".rodata"):
		flags = elf.SHF_ALLOC
	}
	s := e.section(v.Section, typ, flags, 8)
	align := v.alignment(e.copier)
	if align > 8 || align&(align-1) != 0 {
		return fmt.Errorf("its alignment is %d, must be 1, 2, 4 or 8", align)
	}
	s.size = (s.size + align - 1) &^ (align - 1)
	sym := e.symbol(v, &symbol{name: v.Name, section: s, value: s.size, size: size, typ: elf.STT_OBJECT, bind: elf.STB_GLOBAL})
	if v.Static {
		sym.bind = elf.STB_LOCAL
	}
	s.vars = append(s.vars, v)
	if s.size += size; s.size > math.MaxInt32 {
		return fmt.Errorf("section %s is too large", v.Section)
	}
	return nil
}

func (e *writer) placeExterns() error {
	for _, x := range e.o.Externs {
		if err := e.define("extern", x.Name); err != nil {
			return err
		}
		switch x.Kind {
		case ExternKsym:
		case ExternKfunc:
			if _, ok := x.Type.(*btf.Func); !ok {
				return fmt.Errorf("extern %s is a kernel function without a signature", x.Name)
			}
		case ExternKconfig:
			if x.Type == nil {
				return fmt.Errorf("extern %s is a configuration value without a type", x.Name)
			}
		default:
			return fmt.Errorf("extern %s is of unknown kind %d", x.Name, x.Kind)
		}
		sym := e.symbol(x, &symbol{name: x.Name, typ: elf.STT_NOTYPE, bind: elf.STB_GLOBAL})
		if x.Weak {
			sym.bind = elf.STB_WEAK
		}
	}
	return nil
}

// encode appends the code of f to s, with its relocations.
func (e *writer) encode(s *section, f *Func) error {
	base := len(s.data)
	insns := f.Insns
	if len(f.Relocs) > 0 {
		insns = append([]isa.Instruction(nil), insns...)
		offsets := slotOffsets(insns)
		seen := make(map[int]bool, len(f.Relocs))
		for _, r := range f.Relocs {
			if r.Insn < 0 || r.Insn >= len(insns) {
				return fmt.Errorf("relocation of instruction %d of %d", r.Insn, len(insns))
			}
			if seen[r.Insn] {
				return fmt.Errorf("instruction %d has two relocations", r.Insn)
			}
			seen[r.Insn] = true
			rel, err := e.relocate(&insns[r.Insn], r)
			if err != nil {
				return fmt.Errorf("instruction %d: %w", r.Insn, err)
			}
			rel.offset = base + offsets[r.Insn]*isa.SlotSize
			s.relocs = append(s.relocs, rel)
		}
	}
	var err error
	s.data, err = isa.Encode(s.data, e.order, insns)
	return err
}

// slotOffsets returns the slot where each instruction begins, and at last the
// slot after all of them.
func slotOffsets(insns []isa.Instruction) []int {
	offsets := make([]int, len(insns)+1)
	for i, n := range insns {
		offsets[i+1] = offsets[i] + n.Size()
	}
	return offsets
}

// relocate gives ins the form that compilers give it and returns the
// relocation that goes with it.
//
// Static functions, and places inside variables, are referred to by the
// section's symbol and an offset in the instruction: cilium/ebpf refuses
// local function symbols and does not look at the offset beside a variable.
func (e *writer) relocate(ins *isa.Instruction, r Reloc) (relocation, error) {
	sym, ok := e.symbols[r.Symbol]
	if r.Symbol == nil || !ok {
		return relocation{}, fmt.Errorf("it refers to a %T that is not of this object", r.Symbol)
	}
	kindOK := false
	switch r.Symbol.(type) {
	case *Map:
		kindOK = r.Kind == RelocMap
	case *Var:
		kindOK = r.Kind == RelocVar
	case *Func:
		kindOK = r.Kind == RelocCall || r.Kind == RelocFuncAddr
	case *Extern:
		kindOK = r.Kind == RelocExtern
	}
	if !kindOK {
		return relocation{}, fmt.Errorf("relocation of kind %d does not go with a %T", r.Kind, r.Symbol)
	}
	switch {
	case ins.IsWide() && r.Kind != RelocCall:
		to := isa.LoadImm64(ins.Dst, 0)
		switch r.Kind {
		case RelocVar:
			offset := ins.Low()
			if ins.Src == isa.PseudoMapValue {
				offset = ins.High()
			}
			if offset < 0 || int(offset) > sym.size {
				return relocation{}, fmt.Errorf("offset %d is outside of variable %s of %d bytes", offset, sym.name, sym.size)
			}
			if offset != 0 {
				to.Imm = int64(sym.value) + int64(offset)
				sym = e.sectionSymbol(sym.section)
			}
		case RelocFuncAddr:
			to.Imm = int64(sym.value)
			sym = e.sectionSymbol(sym.section)
		case RelocExtern:
			if r.Symbol.(*Extern).Kind == ExternKfunc && ins.Low() != 0 {
				return relocation{}, fmt.Errorf("offset into kernel function %s", sym.name)
			}
		}
		*ins = to
		return relocation{symbol: sym, typ: relBPF64_64}, nil
	case ins.IsCall() && (r.Kind == RelocCall || r.Kind == RelocExtern):
		if x, ok := r.Symbol.(*Extern); ok && x.Kind != ExternKfunc {
			return relocation{}, fmt.Errorf("it calls %s, which is no function", sym.name)
		}
		*ins = isa.CallLocal(-1)
		if sym.bind == elf.STB_LOCAL {
			*ins = isa.CallLocal(int32(sym.value/isa.SlotSize) - 1)
			sym = e.sectionSymbol(sym.section)
		}
		return relocation{symbol: sym, typ: relBPF64_32}, nil
	}
	return relocation{}, fmt.Errorf("%v cannot refer to %s", *ins, sym.name)
}

func (e *writer) placeManifest() error {
	if e.o.Manifest == nil {
		return nil
	}
	m := *e.o.Manifest
	m.Version = ManifestVersion
	if m.Target.Arch != e.o.Arch {
		return fmt.Errorf("the manifest is for %q, the object for %q", m.Target.Arch, e.o.Arch)
	}
	if err := m.Check(e.o); err != nil {
		return err
	}
	data, err := json.Marshal(&m)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	// Without SHF_ALLOC: no part of the program.
	s := e.section(ManifestSection, elf.SHT_PROGBITS, 0, 1)
	s.data = data
	return nil
}

// link lays out the file.
func (e *writer) link() ([]byte, error) {
	// Local symbols come first.
	symbols := []*symbol{{}}
	for _, local := range []bool{true, false} {
		for _, s := range e.list {
			if (s.bind == elf.STB_LOCAL) == local {
				s.index = len(symbols)
				symbols = append(symbols, s)
			}
		}
	}
	sections := []*section{{}}
	for _, s := range e.sections {
		s.index = len(sections)
		sections = append(sections, s)
		if len(s.relocs) == 0 {
			continue
		}
		rel := &section{
			name: ".rel" + s.name, typ: elf.SHT_REL, flags: elf.SHF_INFO_LINK,
			align: 8, entry: relSize, info: s.index, index: len(sections),
		}
		slices.SortFunc(s.relocs, func(a, b relocation) int { return a.offset - b.offset })
		for _, r := range s.relocs {
			rel.data = e.order.AppendUint64(rel.data, uint64(r.offset))
			rel.data = e.order.AppendUint64(rel.data, uint64(r.symbol.index)<<32|uint64(r.typ))
		}
		sections = append(sections, rel)
	}
	if len(sections)+2 >= int(elf.SHN_LORESERVE) {
		return nil, fmt.Errorf("cannot write BPF object: %d sections are too many", len(sections))
	}
	symtab := &section{name: ".symtab", typ: elf.SHT_SYMTAB, align: 8, entry: symSize, index: len(sections)}
	strtab := &section{name: ".strtab", typ: elf.SHT_STRTAB, align: 1, index: len(sections) + 1}
	sections = append(sections, symtab, strtab)
	symtab.link = strtab.index

	names := newStrings(nil)
	for _, s := range symbols {
		symtab.data = e.order.AppendUint32(symtab.data, names.add(s.name))
		symtab.data = append(symtab.data, elf.ST_INFO(s.bind, s.typ), 0)
		index := 0
		if s.section != nil {
			index = s.section.index
		}
		symtab.data = e.order.AppendUint16(symtab.data, uint16(index))
		symtab.data = e.order.AppendUint64(symtab.data, uint64(s.value))
		symtab.data = e.order.AppendUint64(symtab.data, uint64(s.size))
		if s.bind == elf.STB_LOCAL {
			symtab.info = s.index + 1
		}
	}
	for _, s := range sections {
		s.nameOff = names.add(s.name)
		if s.typ == elf.SHT_REL {
			s.link = symtab.index
		}
	}
	strtab.data = names.data

	out := make([]byte, ehdrSize, 4096)
	for _, s := range sections[1:] {
		out = pad(out, s.align)
		s.fileOff = len(out)
		if s.typ != elf.SHT_NOBITS {
			out = append(out, s.data...)
			s.size = len(s.data)
		}
	}
	out = pad(out, 8)
	e.header(out, len(sections), strtab.index)
	for _, s := range sections {
		out = e.order.AppendUint32(out, s.nameOff)
		out = e.order.AppendUint32(out, uint32(s.typ))
		for _, v := range []int{int(s.flags), 0, s.fileOff, s.size} {
			out = e.order.AppendUint64(out, uint64(v))
		}
		out = e.order.AppendUint32(out, uint32(s.link))
		out = e.order.AppendUint32(out, uint32(s.info))
		out = e.order.AppendUint64(out, uint64(s.align))
		out = e.order.AppendUint64(out, uint64(s.entry))
	}
	return out, nil
}

// header fills in the ELF header; the section headers follow out.
func (e *writer) header(out []byte, sections, names int) {
	copy(out, elf.ELFMAG)
	out[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	out[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	if e.order == byteOrder(binary.BigEndian) {
		out[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	out[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	e.order.PutUint16(out[16:], uint16(elf.ET_REL))
	e.order.PutUint16(out[18:], uint16(elf.EM_BPF))
	e.order.PutUint32(out[20:], uint32(elf.EV_CURRENT))
	e.order.PutUint64(out[40:], uint64(len(out))) // e_shoff
	e.order.PutUint16(out[52:], ehdrSize)
	e.order.PutUint16(out[58:], shdrSize)
	e.order.PutUint16(out[60:], uint16(sections))
	e.order.PutUint16(out[62:], uint16(names))
}

func pad(b []byte, align int) []byte {
	for len(b)%align != 0 {
		b = append(b, 0)
	}
	return b
}

// A stringTable is a table of zero-terminated strings, each kept once.
type stringTable struct {
	data    []byte
	offsets map[string]uint32
}

// newStrings returns the table with the given content.
func newStrings(data []byte) *stringTable {
	t := &stringTable{data: data, offsets: make(map[string]uint32)}
	if len(data) == 0 {
		t.data = []byte{0}
	}
	for start := 0; start < len(t.data); {
		n := bytes.IndexByte(t.data[start:], 0)
		t.offsets[string(t.data[start:start+n])] = uint32(start)
		start += n + 1
	}
	return t
}

// add returns the offset of s, which ends at its first zero byte if it has one.
func (t *stringTable) add(s string) uint32 {
	s, _, _ = strings.Cut(s, "\x00")
	if off, ok := t.offsets[s]; ok {
		return off
	}
	off := uint32(len(t.data))
	t.data = append(append(t.data, s...), 0)
	t.offsets[s] = off
	return off
}
