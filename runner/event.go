package runner

import (
	"strings"
	"time"

	"github.com/skep-bpf/skep/object"
)

// An Event is one thing to show. It is good until the function that got it
// returns; Clone makes one that stays.
type Event struct {
	Kind object.EventKind
	// Spec describes the record that the event came from; nil for events that
	// no record asked for.
	Spec *object.Event
	// Values are the decoded arguments.
	Values []Value
	// Map is the snapshot to show for EventPrintMap; for EventPrintElem it has
	// the one element.
	Map *Snapshot
	// Text is what EventTime, EventCat, EventJoin and EventSystem print, and
	// the message of EventWarning. That of cat and system comes from files and
	// commands, that of join from the traced system.
	Text string
	// Loss and Count are those of EventLost; Count is also the number of
	// probes of EventAttached, and a result of EventTest and EventBench.
	Loss  object.Loss
	Count uint64

	format *Format
}

// The kinds of events that no record asks for.
const (
	// EventLost says that something went wrong Count times more.
	EventLost object.EventKind = "lost"
	// EventAttached says that Count probes are attached.
	EventAttached object.EventKind = "attached"
	// EventWarning says that something could not be done; Text tells what.
	EventWarning object.EventKind = "warning"
	// EventTest says how the test called Text ended: Count is 1 if it failed.
	EventTest object.EventKind = "test"
	// EventBench says how long the benchmark called Text takes: Count is
	// nanoseconds a run.
	EventBench object.EventKind = "bench"
	// EventFinal comes before the maps that are shown at the end.
	EventFinal object.EventKind = "final"
	// EventRecord is a record of a buffer that no manifest describes: Values
	// has the record, Text the buffer's name.
	EventRecord object.EventKind = "record"
)

// AppendText appends the format of the event, with its values filled in.
func (e *Event) AppendText(dst []byte, esc Escape) []byte {
	if e.format == nil {
		if e.Spec == nil {
			return esc.appendString(dst, e.Text)
		}
		e.format = ParseFormat(e.Spec.Format)
	}
	return e.format.Append(dst, e.Values, esc)
}

// Message is the text of an event that has one: what printf and its kin
// print, what was asked to be shown of time, cat, join and system.
func (e *Event) Message() string {
	switch e.Kind {
	case object.EventPrintf, object.EventErrorf, object.EventWarnf, object.EventAssert:
		return string(e.AppendText(nil, nil))
	case EventLost:
		return Describe(e.Loss, e.Count)
	}
	return e.Text
}

// Clone returns a copy that stays good.
func (e Event) Clone() Event {
	values := e.Values
	e.Values = nil
	for _, v := range values {
		e.Values = append(e.Values, v.Clone())
	}
	if e.Map != nil {
		s := *e.Map
		s.Entries = nil
		for _, entry := range e.Map.Entries {
			key := entry.Key
			entry.Key = nil
			for _, v := range key {
				entry.Key = append(entry.Key, v.Clone())
			}
			entry.Value = entry.Value.Clone()
			s.Entries = append(s.Entries, entry)
		}
		e.Map = &s
	}
	return e
}

// join puts the strings of a join together, up to the first empty one.
func join(values []Value, sep string) string {
	var parts []string
	for i := range values {
		s := values[i].String()
		if s == "" {
			break
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, sep)
}

// now is a variable for tests.
var now = time.Now
