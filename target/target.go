package target

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target/typeindex"
)

// ErrNotFound is wrapped by errors that say that a machine has no such event,
// function, type or file.
var ErrNotFound = typeindex.ErrNotFound

// ErrUnknown is wrapped by errors that say that a fact could not be had: a
// file that this user may not read, a snapshot saved without it. It is no
// verdict on whether the thing exists.
var ErrUnknown = errors.New("not known of this target")

// Unknownf returns an error that wraps ErrUnknown and says nothing but the
// given text.
func Unknownf(format string, args ...any) error {
	return &fault{fmt.Sprintf(format, args...), ErrUnknown}
}

// A fault is an error of a kind, told in words of its own.
type fault struct {
	text string
	kind error // ErrUnknown, ErrNotFound or nil
}

func (e *fault) Error() string { return e.text }
func (e *fault) Unwrap() error { return e.kind }

// A Target is what is known of one machine. All methods may be called from
// several goroutines; results are shared and must not be modified.
type Target interface {
	// Name tells targets apart in messages: "this machine" for the live one,
	// else the name of the snapshot.
	Name() string

	// Arch is the architecture in Go's spelling (GOARCH): amd64, arm64, riscv64.
	Arch() string
	// ByteOrder is that of Arch.
	ByteOrder() binary.ByteOrder
	// Release is the kernel's.
	Release() Release
	// CPUs is the number of possible CPUs (slots of a per-CPU map), at least 1.
	CPUs() int
	// PageSize is in bytes.
	PageSize() int
	// HZ is the kernel's tick rate (CONFIG_HZ), or 0 when it is not known.
	HZ() int

	// Types gives access to the kernel's BTF, modules included.
	// The error says why there is none.
	Types() (*typeindex.Types, error)

	// Events lists the tracepoints that have a format file, sorted by
	// subsystem and name.
	Events() ([]Event, error)
	// Format returns the parsed format of one event.
	// The error wraps ErrNotFound when there is no such event.
	Format(subsystem, event string) (*Format, error)
	// RawTracepoints lists the raw tracepoints sorted by name, without their
	// arguments.
	RawTracepoints() ([]RawTracepoint, error)
	// RawTracepoint returns one raw tracepoint with its typed arguments.
	RawTracepoint(name string) (*RawTracepoint, error)
	// Iterators lists the names of BPF iterators (task, task_file, ...), sorted.
	Iterators() ([]string, error)

	// Functions lists the kernel functions that can be traced, sorted by name
	// and module.
	Functions() ([]Function, error)
	// Function finds traceable functions of that name, without listing all
	// when it can. An empty module means any.
	// The error wraps ErrNotFound when there is none.
	Function(module, name string) ([]Function, error)
	// Symbol returns the kernel symbols of that name, of code and data.
	Symbol(name string) ([]Symbol, error)
	// Modules lists the loaded modules that hold BTF, sorted.
	Modules() ([]string, error)

	// Feature says whether the kernel has a feature, and why not.
	Feature(name FeatureName) Feature

	// Files is the machine's file system as process pid sees it; pid 0 stands
	// for the whole machine. The error says why its files cannot be read.
	Files(pid int) (Files, error)
}

// An Event names a tracepoint.
type Event struct {
	Subsystem, Name string
}

func (e Event) String() string { return e.Subsystem + ":" + e.Name }

// A RawTracepoint is a tracepoint by its kernel name, as raw tracepoint
// programs attach to it.
type RawTracepoint struct {
	Name   string
	Module string // "" for the kernel itself
	// Args are the arguments after the data pointer that the kernel adds.
	// Nil in lists.
	Args []btf.FuncParam
	// Typedef is btf_trace_<name>, whose type ID attaches BTF-typed programs.
	Typedef *btf.Typedef
}

// A Function is a kernel function that can be traced.
type Function struct {
	Name   string
	Module string // "" for the kernel itself
}

func (f Function) String() string {
	if f.Module == "" {
		return f.Name
	}
	return f.Module + ":" + f.Name
}

// A Symbol is a line of /proc/kallsyms.
type Symbol struct {
	Name   string
	Module string
	// Addr is the address in this boot; 0 when the kernel hides it, and in
	// snapshots, because addresses change with every boot.
	Addr uint64
	// Type is nm's letter: t and T are code.
	Type byte
}
