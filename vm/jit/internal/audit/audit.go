package audit

import "fmt"

// Code is what is audited.
type Code struct {
	Text    []byte
	Starts  []int  // offsets where the host enters
	Entries []int  // offsets where calls enter
	State   Layout // of the State
}

// Layout is what generated code may know of the State: offsets in bytes.
type Layout struct {
	Size      int // of all that code may use
	FP        int // r10
	Base      int // the host address of the cage
	SP        int // the stack pointer of the run
	HostSP    int // and that of the goroutine; on arm64 the address to return to
	Target    int // where a tail call goes
	FrameSize int // by how much a call lowers r10; not an offset
}

// A kind is what is known of a register's value.
type kind uint8

const (
	unknown    kind = iota
	narrow          // the upper half is zero
	narrowed        // the sum of such a number and 16 bits, sign extended
	inCage          // the host address of a cage address
	inCageNear      // the sum of such an address and a small number
	small           // a constant that fits 16 bits, signed
	target          // the code that a tail call goes to
	link            // an address to return to
)

// A flow is what is known where an instruction starts.
type flow struct {
	reached bool
	regs    [32]kind
	depth   int // words on the stack since the function was entered, or uneven
}

// uneven is the depth where ways with different depths meet, as they may where the
// stack is left for the goroutine's.
const uneven = -1 << 40

// meet takes what is known on another way to the same place into f. It reports
// whether that changed f.
func (f *flow) meet(g flow) (changed bool) {
	if !f.reached {
		*f = g
		f.reached = true
		return true
	}
	if f.depth != g.depth && f.depth != uneven {
		f.depth = uneven
		changed = true
	}
	for r, k := range g.regs {
		if f.regs[r] != k && f.regs[r] != unknown {
			f.regs[r] = unknown
			changed = true
		}
	}
	return changed
}

// push adds n words to the stack.
func (f *flow) push(n int) {
	if f.depth != uneven {
		f.depth += n
	}
}

// An edge leads to another instruction.
type edge struct {
	to   int
	flow flow
}

// A step is what an instruction does to what is known, and where it goes on.
type step func(at int, in flow) (next []edge, err error)

// analyse follows all ways from the entries. starts has the offsets at which
// instructions start.
func analyse(entries []edge, starts map[int]bool, do step) error {
	flows := map[int]*flow{}
	var work []int
	visit := func(e edge, from int) error {
		if !starts[e.to] {
			return fmt.Errorf("%#x: leads to %#x, where no instruction starts", from, e.to)
		}
		f := flows[e.to]
		if f == nil {
			f = &flow{}
			flows[e.to] = f
		}
		if f.meet(e.flow) {
			work = append(work, e.to)
		}
		return nil
	}
	for _, e := range entries {
		if err := visit(e, -1); err != nil {
			return err
		}
	}
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		next, err := do(at, *flows[at])
		if err != nil {
			return fmt.Errorf("%#x: %w", at, err)
		}
		for _, e := range next {
			if err := visit(e, at); err != nil {
				return err
			}
		}
	}
	return nil
}
