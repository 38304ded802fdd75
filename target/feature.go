package target

import (
	"fmt"
	"iter"
)

// A FeatureName names something that kernels may or may not have.
type FeatureName string

// Features that skep uses where they are, and does without where they are not.
const (
	FeatureBTF             FeatureName = "btf"
	FeatureKprobe          FeatureName = "kprobe"
	FeatureKprobeMulti     FeatureName = "kprobe_multi"
	FeatureKprobeSession   FeatureName = "kprobe_session"
	FeatureUprobe          FeatureName = "uprobe"
	FeatureUprobeMulti     FeatureName = "uprobe_multi"
	FeatureUprobeSession   FeatureName = "uprobe_session"
	FeatureUSDTSemaphore   FeatureName = "usdt_semaphore"
	FeatureTracepoint      FeatureName = "tracepoint"
	FeatureRawTracepoint   FeatureName = "raw_tracepoint"
	FeatureTypedRawTP      FeatureName = "tp_btf"
	FeatureFentry          FeatureName = "fentry"
	FeatureLSM             FeatureName = "lsm"
	FeatureIter            FeatureName = "iter"
	FeaturePerfLink        FeatureName = "perf_link"
	FeaturePerfCookie      FeatureName = "perf_cookie"
	FeatureTracingCookie   FeatureName = "tracing_cookie"
	FeatureRawTPCookie     FeatureName = "raw_tp_cookie"
	FeatureRingBuf         FeatureName = "ringbuf"
	FeatureLoop            FeatureName = "bpf_loop"
	FeatureForEachMapElem  FeatureName = "for_each_map_elem"
	FeatureProbeReadKernel FeatureName = "probe_read_kernel"
	FeatureCopyFromUser    FeatureName = "copy_from_user"
	FeatureKtimeBoot       FeatureName = "ktime_get_boot_ns"
	FeatureKtimeTAI        FeatureName = "ktime_get_tai_ns"
	FeatureJiffies         FeatureName = "jiffies64"
	FeatureSignal          FeatureName = "send_signal"
	FeatureOverride        FeatureName = "override_return"
	FeatureDPath           FeatureName = "d_path"
	FeatureSnprintf        FeatureName = "snprintf"
	FeatureStrncmp         FeatureName = "strncmp"
	FeatureFuncIP          FeatureName = "get_func_ip"
	FeatureTaskBTF         FeatureName = "get_current_task_btf"
	FeatureAtomics         FeatureName = "atomics"
	FeatureLargePrograms   FeatureName = "large_programs"
	FeatureBoundedLoops    FeatureName = "bounded_loops"
	FeatureV3ISA           FeatureName = "isa_v3"
	FeatureV4ISA           FeatureName = "isa_v4"
	FeatureRunStats        FeatureName = "run_stats"
	FeatureToken           FeatureName = "token"
	FeatureInitialPIDNS    FeatureName = "initial_pid_ns"
	FeatureCompatSyscalls  FeatureName = "compat_syscalls"
)

// A Feature is the answer to whether a kernel has something.
type Feature struct {
	Name FeatureName `json:"name"`
	Have bool        `json:"have"`
	// Known is false when the probe could not decide, for want of privilege
	// for instance; Have is then a guess from the kernel's release.
	Known bool `json:"known"`
	// Refused says that the kernel has it and does not let it be used.
	Refused bool `json:"refused,omitempty"`
	// Why says in words why Have is false, or could not be known.
	Why string `json:"why,omitempty"`
}

// FeatureInfo is what is known of a feature in general.
type FeatureInfo struct {
	Name FeatureName
	// Since is the first kernel that has it on amd64. Distributions carry
	// features back and configurations leave them out: use it for messages,
	// and where a probe cannot decide.
	Since Release
	// What it is, for people: completes "the kernel has no ...".
	What string
	// Config is the option that the kernel is built with to have it, where one
	// decides.
	Config string
}

