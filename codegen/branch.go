package codegen

import (
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/isa"
)

// terminator ends the current block as b ends.
func (s *selector) terminator(b *ir.Block) {
	s.cur.pos = s.pos
	switch b.Term {
	case ir.TermJump:
		s.copies(b.Succs[0])
		s.jump(s.blocks[b.Succs[0].To])
	case ir.TermIf:
		s.branch(b.Cond, s.edge(b.Succs[0]), s.edge(b.Succs[1]), b.Likely)
	case ir.TermReturn:
		s.returns(b.Cond)
	default:
		// Control never comes here; what the verifier sees must still end.
		s.constant(0, 0)
		s.cur.end, s.cur.reads0 = endExit, true
	}
}

func (s *selector) jump(to *block) {
	s.cur.end = endJump
	s.cur.succs[0] = to
}

// returns leaves the function. Equal constants are returned in one place, and
// so is everything else: a jump there is shorter than leaving on the spot.
func (s *selector) returns(v *ir.Value) {
	value := v != nil || s.f.Linkage != ir.Static
	var n int64
	constant := v == nil
	if v != nil {
		n, constant = s.resolve(v).IsConst()
	}
	key := any("other")
	if constant {
		key = n
	}
	ret := s.rets[key]
	if ret == nil {
		cur := s.cur
		ret = s.m.newBlock()
		s.rets[key] = ret
		s.cur = ret
		ret.pos, ret.end, ret.reads0 = s.pos, endExit, value
		switch {
		case value && constant:
			s.constant(0, n)
		case value:
			s.retReg = s.newReg()
			s.emit(isa.Mov64(0, 0), 0, s.retReg)
		}
		s.cur = cur
	}
	if value && !constant {
		s.into(s.retReg, v)
	}
	s.jump(ret)
}

// edge returns the block that a conditional jump along e leads to: the target,
// or a block of copies before it.
func (s *selector) edge(e ir.Edge) *block {
	to := s.blocks[e.To]
	needed := false
	for _, p := range e.To.Params {
		needed = needed || s.d.live[p.ID]
	}
	if !needed {
		return to
	}
	cur, cache := s.cur, s.cache
	s.cur, s.cache = s.m.newBlock(), map[any]reg{}
	between := s.cur
	s.cur.pos = s.pos
	s.copies(e)
	s.jump(to)
	s.cur, s.cache = cur, cache
	return between
}

// A move is one of the copies that happen at the same time on an edge.
type move struct {
	dst reg
	src reg // noReg when nothing is read
	v   *ir.Value
	add int32
}

// copies assigns the parameters of a block from the arguments of an edge, as
// if all at once.
func (s *selector) copies(e ir.Edge) {
	var pending []move
	for i, p := range e.To.Params {
		if !s.d.live[p.ID] {
			continue
		}
		m := move{dst: s.reg(p), src: noReg, v: s.resolve(e.Args[i])}
		switch m.v.Op {
		case ir.OpConst, ir.OpAlloca, ir.OpMap, ir.OpFunc:
		case ir.OpPtrAdd:
			m.src = noReg
			if _, ok := isOffset(m.v); !ok {
				m.src = s.reg(m.v)
				break
			}
			base, sl, off := s.chain(m.v, 0)
			if sl == nil {
				m.src, m.add = s.use(base), off
			}
		default:
			m.src = s.use(m.v)
		}
		if m.src == m.dst && m.add == 0 {
			continue
		}
		pending = append(pending, m)
	}
	for len(pending) > 0 {
		done := -1
		for i, m := range pending {
			free := true
			for j, other := range pending {
				free = free && (i == j || other.src != m.dst)
			}
			if free {
				done = i
				break
			}
		}
		if done < 0 {
			// A cycle: save what the first would overwrite.
			t := s.newReg()
			s.emit(isa.Mov64(0, 0), t, pending[0].dst)
			for j := range pending {
				if pending[j].src == pending[0].dst {
					pending[j].src = t
				}
			}
			continue
		}
		m := pending[done]
		if m.src == noReg {
			s.into(m.dst, m.v)
		} else {
			if m.src != m.dst {
				s.emit(isa.Mov64(0, 0), m.dst, m.src)
			}
			if m.add != 0 {
				s.aluImm(isa.Add, true, m.dst, m.add)
			}
		}
		pending = append(pending[:done], pending[done+1:]...)
	}
}

func flip(l ir.Likely) ir.Likely {
	switch l {
	case ir.Then:
		return ir.Else
	case ir.Else:
		return ir.Then
	}
	return l
}

