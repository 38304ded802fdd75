package ir

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/source"
)

// A Value is one SSA value: an operation, its operands and its result.
// Operations without a result (stores, some calls) have type Void.
type Value struct {
	ID    int32
	Op    Op
	Type  Type
	Args  []*Value
	Block *Block
	// Int is the constant of OpConst, and where an Op says so a size,
	// a width or a sub-operation.
	Int int64
	// Aux is what an Op refers to beyond values; its type is told at the Op.
	Aux  any
	Name string // a hint for people, e.g. the variable's name; may be empty
	Pos  source.Span
}

// Op is an operation.
type Op uint8

// The operations. "x" and "y" are Args[0] and Args[1].
const (
	OpInvalid Op = iota

	// OpParam is a parameter of its block.
	OpParam
	// OpConst is the integer Int, or the null pointer. The bits of Int above
	// the type's width are zero for an unsigned reading: an I8 of -1 is 0xff.
	OpConst

	// Integer arithmetic: operands and result have one integer type.
	// Division by zero gives 0, modulo zero gives x, shift counts are taken
	// modulo the width, as RFC 9669 section 4.1 has it.
	OpAdd
	OpSub
	OpMul
	OpUDiv
	OpSDiv
	OpUMod
	OpSMod
	OpAnd
	OpOr
	OpXor
	OpShl
	OpLShr
	OpAShr
	OpNeg
	// OpSwap reverses the bytes of x (I16, I32, I64).
	OpSwap

	// Comparisons: operands have one type, the result is I1. Pointers may be
	// compared for equality with null, and packet pointers with each other.
	OpEq
	OpNe
	OpULt
	OpULe
	OpUGt
	OpUGe
	OpSLt
	OpSLe
	OpSGt
	OpSGe

	// Conversions between integer widths.
	OpTrunc
	OpZExt
	OpSExt
	// OpIntToPtr and OpPtrToInt go between I64 and pointers.
	OpIntToPtr
	OpPtrToInt
	// OpNonNull is x, known not to be null because a branch on it says so.
	OpNonNull
	// OpPtrCast is x with another space, which the author of the code vouches for.
	OpPtrCast

	// OpAlloca is the address of Int bytes in the frame, aligned to 8, that
	// hold nothing at first. Aux is nil or the btf.Type that lives there.
	// It stands in the entry block.
	OpAlloca
	// OpPtrAdd is the pointer x moved by the I64 y.
	OpPtrAdd
	// OpField is the address of a field behind pointer x. Aux is a *FieldRef.
	// The offset is relocated (CO-RE) when the field is one of the kernel's.
	OpField
	// OpCore is a fact of the target's types that the loader fills in (CO-RE),
	// an integer. Aux is a *CoreRef.
	OpCore

	// OpGlobal is the address of a variable. Aux is a *Global.
	OpGlobal
	// OpMap is a map, for helpers. Aux is a *Map.
	OpMap
	// OpFunc is a function, for helpers that call back. Aux is a *Func.
	OpFunc
	// OpKsym is the address of a kernel symbol, or of a kconfig value.
	// Aux is an *Extern.
	OpKsym

	// OpLoad reads a value of its type at pointer x.
	// A failed read by helper gives 0. Int is VolatileAccess for one that is
	// volatile as C has it: it stays, in its order, and reads anew.
	OpLoad
	// OpStore writes y at pointer x. Int is as for a load.
	OpStore
	// OpMemCopy copies Int bytes to pointer x from pointer y; they do not
	// overlap. A failed read by helper leaves zeros. The result is I64: 0, or
	// the helper's negative error.
	OpMemCopy
	// OpMemZero clears Int bytes at pointer x.
	OpMemZero
	// OpAtomic changes memory at pointer x by y in one step. Int is an
	// AtomicOp. The result is the value before, or Void when not wanted;
	// for AtomicCmpXchg Args[1] is the expected and Args[2] the new value.
	OpAtomic

	// OpCall calls Aux, a *Func or an *Extern (helper or kfunc).
	OpCall

	numOps
)

