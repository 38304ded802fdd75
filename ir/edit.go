package ir

import (
	"slices"

	"github.com/skep-bpf/skep/source"
)

// Operands calls visit with the place of every value that v uses.
func (v *Value) Operands(visit func(**Value)) {
	for i := range v.Args {
		visit(&v.Args[i])
	}
}

// Operands calls visit with the place of every value that the terminator of b
// uses: the condition or result, and the arguments of edges.
func (b *Block) Operands(visit func(**Value)) {
	if b.Cond != nil {
		visit(&b.Cond)
	}
	for i := range b.Succs {
		for j := range b.Succs[i].Args {
			visit(&b.Succs[i].Args[j])
		}
	}
}

// Operands calls visit with the place of every use of a value in f.
func (f *Func) Operands(visit func(**Value)) {
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			v.Operands(visit)
		}
		b.Operands(visit)
	}
}

// A Use is one place where a value is used: by User, or by the terminator of
// Block when User is nil.
type Use struct {
	User  *Value
	Block *Block // where the use is
	// Arg is the index in User.Args. For a terminator it is -1 for Cond, else
	// the index of the argument in Succs[Succ].Args.
	Arg  int
	Succ int
}

// Uses lists, by Value.ID, where each value of f is used. It is a snapshot.
func Uses(f *Func) [][]Use {
	counts := UseCounts(f)
	total := 0
	for _, n := range counts {
		total += int(n)
	}
	backing := make([]Use, total)
	uses := make([][]Use, len(counts))
	for id, n := range counts {
		uses[id], backing = backing[:0:n], backing[n:]
	}
	add := func(v *Value, u Use) { uses[v.ID] = append(uses[v.ID], u) }
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			for i, a := range v.Args {
				add(a, Use{User: v, Block: b, Arg: i})
			}
		}
		if b.Cond != nil {
			add(b.Cond, Use{Block: b, Arg: -1})
		}
		for s, e := range b.Succs {
			for i, a := range e.Args {
				add(a, Use{Block: b, Arg: i, Succ: s})
			}
		}
	}
	return uses
}

// UseCounts counts, by Value.ID, the uses of each value of f.
func UseCounts(f *Func) []int32 {
	counts := make([]int32, f.NumValues())
	f.Operands(func(v **Value) { counts[(*v).ID]++ })
	return counts
}

// A Subst says which values are to be replaced by which, by Value.ID.
// It serves to replace many values at the cost of one walk over a function.
type Subst struct{ to []*Value }

// NewSubst returns a substitution for f that replaces nothing.
func NewSubst(f *Func) *Subst { return &Subst{make([]*Value, f.NumValues())} }

// Replace has every use of v become one of by.
func (s *Subst) Replace(v, by *Value) {
	for int(v.ID) >= len(s.to) {
		s.to = append(s.to, nil)
	}
	if by = s.Of(by); by != v {
		s.to[v.ID] = by
	}
}

// Of returns what v is replaced by in the end: itself if by nothing.
func (s *Subst) Of(v *Value) *Value {
	end := v
	for int(end.ID) < len(s.to) && s.to[end.ID] != nil {
		end = s.to[end.ID]
	}
	for v != end {
		next := s.to[v.ID]
		s.to[v.ID] = end
		v = next
	}
	return end
}

// Replaced reports whether v is replaced.
func (s *Subst) Replaced(v *Value) bool { return int(v.ID) < len(s.to) && s.to[v.ID] != nil }

// Apply replaces the operands throughout f and drops the replaced values,
// parameters excepted, from their blocks. It reports whether there were any.
func (s *Subst) Apply(f *Func) bool {
	changed := false
	for _, b := range f.Blocks {
		n := len(b.Values)
		b.Values = slices.DeleteFunc(b.Values, s.Replaced)
		changed = changed || len(b.Values) != n
	}
	f.Operands(func(v **Value) {
		if to := s.Of(*v); to != *v {
			*v = to
			changed = true
		}
	})
	return changed
}

// ReplaceAll makes every use of v in f one of by.
func (f *Func) ReplaceAll(v, by *Value) {
	f.Operands(func(p **Value) {
		if *p == v {
			*p = by
		}
	})
}

// InsertBefore puts v into b before place i of b.Values.
func (b *Block) InsertBefore(i int, v *Value) {
	v.Block = b
	b.Values = slices.Insert(b.Values, i, v)
}

// Append puts v at the end of b.
func (b *Block) Append(v *Value) {
	v.Block = b
	b.Values = append(b.Values, v)
}

// RemoveParam drops parameter i of b and the argument for it on the edges preds.
func (b *Block) RemoveParam(i int, preds []Pred) {
	b.Params = slices.Delete(b.Params, i, i+1)
	for _, p := range preds {
		e := p.Edge()
		e.Args = slices.Delete(e.Args, i, i+1)
	}
}

