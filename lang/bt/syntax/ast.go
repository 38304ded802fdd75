package syntax

import "github.com/skep-bpf/skep/source"

// A Node is any part of the tree. Nodes are pointers and have identity, so
// they can be keys of side tables.
type Node interface {
	// Span covers the node in the text, parentheses around it included.
	// A node that came out of a #define has the span of the macro's use.
	Span() source.Span
}

// A Decl stands at the top level of a script: [*Probe], [*Config], [*Import],
// [*Macro], [*MapDecl], [*Func], [*CDecl] or [*BadDecl].
type Decl interface {
	Node
	decl()
}

// A Stmt stands in a block: [*ExprStmt], [*Assign], [*Discard], [*Let],
// [*Block], [*If], [*For], [*While], [*Unroll], [*Jump], [*Return],
// [*Import] or [*BadStmt].
type Stmt interface {
	Node
	stmt()
}

// An Expr has a value: [*Ident], [*Var], [*Map], [*MapIndex], [*IntLit],
// [*StringLit], [*BoolLit], [*Param], [*ParamCount], [*Unary], [*IncDec],
// [*Binary], [*Ternary], [*Cast], [*TypeQuery], [*Offsetof], [*Comptime],
// [*Field], [*TupleField], [*Index], [*Call], [*Tuple], [*Record],
// [*BlockExpr], [*IfExpr], [*Range] or [*BadExpr].
//
// Parentheses that only group leave no node behind.
type Expr interface {
	Node
	expr()
}

// A TypeExpr names a type: [*NamedType], [*StructType], [*EnumType],
// [*PointerType], [*ArrayType], [*TypeofType], [*FuncType], [*TupleType],
// [*RecordType] or [*BadType].
type TypeExpr interface {
	Node
	typeExpr()
}

// A Program is one script.
type Program struct {
	File  *source.File
	Decls []Decl // of this file, in its order

	// CDecls are all C declarations in the order in which a C compiler would
	// see them: those of included files and, in their place, those of Decls.
	CDecls []*CDecl

	Includes []*Include // of this file, those in branches not taken left out
	Defines  []*Define  // all that were seen, included files' among them
	Uses     []*Use     // of macros in this file, in its order

	// Comments of this file in its order, those in branches not taken too.
	Comments []*Comment
}

// Probes returns the probes among the declarations, in order.
func (p *Program) Probes() []*Probe { return declsOf[*Probe](p) }

// Config returns the script's config block, or nil.
func (p *Program) Config() *Config {
	if c := declsOf[*Config](p); len(c) > 0 {
		return c[0]
	}
	return nil
}

// Imports returns the imports among the declarations, in order.
func (p *Program) Imports() []*Import { return declsOf[*Import](p) }

// Macros returns the macro declarations, in order. For those of the C
// preprocessor see Defines.
func (p *Program) Macros() []*Macro { return declsOf[*Macro](p) }

// MapDecls returns the map declarations, in order.
func (p *Program) MapDecls() []*MapDecl { return declsOf[*MapDecl](p) }

// Funcs returns the function declarations, in order.
func (p *Program) Funcs() []*Func { return declsOf[*Func](p) }

func declsOf[T Decl](p *Program) []T {
	var out []T
	for _, d := range p.Decls {
		if d, ok := d.(T); ok {
			out = append(out, d)
		}
	}
	return out
}

// Explain adds a note to d for every #define whose use d's span lies in, so
// that an error inside an expansion shows the definition too. It returns d.
func (p *Program) Explain(d *source.Diagnostic) *source.Diagnostic {
	for _, u := range p.Uses {
		if u.Loc.File == d.Span.File && u.Loc.Start <= d.Span.Start && d.Span.Start < u.Loc.End {
			d.NoteAt(u.Define.NameLoc, "%s is defined here as %q", u.Define.Name, u.Define.Body)
		}
	}
	return d
}

