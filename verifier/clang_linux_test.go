package verifier

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/object"
)

// TestClang judges programs that clang made, as the live kernel does.
func TestClang(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	for _, file := range []string{"programs.c", "objects.c"} {
		t.Run(file, func(t *testing.T) { testClang(t, compile(t, filepath.Join("testdata", file))) })
	}
}

func testClang(t *testing.T, data []byte) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	o, err := object.Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := Programs(o, types)
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) != len(spec.Programs) {
		t.Errorf("%d programs, want %d", len(programs), len(spec.Programs))
	}
	for _, p := range programs {
		one := spec.Copy()
		for n := range one.Programs {
			if n != p.Name {
				delete(one.Programs, n)
			}
		}
		coll, err := ebpf.NewCollection(one)
		if err == nil {
			coll.Close()
		}
		r := Verify(p, Config{Types: types})
		t.Logf("%s: %v, %d instructions, %d states", p.Name, r.Verdict, r.Insns, r.States)
		if want := err == nil; want != (r.Verdict == Accepted) || r.Verdict == Unsupported {
			var text bytes.Buffer
			if r.Err != nil {
				_ = Render(&text, p, r.Err)
			}
			t.Errorf("%s: %v: %s; the kernel: %v", p.Name, r.Verdict, text.String(), err)
		}
	}
}

// TestClangWrong judges programs with a mistake, each of which is found at the
// line that says so.
func TestClangWrong(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	file := filepath.Join("testdata", "wrong.c")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][2]string{} // line number and category of a program
	name := ""
	for i, line := range strings.Split(string(text), "\n") {
		if m := regexp.MustCompile(`^int (\w+)\(`).FindStringSubmatch(line); m != nil {
			name = m[1]
		}
		if _, category, ok := strings.Cut(line, "// wrong: "); ok {
			want[name] = [2]string{strconv.Itoa(i + 1), category}
		}
	}
	data := compile(t, file)
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	o, err := object.Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	programs, err := Programs(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) != len(want) {
		t.Errorf("%d programs, want %d", len(programs), len(want))
	}
	for _, p := range programs {
		one := spec.Copy()
		for n := range one.Programs {
			if n != p.Name {
				delete(one.Programs, n)
			}
		}
		if coll, err := ebpf.NewCollection(one); err == nil {
			coll.Close()
			t.Errorf("the kernel accepts %s", p.Name)
		}
		r := Verify(p, Config{})
		if r.Verdict != Rejected {
			t.Errorf("%s: %v (%v)", p.Name, r.Verdict, r.Err)
			continue
		}
		line, _ := p.LineOf(r.Err.Insn)
		if w := want[p.Name]; strconv.Itoa(line.Row) != w[0] || string(r.Err.Category) != w[1] {
			t.Errorf("%s: rejected at line %d for %s (%v), want line %s, %s", p.Name, line.Row, r.Err.Category, r.Err, w[0], w[1])
		}
		var b bytes.Buffer
		if err := Render(&b, p, r.Err); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{r.Err.Message, "wrong.c:" + want[p.Name][0], "   = state r", "   = help: "} {
			if !strings.Contains(b.String(), part) {
				t.Errorf("%s: the rendering lacks %q:\n%s", p.Name, part, b.String())
			}
		}
	}
}
