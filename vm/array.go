package vm

import (
	"encoding/binary"

	"github.com/skep-bpf/skep/abi"
)

// An arrayTable is an array of values, once or for each processor
// (kernel/bpf/arraymap.c).
type arrayTable struct {
	m      *Map
	base   uint32 // of element 0 for processor 0
	n      uint32
	stride uint32 // bytes from one element to the next
	perCPU uint32 // bytes from one processor's elements to the next one's
}

func newArray(m *Map) (table, error) {
	if m.keySize != 4 || m.valueSize == 0 || m.maxEntries == 0 {
		return nil, EINVAL
	}
	t := &arrayTable{m: m, n: m.maxEntries, stride: uint32(m.valueStride())}
	size := uint64(t.stride) * uint64(t.n)
	if m.PerCPU() {
		size = (size + 63) &^ 63
		t.perCPU = uint32(size)
		size *= uint64(m.vm.cpus)
	}
	var err error
	t.base, err = m.alloc(size)
	return t, err
}

func (t *arrayTable) address(cpu int, index uint32) uint32 {
	return t.base + uint32(cpu)*t.perCPU + index*t.stride
}

func (t *arrayTable) lookup(cpu int, key []byte) uint32 {
	if index := binary.NativeEndian.Uint32(key); index < t.n {
		return t.address(cpu, index)
	}
	return 0
}

func (t *arrayTable) check(key []byte, flags uint64) (uint32, Errno) {
	index := binary.NativeEndian.Uint32(key)
	switch {
	case flags&^flagLock > flagExist:
		return 0, EINVAL
	case index >= t.n:
		return 0, E2BIG
	case flags&flagNoExist != 0:
		return 0, EEXIST
	case flags&flagLock != 0 && (t.perCPU != 0 || !t.m.hasLock()):
		return 0, EINVAL
	}
	return index, 0
}

func (t *arrayTable) update(cpu int, key, value []byte, flags uint64) Errno {
	index, e := t.check(key, flags)
	if e == 0 {
		t.m.store(t.address(cpu, index), value, flags)
	}
	return e
}

func (t *arrayTable) remove(key []byte) Errno { return EINVAL }

func (t *arrayTable) next(key []byte) ([]byte, Errno) {
	return nextIndex(key, t.n)
}

func (t *arrayTable) read(key, value []byte, flags uint64) Errno {
	index := binary.NativeEndian.Uint32(key)
	if index >= t.n {
		return ENOENT
	}
	t.m.readAll(value, flags, func(cpu int) uint32 { return t.address(cpu, index) })
	return 0
}

func (t *arrayTable) write(key, value []byte, flags uint64) Errno {
	index, e := t.check(key, flags)
	if e == 0 {
		t.m.writeAll(value, flags, func(cpu int) uint32 { return t.address(cpu, index) })
	}
	return e
}

func (t *arrayTable) close() {
	for cpu := range t.m.copies() {
		for i := range t.n {
			if !t.m.freeFields(t.address(cpu, i)) {
				break
			}
		}
	}
	t.m.release(t.base)
}

func init() {
	mapTypes[abi.MapArray] = newArray
	mapTypes[abi.MapPercpuArray] = newArray
}
