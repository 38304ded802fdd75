package kernel

import (
	"os"
	"strconv"
	"strings"
)

// Capabilities that matter for BPF, by number (include/uapi/linux/capability.h).
var wanted = []struct {
	bit  uint
	name string
	what string
}{
	{39, "CAP_BPF", "to load programs and make maps"},
	{38, "CAP_PERFMON", "to trace the kernel"},
	{12, "CAP_NET_ADMIN", "to attach to the network"},
	{21, "CAP_SYS_ADMIN", "to mount tracefs and to look into other processes' files"},
	{34, "CAP_SYSLOG", "to see the addresses of kernel symbols"},
	{19, "CAP_SYS_PTRACE", "to read other processes' memory maps"},
}

// A Capability is a privilege and whether this process has it.
type Capability struct {
	Name string
	What string // completes "it takes this ..."
	Have bool
}

// Capabilities tells the privileges of this process that matter for BPF. ok is
// false where they could not be read.
func Capabilities() (list []Capability, ok bool) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil, false
	}
	return parseCapabilities(string(status))
}

func parseCapabilities(status string) (list []Capability, ok bool) {
	_, rest, found := strings.Cut(status, "CapEff:")
	if !found {
		return nil, false
	}
	line, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	if err != nil {
		return nil, false
	}
	for _, c := range wanted {
		list = append(list, Capability{c.name, c.what, mask>>c.bit&1 != 0})
	}
	return list, true
}

// A Setting is a knob of the kernel that decides how far BPF is allowed or
// hardened.
type Setting struct {
	Name string // "bpf_jit_harden"
	Path string
	// Value is what the file says, or "" where Err is set.
	Value string
	Err   error
}

// settingFiles are the files that say how a kernel is hardened, in the order
// they are shown.
var settingFiles = []struct{ name, path string }{
	{"bpf_jit_enable", "/proc/sys/net/core/bpf_jit_enable"},
	{"bpf_jit_harden", "/proc/sys/net/core/bpf_jit_harden"},
	{"unprivileged_bpf_disabled", "/proc/sys/kernel/unprivileged_bpf_disabled"},
	{"kptr_restrict", "/proc/sys/kernel/kptr_restrict"},
	{"perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid"},
	{"yama_ptrace_scope", "/proc/sys/kernel/yama/ptrace_scope"},
	{"lockdown", "/sys/kernel/security/lockdown"},
	{"lsm", "/sys/kernel/security/lsm"},
	{"spectre_v1", "/sys/devices/system/cpu/vulnerabilities/spectre_v1"},
	{"spectre_v2", "/sys/devices/system/cpu/vulnerabilities/spectre_v2"},
	{"spec_store_bypass", "/sys/devices/system/cpu/vulnerabilities/spec_store_bypass"},
}

// Settings reads them.
func Settings() []Setting {
	var list []Setting
	for _, f := range settingFiles {
		s := Setting{Name: f.name, Path: f.path}
		data, err := os.ReadFile(f.path)
		if err != nil {
			s.Err = err
		} else {
			s.Value = strings.TrimSpace(string(data))
		}
		list = append(list, s)
	}
	return list
}

// BPFFS reports whether a bpffs is mounted at its usual place.
func BPFFS() bool { return mountedBPFFS("/sys/fs/bpf") }

// SecurityFS reports whether the file system of the security modules is
// mounted, or the kernel has none.
func SecurityFS() bool {
	if list, err := os.ReadDir("/sys/kernel/security"); err == nil && len(list) > 0 {
		return true
	}
	known, err := os.ReadFile("/proc/filesystems")
	return err == nil && !strings.Contains(string(known), "\tsecurityfs\n")
}
