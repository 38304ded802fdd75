package verifier

import (
	"slices"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

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

// rules are those that the kernel computes by.
func (c *Config) rules() domain.Rules {
	switch {
	case c.Kernel < linux6_12:
		return domain.Linux6_1
	case c.Kernel < linux6_15:
		return domain.Linux6_12
	}
	return domain.Linux6_18
}

// callbacksRepeat: a callback is followed as often as it may be called, not
// once (Linux 6.7).
func (c *Config) callbacksRepeat() bool { return c.Kernel >= linux6_12 }

// recursionIsBackEdge: a function that calls itself is found in the graph of
// jumps, not by its depth.
func (c *Config) recursionIsBackEdge() bool { return c.Kernel < linux6_12 }

// kfuncHooks are the types of programs that share what kernel functions they may
// call (bpf_prog_type_to_kfunc_hook); Linux 6.1 has the first two of each.
var kfuncHooks = [][]abi.ProgType{
	{abi.ProgTracing, abi.ProgLSM, abi.ProgTracepoint, abi.ProgPerfEvent},
	{
		abi.ProgCgroupSkb, abi.ProgCgroupSock, abi.ProgCgroupDevice, abi.ProgCgroupSockAddr, abi.ProgCgroupSockopt,
		abi.ProgCgroupSysctl,
	},
	{abi.ProgLWTOut, abi.ProgLWTIn, abi.ProgLWTXmit, abi.ProgLWTSeg6local},
}

// kfuncOpen reports whether programs of a type may call a kernel function.
func (c *Config) kfuncOpen(k *abi.Kfunc, t abi.ProgType) bool {
	if k.ProgTypes.Has(t) {
		return true
	}
	if c.Kernel < linux6_12 {
		return false
	}
	for _, hook := range kfuncHooks {
		if slices.Contains(hook, t) {
			return slices.ContainsFunc(hook, k.ProgTypes.Has)
		}
	}
	return false
}

// unknownOpcode reports whether the kernel has no such operation at all, which
// it finds before it follows any path (bpf_opcode_in_insntable).
func (c *Config) unknownOpcode(op isa.Instruction) bool {
	switch {
	case op.Op.Class() == isa.ClassSTX && op.IsAtomic() && op.Op.Size().Bytes() < 4:
		return c.Kernel < linux6_15
	case c.Kernel >= linux6_12:
		return false
	case op.Class() == isa.ClassLDX:
		return op.Op.Mode() == isa.ModeMemSX
	case op.Class() == isa.ClassALU64:
		return op.ALUOp() == isa.End
	case op.Class() == isa.ClassJMP:
		return op.Op.JumpOp() == isa.JCond
	case op.Class() == isa.ClassJMP32:
		return op.Op.JumpOp() == isa.Always
	}
	return false
}

// unknownForm reports whether the kernel has the operation, but not the form
// of it that the instruction's other fields ask for.
func (c *Config) unknownForm(op isa.Instruction) bool {
	switch op.Class() {
	case isa.ClassALU, isa.ClassALU64:
		return c.Kernel < linux6_12 && op.Off != 0
	case isa.ClassSTX:
		return c.Kernel < linux6_15 && op.IsAtomic() && (op.Imm == int64(isa.LoadAcquireOp) || op.Imm == int64(isa.StoreReleaseOp))
	}
	return false
}

// wholeDynptrs: a store to a part of a dynptr ends all of it, and is refused
// where the dynptr has to be given back.
func (c *Config) wholeDynptrs() bool { return c.Kernel >= linux6_12 }

// constantsToContext: constants may be stored to contexts (Linux 6.3).
func (c *Config) constantsToContext() bool { return c.Kernel >= linux6_12 }

// spillsAll: numbers are kept when they are spilled even if nothing is known of
// them, and parts of them can be filled.
func (c *Config) spillsAll() bool { return c.Kernel >= linux6_12 }

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