// A Comment is a // or /* */ comment or the #! line.
type Comment struct {
	Loc  source.Span
	Text string // with its delimiters, without the line end
}

// An Include is an #include line that was obeyed.
type Include struct {
	Loc      source.Span
	Path     string
	PathLoc  source.Span  // with the delimiters
	Angled   bool         // <path>
	File     *source.File // what was read; nil when ByTarget
	ByTarget bool         // nothing was read, the target's own types stand in
}

// A Define is a preprocessor macro.
type Define struct {
	Loc      source.Span // the whole directive; zero for one that Options gave
	Name     string
	NameLoc  source.Span
	Function bool // has a parameter list
	Params   []string
	Variadic bool   // the last of Params takes the rest
	Body     string // as written, trimmed, comments kept

	body []token
}

// A Use is a place where a preprocessor macro was expanded.
type Use struct {
	Loc    source.Span // name and arguments
	Define *Define
}

// A Name is an identifier that is no expression by itself.
type Name struct {
	Loc  source.Span
	Text string
}

// Declarations.
type (
	// A Probe is `name=point, point /pred/ { body }`.
	Probe struct {
		Loc    source.Span // from the name or first point to the closing brace
		Name   *Name       // nil when it has none
		Points []*AttachPoint
		Pred   Expr        // nil when it has none
		PredLo source.Span // the opening slash
		PredHi source.Span // the closing slash
		Body   *Block
	}

	// Config is `config = { name = value; ... }`.
	Config struct {
		Loc     source.Span
		Keyword source.Span
		Entries []*ConfigEntry
	}

	// Import is `import "path";`, also a statement in a block.
	Import struct {
		Loc  source.Span
		Path *StringLit
	}

	// Macro is `macro name($var, @map, expr) { body }`.
	Macro struct {
		Loc    source.Span
		Name   *Name
		Params []Expr // *Var, *Map (plain) or *Ident
		Body   *Block
	}

	// MapDecl is `let @map = kind(args);`.
	MapDecl struct {
		Loc  source.Span
		Map  *Map
		Kind *Name
		Args []Expr
	}

	// Func is `fn name($param : type, ...) : result { body }`.
	Func struct {
		Loc    source.Span
		Name   *Name
		Params []*FuncParam
		Result TypeExpr // nil when none is given
		Body   *Block
	}

	// BadDecl is text that could not be read as a declaration.
	BadDecl struct {
		Loc source.Span
	}
)

// A ConfigEntry is `name = value` of a config block. Value is a literal, an
// [*Ident] for a bare word, or a negated literal.
type ConfigEntry struct {
	Loc   source.Span
	Name  *Name
	Value Expr
}

// A FuncParam is `$var : type`.
type FuncParam struct {
	Loc  source.Span
	Var  *Var
	Type TypeExpr
}

// An AttachPoint is the text of one attach point, split at its colons. What
// the parts mean is not decided here.
type AttachPoint struct {
	Loc   source.Span
	Text  string // as written, blanks trimmed
	Parts []*Part
}

// Provider returns the first part's text as written, e.g. "kprobe" or "k".
func (a *AttachPoint) Provider() string {
	if len(a.Parts) == 0 {
		return ""
	}
	return a.Parts[0].Text
}

// A Part is what stands between two colons of an attach point. A colon in
// quotes separates nothing.
type Part struct {
	Loc    source.Span
	Text   string  // all pieces joined, without quotes; parameters as "$1"
	Pieces []Piece // at least one, unless the part is empty
}

// Quoted reports whether any piece of the part is in quotes.
func (p *Part) Quoted() bool {
	for _, piece := range p.Pieces {
		if piece.Kind == QuotedPiece {
			return true
		}
	}
	return false
}

// PieceKind says what a [Piece] is.
type PieceKind uint8

// The kinds of pieces.
const (
	TextPiece   PieceKind = iota // plain text
	QuotedPiece                  // text from a string, escapes resolved
	ParamPiece                   // $1, $2, ...
)

