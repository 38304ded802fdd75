package object

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// typeCopier copies the part of a graph of types that an object needs. The
// originals are often the kernel's, shared with others and connected to
// thousands of types; they are neither changed nor dragged in.
//
// Full copies (signatures, keys, values, variables) keep all of a type, save
// that a member's pointer to a named struct leads to a forward declaration,
// as in clang's objects. Trimmed copies (CO-RE relocations) keep what loaders
// match by: names, kinds, sizes, and the members that a path goes through.
type typeCopier struct {
	full    map[fullKey]btf.Type
	trimmed map[btf.Type]btf.Type
	used    map[btf.Type]map[int]bool // members or enumerators that paths go through
	depth   int

	// Equal copies are made one, so that the object holds each type once.
	equal map[string]btf.Type
	ids   map[btf.Type]uint32
	align map[btf.Type]int
}

type fullKey struct {
	typ    btf.Type
	inside bool // of a member: pointers to named structs are cut
}

func newTypeCopier() *typeCopier {
	return &typeCopier{
		full:    make(map[fullKey]btf.Type),
		trimmed: make(map[btf.Type]btf.Type),
		used:    make(map[btf.Type]map[int]bool),
		equal:   make(map[string]btf.Type),
		ids:     make(map[btf.Type]uint32),
		align:   make(map[btf.Type]int),
	}
}

// intern returns the first copy that was equal to t. Copies that are part of
// a cycle are equal to themselves alone.
//
// It stands in for the deduplication of btf.Builder, which overlooks the
// width of bit-fields and does not end for struct s { struct s (*f)(void); }.
func (c *typeCopier) intern(t btf.Type) btf.Type {
	key := make([]byte, 0, 64)
	text := func(s string) { key = append(append(key, s...), 0) }
	number := func(n uint64) { key = binary.AppendUvarint(key, n) }
	ref := func(t btf.Type) {
		if _, ok := t.(*btf.Void); ok {
			number(0)
			return
		}
		id, ok := c.ids[t]
		if !ok {
			id = uint32(len(c.ids) + 1)
			c.ids[t] = id
		}
		number(uint64(id))
	}
	tags := func(tags []string) {
		number(uint64(len(tags)))
		for _, s := range tags {
			text(s)
		}
	}
	members := func(members []btf.Member) {
		for _, m := range members {
			text(m.Name)
			ref(m.Type)
			number(uint64(m.Offset))
			number(uint64(m.BitfieldSize))
			tags(m.Tags)
		}
	}
	text(t.TypeName())
	switch t := t.(type) {
	case *btf.Int:
		key = append(key, 'i', byte(t.Encoding))
		number(uint64(t.Size))
	case *btf.Float:
		key = append(key, 'f')
		number(uint64(t.Size))
	case *btf.Fwd:
		key = append(key, 'w', byte(t.Kind))
	case *btf.Enum:
		key = append(key, 'e')
		if t.Signed {
			key = append(key, 's')
		}
		number(uint64(t.Size))
		for _, v := range t.Values {
			text(v.Name)
			number(v.Value)
		}
	case *btf.Pointer:
		key = append(key, 'p')
		ref(t.Target)
	case *btf.Array:
		key = append(key, 'a')
		ref(t.Type)
		ref(t.Index)
		number(uint64(t.Nelems))
	case *btf.Struct:
		key = append(key, 's')
		number(uint64(t.Size))
		tags(t.Tags)
		members(t.Members)
	case *btf.Union:
		key = append(key, 'u')
		number(uint64(t.Size))
		tags(t.Tags)
		members(t.Members)
	case *btf.Typedef:
		key = append(key, 't')
		ref(t.Type)
		tags(t.Tags)
	case *btf.Const:
		key = append(key, 'c')
		ref(t.Type)
	case *btf.Volatile:
		key = append(key, 'v')
		ref(t.Type)
	case *btf.Restrict:
		key = append(key, 'r')
		ref(t.Type)
	case *btf.TypeTag:
		key = append(key, 'g')
		text(t.Value)
		ref(t.Type)
	case *btf.FuncProto:
		key = append(key, 'o')
		ref(t.Return)
		for _, p := range t.Params {
			text(p.Name)
			ref(p.Type)
		}
	default:
		return t
	}
	if first, ok := c.equal[string(key)]; ok {
		return first
	}
	c.equal[string(key)] = t
	return t
}

// maxTypeDepth bounds recursion; the chains of C types are far shorter.
const maxTypeDepth = 2000

