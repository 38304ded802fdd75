package opt

import (
	"math/bits"
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// simplify folds constants, applies algebraic identities and replaces
// multiplications and unsigned divisions by powers of two by shifts and masks.
func simplify(p *context) bool {
	f := p.f
	s := &simplifier{f: f, sub: ir.NewSubst(f), uses: ir.UseCounts(f), compared: make([]bool, f.NumValues())}
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			if v.Op.IsCompare() {
				s.compared[v.Args[0].ID], s.compared[v.Args[1].ID] = true, true
			}
		}
	}
	cfg := ir.NewCFG(f)
	for _, b := range cfg.RPO {
		s.b = b
		s.out = make([]*ir.Value, 0, len(b.Values))
		for _, v := range b.Values {
			for i, a := range v.Args {
				v.Args[i] = s.sub.Of(a)
			}
			s.one(v)
		}
		b.Values = s.out
	}
	if s.sub.Apply(f) {
		s.changed = true
	}
	return s.changed
}

type simplifier struct {
	f    *ir.Func
	b    *ir.Block
	out  []*ir.Value // the values of b so far
	sub  *ir.Subst
	uses []int32
	// compared values may have a bound that is checked: what is computed from
	// them must not be computed from what they came from instead.
	compared []bool
	changed  bool
}

// one simplifies v until there is nothing left to do, and emits it unless it
// is another value.
func (s *simplifier) one(v *ir.Value) {
	for range 20 {
		r := s.rule(v)
		if r == nil {
			break
		}
		s.changed = true
		if r != v {
			if r.Name == "" {
				r.Name = v.Name
			}
			s.grow(r)
			s.uses[r.ID] += s.uses[v.ID]
			s.compared[r.ID] = s.compared[r.ID] || s.compared[v.ID]
			s.sub.Replace(v, r)
			return
		}
	}
	s.out = append(s.out, v)
}

// grow makes room for values made on the way.
func (s *simplifier) grow(v *ir.Value) {
	for int(v.ID) >= len(s.uses) {
		s.uses = append(s.uses, 0)
		s.compared = append(s.compared, false)
	}
}

// single reports whether v has one use only, so that nothing else depends on it.
func (s *simplifier) single(v *ir.Value) bool { s.grow(v); return s.uses[v.ID] <= 1 }

func (s *simplifier) isCompared(v *ir.Value) bool { s.grow(v); return s.compared[v.ID] }

// free reports whether a value computed from v may be computed from v's
// operands instead, without losing a bound that is checked on v.
func (s *simplifier) free(v *ir.Value) bool { return !s.isCompared(v) }

func (s *simplifier) emit(v *ir.Value) *ir.Value {
	v.Block = s.b
	s.out = append(s.out, v)
	s.grow(v)
	return v
}

func (s *simplifier) konst(t ir.Type, n int64, like *ir.Value) *ir.Value {
	return s.emit(s.f.NewConst(t, n, like.Pos))
}

// become changes v in place.
func become(v *ir.Value, op ir.Op, args ...*ir.Value) *ir.Value {
	// args may be the operands of another value, which must stay its own.
	v.Op, v.Args, v.Int, v.Aux = op, slices.Clone(args), 0, nil
	return v
}

func becomeConst(v *ir.Value, n int64) *ir.Value {
	become(v, ir.OpConst)
	v.Int = ir.Truncate(n, v.Type)
	return v
}

func log2(n int64) (int64, bool) {
	if n != 0 && n&(n-1) == 0 {
		return int64(bits.TrailingZeros64(uint64(n))), true
	}
	return 0, false
}

func allOnes(t ir.Type) int64 { return ir.Truncate(-1, t) }

