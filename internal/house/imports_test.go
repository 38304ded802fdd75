package house

import (
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// policy says which package may import which others, in the form of Go's own
// go/build/deps_test.go:
//
//	a, b < c, d;    c and d may import a and b, and all that those may
//	a < b < c;      short for a < b; b < c
//	NONE < a;       a may import nothing of skep
//	a !< b;         no chain of rules may let b import a
//
// ROOT is the package at the top of the module. A name that ends in /* stands
// for every package below that directory. The standard library is free for all,
// and go.mod says what else is there (see TestDependencies). Tests, and what
// is below a directory called internal, may import what they like, but nothing
// else may import from there unless a rule here lets it.
const policy = `
	NONE < source, isa, symbol, verifier/domain;

	isa < abi;
	source, isa < object;
	NONE < target/typeindex;
	abi, symbol, target/typeindex < target;
	source, target < hook;

	# Languages, down to the IR.
	source < ir;
	ir < ir/opt, ir/irtest;
	source < lang/bt/syntax;
	lang/bt/syntax, abi, target, hook < lang/bt/check;
	object, hook < facts;
	lang/bt/check, ir, object, facts < lang/bt;
	ir, abi, target, hook, object, facts < lang/golang;

	# From the IR to an object.
	ir/opt, abi, object < codegen;

	# What judges objects, and what runs them.
	abi, object, verifier/domain < verifier;
	NONE < vm/cage;
	isa < vm/engine; # the contract of both engines
	vm/cage, vm/engine < vm/interp;
	vm/engine < vm/jit;
	vm/cage, vm/interp, vm/jit, abi, object, hook, machine < vm;
	hook < machine; # the interface of both machines
	abi, object, hook, target, machine < kernel;
	target, hook, vm < rootless;
	object, hook, symbol, target, machine < runner;

	# For the tests of more than one room.
	target < target/targettest;

	# What people see.
	lang/bt, lang/golang, codegen, verifier, vm, kernel, rootless, runner < ROOT;
	runner < ui/*;
	ROOT, ui/* < cmd/*;
	NONE < examples/*; # which look at skep in their tests alone

	# The compiler, the verifier and the vm share only facts, so that each is an
	# independent oracle for the other two.
	codegen !< verifier;
	ir !< verifier;
	verifier !< vm;
	kernel !< vm;
	vm !< runner;
`

const modulePath = "github.com/skep-bpf/skep"

// A graph holds what each name may import, transitively.
type graph map[string]map[string]bool

// rules parses a policy and closes it over transitivity.
func rules(text string) (graph, error) {
	g := graph{}
	type pair struct{ from, to string }
	var never []pair
	var clean strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		clean.WriteString(line + "\n")
	}
	statements := strings.Split(clean.String(), ";")
	if strings.TrimSpace(statements[len(statements)-1]) != "" {
		return nil, fmt.Errorf("no ; after %q", strings.TrimSpace(statements[len(statements)-1]))
	}
	for _, statement := range statements[:len(statements)-1] {
		fields := strings.Fields(strings.ReplaceAll(statement, ",", " , "))
		var lists [][]string
		var ops []string
		list := []string{}
		wantName := true
		for _, f := range fields {
			switch {
			case f == "<" || f == "!<":
				if wantName {
					return nil, fmt.Errorf("a name is missing before %s in %q", f, strings.TrimSpace(statement))
				}
				lists, list, ops, wantName = append(lists, list), nil, append(ops, f), true
			case f == ",":
				if wantName {
					return nil, fmt.Errorf("a name is missing before a comma in %q", strings.TrimSpace(statement))
				}
				wantName = true
			case !wantName:
				return nil, fmt.Errorf("a comma is missing before %s", f)
			default:
				list, wantName = append(list, f), false
			}
		}
		lists = append(lists, list)
		if wantName || len(ops) == 0 {
			return nil, fmt.Errorf("unfinished rule %q", strings.TrimSpace(statement))
		}
		for i, op := range ops {
			for _, a := range lists[i] {
				for _, b := range lists[i+1] {
					if op == "!<" {
						never = append(never, pair{a, b})
						continue
					}
					if g[b] == nil {
						g[b] = map[string]bool{}
					}
					if a != "NONE" {
						g[b][a] = true
					}
				}
			}
		}
	}
	for b, as := range g {
		for a := range as {
			if g[a] == nil {
				return nil, fmt.Errorf("%s may be imported by %s, but no rule says what it may import itself (NONE < %s?)", a, b, a)
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for _, as := range g {
			for _, a := range slices.Collect(maps.Keys(as)) {
				for aa := range g[a] {
					if !as[aa] {
						as[aa], changed = true, true
					}
				}
			}
		}
	}
	for b, as := range g {
		if as[b] {
			return nil, fmt.Errorf("the rules let %s import itself", b)
		}
	}
	for _, n := range never {
		for _, name := range []string{n.from, n.to} {
			if g[name] == nil {
				return nil, fmt.Errorf("%s !< %s: no rule names %s", n.from, n.to, name)
			}
		}
		if g[n.to][n.from] {
			return nil, fmt.Errorf("the rules let %s import %s, which %s !< %s forbids", n.to, n.from, n.from, n.to)
		}
	}
	return g, nil
}

// name returns what the rules call a package: itself, or a name with /*.
func (g graph) name(pkg string) (string, bool) {
	if pkg == "." {
		pkg = "ROOT"
	}
	if g[pkg] != nil {
		return pkg, true
	}
	for dir := path.Dir(pkg); dir != "."; dir = path.Dir(dir) {
		if g[dir+"/*"] != nil {
			return dir + "/*", true
		}
	}
	return "", false
}

// check says what is wrong with a package that imports others of the module.
func (g graph) check(pkg string, imports []string) []string {
	if strings.Contains("/"+pkg+"/", "/internal/") {
		return nil
	}
	name, ok := g.name(pkg)
	if !ok {
		return []string{fmt.Sprintf("no rule names the package %s: add it to the policy, and to ARCHITECTURE.md", pkg)}
	}
	var wrong []string
	for _, imp := range imports {
		from, ok := g.name(imp)
		if !ok || !g[name][from] {
			wrong = append(wrong, fmt.Sprintf("%s may not import %s", pkg, imp))
		}
	}
	return wrong
}

func TestRules(t *testing.T) {
	g, err := rules("NONE < a, b; a < c < d; # why\n b < ROOT, e/*; a !< e/*;")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		pkg     string
		imports string
		want    string
	}{
		{"a", "", ""},
		{"c", "a", ""},
		{"d", "a c", ""},
		{"d", "b", "d may not import b"},
		{".", "b", ""},
		{".", "a", ". may not import a"},
		{"e/x/y", "b", ""},
		{"e/x", "a", "e/x may not import a"},
		{"e/x", "e/y", "e/x may not import e/y"},
		{"f", "", "no rule names the package f: add it to the policy, and to ARCHITECTURE.md"},
		{"c", "internal/x", "c may not import internal/x"},
		{"internal/x", "a b c internal/y", ""},
		{"a/internal/gen", "d", ""},
	} {
		if got := strings.Join(g.check(tt.pkg, strings.Fields(tt.imports)), "; "); got != tt.want {
			t.Errorf("%s importing %q: %q, want %q", tt.pkg, tt.imports, got, tt.want)
		}
	}
	for text, want := range map[string]string{
		"NONE < a; a < b; a !< b;":        "a !< b forbids",
		"NONE < a; a < b; b < c; a !< c;": "a !< c forbids",
		"a < b; b < a;":                   "import itself",
		"a < b;":                          "NONE < a?",
		"NONE < a; a < b":                 "no ;",
		"NONE < a, ;":                     "unfinished",
		"NONE < a b;":                     "comma is missing",
		"< a;":                            "name is missing",
		"NONE < a; a !< nobody;":          "no rule names nobody",
		"NONE < a; , a < b;":              "name is missing",
	} {
		if _, err := rules(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestImports(t *testing.T) {
	g, err := rules(policy)
	if err != nil {
		t.Fatal(err)
	}
	for pkg, imports := range packages(t) {
		var ours []string
		for imp := range imports {
			if rel, ok := strings.CutPrefix(imp, modulePath+"/"); ok {
				ours = append(ours, rel)
			} else if imp == modulePath {
				ours = append(ours, ".")
			}
		}
		slices.Sort(ours)
		for _, wrong := range g.check(pkg, ours) {
			t.Error(wrong)
		}
	}
}

// packages returns the imports of every package of the module, by directory,
// over all build constraints but "ignore", without tests.
func packages(t *testing.T) map[string]map[string]bool {
	t.Helper()
	all := map[string]map[string]bool{}
	for _, file := range files(t) {
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			continue
		}
		if !isPackageFile(file) {
			continue
		}
		src := read(t, file)
		if strings.Contains("\n"+string(src), "\n//go:build ignore\n") {
			continue // a generator, run by hand
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		pkg := path.Dir(file)
		if all[pkg] == nil {
			all[pkg] = map[string]bool{}
		}
		for _, i := range f.Imports {
			all[pkg][strings.Trim(i.Path.Value, `"`)] = true
		}
	}
	if len(all) == 0 {
		t.Fatal("found no packages")
	}
	return all
}
