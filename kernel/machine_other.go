//go:build !linux

package kernel

import (
	"context"
	"errors"
	"runtime"

	"github.com/skep-bpf/skep/machine"
)

// New returns a machine that says that the kernel engine needs Linux.
func New() machine.Machine { return absent{} }

// MayTrace says that the kernel engine needs Linux.
func MayTrace() error {
	return errors.New("programs run in the kernel on Linux only, this is " + runtime.GOOS)
}

type absent struct{}

func (absent) Name() string { return "kernel" }

func (absent) Load(context.Context, []byte, machine.LoadOptions) (machine.Loaded, error) {
	return nil, errors.New("programs run in the kernel on Linux only, this is " + runtime.GOOS)
}
