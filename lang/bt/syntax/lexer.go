package syntax

import (
	"strings"
	"unicode/utf8"

	"github.com/skep-bpf/skep/source"
)

// A lexer cuts one file into tokens. It knows no macro and obeys no
// directive; see [preprocessor].
type lexer struct {
	file *source.File
	text string // of file, perhaps cut short at the end of a directive
	pos  int
	bol  bool // nothing but blanks and comments since the start of the line
	seen bool // a token was returned
	open bool // the literal just read is not closed
	cut  bool // a comment that is not closed hides the rest of the text

	report  func(*source.Diagnostic) // nil drops
	comment func(source.Span)        // nil drops
}

func newLexer(f *source.File) lexer {
	l := lexer{file: f, text: f.Text, bol: true}
	if strings.HasPrefix(l.text, "\ufeff") {
		l.pos = len("\ufeff")
	}
	return l
}

func (l *lexer) span(start, end int) source.Span {
	return source.Span{File: l.file, Start: start, End: end}
}

func (l *lexer) errorf(start, end int, code, format string, args ...any) *source.Diagnostic {
	d := source.Errorf(l.span(start, end), code, format, args...)
	if l.report != nil {
		l.report(d)
	}
	return d
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v' }

func isIdentStart(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isIdentByte(c byte) bool { return isIdentStart(c) || isDigit(c) }

func (l *lexer) at(i int) byte {
	if i < len(l.text) {
		return l.text[i]
	}
	return 0
}

// skip passes over blanks, comments and the #! line, and reports whether
// there were any.
func (l *lexer) skip() bool {
	start := l.pos
	for l.pos < len(l.text) {
		c := l.text[l.pos]
		switch {
		case c == '\n':
			l.bol = true
			l.pos++
		case isBlank(c):
			l.pos++
		case c == '\\' && (l.at(l.pos+1) == '\n' || l.at(l.pos+1) == '\r' && l.at(l.pos+2) == '\n'):
			l.pos += 2
			if l.text[l.pos-1] == '\r' {
				l.pos++
			}
		case c == '/' && l.at(l.pos+1) == '/', c == '#' && l.at(l.pos+1) == '!' && l.bol && !l.seen:
			l.lineComment()
		case c == '/' && l.at(l.pos+1) == '*':
			l.blockComment()
		default:
			return l.pos > start
		}
	}
	return l.pos > start
}

func (l *lexer) lineComment() {
	start := l.pos
	if i := strings.IndexByte(l.text[l.pos:], '\n'); i >= 0 {
		l.pos += i
	} else {
		l.pos = len(l.text)
	}
	if l.comment != nil {
		end := l.pos
		for end > start && isBlank(l.text[end-1]) {
			end--
		}
		l.comment(l.span(start, end))
	}
}

func (l *lexer) blockComment() {
	start := l.pos
	if i := strings.Index(l.text[start+2:], "*/"); i >= 0 {
		l.pos = start + 2 + i + 2
	} else {
		l.errorf(start, start+2, "unterminated-comment", "this comment is never closed").
			Notef("close it with */")
		l.pos, l.cut = len(l.text), true
	}
	if l.comment != nil {
		l.comment(l.span(start, l.pos))
	}
}

// next returns the next token, tHash for a # that starts a line.
func (l *lexer) next() token {
	gap := l.skip()
	start := l.pos
	t := token{nl: l.bol, gap: gap}
	if start >= len(l.text) {
		t.loc = l.span(start, start)
		return t
	}
	t.kind = l.scan()
	t.loc = l.span(start, l.pos)
	t.text = l.text[start:l.pos]
	t.open, l.open = l.open, false
	l.bol, l.seen = false, true
	return t
}

// scan moves over one token, which starts here, and returns its kind.
func (l *lexer) scan() kind {
	c := l.text[l.pos]
	switch {
	case isIdentStart(c):
		l.pos = l.identEnd(l.pos + 1)
		return tIdent
	case isDigit(c):
		l.pos = l.identEnd(l.pos + 1)
		return tInt
	}
	switch c {
	case '$':
		switch n := l.at(l.pos + 1); {
		case n == '#':
			l.pos += 2
			return tParamCount
		case isDigit(n):
			for l.pos++; isDigit(l.at(l.pos)); l.pos++ {
			}
			return tParam
		case isIdentStart(n):
			l.pos = l.identEnd(l.pos + 2)
			return tVar
		}
		l.pos++
		l.errorf(l.pos-1, l.pos, "bad-variable", "a $ must be followed by a variable's name, a parameter's number, or #")
		return tIllegal
	case '@':
		l.pos++
		if isIdentStart(l.at(l.pos)) {
			l.pos = l.identEnd(l.pos + 1)
		}
		return tMap
	case '"':
		return l.quoted('"', tString, "string")
	case '\'':
		return l.quoted('\'', tChar, "character")
	}
	if k, n := l.punctuation(c); n > 0 {
		l.pos += n
		return k
	}
	l.illegal()
	return tIllegal
}

func (l *lexer) identEnd(i int) int {
	for i < len(l.text) && isIdentByte(l.text[i]) {
		i++
	}
	return i
}

// quoted moves over a literal. One that is not closed ends with its line.
func (l *lexer) quoted(quote byte, k kind, what string) kind {
	start := l.pos
	for i := start + 1; i < len(l.text); i++ {
		switch l.text[i] {
		case quote:
			l.pos = i + 1
			return k
		case '\\':
			if n := l.at(i + 1); n != '\n' && n != '\r' {
				i++
			}
		case '\n':
			l.pos = i
			l.unterminated(start, what)
			return k
		}
	}
	l.pos = len(l.text)
	l.unterminated(start, what)
	return k
}

func (l *lexer) unterminated(start int, what string) {
	l.open = true
	l.errorf(start, start+1, "unterminated-"+what, "this %s is never closed", what).
		Notef(`a %s ends on the line it starts on; write \n for a line end`, what)
}

// punctuation returns the kind and length of the operator that starts with c,
// or a length of 0 when there is none.
func (l *lexer) punctuation(c byte) (kind, int) {
	n := l.at(l.pos + 1)
	// choose decides between the operator alone, with =, and doubled.
	choose := func(one, assign kind) (kind, int) {
		if n == '=' {
			return assign, 2
		}
		return one, 1
	}
	switch c {
	case '{':
		return tLbrace, 1
	case '}':
		return tRbrace, 1
	case '(':
		return tLparen, 1
	case ')':
		return tRparen, 1
	case '[':
		return tLbrack, 1
	case ']':
		return tRbrack, 1
	case ',':
		return tComma, 1
	case ';':
		return tSemi, 1
	case ':':
		return tColon, 1
	case '?':
		return tQuest, 1
	case '~':
		return tTilde, 1
	case '#':
		if l.bol {
			return tHash, 1
		}
		if n == '#' {
			return tHashHash, 2
		}
		return tHash, 1
	case '.':
		switch {
		case n == '.' && l.at(l.pos+2) == '.':
			return tEllipsis, 3
		case n == '.':
			return tDotDot, 2
		}
		return tDot, 1
	case '+':
		if n == '+' {
			return tInc, 2
		}
		return choose(tAdd, tAddAssign)
	case '-':
		switch n {
		case '-':
			return tDec, 2
		case '>':
			return tArrow, 2
		}
		return choose(tSub, tSubAssign)
	case '*':
		return choose(tMul, tMulAssign)
	case '/':
		return choose(tDiv, tDivAssign)
	case '%':
		return choose(tMod, tModAssign)
	case '^':
		return choose(tXor, tXorAssign)
	case '!':
		return choose(tNot, tNe)
	case '=':
		return choose(tAssign, tEq)
	case '&':
		if n == '&' {
			return tLogAnd, 2
		}
		return choose(tAnd, tAndAssign)
	case '|':
		if n == '|' {
			return tLogOr, 2
		}
		return choose(tOr, tOrAssign)
	case '<':
		if n == '<' {
			if l.at(l.pos+2) == '=' {
				return tShlAssign, 3
			}
			return tShl, 2
		}
		return choose(tLt, tLe)
	case '>':
		if n == '>' {
			if l.at(l.pos+2) == '=' {
				return tShrAssign, 3
			}
			return tShr, 2
		}
		return choose(tGt, tGe)
	}
	return tIllegal, 0
}

// illegal moves over characters that start no token and reports them once.
func (l *lexer) illegal() {
	start := l.pos
	r, n := utf8.DecodeRuneInString(l.text[start:])
	l.pos += n
	// A run of bytes above ASCII, or of control bytes, is one mistake.
	for l.pos < len(l.text) {
		if c := l.text[l.pos]; c < utf8.RuneSelf && (c > ' ' || c == '\n' || isBlank(c)) {
			break
		}
		l.pos++
	}
	d := l.errorf(start, l.pos, "bad-character", "unexpected character %q", l.text[start:l.pos])
	switch r {
	case '“', '”', '„', '‟':
		d.Span.End = start + n
		d.Message = "a typographic quotation mark starts no string"
		d.Suggest(`"`)
	case '‘', '’':
		d.Span.End = start + n
		d.Suggest("'")
	case '–', '—', '−':
		d.Span.End = start + n
		d.Suggest("-")
	case '\u00a0':
		d.Message = "unexpected no-break space"
		d.Notef("write an ordinary blank")
	}
}
