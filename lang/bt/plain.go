package bt

import (
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
)

// plainTrips is the number of rounds up to which a loop may be a plain one.
const plainTrips = 16

// callsBack reports whether a for loop becomes a function of its own.
func (g *gen) callsBack(s *syntax.For) bool {
	r, ok := s.Over.(*syntax.Range)
	if !ok {
		return true
	}
	lo, okLo := g.info.Consts[r.Lo]
	hi, okHi := g.info.Consts[r.Hi]
	if !okLo || !okHi || hi.Int-lo.Int > plainTrips {
		return true
	}
	return !g.bodyOf(s).plain
}

// A body is what matters of the body of a loop to the verifier, which walks
// each round of a plain loop by itself, and every way of it: ways that differ in
// numbers alone meet again at the end of a round, unless a comparison depended
// on the numbers.
type body struct {
	plain    bool // no condition depends on the rounds before
	branches bool
	carried  []*check.Var // variables that it changes and does not set first
}

func (g *gen) bodyOf(s *syntax.For) body {
	b := body{plain: true}
	// What a round sets before all else depends on the rounds before only as
	// far as what it is set to.
	changed, fresh, carried := map[*check.Var]bool{}, map[*check.Var]bool{}, map[*check.Var]bool{}
	change := func(e syntax.Expr) {
		if x, ok := e.(*syntax.Var); ok && g.info.Vars[x] != nil {
			changed[g.info.Vars[x]] = true
		}
	}
	syntax.Inspect(s.Body, func(n syntax.Node) {
		switch n := n.(type) {
		case *syntax.Assign:
			change(n.Lhs)
		case *syntax.IncDec:
			change(n.X)
		case *syntax.Let:
			change(n.Var)
		case *syntax.Unary:
			if n.Op == syntax.OpAddr {
				change(n.X)
			}
		}
	})
	depends := func(e syntax.Node) bool {
		found := false
		syntax.Inspect(e, func(n syntax.Node) {
			if x, ok := n.(*syntax.Var); ok {
				v := g.info.Vars[x]
				found = found || changed[v] && (!fresh[v] || carried[v])
			}
		})
		return found
	}
	mention := func(n syntax.Node) {
		syntax.Inspect(n, func(n syntax.Node) {
			if x, ok := n.(*syntax.Var); ok {
				if v := g.info.Vars[x]; changed[v] && !fresh[v] && !carried[v] {
					carried[v] = true
					b.carried = append(b.carried, v)
				}
			}
		})
	}
	set := func(x *syntax.Var, value syntax.Expr) {
		v := g.info.Vars[x]
		mention(value)
		if carried[v] || fresh[v] {
			carried[v] = carried[v] || depends(value)
			return
		}
		late := depends(value)
		fresh[v] = true
		carried[v] = late
	}
	condition := func(conds ...syntax.Expr) {
		b.branches = true
		for _, c := range conds {
			b.plain = b.plain && !depends(c)
		}
	}
	for _, st := range s.Body.Stmts {
		// Conditions of this statement are judged by what stands before it.
		syntax.Inspect(st, func(n syntax.Node) {
			switch n := n.(type) {
			case *syntax.For, *syntax.While, *syntax.Unroll, *syntax.Jump, *syntax.Return:
				b.plain = false
			case *syntax.If:
				condition(n.Cond)
			case *syntax.Ternary:
				condition(n.Cond)
			case *syntax.Binary:
				if n.Op == syntax.OpLogAnd || n.Op == syntax.OpLogOr {
					condition(n.X, n.Y)
				}
			}
		})
		switch st := st.(type) {
		case *syntax.Assign:
			if x, ok := st.Lhs.(*syntax.Var); ok && st.Op == syntax.OpNone {
				set(x, st.Rhs)
				continue
			}
		case *syntax.Let:
			if st.Value != nil {
				set(st.Var, st.Value)
				continue
			}
		}
		mention(st)
	}
	return b
}

// forFew is a loop over a small constant range.
func (g *gen) forFew(s *syntax.For, l *check.Loop) {
	r := s.Over.(*syntax.Range)
	if b := g.bodyOf(s); b.branches {
		// Numbers that the verifier knows could decide conditions behind the
		// loop, and would then be told apart in each round.
		g.forget(b.carried)
	}
	first, end := g.info.Consts[r.Lo].Int, g.info.Consts[r.Hi].Int
	if first >= end {
		return
	}
	v := g.variable(l.Var)
	body, next, done := g.block("for"), g.block("for.next"), g.block("for.done")
	i := body.NewParam(ir.I64, "i")
	g.b.Jump(body, g.const64(first))
	g.b.At(body)
	g.b.Store(v, i)
	g.loops = append(g.loops, loop{next, done})
	g.stmts(s.Body)
	g.loops = g.loops[:len(g.loops)-1]
	g.jump(next)
	g.b.At(next)
	n := g.b.Binary(ir.OpAdd, i, g.const64(1))
	g.b.IfEdges(g.b.Compare(ir.OpSLt, n, g.const64(end)), ir.Edge{To: body, Args: []*ir.Value{n}}, ir.Edge{To: done})
	g.b.At(done)
}

// forget makes the verifier forget what it knows of variables that are set
// already.
func (g *gen) forget(vars []*check.Var) {
	for _, v := range vars {
		if g.vars[v] == nil && !v.Hoisted && !g.nesting.captured[v] {
			continue // it lives in the loop
		}
		if v.Type == nil || !v.Type.IsScalar() || irType(v.Type) != ir.I64 {
			continue
		}
		p := g.variable(v)
		g.b.Store(p, g.b.Binary(ir.OpXor, g.b.Load(ir.I64, p), g.zero()))
	}
}
