//go:build amd64 || arm64

package rootless

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A child is the command of a run.
type child struct {
	tr      *tracer
	pid     int
	over    chan struct{} // closed after code is set
	code    int
	onEnd   func()
	resumed bool
}

func (c *child) PID() int { return c.pid }

// ended takes in how the command ended.
func (c *child) ended(ws unix.WaitStatus) {
	c.code = ws.ExitStatus()
	if ws.Signaled() {
		c.code = 128 + int(ws.Signal())
	}
	close(c.over)
	if c.onEnd != nil {
		c.onEnd()
	}
}

// Resume lets the command run; ended is called when it has ended.
func (c *child) Resume(ended func()) (err error) {
	if e := c.tr.do(func() {
		c.onEnd = ended
		err = c.tr.follow(c)
	}); e != nil {
		return e
	}
	return err
}

// End ends the command if it runs still, and returns its exit code, or -1.
func (c *child) End() int {
	select {
	case <-c.over:
		return c.code
	default:
	}
	_ = syscall.Kill(c.pid, syscall.SIGTERM)
	select {
	case <-c.over:
	case <-time.After(time.Second):
		c.Kill()
	}
	return -1
}

// Kill ends the command at once, also when it was never resumed.
func (c *child) Kill() {
	select {
	case <-c.over:
		return
	default:
	}
	_ = c.tr.do(func() {
		if !c.resumed {
			c.tr.quit = true
			c.reap()
		}
	})
	_ = syscall.Kill(c.pid, syscall.SIGKILL)
	select {
	case <-c.over:
	case <-c.tr.done:
		c.reap()
	}
}

// reap ends and waits for a command that is not traced.
func (c *child) reap() {
	select {
	case <-c.over:
		return
	default:
	}
	_ = syscall.Kill(c.pid, syscall.SIGKILL)
	for {
		ws, err := waitFor(c.pid)
		if err != nil || ws.Exited() || ws.Signaled() {
			c.ended(ws)
			return
		}
	}
}

// follow puts the filter into the stopped command and lets it run, traced with
// all that it starts.
func (tr *tracer) follow(c *child) error {
	calls, filter := tr.handler.(interface {
		traced() (*callSet, bool)
	}).traced()
	if filter {
		installed, err := install(c.pid, calls.filter())
		if err != nil {
			return err
		}
		tr.filtered = installed
	}
	options := followOptions | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK
	if tr.filtered {
		options |= unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_EXITKILL
	}
	// Only what was seized can be stopped with its process and stay traced, so it
	// is let go, stopped, and taken again.
	if err := ptrace(unix.PTRACE_DETACH, c.pid, 0, uintptr(unix.SIGSTOP)); err != nil {
		return fmt.Errorf("the command cannot be traced: %w", err)
	}
	ws, err := waitFor(c.pid)
	if err == nil && ws.Stopped() {
		err = ptrace(unix.PTRACE_SEIZE, c.pid, 0, uintptr(options))
	}
	if err != nil {
		return whyNot(c.pid, err)
	}
	t := newTask(c.pid)
	t.tgid, t.skip = c.pid, true
	tr.tasks[c.pid] = t
	c.resumed = true
	return os.NewSyscallError("kill", unix.Kill(c.pid, unix.SIGCONT))
}

// install has a process that is stopped at its first instruction install a
// seccomp filter: it makes the calls for that itself, and finds its registers and
// its memory as they were. ok is false for 32-bit programs, which are not taken
// that way.
func install(pid int, filter []unix.SockFilter) (ok bool, err error) {
	regs := make([]byte, regsetLen)
	if err := getRegs(pid, regs); err != nil {
		return false, fmt.Errorf("the command's registers cannot be read: %w", err)
	}
	if !native64(regs) {
		return false, nil
	}
	fail := func(what string, err error) (bool, error) {
		return false, fmt.Errorf("the command's system calls cannot be filtered: %s: %w", what, err)
	}
	ip := binary.NativeEndian.Uint64(regs[8*slotIP:])
	sp := binary.NativeEndian.Uint64(regs[8*slotSP:])
	var code [8]byte
	if _, err := unix.PtracePeekText(pid, uintptr(ip), code[:]); err != nil {
		return fail("reading its code", err)
	}
	patched := code
	copy(patched[:], syscallInsn)
	if _, err := unix.PtracePokeText(pid, uintptr(ip), patched[:]); err != nil {
		return fail("writing its code", err)
	}
	// struct sock_fprog and the instructions lie below the stack, out of reach of
	// the red zone.
	size := len(filter) * int(unsafe.Sizeof(filter[0]))
	at := (sp - 4096 - uint64(size)) &^ 15
	data := binary.NativeEndian.AppendUint64(nil, uint64(len(filter)))
	data = binary.NativeEndian.AppendUint64(data, at+16)
	data = append(data, unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), size)...)
	saved := make([]byte, len(data))
	if !readUser(pid, at, saved) {
		return fail("reading its stack", unix.EFAULT)
	}
	if _, err := unix.PtracePokeData(pid, uintptr(at), data); err != nil {
		return fail("writing its stack", err)
	}
	call := func(nr uint64, args ...uint64) (int64, error) {
		now := append([]byte(nil), regs...)
		callRegs(now, nr, args)
		if err := setRegs(pid, now); err != nil {
			return 0, err
		}
		if err := ptrace(unix.PTRACE_SINGLESTEP, pid, 0, 0); err != nil {
			return 0, err
		}
		ws, err := waitFor(pid)
		if err != nil {
			return 0, err
		}
		if !ws.Stopped() || ws.StopSignal() != unix.SIGTRAP {
			return 0, fmt.Errorf("it met %v", ws.StopSignal())
		}
		err = getRegs(pid, now)
		return callResult(now), err
	}
	const setModeFilter = 1
	// Without privilege a filter takes the promise never to gain any.
	result, err := call(unix.SYS_SECCOMP, setModeFilter, 0, at)
	if err == nil && result == -int64(unix.EACCES) {
		if result, err = call(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err == nil && result == 0 {
			result, err = call(unix.SYS_SECCOMP, setModeFilter, 0, at)
		}
	}
	if err == nil && result < 0 {
		err = unix.Errno(-result)
	}
	if err != nil {
		return fail("seccomp(2)", err)
	}
	if _, err := unix.PtracePokeData(pid, uintptr(at), saved); err != nil {
		return fail("restoring its stack", err)
	}
	if _, err := unix.PtracePokeText(pid, uintptr(ip), code[:]); err != nil {
		return fail("restoring its code", err)
	}
	if err := setRegs(pid, regs); err != nil {
		return fail("restoring its registers", err)
	}
	return true, nil
}

func addressOf[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) }
