//go:build !linux

package kernel

func bpffsAt(string) bool { return false }
