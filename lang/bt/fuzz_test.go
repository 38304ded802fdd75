package bt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/skep-bpf/skep/codegen"
	"github.com/skep-bpf/skep/internal/scriptgen"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target/targettest"
)

// FuzzCompile checks, lowers and compiles what it is given for a made-up
// machine: no panic, no hang, and what is accepted is well-formed IR.
func FuzzCompile(f *testing.F) {
	names, err := filepath.Glob("../../cmd/skep/testdata/script/*.txtar")
	if err != nil || len(names) == 0 {
		f.Fatalf("there are no scripts to begin with: %v", err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range txtar.Parse(data).Files {
			if strings.HasSuffix(file.Name, ".bt") {
				f.Add(string(file.Data))
			}
		}
	}
	for seed := range uint64(20) {
		f.Add(scriptgen.Script(seed, scriptgen.DefaultOptions))
	}
	tgt := targettest.New(f)
	f.Fuzz(func(t *testing.T, text string) {
		defer time.AfterFunc(20*time.Second, func() { panic("hangs") }).Stop()
		file := source.NewFile("fuzz.bt", text)
		unit, diags := bt.Compile(file, tgt, bt.Options{Unsafe: true, Args: []string{"5", "text"}})
		for _, d := range diags {
			if d.Span.File == file && (d.Span.Start < 0 || d.Span.End < d.Span.Start || d.Span.End > len(text)) {
				t.Errorf("impossible span [%d,%d) of %v", d.Span.Start, d.Span.End, d)
			}
		}
		if unit == nil {
			if !diags.HasErrors() {
				t.Error("neither a unit nor an error")
			}
			return
		}
		if err := ir.Check(unit.Module); err != nil {
			t.Fatal(err)
		}
		// What is too large for a program is an error, and a fine one.
		_, _ = codegen.Generate(unit.Module, codegen.Options{Arch: tgt.Arch()})
	})
}
