package engine

import "errors"

// Engine turns linked programs into something that runs. One run stays with one
// engine: all programs that it may reach by tail calls are compiled by it.
type Engine interface {
	// Name is what users see: "interp", "jit".
	Name() string
	// Compile prepares a program. It fails with ErrUnavailable where the
	// system forbids what the engine needs, and otherwise only for want of memory
	// or because the program is too large.
	Compile(p *Program, o Options) (Code, error)
	// Run goes on with a run that Code.Start began, until its next exit, which
	// is also in s.Exit.
	Run(s *State) Exit
}

// Code is a compiled program.
type Code interface {
	// Start begins a run of function fn at its entry; r1 to r5 and r10 are taken
	// from s.Regs. It nests in a run that was suspended. It fails when r10 is
	// too deep (FaultStack) or s is not set up.
	Start(s *State, fn int) error
	// Enter is Start of function 0 and Run up to the first exit, for hosts that
	// start programs often. What Start would fail with is a Fault.
	Enter(s *State) Exit
	// Tail answers a TailCall exit: function 0 of this code goes on in place
	// of the function that made the call, with r1 to r5 from s.Regs.
	Tail(s *State)
	// Program returns what was compiled.
	Program() *Program
	// Size returns the bytes of memory that the code takes.
	Size() int
	// Close frees the code. No run may be in it, nor be about to return to it.
	Close() error
}

// Options are the choices for one program.
type Options struct {
	// Blind hides the constants of the program, so that none of its bytes can
	// be found in executable memory. For programs that are not trusted.
	Blind bool
	// DirectTailCalls lets tail calls of native code be indirect jumps, not
	// retpolines, which keep processors from running ahead to a target that another
	// program has trained them to expect. For programs that are trusted.
	DirectTailCalls bool
}

// ErrUnavailable is the reason why an engine cannot work on this system.
var ErrUnavailable = errors.New("not available on this system")
