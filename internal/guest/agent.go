//go:build linux

package guest

import (
	"bufio"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// In a guest the test binary is process 1. It takes over before any test code
// runs and never returns.
func init() {
	if os.Getpid() != 1 || os.Getenv(agentEnv) == "" {
		return
	}
	if err := agent(); err != nil {
		fmt.Println("guest agent:", err)
	}
	powerOff()
}

func powerOff() {
	// QEMU runs with -no-reboot: this ends it, and needs no ACPI.
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	fmt.Println("guest agent: reboot:", err)
	os.Exit(1) // the kernel panics when process 1 ends, and that ends QEMU too
}

// environment is what commands start from.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HOME=/root", "USER=root", "SHELL=/bin/sh", "TMPDIR=/tmp", "TERM=dumb", "LANG=C.UTF-8",
}

var mounts = []struct{ fstype, dir string }{
	{"proc", "/proc"},
	{"sysfs", "/sys"},
	{"devtmpfs", "/dev"},
	{"devpts", "/dev/pts"},
	{"tmpfs", "/dev/shm"},
	{"tmpfs", "/run"},
	{"securityfs", "/sys/kernel/security"},
	{"debugfs", "/sys/kernel/debug"},
	{"tracefs", "/sys/kernel/tracing"},
	{"bpf", "/sys/fs/bpf"},
	{"cgroup2", "/sys/fs/cgroup"},
}

type agentState struct {
	mu    sync.Mutex // of enc
	enc   *gob.Encoder
	procs processes
	ids   sync.Map // request ID to process group
}

func agent() error {
	for _, m := range mounts {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.dir, m.fstype, 0, ""); err != nil {
			return fmt.Errorf("mounting %s at %s: %w", m.fstype, m.dir, err)
		}
	}
	for dir, mode := range map[string]os.FileMode{"/tmp": 0o1777, "/dev/shm": 0o1777} {
		if err := unix.Chmod(dir, uint32(mode)); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "/proc/self/fd/0",
		"/dev/stdout": "/proc/self/fd/1", "/dev/stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("guest")); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	a := &agentState{enc: gob.NewEncoder(port)}
	a.procs.waiters = map[int]chan<- syscall.WaitStatus{}
	a.procs.started = make(chan struct{}, 1)
	go a.procs.reap()
	// Blocks until the host has connected.
	if err := a.send(event{Kind: evHello, Text: unix.ByteSliceToString(uts.Release[:])}); err != nil {
		return err
	}
	dec := gob.NewDecoder(bufio.NewReaderSize(port, 64<<10))
	for {
		var r request
		if err := dec.Decode(&r); err != nil {
			if errors.Is(err, io.EOF) {
				return nil // the host is gone
			}
			return fmt.Errorf("reading a request: %w", err)
		}
		switch r.Op {
		case opRun:
			go a.run(r.ID, r.Cmd)
		case opKill:
			if pid, ok := a.ids.Load(r.ID); ok {
				_ = syscall.Kill(-pid.(int), syscall.SIGKILL) // gone already is fine
			}
		case opWrite:
			done := event{ID: r.ID, Kind: evDone}
			if err := r.Piece.write(); err != nil {
				done.Err = err.Error()
			}
			if err := a.send(done); err != nil {
				return err
			}
		case opQuit:
			return nil
		}
	}
}

func (a *agentState) send(e event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.enc.Encode(e)
}

// emit is send for goroutines with nobody to tell: without a port the host
// knows as much.
func (a *agentState) emit(e event) {
	if err := a.send(e); err != nil {
		fmt.Println("guest agent: sending an event:", err)
	}
}

