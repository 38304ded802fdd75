package syntax

import (
	"slices"

	"github.com/skep-bpf/skep/source"
)

// block reads `{ statements }`.
func (p *parser) block() *Block {
	b := &Block{Lbrace: p.advance().loc}
	p.mark(b.Lbrace, roleBlock)
	p.body++
	defer func() { p.body-- }()
	if !p.enter() {
		p.leave()
		b.Rbrace = p.here()
		if p.at(tRbrace) {
			b.Rbrace = p.advance().loc
		}
		b.Loc = b.Lbrace.To(p.last)
		return b
	}
	defer p.leave()
	unclosed := false
	for !p.at(tRbrace) && !p.at(tEOF) {
		if p.startsProbe() {
			unclosed = true
			break
		}
		if p.at(tSemi) {
			p.mark(p.advance().loc, rolePostfix)
			continue
		}
		first := p.tok().loc
		p.mark(first, roleStmt)
		s := p.stmt()
		if s == nil {
			s = &BadStmt{Loc: first.To(p.last)}
		}
		b.Stmts = append(b.Stmts, s)
		if p.bad {
			if p.tok().loc == first && !p.at(tEOF) && !p.at(tRbrace) {
				p.advance() // so that it goes on in any case
			}
			p.recoverStmt()
			p.bad = false
		}
	}
	if p.at(tRbrace) {
		b.Rbrace = p.advance().loc
	} else {
		b.Rbrace = p.here()
		b.Rbrace.End = b.Rbrace.Start
		d := p.errorf(p.here(), "unclosed", "expected \"}\" to end a block, not %s", p.tok().describe())
		if unclosed {
			d.Message = "expected \"}\" to end a block before the next probe"
		}
		d.NoteAt(b.Lbrace, "the block starts here")
	}
	b.Loc = b.Lbrace.To(p.last)
	if b.Rbrace.End > b.Loc.End {
		b.Loc.End = b.Rbrace.End
	}
	return b
}

// blockOf reads the block of a statement, after an error in the statement's
// head too. want says what the block belongs to.
func (p *parser) blockOf(keyword source.Span, want string) *Block {
	if p.bad && p.recoverTo(tLbrace) {
		p.bad = false
	}
	if p.at(tLbrace) {
		return p.block()
	}
	d := p.missing(`"{" and ` + want)
	d.Notef("a block always has braces")
	at := p.here()
	at.End = at.Start
	return &Block{Loc: at, Lbrace: at, Rbrace: at}
}

// stmt reads one statement with its semicolon. It is nil after an error that
// left nothing of it.
func (p *parser) stmt() Stmt {
	t := p.tok()
	switch t.kind {
	case tLbrace:
		return p.block()
	case tIdent:
		if s, ok := p.keywordStmt(*t); ok {
			return s
		}
	}
	start := t.loc
	x := p.expr()
	if s, ok := p.assignment(start, x); ok {
		return s
	}
	s := &ExprStmt{Loc: start.To(p.last), X: x}
	if p.bad {
		return s
	}
	s.Semi = p.end(x)
	return s
}

// end consumes the semicolon that ends a statement. It may be missing before
// a closing brace, in which case end returns false. x is the expression that
// the statement ends with, or nil.
func (p *parser) end(x Expr) bool {
	if p.accept(tSemi) {
		return true
	}
	if p.at(tRbrace) || p.at(tEOF) {
		return false
	}
	t := *p.tok()
	if t.kind == tIllegal {
		p.bad = true
		return false
	}
	if p.open && t.nl {
		return false // the semicolon is in the literal
	}
	if word, loc := leadingWord(x); word != "" && !t.nl && p.misspelt(word, loc, t) {
		return false
	}
	d := p.errorf(p.here(), "syntax", "expected \";\" after the statement, not %s", t.describe())
	p.explain(d, &t)
	if t.nl {
		p.bad = false // the next statement is whole
	}
	return false
}

// leadingWord returns the name that an expression statement consists of or
// calls.
func leadingWord(x Expr) (string, source.Span) {
	switch x := x.(type) {
	case *Ident:
		return x.Name, x.Loc
	case *Call:
		return x.Func.Text, x.Func.Loc
	}
	return "", source.Span{}
}

// misspelt reports word, which t follows, as a misspelt keyword if it is near
// one that could stand there.
func (p *parser) misspelt(word string, loc source.Span, t token) bool {
	if isKeyword(word) {
		return false
	}
	candidates := []string{"return", "let", "import", "for", "if", "while", "unroll", "else"}
	if t.kind == tLbrace {
		candidates = []string{"if", "while", "for", "unroll", "else"}
	}
	near := source.Nearest(word, slices.Values(candidates))
	if near == "" {
		return false
	}
	p.errorf(loc, "unknown-statement", "%q starts no statement", word).Suggest(near)
	if t.kind == tLbrace {
		// Read the block as if all were well, for the errors in it.
		p.bad = false
		p.block()
	}
	return true
}

