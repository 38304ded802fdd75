package opt

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/ir/irtest"
)

var (
	update = flag.Bool("update", false, "rewrite golden files")
	seeds  = flag.Uint64("seeds", 300, "how many random modules to try")
	from   = flag.Uint64("from", 0, "the first random module")
	dump   = flag.String("dump", "", "what to dump of a failing module, as for Dumper")
)

// TestTable checks that the table keeps what its passes need.
func TestTable(t *testing.T) {
	position := func(name string) (first, last int) {
		if name == inlining {
			for i, p := range passes {
				if p.stage != once {
					return i, i
				}
			}
		}
		first = -1
		for i, p := range passes {
			if p.name == name {
				if first < 0 {
					first = i
				}
				last = i
			}
		}
		return first, last
	}
	if !slices.IsSortedFunc(passes, func(a, b pass) int { return int(a.stage) - int(b.stage) }) {
		t.Error("the table is not in the order of stages")
	}
	for i, p := range passes {
		for _, n := range p.after {
			if n.why == "" {
				t.Errorf("%s does not say why it needs %s", p.name, n.pass)
			}
			if first, _ := position(n.pass); first < 0 || first > i {
				t.Errorf("%s needs %s before it: %s", p.name, n.pass, n.why)
			}
		}
		for _, n := range p.before {
			if n.why == "" {
				t.Errorf("%s does not say why %s comes behind it", p.name, n.pass)
			}
			if _, last := position(n.pass); last < i {
				t.Errorf("%s has to stand before %s: %s", p.name, n.pass, n.why)
			}
		}
	}
}

type outcome struct {
	result  uint64
	trace   string
	globals string
	err     error
}

func run(m *ir.Module, args []uint64) outcome {
	mach := irtest.NewMachine(200_000)
	var o outcome
	for _, f := range m.Funcs {
		if f.Linkage == ir.Program {
			o.result, o.err = mach.Run(f, args...)
		}
	}
	o.trace = strings.Join(mach.Trace, "\n")
	o.globals = strings.Join(mach.Globals(m.Globals), " ")
	return o
}

var inputs = [][]uint64{
	{0, 0, 0},
	{1, 2, 3},
	{^uint64(0), 1 << 63, 1 << 31},
	{255, 1<<32 + 7, 1<<63 - 1},
	{0x8000, 0xffffffff, 0x80},
}

// same runs two modules and reports the first difference.
func same(t *testing.T, before, after *ir.Module) (what string) {
	for _, in := range inputs {
		a := run(before, in)
		if a.err != nil {
			continue // nothing to compare with
		}
		b := run(after, in)
		switch {
		case b.err != nil:
			return fmt.Sprintf("%v: fails: %v", in, b.err)
		case a.trace != b.trace:
			return fmt.Sprintf("%v: trace\n%s\nbecame\n%s", in, a.trace, b.trace)
		case a.result != b.result:
			return fmt.Sprintf("%v: result %#x became %#x", in, a.result, b.result)
		case a.globals != b.globals:
			return fmt.Sprintf("%v: variables %s became %s", in, a.globals, b.globals)
		}
	}
	return ""
}

func random(seed uint64) *ir.Module {
	size := int(seed%40) + 3
	return irtest.Random(rand.New(rand.NewPCG(seed, 7)), irtest.Options{Size: size, Funcs: int(seed % 3), Plain: seed%2 == 0})
}

// TestSameMeaning runs random functions before and after all passes, and
// after each pass alone.
func TestSameMeaning(t *testing.T) {
	for seed := *from; seed < *from+*seeds; seed++ {
		before, after := random(seed), random(seed)
		err := Run(after, Options{Check: true, CPU: 3 + int(seed%2)})
		if err == nil {
			err = ir.Check(after)
		}
		what := ""
		if err == nil {
			what = same(t, before, after)
		}
		if err == nil && what == "" {
			continue
		}
		t.Errorf("seed %d: %v %s", seed, err, what)
		blame(t, seed)
		return
	}
}

// blame finds the pass after which the random module of a seed is not what it was.
func blame(t *testing.T, seed uint64) {
	m := random(seed)
	last := ir.Print(m)
	found := false
	d := func(string, *ir.Func) {}
	if *dump != "" {
		var err error
		if d, err = Dumper(os.Stderr, *dump); err != nil {
			t.Fatal(err)
		}
	}
	_ = Run(m, Options{CPU: 3 + int(seed%2), Dump: func(after string, f *ir.Func) {
		if found {
			return
		}
		d(after, f)
		err := ir.Check(m)
		what := ""
		if err == nil {
			what = same(t, random(seed), m)
		}
		if err != nil || what != "" {
			found = true
			t.Errorf("after %s of @%s: %v %s", after, f.Name, err, what)
			if len(last) < 8000 {
				t.Logf("before:\n%s\nafter:\n%s", last, f)
			}
		}
		last = f.String()
	}})
}

