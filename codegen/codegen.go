package codegen

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/ir/opt"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// Options choose how code is made.
type Options struct {
	// Arch is the architecture compiled for, as GOARCH has it; it decides the
	// byte order and whether unaligned access is allowed. Empty is "amd64".
	Arch string
	// CPU is the version of the instruction set, 3 or 4; 0 is 3, which every
	// kernel since 5.1 has. Version 4 needs Linux 6.6.
	CPU int
	// OnStackLimit is the size in bytes above which an alloca lives in scratch
	// memory instead of the frame; 0 is 256. Smaller ones move too when the
	// frame is full.
	OnStackLimit int
	// Loss is where a program that could not have scratch memory counts that;
	// a nil Var counts nowhere.
	Loss LossCounter
	// NoOptimise leaves out the passes of ir/opt.
	NoOptimise bool
	// Optimiser is passed on to them; its CPU is that above. They run on the
	// module as it is, and again after legalisation.
	Optimiser opt.Options
}

// A LossCounter is an element of a variable that is an array of u64.
type LossCounter struct {
	Var   *ir.Global
	Index uint32
}

// generator holds what the functions of one module share.
type generator struct {
	m         *ir.Module
	opts      Options
	cpu       int
	bigEndian bool
	strict    bool // unaligned access is refused

	out     *object.Object
	maps    map[*ir.Map]*object.Map
	vars    map[*ir.Global]*object.Var
	externs map[*ir.Extern]*object.Extern
	funcs   map[*ir.Func]*object.Func
	core    *coreTypes
	frames  map[*object.Func]frameInfo
	diags   source.List
}

type frameInfo struct {
	size int
	pos  source.Span
}

func (g *generator) fail(d *source.Diagnostic) { g.diags.Add(d) }

// Generate compiles m, which it changes. The error is a [source.List] when the
// module asks for what a BPF program cannot have.
func Generate(m *ir.Module, opts Options) (*object.Object, error) {
	if !opts.NoOptimise {
		if diags := tooManyValues(m); diags != nil {
			return nil, diags
		}
	}
	g := newGenerator(m, opts)
	if err := g.optimise(); err != nil {
		return nil, err
	}
	g.legalise()
	if g.diags.HasErrors() {
		return nil, g.diags
	}
	if err := g.optimise(); err != nil {
		return nil, err
	}
	g.declare()
	for _, f := range m.Funcs {
		g.compile(f)
		if len(g.diags) > 20 {
			break
		}
	}
	if !g.diags.HasErrors() {
		g.checkStack()
	}
	if g.diags.HasErrors() {
		g.diags.Sort()
		return nil, g.diags
	}
	return g.out, nil
}

// maxValues is how large a function may be before it is optimised: a thousand
// statements or so, which take five seconds to compile. More takes disproportionately
// longer, only to be refused by the kernel.
const maxValues = 50_000

// tooManyValues refuses functions that are larger, at the line that is too much.
func tooManyValues(m *ir.Module) source.List {
	var diags source.List
	for _, f := range m.Funcs {
		n := 0
		for _, b := range f.Blocks {
			if n += len(b.Values); n <= maxValues {
				continue
			}
			pos := b.Values[len(b.Values)-1-(n-maxValues-1)].Pos
			if !pos.IsValid() {
				pos = f.Pos
			}
			diags.Add(source.Errorf(pos, "program-too-large",
				"the program %q is too large: up to here it takes %d operations, and one program may have %d", f.Name, maxValues+1, maxValues).
				Notef("%s", lessCode))
			break
		}
	}
	return diags
}

// lessCode is what to do about programs that are too large.
const lessCode = "use for or while instead of unroll and of repeated statements, move what is common into a function (fn), or split the work among several probes"

func (g *generator) optimise() error {
	if g.opts.NoOptimise {
		return nil
	}
	o := g.opts.Optimiser
	o.CPU = g.cpu
	if err := opt.Run(g.m, o); err != nil {
		return fmt.Errorf("optimising %s: %w", g.m.Name, err)
	}
	return nil
}

