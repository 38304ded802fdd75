//go:build !linux

package kernel

func isBPFFS(string) bool { return false }
