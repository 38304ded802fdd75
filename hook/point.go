package hook

import (
	"time"
)

// A Kind is a kind of attach point.
type Kind uint8

// Kinds. Those up to Iter have a spelling in the tracing language; those
// after it are known from section names of objects alone.
const (
	Invalid Kind = iota
	Begin
	End
	Self  // self:signal:NAME
	Test  // test:name
	Bench // bench:name
	Kprobe
	Kretprobe
	Fentry
	Fexit
	Tracepoint
	RawTracepoint
	Uprobe
	Uretprobe
	USDT
	Profile
	Interval
	Software
	Hardware
	Watchpoint
	AsyncWatchpoint
	Iter

	FmodRet       // fmod_ret: a function's return value may be replaced
	KprobeSession // one program for entry and return
	UprobeSession
	Ksyscall // kprobe on a system call by its name
	Kretsyscall
	Freplace // replaces a function of another program
	LSM
	LSMCgroup
	StructOps
	PerfEvent
	Syscall // run by hand with BPF_PROG_RUN
	XDP
	TC // classifier of traffic control, attached as tcx or by netlink
	TCAction
	Netkit
	SocketFilter
	SocketReuseport
	SKLookup
	SKMsg
	SKSkb
	SockOps
	FlowDissector
	Netfilter
	LWT
	Cgroup // cgroup/* and cgroup_skb/*: Attach tells which
	LircMode2
)

// A Unit is the unit of a Profile's or Interval's Rate.
type Unit uint8

// Units.
const (
	NoUnit Unit = iota
	Hz          // Rate times a second
	Seconds
	Milliseconds
	Microseconds
	Nanoseconds
)

// Period is the time between two events at a rate in a unit, 0 for none.
func (u Unit) Period(rate uint64) time.Duration { return period(u, rate) }

// Names of the fields of a Point, as errors and FieldRange use them.
const (
	FieldProvider  = "provider"  // the kind itself
	FieldModule    = "module"    // Point.Module
	FieldFunc      = "function"  // Point.Func
	FieldOffset    = "offset"    // Point.Offset
	FieldAddress   = "address"   // Point.Address
	FieldSubsystem = "subsystem" // Point.Subsystem
	FieldEvent     = "event"     // Point.Event
	FieldPath      = "path"      // Point.Path
	FieldNamespace = "namespace" // Point.Namespace
	FieldUnit      = "unit"      // Point.Unit
	FieldRate      = "rate"      // Point.Rate
	FieldCount     = "count"     // Point.Count
	FieldLength    = "length"    // Point.Length
	FieldMode      = "mode"      // Point.Mode
	FieldProgram   = "program"   // Point.Func of Fentry and Fexit on bpf programs
	FieldProgramID = "program id"
	FieldSignal    = "signal" // Point.Event of Self
	FieldPin       = "pin"    // Point.Pin
)

