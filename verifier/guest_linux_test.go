package verifier

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
)

// guestSettings holds how many programs a guest generates, and from which seed:
// flags do not get there.
const guestSettings = "/generated"

// TestGuests has Linux 6.1 and 6.12 judge the corpus and generated programs,
// under each set of capabilities, and holds our profiles against them.
func TestGuests(t *testing.T) {
	cfg := guest.Config{
		Files: guest.Files{"testdata": "testdata"},
		// Guests start without mitigations, where nothing is refused for the
		// sake of what a processor may guess.
		Cmdline: "mitigations=auto",
		Timeout: 9 * time.Minute,
	}
	if testenv.InGuest() == "" {
		file := filepath.Join(t.TempDir(), "generated")
		if err := os.WriteFile(file, fmt.Appendf(nil, "%d %d %d", *guestGenerated, *seed, *showMax), 0o644); err != nil {
			t.Fatal(err)
		}
		cfg.Files[guestSettings] = file
	}
	guest.Each(t, cfg, func(t *testing.T) {
		// Debian's kernels start with 2: off, and root may turn it on.
		if err := os.WriteFile("/proc/sys/kernel/unprivileged_bpf_disabled", []byte("0"), 0o644); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(guestSettings)
		if err != nil {
			t.Fatal(err)
		}
		var n, first uint64
		if _, err := fmt.Sscan(string(text), &n, &first, showMax); err != nil {
			t.Fatal(err)
		}
		o := newOracle(t)
		o.most = 2_000
		judgeCorpus(t, o)
		for _, caps := range []Caps{CapsAll, CapsBPF, CapsNone} {
			if n == 0 {
				break
			}
			judgeGenerated(t, o, caps, first, n)
		}
	})
}

// judgeCorpus holds our verdicts about the corpus, by the rules of this
// machine's kernel, against the kernel's own.
func judgeCorpus(t *testing.T, o *kernelOracle) {
	judged, rejected, unsupported, without, long := 0, 0, 0, 0, 0
	o.logLevel = 5
	for _, c := range corpus(t) {
		cfg := configOf(t, o, c)
		cfg.limit = o.most
		r := Verify(c.program, cfg)
		if c.long || r.Insns > o.most {
			long++
			continue
		}
		a, err := o.load(c.program, c.caps, 0)
		if err != nil {
			without++ // a map that this kernel does not have
			continue
		}
		switch compare(r, a) {
		case same:
			judged++
			if !a.accepted {
				rejected++
			}
		case notSupported:
			unsupported++
		default:
			t.Errorf("%s (%v): %s", c.where(), c.caps, explainDifference(r, a))
		}
	}
	t.Logf("corpus: %d judged, %d of them rejected, %d unsupported, %d with maps that this kernel does not have, %d too long for a guest", judged, rejected, unsupported, without, long)
}
