package bt

import (
	"slices"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"

	"github.com/cilium/ebpf/btf"
)

func (g *gen) typeOf(e syntax.Expr) *check.Type { return g.info.Types[e] }

func isCompare(op syntax.Op) bool { return op >= syntax.OpLt && op <= syntax.OpNe }

// discard computes an expression for its effects.
func (g *gen) discard(e syntax.Expr) {
	switch e := e.(type) {
	case *syntax.Call:
		_, constant := g.info.Consts[e]
		t := g.typeOf(e)
		switch {
		case constant && g.info.Funcs[e] == nil: // getopt, strlen of a literal
		case g.info.Funcs[e] != nil, t.Kind == check.None, t.IsScalar():
			g.call(e)
		default:
			g.memory(e)
		}
		return
	case *syntax.IncDec:
		g.incDec(e)
		return
	case *syntax.BlockExpr:
		g.blockInto(e.Block, g.discard)
		return
	case *syntax.IfExpr:
		g.ifInto(e.If, g.discard)
		return
	case *syntax.Ternary:
		if g.typeOf(e).Kind == check.None {
			then, els, done := g.block("then"), g.block("else"), g.block("done")
			g.branch(e.Cond, then, els)
			g.b.At(then)
			g.discard(e.Then)
			g.jump(done)
			g.b.At(els)
			g.discard(e.Else)
			g.jump(done)
			g.b.At(done)
			return
		}
	}
	if t := g.typeOf(e); t.IsScalar() {
		g.value(e)
	} else if t.Kind == check.Struct || t.Kind == check.Array || t.Kind == check.String && !calls(e) {
		// Nothing happens when it is not looked at, but to what points to it.
		if u, ok := e.(*syntax.Unary); ok {
			g.discard(u.X)
		}
	} else {
		g.memory(e)
	}
}

// calls reports whether something in an expression is called or changed.
func calls(e syntax.Expr) bool {
	found := false
	syntax.Inspect(e, func(n syntax.Node) {
		switch n.(type) {
		case *syntax.Call, *syntax.IncDec, *syntax.BlockExpr, *syntax.IfExpr:
			found = true
		}
	})
	return found
}

// value computes a scalar: an I64 extended by the sign of its type, or a
// pointer that the verifier knows.
func (g *gen) value(e syntax.Expr) *ir.Value {
	defer g.at(e.Span())()
	t := g.typeOf(e)
	if k, ok := g.info.Consts[e]; ok && !k.IsString {
		return g.const64(k.Int)
	}
	switch e := e.(type) {
	case *syntax.Ident:
		return g.ident(e)
	case *syntax.Var:
		return g.loadScalar(g.variable(g.info.Vars[e]), irType(t))
	case *syntax.Map, *syntax.MapIndex:
		return g.readMap(e)
	case *syntax.Unary:
		return g.unary(e)
	case *syntax.IncDec:
		return g.incDec(e)
	case *syntax.Binary:
		return g.binary(e)
	case *syntax.Cast:
		return g.cast(e)
	case *syntax.Ternary:
		if v, ok := g.truthOf(e); ok {
			return v
		}
		return g.choose(t, func(then, els *ir.Block) {
			if e.Then != nil {
				g.branch(e.Cond, then, els)
				return
			}
			g.b.If(g.b.Compare(ir.OpNe, g.int(g.value(e.Cond)), g.const64(0)), then, els)
		}, func() *ir.Value {
			if e.Then == nil {
				return g.value(e.Cond)
			}
			return g.value(e.Then)
		}, func() *ir.Value { return g.value(e.Else) })
	case *syntax.Field, *syntax.Index, *syntax.TupleField:
		return g.load(g.place(e))
	case *syntax.Call:
		return g.call(e)
	case *syntax.Comptime:
		return g.value(e.X)
	case *syntax.BlockExpr:
		return g.blockValue(e.Block)
	case *syntax.IfExpr:
		return g.ifValue(e.If, t)
	}
	g.errorf(e.Span(), "unsupported", "this expression cannot be compiled yet")
	return g.const64(0)
}

func (g *gen) blockValue(b *syntax.Block) *ir.Value {
	result := g.const64(0)
	g.blockInto(b, func(x syntax.Expr) { result = g.value(x) })
	return result
}

