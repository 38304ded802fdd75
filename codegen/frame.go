package codegen

import (
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

// access tells what i does to frame objects: which bytes of one it overwrites,
// and the objects that it may read or take the address of.
func (i *inst) access() (e event) {
	for _, s := range i.touches {
		e.touches = append(e.touches, s.id)
	}
	if i.slot == nil {
		return e
	}
	if c := i.Class(); c == isa.ClassST || c == isa.ClassSTX && !i.IsAtomic() {
		from := int(i.Off)
		e.writes = append(e.writes, write{i.slot.id, from, from + i.Op.Size().Bytes()})
		return e
	}
	e.touches = append(e.touches, i.slot.id)
	return e
}

// layoutFrame gives every frame object its place.
func (f *function) layoutFrame() {
	if len(f.slots) == 0 {
		return
	}
	m := &memory{blocks: make([]memoryBlock, len(f.blocks))}
	for _, s := range f.slots {
		m.sizes = append(m.sizes, s.size)
		m.escaped = append(m.escaped, s.escaped)
	}
	for k, b := range f.blocks {
		mb := &m.blocks[k]
		visit := func(i *inst) {
			if e := i.access(); len(e.touches) > 0 || len(e.writes) > 0 {
				mb.events = append(mb.events, e)
			}
		}
		for j := range b.insts {
			visit(&b.insts[j])
		}
		if b.end == endIf {
			visit(&b.cond)
		}
		for _, s := range b.successors() {
			mb.succs = append(mb.succs, s.id)
		}
	}
	starts, total := m.pack()
	for k, s := range f.slots {
		s.off = -(starts[k] + (s.size+7)&^7)
	}
	f.frame = total
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
