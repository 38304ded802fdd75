package vm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

// engines runs a test with each engine that the system allows.
func engines(t *testing.T, f func(t *testing.T, o vm.Options)) {
	for _, interpret := range []bool{true, false} {
		o := vm.Options{Interpret: interpret}
		v := newVM(t, o)
		if !interpret && v.EngineName() == "interp" {
			continue // nothing else is there
		}
		t.Run(v.EngineName(), func(t *testing.T) { f(t, o) })
	}
}

func newVM(t testing.TB, o vm.Options) *vm.VM {
	t.Helper()
	v, err := vm.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func program(t testing.TB, v *vm.VM, maps map[int32]*vm.Map, insns ...isa.Instruction) *vm.Program {
	t.Helper()
	p, err := v.NewProgramFromCode(vm.Code{Name: "test", Type: abi.ProgRawTracepoint, Insns: insns, Maps: maps}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newMap(t testing.TB, v *vm.VM, spec ebpf.MapSpec) *vm.Map {
	t.Helper()
	m, err := v.NewMap(&spec)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

type request struct {
	Size   uint32
	Kind   uint8
	Weight uint64
}

// grow adds n to the weight and returns the size.
func grow(n int32) []isa.Instruction {
	return []isa.Instruction{
		isa.LoadMem(isa.Double, isa.R2, isa.R1, 8), isa.ALU64Imm(isa.Add, isa.R2, n), isa.StoreMem(isa.Double, isa.R1, 8, isa.R2),
		isa.LoadMem(isa.Word, isa.R0, isa.R1, 0), isa.Exit(),
	}
}

func TestHook(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		v := newVM(t, o)
		h, err := vm.NewHook[request]("requests")
		if err != nil {
			t.Fatal(err)
		}
		req := request{Size: 7, Weight: 1}
		if n, err := h.Fire(t.Context(), &req); n != 0 || err != nil || req.Weight != 1 {
			t.Errorf("without programs: %d, %v, %+v", n, err, req)
		}
		one, err := h.Attach(program(t, v, nil, grow(10)...))
		if err != nil {
			t.Fatal(err)
		}
		two, err := h.Attach(program(t, v, nil, grow(100)...))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := h.Fire(t.Context(), &req); n != 7 || err != nil || req.Weight != 111 {
			t.Errorf("two programs: %d, %v, %+v", n, err, req)
		}
		if allocs := testing.AllocsPerRun(100, func() { _, _ = h.Fire(context.Background(), &req) }); allocs != 0 {
			t.Errorf("%v allocations in each run", allocs)
		}
		req.Weight = 0
		if err := errors.Join(one.Close(), two.Replace(program(t, v, nil, grow(5)...))); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Fire(t.Context(), &req); err != nil || req.Weight != 5 {
			t.Errorf("one closed, one replaced: %v, %+v", err, req)
		}
		if err := two.Close(); err != nil {
			t.Error(err)
		}
		if err := two.Replace(program(t, v, nil, grow(5)...)); !errors.Is(err, vm.ErrClosed) {
			t.Errorf("replacing a closed one: %v", err)
		}
		xdp, err := v.NewProgramFromCode(vm.Code{Name: "xdp", Type: abi.ProgXDP, Insns: grow(1)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Attach(xdp); err == nil {
			t.Error("an XDP program can be attached")
		}
		if _, err := vm.NewHook[struct{ p *int }]("pointers"); err == nil {
			t.Error("a hook of pointers can be made")
		}
	})
}

// Programs are replaced, and vms closed, while others run them.
func TestReplaceWhileRunning(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		v, err := vm.New(o)
		if err != nil {
			t.Fatal(err)
		}
		h, err := vm.NewHook[request]("requests")
		if err != nil {
			t.Fatal(err)
		}
		first := program(t, v, nil, grow(1)...)
		l, err := h.Attach(first)
		if err != nil {
			t.Fatal(err)
		}
		first.Close() // the hook has its own
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 3000 {
					req := request{Size: 7}
					n, err := h.Fire(context.Background(), &req)
					if err != nil || n != 7 && n != 0 || req.Weight > 300 {
						t.Errorf("%d, %v, %+v", n, err, req)
						return
					}
				}
			})
		}
		for i := range int32(300) {
			p := program(t, v, nil, grow(i)...)
			if err := errors.Join(l.Replace(p), p.Close()); err != nil {
				t.Error(err)
			}
		}
		wg.Wait()
		if err := errors.Join(l.Close(), v.Close()); err != nil {
			t.Error(err)
		}
		if _, err := program1(v); !errors.Is(err, vm.ErrClosed) {
			t.Errorf("a program for a closed vm: %v", err)
		}
	})
}

func program1(v *vm.VM) (*vm.Program, error) {
	return v.NewProgramFromCode(vm.Code{Name: "late", Insns: grow(1)}, nil)
}

