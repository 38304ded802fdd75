package syntax

import (
	"slices"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// Options are what [Parse] needs beside the text.
type Options struct {
	// Defines are macros given from outside, as C compilers take them with
	// -D: "NAME" (which makes it 1), "NAME=value", "NAME(x)=value". The
	// caller puts BPFTRACE_HAVE_BTF here when the target has BTF.
	Defines []string
	// Includer finds included files. Without one every #include counts as
	// satisfied by the target's own types.
	Includer Includer
	// Include names files to include before the script, as --include does.
	Include []string
}

// maxDepth is how deep blocks, expressions and types may be nested, so that
// neither reading nor walking a tree can exhaust the stack.
const maxDepth = 200

// maxChain is how many operators may stand side by side without parentheses.
const maxChain = 2000

// A role says how the formatter sets a token that could be set several ways.
type role uint8

const (
	roleNone    role = iota
	rolePrefix       // prefix operator: no blank after it
	rolePostfix      // postfix operator: no blank before it
	roleCast         // parenthesis that closes a cast: no blank after it
	rolePointer      // star of a type
	roleBlock        // brace that opens a block of statements
	roleList         // brace that opens members or settings
	roleEnum         // brace that opens enumerators
	rolePred         // slash that opens a predicate
	rolePredEnd      // slash that closes it
	rolePoint        // first token of an attach point but the first

	// roleStmt is the first token of a statement, member or declaration, which
	// may have another role too.
	roleStmt role = 0x80
)

// A parser reads the tokens of one file.
type parser struct {
	*state
	pp    *preprocessor
	buf   []token // read ahead
	i     int     // of buf, the current token
	last  source.Span
	depth int
	// bad is set by an error, and silences those that would follow from it
	// until the parser has found its way again.
	bad    bool
	open   bool         // the last token is a literal that is not closed
	roles  map[int]role // by offset; nil unless for the formatter
	body   int          // blocks around
	parens int          // around the expression being read
}

func newState(opts Options, f *source.File) *state {
	return &state{
		opts:     opts,
		places:   map[place]bool{},
		macros:   map[string]*Define{},
		typedefs: map[string]bool{},
		onceOnly: map[string]bool{},
		program:  &Program{File: f},
	}
}

func newParser(s *state, f *source.File) *parser {
	p := &parser{state: s}
	p.pp = newPreprocessor(s, f)
	p.buf = make([]token, 0, 8)
	p.last = source.Span{File: f}
	return p
}

// Parse reads a script. The program is never nil; where the text is wrong it
// has Bad nodes. The list has errors and warnings in the order of the text;
// errors have codes that stay.
func Parse(file *source.File, opts Options) (*Program, source.List) {
	s := newState(opts, file)
	p := newParser(s, file)
	p.predefine()
	p.pp.lex.comment = func(at source.Span) {
		s.program.Comments = append(s.program.Comments, &Comment{Loc: at, Text: at.Text()})
	}
	for _, path := range opts.Include {
		p.pp.obey(&Include{Path: path}, nil)
	}
	p.program()
	return s.program, s.sorted()
}

// ParseExpr reads text that is one expression, for instance a predicate.
func ParseExpr(file *source.File, opts Options) (Expr, source.List) {
	s := newState(opts, file)
	p := newParser(s, file)
	p.predefine()
	p.body = 1 // blocks may stand here, and no predicate ends
	x := p.expr()
	if !p.at(tEOF) {
		p.unexpected("the end of the expression")
	}
	return x, s.sorted()
}

// ParseAttachPoints reads text that is a comma list of attach points, for
// instance `tracepoint:*`, as one gives to list probes.
func ParseAttachPoints(file *source.File) ([]*AttachPoint, source.List) {
	s := newState(Options{}, file)
	p := newParser(s, file)
	points := p.attachPoints()
	if pos := p.pp.skip(); !p.bad && pos < len(file.Text) {
		p.errorf(p.pp.lex.span(pos, len(strings.TrimRight(file.Text, " \t\r\n"))), "bad-attach-point", "only attach points may stand here, separated by commas")
	}
	return points, s.sorted()
}

func (s *state) sorted() source.List {
	// Look-ahead finds some errors too early.
	main := s.program.File
	slices.SortStableFunc(s.diags, func(a, b *source.Diagnostic) int {
		if a.Span.File != main || b.Span.File != main {
			return 0
		}
		return a.Span.Start - b.Span.Start
	})
	return s.diags
}

// predefine defines the macros of the options.
func (p *parser) predefine() {
	for _, text := range p.opts.Defines {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			value = "1"
		}
		f := source.NewFile("command line", name+" "+value)
		lex := newLexer(f)
		lex.bol = false
		p.pp.define(source.Span{File: f}, &lex)
	}
}

