package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target/typeindex"
)

// CO-RE relocations are resolved here rather than by package ebpf, which
// decodes the BTF of the kernel and all its modules for them (tens of
// milliseconds), never adapts the width of a load, and does not say which
// field it did not find. The rules are libbpf's (Documentation/bpf/llvm_reloc.rst
// for the records).

// corePoison is what libbpf and the kernel put where a relocation has no
// answer: the verifier refuses it, should the program ever get there.
const corePoison = 0xbad2310

var hostBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// coreDepth bounds how deep types are compared.
const coreDepth = 32

// A coreFix is what a relocation puts into its instruction.
type coreFix struct {
	local, target uint64
	// loose: the instruction need not hold the local value.
	loose bool
	// poison says in words why the target has no answer; "" where it has.
	poison string
	// sizes of a field, in bytes, where the instruction may have to be of
	// another width; both 0 otherwise.
	localSize, targetSize int
	// fixed: widths differ, and a load cannot be adapted.
	fixed bool
}

// A relocator resolves the CO-RE relocations of an object against the types of
// a kernel.
type relocator struct {
	types      func() (*typeindex.Types, error)
	localID    func(btf.Type) (btf.TypeID, error)
	candidates map[string][]btf.Type
}

// resolve computes a relocation.
func (r *relocator) resolve(c *object.CORE) (coreFix, error) {
	if c.Kind == object.CORETypeLocal {
		id, err := r.localID(c.Type)
		return coreFix{target: uint64(id), loose: true}, err
	}
	name := essentialName(c.Type.TypeName())
	if name == "" {
		return coreFix{}, errors.New("a CO-RE relocation of a type without a name")
	}
	local, err := parseAccess(c)
	if err != nil {
		return coreFix{}, err
	}
	candidates, err := r.find(c.Type, name)
	if err != nil {
		return coreFix{}, err
	}
	var best *coreFix
	for _, t := range candidates {
		fix, ok, err := r.match(c, local, t)
		if err != nil {
			return coreFix{}, err
		}
		if !ok {
			continue
		}
		if best == nil {
			best = &fix
		} else if best.target != fix.target {
			return coreFix{}, fmt.Errorf("the kernel has several types called %s, and they differ in what %s is", name, local.describe(c))
		}
	}
	if best != nil {
		return *best, nil
	}
	fix := coreFix{loose: true}
	switch c.Kind {
	case object.COREFieldExists, object.CORETypeExists, object.COREEnumExists, object.CORETypeMatches, object.CORETypeSize:
	default:
		fix.poison = fmt.Sprintf("the kernel has no %s", local.describe(c))
	}
	return fix, nil
}

// find returns the kernel's types that a local type can stand for: of the
// kernel itself or, where it has none, of its modules.
func (r *relocator) find(local btf.Type, name string) ([]btf.Type, error) {
	kind := coreKindOf(local)
	if kind == 0 {
		return nil, fmt.Errorf("a CO-RE relocation of %s, which is no type that has a name in C", name)
	}
	key := kind.String() + " " + name
	if found, ok := r.candidates[key]; ok {
		return found, nil
	}
	types, err := r.types()
	if err != nil {
		return nil, err
	}
	var found []btf.Type
	inModules := false
	for e := range types.Names(kind, name) {
		if essentialName(e.Name) != name {
			continue
		}
		if e.Module != "" && len(found) > 0 && !inModules {
			break
		}
		inModules = e.Module != ""
		t, err := types.ByID(e.Module, e.ID)
		if err != nil {
			return nil, err
		}
		found = append(found, t)
	}
	if r.candidates == nil {
		r.candidates = make(map[string][]btf.Type)
	}
	r.candidates[key] = found
	return found, nil
}

func coreKindOf(t btf.Type) typeindex.Kind {
	switch t.(type) {
	case *btf.Struct:
		return typeindex.KindStruct
	case *btf.Union:
		return typeindex.KindUnion
	case *btf.Enum:
		return typeindex.KindEnum
	case *btf.Typedef:
		return typeindex.KindTypedef
	case *btf.Int:
		return typeindex.KindInt
	case *btf.Float:
		return typeindex.KindFloat
	case *btf.Fwd:
		return typeindex.KindStruct | typeindex.KindUnion
	case *btf.Func:
		return typeindex.KindFunc
	}
	return 0
}

