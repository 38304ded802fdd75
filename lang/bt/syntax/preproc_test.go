package syntax

import (
	"strings"
	"testing"

	"github.com/skep-bpf/skep/source"
)

func TestPreprocessor(t *testing.T) {
	for _, c := range []struct{ name, head, in, want string }{
		{"object", "#define N 1 + 2", "N * 3", "1 + 2 * 3"},
		{"empty", "#define NOTHING", "1 NOTHING + 2", "1 + 2"},
		{"nested", "#define A B\n#define B 7", "A", "7"},
		{"self", "#define a a + 1", "a", "a + 1"},
		{"mutual", "#define a b\n#define b a", "a + b", "a + b"},
		{"function", "#define MAX(a, b) ((a) > (b) ? (a) : (b))", "MAX(1, $x)", "1 > $x ? 1 : $x"},
		{"name without arguments", "#define F(x) x", "F + F(1)", "F + 1"},
		{"parenthesised argument", "#define F(x) x * 2", "F(g(1, 2))", "g(1, 2) * 2"},
		{"nested use", "#define F(x) x + 1", "F(F(1))", "1 + 1 + 1"},
		{"no parameters", "#define F() 5", "F()", "5"},
		{"variadic", "#define P(f, ...) g(f, __VA_ARGS__)", `P("a", 1, 2)`, `g("a", 1, 2)`},
		{"string", "#define S(x) #x", "S(a + \"b\")", `"a + \"b\""`},
		{"paste", "#define J(a, b) a##b", "J(foo, 1) + J(1, 2)", "foo1 + 12"},
		{"undef", "#define A 1\n#undef A", "A", "A"},
		{"continued", "#define A 1 \\\n + 2", "A", "1 + 2"},
		{"comment", "#define A 1 // one", "A", "1"},
		{"ifdef", "#define A\n#ifdef A\n#define R 1\n#else\n#define R 2\n#endif", "R", "1"},
		{"ifndef", "#define A\n#ifndef A\n#define R 1\n#else\n#define R 2\n#endif", "R", "2"},
		{"elif", "#if 0\n#define R 1\n#elif 1 > 0\n#define R 2\n#elif 1\n#define R 3\n#else\n#define R 4\n#endif", "R", "2"},
		{"nested ifs", "#if 0\n#if 1\n#define R 1\n#else\n#endif\n#else\n#define R 2\n#endif", "R", "2"},
		{"defined", "#if defined(FROM_OUTSIDE) && !defined NOT_THIS\n#define R 1\n#endif", "R", "1"},
		{"outside value", "#if VALUE == 0x10\n#define R VALUE\n#endif", "R", "0x10"},
		{"arithmetic", "#if (1 << 4) - 16 == 0 && -1 < 0 && 7 / 2 == 3 && (1 ? 2 : 3) == 2 && ~0 == -1\n#define R 1\n#endif", "R", "1"},
		{"unsigned", "#if -1 > 0u\n#define R 1\n#endif", "R", "1"},
		{"quotes in a branch not taken", "#if 0\nit's \"not read\n/* #endif */\n#endif\n#define R 1", "R", "1"},
		{"macro with arguments in if", "#define V(a, b) (a * 100 + b)\n#if V(6, 1) >= V(5, 15)\n#define R 1\n#endif", "R", "1"},
		{"included macro", `#include "defs.h"`, "FROM_HEADER", "42"},
	} {
		text := c.head + "\nbegin { $r = " + c.in + "; }"
		p, diags := Parse(source.NewFile("pp.bt", text), Options{
			Defines:  []string{"FROM_OUTSIDE", "VALUE=0x10"},
			Includer: files{"defs.h": "#pragma once\n#include \"defs.h\"\n#define FROM_HEADER 42\n"},
		})
		if len(diags) > 0 {
			t.Errorf("%s:\n%s", c.name, render(diags))
			continue
		}
		a := p.Probes()[0].Body.Stmts[0].(*Assign)
		if got := PrintExpr(a.Rhs); got != c.want {
			t.Errorf("%s: %s gives %s, want %s", c.name, c.in, got, c.want)
		}
	}
}

