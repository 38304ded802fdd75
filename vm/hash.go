package vm

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/skep-bpf/skep/abi"
)

// A hashTable is a hash map, of values once or for each processor, with or
// without eviction (kernel/bpf/hashtab.c). Values are in the cage; keys and
// links are not.
//
// Readers take no lock: a bucket counts its changes, and who sees that it
// changed meanwhile looks again.
type hashTable struct {
	m       *Map
	seed    uint64
	mask    uint32
	buckets []bucket
	words   int // of 8 bytes in a key

	chunks   []atomic.Pointer[chunk]
	perChunk uint32 // a power of two
	shift    uint
	growMu   sync.Mutex
	grown    atomic.Uint32 // how many elements chunks have been made for

	count    atomic.Int64
	free     atomic.Uint64   // the first unused element, behind a counter
	spare    []atomic.Uint32 // an unused element for each processor, and the host
	prealloc bool
	lru      *lru
	hostMu   sync.Mutex // guards the host's spare
}

// A bucket is a list of elements. seq is odd while it is changed.
type bucket struct {
	seq  atomic.Uint32
	head atomic.Uint32 // an element, from 1; 0 is none
}

// A chunk is a number of elements.
type chunk struct {
	elems  []elem
	keys   []atomic.Uint64
	values uint32 // address in the cage
	perCPU uint32 // bytes from one processor's values to the next one's
	maps   []atomic.Pointer[Map]
}

type elem struct {
	hash atomic.Uint32
	next atomic.Uint32
}

func newHash(m *Map) (table, error) {
	const known = mapNoPrealloc | mapNoCommonLRU | 1<<2 | mapReadOnly | mapWriteOnly | 1<<6 | mapReadOnlyProg | mapWriteOnlyPrg
	isLRU := m.typ == abi.MapLRUHash || m.typ == abi.MapLRUPercpuHash
	switch {
	case m.flags&^known != 0, !isLRU && m.flags&mapNoCommonLRU != 0:
		return nil, EINVAL
	case isLRU && m.flags&mapNoPrealloc != 0:
		return nil, ENOTSUPP
	case m.maxEntries == 0 || m.keySize == 0 || m.valueSize == 0:
		return nil, EINVAL
	case m.maxEntries > 1<<31:
		return nil, E2BIG
	}
	t := &hashTable{m: m, words: (m.keySize + 7) / 8, prealloc: m.flags&mapNoPrealloc == 0 && m.typ != abi.MapHashOfMaps}
	if m.flags&(1<<6) == 0 { // BPF_F_ZERO_SEED
		t.seed = rand.Uint64()
	}
	n := uint64(m.maxEntries)
	if !isLRU {
		// Replacing a value takes another element for a while.
		n += uint64(m.vm.cpus) + 1
	}
	if t.prealloc && !isLRU {
		t.spare = make([]atomic.Uint32, m.vm.cpus+1)
	}
	if isLRU {
		n = uint64(lruEntries(m))
	}
	nBuckets := uint64(1) << bits.Len64(uint64(m.maxEntries)-1)
	if err := m.charge(int64(nBuckets) * 8); err != nil {
		return nil, err
	}
	t.buckets, t.mask = make([]bucket, nBuckets), uint32(nBuckets-1)
	perElem := uint64(m.valueStride())*uint64(m.copies()) + uint64(t.words)*8 + 8
	t.perChunk = 1 << bits.Len64(max(1, n-1))
	if !t.prealloc {
		for t.perChunk > 16 && uint64(t.perChunk)*perElem > 64<<10 {
			t.perChunk /= 2
		}
	}
	t.shift = uint(bits.TrailingZeros32(t.perChunk))
	t.chunks = make([]atomic.Pointer[chunk], (n+uint64(t.perChunk)-1)>>t.shift)
	if t.prealloc {
		if err := t.addChunk(0, n); err != nil {
			return nil, err
		}
		t.grown.Store(uint32(n))
		if isLRU {
			t.lru = newLRU(t, uint32(n))
			return t, nil
		}
		for i := uint32(n); i > 0; i-- {
			if int(i) <= len(t.spare) {
				t.spare[i-1].Store(i)
			} else {
				t.push(i)
			}
		}
	}
	return t, nil
}

// addChunk makes memory for n elements.
func (t *hashTable) addChunk(i uint32, n uint64) error {
	m := t.m
	c := &chunk{}
	if err := m.charge(int64(n) * (8 + int64(t.words)*8)); err != nil {
		return err
	}
	size := n * uint64(m.valueStride())
	if m.PerCPU() {
		size = (size + 63) &^ 63
		c.perCPU = uint32(size)
		size *= uint64(m.vm.cpus)
	}
	if size > 1<<32 {
		return ENOMEM
	}
	var err error
	if c.values, err = m.alloc(size); err != nil {
		return err
	}
	c.elems = make([]elem, n)
	c.keys = make([]atomic.Uint64, int(n)*t.words)
	if m.typ == abi.MapHashOfMaps {
		c.maps = make([]atomic.Pointer[Map], n)
	}
	t.chunks[i].Store(c)
	return nil
}

