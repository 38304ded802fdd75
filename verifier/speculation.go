package verifier

import (
	"github.com/skep-bpf/skep/isa"
)

// Without CAP_PERFMON a program must be safe even where the processor guesses
// wrong: branches that are never taken are followed too, as speculative paths,
// and offsets of pointers are masked by limits that all paths must agree on.

// alu is how an addition is masked (alu_state and alu_limit of struct
// bpf_insn_aux_data).
type alu struct {
	state uint8
	limit uint32
}

const (
	aluSanitizeSrc = 1 << iota
	aluSanitizeDst
	aluNegative
	aluNonPointer
	aluImmediate
)

// sanitizer carries the limit from before an addition to after it.
type sanitizer struct {
	alu
	left bool
}

// trustsProcessor reports whether speculative paths do not matter
// (bypass_spec_v1).
func (v *verifier) trustsProcessor() bool { return v.cfg.Caps.perfmon() && !v.cfg.Speculation }

func (v *verifier) skipsSanitation(op isa.Instruction) bool {
	return v.trustsProcessor() || op.Op.Source() == isa.SourceImm
}

func (a *alu) agree(state uint8, limit uint32) bool {
	if a.state != 0 && (a.state != state || a.limit != limit) {
		return false
	}
	a.state, a.limit = state, limit
	return true
}

func (v *verifier) pathsDiffer(op isa.Instruction) *Error {
	return v.fail("speculative-paths", int(op.Dst), "r%d is moved by different maps, paths or numbers, which needs CAP_PERFMON", op.Dst)
}

// sanitizeScalar notes that an addition is one of numbers on this path.
func (v *verifier) sanitizeScalar(op isa.Instruction) *Error {
	if v.skipsSanitation(op) || v.insns[v.insn].alu.agree(aluNonPointer, 0) {
		return nil
	}
	return v.pathsDiffer(op)
}

// sanitizePointer computes the limit for an addition (sanitize_ptr_alu): before
// it is done, and with commit after it, when the limit is the difference.
func (v *verifier) sanitizePointer(op isa.Instruction, info *sanitizer, ptr, off, dst *reg, inPlace, commit bool) *Error {
	if v.skipsSanitation(op) {
		return nil
	}
	imm := off.IsConst()
	if !v.st.speculative {
		neg := off.SMin < 0
		if !commit {
			if !imm && neg != (off.SMax < 0) {
				return v.fail("speculative-bounds", int(op.Src), "r%d may be positive and negative, which needs CAP_PERFMON where it moves a pointer", op.Src)
			}
			info.left = op.ALUOp() == isa.Add && neg || op.ALUOp() == isa.Sub && !neg
		}
		var most, limit uint32
		switch ptr.typ {
		case ptrStack:
			most = stackSize
			if info.left {
				most++
			}
			limit = uint32(-(int64(ptr.Bits.Value) + int64(ptr.off)))
		case ptrMapValue:
			most = v.maps[ptr.obj].ValueSize
			limit = uint32(ptr.UMax) + uint32(ptr.off)
			if info.left {
				limit = uint32(ptr.SMin) + uint32(ptr.off)
			}
		default:
			return v.fail("speculative-type", int(op.Dst), "moving a pointer of type %s by a register needs CAP_PERFMON", v.typeName(ptr))
		}
		if limit >= most {
			return v.fail("speculative-limit", int(op.Dst), "r%d is moved beyond what it points to, which needs CAP_PERFMON", op.Dst)
		}
		at, state := &info.alu, uint8(0)
		if commit {
			at, state = &v.insns[v.insn].alu, info.state
			d := int64(int32(info.limit - limit))
			limit = uint32(max(d, -d))
		} else {
			if neg {
				state |= aluNegative
			}
			if imm {
				state |= aluImmediate
			} else {
				v.exploreALU = true
			}
			if inPlace {
				state |= aluSanitizeSrc
			} else {
				state |= aluSanitizeDst
			}
		}
		if !at.agree(state, limit) {
			return v.pathsDiffer(op)
		}
	}
	if commit || imm {
		return nil
	}
	// What happens if the mask makes the offset zero.
	saved := *dst
	if !inPlace {
		*dst = *ptr
	}
	_, err := v.push(v.insn+1, v.insn, true)
	*dst = saved
	return err
}

// sanitizeBounds checks where a moved pointer points, which must be within what
// it came from even before it is used (sanitize_check_bounds).
func (v *verifier) sanitizeBounds(op isa.Instruction, p *reg) *Error {
	if v.trustsProcessor() {
		return nil
	}
	d := int(op.Dst)
	switch p.typ {
	case ptrStack:
		if !p.IsConst() {
			return v.fail("speculative-stack", d, "a stack pointer is moved by a number that is not constant, which needs CAP_PERFMON")
		}
		if off := int64(p.off) + int64(p.Bits.Value); off >= 0 || off < -stackSize {
			return v.fail("speculative-stack", d, "a stack pointer is moved out of the stack, to %d, which needs CAP_PERFMON", off)
		}
	case ptrMapValue:
		if err := v.mapAccess(p, d, int64(p.off), 1, false, byHelper); err != nil {
			return v.fail("speculative-limit", d, "r%d is moved out of the map's value, which needs CAP_PERFMON: %s", d, err.Message)
		}
	}
	return nil
}

// speculate puts off the branch that is not taken (sanitize_speculative_path).
func (v *verifier) speculate(op isa.Instruction, to int) *Error {
	if v.trustsProcessor() {
		return nil
	}
	st, err := v.push(to, v.insn, true)
	if err != nil {
		return err
	}
	regs := &st.frame().regs
	v.setUnknown(&regs[op.Dst])
	if op.Op.Source() == isa.SourceReg {
		v.setUnknown(&regs[op.Src])
	}
	return nil
}
