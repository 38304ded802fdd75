//lint:file-ignore U1000 the kernel reads and writes the fields of these structures

package kernel

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"sync"
	"unsafe"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// pinRoot is where libbpf pins maps that ask for it by name.
const pinRoot = "/sys/fs/bpf"

// A kernelMap is a map in the kernel.
type kernelMap struct {
	name       string
	fd         int
	typ        abi.MapType
	keySize    int
	valueSize  int
	maxEntries int
	flags      uint32
	slot       int // bytes of a value as the kernel hands it out, of all CPUs

	once sync.Once
}

func (m *kernelMap) close() { m.once.Do(func() { unix.Close(m.fd) }) }

// possible is the number of slots of a map per CPU.
var possible = sync.OnceValue(possibleCPUs)

func isPerCPU(t abi.MapType) bool {
	switch t {
	case abi.MapPercpuHash, abi.MapPercpuArray, abi.MapLRUPercpuHash, abi.MapPercpuCgroupStorageDeprecated:
		return true
	}
	return false
}

// createMaps makes the maps of the object, or takes those that are pinned.
func (l *loaded) createMaps() error {
	for _, m := range l.obj.Maps {
		if l.maps[m.Name] != nil {
			return fmt.Errorf("the object has two maps called %s", m.Name)
		}
		made, err := l.createMap(m)
		if err != nil {
			return fmt.Errorf("map %s: %w", m.Name, err)
		}
		l.mapOf[m], l.maps[m.Name] = made, made
	}
	return nil
}

func (l *loaded) createMap(m *object.Map) (*kernelMap, error) {
	o := l.opts.Maps[m.Name]
	km := &kernelMap{name: m.Name, fd: -1, typ: abi.MapType(m.Type), maxEntries: int(m.MaxEntries), flags: m.Flags}
	km.keySize, km.valueSize = m.Sizes()
	if o.MaxEntries > 0 {
		km.maxEntries = int(o.MaxEntries)
	}
	switch km.typ {
	case abi.MapPerfEventArray:
		if km.maxEntries == 0 {
			km.maxEntries = possible()
		}
		if km.keySize == 0 {
			km.keySize, km.valueSize = 4, 4
		}
	case abi.MapRingbuf, abi.MapUserRingbuf:
		// Whole pages, a power of two of them.
		size := uint32(max(km.maxEntries, os.Getpagesize()))
		km.maxEntries = 1 << bits.Len32(size-1)
	}
	km.setSlot()
	path, mayMake := o.Pinned, false
	switch {
	case path != "":
	case l.opts.Replace != "":
		path, mayMake = filepath.Join(l.opts.Replace, pinMaps, pinName(m.Name)), true
	case m.Pinned:
		path, mayMake = filepath.Join(pinRoot, pinName(m.Name)), true
	}
	if path != "" {
		err := km.open(path)
		if err == nil || !mayMake || !errors.Is(err, os.ErrNotExist) {
			return km, err
		}
	}
	if err := l.makeMap(km, m); err != nil {
		return nil, err
	}
	if m.Pinned && path != "" && l.opts.Replace == "" {
		if err := pin(km.fd, path); err != nil {
			km.close()
			return nil, err
		}
	}
	return km, nil
}

func (m *kernelMap) setSlot() {
	m.slot = m.valueSize
	if isPerCPU(m.typ) {
		m.slot = (m.valueSize + 7) / 8 * 8 * possible()
	}
}

// open takes a map that is pinned.
func (m *kernelMap) open(path string) error {
	p, err := cstring(path)
	if err != nil {
		return err
	}
	fd, err := sysBPF(cmdObjGet, &attrObj{path: p})
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("nothing is pinned at %s: %w", path, os.ErrNotExist)
	case err != nil:
		return fmt.Errorf("the map pinned at %s cannot be had: %w", path, refusedOr(err, "opening it"))
	}
	var info mapInfo
	if err := objInfo(fd, &info); err != nil {
		unix.Close(fd)
		return fmt.Errorf("what is pinned at %s does not say what it is: %w", path, named(err))
	}
	differ := func(what string, here, there any) error {
		unix.Close(fd)
		return fmt.Errorf("the map pinned at %s is another one: its %s is %v, and the object wants %v", path, what, there, here)
	}
	switch {
	case abi.MapType(info.typ) != m.typ:
		return differ("type", m.typ, abi.MapType(info.typ))
	case int(info.keySize) != m.keySize:
		return differ("key size", m.keySize, info.keySize)
	case int(info.valueSize) != m.valueSize:
		return differ("value size", m.valueSize, info.valueSize)
	}
	m.fd, m.maxEntries = fd, int(info.maxEntries)
	return nil
}

