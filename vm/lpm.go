package vm

import (
	"bytes"
	"slices"
	"sync"

	"github.com/skep-bpf/skep/abi"
)

// An lpmTable finds the longest prefix of a key (kernel/bpf/lpm_trie.c). A key is
// the length of a prefix in bits, and the bytes it is taken from.
type lpmTable struct {
	m *Map

	mu      sync.RWMutex
	slab    slab
	lengths []int                       // that are there, longest first
	byLen   map[int]map[string]*lpmNode // by the bits of the prefix
	n       int
	sorted  []*lpmNode // in the order of next, nil after changes
}

type lpmNode struct {
	key    []byte // as it was given, bits beyond the prefix too
	bits   int
	prefix string
	addr   uint32
}

func newLPM(m *Map) (table, error) {
	const known = mapNoPrealloc | 1<<2 | mapReadOnly | mapWriteOnly | mapReadOnlyProg | mapWriteOnlyPrg
	if m.maxEntries == 0 || m.flags&mapNoPrealloc == 0 || m.flags&^known != 0 || m.keySize < 5 || m.keySize > 4+256 || m.valueSize == 0 {
		return nil, EINVAL
	}
	return &lpmTable{m: m, slab: slab{m: m}, byLen: map[int]map[string]*lpmNode{}}, nil
}

func (t *lpmTable) maxBits() uint32 { return uint32(t.m.keySize-4) * 8 }

// cut returns the first bits of data, zeros behind them.
func cut(to, data []byte, bits int) []byte {
	n := (bits + 7) / 8
	to = append(to[:0], data[:n]...)
	if bits%8 != 0 {
		to[n-1] &= byte(0xff << (8 - bits%8))
	}
	return to
}

func (t *lpmTable) exact(key []byte) *lpmNode {
	bits := int(native.Uint32(key))
	var buf [256]byte
	return t.byLen[bits][string(cut(buf[:], key[4:], bits))]
}

func (t *lpmTable) longest(key []byte) *lpmNode {
	limit := native.Uint32(key)
	if limit > t.maxBits() {
		return nil
	}
	var buf [256]byte
	for _, bits := range t.lengths {
		if bits <= int(limit) {
			if n := t.byLen[bits][string(cut(buf[:], key[4:], bits))]; n != nil {
				return n
			}
		}
	}
	return nil
}

func (t *lpmTable) lookup(_ int, key []byte) uint32 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.longest(key); n != nil {
		return n.addr
	}
	return 0
}

func (t *lpmTable) update(_ int, key, value []byte, flags uint64) Errno {
	bits := native.Uint32(key)
	if flags > flagExist || bits > t.maxBits() {
		return EINVAL
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.exact(key)
	switch {
	case old != nil && flags == flagNoExist:
		return EEXIST
	case old == nil && flags == flagExist:
		return ENOENT
	case old == nil && t.n == int(t.m.maxEntries):
		return ENOSPC
	}
	addr, err := t.slab.take()
	if err != nil {
		return ENOMEM
	}
	copy(t.m.bytes(addr), value)
	n := &lpmNode{key: bytes.Clone(key), bits: int(bits), prefix: string(cut(nil, key[4:], int(bits))), addr: addr}
	if old != nil {
		t.slab.give(old.addr)
	} else {
		t.n++
	}
	if t.byLen[n.bits] == nil {
		t.byLen[n.bits] = map[string]*lpmNode{}
		t.lengths = append(t.lengths, n.bits)
		slices.SortFunc(t.lengths, func(a, b int) int { return b - a })
	}
	t.byLen[n.bits][n.prefix] = n
	t.sorted = nil
	return 0
}

func (t *lpmTable) remove(key []byte) Errno {
	if native.Uint32(key) > t.maxBits() {
		return EINVAL
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.exact(key)
	if n == nil {
		return ENOENT
	}
	delete(t.byLen[n.bits], n.prefix)
	if len(t.byLen[n.bits]) == 0 {
		delete(t.byLen, n.bits)
		t.lengths = slices.DeleteFunc(t.lengths, func(b int) bool { return b == n.bits })
	}
	t.slab.give(n.addr)
	t.n--
	t.sorted = nil
	return 0
}

// compareLPM puts the more specific before the less, and 0 before 1.
func compareLPM(a, b *lpmNode) int {
	for i := range min(a.bits, b.bits) {
		x, y := a.prefix[i/8]>>(7-i%8)&1, b.prefix[i/8]>>(7-i%8)&1
		if x != y {
			return int(x) - int(y)
		}
	}
	return b.bits - a.bits
}

func (t *lpmTable) next(key []byte) ([]byte, Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sorted == nil {
		for _, nodes := range t.byLen {
			for _, n := range nodes {
				t.sorted = append(t.sorted, n)
			}
		}
		slices.SortFunc(t.sorted, compareLPM)
	}
	i := 0
	if key != nil && native.Uint32(key) <= t.maxBits() {
		if n := t.exact(key); n != nil {
			at, _ := slices.BinarySearchFunc(t.sorted, n, compareLPM)
			i = at + 1
		}
	}
	if i == len(t.sorted) {
		return nil, ENOENT
	}
	return bytes.Clone(t.sorted[i].key), 0
}

func (t *lpmTable) read(key, value []byte, _ uint64) Errno {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.longest(key)
	if n == nil {
		return ENOENT
	}
	copy(value, t.m.bytes(n.addr))
	return 0
}

func (t *lpmTable) write(key, value []byte, flags uint64) Errno {
	return t.update(0, key, value, flags)
}

func (t *lpmTable) close() { t.slab.close() }

func init() { mapTypes[abi.MapLPMTrie] = newLPM }
