package typeindex

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// maxNesting bounds recursion on hostile blobs; kernels stay below 40.
const maxNesting = 300

// inflate returns the complete type of an ID of b or its base. t.mu is held.
func (t *Types) inflate(b *blob, id btf.TypeID) (btf.Type, error) {
	in := inflater{t: t, open: make(map[key]int)}
	typ, err := in.typ(b, id, false)
	if err != nil {
		for _, k := range in.made {
			cache := k.blob.cache(k.lazy)
			delete(t.known, cache[k.id])
			delete(cache, k.id)
		}
		where := "the kernel's BTF"
		if b.name != "" {
			where = "the BTF of module " + b.name
		}
		return nil, fmt.Errorf("%s is damaged at type %d: %w", where, id, err)
	}
	return typ, nil
}

func (b *blob) cache(lazy bool) map[btf.TypeID]btf.Type {
	if lazy {
		return b.behind
	}
	return b.complete
}

type key struct {
	blob *blob
	id   btf.TypeID
	lazy bool
}

// An inflater makes one type and what it needs.
type inflater struct {
	t        *Types
	made     []key       // to be taken back when something fails
	open     map[key]int // types being made: how many pointers led to them
	pointers int
	depth    int
}

// typ returns the type with an ID. lazy says that it stands behind a pointer,
// where named structs and unions become a Fwd.
func (in *inflater) typ(b *blob, id btf.TypeID, lazy bool) (btf.Type, error) {
	if id == 0 {
		return (*btf.Void)(nil), nil
	}
	for b.base != nil && id < b.firstID {
		b = b.base
	}
	if err := b.index(); err != nil {
		return nil, err
	}
	r, err := b.record(id)
	if err != nil {
		return nil, err
	}
	switch r.kind {
	case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag, kindArray:
	case kindStruct, kindUnion:
		lazy = lazy && r.nameOff != 0
	default:
		lazy = false
	}
	k := key{b, id, lazy}
	if typ, ok := b.cache(lazy)[id]; ok {
		if pointers, open := in.open[k]; open && pointers == in.pointers {
			return nil, errors.New("a type contains itself")
		}
		return typ, nil
	}
	if in.depth++; in.depth > maxNesting {
		return nil, errors.New("its types nest too deeply")
	}
	defer func() { in.depth-- }()

	name, err := b.str(r.nameOff)
	if err != nil {
		return nil, err
	}
	// A type enters the cache before its parts are made, so that cycles
	// through pointers close.
	enter := func(typ btf.Type) {
		b.cache(lazy)[id] = typ
		in.t.known[typ] = ref{b, id, lazy}
		in.made = append(in.made, k)
		in.open[k] = in.pointers
	}
	defer delete(in.open, k)

	target := btf.TypeID(r.size)
	switch r.kind {
	case kindInt:
		data := b.u32(r.tail)
		typ := &btf.Int{Name: name, Size: r.size, Encoding: btf.IntEncoding(data >> 24 & 0xf)}
		enter(typ)
		return typ, nil
	case kindFloat:
		typ := &btf.Float{Name: name, Size: r.size}
		enter(typ)
		return typ, nil
	case kindFwd:
		typ := &btf.Fwd{Name: name, Kind: btf.FwdStruct}
		if r.kflag {
			typ.Kind = btf.FwdUnion
		}
		enter(typ)
		return typ, nil
	case kindEnum, kindEnum64:
		typ := &btf.Enum{Name: name, Size: r.size, Signed: r.kflag, Values: make([]btf.EnumValue, r.vlen)}
		enter(typ)
		step := int(perMember[r.kind])
		for i := range typ.Values {
			p := r.tail[i*step:]
			v := &typ.Values[i]
			if v.Name, err = b.str(b.u32(p)); err != nil {
				return nil, err
			}
			v.Value = b.enumValue(&r, p)
		}
		return typ, nil

	case kindPtr:
		typ := &btf.Pointer{}
		enter(typ)
		in.pointers++
		typ.Target, err = in.typ(b, target, true)
		in.pointers--
		return typ, err
	case kindArray:
		typ := &btf.Array{Nelems: b.u32(r.tail[8:])}
		enter(typ)
		if typ.Type, err = in.typ(b, btf.TypeID(b.u32(r.tail)), lazy); err != nil {
			return nil, err
		}
		typ.Index, err = in.typ(b, btf.TypeID(b.u32(r.tail[4:])), lazy)
		return typ, err
	case kindTypedef:
		typ := &btf.Typedef{Name: name, Tags: b.tagsOf(id, -1)}
		enter(typ)
		typ.Type, err = in.typ(b, target, lazy)
		return typ, err
	case kindVolatile:
		typ := &btf.Volatile{}
		enter(typ)
		typ.Type, err = in.typ(b, target, lazy)
		return typ, err
	case kindConst:
		typ := &btf.Const{}
		enter(typ)
		typ.Type, err = in.typ(b, target, lazy)
		return typ, err
	case kindRestrict:
		typ := &btf.Restrict{}
		enter(typ)
		typ.Type, err = in.typ(b, target, lazy)
		return typ, err
	case kindTypeTag:
		typ := &btf.TypeTag{Value: name}
		enter(typ)
		typ.Type, err = in.typ(b, target, lazy)
		return typ, err

	case kindStruct:
		if lazy {
			typ := &btf.Fwd{Name: name, Kind: btf.FwdStruct}
			enter(typ)
			return typ, nil
		}
		typ := &btf.Struct{Name: name, Size: r.size, Tags: b.tagsOf(id, -1)}
		enter(typ)
		typ.Members, err = in.members(b, &r)
		return typ, err
	case kindUnion:
		if lazy {
			typ := &btf.Fwd{Name: name, Kind: btf.FwdUnion}
			enter(typ)
			return typ, nil
		}
		typ := &btf.Union{Name: name, Size: r.size, Tags: b.tagsOf(id, -1)}
		enter(typ)
		typ.Members, err = in.members(b, &r)
		return typ, err

	case kindFunc:
		typ := &btf.Func{Name: name, Linkage: btf.FuncLinkage(r.vlen), Tags: b.tagsOf(id, -1)}
		enter(typ)
		if typ.Type, err = in.typ(b, target, false); err != nil {
			return nil, err
		}
		proto, ok := typ.Type.(*btf.FuncProto)
		if !ok {
			return nil, fmt.Errorf("function %s has no prototype", name)
		}
		typ.ParamTags = b.paramTags(id, len(proto.Params))
		return typ, nil
	case kindFuncProto:
		typ := &btf.FuncProto{Params: make([]btf.FuncParam, r.vlen)}
		enter(typ)
		// What a function takes and returns is not part of it: a prototype
		// whose parameters lead back to it is no cycle by value.
		in.pointers++
		defer func() { in.pointers-- }()
		if typ.Return, err = in.typ(b, target, false); err != nil {
			return nil, err
		}
		for i := range typ.Params {
			p := r.tail[i*8:]
			if typ.Params[i].Name, err = b.str(b.u32(p)); err != nil {
				return nil, err
			}
			if typ.Params[i].Type, err = in.typ(b, btf.TypeID(b.u32(p[4:])), false); err != nil {
				return nil, err
			}
		}
		return typ, nil
	case kindVar:
		typ := &btf.Var{Name: name, Linkage: btf.VarLinkage(b.u32(r.tail)), Tags: b.tagsOf(id, -1)}
		enter(typ)
		typ.Type, err = in.typ(b, target, false)
		return typ, err
	case kindDatasec:
		typ := &btf.Datasec{Name: name, Size: r.size, Vars: make([]btf.VarSecinfo, r.vlen)}
		enter(typ)
		for i := range typ.Vars {
			p := r.tail[i*12:]
			v := &typ.Vars[i]
			v.Offset, v.Size = b.u32(p[4:]), b.u32(p[8:])
			if v.Type, err = in.typ(b, btf.TypeID(b.u32(p)), false); err != nil {
				return nil, err
			}
		}
		return typ, nil
	}
	return nil, fmt.Errorf("a declaration tag stands where a type is needed")
}

