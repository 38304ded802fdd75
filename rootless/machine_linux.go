//go:build amd64 || arm64

package rootless

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/vm"
)

// Options are choices for a machine.
type Options struct {
	// NoFilter traces a command without a seccomp filter: every system call
	// stops, but the command survives skep, however that ends.
	NoFilter bool
	// Waiting, where it is set, is told how many processes a command has left
	// that carry the filter: the run lasts until they end.
	Waiting func(processes int)
}

// New returns the embedded engine as a machine for one object: it runs programs
// over the system calls of the process tree of a command, or of one process. It
// is a [machine.Starter].
func New(o Options) (machine.Starter, error) {
	arch, ok := abi.ParseArch(runtime.GOARCH)
	if !ok {
		return nil, fmt.Errorf("the system calls of %s are not known", runtime.GOARCH)
	}
	m := &userMachine{opts: o, arch: arch}
	m.hooks.Store(&hooks{})
	return m, nil
}

// userMachine is the embedded engine with its tracer.
type userMachine struct {
	opts Options
	arch abi.Arch

	hooks  atomic.Pointer[hooks]
	hookMu sync.Mutex // for changes of hooks

	mu     sync.Mutex // held while a program runs, and for what follows
	now    *task      // whose event programs run for; nil for skep's own
	cookie uint64

	tracerMu sync.Mutex
	tracer   *tracer
	target   int // the process or the command that is traced, 0 for none
}

// hooks are what is attached. They are never changed but replaced.
type hooks struct {
	links []*link
	enter callSet // calls that programs want to see entered
	exit  callSet // and left
}

func (m *userMachine) Name() string { return "user" }

// trace returns the tracer.
func (m *userMachine) trace() *tracer {
	m.tracerMu.Lock()
	defer m.tracerMu.Unlock()
	if m.tracer == nil {
		m.tracer = newTracer(m)
		m.tracer.wants = func(nr uint64) bool { return m.hooks.Load().enter.has(nr) }
		m.tracer.wantsExit = func(nr uint64) bool { return m.hooks.Load().exit.has(nr) }
	}
	return m.tracer
}

// Start starts a command, stopped.
func (m *userMachine) Start(command []string) (c machine.Child, err error) {
	tr := m.trace()
	if e := tr.do(func() {
		var made *child
		if made, err = tr.start(command, m.opts.NoFilter); err == nil {
			c, m.target = made, made.pid
		}
	}); e != nil {
		return nil, e
	}
	return c, err
}

// traced is the set of calls at which the command has to stop, and whether a
// filter sees to that.
func (m *userMachine) traced() (*callSet, bool) {
	h := m.hooks.Load()
	var both callSet
	both.add(&h.enter)
	both.add(&h.exit)
	return &both, !m.opts.NoFilter
}

func (m *userMachine) entered(t *task, info *syscallInfo) { m.call(t, info, false) }
func (m *userMachine) left(t *task, info *syscallInfo)    { m.call(t, info, true) }

// regsAddress is where programs find the registers of the task: an address of
// the kernel's half, that is none of the vm's own.
const regsAddress = 0xffffc90000000000

// call runs the programs that are attached to a system call.
func (m *userMachine) call(t *task, info *syscallInfo, exit bool) {
	var raw [16]byte
	var record [64]byte
	native := info.arch == nativeArch || exit // an exit belongs to an entry that was native
	for _, l := range m.hooks.Load().links {
		if l.exit != exit || !l.calls.has(t.nr) || !native && !l.calls.all {
			continue
		}
		if l.raw {
			binary.NativeEndian.PutUint64(raw[:], regsAddress)
			if exit {
				binary.NativeEndian.PutUint64(raw[8:], uint64(info.result()))
			} else {
				binary.NativeEndian.PutUint64(raw[8:], t.nr)
			}
			m.run(t, l, raw[:])
			continue
		}
		// struct trace_event_raw_sys_enter, _exit.
		binary.NativeEndian.PutUint32(record[4:], uint32(t.tid))
		binary.NativeEndian.PutUint64(record[8:], t.nr)
		if exit {
			binary.NativeEndian.PutUint64(record[16:], uint64(info.result()))
			m.run(t, l, record[:24])
			continue
		}
		for i, a := range info.args {
			binary.NativeEndian.PutUint64(record[16+8*i:], a)
		}
		m.run(t, l, record[:])
	}
}

