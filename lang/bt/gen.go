package bt

import (
	"strconv"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// A gen lowers one probe body.
type gen struct {
	*lowerer
	inst *check.Instance
	info *check.Info
	b    *ir.Builder
	ctx  *ir.Value

	vars  map[*check.Var]*ir.Value // addresses
	loops []loop
	leave *ir.Block // returns 0

	// syscall is "sys_enter" or "sys_exit" in a program that serves system
	// call tracepoints from the raw tracepoint of that name.
	syscall string
	// raw is set for raw tracepoints, and tracepoints that are attached as such.
	raw bool
	// index is the probe's index in the manifest where the program found out.
	index *ir.Value
	// probeOf are the indices of the probes by their attach points.
	probeOf map[string]int
	// members are those of an iterator's context, by their offset.
	members map[int]*ir.Value

	// The function being built, and how it shares variables with the bodies
	// of its loops; see loop.go.
	entry, start *ir.Block
	nesting      *nesting
	nest         *nest
	parent       *gen
	up           *ir.Value // the frame of the function around
	shared       *frame
}

type loop struct{ next, done *ir.Block }

func (g *gen) run(f *ir.Func) {
	g.b = ir.NewBuilder(f)
	g.ctx = f.Params()[0]
	nodes := []syntax.Node{g.inst.Body}
	if g.inst.Pred != nil {
		nodes = append(nodes, g.inst.Pred)
	}
	g.nesting = g.analyse(nodes...)
	g.nest = g.nesting.root
	g.begin(f)
	if g.inst.Ctx.Kind == hook.Test {
		g.nesting.result = g.nesting.own("result", check.Int64Type)
		g.variable(g.nesting.result)
	}
	g.prologue()
	if g.inst.Pred != nil {
		then := g.block("body")
		g.branch(g.inst.Pred, then, g.leave)
		g.b.At(then)
	}
	g.stmts(g.inst.Body)
	g.jump(g.leave)
	g.b.At(g.leave)
	if g.nesting.result != nil {
		g.b.Return(g.b.Load(ir.I64, g.variable(g.nesting.result)))
	} else {
		g.b.Return(g.b.Const(ir.I64, 0))
	}
	g.end()
}

func (g *gen) block(name string) *ir.Block { return g.b.Func.NewBlock(name) }

// jump goes to a block unless the current one has already ended.
func (g *gen) jump(to *ir.Block) {
	if !g.b.Terminated() {
		g.b.Jump(to)
	}
}

func (g *gen) at(span source.Span) func() {
	old := g.b.Pos
	if span.IsValid() {
		g.b.Pos = span
	}
	return func() { g.b.Pos = old }
}

func (g *gen) helper(h ir.Extern, args ...*ir.Value) *ir.Value {
	return g.b.CallExtern(g.mod.Helper(h), args...)
}

func (g *gen) const64(n int64) *ir.Value { return g.b.Const(ir.I64, n) }

// ifThen runs then when cond holds.
func (g *gen) ifThen(cond *ir.Value, then func()) {
	yes, done := g.block("then"), g.block("done")
	g.b.If(cond, yes, done)
	g.b.At(yes)
	then()
	g.jump(done)
	g.b.At(done)
}

// ifElse runs one of two.
func (g *gen) ifElse(cond *ir.Value, then, otherwise func()) {
	yes, no, done := g.block("then"), g.block("else"), g.block("done")
	g.b.If(cond, yes, no)
	g.b.At(yes)
	then()
	g.jump(done)
	g.b.At(no)
	otherwise()
	g.jump(done)
	g.b.At(done)
}

// loss returns the index of a counter of what may go wrong, at a line.
func (l *lowerer) loss(kind object.LossKind, name string, line int) int {
	loss := object.Loss{Kind: kind, Name: name, Line: line}
	i, ok := l.losses[loss]
	if !ok {
		i = len(l.man.Losses)
		l.losses[loss] = i
		l.man.Losses = append(l.man.Losses, loss)
	}
	if l.lossVar == nil {
		l.lossVar = &ir.Global{Name: "skep_losses", Section: ".bss"}
		l.mod.Globals = append(l.mod.Globals, l.lossVar)
	}
	return i
}

// lose counts something that went wrong.
func (g *gen) lose(kind object.LossKind, name string) {
	i := g.loss(kind, name, g.b.Pos.Pos().Line)
	g.b.Atomic(ir.AtomicAdd, g.b.Offset(g.b.Global(g.lossVar), int64(8*i)), g.const64(1), false)
}

// rodata adds constant bytes to the module.
func (g *gen) rodata(name string, data []byte) *ir.Global {
	g.literals++
	global := &ir.Global{Name: "skep_" + name + "_" + strconv.Itoa(g.literals), Section: ".rodata", Init: data, Type: arrayOf(u8Type, len(data))}
	g.mod.Globals = append(g.mod.Globals, global)
	return global
}

func (g *gen) stmts(b *syntax.Block) {
	for _, s := range b.Stmts {
		if g.b.Terminated() {
			// What follows a jump is never run.
			return
		}
		g.stmt(s)
	}
}

func (g *gen) stmt(s syntax.Stmt) {
	defer g.at(s.Span())()
	switch s := s.(type) {
	case *syntax.ExprStmt:
		g.discard(s.X)
	case *syntax.Discard:
		g.discard(s.X)
	case *syntax.Assign:
		g.assign(s)
	case *syntax.Let:
		v := g.info.Vars[s.Var]
		addr := g.variable(v)
		if s.Value != nil {
			g.store(addr, s.Value, v.Type)
		} else if v.Type != nil {
			g.b.MemZero(addr, v.Type.Size)
		}
	case *syntax.Block:
		g.stmts(s)
	case *syntax.If:
		g.ifStmt(s)
	case *syntax.While:
		g.while(s)
	case *syntax.Unroll:
		k := g.info.Consts[s.Count].Int
		done := g.block("unrolled")
		for range k {
			next := g.block("unroll")
			g.loops = append(g.loops, loop{next, done})
			g.stmts(s.Body)
			g.loops = g.loops[:len(g.loops)-1]
			g.jump(next)
			g.b.At(next)
		}
		g.jump(done)
		g.b.At(done)
	case *syntax.For:
		g.forLoop(s)
	case *syntax.Jump:
		l := g.loops[len(g.loops)-1]
		if s.Continue {
			g.b.Jump(l.next)
		} else {
			g.b.Jump(l.done)
		}
	case *syntax.Return:
		g.returnStmt(s)
	}
}

func (g *gen) ifStmt(s *syntax.If) {
	if k, ok := g.info.Consts[s.Cond]; ok && !k.IsString {
		if k.Int != 0 {
			g.stmts(s.Then)
		} else if s.Else != nil {
			g.stmt(s.Else)
		}
		return
	}
	then, done := g.block("then"), g.block("endif")
	els := done
	if s.Else != nil {
		els = g.block("else")
	}
	g.branch(s.Cond, then, els)
	g.b.At(then)
	g.stmts(s.Then)
	g.jump(done)
	if s.Else != nil {
		g.b.At(els)
		g.stmt(s.Else)
		g.jump(done)
	}
	g.b.At(done)
}

// branch goes to then when a condition holds, else to els.
func (g *gen) branch(e syntax.Expr, then, els *ir.Block) {
	defer g.at(e.Span())()
	switch e := e.(type) {
	case *syntax.Binary:
		switch e.Op {
		case syntax.OpLogAnd:
			mid := g.block("and")
			g.branch(e.X, mid, els)
			g.b.At(mid)
			g.branch(e.Y, then, els)
			return
		case syntax.OpLogOr:
			mid := g.block("or")
			g.branch(e.X, then, mid)
			g.b.At(mid)
			g.branch(e.Y, then, els)
			return
		}
		if isCompare(e.Op) {
			g.b.If(g.compare(e), then, els)
			return
		}
	case *syntax.Unary:
		if e.Op == syntax.OpNot {
			g.branch(e.X, els, then)
			return
		}
	}
	if differ, ok := g.equalText(e, false); ok {
		g.b.If(differ, then, els)
		return
	}
	v := g.value(e)
	if v.Type.IsPtr() {
		v = g.b.PtrToInt(v)
	}
	g.b.If(g.b.Compare(ir.OpNe, v, g.const64(0)), then, els)
}
