package vm

import (
	"sync"
	"sync/atomic"
)

// An lru keeps the order in which the elements of a hash map are evicted, as
// the kernel does (kernel/bpf/bpf_lru_list.c): an active and an inactive list
// with a bit for each element that was looked up, and for each processor a few
// free elements and those it took lately. With BPF_F_NO_COMMON_LRU each
// processor has lists of its own.
type lru struct {
	t          *hashTable
	own        bool // lists for each processor
	targetFree int
	scans      int
	ref        []atomic.Bool

	mu     sync.Mutex
	nodes  []lruNode // elements from 1, then the heads of the lists
	hashes []uint32  // of the key that the element was taken for
	lists  []lruList // one, or one for each processor
	local  []lruLocal
}

type lruNode struct {
	prev, next uint32
	kind       lruKind
	cpu        uint16
}

type lruKind uint8

const (
	lruActive lruKind = iota
	lruInactive
	lruFree
	lruLocalFree
	lruPending
)

type lruList struct {
	heads  [3]uint32 // by kind
	counts [2]int    // of active and inactive ones
	turn   uint32    // where the rotation of the inactive list goes on
}

type lruLocal struct {
	free, pending uint32 // heads
	steal         int
}

// lruEntries is how many elements a map has, which may differ from what it was
// made for if each processor has its own.
func lruEntries(m *Map) uint32 {
	n, cpus := m.maxEntries, uint32(m.vm.cpus)
	if m.flags&mapNoCommonLRU == 0 {
		return n
	}
	up := (n + cpus - 1) / cpus * cpus
	if up < n {
		up = n / cpus * cpus
	}
	return up
}

func newLRU(t *hashTable, n uint32) *lru {
	cpus := t.m.vm.cpus
	l := &lru{t: t, own: t.m.flags&mapNoCommonLRU != 0, ref: make([]atomic.Bool, n+1), hashes: make([]uint32, n+1)}
	l.nodes = make([]lruNode, n+1)
	head := func() uint32 {
		i := uint32(len(l.nodes))
		l.nodes = append(l.nodes, lruNode{prev: i, next: i})
		return i
	}
	count := 1
	if l.own {
		count, l.scans, l.targetFree = cpus, 4, 4
	} else {
		l.scans, l.targetFree = 128, min(max(int(n)/cpus/2, 1), 128)
		for cpu := range cpus {
			l.local = append(l.local, lruLocal{free: head(), pending: head(), steal: cpu})
		}
	}
	for range count {
		list := lruList{heads: [3]uint32{head(), head(), head()}}
		list.turn = list.heads[lruInactive]
		l.lists = append(l.lists, list)
	}
	each := max(1, int(n)/count)
	for e := uint32(1); e <= n; e++ {
		cpu := min(int(e-1)/each, count-1)
		l.nodes[e].kind, l.nodes[e].cpu = lruFree, uint16(cpu)
		l.link(e, l.lists[cpu].heads[lruFree])
	}
	return l
}

// touch notes that an element was looked up.
func (l *lru) touch(e uint32) {
	if !l.ref[e].Load() {
		l.ref[e].Store(true)
	}
}

// link puts an element at the front of a list, out of where it was.
func (l *lru) link(e, head uint32) {
	n := &l.nodes[e]
	if n.next != 0 {
		l.unlink(e)
	}
	first := l.nodes[head].next
	n.prev, n.next = head, first
	l.nodes[first].prev, l.nodes[head].next = e, e
}

func (l *lru) unlink(e uint32) {
	n := &l.nodes[e]
	l.nodes[n.prev].next, l.nodes[n.next].prev = n.next, n.prev
	n.prev, n.next = 0, 0
}

// move puts an element into a list of another kind, or to the front of its own.
func (l *lru) move(list *lruList, e uint32, kind lruKind, head uint32) {
	n := &l.nodes[e]
	if n.kind <= lruInactive {
		list.counts[n.kind]--
	}
	if kind <= lruInactive {
		list.counts[kind]++
	}
	n.kind = kind
	if kind != lruLocalFree {
		l.ref[e].Store(false)
	}
	if e == list.turn {
		list.turn = n.prev
	}
	l.link(e, head)
}

func (l *lru) moveTo(list *lruList, e uint32, kind lruKind) { l.move(list, e, kind, list.heads[kind]) }

// evict takes an element out of the map; false if it is not in it yet.
func (l *lru) evict(e uint32) bool {
	t := l.t
	b := &t.buckets[l.hashes[e]&t.mask]
	t.lock(b)
	defer b.unlock()
	for at := b.head.Load(); at != 0; {
		if at == e {
			t.drop(b, e)
			return true
		}
		c, i := t.at(at)
		at = c.elems[i].next.Load()
	}
	return false
}

