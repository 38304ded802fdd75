package codegen

import "github.com/skep-bpf/skep/isa"

// reuseSpilled runs once registers are assigned: where a spilled register is
// still in a machine register, it is moved from there instead of loaded, or is
// where it is wanted already. Homes that nothing loads any more are not stored.
func (f *function) reuseSpilled() {
	loads := map[*slot]int{}
	for _, b := range f.blocks {
		in := map[*slot]reg{} // the register that holds what the home does
		kept := b.insts[:0]
		for _, i := range b.insts {
			if i.slot != nil && i.slot.spill && i.Class() == isa.ClassLDX {
				if r, ok := in[i.slot]; ok {
					if r == i.dst {
						continue
					}
					i = inst{Instruction: isa.Mov64(0, 0), dst: i.dst, src: r, pos: i.pos}
				} else {
					loads[i.slot]++
				}
			}
			for _, d := range i.defs(nil) {
				for s, r := range in {
					if r == d {
						delete(in, s)
					}
				}
			}
			if i.slot != nil && i.slot.spill {
				switch i.Class() {
				case isa.ClassLDX:
					in[i.slot] = i.dst
				case isa.ClassSTX:
					in[i.slot] = i.src
				default:
					delete(in, i.slot)
				}
			}
			kept = append(kept, i)
		}
		b.insts = kept
	}
	for _, b := range f.blocks {
		kept := b.insts[:0]
		for _, i := range b.insts {
			if i.slot != nil && i.slot.spill && loads[i.slot] == 0 {
				continue
			}
			kept = append(kept, i)
		}
		b.insts = kept
	}
	used := f.slots[:0]
	for _, s := range f.slots {
		if !s.spill || loads[s] > 0 {
			used = append(used, s)
		}
	}
	f.slots = used
	for n, s := range f.slots {
		s.id = n
	}
}
