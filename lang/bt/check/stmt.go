package check

import (
	"slices"

	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

func (c *checker) block(b *syntax.Block) {
	c.scope = &scope{outer: c.scope, vars: map[string]*Var{}}
	defer func() { c.scope = c.scope.outer }()
	for _, s := range b.Stmts {
		c.stmt(s)
	}
}

func (c *checker) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.ExprStmt:
		c.expr(s.X)
	case *syntax.Discard:
		c.expr(s.X)
	case *syntax.Assign:
		c.assign(s)
	case *syntax.Let:
		c.let(s)
	case *syntax.Block:
		c.block(s)
	case *syntax.If:
		c.cond(s.Cond)
		// What a constant rules out is never looked at, so that a script can
		// ask for types and parameters.
		k, constant := c.info.Consts[s.Cond]
		if !constant || k.Int != 0 {
			c.block(s.Then)
		}
		if s.Else != nil && (!constant || k.Int == 0) {
			c.stmt(s.Else)
		}
	case *syntax.While:
		c.cond(s.Cond)
		c.loops++
		c.block(s.Body)
		c.loops--
	case *syntax.Unroll:
		c.expr(s.Count)
		k, ok := c.info.Consts[s.Count]
		switch {
		case !ok || k.IsString:
			c.errorf(s.Count.Span(), "not-constant", "the count of unroll must be a constant").
				Notef("for a count that is only known when the program runs: for $i : 0..n { ... }")
		case k.Int < 1 || k.Int > 100:
			c.errorf(s.Count.Span(), "bad-count", "the count of unroll must be between 1 and 100, it is %d", k.Int)
		}
		c.loops++
		c.block(s.Body)
		c.loops--
	case *syntax.For:
		c.forLoop(s)
	case *syntax.Jump:
		if c.loops == 0 {
			word := "break"
			if s.Continue {
				word = "continue"
			}
			c.errorf(s.Loc, "stray-jump", "%s stands outside of any loop", word)
		}
	case *syntax.Return:
		c.returnStmt(s)
	}
}

// cond checks an expression that decides a branch.
func (c *checker) cond(e syntax.Expr) {
	t := c.expr(e)
	switch t.Kind {
	case Bool, Int, Pointer, Invalid, Ksym, Username, Errno, Signal:
	default:
		c.errorf(e.Span(), "type-mismatch", "a condition must be a number, a bool or a pointer, this is %s", describe(t))
	}
}

func (c *checker) let(s *syntax.Let) {
	if old, ok := c.scope.vars[s.Var.Name]; ok && !old.LoopVar {
		c.errorf(s.Var.Loc, "redeclared", "$%s is already declared in this block", s.Var.Name).
			NoteAt(old.Decl, "here")
	}
	v := c.declare(s.Var)
	if s.Type != nil {
		v.Type = c.typeExpr(s.Type)
		v.Declared = true
	}
	if s.Value != nil {
		c.assignVar(v, s.Value, c.expr(s.Value))
	}
}

// declare makes a variable in the current scope.
func (c *checker) declare(n *syntax.Var) *Var {
	v := &Var{Name: n.Name, Decl: n.Loc, Index: len(c.info.ScratchVars)}
	v.Type = c.known[c.varKey(v)]
	v.earlier = v.Type != nil
	c.info.ScratchVars = append(c.info.ScratchVars, v)
	c.scope.vars[n.Name] = v
	c.info.Vars[n] = v
	return v
}

func (c *checker) assignVar(v *Var, value syntax.Expr, t *Type) {
	if t.Kind == None || t.Kind == Agg || t.Kind == Mode || t.Kind == Args {
		c.errorf(value.Span(), "type-mismatch", "%s cannot be kept in a variable", describe(t))
		return
	}
	t = stored(t)
	// What a pointer leads to may have become wider since the round before.
	repointed := v.earlier && !v.Declared && v.Type.Kind == Pointer && t.Kind == Pointer
	v.earlier = false
	if v.Type == nil || v.Type.Kind == Invalid || repointed {
		v.Type = t
		return
	}
	if v.Declared {
		if !assignable(v.Type, t) {
			c.errorf(value.Span(), "type-mismatch", "$%s is declared as %s, this is %s", plainName(v.Name), v.Type, describe(t)).
				NoteAt(v.Decl, "declared here")
		}
		return
	}
	j := join(v.Type, t)
	if j == nil {
		c.errorf(value.Span(), "type-mismatch", "$%s holds %s, this is %s", plainName(v.Name), v.Type, describe(t)).
			NoteAt(v.Decl, "its first value is given here")
		return
	}
	v.Type = j
}

