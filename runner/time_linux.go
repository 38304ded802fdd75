package runner

import "golang.org/x/sys/unix"

// bootTime is the time since boot in nanoseconds, as bpf_ktime_get_boot_ns
// tells it.
func bootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}
