package codegen

import (
	"fmt"
	"strings"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// A reg is a machine register (0 to 10, as isa counts them) or a virtual one.
// Virtual registers may be written several times: the form is not SSA.
type reg int32

const (
	noReg        reg = -1
	regFP        reg = 10
	firstVirtual reg = 11
)

func (r reg) String() string {
	if r < firstVirtual {
		return fmt.Sprintf("r%d", int32(r))
	}
	return fmt.Sprintf("v%d", int32(r))
}

// A slot is an object in the frame: an alloca, or the home of a spilled register.
type slot struct {
	id   int
	size int // bytes; it takes a multiple of 8
	// off is the distance from the frame pointer, negative, once it is known.
	off int
	// escaped objects have their address stored somewhere, so they live as
	// long as the frame.
	escaped bool
	spill   bool // the home of a spilled register, 8 bytes
	name    string
	pos     source.Span
}

// An inst is an instruction whose registers may be virtual. Operands that are
// not registers yet stand beside the isa form: a frame slot takes the place of
// the base register of a memory access.
type inst struct {
	isa.Instruction // Dst and Src are filled in at the end
	dst, src        reg
	// slot is the frame object that is accessed (Off counts from its start),
	// or whose address plus Imm is taken when lea is set.
	slot *slot
	lea  bool
	// nargs is how many of r1 to r5 a call reads.
	nargs int
	// touches lists the frame objects that a call may read or write.
	touches []*slot

	// reload marks the load of a spilled register that is used right here: it
	// can be repeated.
	reload bool
	// keep marks a load that stays though nothing reads its result.
	keep bool

	sym   any // what a relocation refers to, with its kind
	reloc object.RelocKind
	core  *coreUse
	pos   source.Span
}

// opLea stands for taking the address of a slot; it becomes a move and an addition.
const opLea = isa.Opcode(isa.ClassALU64) | isa.Opcode(isa.Mov) | isa.Opcode(isa.SourceImm)

const opMov32Imm = isa.Opcode(isa.ClassALU) | isa.Opcode(isa.Mov) | isa.Opcode(isa.SourceImm)

// isCopy reports whether i does nothing but move one register to another.
func (i *inst) isCopy() bool {
	return i.Op == isa.Opcode(isa.ClassALU64)|isa.Opcode(isa.Mov)|isa.Opcode(isa.SourceReg) && i.Off == 0
}

// isMovImm reports whether i loads a 32-bit immediate, sign extended.
func (i *inst) isMovImm() bool { return i.Op == opLea && !i.lea && i.core == nil }

// uses appends the registers that i reads.
func (i *inst) uses(buf []reg) []reg {
	add := func(r reg) {
		if r >= 0 && r != regFP {
			buf = append(buf, r)
		}
	}
	switch i.Class() {
	case isa.ClassALU, isa.ClassALU64:
		op := isa.ALUOp(i.Op & 0xf0)
		if op != isa.Mov {
			add(i.dst)
		}
		if i.Op.Source() == isa.SourceReg && op != isa.End {
			add(i.src)
		}
	case isa.ClassLDX:
		if i.slot == nil {
			add(i.src)
		}
	case isa.ClassST:
		if i.slot == nil {
			add(i.dst)
		}
	case isa.ClassSTX:
		if i.slot == nil {
			add(i.dst)
		}
		add(i.src)
		if i.IsAtomic() && i.AtomicOp() == isa.CmpXchg {
			add(0)
		}
	case isa.ClassJMP, isa.ClassJMP32:
		switch {
		case i.IsCall():
			for r := range i.nargs {
				add(reg(r + 1))
			}
		case i.Op.JumpOp().IsCompare():
			add(i.dst)
			if i.Op.Source() == isa.SourceReg {
				add(i.src)
			}
		}
	}
	return buf
}

// defs appends the registers that i writes. Calls write r0 to r5: the
// arguments are lost.
func (i *inst) defs(buf []reg) []reg {
	switch i.Class() {
	case isa.ClassALU, isa.ClassALU64, isa.ClassLDX, isa.ClassLD:
		return append(buf, i.dst)
	case isa.ClassSTX:
		if i.IsAtomic() {
			switch op := i.AtomicOp(); {
			case op == isa.CmpXchg:
				return append(buf, 0)
			case op&isa.Fetch != 0:
				return append(buf, i.src)
			}
		}
	case isa.ClassJMP:
		if i.IsCall() {
			return append(buf, 0, 1, 2, 3, 4, 5)
		}
	}
	return buf
}

// hasEffect reports whether i must be kept even when what it defines is not read.
func (i *inst) hasEffect() bool {
	switch i.Class() {
	case isa.ClassST, isa.ClassSTX, isa.ClassJMP, isa.ClassJMP32:
		return true
	}
	return i.keep
}

// rematerialisable reports whether i can be repeated wherever its result is
// used: it reads nothing that changes in between.
func (i *inst) rematerialisable() bool {
	return i.Op == opLea || i.Op == opMov32Imm || i.Class() == isa.ClassLD || i.reload
}

// end is how a machine block ends.
type end uint8

const (
	endJump end = iota // to succs[0]
	endIf              // to succs[0] when cond holds, else to succs[1]
	endExit            // returns r0
)

// A block is a sequence of machine instructions with one end.
type block struct {
	id    int
	insts []inst
	end   end
	cond  inst // the comparison of an endIf
	succs [2]*block
	// reads0 tells that an endExit returns a value in r0.
	reads0 bool
	likely ir.Likely
	pos    source.Span // of the end

	preds []*block
	depth int  // of loops
	cold  bool // reached only by unlikely edges
	freq  float64

	// liveness
	use, def, in, out bitset
}

func (b *block) successors() []*block {
	switch b.end {
	case endJump:
		return b.succs[:1]
	case endIf:
		return b.succs[:2]
	}
	return nil
}

// A function is a function in machine form.
type function struct {
	ir     *ir.Func
	blocks []*block // blocks[0] is the entry
	nregs  reg
	slots  []*slot
	// pointees are the frame objects that a virtual register may point into.
	pointees map[reg][]*slot
	// unspillable registers are so short-lived that spilling gains nothing.
	unspillable map[reg]bool
	// bounded registers are sizes and offsets that the program compares with
	// a bound: the verifier forgets it when the value goes through the stack.
	bounded map[reg]bool
	// checked registers are copies of bounded ones that live from a check to
	// the uses behind it; see splitChecks.
	checked map[reg]bool
	frame   int // bytes of stack used
}

func (f *function) newReg() reg {
	r := f.nregs
	f.nregs++
	return r
}

func (f *function) newBlock() *block {
	b := &block{id: len(f.blocks)}
	f.blocks = append(f.blocks, b)
	return b
}

func (f *function) newSlot(size int, name string, pos source.Span) *slot {
	s := &slot{id: len(f.slots), size: size, name: name, pos: pos}
	f.slots = append(f.slots, s)
	return s
}

// linkPreds recomputes the predecessors and forgets blocks that cannot be reached.
func (f *function) linkPreds() {
	for _, b := range f.blocks {
		b.preds = b.preds[:0]
	}
	seen := make(map[*block]bool, len(f.blocks))
	stack := []*block{f.blocks[0]}
	seen[f.blocks[0]] = true
	for len(stack) > 0 {
		b := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, s := range b.successors() {
			s.preds = append(s.preds, b)
			if !seen[s] {
				seen[s] = true
				stack = append(stack, s)
			}
		}
	}
	kept := f.blocks[:0]
	for _, b := range f.blocks {
		if seen[b] {
			b.id = len(kept)
			kept = append(kept, b)
		}
	}
	clear(f.blocks[len(kept):])
	f.blocks = kept
}

// String shows f for people.
func (f *function) String() string {
	var b strings.Builder
	for _, blk := range f.blocks {
		fmt.Fprintf(&b, "b%d: depth %d\n", blk.id, blk.depth)
		for n := range blk.insts {
			fmt.Fprintf(&b, "\t%s\n", blk.insts[n].String())
		}
		switch blk.end {
		case endJump:
			fmt.Fprintf(&b, "\tgoto b%d\n", blk.succs[0].id)
		case endIf:
			fmt.Fprintf(&b, "\t%s -> b%d else b%d\n", blk.cond.String(), blk.succs[0].id, blk.succs[1].id)
		case endExit:
			b.WriteString("\texit\n")
		}
	}
	return b.String()
}

func (i *inst) String() string {
	s := i.Instruction
	text := fmt.Sprintf("%#02x %v %v off %d imm %d", uint8(s.Op), i.dst, i.src, s.Off, s.Imm)
	if i.slot != nil {
		text += fmt.Sprintf(" slot%d", i.slot.id)
	}
	return text
}

// A bitset is a set of small numbers.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (s bitset) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }
func (s bitset) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s bitset) remove(i int)   { s[i>>6] &^= 1 << (i & 63) }

// union adds the members of t and reports whether there was a new one.
func (s bitset) union(t bitset) bool {
	changed := uint64(0)
	for i, w := range t {
		changed |= w &^ s[i]
		s[i] |= w
	}
	return changed != 0
}
