package symbol

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"strings"
)

// This file finds entries of .debug_info by name without decoding the rest:
// it walks the tree of each unit, skips attributes by the size of their form,
// jumps over subtrees that have DW_AT_sibling, and stops at the first hit.
// Section numbers are those of DWARF 5.

var errDWARF = errors.New("damaged DWARF")

// dwarfSections are the sections that names live in.
type dwarfSections struct {
	info, abbrev, str, lineStr, strOffsets []byte
}

// cursor reads little numbers; its first failure sticks.
type cursor struct {
	data  []byte
	off   int
	order binary.ByteOrder
	bad   bool
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.data)-c.off) {
		c.bad = true
		return nil
	}
	b := c.data[c.off : c.off+int(n)]
	c.off += int(n)
	return b
}

func (c *cursor) uint(n uint64) uint64 {
	b := c.take(n)
	if b == nil {
		return 0
	}
	switch n {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(c.order.Uint16(b))
	case 3:
		if c.order == binary.ByteOrder(binary.BigEndian) {
			return uint64(b[0])<<16 | uint64(b[1])<<8 | uint64(b[2])
		}
		return uint64(b[2])<<16 | uint64(b[1])<<8 | uint64(b[0])
	case 4:
		return uint64(c.order.Uint32(b))
	}
	return c.order.Uint64(b)
}

