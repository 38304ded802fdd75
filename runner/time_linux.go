package runner

import (
	"io/fs"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bootTime is the time since boot in nanoseconds, as bpf_ktime_get_boot_ns
// tells it.
func bootTime() int64 { return clockTime(unix.CLOCK_BOOTTIME) }

func clockTime(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// clockOffset is what has to be added to a time of a clock to get the time
// since 1970.
func clockOffset(c Clock) int64 {
	id := int32(unix.CLOCK_BOOTTIME)
	switch c {
	case ClockMonotonic:
		id = unix.CLOCK_MONOTONIC
	case ClockTAI, ClockSwTAI:
		id = unix.CLOCK_TAI
	}
	return time.Now().UnixNano() - clockTime(id)
}

// device is the device and the number of the file at a path. A cgroup's is its
// identifier.
func device(path string) (dev, ino uint64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Dev, st.Ino, nil
}

// inode is the number of a file in its file system.
func inode(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
