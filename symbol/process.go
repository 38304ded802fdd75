package symbol

import (
	"bytes"
	"container/list"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strings"
	"sync"
)

// Files opens what processes have mapped. [ProcFiles] is the one for Linux.
type Files interface {
	// OpenMapped opens the file that m shows, or the image of "[vdso]".
	OpenMapped(pid int, m *Mapping) (ReadAtCloser, error)
	// OpenPerfMap opens the process's perf map.
	OpenPerfMap(pid int) (io.ReadCloser, error)
}

// ProcFiles returns Files over root, the root of a Linux file system with
// proc mounted at /proc: os.DirFS("/"), or a snapshot. Files are found by the
// kernel's own links in /proc/PID/map_files, which lead to deleted files and
// into other mount namespaces (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE), then
// through /proc/PID/root, then, when the process is gone, by their path.
func ProcFiles(root fs.FS) Files { return procFiles{root} }

type procFiles struct{ root fs.FS }

func (p procFiles) OpenMapped(pid int, m *Mapping) (ReadAtCloser, error) {
	proc := fmt.Sprintf("proc/%d", pid)
	if m.Path == "[vdso]" {
		return p.vdso(proc, m)
	}
	r, err := p.regular(fmt.Sprintf("%s/map_files/%x-%x", proc, m.Start, m.End))
	if err == nil {
		return r, nil
	}
	if target, err := fs.ReadLink(p.root, proc+"/exe"); err == nil && strings.TrimSuffix(target, " (deleted)") == m.Path {
		if r, err := p.regular(proc + "/exe"); err == nil {
			return r, nil
		}
	}
	if m.Deleted {
		// Another file may have its path now.
		return nil, fmt.Errorf("%s: deleted, and not reachable through the process: %w", m.Path, err)
	}
	if r, err := p.regular(proc + "/root" + m.Path); err == nil {
		return r, nil
	}
	return p.regular(m.Path)
}

// regular opens a regular file; a fifo put into its place would block.
func (p procFiles) regular(name string) (ReadAtCloser, error) {
	st, err := fs.Stat(p.root, fsName(name))
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	return OpenFile(p.root, name)
}

const maxVDSO = 1 << 20

func (p procFiles) vdso(proc string, m *Mapping) (ReadAtCloser, error) {
	size := m.End - m.Start
	if size > maxVDSO || m.Start > math.MaxInt64-maxVDSO {
		return nil, ErrTooLarge
	}
	f, err := p.root.Open(proc + "/mem")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, ok := f.(io.ReaderAt)
	if !ok {
		return nil, errors.New("the memory of processes cannot be read here")
	}
	image := make([]byte, size)
	if n, err := r.ReadAt(image, int64(m.Start)); n < len(image) {
		return nil, err
	}
	return struct {
		io.ReaderAt
		io.Closer
	}{bytes.NewReader(image), io.NopCloser(nil)}, nil
}

func (p procFiles) OpenPerfMap(pid int) (io.ReadCloser, error) {
	// The compiler knows its process by the number in its own namespace.
	inner := fmt.Sprint(pid)
	if status, err := readLimited(p.root, fmt.Sprintf("proc/%d/status", pid), 1<<16); err == nil {
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
				if ids := strings.Fields(rest); len(ids) > 0 {
					inner = ids[len(ids)-1]
				}
			}
		}
	}
	var err error
	for _, name := range []string{
		fmt.Sprintf("proc/%d/root/tmp/perf-%s.map", pid, inner),
		fmt.Sprintf("tmp/perf-%d.map", pid),
	} {
		var st fs.FileInfo
		if st, err = fs.Lstat(p.root, name); err != nil {
			continue
		}
		if !st.Mode().IsRegular() {
			err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
			continue
		}
		var f fs.File
		if f, err = p.root.Open(name); err == nil {
			return f, nil
		}
	}
	return nil, err
}

// Options configures a [Symbolizer].
type Options struct {
	Files Files // required
	// DebugFiles is where separate debug files are looked for by build-id; nil
	// for nowhere.
	DebugFiles fs.FS
	// Lines asks for source files and lines, which may need much memory.
	Lines bool
	// Mangled leaves C++ and Rust names as they are; Params keeps the
	// parameters of demangled names.
	Mangled, Params bool
	// MaxBytes bounds the memory of symbol tables kept, and the size of the
	// largest one that is used at all; 0 for 128 MiB.
	MaxBytes int
	// MaxFiles bounds the files kept open; 0 for 128.
	MaxFiles int
}

