package irtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/source"
)

// Options shape what [Random] makes.
type Options struct {
	Funcs int // subprograms beside the program; default 2
	Size  int // roughly the number of statements of each function; default 20
	// Plain leaves out types, maps, files and positions.
	Plain bool
}

// Random makes a well-formed module: a program @main that takes three i64 and
// gives an i64, with subprograms, variables, maps, externs, types and
// positions. Its functions end when a Machine runs them.
func Random(r *rand.Rand, o Options) *ir.Module {
	if o.Funcs == 0 {
		o.Funcs = 2
	}
	if o.Size == 0 {
		o.Size = 20
	}
	g := &gen{r: r, m: &ir.Module{Name: "random", License: "GPL"}}
	if !o.Plain {
		g.types()
		g.files()
	}
	g.externs()
	g.vars(o.Plain)
	for i := range o.Funcs {
		g.fn(fmt.Sprintf("sub%d", i), ir.Static+ir.Linkage(r.IntN(2)), o)
	}
	g.fn("main", ir.Program, o)
	return g.m
}

type gen struct {
	r      *rand.Rand
	m      *ir.Module
	file   []*source.File
	ts     []btf.Type
	recs   []*btf.Struct
	pure   []*ir.Extern
	read   []*ir.Extern
	write  *ir.Extern
	fill   *ir.Extern
	noise  *ir.Extern
	lookup *ir.Extern
	find   *ir.Extern
	table  *ir.Map

	b       *ir.Builder
	vals    []*ir.Value // integers that may be used here
	slots   []*ir.Value // allocas of 16 bytes
	left    int
	loops   int
	current *ir.Func
}

func (g *gen) chance(percent int) bool { return g.r.IntN(100) < percent }

func pick[T any](g *gen, list []T) T { return list[g.r.IntN(len(list))] }

var words = []string{"len", "x", "comm", "i", "a.b", "odd name", "ünï", "7up", "\"quoted\"", "9", "x.5", ""}

func (g *gen) types() {
	ints := []btf.Type{
		&btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		&btf.Int{Name: "char", Size: 1, Encoding: btf.Char},
		&btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool},
		&btf.Int{Name: "unsigned long", Size: 8},
		&btf.Float{Name: "double", Size: 8},
		&btf.Enum{Name: "state", Size: 4, Signed: true, Values: []btf.EnumValue{{Name: "MINUS", Value: ^uint64(0)}, {Name: "ONE", Value: 1}}},
		&btf.Enum{Size: 8, Values: []btf.EnumValue{{Name: "BIG", Value: 1 << 63}}},
		&btf.Fwd{Name: "hidden", Kind: btf.FwdUnion},
	}
	g.ts = append(g.ts, ints...)
	for range 3 + g.r.IntN(5) {
		s := &btf.Struct{Name: pick(g, words)}
		g.recs = append(g.recs, s)
		g.ts = append(g.ts, s)
	}
	for range 10 + g.r.IntN(10) {
		t := pick(g, g.ts)
		switch g.r.IntN(9) {
		case 0:
			g.ts = append(g.ts, &btf.Pointer{Target: t})
		case 1:
			g.ts = append(g.ts, &btf.Const{Type: t})
		case 2:
			g.ts = append(g.ts, &btf.Volatile{Type: t})
		case 3:
			g.ts = append(g.ts, &btf.Typedef{Name: pick(g, words[:4]), Type: t, Tags: g.tags()})
		case 4:
			g.ts = append(g.ts, &btf.TypeTag{Type: t, Value: "rcu"})
		case 5:
			g.ts = append(g.ts, &btf.Pointer{Target: &btf.FuncProto{Return: (*btf.Void)(nil), Params: []btf.FuncParam{{Name: "x", Type: t}, {Type: t}}}})
		case 6:
			g.ts = append(g.ts, &btf.Pointer{Target: (*btf.Void)(nil)})
		case 7:
			g.ts = append(g.ts, &btf.Restrict{Type: &btf.Pointer{Target: t}})
		case 8:
			u := &btf.Union{Name: pick(g, words), Size: 8, Members: []btf.Member{{Name: "u", Type: ints[3]}, {Name: "p", Type: &btf.Pointer{Target: t}}}}
			g.ts = append(g.ts, u)
		}
	}
	// Members may point to any type: some structs contain themselves by way of pointers.
	for _, s := range g.recs {
		for range 1 + g.r.IntN(5) {
			var t btf.Type = &btf.Pointer{Target: pick(g, g.ts)}
			switch g.r.IntN(4) {
			case 0:
				t = ints[0]
			case 1:
				t = &btf.Array{Index: ints[0], Type: ints[1], Nelems: uint32(g.r.IntN(20))}
			}
			m := btf.Member{Name: pick(g, words), Type: t, Offset: btf.Bits(s.Size * 8), Tags: g.tags()}
			if t == ints[0] && g.chance(30) {
				m.Offset += 3
				m.BitfieldSize = 5
			}
			s.Members = append(s.Members, m)
			n, _ := btf.Sizeof(t)
			s.Size += uint32(n)
		}
	}
}