// assignable reports whether a value of type t may be put where want is declared.
func assignable(want, t *Type) bool {
	if want.isInt() && t.isInt() {
		return true
	}
	return join(want, t) != nil
}

func (c *checker) assign(s *syntax.Assign) {
	if s.Op != syntax.OpNone {
		lt := c.expr(s.Lhs)
		rt := c.expr(s.Rhs)
		t := tInvalid
		if lt.Kind != Invalid && rt.Kind != Invalid {
			t = c.binaryType(s.Op, s.OpLoc, s.Lhs, s.Rhs, lt, rt)
		}
		if m := c.mapOf(s.Lhs); m != nil {
			m.Writers++
			if m.Value == nil && rt.isInt() {
				t = intType(8, rt.Signed || s.Op == syntax.OpSub)
			}
			if m.Value == nil || m.Value.isInt() && m.Value.Size < 8 {
				c.mapValue(m, s.Rhs, t)
			}
			return
		}
		if x, ok := s.Lhs.(*syntax.Var); ok && t.isInt() && lt.isInt() && lt.Size < 8 {
			// What is computed is wider than what was kept.
			if v := c.info.Vars[x]; !v.Declared {
				c.assignVar(v, s.Rhs, t)
			}
		}
		return
	}
	switch lhs := s.Lhs.(type) {
	case *syntax.Var:
		t := c.expr(s.Rhs)
		v := c.scope.find(lhs.Name)
		if v == nil {
			v = c.declareByUse(lhs)
		}
		c.info.Vars[lhs] = v
		c.assignVar(v, s.Rhs, t)
		if v.Type != nil {
			c.info.Types[lhs] = v.Type
		}
	case *syntax.Map, *syntax.MapIndex:
		m := c.mapTarget(lhs)
		t := c.expr(s.Rhs)
		if m == nil {
			return
		}
		m.Writers++
		c.mapValue(m, s.Rhs, t)
		if m.Value != nil {
			c.info.Types[s.Lhs] = m.Value
		}
	}
}

// mapOf returns the map that an expression is an element of, or nil.
func (c *checker) mapOf(e syntax.Expr) *Map {
	switch e := e.(type) {
	case *syntax.Map:
		return c.info.Maps[e]
	case *syntax.MapIndex:
		return c.info.Maps[e.Map]
	}
	return nil
}

// mapTarget resolves a map that is written, and checks its key.
func (c *checker) mapTarget(e syntax.Expr) *Map {
	switch e := e.(type) {
	case *syntax.Map:
		m := c.mapNamed(e)
		c.info.Maps[e] = m
		c.mapKey(m, e.Loc, nil)
		return m
	case *syntax.MapIndex:
		m := c.mapNamed(e.Map)
		c.info.Maps[e.Map] = m
		c.mapKey(m, e.Loc, e.Keys)
		return m
	}
	return nil
}

// mapKey checks the key of a use of m and widens the map's key type by it.
func (c *checker) mapKey(m *Map, span source.Span, keys []syntax.Expr) {
	if len(keys) == 0 {
		if m.Key != nil {
			c.errorf(span, "missing-key", "%s has a key of type %s", m.Name, m.Key).
				NoteAt(m.keySpan, "as used here")
			return
		}
		if !m.noKey {
			m.noKey, m.keySpan = true, span
		}
		return
	}
	var t *Type
	if len(keys) == 1 {
		t = stored(c.expr(keys[0]))
	} else {
		t = &Type{Kind: Tuple}
		for _, k := range keys {
			t.Fields = append(t.Fields, Field{Type: stored(c.expr(k))})
		}
		t.Size = layout(t.Fields)
	}
	for i, k := range keys {
		kt := t
		if len(keys) > 1 {
			kt = t.Fields[i].Type
		}
		switch kt.Kind {
		case None, Agg, Mode, Args:
			c.errorf(k.Span(), "bad-key", "%s cannot be a key", describe(kt))
			return
		case Invalid:
			return
		}
	}
	if t.Size == 0 {
		c.errorf(span, "bad-key", "%s is empty and cannot be a key", describe(t))
		return
	}
	if m.noKey {
		c.errorf(span, "unexpected-key", "%s has no key", m.Name).NoteAt(m.keySpan, "as used here")
		return
	}
	if m.Key == nil {
		m.Key, m.keySpan = t, span
		c.changed = true
		return
	}
	j := join(m.Key, t)
	if j == nil {
		c.errorf(span, "key-mismatch", "the key of %s is %s, this is %s", m.Name, m.Key, t).
			NoteAt(m.keySpan, "as used here")
		return
	}
	if !same(j, m.Key) {
		m.Key = j
		c.changed = true
	}
}

