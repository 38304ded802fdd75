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

// FuzzPreprocess runs the lines of a script's head, with a header that may
// include itself.
func FuzzPreprocess(f *testing.F) {
	f.Add("#define A(x, ...) #x x##1 g(__VA_ARGS__)\n#if A(1) > 2 && defined B\n#elif __COUNTER__\n#else\n#undef A\n#endif", "#pragma once\n#include \"h.h\"\n#define B 1")
	f.Add("#include <h.h>\n#include \"h.h\"\n#ifdef X\n#error \"no\"\n#endif", "#ifndef X\n#define X X X\n#include \"h.h\"\n#endif")
	f.Add("#define f(x) f(g(x))\n#define g(x) g(f(x)) \\\n + 1", "struct s { int a : 3; };")
	f.Fuzz(func(t *testing.T, head, header string) {
		defer time.AfterFunc(10*time.Second, func() { panic("hangs") }).Stop()
		p, diags := Parse(source.NewFile("fuzz.bt", head+"\nbegin { print(A + f(B)); }"), Options{Includer: files{"h.h": header}})
		_ = render(diags)
		_ = Print(p)
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
