//go:build linux

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// errAbsent marks a probe's verdict that the kernel lacks the feature.
var errAbsent = errors.New("the kernel lacks it")

// probe asks the kernel for one feature. Each costs a bpf() call or a look
// into sysfs; what is attached by one is detached before it returns.
func probe(name target.FeatureName) target.Feature {
	f := target.Feature{Name: name}
	ask, ok := probes[name]
	if !ok {
		f.Why = "there is no such feature"
		return f
	}
	err := ask()
	switch {
	case err == nil:
		f.Have, f.Known = true, true
	case typedHooks[name] && errors.Is(exists(btfDir+"/vmlinux")(), errAbsent):
		f.Known = true
		f.Why = "it takes the kernel's types (" + btfDir + "/vmlinux, CONFIG_DEBUG_INFO_BTF=y), which are missing"
	case errors.Is(err, errAbsent), errors.Is(err, ebpf.ErrNotSupported):
		f.Known, f.Why = true, why(err)
	case errors.Is(err, fs.ErrPermission):
		missing := "the kernel refused to answer, although this process has the capabilities: the system is locked down or this is a container"
		if caps := missingCaps(needs{bpf: true, perfmon: true}); caps != "" {
			missing = "asking the kernel takes " + caps + ", which this process lacks"
		} else if caps := missingCaps(needs{admin: true}); caps != "" {
			missing = "asking the kernel takes " + caps + ", which this process lacks"
		} else if inUserNamespace() {
			missing = "the kernel does not answer in a user namespace"
		}
		facts, factsErr := live{}.Facts()
		if factsErr != nil {
			f.Why = missing
			return f
		}
		return name.Guess(facts.Release, missing)
	default:
		// The kernel knows what was asked for and refuses it here.
		f.Known, f.Refused, f.Why = true, true, why(err)
	}
	return f
}

// typedHooks are the hooks that are attached by the numbers of types.
var typedHooks = map[target.FeatureName]bool{
	target.FeatureTypedRawTP: true, target.FeatureFentry: true, target.FeatureLSM: true, target.FeatureIter: true,
}

// why shortens an error to what people can use.
func why(err error) string {
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		return refused.Error()
	case errors.Is(err, errAbsent), errors.Is(err, ebpf.ErrNotSupported):
		return ""
	}
	return err.Error()
}

// A refusal says that the kernel has a feature and yet does not let it be used.
type refusal struct {
	what string
	err  error
}

func (r *refusal) Error() string {
	if errors.Is(r.err, unix.EPERM) && missingCaps(needs{admin: true}) == "" && !inUserNamespace() {
		return r.what + " of this kind is forbidden here, even to root (EPERM)"
	}
	return fmt.Sprintf("%s of this kind was refused: %v", r.what, named(r.err))
}

var probes map[target.FeatureName]func() error