var errTypeDepth = fmt.Errorf("types nested more than %d deep", maxTypeDepth)

// next returns what t qualifies, or nil when t is no typedef or qualifier.
func next(t btf.Type) btf.Type {
	switch t := t.(type) {
	case *btf.Typedef:
		return t.Type
	case *btf.Const:
		return t.Type
	case *btf.Volatile:
		return t.Type
	case *btf.Restrict:
		return t.Type
	case *btf.TypeTag:
		return t.Type
	}
	return nil
}

// underlying skips typedefs and qualifiers.
func underlying(t btf.Type) btf.Type {
	for range maxTypeDepth {
		n := next(t)
		if n == nil {
			return t
		}
		t = n
	}
	return t
}

// forward returns the forward declaration that stands for what a member's
// pointer points to, or nil when it has to be kept whole.
func (c *typeCopier) forward(target btf.Type) btf.Type {
	t := target
	for range maxTypeDepth {
		if _, ok := t.(*btf.TypeTag); ok {
			return nil // the kernel looks at what a __kptr points to
		}
		n := next(t)
		if n == nil {
			break
		}
		t = n
	}
	name, kind := t.TypeName(), btf.FwdStruct
	switch t.(type) {
	case *btf.Struct:
	case *btf.Union:
		kind = btf.FwdUnion
	default:
		return nil
	}
	if _, whole := c.full[fullKey{typ: t}]; whole || name == "" {
		return nil
	}
	return c.requalify(target, c.intern(&btf.Fwd{Name: name, Kind: kind}))
}

// copyKfunc copies the type of a kernel function. What its pointers point to
// keeps its name and kind, but no members: libbpf compares the kinds with the
// kernel's (bpf_core_types_are_compat), and takes no forward declaration for a
// struct.
func (c *typeCopier) copyKfunc(t btf.Type) (btf.Type, error) {
	fn, ok := t.(*btf.Func)
	if !ok {
		return c.copyFull(t, false)
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return c.copyFull(t, false)
	}
	part := func(t btf.Type) (btf.Type, error) {
		if p, ok := underlying(t).(*btf.Pointer); ok {
			target := underlying(p.Target)
			fwd, _ := target.(*btf.Fwd)
			_, isStruct := target.(*btf.Struct)
			_, isUnion := target.(*btf.Union)
			switch {
			case isStruct, fwd != nil && fwd.Kind == btf.FwdStruct:
				return c.intern(&btf.Pointer{Target: c.intern(&btf.Struct{Name: target.TypeName()})}), nil
			case isUnion, fwd != nil:
				return c.intern(&btf.Pointer{Target: c.intern(&btf.Union{Name: target.TypeName()})}), nil
			}
		}
		return c.copyFull(t, true)
	}
	n := &btf.FuncProto{Params: slices.Clone(proto.Params)}
	var err error
	if n.Return, err = part(proto.Return); err != nil {
		return nil, err
	}
	for i, p := range proto.Params {
		if n.Params[i].Type, err = part(p.Type); err != nil {
			return nil, err
		}
	}
	return &btf.Func{Name: fn.Name, Type: c.intern(n), Linkage: fn.Linkage, Tags: fn.Tags, ParamTags: fn.ParamTags}, nil
}

// requalify puts end below the typedefs and qualifiers of t.
func (c *typeCopier) requalify(t, end btf.Type) btf.Type {
	switch t := t.(type) {
	case *btf.Typedef:
		return c.intern(&btf.Typedef{Name: t.Name, Type: c.requalify(t.Type, end)})
	case *btf.Const:
		return c.intern(&btf.Const{Type: c.requalify(t.Type, end)})
	case *btf.Volatile:
		return c.intern(&btf.Volatile{Type: c.requalify(t.Type, end)})
	case *btf.Restrict:
		return c.intern(&btf.Restrict{Type: c.requalify(t.Type, end)})
	}
	return end
}

// copyFull copies t and all it is made of.
func (c *typeCopier) copyFull(t btf.Type, inside bool) (btf.Type, error) {
	if c.depth++; c.depth > maxTypeDepth {
		return nil, errTypeDepth
	}
	defer func() { c.depth-- }()
	key := fullKey{t, inside}
	switch t.(type) {
	case nil:
		return nil, errors.New("a part of a type is missing")
	case *btf.Void:
		return &btf.Void{}, nil
	case *btf.Struct, *btf.Union, *btf.Enum, *btf.Int, *btf.Float, *btf.Fwd:
		key.inside = false // the same copy serves both
	}
	if done, ok := c.full[key]; ok {
		return done, nil
	}
	n, err := c.copyFullParts(t, key)
	if err != nil {
		return nil, err
	}
	n = c.intern(n)
	c.full[key] = n
	return n, nil
}