func (p piece) write() error {
	flags := os.O_WRONLY | os.O_CREATE
	if p.Offset == 0 {
		if err := os.MkdirAll(filepath.Dir(p.Path), 0o755); err != nil {
			return err
		}
		// A program that runs can be replaced, not overwritten.
		if err := os.Remove(p.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(p.Path, flags, os.FileMode(p.Mode))
	if err != nil {
		return err
	}
	_, err = f.WriteAt(p.Data, p.Offset)
	return errors.Join(err, f.Chmod(os.FileMode(p.Mode)), f.Close())
}

// run runs one command from start to evDone.
func (a *agentState) run(id int, c Cmd) {
	done := event{ID: id, Kind: evDone}
	status, err := a.execute(id, c)
	if err != nil {
		done.Err = err.Error()
	} else {
		done.Code = status.ExitStatus()
		if status.Signaled() {
			done.Code, done.Signal = 128+int(status.Signal()), int(status.Signal())
		}
		for _, pattern := range c.Collect {
			if err := a.collect(id, pattern); err != nil {
				done.Err = "collecting " + pattern + ": " + err.Error()
			}
		}
	}
	a.emit(done)
}

func (a *agentState) execute(id int, c Cmd) (syscall.WaitStatus, error) {
	var none syscall.WaitStatus
	env := append(append([]string(nil), environment...), c.Env...)
	dir := c.Dir
	if dir == "" {
		dir = "/root"
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return none, err
	}
	path, err := lookPath(c.Args[0], dir, env)
	if err != nil {
		return none, err
	}
	var ours, theirs []*os.File
	defer func() {
		for _, f := range append(ours, theirs...) {
			f.Close() // a second time is harmless
		}
	}()
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return none, err
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Sys: &syscall.SysProcAttr{Setpgid: true}}
	for _, f := range theirs {
		attr.Files = append(attr.Files, f.Fd())
	}
	pid, exited, err := a.procs.start(path, c.Args, attr)
	if err != nil {
		return none, fmt.Errorf("starting %s: %w", path, err)
	}
	a.ids.Store(id, pid)
	defer a.ids.Delete(id)
	for _, f := range theirs {
		f.Close()
	}
	go func() {
		_, _ = ours[0].Write(c.Stdin) // the command need not read it
		ours[0].Close()
	}()
	var streams sync.WaitGroup
	for i, k := range map[int]kind{1: evStdout, 2: evStderr} {
		streams.Go(func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := ours[i].Read(buf)
				if n > 0 {
					a.emit(event{ID: id, Kind: k, Piece: piece{Data: buf[:n]}})
				}
				if err != nil {
					return
				}
			}
		})
	}
	status := <-exited
	drained := make(chan struct{})
	go func() { streams.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(2 * time.Second):
		// A process that the command left behind holds its output open.
		ours[1].Close()
		ours[2].Close()
		<-drained
	}
	return status, nil
}

// lookPath finds a program in the PATH of env.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.ContainsRune(name, '/') {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	var path string
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v // the last one wins
		}
	}
	for _, d := range filepath.SplitList(path) {
		p := filepath.Join(d, name)
		if unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("no program %s in the guest's PATH (%s); give it in Files, with Program for its libraries", name, path)
}

func (a *agentState) collect(id int, pattern string) error {
	paths, err := filepath.Glob(pattern)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return errors.New("no such file")
	}
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		buf := make([]byte, chunk)
		for off := int64(0); ; {
			n, err := io.ReadFull(f, buf)
			if n > 0 || off == 0 {
				if err := a.send(event{ID: id, Kind: evFile, Piece: piece{Path: p, Offset: off, Data: buf[:n]}}); err != nil {
					f.Close()
					return err
				}
			}
			off += int64(n)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				f.Close()
				return err
			}
		}
		f.Close()
	}
	return nil
}

// processes starts processes and reaps all, orphans too, as process 1 must.
// os/exec waits for its own children only and would race with that.
type processes struct {
	mu      sync.Mutex // held from fork to registration, so that no exit is missed
	waiters map[int]chan<- syscall.WaitStatus
	started chan struct{} // wakes reap when it had no children
}

func (p *processes) start(path string, args []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pid, err := syscall.ForkExec(path, args, attr)
	if err != nil {
		return 0, nil, err
	}
	exited := make(chan syscall.WaitStatus, 1)
	p.waiters[pid] = exited
	select {
	case p.started <- struct{}{}:
	default:
	}
	return pid, exited, nil
}

func (p *processes) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.ECHILD) {
			<-p.started
			continue
		}
		if err != nil {
			continue // EINTR
		}
		p.mu.Lock()
		if w, ok := p.waiters[pid]; ok {
			delete(p.waiters, pid)
			w <- status
		}
		p.mu.Unlock()
	}
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bringing up lo: %w", err)
	}
	return nil
}

func loadModules() error {
	list, err := os.ReadFile(modulesFile)
	if err != nil {
		return err
	}
	for p := range strings.Lines(string(list)) {
		p = strings.TrimSpace(p)
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("loading module %s: %w", filepath.Base(p), err)
		}
	}
	return nil
}

// openPort waits for the virtio port of the protocol.
func openPort() (*os.File, error) {
	for range 1000 {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			b, err := os.ReadFile(n)
			if err == nil && strings.TrimSpace(string(b)) == portName {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil, errors.New("the virtio port never appeared")
}