// The table is filled in here because some probes ask the live target, whose
// features are this table.
func init() {
	probes = map[target.FeatureName]func() error{
		target.FeatureBTF:           exists(btfDir + "/vmlinux"),
		target.FeatureTracepoint:    programType(ebpf.TracePoint),
		target.FeatureRawTracepoint: programType(ebpf.RawTracepoint),
		target.FeatureTypedRawTP:    probeProgram{typ: abi.ProgTracing, attach: abi.AttachTraceRawTp, kind: typeindex.KindTypedef, to: "btf_trace_sched_switch"}.load,
		target.FeatureKprobe:        exists("/sys/bus/event_source/devices/kprobe"),
		target.FeatureKprobeMulti:   features.HaveBPFLinkKprobeMulti,
		target.FeatureKprobeSession: features.HaveBPFLinkKprobeSession,
		// bpf_fentry_test1 only ever runs for BPF_PROG_TEST_RUN.
		target.FeatureFentry:        probeProgram{typ: abi.ProgTracing, attach: abi.AttachTraceFentry, kind: typeindex.KindFunc, to: "bpf_fentry_test1", link: openTracing}.load,
		target.FeatureLSM:           probeProgram{typ: abi.ProgLSM, attach: abi.AttachLSMMac, kind: typeindex.KindFunc, to: "bpf_lsm_path_chroot", link: openTracing}.load,
		target.FeatureIter:          probeProgram{typ: abi.ProgTracing, attach: abi.AttachTraceIter, kind: typeindex.KindFunc, to: "bpf_iter_bpf_map", link: linkIter}.load,
		target.FeatureUprobe:        exists("/sys/bus/event_source/devices/uprobe"),
		target.FeatureUprobeMulti:   features.HaveBPFLinkUprobeMulti,
		target.FeatureUprobeSession: probeProgram{typ: abi.ProgKprobe, attach: abi.AttachTraceUprobeSession, link: linkUprobeSession}.load,
		target.FeatureUSDTSemaphore: exists("/sys/bus/event_source/devices/uprobe/format/ref_ctr_offset"),
		// Links and cookies of perf events came with one series of patches.
		target.FeaturePerfLink:      helper(ebpf.PerfEvent, asm.FnGetAttachCookie),
		target.FeaturePerfCookie:    helper(ebpf.PerfEvent, asm.FnGetAttachCookie),
		target.FeatureTracingCookie: kernelFunc("bpf_get_attach_cookie_tracing"),
		target.FeatureRawTPCookie:   helper(ebpf.RawTracepoint, asm.FnGetAttachCookie),
		target.FeatureToken:         token,
		target.FeatureInitialPIDNS:  initialPIDNS,
		// Programs tell 32-bit calls apart themselves (see leaveCompat in lang/bt).
		target.FeatureCompatSyscalls: func() error { return nil },
		target.FeatureRunStats: func() error {
			c, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
			if err != nil {
				return err
			}
			return c.Close()
		},

		target.FeatureRingBuf:         func() error { return features.HaveMapType(ebpf.RingBuf) },
		target.FeatureLoop:            helper(ebpf.Kprobe, asm.FnLoop),
		target.FeatureForEachMapElem:  helper(ebpf.Kprobe, asm.FnForEachMapElem),
		target.FeatureProbeReadKernel: helper(ebpf.Kprobe, asm.FnProbeReadKernel),
		target.FeatureCopyFromUser:    helper(ebpf.Syscall, asm.FnCopyFromUser),
		target.FeatureKtimeBoot:       helper(ebpf.Kprobe, asm.FnKtimeGetBootNs),
		target.FeatureKtimeTAI:        helper(ebpf.Kprobe, asm.FnKtimeGetTaiNs),
		target.FeatureJiffies:         helper(ebpf.Kprobe, asm.FnJiffies64),
		target.FeatureSignal:          helper(ebpf.Kprobe, asm.FnSendSignal),
		target.FeatureOverride:        helper(ebpf.Kprobe, asm.FnOverrideReturn),
		target.FeatureDPath:           kernelFunc("bpf_d_path"),
		target.FeatureSnprintf:        helper(ebpf.Kprobe, asm.FnSnprintf),
		target.FeatureStrncmp:         helper(ebpf.Kprobe, asm.FnStrncmp),
		target.FeatureFuncIP:          helper(ebpf.Kprobe, asm.FnGetFuncIp),
		target.FeatureTaskBTF:         helper(ebpf.Kprobe, asm.FnGetCurrentTaskBtf),

		target.FeatureLargePrograms: features.HaveLargeInstructions,
		target.FeatureBoundedLoops:  features.HaveBoundedLoops,
		target.FeatureAtomics: probeProgram{typ: abi.ProgSocketFilter, insns: []isa.Instruction{
			isa.Mov64Imm(isa.R0, 0),
			isa.StoreMem(isa.Double, isa.R10, -8, isa.R0),
			isa.Atomic(isa.FetchAdd, isa.Double, isa.R10, -8, isa.R0),
			isa.Mov64Imm(isa.R0, 0),
			isa.Exit(),
		}}.load,
		target.FeatureV3ISA: features.HaveV3ISA,
		target.FeatureV4ISA: features.HaveV4ISA,
	}
}

func exists(path string) func() error {
	return func() error {
		_, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return errAbsent
		}
		return err
	}
}

func programType(t ebpf.ProgramType) func() error {
	return func() error { return features.HaveProgramType(t) }
}

func helper(t ebpf.ProgramType, fn asm.BuiltinFunc) func() error {
	return func() error { return features.HaveProgramHelper(t, fn) }
}

