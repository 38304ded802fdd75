package abi

// PerfEvent is a perf event that has a fixed name.
type PerfEvent struct {
	Name   string
	Alias  string // a second name, or empty
	Type   uint32 // perf_event_attr.type
	Config uint64 // perf_event_attr.config
	// Period is how many events pass between two samples where none is said.
	Period uint64
}

// Types of perf events (enum perf_type_id).
const (
	PerfTypeHardware   = 0
	PerfTypeSoftware   = 1
	PerfTypeTracepoint = 2
	PerfTypeBreakpoint = 5
)

// Periods of one sample each million events, and of each event.
const (
	hardwarePeriod = 1_000_000
	softwarePeriod = 1
)

// softwareEvents are enum perf_sw_ids, with the names of bpftrace and perf.
var softwareEvents = [...]PerfEvent{
	{"alignment-faults", "", PerfTypeSoftware, 7, softwarePeriod},
	{"bpf-output", "", PerfTypeSoftware, 10, softwarePeriod},
	{"context-switches", "cs", PerfTypeSoftware, 3, 1000},
	{"cpu-clock", "cpu", PerfTypeSoftware, 0, 1_000_000},
	{"cpu-migrations", "", PerfTypeSoftware, 4, softwarePeriod},
	{"dummy", "", PerfTypeSoftware, 9, softwarePeriod},
	{"emulation-faults", "", PerfTypeSoftware, 8, softwarePeriod},
	{"major-faults", "", PerfTypeSoftware, 6, softwarePeriod},
	{"minor-faults", "", PerfTypeSoftware, 5, 100},
	{"page-faults", "faults", PerfTypeSoftware, 2, 100},
	{"task-clock", "", PerfTypeSoftware, 1, softwarePeriod},
}

// hardwareEvents are enum perf_hw_id.
var hardwareEvents = [...]PerfEvent{
	{"backend-stalls", "stalled-cycles-backend", PerfTypeHardware, 8, hardwarePeriod},
	{"branch-instructions", "branches", PerfTypeHardware, 4, 100_000},
	{"branch-misses", "", PerfTypeHardware, 5, 100_000},
	{"bus-cycles", "", PerfTypeHardware, 6, 100_000},
	{"cache-misses", "", PerfTypeHardware, 3, hardwarePeriod},
	{"cache-references", "", PerfTypeHardware, 2, hardwarePeriod},
	{"cpu-cycles", "cycles", PerfTypeHardware, 0, hardwarePeriod},
	{"frontend-stalls", "stalled-cycles-frontend", PerfTypeHardware, 7, hardwarePeriod},
	{"instructions", "", PerfTypeHardware, 1, hardwarePeriod},
	{"ref-cycles", "", PerfTypeHardware, 9, hardwarePeriod},
}

// SoftwareEvents returns the software events by name.
func SoftwareEvents() []PerfEvent { return softwareEvents[:] }

// HardwareEvents returns the hardware events by name.
func HardwareEvents() []PerfEvent { return hardwareEvents[:] }

func findPerf(table []PerfEvent, name string) (PerfEvent, bool) {
	for _, e := range table {
		if e.Name == name || e.Alias == name && name != "" {
			return e, true
		}
	}
	return PerfEvent{}, false
}

// SoftwareEvent returns the software event with a name or an alias.
func SoftwareEvent(name string) (PerfEvent, bool) { return findPerf(softwareEvents[:], name) }

// HardwareEvent returns the hardware event with a name or an alias.
func HardwareEvent(name string) (PerfEvent, bool) { return findPerf(hardwareEvents[:], name) }
