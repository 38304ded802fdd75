package opt

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// inlineSize is up to how many values a subprogram is copied into its callers
// even if there are several.
const inlineSize = 12

// inlineLimit is how large a function may become by inlining. The kernel
// takes a million instructions in all, but its stack holds 512 bytes only,
// and people want to read what was made of their code.
const inlineLimit = 20_000

// inline copies static subprograms that are small, or called from one place,
// to where they are called, and drops those that nobody calls any more.
func inline(m *ir.Module) bool {
	changed := false
	calls, refs := references(m)
	recursive := map[*ir.Func]bool{}
	for _, f := range m.Funcs {
		recursive[f] = reaches(f, f)
	}
	// Callees first, so that what is copied has its own calls inlined.
	for _, f := range bottomUp(m) {
		size := funcSize(f)
		for i := 0; i < len(f.Blocks); i++ {
			b := f.Blocks[i]
			for j, v := range b.Values {
				callee, ok := v.Aux.(*ir.Func)
				if !ok || v.Op != ir.OpCall || callee == f || callee.Linkage != ir.Static || recursive[callee] {
					continue
				}
				n := funcSize(callee)
				if n > inlineSize && (calls[callee] > 1 || refs[callee]) || size+n > inlineLimit {
					continue
				}
				copyCall(f, b, j)
				size += n
				changed = true
				break // the rest of b is a block of its own now
			}
		}
		if changed {
			calls, refs = references(m)
		}
	}
	return dropUncalled(m) || changed
}

// references counts the calls of each function and tells which are spoken of
// in other ways.
func references(m *ir.Module) (calls map[*ir.Func]int, refs map[*ir.Func]bool) {
	calls, refs = map[*ir.Func]int{}, map[*ir.Func]bool{}
	for _, f := range m.Funcs {
		for _, b := range f.Blocks {
			for _, v := range b.Values {
				if callee, ok := v.Aux.(*ir.Func); ok {
					if v.Op == ir.OpCall {
						calls[callee]++
					} else {
						refs[callee] = true
					}
				}
			}
		}
	}
	return calls, refs
}

func funcSize(f *ir.Func) int {
	n := 0
	for _, b := range f.Blocks {
		n += 1 + len(b.Values)
	}
	return n
}

func callees(f *ir.Func) []*ir.Func {
	var list []*ir.Func
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			if c, ok := v.Aux.(*ir.Func); ok && !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// bottomUp lists the functions of m, callees before callers.
func bottomUp(m *ir.Module) []*ir.Func {
	var out []*ir.Func
	seen := map[*ir.Func]bool{}
	var visit func(f *ir.Func)
	visit = func(f *ir.Func) {
		if seen[f] {
			return
		}
		seen[f] = true
		for _, c := range callees(f) {
			visit(c)
		}
		out = append(out, f)
	}
	for _, f := range m.Funcs {
		visit(f)
	}
	return out
}

// reaches reports whether f may call target.
func reaches(f, target *ir.Func) bool {
	seen := map[*ir.Func]bool{}
	var visit func(f *ir.Func) bool
	visit = func(f *ir.Func) bool {
		if seen[f] {
			return false
		}
		seen[f] = true
		for _, c := range callees(f) {
			if c == target || visit(c) {
				return true
			}
		}
		return false
	}
	return visit(f)
}

// copyCall replaces the call at place i of b by a copy of the callee's body.
func copyCall(f *ir.Func, b *ir.Block, i int) {
	call := b.Values[i]
	callee := call.Aux.(*ir.Func)

	// What follows the call goes to a block of its own.
	rest := f.NewBlock(callee.Name + ".done")
	for _, v := range b.Values[i+1:] {
		rest.Append(v)
	}
	b.Values = slices.Delete(b.Values, i, len(b.Values))
	rest.Term, rest.Cond, rest.Succs, rest.Likely, rest.Pos = b.Term, b.Cond, b.Succs, b.Likely, b.Pos
	if call.Type.Kind != ir.Void {
		f.ReplaceAll(call, rest.NewParam(call.Type, call.Name))
	}

	c := ir.Cloner{To: f}
	c.CloneBlocks(callee.Blocks)
	entry := c.Blocks[callee.Entry()]
	b.Term, b.Cond, b.Likely, b.Pos = ir.TermJump, nil, ir.Unknown, call.Pos
	b.Succs = []ir.Edge{{To: entry, Args: call.Args}}

	// Allocas belong to the caller's frame now.
	at := 0
	first := f.Entry()
	for at < len(first.Values) && first.Values[at].Op == ir.OpAlloca {
		at++
	}
	entry.Values = slices.DeleteFunc(entry.Values, func(v *ir.Value) bool {
		if v.Op != ir.OpAlloca {
			return false
		}
		first.InsertBefore(at, v)
		at++
		return true
	})
	for _, from := range callee.Blocks {
		nb := c.Blocks[from]
		if nb.Term != ir.TermReturn {
			continue
		}
		e := ir.Edge{To: rest}
		if len(rest.Params) > 0 {
			e.Args = []*ir.Value{nb.Cond}
		}
		nb.Term, nb.Cond, nb.Succs = ir.TermJump, nil, []ir.Edge{e}
	}
}

// dropUncalled drops static functions that nothing refers to.
func dropUncalled(m *ir.Module) bool {
	if !slices.ContainsFunc(m.Funcs, func(f *ir.Func) bool { return f.Linkage != ir.Static }) {
		return false // a library: what will be called is not known
	}
	live := map[*ir.Func]bool{}
	var mark func(f *ir.Func)
	mark = func(f *ir.Func) {
		if live[f] {
			return
		}
		live[f] = true
		for _, c := range callees(f) {
			mark(c)
		}
	}
	for _, f := range m.Funcs {
		if f.Linkage != ir.Static {
			mark(f)
		}
	}
	n := len(m.Funcs)
	m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return !live[f] })
	return len(m.Funcs) != n
}