// A Symbolizer names addresses of processes. It keeps the symbol tables of
// files across processes, by device, inode and build-id, within a bound.
// It is safe for concurrent use.
//
// Naming has two steps, so that processes which exit early are named too:
// [Symbolizer.Capture], while the process lives, opens what it has mapped;
// [Process.Resolve], at any time later, reads symbols and names addresses.
type Symbolizer struct {
	o Options

	mu     sync.Mutex
	images map[imageKey]*image
	open   *list.List // of *image with an open file, the last used in front
	tables map[string]*tables
	used   *list.List // of *tables, the last used in front
	bytes  int
}

type imageKey struct {
	major, minor uint32
	inode        uint64
	special      string // "[vdso]" with its size
}

// image is one mapped file.
type image struct {
	key   imageKey
	bin   *Binary
	file  ReadAtCloser // nil when closed again
	place *list.Element
	err   error
}

// tables are the names of one file.
type tables struct {
	key   string
	syms  *Symbols
	goFns *GoFuncs
	debug *DebugInfo
	extra *Binary // the debug file, while debug needs it
	bytes int
	place *list.Element
}

// NewSymbolizer returns a Symbolizer, which the caller closes.
func NewSymbolizer(o Options) *Symbolizer {
	if o.MaxBytes <= 0 {
		o.MaxBytes = 128 << 20
	}
	if o.MaxFiles <= 0 {
		o.MaxFiles = 128
	}
	return &Symbolizer{
		o: o, images: map[imageKey]*image{}, open: list.New(),
		tables: map[string]*tables{}, used: list.New(),
	}
}

// Close closes all files. Processes then resolve nothing new.
func (s *Symbolizer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.open.Len() > 0 {
		s.closeOldest()
	}
	for s.used.Len() > 0 {
		s.dropOldest()
	}
	return nil
}

// closeOldest closes the file that was not used for longest.
func (s *Symbolizer) closeOldest() {
	img := s.open.Remove(s.open.Back()).(*image)
	img.file.Close()
	img.file, img.place = nil, nil
}

func (s *Symbolizer) dropOldest() {
	t := s.used.Remove(s.used.Back()).(*tables)
	if t.extra != nil {
		t.extra.Close()
	}
	s.bytes -= t.bytes
	delete(s.tables, t.key)
}

// A Process is the memory map of one process at one time.
type Process struct {
	s    *Symbolizer
	pid  int
	maps []Mapping

	jit struct {
		tried bool
		m     *PerfMap
	}
}

// Capture notes the memory map of a process, as [ParseMaps] returns it, and
// opens the executable files in it that are not known yet. Files that cannot
// be opened are no error; their addresses stay without names.
func (s *Symbolizer) Capture(pid int, maps []Mapping) *Process {
	p := &Process{s: s, pid: pid, maps: maps}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range maps {
		if m := &maps[i]; m.IsExecutable() && (m.IsFile() || m.Path == "[vdso]") {
			s.image(pid, m)
		}
	}
	return p
}

// maxImages bounds what is remembered of files, open or not.
const maxImages = 1 << 14

// image returns what m shows, opening it if needed.
func (s *Symbolizer) image(pid int, m *Mapping) *image {
	key := imageKey{major: m.Major, minor: m.Minor, inode: m.Inode}
	if m.Path == "[vdso]" {
		key.special = fmt.Sprintf("%s%d", m.Path, m.End-m.Start)
	}
	img := s.images[key]
	if img != nil && img.place != nil {
		s.open.MoveToFront(img.place)
		return img
	}
	if img == nil {
		if len(s.images) >= maxImages {
			for k, old := range s.images {
				if old.file == nil {
					delete(s.images, k)
				}
			}
		}
		img = &image{key: key}
		s.images[key] = img
	}
	file, err := s.o.Files.OpenMapped(pid, m)
	if err != nil {
		if img.bin == nil {
			img.err = err
		}
		return img // its tables may be known all the same
	}
	bin, err := NewBinary(file)
	if err != nil {
		file.Close()
		img.err = err
		return img
	}
	img.bin, img.file, img.err = bin, file, nil
	img.place = s.open.PushFront(img)
	for s.open.Len() > s.o.MaxFiles {
		s.closeOldest()
	}
	return img
}