// A Piece is a run of one kind within a [Part]: `"operator+"+8` is the quoted
// piece `operator+` and the text piece `+8`.
type Piece struct {
	Kind  PieceKind
	Loc   source.Span
	Text  string // without quotes; parameters as "$1"
	Param int    // 1 for $1; only of a ParamPiece
}

// Statements.
type (
	// ExprStmt is an expression that stands alone.
	ExprStmt struct {
		Loc source.Span // without the semicolon
		X   Expr
		// Semi is false for the last expression of a block without a
		// semicolon, which is the block's value in a [BlockExpr].
		Semi bool
	}

	// Assign is `lhs = rhs` or `lhs op= rhs`.
	Assign struct {
		Loc   source.Span
		Lhs   Expr // *Var, *Map or *MapIndex; anything else was reported
		Op    Op   // OpNone for a plain =, else the binary operator
		OpLoc source.Span
		Rhs   Expr
	}

	// Discard is `_ = x`.
	Discard struct {
		Loc source.Span
		X   Expr
	}

	// Let is `let $var : type = value`.
	Let struct {
		Loc   source.Span
		Var   *Var
		Type  TypeExpr // nil when not given
		Value Expr     // nil when not given
	}

	// Block is `{ stmts }`.
	Block struct {
		Loc    source.Span
		Lbrace source.Span
		Stmts  []Stmt
		Rbrace source.Span // empty, at the end, when it is missing
	}

	// If is `if cond { then } else ...`.
	If struct {
		Loc     source.Span
		Keyword source.Span
		Cond    Expr
		Then    *Block
		Else    Stmt // *Block, *If or nil
	}

	// For is `for $var : over { body }`.
	For struct {
		Loc     source.Span
		Keyword source.Span
		Var     *Var
		Over    Expr // *Map or *Range; anything else was reported
		Body    *Block
	}

	// While is `while cond { body }`.
	While struct {
		Loc     source.Span
		Keyword source.Span
		Cond    Expr
		Body    *Block
	}

	// Unroll is `unroll(count) { body }`.
	Unroll struct {
		Loc     source.Span
		Keyword source.Span
		Count   Expr
		Body    *Block
	}

	// Jump is `break` or `continue`.
	Jump struct {
		Loc      source.Span
		Continue bool
	}

	// Return is `return` or `return x`.
	Return struct {
		Loc source.Span
		X   Expr // nil when not given
	}

	// BadStmt is text that could not be read as a statement.
	BadStmt struct {
		Loc source.Span
	}
)

// Value returns the expression that is b's value, or nil when its last
// statement is no expression or ends in a semicolon.
func (b *Block) Value() Expr {
	if n := len(b.Stmts); n > 0 {
		if s, ok := b.Stmts[n-1].(*ExprStmt); ok && !s.Semi {
			return s.X
		}
	}
	return nil
}

