package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
)

// ErrNotELF is wrapped by [NewBinary]'s error when the input has no ELF magic.
var ErrNotELF = errors.New("not an ELF file")

// ErrNoSymbols says that a file has neither a symbol table nor another list
// of its functions.
var ErrNoSymbols = errors.New("no symbols: the file is stripped and has no Go function table " +
	"(install its debug package, or give an address instead of a name)")

// A NotFoundError says that a name was looked for and is not there.
type NotFoundError struct {
	Kind string // what was looked for: "function", "type", "library"...
	Name string
	In   string // where, in words or as a path; may be empty
}

func (e *NotFoundError) Error() string {
	s := fmt.Sprintf("no %s %q", e.Kind, e.Name)
	if e.In != "" {
		s += " in " + e.In
	}
	return s
}

// maxSection bounds what is read of one section.
const maxSection = 1 << 30

// A Binary is one ELF file: executable, library or separate debug file.
// Only its headers are read at first; the rest on demand. Its methods are
// safe for concurrent use.
type Binary struct {
	f      *elf.File
	closer io.Closer

	notes struct {
		once    sync.Once
		buildID string
		usdt    []byte
		usdtErr error
	}
	symbols struct {
		once  sync.Once
		table *Symbols
		err   error
	}
	debug struct {
		once sync.Once
		info *DebugInfo
		err  error
	}
	golang struct {
		once  sync.Once
		table *GoFuncs
		err   error
	}
}

// NewBinary reads the headers of an ELF file. r must stay readable for as
// long as the Binary is used.
func NewBinary(r io.ReaderAt) (b *Binary, err error) {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	if string(magic[:]) != elf.ELFMAG {
		return nil, ErrNotELF
	}
	err = guard(func() error {
		f, err := elf.NewFile(r)
		if err != nil {
			return fmt.Errorf("damaged ELF file: %w", err)
		}
		b = &Binary{f: f}
		return nil
	})
	return b, err
}

// OpenBinary opens the ELF file name, absolute or not, in fsys. The caller
// closes the result. The error wraps those of fsys.Open and [NewBinary].
func OpenBinary(fsys fs.FS, name string) (*Binary, error) {
	r, err := OpenFile(fsys, name)
	if err != nil {
		return nil, err
	}
	b, err := NewBinary(r)
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	b.closer = r
	return b, nil
}

// Close closes the file if [OpenBinary] opened it.
func (b *Binary) Close() error {
	if b.closer == nil {
		return nil
	}
	return b.closer.Close()
}

// guard turns a panic of the standard library's ELF and DWARF readers, which
// do not promise to survive hostile files, into an error.
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("damaged file: %v", r)
		}
	}()
	return f()
}

// A ReadAtCloser is an open file.
type ReadAtCloser interface {
	io.ReaderAt
	io.Closer
}

// maxWhole bounds a file that has to be read whole because its file system
// offers no random access.
const maxWhole = 512 << 20

// OpenFile opens name in fsys for random access; a leading slash is allowed,
// and dot segments are resolved. Files of file systems without random
// access are read whole, up to 512 MiB.
func OpenFile(fsys fs.FS, name string) (ReadAtCloser, error) {
	f, err := fsys.Open(fsName(name))
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err == nil && st.IsDir() {
		f.Close()
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("is a directory")}
	}
	if r, ok := f.(ReadAtCloser); ok {
		return r, nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxWhole+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxWhole {
		return nil, &fs.PathError{Op: "read", Path: name, Err: ErrTooLarge}
	}
	return struct {
		io.ReaderAt
		io.Closer
	}{bytes.NewReader(data), io.NopCloser(nil)}, nil
}

// fsName turns a path as people write it into one that io/fs takes.
func fsName(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return "."
	}
	return name
}

// Machine returns the architecture.
func (b *Binary) Machine() elf.Machine { return b.f.Machine }

// Is64 reports whether the file is of the 64-bit class.
func (b *Binary) Is64() bool { return b.f.Class == elf.ELFCLASS64 }

// IsRelocatableImage reports whether the image may be loaded anywhere:
// libraries and position-independent executables.
func (b *Binary) IsRelocatableImage() bool { return b.f.Type == elf.ET_DYN }

