package hook

import (
	"iter"

	"github.com/skep-bpf/skep/target"
)

// Options bound and steer Expand and List.
type Options struct {
	// Max is the largest number of points that a wildcard may match
	// (max_probes); 0 is no limit.
	Max int
	// PID is the process through whose file system paths are looked up, 0 for
	// the machine's.
	PID int
	// Missing returns a point that does not exist as it is instead of an
	// error (missing_probes other than "error").
	Missing bool
}

// Expand returns the points that p stands for on a target, in the order of
// their names and without duplicates. A point without wildcards is checked:
// it must exist where the target can tell; where it cannot (target.ErrUnknown)
// it is returned as it is. Short names of binaries and libraries become paths.
//
// Errors are of type *[Error], with the nearest name for a misspelt one.
func Expand(t target.Target, p Point, o Options) ([]Point, error) { return expand(t, p, o) }

// An Entry is one thing that List found.
type Entry struct {
	Point Point
	// Type is set instead of Point for patterns such as "struct task_*": the
	// keyword and the name; Def is its definition in C, when it was asked for.
	Type string
	Def  string
	// Stable says that the kernel or the author of the program promises the
	// hook: tracepoints, USDT probes, iterators, perf events.
	Stable bool
	// Args are the arguments, when they are known and were asked for.
	Args []Arg
	// Return is the type of the returned value in C, for kinds that have it.
	Return string
}

// An Arg is an argument of a hook, for people.
type Arg struct {
	Name string
	Type string // C text
}

// List finds the hooks of a target that match a pattern: an attach point with
// or without wildcards ("tracepoint:sched:*"), whose provider may have
// wildcards too ("*:*sleep*"), or a struct, union or enum ("struct task_*").
// An empty pattern lists everything but user binaries. With details set,
// arguments and types are filled in.
func List(t target.Target, pattern string, details bool, o Options) iter.Seq2[Entry, error] {
	return list(t, pattern, details, o)
}
