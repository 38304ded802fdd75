package ir_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/ir/irtest"
	"github.com/skep-bpf/skep/source"
)

var update = flag.Bool("update", false, "rewrite golden files")

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// sameModule compares modules by content. Functions are compared through
// their parts, because counters of numbers given out may differ.
func sameModule(t *testing.T, a, b *ir.Module) {
	t.Helper()
	if !reflect.DeepEqual(a.Maps, b.Maps) || !reflect.DeepEqual(a.Globals, b.Globals) || !reflect.DeepEqual(a.Externs, b.Externs) {
		t.Fatal("declarations differ")
	}
	if a.Name != b.Name || a.License != b.License || len(a.Funcs) != len(b.Funcs) {
		t.Fatal("modules differ")
	}
	for i, f := range a.Funcs {
		g := b.Funcs[i]
		if f.Name != g.Name || f.Linkage != g.Linkage || f.Section != g.Section || f.Result != g.Result ||
			!reflect.DeepEqual(f.Pos, g.Pos) || !reflect.DeepEqual(f.Proto, g.Proto) || len(f.Blocks) != len(g.Blocks) {
			t.Fatalf("functions %s differ", f.Name)
		}
		for j, fb := range f.Blocks {
			gb := g.Blocks[j]
			if fb.ID != gb.ID || fb.Name != gb.Name || fb.Term != gb.Term || fb.Likely != gb.Likely || fb.Pos.Start != gb.Pos.Start ||
				fb.Pos.End != gb.Pos.End || len(fb.Params) != len(gb.Params) || len(fb.Values) != len(gb.Values) || len(fb.Succs) != len(gb.Succs) || gb.Func != g {
				t.Fatalf("blocks differ:\n%s%s", fb, gb)
			}
			sameValues(t, fb.Params, gb.Params)
			sameValues(t, fb.Values, gb.Values)
			if fb.Cond.Label() != gb.Cond.Label() {
				t.Fatal("conditions differ")
			}
			for k, e := range fb.Succs {
				if e.To.ID != gb.Succs[k].To.ID || labels(e.Args) != labels(gb.Succs[k].Args) {
					t.Fatal("edges differ")
				}
			}
		}
	}
}

func labels(list []*ir.Value) string {
	var s []string
	for _, v := range list {
		s = append(s, v.Label())
	}
	return strings.Join(s, ",")
}

