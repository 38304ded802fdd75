package vm

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"reflect"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
)

// fail puts the error number of an operation into words.
func (m *Map) fail(what string, e Errno) error {
	if e == 0 {
		return nil
	}
	switch e {
	case ENOENT:
		return fmt.Errorf("%s: map %s: %w", what, m.name, ebpf.ErrKeyNotExist)
	case EEXIST:
		return fmt.Errorf("%s: map %s: %w", what, m.name, ebpf.ErrKeyExist)
	case EOPNOTSUPP, ENOTSUPP:
		return fmt.Errorf("%s: a map of type %s: %w", what, m.typ, errors.Join(e, ebpf.ErrNotSupported))
	}
	return fmt.Errorf("%s: map %s: %w", what, m.name, e)
}

func (m *Map) marshalKey(key any) ([]byte, error) {
	if m.keySize == 0 {
		if key != nil {
			return nil, fmt.Errorf("map %s has no keys: give nil", m.name)
		}
		return nil, nil
	}
	b, err := marshal(key, m.keySize)
	if err != nil {
		return nil, fmt.Errorf("key of map %s: %w", m.name, err)
	}
	return b, nil
}

// marshalValue returns a whole value, of all processors.
func (m *Map) marshalValue(value any) ([]byte, error) {
	if m.PerCPU() {
		return m.marshalAll(value)
	}
	b, err := marshal(value, m.valueSize)
	if err != nil {
		return nil, fmt.Errorf("value of map %s: %w", m.name, err)
	}
	return b, nil
}

func (m *Map) unmarshalValue(b []byte, out any) error {
	if m.PerCPU() {
		return m.unmarshalAll(b, out)
	}
	if err := unmarshal(b, out); err != nil {
		return fmt.Errorf("value of map %s: %w", m.name, err)
	}
	return nil
}

// Lookup copies the value of a key to where valueOut points; for maps that are
// per CPU that is a slice. It fails with ebpf.ErrKeyNotExist.
func (m *Map) Lookup(key, valueOut any) error { return m.LookupWithFlags(key, valueOut, 0) }

// LookupWithFlags is Lookup with ebpf.LookupLock, which takes the value's
// spin lock meanwhile.
func (m *Map) LookupWithFlags(key, valueOut any, flags ebpf.MapLookupFlags) error {
	k, err := m.marshalKey(key)
	if err != nil {
		return err
	}
	b, err := m.lookupBytes(k, uint64(flags))
	if err != nil {
		return err
	}
	return m.unmarshalValue(b, valueOut)
}

// LookupBytes returns the value of a key, or nil if it is not there.
func (m *Map) LookupBytes(key any) ([]byte, error) {
	k, err := m.marshalKey(key)
	if err != nil {
		return nil, err
	}
	b, err := m.lookupBytes(k, 0)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	return b, err
}

func (m *Map) lookupBytes(key []byte, flags uint64) ([]byte, error) {
	switch {
	case flags&^flagLock != 0 || flags&flagLock != 0 && !m.hasLock():
		return nil, m.fail("lookup", EINVAL)
	case m.flags&mapWriteOnly != 0:
		return nil, m.fail("lookup", EPERM)
	}
	b := make([]byte, m.fullSize())
	return b, m.fail("lookup", m.table.read(key, b, flags))
}

// Put sets the value of a key, whether it is there or not.
func (m *Map) Put(key, value any) error { return m.Update(key, value, ebpf.UpdateAny) }

// Update sets the value of a key. It fails with ebpf.ErrKeyExist under
// ebpf.UpdateNoExist and with ebpf.ErrKeyNotExist under ebpf.UpdateExist.
func (m *Map) Update(key, value any, flags ebpf.MapUpdateFlags) error {
	k, err := m.marshalKey(key)
	if err != nil {
		return err
	}
	if o, ok := m.table.(objectTable); ok {
		if m.flags&mapReadOnly != 0 || m.frozen.Load() {
			return m.fail("update", EPERM)
		}
		return m.failObject(o.put(k, value, uint64(flags)))
	}
	v, err := m.marshalValue(value)
	if err != nil {
		return err
	}
	return m.updateBytes(k, v, uint64(flags))
}

func (m *Map) updateBytes(key, value []byte, flags uint64) error {
	switch {
	case m.flags&mapReadOnly != 0 || m.frozen.Load():
		return m.fail("update", EPERM)
	case flags&flagLock != 0 && !m.hasLock():
		return m.fail("update", EINVAL)
	}
	return m.fail("update", m.table.write(key, value, flags))
}

// Delete removes a key. It fails with ebpf.ErrKeyNotExist.
func (m *Map) Delete(key any) error {
	k, err := m.marshalKey(key)
	if err != nil {
		return err
	}
	return m.deleteBytes(k)
}

func (m *Map) deleteBytes(key []byte) error {
	if m.flags&mapReadOnly != 0 || m.frozen.Load() {
		return m.fail("delete", EPERM)
	}
	return m.fail("delete", m.table.remove(key))
}

// A popper takes elements out as it reads them: queues and stacks, and hash
// maps on request.
type popper interface {
	takeOut(key, value []byte) Errno
}

// LookupAndDelete reads a value and removes it. Queues and stacks have nil for
// a key.
func (m *Map) LookupAndDelete(key, valueOut any) error {
	k, err := m.marshalKey(key)
	if err != nil {
		return err
	}
	p, ok := m.table.(popper)
	switch {
	case !ok:
		return m.fail("lookup and delete", ENOTSUPP)
	case m.flags&(mapReadOnly|mapWriteOnly) != 0 || m.frozen.Load():
		return m.fail("lookup and delete", EPERM)
	}
	b := make([]byte, m.fullSize())
	if err := m.fail("lookup and delete", p.takeOut(k, b)); err != nil {
		return err
	}
	return m.unmarshalValue(b, valueOut)
}

