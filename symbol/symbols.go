package symbol

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Kind says what a symbol names.
type Kind uint8

// Kinds of symbols.
const (
	Func   Kind = iota // a function
	IFunc              // a resolver that returns the function: STT_GNU_IFUNC
	Label              // code without a type, as assembly makes it
	Object             // data
)

func (k Kind) String() string {
	return [...]string{"function", "ifunc", "label", "object"}[k&3]
}

// Binding is the visibility of a symbol to the linker.
type Binding uint8

// Bindings, the most public first.
const (
	Global Binding = iota
	Weak
	Local
)

// A Symbol is a name of an ELF file.
type Symbol struct {
	Name    string // as in the file, without its version (`@@GLIBC_2.2.5`)
	Addr    uint64 // virtual address as written in the file
	Size    uint64 // bytes; 0 when unknown
	Kind    Kind
	Binding Binding
}

// IsCode reports whether s can carry a uprobe.
func (s Symbol) IsCode() bool { return s.Kind != Object }

// Symbols is the symbol table of an ELF file: 16 bytes a symbol beside the
// file's own string tables. It is immutable and safe for concurrent use.
type Symbols struct {
	entries []entry
	strs    []byte // the string tables, one after the other, each ending in 0
	text    []span // executable sections
	limit   int    // bytes
}

type span struct{ start, end uint64 }

// entry is one symbol.
type entry struct {
	addr uint64
	name uint32 // offset in strs
	// meta is the size, cut to 28 bits, shifted by 4, then binding and kind,
	// two bits each.
	meta uint32
}

const maxEntrySize = 1<<28 - 1

func (e entry) size() uint64     { return uint64(e.meta >> 4) }
func (e entry) binding() Binding { return Binding(e.meta >> 2 & 3) }
func (e entry) kind() Kind       { return Kind(e.meta & 3) }

func (t *Symbols) nameBytes(e entry) []byte {
	b := t.strs[e.name:]
	b = b[:bytes.IndexByte(b, 0)]
	// The version follows '@'. A name cannot start with it.
	if i := bytes.IndexByte(b, '@'); i > 0 {
		b = b[:i]
	}
	return b
}

func (t *Symbols) symbol(e entry) Symbol {
	return Symbol{
		Name: string(t.nameBytes(e)), Addr: e.addr, Size: e.size(),
		Kind: e.kind(), Binding: e.binding(),
	}
}

// Symbols returns the symbols of .symtab, .dynsym and .gnu_debugdata
// together, read at the first call and kept. The error is [ErrNoSymbols] when
// there are none, or says what is damaged.
func (b *Binary) Symbols() (*Symbols, error) {
	b.symbols.once.Do(func() { b.symbols.table, b.symbols.err = readSymbols(math.MaxInt, b) })
	return b.symbols.table, b.symbols.err
}

// ReadSymbols returns the symbols of several files of one image together, for
// example those of a library and of its debug file. Nothing is kept in the
// files. The error is as for [Binary.Symbols].
func ReadSymbols(files ...*Binary) (*Symbols, error) {
	return readSymbols(math.MaxInt, files...)
}