// mapValue widens the type of m's values by t.
func (c *checker) mapValue(m *Map, value syntax.Expr, t *Type) {
	switch t.Kind {
	case Invalid:
		return
	case None, Mode, Args:
		c.errorf(value.Span(), "type-mismatch", "%s cannot be kept in a map", describe(t))
		return
	}
	t = stored(t)
	if t.Size == 0 {
		c.errorf(value.Span(), "type-mismatch", "%s is empty and cannot be kept in a map", describe(t))
		return
	}
	if m.Value == nil {
		m.Value, m.valueSpan = t, value.Span()
		c.changed = true
		return
	}
	var j *Type
	if t.Kind == Agg || m.Value.Kind == Agg {
		if t.Kind == m.Value.Kind && t.Agg == m.Value.Agg && slices.Equal(t.Params, m.Value.Params) {
			if j = m.Value; t.Signed {
				j = t
			}
		}
	} else {
		j = join(m.Value, t)
		if m.earlier && m.Value.Kind == Pointer && t.Kind == Pointer {
			j = t
		}
	}
	m.earlier = false
	if j == nil {
		c.errorf(value.Span(), "type-mismatch", "%s holds %s, this is %s", m.Name, describe(m.Value), describe(t)).
			NoteAt(m.valueSpan, "its type is given here")
		return
	}
	if !same(j, m.Value) {
		m.Value = j
		c.changed = true
	}
}

func (c *checker) forLoop(s *syntax.For) {
	loop := &Loop{}
	c.info.Loops[s] = loop
	var t *Type
	switch over := s.Over.(type) {
	case *syntax.Range:
		for _, e := range []syntax.Expr{over.Lo, over.Hi} {
			et := c.expr(e)
			if !et.isInt() && et.Kind != Invalid {
				c.errorf(e.Span(), "type-mismatch", "the bounds of a range must be integers, this is %s", describe(et))
				et = tInvalid
			}
			t = join(t, stored(et))
		}
	case *syntax.Map:
		m := c.mapNamed(over)
		c.info.Maps[over] = m
		loop.Map = m
		t = tInvalid
		if m.noKey {
			c.errorf(over.Loc, "missing-key", "%s has no keys to run over", m.Name)
		} else if m.Key != nil && m.Value != nil {
			value := m.Value
			if value.Kind == Agg {
				value = c.aggValue(m, over.Loc)
			}
			fields := []Field{{Type: m.Key}, {Type: value}}
			t = &Type{Kind: Tuple, Fields: fields}
			t.Size = layout(t.Fields)
		}
	default:
		return
	}
	c.scope = &scope{outer: c.scope, vars: map[string]*Var{}}
	v := c.declare(s.Var)
	v.LoopVar = true
	if v.Declared = loop.Map != nil; v.Declared {
		v.Type = t
	} else {
		v.Type = join(v.Type, t)
	}
	loop.Var = v
	c.loops++
	c.block(s.Body)
	c.loops--
	c.scope = c.scope.outer
}

// aggValue is the type that an aggregation has when it is read as a number.
func (c *checker) aggValue(m *Map, span source.Span) *Type {
	switch m.Value.Agg {
	case Count:
		return tUint64
	case Sum, Min, Max, Avg:
		return intType(8, m.Value.Signed)
	}
	c.errorf(span, "type-mismatch", "%s is a %s and cannot be read as a number", m.Name, m.Value.Agg).
		Notef("print(%s) shows it", m.Name)
	return tInvalid
}
