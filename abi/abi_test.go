package abi

import (
	"slices"
	"strings"
	"testing"
)

func TestHelpers(t *testing.T) {
	for _, test := range []struct {
		name  string
		id    int32
		since Version
		proto string
	}{
		{"bpf_map_lookup_elem", 1, MakeVersion(3, 19), "void *bpf_map_lookup_elem(struct bpf_map *map, const void *key)"},
		{"get_current_pid_tgid", 14, MakeVersion(4, 2), "u64 bpf_get_current_pid_tgid(void)"},
		{"bpf_probe_read_kernel", 113, MakeVersion(5, 5), "long bpf_probe_read_kernel(void *dst, u32 size, const void *unsafe_ptr)"},
		{"bpf_ringbuf_output", 130, MakeVersion(5, 8), "long bpf_ringbuf_output(void *ringbuf, void *data, u64 size, u64 flags)"},
		{"bpf_get_attach_cookie", 174, MakeVersion(5, 15), "u64 bpf_get_attach_cookie(void *ctx)"},
		{"bpf_loop", 181, MakeVersion(5, 17), "long bpf_loop(u32 nr_loops, void *callback_fn, void *callback_ctx, u64 flags)"},
		{"bpf_cgrp_storage_delete", 211, MakeVersion(6, 2), "long bpf_cgrp_storage_delete(struct bpf_map *map, struct cgroup *cgroup)"},
	} {
		h := HelperByName(test.name)
		if h == nil {
			t.Errorf("no helper %s", test.name)
			continue
		}
		if h.ID != test.id || h.Since != test.since || h.Prototype != test.proto || HelperByID(test.id) != h {
			t.Errorf("%s is %+v", test.name, *h)
		}
	}
	for n, h := range Helpers() {
		if h.ID != int32(n+1) || HelperByName(h.Name) != HelperByID(h.ID) || !strings.Contains(h.Prototype, h.Name+"(") {
			t.Errorf("helper %d is %+v", n+1, h)
		}
		if h.ProgTypes(Linux6_12) == 0 || (h.Since <= Linux6_1) != (h.ProgTypes(Linux6_1) != 0) {
			t.Errorf("%s: program types %#x on 6.12, %#x on 6.1", h.Name, h.ProgTypes(Linux6_12), h.ProgTypes(Linux6_1))
		}
	}
	for _, id := range []int32{0, -1, 212, 1 << 30} {
		if h := HelperByID(id); h != nil {
			t.Errorf("helper %d is %v", id, h)
		}
	}
	for _, name := range []string{"", "bpf_", "zzz", "bpf_unspec"} {
		if h := HelperByName(name); h != nil {
			t.Errorf("helper %q is %v", name, h)
		}
	}
}

