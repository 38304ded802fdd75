//go:build linux && (amd64 || arm64)

package jit

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/cage"
	"github.com/skep-bpf/skep/vm/engine"
)

func program(t testing.TB, insns ...isa.Instruction) *engine.Program {
	t.Helper()
	p, err := engine.New(t.Name(), insns, []int{0}, hostCalls)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSmallest(t *testing.T) {
	jit, err := New()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, jit, newCage(t))
	w.compile(t, engine.Options{}, program(t, isa.Mov64Imm(isa.R0, 42), isa.Exit()))
	w.run([5]uint64{}, 100)
	if w.s.Exit != engine.Done || w.s.Regs[0] != 42 {
		t.Errorf("%v, r0 = %d, want done and 42", w.s.Exit, w.s.Regs[0])
	}
}

// TestRoom starts a program whose stack in the cage allows more calls than the state
// has room for.
func TestRoom(t *testing.T) {
	jit, err := New()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, jit, newCage(t))
	w.compile(t, engine.Options{}, program(t, isa.Exit()))
	w.s.Regs[10] = stackTop
	w.s.StackLimit -= 4 * engine.FrameSize
	if err := w.codes[0].Start(w.s, 0); !errors.Is(err, engine.FaultStack) {
		t.Errorf("error %v, want %v", err, engine.FaultStack)
	}
	if exit := jit.Run(w.s); exit != engine.Fault || engine.FaultClass(w.s.Arg) != engine.FaultIdle {
		t.Errorf("running what was not started: %v", exit)
	}
}

// BenchmarkResidence reports how long native code keeps Go from stopping the
// world, when a program does little but miss the caches on memory that was touched before:
// the 99.9th percentile.
func BenchmarkResidence(b *testing.B) {
	jit, err := New()
	if err != nil {
		b.Fatal(err)
	}
	c := newCage(b)
	w := newWorld(b, jit, c)
	for at := 0; at < len(w.mem); at += 4096 {
		w.mem[at] = 1
	}
	w.compile(b, engine.Options{}, program(b,
		isa.ALU64Imm(isa.Mul, isa.R1, 0x5851f42d),
		isa.ALU64Imm(isa.Add, isa.R1, 0x14057b7f),
		isa.Mov64(isa.R2, isa.R1),
		isa.ALU64Imm(isa.RSh, isa.R2, 20),
		isa.ALU64Imm(isa.And, isa.R2, cage.MinSize-8),
		isa.LoadMem(isa.Double, isa.R3, isa.R2, 0),
		isa.ALU64(isa.Add, isa.R1, isa.R3), // the next address waits for this one
		isa.Jump(-8), isa.Exit()))
	s := w.s
	s.Regs[10], s.Budget = stackTop, engine.Quantum
	if err := w.codes[0].Start(s, 0); err != nil {
		b.Fatal(err)
	}
	var times []time.Duration
	for b.Loop() {
		start := time.Now()
		if jit.Run(s) != engine.Budget {
			b.Fatal(s.Exit)
		}
		times = append(times, time.Since(start))
		s.Budget = engine.Quantum
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)*999/1000].Microseconds()), "p99.9-µs")
}

// BenchmarkEntry is a run of two instructions.
func BenchmarkEntry(b *testing.B) {
	jit, err := New()
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld(b, jit, newCage(b))
	w.compile(b, engine.Options{}, program(b, isa.Mov64Imm(isa.R0, 42), isa.Exit()))
	code, s := w.codes[0], w.s
	s.Regs[10] = stackTop
	for b.Loop() {
		s.Budget = engine.Quantum
		if err := code.Start(s, 0); err != nil || jit.Run(s) != engine.Done {
			b.Fatal(err, s.Exit)
		}
	}
}

// BenchmarkHostCall is a call that leaves native code and comes back.
func BenchmarkHostCall(b *testing.B) {
	jit, err := New()
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld(b, jit, newCage(b))
	w.compile(b, engine.Options{}, program(b, isa.Call(0), isa.Jump(-2), isa.Exit()))
	code, s := w.codes[0], w.s
	s.Regs[10], s.Budget = stackTop, engine.Quantum
	if err := code.Start(s, 0); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Budget = engine.Quantum
		if jit.Run(s) != engine.HostCall {
			b.Fatal(s.Exit)
		}
	}
}
