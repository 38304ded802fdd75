package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// osSignal is a signal by its number.
func osSignal(n int) os.Signal {
	if n <= 0 || n > 64 {
		return nil
	}
	return syscall.Signal(n)
}

// A child is the command whose life is the run's. It is started stopped at its
// first instruction, by ptrace, and dies with skep in any case.
type child struct {
	pid    int
	run    chan func()   // closed to end before it ran
	exited chan struct{} // closed after code is set
	code   int
}

// startChild starts a command and stops it before its first instruction.
func startChild(command []string) (*child, error) {
	c := &child{run: make(chan func(), 1), exited: make(chan struct{}), code: -1}
	started := make(chan error, 1)
	go func() {
		// The thread that starts a child is its tracer, and the death signal is
		// sent when that thread ends; so it is kept until the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("%s cannot be started: %w", command[0], err)
			return
		}
		c.pid = cmd.Process.Pid
		var st syscall.WaitStatus
		for {
			_, err := syscall.Wait4(c.pid, &st, 0, nil)
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			if err != nil || !st.Stopped() {
				started <- fmt.Errorf("%s ended before it could be traced", command[0])
				return
			}
			break
		}
		started <- nil
		ended, ok := <-c.run
		if ok {
			if err := syscall.PtraceDetach(c.pid); err != nil {
				_ = syscall.Kill(c.pid, syscall.SIGKILL)
			}
		}
		_ = cmd.Wait()
		if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
			c.code = st.ExitStatus()
			if st.Signaled() {
				c.code = 128 + int(st.Signal())
			}
		}
		close(c.exited)
		if ended != nil {
			ended()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

// PID is the number of the process.
func (c *child) PID() int { return c.pid }

// Resume lets the child run; ended is called when it has ended.
func (c *child) Resume(ended func()) error {
	c.run <- ended
	return nil
}

// End ends the child, if it runs still, and returns its exit code.
func (c *child) End() int {
	select {
	case <-c.exited:
		return c.code
	default:
	}
	_ = syscall.Kill(c.pid, syscall.SIGTERM)
	select {
	case <-c.exited:
	case <-time.After(time.Second):
		c.Kill()
	}
	return -1
}

// Kill ends the child at once, also when it was never resumed.
func (c *child) Kill() {
	select {
	case <-c.exited:
		return
	default:
	}
	_ = syscall.Kill(c.pid, syscall.SIGKILL)
	select {
	case c.run <- nil:
	default:
	}
	<-c.exited
}

// watchProcess calls ended when a process that is no child ends.
func watchProcess(pid int, ended context.CancelFunc) (stop func(), err error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("there is no process %d", pid)
		}
		// Without a file descriptor the run lasts until it is ended.
		return func() {}, nil
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		unix.Close(fd)
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(pipe[0]), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, -1); errors.Is(err, unix.EINTR) {
				continue
			}
			if fds[0].Revents != 0 {
				ended()
			}
			return
		}
	}()
	return func() {
		unix.Close(pipe[1])
		<-done
		unix.Close(pipe[0])
		unix.Close(fd)
	}, nil
}

// maxOutput bounds what is kept of a command's output, in bytes.
const maxOutput = 64 << 20

// system runs a command of the shell and returns what it prints. The command
// dies with skep, with all that it started: its shell by the death signal, the
// rest by a guard that waits on a pipe for the end of skep. When interrupted is
// closed while it runs, it is ended; what it printed by then counts.
func system(command string, interrupted <-chan struct{}) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var out limited
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	release := guard(cmd.Process.Pid)
	finished := make(chan struct{})
	go func() {
		select {
		case <-finished:
			return
		case <-interrupted:
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-finished:
		case <-time.After(time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}()
	err := cmd.Wait()
	close(finished)
	release()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil // the command ran, and what it said is shown
	}
	return out.String(), err
}

// guard starts a shell that kills a process group when skep dies before
// release is called.
func guard(group int) (release func()) {
	r, w, err := os.Pipe()
	if err != nil {
		return func() {}
	}
	defer r.Close()
	cmd := exec.Command("/bin/sh", "-c", `read -r end <&3 || kill -9 "-$1"`, "sh", strconv.Itoa(group))
	cmd.ExtraFiles = []*os.File{r}
	// Out of the group of skep, so that what ends skep does not end the guard.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return func() {}
	}
	return func() {
		// The guard ends at the line; if it cannot be written, it is gone.
		_, _ = w.WriteString("end\n")
		w.Close()
		_ = cmd.Wait()
	}
}

type limited struct{ strings.Builder }

func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.Len(); len(p) > room {
		l.Builder.Write(p[:max(room, 0)])
		return len(p), nil
	}
	return l.Builder.Write(p)
}
