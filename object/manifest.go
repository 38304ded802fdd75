package object

import (
	"iter"
	"slices"
)

// A Manifest tells what cannot be read from programs and maps: where to
// attach, how to print every event and map, which facts of the machine the
// code relies on, and the source it came from. It is data alone: a runner or
// a user interface needs nothing else, and never sees a syntax tree.
//
// In the ELF file it is JSON in section [ManifestSection].
type Manifest struct {
	Version int      `json:"version"` // ManifestVersion
	Source  Source   `json:"source"`
	Target  Platform `json:"target"`

	Programs []Program `json:"programs,omitempty"`
	// Probes are all concrete attach points, in the order they were written
	// and expanded. A program refers to them by index; the index is the
	// attach cookie, and the value of the builtin "probe".
	Probes []Probe   `json:"probes,omitempty"`
	Maps   []MapShow `json:"maps,omitempty"`
	// Events describe the records of the ring buffer: a record starts with a
	// 32-bit little- or big-endian index into Events (the object's byte
	// order), padded to 8 bytes, and the arguments follow at their offsets.
	Events []Event `json:"events,omitempty"`
	// RingBuffer is the map that carries Events; empty when there are none.
	RingBuffer string `json:"ring_buffer,omitempty"`
	// Counters is the variable that counts what went wrong, one u64 for each
	// Loss below; empty when nothing can go wrong.
	Counters string `json:"counters,omitempty"`
	Losses   []Loss `json:"losses,omitempty"`
	// Stacks is the hash of stack identifier (u64) to frames (u64 each, zero
	// terminated) that StackTypes refer to; empty when there are none.
	Stacks string `json:"stacks,omitempty"`
	// Buffers are ring buffers and perf event arrays whose records Events does
	// not describe: those of objects that other compilers made.
	Buffers []Buffer `json:"buffers,omitempty"`
	// Prints tells that programs call bpf_printk.
	Prints bool `json:"prints,omitempty"`
	// ExitAfterBegin says that the run ends by itself after all "begin" and "end"
	// programs when there are no others.
	ExitAfterBegin bool `json:"exit_after_begin,omitempty"`
	// UsesPID says that programs filter by process: hooks that can be attached to
	// one process (uprobe, usdt, perf events) are.
	UsesPID bool `json:"uses_pid,omitempty"`

	// Strings are what values refer to by index: formats of times, filters of
	// cgroup paths.
	Strings []string `json:"strings,omitempty"`

	// Cgroups are variables of 8 bytes that hold the numbers of cgroups.
	Cgroups []Cgroup `json:"cgroups,omitempty"`

	Facts    []Fact            `json:"facts,omitempty"`
	Settings map[string]string `json:"settings,omitempty"`
}

// A Buffer is a map that carries records.
type Buffer struct {
	Map string `json:"map"`
	// Types are what its records may be, told apart by their sizes.
	Types []Type `json:"types,omitempty"`
	// Packets is set when records are heads of 32 bytes and packets after them:
	// the index of an event of the kind skboutput, the time, how much of the
	// packet is left out at its beginning, and how many bytes it has; all u64.
	Packets bool `json:"packets,omitempty"`
}

// A Cgroup is a variable that holds the number of a cgroup, which is found
// where the object runs.
type Cgroup struct {
	Var  string `json:"var"`
	Path string `json:"path"` // absolute
}

// ManifestSection is the ELF section that holds the manifest.
const ManifestSection = ".skep.manifest"

// ManifestVersion is the version of the form written by this code.
const ManifestVersion = 1

// Source is the text an object was compiled from, so that it can be compiled
// again for a machine whose facts differ.
type Source struct {
	Language string   `json:"language"` // "bt"
	Name     string   `json:"name"`
	Text     string   `json:"text,omitempty"`
	Args     []string `json:"args,omitempty"` // positional parameters
	// Named are the named parameters, for getopt.
	Named map[string]string `json:"named,omitempty"`
	// Includes are the texts of the files that were included or imported.
	Includes map[string]string `json:"includes,omitempty"`
	// IncludeDirs are where included files were looked for, and Include those
	// that were included before the script.
	IncludeDirs []string `json:"include_dirs,omitempty"`
	Include     []string `json:"include,omitempty"`
	// Options are the settings given beside the source, by name.
	Options map[string]string `json:"options,omitempty"`
}

