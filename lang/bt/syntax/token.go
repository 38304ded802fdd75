package syntax

import (
	"fmt"

	"github.com/skep-bpf/skep/source"
)

// kind is what a token is.
type kind uint8

const (
	tEOF        kind = iota
	tIllegal         // reported by the lexer
	tIdent           // name or keyword
	tVar             // $name
	tMap             // @name, @
	tInt             // anything that starts with a digit
	tString          // "..."
	tChar            // 'c'
	tParam           // $1
	tParamCount      // $#
	tHash            // # that starts a directive
	tDirective       // a whole directive, only for the formatter
	tAttach          // an attach point, only for the formatter

	tLbrace
	tRbrace
	tLparen
	tRparen
	tLbrack
	tRbrack
	tComma
	tSemi
	tColon
	tQuest
	tDot
	tDotDot
	tEllipsis
	tArrow
	tInc
	tDec
	tNot
	tTilde
	tHashHash
	tAssign

	// Binary operators and their assignments.
	tMul
	tDiv
	tMod
	tAdd
	tSub
	tShl
	tShr
	tAnd
	tXor
	tOr
	tMulAssign
	tDivAssign
	tModAssign
	tAddAssign
	tSubAssign
	tShlAssign
	tShrAssign
	tAndAssign
	tXorAssign
	tOrAssign
	tLt
	tGt
	tLe
	tGe
	tEq
	tNe
	tLogAnd
	tLogOr
)

// binaryOps gives the operator of tokens that are binary operators.
var binaryOps = [...]Op{
	tMul: OpMul, tDiv: OpDiv, tMod: OpMod, tAdd: OpAdd, tSub: OpSub, tShl: OpShl, tShr: OpShr,
	tLt: OpLt, tGt: OpGt, tLe: OpLe, tGe: OpGe, tEq: OpEq, tNe: OpNe, tAnd: OpAnd, tXor: OpXor,
	tOr: OpOr, tLogAnd: OpLogAnd, tLogOr: OpLogOr,
}

// assignOps gives the operator of tokens that are compound assignments.
var assignOps = [...]Op{
	tMulAssign: OpMul, tDivAssign: OpDiv, tModAssign: OpMod, tAddAssign: OpAdd, tSubAssign: OpSub,
	tShlAssign: OpShl, tShrAssign: OpShr, tAndAssign: OpAnd, tXorAssign: OpXor, tOrAssign: OpOr,
}

func (k kind) binary() Op {
	if int(k) < len(binaryOps) {
		return binaryOps[k]
	}
	return OpNone
}

func (k kind) compound() Op {
	if int(k) < len(assignOps) {
		return assignOps[k]
	}
	return OpNone
}

// A token is one word of the text. Those that come out of a macro have the
// span of its use, but their own text.
type token struct {
	kind kind
	nl   bool // first of its line
	gap  bool // blanks or a comment stand before it
	open bool // a literal that is not closed, which was reported
	loc  source.Span
	text string
	use  *Use  // of the outermost macro it came from
	hide *hide // macros it must not be expanded by
}

// A hide is a set of macros, as a list.
type hide struct {
	def   *Define
	rest  *hide
	depth int
}

func (h *hide) has(d *Define) bool {
	for ; h != nil; h = h.rest {
		if h.def == d {
			return true
		}
	}
	return false
}

func (h *hide) with(d *Define) *hide {
	n := &hide{def: d, rest: h, depth: 1}
	if h != nil {
		n.depth = h.depth + 1
	}
	return n
}

// is reports whether t is the keyword or name s.
func (t *token) is(s string) bool { return t.kind == tIdent && t.text == s }

// describe names t for a message.
func (t *token) describe() string {
	switch t.kind {
	case tEOF:
		return "the end of the file"
	case tIdent:
		if isKeyword(t.text) {
			return fmt.Sprintf("keyword %q", t.text)
		}
		return fmt.Sprintf("%q", t.text)
	case tString:
		return "a string"
	case tInt:
		return "number " + t.text
	}
	if len(t.text) == 1 && t.text != `"` {
		return `"` + t.text + `"`
	}
	return fmt.Sprintf("%q", t.text)
}

// isKeyword reports whether s is a word that statements, declarations or
// expressions start with, and that no name may be.
func isKeyword(s string) bool {
	switch s {
	case "break", "config", "continue", "else", "fn", "for", "if", "import", "let", "macro",
		"offsetof", "return", "sizeof", "unroll", "while":
		return true
	}
	return false
}
