//go:build linux

package guest

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// An initramfs collects files and writes them as a cpio archive in the "newc"
// format (Documentation/driver-api/early-userspace/buffer-format.rst).
type initramfs struct {
	entries map[string]entry // by path without the leading slash
}

type entry struct {
	mode uint32 // type and permissions, as in stat(2)
	dev  [2]uint32
	data []byte
}

const (
	modeDir  = 0o040000
	modeReg  = 0o100000
	modeLink = 0o120000
	modeChar = 0o020000
)

// usrMerged are the top directories that Debian keeps below /usr, and so do
// guests: the paths of a host's libraries fit either spelling.
var usrMerged = []string{"bin", "sbin", "lib", "lib64"}

func newInitramfs() *initramfs {
	a := &initramfs{entries: map[string]entry{}}
	for _, d := range usrMerged {
		a.entries[d] = entry{mode: modeLink | 0o777, data: []byte("usr/" + d)}
		a.dir("usr/" + d)
	}
	for _, d := range []string{"dev", "proc", "sys", "tmp", "run", "root", "etc"} {
		a.dir(d)
	}
	// The kernel opens this as descriptors 0 to 2 of process 1, before devtmpfs.
	a.entries["dev/console"] = entry{mode: modeChar | 0o600, dev: [2]uint32{5, 1}}
	a.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	a.file("/etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	a.file("/etc/hosts", 0o644, []byte("127.0.0.1 localhost\n"))
	return a
}

// clean returns the archive's name of an absolute path.
func clean(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	if first, _, deeper := strings.Cut(p, "/"); deeper && slices.Contains(usrMerged, first) {
		p = "usr/" + p
	}
	return p
}

func (a *initramfs) dir(name string) {
	for ; name != "." && name != "" && name != "/"; name = path.Dir(name) {
		if _, ok := a.entries[name]; ok {
			return
		}
		a.entries[name] = entry{mode: modeDir | 0o755}
	}
}

func (a *initramfs) file(p string, perm uint32, data []byte) {
	name := clean(p)
	a.dir(path.Dir(name))
	a.entries[name] = entry{mode: modeReg | perm&0o7777, data: data}
}

func (a *initramfs) symlink(p, target string) {
	name := clean(p)
	a.dir(path.Dir(name))
	a.entries[name] = entry{mode: modeLink | 0o777, data: []byte(target)}
}

// add adds files of the host.
func (a *initramfs) add(files Files) error {
	return eachFile(files, func(dst, src string, perm fs.FileMode) error {
		data, err := os.ReadFile(src)
		if err != nil {
			return err
		}
		a.file(dst, uint32(perm.Perm()), data)
		return nil
	})
}

// eachFile calls f for every regular file that files stands for, in the order
// of their names, with absolute paths. Symbolic links are followed.
func eachFile(files Files, f func(dst, src string, perm fs.FileMode) error) error {
	for _, dst := range slices.Sorted(maps.Keys(files)) {
		src := files[dst]
		dst, err := filepath.Abs(dst)
		if err != nil {
			return err
		}
		err = filepath.WalkDir(src, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := os.Stat(p)
			if err != nil {
				return err
			}
			if info.IsDir() {
				if d.Type()&fs.ModeSymlink != 0 {
					return fmt.Errorf("%s: a symbolic link to a directory cannot be copied into a guest; name the directory itself", p)
				}
				return nil
			}
			if !info.Mode().IsRegular() {
				return fmt.Errorf("%s: only regular files can be copied into a guest", p)
			}
			rel, err := filepath.Rel(src, p)
			if err != nil {
				return err
			}
			return f(filepath.Join(dst, rel), p, info.Mode())
		})
		if err != nil {
			return fmt.Errorf("guest file %s: %w", dst, err)
		}
	}
	return nil
}

// bytes returns the archive. It is not compressed: inflating it would cost the
// emulated processor more than QEMU needs to copy it.
func (a *initramfs) bytes() []byte {
	size := 0
	for name, e := range a.entries {
		size += 128 + len(name) + len(e.data)
	}
	b := bytes.NewBuffer(make([]byte, 0, size))
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	put := func(ino int, name string, e entry) {
		nlink := 1
		if e.mode&^0o7777 == modeDir {
			nlink = 2
		}
		// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
		// rdevminor namesize check
		fmt.Fprintf(b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			ino, e.mode, 0, 0, nlink, 0, len(e.data), 0, 0, e.dev[0], e.dev[1], len(name)+1, 0, name)
		pad()
		b.Write(e.data)
		pad()
	}
	// Sorted, a directory comes before what it holds.
	for i, name := range slices.Sorted(maps.Keys(a.entries)) {
		put(i+1, name, a.entries[name])
	}
	put(0, "TRAILER!!!", entry{})
	return b.Bytes()
}
