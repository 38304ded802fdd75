package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// Helpers of the kernel by number (include/uapi/linux/bpf.h).
const (
	fnMapLookup      = 1
	fnMapUpdate      = 2
	fnPerfOutput     = 25
	fnTracePrintk    = 6
	fnSeqWrite       = 127
	fnRingOutput     = 130
	fnGetCookie      = 174
	fnGetCurrentTask = 35
	fnProbeReadKern  = 113
)

var typeU64 = &btf.Int{Name: "unsigned long long", Size: 8}

// needKernel skips tests that the live kernel, or this user, cannot do.
func needKernel(t testing.TB) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
}

// counter is an object whose programs count their runs in the variable "hits",
// and keep the last attach cookie in "cookie" where they may ask for it.
type counter struct {
	o            *object.Object
	hits, cookie *object.Var
}

func newCounter() *counter {
	c := &counter{
		hits:   &object.Var{Name: "hits", Section: ".bss", Type: typeU64},
		cookie: &object.Var{Name: "cookie", Section: ".bss", Type: typeU64},
	}
	c.o = &object.Object{License: "GPL", Vars: []*object.Var{c.hits, c.cookie}}
	return c
}

// program adds a program that returns result.
func (c *counter) program(name, section string, cookies bool, result int32) *counter {
	f := &object.Func{Name: name, Section: section}
	if cookies {
		f.Insns = append(f.Insns, isa.Call(fnGetCookie), isa.LoadMapValue(isa.R1, 0, 0), isa.StoreMem(isa.Double, isa.R1, 0, isa.R0))
		f.Relocs = append(f.Relocs, object.Reloc{Insn: 1, Kind: object.RelocVar, Symbol: c.cookie})
	}
	f.Relocs = append(f.Relocs, object.Reloc{Insn: len(f.Insns), Kind: object.RelocVar, Symbol: c.hits})
	f.Insns = append(f.Insns,
		isa.LoadMapValue(isa.R1, 0, 0), isa.Mov64Imm(isa.R2, 1), isa.Atomic(isa.AtomicAdd, isa.Double, isa.R1, 0, isa.R2),
		isa.Mov64Imm(isa.R0, result), isa.Exit())
	c.o.Funcs = append(c.o.Funcs, f)
	return c
}