// names returns the symbol tables of img, reading them if needed.
func (s *Symbolizer) names(img *image, path string) *tables {
	key := fmt.Sprint("inode ", img.key)
	if id := img.bin.BuildID(); id != "" {
		key = "build-id " + id
	}
	if t := s.tables[key]; t != nil {
		s.used.MoveToFront(t.place)
		return t
	}
	if img.file == nil {
		return nil
	}
	t := &tables{key: key, bytes: 256}
	files := []*Binary{img.bin}
	var extra *Binary
	if s.o.DebugFiles != nil {
		var err error
		if extra, err = img.bin.DebugFile(s.o.DebugFiles, path); err == nil {
			files = append(files, extra)
		}
	}
	if syms, err := readSymbols(s.o.MaxBytes, files...); err == nil {
		t.syms = syms
		t.bytes += syms.Bytes()
	}
	if fns, err := readGoFuncs(img.bin); err == nil && (t.syms == nil || s.o.Lines) {
		t.goFns = fns
		t.bytes += len(fns.data)
	}
	if s.o.Lines && t.goFns == nil {
		for _, f := range files {
			if debugBytes(f) > uint64(s.o.MaxBytes) {
				continue
			}
			if d, err := readDebugInfo(f); err == nil {
				t.debug = d
				t.bytes += int(debugBytes(f))
				if f == extra {
					t.extra = extra
				}
				break
			}
		}
	}
	if extra != nil && t.extra == nil {
		extra.Close()
	}
	s.tables[key] = t
	t.place = s.used.PushFront(t)
	s.bytes += t.bytes
	for s.bytes > s.o.MaxBytes && s.used.Len() > 1 {
		s.dropOldest()
	}
	return t
}

// A Frame is a named address.
type Frame struct {
	Addr   uint64 // as asked for
	Name   string // "" when unknown
	Symbol string // the name as the file has it; differs from Name when demangled
	Offset uint64 // bytes from the start of the function
	Module string // path of the file in the process, "[vdso]", or "" for memory without a file
	// ModuleOffset is the offset in the file, valid when Module is a path:
	// what is left to show when there is no name.
	ModuleOffset uint64
	File         string // source file and line, when asked for and known
	Line         int
}

// Resolve names an address of the process. What is not known stays empty.
func (p *Process) Resolve(addr uint64) Frame {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	f := Frame{Addr: addr}
	m := FindMapping(p.maps, addr)
	if m != nil {
		f.Module = m.Path
		if m.IsFile() || m.Path == "[vdso]" {
			f.ModuleOffset = addr - m.Start + m.Offset
			p.fromFile(m, &f)
		}
	}
	// JIT compilers put code into memory without a file or, to write it
	// elsewhere than where it runs, with a file of no name.
	if f.Name == "" && (m == nil || m.IsExecutable()) {
		p.fromJIT(&f)
	}
	return f
}

// ResolveReturn is Resolve for a return address, such as all but the first
// address of a stack: the call before it decides function and line, since a
// call that does not return may be its function's last instruction.
func (p *Process) ResolveReturn(addr uint64) Frame {
	if addr == 0 {
		return p.Resolve(addr)
	}
	f := p.Resolve(addr - 1)
	f.Addr++
	if f.Name != "" {
		f.Offset++
	}
	if f.ModuleOffset != 0 {
		f.ModuleOffset++
	}
	return f
}

func (p *Process) fromFile(m *Mapping, f *Frame) {
	img := p.s.image(p.pid, m)
	if img.bin == nil {
		return
	}
	addr, ok := img.bin.Addr(f.ModuleOffset)
	if !ok {
		return
	}
	t := p.s.names(img, m.Path)
	if t == nil {
		return
	}
	var sym Symbol
	found := false
	if t.syms != nil {
		sym, f.Offset, found = t.syms.Resolve(addr)
	}
	if !found && t.goFns != nil {
		sym, f.Offset, found = t.goFns.Resolve(addr)
	}
	if !found {
		f.Offset = 0
		return
	}
	f.Symbol, f.Name = sym.Name, sym.Name
	if !p.s.o.Mangled {
		f.Name = Demangle(sym.Name, p.s.o.Params)
	}
	if !p.s.o.Lines {
		return
	}
	if t.goFns != nil {
		f.File, f.Line, _ = t.goFns.Line(addr)
	}
	if f.File == "" && t.debug != nil {
		if file, line, err := t.debug.Line(addr); err == nil {
			f.File, f.Line = file, line
		}
	}
}

// fromJIT looks into the perf map, which is read once for each Process:
// a later Capture sees a later map.
func (p *Process) fromJIT(f *Frame) {
	if !p.jit.tried {
		p.jit.tried = true
		if r, err := p.s.o.Files.OpenPerfMap(p.pid); err == nil {
			p.jit.m, _ = ParsePerfMap(r)
			r.Close()
		}
	}
	if p.jit.m == nil {
		return
	}
	if name, off, ok := p.jit.m.Resolve(f.Addr); ok {
		f.Name, f.Symbol, f.Offset = name, name, off
	}
}

// PID returns the process's number.
func (p *Process) PID() int { return p.pid }

// Mappings returns the memory map, which must not be changed.
func (p *Process) Mappings() []Mapping { return p.maps }
