package machine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/skep-bpf/skep/hook"
)

// A Machine loads objects.
type Machine interface {
	// Name is "kernel" or "user".
	Name() string
	// Load loads an object file. Programs are verified, nothing is attached.
	Load(ctx context.Context, elf []byte, o LoadOptions) (Loaded, error)
}

// A Starter is a Machine that starts the commands whose events it sees itself.
type Starter interface {
	Machine
	// Start starts a command and stops it before its first instruction.
	Start(command []string) (Child, error)
}

// A Child is a command that was started. PID may be called at any time, Resume
// once.
type Child interface {
	PID() int
	// Resume lets the command run; ended is called when it has ended.
	Resume(ended func()) error
	// End ends the command if it runs still, and returns its exit code, 128 and
	// the number of the signal that ended it, or -1 when it did not end by itself.
	End() int
	// Kill ends the command at once, also when it was never resumed.
	Kill()
}

// LoadOptions steer Load.
type LoadOptions struct {
	// Vars are values for variables in read-only data, by name. Those that
	// the object does not have are left out.
	Vars map[string][]byte
	// Maps are changes to maps before they are made.
	Maps map[string]MapOptions
	// Skip names programs that are not loaded.
	Skip []string
	// LogSize bounds the verifier's log, in bytes; 0 is the default.
	LogSize int
	// Verbose asks for the verifier's whole log of every program.
	Verbose bool
	// TokenPath is a bpffs that gives a BPF token, "" for none.
	TokenPath string
	// Stats asks the machine to count and time the runs of programs while the
	// object is loaded; see [ProgramStats].
	Stats bool
	// Replace is a directory of pins of an object that runs: what it has of
	// the same name and kind is taken over by this object's maps, and its
	// links are pointed to this object's programs where that can be done in
	// place. "" for none.
	Replace string
}

// MapOptions change a map before it is made.
type MapOptions struct {
	MaxEntries uint32
	// Pinned is a path from which the map is taken instead of being made.
	Pinned string
}

// A Loaded is an object on a machine. Methods may be called from several
// goroutines. After Close nothing is left of it unless it was pinned.
type Loaded interface {
	// Attach attaches programs to hooks, all in one call so that it can be
	// done side by side. It returns a Link for each request and an error for
	// each that failed, both in the order of the requests.
	Attach(ctx context.Context, requests []Attach) ([]Link, []error)
	// Run runs a program once, now, and returns its result.
	Run(program string) (uint32, error)
	// RunWith is Run with a context or a packet.
	RunWith(program string, o RunOptions) (RunResult, error)
	// Map returns a map of the object.
	Map(name string) (Map, error)
	// Var returns a global variable.
	Var(name string) (Var, error)
	// Records opens a ring buffer, or a perf event array, for reading.
	Records(name string) (Records, error)
	// Prints opens what the object's programs print with bpf_printk for
	// reading: each record is a line without its end, after the name and
	// number of the thread, the CPU, and the time since boot.
	Prints() (Records, error)
	// Logs returns the verifier's log of a program where it was asked for.
	Logs(program string) string
	// Missed returns how many runs of a program the machine itself left out.
	Missed(program string) (uint64, error)
	// Stats returns what the machine knows of a program.
	Stats(program string) (ProgramStats, error)
	// Pin keeps programs, links and maps under a directory of a bpffs, in
	// place of those that are pinned there under the same names.
	Pin(dir string) error
	Close() error
}

// An Attach asks for one program on one or more hooks of a kind.
type Attach struct {
	Program string
	Points  []hook.Point
	// Cookies are what bpf_get_attach_cookie returns, one for each point.
	Cookies []uint64
	// PID limits hooks that can be so limited to a process; 0 is all.
	PID int
	// Target is what the points do not say, for programs that attach to one
	// object of many: a network interface ("eth0", for TC also
	// "eth0:egress"), the path of a cgroup or of a network namespace, the name
	// of a map for socket maps, "ID:function" of a program to be replaced, the
	// family, hook and priority of a netfilter program
	// ("ipv4:input:-100"), the map of an iterator over elements.
	Target string
}

// A TargetError says that a program attaches to one object of many, and that
// Attach.Target does not name it or names it wrongly.
type TargetError struct {
	Program string
	// Needs says what must be named: "a network interface".
	Needs string
	// Target is what was named, "" for nothing.
	Target string
	Err    error
}

func (e *TargetError) Error() string {
	if e.Target == "" {
		return fmt.Sprintf("program %s attaches to %s: say to which with --attach %s=TARGET", e.Program, e.Needs, e.Program)
	}
	return fmt.Sprintf("program %s attaches to %s, and %q is none: %v", e.Program, e.Needs, e.Target, e.Err)
}

// Unwrap returns the cause.
func (e *TargetError) Unwrap() error { return e.Err }

// A Link is an attachment. Closing it detaches.
type Link interface {
	Close() error
}

// An Iterator is the Link of an iterator.
type Iterator interface {
	Link
	// Open runs the iterator and returns what it prints.
	Open() (io.ReadCloser, error)
}

// RunOptions are what a program is run with.
type RunOptions struct {
	// Context is what the program's context points to: the arguments of a raw
	// tracepoint, whatever a syscall program takes, a struct __sk_buff or
	// xdp_md where Data is a packet.
	Context []byte
	// Data is a packet, for programs that take one.
	Data []byte
	// Repeat is how often to run; 0 is once. Programs that take packets only.
	Repeat int
}

// A RunResult is what a run left.
type RunResult struct {
	Return uint32
	// Duration is the mean of one run, for programs that take packets.
	Duration time.Duration
	// Context and Data are as the program left them.
	Context, Data []byte
}

// ProgramStats are what a machine knows of a program.
type ProgramStats struct {
	// Runs and Time count since the program was loaded; they are 0 unless
	// LoadOptions.Stats was set.
	Runs uint64
	Time time.Duration
	// Missed is how many runs were left out because the program ran already.
	Missed uint64
	// Instructions is the length of the program after linking; Verified is how
	// many the verifier looked at, over all paths.
	Instructions, Verified int
	// JITed is the size of the native code in bytes, 0 for none.
	JITed int
}

// ErrKeyNotExist is returned by Map.Lookup and Map.Delete.
var ErrKeyNotExist = errors.New("key does not exist")

// A Map is a map as user space sees it. Values of maps per CPU are the
// values of all possible CPUs one after the other, each rounded up to 8 bytes.
type Map interface {
	Name() string
	// KeySize and ValueSize are in bytes, of one CPU.
	KeySize() int
	ValueSize() int
	PerCPU() bool
	MaxEntries() int
	Lookup(key []byte) ([]byte, error)
	Update(key, value []byte) error
	Delete(key []byte) error
	// All calls yield for every element until it returns false. Elements that
	// come or go meanwhile may be seen or not.
	All(yield func(key, value []byte) bool) error
}

// A Var is a global variable.
type Var interface {
	// Get copies the variable's bytes.
	Get() ([]byte, error)
	Set([]byte) error
}

// Records reads a ring buffer. All methods but Read may be called from other
// goroutines.
type Records interface {
	// Read returns the next record. The bytes are valid until the next call.
	// It returns os.ErrDeadlineExceeded when the deadline passes and
	// os.ErrClosed after Close.
	Read() (data []byte, err error)
	SetDeadline(time.Time)
	// Pending is the number of bytes that wait to be read.
	Pending() int
	// Lost is how many records did not fit, where the buffer itself counts
	// them (perf event arrays do).
	Lost() uint64
	Close() error
}
