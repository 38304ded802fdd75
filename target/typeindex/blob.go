package typeindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf/btf"
)

// Kinds as BTF numbers them (include/uapi/linux/btf.h).
const (
	kindInt       = 1
	kindPtr       = 2
	kindArray     = 3
	kindStruct    = 4
	kindUnion     = 5
	kindEnum      = 6
	kindFwd       = 7
	kindTypedef   = 8
	kindVolatile  = 9
	kindConst     = 10
	kindRestrict  = 11
	kindFunc      = 12
	kindFuncProto = 13
	kindVar       = 14
	kindDatasec   = 15
	kindFloat     = 16
	kindDeclTag   = 17
	kindTypeTag   = 18
	kindEnum64    = 19
	kindMax       = 19
)

const (
	magic     = 0xeb9f
	headerLen = 24
	typeLen   = 12 // struct btf_type
)

// fixedTail and perMember are the bytes that follow a btf_type, per kind: a
// fixed part and one per vlen.
var (
	fixedTail = [kindMax + 1]uint8{kindInt: 4, kindArray: 12, kindVar: 4, kindDeclTag: 4}
	perMember = [kindMax + 1]uint8{
		kindStruct: 12, kindUnion: 12, kindEnum: 8, kindFuncProto: 8, kindDatasec: 12, kindEnum64: 12,
	}
)

// hashAfter is the number of look-ups that are answered by scanning before a
// hash table of all names is built: it costs as much as a dozen scans.
const hashAfter = 12

// A blob is one BTF section. Its mutable fields are guarded by Types.mu until
// index has run, and constant from then on but for the hash.
type blob struct {
	name    string // of the module; "" for the kernel
	raw     []byte
	order   binary.ByteOrder
	big     bool
	types   []byte
	strings []byte
	base    *blob

	firstID  btf.TypeID // of types[0]; 1 without a base
	firstStr uint32     // offset of strings[0]

	indexed  bool
	indexErr error
	offsets  []uint32 // in types, of each ID from firstID
	tags     map[btf.TypeID][]declTag

	finds int
	hash  []uint32 // open addressing, IDs; len is a power of two

	complete, behind map[btf.TypeID]btf.Type // by ID: in full, and as met behind a pointer
}

type declTag struct {
	component int32 // member or parameter, -1 for the whole
	value     string
}

var errShort = errors.New("it ends early")

func parse(name string, raw []byte, base *blob) (*blob, error) {
	if len(raw) < headerLen {
		return nil, errShort
	}
	b := &blob{name: name, raw: raw, base: base, order: binary.LittleEndian, firstID: 1}
	switch {
	case raw[0] == magic&0xff && raw[1] == magic>>8:
	case raw[1] == magic&0xff && raw[0] == magic>>8:
		b.order, b.big = binary.BigEndian, true
	default:
		return nil, errors.New("it does not start with BTF's magic number")
	}
	if raw[2] != 1 {
		return nil, fmt.Errorf("it has version %d, known is 1", raw[2])
	}
	hdrLen := uint64(b.u32(raw[4:]))
	if hdrLen < headerLen || hdrLen > uint64(len(raw)) {
		return nil, errors.New("its header has a wrong length")
	}
	body := raw[hdrLen:]
	section := func(at int) ([]byte, error) {
		off, n := uint64(b.u32(raw[at:])), uint64(b.u32(raw[at+4:]))
		if off+n > uint64(len(body)) {
			return nil, errShort
		}
		return body[off : off+n : off+n], nil
	}
	var err error
	if b.types, err = section(8); err != nil {
		return nil, err
	}
	if b.strings, err = section(16); err != nil {
		return nil, err
	}
	if n := len(b.strings); n > 0 && b.strings[n-1] != 0 {
		return nil, errors.New("its string section does not end with a zero byte")
	}
	if base == nil {
		if len(b.strings) == 0 || b.strings[0] != 0 {
			return nil, errors.New("its string section does not start with the empty string")
		}
		return b, nil
	}
	if base.big != b.big {
		return nil, errors.New("its byte order is not that of the kernel's")
	}
	if err := base.index(); err != nil {
		return nil, err
	}
	b.firstID = base.firstID + btf.TypeID(len(base.offsets))
	b.firstStr = uint32(len(base.strings))
	return b, nil
}

