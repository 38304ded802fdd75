package syntax

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// top goes back to where the next declaration starts, in front of any token
// that was looked at, and returns its offset. Attach points are read from the
// text from there; nothing else may have been read ahead.
func (p *parser) top() int {
	if p.i < len(p.buf) {
		t := p.buf[p.i]
		p.buf, p.i = p.buf[:0], 0
		if t.kind != tEOF {
			p.pp.rewind(t)
		}
		p.pp.pending = p.pp.pending[:0]
	}
	return p.pp.skip()
}

// word returns the identifier at offset pos of the text.
func (p *parser) word(pos int) string {
	lex := &p.pp.lex
	if pos >= len(lex.text) || !isIdentStart(lex.text[pos]) {
		return ""
	}
	return lex.text[pos:lex.identEnd(pos)]
}

// program reads a whole script.
func (p *parser) program() {
	lex := &p.pp.lex
	var first Decl // the first that must come after C and config
	early := func(what string, loc source.Span) {
		if first != nil {
			p.complain(loc, "order", "%s must come before all probes, macros, functions and map declarations", what).
				NoteAt(firstToken(first), "this comes before it")
		}
	}
	var config *Config
	for {
		p.bad = false
		pos := p.top()
		if pos >= len(lex.text) {
			break
		}
		start := lex.span(pos, pos)
		word := p.word(pos)
		p.mark(start, roleStmt)
		start.End += len(word)
		var d Decl
		switch {
		case lex.text[pos] == ';':
			p.mark(start, rolePostfix)
			p.advance()
			continue
		case word == "struct" || word == "union" || word == "enum" || word == "typedef":
			early("a C definition", start)
			if c := p.cDecl(true); c != nil {
				d = c
				if !p.bad {
					p.recordC(c)
				}
			}
			if p.bad {
				p.recoverDecl(pos)
			}
		case word == "config" && p.followedBy(pos+len(word), '='):
			early("the config block", start)
			c := p.config()
			if config != nil && !p.bad {
				p.complain(c.Keyword, "duplicate-config", "a script has only one config block").
					NoteAt(config.Keyword, "it is here")
			}
			config = c
			d = c
		case word == "import":
			early("an import", start)
			d = p.importDecl()
		case word == "macro":
			d = p.macro()
		case word == "fn":
			d = p.fn()
		case word == "let":
			d = p.mapDecl()
		case lex.text[pos] == '}':
			t := p.advance()
			p.errorf(t.loc, "stray-brace", "this brace closes nothing").
				Notef("is there one too many before?")
			continue
		case lex.text[pos] == '{':
			p.errorf(lex.span(pos, pos+1), "syntax", "expected an attach point before this block").
				Notef(`for instance begin, or tracepoint:syscalls:sys_enter_openat`)
			p.bad = false
			d = &Probe{Body: p.block()}
			d.(*Probe).Loc = d.(*Probe).Body.Loc
		default:
			d = p.probe()
		}
		if d == nil {
			d = &BadDecl{Loc: start.To(p.last)}
		}
		p.state.program.Decls = append(p.state.program.Decls, d)
		switch d.(type) {
		case *Probe, *Macro, *Func, *MapDecl:
			if first == nil {
				first = d
			}
		}
	}
	// Conditionals left open are reported when the last token is read.
	p.tok()
}

// recordC records a C declaration and the names it makes known as types.
func (p *parser) recordC(c *CDecl) {
	p.state.program.CDecls = append(p.state.program.CDecls, c)
	if c.Storage == Typedef {
		for _, d := range c.Declarators {
			if d.Name != nil {
				p.typedefs[d.Name.Text] = true
			}
		}
	}
}

// firstToken is a span to point at for d, which may be long.
func firstToken(d Decl) source.Span {
	switch d := d.(type) {
	case *Probe:
		if len(d.Points) > 0 {
			return d.Points[0].Loc
		}
	case *Macro:
		return d.Name.Loc
	case *Func:
		return d.Name.Loc
	case *MapDecl:
		return d.Map.Loc
	}
	return d.Span()
}

// followedBy reports whether c is the next character from pos that is no blank.
func (p *parser) followedBy(pos int, c byte) bool {
	return p.pp.lex.at(p.blanks(pos)) == c
}

