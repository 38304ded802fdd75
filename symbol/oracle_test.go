package symbol

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tool returns the path of a command or skips the test.
func tool(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return p
}

func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

var built sync.Map // command line -> path

var buildDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "symbol-test-") })

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := buildDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// compile compiles testdata/src with compiler and flags, once for the whole run.
func compile(t testing.TB, compiler, src string, flags ...string) string {
	t.Helper()
	path := tool(t, compiler)
	key := strings.Join(append([]string{compiler, src}, flags...), " ")
	if p, ok := built.Load(key); ok {
		return p.(string)
	}
	dir, err := buildDir()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, strings.Map(func(r rune) rune {
		if r == ' ' || r == '/' {
			return '_'
		}
		return r
	}, key))
	args := append([]string{"-o", out, filepath.Join("testdata", src)}, flags...)
	if compiler == "go" {
		args = append(append([]string{"build", "-o", out}, flags...), filepath.Join("testdata", src))
	}
	output(t, path, args...)
	built.Store(key, out)
	return out
}

func open(t testing.TB, name string) *Binary {
	t.Helper()
	b, err := OpenBinary(os.DirFS("/"), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}
