package vm

import (
	"sync"

	"github.com/skep-bpf/skep/abi"
)

// A queueTable is a queue or a stack (kernel/bpf/queue_stack_maps.c). Its
// elements are never named by programs, so they are outside the cage.
type queueTable struct {
	m    *Map
	lifo bool

	mu    sync.Mutex
	data  []byte // a ring of elements
	first int
	n     int
}

const flagQueueExist = 2 // BPF_EXIST: drop the oldest where it is full

func newQueue(m *Map) (table, error) {
	const known = mapReadOnly | mapWriteOnly | 1<<2 | mapReadOnlyProg | mapWriteOnlyPrg
	if m.maxEntries == 0 || m.keySize != 0 || m.valueSize == 0 || m.flags&^known != 0 {
		return nil, EINVAL
	}
	size := int64(m.maxEntries) * int64(m.valueSize)
	if err := m.charge(size); err != nil {
		return nil, err
	}
	return &queueTable{m: m, lifo: m.typ == abi.MapStack, data: make([]byte, size)}, nil
}

func (t *queueTable) at(i int) []byte {
	i = (t.first + i) % int(t.m.maxEntries)
	return t.data[i*t.m.valueSize:][:t.m.valueSize]
}

func (t *queueTable) push(value []byte, flags uint64) Errno {
	if flags&flagNoExist != 0 || flags > flagQueueExist {
		return EINVAL
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == int(t.m.maxEntries) {
		if flags&flagQueueExist == 0 {
			return E2BIG
		}
		t.first = (t.first + 1) % int(t.m.maxEntries)
		t.n--
	}
	copy(t.at(t.n), value)
	t.n++
	return 0
}

// get copies the element that comes next; value is zero if there is none.
func (t *queueTable) get(value []byte, remove bool) Errno {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == 0 {
		clear(value)
		return ENOENT
	}
	if t.lifo {
		copy(value, t.at(t.n-1))
	} else {
		copy(value, t.at(0))
	}
	if remove {
		if !t.lifo {
			t.first = (t.first + 1) % int(t.m.maxEntries)
		}
		t.n--
	}
	return 0
}

func (t *queueTable) peek(value []byte) Errno { return t.get(value, false) }
func (t *queueTable) take(value []byte) Errno { return t.get(value, true) }

func (t *queueTable) lookup(int, []byte) uint32                { return 0 }
func (t *queueTable) update(int, []byte, []byte, uint64) Errno { return EINVAL }
func (t *queueTable) remove([]byte) Errno                      { return EINVAL }
func (t *queueTable) next([]byte) ([]byte, Errno)              { return nil, EINVAL }
func (t *queueTable) close()                                   {}

func (t *queueTable) read(_, value []byte, _ uint64) Errno      { return t.get(value, false) }
func (t *queueTable) takeOut(_, value []byte) Errno             { return t.get(value, true) }
func (t *queueTable) write(_, value []byte, flags uint64) Errno { return t.push(value, flags) }

func init() {
	mapTypes[abi.MapQueue] = newQueue
	mapTypes[abi.MapStack] = newQueue
}
