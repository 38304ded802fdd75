package codegen

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

var update = flag.Bool("update", false, "rewrite the golden parts of testdata")

const wantMark = "-- want --\n"

// TestGolden compiles testdata/*.ir and compares the code, or the error, with
// the text behind the mark in the same file. A first line "; cpu 4" or
// "; limit 16" sets options; "; unchecked" lets wrong IR in.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.ir")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".ir"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(data), wantMark)
			got := compileText(filepath.Base(name), input)
			if *update {
				if err := os.WriteFile(name, []byte(input+wantMark+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("run with -update if this is right (-want +got):\n%s", diff)
			}
		})
	}
}

func compileText(name, input string) string {
	m, err := ir.ParseFile(source.NewFile(name, input))
	if err == nil && !strings.HasPrefix(input, "; unchecked") {
		err = ir.Check(m)
	}
	if err != nil {
		return err.Error() + "\n"
	}
	var opts Options
	for _, line := range strings.Split(input, "\n") {
		_, _ = fmt.Sscanf(line, "; cpu %d", &opts.CPU)
		_, _ = fmt.Sscanf(line, "; limit %d", &opts.OnStackLimit)
		_, _ = fmt.Sscanf(line, "; arch %s", &opts.Arch)
		var loss string
		if n, _ := fmt.Sscanf(line, "; loss %s %d", &loss, &opts.Loss.Index); n == 2 {
			for _, v := range m.Globals {
				if v.Name == loss {
					opts.Loss.Var = v
				}
			}
		}
	}
	opts.Optimiser.Check = true
	obj, err := Generate(m, opts)
	if err != nil {
		return err.Error() + "\n"
	}
	return show(obj)
}

// show prints the functions of obj with their relocations, CO-RE records and
// lines, and the maps that code generation added.
func show(obj *object.Object) string {
	var b strings.Builder
	for _, m := range obj.Maps {
		if m.Name == "skep_scratch" {
			fmt.Fprintf(&b, "map %s: %d entries of %d bytes\n", m.Name, m.MaxEntries, m.ValueSize)
		}
	}
	for _, f := range obj.Funcs {
		showFunc(&b, f)
	}
	return b.String()
}

func symbolName(sym any) string {
	switch s := sym.(type) {
	case *object.Map:
		return s.Name
	case *object.Var:
		return s.Name
	case *object.Func:
		return s.Name
	case *object.Extern:
		return s.Name
	}
	return "?"
}

func showFunc(b *strings.Builder, f *object.Func) {
	fmt.Fprintf(b, "%s: # %d slots\n", f.Name, isa.Slots(f.Insns))
	slots := make([]int, len(f.Insns)+1)
	labels := map[int]string{}
	for n, i := range f.Insns {
		slots[n+1] = slots[n] + i.Size()
	}
	for n, i := range f.Insns {
		if d, ok := i.Jump(); ok {
			labels[slots[n+1]+d] = ""
		}
	}
	for n := range f.Insns {
		if _, ok := labels[slots[n]]; ok {
			labels[slots[n]] = fmt.Sprintf("L%d", slots[n])
		}
	}
	p := &isa.Printer{Label: func(slot int) string { return labels[slot] }}
	for n, i := range f.Insns {
		if l := labels[slots[n]]; l != "" {
			fmt.Fprintf(b, "%s:\n", l)
		}
		text := p.Instruction(slots[n], i)
		var notes []string
		for _, r := range f.Relocs {
			if r.Insn == n {
				notes = append(notes, symbolName(r.Symbol))
			}
		}
		for _, c := range f.CORE {
			if c.Insn == n {
				notes = append(notes, fmt.Sprintf("core %s %v %s", ir.CoreKind(c.Kind), c.Type, c.Access))
			}
		}
		for _, l := range f.Lines {
			if l.Insn == n {
				pos := l.Span.Pos()
				notes = append(notes, fmt.Sprintf("line %d", pos.Line))
			}
		}
		if len(notes) > 0 {
			text = fmt.Sprintf("%-32s ; %s", text, strings.Join(notes, "; "))
		}
		fmt.Fprintf(b, "\t%s\n", text)
	}
}

// listing is the assembly text of an object.
func listing(obj *object.Object) string {
	var b bytes.Buffer
	for _, f := range obj.Funcs {
		fmt.Fprintf(&b, "%s:\n%s", f.Name, isa.Sprint(f.Insns))
	}
	return b.String()
}
