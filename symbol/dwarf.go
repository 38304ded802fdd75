package symbol

import (
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"
)

// ErrNoDWARF is returned by [Binary.DebugInfo] for files compiled without -g,
// or stripped.
var ErrNoDWARF = errors.New("no debug information (DWARF): compile with -g, or install the debug package")

// DebugInfo is the DWARF of one file. Types and functions are found by name
// on demand, by a scan that stops at the hit; only what was asked for is
// decoded. Debug information in a supplementary file of dwz or in .dwo files
// is not followed. Its methods are safe for concurrent use.
type DebugInfo struct {
	b        *Binary
	sections dwarfSections
	order    binary.ByteOrder

	mu    sync.Mutex
	data  *dwarf.Data
	types map[dwarf.Offset]btf.Type
	// signatures leads to the types of type units; nil until one is needed.
	signatures map[uint64]dwarf.Offset

	lines struct {
		once sync.Once
		data *dwarf.Data
		err  error
		cus  []lineUnit
	}
}

// DebugInfo returns the debug information in the file itself (see
// [Binary.DebugFile] for separate files), loaded at the first call. The error
// is [ErrNoDWARF] or says what is damaged.
func (b *Binary) DebugInfo() (*DebugInfo, error) {
	b.debug.once.Do(func() { b.debug.info, b.debug.err = readDebugInfo(b) })
	return b.debug.info, b.debug.err
}