// assignment reads what follows lhs when that is an assignment.
func (p *parser) assignment(start source.Span, lhs Expr) (Stmt, bool) {
	t := *p.tok()
	op := t.kind.compound()
	if t.kind != tAssign && op == OpNone {
		return nil, false
	}
	p.advance()
	if !p.bad {
		p.checkTarget(lhs, "assigned to")
	}
	a := &Assign{Lhs: lhs, Op: op, OpLoc: t.loc}
	a.Rhs = p.expr()
	a.Loc = start.To(p.last)
	if p.at(tAssign) && !p.bad {
		p.errorf(p.tok().loc, "syntax", "an assignment has no value that could be assigned again").
			Notef("write two statements")
	}
	if !p.bad {
		p.end(a.Rhs)
	}
	return a, true
}

// checkTarget complains unless x can be changed.
func (p *parser) checkTarget(x Expr, how string) {
	switch x := x.(type) {
	case *Var, *Map, *MapIndex, *BadExpr:
	case *Index:
		d := p.complain(x.Span(), "not-assignable", "an element of an array cannot be %s", how)
		if v, ok := x.X.(*Var); ok {
			d.Message = "a $variable has no keys that could be " + how
			d.Span = v.Loc
			d.Suggest("@" + v.Name)
			d.Notef("only maps have keys")
		}
	case *TupleField:
		p.complain(x.Span(), "not-assignable", "a tuple is never changed, its elements cannot be %s", how).
			Notef("make a new tuple")
	case *Field:
		p.complain(x.Span(), "not-assignable", "a field cannot be %s", how).
			Notef("only variables and maps can; records are never changed, and memory of the kernel cannot be")
	case *Ident:
		d := p.complain(x.Loc, "not-assignable", "%s cannot be %s", x.Name, how)
		d.Notef("variables are written $%s, maps @%s", x.Name, x.Name)
	case *Param, *ParamCount:
		p.complain(x.Span(), "not-assignable", "a parameter of the command line cannot be %s", how)
	default:
		p.complain(x.Span(), "not-assignable", "this cannot be %s; only variables and maps can", how)
	}
}

// keywordStmt reads a statement that starts with a keyword, if t is one.
func (p *parser) keywordStmt(t token) (Stmt, bool) {
	switch t.text {
	case "if":
		return p.ifStmt(), true
	case "else":
		p.errorf(t.loc, "stray-else", "this else follows no if")
		p.advance()
		if p.at(tLbrace) {
			p.bad = false
			return p.block(), true
		}
		return nil, true
	case "for":
		return p.forStmt(), true
	case "while":
		p.advance()
		s := &While{Keyword: t.loc}
		s.Cond = p.condition()
		s.Body = p.blockOf(t.loc, "the body of the loop")
		s.Loc = t.loc.To(p.last)
		return s, true
	case "unroll":
		p.advance()
		s := &Unroll{Keyword: t.loc}
		s.Count = p.expr()
		s.Body = p.blockOf(t.loc, "what to unroll")
		s.Loc = t.loc.To(p.last)
		return s, true
	case "break", "continue":
		p.advance()
		p.end(nil)
		return &Jump{Loc: t.loc, Continue: t.text == "continue"}, true
	case "return":
		p.advance()
		s := &Return{}
		if !p.at(tSemi) && !p.at(tRbrace) && !p.at(tEOF) {
			s.X = p.expr()
		}
		s.Loc = t.loc.To(p.last)
		if !p.bad {
			p.end(nil)
		}
		return s, true
	case "let":
		return p.let(), true
	case "import":
		return p.importDecl(), true
	case "_":
		if p.peek(1).kind != tAssign {
			return nil, false
		}
		p.advance()
		p.advance()
		s := &Discard{X: p.expr()}
		s.Loc = t.loc.To(p.last)
		if !p.bad {
			p.end(nil)
		}
		return s, true
	case "macro", "fn":
		if p.peek(1).kind == tIdent {
			p.errorf(t.loc, "misplaced", "a %s is declared outside of blocks", map[string]string{"macro": "macro", "fn": "function"}[t.text])
			return nil, true
		}
	}
	return nil, false
}

// condition reads the condition of an if or a loop.
func (p *parser) condition() Expr {
	x := p.expr()
	if t := p.tok(); t.kind == tAssign && !p.bad {
		p.errorf(t.loc, "syntax", "an assignment is a statement, no expression").Suggest("==")
	}
	return x
}

