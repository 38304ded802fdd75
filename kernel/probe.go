//go:build linux

package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/target"
)

// Numbers of include/uapi/linux/bpf.h that the libraries do not name.
const (
	cmdTokenCreate      = 36 // BPF_TOKEN_CREATE
	attachUprobeSession = 57 // BPF_TRACE_UPROBE_SESSION
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
	case errors.Is(err, errAbsent), errors.Is(err, ebpf.ErrNotSupported):
		f.Known, f.Why = true, why(err)
	case errors.Is(err, fs.ErrPermission):
		missing := "the kernel refused to answer, although this is root: the system is locked down or this is a container"
		if os.Geteuid() != 0 {
			missing = "asking the kernel needs root, or CAP_BPF and CAP_PERFMON"
		}
		facts, factsErr := live{}.Facts()
		if factsErr != nil {
			f.Why = missing
			return f
		}
		return name.Guess(facts.Release, missing)
	default:
		// The kernel knows what was asked for and refuses it here.
		f.Known, f.Why = true, why(err)
	}
	return f
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

func (r *refusal) Error() string { return fmt.Sprintf("%s was refused: %v", r.what, r.err) }

var probes map[target.FeatureName]func() error

// The table is filled in here because some probes ask the live target, whose
// features are this table.
func init() {
	probes = map[target.FeatureName]func() error{
		target.FeatureBTF:           exists(btfDir + "/vmlinux"),
		target.FeatureTracepoint:    programType(ebpf.TracePoint),
		target.FeatureRawTracepoint: programType(ebpf.RawTracepoint),
		target.FeatureTypedRawTP: func() error {
			return load(&ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_switch"}, nil)
		},
		target.FeatureKprobe:        exists("/sys/bus/event_source/devices/kprobe"),
		target.FeatureKprobeMulti:   features.HaveBPFLinkKprobeMulti,
		target.FeatureKprobeSession: features.HaveBPFLinkKprobeSession,
		target.FeatureFentry: func() error {
			// bpf_fentry_test1 only ever runs for BPF_PROG_TEST_RUN.
			spec := &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "bpf_fentry_test1"}
			return load(spec, func(p *ebpf.Program) (link.Link, error) {
				return link.AttachTracing(link.TracingOptions{Program: p})
			})
		},
		target.FeatureLSM: func() error {
			spec := &ebpf.ProgramSpec{Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "path_chroot"}
			return load(spec, func(p *ebpf.Program) (link.Link, error) {
				return link.AttachLSM(link.LSMOptions{Program: p})
			})
		},
		target.FeatureIter: func() error {
			spec := &ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map"}
			return load(spec, func(p *ebpf.Program) (link.Link, error) {
				return link.AttachIter(link.IterOptions{Program: p})
			})
		},
		target.FeatureUprobe:        exists("/sys/bus/event_source/devices/uprobe"),
		target.FeatureUprobeMulti:   features.HaveBPFLinkUprobeMulti,
		target.FeatureUprobeSession: uprobeSession,
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
		target.FeatureAtomics:       atomics,
		target.FeatureV3ISA:         features.HaveV3ISA,
		target.FeatureV4ISA:         features.HaveV4ISA,
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

// load loads a program that returns 0, and attaches it for a moment where
// attach is given.
func load(spec *ebpf.ProgramSpec, attach func(*ebpf.Program) (link.Link, error)) error {
	spec.Name, spec.License = "skep_probe", "GPL"
	if spec.Instructions == nil {
		spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	}
	prog, err := ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
			return err
		}
		return &refusal{"loading a program", err}
	}
	defer prog.Close()
	if attach == nil {
		return nil
	}
	l, err := attach(prog)
	switch {
	case errors.Is(err, errAbsent):
		return err
	case err != nil:
		return &refusal{"attaching a program", err}
	case l == nil:
		return nil
	}
	return l.Close()
}

func atomics() error {
	return load(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, 0),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord),
		asm.FetchAdd.Mem(asm.RFP, asm.R0, asm.DWord, -8),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}}, nil)
}

// bpfCall is the raw system call, for commands that have no wrapper.
func bpfCall(cmd uintptr, attr unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(attr), size)
	if errno != 0 {
		return errno
	}
	return nil
}

// token asks for a token of no BPF file system: kernels that know the command
// complain of the descriptor.
func token() error {
	attr := struct{ flags, bpffs uint32 }{0, ^uint32(0)}
	err := bpfCall(cmdTokenCreate, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.EBADF) {
		return nil
	}
	return errAbsent
}

// uprobeSession asks for a link to a file that there is not: kernels that know
// the attach type look for the file, others refuse the type before.
func uprobeSession() error {
	spec := &ebpf.ProgramSpec{Type: ebpf.Kprobe, AttachType: attachUprobeSession}
	return load(spec, func(p *ebpf.Program) (link.Link, error) {
		path, offset := []byte("/proc/self/no such file\x00"), uint64(0)
		attr := struct {
			prog, target, attach, flags           uint32
			path, offsets, refCtrOffsets, cookies uint64
			count, multiFlags, pid, _             uint32
		}{
			prog: uint32(p.FD()), attach: attachUprobeSession, count: 1,
			path:    uint64(uintptr(unsafe.Pointer(&path[0]))),
			offsets: uint64(uintptr(unsafe.Pointer(&offset))),
		}
		err := bpfCall(unix.BPF_LINK_CREATE, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
		runtime.KeepAlive(path)
		runtime.KeepAlive(&offset)
		if errors.Is(err, unix.ENOENT) {
			return nil, nil
		}
		return nil, errAbsent
	})
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
