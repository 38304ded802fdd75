package skep_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/internal/scriptgen"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/verifier"
)

// verifyScripts is how many random scripts are judged; that the kernel loads
// such scripts is TestWellTypedScriptsLoad's to show.
const verifyScripts = 60

// TestVerifyScripts has the verifier accept what skep compiles, save what the
// kernel refuses too: random scripts, and bpftrace's tools where they are
// installed.
func TestVerifyScripts(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTracefs(t)
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	programs := 0
	judge := func(name, text string) {
		obj, err := skep.Compile(source.NewFile(name, text), skep.CompileOptions{})
		if err != nil {
			return // limits, and hooks that this machine does not have
		}
		list, err := skep.Verify(obj, skep.VerifyOptions{Types: types})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		for _, v := range list {
			programs++
			if v.Verdict == verifier.Rejected {
				// Then the kernel has to refuse the object too.
				l, err := kernel.New().Load(context.Background(), obj.ELF, machine.LoadOptions{})
				if err != nil {
					t.Logf("%s: neither we nor the kernel take it: %v", name, err)
					continue
				}
				_ = l.Close()
			}
			if v.Verdict != verifier.Accepted {
				var b bytes.Buffer
				_ = verifier.Render(&b, v.Program, v.Err)
				t.Errorf("%s: %s: %v: %s", name, v.Program.Name, v.Verdict, b.String())
			}
		}
	}
	for seed := uint64(1); seed <= verifyScripts; seed++ {
		judge("random.bt", scriptgen.Script(seed, scriptgen.DefaultOptions))
	}
	tools, _ := filepath.Glob("/usr/sbin/*.bt")
	for _, file := range tools {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		judge(filepath.Base(file), string(text))
	}
	t.Logf("%d programs of %d scripts and %d tools", programs, verifyScripts, len(tools))
	if programs < verifyScripts {
		t.Errorf("only %d programs were judged", programs)
	}
}
