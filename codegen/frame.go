package codegen

import (
	"cmp"
	"slices"

	"github.com/skep-bpf/skep/isa"
)

// maxFrame is the size of a frame, and of all frames of a chain of calls
// together (MAX_BPF_STACK, include/linux/filter.h).
const maxFrame = 512

// annotate notes on every instruction which frame objects it may reach through
// the registers it reads, before these registers lose their names.
func (f *function) annotate() {
	if len(f.slots) == 0 {
		return
	}
	merge := func(dst reg, list []*slot) bool {
		changed := false
		for _, s := range list {
			if !slices.Contains(f.pointees[dst], s) {
				f.pointees[dst] = append(f.pointees[dst], s)
				changed = true
			}
		}
		return changed
	}
	for changed := true; changed; {
		changed = false
		for _, b := range f.blocks {
			for k := range b.insts {
				i := &b.insts[k]
				if i.Class() == isa.ClassALU64 && i.dst >= firstVirtual && i.Op.Source() == isa.SourceReg && i.src >= firstVirtual {
					changed = merge(i.dst, f.pointees[i.src]) || changed
				}
			}
		}
	}
	var uses []reg
	note := func(i *inst) {
		uses = i.uses(uses[:0])
		for _, r := range uses {
			for _, s := range f.pointees[r] {
				if !slices.Contains(i.touches, s) {
					i.touches = append(i.touches, s)
				}
			}
		}
	}
	for _, b := range f.blocks {
		for k := range b.insts {
			note(&b.insts[k])
		}
		if b.end == endIf {
			note(&b.cond)
		}
	}
}

// access tells what i does to frame objects: which one it overwrites whole,
// and calls fn for each that it may read, write or take the address of.
func (i *inst) access(fn func(*slot)) (whole *slot) {
	for _, s := range i.touches {
		fn(s)
	}
	if i.slot == nil {
		return nil
	}
	if c := i.Class(); (c == isa.ClassST || c == isa.ClassSTX && !i.IsAtomic()) &&
		i.Off == 0 && i.Op.Size().Bytes() == i.slot.size {
		return i.slot
	}
	fn(i.slot)
	return nil
}

// layoutFrame gives every frame object its place. Objects that are never in
// use at the same time share one: an object is in use from where something
// of it may have been written to where something of it may still be read.
func (f *function) layoutFrame() {
	n := len(f.slots)
	if n == 0 {
		return
	}
	type flow struct{ use, def, gen, liveIn, liveOut, inUseIn, inUseOut bitset }
	flows := make([]flow, len(f.blocks))
	for k, b := range f.blocks {
		fl := &flows[k]
		for _, s := range []*bitset{&fl.use, &fl.def, &fl.gen, &fl.liveIn, &fl.liveOut, &fl.inUseIn, &fl.inUseOut} {
			*s = newBitset(n)
		}
		visit := func(i *inst) {
			whole := i.access(func(s *slot) {
				if !fl.def.has(s.id) {
					fl.use.add(s.id)
				}
				fl.gen.add(s.id)
			})
			if whole != nil {
				fl.def.add(whole.id)
				fl.gen.add(whole.id)
			}
		}
		for k := range b.insts {
			visit(&b.insts[k])
		}
		if b.end == endIf {
			visit(&b.cond)
		}
	}
	for changed := true; changed; {
		changed = false
		for k := len(f.blocks) - 1; k >= 0; k-- {
			fl := &flows[k]
			for _, s := range f.blocks[k].successors() {
				changed = fl.liveOut.union(flows[s.id].liveIn) || changed
			}
			for w := range fl.liveIn {
				fl.liveIn[w] = fl.use[w] | fl.liveOut[w]&^fl.def[w]
			}
		}
		for k, b := range f.blocks {
			fl := &flows[k]
			for _, p := range b.preds {
				changed = fl.inUseIn.union(flows[p.id].inUseOut) || changed
			}
			changed = fl.inUseOut.union(fl.inUseIn) || changed
			changed = fl.inUseOut.union(fl.gen) || changed
		}
	}
	conflict := make([]bitset, n)
	for k := range conflict {
		conflict[k] = newBitset(n)
	}
	clash := func(s int, with bitset) {
		conflict[s].union(with)
		with.each(func(t int) { conflict[t].add(s) })
	}
	var used, accessed = newBitset(n), newBitset(n)
	for k, b := range f.blocks {
		fl := &flows[k]
		// Where each object has begun to be in use, going forward ...
		begun := make([]bitset, len(b.insts)+1)
		now := slices.Clone(fl.inUseIn)
		for j := range b.insts {
			begun[j] = slices.Clone(now)
			if w := b.insts[j].access(func(s *slot) { now.add(s.id) }); w != nil {
				now.add(w.id)
			}
		}
		begun[len(b.insts)] = now
		// ... and until where it still is, going back.
		live := slices.Clone(fl.liveOut)
		point := func(before bitset, i *inst) {
			// Everything the instruction accesses is in use during it,
			// together with all that is in use across it.
			for w := range used {
				used[w] = before[w] & live[w]
			}
			clear(accessed)
			whole := i.access(func(s *slot) { accessed.add(s.id) })
			accessed.each(func(s int) { used.add(s) })
			if whole != nil {
				used.add(whole.id)
			}
			used.each(func(s int) { clash(s, used) })
			if whole != nil {
				live.remove(whole.id)
			}
			accessed.each(func(s int) { live.add(s) })
		}
		if b.end == endIf {
			point(begun[len(b.insts)], &b.cond)
		}
		for j := len(b.insts) - 1; j >= 0; j-- {
			point(begun[j], &b.insts[j])
		}
	}
	for _, s := range f.slots {
		if s.escaped {
			for t := range n {
				conflict[s.id].add(t)
				conflict[t].add(s.id)
			}
		}
	}
	seen := newBitset(n)
	for k := range flows {
		seen.union(flows[k].gen)
	}
	order := slices.Clone(f.slots)
	slices.SortStableFunc(order, func(a, b *slot) int { return cmp.Compare(b.size, a.size) })
	var placed []*slot
	for _, s := range order {
		if !seen.has(s.id) {
			continue // no longer accessed
		}
		// The lowest place that no conflicting object takes.
		start := 0
		for again := true; again; {
			again = false
			for _, p := range placed {
				pStart := -p.off - p.size
				if conflict[s.id].has(p.id) && start < pStart+p.size && pStart < start+s.size {
					start = pStart + p.size
					again = true
				}
			}
		}
		s.off = -(start + s.size)
		placed = append(placed, s)
		f.frame = max(f.frame, start+s.size)
	}
}

// resolveSlots replaces frame objects by r10 and an offset.
func (f *function) resolveSlots() {
	for _, b := range f.blocks {
		out := make([]inst, 0, len(b.insts))
		for _, i := range b.insts {
			s := i.slot
			switch {
			case s == nil:
				out = append(out, i)
				continue
			case i.lea:
				off := s.off + int(i.Imm)
				out = append(out, inst{Instruction: isa.Mov64(0, 0), dst: i.dst, src: regFP, pos: i.pos})
				if off != 0 {
					out = append(out, inst{Instruction: isa.ALU64Imm(isa.Add, 0, int32(off)), dst: i.dst, src: noReg, pos: i.pos})
				}
				continue
			case i.Class() == isa.ClassLDX:
				i.src = regFP
			default:
				i.dst = regFP
			}
			i.Off += int16(s.off)
			out = append(out, i)
		}
		b.insts = out
	}
}
