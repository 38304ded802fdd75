package opt

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// unreachable drops the blocks that control cannot come to.
func unreachable(p *context) bool { return p.f.RemoveUnreachable() }

// flow simplifies control flow: constant branches become jumps, conditions
// made of several become several branches, edges lead past blocks that do
// nothing or decide by a constant, parameters that are always one value go,
// and blocks with one way in and out are joined.
func flow(p *context) bool {
	f := p.f
	changed := false
	for range 20 {
		again := f.RemoveUnreachable()
		again = branches(f) || again
		again = splitConds(f) || again
		again = f.RemoveUnreachable() || again
		again = sameParams(f) || again
		again = thread(f) || again
		again = f.RemoveUnreachable() || again
		again = merge(f) || again
		if !again {
			break
		}
		changed = true
	}
	return changed
}

// branches turns branches whose outcome is known into jumps.
func branches(f *ir.Func) bool {
	changed := false
	for _, b := range f.Blocks {
		if b.Term != ir.TermIf {
			continue
		}
		for b.Cond.Op == ir.OpXor {
			c, ok := b.Cond.Args[1].IsConst()
			if !ok || c != 1 {
				break
			}
			b.Cond = b.Cond.Args[0]
			b.Succs[0], b.Succs[1] = b.Succs[1], b.Succs[0]
			switch b.Likely {
			case ir.Then:
				b.Likely = ir.Else
			case ir.Else:
				b.Likely = ir.Then
			}
			changed = true
		}
		for i := range b.Succs {
			// On each edge the condition is known.
			for j, a := range b.Succs[i].Args {
				if a == b.Cond && a.Op != ir.OpConst {
					c := f.NewConst(ir.I1, int64(1-i), b.Pos)
					b.Append(c)
					b.Succs[i].Args[j] = c
					changed = true
				}
			}
		}
		if c, ok := b.Cond.IsConst(); ok {
			jumpTo(b, b.Succs[1-c])
			changed = true
		} else if b.Succs[0].To == b.Succs[1].To && slices.Equal(b.Succs[0].Args, b.Succs[1].Args) {
			jumpTo(b, b.Succs[0])
			changed = true
		}
	}
	return changed
}

func jumpTo(b *ir.Block, e ir.Edge) {
	b.Term, b.Cond, b.Likely = ir.TermJump, nil, ir.Unknown
	b.Succs = []ir.Edge{e}
}

// splitConds makes two branches of one on (x and y) or (x or y). BPF cannot
// compute a truth value without branching, and the verifier learns nothing of
// x from a number computed from it.
func splitConds(f *ir.Func) bool {
	changed := false
	var uses []int32
	for i := 0; i < len(f.Blocks); i++ {
		b := f.Blocks[i]
		if b.Term != ir.TermIf || b.Cond.Op != ir.OpAnd && b.Cond.Op != ir.OpOr {
			continue
		}
		if uses == nil {
			uses = ir.UseCounts(f)
		}
		if uses[b.Cond.ID] > 1 {
			continue
		}
		x, y := b.Cond.Args[0], b.Cond.Args[1]
		mid := f.NewBlock("and")
		mid.Term, mid.Cond, mid.Pos, mid.Likely = ir.TermIf, y, b.Pos, b.Likely
		mid.Succs = []ir.Edge{cloneEdge(b.Succs[0]), cloneEdge(b.Succs[1])}
		if b.Cond.Op == ir.OpAnd {
			b.Succs[0] = ir.Edge{To: mid}
			if b.Likely == ir.Else {
				b.Likely = ir.Unknown
			}
		} else {
			mid.Name = "or"
			b.Succs[1] = ir.Edge{To: mid}
			if b.Likely == ir.Then {
				b.Likely = ir.Unknown
			}
		}
		b.Cond = x
		changed = true
	}
	return changed
}

func cloneEdge(e ir.Edge) ir.Edge { return ir.Edge{To: e.To, Args: slices.Clone(e.Args)} }

// sameParams replaces parameters for which every edge passes one value, and
// drops those that nothing uses.
func sameParams(f *ir.Func) bool {
	cfg := ir.NewCFG(f)
	sub := ir.NewSubst(f)
	changed := false
	for again := true; again; {
		again = false
		for _, b := range cfg.RPO[1:] {
			preds := cfg.Preds(b)
			for i := len(b.Params) - 1; i >= 0; i-- {
				prm := b.Params[i]
				same := onlyArg(sub, preds, i, prm)
				if same == nil || !ir.Assignable(same.Type, prm.Type) {
					continue
				}
				if same.Op == ir.OpConst && !cfg.Dominates(same.Block, b) {
					// Equal constants from several places: one of its own.
					c := f.NewConst(prm.Type, same.Int, prm.Pos)
					b.InsertBefore(0, c)
					same = c
				}
				b.RemoveParam(i, preds)
				sub.Replace(prm, same)
				again, changed = true, true
			}
		}
	}
	if changed {
		sub.Apply(f)
	}
	return changed
}

