package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"
)

// ErrNotGo is returned by [Binary.GoFuncs] for files without a Go function
// table.
var ErrNotGo = errors.New("not a Go binary: no .gopclntab section")

// GoFuncs is the function table that every Go binary carries, stripped ones
// too: the section .gopclntab, written by cmd/link/internal/ld/pcln.go and
// read by runtime/symtab.go. Formats of Go 1.2 and later are understood.
// It is immutable and safe for concurrent use.
type GoFuncs struct {
	data     []byte
	order    binary.ByteOrder
	old      bool // Go 1.2 to 1.15: one blob, absolute addresses
	absolute bool // before Go 1.18: addresses, not offsets from text
	quantum  uint64
	ptr      uint64 // bytes of a pointer
	text     uint64 // start of Go's code
	count    uint64

	names, cus, files, pcs, funcs, functab []byte
}

const (
	goMagic12  = 0xfffffffb
	goMagic116 = 0xfffffffa
	goMagic118 = 0xfffffff0
	goMagic120 = 0xfffffff1
)

// GoFuncs returns the Go function table, read at the first call and kept.
// The error is [ErrNotGo] or says what is damaged.
func (b *Binary) GoFuncs() (*GoFuncs, error) {
	b.golang.once.Do(func() { b.golang.table, b.golang.err = readGoFuncs(b) })
	return b.golang.table, b.golang.err
}

func readGoFuncs(b *Binary) (*GoFuncs, error) {
	var s *elf.Section
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		if s = b.section(name); s != nil {
			break
		}
	}
	if s == nil {
		return nil, ErrNotGo
	}
	data, err := b.data(s)
	if err != nil {
		return nil, err
	}
	g, err := parseGoFuncs(data, b.f.ByteOrder)
	if err != nil {
		return nil, err
	}
	if !g.absolute {
		g.text = b.goText(s.Addr, g)
	}
	return g, nil
}

// goText finds the address that the table's offsets count from, the linker
// symbol runtime.text. It is not the start of .text when C code is linked in.
func (b *Binary) goText(table uint64, g *GoFuncs) uint64 {
	text := b.f.Section(".text")
	plausible := func(addr uint64) bool {
		return addr != 0 && text != nil && addr >= text.Addr && addr-text.Addr < text.Size
	}
	// Until Go 1.25 the table's header has it.
	if addr := b.pointerAt(table + 8 + 2*g.ptr); plausible(addr) {
		return addr
	}
	// From Go 1.26 the runtime's module data has a section of its own. Its
	// fields before text: one pointer, six slices, three pointers.
	if m := b.section(".go.module"); m != nil {
		if addr := b.pointerAt(m.Addr + g.ptr*(1+6*3+3)); plausible(addr) {
			return addr
		}
	}
	if t, err := b.Symbols(); err == nil {
		for _, s := range t.Lookup("runtime.text") {
			if plausible(s.Addr) {
				return s.Addr
			}
		}
	}
	if text != nil {
		return text.Addr
	}
	return 0
}

// pointerAt returns the pointer stored at the virtual address addr after
// relocation of an image loaded at 0, or 0.
func (b *Binary) pointerAt(addr uint64) uint64 {
	if !b.Is64() {
		return 0
	}
	if b.IsRelocatableImage() {
		for _, s := range b.f.Sections {
			if s.Type != elf.SHT_RELA || s.Flags&elf.SHF_ALLOC == 0 || s.Size > maxSection {
				continue
			}
			const size = 24
			buf := make([]byte, 1024*size)
			for off := int64(0); off < int64(s.FileSize); off += int64(len(buf)) {
				n, err := s.ReadAt(buf, off)
				for i := 0; i+size <= n; i += size {
					if b.f.ByteOrder.Uint64(buf[i:]) == addr {
						return b.f.ByteOrder.Uint64(buf[i+16:])
					}
				}
				if err != nil {
					break
				}
			}
		}
	}
	var raw [8]byte
	for _, p := range b.f.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			if _, err := p.ReadAt(raw[:], int64(addr-p.Vaddr)); err != nil && err != io.EOF {
				return 0
			}
			return b.f.ByteOrder.Uint64(raw[:])
		}
	}
	return 0
}

// parseGoFuncs reads the header of a function table.
func parseGoFuncs(data []byte, order binary.ByteOrder) (*GoFuncs, error) {
	damaged := func(what string) error { return fmt.Errorf("damaged Go function table: %s", what) }
	if len(data) < 16 {
		return nil, damaged("too short")
	}
	g := &GoFuncs{data: data, order: order, quantum: uint64(data[6]), ptr: uint64(data[7])}
	if data[4] != 0 || data[5] != 0 || g.ptr != 4 && g.ptr != 8 || g.quantum == 0 || g.quantum > 4 {
		return nil, damaged("unknown header")
	}
	word := func(i uint64) uint64 { return g.pointer(data, 8+i*g.ptr) }
	part := func(i uint64) []byte {
		if off := word(i); off < uint64(len(data)) {
			return data[off:]
		}
		return nil
	}
	g.count = word(0)
	switch order.Uint32(data) {
	case goMagic118, goMagic120:
		g.names, g.cus, g.files, g.pcs, g.funcs = part(3), part(4), part(5), part(6), part(7)
		g.functab = g.funcs
	case goMagic116:
		g.absolute = true
		g.names, g.cus, g.files, g.pcs, g.funcs = part(2), part(3), part(4), part(5), part(6)
		g.functab = g.funcs
	case goMagic12:
		g.absolute, g.old = true, true
		g.names, g.pcs, g.funcs = data, data, data
		g.functab = data[8+g.ptr:]
	default:
		return nil, damaged(fmt.Sprintf("unknown magic %#x", order.Uint32(data)))
	}
	width := g.width()
	if g.count > uint64(len(g.functab))/(2*width) || (2*g.count+1)*width > uint64(len(g.functab)) {
		return nil, damaged("more functions than bytes")
	}
	if g.old {
		if off := uint64(g.u32(g.functab, (2*g.count+1)*width)); off < uint64(len(data)) {
			g.files = data[off:]
		}
	}
	g.functab = g.functab[:(2*g.count+1)*width]
	return g, nil
}

