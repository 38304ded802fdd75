package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/skep-bpf/skep/object"
)

// A Trial is a run for the sake of probes that no hook ever fires.
type Trial string

// The trials. In other runs their probes are left out.
const (
	Tests   Trial = "test"  // each test probe runs once, and is judged
	Benches Trial = "bench" // each bench probe runs often, and is timed
)

func (t Trial) kind() object.ProgramKind {
	if t == Benches {
		return object.KindBench
	}
	return object.KindTest
}

// idle reports whether a program is of a kind that this run leaves out.
func (r *run) idle(p *object.Program) bool {
	return (p.Kind == object.KindTest || p.Kind == object.KindBench) && (r.Trial == "" || p.Kind != r.Trial.kind())
}

// trial runs the probes that the run is about, in order.
func (r *run) trial(ctx context.Context) error {
	var times []benchmark
	for i := range r.man.Programs {
		p := &r.man.Programs[i]
		if p.Kind != r.Trial.kind() {
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		_, name, _ := strings.Cut(r.probeName(*p), ":")
		var err error
		if r.Trial == Benches {
			var t time.Duration
			t, err = r.bench(ctx, p)
			times = append(times, benchmark{name, t})
		} else {
			err = r.test(p, name)
		}
		if err != nil {
			return err
		}
	}
	if r.Trial == Benches && len(times) > 0 {
		return r.line(benchTable(times))
	}
	return nil
}

func (r *run) line(text string) error {
	return r.Events(Event{Kind: object.EventJoin, Text: text})
}

// aside runs a program and keeps what it sends.
func (r *run) aside(p *object.Program) (result uint32, sent []Event, err error) {
	events, before := r.Events, r.result
	r.result.Exited, r.result.Code = false, 0
	r.Events = func(e Event) error {
		sent = append(sent, e.Clone())
		return nil
	}
	result, err = r.loaded.Run(p.Name)
	if err == nil {
		if err = r.drain(true); errors.Is(err, errExit) {
			err = nil
		}
	}
	r.Events = events
	if r.result.Exited && r.result.Code != 0 {
		result = uint32(r.result.Code)
	}
	r.result.Exited, r.result.Code = before.Exited, before.Code
	return result, sent, err
}

// test runs a test probe. It fails when it returns something but 0, when it
// ends the program with a code but 0, or when there are errors; then what it
// printed is shown.
func (r *run) test(p *object.Program, name string) error {
	result, sent, err := r.aside(p)
	if err != nil {
		return fmt.Errorf("%s cannot be run: %w", r.probeName(*p), err)
	}
	failed := result != 0 || slices.ContainsFunc(sent, func(e Event) bool {
		switch e.Kind {
		case object.EventErrorf, object.EventAssert, object.EventHelperError, object.EventRuntimeError:
			return true
		}
		return false
	})
	if !failed {
		return r.line("PASS " + name)
	}
	r.result.Code = 1
	for _, e := range sent {
		if err := r.Events(e); err != nil {
			return err
		}
	}
	return r.line("FAIL " + name)
}

// How long a bench probe runs: until both are reached, or the most runs.
const (
	benchTime = 100 * time.Millisecond
	benchRuns = 1000
	benchMost = 1_000_000
)

// bench returns the mean time of a run of a bench probe, as the kernel takes it.
// What the probe prints is thrown away.
func (r *run) bench(ctx context.Context, p *object.Program) (time.Duration, error) {
	start := time.Now()
	for n := 0; n < benchMost && (n < benchRuns || time.Since(start) < benchTime) && ctx.Err() == nil; n++ {
		if _, _, err := r.aside(p); err != nil {
			return 0, fmt.Errorf("%s cannot be run: %w", r.probeName(*p), err)
		}
	}
	stats, err := r.loaded.Stats(p.Name)
	if err != nil || stats.Runs == 0 {
		return 0, errors.Join(err, ctx.Err())
	}
	return stats.Time / time.Duration(stats.Runs), nil
}

type benchmark struct {
	name string
	mean time.Duration
}

// benchTable shows the results, sorted by name.
func benchTable(list []benchmark) string {
	slices.SortStableFunc(list, func(a, b benchmark) int { return strings.Compare(a.name, b.name) })
	const left, right = "BENCHMARK", "NANOSECONDS"
	w, v := len(left), len(right)
	for _, b := range list {
		w, v = max(w, len(b.name)), max(v, len(fmt.Sprint(b.mean.Nanoseconds())))
	}
	rule := "+" + strings.Repeat("-", w+2) + "+" + strings.Repeat("-", v+2) + "+"
	lines := []string{rule, fmt.Sprintf("| %-*s | %-*s |", w, left, v, right), rule}
	for _, b := range list {
		lines = append(lines, fmt.Sprintf("| %-*s | %-*d |", w, b.name, v, b.mean.Nanoseconds()))
	}
	return strings.Join(append(lines, rule), "\n")
}
