package skep

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/facts"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

// AdaptOptions say for what an object is made to fit.
type AdaptOptions struct {
	// Target is where the object will run.
	Target target.Target
	// Args are the positional parameters; nil keeps those the object was
	// compiled with.
	Args []string
	// Named are the named parameters; nil keeps those the object was compiled
	// with.
	Named map[string]string
	// PID is the process that the run is limited to, 0 for none.
	PID int
	// HasCommand says that there is a command whose process is cpid.
	HasCommand bool
	// NoSource forbids to compile the object's source again.
	NoSource bool
}

// A NoSourceError says that an object does not fit a machine and that it may
// not, or cannot, be compiled again.
type NoSourceError struct {
	// Differences are the facts that do not hold.
	Differences []facts.Difference
	// Needs says in words what else differs, "" for nothing.
	Needs string
	// Forbidden is set when the object has its source, but it may not be used.
	Forbidden bool
}

func (e *NoSourceError) Error() string {
	var why []string
	if e.Needs != "" {
		why = append(why, e.Needs)
	}
	for _, d := range e.Differences {
		why = append(why, d.String())
	}
	how := "it does not carry its source"
	if e.Forbidden {
		how = "compiling it again was forbidden"
	}
	return fmt.Sprintf("the object does not fit this machine, and %s: %s", how, strings.Join(why, "; "))
}

// Adapt returns o when all that it relies on holds on the target, else an
// object that is compiled from o's source for the target. The error is a
// [*NoSourceError] when that cannot be done, or a [source.List] when the
// source does not fit the target.
func Adapt(o *Object, a AdaptOptions) (*Object, error) {
	m := o.Manifest
	if m == nil || m.Source.Language == "" {
		return o, nil // of another compiler
	}
	args, named := m.Source.Args, m.Source.Named
	needs := ""
	switch {
	case m.Target.Arch != a.Target.Arch():
		needs = fmt.Sprintf("it was compiled for %s, this is %s", m.Target.Arch, a.Target.Arch())
	case a.Args != nil && !slices.Equal(a.Args, args) || a.Named != nil && !maps.Equal(a.Named, named):
		needs = "it was compiled with other parameters"
	case a.PID != 0 && !m.UsesPID && filters(m):
		needs = "its programs do not look which process runs them"
	}
	if a.Args != nil {
		args = a.Args
	}
	if a.Named != nil {
		named = a.Named
	}
	var differences []facts.Difference
	if !o.compiledFor(a.Target) {
		differences = append(facts.Differences(a.Target, m.Facts, a.PID), facts.Widths(a.Target, o.Object)...)
	}
	if needs == "" && len(differences) == 0 {
		return o, nil
	}
	if m.Source.Text == "" || a.NoSource {
		return nil, &NoSourceError{differences, needs, m.Source.Text != ""}
	}
	if m.Source.Language != "bt" {
		return nil, fmt.Errorf("the object's source is in the language %q, which this skep does not know", m.Source.Language)
	}
	opts := sourceOptions(&m.Source)
	opts.Args, opts.Named, opts.PID, opts.HasCommand = args, named, a.PID, a.HasCommand
	// What the source may do was decided when it was first compiled.
	opts.Unsafe = true
	fresh, err := Compile(source.NewFile(m.Source.Name, m.Source.Text), CompileOptions{Target: a.Target, Options: opts})
	if err != nil {
		return nil, err
	}
	return fresh, nil
}

// compiledFor reports whether o was compiled for that very target.
func (o *Object) compiledFor(t target.Target) bool { return o.target != nil && o.target == t }

// filters reports whether an object has programs that would filter by process.
func filters(m *object.Manifest) bool {
	return slices.ContainsFunc(m.Programs, func(p object.Program) bool { return p.Kind == object.KindAttach })
}
