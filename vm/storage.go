package vm

import (
	"maps"
	"slices"
	"sync"

	"github.com/skep-bpf/skep/abi"
)

// A storageTable keeps a value for each task, inode, socket or cgroup
// (kernel/bpf/bpf_local_storage.c). Which these are is the host's affair: a
// program passes what the host gave it for one, and the host's keys are the
// same numbers, as far as 32 bits hold them.
type storageTable struct {
	m *Map

	mu   sync.Mutex
	slab slab
	byID map[uint64]uint32
}

func newStorage(m *Map) (table, error) {
	if m.keySize != 4 || m.valueSize == 0 || m.maxEntries != 0 || m.flags&mapNoPrealloc == 0 {
		return nil, EINVAL
	}
	// The kernel bounds these by memory alone.
	m.maxEntries = 1 << 16
	return &storageTable{m: m, slab: slab{m: m}, byID: map[uint64]uint32{}}, nil
}

// storageGet is bpf_task_storage_get and its like.
func storageGet(r *run) uint64 {
	const create = 1
	m := r.vm.mapAt(r.arg(1))
	if m == nil {
		return r.badMap(1)
	}
	t, ok := m.table.(*storageTable)
	if !ok {
		return r.badMap(1)
	}
	id, flags := r.arg(2), r.arg(4)
	if id == 0 || flags&^create != 0 {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if addr := t.byID[id]; addr != 0 || flags&create == 0 {
		return uint64(addr)
	}
	addr, err := t.slab.take()
	if err != nil {
		return 0
	}
	if r.arg(3) != 0 {
		if from, ok := r.bytes(r.arg(3), uint64(m.valueSize)); ok {
			m.copyFields(m.bytes(addr), from)
		}
	}
	t.byID[id] = addr
	return uint64(addr)
}

func storageDelete(r *run) uint64 {
	m := r.vm.mapAt(r.arg(1))
	if m == nil {
		return r.badMap(1)
	}
	t, ok := m.table.(*storageTable)
	if !ok {
		return r.badMap(1)
	}
	return t.drop(r.arg(2)).result()
}

func (t *storageTable) drop(id uint64) Errno {
	t.mu.Lock()
	defer t.mu.Unlock()
	addr := t.byID[id]
	if addr == 0 {
		return ENOENT
	}
	t.m.freeFields(addr)
	delete(t.byID, id)
	t.slab.give(addr)
	return 0
}

func (t *storageTable) lookup(int, []byte) uint32                { return 0 }
func (t *storageTable) update(int, []byte, []byte, uint64) Errno { return EINVAL }
func (t *storageTable) remove(key []byte) Errno                  { return t.drop(uint64(native.Uint32(key))) }

func (t *storageTable) next(key []byte) ([]byte, Errno) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := slices.Sorted(maps.Keys(t.byID))
	i := 0
	if key != nil {
		i, _ = slices.BinarySearch(ids, uint64(native.Uint32(key))+1)
	}
	if i == len(ids) {
		return nil, ENOENT
	}
	return native.AppendUint32(nil, uint32(ids[i])), 0
}

func (t *storageTable) read(key, value []byte, _ uint64) Errno {
	t.mu.Lock()
	defer t.mu.Unlock()
	addr := t.byID[uint64(native.Uint32(key))]
	if addr == 0 {
		return ENOENT
	}
	copy(value, t.m.bytes(addr))
	t.m.hideFields(value)
	return 0
}

func (t *storageTable) write(key, value []byte, flags uint64) Errno {
	t.mu.Lock()
	defer t.mu.Unlock()
	id := uint64(native.Uint32(key))
	addr := t.byID[id]
	if flags > flagExist {
		return EINVAL
	}
	if e := checkFlags(addr != 0, flags); e != 0 {
		return e
	}
	if addr == 0 {
		var err error
		if addr, err = t.slab.take(); err != nil {
			return ENOMEM
		}
		t.byID[id] = addr
	}
	t.m.copyFields(t.m.bytes(addr), value)
	return 0
}

func (t *storageTable) close() {
	for _, addr := range t.byID {
		t.m.freeFields(addr)
	}
	t.slab.close()
}

func init() {
	for _, t := range []abi.MapType{abi.MapTaskStorage, abi.MapInodeStorage, abi.MapSkStorage, abi.MapCgrpStorage} {
		mapTypes[t] = newStorage
	}
	for _, id := range []int32{107, 145, 156, 210} {
		helpers[id], helpers[id+1] = storageGet, storageDelete
	}
	helpers[158] = func(r *run) uint64 { return r.vm.host.Process().Task } // bpf_get_current_task_btf
}
