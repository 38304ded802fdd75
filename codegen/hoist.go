package codegen

// hoist takes what both ways of a branch begin with in front of it: addresses
// and constants, which cost the same there and are written once.
func (f *function) hoist() {
	f.linkPreds()
	single := map[reg]int{}
	for _, b := range f.blocks {
		for k := range b.insts {
			for _, d := range b.insts[k].defs(nil) {
				single[d]++
			}
		}
	}
	renamed := map[reg]reg{}
	for _, b := range f.blocks {
		if b.end != endIf {
			continue
		}
		x, y := b.succs[0], b.succs[1]
		if x == y || len(x.preds) != 1 || len(y.preds) != 1 {
			continue
		}
		for len(x.insts) > 0 && len(y.insts) > 0 {
			i, j := x.insts[0], y.insts[0]
			if !i.rematerialisable() || i.reload || i.dst < firstVirtual || j.dst < firstVirtual || single[i.dst] != 1 || single[j.dst] != 1 || !sameValue(i, j) {
				break
			}
			b.insts = append(b.insts, i)
			x.insts, y.insts = x.insts[1:], y.insts[1:]
			renamed[j.dst] = i.dst
			f.pointees[i.dst] = union(f.pointees[i.dst], f.pointees[j.dst])
		}
	}
	if len(renamed) == 0 {
		return
	}
	name := func(r *reg) {
		for {
			to, ok := renamed[*r]
			if !ok {
				return
			}
			*r = to
		}
	}
	for _, b := range f.blocks {
		for k := range b.insts {
			name(&b.insts[k].dst)
			name(&b.insts[k].src)
		}
		name(&b.cond.dst)
		name(&b.cond.src)
	}
}

// sameValue reports whether two instructions compute the same.
func sameValue(i, j inst) bool {
	return i.Instruction == j.Instruction && i.src == j.src && i.slot == j.slot && i.lea == j.lea &&
		i.sym == j.sym && i.reloc == j.reloc && i.core == nil && j.core == nil && i.reload == j.reload
}

func union(a, b []*slot) []*slot {
	for _, s := range b {
		found := false
		for _, t := range a {
			found = found || s == t
		}
		if !found {
			a = append(a, s)
		}
	}
	return a
}
