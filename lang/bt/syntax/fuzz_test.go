package syntax

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skep-bpf/skep/source"
)

// seeds are scripts that between them use all of the grammar.
func seeds(tb testing.TB) []string {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.bt")
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, string(text))
	}
	return out
}

func FuzzParse(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	for _, c := range exprTests {
		f.Add("begin { $r = " + c.in + "; }")
	}
	f.Fuzz(func(t *testing.T, text string) {
		defer time.AfterFunc(10*time.Second, func() { panic("hangs") }).Stop()
		file := source.NewFile("fuzz.bt", text)
		p, diags := Parse(file, Options{Includer: nobody{}})
		for _, d := range diags {
			if d.Span.File == file && (d.Span.Start < 0 || d.Span.End < d.Span.Start || d.Span.End > len(text)) {
				t.Errorf("impossible span [%d,%d) of %v", d.Span.Start, d.Span.End, d)
			}
		}
		_ = render(diags)
		_ = Print(p)
		if diags.HasErrors() {
			return
		}
		if len(p.Uses) == 0 {
			if err := checkSpans(p); err != nil {
				t.Error(err)
			}
		}
		if err := checkRoundTrip(p); err != nil {
			t.Error(err)
		}
	})
}

func FuzzFormat(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		defer time.AfterFunc(10*time.Second, func() { panic("hangs") }).Stop()
		if err := checkFormat(text); err != nil {
			t.Error(err)
		}
	})
}

func FuzzAttachPoints(f *testing.F) {
	for _, c := range attachTests {
		f.Add(c.in)
	}
	f.Fuzz(func(t *testing.T, text string) {
		points, diags := ParseAttachPoints(source.NewFile("fuzz", text))
		if len(diags) == 0 && len(points) == 0 {
			t.Error("neither an attach point nor an error")
		}
		for _, a := range points {
			if a.Loc.Text() != a.Text {
				t.Errorf("span %q, text %q", a.Loc.Text(), a.Text)
			}
		}
	})
}
