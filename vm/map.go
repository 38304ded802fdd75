package vm

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
)

// Flags of updates and look-ups (include/uapi/linux/bpf.h).
const (
	flagNoExist = 1
	flagExist   = 2
	flagLock    = 4
)

// Flags of maps.
const (
	mapNoPrealloc   = 1 << 0
	mapNoCommonLRU  = 1 << 1
	mapReadOnly     = 1 << 3
	mapWriteOnly    = 1 << 4
	mapReadOnlyProg = 1 << 7
	mapWriteOnlyPrg = 1 << 8
	mapMmapable     = 1 << 10
	mapInner        = 1 << 12
)

// A table is how the elements of a map are kept. Keys and values have the
// map's sizes. Programs use lookup, update and remove, and cpu is the virtual
// processor that they run on; the host uses the others.
type table interface {
	// lookup returns the address of a value in the cage, or 0.
	lookup(cpu int, key []byte) uint32
	update(cpu int, key, value []byte, flags uint64) Errno
	remove(key []byte) Errno
	// next returns the key that follows, or the first for nil and for keys
	// that are not there.
	next(key []byte) ([]byte, Errno)
	// read and write copy the whole value, of all processors.
	read(key, value []byte, flags uint64) Errno
	write(key, value []byte, flags uint64) Errno
	close()
}

// mapTypes makes the tables of the map types that are there.
var mapTypes = map[abi.MapType]func(*Map) (table, error){}

// MapTypes returns the map types that there are, by number.
func MapTypes() []abi.MapType {
	var list []abi.MapType
	for t := range mapTypes {
		list = append(list, t)
	}
	slices.Sort(list)
	return list
}

// A Map is a map of a vm. Its methods are those of package ebpf's maps, and
// fail with the same errors: errors.Is(err, ebpf.ErrKeyNotExist) works for both.
// They may be called from several goroutines and while programs run.
type Map struct {
	vm         *VM
	name       string
	typ        abi.MapType
	keySize    int
	valueSize  int
	maxEntries uint32
	flags      uint32
	extra      uint64
	key, value btf.Type
	fields     []field // of the value, that only helpers may change

	handle uint32 // the address that stands for the map in programs
	inner  *ebpf.MapSpec
	table  table
	frozen atomic.Bool
	taken  int64 // bytes charged to the vm

	mu   sync.Mutex
	refs int // of the host, of programs and of maps that hold this one
}

// Name returns the map's name.
func (m *Map) Name() string { return m.name }

// Type returns the map's type.
func (m *Map) Type() abi.MapType { return m.typ }

// KeySize returns the bytes of a key.
func (m *Map) KeySize() int { return m.keySize }

// ValueSize returns the bytes of a value, for one processor.
func (m *Map) ValueSize() int { return m.valueSize }

// MaxEntries returns how many elements the map may have.
func (m *Map) MaxEntries() int { return int(m.maxEntries) }

// Flags returns the flags that the map was made with, BPF_F_*.
func (m *Map) Flags() uint32 { return m.flags }

func (m *Map) String() string { return fmt.Sprintf("%s(%s)", m.typ, m.name) }

// PerCPU reports whether each processor has a value of its own.
func (m *Map) PerCPU() bool {
	return m.typ == abi.MapPercpuHash || m.typ == abi.MapPercpuArray || m.typ == abi.MapLRUPercpuHash
}

func (m *Map) valueStride() int { return (m.valueSize + 7) &^ 7 }

// copies is the number of copies of each value.
func (m *Map) copies() int {
	if m.PerCPU() {
		return m.vm.cpus
	}
	return 1
}

// fullSize is the size of a value as the host sees it.
func (m *Map) fullSize() int {
	if m.PerCPU() {
		return m.valueStride() * m.vm.cpus
	}
	return m.valueSize
}

// NewMap makes a map. Of the spec it takes all but Pinning and NumaNode.
func (vm *VM) NewMap(spec *ebpf.MapSpec) (*Map, error) {
	m, err := vm.newMap(spec)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", spec.Name, err)
	}
	if err := m.fill(spec.Contents); err != nil {
		m.Close()
		return nil, fmt.Errorf("map %s: %w", spec.Name, err)
	}
	return m, nil
}

