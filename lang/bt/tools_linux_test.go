package bt_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/codegen"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/source"
)

// TestTools compiles the tools of Debian's bpftrace package, where it is
// installed, for the machine the test runs on.
func TestTools(t *testing.T) {
	names, _ := filepath.Glob("/usr/sbin/*.bt")
	if len(names) == 0 {
		testenv.Skip(t, testenv.Tool, "the package bpftrace is not installed")
	}
	tgt, err := kernel.Target()
	if err != nil {
		testenv.Skip(t, testenv.BPF, "the kernel cannot be read: %v", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".bt"), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file := source.NewFile(filepath.Base(name), string(text))
			unit, diags := bt.Compile(file, tgt, bt.Options{})
			var b strings.Builder
			source.RenderAll(&b, diags, source.Style{})
			if unit == nil {
				if lacking(filepath.Base(name), diags) {
					t.Logf("this kernel has not all that the tool traces:\n%s", b.String())
					return
				}
				t.Fatal(b.String())
			}
			if _, err := codegen.Generate(unit.Module, codegen.Options{Arch: tgt.Arch()}); err != nil {
				t.Fatalf("%s%v", b.String(), err)
			}
		})
	}
}

// lacking reports whether all errors are about functions and variables that
// are not there, not about the language.
func lacking(tool string, diags source.List) bool {
	for _, d := range diags {
		switch d.Code {
		case "unknown-probe", "unknown-symbol", "missing-probe":
		case "unknown-field":
			// cfs_rq.nr_running has another name since Linux 6.14.
			if tool != "runqlen.bt" {
				return false
			}
		default:
			if d.Severity == source.Error {
				return false
			}
		}
	}
	return true
}