func (c *typeCopier) copyFullParts(t btf.Type, key fullKey) (btf.Type, error) {
	inside := key.inside
	// put registers a copy before its parts are copied, which ends cycles.
	put := func(n btf.Type) { c.full[key] = n }
	sub := func(to *btf.Type, from btf.Type, inside bool) error {
		n, err := c.copyFull(from, inside)
		*to = n
		return err
	}
	switch t := t.(type) {
	case *btf.Int:
		n := *t
		put(&n)
		return &n, nil
	case *btf.Float:
		n := *t
		put(&n)
		return &n, nil
	case *btf.Fwd:
		n := *t
		put(&n)
		return &n, nil
	case *btf.Enum:
		n := *t
		n.Values = append([]btf.EnumValue(nil), t.Values...)
		put(&n)
		return &n, nil
	case *btf.Pointer:
		n := &btf.Pointer{}
		put(n)
		if inside {
			if n.Target = c.forward(t.Target); n.Target != nil {
				return n, nil
			}
		}
		return n, sub(&n.Target, t.Target, inside)
	case *btf.Array:
		n := &btf.Array{Nelems: t.Nelems}
		put(n)
		if err := sub(&n.Index, t.Index, inside); err != nil {
			return nil, err
		}
		return n, sub(&n.Type, t.Type, inside)
	case *btf.Struct:
		n := &btf.Struct{Name: t.Name, Size: t.Size, Tags: t.Tags}
		put(n)
		var err error
		n.Members, err = c.copyMembers(t.Members)
		return n, err
	case *btf.Union:
		n := &btf.Union{Name: t.Name, Size: t.Size, Tags: t.Tags}
		put(n)
		var err error
		n.Members, err = c.copyMembers(t.Members)
		return n, err
	case *btf.Typedef:
		n := &btf.Typedef{Name: t.Name, Tags: t.Tags}
		put(n)
		return n, sub(&n.Type, t.Type, inside)
	case *btf.Const:
		n := &btf.Const{}
		put(n)
		return n, sub(&n.Type, t.Type, inside)
	case *btf.Volatile:
		n := &btf.Volatile{}
		put(n)
		return n, sub(&n.Type, t.Type, inside)
	case *btf.Restrict:
		n := &btf.Restrict{}
		put(n)
		return n, sub(&n.Type, t.Type, inside)
	case *btf.TypeTag:
		n := &btf.TypeTag{Value: t.Value}
		put(n)
		return n, sub(&n.Type, t.Type, inside)
	case *btf.FuncProto:
		n := &btf.FuncProto{Params: make([]btf.FuncParam, len(t.Params))}
		put(n)
		for i, p := range t.Params {
			n.Params[i].Name = p.Name
			if err := sub(&n.Params[i].Type, p.Type, inside); err != nil {
				return nil, err
			}
		}
		return n, sub(&n.Return, t.Return, inside)
	case *btf.Func:
		n := &btf.Func{Name: t.Name, Linkage: t.Linkage, Tags: t.Tags, ParamTags: t.ParamTags}
		put(n)
		return n, sub(&n.Type, t.Type, inside)
	case *btf.Var:
		n := &btf.Var{Name: t.Name, Linkage: t.Linkage, Tags: t.Tags}
		put(n)
		return n, sub(&n.Type, t.Type, inside)
	}
	return nil, fmt.Errorf("a type of kind %T cannot be written", t)
}

func (c *typeCopier) copyMembers(members []btf.Member) ([]btf.Member, error) {
	out := make([]btf.Member, len(members))
	for i, m := range members {
		out[i] = m
		var err error
		if out[i].Type, err = c.copyFull(m.Type, true); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// A coreStep is one index of an access path: a member or an enumerator of typ,
// or, when typ is nil, an element of an array.
type coreStep struct {
	typ   btf.Type
	index int
}

// parseAccess splits an access path.
func parseAccess(access string) ([]int, error) {
	parts := strings.Split(access, ":")
	if len(parts) > 64 { // BPF_CORE_SPEC_MAX_LEN
		return nil, fmt.Errorf("access path %q has more than 64 parts", access)
	}
	path := make([]int, len(parts))
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("access path %q is not of the form 0:1:2", access)
		}
		path[i] = int(n)
	}
	return path, nil
}

