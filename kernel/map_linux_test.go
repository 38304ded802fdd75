package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

func appendHex(b []byte, p *uint64) []byte {
	return strconv.AppendUint(b, uint64(uintptr(unsafe.Pointer(p))), 16)
}

func appendDecimal(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

const mapSize = 3000

// mapObject is an object with one map "m" of u64 to u64, or u32 for arrays.
func mapObject(typ abi.MapType, flags uint32) *object.Object {
	m := &object.Map{Name: "m", Type: uint32(typ), Key: typeU64, Value: typeU64, MaxEntries: mapSize, Flags: flags}
	switch typ {
	case abi.MapArray, abi.MapPercpuArray:
		m.Key = &btf.Int{Name: "unsigned int", Size: 4}
	case abi.MapQueue, abi.MapStack:
		m.Key, m.Value, m.ValueSize = nil, nil, 8
	case abi.MapLPMTrie:
		m.Key, m.KeySize = nil, 8
	}
	return &object.Object{License: "GPL", Maps: []*object.Map{m}}
}

func TestMaps(t *testing.T) {
	guest.Matrix(t, oneCPU, func(t *testing.T) {
		needKernel(t)
		for _, typ := range []abi.MapType{
			abi.MapHash, abi.MapPercpuHash, abi.MapLRUHash, abi.MapLRUPercpuHash, abi.MapArray, abi.MapPercpuArray, abi.MapLPMTrie,
		} {
			t.Run(typ.String(), func(t *testing.T) { testMap(t, typ) })
		}
	})
}

func testMap(t *testing.T, typ abi.MapType) {
	flags := uint32(0)
	if typ == abi.MapLPMTrie {
		flags = 1 // BPF_F_NO_PREALLOC
	}
	l := loadObject(t, mapObject(typ, flags), machine.LoadOptions{})
	m, err := l.Map("m")
	if err != nil {
		t.Fatal(err)
	}
	array := typ == abi.MapArray || typ == abi.MapPercpuArray
	key := func(i int) []byte {
		k := make([]byte, m.KeySize())
		if typ == abi.MapLPMTrie {
			binary.NativeEndian.PutUint32(k, 32)
			binary.BigEndian.PutUint32(k[4:], uint32(i))
		} else {
			put(k, uint64(i))
		}
		return k
	}
	cpus := 1
	if m.PerCPU() {
		cpus = possible()
	}
	value := func(i int) []byte {
		v := make([]byte, 8*cpus)
		for cpu := range cpus {
			put(v[8*cpu:8*cpu+8], uint64(i*10+cpu))
		}
		return v
	}
	// LRU maps may evict before they are full.
	n := mapSize
	if typ == abi.MapLRUHash || typ == abi.MapLRUPercpuHash {
		n = mapSize / 10
	}
	for i := range n {
		if err := m.Update(key(i), value(i)); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]string)
	if err := m.All(func(k, v []byte) bool {
		seen[string(k)] = string(v)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := n
	if array {
		want = mapSize
	}
	if len(seen) != want {
		t.Errorf("walked over %d elements, want %d", len(seen), want)
	}
	for i := range n {
		if seen[string(key(i))] != string(value(i)) {
			t.Fatalf("element %d is %x, want %x", i, seen[string(key(i))], value(i))
		}
	}
	each := make(map[string]bool)
	if err := m.(*kernelMap).each(func(k, v []byte) bool {
		each[string(k)] = seen[string(k)] == string(v)
		return true
	}); err != nil || len(each) != want {
		t.Errorf("by keys walked over %d elements, %v", len(each), err)
	}
	count := 0
	if err := m.All(func(k, v []byte) bool { count++; return count < 3 }); err != nil || count != 3 {
		t.Errorf("stopped after %d elements, %v", count, err)
	}
	v, err := m.Lookup(key(1))
	if err != nil || string(v) != string(value(1)) {
		t.Errorf("element 1 is %x, %v", v, err)
	}
	if _, err := m.Lookup(key(mapSize + 5)); !errors.Is(err, machine.ErrKeyNotExist) {
		t.Errorf("an element that is not there: %v", err)
	}
	if !array {
		if err := m.Delete(key(1)); err != nil {
			t.Error(err)
		}
		if err := m.Delete(key(1)); !errors.Is(err, machine.ErrKeyNotExist) {
			t.Errorf("deleted twice: %v", err)
		}
	}
	if typ == abi.MapHash || typ == abi.MapPercpuHash {
		for i := range 10 {
			err = errors.Join(err, m.Update(key(mapSize+i), value(i)))
		}
		if err == nil || !strings.Contains(err.Error(), "room for 3000 elements") {
			t.Errorf("a full map: %v", err)
		}
	}
	for name, err := range map[string]error{
		"key":   m.Update([]byte{1}, value(1)),
		"value": m.Update(key(1), []byte{1}),
		"look":  func() error { _, err := m.Lookup(nil); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "bytes, not") {
			t.Errorf("a short %s: %v", name, err)
		}
	}
	if _, err := l.Map("mm"); err == nil || !strings.Contains(err.Error(), `"m"`) {
		t.Errorf("misspelt map: %v", err)
	}
}

// A hash whose elements come and go is still walked to its end.
func TestMapChanges(t *testing.T) {
	needKernel(t)
	l := loadObject(t, mapObject(abi.MapHash, 0), machine.LoadOptions{})
	m, err := l.Map("m")
	if err != nil {
		t.Fatal(err)
	}
	key, value := make([]byte, 8), make([]byte, 8)
	for i := range 2000 {
		put(key, uint64(i))
		if err := m.Update(key, value); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	if err := m.All(func(k, v []byte) bool {
		n++
		put(key, binary.NativeEndian.Uint64(k)^1)
		m.Delete(key)
		return true
	}); err != nil || n > 2000 {
		t.Errorf("walked over %d elements, %v", n, err)
	}
}

func TestMapOfMaps(t *testing.T) {
	needKernel(t)
	inner := &object.Map{Name: "inner", Type: uint32(abi.MapHash), KeySize: 4, ValueSize: 8, MaxEntries: 8}
	outer := &object.Map{
		Name: "outer", Type: uint32(abi.MapArrayOfMaps), KeySize: 4, MaxEntries: 4,
		Inner: &object.Map{Type: uint32(abi.MapHash), KeySize: 4, ValueSize: 8, MaxEntries: 8}, Values: []any{nil, inner},
	}
	tail := &object.Map{Name: "tail", Type: uint32(abi.MapProgArray), KeySize: 4, ValueSize: 4, MaxEntries: 4}
	c := newCounter().program("prog", "raw_tp/sys_enter", false, 0)
	tail.Values = []any{c.o.Funcs[0], nil}
	tail.ValueSize = 0
	c.o.Maps = []*object.Map{inner, outer, tail}
	l := loadObject(t, c.o, machine.LoadOptions{})
	for name, want := range map[string]uint32{"outer": 1, "tail": 0} {
		m, err := l.Map(name)
		if err != nil {
			t.Fatal(err)
		}
		set := 0
		for i := range uint32(4) {
			key := binary.NativeEndian.AppendUint32(nil, i)
			if _, err := m.Lookup(key); err == nil {
				set++
				if i != want {
					t.Errorf("element %d of %s is set", i, name)
				}
			}
		}
		if set != 1 {
			t.Errorf("%d elements of %s are set, want 1", set, name)
		}
	}
}

func BenchmarkMapAll(b *testing.B) {
	needKernel(b)
	for _, typ := range []abi.MapType{abi.MapHash, abi.MapPercpuHash} {
		b.Run(fmt.Sprint(typ), func(b *testing.B) {
			l := loadObject(b, mapObject(typ, 0), machine.LoadOptions{})
			m, err := l.Map("m")
			if err != nil {
				b.Fatal(err)
			}
			key, value := make([]byte, 8), make([]byte, m.(*kernelMap).slot)
			for i := range mapSize {
				put(key, uint64(i))
				if err := m.Update(key, value); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := m.All(func(k, v []byte) bool { return true }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