func sameValues(t *testing.T, a, b []*ir.Value) {
	t.Helper()
	for i, v := range a {
		w := b[i]
		if v.ID != w.ID || v.Op != w.Op || v.Type != w.Type || v.Int != w.Int || v.Name != w.Name || labels(v.Args) != labels(w.Args) ||
			v.Block.ID != w.Block.ID || v.Pos.Start != w.Pos.Start || v.Pos.End != w.Pos.End || (v.Pos.File == nil) != (w.Pos.File == nil) {
			t.Fatalf("values differ:\n%s\n%s", v, w)
		}
		if v.Pos.File != nil && v.Pos.File.Name != w.Pos.File.Name {
			t.Fatalf("positions of %s differ", v)
		}
		switch aux := v.Aux.(type) {
		case *ir.Func:
			if aux.Name != w.Aux.(*ir.Func).Name {
				t.Fatalf("callees of %s differ", v)
			}
		default:
			if !reflect.DeepEqual(aux, w.Aux) {
				t.Fatalf("Aux of %s differs", v)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for seed := range uint64(400) {
		m := irtest.Random(rng(seed), irtest.Options{})
		if err := ir.Check(m); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		text := ir.Print(m)
		back, err := ir.Parse(text)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		sameModule(t, m, back)
		if again := ir.Print(back); again != text {
			t.Fatalf("seed %d: the text changes\n%s", seed, diff(text, again))
		}
		if err := ir.Check(back); err != nil {
			t.Fatal(err)
		}
	}
}

func diff(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range as {
		if i >= len(bs) || as[i] != bs[i] {
			return fmt.Sprintf("line %d:\n-%s\n+%s", i+1, as[i], strings.Join(bs[min(i, len(bs)):min(i+1, len(bs))], ""))
		}
	}
	return "+" + strings.Join(bs[len(as):], "\n+")
}

// TestRecursiveTypes writes types that contain themselves, with and without names.
func TestRecursiveTypes(t *testing.T) {
	node := &btf.Struct{Name: "node", Size: 16}
	node.Members = []btf.Member{
		{Name: "next", Type: &btf.Pointer{Target: node}},
		{Name: "twin", Type: &btf.Pointer{Target: &btf.Const{Type: node}}, Offset: 64},
	}
	nameless := &btf.Pointer{}
	nameless.Target = &btf.Const{Type: nameless}
	other := &btf.Typedef{Name: "node", Type: node}
	shared := &btf.Struct{Size: 4}
	m := &ir.Module{Maps: []*ir.Map{
		{Name: "a", Key: node, KeySize: 16, Value: nameless, ValueSize: 8},
		{Name: "b", Key: other, KeySize: 16, Value: shared, ValueSize: 4},
		{Name: "c", Key: shared, KeySize: 4},
	}}
	text := ir.Print(m)
	back, err := ir.Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	sameModule(t, m, back)
	if back.Maps[1].Value != back.Maps[2].Key {
		t.Error("the shared struct became two")
	}
	n := back.Maps[0].Key.(*btf.Struct)
	if n.Members[0].Type.(*btf.Pointer).Target != n {
		t.Error("the struct no longer contains itself")
	}
	for _, want := range []string{"type $node = struct 16 { next: *$node @0, twin: *const $node @8 }", "type $node#2 = typedef $node"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestPositions(t *testing.T) {
	file := source.NewFile("a.bt", "é x\n\xffy z\n")
	f := (&ir.Module{}).NewFunc("f", ir.Static, nil, ir.Type{})
	b := ir.NewBuilder(f)
	b.Return(nil)
	for start := -2; start < len(file.Text)+2; start++ {
		for end := start - 1; end < len(file.Text)+2; end++ {
			f.Pos = source.Span{File: file, Start: start, End: end}
			m := f.Module
			back, err := ir.Parse(ir.Print(m))
			if err != nil {
				t.Fatalf("%d-%d: %v", start, end, err)
			}
			if p := back.Funcs[0].Pos; p.Start != start || p.End != end || p.File.Text != file.Text {
				t.Fatalf("%d-%d came back as %d-%d", start, end, p.Start, p.End)
			}
		}
	}
	f.Pos = source.Span{File: file, Start: 3, End: 4}
	if want := "!1:3-4 {"; !strings.Contains(f.String(), want) {
		t.Errorf("no %s in %s", want, f)
	}
}

// golden runs each file of testdata through do: a file holds the input,
// a line "-- want --", and what do has to make of it.
func golden(t *testing.T, dir string, do func(t *testing.T, name, input string) string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.ir"))
	if len(files) == 0 {
		t.Fatal("no golden files in " + dir)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			const mark = "-- want --\n"
			input, want, _ := strings.Cut(string(data), mark)
			got := do(t, name, input)
			if got == want {
				return
			}
			if *update {
				if err := os.WriteFile(name, []byte(input+mark+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("differs from the golden text (run with -update to accept)\n%s\ngot:\n%s", diff(want, got), got)
		})
	}
}

// TestGolden reads hand-written text: what is printed, or the errors of Parse or Check.
func TestGolden(t *testing.T) {
	golden(t, "testdata", func(t *testing.T, name, input string) string {
		m, err := ir.Parse(input)
		if err == nil {
			err = ir.Check(m)
		}
		if err != nil {
			return "error: " + err.Error() + "\n"
		}
		out := ir.Print(m)
		if _, err := ir.Parse(out); err != nil {
			t.Error(err)
		}
		return out
	})
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.ir")
	for _, name := range files {
		data, _ := os.ReadFile(name)
		input, _, _ := strings.Cut(string(data), "-- want --\n")
		f.Add(input)
	}
	for seed := range uint64(5) {
		f.Add(ir.Print(irtest.Random(rng(seed), irtest.Options{Size: 5, Funcs: 1})))
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ir.Parse(text)
		if err != nil {
			return
		}
		printed := ir.Print(m)
		if ir.Check(m) != nil {
			return // only well-formed modules have to come back as they are
		}
		back, err := ir.Parse(printed)
		if err != nil {
			t.Fatalf("%v\n%s", err, printed)
		}
		if again := ir.Print(back); again != printed {
			t.Fatalf("the text changes\n%s", diff(printed, again))
		}
	})
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"func program @f {\n^a:\n  jump ^b\n}\n", `ir:3:8: error: there is no block ^b in function @f`},
		{"func program @f {\n^a:\n  return %x\n}\n", `there is no value %x in function @f`},
		{"func program @f {\n  return\n}\n", `expected the name of a block (^...), found "return"`},
		{"func program @f {\n^a:\n  return\n  return\n}\n", `the block has already ended`},
		{"func program @f {\n^a:\n  %x.1: i64 = const 1\n  %y.1: i64 = const 2\n  return\n}\n", `there are two values %y.1, or two with its number`},
		{"func program @f {\n^a:\n  %x: i65 = const 1\n}\n", `"i65" is no type`},
		{"func program @f {\n^a:\n  %x: i64 = frob 1\n}\n", `there is no operation "frob"`},
		{"func program @f {\n^a:\n  %x: i64 = const 99999999999999999999\n}\n", `expected a number of 64 bits`},
		{"func program @f {\n^a:\n  %x: i64 = call @g()\n}\n", `there is no function @g`},
		{"func wild @f {\n", `expected program, static or global, found "wild"`},
		{"func program @f {\n^a:\n  return !1:1\n}\n", `there is no file number 0 here`},
		{"file 0 \"x\"\n|ab\nfunc program @f !1:9 {\n^a:\n  return\n}\n", `lies outside of x`},
		{"type $a = struct 4 { x: $b @0 }\n", `there is no type $b`},
		{"type $a = thing\n", `expected a description of a type`},
		{"module \"x\n", `this string does not end on its line`},
		{"what\n", `expected module, file, type, map, global, extern or func, found "what"`},
		{"map @m type -1\n", `-1 does not fit 32 bits`},
		{"?", `expected module, file, type`},
		{"$", `a name has to follow "$"`},
		{"€", `the character "€" has no meaning here`},
	} {
		_, err := ir.Parse(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q:\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
	// As deep as types may be, and deeper.
	deep := "global @x section \"\" type " + strings.Repeat("*", 100_000) + "void\n"
	if _, err := ir.Parse(deep); err == nil || !strings.Contains(err.Error(), "nested too deeply") {
		t.Errorf("deep types: %.100v", err)
	}
}
