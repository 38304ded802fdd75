package skep_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/targettest"
)

// kernels are two machines on which a field of an event lies elsewhere.
func kernels(t *testing.T) (a, b target.Target) {
	t.Helper()
	a = targettest.New(t)
	src := targettest.Kernel(t)
	e := target.Event{Subsystem: "sched", Name: "sched_switch"}
	moved := strings.Replace(src.Formats[e], "prev_pid;\toffset:24;", "prev_pid;\toffset:28;", 1)
	if moved == src.Formats[e] {
		t.Fatalf("no prev_pid in\n%s", moved)
	}
	src.Formats[e] = moved
	b, err := target.New(src)
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func TestAdapt(t *testing.T) {
	here, there := kernels(t)
	build := func(script string, o bt.Options) *skep.Object {
		t.Helper()
		obj, err := skep.Compile(source.NewFile("t.bt", script), skep.CompileOptions{Options: o, Target: here})
		if err != nil {
			t.Fatal(err)
		}
		return obj
	}
	moves := build("tracepoint:sched:sched_switch { @[args.prev_pid] = count(); }", bt.Options{})
	stays := build("tracepoint:sched:sched_switch { @[args.next_pid] = count(); }", bt.Options{})
	params := build("tracepoint:sched:sched_switch /args.next_pid == $1/ { @ = count(); }", bt.Options{Args: []string{"5"}})

	same := func(o *skep.Object, a skep.AdaptOptions) {
		t.Helper()
		if got, err := skep.Adapt(o, a); err != nil || got != o {
			t.Errorf("%v, %v; want the same object", got, err)
		}
	}
	fresh := func(o *skep.Object, a skep.AdaptOptions) *skep.Object {
		t.Helper()
		got, err := skep.Adapt(o, a)
		if err != nil || got == o {
			t.Fatalf("%v; want another object", err)
		}
		a.NoSource = true
		_, err = skep.Adapt(o, a)
		var no *skep.NoSourceError
		if !errors.As(err, &no) || !no.Forbidden {
			t.Errorf("without the source: %v", err)
		}
		return got
	}
	same(moves, skep.AdaptOptions{Target: here})
	same(stays, skep.AdaptOptions{Target: there})
	same(params, skep.AdaptOptions{Target: there})
	same(params, skep.AdaptOptions{Target: there, Args: []string{"5"}})
	for _, f := range fresh(moves, skep.AdaptOptions{Target: there}).Manifest.Facts {
		if strings.HasSuffix(f.Name, "prev_pid") && !strings.Contains(f.Value, "offset 28") {
			t.Errorf("the new object has %+v", f)
		}
	}
	if got := fresh(params, skep.AdaptOptions{Target: here, Args: []string{"6"}}); !slices.Equal(got.Manifest.Source.Args, []string{"6"}) {
		t.Errorf("the new object has %v", got.Manifest.Source.Args)
	}
	if got := fresh(stays, skep.AdaptOptions{Target: here, PID: 7}); !got.Manifest.UsesPID {
		t.Error("the new object does not look at the process")
	}
	_, err := skep.Adapt(moves, skep.AdaptOptions{Target: there, NoSource: true})
	if err == nil || !strings.Contains(err.Error(), "prev_pid") || !strings.Contains(err.Error(), "offset 28") {
		t.Errorf("%v does not name what differs", err)
	}
}
