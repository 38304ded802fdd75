package syntax

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// An Includer finds what #include lines name.
type Includer interface {
	// Include returns the file that path names. angled tells <path> from
	// "path"; from is the file that has the line, nil for [Options.Include].
	//
	// It returns nil when nothing need be read because the target's own types
	// stand in. The error says in plain words why the file cannot be had; its
	// text becomes part of a diagnostic.
	Include(path string, angled bool, from *source.File) (*source.File, error)
}

const (
	maxIncludes    = 64      // files in one another
	maxIncluded    = 4096    // files in all
	maxExpansions  = 1 << 20 // tokens that macros may yield in all
	maxHide        = 200     // macros in one another
	maxDiagnostics = 500
	maxIfs         = 1000 // conditionals in one another
)

// state is what the files of one parse share.
type state struct {
	opts     Options
	diags    source.List
	places   map[place]bool // where errors were reported
	macros   map[string]*Define
	typedefs map[string]bool
	program  *Program
	expanded int // tokens that macros yielded
	included int
	onceOnly map[string]bool // files with #pragma once
	full     bool            // too many diagnostics, stop
}

type place struct {
	file  *source.File
	start int
}

// add records d unless an error was reported at the same place before.
func (s *state) add(d *source.Diagnostic) {
	if s.full {
		return
	}
	if d.Severity == source.Error {
		at := place{d.Span.File, d.Span.Start}
		if s.places[at] {
			return
		}
		s.places[at] = true
	}
	s.diags.Add(d)
	if len(s.diags) >= maxDiagnostics {
		s.full = true
		s.diags.Add(source.Errorf(d.Span, "too-many-errors", "too many errors, the rest is not read"))
	}
}

// A preprocessor yields the tokens of one file with macros expanded and
// directives obeyed.
type preprocessor struct {
	*state
	lex     lexer
	pending []token // to be read before the lexer's, last first
	ifs     []ifState
	depth   int  // of includes
	lenient bool // a system header: what is wrong in it stays unsaid
	// keep leaves directives and macros alone and records all tokens, for
	// the formatter.
	keep  bool
	trace []token
}

type ifState struct {
	loc   source.Span // the directive
	taken bool        // a branch was taken
	els   bool        // #else was seen
}

func newPreprocessor(s *state, f *source.File) *preprocessor {
	pp := &preprocessor{state: s, lex: newLexer(f)}
	pp.lex.report = pp.report
	return pp
}

func (pp *preprocessor) report(d *source.Diagnostic) {
	if !pp.lenient {
		pp.add(d)
	}
}

func (pp *preprocessor) errorf(at source.Span, code, format string, args ...any) *source.Diagnostic {
	d := source.Errorf(at, code, format, args...)
	pp.report(d)
	return d
}

// next returns the next token, macros expanded.
func (pp *preprocessor) next() token {
	for {
		t := pp.raw()
		if t.kind != tIdent || pp.keep || len(pp.macros) == 0 {
			return t
		}
		d := pp.macros[t.text]
		if d == nil || t.hide.has(d) {
			return t
		}
		if !pp.expand(t, d) {
			return t
		}
	}
}

// raw returns the next token as it stands.
func (pp *preprocessor) raw() token {
	if n := len(pp.pending); n > 0 {
		t := pp.pending[n-1]
		pp.pending = pp.pending[:n-1]
		return t
	}
	for {
		if pp.full {
			end := len(pp.lex.text)
			return token{loc: pp.lex.span(end, end)}
		}
		t := pp.lex.next()
		if t.kind == tHash && t.nl {
			pp.directive(t)
			continue
		}
		if t.kind == tEOF {
			for _, open := range pp.ifs {
				pp.errorf(open.loc, "unterminated-if", "this %s has no #endif", open.loc.Text())
			}
			pp.ifs = nil
		}
		if pp.keep {
			pp.trace = append(pp.trace, t)
		}
		return t
	}
}

