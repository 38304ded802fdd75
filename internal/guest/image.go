//go:build linux

package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// An image is an unpacked kernel package.
type image struct {
	Package string // linux-image-6.1.0-56-cloud-amd64
	Version string // 6.1.192-2
	Release string // what uname -r says: 6.1.0-56-cloud-amd64
	dir     string // of the unpacked package
	kernel  string // what QEMU boots
}

// cacheDir returns the directory that keeps what was fetched.
func cacheDir() (string, error) {
	dir := os.Getenv("SKEP_GUEST_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			// No home: a directory of this user, so that nobody else's kernel is booted.
			base = filepath.Join(os.TempDir(), fmt.Sprintf("skep-%d", os.Getuid()))
		}
		dir = filepath.Join(base, "skep", "guest")
	}
	return dir, os.MkdirAll(dir, 0o700)
}

// locked runs f while no other process does so for the same cache.
func locked(dir string, f func() error) error {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	return f()
}

var images sync.Map // Kernel to func() (*image, error)

// load returns the image of k, fetched if the cache has none. What was fetched
// once stays: remove the cache to follow Debian's updates. A failure is not
// tried again, so that a machine without a network loses its time once.
func (k Kernel) load() (*image, error) {
	once, _ := images.LoadOrStore(k, sync.OnceValues(k.loadOnce))
	return once.(func() (*image, error))()
}

func (k Kernel) loadOnce() (img *image, err error) {
	dir, err := cacheDir()
	if err != nil {
		return nil, err
	}
	err = locked(dir, func() error {
		img, err = readImage(dir, k)
		if errors.Is(err, fs.ErrNotExist) {
			if err = fetchKernel(dir, k); err == nil {
				img, err = readImage(dir, k)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kernel for the %s guest: %w", k, err)
	}
	return img, nil
}

func readImage(dir string, k Kernel) (*image, error) {
	base := filepath.Join(dir, k.Package)
	b, err := os.ReadFile(filepath.Join(base, "image.json"))
	if err != nil {
		return nil, err
	}
	img := &image{dir: base}
	if err := json.Unmarshal(b, img); err != nil {
		return nil, fmt.Errorf("%s: %w; remove the directory to fetch it again", base, err)
	}
	img.kernel = filepath.Join(base, "vmlinux")
	if _, err := os.Stat(img.kernel); err != nil {
		img.kernel = filepath.Join(base, "boot", "vmlinuz-"+img.Release)
	}
	return img, nil
}

// fetchKernel fills dir/PACKAGE, whole or not at all.
func fetchKernel(dir string, k Kernel) error {
	pkg, err := dependency(k)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "root")
	version, err := fetch(pkg, tmp, root)
	if err != nil {
		return err
	}
	img := image{Package: pkg, Version: version, Release: strings.TrimPrefix(pkg, "linux-image-")}
	vmlinuz, err := os.ReadFile(filepath.Join(root, "boot", "vmlinuz-"+img.Release))
	if err != nil {
		return err
	}
	// Unpacking the kernel here saves the emulated processor two seconds a
	// boot. Without the program for it the guest is slower, but works.
	if vmlinux, err := unpackKernel(vmlinuz); err == nil {
		if err := os.WriteFile(filepath.Join(root, "vmlinux"), vmlinux, 0o600); err != nil {
			return err
		}
	}
	b, err := json.Marshal(img)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "image.json"), b, 0o600); err != nil {
		return err
	}
	final := filepath.Join(dir, k.Package)
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	return os.Rename(root, final)
}

// dependency returns the package that k's metapackage depends on.
func dependency(k Kernel) (string, error) {
	var pkg string
	err := withLists(func() error {
		out, err := command("apt-cache", "depends", "--no-recommends", "--no-suggests", k.Package)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(out)) {
			if p, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image-"); ok {
				pkg = "linux-image-" + p
				return nil
			}
		}
		return fmt.Errorf("apt knows no package %s", k.Package)
	})
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(pkg, "linux-image-"+k.Series+".") {
		return "", fmt.Errorf("%s is %s here; the guest needs Linux %s, as Debian 12 has it", k.Package, pkg, k.Series)
	}
	return pkg, nil
}

