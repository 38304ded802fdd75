package vm_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

// TestNoAllocations holds that what host code does often takes no memory of Go's.
func TestNoAllocations(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		v := newVM(t, o)
		hash := newMap(t, v, ebpf.MapSpec{Name: "hash", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 8})
		array := newMap(t, v, ebpf.MapSpec{Name: "array", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 8})
		lru := newMap(t, v, ebpf.MapSpec{Name: "lru", Type: ebpf.LRUHash, KeySize: 4, ValueSize: 8, MaxEntries: 64})
		queue := newMap(t, v, ebpf.MapSpec{Name: "queue", Type: ebpf.Queue, ValueSize: 8, MaxEntries: 8})
		maps := map[int32]*vm.Map{3: hash, 4: array, 5: lru, 6: queue}
		// on calls a helper for a map, with what lies at r10-8 for its key and value.
		on := func(m int32, helper int32) []isa.Instruction {
			return []isa.Instruction{
				isa.LoadMapFD(isa.R1, m), isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, -8),
				isa.Mov64(isa.R3, isa.R2), isa.Mov64Imm(isa.R4, 0), isa.Call(helper),
			}
		}
		insns := []isa.Instruction{isa.StoreImm(isa.Double, isa.R10, -8, 5)}
		for m := range int32(3) {
			insns = append(append(append(insns, on(3+m, 1)...), on(3+m, 2)...), on(3+m, 3)...)
		}
		insns = append(append(insns, on(6, 87)...), on(6, 88)...)
		for _, helper := range []int32{5, 7, 8, 14, 15, 125} {
			insns = append(insns, isa.Call(helper))
		}
		insns = append(insns, isa.Mov64Imm(isa.R0, 7), isa.Exit())
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		short := program(t, v, nil, isa.Mov64Imm(isa.R0, 7), isa.Exit())
		// More than the budget of one stretch.
		long := program(t, v, nil, isa.Mov64Imm(isa.R0, 20000), isa.ALU64Imm(isa.Sub, isa.R0, 1), isa.JumpIfImm(isa.NE, isa.R0, 7, -2), isa.Exit())
		helpers := program(t, v, maps, insns...)
		hook, err := vm.NewHook[[4]uint64]("test")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hook.Attach(short); err != nil {
			t.Fatal(err)
		}
		value := new([4]uint64)
		arg := make([]byte, 64)
		call := func(p *vm.Program, arg []byte) func() (uint32, error) {
			return func() (uint32, error) { return p.Call(ctx, arg) }
		}
		for _, c := range []struct {
			name string
			run  func() (uint32, error)
		}{
			{"call", call(short, nil)},
			{"call with an argument", call(short, arg)},
			{"long run", call(long, nil)},
			{"helpers", call(helpers, nil)},
			{"hook", func() (uint32, error) { return hook.Fire(ctx, value) }},
		} {
			n := testing.AllocsPerRun(200, func() {
				if got, err := c.run(); err != nil || got != 7 {
					t.Fatal(c.name, got, err)
				}
			})
			if n != 0 {
				t.Errorf("%s allocates %v times a run", c.name, n)
			}
		}
	})
}

// BenchmarkCores runs one program that counts in per-CPU maps on one and on two
// processors; speedup is how much more they do together.
func BenchmarkCores(b *testing.B) {
	v := newVM(b, vm.Options{CPUs: 2})
	array := newMap(b, v, ebpf.MapSpec{Name: "array", Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 16})
	hash := newMap(b, v, ebpf.MapSpec{Name: "hash", Type: ebpf.PerCPUHash, KeySize: 8, ValueSize: 8, MaxEntries: 16})
	for i := range uint64(16) {
		if err := hash.Put(i, make([]uint64, 2)); err != nil {
			b.Fatal(err)
		}
	}
	var insns []isa.Instruction
	for m := range int32(2) {
		insns = append(insns,
			isa.StoreImm(isa.Double, isa.R10, -8, 3), isa.LoadMapFD(isa.R1, 3+m), isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, -8), isa.Call(1),
			isa.JumpIfImm(isa.Eq, isa.R0, 0, 3), isa.LoadMem(isa.Double, isa.R1, isa.R0, 0), isa.ALU64Imm(isa.Add, isa.R1, 1), isa.StoreMem(isa.Double, isa.R0, 0, isa.R1))
	}
	p := program(b, v, map[int32]*vm.Map{3: array, 4: hash}, append(insns, isa.Mov64Imm(isa.R0, 0), isa.Exit())...)
	const batch = 20_000
	// work returns the time that n goroutines take for a batch each.
	work := func(n int) time.Duration {
		var all sync.WaitGroup
		start := time.Now()
		for range n {
			all.Go(func() {
				for range batch {
					if _, err := p.Call(context.Background(), nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		return time.Since(start)
	}
	one, two := time.Hour, time.Hour
	for b.Loop() {
		one, two = min(one, work(1)), min(two, work(2))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(one.Nanoseconds())/batch, "ns/run")
	b.ReportMetric(2*float64(one)/float64(two), "speedup")
}

// BenchmarkLoad is all from the bytes of an object that clang made to the first
// result of its program over a packet: a vm of its own included.
func BenchmarkLoad(b *testing.B) {
	data := compileC(b, "count.c")
	for _, interpret := range []bool{true, false} {
		load := func() (name string, took time.Duration) {
			start := time.Now()
			v, err := vm.New(vm.Options{Interpret: interpret})
			if err != nil {
				b.Fatal(err)
			}
			defer v.Close()
			c, err := v.LoadObject(data, nil)
			if err != nil {
				b.Fatal(err)
			}
			if got, _, err := c.Programs["count"].Test(make([]byte, 64)); err != nil || got != 1 {
				b.Fatal(got, err)
			}
			return v.EngineName(), time.Since(start)
		}
		name, best := load()
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, took := load()
				best = min(best, took)
			}
			b.ReportMetric(float64(best.Nanoseconds())/1e6, "best-ms")
		})
	}
}
