package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/vm/engine"
)

// LoadOptions steer Load.
type LoadOptions struct {
	// Types are those of the kernel that the programs are adjusted to, where they
	// ask for it (CO-RE). nil is the kernel that runs, where there is one.
	Types *btf.Spec
	// Maps are taken in place of those of the object with the same name.
	Maps map[string]*Map
	// Kconfig are values of CONFIG_ options, as the kernel's config has them:
	// "y", "m", "n", a number, or a string in quotes. LINUX_KERNEL_VERSION is
	// 6.18's, unless it is here.
	Kconfig map[string]string
	// Symbols are addresses of kernel symbols; weak ones that are not here
	// are 0.
	Symbols map[string]uint64
	// Kfuncs are kernel functions by name, for the programs that call them.
	Kfuncs map[string]HelperFunc
	// Helpers take the place of helpers, by name ("bpf_ktime_get_ns").
	Helpers map[string]HelperFunc
	// Trusted says that whoever wrote the programs may attack this process anyway.
	// They are compiled without blinding and retpolines then; the cage and the budget
	// hold them as well.
	Trusted bool
	// Defences, where it is not nil, chooses single ones in place of Trusted.
	Defences *engine.Options
}

func (o *LoadOptions) defences() engine.Options {
	if o.Defences != nil {
		return *o.Defences
	}
	return engine.Options{Blind: !o.Trusted, DirectTailCalls: o.Trusted}
}

// A Collection is what Load makes of an object.
type Collection struct {
	Programs map[string]*Program
	Maps     map[string]*Map
	// Variables are the global variables by name.
	Variables map[string]*Variable
}

