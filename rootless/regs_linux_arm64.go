package rootless

import "encoding/binary"

// The words of struct pt_regs (arch/arm64/include/asm/ptrace.h): 31 registers,
// sp, pc and pstate, which are also struct user_pt_regs, then orig_x0 and
// syscallno.
const (
	slotIP     = 32
	slotSP     = 31
	slotOrigX0 = 34
	slotNr     = 35 // its low half
	regSlots   = 36
	regsetLen  = 34 * 8 // of NT_PRSTATUS
	slotFrame  = 29
	slotPState = 33
)

// slotArgs are the words that hold a system call's arguments.
var slotArgs = [6]int{0, 1, 2, 3, 4, 5}

const (
	nativeArch = 0xc00000b7 // AUDIT_ARCH_AARCH64
	slotResult = 0
)

// syscallInsn is svc #0.
var syscallInsn = []byte{0x01, 0x00, 0x00, 0xd4}

// callRegs are the registers of a call of nr with args at pc.
func callRegs(regs []byte, nr uint64, args []uint64) {
	binary.NativeEndian.PutUint64(regs[8*8:], nr)
	for i, a := range args {
		binary.NativeEndian.PutUint64(regs[8*slotArgs[i]:], a)
	}
}

// callResult is what a call returned.
func callResult(regs []byte) int64 { return int64(binary.NativeEndian.Uint64(regs)) }

// setNumber notes the number of the system call that a thread is in. Its first
// argument is where the result will be, and is kept as the kernel keeps it.
func (r *registers) setNumber(nr uint64) {
	if r.have&1 != 0 {
		r.set(slotOrigX0, r.get(0))
	}
	r.set(slotNr, uint64(uint32(nr)))
	r.set(8, nr)
}

// native64 reports whether the registers are those of a 64-bit program
// (PSR_MODE32_BIT, arch/arm64/include/uapi/asm/ptrace.h).
func native64(regs []byte) bool {
	return binary.NativeEndian.Uint64(regs[8*slotPState:])&0x10 == 0
}

// callNumber is the number of the call that a thread is in, at its end.
func (r *registers) callNumber() uint64 {
	r.set(slotNr, uint64(uint32(r.get(8))))
	return r.get(8)
}
