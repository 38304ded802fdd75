//go:build linux

package kernel

import (
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// TestHookProbes asks each kernel for the hooks that are found by their type,
// and package ebpf, which finds that type by itself, for the same.
func TestHookProbes(t *testing.T) {
	guest.Matrix(t, guest.Config{Cmdline: "lsm=bpf"}, func(t *testing.T) {
		testenv.NeedBPF(t)
		types, err := kernelTypes()
		if err == nil {
			_, err = types.Find(typeindex.KindFunc, "bpf_fentry_test1") // makes the index
		}
		if err != nil {
			t.Fatal(err)
		}
		tracing := func(p *ebpf.Program) (link.Link, error) {
			return link.AttachTracing(link.TracingOptions{Program: p})
		}
		for _, test := range []struct {
			name   target.FeatureName
			spec   ebpf.ProgramSpec
			attach func(*ebpf.Program) (link.Link, error)
		}{
			{target.FeatureTypedRawTP, ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sched_switch"}, tracing},
			{target.FeatureFentry, ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "bpf_fentry_test1"}, tracing},
			{target.FeatureLSM, ebpf.ProgramSpec{Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "path_chroot"}, func(p *ebpf.Program) (link.Link, error) {
				return link.AttachLSM(link.LSMOptions{Program: p})
			}},
			{target.FeatureIter, ebpf.ProgramSpec{Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map"}, func(p *ebpf.Program) (link.Link, error) {
				return link.AttachIter(link.IterOptions{Program: p})
			}},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got := probe(test.name)
			runtime.ReadMemStats(&after)

			test.spec.Instructions = asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
			test.spec.License = "GPL"
			p, want := ebpf.NewProgram(&test.spec)
			if want == nil {
				var l link.Link
				if l, want = test.attach(p); want == nil {
					l.Close()
				}
				p.Close()
			}
			if !got.Known || got.Have != (want == nil) {
				t.Errorf("%s: have %v, known %v (%s); package ebpf says %v", test.name, got.Have, got.Known, got.Why, want)
			}
			// Decoding all of the kernel's types takes tens of megabytes; what a
			// program attaches to is found without.
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%s: asking for it allocated %d kB", test.name, n>>10)
			}
		}
	})
}