// essentialName drops a flavour: what follows the last triple underscore.
func essentialName(name string) string {
	if i := strings.LastIndex(name, "___"); i > 0 {
		return name[:i]
	}
	return name
}

// A coreStep is one step of an access: a member by name, or an index.
type coreStep struct {
	name  string // of a member or enumerator; "" for an index
	typ   btf.Type
	index int
	bits  int // width of a bit-field, else 0
}

// A coreSpec is where an access ends.
type coreSpec struct {
	steps  []coreStep
	offset uint64 // bits
	typ    btf.Type
	bits   int // width of a bit-field, else 0
}

// describe names what is accessed for people.
func (s *coreSpec) describe(c *object.CORE) string {
	what := "type"
	switch t := c.Type.(type) {
	case *btf.Struct:
		what = "struct"
	case *btf.Union:
		what = "union"
	case *btf.Enum:
		what = "enum"
	case *btf.Fwd:
		what = t.Kind.String()
	}
	what += " " + essentialName(c.Type.TypeName())
	switch {
	case c.Kind == object.COREEnumExists || c.Kind == object.COREEnumValue:
		if len(s.steps) == 1 {
			return fmt.Sprintf("enumerator %s of %s", essentialName(s.steps[0].name), what)
		}
	case s != nil && len(s.steps) > 1:
		var b strings.Builder
		for _, st := range s.steps[1:] {
			if st.name == "" {
				fmt.Fprintf(&b, "[%d]", st.index)
				continue
			}
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(st.name)
		}
		return fmt.Sprintf("field %s in %s", b.String(), what)
	}
	return what
}

func isTypeKind(k object.COREKind) bool {
	switch k {
	case object.CORETypeLocal, object.CORETypeTarget, object.CORETypeExists, object.CORETypeSize, object.CORETypeMatches:
		return true
	}
	return false
}

// parseAccess follows the access of a relocation through its own type.
func parseAccess(c *object.CORE) (*coreSpec, error) {
	var path []int
	for part := range strings.SplitSeq(c.Access, ":") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || len(path) == 64 {
			return nil, fmt.Errorf("a CO-RE relocation of %s has the access %q, which is none", c.Type.TypeName(), c.Access)
		}
		path = append(path, n)
	}
	bad := fmt.Errorf("a CO-RE relocation of %s has the access %q, which does not fit the type", c.Type.TypeName(), c.Access)
	switch {
	case isTypeKind(c.Kind):
		if len(path) != 1 || path[0] != 0 {
			return nil, bad
		}
		return &coreSpec{typ: c.Type}, nil
	case c.Kind == object.COREEnumExists || c.Kind == object.COREEnumValue:
		e, ok := bare(c.Type).(*btf.Enum)
		if !ok || len(path) != 1 || path[0] >= len(e.Values) {
			return nil, bad
		}
		return &coreSpec{typ: c.Type, steps: []coreStep{{name: e.Values[path[0]].Name, typ: e, index: path[0]}}}, nil
	}
	t := bare(c.Type)
	size, err := btf.Sizeof(t)
	if err != nil {
		return nil, bad
	}
	s := &coreSpec{typ: t, offset: uint64(path[0]) * uint64(size) * 8, steps: []coreStep{{typ: t, index: path[0]}}}
	for i, n := range path[1:] {
		switch t := bare(s.typ).(type) {
		case *btf.Struct, *btf.Union:
			members := membersOf(t)
			if n >= len(members) {
				return nil, bad
			}
			m := members[n]
			s.offset += uint64(m.Offset)
			s.typ, s.bits = m.Type, int(m.BitfieldSize)
			if m.Name != "" {
				s.steps = append(s.steps, coreStep{name: m.Name, typ: m.Type, index: n, bits: s.bits})
			} else if i == len(path)-2 {
				return nil, bad
			}
		case *btf.Array:
			size, err := btf.Sizeof(t.Type)
			if err != nil {
				return nil, bad
			}
			s.offset += uint64(n) * uint64(size) * 8
			s.typ, s.bits = t.Type, 0
			s.steps = append(s.steps, coreStep{typ: t.Type, index: n})
		default:
			return nil, bad
		}
	}
	return s, nil
}

