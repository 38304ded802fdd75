package rootless

import "encoding/binary"

// The words of struct pt_regs (arch/x86/include/asm/ptrace.h), which is also how
// struct user_regs_struct begins.
const (
	slotBP    = 4
	slotAX    = 10
	slotNr    = 15 // orig_ax
	slotIP    = 16
	slotCS    = 17
	slotSP    = 19
	regSlots  = 21
	regsetLen = 27 * 8 // of NT_PRSTATUS
)

// slotArgs are the words that hold a system call's arguments.
var slotArgs = [6]int{14, 13, 12, 7, 9, 8}

const (
	nativeArch = 0xc000003e // AUDIT_ARCH_X86_64
	slotResult = slotAX
	// The caller's frame pointer stands where it points to, the return address
	// above that.
	slotFrame = slotBP
)

// syscallInsn is the instruction that makes a system call.
var syscallInsn = []byte{0x0f, 0x05}

// callRegs are the registers of a call of nr with args at ip.
func callRegs(regs []byte, nr uint64, args []uint64) {
	set := func(slot int, v uint64) { binary.NativeEndian.PutUint64(regs[8*slot:], v) }
	set(slotAX, nr)
	set(slotNr, ^uint64(0)) // not in a call that could be restarted
	for i, a := range args {
		set(slotArgs[i], a)
	}
}

// callResult is what a call returned.
func callResult(regs []byte) int64 { return int64(binary.NativeEndian.Uint64(regs[8*slotAX:])) }

// setNumber notes the number of the system call that is entered.
func (r *registers) setNumber(nr uint64) { r.set(slotNr, nr) }

// native64 reports whether the registers are those of a 64-bit program
// (__USER_CS, arch/x86/include/asm/segment.h).
func native64(regs []byte) bool { return binary.NativeEndian.Uint64(regs[8*slotCS:]) == 0x33 }

// callNumber is the number of the call that a thread is in, at its end.
func (r *registers) callNumber() uint64 { return r.get(slotNr) }
