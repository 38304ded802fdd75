package jit

import (
	"fmt"

	"github.com/skep-bpf/skep/vm/engine"
)

// maxInsns keeps all distances in the code of a program within what branches
// reach. The kernel accepts a quarter of it (BPF_COMPLEXITY_LIMIT_INSNS).
const maxInsns = 4 << 20

// output is machine code that does not depend on where it lies. Places are
// offsets into it.
type output struct {
	code   []byte
	starts []int // where the host starts each function
	funcs  []int // where calls enter each function, and tail calls the first
}

// options are what a code generator is told.
type options struct {
	engine.Options
	bmi2 bool // x86: shlx and its like are there

	// For measuring what the cage and the budget cost; not on arm64.
	unconfined, unbudgeted bool
}

// A generator makes the machine code of a program.
type generator func(*engine.Program, options, *keys) (*output, error)

func errInternal(p *engine.Program, what string) error {
	return fmt.Errorf("program %s cannot be compiled: %s; this is an error in skep", p.Name, what)
}
