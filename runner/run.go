package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// Config says what to run and where.
type Config struct {
	Machine  machine.Machine
	ELF      []byte
	Manifest *object.Manifest
	Load     machine.LoadOptions
	// PID limits hooks to a process where they can be, and the run ends when
	// that process does.
	PID int
	// Command is a program with its arguments that is started stopped, runs
	// once everything is attached, and whose end ends the run.
	Command []string
	// Pin is a directory where programs, links and maps are kept after the
	// run, "" for none.
	Pin string
	// Only runs the tests (object.KindTest) or benchmarks (object.KindBench) of
	// a script and attaches nothing; "" is an ordinary run. Filter chooses
	// among them by name ("test:NAME"); nil takes all.
	Only   object.ProgramKind
	Filter func(name string) bool
	// Targets are the targets of programs that attach to one object of many,
	// by their names; see machine.Attach.
	Targets map[string]string
	// Events receives everything in order. An error ends the run.
	Events func(Event) error
	// Flush is called when no more events are there for now.
	Flush func() error
	// LiveLosses asks for events of all that goes wrong while the run lasts.
	// Without it only lost events are told at once, and the rest at the end.
	LiveLosses bool
	// Ready is called once everything is attached.
	Ready func(attached int)
	// Root is the file system where names are looked up: symbols, users,
	// control groups, maps of processes. Nil is that of this machine.
	Root fs.FS
	// Processes, when it is not nil, is called while the run lasts if user
	// addresses are to be named. It reports changes of processes' memory maps,
	// so that processes are named that are gone when their addresses are shown.
	Processes func(ctx context.Context, note func(ProcessEvent)) error
	// Started gets a handle to the run before the first program runs.
	Started func(*Handle)
}

// A Result is how a run ended.
type Result struct {
	// Code is what exit(code) gave, or 1 after an assertion failed.
	Code int
	// Exited is set when the script ended the run.
	Exited bool
	// ChildCode is how Config.Command ended: its exit code, or 128 and the
	// number of the signal; -1 when there was none or it did not end.
	ChildCode int
	// Losses are what went wrong in all, each with its number.
	Losses []Lost
}

// Lost is how often something went wrong.
type Lost struct {
	Loss  object.Loss
	Count uint64
}

type run struct {
	Config
	man    *object.Manifest
	order  binary.ByteOrder
	loaded machine.Loaded
	result Result

	names   *names
	formats []*Format
	values  []Value
	dec     decoder
	cut     uint64 // strings cut, those of snapshots included
	child   machine.Child
	files   captures
	links   []held
	seen    map[object.Loss]uint64
	zeroed  map[string]bool // maps without keys that had a value when they were set to zero
	last    machine.Var     // see object.LastRecordVar; nil when there is none
	// When losses were looked at and missed runs were asked for, and how long to
	// wait until that is done again.
	checked, asked         time.Time
	lossPause, missedPause time.Duration
	// interrupted is closed when the run is to end.
	interrupted <-chan struct{}
	testing     bool // a test runs, and
	failed      bool // an assertion of it failed

	buffers []buffer // apart from records
	readers sync.WaitGroup

	mu      sync.Mutex
	records machine.Records
	stopped bool
	queue   []func() error
	wanted  atomic.Bool // the loop has work, or is to end
	woken   chan struct{}
	over    chan struct{} // closed when the run has ended
}

// A held link is one attachment, with what it is attached to.
type held struct {
	machine.Link
	points []hook.Point
}

// errExit ends the reading of records after exit().
var errExit = errors.New("exit")