// rule applies one rewriting. It returns nil when there is none, v when v was
// changed in place, or the value that v equals.
func (s *simplifier) rule(v *ir.Value) *ir.Value {
	switch {
	case v.Op.IsBinary():
		return s.binary(v)
	case v.Op.IsCompare():
		return s.compare(v)
	}
	switch v.Op {
	case ir.OpNeg:
		x := v.Args[0]
		if v.Type == ir.I1 {
			return x
		}
		if c, ok := x.IsConst(); ok {
			return becomeConst(v, -c)
		}
		switch {
		case x.Op == ir.OpNeg && s.free(x):
			return x.Args[0]
		case x.Op == ir.OpSub && s.single(x):
			return become(v, ir.OpSub, x.Args[1], x.Args[0])
		}
	case ir.OpSwap:
		x := v.Args[0]
		if c, ok := x.IsConst(); ok {
			return becomeConst(v, ir.EvalSwap(v.Type, c))
		}
		if x.Op == ir.OpSwap && s.free(x) {
			return x.Args[0]
		}
	case ir.OpTrunc, ir.OpZExt, ir.OpSExt:
		return s.convert(v)
	case ir.OpNonNull:
		if x := v.Args[0]; !x.Type.Nullable && ir.Assignable(x.Type, v.Type) {
			return x
		}
	case ir.OpPtrCast:
		if v.Args[0].Type == v.Type {
			return v.Args[0]
		}
	case ir.OpPtrAdd:
		return s.ptrAdd(v)
	}
	return nil
}

func (s *simplifier) ptrAdd(v *ir.Value) *ir.Value {
	p := v.Args[0]
	c, ok := v.Args[1].IsConst()
	if !ok {
		return nil
	}
	if c == 0 && ir.Assignable(p.Type, v.Type) {
		return p
	}
	// Pointers that differ by constants share what the verifier knows of them.
	if p.Op == ir.OpPtrAdd {
		if d, ok := p.Args[1].IsConst(); ok {
			return become(v, ir.OpPtrAdd, p.Args[0], s.konst(ir.I64, c+d, v))
		}
	}
	return nil
}

func (s *simplifier) convert(v *ir.Value) *ir.Value {
	x := v.Args[0]
	if c, ok := x.IsConst(); ok {
		if v.Op == ir.OpSExt {
			c = ir.SignExtend(c, x.Type)
		}
		return becomeConst(v, c)
	}
	inner := x.Op == ir.OpTrunc || x.Op == ir.OpZExt || x.Op == ir.OpSExt
	if !inner || !s.free(x) {
		return nil
	}
	y := x.Args[0]
	switch v.Op {
	case ir.OpTrunc:
		switch {
		case v.Type == y.Type:
			return y
		case x.Op == ir.OpTrunc || v.Type.Bits < y.Type.Bits:
			return become(v, ir.OpTrunc, y)
		default:
			return become(v, x.Op, y)
		}
	case ir.OpZExt:
		if x.Op == ir.OpZExt {
			return become(v, ir.OpZExt, y)
		}
		// Two moves of 32 bits beat a mask that is a 64-bit constant, so only
		// the narrower ones become masks.
		if x.Op == ir.OpTrunc && y.Type == v.Type && x.Type.Bits < 32 && s.single(x) {
			return become(v, ir.OpAnd, y, s.konst(v.Type, allOnes(x.Type), v))
		}
	case ir.OpSExt:
		if x.Op != ir.OpTrunc {
			return become(v, x.Op, y)
		}
	}
	return nil
}

// counted is the number that y, the truth of a comparison, adds to a sum: for
// numbers below 1<<63 it is the sign of a difference, which takes no branch. A
// truth that is used for anything else stays what the verifier learns from.
func (s *simplifier) counted(y *ir.Value) *ir.Value {
	if y.Op != ir.OpZExt || y.Type != ir.I64 || !s.single(y) {
		return nil
	}
	cmp := y.Args[0]
	if !cmp.Op.IsCompare() || !s.single(cmp) || cmp.Args[0].Type != ir.I64 {
		return nil
	}
	a, b := cmp.Args[0], cmp.Args[1]
	switch cmp.Op {
	case ir.OpUGt, ir.OpSGt:
		a, b = b, a
	case ir.OpULt, ir.OpSLt:
	case ir.OpULe, ir.OpSLe:
		c, ok := b.IsConst()
		if !ok || c < 0 || c == 1<<63-1 {
			return nil
		}
		b = s.konst(ir.I64, c+1, b)
	case ir.OpUGe, ir.OpSGe:
		c, ok := b.IsConst()
		if !ok || c <= 0 {
			return nil
		}
		a, b = s.konst(ir.I64, c-1, b), a
	default:
		return nil
	}
	if !s.nonNegative(a) || !s.nonNegative(b) {
		return nil
	}
	diff := s.emit(s.f.NewValue(ir.OpSub, ir.I64, y.Pos, a, b))
	return s.emit(s.f.NewValue(ir.OpLShr, ir.I64, y.Pos, diff, s.konst(ir.I64, 63, y)))
}