// bare is a type without typedefs and qualifiers.
func bare(t btf.Type) btf.Type {
	for range coreDepth * 8 {
		switch q := t.(type) {
		case *btf.Typedef:
			t = q.Type
		case *btf.Const:
			t = q.Type
		case *btf.Volatile:
			t = q.Type
		case *btf.Restrict:
			t = q.Type
		case *btf.TypeTag:
			t = q.Type
		default:
			return t
		}
	}
	return t
}

func membersOf(t btf.Type) []btf.Member {
	switch t := t.(type) {
	case *btf.Struct:
		return t.Members
	case *btf.Union:
		return t.Members
	}
	return nil
}

// match computes a relocation against one type of the kernel. ok is false
// where the type has no such thing.
func (r *relocator) match(c *object.CORE, local *coreSpec, target btf.Type) (fix coreFix, ok bool, err error) {
	switch c.Kind {
	case object.CORETypeMatches:
		return coreFix{local: 1, target: 1}, r.matches(c.Type, target, false, 0), nil
	case object.CORETypeExists:
		return coreFix{local: 1, target: 1}, r.compatible(c.Type, target, 0), nil
	case object.CORETypeSize:
		n, err1 := btf.Sizeof(c.Type)
		m, err2 := btf.Sizeof(target)
		return coreFix{local: uint64(n), target: uint64(m)}, r.compatible(c.Type, target, 0) && err1 == nil && err2 == nil, nil
	case object.CORETypeTarget:
		if !r.compatible(c.Type, target, 0) {
			return fix, false, nil
		}
		types, err := r.types()
		if err != nil {
			return fix, false, err
		}
		_, id, ok := types.ID(target)
		return coreFix{target: uint64(id), loose: true}, ok, nil
	case object.COREEnumExists, object.COREEnumValue:
		return enumFix(c, local, target)
	}
	spec, ok := r.follow(local, target)
	if !ok {
		return fix, false, nil
	}
	if c.Kind == object.COREFieldExists {
		return coreFix{local: 1, target: 1}, true, nil
	}
	l, err := fieldFix(c.Kind, local)
	if err != nil {
		return fix, false, fmt.Errorf("a CO-RE relocation of %s: %w", local.describe(c), err)
	}
	t, err := fieldFix(c.Kind, spec)
	if err != nil {
		return fix, false, fmt.Errorf("%s of the kernel: %w", local.describe(c), err)
	}
	fix = coreFix{local: l.value, target: t.value, loose: l.loose, localSize: l.size, targetSize: t.size}
	if l.size == 0 || t.size == 0 {
		fix.localSize, fix.targetSize = 0, 0
	}
	fix.fixed = fix.localSize != fix.targetSize && !canWiden(local.typ, spec.typ)
	return fix, true, nil
}

// canWiden: a load of another width reads the same value when both are
// pointers or unsigned numbers.
func canWiden(local, target btf.Type) bool {
	switch l := bare(local).(type) {
	case *btf.Pointer:
		_, ok := bare(target).(*btf.Pointer)
		return ok
	case *btf.Int:
		t, ok := bare(target).(*btf.Int)
		return ok && l.Encoding != btf.Signed && t.Encoding != btf.Signed
	}
	return false
}

func enumFix(c *object.CORE, local *coreSpec, target btf.Type) (fix coreFix, ok bool, err error) {
	e, ok := bare(target).(*btf.Enum)
	if !ok {
		return fix, false, nil
	}
	want := local.steps[0]
	for _, v := range e.Values {
		if essentialName(v.Name) != essentialName(want.name) {
			continue
		}
		if c.Kind == object.COREEnumExists {
			return coreFix{local: 1, target: 1}, true, nil
		}
		return coreFix{local: want.typ.(*btf.Enum).Values[want.index].Value, target: v.Value}, true, nil
	}
	return fix, false, nil
}

