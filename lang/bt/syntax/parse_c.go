package syntax

import (
	"strings"

	"github.com/skep-bpf/skep/source"
)

// header reads an included file: C declarations, of which only those of types
// are kept. Functions and variables are passed over.
func (p *parser) header() {
	for !p.at(tEOF) {
		p.bad = false
		if p.accept(tSemi) {
			continue
		}
		if p.atWord("extern") && p.peek(1).kind == tString {
			// extern "C" { ... } of C++, whose closing brace comes by itself.
			p.advance()
			p.advance()
			p.accept(tLbrace)
			continue
		}
		if p.accept(tRbrace) {
			continue
		}
		start := p.tok().loc
		if c := p.cDecl(false); c != nil && !p.bad && declaresType(c) {
			p.recordC(c)
		}
		if p.bad {
			if p.tok().loc == start {
				p.advance()
			}
			p.recoverC()
		}
	}
}

// declaresType reports whether c makes a type known.
func declaresType(c *CDecl) bool {
	if c.Storage == Typedef {
		return true
	}
	switch t := c.Base.(type) {
	case *StructType:
		return t.Body != nil || len(c.Declarators) == 0
	case *EnumType:
		return t.Body != nil
	}
	return false
}

// recoverC skips to behind the end of a C declaration.
func (p *parser) recoverC() {
	depth := 0
	for {
		switch p.tok().kind {
		case tEOF:
			return
		case tSemi:
			if depth == 0 {
				p.advance()
				return
			}
		case tLbrace:
			depth++
		case tRbrace:
			if depth--; depth <= 0 {
				p.advance()
				p.accept(tSemi)
				return
			}
		}
		p.advance()
	}
}

// cDecl reads a C declaration with its semicolon, which script may leave out
// behind a closing brace. It is nil when nothing was declared.
func (p *parser) cDecl(script bool) *CDecl {
	s := specifiers{p: p, start: p.tok().loc}
	s.read(true)
	if s.typ == nil {
		if !p.bad {
			p.unexpected("a C declaration")
		}
		return nil
	}
	c := &CDecl{Storage: s.storage, Base: s.typ, Attrs: s.attrs}
	body := hasBody(s.typ)
	for !p.bad && !p.at(tSemi) && !(script && body && c.Storage != Typedef && len(c.Declarators) == 0 && !p.declaratorAhead()) {
		d := p.declarator(s.typ, s.start)
		if p.bad {
			break
		}
		c.Declarators = append(c.Declarators, d)
		if _, ok := d.Type.(*FuncType); ok && p.at(tLbrace) {
			if script {
				p.errorf(d.Name.Loc, "c-function", "C functions cannot be defined in a script").
					Notef("write fn %s(...) { ... }, or a macro", d.Name.Text)
			}
			p.skipBraces()
			c.Loc = s.start.To(p.last)
			return c
		}
		if p.at(tAssign) {
			p.skipInitializer()
		}
		if !p.accept(tComma) {
			break
		}
	}
	c.Loc = s.start.To(p.last)
	switch {
	case p.bad:
	case script && body && len(c.Declarators) == 0 && c.Storage != Typedef:
		// Nothing may be read ahead but a semicolon: an attach point may follow.
		if pos := p.top(); p.pp.lex.at(pos) == ';' {
			p.mark(p.pp.lex.span(pos, pos), rolePostfix)
			p.advance()
		}
	case p.at(tSemi):
		p.mark(p.advance().loc, rolePostfix)
	default:
		p.missing(`";" after the declaration`)
		if p.tok().nl {
			// All of it was read.
			p.bad = false
			if !script {
				return c
			}
		}
	}
	return c
}

func hasBody(t TypeExpr) bool {
	switch t := t.(type) {
	case *StructType:
		return t.Body != nil
	case *EnumType:
		return t.Body != nil
	}
	return false
}

// declaratorAhead reports whether what follows a struct's closing brace in a
// script is a declarator of the same line, not the next probe. Only the text
// tells: attach points are no tokens.
func (p *parser) declaratorAhead() bool {
	if len(p.pp.pending) > 0 {
		return true
	}
	pos := p.top()
	text := p.pp.lex.text
	if strings.Contains(text[min(p.last.End, pos):pos], "\n") {
		return false
	}
	w := p.word(pos)
	if w == "" {
		return p.pp.lex.at(pos) == '*'
	}
	end := p.blanks(pos + len(w))
	switch p.pp.lex.at(end) {
	case ';', ',', '[', '=':
		return true
	}
	return w == "__attribute__"
}

// skipInitializer consumes `= value`.
func (p *parser) skipInitializer() {
	depth := 0
	for {
		switch p.tok().kind {
		case tEOF, tSemi:
			return
		case tComma:
			if depth == 0 {
				return
			}
		case tLbrace, tLparen, tLbrack:
			depth++
		case tRbrace, tRparen, tRbrack:
			if depth == 0 {
				return
			}
			depth--
		}
		p.advance()
	}
}