func newGenerator(m *ir.Module, opts Options) *generator {
	if opts.Arch == "" {
		opts.Arch = "amd64"
	}
	if opts.OnStackLimit <= 0 {
		opts.OnStackLimit = 256
	}
	g := &generator{
		m: m, opts: opts, cpu: max(opts.CPU, 3),
		maps: map[*ir.Map]*object.Map{}, vars: map[*ir.Global]*object.Var{},
		externs: map[*ir.Extern]*object.Extern{}, funcs: map[*ir.Func]*object.Func{},
		core: newCoreTypes(), frames: map[*object.Func]frameInfo{},
	}
	switch opts.Arch {
	case "s390x", "ppc64", "mips", "mips64":
		g.bigEndian = true
	}
	switch opts.Arch {
	case "amd64", "arm64", "386", "s390x", "ppc64", "ppc64le":
	default:
		g.strict = true
	}
	return g
}

// declare makes the object's maps, variables, externs and empty functions.
func (g *generator) declare() {
	m := g.m
	g.out = &object.Object{Arch: g.opts.Arch, License: m.License}
	var mapOf func(*ir.Map) *object.Map
	mapOf = func(im *ir.Map) *object.Map {
		if im == nil {
			return nil
		}
		if om := g.maps[im]; om != nil {
			return om
		}
		om := &object.Map{
			Name: im.Name, Type: im.Type, Key: im.Key, Value: im.Value, KeySize: im.KeySize, ValueSize: im.ValueSize,
			MaxEntries: im.MaxEntries, Flags: im.Flags, Inner: mapOf(im.Inner), Pinned: im.Pinned,
		}
		g.maps[im] = om
		return om
	}
	for _, im := range m.Maps {
		g.out.Maps = append(g.out.Maps, mapOf(im))
	}
	for _, v := range m.Globals {
		ov := &object.Var{Name: v.Name, Section: v.Section, Type: v.Type, Init: v.Init}
		g.vars[v] = ov
		g.out.Vars = append(g.out.Vars, ov)
	}
	kinds := map[ir.ExternKind]object.ExternKind{
		ir.ExternKfunc: object.ExternKfunc, ir.ExternKsym: object.ExternKsym, ir.ExternKconfig: object.ExternKconfig,
	}
	used := g.usedExterns()
	for _, e := range m.Externs {
		kind, ok := kinds[e.Kind]
		if !ok || !used[e] {
			continue // helpers go by number
		}
		oe := &object.Extern{Kind: kind, Name: e.Name, Type: e.Type, Weak: e.Weak}
		g.externs[e] = oe
		g.out.Externs = append(g.out.Externs, oe)
	}
	for _, f := range m.Funcs {
		of := &object.Func{
			Name: f.Name, Global: f.Linkage == ir.GlobalSub, Type: funcType(f),
		}
		if f.Linkage == ir.Program {
			of.Section = f.Section
		}
		g.funcs[f] = of
		g.out.Funcs = append(g.out.Funcs, of)
	}
}

func (g *generator) usedExterns() map[*ir.Extern]bool {
	used := map[*ir.Extern]bool{}
	for _, f := range g.m.Funcs {
		for _, b := range f.Blocks {
			for _, v := range b.Values {
				switch a := v.Aux.(type) {
				case *ir.Extern:
					used[a] = true
				case *ir.FieldRef:
					if v.Op == ir.OpField && a.Relocate {
						g.core.note(a.Struct, a.Path)
					}
				case *ir.CoreRef:
					g.core.noteFact(a)
				}
			}
		}
	}
	return used
}

// compile makes the instructions of f.
func (g *generator) compile(f *ir.Func) {
	if len(f.Params()) > 5 {
		g.fail(source.Errorf(f.Pos, "too-many-parameters",
			"function %q has %d parameters, but a BPF function takes at most 5", f.Name, len(f.Params())))
		return
	}
	m := g.selectFunc(f)
	if g.diags.HasErrors() {
		return
	}
	m.tidy()
	m.hoist()
	m.estimate()
	if err := allocate(m); err != nil {
		g.fail(source.Errorf(f.Pos, "no-registers", "%v", err))
		return
	}
	m.reuseSpilled()
	m.tidy()
	m.layoutFrame()
	info := frameInfo{size: m.frame, pos: f.Pos}
	for _, s := range m.slots {
		if s.off == -m.frame && s.pos.IsValid() {
			info.pos = s.pos
		}
	}
	of := g.funcs[f]
	g.frames[of] = info
	if m.frame > maxFrame {
		g.fail(source.Errorf(info.pos, "stack-too-large",
			"function %q needs %d bytes of stack, but the kernel gives %d", f.Name, m.frame, maxFrame).
			Notef("make the variables smaller, or fewer of them live at once"))
		return
	}
	m.resolveSlots()
	g.emit(m, of)
}

