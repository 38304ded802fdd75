package hook

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/targettest"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text string
		want Point
		full string // "" for text
	}{
		{"BEGIN", Point{Kind: Begin}, "begin"},
		{"end", Point{Kind: End}, ""},
		{"self:signal:SIGUSR1", Point{Kind: Self, Event: "SIGUSR1"}, ""},
		{"test:adds", Point{Kind: Test, Event: "adds"}, ""},
		{"bench:loop", Point{Kind: Bench, Event: "loop"}, ""},
		{"kprobe:vfs_read", Point{Kind: Kprobe, Func: "vfs_read"}, ""},
		{"K:vfs_read+0x10", Point{Kind: Kprobe, Func: "vfs_read", Offset: 16}, "kprobe:vfs_read+16"},
		{`kprobe:"vfs_read"+4`, Point{Kind: Kprobe, Func: "vfs_read", Offset: 4}, "kprobe:vfs_read+4"},
		{"kprobe:0xffffffff81000100", Point{Kind: Kprobe, Address: 0xffffffff81000100, HasAddress: true}, ""},
		{"kprobe:ext4:ext4_*", Point{Kind: Kprobe, Module: "ext4", Func: "ext4_*"}, ""},
		{"kr:vfs_*", Point{Kind: Kretprobe, Func: "vfs_*"}, "kretprobe:vfs_*"},
		{"kfunc:vfs_read", Point{Kind: Fentry, Func: "vfs_read"}, "fentry:vfs_read"},
		{"fr:nf_tables:nft_x", Point{Kind: Fexit, Module: "nf_tables", Func: "nft_x"}, "fexit:nf_tables:nft_x"},
		{"fentry:bpf:prog", Point{Kind: Fentry, BPF: true, Func: "prog"}, ""},
		{"fentry:bpf:17:prog", Point{Kind: Fentry, BPF: true, ProgramID: 17, Func: "prog"}, ""},
		{"fentry:bpf:*:prog", Point{Kind: Fentry, BPF: true, Func: "prog"}, "fentry:bpf:prog"},
		{"Tracepoint:sched:sched_switch", Point{Kind: Tracepoint, Subsystem: "sched", Event: "sched_switch"}, "tracepoint:sched:sched_switch"},
		{" t:syscalls:sys_enter_* ", Point{Kind: Tracepoint, Subsystem: "syscalls", Event: "sys_enter_*"}, "tracepoint:syscalls:sys_enter_*"},
		{"rt:sched_switch", Point{Kind: RawTracepoint, Event: "sched_switch"}, "rawtracepoint:sched_switch"},
		{"rawtracepoint:xfs:xfs_attr", Point{Kind: RawTracepoint, Module: "xfs", Event: "xfs_attr"}, ""},
		{"u:/bin/bash:readline", Point{Kind: Uprobe, Path: "/bin/bash", Func: "readline"}, "uprobe:/bin/bash:readline"},
		{"uprobe:libc:malloc+8", Point{Kind: Uprobe, Path: "libc", Func: "malloc", Offset: 8}, ""},
		{"uprobe:/bin/bash:0x1234", Point{Kind: Uprobe, Path: "/bin/bash", Address: 0x1234, HasAddress: true}, ""},
		{`uprobe:/bin/x:cpp:"ns::f(int, char*)"`, Point{Kind: Uprobe, Path: "/bin/x", Demangled: true, Func: "ns::f(int, char*)"}, ""},
		{`uprobe:"/opt/a:b":f`, Point{Kind: Uprobe, Path: "/opt/a:b", Func: "f"}, ""},
		{"ur:/bin/bash:readline", Point{Kind: Uretprobe, Path: "/bin/bash", Func: "readline"}, "uretprobe:/bin/bash:readline"},
		{"U:/lib/libc.so.6:memory_heap_new", Point{Kind: USDT, Path: "/lib/libc.so.6", Event: "memory_heap_new"}, "usdt:/lib/libc.so.6:memory_heap_new"},
		{"usdt:/lib/libc.so.6:libc:setjmp", Point{Kind: USDT, Path: "/lib/libc.so.6", Namespace: "libc", Event: "setjmp"}, ""},
		{"p:hz:99", Point{Kind: Profile, Unit: Hz, Rate: 99}, "profile:hz:99"},
		{"i:s:1", Point{Kind: Interval, Unit: Seconds, Rate: 1}, "interval:s:1"},
		{"interval:5ms", Point{Kind: Interval, Unit: Milliseconds, Rate: 5}, "interval:ms:5"},
		{"interval:1_000us", Point{Kind: Interval, Unit: Microseconds, Rate: 1000}, "interval:us:1000"},
		{"interval:1000000", Point{Kind: Interval, Unit: Nanoseconds, Rate: 1000000}, "interval:ns:1000000"},
		{"s:faults:100", Point{Kind: Software, Event: "faults", Count: 100}, "software:faults:100"},
		{"hardware:cache-misses:1e6", Point{Kind: Hardware, Event: "cache-misses", Count: 1000000}, "hardware:cache-misses:1000000"},
		{"watchpoint:0x10000000:8:wr", Point{Kind: Watchpoint, Address: 0x10000000, HasAddress: true, Length: 8, Mode: "rw"}, "watchpoint:0x10000000:8:rw"},
		{"aw:incr+arg0:4:w", Point{Kind: AsyncWatchpoint, Func: "incr", Length: 4, Mode: "w"}, "asyncwatchpoint:incr+arg0:4:w"},
		{"iter:task", Point{Kind: Iter, Event: "task"}, ""},
		{"it:task_file:/sys/fs/bpf/files", Point{Kind: Iter, Event: "task_file", Pin: "/sys/fs/bpf/files"}, "iter:task_file:/sys/fs/bpf/files"},
	} {
		got, err := Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got.Text != c.text {
			t.Errorf("%s has the text %q", c.text, got.Text)
		}
		got.Text = ""
		if got != c.want {
			t.Errorf("%s = %+v, want %+v", c.text, got, c.want)
		}
		full := c.full
		if full == "" {
			full = c.text
		}
		if got.String() != full {
			t.Errorf("%s prints as %s, want %s", c.text, got, full)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		text, field, where, nearest, want string
	}{
		{"", FieldProvider, "", "", "empty"},
		{"trcepoint:a:b", FieldProvider, "trcepoint", "tracepoint", "no probe type"},
		{"  kprob:f", FieldProvider, "kprob", "kprobe", "no probe type"},
		{"begin:x", FieldProvider, "x", "", "too much"},
		{"kprobe", FieldProvider, "kprobe", "", "too short"},
		{"kprobe:", FieldFunc, "", "", "function is empty"},
		{"kprobe:f+x", FieldOffset, "x", "", "no number"},
		{"kprobe:f+", FieldOffset, "", "", "no number"},
		{"kretprobe:f+4", FieldOffset, "4", "", "no offset"},
		{"fentry:0x10", FieldAddress, "0x10", "", "not an address"},
		{"fentry:bpf:x:y", FieldProgramID, "x", "", "no number"},
		{"tracepoint:sched", FieldProvider, "tracepoint:sched", "", "too short"},
		{"tracepoint::x", FieldSubsystem, "", "", "subsystem is empty"},
		{"tracepoint:a:b:c", FieldProvider, "c", "", "too much"},
		{"uprobe:/bin/x:cc:f", FieldFunc, "cc", "cpp", "no language"},
		{`uprobe:"/bin/x:f`, FieldProvider, `"/bin/x:f`, "", "does not end"},
		{`uprobe:"/bin/x"y:f`, FieldProvider, `"/bin/x"y`, "", "follows a quoted name"},
		{"profile:hz", FieldUnit, "hz", "", "no number"},
		{"profile:khz:1", FieldUnit, "khz", "hz", "no unit"},
		{"profile:hz:x", FieldRate, "x", "", "no number"},
		{"profile:hz:0", FieldRate, "0", "", "cannot be kept"},
		{"profile:hz:9999999999", FieldRate, "9999999999", "", "cannot be kept"},
		{"interval:s:99999999999999", FieldRate, "99999999999999", "", "cannot be kept"},
		{"software:faults:0", FieldCount, "0", "", "count is 0"},
		{"watchpoint:0x1:3:w", FieldLength, "3", "", "1, 2, 4 or 8"},
		{"watchpoint:0x1:8:q", FieldMode, "q", "", "no mode"},
		{"watchpoint:x:8:r", FieldAddress, "x", "", "neither an address"},
		{"self:signal:SIGUSR3", FieldSignal, "SIGUSR3", "SIGUSR1", "cannot wait"},
		{"self:sgnal:SIGUSR1", FieldSubsystem, "sgnal", "signal", "no event"},
	} {
		p, err := Parse(c.text)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q = %+v, %v", c.text, p, err)
			continue
		}
		if c.text == "profile:hz" { // a rate of no digits, with a unit
			c.field, c.where = FieldRate, ""
		}
		if e.Field != c.field || c.text[e.Start:e.End] != c.where || e.Nearest != c.nearest || !strings.Contains(e.Error(), c.want) || e.Code == "" {
			t.Errorf("%q: %+v at %q", c.text, e, c.text[e.Start:e.End])
		}
	}
}