// features is sorted by what people ask for first: hooks, then links and
// cookies, then helpers, then what programs may consist of.
var features = []FeatureInfo{
	{FeatureBTF, V(5, 4), "type information (CONFIG_DEBUG_INFO_BTF)", "CONFIG_DEBUG_INFO_BTF"},
	{FeatureTracepoint, V(4, 7), "programs on tracepoints", ""},
	{FeatureRawTracepoint, V(4, 17), "raw tracepoints", ""},
	{FeatureTypedRawTP, V(5, 5), "raw tracepoints with typed arguments (tp_btf)", ""},
	{FeatureKprobe, V(4, 1), "kprobes (CONFIG_KPROBE_EVENTS)", "CONFIG_KPROBE_EVENTS"},
	{FeatureKprobeMulti, V(5, 18), "links of one kprobe program to many functions", "CONFIG_FPROBE"},
	{FeatureKprobeSession, V(6, 10), "kprobe sessions, one link for entry and return", "CONFIG_FPROBE"},
	{FeatureFentry, V(5, 5), "fentry and fexit", ""},
	{FeatureLSM, V(5, 7), "LSM programs (bpf among the security modules)", "CONFIG_BPF_LSM"},
	{FeatureIter, V(5, 8), "BPF iterators", ""},
	{FeatureUprobe, V(4, 3), "uprobes (CONFIG_UPROBE_EVENTS)", "CONFIG_UPROBE_EVENTS"},
	{FeatureUprobeMulti, V(6, 6), "links of one uprobe program to many places", ""},
	{FeatureUprobeSession, V(6, 13), "uprobe sessions, one link for entry and return", ""},
	{FeatureUSDTSemaphore, V(4, 20), "reference counters of uprobes, which USDT semaphores need", ""},
	{FeaturePerfLink, V(5, 15), "links for perf events, kprobes, uprobes and tracepoints", ""},
	{FeaturePerfCookie, V(5, 15), "cookies of perf events, kprobes, uprobes and tracepoints", ""},
	{FeatureTracingCookie, V(5, 19), "cookies of fentry, fexit and LSM programs", ""},
	{FeatureRawTPCookie, V(6, 10), "cookies of raw tracepoints", ""},
	{FeatureToken, V(6, 9), "BPF tokens", ""},
	{FeatureRunStats, V(5, 1), "run time counters of programs", ""},
	{FeatureCompatSyscalls, V(3, 3), "system call tracepoints that 32-bit calls reach too", ""},
	{FeatureInitialPIDNS, V(3, 8), "the machine's own PID namespace: skep runs in another one", ""},

	{FeatureRingBuf, V(5, 8), "ring buffers (BPF_MAP_TYPE_RINGBUF)", ""},
	{FeatureLoop, V(5, 17), "the helper bpf_loop", ""},
	{FeatureForEachMapElem, V(5, 13), "the helper bpf_for_each_map_elem", ""},
	{FeatureProbeReadKernel, V(5, 5), "the helpers bpf_probe_read_kernel and bpf_probe_read_user", ""},
	{FeatureCopyFromUser, V(5, 10), "the helper bpf_copy_from_user", ""},
	{FeatureKtimeBoot, V(5, 8), "the helper bpf_ktime_get_boot_ns", ""},
	{FeatureKtimeTAI, V(6, 1), "the helper bpf_ktime_get_tai_ns", ""},
	{FeatureJiffies, V(5, 5), "the helper bpf_jiffies64", ""},
	{FeatureSignal, V(5, 3), "the helper bpf_send_signal", ""},
	{FeatureOverride, V(4, 16), "the helper bpf_override_return (CONFIG_BPF_KPROBE_OVERRIDE)", "CONFIG_BPF_KPROBE_OVERRIDE"},
	{FeatureDPath, V(5, 10), "the helper bpf_d_path", ""},
	{FeatureSnprintf, V(5, 13), "the helper bpf_snprintf", ""},
	{FeatureStrncmp, V(5, 17), "the helper bpf_strncmp", ""},
	{FeatureFuncIP, V(5, 15), "the helper bpf_get_func_ip", ""},
	{FeatureTaskBTF, V(5, 11), "the helper bpf_get_current_task_btf", ""},

	{FeatureLargePrograms, V(5, 2), "programs of more than 4,096 instructions", ""},
	{FeatureBoundedLoops, V(5, 3), "bounded loops", ""},
	{FeatureAtomics, V(5, 12), "atomic instructions beyond add", ""},
	{FeatureV3ISA, V(5, 1), "instructions of cpu v3 (32-bit jumps)", ""},
	{FeatureV4ISA, V(6, 6), "instructions of cpu v4 (signed division and loads, long jumps)", ""},
}

// Features iterates over all features that skep knows, hooks first.
func Features() iter.Seq[FeatureInfo] {
	return func(yield func(FeatureInfo) bool) {
		for _, f := range features {
			if !yield(f) {
				return
			}
		}
	}
}

// Info returns what is known of the feature of that name.
func (n FeatureName) Info() (FeatureInfo, bool) {
	for _, f := range features {
		if f.Name == n {
			return f, true
		}
	}
	return FeatureInfo{}, false
}

// Err is nil when the kernel has the feature, else an error that says what is
// missing and which kernels have it.
func (f Feature) Err() error {
	if f.Have {
		return nil
	}
	info, ok := f.Name.Info()
	if !ok {
		return fmt.Errorf("there is no feature called %q", f.Name)
	}
	if f.Known && f.Why != "" {
		return fmt.Errorf("%s cannot be used here: %s (in Linux since %s)", info.What, f.Why, info.Since)
	}
	why := ""
	if f.Why != "" {
		why = ": " + f.Why
	}
	return fmt.Errorf("the kernel has no %s (Linux has it since %s)%s", info.What, info.Since, why)
}

// Guess is the answer for a kernel of that release when no probe could decide.
func (n FeatureName) Guess(r Release, why string) Feature {
	info, ok := n.Info()
	return Feature{Name: n, Have: ok && r.Compare(info.Since) >= 0, Why: why}
}