// at returns the chunk of element e, and its index there.
func (t *hashTable) at(e uint32) (*chunk, uint32) {
	e--
	return t.chunks[e>>t.shift].Load(), e & (t.perChunk - 1)
}

func (t *hashTable) address(cpu int, e uint32) uint32 {
	c, i := t.at(e)
	return c.values + uint32(cpu)*c.perCPU + i*uint32(t.m.valueStride())
}

// push gives an element back to the free list.
func (t *hashTable) push(e uint32) {
	c, i := t.at(e)
	for {
		head := t.free.Load()
		c.elems[i].next.Store(uint32(head))
		if t.free.CompareAndSwap(head, (head>>32+1)<<32|uint64(e)) {
			return
		}
	}
}

// pop takes an unused element; 0 when there is none.
func (t *hashTable) pop() uint32 {
	if e := t.popFree(); e != 0 {
		return e
	}
	if t.prealloc {
		return 0
	}
	t.growMu.Lock()
	defer t.growMu.Unlock()
	if e := t.popFree(); e != 0 {
		return e // that was given back meanwhile
	}
	n := t.grown.Load()
	if n&(t.perChunk-1) == 0 {
		i := n >> t.shift
		if int(i) >= len(t.chunks) || t.addChunk(i, uint64(t.perChunk)) != nil {
			return 0
		}
	}
	t.grown.Store(n + 1)
	return n + 1
}

// popFree takes an element off the free list.
func (t *hashTable) popFree() uint32 {
	for {
		head := t.free.Load()
		e := uint32(head)
		if e == 0 {
			return 0
		}
		c, i := t.at(e)
		if t.free.CompareAndSwap(head, (head>>32+1)<<32|uint64(c.elems[i].next.Load())) {
			return e
		}
	}
}

// word returns 8 bytes of a key, zeros behind its end.
func word(key []byte, i int) uint64 {
	if rest := key[i*8:]; len(rest) >= 8 {
		return binary.NativeEndian.Uint64(rest)
	} else {
		var b [8]byte
		copy(b[:], rest)
		return binary.NativeEndian.Uint64(b[:])
	}
}

func (t *hashTable) hash(key []byte) uint32 {
	h := t.seed
	for i := range t.words {
		h = mix(h, word(key, i))
	}
	return fold(h)
}

func mix(h, w uint64) uint64 {
	hi, lo := bits.Mul64(h^w^0x9e3779b97f4a7c15, 0xd6e8feb86659fd93)
	return hi ^ lo
}

func fold(h uint64) uint32 { return uint32(h ^ h>>32) }

// search walks a bucket. The result is sound only if the bucket did not change.
func (t *hashTable) search(b *bucket, hash uint32, key []byte) uint32 {
	for e := b.head.Load(); e != 0; {
		c, i := t.at(e)
		if c.elems[i].hash.Load() == hash && t.equal(c, i, key) {
			return e
		}
		e = c.elems[i].next.Load()
	}
	return 0
}

func (t *hashTable) equal(c *chunk, i uint32, key []byte) bool {
	stored := c.keys[int(i)*t.words:][:t.words]
	for w := range stored {
		if stored[w].Load() != word(key, w) {
			return false
		}
	}
	return true
}

// lookup8 is the helper bpf_map_lookup_elem for this map, whose keys have eight
// bytes.
func (t *hashTable) lookup8(r *run) uint64 {
	key := *(*uint64)(r.vm.cage.At(uint32(r.state.Regs[2])))
	e := t.find1(key)
	if e == 0 {
		return 0
	}
	if t.lru != nil {
		t.lru.touch(e)
	}
	return uint64(t.address(r.cpu, e))
}

// find1 is find for keys of one word.
func (t *hashTable) find1(key uint64) uint32 {
	hash := fold(mix(t.seed, key))
	b := &t.buckets[hash&t.mask]
	for {
		seq := b.seq.Load()
		if seq&1 == 0 {
			e := b.head.Load()
			for e != 0 {
				c, i := t.at(e)
				if c.elems[i].hash.Load() == hash && c.keys[i].Load() == key {
					break
				}
				e = c.elems[i].next.Load()
			}
			if b.seq.Load() == seq {
				return e
			}
		}
		runtime.Gosched()
	}
}

