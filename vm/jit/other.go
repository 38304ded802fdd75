//go:build !linux || !(amd64 || arm64)

package jit

import (
	"fmt"
	"runtime"

	"github.com/skep-bpf/skep/vm/engine"
)

// New fails: there is no code generator for this system.
func New() (engine.Engine, error) {
	return nil, fmt.Errorf("the JIT is %w: there is none for %s/%s", engine.ErrUnavailable, runtime.GOOS, runtime.GOARCH)
}