// RemoveUnreachable drops blocks that control cannot come to and reports
// whether there were any.
func (f *Func) RemoveUnreachable() bool {
	seen := make([]bool, f.NumBlocks())
	work := []*Block{f.Entry()}
	seen[f.Entry().ID] = true
	for len(work) > 0 {
		b := work[len(work)-1]
		work = work[:len(work)-1]
		for _, e := range b.Succs {
			if !seen[e.To.ID] {
				seen[e.To.ID] = true
				work = append(work, e.To)
			}
		}
	}
	n := len(f.Blocks)
	f.Blocks = slices.DeleteFunc(f.Blocks, func(b *Block) bool { return !seen[b.ID] })
	return len(f.Blocks) != n
}

// SplitEdge puts an empty block into an edge and returns it. The arguments
// are passed behind it.
func (f *Func) SplitEdge(p Pred) *Block {
	e := p.Edge()
	mid := f.NewBlock("split")
	mid.Term, mid.Pos = TermJump, p.Block.Pos
	mid.Succs = []Edge{*e}
	*e = Edge{To: mid}
	return mid
}

// SplitCritical puts blocks into all edges that lead from a block with
// several successors to one with several predecessors, so that each edge has
// a place for code of its own. It reports whether there were any.
func (f *Func) SplitCritical() bool {
	preds := make([]int, f.NumBlocks())
	for _, b := range f.Blocks {
		for _, e := range b.Succs {
			preds[e.To.ID]++
		}
	}
	changed := false
	for _, b := range slices.Clone(f.Blocks) {
		if len(b.Succs) < 2 {
			continue
		}
		for i, e := range b.Succs {
			if preds[e.To.ID] > 1 {
				f.SplitEdge(Pred{b, i})
				changed = true
			}
		}
	}
	return changed
}

// A Cloner copies blocks and values into a function.
type Cloner struct {
	To     *Func
	Values map[*Value]*Value // of the copy, by the original
	Blocks map[*Block]*Block
}

// CloneBlocks appends copies of blocks to c.To. Values and blocks that are
// not copied nor entered in c beforehand stay what they are, so code can be
// copied within a function.
func (c *Cloner) CloneBlocks(blocks []*Block) {
	if c.Values == nil {
		c.Values = map[*Value]*Value{}
	}
	if c.Blocks == nil {
		c.Blocks = map[*Block]*Block{}
	}
	var copies []*Block
	for _, b := range blocks {
		nb := c.To.NewBlock(b.Name)
		c.Blocks[b] = nb
		copies = append(copies, nb)
		for _, prm := range b.Params {
			v := nb.NewParam(prm.Type, prm.Name)
			v.Pos = prm.Pos
			c.Values[prm] = v
		}
		for _, v := range b.Values {
			nv := c.To.NewValue(v.Op, v.Type, v.Pos)
			nv.Int, nv.Aux, nv.Name = v.Int, v.Aux, v.Name
			nb.Append(nv)
			c.Values[v] = nv
		}
	}
	for i, b := range blocks {
		nb := copies[i]
		for j, v := range b.Values {
			nb.Values[j].Args = c.values(v.Args)
		}
		nb.Term, nb.Likely, nb.Pos = b.Term, b.Likely, b.Pos
		if b.Cond != nil {
			nb.Cond = c.value(b.Cond)
		}
		for _, e := range b.Succs {
			to := c.Blocks[e.To]
			if to == nil {
				to = e.To
			}
			nb.Succs = append(nb.Succs, Edge{To: to, Args: c.values(e.Args)})
		}
	}
}

func (c *Cloner) value(v *Value) *Value {
	if nv := c.Values[v]; nv != nil {
		return nv
	}
	return v
}

func (c *Cloner) values(list []*Value) []*Value {
	if list == nil {
		return nil
	}
	out := make([]*Value, len(list))
	for i, v := range list {
		out[i] = c.value(v)
	}
	return out
}

// Clone adds a copy of f under another name to its module, e.g. to
// specialise it for some of its arguments.
func (f *Func) Clone(name string) *Func {
	nf := &Func{
		Name: name, Linkage: f.Linkage, Section: f.Section, Result: f.Result,
		Proto: f.Proto, Module: f.Module, Pos: f.Pos,
	}
	c := Cloner{To: nf}
	c.CloneBlocks(f.Blocks)
	if f.Module != nil {
		f.Module.Funcs = append(f.Module.Funcs, nf)
	}
	return nf
}

// NewConst makes the integer n of type t, not yet in any block.
func (f *Func) NewConst(t Type, n int64, pos source.Span) *Value {
	v := f.NewValue(OpConst, t, pos)
	v.Int = Truncate(n, t)
	return v
}
