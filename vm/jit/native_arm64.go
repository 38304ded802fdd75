//go:build linux

package jit

import "github.com/skep-bpf/skep/vm/engine"

// trapFill is a byte that, repeated, is an instruction that traps: udf #0.
const trapFill = 0

func nativeGenerate(p *engine.Program, o options, k *keys) (*output, error) {
	return a64Generate(p, o, k)
}

func nativeOptions() options { return options{} }

// flushCode makes new code visible to the instruction fetches of all processors.
// It is written in assembly.
//
//go:noescape
func flushCode(start, length uintptr)
