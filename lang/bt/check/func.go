package check

import (
	"github.com/cilium/ebpf/btf"

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
		inst := &Instance{Func: f, Info: *newInfo()}
		c.inst, c.info, c.scope = inst, &inst.Info, &scope{vars: map[string]*Var{}}
		c.params(f)
		if f.Result != nil {
			inst.Result = c.valueType(f.Result)
		}
		c.funcs[f.Name.Text] = &userFunc{decl: f, inst: inst}
	}
}

// valueType is the type of a parameter or result, nil for void.
func (c *checker) valueType(e syntax.TypeExpr) *Type {
	t := c.typeExpr(e)
	switch t.Kind {
	case None:
		return nil
	case Struct:
		full, err := c.complete(t.BTF)
		if err != nil {
			c.errorf(e.Span(), "unknown-type", "the size of %s is not known: %v", t, err)
			return tInvalid
		}
		n := *t
		n.Size, _ = btf.Sizeof(full)
		t = &n
	}
	return stored(t)
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

// finishFuncs finds out which functions may end the whole program, and refuses
// those that call themselves or have more parameters than there are registers.
func (c *checker) finishFuncs() {
	c.findRecursion()
	for again := true; again; {
		again = false
		for _, inst := range c.res.Funcs {
			if inst.Exits {
				continue
			}
			syntax.Walk(inst.Body, func(n syntax.Node) bool {
				if call, ok := n.(*syntax.Call); ok {
					callee := inst.Info.Funcs[call]
					name := call.Func.Text
					inst.Exits = inst.Exits || callee != nil && callee.Exits || callee == nil && (name == "exit" || name == "assert")
				}
				return true
			})
			again = again || inst.Exits
		}
	}
	for _, inst := range c.res.Funcs {
		limit := maxFuncParams
		why := ""
		switch {
		case inst.Exits:
			limit, why = limit-1, " when it may end the program"
		case inst.Result != nil && !inst.Result.IsScalar():
			limit, why = limit-1, " when its result does not fit a register"
		}
		if len(inst.Func.Params) > limit {
			c.errorf(inst.Func.Params[limit].Loc, "too-many-parameters", "a function takes at most %d parameters%s", limit, why).
				Notef("a tuple is one parameter; a macro takes any number")
		}
	}
}

// findRecursion refuses functions that call themselves, directly or not.
func (c *checker) findRecursion() {
	state := map[*Instance]int{} // 1 while what it calls is walked, 2 after it
	var visit func(inst *Instance)
	visit = func(inst *Instance) {
		state[inst] = 1
		syntax.Walk(inst.Body, func(n syntax.Node) bool {
			call, ok := n.(*syntax.Call)
			if !ok {
				return true
			}
			switch callee := inst.Info.Funcs[call]; {
			case callee == nil:
			case state[callee] == 1:
				c.errorf(call.Func.Loc, "recursion", "%s calls itself here, which programs in the kernel cannot", call.Func.Text).
					NoteAt(callee.Func.Name.Loc, "it is declared here")
			case state[callee] == 0:
				visit(callee)
			}
			return true
		})
		state[inst] = 2
	}
	for _, inst := range c.res.Funcs {
		if state[inst] == 0 {
			visit(inst)
		}
	}
}

// params declares the parameters of a function.
func (c *checker) params(f *syntax.Func) {
	before := c.inst.Params
	c.inst.Params = nil
	for i, p := range f.Params {
		v := c.declare(p.Var)
		v.Type, v.Declared = tInt64, true
		if i < len(before) {
			v.Type = before[i].Type
		} else if p.Type != nil {
			if t := c.valueType(p.Type); t != nil {
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
		if i >= len(u.inst.Params) {
			continue
		}
		if p := u.inst.Params[i]; t.Kind == None || t.Kind == Agg || t.Kind == Mode || t.Kind == Args || !assignable(p.Type, t) {
			c.errorf(a.Span(), "type-mismatch", "$%s of %s is %s, this is %s", p.Name, u.decl.Name.Text, p.Type, describe(t)).
				NoteAt(p.Decl, "declared here")
		}
	}
	if len(e.Args) != len(u.decl.Params) {
		c.errorf(e.Parens, "wrong-argument-count", "%s takes %s, here are %d", u.decl.Name.Text, counted(len(u.decl.Params), "argument"), len(e.Args)).
			NoteAt(u.decl.Name.Loc, "it is declared here")
		return tInvalid
	}
	c.info.Funcs[e] = u.inst
	if u.inst.Result == nil {
		return tNone
	}
	return u.inst.Result
}
