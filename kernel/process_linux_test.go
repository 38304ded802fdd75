package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/symbol"
)

// helperEnv names what this binary does instead of running tests, when another
// process is needed: one to be killed, one without privileges.
const helperEnv = "SKEP_KERNEL_TEST_HELPER"

var helpers = map[string]func() error{
	"attach": helperAttach,
	"load":   helperLoad,
	"called": helperCalled,
	"token":  helperToken,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(helperEnv); name != "" {
		if err := helpers[name](); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// startHelper prepares a process that runs a helper. Objects go in by standard
// input.
func startHelper(ctx context.Context, name string, input []byte, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+name)
	cmd.Stdin = bytes.NewReader(input)
	return cmd
}

// helperAttach loads the object of standard input, attaches its programs to the
// points of its arguments (PROGRAM=POINT) and waits to be killed.
func helperAttach() error {
	elf, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	l, err := New().Load(context.Background(), elf, machine.LoadOptions{})
	if err != nil {
		return err
	}
	var requests []machine.Attach
	for _, arg := range os.Args[1:] {
		name, text, _ := strings.Cut(arg, "=")
		r := machine.Attach{Program: name}
		if text != "" {
			pt, err := hook.Parse(text)
			if err != nil {
				return err
			}
			r.Points = []hook.Point{pt}
		}
		requests = append(requests, r)
	}
	_, errs := l.Attach(context.Background(), requests)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println("ready")
	time.Sleep(time.Minute)
	return errors.New("nobody killed this process")
}

// helperLoad loads the object of standard input, attaches and detaches it.
func helperLoad() error {
	elf, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	l, err := New().Load(context.Background(), elf, machine.LoadOptions{TokenPath: os.Getenv("TOKEN")})
	if err != nil {
		return err
	}
	defer l.Close()
	r := machine.Attach{Program: "prog"}
	if len(os.Args) > 1 {
		pt, err := hook.Parse(os.Args[1])
		if err != nil {
			return err
		}
		r.Points = []hook.Point{pt}
	}
	_, errs := l.Attach(context.Background(), []machine.Attach{r})
	return errs[0]
}

// helperCalled calls a function for every line of standard input.
func helperCalled() error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		called(len(in.Text()))
		fmt.Println("done")
	}
	return in.Err()
}

// programsCalled counts the programs in the kernel that have a name.
func programsCalled(t *testing.T, name string) int {
	t.Helper()
	n := 0
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue
		}
		var info progInfo
		if objInfo(p.FD(), &info) == nil && info.name == objName(name) {
			n++
		}
		p.Close()
	}
}

// probeEvents is what tracefs says of probes that were made by text.
func probeEvents(t *testing.T) string {
	t.Helper()
	fs, err := OpenTraceFS()
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range []string{"kprobe_events", "uprobe_events", "dynamic_events"} {
		if text, err := fs.ReadFile(name); err == nil {
			all.Write(text)
		}
	}
	return all.String()
}

// TestKilled kills a process that has attached to everything, the hard way, and
// sees that nothing of it is left in the kernel.
func TestKilled(t *testing.T) {
	matrix(t, func(t *testing.T) {
		needKernel(t)
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		const function = ":github.com/skep-bpf/skep/kernel.called"
		c := newCounter().
			program("skep_killed", "tp/syscalls/sys_enter_getsid", false, 0).
			program("skep_killed2", "raw_tp/sys_enter", false, 0).
			program("skep_killed3", "tp_btf/sched_switch", false, 0).
			program("skep_killed4", "uprobe", false, 0).
			program("skep_killed5", "perf_event", false, 0)
		args := []string{
			"skep_killed", "skep_killed2", "skep_killed3", "skep_killed4=uprobe:" + exe + function, "skep_killed5=profile:hz:99",
		}
		if haveFeature("kprobe") {
			c.program("skep_killed6", "kprobe", false, 0).program("skep_killed7", "kretprobe", false, 0)
			args = append(args, "skep_killed6=kprobe:vfs_read", "skep_killed7=kretprobe:vfs_read")
		} else if testenv.InGuest() != "" {
			t.Error("guests have kprobes")
		}
		if haveFeature("fentry") {
			c.program("skep_killed8", "fentry/vfs_read", false, 0)
			args = append(args, "skep_killed8")
		}
		before := probeEvents(t)
		cmd := startHelper(t.Context(), "attach", elfOf(t, c.o), args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("the helper says %q, %v", line, err)
		}
		if text := probeEvents(t); text != before {
			t.Errorf("tracefs has entries of it: %q, before %q", text, before)
		}
		for i := range len(args) {
			name := "skep_killed"
			if i > 0 {
				name += strconv.Itoa(i + 1)
			}
			if programsCalled(t, name) != 1 {
				t.Errorf("%s is not in the kernel", name)
			}
		}
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		// The kernel frees programs after a grace period.
		deadline := time.Now().Add(5 * time.Second)
		for {
			left := 0
			for i := range len(args) {
				name := "skep_killed"
				if i > 0 {
					name += strconv.Itoa(i + 1)
				}
				left += programsCalled(t, name)
			}
			if left == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d programs are left", left)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if text := probeEvents(t); text != before {
			t.Errorf("tracefs has entries of it: %q, before %q", text, before)
		}
	})
}

