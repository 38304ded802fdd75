package ir

// A CFG is what is known of a function's flow of control: predecessors, an
// order, dominators and loops. It is a snapshot: make a new one after blocks
// or edges changed. Slices are indexed by Block.ID.
type CFG struct {
	Func *Func
	// RPO are the reachable blocks in reverse post-order: but for back edges,
	// a block stands behind all its predecessors.
	RPO []*Block

	index    []int32 // place in RPO, -1 when not reachable
	preds    [][]Pred
	idom     []*Block
	children [][]*Block
	pre      []int32 // numbers of a walk over the dominator tree
	post     []int32
	loop     []*Loop
	loops    []*Loop
}

// A Pred is an edge seen from the block it leads to.
type Pred struct {
	Block *Block
	Succ  int // the index in Block.Succs
}

// Edge returns the edge itself, which may be changed.
func (p Pred) Edge() *Edge { return &p.Block.Succs[p.Succ] }

// A Loop is a natural loop: a header and the blocks from which control comes
// back to it without passing it.
type Loop struct {
	Header  *Block
	Blocks  []*Block // the header first, inner loops' blocks too
	Latches []*Block // the blocks that jump back to the header
	Parent  *Loop    // nil for an outermost loop
	Depth   int      // 1 for an outermost loop
}

// NewCFG looks at the flow of control of f.
func NewCFG(f *Func) *CFG {
	n := f.NumBlocks()
	c := &CFG{Func: f, index: make([]int32, n), preds: make([][]Pred, n), idom: make([]*Block, n)}
	for i := range c.index {
		c.index[i] = -1
	}
	if len(f.Blocks) == 0 {
		return c
	}
	c.order()
	for _, b := range c.RPO {
		for i, e := range b.Succs {
			c.preds[e.To.ID] = append(c.preds[e.To.ID], Pred{b, i})
		}
	}
	c.dominators()
	c.findLoops()
	return c
}

func (c *CFG) order() {
	type frame struct {
		b    *Block
		next int
	}
	seen := make([]bool, len(c.index))
	stack := []frame{{c.Func.Entry(), 0}}
	seen[c.Func.Entry().ID] = true
	var post []*Block
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next < len(top.b.Succs) {
			// The last successor first, so that RPO has the first one first.
			to := top.b.Succs[len(top.b.Succs)-1-top.next].To
			top.next++
			if !seen[to.ID] {
				seen[to.ID] = true
				stack = append(stack, frame{to, 0})
			}
			continue
		}
		post = append(post, top.b)
		stack = stack[:len(stack)-1]
	}
	c.RPO = make([]*Block, len(post))
	for i, b := range post {
		at := len(post) - 1 - i
		c.RPO[at] = b
		c.index[b.ID] = int32(at)
	}
}

// dominators is the algorithm of Cooper, Harvey and Kennedy, "A Simple, Fast
// Dominance Algorithm".
func (c *CFG) dominators() {
	entry := c.RPO[0]
	c.idom[entry.ID] = entry
	for changed := true; changed; {
		changed = false
		for _, b := range c.RPO[1:] {
			var d *Block
			for _, p := range c.preds[b.ID] {
				switch {
				case c.idom[p.Block.ID] == nil:
				case d == nil:
					d = p.Block
				default:
					d = c.intersect(d, p.Block)
				}
			}
			if c.idom[b.ID] != d {
				c.idom[b.ID] = d
				changed = true
			}
		}
	}
	c.idom[entry.ID] = nil
	n := len(c.index)
	c.children = make([][]*Block, n)
	for _, b := range c.RPO[1:] {
		d := c.idom[b.ID]
		c.children[d.ID] = append(c.children[d.ID], b)
	}
	c.pre, c.post = make([]int32, n), make([]int32, n)
	clock := int32(0)
	c.WalkDom(func(b *Block) { clock++; c.pre[b.ID] = clock }, func(b *Block) { clock++; c.post[b.ID] = clock })
}

func (c *CFG) intersect(a, b *Block) *Block {
	for a != b {
		for c.index[a.ID] > c.index[b.ID] {
			a = c.idom[a.ID]
		}
		for c.index[b.ID] > c.index[a.ID] {
			b = c.idom[b.ID]
		}
	}
	return a
}

// Reachable reports whether control can come to b.
func (c *CFG) Reachable(b *Block) bool { return c.index[b.ID] >= 0 }

// Index is the place of b in RPO, -1 when b is not reachable.
func (c *CFG) Index(b *Block) int { return int(c.index[b.ID]) }

// Preds returns the edges that lead to b from reachable blocks.
func (c *CFG) Preds(b *Block) []Pred { return c.preds[b.ID] }

// Idom returns the immediate dominator of b; nil for the entry and for blocks
// that are not reachable.
func (c *CFG) Idom(b *Block) *Block { return c.idom[b.ID] }

