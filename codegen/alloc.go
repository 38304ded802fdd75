package codegen

import (
	"fmt"
	"math"
	"slices"

	"github.com/skep-bpf/skep/isa"
)

// Registers are allocated by colouring the interference graph, with copies
// coalesced as long as that is safe (George and Appel, "Iterated Register
// Coalescing", 1996). r0 to r9 are the colours and are themselves nodes of the
// graph. What finds no colour is spilled, or computed anew where it is used,
// and colouring starts over.

const colours = 10

// maxRounds bounds the spilling: each round makes the live ranges shorter, so
// a handful is enough for anything real.
const maxRounds = 40

type moveState uint8

const (
	moveWork moveState = iota
	moveActive
	moveDone // coalesced, constrained or given up
)

type copyInst struct {
	dst, src reg
	state    moveState
	weight   float64
}

type nodeState uint8

const (
	nodeInitial nodeState = iota
	nodeSimplify
	nodeFreeze
	nodeSpill
	nodeStack
	nodeCoalesced
	nodePrecoloured
)

type allocator struct {
	f *function

	edges  edgeSet
	adj    [][]reg
	degree []int
	moves  []copyInst
	moveOf [][]int32 // per register, indices into moves
	state  []nodeState
	alias  []reg
	colour []int8
	cost   []float64
	seen   []int32 // marks of briggsOK
	round  int32
	// occurs tells registers that appear at all.
	occurs []bool

	simplify, freeze, spill []reg
	// worklists are the moves to look at, by level: the more often they run,
	// the higher.
	worklists [][]int32
	levels    []float64 // weights, rising
	stack     []reg
}

type edgeSet struct {
	n    int
	bits bitset              // for small graphs
	m    map[uint64]struct{} // for large ones
}

func newEdgeSet(n int) edgeSet {
	if n <= 6000 {
		return edgeSet{n: n, bits: newBitset(n * (n + 1) / 2)}
	}
	return edgeSet{n: n, m: map[uint64]struct{}{}}
}

func (e *edgeSet) key(a, b reg) int {
	if a < b {
		a, b = b, a
	}
	return int(a)*(int(a)+1)/2 + int(b)
}

func (e *edgeSet) has(a, b reg) bool {
	if e.m == nil {
		return e.bits.has(e.key(a, b))
	}
	_, ok := e.m[uint64(e.key(a, b))]
	return ok
}

func (e *edgeSet) add(a, b reg) {
	if e.m == nil {
		e.bits.add(e.key(a, b))
		return
	}
	e.m[uint64(e.key(a, b))] = struct{}{}
}

// allocate gives every virtual register of f a machine register.
func allocate(f *function) error {
	for round := range maxRounds {
		f.sweep()
		a := newAllocator(f)
		spilled := a.run()
		if len(spilled) == 0 {
			a.assign()
			return nil
		}
		if f.splitChecks(a.withMembers(spilled)) {
			continue
		}
		a.rewrite(spilled, round < maxRounds/2)
	}
	return fmt.Errorf("registers of function %q could not be allocated", f.ir.Name)
}

// withMembers is a list of registers with those that were coalesced with them.
func (a *allocator) withMembers(list []reg) []reg {
	all := slices.Clone(list)
	for r := firstVirtual; r < a.f.nregs; r++ {
		if a.state[r] == nodeCoalesced && slices.Contains(list, a.find(r)) {
			all = append(all, r)
		}
	}
	return all
}

func newAllocator(f *function) *allocator {
	n := int(f.nregs)
	a := &allocator{
		f: f, edges: newEdgeSet(n),
		adj: make([][]reg, n), degree: make([]int, n), moveOf: make([][]int32, n),
		state: make([]nodeState, n), alias: make([]reg, n), colour: make([]int8, n),
		cost: make([]float64, n), occurs: make([]bool, n), seen: make([]int32, n),
	}
	for r := range reg(n) {
		a.alias[r] = r
		a.colour[r] = -1
		if r < regFP {
			a.state[r] = nodePrecoloured
			a.colour[r] = int8(r)
			a.degree[r] = math.MaxInt32
		}
	}
	return a
}

