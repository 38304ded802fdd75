package jit

import (
	"slices"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// This file generates x86-64 code: what stands around the instructions, which
// are in x86_insn.go.
//
// Registers: those of BPF are where the kernel's JIT has them (x86Regs).
// Of the rest, r12 holds the host address of cage address 0, r10 the
// engine.State, r9 the budget, r11 is scratch, and rsp points into State.Stack.
// rbp holds the host address of what r10 points to: processors forward what was
// stored at rbp plus a constant without even looking at the address. Where the
// number in r10 counts, it is converted. What a program does never writes r10 and r12; r9 is lent out, and read back
// from State.Budget, where r11 is not enough.
//
// Code is entered by a call to the start of a function, or to a place where a
// run goes on, which calls restore first of all. Calls pair with returns everywhere,
// or each return up to Go's own would be mispredicted.
// The signal handlers of Go find an unknown function there and
// do not look at its stack, so it does not matter which one it is.

var x86Regs = [isa.NumRegisters]x86reg{
	isa.R0: rax, isa.R1: rdi, isa.R2: rsi, isa.R3: rdx, isa.R4: rcx, isa.R5: r8,
	isa.R6: rbx, isa.R7: r13, isa.R8: r14, isa.R9: r15, isa.R10: rbp,
}

const (
	x86Base    = r12
	x86State   = r10
	x86Budget  = r9
	x86Scratch = r11
	x86FP      = rbp
)

func x86Field(offset int32) x86mem { return x86mem{x86State, noReg, offset} }

func x86RegField(r isa.Register) x86mem { return x86Field(engine.OffsetRegs + 8*int32(r)) }

// x86gen is one pass over one program.
type x86gen struct {
	x86asm
	facts
	known
	p    *engine.Program
	o    options
	keys *keys

	insns     []x86label // of each instruction
	entries   []x86label // of each function, for calls
	starts    []x86label // of each function, for the host
	restore   x86label   // called where a run goes on
	retpoline x86label   // goes to r11
	spin      x86label   // where a mispredicted retpoline ends
	done      x86label   // where the outermost function returns to
	leave     [engine.Fault + 1]x86label

	fn     int
	fpCage bool     // rbp is a cage address for a moment
	later  []func() // emits what stands behind the function
}

// x86Generate returns the code of p.
func x86Generate(p *engine.Program, o options, k *keys) (*output, error) {
	var g *x86gen
	for range 2 {
		var before *x86asm
		if g != nil {
			before = &g.x86asm
		}
		g = &x86gen{p: p, o: o, keys: k, facts: newFacts(p)}
		g.before = before
		g.program()
	}
	if !g.link() {
		return nil, errInternal(p, "a jump does not reach its target")
	}
	out := &output{code: g.code}
	for _, l := range g.starts {
		out.starts = append(out.starts, g.at(l))
	}
	for _, l := range g.entries {
		out.funcs = append(out.funcs, g.at(l))
	}
	return out, nil
}

func (g *x86gen) at(l x86label) int { return g.labels[l] }

func (g *x86gen) program() {
	for range g.p.Insns {
		g.insns = append(g.insns, g.label())
	}
	for range g.p.Funcs {
		g.entries = append(g.entries, g.label())
		g.starts = append(g.starts, g.label())
	}
	g.restore, g.retpoline, g.spin, g.done = g.label(), g.label(), g.label(), g.label()
	for e := range g.leave {
		g.leave[e] = g.label()
	}
	g.crossings()
	for g.fn = range g.p.Funcs {
		g.function()
	}
}

// crossings emits the ways between Go and the program.
func (g *x86gen) crossings() {
	// restore changes the stack under its caller.
	g.bind(g.restore)
	g.pop(x86Scratch)
	g.inside()
	g.push(x86Scratch)
	for r, reg := range x86Regs {
		g.load(false, 8, reg, x86RegField(isa.Register(r)))
	}
	g.op64(true, opAdd, x86FP, x86Base)
	g.ret()

	for exit := engine.HostCall; exit <= engine.Fault; exit++ {
		g.bind(g.leave[exit])
		g.storeImm(4, x86Field(engine.OffsetExit), int32(exit))
		if exit != engine.Fault {
			g.jmp(g.leave[engine.Done])
		}
	}
	// With r11 the address where the run goes on.
	g.bind(g.leave[engine.Done])
	g.op64(true, opSub, x86FP, x86Base)
	for r, reg := range x86Regs {
		g.store(8, x86RegField(isa.Register(r)), reg)
	}
	g.outside()
	g.store(8, x86Field(engine.OffsetResumePC), x86Scratch)
	g.ret()

	// Where function 0 starts.
	g.bind(g.starts[0])
	g.inside()
	for r, reg := range x86Regs {
		if r >= int(isa.R1) && r <= int(isa.R5) || r == int(isa.R10) {
			g.load(false, 8, reg, x86RegField(isa.Register(r)))
		} else {
			g.zero(reg)
		}
	}
	g.op64(true, opAdd, x86FP, x86Base)
	g.call(g.entries[0])
	// Behind the return of the outermost function.
	g.bind(g.done)
	g.store(8, x86RegField(isa.R0), rax)
	g.outside()
	g.storeImm(4, x86Field(engine.OffsetExit), int32(engine.Done))
	g.storeImm(8, x86Field(engine.OffsetResumePC), 0)
	g.ret()

	g.bind(g.retpoline)
	set := g.label()
	g.call(set)
	g.bind(g.spin)
	g.pause()
	g.lfence()
	g.jmp(g.spin)
	g.bind(set)
	g.store(8, x86mem{rsp, noReg, 0}, x86Scratch)
	g.ret()
}

// inside leaves the stack of the goroutine, and fetches what is not BPF's.
func (g *x86gen) inside() {
	g.store(8, x86Field(engine.OffsetHostSP), rsp)
	g.load(false, 8, rsp, x86Field(engine.OffsetSP))
	g.load(false, 8, x86Base, x86Field(engine.OffsetBase))
	g.load(false, 8, x86Budget, x86Field(engine.OffsetBudget))
}

// outside goes back to the stack of the goroutine.
func (g *x86gen) outside() {
	g.store(8, x86Field(engine.OffsetSP), rsp)
	g.store(8, x86Field(engine.OffsetBudget), x86Budget)
	g.load(false, 8, rsp, x86Field(engine.OffsetHostSP))
}

// function emits function g.fn and its entries.
func (g *x86gen) function() {
	body := g.label()
	cost := int32(g.p.EntryCost(g.fn))

	if g.fn > 0 {
		g.bind(g.starts[g.fn])
		g.call(g.restore)
		g.call(g.entries[g.fn])
		g.jmp(g.done)
	}
	g.bind(g.entries[g.fn])
	g.charge(cost, body)
	g.bind(body)
	g.prologue()
	for i := g.p.Funcs[g.fn]; i < g.p.End(g.fn); i++ {
		g.bind(g.insns[i])
		if g.joins[i] {
			g.join()
		}
		g.instruction(i)
	}
	g.flush()
}

// flush emits what was put off.
func (g *x86gen) flush() {
	for _, emit := range g.later {
		emit()
	}
	g.later = g.later[:0]
}

func (g *x86gen) prologue() {
	f := &g.facts.funcs[g.fn]
	for _, r := range f.saved {
		g.push(x86Regs[r])
	}
	if f.counting {
		g.pushImm(engine.MaxLoops)
	}
}

// epilogue undoes prologue; only r11 is lost.
func (g *x86gen) epilogue() {
	f := &g.facts.funcs[g.fn]
	if f.counting {
		g.pop(x86Scratch)
	}
	for _, r := range slices.Backward(f.saved) {
		g.pop(x86Regs[r])
	}
}

// charge takes n from the budget, and leaves if it is spent; the run then goes
// on at l. It falls through otherwise.
func (g *x86gen) charge(n int32, l x86label) {
	if g.o.unbudgeted {
		return
	}
	spent := g.label()
	g.opImm64(true, opSub, x86Budget, n)
	g.jcc(ccS, spent)
	g.spent(spent, l)
}

// jumpCharged is charge, and then a jump to l.
func (g *x86gen) jumpCharged(n int32, l x86label) {
	if g.o.unbudgeted {
		g.jmp(l)
		return
	}
	spent := g.label()
	g.opImm64(true, opSub, x86Budget, n)
	g.jcc(ccNS, l)
	g.jmp(spent)
	g.spent(spent, l)
}

func (g *x86gen) spent(here, l x86label) {
	g.later = append(g.later, func() {
		g.bind(here)
		g.exit(engine.Budget)
		g.jmp(l)
	})
}

// exit leaves, and is where the run goes on.
func (g *x86gen) exit(e engine.Exit) {
	resume := g.label()
	g.leaLabel(x86Scratch, resume)
	g.jmp(g.leave[e])
	g.bind(resume)
	g.call(g.restore)
}

// fault returns a place that ends the run; undo repairs registers before.
func (g *x86gen) fault(i int, class engine.FaultClass, undo func()) x86label {
	l := g.label()
	g.later = append(g.later, func() {
		g.bind(l)
		if undo != nil {
			undo()
		}
		g.storeImm(4, x86Field(engine.OffsetPC), int32(i))
		g.storeImm(4, x86Field(engine.OffsetArg), int32(class))
		g.leaLabel(x86Scratch, g.spin) // which only says whose fault it is
		g.jmp(g.leave[engine.Fault])
	})
	return l
}