func (in *inflater) members(b *blob, r *record) ([]btf.Member, error) {
	members := make([]btf.Member, r.vlen)
	for i := range members {
		p := r.tail[i*12:]
		m := &members[i]
		var err error
		if m.Name, err = b.str(b.u32(p)); err != nil {
			return nil, err
		}
		id := btf.TypeID(b.u32(p[4:]))
		if m.Type, err = in.typ(b, id, false); err != nil {
			return nil, err
		}
		offset := b.u32(p[8:])
		m.Tags = b.tagsOf(r.id, int32(i))
		if r.kflag {
			m.Offset, m.BitfieldSize = btf.Bits(offset&0xffffff), btf.Bits(offset>>24)
			continue
		}
		m.Offset = btf.Bits(offset)
		if bits, shift, ok := b.legacyBitfield(id); ok {
			m.Offset += shift
			m.BitfieldSize = bits
		}
	}
	return members, nil
}

// legacyBitfield finds bit-fields as they were before members carried their
// width: an integer type of fewer bits than its size, at an offset.
func (b *blob) legacyBitfield(id btf.TypeID) (bits, shift btf.Bits, ok bool) {
	for range 32 {
		for b.base != nil && id < b.firstID {
			b = b.base
		}
		r, err := b.record(id)
		if err != nil {
			return 0, 0, false
		}
		switch r.kind {
		case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag:
			id = btf.TypeID(r.size)
		case kindInt:
			data := b.u32(r.tail)
			bits, shift = btf.Bits(data&0xff), btf.Bits(data>>16&0xff)
			return bits, shift, shift != 0 || uint64(bits) != uint64(r.size)*8
		default:
			return 0, 0, false
		}
	}
	return 0, 0, false
}

func (b *blob) tagsOf(id btf.TypeID, component int32) []string {
	var tags []string
	for _, t := range b.tags[id] {
		if t.component == component {
			tags = append(tags, t.value)
		}
	}
	return tags
}

func (b *blob) paramTags(id btf.TypeID, params int) [][]string {
	var tags [][]string
	for _, t := range b.tags[id] {
		if t.component < 0 || int(t.component) >= params {
			continue
		}
		if tags == nil {
			tags = make([][]string, params)
		}
		tags[t.component] = append(tags[t.component], t.value)
	}
	return tags
}