func (g *gen) tags() []string {
	if g.chance(80) {
		return nil
	}
	return []string{"exclude", "a \"tag\""}[:1+g.r.IntN(2)]
}

func (g *gen) files() {
	for i := range 1 + g.r.IntN(2) {
		var b strings.Builder
		for range g.r.IntN(10) {
			b.WriteString(pick(g, words) + pick(g, []string{" ", "\n", "\t", "|", "é\n", "\xff", "\r\n"}))
		}
		g.file = append(g.file, source.NewFile(fmt.Sprintf("file %d.bt", i), b.String()))
	}
}

func (g *gen) span() source.Span {
	if len(g.file) == 0 || g.chance(30) {
		return source.Span{}
	}
	f := pick(g, g.file)
	start := g.r.IntN(len(f.Text) + 1)
	s := source.Span{File: f, Start: start, End: start + g.r.IntN(len(f.Text)-start+1)}
	if g.chance(3) {
		s.Start, s.End = s.Start-100, s.End+100
	}
	return s
}

func (g *gen) anyType() btf.Type {
	if len(g.ts) == 0 {
		return nil
	}
	return pick(g, g.ts)
}

func (g *gen) externs() {
	mem := ir.Spaces(ir.SpaceStack, ir.SpaceMapValue, ir.SpaceMem)
	add := func(e ir.Extern) *ir.Extern {
		e.ID = int32(len(g.m.Externs) + 1)
		p := &e
		g.m.Externs = append(g.m.Externs, p)
		return p
	}
	g.pure = append(
		g.pure,
		add(ir.Extern{Name: "pid", Params: []ir.Type{}, Result: ir.I64}),
		add(ir.Extern{Name: "mix", Params: []ir.Type{ir.I64, ir.I64}, Result: ir.I64}),
	)
	g.read = append(g.read, add(ir.Extern{
		Name: "digest", Params: []ir.Type{ir.PtrTo(ir.SpaceMem), ir.I64}, Result: ir.I64,
		Effect: ir.Effects{Reads: mem},
	}))
	g.write = add(ir.Extern{
		Name: "fill", Params: []ir.Type{ir.PtrTo(ir.SpaceMem)}, Result: ir.I64,
		Effect: ir.Effects{Writes: mem},
	})
	g.fill = add(ir.Extern{
		Name: "fetch", Params: []ir.Type{ir.PtrTo(ir.SpaceMem), ir.I64, ir.I64}, Result: ir.I64,
		Effect: ir.Effects{Writes: mem, Fills: true},
	})
	g.noise = add(ir.Extern{
		Name: "output", Params: []ir.Type{ir.I64}, Result: ir.I64,
		Effect: ir.Effects{Volatile: true},
	})
	g.lookup = add(ir.Extern{
		Name: "lookup", Params: []ir.Type{ir.I64}, Result: ir.MemPtr(ir.SpaceMapValue, 16).OrNull(),
		Effect: ir.Effects{Volatile: true},
	})
	g.find = add(ir.Extern{
		Name: "find", Params: []ir.Type{ir.PtrTo(ir.SpaceMap), ir.PtrTo(ir.SpaceMem)}, Result: ir.MemPtr(ir.SpaceMapValue, 16).OrNull(),
		Effect: ir.Effects{Reads: mem, Volatile: true, Finds: true},
	})
	if len(g.ts) > 0 {
		g.m.Externs = append(
			g.m.Externs,
			&ir.Extern{Kind: ir.ExternKsym, Name: "jiffies", Type: g.anyType(), Weak: true},
			&ir.Extern{Kind: ir.ExternKfunc, Name: "any", Type: &btf.Func{
				Name: "any", Linkage: btf.ExternFunc, Type: &btf.FuncProto{Return: g.anyType(), Params: []btf.FuncParam{{Name: "p", Type: g.anyType()}}},
				ParamTags: [][]string{{"nullable"}}, Tags: []string{"bpf_fastcall"},
			}},
		)
	}
}