func (s *simplifier) binary(v *ir.Value) *ir.Value {
	x, y := v.Args[0], v.Args[1]
	if v.Op == ir.OpAdd || v.Op == ir.OpSub {
		if n := s.counted(y); n != nil {
			return become(v, v.Op, x, n)
		}
	}
	if v.Op == ir.OpAdd {
		if n := s.counted(x); n != nil {
			return become(v, ir.OpAdd, y, n)
		}
	}
	xc, xok := x.IsConst()
	yc, yok := y.IsConst()
	if xok && yok {
		return becomeConst(v, ir.EvalBinary(v.Op, v.Type, xc, yc))
	}
	if xok && v.Op.Commutes() {
		v.Args[0], v.Args[1] = y, x
		return v
	}
	if x == y {
		switch v.Op {
		case ir.OpSub, ir.OpXor, ir.OpUMod, ir.OpSMod:
			return becomeConst(v, 0) // 0 modulo 0 is 0 too
		case ir.OpAnd, ir.OpOr:
			return x
		}
	}
	if v.Type == ir.I1 {
		// Arithmetic on truth values is logic.
		switch v.Op {
		case ir.OpAdd, ir.OpSub:
			return become(v, ir.OpXor, x, y)
		case ir.OpMul, ir.OpUDiv, ir.OpSDiv:
			return become(v, ir.OpAnd, x, y)
		case ir.OpUMod, ir.OpSMod:
			one := s.konst(ir.I1, 1, v)
			not := s.emit(s.f.NewValue(ir.OpXor, ir.I1, v.Pos, y, one))
			return become(v, ir.OpAnd, x, not)
		case ir.OpShl, ir.OpLShr, ir.OpAShr:
			return x // the count is taken modulo 1
		}
	}
	if yok {
		if r := s.binaryConst(v, x, yc); r != nil {
			return r
		}
	}
	switch v.Op {
	case ir.OpAdd:
		switch {
		case y.Op == ir.OpNeg && s.free(y):
			return become(v, ir.OpSub, x, y.Args[0])
		case x.Op == ir.OpNeg && s.free(x):
			return become(v, ir.OpSub, y, x.Args[0])
		}
	case ir.OpSub:
		switch {
		case xok && xc == 0:
			return become(v, ir.OpNeg, y)
		case y.Op == ir.OpNeg && s.free(y):
			return become(v, ir.OpAdd, x, y.Args[0])
		}
	case ir.OpShl, ir.OpLShr, ir.OpAShr, ir.OpUDiv, ir.OpUMod, ir.OpSDiv, ir.OpSMod:
		if xok && xc == 0 {
			return x
		}
	}
	return nil
}

