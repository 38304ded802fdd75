package target

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
)

// A Feature is the answer to whether a kernel has something.
type Feature struct {
	Name FeatureName `json:"name"`
	Have bool        `json:"have"`
	// Known is false when the probe could not decide, for want of privilege
	// for instance; Have is then a guess from the kernel's release.
	Known bool `json:"known"`
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
}
