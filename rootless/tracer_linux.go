//go:build amd64 || arm64

package rootless

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A handler gets the events of the tracer, in its thread, while the task of the
// event is stopped.
type handler interface {
	// entered and left are told of system calls in the tracer's sets.
	entered(t *task, info *syscallInfo)
	left(t *task, info *syscallInfo)
}

// A tracer follows processes by ptrace. What it does happens in one thread, as
// ptrace wants it; others hand it functions.
type tracer struct {
	handler handler
	tid     int
	cmds    chan func()
	done    chan struct{} // closed when the thread has ended

	// Of the thread alone.
	tasks     map[int]*task
	filtered  bool // tasks carry the filter, and may not be left alone
	leaving   bool // tasks are detached where they stop
	only      int  // the process that is followed, 0 for a tree
	child     *child
	info      syscallInfo
	quit      bool // the thread ends with the last task
	wantsExit func(nr uint64) bool
	wants     func(nr uint64) bool
}

// wakeSignal interrupts the tracer's waiting. It is the last but two of the
// real-time signals, which nobody uses for anything.
const wakeSignal = syscall.Signal(62)

// newTracer starts the thread.
func newTracer(h handler) *tracer {
	tr := &tracer{
		handler: h, cmds: make(chan func()), done: make(chan struct{}), tasks: map[int]*task{},
		wants: func(uint64) bool { return false }, wantsExit: func(uint64) bool { return false },
	}
	started := make(chan struct{})
	go func() {
		// Locked for good: the thread ends with the goroutine, and with it the
		// death signal of a child is sent, which is dead then.
		runtime.LockOSThread()
		defer close(tr.done)
		tr.tid = unix.Gettid()
		interruptible()
		close(started)
		tr.loop()
	}()
	<-started
	return tr
}

// interruptible lets wakeSignal end a system call that waits. Go's handler for it
// does nothing, but has the kernel start calls anew; that is all that is changed.
var interruptible = sync.OnceFunc(func() {
	var action struct {
		handler  uintptr
		flags    uint64
		restorer uintptr
		mask     uint64
	}
	const restart = 0x10000000 // SA_RESTART
	sig := uintptr(wakeSignal)
	if _, _, e := unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, 0, addressOf(&action), 8, 0, 0); e != 0 || action.handler <= 1 {
		return
	}
	action.flags &^= restart
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, addressOf(&action), 0, 8, 0, 0)
})

// errGone says that the tracer has ended.
var errGone = errors.New("nothing is traced any more")

// do runs f in the tracer's thread and waits for it.
func (tr *tracer) do(f func()) error {
	ran := make(chan struct{})
	var taken atomic.Bool
	cmd := func() { f(); close(ran) }
	// A signal that comes just before the thread begins to wait is lost, so it is
	// sent until it was heard.
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for !taken.Load() {
			_ = unix.Tgkill(os.Getpid(), tr.tid, wakeSignal)
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
		}
	}()
	select {
	case tr.cmds <- cmd:
		taken.Store(true)
	case <-tr.done:
		return errGone
	}
	select {
	case <-ran:
		return nil
	case <-tr.done:
		return errGone
	}
}

func (tr *tracer) loop() {
	for !tr.quit || len(tr.tasks) > 0 {
		if len(tr.tasks) == 0 {
			cmd := <-tr.cmds
			cmd()
			continue
		}
		select {
		case cmd := <-tr.cmds:
			cmd()
			continue
		default:
		}
		var ws unix.WaitStatus
		// Of this thread's children alone: others of the process are not its
		// business.
		tid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			// Nothing is traced any more, whatever was thought.
			for tid := range tr.tasks {
				tr.forget(tid)
			}
		default:
			tr.event(tid, ws)
		}
	}
}

