package isa

import "strconv"

// Register is one of the eleven registers of the BPF machine.
type Register uint8

// R0 holds return values, R1 to R5 arguments, R6 to R9 survive calls, R10 is
// the read-only frame pointer.
const (
	R0 Register = iota
	R1
	R2
	R3
	R4
	R5
	R6
	R7
	R8
	R9
	R10
)

// FP is the frame pointer, the end of the frame's stack.
const FP = R10

// NumRegisters counts the registers a program can name.
const NumRegisters = 11

func (r Register) String() string { return "r" + strconv.Itoa(int(r)) }

// Opcode is the first byte of an instruction: a class in the low three bits,
// and for the rest, by class, size and mode or source and operation (RFC 9669,
// section 3).
type Opcode uint8

// Class is the low three bits of an opcode.
type Class uint8

// The instruction classes (RFC 9669, section 3.1).
const (
	ClassLD    Class = 0x00 // wide immediates and legacy packet access
	ClassLDX   Class = 0x01 // load from memory
	ClassST    Class = 0x02 // store an immediate
	ClassSTX   Class = 0x03 // store a register, atomics
	ClassALU   Class = 0x04 // 32-bit arithmetic
	ClassJMP   Class = 0x05 // 64-bit compare and jump, call, exit
	ClassJMP32 Class = 0x06 // 32-bit compare and jump, long jump
	ClassALU64 Class = 0x07 // 64-bit arithmetic
)

// Class returns the instruction class.
func (op Opcode) Class() Class { return Class(op & 0x07) }

// IsLoadStore reports whether the class has a size and a mode.
func (c Class) IsLoadStore() bool { return c <= ClassSTX }

// IsALU reports whether the class is arithmetic.
func (c Class) IsALU() bool { return c == ClassALU || c == ClassALU64 }

// IsJump reports whether the class is one of the jump classes.
func (c Class) IsJump() bool { return c == ClassJMP || c == ClassJMP32 }

// Source is the bit that selects the second operand of arithmetic and jumps.
type Source uint8

// The operand sources.
const (
	SourceImm Source = 0x00 // BPF_K
	SourceReg Source = 0x08 // BPF_X
)

// Source returns the operand source of an arithmetic or jump opcode.
func (op Opcode) Source() Source { return Source(op & 0x08) }

// Size is the width of a memory access.
type Size uint8

// The access widths, in the encoding of the opcode.
const (
	Word   Size = 0x00 // 4 bytes
	Half   Size = 0x08 // 2 bytes
	Byte   Size = 0x10 // 1 byte
	Double Size = 0x18 // 8 bytes
)

// Size returns the access width of a load or store opcode.
func (op Opcode) Size() Size { return Size(op & 0x18) }

// Bytes returns the width in bytes.
func (s Size) Bytes() int {
	switch s {
	case Byte:
		return 1
	case Half:
		return 2
	case Word:
		return 4
	}
	return 8
}

// SizeOf returns the Size of an access of n bytes; ok is false unless n is 1,
// 2, 4 or 8.
func SizeOf(n int) (s Size, ok bool) {
	switch n {
	case 1:
		return Byte, true
	case 2:
		return Half, true
	case 4:
		return Word, true
	case 8:
		return Double, true
	}
	return 0, false
}

// String returns the C type of the width: u8, u16, u32, u64.
func (s Size) String() string { return "u" + strconv.Itoa(8*s.Bytes()) }

// Mode says how a load or store finds its operand.
type Mode uint8

// The addressing modes (RFC 9669, section 5).
const (
	ModeImm    Mode = 0x00 // 64-bit immediate
	ModeAbs    Mode = 0x20 // legacy packet access at a constant offset
	ModeInd    Mode = 0x40 // legacy packet access at a register's offset
	ModeMem    Mode = 0x60 // memory
	ModeMemSX  Mode = 0x80 // memory, sign extended
	ModeAtomic Mode = 0xc0 // atomic memory operation
)

// Mode returns the addressing mode of a load or store opcode.
func (op Opcode) Mode() Mode { return Mode(op & 0xe0) }

// ALUOp is an arithmetic operation. Bit 0, which no opcode has, marks the
// signed division and remainder, which are told apart by the offset field.
type ALUOp uint8

// The arithmetic operations (RFC 9669, section 4.1).
const (
	Add  ALUOp = 0x00
	Sub  ALUOp = 0x10
	Mul  ALUOp = 0x20
	Div  ALUOp = 0x30 // unsigned; x/0 is 0
	Or   ALUOp = 0x40
	And  ALUOp = 0x50
	LSh  ALUOp = 0x60
	RSh  ALUOp = 0x70 // logical
	Neg  ALUOp = 0x80
	Mod  ALUOp = 0x90 // unsigned; x%0 is x
	Xor  ALUOp = 0xa0
	Mov  ALUOp = 0xb0
	ArSh ALUOp = 0xc0 // arithmetic
	End  ALUOp = 0xd0 // byte order conversions

	SDiv ALUOp = Div | 1
	SMod ALUOp = Mod | 1
)