// Expressions.
type (
	// Ident is a bare name: a builtin, an enum constant, a macro without
	// arguments, a macro's parameter.
	Ident struct {
		Loc  source.Span
		Name string
	}

	// Var is a scratch variable.
	Var struct {
		Loc  source.Span // with the $
		Name string      // without the $
	}

	// Map is a map without a key.
	Map struct {
		Loc  source.Span // with the @
		Name string      // without the @; "" for the nameless map
	}

	// MapIndex is `@map[keys]`.
	MapIndex struct {
		Loc      source.Span
		Map      *Map
		Keys     []Expr // at least one; @m[a, b] has two, @m[(a, b)] one *Tuple
		Brackets source.Span
	}

	// IntLit is an integer, a duration or a character in quotes.
	IntLit struct {
		Loc    source.Span
		Value  uint64 // durations in nanoseconds
		Raw    string // as written, e.g. "0x1F", "1_000", "2e3", "5ms", "'a'"
		Suffix string // as written: "", a C suffix ("ULL") or a unit ("ms")
	}

	// StringLit is a string, or several that stand side by side.
	StringLit struct {
		Loc   source.Span
		Value string // escapes resolved, may hold any byte
		Raw   string // as written, with quotes; several are separated by a blank
	}

	// BoolLit is `true` or `false`.
	BoolLit struct {
		Loc   source.Span
		Value bool
	}

	// Param is a positional parameter, `$1`.
	Param struct {
		Loc source.Span
		N   int // from 1
	}

	// ParamCount is `$#`.
	ParamCount struct {
		Loc source.Span
	}

	// Unary is `op x`.
	Unary struct {
		Loc   source.Span
		Op    Op // OpNeg, OpPlus, OpNot, OpBitNot, OpDeref or OpAddr
		OpLoc source.Span
		X     Expr
	}

	// IncDec is `x++`, `x--`, `++x` or `--x`.
	IncDec struct {
		Loc    source.Span
		Dec    bool
		Prefix bool
		OpLoc  source.Span
		X      Expr // *Var, *Map or *MapIndex; anything else was reported
	}

	// Binary is `x op y`.
	Binary struct {
		Loc   source.Span
		Op    Op
		OpLoc source.Span
		X, Y  Expr
	}

	// Ternary is `cond ? then : else`, or `cond ?: else`.
	Ternary struct {
		Loc   source.Span
		Cond  Expr
		Then  Expr // nil for ?:
		Else  Expr
		Quest source.Span
		Colon source.Span
	}

	// Cast is `(type)x`.
	Cast struct {
		Loc    source.Span
		Parens source.Span // the type with its parentheses
		Type   TypeExpr
		X      Expr
	}

	// TypeQuery is `sizeof(...)` or `typeinfo(...)` of a type or expression.
	// A bare name that is not known to be a type is given as X, an [*Ident],
	// though it may be a typedef of the target; so also in [TypeofType].
	TypeQuery struct {
		Loc      source.Span
		Typeinfo bool
		Keyword  source.Span
		Type     TypeExpr // nil when X is given
		X        Expr     // nil when Type is given
	}

	// Offsetof is `offsetof(type, a.b)` or `offsetof(x, a.b)`.
	Offsetof struct {
		Loc     source.Span
		Keyword source.Span
		Type    TypeExpr // nil when X is given
		X       Expr     // nil when Type is given
		Path    []*Name
	}

	// Comptime is `comptime x`.
	Comptime struct {
		Loc source.Span
		X   Expr
	}

	// Field is `x.name` or `x->name`.
	Field struct {
		Loc   source.Span
		X     Expr
		Arrow bool
		OpLoc source.Span
		Name  *Name
	}

	// TupleField is `x.0`.
	TupleField struct {
		Loc      source.Span
		X        Expr
		OpLoc    source.Span
		Index    int
		IndexLoc source.Span
	}

	// Index is `x[i]` where x is no map.
	Index struct {
		Loc      source.Span
		X        Expr
		I        Expr
		Brackets source.Span
	}

	// Call is `name(args)`.
	Call struct {
		Loc    source.Span
		Func   *Name
		Args   []Expr
		Parens source.Span
	}

	// Tuple is `()`, `(a,)` or `(a, b)`.
	Tuple struct {
		Loc   source.Span
		Elems []Expr
	}

	// Record is `(name = value, ...)`.
	Record struct {
		Loc    source.Span
		Fields []*RecordField
	}

	// BlockExpr is a block used as an expression; its value is Block.Value().
	BlockExpr struct {
		Block *Block
	}

	// IfExpr is an if used as an expression.
	IfExpr struct {
		If *If
	}

	// Range is `lo..hi`, without hi; only in a [For].
	Range struct {
		Loc   source.Span
		Lo    Expr
		Hi    Expr
		OpLoc source.Span
	}

	// BadExpr is text that could not be read as an expression.
	BadExpr struct {
		Loc source.Span
	}
)

