package vm_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/vm"
)

var update = flag.Bool("update", false, "rewrite the tables of CONFORMANCE.md")

const (
	conformanceFile  = "../CONFORMANCE.md"
	conformanceBegin = "<!-- engine: begin; made by go test ./vm -run TestConformance -update -->\n"
	conformanceEnd   = "<!-- engine: end -->\n"
)

// TestConformance holds the tables of the embedded engine in CONFORMANCE.md
// against what is there.
func TestConformance(t *testing.T) {
	var b strings.Builder
	b.WriteString(conformanceBegin)
	b.WriteString("\n### Map types\n\n| map type | state |\n|---|---|\n")
	have := vm.MapTypes()
	for n := abi.MapHash; n.String() != "" && n <= abi.MapArena; n++ {
		fmt.Fprintf(&b, "| `%s` | %s |\n", n, state(slices.Contains(have, n)))
	}
	b.WriteString("\n### Program types\n\nOf the helpers that Linux 6.18 lets programs of the type call, how many there are.\n\n| program type | state | helpers |\n|---|---|---|\n")
	types := vm.ProgTypes()
	for n := abi.ProgSocketFilter; n <= abi.ProgNetfilter; n++ {
		all := 0
		for _, h := range abi.Helpers() {
			if _, ok := h.Call(abi.Linux6_18, n); ok {
				all++
			}
		}
		if !slices.Contains(types, n) {
			fmt.Fprintf(&b, "| `%s` | %s | |\n", n, state(false))
			continue
		}
		fmt.Fprintf(&b, "| `%s` | %s | %d of %d |\n", n, state(true), len(vm.HelperNames(n)), all)
	}
	there := map[string]bool{}
	for _, n := range types {
		for _, name := range vm.HelperNames(n) {
			there[name] = true
		}
	}
	b.WriteString("\n### Helpers\n\nPrograms that call others are refused when they are loaded, unless the host supplies them.\n\n| helper | state |\n|---|---|\n")
	for _, h := range abi.Helpers() {
		if h.ID != 0 {
			fmt.Fprintf(&b, "| `%s` | %s |\n", h.Name, state(there[h.Name]))
		}
	}
	b.WriteString("\n### Kernel functions\n\nThere are: `" + strings.Join(vm.KfuncNames(), "`, `") + "`.\n\n")
	b.WriteString(conformanceEnd)

	data, err := os.ReadFile(conformanceFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), conformanceBegin)
	_, after, ok2 := strings.Cut(rest, conformanceEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no %q", conformanceFile, conformanceBegin)
	}
	want := before + b.String() + after
	if want == string(data) {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date: go test ./vm -run TestConformance -update", conformanceFile)
	}
	if err := os.WriteFile(conformanceFile, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

func state(there bool) string {
	if there {
		return "works"
	}
	return "not yet"
}
