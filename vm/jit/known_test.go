//go:build linux && (amd64 || arm64)

package jit

import (
	"fmt"
	"slices"
	"testing"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
	"github.com/skep-bpf/skep/vm/interp"
)

// TestKnownBugs runs small programs that show bugs which JITs and interpreters of
// Linux had, written after the descriptions of the bugs, with the results of the
// fixed kernel.
func TestKnownBugs(t *testing.T) {
	type known struct {
		name  string
		insns []isa.Instruction
		want  uint64
	}
	high := isa.LoadImm64(isa.R1, 1<<32) // whose lower half is zero
	var list []known
	add := func(name string, want uint64, insns ...isa.Instruction) {
		list = append(list, known{name, append(insns, isa.Exit()), want})
	}
	add("CVE-2017-16995: a 32-bit move of a negative constant is sign extended", 0xffff_ffff, isa.Mov32Imm(isa.R0, -1))
	add("CVE-2021-3444: the remainder of a 32-bit division by zero is the dividend's lower half", 7,
		isa.LoadImm64(isa.R0, 0x5_0000_0007), isa.Mov64Imm(isa.R1, 0), isa.ALU32(isa.Mod, isa.R0, isa.R1))
	for _, c := range []struct {
		op   isa.ALUOp
		want uint64
	}{{isa.Div, 0}, {isa.Mod, 9}, {isa.SDiv, 0}, {isa.SMod, 9}} {
		add(fmt.Sprintf("CVE-2021-3600: a 32-bit division (%v) looks at 64 bits of the divisor", c.op), c.want,
			isa.LoadImm64(isa.R0, 0x5_0000_0009), high, isa.ALU32(c.op, isa.R0, isa.R1))
	}
	// CVE-2021-29154: distances of branches are computed before they are final. Each
	// jump goes over code whose length is near where short branches end.
	for n := int16(10); n < 60; n++ {
		var body []isa.Instruction
		for i := range n {
			body = append(body, isa.JumpIfImm(isa.Eq, isa.R2, 1, n-i), isa.ALU64Imm(isa.Add, isa.R3, int32(i)*1000))
		}
		body = body[:n]
		insns := append([]isa.Instruction{isa.Mov64Imm(isa.R0, 5), isa.Mov64Imm(isa.R2, 0), isa.Mov64Imm(isa.R3, 0), isa.Mov64Imm(isa.R4, 3)}, body...)
		for i := range insns[4:] { // all within the loop
			if _, jumps := insns[4+i].Jump(); jumps {
				insns[4+i].Off = n - int16(i) - 1
			}
		}
		insns = append(insns, isa.ALU64Imm(isa.Add, isa.R0, 7), isa.ALU64Imm(isa.Sub, isa.R4, 1), isa.JumpIfImm(isa.NE, isa.R4, 0, -n-3))
		add(fmt.Sprintf("CVE-2021-29154: branches over %d instructions", n), 5+3*7, insns...)
	}
	// CVE-2021-38300: a branch that is too far for the machine's short form.
	far := []isa.Instruction{isa.Mov64Imm(isa.R0, 1), isa.JumpIfImm(isa.Eq, isa.R0, 1, 32000)}
	for range 32000 {
		far = append(far, isa.ALU64Imm(isa.Mul, isa.R0, 0x1234567))
	}
	add("CVE-2021-38300: a branch over 32,000 instructions", 1, far...)
	add("a fetching atomic operation whose operand is r0 loses it", 0x0f_f3,
		isa.StoreImm(isa.Double, isa.R10, -8, 0xf0), isa.Mov64Imm(isa.R0, 0x03), isa.Atomic(isa.FetchOr, isa.Double, isa.R10, -8, isa.R0),
		isa.LoadMem(isa.Double, isa.R1, isa.R10, -8), isa.ALU64Imm(isa.LSh, isa.R0, 4), isa.ALU64(isa.Or, isa.R0, isa.R1))
	add("a 32-bit test of the top bit sees the upper half", 1,
		isa.LoadImm64(isa.R1, 0x7fff_ffff_0000_0000), isa.Mov64Imm(isa.R0, 1), isa.JumpIf32Imm(isa.Set, isa.R1, -1<<31, 1), isa.Jump(1), isa.Mov64Imm(isa.R0, 2))
	add("a shift by r4, or of r4, where the count has a register of its own", 8<<3|1,
		isa.Mov64Imm(isa.R4, 3), isa.Mov64Imm(isa.R0, 8), isa.ALU64(isa.LSh, isa.R0, isa.R4), isa.Mov64Imm(isa.R2, 3), isa.ALU64(isa.RSh, isa.R4, isa.R2), isa.ALU64Imm(isa.Add, isa.R4, 1), isa.ALU64(isa.Or, isa.R0, isa.R4))
	add("a byte swap of 16 bits keeps those above", 0x3412,
		isa.LoadImm64(isa.R0, 0x7777_7777_7777_1234), isa.Instruction{Op: isa.Opcode(0xd7), Dst: isa.R0, Imm: 16})
	add("a 32-bit compare-and-exchange that is made keeps the upper half of r0", 0xffff_ffff,
		isa.StoreImm(isa.Double, isa.R10, -8, -1), isa.Mov64Imm(isa.R0, -1), isa.Mov64Imm(isa.R1, 3), isa.Atomic(isa.CmpXchg, isa.Word, isa.R10, -8, isa.R1))

	native, err := New()
	if err != nil {
		t.Fatal(err)
	}
	native.(*JIT).generate = auditedNative
	c := newCage(t)
	for _, e := range []engine.Engine{interp.New(c), native} {
		w := newWorld(t, e, c)
		for _, k := range list {
			p := program(t, slices.Clone(k.insns)...)
			for _, o := range []engine.Options{{}, {Blind: true}} {
				for _, plain := range []bool{false, true} { // without what some processors have
					native.(*JIT).options = nativeOptions()
					if plain {
						native.(*JIT).options = options{}
					}
					code, err := e.Compile(p, o)
					if err != nil {
						t.Fatalf("%s: %v", k.name, err)
					}
					s := w.s
					s.Regs[10], s.Budget = stackTop, engine.Quantum
					exit := code.Enter(s)
					for exit == engine.Budget {
						s.Budget = engine.Quantum
						exit = e.Run(s)
					}
					if exit != engine.Done || s.Regs[0] != k.want {
						t.Errorf("%s, %s, blinded %v: r0 = %#x after %v, want %#x", k.name, e.Name(), o.Blind, s.Regs[0], exit, k.want)
					}
					if err := code.Close(); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
}
