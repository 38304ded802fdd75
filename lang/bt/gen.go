package bt

import (
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/abi"
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
	// index is the probe's index in the manifest where the program found out.
	index *ir.Value

	// The function being built, and how it shares variables with the bodies
	// of its loops; see loop.go.
	entry, start *ir.Block
	nesting      *nesting
	nest         *nest
	parent       *gen
	up           *ir.Value // the frame of the function around
	shared       *frame
	result       *ir.Value // what a function of the script returns
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
	if g.syscall != "" {
		g.dispatchSyscall()
	}
	g.filterPID()
	if g.inst.Pred != nil {
		then := g.block("body")
		g.branch(g.inst.Pred, then, g.leave)
		g.b.At(then)
	}
	g.stmts(g.inst.Body)
	g.jump(g.leave)
	g.b.At(g.leave)
	g.b.Return(g.b.Const(ir.I64, 0))
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

// lose counts something that went wrong.
func (g *gen) lose(kind object.LossKind, name string) {
	loss := object.Loss{Kind: kind, Name: name, Line: g.b.Pos.Pos().Line}
	i, ok := g.losses[loss]
	if !ok {
		i = len(g.man.Losses)
		g.losses[loss] = i
		g.man.Losses = append(g.man.Losses, loss)
	}
	if g.lossVar == nil {
		g.lossVar = &ir.Global{Name: "skep_losses", Section: ".bss"}
		g.mod.Globals = append(g.mod.Globals, g.lossVar)
	}
	base := g.b.Global(g.lossVar)
	g.b.Atomic(ir.AtomicAdd, g.b.Offset(base, int64(8*i)), g.const64(1), false)
}

// filterPID leaves the program when the run is limited to another process.
func (g *gen) filterPID() {
	if g.opts.PID == 0 {
		return
	}
	switch g.inst.Ctx.Kind {
	case hook.Begin, hook.End, hook.Interval, hook.Self, hook.Test, hook.Bench, hook.Iter:
		return
	}
	tgid := g.b.Binary(ir.OpLShr, g.helper(hPidTgid), g.const64(32))
	ok := g.block("process")
	g.b.If(g.b.Compare(ir.OpEq, tgid, g.const64(int64(g.opts.PID))), ok, g.leave)
	g.b.At(ok)
}

// dispatchSyscall leaves the program for system calls that its probes do not
// name, and finds out which probe it serves.
func (g *gen) dispatchSyscall() {
	var nr *ir.Value
	if g.syscall == "sys_enter" {
		nr = g.b.Load(ir.I64, g.b.Offset(g.ctx, 8))
	} else {
		nr = g.register(g.rawArg(0), g.regs.SyscallNumber)
	}
	type entry struct{ nr, probe int }
	var entries []entry
	largest := 0
	for _, pt := range g.inst.Points {
		name := strings.TrimPrefix(strings.TrimPrefix(pt.Event, "sys_enter_"), "sys_exit_")
		n, ok := syscallNumber(g.arch, name)
		if !ok {
			// The kernel has the event, but no 64-bit program can cause it.
			continue
		}
		entries = append(entries, entry{n, g.probe(pt)})
		largest = max(largest, n)
	}
	if len(entries) == 0 {
		g.errorf(g.inst.Points[0].Span, "unknown-syscall", "no 64-bit program on %s can call %s", g.arch, g.inst.Points[0].Event)
		return
	}
	ok := g.block("syscall")
	if len(entries) == 1 {
		g.b.If(g.b.Compare(ir.OpEq, nr, g.const64(int64(entries[0].nr))), ok, g.leave)
		g.b.At(ok)
		g.index = g.const64(int64(entries[0].probe))
		return
	}
	// A table of probe index plus one by number, in read-only data.
	table := make([]byte, 2*(largest+1))
	for _, e := range entries {
		table[2*e.nr], table[2*e.nr+1] = byte(e.probe+1), byte((e.probe+1)>>8)
	}
	if g.target.ByteOrder().String() == "BigEndian" {
		for i := 0; i < len(table); i += 2 {
			table[i], table[i+1] = table[i+1], table[i]
		}
	}
	global := g.rodata("syscalls", table)
	global.Type = arrayOf(u16Type, len(table)/2)
	known := g.block("known")
	g.b.If(g.b.Compare(ir.OpULe, nr, g.const64(int64(largest))), known, g.leave)
	g.b.At(known)
	at := g.b.PtrAdd(g.b.Global(global), g.b.Binary(ir.OpShl, nr, g.const64(1)))
	found := g.b.Resize(g.b.Load(ir.I16, at), ir.I64, false)
	g.b.If(g.b.Compare(ir.OpNe, found, g.const64(0)), ok, g.leave)
	g.b.At(ok)
	g.index = g.b.Binary(ir.OpSub, found, g.const64(1))
}

// syscallNumber is the number of the system call whose tracepoint carries a name.
func syscallNumber(arch abi.Arch, entry string) (int, bool) {
	calls := abi.Syscalls()
	for i := range calls {
		if calls[i].Entry() == entry {
			if n, ok := calls[i].Number(arch); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// rodata adds constant bytes to the module.
func (g *gen) rodata(name string, data []byte) *ir.Global {
	g.literals++
	global := &ir.Global{Name: "skep_" + name + "_" + strconv.Itoa(g.literals), Section: ".rodata", Init: data, Type: arrayOf(u8Type, len(data))}
	g.mod.Globals = append(g.mod.Globals, global)
	return global
}

// rawArg is argument i of a raw tracepoint.
func (g *gen) rawArg(i int) *ir.Value { return g.b.Load(ir.I64, g.b.Offset(g.ctx, int64(8*i))) }

// register reads a register out of the struct pt_regs at address regs.
func (g *gen) register(regs *ir.Value, name string) *ir.Value {
	r, ok := g.regs.Lookup(name)
	if !ok {
		g.errorf(g.b.Pos, "unknown-register", "there is no register %q on %s", name, g.arch)
		return g.const64(0)
	}
	p := g.b.IntToPtr(g.b.Binary(ir.OpAdd, regs, g.const64(int64(r.Offset))), ir.PtrTo(ir.SpaceKernel))
	return g.b.Resize(g.b.Load(ir.IntType(8*r.Size), p), ir.I64, false)
}

// probeIndex is the index of the probe that fired.
func (g *gen) probeIndex() *ir.Value {
	if g.index != nil {
		return g.index
	}
	if len(g.inst.Points) == 1 {
		return g.const64(int64(g.probe(g.inst.Points[0])))
	}
	return g.helper(hAttachCookie, g.ctx)
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
	v := g.value(e)
	if v.Type.IsPtr() {
		v = g.b.PtrToInt(v)
	}
	g.b.If(g.b.Compare(ir.OpNe, v, g.const64(0)), then, els)
}
