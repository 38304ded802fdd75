package skep

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"

	"github.com/skep-bpf/skep/codegen"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/rootless"
	"github.com/skep-bpf/skep/runner"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

// An Object is a compiled script, or any BPF object that was read.
type Object struct {
	*object.Object
	// ELF are the bytes of the object file.
	ELF []byte
	// Warnings were found on the way.
	Warnings source.List

	target target.Target // that it was compiled for, when this process did
}

// CompileOptions say how a script is compiled.
type CompileOptions struct {
	bt.Options
	// Target is the machine to compile for; nil is the one skep runs on.
	Target target.Target
}

// files lets a script include and import files of this machine, unless the
// caller brings others.
func (o *CompileOptions) files() {
	if o.ReadFile == nil {
		o.ReadFile = os.ReadFile
	}
	if o.Dir == "" {
		o.Dir, _ = os.Getwd() // without it relative paths are refused
	}
}

// sourceOptions are what the source that an object carries was compiled with.
// It may read only the files that travel with the object.
func sourceOptions(s *object.Source) bt.Options {
	return bt.Options{
		Args: s.Args, Named: s.Named, Settings: s.Options, IncludeDirs: s.IncludeDirs, Include: s.Include,
		ReadFile: func(name string) ([]byte, error) {
			if text, ok := s.Includes[name]; ok {
				return []byte(text), nil
			}
			return nil, fs.ErrNotExist
		},
	}
}

// Compile compiles a script of the tracing language. Errors in the script are
// a [source.List].
func Compile(file *source.File, o CompileOptions) (*Object, error) {
	t := o.Target
	if t == nil {
		var err error
		if t, err = kernel.Target(); err != nil {
			return nil, err
		}
	}
	o.files()
	unit, diags := bt.Compile(file, t, o.Options)
	if unit == nil {
		return nil, diags
	}
	obj, err := codegen.Generate(unit.Module, codegen.Options{
		Arch: t.Arch(), OnStackLimit: unit.OnStackLimit,
		Loss: codegen.LossCounter{Var: unit.Losses, Index: uint32(unit.ScratchLoss)},
	})
	if err != nil {
		return nil, err
	}
	obj.Manifest = unit.Manifest
	elf, err := obj.Marshal()
	if err != nil {
		return nil, fmt.Errorf("the object cannot be written: %w", err)
	}
	return &Object{Object: obj, ELF: elf, Warnings: diags, target: target.Underlying(t)}, nil
}

// RunOptions say how an object is run.
type RunOptions struct {
	Load machine.LoadOptions
	// Engine runs the object; "" is the kernel.
	Engine EngineName
	// NoFilter has EngineUser trace Command without a seccomp filter: every
	// system call stops, but the command survives skep, however that ends.
	NoFilter bool
	// Waiting, where it is set, is told how many processes Command has left that
	// carry the filter of EngineUser: the run lasts until they end.
	Waiting func(processes int)
	// PID limits the run to a process.
	PID int
	// Args are positional parameters for an object that was read; nil keeps
	// those it was compiled with.
	Args []string
	// Named are named parameters (for getopt) for an object that was read; nil
	// keeps those it was compiled with.
	Named map[string]string
	// NoSource refuses objects that would have to be compiled again; see [Adapt].
	NoSource bool
	// Command is a program with its arguments that is started stopped, runs
	// once everything is attached, and whose end ends the run.
	Command []string
	// Only runs the tests (object.KindTest) or benchmarks (object.KindBench) of
	// a script alone; Filter chooses among them by name ("test:NAME").
	Only   object.ProgramKind
	Filter func(name string) bool
	// Pin is a directory of a bpffs where programs, links and maps stay after
	// the run, "" for none. Removing the directory detaches them.
	Pin string
	// Replace takes the place of the object that is pinned below Pin: its maps
	// go on with what is in them, and its links run the new programs.
	// Otherwise a directory that has pins is refused.
	Replace bool
	// Maps are paths of pinned maps to use instead of new ones, by the maps'
	// names: "@reads", or as an object of another compiler calls them.
	Maps map[string]string
	// Targets say for programs that attach to one object of many to which
	// ("eth0"), by the programs' names; see [machine.Attach].
	Targets map[string]string
	// Events receives everything in order; what it is given is good until it
	// returns (see [runner.Event.Clone]). An error ends the run.
	Events func(runner.Event) error
	// Flush, where there is one, is called when no more events are there for now.
	Flush func() error
	// LiveLosses asks for events of all that goes wrong while the run lasts.
	// Without it only lost events are told at once, and the rest at the end.
	LiveLosses bool
	// Ready is called once everything is attached.
	Ready func(attached int)
	// Started gets a handle to the run before its first program runs.
	Started func(*runner.Handle)
}

// Run runs an object until it ends by itself or ctx is cancelled.
func Run(ctx context.Context, o *Object, opts RunOptions) (runner.Result, error) {
	engine, _, err := opts.Engine.Choose()
	if err != nil {
		return runner.Result{}, err
	}
	m, t, err := machineFor(engine, rootless.Options{NoFilter: opts.NoFilter, Waiting: opts.Waiting})
	if err != nil {
		return runner.Result{}, err
	}
	if o, err = Adapt(o, AdaptOptions{Target: t, Args: opts.Args, Named: opts.Named, PID: opts.PID, HasCommand: len(opts.Command) > 0, NoSource: opts.NoSource}); err != nil {
		return runner.Result{}, err
	}
	if o.Manifest == nil {
		if o, err = foreign(o); err != nil {
			return runner.Result{}, err
		}
	}
	if opts.Load, err = pinOptions(o.Manifest, opts); err != nil {
		return runner.Result{}, err
	}
	if o.Manifest.UsesPID {
		vars := maps.Clone(opts.Load.Vars)
		if vars == nil {
			vars = map[string][]byte{}
		}
		pid := make([]byte, 8)
		t.ByteOrder().PutUint64(pid, uint64(opts.PID))
		vars["skep_pid"] = pid
		opts.Load.Vars = vars
	}
	c := runner.Config{
		Machine: m, ELF: o.ELF, Manifest: o.Manifest,
		Load: opts.Load, PID: opts.PID, Command: opts.Command, Pin: opts.Pin, Targets: opts.Targets,
		Only: opts.Only, Filter: opts.Filter,
		Events: opts.Events, Flush: opts.Flush, LiveLosses: opts.LiveLosses, Ready: opts.Ready, Started: opts.Started,
	}
	if engine == EngineKernel {
		c.Processes = func(ctx context.Context, note func(runner.ProcessEvent)) error {
			return kernel.WatchProcesses(ctx, func(e kernel.ProcessEvent) { note(runner.ProcessEvent(e)) })
		}
	}
	return runner.Run(ctx, c)
}

// foreign gives an object of another compiler the manifest that can be read
// from it.
func foreign(o *Object) (*Object, error) {
	man, err := runner.ManifestOf(o.ELF)
	if err != nil {
		return nil, err
	}
	obj := *o.Object
	obj.Manifest = man
	return &Object{Object: &obj, ELF: o.ELF, Warnings: o.Warnings}, nil
}
