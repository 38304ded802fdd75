package verifier

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

var (
	corpusU64 = &btf.Int{Name: "unsigned long", Size: 8}
	corpusU32 = &btf.Int{Name: "unsigned int", Size: 4}
	corpusU8  = &btf.Int{Name: "unsigned char", Size: 1}
)

// opaque is one of the structures that the kernel knows by name and size.
func opaque(name string, words uint32) *btf.Struct {
	return &btf.Struct{Name: name, Size: 8 * words, Members: []btf.Member{
		{Name: "__opaque", Type: &btf.Array{Type: corpusU64, Index: corpusU32, Nelems: words}},
	}}
}

// corpusField returns the type of a field, and its tag: u64, u32, u8, lock,
// timer, refcount, list_node, rb_node, list(STRUCT:FIELD), tree(STRUCT:FIELD),
// kptr(STRUCT), kptr_untrusted(STRUCT), or an earlier structure.
func corpusField(name string, structs []*btf.Struct) (btf.Type, string, error) {
	name, arg, _ := strings.Cut(strings.TrimSuffix(name, ")"), "(")
	switch name {
	case "u64":
		return corpusU64, "", nil
	case "u32":
		return corpusU32, "", nil
	case "u8":
		return corpusU8, "", nil
	case "lock":
		return &btf.Struct{Name: "bpf_spin_lock", Size: 4, Members: []btf.Member{{Name: "val", Type: corpusU32}}}, "", nil
	case "refcount":
		return &btf.Struct{Name: "bpf_refcount", Size: 4, Members: []btf.Member{
			{Name: "__opaque", Type: &btf.Array{Type: corpusU32, Index: corpusU32, Nelems: 1}},
		}}, "", nil
	case "timer":
		return opaque("bpf_timer", 2), "", nil
	case "list_node":
		return opaque("bpf_list_node", 3), "", nil
	case "rb_node":
		return opaque("bpf_rb_node", 4), "", nil
	case "list":
		return opaque("bpf_list_head", 2), "contains:" + arg, nil
	case "tree":
		return opaque("bpf_rb_root", 2), "contains:" + arg, nil
	case "kptr", "kptr_untrusted":
		to := &btf.Struct{Name: arg, Size: 4, Members: []btf.Member{{Name: "first", Type: corpusU32}}}
		for _, s := range structs {
			if s.Name == arg {
				to = s
			}
		}
		return &btf.Pointer{Target: &btf.TypeTag{Value: name, Type: to}}, "", nil
	}
	for _, s := range structs {
		if s.Name == name {
			return s, "", nil
		}
	}
	return nil, "", fmt.Errorf("no type %q", name)
}

// corpusStruct makes a structure from "NAME FIELD:TYPE...", with each field
// aligned as in C.
func corpusStruct(words []string, structs []*btf.Struct) (*btf.Struct, error) {
	s := &btf.Struct{Name: words[0]}
	for _, w := range words[1:] {
		name, typ, _ := strings.Cut(w, ":")
		t, tag, err := corpusField(typ, structs)
		if err != nil {
			return nil, err
		}
		size, err := btf.Sizeof(t)
		if err != nil {
			return nil, err
		}
		align := uint32(min(size, 8))
		if size == 4 {
			align = 4
		}
		s.Size = (s.Size + align - 1) &^ (align - 1)
		m := btf.Member{Name: name, Type: t, Offset: btf.Bits(s.Size * 8)}
		if tag != "" {
			m.Tags = []string{tag}
		}
		s.Members = append(s.Members, m)
		s.Size += uint32(size)
	}
	s.Size = (s.Size + 7) &^ 7
	return s, nil
}

// corpusBTF starts the BTF of a program with its structures, whose ids are then
// the same wherever it is made.
func corpusBTF(structs []*btf.Struct) (*btf.Builder, []uint32, error) {
	b, err := btf.NewBuilder(nil, nil)
	if err != nil {
		return nil, nil, err
	}
	var ids []uint32
	for _, s := range structs {
		id, err := b.Add(s)
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, uint32(id))
	}
	return b, ids, nil
}

// addLocals gives a program its structures, by the ids that instructions have
// for them: so far those are their numbers.
func addLocals(c *corpusCase) error {
	if len(c.structs) == 0 {
		return nil
	}
	_, ids, err := corpusBTF(c.structs)
	if err != nil {
		return err
	}
	c.program.Locals = map[uint32]btf.Type{}
	for i, id := range ids {
		if int(id) != i+1 {
			return fmt.Errorf("structure %d has the id %d", i+1, id)
		}
		c.program.Locals[id] = c.structs[i]
	}
	return nil
}
