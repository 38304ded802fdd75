//go:build !linux || (!amd64 && !arm64)

package rootless

import (
	"fmt"
	"runtime"

	"github.com/skep-bpf/skep/machine"
)

// Options are choices for a machine.
type Options struct {
	// Both are without meaning here.
	NoFilter bool
	Waiting  func(processes int)
}

// New fails: processes are followed on Linux alone.
func New(Options) (machine.Starter, error) {
	return nil, fmt.Errorf("processes are traced on Linux for amd64 and arm64 alone, and this is %s on %s", runtime.GOOS, runtime.GOARCH)
}
