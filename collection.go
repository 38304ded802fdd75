package skep

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/verifier"
	"github.com/skep-bpf/skep/vm"
)

// The parts of the engine inside this process. Their methods are those of
// package ebpf, with the same errors, so that tests of programs move between the
// kernel and the engine by a changed line.
type (
	// An Engine is one domain of trust inside this process: programs, and the
	// maps that they share. Closing it ends them all.
	Engine = vm.VM
	// EngineOptions are memory limits, the number of virtual processors, and
	// what the host answers to programs. The zero value is useful.
	EngineOptions = vm.Options
	// A Host answers what programs ask of their surroundings: the clock, random
	// numbers, who runs, foreign memory. What is nil is answered by this process.
	Host = vm.Host
	// A Process is the identity that programs see.
	Process = vm.Process

	// A Program is a program that can be run: by [vm.Program.Test] over a
	// packet, [vm.Program.Run] over a packet or a context, [vm.Program.RunContext]
	// for all of the outcome and to be cancelled, or by a [Hook].
	Program = vm.Program
	// A RunResult is what a run left: the result, the packet, the context, where
	// it was redirected to, the time it took.
	RunResult = vm.Result
	// A RunError says where and why a run was given up.
	RunError = vm.RunError
	// A Map has the operations of an ebpf.Map.
	Map = vm.Map
	// A MapBatchCursor is where a batch of look-ups goes on.
	MapBatchCursor = vm.MapBatchCursor
	// A Variable is a global variable of an object.
	Variable = vm.Variable
	// A Reader reads what programs send through a ring buffer or a perf event
	// array.
	Reader = vm.Reader
	// A Record is what a program sent.
	Record = vm.Record

	// A HelperFunc is a helper or a kernel function that the host supplies.
	HelperFunc = vm.HelperFunc
	// A HelperCall is one call of a HelperFunc, with its arguments.
	HelperCall = vm.Call

	// A Hook is a place in a Go program where BPF programs may look at a value of
	// type T, and change it.
	Hook[T any] = vm.Hook[T]
	// A HookLink is a program on a hook, which can be replaced and closed while
	// others run.
	HookLink = vm.HookLink
)

// NewEngine returns an engine. [NewCollection] and its like make one of their
// own, unless they are given one.
func NewEngine(o EngineOptions) (*Engine, error) { return vm.New(o) }

// NewHook returns a hook that no program is attached to. T is what the
// programs' context points to: a struct, array or number of fixed size without
// pointers.
func NewHook[T any](name string) (*Hook[T], error) { return vm.NewHook[T](name) }

// NewRingReader returns a reader of a ring buffer.
func NewRingReader(m *Map) (*Reader, error) { return vm.NewRingReader(m) }

// NewPerfReader returns a reader of a perf event array that keeps up to
// perCPUBuffer bytes for each virtual processor.
func NewPerfReader(m *Map, perCPUBuffer int) (*Reader, error) {
	return vm.NewPerfReader(m, perCPUBuffer)
}

// CollectionOptions steer how an object is loaded into the engine. The zero
// value verifies its programs by the rules of Linux 6.18 for a loader with all
// capabilities, and those for speculative paths, and hides their constants.
type CollectionOptions struct {
	// Trusted loads programs by the caller's word: they are not verified, and not
	// hardened. Whatever they do, they cannot leave the engine's memory.
	Trusted bool
	// Kernel is whose rules hold for programs that are not trusted: 6.1, 6.12 or
	// 6.18, which 0 stands for.
	Kernel abi.Version
	// Caps are the capabilities by which they are judged.
	Caps verifier.Caps
	// KernelTypes are the types of the kernel that programs are adjusted to
	// (CO-RE) and judged by. nil is the kernel that runs, which is only looked
	// at where programs need it.
	KernelTypes *btf.Spec

	// Engine is where to load; nil makes one that is closed with the
	// collection.
	Engine *Engine
	// NewEngine are the options of an engine that is made.
	NewEngine EngineOptions

	// MapReplacements are taken in place of maps of the object, by name.
	MapReplacements map[string]*Map
	// Kconfig are values of CONFIG_ options, as the kernel's config has them.
	Kconfig map[string]string
	// Symbols are addresses of kernel symbols; weak ones that are not here
	// are 0.
	Symbols map[string]uint64
	// Kfuncs are kernel functions by name, and Helpers take the place of helpers,
	// by name ("bpf_ktime_get_ns"). The verifier takes them for the
	// kernel's own; a function that KernelTypes does not have needs Trusted.
	Kfuncs, Helpers map[string]HelperFunc
}

// A Collection is an object in the engine inside this process: what an
// ebpf.Collection is in the kernel.
type Collection struct {
	Programs  map[string]*Program
	Maps      map[string]*Map
	Variables map[string]*Variable

	engine *Engine
	own    bool
	inner  *vm.Collection
}

// LoadCollection loads an object file: one that skep or clang made.
func LoadCollection(file string) (*Collection, error) {
	return LoadCollectionWithOptions(file, CollectionOptions{})
}