func (l *lru) rotate(list *lruList) {
	active, inactive := list.heads[lruActive], list.heads[lruInactive]
	if list.counts[lruInactive] < list.counts[lruActive] {
		first := l.nodes[active].next
		e := l.nodes[active].prev
		for i := 0; e != active; {
			prev := l.nodes[e].prev
			if l.ref[e].Load() {
				l.moveTo(list, e, lruActive)
			} else {
				l.moveTo(list, e, lruInactive)
			}
			if i++; i == l.scans || e == first {
				break
			}
			e = prev
		}
	}
	if l.nodes[inactive].next == inactive {
		return
	}
	last := l.nodes[list.turn].next
	if last == inactive {
		last = l.nodes[last].next
	}
	next := inactive
	for e, i := list.turn, 0; i < l.scans; {
		if e == inactive {
			e = l.nodes[e].prev
			continue
		}
		next = l.nodes[e].prev
		if l.ref[e].Load() {
			l.moveTo(list, e, lruActive)
		}
		if e == last {
			break
		}
		e = next
		i++
	}
	list.turn = next
}

// shrink evicts up to want elements into a free list.
func (l *lru) shrink(list *lruList, want int, kind lruKind, head uint32) {
	inactive := list.heads[lruInactive]
	done := 0
	for e, i := l.nodes[inactive].prev, 0; e != inactive; {
		prev := l.nodes[e].prev
		if l.ref[e].Load() {
			l.moveTo(list, e, lruActive)
		} else if l.evict(e) {
			l.move(list, e, kind, head)
			if done++; done == want {
				break
			}
		}
		if i++; i == l.scans {
			break
		}
		e = prev
	}
	if done > 0 {
		return
	}
	// None was without its bit: then one with it.
	from := inactive
	if l.nodes[inactive].next == inactive {
		from = list.heads[lruActive]
	}
	for e := l.nodes[from].prev; e != from; e = l.nodes[e].prev {
		if l.evict(e) {
			l.move(list, e, kind, head)
			return
		}
	}
}

// pop takes an element for a key with the given hash on a processor, evicting
// others if there is none; 0 when all are about to be inserted elsewhere.
func (l *lru) pop(cpu int, hash uint32) uint32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.own {
		list := &l.lists[cpu]
		l.rotate(list)
		free := list.heads[lruFree]
		if l.nodes[free].next == free {
			l.shrink(list, l.targetFree, lruFree, free)
		}
		e := l.nodes[free].next
		if e == free {
			return 0
		}
		l.hashes[e] = hash
		l.moveTo(list, e, lruInactive)
		return e
	}
	local := &l.local[cpu]
	e := l.popLocal(local)
	if e == 0 {
		l.refill(local)
		e = l.popLocal(local)
	}
	if e == 0 {
		first := local.steal
		for {
			from := &l.local[local.steal]
			if e = l.popLocal(from); e == 0 {
				e = l.popPending(from)
			}
			local.steal = (local.steal + 1) % len(l.local)
			if e != 0 || local.steal == first {
				break
			}
		}
	}
	if e != 0 {
		l.hashes[e] = hash
		l.nodes[e].cpu, l.nodes[e].kind = uint16(cpu), lruPending
		l.ref[e].Store(false)
		l.link(e, local.pending)
	}
	return e
}

func (l *lru) popLocal(local *lruLocal) uint32 {
	e := l.nodes[local.free].next
	if e == local.free {
		return 0
	}
	l.unlink(e)
	return e
}

// popPending takes the oldest of the elements that a processor took lately,
// if possible one that was not looked up.
func (l *lru) popPending(local *lruLocal) uint32 {
	for _, force := range []bool{false, true} {
		for e := l.nodes[local.pending].prev; e != local.pending; e = l.nodes[e].prev {
			if (force || !l.ref[e].Load()) && l.evict(e) {
				l.unlink(e)
				return e
			}
		}
	}
	return 0
}

// refill moves what a processor took into the common lists, and gets it free
// elements from there.
func (l *lru) refill(local *lruLocal) {
	list := &l.lists[0]
	for e := l.nodes[local.pending].prev; e != local.pending; {
		prev := l.nodes[e].prev
		if l.ref[e].Load() {
			l.moveTo(list, e, lruActive)
		} else {
			l.moveTo(list, e, lruInactive)
		}
		e = prev
	}
	l.rotate(list)
	n, free := 0, list.heads[lruFree]
	for e := l.nodes[free].next; e != free && n < l.targetFree; n++ {
		next := l.nodes[e].next
		l.move(list, e, lruLocalFree, local.free)
		e = next
	}
	if n < l.targetFree {
		l.shrink(list, l.targetFree-n, lruLocalFree, local.free)
	}
}

// push gives an element back.
func (l *lru) push(e uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &l.nodes[e]
	if l.own {
		l.moveTo(&l.lists[n.cpu], e, lruFree)
		return
	}
	if n.kind == lruPending {
		n.kind = lruLocalFree
		l.ref[e].Store(false)
		l.link(e, l.local[n.cpu].free)
		return
	}
	l.moveTo(&l.lists[0], e, lruFree)
}
