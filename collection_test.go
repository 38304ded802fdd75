package skep_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/verifier"
	"github.com/skep-bpf/skep/vm"
)

// one is a spec of one program of a type that hooks take.
func one(insns ...asm.Instruction) *ebpf.CollectionSpec {
	return &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
		"p": {Name: "p", Type: ebpf.RawTracepoint, License: "GPL", Instructions: insns},
	}}
}

func newCollection(t *testing.T, spec *ebpf.CollectionSpec, o skep.CollectionOptions) *skep.Collection {
	t.Helper()
	c, err := skep.NewCollectionWithOptions(spec, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestUntrustedIsVerified(t *testing.T) {
	spec := one(asm.Mov.Reg(asm.R0, asm.R3), asm.Return())
	_, err := skep.NewCollection(spec)
	var rejected *skep.RejectedError
	if !errors.As(err, &rejected) || rejected.Programs[0].Err.Category != verifier.CatUninit {
		t.Fatalf("%v, want a rejection", err)
	}
	list := skep.Explain(err)
	if len(list) != 1 || !strings.Contains(list[0].Message, "instruction 0 of p: r0 = r3") {
		t.Errorf("explained as %v", list)
	}
	// By the caller's word it runs.
	c := newCollection(t, spec, skep.CollectionOptions{Trusted: true})
	if got, err := c.Programs["p"].Run(&ebpf.RunOptions{Context: make([]byte, 8)}); got != 0 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
}

func TestProfiles(t *testing.T) {
	// bpf_loop came with 5.17, may_goto's like with 6.9; a helper of 6.x tells
	// the profiles apart: bpf_cgrp_storage_get (6.2).
	spec := one(asm.Mov.Imm(asm.R1, 0), asm.FnCgrpStorageGet.Call(), asm.Mov.Imm(asm.R0, 0), asm.Return())
	_, err := skep.NewCollectionWithOptions(spec, skep.CollectionOptions{Kernel: abi.Linux6_1})
	var rejected *skep.RejectedError
	if !errors.As(err, &rejected) || rejected.Programs[0].Err.Category != verifier.CatHelper {
		t.Errorf("on 6.1: %v", err)
	}
	spec = one(asm.Mov.Imm(asm.R0, 0), asm.Return())
	_, err = skep.NewCollectionWithOptions(spec, skep.CollectionOptions{Caps: verifier.CapsBPF})
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "CAP_PERFMON") {
		t.Errorf("with CAP_BPF alone: %v", err)
	}
}

func TestHostSuppliesHelpers(t *testing.T) {
	spec := one(
		asm.FnGetPrandomU32.Call(), asm.Mov.Reg(asm.R6, asm.R0),
		asm.FnGetCurrentPidTgid.Call(), asm.Add.Reg(asm.R6, asm.R0),
		asm.FnKtimeGetNs.Call(), asm.Add.Reg(asm.R6, asm.R0),
		asm.FnGetSmpProcessorId.Call(), asm.Add.Reg(asm.R6, asm.R0),
		asm.Mov.Reg(asm.R0, asm.R6), asm.Return(),
	)
	calls := 0
	c := newCollection(t, spec, skep.CollectionOptions{
		NewEngine: skep.EngineOptions{CPUs: 3, Host: skep.Host{
			Random:  func() uint32 { return 1000 },
			Process: func() skep.Process { return skep.Process{PID: 20, TGID: 0} },
		}},
		Helpers: map[string]skep.HelperFunc{"bpf_ktime_get_ns": func(*skep.HelperCall) uint64 { calls++; return 300 }},
	})
	for _, cpu := range []uint32{0, 2} {
		got, err := c.Programs["p"].Run(&ebpf.RunOptions{CPU: cpu, Flags: 1, Context: make([]byte, 8)})
		if want := 1320 + cpu; got != want || err != nil {
			t.Errorf("on processor %d: %d, %v; want %d", cpu, got, err, want)
		}
	}
	if calls != 2 {
		t.Errorf("the host was called %d times", calls)
	}
}

// TestCancel ends a run that holds a record of a ring buffer in a loop that a
// verifier would not accept: the record is given back.
func TestCancel(t *testing.T) {
	spec := one(
		asm.LoadMapPtr(asm.R1, 0).WithReference("ring"), asm.Mov.Imm(asm.R2, 3000), asm.Mov.Imm(asm.R3, 0),
		asm.FnRingbufReserve.Call(),
		asm.JEq.Imm(asm.R0, 0, "none"),
		asm.Ja.Label("loop").WithSymbol("loop"),
		asm.Mov.Imm(asm.R0, 7).WithSymbol("none"),
		asm.Return(),
	)
	spec.Maps = map[string]*ebpf.MapSpec{"ring": {Name: "ring", Type: ebpf.RingBuf, MaxEntries: 4096}}
	c := newCollection(t, spec, skep.CollectionOptions{Trusted: true})
	ring, err := skep.NewRingReader(c.Maps["ring"])
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	ring.SetDeadline(time.Now().Add(-time.Second))
	for range 3 { // the buffer has room for one record
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		res, err := c.Programs["p"].RunContext(ctx, &ebpf.RunOptions{Context: make([]byte, 8)})
		cancel()
		var run *skep.RunError
		if !errors.As(err, &run) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v, %v; want the end of the time, and not that the buffer is full", res.Return, err)
		}
		// What was given back is passed over; what was not would stand in the way.
		if rec, err := ring.Read(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read %x, %v", rec.RawSample, err)
		}
	}
}

