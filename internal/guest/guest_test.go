//go:build linux

package guest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/skep-bpf/skep/internal/testenv"
)

// both runs f for each kernel with the guest that this package's tests share.
func both(t *testing.T, f func(t *testing.T, s *Session)) {
	for _, k := range Kernels {
		t.Run(k.String(), func(t *testing.T) { f(t, Shared(t, k, Config{})) })
	}
}

func TestRun(t *testing.T) {
	both(t, func(t *testing.T, s *Session) {
		if !strings.HasPrefix(s.Release, s.Kernel.Series+".") {
			t.Errorf("uname -r says %s", s.Release)
		}
		c := Sh("cat; pwd; uname -r; id -u; echo err >&2; exit 3")
		c.Dir, c.Stdin = "/some/where", []byte("in\n")
		r, err := s.Run(c)
		if err != nil {
			t.Fatal(err)
		}
		if want := "in\n/some/where\n" + s.Release + "\n0\n"; string(r.Stdout) != want {
			t.Errorf("stdout %q, want %q", r.Stdout, want)
		}
		if string(r.Stderr) != "err\n" || r.Code != 3 || r.Signal != 0 {
			t.Errorf("stderr %q, %s; want err and exit code 3", r.Stderr, r.status())
		}
		t.Logf("one command: %v", r.Wall)
	})
}

func TestFileSystems(t *testing.T) {
	both(t, func(t *testing.T, s *Session) {
		r, err := s.Run(Sh("cat /proc/mounts; ls /sys/kernel/tracing/events/sched /dev/fd/0 /dev/null /sys/class/net/lo; grep -q bpf /sys/kernel/security/lsm || echo no bpf lsm"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			" /proc proc ", " /sys sysfs ", " /dev devtmpfs ", " /sys/kernel/tracing tracefs ", " /sys/fs/bpf bpf ",
			" /sys/kernel/debug debugfs ", " /sys/fs/cgroup cgroup2 ", "sched_switch\n",
		} {
			if !strings.Contains(string(r.Stdout), want) {
				t.Errorf("no %q in\n%s", want, r.Stdout)
			}
		}
		if r.Code != 0 || len(r.Stderr) != 0 || strings.Contains(string(r.Stdout), "no bpf lsm") {
			t.Errorf("%s, stderr %q, stdout %q", r.status(), r.Stderr, r.Stdout)
		}
	})
}

func TestFilesInAndOut(t *testing.T) {
	dir := t.TempDir()
	big := bytes.Repeat([]byte("0123456789abcde\n"), 3<<16) // three chunks exactly
	for name, data := range map[string][]byte{"big": big, "sub/empty": nil, "sub/small": []byte("x")} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	both(t, func(t *testing.T, s *Session) {
		c := Sh("stat -c %a /in/big; cat /in/sub/small; cp /in/big /in/sub/empty /tmp")
		c.Files = Files{"/in": dir}
		c.Collect = []string{"/tmp/big", "/tmp/emp*"}
		r, err := s.Run(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(r.Stdout) + string(r.Stderr); got != "750\nx" {
			t.Errorf("output %q", got)
		}
		if !bytes.Equal(r.Files["/tmp/big"], big) {
			t.Errorf("big came back with %d bytes, want %d", len(r.Files["/tmp/big"]), len(big))
		}
		if b, ok := r.Files["/tmp/empty"]; !ok || len(b) != 0 || len(r.Files) != 2 {
			t.Errorf("%d files came back, empty: %v", len(r.Files), ok)
		}
		c = Sh("true")
		c.Collect = []string{"/tmp/absent"}
		if _, err := s.Run(c); err == nil || !strings.Contains(err.Error(), "/tmp/absent: no such file") {
			t.Errorf("collecting an absent file: %v", err)
		}
	})
}

func TestBadCommands(t *testing.T) {
	s := Shared(t, Kernel612, Config{})
	for _, tt := range []struct {
		cmd  Cmd
		want string
	}{
		{Cmd{}, "without Args"},
		{Cmd{Args: []string{"no-such-program"}}, "no program no-such-program in the guest's PATH"},
		{Cmd{Args: []string{"/etc/passwd"}}, "permission denied"},
		{Cmd{Args: []string{"true"}, Files: Files{"/x": "/no/such/file"}}, "no such file"},
	} {
		if _, err := s.Run(tt.cmd); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.cmd.Args, err, tt.want)
		}
	}
}

