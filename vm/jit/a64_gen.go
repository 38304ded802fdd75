package jit

import (
	"slices"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// This file generates A64 code: what stands around the instructions, which are
// in a64_insn.go. It is the twin of x86_gen.go, with these differences.
//
// The stack of the goroutine stays where it is; x15 points into State.Stack
// instead, and State.HostSP holds the address that code returns to. x28, the
// goroutine, is what signal handlers of Go need, and never touched; nor
// are x18, which belongs to the system, and x29.

var a64Regs = [isa.NumRegisters]a64reg{
	isa.R0: 7, isa.R1: 0, isa.R2: 1, isa.R3: 2, isa.R4: 3, isa.R5: 4,
	isa.R6: 19, isa.R7: 20, isa.R8: 21, isa.R9: 22, isa.R10: 23,
}

const (
	a64Base   a64reg = 24 // the host address of cage address 0
	a64State  a64reg = 25
	a64Budget a64reg = 26
	a64SP     a64reg = 15
	a64Addr   a64reg = 9 // scratch, for addresses
	a64T1     a64reg = 10
	a64T2     a64reg = 11
	a64T3     a64reg = 12
)

// a64gen generates one program.
type a64gen struct {
	a64asm
	facts
	known
	p    *engine.Program
	o    options
	keys *keys

	insns   []int // labels of each instruction
	entries []int // of each function, for calls
	starts  []int // of each function, for the host
	restore int   // called where a run goes on
	done    int   // where the outermost function returns to
	leave   [engine.Fault + 1]int

	fn    int
	later []func()
}

// a64Near is for how many instructions conditional branches surely reach: what
// one of them takes is far below a hundred words, and the reach is 2^18.
const a64Near = 2000

// a64Generate returns the code of p.
func a64Generate(p *engine.Program, o options, k *keys) (*output, error) {
	g := &a64gen{p: p, o: o, keys: k, facts: newFacts(p)}
	g.far = len(p.Insns) > a64Near
	for range p.Insns {
		g.insns = append(g.insns, g.label())
	}
	for range p.Funcs {
		g.entries = append(g.entries, g.label())
		g.starts = append(g.starts, g.label())
	}
	g.restore, g.done = g.label(), g.label()
	for e := range g.leave {
		g.leave[e] = g.label()
	}
	g.crossings()
	for g.fn = range p.Funcs {
		g.function()
	}
	if !g.link() {
		return nil, errInternal(p, "a branch does not reach its target")
	}
	out := &output{code: g.code}
	for fn := range p.Funcs {
		out.starts = append(out.starts, g.labels[g.starts[fn]])
		out.funcs = append(out.funcs, g.labels[g.entries[fn]])
	}
	return out, nil
}

// field accesses a field of the State.
func (g *a64gen) field(kind uint32, size int, t a64reg, offset int) {
	g.accessImm(kind, size, t, a64State, offset)
}

// setField stores a number of 32 bits.
func (g *a64gen) setField(offset int, v uint32) {
	g.movImm(a64T1, uint64(v))
	g.field(a64Store, 4, a64T1, offset)
}

func (g *a64gen) crossings() {
	// The caller has put the host's return address into T1.
	g.bind(g.restore)
	g.field(a64Store, 8, a64T1, engine.OffsetHostSP)
	g.field(a64Load, 8, a64SP, engine.OffsetSP)
	g.field(a64Load, 8, a64Base, engine.OffsetBase)
	g.field(a64Load, 8, a64Budget, engine.OffsetBudget)
	for r, reg := range a64Regs {
		g.field(a64Load, 8, reg, engine.OffsetRegs+8*r)
	}
	g.ret()

	for exit := engine.HostCall; exit <= engine.Fault; exit++ {
		g.bind(g.leave[exit])
		g.setField(engine.OffsetExit, uint32(exit))
		if exit != engine.Fault {
			g.b(g.leave[engine.Done])
		}
	}
	// With Addr the address where the run goes on.
	g.bind(g.leave[engine.Done])
	for r, reg := range a64Regs {
		g.field(a64Store, 8, reg, engine.OffsetRegs+8*r)
	}
	g.field(a64Store, 8, a64Addr, engine.OffsetResumePC)
	g.outside()

	g.bind(g.done)
	g.field(a64Store, 8, a64Regs[isa.R0], engine.OffsetRegs)
	g.setField(engine.OffsetExit, uint32(engine.Done))
	g.field(a64Store, 8, xzr, engine.OffsetResumePC)
	g.outside()
}

// outside returns to the host.
func (g *a64gen) outside() {
	g.field(a64Store, 8, a64SP, engine.OffsetSP)
	g.field(a64Store, 8, a64Budget, engine.OffsetBudget)
	g.field(a64Load, 8, a64L, engine.OffsetHostSP)
	g.ret()
}

// resume is the first thing where the host enters.
func (g *a64gen) resume() {
	g.mov(true, a64T1, a64L)
	g.bl(g.restore)
}

func (g *a64gen) function() {
	g.bind(g.starts[g.fn])
	g.resume()
	if g.fn == 0 {
		g.movImm(a64Regs[isa.R0], 0)
		for r := isa.R6; r <= isa.R9; r++ {
			g.movImm(a64Regs[r], 0)
		}
	}
	g.bl(g.entries[g.fn])
	g.b(g.done)

	g.bind(g.entries[g.fn])
	g.prologue()
	body := g.label()
	g.charge(g.p.EntryCost(g.fn))
	g.bcc(a64MI, g.spent(body))
	g.bind(body)
	for i := g.p.Funcs[g.fn]; i < g.p.End(g.fn); i++ {
		g.bind(g.insns[i])
		if g.joins[i] {
			g.join()
		}
		g.instruction(i)
	}
	for _, emit := range g.later {
		emit()
	}
	g.later = g.later[:0]
}

func (g *a64gen) prologue() {
	f := &g.facts.funcs[g.fn]
	g.push(a64L, a64SP)
	for _, r := range f.saved {
		g.push(a64Regs[r], a64SP)
	}
	if f.counting {
		g.movImm(a64T1, engine.MaxLoops)
		g.push(a64T1, a64SP)
	}
}

// epilogue undoes prologue; T1 is lost.
func (g *a64gen) epilogue() {
	f := &g.facts.funcs[g.fn]
	if f.counting {
		g.pop(a64T1, a64SP)
	}
	for _, r := range slices.Backward(f.saved) {
		g.pop(a64Regs[r], a64SP)
	}
	g.pop(a64L, a64SP)
}

// charge takes n from the budget; the flags say whether it is spent.
func (g *a64gen) charge(n int) {
	if n < 4096 {
		g.subsImm(true, a64Budget, a64Budget, uint32(n))
		return
	}
	g.movImm(a64T1, uint64(n))
	g.op(true, a64Subs, a64Budget, a64Budget, a64T1)
}

// jumpCharged charges n and jumps.
func (g *a64gen) jumpCharged(n, l int) {
	if n == 0 {
		g.b(l)
		return
	}
	g.charge(n)
	g.bcc(a64PL, l)
	g.b(g.spent(l))
}

// spent returns a place that leaves because the budget is spent, to go on at l.
func (g *a64gen) spent(l int) int {
	here := g.label()
	g.later = append(g.later, func() {
		g.bind(here)
		g.exit(engine.Budget)
		g.b(l)
	})
	return here
}

// exit leaves, and is where the run goes on.
func (g *a64gen) exit(e engine.Exit) {
	g.adrNext(a64Addr, 2)
	g.b(g.leave[e])
	g.resume()
}

// fault returns a place that ends the run; undo repairs registers before.
func (g *a64gen) fault(i int, class engine.FaultClass, undo func()) int {
	l := g.label()
	g.later = append(g.later, func() {
		g.bind(l)
		if undo != nil {
			undo()
		}
		g.where(i, uint32(class))
		g.adrNext(a64Addr, 0) // which only says whose fault it is
		g.b(g.leave[engine.Fault])
	})
	return l
}

// where notes what leaves, and its argument.
func (g *a64gen) where(i int, arg uint32) {
	g.setField(engine.OffsetArg, arg)
	g.setField(engine.OffsetPC, uint32(i))
}
