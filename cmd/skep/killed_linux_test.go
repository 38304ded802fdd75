package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/target"
)

// guestUSDT is where guests have the program with USDT probes.
const guestUSDT = "/skep-usdt"

// usdtProgram compiles a program with USDT probes and semaphores, once.
var usdtProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "skep-usdt")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "usdt")
	if out, err := exec.Command("clang", "-O2", "-o", path, "../../kernel/testdata/usdt.c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

// killed are the kinds of hooks that a run is attached to when it is killed.
var killed = []struct {
	script  string
	feature target.FeatureName // "" where all kernels have it
}{
	{"tracepoint:sched:sched_process_exec { @e[str(args.filename)] = count(); }", ""},
	{"tracepoint:syscalls:sys_enter_getpgid { @s = count(); }", ""},
	{"tracepoint:sched:sched_wakin* { @w = count(); }", ""},
	{"rawtracepoint:sched_switch { @r = count(); }", ""},
	{"profile:hz:99 { @p = count(); }", ""},
	{"interval:ms:100 { @i = count(); }", ""},
	{"software:page-faults:100 { @f = count(); }", ""},
	{"uprobe:$WORK:github.com/skep-bpf/skep/cmd/skep.worked { @u = count(); }", ""},
	{"uretprobe:$WORK:github.com/skep-bpf/skep/cmd/skep.worked { @ur = count(); }", ""},
	{"usdt:$USDT:skep:guarded { @ug[arg0] = count(); }", ""},
	{"usdt:$USDT:skep:always { @ua[arg0] = count(); }", ""},
	{"iter:task { @t = count(); }", ""},
	{"self:signal:SIGUSR2 { @us = count(); }", ""},
	{"kprobe:vfs_read { @k = count(); }", target.FeatureKprobe},
	{"kretprobe:vfs_read { @kr = count(); }", target.FeatureKprobe},
	{"kprobe:vfs_writ* { @kw = count(); }", target.FeatureKprobe},
	{"fentry:vfs_read { @fe = count(); }", target.FeatureFentry},
	{"fexit:vfs_read { @fx = count(); }", target.FeatureFentry},
}

// TestKilled kills skep the hard way, attached to all kinds of hooks, with a
// command that was not let go yet and one that a script runs. Five seconds
// later nothing of it is left, in the kernel or outside.
func TestKilled(t *testing.T) {
	cfg := guest.Config{CPUs: 1, Cmdline: "lsm=bpf"}
	if testenv.InGuest() == "" {
		testenv.NeedTool(t, "clang")
		path, err := usdtProgram()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(filepath.Dir(path)) })
		cfg.Files = guest.Program(t, path)
		delete(cfg.Files, path)
		cfg.Files.Add(guest.Files{guestUSDT: path})
	}
	guest.Matrix(t, cfg, func(t *testing.T) {
		testenv.NeedRoot(t)
		testenv.NeedBPF(t)
		testenv.NeedTracefs(t)
		usdt := guestUSDT
		if testenv.InGuest() == "" {
			usdt, _ = usdtProgram()
		}
		t.Run("hooks", func(t *testing.T) { killHooks(t, usdt) })
		t.Run("watchpoint", killWatch)
		t.Run("command", killCommand)
		t.Run("starting", killStarting)
		t.Run("pinned", killPinned)
	})
}

func killHooks(t *testing.T, usdt string) {
	tgt, err := kernel.Target()
	if err != nil {
		t.Fatal(err)
	}
	work, err := exec.LookPath("work")
	if err != nil {
		t.Fatal(err)
	}
	script := ""
	for _, k := range killed {
		if k.feature == "" || tgt.Feature(k.feature).Have {
			script += strings.NewReplacer("$WORK", work, "$USDT", usdt).Replace(k.script) + "\n"
		} else if testenv.InGuest() != "" {
			t.Errorf("the guest has no %s", k.feature)
		}
	}
	path := filepath.Join(t.TempDir(), "all.bt")
	if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	open := semaphores(t, usdt)
	before := tracefsEvents(t)
	s := startSkep(t, "run", path)
	s.attached(t)
	if n := open(); n != 2 {
		t.Errorf("%d semaphores are open, want 2", n)
	}
	if s.held["link"] == nil || s.held["prog"] == nil || s.held["map"] == nil {
		t.Errorf("skep holds %v, and should hold links, programs and maps", s.held)
	}
	s.kill(t)
	if n := open(); n != 0 {
		t.Errorf("%d semaphores are left open", n)
	}
	if after := tracefsEvents(t); after != before {
		t.Errorf("tracefs has entries of it: %q, before %q", after, before)
	}
}