// Platform names the machine an object was compiled for.
type Platform struct {
	Arch    string `json:"arch"`    // as GOARCH
	Release string `json:"release"` // as uname -r
}

// ProgramKind says how a program is started.
type ProgramKind string

// The kinds of programs.
const (
	KindAttach   ProgramKind = "attach"   // attached to the hooks of its probes
	KindBegin    ProgramKind = "begin"    // run once before the others are attached
	KindEnd      ProgramKind = "end"      // run once after the others are detached
	KindInterval ProgramKind = "interval" // run by a timer
	KindSignal   ProgramKind = "signal"   // run when skep gets a signal
	KindTest     ProgramKind = "test"     // run by --test
	KindBench    ProgramKind = "bench"    // run by --bench
)

// A Program ties one program of the object to its probes.
type Program struct {
	Name string      `json:"name"` // the function in the object
	Kind ProgramKind `json:"kind"`
	// Probes are indices into Manifest.Probes.
	Probes []int `json:"probes"`
	// Hook is what the program is attached to, in the spelling of package
	// hook, when that is not what its probes say: "rawtracepoint:sys_enter"
	// for a program that serves system call tracepoints. The program then
	// tells its probes apart by itself.
	Hook string `json:"hook,omitempty"`
	// Line is where the probe begins in the source, from 1.
	Line int `json:"line,omitempty"`
	// Group is 0, or the number of a group of programs whose probes are
	// alternatives of one another: one of them all suffices.
	Group int `json:"group,omitempty"`
}

// A Probe is one concrete attach point.
type Probe struct {
	// Name is the probe as the builtin "probe" prints it, e.g.
	// "tracepoint:syscalls:sys_enter_openat".
	Name string `json:"name"`
	// Hook is the attach point in the spelling of package hook when it
	// differs from Name.
	Hook string `json:"hook,omitempty"`
	// Func is what the builtin "func" prints where the name tells it.
	Func string `json:"func,omitempty"`
}

// TypeKind says how a value is read from memory and shown.
type TypeKind string

// The kinds of values. Sizes are in bytes.
const (
	TypeNone      TypeKind = "none"
	TypeInt       TypeKind = "int"       // Size 1, 2, 4 or 8, Signed
	TypeBool      TypeKind = "bool"      // Size 1
	TypeString    TypeKind = "string"    // Size bytes, ends at the first zero; all full means cut
	TypeBuffer    TypeKind = "buffer"    // u32 length, then Size-4 bytes of which length count
	TypePointer   TypeKind = "pointer"   // Size 8, shown in hex
	TypeFlags     TypeKind = "flags"     // like int, shown as the names of its bits
	TypeEnum      TypeKind = "enum"      // like int, shown by name where one fits
	TypeInet      TypeKind = "inet"      // u64 AF_INET or AF_INET6, then 16 bytes
	TypeMAC       TypeKind = "mac"       // 6 bytes
	TypeUsername  TypeKind = "username"  // u32 or u64 uid
	TypeKsym      TypeKind = "ksym"      // u64 address
	TypeUsym      TypeKind = "usym"      // u64 address, u32 pid, u32 probe index
	TypeKstack    TypeKind = "kstack"    // StackSize bytes, see there
	TypeUstack    TypeKind = "ustack"    // StackSize bytes, see there
	TypeTimestamp TypeKind = "timestamp" // strftime: u64 ns, u32 clock mode, u32 index into Strings
	TypeCgroup    TypeKind = "cgroup"    // cgroup_path: u64 id, u64 index into Strings (path filter)
	TypeProbe     TypeKind = "probe"     // u32 or u64 index into Manifest.Probes
	TypeErrno     TypeKind = "errno"     // strerror: u64
	TypeSignal    TypeKind = "signal"    // signal_name: u64
	TypeSyscall   TypeKind = "syscall"   // syscall_name: u64
	TypeArray     TypeKind = "array"     // Len of Elem
	TypeTuple     TypeKind = "tuple"     // Fields, shown (a, b)
	TypeRecord    TypeKind = "record"    // Fields, shown { .a = 1, .b = 2 }
)

