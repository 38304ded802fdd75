package opt

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
)

// removable reports whether v can go when its result is not used.
func removable(v *ir.Value) bool {
	e := v.Effects()
	return !e.Volatile && e.Writes == 0
}

// pure reports whether v depends on its operands alone, and can be computed
// wherever they are known.
func pure(v *ir.Value) bool {
	switch v.Op {
	case ir.OpParam, ir.OpAlloca, ir.OpNonNull:
		return false // a nonnull holds behind its branch only
	}
	return v.Effects().None()
}

// dead drops values and parameters that nothing with an effect depends on.
func dead(p *context) bool {
	f := p.f
	live := make([]bool, f.NumValues())
	var work []*ir.Value
	mark := func(v *ir.Value) {
		if !live[v.ID] {
			live[v.ID] = true
			work = append(work, v)
		}
	}
	preds := make([][]ir.Pred, f.NumBlocks())
	for _, b := range f.Blocks {
		for i, e := range b.Succs {
			preds[e.To.ID] = append(preds[e.To.ID], ir.Pred{Block: b, Succ: i})
		}
		if b.Cond != nil {
			mark(b.Cond)
		}
		for _, v := range b.Values {
			if !removable(v) {
				mark(v)
			}
		}
	}
	for _, prm := range f.Params() {
		live[prm.ID] = true
	}
	for len(work) > 0 {
		v := work[len(work)-1]
		work = work[:len(work)-1]
		for _, a := range v.Args {
			mark(a)
		}
		if v.Op == ir.OpParam {
			i := slices.Index(v.Block.Params, v)
			for _, p := range preds[v.Block.ID] {
				mark(p.Edge().Args[i])
			}
		}
	}
	changed := false
	for _, b := range f.Blocks {
		n := len(b.Values)
		b.Values = slices.DeleteFunc(b.Values, func(v *ir.Value) bool { return !live[v.ID] })
		changed = changed || len(b.Values) != n
		for i := len(b.Params) - 1; i >= 0; i-- {
			if !live[b.Params[i].ID] {
				b.RemoveParam(i, preds[b.ID])
				changed = true
			}
		}
	}
	return changed
}

// valueKey is equal for values that compute the same.
type valueKey struct {
	op   ir.Op
	typ  ir.Type
	n    int64
	aux  any
	args [5]int32
}

type fieldKey struct {
	t     btf.Type
	path  string
	off   uint32
	reloc bool
}

type coreKey struct {
	kind ir.CoreKind
	t    btf.Type
	path string
}

func keyOf(v *ir.Value) (valueKey, bool) {
	k := valueKey{op: v.Op, typ: v.Type, n: v.Int, aux: v.Aux}
	if len(v.Args) > len(k.args) {
		return k, false
	}
	for i, a := range v.Args {
		k.args[i] = a.ID + 1
	}
	if (v.Op.IsBinary() || v.Op.IsCompare()) && v.Op.Commutes() && k.args[0] > k.args[1] {
		k.args[0], k.args[1] = k.args[1], k.args[0]
	}
	switch aux := v.Aux.(type) {
	case *ir.FieldRef:
		k.aux = fieldKey{aux.Struct, fmt.Sprint(aux.Path), aux.Offset, aux.Relocate}
	case *ir.CoreRef:
		k.aux = coreKey{aux.Kind, aux.Type, fmt.Sprint(aux.Path)}
	}
	return k, true
}

// number replaces a value by an equal one that dominates it (global value
// numbering). The replacement is complete: a bound that was checked on the
// one is from then on checked on the other, by the very same comparison.
func number(p *context) bool {
	f := p.f
	cfg := ir.NewCFG(f)
	sub := ir.NewSubst(f)
	table := map[valueKey]*ir.Value{}
	var log []valueKey
	var marks []int
	changed := false
	cfg.WalkDom(func(b *ir.Block) {
		marks = append(marks, len(log))
		for _, v := range b.Values {
			for i, a := range v.Args {
				v.Args[i] = sub.Of(a)
			}
			if !pure(v) && v.Op != ir.OpNonNull {
				continue
			}
			k, ok := keyOf(v)
			if !ok {
				continue
			}
			if by := table[k]; by != nil {
				if by.Name == "" {
					by.Name = v.Name
				}
				sub.Replace(v, by)
				changed = true
				continue
			}
			table[k] = v
			log = append(log, k)
		}
	}, func(*ir.Block) {
		mark := marks[len(marks)-1]
		marks = marks[:len(marks)-1]
		for _, k := range log[mark:] {
			delete(table, k)
		}
		log = log[:mark]
	})
	sub.Apply(f)
	return changed
}

