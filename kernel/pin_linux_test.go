package kernel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// bpfFS mounts a bpf file system of the test's own.
func bpfFS(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("a bpf file system cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func pins(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			all = append(all, rel)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// TestPin keeps an object running by its pins, reads its counter through them,
// replaces its program without losing the count, and removes it.
func TestPin(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		dir := bpfFS(t) + "/here"
		count := func(l machine.Loaded) uint64 { return number(t, l, "hits") }
		keep := &object.Map{Name: "keep.me", Type: 2, KeySize: 4, ValueSize: 8, MaxEntries: 1}
		build := func(section string) []byte {
			c := newCounter().program("prog", section, false, 0)
			c.o.Maps = []*object.Map{keep}
			return elfOf(t, c.o)
		}
		first, err := New().Load(t.Context(), build("tp/syscalls/sys_enter_getsid"), machine.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, errs := first.Attach(t.Context(), []machine.Attach{{Program: "prog"}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		if err := first.Pin(dir); err != nil {
			t.Fatal(err)
		}
		getpid(3)
		if n := count(first); n != 3 {
			t.Errorf("ran %d times, want 3", n)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		want := []string{"links/prog", "maps/_bss", "maps/keep_me", "progs/prog"}
		if got := pins(t, dir); !slices.Equal(got, want) {
			t.Errorf("pins %q, want %q", got, want)
		}
		// It runs on; its data is there for who asks.
		getpid(4)
		second, err := New().Load(t.Context(), build("tp/syscalls/sys_exit_getsid"), machine.LoadOptions{Replace: dir})
		if err != nil {
			t.Fatal(err)
		}
		if n := count(second); n != 7 {
			t.Errorf("the counter that was taken over says %d, want 7", n)
		}
		if _, errs := second.Attach(t.Context(), []machine.Attach{{Program: "prog"}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		if err := second.Pin(dir); err != nil {
			t.Fatal(err)
		}
		// The old link goes, after a grace period: each call counts once.
		deadline := time.Now().Add(5 * time.Second)
		for {
			n := count(second)
			getpid(5)
			if count(second) == n+5 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after it was replaced five calls count as %d", count(second)-n)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if got := pins(t, dir); !slices.Equal(got, want) {
			t.Errorf("pins %q, want %q", got, want)
		}
		m, err := New().Load(t.Context(), elfOf(t, &object.Object{License: "GPL", Maps: []*object.Map{keep}}),
			machine.LoadOptions{Maps: map[string]machine.MapOptions{"keep.me": {Pinned: dir + "/maps/keep_me"}}})
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
		other := *keep
		other.ValueSize = 16
		_, err = New().Load(t.Context(), elfOf(t, &object.Object{License: "GPL", Maps: []*object.Map{&other}}),
			machine.LoadOptions{Maps: map[string]machine.MapOptions{"keep.me": {Pinned: dir + "/maps/keep_me"}}})
		if err == nil || !strings.Contains(err.Error(), "its value size is 8, and the object wants 16") {
			t.Errorf("another map: %v", err)
		}
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		for _, sub := range []string{pinLinks, pinProgs, pinMaps} {
			if err := os.RemoveAll(filepath.Join(dir, sub)); err != nil {
				t.Error(err)
			}
		}
	})
}

// A link that the kernel can point to another program is taken over in place.
func TestReplaceInPlace(t *testing.T) {
	needKernel(t)
	inNetNamespace(t, func(t *testing.T, lo string) {
		dir := bpfFS(t) + "/net"
		build := func(result int32) []byte {
			return elfOf(t, newCounter().program("prog", "xdp", false, result).o)
		}
		first, err := New().Load(t.Context(), build(2), machine.LoadOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		defer first.Close()
		r := []machine.Attach{{Program: "prog", Target: interfaceNumber(lo)}}
		if _, errs := first.Attach(t.Context(), r); errs[0] != nil {
			t.Error(errs[0])
			return
		}
		if err := errors.Join(first.Pin(dir), send(2), first.Close()); err != nil {
			t.Error(err)
			return
		}
		second, err := New().Load(t.Context(), build(2), machine.LoadOptions{Replace: dir})
		if err != nil {
			t.Error(err)
			return
		}
		defer second.Close()
		before := number(t, second, "hits")
		links, errs := second.Attach(t.Context(), r)
		if errs[0] != nil {
			t.Error(errs[0])
			return
		}
		if k := links[0].(request)[0]; !k.pinned {
			t.Error("the link was made anew")
		}
		if err := errors.Join(second.Pin(dir), send(2)); err != nil {
			t.Error(err)
		}
		if n := number(t, second, "hits"); before == 0 || n <= before {
			t.Errorf("%d packets before, %d after", before, n)
		}
	})
}

func TestPinErrors(t *testing.T) {
	needKernel(t)
	l := loadObject(t, newCounter().program("prog", "tp/syscalls/sys_enter_getsid", false, 0).o, machine.LoadOptions{})
	dir := filepath.Join(t.TempDir(), "pins")
	if err := l.Pin(dir); err == nil || !strings.Contains(err.Error(), "no bpf file system") {
		t.Errorf("in a plain directory: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it left %s behind (%v)", dir, err)
	}
	if err := l.Pin("/proc/nothing"); err == nil || !strings.Contains(err.Error(), "/proc/nothing") {
		t.Errorf("where no directory can be made: %v", err)
	}
}

func TestStats(t *testing.T) {
	needKernel(t)
	l := loadObject(t, newCounter().program("prog", "tp/syscalls/sys_enter_getsid", false, 0).o, machine.LoadOptions{Stats: true})
	links, errs := l.Attach(t.Context(), []machine.Attach{{Program: "prog", Points: []hook.Point{point(t, "tracepoint:syscalls:sys_enter_getsid")}}})
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	getpid(50)
	links[0].Close()
	st, err := l.Stats("prog")
	if err != nil || st.Runs != 50 || st.Time <= 0 || st.Instructions != 6 || st.Verified < 5 {
		t.Errorf("%+v, %v", st, err)
	}
}
