// Package vm runs BPF programs inside a Go process, with no privilege and on
// every system: maps, helpers, contexts and packets as Linux 6.18 has them.
//
// It must not import compilers, the verifier, or anything that shows results.
// Start reading at [VM], then [Load] and [Program.Run]; below, cage is the
// memory, engine the contract with the two engines interp and jit.
package vm
