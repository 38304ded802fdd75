package isa

// This file holds the constructors. They check nothing: [Encode] does.

func alu(c Class, op ALUOp, s Source, dst, src Register, imm int32) Instruction {
	return Instruction{
		Op: Opcode(c) | Opcode(op&0xf0) | Opcode(s), Dst: dst, Src: src,
		Off: int16(op & 1), Imm: int64(imm),
	}
}

// ALU64 is dst = dst op src in 64 bits.
func ALU64(op ALUOp, dst, src Register) Instruction {
	return alu(ClassALU64, op, SourceReg, dst, src, 0)
}

// ALU64Imm is dst = dst op imm in 64 bits, imm sign extended.
func ALU64Imm(op ALUOp, dst Register, imm int32) Instruction {
	return alu(ClassALU64, op, SourceImm, dst, 0, imm)
}

// ALU32 is dst = dst op src in 32 bits; the upper half of dst becomes zero.
func ALU32(op ALUOp, dst, src Register) Instruction {
	return alu(ClassALU, op, SourceReg, dst, src, 0)
}

// ALU32Imm is dst = dst op imm in 32 bits; the upper half of dst becomes zero.
func ALU32Imm(op ALUOp, dst Register, imm int32) Instruction {
	return alu(ClassALU, op, SourceImm, dst, 0, imm)
}

// Mov64 is dst = src.
func Mov64(dst, src Register) Instruction { return ALU64(Mov, dst, src) }

// Mov64Imm is dst = imm, sign extended.
func Mov64Imm(dst Register, imm int32) Instruction { return ALU64Imm(Mov, dst, imm) }

// Mov32 is dst = (u32)src.
func Mov32(dst, src Register) Instruction { return ALU32(Mov, dst, src) }

// Mov32Imm is dst = (u32)imm.
func Mov32Imm(dst Register, imm int32) Instruction { return ALU32Imm(Mov, dst, imm) }

// MovSX64 is dst = the low bits (8, 16 or 32) of src, sign extended (Linux 6.6).
func MovSX64(dst, src Register, bits int) Instruction {
	i := Mov64(dst, src)
	i.Off = int16(bits)
	return i
}

// MovSX32 is dst = (u32) of the low bits (8 or 16) of src, sign extended
// (Linux 6.6).
func MovSX32(dst, src Register, bits int) Instruction {
	i := Mov32(dst, src)
	i.Off = int16(bits)
	return i
}

// AddrSpaceCast is dst = src, a pointer converted between address spaces: 0 the
// kernel's, 1 the arena's (Linux 6.9).
func AddrSpaceCast(dst, src Register, dstSpace, srcSpace uint16) Instruction {
	i := Mov64(dst, src)
	i.Off = offAddrSpaceCast
	i.Imm = int64(int32(uint32(dstSpace)<<16 | uint32(srcSpace)))
	return i
}

// Neg64 is dst = -dst.
func Neg64(dst Register) Instruction { return ALU64Imm(Neg, dst, 0) }

// Neg32 is dst = (u32)-dst.
func Neg32(dst Register) Instruction { return ALU32Imm(Neg, dst, 0) }

// SwapLE converts the low bits (16, 32, 64) of dst from or to little endian and
// clears the rest.
func SwapLE(dst Register, bits int) Instruction { return ALU32Imm(End, dst, int32(bits)) }

// SwapBE converts the low bits (16, 32, 64) of dst from or to big endian and
// clears the rest.
func SwapBE(dst Register, bits int) Instruction {
	return alu(ClassALU, End, SourceReg, dst, 0, int32(bits))
}

// Bswap reverses the low bits (16, 32, 64) of dst by bytes and clears the rest
// (Linux 6.6).
func Bswap(dst Register, bits int) Instruction { return ALU64Imm(End, dst, int32(bits)) }

func mem(c Class, m Mode, s Size, dst, src Register, off int16, imm int32) Instruction {
	return Instruction{Op: Opcode(c) | Opcode(m) | Opcode(s), Dst: dst, Src: src, Off: off, Imm: int64(imm)}
}

// LoadMem is dst = *(size *)(src + off), zero extended.
func LoadMem(size Size, dst, src Register, off int16) Instruction {
	return mem(ClassLDX, ModeMem, size, dst, src, off, 0)
}

// LoadMemSX is dst = *(size *)(src + off), sign extended (Linux 6.6).
func LoadMemSX(size Size, dst, src Register, off int16) Instruction {
	return mem(ClassLDX, ModeMemSX, size, dst, src, off, 0)
}

// StoreMem is *(size *)(dst + off) = src.
func StoreMem(size Size, dst Register, off int16, src Register) Instruction {
	return mem(ClassSTX, ModeMem, size, dst, src, off, 0)
}

// StoreImm is *(size *)(dst + off) = imm, sign extended.
func StoreImm(size Size, dst Register, off int16, imm int32) Instruction {
	return mem(ClassST, ModeMem, size, dst, 0, off, imm)
}

// LoadAbs is r0 = the packet's bytes at imm, from network byte order; r6 holds
// the context.
func LoadAbs(size Size, imm int32) Instruction {
	return mem(ClassLD, ModeAbs, size, 0, 0, 0, imm)
}

// LoadInd is r0 = the packet's bytes at src + imm, from network byte order; r6
// holds the context.
func LoadInd(size Size, src Register, imm int32) Instruction {
	return mem(ClassLD, ModeInd, size, 0, src, 0, imm)
}