func TestCalls(t *testing.T) {
	for _, test := range []struct {
		helper string
		kernel Version
		typ    ProgType
		ok     bool
	}{
		{"get_current_task", Linux6_1, ProgKprobe, true},
		{"probe_read_user", Linux6_1, ProgTracepoint, true},
		{"probe_read_user", Linux6_12, ProgXDP, true},
		{"xdp_adjust_head", Linux6_12, ProgXDP, true},
		{"xdp_adjust_head", Linux6_12, ProgSchedCls, false},
		{"skb_store_bytes", Linux6_12, ProgSchedCls, true},
		{"skb_store_bytes", Linux6_12, ProgSocketFilter, false},
		{"override_return", Linux6_12, ProgKprobe, true},
		{"override_return", Linux6_12, ProgTracepoint, false},
		{"cgrp_storage_get", Linux6_1, ProgLSM, false},
		{"cgrp_storage_get", Linux6_12, ProgLSM, true},
		{"get_stackid", Linux6_12, ProgPerfEvent, true},
		{"read_branch_records", Linux6_12, ProgPerfEvent, true},
		{"read_branch_records", Linux6_12, ProgKprobe, false},
		{"seq_printf", Linux6_12, ProgTracing, true},
		{"sys_close", Linux6_12, ProgSyscall, true},
		{"get_retval", Linux6_12, ProgCgroupSockopt, true},
		{"skb_set_tunnel_key", Linux6_12, ProgSchedCls, true},
		{"map_lookup_elem", Linux6_12, ProgType(63), false},
		{"map_lookup_elem", Linux6_12, ProgType(1 << 20), false},
	} {
		if _, ok := HelperByName(test.helper).Call(test.kernel, test.typ); ok != test.ok {
			t.Errorf("%s on %v from %v: %v, want %v", test.helper, test.kernel, test.typ, ok, test.ok)
		}
	}
	c, ok := HelperByName("perf_event_output").Call(Linux6_12, ProgKprobe)
	want := [5]ArgType{ArgPtrToCtx, ArgConstMapPtr, ArgAnything, ArgPtrToMem | MemRdonly, ArgConstSizeOrZero}
	if !ok || c.Proto.Args != want || !c.Proto.GPLOnly || c.Proto.Return != RetInteger || c.Proto.NumArgs() != 5 || c.Conditional {
		t.Errorf("perf_event_output: %+v of %+v", c, c.Proto)
	}
	c, _ = HelperByName("perf_event_output").Call(Linux6_12, ProgSchedCls)
	if c.Proto.Name != "bpf_skb_event_output" {
		t.Errorf("perf_event_output in a classifier is %s", c.Proto.Name)
	}
	c, _ = HelperByName("map_lookup_elem").Call(Linux6_1, ProgXDP)
	if c.Proto.Return.Base() != RetPtrToMapValue || !c.Proto.Return.Has(PtrMaybeNull) || c.Proto.Args[1] != ArgPtrToMapKey {
		t.Errorf("map_lookup_elem: %+v", c.Proto)
	}
	c, _ = HelperByName("task_pt_regs").Call(Linux6_12, ProgTracing)
	if c.Proto.BTFTypes[0] != "pt_regs" || c.Proto.BTFTypes[1] != "task_struct" {
		t.Errorf("task_pt_regs: %+v", c.Proto)
	}
	c, _ = HelperByName("strtol").Call(Linux6_12, ProgCgroupSysctl)
	if !c.Proto.Args[3].Has(MemFixedSize|MemUninit) || c.Proto.Sizes[4] != 8 {
		t.Errorf("strtol: %+v", c.Proto)
	}
	c, _ = HelperByName("seq_printf").Call(Linux6_12, ProgTracing)
	if !c.Conditional {
		t.Error("seq_printf is for iterators only")
	}
	c, _ = HelperByName("probe_read_kernel").Call(Linux6_12, ProgXDP)
	if c.Capability != "CAP_PERFMON" {
		t.Errorf("probe_read_kernel in XDP asks for %q", c.Capability)
	}
	c, _ = HelperByName("copy_from_user").Call(Linux6_12, ProgLSM)
	if !c.Proto.MightSleep {
		t.Error("copy_from_user may sleep")
	}
}

func TestKfuncs(t *testing.T) {
	names := make([]string, len(kfuncs))
	for n, k := range Kfuncs() {
		names[n] = k.Name
		if KfuncByName(k.Name) != &kfuncs[n] {
			t.Errorf("%s is not found", k.Name)
		}
	}
	if !slices.IsSorted(names) {
		t.Error("kfuncs are not sorted")
	}
	k := KfuncByName("bpf_task_acquire")
	if k == nil || k.Flags != KfuncAcquire|KfuncRCU|KfuncRetNull || !k.ProgTypes.Has(ProgTracing) || k.ProgTypes.Has(ProgSocketFilter) ||
		k.Prototype != "struct task_struct *bpf_task_acquire(struct task_struct *p)" {
		t.Errorf("bpf_task_acquire: %+v", k)
	}
	if k := KfuncByName("bpf_strnlen"); k == nil || k.Since != Linux6_18 {
		t.Errorf("bpf_strnlen: %+v", k)
	}
	if KfuncByName("bpf_nothing") != nil {
		t.Error("bpf_nothing exists")
	}
}

