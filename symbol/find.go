package symbol

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// A Library is one entry of the dynamic linker's cache.
type Library struct {
	Soname string // "libc.so.6"
	Path   string // "/lib/x86_64-linux-gnu/libc.so.6"
	Flags  uint32 // kind of library and architecture, glibc's sysdeps/generic/ldconfig.h
}

const (
	cacheMagicOld = "ld.so-1.7.0"
	cacheMagicNew = "glibc-ld.so.cache1.1"
	maxCache      = 64 << 20
)

// ParseLibraryCache decodes /etc/ld.so.cache in the format of glibc 2.2 and
// later (glibc, sysdeps/generic/dl-cache.h), also when it stands behind the older
// format.
func ParseLibraryCache(data []byte) ([]Library, error) {
	if bytes.HasPrefix(data, []byte(cacheMagicOld)) {
		if len(data) < 16 {
			return nil, errors.New("library cache: too short")
		}
		// Behind the old table, aligned to 8 bytes.
		n := uint64(binary.NativeEndian.Uint32(data[12:]))
		at := (16 + n*12 + 7) &^ 7
		if at > uint64(len(data)) {
			return nil, errors.New("library cache: only the format before glibc 2.2")
		}
		data = data[at:]
	}
	const header, entry = 48, 24
	if len(data) < header || !bytes.HasPrefix(data, []byte(cacheMagicNew)) {
		return nil, errors.New("library cache: unknown format")
	}
	// The cache is in the byte order of its machine; a count is small.
	var order binary.ByteOrder = binary.LittleEndian
	n := uint64(order.Uint32(data[20:]))
	if n > uint64(len(data))/entry {
		order = binary.BigEndian
		n = uint64(order.Uint32(data[20:]))
	}
	if n > uint64(len(data)-header)/entry {
		return nil, errors.New("library cache: more entries than bytes")
	}
	str := func(off uint32) string {
		if uint64(off) >= uint64(len(data)) {
			return ""
		}
		s := data[off:min(uint64(off)+4096, uint64(len(data)))]
		return cString(s)
	}
	libs := make([]Library, 0, n)
	for i := range n {
		e := data[header+i*entry:]
		l := Library{Flags: order.Uint32(e), Soname: str(order.Uint32(e[4:])), Path: str(order.Uint32(e[8:]))}
		if l.Soname != "" && l.Path != "" {
			libs = append(libs, l)
		}
	}
	return libs, nil
}

// cacheFlags is what the upper bits of Library.Flags say for a machine's
// usual 64-bit libraries, FLAG_X8664_LIB64 and the like.
func cacheFlags(m elf.Machine) (uint32, bool) {
	switch m {
	case elf.EM_X86_64:
		return 0x0300, true
	case elf.EM_AARCH64:
		return 0x0a00, true
	case elf.EM_RISCV:
		return 0x1000, true
	}
	return 0, false
}

// matchesLibrary reports whether the file name base is the library called
// name: the name itself, or name or libname followed by ".so" and perhaps a version.
func matchesLibrary(base, name string) bool {
	return base == name || strings.HasPrefix(base, name+".so") || strings.HasPrefix(base, "lib"+name+".so")
}

// libraryRank orders candidates for name: the exact file, then name.so, then libname.so.
func libraryRank(base, name string) int {
	switch {
	case base == name:
		return 0
	case strings.HasPrefix(base, name+".so"):
		return 1
	}
	return 2
}

// FindLibrary returns the path in fsys of a shared library by its short name:
// "libc", "libc.so.6" or "c". It asks the dynamic linker's cache, then looks
// into the directories of /etc/ld.so.conf and the usual ones. Only libraries
// of machine count, of any 64-bit ELF machine when it is EM_NONE. The error
// is a [*NotFoundError].
func FindLibrary(fsys fs.FS, name string, machine elf.Machine) (string, error) {
	notFound := &NotFoundError{Kind: "library", Name: name}
	if name == "" || strings.ContainsRune(name, '/') {
		return "", notFound
	}
	usable := func(p string) bool {
		b, err := OpenBinary(fsys, p)
		if err != nil {
			return false
		}
		defer b.Close()
		return b.Is64() && (machine == elf.EM_NONE || b.Machine() == machine)
	}
	best := func(paths []string) string {
		slices.SortStableFunc(paths, func(a, b string) int {
			return libraryRank(path.Base(a), name) - libraryRank(path.Base(b), name)
		})
		for _, p := range paths {
			if usable(p) {
				return p
			}
		}
		return ""
	}
	if data, err := readLimited(fsys, "/etc/ld.so.cache", maxCache); err == nil {
		if libs, err := ParseLibraryCache(data); err == nil {
			flags, known := cacheFlags(machine)
			var paths []string
			for _, l := range libs {
				if matchesLibrary(l.Soname, name) && (!known || l.Flags&0xff00 == flags) {
					paths = append(paths, l.Path)
				}
			}
			if p := best(paths); p != "" {
				return p, nil
			}
		}
	}
	for _, dir := range LibraryDirs(fsys) {
		entries, _ := fs.ReadDir(fsys, fsName(dir))
		var paths []string
		for _, e := range entries {
			if matchesLibrary(e.Name(), name) {
				paths = append(paths, path.Join(dir, e.Name()))
			}
		}
		if p := best(paths); p != "" {
			return p, nil
		}
	}
	return "", notFound
}

