package ir

import "fmt"

// Kind is the kind of a Type.
type Kind uint8

// The kinds of types that an SSA value can have.
const (
	Void Kind = iota
	Int       // integer of 1, 8, 16, 32 or 64 bits; signedness is in the operations
	Ptr       // pointer into a Space
)

// Type is the type of a value. Types are compared with ==.
type Type struct {
	Kind Kind
	// Bits is the width of an Int. A one-bit integer is a truth value.
	Bits uint8
	// Space is where a Ptr points.
	Space Space
	// Nullable is set when a Ptr may be null and has to be checked before use.
	Nullable bool
	// Size is the number of bytes that may be used behind a Ptr into
	// SpaceMem or SpaceMapValue; zero elsewhere, or when unknown.
	Size uint32
}

// The integer types.
var (
	I1  = Type{Kind: Int, Bits: 1}
	I8  = Type{Kind: Int, Bits: 8}
	I16 = Type{Kind: Int, Bits: 16}
	I32 = Type{Kind: Int, Bits: 32}
	I64 = Type{Kind: Int, Bits: 64}
)

// IntType returns the integer type of a width of 1, 8, 16, 32 or 64 bits.
func IntType(bits int) Type {
	switch bits {
	case 1, 8, 16, 32, 64:
		return Type{Kind: Int, Bits: uint8(bits)}
	}
	panic(fmt.Sprintf("ir: no integer type of %d bits", bits))
}

// PtrTo returns the type of a pointer into space that is never null.
func PtrTo(space Space) Type { return Type{Kind: Ptr, Space: space} }

// MemPtr returns the type of a pointer to size bytes in space.
func MemPtr(space Space, size uint32) Type { return Type{Kind: Ptr, Space: space, Size: size} }

// OrNull returns t as a type that may be null.
func (t Type) OrNull() Type { t.Nullable = true; return t }

// NonNull returns t as a type that is never null.
func (t Type) NonNull() Type { t.Nullable = false; return t }

// IsInt reports whether t is an integer type.
func (t Type) IsInt() bool { return t.Kind == Int }

// IsPtr reports whether t is a pointer type.
func (t Type) IsPtr() bool { return t.Kind == Ptr }

// Bytes is the number of bytes that a value of type t takes in memory.
func (t Type) Bytes() int {
	switch t.Kind {
	case Int:
		return (int(t.Bits) + 7) / 8
	case Ptr:
		return 8
	}
	return 0
}

func (t Type) String() string {
	switch t.Kind {
	case Int:
		return fmt.Sprintf("i%d", t.Bits)
	case Ptr:
		s := "ptr." + t.Space.String()
		if t.Size > 0 {
			s += fmt.Sprintf("[%d]", t.Size)
		}
		if t.Nullable {
			s += "?"
		}
		return s
	}
	return "void"
}

// Space says what memory a pointer points into.
type Space uint8

// The address spaces. How a load is lowered follows from the space:
// direct for all but SpaceKernel and SpaceUser, which are read by
// bpf_probe_read_kernel and bpf_probe_read_user.
const (
	SpaceNone      Space = iota
	SpaceCtx             // the program's context; constant offsets only
	SpaceStack           // the stack frame, by way of an OpAlloca
	SpaceMapValue        // the value of a map element or a global variable
	SpacePacket          // packet data, bounded by a comparison with SpacePacketEnd
	SpacePacketEnd       // the end of the packet: may only be compared
	SpaceBTF             // a kernel object whose type the verifier knows: read directly
	SpaceKernel          // kernel memory of any kind: read by helper, may fault
	SpaceUser            // user memory: read by helper, may fault
	SpaceMem             // memory of Size bytes: a ring buffer record, a dynptr slice
	SpaceMap             // a map itself, for helpers
	SpaceFunc            // a function, for helpers that call back
)

var spaceNames = [...]string{
	SpaceNone: "none", SpaceCtx: "ctx", SpaceStack: "stack", SpaceMapValue: "value",
	SpacePacket: "packet", SpacePacketEnd: "packet_end", SpaceBTF: "btf", SpaceKernel: "kernel",
	SpaceUser: "user", SpaceMem: "mem", SpaceMap: "map", SpaceFunc: "func",
}

func (s Space) String() string {
	if int(s) < len(spaceNames) {
		return spaceNames[s]
	}
	return fmt.Sprintf("space(%d)", uint8(s))
}

// Direct reports whether memory of the space is read by plain loads.
func (s Space) Direct() bool {
	switch s {
	case SpaceCtx, SpaceStack, SpaceMapValue, SpacePacket, SpaceBTF, SpaceMem:
		return true
	}
	return false
}

// Writable reports whether plain stores to the space can be allowed.
// What the verifier allows to a certain program type may be less.
func (s Space) Writable() bool {
	switch s {
	case SpaceCtx, SpaceStack, SpaceMapValue, SpacePacket, SpaceMem:
		return true
	}
	return false
}