// makeMap is BPF_MAP_CREATE.
func (l *loaded) makeMap(km *kernelMap, m *object.Map) error {
	attr := &attrMapCreate{
		typ: uint32(km.typ), keySize: uint32(km.keySize), valueSize: uint32(km.valueSize),
		maxEntries: uint32(km.maxEntries), flags: km.flags, extra: m.Extra, name: objName(m.Name),
	}
	if m.NUMANode > 0 || km.flags&flagNUMANode != 0 {
		attr.numaNode = m.NUMANode
		attr.flags |= flagNUMANode
	}
	if m.Inner != nil {
		inner, err := l.createInner(m.Inner)
		if err != nil {
			return fmt.Errorf("the maps in it: %w", err)
		}
		defer inner.close()
		attr.innerFD = uint32(inner.fd)
	}
	if l.types.fd >= 0 && takesTypes(km.typ) {
		id := func(t btf.Type) uint32 {
			if t == nil {
				return 0
			}
			return uint32(l.types.ids[t])
		}
		attr.btfFD, attr.keyType, attr.valueType = uint32(l.types.fd), id(m.Key), id(m.Value)
		if attr.valueType == 0 || attr.keyType == 0 && km.keySize != 0 {
			attr.btfFD, attr.keyType, attr.valueType = 0, 0, 0
		}
	}
	return l.sendMap(km, attr)
}

func (l *loaded) sendMap(km *kernelMap, attr *attrMapCreate) error {
	if l.token >= 0 {
		attr.flags |= flagTokenFD
		attr.tokenFD = int32(l.token)
	}
	fd, err := sysBPF(cmdMapCreate, attr)
	if err != nil && attr.btfFD != 0 && !errors.Is(err, unix.EPERM) {
		// Types are for people; a kernel that does not take them still makes
		// the map, unless it has parts that the kernel must know.
		attr.btfFD, attr.keyType, attr.valueType = 0, 0, 0
		if fd2, err2 := sysBPF(cmdMapCreate, attr); err2 == nil {
			fd, err = fd2, nil
		}
	}
	if err != nil {
		return mapError(km, err, l.token >= 0)
	}
	km.fd = fd
	return nil
}

// createInner makes a map for the kernel to take the measures of.
func (l *loaded) createInner(m *object.Map) (*kernelMap, error) {
	km := &kernelMap{name: m.Name, typ: abi.MapType(m.Type), maxEntries: int(m.MaxEntries), flags: m.Flags}
	km.keySize, km.valueSize = m.Sizes()
	km.setSlot()
	return km, l.makeMap(km, m)
}

// takesTypes reports whether the kernel wants to know the types of a map's keys
// and values (map_check_btf of its operations).
func takesTypes(t abi.MapType) bool {
	switch t {
	case abi.MapPerfEventArray, abi.MapCgroupArray, abi.MapStackTrace, abi.MapArrayOfMaps, abi.MapHashOfMaps,
		abi.MapDevmap, abi.MapDevmapHash, abi.MapCpumap, abi.MapXskmap, abi.MapSockmap, abi.MapSockhash,
		abi.MapQueue, abi.MapStack, abi.MapProgArray, abi.MapRingbuf, abi.MapUserRingbuf, abi.MapReuseportSockarray,
		abi.MapBloomFilter, abi.MapArena:
		return false
	}
	return true
}

// mapError puts the kernel's refusal of a map into words.
func mapError(m *kernelMap, err error, token bool) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return refused("making it", err, needs{bpf: true, token: token, net: m.typ == abi.MapSockmap || m.typ == abi.MapDevmap})
	case errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("there is no memory for %d elements of %d bytes%s: %w", m.maxEntries, m.keySize+m.slot, memlockHint(), named(err))
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("%d elements of %d bytes are more than the kernel allows: %w", m.maxEntries, m.keySize+m.slot, named(err))
	case errors.Is(err, unix.EINVAL):
		if t, err := Target(); err == nil {
			if v := m.typ.Since(); v != 0 && !t.Release().AtLeast(v.Major(), v.Minor()) {
				return fmt.Errorf("the kernel has no maps of type %s (Linux has them since %s)", m.typ, v)
			}
		}
		return fmt.Errorf("the kernel refuses a map of type %s with keys of %d and values of %d bytes, %d elements and flags %#x: %w", m.typ, m.keySize, m.valueSize, m.maxEntries, m.flags, named(err))
	}
	return named(err)
}

