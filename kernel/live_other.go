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