func TestTypes(t *testing.T) {
	for typ := ProgType(1); int(typ) < len(progTypes); typ++ {
		if back, ok := ParseProgType(typ.String()); !ok || back != typ || typ.Since() == 0 {
			t.Errorf("%v: %v, %v, since %v", typ, back, ok, typ.Since())
		}
	}
	for typ := AttachType(0); int(typ) < len(attachTypes); typ++ {
		if back, ok := ParseAttachType(typ.String()); !ok || back != typ || typ.Since() == 0 {
			t.Errorf("%v: %v, %v, since %v", typ, back, ok, typ.Since())
		}
	}
	for typ := MapType(1); int(typ) < len(mapTypes); typ++ {
		if back, ok := ParseMapType(typ.String()); !ok || back != typ || typ.Since() == 0 {
			t.Errorf("%v: %v, %v, since %v", typ, back, ok, typ.Since())
		}
	}
	for typ, want := range map[ProgType]string{
		ProgKprobe: "pt_regs", ProgXDP: "xdp_md", ProgSchedCls: "__sk_buff", ProgPerfEvent: "bpf_perf_event_data",
		ProgRawTracepoint: "bpf_raw_tracepoint_args", ProgTracepoint: "", ProgTracing: "", ProgType(1000): "",
	} {
		if got := typ.Context(); got != want {
			t.Errorf("context of %v is %q, want %q", typ, got, want)
		}
	}
	if got := ProgType(1000).String() + MapType(1000).String() + LinkXDP.String(); got != "ProgType(1000)MapType(1000)xdp" {
		t.Error(got)
	}
	if got := (ProgTypes(1)<<ProgXDP | 1<<ProgKprobe).Slice(); !slices.Equal(got, []ProgType{ProgKprobe, ProgXDP}) {
		t.Error(got)
	}
}

func TestSections(t *testing.T) {
	for _, test := range []struct {
		section, name, extras string
		typ                   ProgType
		attach                AttachType
		sleepable             bool
	}{
		{"tp/sched/sched_switch", "tp", "sched/sched_switch", ProgTracepoint, 0, false},
		{"tracepoint/syscalls/sys_enter_openat", "tracepoint", "syscalls/sys_enter_openat", ProgTracepoint, 0, false},
		{"raw_tp/sched_switch", "raw_tp", "sched_switch", ProgRawTracepoint, 0, false},
		{"tp_btf/sched_switch", "tp_btf", "sched_switch", ProgTracing, AttachTraceRawTp, false},
		{"kprobe/vfs_read", "kprobe", "vfs_read", ProgKprobe, 0, false},
		{"kprobe.multi/vfs_*", "kprobe.multi", "vfs_*", ProgKprobe, AttachTraceKprobeMulti, false},
		{"?fentry.s/vfs_read", "fentry.s", "vfs_read", ProgTracing, AttachTraceFentry, true},
		{"iter/task", "iter", "task", ProgTracing, AttachTraceIter, false},
		{"uprobe//bin/bash:readline", "uprobe", "/bin/bash:readline", ProgKprobe, 0, false},
		{"usdt", "usdt", "", ProgKprobe, 0, false},
		{"perf_event", "perf_event", "", ProgPerfEvent, 0, false},
		{"xdp", "xdp", "", ProgXDP, AttachXDP, false},
		{"xdp.frags/devmap", "xdp.frags/devmap", "", ProgXDP, AttachXDPDevmap, false},
		{"tcx/egress", "tcx/egress", "", ProgSchedCls, AttachTCXEgress, false},
		{"cgroup_skb/egress", "cgroup_skb/egress", "", ProgCgroupSkb, AttachCgroupInetEgress, false},
		{"lsm/file_open", "lsm", "file_open", ProgLSM, AttachLSMMac, false},
		{"syscall", "syscall", "", ProgSyscall, 0, true},
	} {
		s, extras, ok := ParseSection(test.section)
		if !ok || s.Name != test.name || extras != test.extras || s.ProgType != test.typ || s.AttachType != test.attach || s.Sleepable != test.sleepable {
			t.Errorf("%s is %+v with %q, %v", test.section, s, extras, ok)
		}
	}
	for _, name := range []string{"", "?", ".text", "tpx", "tp/", "xdp/eth0", "kprobe.multix/a"} {
		if s, _, ok := ParseSection(name); ok {
			t.Errorf("%q is %+v", name, s)
		}
	}
	for _, s := range Sections() {
		got, _, ok := ParseSection(strings.Replace(s.Name, "+", "/x", 1))
		if got.Name = s.Name; !ok || got != s {
			t.Errorf("%s is hidden by another: %+v", s.Name, got)
		}
	}
}

