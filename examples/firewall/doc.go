// Package firewall is an example: a project with a program in C, the Go code that
// bpf2go makes of it, and tests that need neither root nor a kernel.
//
// It is built like any project that uses package ebpf, and must not import
// anything of skep but the library, which only its test does. Start reading at
// firewall.c, then firewall_test.go.
package firewall

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go@v0.22.0 -target bpfel -type drop -type network -type bucket -type reason firewall firewall.c -- -O2
