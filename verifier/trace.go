package verifier

import "fmt"

// A Trace is what the verifier knew before each instruction, on all paths.
// Verify fills it where Config.Trace is set.
type Trace struct {
	v     *verifier
	views [][]*view // by slot
	// precise are the registers whose exact value mattered at a slot on some
	// path.
	precise []uint16
	total   int
}

// maxViews is how many states are kept for an instruction (loops have many), and
// maxAllViews for all of them.
const (
	maxViews    = 1024
	maxAllViews = 50_000
)

// A view is a copy of what was known of the frame that runs.
type view struct {
	depth int
	regs  [numRegs]reg
	stack []slot
}

// A View is what is known before an instruction on one path, or several that
// do not differ.
type View struct {
	// Depth is how many calls the function is deep, from 0.
	Depth int
	// Regs are r0 to r10.
	Regs [numRegs]RegView
	// Stack is what is known of the function's stack.
	Stack []Known
}

// A RegView is what is known of a register.
type RegView struct {
	// What says it, as in [Known]; it is "" where nothing was written to it.
	What string
	// Pointer is whether it holds one.
	Pointer bool
	// Precise is whether the exact value mattered on some path. Where it did not,
	// a path may have been ended because another one like it, but for this
	// number, had been followed: then the value of a run may lie outside of What.
	Precise bool

	scalar reg
}

// Holds reports whether a value of a run lies in what is known. Addresses that a
// run has say nothing here, so every value is in what is known of a pointer, and
// none in a register that nothing was written to.
func (r *RegView) Holds(value uint64) bool {
	switch {
	case r.What == "":
		return false
	case r.Pointer:
		return true
	}
	return r.scalar.Contains(value)
}

// At returns what was known before the instruction at a slot: each state that
// differs once, in the order in which they were found. Of very many some are left
// out; see [Trace.Full].
func (t *Trace) At(slot int) []View {
	if t.v == nil || slot < 0 || slot >= len(t.views) {
		return nil
	}
	var out []View
	for _, w := range t.views[slot] {
		// Describing a register takes a state to be in.
		st := &state{cur: w.depth}
		st.frames[w.depth] = &frame{regs: w.regs, stack: w.stack}
		t.v.st = st
		x := View{Depth: w.depth}
		for i := range w.regs {
			r := &w.regs[i]
			if r.typ == notInit {
				continue
			}
			x.Regs[i] = RegView{
				What: t.v.describe(r), Pointer: r.isPointer(), scalar: *r,
				Precise: r.isPointer() || r.precise || t.precise[slot]>>i&1 != 0,
			}
		}
		for i := range w.stack {
			if what := t.v.describeSlot(&w.stack[i]); what != "" {
				x.Stack = append(x.Stack, Known{fmt.Sprintf("fp-%d", (i+1)*8), what})
			}
		}
		out = append(out, x)
	}
	t.v.st = nil
	return out
}

// Full reports whether there were more states at a slot than are kept.
func (t *Trace) Full(slot int) bool {
	return t.total >= maxAllViews || slot < len(t.views) && len(t.views[slot]) >= maxViews
}

// Visited reports whether any path came to the instruction at a slot.
func (t *Trace) Visited(slot int) bool { return slot < len(t.views) && len(t.views[slot]) > 0 }

// begin makes room for the program.
func (t *Trace) begin(v *verifier) {
	t.v, t.views, t.precise = v, make([][]*view, len(v.insns)), make([]uint16, len(v.insns))
}

// note keeps what is known now. Speculative paths are no run's.
func (t *Trace) note(st *state, insn int) {
	if st.speculative || t.total >= maxAllViews || len(t.views[insn]) >= maxViews {
		return
	}
	f := st.frame()
	for _, have := range t.views[insn] {
		if have.same(st.cur, f) {
			return
		}
	}
	t.total++
	t.views[insn] = append(t.views[insn], &view{depth: st.cur, regs: f.regs, stack: append([]slot(nil), f.stack...)})
}

func (w *view) same(depth int, f *frame) bool {
	if w.depth != depth || w.regs != f.regs || len(w.stack) != len(f.stack) {
		return false
	}
	for i := range w.stack {
		if w.stack[i] != f.stack[i] {
			return false
		}
	}
	return true
}

// sought notes registers of the frame that backtracking is in.
func (t *Trace) sought(insn int, regs uint16) { t.precise[insn] |= regs }