func elfOf(t testing.TB, o *object.Object) []byte {
	t.Helper()
	data, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func loadObject(t testing.TB, o *object.Object, opts machine.LoadOptions) machine.Loaded {
	t.Helper()
	l, err := New().Load(t.Context(), elfOf(t, o), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func number(t testing.TB, l machine.Loaded, name string) uint64 {
	t.Helper()
	v, err := l.Var(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Get()
	if err != nil {
		t.Fatal(err)
	}
	return binary.NativeEndian.Uint64(b)
}

func attach(t testing.TB, l machine.Loaded, r machine.Attach) machine.Link {
	t.Helper()
	links, errs := l.Attach(t.Context(), []machine.Attach{r})
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	return links[0]
}

func point(t testing.TB, text string) hook.Point {
	t.Helper()
	pt, err := hook.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return pt
}

// getpid makes a system call that nothing else makes often.
func getpid(n int) {
	pid := uintptr(os.Getpid()) // for 0 no LSM is asked
	for range n {
		unix.RawSyscall(unix.SYS_GETSID, pid, 0, 0)
	}
}

func TestRun(t *testing.T) {
	matrix(t, testRun)
}

func testRun(t *testing.T) {
	needKernel(t)
	c := newCounter().program("begin", "raw_tp", false, 7)
	// r0 = ctx->args[1]
	c.o.Funcs = append(c.o.Funcs, &object.Func{Name: "second", Section: "raw_tp/end", Insns: []isa.Instruction{
		isa.LoadMem(isa.Double, isa.R0, isa.R1, 8), isa.Exit(),
	}})
	// A syscall program adds one to its context.
	c.o.Funcs = append(c.o.Funcs, &object.Func{Name: "sys", Section: "syscall", Insns: []isa.Instruction{
		isa.LoadMem(isa.Double, isa.R2, isa.R1, 0), isa.ALU64Imm(isa.Add, isa.R2, 1),
		isa.StoreMem(isa.Double, isa.R1, 0, isa.R2), isa.Mov64Imm(isa.R0, 3), isa.Exit(),
	}})
	c.o.Funcs = append(c.o.Funcs, &object.Func{Name: "drop", Section: "xdp", Insns: []isa.Instruction{
		isa.Mov64Imm(isa.R0, 1), isa.Exit(),
	}})
	c.o.Funcs = append(c.o.Funcs, &object.Func{Name: "tp", Section: "tp/sched/sched_switch", Insns: []isa.Instruction{
		isa.Mov64Imm(isa.R0, 1), isa.Exit(),
	}})
	l := loadObject(t, c.o, machine.LoadOptions{})
	for range 3 {
		if r, err := l.Run("begin"); err != nil || r != 7 {
			t.Fatalf("begin: %d, %v", r, err)
		}
	}
	if n := number(t, l, "hits"); n != 3 {
		t.Errorf("begin ran %d times, want 3", n)
	}
	ctx := make([]byte, 16)
	ctx[8] = 42
	if r, err := l.RunWith("second", machine.RunOptions{Context: ctx}); err != nil || r.Return != 42 {
		t.Errorf("second: %+v, %v", r, err)
	}
	r, err := l.RunWith("sys", machine.RunOptions{Context: []byte{41, 0, 0, 0, 0, 0, 0, 0}})
	if err != nil || r.Return != 3 || r.Context[0] != 42 {
		t.Errorf("sys: %+v, %v", r, err)
	}
	r, err = l.RunWith("drop", machine.RunOptions{Data: make([]byte, 64), Repeat: 10})
	if err != nil || r.Return != 1 || len(r.Data) != 64 {
		t.Errorf("drop: %+v, %v", r, err)
	}
	for name, want := range map[string]string{"drop": "wants a packet", "tp": "type tracepoint", "begin2": `did you mean "begin"`} {
		if _, err := l.Run(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	st, err := l.Stats("begin")
	if err != nil || st.Instructions == 0 || st.Missed != 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
}

func TestVars(t *testing.T) {
	needKernel(t)
	limit := &object.Var{Name: "limit", Section: ".rodata", Type: typeU64, Init: []byte{1, 0, 0, 0, 0, 0, 0, 0}}
	c := newCounter()
	start := &object.Var{Name: "start", Section: ".data", Type: typeU64, Init: []byte{9, 0, 0, 0, 0, 0, 0, 0}}
	c.o.Vars = append(c.o.Vars, limit, start)
	c.o.Funcs = []*object.Func{{
		Name: "sum", Section: "raw_tp",
		Insns: []isa.Instruction{
			isa.LoadMapValue(isa.R1, 0, 0), isa.LoadMem(isa.Double, isa.R0, isa.R1, 0),
			isa.LoadMapValue(isa.R1, 0, 0), isa.LoadMem(isa.Double, isa.R2, isa.R1, 0),
			isa.ALU64(isa.Add, isa.R0, isa.R2), isa.Exit(),
		},
		Relocs: []object.Reloc{{Insn: 0, Kind: object.RelocVar, Symbol: limit}, {Insn: 2, Kind: object.RelocVar, Symbol: start}},
	}}
	l := loadObject(t, c.o, machine.LoadOptions{Vars: map[string][]byte{"limit": {100, 0, 0, 0, 0, 0, 0, 0}, "nobody": {1}}})
	if r, err := l.Run("sum"); err != nil || r != 109 {
		t.Errorf("sum is %d, %v, want 109", r, err)
	}
	if n := number(t, l, "limit"); n != 100 {
		t.Errorf("limit is %d, want 100", n)
	}
	v, err := l.Var("start")
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Set([]byte{11, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if r, err := l.Run("sum"); err != nil || r != 111 {
		t.Errorf("sum is %d, %v, want 111", r, err)
	}
	if err := v.Set([]byte{1}); err == nil || !strings.Contains(err.Error(), "8 bytes") {
		t.Errorf("too short a value: %v", err)
	}
	if v, err := l.Var("limit"); err != nil || v.Set(make([]byte, 8)) == nil {
		t.Errorf("a constant was set (%v)", err)
	}
	if _, err := l.Var("strat"); err == nil || !strings.Contains(err.Error(), `"start"`) {
		t.Errorf("misspelt variable: %v", err)
	}
	_, err = New().Load(t.Context(), elfOf(t, c.o), machine.LoadOptions{Vars: map[string][]byte{"limit": {1}}})
	if err == nil || !strings.Contains(err.Error(), "has 8 bytes") {
		t.Errorf("too short a constant: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Get(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a variable of an object that is gone: %v", err)
	}
}

// hookCase is a kind of hook, and what makes it happen.
type hookCase struct {
	name, section, point string
	cookies              bool
	since                int // minor release of 6 that has its cookies
	trigger              func(t *testing.T)
	exact                uint64 // hits; 0 is at least one
	feature              testenv.Feature
	pid                  bool
}

func hookCases() []hookCase {
	syscalls := func(*testing.T) { getpid(20) }
	sleep := func(*testing.T) { time.Sleep(5 * time.Millisecond) }
	return []hookCase{
		{name: "tracepoint", section: "tp/syscalls/sys_enter_getsid", cookies: true, trigger: syscalls, exact: 20},
		{name: "tracepoint by point", section: "tracepoint", point: "tracepoint:syscalls:sys_exit_getsid", cookies: true, trigger: syscalls, exact: 20},
		{name: "raw tracepoint", section: "raw_tp/sys_enter", trigger: syscalls},
		{name: "raw tracepoint with cookie", section: "raw_tp/sys_exit", cookies: true, since: 10, trigger: syscalls},
		{name: "typed raw tracepoint", section: "tp_btf/sys_enter", trigger: syscalls},
		{name: "typed raw tracepoint by point", section: "tp_btf", point: "rawtracepoint:sched_switch", trigger: sleep},
		{name: "profile", section: "perf_event", point: "profile:hz:999", cookies: true, trigger: burn},
		{name: "profile by period", section: "perf_event", point: "profile:ms:2", trigger: burn},
		{name: "profile of this process", section: "perf_event", point: "profile:hz:999", trigger: burn, pid: true},
		{name: "software event", section: "perf_event", point: "software:page-faults:1", trigger: fault},
		{name: "software event of this process", section: "perf_event", point: "software:page-faults:1", trigger: fault, pid: true},
		{name: "hardware event", section: "perf_event", point: "hardware:instructions:100000", trigger: burn, feature: testenv.HardwareCounters},
		{name: "kprobe", section: "kprobe/__x64_sys_getsid", cookies: true, trigger: syscalls, exact: 20, feature: testenv.Kprobe},
		{name: "kprobe by point", section: "kprobe", point: "kprobe:__x64_sys_getsid", cookies: true, trigger: syscalls, exact: 20, feature: testenv.Kprobe},
		{name: "kprobe with module", section: "kprobe", point: "kprobe:vmlinux:__x64_sys_getsid", trigger: syscalls, exact: 20, feature: testenv.Kprobe},
		{name: "ksyscall", section: "ksyscall/getsid", trigger: syscalls, exact: 20, feature: testenv.Kprobe},
		{name: "kretprobe", section: "kretprobe/__x64_sys_getsid", cookies: true, trigger: syscalls, exact: 20, feature: testenv.Kprobe},
		{name: "kprobes", section: "kprobe", point: "kprobe:__x64_sys_gets*", cookies: true, trigger: syscalls, feature: testenv.Kprobe},
		{name: "kprobe.multi", section: "kprobe.multi/__x64_sys_getsid", cookies: true, trigger: syscalls, exact: 20, feature: testenv.KprobeMulti},
		{name: "fentry", section: "fentry/__x64_sys_getsid", cookies: true, trigger: syscalls, exact: 20, feature: testenv.Fentry},
		{name: "fexit", section: "fexit", point: "fexit:__x64_sys_getsid", trigger: syscalls, exact: 20, feature: testenv.Fentry},
		{name: "fmod_ret", section: "fmod_ret/security_task_getsid", trigger: syscalls, feature: testenv.Fentry},
		{name: "lsm", section: "lsm/task_getsid", trigger: syscalls, exact: 20, feature: testenv.LSM},
		{name: "uprobe", section: "uprobe", point: "uprobe:/proc/self/exe:github.com/skep-bpf/skep/kernel.called", cookies: true, trigger: callMe, exact: 10},
		{name: "uprobe of this process", section: "uprobe", point: "uprobe:/proc/self/exe:github.com/skep-bpf/skep/kernel.called", trigger: callMe, exact: 10, pid: true},
		{name: "uprobe.multi", section: "uprobe.multi", point: "uprobe:/proc/self/exe:github.com/skep-bpf/skep/kernel.called,uprobe:/proc/self/exe:github.com/skep-bpf/skep/kernel.callee", cookies: true, trigger: callMe, exact: 20},
		{name: "watchpoint", section: "perf_event", point: "watchpoint:WATCHED:8:w", trigger: touch, exact: 5, feature: testenv.Watchpoint, pid: true},
	}
}

// sink keeps calls from being dropped.
var sink int

//go:noinline
func called(n int) int { sink = n; return n + 1 }

//go:noinline
func callee(n int) int { sink = n; return n + 2 }

var watched = new(uint64)

func touch(*testing.T) {
	for range 5 {
		*watched++
	}
}

func callMe(*testing.T) {
	for i := range 10 {
		called(i)
		callee(i)
	}
}

func burn(*testing.T) {
	end := time.Now().Add(60 * time.Millisecond)
	for n := 0; time.Now().Before(end); n++ {
		callee(n)
	}
}

func fault(t *testing.T) {
	mem, err := unix.Mmap(-1, 0, 64<<12, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(mem); i += 4096 {
		mem[i] = 1
	}
	unix.Munmap(mem)
}

// TestHooks attaches a program to each kind of hook, makes the hook happen, and
// sees that it ran with its cookie, and no more once it is detached.
func TestHooks(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		for _, c := range hookCases() {
			t.Run(c.name, func(t *testing.T) { testHook(t, c) })
		}
	})
}

func testHook(t *testing.T, c hookCase) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the names of functions are those of amd64")
	}
	if c.feature != "" {
		testenv.OnMatrix(t)
	}
	release := liveTarget(t).Release()
	cookies := c.cookies && release.AtLeast(6, c.since)
	o := newCounter().program("prog", c.section, cookies, 0).o
	l, err := New().Load(t.Context(), elfOf(t, o), machine.LoadOptions{})
	skipMissing(t, c.feature, err)
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := machine.Attach{Program: "prog"}
	if c.pid {
		r.PID = os.Getpid()
	}
	if c.point != "" {
		text := strings.Replace(c.point, "WATCHED", hexAddr(watched), 1)
		for text := range strings.SplitSeq(text, ",") {
			pt := point(t, text)
			if pt.Path == "/proc/self/exe" {
				exe, err := os.Readlink(pt.Path)
				if err != nil {
					t.Fatal(err)
				}
				pt.Path = exe
			}
			r.Points = append(r.Points, pt)
		}
	}
	if cookies {
		r.Cookies = []uint64{0x1234, 0x1234}[:max(len(r.Points), 1)]
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	links, errs := l.Attach(t.Context(), []machine.Attach{r})
	skipMissing(t, c.feature, errs[0])
	c.trigger(t)
	if err := links[0].Close(); err != nil {
		t.Fatal(err)
	}
	hits := number(t, l, "hits")
	if hits == 0 || c.exact != 0 && hits != c.exact {
		t.Errorf("ran %d times, want %d", hits, c.exact)
	}
	if cookies && number(t, l, "cookie") != 0x1234 {
		t.Errorf("cookie is %#x, want 0x1234", number(t, l, "cookie"))
	}
	c.trigger(t)
	if n := number(t, l, "hits"); n != hits {
		t.Errorf("ran %d times more after it was detached", n-hits)
	}
	if n, err := l.Missed("prog"); err != nil || n != 0 {
		t.Errorf("%d runs were missed, %v", n, err)
	}
}

// skipMissing ends the test where a kernel lacks a feature that not all have.
func skipMissing(t *testing.T, f testenv.Feature, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if f != "" && !strings.Contains(err.Error(), "bug") {
		testenv.Skip(t, f, "%v", err)
	}
	t.Fatal(err)
}

func hexAddr(p *uint64) string {
	return "0x" + strings.TrimLeft(string(appendHex(nil, p)), "0")
}

func TestTwoRequests(t *testing.T) {
	needKernel(t)
	c := newCounter().program("good", "raw_tp/sys_enter", false, 0).program("bad", "tp", false, 0)
	l := loadObject(t, c.o, machine.LoadOptions{})
	links, errs := l.Attach(t.Context(), []machine.Attach{
		{Program: "good"},
		{Program: "bad", Points: []hook.Point{point(t, "tracepoint:sched:sched_switch"), {Kind: hook.Tracepoint, Subsystem: "sched", Event: "sched_swtich"}}},
		{Program: "nobody"},
	})
	if errs[0] != nil || links[0] == nil {
		t.Errorf("the good request: %v, %v", links[0], errs[0])
	}
	if links[1] != nil || errs[1] == nil || !strings.Contains(errs[1].Error(), `did you mean "sched:sched_switch"`) && !strings.Contains(errs[1].Error(), "sched_switch\"") {
		t.Errorf("the bad request: %v, %v", links[1], errs[1])
	}
	if links[2] != nil || errs[2] == nil {
		t.Errorf("a program that is not there: %v, %v", links[2], errs[2])
	}
	// Nothing of the bad request is left.
	if n := len(l.(*loaded).links); n != 1 {
		t.Errorf("%d links are left, want 1", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, errs := l.Attach(ctx, []machine.Attach{{Program: "good"}}); !errors.Is(errs[0], context.Canceled) {
		t.Errorf("cancelled: %v", errs[0])
	}
}

func TestAttachErrors(t *testing.T) {
	needKernel(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		section string
		r       machine.Attach
		want    string
	}{
		{"raw_tp/sched_swtich", machine.Attach{}, `"sched_switch"`},
		{"raw_tp", machine.Attach{}, "which raw tracepoint"},
		{"tp/sched/sched_swtich", machine.Attach{}, "sched_switch"},
		{"tp/shced/sched_switch", machine.Attach{}, "sched"},
		{"uprobe", machine.Attach{Points: []hook.Point{{Kind: hook.Uprobe, Path: exe, Func: "no.such.function"}}}, "no.such.function"},
		{"uprobe", machine.Attach{Points: []hook.Point{{Kind: hook.Uprobe, Path: "/no/such/file", Func: "f"}}}, "/no/such/file"},
		{"uprobe", machine.Attach{Points: []hook.Point{{Kind: hook.Uprobe, Path: "/proc/version", Func: "f"}}}, "cannot be probed"},
		{"usdt", machine.Attach{Points: []hook.Point{{Kind: hook.USDT, Path: exe, Event: "nothing"}}}, "nothing"},
		{"perf_event", machine.Attach{}, "which event"},
		{"perf_event", machine.Attach{Points: []hook.Point{{Kind: hook.Profile, Unit: hook.Hz, Rate: 1 << 40}}}, "max_sample_rate"},
		{"perf_event", machine.Attach{PID: 1 << 22, Points: []hook.Point{{Kind: hook.Profile, Unit: hook.Hz, Rate: 10}}}, "no process 4194304"},
		{"perf_event", machine.Attach{Points: []hook.Point{{Kind: hook.Software, Event: "nonsense"}}}, "nonsense"},
		{"xdp", machine.Attach{}, "a network interface"},
		{"xdp", machine.Attach{Target: "nosuch0"}, `"nosuch0" is none`},
		{"tc", machine.Attach{Target: "lo:sideways"}, "ingress or egress"},
		{"cgroup/dev", machine.Attach{}, "a cgroup"},
		{"cgroup/dev", machine.Attach{Target: "/proc"}, "cgroup v2"},
		{"sockops", machine.Attach{Target: "/no/such/cgroup"}, "ENOENT"},
		{"sk_lookup", machine.Attach{Target: "/proc/version"}, "a network namespace"},
		{"netfilter", machine.Attach{}, "netfilter hook"},
		{"netfilter", machine.Attach{Target: "ipv5:input:0"}, "families are"},
		{"sk_msg", machine.Attach{}, "a map of sockets"},
		{"sk_msg", machine.Attach{Target: ".bss"}, "type array"},
		{"socket", machine.Attach{}, "a network interface"},
		{"syscall", machine.Attach{}, "run by hand"},
		{"action", machine.Attach{}, "tc(8)"},
		{"lwt_in", machine.Attach{}, "ip-route(8)"},
	} {
		t.Run(tt.section, func(t *testing.T) {
			result := int32(0)
			if strings.HasPrefix(tt.section, "sk_") || tt.section == "netfilter" {
				result = 1
			}
			l, err := New().Load(t.Context(), elfOf(t, newCounter().program("prog", tt.section, false, result).o), machine.LoadOptions{})
			if err != nil {
				if strings.Contains(err.Error(), "Linux has") || errors.Is(err, unix.EINVAL) {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			defer l.Close()
			tt.r.Program = "prog"
			links, errs := l.Attach(t.Context(), []machine.Attach{tt.r})
			if links[0] != nil {
				links[0].Close()
			}
			if errs[0] == nil || !strings.Contains(errs[0].Error(), tt.want) {
				t.Errorf("%v, want %q", errs[0], tt.want)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	needKernel(t)
	big := newCounter().program("prog", "raw_tp/sys_enter", false, 0)
	big.o.Big = true
	for name, tt := range map[string]struct {
		elf  []byte
		opts machine.LoadOptions
		want string
	}{
		"empty":      {nil, machine.LoadOptions{}, "cannot read BPF object"},
		"text":       {[]byte("#!/bin/sh\n"), machine.LoadOptions{}, "cannot read BPF object"},
		"truncated":  {elfOf(t, newCounter().program("prog", "raw_tp/sys_enter", false, 0).o)[:200], machine.LoadOptions{}, "cannot read BPF object"},
		"big endian": {elfOf(t, big.o), machine.LoadOptions{}, "big-endian"},
		"section":    {elfOf(t, newCounter().program("prog", "kporbe/x", false, 0).o), machine.LoadOptions{}, "no kind of program"},
		"typed":      {elfOf(t, newCounter().program("prog", "tp_btf/sched_swtich", false, 0).o), machine.LoadOptions{}, `did you mean "sched_switch"`},
		"iterator":   {elfOf(t, newCounter().program("prog", "iter/tsak", false, 0).o), machine.LoadOptions{}, `did you mean "task"`},
		"function":   {elfOf(t, newCounter().program("prog", "fentry/vfs_raed", false, 0).o), machine.LoadOptions{}, `did you mean "vfs_read"`},
		"module":     {elfOf(t, newCounter().program("prog", "fentry/nosuchmodule:f", false, 0).o), machine.LoadOptions{}, "nosuchmodule"},
		"pinned map": {elfOf(t, mapObject(abi.MapHash, 0)), machine.LoadOptions{Maps: map[string]machine.MapOptions{"m": {Pinned: "/sys/fs/bpf/no_such_pin"}}}, "nothing is pinned at /sys/fs/bpf/no_such_pin"},
		"huge map":   {elfOf(t, mapObject(abi.MapHash, 0)), machine.LoadOptions{Maps: map[string]machine.MapOptions{"m": {MaxEntries: 1 << 31}}}, "2147483648 elements"},
		"token":      {elfOf(t, mapObject(abi.MapHash, 0)), machine.LoadOptions{TokenPath: "/proc"}, "BPF token"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := New().Load(t.Context(), tt.elf, tt.opts)
			if err == nil {
				l.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New().Load(ctx, elfOf(t, mapObject(abi.MapHash, 0)), machine.LoadOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// rejected is a program that the verifier refuses at its third line.
func rejected(insns ...isa.Instruction) *object.Object {
	place := func(row int, text string) object.Place {
		return object.Place{File: "script.bt", Row: row, Col: 1, Text: text}
	}
	all := append([]isa.Instruction{isa.LoadImm64(isa.R6, 1), isa.Mov64Imm(isa.R7, 2)}, insns...)
	all = append(all, isa.Mov64Imm(isa.R0, 0), isa.Exit())
	return &object.Object{License: "GPL", Funcs: []*object.Func{{
		Name: "prog", Section: "raw_tp/sys_enter", Insns: all,
		Lines: []object.Line{
			{Insn: 0, Place: place(1, "rawtracepoint:sys_enter {")},
			{Insn: 1, Place: place(2, "$a = 2;")},
			{Insn: 2, Place: place(3, "$b = *$a;")},
			{Insn: 3 + len(insns) - 1, Place: place(4, "}")},
		},
	}}}
}

func TestVerifierError(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		for name, tt := range map[string]struct {
			insn    isa.Instruction
			message string
			reason  string
		}{
			"bad pointer":     {isa.LoadMem(isa.Double, isa.R1, isa.R7, 0), "invalid mem access 'scalar'", ""},
			"uninitialised":   {isa.Mov64(isa.R1, isa.R8), "R8 !read_ok", ""},
			"no such helper":  {isa.Call(9999), "invalid func unknown#9999", ""},
			"forbidden":       {isa.Call(51 /* redirect_map */), "", "may not call bpf_redirect_map"},
			"context":         {isa.LoadMem(isa.Double, isa.R1, isa.R1, 4096), "", ""},
			"ends in nowhere": {isa.Jump(-1), "", ""},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := New().Load(t.Context(), elfOf(t, rejected(tt.insn)), machine.LoadOptions{})
				var ve *VerifierError
				if !errors.As(err, &ve) {
					t.Fatalf("%v is no verdict", err)
				}
				if name == "ends in nowhere" {
					return // 6.1 finds the loop, later ones find it elsewhere
				}
				if ve.Program != "prog" || ve.Slot != 3 || ve.Insn != 2 || ve.Func != "prog" || ve.Where.Row != 3 || ve.Where.File != "script.bt" {
					t.Errorf("at slot %d, instruction %d of %s, %v, want slot 3, instruction 2, line 3\n%s", ve.Slot, ve.Insn, ve.Func, ve.Where, ve.Log)
				}
				if !strings.Contains(ve.Message, tt.message) || !strings.Contains(ve.Reason, tt.reason) {
					t.Errorf("says %q and %q, want %q and %q\n%s", ve.Message, ve.Reason, tt.message, tt.reason, ve.Log)
				}
				if !strings.HasPrefix(ve.Error(), "script.bt:3: the kernel refuses program prog: ") {
					t.Errorf("%v", ve)
				}
			})
		}
		l := loadObject(t, newCounter().program("prog", "raw_tp/sys_enter", false, 0).o, machine.LoadOptions{Verbose: true})
		if log := l.Logs("prog"); !strings.Contains(log, "processed ") {
			t.Errorf("the log of a good program: %q", log)
		}
		if bytes.Contains([]byte(l.Logs("nobody")), []byte("processed")) {
			t.Error("there is a log of a program that is not there")
		}
	})
}
