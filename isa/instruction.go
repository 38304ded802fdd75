package isa

import "fmt"

// Instruction is one BPF instruction. The zero value is not valid.
type Instruction struct {
	Op       Opcode
	Dst, Src Register
	Off      int16 // bytes of a memory access, slots of a jump
	// Imm is the 32-bit immediate, sign extended, or all 64 bits of a wide
	// instruction: the first slot's immediate in the low half.
	Imm int64
}

// IsWide reports whether the instruction takes two slots.
func (i Instruction) IsWide() bool { return i.Op == OpLoadImm64 }

// Size returns the instruction's length in 8-byte slots: 2 when wide, else 1.
func (i Instruction) Size() int {
	if i.IsWide() {
		return 2
	}
	return 1
}

// Slots returns the length of insns in 8-byte slots, the unit of jump offsets.
func Slots(insns []Instruction) int {
	n := 0
	for i := range insns {
		n += insns[i].Size()
	}
	return n
}

// Class returns the instruction's class.
func (i Instruction) Class() Class { return i.Op.Class() }

// ALUOp returns the operation of an arithmetic instruction, signed division
// and remainder told apart.
func (i Instruction) ALUOp() ALUOp {
	op := ALUOp(i.Op & 0xf0)
	if (op == Div || op == Mod) && i.Off == 1 {
		op |= 1
	}
	return op
}

// AtomicOp returns the operation of an atomic instruction.
func (i Instruction) AtomicOp() AtomicOp { return AtomicOp(i.Imm) }

// IsAtomic reports whether i is an atomic memory operation.
func (i Instruction) IsAtomic() bool {
	return i.Class() == ClassSTX && i.Op.Mode() == ModeAtomic
}

// IsCall reports whether i calls a helper, a kernel function or a function of
// the program; Src tells which.
func (i Instruction) IsCall() bool { return i.Op == Opcode(ClassJMP)|Opcode(CallOp) }

// IsExit reports whether i returns from its function.
func (i Instruction) IsExit() bool { return i.Op == Opcode(ClassJMP)|Opcode(ExitOp) }

// IsAddrSpaceCast reports whether i converts a pointer between address spaces.
func (i Instruction) IsAddrSpaceCast() bool {
	return i.Op == Opcode(ClassALU64)|Opcode(Mov)|Opcode(SourceReg) && i.Off == offAddrSpaceCast
}

// Low returns the low half of a wide immediate: a descriptor, an index, an id.
func (i Instruction) Low() int32 { return int32(i.Imm) }

// High returns the high half of a wide immediate: an offset, a descriptor.
func (i Instruction) High() int32 { return int32(i.Imm >> 32) }

// Jump returns the distance of a jump in slots from the instruction after it.
// ok is false when i is no jump; calls and exits are none.
func (i Instruction) Jump() (slots int, ok bool) {
	if !i.Class().IsJump() {
		return 0, false
	}
	switch op := i.Op.JumpOp(); {
	case op == Always && i.Class() == ClassJMP32:
		return int(i.Imm), true
	case op == Always, op == JCond, op.IsCompare():
		return int(i.Off), true
	}
	return 0, false
}

// SetJump sets the distance of a jump; see [Instruction.Jump]. It fails when
// the distance does not fit the field, or i is no jump.
func (i *Instruction) SetJump(slots int) error {
	if _, ok := i.Jump(); !ok {
		return fmt.Errorf("%v is not a jump", *i)
	}
	if i.Class() == ClassJMP32 && i.Op.JumpOp() == Always {
		if slots != int(int32(slots)) {
			return fmt.Errorf("jump over %d slots does not fit 32 bits", slots)
		}
		i.Imm = int64(slots)
		return nil
	}
	if slots != int(int16(slots)) {
		return fmt.Errorf("jump over %d slots does not fit 16 bits", slots)
	}
	i.Off = int16(slots)
	return nil
}

// Check reports why an instruction cannot be encoded or would be refused by
// every machine for its form alone: an unknown opcode or register, or a
// reserved field in use. What an instruction does to registers and memory is
// not its business.
func (i Instruction) Check() error {
	if i.Dst >= NumRegisters {
		return fmt.Errorf("register r%d does not exist", i.Dst)
	}
	if i.Src >= NumRegisters {
		return fmt.Errorf("register r%d does not exist", i.Src)
	}
	if !i.IsWide() && i.Imm != int64(int32(i.Imm)) {
		return fmt.Errorf("immediate %#x does not fit 32 bits", i.Imm)
	}
	switch i.Class() {
	case ClassALU, ClassALU64:
		return i.checkALU()
	case ClassJMP, ClassJMP32:
		return i.checkJump()
	}
	return i.checkMemory()
}

func unknown(op Opcode) error { return fmt.Errorf("unknown opcode %#02x", uint8(op)) }