// run runs an attached program for a task.
func (m *userMachine) run(t *task, l *link, arg []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.closed {
		return
	}
	m.now, m.cookie = t, l.cookie
	start := l.prog.begin()
	_, err := l.prog.Call(context.Background(), arg)
	l.prog.end(start, err)
	m.now = nil
}

// A program is one of a loaded object.
type program struct {
	*vm.Program
	timed  bool
	calls  map[string]*callSet // what its probes name, by "enter" and "exit"
	runs   atomic.Uint64
	time   atomic.Int64
	failed atomic.Uint64
}

func (p *program) begin() time.Time {
	if p.timed {
		return time.Now()
	}
	return time.Time{}
}

func (p *program) end(start time.Time, err error) {
	if p.timed {
		p.runs.Add(1)
		p.time.Add(int64(time.Since(start)))
	}
	if err != nil {
		p.failed.Add(1)
	}
}

// loaded is an object in the engine.
type loaded struct {
	m     *userMachine
	vm    *vm.VM
	c     *vm.Collection
	progs map[string]*program
	man   *object.Manifest
	lines prints
}

// memoryLimit is what maps and buffers of an object may take.
const memoryLimit = 1 << 30

// Load loads an object. Programs are not verified: they cannot reach out of the
// engine's cage.
func (m *userMachine) Load(ctx context.Context, elf []byte, o machine.LoadOptions) (machine.Loaded, error) {
	if o.TokenPath != "" || o.Replace != "" {
		return nil, errors.New("BPF tokens and pins are the kernel's: they take --engine kernel")
	}
	obj, err := object.Unmarshal(elf)
	if err != nil {
		return nil, err
	}
	if obj.Arch != "" && obj.Arch != runtime.GOARCH {
		return nil, fmt.Errorf("the object was built for %s, and this machine is %s", obj.Arch, runtime.GOARCH)
	}
	if err := refuse(obj, o.Skip); err != nil {
		return nil, err
	}
	spec, err := specOf(elf, o)
	if err != nil {
		return nil, err
	}
	l := &loaded{m: m, man: obj.Manifest, progs: map[string]*program{}}
	l.vm, err = vm.New(vm.Options{MemoryLimit: memoryLimit, CPUs: 1, Host: m.host(l)})
	if err != nil {
		return nil, err
	}
	if l.c, err = l.vm.Load(spec, &vm.LoadOptions{Helpers: m.helpers()}); err != nil {
		var missing *vm.MissingError
		if errors.As(err, &missing) {
			err = fmt.Errorf("the embedded engine has no %s %s; --engine kernel has", missing.What, missing.Name)
		}
		return nil, errors.Join(err, l.vm.Close())
	}
	for name, p := range l.c.Programs {
		l.progs[name] = &program{Program: p, timed: o.Stats, calls: map[string]*callSet{}}
	}
	if l.man != nil {
		for i := range l.man.Programs {
			l.findCalls(&l.man.Programs[i])
		}
	}
	return l, nil
}

// findCalls notes which system calls a program is about: all of them go through
// the two raw tracepoints, but only these have to stop.
func (l *loaded) findCalls(p *object.Program) {
	prog := l.progs[p.Name]
	if prog == nil {
		return
	}
	for _, pt := range points(l.man, p) {
		way, set := l.m.callsOf(pt)
		if set == nil {
			continue
		}
		if prog.calls[way] == nil {
			prog.calls[way] = &callSet{}
		}
		prog.calls[way].add(set)
	}
}

