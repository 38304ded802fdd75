package object

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
)

// ToCollectionSpec returns o as package ebpf loads it. It goes by way of the
// ELF file, which keeps what is loaded and what is written the same.
//
// It fails for an object of another byte order than this machine's, and for
// variables of the kernel that have a type, which package ebpf does not take.
func ToCollectionSpec(o *Object) (*ebpf.CollectionSpec, error) {
	if big := isBig(o.byteOrder()); big != isBig(binary.NativeEndian) {
		here, there, target := "little", "big", "bpfel"
		if !big {
			here, there, target = "big", "little", "bpfeb"
		}
		return nil, fmt.Errorf("the object is %s-endian and this machine is %s-endian: build it for this machine (with clang, by -target %s)", there, here, target)
	}
	for _, x := range o.Externs {
		if x.Kind == ExternKsym && x.Type != nil {
			return nil, fmt.Errorf("kernel variable %s has a type, and its address can be filled in only without one: declare it as `extern const void %s __ksym`", x.Name, x.Name)
		}
	}
	data, err := o.Marshal()
	if err != nil {
		return nil, err
	}
	spec, err := ReadSpec(data)
	if err != nil {
		return nil, fmt.Errorf("cannot prepare the object for loading: %w", err)
	}
	return spec, nil
}

// ReadSpec reads an object file as package ebpf does, but fails for damaged ones
// that would make it panic.
func ReadSpec(elf []byte) (spec *ebpf.CollectionSpec, err error) {
	// The reader of package ebpf is not made for hostile files.
	defer func() {
		if r := recover(); r != nil {
			spec, err = nil, fmt.Errorf("the object cannot be read: %v", r)
		}
	}()
	return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(elf))
}

// DataSection returns what a map of global variables holds when it is made: the
// contents in its spec, and over them the values of the variables, which may have
// been set since. ok is false for other maps.
func DataSection(spec *ebpf.CollectionSpec, name string) (data []byte, ok bool, err error) {
	m := spec.Maps[name]
	if m == nil || len(m.Contents) != 1 {
		return nil, false, nil
	}
	if data, ok = m.Contents[0].Value.([]byte); !ok {
		return nil, false, nil
	}
	data, ok = bytes.Clone(data), false
	for _, v := range spec.Variables {
		if v.SectionName != name {
			continue
		}
		ok = true
		if uint64(v.Offset)+uint64(len(v.Value)) > uint64(len(data)) {
			return nil, false, fmt.Errorf("variable %s lies outside of section %s", v.Name, name)
		}
		copy(data[v.Offset:], v.Value)
	}
	return data, ok, nil
}
