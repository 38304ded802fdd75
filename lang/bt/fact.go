package bt

import (
	"github.com/skep-bpf/skep/facts"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
)

// rely notes that the code relies on a fact of the target that a loader cannot
// adjust, so that it can be compared where the object is loaded.
func (l *lowerer) rely(kind object.FactKind, name string, line int) {
	for _, f := range l.man.Facts {
		if f.Kind == kind && f.Name == name {
			return
		}
	}
	f := object.Fact{Kind: kind, Name: name, Line: line}
	value, err := facts.Value(l.target, f, l.opts.PID)
	if err != nil {
		value = facts.Unknown
	}
	if kind == object.FactLayout && value == facts.None {
		return // a type of the script's own
	}
	f.Value = value
	l.man.Facts = append(l.man.Facts, f)
}

// feature reports whether the target has a feature, and notes that the object
// relies on the answer.
func (g *gen) feature(name target.FeatureName) bool {
	g.rely(object.FactFeature, string(name), g.here())
	return g.target.Feature(name).Have
}

// file notes that the object relies on the contents of a user binary, where it
// does: a probe at a symbol finds its place when it is attached.
func (g *gen) file(pt check.Point) {
	if len(g.inst.Ctx.USDT) > 0 || len(g.info.UserAddrs) > 0 || g.info.UsesArgs {
		g.rely(object.FactFile, pt.Path, pt.Span.Pos().Line)
	}
}

// layout notes that the code relies on a property of a type of the kernel.
func (l *lowerer) layout(name string, line int) { l.rely(object.FactLayout, name, line) }

// here is the line that is being lowered.
func (g *gen) here() int {
	if g.b == nil {
		return g.inst.Points[0].Span.Pos().Line
	}
	return g.b.Pos.Pos().Line
}

// member notes that the code relies on the place of a member, which the
// loader does not adjust.
func (g *gen) member(s *check.Selection) {
	if s.Local {
		return
	}
	if name, ok := s.Member(); ok {
		g.layout(name, g.here())
	} else {
		g.unnamed()
	}
}

// unnamed notes that the code relies on a type that cannot be named, and so
// not be compared: it may be another in each kernel.
func (g *gen) unnamed() { g.rely(object.FactMachine, "kernel", g.here()) }

// copied notes that a value of the kernel's is copied as it lies in memory.
func (g *gen) copied(e syntax.Expr, t *check.Type) {
	switch f, ok := e.(*syntax.Field); {
	case t.Kind == check.Array && !ok, t.Kind != check.Array && t.Kind != check.Struct, t.Local:
	case ok && g.info.Fields[f].Struct != nil && (t.Kind == check.Array || t.BTF.TypeName() == ""):
		g.member(g.info.Fields[f])
	case t.Kind == check.Struct && t.BTF.TypeName() == "":
		g.unnamed()
	case t.Kind == check.Struct:
		g.layout(check.StructName(t.BTF)+" {}", g.here())
	}
}

// stride is the distance of elements of a type in bytes.
func (g *gen) stride(t *check.Type) int64 {
	elem := t
	for elem.Kind == check.Array {
		elem = elem.Elem
	}
	if elem.Kind == check.Struct && !elem.Local {
		if elem.BTF.TypeName() == "" {
			g.unnamed()
		} else {
			g.layout(check.StructName(elem.BTF), g.here())
		}
	}
	return int64(max(t.Size, 1))
}

// runnerVar is a variable that the runner sets before the programs are loaded,
// which is what the script calls name.
func (g *gen) runnerVar(variable, name string) *ir.Value {
	g.rely(object.FactRunner, name, g.here())
	return g.b.Load(ir.I64, g.b.Global(g.volatileVar(variable)))
}

// cpus is how many CPUs there may be.
func (g *gen) cpus() int {
	g.rely(object.FactMachine, "cpus", g.here())
	return g.target.CPUs()
}

// enums notes the enums whose constants are shown by their names.
func (l *lowerer) enums() {
	for t := range l.man.Types() {
		if t.Kind == object.TypeEnum && t.Name != "" {
			l.layout("enum "+t.Name, 0)
		}
	}
}

// probeFacts notes what the attach points of the script were resolved to.
func (l *lowerer) probeFacts() {
	for _, m := range l.res.Matches {
		l.rely(object.FactMatch, m.Point.String(), m.Span.Pos().Line)
	}
	for _, p := range l.res.Missing {
		l.rely(object.FactExists, p.Point.String(), p.Span.Pos().Line)
	}
	for _, r := range l.res.Relied {
		l.rely(object.FactKind(r.Kind), r.Name, r.Span.Pos().Line)
	}
}
