package bt

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/object"
)

var (
	u8Type  = &btf.Int{Name: "u8", Size: 1}
	u16Type = &btf.Int{Name: "u16", Size: 2}
	u32Type = &btf.Int{Name: "u32", Size: 4}
	u64Type = &btf.Int{Name: "u64", Size: 8}
	s64Type = &btf.Int{Name: "s64", Size: 8, Encoding: btf.Signed}
	s32Type = &btf.Int{Name: "s32", Size: 4, Encoding: btf.Signed}
	s16Type = &btf.Int{Name: "s16", Size: 2, Encoding: btf.Signed}
	s8Type  = &btf.Int{Name: "s8", Size: 1, Encoding: btf.Signed}
	chType  = &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
)

func arrayOf(elem btf.Type, n int) *btf.Array {
	return &btf.Array{Index: u32Type, Type: elem, Nelems: uint32(n)}
}

// irType is the type that a scalar of the language has in registers: 64 bits,
// extended by its sign, or a pointer where the verifier has to know it.
func irType(t *check.Type) ir.Type {
	if t.Kind == check.Pointer {
		switch t.Space {
		case check.BTFSpace:
			return ir.PtrTo(ir.SpaceBTF)
		case check.CtxSpace:
			return ir.PtrTo(ir.SpaceCtx)
		}
	}
	return ir.I64
}

// memType is the type that a scalar has in memory.
func memType(t *check.Type) ir.Type { return ir.IntType(8 * t.Size) }

// btfType describes stored values of a type, so that other tools can show maps.
func btfType(t *check.Type) btf.Type {
	switch t.Kind {
	case check.Bool, check.Int:
		switch {
		case t.Signed:
			return map[int]btf.Type{1: s8Type, 2: s16Type, 4: s32Type, 8: s64Type}[t.Size]
		default:
			return map[int]btf.Type{1: u8Type, 2: u16Type, 4: u32Type, 8: u64Type}[t.Size]
		}
	case check.String:
		return arrayOf(chType, t.Size)
	case check.Tuple, check.Record:
		s := &btf.Struct{Size: uint32(t.Size)}
		for i, f := range t.Fields {
			name := f.Name
			if name == "" {
				name = "f" + string(rune('0'+i))
			}
			s.Members = append(s.Members, btf.Member{Name: name, Type: btfType(f.Type), Offset: btf.Bits(8 * f.Offset)})
		}
		return s
	}
	if t.IsScalar() {
		return u64Type
	}
	return arrayOf(u8Type, t.Size)
}

// showType is how stored values of a type are shown.
func showType(t *check.Type) object.Type {
	o := object.Type{Size: t.Size, Signed: t.Signed}
	switch t.Kind {
	case check.Bool:
		o.Kind = object.TypeBool
	case check.Int:
		o.Kind = object.TypeInt
		if e, ok := t.BTF.(*btf.Enum); ok {
			o.Kind, o.Name = object.TypeEnum, e.Name
			for _, v := range e.Values {
				o.Values = append(o.Values, object.EnumValue{Name: v.Name, Value: int64(v.Value)})
			}
		}
	case check.Pointer:
		o.Kind = object.TypePointer
	case check.String:
		o.Kind = object.TypeString
	case check.Buffer:
		o.Kind = object.TypeBuffer
	case check.Inet:
		o.Kind = object.TypeInet
	case check.MAC:
		o.Kind = object.TypeMAC
	case check.Username:
		o.Kind = object.TypeUsername
	case check.Ksym:
		o.Kind = object.TypeKsym
	case check.Usym:
		o.Kind, o.Name = object.TypeUsym, t.Mode
	case check.Kstack:
		o.Kind, o.Name = object.TypeKstack, t.Mode
	case check.Ustack:
		o.Kind, o.Name = object.TypeUstack, t.Mode
	case check.Timestamp:
		o.Kind, o.Name = object.TypeTimestamp, t.Mode
	case check.Cgroup:
		o.Kind = object.TypeCgroup
	case check.ProbeName:
		o.Kind = object.TypeProbe
	case check.Errno:
		o.Kind = object.TypeErrno
	case check.Signal:
		o.Kind = object.TypeSignal
	case check.Syscall:
		o.Kind = object.TypeSyscall
	case check.Array:
		elem := showType(t.Elem)
		o.Kind, o.Len, o.Elem = object.TypeArray, t.Len, &elem
	case check.Tuple, check.Record:
		o.Kind = object.TypeTuple
		if t.Kind == check.Record {
			o.Kind = object.TypeRecord
		}
		o.Fields = showFields(t.Fields, 0)
	case check.Struct:
		o.Kind, o.Fields = object.TypeRecord, structFields(t.BTF)
	default:
		o.Kind = object.TypeNone
	}
	return o
}

func showFields(fields []check.Field, base int) []object.Field {
	var out []object.Field
	for _, f := range fields {
		out = append(out, object.Field{Name: f.Name, Offset: base + f.Offset, Type: showType(f.Type)})
	}
	return out
}

func structFields(t btf.Type) []object.Field {
	var members []btf.Member
	switch t := t.(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	var out []object.Field
	for _, m := range members {
		out = append(out, object.Field{
			Name: m.Name, Offset: int(m.Offset / 8), Bits: int(m.BitfieldSize), BitOffset: int(m.Offset % 8),
			Type: showType(check.FromBTF(m.Type)),
		})
	}
	return out
}
