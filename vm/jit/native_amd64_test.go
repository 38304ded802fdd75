//go:build linux

package jit

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skep-bpf/skep/internal/testenv"
)

var auditedNative = audited(x86Generate, auditX86)

var trapBytes = []byte{trapFill}

// TestEmulated runs the tests of generated arm64 code under emulation. It hides
// missing flushes of instruction caches, but nothing else.
func TestEmulated(t *testing.T) {
	qemu := testenv.NeedTool(t, "qemu-aarch64")
	binary := filepath.Join(t.TempDir(), "jit.test")
	build := exec.Command("go", "test", "-c", "-o", binary, ".")
	build.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(qemu, binary, "-test.run=Random|Soak|Never|Padding|Room|Known", "-programs=100", "-test.v").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if passed := bytes.Count(out, []byte("--- PASS")); passed != 6 {
		t.Errorf("%d tests passed, want 6\n%s", passed, out)
	}
}
