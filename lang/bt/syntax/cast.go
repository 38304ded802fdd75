package syntax

import "github.com/skep-bpf/skep/source"

// Types, those of C among them.
type (
	// NamedType is a type known by a name: `int64`, `string`, `u32`, or C's
	// own in any order and number of words: `unsigned long`.
	NamedType struct {
		Loc  source.Span
		Name string // words as written, one blank between two
		// Const and Volatile are C qualifiers, which change nothing here but
		// are kept.
		Const, Volatile bool
	}

	// StructType is `struct name`, `union name`, or either with a body.
	StructType struct {
		Loc             source.Span
		Union           bool
		Keyword         source.Span
		Name            *Name // nil when anonymous
		Body            *FieldList
		Attrs           []*Attr
		Const, Volatile bool
	}

	// EnumType is `enum name`, or with a body.
	EnumType struct {
		Loc             source.Span
		Keyword         source.Span
		Name            *Name    // nil when anonymous
		Underlying      TypeExpr // of `enum name : type`, else nil
		Body            *EnumList
		Attrs           []*Attr
		Const, Volatile bool
	}

	// PointerType is `elem *`.
	PointerType struct {
		Loc             source.Span
		Elem            TypeExpr
		Const, Volatile bool // of the pointer itself
	}

	// ArrayType is `elem[len]`. `string[64]`, `buffer[16]` and `inet[4]` are
	// read as arrays too; what they mean is decided elsewhere.
	ArrayType struct {
		Loc  source.Span
		Elem TypeExpr
		Len  Expr // nil for []
	}

	// TypeofType is `typeof(x)` or `typeof(type)`.
	TypeofType struct {
		Loc  source.Span
		Type TypeExpr // nil when X is given
		X    Expr     // nil when Type is given
	}

	// FuncType is the type of a C function, which only pointers point to.
	FuncType struct {
		Loc      source.Span
		Result   TypeExpr
		Params   []*CParam
		Variadic bool
	}

	// TupleType is `(a, b)`, `(a,)` or `()`.
	TupleType struct {
		Loc   source.Span
		Elems []TypeExpr
	}

	// RecordType is `(name : type, ...)`.
	RecordType struct {
		Loc    source.Span
		Fields []*TypeField
	}

	// BadType is text that could not be read as a type.
	BadType struct {
		Loc source.Span
	}
)

// A FieldList is the body of a struct or union.
type FieldList struct {
	Loc    source.Span // with the braces
	Fields []*CDecl
}

// An EnumList is the body of an enum.
type EnumList struct {
	Loc   source.Span // with the braces
	Items []*Enumerator
}

// An Enumerator is `NAME` or `NAME = value`.
type Enumerator struct {
	Loc   source.Span
	Name  *Name
	Value Expr // nil when not given
}

// A TypeField is a field of a [RecordType].
type TypeField struct {
	Loc  source.Span
	Name *Name
	Type TypeExpr
}

// CStorage is the storage class of a C declaration.
type CStorage uint8

// The storage classes.
const (
	NoStorage CStorage = iota
	Typedef
	Extern
	Static
)

// A CDecl is one C declaration: `struct s { ... };`, `typedef int t, *p;`, or
// a member of a struct, `unsigned a : 3, b : 5;`.
type CDecl struct {
	Loc     source.Span
	Storage CStorage
	Base    TypeExpr // shared by the declarators
	// Declarators are the names declared; none in `struct s { ... };` and for
	// an anonymous member.
	Declarators []*Declarator
	Attrs       []*Attr // that belong to all of it
}

// A Declarator is one name of a [CDecl] with its type.
type Declarator struct {
	Loc   source.Span
	Name  *Name    // nil for a bit-field that only pads
	Type  TypeExpr // whole, built around the CDecl's Base, which is not copied
	Bits  Expr     // width of a bit-field, else nil
	Attrs []*Attr
}

// A CParam is a parameter of a [FuncType].
type CParam struct {
	Loc  source.Span
	Name *Name // nil when not given
	Type TypeExpr
}

// An Attr is one attribute out of `__attribute__((...))` or `_Alignas(...)`,
// which reads as "aligned". Underscores around the name are taken off.
type Attr struct {
	Loc  source.Span
	Name string
	Args []Expr
}

func (*NamedType) typeExpr()   {}
func (*StructType) typeExpr()  {}
func (*EnumType) typeExpr()    {}
func (*PointerType) typeExpr() {}
func (*ArrayType) typeExpr()   {}
func (*TypeofType) typeExpr()  {}
func (*FuncType) typeExpr()    {}
func (*TupleType) typeExpr()   {}
func (*RecordType) typeExpr()  {}
func (*BadType) typeExpr()     {}

func (n *NamedType) Span() source.Span   { return n.Loc }
func (n *StructType) Span() source.Span  { return n.Loc }
func (n *EnumType) Span() source.Span    { return n.Loc }
func (n *PointerType) Span() source.Span { return n.Loc }
func (n *ArrayType) Span() source.Span   { return n.Loc }
func (n *TypeofType) Span() source.Span  { return n.Loc }
func (n *FuncType) Span() source.Span    { return n.Loc }
func (n *TupleType) Span() source.Span   { return n.Loc }
func (n *RecordType) Span() source.Span  { return n.Loc }
func (n *BadType) Span() source.Span     { return n.Loc }
func (n *FieldList) Span() source.Span   { return n.Loc }
func (n *EnumList) Span() source.Span    { return n.Loc }
func (n *Enumerator) Span() source.Span  { return n.Loc }
func (n *TypeField) Span() source.Span   { return n.Loc }
func (n *CDecl) Span() source.Span       { return n.Loc }
func (n *Declarator) Span() source.Span  { return n.Loc }
func (n *CParam) Span() source.Span      { return n.Loc }
func (n *Attr) Span() source.Span        { return n.Loc }
