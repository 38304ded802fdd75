// Package jit compiles linked BPF programs to machine code, on Linux for amd64
// and arm64, without cgo.
//
// It imports only vm/engine and isa, and knows neither maps nor helpers. Start
// reading at [New], then x86_gen.go, which says how registers, memory and exits
// are laid out, then enter_amd64.s, the way in. The code generators do not depend
// on the machine they run on, so tests can look at the code of both anywhere.
//
// What generated code is held to, since a fault in it would end the process:
// every memory operand is either in the cage, by 32 bits that are added to its
// base, or in the State of the run, at a constant offset, or on its stack. What
// it must not do is checked by internal/audit, which decodes each function again
// and knows nothing of this package.
package jit
