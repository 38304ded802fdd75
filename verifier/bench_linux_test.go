package verifier

import (
	"slices"
	"testing"
	"time"
)

// BenchmarkKernel compares the time for each program that both accept with what
// the kernel says it took, each the best of five, and reports the median of the
// ratios.
func BenchmarkKernel(b *testing.B) {
	o := newOracle(b)
	o.logLevel = 4 // figures alone: a log of instructions takes its time
	var programs []*Program
	for _, c := range corpus(b) {
		if c.verdict == Accepted && c.caps == CapsAll {
			programs = append(programs, c.program)
		}
	}
	for s := *seed; s < *seed+300; s++ {
		programs = append(programs, generate(s, Config{}))
	}
	cfg := Config{Types: kernelTypes(b), CPUs: o.processors(b)}
	o.logLevel = 4
	var ratios []float64
	var ours, theirs time.Duration
	for _, p := range programs {
		kernel := time.Duration(1 << 62)
		accepted := true
		for range 5 {
			a, err := o.load(p, CapsAll, 0)
			if err != nil {
				b.Fatal(err)
			}
			accepted = accepted && a.accepted
			if a.ns > 0 {
				kernel = min(kernel, time.Duration(a.ns))
			}
		}
		if !accepted || kernel == 1<<62 {
			continue
		}
		own := time.Duration(1 << 62)
		for range 5 {
			start := time.Now()
			if r := Verify(p, cfg); r.Verdict != Accepted {
				b.Errorf("%s: %v", p.Name, r.Err)
			}
			own = min(own, time.Since(start))
		}
		ratios = append(ratios, float64(own)/float64(kernel))
		ours += own
		theirs += kernel
	}
	slices.Sort(ratios)
	n := len(ratios)
	b.Logf("%d programs: %v against the kernel's %v in all", n, ours, theirs)
	b.ReportMetric(ratios[n/2], "median-x-kernel")
	b.ReportMetric(ratios[n*9/10], "p90-x-kernel")
	b.ReportMetric(0, "ns/op")
}

func BenchmarkCorpus(b *testing.B) {
	var programs []*Program
	for _, c := range corpus(b) {
		if c.verdict == Accepted && c.caps == CapsAll && !c.needsTypes() {
			programs = append(programs, c.program)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range programs {
			Verify(p, Config{})
		}
	}
}

func BenchmarkLongLoop(b *testing.B) {
	for _, c := range corpus(b) {
		if c.program.Name != "a loop too long" {
			continue
		}
		b.ReportAllocs()
		for b.Loop() {
			Verify(c.program, Config{})
		}
	}
}
