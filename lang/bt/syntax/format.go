package syntax

import (
	"cmp"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// Format sets a script in the one style that all scripts can share, and
// returns it with the errors and warnings of reading it. After an error the
// text is returned as it was.
//
// The style: tabs indent; an opening brace ends its line; one statement, one
// attach point a line; a block, struct or config of one statement stays on
// one line if it was on one. Line breaks that the author made inside a
// statement stay and are indented by one tab. Of blank lines one stays; one
// follows each declaration of several lines. Comments stay where they are.
// Words are never added, dropped or changed, nor are preprocessor lines.
func Format(file *source.File) (string, source.List) {
	items, diags := formatItems(file)
	if diags.HasErrors() {
		return file.Text, diags
	}
	f := formatter{items: items, file: file}
	f.match()
	for i := range f.items {
		f.item(i)
	}
	if f.out.Len() > 0 {
		f.out.WriteByte('\n')
	}
	text := f.out.String()
	if again, _ := formatItems(source.NewFile(file.Name, text)); !sameItems(items, again) {
		at := source.Span{File: file}
		diags.Add(source.Errorf(at, "format-unsafe", "this script cannot be formatted without changing what it says; it is left as it is"))
		return file.Text, diags
	}
	return text, diags
}

// A formatItem is a token, a comment or a directive.
type formatItem struct {
	token
	comment bool
	stmt    bool // first of a statement, member or declaration
	role    role
	close   int  // of an opening brace: the item that closes it
	wide    bool // of a brace: what is in it stands on lines of its own
}

// formatItems reads the words of a script, without obeying directives.
func formatItems(file *source.File) ([]formatItem, source.List) {
	s := newState(Options{}, file)
	p := newParser(s, file)
	p.roles = map[int]role{}
	p.pp.keep = true
	var items []formatItem
	p.pp.lex.comment = func(at source.Span) {
		items = append(items, formatItem{token: token{loc: at, text: at.Text()}, comment: true})
	}
	p.program()
	for _, t := range p.pp.trace {
		if t.kind != tEOF {
			r := p.roles[t.loc.Start]
			items = append(items, formatItem{token: t, stmt: r&roleStmt != 0, role: r &^ roleStmt})
		}
	}
	slices.SortStableFunc(items, func(a, b formatItem) int { return cmp.Compare(a.loc.Start, b.loc.Start) })
	return items, s.sorted()
}

func sameItems(a, b []formatItem) bool {
	return slices.EqualFunc(a, b, func(a, b formatItem) bool {
		return a.comment == b.comment && a.kind == b.kind && unixLines(a.text) == unixLines(b.text) && a.stmt == b.stmt && a.role == b.role
	})
}

// unixLines takes blanks off the ends of the lines of s.
func unixLines(s string) string {
	if !strings.ContainsAny(s, "\n") {
		return strings.TrimRight(s, " \t\r\f\v")
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " \t\r\f\v")
	}
	return strings.Join(lines, "\n")
}

type formatter struct {
	file   *source.File
	items  []formatItem
	out    strings.Builder
	braces []formatBrace
	indent int // of the line being written
}

type formatBrace struct {
	open   int // item
	indent int // of the line it stands on
}

// match pairs braces and decides which are wide.
func (f *formatter) match() {
	type level struct{ open, stmts int }
	stack := []level{{open: -1}}
	for i := range f.items {
		it := &f.items[i]
		top := &stack[len(stack)-1]
		if it.stmt {
			top.stmts++
		}
		switch it.kind {
		case tLbrace:
			stack = append(stack, level{open: i})
		case tRbrace:
			if len(stack) == 1 {
				continue
			}
			stack = stack[:len(stack)-1]
			open := &f.items[top.open]
			open.close = i
			inside := f.file.Text[open.loc.End:it.loc.Start]
			many := top.stmts > 1 && open.role != roleEnum
			open.wide = open.wide || many || strings.Contains(inside, "\n") && strings.TrimSpace(inside) != ""
			if outer := stack[len(stack)-1].open; open.wide && outer >= 0 {
				f.items[outer].wide = true
			}
		}
	}
}

// lines counts the line ends of the text between item i and the one before.
func (f *formatter) lines(i int) int {
	return strings.Count(f.file.Text[f.items[i-1].loc.End:f.items[i].loc.Start], "\n")
}

// wide reports whether what is directly in the current brace stands on lines
// of its own.
func (f *formatter) wide() bool {
	n := len(f.braces)
	return n == 0 || f.items[f.braces[n-1].open].wide
}

// inner is the indentation of lines in the current brace.
func (f *formatter) inner() int {
	if n := len(f.braces); n > 0 {
		return f.braces[n-1].indent + 1
	}
	return 0
}

func (f *formatter) item(i int) {
	it := &f.items[i]
	closes := it.kind == tRbrace && len(f.braces) > 0
	wide := f.wide()
	indent := f.inner()
	if closes {
		indent = f.braces[len(f.braces)-1].indent
		f.braces = f.braces[:len(f.braces)-1]
	}
	switch {
	case i == 0:
	case f.breaks(i, closes && wide, wide):
		f.out.WriteByte('\n')
		if f.blank(i, closes) {
			f.out.WriteByte('\n')
		}
		if !closes && f.continues(i) {
			indent++
		}
		if it.kind == tDirective {
			indent = 0
		}
		f.indent = indent
		for range indent {
			f.out.WriteByte('\t')
		}
	case f.space(i):
		f.out.WriteByte(' ')
	}
	f.out.WriteString(unixLines(it.text))
	if it.kind == tLbrace {
		f.braces = append(f.braces, formatBrace{open: i, indent: f.indent})
	}
}