func (a *allocator) edge(u, v reg) {
	if u == v || a.edges.has(u, v) {
		return
	}
	a.edges.add(u, v)
	if u >= firstVirtual {
		a.adj[u] = append(a.adj[u], v)
		a.degree[u]++
	}
	if v >= firstVirtual {
		a.adj[v] = append(a.adj[v], u)
		a.degree[v]++
	}
}

// build makes the graph from liveness.
func (a *allocator) build() {
	f := a.f
	f.liveness()
	for u := range regFP {
		for v := range u {
			a.edge(u, v)
		}
	}
	live := newBitset(int(f.nregs))
	var uses, defs []reg
	for _, b := range f.blocks {
		live = b.liveAtEnd(live)
		if b.end == endIf {
			for _, r := range b.cond.uses(uses[:0]) {
				a.cost[r] += b.freq
				a.occurs[r] = true
			}
		}
		for k := len(b.insts) - 1; k >= 0; k-- {
			i := &b.insts[k]
			uses, defs = i.uses(uses[:0]), i.defs(defs[:0])
			if i.isCopy() && i.src != regFP && !f.checked[i.dst] && !f.checked[i.src] {
				live.remove(int(i.src))
				m := int32(len(a.moves))
				a.moves = append(a.moves, copyInst{dst: i.dst, src: i.src, weight: b.freq})
				a.moveOf[i.dst] = append(a.moveOf[i.dst], m)
				if i.src != i.dst {
					a.moveOf[i.src] = append(a.moveOf[i.src], m)
				}
			}
			for _, d := range defs {
				live.add(int(d))
			}
			for _, d := range defs {
				a.cost[d] += b.freq
				a.occurs[d] = true
				live.each(func(l int) { a.edge(reg(l), d) })
			}
			for _, d := range defs {
				live.remove(int(d))
			}
			for _, u := range uses {
				a.cost[u] += b.freq
				a.occurs[u] = true
				live.add(int(u))
			}
		}
	}
	defined := a.definitions()
	for r := firstVirtual; r < f.nregs; r++ {
		if f.unspillable[r] {
			a.cost[r] = math.Inf(1)
			continue
		}
		if f.bounded[r] {
			a.cost[r] *= 8
		}
		if f.checked[r] {
			a.cost[r] *= 64
		}
		if d := defined[r]; d != nil && d.rematerialisable() {
			// One slot again at each use, none at the definition.
			a.cost[r] *= 0.4
		}
	}
}

// definitions returns the only instruction that writes each register, nil
// where there are several.
func (a *allocator) definitions() map[reg]*inst {
	single := make(map[reg]*inst)
	var defs []reg
	for _, b := range a.f.blocks {
		for k := range b.insts {
			i := &b.insts[k]
			defs = i.defs(defs[:0])
			for _, d := range defs {
				if _, seen := single[d]; seen {
					single[d] = nil
				} else {
					single[d] = i
				}
			}
		}
	}
	return single
}

func (a *allocator) neighbours(r reg, fn func(reg)) {
	for _, n := range a.adj[r] {
		if s := a.state[n]; s != nodeStack && s != nodeCoalesced {
			fn(n)
		}
	}
}

func (a *allocator) moveRelated(r reg) bool {
	for _, m := range a.moveOf[r] {
		if a.moves[m].state != moveDone {
			return true
		}
	}
	return false
}

func (a *allocator) run() []reg {
	a.build()
	for _, m := range a.moves {
		if !slices.Contains(a.levels, m.weight) {
			a.levels = append(a.levels, m.weight)
		}
	}
	slices.Sort(a.levels)
	a.worklists = make([][]int32, len(a.levels))
	for m := len(a.moves) - 1; m >= 0; m-- {
		a.addMove(int32(m))
	}
	for r := firstVirtual; r < a.f.nregs; r++ {
		if !a.occurs[r] {
			a.state[r] = nodeStack // never looked at
			continue
		}
		switch {
		case a.degree[r] >= colours:
			a.state[r] = nodeSpill
			a.spill = append(a.spill, r)
		case a.moveRelated(r):
			a.state[r] = nodeFreeze
			a.freeze = append(a.freeze, r)
		default:
			a.state[r] = nodeSimplify
			a.simplify = append(a.simplify, r)
		}
	}
	for {
		m := int32(-1)
		if len(a.simplify) == 0 {
			m = a.bestMove()
		}
		switch {
		case len(a.simplify) > 0:
			r := a.simplify[len(a.simplify)-1]
			a.simplify = a.simplify[:len(a.simplify)-1]
			if a.state[r] == nodeSimplify {
				a.push(r)
			}
		case m >= 0:
			a.coalesce(m)
		case len(a.freeze) > 0:
			r := a.freeze[len(a.freeze)-1]
			a.freeze = a.freeze[:len(a.freeze)-1]
			if a.state[r] == nodeFreeze {
				a.state[r] = nodeSimplify
				a.simplify = append(a.simplify, r)
				a.freezeMoves(r)
			}
		case len(a.spill) > 0:
			a.selectSpill()
		default:
			return a.assignColours()
		}
	}
}

