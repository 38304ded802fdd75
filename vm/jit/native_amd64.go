//go:build linux

package jit

import (
	"golang.org/x/sys/cpu"

	"github.com/skep-bpf/skep/vm/engine"
)

// trapFill is a byte that, repeated, is an instruction that traps: int3.
const trapFill = 0xcc

func nativeGenerate(p *engine.Program, o options, k *keys) (*output, error) {
	return x86Generate(p, o, k)
}

func nativeOptions() options { return options{bmi2: cpu.X86.HasBMI2} }

// flushCode does nothing: x86 keeps instruction caches coherent.
func flushCode(start, length uintptr) {}
