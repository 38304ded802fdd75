package runner

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// act does what a record asks for beyond being shown.
func (r *run) act(e *Event) error {
	spec := e.Spec
	switch spec.Kind {
	case object.EventExit:
		r.exit(e.Values)
		return errExit
	case object.EventAssert:
		if r.testing {
			r.failed = true
			return r.Events(*e)
		}
		r.result.Exited, r.result.Code = true, 1
		if err := r.Events(*e); err != nil {
			return err
		}
		return errExit
	case object.EventPrintMap:
		m, err := r.mapNamed(spec.Map)
		if err != nil {
			return err
		}
		return r.showMap(e, m, e.Values)
	case object.EventPrintElem:
		return r.showElement(e)
	case object.EventClear, object.EventZero:
		m, err := r.mapNamed(spec.Map)
		if err != nil {
			return err
		}
		return r.wipe(m, spec.Kind == object.EventZero)
	case object.EventTime:
		e.Text = Strftime(spec.Format, now())
	case object.EventJoin:
		e.Text = join(e.Values, spec.Format)
	case object.EventCat:
		name := string(e.AppendText(nil, nil))
		text, err := r.cat(name)
		if err != nil {
			return r.warn(e, "%s cannot be shown: %s", name, reason(err))
		}
		e.Text = text
	case object.EventSystem:
		// Commands of end probes run when the run was interrupted already.
		interrupted := r.interrupted
		if isClosed(interrupted) {
			interrupted = nil
		}
		out, err := system(string(e.AppendText(nil, nil)), interrupted)
		if err != nil {
			return r.warn(e, "the command could not be run: %s", reason(err))
		}
		e.Text = out
	case object.EventSkbOutput:
		return nil // packets come through a buffer of their own
	case object.EventUnwatch:
		if len(e.Values) > 0 {
			return r.unwatch(e, e.Values[0].Uint())
		}
		return nil
	case object.EventWatch:
		return r.watch(e)
	}
	return r.Events(*e)
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// exit takes in the first exit; later ones change nothing.
func (r *run) exit(values []Value) {
	if r.result.Exited {
		return
	}
	r.result.Exited = true
	if len(values) > 0 {
		r.result.Code = int(values[0].Int) & 0xff
	}
}

// warn says that something could not be done, at the place of an event.
func (r *run) warn(e *Event, format string, args ...any) error {
	w := Event{Kind: EventWarning, Text: fmt.Sprintf(format, args...)}
	if e != nil {
		w.Spec = e.Spec
	}
	return r.Events(w)
}

// reason is the cause of an error without the path, which is named elsewhere.
func reason(err error) string {
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "it does not exist"
	case errors.Is(err, os.ErrPermission):
		return "permission denied"
	}
	if u := errors.Unwrap(err); u != nil {
		return u.Error()
	}
	return err.Error()
}

// showElement delivers one element of a map, whose key and value are the
// event's arguments. Aggregations are looked up now.
func (r *run) showElement(e *Event) error {
	m, err := r.mapNamed(e.Spec.Map)
	if err != nil {
		return err
	}
	s := &Snapshot{Show: m, Div: 1}
	e.Map = s
	if len(e.Values) == 0 {
		return fmt.Errorf("an event shows an element of %q and has no key", e.Spec.Map)
	}
	key := e.Values[:1]
	if k := &e.Values[0]; len(m.Keys) > 1 && len(k.Elems) == len(m.Keys) {
		key = k.Elems
	}
	if len(e.Values) > 1 {
		s.Entries = []Entry{{Key: key, Value: e.Values[1]}}
		return r.Events(*e)
	}
	all, err := r.snapshot(m)
	if err != nil {
		return err
	}
	for _, entry := range all.Entries {
		if compareKeys(entry.Key, key) == 0 {
			s.Entries = append(s.Entries, entry)
		}
	}
	return r.Events(*e)
}

// maxCat is how many bytes of a file are shown unless max_cat_bytes says
// otherwise.
const maxCat = 10240

func (r *run) cat(name string) (string, error) {
	limit := int64(maxCat)
	if n, err := strconv.ParseInt(r.man.Settings["max_cat_bytes"], 10, 64); err == nil && n >= 0 {
		limit = n
	}
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		return "", errors.New("it is a pipe")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return string(data), err
}

// unwatch detaches watchpoints of an address.
func (r *run) unwatch(e *Event, addr uint64) error {
	var errs []error
	kept := r.links[:0]
	for _, l := range r.links {
		hit := len(l.points) > 0
		for _, p := range l.points {
			hit = hit && (p.Kind == hook.Watchpoint || p.Kind == hook.AsyncWatchpoint) && p.Address == addr
		}
		if hit {
			errs = append(errs, l.Close())
		} else {
			kept = append(kept, l)
		}
	}
	r.links = kept
	if err := errors.Join(errs...); err != nil {
		return r.warn(e, "the watchpoint at %#x could not be removed: %v", addr, err)
	}
	return nil
}

// watch attaches the watchpoint of a probe at an address that is only known
// now; the arguments are the probe and the address.
func (r *run) watch(e *Event) error {
	if len(e.Values) < 2 {
		return errors.New("an event asks for a watchpoint and does not say where")
	}
	index := int(e.Values[0].Int)
	pt, err := r.point(index)
	if err != nil {
		return err
	}
	pt.Address, pt.HasAddress, pt.Func = e.Values[1].Uint(), true, ""
	for _, p := range r.man.Programs {
		for _, i := range p.Probes {
			if i != index {
				continue
			}
			req := machine.Attach{Program: p.Name, Points: []hook.Point{pt}, Cookies: []uint64{uint64(i)}, PID: r.PID}
			links, errs := r.loaded.Attach(context.Background(), []machine.Attach{req})
			if err := errors.Join(errs...); err != nil {
				return r.warn(e, "no watchpoint at %#x: %v", pt.Address, err)
			}
			for _, l := range links {
				r.links = append(r.links, held{l, req.Points})
			}
			return nil
		}
	}
	return nil
}

// captures are the packet files that are written.
type captures struct {
	open map[string]*os.File
}

// write appends a packet, seen at a time, to a file.
func (c *captures) write(name string, at time.Time, packet []byte) error {
	f, ok := c.open[name]
	if !ok {
		var err error
		if f, err = os.Create(name); err != nil {
			return err
		}
		if c.open == nil {
			c.open = map[string]*os.File{}
		}
		c.open[name] = f
		// The header of draft-ietf-opsawg-pcap with nanoseconds, and packets
		// that begin with their IP header (LINKTYPE_RAW).
		head := make([]byte, 24)
		binary.LittleEndian.PutUint32(head, 0xa1b23c4d)
		binary.LittleEndian.PutUint16(head[4:], 2)
		binary.LittleEndian.PutUint16(head[6:], 4)
		binary.LittleEndian.PutUint32(head[16:], 1<<18)
		binary.LittleEndian.PutUint32(head[20:], 101)
		if _, err := f.Write(head); err != nil {
			return err
		}
	}
	if f == nil {
		return os.ErrClosed
	}
	var b bytes.Buffer
	for _, v := range []uint32{uint32(at.Unix()), uint32(at.Nanosecond()), uint32(len(packet)), uint32(len(packet))} {
		b.Write(binary.LittleEndian.AppendUint32(nil, v))
	}
	b.Write(packet)
	_, err := f.Write(b.Bytes())
	return err
}

func (c *captures) close() error {
	var errs []error
	for _, f := range c.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
