package ir

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// A typePrinter writes BTF types. Types with a name are declared once and
// spoken of by it, which is what lets types refer to themselves; so are
// structs and function types without a name that occur twice.
type typePrinter struct {
	names namer
	decls []btf.Type
	state map[any]uint8 // of typeKey: what collect knows
}

const (
	typeActive   = 1 << iota // being walked
	typeSeen                 // walked
	typeDeclared             // in decls
)

// typeKey tells types apart for the purpose of naming. Types that contain no
// others are equal when they look equal.
func typeKey(t btf.Type) any {
	switch t := t.(type) {
	case *btf.Int:
		if t != nil {
			return *t
		}
	case *btf.Float:
		if t != nil {
			return *t
		}
	case *btf.Fwd:
		if t != nil {
			return *t
		}
	}
	return t
}

// isNilType reports whether t is nil or a nil pointer in an interface.
func isNilType(t btf.Type) bool {
	return t == nil || reflect.ValueOf(t).IsNil()
}

// hasText reports whether t has a text form of its own: all but void, nil,
// and data sections, which never appear inside of a module.
func hasText(t btf.Type) bool {
	if isNilType(t) {
		return false
	}
	switch t.(type) {
	case *btf.Int, *btf.Float, *btf.Fwd, *btf.Pointer, *btf.Array, *btf.Const, *btf.Volatile, *btf.Restrict,
		*btf.TypeTag, *btf.Typedef, *btf.Struct, *btf.Union, *btf.Enum, *btf.FuncProto, *btf.Func, *btf.Var:
		return true
	}
	return false
}

func (p *typePrinter) collectModule(m *Module, maps []*Map) {
	p.state = map[any]uint8{}
	for _, mp := range maps {
		p.collect(mp.Key)
		p.collect(mp.Value)
	}
	for _, g := range m.Globals {
		p.collect(g.Type)
	}
	for _, e := range m.Externs {
		p.collect(e.Type)
	}
	for _, f := range m.Funcs {
		if f.Proto != nil {
			p.collect(f.Proto)
		}
		for _, b := range f.Blocks {
			for _, v := range b.Values {
				switch aux := v.Aux.(type) {
				case *FieldRef:
					p.collect(aux.Struct)
				case *CoreRef:
					p.collect(aux.Type)
				case btf.Type:
					p.collect(aux)
				}
			}
		}
	}
	// Labels follow the order of declaration, so that reading gives the same.
	for _, t := range p.decls {
		p.names.label(typeKey(t), t.TypeName())
	}
}

func (p *typePrinter) declare(t btf.Type) {
	k := typeKey(t)
	if p.state[k]&typeDeclared == 0 {
		p.state[k] |= typeDeclared
		p.decls = append(p.decls, t)
	}
}

func (p *typePrinter) collect(t btf.Type) {
	if !hasText(t) {
		return
	}
	k := typeKey(t)
	switch s := p.state[k]; {
	case s&typeDeclared != 0:
		return
	case s&typeActive != 0:
		p.declare(t) // or it would never end
		return
	case s&typeSeen != 0 && !isChain(t):
		p.declare(t)
		return
	}
	// Chains of pointers and the like are written out each time; what they
	// lead to is met each time.
	p.state[k] |= typeActive
	if t.TypeName() != "" {
		p.declare(t)
	}
	children(t, p.collect)
	p.state[k] = p.state[k]&^typeActive | typeSeen
}

// isChain reports whether t adds something to one other type.
func isChain(t btf.Type) bool {
	switch t := t.(type) {
	case *btf.Pointer, *btf.Const, *btf.Volatile, *btf.Restrict, *btf.TypeTag, *btf.Typedef:
		return true
	case *btf.Array:
		_, plain := t.Index.(*btf.Int)
		return plain || t.Index == nil
	}
	return false
}

// children calls visit for each type that t directly speaks of.
func children(t btf.Type, visit func(btf.Type)) {
	switch t := t.(type) {
	case *btf.Pointer:
		visit(t.Target)
	case *btf.Array:
		visit(t.Index)
		visit(t.Type)
	case *btf.Struct:
		for _, m := range t.Members {
			visit(m.Type)
		}
	case *btf.Union:
		for _, m := range t.Members {
			visit(m.Type)
		}
	case *btf.Typedef:
		visit(t.Type)
	case *btf.Const:
		visit(t.Type)
	case *btf.Volatile:
		visit(t.Type)
	case *btf.Restrict:
		visit(t.Type)
	case *btf.TypeTag:
		visit(t.Type)
	case *btf.FuncProto:
		visit(t.Return)
		for _, prm := range t.Params {
			visit(prm.Type)
		}
	case *btf.Func:
		visit(t.Type)
	case *btf.Var:
		visit(t.Type)
	}
}

