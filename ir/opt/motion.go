package opt

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// costly reports whether computing v once instead of each time round a loop
// is worth a register that is taken for the whole loop. BPF has four that
// survive calls, so cheap arithmetic is rather done again.
func costly(v *ir.Value) bool {
	switch v.Op {
	case ir.OpCall, ir.OpUDiv, ir.OpSDiv, ir.OpUMod, ir.OpSMod, ir.OpMul:
		return true
	case ir.OpLoad:
		return !v.Args[0].Type.Space.Direct() && !v.IsVolatile() // a helper call
	}
	return false
}

// hoist moves costly computations out of loops in which their operands do not
// change: pure ones, and reads of kernel and user memory that nothing in the
// loop writes. Only what each round computes is moved, and never a plain
// load: its bound or null check may be in the loop.
func hoist(p *context) bool {
	f := p.f
	cfg := ir.NewCFG(f)
	writers := loopWriters(cfg)
	changed := false
	// Blocks made here, which cfg does not know, and the loops they are in.
	home := map[*ir.Block]*ir.Loop{}
	contains := func(l *ir.Loop, b *ir.Block) bool {
		m, made := home[b]
		if !made {
			return cfg.Contains(l, b)
		}
		for m != nil && m != l {
			m = m.Parent
		}
		return m != nil
	}
	for _, l := range cfg.Loops() {
		var moved []*ir.Value
		gone := map[*ir.Value]bool{}
		invariant := func(v *ir.Value) bool {
			return gone[v] || !contains(l, v.Block)
		}
		// What the costly ones need, if cheap, comes along.
		var need func(v *ir.Value, depth int) ([]*ir.Value, bool)
		need = func(v *ir.Value, depth int) ([]*ir.Value, bool) {
			var list []*ir.Value
			for _, a := range v.Args {
				switch {
				case invariant(a) || slices.Contains(list, a):
				case depth > 0 && pure(a) && a.Op != ir.OpCall:
					more, ok := need(a, depth-1)
					if !ok {
						return nil, false
					}
					list = append(list, more...)
				default:
					return nil, false
				}
			}
			return append(list, v), true
		}
		for _, b := range l.Blocks {
			if cfg.Loop(b) != l || slices.ContainsFunc(l.Latches, func(t *ir.Block) bool { return !cfg.Dominates(b, t) }) {
				continue
			}
			for _, v := range b.Values {
				if gone[v] || !costly(v) {
					continue
				}
				if !pure(v) {
					if v.Op != ir.OpLoad || slices.ContainsFunc(writers[l], func(w *ir.Value) bool {
						return w.Effects().Volatile || w.Effects().Writes.Has(v.Args[0].Type.Space)
					}) {
						continue
					}
				}
				list, ok := need(v, 4)
				if !ok {
					continue
				}
				for _, m := range list {
					if !gone[m] {
						gone[m] = true
						moved = append(moved, m)
					}
				}
			}
		}
		if len(moved) == 0 {
			continue
		}
		pre, made := preheader(f, cfg, l)
		if made {
			home[pre] = l.Parent
		}
		for _, b := range l.Blocks {
			b.Values = slices.DeleteFunc(b.Values, func(v *ir.Value) bool { return gone[v] })
		}
		for _, v := range moved {
			pre.Append(v)
		}
		changed = true
	}
	return changed
}

// preheader returns the block that alone leads into l and nowhere else,
// making one if need be.
func preheader(f *ir.Func, cfg *ir.CFG, l *ir.Loop) (pre *ir.Block, made bool) {
	var outside []ir.Pred
	for _, p := range cfg.Preds(l.Header) {
		if !cfg.Contains(l, p.Block) {
			outside = append(outside, p)
		}
	}
	if len(outside) == 1 && outside[0].Block.Term == ir.TermJump {
		return outside[0].Block, false
	}
	pre = f.NewBlock("before")
	pre.Term, pre.Pos = ir.TermJump, l.Header.Pos
	e := ir.Edge{To: l.Header}
	for _, prm := range l.Header.Params {
		np := pre.NewParam(prm.Type, prm.Name)
		np.Pos = prm.Pos
		e.Args = append(e.Args, np)
	}
	pre.Succs = []ir.Edge{e}
	for _, p := range outside {
		p.Edge().To = pre
	}
	return pre, true
}

// sink moves computations to where they are needed, if that is behind a
// branch: less is computed, and values live shorter. Nothing is moved into a
// loop. It also repeats comparisons right before the branches on them, since
// a truth value in a register costs a branch of its own.
func sink(p *context) bool {
	f := p.f
	cfg := ir.NewCFG(f)
	changed := false
	uses := ir.Uses(f)
	// Backwards, so that what a sunk value needs can follow it.
	for _, b := range slices.Backward(cfg.RPO) {
		for i := len(b.Values) - 1; i >= 0; i-- {
			v := b.Values[i]
			if !sinkable(v) || len(uses[v.ID]) == 0 {
				continue
			}
			var to *ir.Block
			for _, u := range uses[v.ID] {
				at := u.Block
				if u.User != nil {
					at = u.User.Block
				}
				if !cfg.Reachable(at) {
					continue
				}
				if to == nil {
					to = at
				} else {
					to = cfg.CommonDom(to, at)
				}
			}
			if to == nil || to == b {
				continue
			}
			// Not deeper into loops than it is.
			for to != b && !loopsAround(cfg, to, b) {
				to = cfg.Idom(to)
			}
			if to == b {
				continue
			}
			b.Values = slices.Delete(b.Values, i, i+1)
			to.InsertBefore(0, v)
			changed = true
		}
	}
	return nearConds(f, cfg) || changed
}

// loopsAround reports whether every loop around to is one around from too.
func loopsAround(cfg *ir.CFG, to, from *ir.Block) bool {
	l := cfg.Loop(to)
	return l == nil || cfg.Contains(l, from)
}

// sinkable reports whether moving v down makes nothing live longer that did
// not live long anyway: it has at most one operand that is not a constant.
func sinkable(v *ir.Value) bool {
	if !pure(v) || v.Op == ir.OpConst {
		return false
	}
	n := 0
	for _, a := range v.Args {
		if a.Op != ir.OpConst && a.Op != ir.OpAlloca && a.Op != ir.OpMap && a.Op != ir.OpGlobal {
			n++
		}
	}
	return n <= 1
}

// nearConds puts a copy of a comparison that stands elsewhere into each block
// that branches on it.
func nearConds(f *ir.Func, cfg *ir.CFG) bool {
	changed := false
	for _, b := range cfg.RPO {
		if b.Term != ir.TermIf || b.Cond.Block == b || !b.Cond.Op.IsCompare() {
			continue
		}
		c := f.NewValue(b.Cond.Op, ir.I1, b.Cond.Pos, slices.Clone(b.Cond.Args)...)
		b.Append(c)
		b.Cond = c
		changed = true
	}
	return changed
}
