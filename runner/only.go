package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skep-bpf/skep/object"
)

// runOnly runs the tests or benchmarks of a script, one after the other.
func (r *run) runOnly(ctx context.Context) error {
	n := 0
	for i := range r.man.Programs {
		p := &r.man.Programs[i]
		name := r.probeName(*p)
		if p.Kind != r.Only || r.Filter != nil && !r.Filter(name) {
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		n++
		var err error
		if r.Only == object.KindTest {
			err = r.test(p, name)
		} else {
			err = r.bench(ctx, p, name)
		}
		if err != nil {
			return err
		}
	}
	if n == 0 {
		return fmt.Errorf("the script has no %s: probes to run, or none that is wanted", r.Only)
	}
	return nil
}

// test runs one test. It fails when an assertion does, or when it returns
// something other than 0.
func (r *run) test(p *object.Program, name string) error {
	r.testing, r.failed = true, false
	code, err := r.loaded.Run(p.Name)
	if err == nil {
		err = r.drain(false)
	}
	r.testing = false
	if err != nil && !errors.Is(err, errExit) {
		return err
	}
	e := Event{Kind: EventTest, Text: name}
	if r.failed || code != 0 {
		e.Count, r.result.Code = 1, 1
	}
	return errors.Join(r.Events(e), err)
}

// How often a benchmark runs: until it has run that long in all, by the
// machine's own clock, or that often.
const (
	benchTime = 50 * time.Millisecond
	benchRuns = 20000
	warmRuns  = 100
)

// bench runs one benchmark and tells the mean of its runs, as the machine
// measures them.
func (r *run) bench(ctx context.Context, p *object.Program, name string) error {
	repeat := func(n int) error {
		for range n {
			if _, err := r.loaded.Run(p.Name); err != nil {
				return err
			}
		}
		return r.drain(true)
	}
	if err := repeat(warmRuns); err != nil {
		return err
	}
	before, err := r.loaded.Stats(p.Name)
	if err != nil {
		return err
	}
	now := before
	for now.Time-before.Time < benchTime && now.Runs-before.Runs < benchRuns && ctx.Err() == nil {
		if err := repeat(warmRuns); err != nil {
			return err
		}
		if now, err = r.loaded.Stats(p.Name); err != nil {
			return err
		}
		if now.Runs == before.Runs {
			return fmt.Errorf("%s cannot be measured: the machine counts no runs of it", name)
		}
	}
	runs := max(now.Runs-before.Runs, 1)
	return r.Events(Event{Kind: EventBench, Text: name, Count: uint64(now.Time-before.Time) / runs})
}
