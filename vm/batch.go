package vm

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/cilium/ebpf"
)

// A MapBatchCursor is where a batch of look-ups goes on. The zero value is
// before the first element; it belongs to one map.
type MapBatchCursor struct {
	m    *Map
	last []byte
}

// batchable refuses what the kernel has no batches for.
func (m *Map) batchable(what string, opts *ebpf.BatchOptions) error {
	if m.keySize == 0 {
		return m.fail(what, ENOTSUPP)
	}
	if opts != nil && opts.Flags != 0 {
		return m.fail(what, EINVAL)
	}
	return nil
}

// slice returns a slice that was given for keys or values, or for filling.
func slice(what string, v any) (reflect.Value, error) {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Slice {
		return rv, fmt.Errorf("%s are a slice, and not a %T", what, v)
	}
	return rv, nil
}

// perValue is how many elements of a slice of values belong to one key: those
// of maps per CPU stand for all processors, one after the other.
func (m *Map) perValue() int {
	if m.PerCPU() {
		return m.vm.cpus
	}
	return 1
}

// BatchLookup copies keys and values to where two slices have room, from the
// cursor on, and returns how many. It fails with ebpf.ErrKeyNotExist when it
// has come to the end, after whatever it has still copied. Of maps per CPU,
// valuesOut has the values of all processors for each key.
func (m *Map) BatchLookup(cursor *MapBatchCursor, keysOut, valuesOut any, opts *ebpf.BatchOptions) (int, error) {
	return m.batchLookup("batch lookup", cursor, keysOut, valuesOut, opts, m.lookupBytes)
}

// BatchLookupAndDelete is BatchLookup, and removes what it copies. It is for
// hash maps.
func (m *Map) BatchLookupAndDelete(cursor *MapBatchCursor, keysOut, valuesOut any, opts *ebpf.BatchOptions) (int, error) {
	const what = "batch lookup and delete"
	p, ok := m.table.(popper)
	switch {
	case !ok:
		return 0, m.fail(what, ENOTSUPP)
	case m.flags&(mapReadOnly|mapWriteOnly) != 0 || m.frozen.Load():
		return 0, m.fail(what, EPERM)
	}
	return m.batchLookup(what, cursor, keysOut, valuesOut, opts, func(key []byte, _ uint64) ([]byte, error) {
		b := make([]byte, m.fullSize())
		return b, m.fail(what, p.takeOut(key, b))
	})
}

func (m *Map) batchLookup(what string, cursor *MapBatchCursor, keysOut, valuesOut any, opts *ebpf.BatchOptions, get func([]byte, uint64) ([]byte, error)) (int, error) {
	if err := m.batchable(what, opts); err != nil {
		return 0, err
	}
	if cursor.m != nil && cursor.m != m {
		return 0, fmt.Errorf("%s: the cursor belongs to map %s, and not to %s", what, cursor.m.name, m.name)
	}
	keys, err := slice("keys", keysOut)
	if err != nil {
		return 0, err
	}
	values, err := slice("values", valuesOut)
	if err != nil {
		return 0, err
	}
	each := m.perValue()
	if values.Len() != keys.Len()*each {
		return 0, fmt.Errorf("%s: there is room for %d keys, which takes room for %d values, and not %d", what, keys.Len(), keys.Len()*each, values.Len())
	}
	cursor.m = m
	n := 0
	// What is removed has no successor any more, so the next key is looked for
	// first.
	key, e := m.table.next(cursor.last)
	for n < keys.Len() {
		if e != 0 {
			return n, m.fail(what, e)
		}
		after, next := m.table.next(key)
		value, err := get(key, 0)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			key, e = after, next // it went meanwhile
			continue
		}
		if err == nil {
			err = unmarshal(key, keys.Index(n).Addr().Interface())
		}
		for cpu := 0; err == nil && cpu < each; cpu++ {
			err = unmarshal(value[cpu*m.valueStride():][:m.valueSize], values.Index(n*each+cpu).Addr().Interface())
		}
		if err != nil {
			return n, fmt.Errorf("%s: %w", what, err)
		}
		n++
		cursor.last = key
		key, e = after, next
	}
	return n, nil
}

// BatchUpdate sets the values of keys, two slices, and returns how many. opts
// may be nil; its ElemFlags are those of [Map.Update].
func (m *Map) BatchUpdate(keys, values any, opts *ebpf.BatchOptions) (int, error) {
	const what = "batch update"
	if err := m.batchable(what, opts); err != nil {
		return 0, err
	}
	k, err := slice("keys", keys)
	if err != nil {
		return 0, err
	}
	v, err := slice("values", values)
	if err != nil {
		return 0, err
	}
	each := m.perValue()
	if v.Len() != k.Len()*each {
		return 0, fmt.Errorf("%s: %d keys take %d values, and there are %d", what, k.Len(), k.Len()*each, v.Len())
	}
	flags := ebpf.UpdateAny
	if opts != nil {
		flags = ebpf.MapUpdateFlags(opts.ElemFlags)
	}
	for i := range k.Len() {
		value := v.Index(i)
		if m.PerCPU() {
			value = v.Slice(i*each, (i+1)*each)
		}
		if err := m.Update(k.Index(i).Interface(), value.Interface(), flags); err != nil {
			return i, fmt.Errorf("%s: %w", what, err)
		}
	}
	return k.Len(), nil
}

// BatchDelete removes the keys of a slice and returns how many. It fails with
// ebpf.ErrKeyNotExist at the first that is not there.
func (m *Map) BatchDelete(keys any, opts *ebpf.BatchOptions) (int, error) {
	const what = "batch delete"
	if err := m.batchable(what, opts); err != nil {
		return 0, err
	}
	k, err := slice("keys", keys)
	if err != nil {
		return 0, err
	}
	for i := range k.Len() {
		if err := m.Delete(k.Index(i).Interface()); err != nil {
			return i, fmt.Errorf("%s: %w", what, err)
		}
	}
	return k.Len(), nil
}