// A run that is cancelled gives back its locks and reservations.
func TestCancel(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		v := newVM(t, o)
		ring := newMap(t, v, ebpf.MapSpec{Name: "ring", Type: ebpf.RingBuf, MaxEntries: 4096})
		array := newMap(t, v, ebpf.MapSpec{Name: "array", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		stuck := program(t, v, map[int32]*vm.Map{3: ring, 4: array},
			isa.LoadMapFD(isa.R1, 3), isa.Mov64Imm(isa.R2, 3000), isa.Mov64Imm(isa.R3, 0), isa.Call(131), // reserve
			isa.LoadMapValue(isa.R1, 4, 0), isa.Call(93), // spin_lock
			isa.Jump(-1))
		for range 3 {
			ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Millisecond, errors.New("enough"))
			_, err := stuck.Call(ctx, nil)
			cancel()
			if err == nil || !strings.Contains(err.Error(), "enough") {
				t.Fatalf("the endless program ended with %v", err)
			}
		}
		// The buffer has room again, and the lock is free.
		well := program(t, v, map[int32]*vm.Map{3: ring, 4: array},
			isa.LoadMapValue(isa.R1, 4, 0), isa.Call(93), isa.LoadMapValue(isa.R1, 4, 0), isa.Call(94),
			isa.StoreImm(isa.Double, isa.R10, -8, 5), isa.LoadMapFD(isa.R1, 3), isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, -8),
			isa.Mov64Imm(isa.R3, 8), isa.Mov64Imm(isa.R4, 0), isa.Call(130), isa.Exit())
		r, err := vm.NewRingReader(ring)
		if err != nil {
			t.Fatal(err)
		}
		r.SetDeadline(time.Now().Add(-1))
		if rec, err := r.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a discarded record is read: %v, %v", rec, err)
		}
		if n, err := well.Call(t.Context(), nil); n != 0 || err != nil {
			t.Errorf("afterwards: %d, %v", int32(n), err)
		}
		if rec, err := r.Read(); err != nil || binary.NativeEndian.Uint64(rec.RawSample) != 5 {
			t.Errorf("the record: %v, %v", rec, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := r.Read(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("reading what is closed: %v", err)
		}
	})
}

// Per-CPU values are never shared by runs at the same time.
func TestPerCPUCounts(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		o.CPUs = 3
		v := newVM(t, o)
		m := newMap(t, v, ebpf.MapSpec{Name: "counts", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 2})
		p := program(t, v, map[int32]*vm.Map{3: m},
			isa.StoreImm(isa.Word, isa.R10, -4, 1), isa.LoadMapFD(isa.R1, 3), isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, -4), isa.Call(1),
			isa.JumpIfImm(isa.Eq, isa.R0, 0, 3),
			isa.LoadMem(isa.Double, isa.R1, isa.R0, 0), isa.ALU64Imm(isa.Add, isa.R1, 1), isa.StoreMem(isa.Double, isa.R0, 0, isa.R1),
			isa.Mov64Imm(isa.R0, 0), isa.Exit())
		const goroutines, runs = 6, 2000
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range runs {
					if _, err := p.Call(context.Background(), nil); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		var values []uint64
		if err := m.Lookup(uint32(1), &values); err != nil || len(values) != 3 || values[0]+values[1]+values[2] != goroutines*runs {
			t.Errorf("%v, %v", values, err)
		}
	})
}

// Timers fire when the host says so, and end with their values.
func TestTimer(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		var due []func()
		o.Host.AfterFunc = func(d time.Duration, f func()) func() bool {
			if d != 1000 {
				t.Errorf("the timer is set to %v", d)
			}
			due = append(due, f)
			return func() bool { return true }
		}
		v := newVM(t, o)
		spec, err := ebpf.LoadCollectionSpecFromReader(strings.NewReader(string(compileC(t, "timer.c"))))
		if err != nil {
			t.Fatal(err)
		}
		c, err := v.Load(spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := c.Programs["start"]
		if n, err := start.Call(t.Context(), nil); n != 0 || err != nil {
			t.Fatalf("start: %d, %v", int32(n), err)
		}
		if n, err := start.Call(t.Context(), nil); int32(n) != -16 || err != nil {
			t.Errorf("a second timer on the same value: %d, %v", int32(n), err)
		}
		if len(due) != 1 {
			t.Fatalf("%d timers are set", len(due))
		}
		due[0]()
		var fired, key uint32
		if err := errors.Join(c.Variables["fired"].Get(&fired), c.Variables["seen"].Get(&key)); err != nil || fired != 1 || key != 9 {
			t.Errorf("fired %d times with key %d: %v", fired, key, err)
		}
		if len(due) != 2 {
			t.Fatalf("the callback did not set it again")
		}
		if err := c.Maps["timers"].Delete(uint32(9)); err != nil {
			t.Fatal(err)
		}
		due[1]() // too late
		if err := c.Variables["fired"].Get(&fired); err != nil || fired != 1 {
			t.Errorf("fired %d times after its value went: %v", fired, err)
		}
	})
}

