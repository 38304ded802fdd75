package check

import (
	"github.com/skep-bpf/skep/lang/bt/syntax"
)

// A userFunc is a function of the script.
type userFunc struct {
	decl *syntax.Func
	inst *Instance
}

// maxFuncParams is how many registers carry arguments.
const maxFuncParams = 5

// declareFuncs makes the functions of the script known by name, so that they
// may be used before they are declared.
func (c *checker) declareFuncs(list []*syntax.Func) {
	c.funcs = map[string]*userFunc{}
	for _, f := range list {
		if old := c.funcs[f.Name.Text]; old != nil {
			c.errorf(f.Name.Loc, "redeclared", "the function %s is already declared", f.Name.Text).NoteAt(old.decl.Name.Loc, "here")
			continue
		}
		if functions[f.Name.Text] != nil {
			c.errorf(f.Name.Loc, "redeclared", "%s is a function of the language", f.Name.Text).Notef("give yours another name")
			continue
		}
		if len(f.Params) > maxFuncParams {
			c.errorf(f.Params[maxFuncParams].Loc, "too-many-parameters", "a function takes at most %d parameters", maxFuncParams).
				Notef("a macro takes any number")
			continue
		}
		inst := &Instance{Func: f}
		if f.Result != nil {
			inst.Result = c.scalarType(f.Result)
		}
		c.funcs[f.Name.Text] = &userFunc{decl: f, inst: inst}
	}
}

// scalarType is the type of a parameter or result, which must fit a register.
func (c *checker) scalarType(e syntax.TypeExpr) *Type {
	t := c.typeExpr(e)
	switch {
	case t.Kind == None:
		return nil
	case !t.IsScalar():
		c.errorf(e.Span(), "type-mismatch", "functions take and return integers and pointers, this is %s", t).
			Notef("a macro takes values of every type")
		return tInvalid
	}
	return t
}

// takeFunction takes up the body of a function, its macros expanded.
func (c *checker) takeFunction(f *syntax.Func) {
	u := c.funcs[f.Name.Text]
	if u == nil || u.inst.Body != nil {
		return
	}
	u.inst.Func, u.inst.Body = f, f.Body
	u.inst.Points = []Point{{Name: f.Name.Text, Span: f.Name.Loc}}
	c.res.Funcs = append(c.res.Funcs, u.inst)
}

// params declares the parameters of a function.
func (c *checker) params(f *syntax.Func) {
	c.inst.Params = nil
	for _, p := range f.Params {
		v := c.declare(p.Var)
		v.Type, v.Declared = tInt64, true
		if p.Type != nil {
			if t := c.scalarType(p.Type); t != nil {
				v.Type = t
			}
		}
		c.inst.Params = append(c.inst.Params, v)
	}
}

func (c *checker) returnStmt(s *syntax.Return) {
	if s.X == nil {
		if c.inst.Result != nil {
			c.errorf(s.Loc, "type-mismatch", "the function returns %s, a value is missing", c.inst.Result)
		}
		return
	}
	t := c.expr(s.X)
	switch {
	case t.Kind == Invalid:
	case c.inst.Func == nil:
		if !t.IsScalar() {
			c.errorf(s.X.Span(), "type-mismatch", "a probe returns an integer, this is %s", describe(t))
		}
	case c.inst.Result == nil:
		c.errorf(s.X.Span(), "type-mismatch", "the function returns nothing").
			Notef("declare what it returns: fn %s(...) : %s", c.inst.Func.Name.Text, stored(t))
	case !assignable(c.inst.Result, t):
		c.errorf(s.X.Span(), "type-mismatch", "the function returns %s, this is %s", c.inst.Result, describe(t))
	}
}

// callUser checks a call of a function of the script.
func (c *checker) callUser(e *syntax.Call, u *userFunc) *Type {
	for i, a := range e.Args {
		t := c.expr(a)
		if i >= len(u.decl.Params) {
			continue
		}
		if !t.IsScalar() {
			c.errorf(a.Span(), "type-mismatch", "functions take integers and pointers, this is %s", describe(t))
		}
	}
	if len(e.Args) != len(u.decl.Params) {
		c.errorf(e.Parens, "wrong-argument-count", "%s takes %d arguments, here are %d", u.decl.Name.Text, len(u.decl.Params), len(e.Args)).
			NoteAt(u.decl.Name.Loc, "it is declared here")
		return tInvalid
	}
	c.info.Funcs[e] = u.inst
	if u.inst.Result == nil {
		return tNone
	}
	return u.inst.Result
}
