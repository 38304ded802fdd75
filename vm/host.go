package vm

import (
	"math/rand/v2"
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
	// LookupRoute is bpf_fib_lookup: it gets the program's struct bpf_fib_lookup, 64
	// bytes which it fills in, and BPF_FIB_LOOKUP_* flags, and returns
	// BPF_FIB_LKUP_RET_*, or an Errno negative. nil knows no route
	// (BPF_FIB_LKUP_RET_NOT_FWDED).
	LookupRoute func(params []byte, flags uint32) int
	// LookupSocket is bpf_sk_lookup_tcp and its like; nil for none.
	LookupSocket func(q SocketQuery) *Socket
	// Socket is the one that a packet belongs to, or nil: bpf_get_socket_cookie
	// and bpf_get_socket_uid tell of it.
	Socket func() *Socket
	// NetnsCookie is bpf_get_netns_cookie; 0 is 1, as that of the first namespace.
	NetnsCookie uint64
	// MTU is that of a network device, by its number, or 0 where there is none; 0
	// stands for the packet's. Where it is nil, all have 1500.
	MTU func(ifindex uint32) uint32
	// Signal is bpf_send_signal, to the process or to its thread. An Errno is what
	// the program gets. Where it is nil none may be sent.
	Signal func(number uint32, thread bool) error
	// Sysctl is what programs of type cgroup_sysctl decide about.
	Sysctl func() *Sysctl
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
	// Ancestors are the control groups above that, the root first.
	Ancestors []uint64
	// PIDNamespace and PIDNamespaceDev are the inode and the device of the
	// namespace that PID and TGID are numbers of, for
	// bpf_get_ns_current_pid_tgid.
	PIDNamespace, PIDNamespaceDev uint64
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
		h.Random = rand.Uint32
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
	if h.LookupRoute == nil {
		h.LookupRoute = func([]byte, uint32) int { return 4 }
	}
	if h.LookupSocket == nil {
		h.LookupSocket = func(SocketQuery) *Socket { return nil }
	}
	if h.Socket == nil {
		h.Socket = func() *Socket { return nil }
	}
	if h.NetnsCookie == 0 {
		h.NetnsCookie = 1
	}
	if h.MTU == nil {
		h.MTU = func(uint32) uint32 { return 1500 }
	}
	if h.Signal == nil {
		h.Signal = func(uint32, bool) error { return EPERM }
	}
	if h.Sysctl == nil {
		h.Sysctl = func() *Sysctl { return &Sysctl{} }
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
