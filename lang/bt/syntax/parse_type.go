package syntax

import "strings"

// isTypeName reports whether s names a type wherever it stands: the
// language's own, C's, those that the script has defined, and names in the
// forms that C reserves for types, such as u32 and pid_t.
func (p *parser) isTypeName(s string) bool {
	switch s {
	case "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
		"string", "buffer", "inet", "void", "ksym", "usym", "kstack_t", "ustack_t", "timestamp", "macaddr", "username",
		"u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64",
		"__u8", "__u16", "__u32", "__u64", "__s8", "__s16", "__s32", "__s64",
		"__be16", "__be32", "__be64", "__le16", "__le32", "__le64":
		return true
	}
	return isCWord(s) || strings.HasSuffix(s, "_t") && len(s) > 2 || p.typedefs[s]
}

// isCWord reports whether s is a word that C's own types are made of.
func isCWord(s string) bool {
	switch s {
	case "char", "short", "int", "long", "unsigned", "signed", "float", "double", "_Bool", "__signed__", "__int128":
		return true
	}
	return false
}

func isQualifier(s string) bool {
	switch s {
	case "const", "volatile", "__const", "__volatile__", "restrict", "__restrict", "__restrict__":
		return true
	}
	return false
}

// startsType reports whether the word s can only start a type.
func startsType(s string) bool {
	switch s {
	case "struct", "union", "enum", "typeof", "__typeof__":
		return true
	}
	return isCWord(s) || isQualifier(s)
}

// typeEnd looks ahead from the nth token, over what may be a type, and
// returns the number of the token behind it, 0 when it is none; whether it
// can be nothing but a type; and whether stars or brackets stand in it.
func (p *parser) typeEnd(n int) (end int, sure, stars, brackets bool) {
	t := *p.peek(n)
	if t.kind != tIdent {
		return 0, false, false, false
	}
	switch {
	case t.text == "typeof" || t.text == "__typeof__":
		if p.peek(n+1).kind != tLparen {
			return 0, false, false, false
		}
		sure = true
		if n = p.balanced(n+1, maxAheadTypeof); n == 0 {
			return 0, false, false, false
		}
	case t.text == "struct" || t.text == "union" || t.text == "enum":
		sure = true
		n += 2
	case startsType(t.text):
		sure = true
		for n++; p.peek(n).kind == tIdent; n++ {
			if w := p.peek(n).text; w == "struct" || w == "union" || w == "enum" {
				n++
			}
		}
	case isKeyword(t.text):
		return 0, false, false, false
	default:
		sure = p.isTypeName(t.text)
		n++
	}
	for {
		switch p.peek(n).kind {
		case tMul:
			stars = true
			n++
		case tLbrack:
			brackets = true
			if n = p.balanced(n, maxAhead); n == 0 {
				return 0, false, false, false
			}
		case tIdent:
			if !isQualifier(p.peek(n).text) {
				return n, sure, stars, brackets
			}
			n++
		default:
			return n, sure, stars, brackets
		}
	}
}

// maxAhead bounds how far brackets are followed to tell a type: one of an
// array, or all that stands in typeof.
const (
	maxAhead       = 64
	maxAheadTypeof = 1024
)

// balanced returns the number of the token behind the bracket that closes the
// nth, or 0 where that is further away than limit. Blocks may stand between
// them.
func (p *parser) balanced(n, limit int) int {
	depth, blocks := 0, 0
	for from := n; n < from+limit; n++ {
		switch p.peek(n).kind {
		case tEOF:
			return 0
		case tSemi:
			if blocks == 0 {
				return 0
			}
		case tLbrace:
			blocks++
		case tRbrace:
			if blocks--; blocks < 0 {
				return 0
			}
		case tLparen, tLbrack:
			depth++
		case tRparen, tRbrack:
			if depth--; depth == 0 {
				return n + 1
			}
		}
	}
	return 0
}

// castAhead reports whether the parenthesis here starts a cast.
func (p *parser) castAhead() bool {
	if p.peek(1).kind != tIdent {
		return false
	}
	end, sure, stars, brackets := p.typeEnd(1)
	if end == 0 || p.peek(end).kind != tRparen {
		return false
	}
	next := p.peek(end + 1)
	operand := startsOperand(next.kind)
	if next.kind == tIdent && next.nl {
		operand = false
	}
	switch {
	case stars:
		// (name *) is nothing else.
		return true
	case sure:
		switch next.kind {
		case tSub, tMul, tAnd, tAdd, tInc, tDec:
			return true
		}
		return operand
	case brackets:
		return operand && next.kind != tLparen
	}
	return operand
}

