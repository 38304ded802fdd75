package opt

import "github.com/skep-bpf/skep/ir"

// known uses what branches tell: behind the edge on which x == c, x is c; a
// condition that was decided before is decided; a comparison with a constant
// may follow from earlier ones of the same value.
//
// Pointers are left alone, so that null checks stay where they are, and so
// are masks, which the verifier may need where it has lost a branch.
func known(p *context) bool {
	k := &knower{
		f: p.f, cfg: ir.NewCFG(p.f),
		conds: map[condKey]bool{}, ranges: map[*ir.Value]interval{}, equal: map[*ir.Value]*ir.Value{},
	}
	var marks []int
	k.cfg.WalkDom(func(b *ir.Block) {
		marks = append(marks, len(k.log))
		if preds := k.cfg.Preds(b); len(preds) == 1 && preds[0].Block.Term == ir.TermIf {
			if from := preds[0].Block; from.Succs[0].To != from.Succs[1].To {
				k.learn(from.Cond, preds[0].Succ == 0, b)
			}
		}
		k.block(b)
	}, func(*ir.Block) {
		mark := marks[len(marks)-1]
		marks = marks[:len(marks)-1]
		for len(k.log) > mark {
			undo := k.log[len(k.log)-1]
			k.log = k.log[:len(k.log)-1]
			undo()
		}
	})
	return k.changed
}

type condKey struct {
	op   ir.Op
	x, y *ir.Value
}

// An interval bounds a value, as an unsigned and as a signed number.
type interval struct {
	ulo, uhi uint64
	slo, shi int64
}

func fullInterval(t ir.Type) interval {
	return interval{0, uint64(allOnes(t)), ir.SignExtend(1<<(t.Bits-1), t), int64(uint64(allOnes(t)) >> 1)}
}

type knower struct {
	f       *ir.Func
	cfg     *ir.CFG
	conds   map[condKey]bool
	ranges  map[*ir.Value]interval
	equal   map[*ir.Value]*ir.Value // to a constant of the block where it is known
	log     []func()
	changed bool
}

func setKey[K comparable, V any](k *knower, m map[K]V, key K, v V) {
	old, had := m[key]
	k.log = append(k.log, func() {
		if had {
			m[key] = old
		} else {
			delete(m, key)
		}
	})
	m[key] = v
}

// condKeys are the forms in which a comparison may be asked for again.
func condKeys(c *ir.Value) (is, negated []condKey) {
	if !c.Op.IsCompare() {
		return nil, nil
	}
	x, y := c.Args[0], c.Args[1]
	n := c.Op.Negate()
	return []condKey{{c.Op, x, y}, {c.Op.Swap(), y, x}}, []condKey{{n, x, y}, {n.Swap(), y, x}}
}

// learn takes in that cond is so, from block b on.
func (k *knower) learn(cond *ir.Value, so bool, b *ir.Block) {
	if cond.Op == ir.OpConst {
		return
	}
	k.is(cond, truth(so), b)
	is, negated := condKeys(cond)
	for _, key := range is {
		setKey(k, k.conds, key, so)
	}
	for _, key := range negated {
		setKey(k, k.conds, key, !so)
	}
	if !cond.Op.IsCompare() || !cond.Args[0].Type.IsInt() {
		return
	}
	c, ok := cond.Args[1].IsConst()
	if !ok {
		return
	}
	x, op := cond.Args[0], cond.Op
	if x.Op == ir.OpConst {
		return
	}
	if !so {
		op = op.Negate()
	}
	if op == ir.OpEq && x.Type != ir.I1 {
		k.is(x, c, b)
	}
	setKey(k, k.ranges, x, k.rangeOf(x).and(op, x.Type, c))
}

// is takes in that x is c from b on.
func (k *knower) is(x *ir.Value, c int64, b *ir.Block) {
	con := k.f.NewConst(x.Type, c, b.Pos)
	b.InsertBefore(0, con)
	setKey(k, k.equal, x, con)
}

func truth(so bool) int64 {
	if so {
		return 1
	}
	return 0
}

func (k *knower) rangeOf(x *ir.Value) interval {
	if r, ok := k.ranges[x]; ok {
		return r
	}
	return fullInterval(x.Type)
}

// and is r narrowed by x op c.
func (r interval) and(op ir.Op, t ir.Type, c int64) interval {
	uc, sc := uint64(c), ir.SignExtend(c, t)
	switch op {
	case ir.OpEq:
		r = interval{uc, uc, sc, sc}
	case ir.OpULt:
		if uc > 0 {
			r.uhi = min(r.uhi, uc-1)
		}
	case ir.OpULe:
		r.uhi = min(r.uhi, uc)
	case ir.OpUGt:
		if uc < uint64(allOnes(t)) {
			r.ulo = max(r.ulo, uc+1)
		}
	case ir.OpUGe:
		r.ulo = max(r.ulo, uc)
	case ir.OpSLt:
		if sc > -1<<63 {
			r.shi = min(r.shi, sc-1)
		}
	case ir.OpSLe:
		r.shi = min(r.shi, sc)
	case ir.OpSGt:
		if sc < 1<<63-1 {
			r.slo = max(r.slo, sc+1)
		}
	case ir.OpSGe:
		r.slo = max(r.slo, sc)
	}
	// What is small without a sign is not negative.
	if half := uint64(allOnes(t)) >> 1; r.uhi <= half {
		r.slo, r.shi = max(r.slo, int64(r.ulo)), min(r.shi, int64(r.uhi))
	}
	if r.slo >= 0 {
		r.ulo, r.uhi = max(r.ulo, uint64(r.slo)), min(r.uhi, uint64(r.shi))
	}
	return r
}

// decides reports whether r decides x op c, and how.
func (r interval) decides(op ir.Op, t ir.Type, c int64) (so, ok bool) {
	if r.ulo > r.uhi || r.slo > r.shi {
		return false, false // control never comes here
	}
	uc, sc := uint64(c), ir.SignExtend(c, t)
	switch op {
	case ir.OpEq, ir.OpNe:
		if uc < r.ulo || uc > r.uhi || sc < r.slo || sc > r.shi {
			return op == ir.OpNe, true
		}
		return op == ir.OpEq, r.ulo == r.uhi
	case ir.OpULt, ir.OpUGe:
		return (r.uhi < uc) == (op == ir.OpULt), r.uhi < uc || r.ulo >= uc
	case ir.OpULe, ir.OpUGt:
		return (r.uhi <= uc) == (op == ir.OpULe), r.uhi <= uc || r.ulo > uc
	case ir.OpSLt, ir.OpSGe:
		return (r.shi < sc) == (op == ir.OpSLt), r.shi < sc || r.slo >= sc
	case ir.OpSLe, ir.OpSGt:
		return (r.shi <= sc) == (op == ir.OpSLe), r.shi <= sc || r.slo > sc
	}
	return false, false
}

func (k *knower) block(b *ir.Block) {
	replace := func(v **ir.Value) {
		if c := k.equal[*v]; c != nil {
			*v = c
			k.changed = true
		}
	}
	for _, v := range b.Values {
		v.Operands(replace)
		if !v.Op.IsCompare() {
			continue
		}
		so, ok := k.conds[condKey{v.Op, v.Args[0], v.Args[1]}]
		if c, isConst := v.Args[1].IsConst(); !ok && isConst && v.Args[0].Type.IsInt() && v.Args[0].Op != ir.OpConst {
			so, ok = k.rangeOf(v.Args[0]).decides(v.Op, v.Args[0].Type, c)
		}
		if ok {
			becomeConst(v, truth(so))
			k.changed = true
		}
	}
	b.Operands(replace)
}
