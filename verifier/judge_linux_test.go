package verifier

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
)

// runningKernel is the release whose rules this machine's kernel has.
func runningKernel(t testing.TB) abi.Version {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	v, err := abi.ParseVersion(unix.ByteSliceToString(u.Release[:]))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// configHere is the configuration for this machine's kernel.
func configHere(t testing.TB, caps Caps) Config {
	t.Helper()
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	return Config{Kernel: runningKernel(t), Caps: caps, CPUs: cpus}
}

// configOf is configHere for a program of the corpus.
func configOf(t testing.TB, c *corpusCase) Config {
	cfg := configHere(t, c.caps)
	if c.needsTypes() {
		cfg.Types = kernelTypes(t)
	}
	return cfg
}

// A difference says in what a verdict of ours is not the kernel's.
type difference uint8

const (
	same difference = iota
	tooKind
	tooStrict
	otherReason
	notSupported
)

func (d difference) String() string {
	return [...]string{"the same", "accepted, and the kernel rejects", "rejected, and the kernel accepts", "another reason", "unsupported"}[d]
}

// compare holds the kernel's answer against ours.
func compare(r *Result, a *answer) difference {
	switch {
	case r.Verdict == Unsupported:
		return notSupported
	case r.Verdict == Accepted && !a.accepted:
		return tooKind
	case r.Verdict == Rejected && a.accepted:
		return tooStrict
	case r.Verdict == Rejected && (a.category != r.Err.Category || a.insn >= 0 && a.insn != r.Err.Insn):
		return otherReason
	}
	return same
}

// explainDifference says what both think of a program.
func explainDifference(r *Result, a *answer) string {
	tail := a.log
	if len(tail) > 700 {
		tail = "..." + tail[len(tail)-700:]
	}
	ours := r.Verdict.String()
	if r.Err != nil {
		ours = fmt.Sprintf("%s, %s at %d (%v)", ours, r.Err.Category, r.Err.Insn, r.Err)
	}
	if a.accepted {
		return fmt.Sprintf("we: %s; the kernel accepts it", ours)
	}
	return fmt.Sprintf("we: %s; the kernel: %v, %q at %d\n%s", ours, a.errno, a.category, a.insn, tail)
}