// maxCallDepth is the most frames on top of each other (MAX_CALL_FRAMES,
// include/linux/bpf_verifier.h).
const maxCallDepth = 8

// checkStack adds up the frames of every chain of calls as the verifier does
// (check_max_stack_depth_subprog, kernel/bpf/verifier.c).
func (g *generator) checkStack() {
	const (
		fresh = iota
		open
		done
	)
	state := map[*object.Func]int{}
	depth := map[*object.Func]int{} // bytes from the function on down
	calls := map[*object.Func]int{} // frames
	names := map[*object.Func]string{}
	spans := map[*object.Func]source.Span{}
	for f, of := range g.funcs {
		names[of], spans[of] = f.Name, f.Pos
	}
	var visit func(of *object.Func) bool
	visit = func(of *object.Func) bool {
		switch state[of] {
		case open:
			g.fail(source.Errorf(spans[of], "recursion", "function %q calls itself, which BPF programs cannot", of.Name))
			return false
		case done:
			return true
		}
		state[of] = open
		below, frames := 0, 0
		for _, r := range of.Relocs {
			if r.Kind != object.RelocCall && r.Kind != object.RelocFuncAddr {
				continue
			}
			callee := r.Symbol.(*object.Func)
			if !visit(callee) {
				return false
			}
			below, frames = max(below, depth[callee]), max(frames, calls[callee])
		}
		state[of] = done
		depth[of] = below + (max(g.frames[of].size, 1)+31)&^31
		calls[of] = frames + 1
		return true
	}
	for _, of := range g.out.Funcs {
		if !visit(of) {
			return
		}
		switch {
		case depth[of] > maxFrame && g.frames[of].size <= maxFrame:
			g.fail(source.Errorf(g.frames[of].pos, "stack-too-large",
				"function %q and what it calls need %d bytes of stack together, but the kernel gives %d",
				of.Name, depth[of], maxFrame))
			return
		case calls[of] > maxCallDepth:
			g.fail(source.Errorf(spans[of], "calls-too-deep",
				"function %q calls %d functions deep, but the kernel allows %d", of.Name, calls[of]-1, maxCallDepth-1))
			return
		}
	}
}

// funcType derives the BTF signature of f from its parameters unless it has one.
func funcType(f *ir.Func) *btf.Func {
	linkage := btf.GlobalFunc
	if f.Linkage == ir.Static {
		linkage = btf.StaticFunc
	}
	proto := f.Proto
	if proto == nil {
		proto = &btf.FuncProto{Return: typeOf(f.Result)}
		if f.Result.Kind == ir.Void && f.Linkage != ir.Static {
			proto.Return = typeOf(ir.I32)
		}
		for i, p := range f.Params() {
			name := p.Name
			if name == "" {
				name = fmt.Sprintf("a%d", i)
			}
			proto.Params = append(proto.Params, btf.FuncParam{Name: name, Type: typeOf(p.Type)})
		}
	}
	return &btf.Func{Name: f.Name, Type: proto, Linkage: linkage}
}

func typeOf(t ir.Type) btf.Type {
	switch t.Kind {
	case ir.Int:
		switch t.Bits {
		case 1:
			return &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
		case 8:
			return &btf.Int{Name: "unsigned char", Size: 1}
		case 16:
			return &btf.Int{Name: "unsigned short", Size: 2}
		case 32:
			return &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
		}
		return &btf.Int{Name: "unsigned long long", Size: 8}
	case ir.Ptr:
		var target btf.Type = &btf.Void{}
		if t.Size > 0 {
			char := &btf.Int{Name: "unsigned char", Size: 1}
			target = &btf.Array{Index: &btf.Int{Name: "unsigned int", Size: 4}, Type: char, Nelems: t.Size}
		}
		return &btf.Pointer{Target: target}
	}
	return &btf.Void{}
}
