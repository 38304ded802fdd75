package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/vm"
)

// A testFile is a table of tests; "skep test --help" says what the fields mean.
type testFile struct {
	Object  string     `json:"object"`
	Program string     `json:"program"`
	Tests   []testCase `json:"tests"`

	path string
	elf  []byte
}

type testCase struct {
	Name    string `json:"name"`
	Program string `json:"program"`
	Set     struct {
		Variables map[string]any           `json:"variables"`
		Maps      map[string][]testElement `json:"maps"`
	} `json:"set"`
	Random  uint32 `json:"random"`
	Process struct {
		PID  uint32 `json:"pid"`
		TGID uint32 `json:"tgid"`
		UID  uint32 `json:"uid"`
		GID  uint32 `json:"gid"`
		Comm string `json:"comm"`
	} `json:"process"`
	testRun
	Then []testRun `json:"then"`
}

type testElement struct {
	Key   any `json:"key"`
	Value any `json:"value"`
}

// A testRun is one input, and what is to come of it.
type testRun struct {
	Clock   *uint64  `json:"clock"`
	Packet  hexText  `json:"packet"`
	Context any      `json:"context"`
	Repeat  uint32   `json:"repeat"`
	Want    testWant `json:"want"`
}

type testWant struct {
	Return    any                      `json:"return"`
	Packet    *hexText                 `json:"packet"`
	Context   map[string]any           `json:"context"`
	Variables map[string]any           `json:"variables"`
	Maps      map[string][]testElement `json:"maps"`
	Events    *[]testEvent             `json:"events"`
	Redirect  *execRedirect            `json:"redirect"`
	Printed   *string                  `json:"printed"`
	Error     string                   `json:"error"`
}

type testEvent struct {
	Map  string `json:"map"`
	Data any    `json:"data"`
}

// A hexText is hex, in a text or in a list of texts.
type hexText string

func (h *hexText) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*h = hexText(one)
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return errors.New("a packet is hex: a text, or a list of texts")
	}
	*h = hexText(strings.Join(list, ""))
	return nil
}

// readTests reads a file of tests and the object that they are for.
func readTests(name string) (*testFile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f := &testFile{path: name}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	dec.DisallowUnknownFields()
	if err := dec.Decode(f); err != nil {
		line := 1 + bytes.Count(text[:min(int(dec.InputOffset()), len(text))], []byte("\n"))
		return nil, fmt.Errorf("%s:%d: %s (skep test --help says what may be there)", name, line, strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: something follows the JSON object", name)
	}
	if len(f.Tests) == 0 {
		return nil, fmt.Errorf("%s has no tests", name)
	}
	seen := map[string]bool{}
	for i, c := range f.Tests {
		if c.Name == "" {
			return nil, fmt.Errorf("%s: test %d has no name", name, i+1)
		}
		if seen[c.Name] {
			return nil, fmt.Errorf("%s: there are two tests called %q", name, c.Name)
		}
		seen[c.Name] = true
	}
	if f.Object == "" {
		f.Object = strings.TrimSuffix(filepath.Base(name), testSuffix) + ".o"
	}
	if f.elf, err = os.ReadFile(filepath.Join(filepath.Dir(name), f.Object)); err != nil {
		return nil, fmt.Errorf("%s: the object of these tests: %w", name, err)
	}
	return f, nil
}

// A testRunner is an object that is loaded for one test.
type testRunner struct {
	spec    *ebpf.CollectionSpec
	coll    *skep.Collection
	prog    *vm.Program
	events  execReaders
	clock   uint64
	printed strings.Builder
}

func (f *testFile) load(c *testCase, verify bool) (_ *testRunner, err error) {
	r := &testRunner{}
	if r.spec, err = object.ReadSpec(f.elf); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Object, err)
	}
	for name, v := range c.Set.Variables {
		s := r.spec.Variables[name]
		if s == nil {
			return nil, unknownName("variable", name, maps.Keys(r.spec.Variables))
		}
		b, err := encodeType(varType(s.Type), int(s.Size()), v)
		if err == nil {
			err = s.Set(b)
		}
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", name, err)
		}
	}
	r.coll, err = skep.NewCollectionWithOptions(r.spec, skep.CollectionOptions{
		Trusted: !verify,
		NewEngine: skep.EngineOptions{CPUs: 1, Host: skep.Host{
			Monotonic: func() uint64 { return r.clock },
			TAI:       func() uint64 { return r.clock },
			Random:    func() uint32 { return c.Random },
			Process: func() skep.Process {
				p := c.Process
				return skep.Process{PID: p.PID, TGID: p.TGID, UID: p.UID, GID: p.GID, Comm: p.Comm}
			},
			Print: func(text string) { r.printed.WriteString(text) },
		}},
	})
	if err != nil {
		return nil, err
	}
	program := c.Program
	if program == "" {
		program = f.Program
	}
	choose := execFlags{program: program}
	if r.prog, err = choose.choose(r.coll); err == nil {
		err = r.fill(c.Set.Maps)
	}
	if err == nil {
		r.events, err = readEvents(r.coll)
	}
	if err != nil {
		return nil, errors.Join(err, r.coll.Close())
	}
	return r, nil
}