// blockInto runs a block that is an expression, and hands over the expression
// that is its value.
func (g *gen) blockInto(b *syntax.Block, with func(x syntax.Expr)) {
	value := b.Value()
	for i, s := range b.Stmts {
		if g.b.Terminated() {
			return
		}
		if value != nil && i == len(b.Stmts)-1 {
			with(value)
			return
		}
		g.stmt(s)
	}
}

// ifInto is blockInto for an if.
func (g *gen) ifInto(s *syntax.If, with func(x syntax.Expr)) {
	then, els, done := g.block("then"), g.block("else"), g.block("chosen")
	g.branch(s.Cond, then, els)
	g.b.At(then)
	g.blockInto(s.Then, with)
	g.jump(done)
	g.b.At(els)
	switch els := s.Else.(type) {
	case *syntax.Block:
		g.blockInto(els, with)
	case *syntax.If:
		g.ifInto(els, with)
	}
	g.jump(done)
	g.b.At(done)
}

func (g *gen) ifValue(s *syntax.If, t *check.Type) *ir.Value {
	return g.choose(t, func(then, els *ir.Block) { g.branch(s.Cond, then, els) },
		func() *ir.Value { return g.blockValue(s.Then) },
		func() *ir.Value {
			switch els := s.Else.(type) {
			case *syntax.Block:
				return g.blockValue(els)
			case *syntax.If:
				return g.ifValue(els, t)
			}
			return g.const64(0)
		})
}

// choose computes one of two scalars.
func (g *gen) choose(t *check.Type, cond func(then, els *ir.Block), x, y func() *ir.Value) *ir.Value {
	then, els, done := g.block("then"), g.block("else"), g.block("chosen")
	typ := irType(t)
	result := done.NewParam(typ, "")
	cond(then, els)
	for _, side := range []struct {
		block *ir.Block
		value func() *ir.Value
	}{{then, x}, {els, y}} {
		g.b.At(side.block)
		v := side.value()
		if !g.b.Terminated() {
			if typ == ir.I64 {
				v = g.int(v)
			}
			g.b.Jump(done, v)
		}
	}
	g.b.At(done)
	return result
}

// truthOf is the value of c ? 1 : 0, where c is a comparison of numbers.
func (g *gen) truthOf(e *syntax.Ternary) (*ir.Value, bool) {
	c, ok := e.Cond.(*syntax.Binary)
	if !ok || e.Then == nil || !isCompare(c.Op) || !g.typeOf(c.X).IsScalar() || !g.typeOf(c.Y).IsScalar() {
		return nil, false
	}
	one, ok1 := g.info.Consts[e.Then]
	none, ok2 := g.info.Consts[e.Else]
	if !ok1 || !ok2 || one.IsString || none.IsString || one.Int != 1 || none.Int != 0 {
		return nil, false
	}
	return g.binary(c), true
}

// int is v as a number.
func (g *gen) int(v *ir.Value) *ir.Value {
	if v.Type.IsPtr() {
		return g.b.PtrToInt(v)
	}
	return g.b.Resize(v, ir.I64, false)
}

// number is v as a number that can be computed with: the verifier lets nothing be
// done with a pointer to an object that it knows, until it lost sight of it.
func (g *gen) number(v *ir.Value) *ir.Value {
	if !v.Type.IsPtr() || v.Type.Space != ir.SpaceBTF {
		return g.int(v)
	}
	known, number := g.b.Alloca(8, nil, "known"), g.b.Alloca(8, nil, "number")
	g.b.Store(known, v)
	g.helper(hReadKernel, number, g.const64(8), g.b.PtrCast(known, ir.PtrTo(ir.SpaceKernel)))
	return g.b.Load(ir.I64, number)
}

