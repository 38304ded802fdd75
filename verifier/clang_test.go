package verifier

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skep-bpf/skep/internal/testenv"
)

// compile makes an object of a C file of testdata.
func compile(t testing.TB, file string) []byte {
	t.Helper()
	clang := testenv.NeedTool(t, "clang")
	out := filepath.Join(t.TempDir(), "out.o")
	cmd := exec.Command(clang, "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wno-unused", "-Wno-typedef-redefinition",
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu", "-c", file, "-o", out)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
