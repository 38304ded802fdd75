package bt

import (
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
)

// declareFuncs makes the functions of the script, which may call one another.
func (l *lowerer) declareFuncs() {
	l.funcs = map[*check.Instance]*ir.Func{}
	for _, inst := range l.res.Funcs {
		var params []ir.Type
		for range inst.Params {
			params = append(params, ir.I64)
		}
		f := l.mod.NewFunc("fn_"+inst.Func.Name.Text, ir.Static, params, ir.I64)
		f.Pos = inst.Func.Loc
		l.funcs[inst] = f
	}
}

// function lowers the body of a function of the script.
func (l *lowerer) function(inst *check.Instance) {
	f := l.funcs[inst]
	g := &gen{lowerer: l, inst: inst, info: &inst.Info, vars: map[*check.Var]*ir.Value{}, b: ir.NewBuilder(f)}
	// A parameter that only the body of a loop speaks of is the function's.
	nodes := []syntax.Node{inst.Body}
	for _, p := range inst.Func.Params {
		nodes = append(nodes, p.Var)
	}
	g.nesting = g.analyse(nodes...)
	g.nest = g.nesting.root
	g.begin(f)
	g.result = g.b.Alloca(8, nil, "result")
	g.atEntry(func() { g.b.Store(g.result, g.const64(0)) })
	for i, v := range inst.Params {
		p := f.Params()[i]
		p.Name = v.Name
		g.b.Store(g.variable(v), g.wrap(p, v.Type))
	}
	g.stmts(inst.Body)
	g.jump(g.leave)
	g.b.At(g.leave)
	g.b.Return(g.b.Load(ir.I64, g.result))
	g.end()
}

// callUser calls a function of the script.
func (g *gen) callUser(e *syntax.Call, inst *check.Instance) *ir.Value {
	var args []*ir.Value
	for _, a := range e.Args {
		args = append(args, g.int(g.value(a)))
	}
	r := g.b.Call(g.funcs[inst], args...)
	if inst.Result == nil {
		return g.const64(0)
	}
	return g.wrap(r, inst.Result)
}

// returnStmt leaves a probe or function.
func (g *gen) returnStmt(s *syntax.Return) {
	if s.X != nil {
		switch {
		case g.inst.Func == nil:
			g.discard(s.X)
		case g.parent != nil:
			g.errorf(s.Loc, "unsupported", "a value cannot be returned out of this loop").
				Notef("keep it in a variable, leave the loop by break and return it there")
		default:
			g.b.Store(g.result, g.wrap(g.int(g.value(s.X)), g.inst.Result))
		}
	}
	g.jump(g.leave)
}