func TestSyscalls(t *testing.T) {
	for n, s := range Syscalls() {
		if n > 0 && syscalls[n-1].Name >= s.Name {
			t.Errorf("%s is out of order", s.Name)
		}
		if SyscallByName(s.Name) != &syscalls[n] {
			t.Errorf("%s is not found by its name", s.Name)
		}
		for a := AMD64; a <= I386; a++ {
			if number, ok := s.Number(a); ok && SyscallByNumber(a, number) != &syscalls[n] {
				t.Errorf("%s is not found by its number %d on %v", s.Name, number, a)
			}
		}
	}
	for _, test := range []struct {
		name    string
		numbers [4]int
		params  string
	}{
		{"read", [4]int{0, 63, 63, 3}, "unsigned int fd, char * buf, size_t count"},
		{"openat", [4]int{257, 56, 56, 295}, "int dfd, const char * filename, int flags, umode_t mode"},
		{"open", [4]int{2, -1, -1, 5}, "const char * filename, int flags, umode_t mode"},
		{"clone", [4]int{56, 220, 220, 120}, "unsigned long clone_flags, unsigned long newsp, int * parent_tidptr, int * child_tidptr, unsigned long tls"},
		{"mmap", [4]int{9, 222, 222, 90}, "unsigned long addr, unsigned long len, unsigned long prot, unsigned long flags, unsigned long fd, unsigned long off"},
		{"getpid", [4]int{39, 172, 172, 20}, ""},
		{"riscv_hwprobe", [4]int{-1, -1, 258, -1}, "struct riscv_hwprobe * pairs, size_t pair_count, size_t cpusetsize, unsigned long * cpus, unsigned int flags"},
		{"file_setattr", [4]int{469, 469, 469, 469}, "int dfd, const char * filename, struct file_attr * ufattr, size_t usize, unsigned int at_flags"},
	} {
		s := SyscallByName(test.name)
		if s == nil {
			t.Errorf("no %s", test.name)
			continue
		}
		for a := AMD64; a <= I386; a++ {
			n, ok := s.Number(a)
			if !ok {
				n = -1
			}
			if n != test.numbers[a] {
				t.Errorf("%s is %d on %v, want %d", s.Name, n, a, test.numbers[a])
			}
		}
		params, ok := s.Params(AMD64)
		var text []string
		for _, p := range params {
			text = append(text, p.Type+" "+p.Name)
		}
		if got := strings.Join(text, ", "); !ok || got != test.params {
			t.Errorf("%s takes %q, %v, want %q", s.Name, got, ok, test.params)
		}
	}
	if p, _ := SyscallByName("clone").Params(ARM64); p[3].Name != "tls" || p[4].Name != "child_tidptr" {
		t.Errorf("clone on arm64 takes %v", p)
	}
	if s := SyscallByName("stat"); s.Entry() != "newstat" || SyscallByEntry("newstat") != s || SyscallByName("newstat") != s {
		t.Errorf("stat enters at %s", s.Entry())
	}
	if s := SyscallByNumber(AMD64, 100000); s != nil {
		t.Error(s.Name)
	}
	if s := SyscallByNumber(AMD64, -1); s != nil {
		t.Error(s.Name)
	}
	if _, ok := SyscallByName("afs_syscall").Params(AMD64); ok {
		t.Error("afs_syscall is not implemented")
	}
}