// A command that hangs is killed with its children, one that leaves a child
// behind ends without it, and commands run side by side.
func TestProcesses(t *testing.T) {
	s := Shared(t, Kernel612, Config{})
	var group sync.WaitGroup
	group.Go(func() {
		c := Sh("echo begun; sleep 1000 & sleep 1000")
		c.Timeout = time.Second
		r, err := s.Run(c)
		if err != nil || !r.TimedOut || string(r.Stdout) != "begun\n" {
			t.Errorf("hanging command: %v, %s, stdout %q", err, r.status(), r.Stdout)
		}
	})
	group.Go(func() {
		r, err := s.Run(Sh("(setsid sleep 20 &) ; echo gone"))
		if err != nil || r.Wall > 15*time.Second || string(r.Stdout) != "gone\n" {
			t.Errorf("command with an orphan: %v, %v, stdout %q", err, r.Wall, r.Stdout)
		}
	})
	group.Go(func() {
		r, err := s.Run(Sh("kill -SEGV $$"))
		if err != nil || r.Signal != 11 || r.Code != 139 {
			t.Errorf("command that dies: %v, %s", err, r.status())
		}
	})
	group.Wait()
	r, err := s.Run(Sh("grep -l 'State:.Z' /proc/[0-9]*/status; pidof sleep"))
	if err != nil || strings.Contains(string(r.Stdout), "status") || len(strings.Fields(string(r.Stdout))) > 1 {
		t.Errorf("zombies, or more than the orphaned sleep: %v, %q", err, r.Stdout)
	}
}

func TestPanicIsReported(t *testing.T) {
	s := Boot(t, Kernel612, Config{})
	_, err := s.Run(Sh("echo c > /proc/sysrq-trigger"))
	if err == nil || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("a panic is reported as: %v", err)
	}
	if err := s.Close(); err == nil {
		t.Error("Close of a crashed guest says nothing")
	}
}

// A boot of its own: modules with dependencies, a dynamic program of the host,
// the command line, and the time that all of it takes.
func TestConfig(t *testing.T) {
	cfg := Config{
		Modules: []string{"veth", "cls-bpf", "nf_conntrack"},
		Cmdline: "lsm=lockdown,bpf",
		CPUs:    1,
		Memory:  512,
		Files:   Program(t, "bash"),
	}
	for _, k := range Kernels {
		t.Run(k.String(), func(t *testing.T) {
			begin := time.Now()
			r := Run(t, k, cfg, Cmd{Args: []string{"bash", "-c", `
				[[ $BASH_VERSION ]] && grep -oE '^(veth|cls_bpf|nf_conntrack|nf_defrag_ipv4) ' /proc/modules | sort
				grep -o lockdown /sys/kernel/security/lsm; nproc`}})
			if want := "cls_bpf \nnf_conntrack \nnf_defrag_ipv4 \nveth \nlockdown\n1\n"; string(r.Stdout) != want {
				t.Errorf("stdout %q, want %q, stderr %q", r.Stdout, want, r.Stderr)
			}
			t.Logf("boot, run, power off: %v", time.Since(begin))
		})
	}
}