// DomChildren returns the blocks whose immediate dominator is b.
func (c *CFG) DomChildren(b *Block) []*Block { return c.children[b.ID] }

// Dominates reports whether every way to b leads through a; a block
// dominates itself. Both have to be reachable.
func (c *CFG) Dominates(a, b *Block) bool {
	return c.pre[a.ID] <= c.pre[b.ID] && c.post[b.ID] <= c.post[a.ID]
}

// CommonDom returns the closest block that dominates both a and b.
func (c *CFG) CommonDom(a, b *Block) *Block { return c.intersect(a, b) }

// WalkDom walks the dominator tree: enter is called before a block's
// children, leave (which may be nil) after them.
func (c *CFG) WalkDom(enter, leave func(*Block)) {
	type frame struct {
		b    *Block
		next int
	}
	if len(c.RPO) == 0 {
		return
	}
	stack := []frame{{c.RPO[0], 0}}
	enter(c.RPO[0])
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next < len(c.children[top.b.ID]) {
			b := c.children[top.b.ID][top.next]
			top.next++
			enter(b)
			stack = append(stack, frame{b, 0})
			continue
		}
		if leave != nil {
			leave(top.b)
		}
		stack = stack[:len(stack)-1]
	}
}

func (c *CFG) findLoops() {
	c.loop = make([]*Loop, len(c.index))
	// Inner headers stand behind outer ones in RPO: going backwards, a loop
	// is complete before one around it is looked at.
	for i := len(c.RPO) - 1; i >= 0; i-- {
		h := c.RPO[i]
		var l *Loop
		for _, p := range c.preds[h.ID] {
			if c.Dominates(h, p.Block) {
				if l == nil {
					l = &Loop{Header: h}
				}
				l.Latches = append(l.Latches, p.Block)
			}
		}
		if l == nil {
			continue
		}
		work := append([]*Block(nil), l.Latches...)
		for len(work) > 0 {
			b := work[len(work)-1]
			work = work[:len(work)-1]
			// Step out of loops already found, up to one that l contains.
			inner := c.loop[b.ID]
			for inner != nil && inner.Parent != nil && inner != l {
				inner = inner.Parent
			}
			switch {
			case inner == l:
				continue
			case inner != nil:
				inner.Parent = l
				b = inner.Header
			default:
				c.loop[b.ID] = l
			}
			if b == h {
				continue
			}
			for _, p := range c.preds[b.ID] {
				work = append(work, p.Block)
			}
		}
		c.loop[h.ID] = l
		c.loops = append(c.loops, l)
	}
	for i := len(c.loops) - 1; i >= 0; i-- {
		l := c.loops[i]
		l.Depth = 1
		if l.Parent != nil {
			l.Depth = l.Parent.Depth + 1
		}
	}
	for _, b := range c.RPO {
		for l := c.loop[b.ID]; l != nil; l = l.Parent {
			l.Blocks = append(l.Blocks, b)
		}
	}
}

// Loops returns all loops, inner ones before those around them.
func (c *CFG) Loops() []*Loop { return c.loops }

// Loop returns the innermost loop that b is in, or nil.
func (c *CFG) Loop(b *Block) *Loop { return c.loop[b.ID] }

// LoopDepth is the number of loops that b is in.
func (c *CFG) LoopDepth(b *Block) int {
	if l := c.loop[b.ID]; l != nil {
		return l.Depth
	}
	return 0
}

// Contains reports whether b is in l or in a loop within it.
func (c *CFG) Contains(l *Loop, b *Block) bool {
	for m := c.loop[b.ID]; m != nil; m = m.Parent {
		if m == l {
			return true
		}
	}
	return false
}

// Irreducible returns an edge that enters a cycle anywhere but at a block
// that dominates the cycle, if there is one.
func (c *CFG) Irreducible() (Pred, bool) {
	for _, b := range c.RPO {
		for i, e := range b.Succs {
			if c.index[e.To.ID] <= c.index[b.ID] && !c.Dominates(e.To, b) {
				return Pred{b, i}, true
			}
		}
	}
	return Pred{}, false
}

// Frontiers returns the dominance frontier of every block: where its
// dominance ends.
func (c *CFG) Frontiers() [][]*Block {
	df := make([][]*Block, len(c.index))
	for _, b := range c.RPO {
		if len(c.preds[b.ID]) < 2 {
			continue
		}
		for _, p := range c.preds[b.ID] {
			for r := p.Block; r != nil && r != c.idom[b.ID]; r = c.idom[r.ID] {
				if n := len(df[r.ID]); n == 0 || df[r.ID][n-1] != b {
					df[r.ID] = append(df[r.ID], b)
				}
			}
		}
	}
	return df
}