// kernelFunc looks for the function behind a helper of program types that only
// load together with what they attach to.
func kernelFunc(name string) func() error {
	return func() error {
		m, err := Target()
		if err != nil {
			return err
		}
		types, err := m.Types()
		if err != nil {
			return err
		}
		if _, err := types.Func(name); err != nil {
			return errAbsent
		}
		return nil
	}
}

// A probeProgram is loaded to see whether the kernel takes it. It is loaded
// here rather than by package ebpf, which decodes all of the kernel's types to
// find the one that a program attaches to.
type probeProgram struct {
	typ    abi.ProgType
	attach abi.AttachType
	kind   typeindex.Kind // of what the program attaches to,
	to     string         // and its name in the kernel's BTF, if any
	insns  []isa.Instruction
	// link attaches the program for a moment, if it is set; -1 is no
	// descriptor.
	link func(prog int, attach abi.AttachType) (int, error)
}

func (p probeProgram) load() error {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return errAbsent // see kernelMachine.Load
	}
	if p.insns == nil {
		p.insns = []isa.Instruction{isa.Mov64Imm(isa.R0, 0), isa.Exit()}
	}
	code, err := isa.Encode(nil, binary.NativeEndian, p.insns)
	if err != nil {
		return err
	}
	license, err := cstring("GPL")
	if err != nil {
		return err
	}
	attr := &attrProgLoad{
		typ: uint32(p.typ), attachType: uint32(p.attach), name: objName("skep_probe"),
		insns: ptr(code), insnCount: uint32(len(code) / isa.SlotSize), license: license,
	}
	if p.to != "" {
		types, err := kernelTypes()
		if err != nil {
			return err
		}
		typ, err := types.FindIn("", p.kind, p.to)
		if errors.Is(err, typeindex.ErrNotFound) {
			return errAbsent
		}
		if err != nil {
			return err
		}
		_, id, _ := types.ID(typ)
		attr.attachBTFID = uint32(id)
	}
	prog, err := sysBPF(cmdProgLoad, attr)
	switch {
	case errors.Is(err, errNotSupp):
		return errAbsent
	case errors.Is(err, unix.EPERM) && os.Geteuid() != 0:
		return err
	case err != nil:
		return &refusal{"loading a program", named(err)}
	}
	defer unix.Close(prog)
	if p.link == nil {
		return nil
	}
	link, err := p.link(prog, p.attach)
	switch {
	case errors.Is(err, errAbsent):
		return err
	case err != nil:
		return &refusal{"attaching a program", named(err)}
	case link < 0:
		return nil
	}
	return unix.Close(link)
}

// openTracing attaches a program that named its hook when it was loaded.
func openTracing(prog int, _ abi.AttachType) (int, error) {
	return sysBPF(cmdRawTracepointOpen, &attrRawTracepoint{prog: uint32(prog)})
}

func linkIter(prog int, attach abi.AttachType) (int, error) {
	return create(&attrLinkIter{prog: uint32(prog), typ: uint32(attach)})
}

// linkUprobeSession asks for a link to a file that there is not: kernels that
// know the attach type look for the file, others refuse the type before.
func linkUprobeSession(prog int, attach abi.AttachType) (int, error) {
	path, err := cstring("/proc/self/no such file")
	if err != nil {
		return -1, err
	}
	offsets := []uint64{0}
	_, err = create(&attrLinkUprobes{prog: uint32(prog), typ: uint32(attach), path: path, offsets: ptr(offsets), count: 1})
	if errors.Is(err, unix.ENOENT) {
		return -1, nil
	}
	return -1, errAbsent
}

// token asks for a token of no BPF file system: kernels that know the command
// complain of the descriptor.
func token() error {
	_, err := sysBPF(cmdTokenCreate, &attrToken{bpffs: ^uint32(0)})
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	return errAbsent
}

// initialPIDNS reports whether this process is in the first PID namespace,
// whose number is fixed (PROC_PID_INIT_INO, include/linux/proc_ns.h).
func initialPIDNS() error {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return err
	}
	if ns != "pid:[4026531836]" {
		return ebpf.ErrNotSupported
	}
	return nil
}