// onlyArg is the value that all edges pass for parameter i, leaving aside the
// parameter itself, or nil. Constants are the same when they are equal.
func onlyArg(sub *ir.Subst, preds []ir.Pred, i int, prm *ir.Value) *ir.Value {
	var same *ir.Value
	for _, p := range preds {
		a := sub.Of(p.Edge().Args[i])
		switch {
		case a == prm || a == same:
		case same == nil:
			same = a
		case same.Op == ir.OpConst && a.Op == ir.OpConst && same.Int == a.Int && same.Type == a.Type && a.Type == prm.Type:
		default:
			return nil
		}
	}
	return same
}

// thread leads edges past blocks that only jump on, and past branches on a
// parameter for which the edge passes a constant. Headers of loops are left
// alone: an edge past them would enter the loop in its middle.
func thread(f *ir.Func) bool {
	cfg := ir.NewCFG(f)
	uses := ir.UseCounts(f)
	changed := false
	for _, b := range cfg.RPO[1:] {
		if l := cfg.Loop(b); l != nil && l.Header == b {
			continue
		}
		cond, ok := threadable(b)
		if !ok {
			continue
		}
		// Parameters may be used by the terminator and the values here only.
		inside := make(map[*ir.Value]int32, len(b.Params))
		count := func(v **ir.Value) { inside[*v]++ }
		for _, v := range b.Values {
			v.Operands(count)
		}
		b.Operands(count)
		closed := true
		for _, prm := range b.Params {
			closed = closed && uses[prm.ID] == inside[prm]
		}
		for _, v := range b.Values {
			closed = closed && uses[v.ID] == inside[v]
		}
		if !closed {
			continue
		}
		for _, p := range cfg.Preds(b) {
			e := p.Edge()
			if e.To != b {
				continue // led past already
			}
			bind := func(v *ir.Value) *ir.Value {
				if i := slices.Index(b.Params, v); i >= 0 {
					return e.Args[i]
				}
				return v
			}
			next := 0
			if b.Term == ir.TermIf {
				c, known := decide(cond, bind)
				if !known {
					continue
				}
				next = 1 - int(c)
			}
			to := b.Succs[next]
			if to.To == b {
				continue
			}
			args := make([]*ir.Value, len(to.Args))
			for i, a := range to.Args {
				args[i] = bind(a)
				if slices.Contains(b.Values, args[i]) {
					// A constant, or it would not be threadable.
					c := f.NewConst(a.Type, a.Int, a.Pos)
					p.Block.Append(c)
					args[i] = c
				}
			}
			for _, a := range args {
				for int(a.ID) >= len(uses) {
					uses = append(uses, 0)
				}
				uses[a.ID]++
			}
			*e = ir.Edge{To: to.To, Args: args}
			changed = true
		}
	}
	return changed
}

// threadable reports whether b does nothing but jump or branch, by a
// condition that an edge into b may decide.
func threadable(b *ir.Block) (cond *ir.Value, ok bool) {
	switch b.Term {
	case ir.TermJump:
	case ir.TermIf:
		cond = b.Cond
	default:
		return nil, false
	}
	for _, v := range b.Values {
		if v.Op != ir.OpConst && v != cond {
			return nil, false
		}
	}
	if cond == nil || cond.Op == ir.OpParam && cond.Block == b {
		return cond, true
	}
	if cond.Block != b || !cond.Op.IsCompare() || cond.Args[1].Op != ir.OpConst || cond.Args[0].Op != ir.OpParam || cond.Args[0].Block != b {
		return nil, false
	}
	// The truth value itself must not be passed on.
	for _, e := range b.Succs {
		if slices.Contains(e.Args, cond) {
			return nil, false
		}
	}
	return cond, true
}

// decide computes cond for what an edge passes.
func decide(cond *ir.Value, bind func(*ir.Value) *ir.Value) (int64, bool) {
	if cond.Op == ir.OpParam {
		return bind(cond).IsConst()
	}
	x, ok := bind(cond.Args[0]).IsConst()
	if !ok {
		return 0, false
	}
	t := cond.Args[0].Type
	if t.IsPtr() {
		t = ir.I64
	}
	return ir.EvalCompare(cond.Op, t, x, cond.Args[1].Int), true
}

// merge joins blocks with the only block that leads to them.
func merge(f *ir.Func) bool {
	preds := make([]int32, f.NumBlocks())
	for _, b := range f.Blocks {
		for _, e := range b.Succs {
			preds[e.To.ID]++
		}
	}
	sub := ir.NewSubst(f)
	gone := make([]bool, f.NumBlocks())
	changed := false
	for _, b := range f.Blocks {
		for !gone[b.ID] && b.Term == ir.TermJump {
			e := b.Succs[0]
			if preds[e.To.ID] != 1 || e.To == b || e.To == f.Entry() {
				break
			}
			to := e.To
			for i, prm := range to.Params {
				sub.Replace(prm, e.Args[i])
			}
			for _, v := range to.Values {
				b.Append(v)
			}
			b.Term, b.Cond, b.Succs, b.Likely, b.Pos = to.Term, to.Cond, to.Succs, to.Likely, to.Pos
			to.Term, to.Cond, to.Succs, to.Values = ir.TermUnreachable, nil, nil, nil
			gone[to.ID] = true
			changed = true
		}
	}
	if changed {
		f.Blocks = slices.DeleteFunc(f.Blocks, func(b *ir.Block) bool { return gone[b.ID] })
		sub.Apply(f)
	}
	return changed
}
