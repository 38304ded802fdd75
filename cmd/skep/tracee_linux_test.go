package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The first thread of a process stays that of the main function, so that others
// are not it.
func init() { runtime.LockOSThread() }

// tracee is a program that is traced: "tracee KIND N". What it does N times it
// does through getpgid(1<<20 + i), which nothing else calls.
func tracee() {
	n, _ := strconv.Atoi(os.Args[2])
	if err := tracees[os.Args[1]](n); err != nil {
		fmt.Fprintln(os.Stderr, "tracee:", err)
		os.Exit(1)
	}
}

// mark is one of the calls that are counted.
func mark(i int) { _, _ = unix.Getpgid(1<<20 + i) }

var tracees = map[string]func(n int) error{
	// threads: eight threads make n calls each.
	"threads": func(n int) error {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				runtime.LockOSThread()
				for i := range n {
					mark(i)
				}
			})
		}
		wg.Wait()
		return nil
	},
	// processes: n processes are made, by vfork, run a program each, and end.
	"processes": func(n int) error {
		for i := range n {
			if err := exec.Command("true").Run(); err != nil {
				return fmt.Errorf("process %d: %w", i, err)
			}
		}
		return nil
	},
	// exec: a thread that is not the first runs another program, while others
	// are in system calls.
	"exec": func(n int) error {
		for range 4 {
			go func() {
				runtime.LockOSThread()
				for {
					mark(0)
				}
			}()
		}
		time.Sleep(10 * time.Millisecond)
		failed := make(chan error)
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				failed <- fmt.Errorf("this is the first thread")
			}
			failed <- syscall.Exec("/proc/self/exe", []string{"tracee", "marks", strconv.Itoa(n)}, os.Environ())
		}()
		return <-failed
	},
	// marks: n calls, and the exit code 7.
	"marks": func(n int) error {
		for i := range n {
			mark(i)
		}
		os.Exit(7)
		return nil
	},
	// signals: n signals that a handler gets while a call waits, none is lost or
	// doubled, and the call goes on.
	"signals": func(n int) error {
		got := make(chan os.Signal, 1)
		signal.Notify(got, syscall.SIGUSR1)
		for i := range n {
			if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
				return err
			}
			select {
			case <-got:
			case <-time.After(10 * time.Second):
				return fmt.Errorf("signal %d was lost", i)
			}
			mark(i)
		}
		select {
		case <-got:
			return fmt.Errorf("a signal came twice")
		default:
		}
		return nil
	},
	// stops: a child stops itself n times, which its parent sees, and is
	// continued.
	"stops": func(n int) error {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{"tracee", "stopper", strconv.Itoa(n)}
		if err := cmd.Start(); err != nil {
			return err
		}
		var ws syscall.WaitStatus
		for i := range n {
			if _, err := syscall.Wait4(cmd.Process.Pid, &ws, syscall.WUNTRACED, nil); err != nil {
				return err
			}
			if !ws.Stopped() || ws.StopSignal() != syscall.SIGSTOP {
				return fmt.Errorf("stop %d is %#x", i, ws)
			}
			// It stays stopped.
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
			if err != nil {
				return err
			}
			if state := stat[bytes.LastIndexByte(stat, ')')+2]; state != 'T' && state != 't' {
				return fmt.Errorf("stopped, it is in state %c", state)
			}
			mark(i)
			if err := syscall.Kill(cmd.Process.Pid, syscall.SIGCONT); err != nil {
				return err
			}
		}
		if _, err := syscall.Wait4(cmd.Process.Pid, &ws, 0, nil); err != nil {
			return err
		}
		if !ws.Exited() || ws.ExitStatus() != 0 {
			return fmt.Errorf("it ended with %#x", ws)
		}
		return nil
	},
	// stopper: to its own thread, so that no other is slower to take the signal than
	// it is to send the next.
	"stopper": func(n int) error {
		for range n {
			if err := unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.SIGSTOP); err != nil {
				return err
			}
		}
		return nil
	},
	// forever: threads that make calls and sleep; each second it says how many
	// calls were made, and fails if a sleep was short.
	"forever": func(int) error {
		var calls atomic.Int64
		for range 3 {
			go func() {
				runtime.LockOSThread()
				for {
					mark(0)
					calls.Add(1)
					time.Sleep(time.Millisecond)
				}
			}()
		}
		for {
			ts := unix.NsecToTimespec(100e6)
			start := time.Now()
			for {
				if err := unix.Nanosleep(&ts, &ts); err == nil {
					break
				} else if err != unix.EINTR {
					return err
				}
			}
			if d := time.Since(start); d < 100*time.Millisecond {
				return fmt.Errorf("a sleep of 100 ms took %v", d)
			}
			if _, err := fmt.Println(calls.Load()); err != nil {
				return err
			}
		}
	},
	// leave: a child goes on for a while when its parent has ended.
	"leave": func(n int) error {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = []string{"tracee", "daemon", strconv.Itoa(n)}
		cmd.Stdout = os.Stdout
		return cmd.Start()
	},
	// daemon: n calls within half a second, after which it writes a line.
	"daemon": func(n int) error {
		for i := range n {
			time.Sleep(500 * time.Millisecond / time.Duration(n))
			if _, err := unix.Getpgid(0); err != nil {
				return err
			}
			mark(i)
		}
		_, err := fmt.Println("the daemon has ended")
		return err
	},
}
