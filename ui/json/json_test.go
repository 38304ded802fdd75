package json

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
)

var update = flag.Bool("update", false, "write the golden files")

func num(n int64) runner.Value {
	return runner.Value{Type: &object.Type{Kind: object.TypeInt, Size: 8, Signed: true}, Int: n}
}

func str(s string) runner.Value {
	return runner.Value{Type: &object.Type{Kind: object.TypeString, Size: 64}, Bytes: []byte(s)}
}

func tuple(list ...runner.Value) runner.Value {
	t := &object.Type{Kind: object.TypeTuple}
	for _, v := range list {
		t.Fields = append(t.Fields, object.Field{Type: *v.Type})
	}
	return runner.Value{Type: t, Elems: list}
}

func events() []runner.Event {
	signed := object.Type{Kind: object.TypeInt, Size: 8, Signed: true}
	show := func(name string, agg object.Agg, entries ...runner.Entry) runner.Event {
		m := &object.MapShow{Name: name, Agg: agg, Value: signed, Min: 0, Max: 10, Step: 2}
		if len(entries) > 0 && len(entries[0].Key) > 0 {
			m.Keys = []object.Field{{Type: signed}}
		}
		return runner.Event{Kind: object.EventPrintMap, Map: &runner.Snapshot{Show: m, Entries: entries, Div: 1}}
	}
	hist := make([]uint64, object.HistBuckets(0))
	hist[0], hist[1], hist[4] = 1, 2, 3
	lhist := make([]uint64, 7)
	lhist[0], lhist[1], lhist[6] = 1, 2, 1
	record := runner.Value{
		Type:  &object.Type{Kind: object.TypeRecord, Fields: []object.Field{{Name: "a"}, {Name: "b"}}},
		Elems: []runner.Value{num(1), str("x")},
	}
	e := func(kind object.EventKind, format string, values ...runner.Value) runner.Event {
		return runner.Event{Kind: kind, Spec: &object.Event{Kind: kind, Format: format, Name: "map_update_elem", Line: 3, Col: 9}, Values: values}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return []runner.Event{
		{Kind: runner.EventAttached, Count: 2},
		e(object.EventPrintf, "%s \"%d\"\n", str("a\x1b\xff\u00e9\\"), num(-3)),
		e(object.EventPrint, "", num(1<<53+1)),
		e(object.EventPrint, "", tuple(num(1), str("a"), tuple(num(2), num(3)))),
		e(object.EventPrint, "", record),
		{Kind: object.EventTime, Text: "10:11:12\n"},
		{Kind: object.EventJoin, Text: "ls -l"},
		{Kind: object.EventCat, Text: "file\n"},
		{Kind: object.EventSystem, Text: "out\n"},
		e(object.EventErrorf, "bad %d", num(1)),
		e(object.EventWarnf, "odd"),
		e(object.EventHelperError, "", num(-7)),
		{Kind: runner.EventWarning, Text: "x cannot be shown"},
		{Kind: runner.EventRecord, Text: "rb", Values: []runner.Value{record}},
		{Kind: runner.EventFinal},
		show("@n", object.AggNone, runner.Entry{Value: num(-5)}),
		show("@k", object.AggNone, runner.Entry{Key: []runner.Value{num(1), str("a b")}, Value: str("v")}, runner.Entry{Key: []runner.Value{num(2), str("c")}, Value: str("w")}),
		show("@none", object.AggNone),
		show("@s", object.AggStats, runner.Entry{Agg: runner.Aggregate{Number: -7, Count: 2, Total: -15}}),
		show("@h", object.AggHist, runner.Entry{Agg: runner.Aggregate{Buckets: hist}}),
		show("@l", object.AggLhist, runner.Entry{Key: []runner.Value{num(1)}, Agg: runner.Aggregate{Buckets: lhist}}),
		show("@t", object.AggTseries, runner.Entry{Agg: runner.Aggregate{Series: []runner.Point{{Time: at, Value: 4, Set: true}, {Time: at}}}}),
		{Kind: runner.EventLost, Loss: object.Loss{Kind: object.LossEvent}, Count: 4},
		{Kind: runner.EventLost, Loss: object.Loss{Kind: object.LossMapFull, Name: "@a", Line: 2}, Count: 1},
	}
}

func TestGolden(t *testing.T) {
	var out strings.Builder
	p := New(&out)
	p.File = "x.bt"
	for _, e := range events() {
		if err := p.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	for line := range strings.Lines(got) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil || m["type"] == nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	const file = "testdata/events.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the lines are\n%s", got)
	}
}

func FuzzString(f *testing.F) {
	f.Add([]byte("a\"\\\x00\xff\u2028"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var out strings.Builder
		p := New(&out)
		p.str(text)
		if err := p.Flush(); err != nil {
			t.Fatal(err)
		}
		var s string
		if err := json.Unmarshal([]byte(out.String()), &s); err != nil || !utf8.ValidString(out.String()) {
			t.Fatalf("%q became %s: %v", text, out.String(), err)
		}
		if utf8.Valid(text) && s != string(text) {
			t.Fatalf("%q became %q", text, s)
		}
	})
}