// fetch downloads a Debian package below tmp, without installing it, unpacks
// it at root and returns its version.
func fetch(pkg, tmp, root string) (version string, err error) {
	err = withLists(func() error {
		// Debian's sandbox user cannot write here; a root that may unpack
		// kernels may download them too.
		cmd := exec.Command("apt-get", "-q", "-o", "APT::Sandbox::User="+userName(), "download", pkg)
		cmd.Dir = tmp
		return runCommand(cmd)
	})
	if err != nil {
		return "", err
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	out, err := command("dpkg-deb", "-f", debs[0], "Version")
	if err != nil {
		return "", err
	}
	if _, err := command("dpkg-deb", "-x", debs[0], root); err != nil {
		return "", err
	}
	return strings.TrimSpace(string(out)), os.Remove(debs[0])
}

func userName() string {
	if os.Geteuid() == 0 {
		return "root"
	}
	return "_apt"
}

// withLists runs f, and once more after apt-get update if it fails: a fresh
// machine has no package lists, an old one has lists of packages long gone.
// Only root may do that.
func withLists(f func() error) error {
	err := f()
	if err == nil {
		return nil
	}
	if _, lookErr := exec.LookPath("apt-get"); lookErr != nil {
		return errors.New("no apt-get here; guests are Debian's kernels, and need Debian 12 or a cache ($SKEP_GUEST_CACHE) that one filled")
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w; if the package lists are old or missing, run apt-get update as root", err)
	}
	if _, uerr := command("apt-get", "-q", "update"); uerr != nil {
		return fmt.Errorf("%w; and %w; is there a network?", err, uerr)
	}
	return f()
}

// busyboxPath returns a static busybox: the installed one, or one fetched.
var busyboxPath = sync.OnceValues(func() (string, error) {
	if p, err := exec.LookPath("busybox"); err == nil && isStatic(p) {
		return p, nil
	}
	dir, err := cacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "busybox")
	err = locked(dir, func() error {
		if isStatic(path) {
			return nil
		}
		tmp, err := os.MkdirTemp(dir, "fetch-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tmp)
		root := filepath.Join(tmp, "root")
		if _, err := fetch("busybox-static", tmp, root); err != nil {
			return err
		}
		for _, p := range []string{"usr/bin/busybox", "bin/busybox"} {
			if isStatic(filepath.Join(root, p)) {
				return os.Rename(filepath.Join(root, p), path)
			}
		}
		return errors.New("the package busybox-static holds no static busybox")
	})
	if err != nil {
		return "", fmt.Errorf("busybox for guests: %w (or: apt-get install busybox-static)", err)
	}
	return path, nil
})

// command runs a program and returns what it printed; its error holds the end
// of what it complained about.
func command(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout = &out
	err := runCommand(cmd)
	return out.Bytes(), err
}

func runCommand(cmd *exec.Cmd) error {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	if err := cmd.Run(); err != nil {
		complaint := strings.TrimSpace(stderr.String())
		if i := strings.LastIndexByte(complaint, '\n'); i >= 0 {
			complaint = complaint[i+1:]
		}
		if complaint != "" {
			complaint = ": " + complaint
		}
		return fmt.Errorf("%s: %w%s", strings.Join(cmd.Args, " "), err, complaint)
	}
	return nil
}

// unpackers are programs that inflate from standard input, by the first bytes.
var unpackers = []struct {
	magic   string
	program string
}{
	{"\x28\xb5\x2f\xfd", "zstd"},
	{"\x02\x21\x4c\x18", "lz4"},
	{"\xfd7zXZ\x00", "xz"},
	{"\x1f\x8b", "gzip"},
}

func unpack(b []byte) ([]byte, error) {
	for _, u := range unpackers {
		if !bytes.HasPrefix(b, []byte(u.magic)) {
			continue
		}
		if _, err := exec.LookPath(u.program); err != nil {
			return nil, fmt.Errorf("no %s in PATH to unpack with; apt-get install %s", u.program, strings.Replace(u.program, "xz", "xz-utils", 1))
		}
		cmd := exec.Command(u.program, "-dc")
		cmd.Stdin = bytes.NewReader(b)
		var out bytes.Buffer
		cmd.Stdout = &out
		// zstd complains about the four bytes of size that the kernel's build
		// puts behind its stream; what was unpacked is whole all the same, and
		// the caller checks that.
		if err := runCommand(cmd); err != nil && out.Len() == 0 {
			return nil, err
		}
		return out.Bytes(), nil
	}
	return nil, errors.New("not compressed in a way known here (zstd, lz4, xz, gzip)")
}

// unpackKernel returns the ELF file inside a bzImage, which QEMU can enter
// through its PVH note (Documentation/arch/x86/boot.rst).
func unpackKernel(bz []byte) ([]byte, error) {
	payload, err := bzPayload(bz)
	if err != nil {
		return nil, err
	}
	vmlinux, err := unpack(payload)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return nil, fmt.Errorf("the payload of the kernel is no ELF file: %w", err)
	}
	for _, p := range f.Progs {
		if p.Off+p.Filesz > uint64(len(vmlinux)) {
			return nil, errors.New("the payload of the kernel is truncated")
		}
	}
	return vmlinux, nil
}