func (c *cursor) uleb() uint64 {
	var v uint64
	for shift := 0; shift < 70; shift += 7 {
		if c.bad || c.off >= len(c.data) {
			break
		}
		b := c.data[c.off]
		c.off++
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	c.bad = true
	return 0
}

// cstr skips a string that ends in 0 and returns it without the 0.
func (c *cursor) cstr() []byte {
	if c.bad {
		return nil
	}
	n := bytes.IndexByte(c.data[c.off:], 0)
	if n < 0 {
		c.bad = true
		return nil
	}
	return c.take(uint64(n) + 1)[:n]
}

type abbrev struct {
	tag      dwarf.Tag
	children bool
	attrs    []abbrevAttr
}

type abbrevAttr struct {
	attr dwarf.Attr
	form uint16
}

// abbrevTable maps codes, which compilers number from 1.
type abbrevTable map[uint64]*abbrev

const maxAbbrevs = 1 << 16

func parseAbbrevs(data []byte, off uint64, order binary.ByteOrder) (abbrevTable, error) {
	if off >= uint64(len(data)) {
		return nil, errDWARF
	}
	c := cursor{data: data, off: int(off), order: order}
	t := abbrevTable{}
	for len(t) < maxAbbrevs {
		code := c.uleb()
		if c.bad || code == 0 {
			break
		}
		a := &abbrev{tag: dwarf.Tag(c.uleb()), children: c.uint(1) != 0}
		for {
			attr, form := c.uleb(), c.uleb()
			if c.bad || attr > 0xffff || form > 0xffff {
				return nil, errDWARF
			}
			if form == formImplicitConst {
				c.uleb() // signed, but only skipped
			}
			if attr == 0 && form == 0 {
				break
			}
			a.attrs = append(a.attrs, abbrevAttr{dwarf.Attr(attr), uint16(form)})
		}
		t[code] = a
	}
	if c.bad {
		return nil, errDWARF
	}
	return t, nil
}

// Forms, section 7.5.6, and GNU's extensions.
const (
	formAddr          = 0x01
	formBlock2        = 0x03
	formBlock4        = 0x04
	formData2         = 0x05
	formData4         = 0x06
	formData8         = 0x07
	formString        = 0x08
	formBlock         = 0x09
	formBlock1        = 0x0a
	formData1         = 0x0b
	formFlag          = 0x0c
	formSdata         = 0x0d
	formStrp          = 0x0e
	formUdata         = 0x0f
	formRefAddr       = 0x10
	formRef1          = 0x11
	formRef2          = 0x12
	formRef4          = 0x13
	formRef8          = 0x14
	formRefUdata      = 0x15
	formIndirect      = 0x16
	formSecOffset     = 0x17
	formExprloc       = 0x18
	formFlagPresent   = 0x19
	formStrx          = 0x1a
	formAddrx         = 0x1b
	formRefSup4       = 0x1c
	formStrpSup       = 0x1d
	formData16        = 0x1e
	formLineStrp      = 0x1f
	formRefSig8       = 0x20
	formImplicitConst = 0x21
	formLoclistx      = 0x22
	formRnglistx      = 0x23
	formRefSup8       = 0x24
	formStrx1         = 0x25
	formStrx2         = 0x26
	formStrx3         = 0x27
	formStrx4         = 0x28
	formAddrx1        = 0x29
	formAddrx2        = 0x2a
	formAddrx3        = 0x2b
	formAddrx4        = 0x2c
	formGNURefAlt     = 0x1f20
	formGNUStrpAlt    = 0x1f21
)

// attrMIPSLinkage is DW_AT_MIPS_linkage_name, which DWARF 4 made standard.
const attrMIPSLinkage = 0x2007

// unit is one unit of .debug_info.
type unit struct {
	c                  cursor // over the unit; offsets count from the start of .debug_info
	start              int    // of the header
	version            uint64
	addrSize           uint64
	offSize            uint64 // 4 or 8: 32-bit or 64-bit DWARF
	strBase            uint64 // DW_AT_str_offsets_base
	sections           *dwarfSections
	abbrevOff          uint64
	signature, typeOff uint64 // of a type unit
}

// value is an attribute's value as far as the scan needs it.
type value struct {
	num uint64
	str []byte
}

// read reads or skips one attribute.
func (u *unit) read(form uint16, wantString bool) (v value) {
	c := &u.c
	strAt := func(section []byte, off uint64) {
		if wantString && off < uint64(len(section)) {
			s := section[off:]
			if n := bytes.IndexByte(s, 0); n >= 0 {
				v.str = s[:n]
			}
		}
	}
	strx := func(i uint64) {
		off := u.strBase + i*u.offSize
		if wantString && i < 1<<32 && off <= uint64(len(u.sections.strOffsets)) {
			t := cursor{data: u.sections.strOffsets, off: int(off), order: c.order}
			if at := t.uint(u.offSize); !t.bad {
				strAt(u.sections.str, at)
			}
		}
	}
	switch form {
	case formFlagPresent:
		v.num = 1
	case formImplicitConst:
	case formData1, formFlag, formRef1, formAddrx1:
		v.num = c.uint(1)
	case formData2, formRef2, formAddrx2:
		v.num = c.uint(2)
	case formAddrx3:
		v.num = c.uint(3)
	case formData4, formRef4, formRefSup4, formAddrx4:
		v.num = c.uint(4)
	case formData8, formRef8, formRefSig8, formRefSup8:
		v.num = c.uint(8)
	case formData16:
		c.take(16)
	case formAddr:
		c.take(u.addrSize)
	case formRefAddr:
		if u.version <= 2 {
			v.num = c.uint(u.addrSize)
		} else {
			v.num = c.uint(u.offSize)
		}
	case formSecOffset, formStrpSup, formGNURefAlt, formGNUStrpAlt:
		v.num = c.uint(u.offSize)
	case formStrp:
		strAt(u.sections.str, c.uint(u.offSize))
	case formLineStrp:
		strAt(u.sections.lineStr, c.uint(u.offSize))
	case formString:
		v.str = c.cstr()
	case formSdata, formUdata, formRefUdata, formAddrx, formLoclistx, formRnglistx:
		v.num = c.uleb()
	case formStrx:
		strx(c.uleb())
	case formStrx1, formStrx2, formStrx3, formStrx4:
		strx(c.uint(uint64(form-formStrx1) + 1))
	case formBlock1:
		c.take(c.uint(1))
	case formBlock2:
		c.take(c.uint(2))
	case formBlock4:
		c.take(c.uint(4))
	case formBlock, formExprloc:
		c.take(c.uleb())
	case formIndirect:
		if f := c.uleb(); f != formIndirect && f <= 0xffff {
			return u.read(uint16(f), wantString)
		}
		c.bad = true
	default:
		c.bad = true
	}
	return v
}

// die is what the scan knows of an entry.
type die struct {
	off         dwarf.Offset
	tag         dwarf.Tag
	name        []byte
	linkage     []byte
	declaration bool
	origin      dwarf.Offset // DW_AT_specification or DW_AT_abstract_origin
	scope       [][]byte     // names of the namespaces and types around, only valid during the call
}

// qualified reports whether the entry's name with its scope is want.
func (d *die) qualified(want string) bool {
	for _, s := range d.scope {
		rest, ok := strings.CutPrefix(want, string(s))
		if !ok {
			return false
		}
		if want, ok = strings.CutPrefix(rest, "::"); !ok {
			return false
		}
	}
	return want == string(d.name)
}

// isScope says which entries contain others that a name may lead to.
func isScope(t dwarf.Tag) bool {
	switch t {
	case dwarf.TagCompileUnit, dwarf.TagPartialUnit, dwarf.TagTypeUnit, dwarf.TagNamespace, dwarf.TagModule,
		dwarf.TagStructType, dwarf.TagClassType, dwarf.TagUnionType:
		return true
	}
	return false
}

// scan calls f with every entry whose tag satisfies want and that lies in no
// function, until f returns false.
func (s *dwarfSections) scan(order binary.ByteOrder, want func(dwarf.Tag) bool, f func(*die) bool) error {
	tables := map[uint64]abbrevTable{}
	return s.units(order, func(u *unit) (bool, error) { return u.scan(tables, want, f) })
}

// signatures returns the place of the type of each type unit.
func (s *dwarfSections) signatures(order binary.ByteOrder) map[uint64]dwarf.Offset {
	m := map[uint64]dwarf.Offset{}
	// What is found before damage is good; what is missing is reported when it is used.
	_ = s.units(order, func(u *unit) (bool, error) {
		if u.typeOff != 0 {
			m[u.signature] = dwarf.Offset(uint64(u.start) + u.typeOff)
		}
		return true, nil
	})
	return m
}

// units calls f with each unit of .debug_info, its header read, until f
// returns false or an error.
func (s *dwarfSections) units(order binary.ByteOrder, f func(*unit) (bool, error)) error {
	for off := 0; off < len(s.info); {
		u := &unit{start: off, offSize: 4, sections: s}
		u.c = cursor{data: s.info, off: off, order: order}
		length := u.c.uint(4)
		if length == 0xffffffff {
			u.offSize, length = 8, u.c.uint(8)
		}
		if u.c.bad || length > uint64(len(s.info)-u.c.off) {
			return errDWARF
		}
		off = u.c.off + int(length)
		u.c.data = s.info[:off]
		if !u.header() {
			continue // a unit that is not understood hides no other
		}
		if more, err := f(u); err != nil || !more {
			return err
		}
	}
	return nil
}

// header reads the rest of the unit's header.
func (u *unit) header() bool {
	c := &u.c
	u.version = c.uint(2)
	if u.version >= 5 {
		kind := c.uint(1)
		u.addrSize = c.uint(1)
		u.abbrevOff = c.uint(u.offSize)
		switch kind {
		case 2, 6: // DW_UT_type, DW_UT_split_type
			u.signature, u.typeOff = c.uint(8), c.uint(u.offSize)
		case 4, 5: // DW_UT_skeleton, DW_UT_split_compile
			c.take(8)
		}
	} else {
		u.abbrevOff = c.uint(u.offSize)
		u.addrSize = c.uint(1)
	}
	u.strBase = 2 * u.offSize // behind the header of the first table, if the unit does not say
	return !c.bad && u.version >= 2 && u.version <= 5
}

const maxScopeDepth = 512

func (u *unit) scan(tables map[uint64]abbrevTable, want func(dwarf.Tag) bool, f func(*die) bool) (more bool, err error) {
	c := &u.c
	t, ok := tables[u.abbrevOff]
	if !ok {
		if t, err = parseAbbrevs(u.sections.abbrev, u.abbrevOff, c.order); err != nil {
			return false, err
		}
		tables[u.abbrevOff] = t
	}

	var scopes [][]byte // names of scopes around
	var isNamed []bool  // for each open entry: whether it has put a name on scopes
	dead := 0           // depth inside entries that are no scopes
	first := true       // the unit's own entry
	for c.off < len(c.data) {
		d := die{off: dwarf.Offset(c.off)}
		code := c.uleb()
		if c.bad {
			return false, errDWARF
		}
		if code == 0 {
			switch {
			case dead > 0:
				dead--
			case len(isNamed) > 0:
				if isNamed[len(isNamed)-1] {
					scopes = scopes[:len(scopes)-1]
				}
				isNamed = isNamed[:len(isNamed)-1]
			}
			if dead == 0 && len(isNamed) == 0 {
				break
			}
			continue
		}
		a := t[code]
		if a == nil {
			return false, errDWARF
		}
		d.tag = a.tag
		scope := isScope(a.tag)
		wanted := dead == 0 && !first && want(a.tag)
		needName := wanted || scope && a.children && dead == 0
		sibling := uint64(0)
		if first {
			// String offsets must be known before any name is read.
			mark := c.off
			for _, at := range a.attrs {
				if v := u.read(at.form, false); at.attr == dwarf.AttrStrOffsetsBase {
					u.strBase = v.num
				}
			}
			if !c.bad {
				c.off = mark
			}
		}
		for _, at := range a.attrs {
			isRef := at.form == formRef1 || at.form == formRef2 || at.form == formRef4 || at.form == formRef8 || at.form == formRefUdata
			v := u.read(at.form, needName && (at.attr == dwarf.AttrName || at.attr == dwarf.AttrLinkageName || at.attr == attrMIPSLinkage))
			switch at.attr {
			case dwarf.AttrName:
				d.name = v.str
			case dwarf.AttrLinkageName, attrMIPSLinkage:
				d.linkage = v.str
			case dwarf.AttrDeclaration:
				d.declaration = at.form == formFlagPresent || v.num != 0
			case dwarf.AttrSibling:
				if isRef {
					sibling = v.num
				}
			case dwarf.AttrSpecification, dwarf.AttrAbstractOrigin:
				if isRef {
					d.origin = dwarf.Offset(uint64(u.start) + v.num)
				} else if at.form == formRefAddr {
					d.origin = dwarf.Offset(v.num)
				}
			}
		}
		if c.bad {
			return false, errDWARF
		}
		if wanted {
			d.scope = scopes
			if !f(&d) {
				return false, nil
			}
		}
		isFirst := first
		first = false
		if !a.children {
			if isFirst {
				break
			}
			continue
		}
		switch {
		case dead > 0 || !scope:
			if next := uint64(u.start) + sibling; sibling != 0 && next > uint64(c.off) && next <= uint64(len(c.data)) {
				c.off = int(next)
				continue
			}
			dead++
		case len(isNamed) == maxScopeDepth:
			return false, errDWARF
		default:
			named := !isFirst && len(d.name) > 0
			if named {
				scopes = append(scopes, d.name)
			}
			isNamed = append(isNamed, named)
		}
	}
	return true, nil
}

// dwarfSection returns the contents of the section .debug_NAME, nil where absent.
func (b *Binary) dwarfSection(name string) ([]byte, error) {
	s := b.section(".debug_" + name)
	if s == nil {
		s = b.section(".zdebug_" + name)
	}
	if s == nil || s.Type == elf.SHT_NOBITS {
		return nil, nil
	}
	return b.data(s)
}