// find returns the element of a key, or 0.
func (t *hashTable) find(key []byte) uint32 {
	if t.words == 1 {
		return t.find1(word(key, 0))
	}
	hash := t.hash(key)
	b := &t.buckets[hash&t.mask]
	for {
		seq := b.seq.Load()
		if seq&1 == 0 {
			if e := t.search(b, hash, key); b.seq.Load() == seq {
				return e
			}
		}
		runtime.Gosched()
	}
}

func (t *hashTable) lock(b *bucket) {
	for {
		if seq := b.seq.Load(); seq&1 == 0 && b.seq.CompareAndSwap(seq, seq+1) {
			return
		}
		runtime.Gosched()
	}
}

func (b *bucket) unlock() { b.seq.Add(1) }

func (t *hashTable) lookup(cpu int, key []byte) uint32 {
	e := t.find(key)
	if e == 0 {
		return 0
	}
	if t.lru != nil {
		t.lru.touch(e)
	}
	return t.address(cpu, e)
}

// host is the number of the host's spare element.
func (t *hashTable) host() int { return t.m.vm.cpus }

func (t *hashTable) update(cpu int, key, value []byte, flags uint64) Errno {
	return t.set(cpu, key, flags, func(e uint32, isNew bool) {
		if !t.m.PerCPU() {
			t.m.copyFields(t.m.bytes(t.address(0, e)), value)
			return
		}
		// A program sets the value of its own processor; those of others are
		// zero in a new element.
		for other := range t.m.vm.cpus {
			if other == cpu {
				copy(t.m.bytes(t.address(cpu, e)), value)
			} else if isNew {
				clear(t.m.bytes(t.address(other, e)))
			}
		}
	})
}

func (t *hashTable) write(key, value []byte, flags uint64) Errno {
	t.hostMu.Lock()
	defer t.hostMu.Unlock()
	return t.set(t.host(), key, flags, func(e uint32, _ bool) {
		if !t.m.PerCPU() {
			t.m.copyFields(t.m.bytes(t.address(0, e)), value)
			return
		}
		for cpu := range t.m.vm.cpus {
			copy(t.m.bytes(t.address(cpu, e)), value[cpu*t.m.valueStride():])
		}
	})
}

// set is an update, in which fill writes the value of a new element, or of the
// one that is there.
func (t *hashTable) set(cpu int, key []byte, flags uint64, fill func(e uint32, isNew bool)) Errno {
	m := t.m
	if flags&^flagLock > flagExist || (t.lru != nil || m.PerCPU()) && flags > flagExist {
		return EINVAL
	}
	hash := t.hash(key)
	b := &t.buckets[hash&t.mask]
	if flags&flagLock != 0 {
		if !m.hasLock() {
			return EINVAL
		}
		if e := t.find(key); e != 0 {
			if flags&flagNoExist != 0 {
				return EEXIST
			}
			l := m.vm.locks.at(m.lockAddress(t.address(0, e)))
			l.lock(m.vm.hostRun)
			fill(e, false)
			l.unlock()
			return 0
		}
	}
	var fresh uint32
	if t.lru != nil && (!m.PerCPU() || flags != flagExist) {
		// The element is taken before the bucket is locked, since evicting
		// another one locks its bucket.
		if fresh = t.lru.pop(min(cpu, m.vm.cpus-1), hash); fresh == 0 {
			return ENOMEM
		}
	}
	t.lock(b)
	old := t.search(b, hash, key)
	if e := checkFlags(old != 0, flags); e != 0 {
		b.unlock()
		if fresh != 0 {
			t.lru.push(fresh)
		}
		return e
	}
	if old != 0 && m.PerCPU() {
		fill(old, false)
		if t.lru != nil {
			t.lru.touch(old)
		}
		b.unlock()
		if fresh != 0 {
			t.lru.push(fresh)
		}
		return 0
	}
	swapped := false
	if fresh == 0 {
		if old != 0 && t.spare != nil {
			fresh, swapped = t.spare[cpu].Load(), true
		} else if old == 0 && t.count.Load() >= int64(m.maxEntries) {
			b.unlock()
			return E2BIG
		} else if fresh = t.pop(); fresh == 0 {
			b.unlock()
			if t.prealloc {
				return E2BIG
			}
			return ENOMEM
		}
	}
	c, i := t.at(fresh)
	for w := range t.words {
		c.keys[int(i)*t.words+w].Store(word(key, w))
	}
	fill(fresh, true)
	c.elems[i].hash.Store(hash)
	// The new element goes first, then the old one is taken out.
	c.elems[i].next.Store(b.head.Load())
	b.head.Store(fresh)
	if old != 0 {
		if t.lru != nil {
			t.lru.touch(fresh)
		}
		t.unlink(b, old)
		m.freeFields(t.address(0, old))
	} else {
		t.count.Add(1)
	}
	b.unlock()
	switch {
	case old == 0:
	case swapped:
		t.spare[cpu].Store(old)
	case t.lru != nil:
		t.lru.push(old)
	default:
		t.push(old)
	}
	return 0
}

