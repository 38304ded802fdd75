package codegen

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// maxInsns is the most instructions a program can have (BPF_COMPLEXITY_LIMIT_INSNS,
// include/linux/bpf.h).
const maxInsns = 1_000_000

// tidy removes empty blocks, branches without a choice and jumps to the only
// successor of a block.
func (f *function) tidy() {
	final := func(b *block) *block {
		for n := 0; n < len(f.blocks) && b.end == endJump && len(b.insts) == 0; n++ {
			b = b.succs[0]
		}
		return b
	}
	for _, b := range f.blocks {
		for n := range b.successors() {
			b.succs[n] = final(b.succs[n])
		}
		if b.end == endIf && b.succs[0] == b.succs[1] {
			b.end = endJump
		}
	}
	f.linkPreds()
	for _, b := range f.blocks {
		for b.end == endJump && len(b.succs[0].preds) == 1 && b.succs[0] != b && b.succs[0] != f.blocks[0] {
			next := b.succs[0]
			b.insts = append(b.insts, next.insts...)
			b.end, b.cond, b.succs, b.reads0, b.likely = next.end, next.cond, next.succs, next.reads0, next.likely
			b.pos = next.pos
			next.insts, next.end, next.preds = nil, endExit, nil
			for _, s := range b.successors() {
				for i, p := range s.preds {
					if p == next {
						s.preds[i] = b
					}
				}
			}
		}
	}
	f.linkPreds()
}

// order arranges the blocks so that most control falls through: each before
// its successors, loops in one piece, seldom-run blocks at the end.
func (f *function) order() []*block {
	f.estimate()
	seen := make([]bool, len(f.blocks))
	post := make([]*block, 0, len(f.blocks))
	type frame struct {
		b     *block
		succs [2]*block
		n     int
	}
	push := func(stack []frame, b *block) []frame {
		seen[b.id] = true
		fr := frame{b: b}
		// What is visited last is placed next to b: a successor inside the
		// loop, else the likely one, else the first.
		fr.n = copy(fr.succs[:], b.successors())
		if fr.n == 2 {
			first, second := fr.succs[0], fr.succs[1]
			next := first
			switch {
			case second.depth > first.depth:
				next = second
			case second.depth == first.depth && b.likely == ir.Else:
				next = second
			case second.depth == first.depth && b.likely == ir.Unknown && b.cond.Op.JumpOp() == isa.Set:
				next = second // there is no jump for "no bit is set"
			}
			if next == first {
				fr.succs[0], fr.succs[1] = second, first
			}
		}
		return append(stack, fr)
	}
	stack := push(nil, f.blocks[0])
	visited := make(map[*block]int)
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if k := visited[top.b]; k < top.n {
			visited[top.b]++
			if s := top.succs[k]; !seen[s.id] {
				stack = push(stack, s)
			}
			continue
		}
		post = append(post, top.b)
		stack = stack[:len(stack)-1]
	}
	slices.Reverse(post)
	out := make([]*block, 0, len(post))
	for _, b := range post {
		if !b.cold {
			out = append(out, b)
		}
	}
	for _, b := range post {
		if b.cold {
			out = append(out, b)
		}
	}
	return out
}

// An item is an instruction in its place, or a label before one.
type item struct {
	inst
	label  *block // the block that begins here; no instruction
	target *block // of a jump
}