func TestFieldRange(t *testing.T) {
	for _, c := range []struct{ text, field, want string }{
		{" t:sched:sched_switch", FieldEvent, "sched_switch"},
		{" t:sched:sched_switch", FieldSubsystem, "sched"},
		{" t:sched:sched_switch", FieldProvider, "t"},
		{`k:"vfs_read"+8`, FieldOffset, "8"},
		{`k:"vfs_read"+8`, FieldFunc, `"vfs_read"`},
		{"interval:5ms", FieldUnit, "ms"},
		{"interval:5ms", FieldRate, "5"},
		{"tp/sched/sched_switch", FieldEvent, "sched_switch"},
		{"?kprobe/vfs_read", FieldFunc, "vfs_read"},
	} {
		p := Point{Text: c.text}
		start, end, ok := p.FieldRange(c.field)
		if !ok || c.text[start:end] != c.want {
			t.Errorf("%s of %q = %d, %d, %v, want %q", c.field, c.text, start, end, ok, c.want)
		}
	}
	if _, _, ok := (Point{Text: "t:a:b"}).FieldRange(FieldPin); ok {
		t.Error("a tracepoint has a pin")
	}
}

func TestSections(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  Point
		again string // "" for name
	}{
		{"tp/sched/sched_switch", Point{Kind: Tracepoint, Subsystem: "sched", Event: "sched_switch"}, ""},
		{"tracepoint/sched/sched_switch", Point{Kind: Tracepoint, Subsystem: "sched", Event: "sched_switch"}, "tp/sched/sched_switch"},
		{"?kprobe/vfs_read+8", Point{Kind: Kprobe, Func: "vfs_read", Offset: 8, Manual: true}, ""},
		{"kprobe.multi/vfs_*", Point{Kind: Kprobe, Func: "vfs_*", Multi: true}, ""},
		{"kprobe.session/vfs_*", Point{Kind: KprobeSession, Func: "vfs_*", Multi: true}, ""},
		{"kprobe", Point{Kind: Kprobe}, ""},
		{"ksyscall/openat", Point{Kind: Ksyscall, Event: "openat"}, ""},
		{"uprobe//bin/bash:readline+4", Point{Kind: Uprobe, Path: "/bin/bash", Func: "readline", Offset: 4}, ""},
		{"uretprobe.s//bin/bash:readline", Point{Kind: Uretprobe, Path: "/bin/bash", Func: "readline", Sleepable: true}, ""},
		{"uprobe.multi//bin/bash:read*", Point{Kind: Uprobe, Path: "/bin/bash", Func: "read*", Multi: true}, ""},
		{"usdt//bin/x:ns:probe", Point{Kind: USDT, Path: "/bin/x", Namespace: "ns", Event: "probe"}, ""},
		{"raw_tracepoint/sched_switch", Point{Kind: RawTracepoint, Event: "sched_switch"}, "raw_tp/sched_switch"},
		{"raw_tp.w/bpf_test", Point{Kind: RawTracepoint, Event: "bpf_test", Writable: true}, ""},
		{"tp_btf/sched_switch", Point{Kind: RawTracepoint, Event: "sched_switch", Typed: true}, ""},
		{"fentry.s/nf:nf_x", Point{Kind: Fentry, Module: "nf", Func: "nf_x", Sleepable: true}, ""},
		{"fmod_ret/f", Point{Kind: FmodRet, Func: "f"}, ""},
		{"lsm/file_open", Point{Kind: LSM, Event: "file_open"}, ""},
		{"lsm_cgroup/socket_bind", Point{Kind: LSMCgroup, Event: "socket_bind"}, ""},
		{"iter/task", Point{Kind: Iter, Event: "task"}, ""},
		{"struct_ops/init", Point{Kind: StructOps, Event: "init"}, ""},
		{"xdp", Point{Kind: XDP}, ""},
		{"xdp.frags/cpumap", Point{Kind: XDP, Attach: "cpumap", Frags: true}, ""},
		{"xdp/whatever", Point{Kind: XDP}, "xdp"},
		{"tc", Point{Kind: TC}, ""},
		{"classifier/x", Point{Kind: TC}, "tc"},
		{"tcx/ingress", Point{Kind: TC, Attach: "ingress"}, ""},
		{"cgroup/connect4", Point{Kind: Cgroup, Attach: "connect4"}, ""},
		{"cgroup_skb/egress", Point{Kind: Cgroup, Attach: "skb_egress"}, ""},
		{"socket", Point{Kind: SocketFilter}, ""},
		{"sk_skb/stream_verdict", Point{Kind: SKSkb, Attach: "stream_verdict"}, ""},
		{"sk_lookup", Point{Kind: SKLookup}, ""},
		{"perf_event", Point{Kind: PerfEvent}, ""},
		{"syscall", Point{Kind: Syscall}, ""},
	} {
		got, err := ParseSection(c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got.Text = ""
		if got != c.want {
			t.Errorf("%s = %+v, want %+v", c.name, got, c.want)
		}
		again := c.again
		if again == "" {
			again = c.name
		}
		if s, ok := got.Section(); s != again || !ok {
			t.Errorf("%s becomes the section %q, %v, want %q", c.name, s, ok, again)
		}
	}
	for name, want := range map[string]string{
		"kprob/x": "kprobe", ".text": "", "maps": "", "tp/sched": "", "uprobe//bin/x": "", "usdt//bin/x:y": "", "tp//x": "", "kprobe/:f": "", "": "",
	} {
		p, err := ParseSection(name)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q = %+v, %v", name, p, err)
		} else if want != "" && e.Nearest == "" {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// What sections cannot say becomes a section without a target.
func TestSectionOfScripts(t *testing.T) {
	for text, want := range map[string]string{
		"t:sched:sched_switch": "tp/sched/sched_switch", "t:sched:*": "tp", "k:vfs_read": "kprobe/vfs_read", "k:vfs_*": "kprobe",
		"k:ext4:ext4_x": "kprobe", "f:ext4:ext4_x": "fentry/ext4:ext4_x", "k:0x10": "kprobe", "p:hz:99": "perf_event",
		"i:s:1": "perf_event", "s:faults": "perf_event", "w:0x10:8:w": "perf_event", "u:/bin/x:f": "uprobe//bin/x:f",
		`u:/bin/x:cpp:"a::b"`: "uprobe", "U:/bin/x:p": "usdt", "U:/bin/x:ns:p": "usdt//bin/x:ns:p", "it:task": "iter/task", "rt:x": "raw_tp/x",
		"fentry:bpf:p": "fentry", "begin": "", "end": "", "self:signal:SIGUSR1": "", "test:x": "", "bench:x": "",
	} {
		p, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := p.Section(); got != want || ok != (want != "") {
			t.Errorf("%s becomes the section %q, %v, want %q", text, got, ok, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"BEGIN", "k:f+8", `uprobe:"/a:b":cpp:"x::y(int)"`, "t:a:b", "fentry:bpf:1:p", "interval:5ms", "w:f+arg1:8:rw", "U:/x:a:b", "i:s:1e3", `k:"bpf":f`,
		"tp/a/b", "uprobe//x:f+1", "usdt//x:a:b", "?xdp.frags/devmap", "fentry/m:f",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		check := func(err error) {
			var e *Error
			if !errors.As(err, &e) || e.Start < 0 || e.End < e.Start || e.End > len(text) || e.Message == "" || e.Code == "" {
				t.Errorf("%q: %+v", text, err)
			}
		}
		if p, err := Parse(text); err != nil {
			check(err)
		} else {
			again, err := Parse(p.String())
			p.Text, again.Text = "", ""
			if err != nil || again != p {
				t.Errorf("%q = %+v prints as %q = %+v, %v", text, p, p.String(), again, err)
			}
			_, _ = p.Section()
		}
		if p, err := ParseSection(text); err != nil {
			check(err)
		} else if s, ok := p.Section(); ok {
			if q, err := ParseSection(s); err != nil || q.Kind != p.Kind {
				t.Errorf("%q becomes %q = %+v, %v", text, s, q, err)
			}
		}
	})
}

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true},
		{"*", "x", true},
		{"", "", true},
		{"", "x", false},
		{"a*c", "abc", true},
		{"a*c", "abcd", false},
		{"*b*", "abc", true},
		{"a?c", "abc", true},
		{"a?c", "ac", false},
		{"[a-c]x", "bx", true},
		{"[a-c]x", "dx", false},
		{"[!a-c]x", "dx", true},
		{"[!a-c]x", "ax", false},
		{"a[]b", "a[]b", true},
		{"a[b", "a[b", true},
		{"**a", "bba", true},
		{"sys_enter_[or]*", "sys_enter_openat", true},
		{"sys_enter_[or]*", "sys_enter_close", false},
		{strings.Repeat("a*", 40) + "b", strings.Repeat("a", 2000), false},
	} {
		if got := match(c.pattern, c.name); got != c.want {
			t.Errorf("match(%q, %q) = %v", c.pattern, c.name, got)
		}
	}
}

