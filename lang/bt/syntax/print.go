package syntax

import (
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/source"
)

// Print writes the declarations of p as text that reads back as the same
// tree. Macros are written expanded; comments, directives and the author's
// line breaks are gone: for those see [Format].
func Print(p *Program) string {
	var w printer
	for i, d := range p.Decls {
		if i > 0 {
			w.WriteByte('\n')
		}
		w.decl(d)
		w.WriteByte('\n')
	}
	return w.String()
}

// PrintExpr writes x as Print does.
func PrintExpr(x Expr) string {
	var w printer
	w.expr(x, 0)
	return w.String()
}

// PrintType writes t as Print does.
func PrintType(t TypeExpr) string {
	var w printer
	w.typ(t)
	return w.String()
}

type printer struct {
	strings.Builder
	indent int
}

func (w *printer) line() {
	w.WriteByte('\n')
	for range w.indent {
		w.WriteByte('\t')
	}
}

func (w *printer) words(words ...string) {
	for _, s := range words {
		w.WriteString(s)
	}
}

func (w *printer) decl(d Decl) {
	switch d := d.(type) {
	case *Probe:
		if d.Name != nil {
			w.words(d.Name.Text, "=")
		}
		for i, a := range d.Points {
			if i > 0 {
				w.WriteString(",\n")
			}
			w.WriteString(a.Text)
		}
		if d.Pred != nil {
			pred := PrintExpr(d.Pred)
			if strings.HasPrefix(pred, "*") {
				pred = "(" + pred + ")" // not a comment
			}
			w.words(" /", pred, "/")
		}
		if len(d.Points) > 0 {
			w.WriteByte(' ')
		}
		w.block(d.Body)
	case *Config:
		w.WriteString("config = {")
		w.indent++
		for _, e := range d.Entries {
			w.line()
			w.words(e.Name.Text, " = ")
			w.expr(e.Value, 0)
			w.WriteByte(';')
		}
		w.indent--
		w.line()
		w.WriteByte('}')
	case *Import:
		w.words("import ", d.Path.Raw, ";")
	case *Macro:
		w.words("macro ", d.Name.Text, "(")
		w.exprs(d.Params)
		w.WriteString(") ")
		w.block(d.Body)
	case *MapDecl:
		w.words("let @", d.Map.Name, " = ", d.Kind.Text, "(")
		w.exprs(d.Args)
		w.WriteString(");")
	case *Func:
		w.words("fn ", d.Name.Text, "(")
		for i, p := range d.Params {
			if i > 0 {
				w.WriteString(", ")
			}
			w.words("$", p.Var.Name, " : ")
			w.typ(p.Type)
		}
		w.WriteByte(')')
		if d.Result != nil {
			w.WriteString(" : ")
			w.typ(d.Result)
		}
		w.WriteByte(' ')
		w.block(d.Body)
	case *CDecl:
		w.cdecl(d)
	case *BadDecl:
		w.bad(d.Loc)
	}
}

// bad writes text that was not understood as it stands.
func (w *printer) bad(at source.Span) { w.WriteString(at.Text()) }

func (w *printer) block(b *Block) {
	w.WriteByte('{')
	if len(b.Stmts) > 0 {
		w.indent++
		for _, s := range b.Stmts {
			w.line()
			w.stmt(s)
		}
		w.indent--
		w.line()
	}
	w.WriteByte('}')
}

func (w *printer) stmt(s Stmt) {
	switch s := s.(type) {
	case *ExprStmt:
		least := 0
		switch s.X.(type) {
		case *IfExpr, *BlockExpr:
			least = 1 // else they would read as statements
		}
		w.expr(s.X, least)
		if s.Semi {
			w.WriteByte(';')
		}
	case *Assign:
		w.expr(s.Lhs, 1)
		w.WriteByte(' ')
		if s.Op != OpNone {
			w.WriteString(s.Op.String())
		}
		w.WriteString("= ")
		w.expr(s.Rhs, 0)
		w.WriteByte(';')
	case *Discard:
		w.WriteString("_ = ")
		w.expr(s.X, 0)
		w.WriteByte(';')
	case *Let:
		w.words("let $", s.Var.Name)
		if s.Type != nil {
			w.WriteString(" : ")
			w.typ(s.Type)
		}
		if s.Value != nil {
			w.WriteString(" = ")
			w.expr(s.Value, 0)
		}
		w.WriteByte(';')
	case *Block:
		w.block(s)
	case *If:
		w.ifStmt(s)
	case *For:
		w.words("for ($", s.Var.Name, " : ")
		w.expr(s.Over, 0)
		w.WriteString(") ")
		w.block(s.Body)
	case *While:
		w.WriteString("while (")
		w.expr(s.Cond, 0)
		w.WriteString(") ")
		w.block(s.Body)
	case *Unroll:
		w.WriteString("unroll(")
		w.expr(s.Count, 0)
		w.WriteString(") ")
		w.block(s.Body)
	case *Jump:
		if s.Continue {
			w.WriteString("continue;")
		} else {
			w.WriteString("break;")
		}
	case *Return:
		w.WriteString("return")
		if s.X != nil {
			w.WriteByte(' ')
			w.expr(s.X, 0)
		}
		w.WriteByte(';')
	case *Import:
		w.words("import ", s.Path.Raw, ";")
	case *BadStmt:
		w.bad(s.Loc)
	}
}

