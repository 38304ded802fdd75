package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// MaxFileSize is the size of the largest file that [Read] takes, in bytes.
const MaxFileSize = 64 << 20

// maxSymbols bounds the symbols and the relocations of a file; an object with
// a million instructions has fewer.
const maxSymbols = 1 << 20

// An elfFile is the part of an ELF64 file that BPF objects use. It is read by
// code of our own because debug/elf is not made for hostile files.
type elfFile struct {
	order    byteOrder
	data     []byte
	sections []elfSection
	symbols  []elfSymbol
}

type elfSection struct {
	name       string
	typ        elf.SectionType
	flags      elf.SectionFlag
	size       uint64 // at most MaxFileSize
	link, info uint32
	entry      uint64
	data       []byte // nil for SHT_NOBITS
	nameOff    uint32
	off        uint64
	relocs     []elfReloc
}

type elfSymbol struct {
	name    string
	typ     elf.SymType
	bind    elf.SymBind
	section int  // 0 is undefined, or in no section
	hidden  bool // global for the linker alone
	absent  bool
	value   uint64
	size    uint64
}

type elfReloc struct {
	offset uint64
	symbol int
	typ    uint32
}

var errTruncated = errors.New("the file is cut off or damaged")

// readAll reads at most MaxFileSize bytes.
func readAll(r io.ReaderAt) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.NewSectionReader(r, 0, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if n > MaxFileSize {
		return nil, fmt.Errorf("the file is larger than %d MiB, which no BPF object is", MaxFileSize>>20)
	}
	return b.Bytes(), nil
}

// notELF says what a file is that is no ELF file, and what to do.
func notELF(data []byte) error {
	magic := func(m string) bool { return bytes.HasPrefix(data, []byte(m)) }
	switch {
	case len(data) == 0:
		return errors.New("the file is empty")
	case magic("BC\xc0\xde"), magic("\xde\xc0\x17\x0b"):
		return errors.New("the file is LLVM bitcode, which clang writes with -flto or -emit-llvm: compile it without these")
	case magic("!<arch>\n"):
		return errors.New("the file is an archive of objects: name one of them, or link them with `bpftool gen object`")
	case magic("\xcf\xfa\xed\xfe"), magic("\xce\xfa\xed\xfe"):
		return errors.New("the file is a Mach-O file, not a BPF object: compile it with `clang -target bpf`")
	case magic("MZ"):
		return errors.New("the file is a Windows program, not a BPF object: compile it with `clang -target bpf`")
	case magic("\x9f\xeb"), magic("\xeb\x9f"):
		return errors.New("the file holds BTF types alone, without programs")
	case magic("\x1f\x8b"), magic("\x28\xb5\x2f\xfd"), magic("\xfd7zXZ"):
		return errors.New("the file is compressed: unpack it first")
	case len(data) < ehdrSize && magic(elf.ELFMAG):
		return errTruncated
	case utf8.Valid(data[:min(len(data), 64)]) && !bytes.ContainsRune(data[:min(len(data), 64)], 0):
		return errors.New("the file is text, not a BPF object (an ELF file): a script is run by its name ending in .bt, or with -e")
	}
	return errors.New("the file is not a BPF object (an ELF file)")
}

func parseELF(data []byte) (*elfFile, error) {
	if len(data) < ehdrSize || !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return nil, notELF(data)
	}
	f := &elfFile{data: data}
	if elf.Class(data[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return nil, errors.New("the file is a 32-bit ELF file, and BPF objects are 64-bit: compile it with `clang -target bpf`")
	}
	switch elf.Data(data[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
		f.order = binary.LittleEndian
	case elf.ELFDATA2MSB:
		f.order = binary.BigEndian
	default:
		return nil, errTruncated
	}
	// Old versions of LLVM left the machine empty.
	if m := elf.Machine(f.order.Uint16(data[18:])); m != elf.EM_BPF && m != elf.EM_NONE {
		return nil, fmt.Errorf("the file is made for %s, not for BPF: compile it with `clang -target bpf`", machineName(m))
	}
	if t := elf.Type(f.order.Uint16(data[16:])); t != elf.ET_REL {
		return nil, fmt.Errorf("the ELF file is of type %d, and BPF objects are relocatable (type 1)", t)
	}
	if err := f.readSections(); err != nil {
		return nil, err
	}
	if err := f.readSymbols(); err != nil {
		return nil, err
	}
	return f, f.readRelocs()
}

func machineName(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_RISCV:
		return "riscv64"
	}
	return "the machine " + m.String()
}