// narrow computes in 32 bits what is cut to 32 bits, and compares what was
// widened only to be compared before it is widened.
func narrow(p *context) bool {
	f := p.f
	uses := ir.UseCounts(f)
	changed := false
	for _, b := range f.Blocks {
		out := make([]*ir.Value, 0, len(b.Values))
		emit := func(v *ir.Value) *ir.Value {
			v.Block = b
			out = append(out, v)
			return v
		}
		single := func(v *ir.Value) bool { return int(v.ID) < len(uses) && uses[v.ID] == 1 }
		for _, v := range b.Values {
			switch {
			case v.Op == ir.OpTrunc && v.Type == ir.I32 && narrowable(v.Args[0], single):
				x := v.Args[0]
				l := narrowed(f, x.Args[0], v, emit)
				r := narrowed(f, x.Args[1], v, emit)
				become(v, x.Op, l, r)
				changed = true
			case v.Op.IsCompare():
				changed = narrowCompare(f, v, single, emit) || changed
			}
			out = append(out, v)
		}
		b.Values = out
	}
	return changed
}

// narrowable reports whether the low 32 bits of x, an I64 used once, can be
// computed from 32-bit operands that cost nothing.
func narrowable(x *ir.Value, single func(*ir.Value) bool) bool {
	if x.Type != ir.I64 || !single(x) {
		return false
	}
	switch x.Op {
	case ir.OpAdd, ir.OpSub, ir.OpMul, ir.OpAnd, ir.OpOr, ir.OpXor:
		return wasNarrow(x.Args[0]) && wasNarrow(x.Args[1])
	case ir.OpShl:
		c, ok := x.Args[1].IsConst()
		return ok && c >= 0 && c < 32 && wasNarrow(x.Args[0])
	}
	return false
}

func wasNarrow(v *ir.Value) bool {
	switch v.Op {
	case ir.OpConst:
		return true
	case ir.OpZExt, ir.OpSExt:
		return v.Args[0].Type.Bits <= 32
	}
	return false
}

// narrowed is the low half of x, for which wasNarrow holds.
func narrowed(f *ir.Func, x, like *ir.Value, emit func(*ir.Value) *ir.Value) *ir.Value {
	if c, ok := x.IsConst(); ok {
		return emit(f.NewConst(ir.I32, c, like.Pos))
	}
	y := x.Args[0]
	if y.Type == ir.I32 {
		return y
	}
	return emit(f.NewValue(x.Op, ir.I32, like.Pos, y))
}

func narrowCompare(f *ir.Func, v *ir.Value, single func(*ir.Value) bool, emit func(*ir.Value) *ir.Value) bool {
	x, y := v.Args[0], v.Args[1]
	if x.Op != ir.OpZExt && x.Op != ir.OpSExt || !single(x) {
		// Were x used elsewhere, its bound would be checked on another value.
		return false
	}
	from := x.Args[0].Type
	signed := v.Op >= ir.OpSLt
	unsigned := v.Op >= ir.OpULt && !signed
	if x.Op == ir.OpSExt && unsigned || from == ir.I1 {
		return false
	}
	op := v.Op
	if x.Op == ir.OpZExt && signed {
		// Zero-extended numbers are not negative: the order is the unsigned one.
		op = map[ir.Op]ir.Op{ir.OpSLt: ir.OpULt, ir.OpSLe: ir.OpULe, ir.OpSGt: ir.OpUGt, ir.OpSGe: ir.OpUGe}[op]
	}
	if c, ok := y.IsConst(); ok {
		low := ir.Truncate(c, from)
		if x.Op == ir.OpZExt && low != c || x.Op == ir.OpSExt && ir.Truncate(ir.SignExtend(low, from), x.Type) != c {
			return false
		}
		v.Op, v.Args[0], v.Args[1] = op, x.Args[0], emit(f.NewConst(from, low, v.Pos))
		return true
	}
	if y.Op == x.Op && y.Args[0].Type == from && single(y) {
		v.Op, v.Args[0], v.Args[1] = op, x.Args[0], y.Args[0]
		return true
	}
	return false
}