func readLimited(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(fsName(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: %w", name, ErrTooLarge)
	}
	return data, err
}

// LibraryDirs returns the directories where the dynamic linker looks for
// libraries: those of /etc/ld.so.conf with its includes, those of musl's
// /etc/ld-musl-*.path, then the built-in ones.
func LibraryDirs(fsys fs.FS) []string {
	var dirs []string
	add := func(dir string) {
		if dir = path.Clean("/" + dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	var conf func(name string, depth int)
	conf = func(name string, depth int) {
		data, err := readLimited(fsys, name, 1<<20)
		if err != nil || depth > 8 {
			return
		}
		for line := range strings.Lines(string(data)) {
			line, _, _ = strings.Cut(line, "#")
			words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n,:", r) })
			if len(words) == 0 || words[0] == "hwcap" {
				continue
			}
			if words[0] != "include" {
				for _, w := range words {
					if strings.HasPrefix(w, "/") {
						add(w)
					}
				}
				continue
			}
			for _, pattern := range words[1:] {
				if !strings.HasPrefix(pattern, "/") {
					pattern = path.Join(path.Dir(name), pattern)
				}
				files, _ := fs.Glob(fsys, fsName(pattern))
				for _, f := range files[:min(len(files), 256)] {
					conf(f, depth+1)
				}
			}
		}
	}
	conf("/etc/ld.so.conf", 0)
	if files, _ := fs.Glob(fsys, "etc/ld-musl-*.path"); len(files) > 0 {
		if data, err := readLimited(fsys, files[0], 1<<20); err == nil {
			for _, w := range strings.FieldsFunc(string(data), func(r rune) bool { return r == ':' || r == '\n' }) {
				add(strings.TrimSpace(w))
			}
		}
	}
	for _, dir := range []string{"/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"} {
		add(dir)
		// Debian's multiarch directories.
		triplets, _ := fs.Glob(fsys, fsName(dir)+"/*-linux-*")
		for _, t := range triplets[:min(len(triplets), 16)] {
			add(t)
		}
	}
	return dirs
}

// FindExecutable returns the path in fsys of the command name: name itself
// when it has a slash, else the first executable file of that name in the
// directories of pathEnv, the value of PATH. Relative names count from the
// root of fsys. The error is a [*NotFoundError], or fs.ErrPermission wrapped when the
// only such file is not executable.
func FindExecutable(fsys fs.FS, pathEnv, name string) (string, error) {
	check := func(p string) error {
		st, err := fs.Stat(fsys, fsName(p))
		switch {
		case err != nil:
			return err
		case st.IsDir():
			return &fs.PathError{Op: "find", Path: p, Err: errors.New("is a directory")}
		case st.Mode()&0o111 == 0:
			return &fs.PathError{Op: "find", Path: p, Err: fs.ErrPermission}
		}
		return nil
	}
	if strings.ContainsRune(name, '/') {
		err := check(name)
		if errors.Is(err, fs.ErrNotExist) {
			return "", &NotFoundError{Kind: "file", Name: name}
		}
		return path.Clean("/" + name), err
	}
	var denied error
	if name != "" {
		for _, dir := range strings.Split(pathEnv, ":") {
			if dir == "" || dir[0] != '/' {
				continue // an empty or relative entry is somebody's working directory
			}
			p := path.Join(dir, name)
			err := check(p)
			if err == nil {
				return p, nil
			}
			if denied == nil && errors.Is(err, fs.ErrPermission) {
				denied = err
			}
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &NotFoundError{Kind: "command", Name: name, In: "PATH"}
}

// maxShebang is how much of a script's first line the kernel reads (BINPRM_BUF_SIZE).
const maxShebang = 256

// maxInterpreters is how many scripts deep the kernel follows interpreters.
const maxInterpreters = 5

// FindProgram is [FindExecutable] followed through scripts: where the file
// starts with "#!", the ELF file that interprets it is returned, and
// `#!/usr/bin/env name` is looked up in pathEnv.
func FindProgram(fsys fs.FS, pathEnv, name string) (string, error) {
	p, err := FindExecutable(fsys, pathEnv, name)
	if err != nil {
		return "", err
	}
	for range maxInterpreters {
		words, err := shebang(fsys, p)
		if err != nil || len(words) == 0 {
			return p, err
		}
		next := words[0]
		if path.Base(next) == "env" {
			for _, w := range words[1:] {
				if !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") {
					next = w
					break
				}
			}
		}
		if p, err = FindExecutable(fsys, pathEnv, next); err != nil {
			return "", fmt.Errorf("interpreter of a script: %w", err)
		}
	}
	return "", fmt.Errorf("%s: scripts interpreted by scripts, more than %d deep", name, maxInterpreters)
}

// shebang returns the words of the line behind "#!", none if there is none.
func shebang(fsys fs.FS, name string) ([]string, error) {
	f, err := fsys.Open(fsName(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line, err := bufio.NewReaderSize(io.LimitReader(f, maxShebang), maxShebang).ReadString('\n')
	if err != nil && err != io.EOF {
		return nil, err
	}
	rest, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return nil, nil
	}
	return strings.Fields(rest), nil
}

// ResolveBinary finds what the author of a probe calls a binary: a path, a
// command of PATH, or the short name of a library, in this order. Scripts
// lead to their interpreter. machine is as for [FindLibrary]. The error is a
// [*NotFoundError].
func ResolveBinary(fsys fs.FS, pathEnv, name string, machine elf.Machine) (string, error) {
	p, err := FindProgram(fsys, pathEnv, name)
	if err == nil {
		return p, nil
	}
	// A library need not be executable.
	if strings.ContainsRune(name, '/') {
		if st, statErr := fs.Stat(fsys, fsName(name)); statErr == nil && !st.IsDir() {
			return path.Clean("/" + name), nil
		}
		return "", err
	}
	if p, libErr := FindLibrary(fsys, name, machine); libErr == nil {
		return p, nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return "", err
	}
	return "", &NotFoundError{Kind: "binary or library", Name: name, In: "PATH or among the system's libraries"}
}