func checkFlags(exists bool, flags uint64) Errno {
	switch {
	case exists && flags&^flagLock == flagNoExist:
		return EEXIST
	case !exists && flags&^flagLock == flagExist:
		return ENOENT
	}
	return 0
}

// unlink takes an element out of its bucket, which is locked.
func (t *hashTable) unlink(b *bucket, e uint32) {
	c, i := t.at(e)
	next := c.elems[i].next.Load()
	if b.head.Load() == e {
		b.head.Store(next)
		return
	}
	for at := b.head.Load(); at != 0; {
		c, i := t.at(at)
		if at = c.elems[i].next.Load(); at == e {
			c.elems[i].next.Store(next)
			return
		}
	}
}

func (t *hashTable) remove(key []byte) Errno {
	_, e := t.take(key, nil)
	return e
}

// take removes an element, after before has seen it.
func (t *hashTable) take(key []byte, before func(e uint32)) (uint32, Errno) {
	hash := t.hash(key)
	b := &t.buckets[hash&t.mask]
	t.lock(b)
	e := t.search(b, hash, key)
	if e == 0 {
		b.unlock()
		return 0, ENOENT
	}
	if before != nil {
		before(e)
	}
	t.drop(b, e)
	b.unlock()
	if t.lru != nil {
		t.lru.push(e)
	} else {
		t.push(e)
	}
	return e, 0
}

// drop takes an element out of its locked bucket and ends what hung on it.
func (t *hashTable) drop(b *bucket, e uint32) {
	t.unlink(b, e)
	t.m.freeFields(t.address(0, e))
	c, i := t.at(e)
	if c.maps != nil {
		if inner := c.maps[i].Swap(nil); inner != nil {
			inner.Close()
		}
	}
	t.count.Add(-1)
}

func (t *hashTable) keyOf(e uint32) []byte {
	c, i := t.at(e)
	b := make([]byte, 0, t.words*8)
	for w := range t.words {
		b = binary.NativeEndian.AppendUint64(b, c.keys[int(i)*t.words+w].Load())
	}
	return b[:t.m.keySize]
}

func (t *hashTable) next(key []byte) ([]byte, Errno) {
	i := uint32(0)
	if key != nil {
		hash := t.hash(key)
		b := &t.buckets[hash&t.mask]
		t.lock(b)
		if e := t.search(b, hash, key); e != 0 {
			c, k := t.at(e)
			if after := c.elems[k].next.Load(); after != 0 {
				found := t.keyOf(after)
				b.unlock()
				return found, 0
			}
			i = hash&t.mask + 1
		}
		b.unlock()
	}
	for ; i < uint32(len(t.buckets)); i++ {
		b := &t.buckets[i]
		if b.head.Load() == 0 {
			continue
		}
		t.lock(b)
		if e := b.head.Load(); e != 0 {
			found := t.keyOf(e)
			b.unlock()
			return found, 0
		}
		b.unlock()
	}
	return nil, ENOENT
}

// each calls f for every element, until it returns false. Elements may be
// removed meanwhile.
func (t *hashTable) each(f func(key []byte, e uint32) bool) {
	var found []uint32
	for i := range t.buckets {
		b := &t.buckets[i]
		if b.head.Load() == 0 {
			continue
		}
		found = found[:0]
		t.lock(b)
		for e := b.head.Load(); e != 0; {
			found = append(found, e)
			c, k := t.at(e)
			e = c.elems[k].next.Load()
		}
		b.unlock()
		for _, e := range found {
			if !f(t.keyOf(e), e) {
				return
			}
		}
	}
}

func (t *hashTable) read(key, value []byte, flags uint64) Errno {
	e := t.find(key)
	if e == 0 {
		return ENOENT
	}
	t.m.readAll(value, flags, func(cpu int) uint32 { return t.address(cpu, e) })
	return 0
}

func (t *hashTable) close() {
	for i := range t.chunks {
		c := t.chunks[i].Load()
		if c == nil {
			continue
		}
		for k := range c.elems {
			if !t.m.freeFields(c.values + uint32(k*t.m.valueStride())) {
				break
			}
		}
		for k := range c.maps {
			if inner := c.maps[k].Swap(nil); inner != nil {
				inner.Close()
			}
		}
		t.m.release(c.values)
	}
}

func init() {
	for _, t := range []abi.MapType{abi.MapHash, abi.MapPercpuHash, abi.MapLRUHash, abi.MapLRUPercpuHash} {
		mapTypes[t] = newHash
	}
}