// unprivileged makes a process of another user with some capabilities.
func unprivileged(cmd *exec.Cmd, caps ...uintptr) {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: caps,
	}
}

func TestPrivileges(t *testing.T) {
	// The oldest kernel has the strictest rules.
	body := func(t *testing.T) {
		needKernel(t)
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		exe = readableCopy(t, exe)
		raw := elfOf(t, newCounter().program("prog", "raw_tp/sys_enter", false, 0).o)
		perf := elfOf(t, newCounter().program("prog", "perf_event", false, 0).o)
		xdp := elfOf(t, newCounter().program("prog", "xdp", false, 0).o)
		// Debian's kernels have a level of their own, at which CAP_PERFMON does
		// not count.
		var paranoid []string
		if perfParanoid() > 2 {
			paranoid = []string{"kernel.perf_event_paranoid is " + strconv.Itoa(perfParanoid())}
		}
		for _, tt := range []struct {
			name string
			elf  []byte
			caps []uintptr
			args []string
			want []string // "" is success
		}{
			{"none", raw, nil, nil, []string{"lacks CAP_BPF", "EPERM"}},
			{"bpf alone", raw, []uintptr{unix.CAP_BPF}, nil, []string{"loading program prog was refused: this process lacks CAP_PERFMON", "EPERM"}},
			{"both", raw, []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}, nil, nil},
			{"profile", perf, []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}, []string{"profile:hz:99"}, paranoid},
			{"no net", xdp, []uintptr{unix.CAP_BPF}, nil, []string{"lacks CAP_NET_ADMIN"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				cmd := startHelper(t.Context(), "load", tt.elf, tt.args...)
				cmd.Path = exe
				unprivileged(cmd, tt.caps...)
				out, err := cmd.CombinedOutput()
				if (err == nil) != (tt.want == nil) {
					t.Fatalf("%v\n%s", err, out)
				}
				for _, want := range tt.want {
					if !strings.Contains(string(out), want) {
						t.Errorf("%s does not say %q", out, want)
					}
				}
			})
		}
	}
	t.Run("live", func(t *testing.T) {
		testenv.OnMatrix(t)
		body(t)
	})
	t.Run("guest", func(t *testing.T) { guest.Test(t, guest.Kernel61, guestConfig(t), body) })
}

// readableCopy makes a copy of a file that every user can execute: test
// binaries are in a directory of their user's.
func readableCopy(t *testing.T, path string) string {
	t.Helper()
	if filepath.Dir(path) == "/" {
		return path
	}
	dir, err := os.MkdirTemp("/tmp", "skep-test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := dir + "/helper"
	if err := os.WriteFile(name, data, 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// A uprobe of one process leaves others alone, and reaches a process in another
// root directory through its own.
func TestUprobeProcess(t *testing.T) {
	needKernel(t)
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := symbol.OpenBinary(os.DirFS("/"), exe); err != nil {
		t.Fatal(err)
	} else if i := b.Interpreter(); i != "" {
		t.Skipf("the test binary needs %s, which another root has not: build with CGO_ENABLED=0", i)
	}
	data, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/helper", data, 0o755); err != nil {
		t.Fatal(err)
	}
	start := func() (pid int, call func()) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, "/helper")
		cmd.Env = []string{helperEnv + "=called"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		in, err1 := cmd.StdinPipe()
		out, err2 := cmd.StdoutPipe()
		if err := errors.Join(err1, err2, cmd.Start()); err != nil {
			cancel()
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait(); cancel() })
		lines := bufio.NewReader(out)
		return cmd.Process.Pid, func() {
			fmt.Fprintln(in, "go")
			if line, err := lines.ReadString('\n'); line != "done\n" {
				t.Fatalf("%q, %v", line, err)
			}
		}
	}
	pid, callOne := start()
	_, callOther := start()
	for _, section := range []string{"uprobe", "uprobe.multi"} {
		t.Run(section, func(t *testing.T) {
			l := loadObject(t, newCounter().program("prog", section, false, 0).o, machine.LoadOptions{})
			pt := hook.Point{Kind: hook.Uprobe, Path: "/helper", Func: "github.com/skep-bpf/skep/kernel.called"}
			if _, errs := l.Attach(t.Context(), []machine.Attach{{Program: "prog", Points: []hook.Point{pt}}}); errs[0] == nil {
				t.Fatal("attached to a file that is not there")
			}
			link := attach(t, l, machine.Attach{Program: "prog", Points: []hook.Point{pt}, PID: pid})
			callOne()
			callOther()
			called(1)
			if n := number(t, l, "hits"); n != 1 {
				t.Errorf("ran %d times, want once", n)
			}
			if err := link.Close(); err != nil {
				t.Error(err)
			}
			callOne()
			if n := number(t, l, "hits"); n != 1 {
				t.Errorf("ran %d times after it was detached", n)
			}
		})
	}
}