var opNames = [numOps]string{
	OpInvalid: "invalid", OpParam: "param", OpConst: "const",
	OpAdd: "add", OpSub: "sub", OpMul: "mul", OpUDiv: "udiv", OpSDiv: "sdiv", OpUMod: "umod",
	OpSMod: "smod", OpAnd: "and", OpOr: "or", OpXor: "xor", OpShl: "shl", OpLShr: "lshr",
	OpAShr: "ashr", OpNeg: "neg", OpSwap: "swap",
	OpEq: "eq", OpNe: "ne", OpULt: "ult", OpULe: "ule", OpUGt: "ugt", OpUGe: "uge",
	OpSLt: "slt", OpSLe: "sle", OpSGt: "sgt", OpSGe: "sge",
	OpTrunc: "trunc", OpZExt: "zext", OpSExt: "sext", OpIntToPtr: "inttoptr", OpPtrToInt: "ptrtoint",
	OpNonNull: "nonnull", OpPtrCast: "ptrcast",
	OpAlloca: "alloca", OpPtrAdd: "ptradd", OpField: "field", OpCore: "core",
	OpGlobal: "global", OpMap: "map", OpFunc: "func", OpKsym: "ksym",
	OpLoad: "load", OpStore: "store", OpMemCopy: "memcopy", OpMemZero: "memzero", OpAtomic: "atomic",
	OpCall: "call",
}

func (op Op) String() string {
	if op < numOps {
		return opNames[op]
	}
	return fmt.Sprintf("op(%d)", uint8(op))
}

// IsBinary reports whether op is two-operand integer arithmetic.
func (op Op) IsBinary() bool { return op >= OpAdd && op <= OpAShr }

// IsCompare reports whether op compares.
func (op Op) IsCompare() bool { return op >= OpEq && op <= OpSGe }

// Commutes reports whether the operands of op may change places.
func (op Op) Commutes() bool {
	switch op {
	case OpAdd, OpMul, OpAnd, OpOr, OpXor, OpEq, OpNe:
		return true
	}
	return false
}

// Negate returns the comparison that is true when op is false.
func (op Op) Negate() Op {
	switch op {
	case OpEq:
		return OpNe
	case OpNe:
		return OpEq
	case OpULt:
		return OpUGe
	case OpULe:
		return OpUGt
	case OpUGt:
		return OpULe
	case OpUGe:
		return OpULt
	case OpSLt:
		return OpSGe
	case OpSLe:
		return OpSGt
	case OpSGt:
		return OpSLe
	case OpSGe:
		return OpSLt
	}
	panic("ir: Negate of " + op.String())
}

// Swap returns the comparison that holds for (y, x) when op holds for (x, y).
func (op Op) Swap() Op {
	switch op {
	case OpEq, OpNe:
		return op
	case OpULt:
		return OpUGt
	case OpULe:
		return OpUGe
	case OpUGt:
		return OpULt
	case OpUGe:
		return OpULe
	case OpSLt:
		return OpSGt
	case OpSLe:
		return OpSGe
	case OpSGt:
		return OpSLt
	case OpSGe:
		return OpSLe
	}
	panic("ir: Swap of " + op.String())
}

// AtomicOp is the sub-operation of OpAtomic.
type AtomicOp int64

// The atomic operations (RFC 9669 section 5.3).
const (
	AtomicAdd AtomicOp = iota
	AtomicAnd
	AtomicOr
	AtomicXor
	AtomicXchg
	AtomicCmpXchg
)

var atomicNames = [...]string{"add", "and", "or", "xor", "xchg", "cmpxchg"}

func (a AtomicOp) String() string { return atomicNames[a] }

// A FieldRef names a field of a struct or union by a path of member indices,
// through nested members and array elements, starting at Struct.
type FieldRef struct {
	// Struct is a *btf.Struct or *btf.Union, or an array or typedef of such.
	Struct btf.Type
	// Path are indices of members and array elements: [3, 0] is the first
	// member (or element) of the fourth member.
	Path []int
	// Offset is that of the field on the machine compiled for, in bytes.
	Offset uint32
	// Relocate asks for a CO-RE relocation: the layout is the kernel's.
	Relocate bool
}

