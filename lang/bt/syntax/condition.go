package syntax

import "github.com/skep-bpf/skep/source"

// condition returns whether the expression after #if or #elif holds. One that
// is wrong is reported and does not hold.
func (pp *preprocessor) condition(loc source.Span, line *lexer) bool {
	var tokens []token
	for {
		t := line.next()
		if t.kind == tEOF {
			break
		}
		if !t.is("defined") {
			tokens = append(tokens, t)
			continue
		}
		name := line.next()
		paren := name.kind == tLparen
		if paren {
			name = line.next()
		}
		if name.kind != tIdent {
			pp.errorf(loc.To(t.loc), "bad-condition", "defined must be followed by the name of a macro")
			return false
		}
		if paren && line.next().kind != tRparen {
			pp.errorf(name.loc, "bad-condition", "defined(%s is not closed; expected \")\"", name.text)
			return false
		}
		t.kind, t.text = tInt, "0"
		if pp.macros[name.text] != nil {
			t.text = "1"
		}
		tokens = append(tokens, t)
	}
	if len(tokens) == 0 {
		pp.errorf(loc, "bad-condition", "#if must be followed by an expression")
		return false
	}
	c := conditional{pp: pp, tokens: pp.expandAll(tokens), end: line.span(len(line.text), len(line.text))}
	v := c.ternary()
	if !c.bad && c.peek().kind != tEOF {
		t := c.peek()
		c.fail("expected an operator here, not %s", t.describe())
	}
	return !c.bad && v.n != 0
}

// conditional evaluates the expression of an #if.
type conditional struct {
	pp     *preprocessor
	tokens []token
	end    source.Span
	bad    bool
	depth  int
}

// A number is a value of the preprocessor: 64 bits, signed or not.
type number struct {
	n        uint64
	unsigned bool
}

func truth(b bool) number {
	if b {
		return number{n: 1}
	}
	return number{}
}

func (c *conditional) peek() token {
	if len(c.tokens) > 0 {
		return c.tokens[0]
	}
	return token{loc: c.end}
}

func (c *conditional) take() token {
	t := c.peek()
	if len(c.tokens) > 0 {
		c.tokens = c.tokens[1:]
	}
	return t
}

func (c *conditional) accept(k kind) bool {
	if c.peek().kind == k {
		c.take()
		return true
	}
	return false
}

func (c *conditional) fail(format string, args ...any) {
	if !c.bad {
		c.pp.errorf(c.peek().loc, "bad-condition", format, args...)
	}
	c.bad = true
	c.tokens = nil
}

func (c *conditional) ternary() number {
	cond := c.binary(1)
	if !c.accept(tQuest) {
		return cond
	}
	if c.depth++; c.depth > maxDepth {
		c.fail("this condition is nested too deeply")
		return number{}
	}
	defer func() { c.depth-- }()
	yes := c.ternary()
	if !c.accept(tColon) {
		t := c.peek()
		c.fail("expected \":\", not %s", t.describe())
	}
	no := c.ternary()
	if cond.n != 0 {
		return yes
	}
	return no
}

func (c *conditional) binary(least int) number {
	x := c.unary()
	for {
		op := c.peek().kind.binary()
		prec := op.Precedence()
		if prec == 0 || prec < least {
			return x
		}
		at := c.take()
		y := c.binary(prec + 1)
		if c.bad {
			return number{}
		}
		x = c.apply(op, at, x, y)
	}
}

func (c *conditional) apply(op Op, at token, x, y number) number {
	unsigned := x.unsigned || y.unsigned
	r := number{unsigned: unsigned}
	less := func(a, b uint64) bool {
		if unsigned {
			return a < b
		}
		return int64(a) < int64(b)
	}
	switch op {
	case OpMul:
		r.n = x.n * y.n
	case OpDiv, OpMod:
		if y.n == 0 {
			// In a branch not taken, as in `0 && 1/0`, it does no harm.
			return number{unsigned: unsigned}
		}
		switch {
		case unsigned && op == OpDiv:
			r.n = x.n / y.n
		case unsigned:
			r.n = x.n % y.n
		case int64(y.n) == -1 && op == OpDiv:
			r.n = -x.n
		case int64(y.n) == -1:
			r.n = 0
		case op == OpDiv:
			r.n = uint64(int64(x.n) / int64(y.n))
		default:
			r.n = uint64(int64(x.n) % int64(y.n))
		}
	case OpAdd:
		r.n = x.n + y.n
	case OpSub:
		r.n = x.n - y.n
	case OpShl:
		r = number{n: x.n << min(y.n, 64), unsigned: x.unsigned}
	case OpShr:
		if x.unsigned {
			r = number{n: x.n >> min(y.n, 64), unsigned: true}
		} else {
			r = number{n: uint64(int64(x.n) >> min(y.n, 64))}
		}
	case OpAnd:
		r.n = x.n & y.n
	case OpOr:
		r.n = x.n | y.n
	case OpXor:
		r.n = x.n ^ y.n
	case OpLt:
		return truth(less(x.n, y.n))
	case OpGt:
		return truth(less(y.n, x.n))
	case OpLe:
		return truth(!less(y.n, x.n))
	case OpGe:
		return truth(!less(x.n, y.n))
	case OpEq:
		return truth(x.n == y.n)
	case OpNe:
		return truth(x.n != y.n)
	case OpLogAnd:
		return truth(x.n != 0 && y.n != 0)
	case OpLogOr:
		return truth(x.n != 0 || y.n != 0)
	default:
		c.fail("%s has no meaning in a condition", at.describe())
	}
	return r
}

func (c *conditional) unary() number {
	if c.depth++; c.depth > maxDepth {
		c.fail("this condition is nested too deeply")
		return number{}
	}
	defer func() { c.depth-- }()
	t := c.peek()
	switch t.kind {
	case tNot:
		c.take()
		return truth(c.unary().n == 0)
	case tTilde:
		c.take()
		x := c.unary()
		x.n = ^x.n
		return x
	case tSub:
		c.take()
		x := c.unary()
		x.n = -x.n
		return x
	case tAdd:
		c.take()
		return c.unary()
	case tLparen:
		c.take()
		x := c.ternary()
		if !c.accept(tRparen) {
			t = c.peek()
			c.fail("expected \")\", not %s", t.describe())
		}
		return x
	case tInt:
		v, suffix, err := parseInt(t.text)
		if err != nil {
			c.fail("%s", err.msg)
			return number{}
		}
		c.take()
		return number{n: v, unsigned: v > 1<<63-1 || suffix != "" && (suffix[0]|0x20 == 'u' || suffix[len(suffix)-1]|0x20 == 'u')}
	case tChar:
		c.take()
		if s, err := unquote(t.text); err == nil && len(s) == 1 {
			return number{n: uint64(s[0])}
		}
		return number{}
	case tIdent:
		// What is no macro is 0. So are the questions that compilers answer,
		// such as __has_attribute(x).
		c.take()
		if c.peek().kind == tLparen {
			c.parenthesised()
		}
		return number{}
	}
	c.fail("expected a number or a macro, not %s", t.describe())
	return number{}
}

// parenthesised passes over "(...)".
func (c *conditional) parenthesised() {
	depth := 0
	for len(c.tokens) > 0 {
		switch c.take().kind {
		case tLparen:
			depth++
		case tRparen:
			if depth--; depth == 0 {
				return
			}
		}
	}
}