func TestRegisters(t *testing.T) {
	for a := AMD64; a <= RISCV64; a++ {
		r := a.Registers()
		names := slices.Concat(r.Args, r.SyscallArgs, []string{r.SyscallNumber, r.Return, r.StackPointer, r.InstructionPointer, r.FramePointer})
		if r.LinkRegister != "" {
			names = append(names, r.LinkRegister)
		}
		for _, name := range names {
			if _, ok := r.Lookup(name); !ok {
				t.Errorf("%v has no register %s", a, name)
			}
		}
		end := 0
		for _, m := range r.All {
			if m.Offset != end {
				t.Errorf("%v: %s lies at %d, want %d", a, m.Name, m.Offset, end)
			}
			end += m.Size
		}
		if len(r.SyscallArgs) != 6 || end < r.Size {
			t.Errorf("%v: %d arguments, %d of %d bytes", a, len(r.SyscallArgs), end, r.Size)
		}
	}
	if m, ok := ARM64.Registers().Lookup("regs[29]"); !ok || m.Name != "r29" || m.Offset != 232 {
		t.Errorf("%+v", m)
	}
	if I386.Registers() != nil {
		t.Error("386 has registers")
	}
}

func TestConstants(t *testing.T) {
	for _, test := range []struct {
		arch  Arch
		name  string
		value int64
	}{
		{AMD64, "AF_INET", 2},
		{AMD64, "AF_INET6", 10},
		{AMD64, "SOCK_STREAM", 1},
		{AMD64, "SOCK_CLOEXEC", 0o2000000},
		{AMD64, "IPPROTO_TCP", 6},
		{AMD64, "O_CREAT", 0o100},
		{AMD64, "O_DIRECTORY", 0o200000},
		{ARM64, "O_DIRECTORY", 0o40000},
		{RISCV64, "O_DIRECTORY", 0o200000},
		{AMD64, "SIGKILL", 9},
		{AMD64, "ENOENT", 2},
		{AMD64, "EWOULDBLOCK", 11},
		{AMD64, "CLONE_NEWPID", 0x20000000},
		{AMD64, "TCP_ESTABLISHED", 1},
		{AMD64, "TCP_CLOSE", 7},
		{AMD64, "EPOLLET", 1 << 31},
		{AMD64, "S_IFMT", 0o170000},
		{AMD64, "MAP_ANONYMOUS", 0x20},
		{AMD64, "MAP_32BIT", 0x40},
		{AMD64, "RLIMIT_NOFILE", 7},
		{AMD64, "SOL_SOCKET", 1},
		{AMD64, "SO_REUSEPORT", 15},
		{AMD64, "MSG_DONTWAIT", 0x40},
		{AMD64, "FUTEX_WAIT", 0},
		{AMD64, "PF_KTHREAD", 0x200000},
		{AMD64, "TASK_UNINTERRUPTIBLE", 2},
		{AMD64, "REQ_OP_WRITE", 1},
		{AMD64, "INADDR_LOOPBACK", 0x7f000001},
		{AMD64, "CAP_BPF", 39},
		{AMD64, "BPF_F_USER_STACK", 256},
		{AMD64, "SEEK_END", 2},
	} {
		if v, ok := Constant(test.arch, test.name); !ok || v != test.value {
			t.Errorf("%s is %d, %v on %v, want %d", test.name, v, ok, test.arch, test.value)
		}
	}
	for _, name := range []string{"", "AF_NOTHING", "__GFP_IO"} {
		if v, ok := Constant(AMD64, name); ok {
			t.Errorf("%q is %d", name, v)
		}
	}
	if _, ok := Constant(ARM64, "MAP_32BIT"); ok {
		t.Error("arm64 has MAP_32BIT")
	}
	for a := AMD64; a <= RISCV64; a++ {
		names := ConstantNames(a)
		for _, name := range names {
			if _, ok := Constant(a, name); !ok {
				t.Errorf("%s is not found on %v", name, a)
			}
		}
		slices.Sort(names)
		if len(slices.Compact(names)) != len(ConstantNames(a)) {
			t.Errorf("a name stands twice on %v", a)
		}
	}
}

