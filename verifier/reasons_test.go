package verifier

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReasons has every code that an error is made with listed, and every one
// that is listed used: an error of an unknown code is a panic.
func TestReasons(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	made := regexp.MustCompile(`(?:fail\(|failAt\([^"]+, )"([a-z0-9-]+)"`)
	used := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range made.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = true
			if _, ok := reasons[Code(m[1])]; !ok {
				t.Errorf("%s: no reason %q", file, m[1])
			}
		}
	}
	for code := range reasons {
		if !used[string(code)] {
			t.Errorf("nothing is refused for %q", code)
		}
	}
	if len(used) < 100 {
		t.Errorf("only %d codes were found", len(used))
	}
}
