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
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/internal/testenv"
)

const qemu = "qemu-system-x86_64"

// bootTimeout is generous: a boot takes two to three seconds alone, and
// machines that test are busy.
const bootTimeout = 2 * time.Minute

// A Cmd is one command to run in a guest, as root.
type Cmd struct {
	Args    []string      // Args[0] is looked up in the guest's PATH
	Env     []string      // added to the guest's own
	Dir     string        // made if missing; the test's own directory if ""
	Stdin   []byte        // all of it; nothing more follows
	Files   Files         // copied in first
	Collect []string      // patterns, as of filepath.Match, of files to copy out at the end
	Timeout time.Duration // then it is killed with its process group; the Config's if 0
}

// Sh returns the command that runs a script of busybox's sh.
func Sh(script string) Cmd { return Cmd{Args: []string{"sh", "-c", script}} }

// A Result is what a command left behind.
type Result struct {
	Code           int // exit code, 128 plus the signal's number if one ended it
	Signal         syscall.Signal
	Stdout, Stderr []byte
	Files          map[string][]byte // what Cmd.Collect matched, by path in the guest
	Wall           time.Duration
	TimedOut       bool
}

func (r Result) status() string {
	switch {
	case r.TimedOut:
		return fmt.Sprintf("killed after %v", r.Wall.Round(time.Second))
	case r.Signal != 0:
		return "ended by signal: " + r.Signal.String()
	}
	return "exit code " + strconv.Itoa(r.Code)
}

// A Session is a running guest. Its methods may be called concurrently.
type Session struct {
	Kernel   Kernel
	Release  string        // uname -r
	BootTime time.Duration // from the start of QEMU to the first answer

	cfg     Config
	console *tail
	stdin   io.Closer
	exited  chan struct{} // QEMU is gone; waitErr is set
	waitErr error
	kill    func()

	encMu sync.Mutex // apart from mu: events must be taken while a request is stuck
	enc   *gob.Encoder

	mu    sync.Mutex // of what follows
	next  int
	calls map[int]chan event
}

// Boot boots a guest that lives as long as tb. It skips tb where guests
// cannot run, and fails it where this one does not come up.
func Boot(tb testing.TB, k Kernel, cfg Config) *Session {
	tb.Helper()
	s := boot(tb, k, cfg)
	tb.Cleanup(func() { s.Close() })
	return s
}

var (
	sharedMu sync.Mutex
	shared   = map[string]*Session{}
)

// Shared returns a guest that all tests of this binary with the same kernel and
// configuration share; it ends with the process. If it has crashed meanwhile,
// another is booted.
func Shared(tb testing.TB, k Kernel, cfg Config) *Session {
	tb.Helper()
	sharedMu.Lock()
	defer sharedMu.Unlock()
	key := k.Series + " " + cfg.key()
	if s := shared[key]; s != nil {
		select {
		case <-s.exited:
		default:
			return s
		}
	}
	s := boot(tb, k, cfg)
	shared[key] = s
	return s
}

