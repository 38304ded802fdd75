package syntax

// Walk calls visit for n and, where visit returns true, for all nodes below
// it, in the order of the text. A nil n is no node.
//
// The Base of a [CDecl] is visited once, not again below its declarators.
func Walk(n Node, visit func(Node) bool) {
	if n == nil || !visit(n) {
		return
	}
	w := walker{visit: visit}
	w.children(n)
}

// Inspect calls visit for n and all nodes below it, in the order of the text.
func Inspect(n Node, visit func(Node)) {
	Walk(n, func(n Node) bool { visit(n); return true })
}

type walker struct {
	visit func(Node) bool
	base  TypeExpr // of the CDecl whose declarator is being walked
}

func (w *walker) walk(n Node) {
	if w.visit(n) {
		w.children(n)
	}
}

func walkList[T Node](w *walker, list []T) {
	for _, n := range list {
		w.walk(n)
	}
}

func (w *walker) name(n *Name) {
	if n != nil {
		w.walk(n)
	}
}

func (w *walker) expr(x Expr) {
	if x != nil {
		w.walk(x)
	}
}

func (w *walker) block(b *Block) {
	if b != nil {
		w.walk(b)
	}
}

func (w *walker) typ(t TypeExpr) {
	if t != nil && t != w.base {
		w.walk(t)
	}
}

func (w *walker) children(n Node) {
	switch n := n.(type) {
	case *Program:
		walkList(w, n.Decls)
	case *Probe:
		w.name(n.Name)
		walkList(w, n.Points)
		w.expr(n.Pred)
		w.block(n.Body)
	case *AttachPoint:
		walkList(w, n.Parts)
	case *Config:
		walkList(w, n.Entries)
	case *ConfigEntry:
		w.name(n.Name)
		w.expr(n.Value)
	case *Import:
		if n.Path != nil {
			w.walk(n.Path)
		}
	case *Macro:
		w.name(n.Name)
		walkList(w, n.Params)
		w.block(n.Body)
	case *MapDecl:
		w.walk(n.Map)
		w.name(n.Kind)
		walkList(w, n.Args)
	case *Func:
		w.name(n.Name)
		walkList(w, n.Params)
		w.typ(n.Result)
		w.block(n.Body)
	case *FuncParam:
		w.walk(n.Var)
		w.typ(n.Type)

	case *ExprStmt:
		w.expr(n.X)
	case *Assign:
		w.expr(n.Lhs)
		w.expr(n.Rhs)
	case *Discard:
		w.expr(n.X)
	case *Let:
		w.walk(n.Var)
		w.typ(n.Type)
		w.expr(n.Value)
	case *Block:
		walkList(w, n.Stmts)
	case *If:
		w.expr(n.Cond)
		w.block(n.Then)
		if n.Else != nil {
			w.walk(n.Else)
		}
	case *For:
		w.walk(n.Var)
		w.expr(n.Over)
		w.block(n.Body)
	case *While:
		w.expr(n.Cond)
		w.block(n.Body)
	case *Unroll:
		w.expr(n.Count)
		w.block(n.Body)
	case *Return:
		w.expr(n.X)

	case *MapIndex:
		w.walk(n.Map)
		walkList(w, n.Keys)
	case *Unary:
		w.expr(n.X)
	case *IncDec:
		w.expr(n.X)
	case *Binary:
		w.expr(n.X)
		w.expr(n.Y)
	case *Ternary:
		w.expr(n.Cond)
		w.expr(n.Then)
		w.expr(n.Else)
	case *Cast:
		w.typ(n.Type)
		w.expr(n.X)
	case *TypeQuery:
		w.typ(n.Type)
		w.expr(n.X)
	case *Offsetof:
		w.typ(n.Type)
		w.expr(n.X)
		walkList(w, n.Path)
	case *Comptime:
		w.expr(n.X)
	case *Field:
		w.expr(n.X)
		w.name(n.Name)
	case *TupleField:
		w.expr(n.X)
	case *Index:
		w.expr(n.X)
		w.expr(n.I)
	case *Call:
		w.name(n.Func)
		walkList(w, n.Args)
	case *Tuple:
		walkList(w, n.Elems)
	case *Record:
		walkList(w, n.Fields)
	case *RecordField:
		w.name(n.Name)
		w.expr(n.Value)
	case *BlockExpr:
		w.block(n.Block)
	case *IfExpr:
		w.walk(n.If)
	case *Range:
		w.expr(n.Lo)
		w.expr(n.Hi)

	default:
		w.cChildren(n)
	}
}

func (w *walker) cChildren(n Node) {
	switch n := n.(type) {
	case *StructType:
		w.name(n.Name)
		if n.Body != nil {
			w.walk(n.Body)
		}
		walkList(w, n.Attrs)
	case *FieldList:
		// A nested declaration has a base of its own.
		outer := w.base
		walkList(w, n.Fields)
		w.base = outer
	case *EnumType:
		w.name(n.Name)
		w.typ(n.Underlying)
		if n.Body != nil {
			w.walk(n.Body)
		}
		walkList(w, n.Attrs)
	case *EnumList:
		walkList(w, n.Items)
	case *Enumerator:
		w.name(n.Name)
		w.expr(n.Value)
	case *PointerType:
		w.typ(n.Elem)
	case *ArrayType:
		w.typ(n.Elem)
		w.expr(n.Len)
	case *TypeofType:
		w.typ(n.Type)
		w.expr(n.X)
	case *FuncType:
		w.typ(n.Result)
		walkList(w, n.Params)
	case *CParam:
		w.name(n.Name)
		w.typ(n.Type)
	case *TupleType:
		walkList(w, n.Elems)
	case *RecordType:
		walkList(w, n.Fields)
	case *TypeField:
		w.name(n.Name)
		w.typ(n.Type)
	case *CDecl:
		w.base = nil
		w.typ(n.Base)
		w.base = n.Base
		walkList(w, n.Declarators)
		w.base = nil
		walkList(w, n.Attrs)
	case *Declarator:
		w.name(n.Name)
		w.typ(n.Type)
		w.expr(n.Bits)
		walkList(w, n.Attrs)
	case *Attr:
		walkList(w, n.Args)
	}
}
