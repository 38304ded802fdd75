package vm

import (
	"time"

	"golang.org/x/sys/unix"
)

// clockStart and clockOffset lead from Go's clock, which is read without a system
// call, to the one of the system, which its own programs see.
var (
	clockStart  = time.Now()
	clockOffset = func() uint64 {
		var t unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
			return 0
		}
		return uint64(t.Nano()) - uint64(time.Since(clockStart))
	}()
)

// monotonic is CLOCK_MONOTONIC in nanoseconds.
func monotonic() uint64 { return clockOffset + uint64(time.Since(clockStart)) }
