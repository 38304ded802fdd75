package vm_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/vm"
)

// A pair is one object on both machines.
type pair struct {
	kernel *ebpf.Collection
	user   *vm.Collection
	vm     *vm.VM
}

// loadBoth loads a source into the kernel and into a vm with as many processors.
func loadBoth(t testing.TB, source string, o vm.Options) *pair {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(compileC(t, source)))
	if err != nil {
		t.Fatal(err)
	}
	return loadSpecs(t, spec, o)
}

func loadSpecs(t testing.TB, spec *ebpf.CollectionSpec, o vm.Options) *pair {
	t.Helper()
	testenv.NeedBPF(t)
	k, err := ebpf.NewCollection(spec.Copy())
	if err != nil {
		t.Fatalf("kernel: %+v", err)
	}
	t.Cleanup(k.Close)
	o.CPUs = ebpf.MustPossibleCPU()
	v := newVM(t, o)
	u, err := v.Load(spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{kernel: k, user: u, vm: v}
}

// onCPU0 keeps the test on the processor that the vm's runs are on.
func onCPU0(t testing.TB) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.SchedSetaffinity(0, &all) })
}

// run runs a program on both, on processor 0, and compares what it leaves.
func (p *pair) run(t testing.TB, program string, data, context []byte) uint32 {
	t.Helper()
	k, u := p.kernel.Programs[program], p.user.Programs[program]
	if k == nil || u == nil {
		t.Fatalf("there is no program %s", program)
	}
	options := func() (o vm.RunOptions) {
		if data != nil {
			o.Data, o.DataOut = data, make([]byte, len(data)+4096)
		}
		if context != nil {
			out := make([]byte, len(context))
			o.Context = context
			o.ContextOut = out
		}
		return o
	}
	ko, uo := options(), options()
	uo.Flags, uo.CPU = 1, 0
	if data == nil && context == nil {
		t.Fatal("neither a packet nor a context")
	}
	want, kerr := k.Run(&ko)
	got, uerr := u.Run(&uo)
	if (kerr == nil) != (uerr == nil) {
		t.Fatalf("%s: kernel: %v, vm: %v", program, kerr, uerr)
	}
	if kerr != nil {
		return 0
	}
	if got != want {
		t.Errorf("%s(%x): the vm returns %#x, the kernel %#x", program, data, got, want)
	}
	if !bytes.Equal(ko.DataOut, uo.DataOut) {
		t.Errorf("%s: packets differ\n    vm %x\nkernel %x", program, uo.DataOut, ko.DataOut)
	}
	if context != nil && !bytes.Equal(ko.ContextOut.([]byte), uo.ContextOut.([]byte)) {
		t.Errorf("%s: contexts differ\n    vm %x\nkernel %x", program, uo.ContextOut, ko.ContextOut)
	}
	return got
}

// runContext is run for programs that take neither packets nor repetitions. Only
// those of type syscall can change their context.
func (p *pair) runContext(t testing.TB, program string, context []byte) {
	t.Helper()
	k, after := p.kernel.Programs[program], slices.Clone(context)
	o := &ebpf.RunOptions{Context: context}
	if k.Type() == ebpf.Syscall {
		o.ContextOut = after
	}
	want, err := k.Run(o)
	if err != nil {
		t.Fatalf("%s: kernel: %v", program, err)
	}
	u := p.user.Programs[program]
	got, err := u.RunContext(t.Context(), &vm.RunOptions{Context: context, Flags: 1})
	if err != nil {
		t.Fatalf("%s: vm: %v", program, err)
	}
	if got.Return != want {
		t.Errorf("%s(%x): the vm returns %#x, the kernel %#x", program, context, got.Return, want)
	}
	if !bytes.Equal(after, got.Context) {
		t.Errorf("%s: contexts differ\n    vm %x\nkernel %x", program, got.Context, after)
	}
}

// sameMaps compares the contents of maps.
func (p *pair) sameMaps(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		want, got := map[string]string{}, map[string]string{}
		k, u := p.kernel.Maps[name], p.user.Maps[name]
		var key, value []byte
		if u.PerCPU() {
			var values [][]byte
			for it := k.Iterate(); it.Next(&key, &values); {
				want[string(key)] = fmt.Sprintf("%x", values)
			}
			for it := u.Iterate(); it.Next(&key, &value); {
				got[string(key)] = fmt.Sprintf("%x", slices.Collect(slices.Chunk(value, (u.ValueSize()+7)/8*8)))
			}
		} else {
			it := k.Iterate()
			for it.Next(&key, &value) {
				want[string(key)] = string(value)
			}
			if err := it.Err(); err != nil {
				t.Fatal(err)
			}
			for it := u.Iterate(); it.Next(&key, &value); {
				got[string(key)] = string(value)
			}
		}
		for key, w := range want {
			if g, ok := got[key]; !ok || g != w {
				t.Errorf("map %s, key %x: vm %x (there: %v), kernel %x", name, key, g, ok, w)
			}
		}
		for key := range got {
			if _, ok := want[key]; !ok {
				t.Errorf("map %s, key %x is not in the kernel's", name, key)
			}
		}
	}
}

func ethernet(proto uint16, payload ...byte) []byte {
	p := make([]byte, 14, 64)
	p[0], p[6] = 0x02, 0x04
	p[12], p[13] = byte(proto>>8), byte(proto)
	p = append(p, payload...)
	for len(p) < 60 {
		p = append(p, byte(len(p)))
	}
	return p
}

// The whole line: an object of clang with a hash map and an XDP program, in the
// kernel and here.
func TestCount(t *testing.T) {
	p := loadBoth(t, "count.c", vm.Options{})
	for range 3 {
		for _, proto := range []uint16{0x0800, 0x0806, 0x86dd, 0x88cc} {
			p.run(t, "count", ethernet(proto), nil)
		}
	}
	p.sameMaps(t, "counts")
	var n uint64
	if err := p.user.Maps["counts"].Lookup(uint32(0x0806), &n); err != nil || n != 3 {
		t.Errorf("counts[ARP] = %d, %v", n, err)
	}
	if err := p.user.Maps["counts"].Lookup(uint32(1), &n); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
}