// event handles one change of a task's state.
func (tr *tracer) event(tid int, ws unix.WaitStatus) {
	if ws.Exited() || ws.Signaled() {
		tr.forget(tid)
		if c := tr.child; c != nil && c.pid == tid {
			c.ended(ws)
		}
		return
	}
	if !ws.Stopped() {
		return
	}
	t := tr.tasks[tid]
	if t == nil {
		// A new one may be there before its parent tells of it.
		t = tr.born(tid)
	}
	sig, event := ws.StopSignal(), int(uint32(ws)>>16)
	if tr.leaving || t.stray {
		tr.leave(t, sig, event)
		return
	}
	switch {
	case event == eventSeccomp:
		tr.entry(t)
		tr.resume(t, 0)
	case sig == unix.SIGTRAP|0x80:
		tr.syscallStop(t)
		tr.resume(t, 0)
	case event == eventStop:
		if sig == unix.SIGTRAP {
			tr.resume(t, 0)
			return
		}
		// Stopped with its process, until SIGCONT.
		_ = ptrace(unix.PTRACE_LISTEN, tid, 0, 0)
	case event == unix.PTRACE_EVENT_FORK, event == unix.PTRACE_EVENT_VFORK, event == unix.PTRACE_EVENT_CLONE:
		if msg, err := eventMessage(tid); err == nil {
			tr.born(int(msg))
		}
		tr.resume(t, 0)
	case event == unix.PTRACE_EVENT_EXEC:
		t = tr.executed(t)
		tr.resume(t, 0)
	case event != 0:
		tr.resume(t, 0)
	default:
		if sig == unix.SIGCONT && t.skip {
			t.skip = false
			sig = 0
		}
		tr.resume(t, sig)
	}
}

// resume lets a task run until the next stop that is wanted.
func (tr *tracer) resume(t *task, sig syscall.Signal) {
	request := unix.PTRACE_CONT
	if t.exits || !tr.filtered {
		request = unix.PTRACE_SYSCALL
	}
	// A task that was killed meanwhile is no task any more: its end is told.
	_ = ptrace(request, t.tid, 0, uintptr(sig))
}

// entry handles a task that enters a system call.
func (tr *tracer) entry(t *task) {
	if getInfo(t.tid, &tr.info) != nil {
		return
	}
	tr.enter(t)
}

func (tr *tracer) enter(t *task) {
	info := &tr.info
	t.nr, t.inNr = info.nr, true
	t.regs.enter(info)
	if tr.wants(info.nr) {
		tr.handler.entered(t, info)
	}
	t.exits = tr.wantsExit(info.nr)
}

// syscallStop handles a stop that PTRACE_SYSCALL made.
func (tr *tracer) syscallStop(t *task) {
	if getInfo(t.tid, &tr.info) != nil {
		return
	}
	switch tr.info.op {
	case infoEntry:
		if !tr.filtered {
			tr.enter(t)
		}
	case infoExit:
		if !t.inNr {
			// It was in the call before it was traced.
			t.regs.have = 0
			if !t.regs.need(t.tid, 0, regSlots*8) {
				return
			}
			t.nr = t.regs.callNumber()
		}
		if tr.wantsExit(t.nr) {
			t.regs.leave(&tr.info, t.nr)
			tr.handler.left(t, &tr.info)
		}
		t.exits, t.inNr = false, false
	}
}

// born takes in a new task. A process that a thread made in a way that looks like
// making a thread is let go where one process is followed.
func (tr *tracer) born(tid int) *task {
	t := tr.tasks[tid]
	if t == nil {
		t = newTask(tid)
		t.stray = tr.only != 0 && t.process() != tr.only
		tr.tasks[tid] = t
	}
	return t
}

// executed takes in that a task runs another program. All other threads of its
// process are gone, and it has the number of the first from now on.
func (tr *tracer) executed(t *task) *task {
	former, err := eventMessage(t.tid)
	if err == nil && int(former) != t.tid {
		if old := tr.tasks[int(former)]; old != nil {
			t.close()
			delete(tr.tasks, int(former))
			old.tid = t.tid
			tr.tasks[t.tid] = old
			t = old
		}
	}
	t.close() // the file of its name is another now
	t.tgid = t.tid
	for tid, other := range tr.tasks {
		if other != t && other.tgid == t.tgid {
			tr.forget(tid)
		}
	}
	return t
}