// specifiers are what a C declaration starts with: a type and words around it.
type specifiers struct {
	p        *parser
	start    source.Span
	storage  CStorage
	typ      TypeExpr
	attrs    []*Attr
	constant bool
	volatile bool
	words    []string // of a type made of C's own words
	first    source.Span
	last     source.Span
}

// read reads specifiers; those of storage only where declaration is true.
func (s *specifiers) read(declaration bool) {
	p := s.p
	for !p.bad && p.at(tIdent) {
		t := *p.tok()
		switch {
		case isQualifier(t.text):
			p.qualifiers(&s.constant, &s.volatile)
			continue
		case t.text == "__attribute__" || t.text == "__attribute" || t.text == "_Alignas":
			s.attrs = append(s.attrs, p.attributes()...)
			continue
		case t.text == "__extension__":
			p.advance()
			continue
		case declaration && s.storageWord(t.text):
			p.advance()
			continue
		case s.typ != nil:
			s.finish()
			return
		case isCWord(t.text):
			if len(s.words) == 0 {
				s.first = t.loc
			}
			s.last = t.loc
			s.words = append(s.words, t.text)
			p.advance()
			continue
		case len(s.words) > 0:
			s.finish()
			return
		case t.text == "struct" || t.text == "union":
			s.typ = p.structType()
			continue
		case t.text == "enum":
			s.typ = p.enumType()
			continue
		case t.text == "typeof" || t.text == "__typeof__" || t.text == "__typeof":
			s.typ = p.typeofType()
			continue
		case isKeyword(t.text):
			s.finish()
			return
		}
		p.advance()
		s.typ = &NamedType{Loc: t.loc, Name: t.text}
	}
	s.finish()
}

func (s *specifiers) storageWord(w string) bool {
	switch w {
	case "typedef":
		s.storage = Typedef
	case "extern":
		s.storage = Extern
	case "static":
		s.storage = Static
	case "inline", "__inline", "__inline__", "_Noreturn", "register", "_Thread_local", "__thread":
	default:
		return false
	}
	return true
}

// finish makes the type of what was read.
func (s *specifiers) finish() {
	if s.typ == nil && len(s.words) > 0 {
		s.typ = &NamedType{Loc: s.first.To(s.last), Name: strings.Join(s.words, " ")}
	}
	switch t := s.typ.(type) {
	case *NamedType:
		t.Const, t.Volatile = t.Const || s.constant, t.Volatile || s.volatile
	case *StructType:
		t.Const, t.Volatile = t.Const || s.constant, t.Volatile || s.volatile
	case *EnumType:
		t.Const, t.Volatile = t.Const || s.constant, t.Volatile || s.volatile
	}
}

// attributes reads `__attribute__((a, b(1)))` or `_Alignas(n)`.
func (p *parser) attributes() []*Attr {
	word := p.advance()
	open, ok := p.expect(tLparen, `"("`)
	if !ok {
		return nil
	}
	if word.text == "_Alignas" {
		a := &Attr{Name: "aligned", Args: []Expr{p.expr()}}
		p.closer(tRparen, `")"`, open)
		a.Loc = word.loc.To(p.last)
		return []*Attr{a}
	}
	inner, ok := p.expect(tLparen, `"(("`)
	if !ok {
		return nil
	}
	var attrs []*Attr
	for !p.at(tRparen) && !p.bad {
		if p.accept(tComma) {
			continue
		}
		n := p.name("the name of an attribute")
		a := &Attr{Name: strings.Trim(n.Text, "_")}
		if p.at(tLparen) {
			a.Args, _ = p.arguments("the attribute")
		}
		a.Loc = n.Loc.To(p.last)
		attrs = append(attrs, a)
	}
	p.closer(tRparen, `")"`, inner)
	p.closer(tRparen, `")"`, open)
	return attrs
}

func (p *parser) trailingAttributes() []*Attr {
	var attrs []*Attr
	for !p.bad && p.at(tIdent) {
		switch t := p.tok(); t.text {
		case "__attribute__", "__attribute":
			attrs = append(attrs, p.attributes()...)
		case "__packed":
			attrs = append(attrs, &Attr{Loc: t.loc, Name: "packed"})
			p.advance()
		case "asm", "__asm__", "__asm":
			p.advance()
			p.arguments("asm")
		default:
			return attrs
		}
	}
	return attrs
}