// Atomic is *(size *)(dst + off) op= src. With [Fetch] the old value goes to src,
// with [CmpXchg] to r0. Sizes are [Word] and [Double].
func Atomic(op AtomicOp, size Size, dst Register, off int16, src Register) Instruction {
	return mem(ClassSTX, ModeAtomic, size, dst, src, off, int32(op))
}

// LoadAcquire is dst = *(size *)(src + off) with acquire order (Linux 6.15).
func LoadAcquire(size Size, dst, src Register, off int16) Instruction {
	return mem(ClassSTX, ModeAtomic, size, dst, src, off, int32(LoadAcquireOp))
}

// StoreRelease is *(size *)(dst + off) = src with release order (Linux 6.15).
func StoreRelease(size Size, dst Register, off int16, src Register) Instruction {
	return mem(ClassSTX, ModeAtomic, size, dst, src, off, int32(StoreReleaseOp))
}

func wide(dst, src Register, low, high uint32) Instruction {
	return Instruction{Op: OpLoadImm64, Dst: dst, Src: src, Imm: int64(uint64(high)<<32 | uint64(low))}
}

// LoadImm64 is dst = imm.
func LoadImm64(dst Register, imm int64) Instruction {
	return Instruction{Op: OpLoadImm64, Dst: dst, Imm: imm}
}

// LoadMapFD is dst = the map with descriptor fd.
func LoadMapFD(dst Register, fd int32) Instruction { return wide(dst, PseudoMapFD, uint32(fd), 0) }

// LoadMapValue is dst = the address of the only value of the array map with
// descriptor fd, plus off.
func LoadMapValue(dst Register, fd int32, off uint32) Instruction {
	return wide(dst, PseudoMapValue, uint32(fd), off)
}

// LoadMapIndex is dst = the map at index in the load's fd_array.
func LoadMapIndex(dst Register, index int32) Instruction {
	return wide(dst, PseudoMapIndex, uint32(index), 0)
}

// LoadMapIndexValue is [LoadMapValue] for the map at index in the load's fd_array.
func LoadMapIndexValue(dst Register, index int32, off uint32) Instruction {
	return wide(dst, PseudoMapIndexValue, uint32(index), off)
}

// LoadBTFID is dst = the address of the kernel variable with the BTF type id, of
// the module whose BTF object has descriptor objFD (0: vmlinux).
func LoadBTFID(dst Register, id, objFD int32) Instruction {
	return wide(dst, PseudoBTFID, uint32(id), uint32(objFD))
}

// LoadFunc is dst = the function slots away from the instruction's second slot
// plus one, as a call is relative; for callbacks.
func LoadFunc(dst Register, slots int32) Instruction {
	return wide(dst, PseudoFunc, uint32(slots), 0)
}

func jump(c Class, op JumpOp, s Source, dst, src Register, off int16, imm int32) Instruction {
	return Instruction{Op: Opcode(c) | Opcode(op) | Opcode(s), Dst: dst, Src: src, Off: off, Imm: int64(imm)}
}

// Jump goes off slots beyond the next instruction.
func Jump(off int16) Instruction { return jump(ClassJMP, Always, SourceImm, 0, 0, off, 0) }

// JumpLong is [Jump] with a 32-bit distance (Linux 6.6).
func JumpLong(off int32) Instruction { return jump(ClassJMP32, Always, SourceImm, 0, 0, 0, off) }

// MayGoto jumps when the program's loop budget is spent (Linux 6.9).
func MayGoto(off int16) Instruction { return jump(ClassJMP, JCond, SourceImm, 0, 0, off, 0) }

// JumpIf jumps if dst op src, compared in 64 bits.
func JumpIf(op JumpOp, dst, src Register, off int16) Instruction {
	return jump(ClassJMP, op, SourceReg, dst, src, off, 0)
}

// JumpIfImm jumps if dst op imm, compared in 64 bits, imm sign extended.
func JumpIfImm(op JumpOp, dst Register, imm int32, off int16) Instruction {
	return jump(ClassJMP, op, SourceImm, dst, 0, off, imm)
}

// JumpIf32 jumps if dst op src, compared in 32 bits.
func JumpIf32(op JumpOp, dst, src Register, off int16) Instruction {
	return jump(ClassJMP32, op, SourceReg, dst, src, off, 0)
}

// JumpIf32Imm jumps if dst op imm, compared in 32 bits.
func JumpIf32Imm(op JumpOp, dst Register, imm int32, off int16) Instruction {
	return jump(ClassJMP32, op, SourceImm, dst, 0, off, imm)
}

func call(kind Register, off int16, imm int32) Instruction {
	return jump(ClassJMP, CallOp, SourceImm, 0, kind, off, imm)
}

// Call calls the helper with the number id.
func Call(id int32) Instruction { return call(CallHelper, 0, id) }

// CallLocal calls the function slots beyond the next instruction.
func CallLocal(slots int32) Instruction { return call(CallPseudo, 0, slots) }

// CallKfunc calls the kernel function with the BTF id, of vmlinux (fdIndex 0)
// or of the module whose BTF stands at fdIndex in the load's fd_array.
func CallKfunc(id int32, fdIndex int16) Instruction { return call(CallKernel, fdIndex, id) }

// Exit returns r0 to the caller.
func Exit() Instruction { return jump(ClassJMP, ExitOp, SourceImm, 0, 0, 0, 0) }