// ifStmt reads an if with all its branches.
func (p *parser) ifStmt() *If {
	first := &If{Keyword: p.advance().loc}
	s := first
	for n := 0; ; n++ {
		s.Cond = p.condition()
		s.Then = p.blockOf(s.Keyword, "what to do if it holds")
		s.Loc = s.Keyword.To(p.last)
		if p.bad || !p.atWord("else") {
			break
		}
		p.advance()
		if !p.atWord("if") {
			s.Else = p.blockOf(p.last, "what to do otherwise")
			break
		}
		if n > maxDepth {
			p.errorf(p.tok().loc, "too-deep", "more than %d else if follow one another", maxDepth)
			break
		}
		next := &If{Keyword: p.advance().loc}
		s.Else = next
		s = next
	}
	for s = first; s != nil; {
		s.Loc = s.Keyword.To(p.last)
		s, _ = s.Else.(*If)
	}
	return first
}

// forStmt reads `for $v : @map { }` or `for $v : lo..hi { }`.
func (p *parser) forStmt() Stmt {
	s := &For{Keyword: p.advance().loc}
	var open source.Span
	paren := p.at(tLparen)
	if paren {
		open = p.advance().loc
	}
	t := *p.tok()
	if t.kind != tVar {
		d := p.unexpected("a variable: for $x : @map, or for $i : 0..10")
		s.Var = &Var{Loc: p.here()}
		s.Over = &BadExpr{Loc: p.here()}
		p.skipForHead(d)
	} else {
		p.advance()
		s.Var = &Var{Loc: t.loc, Name: t.text[1:]}
		if p.accept(tColon) {
			s.Over = p.forOver()
		} else {
			s.Over = &BadExpr{Loc: p.here()}
			p.skipForHead(p.missing(`":" and a map or range`))
		}
		if paren && !p.bad {
			p.closer(tRparen, `")"`, open)
		}
	}
	s.Body = p.blockOf(s.Keyword, "the body of the loop")
	s.Loc = s.Keyword.To(p.last)
	return s
}

// skipForHead skips the head of a loop that may be one of C, whose semicolons
// end no statement.
func (p *parser) skipForHead(d *source.Diagnostic) {
	semis := 0
	for !p.at(tEOF) && !p.at(tLbrace) && !p.at(tRbrace) {
		if p.at(tSemi) {
			if semis++; semis > 2 {
				break
			}
		}
		if p.tok().nl && (startsStmt(p.tok().text) || p.startsProbe()) {
			break
		}
		p.advance()
	}
	if semis > 0 {
		d.Notef("a loop with a counter is written: for $i : 0..10 { ... }")
	}
}

func (p *parser) forOver() Expr {
	lo := p.binary(1)
	if p.at(tDotDot) {
		r := &Range{Lo: lo, OpLoc: p.advance().loc}
		r.Hi = p.binary(1)
		r.Loc = lo.Span().To(p.last)
		return r
	}
	switch x := lo.(type) {
	case *Map, *BadExpr:
	case *MapIndex:
		if !p.bad {
			p.complain(x.Loc, "bad-loop", "a loop runs over a whole map, not over one of its values").Suggest("@" + x.Map.Name)
		}
	default:
		if !p.bad {
			p.complain(x.Span(), "bad-loop", "a loop runs over a map or a range, such as 0..10")
		}
	}
	return lo
}

// let reads `let $x : type = value;`.
func (p *parser) let() Stmt {
	start := p.advance().loc
	t := *p.tok()
	if t.kind != tVar {
		d := p.unexpected("a variable: let $x = 1")
		if t.kind == tMap {
			d.Message = "a map cannot be declared in a block"
			d.Notef("maps are declared outside of blocks, or by their first use")
		}
		return nil
	}
	p.advance()
	s := &Let{Var: &Var{Loc: t.loc, Name: t.text[1:]}}
	if p.accept(tColon) {
		s.Type = p.typeExpr()
	}
	if !p.bad && p.accept(tAssign) {
		s.Value = p.expr()
	}
	s.Loc = start.To(p.last)
	if !p.bad {
		p.end(s.Value)
	}
	return s
}

// valueBlock makes the last statement of a block that is used as a value an
// expression where it has a value: a block that has one, or an if that has
// one in all its branches.
func valueBlock(b *Block) {
	n := len(b.Stmts)
	if n == 0 {
		return
	}
	switch s := b.Stmts[n-1].(type) {
	case *If:
		if valueIf(s) {
			b.Stmts[n-1] = &ExprStmt{Loc: s.Loc, X: &IfExpr{If: s}}
		}
	case *Block:
		if valueBlock(s); s.Value() != nil {
			b.Stmts[n-1] = &ExprStmt{Loc: s.Loc, X: &BlockExpr{Block: s}}
		}
	}
}

// valueIf does the same in the branches of s, and reports whether all have a
// value.
func valueIf(s *If) bool {
	all := true
	for {
		valueBlock(s.Then)
		all = all && s.Then.Value() != nil
		switch e := s.Else.(type) {
		case *Block:
			valueBlock(e)
			return all && e.Value() != nil
		case *If:
			s = e
		default:
			return false
		}
	}
}
