package check

import (
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/lang/bt/syntax"
)

// An enumerator is a name of an enum of the script.
type enumerator struct {
	enum  *btf.Enum
	value int64
}

// cDecls makes the C types of the script known, with the layout that a C
// compiler gives them on a 64-bit machine.
func (c *checker) cDecls(list []*syntax.CDecl) {
	c.enums = map[string]enumerator{}
	c.info = newInfo()
	c.scope = &scope{vars: map[string]*Var{}}
	c.inst = &Instance{Points: []Point{{}}}
	for _, d := range list {
		base := c.cBase(d.Base, d.Attrs)
		if d.Storage != syntax.Typedef {
			continue
		}
		for _, decl := range d.Declarators {
			if decl.Name == nil {
				continue
			}
			if t := c.cDerived(decl.Type, d.Base, base); t != nil {
				c.structs[decl.Name.Text] = &btf.Typedef{Name: decl.Name.Text, Type: t}
			}
		}
	}
}

// cBase is the type that a C declaration starts with, nil after an error.
func (c *checker) cBase(e syntax.TypeExpr, attrs []*syntax.Attr) btf.Type {
	switch e := e.(type) {
	case *syntax.StructType:
		if e.Body != nil {
			return c.cStruct(e, append(slices.Clone(attrs), e.Attrs...))
		}
	case *syntax.EnumType:
		if e.Body != nil {
			return c.cEnum(e, append(slices.Clone(attrs), e.Attrs...))
		}
	}
	return c.cType(e)
}

// cDerived is the type of a declarator, which is built around base.
func (c *checker) cDerived(e, baseExpr syntax.TypeExpr, base btf.Type) btf.Type {
	if e == baseExpr {
		return base
	}
	switch e := e.(type) {
	case *syntax.PointerType:
		if _, ok := e.Elem.(*syntax.FuncType); ok {
			return &btf.Pointer{Target: &btf.Void{}}
		}
		if t := c.cDerived(e.Elem, baseExpr, base); t != nil {
			return &btf.Pointer{Target: t}
		}
	case *syntax.ArrayType:
		elem := c.cDerived(e.Elem, baseExpr, base)
		n := int64(0)
		if e.Len != nil {
			var ok bool
			if n, ok = c.cConst(e.Len); !ok || n < 0 || n > 1<<20 {
				c.errorf(e.Len.Span(), "bad-length", "the length of an array must be a constant from 0 to 1048576")
				return nil
			}
		}
		if elem != nil {
			return &btf.Array{Index: &btf.Int{Name: "unsigned int", Size: 4}, Type: elem, Nelems: uint32(n)}
		}
	default:
		return c.cType(e)
	}
	return nil
}

// cConst is the value of a constant expression.
func (c *checker) cConst(e syntax.Expr) (int64, bool) {
	c.expr(e)
	k, ok := c.info.Consts[e]
	return k.Int, ok && !k.IsString
}

// cType is the C type that an expression names.
func (c *checker) cType(e syntax.TypeExpr) btf.Type {
	switch e := e.(type) {
	case *syntax.NamedType:
		if t, ok := typeNames[e.Name]; ok {
			return cBasic(e.Name, t)
		}
		t, err := c.structType("", e.Name)
		if err == nil {
			return t
		}
		c.unknownType(e.Loc, e.Name, err)
	case *syntax.StructType:
		if e.Body != nil {
			return c.cStruct(e, e.Attrs)
		}
		kind, fwd := "struct", btf.FwdStruct
		if e.Union {
			kind, fwd = "union", btf.FwdUnion
		}
		if t, ok := c.structs[kind+" "+e.Name.Text]; ok {
			return t
		}
		// Completed when a member is asked for.
		return &btf.Fwd{Name: e.Name.Text, Kind: fwd}
	case *syntax.EnumType:
		if e.Body != nil {
			return c.cEnum(e, e.Attrs)
		}
		if t, err := c.structType("enum", e.Name.Text); err == nil {
			return t
		}
		return &btf.Int{Name: "unsigned int", Size: 4}
	case *syntax.PointerType, *syntax.ArrayType:
		return c.cDerived(e, nil, nil)
	case *syntax.TypeofType:
		if e.Type != nil {
			return c.cType(e.Type)
		}
	}
	return nil
}

func cBasic(name string, t *Type) btf.Type {
	switch t.Kind {
	case None:
		return &btf.Void{}
	case Bool:
		return &btf.Int{Name: name, Size: 1, Encoding: btf.Bool}
	case Int:
		n := &btf.Int{Name: name, Size: uint32(t.Size)}
		if t.Signed {
			n.Encoding = btf.Signed
		}
		return n
	}
	return &btf.Int{Name: name, Size: uint32(max(t.Size, 1))}
}

// attribute returns the argument of an attribute, def when it has none, and
// whether the attribute is there.
func (c *checker) attribute(list []*syntax.Attr, name string, def int64) (int64, bool) {
	for _, a := range list {
		if a.Name != name {
			continue
		}
		if len(a.Args) == 1 {
			if n, ok := c.cConst(a.Args[0]); ok {
				return n, true
			}
		}
		return def, true
	}
	return 0, false
}

