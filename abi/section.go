package abi

import "strings"

// Section says what a section name makes of the program in it, as libbpf reads
// it.
type Section struct {
	// Name is the section's name, or its part before the slash. A name that
	// ends in "+" stands in the table for itself and for "name/extras".
	Name       string
	ProgType   ProgType
	AttachType AttachType
	Sleepable  bool // the program is loaded as sleepable
	Frags      bool // XDP that takes packets in fragments
	// BTF: the program attaches to a BTF id that the extras name.
	BTF bool
}

// sections are libbpf's (Documentation/bpf/libbpf/program_types.rst). A name
// must stand before those that it could be the extras of.
var sections = [...]Section{
	{Name: "socket", ProgType: ProgSocketFilter},
	{Name: "sk_reuseport/migrate", ProgType: ProgSkReuseport, AttachType: AttachSkReuseportSelectOrMigrate},
	{Name: "sk_reuseport", ProgType: ProgSkReuseport, AttachType: AttachSkReuseportSelect},
	{Name: "kprobe+", ProgType: ProgKprobe},
	{Name: "uprobe+", ProgType: ProgKprobe},
	{Name: "uprobe.s+", ProgType: ProgKprobe, Sleepable: true},
	{Name: "kretprobe+", ProgType: ProgKprobe},
	{Name: "uretprobe+", ProgType: ProgKprobe},
	{Name: "uretprobe.s+", ProgType: ProgKprobe, Sleepable: true},
	{Name: "kprobe.multi+", ProgType: ProgKprobe, AttachType: AttachTraceKprobeMulti},
	{Name: "kretprobe.multi+", ProgType: ProgKprobe, AttachType: AttachTraceKprobeMulti},
	{Name: "kprobe.session+", ProgType: ProgKprobe, AttachType: AttachTraceKprobeSession},
	{Name: "uprobe.multi+", ProgType: ProgKprobe, AttachType: AttachTraceUprobeMulti},
	{Name: "uretprobe.multi+", ProgType: ProgKprobe, AttachType: AttachTraceUprobeMulti},
	{Name: "uprobe.session+", ProgType: ProgKprobe, AttachType: AttachTraceUprobeSession},
	{Name: "uprobe.multi.s+", ProgType: ProgKprobe, AttachType: AttachTraceUprobeMulti, Sleepable: true},
	{Name: "uretprobe.multi.s+", ProgType: ProgKprobe, AttachType: AttachTraceUprobeMulti, Sleepable: true},
	{Name: "uprobe.session.s+", ProgType: ProgKprobe, AttachType: AttachTraceUprobeSession, Sleepable: true},
	{Name: "ksyscall+", ProgType: ProgKprobe},
	{Name: "kretsyscall+", ProgType: ProgKprobe},
	{Name: "usdt+", ProgType: ProgKprobe},
	{Name: "usdt.s+", ProgType: ProgKprobe, Sleepable: true},
	{Name: "tc/ingress", ProgType: ProgSchedCls, AttachType: AttachTCXIngress},
	{Name: "tc/egress", ProgType: ProgSchedCls, AttachType: AttachTCXEgress},
	{Name: "tcx/ingress", ProgType: ProgSchedCls, AttachType: AttachTCXIngress},
	{Name: "tcx/egress", ProgType: ProgSchedCls, AttachType: AttachTCXEgress},
	{Name: "tc", ProgType: ProgSchedCls},
	{Name: "classifier", ProgType: ProgSchedCls},
	{Name: "action", ProgType: ProgSchedAct},
	{Name: "netkit/primary", ProgType: ProgSchedCls, AttachType: AttachNetkitPrimary},
	{Name: "netkit/peer", ProgType: ProgSchedCls, AttachType: AttachNetkitPeer},
	{Name: "tracepoint+", ProgType: ProgTracepoint},
	{Name: "tp+", ProgType: ProgTracepoint},
	{Name: "raw_tracepoint+", ProgType: ProgRawTracepoint},
	{Name: "raw_tp+", ProgType: ProgRawTracepoint},
	{Name: "raw_tracepoint.w+", ProgType: ProgRawTracepointWritable},
	{Name: "raw_tp.w+", ProgType: ProgRawTracepointWritable},
	{Name: "tp_btf+", ProgType: ProgTracing, AttachType: AttachTraceRawTp, BTF: true},
	{Name: "fentry+", ProgType: ProgTracing, AttachType: AttachTraceFentry, BTF: true},
	{Name: "fmod_ret+", ProgType: ProgTracing, AttachType: AttachModifyReturn, BTF: true},
	{Name: "fexit+", ProgType: ProgTracing, AttachType: AttachTraceFexit, BTF: true},
	{Name: "fentry.s+", ProgType: ProgTracing, AttachType: AttachTraceFentry, Sleepable: true, BTF: true},
	{Name: "fmod_ret.s+", ProgType: ProgTracing, AttachType: AttachModifyReturn, Sleepable: true, BTF: true},
	{Name: "fexit.s+", ProgType: ProgTracing, AttachType: AttachTraceFexit, Sleepable: true, BTF: true},
	{Name: "freplace+", ProgType: ProgExt, BTF: true},
	{Name: "lsm+", ProgType: ProgLSM, AttachType: AttachLSMMac, BTF: true},
	{Name: "lsm.s+", ProgType: ProgLSM, AttachType: AttachLSMMac, Sleepable: true, BTF: true},
	{Name: "lsm_cgroup+", ProgType: ProgLSM, AttachType: AttachLSMCgroup, BTF: true},
	{Name: "iter+", ProgType: ProgTracing, AttachType: AttachTraceIter, BTF: true},
	{Name: "iter.s+", ProgType: ProgTracing, AttachType: AttachTraceIter, Sleepable: true, BTF: true},
	{Name: "syscall", ProgType: ProgSyscall, Sleepable: true},
	{Name: "xdp.frags/devmap", ProgType: ProgXDP, AttachType: AttachXDPDevmap, Frags: true},
	{Name: "xdp/devmap", ProgType: ProgXDP, AttachType: AttachXDPDevmap},
	{Name: "xdp.frags/cpumap", ProgType: ProgXDP, AttachType: AttachXDPCpumap, Frags: true},
	{Name: "xdp/cpumap", ProgType: ProgXDP, AttachType: AttachXDPCpumap},
	{Name: "xdp.frags", ProgType: ProgXDP, AttachType: AttachXDP, Frags: true},
	{Name: "xdp", ProgType: ProgXDP, AttachType: AttachXDP},
	{Name: "perf_event", ProgType: ProgPerfEvent},
	{Name: "lwt_in", ProgType: ProgLWTIn},
	{Name: "lwt_out", ProgType: ProgLWTOut},
	{Name: "lwt_xmit", ProgType: ProgLWTXmit},
	{Name: "lwt_seg6local", ProgType: ProgLWTSeg6local},
	{Name: "sockops", ProgType: ProgSockOps, AttachType: AttachCgroupSockOps},
	{Name: "sk_skb/stream_parser", ProgType: ProgSkSkb, AttachType: AttachSkSkbStreamParser},
	{Name: "sk_skb/stream_verdict", ProgType: ProgSkSkb, AttachType: AttachSkSkbStreamVerdict},
	{Name: "sk_skb/verdict", ProgType: ProgSkSkb, AttachType: AttachSkSkbVerdict},
	{Name: "sk_skb", ProgType: ProgSkSkb},
	{Name: "sk_msg", ProgType: ProgSkMsg, AttachType: AttachSkMsgVerdict},
	{Name: "lirc_mode2", ProgType: ProgLircMode2, AttachType: AttachLircMode2},
	{Name: "flow_dissector", ProgType: ProgFlowDissector, AttachType: AttachFlowDissector},
	{Name: "cgroup_skb/ingress", ProgType: ProgCgroupSkb, AttachType: AttachCgroupInetIngress},
	{Name: "cgroup_skb/egress", ProgType: ProgCgroupSkb, AttachType: AttachCgroupInetEgress},
	{Name: "cgroup/skb", ProgType: ProgCgroupSkb},
	{Name: "cgroup/sock_create", ProgType: ProgCgroupSock, AttachType: AttachCgroupInetSockCreate},
	{Name: "cgroup/sock_release", ProgType: ProgCgroupSock, AttachType: AttachCgroupInetSockRelease},
	{Name: "cgroup/sock", ProgType: ProgCgroupSock, AttachType: AttachCgroupInetSockCreate},
	{Name: "cgroup/post_bind4", ProgType: ProgCgroupSock, AttachType: AttachCgroupInet4PostBind},
	{Name: "cgroup/post_bind6", ProgType: ProgCgroupSock, AttachType: AttachCgroupInet6PostBind},
	{Name: "cgroup/bind4", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet4Bind},
	{Name: "cgroup/bind6", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet6Bind},
	{Name: "cgroup/connect4", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet4Connect},
	{Name: "cgroup/connect6", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet6Connect},
	{Name: "cgroup/connect_unix", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUnixConnect},
	{Name: "cgroup/sendmsg4", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUDP4Sendmsg},
	{Name: "cgroup/sendmsg6", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUDP6Sendmsg},
	{Name: "cgroup/sendmsg_unix", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUnixSendmsg},
	{Name: "cgroup/recvmsg4", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUDP4Recvmsg},
	{Name: "cgroup/recvmsg6", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUDP6Recvmsg},
	{Name: "cgroup/recvmsg_unix", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUnixRecvmsg},
	{Name: "cgroup/getpeername4", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet4Getpeername},
	{Name: "cgroup/getpeername6", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet6Getpeername},
	{Name: "cgroup/getpeername_unix", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUnixGetpeername},
	{Name: "cgroup/getsockname4", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet4Getsockname},
	{Name: "cgroup/getsockname6", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupInet6Getsockname},
	{Name: "cgroup/getsockname_unix", ProgType: ProgCgroupSockAddr, AttachType: AttachCgroupUnixGetsockname},
	{Name: "cgroup/sysctl", ProgType: ProgCgroupSysctl, AttachType: AttachCgroupSysctl},
	{Name: "cgroup/getsockopt", ProgType: ProgCgroupSockopt, AttachType: AttachCgroupGetsockopt},
	{Name: "cgroup/setsockopt", ProgType: ProgCgroupSockopt, AttachType: AttachCgroupSetsockopt},
	{Name: "cgroup/dev", ProgType: ProgCgroupDevice, AttachType: AttachCgroupDevice},
	{Name: "struct_ops+", ProgType: ProgStructOps},
	{Name: "struct_ops.s+", ProgType: ProgStructOps, Sleepable: true},
	{Name: "sk_lookup", ProgType: ProgSkLookup, AttachType: AttachSkLookup},
	{Name: "netfilter", ProgType: ProgNetfilter, AttachType: AttachNetfilter},
}

// ParseSection returns what libbpf makes of a section name, and its extras, the
// part that says where to attach: "sched/sched_switch" of
// "tp/sched/sched_switch". A leading "?", which keeps a program from being
// loaded by default, is skipped. ok is false when the section holds no program
// of a known type.
func ParseSection(name string) (s Section, extras string, ok bool) {
	name = strings.TrimPrefix(name, "?")
	for _, s := range sections {
		prefix, open := strings.CutSuffix(s.Name, "+")
		rest, found := strings.CutPrefix(name, prefix)
		if !found {
			continue
		}
		// libbpf lets legacy names be followed by a slash and a name of choice
		// only where the table has "+"; an exact match is what counts.
		if rest == "" || open && rest[0] == '/' && len(rest) > 1 {
			s.Name = prefix
			return s, strings.TrimPrefix(rest, "/"), true
		}
	}
	return Section{}, "", false
}

// Sections returns libbpf's table.
func Sections() []Section { return sections[:] }
