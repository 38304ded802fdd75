package codegen

import (
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/source"
)

// Legalisation rewrites what no instruction does into what some do: reads of
// memory that only helpers may read, copies, signed division, allocas that
// the frame has no room for. It is done on the IR, so that the optimiser
// improves its results like any other code.
func (g *generator) legalise() {
	for _, f := range g.m.Funcs {
		e := &editor{g: g, f: f, b: ir.NewBuilder(f)}
		e.run()
	}
	if !g.diags.HasErrors() {
		g.scratch()
	}
}

// An editor rewrites a function value by value. A rewrite puts new values
// before the one at hand, and may change that one in place, so that its uses
// need no change.
type editor struct {
	g *generator
	f *ir.Func
	b *ir.Builder

	numbers map[*ir.Value]bool // see arithmetic
}

func (e *editor) run() {
	e.numbers = arithmetic(e.f)
	for _, block := range append([]*ir.Block(nil), e.f.Blocks...) {
		old := block.Values
		tail := ir.Block{Term: block.Term, Cond: block.Cond, Succs: block.Succs, Likely: block.Likely, Pos: block.Pos}
		block.Values, block.Term = nil, ir.TermNone
		// Allocas made on the way go before what is still to come.
		if block == e.f.Entry() {
			for len(old) > 0 && old[0].Op == ir.OpAlloca {
				block.Values = append(block.Values, old[0])
				old = old[1:]
			}
		}
		e.b.At(block)
		for _, v := range old {
			e.b.Pos = v.Pos
			e.value(v)
			v.Block = e.b.Block
			e.b.Block.Values = append(e.b.Block.Values, v)
		}
		last := e.b.Block
		last.Term, last.Cond, last.Succs, last.Likely, last.Pos = tail.Term, tail.Cond, tail.Succs, tail.Likely, tail.Pos
	}
}

// become turns v into another operation.
func become(v *ir.Value, op ir.Op, args ...*ir.Value) {
	v.Op, v.Args, v.Int, v.Aux = op, args, 0, nil
}

func (e *editor) value(v *ir.Value) {
	switch v.Op {
	case ir.OpSDiv, ir.OpSMod:
		e.signedDivision(v)
	case ir.OpField:
		if ref := v.Aux.(*ir.FieldRef); !ref.Relocate {
			become(v, ir.OpPtrAdd, v.Args[0], e.b.Const(ir.I64, int64(ref.Offset)))
		}
	case ir.OpLoad:
		e.load(v)
	case ir.OpPtrToInt:
		if e.numbers[v] {
			e.number(v)
		}
	case ir.OpStore, ir.OpAtomic, ir.OpMemZero:
		if !e.writable(v) {
			return
		}
		if v.Op == ir.OpMemZero {
			e.memZero(v)
		}
	case ir.OpMemCopy:
		if e.writable(v) {
			e.memCopy(v)
		}
	}
}

// writable reports an error when v writes where a program cannot.
func (e *editor) writable(v *ir.Value) bool {
	space := v.Args[0].Type.Space
	if space.Writable() || space == ir.SpaceNone || space == ir.SpaceBTF {
		return true
	}
	what := "kernel memory"
	if space == ir.SpaceUser {
		what = "user memory"
	}
	e.g.fail(source.Errorf(v.Pos, "not-writable", "a BPF program cannot write to %s directly", what))
	return false
}