// refusedOr explains a refusal, and names any other error.
func refusedOr(err error, what string) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return refused(what, err, needs{bpf: true})
	}
	return named(err)
}

// fillMaps puts into maps of maps and program arrays what the object says.
func (l *loaded) fillMaps() error {
	for _, m := range l.obj.Maps {
		km := l.mapOf[m]
		for i, v := range m.Values {
			fd := -1
			switch v := v.(type) {
			case *object.Map:
				if inner := l.mapOf[v]; inner != nil {
					fd = inner.fd
				}
			case *object.Func:
				if l.progs[v.Name] == nil {
					continue // was not to be loaded
				}
				_, variant, err := l.anyVariant(v.Name)
				if err != nil {
					return fmt.Errorf("map %s: %w", m.Name, err)
				}
				fd = variant.fd
			}
			if fd < 0 {
				continue
			}
			key, value := make([]byte, km.keySize), make([]byte, 4)
			put(key, uint64(i))
			put(value, uint64(fd))
			if err := km.update(key, value); err != nil {
				return fmt.Errorf("element %d of map %s cannot be set: %w", i, m.Name, named(err))
			}
		}
	}
	return nil
}

func (l *loaded) findMap(name string) (*kernelMap, error) {
	m, ok := l.maps[name]
	if ok {
		return m, nil
	}
	nearest := source.Nearest(name, func(yield func(string) bool) {
		for n := range l.maps {
			if !yield(n) {
				return
			}
		}
	})
	if nearest != "" {
		return nil, fmt.Errorf("the object has no map %q; did you mean %q?", name, nearest)
	}
	return nil, fmt.Errorf("the object has no map %q", name)
}

func (l *loaded) Map(name string) (machine.Map, error) {
	m, err := l.findMap(name)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *kernelMap) Name() string    { return m.name }
func (m *kernelMap) KeySize() int    { return m.keySize }
func (m *kernelMap) ValueSize() int  { return m.valueSize }
func (m *kernelMap) MaxEntries() int { return m.maxEntries }
func (m *kernelMap) PerCPU() bool    { return isPerCPU(m.typ) }

// fail puts an error of a map's operation into words.
func (m *kernelMap) fail(what string, err error) error {
	switch {
	case errors.Is(err, unix.ENOENT):
		return machine.ErrKeyNotExist
	case errors.Is(err, unix.EBADF):
		return fmt.Errorf("map %s: %w", m.name, os.ErrClosed)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("map %s cannot be %s: its flags, or the kernel's for frozen maps, forbid it: %w", m.name, what, named(err))
	case errors.Is(err, unix.E2BIG):
		return fmt.Errorf("map %s is full: it has room for %d elements: %w", m.name, m.maxEntries, named(err))
	case errors.Is(err, errNotSupp), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("map %s cannot be %s: maps of type %s cannot: %w", m.name, what, m.typ, named(err))
	}
	return fmt.Errorf("map %s cannot be %s: %w", m.name, what, named(err))
}

func (m *kernelMap) checkKey(key []byte) error {
	if len(key) != m.keySize {
		return fmt.Errorf("map %s has keys of %d bytes, not %d", m.name, m.keySize, len(key))
	}
	return nil
}

func (m *kernelMap) Lookup(key []byte) ([]byte, error) {
	if err := m.checkKey(key); err != nil {
		return nil, err
	}
	value := make([]byte, m.slot)
	attr := &attrMapElem{fd: uint32(m.fd), key: ptr(key), value: ptr(value)}
	if _, err := sysBPF(cmdMapLookup, attr); err != nil {
		return nil, m.fail("read", err)
	}
	return value, nil
}

func (m *kernelMap) update(key, value []byte) error {
	_, err := sysBPF(cmdMapUpdate, &attrMapElem{fd: uint32(m.fd), key: ptr(key), value: ptr(value)})
	return err
}