func reserved(field string, value int64) error {
	return fmt.Errorf("reserved field in use: %s is %d, must be 0", field, value)
}

// zero reports the first of the named fields that is not zero: d, s, o, i for
// dst, src, off, imm.
func (i Instruction) zero(fields string) error {
	for _, f := range fields {
		switch {
		case f == 'd' && i.Dst != 0:
			return reserved("dst", int64(i.Dst))
		case f == 's' && i.Src != 0:
			return reserved("src", int64(i.Src))
		case f == 'o' && i.Off != 0:
			return reserved("off", int64(i.Off))
		case f == 'i' && i.Imm != 0:
			return reserved("imm", i.Imm)
		}
	}
	return nil
}

// operand checks the fields that the operand source leaves unused.
func (i Instruction) operand() error {
	if i.Op.Source() == SourceReg {
		return i.zero("i")
	}
	return i.zero("s")
}

func (i Instruction) checkALU() error {
	wide := i.Class() == ClassALU64
	switch op := ALUOp(i.Op & 0xf0); op {
	case Add, Sub, Mul, Or, And, LSh, RSh, Xor, ArSh:
		if err := i.zero("o"); err != nil {
			return err
		}
		return i.operand()
	case Div, Mod:
		if i.Off != 0 && i.Off != 1 {
			return fmt.Errorf("off of a division is %d, must be 0 (unsigned) or 1 (signed)", i.Off)
		}
		return i.operand()
	case Neg:
		if i.Op.Source() == SourceReg {
			return unknown(i.Op)
		}
		return i.zero("soi")
	case Mov:
		if i.Op.Source() == SourceImm {
			return i.zero("so")
		}
		if i.IsAddrSpaceCast() {
			return nil
		}
		if i.Off != 0 && i.Off != 8 && i.Off != 16 && (i.Off != 32 || !wide) {
			return fmt.Errorf("off of a register move is %d, which is no width to sign-extend from", i.Off)
		}
		return i.zero("i")
	case End:
		if wide && i.Op.Source() == SourceReg {
			return unknown(i.Op)
		}
		if i.Imm != 16 && i.Imm != 32 && i.Imm != 64 {
			return fmt.Errorf("width of a byte swap is %d, must be 16, 32 or 64", i.Imm)
		}
		return i.zero("so")
	}
	return unknown(i.Op)
}

func (i Instruction) checkJump() error {
	long := i.Class() == ClassJMP32
	reg := i.Op.Source() == SourceReg
	op := i.Op.JumpOp()
	if op.IsCompare() {
		return i.operand()
	}
	switch {
	case reg:
		return unknown(i.Op)
	case op == Always && long:
		return i.zero("dso")
	case op == Always:
		return i.zero("dsi")
	case long:
		return unknown(i.Op)
	case op == ExitOp:
		return i.zero("dsoi")
	case op == JCond:
		return i.zero("dsi")
	case op == CallOp && i.Src == CallKernel:
		return i.zero("d")
	case op == CallOp:
		if i.Src > CallKernel {
			return fmt.Errorf("unknown kind of call: src is %d, must be 0, 1 or 2", i.Src)
		}
		return i.zero("do")
	}
	return unknown(i.Op)
}

func (i Instruction) checkMemory() error {
	size, mode := i.Op.Size(), i.Op.Mode()
	switch class := i.Class(); {
	case i.IsWide():
		switch i.Src {
		case 0, PseudoMapValue, PseudoMapIndexValue, PseudoBTFID:
		case PseudoMapFD, PseudoMapIndex, PseudoFunc:
			if i.High() != 0 {
				return reserved("imm of the second slot", int64(i.High()))
			}
		default:
			return fmt.Errorf("unknown kind of 64-bit immediate: src is %d", i.Src)
		}
		return i.zero("o")
	case class == ClassLD && mode == ModeAbs && size != Double:
		return i.zero("dso")
	case class == ClassLD && mode == ModeInd && size != Double:
		return i.zero("do")
	case class == ClassLDX && mode == ModeMem, class == ClassLDX && mode == ModeMemSX && size != Double:
		return i.zero("i")
	case class == ClassST && mode == ModeMem:
		return i.zero("s")
	case class == ClassSTX && mode == ModeMem:
		return i.zero("i")
	case i.IsAtomic():
		switch op := i.AtomicOp(); op {
		case AtomicAdd, AtomicOr, AtomicAnd, AtomicXor, FetchAdd, FetchOr, FetchAnd, FetchXor, Xchg, CmpXchg:
			if size != Word && size != Double {
				return fmt.Errorf("atomic operation on %d bytes, must be 4 or 8", size.Bytes())
			}
		case LoadAcquireOp, StoreReleaseOp:
		default:
			return fmt.Errorf("unknown atomic operation %#x", i.Imm)
		}
		return nil
	}
	return unknown(i.Op)
}