func names(points []Point) []string {
	var all []string
	for _, p := range points {
		all = append(all, p.String())
	}
	return all
}

func TestExpand(t *testing.T) {
	m := targettest.New(t)
	for text, want := range map[string]string{
		"begin":                   "begin",
		"t:sched:sched_switch":    "tracepoint:sched:sched_switch",
		"t:sched:sched_[sw]*":     "tracepoint:sched:sched_switch tracepoint:sched:sched_wakeup",
		"t:sys*:sys_enter_*":      "tracepoint:syscalls:sys_enter_open tracepoint:syscalls:sys_enter_openat",
		"rt:*":                    "rawtracepoint:sched_switch rawtracepoint:sys_enter",
		"rt:sched_switch":         "rawtracepoint:sched_switch",
		"rt:vmlinux:sched_switch": "rawtracepoint:sched_switch",
		"k:vfs_*":                 "kprobe:vfs_open kprobe:vfs_read kprobe:vfs_write",
		"kr:ext4:*":               "kretprobe:ext4:ext4_sync_file",
		"k:vmlinux:*_read":        "kprobe:vfs_read",
		"f:*":                     "fentry:tcp_connect fentry:vfs_open fentry:vfs_read fentry:vfs_write",
		"f:vfs_read":              "fentry:vfs_read",
		"k:0x10":                  "kprobe:0x10",
		"s:*-faults":              "software:alignment-faults software:emulation-faults software:major-faults software:minor-faults software:page-faults",
		"s:cs":                    "software:cs",
		"it:*":                    "iter:task",
		"u:/bin/x:f":              "uprobe:/bin/x:f", // this target has no files: nothing can be said
		"p:hz:99":                 "profile:hz:99",
	} {
		p, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Expand(m, p, Options{})
		s := strings.Join(names(got), " ")
		if text == "rt:vmlinux:sched_switch" {
			s = strings.ReplaceAll(s, "rawtracepoint:vmlinux:", "rawtracepoint:")
		}
		if err != nil || s != want {
			t.Errorf("%s = %s, %v, want %s", text, s, err, want)
		}
	}
}

