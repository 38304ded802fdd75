package check

import (
	"errors"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target"
)

// fromBTF is the language's view of a C type. space is where pointers lead
// that a value of the type holds; local marks layouts that are not the kernel's.
func fromBTF(t btf.Type, space Space, local bool) *Type {
	return convert(t, space, local, 0)
}

// maxPointers bounds how far pointers to pointers are followed; what is
// further away is found again when a program gets there.
const maxPointers = 4

func convert(t btf.Type, space Space, local bool, depth int) *Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Void:
		return tNone
	case *btf.Int:
		if t.Encoding == btf.Bool {
			return tBool
		}
		if t.Name == "char" {
			// Kernels do not mark it as signed, though it is text.
			return tInt8
		}
		switch t.Size {
		case 1, 2, 4, 8:
			return intType(int(t.Size), t.Encoding == btf.Signed)
		}
		return &Type{Kind: Array, Elem: tUint8, Len: int(t.Size), Size: int(t.Size), Space: space}
	case *btf.Enum:
		return &Type{Kind: Int, Size: int(t.Size), Signed: t.Signed, BTF: t}
	case *btf.Pointer:
		if tag, ok := t.Target.(*btf.TypeTag); ok {
			switch tag.Value {
			case "user":
				space = UserSpace
			case "percpu", "rcu":
				space = KernelSpace
			}
		}
		p := &Type{Kind: Pointer, Size: 8, Space: space}
		if depth < maxPointers {
			switch elem := btf.UnderlyingType(t.Target).(type) {
			case *btf.Void, *btf.FuncProto:
			default:
				p.Elem = convert(elem, space, local, depth+1)
			}
		}
		return p
	case *btf.Array:
		if n, ok := btf.UnderlyingType(t.Type).(*btf.Int); ok && n.Size == 1 && n.Name == "char" && t.Nelems > 0 {
			// char[N] is text.
			return &Type{Kind: String, Size: int(t.Nelems), Space: space}
		}
		elem := convert(t.Type, space, local, depth)
		return &Type{Kind: Array, Elem: elem, Len: int(t.Nelems), Size: elem.Size * int(t.Nelems), Space: space}
	case *btf.Struct:
		return &Type{Kind: Struct, BTF: t, Size: int(t.Size), Space: space, Local: local}
	case *btf.Union:
		return &Type{Kind: Struct, BTF: t, Size: int(t.Size), Space: space, Local: local}
	case *btf.Fwd:
		// Completed when a member is asked for.
		return &Type{Kind: Struct, BTF: t, Space: space, Local: local}
	case *btf.Float:
		return intType(int(t.Size), false)
	}
	return tInvalid
}

// complete returns the struct or union behind t, looked up in the target when
// only its name is known.
func (c *checker) complete(t btf.Type) (btf.Type, error) {
	switch u := btf.UnderlyingType(t).(type) {
	case *btf.Struct, *btf.Union:
		return u, nil
	case *btf.Fwd:
		kind := "struct "
		if u.Kind == btf.FwdUnion {
			kind = "union "
		}
		if s, ok := c.structs[kind+u.Name]; ok {
			return s, nil
		}
		types, err := c.target.Types()
		if err != nil {
			return nil, err
		}
		full, err := types.Resolve(u)
		if err != nil {
			return nil, err
		}
		switch full := btf.UnderlyingType(full).(type) {
		case *btf.Struct, *btf.Union:
			return full, nil
		}
		return nil, errors.New("its members are not known, it is only declared")
	}
	return nil, errors.New("it is no struct")
}

// members returns the members of a struct or union.
func members(t btf.Type) []btf.Member {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

// findMember finds a member by name, through anonymous members too. The
// offset is in bits from the start of t.
func findMember(t btf.Type, name string) (path []int, m btf.Member, offset btf.Bits, ok bool) {
	for i, m := range members(t) {
		if m.Name == name {
			return []int{i}, m, m.Offset, true
		}
	}
	for i, m := range members(t) {
		if m.Name != "" {
			continue
		}
		inner := btf.UnderlyingType(m.Type)
		if path, found, offset, ok := findMember(inner, name); ok {
			return append([]int{i}, path...), found, m.Offset + offset, true
		}
	}
	return nil, btf.Member{}, 0, false
}

// memberNames are the names that findMember finds.
func memberNames(t btf.Type, yield func(string) bool) bool {
	for _, m := range members(t) {
		if m.Name == "" {
			if !memberNames(btf.UnderlyingType(m.Type), yield) {
				return false
			}
		} else if !yield(m.Name) {
			return false
		}
	}
	return true
}

// structType looks a struct, union or enum up by its name: the script's own
// first, then the target's.
func (c *checker) structType(kind, name string) (btf.Type, error) {
	if t, ok := c.ownType(kind, name); ok {
		return t, nil
	}
	types, err := c.target.Types()
	if err != nil {
		return nil, err
	}
	switch kind {
	case "struct":
		return types.Struct(name)
	case "union":
		return types.Union(name)
	case "enum":
		return types.Enum(name)
	}
	return types.Named(name)
}

// ownType is a type that the script defines.
func (c *checker) ownType(kind, name string) (btf.Type, bool) {
	if kind != "" {
		t, ok := c.structs[kind+" "+name]
		return t, ok
	}
	for _, prefix := range []string{"", "struct ", "union ", "enum "} {
		if t, ok := c.structs[prefix+name]; ok {
			return t, true
		}
	}
	return nil, false
}

// view is the language's view of a type that was looked up by its name.
func (c *checker) view(kind, name string, t btf.Type) *Type {
	_, own := c.ownType(kind, name)
	return fromBTF(t, KernelSpace, own)
}

func isNotFound(err error) bool { return errors.Is(err, target.ErrNotFound) }

// FromBTF is the language's view of a C type that lies in the program's memory.
func FromBTF(t btf.Type) *Type { return fromBTF(t, OwnSpace, true) }

// FindMember finds a member of a struct or union by its name, through
// anonymous members too. The offset is in bits from the start of t.
func FindMember(t btf.Type, name string) (path []int, m btf.Member, offset btf.Bits, ok bool) {
	return findMember(t, name)
}

// Int64Type is a signed integer of 64 bits.
var Int64Type = tInt64

// StringType is a string of up to size-1 bytes.
func StringType(size int) *Type { return stringType(size) }
