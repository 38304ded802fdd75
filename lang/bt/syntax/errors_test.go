package syntax

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skep-bpf/skep/source"
)

// An expected diagnostic stands in a comment on the line that causes it:
//
//	// error: part of the message
//
// or, where no comment can stand there, n lines below it, as error-above(-n).
var wantLine = regexp.MustCompile(`// (error|warning)(?:-above\(-(\d+)\))?: (.*)$`)

// TestErrors parses scripts full of independent mistakes, and demands exactly
// the diagnostics that their comments announce: none missing, none more.
func TestErrors(t *testing.T) {
	names, err := filepath.Glob("testdata/errors*.bt")
	if err != nil || len(names) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		type expectation struct {
			severity, text string
			met            bool
		}
		want := map[int][]*expectation{}
		for i, line := range strings.Split(string(text), "\n") {
			m := wantLine.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			at := i + 1
			if m[2] != "" {
				n, _ := strconv.Atoi(m[2])
				at -= n
			}
			want[at] = append(want[at], &expectation{severity: m[1], text: m[3]})
		}
		file := source.NewFile(name, string(text))
		_, diags := Parse(file, Options{Includer: files{}})
	next:
		for _, d := range diags {
			line := d.Span.Pos().Line
			for _, w := range want[line] {
				if !w.met && w.severity == d.Severity.String() && strings.Contains(d.Message, w.text) {
					w.met = true
					continue next
				}
			}
			t.Errorf("not expected:\n%s", render(source.List{d}))
		}
		for line, list := range want {
			for _, w := range list {
				if !w.met {
					t.Errorf("%s:%d: no %s %q", name, line, w.severity, w.text)
				}
			}
		}
	}
}

// TestManyErrors has the same mistake n times and demands n diagnostics.
func TestManyErrors(t *testing.T) {
	mistakes := []string{
		"$a = 1 + ;", "$b = f(1;", "$c = (1, ;", "$d = 1 $e = 2;", "if (1 { $f = 1; }", "while ) { }",
		"for $g { }", "let = 1;", "@h[1 = 2;", "$i = \"open;", "$j = 08;", "retrun 1;", "$k = a ? b;", "$l = .x;",
	}
	for _, n := range []int{1, 7, 40} {
		for _, m := range mistakes {
			text := "begin {\n" + strings.Repeat("\t"+m+"\n\t$ok = 1;\n", n) + "}\n"
			_, diags := Parse(source.NewFile("many.bt", text), Options{})
			if len(diags) != n {
				t.Errorf("%s, %d times: %d diagnostics\n%s", m, n, len(diags), render(diags[:min(len(diags), 3)]))
			}
		}
	}
}

// TestCarets shows where the caret stands, by putting the spanned text into
// the table.
func TestCarets(t *testing.T) {
	for _, c := range []struct{ text, code, at, note string }{
		{"begin { $x = 1 => 2; }", "syntax", "=>", ""},
		{"begin { if (1 =< 2) { } }", "syntax", "=<", ""},
		{"begin { $x = 1_; }", "bad-number", "_", ""},
		{`begin { print("a\qb"); }`, "bad-escape", `\q`, ""},
		{"begin { $x[1] = 2; }", "not-assignable", "$x", ""},
		{"begin { foo(1; }", "syntax", ";", "("},
		{"begin { exit(); ", "unclosed", "", "{"},
		{"begin /pid == 1 { }", "syntax", "{", "/"},
		{"#define BAD 1 +\nbegin { $x = BAD; }", "syntax", ";", ""},
		{"#define BAD )\nbegin { $x = BAD; }", "syntax", "BAD", "BAD"},
		{"let @a = hash(1);\nconfig = { }", "order", "config", "@a"},
		{"begin { /* open", "unterminated-comment", "/*", ""},
		{"#if 1\nbegin { }", "unterminated-if", "#if", ""},
	} {
		_, diags := Parse(source.NewFile("caret.bt", c.text), Options{})
		if len(diags) == 0 {
			t.Errorf("%q: no error", c.text)
			continue
		}
		d := diags[0]
		if d.Code != c.code || d.Span.Text() != c.at {
			t.Errorf("%q: %s at %q, want %s at %q", c.text, d.Code, d.Span.Text(), c.code, c.at)
		}
		note := ""
		for _, n := range d.Notes {
			if n.Span.IsValid() {
				note = n.Span.Text()
			}
		}
		if note != c.note {
			t.Errorf("%q: note at %q, want %q", c.text, note, c.note)
		}
	}
}

// TestDepth reads input made to exhaust the stack.
func TestDepth(t *testing.T) {
	const n = 100_000
	for _, c := range []struct{ name, text string }{
		{"parentheses", "begin { $x = " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n) + "; }"},
		{"blocks", "begin " + strings.Repeat("{", n) + strings.Repeat("}", n)},
		{"unary", "begin { $x = " + strings.Repeat("!", n) + "1; }"},
		{"minus", "begin { $x = " + strings.Repeat("- ", n) + "1; }"},
		{"casts", "begin { $x = " + strings.Repeat("(u8)", n) + "1; }"},
		{"ternaries", "begin { $x = " + strings.Repeat("1 ? 1 : ", n) + "1; }"},
		{"sum", "begin { $x = 1" + strings.Repeat(" + 1", n) + "; }"},
		{"fields", "begin { $x = $a" + strings.Repeat(".a", n) + "; }"},
		{"calls", "begin { " + strings.Repeat("f(", n) + " }"},
		{"keys", "begin { " + strings.Repeat("@[", n) + " }"},
		{"elses", "begin { if 1 { }" + strings.Repeat(" else if 1 { }", n) + " }"},
		{"structs", strings.Repeat("struct { ", n)},
		{"stars", "begin { $x = (a " + strings.Repeat("*", n) + ")1; }"},
		{"C stars", "struct s { int " + strings.Repeat("*", n) + "a; };"},
		{"declarators", "struct s { int " + strings.Repeat("(*", n) + "a; };"},
		{"brackets", "struct s { int a" + strings.Repeat("[1]", n) + "; };"},
		{"conditions", "#if " + strings.Repeat("(", n) + "\n#endif\nbegin { }"},
		{"ifs", strings.Repeat("#if 1\n", n)},
		{"comptime", "begin { $x = " + strings.Repeat("comptime ", n) + "1; }"},
		{"if expressions", "begin { $x = " + strings.Repeat("if if ", n) + "1; }"},
		{"typeofs", "begin { let $x : " + strings.Repeat("typeof(", n) + "; }"},
		{"tuples of types", "begin { let $x : " + strings.Repeat("(", n) + "; }"},
	} {
		start := time.Now()
		p, diags := Parse(source.NewFile(c.name, c.text), Options{})
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("%s: took %v", c.name, d)
		}
		if !diags.HasErrors() {
			t.Errorf("%s: no error", c.name)
		}
		if len(diags) > 10 {
			t.Errorf("%s: %d diagnostics", c.name, len(diags))
		}
		_ = Print(p)
	}
	// Macros that grow without bounds.
	var b strings.Builder
	b.WriteString("#define M0 1 +\n")
	for i := range 40 {
		fmt.Fprintf(&b, "#define M%d M%d M%d M%d\n", i+1, i, i, i)
	}
	b.WriteString("begin { $x = M40 1; }")
	if _, diags := Parse(source.NewFile("macros", b.String()), Options{}); !diags.HasErrors() {
		t.Error("macros that expand without bounds: no error")
	}
}