// TestReplaceWhileRunning fires a hook from several goroutines while programs
// are replaced, closed and loaded.
func TestReplaceWhileRunning(t *testing.T) {
	engine, err := skep.NewEngine(skep.EngineOptions{CPUs: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	hook, err := skep.NewHook[uint64]("numbers")
	if err != nil {
		t.Fatal(err)
	}
	// program adds n to what it gets.
	program := func(n int32) *skep.Collection {
		c, err := skep.NewCollectionWithOptions(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
			"p": {Name: "p", Type: ebpf.RawTracepointWritable, License: "GPL", Instructions: asm.Instructions{
				asm.LoadMem(asm.R0, asm.R1, 0, asm.DWord), asm.Add.Imm(asm.R0, n), asm.StoreMem(asm.R1, 0, asm.R0, asm.DWord), asm.Return(),
			}},
		}}, skep.CollectionOptions{Engine: engine, Trusted: true})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := program(1)
	link, err := hook.Attach(first.Programs["p"])
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil { // the hook holds it
		t.Fatal(err)
	}
	var stop atomic.Bool
	var fired atomic.Int64
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for !stop.Load() {
				v := uint64(100)
				if _, err := hook.Fire(t.Context(), &v); err != nil || v != 101 && v != 102 {
					t.Errorf("got %d, %v", v, err)
					return
				}
				fired.Add(1)
			}
		})
	}
	for i := range int32(200) {
		c := program(1 + i%2)
		if err := link.Replace(c.Programs["p"]); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	if err := link.Close(); err != nil {
		t.Error(err)
	}
	if fired.Load() == 0 {
		t.Error("nothing was fired")
	}
	if n := engine.MemoryUsed(); n > 1<<20 {
		t.Errorf("%d bytes are in use still", n)
	}
}

func TestMissing(t *testing.T) {
	spec := one(asm.Mov.Imm(asm.R0, 0), asm.Return())
	spec.Programs["p"].Type = ebpf.SkReuseport
	_, err := skep.NewCollectionWithOptions(spec, skep.CollectionOptions{Trusted: true})
	var missing *vm.MissingError
	if !errors.As(err, &missing) {
		t.Errorf("%v, want a MissingError", err)
	}
	var objs struct {
		P *skep.Program `ebpf:"q"`
	}
	if _, err := skep.LoadAndAssign(one(asm.Mov.Imm(asm.R0, 0), asm.Return()), &objs, nil); err == nil || !strings.Contains(err.Error(), "q") {
		t.Errorf("%v, want that there is no program q", err)
	}
	if _, err := skep.LoadCollection("doc.go"); err == nil || !strings.Contains(err.Error(), "doc.go") {
		t.Errorf("%v, want that doc.go is no object", err)
	}
}
