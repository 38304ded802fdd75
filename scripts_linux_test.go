package skep_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/scriptgen"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/ui/text"
)

var (
	scriptCount = flag.Int("scripts", 300, "number of random scripts to compile and load")
	scriptSeed  = flag.Uint64("seed", 1, "seed of the first random script")
)

// maxFailed is how many scripts may fail before a test has seen enough.
const maxFailed = 5

// guestScripts is how many random scripts a guest loads.
const guestScripts = 40

// limits are the codes of diagnostics that say that a script is too large,
// which a random one may well be.
var limits = map[string]bool{"stack-too-large": true, "program-too-large": true}

// TestWellTypedScriptsLoad compiles random well-typed scripts and has the
// kernel's verifier accept them.
func TestWellTypedScriptsLoad(t *testing.T) {
	guest.Matrix(t, guest.Config{Timeout: 10 * time.Minute}, func(t *testing.T) {
		n := *scriptCount
		if testenv.InGuest() != "" {
			// An emulated processor takes its time; see CONFORMANCE.md for
			// longer runs.
			n = min(n, guestScripts)
		}
		testenv.NeedRoot(t)
		testenv.NeedBPF(t)
		var mu sync.Mutex
		limited, failed := 0, 0
		next := *scriptSeed
		var wg sync.WaitGroup
		for range runtime.NumCPU() {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					mu.Lock()
					seed := next
					next++
					stop := seed >= *scriptSeed+uint64(n) || failed >= maxFailed
					mu.Unlock()
					if stop {
						return
					}
					refused, err := load(seed)
					mu.Lock()
					if refused {
						limited++
					}
					if err != nil {
						failed++
						t.Errorf("seed %d: %v\n%s", seed, err, randomScript(seed))
					}
					mu.Unlock()
				}
			}()
		}
		wg.Wait()
		t.Logf("%d scripts, %d refused for their size", n, limited)
		if limited > n/20 {
			t.Errorf("%d of %d scripts were refused for their size, more than one in twenty", limited, n)
		}
	})
}

// randomScript is the script of a seed, of the kinds of probes that the kernel
// lets be loaded. Nothing attaches it: it may well signal, or write to, any
// process of the machine.
func randomScript(seed uint64) string {
	o := scriptgen.DefaultOptions
	o.Kinds = []string{"perf", "kprobe"}
	if testenv.InGuest() != "" {
		o.Kinds = append(o.Kinds, "fentry", "write")
	}
	o.Binary, _ = os.Executable()
	return scriptgen.Script(seed, o)
}

// load compiles the script of a seed and loads it. refused is set when skep
// itself said that a limit stands against it.
func load(seed uint64) (refused bool, err error) {
	opts := skep.CompileOptions{Options: bt.Options{Unsafe: true, Args: []string{"5", "text"}}}
	obj, err := skep.Compile(source.NewFile("random.bt", randomScript(seed)), opts)
	if err != nil {
		for _, d := range source.Diagnostics(err) {
			if limits[d.Code] {
				if testing.Verbose() {
					fmt.Printf("seed %d: %s\n", seed, d.Error())
				}
				return true, nil
			}
		}
		return false, fmt.Errorf("does not compile: %w", err)
	}
	l, err := kernel.New().Load(context.Background(), obj.ELF, machine.LoadOptions{})
	if err != nil {
		var ve *kernel.VerifierError
		if errors.As(err, &ve) {
			return false, fmt.Errorf("does not load: %w\n%s", err, ve.Log[max(0, len(ve.Log)-4000):])
		}
		return false, fmt.Errorf("does not load: %w", err)
	}
	return false, l.Close()
}

// TestComputedScripts runs scripts whose output their generator has worked
// out, and compares: that a script loads says nothing of what it computes.
func TestComputedScripts(t *testing.T) {
	guest.Matrix(t, guest.Config{Timeout: 10 * time.Minute}, func(t *testing.T) {
		testenv.NeedRoot(t)
		testenv.NeedBPF(t)
		n := *scriptCount
		if testenv.InGuest() != "" {
			n = min(n, guestScripts/3) // each is attached and detached too
		}
		failed, limited := 0, 0
		for seed := *scriptSeed; seed < *scriptSeed+uint64(n) && failed < maxFailed; seed++ {
			script, want := scriptgen.Computed(seed)
			obj, err := skep.Compile(source.NewFile("computed.bt", script), skep.CompileOptions{})
			if tooLarge(err) {
				limited++
				continue
			}
			var out, complaints strings.Builder
			if err == nil {
				p := text.New(&out, &complaints, false)
				_, err = skep.Run(t.Context(), obj, skep.RunOptions{Events: p.Event, Flush: p.Flush})
			}
			if got := out.String(); err != nil || got != want {
				failed++
				t.Errorf("seed %d: %v\n%s\n%s\n%s", seed, err, complaints.String(), firstDifference(got, want), script)
			}
		}
		t.Logf("%d scripts, %d refused for their size", n, limited)
		if limited > n/20 {
			t.Errorf("%d of %d scripts were refused for their size, more than one in twenty", limited, n)
		}
	})
}

// firstDifference is the first line in which two texts differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d of the output is %q, not %q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("the output has %d lines, not %d", len(g), len(w))
}

// tooLarge reports whether skep itself said that a limit stands against a script.
func tooLarge(err error) bool {
	return slices.ContainsFunc(source.Diagnostics(err), func(d *source.Diagnostic) bool { return limits[d.Code] })
}
