package opt

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// maxFillCopy is the size up to which bytes are copied rather than asked for
// once more.
const maxFillCopy = 32

// fills merges calls that fill memory with the same: where a buffer is only
// read once it is filled, it serves for one that would be filled later, or is
// copied to where the bytes are wanted.
func fills(p *context) bool {
	n := 0
	for _, b := range p.f.Blocks {
		for _, v := range b.Values {
			if isFill(v) {
				n++
			}
		}
	}
	changed := false
	for range n - 1 { // each time there is one less
		if !newFiller(p.f).once() {
			break
		}
		changed = true
	}
	return changed
}

// A buffer is an alloca and what is done to it.
type buffer struct {
	alloca *ir.Value
	fill   *ir.Value   // the only call that fills it
	zeroes []*ir.Value // memzeros in front of that, in its block
	reads  []*ir.Value
	known  bool // nothing else is done to it
}

// steady reports whether b holds the same from its fill on.
func (b *buffer) steady() bool { return b.known && b.fill != nil }

// covers reports whether b is as long as its fill, and nothing else.
func (b *buffer) covers() bool {
	n, ok := b.fill.Args[1].IsConst()
	return ok && n == b.alloca.Int && b.fill.Args[0] == b.alloca
}

type filler struct {
	f       *ir.Func
	cfg     *ir.CFG
	addrs   *addressBook
	place   map[*ir.Value]int // in its block
	buffers map[*ir.Value]*buffer
	fills   []*ir.Value
}

func newFiller(f *ir.Func) *filler {
	l := &filler{f: f, cfg: ir.NewCFG(f), addrs: addresses(f), place: map[*ir.Value]int{}, buffers: map[*ir.Value]*buffer{}}
	for a, use := range allocaUses(f, l.addrs) {
		if !use.captured {
			l.buffers[a] = &buffer{alloca: a, known: true}
		}
	}
	for _, b := range l.cfg.RPO {
		for i, v := range b.Values {
			l.place[v] = i
			if isFill(v) {
				l.fills = append(l.fills, v)
			}
			for i, a := range v.Args {
				if a.Type.IsPtr() {
					if buf := l.buffers[l.addrs.of(a).root]; buf != nil {
						buf.use(v, i)
					}
				}
			}
		}
	}
	for _, buf := range l.buffers {
		for _, z := range buf.zeroes {
			if buf.fill == nil || z.Block != buf.fill.Block || l.place[z] > l.place[buf.fill] {
				buf.known = false
			}
		}
		if buf.fill != nil && l.cfg.Loop(buf.fill.Block) != nil {
			buf.known = false
		}
	}
	return l
}

// isFill reports whether v calls what fills as many bytes as it is told.
func isFill(v *ir.Value) bool {
	e, ok := v.Aux.(*ir.Extern)
	return ok && v.Op == ir.OpCall && e.Effect.Fills && !e.Effect.Volatile && len(v.Args) >= 2
}

// use notes that v uses an address in b as operand i.
func (b *buffer) use(v *ir.Value, i int) {
	if v.IsVolatile() {
		b.known = false
		return
	}
	switch v.Op {
	case ir.OpPtrAdd, ir.OpField, ir.OpNonNull:
		if i > 0 {
			b.known = false
		}
	case ir.OpLoad:
		b.reads = append(b.reads, v)
	case ir.OpMemZero:
		b.zeroes = append(b.zeroes, v)
	case ir.OpMemCopy:
		if i == 0 {
			b.known = false
		}
		b.reads = append(b.reads, v)
	case ir.OpCall:
		writes := v.Effects().Writes
		switch {
		case isFill(v) && i == 0 && b.fill == nil:
			b.fill = v
		case isFill(v) && i > 0, !writes.Has(ir.SpaceStack) && !writes.Has(ir.SpaceMem):
			b.reads = append(b.reads, v)
		default:
			b.known = false
		}
	default:
		b.known = false
	}
}

