//go:build linux && (amd64 || arm64)

package jit

import (
	"testing"

	"github.com/skep-bpf/skep/isa"
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
	w := newWorld(t, jit)
	w.compile(t, engine.Options{}, program(t, isa.Mov64Imm(isa.R0, 42), isa.Exit()))
	w.run([5]uint64{}, 100)
	if w.s.Exit != engine.Done || w.s.Regs[0] != 42 {
		t.Errorf("%v, r0 = %d, want done and 42", w.s.Exit, w.s.Regs[0])
	}
}

// BenchmarkEntry is a run of two instructions.
func BenchmarkEntry(b *testing.B) {
	jit, err := New()
	if err != nil {
		b.Fatal(err)
	}
	w := newWorld(b, jit)
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
	w := newWorld(b, jit)
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