func (g *gen) ident(e *syntax.Ident) *ir.Value {
	b := g.info.Idents[e]
	if b == nil {
		g.errorf(e.Loc, "unsupported", "%s cannot be compiled yet", e.Name)
		return g.const64(0)
	}
	switch b.Name {
	case "pid":
		return g.pid()
	case "tid":
		return g.low32(g.pidTgid())
	case "usermode":
		return g.usermode()
	case "uid", "username":
		return g.low32(g.helper(hUIDGID))
	case "gid":
		return g.b.Binary(ir.OpLShr, g.helper(hUIDGID), g.const64(32))
	case "nsecs":
		return g.helper(hKtimeBootNS)
	case "elapsed":
		return g.b.Binary(ir.OpSub, g.helper(hKtimeBootNS), g.runnerVar("skep_start_ns", "elapsed"))
	case "jiffies":
		return g.helper(hJiffies)
	case "cpu":
		return g.low32(g.helper(hProcessorID))
	case "ppid":
		return g.kernelField(g.helper(hTaskBTF), "task_struct", ir.I32, "real_parent", "tgid")
	case "leader_tid":
		return g.kernelField(g.helper(hTaskBTF), "task_struct", ir.I32, "group_leader", "pid")
	case "has_cpid", "cpid":
		v := g.runnerVar("skep_cpid", "cpid")
		if b.Name == "has_cpid" {
			return g.b.Resize(g.b.Compare(ir.OpNe, v, g.const64(0)), ir.I64, false)
		}
		return v
	case "numaid":
		return g.low32(g.helper(hNUMANode))
	case "ncpus":
		return g.const64(int64(g.cpus()))
	case "cgroup":
		return g.helper(hCgroupID)
	case "rand":
		return g.low32(g.helper(hPrandom))
	case "probe":
		return g.probeIndex()
	case "curtask":
		return g.helper(hTaskBTF)
	case "ctx":
		return g.ctx
	case "arg":
		return g.argument(b.N)
	case "sarg":
		return g.stackArgument(b.N)
	case "retval":
		return g.retval()
	case "func":
		return g.helper(hFuncIP, g.ctx)
	}
	g.errorf(e.Loc, "unsupported", "%s cannot be compiled yet", e.Name)
	return g.const64(0)
}

func (g *gen) low32(v *ir.Value) *ir.Value {
	return g.b.Resize(g.b.Resize(v, ir.I32, false), ir.I64, false)
}

// volatileVar is a 64-bit read-only variable that the runner sets.
func (l *lowerer) volatileVar(name string) *ir.Global {
	for _, v := range l.mod.Globals {
		if v.Name == name {
			return v
		}
	}
	v := &ir.Global{Name: name, Section: ".rodata", Type: u64Type, Init: make([]byte, 8), Volatile: true}
	l.mod.Globals = append(l.mod.Globals, v)
	return v
}

// loadScalar reads a variable.
func (g *gen) loadScalar(p *ir.Value, t ir.Type) *ir.Value { return g.b.Load(t, p) }

func (g *gen) unary(e *syntax.Unary) *ir.Value {
	switch e.Op {
	case syntax.OpDeref:
		return g.loadCounted(g.place(e))
	case syntax.OpNot:
		v := g.value(e.X)
		return g.b.Resize(g.b.Compare(ir.OpEq, g.int(v), g.const64(0)), ir.I64, false)
	case syntax.OpNeg:
		return g.b.Neg(g.value(e.X))
	case syntax.OpBitNot:
		return g.b.Binary(ir.OpXor, g.value(e.X), g.const64(-1))
	case syntax.OpAddr:
		p := g.place(e.X)
		return g.b.PtrToInt(p.ptr)
	}
	return g.value(e.X)
}

var arithmetic = map[syntax.Op][2]ir.Op{ // unsigned, signed
	syntax.OpAdd: {ir.OpAdd, ir.OpAdd}, syntax.OpSub: {ir.OpSub, ir.OpSub}, syntax.OpMul: {ir.OpMul, ir.OpMul},
	syntax.OpDiv: {ir.OpUDiv, ir.OpSDiv}, syntax.OpMod: {ir.OpUMod, ir.OpSMod},
	syntax.OpAnd: {ir.OpAnd, ir.OpAnd}, syntax.OpOr: {ir.OpOr, ir.OpOr}, syntax.OpXor: {ir.OpXor, ir.OpXor},
	syntax.OpShl: {ir.OpShl, ir.OpShl}, syntax.OpShr: {ir.OpLShr, ir.OpAShr},
	syntax.OpLt: {ir.OpULt, ir.OpSLt}, syntax.OpLe: {ir.OpULe, ir.OpSLe},
	syntax.OpGt: {ir.OpUGt, ir.OpSGt}, syntax.OpGe: {ir.OpUGe, ir.OpSGe},
	syntax.OpEq: {ir.OpEq, ir.OpEq}, syntax.OpNe: {ir.OpNe, ir.OpNe},
}

