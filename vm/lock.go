package vm

import (
	"runtime"
	"sync/atomic"
)

// lockStripes is how many locks there are for all the spin locks that programs
// can name. Two that share one wait for each other, which is harmless: a
// program holds one at a time.
const lockStripes = 1024

// locks are the spin locks of a vm (bpf_spin_lock), by the address of the field
// that stands for them. Their state is not in the cage.
type locks [lockStripes]spinLock

// A spinLock is held by the run with a number, or by nobody (0).
type spinLock struct {
	owner atomic.Uint64
	_     [56]byte // one cache line
}

func (l *locks) at(addr uint32) *spinLock {
	return &l[(addr>>2*0x9e3779b1)>>22]
}

// try takes the lock for the owner; false when another has it. Who has it
// already gets it again, so that a program that was never verified cannot wait
// for itself.
func (l *spinLock) try(owner uint64) bool {
	return l.owner.CompareAndSwap(0, owner) || l.owner.Load() == owner
}

// lock waits for the lock on behalf of the host, where waiting is short: a
// program that holds a lock has a budget.
func (l *spinLock) lock(owner uint64) {
	for !l.owner.CompareAndSwap(0, owner) {
		runtime.Gosched()
	}
}

func (l *spinLock) unlock() { l.owner.Store(0) }

// release gives the lock back if owner has it.
func (l *spinLock) release(owner uint64) { l.owner.CompareAndSwap(owner, 0) }