// blanks returns the offset behind blanks and line ends at pos.
func (p *parser) blanks(pos int) int {
	text := p.pp.lex.text
	for pos < len(text) && (isBlank(text[pos]) || text[pos] == '\n') {
		pos++
	}
	return pos
}

// recoverDecl skips to where the next declaration starts: behind a block, or
// at a line that starts like one. start is where the bad one starts.
func (p *parser) recoverDecl(start int) {
	for {
		t := p.tok()
		switch t.kind {
		case tEOF:
			return
		case tRbrace:
			p.advance()
			if p.at(tSemi) {
				p.advance()
			}
			return
		case tLbrace:
			p.skipBraces()
			if p.at(tSemi) {
				p.advance()
			}
			return
		case tSemi:
			p.advance()
			return
		case tIdent:
			if t.loc.Start > start && p.startsProbe() {
				return
			}
		}
		p.advance()
	}
}

// skipBraces consumes a block without reading it.
func (p *parser) skipBraces() {
	depth := 0
	for {
		switch p.tok().kind {
		case tEOF:
			return
		case tLbrace:
			depth++
		case tRbrace:
			if depth--; depth <= 0 {
				p.advance()
				return
			}
		}
		p.advance()
	}
}

// config reads `config = { name = value; ... }`.
func (p *parser) config() *Config {
	c := &Config{Keyword: p.advance().loc}
	p.advance() // =
	open, ok := p.expect(tLbrace, `"{" after config =`)
	if !ok {
		p.recoverDecl(c.Keyword.Start)
		c.Loc = c.Keyword.To(p.last)
		return c
	}
	p.mark(open, roleList)
	for !p.at(tRbrace) && !p.at(tEOF) {
		if p.accept(tSemi) {
			continue
		}
		if p.startsProbe() {
			break
		}
		p.mark(p.tok().loc, roleStmt)
		e := &ConfigEntry{Name: p.name("the name of a setting")}
		if _, ok := p.expect(tAssign, `"="`); ok {
			e.Value = p.configValue()
		} else {
			e.Value = &BadExpr{Loc: p.here()}
		}
		e.Loc = e.Name.Loc.To(p.last)
		if !p.bad {
			c.Entries = append(c.Entries, e)
			if p.at(tSemi) {
				p.advance()
			} else if !p.at(tRbrace) && !p.at(tEOF) {
				p.missing(`";" after a setting`)
				if p.tok().nl {
					p.bad = false // as if it were there
				}
			}
		}
		if p.bad {
			p.recoverStmt()
			p.bad = false
		}
	}
	if p.at(tRbrace) {
		p.advance()
	} else {
		p.errorf(p.here(), "unclosed", "expected \"}\" to end the config block").NoteAt(open, "it starts here")
	}
	c.Loc = c.Keyword.To(p.last)
	return c
}

func (p *parser) configValue() Expr {
	switch t := p.tok(); t.kind {
	case tSub, tInt, tString, tParam, tIdent:
		return p.unary()
	}
	p.unexpected("the value of the setting")
	return &BadExpr{Loc: p.here()}
}

// importDecl reads `import "path";`.
func (p *parser) importDecl() *Import {
	keyword := p.advance().loc
	d := &Import{}
	if !p.at(tString) {
		p.unexpected("the path to import, in quotes")
		p.recoverStmt()
		d.Loc = keyword
		d.Path = &StringLit{Loc: keyword, Raw: `""`}
		return d
	}
	d.Path = p.stringLit()
	d.Loc = keyword.To(p.last)
	if !p.accept(tSemi) {
		p.missing(`";" after the import`)
		if !p.tok().nl {
			p.recoverStmt()
		}
		p.bad = false
	}
	return d
}

// macro reads `macro name(params) { body }`.
func (p *parser) macro() Decl {
	start := p.advance().loc
	m := &Macro{Name: p.name("the macro's name")}
	open, ok := p.expect(tLparen, `"(" after the macro's name`)
	for ok && !p.at(tRparen) && !p.bad {
		switch t := p.tok(); t.kind {
		case tVar, tIdent:
			m.Params = append(m.Params, p.operand())
		case tMap:
			p.advance()
			m.Params = append(m.Params, &Map{Loc: t.loc, Name: t.text[1:]})
		default:
			p.unexpected("a parameter: $variable, @map or a name")
		}
		if !p.accept(tComma) {
			break
		}
	}
	if ok {
		p.closer(tRparen, `")" after the parameters`, open)
	}
	m.Body = p.declBody(start, fmt.Sprintf("the body of macro %s", m.Name.Text))
	if m.Body == nil {
		return nil
	}
	valueBlock(m.Body)
	m.Loc = start.To(p.last)
	return m
}

