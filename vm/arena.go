package vm

import (
	"sync"

	"github.com/skep-bpf/skep/abi"
)

// An arenaTable is memory of pages that programs take and give back
// (kernel/bpf/arena.c), and whose addresses they may store in it. As all memory of
// a vm it is in the cage, where pointers of programs and of the user are the same:
// casts between the address spaces change nothing that counts. All of it is charged
// to the vm from the beginning.
type arenaTable struct {
	m    *Map
	base uint32 // the address of the first page
	n    uint32 // pages

	mu    sync.Mutex
	taken []bool // by page
}

func newArena(m *Map) (table, error) {
	const segvOnFault, noUserConv = 1 << 17, 1 << 18
	const known = mapMmapable | segvOnFault | noUserConv
	switch {
	case m.keySize != 0 || m.valueSize != 0 || m.maxEntries == 0 || m.flags&mapMmapable == 0 || m.flags&^known != 0 || m.extra%pageSize != 0:
		return nil, EINVAL
	case uint64(m.maxEntries)*pageSize > 1<<32:
		return nil, E2BIG
	}
	t := &arenaTable{m: m, n: m.maxEntries, taken: make([]bool, m.maxEntries)}
	var err error
	t.base, err = m.alloc(uint64(t.n) * pageSize)
	return t, err
}

// page returns the number of the page at an address, which may be one of the
// user's addresses.
func (t *arenaTable) page(addr uint32) (uint32, bool) {
	for _, start := range []uint32{t.base, uint32(t.m.extra)} {
		if off := addr - start; off%pageSize == 0 && off/pageSize < t.n {
			return off / pageSize, true
		}
	}
	return 0, false
}

// free reports whether n pages from i on are not taken.
func (t *arenaTable) free(i, n uint32) bool {
	if n == 0 || n > t.n-i {
		return false
	}
	for _, taken := range t.taken[i:][:n] {
		if taken {
			return false
		}
	}
	return true
}

func (t *arenaTable) set(i, n uint32, taken bool) {
	for k := range n {
		t.taken[i+k] = taken
	}
}

// take takes n pages, at addr if that is not null, and returns their address.
func (t *arenaTable) take(addr, n uint32) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if addr != 0 {
		if i, ok := t.page(addr); ok && t.free(i, n) {
			t.set(i, n, true)
			return t.base + i*pageSize
		}
		return 0
	}
	run := uint32(0) // pages before i, i included, that are not taken
	for i, taken := range t.taken {
		if run++; taken {
			run = 0
		}
		if n > 0 && run == n {
			first := uint32(i) + 1 - n
			t.set(first, n, true)
			return t.base + first*pageSize
		}
	}
	return 0
}

// arenaOf returns the arena of the first argument.
func (r *run) arenaOf() *arenaTable {
	if m := r.vm.mapAt(r.arg(1)); m != nil {
		if t, ok := m.table.(*arenaTable); ok {
			return t
		}
	}
	r.badMap(1)
	return nil
}

func arenaAlloc(r *run) uint64 {
	t := r.arenaOf()
	if t == nil {
		return 0
	}
	n := uint32(r.arg(3))
	r.charge(int(min(n, t.n)))
	if r.arg(5) != 0 || int32(r.arg(4)) < -1 {
		return 0
	}
	return uint64(t.take(uint32(r.arg(2)), n))
}

func arenaFree(r *run) uint64 {
	t := r.arenaOf()
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, ok := t.page(uint32(r.arg(2))); ok {
		n := min(uint32(r.arg(3)), t.n-i)
		r.charge(int(n) * 64)
		b, _ := r.vm.cage.Bytes(t.base+i*pageSize, int(n)*pageSize)
		clear(b)
		t.set(i, n, false)
	}
	return 0
}

func arenaReserve(r *run) uint64 {
	t := r.arenaOf()
	if t == nil {
		return 0
	}
	n := uint32(r.arg(3))
	r.charge(int(min(n, t.n)))
	if n == 0 {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.page(uint32(r.arg(2)))
	if !ok || n > t.n-i {
		return EINVAL.result()
	}
	if !t.free(i, n) {
		return EBUSY.result()
	}
	t.set(i, n, true)
	return 0
}

// Arena returns the memory of an arena, and the address of its first byte in
// pointers that programs keep there; nil for other maps. Programs change it at any
// time.
func (m *Map) Arena() (memory []byte, start uint32) {
	t, ok := m.table.(*arenaTable)
	if !ok {
		return nil, 0
	}
	memory, _ = m.vm.cage.Bytes(t.base, int(t.n)*pageSize)
	return memory, t.base
}

func (t *arenaTable) lookup(int, []byte) uint32                { return 0 }
func (t *arenaTable) update(int, []byte, []byte, uint64) Errno { return EOPNOTSUPP }
func (t *arenaTable) remove([]byte) Errno                      { return EOPNOTSUPP }
func (t *arenaTable) next([]byte) ([]byte, Errno)              { return nil, EOPNOTSUPP }
func (t *arenaTable) read([]byte, []byte, uint64) Errno        { return EOPNOTSUPP }
func (t *arenaTable) write([]byte, []byte, uint64) Errno       { return EOPNOTSUPP }
func (t *arenaTable) close()                                   { t.m.release(t.base) }

func init() {
	mapTypes[abi.MapArena] = newArena
	kfuncs["bpf_arena_alloc_pages"] = arenaAlloc
	kfuncs["bpf_arena_free_pages"] = arenaFree
	kfuncs["bpf_arena_reserve_pages"] = arenaReserve
}