// StackSize is the size of a kstack or ustack value: u64 identifier, the key
// in Manifest.Stacks, or 0 for an empty stack; u32 process (tgid) of a ustack,
// else 0; u32 number of frames to show.
const StackSize = 16

// A Type describes a value in memory.
type Type struct {
	Kind   TypeKind `json:"kind"`
	Size   int      `json:"size"`
	Signed bool     `json:"signed,omitempty"`
	// Name is that of an enum or record where it has one; for stacks the mode
	// ("bpftrace", "perf", "raw", "build_id"); for ksym, usym and timestamps
	// a format where there is one: "func" for a usym that is the function of
	// the probe it names.
	Name   string  `json:"name,omitempty"`
	Len    int     `json:"len,omitempty"`  // of an array
	Elem   *Type   `json:"elem,omitempty"` // of an array
	Fields []Field `json:"fields,omitempty"`
	// Values are the enumerators of an enum.
	Values []EnumValue `json:"values,omitempty"`
}

// A Field is a part of a record, tuple or event.
type Field struct {
	Name   string `json:"name,omitempty"`
	Offset int    `json:"offset"` // bytes
	// Bits and BitOffset place a bit-field within the bytes of Type.
	Bits      int  `json:"bits,omitempty"`
	BitOffset int  `json:"bit_offset,omitempty"`
	Type      Type `json:"type"`
}

// An EnumValue is one name of an enum.
type EnumValue struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// Agg says how the value of a map sums up.
type Agg string

// The ways a map's value is kept. Each but AggNone is kept per CPU.
const (
	AggNone    Agg = ""        // the value itself
	AggCount   Agg = "count"   // u64
	AggSum     Agg = "sum"     // u64 or s64 total; without keys, then u64 set
	AggMin     Agg = "min"     // u64 or s64 value, u64 set
	AggMax     Agg = "max"     // u64 or s64 value, u64 set
	AggAvg     Agg = "avg"     // u64 or s64 total, u64 count
	AggStats   Agg = "stats"   // as avg; shows count, average, total
	AggHist    Agg = "hist"    // u64 buckets, see HistBuckets
	AggLhist   Agg = "lhist"   // u64 buckets: below Min, (Max-Min)/Step of them, above
	AggTseries Agg = "tseries" // TseriesSlot bytes for each of Buckets, see there
)

// TseriesSlot is the size of one slot of a time series: u64 number of the
// interval since 1970 by the TAI clock plus 1 (0 is an empty slot), in the slot of that number
// modulo Buckets; u64 or s64 value; u64 count of values for "avg", else the time
// in nanoseconds when the value was set, by which the last one is told.
const TseriesSlot = 24

// A MapShow describes a map of the object to people.
type MapShow struct {
	Name string `json:"name"`          // as written, "@reads"; "@" for the nameless one
	Map  string `json:"map,omitempty"` // in the object, where it is a map
	// Var is the variable that holds it, where it is a scalar that is not per CPU.
	Var string `json:"var,omitempty"`
	// Keys are the parts of the key; none for a scalar, which is then the
	// one element of an array.
	Keys    []Field `json:"keys,omitempty"`
	KeySize int     `json:"key_size,omitempty"`
	Value   Type    `json:"value"`
	Agg     Agg     `json:"agg,omitempty"`
	PerCPU  bool    `json:"per_cpu,omitempty"`
	// Present is the offset of a byte that is 1 once a scalar that is not
	// per CPU was assigned, or -1.
	Present int `json:"present"`
	// Bits is k of hist(n, k).
	Bits int `json:"bits,omitempty"`
	// Min, Max and Step are those of lhist.
	Min  int64 `json:"min,omitempty"`
	Max  int64 `json:"max,omitempty"`
	Step int64 `json:"step,omitempty"`
	// Interval (ns), Buckets and Inner are those of tseries.
	Interval uint64 `json:"interval,omitempty"`
	Buckets  int    `json:"buckets,omitempty"`
	Inner    Agg    `json:"inner,omitempty"`
	// Hidden maps are not printed at exit.
	Hidden bool `json:"hidden,omitempty"`
	Line   int  `json:"line,omitempty"` // where it is first used
}

