package codegen

import (
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/object"
)

// The local types of CO-RE records: each structure of the kernel is cut down
// to the members that the module names, at their true offsets and with its
// true size, and each enumeration to the enumerators. Names are kept, since
// loaders match by them.

// A coreUse is one record to be.
type coreUse struct {
	kind ir.CoreKind
	typ  btf.Type
	path []int
}

type coreTypes struct {
	// members are the used members of each *btf.Struct or *btf.Union and the
	// used enumerators of each *btf.Enum.
	members map[btf.Type]map[int]bool
	pruned  map[btf.Type]btf.Type
	void    btf.Type
}

func newCoreTypes() *coreTypes {
	return &coreTypes{members: map[btf.Type]map[int]bool{}, pruned: map[btf.Type]btf.Type{}, void: &btf.Void{}}
}

func (c *coreTypes) field(ref *ir.FieldRef) *coreUse {
	return &coreUse{kind: ir.CoreFieldByteOffset, typ: ref.Struct, path: ref.Path}
}

func (c *coreTypes) fact(ref *ir.CoreRef) *coreUse {
	return &coreUse{kind: ref.Kind, typ: ref.Type, path: ref.Path}
}

func isFieldKind(k ir.CoreKind) bool { return k <= ir.CoreFieldRShiftU64 }

func (c *coreTypes) use(t btf.Type, index int) {
	if c.members[t] == nil {
		c.members[t] = map[int]bool{}
	}
	if index >= 0 {
		c.members[t][index] = true
	}
}

// step goes from a composite or array to its part number index.
func step(t btf.Type, index int) btf.Type {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		if index < len(t.Members) {
			return t.Members[index].Type
		}
	case *btf.Union:
		if index < len(t.Members) {
			return t.Members[index].Type
		}
	case *btf.Array:
		return t.Type
	}
	return nil
}

// note records that the module names the field at path.
func (c *coreTypes) note(t btf.Type, path []int) {
	for _, index := range path {
		t = btf.UnderlyingType(t)
		switch t.(type) {
		case *btf.Struct, *btf.Union:
			c.use(t, index)
		}
		if t = step(t, index); t == nil {
			return
		}
	}
	c.noteLeaf(t)
}

func (c *coreTypes) noteLeaf(t btf.Type) {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct, *btf.Union:
		c.use(t, -1)
	}
}

func (c *coreTypes) noteFact(ref *ir.CoreRef) {
	t := btf.UnderlyingType(ref.Type)
	switch {
	case isFieldKind(ref.Kind):
		c.note(ref.Type, ref.Path)
	case ref.Kind == ir.CoreEnumvalExists || ref.Kind == ir.CoreEnumvalValue:
		if len(ref.Path) == 1 {
			c.use(t, ref.Path[0])
		}
	case ref.Kind == ir.CoreTypeMatches:
		// Matching compares all of the type.
		switch t := t.(type) {
		case *btf.Struct:
			for i := range t.Members {
				c.note(t, []int{i})
			}
		case *btf.Union:
			for i := range t.Members {
				c.note(t, []int{i})
			}
		case *btf.Enum:
			for i := range t.Values {
				c.use(t, i)
			}
		}
	default:
		c.noteLeaf(t)
	}
}

func (c *coreTypes) pruneMembers(t btf.Type, members []btf.Member) []btf.Member {
	var kept []btf.Member
	for i, m := range members {
		if c.members[t][i] {
			m.Type = c.prune(m.Type)
			m.Tags = nil
			kept = append(kept, m)
		}
	}
	return kept
}

// prune returns the part of t that is used.
func (c *coreTypes) prune(t btf.Type) btf.Type {
	t = btf.UnderlyingType(t)
	if p := c.pruned[t]; p != nil {
		return p
	}
	switch t := t.(type) {
	case *btf.Struct:
		p := &btf.Struct{Name: t.Name, Size: t.Size}
		c.pruned[t] = p
		p.Members = c.pruneMembers(t, t.Members)
		return p
	case *btf.Union:
		p := &btf.Union{Name: t.Name, Size: t.Size}
		c.pruned[t] = p
		p.Members = c.pruneMembers(t, t.Members)
		return p
	case *btf.Enum:
		p := &btf.Enum{Name: t.Name, Size: t.Size, Signed: t.Signed}
		c.pruned[t] = p
		for i, v := range t.Values {
			if c.members[t][i] {
				p.Values = append(p.Values, v)
			}
		}
		return p
	case *btf.Array:
		p := &btf.Array{Index: btf.UnderlyingType(t.Index), Nelems: t.Nelems}
		c.pruned[t] = p
		p.Type = c.prune(t.Type)
		return p
	case *btf.Pointer:
		p := &btf.Pointer{Target: c.void}
		c.pruned[t] = p
		target := btf.UnderlyingType(t.Target)
		switch target := target.(type) {
		case *btf.Struct:
			p.Target = c.pointee(target, target.Name, btf.FwdStruct)
		case *btf.Union:
			p.Target = c.pointee(target, target.Name, btf.FwdUnion)
		}
		return p
	case *btf.Int, *btf.Float, *btf.Fwd, *btf.Void:
		c.pruned[t] = t
		return t
	}
	return c.void
}

// pointee is what a pointer to a composite points to: a forward declaration
// unless the module looks inside.
func (c *coreTypes) pointee(t btf.Type, name string, kind btf.FwdKind) btf.Type {
	if c.members[t] != nil {
		return c.prune(t)
	}
	if name == "" {
		return c.void
	}
	return &btf.Fwd{Name: name, Kind: kind}
}

// newIndex is where member index of t went.
func (c *coreTypes) newIndex(t btf.Type, index int) int {
	n := 0
	for i := range index {
		if c.members[t][i] {
			n++
		}
	}
	return n
}

// record makes the CO-RE record for instruction n.
func (c *coreTypes) record(n int, u *coreUse) object.CORE {
	rec := object.CORE{Insn: n, Kind: object.COREKind(u.kind)}
	t := btf.UnderlyingType(u.typ)
	switch {
	case isFieldKind(u.kind):
		path := u.path
		parts := []string{"0"}
		// Loaders look for a named root: an array of structures is reached by
		// an index before the first member.
		if arr, ok := t.(*btf.Array); ok && len(path) > 0 {
			parts[0] = strconv.Itoa(path[0])
			t, path = btf.UnderlyingType(arr.Type), path[1:]
		}
		rec.Type = c.prune(t)
		for _, index := range path {
			t = btf.UnderlyingType(t)
			switch t.(type) {
			case *btf.Struct, *btf.Union:
				parts = append(parts, strconv.Itoa(c.newIndex(t, index)))
			default:
				parts = append(parts, strconv.Itoa(index))
			}
			if t = step(t, index); t == nil {
				break
			}
		}
		rec.Access = strings.Join(parts, ":")
	case u.kind == ir.CoreEnumvalExists || u.kind == ir.CoreEnumvalValue:
		rec.Type = c.prune(t)
		rec.Access = strconv.Itoa(c.newIndex(t, slices.Max(append([]int{0}, u.path...))))
	default:
		rec.Type = c.prune(t)
		if _, ok := u.typ.(*btf.Typedef); ok && u.kind == ir.CoreTypeExists {
			rec.Type = u.typ
		}
		rec.Access = "0"
	}
	return rec
}