// coreSteps follows the path of a relocation through its type.
func coreSteps(r *CORE) ([]coreStep, error) {
	path, err := parseAccess(r.Access)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Kind > CORETypeMatches:
		return nil, fmt.Errorf("kind %d of CO-RE relocation is not known", r.Kind)
	case r.Kind == COREEnumExists, r.Kind == COREEnumValue:
		e, ok := underlying(r.Type).(*btf.Enum)
		if !ok {
			return nil, fmt.Errorf("CO-RE relocation of an enumerator of %v, which is no enum", r.Type)
		}
		if len(path) != 1 || path[0] >= len(e.Values) {
			return nil, fmt.Errorf("enum %q has no enumerator %s", e.Name, r.Access)
		}
		return []coreStep{{e, path[0]}}, nil
	case r.Kind >= CORETypeLocal:
		if r.Access != "0" {
			return nil, fmt.Errorf("CO-RE relocation of a type with access path %q, must be 0", r.Access)
		}
		return nil, nil
	}
	steps := []coreStep{{index: path[0]}}
	t := r.Type
	for _, i := range path[1:] {
		t = underlying(t)
		var members []btf.Member
		switch s := t.(type) {
		case *btf.Struct:
			members = s.Members
		case *btf.Union:
			members = s.Members
		case *btf.Array:
			steps = append(steps, coreStep{index: i})
			t = s.Type
			continue
		default:
			return nil, fmt.Errorf("access path %q leads into %v, which has no members", r.Access, t)
		}
		if i >= len(members) {
			return nil, fmt.Errorf("access path %q: %v has no member %d", r.Access, t, i)
		}
		steps = append(steps, coreStep{t, i})
		t = members[i].Type
	}
	return steps, nil
}

// isWhole reports whether a relocation needs all of its type: the identifier
// is used to show values, or the whole type is compared.
func (r *CORE) isWhole() bool { return r.Kind == CORETypeLocal || r.Kind == CORETypeMatches }

// use notes what a relocation needs of its type. Types that are needed in full
// must have been copied before.
func (c *typeCopier) use(r *CORE) error {
	if r.Type == nil {
		return errors.New("CO-RE relocation without a type")
	}
	steps, err := coreSteps(r)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s.typ == nil {
			continue
		}
		if c.used[s.typ] == nil {
			c.used[s.typ] = make(map[int]bool)
		}
		c.used[s.typ][s.index] = true
	}
	return nil
}

// relocate returns the copy of a relocation's type and its path there. All
// relocations must have been noted by use before.
func (c *typeCopier) relocate(r *CORE) (btf.Type, string, error) {
	if r.isWhole() {
		t, err := c.copyFull(r.Type, false)
		return t, r.Access, err
	}
	t, err := c.copyTrimmed(r.Type)
	if err != nil {
		return nil, "", err
	}
	steps, err := coreSteps(r)
	if err != nil {
		return nil, "", err
	}
	if len(steps) == 0 {
		return t, r.Access, nil
	}
	var b strings.Builder
	for i, s := range steps {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strconv.Itoa(c.newIndex(s)))
	}
	return t, b.String(), nil
}

// newIndex counts the members that are kept before that of s.
func (c *typeCopier) newIndex(s coreStep) int {
	if s.typ == nil {
		return s.index
	}
	if _, whole := c.full[fullKey{typ: s.typ}]; whole {
		return s.index
	}
	n := 0
	for i := range s.index {
		if c.used[s.typ][i] {
			n++
		}
	}
	return n
}

// copyTrimmed copies t without the members that no path goes through.
func (c *typeCopier) copyTrimmed(t btf.Type) (btf.Type, error) {
	if c.depth++; c.depth > maxTypeDepth {
		return nil, errTypeDepth
	}
	defer func() { c.depth-- }()
	switch t.(type) {
	case nil:
		return nil, errors.New("a part of a type is missing")
	case *btf.Void:
		return &btf.Void{}, nil
	case *btf.Struct, *btf.Union, *btf.Enum, *btf.Int, *btf.Float, *btf.Fwd:
		if whole, ok := c.full[fullKey{typ: t}]; ok {
			return whole, nil
		}
	}
	if done, ok := c.trimmed[t]; ok {
		return done, nil
	}
	n, err := c.copyTrimmedParts(t)
	if err != nil {
		return nil, err
	}
	n = c.intern(n)
	c.trimmed[t] = n
	return n, nil
}