func operation(op syntax.Op, signed bool) ir.Op {
	if signed {
		return arithmetic[op][1]
	}
	return arithmetic[op][0]
}

func (g *gen) binary(e *syntax.Binary) *ir.Value {
	if isCompare(e.Op) {
		return g.b.Resize(g.compare(e), ir.I64, false)
	}
	t := g.typeOf(e)
	if e.Op == syntax.OpLogAnd || e.Op == syntax.OpLogOr {
		return g.choose(t, func(then, els *ir.Block) { g.branch(e, then, els) },
			func() *ir.Value { return g.const64(1) }, func() *ir.Value { return g.const64(0) })
	}
	return g.arith(e.Op, t, g.typeOf(e.X), g.typeOf(e.Y), g.value(e.X), g.value(e.Y))
}

// arith is x op y, where t is the type of the result.
func (g *gen) arith(op syntax.Op, t, xt, yt *check.Type, x, y *ir.Value) *ir.Value {
	if t.Kind == check.Pointer {
		if xt.Kind != check.Pointer {
			x, y, xt, yt = y, x, yt, xt
		}
		size := int64(1)
		if t.Elem != nil {
			size = g.stride(t.Elem)
		}
		y = g.b.Binary(ir.OpMul, g.int(y), g.const64(size))
		if op == syntax.OpSub {
			y = g.b.Neg(y)
		}
		if x.Type.IsPtr() {
			return g.b.PtrAdd(x, y)
		}
		return g.b.Binary(ir.OpAdd, x, y)
	}
	x, y = g.number(x), g.number(y)
	if xt.Kind == check.Pointer && yt.Kind == check.Pointer && op == syntax.OpSub && xt.Elem != nil && xt.Elem.Size > 1 {
		return g.b.Binary(ir.OpSDiv, g.b.Binary(ir.OpSub, x, y), g.const64(g.stride(xt.Elem)))
	}
	return g.b.Binary(operation(op, t.Signed), x, y)
}

// isProbe is whether the probe of an index has a name (or not, as op says).
func (g *gen) isProbe(index *ir.Value, name string, op syntax.Op) *ir.Value {
	for i, p := range g.man.Probes {
		if p.Name == name {
			return g.b.Compare(operation(op, false), index, g.const64(int64(i)))
		}
	}
	return g.b.Const(ir.I1, truth(op == syntax.OpNe))
}

// compare is the truth value of a comparison.
func (g *gen) compare(e *syntax.Binary) *ir.Value {
	xt, yt := g.typeOf(e.X), g.typeOf(e.Y)
	switch {
	case xt.Kind == check.ProbeName && yt.Kind == check.String:
		return g.isProbe(g.value(e.X), g.info.Consts[e.Y].Str, e.Op)
	case yt.Kind == check.ProbeName && xt.Kind == check.String:
		return g.isProbe(g.value(e.Y), g.info.Consts[e.X].Str, e.Op)
	}
	if !xt.IsScalar() || !yt.IsScalar() {
		return g.compareMemory(e)
	}
	if k, ok := g.info.Consts[e.Y]; ok && k.Int == 0 && (e.Op == syntax.OpEq || e.Op == syntax.OpNe) {
		if cond, ok := g.equalText(e.X, e.Op == syntax.OpEq); ok {
			return cond
		}
	}
	x, y := g.value(e.X), g.value(e.Y)
	return g.b.Compare(operation(e.Op, check.CompareSigned(xt, yt)), g.int(x), g.int(y))
}