func (r *testRunner) close() {
	r.events.close()
	_ = r.coll.Close()
}

func varType(v *btf.Var) btf.Type {
	if v == nil {
		return nil
	}
	return v.Type
}

func (r *testRunner) mapNamed(name string) (*vm.Map, error) {
	m := r.coll.Maps[name]
	if m == nil {
		return nil, unknownName("map", name, maps.Keys(r.coll.Maps))
	}
	return m, nil
}

// fill puts elements into maps.
func (r *testRunner) fill(all map[string][]testElement) error {
	for name, list := range all {
		m, err := r.mapNamed(name)
		if err != nil {
			return err
		}
		kt, vt := m.Types()
		for i, e := range list {
			key, err := encodeKey(m, kt, e.Key)
			if err != nil {
				return fmt.Errorf("map %s, element %d: key: %w", name, i+1, err)
			}
			value, err := encodeType(vt, m.ValueSize(), e.Value)
			if err != nil {
				return fmt.Errorf("map %s, element %d: value: %w", name, i+1, err)
			}
			var k any
			if m.KeySize() > 0 {
				k = key
			}
			if m.PerCPU() {
				err = m.Put(k, [][]byte{value})
			} else {
				err = m.Put(k, value)
			}
			if err != nil {
				return fmt.Errorf("map %s, element %d: %w", name, i+1, err)
			}
		}
	}
	return nil
}

func encodeKey(m *vm.Map, t btf.Type, v any) ([]byte, error) {
	if m.KeySize() == 0 {
		return nil, nil
	}
	return encodeType(t, m.KeySize(), v)
}

