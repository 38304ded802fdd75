package object

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sort"
	"unicode/utf8"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/source"
)

const (
	btfMagic      = 0xeb9f
	btfHeaderSize = 24
	// maxTypes bounds the depth to which types are decoded, which takes stack;
	// large objects have some thousands.
	maxTypes    = 1 << 16
	maxTypeName = 4 << 10 // the kernel takes 511
)

// readTypes is what .BTF holds.
type readTypes struct {
	spec    *btf.Spec
	strings *names
}

func (r *reader) readTypes() error {
	s, _, err := r.find(sectionBTF)
	if s == nil {
		return err
	}
	strings, err := checkBTF(s.data, r.file.order)
	if err != nil {
		return fmt.Errorf("section %s: %w", sectionBTF, err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(s.data))
	if err != nil {
		return fmt.Errorf("section %s: %w", sectionBTF, err)
	}
	r.types = &readTypes{spec, strings}
	r.o.BTF = spec
	return nil
}

// checkBTF walks over the types in raw before package btf decodes them, to
// bound what that costs: it copies each name, and follows types by recursion.
func checkBTF(raw []byte, order byteOrder) (*names, error) {
	if len(raw) < btfHeaderSize {
		return nil, errTruncated
	}
	if order.Uint16(raw) != btfMagic {
		return nil, errors.New("it is not BTF of the file's byte order")
	}
	size := uint64(order.Uint32(raw[4:]))
	part := func(off, n uint32) ([]byte, error) {
		start := size + uint64(off)
		if size < btfHeaderSize || start+uint64(n) > uint64(len(raw)) {
			return nil, errTruncated
		}
		return raw[start : start+uint64(n)], nil
	}
	types, err := part(order.Uint32(raw[8:]), order.Uint32(raw[12:]))
	if err != nil {
		return nil, err
	}
	table, err := part(order.Uint32(raw[16:]), order.Uint32(raw[20:]))
	if err != nil {
		return nil, err
	}
	strings := newNames(table)
	name := func(off uint32) error {
		if off == 0 {
			return nil
		}
		s, err := strings.at(off)
		if err == nil && len(s) > maxTypeName {
			err = fmt.Errorf("a name of %d bytes is too long", len(s))
		}
		return err
	}
	for id := 1; len(types) > 0; id++ {
		if id > maxTypes {
			return nil, fmt.Errorf("it has more than %d types", maxTypes)
		}
		if len(types) < 12 {
			return nil, errTruncated
		}
		info := order.Uint32(types[4:])
		kind, count := info>>24&0x1f, int(info&0xffff)
		extra, named := 0, 0 // bytes behind the header; of each element with a name
		switch kind {
		case 1, 14, 17: // INT, VAR, DECL_TAG
			extra = 4
		case 2, 7, 8, 9, 10, 11, 12, 16, 18: // PTR, FWD, TYPEDEF, qualifiers, FUNC, FLOAT, TYPE_TAG
		case 3: // ARRAY
			extra = 12
		case 4, 5, 19: // STRUCT, UNION, ENUM64
			named = 12
		case 6, 13: // ENUM, FUNC_PROTO
			named = 8
		case 15: // DATASEC
			extra = 12 * count
		default:
			return nil, fmt.Errorf("type %d is of kind %d, which this version of skep does not know", id, kind)
		}
		if extra += named * count; len(types)-12 < extra {
			return nil, errTruncated
		}
		if err := name(order.Uint32(types)); err != nil {
			return nil, fmt.Errorf("type %d: %w", id, err)
		}
		for n := 0; named > 0 && n < count; n++ {
			if err := name(order.Uint32(types[12+n*named:])); err != nil {
				return nil, fmt.Errorf("type %d: element %d: %w", id, n, err)
			}
		}
		types = types[12+extra:]
	}
	// Lines may be long and are used over and over: they get a budget of their own.
	return newNames(table), nil
}

// datasec returns the types of the variables and functions in a section, nil
// when there are none.
func (t *readTypes) datasec(name string) (map[string]btf.Type, error) {
	if t == nil {
		return nil, nil
	}
	var ds *btf.Datasec
	if err := t.spec.TypeByName(name, &ds); err != nil {
		if errors.Is(err, btf.ErrNotFound) {
			return nil, nil
		}
		return nil, fmt.Errorf("types of section %s: %w", name, err)
	}
	types := make(map[string]btf.Type, len(ds.Vars))
	for _, info := range ds.Vars {
		switch v := info.Type.(type) {
		case *btf.Var:
			types[v.Name] = v.Type
		case *btf.Func:
			types[v.Name] = v
		default:
			return nil, fmt.Errorf("types of section %s: %v is no variable", name, v)
		}
	}
	return types, nil
}

func (r *reader) readMaps() error {
	s, index, err := r.find(sectionMaps)
	if s == nil || err != nil {
		return err
	}
	types, err := r.types.datasec(sectionMaps)
	if err != nil {
		return err
	}
	if len(types) == 0 {
		return errors.New("its maps have no BTF: compile it with `clang -g`")
	}
	symbols := slices.Clone(r.file.symbols)
	slices.SortStableFunc(symbols, func(a, b elfSymbol) int { return cmp.Compare(a.value, b.value) })
	for _, sym := range symbols {
		t := types[sym.name]
		if sym.section != index || sym.name == "" || t == nil || r.mapAt(sym.value) != nil {
			continue
		}
		def, ok := underlying(t).(*btf.Struct)
		if !ok {
			return fmt.Errorf("map %s is defined by %v, which is no struct", sym.name, t)
		}
		m, err := mapFromBTF(def)
		if err != nil {
			return fmt.Errorf("map %s: %w", sym.name, err)
		}
		m.Name = sym.name
		p := placedMap{m, sym.value, sym.size, -1}
		for _, f := range def.Members {
			if f.Name == "values" {
				p.values = int64(f.Offset.Bytes())
			}
		}
		r.maps = append(r.maps, p)
		r.o.Maps = append(r.o.Maps, m)
	}
	return nil
}

// mapFromBTF reads the definition of a map, see mapFields.
func mapFromBTF(def *btf.Struct) (*Map, error) {
	m := &Map{}
	for _, f := range def.Members {
		var err error
		u32 := func(to *uint32) {
			var n uint64
			if n, err = numberFromBTF(f.Type); err == nil && n != uint64(uint32(n)) {
				err = fmt.Errorf("%d does not fit 32 bits", n)
			}
			*to = uint32(n)
		}
		pointee := func(to *btf.Type, size *uint32) {
			p, ok := underlying(f.Type).(*btf.Pointer)
			if !ok {
				err = fmt.Errorf("%v is no pointer", f.Type)
				return
			}
			var n int
			if n, err = btf.Sizeof(p.Target); err == nil && (n < 0 || int64(n) != int64(uint32(n))) {
				err = fmt.Errorf("%d bytes are too many", n)
			}
			if *size != 0 && int(*size) != n {
				err = fmt.Errorf("the type has %d bytes, the size given is %d", n, *size)
			}
			*to, *size = p.Target, uint32(n)
		}
		switch f.Name {
		case "type":
			u32(&m.Type)
		case "max_entries":
			u32(&m.MaxEntries)
		case "map_flags":
			u32(&m.Flags)
		case "numa_node":
			u32(&m.NUMANode)
		case "map_extra":
			m.Extra, err = numberFromBTF(f.Type)
		case "key_size":
			u32(&m.KeySize)
		case "value_size":
			u32(&m.ValueSize)
		case "key":
			pointee(&m.Key, &m.KeySize)
		case "value":
			pointee(&m.Value, &m.ValueSize)
		case "pinning":
			var n uint32
			if u32(&n); n > pinByName {
				err = fmt.Errorf("%d is no way of pinning, LIBBPF_PIN_BY_NAME is 1", n)
			}
			m.Pinned = n == pinByName
		case "values":
			err = m.innerFromBTF(f.Type)
		default:
			err = errors.New("no such field of a map definition is known")
		}
		if err != nil {
			return nil, fmt.Errorf("field %s: %w", f.Name, err)
		}
	}
	return m, nil
}

func (m *Map) innerFromBTF(t btf.Type) error {
	array, ok := underlying(t).(*btf.Array)
	if !ok {
		return fmt.Errorf("%v is no array", t)
	}
	p, ok := underlying(array.Type).(*btf.Pointer)
	if !ok {
		return fmt.Errorf("%v is no array of pointers", t)
	}
	if m.Value != nil || m.ValueSize != 0 && m.ValueSize != 4 {
		return errors.New("a map of maps has values of 4 bytes")
	}
	m.ValueSize = 4
	switch def := underlying(p.Target).(type) {
	case *btf.Struct:
		for _, f := range def.Members {
			if f.Name == "values" || f.Name == "pinning" {
				return fmt.Errorf("the inner map has the field %s, which no loader allows", f.Name)
			}
		}
		inner, err := mapFromBTF(def)
		m.Inner = inner
		return err
	case *btf.FuncProto:
		if m.Type != bpfMapTypeProgArray {
			return errors.New("only program arrays have programs as values")
		}
		return nil
	}
	return fmt.Errorf("%v is neither a map nor a program", p.Target)
}

// numberFromBTF reads what libbpf's macros __uint and __ulong wrote.
func numberFromBTF(t btf.Type) (uint64, error) {
	switch t := underlying(t).(type) {
	case *btf.Pointer:
		if array, ok := underlying(t.Target).(*btf.Array); ok {
			return uint64(array.Nelems), nil
		}
	case *btf.Enum:
		if len(t.Values) == 1 {
			return t.Values[0].Value, nil
		}
	}
	return 0, fmt.Errorf("%v is no number as __uint writes it", t)
}

// resolveMapValues reads the elements that maps begin with.
func (r *reader) resolveMapValues(s *elfSection) error {
	for _, rel := range s.relocs {
		sym := r.file.symbols[rel.symbol]
		i := sort.Search(len(r.maps), func(i int) bool { return r.maps[i].offset > rel.offset }) - 1
		if i < 0 || rel.offset-r.maps[i].offset >= r.maps[i].size || r.maps[i].values < 0 {
			return fmt.Errorf("section %s: offset %d is in no map that has elements", s.name, rel.offset)
		}
		m := r.maps[i]
		off := int64(rel.offset-m.offset) - m.values
		if off < 0 || off%8 != 0 {
			return fmt.Errorf("map %s: a relocation at offset %d is of no element", m.Name, rel.offset)
		}
		if m.Values == nil {
			m.Values = make([]any, (int64(m.size)-m.values)/8)
		}
		if off/8 >= int64(len(m.Values)) {
			return fmt.Errorf("map %s: a relocation at offset %d is of no element", m.Name, rel.offset)
		}
		var value any
		if m.Inner != nil && r.file.sections[sym.section].name == sectionMaps {
			if inner := r.mapAt(sym.value); inner != nil {
				value = inner
			}
		} else if c := r.bySec[sym.section]; c != nil && m.Inner == nil {
			if f := c.start(sym.value); f != nil {
				value = f.Func
			}
		}
		if value == nil {
			return fmt.Errorf("map %s: element %d is %s, which the map cannot hold", m.Name, off/8, r.describe(sym))
		}
		m.Values[off/8] = value
	}
	return nil
}

// mapAt returns the map that begins at offset of .maps, or nil.
func (r *reader) mapAt(offset uint64) *Map {
	i, ok := slices.BinarySearchFunc(r.maps, offset, func(m placedMap, off uint64) int { return cmp.Compare(m.offset, off) })
	if !ok {
		return nil
	}
	return r.maps[i].Map
}

// readExt reads .BTF.ext: signatures, lines and CO-RE relocations.
func (r *reader) readExt() error {
	s, _, err := r.find(sectionBTFExt)
	if s == nil || err != nil {
		return err
	}
	if r.types == nil {
		return fmt.Errorf("there is a section %s, but no %s", sectionBTFExt, sectionBTF)
	}
	if err := r.readExtParts(s.data); err != nil {
		return fmt.Errorf("section %s: %w", sectionBTFExt, err)
	}
	for _, f := range r.o.Funcs {
		slices.SortStableFunc(f.Lines, func(a, b Line) int { return a.Insn - b.Insn })
		slices.SortStableFunc(f.CORE, func(a, b CORE) int { return a.Insn - b.Insn })
		for i := 1; i < len(f.CORE); i++ {
			if f.CORE[i].Insn == f.CORE[i-1].Insn {
				return fmt.Errorf("function %s: instruction %d has two CO-RE relocations", f.Name, f.CORE[i].Insn)
			}
		}
	}
	return nil
}

func (r *reader) readExtParts(data []byte) error {
	order := r.file.order
	if len(data) < 24 {
		return errTruncated
	}
	if order.Uint16(data) != btfMagic || data[2] != 1 {
		return errors.New("it is not BTF of version 1 and of the file's byte order")
	}
	header := uint64(order.Uint32(data[4:]))
	if header < 24 || header > uint64(len(data)) {
		return errTruncated
	}
	parts := []struct {
		at   int // in the header: offset and length
		size int // of a record
		read func(f *placedFunc, insn int, rec []byte) error
	}{
		{8, 8, r.readFuncInfo},
		{16, 16, r.readLineInfo},
		{24, 16, r.readCOREInfo},
	}
	for _, p := range parts {
		if uint64(p.at)+8 > header {
			continue
		}
		off, size := header+uint64(order.Uint32(data[p.at:])), uint64(order.Uint32(data[p.at+4:]))
		if off > uint64(len(data)) || size > uint64(len(data))-off {
			return errTruncated
		}
		if err := r.readExtPart(data[off:off+size], p.size, p.read); err != nil {
			return err
		}
	}
	return nil
}

// readExtPart reads the records of one kind, which are grouped by section.
func (r *reader) readExtPart(data []byte, least int, read func(f *placedFunc, insn int, rec []byte) error) error {
	if len(data) == 0 {
		return nil
	}
	if len(data) < 4 {
		return errTruncated
	}
	size := uint64(r.file.order.Uint32(data))
	if size < uint64(least) || size > 256 || size%4 != 0 {
		return fmt.Errorf("records have %d bytes, must be %d", size, least)
	}
	for data = data[4:]; len(data) > 0; {
		if len(data) < 8 {
			return errTruncated
		}
		name, err := r.types.strings.at(r.file.order.Uint32(data))
		if err != nil {
			return err
		}
		count := uint64(r.file.order.Uint32(data[4:]))
		if data = data[8:]; count*size > uint64(len(data)) {
			return errTruncated
		}
		c := r.code[name]
		for ; count > 0; count-- {
			rec := data[:size]
			data = data[size:]
			if c == nil {
				continue // a section that was taken out
			}
			f, insn, err := c.at(uint64(r.file.order.Uint32(rec)))
			if err == nil && f != nil {
				err = read(f, insn, rec)
			}
			if err != nil {
				return fmt.Errorf("records of section %s: %w", name, err)
			}
		}
	}
	return nil
}

func (r *reader) typeByID(id uint32) (btf.Type, error) {
	t, err := r.types.spec.TypeByID(btf.TypeID(id))
	if err != nil {
		return nil, fmt.Errorf("type %d: %w", id, err)
	}
	return t, nil
}

func (r *reader) readFuncInfo(f *placedFunc, insn int, rec []byte) error {
	t, err := r.typeByID(r.file.order.Uint32(rec[4:]))
	if err != nil {
		return err
	}
	fn, ok := t.(*btf.Func)
	if !ok || insn != 0 {
		return fmt.Errorf("the type of function %s is %v, at instruction %d", f.Name, t, insn)
	}
	f.Type = fn
	return nil
}

func (r *reader) readLineInfo(f *placedFunc, insn int, rec []byte) error {
	file, err := r.types.strings.at(r.file.order.Uint32(rec[4:]))
	if err != nil {
		return err
	}
	text, err := r.types.strings.at(r.file.order.Uint32(rec[8:]))
	if err != nil {
		return err
	}
	at := r.file.order.Uint32(rec[12:])
	f.Lines = append(f.Lines, Line{Insn: insn, Place: Place{
		File: file, Row: int(at >> 10), Col: int(at & maxCol), Text: text,
	}})
	return nil
}

func (r *reader) readCOREInfo(f *placedFunc, insn int, rec []byte) error {
	t, err := r.typeByID(r.file.order.Uint32(rec[4:]))
	if err != nil {
		return err
	}
	access, err := r.types.strings.at(r.file.order.Uint32(rec[8:]))
	if err != nil {
		return err
	}
	c := CORE{Insn: insn, Kind: COREKind(r.file.order.Uint32(rec[12:])), Type: t, Access: access}
	if _, err := coreSteps(&c); err != nil {
		return fmt.Errorf("function %s: instruction %d: %w", f.Name, insn, err)
	}
	f.CORE = append(f.CORE, c)
	return nil
}

// findSpans gives lines their spans in the sources that the manifest holds.
func (r *reader) findSpans() {
	m := r.o.Manifest
	files := make(map[string]*source.File)
	for name, text := range m.Source.Includes {
		files[name] = source.NewFile(name, text)
	}
	if m.Source.Text != "" {
		files[m.Source.Name] = source.NewFile(m.Source.Name, m.Source.Text)
	}
	starts := make(map[string][]int)
	for _, f := range r.o.Funcs {
		for i := range f.Lines {
			l := &f.Lines[i]
			file := files[l.Place.File]
			if file == nil || l.Place.Row < 1 || l.Place.Col < 1 || file.Line(l.Place.Row) != l.Place.Text {
				continue
			}
			if starts[file.Name] == nil {
				starts[file.Name] = lineStarts(file.Text)
			}
			if l.Place.Row > len(starts[file.Name]) {
				continue
			}
			start := starts[file.Name][l.Place.Row-1]
			col := 1
			for at := range l.Place.Text {
				if col == l.Place.Col {
					_, n := utf8.DecodeRuneInString(l.Place.Text[at:])
					l.Span = source.Span{File: file, Start: start + at, End: start + at + n}
					break
				}
				col++
			}
			if col == l.Place.Col && !l.Span.IsValid() { // at the end of the line
				l.Span = source.Span{File: file, Start: start + len(l.Place.Text), End: start + len(l.Place.Text)}
			}
		}
	}
}

// lineStarts returns the offset of each line's first byte.
func lineStarts(text string) []int {
	starts := []int{0}
	for i := range len(text) {
		if text[i] == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}