func (g *gen) cast(e *syntax.Cast) *ir.Value {
	t, xt := g.typeOf(e), g.typeOf(e.X)
	if !xt.IsScalar() {
		p := g.place(e.X)
		if t.Kind == check.Pointer {
			return g.b.PtrToInt(p.ptr)
		}
		p.t = t
		return g.load(p)
	}
	x := g.value(e.X)
	switch t.Kind {
	case check.Bool:
		return g.b.Resize(g.b.Compare(ir.OpNe, g.int(x), g.const64(0)), ir.I64, false)
	case check.Pointer:
		want := irType(t)
		if x.Type == want {
			return x
		}
		if want.IsPtr() {
			if x.Type.IsPtr() {
				return g.b.PtrCast(x, want)
			}
			return g.b.IntToPtr(x, want)
		}
		return g.int(x)
	case check.Int:
		x = g.number(x)
		if t.Size < 8 {
			x = g.b.Resize(g.b.Resize(x, memType(t), false), ir.I64, t.Signed)
		}
		return x
	}
	return g.int(x)
}

func (g *gen) incDec(e *syntax.IncDec) *ir.Value {
	defer g.at(e.Span())()
	delta := int64(1)
	if e.Dec {
		delta = -1
	}
	v, ok := e.X.(*syntax.Var)
	if !ok {
		return g.incMap(e, delta)
	}
	addr := g.variable(g.info.Vars[v])
	t := g.info.Vars[v].Type
	old := g.loadScalar(addr, irType(t))
	if t.Kind == check.Pointer && t.Elem != nil {
		delta *= g.stride(t.Elem)
	}
	var now *ir.Value
	if old.Type.IsPtr() {
		now = g.b.Offset(old, delta)
	} else {
		now = g.wrap(g.b.Binary(ir.OpAdd, old, g.const64(delta)), t)
	}
	g.b.Store(addr, now)
	if e.Prefix {
		return now
	}
	return old
}

// wrap cuts a number to the width of its type.
func (g *gen) wrap(v *ir.Value, t *check.Type) *ir.Value {
	if t.Kind != check.Int || t.Size == 8 {
		return v
	}
	return g.b.Resize(g.b.Resize(v, memType(t), false), ir.I64, t.Signed)
}

func (g *gen) assign(s *syntax.Assign) {
	switch lhs := s.Lhs.(type) {
	case *syntax.Var:
		v := g.info.Vars[lhs]
		addr := g.variable(v)
		if s.Op == syntax.OpNone {
			g.store(addr, s.Rhs, v.Type)
			return
		}
		old := g.loadScalar(addr, irType(v.Type))
		now := g.arith(s.Op, g.arithType(s.Op, v.Type, s.Rhs), v.Type, g.typeOf(s.Rhs), old, g.value(s.Rhs))
		g.b.Store(addr, g.wrap(now, v.Type))
	default:
		g.assignMap(s)
	}
}

// arithType is the type in which x op= y is computed.
func (g *gen) arithType(op syntax.Op, t *check.Type, rhs syntax.Expr) *check.Type {
	if t.Kind == check.Pointer {
		return t
	}
	n := *t
	n.Signed = t.Signed || g.typeOf(rhs).Signed && op != syntax.OpShl && op != syntax.OpShr
	return &n
}

// store writes the value of an expression to a variable of type t.
func (g *gen) store(addr *ir.Value, e syntax.Expr, t *check.Type) {
	if t.IsScalar() {
		v := g.value(e)
		if want := irType(t); v.Type != want {
			v = g.int(v)
			if want.IsPtr() {
				v = g.b.IntToPtr(v, want)
			}
		}
		g.b.Store(addr, g.wrap(v, t))
		return
	}
	g.into(addr, e, t)
}

// A place is where a value lies.
type place struct {
	ptr *ir.Value
	t   *check.Type
	// A bit-field, from the start of the bytes at ptr.
	bits, bitOffset int
	// value is set when the value is already known, in a register.
	value *ir.Value
}

// pointer is v, an address in a space, as a pointer to follow.
func (g *gen) pointer(v *ir.Value, space check.Space) *ir.Value {
	if v.Type.IsPtr() {
		return v
	}
	switch space {
	case check.UserSpace:
		return g.b.IntToPtr(v, ir.PtrTo(ir.SpaceUser))
	case check.BTFSpace:
		return g.b.IntToPtr(v, ir.PtrTo(ir.SpaceBTF))
	case check.OwnSpace:
		return g.b.IntToPtr(v, ir.PtrTo(ir.SpaceKernel))
	}
	return g.b.IntToPtr(v, ir.PtrTo(ir.SpaceKernel))
}