// Run loads an object, attaches it, delivers its events until it ends by
// itself or ctx is cancelled, and shows its maps.
func Run(ctx context.Context, c Config) (Result, error) {
	r := &run{
		Config: c, man: c.Manifest, order: binary.LittleEndian, woken: make(chan struct{}, 1), over: make(chan struct{}),
		seen: map[object.Loss]uint64{}, result: Result{ChildCode: -1},
	}
	if r.Root == nil {
		r.Root = os.DirFS("/")
	}
	if c.Manifest.Target.Arch == "s390x" || c.Manifest.Target.Arch == "ppc64" {
		r.order = binary.BigEndian
	}
	r.names = newNames(r.man, r.order, r.Root)
	r.names.frames = r.frames
	defer r.names.Close()
	r.dec = decoder{order: r.order, names: r.names}
	r.formats = make([]*Format, len(r.man.Events))
	for i := range r.man.Events {
		r.formats[i] = ParseFormat(r.man.Events[i].Format)
	}
	if len(c.Command) > 0 {
		var err error
		if r.child, err = start(c.Machine, c.Command); err != nil {
			return r.result, err
		}
		defer r.child.Kill()
	}
	r.Load.Stats = r.Load.Stats || r.Only == object.KindBench
	if err := r.setVars(); err != nil {
		return r.result, err
	}
	loaded, err := c.Machine.Load(ctx, c.ELF, r.Load)
	if err != nil {
		return r.result, err
	}
	r.loaded = loaded
	err = r.all(ctx)
	r.stop()
	close(r.over)
	return r.result, errors.Join(err, r.files.close(), loaded.Close())
}

