package codegen

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// Which allocas a value may point into, found by following pointers through
// the function without regard to the order of things.
type pointees struct {
	of map[*ir.Value][]*ir.Value
	// escaped allocas have their address stored in memory: any load may
	// return it.
	escaped map[*ir.Value]bool
}

func findPointees(order []*ir.Block, live func(*ir.Value) bool) *pointees {
	p := &pointees{of: map[*ir.Value][]*ir.Value{}, escaped: map[*ir.Value]bool{}}
	add := func(v *ir.Value, list []*ir.Value) bool {
		changed := false
		for _, a := range list {
			if !slices.Contains(p.of[v], a) {
				p.of[v] = append(p.of[v], a)
				changed = true
			}
		}
		return changed
	}
	for changed := true; changed; {
		changed = false
		for _, b := range order {
			for _, v := range b.Values {
				if v.Op == ir.OpAlloca && live(v) {
					changed = add(v, []*ir.Value{v}) || changed
					continue
				}
				if !live(v) || !passesPointers(v) {
					continue
				}
				for _, a := range v.Args {
					changed = add(v, p.of[a]) || changed
				}
			}
			for _, e := range b.Succs {
				for i, a := range e.Args {
					changed = add(e.To.Params[i], p.of[a]) || changed
				}
			}
		}
	}
	for _, b := range order {
		for _, v := range b.Values {
			if live(v) {
				p.escapes(v)
			}
		}
	}
	return p
}

// passesPointers reports whether the result of v may be a pointer made from
// one of its operands.
func passesPointers(v *ir.Value) bool {
	switch v.Op {
	case ir.OpLoad, ir.OpStore, ir.OpMemCopy, ir.OpMemZero, ir.OpAtomic:
		return false
	case ir.OpCall:
		e, extern := v.Aux.(*ir.Extern)
		if !extern {
			return v.Type.IsPtr() || v.Type == ir.I64
		}
		// Helpers return what is not ours; a kfunc may give a buffer back.
		if e.Kind != ir.ExternKfunc || !v.Type.IsPtr() {
			return false
		}
		switch v.Type.Space {
		case ir.SpaceMem, ir.SpaceStack, ir.SpaceNone:
			return true
		}
		return false
	}
	return !v.Op.IsCompare()
}

func (p *pointees) escapes(v *ir.Value) {
	escape := func(v *ir.Value) {
		for _, a := range p.of[v] {
			p.escaped[a] = true
		}
	}
	switch v.Op {
	case ir.OpStore:
		escape(v.Args[1])
	case ir.OpAtomic:
		for _, a := range v.Args[1:] {
			escape(a)
		}
	case ir.OpCall:
		// A function of the program may store the address of one object in
		// another.
		_, local := v.Aux.(*ir.Func)
		if !local && !slices.ContainsFunc(v.Args, func(a *ir.Value) bool { return a.Op == ir.OpFunc }) {
			return
		}
		var all []*ir.Value
		for _, arg := range v.Args {
			for _, a := range p.of[arg] {
				if !slices.Contains(all, a) {
					all = append(all, a)
				}
			}
		}
		if len(all) > 1 {
			for _, a := range all {
				p.escaped[a] = true
			}
		}
	}
}
