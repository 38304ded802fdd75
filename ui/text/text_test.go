package text

import (
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

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

// Events are one event of each kind and maps of each form.
func events() []runner.Event {
	signed := object.Type{Kind: object.TypeInt, Size: 8, Signed: true}
	keys := []object.Field{{Type: signed}}
	show := func(name string, agg object.Agg, entries ...runner.Entry) runner.Event {
		m := &object.MapShow{Name: name, Agg: agg, Value: signed, Min: 0, Max: 8192, Step: 1024, Interval: 100e6, Buckets: 5}
		if len(entries) > 0 && len(entries[0].Key) > 0 {
			m.Keys = keys
		}
		return runner.Event{Kind: object.EventPrintMap, Map: &runner.Snapshot{Show: m, Entries: entries, Div: 1}}
	}
	hist := make([]uint64, object.HistBuckets(0))
	hist[0], hist[1], hist[2], hist[3], hist[12] = 1, 2, 3, 100, 1
	lhist := make([]uint64, 10)
	lhist[0], lhist[3], lhist[9] = 1, 2, 1
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var series []runner.Point
	for i, v := range []int64{-5, 0, 7, 0, 5} {
		series = append(series, runner.Point{Time: at.Add(time.Duration(i) * 100 * time.Millisecond), Value: v, Set: i != 3})
	}
	spec := func(kind object.EventKind, format string) *object.Event {
		return &object.Event{Kind: kind, Format: format, Name: "map_update_elem", Line: 3, Col: 9}
	}
	e := func(kind object.EventKind, format string, values ...runner.Value) runner.Event {
		return runner.Event{Kind: kind, Spec: spec(kind, format), Values: values}
	}
	return []runner.Event{
		{Kind: runner.EventAttached, Count: 2},
		e(object.EventPrintf, "\x1b[1m%s %d\n", str("a\x1b[2J\xff\u00e9\nb"), num(-3)),
		e(object.EventPrint, "", num(9007199254740993)),
		{Kind: object.EventTime, Text: "10:11:12\n"},
		{Kind: object.EventJoin, Text: "ls -l"},
		{Kind: object.EventCat, Text: "file\n"},
		{Kind: object.EventSystem, Text: "out\n"},
		e(object.EventErrorf, "bad %d\n", num(1)),
		e(object.EventWarnf, "odd"),
		e(object.EventHelperError, "", num(-7)),
		{Kind: runner.EventWarning, Text: "x cannot be shown"},
		{Kind: runner.EventRecord, Text: "rb", Values: []runner.Value{str("raw")}},
		{Kind: runner.EventFinal},
		show("@n", object.AggNone, runner.Entry{Value: num(-5)}),
		show("@k", object.AggNone, runner.Entry{Key: []runner.Value{num(1), str("a b")}, Value: str("v")}),
		show("@none", object.AggNone),
		show("@c", object.AggCount, runner.Entry{Key: []runner.Value{num(2)}, Agg: runner.Aggregate{Number: 7}}),
		show("@s", object.AggStats, runner.Entry{Agg: runner.Aggregate{Number: -7, Count: 2, Total: -15}}),
		show("@a", object.AggAvg, runner.Entry{Agg: runner.Aggregate{Number: 5}}),
		show("@h", object.AggHist, runner.Entry{Agg: runner.Aggregate{Buckets: hist}}),
		show("@hk", object.AggHist, runner.Entry{Key: []runner.Value{num(1)}, Agg: runner.Aggregate{Buckets: hist[:3]}}),
		show("@l", object.AggLhist, runner.Entry{Agg: runner.Aggregate{Buckets: lhist}}),
		show("@t", object.AggTseries, runner.Entry{Agg: runner.Aggregate{Series: series}}),
		{Kind: runner.EventLost, Loss: object.Loss{Kind: object.LossEvent}, Count: 4},
		{Kind: runner.EventLost, Loss: object.Loss{Kind: object.LossMapFull, Name: "@a", Line: 2}, Count: 1},
	}
}

func TestGolden(t *testing.T) {
	var out, diag strings.Builder
	p := New(&out, &diag, false)
	p.File = "x.bt"
	for _, e := range events() {
		if err := p.Event(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	got := out.String() + "== standard error\n" + diag.String()
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
		t.Errorf("the text is\n%s", got)
	}
}

func TestEscape(t *testing.T) {
	for _, tt := range []struct{ in, want, terminal string }{
		{"plain é 漢", "plain é 漢", "plain é 漢"},
		{"a\tb\nc", "a\tb\nc", "a\tb\\x0ac"},
		{"\x1b]0;x\a\r\x7f\x00", `\x1b]0;x\x07\x0d\x7f\x00`, `\x1b]0;x\x07\x0d\x7f\x00`},
		{"\u0085\u009b\u202e", `\xc2\x85\xc2\x9b\xe2\x80\xae`, `\xc2\x85\xc2\x9b\xe2\x80\xae`},
		{"\xff\xfe\xe2\x82", `\xff\xfe\xe2\x82`, `\xff\xfe\xe2\x82`},
		{"\ufffd", "\ufffd", "\ufffd"},
	} {
		if got := string(AppendEscaped(nil, []byte(tt.in), false)); got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.in, got, tt.want)
		}
		if got := string(AppendEscaped(nil, []byte(tt.in), true)); got != tt.terminal {
			t.Errorf("%q becomes %q on a terminal, want %q", tt.in, got, tt.terminal)
		}
	}
}

type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestFullDisk(t *testing.T) {
	p := New(full{}, full{}, false)
	var err error
	for range 1 << 14 {
		if err = p.Event(events()[1]); err != nil {
			break
		}
	}
	if !errors.Is(err, errFull) {
		t.Errorf("a full disk gives %v", err)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte("a\x1b\xff\xe2\x80\xae"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, c := range AppendEscaped(nil, text, true) {
			if c < 0x20 && c != '\t' || c == 0x7f {
				t.Fatalf("%q still has %#x", text, c)
			}
		}
	})
}
