package facts

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
)

// Widths compares the sizes of the kernel fields that an object reads with
// those on a target. CO-RE moves a read to where the field is, but a read
// through a helper keeps its length. Fields that are not there are left to the
// loader to complain of.
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
			was, ok := scalarSize(leaf)
			if !ok {
				continue
			}
			here, err := typeOf(t, name)
			for _, n := range names {
				if err != nil {
					break
				}
				m, found := findMember(here, n)
				if !found {
					err = target.ErrNotFound
				}
				here = m.Type
			}
			if err != nil {
				continue
			}
			if is, ok := scalarSize(here); !ok || is != was {
				d := Difference{Fact: object.Fact{Kind: object.FactLayout, Name: key, Value: fmt.Sprintf("%d bytes", was)}, Here: "no number"}
				if ok {
					d.Here = fmt.Sprintf("%d bytes", is)
				}
				out = append(out, d)
			}
		}
	}
	return out
}

// scalarSize is the size of a number or pointer in bytes.
func scalarSize(t btf.Type) (int, bool) {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int:
		return int(t.Size), true
	case *btf.Enum:
		return int(t.Size), true
	case *btf.Pointer:
		return 8, true
	}
	return 0, false
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
		var members []btf.Member
		switch t := btf.UnderlyingType(t).(type) {
		case *btf.Struct:
			members = t.Members
		case *btf.Union:
			members = t.Members
		}
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
