//go:build amd64 || arm64

package rootless

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of include/uapi/linux/ptrace.h that the library does not name.
const (
	ptraceGetSyscallInfo = 0x420e
	eventSeccomp         = unix.PTRACE_EVENT_SECCOMP
	eventStop            = 128 // PTRACE_EVENT_STOP
	noteStatus           = 1   // NT_PRSTATUS

	infoEntry, infoExit, infoSeccomp = 1, 2, 3 // PTRACE_SYSCALL_INFO_*
)

// A syscallInfo is struct ptrace_syscall_info.
type syscallInfo struct {
	op     uint8
	_      [3]uint8
	arch   uint32
	ip, sp uint64
	nr     uint64 // of an entry; what an exit returns
	args   [6]uint64
	_      uint64
}

func (i *syscallInfo) result() int64 { return int64(i.nr) }

// ptrace makes a request that returns nothing. It does not block, so it does not
// tell the scheduler of Go.
func ptrace(request, tid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func ptracePointer(request, tid int, addr uintptr, data unsafe.Pointer) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, uintptr(data), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// getInfo asks for what a stop at a system call is about.
func getInfo(tid int, info *syscallInfo) error {
	return ptracePointer(ptraceGetSyscallInfo, tid, unsafe.Sizeof(*info), unsafe.Pointer(info))
}

// eventMessage is what belongs to an event: the number of a new process.
func eventMessage(tid int) (uint64, error) {
	var msg uint64
	err := ptracePointer(unix.PTRACE_GETEVENTMSG, tid, 0, unsafe.Pointer(&msg))
	return msg, err
}

type iovec struct {
	base unsafe.Pointer
	len  uintptr
}

func getRegs(tid int, regs []byte) error {
	v := iovec{unsafe.Pointer(&regs[0]), uintptr(min(len(regs), regsetLen))}
	return ptracePointer(unix.PTRACE_GETREGSET, tid, noteStatus, unsafe.Pointer(&v))
}

func setRegs(tid int, regs []byte) error {
	v := iovec{unsafe.Pointer(&regs[0]), uintptr(min(len(regs), regsetLen))}
	return ptracePointer(unix.PTRACE_SETREGSET, tid, noteStatus, unsafe.Pointer(&v))
}

// readUser copies memory of a process (process_vm_readv) and reports whether all
// of it is there.
func readUser(pid int, addr uint64, dst []byte) bool {
	if len(dst) == 0 {
		return true
	}
	local := iovec{unsafe.Pointer(&dst[0]), uintptr(len(dst))}
	remote := [2]uint64{addr, uint64(len(dst))} // struct iovec of the other process
	n, _, e := unix.RawSyscall6(unix.SYS_PROCESS_VM_READV, uintptr(pid), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	return e == 0 && int(n) == len(dst)
}

// registers are a thread's, as struct pt_regs has them. Those that a stop tells
// for free are there at once, the others when they are asked for.
type registers struct {
	data [max(regSlots*8, regsetLen)]byte
	have uint64 // a bit for each word
}

const allSlots = 1<<regSlots - 1

func (r *registers) set(slot int, v uint64) {
	binary.NativeEndian.PutUint64(r.data[8*slot:], v)
	r.have |= 1 << slot
}

func (r *registers) get(slot int) uint64 { return binary.NativeEndian.Uint64(r.data[8*slot:]) }

// enter takes in what is known of a call at its entry.
func (r *registers) enter(info *syscallInfo) {
	r.have = 0
	for i, slot := range slotArgs {
		r.set(slot, info.args[i])
	}
	r.setNumber(info.nr)
	r.set(slotIP, info.ip)
	r.set(slotSP, info.sp)
}

// leave takes in what is known of call nr at its end.
func (r *registers) leave(info *syscallInfo, nr uint64) {
	r.have = 0
	r.setNumber(nr)
	r.set(slotResult, info.nr)
	r.set(slotIP, info.ip)
	r.set(slotSP, info.sp)
}

// need makes the words of a range of bytes known.
func (r *registers) need(tid, off, n int) bool {
	if n == 0 {
		return true
	}
	words := uint64(1)<<((off+n+7)/8) - uint64(1)<<(off/8)
	if words&^r.have == 0 {
		return true
	}
	// What ptrace does not tell of, the stop did.
	var kept [regSlots]uint64
	for i := range kept {
		kept[i] = r.get(i)
	}
	if getRegs(tid, r.data[:]) != nil {
		return false
	}
	for i := regsetLen / 8; i < regSlots; i++ {
		r.set(i, kept[i])
	}
	r.have = allSlots
	return true
}