func (g *gen) vars(plain bool) {
	for i := range 2 {
		g.m.Globals = append(g.m.Globals, &ir.Global{
			Name: fmt.Sprintf("g%d", i), Section: ".data", Init: make([]byte, 16), Volatile: g.chance(50), Pos: g.span(),
		})
		for j := range g.m.Globals[i].Init {
			g.m.Globals[i].Init[j] = byte(g.r.Uint32())
		}
	}
	g.table = &ir.Map{Name: "table", Type: 1, KeySize: 8, ValueSize: 16, MaxEntries: 4}
	g.m.Maps = append(g.m.Maps, g.table)
	if plain {
		return
	}
	inner := &ir.Map{Name: "inner", Type: 1, KeySize: 4, ValueSize: 8, MaxEntries: 1}
	m := &ir.Map{Name: pick(g, words), Type: 13, MaxEntries: 10, Inner: inner, Pinned: g.chance(50), Pos: g.span()}
	t := g.anyType()
	if n, err := btf.Sizeof(t); err == nil {
		m.Key, m.KeySize = t, uint32(n)
	}
	g.m.Maps = append(g.m.Maps, m)
}

func (g *gen) fn(name string, linkage ir.Linkage, o Options) {
	f := g.m.NewFunc(name, linkage, []ir.Type{ir.I64, ir.I64, ir.I64}, ir.I64)
	f.Pos = g.span()
	if linkage == ir.Program {
		f.Section = "tp_btf/" + name
	}
	if len(g.ts) > 0 && g.chance(50) {
		f.Proto = &btf.FuncProto{Return: g.anyType(), Params: []btf.FuncParam{{Name: "ctx", Type: g.anyType()}}}
	}
	g.current = f
	g.b = ir.NewBuilder(f)
	g.vals = append([]*ir.Value(nil), f.Params()...)
	g.slots = nil
	g.left = o.Size
	g.loops = 0
	for range 1 + g.r.IntN(4) {
		var t btf.Type
		if len(g.recs) > 0 {
			if s := pick(g, g.recs); s.Size <= 16 {
				t = s
			}
		}
		a := g.b.Alloca(16, t, "slot")
		g.slots = append(g.slots, a)
		g.b.MemZero(a, 16)
	}
	for g.left > 0 {
		g.stmts(3)
	}
	g.b.Return(g.val(ir.I64))
	for _, b := range f.Blocks {
		b.Pos = g.span()
	}
}