// readSymbols refuses tables of more than limit bytes.
func readSymbols(limit int, files ...*Binary) (*Symbols, error) {
	t := &Symbols{limit: limit}
	var damage error
	for _, b := range files {
		for _, s := range b.f.Sections {
			if s.Flags&elf.SHF_EXECINSTR != 0 && s.Size > 0 && s.Addr+s.Size > s.Addr {
				t.text = append(t.text, span{s.Addr, s.Addr + s.Size})
			}
		}
	}
	slices.SortFunc(t.text, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	// Linkers write what is in .dynsym into .symtab too; when that has kept its
	// size, reading both would only double the strings.
	full := uint64(0)
	for _, b := range files {
		for _, s := range b.f.Sections {
			if s.Type == elf.SHT_SYMTAB {
				full = max(full, s.Size)
			}
		}
	}
	for _, b := range files {
		for _, s := range b.f.Sections {
			if s.Type == elf.SHT_SYMTAB || s.Type == elf.SHT_DYNSYM && s.Size > full {
				damage = errors.Join(damage, t.add(b, s))
			}
		}
		if mini, err := b.miniDebug(); err != nil {
			damage = errors.Join(damage, err)
		} else if mini != nil {
			for _, s := range mini.f.Sections {
				if s.Type == elf.SHT_SYMTAB {
					damage = errors.Join(damage, t.add(mini, s))
				}
			}
		}
	}
	if len(t.entries) == 0 {
		if damage != nil {
			return nil, damage
		}
		return nil, ErrNoSymbols
	}
	// The order at one address is the order of preference for showing it.
	slices.SortFunc(t.entries, func(a, b entry) int {
		if c := cmp.Compare(a.addr, b.addr); c != 0 {
			return c
		}
		return t.prefer(a, b)
	})
	t.entries = slices.CompactFunc(t.entries, func(a, b entry) bool {
		return a.addr == b.addr && bytes.Equal(t.nameBytes(a), t.nameBytes(b))
	})
	t.entries = slices.Clip(t.entries)
	return t, nil
}

// prefer is negative when a is the better name of the address that a and b
// share: one with a size, of code, with fewer leading underscores (people
// know malloc, not __libc_malloc's relatives), more public, shorter.
func (t *Symbols) prefer(a, b entry) int {
	flag := func(x bool) int {
		if x {
			return 1
		}
		return 0
	}
	an, bn := t.nameBytes(a), t.nameBytes(b)
	under := func(n []byte) int { return len(n) - len(bytes.TrimLeft(n, "_")) }
	// All C++ names begin with one underscore, which says nothing.
	return cmp.Or(
		flag(a.size() == 0)-flag(b.size() == 0),
		flag(a.kind() == Object)-flag(b.kind() == Object),
		under(an)-under(bn),
		cmp.Compare(a.binding(), b.binding()),
		len(an)-len(bn),
		bytes.Compare(an, bn),
	)
}

// add appends the symbols of section s of b.
func (t *Symbols) add(b *Binary, s *elf.Section) error {
	if int(s.Link) >= len(b.f.Sections) || s.Flags&elf.SHF_COMPRESSED != 0 || s.Size == 0 {
		return nil
	}
	strtab := b.f.Sections[s.Link]
	if strtab.Type != elf.SHT_STRTAB || strtab.Size == 0 {
		return nil
	}
	if need := uint64(t.Bytes()) + strtab.Size + s.Size; need < strtab.Size || need > uint64(t.limit) {
		return fmt.Errorf("section %s: %w", s.Name, ErrTooLarge)
	}
	strs, err := b.data(strtab)
	if err != nil {
		return err
	}
	base := uint64(len(t.strs))
	if base+uint64(len(strs))+1 > math.MaxUint32 {
		return fmt.Errorf("section %s: %w", strtab.Name, ErrTooLarge)
	}
	if base == 0 {
		t.strs = strs
	} else {
		t.strs = append(t.strs, strs...)
	}
	if len(strs) == 0 || strs[len(strs)-1] != 0 {
		t.strs = append(t.strs, 0)
	}
	size := uint64(elf.Sym64Size)
	if !b.Is64() {
		size = elf.Sym32Size
	}
	r := bufio.NewReaderSize(io.NewSectionReader(s.ReaderAt, 0, int64(min(s.FileSize, maxSection))), 64<<10)
	var raw [elf.Sym64Size]byte
	order := b.f.ByteOrder
	for {
		if _, err := io.ReadFull(r, raw[:size]); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("section %s: %w", s.Name, err)
		}
		var name uint32
		var info byte
		var shndx elf.SectionIndex
		var addr, length uint64
		name = order.Uint32(raw[0:])
		if b.Is64() {
			info, shndx = raw[4], elf.SectionIndex(order.Uint16(raw[6:]))
			addr, length = order.Uint64(raw[8:]), order.Uint64(raw[16:])
		} else {
			addr, length = uint64(order.Uint32(raw[4:])), uint64(order.Uint32(raw[8:]))
			info, shndx = raw[12], elf.SectionIndex(order.Uint16(raw[14:]))
		}
		if shndx == elf.SHN_UNDEF || shndx == elf.SHN_ABS || addr == 0 || uint64(name) >= uint64(len(strs)) || strs[name] == 0 {
			continue
		}
		var kind Kind
		switch elf.ST_TYPE(info) {
		case elf.STT_FUNC:
			kind = Func
		case elf.STT_GNU_IFUNC:
			kind = IFunc
		case elf.STT_OBJECT, elf.STT_COMMON:
			kind = Object
		case elf.STT_NOTYPE:
			// Marks of the assembler ("$x", ".L1") name nothing.
			if c := strs[name]; c == '$' || c == '.' || !t.inText(addr) {
				continue
			}
			kind = Label
		default:
			continue
		}
		binding := Local
		switch elf.ST_BIND(info) {
		case elf.STB_GLOBAL, 10: // STB_GNU_UNIQUE
			binding = Global
		case elf.STB_WEAK:
			binding = Weak
		}
		meta := uint32(min(length, maxEntrySize))<<4 | uint32(binding)<<2 | uint32(kind)
		t.entries = append(t.entries, entry{addr, uint32(base) + name, meta})
	}
}

