package verifier

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
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
func configHere(t testing.TB, o *kernelOracle, caps Caps) Config {
	t.Helper()
	return Config{Kernel: runningKernel(t), Caps: caps, CPUs: o.processors(t)}
}

// processors is how many processors the kernel was built or booted for, which
// can be more than are possible: what bpf_get_smp_processor_id may return, as
// the kernel logs it.
func (o *kernelOracle) processors(t testing.TB) int {
	t.Helper()
	if o.cpus > 0 {
		return o.cpus
	}
	p := &Program{Name: "processors", Type: abi.ProgSocketFilter, License: "GPL", Insns: []isa.Instruction{isa.Call(8), isa.Exit()}}
	level := o.logLevel
	o.logLevel = 2
	a, err := o.load(p, CapsAll, 0)
	o.logLevel = level
	if err != nil {
		t.Fatal(err)
	}
	o.cpus = 1 << 20 // where the kernel knows nothing of it
	if m := maxProcessor.FindStringSubmatch(a.log); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		o.cpus = n + 1
	}
	return o.cpus
}

var maxProcessor = regexp.MustCompile(`R0(?:_w)?=scalar\([^)]*umax=(?:[su]max32=)*(\d+)`)

// configOf is configHere for a program of the corpus.
func configOf(t testing.TB, o *kernelOracle, c *corpusCase) Config {
	cfg := configHere(t, o, c.caps)
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