// LoadFile loads an object file.
func (vm *VM) LoadFile(name string, o *LoadOptions) (*Collection, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c, err := vm.LoadObject(data, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// LoadObject loads the bytes of an object file.
func (vm *VM) LoadObject(elf []byte, o *LoadOptions) (*Collection, error) {
	spec, err := object.ReadSpec(elf)
	if err != nil {
		return nil, err
	}
	return vm.Load(spec, o)
}

// Load makes the maps of a spec and links its programs. Nothing of the spec is
// changed. Programs are not verified.
func (vm *VM) Load(spec *ebpf.CollectionSpec, o *LoadOptions) (*Collection, error) {
	if o == nil {
		o = &LoadOptions{}
	}
	if spec.ByteOrder != nil && spec.ByteOrder != binary.ByteOrder(nativeOrder()) {
		return nil, fmt.Errorf("the object is %s and this machine is not: build it for this machine", spec.ByteOrder)
	}
	c := &Collection{Programs: map[string]*Program{}, Maps: map[string]*Map{}, Variables: map[string]*Variable{}}
	if err := vm.load(c, spec, o); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (vm *VM) load(c *Collection, spec *ebpf.CollectionSpec, o *LoadOptions) error {
	for name := range o.Maps {
		if spec.Maps[name] == nil {
			return fmt.Errorf("the object has no map %s to be replaced; it has %s", name, list(slices.Sorted(maps.Keys(spec.Maps))))
		}
	}
	// Maps of maps hold others, and are filled when those are there.
	order := slices.SortedFunc(maps.Keys(spec.Maps), func(a, b string) int {
		return cmpBool(holdsObjects(spec.Maps[a]), holdsObjects(spec.Maps[b]), strings.Compare(a, b))
	})
	for _, name := range order {
		m := spec.Maps[name]
		if given := o.Maps[name]; given != nil {
			if err := given.compatible(m); err != nil {
				return err
			}
			if given.vm != vm || !given.hold() {
				return fmt.Errorf("map %s is not one of this vm", name)
			}
			c.Maps[name] = given
			continue
		}
		made, err := vm.newMap(m)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		c.Maps[name] = made
		if !holdsObjects(m) {
			contents := m.Contents
			if data, ok, err := object.DataSection(spec, name); err != nil {
				return err
			} else if ok {
				contents = []ebpf.MapKV{{Key: uint32(0), Value: data}}
			}
			if err := made.fill(contents); err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
		}
		if m.Flags&mapReadOnlyProg != 0 && strings.HasPrefix(name, ".rodata") {
			made.frozen.Store(true)
		}
	}
	l := &linker{vm: vm, o: o, spec: spec, maps: c.Maps}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p, err := l.program(spec.Programs[name])
		if err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		c.Programs[name] = p
	}
	if l.kconfig != nil {
		c.Maps[".kconfig"] = l.kconfig
	}
	for _, name := range order {
		if m := spec.Maps[name]; holdsObjects(m) && o.Maps[name] == nil {
			if err := c.Maps[name].fillObjects(m.Contents, c); err != nil {
				return fmt.Errorf("map %s: %w", name, err)
			}
		}
	}
	for name, v := range spec.Variables {
		if m := c.Maps[v.SectionName]; m != nil {
			made := &Variable{m: m, name: name, offset: int(v.Offset), size: int(v.Size()), constant: v.Constant(), typ: v.Type}
			if v.Value != nil {
				copy(made.bytes(), v.Value) // what VariableSpec.Set gave it
			}
			c.Variables[name] = made
		}
	}
	return nil
}

func cmpBool(a, b bool, equal int) int {
	switch {
	case a == b:
		return equal
	case b:
		return -1
	}
	return 1
}

func holdsObjects(m *ebpf.MapSpec) bool {
	switch m.Type {
	case ebpf.ArrayOfMaps, ebpf.HashOfMaps, ebpf.ProgramArray:
		return true
	}
	return false
}

// Close gives up the programs and maps.
func (c *Collection) Close() error {
	var errs []error
	for _, p := range c.Programs {
		errs = append(errs, p.Close())
	}
	for _, m := range c.Maps {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Assign puts programs, maps and variables into the fields of a struct, by the
// tag `ebpf:"name"`, as CollectionSpec.LoadAndAssign of package ebpf does. Fields
// are of type *Program, *Map and *Variable, or structs of them.
func (c *Collection) Assign(to any) error {
	v := reflect.ValueOf(to)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("a %T is no pointer to a struct", to)
	}
	return c.assign(v.Elem())
}

func (c *Collection) assign(v reflect.Value) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		name, tagged := f.Tag.Lookup("ebpf")
		if !tagged {
			if f.Type.Kind() == reflect.Struct {
				if err := c.assign(v.Field(i)); err != nil {
					return err
				}
			}
			continue
		}
		var what reflect.Value
		switch f.Type {
		case reflect.TypeFor[*Program]():
			what = reflect.ValueOf(c.Programs[name])
		case reflect.TypeFor[*Map]():
			what = reflect.ValueOf(c.Maps[name])
		case reflect.TypeFor[*Variable]():
			what = reflect.ValueOf(c.Variables[name])
		default:
			return fmt.Errorf("field %s is of type %s, and not *vm.Program, *vm.Map or *vm.Variable", f.Name, f.Type)
		}
		if what.IsNil() {
			return fmt.Errorf("field %s: the object has no %s %s", f.Name, f.Type.Elem().Name(), name)
		}
		v.Field(i).Set(what)
	}
	return nil
}

// A linker turns program specs into linked programs.
type linker struct {
	vm      *VM
	o       *LoadOptions
	spec    *ebpf.CollectionSpec
	maps    map[string]*Map
	kconfig *Map
}

// NewProgram links one program. Maps are found in o.Maps.
func (vm *VM) NewProgram(spec *ebpf.ProgramSpec, o *LoadOptions) (*Program, error) {
	if o == nil {
		o = &LoadOptions{}
	}
	l := &linker{vm: vm, o: o, spec: &ebpf.CollectionSpec{}, maps: o.Maps}
	p, err := l.program(spec)
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", spec.Name, err)
	}
	return p, nil
}

func (l *linker) program(spec *ebpf.ProgramSpec) (*Program, error) {
	p := &Program{
		vm: l.vm, name: spec.Name, typ: abi.ProgType(spec.Type), attach: abi.AttachType(spec.AttachType),
		section: spec.SectionName, attachTo: spec.AttachTo, refs: 1,
	}
	var ok bool
	if p.kind, ok = progKinds[p.typ]; !ok {
		return nil, &MissingError{What: "program type", Name: p.typ.String(), There: names(ProgTypes())}
	}
	insns := slices.Clone(spec.Instructions)
	if err := l.relocate(insns); err != nil {
		return nil, err
	}
	if err := l.link(p, insns); err != nil {
		p.dropMaps()
		return nil, err
	}
	var err error
	if p.code, err = l.vm.engine.Compile(p.linked, l.o.defences()); err != nil {
		p.dropMaps()
		return nil, err
	}
	return p, l.vm.addProgram(p)
}

