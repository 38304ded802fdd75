package bt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/codegen"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

// compile compiles a script for this machine. It returns the diagnostics as
// text, and no object when they hold errors.
func compile(t *testing.T, script string, o bt.Options) (*object.Object, string) {
	t.Helper()
	tgt, err := kernel.Target()
	if err != nil {
		t.Fatal(err)
	}
	unit, diags := bt.Compile(source.NewFile("test", script), tgt, o)
	var b strings.Builder
	source.RenderAll(&b, diags, source.Style{})
	if unit == nil {
		return nil, b.String()
	}
	obj, err := codegen.Generate(unit.Module, codegen.Options{Arch: tgt.Arch()})
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	obj.Manifest = unit.Manifest
	return obj, b.String()
}

// load compiles a script and has the kernel verify it.
func load(t *testing.T, script string, o bt.Options) *object.Object {
	t.Helper()
	obj, diags := compile(t, script, o)
	if obj == nil {
		t.Fatalf("%s\n%s", script, diags)
	}
	elf, err := obj.Marshal()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	loaded, err := kernel.New().Load(t.Context(), elf, machine.LoadOptions{})
	if err != nil {
		var ve *kernel.VerifierError
		if errors.As(err, &ve) {
			t.Fatalf("%s\n%v\n%s", script, err, ve.Log)
		}
		t.Fatalf("%s: %v", script, err)
	}
	loaded.Close()
	return obj
}

// sections lists the sections of an object's programs.
func sections(o *object.Object) string {
	var list []string
	for _, f := range o.Funcs {
		if f.Section != "" {
			list = append(list, f.Section)
		}
	}
	return strings.Join(list, " ")
}