func TestEachPassAlone(t *testing.T) {
	done := map[string]bool{}
	for _, p := range passes {
		if done[p.name] {
			continue
		}
		done[p.name] = true
		t.Run(p.name, func(t *testing.T) {
			changes := 0
			for seed := range uint64(80) {
				before, after := random(seed), random(seed)
				for _, f := range after.Funcs {
					f.RemoveUnreachable()
					if p.run(&context{f, &Options{CPU: 3}}) {
						changes++
					}
				}
				if err := ir.Check(after); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if what := same(t, before, after); what != "" {
					t.Fatalf("seed %d: %s", seed, what)
				}
			}
			if changes == 0 && p.name != "unreachable" {
				t.Error("changed nothing: the random functions do not test it")
			}
		})
	}
}

// TestGolden optimises testdata/*.ir: the first line of a file may name the
// passes to run alone ("; passes: simplify dce").
func TestGolden(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.ir")
	if len(files) == 0 {
		t.Fatal("no golden files")
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			const mark = "-- want --\n"
			input, want, _ := strings.Cut(string(data), mark)
			m, err := ir.Parse(input)
			if err != nil {
				t.Fatal(err)
			}
			if err := ir.Check(m); err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(input, "\n")
			if list, ok := strings.CutPrefix(first, "; passes: "); ok {
				for _, name := range strings.Fields(list) {
					i := slices.IndexFunc(passes, func(p pass) bool { return p.name == name })
					if i < 0 {
						t.Fatalf("no pass %s", name)
					}
					for _, f := range m.Funcs {
						passes[i].run(&context{f, &Options{CPU: 3}})
					}
				}
			} else if err := Run(m, Options{Check: true}); err != nil {
				t.Fatal(err)
			}
			if err := ir.Check(m); err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			for _, f := range m.Funcs {
				b.WriteString(f.String())
			}
			if got := b.String(); got != want {
				if *update {
					if err := os.WriteFile(name, []byte(input+mark+got), 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
				t.Errorf("differs from the golden text (run with -update to accept)\ngot:\n%s", got)
			}
		})
	}
}

func TestDumper(t *testing.T) {
	var b strings.Builder
	d, err := Dumper(&b, "main:gvn,sub0")
	if err != nil {
		t.Fatal(err)
	}
	m := random(5)
	if err := Run(m, Options{Dump: d}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"; @main after gvn#1\nfunc program @main", "; @sub0 after start\n", "; @sub0 after mem2reg"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in the dump", want)
		}
	}
	if strings.Contains(b.String(), "@main after start") {
		t.Error("dumps what was not asked for")
	}
	if _, err := Dumper(&b, "main:gnv"); err == nil || !strings.Contains(err.Error(), `did you mean "gvn"?`) {
		t.Errorf("error for an unknown pass: %v", err)
	}
}

// TestSameText: what the passes make does not depend on the order of maps.
func TestSameText(t *testing.T) {
	for seed := range uint64(40) {
		var texts [2]string
		for i := range texts {
			m := random(seed)
			if err := Run(m, Options{}); err != nil {
				t.Fatal(err)
			}
			texts[i] = ir.Print(m)
		}
		if texts[0] != texts[1] {
			t.Fatalf("seed %d: two runs differ", seed)
		}
	}
}

// TestSettles: when the rounds end, another Run finds next to nothing to do.
func TestSettles(t *testing.T) {
	smaller, total := 0, 0
	for seed := range uint64(60) {
		m := random(seed)
		size := func() (n int) {
			for _, f := range m.Funcs {
				n += funcSize(f)
			}
			return n
		}
		for range 2 {
			total = size()
			if err := Run(m, Options{Check: true}); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			smaller = total - size()
		}
		if smaller*10 > total {
			t.Errorf("seed %d: a second run drops %d of %d", seed, smaller, total)
		}
	}
}

func TestSkip(t *testing.T) {
	// With all that is optional left out, code is still lowered to what codegen takes.
	for seed := range uint64(40) {
		before, after := random(seed), random(seed)
		if err := Run(after, Options{Check: true, Skip: func(string) bool { return true }}); err != nil {
			t.Fatal(err)
		}
		if what := same(t, before, after); what != "" {
			t.Fatalf("seed %d: %s", seed, what)
		}
		for _, f := range after.Funcs {
			for _, b := range f.Blocks {
				for _, v := range b.Values {
					if v.Op == ir.OpSDiv || v.Op == ir.OpSMod {
						t.Fatalf("seed %d: signed division is left: %s", seed, v)
					}
				}
			}
		}
	}
}

func FuzzRun(f *testing.F) {
	f.Add(uint64(1), uint8(20))
	f.Fuzz(func(t *testing.T, seed uint64, size uint8) {
		build := func() *ir.Module {
			return irtest.Random(rand.New(rand.NewPCG(seed, 3)), irtest.Options{Size: int(size), Funcs: 2, Plain: true})
		}
		before, after := build(), build()
		if err := Run(after, Options{Check: true}); err != nil {
			t.Fatal(err)
		}
		if what := same(t, before, after); what != "" {
			t.Fatal(what)
		}
	})
}

func benchmark(b *testing.B, size int) {
	for b.Loop() {
		b.StopTimer()
		m := irtest.Random(rand.New(rand.NewPCG(1, 1)), irtest.Options{Size: size, Funcs: 1, Plain: true})
		b.ReportMetric(float64(funcSize(m.Funcs[len(m.Funcs)-1])), "values")
		b.StartTimer()
		if err := Run(m, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRun1000(b *testing.B)  { benchmark(b, 300) }
func BenchmarkRun10000(b *testing.B) { benchmark(b, 3000) }