// inText reports whether addr lies in an executable section.
func (t *Symbols) inText(addr uint64) bool { return t.textSpan(addr).end != 0 }

func (t *Symbols) textSpan(addr uint64) span {
	i, _ := slices.BinarySearchFunc(t.text, addr, func(s span, a uint64) int { return cmp.Compare(s.end, a+1) })
	if i < len(t.text) && addr >= t.text[i].start {
		return t.text[i]
	}
	return span{}
}

// Len returns the number of symbols.
func (t *Symbols) Len() int { return len(t.entries) }

// Bytes returns how much memory t occupies.
func (t *Symbols) Bytes() int { return cap(t.entries)*16 + cap(t.strs) }

// All returns all symbols in ascending order of addresses; at one address the
// best name comes first.
func (t *Symbols) All() iter.Seq[Symbol] {
	return func(yield func(Symbol) bool) {
		for _, e := range t.entries {
			if !yield(t.symbol(e)) {
				return
			}
		}
	}
}

// Resolve returns the symbol whose bytes include the virtual address addr
// (as written in the file), and addr's distance from its start. Symbols
// without a size reach to the next symbol or the end of their section.
func (t *Symbols) Resolve(addr uint64) (Symbol, uint64, bool) {
	i, _ := slices.BinarySearchFunc(t.entries, addr, func(e entry, a uint64) int {
		if e.addr <= a {
			return -1
		}
		return 1
	})
	// A larger symbol may begin before a smaller one that ends before addr.
	const lookBack = 64
	open := -1 // the first name of the nearest address, if it has no size
	for j := i - 1; j >= 0 && j >= i-lookBack; {
		first := j
		for first > 0 && t.entries[first-1].addr == t.entries[j].addr {
			first--
		}
		for k := first; k <= j; k++ {
			if e := t.entries[k]; addr-e.addr < e.size() {
				return t.symbol(e), addr - e.addr, true
			}
		}
		if j == i-1 {
			if e := t.entries[first]; e.size() == 0 && e.kind() != Object {
				open = first
			}
		}
		j = first - 1
	}
	if open >= 0 {
		e := t.entries[open]
		if s := t.textSpan(addr); s.end != 0 && e.addr >= s.start {
			return t.symbol(e), addr - e.addr, true
		}
	}
	return Symbol{}, 0, false
}