func (t *hashTable) takeOut(key, value []byte) Errno {
	_, e := t.take(key, func(e uint32) {
		t.m.readAll(value, 0, func(cpu int) uint32 { return t.address(cpu, e) })
	})
	return e
}

// NextKey puts the key that follows into nextKeyOut; nil asks for the first. It
// fails with ebpf.ErrKeyNotExist after the last.
func (m *Map) NextKey(key, nextKeyOut any) error {
	var k []byte
	if key != nil {
		var err error
		if k, err = m.marshalKey(key); err != nil {
			return err
		}
	}
	b, e := m.table.next(k)
	if e != 0 {
		return m.fail("next key", e)
	}
	return unmarshal(b, nextKeyOut)
}

// NextKeyBytes returns the key that follows, or nil.
func (m *Map) NextKeyBytes(key any) ([]byte, error) {
	var b []byte
	err := m.NextKey(key, &b)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, nil
	}
	return b, err
}

// All yields keys and values as bytes. Elements that come or go meanwhile may be
// seen or not.
func (m *Map) All() iter.Seq2[[]byte, []byte] {
	return func(yield func(k, v []byte) bool) {
		it := m.Iterate()
		var k, v []byte
		for it.Next(&k, &v) {
			if !yield(k, v) {
				return
			}
		}
	}
}

// A MapIterator goes through a map.
type MapIterator struct {
	m    *Map
	last []byte
	left int
	err  error
}

// Iterate returns an iterator that stands before the first element.
func (m *Map) Iterate() *MapIterator { return &MapIterator{m: m, left: m.MaxEntries()} }

// Next goes to the next element and copies it out; false after the last, and
// after an error, which Err returns.
func (it *MapIterator) Next(keyOut, valueOut any) bool {
	for it.err == nil {
		key, e := it.m.table.next(it.last)
		if e == ENOENT {
			return false
		}
		if e != 0 {
			it.err = it.m.fail("iterate", e)
			return false
		}
		if it.left--; it.left < 0 {
			it.err = fmt.Errorf("iterate: map %s: %w", it.m.name, ebpf.ErrIterationAborted)
			return false
		}
		it.last = key
		value, err := it.m.lookupBytes(key, 0)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue // it went meanwhile
		}
		if err == nil {
			err = unmarshal(key, keyOut)
		}
		if err == nil {
			err = it.m.unmarshalValue(value, valueOut)
		}
		it.err = err
		return err == nil
	}
	return false
}

// Err returns what ended the iteration early.
func (it *MapIterator) Err() error { return it.err }

// Freeze ends changes of the map by the host.
func (m *Map) Freeze() error {
	m.frozen.Store(true)
	return nil
}

// IsFrozen reports whether the map was frozen.
func (m *Map) IsFrozen() bool { return m.frozen.Load() }

// inVM lets instructions that were made by hand refer to a map; see [Map.FD].
func (m *Map) inVM() *Map { return m }

// FD returns a number that is no descriptor: with it, a *Map can be given to
// asm.Instruction.AssociateMap.
func (m *Map) FD() int { return int(m.handle) }

// compatible reports whether a map can stand for one of a spec.
func (m *Map) compatible(spec *ebpf.MapSpec) error {
	if abi.MapType(spec.Type) != m.typ || spec.KeySize != 0 && int(spec.KeySize) != m.keySize ||
		spec.ValueSize != 0 && int(spec.ValueSize) != m.valueSize || spec.MaxEntries != 0 && spec.MaxEntries != m.maxEntries || spec.Flags != m.flags {
		return fmt.Errorf("map %s cannot be replaced by %s: %w", spec.Name, m, ebpf.ErrMapIncompatible)
	}
	return nil
}

// fill puts a spec's contents into a new map.
func (m *Map) fill(contents []ebpf.MapKV) error {
	for _, kv := range contents {
		if err := m.Update(kv.Key, kv.Value, ebpf.UpdateAny); err != nil {
			return err
		}
	}
	return nil
}

// A Variable is a global variable of an object.
type Variable struct {
	m            *Map
	name         string
	offset, size int
	constant     bool
	typ          *btf.Var
}

// Type returns the variable's BTF type, or nil.
func (v *Variable) Type() btf.Type {
	if v.typ == nil {
		return nil
	}
	return v.typ.Type
}

// Size returns the variable's size in bytes.
func (v *Variable) Size() int { return v.size }

// ReadOnly reports whether the variable cannot be changed any more.
func (v *Variable) ReadOnly() bool { return v.constant }

func (v *Variable) bytes() []byte {
	b := v.m.bytes(v.m.table.(*arrayTable).base)
	return b[v.offset:][:v.size]
}

// Get copies the variable's value out.
func (v *Variable) Get(out any) error {
	if err := unmarshal(bytes.Clone(v.bytes()), out); err != nil {
		return fmt.Errorf("variable %s: %w", v.name, err)
	}
	return nil
}

// Set changes the variable. Programs that run see it at once.
func (v *Variable) Set(in any) error {
	if v.constant {
		return fmt.Errorf("variable %s is read-only: set it in the CollectionSpec, before it is loaded: %w", v.name, ebpf.ErrReadOnly)
	}
	b, err := marshal(in, v.size)
	if err != nil {
		return fmt.Errorf("variable %s: %w", v.name, err)
	}
	copy(v.bytes(), b)
	return nil
}

var errNoObject = errors.New("a map or a program of this vm")

// isNil reports whether v is nil, or a nil pointer.
func isNil(v any) bool {
	rv := reflect.ValueOf(v)
	return !rv.IsValid() || rv.Kind() == reflect.Pointer && rv.IsNil()
}
