package skep

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/source"
)

func TestIncluder(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"near.h": "near", "inc/far.h": "far", "inc/deep/x.h": "deep"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	from := source.NewFile(filepath.Join(dir, "script.bt"), "")
	in := &includer{dirs: []string{filepath.Join(dir, "inc")}}
	for _, tt := range []struct {
		path   string
		angled bool
		want   string // "" is the target's
		err    string
	}{
		{"near.h", false, "near", ""},
		{"far.h", true, "far", ""},
		{"far.h", false, "far", ""},
		{"deep/x.h", true, "deep", ""},
		{filepath.Join(dir, "near.h"), false, "near", ""},
		{"linux/fs.h", true, "", ""},
		{"linux/fs.h", false, "", ""},
		{"stdio.h", true, "", ""},
		{"lost.h", false, "", "there is no such file"},
		{"deep", false, "", "there is no such file"},
	} {
		f, err := in.Include(tt.path, tt.angled, from)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v, want %q", tt.path, err, tt.err)
			}
		case err != nil:
			t.Errorf("%s: %v", tt.path, err)
		case f == nil && tt.want != "" || f != nil && f.Text != tt.want:
			t.Errorf("%s: %v, want %q", tt.path, f, tt.want)
		}
	}
	again := &includer{texts: in.texts, sealed: true}
	if f, err := again.Include("far.h", false, from); err != nil || f == nil || f.Text != "far" {
		t.Errorf("what was found is not kept: %v %v", f, err)
	}
	if _, err := again.Include("lost.h", false, from); err == nil {
		t.Error("a sealed includer finds files")
	}
}