// follow walks the steps of a local access through a type of the kernel.
func (r *relocator) follow(local *coreSpec, target btf.Type) (*coreSpec, bool) {
	t := bare(target)
	s := &coreSpec{typ: t}
	for i, step := range local.steps {
		if step.name != "" {
			m, off, ok := findMember(bare(s.typ), step.name, 0)
			if !ok || !r.fieldsCompatible(step.typ, m.Type, 0) {
				return nil, false
			}
			s.offset += off
			s.typ, s.bits = m.Type, int(m.BitfieldSize)
			continue
		}
		if i > 0 {
			a, ok := bare(s.typ).(*btf.Array)
			// An array of no elements at the end of a struct has as many as one likes.
			if !ok || a.Nelems > 0 && uint32(step.index) >= a.Nelems && a.Nelems > 1 {
				return nil, false
			}
			s.typ, s.bits = a.Type, 0
		}
		size, err := btf.Sizeof(s.typ)
		if err != nil {
			return nil, false
		}
		s.offset += uint64(step.index) * uint64(size) * 8
	}
	return s, true
}

// findMember finds a member by name, in anonymous structs and unions too.
func findMember(t btf.Type, name string, depth int) (btf.Member, uint64, bool) {
	if depth > coreDepth {
		return btf.Member{}, 0, false
	}
	for _, m := range membersOf(t) {
		if m.Name == name {
			return m, uint64(m.Offset), true
		}
		if m.Name == "" {
			if found, off, ok := findMember(bare(m.Type), name, depth+1); ok {
				return found, uint64(m.Offset) + off, true
			}
		}
	}
	return btf.Member{}, 0, false
}

// fieldsCompatible reports whether a field of one type can be read as another:
// kinds count, names and sizes do not.
func (r *relocator) fieldsCompatible(local, target btf.Type, depth int) bool {
	if depth > coreDepth {
		return false
	}
	l, t := bare(local), bare(target)
	if isComposite(l) && isComposite(t) {
		return true
	}
	switch l := l.(type) {
	case *btf.Pointer:
		_, ok := t.(*btf.Pointer)
		return ok
	case *btf.Float:
		_, ok := t.(*btf.Float)
		return ok
	case *btf.Int:
		_, ok := t.(*btf.Int)
		return ok
	case *btf.Fwd, *btf.Enum:
		if !sameKind(l, t) {
			return false
		}
		a, b := essentialName(l.TypeName()), essentialName(t.TypeName())
		return a == "" || b == "" || a == b
	case *btf.Array:
		a, ok := t.(*btf.Array)
		return ok && r.fieldsCompatible(l.Type, a.Type, depth+1)
	}
	return false
}

func isComposite(t btf.Type) bool {
	switch t.(type) {
	case *btf.Struct, *btf.Union:
		return true
	}
	return false
}

func sameKind(a, b btf.Type) bool {
	switch a.(type) {
	case *btf.Struct:
		if f, ok := b.(*btf.Fwd); ok {
			return f.Kind == btf.FwdStruct
		}
		_, ok := b.(*btf.Struct)
		return ok
	case *btf.Union:
		if f, ok := b.(*btf.Fwd); ok {
			return f.Kind == btf.FwdUnion
		}
		_, ok := b.(*btf.Union)
		return ok
	case *btf.Fwd:
		if _, ok := b.(*btf.Fwd); ok {
			return true
		}
		return isComposite(b)
	}
	return coreKindOf(a) == coreKindOf(b) && coreKindOf(a) != 0
}