// slice returns data[off:off+size] when there is that much.
func (f *elfFile) slice(off, size uint64) ([]byte, error) {
	n := uint64(len(f.data))
	if off > n || size > n-off {
		return nil, errTruncated
	}
	return f.data[off : off+size : off+size], nil
}

// A names is a table of zero-terminated strings, which may overlap. All that
// is taken from it together is bounded, as a hostile file may refer to one
// long string a million times.
type names struct {
	text   string
	budget int
}

const namesBudget = 256 << 20

func newNames(table []byte) *names { return &names{string(table), namesBudget} }

// at returns the string at off.
func (t *names) at(off uint32) (string, error) {
	if uint64(off) >= uint64(len(t.text)) {
		return "", fmt.Errorf("string %d lies outside of its table of %d bytes", off, len(t.text))
	}
	n := strings.IndexByte(t.text[off:], 0)
	if n < 0 {
		return "", fmt.Errorf("string %d has no end", off)
	}
	if t.budget -= n; t.budget < 0 {
		return "", errors.New("the file uses its strings more often than any object does")
	}
	return t.text[off : int(off)+n], nil
}

func (f *elfFile) readSections() error {
	shoff := f.order.Uint64(f.data[40:])
	count := uint64(f.order.Uint16(f.data[60:]))
	nameIndex := int(f.order.Uint16(f.data[62:]))
	if f.order.Uint16(f.data[58:]) != shdrSize && count > 0 {
		return fmt.Errorf("section headers have %d bytes, must be %d", f.order.Uint16(f.data[58:]), shdrSize)
	}
	if shoff == 0 || count == 0 || count >= uint64(elf.SHN_LORESERVE) {
		return errors.New("the ELF file has no usable list of sections")
	}
	table, err := f.slice(shoff, count*shdrSize)
	if err != nil {
		return err
	}
	f.sections = make([]elfSection, count)
	for i := range f.sections {
		h, s := table[i*shdrSize:], &f.sections[i]
		s.nameOff = f.order.Uint32(h)
		s.typ = elf.SectionType(f.order.Uint32(h[4:]))
		s.flags = elf.SectionFlag(f.order.Uint64(h[8:]))
		s.off, s.size = f.order.Uint64(h[24:]), f.order.Uint64(h[32:])
		s.link, s.info = f.order.Uint32(h[40:]), f.order.Uint32(h[44:])
		s.entry = f.order.Uint64(h[56:])
		switch {
		case s.typ == elf.SHT_NULL:
			s.size = 0
		case s.typ == elf.SHT_NOBITS:
			if s.size > MaxFileSize {
				return fmt.Errorf("section %d has %d bytes, more than an object can have", i, s.size)
			}
		default:
			if s.data, err = f.slice(s.off, s.size); err != nil {
				return err
			}
		}
	}
	if nameIndex <= 0 || nameIndex >= len(f.sections) {
		return errors.New("the ELF file has no names of sections")
	}
	strings := newNames(f.sections[nameIndex].data)
	for i := range f.sections {
		s := &f.sections[i]
		if s.typ == elf.SHT_NULL {
			continue
		}
		if s.name, err = strings.at(s.nameOff); err != nil {
			return fmt.Errorf("name of section %d: %w", i, err)
		}
		if s.flags&elf.SHF_COMPRESSED != 0 && (s.flags&elf.SHF_ALLOC != 0 || s.name == sectionBTF || s.name == sectionBTFExt) {
			return fmt.Errorf("section %s is compressed, which no loader of BPF takes", s.name)
		}
	}
	return nil
}

