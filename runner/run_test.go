package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skep-bpf/skep/object"
)

var u64 = object.Type{Kind: object.TypeInt, Size: 8}

func arg(t object.Type) []object.Field { return []object.Field{{Offset: 8, Type: t}} }

// kinds are the kinds of events, in order.
func kinds(events []Event) string {
	var list []string
	for _, e := range events {
		s := string(e.Kind)
		if m := e.Message(); m != "" && e.Kind != EventLost {
			s += "=" + m
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

func TestRunOrder(t *testing.T) {
	f := newFake()
	f.programs["b"] = func(f *fake) { f.event(0, 1); f.event(1, 3); f.event(0, 2) }
	f.programs["e"] = func(f *fake) { f.event(0, 9) }
	man := &object.Manifest{
		RingBuffer: "ring", Programs: []object.Program{{Name: "b", Kind: object.KindBegin}, {Name: "e", Kind: object.KindEnd}},
		Events: []object.Event{
			{Kind: object.EventPrintf, Format: "n%d", Args: arg(u64)},
			{Kind: object.EventExit, Args: arg(u64)},
		},
	}
	events, res := runFake(t, f, man, nil)
	// What was printed before exit comes first, nothing is attached, and what
	// other CPUs printed meanwhile is not lost.
	if got, want := kinds(events), "printf=n1 printf=n2 printf=n9 final"; got != want {
		t.Errorf("events are %s, want %s", got, want)
	}
	if res.Code != 3 || !res.Exited || len(f.attached) != 0 {
		t.Errorf("result %+v, attached %v", res, f.attached)
	}
}

func TestRunTimersAndSnapshots(t *testing.T) {
	for _, ring := range []string{"ring", ""} {
		f := newFake()
		ticks := 0
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		f.programs["i"] = func(f *fake) {
			if ticks++; ticks == 3 {
				cancel()
			}
		}
		f.addMap("at_c", &fakeMap{keySize: 8, valueSize: 8, perCPU: true}).Update(word(7), append(word(2), word(3)...))
		man := &object.Manifest{
			RingBuffer: ring, Programs: []object.Program{{Name: "i", Kind: object.KindInterval, Probes: []int{0}}},
			Probes: []object.Probe{{Name: "interval:ms:5"}},
			Maps:   []object.MapShow{{Name: "@c", Map: "at_c", Agg: object.AggCount, Keys: []object.Field{{Type: u64}}, KeySize: 8, Present: -1}},
		}
		var snap *Snapshot
		var snapErr error
		done := make(chan struct{})
		var handle *Handle
		var kinds []string
		_, err := Run(ctx, Config{
			Machine: f, Manifest: man, Started: func(h *Handle) {
				handle = h
				go func() { defer close(done); snap, snapErr = h.Snapshot(t.Context(), "@c") }()
			},
			Events: func(e Event) error { kinds = append(kinds, string(e.Kind)); return nil },
		})
		<-done
		if err != nil || ticks != 3 {
			t.Fatalf("%v after %d ticks", err, ticks)
		}
		if snapErr != nil || len(snap.Entries) != 1 || snap.Entries[0].Agg.Number != 5 || snap.Entries[0].Key[0].Int != 7 {
			t.Errorf("snapshot %+v, %v", snap, snapErr)
		}
		if _, err := handle.Snapshot(t.Context(), "@c"); !errors.Is(err, ErrEnded) {
			t.Errorf("after the end: %v", err)
		}
		if _, err := handle.Snapshot(t.Context(), "@d"); err == nil {
			t.Error("a map that is not there has a snapshot")
		}
		if want := []string{"attached", "final", "print_map"}; !slices.Equal(kinds, want) {
			t.Errorf("events %v, want %v", kinds, want)
		}
	}
}

func word(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func TestRunWakesWhenCancelled(t *testing.T) {
	f := newFake()
	ctx, cancel := context.WithCancel(t.Context())
	man := &object.Manifest{RingBuffer: "ring"}
	start := time.Now()
	_, err := Run(ctx, Config{Machine: f, Manifest: man, Events: func(Event) error { return nil }, Ready: func(int) {
		time.AfterFunc(20*time.Millisecond, cancel)
	}})
	if err != nil || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestRunAlternatives(t *testing.T) {
	man := func(group int, missing string) *object.Manifest {
		return &object.Manifest{
			Programs: []object.Program{{Name: "p", Kind: object.KindAttach, Probes: []int{0, 1}, Group: group}},
			Probes:   []object.Probe{{Name: "kprobe:one"}, {Name: "kprobe:two"}},
			Settings: map[string]string{"missing_probes": missing},
		}
	}
	refused := errors.New("kprobe:one: there is no such function")
	run := func(m *object.Manifest) (string, error) {
		f := newFake()
		f.refuse["kprobe:one"] = refused
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var events []Event
		_, err := Run(ctx, Config{Machine: f, Manifest: m, Ready: func(int) { cancel() }, Events: func(e Event) error {
			events = append(events, e.Clone())
			return nil
		}})
		return kinds(events), err
	}
	if got, err := run(man(1, "error")); err != nil || got != "attached final" {
		t.Errorf("alternatives: %s, %v", got, err)
	}
	apart := man(1, "error")
	apart.Programs = []object.Program{
		{Name: "p", Kind: object.KindAttach, Probes: []int{0}, Group: 1}, {Name: "q", Kind: object.KindAttach, Probes: []int{1}, Group: 1},
	}
	if got, err := run(apart); err != nil || got != "attached final" {
		t.Errorf("alternatives of two programs: %s, %v", got, err)
	}
	apart.Programs[1].Group = 2
	if _, err := run(apart); !errors.Is(err, refused) {
		t.Errorf("a missing probe of another group gave %v", err)
	}
	if _, err := run(man(0, "error")); !errors.Is(err, refused) {
		t.Errorf("a missing probe gave %v", err)
	}
	if got, err := run(man(0, "warn")); err != nil || !strings.HasPrefix(got, "warning=kprobe:one: there is") {
		t.Errorf("a missing probe: %s, %v", got, err)
	}
	if got, err := run(man(0, "ignore")); err != nil || got != "attached final" {
		t.Errorf("an ignored probe: %s, %v", got, err)
	}
}

func TestRunLosses(t *testing.T) {
	f := newFake()
	f.vars["losses"] = slices.Concat(word(4), word(0), word(2))
	f.missed["p"] = 3
	man := &object.Manifest{
		Counters: "losses", ExitAfterBegin: true,
		Losses:   []object.Loss{{Kind: object.LossEvent}, {Kind: object.LossFault, Name: "str"}, {Kind: object.LossMapFull, Name: "@a", Line: 5}},
		Programs: []object.Program{{Name: "p", Kind: object.KindAttach, Probes: []int{0}}},
		Probes:   []object.Probe{{Name: "kprobe:one"}},
	}
	events, res := runFake(t, f, man, nil)
	var said []string
	for _, e := range events {
		if e.Kind == EventLost {
			said = append(said, e.Message())
		}
	}
	want := []string{
		"4 events were lost because the ring buffer was full (raise perf_rb_pages)",
		"2 updates of @a failed because the map was full (raise max_map_keys) (line 5)",
		"3 runs left out by the kernel in kprobe:one because the program ran already",
	}
	if !slices.Equal(said, want) || len(res.Losses) != 3 {
		t.Errorf("losses are\n%s", strings.Join(said, "\n"))
	}
}

func TestRunActions(t *testing.T) {
	f := newFake()
	str := object.Type{Kind: object.TypeString, Size: 8}
	f.addMap("at_m", &fakeMap{keySize: 8, valueSize: 8}).Update(word(1), word(5))
	cell := f.maps["at_m"]
	f.programs["b"] = func(f *fake) {
		f.submit(append(pack(0), "ab\x00\x00\x00\x00\x00\x00cd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00ef\x00\x00\x00\x00\x00\x00"...))
		f.event(1, 7)
		f.event(2, 99)
		f.event(3)
		f.event(4, 1, 5)
		f.event(5)
		f.event(6, 5)
		f.event(0)
	}
	man := &object.Manifest{
		RingBuffer: "ring", ExitAfterBegin: true, Programs: []object.Program{{Name: "b", Kind: object.KindBegin}},
		Events: []object.Event{
			{Kind: object.EventJoin, Format: "-", Args: []object.Field{{Offset: 8, Type: str}, {Offset: 16, Type: str}, {Offset: 24, Type: str}, {Offset: 32, Type: str}}},
			{Kind: object.EventSystem, Format: "printf '%%s' x%d", Args: arg(u64)},
			{Kind: object.EventCat, Format: "/nowhere/%d", Args: arg(u64)},
			{Kind: object.EventZero, Map: "@m"},
			{Kind: object.EventPrintElem, Map: "@m", Args: []object.Field{{Offset: 8, Type: u64}, {Offset: 16, Type: u64}}},
			{Kind: object.EventClear, Map: "@m"},
			{Kind: object.EventAssert, Format: "wrong %d", Args: arg(u64)},
		},
		Maps: []object.MapShow{{Name: "@m", Map: "at_m", Keys: []object.Field{{Type: u64}}, KeySize: 8, Value: u64, Present: -1}},
	}
	events, res := runFake(t, f, man, nil)
	want := "join=ab-cd system=x7 warning=/nowhere/99 cannot be shown: it does not exist print_elem assert=wrong 5"
	if got := kinds(events); !strings.HasPrefix(got, want) {
		t.Errorf("events are %s", got)
	}
	if res.Code != 1 || len(cell.keys) != 0 {
		t.Errorf("result %+v, %d elements are left", res, len(cell.keys))
	}
}

func TestRunHostileRecords(t *testing.T) {
	for _, data := range [][]byte{nil, {1}, pack(5), pack(1 << 31), pack(1<<32 - 1)} {
		f := newFake()
		f.programs["b"] = func(f *fake) { f.submit(data) }
		man := &object.Manifest{RingBuffer: "r", Programs: []object.Program{{Name: "b", Kind: object.KindBegin}}}
		if _, err := Run(t.Context(), Config{Machine: f, Manifest: man, Events: func(Event) error { return nil }}); err == nil {
			t.Errorf("the record %x was taken", data)
		}
	}
}

// What ends a run and did not fit the ring buffer is found in its variable.
func TestRunLastRecord(t *testing.T) {
	for _, kind := range []object.ProgramKind{object.KindBegin, object.KindInterval} {
		f := newFake()
		f.programs["p"] = func(f *fake) {
			if f.vars[object.LastRecordVar] == nil {
				f.event(0, 1)
				f.vars[object.LastRecordVar] = slices.Concat(word(1), pack(1, 3))
			}
		}
		man := &object.Manifest{
			RingBuffer: "ring", Programs: []object.Program{{Name: "p", Kind: kind, Probes: []int{0}}}, Probes: []object.Probe{{Name: "interval:ms:1"}},
			Events: []object.Event{{Kind: object.EventPrintf, Format: "n%d", Args: arg(u64)}, {Kind: object.EventExit, Args: arg(u64)}},
		}
		events, res := runFake(t, f, man, nil)
		if got := strings.ReplaceAll(kinds(events), "attached ", ""); !res.Exited || res.Code != 3 || got != "printf=n1 final" {
			t.Errorf("%s: %+v after %s", kind, res, got)
		}
	}
}

// A timer does not run again before what its last run did is seen, however
// slowly events are taken.
func TestRunTimersWait(t *testing.T) {
	f := newFake()
	runs := 0
	f.programs["i"] = func(f *fake) { runs++; f.event(0, 1); f.event(1, 0) }
	man := &object.Manifest{
		RingBuffer: "ring", Programs: []object.Program{{Name: "i", Kind: object.KindInterval, Probes: []int{0}}}, Probes: []object.Probe{{Name: "interval:ms:1"}},
		Events: []object.Event{{Kind: object.EventPrintf, Format: "n%d", Args: arg(u64)}, {Kind: object.EventExit, Args: arg(u64)}},
	}
	_, res := runFake(t, f, man, func(c *Config) {
		c.Events = func(e Event) error {
			if e.Kind == object.EventPrintf {
				time.Sleep(5 * time.Millisecond)
			}
			return nil
		}
	})
	if runs != 1 || !res.Exited {
		t.Errorf("%d runs, %+v", runs, res)
	}
}

func TestRunLiveLosses(t *testing.T) {
	for _, ring := range []string{"ring", ""} {
		f := newFake()
		f.vars["losses"] = word(2)
		f.missed["p"] = 3
		man := &object.Manifest{
			RingBuffer: ring, Counters: "losses", Losses: []object.Loss{{Kind: object.LossMapFull, Name: "@a"}},
			Programs: []object.Program{{Name: "p", Kind: object.KindAttach, Probes: []int{0}}}, Probes: []object.Probe{{Name: "kprobe:one"}},
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var said []string
		res, err := Run(ctx, Config{Machine: f, Manifest: man, LiveLosses: true, Events: func(e Event) error {
			switch {
			case e.Kind == EventFinal:
				said = append(said, "final")
			case e.Kind == EventLost:
				said = append(said, e.Message())
				if len(said) == 2 {
					// Two more come to light at the end.
					f.vars["losses"] = word(4)
					cancel()
				}
			}
			return nil
		}})
		want := []string{
			"2 updates of @a failed because the map was full (raise max_map_keys)",
			"3 runs left out by the kernel in kprobe:one because the program ran already",
			"final",
			"2 updates of @a failed because the map was full (raise max_map_keys)",
		}
		if err != nil || !slices.Equal(said, want) || len(res.Losses) != 2 || res.Losses[0].Count != 4 {
			t.Errorf("%v, %q, in all %+v", err, said, res.Losses)
		}
	}
}