// compatible reports whether two types are of one shape: kinds and what
// functions take count, members and sizes do not.
func (r *relocator) compatible(local, target btf.Type, depth int) bool {
	if depth > coreDepth {
		return false
	}
	l, t := bare(local), bare(target)
	switch l := l.(type) {
	case *btf.Void:
		_, ok := t.(*btf.Void)
		return ok
	case *btf.Pointer:
		p, ok := t.(*btf.Pointer)
		return ok && r.compatible(l.Target, p.Target, depth+1)
	case *btf.Array:
		a, ok := t.(*btf.Array)
		return ok && r.compatible(l.Type, a.Type, depth+1)
	case *btf.FuncProto:
		p, ok := t.(*btf.FuncProto)
		if !ok || len(l.Params) != len(p.Params) {
			return false
		}
		for i := range l.Params {
			if !r.compatible(l.Params[i].Type, p.Params[i].Type, depth+1) {
				return false
			}
		}
		return r.compatible(l.Return, p.Return, depth+1)
	}
	return sameKind(l, t)
}

// matches reports whether a type of the kernel has all that the local one has:
// what bpf_core_type_matches asks for.
func (r *relocator) matches(local, target btf.Type, behindPointer bool, depth int) bool {
	if depth > coreDepth {
		return false
	}
	l, t := bare(local), bare(target)
	if a, b := essentialName(l.TypeName()), essentialName(t.TypeName()); a != "" && a != b {
		return false
	}
	switch l := l.(type) {
	case *btf.Void:
		_, ok := t.(*btf.Void)
		return ok
	case *btf.Fwd:
		return sameKind(l, t)
	case *btf.Enum:
		e, ok := t.(*btf.Enum)
		return ok && everyValue(l, e)
	case *btf.Struct, *btf.Union:
		if !sameKind(l, t) {
			return false
		}
		if behindPointer {
			return true
		}
		for _, m := range membersOf(l) {
			if m.Name == "" {
				continue
			}
			found, _, ok := findMember(t, m.Name, 0)
			if !ok || !r.matches(m.Type, found.Type, false, depth+1) {
				return false
			}
		}
		return true
	case *btf.Int:
		i, ok := t.(*btf.Int)
		return ok && l.Size == i.Size && (l.Encoding == btf.Signed) == (i.Encoding == btf.Signed)
	case *btf.Pointer:
		p, ok := t.(*btf.Pointer)
		return ok && r.matches(l.Target, p.Target, true, depth+1)
	case *btf.Array:
		a, ok := t.(*btf.Array)
		return ok && l.Nelems == a.Nelems && r.matches(l.Type, a.Type, behindPointer, depth+1)
	case *btf.FuncProto:
		p, ok := t.(*btf.FuncProto)
		if !ok || len(l.Params) != len(p.Params) {
			return false
		}
		for i := range l.Params {
			if !r.matches(l.Params[i].Type, p.Params[i].Type, behindPointer, depth+1) {
				return false
			}
		}
		return r.matches(l.Return, p.Return, behindPointer, depth+1)
	}
	return sameKind(l, t)
}

func everyValue(l, t *btf.Enum) bool {
	have := make(map[string]bool, len(t.Values))
	for _, v := range t.Values {
		have[essentialName(v.Name)] = true
	}
	for _, v := range l.Values {
		if !have[essentialName(v.Name)] {
			return false
		}
	}
	return true
}

type fieldValue struct {
	value uint64
	loose bool
	size  int // of the field, where a load may have to be of that width
}

// fieldFix is the value of a field relocation for one side.
func fieldFix(kind object.COREKind, s *coreSpec) (fieldValue, error) {
	size64, err := sizeOf(s.typ)
	if err != nil {
		return fieldValue{}, err
	}
	bytes := uint64(size64)
	off, bits := s.offset/8, bytes*8
	if s.bits > 0 {
		// The load that holds all of a bit-field, aligned to its width.
		bits = uint64(s.bits)
		if bytes == 0 {
			return fieldValue{}, errors.New("a bit-field of a type without a size")
		}
		off = s.offset / 8 / bytes * bytes
		for s.offset+bits-off*8 > bytes*8 {
			if bytes >= 8 {
				return fieldValue{}, errors.New("a bit-field that no load of 8 bytes can hold")
			}
			bytes *= 2
			off = s.offset / 8 / bytes * bytes
		}
	}
	v := fieldValue{loose: s.bits > 0}
	switch kind {
	case object.COREFieldOffset:
		v.value = off
		if s.bits == 0 {
			v.size = int(bytes)
		}
	case object.COREFieldSize:
		v.value = bytes
	case object.COREFieldSigned:
		v.loose = true
		switch t := bare(s.typ).(type) {
		case *btf.Int:
			v.value = boolValue(t.Encoding == btf.Signed)
		case *btf.Enum:
			v.value = boolValue(t.Signed)
		}
	case object.COREFieldLShift:
		v.loose = true
		if hostBigEndian {
			v.value = (8-bytes)*8 + (s.offset - off*8)
		} else {
			v.value = 64 - (s.offset + bits - off*8)
		}
	case object.COREFieldRShift:
		v.loose = true
		v.value = 64 - bits
	default:
		return v, fmt.Errorf("a CO-RE relocation of kind %d, which is not known", kind)
	}
	return v, nil
}