func (w *printer) ifStmt(s *If) {
	for {
		w.WriteString("if (")
		w.expr(s.Cond, 0)
		w.WriteString(") ")
		w.block(s.Then)
		if s.Else == nil {
			return
		}
		w.WriteString(" else ")
		switch e := s.Else.(type) {
		case *If:
			s = e
			continue
		case *Block:
			w.block(e)
		}
		return
	}
}

// How tightly expressions bind, above the binary operators' 1 to 10.
const (
	precUnary   = 11
	precPostfix = 12
	precOperand = 13
)

func precedence(x Expr) int {
	switch x := x.(type) {
	case *Ternary, *IfExpr, *BlockExpr, *Range:
		return 0
	case *Binary:
		return x.Op.Precedence()
	case *Unary, *Cast, *Comptime:
		return precUnary
	case *IncDec:
		if x.Prefix {
			return precUnary
		}
		return precPostfix
	case *Field, *TupleField, *Index, *MapIndex:
		return precPostfix
	}
	return precOperand
}

func (w *printer) exprs(list []Expr) {
	for i, x := range list {
		if i > 0 {
			w.WriteString(", ")
		}
		w.expr(x, 0)
	}
}

// expr writes x, in parentheses if it binds less tightly than least.
func (w *printer) expr(x Expr, least int) {
	if precedence(x) < least {
		w.WriteByte('(')
		w.expr(x, 0)
		w.WriteByte(')')
		return
	}
	switch x := x.(type) {
	case *Ident:
		w.WriteString(x.Name)
	case *Var:
		w.words("$", x.Name)
	case *Map:
		w.words("@", x.Name)
	case *MapIndex:
		w.words("@", x.Map.Name, "[")
		w.exprs(x.Keys)
		w.WriteByte(']')
	case *IntLit:
		if x.Raw != "" {
			w.WriteString(x.Raw)
		} else {
			w.WriteString(strconv.FormatUint(x.Value, 10))
		}
	case *StringLit:
		if x.Raw != "" {
			w.WriteString(x.Raw)
		} else {
			w.WriteString(quote(x.Value))
		}
	case *BoolLit:
		w.WriteString(strconv.FormatBool(x.Value))
	case *Param:
		w.words("$", strconv.Itoa(x.N))
	case *ParamCount:
		w.WriteString("$#")
	case *Unary:
		w.WriteString(x.Op.String())
		w.operand(x.Op, x.X)
	case *IncDec:
		op := "++"
		if x.Dec {
			op = "--"
		}
		if x.Prefix {
			w.WriteString(op)
			w.expr(x.X, precUnary)
		} else {
			w.expr(x.X, precPostfix)
			w.WriteString(op)
		}
	case *Binary:
		prec := x.Op.Precedence()
		w.expr(x.X, prec)
		w.words(" ", x.Op.String(), " ")
		w.expr(x.Y, prec+1)
	case *Ternary:
		w.expr(x.Cond, 1)
		if x.Then == nil {
			w.WriteString(" ?: ")
		} else {
			w.WriteString(" ? ")
			w.expr(x.Then, 0)
			w.WriteString(" : ")
		}
		w.expr(x.Else, 0)
	case *Cast:
		w.cast(x)
	case *TypeQuery:
		if x.Typeinfo {
			w.WriteString("typeinfo(")
		} else {
			w.WriteString("sizeof(")
		}
		w.typeOr(x.Type, x.X)
		w.WriteByte(')')
	case *Offsetof:
		w.WriteString("offsetof(")
		w.typeOr(x.Type, x.X)
		for i, n := range x.Path {
			w.words([...]string{", ", "."}[min(i, 1)], n.Text)
		}
		w.WriteByte(')')
	case *Comptime:
		w.WriteString("comptime ")
		w.expr(x.X, precUnary)
	case *Field:
		w.expr(x.X, precPostfix)
		if x.Arrow {
			w.words("->", x.Name.Text)
		} else {
			w.words(".", x.Name.Text)
		}
	case *TupleField:
		w.expr(x.X, precPostfix)
		w.words(".", strconv.Itoa(x.Index))
	case *Index:
		if m, ok := x.X.(*Map); ok {
			w.words("(@", m.Name, ")")
		} else {
			w.expr(x.X, precPostfix)
		}
		w.WriteByte('[')
		w.expr(x.I, 0)
		w.WriteByte(']')
	case *Call:
		w.words(x.Func.Text, "(")
		w.exprs(x.Args)
		w.WriteByte(')')
	case *Tuple:
		w.WriteByte('(')
		w.exprs(x.Elems)
		if len(x.Elems) == 1 {
			w.WriteByte(',')
		}
		w.WriteByte(')')
	case *Record:
		w.WriteByte('(')
		for i, f := range x.Fields {
			if i > 0 {
				w.WriteString(", ")
			}
			w.words(f.Name.Text, " = ")
			w.expr(f.Value, 0)
		}
		w.WriteByte(')')
	case *BlockExpr:
		w.block(x.Block)
	case *IfExpr:
		w.ifStmt(x.If)
	case *Range:
		w.expr(x.Lo, 1)
		w.WriteString("..")
		w.expr(x.Hi, 1)
	case *BadExpr:
		w.bad(x.Loc)
	}
}