// width is the size of one number of functab.
func (g *GoFuncs) width() uint64 {
	if g.absolute {
		return g.ptr
	}
	return 4
}

// u32 returns the number at off in b, 0 outside.
func (g *GoFuncs) u32(b []byte, off uint64) uint32 {
	if off > uint64(len(b)) || uint64(len(b))-off < 4 {
		return 0
	}
	return g.order.Uint32(b[off:])
}

func (g *GoFuncs) pointer(b []byte, off uint64) uint64 {
	if g.ptr == 4 {
		return uint64(g.u32(b, off))
	}
	if off > uint64(len(b)) || uint64(len(b))-off < 8 {
		return 0
	}
	return g.order.Uint64(b[off:])
}

// pc returns the entry address of function i; i may be Len, for the end.
func (g *GoFuncs) pc(i uint64) uint64 {
	if g.absolute {
		return g.pointer(g.functab, 2*i*g.ptr)
	}
	return g.text + uint64(g.u32(g.functab, 2*i*4))
}

// record returns the description of function i, with its leading address cut
// off: 32-bit fields.
func (g *GoFuncs) record(i uint64) []byte {
	w := g.width()
	var off uint64
	if g.absolute {
		off = g.pointer(g.functab, (2*i+1)*w)
	} else {
		off = uint64(g.u32(g.functab, (2*i+1)*w))
	}
	if off > uint64(len(g.funcs)) || uint64(len(g.funcs))-off < w {
		return nil
	}
	return g.funcs[off+w:]
}

func (g *GoFuncs) str(b []byte, off uint64) string {
	if off >= uint64(len(b)) {
		return ""
	}
	b = b[off:]
	n := bytes.IndexByte(b[:min(len(b), maxLine)], 0)
	if n < 0 {
		return ""
	}
	return string(b[:n])
}

func (g *GoFuncs) symbol(i uint64) Symbol {
	start := g.pc(i)
	s := Symbol{Name: g.str(g.names, uint64(g.u32(g.record(i), 0))), Addr: start, Kind: Func, Binding: Local}
	if end := g.pc(i + 1); end > start {
		s.Size = end - start
	}
	return s
}

// Len returns the number of functions.
func (g *GoFuncs) Len() int { return int(g.count) }

// All returns all functions in ascending order of addresses. A function's
// size includes the padding behind it.
func (g *GoFuncs) All() iter.Seq[Symbol] {
	return func(yield func(Symbol) bool) {
		for i := range g.count {
			if s := g.symbol(i); s.Name != "" && !yield(s) {
				return
			}
		}
	}
}

// find returns the function that holds addr.
func (g *GoFuncs) find(addr uint64) (uint64, bool) {
	i := sort.Search(int(g.count)+1, func(i int) bool { return g.pc(uint64(i)) > addr })
	if i == 0 || uint64(i) > g.count {
		return 0, false
	}
	return uint64(i - 1), true
}

// Resolve returns the function that holds the virtual address addr, and
// addr's distance from its start. Inlined calls are not undone.
func (g *GoFuncs) Resolve(addr uint64) (Symbol, uint64, bool) {
	i, ok := g.find(addr)
	if !ok {
		return Symbol{}, 0, false
	}
	s := g.symbol(i)
	return s, addr - s.Addr, s.Name != ""
}

// Line returns the source file and line of the virtual address addr.
func (g *GoFuncs) Line(addr uint64) (file string, line int, ok bool) {
	i, ok := g.find(addr)
	if !ok {
		return "", 0, false
	}
	r := g.record(i)
	// Fields of runtime._func after the entry: nameOff, args, deferreturn,
	// pcsp, pcfile, pcln, npcdata, cuOffset.
	n := g.pcValue(g.u32(r, 4*5), g.pc(i), addr)
	no := g.pcValue(g.u32(r, 4*4), g.pc(i), addr)
	if n < 0 || no < 0 {
		return "", 0, false
	}
	if g.old {
		file = g.str(g.data, uint64(g.u32(g.files, 4*uint64(no))))
	} else {
		cu := uint64(g.u32(r, 4*7))
		file = g.str(g.files, uint64(g.u32(g.cus, 4*(cu+uint64(no)))))
	}
	return file, int(n), file != ""
}

// pcValue decodes the table at off of pairs (change of value, length of code)
// up to target; -1 when target is beyond it.
func (g *GoFuncs) pcValue(off uint32, pc, target uint64) int32 {
	if uint64(off) >= uint64(len(g.pcs)) {
		return -1
	}
	b := g.pcs[off:]
	value := int32(-1)
	for first := true; ; first = false {
		delta, n := binary.Uvarint(b)
		if n <= 0 || delta == 0 && !first {
			return -1
		}
		b = b[n:]
		d := uint32(delta)
		value += int32(d>>1) ^ -int32(d&1)
		length, n := binary.Uvarint(b)
		if n <= 0 {
			return -1
		}
		b = b[n:]
		pc += length * g.quantum
		if target < pc {
			return value
		}
	}
}