func boot(tb testing.TB, k Kernel, cfg Config) *Session {
	tb.Helper()
	Need(tb)
	if in := testenv.InGuest(); in != "" {
		tb.Fatalf("this runs inside a guest (Linux %s), and guests boot none", in)
	}
	img, err := k.load()
	if err != nil {
		testenv.Skip(tb, testenv.Guest, "%v", err)
	}
	busybox, err := busyboxPath()
	if err != nil {
		testenv.Skip(tb, testenv.Guest, "%v", err)
	}
	archive, err := archive(img, busybox, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	s, err := start(k, img, archive, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Logf("%s: %s booted in %v", k, s.Release, s.BootTime.Round(10*time.Millisecond))
	return s
}

// archive builds the initramfs.
func archive(img *image, busybox string, cfg Config) ([]byte, error) {
	a := newInitramfs()
	applets, err := command(busybox, "--list")
	if err != nil {
		return nil, err
	}
	for name := range strings.Lines(string(applets)) {
		if name = strings.TrimSpace(name); name != "busybox" {
			a.symlink("/usr/bin/"+name, "busybox")
		}
	}
	files, err := executable()
	if err != nil {
		return nil, err
	}
	files["/usr/bin/busybox"] = busybox
	for _, f := range []Files{files, cfg.Files} {
		if err := a.add(f); err != nil {
			return nil, err
		}
	}
	// virtio is a module on 6.1; on 6.12 it is built in and drops out.
	modules, err := img.modules(append([]string{"virtio_pci", "virtio_console"}, cfg.Modules...))
	if err != nil {
		return nil, err
	}
	var list strings.Builder
	for _, m := range modules {
		p := "/usr/lib/modules/" + img.Release + "/" + m.name + ".ko"
		a.file(p, 0o644, m.data)
		fmt.Fprintln(&list, p)
	}
	a.file(modulesFile, 0o644, []byte(list.String()))
	return a.bytes(), nil
}

// start runs QEMU and waits for the agent's first word.
func start(k Kernel, img *image, archive []byte, cfg Config) (*Session, error) {
	begin := time.Now()
	memory, cpus := cfg.Memory, cfg.CPUs
	if memory == 0 {
		memory = 1024
	}
	if cpus == 0 {
		cpus = 2
	}
	// In memory, so that nothing is left behind however this process ends.
	fd, err := unix.MemfdCreate("initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memory for the initramfs: %w", err)
	}
	initrd := os.NewFile(uintptr(fd), "initramfs")
	defer initrd.Close()
	if _, err := initrd.Write(archive); err != nil {
		return nil, err
	}
	consoleR, consoleW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer consoleW.Close()

	cmdline := strings.Join([]string{
		"console=ttyS0 quiet panic=-1 oops=panic",
		// A kernel that hangs says where, and ends.
		"softlockup_panic=1 softlockup_all_cpu_backtrace=1 watchdog_thresh=30",
		// What costs time under emulation and serves no test.
		"cryptomgr.notests mitigations=off tsc=reliable no_timer_check random.trust_cpu=on audit=0 lsm=bpf",
		agentEnv + "=1",
		cfg.Cmdline,
	}, " ")
	cmd := exec.Command(qemu,
		"-machine", "pc,hpet=off", "-accel", "tcg,thread=single", "-cpu", "max",
		"-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", img.kernel, "-initrd", "/dev/fd/3", "-append", cmdline,
		"-chardev", "file,id=console,path=/dev/fd/4", "-serial", "chardev:console",
		"-chardev", "stdio,id=port,signal=off",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name="+portName,
	)
	cmd.ExtraFiles = []*os.File{initrd, consoleW}
	// Should this process be killed, QEMU goes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	portR, portW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer portW.Close()
	cmd.Stdout = portW
	s := &Session{
		Kernel: k, cfg: cfg, stdin: stdin,
		console: &tail{}, exited: make(chan struct{}),
		enc: gob.NewEncoder(stdin), calls: map[int]chan event{},
	}
	cmd.Stderr = s.console

	started := make(chan error)
	go func() {
		// Pdeathsig means the thread that forked, so it has to live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		s.waitErr = cmd.Wait()
		close(s.exited)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s.kill = func() { _ = cmd.Process.Kill() } // gone already is fine
	go func() {
		_, _ = io.Copy(s.console, consoleR) // ends with QEMU
		consoleR.Close()
	}()
	hello := make(chan event, 1)
	s.calls[0] = hello
	go s.dispatch(portR)

	select {
	case e := <-hello:
		s.Release = e.Text
		s.BootTime = time.Since(begin)
		return s, nil
	case <-s.exited:
		return nil, s.dead()
	case <-time.After(bootTimeout):
		s.kill()
		<-s.exited
		return nil, fmt.Errorf("%s did not come up within %v; its console:\n%s", k, bootTimeout, s.console)
	}
}

// dispatch hands the agent's events to the calls they belong to.
func (s *Session) dispatch(port *os.File) {
	defer port.Close()
	dec := gob.NewDecoder(bufio.NewReaderSize(port, 64<<10))
	for {
		var e event
		if err := dec.Decode(&e); err != nil {
			s.kill() // no guest without its port
			return
		}
		s.mu.Lock()
		c := s.calls[e.ID]
		if e.Kind == evDone || e.Kind == evHello {
			delete(s.calls, e.ID)
		}
		s.mu.Unlock()
		if c != nil {
			c <- e
		}
	}
}

// dead says why the guest is gone.
func (s *Session) dead() error {
	<-s.exited
	console := s.console.String()
	if s.waitErr != nil {
		return fmt.Errorf("QEMU with %s ended: %w; its console:\n%s", s.Kernel, s.waitErr, console)
	}
	return fmt.Errorf("%s went down; its console:\n%s", s.Kernel, console)
}

// call sends a request and returns where its events arrive.
func (s *Session) call(r request) (int, <-chan event, error) {
	events := make(chan event, 64)
	s.mu.Lock()
	s.next++
	r.ID = s.next
	s.calls[r.ID] = events
	s.mu.Unlock()
	return r.ID, events, s.send(r)
}

func (s *Session) send(r request) error {
	s.encMu.Lock()
	defer s.encMu.Unlock()
	return s.enc.Encode(r)
}

// Run runs a command and waits for its end. The error says why it could not be
// started or the guest died; a command that fails is no error.
func (s *Session) Run(c Cmd) (Result, error) {
	var res Result
	if len(c.Args) == 0 {
		return res, errors.New("a guest command without Args")
	}
	if err := s.Put(c.Files); err != nil {
		return res, err
	}
	c.Files = nil
	if c.Timeout == 0 {
		c.Timeout = s.cfg.timeout()
	}
	if c.Dir == "" {
		dir, err := os.Getwd()
		if err != nil {
			return res, err
		}
		c.Dir = dir
	}
	env := []string{testenv.GuestEnv + "=" + s.Kernel.Series}
	if testenv.CI() {
		env = append(env, "CI=true")
	}
	c.Env = append(env, c.Env...)

	begin := time.Now()
	id, events, err := s.call(request{Op: opRun, Cmd: c})
	if err != nil {
		return res, s.lost(err)
	}
	timeout := time.After(c.Timeout)
	for {
		select {
		case e := <-events:
			switch e.Kind {
			case evStdout:
				res.Stdout = append(res.Stdout, e.Piece.Data...)
			case evStderr:
				res.Stderr = append(res.Stderr, e.Piece.Data...)
			case evFile:
				if res.Files == nil {
					res.Files = map[string][]byte{}
				}
				res.Files[e.Piece.Path] = append(res.Files[e.Piece.Path], e.Piece.Data...)
			case evDone:
				res.Wall = time.Since(begin)
				res.Code, res.Signal = e.Code, syscall.Signal(e.Signal)
				if e.Err != "" {
					return res, fmt.Errorf("in the guest: %s", e.Err)
				}
				return res, nil
			}
		case <-timeout:
			if res.TimedOut {
				s.kill()
				return res, fmt.Errorf("the guest does not answer, and could not kill %q; its console:\n%s", c.Args, s.console)
			}
			res.TimedOut = true
			timeout = time.After(20 * time.Second)
			if err := s.send(request{ID: id, Op: opKill}); err != nil {
				return res, s.lost(err)
			}
		case <-s.exited:
			return res, s.dead()
		}
	}
}

// lost explains an error on the port: mostly the guest is gone.
func (s *Session) lost(err error) error {
	select {
	case <-s.exited:
		return s.dead()
	case <-time.After(time.Second):
		return fmt.Errorf("writing to the guest: %w", err)
	}
}

// Put copies files of the host into the guest.
func (s *Session) Put(files Files) error {
	return eachFile(files, func(dst, src string, perm fs.FileMode) error {
		f, err := os.Open(src)
		if err != nil {
			return err
		}
		defer f.Close()
		buf := make([]byte, chunk)
		for off := int64(0); ; {
			n, err := io.ReadFull(f, buf)
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return err
			}
			if n > 0 || off == 0 {
				if err := s.put(piece{Path: dst, Mode: uint32(perm.Perm()), Offset: off, Data: buf[:n]}); err != nil {
					return err
				}
			}
			off += int64(n)
			if n < len(buf) {
				return nil
			}
		}
	})
}

func (s *Session) put(p piece) error {
	_, events, err := s.call(request{Op: opWrite, Piece: p})
	if err != nil {
		return s.lost(err)
	}
	select {
	case e := <-events:
		if e.Err != "" {
			return errors.New("in the guest: " + e.Err)
		}
		return nil
	case <-s.exited:
		return s.dead()
	case <-time.After(bootTimeout):
		s.kill()
		return fmt.Errorf("the guest does not answer; its console:\n%s", s.console)
	}
}

// Console returns the end of what the guest's kernel printed.
func (s *Session) Console() string { return s.console.String() }

// Close powers the guest off. Its error says that the guest had died before,
// and shows its console.
func (s *Session) Close() error {
	select {
	case <-s.exited:
		return s.dead()
	default:
	}
	if err := s.send(request{Op: opQuit}); err == nil {
		select {
		case <-s.exited:
		case <-time.After(5 * time.Second):
		}
	}
	s.kill()
	<-s.exited
	s.stdin.Close()
	return nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*tailSize {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ReplaceAll(string(t.buf[max(0, len(t.buf)-tailSize):]), "\r", "")
}
