package house

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the top of the module, seen from here.
const root = "../.."

// awaited are rooms of the plan, described in ARCHITECTURE.md, that may still
// be missing. A room leaves this list when it arrives.
var awaited = []string{
	"abi", "cmd/skep", "codegen", "hook", "ir/irtest", "ir/opt", "kernel", "lang/bt", "lang/bt/check",
	"lang/bt/syntax", "lang/golang", "rootless", "runner", "symbol", "target", "target/typeindex",
	"ui/json", "ui/text", "verifier", "verifier/domain", "vm", "vm/interp", "vm/jit",
}

// files returns the paths of all files of the project, below root, in order.
func files(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if rel == "bin" {
			return fs.SkipDir // what make build makes
		}
		if d.Name() == ".git" {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil // a worktree's
		}
		if d.Type().IsRegular() {
			all = append(all, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// isPackageFile reports whether the go command looks at a file's directory.
func isPackageFile(file string) bool {
	for part := range strings.SplitSeq(path.Dir(file), "/") {
		if part == "testdata" || part == "vendor" || strings.HasPrefix(part, "_") || strings.HasPrefix(part, ".") && part != "." {
			return false
		}
	}
	return true
}

var generated = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)

func TestFilesAreShort(t *testing.T) {
	const most = 1500
	for _, file := range files(t) {
		if !strings.HasSuffix(file, ".go") {
			continue
		}
		src := read(t, file)
		if n := bytes.Count(src, []byte("\n")); n > most && !generated.Match(src) {
			t.Errorf("%s has %d lines; split it: %d are the most", file, n, most)
		}
	}
}

// A generator is a program for those who work on a room; its one file says what
// it is.
func isGenerator(pkg string) bool { return strings.HasSuffix(pkg, "/internal/gen") }

// Every room says in doc.go what it is for, what it must not import and where
// to start reading.
func TestDoc(t *testing.T) {
	for pkg := range packages(t) {
		if isGenerator(pkg) {
			continue
		}
		file := path.Join(pkg, "doc.go")
		src, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Errorf("%s: no doc.go; it says in one sentence what the package is for, what it must not import, and where to start reading", pkg)
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		doc := strings.Join(strings.Fields(f.Doc.Text()), " ")
		first := "Package " + f.Name.Name + " "
		if f.Name.Name == "main" {
			first = "Command " + path.Base(pkg) + " "
			if strings.HasPrefix(doc, strings.ToUpper(path.Base(pkg)[:1])+path.Base(pkg)[1:]+" ") {
				first = "" // the other form that go doc knows
			}
		}
		for what, ok := range map[string]bool{
			"begin with " + first:         strings.HasPrefix(doc, first),
			"say what it must not import": regexp.MustCompile(`imports?\b|knows no |must not `).MatchString(doc),
			"say where to start reading":  regexp.MustCompile(`(?i)start(s)? (reading )?(at|in|with) `).MatchString(doc),
		} {
			if !ok {
				t.Errorf("%s should %s; it says: %s", file, what, doc)
			}
		}
	}
}

// No file names a place of one machine.
func TestNoMachinePaths(t *testing.T) {
	// Spelt so that this file passes its own test.
	bad := regexp.MustCompile(`(^|[^\w.-])/(wo[r]k|roo[t]|User[s])/[\w.]`)
	for _, file := range files(t) {
		src := read(t, file)
		if bytes.IndexByte(src[:min(len(src), 8<<10)], 0) >= 0 {
			continue // binary
		}
		for i, line := range strings.Split(string(src), "\n") {
			if m := bad.FindString(line); m != "" {
				t.Errorf("%s:%d names a path of one machine: %q", file, i+1, strings.TrimSpace(line))
			}
		}
	}
}

// rooms returns the directories that the tables of ARCHITECTURE.md describe.
func rooms(text string) []string {
	var dirs []string
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(text, -1) {
		for d := range strings.SplitSeq(m[1], ",") {
			dirs = append(dirs, strings.TrimSuffix(strings.Trim(d, " `"), "/"))
		}
	}
	return dirs
}

func TestArchitecture(t *testing.T) {
	described := rooms(string(read(t, "ARCHITECTURE.md")))
	if len(described) < 10 {
		t.Fatalf("ARCHITECTURE.md describes only %d rooms: %q", len(described), described)
	}
	exists := map[string]bool{}
	for _, file := range files(t) {
		for d := path.Dir(file); d != "."; d = path.Dir(d) {
			exists[d] = true
		}
		// Directories at the top, code or not, and rooms below them.
		top, _, deeper := strings.Cut(file, "/")
		if deeper && !strings.HasPrefix(top, ".") && !slices.ContainsFunc(described, func(d string) bool {
			return d == top || strings.HasPrefix(d, top+"/")
		}) {
			t.Errorf("ARCHITECTURE.md does not describe %s/", top)
			described = append(described, top)
		}
	}
	for pkg := range packages(t) {
		if pkg != "." && !slices.ContainsFunc(described, func(d string) bool {
			return pkg == d || strings.HasPrefix(pkg, d+"/")
		}) {
			t.Errorf("ARCHITECTURE.md does not describe the room %s, nor one that it is in", pkg)
		}
	}
	for _, d := range described {
		if !exists[d] && !slices.Contains(awaited, d) {
			t.Errorf("ARCHITECTURE.md describes %s, which does not exist", d)
		}
	}
	for _, d := range awaited {
		if !slices.Contains(described, d) {
			t.Errorf("%s is awaited, but ARCHITECTURE.md does not describe it", d)
		}
	}
}

func TestRooms(t *testing.T) {
	text := "| room | for |\n|---|---|\n| `a/` | x |\n| `b`, `c/d/` | `e/` |\n"
	if got := rooms(text); !slices.Equal(got, []string{"a", "b", "c/d"}) {
		t.Errorf("rooms = %q", got)
	}
}

// Each direct dependency has a line in RATIONALE.md that says why it is there.
func TestDependencies(t *testing.T) {
	rationale := string(read(t, "RATIONALE.md"))
	for _, dep := range direct(string(read(t, "go.mod"))) {
		if !regexp.MustCompile("(?m)^- `" + regexp.QuoteMeta(dep) + "`").MatchString(rationale) {
			t.Errorf("go.mod requires %s, and no line of RATIONALE.md begins with - `%s`: say there what it is for", dep, dep)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^#+ .*$`).FindAllString(rationale, -1) {
		if strings.Contains(m, "Why") && !regexp.MustCompile(`\(\d{4}-\d{2}-\d{2}\)$`).MatchString(m) {
			t.Errorf("RATIONALE.md: %q does not end with its date, (2006-01-02)", m)
		}
	}
}

// direct returns the modules that a go.mod requires and that are not marked as
// indirect.
func direct(gomod string) []string {
	var deps []string
	block := false
	for line := range strings.Lines(gomod) {
		line = strings.TrimSpace(line)
		if line == "require (" {
			block = true
			continue
		}
		if line == ")" {
			block = false
		}
		rest, single := strings.CutPrefix(line, "require ")
		if fields := strings.Fields(rest); (block || single) && len(fields) >= 2 && !strings.Contains(line, "// indirect") {
			deps = append(deps, fields[0])
		}
	}
	return deps
}

func TestDirect(t *testing.T) {
	got := direct("module m\n\ngo 1.26\n\nrequire a/b v1.0.0\nrequire (\n\tc v1.0.0\n\td v1.0.0 // indirect\n)\nreplace e => f\n")
	if !slices.Equal(got, []string{"a/b", "c"}) {
		t.Errorf("direct = %q", got)
	}
}
