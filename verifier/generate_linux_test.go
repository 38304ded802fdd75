package verifier

import (
	"flag"
	"fmt"
	"sort"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/isa"
)

var (
	generated = flag.Int("generated", 1500, "number of generated programs to judge")
	seed      = flag.Uint64("seed", 1, "seed of the first generated program")
	showMax   = flag.Int("show", 3, "how many programs of each kind of difference to show")
)

func listing(p *Program) string {
	var b strings.Builder
	at := 0
	for _, in := range p.Insns {
		fmt.Fprintf(&b, "%4d: %v\n", at, in)
		at += in.Size()
	}
	return b.String()
}

// TestGenerated has the verifier and the live kernel judge random programs.
func TestGenerated(t *testing.T) {
	o := newOracle(t)
	for _, caps := range []Caps{CapsAll, CapsBPF} {
		t.Run(caps.String(), func(t *testing.T) { testGenerated(t, o, caps) })
	}
}

func testGenerated(t *testing.T, o *kernelOracle, caps Caps) {
	n := *generated
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	var accepted, rejected, sameVerdict, sameReason int
	var tooKind, tooStrict, otherwise []string
	categories := map[Category]int{}
	for s := *seed; s < *seed+uint64(n); s++ {
		p := generate(s)
		if _, err := isa.Encode(nil, nativeOrder, p.Insns); err != nil {
			t.Fatalf("seed %d: %v", s, err)
		}
		a, err := o.load(p, caps, 0)
		if err != nil {
			t.Fatal(err)
		}
		r := Verify(p, Config{Caps: caps, CPUs: cpus})
		tail := a.log
		if len(tail) > 600 {
			tail = "..." + tail[len(tail)-600:]
		}
		if a.accepted {
			accepted++
		} else {
			rejected++
			categories[a.category]++
		}
		switch {
		case r.Verdict == Unsupported:
			otherwise = append(otherwise, fmt.Sprintf("seed %d: %v", s, r.Err))
		case r.Verdict == Accepted && !a.accepted:
			tooKind = append(tooKind, fmt.Sprintf("seed %d: accepted (%s):\n%s\n%s", s, p.Type, listing(p), tail))
		case r.Verdict == Rejected && a.accepted:
			tooStrict = append(tooStrict, fmt.Sprintf("seed %d: rejected (%s): %v\n%s", s, p.Type, r.Err, listing(p)))
		default:
			sameVerdict++
			if a.accepted || a.category == r.Err.Category && (a.insn < 0 || a.insn == r.Err.Insn) {
				sameReason++
				continue
			}
			otherwise = append(otherwise, fmt.Sprintf("seed %d (%s): %s at %d: %v; the kernel %q at %d\n%s%s", s, p.Type, r.Err.Category, r.Err.Insn, r.Err, a.category, a.insn, listing(p), tail))
		}
	}
	t.Logf("%d programs, %d accepted and %d rejected by the kernel; same verdict %.2f %%, same reason too %.2f %%; %d accepted that the kernel rejects, %d the reverse",
		n, accepted, rejected, 100*float64(sameVerdict)/float64(n), 100*float64(sameReason)/float64(n), len(tooKind), len(tooStrict))
	var cats []string
	for c, n := range categories {
		cats = append(cats, fmt.Sprintf("%s %d", c, n))
	}
	sort.Strings(cats)
	t.Logf("reasons: %s", strings.Join(cats, ", "))
	show := func(what string, list []string) {
		for i, s := range list {
			if i == *showMax {
				break
			}
			t.Logf("%s: %s", what, s)
		}
	}
	show("accepted, and the kernel rejects", tooKind)
	show("rejected, and the kernel accepts", tooStrict)
	show("another reason", otherwise)
	if len(tooKind) > 0 {
		t.Errorf("%d programs are accepted that the kernel rejects", len(tooKind))
	}
	if sameVerdict*100 < n*99 {
		t.Errorf("the verdict is the kernel's for %d of %d programs only", sameVerdict, n)
	}
	if sameReason*100 < n*95 {
		t.Errorf("the reason is the kernel's for %d of %d programs only", sameReason, n)
	}
}
