package vm

import (
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/abi"
)

// An Errno is an error number of Linux, on every system. Programs get it
// negative.
type Errno int

// The numbers that maps and helpers give.
const (
	EPERM        Errno = 1
	ENOENT       Errno = 2
	EINTR        Errno = 4
	E2BIG        Errno = 7
	EAGAIN       Errno = 11
	ENOMEM       Errno = 12
	EACCES       Errno = 13
	EFAULT       Errno = 14
	EBUSY        Errno = 16
	EEXIST       Errno = 17
	ENODEV       Errno = 19
	EINVAL       Errno = 22
	ENOSPC       Errno = 28
	ERANGE       Errno = 34
	EDEADLK      Errno = 35
	ENODATA      Errno = 61
	EPROTO       Errno = 71
	EMSGSIZE     Errno = 90
	EOPNOTSUPP   Errno = 95
	EAFNOSUPPORT Errno = 97
	ENOTSUPP     Errno = 524 // the kernel's own, which user space should not see and does
)

// Error returns the C library's text and the number's name.
func (e Errno) Error() string {
	return fmt.Sprintf("%s (%s)", abi.Strerror(int(e)), abi.ErrnoName(int(e)))
}

// Is makes an Errno equal to the system's own number, and to those errors of
// package ebpf that a map's operations give there.
func (e Errno) Is(target error) bool {
	switch target {
	case ebpf.ErrKeyNotExist:
		return e == ENOENT
	case ebpf.ErrKeyExist:
		return e == EEXIST
	case ebpf.ErrNotSupported:
		return e == ENOTSUPP || e == EOPNOTSUPP
	}
	n, ok := target.(syscall.Errno)
	return ok && int(n) == int(e)
}

// result is what a program gets: 0, or the number negative.
func (e Errno) result() uint64 { return uint64(-int64(e)) }
