package vm

import (
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// inlineLookups turns calls of bpf_map_lookup_elem whose map is known into
// shorter ones: for arrays what engines do without leaving the program, for hash
// maps a function of that map.
func (p *Program) inlineLookups(insns []isa.Instruction, target []bool) {
	for i, in := range insns {
		if !in.IsCall() || in.Src != isa.CallHelper || p.calls[in.Imm].Name != "bpf_map_lookup_elem" || p.calls[in.Imm].Kind != engine.CallHost {
			continue
		}
		m := p.mapOf(insns, target, i)
		if m == nil {
			continue
		}
		switch t := m.table.(type) {
		case *arrayTable:
			c := engine.Call{Kind: engine.CallArray, Name: "bpf_map_lookup_elem", Base: t.base, Size: t.stride, Count: t.n}
			if m.PerCPU() {
				c.Kind, c.Stride = engine.CallPerCPUArray, t.perCPU
			}
			insns[i] = p.call(c, mapLookup)
		case *hashTable:
			if m.keySize == 8 {
				// Base tells this map's calls from those of others.
				insns[i] = p.call(engine.Call{Name: "bpf_map_lookup_elem", Base: m.handle}, t.lookup8)
			}
		}
	}
}

// mapOf returns the map that r1 stands for at a call, if that is plain: its
// address was loaded since the last place that a jump leads to.
func (p *Program) mapOf(insns []isa.Instruction, target []bool, call int) *Map {
	for i := call - 1; i >= 0; i-- {
		in := insns[i]
		if target[i+1] || in.Class().IsJump() {
			// Another way may lead here; a conditional jump onwards is fine, but
			// rare between the two.
			return nil
		}
		if in.IsWide() && in.Dst == isa.R1 {
			if m := p.vm.mapAt(uint64(in.Imm)); m != nil && m.handle == uint32(in.Imm) && in.Imm>>32 == 0 {
				for _, held := range p.maps {
					if held == m {
						return m
					}
				}
			}
			return nil
		}
		if in.Dst == isa.R1 && !(in.Class() == isa.ClassST || in.Class() == isa.ClassSTX && !in.IsAtomic()) {
			return nil
		}
		if in.IsAtomic() && (in.Src == isa.R1 || in.Dst == isa.R1) {
			return nil
		}
	}
	return nil
}

// jumpTargets marks the instructions that a jump or a call leads to.
func jumpTargets(insns []isa.Instruction, slots []int, starts map[int]bool) []bool {
	at := make(map[int]int, len(insns))
	for i := range insns {
		at[slots[i]] = i
	}
	target := make([]bool, len(insns)+1)
	for i := range starts {
		target[i] = true
	}
	for i, in := range insns {
		if d, ok := in.Jump(); ok {
			if to, ok := at[slots[i+1]+d]; ok {
				target[to] = true
			}
		}
	}
	return target
}
