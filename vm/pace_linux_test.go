package vm

import (
	"testing"
	"time"

	"github.com/skep-bpf/skep/vm/engine"
)

func TestPace(t *testing.T) {
	var p pace
	p.begin()
	ran := func(d time.Duration, spent int64) { p.ran(d.Nanoseconds(), spent) }
	quick := func() { ran(2*time.Microsecond, p.quantum()) }
	want := func(what string, budget int64) {
		t.Helper()
		if p.quantum() != budget {
			t.Errorf("%s: the budget is %d, want %d", what, p.quantum(), budget)
		}
	}
	want("at first", firstQuantum)
	ran(100*time.Microsecond, 50) // too slow for more, though it was short
	want("slow, for what it spent", firstQuantum)
	ran(time.Microsecond, 50)
	want("quick", 2*firstQuantum)
	for range 10 {
		quick()
	}
	want("quick for long", engine.Quantum)
	ran(400*time.Microsecond, engine.Quantum)
	want("not too slow", engine.Quantum)
	ran(2*time.Millisecond, engine.Quantum)
	want("too slow", engine.Quantum/10)
	quick()
	want("quick after that", engine.Quantum/10+1)
	ran(10*time.Millisecond, 1)
	want("a single slow instruction", leastQuantum)
}

// TestHostileProgramsComeBack runs those that stay in native code, or try to. How
// long they can is for BenchmarkResidence to say.
func TestHostileProgramsComeBack(t *testing.T) {
	for _, insns := range hostile() {
		stay(t, insns, time.Hour, 10) // or the test never ends
	}
}