// callsOf is the set of calls that an attach point is about, and whether it is
// about entering or leaving them; nil for points of other kinds.
func (m *userMachine) callsOf(pt hook.Point) (way string, set *callSet) {
	switch {
	case pt.Kind == hook.Tracepoint && pt.Subsystem == "raw_syscalls", pt.Kind == hook.RawTracepoint && pt.Module == "" && !pt.Typed && !pt.Writable:
		switch pt.Event {
		case "sys_enter":
			return "enter", &callSet{all: true}
		case "sys_exit":
			return "exit", &callSet{all: true}
		}
	case pt.Kind == hook.Tracepoint && pt.Subsystem == "syscalls":
		for _, way := range []string{"enter", "exit"} {
			name, ok := strings.CutPrefix(pt.Event, "sys_"+way+"_")
			if !ok {
				continue
			}
			if s := tracedCall(m.arch, name); s != nil {
				n, _ := s.Number(m.arch)
				return way, &callSet{calls: map[int]bool{n: true}}
			}
		}
	}
	return "", nil
}

// points are the attach points of a program's probes.
func points(m *object.Manifest, p *object.Program) []hook.Point {
	var list []hook.Point
	for _, text := range m.Hooks(p) {
		if pt, err := hook.Parse(text); err == nil {
			list = append(list, pt)
		}
	}
	return list
}

// A link is a program on a hook.
type link struct {
	m      *userMachine
	prog   *program
	cookie uint64
	raw    bool // its context is that of a raw tracepoint
	exit   bool
	calls  *callSet
	closed bool // with the machine's lock
}

// Attach attaches programs. A process to be traced is, once all are attached.
func (l *loaded) Attach(ctx context.Context, requests []machine.Attach) ([]machine.Link, []error) {
	links, errs := make([]machine.Link, len(requests)), make([]error, len(requests))
	var all []*link
	pid := 0
	for i, req := range requests {
		made, err := l.attach(req)
		if err != nil {
			errs[i] = err
			continue
		}
		links[i] = made
		all = append(all, made...)
		pid = max(pid, req.PID)
	}
	l.m.change(func(old []*link) []*link { return append(slices.Clone(old), all...) })
	if err := l.m.follow(pid, len(all) > 0); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = errors.Join(err, links[i].Close())
			}
		}
	}
	return links, errs
}

func (l *loaded) attach(req machine.Attach) (several, error) {
	prog := l.progs[req.Program]
	if prog == nil {
		return nil, fmt.Errorf("the object has no program %s", req.Program)
	}
	var made several
	for i, pt := range req.Points {
		way, set := l.m.callsOf(pt)
		if set == nil {
			return nil, refused(pt)
		}
		raw := pt.Kind == hook.RawTracepoint
		if named := prog.calls[way]; raw && named != nil {
			set = named
		}
		if want := abi.ProgTracepoint; !raw && prog.Type() != want || raw && prog.Type() != abi.ProgRawTracepoint {
			return nil, fmt.Errorf("program %s of type %s cannot be attached to %s by the embedded engine", req.Program, prog.Type(), pt)
		}
		one := &link{m: l.m, prog: prog, raw: raw, exit: way == "exit", calls: set}
		if i < len(req.Cookies) {
			one.cookie = req.Cookies[i]
		}
		made = append(made, one)
	}
	return made, nil
}

// several links are closed together.
type several []*link

