package bt

import (
	"fmt"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

// text is the address of a string that the program can read itself, and the
// bytes that are there: what lies behind a pointer is read first.
func (g *gen) text(e syntax.Expr) (*ir.Value, int) {
	t := g.typeOf(e)
	if !t.IsScalar() {
		return g.memory(e), t.Size
	}
	size := g.res.Config.MaxStrlen
	tmp := g.b.Alloca(size, nil, "text")
	g.b.MemZero(tmp, size)
	g.readText(tmp, g.const64(int64(size)), g.int(g.value(e)), t.Space)
	return tmp, size
}

// strlen is the length of a string: the helpers that copy one tell it.
func (g *gen) strlen(e syntax.Expr) *ir.Value {
	if k, ok := g.info.Consts[e]; ok && k.IsString {
		return g.const64(int64(len(k.Str)))
	}
	t := g.typeOf(e)
	size, space := t.Size, check.KernelSpace
	var src *ir.Value
	if t.IsScalar() {
		size, space = g.res.Config.MaxStrlen, t.Space
		src = g.int(g.value(e))
	} else {
		src = g.int(g.memory(e))
	}
	tmp := g.b.Alloca(size, nil, "text")
	n := g.readText(tmp, g.const64(int64(size)), src, space)
	// The terminating zero is counted by the helper; errors are negative.
	result := g.b.Alloca(8, nil, "length")
	g.b.Store(result, g.const64(0))
	g.ifThen(g.b.Compare(ir.OpSGt, n, g.const64(0)), func() { g.b.Store(result, g.b.Binary(ir.OpSub, n, g.const64(1))) })
	return g.b.Load(ir.I64, result)
}

// compareBytes compares up to limit bytes, no more than n where that is given,
// and ends at a zero when the bytes are text. It returns the difference of the
// first bytes that differ.
func (g *gen) compareBytes(x, y *ir.Value, limit int, n *ir.Value, text bool) *ir.Value {
	head, inside, body, same, next, done := g.block("cmp"), g.block("cmp.inside"), g.block("cmp.byte"), g.block("cmp.same"), g.block("cmp.next"), g.block("cmp.done")
	i := head.NewParam(ir.I64, "i")
	result := done.NewParam(ir.I64, "difference")
	zero := g.const64(0)
	g.b.Jump(head, zero)
	g.b.At(head)
	g.b.IfEdges(g.b.Compare(ir.OpULt, i, g.const64(int64(limit))), ir.Edge{To: inside}, ir.Edge{To: done, Args: []*ir.Value{zero}})
	g.b.At(inside)
	if n != nil {
		g.b.IfEdges(g.b.Compare(ir.OpULt, i, n), ir.Edge{To: body}, ir.Edge{To: done, Args: []*ir.Value{zero}})
	} else {
		g.b.Jump(body)
	}
	g.b.At(body)
	a := g.b.Resize(g.b.Load(ir.I8, g.b.PtrAdd(x, i)), ir.I64, false)
	c := g.b.Resize(g.b.Load(ir.I8, g.b.PtrAdd(y, i)), ir.I64, false)
	g.b.IfEdges(g.b.Compare(ir.OpEq, a, c), ir.Edge{To: same}, ir.Edge{To: done, Args: []*ir.Value{g.b.Binary(ir.OpSub, a, c)}})
	g.b.At(same)
	if text {
		g.b.IfEdges(g.b.Compare(ir.OpNe, a, zero), ir.Edge{To: next}, ir.Edge{To: done, Args: []*ir.Value{zero}})
	} else {
		g.b.Jump(next)
	}
	g.b.At(next)
	g.b.Jump(head, g.b.Binary(ir.OpAdd, i, g.const64(1)))
	g.b.At(done)
	return result
}

// equalText is the truth value of strncmp, compared with 0, when one of its
// strings is a literal and its length is known: then the bytes are compared as
// words.
func (g *gen) equalText(e syntax.Expr, equal bool) (*ir.Value, bool) {
	call, ok := e.(*syntax.Call)
	if !ok || g.info.Calls[call] == nil || g.info.Calls[call].Name != "strncmp" {
		return nil, false
	}
	x, y := call.Args[0], call.Args[1]
	if _, ok := g.info.Consts[x]; ok {
		x, y = y, x
	}
	k, literal := g.info.Consts[y]
	n, known := g.info.Consts[call.Args[2]]
	if !literal || !k.IsString || !known || n.Int <= 0 {
		return nil, false
	}
	want := append([]byte(k.Str), 0)
	want = want[:min(int64(len(want)), n.Int)]
	t := g.typeOf(x)
	if !t.IsScalar() {
		want = want[:min(len(want), t.Size)]
		return g.equalBytes(g.beginning(x, len(want)), want, equal), true
	}
	if len(want) >= g.res.Config.MaxStrlen {
		return nil, false
	}
	// One byte more is the zero that ends what is cut off.
	tmp := g.b.Alloca(len(want)+1, nil, "text")
	g.readText(tmp, g.const64(int64(len(want)+1)), g.int(g.value(x)), t.Space)
	return g.equalBytes(tmp, want, equal), true
}

func (g *gen) strncmp(e *syntax.Call) *ir.Value {
	x, xn := g.text(e.Args[0])
	y, yn := g.text(e.Args[1])
	limit := min(xn, yn)
	if k, ok := g.info.Consts[e.Args[2]]; ok {
		return g.compareBytes(x, y, max(min(limit, int(k.Int)), 0), nil, true)
	}
	return g.compareBytes(x, y, limit, g.int(g.value(e.Args[2])), true)
}

func (g *gen) memcmp(e *syntax.Call) *ir.Value {
	n := int(g.info.Consts[e.Args[2]].Int)
	if n == 0 {
		return g.const64(0)
	}
	x := g.memoryOf(e.Args[0], n)
	y := g.memoryOf(e.Args[1], n)
	return g.compareBytes(x, y, n, nil, false)
}

// What a search works on, offsets in bytes. The verifier is to know nothing of
// how far it got, or it would follow every step: it forgets what is stored in
// the upper half of a slot.
const (
	searchText   = 0
	searchNeedle = 8
	searchFound  = 16     // the index, -1 when there is none
	searchAt     = 24 + 4 // 32 bits: where in the text the needle may begin
	searchBytes  = 32 + 4 // 32 bits: how many bytes of it are there
	searchSize   = 40
)

// strstr is the index of a string in another, -1 when it is not there.
func (g *gen) strstr(e *syntax.Call) *ir.Value {
	x, xn := g.text(e.Args[0])
	y, yn := g.text(e.Args[1])
	state := g.b.Alloca(searchSize, nil, "search")
	g.b.Store(g.b.Offset(state, searchText), x)
	g.b.Store(g.b.Offset(state, searchNeedle), y)
	g.b.Store(g.b.Offset(state, searchFound), g.const64(-1))
	g.b.Store(g.b.Offset(state, searchAt), g.b.Const(ir.I32, 0))
	g.b.Store(g.b.Offset(state, searchBytes), g.b.Const(ir.I32, 0))
	steps := xn * yn
	n := g.helper(hLoop, g.const64(int64(min(steps, maxTrips))), g.b.FuncRef(g.searcher(xn, yn)), state, g.const64(0))
	if steps > maxTrips {
		g.ifThen(g.b.Compare(ir.OpEq, n, g.const64(maxTrips)), func() { g.lose(object.LossLoop, "search") })
	}
	return g.b.Load(ir.I64, g.b.Offset(state, searchFound))
}

// searcher is the function that makes one step in the search for a needle of
// up to yn bytes in a text of up to xn: it compares one byte.
func (g *gen) searcher(xn, yn int) *ir.Func {
	name := fmt.Sprintf("search_%d_%d", xn, yn)
	f, made := g.step(name)
	if made {
		return f
	}
	b := ir.NewBuilder(f)
	state := f.Params()[1]
	con := func(n int64) *ir.Value { return b.Const(ir.I64, n) }
	block := f.NewBlock
	load := func(offset int64) *ir.Value { return b.Resize(b.Load(ir.I32, b.Offset(state, offset)), ir.I64, false) }
	store := func(offset int64, v *ir.Value) { b.Store(b.Offset(state, offset), b.Resize(v, ir.I32, false)) }
	x := b.Load(ir.MemPtr(ir.SpaceStack, uint32(xn)), b.Offset(state, searchText))
	y := b.Load(ir.MemPtr(ir.SpaceStack, uint32(yn)), b.Offset(state, searchNeedle))
	inNeedle, more, inText, compare, same, not := block("in.needle"), block("more"), block("in.text"), block("compare"), block("same"), block("not")
	found, stop := block("found"), block("stop")
	at, j := load(searchAt), load(searchBytes)
	b.If(b.Compare(ir.OpULt, j, con(int64(yn))), inNeedle, found)
	b.At(inNeedle)
	want := b.Load(ir.I8, b.PtrAdd(y, j))
	b.If(b.Compare(ir.OpEq, want, b.Const(ir.I8, 0)), found, more)
	b.At(more)
	k := b.Binary(ir.OpAdd, at, j)
	b.If(b.Compare(ir.OpULt, k, con(int64(xn))), inText, stop)
	b.At(inText)
	have := b.Load(ir.I8, b.PtrAdd(x, k))
	b.If(b.Compare(ir.OpEq, have, b.Const(ir.I8, 0)), stop, compare)
	b.At(compare)
	b.If(b.Compare(ir.OpEq, have, want), same, not)
	b.At(same)
	store(searchBytes, b.Binary(ir.OpAdd, j, con(1)))
	b.Return(con(0))
	b.At(not)
	store(searchAt, b.Binary(ir.OpAdd, at, con(1)))
	store(searchBytes, con(0))
	b.Return(con(0))
	b.At(found)
	b.Store(b.Offset(state, searchFound), at)
	b.Return(con(1))
	b.At(stop)
	// The text ends before the needle does: it does not fit further on either.
	b.Return(con(1))
	return f
}
