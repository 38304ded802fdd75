package check

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

// An expander puts the bodies of macros in the place of their uses. Each use
// gets nodes of its own, since the tables of [Info] go by node.
type expander struct {
	c      *checker
	macros map[string][]*syntax.Macro
	serial int
	depth  int
	tokens int
}

// maxMacroDepth and maxMacroNodes bound what macros may grow to.
const (
	maxMacroDepth = 50
	maxMacroNodes = 1 << 20
)

// A binding is what the names in a macro's body stand for at one use; nil
// outside of macros.
type binding struct {
	macro  *syntax.Macro
	vars   map[string]*syntax.Var
	maps   map[string]*syntax.Map
	idents map[string]syntax.Expr
	serial int
}

func (c *checker) expander(macros []*syntax.Macro) *expander {
	x := &expander{c: c, macros: map[string][]*syntax.Macro{}}
	for _, m := range macros {
		for _, old := range x.macros[m.Name.Text] {
			if len(old.Params) == len(m.Params) {
				c.errorf(m.Name.Loc, "redeclared", "the macro %s with %d parameters is already declared", m.Name.Text, len(m.Params)).
					NoteAt(old.Name.Loc, "here")
			}
		}
		x.macros[m.Name.Text] = append(x.macros[m.Name.Text], m)
	}
	return x
}

// expand returns a copy of a declaration or expression with all macros expanded.
func expand[T any](x *expander, n T) T {
	return x.copy(reflect.ValueOf(n), nil).Interface().(T)
}

var (
	varType = reflect.TypeFor[*syntax.Var]()
	mapType = reflect.TypeFor[*syntax.Map]()
)

func (x *expander) copy(v reflect.Value, b *binding) reflect.Value {
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return v
		}
		if e, ok := v.Interface().(syntax.Expr); ok {
			out := reflect.New(v.Type()).Elem()
			out.Set(reflect.ValueOf(x.expr(e, b)))
			return out
		}
		out := reflect.New(v.Type()).Elem()
		out.Set(x.copy(v.Elem(), b))
		return out
	case reflect.Pointer:
		if v.IsNil() || v.Type().Elem().Kind() != reflect.Struct || v.Type().Elem().PkgPath() != reflect.TypeFor[syntax.Var]().PkgPath() {
			return v
		}
		switch v.Type() {
		case varType:
			return reflect.ValueOf(x.variable(v.Interface().(*syntax.Var), b))
		case mapType:
			return reflect.ValueOf(x.mapName(v.Interface().(*syntax.Map), b))
		}
		x.tokens++
		out := reflect.New(v.Type().Elem())
		for i := range v.Elem().NumField() {
			f := v.Elem().Field(i)
			if out.Elem().Field(i).CanSet() {
				out.Elem().Field(i).Set(x.copy(f, b))
			}
		}
		return out
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(x.copy(v.Index(i), b))
		}
		return out
	}
	return v
}

func (x *expander) variable(v *syntax.Var, b *binding) *syntax.Var {
	n := *v
	if b != nil {
		if bound := b.vars[v.Name]; bound != nil {
			n.Name = bound.Name
		} else {
			// A name that no script can write, so that the macro neither sees
			// nor disturbs the variables around it.
			n.Name = fmt.Sprintf("%s#%d", v.Name, b.serial)
		}
	}
	return &n
}

func (x *expander) mapName(m *syntax.Map, b *binding) *syntax.Map {
	n := *m
	if b != nil {
		bound := b.maps[m.Name]
		if bound == nil {
			x.c.errorf(m.Loc, "unhygienic-macro", "the macro %s uses the map @%s, which is not given to it", b.macro.Name.Text, m.Name).
				Notef("make it a parameter: macro %s(@%s)", b.macro.Name.Text, m.Name)
			return &n
		}
		n.Name = bound.Name
	}
	return &n
}

func (x *expander) expr(e syntax.Expr, b *binding) syntax.Expr {
	switch e := e.(type) {
	case *syntax.Ident:
		if b != nil {
			if bound := b.idents[e.Name]; bound != nil {
				// Each use gets nodes of its own.
				return x.copy(reflect.ValueOf(bound), nil).Interface().(syntax.Expr)
			}
		}
		if list := x.macros[e.Name]; list != nil {
			return x.use(list, e.Loc, e.Name, nil, b)
		}
	case *syntax.Call:
		if list := x.macros[e.Func.Text]; list != nil {
			return x.use(list, e.Loc, e.Func.Text, e.Args, b)
		}
		if _, builtin := builtins[e.Func.Text]; builtin && len(e.Args) == 0 {
			// pid() is pid.
			return &syntax.Ident{Loc: e.Loc, Name: e.Func.Text}
		}
	}
	return x.copy(reflect.ValueOf(e), b).Interface().(syntax.Expr)
}

// use expands one use of a macro.
func (x *expander) use(list []*syntax.Macro, span source.Span, name string, args []syntax.Expr, b *binding) syntax.Expr {
	i := slices.IndexFunc(list, func(m *syntax.Macro) bool { return len(m.Params) == len(args) })
	if i < 0 {
		x.c.errorf(span, "wrong-argument-count", "the macro %s takes %s, here are %d", name, counted(len(list[0].Params), "argument"), len(args)).
			NoteAt(list[0].Name.Loc, "it is declared here")
		return &syntax.BadExpr{Loc: span}
	}
	m := list[i]
	if x.depth >= maxMacroDepth || x.tokens > maxMacroNodes {
		x.c.errorf(span, "macro-too-deep", "the macro %s does not come to an end", name).NoteAt(m.Name.Loc, "it is declared here")
		return &syntax.BadExpr{Loc: span}
	}
	x.serial++
	in := &binding{macro: m, vars: map[string]*syntax.Var{}, maps: map[string]*syntax.Map{}, idents: map[string]syntax.Expr{}, serial: x.serial}
	for i, p := range m.Params {
		arg := x.expr(args[i], b)
		want := ""
		switch p := p.(type) {
		case *syntax.Var:
			if v, ok := arg.(*syntax.Var); ok {
				in.vars[p.Name] = v
			} else {
				want = "a scratch variable"
			}
		case *syntax.Map:
			if v, ok := arg.(*syntax.Map); ok {
				in.maps[p.Name] = v
			} else {
				want = "a map"
			}
		case *syntax.Ident:
			in.idents[p.Name] = arg
		}
		if want != "" {
			x.c.errorf(args[i].Span(), "type-mismatch", "the macro %s needs %s here", name, want).
				NoteAt(p.Span(), "it is declared so here")
			return &syntax.BadExpr{Loc: span}
		}
	}
	x.depth++
	block := x.copy(reflect.ValueOf(m.Body), in).Interface().(*syntax.Block)
	x.depth--
	return &syntax.BlockExpr{Block: block}
}

// plainName is a variable's name as its author wrote it.
func plainName(name string) string {
	name, _, _ = strings.Cut(name, "#")
	return name
}
