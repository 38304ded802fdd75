package object

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/internal/testenv"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func writeFile(t *testing.T, o *Object) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "object.o")
	if err := os.WriteFile(path, marshal(t, o), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// mountBPF mounts a bpffs for the time of the test.
func mountBPF(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		testenv.Skip(t, testenv.Root, "mounting a bpf file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// TestBpftoolLoads loads objects by bpftool, which relocates and loads through
// libbpf.
func TestBpftoolLoads(t *testing.T) {
	testenv.NeedBPF(t)
	bpftool := testenv.NeedTool(t, "bpftool")
	for name, sample := range map[string]func() *Object{"counter": counterObject, "rich": richObject} {
		t.Run(name, func(t *testing.T) {
			o := sample()
			dir := filepath.Join(mountBPF(t), "progs")
			run(t, bpftool, "prog", "loadall", writeFile(t, o), dir)
			for _, f := range o.Funcs {
				if f.Section == "" {
					continue
				}
				var prog struct {
					Name string
					Type string
				}
				out := run(t, bpftool, "-j", "prog", "show", "pinned", filepath.Join(dir, f.Name))
				if err := json.Unmarshal([]byte(out), &prog); err != nil {
					t.Fatal(err)
				}
				if prog.Name != f.Name || prog.Type != "raw_tracepoint" {
					t.Errorf("%s was loaded as %+v", f.Name, prog)
				}
			}
			if name == "counter" {
				return
			}
			code := run(t, bpftool, "prog", "dump", "xlated", "pinned", filepath.Join(dir, "enter"), "linum")
			want := kernelOffset(t, "task_struct", "tgid")
			if !strings.Contains(code, "r3 += "+strconv.Itoa(want)) {
				t.Errorf("the offset of tgid was not made %d:\n%s", want, code)
			}
			if !strings.Contains(code, "[file:sample.bt line_num:3 line_col:37]") {
				t.Errorf("no lines:\n%s", code)
			}
		})
	}
}

func kernelOffset(t *testing.T, typ, member string) int {
	t.Helper()
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var s *btf.Struct
	if err := spec.TypeByName(typ, &s); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.Members {
		if m.Name == member {
			return int(m.Offset.Bytes())
		}
	}
	t.Fatalf("%s has no member %s", typ, member)
	return 0
}

// TestLibbpfLoads opens, loads and runs an object by a C program of a few lines.
func TestLibbpfLoads(t *testing.T) {
	testenv.NeedBPF(t)
	cc := testenv.NeedTool(t, "gcc")
	loader := filepath.Join(t.TempDir(), "loader")
	if out, err := exec.Command(cc, "-o", loader, filepath.Join("testdata", "loader.c"), "-lbpf").CombinedOutput(); err != nil {
		testenv.Skip(t, testenv.Tool, "no libbpf; apt-get install libbpf-dev: %s", out)
	}
	out := run(t, loader, writeFile(t, counterObject()), "count_reads", "AT_reads")
	if n, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || n < 100 {
		t.Errorf("100 system calls were counted as %q", out)
	}
	// The rich object fills .bss with the process's number.
	out = run(t, loader, writeFile(t, richObject()), "enter", ".bss")
	if n, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || n <= 0 {
		t.Errorf("the last process to make a system call was %q", out)
	}
}

// TestCiliumLoads loads and runs objects by package ebpf.
func TestCiliumLoads(t *testing.T) {
	testenv.NeedBPF(t)
	spec, err := ToCollectionSpec(richObject())
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	defer coll.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: coll.Programs["enter"]})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		unix.Getppid()
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var total uint64
	if err := coll.Variables["total"].Get(&total); err != nil || total == 0 {
		t.Errorf("no process made a system call: %d, %v", total, err)
	}
}

// TestVerifierLog checks that the verifier shows the author's lines.
func TestVerifierLog(t *testing.T) {
	testenv.NeedBPF(t)
	o := counterObject()
	f := o.Funcs[0]
	f.Insns[8].Off = 8 // behind the value
	spec, err := ToCollectionSpec(o)
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err == nil {
		coll.Close()
		t.Fatal("a program that writes behind a value was loaded")
	}
	var verifier *ebpf.VerifierError
	if !errors.As(err, &verifier) {
		t.Fatal(err)
	}
	log := strings.Join(verifier.Log, "\n")
	if !regexp.MustCompile(`; tracepoint:raw_syscalls:sys_enter \{ @reads\[pid\] = count\(\); \}`).MatchString(log) {
		t.Errorf("the log does not show the line:\n%s", log)
	}
}

// TestTools compares what LLVM's and bpftool's dumps show with the object.
func TestTools(t *testing.T) {
	path := writeFile(t, richObject())
	readelf := testenv.NeedTool(t, "llvm-readelf")
	objdump := testenv.NeedTool(t, "llvm-objdump")
	bpftool := testenv.NeedTool(t, "bpftool")

	out := run(t, readelf, "-hSsrW", path)
	for _, want := range []string{
		`Machine: +EM_BPF`, `Type: +REL`, `raw_tp/sys_enter +PROGBITS .* AX `, `\.maps +PROGBITS .* WA `, `\.bss +NOBITS`,
		`R_BPF_64_64 .* total`, `R_BPF_64_32 .* add`, `R_BPF_64_ABS64 .* first`,
		`FUNC +GLOBAL DEFAULT +\d+ enter`, `FUNC +LOCAL +DEFAULT +\d+ leaf`, `NOTYPE +WEAK +DEFAULT +UND no_such_symbol_here`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("readelf does not show %q:\n%s", want, out)
		}
	}
	compareDisassembly(t, objdump, path)

	out = run(t, bpftool, "btf", "dump", "file", path)
	for _, want := range []string{
		`FUNC 'enter' type_id=\d+ linkage=global`, `FUNC 'leaf' type_id=\d+ linkage=static`, `DATASEC '\.maps' size=160 vlen=5`,
		`VAR 'last' type_id=\d+, linkage=static`, `VAR 'schedule' type_id=0, linkage=extern`,
		`'low' type_id=\d+ bits_offset=128 bitfield_size=3`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("bpftool does not show %q:\n%s", want, out)
		}
	}
}
