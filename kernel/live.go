//go:build linux

package kernel

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/target"
)

// Target returns what is known of the machine that this process runs on.
// Nothing is read but the kernel's release and the number of CPUs until a
// method asks for it; each file is read once in the life of the process.
var Target = sync.OnceValues(func() (target.Target, error) { return target.New(live{}) })

// live is the target.Source of the running kernel.
type live struct{}

const btfDir = "/sys/kernel/btf"

func (live) Facts() (target.Facts, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return target.Facts{}, fmt.Errorf("the kernel does not say its release: %w", err)
	}
	release, err := target.ParseRelease(unix.ByteSliceToString(u.Release[:]))
	if err != nil {
		return target.Facts{}, err
	}
	return target.Facts{
		Name: "this machine", Arch: runtime.GOARCH, Release: release,
		CPUs: possibleCPUs(), PageSize: os.Getpagesize(),
	}, nil
}

// possibleCPUs counts the slots of per-CPU maps; without sysfs the CPUs of
// this process have to do.
func possibleCPUs() int {
	text, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return runtime.NumCPU()
	}
	n, err := parseCPUs(strings.TrimSpace(string(text)))
	if err != nil {
		return runtime.NumCPU()
	}
	return n
}

// parseCPUs returns the highest number in a list such as "0-3,8" plus one:
// the kernel numbers the slots of per-CPU maps so.
func parseCPUs(list string) (int, error) {
	highest := -1
	for part := range strings.SplitSeq(list, ",") {
		first, last, ok := strings.Cut(part, "-")
		if !ok {
			last = first
		}
		n, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("list of CPUs %q cannot be read: %w", list, err)
		}
		highest = max(highest, int(n))
	}
	return highest + 1, nil
}

// HZ looks for CONFIG_HZ: no system call tells it.
func (live) HZ() int {
	var config []byte
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		if z, err := gzip.NewReader(f); err == nil {
			config, _ = io.ReadAll(io.LimitReader(z, 16<<20))
		}
	} else {
		var u unix.Utsname
		if unix.Uname(&u) == nil {
			config, _ = os.ReadFile("/boot/config-" + unix.ByteSliceToString(u.Release[:]))
		}
	}
	_, rest, ok := bytes.Cut(config, []byte("\nCONFIG_HZ="))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	hz, err := strconv.Atoi(string(line))
	if err != nil || hz < 1 || hz > 1<<20 {
		return 0
	}
	return hz
}

func (live) BTF(module string) ([]byte, error) {
	name := module
	if name == "" {
		name = "vmlinux"
	}
	raw, err := mapFile(filepath.Join(btfDir, name))
	switch {
	case err == nil:
		return raw, nil
	case errors.Is(err, fs.ErrNotExist) && module == "":
		return nil, target.Unknownf("the kernel has no type information (%s/vmlinux): it needs CONFIG_DEBUG_INFO_BTF=y", btfDir)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("module %s has no type information, or is not loaded: %w", module, target.ErrNotFound)
	}
	return nil, cannotRead(filepath.Join(btfDir, name), err)
}

// mapFile maps a file of sysfs that never changes, so that only the pages that
// are looked at take memory (since Linux 6.16), or else reads it.
func mapFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	if size <= 0 || size >= 1<<30 {
		return io.ReadAll(f)
	}
	// The mapping stays for the life of the process: types refer to it.
	if raw, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_PRIVATE); err == nil {
		return raw, nil
	}
	raw := make([]byte, size)
	_, err = io.ReadFull(f, raw)
	return raw, err
}

func (live) BTFModules() ([]string, error) {
	entries, err := os.ReadDir(btfDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, cannotRead(btfDir, err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != "vmlinux" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (live) Events() ([]byte, error) {
	t, err := OpenTraceFS()
	if err != nil {
		return nil, err
	}
	return t.ReadFile("available_events")
}

func (live) Format(subsystem, event string) ([]byte, error) {
	t, err := OpenTraceFS()
	if err != nil {
		return nil, err
	}
	text, err := t.ReadFile("events/" + subsystem + "/" + event + "/format")
	if errors.Is(err, target.ErrNotFound) {
		return nil, fmt.Errorf("tracepoint %s:%s: %w", subsystem, event, target.ErrNotFound)
	}
	return text, err
}

func (live) Functions() ([]byte, error) {
	t, err := OpenTraceFS()
	if err != nil {
		return nil, err
	}
	text, err := t.ReadFile("available_filter_functions")
	if errors.Is(err, target.ErrNotFound) {
		return nil, target.Unknownf("the kernel does not list the functions that can be traced (CONFIG_DYNAMIC_FTRACE)")
	}
	return text, err
}

func (live) Symbols() ([]byte, error) {
	const path = "/proc/kallsyms"
	f, err := os.Open(path)
	if err != nil {
		return nil, cannotRead(path, err)
	}
	defer f.Close()
	// The file does not tell its size; kernels have 3 to 12 MiB of symbols.
	var b bytes.Buffer
	b.Grow(6 << 20)
	if _, err := b.ReadFrom(f); err != nil {
		return nil, cannotRead(path, err)
	}
	return b.Bytes(), nil
}

// cannotRead puts the failure to read a file into words.
func cannotRead(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0:
		return target.Unknownf("%s may not be read by this user; run as root", path)
	case errors.Is(err, fs.ErrPermission):
		return target.Unknownf("%s may not be read, not even by root: the system is locked down or this is a container", path)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", path, target.ErrNotFound)
	}
	return fmt.Errorf("%s cannot be read: %w", path, err)
}

func (live) Feature(name target.FeatureName) target.Feature { return probe(name) }

func (live) Files(pid int) (target.Files, error) { return openRoot(pid) }

// A TraceFS is the kernel's tracing file system, opened wherever it is.
type TraceFS struct {
	dir int // O_PATH descriptor of its root, open for the life of the process
}

// OpenTraceFS finds tracefs where it is usually mounted. Where it is not, a
// mount of its own is made that has no place in the file system and vanishes
// with the process, so the machine stays as it is. The error wraps
// target.ErrUnknown and says what to do.
var OpenTraceFS = sync.OnceValues(func() (*TraceFS, error) {
	for _, path := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Statfs_t
		if unix.Fstatfs(fd, &st) == nil && st.Type == unix.TRACEFS_MAGIC {
			return &TraceFS{fd}, nil
		}
		unix.Close(fd)
	}
	fd, err := detachedMount("tracefs")
	switch {
	case err == nil:
		return &TraceFS{fd}, nil
	case errors.Is(err, unix.ENODEV):
		return nil, target.Unknownf("the kernel has no tracefs, and so no tracepoints (CONFIG_FTRACE)")
	}
	return nil, target.Unknownf("tracefs is not mounted: run as root, or mount -t tracefs tracefs /sys/kernel/tracing")
})

// detachedMount mounts a file system without a place in the tree, and returns
// a descriptor of its root.
func detachedMount(fstype string) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// Open opens a file by its path below the root of tracefs.
func (t *TraceFS) Open(path string, flags int) (*os.File, error) {
	fd, err := unix.Openat(t.dir, path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, cannotRead("tracefs:"+path, err)
	}
	return os.NewFile(uintptr(fd), "tracefs:"+path), nil
}

// ReadFile reads a file by its path below the root of tracefs.
func (t *TraceFS) ReadFile(path string) ([]byte, error) {
	f, err := t.Open(path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, cannotRead("tracefs:"+path, err)
	}
	return data, nil
}

// Mounted reports whether tracefs has a place in the file system.
func (t *TraceFS) Mounted() bool {
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(t.dir))
	return err == nil && slices.Contains([]string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}, path)
}
