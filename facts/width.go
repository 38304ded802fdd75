package facts

import (
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
)

// Widths compares what the kernel fields are that an object reads, their sizes and
// signs, with what they are on a target. CO-RE moves a read to where the field
// is, but a read through a helper keeps its length, and what follows it its idea
// of a sign. Fields that are not there are left to the loader to complain of.
func Widths(t target.Target, o *object.Object) []Difference {
	var out []Difference
	seen := map[string]bool{}
	for _, f := range o.Funcs {
		for _, c := range f.CORE {
			if c.Kind != object.COREFieldOffset {
				continue
			}
			name, names, leaf := fieldPath(c)
			key := name + "." + strings.Join(names, ".")
			if leaf == nil || seen[key] {
				continue
			}
			seen[key] = true
			was := readShape(leaf)
			if was == "" {
				continue
			}
			root, err := typeOf(t, name)
			if err != nil {
				continue
			}
			here, ok := findPath(root, names)
			if !ok {
				continue
			}
			is := readShape(here.member.Type)
			if is == "" || here.member.BitfieldSize > 0 {
				is = "no number"
			}
			if is != was {
				out = append(out, Difference{Fact: object.Fact{Kind: object.FactLayout, Name: key, Value: was}, Here: is})
			}
		}
	}
	return out
}

// readShape is the shape of a field as far as reading it depends on it: how
// many elements an array has does, when they are text.
func readShape(t btf.Type) string {
	a, ok := btf.UnderlyingType(t).(*btf.Array)
	if !ok {
		return shape(t)
	}
	if n, ok := btf.UnderlyingType(a.Type).(*btf.Int); ok && n.Name == "char" {
		return shape(a)
	}
	if elem := readShape(a.Type); elem != "" {
		return "an array of " + elem
	}
	return ""
}

// fieldPath is the path of a CO-RE record in names: the type with its keyword,
// the named members on the way, and the type of the last. leaf is nil where
// the path leads through arrays, has no names, or ends in a bit-field.
func fieldPath(c object.CORE) (name string, names []string, leaf btf.Type) {
	t := btf.UnderlyingType(c.Type)
	switch t := t.(type) {
	case *btf.Struct:
		name = "struct " + t.Name
	case *btf.Union:
		name = "union " + t.Name
	}
	name, _, _ = strings.Cut(name, "___") // a flavour of the type
	if strings.HasSuffix(name, " ") || name == "" {
		return "", nil, nil
	}
	for i, part := range strings.Split(c.Access, ":") {
		n, err := strconv.Atoi(part)
		if err != nil || i == 0 && n != 0 {
			return "", nil, nil
		}
		if i == 0 {
			continue
		}
		members := membersOf(t)
		if n < 0 || n >= len(members) || members[n].BitfieldSize > 0 {
			return "", nil, nil
		}
		if members[n].Name != "" {
			names = append(names, members[n].Name)
		}
		t = members[n].Type
	}
	if len(names) == 0 {
		return "", nil, nil
	}
	return name, names, t
}