// val returns an integer of type t.
func (g *gen) val(t ir.Type) *ir.Value {
	if g.chance(25) || len(g.vals) == 0 {
		n := int64(g.r.Uint64())
		if g.chance(80) {
			n = pick(g, []int64{0, 1, 2, 3, 4, 7, 8, 10, 255, 256, 1 << 31, 1 << 32, -1, -2, -8, 1 << 62, -1 << 63})
		}
		return g.b.Const(t, n)
	}
	// Rather the recent ones.
	n := len(g.vals)
	i := n - 1 - g.r.IntN(min(n, 8))
	if g.chance(20) {
		i = g.r.IntN(n)
	}
	return g.b.Resize(g.vals[i], t, g.chance(30))
}

func (g *gen) keep(v *ir.Value) {
	if v.Type.IsInt() && v.Type != ir.I1 {
		g.vals = append(g.vals, v)
	}
	if v.Name == "" && len(g.ts) > 0 && v.Op != ir.OpParam {
		v.Name = pick(g, words)
	}
}

var binaryOps = []ir.Op{
	ir.OpAdd, ir.OpSub, ir.OpMul, ir.OpUDiv, ir.OpSDiv, ir.OpUMod, ir.OpSMod,
	ir.OpAnd, ir.OpOr, ir.OpXor, ir.OpShl, ir.OpLShr, ir.OpAShr,
}

var compares = []ir.Op{
	ir.OpEq, ir.OpNe, ir.OpULt, ir.OpULe, ir.OpUGt, ir.OpUGe, ir.OpSLt, ir.OpSLe, ir.OpSGt, ir.OpSGe,
}

var ints = []ir.Type{ir.I8, ir.I16, ir.I32, ir.I64}

func (g *gen) cond() *ir.Value {
	if g.chance(40) && len(g.vals) > 0 {
		// The same few values against small constants, so that one
		// comparison may follow from another.
		v := g.b.Resize(g.vals[g.r.IntN(min(3, len(g.vals)))], ir.I64, false)
		if g.chance(60) {
			v = g.b.Binary(ir.OpAnd, v, g.b.Const(ir.I64, 15))
		}
		return g.b.Compare(pick(g, compares), v, g.b.Const(ir.I64, int64(g.r.IntN(8)-2)))
	}
	t := pick(g, ints)
	c := g.b.Compare(pick(g, compares), g.val(t), g.val(t))
	switch g.r.IntN(5) {
	case 0:
		return g.b.Not(c)
	case 1:
		return g.b.Binary(pick(g, append(slices.Clone(binaryOps), ir.OpAnd, ir.OpAnd, ir.OpAnd, ir.OpOr, ir.OpOr, ir.OpOr, ir.OpXor)), c, g.b.Compare(pick(g, compares), g.val(t), g.val(t)))
	}
	return c
}

// place is a pointer into an alloca or variable with room for 8 bytes.
func (g *gen) place() *ir.Value {
	p := pick(g, g.slots)
	if g.chance(40) {
		p = g.b.Global(pick(g, g.m.Globals))
	}
	switch g.r.IntN(8) {
	case 0:
		return g.b.Offset(p, 8)
	case 1:
		return g.b.Offset(p, int64(g.r.IntN(3))*4)
	case 2:
		if g.chance(20) {
			return g.b.PtrAdd(p, g.b.Binary(ir.OpAnd, g.val(ir.I64), g.b.Const(ir.I64, 7)))
		}
	}
	return p
}

func (g *gen) stmts(depth int) {
	for range 1 + g.r.IntN(5) {
		if g.left--; g.left < 0 {
			return
		}
		g.b.Pos = g.span()
		g.stmt(depth)
	}
}

