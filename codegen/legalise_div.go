package codegen

import "github.com/skep-bpf/skep/ir"

// signedDivision computes with magnitudes: instruction sets before version 4
// divide without signs only. Division by zero still gives 0 and modulo zero x,
// and the most negative number divided by -1 is itself.
func (e *editor) signedDivision(v *ir.Value) {
	b := e.b
	x, y := v.Args[0], v.Args[1]
	t := v.Type
	if e.g.cpu >= 4 && t.Bits >= 32 {
		if n, ok := y.IsConst(); !ok || n != 0 {
			return
		}
	}
	wide := t
	if t.Bits < 32 {
		wide = ir.I32
		x, y = b.Resize(x, wide, true), b.Resize(y, wide, true)
	}
	set := func(op ir.Op, p, q *ir.Value) {
		if wide == t {
			become(v, op, p, q)
			return
		}
		become(v, ir.OpTrunc, b.Binary(op, p, q))
	}
	top := b.Const(wide, int64(wide.Bits)-1)
	sign := func(p *ir.Value) *ir.Value { return b.Binary(ir.OpAShr, p, top) }
	// magnitude is p where s is 0, -p where s is -1.
	magnitude := func(p, s *ir.Value) *ir.Value {
		return b.Binary(ir.OpSub, b.Binary(ir.OpXor, p, s), s)
	}
	n, constant := y.IsConst()
	if constant {
		n = ir.SignExtend(n, wide)
	}
	sx := sign(x)
	if constant && n > 0 && n&(n-1) == 0 {
		e.divisionByPowerOf2(v.Op, x, sx, n, wide, set)
		return
	}
	ax := magnitude(x, sx)
	var ay, s *ir.Value
	if constant {
		ay, s = b.Const(wide, n), sx
		if n < 0 {
			ay = b.Const(wide, -n)
			s = b.Binary(ir.OpXor, sx, b.Const(wide, -1))
		}
	} else {
		sy := sign(y)
		ay, s = magnitude(y, sy), b.Binary(ir.OpXor, sx, sy)
	}
	if v.Op == ir.OpSMod {
		r := b.Binary(ir.OpUMod, ax, ay)
		set(ir.OpSub, b.Binary(ir.OpXor, r, sx), sx)
		return
	}
	q := b.Binary(ir.OpUDiv, ax, ay)
	set(ir.OpSub, b.Binary(ir.OpXor, q, s), s)
}

// divisionByPowerOf2 shifts, after adding n-1 to negative numbers so that the
// quotient is rounded to zero.
func (e *editor) divisionByPowerOf2(op ir.Op, x, sx *ir.Value, n int64, t ir.Type, set func(ir.Op, *ir.Value, *ir.Value)) {
	b := e.b
	log := int64(0)
	for m := n; m > 1; m >>= 1 {
		log++
	}
	bias := b.Binary(ir.OpAnd, sx, b.Const(t, n-1))
	sum := b.Binary(ir.OpAdd, x, bias)
	if op == ir.OpSDiv {
		set(ir.OpAShr, sum, b.Const(t, log))
		return
	}
	set(ir.OpSub, b.Binary(ir.OpAnd, sum, b.Const(t, n-1)), bias)
}
