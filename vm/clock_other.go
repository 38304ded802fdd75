//go:build !linux

package vm

import "time"

var processStart = time.Now()

// monotonic counts from the start of this process.
func monotonic() uint64 { return uint64(time.Since(processStart)) }
