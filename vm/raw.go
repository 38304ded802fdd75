package vm

import (
	"fmt"
	"maps"
	"slices"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// NewRawProgram links instructions that belong to no program type, as
// conformance suites have them: r1 is the address of RunOptions.Context and r2
// its length. Helpers are called by number; there are no maps.
func (vm *VM) NewRawProgram(name string, insns []isa.Instruction, o *LoadOptions) (*Program, error) {
	if o == nil {
		o = &LoadOptions{}
	}
	p := &Program{vm: vm, name: name, typ: abi.ProgUnspec, kind: rawKind, refs: 1}
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
		case in.IsWide() && in.Src != 0:
			err = fmt.Errorf("there are no maps")
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
			return nil, fmt.Errorf("program %s: %w", name, &isa.EncodingError{Index: i, Slot: slots[i], Err: err})
		}
	}
	funcs := slices.Sorted(maps.Keys(starts))
	for i, at := range loads {
		fn, _ := slices.BinarySearch(funcs, at)
		out[i] = isa.LoadImm64(out[i].Dst, int64(fn))
	}
	var err error
	if p.linked, err = engine.New(name, out, funcs, p.calls); err != nil {
		return nil, err
	}
	if p.code, err = vm.engine.Compile(p.linked, engine.Options{Blind: o.Untrusted}); err != nil {
		return nil, err
	}
	return p, vm.addProgram(p)
}

var rawKind = &progKind{prepare: prepareBytes(0, 1<<20), finish: finishBytes}
