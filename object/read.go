package object

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
)

// Read reads an object: one of ours, or one that clang or libbpf's linker
// made. What it returns shares memory with itself only, never with r.
//
// The file may be hostile. An error says what is wrong with it and, where that
// helps, what to do; the size of what is read is bounded by [MaxFileSize].
func Read(r io.ReaderAt) (*Object, error) {
	data, err := readAll(r)
	if err != nil {
		return nil, fmt.Errorf("cannot read BPF object: %w", err)
	}
	return Unmarshal(data)
}

// Unmarshal is [Read] from memory. The object keeps parts of data.
func Unmarshal(data []byte) (*Object, error) {
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("cannot read BPF object: the file is larger than %d MiB", MaxFileSize>>20)
	}
	file, err := parseELF(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read BPF object: %w", err)
	}
	r := &reader{
		file:   file,
		o:      &Object{Big: isBig(file.order)},
		code:   make(map[string]*codeSection),
		bySec:  make(map[int]*codeSection),
		vars:   make(map[int][]placedVar),
		extern: make(map[string]*Extern),
		copier: newTypeCopier(),
	}
	if err := r.read(); err != nil {
		return nil, fmt.Errorf("cannot read BPF object: %w", err)
	}
	return r.o, nil
}

func isBig(order binary.ByteOrder) bool { return order.Uint16([]byte{0, 1}) == 1 }

type reader struct {
	file   *elfFile
	o      *Object
	types  *readTypes // nil without .BTF
	code   map[string]*codeSection
	bySec  map[int]*codeSection
	maps   []placedMap // by offset in .maps
	vars   map[int][]placedVar
	extern map[string]*Extern
	copier *typeCopier // for alignments
}

// A codeSection is a section with functions, in order of their offsets.
type codeSection struct {
	name  string
	funcs []*placedFunc
}

type placedFunc struct {
	*Func
	offset int   // bytes from the start of the section
	index  []int // of the instruction at a slot, -1 for the second slot of one
}

type placedMap struct {
	*Map
	offset, size uint64
	values       int64 // offset of the elements from the start of the map, or -1
}

type placedVar struct {
	*Var
	offset, size uint64
}