// A RecordField is `name = value` of a [Record].
type RecordField struct {
	Loc   source.Span
	Name  *Name
	Value Expr
}

// Op is an operator of an expression.
type Op uint8

// The operators. The binary ones are in the order of the table of C.
const (
	OpNone Op = iota

	OpMul    // *
	OpDiv    // /
	OpMod    // %
	OpAdd    // +
	OpSub    // -
	OpShl    // <<
	OpShr    // >>
	OpLt     // <
	OpGt     // >
	OpLe     // <=
	OpGe     // >=
	OpEq     // ==
	OpNe     // !=
	OpAnd    // &
	OpXor    // ^
	OpOr     // |
	OpLogAnd // &&
	OpLogOr  // ||

	OpNeg    // -x
	OpPlus   // +x
	OpNot    // !x
	OpBitNot // ~x
	OpDeref  // *x
	OpAddr   // &x
)

var opText = [...]string{
	OpNone: "=", OpMul: "*", OpDiv: "/", OpMod: "%", OpAdd: "+", OpSub: "-", OpShl: "<<", OpShr: ">>",
	OpLt: "<", OpGt: ">", OpLe: "<=", OpGe: ">=", OpEq: "==", OpNe: "!=", OpAnd: "&", OpXor: "^", OpOr: "|",
	OpLogAnd: "&&", OpLogOr: "||", OpNeg: "-", OpPlus: "+", OpNot: "!", OpBitNot: "~", OpDeref: "*", OpAddr: "&",
}

// String returns the operator as it is written; "=" for OpNone, which only
// stands in an [Assign].
func (op Op) String() string {
	if int(op) < len(opText) {
		return opText[op]
	}
	return "?"
}

// Precedence returns how tightly a binary operator binds, from 1 (||) to 10
// (*), and 0 for any other.
func (op Op) Precedence() int {
	switch op {
	case OpMul, OpDiv, OpMod:
		return 10
	case OpAdd, OpSub:
		return 9
	case OpShl, OpShr:
		return 8
	case OpLt, OpGt, OpLe, OpGe:
		return 7
	case OpEq, OpNe:
		return 6
	case OpAnd:
		return 5
	case OpXor:
		return 4
	case OpOr:
		return 3
	case OpLogAnd:
		return 2
	case OpLogOr:
		return 1
	}
	return 0
}

func (*Probe) decl()   {}
func (*Config) decl()  {}
func (*Import) decl()  {}
func (*Macro) decl()   {}
func (*MapDecl) decl() {}
func (*Func) decl()    {}
func (*CDecl) decl()   {}
func (*BadDecl) decl() {}

func (*ExprStmt) stmt() {}
func (*Assign) stmt()   {}
func (*Discard) stmt()  {}
func (*Let) stmt()      {}
func (*Block) stmt()    {}
func (*If) stmt()       {}
func (*For) stmt()      {}
func (*While) stmt()    {}
func (*Unroll) stmt()   {}
func (*Jump) stmt()     {}
func (*Return) stmt()   {}
func (*Import) stmt()   {}
func (*BadStmt) stmt()  {}

func (*Ident) expr()      {}
func (*Var) expr()        {}
func (*Map) expr()        {}
func (*MapIndex) expr()   {}
func (*IntLit) expr()     {}
func (*StringLit) expr()  {}
func (*BoolLit) expr()    {}
func (*Param) expr()      {}
func (*ParamCount) expr() {}
func (*Unary) expr()      {}
func (*IncDec) expr()     {}
func (*Binary) expr()     {}
func (*Ternary) expr()    {}
func (*Cast) expr()       {}
func (*TypeQuery) expr()  {}
func (*Offsetof) expr()   {}
func (*Comptime) expr()   {}
func (*Field) expr()      {}
func (*TupleField) expr() {}
func (*Index) expr()      {}
func (*Call) expr()       {}
func (*Tuple) expr()      {}
func (*Record) expr()     {}
func (*BlockExpr) expr()  {}
func (*IfExpr) expr()     {}
func (*Range) expr()      {}
func (*BadExpr) expr()    {}