func (w *printer) typeOr(t TypeExpr, x Expr) {
	if t != nil {
		w.typ(t)
	} else {
		w.expr(x, 0)
	}
}

// operand writes what op stands in front of, so that the two are not taken
// for another operator.
func (w *printer) operand(op Op, x Expr) {
	least := precUnary
	switch y := x.(type) {
	case *Unary:
		if y.Op == op && op != OpNot && op != OpBitNot && op != OpDeref {
			least = precOperand
		}
	case *IncDec:
		if y.Prefix && (op == OpNeg || op == OpPlus) {
			least = precOperand
		}
	}
	w.expr(x, least)
}

func (w *printer) cast(x *Cast) {
	w.WriteByte('(')
	w.typ(x.Type)
	w.WriteByte(')')
	least := precUnary
	if _, ok := x.Type.(*NamedType); ok {
		switch x.X.(type) {
		case *Unary, *IncDec:
			// (name)-x is a difference unless name is known as a type.
			least = precOperand
		}
	}
	w.expr(x.X, least)
}

// typ writes a type as the language does: base first, then stars and brackets.
func (w *printer) typ(t TypeExpr) {
	switch t := t.(type) {
	case nil: // after an error only
	case *PointerType:
		w.typ(t.Elem)
		if _, ok := t.Elem.(*PointerType); !ok {
			w.WriteByte(' ')
		}
		w.WriteByte('*')
		w.qualifiers(t.Const, t.Volatile, " ", "")
	case *ArrayType:
		w.typ(t.Elem)
		w.length(t)
	case *TupleType:
		w.WriteByte('(')
		for i, e := range t.Elems {
			if i > 0 {
				w.WriteString(", ")
			}
			w.typ(e)
		}
		if len(t.Elems) == 1 {
			w.WriteByte(',')
		}
		w.WriteByte(')')
	case *RecordType:
		w.WriteByte('(')
		for i, f := range t.Fields {
			if i > 0 {
				w.WriteString(", ")
			}
			w.words(f.Name.Text, " : ")
			w.typ(f.Type)
		}
		w.WriteByte(')')
	case *FuncType:
		// Only C has it, in declarators; this is its abstract form.
		w.declarator(t, "", nil)
	default:
		w.base(t)
	}
}

func (w *printer) length(t *ArrayType) {
	w.WriteByte('[')
	if t.Len != nil {
		w.expr(t.Len, 0)
	}
	w.WriteByte(']')
}

func (w *printer) qualifiers(isConst, isVolatile bool, before, after string) {
	if isConst {
		w.words(before, "const", after)
	}
	if isVolatile {
		w.words(before, "volatile", after)
	}
}

