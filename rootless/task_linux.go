//go:build amd64 || arm64

package rootless

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A task is one traced thread.
type task struct {
	tid  int
	tgid int // 0 until it is asked for

	regs  registers
	nr    uint64 // of the system call that it is in
	inNr  bool   // nr is known
	exits bool   // the end of the call is wanted: the next stops are made by PTRACE_SYSCALL
	skip  bool   // the SIGCONT that started it is not its program's
	comm  int    // descriptor of its name, -1 until it is asked for
	stray bool   // it is to be detached
}

func newTask(tid int) *task { return &task{tid: tid, comm: -1} }

func (t *task) close() {
	if t.comm >= 0 {
		unix.Close(t.comm)
		t.comm = -1
	}
}

// process is the number of the thread's process.
func (t *task) process() int {
	if t.tgid == 0 {
		t.tgid = t.tid
		if n, ok := t.status("Tgid:"); ok {
			t.tgid = int(n)
		}
	}
	return t.tgid
}

// status reads the first number of a line of the thread's status.
func (t *task) status(name string) (uint64, bool) { return statusOf(t.tid, name) }

func statusOf(tid int, name string) (uint64, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			fields := bytes.Fields(rest)
			if len(fields) == 0 {
				return 0, false
			}
			n, err := strconv.ParseUint(string(fields[0]), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// name copies the thread's name, up to 15 bytes and a zero. It is read anew each
// time, by one call of pread: others may change it.
func (t *task) name(dst []byte) {
	clear(dst)
	if t.comm < 0 {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/task/%d/comm", t.process(), t.tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return
		}
		t.comm = fd
	}
	var text [64]byte
	n, err := unix.Pread(t.comm, text[:], 0)
	if err != nil {
		return
	}
	name := bytes.TrimSuffix(text[:n], []byte("\n"))
	copy(dst[:max(len(dst)-1, 0)], name)
}

// cpu is the processor that the thread ran on last.
func (t *task) cpu() uint64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/stat", t.process(), t.tid))
	if err != nil {
		return 0
	}
	// The name may hold anything; what follows its parenthesis are numbers, of
	// which the 37th is the processor (proc_pid_stat(5)).
	_, rest, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
	fields := strings.Fields(string(rest))
	if len(fields) < 37 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[36], 10, 64)
	return n
}

// cgroup is the number of the thread's group of the unified hierarchy.
func (t *task) cgroup() uint64 { return cgroupOf(strconv.Itoa(t.tid)) }

func cgroupOf(pid string) uint64 {
	text, err := os.ReadFile("/proc/" + pid + "/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		for _, base := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var fs unix.Statfs_t
			var st unix.Stat_t
			if unix.Statfs(base, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && unix.Stat(base+path, &st) == nil {
				return st.Ino
			}
		}
	}
	return 0
}

// maxStack bounds the frames of a stack (PERF_MAX_STACK_DEPTH).
const maxStack = 127

// stack returns the return addresses of the thread, innermost first, by frame
// pointers as the kernel does it (perf_callchain_user in arch/x86/events/core.c).
func (t *task) stack() []uint64 {
	if !t.regs.need(t.tid, 0, regSlots*8) {
		return nil
	}
	list := []uint64{t.regs.get(slotIP)}
	fp := t.regs.get(slotFrame)
	for len(list) < maxStack && fp != 0 && fp%8 == 0 {
		var frame [16]byte
		if !readUser(t.tid, fp, frame[:]) {
			break
		}
		next, ret := binary.NativeEndian.Uint64(frame[:]), binary.NativeEndian.Uint64(frame[8:])
		if ret == 0 {
			break
		}
		list = append(list, ret)
		if next <= fp {
			break
		}
		fp = next
	}
	return list
}