// A Point is one attach point, possibly with wildcards. It is plain data and
// may be copied. Which fields count depends on Kind:
//
//	Begin, End                     none
//	Self                           Event: the signal, "SIGUSR1"
//	Test, Bench                    Event: the name, may be ""
//	Kprobe, Kretprobe              Module, Func, Offset; or Address
//	Fentry, Fexit, FmodRet         Module, Func; of bpf programs BPF, ProgramID, Func
//	Tracepoint                     Subsystem, Event
//	RawTracepoint                  Module (optional), Event; Typed in sections
//	Uprobe, Uretprobe              Path, Func, Offset, Demangled; or Path, Address
//	USDT                           Path, Namespace (optional), Event; Address to mean one place of several
//	Profile, Interval              Unit, Rate
//	Software, Hardware             Event, Count (0: the event's default)
//	Watchpoint, AsyncWatchpoint    Address or Func+Arg, Length, Mode
//	Iter                           Event, Pin
//	kinds of sections alone        Func, Event or Path as named there; Attach
type Point struct {
	Kind Kind `json:"kind"`
	// Text is the attach point as it was written, or "".
	Text string `json:"text,omitempty"`

	Module string `json:"module,omitempty"`
	Func   string `json:"func,omitempty"`
	Offset uint64 `json:"offset,omitempty"`
	// Address counts when HasAddress is set: 0 is an address too.
	Address    uint64 `json:"address,omitempty"`
	HasAddress bool   `json:"has_address,omitempty"`

	Subsystem string `json:"subsystem,omitempty"`
	Event     string `json:"event,omitempty"`

	Path      string `json:"path,omitempty"`
	Namespace string `json:"namespace,omitempty"` // of a USDT probe, also called its provider
	// Demangled says that Func is a C++ or Rust name as people write it
	// (cpp:"..."), to be compared with demangled symbols.
	Demangled bool `json:"demangled,omitempty"`

	Unit  Unit   `json:"unit,omitempty"`
	Rate  uint64 `json:"rate,omitempty"`
	Count uint64 `json:"count,omitempty"`

	Length int    `json:"length,omitempty"` // of a watchpoint: 1, 2, 4 or 8 bytes
	Mode   string `json:"mode,omitempty"`   // of a watchpoint: sorted letters out of r, w, x
	Arg    int    `json:"arg,omitempty"`    // of a watchpoint on func+argN

	BPF       bool   `json:"bpf,omitempty"`        // Func is a bpf program's
	ProgramID uint32 `json:"program_id,omitempty"` // 0: any program of that name

	Pin string `json:"pin,omitempty"` // of an iterator

	// Sections only.
	Typed     bool   `json:"typed,omitempty"`     // RawTracepoint: tp_btf
	Writable  bool   `json:"writable,omitempty"`  // RawTracepoint: raw_tp.w
	Sleepable bool   `json:"sleepable,omitempty"` // ".s"
	Multi     bool   `json:"multi,omitempty"`     // kprobe.multi, uprobe.multi
	Frags     bool   `json:"frags,omitempty"`     // xdp.frags
	Attach    string `json:"attach,omitempty"`    // which hook of a family: "connect4", "ingress", "cpumap"
	Manual    bool   `json:"manual,omitempty"`    // "?": not loaded unless asked for
}

// Parse reads an attach point of the tracing language: "tracepoint:sched:*",
// "k:vfs_read+4", "BEGIN". Surrounding space is dropped. Names with special
// characters may be quoted: uprobe:"/opt/a:b":"operator new(unsigned long)".
// Whether the things named exist is for [Expand] to say.
//
// Errors are of type *[Error].
func Parse(text string) (Point, error) { return parse(text) }

// ParseSection reads the section name of a program in an object, as libbpf
// knows them: "tp/sched/sched_switch", "?kprobe.multi/vfs_*", "xdp".
//
// Errors are of type *[Error].
func ParseSection(name string) (Point, error) { return parseSection(name) }

// String is the attach point in the tracing language, in its full form:
// Parse(p.String()) is p but for Text. Kinds that the language does not have
// are spelt as sections.
func (p Point) String() string { return p.format() }

// Section is the attach point as a section name. ok is false for kinds that
// are no program of the kernel's (Begin, End, Self, Test, Bench), or where
// libbpf has no spelling that says all: those get a section that libbpf loads
// without attaching (perf_event, uprobe, usdt), and the manifest says the rest.
func (p Point) Section() (name string, ok bool) { return p.section() }

// HasWildcard reports whether the point may stand for several.
func (p Point) HasWildcard() bool { return p.hasWildcard() }

// FieldRange says which bytes of p.Text spell a field: [start, end).
// ok is false when the text does not have it.
func (p Point) FieldRange(field string) (start, end int, ok bool) { return fieldRange(p.Text, field) }

// An Error says what is wrong with an attach point.
type Error struct {
	// Field is one of the Field constants: the field that is wrong.
	Field string
	// Start and End are the bytes of the text that spell it; both 0 when
	// the point has no text.
	Start, End int
	// Code is stable and in kebab-case, for diagnostics.
	Code    string
	Message string
	// Nearest is a name that was perhaps meant, or "".
	Nearest string
	// Hint says what to do, or "".
	Hint string
	// Err is the cause, if another error is; it may wrap target.ErrNotFound
	// or target.ErrUnknown.
	Err error
}

func (e *Error) Error() string {
	s := e.Message
	if e.Nearest != "" {
		s += "; did you mean \"" + e.Nearest + "\"?"
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