// base writes a type that declarators are built around.
func (w *printer) base(t TypeExpr) {
	switch t := t.(type) {
	case *NamedType:
		w.qualifiers(t.Const, t.Volatile, "", " ")
		w.WriteString(t.Name)
	case *StructType:
		w.qualifiers(t.Const, t.Volatile, "", " ")
		if t.Union {
			w.WriteString("union")
		} else {
			w.WriteString("struct")
		}
		if t.Body == nil {
			w.attrs(t.Attrs)
		}
		if t.Name != nil {
			w.words(" ", t.Name.Text)
		}
		if t.Body != nil {
			w.WriteString(" {")
			w.indent++
			for _, f := range t.Body.Fields {
				w.line()
				w.cdecl(f)
			}
			w.indent--
			w.line()
			w.WriteByte('}')
			w.attrs(t.Attrs)
		}
	case *EnumType:
		w.qualifiers(t.Const, t.Volatile, "", " ")
		w.WriteString("enum")
		if t.Body == nil {
			w.attrs(t.Attrs)
		}
		if t.Name != nil {
			w.words(" ", t.Name.Text)
		}
		if t.Underlying != nil {
			w.WriteString(" : ")
			w.typ(t.Underlying)
		}
		if t.Body != nil {
			w.WriteString(" {")
			w.indent++
			for _, e := range t.Body.Items {
				w.line()
				w.WriteString(e.Name.Text)
				if e.Value != nil {
					w.WriteString(" = ")
					w.expr(e.Value, 0)
				}
				w.WriteByte(',')
			}
			w.indent--
			w.line()
			w.WriteByte('}')
			w.attrs(t.Attrs)
		}
	case *TypeofType:
		w.WriteString("typeof(")
		w.typeOr(t.Type, t.X)
		w.WriteByte(')')
	case *BadType:
		w.bad(t.Loc)
	case *PointerType, *ArrayType, *TupleType, *RecordType, *FuncType:
		w.typ(t)
	}
}

func (w *printer) attrs(attrs []*Attr) {
	if len(attrs) == 0 {
		return
	}
	w.WriteString(" __attribute__((")
	for i, a := range attrs {
		if i > 0 {
			w.WriteString(", ")
		}
		w.WriteString(a.Name)
		if len(a.Args) > 0 {
			w.WriteByte('(')
			w.exprs(a.Args)
			w.WriteByte(')')
		}
	}
	w.WriteString("))")
}

func (w *printer) cdecl(d *CDecl) {
	switch d.Storage {
	case Typedef:
		w.WriteString("typedef ")
	case Extern:
		w.WriteString("extern ")
	case Static:
		w.WriteString("static ")
	}
	if len(d.Attrs) > 0 {
		w.attrs(d.Attrs)
		w.WriteByte(' ')
	}
	w.base(d.Base)
	for i, e := range d.Declarators {
		if i > 0 {
			w.WriteByte(',')
		}
		w.WriteByte(' ')
		name := ""
		if e.Name != nil {
			name = e.Name.Text
		}
		w.declarator(e.Type, name, d.Base)
		if e.Bits != nil {
			w.WriteString(" : ")
			w.expr(e.Bits, 1)
		}
		w.attrs(e.Attrs)
	}
	w.WriteByte(';')
}

// declarator writes name with the stars, brackets and parameters that lie
// between t and base, or t's innermost type where base is nil, in front of
// which it then stands too.
func (w *printer) declarator(t TypeExpr, name string, base TypeExpr) {
	// layers goes from what stands nearest to the name outwards.
	var before, after string
	before = name
	for t != base {
		switch layer := t.(type) {
		case *PointerType:
			var q printer
			q.WriteByte('*')
			q.qualifiers(layer.Const, layer.Volatile, "", " ")
			before = q.String() + before
			t = layer.Elem
			switch t.(type) {
			case *ArrayType, *FuncType:
				if t != base {
					before, after = "("+before, after+")"
				}
			}
			continue
		case *ArrayType:
			var q printer
			q.length(layer)
			after += q.String()
			t = layer.Elem
			continue
		case *FuncType:
			after += w.params(layer)
			t = layer.Result
			continue
		}
		// Without a base the innermost type is written too.
		w.base(t)
		w.WriteByte(' ')
		break
	}
	w.words(before, after)
}

func (w *printer) params(f *FuncType) string {
	var q printer
	q.WriteByte('(')
	for i, p := range f.Params {
		if i > 0 {
			q.WriteString(", ")
		}
		name := ""
		if p.Name != nil {
			name = p.Name.Text
		}
		q.declarator(p.Type, name, nil)
	}
	switch {
	case f.Variadic && len(f.Params) > 0:
		q.WriteString(", ...")
	case f.Variadic:
		q.WriteString("...")
	case len(f.Params) == 0:
		q.WriteString("void")
	}
	q.WriteByte(')')
	return q.String()
}
