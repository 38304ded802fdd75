package vm

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// stretches records how long native code ran each time before it came back: in
// processor time of the thread, which on an idle machine is all the time there is.
type stretches struct {
	took   []time.Duration
	most   int    // after so many
	enough func() // this is called
}

func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // which Linux always has
	return time.Duration(t.Nano())
}

func (l *stretches) time(f func() engine.Exit) engine.Exit {
	start := threadTime()
	exit := f()
	if l.took = append(l.took, threadTime()-start); len(l.took) == l.most {
		l.enough()
	}
	return exit
}

type timedEngine struct {
	engine.Engine
	l *stretches
}

func (e timedEngine) Run(s *engine.State) engine.Exit {
	return e.l.time(func() engine.Exit { return e.Engine.Run(s) })
}

type timedCode struct {
	engine.Code
	l *stretches
}

func (c timedCode) Enter(s *engine.State) engine.Exit {
	return c.l.time(func() engine.Exit { return c.Code.Enter(s) })
}

// nested is eight functions, each of which calls the next one fourteen times: some
// 120 instructions without a loop that run for longer than anyone waits.
func nested() []isa.Instruction {
	var list []isa.Instruction
	const functions, calls = 8, 14
	for f := range functions - 1 {
		next := (f + 1) * (calls + 1)
		for range calls {
			list = append(list, isa.CallLocal(int32(next-len(list)-1)))
		}
		list = append(list, isa.Exit())
	}
	return append(list, isa.Mov64Imm(isa.R0, 0), isa.Exit())
}

// hostile are programs that want to stay in native code.
func hostile() map[string][]isa.Instruction {
	// touch reads or writes far away from the last time, forever.
	touch := func(first isa.Instruction, step int32, access isa.Instruction) []isa.Instruction {
		return []isa.Instruction{first, isa.ALU64Imm(isa.Add, isa.R6, step), access, isa.Jump(-3)}
	}
	start := isa.Mov64Imm(isa.R6, 1<<20)
	return map[string][]isa.Instruction{
		"nested functions": nested(),
		"short loop":       {isa.Jump(-1)},
		"divisions":        {isa.Mov64Imm(isa.R6, -1), isa.Mov64Imm(isa.R7, 3), isa.ALU64(isa.Div, isa.R6, isa.R7), isa.ALU64Imm(isa.Or, isa.R6, -5), isa.Jump(-3)},
		"atomics":          {isa.Atomic(isa.FetchOr, isa.Double, isa.R10, -8, isa.R6), isa.Jump(-2)},
		"new pages":        touch(start, 4096, isa.StoreMem(isa.Double, isa.R6, 0, isa.R6)),
		"cache misses":     touch(start, 0x9e3779b1-1<<32, isa.LoadMem(isa.Double, isa.R7, isa.R6, 0)),
		// Two hundred thousand quick turns, then a thousand pages.
		"now and then": {
			start,
			isa.Mov64Imm(isa.R7, 200_000), isa.ALU64Imm(isa.Sub, isa.R7, 1), isa.JumpIfImm(isa.NE, isa.R7, 0, -2),
			isa.Mov64Imm(isa.R7, 1000), isa.ALU64Imm(isa.Add, isa.R6, 4096), isa.StoreMem(isa.Double, isa.R6, 0, isa.R6),
			isa.ALU64Imm(isa.Sub, isa.R7, 1), isa.JumpIfImm(isa.NE, isa.R7, 0, -4), isa.Jump(-9),
		},
		// New pages, and a helper before the budget is spent.
		"between helpers": {
			start,
			isa.Mov64Imm(isa.R7, 1500), isa.ALU64Imm(isa.Add, isa.R6, 4096), isa.StoreMem(isa.Double, isa.R6, 0, isa.R6),
			isa.ALU64Imm(isa.Sub, isa.R7, 1), isa.JumpIfImm(isa.NE, isa.R7, 0, -4), isa.Call(14), isa.Jump(-7),
		},
	}
}

// stay runs a program for a time, or for some stretches in native code if most is
// not 0, and returns how long these took.
func stay(tb testing.TB, insns []isa.Instruction, d time.Duration, most int) []time.Duration {
	vm, err := New(Options{CPUs: 1, MemoryLimit: 256 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	defer vm.Close()
	if !vm.native {
		tb.Skip("the system does not let code be made executable")
	}
	p, err := vm.NewProgramFromCode(Code{Name: "hostile", Insns: insns}, nil)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	l := stretches{most: most, enough: cancel}
	vm.engine, p.code = timedEngine{vm.engine, &l}, timedCode{p.code, &l}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		if _, err := p.Call(ctx, nil); err != nil && !errors.Is(err, ctx.Err()) {
			tb.Fatal(err)
		}
	}
	return l.took
}

// BenchmarkResidence is how long hostile programs keep Go from stopping the world,
// in microseconds.
func BenchmarkResidence(b *testing.B) {
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }
	programs := hostile()
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		b.Run(name, func(b *testing.B) {
			var l []time.Duration
			for b.Loop() {
				l = append(l, stay(b, programs[name], 2*time.Second, 0)...)
			}
			slices.Sort(l)
			// part is the stretch that a share of all are no longer than.
			part := func(share float64) float64 { return us(l[int(float64(len(l)-1)*share)]) }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(part(0.5), "p50-us")
			b.ReportMetric(part(0.999), "p99.9-us")
			b.ReportMetric(part(1), "longest-us")
			b.ReportMetric(float64(len(l)), "stretches")
		})
	}
}