// EventKind says what a record of the ring buffer asks for.
type EventKind string

// The kinds of events.
const (
	EventPrintf       EventKind = "printf"
	EventErrorf       EventKind = "errorf"
	EventWarnf        EventKind = "warnf"
	EventPrint        EventKind = "print"      // print(value): one argument
	EventPrintMap     EventKind = "print_map"  // print(@m, top, div); arguments top, div where given
	EventPrintElem    EventKind = "print_elem" // print(@m[k]): argument is key then value
	EventClear        EventKind = "clear"
	EventZero         EventKind = "zero"
	EventTime         EventKind = "time"         // Format is for strftime
	EventCat          EventKind = "cat"          // Format and arguments make the path
	EventJoin         EventKind = "join"         // arguments are strings, Format is the separator
	EventSystem       EventKind = "system"       // Format and arguments make the command
	EventExit         EventKind = "exit"         // argument is the exit code, where given
	EventHelperError  EventKind = "helper_error" // arguments: helper's error (s64)
	EventRuntimeError EventKind = "runtime_error"
	EventAssert       EventKind = "assert"    // Format is the message; the run ends with status 1
	EventSkbOutput    EventKind = "skboutput" // Format is the file; its packets come through a Buffer
	EventUnwatch      EventKind = "unwatch"   // argument is the address
	EventWatch        EventKind = "watch"     // asyncwatchpoint: probe index, address
)

// An Event describes one kind of record.
type Event struct {
	Kind EventKind `json:"kind"`
	// Format is the text of printf and friends as its author wrote it, escapes
	// already resolved.
	Format string  `json:"format,omitempty"`
	Args   []Field `json:"args,omitempty"` // offsets from the start of the record
	Size   int     `json:"size"`           // bytes of the whole record
	Map    string  `json:"map,omitempty"`  // MapShow.Name, where one is meant
	// What is shown in messages: the helper or function, and the place.
	Name string `json:"name,omitempty"`
	Line int    `json:"line,omitempty"`
	Col  int    `json:"col,omitempty"`
}

// LastRecordVar is the variable that takes a record which ends the run when the
// ring buffer has no room for it: 8 bytes that are not 0 once it is there, then
// the record.
const LastRecordVar = "skep_last_record"

// A Loss is one thing that may go wrong and is counted.
type Loss struct {
	Kind LossKind `json:"kind"`
	// Name is what was lost: the map, the helper.
	Name string `json:"name,omitempty"`
	Line int    `json:"line,omitempty"`
}

// LossKind says what is counted.
type LossKind string

// The kinds of losses.
const (
	LossEvent     LossKind = "event"      // a record did not fit the ring buffer
	LossMapFull   LossKind = "map_full"   // an update failed: no room
	LossMapUpdate LossKind = "map_update" // an update failed otherwise
	LossString    LossKind = "string_cut" // a string was longer than its limit
	LossFault     LossKind = "fault"      // memory could not be read
	LossStack     LossKind = "stack"      // a stack could not be taken or kept
	LossScratch   LossKind = "scratch"    // no scratch memory: programs nested too deep
	LossLoop      LossKind = "loop"       // a loop was ended by its limit
)

// FactKind says what a Fact is about.
type FactKind string

