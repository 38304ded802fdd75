//go:build !linux

package runner

import "time"

var started = time.Now()

func bootTime() int64 { return int64(time.Since(started)) }
