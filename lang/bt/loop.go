package bt

import (
	"fmt"
	"maps"
	"slices"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

// Loops whose length is not a small constant are functions that a helper calls
// back (bpf_loop since 5.17, bpf_for_each_map_elem since 5.13), so that the
// verifier looks at a body once. What such a body shares with the code around
// it lies in a frame on the stack of the function around it, whose address is
// the context of the callback.

// maxTrips is the number of rounds after which bpf_loop gives up
// (BPF_MAX_LOOPS, include/linux/bpf.h).
const maxTrips = 1 << 23

// The head of a frame, offsets in bytes; variables follow.
const (
	frameUp    = 0  // the frame around
	frameCtx   = 8  // the program's context
	frameIndex = 16 // the index of the probe
	frameLeave = 24 // 1 once the program is to end
	frameHead  = 32
)

// A frame is what one function shares with the bodies of its loops.
type frame struct {
	alloca *ir.Value
	size   int
	slots  map[*check.Var]int
}

// A nest is a body that becomes a function of its own; the root is the program.
type nest struct {
	parent *nest
	loop   syntax.Stmt
	depth  int
}

// nesting says which body every variable belongs to.
type nesting struct {
	nests    map[syntax.Stmt]*nest
	owner    map[*check.Var]*nest
	captured map[*check.Var]bool // used in a body inside the owner's
	root     *nest
	// result and exit are what a function of the script or a test probe returns,
	// and whether the program ends; nil where they do not matter.
	result, exit *check.Var
}

func (g *gen) analyse(nodes ...syntax.Node) *nesting {
	n := &nesting{nests: map[syntax.Stmt]*nest{}, owner: map[*check.Var]*nest{}, captured: map[*check.Var]bool{}, root: &nest{}}
	mentions := map[*check.Var]map[*nest]bool{}
	for _, v := range g.inst.Params {
		n.owner[v], mentions[v] = n.root, map[*nest]bool{}
	}
	var walk func(node syntax.Node, in *nest)
	walk = func(node syntax.Node, in *nest) {
		syntax.Walk(node, func(node syntax.Node) bool {
			switch s := node.(type) {
			case *syntax.Var:
				v := g.info.Vars[s]
				if v == nil {
					break
				}
				if n.owner[v] == nil {
					n.owner[v] = in
					if v.Hoisted {
						n.owner[v] = n.root
					}
					mentions[v] = map[*nest]bool{}
				}
				n.owner[v] = common(n.owner[v], in)
				mentions[v][in] = true
			case *syntax.For:
				if !g.callsBack(s) {
					break
				}
				inner := &nest{in, s, in.depth + 1}
				n.nests[s] = inner
				walk(s.Over, in)
				walk(s.Var, inner)
				walk(s.Body, inner)
				return false
			case *syntax.While:
				inner := &nest{in, s, in.depth + 1}
				n.nests[s] = inner
				walk(s.Cond, inner)
				walk(s.Body, inner)
				return false
			}
			return true
		})
	}
	for _, node := range nodes {
		walk(node, n.root)
	}
	for v, list := range mentions {
		for in := range maps.Keys(list) {
			if in != n.owner[v] {
				n.captured[v] = true
			}
		}
	}
	return n
}

func common(a, b *nest) *nest {
	for a != b {
		if a.depth >= b.depth {
			a = a.parent
		} else {
			b = b.parent
		}
	}
	return a
}

// frame returns the frame of g's function.
func (g *gen) frame() *frame {
	if g.shared == nil {
		g.shared = &frame{alloca: g.b.Alloca(frameHead, nil, "frame"), size: frameHead, slots: map[*check.Var]int{}}
	}
	return g.shared
}

// grow adds n bytes to a frame and returns where they start.
func (f *frame) grow(n int) int {
	at := f.size
	f.size += (n + 7) / 8 * 8
	f.alloca.Int = int64(f.size)
	f.alloca.Type.Size = uint32(f.size)
	return at
}

// atEntry builds code that every block of the function may rely on.
func (g *gen) atEntry(f func()) {
	here := g.b.Block
	g.b.At(g.entry)
	f()
	g.entry = g.b.Block
	g.b.At(here)
}

// variable is the address of a scratch variable.
func (g *gen) variable(v *check.Var) *ir.Value {
	if a, ok := g.vars[v]; ok {
		return a
	}
	size := 8
	scalar := v.Type == nil || v.Type.IsScalar()
	if !scalar {
		size = max(v.Type.Size, 1)
	}
	owner := g
	for owner.parent != nil && g.nesting.owner[v] != owner.nest {
		owner = owner.parent
	}
	var a *ir.Value
	switch {
	case owner != g:
		g.atEntry(func() {
			p := g.up
			for o := g.parent; o != owner; o = o.parent {
				p = g.b.Load(framePtr, p)
			}
			slot := owner.slot(v)
			a = g.b.Offset(p, int64(slot))
			if !scalar {
				a = g.b.Load(ir.MemPtr(ir.SpaceStack, uint32(size)), a)
			}
		})
	case scalar && g.nesting.captured[v]:
		slot := g.slot(v)
		g.atEntry(func() { a = g.b.Offset(g.shared.alloca, int64(slot)) })
	default:
		a = g.b.Alloca(size, nil, v.Name)
		if g.nesting.captured[v] {
			slot := g.slot(v)
			g.atEntry(func() { g.b.Store(g.b.Offset(g.shared.alloca, int64(slot)), a) })
		}
	}
	g.vars[v] = a
	if v.Hoisted && owner == g {
		g.atEntry(func() { g.b.MemZero(a, size) })
	}
	return a
}

// slot is where the frame of g has a captured variable: its value when that is
// a scalar, else its address.
func (g *gen) slot(v *check.Var) int {
	f := g.frame()
	at, ok := f.slots[v]
	if !ok {
		at = f.grow(8)
		f.slots[v] = at
		if v.Type != nil && !v.Type.IsScalar() {
			// The address has to be there before any loop runs.
			g.variable(v)
		}
	}
	return at
}

var framePtr = ir.PtrTo(ir.SpaceStack)

// callback builds a function that a helper calls back, with the body of a
// loop, and hands it to call together with the frame. next and done are where
// continue and break go: they return 0 and 1.
func (g *gen) callback(s syntax.Stmt, params []ir.Type, body func(cg *gen, args []*ir.Value), call func(fn, frame *ir.Value)) {
	g.loopCount++
	f := g.mod.NewFunc(fmt.Sprintf("loop_%d", g.loopCount), ir.Static, params, ir.I64)
	f.Pos = s.Span()
	fr := g.frame()
	cg := &gen{
		lowerer: g.lowerer, inst: g.inst, info: g.info, vars: map[*check.Var]*ir.Value{}, syscall: g.syscall, probeOf: g.probeOf,
		nesting: g.nesting, nest: g.nesting.nests[s], parent: g,
	}
	args := f.Params()
	cg.b = ir.NewBuilder(f)
	cg.begin(f)
	cg.up = args[len(args)-1]
	cg.atEntry(func() {
		if g.ctx != nil {
			cg.ctx = cg.b.Load(ctxPtr, cg.b.Offset(cg.up, frameCtx))
		}
		if g.index != nil {
			if n, ok := g.index.IsConst(); ok {
				cg.index = cg.const64(n)
			} else {
				cg.index = cg.b.Load(ir.I64, cg.b.Offset(cg.up, frameIndex))
			}
		}
	})
	next, done := cg.block("next"), cg.block("break")
	cg.loops = []loop{{next, done}}
	if g.ctx != nil && g.inst.Ctx.Kind == hook.Iter {
		// Here, where nothing is held yet: they may be null and end the program.
		cg.iterMembers()
	}
	body(cg, args)
	cg.jump(next)
	cg.b.At(next)
	cg.b.Return(cg.const64(0))
	cg.b.At(done)
	cg.b.Return(cg.const64(1))
	cg.b.At(cg.leave)
	cg.b.Store(cg.b.Offset(cg.up, frameLeave), cg.const64(1))
	cg.b.Return(cg.const64(1))
	cg.end()

	if g.up != nil {
		g.b.Store(fr.alloca, g.up)
	}
	if g.ctx != nil {
		g.b.Store(g.b.Offset(fr.alloca, frameCtx), g.ctx)
	}
	if g.index != nil {
		g.b.Store(g.b.Offset(fr.alloca, frameIndex), g.index)
	}
	g.b.Store(g.b.Offset(fr.alloca, frameLeave), g.const64(0))
	g.hide(s)
	call(g.b.FuncRef(f), fr.alloca)
	on := g.block("after.loop")
	g.b.If(g.b.Compare(ir.OpEq, g.b.Load(ir.I64, g.b.Offset(fr.alloca, frameLeave)), g.const64(0)), on, g.leave)
	g.b.At(on)
}

// hide makes the verifier forget what it knows of the variables that a loop
// changes: knowing them, it would follow the loop round by round.
func (g *gen) hide(s syntax.Stmt) {
	var vars []*check.Var
	add := func(e syntax.Expr) {
		x, ok := e.(*syntax.Var)
		if !ok {
			return
		}
		v := g.info.Vars[x]
		if v != nil && g.nesting.captured[v] && g.nesting.owner[v].depth <= g.nest.depth && !slices.Contains(vars, v) {
			vars = append(vars, v)
		}
	}
	syntax.Inspect(s, func(n syntax.Node) {
		switch n := n.(type) {
		case *syntax.Assign:
			add(n.Lhs)
		case *syntax.IncDec:
			add(n.X)
		}
	})
	g.forget(vars)
}

// zero is a 0 that the verifier cannot know, from memory of its own. Two that
// came from one place would be one number to the verifier, which then tells
// apart whether a later round still has them equal.
func (g *gen) zero() *ir.Value {
	if g.hidden == nil {
		g.hidden = &ir.Global{Name: "skep_zero", Section: ".bss"}
		g.mod.Globals = append(g.mod.Globals, g.hidden)
	}
	at := len(g.hidden.Init)
	g.hidden.Init = append(g.hidden.Init, make([]byte, 8)...)
	g.hidden.Type = arrayOf(u64Type, at/8+1)
	return g.b.Load(ir.I64, g.b.Offset(g.b.Global(g.hidden), int64(at)))
}

// begin makes the entry of a function, which stays open until end.
func (g *gen) begin(f *ir.Func) {
	g.entry = f.Entry()
	g.leave = f.NewBlock("leave")
	g.start = f.NewBlock("start")
	g.b.At(g.start)
}

// end closes the entry.
func (g *gen) end() {
	g.b.At(g.entry)
	g.b.Jump(g.start)
}

func (g *gen) while(s *syntax.While) {
	g.callback(s, []ir.Type{ir.I64, framePtr}, func(cg *gen, _ []*ir.Value) {
		body := cg.block("while.body")
		cg.branch(s.Cond, body, cg.loops[0].done)
		cg.b.At(body)
		cg.stmts(s.Body)
	}, func(fn, frame *ir.Value) {
		n := g.helper(hLoop, g.const64(maxTrips), fn, frame, g.const64(0))
		g.ifThen(g.b.Compare(ir.OpSGe, n, g.const64(maxTrips)), func() { g.lose(object.LossLoop, "while") })
	})
}

func (g *gen) forLoop(s *syntax.For) {
	l := g.info.Loops[s]
	switch {
	case l.Map != nil:
		g.forMap(s, l)
	case g.callsBack(s):
		g.forRange(s, l)
	default:
		g.forFew(s, l)
	}
}

// forRange is a loop over a range by bpf_loop.
func (g *gen) forRange(s *syntax.For, l *check.Loop) {
	r := s.Over.(*syntax.Range)
	lo, hi := g.int(g.value(r.Lo)), g.int(g.value(r.Hi))
	base := g.frame().grow(8)
	g.b.Store(g.b.Offset(g.frame().alloca, int64(base)), lo)
	some, done := g.block("for"), g.block("for.done")
	g.b.If(g.b.Compare(ir.OpSLt, lo, hi), some, done)
	g.b.At(some)
	trips := g.b.Binary(ir.OpSub, hi, lo)
	g.ifThen(g.b.Compare(ir.OpUGt, trips, g.const64(maxTrips)), func() { g.lose(object.LossLoop, "for") })
	trips = g.clamp(trips, maxTrips)
	g.callback(s, []ir.Type{ir.I64, framePtr}, func(cg *gen, args []*ir.Value) {
		first := cg.b.Load(ir.I64, cg.b.Offset(cg.up, int64(base)))
		cg.b.Store(cg.variable(l.Var), cg.b.Binary(ir.OpAdd, first, args[0]))
		cg.stmts(s.Body)
	}, func(fn, frame *ir.Value) {
		g.helper(hLoop, trips, fn, frame, g.const64(0))
	})
	g.jump(done)
	g.b.At(done)
}

// forMap is a loop over the elements of a map.
func (g *gen) forMap(s *syntax.For, l *check.Loop) {
	m := g.maps[l.Map]
	t := l.Var.Type
	params := []ir.Type{
		ir.PtrTo(ir.SpaceMap), ir.MemPtr(ir.SpaceMapValue, uint32(m.Key.Size)), ir.MemPtr(ir.SpaceMapValue, uint32(m.size)), framePtr,
	}
	g.callback(s, params, func(cg *gen, args []*ir.Value) {
		kv := cg.variable(l.Var)
		cg.b.MemZero(kv, t.Size)
		cg.b.MemCopy(cg.b.Offset(kv, int64(t.Fields[0].Offset)), args[1], m.Key.Size)
		value := cg.b.Offset(kv, int64(t.Fields[1].Offset))
		if m.Value.Kind == check.Agg {
			// The helper keeps the key for a while only: sum up over a copy.
			cg.b.Store(value, cg.sumUp(m, cg.b.Offset(kv, int64(t.Fields[0].Offset))))
		} else {
			cg.b.MemCopy(value, args[2], m.size)
		}
		cg.stmts(s.Body)
	}, func(fn, frame *ir.Value) {
		g.helper(hForEachMapElem, g.b.Map(m.ir), fn, frame, g.const64(0))
	})
}