func readDebugInfo(b *Binary) (*DebugInfo, error) {
	d := &DebugInfo{b: b, order: b.f.ByteOrder, types: map[dwarf.Offset]btf.Type{}}
	for _, s := range []struct {
		name string
		to   *[]byte
	}{
		{"info", &d.sections.info},
		{"abbrev", &d.sections.abbrev},
		{"str", &d.sections.str},
		{"line_str", &d.sections.lineStr},
		{"str_offsets", &d.sections.strOffsets},
	} {
		data, err := b.dwarfSection(s.name)
		if err != nil {
			return nil, err
		}
		*s.to = data
	}
	if len(d.sections.info) == 0 || len(d.sections.abbrev) == 0 {
		return nil, ErrNoDWARF
	}
	err := guard(func() (err error) {
		d.data, err = d.open(nil)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("debug information: %w", err)
	}
	return d, nil
}

// open makes a reader of the standard library over d's sections.
func (d *DebugInfo) open(line []byte) (*dwarf.Data, error) {
	s := &d.sections
	extra := map[string][]byte{".debug_line_str": s.lineStr, ".debug_str_offsets": s.strOffsets}
	// Even where no address matters, the entry of a unit cannot be read
	// without these, and with it fail the unit's names.
	for _, name := range []string{"ranges", "addr", "rnglists"} {
		data, err := d.b.dwarfSection(name)
		if err != nil {
			return nil, err
		}
		extra[".debug_"+name] = data
	}
	data, err := dwarf.New(s.abbrev, nil, nil, s.info, line, nil, extra[".debug_ranges"], s.str)
	if err != nil {
		return nil, err
	}
	delete(extra, ".debug_ranges")
	for name, section := range extra {
		if err := data.AddSection(name, section); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// lastComponent returns what follows the last "::" outside of template arguments.
func lastComponent(name string) string {
	depth := 0
	for i := len(name) - 1; i > 0; i-- {
		switch name[i] {
		case '>':
			depth++
		case '<':
			depth--
		case ':':
			if depth == 0 && name[i-1] == ':' {
				return name[i+1:]
			}
		}
	}
	return name
}

// Type returns a type by its C name: "struct foo", "union foo", "enum foo",
// or a bare name for a typedef, a base type or a C++ class; scopes are
// written as in C++ ("ns::foo"), and a name without one is also found inside
// scopes. The first definition of the file wins; where there is only a
// declaration the result is a [*btf.Fwd]. The error is a [*NotFoundError] or
// says what is damaged.
//
// C++ references are pointers here, base classes are members without a name,
// and static members are left out.
func (d *DebugInfo) Type(name string) (btf.Type, error) {
	want := func(t dwarf.Tag) bool {
		switch t {
		case dwarf.TagTypedef, dwarf.TagBaseType, dwarf.TagClassType, dwarf.TagStructType, dwarf.TagUnionType, dwarf.TagEnumerationType:
			return true
		}
		return false
	}
	bare := strings.TrimSpace(name)
	if keyword, rest, ok := strings.Cut(bare, " "); ok {
		switch keyword {
		case "struct", "class":
			want = func(t dwarf.Tag) bool { return t == dwarf.TagStructType || t == dwarf.TagClassType }
		case "union":
			want = func(t dwarf.Tag) bool { return t == dwarf.TagUnionType }
		case "enum":
			want = func(t dwarf.Tag) bool { return t == dwarf.TagEnumerationType }
		default:
			rest = bare
		}
		bare = strings.TrimSpace(rest)
	}
	if bare == "" {
		return nil, &NotFoundError{Kind: "type", Name: name}
	}
	last := lastComponent(bare)
	var declared, hit *die
	err := d.sections.scan(d.order, want, func(e *die) bool {
		if string(e.name) != last || last != bare && !e.qualified(bare) {
			return true
		}
		copied := *e
		if e.declaration {
			if declared == nil {
				declared = &copied
			}
			return true
		}
		hit = &copied
		return false
	})
	if hit == nil {
		hit = declared
	}
	if hit == nil {
		if err != nil {
			return nil, err
		}
		return nil, &NotFoundError{Kind: "type", Name: name, In: "the debug information"}
	}
	return d.convert(func(c *converter) btf.Type { return c.at(hit.off) })
}

// Function returns a function with its parameters in order, by its name, its
// linker symbol or its scoped C++ name without parameters. C++ methods have
// `this` as first parameter. The error is as for [DebugInfo.Type].
func (d *DebugInfo) Function(name string) (*btf.Func, error) {
	last := lastComponent(name)
	want := func(t dwarf.Tag) bool { return t == dwarf.TagSubprogram }
	var hit *die
	// A C++ method is declared in its class, under its name, and defined
	// elsewhere, with a reference to the declaration.
	declared := map[dwarf.Offset]bool{}
	matches := func(e *die) bool {
		return string(e.linkage) == name || string(e.name) == last && (last == name || e.qualified(name))
	}
	visit := func(e *die) bool {
		defined := declared[e.origin] && e.origin != 0
		if !defined && !matches(e) {
			return true
		}
		copied := *e
		if e.declaration {
			declared[e.off] = true
			if hit == nil {
				hit = &copied
			}
			return true
		}
		hit = &copied
		return false
	}
	err := d.sections.scan(d.order, want, visit)
	if hit == nil {
		if err != nil {
			return nil, err
		}
		return nil, &NotFoundError{Kind: "function", Name: name, In: "the debug information"}
	}
	proto, err := d.convert(func(c *converter) btf.Type { return c.proto(hit.off) })
	if err != nil {
		return nil, fmt.Errorf("function %s: %w", name, err)
	}
	return &btf.Func{Name: name, Linkage: btf.GlobalFunc, Type: proto}, nil
}

// convert runs f, alone.
func (d *DebugInfo) convert(f func(*converter) btf.Type) (t btf.Type, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err = guard(func() error {
		c := converter{d: d}
		t = f(&c)
		return c.err
	})
	if err != nil {
		// What was left half done must not be found again.
		d.types = map[dwarf.Offset]btf.Type{}
		return nil, fmt.Errorf("debug information: %w", err)
	}
	return t, nil
}

// maxTypes is how many types one look-up decodes before it cuts the graph at
// pointers: pointees beyond are forward declarations, to be looked up by name.
const maxTypes = 20_000

// converter turns entries into BTF types.
type converter struct {
	d     *DebugInfo
	count int
	err   error
	// epoch counts pointers passed on the way; begun has the epoch of the
	// types being decoded. Meeting one again in its own epoch means that it
	// contains itself.
	epoch int
	begun map[dwarf.Offset]int
}

func (c *converter) fail(format string, args ...any) btf.Type {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
	return &btf.Void{}
}

// read returns the entry at off and, if asked, its children.
func (c *converter) read(off dwarf.Offset, children bool) (*dwarf.Entry, []*dwarf.Entry) {
	r := c.d.data.Reader()
	r.Seek(off)
	e, err := r.Next()
	if err != nil || e == nil || e.Tag == 0 {
		c.fail("no entry at %#x", off)
		return nil, nil
	}
	var list []*dwarf.Entry
	if children && e.Children {
		for {
			kid, err := r.Next()
			if err != nil {
				c.fail("%w", err)
				return nil, nil
			}
			if kid == nil || kid.Tag == 0 {
				break
			}
			if kid.Tag == dwarf.TagSubprogram || kid.Tag == dwarf.TagLexDwarfBlock || kid.Tag == dwarf.TagInlinedSubroutine ||
				kid.Tag == dwarf.TagVariable || kid.Tag == dwarf.TagCallSite {
				r.SkipChildren()
				continue
			}
			if kid.Children {
				r.SkipChildren()
			}
			list = append(list, kid)
		}
	}
	return e, list
}

// target returns the type that e's DW_AT_type names; none is void.
func (c *converter) target(e *dwarf.Entry) btf.Type {
	off, ok := c.typeOffset(e, dwarf.AttrType)
	if !ok {
		return &btf.Void{}
	}
	return c.at(off)
}

// typeOffset returns the entry that e's attribute refers to, by its place or
// by the signature of its type unit.
func (c *converter) typeOffset(e *dwarf.Entry, attr dwarf.Attr) (dwarf.Offset, bool) {
	switch v := e.Val(attr).(type) {
	case dwarf.Offset:
		return v, true
	case uint64:
		if c.d.signatures == nil {
			c.d.signatures = c.d.sections.signatures(c.d.order)
		}
		off, ok := c.d.signatures[v]
		if !ok {
			c.fail("type %#x is in a section .debug_types, which is not understood; use DWARF 5", v)
		}
		return off, ok
	}
	return 0, false
}

func (c *converter) pointee(e *dwarf.Entry) btf.Type {
	off, ok := c.typeOffset(e, dwarf.AttrType)
	if !ok {
		return &btf.Void{}
	}
	if _, known := c.d.types[off]; !known && c.count > maxTypes {
		if p, _ := c.read(off, false); p != nil {
			name, _ := p.Val(dwarf.AttrName).(string)
			switch p.Tag {
			case dwarf.TagStructType, dwarf.TagClassType:
				return &btf.Fwd{Name: name, Kind: btf.FwdStruct}
			case dwarf.TagUnionType:
				return &btf.Fwd{Name: name, Kind: btf.FwdUnion}
			}
		}
	}
	c.epoch++
	defer func() { c.epoch-- }()
	return c.at(off)
}

func number(e *dwarf.Entry, attr dwarf.Attr) (int64, bool) {
	switch v := e.Val(attr).(type) {
	case int64:
		return v, true
	case uint64:
		return int64(v), true
	}
	return 0, false
}

// size returns DW_AT_byte_size, cut to what BTF can say.
func size(e *dwarf.Entry) uint32 {
	n, _ := number(e, dwarf.AttrByteSize)
	return uint32(max(0, min(n, 1<<32-1)))
}

// at returns the type at off.
func (c *converter) at(off dwarf.Offset) btf.Type {
	if t, ok := c.d.types[off]; ok {
		if epoch, open := c.begun[off]; open && epoch == c.epoch {
			return c.fail("a type contains itself")
		}
		return t
	}
	if c.err != nil {
		return &btf.Void{}
	}
	if c.count++; c.count > 10*maxTypes || c.epoch > maxTypes {
		return c.fail("too many types")
	}
	e, kids := c.read(off, true)
	if e == nil {
		return &btf.Void{}
	}
	name, _ := e.Val(dwarf.AttrName).(string)
	if c.begun == nil {
		c.begun = map[dwarf.Offset]int{}
	}
	// A type is known before its parts are decoded, since they may lead back to it.
	begin := func(t btf.Type) {
		c.d.types[off] = t
		c.begun[off] = c.epoch
	}
	defer delete(c.begun, off)
	if e.Val(dwarf.AttrSignature) != nil {
		if full, ok := c.typeOffset(e, dwarf.AttrSignature); ok && full != off {
			return c.at(full)
		}
	}
	switch e.Tag {
	case dwarf.TagBaseType:
		t := baseType(e, name)
		begin(t)
		return t
	case dwarf.TagPointerType, dwarf.TagReferenceType, dwarf.TagRvalueReferenceType:
		t := &btf.Pointer{}
		begin(t)
		t.Target = c.pointee(e)
		return t
	case dwarf.TagTypedef, dwarf.TagTemplateAlias:
		t := &btf.Typedef{Name: name}
		begin(t)
		t.Type = c.target(e)
		return t
	case dwarf.TagConstType:
		t := &btf.Const{}
		begin(t)
		t.Type = c.target(e)
		return t
	case dwarf.TagVolatileType, dwarf.TagAtomicType:
		t := &btf.Volatile{}
		begin(t)
		t.Type = c.target(e)
		return t
	case dwarf.TagRestrictType:
		t := &btf.Restrict{}
		begin(t)
		t.Type = c.target(e)
		return t
	case dwarf.TagStructType, dwarf.TagClassType, dwarf.TagInterfaceType:
		if e.Val(dwarf.AttrDeclaration) == true {
			t := &btf.Fwd{Name: name, Kind: btf.FwdStruct}
			begin(t)
			return t
		}
		t := &btf.Struct{Name: name, Size: size(e)}
		begin(t)
		t.Members = c.members(kids)
		return t
	case dwarf.TagUnionType:
		if e.Val(dwarf.AttrDeclaration) == true {
			t := &btf.Fwd{Name: name, Kind: btf.FwdUnion}
			begin(t)
			return t
		}
		t := &btf.Union{Name: name, Size: size(e)}
		begin(t)
		t.Members = c.members(kids)
		return t
	case dwarf.TagEnumerationType:
		t := c.enum(e, name, kids)
		begin(t)
		return t
	case dwarf.TagArrayType:
		return c.array(e, kids, begin)
	case dwarf.TagSubroutineType:
		t := &btf.FuncProto{}
		begin(t)
		c.epoch++
		c.fillProto(t, e, kids)
		c.epoch--
		return t
	case dwarf.TagPtrToMemberType:
		// The Itanium ABI: an offset, or for functions a pair of words.
		n := uint32(c.d.wordSize())
		if s := size(e); s != 0 {
			n = s
		}
		t := &btf.Int{Name: "ptrdiff_t", Size: n, Encoding: btf.Signed}
		begin(t)
		return t
	case dwarf.TagUnspecifiedType:
		t := &btf.Void{}
		begin(t)
		return t
	}
	return c.fail("entry at %#x is no type but a %v", off, e.Tag)
}

// debugBytes is how much memory the debug information of b occupies once
// types and lines have been asked for.
func debugBytes(b *Binary) uint64 {
	n := uint64(0)
	for _, s := range b.f.Sections {
		if strings.HasPrefix(s.Name, ".debug_") || strings.HasPrefix(s.Name, ".zdebug_") {
			n += min(s.Size, maxSection)
		}
	}
	return n
}

func (d *DebugInfo) wordSize() int {
	if d.b.Is64() {
		return 8
	}
	return 4
}

// Encodings of base types, DWARF 5 section 7.8.
const (
	encAddress      = 1
	encBoolean      = 2
	encComplex      = 3
	encFloat        = 4
	encSigned       = 5
	encSignedChar   = 6
	encUnsignedChar = 8
)

func baseType(e *dwarf.Entry, name string) btf.Type {
	n := size(e)
	enc, _ := number(e, dwarf.AttrEncoding)
	switch enc {
	case encFloat:
		return &btf.Float{Name: name, Size: n}
	case encComplex:
		part := &btf.Float{Name: "float", Size: n / 2}
		return &btf.Array{Index: indexType, Type: part, Nelems: 2}
	case encBoolean:
		return &btf.Int{Name: name, Size: n, Encoding: btf.Bool}
	case encSigned:
		return &btf.Int{Name: name, Size: n, Encoding: btf.Signed}
	case encSignedChar:
		// BTF keeps one of the two facts; pahole and clang keep the sign.
		return &btf.Int{Name: name, Size: n, Encoding: btf.Signed}
	}
	return &btf.Int{Name: name, Size: n, Encoding: btf.Unsigned}
}

var indexType = &btf.Int{Name: "__ARRAY_SIZE_TYPE__", Size: 4, Encoding: btf.Unsigned}

func (c *converter) members(kids []*dwarf.Entry) []btf.Member {
	var members []btf.Member
	for _, k := range kids {
		if k.Tag != dwarf.TagMember && k.Tag != dwarf.TagInheritance {
			continue
		}
		// Static members have no place in the object.
		if k.Val(dwarf.AttrExternal) == true || k.Val(dwarf.AttrDeclaration) == true {
			continue
		}
		m := btf.Member{}
		m.Name, _ = k.Val(dwarf.AttrName).(string)
		loc, known := memberOffset(k)
		if !known {
			continue // a virtual base class: its place is only known at run time
		}
		bits, isField := number(k, dwarf.AttrBitSize)
		switch {
		case !isField:
			m.Offset = btf.Bits(loc * 8)
		case bits < 0 || bits > 1<<16:
			c.fail("bit-field of %d bits", bits)
			return nil
		default:
			m.BitfieldSize = btf.Bits(bits)
			if at, ok := number(k, dwarf.AttrDataBitOffset); ok {
				m.Offset = btf.Bits(at)
			} else if at, ok := number(k, dwarf.AttrBitOffset); ok {
				// DWARF 3: counted from the most significant bit of the
				// storage unit.
				unit, _ := number(k, dwarf.AttrByteSize)
				if c.d.order == binary.ByteOrder(binary.LittleEndian) {
					at = unit*8 - at - bits
				}
				m.Offset = btf.Bits(loc*8 + at)
			} else {
				m.Offset = btf.Bits(loc * 8)
			}
		}
		m.Type = c.target(k)
		if c.err != nil {
			return nil
		}
		members = append(members, m)
	}
	// By place, as BTF has them; Rust's order is that of the source.
	sort.SliceStable(members, func(i, j int) bool { return members[i].Offset < members[j].Offset })
	return members
}

// memberOffset returns DW_AT_data_member_location in bytes: a number, or in
// old DWARF an expression that adds one. Members of unions have none.
func memberOffset(e *dwarf.Entry) (int64, bool) {
	switch v := e.Val(dwarf.AttrDataMemberLoc).(type) {
	case nil:
		return 0, true
	case int64:
		return v, v >= 0 && v < 1<<32
	case []byte:
		const plusUconst = 0x23 // DW_OP_plus_uconst
		if len(v) > 1 && v[0] == plusUconst {
			n, used := binary.Uvarint(v[1:])
			return int64(n), used == len(v)-1 && n < 1<<32
		}
	}
	return 0, false
}

func (c *converter) enum(e *dwarf.Entry, name string, kids []*dwarf.Entry) btf.Type {
	t := &btf.Enum{Name: name, Size: size(e)}
	if base, ok := c.underlying(e); ok {
		t.Signed = base.Encoding == btf.Signed
		if t.Size == 0 {
			t.Size = base.Size
		}
	}
	if t.Size == 0 {
		t.Size = 4
	}
	for _, k := range kids {
		if k.Tag != dwarf.TagEnumerator {
			continue
		}
		v, _ := number(k, dwarf.AttrConstValue)
		n, _ := k.Val(dwarf.AttrName).(string)
		t.Values = append(t.Values, btf.EnumValue{Name: n, Value: uint64(v)})
		if _, ok := c.underlying(e); !ok && v < 0 {
			t.Signed = true
		}
	}
	return t
}

// underlying returns the integer under an enumeration.
func (c *converter) underlying(e *dwarf.Entry) (*btf.Int, bool) {
	off, ok := c.typeOffset(e, dwarf.AttrType)
	for range 16 {
		if !ok {
			return nil, false
		}
		var base *dwarf.Entry
		if base, _ = c.read(off, false); base == nil {
			return nil, false
		}
		if base.Tag == dwarf.TagBaseType {
			t, isInt := baseType(base, "").(*btf.Int)
			return t, isInt
		}
		off, ok = c.typeOffset(base, dwarf.AttrType)
	}
	return nil, false
}

func (c *converter) array(e *dwarf.Entry, kids []*dwarf.Entry, begin func(btf.Type)) btf.Type {
	var dims []uint32
	for _, k := range kids {
		if k.Tag != dwarf.TagSubrangeType {
			continue
		}
		n, ok := number(k, dwarf.AttrCount)
		if !ok {
			// The upper bound is included; -1 or none is a flexible array.
			if n, ok = number(k, dwarf.AttrUpperBound); ok {
				n++
			}
		}
		dims = append(dims, uint32(max(0, min(n, 1<<32-1))))
	}
	if len(dims) == 0 {
		dims = []uint32{0}
	}
	if len(dims) > 16 {
		return c.fail("array of %d dimensions", len(dims))
	}
	outer := &btf.Array{Index: indexType, Nelems: dims[0]}
	begin(outer)
	inner := outer
	for _, n := range dims[1:] {
		next := &btf.Array{Index: indexType, Nelems: n}
		inner.Type = next
		inner = next
	}
	inner.Type = c.target(e)
	return outer
}

// proto returns the parameters and result of the function at off.
func (c *converter) proto(off dwarf.Offset) btf.Type {
	e, kids := c.read(off, true)
	if e == nil {
		return &btf.Void{}
	}
	p := &btf.FuncProto{}
	// What a definition leaves out stands at its declaration or abstract origin.
	for range 4 {
		origin, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
		if !ok {
			origin, ok = e.Val(dwarf.AttrSpecification).(dwarf.Offset)
		}
		if !ok || e.Val(dwarf.AttrType) != nil {
			break
		}
		o, okids := c.read(origin, true)
		if o == nil {
			return &btf.Void{}
		}
		if len(kids) == 0 {
			kids = okids
		}
		e = o
	}
	c.fillProto(p, e, kids)
	return p
}

func (c *converter) fillProto(p *btf.FuncProto, e *dwarf.Entry, kids []*dwarf.Entry) {
	p.Return = c.target(e)
	for _, k := range kids {
		if k.Tag != dwarf.TagFormalParameter {
			continue
		}
		if origin, ok := k.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); ok && k.Val(dwarf.AttrType) == nil {
			if k, _ = c.read(origin, false); k == nil {
				return
			}
		}
		name, _ := k.Val(dwarf.AttrName).(string)
		p.Params = append(p.Params, btf.FuncParam{Name: name, Type: c.target(k)})
	}
}

// lineUnit is the range of code of one compilation unit.
type lineUnit struct {
	start, end uint64
	off        dwarf.Offset
}

// Line returns the source file and line of the virtual address addr as
// written in the file. The line table is loaded at the first call. The error
// is a [*NotFoundError] when no line is known.
func (d *DebugInfo) Line(addr uint64) (file string, line int, err error) {
	d.lines.once.Do(d.openLines)
	if d.lines.err != nil {
		return "", 0, d.lines.err
	}
	err = guard(func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		i := sort.Search(len(d.lines.cus), func(i int) bool { return d.lines.cus[i].start > addr })
		for tries := 0; i > 0 && tries < maxOverlap; tries++ {
			i--
			if u := d.lines.cus[i]; addr < u.end {
				r := d.lines.data.Reader()
				r.Seek(u.off)
				e, err := r.Next()
				if err != nil || e == nil {
					return errDWARF
				}
				lr, err := d.lines.data.LineReader(e)
				if err != nil || lr == nil {
					return errDWARF
				}
				var at dwarf.LineEntry
				if lr.SeekPC(addr, &at) == nil && at.File != nil {
					file, line = at.File.Name, at.Line
					return nil
				}
			}
		}
		return &NotFoundError{Kind: "source line of address", Name: fmt.Sprintf("%#x", addr)}
	})
	return file, line, err
}

// maxOverlap bounds the search for a range that begins before its neighbour
// and still holds an address.
const maxOverlap = 64

func (d *DebugInfo) openLines() {
	d.lines.err = guard(func() error {
		line, err := d.b.dwarfSection("line")
		if err != nil {
			return err
		}
		data, err := d.open(line)
		if err != nil {
			return err
		}
		d.lines.data = data
		r := data.Reader()
		for {
			e, err := r.Next()
			if err != nil {
				return err
			}
			if e == nil {
				break
			}
			if e.Tag == dwarf.TagCompileUnit {
				ranges, err := data.Ranges(e)
				if err == nil {
					for _, x := range ranges {
						d.lines.cus = append(d.lines.cus, lineUnit{x[0], x[1], e.Offset})
					}
				}
			}
			r.SkipChildren()
		}
		sort.Slice(d.lines.cus, func(i, j int) bool { return d.lines.cus[i].start < d.lines.cus[j].start })
		return nil
	})
}
