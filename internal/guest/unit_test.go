//go:build linux

package guest

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/internal/testenv"
)

func TestInitramfs(t *testing.T) {
	busybox := testenv.NeedTool(t, "busybox")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "prog"), []byte("#!"), 0o751); err != nil {
		t.Fatal(err)
	}
	a := newInitramfs()
	if err := a.add(Files{"/bin/prog": filepath.Join(dir, "prog"), "/deep/er": dir}); err != nil {
		t.Fatal(err)
	}
	a.symlink("/bin/alias", "prog")
	delete(a.entries, "dev/console") // only root can make devices

	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(busybox, "cpio", "-i")
	cmd.Dir = out
	cmd.Stdin = bytes.NewReader(a.bytes())
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v\n%s", err, b)
	}
	for _, p := range []string{"usr/bin/prog", "bin/prog", "bin/alias", "deep/er/prog"} {
		info, err := os.Stat(filepath.Join(out, p))
		if err != nil {
			t.Error(err)
		} else if info.Mode() != 0o751 || info.Size() != 2 {
			t.Errorf("%s: mode %v, %d bytes", p, info.Mode(), info.Size())
		}
	}
}

func TestClean(t *testing.T) {
	for p, want := range map[string]string{
		"/bin/sh": "usr/bin/sh", "/usr/bin/sh": "usr/bin/sh", "/lib64/ld.so": "usr/lib64/ld.so", "/init": "init",
		"/bin": "bin", "/library/x": "library/x", "//a/../b": "b",
	} {
		if got := clean(p); got != want {
			t.Errorf("clean(%q) = %q, want %q", p, got, want)
		}
	}
}

func TestEachFileRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, target := range map[string]string{"null": "/dev/null", "dir": dir, "gone": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"null": "only regular files", "dir": "symbolic link to a directory", "gone": "no such file"} {
		if err := newInitramfs().add(Files{"/x": filepath.Join(dir, name)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func TestProgram(t *testing.T) {
	bash := testenv.NeedTool(t, "bash")
	files, err := program(bash)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/libc.so.6", "/ld-linux", filepath.Base(bash)} {
		found := false
		for dst, src := range files {
			found = found || strings.Contains(dst, want) && src == dst
		}
		if !found {
			t.Errorf("bash came without %s: %v", want, files)
		}
	}
	if _, err := program("/etc/passwd"); err == nil || !strings.Contains(err.Error(), "no ELF file") {
		t.Errorf("a text file: %v", err)
	}
}

// bzImage makes the smallest header that bzPayload reads, around a payload.
func bzImage(payload []byte) []byte {
	b := make([]byte, 1024, 1024+len(payload))
	b[0x1f1] = 1
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(b, payload...)
}

func TestUnpackKernel(t *testing.T) {
	if got, err := bzPayload(bzImage([]byte("kernel"))); err != nil || string(got) != "kernel" {
		t.Errorf("payload %q, %v", got, err)
	}
	for name, tt := range map[string]struct {
		image []byte
		want  string
	}{
		"empty":        {nil, "no bzImage"},
		"no magic":     {make([]byte, 4096), "no bzImage"},
		"no payload":   {bzImage(nil), "truncated"},
		"cut":          {bzImage([]byte("kernel"))[:1026], "truncated"},
		"unknown form": {bzImage([]byte("kernel")), "not compressed in a way known"},
	} {
		if _, err := unpackKernel(tt.image); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func FuzzBzPayload(f *testing.F) {
	f.Add(bzImage([]byte("kernel")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := bzPayload(b)
		if err == nil && (len(p) == 0 || len(p) > len(b)) {
			t.Errorf("%d bytes of payload in %d", len(p), len(b))
		}
	})
}

func TestVerdict(t *testing.T) {
	out := `=== RUN   TestA
=== RUN   TestA/b
    x_test.go:1: first
    x_test.go:12: skipped for want of kprobe: none here
--- FAIL: TestA (0.00s)
    --- SKIP: TestA/b (0.00s)
FAIL
`
	if v, reason := verdict("TestA/b", out); v != "SKIP" || reason != "skipped for want of kprobe: none here" {
		t.Errorf("TestA/b: %q, %q", v, reason)
	}
	for name, want := range map[string]string{"TestA": "FAIL", "Test": "", "TestA/c": ""} {
		if v, _ := verdict(name, out); v != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
}

func TestExactly(t *testing.T) {
	if got, want := exactly("TestA/b.c#01"), `^TestA$/^b\.c#01$`; got != want {
		t.Errorf("exactly = %s, want %s", got, want)
	}
}

func TestModules(t *testing.T) {
	Need(t)
	for _, k := range Kernels {
		img, err := k.load()
		if err != nil {
			testenv.Skip(t, testenv.Guest, "%v", err)
		}
		mods, err := img.modules([]string{"nf-conntrack", "veth", "nf_conntrack"})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range mods {
			names = append(names, m.name)
		}
		i := slices.Index(names, "nf_conntrack")
		if j := slices.Index(names, "nf_defrag_ipv4"); j < 0 || i < j || names[len(names)-1] != "veth" {
			t.Errorf("%s: order %q", k, names)
		}
		if _, err := img.modules([]string{"vethh"}); err == nil || !strings.Contains(err.Error(), `no module "vethh"`) {
			t.Errorf("%s: unknown module: %v", k, err)
		}
	}
}
