package bt_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/skep-bpf/skep/codegen"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

var word = regexp.MustCompile(`[$@]?[A-Za-z_0-9]+|"[^"\n]*"|\s+|.`)

// TestDamagedScripts compiles scripts with words that were taken out, doubled
// or exchanged: whatever comes of it, nothing may panic.
func TestDamagedScripts(t *testing.T) {
	tgt, err := kernel.Target()
	if err != nil {
		testenv.Skip(t, testenv.BPF, "the kernel cannot be read: %v", err)
	}
	var texts []string
	names, _ := filepath.Glob("../../cmd/skep/testdata/script/lang_*.txtar")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range txtar.Parse(data).Files {
			if strings.HasSuffix(f.Name, ".bt") {
				texts = append(texts, string(f.Data))
			}
		}
	}
	if len(texts) == 0 {
		t.Fatal("there are no scripts to damage")
	}
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i, text := range texts {
		words := word.FindAllString(text, -1)
		for n := range rounds {
			damaged := append([]string(nil), words...)
			for range 1 + r.IntN(3) {
				at, from := r.IntN(len(damaged)), r.IntN(len(damaged))
				switch r.IntN(3) {
				case 0:
					damaged[at] = ""
				case 1:
					damaged[at] = damaged[from]
				default:
					damaged[at] += " " + damaged[from]
				}
			}
			compileAny(t, tgt, fmt.Sprintf("%d.%d", i, n), strings.Join(damaged, ""))
		}
	}
}

// compileAny fails only when the compiler panics.
func compileAny(t *testing.T, tgt target.Target, name, text string) {
	defer func() {
		if p := recover(); p != nil {
			t.Errorf("%s: panic: %v\n%s", name, p, text)
		}
	}()
	unit, _ := bt.Compile(source.NewFile(name, text), tgt, bt.Options{Unsafe: true})
	if unit == nil {
		return
	}
	codegen.Generate(unit.Module, codegen.Options{Arch: tgt.Arch()})
}
