// Package kernel is the only room that calls bpf(2) and reads tracefs: it
// knows the machine it runs on, and loads and attaches programs there.
//
// It must not import the compiler, the verifier or the vm. Start reading at
// [Target], the live target; everything compiles everywhere, and says on other
// systems that it needs Linux.
package kernel
