//go:build linux && amd64

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/source"
)

// TestProgramsAgree loads each program as skep and as clang made it, and
// compares what both make of the same events.
func TestProgramsAgree(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	testenv.NeedTool(t, "clang")
	dir := t.TempDir()
	if err := unpack(dir); err != nil {
		t.Fatal(err)
	}
	defer pin()()
	for i := range codePrograms {
		p := &codePrograms[i]
		t.Run(p.name, func(t *testing.T) {
			script := filepath.Join(dir, p.name+".bt")
			text, err := os.ReadFile(script)
			if err != nil {
				t.Fatal(err)
			}
			obj, err := skep.Compile(source.NewFile(script, string(text)), skep.CompileOptions{})
			if err != nil {
				t.Fatal(err)
			}
			paths := []string{filepath.Join(dir, p.name+".skep.o"), filepath.Join(dir, p.name+".clang.o")}
			if err := os.WriteFile(paths[0], obj.ELF, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := p.clang(dir, paths[1]); err != nil {
				t.Fatal(err)
			}
			var builds []*compiled
			for _, path := range paths {
				b, err := loadObject(path)
				if err != nil {
					t.Fatal(err)
				}
				defer b.close()
				builds = append(builds, b)
			}
			if err := same(p, builds); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDiffer(t *testing.T) {
	list := []entry{{"m", []byte{1}, []byte{2}}, {where: "ring buffer", value: []byte{3}}}
	if err := differ(list, slices.Clone(list)); err != nil {
		t.Error(err)
	}
	for want, other := range map[string][]entry{
		"entry 0": {{"m", []byte{1}, []byte{9}}, list[1]},
		"entry 1": {list[0], {where: "ring buffer", value: []byte{3, 0}}},
		"entries": list[:1],
	} {
		if err := differ(list, other); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", other, err)
		}
	}
	if differ(nil, nil) == nil {
		t.Error("nothing agrees with nothing")
	}
}
