package vm

import "golang.org/x/sys/unix"

// monotonic is the clock of the system, as its own programs see it.
func monotonic() uint64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return uint64(t.Nano())
}