// fn reads `fn name($param : type) : result { body }`.
func (p *parser) fn() Decl {
	start := p.advance().loc
	f := &Func{Name: p.name("the function's name")}
	open, ok := p.expect(tLparen, `"(" after the function's name`)
	for ok && !p.at(tRparen) && !p.bad {
		t := p.tok()
		if t.kind != tVar {
			p.unexpected("a parameter, such as $a : int64")
			break
		}
		param := &FuncParam{Var: &Var{Loc: t.loc, Name: t.text[1:]}}
		p.advance()
		if _, ok := p.expect(tColon, `":" and the parameter's type`); ok {
			param.Type = p.typeExpr()
		} else {
			param.Type = &BadType{Loc: p.here()}
		}
		param.Loc = param.Var.Loc.To(p.last)
		f.Params = append(f.Params, param)
		if !p.accept(tComma) {
			break
		}
	}
	if ok {
		p.closer(tRparen, `")" after the parameters`, open)
	}
	if !p.bad && p.accept(tColon) {
		f.Result = p.typeExpr()
	}
	f.Body = p.declBody(start, fmt.Sprintf("the body of function %s", f.Name.Text))
	if f.Body == nil {
		return nil
	}
	f.Loc = start.To(p.last)
	return f
}

// declBody reads the block of a declaration, after an error in its head too.
// It is nil when there is none.
func (p *parser) declBody(start source.Span, what string) *Block {
	if p.bad && !p.recoverTo(tLbrace) {
		p.recoverDecl(start.Start)
		return nil
	}
	if !p.at(tLbrace) {
		p.missing(`"{" and ` + what)
		p.recoverDecl(start.Start)
		return nil
	}
	p.bad = false
	return p.block()
}

// mapDecl reads `let @map = kind(args);`.
func (p *parser) mapDecl() Decl {
	start := p.advance().loc
	t := p.tok()
	if t.kind != tMap {
		d := p.unexpected("a map: let @name = hash(1024);")
		if t.kind == tVar {
			d.Notef("outside of blocks only maps can be declared")
		}
		p.recoverStmt()
		return nil
	}
	p.advance()
	m := &MapDecl{Map: &Map{Loc: t.loc, Name: t.text[1:]}}
	if _, ok := p.expect(tAssign, `"=" and the kind of map`); ok {
		m.Kind = p.name("the kind of map, such as hash(1024)")
		if !p.bad {
			m.Args, _ = p.arguments("the kind of map")
		}
	}
	m.Loc = start.To(p.last)
	if !p.bad && !p.accept(tSemi) && !p.tok().nl && !p.at(tEOF) {
		p.missing(`";" after the map's declaration`)
	}
	if p.bad {
		p.recoverStmt()
	}
	if m.Kind == nil {
		return nil
	}
	return m
}

// probe reads `name=point, point /pred/ { body }`.
func (p *parser) probe() Decl {
	lex := &p.pp.lex
	start := lex.pos
	pr := &Probe{}
	if w := p.word(start); w != "" {
		eq := p.blanks(start + len(w))
		if lex.at(eq) == '=' && lex.at(eq+1) != '=' {
			t := p.advance()
			pr.Name = &Name{Loc: t.loc, Text: t.text}
			p.advance()
			lex.skip()
			if lex.at(lex.pos) == '{' {
				// Only config is written like this.
				p.errorf(t.loc, "unknown-declaration", "%q starts no declaration", t.text).
					Suggest(source.Nearest(t.text, slices.Values([]string{"config"})))
				p.recoverDecl(start)
				return nil
			}
		}
	}
	pr.Points = p.attachPoints()
	if p.bad {
		p.recoverProbe(start)
	} else {
		p.headEnd(pr)
	}
	if p.at(tDiv) {
		p.predicate(pr)
	}
	if !p.at(tLbrace) {
		if p.at(tEOF) && !p.bad {
			p.errorf(p.here(), "syntax", "expected a block { ... } after the attach point, but the file ends here")
		} else {
			p.missing(`a block "{" after the attach point`)
			for p.at(tSemi) {
				// A block's statements, whose opening brace was not seen.
				p.advance()
				p.recoverProbe(start)
			}
			if !p.startsProbe() {
				p.recoverDecl(start)
			}
		}
		return nil
	}
	p.bad = false
	pr.Body = p.block()
	pr.Loc = lex.span(start, max(start, p.last.End))
	return pr
}

