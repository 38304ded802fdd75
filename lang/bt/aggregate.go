package bt

import (
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
)

// maxCPUs bounds the CPUs that are looked at for a sum; the helper ends it at
// the last possible one. It is the largest NR_CPUS that a kernel can have.
const maxCPUs = 8192

// What a sum over CPUs is made of, offsets in bytes.
const (
	sumKey    = 0
	sumNumber = 8
	sumCount  = 16
	sumSize   = 24
)

// readAgg is an aggregation as a number, summed up over all CPUs; 0 when the
// element is not there.
func (g *gen) readAgg(m *mapInfo, keys []syntax.Expr, _ syntax.Expr) *ir.Value {
	return g.sumUp(m, g.key(m, keys))
}

// sumUp is the number that an aggregation comes to over all CPUs.
func (g *gen) sumUp(m *mapInfo, key *ir.Value) *ir.Value {
	if m.reader == nil {
		m.reader = g.summer(m)
	}
	state := g.b.Alloca(sumSize, nil, "sum")
	g.b.Store(g.b.Offset(state, sumKey), key)
	g.b.Store(g.b.Offset(state, sumNumber), g.const64(0))
	g.b.Store(g.b.Offset(state, sumCount), g.const64(0))
	g.helper(hLoop, g.const64(maxCPUs), g.b.FuncRef(m.reader), state, g.const64(0))
	n := g.b.Load(ir.I64, g.b.Offset(state, sumNumber))
	if m.Value.Agg == check.Avg {
		op := ir.OpUDiv
		if m.Value.Signed {
			op = ir.OpSDiv
		}
		return g.b.Binary(op, n, g.b.Load(ir.I64, g.b.Offset(state, sumCount)))
	}
	return n
}

// summer is the function that takes one CPU's part.
func (g *gen) summer(m *mapInfo) *ir.Func {
	f := g.mod.NewFunc("sum_"+m.ir.Name, ir.Static, []ir.Type{ir.I64, framePtr}, ir.I64)
	f.Pos = m.Span
	sg := &gen{lowerer: g.lowerer, inst: g.inst, info: g.info, b: ir.NewBuilder(f)}
	b, cpu, state := sg.b, f.Params()[0], f.Params()[1]
	key := b.Load(ir.MemPtr(ir.SpaceStack, m.ir.KeySize), b.Offset(state, sumKey))
	p := sg.helper(hLookupPercpu, b.Map(m.ir), key, cpu)
	have, none := sg.block("have"), sg.block("none")
	b.If(b.Compare(ir.OpNe, p, b.Null(p.Type)), have, none)
	b.At(none)
	b.Return(sg.const64(1))
	b.At(have)
	p = b.NonNull(p)
	number, count := b.Offset(state, sumNumber), b.Offset(state, sumCount)
	n := b.Load(ir.I64, p)
	switch m.Value.Agg {
	case check.Count, check.Sum:
		b.Store(number, b.Binary(ir.OpAdd, b.Load(ir.I64, number), n))
	case check.Avg:
		b.Store(number, b.Binary(ir.OpAdd, b.Load(ir.I64, number), n))
		b.Store(count, b.Binary(ir.OpAdd, b.Load(ir.I64, count), b.Load(ir.I64, b.Offset(p, 8))))
	case check.Min, check.Max:
		op := syntax.OpLt
		if m.Value.Agg == check.Max {
			op = syntax.OpGt
		}
		set := sg.block("set")
		store, compare, done := sg.block("store"), sg.block("compare"), sg.block("done")
		b.If(b.Compare(ir.OpNe, b.Load(ir.I64, b.Offset(p, 8)), sg.const64(0)), set, done)
		b.At(set)
		b.If(b.Compare(ir.OpEq, b.Load(ir.I64, count), sg.const64(0)), store, compare)
		b.At(compare)
		b.If(b.Compare(operation(op, m.Value.Signed), n, b.Load(ir.I64, number)), store, done)
		b.At(store)
		b.Store(number, n)
		b.Store(count, sg.const64(1))
		b.Jump(done)
		b.At(done)
	}
	b.Return(sg.const64(0))
	return f
}