// skip passes over blanks, comments and directives, and returns where the
// next token starts. It may only be called when nothing is pending.
func (pp *preprocessor) skip() int {
	for {
		pp.lex.skip()
		if pp.full {
			pp.lex.pos = len(pp.lex.text)
		}
		if pp.lex.at(pp.lex.pos) != '#' || !pp.lex.bol {
			return pp.lex.pos
		}
		pp.directive(pp.lex.next())
	}
}

// rewind goes back to t, which was the last token read.
func (pp *preprocessor) rewind(t token) {
	pp.lex.pos = t.loc.Start
	pp.lex.bol = t.nl
	if n := len(pp.trace); n > 0 && pp.trace[n-1].loc == t.loc {
		pp.trace = pp.trace[:n-1]
	}
}

func (pp *preprocessor) push(tokens []token) {
	for _, t := range slices.Backward(tokens) {
		pp.pending = append(pp.pending, t)
	}
}

// expand replaces the use t of d by what it stands for. It returns false when
// t is no use of it: a function-like macro without arguments.
func (pp *preprocessor) expand(t token, d *Define) bool {
	use := t.use
	if use == nil {
		use = &Use{Loc: t.loc, Define: d}
	}
	h := t.hide.with(d)
	if h.depth > maxHide {
		pp.errorf(t.loc, "macro-too-deep", "macros are nested more than %d deep here", maxHide).
			NoteAt(d.NameLoc, "%s is defined here", d.Name)
		return false
	}
	body := d.body
	if d.Function {
		open := pp.raw()
		if open.kind != tLparen {
			pp.pending = append(pp.pending, open)
			return false
		}
		args, end, ok := pp.arguments(open, d)
		if !ok {
			return false
		}
		if t.use == nil {
			use.Loc = t.loc.To(end)
		}
		if len(args) != len(d.Params) {
			pp.errorf(use.Loc, "macro-arguments", "macro %s takes %s, not %d", d.Name, count(len(d.Params), "argument"), len(args)).
				NoteAt(d.NameLoc, "%s is defined here", d.Name)
			return true
		}
		body = pp.substitute(d, args, use.Loc)
	}
	if t.use == nil && pp.depth == 0 {
		pp.program.Uses = append(pp.program.Uses, use)
	}
	pp.expanded += len(body)
	if pp.expanded > maxExpansions {
		pp.errorf(use.Loc, "macro-too-large", "macros expand to more than %d tokens in all", maxExpansions).
			NoteAt(d.NameLoc, "%s is defined here", d.Name)
		pp.full = true
		return true
	}
	out := make([]token, len(body))
	for i, b := range body {
		if !d.Function {
			b.loc = use.Loc
		}
		b.use = use
		b.nl = false
		if i == 0 {
			b.nl, b.gap = t.nl, t.gap
		}
		if b.hide == nil {
			b.hide = h
		} else {
			for e := h; e != nil; e = e.rest {
				if !b.hide.has(e.def) {
					b.hide = b.hide.with(e.def)
				}
			}
		}
		out[i] = b
	}
	pp.push(out)
	return true
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// arguments reads the arguments of a macro up to the closing parenthesis.
func (pp *preprocessor) arguments(open token, d *Define) (args [][]token, end source.Span, ok bool) {
	var arg []token
	depth := 0
	for {
		t := pp.raw()
		switch {
		case t.kind == tEOF:
			pp.errorf(open.loc, "unterminated-arguments", "the arguments of macro %s are never closed", d.Name).
				Notef("close them with )")
			pp.pending = append(pp.pending, t)
			return nil, open.loc, false
		case t.kind == tLparen:
			depth++
		case t.kind == tRparen && depth == 0:
			if len(d.Params) > 0 || len(arg) > 0 {
				args = append(args, arg)
			}
			if d.Variadic && len(args) == len(d.Params)-1 {
				args = append(args, nil)
			}
			return args, t.loc, true
		case t.kind == tRparen:
			depth--
		case t.kind == tComma && depth == 0 && !(d.Variadic && len(args) >= len(d.Params)-1):
			args = append(args, arg)
			arg = nil
			continue
		}
		arg = append(arg, t)
	}
}

// substitute returns d's body with arguments in place of parameters, strings
// made by # and tokens joined by ##. What comes from the body gets the span
// at, that of the use; arguments keep theirs.
func (pp *preprocessor) substitute(d *Define, args [][]token, at source.Span) []token {
	var out []token
	full := make([][]token, len(args)) // arguments with macros expanded, lazily
	for i := 0; i < len(d.body); i++ {
		t := d.body[i]
		t.loc = at
		if t.kind == tHash && i+1 < len(d.body) {
			if p := slices.Index(d.Params, d.body[i+1].text); p >= 0 {
				t.kind, t.text = tString, quote(spell(args[p]))
				out = append(out, t)
				i++
				continue
			}
		}
		if t.kind == tHashHash && len(out) > 0 && i+1 < len(d.body) {
			i++
			right := []token{d.body[i]}
			right[0].loc = at
			if p := slices.Index(d.Params, d.body[i].text); p >= 0 && d.body[i].kind == tIdent {
				right = args[p]
			}
			out = pp.paste(out, right)
			continue
		}
		p := -1
		if t.kind == tIdent {
			p = slices.Index(d.Params, t.text)
		}
		if p < 0 {
			out = append(out, t)
			continue
		}
		if i+1 < len(d.body) && d.body[i+1].kind == tHashHash {
			out = append(out, args[p]...)
			if len(args[p]) == 0 {
				// What is pasted to nothing stands alone.
				if i+2 < len(d.body) {
					i++
				}
			}
			continue
		}
		if full[p] == nil {
			full[p] = pp.expandAll(args[p])
		}
		out = append(out, full[p]...)
		if len(out) > maxExpansions {
			break
		}
	}
	return out
}

// expandAll expands the macros in tokens, which are a whole of their own.
func (pp *preprocessor) expandAll(tokens []token) []token {
	if len(tokens) == 0 || pp.expanded > maxExpansions {
		return tokens
	}
	sub := &preprocessor{state: pp.state, depth: pp.depth, lenient: pp.lenient}
	sub.lex = lexer{file: pp.lex.file, report: pp.report}
	sub.push(tokens)
	var out []token
	for {
		t := sub.next()
		if t.kind == tEOF {
			return out
		}
		out = append(out, t)
		if len(out) > maxExpansions {
			return out
		}
	}
}

// paste joins the last token of left and the first of right.
func (pp *preprocessor) paste(left, right []token) []token {
	if len(right) == 0 {
		return left
	}
	last := left[len(left)-1]
	sub := lexer{file: last.loc.File, text: last.text + right[0].text}
	joined := sub.next()
	if sub.pos != len(sub.text) || len(sub.text) == 0 {
		return append(left, right...)
	}
	joined.loc, joined.gap, joined.nl, joined.hide = last.loc, last.gap, last.nl, last.hide
	out := append(slices.Clone(left[:len(left)-1]), joined)
	return append(out, right[1:]...)
}

// spell writes tokens as text.
func spell(tokens []token) string {
	var b strings.Builder
	for i, t := range tokens {
		if i > 0 && (t.gap || t.nl) {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// directive obeys the directive that the # in hash starts.
func (pp *preprocessor) directive(hash token) {
	start, end := hash.loc.Start, pp.lineEnd(pp.lex.pos)
	line := pp.lex
	line.text, line.comment = line.text[:end], nil
	line.bol = false
	pp.lex.pos = end
	if pp.keep {
		for end > start && (isBlank(pp.lex.text[end-1]) || pp.lex.text[end-1] == '\n') {
			end--
		}
		hash.kind, hash.loc = tDirective, pp.lex.span(start, end)
		hash.text = pp.lex.text[start:end]
		pp.trace = append(pp.trace, hash)
		pp.lex.pos = end
		return
	}
	name := line.next()
	loc := hash.loc.To(name.loc)
	switch {
	case name.kind == tEOF: // # alone does nothing
	case name.kind != tIdent:
		pp.unknown(loc, name)
	default:
		pp.named(loc, name, &line)
	}
}

func (pp *preprocessor) named(loc source.Span, name token, line *lexer) {
	switch name.text {
	case "define":
		pp.define(loc, line)
	case "undef":
		t := line.next()
		if t.kind != tIdent {
			pp.errorf(loc, "bad-directive", "#undef must be followed by the name of a macro")
			return
		}
		delete(pp.macros, t.text)
		pp.atEnd(line, "#undef")
	case "include", "include_next", "import":
		pp.include(loc, line)
	case "ifdef", "ifndef":
		t := line.next()
		taken := false
		if t.kind != tIdent {
			pp.errorf(loc, "bad-directive", "#%s must be followed by the name of a macro", name.text)
		} else {
			taken = (pp.macros[t.text] != nil) == (name.text == "ifdef")
			pp.atEnd(line, "#"+name.text)
		}
		pp.open(loc, taken)
	case "if":
		pp.open(loc, pp.condition(loc, line))
	case "elif", "elifdef", "elifndef", "else":
		// Only seen at the end of a branch that was taken.
		if pp.checkElse(loc, name.text) {
			top := &pp.ifs[len(pp.ifs)-1]
			top.els = name.text == "else"
			pp.skipBranches()
		}
	case "endif":
		if len(pp.ifs) == 0 {
			pp.errorf(loc, "stray-endif", "this #endif closes no #if")
			return
		}
		pp.ifs = pp.ifs[:len(pp.ifs)-1]
		pp.atEnd(line, "#endif")
	case "error", "warning":
		text := strings.TrimSpace(line.text[line.pos:])
		d := source.Errorf(loc, "error-directive", "#%s: %s", name.text, text)
		if name.text == "warning" || pp.lenient {
			d.Severity = source.Warning
		}
		pp.add(d)
	case "pragma":
		if t := line.next(); t.is("once") {
			pp.onceOnly[pp.lex.file.Name] = true
		}
	case "line", "ident":
	default:
		pp.unknown(loc, name)
	}
}

// directives are the names that a misspelt one may have meant.
var directives = []string{
	"define", "elif", "else", "endif", "error", "if", "ifdef", "ifndef", "include", "pragma", "undef", "warning",
}

func (pp *preprocessor) unknown(loc source.Span, name token) {
	d := pp.errorf(loc, "unknown-directive", "unknown preprocessor directive #%s", name.text)
	if near := source.Nearest(name.text, slices.Values(directives)); near != "" {
		d.Suggest("#" + near)
	} else {
		d.Notef("comments start with //, not with #")
	}
}

// atEnd warns of text after the end of a directive.
func (pp *preprocessor) atEnd(line *lexer, what string) {
	if t := line.next(); t.kind != tEOF {
		d := pp.errorf(t.loc, "extra-text", "text after %s is ignored", what)
		d.Severity = source.Warning
	}
}

// lineEnd returns the end of the directive's line from pos: that of the last
// line it is continued on, without the line end.
func (pp *preprocessor) lineEnd(pos int) int {
	text := pp.lex.text
	for i := pos; i < len(text); i++ {
		switch text[i] {
		case '\n':
			if i > pos && text[i-1] == '\\' || i > pos+1 && text[i-1] == '\r' && text[i-2] == '\\' {
				continue
			}
			return i
		case '"':
			if j := strings.IndexAny(text[i+1:], "\"\n"); j >= 0 && text[i+1+j] == '"' && !escaped(text[i+1:i+1+j]) {
				i += 1 + j
			}
		case '/':
			switch {
			case i+1 < len(text) && text[i+1] == '/':
				if j := strings.IndexByte(text[i:], '\n'); j >= 0 {
					return i + j
				}
				return len(text)
			case i+1 < len(text) && text[i+1] == '*':
				j := strings.Index(text[i+2:], "*/")
				if j < 0 {
					return len(text)
				}
				i += 2 + j + 1
			}
		}
	}
	return len(text)
}

func (pp *preprocessor) define(loc source.Span, line *lexer) {
	name := line.next()
	if name.kind != tIdent {
		pp.errorf(loc, "bad-directive", "#define must be followed by a name")
		return
	}
	d := &Define{Name: name.text, NameLoc: name.loc}
	d.Loc = line.span(loc.Start, len(line.text))
	if line.at(line.pos) == '(' {
		line.next()
		d.Function = true
		if !pp.parameters(d, line) {
			return
		}
	}
	bodyStart := -1
	bodyEnd := 0
	for {
		t := line.next()
		if t.kind == tEOF {
			break
		}
		if bodyStart < 0 {
			bodyStart = t.loc.Start
		}
		bodyEnd = t.loc.End
		d.body = append(d.body, t)
	}
	if bodyStart >= 0 {
		d.Body = line.text[bodyStart:bodyEnd]
	}
	if old := pp.macros[d.Name]; old != nil && spell(old.body) != spell(d.body) {
		w := pp.errorf(name.loc, "macro-redefined", "macro %s is defined again, otherwise than before", d.Name)
		w.Severity = source.Warning
		if old.NameLoc.IsValid() {
			w.NoteAt(old.NameLoc, "it was defined here")
		}
	}
	pp.macros[d.Name] = d
	pp.program.Defines = append(pp.program.Defines, d)
}

func (pp *preprocessor) parameters(d *Define, line *lexer) bool {
	for {
		t := line.next()
		switch {
		case t.kind == tRparen && len(d.Params) == 0:
			return true
		case t.kind == tIdent:
			if slices.Contains(d.Params, t.text) {
				pp.errorf(t.loc, "duplicate-parameter", "macro %s has two parameters %s", d.Name, t.text)
				return false
			}
			d.Params = append(d.Params, t.text)
			t = line.next()
			if t.kind == tEllipsis {
				d.Variadic = true
				t = line.next()
			}
		case t.kind == tEllipsis:
			d.Params = append(d.Params, "__VA_ARGS__")
			d.Variadic = true
			t = line.next()
		default:
			pp.errorf(t.loc, "bad-directive", "expected a parameter's name of macro %s, not %s", d.Name, t.describe())
			return false
		}
		switch {
		case t.kind == tRparen:
			return true
		case t.kind != tComma || d.Variadic:
			pp.errorf(t.loc, "bad-directive", "expected \")\" after the parameters of macro %s, not %s", d.Name, t.describe())
			return false
		}
	}
}

// open starts a conditional. When its branch is not taken, the text up to the
// next branch that is, or to the #endif, is passed over.
func (pp *preprocessor) open(loc source.Span, taken bool) {
	if len(pp.ifs) >= maxIfs {
		pp.errorf(loc, "if-too-deep", "conditionals are nested more than %d deep here", maxIfs)
		pp.full = true
		return
	}
	pp.ifs = append(pp.ifs, ifState{loc: loc, taken: taken})
	if !taken {
		pp.skipBranches()
	}
}

func (pp *preprocessor) checkElse(loc source.Span, name string) bool {
	if len(pp.ifs) == 0 {
		pp.errorf(loc, "stray-else", "this #%s belongs to no #if", name)
		return false
	}
	if top := pp.ifs[len(pp.ifs)-1]; top.els {
		pp.errorf(loc, "stray-else", "this #%s comes after the #else", name).
			NoteAt(top.loc, "the conditional starts here")
		return false
	}
	return true
}

// skipBranches passes over text up to the next branch of the innermost
// conditional that is taken, or past its #endif.
func (pp *preprocessor) skipBranches() {
	depth := 0 // of conditionals in the text passed over
	for {
		// Strings and characters mean nothing in text that is not read, but
		// comments do.
		pp.lex.bol = true
		quiet := pp.lex.report
		pp.lex.report = nil
		pp.lex.skip()
		pp.lex.report = quiet
		if pp.lex.pos >= len(pp.lex.text) {
			return // reported with the conditional at the end of the file
		}
		end := pp.lineEnd(pp.lex.pos)
		if pp.lex.at(pp.lex.pos) != '#' || !pp.lex.bol {
			pp.lex.pos = end
			continue
		}
		start := pp.lex.pos
		line := pp.lex
		line.text, line.comment, line.report, line.pos, line.bol = line.text[:end], nil, nil, start+1, false
		name := line.next()
		pp.lex.pos = end
		if name.kind != tIdent {
			continue
		}
		loc := pp.lex.span(start, name.loc.End)
		switch name.text {
		case "if", "ifdef", "ifndef":
			depth++
		case "endif":
			if depth == 0 {
				pp.ifs = pp.ifs[:len(pp.ifs)-1]
				return
			}
			depth--
		case "elif", "elifdef", "elifndef", "else":
			if depth > 0 || !pp.checkElse(loc, name.text) {
				continue
			}
			top := &pp.ifs[len(pp.ifs)-1]
			top.els = name.text == "else"
			if top.taken {
				continue
			}
			switch name.text {
			case "else":
				top.taken = true
			case "elif":
				line.report = pp.report
				top.taken = pp.condition(loc, &line)
			default:
				top.taken = (pp.macros[line.next().text] != nil) == (name.text == "elifdef")
			}
			if top.taken {
				return
			}
		}
	}
}

func (pp *preprocessor) include(loc source.Span, line *lexer) {
	line.skip()
	start := line.pos
	text := line.text[start:]
	closer := byte('>')
	switch {
	case strings.HasPrefix(text, `"`):
		closer = '"'
	case strings.HasPrefix(text, "<"):
	default:
		pp.errorf(loc, "bad-include", "#include must be followed by <file> or \"file\"")
		return
	}
	n := strings.IndexByte(text[1:], closer)
	if n <= 0 {
		pp.errorf(line.span(start, len(strings.TrimRight(line.text, " \t\r"))), "bad-include", "this file name has no end; expected %q", closer)
		return
	}
	inc := &Include{
		Path: text[1 : 1+n], Angled: closer == '>',
		PathLoc: line.span(start, start+n+2), Loc: line.span(loc.Start, start+n+2),
	}
	line.pos = start + n + 2
	pp.atEnd(line, "#include")
	if !pp.obey(inc, pp.lex.file) {
		return
	}
	if pp.depth == 0 {
		pp.program.Includes = append(pp.program.Includes, inc)
	}
}

// obey reads the file that inc names, as C. from is the file with the line.
func (pp *preprocessor) obey(inc *Include, from *source.File) bool {
	if pp.opts.Includer == nil {
		inc.ByTarget = true
		return true
	}
	pp.included++
	if pp.depth >= maxIncludes || pp.included > maxIncluded {
		pp.errorf(inc.PathLoc, "include-too-deep", "%q includes too many files", inc.Path).
			Notef("does a file include itself?")
		return false
	}
	f, err := pp.opts.Includer.Include(inc.Path, inc.Angled, from)
	switch {
	case err != nil:
		pp.errorf(inc.PathLoc, "include-not-found", "cannot include %s: %v", inc.Path, err)
		return false
	case f == nil:
		inc.ByTarget = true
		return true
	}
	inc.File = f
	if pp.onceOnly[f.Name] {
		return true
	}
	p := newParser(pp.state, f)
	p.pp.depth = pp.depth + 1
	p.pp.lenient = pp.lenient || inc.Angled
	p.header()
	return true
}