func TestMacroSpans(t *testing.T) {
	text := "#define N 1 +\n#define F(x) (x + N 2)\nbegin { $r = F($y); }"
	p := parseOK(t, text, Options{})
	a := p.Probes()[0].Body.Stmts[0].(*Assign)
	if got := a.Rhs.Span().Text(); got != "F($y)" {
		t.Errorf("the expansion has span %q", got)
	}
	Inspect(a.Rhs, func(n Node) {
		switch n := n.(type) {
		case *Var:
			if got := n.Loc.Text(); got != "$y" {
				t.Errorf("the argument has span %q", got)
			}
		case *IntLit:
			if got := n.Loc.Text(); got != "F($y)" {
				t.Errorf("%s has span %q", n.Raw, got)
			}
		}
	})
	d := p.Explain(source.Errorf(a.Rhs.Span(), "test", "something"))
	if len(d.Notes) != 1 || d.Notes[0].Span.Text() != "F" || !strings.Contains(d.Notes[0].Message, "(x + N 2)") {
		t.Errorf("notes %+v", d.Notes)
	}
}

func TestHeaders(t *testing.T) {
	header := `
#ifndef H
#define H
extern "C" {
extern int printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline int add(int a, int b) { if (a) { return b; } return a + b; }
typedef struct { int counter; } atomic_t;
typedef int (*fn_t)(struct later *, int);
struct later;
struct node { struct node *next, **prev; atomic_t refs; fn_t call; _Bool on : 1; } __attribute__((aligned(8)));
enum { A, B = A + 2 };
int table[] = { 1, 2, { 3 } };
#error not so bad
int 5 wrong;
struct after { long x; };
#endif
`
	text := "#include <h.h>\n#include <linux/other.h>\nstruct mine { atomic_t a; };\nbegin { $x = (fn_t)-1; }"
	p, diags := Parse(source.NewFile("main.bt", text), Options{Includer: files{"h.h": header}})
	if diags.HasErrors() {
		t.Fatal(render(diags))
	}
	var names []string
	for _, d := range p.CDecls {
		switch b := d.Base.(type) {
		case *StructType:
			if b.Name != nil {
				names = append(names, b.Name.Text)
			}
		case *EnumType:
			names = append(names, "enum")
		}
		for _, e := range d.Declarators {
			names = append(names, e.Name.Text)
		}
	}
	if got, want := strings.Join(names, " "), "atomic_t fn_t later node enum after mine"; got != want {
		t.Errorf("declared: %s, want %s", got, want)
	}
	if len(p.Includes) != 2 || p.Includes[0].ByTarget || !p.Includes[1].ByTarget {
		t.Errorf("includes: %s", dump(p.Includes))
	}
	if x := p.Probes()[0].Body.Stmts[0].(*Assign).Rhs; dump(x) != `(Cast (NamedType "fn_t") (Unary - (IntLit 1 "1" "")))` {
		t.Errorf("a typedef of a header is not known as a type: %s", dump(x))
	}
}

func TestIncludeOption(t *testing.T) {
	p, diags := Parse(source.NewFile("main.bt", "begin { exit(N); }"), Options{
		Include: []string{"first.h"}, Includer: files{"first.h": "#define N 3\nstruct s { int a; };\n"},
	})
	if len(diags) > 0 {
		t.Fatal(render(diags))
	}
	if got := Print(p); !strings.Contains(got, "exit(3)") || len(p.CDecls) != 1 {
		t.Errorf("%s", got)
	}
	_, diags = Parse(source.NewFile("main.bt", "begin { }"), Options{Include: []string{"none.h"}, Includer: files{}})
	if len(diags) != 1 || !strings.Contains(diags[0].Message, "cannot include none.h: no such file") {
		t.Errorf("%s", render(diags))
	}
}

