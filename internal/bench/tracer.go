//go:build linux

package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A tracer is a peer that runs a script. What it writes is kept in memory, so
// that nobody who reads takes part in the measurement.
type tracer struct {
	cmd      *exec.Cmd
	output   *os.File // standard output and error
	attached time.Duration
}

// notify is the variable that makes a tracer write its name once everything is
// attached: bpftrace to standard error, skep to standard output.
const notify = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"

// patience is how long anything that is measured may take.
const patience = 2 * time.Minute

// start runs a script until it is attached.
func start(p peer, script string) (*tracer, error) {
	fd, err := unix.MemfdCreate("output", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	t := &tracer{output: os.NewFile(uintptr(fd), "output")}
	args := p.run(script)
	t.cmd = exec.Command(args[0], args[1:]...)
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	t.cmd.Env = append(os.Environ(), notify+"=1")
	t.cmd.Stdout, t.cmd.Stderr = t.output, t.output
	begin := time.Now()
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	for !bytes.Contains(t.written(), []byte(notify)) {
		var status unix.Siginfo
		ended := unix.Waitid(unix.P_PID, t.cmd.Process.Pid, &status, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil && status.Signo != 0
		if ended || time.Since(begin) > patience {
			_ = t.cmd.Process.Kill()
			err := t.cmd.Wait()
			defer t.output.Close()
			return nil, fmt.Errorf("%q was not attached: %w\n%s", args, err, t.written())
		}
		time.Sleep(time.Millisecond)
	}
	t.attached = time.Since(begin)
	return t, nil
}

// written is what the tracer has written so far.
func (t *tracer) written() []byte {
	data, _ := io.ReadAll(io.NewSectionReader(t.output, 0, 1<<40))
	return data
}

// size is how much the tracer has written so far, in bytes.
func (t *tracer) size() int64 {
	st, err := t.output.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// stop interrupts a tracer, waits for its end, and returns how long that took
// and what was written in all.
func (t *tracer) stop() (time.Duration, []byte, error) {
	defer t.output.Close()
	begin := time.Now()
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return 0, nil, err
	}
	kill := time.AfterFunc(patience, func() { _ = t.cmd.Process.Kill() })
	err := t.cmd.Wait()
	took := time.Since(begin)
	kill.Stop()
	data := t.written()
	if err != nil {
		err = fmt.Errorf("%q: %w\n%s", t.cmd.Args, err, data)
	}
	return took, data, err
}

//go:embed load/load.c
var loadSource []byte

// loadName is the program made of loadSource, and what it is called in comm.
const loadName = "load"

// load does something n times, rate times a second, 0 as fast as it goes, and
// returns the nanoseconds of one.
func load(dir, op string, n, rate int) (float64, error) {
	cmd := exec.Command(filepath.Join(dir, loadName), op, strconv.Itoa(n), strconv.Itoa(rate))
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", cmd, err)
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// added measures what a script adds to an operation of the load, in
// nanoseconds. Runs without the script come right before, and the least of
// several runs counts on both sides: what else the machine does only adds.
func added(dir string, p peer, script, op string, n int) (float64, error) {
	bare, err := least(dir, op, n)
	if err != nil {
		return 0, err
	}
	t, err := start(p, script)
	if err != nil {
		return 0, err
	}
	traced, err := least(dir, op, n)
	if _, _, stopErr := t.stop(); err != nil || stopErr != nil {
		return 0, errors.Join(err, stopErr)
	}
	return traced - bare, nil
}

func least(dir, op string, n int) (float64, error) {
	best := 0.0
	for i := range 5 {
		ns, err := load(dir, op, n, 0)
		if err != nil {
			return 0, err
		}
		if i == 0 || ns < best {
			best = ns
		}
	}
	return best, nil
}