func (c *typeCopier) copyTrimmedParts(t btf.Type) (btf.Type, error) {
	put := func(n btf.Type) { c.trimmed[t] = n }
	sub := func(to *btf.Type, from btf.Type) error {
		n, err := c.copyTrimmed(from)
		*to = n
		return err
	}
	switch t := t.(type) {
	case *btf.Struct:
		n := &btf.Struct{Name: t.Name, Size: t.Size}
		put(n)
		var err error
		n.Members, err = c.trimMembers(t, t.Members)
		return n, err
	case *btf.Union:
		n := &btf.Union{Name: t.Name, Size: t.Size}
		put(n)
		var err error
		n.Members, err = c.trimMembers(t, t.Members)
		return n, err
	case *btf.Enum:
		n := &btf.Enum{Name: t.Name, Size: t.Size, Signed: t.Signed}
		put(n)
		for i, v := range t.Values {
			// An enum without enumerators is no enum to the kernel.
			if c.used[t][i] || i == 0 && len(c.used[t]) == 0 {
				n.Values = append(n.Values, v)
			}
		}
		return n, nil
	case *btf.Int:
		n := *t
		put(&n)
		return &n, nil
	case *btf.Float:
		n := *t
		put(&n)
		return &n, nil
	case *btf.Fwd:
		n := *t
		put(&n)
		return &n, nil
	case *btf.Pointer:
		n := &btf.Pointer{}
		put(n)
		return n, sub(&n.Target, t.Target)
	case *btf.Array:
		n := &btf.Array{Nelems: t.Nelems}
		put(n)
		if err := sub(&n.Index, t.Index); err != nil {
			return nil, err
		}
		return n, sub(&n.Type, t.Type)
	case *btf.Typedef:
		n := &btf.Typedef{Name: t.Name}
		put(n)
		return n, sub(&n.Type, t.Type)
	case *btf.Const:
		n := &btf.Const{}
		put(n)
		return n, sub(&n.Type, t.Type)
	case *btf.Volatile:
		n := &btf.Volatile{}
		put(n)
		return n, sub(&n.Type, t.Type)
	case *btf.Restrict:
		n := &btf.Restrict{}
		put(n)
		return n, sub(&n.Type, t.Type)
	case *btf.TypeTag:
		// Tags say how pointers are used; loaders do not match by them.
		return c.copyTrimmed(t.Type)
	case *btf.FuncProto:
		n := &btf.FuncProto{Params: make([]btf.FuncParam, len(t.Params))}
		put(n)
		for i, p := range t.Params {
			n.Params[i].Name = p.Name
			if err := sub(&n.Params[i].Type, p.Type); err != nil {
				return nil, err
			}
		}
		return n, sub(&n.Return, t.Return)
	}
	return nil, fmt.Errorf("a type of kind %T cannot be written", t)
}

func (c *typeCopier) trimMembers(t btf.Type, members []btf.Member) ([]btf.Member, error) {
	var out []btf.Member
	for i, m := range members {
		if !c.used[t][i] {
			continue
		}
		n := btf.Member{Name: m.Name, Offset: m.Offset, BitfieldSize: m.BitfieldSize}
		var err error
		if n.Type, err = c.copyTrimmed(m.Type); err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// alignOf returns the natural alignment of t in bytes: 1, 2, 4 or 8.
func (c *typeCopier) alignOf(t btf.Type) int {
	t = underlying(t)
	if n, ok := c.align[t]; ok {
		return n
	}
	c.align[t] = 1 // for a type that contains itself, which none does in C
	n := 1
	switch t := t.(type) {
	case *btf.Struct:
		for _, m := range t.Members {
			n = max(n, c.alignOf(m.Type))
		}
	case *btf.Union:
		for _, m := range t.Members {
			n = max(n, c.alignOf(m.Type))
		}
	case *btf.Array:
		n = c.alignOf(t.Type)
	default:
		size, err := btf.Sizeof(t)
		if err != nil {
			size = 8
		}
		n = alignFor(size)
	}
	c.align[t] = n
	return n
}

// alignFor returns the alignment of a scalar of size bytes.
func alignFor(size int) int {
	for n := 8; n > 1; n /= 2 {
		if size >= n {
			return n
		}
	}
	return 1
}