// The kinds of facts.
const (
	FactFormat  FactKind = "format"  // the format of a tracepoint: Value is a digest of the fields used
	FactArgs    FactKind = "args"    // the signature of a function or raw tracepoint
	FactSyscall FactKind = "syscall" // number and arguments of a system call
	FactMatch   FactKind = "match"   // what a wildcard matched: Value is a digest of the list
	FactLayout  FactKind = "layout"  // size, members or constants of a type that shape code
	FactFile    FactKind = "file"    // an offset or build-id inside a user binary
	FactParam   FactKind = "param"   // a parameter that shapes code or attach points
	FactFeature FactKind = "feature" // a feature of the kernel that was used, or missed
	FactArch    FactKind = "arch"
	FactExists  FactKind = "exists"  // whether a symbol or type exists
	FactMachine FactKind = "machine" // how many CPUs there are, how new the kernel is
	FactRunner  FactKind = "runner"  // a variable that skep fills in before it loads the programs, as other loaders do not
)

// A Fact is something the code relies on that a loader cannot adjust. Where
// the target differs, the object has to be compiled again.
type Fact struct {
	Kind  FactKind `json:"kind"`
	Name  string   `json:"name"`
	Value string   `json:"value"`
	Line  int      `json:"line,omitempty"`
}

// HistBuckets is the number of buckets of hist(n, k): one for negative
// numbers, then values 0 to 2^k-1 each in one of their own, then 2^k for each
// power of two up to 2^63.
func HistBuckets(k int) int { return 1 + 1<<k + (64-k)<<k }

// The kinds that this version knows.
var programKinds = []ProgramKind{
	KindAttach, KindBegin, KindEnd, KindInterval, KindSignal, KindTest, KindBench,
}

var eventKinds = []EventKind{
	EventPrintf, EventErrorf, EventWarnf, EventPrint, EventPrintMap, EventPrintElem, EventClear, EventZero, EventTime, EventCat, EventJoin, EventSystem, EventExit, EventHelperError, EventRuntimeError, EventAssert, EventSkbOutput, EventUnwatch, EventWatch,
}

var lossKinds = []LossKind{
	LossEvent, LossMapFull, LossMapUpdate, LossString, LossFault, LossStack, LossScratch, LossLoop,
}

var factKinds = []FactKind{
	FactFormat, FactArgs, FactSyscall, FactMatch, FactLayout, FactFile, FactParam, FactFeature, FactArch, FactExists, FactMachine, FactRunner,
}

// Hooks are the attach points of the program's probes, as text.
func (m *Manifest) Hooks(p *Program) []string {
	var list []string
	for _, i := range p.Probes {
		if i < 0 || i >= len(m.Probes) {
			continue
		}
		text := m.Probes[i].Hook
		if text == "" {
			text = m.Probes[i].Name
		}
		list = append(list, text)
	}
	return list
}

// Types iterates over the types of all that is shown, and of what they are made
// of: those of maps, then those of events.
func (m *Manifest) Types() iter.Seq[*Type] {
	return func(yield func(*Type) bool) {
		for i := range m.Maps {
			if !m.Maps[i].Value.each(yield) || !eachOf(m.Maps[i].Keys, yield) {
				return
			}
		}
		for i := range m.Events {
			if !eachOf(m.Events[i].Args, yield) {
				return
			}
		}
	}
}

func (t *Type) each(yield func(*Type) bool) bool {
	return yield(t) && (t.Elem == nil || t.Elem.each(yield)) && eachOf(t.Fields, yield)
}

func eachOf(fields []Field, yield func(*Type) bool) bool {
	for i := range fields {
		if !fields[i].Type.each(yield) {
			return false
		}
	}
	return true
}

// Shows reports whether events or maps have values of one of the kinds.
func (m *Manifest) Shows(kinds ...TypeKind) bool {
	for t := range m.Types() {
		if slices.Contains(kinds, t.Kind) {
			return true
		}
	}
	return false
}