// Span covers the whole file.
func (p *Program) Span() source.Span {
	return source.Span{File: p.File, Start: 0, End: len(p.File.Text)}
}

func (n *Comment) Span() source.Span     { return n.Loc }
func (n *Include) Span() source.Span     { return n.Loc }
func (n *Define) Span() source.Span      { return n.Loc }
func (n *Use) Span() source.Span         { return n.Loc }
func (n *Name) Span() source.Span        { return n.Loc }
func (n *Probe) Span() source.Span       { return n.Loc }
func (n *AttachPoint) Span() source.Span { return n.Loc }
func (n *Part) Span() source.Span        { return n.Loc }
func (n *Config) Span() source.Span      { return n.Loc }
func (n *ConfigEntry) Span() source.Span { return n.Loc }
func (n *Import) Span() source.Span      { return n.Loc }
func (n *Macro) Span() source.Span       { return n.Loc }
func (n *MapDecl) Span() source.Span     { return n.Loc }
func (n *Func) Span() source.Span        { return n.Loc }
func (n *FuncParam) Span() source.Span   { return n.Loc }
func (n *BadDecl) Span() source.Span     { return n.Loc }
func (n *ExprStmt) Span() source.Span    { return n.Loc }
func (n *Assign) Span() source.Span      { return n.Loc }
func (n *Discard) Span() source.Span     { return n.Loc }
func (n *Let) Span() source.Span         { return n.Loc }
func (n *Block) Span() source.Span       { return n.Loc }
func (n *If) Span() source.Span          { return n.Loc }
func (n *For) Span() source.Span         { return n.Loc }
func (n *While) Span() source.Span       { return n.Loc }
func (n *Unroll) Span() source.Span      { return n.Loc }
func (n *Jump) Span() source.Span        { return n.Loc }
func (n *Return) Span() source.Span      { return n.Loc }
func (n *BadStmt) Span() source.Span     { return n.Loc }
func (n *Ident) Span() source.Span       { return n.Loc }
func (n *Var) Span() source.Span         { return n.Loc }
func (n *Map) Span() source.Span         { return n.Loc }
func (n *MapIndex) Span() source.Span    { return n.Loc }
func (n *IntLit) Span() source.Span      { return n.Loc }
func (n *StringLit) Span() source.Span   { return n.Loc }
func (n *BoolLit) Span() source.Span     { return n.Loc }
func (n *Param) Span() source.Span       { return n.Loc }
func (n *ParamCount) Span() source.Span  { return n.Loc }
func (n *Unary) Span() source.Span       { return n.Loc }
func (n *IncDec) Span() source.Span      { return n.Loc }
func (n *Binary) Span() source.Span      { return n.Loc }
func (n *Ternary) Span() source.Span     { return n.Loc }
func (n *Cast) Span() source.Span        { return n.Loc }
func (n *TypeQuery) Span() source.Span   { return n.Loc }
func (n *Offsetof) Span() source.Span    { return n.Loc }
func (n *Comptime) Span() source.Span    { return n.Loc }
func (n *Field) Span() source.Span       { return n.Loc }
func (n *TupleField) Span() source.Span  { return n.Loc }
func (n *Index) Span() source.Span       { return n.Loc }
func (n *Call) Span() source.Span        { return n.Loc }
func (n *Tuple) Span() source.Span       { return n.Loc }
func (n *Record) Span() source.Span      { return n.Loc }
func (n *RecordField) Span() source.Span { return n.Loc }
func (n *BlockExpr) Span() source.Span   { return n.Block.Loc }
func (n *IfExpr) Span() source.Span      { return n.If.Loc }
func (n *Range) Span() source.Span       { return n.Loc }
func (n *BadExpr) Span() source.Span     { return n.Loc }