// run runs the program over one input and returns what is not as it should be;
// lead begins each.
func (r *testRunner) run(ctx context.Context, c *testRun, lead string) (failures []string) {
	fail := func(format string, args ...any) {
		failures = append(failures, lead+fmt.Sprintf(format, args...))
	}
	if c.Clock != nil {
		r.clock = *c.Clock
	}
	o := vm.RunOptions{Repeat: max(1, c.Repeat)}
	var err error
	if c.Packet != "" {
		if o.Data, err = unhex("the packet", string(c.Packet)); err != nil {
			fail("%v", err)
			return failures
		}
	}
	ct := contextOf(r.spec, r.prog)
	if c.Context != nil {
		if o.Context, err = ct.encode(c.Context); err != nil {
			fail("the context: %v", err)
			return failures
		}
	}
	r.printed.Reset()
	res, err := r.prog.RunContext(ctx, &o)
	w := &c.Want
	if w.Error != "" {
		if err == nil || !strings.Contains(err.Error(), w.Error) {
			fail("error: want %q, got %v", w.Error, err)
		}
		return failures
	}
	if err != nil {
		fail("%v", err)
		return failures
	}
	if w.Return != nil {
		if want, err := returnValue(r.prog.Type(), w.Return); err != nil {
			fail("return: %v", err)
		} else if want != res.Return {
			fail("return: want %s, got %s", returnName(r.prog.Type(), want), returnName(r.prog.Type(), res.Return))
		}
	}
	if w.Packet != nil {
		want := o.Data
		if *w.Packet != "unchanged" {
			if want, err = unhex("the packet", string(*w.Packet)); err != nil {
				fail("want: %v", err)
			}
		}
		if err == nil && !bytes.Equal(want, res.Data) {
			fail("packet: want - of %d bytes, got + of %d\n%s", len(want), len(res.Data), diffBytes(want, res.Data))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Context)) {
		fields, _ := ct.decode(res.Context).(map[string]any)
		got, ok := fields[name]
		if !ok {
			fail("context: %v", unknownName("field", name, maps.Keys(fields)))
			continue
		}
		if a, b := execText(w.Context[name]), execText(got); a != b {
			fail("context %s: want %s, got %s", name, a, b)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Variables)) {
		if text := r.variable(name, w.Variables[name]); text != "" {
			fail("%s", text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Maps)) {
		if text := r.elements(name, w.Maps[name]); text != "" {
			fail("%s", text)
		}
	}
	events := r.events.all()
	if w.Events != nil {
		if text := r.compareEvents(*w.Events, events); text != "" {
			fail("%s", text)
		}
	}
	if w.Redirect != nil {
		got := execRedirect{Kind: res.Redirect.Kind, Ifindex: res.Redirect.Ifindex, Key: res.Redirect.Key}
		if res.Redirect.Map != nil {
			got.Map = res.Redirect.Map.Name()
		}
		if got != *w.Redirect {
			fail("redirect: want %+v, got %+v", *w.Redirect, got)
		}
	}
	if w.Printed != nil && *w.Printed != r.printed.String() {
		fail("printed: want %q, got %q", *w.Printed, r.printed.String())
	}
	return failures
}

func (r *testRunner) variable(name string, want any) string {
	v := r.coll.Variables[name]
	if v == nil {
		return unknownName("variable", name, maps.Keys(r.coll.Variables)).Error()
	}
	b, err := encodeType(v.Type(), v.Size(), want)
	if err != nil {
		return fmt.Sprintf("variable %s: %v", name, err)
	}
	var got []byte
	if err := v.Get(&got); err != nil {
		return err.Error()
	}
	if !bytes.Equal(b, got) {
		return fmt.Sprintf("variable %s: want %s, got %s", name, execText(show(v.Type(), b)), execText(show(v.Type(), got)))
	}
	return ""
}

// elements compares a map with what should be in it.
func (r *testRunner) elements(name string, want []testElement) string {
	m, err := r.mapNamed(name)
	if err != nil {
		return err.Error()
	}
	kt, vt := m.Types()
	line := func(k, v any) string { return execText(k) + ": " + execText(v) }
	wanted := map[string]string{} // by key, as they are shown
	for i, e := range want {
		key, err := encodeKey(m, kt, e.Key)
		if err != nil {
			return fmt.Sprintf("map %s, element %d: key: %v", name, i+1, err)
		}
		var value any
		if list, ok := e.Value.([]any); ok && m.PerCPU() {
			var each []any
			for _, x := range list {
				b, err := encodeType(vt, m.ValueSize(), x)
				if err != nil {
					return fmt.Sprintf("map %s, element %d: value: %v", name, i+1, err)
				}
				each = append(each, show(vt, b))
			}
			value = each
		} else {
			b, err := encodeType(vt, m.ValueSize(), e.Value)
			if err != nil {
				return fmt.Sprintf("map %s, element %d: value: %v", name, i+1, err)
			}
			value = show(vt, b)
			if m.PerCPU() {
				value = []any{value} // there is one processor
			}
		}
		shown := show(kt, key)
		wanted[execText(shown)] = line(shown, value)
	}
	var minus, plus []string
	for _, e := range showMap(m) {
		got, k := line(e.Key, e.Value), execText(e.Key)
		if wanted[k] != got {
			plus = append(plus, "+ "+got)
		} else {
			delete(wanted, k)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(wanted)) {
		minus = append(minus, "- "+wanted[k])
	}
	if len(minus)+len(plus) == 0 {
		return ""
	}
	slices.Sort(plus)
	return fmt.Sprintf("map %s: want -, got +\n%s", name, strings.Join(append(minus, plus...), "\n"))
}

func (r *testRunner) compareEvents(want []testEvent, got []execEvent) string {
	var minus, plus []string
	for i := range max(len(want), len(got)) {
		w, g := "", ""
		var t btf.Type
		if i < len(want) {
			m, err := r.mapNamed(want[i].Map)
			if err != nil {
				return fmt.Sprintf("event %d: %v", i+1, err)
			}
			_, t = m.Types()
			size := 0
			if t != nil {
				size, _ = btf.Sizeof(t)
			} else if text, ok := want[i].Data.(string); ok {
				if raw, err := unhex("data", text); err == nil {
					size = len(raw)
				}
			}
			b, err := encodeType(t, size, want[i].Data)
			if err != nil {
				return fmt.Sprintf("event %d: %v", i+1, err)
			}
			w = want[i].Map + ": " + execText(show(t, b))
		}
		if i < len(got) {
			g = got[i].Map + ": " + got[i].text()
		}
		if w == g {
			continue
		}
		if w != "" {
			minus = append(minus, fmt.Sprintf("- %d %s", i+1, w))
		}
		if g != "" {
			plus = append(plus, fmt.Sprintf("+ %d %s", i+1, g))
		}
	}
	if len(minus)+len(plus) == 0 {
		return ""
	}
	return "events: want -, got +\n" + strings.Join(append(minus, plus...), "\n")
}

// diffBytes shows two packets, sixteen bytes a line; where they differ, what is
// wanted stands above what there is.
func diffBytes(want, got []byte) string {
	var lines []string
	row := func(b []byte, at int) []byte { return b[min(at, len(b)):min(at+16, len(b))] }
	for at := 0; at < max(len(want), len(got)); at += 16 {
		w, g := row(want, at), row(got, at)
		if bytes.Equal(w, g) {
			lines = append(lines, fmt.Sprintf("  %04x  % x", at, w))
			continue
		}
		if len(w) > 0 {
			lines = append(lines, fmt.Sprintf("- %04x  % x", at, w))
		}
		if len(g) > 0 {
			lines = append(lines, fmt.Sprintf("+ %04x  % x", at, g))
		}
	}
	return strings.Join(lines, "\n")
}

// returnNames are the names that C has for results (include/uapi/linux/bpf.h,
// pkt_cls.h).
var returnNames = map[abi.ProgType][]string{
	abi.ProgXDP:      {"XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"},
	abi.ProgSchedCls: {"TC_ACT_OK", "TC_ACT_RECLASSIFY", "TC_ACT_SHOT", "TC_ACT_PIPE", "TC_ACT_STOLEN", "TC_ACT_QUEUED", "TC_ACT_REPEAT", "TC_ACT_REDIRECT", "TC_ACT_TRAP"},
	abi.ProgSkLookup: {"SK_DROP", "SK_PASS"},
	abi.ProgSkSkb:    {"SK_DROP", "SK_PASS"},
	abi.ProgSkMsg:    {"SK_DROP", "SK_PASS"},
}

func returnValue(t abi.ProgType, v any) (uint32, error) {
	if text, ok := v.(string); ok {
		if text == "TC_ACT_UNSPEC" {
			return 1<<32 - 1, nil
		}
		names := returnNames[t]
		if t == abi.ProgSchedAct {
			names = returnNames[abi.ProgSchedCls]
		}
		if i := slices.Index(names, text); i >= 0 {
			return uint32(i), nil
		}
		if _, err := strconv.ParseInt(text, 0, 64); err != nil {
			return 0, unknownName("result", text, slices.Values(names))
		}
	}
	n, err := jsonNumber(v)
	return uint32(n), err
}

func returnName(t abi.ProgType, n uint32) string {
	if names := returnNames[t]; int64(n) < int64(len(names)) {
		return fmt.Sprintf("%d (%s)", n, names[n])
	}
	return strconv.FormatInt(int64(int32(n)), 10)
}
