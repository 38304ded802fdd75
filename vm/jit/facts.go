package jit

import (
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// facts are what both code generators want to know of a program beforehand.
type facts struct {
	joins []bool // per instruction: control comes here from elsewhere, too
	funcs []funcFacts
}

type funcFacts struct {
	saved    []isa.Register // those of r6 to r9 that the function saves
	counting bool           // it has a may_goto
}

func newFacts(p *engine.Program) facts {
	f := facts{joins: make([]bool, len(p.Insns)), funcs: make([]funcFacts, len(p.Funcs))}
	var written [isa.NumRegisters]bool // in the function
	for fn := range p.Funcs {
		clear(written[:])
		for i := p.Funcs[fn]; i < p.End(fn); i++ {
			insn := p.Insns[i]
			if _, jumps := insn.Jump(); jumps {
				f.joins[p.Target(i)] = true
			}
			if insn.Class() == isa.ClassJMP && insn.Op.JumpOp() == isa.JCond {
				f.funcs[fn].counting = true
			}
			if engine.Writes(insn, insn.Dst) {
				written[insn.Dst] = true
			}
			if engine.Writes(insn, insn.Src) {
				written[insn.Src] = true
			}
		}
		f.joins[p.Funcs[fn]] = true
		for r := isa.R6; r <= isa.R9; r++ {
			if written[r] {
				f.funcs[fn].saved = append(f.funcs[fn].saved, r)
			}
		}
	}
	return f
}

// known tracks, along straight code, what saves the confinement of an address.
// It holds under misprediction as well: what it knows was established by
// instructions on the only way to where it is used.
type known struct {
	clean   uint16       // registers whose upper half is zero
	scratch isa.Register // whose low half the scratch register holds; or nobody
}

const nobody = isa.NumRegisters

// join forgets everything, but that the frame pointer is a cage address.
func (k *known) join() { *k = known{clean: 1 << isa.R10, scratch: nobody} }

func (k *known) isClean(r isa.Register) bool { return k.clean>>r&1 != 0 }

// wrote notes that r has a new value.
func (k *known) wrote(r isa.Register, clean bool) {
	k.clean &^= 1 << r
	if clean {
		k.clean |= 1 << r
	}
	if k.scratch == r {
		k.scratch = nobody
	}
}

// result reports whether the value that instruction i writes to its destination
// has a zero upper half.
func (k *known) result(i isa.Instruction) bool {
	switch i.Class() {
	case isa.ClassALU:
		return i.ALUOp() != isa.End || i.Imm != 64
	case isa.ClassALU64:
		switch i.ALUOp() {
		case isa.Mov:
			if i.Op.Source() == isa.SourceImm {
				return i.Imm >= 0
			}
			return i.IsAddrSpaceCast() || i.Off == 0 && k.isClean(i.Src)
		case isa.And:
			if i.Op.Source() == isa.SourceImm {
				return i.Imm >= 0 || k.isClean(i.Dst)
			}
			return k.isClean(i.Dst) || k.isClean(i.Src)
		case isa.Or, isa.Xor:
			if i.Op.Source() == isa.SourceImm {
				return i.Imm >= 0 && k.isClean(i.Dst)
			}
			return k.isClean(i.Dst) && k.isClean(i.Src)
		case isa.RSh:
			return k.isClean(i.Dst) || i.Op.Source() == isa.SourceImm && i.Imm&63 >= 32
		case isa.End:
			return i.Imm != 64
		}
	case isa.ClassLD:
		return i.IsWide() && uint64(i.Imm)>>32 == 0
	case isa.ClassLDX:
		return i.Op.Mode() == isa.ModeMem && i.Op.Size() != isa.Double
	case isa.ClassSTX:
		return i.Op.Size() != isa.Double
	}
	return false
}