// Lookup returns the symbols called name, which is without a version, in
// ascending order of addresses.
func (t *Symbols) Lookup(name string) []Symbol {
	if name == "" {
		return nil
	}
	var places []uint32
	needle := []byte(name)
	for from := 0; ; {
		i := bytes.Index(t.strs[from:], needle)
		if i < 0 {
			break
		}
		from += i
		// A string table may use the end of one name as another, so what
		// stands before does not matter.
		if c := t.strs[from+len(needle)]; c == 0 || c == '@' {
			places = append(places, uint32(from))
		}
		from++
	}
	if places == nil {
		return nil
	}
	var found []Symbol
	for _, e := range t.entries {
		if _, ok := slices.BinarySearch(places, e.name); ok {
			found = append(found, t.symbol(e))
		}
	}
	return found
}

// Match returns the symbols whose names match p, in ascending order of
// addresses. With demangle, p is also tried on the demangled name, with and
// without parameters.
func (t *Symbols) Match(p *Pattern, demangle bool) []Symbol {
	var found []Symbol
	for _, e := range t.entries {
		name := t.nameBytes(e)
		if p.mayMatch(name) && p.Match(string(name)) ||
			demangle && mayBeMangled(name) && bytes.Contains(name, p.word) && MatchDemangled(p, string(name)) {
			found = append(found, t.symbol(e))
		}
	}
	return found
}

// Aliases returns all names of the virtual address addr, the best first.
func (t *Symbols) Aliases(addr uint64) []Symbol {
	i, _ := slices.BinarySearchFunc(t.entries, addr, func(e entry, a uint64) int { return cmp.Compare(e.addr, a) })
	var found []Symbol
	for ; i < len(t.entries) && t.entries[i].addr == addr; i++ {
		found = append(found, t.symbol(t.entries[i]))
	}
	return found
}

// A Place is where a uprobe goes.
type Place struct {
	Symbol Symbol
	Offset uint64 // in the file, bytes
}

// Functions returns the places of the functions of b that match pattern,
// which may contain wildcards; with demangle, C++ and Rust names are matched
// in their demangled form too. Names of one address give one Place, under
// the best matching name. Files without symbols are served by their Go
// function table. The error is [ErrNoSymbols], a [*NotFoundError] or says
// what is damaged.
func (b *Binary) Functions(pattern string, demangle bool) ([]Place, error) {
	p := NewPattern(pattern)
	var found []Symbol
	t, err := b.Symbols()
	if err == nil {
		if IsWildcard(pattern) || demangle {
			found = t.Match(p, demangle)
		} else {
			found = t.Lookup(pattern)
		}
	}
	if len(found) == 0 {
		if g, goErr := b.GoFuncs(); goErr == nil {
			err = nil
			for s := range g.All() {
				if p.Match(s.Name) {
					found = append(found, s)
				}
			}
		}
	}
	if err != nil {
		return nil, err
	}
	var places []Place
	last := uint64(math.MaxUint64)
	for _, s := range found {
		if !s.IsCode() || s.Addr == last {
			continue
		}
		if off, ok := b.FileOffset(s.Addr); ok {
			places = append(places, Place{s, off})
			last = s.Addr
		}
	}
	if len(places) == 0 {
		return nil, &NotFoundError{Kind: "function", Name: pattern}
	}
	return places, nil
}

// SplitOffset cuts "name+off" into the name and the offset in bytes, which is
// decimal or, with 0x, hexadecimal. Without an offset it returns 0. Names with
// a plus sign in them, as of C++ operators, stay whole.
func SplitOffset(s string) (name string, offset uint64) {
	if i := strings.LastIndexByte(s, '+'); i > 0 {
		if v, err := strconv.ParseUint(s[i+1:], 0, 64); err == nil {
			return s[:i], v
		}
	}
	return s, 0
}

// At returns p moved by offset bytes. It is an error when that is outside
// the function.
func (p Place) At(offset uint64) (Place, error) {
	if offset != 0 && p.Symbol.Size != 0 && offset >= p.Symbol.Size {
		return p, fmt.Errorf("offset %d is outside %s, which has %d bytes", offset, p.Symbol.Name, p.Symbol.Size)
	}
	if p.Offset+offset < p.Offset {
		return p, fmt.Errorf("offset %d is outside %s", offset, p.Symbol.Name)
	}
	p.Offset += offset
	return p, nil
}