// recoverProbe skips from a bad attach point to the predicate or block.
func (p *parser) recoverProbe(start int) {
	for {
		t := p.tok()
		if t.kind == tEOF || t.kind == tLbrace || t.kind == tSemi || t.kind == tRbrace ||
			t.kind == tIdent && t.loc.Start > start && p.startsProbe() {
			return
		}
		p.advance()
	}
}

// headEnd checks what follows the attach points.
func (p *parser) headEnd(pr *Probe) {
	t := p.tok()
	if t.kind == tLbrace || t.kind == tDiv || t.kind == tEOF || t.kind == tIllegal {
		return
	}
	lastPoint := pr.Points[len(pr.Points)-1]
	d := p.errorf(t.loc, "bad-attach-point", "expected \",\", a /predicate/ or a block \"{\" after the attach point, not %s", t.describe())
	switch {
	case strings.HasSuffix(lastPoint.Text, ":") || t.kind == tColon:
		d.Notef("an attach point has no blanks in it; text with blanks goes in quotes")
	case isKeyword(t.text) || t.kind == tIdent && t.nl:
		d.Notef("a probe is written as: attach-point /predicate/ { statements }")
	}
	if !strings.Contains(lastPoint.Text, ":") {
		near := source.Nearest(lastPoint.Text, slices.Values([]string{"config", "import", "macro", "struct", "union", "enum", "typedef", "let", "begin", "end"}))
		if near != "" {
			d.Span = lastPoint.Loc
			d.Message = fmt.Sprintf("%q starts no declaration", lastPoint.Text)
			d.Suggest(near)
		}
	}
	p.recoverProbe(lastPoint.Loc.Start)
}

// predicate reads `/pred/`.
func (p *parser) predicate(pr *Probe) {
	pr.PredLo = p.advance().loc
	p.mark(pr.PredLo, rolePred)
	if p.at(tDiv) {
		p.errorf(pr.PredLo.To(p.tok().loc), "syntax", "this predicate is empty")
		p.advance()
		return
	}
	pr.Pred = p.expr()
	if p.at(tDiv) {
		pr.PredHi = p.advance().loc
		p.mark(pr.PredHi, rolePredEnd)
		p.lintPredicate(pr.Pred)
		return
	}
	d := p.missing(`"/" at the end of the predicate`)
	d.NoteAt(pr.PredLo, "it starts here")
	if p.at(tAssign) {
		d.Message = "a predicate assigns nothing"
		d.Span = p.tok().loc
		d.Suggest("==")
	}
	pr.PredHi = p.here()
	// The block may still be near.
	for !p.at(tLbrace) && !p.at(tEOF) && !p.at(tSemi) && !p.at(tRbrace) {
		p.advance()
	}
}

// lintPredicate warns of & and | between comparisons.
func (p *parser) lintPredicate(x Expr) {
	b, ok := x.(*Binary)
	if !ok {
		return
	}
	switch b.Op {
	case OpLogAnd, OpLogOr:
		p.lintPredicate(b.X)
		p.lintPredicate(b.Y)
	case OpAnd, OpOr:
		if isComparison(b.X) && isComparison(b.Y) && b.OpLoc.Text() == b.Op.String() {
			double := b.Op.String() + b.Op.String()
			p.warnf(b.OpLoc, "single-operator", "%s joins the bits of two truth values", b.Op).Suggest(double)
		}
	}
}

func isComparison(x Expr) bool {
	b, ok := x.(*Binary)
	return ok && b.Op >= OpLt && b.Op <= OpNe
}