// start starts a command, stopped: by the machine, where that sees to it.
func start(m machine.Machine, command []string) (machine.Child, error) {
	if s, ok := m.(machine.Starter); ok {
		return s.Start(command)
	}
	c, err := startChild(command)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// setVars gives the object what only this run knows.
func (r *run) setVars() error {
	vars := map[string][]byte{}
	for name, v := range r.Load.Vars {
		vars[name] = v
	}
	set := func(name string, n uint64) {
		b := make([]byte, 8)
		r.order.PutUint64(b, n)
		vars[name] = b
	}
	set("skep_start_ns", uint64(bootTime()))
	if r.PID != 0 {
		set("skep_pid", uint64(r.PID))
	}
	if r.child != nil {
		set("skep_cpid", uint64(r.child.PID()))
	}
	if dev, ino, err := device("/proc/self/ns/pid"); err == nil {
		set("skep_pidns_dev", dev)
		set("skep_pidns_ino", ino)
	}
	for _, c := range r.man.Cgroups {
		_, id, err := device(c.Path)
		if err != nil {
			return fmt.Errorf("the number of the cgroup %s cannot be found: %s", c.Path, reason(err))
		}
		set(c.Var, id)
	}
	r.Load.Vars = vars
	return nil
}

// frames reads a kept stack.
func (r *run) frames(id uint64) []uint64 {
	m, err := r.loaded.Map(r.man.Stacks)
	if err != nil {
		return nil
	}
	key := make([]byte, 8)
	r.order.PutUint64(key, id)
	data, err := m.Lookup(key)
	if err != nil {
		return nil
	}
	list := make([]uint64, len(data)/8)
	for i := range list {
		list[i] = r.order.Uint64(data[8*i:])
	}
	return list
}

func (r *run) all(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	r.interrupted = ctx.Done()
	if r.man.RingBuffer != "" {
		records, err := r.loaded.Records(r.man.RingBuffer)
		if err != nil {
			return err
		}
		defer records.Close()
		r.records = records
		// Only scripts that end by themselves have it.
		if v, err := r.loaded.Var(object.LastRecordVar); err == nil {
			r.last = v
		}
	}
	stopped := context.AfterFunc(ctx, r.stop)
	defer stopped()
	if r.Started != nil {
		r.Started(&Handle{r})
	}
	if r.Processes != nil && r.namesUsers() {
		if r.child != nil {
			r.names.processes.seed(r.child.PID())
		}
		if r.PID != 0 {
			r.names.processes.seed(r.PID)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			// Without it, only processes that live are named.
			_ = r.Processes(ctx, r.names.processes.note)
		}()
		defer func() { cancel(); <-done }()
	}
	if err := r.runKind(object.KindBegin); err != nil {
		return err
	}
	if err := r.drain(false); err != nil {
		return r.finish(err)
	}
	if r.Only != "" {
		return r.finish(r.runOnly(ctx))
	}
	closeBuffers, err := r.openBuffers()
	if err != nil {
		return err
	}
	defer closeBuffers()
	attached, err := r.attach(ctx)
	if err != nil {
		return errors.Join(err, r.detach())
	}
	if r.Pin != "" {
		if err := r.loaded.Pin(r.Pin); err != nil {
			return errors.Join(fmt.Errorf("nothing can be pinned below %s: %w", r.Pin, err), r.detach())
		}
		if err := r.warnPinned(); err != nil {
			return errors.Join(err, r.detach())
		}
	}
	stopSignals, err := r.signals()
	if err != nil {
		return errors.Join(err, r.detach())
	}
	defer stopSignals()
	if r.Ready != nil {
		r.Ready(attached)
	}
	if err := r.Events(Event{Kind: EventAttached, Count: uint64(attached)}); err != nil {
		return errors.Join(err, r.detach())
	}
	if r.child != nil {
		if err := r.child.Resume(cancel); err != nil {
			return errors.Join(err, r.detach())
		}
	}
	if r.PID != 0 {
		unwatch, err := watchProcess(r.PID, cancel)
		if err != nil {
			return errors.Join(err, r.detach())
		}
		defer unwatch()
	}
	iterated, err := r.iterate()
	if err == nil && !r.man.ExitAfterBegin && !iterated {
		err = r.loop(ctx)
	}
	return r.finish(err)
}

// namesUsers tells whether addresses of user programs may have to be named.
func (r *run) namesUsers() bool {
	return r.man.Shows(object.TypeUsym, object.TypeUstack)
}

// detach closes all links, side by side: the kernel waits long for some.
func (r *run) detach() error {
	errs := make([]error, len(r.links))
	var wg sync.WaitGroup
	for i, l := range r.links {
		wg.Go(func() { errs[i] = l.Close() })
	}
	wg.Wait()
	r.links = nil
	return errors.Join(errs...)
}

// finish detaches, runs the end programs and shows what is left.
func (r *run) finish(err error) error {
	if err != nil && !errors.Is(err, errExit) {
		return errors.Join(err, r.detach())
	}
	missed := r.missed()
	errs := []error{r.detach()}
	if r.child != nil {
		r.result.ChildCode = r.child.End()
	}
	if err := r.drainBuffers(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := r.drain(true); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := r.runKind(object.KindEnd); err != nil {
		errs = append(errs, err)
	}
	if err := r.drain(true); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if err := r.finalMaps(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if r.names.hidden {
		errs = append(errs, r.warn(nil, "addresses of the kernel have no names: /proc/kallsyms hides them from this process (it takes CAP_SYSLOG, and kernel.kptr_restrict below 2)"))
	}
	errs = append(errs, r.losses(true, missed), r.flush())
	return errors.Join(errs...)
}

// finalMaps shows the maps at the end.
func (r *run) finalMaps() error {
	if isOff(r.man.Settings["print_maps_on_exit"]) {
		return nil
	}
	if err := r.Events(Event{Kind: EventFinal}); err != nil {
		return err
	}
	shown := make([]*object.MapShow, 0, len(r.man.Maps))
	for i := range r.man.Maps {
		if !r.man.Maps[i].Hidden {
			shown = append(shown, &r.man.Maps[i])
		}
	}
	slices.SortStableFunc(shown, func(a, b *object.MapShow) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	for _, m := range shown {
		if err := r.showMap(&Event{}, m, nil); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) runKind(kind object.ProgramKind) error {
	for _, p := range r.man.Programs {
		if p.Kind == kind {
			if _, err := r.loaded.Run(p.Name); err != nil {
				return fmt.Errorf("%s cannot be run: %w", r.probeName(p), err)
			}
		}
	}
	return nil
}

func (r *run) probeName(p object.Program) string {
	if len(p.Probes) > 0 && p.Probes[0] >= 0 && p.Probes[0] < len(r.man.Probes) {
		return r.man.Probes[p.Probes[0]].Name
	}
	return p.Name
}

// point is the attach point of a probe.
func (r *run) point(i int) (hook.Point, error) {
	if i < 0 || i >= len(r.man.Probes) {
		return hook.Point{}, fmt.Errorf("the object names probe %d, and has %d", i, len(r.man.Probes))
	}
	p := &r.man.Probes[i]
	text := p.Hook
	if text == "" {
		text = p.Name
	}
	pt, err := hook.Parse(text)
	if err != nil {
		// Objects of other compilers name the section.
		if s, sErr := hook.ParseSection(text); sErr == nil {
			return s, nil
		}
	}
	return pt, err
}

// A timer runs an interval program.
type timer struct {
	program string
	period  time.Duration
	next    time.Time
}

func (r *run) timers() ([]timer, error) {
	var list []timer
	now := time.Now()
	for _, p := range r.man.Programs {
		if p.Kind != object.KindInterval {
			continue
		}
		for _, i := range p.Probes {
			pt, err := r.point(i)
			if err != nil {
				return nil, err
			}
			period := pt.Unit.Period(pt.Rate)
			if period <= 0 {
				return nil, fmt.Errorf("%s never happens", pt)
			}
			list = append(list, timer{p.Name, period, now.Add(period)})
		}
	}
	return list, nil
}

// tick runs the programs whose time has come and returns when the next one is.
// Runs that were missed are not caught up with.
func (r *run) tick(timers []timer) (time.Time, error) {
	now := time.Now()
	var next time.Time
	for i := range timers {
		t := &timers[i]
		if !t.next.After(now) {
			if _, err := r.loaded.Run(t.program); err != nil {
				return next, err
			}
			t.next = t.next.Add((now.Sub(t.next)/t.period + 1) * t.period)
		}
		if next.IsZero() || t.next.Before(next) {
			next = t.next
		}
	}
	return next, nil
}

// stop makes the loop look up.
func (r *run) stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.wake()
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

func (r *run) wake() {
	r.wanted.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.records != nil {
		r.records.SetDeadline(past)
	}
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// do runs f in the loop. It is false when the run is over.
func (r *run) do(f func() error) bool {
	r.mu.Lock()
	if r.stopped {
		r.mu.Unlock()
		return false
	}
	r.queue = append(r.queue, f)
	r.mu.Unlock()
	r.wake()
	return true
}

// later has the loop run f, or the end of the run when it has ended already.
func (r *run) later(f func() error) {
	r.mu.Lock()
	r.queue = append(r.queue, f)
	r.mu.Unlock()
	r.wake()
}

// sleepUntil sets the deadline of the next read, unless there is something
// to do.
func (r *run) sleepUntil(t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || len(r.queue) > 0 {
		t = past
	}
	r.records.SetDeadline(t)
}

// work runs what others asked for.
func (r *run) work() error {
	for {
		r.mu.Lock()
		queue := r.queue
		r.queue = nil
		r.mu.Unlock()
		if len(queue) == 0 {
			return nil
		}
		for _, f := range queue {
			if err := f(); err != nil {
				return err
			}
		}
	}
}

// lookAfter is how many records are read at most before losses and timers are
// looked at.
const lookAfter = 256

// lastWait is when a reader that has read everything looks once more whether
// the run was to end: the ring buffer may have been full until it said how far
// it has read.
const lastWait = 50 * time.Millisecond

// loop delivers records and runs timers until the run ends.
func (r *run) loop(ctx context.Context) error {
	timers, err := r.timers()
	if err != nil {
		return err
	}
	if r.records == nil {
		return r.wait(ctx, timers)
	}
	busy := false
	for {
		r.wanted.Store(false)
		if err := errors.Join(r.work(), r.lastRecord()); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		next, err := r.tick(timers)
		if err != nil {
			return err
		}
		wake, err := r.look(next)
		if err != nil {
			return err
		}
		if t := time.Now().Add(lastWait); busy && r.last != nil && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
		r.sleepUntil(wake)
		busy = false
		// Read on while there is something, so that a busy buffer costs
		// neither flushes nor clocks. Timers wait for what is there, so that an
		// exit() of the last run is seen before the next one, but not for ever.
		for n := 1; ; n++ {
			data, err := r.records.Read()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if err := r.record(data); err != nil {
				return err
			}
			r.lossPause = lossInterval
			if r.wanted.Load() {
				break
			}
			idle := r.records.Pending() == 0
			if !idle && n%lookAfter != 0 {
				continue
			}
			if err := errors.Join(r.losses(false, nil), r.lastRecord()); err != nil {
				return err
			}
			if idle {
				if err := r.flush(); err != nil {
					return err
				}
				if busy = true; r.last != nil {
					break
				}
			}
			if len(timers) > 0 && !next.After(time.Now()) {
				break
			}
		}
		if err := r.flush(); err != nil {
			return err
		}
	}
}

func (r *run) flush() error {
	if r.Flush == nil {
		return nil
	}
	return r.Flush()
}

// wait is loop for objects without events.
func (r *run) wait(ctx context.Context, timers []timer) error {
	for {
		if err := r.work(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		next, err := r.tick(timers)
		if err != nil {
			return err
		}
		if next, err = r.look(next); err != nil {
			return err
		}
		if err := r.flush(); err != nil {
			return err
		}
		var alarm <-chan time.Time
		if !next.IsZero() {
			alarm = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
		case <-r.woken:
		case <-alarm:
		}
	}
}

// drain delivers the records that are there now; with all, also those after
// an exit.
func (r *run) drain(all bool) error {
	if err := r.work(); err != nil {
		return err
	}
	if r.records == nil {
		return nil
	}
	for r.records.Pending() > 0 {
		r.records.SetDeadline(time.Now().Add(100 * time.Millisecond))
		data, err := r.records.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.record(data); err != nil && (!all || !errors.Is(err, errExit)) {
			return err
		}
	}
	if err := r.lastRecord(); err != nil && (!all || !errors.Is(err, errExit)) {
		return err
	}
	return nil
}

// lastRecord delivers the record that ends the run, where the ring buffer had
// no room for it.
func (r *run) lastRecord() error {
	if r.last == nil {
		return nil
	}
	data, err := r.last.Get()
	if err != nil || len(data) < 8 || r.order.Uint64(data) == 0 {
		return err
	}
	r.last = nil
	return r.record(data[8:])
}

// record delivers one record of the ring buffer.
func (r *run) record(data []byte) error {
	if len(data) < 8 {
		return fmt.Errorf("a record of %d bytes is too short", len(data))
	}
	id := uint64(r.order.Uint32(data))
	if id >= uint64(len(r.man.Events)) {
		return fmt.Errorf("a record names event %d, the manifest has %d", id, len(r.man.Events))
	}
	spec := &r.man.Events[id]
	r.values = r.dec.decodeFields(r.values, spec.Args, data)
	e := Event{Kind: spec.Kind, Spec: spec, Values: r.values, format: r.formats[id]}
	switch spec.Kind {
	case object.EventPrintf, object.EventErrorf, object.EventWarnf, object.EventPrint:
		return r.Events(e)
	}
	return r.act(&e)
}

func (r *run) mapNamed(name string) (*object.MapShow, error) {
	i := slices.IndexFunc(r.man.Maps, func(m object.MapShow) bool { return m.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("an event names the map %q, which is not there", name)
	}
	return &r.man.Maps[i], nil
}