// typeAhead reports whether a type, not an expression, starts here, in a
// place that takes either.
func (p *parser) typeAhead() bool {
	t := p.tok()
	if t.kind != tIdent {
		return false
	}
	if startsType(t.text) {
		return true
	}
	end, sure, stars, _ := p.typeEnd(0)
	if end == 0 {
		return false
	}
	k := p.peek(end).kind
	return (sure || stars) && (k == tRparen || k == tComma)
}

// typeExpr reads a type as the language writes it.
func (p *parser) typeExpr() TypeExpr {
	if !p.enter() {
		p.leave()
		return &BadType{Loc: p.here()}
	}
	defer p.leave()
	start := p.tok().loc
	t := p.typeBase()
	for n := 0; !p.bad; n++ {
		if n > maxDepth {
			p.errorf(p.tok().loc, "too-deep", "this type has more than %d stars and brackets", maxDepth)
			break
		}
		switch tok := p.tok(); tok.kind {
		case tMul:
			p.mark(tok.loc, rolePointer)
			p.advance()
			ptr := &PointerType{Elem: t}
			p.qualifiers(&ptr.Const, &ptr.Volatile)
			ptr.Loc = start.To(p.last)
			t = ptr
		case tMulAssign:
			// `let $x : int8 *= 0`: a star, then an assignment.
			star := *tok
			star.loc.End = star.loc.Start + 1
			tok.kind, tok.text, tok.gap = tAssign, "=", false
			tok.loc.Start = star.loc.End
			p.last = star.loc
			t = &PointerType{Loc: start.To(star.loc), Elem: t}
		case tLbrack:
			a := &ArrayType{Elem: t}
			open := p.advance().loc
			if !p.at(tRbrack) {
				a.Len = p.expr()
			}
			p.closer(tRbrack, `"]"`, open)
			a.Loc = start.To(p.last)
			t = a
		default:
			return t
		}
	}
	return t
}

// qualifiers consumes const and volatile.
func (p *parser) qualifiers(isConst, isVolatile *bool) {
	for p.at(tIdent) && isQualifier(p.tok().text) {
		switch strings.Trim(p.advance().text, "_") {
		case "const":
			*isConst = true
		case "volatile":
			*isVolatile = true
		}
	}
}

func (p *parser) typeBase() TypeExpr {
	t := *p.tok()
	if t.kind == tLparen {
		return p.tupleType()
	}
	if t.kind != tIdent || isKeyword(t.text) {
		p.unexpected("a type")
		return &BadType{Loc: p.here()}
	}
	s := specifiers{p: p, start: t.loc}
	s.read(false)
	if s.typ == nil {
		p.unexpected("a type")
		return &BadType{Loc: t.loc}
	}
	return s.typ
}

// tupleType reads `(a, b)` or `(name : a, ...)`.
func (p *parser) tupleType() TypeExpr {
	open := p.advance().loc
	if p.at(tIdent) && p.peek(1).kind == tColon {
		r := &RecordType{}
		for !p.bad {
			f := &TypeField{Name: p.name("the name of a field")}
			if _, ok := p.expect(tColon, `":" and the field's type`); !ok {
				break
			}
			f.Type = p.typeExpr()
			f.Loc = f.Name.Loc.To(p.last)
			r.Fields = append(r.Fields, f)
			if !p.accept(tComma) || p.at(tRparen) {
				break
			}
		}
		p.closer(tRparen, `")"`, open)
		r.Loc = open.To(p.last)
		return r
	}
	t := &TupleType{}
	comma := false
	for !p.at(tRparen) && !p.bad {
		t.Elems = append(t.Elems, p.typeExpr())
		comma = p.accept(tComma)
		if !comma {
			break
		}
	}
	p.closer(tRparen, `")"`, open)
	t.Loc = open.To(p.last)
	if len(t.Elems) == 1 && !comma {
		return t.Elems[0]
	}
	return t
}