// bestMove takes the copy that runs most often from the worklists, -1 when
// there is none.
func (a *allocator) bestMove() int32 {
	for l := len(a.worklists) - 1; l >= 0; l-- {
		if n := len(a.worklists[l]); n > 0 {
			m := a.worklists[l][n-1]
			a.worklists[l] = a.worklists[l][:n-1]
			return m
		}
	}
	return -1
}

func (a *allocator) addMove(m int32) {
	l, _ := slices.BinarySearch(a.levels, a.moves[m].weight)
	a.worklists[l] = append(a.worklists[l], m)
}

func (a *allocator) push(r reg) {
	a.stack = append(a.stack, r)
	a.neighbours(r, a.lower)
	a.state[r] = nodeStack
}

// lower tells that a neighbour of r is gone.
func (a *allocator) lower(r reg) {
	if r < firstVirtual {
		return
	}
	a.degree[r]--
	if a.degree[r] != colours-1 {
		return
	}
	a.enable(r)
	a.neighbours(r, a.enable)
	if a.state[r] == nodeSpill {
		if a.moveRelated(r) {
			a.state[r] = nodeFreeze
			a.freeze = append(a.freeze, r)
		} else {
			a.state[r] = nodeSimplify
			a.simplify = append(a.simplify, r)
		}
	}
}

func (a *allocator) enable(r reg) {
	for _, m := range a.moveOf[r] {
		if a.moves[m].state == moveActive {
			a.moves[m].state = moveWork
			a.addMove(m)
		}
	}
}

func (a *allocator) find(r reg) reg {
	for a.state[r] == nodeCoalesced {
		r = a.alias[r]
	}
	return r
}

func (a *allocator) addWork(r reg) {
	if r >= firstVirtual && a.state[r] == nodeFreeze && !a.moveRelated(r) && a.degree[r] < colours {
		a.state[r] = nodeSimplify
		a.simplify = append(a.simplify, r)
	}
}

func (a *allocator) coalesce(m int32) {
	mv := &a.moves[m]
	if mv.state == moveDone {
		return
	}
	u, v := a.find(mv.dst), a.find(mv.src)
	if v < firstVirtual {
		u, v = v, u
	}
	switch {
	case u == v:
		mv.state = moveDone
		a.addWork(u)
	case v < firstVirtual || a.edges.has(u, v):
		mv.state = moveDone
		a.addWork(u)
		a.addWork(v)
	case u < firstVirtual && a.georgeOK(u, v), u >= firstVirtual && a.briggsOK(u, v):
		mv.state = moveDone
		a.combine(u, v)
		a.addWork(u)
	default:
		mv.state = moveActive
	}
}

func (a *allocator) georgeOK(u, v reg) bool {
	ok := true
	a.neighbours(v, func(t reg) {
		ok = ok && (t < firstVirtual || a.degree[t] < colours || a.edges.has(t, u))
	})
	return ok
}

func (a *allocator) briggsOK(u, v reg) bool {
	significant := 0
	a.round++
	count := func(t reg) {
		if a.seen[t] == a.round {
			return
		}
		a.seen[t] = a.round
		d := a.degree[t]
		// A neighbour of both loses one edge by the merge.
		if t >= firstVirtual && a.edges.has(t, u) && a.edges.has(t, v) {
			d--
		}
		if d >= colours {
			significant++
		}
	}
	a.neighbours(u, count)
	a.neighbours(v, count)
	return significant < colours
}