func TestExpandErrors(t *testing.T) {
	src := targettest.Kernel(t)
	src.Root = fstest.MapFS{"bin/script": {Data: []byte("#!/bin/sh\n")}}
	m, err := target.New(src)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, field, where, nearest, want string }{
		{"t:sched:sched_swich", FieldEvent, "sched_swich", "sched_switch", "no tracepoint"},
		{"t:shed:sched_waking", FieldSubsystem, "shed", "sched", "no tracepoints of a subsystem"},
		{"t:syscall:sys_enter_openat", FieldSubsystem, "syscall", "syscalls", "subsystem"},
		{"t:sched:x*", FieldEvent, "x*", "", "matches nothing"},
		{"t:x*:y", FieldSubsystem, "x*", "", "matches nothing"},
		{"rt:sched_swich", FieldEvent, "sched_swich", "sched_switch", "no raw tracepoint"},
		{"k:vfs_raed", FieldFunc, "vfs_raed", "vfs_read", "no kernel function"},
		{"k:notrace_function", FieldFunc, "notrace_function", "", "cannot be traced"},
		{"k:jiffies", FieldFunc, "jiffies", "", "is data"},
		{"k:nfs:nfs_x", FieldModule, "nfs", "", "no module"},
		{"s:page-fault", FieldEvent, "page-fault", "page-faults", "no software event"},
		{"h:cache-mises", FieldEvent, "cache-mises", "cache-misses", "no hardware event"},
		{"it:tsk", FieldEvent, "tsk", "task", "no iterator"},
		{"u:/bin/nothing:f", FieldPath, "/bin/nothing", "", "/bin/nothing"},
		{"u:/bin/script:f", FieldPath, "/bin/script", "", "no ELF file"},
		{"u:nothing:f", FieldPath, "nothing", "", "neither a program nor a library"},
	} {
		p, err := Parse(c.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Expand(m, p, Options{})
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s = %v, %v", c.text, names(got), err)
			continue
		}
		if e.Field != c.field || c.text[e.Start:e.End] != c.where || e.Nearest != c.nearest || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %+v at %q", c.text, e, c.text[e.Start:e.End])
		}
		if got, err := Expand(m, p, Options{Missing: true}); errors.Is(e, target.ErrNotFound) && err != nil {
			t.Errorf("%s, which may be missing: %v, %v", c.text, got, err)
		}
	}
	p, _ := Parse("k:vfs_*")
	if got, err := Expand(m, p, Options{Max: 2}); err == nil || !strings.Contains(err.Error(), "3 hooks") {
		t.Errorf("%v, %v", got, err)
	}
}

