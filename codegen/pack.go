package codegen

import (
	"cmp"
	"slices"
)

// A memory is the layout problem of stack frames and of scratch memory:
// objects that are never in use at the same time may share a place. An object
// is in use from where something of it may have been written to where
// something of it may still be read.
type memory struct {
	sizes   []int  // of the objects, multiples of 8
	escaped []bool // in use all the time
	blocks  []memoryBlock
}

type memoryBlock struct {
	events []event
	succs  []int
}

// An event is one point of the program that reaches objects.
type event struct {
	touches []int // read, written in part, or their address taken
	whole   int   // overwritten whole, -1 for none
}

// pack returns the distance of every object from the start, -1 for objects
// never reached, and the size of it all.
func (m *memory) pack() (starts []int, total int) {
	n := len(m.sizes)
	conflict, seen := m.conflicts()
	order := make([]int, n)
	starts = make([]int, n)
	for i := range order {
		order[i], starts[i] = i, -1
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(m.sizes[b], m.sizes[a]) })
	var placed []int
	for _, o := range order {
		if !seen.has(o) {
			continue
		}
		// The lowest place that no conflicting object takes.
		start := 0
		for again := true; again; {
			again = false
			for _, p := range placed {
				if conflict[o].has(p) && start < starts[p]+m.sizes[p] && starts[p] < start+m.sizes[o] {
					start = starts[p] + m.sizes[p]
					again = true
				}
			}
		}
		starts[o] = start
		placed = append(placed, o)
		total = max(total, start+m.sizes[o])
	}
	return starts, total
}

// conflicts returns for every object those that are in use together with it,
// and the set of objects reached at all.
func (m *memory) conflicts() (conflict []bitset, seen bitset) {
	n := len(m.sizes)
	type flow struct{ use, def, gen, liveIn, liveOut, begunIn, begunOut bitset }
	flows := make([]flow, len(m.blocks))
	seen = newBitset(n)
	for k := range m.blocks {
		fl := &flows[k]
		for _, s := range []*bitset{&fl.use, &fl.def, &fl.gen, &fl.liveIn, &fl.liveOut, &fl.begunIn, &fl.begunOut} {
			*s = newBitset(n)
		}
		for _, e := range m.blocks[k].events {
			for _, o := range e.touches {
				if !fl.def.has(o) {
					fl.use.add(o)
				}
				fl.gen.add(o)
			}
			if e.whole >= 0 {
				fl.def.add(e.whole)
				fl.gen.add(e.whole)
			}
		}
		seen.union(fl.gen)
	}
	for changed := true; changed; {
		changed = false
		for k := len(m.blocks) - 1; k >= 0; k-- {
			fl := &flows[k]
			for _, s := range m.blocks[k].succs {
				changed = fl.liveOut.union(flows[s].liveIn) || changed
			}
			for w := range fl.liveIn {
				fl.liveIn[w] = fl.use[w] | fl.liveOut[w]&^fl.def[w]
			}
		}
		for k := range m.blocks {
			fl := &flows[k]
			fl.begunOut.union(fl.begunIn)
			fl.begunOut.union(fl.gen)
			for _, s := range m.blocks[k].succs {
				changed = flows[s].begunIn.union(fl.begunOut) || changed
			}
		}
	}
	conflict = make([]bitset, n)
	for o := range conflict {
		conflict[o] = newBitset(n)
	}
	used := newBitset(n)
	for k := range m.blocks {
		fl, events := &flows[k], m.blocks[k].events
		// Where each object has begun to be in use, going forward ...
		begun := make([]bitset, len(events))
		now := slices.Clone(fl.begunIn)
		for j, e := range events {
			begun[j] = slices.Clone(now)
			for _, o := range e.touches {
				now.add(o)
			}
			if e.whole >= 0 {
				now.add(e.whole)
			}
		}
		// ... and until where it still is, going back. What an instruction
		// reaches is in use during it, together with all that is in use
		// across it.
		live := slices.Clone(fl.liveOut)
		for j := len(events) - 1; j >= 0; j-- {
			e := events[j]
			for w := range used {
				used[w] = begun[j][w] & live[w]
			}
			for _, o := range e.touches {
				used.add(o)
			}
			if e.whole >= 0 {
				used.add(e.whole)
			}
			used.each(func(o int) { conflict[o].union(used) })
			if e.whole >= 0 {
				live.remove(e.whole)
			}
			for _, o := range e.touches {
				live.add(o)
			}
		}
	}
	for o, escaped := range m.escaped {
		if escaped {
			for p := range n {
				conflict[o].add(p)
				conflict[p].add(o)
			}
		}
	}
	return conflict, seen
}
