package vm

import (
	"fmt"
	"maps"
	"slices"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// Code is a program that is given as instructions.
type Code struct {
	Name string
	// Type decides what r1 points to and which helpers may be called. For
	// abi.ProgUnspec, r1 is the address of RunOptions.Context and r2 its length, as
	// conformance suites have it.
	Type   abi.ProgType
	Attach abi.AttachType
	Insns  []isa.Instruction
	// Maps are those that 64-bit loads name, by descriptor.
	Maps map[int32]*Map
}

// NewProgramFromCode links a program that is given as instructions. Helpers are
// called by number.
func (vm *VM) NewProgramFromCode(c Code, o *LoadOptions) (*Program, error) {
	if o == nil {
		o = &LoadOptions{}
	}
	p := &Program{vm: vm, name: c.Name, typ: c.Type, attach: c.Attach, kind: rawKind, refs: 1}
	if c.Type != abi.ProgUnspec {
		if p.kind = progKinds[c.Type]; p.kind == nil {
			return nil, &MissingError{What: "program type", Name: c.Type.String(), There: names(ProgTypes())}
		}
	}
	err := vm.linkCode(p, c, o)
	if err == nil {
		p.code, err = vm.engine.Compile(p.linked, o.defences())
	}
	if err != nil {
		p.dropMaps()
		return nil, err
	}
	return p, vm.addProgram(p)
}

func (vm *VM) linkCode(p *Program, c Code, o *LoadOptions) error {
	name, insns := c.Name, c.Insns
	l := &linker{vm: vm, o: o}
	out := slices.Clone(insns)
	slots := make([]int, len(out)+1)
	for i := range out {
		slots[i+1] = slots[i] + out[i].Size()
	}
	starts := map[int]bool{0: true}
	loads := map[int]int{}
	for i, in := range out {
		var err error
		distance, function := in.Imm, false
		switch {
		case in.IsCall() && in.Src == isa.CallHelper:
			out[i], err = l.helper(p, int32(in.Imm))
		case in.IsCall() && in.Src == isa.CallKernel:
			err = fmt.Errorf("kernel functions have no names here")
		case in.IsCall():
			function = true
		case in.IsWide() && in.Src == isa.PseudoFunc:
			function, distance = true, int64(in.Low())-1
		case in.IsWide() && (in.Src == isa.PseudoMapFD || in.Src == isa.PseudoMapValue):
			out[i], err = l.mapLoad(p, c.Maps[in.Low()], in)
		case in.IsWide() && in.Src != 0:
			err = fmt.Errorf("a 64-bit immediate of kind %d is not understood", in.Src)
		}
		if function {
			at, ok := slices.BinarySearch(slots[:len(out)], slots[i+1]+int(distance))
			if !ok {
				err = fmt.Errorf("no instruction is at slot %d", slots[i+1]+int(distance))
			}
			starts[at] = true
			if in.IsWide() {
				loads[i] = at
			}
		}
		if err != nil {
			return fmt.Errorf("program %s: %w", name, &isa.EncodingError{Index: i, Slot: slots[i], Err: err})
		}
	}
	funcs := slices.Sorted(maps.Keys(starts))
	for i, at := range loads {
		fn, _ := slices.BinarySearch(funcs, at)
		out[i] = isa.LoadImm64(out[i].Dst, int64(fn))
	}
	if o.Helpers["bpf_map_lookup_elem"] == nil {
		p.inlineLookups(out, jumpTargets(out, slots, starts))
	}
	var err error
	p.linked, err = engine.New(name, out, funcs, p.calls)
	return err
}

// mapLoad links a 64-bit load of a map's address, or of one in its value.
func (l *linker) mapLoad(p *Program, m *Map, in isa.Instruction) (isa.Instruction, error) {
	if m == nil || m.vm != l.vm {
		return in, fmt.Errorf("there is no map with the descriptor %d", in.Low())
	}
	if err := p.holdMap(m); err != nil {
		return in, err
	}
	if in.Src == isa.PseudoMapFD {
		return isa.LoadImm64(in.Dst, int64(m.handle)), nil
	}
	offset := uint32(in.High())
	if t, ok := m.table.(*arenaTable); ok && uint64(offset) < uint64(t.n)*pageSize {
		return isa.LoadImm64(in.Dst, int64(t.base+offset)), nil
	}
	a, ok := m.table.(*arrayTable)
	if !ok || a.n != 1 || m.PerCPU() || int64(offset) >= int64(m.valueSize) {
		return in, fmt.Errorf("an address %d bytes into the value of map %s: %w", offset, m, EINVAL)
	}
	return isa.LoadImm64(in.Dst, int64(a.base+offset)), nil
}

var rawKind = &progKind{prepare: prepareBytes(0, 1<<20), finish: finishBytes, plain: true}
