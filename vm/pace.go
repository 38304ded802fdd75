package vm

import (
	"sync/atomic"
	"time"

	"github.com/skep-bpf/skep/vm/engine"
)

// A pace is how much budget a program is given at a time. While native code runs,
// Go can neither stop the world nor preempt it, and instructions take from a
// quarter of a nanosecond to microseconds, as those do that touch memory for the
// first time. So stretches in native code are timed: all that begin because the
// budget was spent, some of those that begin otherwise. One that took too long cuts
// the budget to what is thought to take a fifth of a millisecond, and only
// many quick ones raise it again, a little each.
type pace struct {
	budget atomic.Int64
}

const (
	// tooLong is when a stretch in native code cuts the budget.
	tooLong = 500_000
	// goodTime is what the budget should take then.
	goodTime = 200_000
	// leastQuantum is the smallest budget. It takes below a millisecond even if
	// each instruction touches two new pages.
	leastQuantum = 128

	// Of starts of programs and of returns from helpers, one in so many is
	// watched: it takes two looks at the clock.
	watchStarts, watchReturns = 64, 32
)

// quantum returns the budget to be given.
func (p *pace) quantum() int64 { return p.budget.Load() }

// ran notes that a stretch in native code took so many nanoseconds.
func (p *pace) ran(ns int64) {
	q := p.quantum()
	switch {
	case ns > tooLong:
		p.budget.Store(max(leastQuantum, q*goodTime/ns))
	case ns < goodTime && q < engine.Quantum:
		p.budget.Store(q + 1)
	}
}

var started = time.Now()

// nanotime is a clock for measuring: nanoseconds, never 0.
func nanotime() int64 { return int64(time.Since(started)) + 1 }
