package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
)

// The modes by which scripts tell apart what absent opens.
const (
	modeAbsent = 0o111 // by a name in a page that was never touched
	modeLong   = 0o112 // by a name of 16 bytes and the zero at its end
)

// absent opens files that are not there, by names that scripts cannot read, or
// not whole.
func absent() {
	f, err := os.CreateTemp("", "absent")
	if err == nil {
		defer os.Remove(f.Name())
		_, err = f.WriteString("/nosuch/absent\x00")
	}
	var page []byte
	if err == nil {
		page, err = unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	long := []byte("/nosuch/longname\x00")
	open := func(name []byte, mode uintptr) {
		at := unix.AT_FDCWD
		syscall.RawSyscall6(syscall.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(&name[0])), 0, mode, 0, 0)
	}
	open(page, modeAbsent)
	open(long, modeLong)
	// Once for each argument that the script likes to see.
	for _, arg := range os.Args[1:] {
		n, _ := strconv.Atoi(arg)
		syscall.RawSyscall(syscall.SYS_GETPRIORITY, 99, uintptr(n), 0)
	}
}

// TestIdle attaches to hundreds of tracepoints that nothing hits, and sees that
// skep uses no CPU meanwhile: less than a tick of the scheduler in ten seconds.
func TestIdle(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	tgt, err := kernel.Target()
	if err != nil {
		t.Fatal(err)
	}
	skep, err := exec.LookPath("skep")
	if err != nil {
		t.Fatal(err)
	}
	// File systems and hypervisors that are not in use here have the most.
	var points []string
	const most = 320
	for _, subsystem := range []string{"btrfs", "xfs", "ext4", "kvm", "f2fs", "nfs", "nfsd", "sunrpc", "gfs2", "ocfs2", "afs", "cifs", "rpcrdma", "vmscan", "xen", "xhci-hcd", "mei", "i2c", "spi", "thermal", "v4l2", "regmap", "drm", "devlink"} {
		list, err := hook.Expand(tgt, hook.Point{Kind: hook.Tracepoint, Subsystem: subsystem, Event: "*"}, hook.Options{})
		if err != nil {
			continue
		}
		quiet := 0
		for _, pt := range list {
			if _, err := tgt.RawTracepoint(pt.Event); err == nil && len(points) < most {
				points = append(points, "rawtracepoint:"+pt.Event)
				quiet++
			}
		}
		t.Logf("%d of %s", quiet, subsystem)
	}
	if len(points) < 300 {
		t.Fatalf("%d tracepoints of subsystems that are not in use were found, 300 are wanted", len(points))
	}
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			cmd := exec.Command(skep, "run", "-f", format, "-e", strings.Join(points, ",")+` { @[probe] = count(); printf("%s\n", probe); } end { printf("end\n"); }`)
			cmd.Env = append(os.Environ(), "__BPFTRACE_NOTIFY_PROBES_ATTACHED=1")
			var stdout, stderr bytes.Buffer
			cmd.Stdout = &stdout
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = cmd.Process.Kill() }()
			lines := bufio.NewReader(pipe)
			for {
				line, err := lines.ReadString('\n')
				stderr.WriteString(line)
				if err != nil {
					t.Fatalf("%v, %v\n%s", err, cmd.Wait(), stderr.String())
				}
				if strings.Contains(line, "__BPFTRACE_NOTIFY_PROBES_ATTACHED") {
					break
				}
			}
			time.Sleep(500 * time.Millisecond) // what it does once at the start
			before := cpuTime(t, cmd.Process.Pid)
			time.Sleep(10 * time.Second)
			used := cpuTime(t, cmd.Process.Pid) - before
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			_, err = stderr.ReadFrom(lines)
			if err := errors.Join(err, cmd.Wait()); err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			rest := stdout.Bytes()
			t.Logf("%d probes used %v in ten seconds", len(points), used)
			if n := bytes.Count(rest, []byte("\n")); n > 2 {
				t.Fatalf("the tracepoints are not quiet:\n%s", rest)
			}
			const limit = 4 * time.Millisecond // a tick with CONFIG_HZ=250
			if used > limit {
				t.Errorf("%v of CPU time in ten seconds, more than %v", used, limit)
			}
		})
	}
}

// cpuTime is the time that all threads of a process have had on a CPU.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("process %d has no threads with schedstat: %v", pid, err)
	}
	var sum time.Duration
	for _, path := range tasks {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var run time.Duration
		if _, err := fmt.Sscan(string(data), &run); err != nil {
			t.Fatalf("%s: %q", path, data)
		}
		sum += run
	}
	return sum
}