func (g *gen) stmt(depth int) {
	b := g.b
	t := pick(g, ints)
	if g.chance(50) {
		t = ir.I64
	}
	switch n := g.r.IntN(100); {
	case n < 30:
		g.keep(b.Binary(pick(g, binaryOps), g.val(t), g.val(t)))
	case n < 33:
		g.keep(b.Neg(g.val(t)))
	case n < 36:
		g.keep(b.Swap(g.val(pick(g, ints[1:]))))
	case n < 40:
		g.keep(b.Resize(g.cond(), t, g.chance(50)))
	case n < 49:
		g.keep(b.Load(t, g.place()))
	case n < 50:
		g.keep(b.VolatileLoad(t, g.place()))
	case n < 60:
		b.Store(g.place(), g.val(t))
	case n < 61:
		b.VolatileStore(g.place(), g.val(t))
	case n < 63:
		b.MemCopy(pick(g, g.slots), b.Global(pick(g, g.m.Globals)), 4<<g.r.IntN(3))
	case n < 65:
		b.MemZero(pick(g, g.slots), 4<<g.r.IntN(3))
	case n < 67:
		g.keep(b.Atomic(ir.AtomicOp(g.r.IntN(5)), g.place(), g.val(ir.I64), true))
	case n < 70:
		g.keep(b.CallExtern(g.pure[0]))
	case n < 72:
		g.keep(b.CallExtern(g.pure[1], g.val(ir.I64), g.val(ir.I64)))
	case n < 74:
		g.keep(b.CallExtern(g.read[0], g.place(), g.val(ir.I64)))
	case n < 76:
		g.keep(b.CallExtern(g.write, g.place()))
	case n < 77:
		g.fetch()
	case n < 78:
		b.CallExtern(g.noise, g.val(ir.I64))
	case n < 79:
		g.core()
	case n < 81:
		var subs []*ir.Func
		for _, f := range g.m.Funcs {
			if f != g.current {
				subs = append(subs, f)
			}
		}
		if len(subs) > 0 && g.loops == 0 {
			g.keep(b.Call(pick(g, subs), g.val(ir.I64), g.val(ir.I64), g.val(ir.I64)))
		}
	case n < 85 && depth > 0:
		g.checked(depth)
	case n < 92 && depth > 0:
		g.branch(depth)
	case n < 94 && depth > 0:
		g.shortCircuit(depth)
	case depth > 0 && g.loops < 2:
		g.loop(depth)
	}
}

// fetch fills a buffer, often one of its own, with something that others may
// hold already.
func (g *gen) fetch() {
	b := g.b
	buf := pick(g, g.slots)
	if g.chance(70) {
		buf = b.Alloca(16, nil, "buf")
		if g.chance(70) {
			b.MemZero(buf, 16)
		}
		if g.chance(20) {
			g.slots = append(g.slots, buf)
		}
	}
	g.keep(b.CallExtern(g.fill, buf, b.Const(ir.I64, 16), b.Const(ir.I64, int64(g.r.IntN(2)))))
	g.keep(b.Load(ir.I64, b.Offset(buf, 8)))
	if g.chance(30) {
		g.keep(b.CallExtern(g.read[0], buf, g.val(ir.I64)))
	}
}

// core asks for facts of types and reads kernel memory.
func (g *gen) core() {
	p := g.b.IntToPtr(g.val(ir.I64), ir.PtrTo(pick(g, []ir.Space{ir.SpaceKernel, ir.SpaceUser})))
	if len(g.recs) > 0 {
		s := pick(g, g.recs)
		i := g.r.IntN(len(s.Members))
		p = g.b.Field(p, &ir.FieldRef{Struct: s, Path: []int{i}, Offset: uint32(s.Members[i].Offset / 8), Relocate: g.chance(50)})
		if g.chance(30) {
			g.keep(g.b.Core(ir.I64, &ir.CoreRef{Kind: ir.CoreFieldExists, Type: s, Path: []int{i}, Local: 1}))
		}
	}
	g.keep(g.b.Load(pick(g, ints), p))
}