// peek returns the nth token from here.
func (p *parser) peek(n int) *token {
	for len(p.buf) <= p.i+n {
		p.buf = append(p.buf, p.pp.next())
	}
	return &p.buf[p.i+n]
}

func (p *parser) tok() *token {
	if p.i < len(p.buf) {
		return &p.buf[p.i]
	}
	return p.peek(0)
}

// advance consumes the current token. At the end of the file it stays there.
func (p *parser) advance() token {
	t := *p.tok()
	if t.kind == tEOF {
		return t
	}
	p.last, p.open = t.loc, t.open
	p.i++
	if p.i == len(p.buf) {
		p.buf, p.i = p.buf[:0], 0
	}
	return t
}

func (p *parser) at(k kind) bool { return p.tok().kind == k }

func (p *parser) atWord(s string) bool { return p.tok().is(s) }

func (p *parser) accept(k kind) bool {
	if p.tok().kind == k {
		p.advance()
		return true
	}
	return false
}

func (p *parser) acceptWord(s string) bool {
	if p.tok().is(s) {
		p.advance()
		return true
	}
	return false
}

func (p *parser) mark(at source.Span, r role) {
	switch {
	case p.roles == nil:
	case r == roleStmt:
		p.roles[at.Start] |= roleStmt
	default:
		p.roles[at.Start] = p.roles[at.Start]&roleStmt | r
	}
}

// errorf reports an error unless one is being recovered from. The result is
// never nil, so that notes can be added in any case.
func (p *parser) errorf(at source.Span, code, format string, args ...any) *source.Diagnostic {
	d := source.Errorf(at, code, format, args...)
	if !p.bad && !p.pp.lenient && !(p.pp.lex.cut && p.at(tEOF)) {
		p.add(d)
	}
	p.bad = true
	return d
}

// warnf reports a warning.
func (p *parser) warnf(at source.Span, code, format string, args ...any) *source.Diagnostic {
	d := source.Errorf(at, code, format, args...)
	d.Severity = source.Warning
	if !p.bad && !p.pp.lenient {
		p.add(d)
	}
	return d
}

// complain reports an error after which the parser knows its way all the same.
func (p *parser) complain(at source.Span, code, format string, args ...any) *source.Diagnostic {
	was := p.bad
	d := p.errorf(at, code, format, args...)
	p.bad = was
	return d
}

// here is where to say that something is missing: behind the last token when
// the current one is on a later line, else at the current one.
func (p *parser) here() source.Span {
	t := p.tok()
	if (t.nl || t.kind == tEOF) && p.last.End > 0 && p.last.File == t.loc.File {
		return source.Span{File: p.last.File, Start: p.last.End, End: p.last.End}
	}
	return t.loc
}

// unexpected reports that the current token is not what must stand here.
func (p *parser) unexpected(want string) *source.Diagnostic {
	t := p.tok()
	if t.kind == tIllegal {
		// The lexer has said so.
		p.bad = true
		return &source.Diagnostic{}
	}
	d := p.errorf(t.loc, "syntax", "expected %s, not %s", want, t.describe())
	p.explain(d, t)
	return d
}