// LoadCollectionWithOptions is LoadCollection with options.
func LoadCollectionWithOptions(file string, o CollectionOptions) (*Collection, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	spec, err := object.ReadSpec(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	c, err := NewCollectionWithOptions(spec, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// NewCollection loads a spec of package ebpf, such as bpf2go's functions return.
// The spec is not changed.
func NewCollection(spec *ebpf.CollectionSpec) (*Collection, error) {
	return NewCollectionWithOptions(spec, CollectionOptions{})
}

// NewCollectionWithOptions is NewCollection with options. Programs that are not
// accepted are a [*RejectedError], and what the engine does not have is a
// [*vm.MissingError].
func NewCollectionWithOptions(spec *ebpf.CollectionSpec, o CollectionOptions) (*Collection, error) {
	types := o.KernelTypes
	if types == nil && needTypes(spec) {
		// Where there are none, loading says what they are needed for.
		types, _ = btf.LoadKernelSpec()
	}
	if !o.Trusted {
		if err := verifySpec(spec, types, &o); err != nil {
			return nil, err
		}
	}
	c := &Collection{engine: o.Engine}
	if c.engine == nil {
		var err error
		if c.engine, err = vm.New(o.NewEngine); err != nil {
			return nil, err
		}
		c.own = true
	}
	var err error
	c.inner, err = c.engine.Load(spec, &vm.LoadOptions{
		Types: types, Maps: o.MapReplacements, Kconfig: o.Kconfig, Symbols: o.Symbols, Kfuncs: o.Kfuncs, Helpers: o.Helpers,
		Trusted: o.Trusted,
	})
	if err != nil {
		if c.own {
			err = errors.Join(err, c.engine.Close())
		}
		return nil, err
	}
	c.Programs, c.Maps, c.Variables = c.inner.Programs, c.inner.Maps, c.inner.Variables
	return c, nil
}

// LoadAndAssign loads a spec into the engine and puts programs, maps and
// variables into the fields of a struct by the tag `ebpf:"name"`, like
// CollectionSpec.LoadAndAssign of package ebpf. The fields are of type *Program,
// *Map and *Variable, or structs of them. Closing the collection that is returned
// closes them all.
func LoadAndAssign(spec *ebpf.CollectionSpec, to any, o *CollectionOptions) (*Collection, error) {
	if o == nil {
		o = &CollectionOptions{}
	}
	c, err := NewCollectionWithOptions(spec, *o)
	if err != nil {
		return nil, err
	}
	if err := c.Assign(to); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Assign puts programs, maps and variables into the fields of a struct; see
// [LoadAndAssign]. They stay the collection's.
func (c *Collection) Assign(to any) error {
	if v := reflect.ValueOf(to); v.Kind() != reflect.Pointer || v.IsNil() {
		return fmt.Errorf("a %T is no pointer to a struct", to)
	}
	return c.inner.Assign(to)
}

// Engine returns where the collection is loaded.
func (c *Collection) Engine() *Engine { return c.engine }

// Close gives up programs and maps, and the engine if it was made for them. Runs
// end undisturbed.
func (c *Collection) Close() error {
	err := c.inner.Close()
	if c.own {
		err = errors.Join(err, c.engine.Close())
	}
	return err
}

// needTypes reports whether programs cannot be judged or linked without the
// kernel's types.
func needTypes(spec *ebpf.CollectionSpec) bool {
	for _, p := range spec.Programs {
		switch p.Type {
		case ebpf.Tracing, ebpf.LSM, ebpf.Extension, ebpf.StructOps:
			return true
		}
		if slices.ContainsFunc(p.Instructions, func(in asm.Instruction) bool {
			return in.IsKfuncCall() || btf.CORERelocationMetadata(&in) != nil
		}) {
			return true
		}
	}
	return false
}

// A RejectedError says which programs of an object the verifier did not accept.
type RejectedError struct {
	// Programs are those that were rejected, or need a rule that is not there.
	Programs []Verified
}

// Error says why the first program was rejected.
func (e *RejectedError) Error() string {
	v := e.Programs[0]
	text := fmt.Sprintf("program %s is not accepted: %v", v.Program.Name, v.Err)
	if l, ok := v.Program.LineOf(v.Err.Insn); ok && v.Err.Insn >= 0 {
		text += fmt.Sprintf(" (%s:%d)", l.File, l.Row)
	}
	if v.Err.Suggestion != "" {
		text += "; " + v.Err.Suggestion
	}
	if n := len(e.Programs) - 1; n > 0 {
		text += fmt.Sprintf("; and %d other programs", n)
	}
	if v.Verdict == verifier.Unsupported {
		text += "; skep cannot judge this yet: set CollectionOptions.Trusted to run it all the same"
	}
	return text
}

// Diagnostics say it for people, with the line of the source, what was known
// there and how it was reached.
func (e *RejectedError) Diagnostics() source.List {
	var list source.List
	for _, v := range e.Programs {
		var b strings.Builder
		fmt.Fprintf(&b, "program %s is %v: ", v.Program.Name, v.Verdict)
		_ = verifier.Render(&b, v.Program, v.Err)
		list = append(list, &source.Diagnostic{Code: string(v.Err.Code), Message: strings.TrimRight(b.String(), "\n")})
	}
	return list
}

// verifySpec verifies programs that are not trusted.
func verifySpec(spec *ebpf.CollectionSpec, types *btf.Spec, o *CollectionOptions) error {
	programs, err := verifier.ProgramsOf(spec, types)
	if err != nil {
		return err
	}
	rejected := &RejectedError{}
	for _, p := range programs {
		start := time.Now()
		r := verifier.Verify(p, verifier.Config{Kernel: o.Kernel, Caps: o.Caps, Types: types, Speculation: true})
		if r.Verdict != verifier.Accepted {
			rejected.Programs = append(rejected.Programs, Verified{Program: p, Result: r, Time: time.Since(start)})
		}
	}
	if len(rejected.Programs) > 0 {
		return rejected
	}
	return nil
}
