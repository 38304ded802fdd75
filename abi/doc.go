// Package abi holds facts of the Linux kernel as tables: helpers and kernel
// functions with their arguments, program, attach and map types, section names,
// system calls, registers, constants, error and signal names, perf events, and
// since which kernel each exists.
//
// It imports nothing of skep but isa, and holds no behaviour. The *_gen.go files
// are made by abi/internal/gen from the summaries of kernels checked in there;
// "go generate" makes them again. Start reading at [Helper], [ProgType] and
// [Syscall].
package abi

//go:generate go run ./internal/gen tables -kernels internal/gen/kernels -o .