// ref writes t as it is spoken of: by its name if it has one.
func (p *typePrinter) ref(b *strings.Builder, t btf.Type) {
	if t == nil {
		b.WriteString("nil")
		return
	}
	if _, void := t.(*btf.Void); void {
		b.WriteString("void")
		return
	}
	if !hasText(t) {
		b.WriteString("nil")
		return
	}
	k := typeKey(t)
	declared := t.TypeName() != ""
	if p.state != nil {
		declared = p.state[k]&typeDeclared != 0
	}
	if declared {
		b.WriteString("$" + p.names.label(k, t.TypeName()))
		return
	}
	p.body(b, t)
}

// body writes t in full.
func (p *typePrinter) body(b *strings.Builder, t btf.Type) {
	switch t := t.(type) {
	case *btf.Int:
		fmt.Fprintf(b, "int %d", t.Size)
		switch t.Encoding {
		case btf.Unsigned:
		case btf.Signed, btf.Char, btf.Bool:
			b.WriteString(" " + t.Encoding.String())
		default:
			fmt.Fprintf(b, " encoding %d", t.Encoding)
		}
	case *btf.Float:
		fmt.Fprintf(b, "float %d", t.Size)
	case *btf.Fwd:
		b.WriteString("fwd " + t.Kind.String())
	case *btf.Pointer:
		b.WriteByte('*')
		p.ref(b, t.Target)
	case *btf.Array:
		fmt.Fprintf(b, "[%d", t.Nelems)
		if t.Index != nil {
			b.WriteByte(' ')
			p.ref(b, t.Index)
		}
		b.WriteByte(']')
		p.ref(b, t.Type)
	case *btf.Const:
		b.WriteString("const ")
		p.ref(b, t.Type)
	case *btf.Volatile:
		b.WriteString("volatile ")
		p.ref(b, t.Type)
	case *btf.Restrict:
		b.WriteString("restrict ")
		p.ref(b, t.Type)
	case *btf.TypeTag:
		fmt.Fprintf(b, "tag %q ", t.Value)
		p.ref(b, t.Type)
	case *btf.Typedef:
		b.WriteString("typedef")
		tags(b, t.Tags)
		b.WriteByte(' ')
		p.ref(b, t.Type)
	case *btf.Struct:
		fmt.Fprintf(b, "struct %d", t.Size)
		tags(b, t.Tags)
		p.members(b, t.Members)
	case *btf.Union:
		fmt.Fprintf(b, "union %d", t.Size)
		tags(b, t.Tags)
		p.members(b, t.Members)
	case *btf.Enum:
		fmt.Fprintf(b, "enum %d", t.Size)
		if t.Signed {
			b.WriteString(" signed")
		}
		b.WriteString(" {")
		for i, v := range t.Values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(" " + fieldName(v.Name) + " = ")
			if t.Signed {
				b.WriteString(strconv.FormatInt(int64(v.Value), 10))
			} else {
				b.WriteString(strconv.FormatUint(v.Value, 10))
			}
		}
		b.WriteString(" }")
	case *btf.FuncProto:
		b.WriteString("func(")
		for i, prm := range t.Params {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(fieldName(prm.Name) + ": ")
			p.ref(b, prm.Type)
		}
		b.WriteString(") ")
		p.ref(b, t.Return)
	case *btf.Func:
		fmt.Fprintf(b, "function %d", t.Linkage)
		tags(b, t.Tags)
		if t.ParamTags != nil {
			b.WriteString(" params(")
			for i, list := range t.ParamTags {
				if i > 0 {
					b.WriteByte(',')
				}
				tags(b, list)
			}
			b.WriteByte(')')
		}
		b.WriteByte(' ')
		p.ref(b, t.Type)
	case *btf.Var:
		fmt.Fprintf(b, "var %d", t.Linkage)
		tags(b, t.Tags)
		b.WriteByte(' ')
		p.ref(b, t.Type)
	}
}