func (a *allocator) combine(u, v reg) {
	a.state[v] = nodeCoalesced
	a.alias[v] = u
	a.moveOf[u] = append(a.moveOf[u], a.moveOf[v]...)
	a.cost[u] += a.cost[v]
	if a.f.bounded[v] {
		a.f.bounded[u] = true
	}
	a.enable(v)
	a.neighbours(v, func(t reg) {
		a.edge(t, u)
		a.lower(t)
	})
	if u >= firstVirtual && a.degree[u] >= colours && a.state[u] == nodeFreeze {
		a.state[u] = nodeSpill
		a.spill = append(a.spill, u)
	}
}

func (a *allocator) freezeMoves(r reg) {
	for _, m := range a.moveOf[r] {
		mv := &a.moves[m]
		if mv.state == moveDone {
			continue
		}
		mv.state = moveDone
		other := a.find(mv.src)
		if other == a.find(r) {
			other = a.find(mv.dst)
		}
		a.addWork(other)
	}
}

// selectSpill gives up on the register that costs least for what it frees.
// It may still find a colour.
func (a *allocator) selectSpill() {
	best := -1
	var bestCost float64
	kept := a.spill[:0]
	for _, r := range a.spill {
		if a.state[r] != nodeSpill {
			continue
		}
		c := a.cost[r] / float64(a.degree[r])
		if best < 0 || c < bestCost {
			best, bestCost = len(kept), c
		}
		kept = append(kept, r)
	}
	a.spill = kept
	if best < 0 {
		return
	}
	r := a.spill[best]
	a.spill = append(a.spill[:best], a.spill[best+1:]...)
	a.state[r] = nodeSimplify
	a.simplify = append(a.simplify, r)
	a.freezeMoves(r)
}

// preference is the order in which colours are tried: registers that calls
// destroy first, so that r6 to r9 stay free for what needs them.
var preference = [colours]int8{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}

func (a *allocator) assignColours() (spilled []reg) {
	for len(a.stack) > 0 {
		r := a.stack[len(a.stack)-1]
		a.stack = a.stack[:len(a.stack)-1]
		var taken [colours]bool
		for _, n := range a.adj[r] {
			if c := a.colour[a.find(n)]; c >= 0 {
				taken[c] = true
			}
		}
		// Prefer the colour of a register that r is copied to or from.
		choice := int8(-1)
		var weight float64
		for _, m := range a.moveOf[r] {
			mv := &a.moves[m]
			other := a.find(mv.src)
			if other == r {
				other = a.find(mv.dst)
			}
			if c := a.colour[other]; c >= 0 && !taken[c] && mv.weight > weight {
				choice, weight = c, mv.weight
			}
		}
		if choice < 0 {
			for _, c := range preference {
				if !taken[c] {
					choice = c
					break
				}
			}
		}
		if choice < 0 {
			spilled = append(spilled, r)
			continue
		}
		a.colour[r] = choice
	}
	return spilled
}

// assign writes the colours into the instructions.
func (a *allocator) assign() {
	final := func(r reg) reg {
		if r < firstVirtual {
			return r
		}
		return reg(a.colour[a.find(r)])
	}
	for _, b := range a.f.blocks {
		kept := b.insts[:0]
		for _, i := range b.insts {
			i.dst, i.src = final(i.dst), final(i.src)
			if i.isCopy() && i.dst == i.src {
				continue
			}
			kept = append(kept, i)
		}
		b.insts = kept
		if b.end == endIf {
			b.cond.dst, b.cond.src = final(b.cond.dst), final(b.cond.src)
		}
	}
}

// reach is how many instructions apart the uses of a spilled register may be
// to share a load.
const reach = 16