// bzPayload returns the compressed kernel inside a bzImage.
func bzPayload(bz []byte) ([]byte, error) {
	// Offsets of the setup header: setup_sects, "HdrS", payload_offset and
	// payload_length (boot protocol 2.08).
	if len(bz) < 0x250 || string(bz[0x202:0x206]) != "HdrS" {
		return nil, errors.New("no bzImage")
	}
	sects := uint64(bz[0x1f1])
	if sects == 0 {
		sects = 4
	}
	start := (sects+1)*512 + uint64(binary.LittleEndian.Uint32(bz[0x248:]))
	end := start + uint64(binary.LittleEndian.Uint32(bz[0x24c:]))
	if end > uint64(len(bz)) || start == end {
		return nil, errors.New("the bzImage is truncated")
	}
	return bz[start:end], nil
}

// A module is one kernel module, unpacked.
type module struct {
	name string
	data []byte
}

// modules returns the modules called names and all that they depend on, in the
// order in which they can be loaded. What is built into the kernel is left out.
// The package has no modules.dep (depmod makes it on installation), so the
// modules themselves are asked.
func (img *image) modules(names []string) ([]module, error) {
	if len(names) == 0 {
		return nil, nil
	}
	base, err := img.modulesDir()
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	err = filepath.WalkDir(filepath.Join(base, "kernel"), func(p string, _ fs.DirEntry, err error) error {
		if name, ext, ok := strings.Cut(filepath.Base(p), "."); ok && strings.HasPrefix(ext, "ko") {
			files[moduleName(name)] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(base, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	loaded := map[string]bool{}
	for line := range strings.Lines(string(builtin)) {
		name, _, _ := strings.Cut(filepath.Base(line), ".")
		loaded[moduleName(name)] = true
	}
	var order []module
	var visit func(name, why string) error
	visit = func(name, why string) error {
		name = moduleName(name)
		if loaded[name] {
			return nil
		}
		loaded[name] = true
		p, ok := files[name]
		if !ok {
			return fmt.Errorf("%s has no module %q%s", img.Package, name, why)
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(p, ".ko") {
			if data, err = unpack(data); err != nil {
				return fmt.Errorf("%s: %w", p, err)
			}
		}
		deps, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, d := range deps {
			if err := visit(d, ", which "+name+" depends on"); err != nil {
				return err
			}
		}
		order = append(order, module{name, data})
		return nil
	}
	for _, n := range names {
		if err := visit(n, ""); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func (img *image) modulesDir() (string, error) {
	for _, lib := range []string{"lib", "usr/lib"} {
		p := filepath.Join(img.dir, lib, "modules", img.Release)
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: no modules of %s there", img.dir, img.Release)
}

// moduleName spells a module as the kernel does.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleDepends reads the "depends" line of a module's .modinfo section.
func moduleDepends(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, errors.New("no .modinfo section")
	}
	b, err := s.Data()
	if err != nil {
		return nil, err
	}
	var deps []string
	for line := range strings.SplitSeq(string(b), "\x00") {
		if v, ok := strings.CutPrefix(line, "depends="); ok && v != "" {
			deps = append(deps, strings.Split(v, ",")...)
		}
	}
	return slices.Compact(deps), nil
}