// cStruct lays a struct or union out.
func (c *checker) cStruct(e *syntax.StructType, attrs []*syntax.Attr) btf.Type {
	_, packed := c.attribute(attrs, "packed", 0)
	name := ""
	if e.Name != nil {
		name = e.Name.Text
	}
	s, u := &btf.Struct{Name: name}, &btf.Union{Name: name}
	var result btf.Type = s
	kind := "struct"
	if e.Union {
		result, kind = u, "union"
	}
	if name != "" {
		if _, ok := c.structs[kind+" "+name]; ok {
			c.errorf(e.Name.Loc, "redeclared", "%s %s is already defined", kind, name)
		}
		c.structs[kind+" "+name] = result
	}
	var members []btf.Member
	align, size, at := 1, 0, 0 // at is in bits
	place := func(m btf.Member, bits int, attrs []*syntax.Attr) {
		n, err := c.cSize(m.Type)
		if err != nil {
			c.errorf(e.Span(), "unknown-type", "the size of the member %s is not known: %v", m.Name, err)
			return
		}
		a := c.cAlign(m.Type)
		if _, p := c.attribute(attrs, "packed", 0); p || packed {
			a = 1
		}
		if want, ok := c.attribute(attrs, "aligned", 16); ok {
			a = max(a, int(want))
		}
		if e.Union {
			at = 0
		}
		switch {
		case bits > 0:
			// A bit-field does not cross a boundary of its type.
			if unit := 8 * n; !packed && at/unit != (at+bits-1)/unit {
				at = (at + unit - 1) / unit * unit
			}
			m.Offset, m.BitfieldSize = btf.Bits(at), btf.Bits(bits)
			at += bits
		default:
			at = (at + 8*a - 1) / (8 * a) * (8 * a)
			m.Offset = btf.Bits(at)
			at += 8 * n
		}
		align = max(align, a)
		size = max(size, (at+7)/8)
		members = append(members, m)
	}
	for _, d := range e.Body.Fields {
		base := c.cBase(d.Base, nil)
		if base == nil {
			continue
		}
		if len(d.Declarators) == 0 {
			switch base.(type) {
			case *btf.Struct, *btf.Union:
				place(btf.Member{Type: base}, 0, d.Attrs)
			}
			continue
		}
		for _, decl := range d.Declarators {
			t := c.cDerived(decl.Type, d.Base, base)
			if t == nil {
				continue
			}
			bits := 0
			if decl.Bits != nil {
				n, ok := c.cConst(decl.Bits)
				full, _ := c.cSize(t)
				if !ok || n < 0 || int(n) > 8*full {
					c.errorf(decl.Bits.Span(), "bad-width", "the width of a bit-field must be a constant from 0 to that of its type")
					continue
				}
				if n == 0 {
					at = (at + 8*full - 1) / (8 * full) * (8 * full)
					continue
				}
				bits = int(n)
				if decl.Name == nil {
					if unit := 8 * full; !packed && at/unit != (at+bits-1)/unit {
						at = (at + unit - 1) / unit * unit
					}
					at += bits
					size = max(size, (at+7)/8)
					continue
				}
			}
			m := btf.Member{Type: t}
			if decl.Name != nil {
				m.Name = decl.Name.Text
			}
			place(m, bits, append(slices.Clone(decl.Attrs), d.Attrs...))
		}
	}
	if want, ok := c.attribute(attrs, "aligned", 16); ok {
		align = max(align, int(want))
	}
	size = (size + align - 1) / align * align
	if e.Union {
		u.Size, u.Members = uint32(size), members
	} else {
		s.Size, s.Members = uint32(size), members
	}
	c.aligns[result] = align
	return result
}

func (c *checker) cSize(t btf.Type) (int, error) {
	if fwd, ok := btf.UnderlyingType(t).(*btf.Fwd); ok {
		full, err := c.complete(fwd)
		if err != nil {
			return 0, err
		}
		t = full
	}
	return btf.Sizeof(t)
}

// cAlign is the alignment of a C type in bytes.
func (c *checker) cAlign(t btf.Type) int {
	t = btf.UnderlyingType(t)
	if a, ok := c.aligns[t]; ok {
		return a
	}
	switch t := t.(type) {
	case *btf.Array:
		return c.cAlign(t.Type)
	case *btf.Struct, *btf.Union:
		a := 1
		for _, m := range members(t) {
			if m.Offset%8 == 0 {
				a = max(a, c.cAlign(m.Type))
			}
		}
		return a
	case *btf.Fwd:
		if full, err := c.complete(t); err == nil {
			return c.cAlign(full)
		}
		return 1
	}
	n, err := btf.Sizeof(t)
	if err != nil {
		return 1
	}
	return max(n, 1)
}

func (c *checker) cEnum(e *syntax.EnumType, attrs []*syntax.Attr) btf.Type {
	en := &btf.Enum{Size: 4}
	if _, packed := c.attribute(attrs, "packed", 0); packed {
		en.Size = 1
	}
	if e.Name != nil {
		en.Name = e.Name.Text
		c.structs["enum "+en.Name] = en
	}
	if e.Underlying != nil {
		if t := c.typeExpr(e.Underlying); t.isInt() {
			en.Size = uint32(t.Size)
		}
	}
	next := int64(0)
	for _, item := range e.Body.Items {
		if item.Value != nil {
			n, ok := c.cConst(item.Value)
			if !ok {
				c.errorf(item.Value.Span(), "not-constant", "the value of %s must be a constant", item.Name.Text)
			}
			next = n
		}
		en.Values = append(en.Values, btf.EnumValue{Name: item.Name.Text, Value: uint64(next)})
		en.Signed = en.Signed || next < 0
		if next > 1<<32-1 || next < -1<<31 {
			en.Size = 8
		}
		c.enums[item.Name.Text] = enumerator{en, next}
		next++
	}
	return en
}