// before reports whether x is always computed before y.
func (l *filler) before(x, y *ir.Value) bool {
	if x.Block == y.Block {
		return l.place[x] < l.place[y]
	}
	return l.cfg.Dominates(x.Block, y.Block)
}

// once merges one fill with another.
func (l *filler) once() bool {
	for _, c := range l.fills {
		n, ok := c.Args[1].IsConst()
		if !ok || l.cfg.Loop(c.Block) != nil {
			continue
		}
		for _, first := range l.fills {
			from := l.buffers[l.addrs.of(first.Args[0]).root]
			if first == c || first.Aux != c.Aux || from == nil || from.fill != first || !from.steady() || !from.covers() ||
				from.alloca.Int != n || !slices.EqualFunc(first.Args[2:], c.Args[2:], equalValues) || !l.before(first, c) || !l.unchanged(first, c) {
				continue
			}
			to := l.buffers[l.addrs.of(c.Args[0]).root]
			switch {
			case to != nil && to.fill == c && l.serves(from, to):
				l.replace(from, to)
			case len(from.zeroes) > 0 && n <= maxFillCopy:
				l.copy(from, c)
			default:
				continue
			}
			return true
		}
	}
	return false
}

func equalValues(x, y *ir.Value) bool {
	n, ok := x.IsConst()
	k, ok2 := y.IsConst()
	return x == y || ok && ok2 && n == k && x.Type == y.Type
}

// unchanged reports whether what first reads is not written by the program up
// to c, which it dominates.
func (l *filler) unchanged(first, c *ir.Value) bool {
	reads := first.Effects().Reads
	if reads == 0 {
		return true
	}
	writes := func(list []*ir.Value) bool {
		return slices.ContainsFunc(list, func(v *ir.Value) bool {
			if len(v.Args) > 0 && v.Op != ir.OpCall && v.Args[0].Type.IsPtr() {
				if _, private := l.buffers[l.addrs.of(v.Args[0]).root]; private {
					return false
				}
			}
			return v.Effects().Writes != 0 && !isFill(v)
		})
	}
	if first.Block == c.Block {
		return !writes(c.Block.Values[l.place[first]:l.place[c]])
	}
	seen := map[*ir.Block]bool{first.Block: true}
	work := []*ir.Block{c.Block}
	if writes(first.Block.Values[l.place[first]:]) || writes(c.Block.Values[:l.place[c]]) {
		return false
	}
	for len(work) > 0 {
		b := work[len(work)-1]
		work = work[:len(work)-1]
		for _, p := range l.cfg.Preds(b) {
			if seen[p.Block] {
				continue
			}
			seen[p.Block] = true
			if p.Block == c.Block || writes(p.Block.Values) {
				return false
			}
			work = append(work, p.Block)
		}
	}
	return true
}

// serves reports whether from may be read in place of to.
func (l *filler) serves(from, to *buffer) bool {
	return to.steady() && to.covers() && (len(to.zeroes) == 0 || len(from.zeroes) > 0) &&
		!slices.ContainsFunc(to.reads, func(v *ir.Value) bool { return !l.before(to.fill, v) })
}

func (l *filler) replace(from, to *buffer) {
	b := to.fill.Block
	b.Values = slices.DeleteFunc(b.Values, func(v *ir.Value) bool { return slices.Contains(to.zeroes, v) })
	sub := ir.NewSubst(l.f)
	sub.Replace(to.fill, from.fill)
	sub.Replace(to.alloca, from.alloca)
	sub.Apply(l.f)
}

// copy has a copy of the bytes that are in a buffer already in place of c.
func (l *filler) copy(from *buffer, c *ir.Value) {
	v := l.f.NewValue(ir.OpMemCopy, ir.I64, c.Pos, c.Args[0], from.alloca)
	v.Int = from.alloca.Int
	c.Block.InsertBefore(l.place[c], v)
	sub := ir.NewSubst(l.f)
	sub.Replace(c, from.fill)
	sub.Apply(l.f)
}
