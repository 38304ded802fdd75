package vm

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/abi"
)

// An objectTable holds maps or programs instead of bytes.
type objectTable interface {
	table
	// put stores a *Map, a *Program, or what the table takes else.
	put(key []byte, value any, flags uint64) error
}

func (m *Map) failObject(err error) error {
	if e, ok := err.(Errno); ok {
		return m.fail("update", e)
	}
	return err
}

// fillObjects fills a map of maps, or a program array, by the names of a
// collection.
func (m *Map) fillObjects(contents []ebpf.MapKV, c *Collection) error {
	for _, kv := range contents {
		value := kv.Value
		if name, ok := value.(string); ok {
			switch m.typ {
			case abi.MapProgArray:
				p := c.Programs[name]
				if p == nil {
					return fmt.Errorf("there is no program %s to put into it", name)
				}
				value = p
			default:
				in := c.Maps[name]
				if in == nil {
					return fmt.Errorf("there is no map %s to put into it", name)
				}
				value = in
			}
		}
		if err := m.Update(kv.Key, value, ebpf.UpdateAny); err != nil {
			return err
		}
	}
	return nil
}

// A slotTable is an array of maps (kernel/bpf/arraymap.c).
type slotTable struct {
	m     *Map
	slots []atomic.Pointer[Map]
}

func newSlots(m *Map) (table, error) {
	if m.keySize != 4 || m.valueSize != 4 || m.maxEntries == 0 {
		return nil, EINVAL
	}
	if m.inner == nil {
		return nil, fmt.Errorf("a map of maps takes an InnerMap that says what they are like: %w", EINVAL)
	}
	if err := m.charge(int64(m.maxEntries) * 8); err != nil {
		return nil, err
	}
	return &slotTable{m: m, slots: make([]atomic.Pointer[Map], m.maxEntries)}, nil
}

func (t *slotTable) slot(key []byte) *atomic.Pointer[Map] {
	if i := binary.NativeEndian.Uint32(key); int64(i) < int64(len(t.slots)) {
		return &t.slots[i]
	}
	return nil
}

func (t *slotTable) lookup(_ int, key []byte) uint32 {
	if s := t.slot(key); s != nil {
		if inner := s.Load(); inner != nil {
			return inner.handle
		}
	}
	return 0
}

func (t *slotTable) update(int, []byte, []byte, uint64) Errno { return EINVAL }

func (t *slotTable) remove(key []byte) Errno {
	s := t.slot(key)
	if s == nil {
		return E2BIG
	}
	old := s.Swap(nil)
	if old == nil {
		return ENOENT
	}
	old.Close()
	return 0
}

func (t *slotTable) next(key []byte) ([]byte, Errno) { return nextIndex(key, uint32(len(t.slots))) }

// read gives the number of the inner map, as the kernel gives its id.
func (t *slotTable) read(key, value []byte, _ uint64) Errno {
	s := t.slot(key)
	if s == nil {
		return ENOENT
	}
	inner := s.Load()
	if inner == nil {
		return ENOENT
	}
	binary.NativeEndian.PutUint32(value, inner.ID())
	return 0
}

func (t *slotTable) write([]byte, []byte, uint64) Errno { return EINVAL }

func (t *slotTable) put(key []byte, value any, flags uint64) error {
	s := t.slot(key)
	switch {
	case flags != 0:
		return EINVAL
	case s == nil:
		return E2BIG
	}
	inner, err := t.m.innerMap(value)
	if err != nil {
		return err
	}
	if old := s.Swap(inner); old != nil {
		old.Close()
	}
	return nil
}

func (t *slotTable) close() {
	for i := range t.slots {
		if old := t.slots[i].Swap(nil); old != nil {
			old.Close()
		}
	}
}

// innerMap takes a reference to a map that is like the spec of inner ones
// (bpf_map_meta_equal in kernel/bpf/map_in_map.c).
func (m *Map) innerMap(value any) (*Map, error) {
	inner, ok := value.(*Map)
	if !ok || isNil(value) || inner.vm != m.vm {
		return nil, fmt.Errorf("map %s holds maps of its vm, and a %T is none", m.name, value)
	}
	want := m.inner
	if abi.MapType(want.Type) != inner.typ || int(want.KeySize) != inner.keySize || int(want.ValueSize) != inner.valueSize || want.Flags != inner.flags {
		return nil, fmt.Errorf("map %s is not like the inner maps of %s: %w", inner, m.name, EINVAL)
	}
	switch inner.typ {
	case abi.MapArray, abi.MapPercpuArray, abi.MapRingbuf:
		// Without BPF_F_INNER_MAP the size is part of what programs rely on.
		if inner.flags&mapInner == 0 && want.MaxEntries != inner.maxEntries {
			return nil, fmt.Errorf("map %s has %d entries, and the inner maps of %s have %d: %w", inner, inner.maxEntries, m.name, want.MaxEntries, EINVAL)
		}
	case abi.MapArrayOfMaps, abi.MapHashOfMaps, abi.MapProgArray:
		return nil, fmt.Errorf("map %s cannot be held by another: %w", inner, ENOTSUPP)
	}
	if !inner.hold() {
		return nil, fmt.Errorf("map %s is closed", inner)
	}
	return inner, nil
}

// ID is the map's number in its vm.
func (m *Map) ID() uint32 { return (m.handle-m.vm.handles)/handleSize + 1 }