// binaryConst simplifies x op c.
func (s *simplifier) binaryConst(v, x *ir.Value, c int64) *ir.Value {
	t := v.Type
	k, power := log2(c)
	ones := c == allOnes(t)
	switch v.Op {
	case ir.OpAdd, ir.OpOr, ir.OpXor, ir.OpSub:
		if c == 0 {
			return x
		}
	case ir.OpShl, ir.OpLShr, ir.OpAShr:
		count := c & int64(t.Bits-1)
		if count == 0 {
			return x
		}
		if count != c {
			v.Args[1] = s.konst(t, count, v)
			return v
		}
	}
	switch v.Op {
	case ir.OpSub:
		return become(v, ir.OpAdd, x, s.konst(t, -c, v))
	case ir.OpMul:
		switch {
		case c == 0:
			return becomeConst(v, 0)
		case c == 1:
			return x
		case ones:
			return become(v, ir.OpNeg, x)
		case power:
			return become(v, ir.OpShl, x, s.konst(t, k, v))
		}
	case ir.OpUDiv:
		switch {
		case c == 0:
			return becomeConst(v, 0)
		case c == 1:
			return x
		case power:
			return become(v, ir.OpLShr, x, s.konst(t, k, v))
		}
	case ir.OpSDiv:
		switch {
		case c == 0:
			return becomeConst(v, 0)
		case ones:
			return become(v, ir.OpNeg, x)
		case c == 1:
			return x
		case s.nonNegative(x) && ir.SignExtend(c, t) > 0:
			return become(v, ir.OpUDiv, x, v.Args[1])
		}
	case ir.OpUMod:
		switch {
		case c == 0:
			return x
		case power:
			return become(v, ir.OpAnd, x, s.konst(t, c-1, v))
		}
	case ir.OpSMod:
		switch {
		case c == 0:
			return x
		case c == 1 || ones:
			return becomeConst(v, 0)
		case s.nonNegative(x) && ir.SignExtend(c, t) > 0:
			return become(v, ir.OpUMod, x, v.Args[1])
		}
	case ir.OpAnd:
		switch {
		case c == 0:
			return becomeConst(v, 0)
		case ^c&int64(mayBeSet(x, 4)) == 0:
			return x
		}
	case ir.OpOr:
		if ones {
			return becomeConst(v, -1)
		}
	case ir.OpXor:
		// The negation of a truth value.
		if t == ir.I1 && x.Op.IsCompare() {
			return become(v, x.Op.Negate(), x.Args...)
		}
	}
	// (x op d) op c
	if x.Op != v.Op || len(x.Args) < 2 {
		return nil
	}
	d, ok := x.Args[1].IsConst()
	if !ok {
		return nil
	}
	switch v.Op {
	case ir.OpAnd, ir.OpOr:
		return become(v, v.Op, x.Args[0], s.konst(t, ir.EvalBinary(v.Op, t, c, d), v))
	case ir.OpAdd, ir.OpMul, ir.OpXor:
		if s.free(x) {
			return become(v, v.Op, x.Args[0], s.konst(t, ir.EvalBinary(v.Op, t, c, d), v))
		}
	case ir.OpShl, ir.OpLShr:
		if !s.free(x) {
			return nil
		}
		if c+d >= int64(t.Bits) {
			return becomeConst(v, 0)
		}
		return become(v, v.Op, x.Args[0], s.konst(t, c+d, v))
	}
	return nil
}

// mayBeSet returns the bits of x that are not known to be zero, by what x is
// computed from. Masks are only dropped when they follow from this, never
// when they follow from branches: the verifier sees the same.
func mayBeSet(x *ir.Value, depth int) uint64 {
	all := uint64(allOnes(x.Type))
	if depth == 0 {
		return all
	}
	switch x.Op {
	case ir.OpConst:
		return uint64(x.Int)
	case ir.OpZExt:
		return mayBeSet(x.Args[0], depth-1)
	case ir.OpTrunc:
		return mayBeSet(x.Args[0], depth-1) & all
	case ir.OpAnd:
		return mayBeSet(x.Args[0], depth-1) & mayBeSet(x.Args[1], depth-1)
	case ir.OpOr, ir.OpXor:
		return mayBeSet(x.Args[0], depth-1) | mayBeSet(x.Args[1], depth-1)
	case ir.OpLShr:
		if c, ok := x.Args[1].IsConst(); ok {
			return mayBeSet(x.Args[0], depth-1) >> (uint64(c) & uint64(x.Type.Bits-1))
		}
	case ir.OpShl:
		if c, ok := x.Args[1].IsConst(); ok {
			return mayBeSet(x.Args[0], depth-1) << (uint64(c) & uint64(x.Type.Bits-1)) & all
		}
	}
	return all
}

func (s *simplifier) nonNegative(x *ir.Value) bool {
	return mayBeSet(x, 4)>>(x.Type.Bits-1) == 0
}

func (s *simplifier) compare(v *ir.Value) *ir.Value {
	x, y := v.Args[0], v.Args[1]
	if x.Type.IsPtr() {
		return s.compareNull(v)
	}
	xc, xok := x.IsConst()
	yc, yok := y.IsConst()
	if xok && yok {
		return becomeConst(v, ir.EvalCompare(v.Op, x.Type, xc, yc))
	}
	if x == y {
		return becomeConst(v, ir.EvalCompare(v.Op, x.Type, 0, 0))
	}
	if xok {
		v.Op = v.Op.Swap()
		v.Args[0], v.Args[1] = y, x
		return v
	}
	if !yok {
		if (v.Op == ir.OpEq || v.Op == ir.OpNe) && x.Op == y.Op && (x.Op == ir.OpZExt || x.Op == ir.OpSExt) &&
			x.Args[0].Type == y.Args[0].Type && s.single(x) && s.single(y) {
			return become(v, v.Op, x.Args[0], y.Args[0])
		}
		return nil
	}
	return s.compareConst(v, x, yc)
}