// signedDivision computes signed quotients and remainders without the
// instructions for it, which BPF has from its fourth version on only.
func signedDivision(p *context) bool {
	f := p.f
	changed := false
	for _, b := range f.Blocks {
		out := make([]*ir.Value, 0, len(b.Values))
		for _, v := range b.Values {
			if v.Op == ir.OpSDiv || v.Op == ir.OpSMod {
				if e := (&divider{f: f, b: b, v: v, out: out}); e.expand(p.o.CPU) {
					out = e.out
					changed = true
				}
			}
			out = append(out, v)
		}
		b.Values = out
	}
	return changed
}

type divider struct {
	f   *ir.Func
	b   *ir.Block
	v   *ir.Value
	out []*ir.Value
}

func (d *divider) op(op ir.Op, x, y *ir.Value) *ir.Value {
	v := d.f.NewValue(op, d.v.Type, d.v.Pos, x, y)
	v.Block = d.b
	d.out = append(d.out, v)
	return v
}

func (d *divider) konst(n int64) *ir.Value {
	v := d.f.NewConst(d.v.Type, n, d.v.Pos)
	v.Block = d.b
	d.out = append(d.out, v)
	return v
}

// expand makes of v the last operation of a sequence; what comes before it is
// in d.out.
func (d *divider) expand(cpu int) bool {
	x, y, t := d.v.Args[0], d.v.Args[1], d.v.Type
	if t == ir.I1 {
		// The divisor is 1 (or -1, which is the same), or it is 0, by which a
		// quotient is 0 and a remainder the dividend.
		if d.v.Op == ir.OpSMod {
			y = d.op(ir.OpXor, y, d.konst(1))
		}
		become(d.v, ir.OpAnd, x, y)
		return true
	}
	last := int64(t.Bits - 1)
	if c, ok := y.IsConst(); ok {
		if k, power := log2(c); power && k > 0 && k < last {
			// The sign fills the k bits that rounding towards zero adds.
			sign := d.op(ir.OpAShr, x, d.konst(last))
			bias := d.op(ir.OpLShr, sign, d.konst(int64(t.Bits)-k))
			sum := d.op(ir.OpAdd, x, bias)
			if d.v.Op == ir.OpSDiv {
				become(d.v, ir.OpAShr, sum, d.konst(k))
			} else {
				become(d.v, ir.OpSub, x, d.op(ir.OpAnd, sum, d.konst(-c)))
			}
			return true
		}
	}
	if cpu >= 4 && t.Bits >= 32 {
		return false
	}
	abs := func(x *ir.Value) (mag, sign *ir.Value) {
		if c, ok := x.IsConst(); ok {
			s := ir.SignExtend(c, t)
			return d.konst(max(s, -s)), d.konst(s >> 63)
		}
		sign = d.op(ir.OpAShr, x, d.konst(last))
		return d.op(ir.OpSub, d.op(ir.OpXor, x, sign), sign), sign
	}
	ax, sx := abs(x)
	ay, sy := abs(y)
	op, sign := ir.OpUMod, sx
	if d.v.Op == ir.OpSDiv {
		op, sign = ir.OpUDiv, d.op(ir.OpXor, sx, sy)
	}
	// Remainders have the sign of the dividend.
	become(d.v, ir.OpSub, d.op(ir.OpXor, d.op(op, ax, ay), sign), sign)
	return true
}