// JumpOp is what a jump class instruction does.
type JumpOp uint8

// The jump operations (RFC 9669, section 4.3; JCond is Linux's).
const (
	Always JumpOp = 0x00 // goto
	Eq     JumpOp = 0x10
	GT     JumpOp = 0x20
	GE     JumpOp = 0x30
	Set    JumpOp = 0x40 // dst & src
	NE     JumpOp = 0x50
	SGT    JumpOp = 0x60
	SGE    JumpOp = 0x70
	CallOp JumpOp = 0x80
	ExitOp JumpOp = 0x90
	LT     JumpOp = 0xa0
	LE     JumpOp = 0xb0
	SLT    JumpOp = 0xc0
	SLE    JumpOp = 0xd0
	JCond  JumpOp = 0xe0 // may_goto
)

// JumpOp returns the operation of a jump class opcode.
func (op Opcode) JumpOp() JumpOp { return JumpOp(op & 0xf0) }

// IsCompare reports whether op compares its two operands.
func (op JumpOp) IsCompare() bool {
	return op >= Eq && op <= SLE && op != CallOp && op != ExitOp
}

// Negate returns the comparison that is true when op is false. There is none
// for Set and for operations that do not compare.
func (op JumpOp) Negate() (JumpOp, bool) {
	switch op {
	case Eq:
		return NE, true
	case NE:
		return Eq, true
	case GT:
		return LE, true
	case LE:
		return GT, true
	case GE:
		return LT, true
	case LT:
		return GE, true
	case SGT:
		return SLE, true
	case SLE:
		return SGT, true
	case SGE:
		return SLT, true
	case SLT:
		return SGE, true
	}
	return op, false
}

// Swap returns the comparison that holds with the operands exchanged.
func (op JumpOp) Swap() JumpOp {
	switch op {
	case GT:
		return LT
	case LT:
		return GT
	case GE:
		return LE
	case LE:
		return GE
	case SGT:
		return SLT
	case SLT:
		return SGT
	case SGE:
		return SLE
	case SLE:
		return SGE
	}
	return op
}

// AtomicOp is the immediate of an atomic instruction.
type AtomicOp int32

// The atomic operations (RFC 9669, section 5.3; LoadAcquireOp and
// StoreReleaseOp are Linux 6.15's).
const (
	AtomicAdd      AtomicOp = 0x00
	AtomicOr       AtomicOp = 0x40
	AtomicAnd      AtomicOp = 0x50
	AtomicXor      AtomicOp = 0xa0
	Fetch          AtomicOp = 0x01 // flag: the old value goes to src
	FetchAdd                = AtomicAdd | Fetch
	FetchOr                 = AtomicOr | Fetch
	FetchAnd                = AtomicAnd | Fetch
	FetchXor                = AtomicXor | Fetch
	Xchg           AtomicOp = 0xe0 | Fetch
	CmpXchg        AtomicOp = 0xf0 | Fetch // compares with r0, old value to r0
	LoadAcquireOp  AtomicOp = 0x100
	StoreReleaseOp AtomicOp = 0x110
)

// Meanings of the source register field of a 64-bit immediate load (RFC 9669,
// section 5.4).
const (
	PseudoMapFD         Register = 1 // BPF_PSEUDO_MAP_FD: a map, by descriptor
	PseudoMapValue      Register = 2 // BPF_PSEUDO_MAP_VALUE: value + offset, map by descriptor
	PseudoBTFID         Register = 3 // BPF_PSEUDO_BTF_ID: a kernel variable
	PseudoFunc          Register = 4 // BPF_PSEUDO_FUNC: a function of the program
	PseudoMapIndex      Register = 5 // BPF_PSEUDO_MAP_IDX: a map, by fd_array index
	PseudoMapIndexValue Register = 6 // BPF_PSEUDO_MAP_IDX_VALUE: value + offset, map by fd_array index
)

// Meanings of the source register field of a call.
const (
	CallHelper Register = 0 // by number
	CallPseudo Register = 1 // BPF_PSEUDO_CALL: a function of the program, relative
	CallKernel Register = 2 // BPF_PSEUDO_KFUNC_CALL: a kernel function, by BTF id
)

// OpLoadImm64 is the opcode of the only instruction that takes two slots.
const OpLoadImm64 = Opcode(ClassLD) | Opcode(ModeImm) | Opcode(Double)

// offAddrSpaceCast marks a 64-bit register move as an address space cast
// (BPF_ADDR_SPACE_CAST in include/linux/filter.h).
const offAddrSpaceCast = 1