func (r *reader) read() error {
	steps := []func() error{
		r.readTypes, r.readLicense, r.readFuncs, r.readMaps, r.readVars, r.readExterns,
		r.resolveCode, r.resolveData, r.readExt, r.readManifest,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// find returns the only section of that name, or nil.
func (r *reader) find(name string) (*elfSection, int, error) {
	var found *elfSection
	index := 0
	for i := range r.file.sections {
		if s := &r.file.sections[i]; s.name == name && s.typ == elf.SHT_PROGBITS {
			if found != nil {
				return nil, 0, fmt.Errorf("there are two sections %s", name)
			}
			found, index = s, i
		}
	}
	return found, index, nil
}

func (r *reader) readLicense() error {
	s, _, err := r.find(sectionLicense)
	if s == nil {
		return err
	}
	text, _, _ := bytes.Cut(s.data, []byte{0})
	r.o.License = string(text)
	return nil
}

func (r *reader) readFuncs() error {
	for i := range r.file.sections {
		s := &r.file.sections[i]
		if !s.isCode() {
			continue
		}
		if r.code[s.name] != nil {
			return fmt.Errorf("there are two sections %s", s.name)
		}
		c := &codeSection{name: s.name}
		r.code[s.name], r.bySec[i] = c, c
	}
	bySec := make(map[int][]elfSymbol)
	for _, sym := range r.file.symbols {
		isFunc := sym.typ == elf.STT_FUNC || sym.typ == elf.STT_NOTYPE && sym.bind != elf.STB_LOCAL
		if r.bySec[sym.section] != nil && isFunc && sym.name != "" {
			bySec[sym.section] = append(bySec[sym.section], sym)
		}
	}
	for i := range r.file.sections {
		if c := r.bySec[i]; c != nil {
			if err := r.readSectionFuncs(c, &r.file.sections[i], bySec[i]); err != nil {
				return fmt.Errorf("section %s: %w", c.name, err)
			}
		}
	}
	return nil
}

func (r *reader) readSectionFuncs(c *codeSection, s *elfSection, symbols []elfSymbol) error {
	if len(symbols) == 0 {
		return errors.New("it has code, but no function is named in the symbol table: was it stripped?")
	}
	// Of several names for one place the global one counts.
	slices.SortStableFunc(symbols, func(a, b elfSymbol) int {
		return cmp.Or(cmp.Compare(a.value, b.value), -cmp.Compare(a.bind, b.bind))
	})
	symbols = slices.CompactFunc(symbols, func(a, b elfSymbol) bool { return a.value == b.value })
	for i, sym := range symbols {
		end := s.size
		if i+1 < len(symbols) {
			end = symbols[i+1].value
		}
		switch {
		case sym.size == 0:
			sym.size = end - sym.value // assembled by hand
		case sym.value+sym.size > end:
			return fmt.Errorf("functions %s and %s overlap", sym.name, symbols[i+1].name)
		}
		if sym.value%isa.SlotSize != 0 || sym.size%isa.SlotSize != 0 || sym.size == 0 {
			return fmt.Errorf("function %s at offset %d with %d bytes does not consist of instructions", sym.name, sym.value, sym.size)
		}
		insns, err := isa.Decode(s.data[sym.value:sym.value+sym.size], r.file.order)
		if err != nil {
			return fmt.Errorf("function %s: %w", sym.name, err)
		}
		f := &Func{Name: sym.name, Insns: insns, Weak: sym.bind == elf.STB_WEAK}
		if c.name == sectionText {
			// A hidden function is global to who links it, and static to the
			// verifier: libbpf's helpers in headers rely on that.
			f.Global = sym.bind != elf.STB_LOCAL && !sym.hidden
			f.Weak = f.Weak && !sym.hidden
		} else {
			f.Section, f.Global = c.name, true
		}
		p := &placedFunc{Func: f, offset: int(sym.value), index: make([]int, sym.size/isa.SlotSize)}
		slot := 0
		for n, ins := range insns {
			p.index[slot] = n
			if ins.IsWide() {
				p.index[slot+1] = -1
			}
			slot += ins.Size()
		}
		c.funcs = append(c.funcs, p)
		r.o.Funcs = append(r.o.Funcs, f)
	}
	return nil
}

// at returns the function that holds offset and the index of the instruction
// there. f is nil when offset is in no function.
func (c *codeSection) at(offset uint64) (f *placedFunc, insn int, err error) {
	i := sort.Search(len(c.funcs), func(i int) bool { return uint64(c.funcs[i].offset) > offset }) - 1
	if i < 0 {
		return nil, 0, nil
	}
	f = c.funcs[i]
	n := offset - uint64(f.offset)
	if n >= uint64(len(f.index)*isa.SlotSize) {
		return nil, 0, nil
	}
	if n%isa.SlotSize != 0 || f.index[n/isa.SlotSize] < 0 {
		return nil, 0, fmt.Errorf("offset %d is in the middle of an instruction of %s", offset, f.Name)
	}
	return f, f.index[n/isa.SlotSize], nil
}

// start returns the function that begins at offset, or nil.
func (c *codeSection) start(offset uint64) *placedFunc {
	if f, insn, err := c.at(offset); err == nil && f != nil && insn == 0 {
		return f
	}
	return nil
}

func (r *reader) readVars() error {
	bySec := make(map[int][]elfSymbol)
	for _, sym := range r.file.symbols {
		if sym.section == 0 || sym.size == 0 || sym.name == "" || sym.typ != elf.STT_OBJECT && sym.typ != elf.STT_NOTYPE {
			continue
		}
		bySec[sym.section] = append(bySec[sym.section], sym)
	}
	refs := r.sectionRefs()
	seen := make(map[string]bool)
	for i := range r.file.sections {
		s := &r.file.sections[i]
		if !isDataSection(s.name) || s.size == 0 || s.typ != elf.SHT_PROGBITS && s.typ != elf.SHT_NOBITS {
			continue
		}
		if seen[s.name] {
			return fmt.Errorf("there are two sections %s", s.name)
		}
		if seen[s.name] = true; (s.typ == elf.SHT_NOBITS) != (s.name == ".bss") {
			return fmt.Errorf("section %s is of type %v", s.name, s.typ)
		}
		if err := r.readSectionVars(i, bySec[i], refs[i]); err != nil {
			return fmt.Errorf("section %s: %w", s.name, err)
		}
	}
	return nil
}

// sectionRefs returns the offsets of data sections that code refers to without
// the name of a variable.
func (r *reader) sectionRefs() map[int][]uint64 {
	refs := make(map[int][]uint64)
	for i := range r.file.sections {
		s := &r.file.sections[i]
		if !s.isCode() {
			continue
		}
		for _, rel := range s.relocs {
			sym := r.file.symbols[rel.symbol]
			if sym.section != 0 && rel.offset+isa.SlotSize <= s.size {
				imm := r.file.order.Uint32(s.data[rel.offset+4:])
				refs[sym.section] = append(refs[sym.section], sym.value+uint64(imm))
			}
		}
	}
	for _, list := range refs {
		slices.Sort(list)
	}
	return refs
}

// readSectionVars turns a section into variables that, laid out again, have
// the same offsets. What has no name becomes a static variable without a type
// when code refers to it or it is not zero.
func (r *reader) readSectionVars(index int, symbols []elfSymbol, refs []uint64) error {
	s := &r.file.sections[index]
	slices.SortStableFunc(symbols, func(a, b elfSymbol) int {
		return cmp.Or(cmp.Compare(a.value, b.value), -cmp.Compare(a.bind, b.bind))
	})
	types, err := r.types.datasec(s.name)
	if err != nil {
		return err
	}
	add := func(v *Var, off, size uint64) {
		v.Section = s.name
		if s.data != nil {
			v.Init = s.data[off : off+size : off+size]
		} else if v.Type == nil {
			v.Init = make([]byte, size)
		}
		r.o.Vars = append(r.o.Vars, v)
		r.vars[index] = append(r.vars[index], placedVar{v, off, size})
	}
	end := uint64(0)
	fill := func(to uint64) {
		add(&Var{Name: fmt.Sprintf("%s.%x", s.name, end), Align: 1, Static: true}, end, to-end)
		end = to
	}
	matters := func(to uint64) bool {
		if s.data != nil && len(bytes.Trim(s.data[end:to], "\x00")) > 0 {
			return true
		}
		i, _ := slices.BinarySearch(refs, end)
		return i < len(refs) && refs[i] < to && refs[i] >= end && end < to
	}
	for _, sym := range symbols {
		if sym.value < end {
			continue // another name for a part of the variable before
		}
		v := &Var{Name: sym.name, Static: sym.bind == elf.STB_LOCAL}
		if info, ok := types[sym.name]; ok {
			if n, err := btf.Sizeof(info); err == nil && uint64(n) == sym.size {
				v.Type = info
			}
		}
		align := uint64(8)
		if v.Type != nil {
			align = uint64(r.copier.alignOf(v.Type))
		} else {
			align = uint64(alignFor(int(sym.size)))
		}
		if sym.value%align != 0 {
			for align = 4; sym.value%align != 0; align /= 2 {
			}
			v.Align = int(align)
		}
		if (end+align-1)&^(align-1) != sym.value || matters(sym.value) {
			if end < sym.value {
				fill(sym.value)
			}
		}
		add(v, sym.value, sym.size)
		end = sym.value + sym.size
	}
	if end < s.size {
		fill(s.size)
	}
	return nil
}

func (r *reader) readExterns() error {
	for _, sec := range []string{sectionKsyms, sectionKconfig} {
		types, err := r.types.datasec(sec)
		if err != nil {
			return err
		}
		for name, t := range types {
			x := &Extern{Name: name, Type: t}
			switch underlying(t).(type) {
			case *btf.Func:
				x.Kind = ExternKfunc
			case *btf.Void:
				x.Type = nil // also of const void
			}
			if sec == sectionKconfig {
				if x.Kind == ExternKfunc || x.Type == nil {
					return fmt.Errorf("configuration value %s has no type", name)
				}
				x.Kind = ExternKconfig
			}
			r.extern[name] = x
		}
	}
	seen := make(map[*Extern]bool)
	for _, sym := range r.file.symbols {
		if sym.section != 0 || sym.absent || sym.bind == elf.STB_LOCAL || sym.typ != elf.STT_NOTYPE {
			continue
		}
		if x := r.extern[sym.name]; x != nil && !seen[x] {
			seen[x] = true
			x.Weak = sym.bind == elf.STB_WEAK
			r.o.Externs = append(r.o.Externs, x)
		}
	}
	return nil
}

// resolveCode turns the relocations of code into references, and calls by
// distance too.
func (r *reader) resolveCode() error {
	for i := range r.file.sections {
		c := r.bySec[i]
		if c == nil {
			continue
		}
		for _, rel := range r.file.sections[i].relocs {
			f, insn, err := c.at(rel.offset)
			if err != nil {
				return fmt.Errorf("section %s: relocation: %w", c.name, err)
			}
			if f == nil {
				continue // in code that belongs to no function
			}
			ref, err := r.resolve(&f.Insns[insn], r.file.symbols[rel.symbol])
			if err != nil {
				return fmt.Errorf("function %s: instruction %d: %w", f.Name, insn, err)
			}
			ref.Insn = insn
			f.Relocs = append(f.Relocs, ref)
		}
		for _, f := range c.funcs {
			slices.SortStableFunc(f.Relocs, func(a, b Reloc) int { return a.Insn - b.Insn })
			for n := 1; n < len(f.Relocs); n++ {
				if f.Relocs[n].Insn == f.Relocs[n-1].Insn {
					return fmt.Errorf("function %s: instruction %d has two relocations", f.Name, f.Relocs[n].Insn)
				}
			}
			if err := c.resolveCalls(f); err != nil {
				return fmt.Errorf("function %s: %w", f.Name, err)
			}
		}
	}
	return nil
}

// resolveCalls finds the functions that f calls by their distance, as clang
// writes calls within .text.
func (c *codeSection) resolveCalls(f *placedFunc) error {
	known := f.Relocs
	added := false
	for slot, n := range f.index {
		if n < 0 {
			continue
		}
		for len(known) > 0 && known[0].Insn < n {
			known = known[1:]
		}
		ins := &f.Insns[n]
		if !ins.IsCall() || ins.Src != isa.CallPseudo || len(known) > 0 && known[0].Insn == n {
			continue
		}
		to := c.start(uint64(int64(f.offset) + (int64(slot)+1+ins.Imm)*isa.SlotSize))
		if to == nil {
			return fmt.Errorf("instruction %d calls a place where no function begins", n)
		}
		*ins = isa.CallLocal(0)
		f.Relocs = append(f.Relocs, Reloc{Insn: n, Kind: RelocCall, Symbol: to.Func})
		added = true
	}
	if added {
		slices.SortFunc(f.Relocs, func(a, b Reloc) int { return a.Insn - b.Insn })
	}
	return nil
}

// resolve returns what ins refers to by sym, and gives ins the form that goes
// with it.
func (r *reader) resolve(ins *isa.Instruction, sym elfSymbol) (Reloc, error) {
	isCall := ins.IsCall() && (ins.Src == isa.CallPseudo || ins.Src == isa.CallKernel)
	if !isCall && !ins.IsWide() {
		return Reloc{}, fmt.Errorf("%v cannot refer to %s", *ins, r.describe(sym))
	}
	if sym.section == 0 {
		return r.resolveExtern(ins, sym)
	}
	s := &r.file.sections[sym.section]
	if c := r.bySec[sym.section]; c != nil {
		offset, kind, form := sym.value+uint64(ins.Low()), RelocFuncAddr, isa.LoadFunc(ins.Dst, 0)
		if isCall {
			offset, kind, form = sym.value+uint64((ins.Imm+1)*isa.SlotSize), RelocCall, isa.CallLocal(0)
		}
		to := c.start(offset)
		if to == nil {
			return Reloc{}, fmt.Errorf("it refers to offset %d of section %s, where no function begins", int64(offset), c.name)
		}
		*ins = form
		return Reloc{Kind: kind, Symbol: to.Func}, nil
	}
	switch {
	case isCall:
	case s.name == sectionMaps:
		if m := r.mapAt(sym.value + uint64(ins.Low())); m != nil {
			*ins = isa.LoadMapFD(ins.Dst, 0)
			return Reloc{Kind: RelocMap, Symbol: m}, nil
		}
		return Reloc{}, fmt.Errorf("it refers to %s, where no map is", r.describe(sym))
	case r.vars[sym.section] != nil:
		offset := sym.value + uint64(uint32(ins.Low()))
		v, ok := varAt(r.vars[sym.section], offset)
		if !ok {
			return Reloc{}, fmt.Errorf("it refers to offset %d of section %s, which has %d bytes", offset, s.name, s.size)
		}
		*ins = isa.LoadMapValue(ins.Dst, 0, uint32(offset-v.offset))
		return Reloc{Kind: RelocVar, Symbol: v.Var}, nil
	case s.name == "maps":
		return Reloc{}, fmt.Errorf("map %s is defined in section maps, which libbpf 1.0 gave up: define it in SEC(\".maps\") with BTF", sym.name)
	}
	return Reloc{}, fmt.Errorf("it refers to %s, which holds neither functions, maps nor variables", r.describe(sym))
}

// varAt returns the variable that holds offset, or that ends there when no
// other begins there.
func varAt(vars []placedVar, offset uint64) (placedVar, bool) {
	i := sort.Search(len(vars), func(i int) bool { return vars[i].offset > offset }) - 1
	if i < 0 || offset-vars[i].offset > vars[i].size {
		return placedVar{}, false
	}
	return vars[i], true
}

func (r *reader) describe(sym elfSymbol) string {
	switch {
	case sym.section == 0:
		return fmt.Sprintf("the undefined symbol %q", sym.name)
	case sym.typ == elf.STT_SECTION || sym.name == "":
		return "section " + r.file.sections[sym.section].name
	}
	return fmt.Sprintf("%s in section %s", sym.name, r.file.sections[sym.section].name)
}

func (r *reader) resolveExtern(ins *isa.Instruction, sym elfSymbol) (Reloc, error) {
	x := r.extern[sym.name]
	if x == nil || sym.absent {
		return Reloc{}, fmt.Errorf("it refers to %s: link the object that defines it with `bpftool gen object`, or declare it with __ksym or __kconfig", r.describe(sym))
	}
	if ins.IsCall() {
		if x.Kind != ExternKfunc {
			return Reloc{}, fmt.Errorf("it calls %s, which is no function", x.Name)
		}
		*ins = isa.CallKfunc(0, 0)
	} else {
		if ins.Imm != 0 {
			return Reloc{}, fmt.Errorf("it refers to a place inside of %s, which no loader allows", x.Name)
		}
		*ins = isa.LoadImm64(ins.Dst, 0)
	}
	return Reloc{Kind: RelocExtern, Symbol: x}, nil
}

// resolveData reads the elements that maps and struct_ops begin with.
func (r *reader) resolveData() error {
	for i := range r.file.sections {
		s := &r.file.sections[i]
		switch {
		case len(s.relocs) == 0:
		case s.name == sectionMaps:
			if err := r.resolveMapValues(s); err != nil {
				return err
			}
		case isStructOps(s.name):
			for _, rel := range s.relocs {
				sym := r.file.symbols[rel.symbol]
				c := r.bySec[sym.section]
				v, ok := varAt(r.vars[i], rel.offset)
				if !ok || c == nil || c.start(sym.value) == nil || rel.offset-v.offset+8 > v.size {
					return fmt.Errorf("section %s: the pointer at offset %d leads to %s, which is no function", s.name, rel.offset, r.describe(sym))
				}
				v.Pointers = append(v.Pointers, Pointer{int(rel.offset - v.offset), c.start(sym.value).Func})
			}
		case isDataSection(s.name):
			return fmt.Errorf("section %s has variables that hold addresses, which no loader of BPF can fill in", s.name)
		}
	}
	return nil
}

func (r *reader) readManifest() error {
	s, _, err := r.find(ManifestSection)
	if s == nil {
		return err
	}
	m, err := ParseManifest(s.data)
	if err != nil {
		return err
	}
	if err := m.Check(r.o); err != nil {
		return err
	}
	r.o.Manifest = m
	if probe := (&Object{Arch: m.Target.Arch}); m.Target.Arch != "" && isBig(probe.byteOrder()) != r.o.Big {
		return fmt.Errorf("the manifest says that the object is for %s, whose byte order is not the file's", m.Target.Arch)
	}
	r.o.Arch = m.Target.Arch
	r.findSpans()
	return nil
}