// place finds where the value of an expression lies.
func (g *gen) place(e syntax.Expr) place {
	defer g.at(e.Span())()
	t := g.typeOf(e)
	switch e := e.(type) {
	case *syntax.Var:
		return place{ptr: g.variable(g.info.Vars[e]), t: t}
	case *syntax.Unary:
		if e.Op == syntax.OpDeref {
			xt := g.typeOf(e.X)
			return g.anyPlace(g.value(e.X), xt.Space, t)
		}
	case *syntax.Cast:
		switch {
		case g.typeOf(e.X).IsScalar() && t.Kind == check.Array:
			return place{ptr: g.memory(e), t: t}
		case g.typeOf(e.X).IsScalar():
			return g.anyPlace(g.value(e.X), t.Space, t)
		}
		p := g.place(e.X)
		p.t = t
		return p
	case *syntax.Field:
		return g.fieldPlace(e)
	case *syntax.TupleField:
		p := g.memoryPlace(e.X)
		s := g.info.Fields[e]
		return place{ptr: g.b.Offset(p, int64(s.Offset)), t: t}
	case *syntax.Index:
		return g.indexPlace(e)
	}
	return place{ptr: g.memory(e), t: t}
}

func (g *gen) memoryPlace(e syntax.Expr) *ir.Value { return g.place(e).ptr }

// anyPlace is the place at an address of a space that may be known only when
// the program runs.
func (g *gen) anyPlace(addr *ir.Value, space check.Space, t *check.Type) place {
	if space != check.AnySpace || addr.Type.IsPtr() {
		return place{ptr: g.pointer(addr, space), t: t}
	}
	switch g.inst.Ctx.Kind {
	case hook.Uprobe, hook.Uretprobe, hook.USDT:
		return place{ptr: g.pointer(addr, check.UserSpace), t: t}
	}
	return place{ptr: g.pointer(addr, check.KernelSpace), t: t}
}

func (g *gen) fieldPlace(e *syntax.Field) place {
	s := g.info.Fields[e]
	if s.Arg != nil {
		return g.argPlace(e, s)
	}
	t := g.typeOf(e)
	var base place
	if s.Deref {
		xt := g.typeOf(e.X)
		base = g.anyPlace(g.value(e.X), xt.Space, xt.Elem)
	} else {
		base = g.place(e.X)
	}
	if s.Struct == nil {
		return place{ptr: g.b.Offset(base.ptr, int64(s.Offset)), t: t}
	}
	relocate := !s.Local && (base.ptr.Type.Space == ir.SpaceBTF || base.ptr.Type.Space == ir.SpaceKernel)
	if relocate && !s.Deref {
		base.ptr, s = outermost(base.ptr, s)
	}
	if s.Bits > 0 && relocate {
		return place{t: t, value: g.coreBits(base.ptr, s, t)}
	}
	switch base.ptr.Type.Space {
	case ir.SpaceUser:
		g.member(s)
	case ir.SpaceCtx:
		// Other contexts are part of the kernel's interface.
		if g.inst.Ctx.Kind == hook.Tracepoint {
			g.member(s)
		}
	}
	if s.Bits > 0 {
		// The bytes that hold the bit-field; its place in them is a fact.
		size := 8
		for s.BitOffset/8/size*size+size > structSize(s.Struct) && size > 1 {
			size /= 2
		}
		start := s.BitOffset / 8 / size * size
		p := g.b.Offset(base.ptr, int64(start))
		return place{ptr: p, t: t, bits: s.Bits, bitOffset: s.BitOffset - 8*start}
	}
	ptr := g.b.Field(base.ptr, &ir.FieldRef{Struct: s.Struct, Path: s.Path, Offset: uint32(s.Offset), Relocate: relocate})
	return place{ptr: ptr, t: t}
}

// outermost makes the path of a field within a field begin at the outer
// struct, so that one relocation covers the whole: the inner one may have no
// name to find it by in the kernel.
func outermost(p *ir.Value, s *check.Selection) (*ir.Value, *check.Selection) {
	outer, ok := p.Aux.(*ir.FieldRef)
	if p.Op != ir.OpField || !ok || !outer.Relocate {
		return p, s
	}
	steps, err := ir.WalkPath(outer.Struct, outer.Path)
	if err != nil || len(steps) == 0 || btf.UnderlyingType(steps[len(steps)-1].Type) != btf.UnderlyingType(s.Struct) {
		return p, s // seen through a cast
	}
	whole := *s
	whole.Struct = outer.Struct
	whole.Path = append(slices.Clone(outer.Path), s.Path...)
	whole.Offset += int(outer.Offset)
	whole.BitOffset += 8 * int(outer.Offset)
	return p.Args[0], &whole
}

