package codegen

import (
	"slices"

	"github.com/skep-bpf/skep/isa"
)

// splitChecks gives bounded registers that were to be spilled a copy of their
// own from each comparison on: the comparison looks at the copy, and so does
// all that can only run behind it. The register itself may then be spilled like
// any other, since it is loaded in front of the check and never between the
// check and its use, where the verifier would have forgotten the bound. It
// reports whether there was anything to split.
func (f *function) splitChecks(list []reg) bool {
	changed := false
	f.linkPreds()
	for _, r := range list {
		if r < firstVirtual || !f.bounded[r] || f.checked[r] {
			continue
		}
		delete(f.bounded, r)
		for _, b := range f.blocks {
			if b.end == endIf && slices.Contains(b.cond.uses(nil), r) {
				changed = f.split(b, f.behind(b), r) || changed
			}
		}
	}
	return changed
}

// behind are the blocks that only run once b has.
func (f *function) behind(b *block) []*block {
	reached := make(map[*block]bool, len(f.blocks))
	reached[b] = true
	if f.blocks[0] != b {
		reached[f.blocks[0]] = true
		work := []*block{f.blocks[0]}
		for len(work) > 0 {
			at := work[len(work)-1]
			work = work[:len(work)-1]
			for _, s := range at.successors() {
				if !reached[s] {
					reached[s] = true
					work = append(work, s)
				}
			}
		}
	}
	var list []*block
	for _, x := range f.blocks {
		if !reached[x] {
			list = append(list, x)
		}
	}
	return list
}

// split gives r a copy from the comparison at the end of b on, if anything
// behind it uses r.
func (f *function) split(b *block, behind []*block, r reg) bool {
	used := false
	var regs []reg
	for _, x := range behind {
		for k := range x.insts {
			for _, d := range x.insts[k].defs(regs[:0]) {
				if d == r {
					return false // what is behind b is another value
				}
			}
			for _, u := range x.insts[k].uses(regs[:0]) {
				used = used || u == r
			}
		}
		if x.end == endIf {
			for _, u := range x.cond.uses(regs[:0]) {
				used = used || u == r
			}
		}
	}
	if !used {
		return false
	}
	c := f.newReg()
	f.bounded[c], f.checked[c] = true, true
	f.pointees[c] = f.pointees[r]
	b.insts = append(b.insts, inst{Instruction: isa.Mov64(0, 0), dst: c, src: r, pos: b.pos})
	rename := func(i *inst) {
		if i.src == r {
			i.src = c
		}
		if i.dst == r {
			i.dst = c
		}
	}
	rename(&b.cond)
	for _, x := range behind {
		for k := range x.insts {
			rename(&x.insts[k])
		}
		if x.end == endIf {
			rename(&x.cond)
		}
	}
	return true
}
