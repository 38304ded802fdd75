package abi

import "sort"

// KfuncFlags are what the kernel promises of a kernel function, or asks of its
// caller (KF_* in include/linux/btf.h).
type KfuncFlags uint16

// The flags.
const (
	KfuncAcquire      KfuncFlags = 1 << iota // returns a reference
	KfuncRelease                             // takes one away
	KfuncRetNull                             // may return NULL
	KfuncTrustedArgs                         // takes trusted pointers only
	KfuncSleepable                           // for sleepable programs only
	KfuncDestructive                         // needs CAP_SYS_BOOT
	KfuncRCU                                 // takes RCU-protected pointers too
	KfuncIterNew                             // constructor of an iterator
	KfuncIterNext                            // step of an iterator
	KfuncIterDestroy                         // destructor of an iterator
	KfuncRCUProtected                        // only inside an RCU read lock
)

// Kfunc is a kernel function that programs may call by its BTF id. What a
// running kernel's BTF says takes precedence over this table.
type Kfunc struct {
	Name      string
	Prototype string // in C; of 6.18 where it has the function, else of 6.12
	// Since is the oldest of Linux 6.1, 6.12 and 6.18 that has the function;
	// on 6.1 it may not have been open to programs.
	Since Version
	Flags KfuncFlags // Linux 6.12's; none for younger functions
	// ProgTypes that may call it on Linux 6.12; none for younger functions.
	ProgTypes ProgTypes
}

// KfuncByName returns the kernel function with a name, or nil.
func KfuncByName(name string) *Kfunc {
	n := sort.Search(len(kfuncs), func(n int) bool { return kfuncs[n].Name >= name })
	if n == len(kfuncs) || kfuncs[n].Name != name {
		return nil
	}
	return &kfuncs[n]
}

// Kfuncs returns all kernel functions by name.
func Kfuncs() []Kfunc { return kfuncs[:] }