func (m *kernelMap) Update(key, value []byte) error {
	if err := m.checkKey(key); err != nil {
		return err
	}
	if len(value) != m.slot {
		return fmt.Errorf("map %s has values of %d bytes, not %d", m.name, m.slot, len(value))
	}
	if err := m.update(key, value); err != nil {
		return m.fail("written", err)
	}
	return nil
}

func (m *kernelMap) Delete(key []byte) error {
	if err := m.checkKey(key); err != nil {
		return err
	}
	if _, err := sysBPF(cmdMapDelete, &attrMapElem{fd: uint32(m.fd), key: ptr(key)}); err != nil {
		return m.fail("changed", err)
	}
	return nil
}

// batchBytes is how much a batch of elements may take, unless one bucket of a
// hash has more.
const batchBytes = 256 << 10

// All reads in batches where the map can, which takes one system call for
// hundreds of elements instead of two for each. Key and value are valid until
// yield returns.
func (m *kernelMap) All(yield func(key, value []byte) bool) error {
	switch m.typ {
	case abi.MapHash, abi.MapLRUHash, abi.MapPercpuHash, abi.MapLRUPercpuHash, abi.MapArray, abi.MapPercpuArray,
		abi.MapLPMTrie, abi.MapHashOfMaps, abi.MapArrayOfMaps:
	default:
		return m.each(yield)
	}
	n := max(min(batchBytes/(m.keySize+m.slot), m.maxEntries), 1)
	// A hash that is smaller than that is had in one call, for which the
	// kernel wants room for all.
	keys, values := make([]byte, n*m.keySize), make([]byte, n*m.slot)
	// Where the walk stands: a bucket's number for hashes, a key for others.
	place := make([]byte, max(m.keySize, 8))
	next := make([]byte, len(place))
	first := true
	for {
		attr := &attrMapBatch{out: ptr(next), keys: ptr(keys), values: ptr(values), count: uint32(n), fd: uint32(m.fd)}
		if !first {
			attr.in = ptr(place)
		}
		_, err := sysBPF(cmdMapLookupBatch, attr)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
		case errors.Is(err, unix.ENOSPC):
			// One bucket has more elements than there is room for.
			if n >= 64*m.maxEntries+64 {
				return m.fail("read", err)
			}
			n *= 2
			keys, values = make([]byte, n*m.keySize), make([]byte, n*m.slot)
			continue
		case errors.Is(err, unix.EFAULT), !first:
			return m.fail("read", err)
		default:
			return m.each(yield)
		}
		for i := range int(attr.count) {
			if !yield(keys[i*m.keySize:(i+1)*m.keySize:(i+1)*m.keySize], values[i*m.slot:(i+1)*m.slot:(i+1)*m.slot]) {
				return nil
			}
		}
		if err != nil {
			return nil
		}
		place, next = next, place
		first = false
	}
}

// each walks a map by its keys.
func (m *kernelMap) each(yield func(key, value []byte) bool) error {
	if m.keySize == 0 {
		return fmt.Errorf("map %s of type %s has no keys to walk by", m.name, m.typ)
	}
	key, next, value := make([]byte, m.keySize), make([]byte, m.keySize), make([]byte, m.slot)
	var at unsafe.Pointer // nil asks for the first
	restarts := 0
	for {
		_, err := sysBPF(cmdMapNextKey, &attrMapElem{fd: uint32(m.fd), key: at, value: ptr(next)})
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return m.fail("walked", err)
		}
		// A hash begins anew when the key it was to go on from is gone.
		if restarts++; restarts > 4*m.maxEntries+1024 {
			return nil
		}
		_, err = sysBPF(cmdMapLookup, &attrMapElem{fd: uint32(m.fd), key: ptr(next), value: ptr(value)})
		if err == nil && !yield(next, value) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return m.fail("read", err)
		}
		key, next = next, key
		at = ptr(key)
	}
}

// mapInfo is the start of struct bpf_map_info.
type mapInfo struct {
	typ, id, keySize, valueSize, maxEntries, flags uint32
	name                                           [objNameLen]byte
	ifindex, vmlinuxType                           uint32
	netnsDev, netnsIno                             uint64
	btfID, keyType, valueType, _                   uint32
}

// objInfo is BPF_OBJ_GET_INFO_BY_FD.
func objInfo[T any](fd int, info *T) error {
	_, err := sysBPF(cmdObjInfo, &attrInfo{fd: uint32(fd), size: uint32(unsafe.Sizeof(*info)), info: unsafe.Pointer(info)})
	return err
}