// branch ends the current block by going to then when v is 1, else to els.
func (s *selector) branch(v *ir.Value, then, els *block, likely ir.Likely) {
	if then == els {
		s.jump(then)
		return
	}
	if n, ok := v.IsConst(); ok {
		if n == 0 {
			then = els
		}
		s.jump(then)
		return
	}
	if s.d.isJumps(v) {
		switch v.Op {
		case ir.OpXor:
			s.branch(v.Args[0], els, then, flip(likely))
			return
		case ir.OpAnd, ir.OpOr:
			middle := s.m.newBlock()
			middle.pos = s.pos
			if v.Op == ir.OpAnd {
				s.branch(v.Args[0], middle, els, likely)
			} else {
				s.branch(v.Args[0], then, middle, likely)
			}
			s.cur = middle
			s.branch(v.Args[1], then, els, likely)
			return
		}
	}
	var cond inst
	if a := s.d.test(v); a != nil {
		// a & mask and nothing else: one instruction, for != 0 alone.
		cond = s.testBits(a)
		if v.Op == ir.OpEq {
			then, els, likely = els, then, flip(likely)
		}
	} else if v.Op.IsCompare() {
		cond = s.compare(v)
	} else {
		cond = inst{Instruction: isa.JumpIfImm(isa.NE, 0, 0, 0), dst: s.use(v), src: noReg, pos: s.pos}
	}
	b := s.cur
	b.end, b.cond, b.likely = endIf, cond, likely
	b.succs = [2]*block{then, els}
}

var jumpOps = map[ir.Op]isa.JumpOp{
	ir.OpEq: isa.Eq, ir.OpNe: isa.NE, ir.OpULt: isa.LT, ir.OpULe: isa.LE, ir.OpUGt: isa.GT, ir.OpUGe: isa.GE,
	ir.OpSLt: isa.SLT, ir.OpSLe: isa.SLE, ir.OpSGt: isa.SGT, ir.OpSGe: isa.SGE,
}

// compare returns the jump that is taken when v, a comparison, holds.
func (s *selector) compare(v *ir.Value) inst {
	op, x, y := v.Op, s.resolve(v.Args[0]), s.resolve(v.Args[1])
	t := v.Args[0].Type
	if _, ok := x.IsConst(); ok {
		op, x, y = op.Swap(), y, x
	}
	code := jumpOps[op]
	pos := s.pos
	n, constant := y.IsConst()
	if !t.IsInt() || t.Bits == 64 {
		if constant && fits32(n) {
			return inst{Instruction: isa.JumpIfImm(code, 0, int32(n), 0), dst: s.use(x), src: noReg, pos: pos}
		}
		return inst{Instruction: isa.JumpIf(code, 0, 0, 0), dst: s.use(x), src: s.use(y), pos: pos}
	}
	if t.Bits < 32 && op >= ir.OpSLt {
		// Signed: compare with the sign at the top.
		shift := int32(32 - t.Bits)
		up := func(v *ir.Value) reg {
			r := s.newReg()
			s.into(r, v)
			s.aluImm(isa.LSh, false, r, shift)
			return r
		}
		if constant {
			return inst{Instruction: isa.JumpIf32Imm(code, 0, int32(n)<<shift, 0), dst: up(x), src: noReg, pos: pos}
		}
		return inst{Instruction: isa.JumpIf32(code, 0, 0, 0), dst: up(x), src: up(y), pos: pos}
	}
	if constant {
		return inst{Instruction: isa.JumpIf32Imm(code, 0, int32(n), 0), dst: s.use(x), src: noReg, pos: pos}
	}
	return inst{Instruction: isa.JumpIf32(code, 0, 0, 0), dst: s.use(x), src: s.use(y), pos: pos}
}

// testBits returns the jump that is taken when v, an OpAnd, is not 0.
func (s *selector) testBits(v *ir.Value) inst {
	x, y := v.Args[0], v.Args[1]
	if _, ok := x.IsConst(); ok {
		x, y = y, x
	}
	wide := v.Type.Bits == 64
	i := inst{src: noReg, pos: s.pos}
	n, ok := y.IsConst()
	if !wide {
		n = int64(int32(n))
	}
	switch {
	case ok && fits32(n) && wide:
		i.Instruction, i.dst = isa.JumpIfImm(isa.Set, 0, int32(n), 0), s.use(x)
	case ok && fits32(n):
		i.Instruction, i.dst = isa.JumpIf32Imm(isa.Set, 0, int32(n), 0), s.use(x)
	case wide:
		i.Instruction, i.dst, i.src = isa.JumpIf(isa.Set, 0, 0, 0), s.use(x), s.use(y)
	default:
		i.Instruction, i.dst, i.src = isa.JumpIf32(isa.Set, 0, 0, 0), s.use(x), s.use(y)
	}
	return i
}

// truth makes the value of a comparison that is not only branched on.
func (s *selector) truth(v *ir.Value) {
	dst := s.reg(v)
	x := v.Args[0]
	if n, ok := v.Args[1].IsConst(); ok && n == 0 && v.Op == ir.OpSLt && x.Type.Bits >= 32 {
		s.into(dst, x)
		s.aluImm(isa.RSh, x.Type.Bits == 64, dst, int32(x.Type.Bits)-1)
		return
	}
	cond := s.compare(v)
	s.constant(dst, 1)
	zero, after := s.m.newBlock(), s.m.newBlock()
	b := s.cur
	b.pos, zero.pos = s.pos, s.pos
	b.end, b.cond, b.succs = endIf, cond, [2]*block{after, zero}
	s.cur = zero
	s.constant(dst, 0)
	s.jump(after)
	s.cur = after
}