// FileOffset converts a virtual address as written in the file (in symbols,
// in DWARF) to the offset in the file, which is what uprobes take. It is
// false when no loadable segment has addr in the file.
func (b *Binary) FileOffset(addr uint64) (uint64, bool) {
	for _, p := range b.f.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return p.Off + (addr - p.Vaddr), true
		}
	}
	return 0, false
}

// Addr converts an offset in the file to the virtual address as written in
// the file. Where two segments share a page, the executable one wins.
func (b *Binary) Addr(offset uint64) (uint64, bool) {
	addr, ok := uint64(0), false
	for _, p := range b.f.Progs {
		if p.Type != elf.PT_LOAD || offset < p.Off || offset-p.Off >= p.Filesz {
			continue
		}
		if p.Flags&elf.PF_X != 0 {
			return p.Vaddr + (offset - p.Off), true
		}
		if !ok {
			addr, ok = p.Vaddr+(offset-p.Off), true
		}
	}
	return addr, ok
}

// IsExecutable reports whether the virtual address addr lies in code.
func (b *Binary) IsExecutable(addr uint64) bool {
	for _, p := range b.f.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return true
		}
	}
	return false
}

// Interpreter returns the dynamic linker that the file asks for, or "".
func (b *Binary) Interpreter() string {
	for _, p := range b.f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			data, err := readFull(p.ReaderAt, p.Filesz)
			if err != nil {
				return ""
			}
			return cString(data)
		}
	}
	return ""
}

// section returns the first section called name with contents, or nil.
func (b *Binary) section(name string) *elf.Section {
	for _, s := range b.f.Sections {
		if s.Name == name && s.Type != elf.SHT_NOBITS && s.Type != elf.SHT_NULL {
			return s
		}
	}
	return nil
}