// missing is unexpected for what belongs directly behind the last token.
func (p *parser) missing(want string) *source.Diagnostic {
	t := p.tok()
	if t.kind == tIllegal || p.open {
		// The lexer has said so, or what is missing may be in the literal.
		p.bad = true
		return &source.Diagnostic{}
	}
	d := p.errorf(p.here(), "syntax", "expected %s, not %s", want, t.describe())
	p.explain(d, t)
	return d
}

// explain adds where a token came from to d.
func (p *parser) explain(d *source.Diagnostic, t *token) {
	if t.use != nil {
		d.NoteAt(t.use.Define.NameLoc, "it comes from macro %s, defined here", t.use.Define.Name)
	}
}

// expect consumes a token of kind k, or reports that it is missing.
func (p *parser) expect(k kind, want string) (source.Span, bool) {
	if p.at(k) {
		return p.advance().loc, true
	}
	p.missing(want)
	return p.here(), false
}

// closer consumes the token that closes what stands at open.
func (p *parser) closer(k kind, want string, open source.Span) source.Span {
	if p.at(k) {
		return p.advance().loc
	}
	d := p.missing(want)
	d.NoteAt(open, "it closes this")
	return p.here()
}

// name consumes a name of any kind, keywords included.
func (p *parser) name(what string) *Name {
	if p.at(tIdent) {
		t := p.advance()
		return &Name{Loc: t.loc, Text: t.text}
	}
	p.unexpected(what)
	return &Name{Loc: p.here()}
}

// enter counts one level of nesting; false, with an error, when it is too
// deep. Each enter needs a leave.
func (p *parser) enter() bool {
	p.depth++
	if p.depth > maxDepth {
		p.errorf(p.tok().loc, "too-deep", "this is nested more than %d deep", maxDepth)
		p.skipNested()
		return false
	}
	return true
}

func (p *parser) leave() { p.depth-- }

// skipNested consumes what is nested here, up to what closes the level or
// ends the statement.
func (p *parser) skipNested() {
	depth := 0
	for {
		switch p.tok().kind {
		case tEOF:
			return
		case tSemi:
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

// recoverStmt skips to where the next statement starts or the block ends.
func (p *parser) recoverStmt() {
	depth := 0
	for {
		t := p.tok()
		switch t.kind {
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
			if depth == 0 {
				return
			}
			depth--
			if depth == 0 {
				p.advance()
				if !p.atWord("else") {
					return
				}
				continue
			}
		case tIdent:
			if depth == 0 && t.nl && (startsStmt(t.text) || p.startsProbe()) {
				return
			}
		}
		p.advance()
	}
}

// recoverTo skips to a token of kind k in the same statement, and reports
// whether there is one.
func (p *parser) recoverTo(k kind) bool {
	for {
		switch t := p.tok(); t.kind {
		case k:
			return true
		case tEOF, tSemi, tRbrace, tLbrace:
			return false
		case tIdent:
			if t.nl && (startsStmt(t.text) || p.startsProbe()) {
				return false
			}
		}
		p.advance()
	}
}

// startsStmt reports whether s is a keyword that only a statement starts with.
func startsStmt(s string) bool {
	switch s {
	case "break", "continue", "for", "if", "import", "let", "return", "unroll", "while":
		return true
	}
	return false
}

// startsProbe reports whether the current token, in a block, looks like the
// start of the next probe, so that a closing brace must be missing.
func (p *parser) startsProbe() bool {
	t := p.tok()
	if t.kind != tIdent || !t.nl || t.use != nil {
		return false
	}
	n := p.peek(1)
	switch t.text {
	case "BEGIN", "END", "begin", "end":
		return n.kind == tLbrace || n.kind == tDiv
	case "macro", "fn", "struct", "union", "enum":
		return p.body > 0 && n.kind == tIdent
	}
	// kprobe:f: a name, a colon and more without any blank.
	return n.kind == tColon && !n.gap && n.use == nil && !isBlankOrEnd(p.pp.lex.file.Text, n.loc.End)
}

func isBlankOrEnd(s string, i int) bool {
	return i >= len(s) || isBlank(s[i]) || s[i] == '\n'
}
