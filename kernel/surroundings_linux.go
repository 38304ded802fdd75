package kernel

import "golang.org/x/sys/unix"

// InUserNamespace reports whether this process is in a user namespace other
// than the machine's.
func InUserNamespace() bool { return inUserNamespace() }

func mountedBPFFS(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}
