package testenv

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TracefsDir is where [NeedTracefs] makes tracefs appear.
const TracefsDir = "/sys/kernel/tracing"

// NeedBPF skips tb unless it may use bpf(2): it runs as root on a kernel that
// answers the call.
func NeedBPF(tb testing.TB) {
	tb.Helper()
	NeedRoot(tb)
	// BPF_PROG_GET_NEXT_ID without attributes is refused with EINVAL by a
	// kernel that has bpf(2), and changes nothing.
	const progGetNextID = 11
	_, _, errno := unix.Syscall(unix.SYS_BPF, progGetNextID, 0, 0)
	switch errno {
	case unix.ENOSYS:
		Skip(tb, BPF, "this kernel was built without bpf(2)")
	case unix.EPERM:
		Skip(tb, BPF, "bpf(2) is refused here; CAP_BPF is missing, or a seccomp filter forbids it")
	}
}

// NeedTracefs mounts tracefs at [TracefsDir] unless it is there already, and
// skips tb where that is refused. It returns the directory.
func NeedTracefs(tb testing.TB) string {
	tb.Helper()
	NeedRoot(tb)
	if mounted() {
		return TracefsDir
	}
	err := unix.Mount("tracefs", TracefsDir, "tracefs", 0, "")
	// EBUSY: another test mounted it meanwhile.
	if err != nil && !(errors.Is(err, unix.EBUSY) && mounted()) {
		Skip(tb, Tracefs, "mounting tracefs at %s: %v", TracefsDir, err)
	}
	return TracefsDir
}

func mounted() bool {
	_, err := os.Stat(TracefsDir + "/events")
	return err == nil
}