func (s several) Close() error {
	if len(s) == 0 {
		return nil
	}
	m := s[0].m
	m.change(func(old []*link) []*link {
		return slices.DeleteFunc(slices.Clone(old), func(l *link) bool { return slices.Contains(s, l) })
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range s {
		l.closed = true
	}
	return nil
}

// change replaces what is attached.
func (m *userMachine) change(f func([]*link) []*link) {
	m.hookMu.Lock()
	defer m.hookMu.Unlock()
	h := &hooks{links: f(m.hooks.Load().links)}
	for _, l := range h.links {
		if l.exit {
			h.exit.add(l.calls)
		} else {
			h.enter.add(l.calls)
		}
	}
	m.hooks.Store(h)
}

// follow begins to trace a process, if that is what the run is limited to.
func (m *userMachine) follow(pid int, wanted bool) (err error) {
	switch {
	case !wanted || m.target == pid && pid != 0 || m.target != 0 && pid == 0:
		return nil
	case pid == 0:
		return errors.New("without privileges the events of one command or of one process can be had: give -c CMD or -p PID; those of the whole machine take --engine kernel, with CAP_BPF and CAP_PERFMON")
	}
	tr := m.trace()
	if e := tr.do(func() { err = tr.attach(pid) }); e != nil {
		return e
	}
	if err == nil {
		m.target = pid
	}
	return err
}

// refused says that a hook takes the kernel.
func refused(pt hook.Point) error {
	what := "CAP_BPF and CAP_PERFMON"
	switch pt.Kind {
	case hook.Tracepoint, hook.RawTracepoint, hook.Kprobe, hook.Kretprobe, hook.Fentry, hook.Fexit, hook.FmodRet, hook.LSM,
		hook.Uprobe, hook.Uretprobe, hook.USDT, hook.Profile, hook.Software, hook.Hardware, hook.Watchpoint, hook.AsyncWatchpoint, hook.Iter:
	default:
		what = "CAP_BPF and CAP_NET_ADMIN"
	}
	return fmt.Errorf("%s takes the kernel: run with --engine kernel as root, or with %s", pt, what)
}

// Run runs a program once, for skep itself.
func (l *loaded) Run(name string) (uint32, error) {
	r, err := l.RunWith(name, machine.RunOptions{})
	return r.Return, err
}

func (l *loaded) RunWith(name string, o machine.RunOptions) (machine.RunResult, error) {
	p := l.progs[name]
	if p == nil {
		return machine.RunResult{}, fmt.Errorf("the object has no program %s", name)
	}
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.now, l.m.cookie = nil, 0
	opts := &vm.RunOptions{Data: o.Data, Repeat: uint32(o.Repeat)}
	if o.Context != nil {
		opts.Context = o.Context
	}
	start := p.begin()
	res, err := p.RunContext(context.Background(), opts)
	p.end(start, err)
	return machine.RunResult{Return: res.Return, Duration: res.Duration, Context: res.Context, Data: res.Data}, err
}

func (l *loaded) Map(name string) (machine.Map, error) {
	m := l.c.Maps[name]
	if m == nil {
		return nil, fmt.Errorf("the object has no map %s", name)
	}
	return engineMap{m}, nil
}

func (l *loaded) Var(name string) (machine.Var, error) {
	v := l.c.Variables[name]
	if v == nil {
		return nil, fmt.Errorf("the object has no variable %s", name)
	}
	return variable{v}, nil
}

func (l *loaded) Records(name string) (machine.Records, error) {
	m := l.c.Maps[name]
	if m == nil {
		return nil, fmt.Errorf("the object has no map %s", name)
	}
	return newRecords(m)
}

func (l *loaded) Prints() (machine.Records, error) { return l.lines.records(), nil }

func (l *loaded) Logs(string) string { return "" }

func (l *loaded) Missed(name string) (uint64, error) {
	p := l.progs[name]
	if p == nil {
		return 0, fmt.Errorf("the object has no program %s", name)
	}
	return p.failed.Load(), nil
}

func (l *loaded) Stats(name string) (machine.ProgramStats, error) {
	p := l.progs[name]
	if p == nil {
		return machine.ProgramStats{}, fmt.Errorf("the object has no program %s", name)
	}
	return machine.ProgramStats{
		Runs: p.runs.Load(), Time: time.Duration(p.time.Load()), Missed: p.failed.Load(), Instructions: p.Instructions(),
	}, nil
}

func (l *loaded) Pin(string) error {
	return errors.New("programs of the embedded engine end with skep: what is pinned takes --engine kernel")
}

// Close detaches from what is traced, which runs on, and ends the engine.
func (l *loaded) Close() error {
	l.m.change(func([]*link) []*link { return nil })
	l.m.stopTracing()
	return errors.Join(l.c.Close(), l.vm.Close())
}

// stopTracing lets go of all processes. Those under a filter would find their
// calls failing: they are traced until they end.
func (m *userMachine) stopTracing() {
	m.tracerMu.Lock()
	tr := m.tracer
	m.tracerMu.Unlock()
	if tr == nil {
		return
	}
	left := 0
	_ = tr.do(func() { left = tr.finish() })
	if left > 0 && m.opts.Waiting != nil {
		m.opts.Waiting(left)
	}
	<-tr.done
}