func (p *parser) structType() TypeExpr {
	t := p.advance()
	s := &StructType{Keyword: t.loc, Union: t.text == "union"}
	s.Attrs = p.trailingAttributes()
	if p.at(tIdent) {
		s.Name = p.name("a name")
	}
	if p.at(tLbrace) && (p.body == 0 || s.Name == nil) {
		s.Body = p.fieldList(t.text)
		s.Attrs = append(s.Attrs, p.structAttributes()...)
	} else if s.Name == nil {
		p.unexpected("the name of the " + t.text)
	}
	s.Loc = t.loc.To(p.last)
	return s
}

// structAttributes reads the attributes behind a closing brace. In a script
// an attach point may follow, which must not be read as tokens.
func (p *parser) structAttributes() []*Attr {
	if p.depth == 0 && len(p.pp.pending) == 0 && !p.pp.isHeader() {
		if w := p.word(p.top()); !strings.HasPrefix(w, "__attribute") && w != "__packed" {
			return nil
		}
	}
	return p.trailingAttributes()
}

// isHeader reports whether an included file is read, not the script.
func (pp *preprocessor) isHeader() bool { return pp.depth > 0 }

func (p *parser) fieldList(what string) *FieldList {
	open := p.advance().loc
	p.mark(open, roleList)
	l := &FieldList{}
	if !p.enter() {
		p.leave()
		p.accept(tRbrace)
		l.Loc = open.To(p.last)
		return l
	}
	defer p.leave()
	for !p.at(tRbrace) && !p.at(tEOF) && !p.startsProbe() {
		if p.at(tSemi) {
			p.mark(p.advance().loc, rolePostfix)
			continue
		}
		p.mark(p.tok().loc, roleStmt)
		if p.acceptWord("_Static_assert") {
			p.arguments("_Static_assert")
			continue
		}
		start := p.tok().loc
		if f := p.member(); f != nil {
			l.Fields = append(l.Fields, f)
		}
		if p.bad {
			if p.tok().loc == start && !p.at(tRbrace) {
				p.advance()
			}
			p.recoverStmt()
			p.bad = false
		}
	}
	p.endList(open, what)
	l.Loc = open.To(p.last)
	return l
}

// endList consumes the brace that closes a body of C.
func (p *parser) endList(open source.Span, what string) {
	if p.accept(tRbrace) {
		return
	}
	p.errorf(p.here(), "unclosed", "expected \"}\" to end the %s, not %s", what, p.tok().describe()).
		NoteAt(open, "it starts here")
}

// member reads a member declaration of a struct or union.
func (p *parser) member() *CDecl {
	s := specifiers{p: p, start: p.tok().loc}
	s.read(false)
	if s.typ == nil {
		p.unexpected("the type of a member")
		return nil
	}
	c := &CDecl{Base: s.typ, Attrs: s.attrs}
	for !p.bad && !p.at(tSemi) && !p.at(tRbrace) {
		d := p.declarator(s.typ, s.start)
		if p.bad {
			break
		}
		if _, ok := d.Type.(*FuncType); ok {
			p.errorf(d.Loc, "syntax", "a member cannot be a function, only a pointer to one")
			break
		}
		c.Declarators = append(c.Declarators, d)
		if !p.accept(tComma) {
			break
		}
	}
	c.Loc = s.start.To(p.last)
	if p.bad {
		return nil
	}
	if len(c.Declarators) == 0 && !hasBody(s.typ) {
		p.unexpected("the name of the member")
		return nil
	}
	if p.at(tSemi) {
		p.mark(p.advance().loc, rolePostfix)
	} else {
		p.missing(`";" after the member`)
		if p.tok().nl || p.at(tRbrace) {
			p.bad = false
		}
	}
	return c
}

// declarator reads one name and the type built around it.
func (p *parser) declarator(base TypeExpr, start source.Span) *Declarator {
	d := &Declarator{}
	from := p.tok().loc
	var build func(TypeExpr) TypeExpr
	if !p.at(tColon) {
		d.Name, build = p.declaratorType(start, true)
		d.Type = build(base)
		if d.Name == nil && !p.bad {
			p.unexpected("a name")
		}
	} else {
		d.Type = base
	}
	if !p.bad && p.accept(tColon) {
		d.Bits = p.binary(1)
	}
	d.Attrs = p.trailingAttributes()
	d.Loc = from.To(p.last)
	return d
}

