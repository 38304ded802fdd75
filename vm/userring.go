package vm

import (
	"fmt"
	"sync"

	"github.com/skep-bpf/skep/abi"
)

// A userRingTable is a user ring buffer: the host writes records, programs drain
// them (kernel/bpf/ringbuf.c).
type userRingTable struct {
	m    *Map
	base uint32

	mu      sync.Mutex
	busy    bool // a program drains it
	records [][]byte
	bytes   int
}

// maxUserSamples is how many records one call drains at most.
const maxUserSamples = 128 << 10

func newUserRing(m *Map) (table, error) {
	n := uint64(m.maxEntries)
	if m.flags&^(1<<2) != 0 || m.keySize != 0 || m.valueSize != 0 || n == 0 || n&(n-1) != 0 || n%pageSize != 0 {
		return nil, EINVAL
	}
	t := &userRingTable{m: m}
	var err error
	t.base, err = m.alloc(n)
	return t, err
}

// WriteUserRing adds a record to a user ring buffer. It fails with ENOSPC when
// the buffer is full.
func (m *Map) WriteUserRing(data []byte) error {
	t, ok := m.table.(*userRingTable)
	if !ok {
		return fmt.Errorf("map %s is no user ring buffer but a %s", m.name, m.typ)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := (len(data) + ringHeader + 7) &^ 7
	switch {
	case n > int(m.maxEntries):
		return m.fail("write", E2BIG)
	case t.bytes+n > int(m.maxEntries):
		return m.fail("write", ENOSPC)
	}
	t.records = append(t.records, append([]byte(nil), data...))
	t.bytes += n
	return nil
}

// userRingDrain is bpf_user_ringbuf_drain. The callback gets a dynptr of the
// record, which stands in memory behind the run's context.
func userRingDrain(r *run) uint64 {
	m := r.vm.mapAt(r.arg(1))
	if m == nil {
		return r.badMap(1)
	}
	t, ok := m.table.(*userRingTable)
	if !ok {
		return r.badMap(1)
	}
	fn, arg, flags := int(r.arg(2)), r.arg(3), r.arg(4)
	if flags&^(noWakeup|forceWakeup) != 0 {
		return EINVAL.result()
	}
	t.mu.Lock()
	if t.busy {
		t.mu.Unlock()
		return EBUSY.result()
	}
	t.busy = true
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.busy = false
		t.mu.Unlock()
	}()
	handle, e := r.keySpace(16)
	if e != 0 {
		return e.result()
	}
	defer r.dropKeySpace(handle)
	count := uint64(0)
	for count < maxUserSamples {
		t.mu.Lock()
		if len(t.records) == 0 {
			t.mu.Unlock()
			break
		}
		data := t.records[0]
		t.records = t.records[1:]
		t.bytes -= (len(data) + ringHeader + 7) &^ 7
		t.mu.Unlock()
		b, _ := r.vm.cage.Bytes(t.base, len(data))
		copy(b, data)
		if r.dynptrs == nil {
			r.dynptrs = dynptrs{}
		}
		r.dynptrs[handle] = &dynptr{kind: dynLocal, addr: t.base, n: uint32(len(data)), readOnly: true}
		count++
		r.charge(1)
		v, ok := r.callback(fn, uint64(handle), arg)
		if !ok || r.interrupted() {
			return 0
		}
		if v != 0 {
			break
		}
	}
	return count
}

func (t *userRingTable) lookup(int, []byte) uint32                { return 0 }
func (t *userRingTable) update(int, []byte, []byte, uint64) Errno { return ENOTSUPP }
func (t *userRingTable) remove([]byte) Errno                      { return ENOTSUPP }
func (t *userRingTable) next([]byte) ([]byte, Errno)              { return nil, ENOTSUPP }
func (t *userRingTable) read(_, _ []byte, _ uint64) Errno         { return ENOTSUPP }
func (t *userRingTable) write(_, _ []byte, _ uint64) Errno        { return ENOTSUPP }
func (t *userRingTable) close()                                   { t.m.release(t.base) }

func init() {
	mapTypes[abi.MapUserRingbuf] = newUserRing
	helpers[209] = userRingDrain
}