// attachPoints reads a comma list of attach points from the text.
func (p *parser) attachPoints() []*AttachPoint {
	var points []*AttachPoint
	lex := &p.pp.lex
	for {
		lex.skip()
		if len(points) > 0 {
			if c := lex.at(lex.pos); c == '{' || c == '/' || lex.pos >= len(lex.text) {
				return points // after a comma too many
			}
			p.mark(lex.span(lex.pos, lex.pos), rolePoint)
		}
		a := p.attachPoint()
		if a == nil {
			return points
		}
		points = append(points, a)
		if p.bad {
			return points
		}
		lex.skip()
		if lex.at(lex.pos) != ',' {
			return points
		}
		p.advance()
	}
}

// attachPoint reads one attach point from the text. It ends at a blank, a
// comma or a block; a slash starts a predicate unless a colon stands before
// it, since then it belongs to a path.
func (p *parser) attachPoint() *AttachPoint {
	lex := &p.pp.lex
	text, start := lex.text, lex.pos
	a := &AttachPoint{}
	part := &Part{Loc: lex.span(start, start)}
	run := start // start of plain text not yet recorded
	i := start
	flush := func() {
		if i > run {
			part.Pieces = append(part.Pieces, Piece{Kind: TextPiece, Loc: lex.span(run, i), Text: text[run:i]})
			part.Text += text[run:i]
		}
		run = i
	}
	end := func() {
		flush()
		part.Loc.End = i
		a.Parts = append(a.Parts, part)
	}
	slash := -1 // in the current part, where it may start a predicate
scan:
	for i < len(text) {
		switch c := text[i]; {
		case isBlank(c) || c == '\n' || c == '{' || c == ',' || c == ';' || c == '}':
			break scan
		case c == '/' && len(a.Parts) == 0:
			break scan
		case c == '/' && slash < 0 && i > part.Loc.Start && isIdentStart(text[part.Loc.Start]) && lex.identEnd(part.Loc.Start) == i:
			slash = i
			i++
		case c == ':':
			end()
			slash = -1
			i++
			run = i
			part = &Part{Loc: lex.span(i, i)}
		case c == '"':
			flush()
			lex.pos = i
			lex.scan()
			if lex.open {
				lex.open, p.bad = false, true // reported; the block may be in it
			}
			value, bad := unquote(text[i:lex.pos])
			if bad != nil {
				p.complain(lex.span(i+bad.start, i+bad.end), "bad-escape", "%s", bad.msg)
			}
			part.Pieces = append(part.Pieces, Piece{Kind: QuotedPiece, Loc: lex.span(i, lex.pos), Text: value})
			part.Text += value
			i = lex.pos
			run = i
		case c == '$' && i+1 < len(text) && isDigit(text[i+1]):
			flush()
			lex.pos = i
			lex.scan()
			n := p.paramNumber(lex.span(i, lex.pos))
			part.Pieces = append(part.Pieces, Piece{Kind: ParamPiece, Loc: lex.span(i, lex.pos), Text: text[i:lex.pos], Param: n})
			part.Text += text[i:lex.pos]
			i = lex.pos
			run = i
		default:
			i++
		}
	}
	if slash >= 0 && p.isPredicate(slash, i) {
		// What was recorded of the part goes; its name remains.
		part.Pieces, part.Text = nil, ""
		run, i = part.Loc.Start, slash
	}
	lex.pos = i
	if i == start {
		p.unexpected("an attach point")
		return nil
	}
	end()
	a.Loc = lex.span(start, i)
	a.Text = text[start:i]
	p.last = a.Loc
	lex.bol, lex.seen = false, true
	if p.pp.keep {
		p.pp.trace = append(p.pp.trace, token{kind: tAttach, loc: a.Loc, text: a.Text, nl: true, gap: true})
	}
	return a
}

// isPredicate reports whether the slash at offset slash, directly behind a
// name, starts a predicate rather than going on with a relative path: when
// the text up to end ends in a slash too, in front of a block, or when what
// follows end could not follow an attach point.
func (p *parser) isPredicate(slash, end int) bool {
	next := p.pp.lex.at(p.blanks(end))
	if next == '{' {
		return end-1 > slash && p.pp.lex.text[end-1] == '/'
	}
	return next != ',' && next != '/' && next != 0
}
