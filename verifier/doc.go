// Package verifier decides what the Linux kernel would say of a BPF program,
// and explains it. It follows every path a program can take with what is known
// of registers and stack on it, by the kernel's rules: those of Linux 6.18, or
// of 6.1 and 6.12 where a [Config] asks for them.
//
// A program is [Accepted], [Rejected] with an [Error] that is data (what is
// wrong, where, in which state, on which path), or [Unsupported] where it needs
// a rule that is not there yet: never one of the former for the latter.
//
// It runs nothing and must not import compilers or machines: it shares facts
// (abi, isa, object) with them, and is an oracle for both. Start reading at
// [Verify]; exploration is in explore.go, what instructions do in alu.go,
// branch.go, memory.go and call.go, which states need no second look in
// prune.go and precision.go.
package verifier