// checked looks something up and uses it where it is not null.
func (g *gen) checked(depth int) {
	b := g.b
	var p *ir.Value
	if g.chance(50) {
		p = b.CallExtern(g.lookup, g.val(ir.I64))
	} else {
		key := b.Alloca(8, nil, "key")
		if g.chance(20) {
			b.Store(key, g.val(ir.I64))
		} else {
			b.MemZero(key, 8)
			b.Store(b.Offset(key, int64(4*g.r.IntN(2))), b.Const(ir.I32, int64(g.r.IntN(2))))
		}
		p = b.CallExtern(g.find, b.Map(g.table), key)
	}
	then, done := g.current.NewBlock("found"), g.current.NewBlock("")
	b.If(b.Compare(ir.OpNe, p, b.Null(p.Type)), then, done)
	vals := len(g.vals)
	b.At(then)
	p = b.NonNull(p)
	g.keep(b.Load(pick(g, ints), b.Offset(p, 4)))
	b.Store(p, g.val(pick(g, ints)))
	g.stmts(depth - 1)
	b.Jump(done)
	g.vals = g.vals[:vals]
	b.At(done)
}

func (g *gen) branch(depth int) {
	b := g.b
	then, els, done := g.current.NewBlock("then"), g.current.NewBlock("else"), g.current.NewBlock("join")
	b.If(g.cond(), then, els)
	b.Block.Likely = ir.Likely(g.r.IntN(3))
	vals := len(g.vals)
	params := g.r.IntN(3)
	for range params {
		done.NewParam(pick(g, ints), pick(g, words[:5]))
	}
	for _, side := range []*ir.Block{then, els} {
		b.At(side)
		if g.chance(80) {
			g.stmts(depth - 1)
		}
		if g.chance(5) {
			b.Return(g.val(ir.I64))
		} else {
			var args []*ir.Value
			for _, p := range done.Params {
				args = append(args, g.val(p.Type))
			}
			b.Jump(done, args...)
		}
		g.vals = g.vals[:vals]
	}
	b.At(done)
	g.vals = append(g.vals, done.Params...)
}

// shortCircuit is what front ends make of (x && y) or (x || y).
func (g *gen) shortCircuit(depth int) {
	b := g.b
	more, test, then, done := g.current.NewBlock("more"), g.current.NewBlock("test"), g.current.NewBlock(""), g.current.NewBlock("")
	p := test.NewParam(ir.I1, "")
	known := ir.Edge{To: test, Args: []*ir.Value{b.Const(ir.I1, int64(g.r.IntN(2)))}}
	if g.chance(50) {
		b.IfEdges(g.cond(), ir.Edge{To: more}, known)
	} else {
		b.IfEdges(g.cond(), known, ir.Edge{To: more})
	}
	b.At(more)
	b.Jump(test, g.cond())
	b.At(test)
	b.If(p, then, done)
	vals := len(g.vals)
	b.At(then)
	g.stmts(depth - 1)
	b.Jump(done)
	g.vals = g.vals[:vals]
	b.At(done)
}

func (g *gen) loop(depth int) {
	b := g.b
	g.loops++
	head, body, done := g.current.NewBlock("loop"), g.current.NewBlock("body"), g.current.NewBlock("done")
	i := head.NewParam(ir.I32, "i")
	sum := head.NewParam(ir.I64, "sum")
	b.Jump(head, b.Const(ir.I32, int64(g.r.IntN(3))), g.val(ir.I64))
	b.At(head)
	vals := len(g.vals)
	g.vals = append(g.vals, i, sum)
	b.If(b.Compare(ir.OpULt, i, b.Const(ir.I32, int64(g.r.IntN(6)))), body, done)
	b.At(body)
	g.stmts(depth - 1)
	if g.chance(15) {
		out := g.current.NewBlock("next")
		b.If(g.cond(), out, done)
		b.At(out)
	}
	b.Jump(head, b.Binary(ir.OpAdd, i, b.Const(ir.I32, 1)), g.val(ir.I64))
	g.vals = append(g.vals[:vals], i, sum)
	b.At(done)
	g.loops--
}
