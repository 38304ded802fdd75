package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestTables checks that the tables checked in are those of the summaries.
func TestTables(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the texts of errors are those of a Linux build")
	}
	files, err := tables("kernels")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the summaries give; run go generate ./abi", name)
		}
	}
	have, err := filepath.Glob("../../*_gen.go")
	if err != nil || len(have) != len(files) {
		t.Errorf("there are %d generated files, want %d (%v)", len(have), len(files), err)
	}
}

// TestSource summarises the kernel sources again where Debian's packages
// linux-source-6.1 and linux-source-6.12 are installed.
func TestSource(t *testing.T) {
	if os.Getenv("CI") == "" {
		t.Skip("unpacking takes half a minute; runs with CI=true")
	}
	for _, k := range []struct {
		version   string
		callsOnly bool
		dirs      []string
	}{
		{"6.1", true, []string{"kernel", "net", "security", "drivers/media/rc", "include"}},
		{"6.12", false, []string{
			"kernel", "net", "security", "drivers/char", "drivers/pci", "drivers/media/rc", "drivers/hid/bpf", "include", "fs", "mm", "ipc", "block", "io_uring", "lib",
			"virt", "scripts/syscall.tbl", "crypto", "arch/x86", "arch/arm64/kernel", "arch/arm64/include", "arch/riscv/kernel", "arch/riscv/include",
		}},
	} {
		t.Run(k.version, func(t *testing.T) {
			tarball := "/usr/src/linux-source-" + k.version + ".tar.xz"
			if _, err := os.Stat(tarball); err != nil {
				t.Skipf("the package linux-source-%s is not installed", k.version)
			}
			root := t.TempDir()
			args := []string{"-C", root, "--strip-components=1", "-xf", tarball}
			for _, d := range k.dirs {
				args = append(args, "linux-source-"+k.version+"/"+d)
			}
			if msg, err := exec.Command("tar", args...).CombinedOutput(); err != nil {
				t.Fatalf("tar: %v\n%s", err, msg)
			}
			got, err := summarise(root, "", "", k.callsOnly)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, k.version, strings.Split(strings.TrimSpace(got), "\n"), func(kind string) bool {
				return kind != "enum" && kind != "func"
			})
		})
	}
}

// compare reports the records of some kinds that differ from those checked in.
func compare(t *testing.T, version string, got []string, kinds func(string) bool) {
	t.Helper()
	text, err := os.ReadFile("kernels/" + version + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		kind, _, _ := strings.Cut(line, "\t")
		if kinds(kind) {
			want[line] = true
		}
	}
	for _, line := range got {
		if !want[line] {
			t.Errorf("not in kernels/%s.txt: %s", version, line)
		}
		delete(want, line)
	}
	for line := range want {
		t.Errorf("only in kernels/%s.txt: %s", version, line)
	}
}

// TestRunningKernel compares the BTF of the running kernel with the summary of
// its release.
func TestRunningKernel(t *testing.T) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Skip("not Linux")
	}
	version := ""
	for _, v := range []string{"6.1", "6.12", "6.18"} {
		if strings.HasPrefix(string(release), v+".") {
			version = v
		}
	}
	if version == "" {
		t.Skipf("no summary of Linux %s", release)
	}
	const path = "/sys/kernel/btf/vmlinux"
	if _, err := os.Stat(path); err != nil {
		t.Skip("the kernel has no BTF")
	}
	var out records
	if err := summariseBTF(path, nil, &out); err != nil {
		t.Fatal(err)
	}
	var enums []string
	for _, line := range out {
		if strings.HasPrefix(line, "enum\t") {
			enums = append(enums, line)
		}
	}
	compare(t, version, enums, func(kind string) bool { return kind == "enum" })
}

// TestSince checks the versions of since.txt against what 6.1 and 6.12 have.
func TestSince(t *testing.T) {
	since, err := readSummary("kernels/since.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"6.1", "6.12"} {
		k, err := readSummary("kernels/" + version + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		limit := number(t, version)
		for _, e := range []struct{ kind, enum, prefix string }{
			{"prog", "bpf_prog_type", "BPF_PROG_TYPE_"},
			{"attach", "bpf_attach_type", "BPF_"},
		} {
			has := enumNumbers(k, e.enum, e.prefix)
			for _, r := range since[e.kind] {
				for _, name := range strings.Fields(r[1]) {
					if _, ok := has[name]; ok != (number(t, r[0]) <= limit) {
						t.Errorf("%s %s is said to be of %s, but Linux %s has it: %v", e.kind, name, r[0], version, ok)
					}
				}
			}
		}
		// Maps were renamed when they were deprecated, so count.
		maps := 0
		for _, r := range since["map"] {
			if number(t, r[0]) <= limit {
				maps += len(strings.Fields(r[1]))
			}
		}
		if n := len(enumNumbers(k, "bpf_map_type", "")) - 1; maps != n {
			t.Errorf("%d map types are said to be of %s or older, which has %d", maps, version, n)
		}
		helpers := enumNumbers(k, "bpf_func_id", "BPF_FUNC_")
		for _, r := range since["helper"] {
			_, first := helpers[r[1]]
			_, last := helpers[r[2]]
			if old := number(t, r[0]) <= limit; first != old || last != old {
				t.Errorf("helpers %s to %s are said to be of %s, but Linux %s has them: %v, %v", r[1], r[2], r[0], version, first, last)
			}
		}
	}
}

func number(t *testing.T, version string) int {
	t.Helper()
	major, minor, ok := strings.Cut(version, ".")
	if !ok || len(major) != 1 || len(minor) > 2 {
		t.Fatalf("%q is no version", version)
	}
	n := int(major[0]-'0') << 8
	m := 0
	for _, c := range minor {
		m = m*10 + int(c-'0')
	}
	return n | m
}

func TestEval(t *testing.T) {
	s := newScope()
	s.header(stripComments(`
#define A 0x10 /* sixteen */
#define B (A | 1)
#  define C (B << 4)
#define BIT(n) (1UL << (n))
#define D BIT(5)
#define E ((unsigned int)~0)
#define F sizeof(int)
#define LOOP1 LOOP2
#define LOOP2 LOOP1
#define A 99
enum named { X, Y = 5, Z, W = Y + A, V };
`))
	for name, want := range map[string]int64{
		"A": 16, "B": 17, "C": 272, "D": 32, "E": -1, "X": 0, "Y": 5, "Z": 6, "W": 21, "V": 22,
	} {
		if got, ok := s.value(name); !ok || got != want {
			t.Errorf("%s is %d, %v, want %d", name, got, ok, want)
		}
	}
	for _, name := range []string{"F", "LOOP1", "LOOP2", "NONE"} {
		if got, ok := s.value(name); ok {
			t.Errorf("%s is %d, want no value", name, got)
		}
	}
}