func (b *blob) u32(p []byte) uint32 {
	if b.big {
		return binary.BigEndian.Uint32(p)
	}
	return binary.LittleEndian.Uint32(p)
}

// A record is one type as it stands in the blob: 12 bytes and a tail.
type record struct {
	id      btf.TypeID
	nameOff uint32
	kind    uint8
	kflag   bool
	vlen    int
	size    uint32 // or type
	tail    []byte
}

// at decodes the record at an offset that index has found.
func (b *blob) at(off uint32) record {
	p := b.types[off:]
	info := b.u32(p[4:])
	r := record{
		nameOff: b.u32(p), size: b.u32(p[8:]),
		kind: uint8(info >> 24 & 0x1f), kflag: info>>31 != 0, vlen: int(info & 0xffff),
	}
	r.tail = p[typeLen : typeLen+int(fixedTail[r.kind])+int(perMember[r.kind])*r.vlen]
	return r
}

// index finds where each type starts.
func (b *blob) index() error {
	if b.indexed {
		return b.indexErr
	}
	b.indexed = true
	// Types take 24 bytes on average in kernels.
	offsets := make([]uint32, 0, len(b.types)/22+1)
	var tagged []uint32
	for off, n := 0, len(b.types); off < n; {
		if n-off < typeLen {
			b.indexErr = errShort
			return errShort
		}
		info := b.u32(b.types[off+4:])
		kind := info >> 24 & 0x1f
		if kind == 0 || kind > kindMax {
			b.indexErr = fmt.Errorf("it has a type of the unknown kind %d", kind)
			return b.indexErr
		}
		if kind == kindDeclTag {
			tagged = append(tagged, uint32(off))
		}
		offsets = append(offsets, uint32(off))
		off += typeLen + int(fixedTail[kind]) + int(perMember[kind])*int(info&0xffff)
		if off > n {
			b.indexErr = errShort
			return errShort
		}
	}
	if uint64(b.firstID)+uint64(len(offsets)) > math.MaxInt32 {
		b.indexErr = errors.New("it has too many types")
		return b.indexErr
	}
	b.offsets = offsets
	b.tags = make(map[btf.TypeID][]declTag, len(tagged))
	for _, off := range tagged {
		p := b.types[off : off+typeLen+4]
		value, err := b.str(b.u32(p))
		if err != nil {
			b.indexErr = err
			return err
		}
		id := btf.TypeID(b.u32(p[8:]))
		b.tags[id] = append(b.tags[id], declTag{int32(b.u32(p[typeLen:])), value})
	}
	b.complete = make(map[btf.TypeID]btf.Type)
	b.behind = make(map[btf.TypeID]btf.Type)
	return nil
}

// record decodes the type with an ID of b itself. The index must exist.
func (b *blob) record(id btf.TypeID) (record, error) {
	i := int64(id) - int64(b.firstID)
	if i < 0 || i >= int64(len(b.offsets)) {
		return record{}, fmt.Errorf("type ID %d: %w", id, ErrNotFound)
	}
	r := b.at(b.offsets[i])
	r.id = id
	return r, nil
}

// bytesAt returns the zero-terminated string at off, without its end.
func (b *blob) bytesAt(off uint32) ([]byte, error) {
	if off < b.firstStr {
		if b.base == nil {
			return nil, errors.New("a name lies outside its string section")
		}
		return b.base.bytesAt(off)
	}
	off -= b.firstStr
	if uint64(off) >= uint64(len(b.strings)) {
		if off == 0 {
			return nil, nil
		}
		return nil, errors.New("a name lies outside its string section")
	}
	s := b.strings[off:]
	return s[:bytes.IndexByte(s, 0)], nil
}

func (b *blob) str(off uint32) (string, error) {
	s, err := b.bytesAt(off)
	return string(s), err
}

// named reports whether the string at off is name. It reads no more of it
// than that takes.
func (b *blob) named(off uint32, name string) bool {
	for b.base != nil && off < b.firstStr {
		b = b.base
	}
	at := uint64(off) - uint64(b.firstStr)
	end := at + uint64(len(name))
	return end < uint64(len(b.strings)) && b.strings[end] == 0 && string(b.strings[at:end]) == name
}