func fieldName(name string) string {
	if name == "" || !isLetter(name[0]) {
		return strconv.Quote(name)
	}
	return quoteName(name)
}

func isLetter(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func tags(b *strings.Builder, list []string) {
	if len(list) == 0 {
		return
	}
	b.WriteString(" tags(")
	for i, t := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(t))
	}
	b.WriteByte(')')
}

func (p *typePrinter) members(b *strings.Builder, list []btf.Member) {
	b.WriteString(" {")
	for i, m := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(" " + fieldName(m.Name) + ": ")
		p.ref(b, m.Type)
		fmt.Fprintf(b, " @%d", m.Offset/8)
		if m.Offset%8 != 0 {
			fmt.Fprintf(b, ".%d", m.Offset%8)
		}
		if m.BitfieldSize != 0 {
			fmt.Fprintf(b, ":%d", m.BitfieldSize)
		}
		tags(b, m.Tags)
	}
	b.WriteString(" }")
}

// underlying returns t without typedefs and qualifiers, nil when there is no
// end to them.
func underlying(t btf.Type) btf.Type {
	for range 32 {
		switch u := t.(type) {
		case *btf.Typedef:
			t = u.Type
		case *btf.Const:
			t = u.Type
		case *btf.Volatile:
			t = u.Type
		case *btf.Restrict:
			t = u.Type
		case *btf.TypeTag:
			t = u.Type
		default:
			return t
		}
	}
	return nil
}

// A Step is what one element of a path through a type leads to.
type Step struct {
	Name string   // of the member; "" for an array element
	Type btf.Type // of the member or element
	Bit  uint64   // its offset within what holds it, in bits
	// BitSize is the width of a bit field, 0 for anything else.
	BitSize uint32
}

// WalkPath follows a path of member and element indices, as in a [FieldRef],
// from t. The error says at which element it leads nowhere.
func WalkPath(t btf.Type, path []int) ([]Step, error) {
	steps := make([]Step, 0, len(path))
	for i, n := range path {
		var members []btf.Member
		var name string
		switch u := underlying(t).(type) {
		case *btf.Struct:
			members, name = u.Members, "struct "+u.Name
		case *btf.Union:
			members, name = u.Members, "union "+u.Name
		case *btf.Array:
			// One past the last, and any index of a flexible array, may be
			// spoken of; negative ones may not.
			if n < 0 || u.Nelems > 0 && n > int(u.Nelems) {
				return steps, fmt.Errorf("element %d of the path: an array of %d has no element %d", i+1, u.Nelems, n)
			}
			size, err := btf.Sizeof(u.Type)
			if err != nil {
				return steps, fmt.Errorf("element %d of the path: the size of the array's elements is not known", i+1)
			}
			steps = append(steps, Step{Type: u.Type, Bit: uint64(n) * uint64(size) * 8})
			t = u.Type
			continue
		default:
			return steps, fmt.Errorf("element %d of the path: %T has no members", i+1, u)
		}
		if n < 0 || n >= len(members) {
			return steps, fmt.Errorf("element %d of the path: %s has %d members, none is number %d", i+1, name, len(members), n)
		}
		m := members[n]
		steps = append(steps, Step{Name: m.Name, Type: m.Type, Bit: uint64(m.Offset), BitSize: uint32(m.BitfieldSize)})
		t = m.Type
	}
	return steps, nil
}

// PathString writes a path as people do, e.g. ".mm.start_code" or ".comm[3]";
// it is empty when the path leads nowhere.
func PathString(t btf.Type, path []int) string {
	if e, ok := underlying(t).(*btf.Enum); ok && len(path) == 1 && path[0] >= 0 && path[0] < len(e.Values) {
		return e.Values[path[0]].Name
	}
	steps, err := WalkPath(t, path)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for i, s := range steps {
		switch {
		case s.Name != "":
			b.WriteString("." + s.Name)
		case isArrayStep(t, steps, i):
			fmt.Fprintf(&b, "[%d]", path[i])
		}
	}
	return b.String()
}

func isArrayStep(t btf.Type, steps []Step, i int) bool {
	if i > 0 {
		t = steps[i-1].Type
	}
	_, ok := underlying(t).(*btf.Array)
	return ok
}
