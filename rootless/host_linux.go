//go:build amd64 || arm64

package rootless

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/vm"
)

func clock(id int32) func() uint64 {
	return func() uint64 {
		var ts unix.Timespec
		if unix.ClockGettime(id, &ts) != nil {
			return 0
		}
		return uint64(ts.Nano())
	}
}

// host answers what programs ask of their surroundings: of the task that is
// stopped, or of skep where it runs a program for itself. All of it is called
// while the machine's lock is held, by the run.
func (m *userMachine) host(l *loaded) vm.Host {
	return vm.Host{
		Monotonic: clock(unix.CLOCK_MONOTONIC), Boot: clock(unix.CLOCK_BOOTTIME), TAI: clock(unix.CLOCK_TAI),
		MonotonicCoarse: clock(unix.CLOCK_MONOTONIC_COARSE),
		ReadKernel: func(addr uint64, dst []byte) bool {
			off := addr - regsAddress
			if m.now == nil || off >= regSlots*8 || off+uint64(len(dst)) > regSlots*8 || !m.now.regs.need(m.now.tid, int(off), len(dst)) {
				return false
			}
			copy(dst, m.now.regs.data[off:])
			return true
		},
		ReadUser: func(addr uint64, dst []byte) bool { return m.now != nil && readUser(m.now.tid, addr, dst) },
		Stack: func(user bool) []uint64 {
			if m.now == nil || !user {
				return nil
			}
			return m.now.stack()
		},
		Cookie: func() uint64 { return m.cookie },
		Print: func(text string) {
			if m.now == nil {
				l.lines.print(os.Getpid(), "skep", 0, text)
				return
			}
			var name [16]byte
			m.now.name(name[:])
			l.lines.print(m.now.tid, string(bytes.TrimRight(name[:], "\x00")), int(m.now.cpu()), text)
		},
	}
}

// helpers are those that ask for one thing of the task each, so that no more is
// looked up than a program wants.
func (m *userMachine) helpers() map[string]vm.HelperFunc {
	return map[string]vm.HelperFunc{
		"bpf_get_current_pid_tgid": func(*vm.Call) uint64 {
			if t := m.now; t != nil {
				return uint64(t.process())<<32 | uint64(uint32(t.tid))
			}
			return uint64(os.Getpid())<<32 | uint64(os.Getpid())
		},
		"bpf_get_current_uid_gid": func(*vm.Call) uint64 {
			t := m.now
			if t == nil {
				return uint64(os.Getgid())<<32 | uint64(uint32(os.Getuid()))
			}
			uid, _ := t.status("Uid:")
			gid, _ := t.status("Gid:")
			return gid<<32 | uid
		},
		"bpf_get_current_comm": func(c *vm.Call) uint64 {
			dst, ok := c.Memory(c.Arg(1), int(uint32(c.Arg(2))))
			if !ok {
				return vm.EFAULT.Result()
			}
			if t := m.now; t != nil {
				t.name(dst)
				return 0
			}
			text, _ := os.ReadFile("/proc/self/comm")
			clear(dst)
			copy(dst[:max(len(dst)-1, 0)], bytes.TrimSuffix(text, []byte("\n")))
			return 0
		},
		"bpf_get_smp_processor_id": func(*vm.Call) uint64 {
			if t := m.now; t != nil {
				return t.cpu()
			}
			var cpu uint32
			_, _, _ = unix.RawSyscall(unix.SYS_GETCPU, addressOf(&cpu), 0, 0)
			return uint64(cpu)
		},
		"bpf_get_current_cgroup_id": func(*vm.Call) uint64 {
			if t := m.now; t != nil {
				return t.cgroup()
			}
			return cgroupOf("self")
		},
		"bpf_probe_read_user_str": func(c *vm.Call) uint64 {
			dst, ok := c.Memory(c.Arg(1), int(uint32(c.Arg(2))))
			if !ok {
				return vm.EFAULT.Result()
			}
			return m.readString(dst, c.Arg(3))
		},
	}
}

// page is a size that divides that of every machine's pages.
const page = 4096

// readString copies a string of the task with its zero and returns its length, a
// page at most at a time: what follows may not be there.
func (m *userMachine) readString(dst []byte, addr uint64) uint64 {
	if len(dst) == 0 {
		return 0
	}
	var text [page]byte
	for n := 0; n < len(dst); {
		chunk := text[:min(uint64(len(dst)-n), page-(addr+uint64(n))%page)]
		if m.now == nil || !readUser(m.now.tid, addr+uint64(n), chunk) {
			clear(dst)
			return vm.EFAULT.Result()
		}
		if end := bytes.IndexByte(chunk, 0); end >= 0 {
			copy(dst[n:], chunk[:end+1])
			return uint64(n + end + 1)
		}
		n += copy(dst[n:], chunk)
	}
	dst[len(dst)-1] = 0
	return uint64(len(dst))
}