// Any bytes that have the form of a program run, and end, and hurt nobody.
func TestHostile(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		v := newVM(t, o)
		maps := map[int32]*vm.Map{
			3: newMap(t, v, ebpf.MapSpec{Name: "array", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 4}),
			4: newMap(t, v, ebpf.MapSpec{Name: "hash", Type: ebpf.Hash, KeySize: 4, ValueSize: 16, MaxEntries: 4}),
			5: newMap(t, v, ebpf.MapSpec{Name: "ring", Type: ebpf.RingBuf, MaxEntries: 4096}),
			6: newMap(t, v, ebpf.MapSpec{Name: "queue", Type: ebpf.Queue, ValueSize: 8, MaxEntries: 4}),
		}
		var helpers []int32
		for _, name := range vm.HelperNames(abi.ProgXDP) {
			helpers = append(helpers, abi.HelperByName(name).ID)
		}
		done, cancel := context.WithCancel(t.Context())
		cancel() // each run has one budget
		ran := 0
		for seed := range uint64(1000) {
			r := rand.New(rand.NewPCG(seed, 11))
			insns := hostile(r, helpers)
			p, err := v.NewProgramFromCode(vm.Code{Name: "hostile", Type: abi.ProgXDP, Insns: insns, Maps: maps}, nil)
			if err != nil {
				continue
			}
			ran++
			_, _ = p.RunContext(done, &vm.RunOptions{Data: make([]byte, 64)})
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if ran < 300 {
			t.Errorf("only %d programs ran", ran)
		}
	})
}

// hostile writes instructions that nobody verified.
func hostile(r *rand.Rand, helpers []int32) []isa.Instruction {
	var list []isa.Instruction
	reg := func() isa.Register { return isa.Register(r.IntN(11)) }
	n := 5 + r.IntN(40)
	for len(list) < n {
		size := []isa.Size{isa.Byte, isa.Half, isa.Word, isa.Double}[r.IntN(4)]
		off := int16(r.Uint32())
		switch r.IntN(10) {
		case 0:
			list = append(list, isa.LoadImm64(isa.Register(r.IntN(10)), int64(r.Uint64())))
		case 1:
			list = append(list, isa.StoreMem(size, reg(), off, reg()))
		case 2:
			list = append(list, isa.LoadMem(size, isa.Register(r.IntN(10)), reg(), off))
		case 3:
			list = append(list, isa.Atomic(isa.FetchAdd, isa.Double, reg(), off&^7, isa.Register(r.IntN(10))))
		case 4:
			list = append(list, isa.Call(helpers[r.IntN(len(helpers))]))
		case 5:
			list = append(list, isa.LoadMapFD(isa.Register(1+r.IntN(2)), 3+r.Int32N(4)))
		case 6:
			list = append(list, isa.JumpIfImm(isa.NE, reg(), int32(r.Uint32()), int16(r.IntN(7)-3)))
		case 7:
			list = append(list, isa.Mov64(isa.Register(r.IntN(10)), isa.R10))
		case 8:
			list = append(list, isa.ALU64(isa.Add, isa.Register(r.IntN(10)), reg()))
		default:
			list = append(list, isa.Mov64Imm(isa.Register(r.IntN(10)), r.Int32N(64)))
		}
	}
	return append(list, isa.Exit())
}

func TestErrors(t *testing.T) {
	v := newVM(t, vm.Options{MapLimit: 1 << 20})
	for _, c := range []struct {
		spec ebpf.MapSpec
		want error
		text string
	}{
		{ebpf.MapSpec{Name: "big", Type: ebpf.Array, KeySize: 4, ValueSize: 1 << 20, MaxEntries: 64}, vm.ENOMEM, "bytes"},
		{ebpf.MapSpec{Name: "absurd", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1<<32 - 1}, vm.E2BIG, ""},
		{ebpf.MapSpec{Name: "key", Type: ebpf.Array, KeySize: 8, ValueSize: 8, MaxEntries: 1}, vm.EINVAL, "8-byte keys"},
		{ebpf.MapSpec{Name: "sock", Type: ebpf.SockMap, KeySize: 4, ValueSize: 4, MaxEntries: 1}, nil, "no map type sockmap; it has hash, array"},
	} {
		_, err := v.NewMap(&c.spec)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.spec.Name, err)
		}
	}
	if used := v.MemoryUsed(); used != 0 {
		t.Errorf("%d bytes are charged for maps that were not made", used)
	}
	_, err := v.NewProgramFromCode(vm.Code{Name: "p", Type: abi.ProgXDP, Insns: []isa.Instruction{isa.Call(204), isa.Exit()}}, nil)
	var missing *vm.MissingError
	if !errors.As(err, &missing) || missing.Name != "bpf_tcp_raw_gen_syncookie_ipv4" || !strings.Contains(err.Error(), "bpf_map_lookup_elem") {
		t.Errorf("a helper that is not there: %v", err)
	}
	_, err = v.NewProgramFromCode(vm.Code{Name: "p", Type: abi.ProgXDP, Insns: []isa.Instruction{isa.Call(9), isa.Exit()}}, nil)
	if err == nil || !strings.Contains(err.Error(), "may not call bpf_skb_store_bytes") {
		t.Errorf("a helper of another type: %v", err)
	}
}