// data returns the contents of s, decompressed.
func (b *Binary) data(s *elf.Section) (data []byte, err error) {
	if s.Size > maxSection {
		return nil, fmt.Errorf("section %s: %w", s.Name, ErrTooLarge)
	}
	if s.Flags&elf.SHF_COMPRESSED == 0 && !strings.HasPrefix(s.Name, ".zdebug") {
		if s.Type == elf.SHT_NOBITS {
			return nil, nil
		}
		data, err = readFull(s.ReaderAt, s.FileSize)
	} else {
		err = guard(func() (err error) {
			data, err = s.Data()
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Name, err)
	}
	return data, nil
}

// readFull reads size bytes from the start of r. The buffer grows with what
// is really there, so a header cannot make it larger than the file.
func readFull(r io.ReaderAt, size uint64) ([]byte, error) {
	const chunk = 1 << 20
	if size > maxSection {
		return nil, ErrTooLarge
	}
	if size == 0 {
		return nil, nil
	}
	buf := make([]byte, 0, min(size, chunk))
	// If the last byte is there, one allocation of the whole is justified.
	var last [1]byte
	if n, _ := r.ReadAt(last[:], int64(size-1)); n == 1 {
		buf = make([]byte, 0, size)
	}
	for uint64(len(buf)) < size {
		n := len(buf)
		want := int(min(size-uint64(n), chunk))
		if cap(buf)-n < want {
			buf = append(buf, make([]byte, want)...)[:n]
		}
		m, err := r.ReadAt(buf[n:n+want], int64(n))
		buf = buf[:n+m]
		if m < want {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return buf, nil
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// note is one entry of a note section or segment.
type note struct {
	name string
	typ  uint32
	desc []byte
}

// scanNotes calls f with each note of data until f returns false.
func scanNotes(data []byte, order binary.ByteOrder, align uint64, f func(note) bool) {
	if align != 8 {
		align = 4
	}
	round := func(n uint64) uint64 { return (n + align - 1) &^ (align - 1) }
	for len(data) >= 12 {
		nameSize, descSize := uint64(order.Uint32(data)), uint64(order.Uint32(data[4:]))
		n := note{typ: order.Uint32(data[8:])}
		rest := data[12:]
		// The header has 12 bytes, so with 8-byte alignment the name is
		// padded to make header and name together a multiple of 8.
		descAt := round(12+nameSize) - 12
		if nameSize > uint64(len(rest)) || descAt > uint64(len(rest)) || descSize > uint64(len(rest))-descAt {
			return
		}
		n.name = cString(rest[:nameSize])
		n.desc = rest[descAt : descAt+descSize]
		if !f(n) {
			return
		}
		data = rest[min(round(descAt+descSize), uint64(len(rest))):]
	}
}

const (
	noteBuildID = 3 // NT_GNU_BUILD_ID
	noteStapSDT = 3 // NT_STAPSDT
	maxNotes    = 64 << 20
)

func (b *Binary) readNotes() {
	b.notes.once.Do(func() {
		buildID := func(data []byte, align uint64) {
			scanNotes(data, b.f.ByteOrder, align, func(n note) bool {
				if n.name == "GNU" && n.typ == noteBuildID && len(n.desc) > 0 && len(n.desc) <= 64 {
					b.notes.buildID = hex.EncodeToString(n.desc)
					return false
				}
				return true
			})
		}
		for _, s := range b.f.Sections {
			if s.Type != elf.SHT_NOTE || s.Size > maxNotes {
				continue
			}
			isUSDT := s.Name == ".note.stapsdt"
			if !isUSDT && b.notes.buildID != "" {
				continue
			}
			data, err := b.data(s)
			if isUSDT {
				b.notes.usdt, b.notes.usdtErr = data, err
			} else if err == nil {
				buildID(data, s.Addralign)
			}
		}
		if b.notes.buildID != "" {
			return
		}
		for _, p := range b.f.Progs {
			if p.Type != elf.PT_NOTE || p.Filesz > maxNotes {
				continue
			}
			if data, err := readFull(p.ReaderAt, p.Filesz); err == nil && b.notes.buildID == "" {
				buildID(data, p.Align)
			}
		}
	})
}

// BuildID returns the GNU build-id as lower-case hexadecimal digits, or "".
func (b *Binary) BuildID() string {
	b.readNotes()
	return b.notes.buildID
}

// DebugFile finds the separate debug file of b in fsys: by build-id below
// /usr/lib/debug/.build-id, then by .gnu_debuglink beside the file, in its
// .debug directory and below /usr/lib/debug. name is the path of b. The
// caller closes the result. The error is a [*NotFoundError] when there is none.
func (b *Binary) DebugFile(fsys fs.FS, name string) (*Binary, error) {
	id := b.BuildID()
	var candidates []string
	if len(id) > 2 {
		candidates = append(candidates, "/usr/lib/debug/.build-id/"+id[:2]+"/"+id[2:]+".debug")
	}
	if s := b.section(".gnu_debuglink"); s != nil && s.Size < 4096 {
		if data, err := b.data(s); err == nil {
			if link := path.Base(cString(data)); link != "." && link != "/" && link != ".." {
				dir := path.Dir(path.Clean("/" + name))
				candidates = append(candidates, dir+"/"+link, dir+"/.debug/"+link, "/usr/lib/debug"+dir+"/"+link)
			}
		}
	}
	for _, c := range candidates {
		d, err := OpenBinary(fsys, c)
		if err != nil {
			continue
		}
		// A link by name alone may lead to another build.
		if d.BuildID() == id && d.f.Machine == b.f.Machine && path.Clean(c) != path.Clean("/"+name) {
			return d, nil
		}
		d.Close()
	}
	return nil, &NotFoundError{Kind: "debug file for", Name: name, In: "/usr/lib/debug (build-id " + id + ")"}
}

// miniDebug returns the file inside .gnu_debugdata, an ELF with the symbols
// of static functions that some distributions leave in stripped files,
// compressed by xz; nil when there is none.
func (b *Binary) miniDebug() (*Binary, error) {
	s := b.section(".gnu_debugdata")
	if s == nil {
		return nil, nil
	}
	data, err := b.data(s)
	if err != nil {
		return nil, err
	}
	if data, err = unxz(data); err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Name, err)
	}
	return NewBinary(bytes.NewReader(data))
}
