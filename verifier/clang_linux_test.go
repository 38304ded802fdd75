package verifier

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/object"
)

// compile makes an object of a C file of testdata.
func compile(t *testing.T, file string) []byte {
	t.Helper()
	clang := testenv.NeedTool(t, "clang")
	out := filepath.Join(t.TempDir(), "out.o")
	cmd := exec.Command(clang, "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wno-unused", "-c", file, "-o", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestClang judges programs that clang made, which the live kernel accepts.
func TestClang(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	data := compile(t, filepath.Join("testdata", "programs.c"))
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("the kernel does not take what this test relies on: %+v", err)
	}
	coll.Close()
	o, err := object.Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	types, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	programs, err := Programs(o, types)
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) != len(spec.Programs) {
		t.Errorf("%d programs, want %d", len(programs), len(spec.Programs))
	}
	for _, p := range programs {
		r := Verify(p, Config{Types: types})
		t.Logf("%s: %d instructions, %d states", p.Name, r.Insns, r.States)
		if r.Verdict != Accepted {
			var text bytes.Buffer
			_ = Render(&text, p, r.Err)
			t.Errorf("%s: %v: %s", p.Name, r.Verdict, text.String())
		}
	}
}