// relocate adjusts instructions to the types of a kernel (CO-RE).
func (l *linker) relocate(insns asm.Instructions) error {
	ids := btf.TypeID(0)
	return object.Relocate(insns, nativeOrder(), func() (*btf.Spec, error) {
		if l.o.Types != nil {
			return l.o.Types, nil
		}
		types, err := btf.LoadKernelSpec()
		if err != nil {
			return nil, fmt.Errorf("it is to be adjusted to the types of a kernel, and those of this machine cannot be read (give others in LoadOptions.Types): %w", err)
		}
		return types, nil
	}, func(btf.Type) (btf.TypeID, error) {
		ids++
		return ids, nil
	})
}

func nativeOrder() binary.ByteOrder {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

// link resolves everything that instructions refer to.
func (l *linker) link(p *Program, in asm.Instructions) error {
	// Slots and functions by symbol.
	slots := make([]int, len(in)+1)
	symbols := map[string]int{}
	for i := range in {
		slots[i+1] = slots[i] + int(in[i].Size()/asm.InstructionSize)
		if s := in[i].Symbol(); s != "" {
			if _, twice := symbols[s]; twice {
				return fmt.Errorf("symbol %s is there twice", s)
			}
			symbols[s] = i
		}
	}
	starts := map[int]bool{0: true}
	out := make([]isa.Instruction, len(in))
	loads := map[int]int{} // of functions' addresses
	for i := range in {
		insn, target, err := l.instruction(p, &in[i], symbols, slots, i)
		if err != nil {
			return fmt.Errorf("instruction %d: %w", i, err)
		}
		out[i] = insn
		if target >= 0 {
			starts[target] = true
			if insn.IsWide() {
				loads[i] = target
			}
		}
	}
	funcs := slices.Sorted(maps.Keys(starts))
	for i, target := range loads {
		fn, _ := slices.BinarySearch(funcs, target)
		out[i] = isa.LoadImm64(out[i].Dst, int64(fn))
	}
	if l.o.Helpers["bpf_map_lookup_elem"] == nil {
		p.inlineLookups(out, jumpTargets(out, slots, starts))
	}
	var err error
	p.linked, err = engine.New(p.name, out, funcs, p.calls)
	return err
}

// instruction links one; target is the instruction that a function which it
// refers to starts at, or -1.
func (l *linker) instruction(p *Program, in *asm.Instruction, symbols map[string]int, slots []int, i int) (out isa.Instruction, target int, err error) {
	target = -1
	ref := in.Reference()
	// function finds what a relative reference leads to.
	function := func(distance int64) (int, error) {
		if ref != "" {
			if at, ok := symbols[ref]; ok {
				return at, nil
			}
		}
		at, ok := slices.BinarySearch(slots[:len(slots)-1], slots[i+1]+int(distance))
		if !ok {
			return -1, fmt.Errorf("it refers to slot %d, where no function is", slots[i+1]+int(distance))
		}
		return at, nil
	}
	switch {
	case in.OpCode.IsDWordLoad() && in.Src == asm.PseudoFunc:
		target, err = function(in.Constant - 1)
		return isa.LoadImm64(isa.Register(in.Dst), 0), target, err
	case in.OpCode.IsDWordLoad():
		out, err = l.wide(p, in)
		return out, -1, err
	case in.IsFunctionCall():
		if target, err = function(in.Constant); err != nil {
			return out, -1, err
		}
		return isa.CallLocal(int32(slots[target] - slots[i+1])), target, nil
	case in.IsKfuncCall():
		out, err = l.kfunc(p, ref)
		return out, -1, err
	case in.IsBuiltinCall():
		out, err = l.helper(p, int32(in.Constant))
		return out, -1, err
	}
	jump := in.OpCode.Class().IsJump() && ref != ""
	one := *in
	if jump {
		at, ok := symbols[ref]
		if !ok {
			return out, -1, fmt.Errorf("there is no label %s", ref)
		}
		d := slots[at] - slots[i+1]
		if one.OpCode.Class() == asm.Jump32Class && one.OpCode.JumpOp() == asm.Ja {
			one.Constant = int64(d)
		} else {
			if one.Offset = int16(d); int(one.Offset) != d {
				return out, -1, fmt.Errorf("label %s is %d slots away, which no jump reaches: %w", ref, d, EINVAL)
			}
		}
	}
	out, err = object.FromAsm(one)
	return out, -1, err
}

// wide links a 64-bit immediate.
func (l *linker) wide(p *Program, in *asm.Instruction) (isa.Instruction, error) {
	dst, ref := isa.Register(in.Dst), in.Reference()
	switch in.Src {
	case asm.PseudoMapFD, asm.PseudoMapValue:
		m, ok := l.maps[ref]
		if given, is := in.Map().(interface{ inVM() *Map }); is {
			m, ok = given.inVM(), true
		}
		if !ok || m == nil || m.vm != l.vm {
			return isa.Instruction{}, fmt.Errorf("there is no map %q", ref)
		}
		src := isa.Register(in.Src)
		return l.mapLoad(p, m, isa.Instruction{Op: isa.OpLoadImm64, Dst: dst, Src: src, Imm: in.Constant})
	case 0:
		if ref == "" {
			return isa.LoadImm64(dst, in.Constant), nil
		}
		if offset, ok := l.kconfigOffset(ref); ok {
			m, err := l.kconfigMap()
			if err != nil {
				return isa.Instruction{}, err
			}
			return isa.LoadImm64(dst, int64(m.table.(*arrayTable).base+offset)), p.holdMap(m)
		}
		// A symbol of the kernel; one that is not weak has to be there.
		addr, ok := l.o.Symbols[ref]
		if !ok && in.Constant != 0 {
			addr = uint64(in.Constant)
		}
		return isa.LoadImm64(dst, int64(addr)), nil
	}
	return isa.Instruction{}, &MissingError{What: "64-bit immediate of kind", Name: in.Src.String(), There: []string{"maps", "values of maps", "functions", "numbers"}}
}

func (p *Program) holdMap(m *Map) error {
	if slices.Contains(p.maps, m) {
		return nil
	}
	if !m.hold() {
		return fmt.Errorf("map %s is closed", m.name)
	}
	p.maps = append(p.maps, m)
	return nil
}

func (p *Program) dropMaps() {
	for _, m := range p.maps {
		m.Close()
	}
	p.maps = nil
}

// helper links a call of a helper.
func (l *linker) helper(p *Program, id int32) (isa.Instruction, error) {
	h := abi.HelperByID(id)
	if h == nil {
		return isa.Instruction{}, fmt.Errorf("helper %d does not exist: %w", id, EINVAL)
	}
	if given := l.o.Helpers[h.Name]; given != nil {
		return p.call(engine.Call{Kind: engine.CallHost, Name: h.Name}, given.host()), nil
	}
	if _, ok := h.Call(abi.Linux6_18, p.typ); !ok && p.typ != abi.ProgUnspec {
		return isa.Instruction{}, fmt.Errorf("programs of type %s may not call %s", p.typ, h.Name)
	}
	if id == helperTailCall {
		return p.call(engine.Call{Kind: engine.CallTail, Name: h.Name}, nil), nil
	}
	f := p.kind.helpers[id]
	if f == nil {
		f = helpers[id]
	}
	if f == nil {
		return isa.Instruction{}, &MissingError{What: "helper", Name: h.Name, There: HelperNames(p.typ)}
	}
	kind := engine.CallHost
	if id == helperCPU {
		kind = engine.CallCPU
	}
	return p.call(engine.Call{Kind: kind, Name: h.Name}, f), nil
}

// kfunc links a call of a kernel function.
func (l *linker) kfunc(p *Program, name string) (isa.Instruction, error) {
	if f := l.o.Kfuncs[name]; f != nil {
		return p.call(engine.Call{Kind: engine.CallHost, Name: name}, f.host()), nil
	}
	if f := kfuncs[name]; f != nil {
		return p.call(engine.Call{Kind: engine.CallHost, Name: name}, f), nil
	}
	return isa.Instruction{}, &MissingError{What: "kernel function", Name: name, There: KfuncNames()}
}

// call adds an entry to the program's table of calls, once for each function.
func (p *Program) call(c engine.Call, f helperFunc) isa.Instruction {
	for i := range p.calls {
		if p.calls[i] == c {
			return isa.Call(int32(i))
		}
	}
	p.calls, p.hosts = append(p.calls, c), append(p.hosts, f)
	return isa.Call(int32(len(p.calls) - 1))
}