func (vm *VM) newMap(spec *ebpf.MapSpec) (*Map, error) {
	typ := abi.MapType(spec.Type)
	make := mapTypes[typ]
	if make == nil {
		return nil, &MissingError{What: "map type", Name: typ.String(), There: names(MapTypes())}
	}
	m := &Map{
		vm: vm, name: spec.Name, typ: typ, keySize: int(spec.KeySize), valueSize: int(spec.ValueSize),
		maxEntries: spec.MaxEntries, flags: spec.Flags, extra: spec.MapExtra, key: spec.Key, value: spec.Value,
		inner: spec.InnerMap, refs: 1,
	}
	const most = 1 << 30
	if spec.KeySize > most || spec.ValueSize > most {
		return nil, E2BIG
	}
	if m.flags&mapReadOnly != 0 && m.flags&mapWriteOnly != 0 || m.flags&mapReadOnlyProg != 0 && m.flags&mapWriteOnlyPrg != 0 {
		return nil, EINVAL
	}
	var err error
	if m.fields, err = specialFields(spec.Value, m.valueSize); err != nil {
		return nil, err
	}
	if m.table, err = make(m); err == nil {
		err = vm.addMap(m)
	}
	if err != nil {
		if m.table != nil {
			m.table.close()
		}
		m.vm.charge(-m.taken)
		if errors.Is(err, EINVAL) {
			err = fmt.Errorf("a %s of %d-byte keys, %d-byte values and %d entries with flags %#x: %w", typ, m.keySize, m.valueSize, m.maxEntries, m.flags, err)
		}
		return nil, err
	}
	return m, nil
}

// A MissingError says that an object needs what the vm does not have.
type MissingError struct {
	What  string // "map type", "helper"
	Name  string
	There []string // what there is of the kind
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("the embedded engine has no %s %s; it has %s", e.What, e.Name, list(e.There))
}

// hold takes a reference to the map; false when it is gone.
func (m *Map) hold() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.refs == 0 {
		return false
	}
	m.refs++
	return true
}

// Close gives up the map. Its memory is freed when no program and no other map
// holds it any more.
func (m *Map) Close() error {
	m.mu.Lock()
	m.refs--
	last := m.refs == 0
	m.mu.Unlock()
	if last {
		m.vm.removeMap(m)
		// Runs that have got its values may go on for a while.
		m.vm.afterRuns(func() {
			m.table.close()
			m.vm.charge(-m.taken)
		})
	}
	return nil
}

// alloc takes memory of the cage for the map.
func (m *Map) alloc(n uint64) (uint32, error) {
	if n > uint64(m.vm.cage.Size()) {
		return 0, fmt.Errorf("it takes %d bytes, and the vm may have %d: %w", n, m.vm.limit, ENOMEM)
	}
	if err := m.charge(int64(n)); err != nil {
		return 0, err
	}
	addr, err := m.vm.cage.Alloc(int(n))
	if err != nil {
		return 0, fmt.Errorf("%w: %w", err, ENOMEM)
	}
	return addr, nil
}

// charge counts bytes of the map, in the cage or outside, against its limit
// and the vm's. They are given back when the map is.
func (m *Map) charge(n int64) error {
	if most := m.vm.mapLimit; most > 0 && atomic.LoadInt64(&m.taken)+n > most {
		return fmt.Errorf("it takes more than the %d bytes that a map may have: %w", most, ENOMEM)
	}
	if err := m.vm.charge(n); err != nil {
		return err
	}
	atomic.AddInt64(&m.taken, n)
	return nil
}

func (m *Map) release(addr uint32) {
	if addr != 0 {
		m.vm.cage.Free(addr)
	}
}

// bytes returns a value of the map in the cage.
func (m *Map) bytes(addr uint32) []byte {
	b, _ := m.vm.cage.Bytes(addr, m.valueSize)
	return b
}

// store sets a value from a program or the host, all but the fields that only
// helpers may change.
func (m *Map) store(addr uint32, value []byte, flags uint64) {
	if flags&flagLock != 0 {
		l := m.vm.locks.at(m.lockAddress(addr))
		l.lock(m.vm.hostRun)
		defer l.unlock()
	}
	m.copyFields(m.bytes(addr), value)
	m.freeFields(addr)
}

// readAll copies the values that at returns for each processor.
func (m *Map) readAll(value []byte, flags uint64, at func(cpu int) uint32) {
	if !m.PerCPU() {
		addr := at(0)
		if flags&flagLock != 0 {
			l := m.vm.locks.at(m.lockAddress(addr))
			l.lock(m.vm.hostRun)
			defer l.unlock()
		}
		copy(value, m.bytes(addr))
		m.hideFields(value)
		return
	}
	stride := m.valueStride()
	for cpu := range m.vm.cpus {
		copy(value[cpu*stride:], m.bytes(at(cpu)))
		m.hideFields(value[cpu*stride:][:m.valueSize])
	}
}

// writeAll sets the values that at returns for each processor.
func (m *Map) writeAll(value []byte, flags uint64, at func(cpu int) uint32) {
	if !m.PerCPU() {
		m.store(at(0), value, flags)
		return
	}
	stride := m.valueStride()
	for cpu := range m.vm.cpus {
		m.store(at(cpu), value[cpu*stride:][:m.valueSize], flags)
	}
}

// Types returns the BTF types of keys and values, nil where they are not known.
func (m *Map) Types() (key, value btf.Type) { return m.key, m.value }
