package codegen

import (
	"math/bits"

	"github.com/skep-bpf/skep/ir"
)

// each calls fn with every member in order.
func (s bitset) each(fn func(int)) {
	for i, w := range s {
		for w != 0 {
			fn(i<<6 + bits.TrailingZeros64(w))
			w &= w - 1
		}
	}
}

// postorder returns the blocks so that successors come before their
// predecessors wherever there is no loop.
func (f *function) postorder() []*block {
	seen := make([]bool, len(f.blocks))
	order := make([]*block, 0, len(f.blocks))
	type frame struct {
		b    *block
		next int
	}
	stack := []frame{{f.blocks[0], 0}}
	seen[0] = true
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		succs := top.b.successors()
		if top.next < len(succs) {
			s := succs[top.next]
			top.next++
			if !seen[s.id] {
				seen[s.id] = true
				stack = append(stack, frame{s, 0})
			}
			continue
		}
		order = append(order, top.b)
		stack = stack[:len(stack)-1]
	}
	return order
}

// estimate guesses how often each block runs: eight times more for each loop
// around it, seldom when only unlikely edges lead there.
func (f *function) estimate() {
	for _, b := range f.blocks {
		b.depth, b.cold = 0, true
	}
	// Loops: the body of a back edge is what reaches its source without
	// passing its head.
	state := make([]uint8, len(f.blocks)) // 1 on the stack, 2 done
	type frame struct {
		b    *block
		next int
	}
	bodies := make(map[*block]bitset)
	var heads []*block
	stack := []frame{{f.blocks[0], 0}}
	state[0] = 1
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		succs := top.b.successors()
		if top.next == len(succs) {
			state[top.b.id] = 2
			stack = stack[:len(stack)-1]
			continue
		}
		s := succs[top.next]
		top.next++
		switch state[s.id] {
		case 0:
			state[s.id] = 1
			stack = append(stack, frame{s, 0})
		case 1:
			body := bodies[s]
			if body == nil {
				body = newBitset(len(f.blocks))
				body.add(s.id)
				bodies[s] = body
				heads = append(heads, s)
			}
			work := []*block{top.b}
			for len(work) > 0 {
				b := work[len(work)-1]
				work = work[:len(work)-1]
				if body.has(b.id) {
					continue
				}
				body.add(b.id)
				work = append(work, b.preds...)
			}
		}
	}
	for _, h := range heads {
		bodies[h].each(func(id int) { f.blocks[id].depth++ })
	}
	// What can be reached without an unlikely edge is warm.
	work := []*block{f.blocks[0]}
	f.blocks[0].cold = false
	for len(work) > 0 {
		b := work[len(work)-1]
		work = work[:len(work)-1]
		for n, s := range b.successors() {
			unlikely := b.end == endIf && (b.likely == ir.Then && n == 1 || b.likely == ir.Else && n == 0)
			if s.cold && !unlikely {
				s.cold = false
				work = append(work, s)
			}
		}
	}
	for _, b := range f.blocks {
		b.freq = 1
		for range min(b.depth, 6) {
			b.freq *= 8
		}
		if b.cold {
			b.freq /= 16
		}
	}
}

// liveness computes which registers are live at the borders of blocks.
func (f *function) liveness() {
	n := int(f.nregs)
	var buf []reg
	for _, b := range f.blocks {
		b.use, b.def, b.in, b.out = newBitset(n), newBitset(n), newBitset(n), newBitset(n)
		visit := func(i *inst) {
			buf = i.uses(buf[:0])
			for _, r := range buf {
				if !b.def.has(int(r)) {
					b.use.add(int(r))
				}
			}
			buf = i.defs(buf[:0])
			for _, r := range buf {
				b.def.add(int(r))
			}
		}
		for k := range b.insts {
			visit(&b.insts[k])
		}
		switch {
		case b.end == endIf:
			visit(&b.cond)
		case b.end == endExit && b.reads0 && !b.def.has(0):
			b.use.add(0)
		}
		b.in.union(b.use)
	}
	order := f.postorder()
	for changed := true; changed; {
		changed = false
		for _, b := range order {
			grew := false
			for _, s := range b.successors() {
				if b.out.union(s.in) {
					grew = true
				}
			}
			if !grew {
				continue
			}
			for w := range b.in {
				next := b.in[w] | b.out[w]&^b.def[w]
				if next != b.in[w] {
					b.in[w] = next
					changed = true
				}
			}
		}
	}
}

// liveAtEnd returns the registers live before the end of b: after its last
// instruction, operands of the end included.
func (b *block) liveAtEnd(live bitset) bitset {
	copy(live, b.out)
	switch {
	case b.end == endIf:
		var buf [4]reg
		for _, r := range b.cond.uses(buf[:0]) {
			live.add(int(r))
		}
	case b.end == endExit && b.reads0:
		live.add(0)
	}
	return live
}

// sweep removes instructions whose results nobody reads.
func (f *function) sweep() {
	f.liveness()
	live := newBitset(int(f.nregs))
	var buf []reg
	for _, b := range f.blocks {
		live = b.liveAtEnd(live)
		kept := len(b.insts)
		for k := len(b.insts) - 1; k >= 0; k-- {
			i := &b.insts[k]
			buf = i.defs(buf[:0])
			wanted := i.hasEffect()
			for _, r := range buf {
				wanted = wanted || live.has(int(r))
			}
			if !wanted || i.isCopy() && i.dst == i.src {
				continue
			}
			for _, r := range buf {
				live.remove(int(r))
			}
			buf = i.uses(buf[:0])
			for _, r := range buf {
				live.add(int(r))
			}
			kept--
			b.insts[kept] = b.insts[k]
		}
		b.insts = append(b.insts[:0], b.insts[kept:]...)
	}
}