func boolValue(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// sizeOf is btf.Sizeof, with 0 for arrays of no elements.
func sizeOf(t btf.Type) (int, error) {
	n, err := btf.Sizeof(t)
	if err != nil {
		return 0, errors.New("a field of a type without a size")
	}
	return n, nil
}

// apply puts a relocation into its instruction.
func (f *coreFix) apply(ins *isa.Instruction) error {
	if f.poison != "" {
		poison(ins)
		return nil
	}
	wrong := func(have int64) error {
		return fmt.Errorf("the instruction %v of a CO-RE relocation holds %d where %d should be", *ins, have, f.local)
	}
	switch ins.Class() {
	case isa.ClassALU, isa.ClassALU64:
		if !f.loose && uint64(uint32(ins.Imm)) != uint64(uint32(f.local)) {
			return wrong(ins.Imm)
		}
		if f.target > math.MaxUint32 && int64(f.target) != int64(int32(f.target)) {
			return fmt.Errorf("the value %d of a CO-RE relocation does not fit its instruction", f.target)
		}
		ins.Imm = int64(int32(f.target))
	case isa.ClassLDX, isa.ClassST, isa.ClassSTX:
		if !f.loose && int64(ins.Off) != int64(f.local) {
			return wrong(int64(ins.Off))
		}
		if f.target > math.MaxInt16 {
			return fmt.Errorf("the field is %d bytes into its type, and an instruction can only reach %d", f.target, math.MaxInt16)
		}
		if f.fixed {
			f.poison = fmt.Sprintf("the field has %d bytes in the kernel, and the program reads it as a signed number of %d", f.targetSize, f.localSize)
			poison(ins)
			return nil
		}
		ins.Off = int16(f.target)
		if f.localSize != f.targetSize {
			return f.resize(ins)
		}
	case isa.ClassLD:
		if !ins.IsWide() {
			return fmt.Errorf("the instruction %v cannot take a CO-RE relocation", *ins)
		}
		if !f.loose && uint64(ins.Imm) != f.local {
			return wrong(ins.Imm)
		}
		ins.Imm = int64(f.target)
	default:
		return fmt.Errorf("the instruction %v cannot take a CO-RE relocation", *ins)
	}
	return nil
}

// resize makes a load or store as wide as the field is in the kernel.
func (f *coreFix) resize(ins *isa.Instruction) error {
	sizes := map[int]isa.Size{1: isa.Byte, 2: isa.Half, 4: isa.Word, 8: isa.Double}
	want, ok := sizes[f.targetSize]
	if !ok {
		return fmt.Errorf("the field has %d bytes in the kernel, which no instruction can read at once", f.targetSize)
	}
	if ins.Op.Size() != sizes[f.localSize] {
		return nil // a part of the field alone is read
	}
	ins.Op = ins.Op&^sizeMask | isa.Opcode(want)
	return nil
}

const sizeMask = 0x18

// poison replaces an instruction by one of the same length that the verifier
// refuses.
func poison(ins *isa.Instruction) {
	if ins.IsWide() {
		*ins = isa.LoadImm64(isa.R10, corePoison)
		return
	}
	*ins = isa.Call(corePoison)
}
