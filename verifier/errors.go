package verifier

import (
	"fmt"
	"strings"
)

// A Verdict is what the verifier says of a program.
type Verdict uint8

// The verdicts.
const (
	Accepted Verdict = iota
	Rejected
	// Unsupported: the program needs a rule that is not there; the error says
	// which.
	Unsupported
)

func (v Verdict) String() string { return [...]string{"accepted", "rejected", "unsupported"}[v] }

// A Category groups the reasons of rejections by the rule that is broken.
type Category string

// The categories.
const (
	CatInstruction  Category = "instruction" // no valid instruction, or a reserved field in use
	CatControl      Category = "control"     // jumps, unreachable code, falling off the end
	CatUninit       Category = "uninitialised"
	CatType         Category = "type"       // a register holds something else than what is needed
	CatNull         Category = "null"       // a pointer that may be null
	CatBounds       Category = "bounds"     // memory outside of what a pointer may reach
	CatAlignment    Category = "alignment"  // an access that is not aligned
	CatReadOnly     Category = "read-only"  // a write to what may only be read
	CatContext      Category = "context"    // the program's context
	CatPointer      Category = "pointer"    // arithmetic or comparison on pointers
	CatLeak         Category = "leak"       // a pointer that would become visible
	CatHelper       Category = "helper"     // a function that the program may not call
	CatArgument     Category = "argument"   // an argument a function does not take
	CatReference    Category = "reference"  // acquired and not released, or the reverse
	CatLock         Category = "lock"       // locks and what may be done under them
	CatReturn       Category = "return"     // the value at exit
	CatCall         Category = "call"       // calls of the program's own functions
	CatStack        Category = "stack"      // stack slots and depth
	CatObject       Category = "object"     // dynptrs and iterators on the stack
	CatMap          Category = "map"        // maps that a program cannot use
	CatComplexity   Category = "complexity" // too many instructions or states, endless loops
	CatSpeculation  Category = "speculation"
	CatCapability   Category = "capability"
	CatKernelObject Category = "btf" // kernel types
	CatUnsupported  Category = "unsupported"
)

// A Code names a reason.
type Code string

// reason is what is the same for all errors of a code.
type reason struct {
	category   Category
	suggestion string
}

// An Error is why a program is not accepted.
type Error struct {
	Code     Code
	Category Category
	Message  string
	Insn     int // slot of the instruction; -1 where it is the program as a whole
	// Register is the number of the register at fault, or -1.
	Register int
	// State is what was known before the instruction, by register and stack
	// slot.
	State []Known
	// Path is how the instruction was reached, its ends and turns: the first
	// step is the program's start and the last one Insn.
	Path []Step
	// Suggestion says what to change; "" where nothing general can be said.
	Suggestion string
}

// Known is what the verifier knows of a place.
type Known struct {
	Place string // "r3", "fp-16"
	What  string // "map_value(off=8,vs=64)", "scalar(umax=255)"
}

// A Step is an instruction at which a path turned: a jump taken or not, a call,
// a return.
type Step struct {
	Insn int // slot
	Next int // slot
}

func (e *Error) Error() string {
	if e.Insn < 0 {
		return e.Message
	}
	return fmt.Sprintf("instruction %d: %s", e.Insn, e.Message)
}

// String is the error with its code.
func (e *Error) String() string { return fmt.Sprintf("%s [%s]", e.Error(), e.Code) }

// fail makes an error of the instruction that is being looked at.
func (v *verifier) fail(code Code, reg int, format string, args ...any) *Error {
	r, ok := reasons[code]
	if !ok {
		panic("verifier: no reason " + string(code))
	}
	return &Error{
		Code: code, Category: r.category, Message: fmt.Sprintf(format, args...),
		Insn: v.insn, Register: reg, Suggestion: r.suggestion,
	}
}

// unsupported makes the error for a rule that is not there.
func (v *verifier) unsupported(format string, args ...any) *Error {
	return v.fail("unsupported", -1, format, args...)
}

// explain adds the state and the path to an error.
func (v *verifier) explain(e *Error) *Error {
	if v.st == nil || e.Insn < 0 || e.State != nil {
		return e
	}
	e.State = v.st.known(v)
	e.Path = v.st.path(e.Insn)
	return e
}

// known lists what is known of the current frame.
func (s *state) known(v *verifier) []Known {
	f := s.frame()
	var out []Known
	for i := range f.regs {
		if r := &f.regs[i]; r.typ != notInit {
			out = append(out, Known{fmt.Sprintf("r%d", i), v.describe(r)})
		}
	}
	for i := range f.stack {
		sl := &f.stack[i]
		if what := v.describeSlot(sl); what != "" {
			out = append(out, Known{fmt.Sprintf("fp-%d", (i+1)*8), what})
		}
	}
	return out
}

func (v *verifier) describeSlot(sl *slot) string {
	if sl.spilled() {
		n := 0
		for _, k := range sl.kind {
			if k == slotSpill {
				n++
			}
		}
		if n == 8 {
			return v.describe(&sl.reg)
		}
		return fmt.Sprintf("%s in %d bytes", v.describe(&sl.reg), n)
	}
	var b strings.Builder
	used := false
	for i := 7; i >= 0; i-- {
		used = used || sl.kind[i] != slotInvalid
		b.WriteByte("?rm0dif"[sl.kind[i]])
	}
	if !used {
		return ""
	}
	return b.String()
}

// path lists the turns that led to insn, from the program's start.
func (s *state) path(insn int) []Step {
	var back []Step
	for st := s; st != nil; st = st.parent {
		for i := len(st.history) - 1; i >= 0; i-- {
			h := &st.history[i]
			if h.prev+1 != h.insn {
				back = append(back, Step{int(h.prev), int(h.insn)})
			}
		}
	}
	steps := make([]Step, 0, len(back)+2)
	steps = append(steps, Step{0, 0})
	for i := len(back) - 1; i >= 0; i-- {
		if n := len(steps); steps[n-1] != back[i] {
			steps = append(steps, back[i])
		}
	}
	return append(steps, Step{insn, insn})
}
