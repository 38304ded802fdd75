package bt

import (
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
)

// Functions of the script take and return scalars in registers. What does not
// fit one is handed over by the address of a copy that is the callee's own, and
// comes back through a last parameter: the address of an out record.

// The out record of a function, offsets in bytes.
const (
	outExit   = 0 // 1 once the program is to end
	outResult = 8
)

// needsOut reports whether a function has an out record.
func needsOut(inst *check.Instance) bool {
	return inst.Exits || inst.Result != nil && !inst.Result.IsScalar()
}

func outSize(inst *check.Instance) int {
	if inst.Result == nil || inst.Result.IsScalar() {
		return outResult
	}
	return outResult + inst.Result.Size
}

// declareFuncs makes the functions of the script, which may call one another.
func (l *lowerer) declareFuncs() {
	l.funcs = map[*check.Instance]*ir.Func{}
	for _, inst := range l.res.Funcs {
		var params []ir.Type
		for _, v := range inst.Params {
			if v.Type.IsScalar() {
				params = append(params, ir.I64)
			} else {
				params = append(params, ir.MemPtr(ir.SpaceStack, uint32(v.Type.Size)))
			}
		}
		if needsOut(inst) {
			params = append(params, ir.MemPtr(ir.SpaceStack, uint32(outSize(inst))))
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
	if inst.Exits {
		g.nesting.exit = g.nesting.own("exit", check.Int64Type)
		g.variable(g.nesting.exit)
	}
	if inst.Result != nil {
		g.nesting.result = g.nesting.own("result", inst.Result)
		g.variable(g.nesting.result)
	}
	for i, v := range inst.Params {
		p := f.Params()[i]
		p.Name = v.Name
		if v.Type.IsScalar() {
			g.b.Store(g.variable(v), g.wrap(p, v.Type))
		} else {
			g.b.MemCopy(g.variable(v), p, v.Type.Size)
		}
	}
	g.stmts(inst.Body)
	g.jump(g.leave)
	g.b.At(g.leave)
	if needsOut(inst) {
		out := f.Params()[len(f.Params())-1]
		out.Name = "out"
		exit := g.const64(0)
		if inst.Exits {
			exit = g.b.Load(ir.I64, g.variable(g.nesting.exit))
		}
		g.b.Store(g.b.Offset(out, outExit), exit)
		if n := outSize(inst) - outResult; n > 0 {
			g.b.MemCopy(g.b.Offset(out, outResult), g.variable(g.nesting.result), n)
		}
	}
	if inst.Result != nil && inst.Result.IsScalar() {
		g.b.Return(g.b.Load(ir.I64, g.variable(g.nesting.result)))
	} else {
		g.b.Return(g.const64(0))
	}
	g.end()
}

// own makes a variable that no statement names, which all bodies of loops share.
func (n *nesting) own(name string, t *check.Type) *check.Var {
	v := &check.Var{Name: name, Type: t, Hoisted: true}
	n.owner[v], n.captured[v] = n.root, len(n.nests) > 0
	return v
}

// callUser calls a function of the script. It returns its result when that is
// a scalar, and the address of the out record where there is one.
func (g *gen) callUser(e *syntax.Call, inst *check.Instance) (result, out *ir.Value) {
	var args []*ir.Value
	for i, a := range e.Args {
		t := inst.Params[i].Type
		if t.IsScalar() {
			args = append(args, g.int(g.value(a)))
			continue
		}
		tmp := g.b.Alloca(t.Size, nil, inst.Params[i].Name)
		g.into(tmp, a, t)
		args = append(args, tmp)
	}
	if needsOut(inst) {
		out = g.b.Alloca(outSize(inst), nil, "out")
		args = append(args, out)
	}
	r := g.b.Call(g.funcs[inst], args...)
	if inst.Exits {
		g.ifThen(g.b.Compare(ir.OpNe, g.b.Load(ir.I64, g.b.Offset(out, outExit)), g.const64(0)), g.exit)
	}
	if inst.Result == nil || !inst.Result.IsScalar() {
		return g.const64(0), out
	}
	return g.wrap(r, inst.Result), out
}

// exit leaves the program, from within its loops and functions too.
func (g *gen) exit() {
	if g.inst.Func != nil {
		g.b.Store(g.variable(g.nesting.exit), g.const64(1))
	}
	g.b.Jump(g.leave)
}

// returnStmt leaves a probe or function.
func (g *gen) returnStmt(s *syntax.Return) {
	if s.X != nil {
		if g.nesting.result == nil {
			g.discard(s.X)
		} else {
			g.store(g.variable(g.nesting.result), s.X, g.nesting.result.Type)
		}
	}
	g.jump(g.leave)
}
