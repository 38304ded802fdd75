package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// pinName is a name as the bpf file system takes it, which has no dots.
func pinName(name string) string { return strings.NewReplacer(".", "_", "/", "_").Replace(name) }

func linkPath(dir, program string, n int) string {
	name := pinName(program)
	if n > 0 {
		name += "_" + strconv.Itoa(n)
	}
	return filepath.Join(dir, pinLinks, name)
}

// pin is BPF_OBJ_PIN.
func pin(fd int, path string) error {
	p, err := cstring(path)
	if err != nil {
		return err
	}
	_, err = sysBPF(cmdObjPin, &attrObj{path: p, fd: uint32(fd)})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("something is pinned at %s already: %w", path, fs.ErrExist)
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s cannot be pinned: the directory is not there: %w", path, fs.ErrNotExist)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL):
		if dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			defer unix.Close(dir)
			if !isBPFFS(dir) {
				return fmt.Errorf("%s is on no bpf file system: pins live there alone (mount -t bpf bpf %s)", path, pinRoot)
			}
		}
	}
	return fmt.Errorf("%s cannot be pinned: %w", path, refusedOr(err, "pinning"))
}

// pinOver pins in place of what is pinned there, without a moment in which
// there is neither. What was there goes after a grace period of the kernel's:
// for some milliseconds an old and a new link may both see an event.
func pinOver(fd int, path string) error {
	err := pin(fd, path)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	next := path + "_new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s cannot be replaced: %w", path, err)
	}
	if err := pin(fd, next); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		os.Remove(next)
		return fmt.Errorf("%s cannot be replaced: %w", path, err)
	}
	return nil
}

func (l *loaded) Pin(dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	for _, sub := range []string{pinProgs, pinMaps, pinLinks} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("%s cannot be made for pins: %w", dir, err)
		}
	}
	// What was made new is removed when something fails: half an object helps
	// nobody.
	var made []string
	put := func(fd int, path string) error {
		_, err := os.Lstat(path)
		isNew := errors.Is(err, fs.ErrNotExist)
		if err := pinOver(fd, path); err != nil {
			return err
		}
		if isNew {
			made = append(made, path)
		}
		return nil
	}
	err := l.pinAll(dir, put)
	if err != nil {
		for _, path := range made {
			os.Remove(path)
		}
		for _, sub := range []string{pinProgs, pinMaps, pinLinks} {
			os.Remove(filepath.Join(dir, sub)) // where they are empty
		}
		os.Remove(dir)
	}
	return err
}

func (l *loaded) pinAll(dir string, put func(fd int, path string) error) error {
	kept := make(map[string]bool)
	keep := func(fd int, path string) error {
		kept[path] = true
		return put(fd, path)
	}
	for _, m := range l.maps {
		if err := keep(m.fd, filepath.Join(dir, pinMaps, pinName(m.name))); err != nil {
			return err
		}
	}
	for _, p := range l.order {
		for i, v := range p.variants {
			name := pinName(p.name)
			if i > 0 {
				name += "_" + strconv.Itoa(i)
			}
			if err := keep(v.fd, filepath.Join(dir, pinProgs, name)); err != nil {
				return err
			}
		}
	}
	count := make(map[string]int)
	for _, k := range l.sortedLinks() {
		if k.fd < 0 && k.other < 0 && k.detach == nil {
			continue // the link of another program serves it
		}
		if k.fd < 0 {
			return fmt.Errorf("%s cannot be pinned: there is no link for it that could be kept", k.point)
		}
		path := linkPath(dir, k.program, count[k.program])
		count[k.program]++
		kept[path] = true
		if k.pinned && l.taken[path] {
			continue // it is the one that is pinned there
		}
		if err := keep(k.fd, path); err != nil {
			return err
		}
		k.pinned = true
	}
	// What an object had that was here before, and this one has no more. Links
	// go first, so that nothing runs half.
	for _, sub := range []string{pinLinks, pinProgs, pinMaps} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			return fmt.Errorf("%s cannot be read: %w", dir, err)
		}
		for _, e := range entries {
			if path := filepath.Join(dir, sub, e.Name()); !kept[path] {
				if err := os.Remove(path); err != nil {
					return fmt.Errorf("the pin of an older object cannot be removed: %w", err)
				}
			}
		}
	}
	return nil
}
