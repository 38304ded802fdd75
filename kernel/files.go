//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/target"
)

// rootFiles is the file system as a process sees it. The kernel resolves
// paths and symbolic links inside the root that dir is, so that a container
// cannot lead skep to files of the host.
type rootFiles struct {
	root string   // "" or /proc/PID/root
	dir  *os.File // O_PATH
}

func openRoot(pid int) (target.Files, error) {
	root, shown := "", "/"
	if pid != 0 {
		root = "/proc/" + strconv.Itoa(pid) + "/root"
		shown = root
	}
	fd, err := unix.Open(shown, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return &rootFiles{root, os.NewFile(uintptr(fd), shown)}, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no process %d: %w", pid, target.ErrNotFound)
	}
	return nil, cannotRead(shown, err)
}

func (r *rootFiles) open(name string, flags uint64) (*os.File, error) {
	fd, err := unix.Openat2(int(r.dir.Fd()), name, &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), r.root+"/"+strings.TrimPrefix(name, "/")), nil
}

// Open opens a file or directory by a path of the form that io/fs uses.
func (r *rootFiles) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return r.open(name, unix.O_RDONLY)
}

// OpenFile opens a regular file by its absolute path.
func (r *rootFiles) OpenFile(name string) (target.File, error) {
	if !path.IsAbs(name) {
		return nil, fmt.Errorf("path %q does not start with a slash", name)
	}
	f, err := r.open(name, unix.O_RDONLY)
	if err != nil {
		if errors.Is(err, unix.ENOTDIR) || errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("file %s: %w", r.root+name, target.ErrNotFound)
		}
		return nil, cannotRead(r.root+name, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", r.root+name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// HostPath resolves symbolic links as the process would, and puts its root in
// front.
func (r *rootFiles) HostPath(name string) (string, error) {
	if !path.IsAbs(name) {
		return "", fmt.Errorf("path %q does not start with a slash", name)
	}
	done, rest := "/", name
	for links := 0; rest != ""; {
		part, after, _ := strings.Cut(strings.TrimLeft(rest, "/"), "/")
		rest = after
		if part == "" || part == "." {
			continue
		}
		next := path.Join(done, part) // ".." stays below "/"
		if part == ".." {
			done = next
			continue
		}
		link, err := os.Readlink(r.root + next)
		switch {
		case err == nil:
			if links++; links > 40 {
				return "", fmt.Errorf("path %s goes round in symbolic links", r.root+name)
			}
			if path.IsAbs(link) {
				done = "/"
			}
			rest = link + "/" + rest
		case errors.Is(err, unix.EINVAL): // no link
			done = next
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
			return "", fmt.Errorf("file %s: %w", r.root+name, target.ErrNotFound)
		default:
			return "", cannotRead(r.root+next, err)
		}
	}
	return r.root + done, nil
}
