//go:build !linux

package kernel

import (
	"runtime"

	"github.com/skep-bpf/skep/target"
)

// Target returns what is known of the machine that this process runs on.
// It needs Linux.
func Target() (target.Target, error) {
	return nil, target.Unknownf("there is no BPF on %s; name a saved target, or run on Linux", runtime.GOOS)
}

// TraceFS is the kernel's tracefs, which only Linux has.
type TraceFS struct{}

// Mounted reports whether it is mounted where people look for it.
func (*TraceFS) Mounted() bool { return false }

// OpenTraceFS opens tracefs. It needs Linux.
func OpenTraceFS() (*TraceFS, error) {
	return nil, target.Unknownf("there is no tracefs on %s", runtime.GOOS)
}