func TestErrorsAndSignals(t *testing.T) {
	for n, want := range map[int][2]string{
		0: {"", "Success"}, 2: {"ENOENT", "No such file or directory"}, 11: {"EAGAIN", "Resource temporarily unavailable"},
		110: {"ETIMEDOUT", "Connection timed out"}, 512: {"ERESTARTSYS", "Unknown error 512"}, 41: {"", "Unknown error 41"},
		-1: {"", "Unknown error -1"}, 524: {"ENOTSUPP", "Unknown error 524"},
	} {
		if ErrnoName(n) != want[0] || Strerror(n) != want[1] {
			t.Errorf("error %d is %q, %q, want %q", n, ErrnoName(n), Strerror(n), want)
		}
	}
	for n, want := range map[int]string{0: "", 1: "SIGHUP", 6: "SIGABRT", 9: "SIGKILL", 17: "SIGCHLD", 29: "SIGIO", 31: "SIGSYS", 32: "", 34: "SIGRTMIN", 35: "SIGRTMIN+1", 64: "SIGRTMIN+30", 65: "", -1: ""} {
		if got := SignalName(n); got != want {
			t.Errorf("signal %d is %q, want %q", n, got, want)
		}
	}
	for name, want := range map[string]int{"SIGKILL": 9, "KILL": 9, "SIGUSR1": 10, "POLL": 29, "SIGIOT": 6} {
		if n, ok := SignalByName(name); !ok || n != want {
			t.Errorf("%s is %d, %v", name, n, ok)
		}
	}
	for _, name := range []string{"", "SIG", "KIL", "SIGKILL9"} {
		if n, ok := SignalByName(name); ok {
			t.Errorf("%q is %d", name, n)
		}
	}
}

func TestPerfEvents(t *testing.T) {
	for name, want := range map[string]uint64{"cpu": 0, "cpu-clock": 0, "faults": 2, "cs": 3, "dummy": 9} {
		if e, ok := SoftwareEvent(name); !ok || e.Type != PerfTypeSoftware || e.Config != want || e.Period == 0 {
			t.Errorf("%s is %+v", name, e)
		}
	}
	for name, want := range map[string]uint64{"cycles": 0, "branches": 4, "ref-cycles": 9} {
		if e, ok := HardwareEvent(name); !ok || e.Type != PerfTypeHardware || e.Config != want || e.Period == 0 {
			t.Errorf("%s is %+v", name, e)
		}
	}
	if _, ok := SoftwareEvent(""); ok {
		t.Error("the empty name is an event")
	}
	if len(SoftwareEvents()) != 11 || len(HardwareEvents()) != 10 {
		t.Error("events are missing")
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]Version{
		"6.12.117+deb12-cloud-amd64": Linux6_12, "6.1": Linux6_1, "6.18-rc1": Linux6_18, "5.10.0": MakeVersion(5, 10),
	} {
		if v, err := ParseVersion(text); err != nil || v != want {
			t.Errorf("%s is %v, %v", text, v, err)
		}
	}
	for _, text := range []string{"", "6", "x.y", "6.", "6.x", "999.1"} {
		if v, err := ParseVersion(text); err == nil {
			t.Errorf("%q is %v", text, v)
		}
	}
	if MakeVersion(4, 9) >= MakeVersion(4, 18) || Linux6_12.String() != "6.12" {
		t.Error("versions do not compare or print")
	}
	for _, name := range []string{"amd64", "arm64", "riscv64", "386"} {
		if a, ok := ParseArch(name); !ok || a.String() != name {
			t.Errorf("%s is %v", name, a)
		}
	}
	if _, ok := ParseArch("mips"); ok {
		t.Error("mips is an architecture")
	}
}