// breaks reports whether a line ends before item i.
func (f *formatter) breaks(i int, closesWide, wide bool) bool {
	it, prev := &f.items[i], &f.items[i-1]
	switch {
	case prev.kind == tDirective || prev.comment && strings.HasPrefix(prev.text, "//") || prev.comment && strings.HasPrefix(prev.text, "#!"):
		return true
	case it.kind == tDirective:
		return true
	case it.comment:
		return f.lines(i) > 0
	case closesWide:
		return true
	case prev.kind == tLbrace && prev.wide:
		return true
	case it.role == rolePostfix:
		return false
	case it.stmt || it.role == rolePoint:
		return wide
	case prev.comment && f.lines(i) > 0:
		return true
	case it.role == rolePred:
		return f.points(i) > 1
	case it.role == roleBlock, it.role == roleList, it.role == roleEnum:
		return false
	case it.is("else") && prev.kind == tRbrace:
		return false
	case it.kind == tRbrace:
		return false
	case prev.kind == tLbrace:
		return false
	case it.kind == tComma || it.kind == tSemi || prev.role == rolePrefix || prev.role == roleCast ||
		it.role == rolePredEnd || prev.role == rolePred || it.kind == tAttach || prev.kind == tAttach:
		return false
	}
	return f.lines(i) > 0
}

// points counts the attach points before item i, up to the last block.
func (f *formatter) points(i int) int {
	n := 0
	for i--; i >= 0 && f.items[i].kind != tRbrace; i-- {
		if f.items[i].kind == tAttach {
			n++
		}
	}
	return n
}

// blank reports whether an empty line stands before item i, which starts one.
func (f *formatter) blank(i int, closes bool) bool {
	it, prev := &f.items[i], &f.items[i-1]
	if closes || prev.kind == tLbrace && prev.wide {
		return false
	}
	if len(f.braces) == 0 && it.stmt && f.endsWide(i-1) {
		return true
	}
	if len(f.braces) == 0 && (it.comment || it.kind == tDirective) && f.endsWide(i-1) && !f.endif(i) {
		return true
	}
	return f.lines(i) > 1
}

// endif reports whether item i is a directive that ends or divides a
// conditional, which stays with what comes before it.
func (f *formatter) endif(i int) bool {
	it := &f.items[i]
	if it.kind != tDirective {
		return false
	}
	name := strings.TrimLeft(it.text[1:], " \t")
	return strings.HasPrefix(name, "e") && !strings.HasPrefix(name, "error")
}

// endsWide reports whether item i ends a declaration of several lines.
func (f *formatter) endsWide(i int) bool {
	if i > 0 && f.items[i].kind == tSemi {
		i--
	}
	if f.items[i].kind != tRbrace {
		return false
	}
	for j := i - 1; j >= 0; j-- {
		if f.items[j].kind == tLbrace && f.items[j].close == i {
			return f.items[j].wide
		}
	}
	return false
}

// continues reports whether item i, first on its line, is in the middle of a
// statement.
func (f *formatter) continues(i int) bool {
	// A comment goes with what follows it.
	for i < len(f.items) && (f.items[i].comment || f.items[i].kind == tDirective) {
		i++
	}
	if i == len(f.items) {
		return false
	}
	it := &f.items[i]
	switch it.role {
	case rolePoint, rolePred, roleBlock, roleList, roleEnum:
		return false
	}
	return !it.stmt && it.kind != tRbrace && !it.is("else") && it.kind != tAttach
}

// space reports whether a blank stands between item i and the one before it
// on the same line.
func (f *formatter) space(i int) bool {
	it, prev := &f.items[i], &f.items[i-1]
	switch {
	case it.comment || prev.comment:
		return true
	case it.role == rolePostfix:
		return false
	}
	switch it.kind {
	case tComma, tSemi, tRparen, tRbrack:
		return false
	case tDot, tArrow, tDotDot:
		return false
	case tRbrace:
		return prev.kind != tLbrace
	case tAssign:
		return i+1 == len(f.items) || f.items[i+1].kind != tAttach
	case tAttach:
		return prev.kind != tAssign
	case tColon:
		return prev.kind != tQuest
	}
	if it.role == rolePredEnd {
		return false
	}
	switch prev.kind {
	case tLparen, tLbrack, tDot, tArrow, tDotDot:
		return false
	}
	switch {
	case prev.role == rolePred:
		return it.kind == tMul || it.kind == tDiv || it.kind == tMulAssign
	case prev.role == rolePrefix:
		// - -x and & &x must not become one operator.
		return it.role == rolePrefix && strings.ContainsAny(prev.text[len(prev.text)-1:], "+-&") && it.text[0] == prev.text[len(prev.text)-1]
	case prev.role == roleCast:
		return false
	case prev.role == rolePointer:
		return it.kind == tAssign || it.kind == tColon || it.kind == tLbrace
	}
	switch it.kind {
	case tLparen:
		switch prev.kind {
		case tIdent:
			return isCWord(prev.text) || spacedWord(prev.text)
		case tRparen:
			return false
		}
	case tLbrack:
		switch prev.kind {
		case tIdent, tVar, tMap, tRparen, tRbrack, tString, tInt, tParam, tMul:
			return false
		}
	}
	return true
}

// spacedWord reports whether a blank stands between the word s and a
// parenthesis.
func spacedWord(s string) bool {
	switch s {
	case "if", "while", "for", "return", "else", "comptime":
		return true
	}
	return false
}