// find returns the first type of one of the kinds and that name, or 0.
func (b *blob) find(kinds Kind, name string) (btf.TypeID, error) {
	if err := b.index(); err != nil || !validName(name) {
		return 0, err
	}
	if b.finds++; b.finds > hashAfter {
		return b.findHashed(kinds, name), nil
	}
	for i, off := range b.offsets {
		p := b.types[off : off+typeLen]
		if kinds>>(b.u32(p[4:])>>24&0x1f)&1 != 0 && b.named(b.u32(p), name) {
			return b.firstID + btf.TypeID(i), nil
		}
	}
	return 0, nil
}

func validName(name string) bool {
	return name != "" && bytes.IndexByte([]byte(name), 0) < 0
}

// hashName is FNV-1a, which is short and good enough for identifiers.
func hashName[T string | []byte](name T) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h
}

func (b *blob) findHashed(kinds Kind, name string) btf.TypeID {
	if b.hash == nil {
		b.buildHash()
	}
	mask := uint32(len(b.hash) - 1)
	for slot := hashName(name) & mask; b.hash[slot] != 0; slot = (slot + 1) & mask {
		i := b.hash[slot] - 1
		p := b.types[b.offsets[i]:]
		if kinds>>(b.u32(p[4:])>>24&0x1f)&1 == 0 {
			continue
		}
		if s, err := b.bytesAt(b.u32(p)); err == nil && string(s) == name {
			return b.firstID + btf.TypeID(i)
		}
	}
	return 0
}

// buildHash enters types in the order of their IDs, so that linear probing
// meets the first of equal names first.
func (b *blob) buildHash() {
	size := 16
	for size < 2*len(b.offsets) {
		size *= 2
	}
	b.hash = make([]uint32, size)
	mask := uint32(size - 1)
	for i, off := range b.offsets {
		p := b.types[off:]
		if KindAny>>(b.u32(p[4:])>>24&0x1f)&1 == 0 {
			continue
		}
		s, err := b.bytesAt(b.u32(p))
		if err != nil || len(s) == 0 {
			continue
		}
		slot := hashName(s) & mask
		for b.hash[slot] != 0 {
			slot = (slot + 1) & mask
		}
		b.hash[slot] = uint32(i) + 1
	}
}

// findEnumerator returns the first enum with a constant of that name, or 0.
func (b *blob) findEnumerator(name string) (btf.TypeID, uint64, error) {
	if err := b.index(); err != nil || !validName(name) {
		return 0, 0, err
	}
	for i, off := range b.offsets {
		kind := b.u32(b.types[off+4:]) >> 24 & 0x1f
		if kind != kindEnum && kind != kindEnum64 {
			continue
		}
		r := b.at(off)
		step := int(perMember[kind])
		for p := r.tail; len(p) >= step; p = p[step:] {
			if b.named(b.u32(p), name) {
				return b.firstID + btf.TypeID(i), b.enumValue(&r, p), nil
			}
		}
	}
	return 0, 0, nil
}

func (b *blob) enumValue(r *record, p []byte) uint64 {
	low := b.u32(p[4:])
	switch {
	case r.kind == kindEnum64:
		return uint64(b.u32(p[8:]))<<32 | uint64(low)
	case r.kflag:
		return uint64(int64(int32(low)))
	}
	return uint64(low)
}

func (b *blob) enumerators(prefix string, yield func(string) bool) bool {
	for _, off := range b.offsets {
		kind := b.u32(b.types[off+4:]) >> 24 & 0x1f
		if kind != kindEnum && kind != kindEnum64 {
			continue
		}
		r := b.at(off)
		step := int(perMember[kind])
		for p := r.tail; len(p) >= step; p = p[step:] {
			s, err := b.bytesAt(b.u32(p))
			if err == nil && bytes.HasPrefix(s, []byte(prefix)) && !yield(string(s)) {
				return false
			}
		}
	}
	return true
}

func (b *blob) names(kinds Kind, prefix string, yield func(Entry) bool) bool {
	want := []byte(prefix)
	for i, off := range b.offsets {
		p := b.types[off : off+typeLen]
		kind := b.u32(p[4:]) >> 24 & 0x1f
		if kinds>>kind&1 == 0 {
			continue
		}
		s, err := b.bytesAt(b.u32(p))
		if err != nil || len(s) == 0 || !bytes.HasPrefix(s, want) {
			continue
		}
		k := Kind(1) << kind
		if KindEnum&k != 0 {
			k = KindEnum
		}
		if !yield(Entry{string(s), k, b.name, b.firstID + btf.TypeID(i)}) {
			return false
		}
	}
	return true
}