// TestProbesLoad has kernels verify scripts with hooks of every kind.
func TestProbesLoad(t *testing.T) {
	guest.Matrix(t, guest.Config{}, func(t *testing.T) {
		testenv.NeedBPF(t)
		testenv.NeedTracefs(t)
		tgt, err := kernel.Target()
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			script  string
			need    target.FeatureName
			section string // of the first program, "" for any
		}{
			{"kprobe:vfs_read { @[func, probe, comm] = count(); @a = arg0 + arg5 + sarg0 + reg(\"ip\"); }", target.FeatureKprobe, "kprobe/vfs_read"},
			{"kprobe:vfs_read { @ = sum(args.count); @n = args.file.f_flags; }", target.FeatureKprobe, "kprobe/vfs_read"},
			{"kprobe:vfs_read+4 { @ = count(); }", target.FeatureKprobe, "kprobe/vfs_read+4"},
			{"kretprobe:vfs_read { @[retval, func] = count(); }", target.FeatureKprobe, "kretprobe/vfs_read"},
			{"kprobe:vfs_* { @[probe] = count(); }", target.FeatureKprobe, ""},
			{"kprobe:vfs_* { @[probe] = count(); }", target.FeatureKprobeMulti, "kprobe.multi"},
			{"kretprobe:vfs_* { @[probe, retval] = count(); }", target.FeatureKprobeMulti, "kretprobe.multi"},
			{"kprobe:vfs_read,kprobe:vfs_write { @[func] = count(); @x = args.count; }", target.FeatureKprobe, ""},
			{"fentry:vfs_read { @[comm] = sum(args.count); @f = args.file.f_flags; @n = str(args.file.f_path.dentry.d_name.name); }", target.FeatureFentry, "fentry/vfs_read"},
			{"fexit:vfs_read { @[retval] = count(); @c = args.count; @f = func; }", target.FeatureFentry, "fexit/vfs_read"},
			{"kfunc:vfs_w* { @[probe] = count(); }", target.FeatureFentry, ""},
			{"tracepoint:sched:sched_switch { @[args.prev_comm, args.next_comm] = sum(args.prev_state); @[\"a\", \"b\"] = sum(args.next_pid); }", target.FeatureTracepoint, "tp/sched/sched_switch"},
			{"tracepoint:sched:sched_switch { @[probe] = count(); }", target.FeatureRawTracepoint, "raw_tp/sched_switch"},
			{"tracepoint:sched:sched_process_exec { printf(\"%s %d\\n\", args.filename, args.pid); }", target.FeatureTracepoint, ""},
			{"tracepoint:sched:sched_process_* { @[probe] = count(); }", target.FeatureTracepoint, ""},
			{"tracepoint:irq:softirq_* { @[probe, args.vec] = count(); }", target.FeatureTracepoint, "tp"},
			{"tracepoint:net:netif_receive_skb { @[args.name] = sum(args.len); @p = args.skbaddr; }", target.FeatureTracepoint, ""},
			{"tracepoint:sock:inet_sock_set_state { @[args.saddr[0], args.saddr_v6[15], args.sport] = count(); }", target.FeatureTracepoint, ""},
			{"tracepoint:signal:signal_generate { @[args.comm, args.sig] = count(); }", target.FeatureTracepoint, ""},
			{"tracepoint:raw_syscalls:sys_enter { @[args.id] = sum(args.args[1]); }", target.FeatureTracepoint, ""},
			{"tracepoint:syscalls:sys_enter_openat { @[str(args.filename), args.flags, probe] = count(); }", target.FeatureTypedRawTP, "tp_btf/sys_enter"},
			{"tracepoint:syscalls:sys_enter_openat { @ = count(); }", target.FeatureRawTracepoint, "raw_tp/sys_enter"},
			{"tracepoint:syscalls:sys_exit_openat /args.ret < 0/ { @[args.ret, args.__syscall_nr] = count(); }", target.FeatureTypedRawTP, "tp_btf/sys_exit"},
			{"tracepoint:syscalls:sys_enter_* { @[probe] = count(); }", target.FeatureRawTracepoint, "raw_tp/sys_enter"},
			{"rawtracepoint:sched_switch { @[args.prev.pid, args.next.pid] = count(); @b = arg1; }", target.FeatureTypedRawTP, "tp_btf/sched_switch"},
			{"rawtracepoint:sched_* { @[probe] = count(); }", target.FeatureRawTracepoint, ""},
			{"rawtracepoint:sched_switch { @ = arg0; }", target.FeatureRawTracepoint, "raw_tp/sched_switch"},
			{"rawtracepoint:signal_generate { @[args.sig, args.task.pid] = count(); }", target.FeatureRawTracepoint, "raw_tp/signal_generate"},
			{"rawtracepoint:sys_enter { @[args.id, args.regs.di] = count(); }", target.FeatureTypedRawTP, ""},
			{"uprobe:/init:main.main { @[func, probe, comm] = count(); @a = arg0 + sarg1; }", target.FeatureUprobe, ""},
			{"profile:hz:99 { @[kstack] = count(); @ip = reg(\"ip\"); }", target.FeatureBTF, "perf_event"},
			{"profile:hz:99 { @[comm] = count(); @a = ctx.sample_period; }", target.FeatureBTF, "perf_event"},
			{"software:cpu-clock:1000000 { @[comm, cpu] = count(); } hardware:cycles:1000000 { @h[comm] = count(); }", target.FeatureBTF, "perf_event"},
			{"watchpoint:0x1000:8:w { @[pid] = count(); }", target.FeatureBTF, "perf_event"},
			{"iter:task { printf(\"%d %s %d\\n\", ctx.task.pid, ctx.task.comm, ctx.meta.seq_num); }", target.FeatureIter, "iter/task"},
			{"iter:task_file { printf(\"%d %d %d\\n\", ctx.task.pid, ctx.fd, ctx.file.f_flags); }", target.FeatureIter, "iter/task_file"},
			{"iter:task_vma { printf(\"%x\\n\", ctx->vma->vm_start); }", target.FeatureIter, "iter/task_vma"},
			{"begin { @a = 1; } BEGIN { @b = 2; } end { @c = 3; } self:signal:SIGUSR1 { @d = 4; } test:x { @e = 5; } bench:y { @f = 6; } interval:s:1 { @g = 7; }", target.FeatureRawTracepoint, "raw_tp"},
			{"tracepoint:nosuch:event, tracepoint:sched:sched_switch { @ = count(); }", target.FeatureTracepoint, "raw_tp/sched_switch"},
		} {
			t.Run(strings.Fields(test.script)[0], func(t *testing.T) {
				if f := tgt.Feature(test.need); !f.Have {
					t.Logf("not on this kernel: %s", f.Why)
					return
				}
				if _, err := os.Stat("/init"); err != nil && strings.Contains(test.script, "/init") {
					exe, err := os.Executable()
					if err != nil {
						t.Fatal(err)
					}
					test.script = strings.ReplaceAll(test.script, "/init", exe)
				}
				obj := load(t, test.script, bt.Options{})
				if got := strings.Fields(sections(obj) + " -")[0]; test.section != "" && got != test.section {
					t.Errorf("%s: section %s, want %s", test.script, got, test.section)
				}
				load(t, test.script, bt.Options{PID: os.Getpid()})
			})
		}
	})
}

