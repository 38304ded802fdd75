package vm_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

// A sockopt program sees the option's value, and changes it and its length.
func TestSockopt(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		v := newVM(t, o)
		p, err := v.NewProgramFromCode(vm.Code{Name: "opt", Type: abi.ProgCgroupSockopt, Insns: []isa.Instruction{
			isa.LoadMem(isa.Double, isa.R2, isa.R1, 8), isa.LoadMem(isa.Double, isa.R3, isa.R1, 16), // optval, optval_end
			isa.Mov64(isa.R4, isa.R2), isa.ALU64Imm(isa.Add, isa.R4, 2), isa.Mov64Imm(isa.R0, 0), isa.JumpIf(isa.GT, isa.R4, isa.R3, 4),
			isa.StoreImm(isa.Byte, isa.R2, 1, 9), isa.StoreImm(isa.Word, isa.R1, 32, 2), isa.StoreImm(isa.Word, isa.R1, 36, -1), isa.Mov64Imm(isa.R0, 1),
			isa.Exit(),
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := p.RunContext(t.Context(), &vm.RunOptions{Data: []byte{1, 2, 3, 4}})
		if err != nil || res.Return != 1 || !bytes.Equal(res.Data, []byte{1, 9}) {
			t.Errorf("%d, %x, %v", res.Return, res.Data, err)
		}
		if res, err = p.RunContext(t.Context(), &vm.RunOptions{Data: []byte{1}}); err != nil || res.Return != 0 || len(res.Data) != 1 {
			t.Errorf("a short value: %d, %x, %v", res.Return, res.Data, err)
		}
	})
}

// Perf event arrays take records once a reader is there, and count what is lost.
func TestPerfEvents(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		o.CPUs = 1
		v := newVM(t, o)
		m := newMap(t, v, ebpf.MapSpec{Name: "events", Type: ebpf.PerfEventArray, KeySize: 4, ValueSize: 4})
		p := program(t, v, map[int32]*vm.Map{3: m},
			isa.StoreImm(isa.Double, isa.R10, -8, 77), isa.LoadMapFD(isa.R2, 3), isa.Mov32Imm(isa.R3, -1), isa.Mov64(isa.R4, isa.R10), isa.ALU64Imm(isa.Add, isa.R4, -8),
			isa.Mov64Imm(isa.R5, 8), isa.Call(25), isa.Exit())
		send := func() int32 {
			n, err := p.Call(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			return int32(n)
		}
		if n := send(); n != -2 {
			t.Errorf("without a reader: %d", n)
		}
		r, err := vm.NewPerfReader(m, 40)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := vm.NewPerfReader(m, 40); !errors.Is(err, vm.EBUSY) {
			t.Errorf("a second reader: %v", err)
		}
		for i, want := range []int32{0, 0, -28, -28} {
			if n := send(); n != want {
				t.Errorf("record %d: %d, want %d", i, n, want)
			}
		}
		r.SetDeadline(time.Now().Add(-1))
		for i := range 2 {
			if rec, err := r.Read(); err != nil || len(rec.RawSample) != 8 || rec.RawSample[0] != 77 {
				t.Errorf("record %d: %v, %v", i, rec, err)
			}
		}
		if rec, err := r.Read(); err != nil || rec.LostSamples != 2 {
			t.Errorf("what was lost: %v, %v", rec, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if n := send(); n != -2 {
			t.Errorf("after the reader: %d", n)
		}
	})
}

// A task storage has a value for each task that the host names.
func TestTaskStorage(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		task := uint64(5)
		o.Host.Process = func() vm.Process { return vm.Process{Task: task, PID: 1, TGID: 2} }
		v := newVM(t, o)
		m := newMap(t, v, ebpf.MapSpec{Name: "tasks", Type: ebpf.TaskStorage, KeySize: 4, ValueSize: 8, Flags: 1})
		p := program(t, v, map[int32]*vm.Map{3: m},
			isa.Call(158), isa.LoadMapFD(isa.R1, 3), isa.Mov64(isa.R2, isa.R0), isa.Mov64Imm(isa.R3, 0), isa.Mov64Imm(isa.R4, 1), isa.Call(156),
			isa.JumpIfImm(isa.Eq, isa.R0, 0, 3), isa.LoadMem(isa.Double, isa.R1, isa.R0, 0), isa.ALU64Imm(isa.Add, isa.R1, 1), isa.StoreMem(isa.Double, isa.R0, 0, isa.R1),
			isa.Mov64Imm(isa.R0, 0), isa.Exit())
		for _, task = range []uint64{5, 6, 5, 5} {
			if _, err := p.Call(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		for key, want := range map[uint32]uint64{5: 3, 6: 1} {
			var n uint64
			if err := m.Lookup(key, &n); err != nil || n != want {
				t.Errorf("task %d: %d, %v", key, n, err)
			}
		}
		if err := m.Delete(uint32(6)); err != nil {
			t.Error(err)
		}
		var n uint64
		if err := m.Lookup(uint32(6), &n); !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Errorf("a task that has gone: %v", err)
		}
	})
}

// Helpers can be replaced by the host, and kernel functions supplied.
func TestHostHelpers(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		o.Host.Monotonic = func() uint64 { return 1234 }
		v := newVM(t, o)
		code := vm.Code{Name: "p", Type: abi.ProgRawTracepoint, Insns: []isa.Instruction{
			isa.Call(5), isa.Mov64(isa.R6, isa.R0), isa.StoreImm(isa.Word, isa.R10, -4, 3), isa.Mov64(isa.R1, isa.R10), isa.ALU64Imm(isa.Add, isa.R1, -4), isa.Call(7),
			isa.ALU64(isa.Add, isa.R0, isa.R6), isa.Exit(),
		}}
		p, err := v.NewProgramFromCode(code, &vm.LoadOptions{Helpers: map[string]vm.HelperFunc{
			"bpf_get_prandom_u32": func(c *vm.Call) uint64 {
				b, ok := c.Memory(c.Arg(1), 4)
				if !ok {
					return c.Fail(errors.New("no memory"))
				}
				return uint64(b[0]) * 100000
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := p.Call(t.Context(), nil); n != 301234 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}
