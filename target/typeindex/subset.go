package typeindex

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Subset returns a [btf.Spec] of the kernel's that has the structs, unions,
// enums, typedefs and integers of some names and what they hold by value, and
// nothing more. CO-RE relocations of fields, sizes and enumerators of those
// types resolve against it as they would against the whole kernel, at a
// fraction of the time and memory. IDs differ from the kernel's: what needs them (type
// ID relocations, attaching by type) must ask [Types.ID].
//
// Names with a flavour ("task_struct___old") stand for the type without it.
// Names that the kernel does not have are left out: relocations then find
// what they would find in the kernel, nothing.
func (t *Types) Subset(names ...string) (*btf.Spec, error) {
	types, err := t.findAll(names)
	if err != nil {
		return nil, err
	}
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		return nil, fmt.Errorf("types cannot be written as BTF: %w", err)
	}
	spec, err := b.Spec()
	if err != nil {
		return nil, fmt.Errorf("types cannot be written as BTF: %w", err)
	}
	return spec, nil
}

// essential drops a flavour: what follows the last triple underscore.
func essential(name string) string {
	if i := strings.LastIndex(name, "___"); i > 0 {
		return name[:i]
	}
	return name
}

// subsetKinds are the kinds that relocations name.
const subsetKinds = KindStruct | KindUnion | KindEnum | KindC

func (t *Types) findAll(names []string) ([]btf.Type, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var types []btf.Type
	for b, err := range t.blobs() {
		if err != nil || b.index() != nil {
			if b == t.kernel {
				return nil, fmt.Errorf("the kernel's BTF cannot be read: %w", b.indexErr)
			}
			continue // a module that is gone has no types to offer
		}
		for _, name := range names {
			for _, id := range b.findAll(subsetKinds, essential(name)) {
				typ, err := t.inflate(b, id)
				if err != nil {
					return nil, err
				}
				types = append(types, typ)
			}
		}
	}
	return types, nil
}

// findAll returns the IDs of all types of some kinds and that name.
func (b *blob) findAll(kinds Kind, name string) []btf.TypeID {
	var found []btf.TypeID
	if !validName(name) {
		return nil
	}
	for i, off := range b.offsets {
		p := b.types[off : off+typeLen]
		if kinds>>(b.u32(p[4:])>>24&0x1f)&1 != 0 && b.named(b.u32(p), name) {
			found = append(found, b.firstID+btf.TypeID(i))
		}
	}
	return found
}