// usdtSource has a probe at two places whose arguments lie in different ones,
// and a function with a struct among its arguments.
const usdtSource = `
struct point { int x; long y; const char *name; };
static int counter = 7;
#define NOTE(args) __asm__ volatile("990: nop\n" \
	".pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n.4byte 992f-991f, 994f-993f, 3\n991: .asciz \"stapsdt\"\n992: .balign 4\n" \
	"993: .8byte 990b, 0, 0\n.asciz \"skep\"\n.asciz \"hit\"\n.asciz \"" args "\"\n994: .balign 4\n.popsection\n" \
	:: "a"(1), "b"(&counter))
__attribute__((noinline)) long probe_me(struct point *p, int n) { NOTE("-4@%%eax 8@$-3 -4@4(%%rbx,%%rax,1)"); return p->y + n; }
int main(void) { struct point p = { 1, 2, "here" }; NOTE("8@%%rbx -4@%%eax -4@(%%rbx)"); return probe_me(&p, 5) != 7; }
`

// TestUserProbesLoad checks arguments of USDT probes and of functions by their
// debug information, on the machine that has a C compiler.
func TestUserProbesLoad(t *testing.T) {
	testenv.NeedBPF(t)
	clang := testenv.NeedTool(t, "clang")
	dir := t.TempDir()
	src, exe := filepath.Join(dir, "prog.c"), filepath.Join(dir, "prog")
	if err := os.WriteFile(src, []byte(usdtSource), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(clang, "-g", "-O1", "-o", exe, src).CombinedOutput(); err != nil {
		t.Fatalf("clang: %v\n%s", err, out)
	}
	obj := load(t, "uprobe:"+exe+":probe_me { @[args.n, args.p.x, args.p->y, str(args.p.name)] = count(); }", bt.Options{})
	if got := sections(obj); got != "uprobe/"+exe+":probe_me" {
		t.Errorf("section %s", got)
	}
	load(t, "uretprobe:"+exe+":probe_me { @[retval, func] = count(); }", bt.Options{})
	obj = load(t, "usdt:"+exe+":skep:hit { @[arg0, arg1, arg2, probe] = count(); }", bt.Options{})
	if n := len(obj.Manifest.Programs); n != 2 {
		t.Errorf("%d programs for two places with different arguments", n)
	}
	if !strings.Contains(obj.Manifest.Probes[0].Hook, "+0x") {
		t.Errorf("the probe's place is missing: %+v", obj.Manifest.Probes[0])
	}
	obj = load(t, "usdt:"+exe+":hit { @ = count(); }", bt.Options{})
	if n := len(obj.Manifest.Programs); n != 1 {
		t.Errorf("%d programs for one probe without arguments", n)
	}
	for _, test := range []struct{ script, want string }{
		{"usdt:" + exe + ":hti { @ = count(); }", `did you mean "hit"`},
		{"usdt:" + exe + ":hit { @ = arg3; }", "has 3 arguments"},
		{"uprobe:" + exe + ":probe_mee { @ = count(); }", `did you mean "probe_me"`},
		{"uprobe:" + exe + ":probe_me { @ = args.m; }", `has no argument "m"`},
		{"uprobe:/nosuch/file:f { @ = count(); }", "/nosuch/file"},
	} {
		if obj, diags := compile(t, test.script, bt.Options{}); obj != nil || !strings.Contains(diags, test.want) {
			t.Errorf("%s: want %q in\n%s", test.script, test.want, diags)
		}
	}
}
