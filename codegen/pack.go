package codegen

import (
	"cmp"
	"slices"
)

// A memory is the layout problem of stack frames and of scratch memory:
// objects that are never in use at the same time may share a place. An object
// is in use from where something of it may have been written to where
// something of it may still be read.
//
// Small objects are followed byte by byte, since keys and records are written
// field by field: one that is written anew in each round of a loop is not in
// use between the rounds.
type memory struct {
	sizes   []int  // of the objects in bytes; they take multiples of 8
	escaped []bool // in use all the time
	blocks  []memoryBlock
}

type memoryBlock struct {
	events []event
	succs  []int
}

// An event is one point of the program that reaches objects.
type event struct {
	touches []int // read, or their address taken
	writes  []write
}

// A write overwrites the bytes of an object from one offset to another.
type write struct{ object, from, to int }

// byteLimit is the size up to which objects are followed byte by byte.
const byteLimit = 128

// cells numbers the bytes of small objects, and each larger object as one.
type cells struct {
	first []int // of each object
	of    []int // the object of each cell
	m     *memory
}

func (m *memory) cells() *cells {
	c := &cells{m: m}
	for o, size := range m.sizes {
		c.first = append(c.first, len(c.of))
		n := 1
		if size <= byteLimit {
			n = max(size, 1)
		}
		for range n {
			c.of = append(c.of, o)
		}
	}
	return c
}

// all calls f for every cell of an object.
func (c *cells) all(o int, f func(cell int)) {
	for cell := c.first[o]; cell < len(c.of) && c.of[cell] == o; cell++ {
		f(cell)
	}
}

// covered calls f for every cell that a write overwrites whole.
func (c *cells) covered(w write, f func(cell int)) {
	size := c.m.sizes[w.object]
	if size > byteLimit {
		if w.from <= 0 && w.to >= size {
			f(c.first[w.object])
		}
		return
	}
	for b := max(w.from, 0); b < min(w.to, size); b++ {
		f(c.first[w.object] + b)
	}
}

// pack returns the distance of every object from the start, -1 for objects
// never reached, and the size of it all.
func (m *memory) pack() (starts []int, total int) {
	n := len(m.sizes)
	taken := make([]int, n)
	for i, size := range m.sizes {
		taken[i] = (size + 7) &^ 7
	}
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
				if conflict[o].has(p) && start < starts[p]+taken[p] && starts[p] < start+taken[o] {
					start = starts[p] + taken[p]
					again = true
				}
			}
		}
		starts[o] = start
		placed = append(placed, o)
		total = max(total, start+taken[o])
	}
	return starts, total
}

// conflicts returns for every object those that are in use together with it,
// and the set of objects reached at all.
func (m *memory) conflicts() (conflict []bitset, seen bitset) {
	n := len(m.sizes)
	c := m.cells()
	type flow struct {
		use, def, liveIn, liveOut bitset // of cells
		gen, begunIn, begunOut    bitset // of objects
	}
	flows := make([]flow, len(m.blocks))
	seen = newBitset(n)
	for k := range m.blocks {
		fl := &flows[k]
		for _, s := range []*bitset{&fl.use, &fl.def, &fl.liveIn, &fl.liveOut} {
			*s = newBitset(len(c.of))
		}
		for _, s := range []*bitset{&fl.gen, &fl.begunIn, &fl.begunOut} {
			*s = newBitset(n)
		}
		for _, e := range m.blocks[k].events {
			for _, o := range e.touches {
				c.all(o, func(cell int) {
					if !fl.def.has(cell) {
						fl.use.add(cell)
					}
				})
				fl.gen.add(o)
			}
			for _, w := range e.writes {
				c.covered(w, fl.def.add)
				fl.gen.add(w.object)
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
			for _, w := range e.writes {
				now.add(w.object)
			}
		}
		// ... and until where it still is, going back. What an instruction
		// reaches is in use during it, together with all that is in use
		// across it.
		live := slices.Clone(fl.liveOut)
		for j := len(events) - 1; j >= 0; j-- {
			e := events[j]
			clear(used)
			live.each(func(cell int) {
				if o := c.of[cell]; begun[j].has(o) {
					used.add(o)
				}
			})
			for _, o := range e.touches {
				used.add(o)
			}
			for _, w := range e.writes {
				used.add(w.object)
			}
			used.each(func(o int) { conflict[o].union(used) })
			for _, w := range e.writes {
				c.covered(w, live.remove)
			}
			for _, o := range e.touches {
				c.all(o, live.add)
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
