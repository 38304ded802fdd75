package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
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
	// PID limits hooks to a process where they can be.
	PID int
	// Events receives everything in order. An error ends the run.
	Events func(Event) error
	// Ready is called once everything is attached.
	Ready func(attached int)
}

// An Event is one thing to show.
type Event struct {
	Kind object.EventKind
	// Spec describes the record that the event came from.
	Spec *object.Event
	// Values are the decoded arguments.
	Values []Value
	// Map is the snapshot to show for EventPrintMap and EventPrintElem.
	Map *Snapshot
	// Loss and Count are those of EventLost.
	Loss  object.Loss
	Count uint64
}

// EventLost says that something went wrong Count times.
const EventLost object.EventKind = "lost"

// A Result is how a run ended.
type Result struct {
	// Code is what exit(code) gave.
	Code int
	// Exited is set when the script ended the run.
	Exited bool
}

type run struct {
	Config
	man    *object.Manifest
	order  binary.ByteOrder
	loaded machine.Loaded
	result Result
}

// errExit ends the reading of records after exit().
var errExit = errors.New("exit")

// Run loads an object, attaches it, delivers its events until it ends by
// itself or ctx is cancelled, and shows its maps.
func Run(ctx context.Context, c Config) (Result, error) {
	r := &run{Config: c, man: c.Manifest, order: binary.LittleEndian}
	if c.Manifest.Target.Arch == "s390x" || c.Manifest.Target.Arch == "ppc64" {
		r.order = binary.BigEndian
	}
	if c.Load.Vars == nil {
		c.Load.Vars = map[string][]byte{}
	}
	start := make([]byte, 8)
	r.order.PutUint64(start, uint64(bootTime()))
	c.Load.Vars["skep_start_ns"] = start
	loaded, err := c.Machine.Load(ctx, c.ELF, c.Load)
	if err != nil {
		return Result{}, err
	}
	r.loaded = loaded
	err = r.all(ctx)
	return r.result, errors.Join(err, loaded.Close())
}

func (r *run) all(ctx context.Context) error {
	var records machine.Records
	if r.man.RingBuffer != "" {
		var err error
		if records, err = r.loaded.Records(r.man.RingBuffer); err != nil {
			return err
		}
		defer records.Close()
	}
	if err := r.runKind(object.KindBegin); err != nil {
		return err
	}
	if err := r.drain(records); err != nil {
		return r.finish(records, nil, err)
	}
	links, attached, err := r.attach(ctx)
	if err != nil {
		return err
	}
	if r.Ready != nil {
		r.Ready(attached)
	}
	if !r.man.ExitAfterBegin {
		err = r.loop(ctx, records)
	}
	return r.finish(records, links, err)
}

// finish detaches, runs the end programs and shows what is left.
func (r *run) finish(records machine.Records, links []machine.Link, err error) error {
	exited := errors.Is(err, errExit)
	if err != nil && !exited {
		return err
	}
	var errs []error
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	if err := r.runKind(object.KindEnd); err != nil {
		errs = append(errs, err)
	}
	if err := r.drain(records); err != nil && !errors.Is(err, errExit) {
		errs = append(errs, err)
	}
	if r.man.Settings["print_maps_on_exit"] != "false" {
		for i := range r.man.Maps {
			if r.man.Maps[i].Hidden {
				continue
			}
			if err := r.showMap(&r.man.Maps[i], nil); err != nil {
				errs = append(errs, err)
			}
		}
	}
	errs = append(errs, r.losses())
	return errors.Join(errs...)
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
	if len(p.Probes) > 0 && p.Probes[0] < len(r.man.Probes) {
		return r.man.Probes[p.Probes[0]].Name
	}
	return p.Name
}

func (r *run) attach(ctx context.Context) ([]machine.Link, int, error) {
	var requests []machine.Attach
	probes := 0
	for _, p := range r.man.Programs {
		probes += len(p.Probes)
		if p.Kind != object.KindAttach {
			continue
		}
		req := machine.Attach{Program: p.Name, PID: r.PID}
		if p.Hook != "" {
			pt, err := hook.Parse(p.Hook)
			if err != nil {
				return nil, 0, err
			}
			req.Points = []hook.Point{pt}
		} else {
			for _, i := range p.Probes {
				name := r.man.Probes[i].Hook
				if name == "" {
					name = r.man.Probes[i].Name
				}
				pt, err := hook.Parse(name)
				if err != nil {
					return nil, 0, err
				}
				req.Points = append(req.Points, pt)
				req.Cookies = append(req.Cookies, uint64(i))
			}
		}
		requests = append(requests, req)
	}
	links, errs := r.loaded.Attach(ctx, requests)
	var good []machine.Link
	for _, l := range links {
		if l != nil {
			good = append(good, l)
		}
	}
	if err := errors.Join(errs...); err != nil {
		for _, l := range good {
			l.Close()
		}
		return nil, 0, err
	}
	return good, probes, nil
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
		pt, err := hook.Parse(r.man.Probes[p.Probes[0]].Name)
		if err != nil {
			return nil, err
		}
		period := pt.Unit.Period(pt.Rate)
		if period <= 0 {
			return nil, fmt.Errorf("%s never happens", pt)
		}
		list = append(list, timer{p.Name, period, now.Add(period)})
	}
	return list, nil
}