// rewrite puts spilled registers into the frame, or computes them where they
// are used. With share set, uses close to each other share one load; when
// that makes registers scarce, the next round takes it apart again.
func (a *allocator) rewrite(spilled []reg, share bool) {
	f := a.f
	type home struct {
		slot  *slot
		remat *inst
	}
	homes := make(map[reg]*home)
	defined := a.definitions()
	members := make(map[reg][]reg)
	for r := firstVirtual; r < f.nregs; r++ {
		if a.state[r] == nodeCoalesced {
			rep := a.find(r)
			members[rep] = append(members[rep], r)
		}
	}
	for _, r := range spilled {
		// What was coalesced with r shares its home.
		h := &home{}
		if d := defined[r]; d != nil && d.rematerialisable() && len(members[r]) == 0 {
			copied := *d
			h.remat = &copied
		} else {
			h.slot = f.newSlot(8, "", f.ir.Pos)
			h.slot.spill = true
		}
		homes[r] = h
		for _, m := range members[r] {
			homes[m] = h
		}
	}
	var uses, defs []reg
	for _, b := range f.blocks {
		out := make([]inst, 0, len(b.insts)+8)
		// Registers that hold a spilled one since a few instructions.
		type held struct {
			reg reg
			at  int
		}
		holds := map[*home]held{}
		load := func(r reg, h *home, pos *inst) reg {
			if t, ok := holds[h]; ok && share && len(out)-t.at < reach {
				delete(f.unspillable, t.reg)
				return t.reg
			}
			t := f.newReg()
			f.unspillable[t] = true
			var i inst
			if h.remat != nil {
				i = *h.remat
				i.dst = t
			} else {
				i = inst{Instruction: isa.LoadMem(isa.Double, 0, 0, 0), dst: t, src: noReg, slot: h.slot, reload: true}
				holds[h] = held{t, len(out)}
			}
			i.pos = pos.pos
			out = append(out, i)
			return t
		}
		store := func(h *home, src reg, pos *inst) {
			delete(holds, h)
			out = append(out, inst{
				Instruction: isa.StoreMem(isa.Double, 0, 0, 0), dst: noReg, src: src, slot: h.slot, pos: pos.pos,
			})
		}
		for _, i := range b.insts {
			if i.isCopy() {
				from, to := homes[i.src], homes[i.dst]
				switch {
				case from != nil && from == to:
					continue
				case to != nil && to.remat == nil && from == nil && i.src != regFP:
					store(to, i.src, &i)
					continue
				case from != nil && to == nil:
					if from.remat != nil {
						m := *from.remat
						m.dst, m.pos = i.dst, i.pos
						out = append(out, m)
					} else {
						out = append(out, inst{
							Instruction: isa.LoadMem(isa.Double, 0, 0, 0), dst: i.dst, src: noReg,
							slot: from.slot, pos: i.pos,
						})
					}
					continue
				}
			}
			if h := homes[i.dst]; h != nil && h.remat == nil && i.isMovImm() {
				delete(holds, h)
				out = append(out, inst{
					Instruction: isa.StoreImm(isa.Double, 0, 0, int32(i.Imm)), dst: noReg, src: noReg, slot: h.slot, pos: i.pos,
				})
				continue
			}
			uses, defs = i.uses(uses[:0]), i.defs(defs[:0])
			temps := map[reg]reg{}
			for _, r := range uses {
				if h := homes[r]; h != nil {
					if _, done := temps[r]; !done {
						temps[r] = load(r, h, &i)
					}
				}
			}
			dropped := false
			var after *home
			var afterReg reg
			for _, r := range defs {
				h := homes[r]
				if h == nil {
					continue
				}
				if h.remat != nil {
					dropped = true
					continue
				}
				if _, done := temps[r]; !done {
					t := f.newReg()
					f.unspillable[t] = true
					temps[r] = t
				}
				after, afterReg = h, temps[r]
			}
			if dropped {
				continue
			}
			if t, ok := temps[i.dst]; ok {
				i.dst = t
			}
			if t, ok := temps[i.src]; ok {
				i.src = t
			}
			out = append(out, i)
			if i.IsCall() {
				clear(holds)
			}
			if after != nil {
				store(after, afterReg, &i)
				holds[after] = held{afterReg, len(out)}
			}
		}
		if b.end == endIf {
			temps := map[reg]reg{}
			for _, r := range b.cond.uses(uses[:0]) {
				if h := homes[r]; h != nil {
					if _, done := temps[r]; !done {
						temps[r] = load(r, h, &b.cond)
					}
				}
			}
			if t, ok := temps[b.cond.dst]; ok {
				b.cond.dst = t
			}
			if t, ok := temps[b.cond.src]; ok {
				b.cond.src = t
			}
		}
		b.insts = out
	}
}