// killWatch kills skep while it watches the memory of a process, which lives on.
func killWatch(t *testing.T) {
	pid, addr := watchedWord(t)
	s := startSkep(t, "run", "-p", strconv.Itoa(pid), "-e", fmt.Sprintf("watchpoint:%#x:8:w { @wp = count(); }", addr))
	s.attached(t)
	s.kill(t)
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the process that was watched is gone: %v", err)
	}
}

// killCommand kills skep while its begin probe runs a command, when the command
// of -c waits for all to be attached.
func killCommand(t *testing.T) {
	s := startSkep(t, "run", "--unsafe", "-c", "sleep 1231", "-e",
		`BEGIN { system("sleep 1232 & sleep 1233"); } tracepoint:syscalls:sys_enter_getpgid { @ = count(); }`)
	deadline := time.Now().Add(30 * time.Second)
	for {
		s.look(t)
		seen := map[string]bool{}
		for p := range s.children {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			seen[strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")] = true
		}
		if seen["sleep 1231"] && seen["sleep 1232"] && seen["sleep 1233"] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the commands do not run: %v, and skep says %s", seen, s.stderr.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.kill(t)

	// And while it runs.
	s = startSkep(t, "run", "-c", "sleep 1234", "-e", `tracepoint:syscalls:sys_enter_getpgid { @ = count(); }`)
	s.attached(t)
	s.kill(t)
}

// killStarting kills skep at moments from its first to when all is attached and
// its commands run. Whichever moment it is, nothing is left.
func killStarting(t *testing.T) {
	tgt, err := kernel.Target()
	if err != nil {
		t.Fatal(err)
	}
	script := `early = BEGIN { system("sleep 1237"); } early = tracepoint:syscalls:sys_enter_getpgid { @ = count(); } early = profile:hz:99 { @p = count(); }`
	if tgt.Feature(target.FeatureKprobe).Have {
		script += ` early = kprobe:vfs_read { @k = count(); }`
	}
	before := tracefsEvents(t)
	for i := range 10 {
		s := startSkep(t, "run", "--unsafe", "-c", "sleep 1236", "-e", script)
		time.Sleep(time.Duration(i*i) * 5 * time.Millisecond)
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = s.cmd.Wait()
	}
	left := func() (list []string) {
		programs, err := target.Programs(tgt)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range programs {
			if strings.HasPrefix(p.Name, "early_") {
				list = append(list, fmt.Sprintf("program %d %s", p.ID, p.Name))
			}
		}
		commands, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range commands {
			text, _ := os.ReadFile(path)
			if c := string(text); c == "sleep\x001236\x00" || c == "sleep\x001237\x00" {
				list = append(list, fmt.Sprintf("%s: %q", path, c))
			}
		}
		if after := tracefsEvents(t); after != before {
			list = append(list, "tracefs: "+after)
		}
		return list
	}
	deadline := time.Now().Add(5 * time.Second)
	for len(left()) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if list := left(); len(list) > 0 {
		t.Errorf("after five seconds %q are left", list)
	}
}

// killPinned kills skep with pins, of which the links stay until they are
// removed.
func killPinned(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := startSkep(t, "run", "--pin", dir+"/kept", "-e", `tracepoint:syscalls:sys_enter_getpgid { @ = count(); } interval:ms:1 { @i = count(); }`)
	s.attached(t)
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	time.Sleep(200 * time.Millisecond)
	if left := s.left(t); !slices.ContainsFunc(left, func(s string) bool { return strings.HasPrefix(s, "link ") }) {
		t.Errorf("what was pinned is gone: %q is left", left)
	}
	if err := os.RemoveAll(dir + "/kept"); err != nil {
		t.Error(err)
	}
	s.gone(t)
}

// watchedWord starts a process and returns its number and an address in it.
func watchedWord(t *testing.T) (pid int, addr uint64) {
	t.Helper()
	cmd := exec.Command("sleep", "1235")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	deadline := time.Now().Add(10 * time.Second)
	for {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(maps)) {
			if strings.Contains(line, "[stack]") {
				start, _, _ := strings.Cut(line, "-")
				if addr, err = strconv.ParseUint(start, 16, 64); err != nil {
					t.Fatal(err)
				}
				return cmd.Process.Pid, addr
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the process has no stack:\n%s", maps)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// semaphores starts the program with USDT probes; open tells how many of its
// semaphores let it through.
func semaphores(t *testing.T, path string) (open func() int) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	lines := bufio.NewReader(out)
	return func() (open int) {
		t.Helper()
		fmt.Fprintln(in, "go")
		line, err := lines.ReadString('\n')
		if _, err2 := fmt.Sscan(line, &open); err != nil || err2 != nil {
			t.Fatalf("%q, %v, %v", line, err, err2)
		}
		return open
	}
}

// tracefsEvents is what tracefs says of probes that were made by text.
func tracefsEvents(t *testing.T) string {
	t.Helper()
	fs, err := kernel.OpenTraceFS()
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

// A process is one that cannot be taken for a later one of the same number.
type process struct {
	pid   int
	start string
}

// A victim is a skep that runs, with what belongs to it.
type victim struct {
	cmd      *exec.Cmd
	mu       sync.Mutex
	stderr   bytes.Buffer
	lines    chan string
	held     map[string]map[uint32]bool // numbers of programs, maps and links
	children map[process]bool
}

func startSkep(t *testing.T, args ...string) *victim {
	t.Helper()
	path, err := exec.LookPath("skep")
	if err != nil {
		t.Fatal(err)
	}
	s := &victim{cmd: exec.Command(path, args...), lines: make(chan string, 1000), held: map[string]map[uint32]bool{}, children: map[process]bool{}}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(s.lines)
		in := bufio.NewScanner(r)
		for in.Scan() {
			s.mu.Lock()
			s.stderr.WriteString(in.Text() + "\n")
			s.mu.Unlock()
			s.lines <- in.Text()
		}
	}()
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait(); r.Close() })
	return s
}

// attached waits until all is attached, and looks at what belongs to skep then.
func (s *victim) attached(t *testing.T) {
	t.Helper()
	for line := range s.lines {
		if strings.HasPrefix(line, "Attached ") {
			s.look(t)
			return
		}
	}
	t.Fatalf("skep ended before it was attached: %s", s.stderr.String())
}

// look notes what skep holds in the kernel, by its descriptors, and the
// processes below it.
func (s *victim) look(t *testing.T) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fdinfo", s.cmd.Process.Pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		text, err := os.ReadFile(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			name, number, _ := strings.Cut(line, ":")
			kind, ok := strings.CutSuffix(name, "_id")
			id, err := strconv.ParseUint(strings.TrimSpace(number), 10, 32)
			if !ok || err != nil || kind != "prog" && kind != "map" && kind != "link" {
				continue
			}
			if s.held[kind] == nil {
				s.held[kind] = map[uint32]bool{}
			}
			s.held[kind][uint32(id)] = true
		}
	}
	parents := map[int][]process{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		if p, parent, _, ok := readStat(path); ok {
			parents[parent] = append(parents[parent], p)
		}
	}
	var walk func(pid int)
	walk = func(pid int) {
		for _, p := range parents[pid] {
			s.children[p] = true
			walk(p.pid)
		}
	}
	walk(s.cmd.Process.Pid)
}

