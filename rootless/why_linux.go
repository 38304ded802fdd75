//go:build amd64 || arm64

package rootless

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// whyNot says why a process cannot be traced, and what to do.
func whyNot(pid int, err error) error {
	if errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("there is no process %d", pid)
	}
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("process %d cannot be traced: %w", pid, err)
	}
	if tracer, ok := statusOf(pid, "TracerPid:"); ok && tracer != 0 {
		if process, ok := statusOf(int(tracer), "Tgid:"); ok {
			tracer = process // not the thread in it that traces
		}
		return fmt.Errorf("process %d is traced by process %d already, and a process has one tracer: end that one first", pid, tracer)
	}
	if uid, ok := statusOf(pid, "Uid:"); ok && os.Geteuid() != 0 && int(uid) != os.Geteuid() {
		return fmt.Errorf("process %d belongs to user %d, and this is user %d: run as that user, or as root", pid, uid, os.Geteuid())
	}
	if why := yama(); why != "" {
		return fmt.Errorf("process %d cannot be traced: %s", pid, why)
	}
	return fmt.Errorf("process %d cannot be traced: it is not dumpable (set-uid, or prctl(PR_SET_DUMPABLE)), a security module forbids it, or it has more privileges: run as root", pid)
}

// yama says which processes Yama keeps from being traced, "" where it keeps none
// (Documentation/admin-guide/LSM/Yama.rst).
func yama() string {
	text, _ := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope")
	switch strings.TrimSpace(string(text)) {
	case "1":
		return "kernel.yama.ptrace_scope is 1, by which a process traces its descendants alone: start it with -c, have it call prctl(PR_SET_PTRACER), run as root, or set the scope to 0"
	case "2":
		return "kernel.yama.ptrace_scope is 2, by which tracing takes CAP_SYS_PTRACE: run as root, or set the scope to 0 or 1"
	case "3":
		return "kernel.yama.ptrace_scope is 3, by which nobody traces until the next boot"
	}
	return ""
}
