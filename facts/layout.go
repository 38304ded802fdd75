package facts

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target"
)

// layout is what a fact of that kind and name is worth; see [Value].
func layout(t target.Target, name string) (string, error) {
	if name, ok := strings.CutPrefix(name, "enumerator "); ok {
		types, err := t.Types()
		if err != nil {
			return "", err
		}
		e, err := types.Enumerator(name)
		if err != nil {
			return missing(err)
		}
		return fmt.Sprintf("%d of %s", int64(e.Value), typeName(e.Enum)), nil
	}
	name, path, isMember := strings.Cut(name, ".")
	name, whole := strings.CutSuffix(name, " {}")
	typ, err := typeOf(t, name)
	if err != nil {
		return missing(err)
	}
	typ = btf.UnderlyingType(typ)
	switch e, isEnum := typ.(*btf.Enum); {
	case isMember:
		place, ok := findPath(typ, strings.Split(path, "."))
		if !ok {
			return None, nil
		}
		return place.String(), nil
	case whole || isEnum:
		h := sha256.New()
		describe(h, typ, 0)
		if isEnum {
			return fmt.Sprintf("%d constants, %s", len(e.Values), digest(h.Sum(nil))), nil
		}
		return fmt.Sprintf("size %d, %s", sizeOf(typ), digest(h.Sum(nil))), nil
	}
	size, err := btf.Sizeof(typ)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("size %d", size), nil
}

func digest(sum []byte) string { return hex.EncodeToString(sum[:8]) }

func sizeOf(t btf.Type) int { n, _ := btf.Sizeof(t); return n }

// A memberPlace is where a member of a struct is, and what it is.
type memberPlace struct {
	offset btf.Bits // from the start of the struct
	member btf.Member
}

func (p memberPlace) String() string {
	if n := p.member.BitfieldSize; n > 0 {
		return fmt.Sprintf("bits %d to %d", p.offset, p.offset+n-1)
	}
	if s := shape(p.member.Type); s != "" {
		return fmt.Sprintf("offset %d; %s", p.offset/8, s)
	}
	h := sha256.New()
	describe(h, p.member.Type, 0)
	return fmt.Sprintf("offset %d; size %d, %s", p.offset/8, sizeOf(p.member.Type), digest(h.Sum(nil)))
}

// findPath finds a member of a member of a struct or union by their names.
func findPath(t btf.Type, names []string) (memberPlace, bool) {
	var at memberPlace
	for _, name := range names {
		p, ok := findMember(t, name)
		if !ok {
			return at, false
		}
		at.offset += p.offset
		at.member, t = p.member, p.member.Type
	}
	return at, true
}

// findMember finds a member of a struct or union, through anonymous ones too.
func findMember(t btf.Type, name string) (memberPlace, bool) {
	for _, m := range membersOf(t) {
		if m.Name == name {
			return memberPlace{m.Offset, m}, true
		}
		if m.Name == "" {
			if inner, ok := findMember(m.Type, name); ok {
				inner.offset += m.Offset
				return inner, true
			}
		}
	}
	return memberPlace{}, false
}

func membersOf(t btf.Type) []btf.Member {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

// shape is how code reads a scalar, or an array of them: its size and sign. It
// is "" for what is no scalar.
func shape(t btf.Type) string {
	size := func(n uint32, signed bool) string {
		text := fmt.Sprintf("%d bytes", n)
		if n == 1 {
			text = "1 byte"
		}
		if signed {
			text += ", signed"
		}
		return text
	}
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int:
		// Whether char has a sign is up to the kernel's compiler; scripts take
		// it for text.
		return size(t.Size, t.Encoding == btf.Signed && t.Name != "char")
	case *btf.Enum:
		return size(t.Size, t.Signed)
	case *btf.Pointer:
		return "a pointer"
	case *btf.Float:
		return size(t.Size, false)
	case *btf.Array:
		if elem := shape(t.Type); elem != "" {
			return fmt.Sprintf("%d times %s", t.Nelems, elem)
		}
	}
	return ""
}

// typeName is the name of a type with its keyword, "" for one without.
func typeName(t btf.Type) string {
	name := t.TypeName()
	if name == "" {
		return ""
	}
	switch t.(type) {
	case *btf.Struct:
		return "struct " + name
	case *btf.Union:
		return "union " + name
	case *btf.Enum:
		return "enum " + name
	}
	return name
}

// maxDepth bounds how deep types are described.
const maxDepth = 32

// describe writes everything about the memory that a value of a type takes;
// what it points to does not count.
func describe(w io.Writer, t btf.Type, depth int) {
	t = btf.UnderlyingType(t)
	if e, ok := t.(*btf.Enum); ok && depth == 0 {
		for _, v := range e.Values {
			fmt.Fprintln(w, v.Name, v.Value)
		}
		return
	}
	if s := shape(t); s != "" || depth > maxDepth {
		fmt.Fprintln(w, s)
		return
	}
	if a, ok := t.(*btf.Array); ok {
		fmt.Fprintln(w, a.Nelems, "times")
		describe(w, a.Type, depth+1)
		return
	}
	fmt.Fprintln(w, "struct", sizeOf(t))
	for _, m := range membersOf(t) {
		fmt.Fprintln(w, m.Name, m.Offset, m.BitfieldSize)
		describe(w, m.Type, depth+1)
	}
}