// readStat reads /proc/PID/stat (proc(5)).
func readStat(path string) (p process, parent int, state string, ok bool) {
	text, err := os.ReadFile(path)
	i := bytes.LastIndexByte(text, ')')
	if err != nil || i < 0 {
		return p, 0, "", false
	}
	f := strings.Fields(string(text[i+1:]))
	if len(f) < 20 {
		return p, 0, "", false
	}
	p.pid, _ = strconv.Atoi(strings.Fields(string(text))[0])
	parent, _ = strconv.Atoi(f[1])
	p.start = f[19]
	return p, parent, f[0], true
}

// kill kills skep and sees that all of it goes.
func (s *victim) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	s.gone(t)
}

// gone waits at most five seconds until nothing is left.
func (s *victim) gone(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := s.left(t)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("after five seconds %q are left", left)
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// left names what belonged to skep and is there still.
func (s *victim) left(t *testing.T) []string {
	t.Helper()
	var list []string
	for kind, ids := range s.held {
		for id := range ids {
			var err error
			switch kind {
			case "prog":
				var p *ebpf.Program
				if p, err = ebpf.NewProgramFromID(ebpf.ProgramID(id)); err == nil {
					p.Close()
				}
			case "map":
				var m *ebpf.Map
				if m, err = ebpf.NewMapFromID(ebpf.MapID(id)); err == nil {
					m.Close()
				}
			case "link":
				var l link.Link
				if l, err = link.NewFromID(link.ID(id)); err == nil {
					l.Close()
				}
			}
			if !errors.Is(err, os.ErrNotExist) {
				list = append(list, fmt.Sprintf("%s %d (%v)", kind, id, err))
			}
		}
	}
	for p := range s.children {
		if now, _, state, ok := readStat(fmt.Sprintf("/proc/%d/stat", p.pid)); ok && now == p && state != "Z" {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
			list = append(list, fmt.Sprintf("process %d %q", p.pid, text))
		}
	}
	return list
}