// emit turns the ordered blocks into instructions.
func (g *generator) emit(f *function, out *object.Func) {
	blocks := f.order()
	var items []item
	for n, b := range blocks {
		items = append(items, item{label: b})
		for _, i := range b.insts {
			items = append(items, item{inst: i})
		}
		var next *block
		if n+1 < len(blocks) {
			next = blocks[n+1]
		}
		jump := func(to *block) {
			if to == next {
				return
			}
			if to.end == endExit && len(to.insts) == 0 {
				items = append(items, item{inst: inst{Instruction: isa.Exit(), pos: to.pos}})
				return
			}
			items = append(items, item{inst: inst{Instruction: isa.Jump(0), pos: b.pos}, target: to})
		}
		switch b.end {
		case endJump:
			jump(b.succs[0])
		case endExit:
			items = append(items, item{inst: inst{Instruction: isa.Exit(), pos: b.pos}})
		case endIf:
			cond, then, els := b.cond, b.succs[0], b.succs[1]
			if then == next {
				if op, ok := cond.Op.JumpOp().Negate(); ok {
					cond.Op = cond.Op&0x0f | isa.Opcode(op)
					then, els = els, then
				}
			}
			items = append(items, item{inst: cond, target: then})
			jump(els)
		}
	}
	items = g.reach(items)
	index := make(map[*block]int)
	slot := 0
	for _, it := range items {
		if it.label != nil {
			index[it.label] = slot
			continue
		}
		slot += it.Size()
	}
	if slot > maxInsns {
		g.fail(source.Errorf(f.ir.Pos, "program-too-large",
			"%q becomes %d instructions, but the kernel takes at most %d", f.ir.Name, slot, maxInsns).Notef("%s", lessCode))
		return
	}
	slot = 0
	var last source.Span
	lastLine := 0
	for _, it := range items {
		if it.label != nil {
			continue
		}
		i := it.Instruction
		if it.dst > 0 {
			i.Dst = isa.Register(it.dst)
		}
		if it.src > 0 {
			i.Src = isa.Register(it.src)
		}
		slot += i.Size()
		n := len(out.Insns)
		if it.target != nil {
			if err := i.SetJump(index[it.target] - slot); err != nil {
				g.fail(source.Errorf(f.ir.Pos, "program-too-large", "%q: %v", f.ir.Name, err))
				return
			}
		}
		if it.sym != nil {
			out.Relocs = append(out.Relocs, object.Reloc{Insn: n, Kind: it.reloc, Symbol: it.sym})
		}
		if it.core != nil {
			out.CORE = append(out.CORE, g.core.record(n, it.core))
		}
		pos := it.pos
		if !pos.IsValid() && n == 0 {
			pos = f.ir.Pos
		}
		if pos.IsValid() {
			if line := pos.Pos().Line; pos.File != last.File || line != lastLine {
				out.Lines = append(out.Lines, object.Line{Insn: n, Span: pos})
				last, lastLine = pos, line
			}
		}
		out.Insns = append(out.Insns, i)
	}
}

// reach makes jumps that are too far for 16 bits possible: by a long jump
// where the CPU has it, else by stepping stones between blocks.
func (g *generator) reach(items []item) []item {
	const far = 32_000
	total := 0
	for i := range items {
		if items[i].label == nil {
			total += items[i].Size()
		}
	}
	if total <= far {
		return items
	}
	stones := map[*block][]*block{} // by where they lead
	for {
		at := make([]int, len(items)+1) // slot of each item
		labels := make(map[*block]int)
		slot := 0
		for i := range items {
			at[i] = slot
			if items[i].label != nil {
				labels[items[i].label] = slot
			} else {
				slot += items[i].Size()
			}
		}
		at[len(items)] = slot
		changed := false
		for i := range items {
			it := &items[i]
			if it.target == nil || it.Class() == isa.ClassJMP32 && it.Op.JumpOp() == isa.Always {
				continue
			}
			distance := labels[it.target] - at[i]
			if distance > -far && distance < far {
				continue
			}
			changed = true
			if g.cpu >= 4 && it.Op.JumpOp() == isa.Always {
				it.Instruction = isa.JumpLong(0)
				continue
			}
			// A stone that leads there and is on the way does for all that can
			// reach it: a script's exit is the target of thousands of jumps.
			onWay := func(s *block) bool {
				d := labels[s] - at[i]
				return distance > 0 && 0 < d && d < far || distance < 0 && -far < d && d < 0
			}
			if s := slices.IndexFunc(stones[it.target], onWay); s >= 0 {
				it.target = stones[it.target][s]
				continue
			}
			// Else one is laid, nearer to the target: jump over it when control
			// would run into it.
			want := at[i] + far - 1000
			if distance < 0 {
				want = at[i] - far + 1000
			}
			k, _ := slices.BinarySearch(at[:len(items)], want)
			for k < len(items) && items[k].label == nil && k+1 < len(items) && at[k] < want+500 {
				k++
			}
			stone, after := &block{}, &block{}
			long := isa.Jump(0)
			if g.cpu >= 4 {
				long = isa.JumpLong(0)
			}
			target := it.target
			it.target = stone
			stones[target] = append(stones[target], stone)
			items = slices.Insert(items, k,
				item{inst: inst{Instruction: isa.Jump(0), dst: noReg, src: noReg}, target: after},
				item{label: stone},
				item{inst: inst{Instruction: long, dst: noReg, src: noReg}, target: target},
				item{label: after})
			break
		}
		if !changed {
			return items
		}
	}
}
