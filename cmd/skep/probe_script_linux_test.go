package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/target"
)

// work is a program whose events are known: "work N" calls getppid,
// getpgid and worked N times, which nothing else in it does, looks for a file
// that is not there, and sets its nice value to 3.
func work() {
	n, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "usage: work N")
		os.Exit(2)
	}
	for i := range n {
		syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		syscall.RawSyscall(syscall.SYS_GETPGID, 0, 0, 0)
		worked(i)
	}
	_, _ = os.Open("/nosuch/file")
	syscall.RawSyscall(syscall.SYS_SETPRIORITY, 0, 0, 3)
}

// findWork gives scripts the path of the program work in $WORKPROG, and the
// address of a kernel variable that changes all the time in $JIFFIES.
func findWork(env *testscript.Env) error {
	if t, err := kernel.Target(); err == nil {
		if s, err := t.Symbol("jiffies_64"); err == nil && len(s) > 0 {
			env.Setenv("JIFFIES", fmt.Sprintf("%#x", s[0].Addr))
		}
	}
	path, err := exec.LookPath("work")
	env.Setenv("WORKPROG", path)
	return err
}

//go:noinline
func worked(n int) { workedOn = n }

var workedOn int

// tracing keeps scripts that run side by side from seeing each other's commands.
var tracing sync.Mutex

// traceScript is "trace FILE SCRIPT [FLAG...] -- CMD [ARGS...]": it runs a
// script, runs the command once everything is attached, ends the script as
// Ctrl-C does, and puts what it printed into FILE. $PID in flags is that of
// the process that runs the command.
func traceScript(ts *testscript.TestScript, neg bool, args []string) {
	split := -1
	for i, a := range args {
		if a == "--" {
			split = i
		}
	}
	if neg || split < 2 || split == len(args)-1 {
		ts.Fatalf("usage: trace FILE SCRIPT [FLAG...] -- CMD [ARGS...]")
	}
	tracing.Lock()
	defer tracing.Unlock()
	skep, err := exec.LookPath("skep")
	ts.Check(err)
	cmd := exec.Command(skep, append([]string{"run", "-e", args[1]}, args[2:split]...)...)
	cmd.Dir = ts.MkAbs(".")
	var out, diag bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	attached := make(chan bool, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(&diag, lines.Text())
			if strings.HasPrefix(lines.Text(), "Attached ") {
				attached <- true
			}
		}
		attached <- false
	}()
	stop := time.AfterFunc(60*time.Second, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	if <-attached {
		if err := ts.Exec(args[split+1], args[split+2:]...); err != nil {
			_ = cmd.Process.Kill()
			ts.Fatalf("%s: %v", args[split+1], err)
		}
		_ = cmd.Process.Signal(os.Interrupt)
	}
	<-drained
	err = cmd.Wait()
	ts.Logf("[stdout]\n%s[stderr]\n%s", out.String(), diag.String())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out.Bytes(), 0o644))
}

// haveKfunc says whether the kernel has a function for programs.
func haveKfunc(name string) (bool, error) {
	t, err := kernel.Target()
	if err != nil {
		return false, err
	}
	types, err := t.Types()
	if err != nil {
		return false, err
	}
	_, err = types.Func(name)
	if errors.Is(err, target.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// isSince says whether the kernel is of that release or a later one.
func isSince(text string) (bool, error) {
	t, err := kernel.Target()
	if err != nil {
		return false, err
	}
	since, err := target.ParseRelease(text)
	return err == nil && t.Release().Compare(since) >= 0, err
}

// kernelFeatures are conditions of scripts, "feature:NAME". "guest" holds in
// guests, "kfunc:NAME" where the kernel has a function for programs, and
// "release:6.9" from that release on.
var kernelFeatures = map[target.FeatureName]testenv.Feature{
	target.FeatureKprobe:      testenv.Kprobe,
	target.FeatureKprobeMulti: testenv.KprobeMulti,
	target.FeatureFentry:      testenv.Fentry,
	target.FeatureUprobeMulti: testenv.UprobeMulti,
}

// condition says whether the kernel has a feature. Where a guest should have
// it, its lack is an error rather than a reason to leave something out.
func condition(cond string) (bool, error) {
	if cond == "guest" {
		return testenv.InGuest() != "", nil
	}
	if name, ok := strings.CutPrefix(cond, "kfunc:"); ok {
		return haveKfunc(name)
	}
	if text, ok := strings.CutPrefix(cond, "release:"); ok {
		return isSince(text)
	}
	name, ok := strings.CutPrefix(cond, "feature:")
	if !ok {
		return false, fmt.Errorf("there is no condition %q", cond)
	}
	feature := target.FeatureName(name)
	env, ok := kernelFeatures[feature]
	if !ok {
		return false, fmt.Errorf("there is no feature %q in kernelFeatures", name)
	}
	t, err := kernel.Target()
	if err != nil {
		return false, err
	}
	f := t.Feature(feature)
	if in := testenv.InGuest(); !f.Have && in != "" && !testenv.Allowed(env, in, false) {
		return false, fmt.Errorf("the guest %s should have %s: %s", in, name, f.Why)
	}
	return f.Have, nil
}
