package target

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// maxText bounds how deep C text nests; hostile types could nest for ever.
const maxText = 24

// Declare writes a type as a C declaration of name, which may be "":
// "char comm[16]", "int (*fn)(struct file *)".
func Declare(typ btf.Type, name string) string { return declareType(typ, name, 0) }

func declareType(typ btf.Type, inner string, depth int) string {
	if depth > maxText {
		return join("...", inner)
	}
	depth++
	// A pointer binds weaker than the bounds and parameters behind it.
	group := func(s string) string {
		if strings.HasPrefix(s, "*") {
			return "(" + s + ")"
		}
		return s
	}
	switch t := typ.(type) {
	case nil, *btf.Void:
		return join("void", inner)
	case *btf.Pointer:
		return declareType(t.Target, "*"+inner, depth)
	case *btf.Const:
		if _, ok := t.Type.(*btf.Pointer); ok {
			return declareType(t.Type, join("const", inner), depth)
		}
		return "const " + declareType(t.Type, inner, depth)
	case *btf.Volatile:
		if _, ok := t.Type.(*btf.Pointer); ok {
			return declareType(t.Type, join("volatile", inner), depth)
		}
		return "volatile " + declareType(t.Type, inner, depth)
	case *btf.Restrict:
		return declareType(t.Type, join("restrict", inner), depth)
	case *btf.TypeTag:
		return declareType(t.Type, inner, depth)
	case *btf.Array:
		bound := "[]"
		if t.Nelems > 0 {
			bound = fmt.Sprintf("[%d]", t.Nelems)
		}
		return declareType(t.Type, group(inner)+bound, depth)
	case *btf.FuncProto:
		return declareType(t.Return, group(inner)+"("+params(t, depth)+")", depth)
	case *btf.Func:
		return declareType(t.Type, t.Name, depth)
	case *btf.Var:
		return declareType(t.Type, t.Name, depth)
	case *btf.Struct:
		return join(tag("struct", t.Name), inner)
	case *btf.Union:
		return join(tag("union", t.Name), inner)
	case *btf.Enum:
		return join(tag("enum", t.Name), inner)
	case *btf.Fwd:
		return join(tag(t.Kind.String(), t.Name), inner)
	}
	return join(typ.TypeName(), inner)
}

func tag(keyword, name string) string {
	if name == "" {
		return keyword + " {...}"
	}
	return keyword + " " + name
}

func join(a, b string) string {
	if b == "" || a == "" {
		return a + b
	}
	return a + " " + b
}

func params(f *btf.FuncProto, depth int) string {
	if len(f.Params) == 0 {
		return "void"
	}
	list := make([]string, len(f.Params))
	for i, p := range f.Params {
		if _, void := p.Type.(*btf.Void); void && i == len(f.Params)-1 {
			list[i] = "..." // how BTF writes a variable list
			continue
		}
		list[i] = declareType(p.Type, p.Name, depth)
	}
	return strings.Join(list, ", ")
}

// Define writes a struct, union or enum with its members as C text, ending
// with a line end; other types as a declaration.
func Define(typ btf.Type) string {
	var b strings.Builder
	define(&b, typ, "", 0)
	b.WriteString(";\n")
	return b.String()
}

func define(b *strings.Builder, typ btf.Type, indent string, depth int) {
	body := func(head string, members []btf.Member) {
		b.WriteString(strings.TrimSuffix(head, " {...}") + " {\n")
		for _, m := range members {
			b.WriteString(indent + "\t")
			if anonymous(m.Type) && depth < maxText {
				define(b, m.Type, indent+"\t", depth+1)
				if m.Name != "" {
					b.WriteString(" " + m.Name)
				}
			} else {
				b.WriteString(Declare(m.Type, m.Name))
			}
			if m.BitfieldSize > 0 {
				fmt.Fprintf(b, " : %d", m.BitfieldSize)
			}
			b.WriteString(";\n")
		}
		b.WriteString(indent + "}")
	}
	switch t := typ.(type) {
	case *btf.Struct:
		body(tag("struct", t.Name), t.Members)
	case *btf.Union:
		body(tag("union", t.Name), t.Members)
	case *btf.Enum:
		b.WriteString(strings.TrimSuffix(tag("enum", t.Name), " {...}") + " {\n")
		for _, v := range t.Values {
			if t.Signed {
				fmt.Fprintf(b, "%s\t%s = %d,\n", indent, v.Name, int64(v.Value))
			} else {
				fmt.Fprintf(b, "%s\t%s = %d,\n", indent, v.Name, v.Value)
			}
		}
		b.WriteString(indent + "}")
	default:
		b.WriteString(Declare(typ, ""))
	}
}

func anonymous(typ btf.Type) bool {
	switch t := typ.(type) {
	case *btf.Struct:
		return t.Name == ""
	case *btf.Union:
		return t.Name == ""
	}
	return false
}
