//go:build linux

package guest

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// program returns an executable and, if it is dynamic, its interpreter and
// every library that it needs, found as ld.so(8) finds them.
func program(path string) (Files, error) {
	files := Files{path: path}
	interp, err := collect(files, path)
	if err != nil {
		return nil, fmt.Errorf("collecting the libraries of %s: %w", path, err)
	}
	if interp != "" {
		files[interp] = interp
	}
	return files, nil
}

// isStatic reports whether an ELF file asks for no interpreter.
func isStatic(path string) bool {
	interp, err := collect(Files{}, path)
	return err == nil && interp == ""
}

// collect adds the libraries of one ELF file to files, and those that they
// need in turn, and returns its interpreter.
func collect(files Files, path string) (interp string, err error) {
	f, err := elf.Open(path)
	if err != nil {
		var bad *elf.FormatError
		if errors.As(err, &bad) {
			return "", fmt.Errorf("%s is no ELF file; only those have libraries to collect", path)
		}
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return "", err
			}
			interp = strings.TrimRight(string(b), "\x00")
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		// No dynamic section: static.
		return interp, nil
	}
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RPATH, elf.DT_RUNPATH} {
		paths, _ := f.DynString(tag)
		for _, p := range paths {
			for d := range strings.SplitSeq(p, ":") {
				dirs = append(dirs, strings.NewReplacer("$ORIGIN", filepath.Dir(path), "${ORIGIN}", filepath.Dir(path)).Replace(d))
			}
		}
	}
	dirs = append(dirs, libraryDirs()...)
	for _, name := range names {
		lib, ok := findLibrary(dirs, name, f.Machine)
		if !ok {
			return "", fmt.Errorf("%s needs %s, which is in none of %s", path, name, strings.Join(dirs, ", "))
		}
		if _, seen := files[lib]; seen {
			continue
		}
		files[lib] = lib
		if _, err := collect(files, lib); err != nil {
			return "", err
		}
	}
	return interp, nil
}

func findLibrary(dirs []string, name string, machine elf.Machine) (string, bool) {
	if filepath.IsAbs(name) {
		dirs = []string{"/"}
	}
	for _, d := range dirs {
		p := filepath.Join(d, name)
		f, err := elf.Open(p)
		if err != nil {
			continue
		}
		f.Close()
		if f.Machine == machine {
			return p, true
		}
	}
	return "", false
}

// libraryDirs lists where ld.so looks by default: Debian's multiarch
// directory, what ld.so.conf adds, the traditional ones.
func libraryDirs() []string {
	dirs := []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"}
	confs, _ := filepath.Glob("/etc/ld.so.conf.d/*.conf")
	for _, c := range confs {
		b, err := os.ReadFile(c)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
				dirs = append(dirs, line)
			}
		}
	}
	return append(dirs, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}
