package syntax

import (
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// expr reads an expression.
func (p *parser) expr() Expr {
	if !p.enter() {
		p.leave()
		return &BadExpr{Loc: p.here()}
	}
	defer p.leave()
	cond := p.binary(1)
	if !p.at(tQuest) || p.bad {
		return cond
	}
	t := &Ternary{Cond: cond, Quest: p.advance().loc}
	if p.at(tColon) {
		t.Colon = p.advance().loc
	} else {
		t.Then = p.expr()
		if !p.at(tColon) {
			p.missing(`":" and the other choice`).NoteAt(t.Quest, "the choice starts here")
			t.Else = &BadExpr{Loc: p.here()}
			t.Loc = cond.Span().To(p.last)
			return t
		}
		t.Colon = p.advance().loc
	}
	t.Else = p.expr()
	t.Loc = cond.Span().To(p.last)
	return t
}

// binary reads operands joined by operators that bind at least as tightly as
// least says.
func (p *parser) binary(least int) Expr {
	start := p.tok().loc
	x := p.unary()
	for n := 0; ; n++ {
		t := p.tok()
		op := t.kind.binary()
		prec := op.Precedence()
		if t.kind == tAssign {
			p.swapped()
		}
		if prec == 0 || prec < least || p.bad {
			return x
		}
		if op == OpDiv && p.endsPredicate() {
			return x
		}
		if n > maxChain {
			p.errorf(t.loc, "too-long", "more than %d operators follow one another; use parentheses or variables", maxChain)
			return x
		}
		opLoc := p.advance().loc
		b := &Binary{Op: op, OpLoc: opLoc, X: x}
		if next := p.tok(); next.kind == tAssign && !next.gap && (op == OpEq || op == OpNe) {
			p.errorf(opLoc.To(next.loc), "syntax", "there is no operator %s=", op).Suggest(op.String())
			return x
		}
		b.Y = p.binary(prec + 1)
		b.Loc = start.To(p.last)
		x = b
	}
}

// swapped reports => and =<, which someone may write for >= and <=.
func (p *parser) swapped() {
	eq, next := p.tok().loc, p.peek(1)
	if next.loc.Start != eq.End || next.gap || p.bad {
		return
	}
	switch next.kind {
	case tGt:
		p.errorf(eq.To(next.loc), "syntax", "there is no operator =>").Suggest(">=")
	case tLt:
		p.errorf(eq.To(next.loc), "syntax", "there is no operator =<").Suggest("<=")
	}
}

// endsPredicate reports whether the slash here ends a predicate: a block or
// nothing follows it.
func (p *parser) endsPredicate() bool {
	if p.body > 0 {
		return false
	}
	k := p.peek(1).kind
	return k == tLbrace || k == tEOF
}

// unary reads an operand with the operators before and behind it.
func (p *parser) unary() Expr {
	t := *p.tok()
	var op Op
	switch t.kind {
	case tSub:
		op = OpNeg
	case tAdd:
		op = OpPlus
	case tNot:
		op = OpNot
	case tTilde:
		op = OpBitNot
	case tMul:
		op = OpDeref
	case tAnd:
		op = OpAddr
	case tInc, tDec:
		if !p.enter() {
			p.leave()
			return &BadExpr{Loc: t.loc}
		}
		defer p.leave()
		p.mark(t.loc, rolePrefix)
		p.advance()
		x := &IncDec{Dec: t.kind == tDec, Prefix: true, OpLoc: t.loc}
		x.X = p.unary()
		x.Loc = t.loc.To(p.last)
		if !p.bad {
			p.checkTarget(x.X, incDecVerb(x.Dec))
		}
		return x
	default:
		return p.postfix(t.loc, p.operand())
	}
	if !p.enter() {
		p.leave()
		return &BadExpr{Loc: t.loc}
	}
	defer p.leave()
	p.mark(t.loc, rolePrefix)
	p.advance()
	u := &Unary{Op: op, OpLoc: t.loc}
	u.X = p.unary()
	u.Loc = t.loc.To(p.last)
	if op == OpAddr && !p.bad {
		switch u.X.(type) {
		case *Var, *Map:
		default:
			p.complain(u.Loc, "no-address", "only a variable or a whole map has an address that & can take")
		}
	}
	return u
}

func incDecVerb(dec bool) string {
	if dec {
		return "decremented"
	}
	return "incremented"
}

// postfix reads what follows the operand x, which starts at start: fields,
// indices, ++ and --.
func (p *parser) postfix(start source.Span, x Expr) Expr {
	for n := 0; !p.bad; n++ {
		t := *p.tok()
		if n > maxChain {
			p.errorf(t.loc, "too-long", "more than %d accesses follow one another", maxChain)
			return x
		}
		switch t.kind {
		case tDot, tArrow:
			p.advance()
			next := *p.tok()
			if next.kind == tInt && t.kind == tDot {
				x = p.tupleField(start, x, t, next)
				continue
			}
			f := &Field{X: x, Arrow: t.kind == tArrow, OpLoc: t.loc}
			if next.kind != tIdent {
				p.unexpected("the name of a field")
				return x
			}
			f.Name = p.name("the name of a field")
			f.Loc = start.To(p.last)
			x = f
		case tLbrack:
			if m, ok := x.(*Map); ok && p.last == m.Loc { // (@m)[0] is of its value
				x = p.mapIndex(start, m)
				continue
			}
			p.advance()
			ix := &Index{X: x}
			ix.I = p.expr()
			end := p.closer(tRbrack, `"]"`, t.loc)
			ix.Brackets = t.loc.To(end)
			ix.Loc = start.To(p.last)
			x = ix
		case tInc, tDec:
			if t.nl {
				// It starts the next statement; the semicolon is missing.
				return x
			}
			p.advance()
			p.mark(t.loc, rolePostfix)
			d := &IncDec{Dec: t.kind == tDec, OpLoc: t.loc, X: x, Loc: start.To(t.loc)}
			p.checkTarget(x, incDecVerb(d.Dec))
			x = d
		case tLparen:
			if f, ok := x.(*Field); ok && !t.gap {
				p.errorf(f.Name.Loc, "syntax", "fields cannot be called; write %s(...)", f.Name.Text)
			}
			return x
		default:
			return x
		}
	}
	return x
}

func (p *parser) tupleField(start source.Span, x Expr, dot, index token) Expr {
	p.advance()
	n, err := strconv.Atoi(index.text)
	switch {
	case isIntLit(x):
		p.complain(start.To(index.loc), "no-floats", "there are no floating-point numbers").
			Notef("count in smaller units, for instance 1500ms in place of 1.5s")
	case err != nil || n > 1<<20:
		p.complain(index.loc, "bad-index", "%s is no index of a tuple; they are written $t.0, $t.1", index.text)
		n = 0
	}
	return &TupleField{X: x, OpLoc: dot.loc, Index: n, IndexLoc: index.loc, Loc: start.To(index.loc)}
}

func isIntLit(x Expr) bool {
	_, ok := x.(*IntLit)
	return ok
}

func (p *parser) mapIndex(start source.Span, m *Map) Expr {
	open := p.advance().loc
	ix := &MapIndex{Map: m}
	if p.at(tRbrack) {
		p.errorf(open.To(p.tok().loc), "syntax", "a key is missing here").
			Notef("a map without a key is written @%s", m.Name)
		p.advance()
		p.bad = false
		return m
	}
	for {
		ix.Keys = append(ix.Keys, p.expr())
		if p.bad || !p.accept(tComma) {
			break
		}
		if p.at(tRbrack) {
			break // a comma too many
		}
	}
	end := p.closer(tRbrack, `"]"`, open)
	ix.Brackets = open.To(end)
	ix.Loc = start.To(p.last)
	return ix
}

// operand reads what operators apply to.
func (p *parser) operand() Expr {
	t := *p.tok()
	switch t.kind {
	case tIdent:
		return p.wordOperand(t)
	case tVar:
		p.advance()
		return &Var{Loc: t.loc, Name: t.text[1:]}
	case tMap:
		p.advance()
		return &Map{Loc: t.loc, Name: t.text[1:]}
	case tInt:
		return p.intLit()
	case tString:
		return p.stringLit()
	case tChar:
		return p.charLit()
	case tParam:
		p.advance()
		return &Param{Loc: t.loc, N: p.paramNumber(t.loc)}
	case tParamCount:
		p.advance()
		return &ParamCount{Loc: t.loc}
	case tLparen:
		return p.paren()
	case tLbrace:
		if p.body == 0 && p.parens == 0 {
			break // the block of a probe, whose predicate is not closed
		}
		b := p.block()
		valueBlock(b)
		return &BlockExpr{Block: b}
	}
	d := p.unexpected("an expression")
	if t.kind == tAssign && p.last.End == t.loc.Start && p.last.Text() == "=" {
		d.Suggest("==")
	}
	at := p.here()
	at.End = max(at.Start, at.End)
	return &BadExpr{Loc: at}
}

func (p *parser) paramNumber(at source.Span) int {
	n, err := strconv.Atoi(at.Text()[1:])
	if err != nil || n < 1 || n > 1<<16 {
		p.complain(at, "bad-parameter", "parameters of the command line are counted from $1 to $%d", 1<<16)
		return 1
	}
	return n
}

func (p *parser) intLit() Expr {
	t := p.advance()
	value, suffix, err := parseInt(t.text)
	if err != nil {
		at := t.loc
		if t.use == nil && at.Text() == t.text {
			at = source.Span{File: at.File, Start: at.Start + err.start, End: at.Start + err.end}
		}
		d := p.complain(at, "bad-number", "%s", err.msg)
		if err.note != "" {
			d.Notef("%s", err.note)
		}
		return &IntLit{Loc: t.loc, Raw: "0"}
	}
	return &IntLit{Loc: t.loc, Value: value, Raw: t.text, Suffix: suffix}
}

// unquote resolves the escapes of a literal and reports what is wrong.
func (p *parser) unquote(t token) string {
	s, err := unquote(t.text)
	if err != nil {
		at := t.loc
		if t.use == nil && at.Text() == t.text {
			at = source.Span{File: at.File, Start: at.Start + err.start, End: at.Start + err.end}
		}
		p.complain(at, "bad-escape", "%s", err.msg)
	}
	return s
}

// stringLit reads a string and all that stand directly behind it.
func (p *parser) stringLit() *StringLit {
	t := p.advance()
	s := &StringLit{Loc: t.loc, Value: p.unquote(t), Raw: t.text}
	if !p.at(tString) {
		return s
	}
	var value, raw strings.Builder
	value.WriteString(s.Value)
	raw.WriteString(s.Raw)
	for p.at(tString) {
		t = p.advance()
		value.WriteString(p.unquote(t))
		raw.WriteByte(' ')
		raw.WriteString(t.text)
	}
	s.Value, s.Raw = value.String(), raw.String()
	s.Loc = s.Loc.To(t.loc)
	return s
}

func (p *parser) charLit() Expr {
	t := p.advance()
	s := p.unquote(t)
	if len(s) != 1 {
		d := p.complain(t.loc, "bad-character-literal", "a character literal has exactly one character")
		if len(s) > 1 && t.use == nil {
			d.Suggest(quote(s))
		}
		return &IntLit{Loc: t.loc, Raw: "0"}
	}
	return &IntLit{Loc: t.loc, Value: uint64(s[0]), Raw: t.text}
}

// wordOperand reads an operand that starts with the word t.
func (p *parser) wordOperand(t token) Expr {
	switch t.text {
	case "true", "false":
		p.advance()
		return &BoolLit{Loc: t.loc, Value: t.text == "true"}
	case "if":
		if !p.enter() {
			p.leave()
			return &BadExpr{Loc: t.loc}
		}
		defer p.leave()
		// Its blocks may hold a division in front of a block.
		p.body++
		s := p.ifStmt()
		p.body--
		valueIf(s)
		return &IfExpr{If: s}
	case "sizeof", "typeinfo":
		if t.text == "sizeof" || p.peek(1).kind == tLparen {
			return p.typeQuery()
		}
	case "offsetof":
		return p.offsetof()
	case "comptime":
		if !p.enter() {
			p.leave()
			return &BadExpr{Loc: t.loc}
		}
		defer p.leave()
		p.advance()
		c := &Comptime{X: p.unary()}
		c.Loc = t.loc.To(p.last)
		return c
	case "struct", "union", "enum":
		p.errorf(t.loc, "syntax", "a type is no expression").
			Notef("a cast is written (%s name *)expression", t.text)
		return &BadExpr{Loc: t.loc}
	default:
		if isKeyword(t.text) {
			p.unexpected("an expression")
			return &BadExpr{Loc: t.loc}
		}
	}
	p.advance()
	if !p.at(tLparen) {
		return &Ident{Loc: t.loc, Name: t.text}
	}
	c := &Call{Func: &Name{Loc: t.loc, Text: t.text}}
	c.Args, c.Parens = p.arguments(t.text)
	c.Loc = t.loc.To(p.last)
	return c
}

// arguments reads `(a, b)`. of says whose arguments they are.
func (p *parser) arguments(of string) ([]Expr, source.Span) {
	open, ok := p.expect(tLparen, `"(" after `+of)
	if !ok {
		return nil, open
	}
	var args []Expr
	for !p.at(tRparen) && !p.at(tEOF) {
		args = append(args, p.expr())
		if p.bad || !p.accept(tComma) {
			break
		}
		if p.at(tRparen) {
			p.complain(p.last, "syntax", "an argument is missing behind this comma")
		}
	}
	if p.bad {
		return args, open.To(p.last)
	}
	if !p.at(tRparen) && startsOperand(p.tok().kind) && !p.tok().nl {
		p.missing(`"," or ")"`).NoteAt(open, "the arguments start here")
		return args, open.To(p.last)
	}
	end := p.closer(tRparen, `")"`, open)
	return args, open.To(end)
}

// startsOperand reports whether k can only start an operand, so that it
// cannot go on with an expression.
func startsOperand(k kind) bool {
	switch k {
	case tIdent, tVar, tMap, tInt, tString, tChar, tParam, tParamCount, tLparen, tNot, tTilde:
		return true
	}
	return false
}

// paren reads what starts with a parenthesis: a cast, a tuple, a record or an
// expression.
func (p *parser) paren() Expr {
	if p.castAhead() {
		return p.cast()
	}
	open := p.advance().loc
	if p.at(tRparen) {
		return &Tuple{Loc: open.To(p.advance().loc)}
	}
	p.parens++
	defer func() { p.parens-- }()
	if p.at(tIdent) && p.peek(1).kind == tAssign && !isKeyword(p.tok().text) {
		return p.record(open)
	}
	x := p.expr()
	switch {
	case p.bad:
		return x
	case p.at(tAssign):
		p.errorf(p.tok().loc, "syntax", "an assignment is a statement, no expression").Suggest("==")
		return x
	case !p.at(tComma):
		p.closer(tRparen, `")"`, open)
		respan(x, open.To(p.last))
		return x
	}
	t := &Tuple{Elems: []Expr{x}}
	for p.accept(tComma) {
		if p.at(tRparen) {
			break
		}
		t.Elems = append(t.Elems, p.expr())
		if p.bad {
			return t
		}
	}
	p.closer(tRparen, `")"`, open)
	t.Loc = open.To(p.last)
	return t
}

func (p *parser) record(open source.Span) Expr {
	r := &Record{}
	seen := map[string]*Name{}
	for {
		f := &RecordField{Name: p.name("the name of a field")}
		if p.bad {
			break
		}
		if old := seen[f.Name.Text]; old != nil {
			p.complain(f.Name.Loc, "duplicate-field", "this record has two fields %s", f.Name.Text).
				NoteAt(old.Loc, "the first is here")
		}
		seen[f.Name.Text] = f.Name
		if _, ok := p.expect(tAssign, `"=" and the field's value`); !ok {
			break
		}
		f.Value = p.expr()
		f.Loc = f.Name.Loc.To(p.last)
		r.Fields = append(r.Fields, f)
		if p.bad || !p.accept(tComma) || p.at(tRparen) {
			break
		}
	}
	p.closer(tRparen, `")"`, open)
	r.Loc = open.To(p.last)
	return r
}

func (p *parser) cast() Expr {
	if !p.enter() {
		p.leave()
		return &BadExpr{Loc: p.here()}
	}
	defer p.leave()
	open := p.advance().loc
	c := &Cast{Type: p.typeExpr()}
	end := p.closer(tRparen, `")"`, open)
	p.mark(end, roleCast)
	c.Parens = open.To(end)
	if p.bad {
		return &BadExpr{Loc: c.Parens}
	}
	c.X = p.unary()
	c.Loc = open.To(p.last)
	return c
}

func (p *parser) typeQuery() Expr {
	t := p.advance()
	q := &TypeQuery{Keyword: t.loc, Typeinfo: t.text == "typeinfo"}
	open, ok := p.expect(tLparen, `"(" after `+t.text)
	if !ok {
		return &BadExpr{Loc: t.loc}
	}
	if p.typeAhead() {
		q.Type = p.typeExpr()
	} else {
		q.X = p.expr()
	}
	if !p.bad {
		p.closer(tRparen, `")"`, open)
	}
	q.Loc = t.loc.To(p.last)
	return q
}

func (p *parser) offsetof() Expr {
	t := p.advance()
	o := &Offsetof{Keyword: t.loc}
	open, ok := p.expect(tLparen, `"(" after offsetof`)
	if !ok {
		return &BadExpr{Loc: t.loc}
	}
	if p.typeAhead() {
		o.Type = p.typeExpr()
	} else {
		o.X = p.expr()
	}
	if !p.bad {
		p.expect(tComma, `"," and the name of a field`)
	}
	for !p.bad {
		o.Path = append(o.Path, p.name("the name of a field"))
		if !p.accept(tDot) && !p.accept(tArrow) {
			break
		}
	}
	if !p.bad {
		p.closer(tRparen, `")"`, open)
	}
	o.Loc = t.loc.To(p.last)
	return o
}

// respan gives x the span at, which has its parentheses too.
func respan(x Expr, at source.Span) {
	switch x := x.(type) {
	case *Unary:
		x.Loc = at
	case *Binary:
		x.Loc = at
	case *Ternary:
		x.Loc = at
	case *Cast:
		x.Loc = at
	case *IncDec:
		x.Loc = at
	}
	// The others are as visible without them.
}