func listing(t *testing.T, m target.Target, pattern string, details bool) string {
	t.Helper()
	var lines []string
	for e, err := range List(m, pattern, details, Options{}) {
		if err != nil {
			return "error: " + err.Error()
		}
		line := e.Type
		if line == "" {
			line = e.Point.String()
		}
		if details {
			line = fmt.Sprint(line, " ", e.Stable, " ", e.Args, e.Return, e.Def)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestList(t *testing.T) {
	m := targettest.New(t)
	for _, c := range []struct {
		pattern string
		details bool
		want    string
	}{
		{"tracepoint:sched:*", false, "tracepoint:sched:sched_process_exec\ntracepoint:sched:sched_switch\ntracepoint:sched:sched_wakeup"},
		{"t:*_openat", false, "tracepoint:syscalls:sys_enter_openat\ntracepoint:syscalls:sys_exit_openat"},
		{"*sched_switch", false, "tracepoint:sched:sched_switch\nrawtracepoint:sched_switch"},
		{"*:vfs_read", false, "kprobe:vfs_read\nfentry:vfs_read"},
		{"iter", false, "iter:task"},
		{"kretprobe", false, "kretprobe:ext4:ext4_sync_file\nkretprobe:no_type\nkretprobe:tcp_connect\nkretprobe:vfs_open\nkretprobe:vfs_read\nkretprobe:vfs_write"},
		{"fexit:vfs_w*", true, "fexit:vfs_write false [{file struct file *} {buf const char *} {count size_t} {pos loff_t *}]ssize_t"},
		{"t:syscalls:sys_exit_read", true, "tracepoint:syscalls:sys_exit_read true [{__syscall_nr int} {ret long}]"},
		{"rt:sched_switch", true, "rawtracepoint:sched_switch false [{preempt _Bool} {prev struct task_struct *} {next struct task_struct *} {prev_state unsigned int}]"},
		{"iter:*", true, "iter:task true [{meta void *} {task struct task_struct *}]"},
		{"struct *_struct", false, "struct mm_struct\nstruct task_struct"},
		{"struct inode", true, "struct inode false []struct inode {\n\tlong unsigned int i_ino;\n\tumode_t i_mode;\n};\n"},
		{"enum tcp_*", false, "enum tcp_state"},
		{"struct task_strct", false, `error: there is no struct "task_strct" on the test machine; did you mean "task_struct"?`},
		{"kprobe:vfs_raed", false, `error: there is no kernel function "vfs_raed" on the test machine; did you mean "vfs_read"?`},
		{"zzz*", false, `error: "zzz*" matches nothing on the test machine`},
		{"kprob:x", false, `error: there is no probe type "kprob"; did you mean "kprobe"?`},
	} {
		if got := listing(t, m, c.pattern, c.details); got != c.want {
			t.Errorf("%s (%v):\n%s\nwant\n%s", c.pattern, c.details, got, c.want)
		}
	}
	all := strings.Split(listing(t, m, "", false), "\n")
	for _, want := range []string{"software:page-faults", "hardware:cpu-cycles", "tracepoint:sched:sched_switch", "rawtracepoint:sys_enter", "iter:task", "kprobe:no_type", "fentry:vfs_read"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is not in the list of all", want)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := make(map[string]bool)
	for k := Begin; k <= LircMode2; k++ {
		name := k.String()
		if name == "invalid" || seen[name] {
			t.Errorf("kind %d is called %q", k, name)
		}
		seen[name] = true
		var again Kind
		if err := again.UnmarshalText([]byte(name)); err != nil || again != k {
			t.Errorf("%s: %v, %v", name, again, err)
		}
	}
	if !Tracepoint.Stable() || !USDT.Stable() || Kprobe.Stable() || RawTracepoint.Stable() || Uprobe.Stable() {
		t.Error("stable and unstable kinds are mixed up")
	}
	p, _ := Parse("interval:5ms")
	if d := p.Unit.Period(p.Rate); d != 5*time.Millisecond {
		t.Errorf("5ms are %v", d)
	}
	data, err := json.Marshal(p)
	var again Point
	if err == nil {
		err = json.Unmarshal(data, &again)
	}
	if err != nil || again != p {
		t.Errorf("%s becomes %+v, %v", data, again, err)
	}
	if e, ok := (Point{Kind: Software, Event: "cpu"}).CPUEvent(); !ok || e.Name != "cpu-clock" || e.Count == 0 {
		t.Errorf("%+v, %v", e, ok)
	}
}
