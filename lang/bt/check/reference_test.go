package check

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/hook"
)

// TestReference holds the reference against what the checker knows.
func TestReference(t *testing.T) {
	same := func(what string, got, want []string) {
		t.Helper()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s of the reference:\n%v\nof the checker:\n%v", what, got, want)
		}
	}
	same("functions", slices.Collect(maps.Keys(functionTexts)), slices.Collect(maps.Keys(functions)))
	same("builtins", slices.Collect(maps.Keys(builtinTexts)), slices.Collect(maps.Keys(builtins)))
	for _, s := range hook.Spellings() {
		if probeTexts[s.Kind] == "" {
			t.Errorf("the reference says nothing of %s", s.Kind)
		}
	}
	// As many arguments as a form shows, a function takes.
	optional := regexp.MustCompile(`\[[^][]*\]`)
	for name, f := range functions {
		form := functionTexts[name].form
		first, _, _ := strings.Cut(form, "), ")
		_, args, ok := strings.Cut(first, name+"(")
		if !ok {
			t.Errorf("%q does not show how %s is called", form, name)
			continue
		}
		args = strings.TrimSuffix(args, ")")
		least, most := args, strings.NewReplacer("[", "", "]", "").Replace(args)
		for optional.MatchString(least) {
			least = optional.ReplaceAllString(least, "")
		}
		count := func(s string) int {
			n := 0
			for part := range strings.SplitSeq(s, ",") {
				if part = strings.TrimSpace(part); part != "" && part != "..." {
					n++
				}
			}
			return n
		}
		if f.Max < 0 {
			if !strings.HasSuffix(args, "...") || count(args) != f.Min {
				t.Errorf("%q, but %s takes %s", form, name, argCount(f))
			}
			continue
		}
		// Some may stand without parentheses or with an index instead.
		n := min(count(least), f.Max)
		if count(most) > f.Max || strings.Count(form, name) == 1 && (n < f.Min || count(most) < f.Max) {
			t.Errorf("%q, but %s takes %s", form, name, argCount(f))
		}
	}
	for line := range strings.Lines(Reference()) {
		if len(line) > 100 {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
}
