package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	conformanceFile  = "../../CONFORMANCE.md"
	conformanceBegin = "<!-- language: begin; made by go test ./cmd/skep -run TestConformance -update -->\n"
	conformanceEnd   = "<!-- language: end -->\n"
)

// TestConformance holds the table of the language in CONFORMANCE.md against
// the scripts that show what works.
func TestConformance(t *testing.T) {
	covered := map[string][]string{}
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range scripts {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			if item, ok := strings.CutPrefix(strings.TrimSpace(line), "# covers: "); ok {
				covered[item] = append(covered[item], strings.TrimSuffix(filepath.Base(name), ".txtar"))
			}
		}
	}
	list, err := os.ReadFile("testdata/language.txt")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(conformanceBegin)
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	known := map[string]bool{}
	for line := range strings.Lines(string(list)) {
		line = strings.TrimSpace(line)
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			fmt.Fprintf(&b, "\n### %s\n\n| item | state | shown by |\n|---|---|---|\n", heading)
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "#include") {
			continue
		}
		item, state, noted := strings.Cut(line, " | ")
		known[item] = true
		shown := covered[item]
		switch {
		case len(shown) > 0 && noted:
			t.Errorf("%q is covered by %s, but testdata/language.txt says %q", item, shown[0], state)
		case len(shown) == 0 && !noted:
			t.Errorf("no script covers %q, and testdata/language.txt does not say why", item)
		case len(shown) > 0:
			state = "works"
		case !strings.HasPrefix(state, "not yet") && !strings.HasPrefix(state, "refused"):
			t.Errorf("%q is neither \"not yet\" nor \"refused\": %q", item, state)
		}
		for i, s := range shown {
			shown[i] = "`" + s + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", cell(item), cell(state), strings.Join(slices.Compact(shown), ", "))
	}
	for item, shown := range covered {
		if !known[item] {
			t.Errorf("%s covers %q, which testdata/language.txt does not have", shown[0], item)
		}
	}
	b.WriteString("\n" + conformanceEnd)

	updateTable(t, conformanceBegin, conformanceEnd, b.String(), "TestConformance")
}

// updateTable compares a table of CONFORMANCE.md, from the line begin to the line
// end, with what it should be, or with -update writes it.
func updateTable(t *testing.T, begin, end, table, test string) {
	t.Helper()
	data, err := os.ReadFile(conformanceFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table of %s", conformanceFile, test)
	}
	want := before + table + after
	if want == string(data) {
		return
	}
	if *update {
		if err := os.WriteFile(conformanceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("CONFORMANCE.md is out of date; run: go test ./cmd/skep -run %s -update", test)
}
