package vm

import (
	"crypto/rand"
	"encoding/binary"
	"os"
	"time"
)

// A Host answers what programs ask of their surroundings. Functions that are
// nil are answered by this process. All may be called from several goroutines.
type Host struct {
	// Monotonic is the clock of bpf_ktime_get_ns, in nanoseconds; Boot, TAI and
	// MonotonicCoarse are those of bpf_ktime_get_boot_ns, _tai_ns and _coarse_ns,
	// and where nil the same as Monotonic, but for TAI.
	Monotonic, Boot, TAI, MonotonicCoarse func() uint64
	// Random is bpf_get_prandom_u32.
	Random func() uint32
	// Process is who runs: bpf_get_current_pid_tgid and its like.
	Process func() Process
	// ReadKernel and ReadUser copy memory for bpf_probe_read_kernel and
	// bpf_probe_read_user, and report whether it is there. Where they are nil none
	// is.
	ReadKernel, ReadUser func(addr uint64, dst []byte) bool
	// WriteUser is for bpf_probe_write_user.
	WriteUser func(addr uint64, src []byte) bool
	// Print gets what programs print with bpf_printk, each a line or a part of
	// one.
	Print func(text string)
	// Stack returns the return addresses of a stack for bpf_get_stack and stack
	// maps, innermost first; user is whether it is the process's own.
	Stack func(user bool) []uint64
	// Cookie is bpf_get_attach_cookie.
	Cookie func() uint64
	// AfterFunc calls f once d has passed, unless what it returns is called
	// before; programs' timers are made with it. nil is time.AfterFunc.
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
}

// A Process is the identity that a program sees.
type Process struct {
	PID, TGID uint32 // of the thread, and of the process
	UID, GID  uint32
	Comm      string
	CgroupID  uint64
	// Task is the address of the task's structure, for bpf_get_current_task and
	// what the host knows by it.
	Task uint64
}

func (h Host) filled() Host {
	if h.Monotonic == nil {
		h.Monotonic = monotonic
	}
	if h.Boot == nil {
		h.Boot = h.Monotonic
	}
	if h.MonotonicCoarse == nil {
		h.MonotonicCoarse = h.Monotonic
	}
	if h.TAI == nil {
		h.TAI = func() uint64 { return uint64(time.Now().UnixNano()) + 37e9 } // leap seconds since 2017
	}
	if h.Random == nil {
		h.Random = func() uint32 {
			var b [4]byte
			_, _ = rand.Read(b[:])
			return binary.NativeEndian.Uint32(b[:])
		}
	}
	if h.Process == nil {
		p := Process{PID: uint32(os.Getpid()), TGID: uint32(os.Getpid()), UID: uint32(max(0, os.Getuid())), GID: uint32(max(0, os.Getgid()))}
		if exe, err := os.Executable(); err == nil {
			p.Comm = lastElement(exe)
		}
		h.Process = func() Process { return p }
	}
	none := func(uint64, []byte) bool { return false }
	if h.ReadKernel == nil {
		h.ReadKernel = none
	}
	if h.ReadUser == nil {
		h.ReadUser = none
	}
	if h.WriteUser == nil {
		h.WriteUser = none
	}
	if h.Print == nil {
		h.Print = func(string) {}
	}
	if h.Stack == nil {
		h.Stack = func(bool) []uint64 { return nil }
	}
	if h.AfterFunc == nil {
		h.AfterFunc = func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }
	}
	if h.Cookie == nil {
		h.Cookie = func() uint64 { return 0 }
	}
	return h
}

func lastElement(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if os.IsPathSeparator(path[i]) {
			return path[i+1:]
		}
	}
	return path
}
