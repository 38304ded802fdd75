//go:build !linux

package kernel

import (
	"context"
	"errors"

	"github.com/skep-bpf/skep/symbol"
)

// A ProcessEvent tells of one change to a process's memory map.
type ProcessEvent struct {
	PID    int
	Parent int
	Exec   bool
	Map    *symbol.Mapping
}

// WatchProcesses needs Linux.
func WatchProcesses(context.Context, func(ProcessEvent)) error {
	return errors.New("processes are only watched on Linux")
}