// loop delivers records and runs timers until the run ends.
func (r *run) loop(ctx context.Context, records machine.Records) error {
	timers, err := r.timers()
	if err != nil {
		return err
	}
	if records == nil {
		return r.wait(ctx, timers)
	}
	stop := context.AfterFunc(ctx, func() { records.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		var deadline time.Time
		for i := range timers {
			t := &timers[i]
			if !t.next.After(now) {
				if _, err := r.loaded.Run(t.program); err != nil {
					return err
				}
				for !t.next.After(now) {
					t.next = t.next.Add(t.period)
				}
			}
			if deadline.IsZero() || t.next.Before(deadline) {
				deadline = t.next
			}
		}
		if ctx.Err() == nil {
			records.SetDeadline(deadline)
		}
		data, err := records.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		if err := r.record(data); err != nil {
			return err
		}
	}
}

// wait is loop for objects without events.
func (r *run) wait(ctx context.Context, timers []timer) error {
	for {
		now := time.Now()
		var next <-chan time.Time
		var soonest time.Time
		for i := range timers {
			t := &timers[i]
			if !t.next.After(now) {
				if _, err := r.loaded.Run(t.program); err != nil {
					return err
				}
				for !t.next.After(now) {
					t.next = t.next.Add(t.period)
				}
			}
			if soonest.IsZero() || t.next.Before(soonest) {
				soonest = t.next
			}
		}
		if !soonest.IsZero() {
			next = time.After(time.Until(soonest))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-next:
		}
	}
}

// drain delivers the records that are there now.
func (r *run) drain(records machine.Records) error {
	if records == nil {
		return nil
	}
	for records.Pending() > 0 {
		records.SetDeadline(time.Now().Add(100 * time.Millisecond))
		data, err := records.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.record(data); err != nil {
			return err
		}
	}
	return nil
}

// record delivers one record of the ring buffer.
func (r *run) record(data []byte) error {
	if len(data) < 8 {
		return fmt.Errorf("a record of %d bytes is too short", len(data))
	}
	id := int(r.order.Uint32(data))
	if id >= len(r.man.Events) {
		return fmt.Errorf("a record names event %d, the manifest has %d", id, len(r.man.Events))
	}
	spec := &r.man.Events[id]
	e := Event{Kind: spec.Kind, Spec: spec, Values: r.decodeFields(spec.Args, data)}
	switch spec.Kind {
	case object.EventExit:
		r.result.Exited = true
		if len(e.Values) > 0 {
			r.result.Code = int(e.Values[0].Int)
		}
		return errExit
	case object.EventPrintMap:
		m := r.mapNamed(spec.Map)
		if m == nil {
			return fmt.Errorf("an event names the map %q, which is not there", spec.Map)
		}
		return r.showMap(m, e.Values)
	case object.EventClear, object.EventZero:
		m := r.mapNamed(spec.Map)
		if m == nil {
			return fmt.Errorf("an event names the map %q, which is not there", spec.Map)
		}
		return r.wipe(m, spec.Kind == object.EventZero)
	}
	return r.Events(e)
}

func (r *run) mapNamed(name string) *object.MapShow {
	i := slices.IndexFunc(r.man.Maps, func(m object.MapShow) bool { return m.Name == name })
	if i < 0 {
		return nil
	}
	return &r.man.Maps[i]
}

// losses reports what went wrong.
func (r *run) losses() error {
	if r.man.Counters == "" {
		return nil
	}
	v, err := r.loaded.Var(r.man.Counters)
	if err != nil {
		return err
	}
	data, err := v.Get()
	if err != nil {
		return err
	}
	for i, l := range r.man.Losses {
		if 8*i+8 > len(data) {
			break
		}
		if n := r.order.Uint64(data[8*i:]); n > 0 {
			if err := r.Events(Event{Kind: EventLost, Loss: l, Count: n}); err != nil {
				return err
			}
		}
	}
	return nil
}

// Describe says in words what a loss is.
func Describe(l object.Loss, n uint64) string {
	times := func(one, many string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	var s string
	switch l.Kind {
	case object.LossEvent:
		s = times("event was", "events were") + " lost because the ring buffer was full (raise perf_rb_pages)"
	case object.LossMapFull, object.LossMapUpdate:
		s = times("update", "updates") + " of " + l.Name + " failed because the map was full (raise max_map_keys)"
	case object.LossString:
		s = times("string was", "strings were") + " cut (raise max_strlen)"
	case object.LossFault:
		s = times("read", "reads") + " of memory failed in " + l.Name + ": the page was not there"
	case object.LossStack:
		s = times("stack was", "stacks were") + " lost"
	case object.LossScratch:
		s = times("run", "runs") + " left out because programs nested too deep"
	case object.LossLoop:
		s = times("loop was", "loops were") + " ended by the limit"
	default:
		s = fmt.Sprintf("%s: %d", l.Kind, n)
	}
	if l.Line > 0 {
		s += fmt.Sprintf(" (line %d)", l.Line)
	}
	return strings.TrimSpace(s)
}
