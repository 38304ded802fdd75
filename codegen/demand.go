package codegen

import "github.com/skep-bpf/skep/ir"

// Facts about the values of a function that selection needs.
type demand struct {
	live []bool  // by value ID: the value is needed at all
	uses []int32 // by live values and terminators
	// conds counts the uses as the condition of a branch, where a comparison
	// becomes part of the jump.
	conds []int32
	// clean says that somebody reads more bits of the register than the
	// value's type has: these have to be zero. Everyone else is content with
	// a register whose upper bits hold anything.
	clean []bool
	// tests marks what is only compared with zero by branches: an OpAnd that
	// becomes part of the jump.
	tests []bool
	order []*ir.Block // reverse postorder
}

func newDemand(f *ir.Func) *demand {
	n := f.NumValues()
	d := &demand{
		live: make([]bool, n), uses: make([]int32, n), conds: make([]int32, n), clean: make([]bool, n),
		tests: make([]bool, n),
		order: reversePostorder(f),
	}
	d.findLive()
	d.count()
	for _, b := range d.order {
		for _, v := range b.Values {
			if d.live[v.ID] && v.Op.IsCompare() {
				if a := d.test(v); a != nil {
					d.tests[a.ID] = true
				}
			}
		}
	}
	return d
}

// reversePostorder lists the blocks that can be reached, each before its
// successors except along back edges.
func reversePostorder(f *ir.Func) []*ir.Block {
	seen := make([]bool, f.NumBlocks())
	var order []*ir.Block
	type frame struct {
		b    *ir.Block
		next int
	}
	stack := []frame{{f.Entry(), 0}}
	seen[f.Entry().ID] = true
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next < len(top.b.Succs) {
			// The last successor first, so that the first ends up next to b.
			s := top.b.Succs[len(top.b.Succs)-1-top.next].To
			top.next++
			if !seen[s.ID] {
				seen[s.ID] = true
				stack = append(stack, frame{s, 0})
			}
			continue
		}
		order = append(order, top.b)
		stack = stack[:len(stack)-1]
	}
	for i, j := 0, len(order)-1; i < j; i, j = i+1, j-1 {
		order[i], order[j] = order[j], order[i]
	}
	return order
}

// hasEffect reports whether v has to be kept though nobody uses its result.
func hasEffect(v *ir.Value) bool {
	e := v.Effects()
	return e.Volatile || e.Writes != 0
}

func (d *demand) findLive() {
	var work []*ir.Value
	mark := func(v *ir.Value) {
		if v != nil && !d.live[v.ID] {
			d.live[v.ID] = true
			work = append(work, v)
		}
	}
	// Which edges feed a parameter.
	feeds := make(map[*ir.Value][]*ir.Value)
	for _, b := range d.order {
		for _, v := range b.Values {
			if hasEffect(v) {
				mark(v)
			}
		}
		mark(b.Cond)
		for _, e := range b.Succs {
			for i, a := range e.Args {
				p := e.To.Params[i]
				feeds[p] = append(feeds[p], a)
			}
		}
	}
	for len(work) > 0 {
		v := work[len(work)-1]
		work = work[:len(work)-1]
		for _, a := range v.Args {
			mark(a)
		}
		if v.Op == ir.OpParam {
			for _, a := range feeds[v] {
				mark(a)
			}
		}
	}
}

func (d *demand) count() {
	for n := len(d.order) - 1; n >= 0; n-- {
		b := d.order[n]
		for _, e := range b.Succs {
			for i, a := range e.Args {
				if d.live[e.To.Params[i].ID] {
					d.use(a, true)
				}
			}
		}
		switch b.Term {
		case ir.TermIf:
			d.conds[b.Cond.ID]++
			d.use(b.Cond, true)
		case ir.TermReturn:
			if b.Cond != nil {
				d.use(b.Cond, true)
			}
		}
		for k := len(b.Values) - 1; k >= 0; k-- {
			v := b.Values[k]
			if !d.live[v.ID] {
				continue
			}
			// What only decides a branch is taken apart into jumps.
			if d.isJumps(v) {
				for _, a := range v.Args {
					d.conds[a.ID]++
				}
			}
			for i, a := range v.Args {
				d.use(a, d.wantsClean(v, i))
			}
		}
	}
}

func (d *demand) use(v *ir.Value, clean bool) {
	d.uses[v.ID]++
	if clean {
		d.clean[v.ID] = true
	}
}

// isJumps reports whether v, made of truth values, becomes jumps and not a value.
func (d *demand) isJumps(v *ir.Value) bool {
	if v.Type != ir.I1 || d.uses[v.ID] != d.conds[v.ID] {
		return false
	}
	switch v.Op {
	case ir.OpXor:
		n, ok := v.Args[1].IsConst()
		return ok && n == 1
	case ir.OpAnd, ir.OpOr:
		return d.uses[v.ID] == 1
	}
	return false
}

// test returns the OpAnd that v compares with zero, where both serve a branch
// alone.
func (d *demand) test(v *ir.Value) *ir.Value {
	if v.Op != ir.OpNe && v.Op != ir.OpEq || d.uses[v.ID] != d.conds[v.ID] {
		return nil
	}
	a := v.Args[0]
	if n, ok := v.Args[1].IsConst(); !ok || n != 0 || a.Op != ir.OpAnd || d.uses[a.ID] != 1 || a.Type.Bits < 32 {
		return nil
	}
	return a
}

// wantsClean reports whether v reads the bits above the type of its operand i.
func (d *demand) wantsClean(v *ir.Value, i int) bool {
	t := v.Args[i].Type
	if t == ir.I1 {
		return true
	}
	narrow := t.Bits < 32
	switch op := v.Op; {
	case op == ir.OpAnd:
		if _, ok := v.Args[1].IsConst(); ok {
			return false
		}
		return narrow && d.clean[v.ID]
	case op == ir.OpOr || op == ir.OpXor:
		return narrow && d.clean[v.ID]
	case op == ir.OpAdd || op == ir.OpSub || op == ir.OpMul || op == ir.OpNeg || op == ir.OpSwap,
		op == ir.OpTrunc, op == ir.OpSExt, op == ir.OpAShr, op == ir.OpShl:
		return false
	case op == ir.OpUDiv || op == ir.OpUMod || op == ir.OpSDiv || op == ir.OpSMod:
		return narrow
	case op == ir.OpLShr:
		return narrow && i == 0
	case op.IsCompare():
		return narrow && op < ir.OpSLt
	case op == ir.OpStore || op == ir.OpAtomic:
		return false
	}
	return true
}
