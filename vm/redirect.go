package vm

import (
	"github.com/skep-bpf/skep/abi"
)

// A targetArray holds where packets may go: a devmap, a cpumap, an xskmap
// (kernel/bpf/devmap.c, cpumap.c, net/xdp/xskmap.c). Nothing is sent from here:
// a run reports the entry. An entry is there when its value is not zero.
type targetArray struct {
	*arrayTable
	typ abi.MapType
}

func newTargets(m *Map) (table, error) {
	switch m.typ {
	case abi.MapDevmap, abi.MapCpumap:
		if m.valueSize != 4 && m.valueSize != 8 {
			return nil, EINVAL
		}
	default:
		if m.valueSize != 4 {
			return nil, EINVAL
		}
	}
	t, err := newArray(m)
	if err != nil {
		return nil, err
	}
	return targetArray{t.(*arrayTable), m.typ}, nil
}

func (t targetArray) has(key uint32) bool {
	return key < t.n && native.Uint32(t.m.bytes(t.address(0, key))) != 0
}

// lookup gives programs a copy of the entry that they cannot change into
// another one: for a devmap and a cpumap its value, if there is one.
func (t targetArray) lookup(_ int, key []byte) uint32 {
	if index := native.Uint32(key); t.has(index) {
		return t.address(0, index)
	}
	return 0
}

func (t targetArray) update(int, []byte, []byte, uint64) Errno { return EINVAL }

func (t targetArray) read(key, value []byte, flags uint64) Errno {
	if !t.has(native.Uint32(key)) {
		return ENOENT
	}
	return t.arrayTable.read(key, value, flags)
}

func (t targetArray) remove(key []byte) Errno {
	index := native.Uint32(key)
	if index >= t.n {
		return EINVAL
	}
	clear(t.m.bytes(t.address(0, index)))
	return 0
}

// A targetHash is a devmap that is a hash.
type targetHash struct{ *hashTable }

func newTargetHash(m *Map) (table, error) {
	if m.keySize != 4 || m.valueSize != 4 && m.valueSize != 8 {
		return nil, EINVAL
	}
	t, err := newHash(m)
	if err != nil {
		return nil, err
	}
	return targetHash{t.(*hashTable)}, nil
}

func (t targetHash) has(key uint32) bool {
	return t.find(native.AppendUint32(nil, key)) != 0
}

func (t targetHash) update(int, []byte, []byte, uint64) Errno { return EINVAL }

func init() {
	for _, t := range []abi.MapType{abi.MapDevmap, abi.MapCpumap, abi.MapXskmap} {
		mapTypes[t] = newTargets
	}
	mapTypes[abi.MapDevmapHash] = newTargetHash
}
