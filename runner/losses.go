package runner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/object"
)

// How often losses are looked at while the run lasts: the longer there is
// neither a record nor a loss the more seldom, so that a quiet run costs
// nothing. To ask for missed runs takes system calls for each program and each
// link.
const (
	lossInterval      = time.Second
	maxLossInterval   = 8 * time.Second
	missedInterval    = 10 * time.Second
	maxMissedInterval = 80 * time.Second
)

// LossMissed counts runs of programs that the machine itself left out.
const LossMissed object.LossKind = "missed"

// losses delivers what went wrong since it was last asked. While the run lasts
// that is not too often, and lost events only unless Config.LiveLosses is set.
func (r *run) losses(final bool, missed []Lost) error {
	if !final {
		t := time.Now()
		if t.Sub(r.checked) < lossInterval {
			return nil
		}
		r.checked = t
		if r.LiveLosses && t.Sub(r.asked) >= r.missedPause {
			r.asked = t
			missed = r.missed()
			r.missedPause = min(max(2*r.missedPause, missedInterval), maxMissedInterval)
		}
	}
	found, err := r.counted()
	if err != nil {
		return err
	}
	found = append(found, missed...)
	if final {
		if n := r.cut + r.dec.cut; n > 0 && !slices.ContainsFunc(found, func(l Lost) bool { return l.Loss.Kind == object.LossString }) {
			found = append(found, Lost{object.Loss{Kind: object.LossString}, n})
		}
		r.result.Losses = found
	}
	for _, l := range found {
		if !final && !r.LiveLosses && l.Loss.Kind != object.LossEvent {
			continue
		}
		n := l.Count - min(l.Count, r.seen[l.Loss])
		r.seen[l.Loss] = l.Count
		if n == 0 {
			continue
		}
		r.lossPause = lossInterval
		if l.Loss.Kind == LossMissed {
			r.missedPause = missedInterval
		}
		if err := r.Events(Event{Kind: EventLost, Loss: l.Loss, Count: n}); err != nil {
			return err
		}
	}
	return nil
}

// counted is what programs and the buffer have counted so far.
func (r *run) counted() ([]Lost, error) {
	var list []Lost
	add := func(l object.Loss, n uint64) {
		if n > 0 {
			list = append(list, Lost{l, n})
		}
	}
	if r.man.Counters != "" {
		v, err := r.loaded.Var(r.man.Counters)
		if err != nil {
			return nil, err
		}
		data, err := v.Get()
		if err != nil {
			return nil, err
		}
		for i, l := range r.man.Losses {
			if 8*i+8 <= len(data) {
				add(l, r.order.Uint64(data[8*i:]))
			}
		}
	}
	if r.records != nil {
		add(object.Loss{Kind: object.LossEvent}, r.records.Lost())
	}
	return list, nil
}

// look delivers losses where they are wanted while the run lasts, and returns
// when to look up again: at the time given, or earlier.
func (r *run) look(next time.Time) (time.Time, error) {
	if !r.LiveLosses {
		return next, nil
	}
	if time.Since(r.checked) >= r.lossPause {
		r.lossPause = min(max(2*r.lossPause, lossInterval), maxLossInterval)
		if err := r.losses(false, nil); err != nil {
			return next, err
		}
	}
	if again := r.checked.Add(r.lossPause); next.IsZero() || again.Before(next) {
		return again, nil
	}
	return next, nil
}

// missed asks how many runs the machine left out; it has to be asked while
// programs are attached.
func (r *run) missed() []Lost {
	var list []Lost
	for _, p := range r.man.Programs {
		if p.Kind != object.KindAttach {
			continue
		}
		// A machine that cannot tell has nothing to say.
		if n, err := r.loaded.Missed(p.Name); err == nil && n > 0 {
			list = append(list, Lost{object.Loss{Kind: LossMissed, Name: r.probeName(p), Line: p.Line}, n})
		}
	}
	return list
}

// Describe says in words what a loss is.
func Describe(l object.Loss, n uint64) string {
	times := func(one, many string) string {
		if n == 1 {
			return "1 " + one
		}
		return fmt.Sprintf("%d %s", n, many)
	}
	in := ""
	if l.Name != "" {
		in = " in " + l.Name
	}
	var s string
	switch l.Kind {
	case object.LossEvent:
		s = times("event was", "events were") + " lost because the ring buffer was full (raise perf_rb_pages)"
	case object.LossMapFull:
		s = times("update", "updates") + " of " + l.Name + " failed because the map was full (raise max_map_keys)"
	case object.LossMapUpdate:
		s = times("update", "updates") + " of " + l.Name + " failed"
	case object.LossString:
		s = times("string was", "strings were") + " cut" + in + " (raise max_strlen)"
	case object.LossFault:
		s = times("read", "reads") + " of memory failed" + in + ": the page was not there"
	case object.LossStack:
		s = times("stack was", "stacks were") + " lost"
	case object.LossScratch:
		s = times("run", "runs") + " left out because programs nested too deep"
	case object.LossLoop:
		s = times("loop was", "loops were") + " ended by the limit"
	case LossMissed:
		s = times("run", "runs") + " left out by the kernel" + in + " because the program ran already"
	default:
		s = fmt.Sprintf("%s%s: %d", l.Kind, in, n)
	}
	if l.Line > 0 {
		s += fmt.Sprintf(" (line %d)", l.Line)
	}
	return strings.TrimSpace(s)
}

// HelperMessage says what went wrong when a helper of the kernel returned code.
func HelperMessage(helper string, code int64) string {
	const noEntry, tooBig = -2, -7
	switch {
	case strings.HasSuffix(helper, "map_update_elem") && code == tooBig:
		return "the map is full, so the element was not updated; raise max_map_keys, or declare the map with more room: let @a = hash(5000)"
	case strings.HasSuffix(helper, "map_delete_elem") && code == noEntry:
		return "the element cannot be deleted because the map does not have it"
	case strings.HasSuffix(helper, "map_lookup_elem"):
		return "the map does not have the element"
	}
	return abi.Strerror(int(-code))
}