func TestIncludeLoop(t *testing.T) {
	_, diags := Parse(source.NewFile("main.bt", "#include \"a.h\"\nbegin { }"), Options{
		Includer: files{"a.h": "#include \"b.h\"\n", "b.h": "#include \"a.h\"\n"},
	})
	if len(diags) != 1 || diags[0].Code != "include-too-deep" {
		t.Errorf("%s", render(diags))
	}
}

func TestLiterals(t *testing.T) {
	for _, c := range []struct {
		in    string
		value uint64
		bad   string
	}{
		{"0", 0, ""},
		{"0x1F", 31, ""},
		{"0755", 493, ""},
		{"1_000_000", 1000000, ""},
		{"2e3", 2000, ""},
		{"0e99999", 0, ""},
		{"123ULL", 123, ""},
		{"1lu", 1, ""},
		{"0xffUL", 255, ""},
		{"18446744073709551615", 1<<64 - 1, ""},
		{"5ns", 5, ""},
		{"5us", 5e3, ""},
		{"5ms", 5e6, ""},
		{"5s", 5e9, ""},
		{"5m", 300e9, ""},
		{"5h", 18000e9, ""},
		{"5d", 5 * 86400e9, ""},
		{"1e3ms", 1e9, ""},
		{"0s", 0, ""},
		{"18446744073709551616", 0, "does not fit into 64 bits"},
		{"1e20", 0, "does not fit into 64 bits"},
		{"300000d", 0, "does not fit into 64 bits"},
		{"1_", 0, "underscore"},
		{"1__0", 0, "underscore"},
		{"0x", 0, "no digits"},
		{"1e", 0, "no digits"},
		{"089", 0, "octal"},
		{"1lL", 0, "no suffix"},
		{"12abc", 0, "no suffix"},
		{"0x10ms", 0, "decimal"},
	} {
		v, _, err := parseInt(c.in)
		switch {
		case err == nil && c.bad != "":
			t.Errorf("%s: no error", c.in)
		case err != nil && (c.bad == "" || !strings.Contains(err.msg, c.bad)):
			t.Errorf("%s: error %q, want %q", c.in, err.msg, c.bad)
		case err == nil && v != c.value:
			t.Errorf("%s: %d, want %d", c.in, v, c.value)
		case err != nil && (err.start < 0 || err.end > len(c.in) || err.start >= err.end):
			t.Errorf("%s: error at [%d,%d)", c.in, err.start, err.end)
		}
	}
	for _, c := range []struct{ in, want, bad string }{
		{`"a\tb\r\n\\\"\'"`, "a\tb\r\n\\\"'", ""},
		{`"\x41\x4g\101\0z"`, "A\x04gA\x00z", ""},
		{`"\a\b\f\v\e\?"`, "\a\b\f\v\x1b?", ""},
		{`"\033[31m"`, "\x1b[31m", ""},
		{`"\q"`, `\q`, "is no escape"},
		{`"\xg"`, "\x00g", "hexadecimal"},
		{`"\777"`, "\xff", "octal"},
	} {
		got, err := unquote(c.in)
		if got != c.want || (err == nil) != (c.bad == "") || err != nil && !strings.Contains(err.msg, c.bad) {
			t.Errorf("%s: %q, %v; want %q, %q", c.in, got, err, c.want, c.bad)
		}
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("a\x00\"\\\n1")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := unquote(quote(s)); err != nil || got != s {
			t.Errorf("%q written as %s reads as %q, %v", s, quote(s), got, err)
		}
	})
}

func FuzzInt(f *testing.F) {
	f.Add("0x1_0UL")
	f.Add("1e3ms")
	f.Fuzz(func(t *testing.T, s string) {
		if s == "" || !isDigit(s[0]) {
			return
		}
		if _, _, err := parseInt(s); err != nil && (err.start < 0 || err.start > err.end || err.end > len(s)) {
			t.Errorf("%q: error at [%d,%d)", s, err.start, err.end)
		}
	})
}
