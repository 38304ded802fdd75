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
// budget was spent, some of those that begin otherwise. A program starts with little
// budget, which doubles as long as it proves quick. One that took too long is cut to
// what is thought to take a fifth of a millisecond, and only many quick stretches
// raise it again, a little each.
type pace struct {
	budget atomic.Int64
	cut    atomic.Bool // once at least
}

const (
	// firstQuantum is the budget at the beginning. It takes about a millisecond if
	// each instruction touches a new page.
	firstQuantum = 512
	// tooLong is when a stretch in native code cuts the budget, in nanoseconds.
	tooLong = 500_000
	// goodTime is what the budget should take then.
	goodTime = 200_000
	// leastQuantum is the smallest budget.
	leastQuantum = 128

	// Of starts of programs and of returns from helpers, one in so many is
	// watched: it takes two looks at the clock.
	watchStarts, watchReturns = 64, 32
)

func (p *pace) begin() { p.budget.Store(firstQuantum) }

// quantum returns the budget to be given.
func (p *pace) quantum() int64 { return p.budget.Load() }

// ran notes that a stretch in native code took so many nanoseconds, and how much
// budget it spent.
func (p *pace) ran(ns, spent int64) {
	spent = max(spent, 1)
	q := p.quantum()
	switch {
	case ns > tooLong:
		p.cut.Store(true)
		p.budget.Store(min(q, max(leastQuantum, spent*goodTime/ns)))
	case q == engine.Quantum || ns*q/spent > goodTime:
	case p.cut.Load():
		p.budget.Store(q + 1)
	default:
		p.budget.Store(min(2*q, engine.Quantum))
	}
}

var started = time.Now()

// nanotime is a clock for measuring: nanoseconds, never 0.
func nanotime() int64 { return int64(time.Since(started)) + 1 }