// declaratorType reads a declarator of C, inside out: it returns the name and
// a function that builds the whole type around what comes before the name.
func (p *parser) declaratorType(start source.Span, needName bool) (*Name, func(TypeExpr) TypeExpr) {
	same := func(t TypeExpr) TypeExpr { return t }
	if !p.enter() {
		p.leave()
		return nil, same
	}
	defer p.leave()
	var pointers []*PointerType
	for p.at(tMul) && !p.bad {
		if len(pointers) > maxDepth {
			p.errorf(p.tok().loc, "too-deep", "this type has more than %d stars", maxDepth)
			break
		}
		p.mark(p.tok().loc, rolePointer)
		p.advance()
		ptr := &PointerType{}
		p.qualifiers(&ptr.Const, &ptr.Volatile)
		ptr.Loc = start.To(p.last)
		pointers = append(pointers, ptr)
	}
	var name *Name
	inner := same
	p.trailingAttributes()
	switch {
	case p.at(tIdent) && !isKeyword(p.tok().text):
		name = p.name("a name")
	case p.at(tIdent) && needName:
		// A keyword of the tracing language is an ordinary name in C.
		name = p.name("a name")
	case p.at(tLparen) && (p.peek(1).kind == tMul || p.peek(1).kind == tLparen || needName && p.peek(1).kind == tIdent):
		open := p.advance().loc
		name, inner = p.declaratorType(start, needName)
		p.closer(tRparen, `")"`, open)
	}
	var suffixes []TypeExpr
	for !p.bad && len(suffixes) <= maxDepth {
		switch {
		case p.at(tLbrack):
			open := p.advance().loc
			a := &ArrayType{}
			if p.at(tIdent) && p.atWord("static") {
				p.advance()
			}
			if !p.at(tRbrack) {
				a.Len = p.expr()
			}
			p.closer(tRbrack, `"]"`, open)
			a.Loc = start.To(p.last)
			suffixes = append(suffixes, a)
			continue
		case p.at(tLparen):
			f := p.cParams()
			f.Loc = start.To(p.last)
			suffixes = append(suffixes, f)
			continue
		}
		break
	}
	return name, func(t TypeExpr) TypeExpr {
		for _, ptr := range pointers {
			ptr.Elem = t
			t = ptr
		}
		for i := len(suffixes) - 1; i >= 0; i-- {
			switch s := suffixes[i].(type) {
			case *ArrayType:
				s.Elem = t
			case *FuncType:
				s.Result = t
			}
			t = suffixes[i]
		}
		return inner(t)
	}
}

// cParams reads the parameters of a C function.
func (p *parser) cParams() *FuncType {
	open := p.advance().loc
	f := &FuncType{}
	if p.atWord("void") && p.peek(1).kind == tRparen {
		p.advance()
	}
	for !p.at(tRparen) && !p.bad {
		if p.accept(tEllipsis) {
			f.Variadic = true
			break
		}
		s := specifiers{p: p, start: p.tok().loc}
		s.read(true)
		if s.typ == nil {
			p.unexpected("the type of a parameter")
			break
		}
		param := &CParam{}
		var build func(TypeExpr) TypeExpr
		param.Name, build = p.declaratorType(s.start, false)
		param.Type = build(s.typ)
		p.trailingAttributes()
		param.Loc = s.start.To(p.last)
		f.Params = append(f.Params, param)
		if !p.accept(tComma) {
			break
		}
	}
	p.closer(tRparen, `")"`, open)
	return f
}

func (p *parser) enumType() TypeExpr {
	t := p.advance()
	e := &EnumType{Keyword: t.loc}
	e.Attrs = p.trailingAttributes()
	if p.at(tIdent) {
		e.Name = p.name("a name")
	}
	if p.body == 0 && p.at(tColon) && p.peek(1).kind == tIdent {
		p.advance()
		s := specifiers{p: p, start: p.tok().loc}
		s.read(false)
		e.Underlying = s.typ
	}
	if p.at(tLbrace) && (p.body == 0 || e.Name == nil) {
		e.Body = p.enumList()
		e.Attrs = append(e.Attrs, p.structAttributes()...)
	} else if e.Name == nil {
		p.unexpected("the name of the enum")
	}
	e.Loc = t.loc.To(p.last)
	return e
}

func (p *parser) enumList() *EnumList {
	open := p.advance().loc
	p.mark(open, roleEnum)
	l := &EnumList{}
	for !p.at(tRbrace) && !p.bad {
		p.mark(p.tok().loc, roleStmt)
		n := &Enumerator{}
		if !p.at(tIdent) {
			p.unexpected("the name of an enumerator")
			break
		}
		n.Name = p.name("the name of an enumerator")
		p.trailingAttributes()
		if p.accept(tAssign) {
			n.Value = p.expr()
		}
		n.Loc = n.Name.Loc.To(p.last)
		l.Items = append(l.Items, n)
		if !p.accept(tComma) {
			break
		}
	}
	if p.bad {
		for !p.at(tEOF) && !p.at(tRbrace) && !p.startsProbe() {
			p.advance()
		}
	}
	p.endList(open, "enum")
	l.Loc = open.To(p.last)
	return l
}

func (p *parser) typeofType() TypeExpr {
	t := p.advance()
	q := &TypeofType{}
	open, ok := p.expect(tLparen, `"(" after typeof`)
	if !ok {
		return &BadType{Loc: t.loc}
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
