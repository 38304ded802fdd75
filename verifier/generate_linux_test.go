package verifier

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/isa"
)

var (
	generated      = flag.Int("generated", 1500, "number of generated programs to judge")
	guestGenerated = flag.Int("guest-generated", 100, "number of generated programs for each guest and set of capabilities")
	seed           = flag.Uint64("seed", 1, "seed of the first generated program")
	showMax        = flag.Int("show", 3, "how many programs of each kind of difference to show")
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
		t.Run(caps.String(), func(t *testing.T) { judgeGenerated(t, o, caps, *seed, uint64(*generated)) })
	}
}

// judgeGenerated holds our verdicts about n generated programs against the
// kernel's.
func judgeGenerated(t *testing.T, o *kernelOracle, caps Caps, first, n uint64) {
	cfg := configHere(t, o, caps)
	cfg.limit = o.most
	cfg.Types = kernelTypes(t)
	counts := map[difference]int{}
	accepted, long := 0, uint64(0)
	categories, messages := map[Category]int{}, map[string]int{}
	for s := first; s < first+n; s++ {
		p := generate(s, cfg)
		if _, err := isa.Encode(nil, nativeOrder, p.Insns); err != nil {
			t.Fatalf("seed %d: %v", s, err)
		}
		r := Verify(p, cfg)
		if o.most > 0 && r.Insns > o.most {
			long++
			continue
		}
		a, err := o.load(p, caps, 0)
		if err != nil {
			t.Fatal(err)
		}
		if a.accepted {
			accepted++
		} else {
			categories[a.category]++
			messages[a.message()]++
		}
		d := compare(r, a)
		counts[d]++
		if d != same && counts[d] <= *showMax {
			t.Logf("%v: seed %d (%s): %s\n%s", d, s, p.Type, explainDifference(r, a), listing(p))
		}
	}
	n -= long
	percent := func(k int) float64 { return 100 * float64(k) / float64(n) }
	t.Logf("%v, caps %v: %d programs from seed %d, %d (%.0f %%) accepted by the kernel; same verdict %.2f %%, same reason too %.2f %%; %d accepted that the kernel rejects, %d the reverse",
		cfg.Kernel, caps, n, first, accepted, percent(accepted), percent(counts[same]+counts[otherReason]), percent(counts[same]), counts[tooKind], counts[tooStrict])
	most := ""
	for m, k := range messages {
		if most == "" || k > messages[most] {
			most = m
		}
	}
	t.Logf("%d messages, the most frequent %q in %.1f %% of rejections; reasons: %v", len(messages), most, 100*float64(messages[most])/float64(int(n)-accepted), categories)
	if counts[tooKind]*1000 > int(n) {
		t.Errorf("%d programs are accepted that the kernel rejects", counts[tooKind])
	}
	if k := counts[same] + counts[otherReason]; k*100 < int(n)*99 {
		t.Errorf("the verdict is the kernel's for %d of %d programs only", k, n)
	}
	if counts[same]*100 < int(n)*95 {
		t.Errorf("the reason is the kernel's for %d of %d programs only", counts[same], n)
	}
}
