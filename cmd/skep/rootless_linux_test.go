package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skep-bpf/skep/internal/testenv"
)

// marked counts the calls of a tracee.
const marked = `tracepoint:syscalls:sys_enter_getpgid /args.pid >= 1048576 || args.pid == 0/ { @in = count(); }
tracepoint:syscalls:sys_exit_getpgid { @out = count(); }`

// asNobody is a command that runs as an ordinary user, in a group of its own.
func asNobody(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("as")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append([]string{"nobody"}, args...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// runNobody runs skep as an ordinary user, and fails where that takes longer than
// it may: something hangs then.
func runNobody(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	cmd := asNobody(t, append([]string{"skep", "run", "--engine", "user", "-q"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	hangs := time.AfterFunc(2*time.Minute, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	_ = cmd.Wait()
	if !hangs.Stop() {
		t.Fatalf("%q hangs: %s%s", args, out.String(), errs.String())
	}
	if errs.Len() > 0 {
		t.Errorf("%q says %s", args, errs.String())
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// reachable is the test binary where other users can run it, and only for the
// test.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "skep-tracee")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := dir + "/tracee"
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestRootless holds that programs that are traced without privileges compute
// what they compute untraced, and that no event of theirs is lost.
func TestRootless(t *testing.T) {
	testenv.NeedRoot(t)
	path := reachable(t)
	t.Run("exact", func(t *testing.T) { traceExact(t, path, 1000) })
	t.Run("leave", func(t *testing.T) { traceLeave(t, path) })
	t.Run("process", func(t *testing.T) { traceProcess(t, path) })
	t.Run("errors", func(t *testing.T) { traceErrors(t, path) })
	t.Run("killed", func(t *testing.T) { traceKilled(t, path) })
	t.Run("left", func(t *testing.T) { traceLeft(t, path) })
}

func traceExact(t *testing.T, path string, n int) {
	for _, c := range []struct {
		kind    string
		n       int
		in, out int
	}{
		{"threads", n, 8 * n, 8 * n},
		{"marks", 10, 10, 10},
		{"signals", n / 10, n / 10, n / 10},
		{"stops", n / 10, n / 10, n / 10},
	} {
		for _, filter := range []string{"", "--no-filter"} {
			args := []string{"-e", marked + `END { printf("%d %d\n", @in, @out); clear(@in); clear(@out); }`, "-c", fmt.Sprintf("%s %s %d", path, c.kind, c.n)}
			if filter != "" {
				args = append(args, filter)
			}
			out, _ := runNobody(t, args...)
			if want := fmt.Sprintf("%d %d\n", c.in, c.out); out != want {
				t.Errorf("%s %d %s: %q, want %q", c.kind, c.n, filter, out, want)
			}
		}
	}
	out, _ := runNobody(t, "-e", `tracepoint:syscalls:sys_exit_execve /args.ret == 0/ { @ran[comm] = count(); } tracepoint:syscalls:sys_enter_exit_group { @ended[comm] = count(); }`, "-c", fmt.Sprintf("%s processes %d", path, n))
	if ended, ran := fmt.Sprintf("@ended[true]: %d\n", n), fmt.Sprintf("@ran[true]: %d\n", n); !strings.Contains(out, ended) || !strings.Contains(out, ran) {
		t.Errorf("of %d processes:\n%s", n, out)
	}
	// What the thread that runs another program was, and those that it ends, make
	// calls of their own; what it runs makes exactly these.
	out, _ = runNobody(t, "-e", `tracepoint:syscalls:sys_exit_execve, tracepoint:syscalls:sys_exit_execveat /args.ret == 0/ { @ran[pid, tid] = count(); @n = count(); }
tracepoint:syscalls:sys_enter_getpgid /@n/ { @in[comm, pid == tid] = count(); }`, "-c", path+" exec 50")
	if !regexp.MustCompile(`(?m)^@in\[exe, true\]: 50$`).MatchString(out) {
		t.Errorf("after a thread ran another program:\n%s", out)
	}
}

// traceLeave has a command leave a process behind. Its calls go on to work: skep
// stays until it ends, and says so.
func traceLeave(t *testing.T, path string) {
	cmd := asNobody(t, "skep", "run", "--engine", "user", "-e", marked, "-c", path+" leave 5")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Error(err)
	}
	for _, want := range []string{"the daemon has ended\n", "info: the command has left 1 process"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

// traced returns the state of a process and who traces it.
func traced(t *testing.T, pid int) (state, tracer string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "gone", ""
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "State:"); ok {
			state = strings.Fields(v)[0]
		}
		if v, ok := strings.CutPrefix(line, "TracerPid:"); ok {
			tracer = strings.TrimSpace(v)
		}
	}
	return state, tracer
}

// forever starts a tracee that runs until the test ends, and returns a function
// that fails unless it goes on.
func forever(t *testing.T, path string) (pid int, goesOn func()) {
	t.Helper()
	cmd := exec.Command(path, "forever", "0")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := make(chan int, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			n, _ := strconv.Atoi(s.Text())
			lines <- n
		}
	}()
	next := func() int {
		select {
		case n, ok := <-lines:
			if !ok {
				t.Fatal("the process that was traced has ended")
			}
			return n
		case <-time.After(30 * time.Second):
			t.Fatal("the process that was traced stands still")
		}
		return 0
	}
	next()
	return cmd.Process.Pid, func() {
		t.Helper()
		for len(lines) > 0 {
			<-lines
		}
		if a, b := next(), next(); b <= a {
			t.Errorf("its threads stand still: %d calls, then %d", a, b)
		}
		state, tracer := traced(t, cmd.Process.Pid)
		if tracer != "0" || state == "T" || state == "t" {
			t.Errorf("it is in state %s and traced by %s", state, tracer)
		}
	}
}

func traceProcess(t *testing.T, path string) {
	pid, goesOn := forever(t, path)
	for range 3 {
		out, _ := runNobody(t, "-p", strconv.Itoa(pid), "-e", marked+`
tracepoint:syscalls:sys_enter_getpgid { @tid[tid] = 1; if (pid != `+strconv.Itoa(pid)+`) { printf("pid %d\n", pid); } }
interval:ms:300 { exit(); } END { printf("%d %d\n", @in > 10, len(@tid)); clear(@in); clear(@out); clear(@tid); }`)
		if out != "1 3\n" {
			t.Errorf("of three threads: %q", out)
		}
		goesOn()
	}
}

func traceErrors(t *testing.T, path string) {
	pid, goesOn := forever(t, path)
	script := "tracepoint:syscalls:sys_enter_getpgid { printf(\"one\\n\"); @ = count(); }"
	first := asNobody(t, "skep", "run", "--engine", "user", "-q", "-p", strconv.Itoa(pid), "-e", script)
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	second := asNobody(t, "skep", "run", "--engine", "user", "-q", "-p", strconv.Itoa(pid), "-e", script)
	text, err := second.CombinedOutput()
	if want := fmt.Sprintf("process %d is traced by process %d already", pid, first.Process.Pid); err == nil || !strings.Contains(string(text), want) {
		t.Errorf("a process that is traced already: %s, want %s", text, want)
	}
	// A second skep that was refused has changed nothing; the first is killed, and
	// the process runs on.
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	goesOn()
}

// group lists the processes of a group, with their states.
func group(pgid int) map[int]string {
	found := map[int]string{}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		stat, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(fields) < 3 || fields[2] != strconv.Itoa(pgid) {
			continue
		}
		pid, err := strconv.Atoi(d.Name())
		if err == nil {
			found[pid] = fields[0]
		}
	}
	return found
}

// traceKilled kills skep at all kinds of moments. Its command is ended with it,
// and nothing is left stopped.
func traceKilled(t *testing.T, path string) {
	rounds := 30
	if n, err := strconv.Atoi(os.Getenv("SKEP_KILLS")); err == nil {
		rounds = n
	}
	for i := range rounds {
		cmd := asNobody(t, "skep", "run", "--engine", "user", "-q", "-e", marked, "-c", path+" processes 100000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i%50) * 2 * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		end := time.Now().Add(30 * time.Second)
		for {
			left := group(cmd.Process.Pid)
			if len(left) == 0 {
				break
			}
			if time.Now().After(end) {
				t.Errorf("killed after %d ms, it leaves %v", i%50*2, left)
				_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// traceLeft runs many commands, of which nothing is left.
func traceLeft(t *testing.T, path string) {
	for range 100 {
		cmd := asNobody(t, "skep", "run", "--engine", "user", "-q", "-e", "tracepoint:syscalls:sys_enter_getpgid { @ = count(); }", "-c", path+" marks 3")
		out, _ := cmd.CombinedOutput()
		if string(out) != "@: 3\n" {
			t.Errorf("it prints %q", out)
		}
		if left := group(cmd.Process.Pid); len(left) > 0 {
			t.Fatalf("it leaves %v", left)
		}
	}
}