func (f *elfFile) readSymbols() error {
	for i := range f.sections {
		s := &f.sections[i]
		if s.typ != elf.SHT_SYMTAB {
			continue
		}
		if f.symbols != nil {
			return errors.New("the file has two symbol tables")
		}
		if s.entry != symSize || s.size%symSize != 0 || s.size == 0 || s.size/symSize > maxSymbols {
			return errors.New("the symbol table has a size that cannot be")
		}
		if s.link == 0 || int64(s.link) >= int64(len(f.sections)) {
			return errors.New("the symbol table has no names")
		}
		names := newNames(f.sections[s.link].data)
		f.symbols = make([]elfSymbol, s.size/symSize)
		for n := range f.symbols {
			if err := f.readSymbol(s.data[n*symSize:], names, &f.symbols[n]); err != nil {
				return fmt.Errorf("symbol %d: %w", n, err)
			}
		}
	}
	return nil
}

func (f *elfFile) readSymbol(b []byte, names *names, sym *elfSymbol) error {
	var err error
	if off := f.order.Uint32(b); off != 0 {
		if sym.name, err = names.at(off); err != nil {
			return err
		}
	}
	sym.typ, sym.bind = elf.ST_TYPE(b[4]), elf.ST_BIND(b[4])
	sym.hidden = elf.ST_VISIBILITY(b[5]) == elf.STV_HIDDEN || elf.ST_VISIBILITY(b[5]) == elf.STV_INTERNAL
	index := elf.SectionIndex(f.order.Uint16(b[6:]))
	sym.value, sym.size = f.order.Uint64(b[8:]), f.order.Uint64(b[16:])
	if index >= elf.SHN_LORESERVE {
		sym.absent = true // absolute, common
		return nil
	}
	sym.section = int(index)
	if sym.section >= len(f.sections) {
		return fmt.Errorf("it is in section %d of %d", sym.section, len(f.sections))
	}
	if sym.section == 0 {
		return nil
	}
	if size := f.sections[sym.section].size; sym.value > size || sym.size > size-sym.value {
		return fmt.Errorf("%q lies outside of its section %s", sym.name, f.sections[sym.section].name)
	}
	return nil
}

func (f *elfFile) readRelocs() error {
	total := uint64(0)
	for i := range f.sections {
		s := &f.sections[i]
		if s.typ != elf.SHT_REL && s.typ != elf.SHT_RELA {
			continue
		}
		if s.info == 0 || int64(s.info) >= int64(len(f.sections)) {
			return fmt.Errorf("section %s relocates section %d, which is not there", s.name, s.info)
		}
		target := &f.sections[s.info]
		if !isRelocated(target) {
			continue
		}
		if s.typ == elf.SHT_RELA {
			return fmt.Errorf("section %s has relocations with addends, which BPF objects do not have", s.name)
		}
		if total += s.size / relSize; s.entry != relSize || s.size%relSize != 0 || total > maxSymbols {
			return fmt.Errorf("section %s has a size that cannot be", s.name)
		}
		for b := s.data; len(b) > 0; b = b[relSize:] {
			info := f.order.Uint64(b[8:])
			r := elfReloc{offset: f.order.Uint64(b), symbol: int(info >> 32), typ: uint32(info)}
			if r.symbol >= len(f.symbols) {
				return fmt.Errorf("section %s: symbol %d is not there", s.name, r.symbol)
			}
			if r.offset >= target.size || target.data == nil {
				return fmt.Errorf("section %s: offset %d lies outside of %s", s.name, r.offset, target.name)
			}
			target.relocs = append(target.relocs, r)
		}
	}
	return nil
}

// isRelocated reports whether the relocations of s matter here: those of
// debug information do not.
func isRelocated(s *elfSection) bool {
	return s.isCode() || s.name == sectionMaps || isDataSection(s.name)
}

func (s *elfSection) isCode() bool {
	return s.typ == elf.SHT_PROGBITS && s.flags&elf.SHF_EXECINSTR != 0 && s.size > 0
}
