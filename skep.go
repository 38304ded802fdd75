package skep

import (
	"context"
	"fmt"
	"slices"

	"github.com/skep-bpf/skep/codegen"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
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
	// IncludeDirs are where included files are looked for, after the directory
	// of the file that includes them.
	IncludeDirs []string
	// Include names files to include before the script.
	Include []string
}

// includer returns what finds included files for o, unless o brings its own.
func (o *CompileOptions) includer() *includer {
	if o.Parse.Includer != nil {
		in, _ := o.Parse.Includer.(*includer)
		return in
	}
	in := &includer{dirs: o.IncludeDirs}
	o.Parse.Includer = in
	o.Parse.Include = append(slices.Clone(o.Parse.Include), o.Include...)
	return in
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
	included := o.includer()
	unit, diags := bt.Compile(file, t, o.Options)
	if unit == nil {
		return nil, diags
	}
	obj, err := codegen.Generate(unit.Module, codegen.Options{
		Arch: t.Arch(),
		Loss: codegen.LossCounter{Var: unit.Losses, Index: uint32(unit.ScratchLoss)},
	})
	if err != nil {
		return nil, err
	}
	obj.Manifest = unit.Manifest
	if included != nil && len(included.texts) > 0 {
		obj.Manifest.Source.Includes = included.texts
	}
	elf, err := obj.Marshal()
	if err != nil {
		return nil, fmt.Errorf("the object cannot be written: %w", err)
	}
	return &Object{Object: obj, ELF: elf, Warnings: diags, target: t}, nil
}

// RunOptions say how an object is run.
type RunOptions struct {
	Load machine.LoadOptions
	// PID limits the run to a process.
	PID int
	// Args are positional parameters for an object that was read; nil keeps
	// those it was compiled with.
	Args []string
	// NoSource refuses objects that would have to be compiled again; see [Adapt].
	NoSource bool
	Events   func(runner.Event) error
	Ready    func(attached int)
}

// Run runs an object in the kernel until it ends by itself or ctx is cancelled.
func Run(ctx context.Context, o *Object, opts RunOptions) (runner.Result, error) {
	t, err := kernel.Target()
	if err != nil {
		return runner.Result{}, err
	}
	if o, err = Adapt(o, AdaptOptions{Target: t, Args: opts.Args, PID: opts.PID, NoSource: opts.NoSource}); err != nil {
		return runner.Result{}, err
	}
	return runner.Run(ctx, runner.Config{
		Machine: kernel.New(), ELF: o.ELF, Manifest: o.Manifest,
		Load: opts.Load, PID: opts.PID, Events: opts.Events, Ready: opts.Ready,
	})
}
