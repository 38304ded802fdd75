package target

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/symbol"
)

// A Binary is what attach points need to know of a user ELF file.
type Binary struct {
	// Functions are the names of its function symbols, sorted, each once.
	Functions []string
	// Probes are its USDT probes, sorted, each name once.
	Probes []UserProbe
}

// A UserProbe names a USDT probe.
type UserProbe struct {
	Namespace, Name string
}

// maxNotes bounds the section of USDT notes that is read.
const maxNotes = 16 << 20

// ReadBinary reads the function symbols and USDT notes of an ELF file.
func ReadBinary(r io.ReaderAt) (b *Binary, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("it is no ELF file that can be read: %w", err)
	}
	b = &Binary{}
	for _, read := range []func() ([]elf.Symbol, error){f.Symbols, f.DynamicSymbols} {
		symbols, err := read()
		if err != nil {
			continue // stripped
		}
		for _, s := range symbols {
			if t := elf.ST_TYPE(s.Info); (t == elf.STT_FUNC || t == sttGNUIfunc) && s.Section != elf.SHN_UNDEF && s.Name != "" {
				b.Functions = append(b.Functions, s.Name)
			}
		}
	}
	if f.Section(".symtab") == nil {
		// A stripped Go binary still has the table its runtime needs.
		if file, err := symbol.NewBinary(r); err == nil {
			if funcs, err := file.GoFuncs(); err == nil {
				for s := range funcs.All() {
					b.Functions = append(b.Functions, s.Name)
				}
			}
		}
	}
	slices.Sort(b.Functions)
	b.Functions = slices.Compact(b.Functions)
	if s := f.Section(".note.stapsdt"); s != nil && s.Size <= maxNotes {
		data, err := s.Data()
		if err != nil {
			return nil, fmt.Errorf("its USDT notes cannot be read: %w", err)
		}
		b.Probes = usdtNotes(data, f)
	}
	return b, nil
}

// sttGNUIfunc is an indirect function: libc's string functions are such.
const sttGNUIfunc = elf.SymType(10)

// usdtNotes reads the notes that sys/sdt.h leaves: three addresses, then the
// namespace, name and arguments as strings.
func usdtNotes(data []byte, f *elf.File) []UserProbe {
	var probes []UserProbe
	word := 8
	if f.Class == elf.ELFCLASS32 {
		word = 4
	}
	for len(data) >= 12 {
		nameLen, descLen := uint64(f.ByteOrder.Uint32(data)), uint64(f.ByteOrder.Uint32(data[4:]))
		kind := f.ByteOrder.Uint32(data[8:])
		nameEnd := 12 + (nameLen+3)&^3
		descEnd := nameEnd + (descLen+3)&^3
		if nameEnd+descLen > uint64(len(data)) {
			break
		}
		name, desc := data[12:12+nameLen], data[nameEnd:nameEnd+descLen]
		if kind == 3 && string(name) == "stapsdt\x00" && len(desc) > 3*word {
			parts := bytes.SplitN(desc[3*word:], []byte{0}, 3)
			if len(parts) == 3 && len(parts[1]) > 0 {
				probes = append(probes, UserProbe{string(parts[0]), string(parts[1])})
			}
		}
		data = data[min(descEnd, uint64(len(data))):]
	}
	slices.SortFunc(probes, func(a, b UserProbe) int {
		return strings.Compare(a.Namespace+"\x00"+a.Name, b.Namespace+"\x00"+b.Name)
	})
	return slices.Compact(probes)
}

// searchPath is where programs are looked for by a bare name: the default of
// most shells for root.
var searchPath = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// ResolveBinary finds the file that a user probe means: an absolute path as it
// is, else a program in the usual directories, else a library by its name
// ("libc.so.6", "libc" or "c"). It reads the loader's cache for libraries.
func ResolveBinary(files Files, arch, name string) (string, error) {
	if path.IsAbs(name) {
		if !regular(files, name) {
			return "", fmt.Errorf("file %s: %w", name, ErrNotFound)
		}
		return name, nil
	}
	if strings.Contains(name, "/") {
		return "", fmt.Errorf("path %q is relative; write it from the root, with a slash in front", name)
	}
	for _, dir := range searchPath {
		if p := dir + "/" + name; regular(files, p) {
			return p, nil
		}
	}
	if p := findLibrary(files, arch, name); p != "" {
		return p, nil
	}
	return "", fmt.Errorf("there is neither a program nor a library called %q: %w", name, ErrNotFound)
}

func regular(files Files, name string) bool {
	f, err := files.OpenFile(name)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// libraryDirs are searched when the loader has no cache (musl).
var libraryDirs = []string{"/lib", "/usr/lib", "/usr/local/lib", "/lib64", "/usr/lib64"}

func findLibrary(files Files, arch, name string) string {
	fits := func(soname string) bool {
		return soname == name || strings.HasPrefix(soname, name+".so") || strings.HasPrefix(soname, "lib"+name+".so")
	}
	multiarch := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu", "riscv64": "riscv64-linux-gnu"}[arch]
	if f, err := files.OpenFile("/etc/ld.so.cache"); err == nil {
		data, err := io.ReadAll(io.LimitReader(f, 16<<20))
		f.Close()
		if err == nil {
			// The cache stands in descending order of names; the first that
			// this architecture can use is what the loader would take.
			for _, e := range loaderCache(data) {
				if fits(e.soname) && usable(files, e.path, arch) {
					return e.path
				}
			}
		}
	}
	dirs := libraryDirs
	if multiarch != "" {
		dirs = append([]string{"/lib/" + multiarch, "/usr/lib/" + multiarch}, libraryDirs...)
	}
	for _, dir := range dirs {
		entries, err := fs.ReadDir(files, strings.TrimPrefix(dir, "/"))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if p := dir + "/" + e.Name(); fits(e.Name()) && usable(files, p, arch) {
				return p
			}
		}
	}
	return ""
}

// usable reports whether a file is a shared object of an architecture: "libc.so"
// may be a linker script.
func usable(files Files, name, arch string) bool {
	f, err := files.OpenFile(name)
	if err != nil {
		return false
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil {
		return false
	}
	machine, known := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64, "riscv64": elf.EM_RISCV}[arch]
	return !known || e.Machine == machine
}

type cacheEntry struct {
	soname, path string
}

// loaderCache reads glibc's ld.so.cache in the format that it has had since
// 2.32 alone, and since 2.2 after an older part (elf/cache.c).
func loaderCache(data []byte) []cacheEntry {
	const cacheMagic = "glibc-ld.so.cache1.1"
	i := bytes.Index(data, []byte(cacheMagic))
	if i < 0 {
		return nil
	}
	data = data[i:]
	const header, entry = 48, 24
	if len(data) < header {
		return nil
	}
	// The cache is of the machine that runs the loader: all of ours are
	// little-endian.
	order := binary.LittleEndian
	n := uint64(order.Uint32(data[20:]))
	if n > uint64(len(data)-header)/entry {
		return nil
	}
	str := func(off uint32) (string, bool) {
		if uint64(off) >= uint64(len(data)) {
			return "", false
		}
		s, _, ok := bytes.Cut(data[off:], []byte{0})
		return string(s), ok
	}
	var all []cacheEntry
	for e := data[header : header+n*entry]; len(e) > 0; e = e[entry:] {
		soname, ok1 := str(order.Uint32(e[4:]))
		file, ok2 := str(order.Uint32(e[8:]))
		if ok1 && ok2 && path.IsAbs(file) {
			all = append(all, cacheEntry{soname, file})
		}
	}
	return all
}
