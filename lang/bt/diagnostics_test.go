package bt_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/targettest"
)

var update = flag.Bool("update", false, "write what is said into testdata/diagnostics")

// TestDiagnostics compiles the scripts in testdata/diagnostics for a made-up
// machine and holds what is said of them against what stands beside them: a
// line "! ^^^ ..." is about what the carets are under, in the line above.
//
//	== a name for people [unsafe] [command] [files] [no-types] [args=5,text]
//	| BEGIN { printf("%d\n", pidd); }
//	!                        ^^^^ error unknown-name: ...
func TestDiagnostics(t *testing.T) {
	files, err := filepath.Glob("testdata/diagnostics/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	said := map[string]bool{}
	for _, name := range files {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txt"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			intro, rest, _ := strings.Cut(string(data), "\n== ")
			got.WriteString(intro)
			for c := range strings.SplitSeq(rest, "\n== ") {
				got.WriteString("\n== " + diagnosed(t, c, said))
			}
			if *update {
				if err := os.WriteFile(name, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(string(data), got.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		})
	}
	for _, code := range codes(t, "check") {
		if !said[code] && unsaid[code] == "" {
			t.Errorf("no script in testdata/diagnostics shows the code %q", code)
		}
		if said[code] && unsaid[code] != "" {
			t.Errorf("the code %q is shown, and need not be in the list of those that are not", code)
		}
	}
}

// unsaid are the codes that no script here shows, and why.
var unsaid = map[string]string{
	"bad-probe":      "what is wrong with a hook has a code of its own",
	"merged-library": "takes a C library; threadsnoop among the tools of cmd/skep gives it",
}

// diagnosed returns one case with the diagnostics as they are now.
func diagnosed(t *testing.T, text string, said map[string]bool) string {
	title, body, _ := strings.Cut(text, "\n")
	var script []string
	for line := range strings.Lines(body) {
		if code, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "| "); ok {
			script = append(script, code)
		}
	}
	src := targettest.Kernel(t)
	opts := bt.Options{ReadFile: func(string) ([]byte, error) { return nil, fs.ErrNotExist }}
	for word := range strings.FieldsSeq(title) {
		if !strings.HasPrefix(word, "[") {
			continue
		}
		switch option, value, _ := strings.Cut(strings.Trim(word, "[]"), "="); option {
		case "unsafe":
			opts.Unsafe = true
		case "command":
			opts.HasCommand = true
		case "files":
			src.Root = fstest.MapFS{"sys/fs/cgroup/unified": {Mode: fs.ModeDir}}
		case "no-types":
			src.Blobs = nil
		case "lacks":
			src.Lacks = map[target.FeatureName]string{target.FeatureName(value): "it was built without"}
		case "args":
			opts.Args = strings.Split(value, ",")
		case "set":
			name, value, _ := strings.Cut(value, ":")
			opts.Settings = map[string]string{name: value}
		case "named":
			name, value, _ := strings.Cut(value, ":")
			opts.Named = map[string]string{name: value}
		default:
			t.Fatalf("%s: there is no option %q", title, option)
		}
	}
	tgt, err := target.New(src)
	if err != nil {
		t.Fatal(err)
	}
	file := source.NewFile("script.bt", strings.Join(script, "\n"))
	_, diags := bt.Compile(file, tgt, opts)
	diags.Sort()
	var b strings.Builder
	b.WriteString(title + "\n")
	notes := func(line int) {
		for _, d := range diags {
			if at := d.Span.Pos().Line; d.Span.File == file && at == line || d.Span.File == nil && line == len(script) {
				said[d.Code] = true
				b.WriteString("! " + carets(d.Span) + d.Severity.String() + " " + d.Code + ": " + d.Message)
				if d.Fix != nil {
					b.WriteString(" (" + d.Fix.Message + ")")
				}
				for _, n := range d.Notes {
					if n.Span.File == file {
						fmt.Fprintf(&b, "; line %d, %q: %s", n.Span.Pos().Line, n.Span.Text(), n.Message)
					} else {
						b.WriteString("; note: " + n.Message)
					}
				}
				b.WriteString("\n")
			}
		}
	}
	for i, line := range script {
		b.WriteString("| " + line + "\n")
		notes(i + 1)
	}
	return b.String()
}

// carets are what underlines the first line of a span.
func carets(s source.Span) string {
	if s.File == nil {
		return ""
	}
	p := s.Pos()
	line := s.File.Line(p.Line)
	before := []rune(line)[:min(p.Column-1, utf8.RuneCountInString(line))]
	for i, r := range before {
		if r != '\t' {
			before[i] = ' '
		}
	}
	under, _, _ := strings.Cut(s.Text(), "\n")
	return string(before) + strings.Repeat("^", max(1, utf8.RuneCountInString(under))) + " "
}

// codes returns the codes of diagnostics that a package writes.
func codes(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range names {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			name := ""
			switch f := call.Fun.(type) {
			case *ast.SelectorExpr:
				name = f.Sel.Name
			case *ast.Ident:
				name = f.Name
			}
			if !strings.HasSuffix(name, "rrorf") && name != "warnf" {
				return true
			}
			for _, arg := range call.Args[1:] {
				if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					// The first literal is the code, the next the format.
					if code, err := strconv.Unquote(lit.Value); err == nil && !strings.ContainsAny(code, " %") {
						found[code] = true
					}
					break
				}
			}
			return true
		})
	}
	var list []string
	for code := range found {
		list = append(list, code)
	}
	slices.Sort(list)
	return list
}