func (tr *tracer) forget(tid int) {
	if t := tr.tasks[tid]; t != nil {
		t.close()
		delete(tr.tasks, tid)
	}
}

// leave detaches a task at a stop, so that it goes on as if it had never been
// traced.
func (tr *tracer) leave(t *task, sig syscall.Signal, event int) {
	if event != 0 || sig == unix.SIGTRAP|0x80 || t.skip && sig == unix.SIGCONT {
		sig = 0
	}
	_ = ptrace(unix.PTRACE_DETACH, t.tid, 0, uintptr(sig))
	tr.forget(t.tid)
}

// release detaches all tasks. It returns before they are.
func (tr *tracer) release() {
	tr.leaving = true
	for tid := range tr.tasks {
		_ = ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0)
	}
}

// finish ends the tracer once nothing is traced. What carries a filter is traced
// until it ends, since without a tracer its calls would fail: finish returns how
// many processes those are.
func (tr *tracer) finish() int {
	tr.quit = true
	if c := tr.child; c != nil && !c.resumed {
		c.reap()
	}
	if !tr.filtered {
		tr.release()
		return 0
	}
	left := map[int]bool{}
	for _, t := range tr.tasks {
		left[t.process()] = true
	}
	return len(left)
}

const followOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEEXEC

// start starts a command, stopped before its first instruction.
func (tr *tracer) start(command []string, survive bool) (*child, error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return nil, fmt.Errorf("%s cannot be started: %w", command[0], err)
	}
	attr := &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{os.Stdin.Fd(), os.Stdout.Fd(), os.Stderr.Fd()},
		Sys: &syscall.SysProcAttr{Ptrace: true},
	}
	if !survive {
		attr.Sys.Pdeathsig = syscall.SIGKILL
	}
	pid, err := syscall.ForkExec(path, command, attr)
	if why := yama(); errors.Is(err, unix.EPERM) && why != "" {
		return nil, fmt.Errorf("%s cannot be traced: %s", command[0], why)
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be started: %w", command[0], err)
	}
	c := &child{tr: tr, pid: pid, over: make(chan struct{}), code: -1}
	if ws, err := waitFor(pid); err != nil || !ws.Stopped() {
		return nil, fmt.Errorf("%s ended before it could be traced", command[0])
	}
	tr.child = c
	return c, nil
}

// waitFor waits for one task.
func waitFor(pid int) (ws unix.WaitStatus, err error) {
	for {
		if _, err = unix.Wait4(pid, &ws, unix.WALL|unix.WUNTRACED, nil); !errors.Is(err, unix.EINTR) {
			return ws, err
		}
	}
}

// attach begins to trace all threads of a process.
func (tr *tracer) attach(pid int) error {
	tr.only = pid
	for {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return fmt.Errorf("there is no process %d", pid)
		}
		found := 0
		for _, e := range threads {
			tid, err := strconv.Atoi(e.Name())
			if err != nil || tr.tasks[tid] != nil {
				continue
			}
			switch err := ptrace(unix.PTRACE_SEIZE, tid, 0, followOptions); {
			case err == nil:
				t := newTask(tid)
				t.tgid = pid
				tr.tasks[tid] = t
				found++
			case errors.Is(err, unix.ESRCH) && tid != pid:
				// It has ended.
			case errors.Is(err, unix.EPERM) && tr.tasks[pid] != nil && tid != pid:
				// It was made by a thread that is traced, and so is traced.
			default:
				return whyNot(pid, err)
			}
		}
		if found == 0 {
			break
		}
	}
	// They stop at the next system call once they were stopped a first time.
	for tid := range tr.tasks {
		_ = ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0)
	}
	return nil
}