// The kernels do what they are for. This body runs inside.
func TestEach(t *testing.T) {
	Each(t, Config{}, func(t *testing.T) {
		testenv.NeedBPF(t)
		testenv.NeedTracefs(t)
		version, err := os.ReadFile("/proc/version")
		if err != nil || !bytes.Contains(version, []byte("Linux version "+testenv.InGuest()+".")) {
			t.Errorf("/proc/version: %q, %v", version, err)
		}
		spec, err := btf.LoadKernelSpec()
		if err != nil {
			t.Fatal(err)
		}
		var task *btf.Struct
		if err := spec.TypeByName("task_struct", &task); err != nil {
			t.Error(err)
		}

		m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		count := func(attach ebpf.AttachType, typ ebpf.ProgramType) *ebpf.Program {
			p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
				Type: typ, AttachType: attach, License: "GPL",
				Instructions: asm.Instructions{
					asm.LoadMapValue(asm.R1, m.FD(), 0),
					asm.Mov.Imm(asm.R2, 1),
					asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0),
					asm.Mov.Imm(asm.R0, 0),
					asm.Return(),
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Close() })
			return p
		}
		fires := func(t *testing.T, l link.Link, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Put(uint32(0), uint64(0)); err != nil {
				t.Fatal(err)
			}
			if err := exec.Command("true").Run(); err != nil {
				t.Fatal(err)
			}
			var n uint64
			if err := errors.Join(l.Close(), m.Lookup(uint32(0), &n)); err != nil || n == 0 {
				t.Errorf("fired %d times, %v", n, err)
			}
		}
		t.Run("kprobe", func(t *testing.T) {
			l, err := link.Kprobe("wake_up_new_task", count(ebpf.AttachNone, ebpf.Kprobe), nil)
			fires(t, l, err)
		})
		t.Run("tracepoint", func(t *testing.T) {
			l, err := link.Tracepoint("sched", "sched_process_exec", count(ebpf.AttachNone, ebpf.TracePoint), nil)
			fires(t, l, err)
		})
		t.Run("kprobe-multi", func(t *testing.T) {
			if testenv.InGuest() == Kernel61.Series {
				testenv.Skip(t, testenv.KprobeMulti, "Debian's 6.1 lacks CONFIG_FPROBE")
			}
			l, err := link.KprobeMulti(count(ebpf.AttachTraceKprobeMulti, ebpf.Kprobe), link.KprobeMultiOptions{
				Symbols: []string{"wake_up_new_task", "do_exit"},
			})
			fires(t, l, err)
		})
	})
}

// The verdicts that a body reaches inside arrive outside.
func TestVerdicts(t *testing.T) {
	if os.Getenv("SKEP_VERDICTS") == "" {
		s := Shared(t, Kernel612, Config{})
		for name, want := range map[string]struct{ verdict, reason string }{
			"pass": {"PASS", ""}, "fail": {"FAIL", ""}, "skip": {"SKIP", "too cold: 3 degrees"}, "absent": {"", ""},
		} {
			full := t.Name() + "/" + name
			r, err := s.Run(Cmd{Args: []string{"/init", "-test.v", "-test.run=" + exactly(full)}, Env: []string{"SKEP_VERDICTS=1", "CI="}})
			if err != nil {
				t.Fatal(err)
			}
			v, reason := verdict(full, string(r.Stdout))
			if v != want.verdict || (v == "SKIP" && reason != want.reason) || (r.Code != 0) != (v == "FAIL") {
				t.Errorf("%s: verdict %q, reason %q, %s, from\n%s", name, v, reason, r.status(), r.Stdout)
			}
		}
		return
	}
	t.Run("pass", func(t *testing.T) { t.Log("warm") })
	t.Run("fail", func(t *testing.T) { t.Error("hot") })
	t.Run("skip", func(t *testing.T) { t.Log("first"); t.Skip("too cold: 3 degrees") })
}

// What only the live kernel lacks may be skipped there, even in CI.
func TestMatrix(t *testing.T) {
	Matrix(t, Config{}, func(t *testing.T) {
		if testenv.InGuest() == "" {
			t.Setenv("CI", "true")
			testenv.Skip(t, testenv.Kprobe, "as if this kernel had none")
		}
		if _, err := os.Stat("/sys/kernel/debug/kprobes"); err != nil {
			t.Error(err)
		}
	})
}