// CoreKind is what an OpCore asks of the target. The values are those of
// enum bpf_core_relo_kind (include/uapi/linux/bpf.h).
type CoreKind uint8

// The kinds of CO-RE relocation.
const (
	CoreFieldByteOffset CoreKind = iota
	CoreFieldByteSize
	CoreFieldExists
	CoreFieldSigned
	CoreFieldLShiftU64
	CoreFieldRShiftU64
	CoreTypeIDLocal
	CoreTypeIDTarget
	CoreTypeExists
	CoreTypeSize
	CoreEnumvalExists
	CoreEnumvalValue
	CoreTypeMatches
)

var coreNames = [...]string{
	"field_offset", "field_size", "field_exists", "field_signed",
	"field_lshift", "field_rshift", "type_id_local", "type_id_target",
	"type_exists", "type_size", "enumval_exists", "enumval_value", "type_matches",
}

func (k CoreKind) String() string { return coreNames[k] }

// A CoreRef asks for a fact of the target's types.
type CoreRef struct {
	Kind CoreKind
	Type btf.Type
	// Path is as in FieldRef for the field kinds; for the enum kinds its one
	// element is the index of the enumerator.
	Path []int
	// Local is the fact on the machine compiled for.
	Local int64
}

// Effects are what an operation does beyond computing its result from its operands.
type Effects struct {
	Reads  SpaceSet // memory it may read
	Writes SpaceSet // memory it may write
	// Volatile means that two runs may give different results, or that
	// something outside the program may notice: it is neither merged nor
	// moved, and it is kept when its result is not used.
	Volatile bool
	// Fills means that a function writes nothing but as many bytes as its
	// second operand says to where its first points, and that what it returns
	// and writes follows from the operands behind them and from what it reads.
	// Bytes that it leaves as they are it might as well clear.
	Fills bool
	// Finds means that a volatile function looks for the key that its second
	// operand points to in the map that is its first, and finds the same again
	// until memory is written by another call.
	Finds bool
}

// None reports whether an operation is a pure function of its operands:
// it may be moved, merged with an equal one, or dropped when not used.
func (e Effects) None() bool { return e == Effects{} }

// A SpaceSet is a set of spaces.
type SpaceSet uint16

// Spaces returns the set of the given spaces.
func Spaces(list ...Space) SpaceSet {
	var set SpaceSet
	for _, s := range list {
		set |= 1 << s
	}
	return set
}

// AnyMemory is all memory that a program may read or write.
var AnyMemory = Spaces(SpaceCtx, SpaceStack, SpaceMapValue, SpacePacket, SpaceBTF, SpaceKernel, SpaceUser, SpaceMem)

// Has reports whether s is in the set.
func (set SpaceSet) Has(s Space) bool { return set&(1<<s) != 0 }

// VolatileAccess is the Int of loads and stores that are volatile.
const VolatileAccess = 1

// IsVolatile reports whether v is a volatile load or store.
func (v *Value) IsVolatile() bool {
	return (v.Op == OpLoad || v.Op == OpStore) && v.Int == VolatileAccess
}

// Effects returns what v does beyond computing its result.
func (v *Value) Effects() Effects {
	switch v.Op {
	case OpLoad:
		return Effects{Reads: Spaces(v.Args[0].Type.Space), Volatile: v.IsVolatile()}
	case OpStore, OpMemZero:
		return Effects{Writes: Spaces(v.Args[0].Type.Space), Volatile: v.IsVolatile()}
	case OpMemCopy:
		return Effects{Reads: Spaces(v.Args[1].Type.Space), Writes: Spaces(v.Args[0].Type.Space)}
	case OpAtomic:
		s := Spaces(v.Args[0].Type.Space)
		return Effects{Reads: s, Writes: s, Volatile: true}
	case OpCall:
		if e, ok := v.Aux.(*Extern); ok {
			return e.Effect
		}
		return Effects{Reads: AnyMemory, Writes: AnyMemory, Volatile: true}
	}
	return Effects{}
}

// IsConst reports whether v is a constant, and which.
func (v *Value) IsConst() (int64, bool) {
	if v.Op == OpConst {
		return v.Int, true
	}
	return 0, false
}
