package vm

import (
	"math/bits"
	"slices"
	"sync"

	"github.com/skep-bpf/skep/abi"
)

// A stackTable keeps stacks by a number that depends on them
// (kernel/bpf/stackmap.c).
type stackTable struct {
	m *Map

	mu      sync.Mutex
	buckets [][]uint64
}

func newStackMap(m *Map) (table, error) {
	if m.maxEntries == 0 || m.keySize != 4 || m.valueSize < 8 || m.valueSize%8 != 0 || m.valueSize/8 > 127 {
		return nil, EINVAL
	}
	n := uint64(1) << bits.Len64(uint64(m.maxEntries)-1)
	if err := m.charge(int64(n) * int64(24+m.valueSize)); err != nil {
		return nil, err
	}
	return &stackTable{m: m, buckets: make([][]uint64, n)}, nil
}

func stackID(r *run) uint64 {
	const skipMask, userStack, fastCompare, reuse = 0xff, 1 << 8, 1 << 9, 1 << 10
	m := r.vm.mapAt(r.arg(2))
	if m == nil {
		return r.badMap(2)
	}
	t, ok := m.table.(*stackTable)
	if !ok {
		return r.badMap(2)
	}
	flags := r.arg(3)
	if flags&^(skipMask|userStack|fastCompare|reuse) != 0 {
		return EINVAL.result()
	}
	stack := r.vm.host.Stack(flags&userStack != 0)
	skip := int(flags & skipMask)
	if len(stack) <= skip {
		return EFAULT.result()
	}
	stack = stack[skip:]
	stack = stack[:min(len(stack), m.valueSize/8)]
	b := make([]byte, 0, len(stack)*8)
	for _, pc := range stack {
		b = native.AppendUint64(b, pc)
	}
	id := jhash(b, 0) & uint32(len(t.buckets)-1)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch old := t.buckets[id]; {
	case old != nil && slices.Equal(old, stack):
		return uint64(id)
	case old != nil && flags&reuse == 0:
		return EEXIST.result()
	}
	t.buckets[id] = slices.Clone(stack)
	return uint64(id)
}

func (t *stackTable) lookup(int, []byte) uint32                { return 0 }
func (t *stackTable) update(int, []byte, []byte, uint64) Errno { return EINVAL }
func (t *stackTable) write(_, _ []byte, _ uint64) Errno        { return EINVAL }
func (t *stackTable) close()                                   {}

func (t *stackTable) remove(key []byte) Errno {
	id := native.Uint32(key)
	t.mu.Lock()
	defer t.mu.Unlock()
	if int64(id) >= int64(len(t.buckets)) {
		return E2BIG
	}
	if t.buckets[id] == nil {
		return ENOENT
	}
	t.buckets[id] = nil
	return 0
}

func (t *stackTable) next(key []byte) ([]byte, Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := 0
	if key != nil {
		if k := int64(native.Uint32(key)); k < int64(len(t.buckets)) && t.buckets[k] != nil {
			id = int(k) + 1
		}
	}
	for ; id < len(t.buckets); id++ {
		if t.buckets[id] != nil {
			return native.AppendUint32(nil, uint32(id)), 0
		}
	}
	return nil, ENOENT
}

func (t *stackTable) read(key, value []byte, _ uint64) Errno {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := native.Uint32(key)
	if int64(id) >= int64(len(t.buckets)) || t.buckets[id] == nil {
		return ENOENT
	}
	clear(value)
	for i, pc := range t.buckets[id] {
		native.PutUint64(value[i*8:], pc)
	}
	return 0
}

func init() { mapTypes[abi.MapStackTrace] = newStackMap }
