package vm_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/skep-bpf/skep/internal/testenv"
)

var compiled sync.Map // objects by source file

// compileC returns the object that clang makes of a file in testdata.
func compileC(t testing.TB, source string) []byte {
	t.Helper()
	if data, ok := compiled.Load(source); ok {
		return data.([]byte)
	}
	clang := testenv.NeedTool(t, "clang")
	out := filepath.Join(t.TempDir(), "out.o")
	cmd := exec.Command(clang, "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", "-Wno-unused-variable", "-c", "-o", out, filepath.Join("testdata", source))
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("clang: %v\n%s", err, msg)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	compiled.Store(source, data)
	return data
}
