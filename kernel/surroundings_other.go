//go:build !linux

package kernel

func mountedBPFFS(string) bool { return false }

// InUserNamespace reports whether this process is in a user namespace other
// than the machine's.
func InUserNamespace() bool { return false }