func structSize(t btf.Type) int { n, _ := btf.Sizeof(t); return n }

func (g *gen) indexPlace(e *syntax.Index) place {
	t := g.typeOf(e)
	if s, ok := g.info.Fields[e]; ok { // of a tuple
		return place{ptr: g.b.Offset(g.memoryPlace(e.X), int64(s.Offset)), t: t}
	}
	xt := g.typeOf(e.X)
	var base place
	size := g.stride(t)
	if xt.Kind == check.Pointer {
		base = g.anyPlace(g.value(e.X), xt.Space, xt.Elem)
	} else {
		base = g.place(e.X)
	}
	i := g.value(e.I)
	if k, ok := g.info.Consts[e.I]; ok {
		return place{ptr: g.b.Offset(base.ptr, size*k.Int), t: t}
	}
	if base.ptr.Type.Space.Direct() && base.ptr.Type.Space != ir.SpaceBTF {
		// In the program's own memory an index must be in range.
		n := int64(xt.Len)
		if xt.Kind == check.String {
			n = int64(xt.Size)
		}
		inside := g.b.Compare(ir.OpULt, i, g.const64(n))
		ok, out, done := g.block("inside"), g.block("outside"), g.block("index")
		checked := done.NewParam(ir.I64, "i")
		g.b.If(inside, ok, out)
		g.b.At(ok)
		g.b.Jump(done, i)
		g.b.At(out)
		g.b.Jump(done, g.const64(0))
		g.b.At(done)
		i = checked
	} else if base.ptr.Type.Space == ir.SpaceBTF {
		base.ptr = g.b.PtrCast(base.ptr, ir.PtrTo(ir.SpaceKernel))
	}
	return place{ptr: g.b.PtrAdd(base.ptr, g.b.Binary(ir.OpMul, i, g.const64(size))), t: t}
}

// loadCounted is load for memory that a script names by its address: that it
// could not be read is counted.
func (g *gen) loadCounted(p place) *ir.Value {
	read := hReadKernel
	switch {
	case p.value != nil || p.bits > 0:
		return g.load(p)
	case p.ptr.Type.Space == ir.SpaceUser:
		read = hReadUser
	case p.ptr.Type.Space != ir.SpaceKernel:
		return g.load(p)
	}
	size := int64(memType(p.t).Bytes())
	word := g.b.Alloca(8, nil, "read")
	failed := g.b.Compare(ir.OpNe, g.helper(read, word, g.const64(size), p.ptr), g.const64(0))
	g.ifThen(failed, func() { g.lose(object.LossFault, "a dereference") })
	return g.load(place{t: p.t, ptr: word}) // which the helper clears when it fails
}

// load reads the scalar at a place.
func (g *gen) load(p place) *ir.Value {
	if p.value != nil {
		return p.value
	}
	if p.bits > 0 {
		size := (p.bitOffset + p.bits + 7) / 8
		width := 8
		for width < 8*size {
			width *= 2
		}
		v := g.b.Resize(g.b.Load(ir.IntType(width), p.ptr), ir.I64, false)
		shift := ir.OpLShr
		if p.t.Signed {
			shift = ir.OpAShr
		}
		v = g.b.Binary(ir.OpShl, v, g.const64(int64(64-p.bitOffset-p.bits)))
		return g.b.Binary(shift, v, g.const64(int64(64-p.bits)))
	}
	t := p.t
	if t.Kind == check.Pointer {
		if want := irType(t); want.IsPtr() && p.ptr.Type.Space == ir.SpaceBTF {
			return g.b.Load(want, p.ptr)
		}
		v := g.b.Load(ir.I64, p.ptr)
		if want := irType(t); want.IsPtr() {
			return g.b.IntToPtr(v, want)
		}
		return v
	}
	return g.b.Resize(g.b.Load(memType(t), p.ptr), ir.I64, t.Signed)
}
