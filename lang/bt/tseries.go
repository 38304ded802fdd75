package bt

import (
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

// tseriesSlot is the size of an interval: its number plus one, the value, and
// the count of values, or when the value was set; see object.AggTseries.
const tseriesSlot = 24

var tseriesInner = map[string]object.Agg{
	"": object.AggNone, "avg": object.AggAvg, "sum": object.AggSum, "min": object.AggMin, "max": object.AggMax,
}

// tseries puts n into the current interval of a time series at p.
func (g *gen) tseries(p, n *ir.Value, t *check.Type) {
	interval, buckets := t.Params[0], t.Params[1]
	now := g.helper(hKtimeTAINS)
	epoch := g.b.Binary(ir.OpUDiv, now, g.const64(interval))
	slot := g.b.Binary(ir.OpUMod, epoch, g.const64(buckets))
	number := g.b.Binary(ir.OpAdd, epoch, g.const64(1))
	inside, done := g.block("series"), g.block("series.done")
	g.b.If(g.b.Compare(ir.OpULt, slot, g.const64(buckets)), inside, done)
	g.b.At(inside)
	s := g.b.PtrAdd(p, g.b.Binary(ir.OpMul, slot, g.const64(tseriesSlot)))
	value, count := g.b.Offset(s, 8), g.b.Offset(s, 16)
	fresh, again := g.block("series.fresh"), g.block("series.again")
	g.b.If(g.b.Compare(ir.OpEq, g.b.Load(ir.I64, s), number), again, fresh)
	g.b.At(fresh)
	g.b.Store(s, number)
	g.b.Store(value, n)
	if t.Mode == "avg" {
		g.b.Store(count, g.const64(1))
	} else {
		g.b.Store(count, now)
	}
	g.b.Jump(done)
	g.b.At(again)
	switch t.Mode {
	case "sum", "avg":
		g.b.Store(value, g.b.Binary(ir.OpAdd, g.b.Load(ir.I64, value), n))
		if t.Mode == "avg" {
			g.b.Store(count, g.b.Binary(ir.OpAdd, g.b.Load(ir.I64, count), g.const64(1)))
		}
	case "min", "max":
		op := syntax.OpLt
		if t.Mode == "max" {
			op = syntax.OpGt
		}
		g.ifThen(g.b.Compare(operation(op, t.Signed), n, g.b.Load(ir.I64, value)), func() { g.b.Store(value, n) })
	default:
		g.b.Store(value, n)
		g.b.Store(count, now)
	}
	g.jump(done)
	g.b.At(done)
}
