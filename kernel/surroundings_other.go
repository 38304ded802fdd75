//go:build !linux

package kernel

func mountedBPFFS(string) bool { return false }
