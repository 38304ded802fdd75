package syntax

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/source"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestFormat compares testdata/*.bt, formatted, with testdata/*.bt.golden.
func TestFormat(t *testing.T) {
	names, err := filepath.Glob("testdata/*.bt")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, name := range names {
		if strings.HasPrefix(filepath.Base(name), "errors") {
			continue
		}
		tried++
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, diags := Format(source.NewFile(name, string(text)))
		if diags.HasErrors() {
			t.Errorf("%s", render(diags))
			continue
		}
		golden := name + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs from %s:\n%s", name, golden, got)
		}
		if err := checkFormat(string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if tried == 0 {
		t.Error("no test data")
	}
}

func TestFormatKeepsBadText(t *testing.T) {
	text := "begin  {  $x = ;  }"
	got, diags := Format(source.NewFile("bad.bt", text))
	if got != text || !diags.HasErrors() {
		t.Errorf("%q, %v", got, diags)
	}
}
