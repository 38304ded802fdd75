package hook

import "slices"

// A CPUEvent is an event that perf_event_open(2) counts, as Software and
// Hardware name it.
type CPUEvent struct {
	Name    string
	Aliases []string
	Config  uint64 // perf_event_attr.config (include/uapi/linux/perf_event.h)
	// Count is after how many events a program runs when the point does not say.
	Count uint64
}

var softwareEvents = []CPUEvent{
	{"alignment-faults", nil, 7, 1},
	{"bpf-output", nil, 10, 1},
	{"context-switches", []string{"cs"}, 3, 1000},
	{"cpu-clock", []string{"cpu"}, 0, 1_000_000},
	{"cpu-migrations", nil, 4, 1},
	{"dummy", nil, 9, 1},
	{"emulation-faults", nil, 8, 1},
	{"major-faults", nil, 6, 1},
	{"minor-faults", nil, 5, 100},
	{"page-faults", []string{"faults"}, 2, 100},
	{"task-clock", nil, 1, 1},
}

var hardwareEvents = []CPUEvent{
	{"backend-stalls", nil, 8, 1_000_000},
	{"branch-instructions", []string{"branches"}, 4, 100_000},
	{"branch-misses", nil, 5, 100_000},
	{"bus-cycles", nil, 6, 100_000},
	{"cache-misses", nil, 3, 1_000_000},
	{"cache-references", nil, 2, 1_000_000},
	{"cpu-cycles", []string{"cycles"}, 0, 1_000_000},
	{"frontend-stalls", nil, 7, 1_000_000},
	{"instructions", nil, 1, 1_000_000},
	{"ref-cycles", nil, 9, 1_000_000},
}

// CPUEvents lists the events of Software or Hardware, sorted by name; nil for
// other kinds.
func CPUEvents(k Kind) []CPUEvent {
	switch k {
	case Software:
		return softwareEvents
	case Hardware:
		return hardwareEvents
	}
	return nil
}

// CPUEvent returns the event that a Software or Hardware point names.
func (p Point) CPUEvent() (CPUEvent, bool) {
	for _, e := range CPUEvents(p.Kind) {
		if e.Name == p.Event || slices.Contains(e.Aliases, p.Event) {
			return e, true
		}
	}
	return CPUEvent{}, false
}
