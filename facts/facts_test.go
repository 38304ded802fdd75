package facts

import (
	"strings"
	"testing"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/targettest"
)

func TestValue(t *testing.T) {
	tgt := targettest.New(t)
	for _, test := range []struct {
		kind object.FactKind
		name string
		want string
	}{
		{object.FactArch, "GOARCH", "amd64"},
		{object.FactFeature, "kprobe_multi", "yes"},
		{object.FactFormat, "sched:sched_switch:prev_pid", "pid_t prev_pid; offset 24; size 4; signed true"},
		{object.FactFormat, "sched:sched_switch:nothing", None},
		{object.FactFormat, "sched:nothing:prev_pid", None},
		{object.FactSyscall, "sys_enter_openat:filename", "const char *filename; offset 24; size 8; signed false"},
		{object.FactExists, "tracepoint:sched:sched_switch", "yes"},
		{object.FactExists, "tracepoint:sched:nothing", "no"},
		{object.FactExists, "symbol jiffies", "yes"},
		{object.FactExists, "symbol nothing", "no"},
		{object.FactExists, "struct task_struct", "yes"},
		{object.FactExists, "builtin sched_switch", "yes"},
		{object.FactExists, "builtin nothing", "no"},
		{object.FactExists, "struct nothing", "no"},
		{object.FactLayout, "struct nothing", None},
		{object.FactMatch, "tracepoint:nothing:*", None},
	} {
		got, err := Value(tgt, object.Fact{Kind: test.kind, Name: test.name}, 0)
		if err != nil || got != test.want {
			t.Errorf("%s %s: %q, %v; want %q", test.kind, test.name, got, err, test.want)
		}
	}
	for _, f := range []object.Fact{{Kind: object.FactFormat, Name: "x"}, {Kind: object.FactArgs, Name: "x"}, {Kind: "nothing"}, {Kind: object.FactMatch, Name: ":::"}} {
		if v, err := Value(tgt, f, 0); err == nil {
			t.Errorf("%+v: %q without an error", f, v)
		}
	}
}

func TestMatchTellsListsApart(t *testing.T) {
	value := func(src *targettest.Source) string {
		tgt, err := target.New(src)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Value(tgt, object.Fact{Kind: object.FactMatch, Name: "tracepoint:sched:sched_*"}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	a := targettest.Kernel(t)
	b := targettest.Kernel(t)
	b.Formats[target.Event{Subsystem: "sched", Name: "sched_waking"}] = b.Formats[target.Event{Subsystem: "sched", Name: "sched_wakeup"}]
	delete(b.Formats, target.Event{Subsystem: "sched", Name: "sched_wakeup"})
	va, vb := value(a), value(b)
	if va == vb || !strings.HasPrefix(va, "3 hooks, ") || !strings.HasPrefix(vb, "3 hooks, ") {
		t.Errorf("%q and %q", va, vb)
	}
}

func TestDifferences(t *testing.T) {
	tgt := targettest.New(t)
	list := []object.Fact{
		{Kind: object.FactFeature, Name: "kprobe_multi", Value: "no"},
		{Kind: object.FactFeature, Name: "fentry", Value: "yes"},
		{Kind: object.FactFormat, Name: "sched:sched_switch:prev_pid", Value: Unknown},
		{Kind: object.FactParam, Name: "$1", Value: "5"},
	}
	d := Differences(tgt, list, 0)
	if len(d) != 1 || d[0].Here != "yes" || !strings.Contains(d[0].String(), "kprobe_multi") {
		t.Errorf("%v", d)
	}
}
