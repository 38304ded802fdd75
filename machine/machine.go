package machine

import (
	"context"
	"errors"
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
	// Map returns a map of the object.
	Map(name string) (Map, error)
	// Var returns a global variable.
	Var(name string) (Var, error)
	// Records opens a ring buffer for reading.
	Records(name string) (Records, error)
	// Logs returns the verifier's log of a program where it was asked for.
	Logs(program string) string
	// Missed returns how many runs of a program the machine itself left out.
	Missed(program string) (uint64, error)
	// Pin keeps programs, links and maps under a directory of a bpffs.
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
}

// A Link is an attachment. Closing it detaches.
type Link interface {
	Close() error
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

// Records reads a ring buffer.
type Records interface {
	// Read returns the next record. The bytes are valid until the next call.
	// It returns os.ErrDeadlineExceeded when the deadline passes and
	// os.ErrClosed after Close.
	Read() (data []byte, err error)
	SetDeadline(time.Time)
	// Pending is the number of bytes that wait to be read.
	Pending() int
	Close() error
}