// compareNull folds comparisons of addresses that cannot be null. Pointers
// that merely have such a type are compared all the same: where they come
// from, the kernel may know better.
func (s *simplifier) compareNull(v *ir.Value) *ir.Value {
	if v.Op != ir.OpEq && v.Op != ir.OpNe {
		return nil
	}
	x, y := v.Args[0], v.Args[1]
	if x.Op == ir.OpConst && y.Op != ir.OpConst {
		v.Args[0], v.Args[1] = y, x
		return v
	}
	if y.Op != ir.OpConst {
		return nil
	}
	for x.Op == ir.OpPtrAdd || x.Op == ir.OpField {
		if !x.Type.Space.Direct() {
			return nil
		}
		x = x.Args[0]
	}
	differ := int64(0)
	switch x.Op {
	case ir.OpConst:
	case ir.OpAlloca, ir.OpGlobal, ir.OpNonNull, ir.OpMap, ir.OpFunc:
		differ = 1
	default:
		return nil
	}
	return becomeConst(v, ir.EvalCompare(v.Op, ir.I64, differ, 0))
}

func (s *simplifier) compareConst(v, x *ir.Value, c int64) *ir.Value {
	t := x.Type
	equality := v.Op == ir.OpEq || v.Op == ir.OpNe
	if t == ir.I1 && equality {
		if (v.Op == ir.OpEq) == (c == 1) {
			return x
		}
		return become(v, ir.OpXor, x, s.konst(ir.I1, 1, v))
	}
	// The extremes of unsigned numbers.
	switch {
	case c == 0 && v.Op == ir.OpULt, c == allOnes(t) && v.Op == ir.OpUGt:
		return becomeConst(v, 0)
	case c == 0 && v.Op == ir.OpUGe, c == allOnes(t) && v.Op == ir.OpULe:
		return becomeConst(v, 1)
	case c == 1 && v.Op == ir.OpULt, c == 0 && v.Op == ir.OpULe:
		return become(v, ir.OpEq, x, s.konst(t, 0, v))
	case c == 1 && v.Op == ir.OpUGe, c == 0 && v.Op == ir.OpUGt:
		return become(v, ir.OpNe, x, s.konst(t, 0, v))
	}
	// What the bits that can be set rule out.
	top := mayBeSet(x, 4)
	uc := uint64(c)
	switch {
	case uc > top && (v.Op == ir.OpEq || v.Op == ir.OpUGe || v.Op == ir.OpUGt), uc == top && v.Op == ir.OpUGt:
		return becomeConst(v, 0)
	case uc > top && (v.Op == ir.OpNe || v.Op == ir.OpULt || v.Op == ir.OpULe), uc == top && v.Op == ir.OpULe:
		return becomeConst(v, 1)
	case equality && uc&^top != 0:
		return becomeConst(v, ir.EvalCompare(v.Op, ir.I64, 0, 1))
	}
	if !equality {
		return nil
	}
	switch x.Op {
	case ir.OpZExt, ir.OpSExt:
		from := x.Args[0].Type
		fits := ir.Truncate(c, from) == c
		if x.Op == ir.OpSExt {
			fits = ir.Truncate(ir.SignExtend(ir.Truncate(c, from), from), t) == c
			if !fits {
				return becomeConst(v, ir.EvalCompare(v.Op, ir.I64, 0, 1))
			}
		}
		if fits && (from == ir.I1 || s.single(x)) {
			return become(v, v.Op, x.Args[0], s.konst(from, c, v))
		}
	case ir.OpAdd, ir.OpXor:
		if d, ok := x.Args[1].IsConst(); ok && s.single(x) {
			op := ir.OpSub
			if x.Op == ir.OpXor {
				op = ir.OpXor
			}
			return become(v, v.Op, x.Args[0], s.konst(t, ir.EvalBinary(op, t, c, d), v))
		}
		if x.Op == ir.OpXor && c == 0 && s.single(x) {
			return become(v, v.Op, x.Args[0], x.Args[1])
		}
	case ir.OpSub:
		if c == 0 && s.single(x) {
			return become(v, v.Op, x.Args[0], x.Args[1])
		}
	case ir.OpNeg:
		if s.single(x) {
			return become(v, v.Op, x.Args[0], s.konst(t, -c, v))
		}
	}
	return nil
}
