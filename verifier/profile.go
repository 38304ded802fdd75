package verifier

import "github.com/skep-bpf/skep/abi"

// Releases whose rules differ from those before them.
var (
	linux6_12 = abi.Linux6_12
	linux6_13 = abi.MakeVersion(6, 13)
	linux6_14 = abi.MakeVersion(6, 14)
	linux6_15 = abi.MakeVersion(6, 15)
	linux6_17 = abi.MakeVersion(6, 17)
	linux6_18 = abi.Linux6_18
)

// forksSigns: masks that are 0 or -1 are followed apart.
func (c *Config) forksSigns() bool { return c.Kernel >= linux6_12 }

// callbacksGiveBack: a callback gives back what it acquires before it returns,
// not only the program before it ends (until Linux 6.14).
func (c *Config) callbacksGiveBack() bool { return c.Kernel < linux6_14 }

// cpus is how many processors a helper's result may name.
func (c *Config) cpus() int {
	if c.CPUs > 0 {
		return c.CPUs
	}
	return 8192 // NR_CPUS of distributions' kernels
}

// privateStack reports whether functions of the program have stacks of their
// own instead of sharing 512 bytes (bpf_enable_priv_stack, Linux 6.13).
func (v *verifier) privateStack() bool {
	if v.cfg.Kernel < linux6_13 || v.cfg.Arch != "" && v.cfg.Arch != "amd64" && v.cfg.Arch != "arm64" {
		return false
	}
	switch v.prog.Type {
	case abi.ProgKprobe, abi.ProgTracepoint, abi.ProgPerfEvent, abi.ProgRawTracepoint:
		return true
	case abi.ProgTracing:
		return v.prog.Attach != abi.AttachTraceIter
	case abi.ProgLSM:
		return v.prog.Attach != abi.AttachLSMCgroup
	}
	return false
}