// An innerHash is a hash of maps.
type innerHash struct{ *hashTable }

func newHashOfMaps(m *Map) (table, error) {
	if m.valueSize != 4 {
		return nil, EINVAL
	}
	if m.inner == nil {
		return nil, fmt.Errorf("a map of maps takes an InnerMap that says what they are like: %w", EINVAL)
	}
	t, err := newHash(m)
	if err != nil {
		return nil, err
	}
	return innerHash{t.(*hashTable)}, nil
}

func (t innerHash) lookup(_ int, key []byte) uint32 {
	if inner := t.get(key); inner != nil {
		return inner.handle
	}
	return 0
}

func (t innerHash) get(key []byte) *Map {
	e := t.find(key)
	if e == 0 {
		return nil
	}
	c, i := t.at(e)
	return c.maps[i].Load()
}

func (t innerHash) update(int, []byte, []byte, uint64) Errno { return EINVAL }

func (t innerHash) read(key, value []byte, _ uint64) Errno {
	inner := t.get(key)
	if inner == nil {
		return ENOENT
	}
	binary.NativeEndian.PutUint32(value, inner.ID())
	return 0
}

func (t innerHash) write([]byte, []byte, uint64) Errno { return EINVAL }

func (t innerHash) put(key []byte, value any, flags uint64) error {
	inner, err := t.m.innerMap(value)
	if err != nil {
		return err
	}
	t.hostMu.Lock()
	defer t.hostMu.Unlock()
	replaced := t.find(key)
	e := t.set(t.host(), key, flags, func(e uint32, _ bool) {
		c, i := t.at(e)
		c.maps[i].Store(inner)
	})
	if e != 0 {
		inner.Close()
		return e
	}
	if replaced != 0 {
		c, i := t.at(replaced)
		if old := c.maps[i].Swap(nil); old != nil {
			old.Close()
		}
	}
	return nil
}

// A progTable is an array of programs to tail-call.
type progTable struct {
	m     *Map
	slots []atomic.Pointer[Program]
}

func newProgArray(m *Map) (table, error) {
	if m.keySize != 4 || m.valueSize != 4 || m.maxEntries == 0 {
		return nil, EINVAL
	}
	if err := m.charge(int64(m.maxEntries) * 8); err != nil {
		return nil, err
	}
	return &progTable{m: m, slots: make([]atomic.Pointer[Program], m.maxEntries)}, nil
}

func (t *progTable) slot(key []byte) *atomic.Pointer[Program] {
	if i := binary.NativeEndian.Uint32(key); int64(i) < int64(len(t.slots)) {
		return &t.slots[i]
	}
	return nil
}

func (t *progTable) lookup(int, []byte) uint32                { return 0 }
func (t *progTable) update(int, []byte, []byte, uint64) Errno { return EINVAL }
func (t *progTable) write([]byte, []byte, uint64) Errno       { return EINVAL }

func (t *progTable) remove(key []byte) Errno {
	s := t.slot(key)
	if s == nil {
		return E2BIG
	}
	old := s.Swap(nil)
	if old == nil {
		return ENOENT
	}
	old.Close()
	return 0
}

func (t *progTable) next(key []byte) ([]byte, Errno) { return nextIndex(key, uint32(len(t.slots))) }

func (t *progTable) read(key, value []byte, _ uint64) Errno {
	s := t.slot(key)
	if s == nil {
		return ENOENT
	}
	p := s.Load()
	if p == nil {
		return ENOENT
	}
	binary.NativeEndian.PutUint32(value, p.id)
	return 0
}

func (t *progTable) put(key []byte, value any, flags uint64) error {
	s := t.slot(key)
	switch {
	case flags != 0:
		return EINVAL
	case s == nil:
		return E2BIG
	}
	p, ok := value.(*Program)
	if !ok || isNil(value) || p.vm != t.m.vm {
		return fmt.Errorf("map %s holds programs of its vm, and a %T is none", t.m.name, value)
	}
	if !p.hold() {
		return fmt.Errorf("program %s: %w", p.name, ErrClosed)
	}
	// All programs of an array are of one type (bpf_prog_map_compatible).
	if t.m.extra == 0 {
		t.m.extra = uint64(p.typ) + 1
	} else if t.m.extra != uint64(p.typ)+1 {
		p.Close()
		return fmt.Errorf("program %s is of another type than the others in map %s: %w", p.name, t.m.name, EINVAL)
	}
	if old := s.Swap(p); old != nil {
		old.Close()
	}
	return nil
}

func (t *progTable) close() {
	for i := range t.slots {
		if old := t.slots[i].Swap(nil); old != nil {
			old.Close()
		}
	}
}

// nextIndex is next for tables whose keys are indices.
func nextIndex(key []byte, n uint32) ([]byte, Errno) {
	var index uint32
	if key != nil {
		if index = binary.NativeEndian.Uint32(key); index >= n {
			index = 0
		} else if index++; index == n {
			return nil, ENOENT
		}
	}
	return binary.NativeEndian.AppendUint32(nil, index), 0
}

func init() {
	mapTypes[abi.MapArrayOfMaps] = newSlots
	mapTypes[abi.MapHashOfMaps] = newHashOfMaps
	mapTypes[abi.MapProgArray] = newProgArray
}
