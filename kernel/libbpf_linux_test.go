package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/machine"
)

// A build is what tests compile from testdata, once, and guests get.
type build struct {
	libbpf   string // an object
	noKsyms  string // the same without kernel symbols
	usdtArgs string // an object
	usdt     string // a program
	files    guest.Files
	err      error
	text     []byte
}

// In guests the same files have these names.
var guestBuild = build{libbpf: "/skep-libbpf.o", noKsyms: "/skep-noksyms.o", usdtArgs: "/skep-usdtargs.o", usdt: "/skep-usdt"}

var buildDir string // removed by TestMain

// compileAll builds testdata with clang.
var compileAll = sync.OnceValue(func() *build {
	b := &build{files: guest.Files{}}
	if buildDir, b.err = os.MkdirTemp("", "skep-kernel-test"); b.err != nil {
		return b
	}
	clang, err := exec.LookPath("clang")
	if err != nil {
		b.err = err
		return b
	}
	run := func(out string, args ...string) string {
		out = filepath.Join(buildDir, out)
		if b.err == nil {
			b.text, b.err = exec.Command(clang, append(args, "-o", out)...).CombinedOutput()
		}
		return out
	}
	bpf := []string{
		"-target", "bpf", "-mcpu=v3", "-O2", "-g", "-c", "-D__TARGET_ARCH_x86",
		"-I/usr/include/x86_64-linux-gnu", "-I/usr/include/aarch64-linux-gnu",
	}
	bpf = slices.Clip(bpf)
	b.libbpf = run("libbpf.o", append(bpf, "testdata/libbpf.c")...)
	b.noKsyms = run("noksyms.o", append(bpf, "testdata/libbpf.c", "-DNO_KSYMS")...)
	b.usdtArgs = run("usdtargs.o", append(bpf, "testdata/usdtargs.c")...)
	b.usdt = run("usdt", "-O2", "testdata/usdt.c")
	return b
})

// built returns what is compiled from testdata, as the machine that the test
// runs on has it.
func built(t testing.TB) *build {
	t.Helper()
	if testenv.InGuest() != "" {
		return &guestBuild
	}
	testenv.NeedTool(t, "clang")
	b := compileAll()
	if b.err != nil {
		t.Fatalf("%v\n%s", b.err, b.text)
	}
	return b
}

// matrix runs body on the live kernel and in guests, of which there is one for
// all tests here: with what is compiled from testdata where clang is there, LSM
// programs, some modules, and one CPU. Attaching patches the kernel's code, and
// QEMU without KVM now and then executes the breakpoint that other CPUs are to
// be kept off with, which is the end of the guest; with one CPU it cannot.
func matrix(t *testing.T, body func(t *testing.T)) {
	t.Helper()
	guest.Matrix(t, guestConfig(t), body)
}

func guestConfig(t *testing.T) guest.Config {
	t.Helper()
	cfg := guest.Config{Cmdline: "lsm=lockdown,capability,bpf", Modules: []string{"tun", "bridge"}}
	if testenv.InGuest() == "" {
		if b := compileAll(); b.err == nil {
			cfg.Files = guest.Program(t, b.usdt)
			delete(cfg.Files, b.usdt)
			cfg.Files.Add(guest.Files{guestBuild.libbpf: b.libbpf, guestBuild.noKsyms: b.noKsyms, guestBuild.usdtArgs: b.usdtArgs, guestBuild.usdt: b.usdt})
		}
	}
	return cfg
}

// TestLibbpfObject loads what clang makes of C in libbpf's style, with
// everything that a loader has to fill in.
func TestLibbpfObject(t *testing.T) {
	b := built(t)
	matrix(t, func(t *testing.T) {
		needKernel(t)
		testLibbpf(t, b.libbpf)
	})
}

func testLibbpf(t *testing.T, path string) {
	elf, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l, err := New().Load(t.Context(), elf, machine.LoadOptions{Vars: map[string][]byte{"rounds": {4, 0, 0, 0}}})
	if err != nil {
		var ve *VerifierError
		if errors.As(err, &ve) {
			t.Log(ve.Log)
		}
		t.Fatal(err)
	}
	defer l.Close()
	r, err := l.Records("events")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ret, err := l.Run("all")
	if err != nil {
		t.Fatal(err)
	}
	v, err := l.Var("out")
	if err != nil {
		t.Fatal(err)
	}
	b, err := v.Get()
	if err != nil {
		t.Fatal(err)
	}
	u32 := func(off int) uint64 { return uint64(binary.NativeEndian.Uint32(b[off:])) }
	u64 := func(off int) uint64 { return binary.NativeEndian.Uint64(b[off:]) }
	release := liveTarget(t).Release()
	task, err := needTypes(t).Struct("task_struct")
	if err != nil {
		t.Fatal(err)
	}
	// Guests come without their configuration.
	_, configErr := kernelConfig()
	for _, c := range []struct {
		what      string
		have, got uint64
	}{
		{"the tail call's result", 5, uint64(ret)},
		{"tgid", uint64(os.Getpid()), u32(4)},
		{"version", uint64(release.Code()), u32(8)},
		{"CONFIG_BPF_SYSCALL", boolValue(configErr == nil), uint64(b[12])},
		{"CONFIG_NO_SUCH_THING", 0, uint64(b[13])},
		{"has pid", 1, uint64(b[14])},
		{"has another", 0, uint64(b[15])},
		{"BPF_MAP_TYPE_HASH", 1, u64(16)},
		{"BPF_MAP_TYPE_NONESUCH", 7, u64(24)},
		{"no_such_symbol", 0, u64(40)},
		{"loops", 4 * 3, u64(48)},
		{"tail calls", 1, u64(56)},
		{"size of task_struct", uint64(task.Size), u64(64)},
	} {
		if c.have != c.got {
			t.Errorf("%s is %d, want %d", c.what, c.got, c.have)
		}
	}
	if u64(32)>>63 != 1 {
		t.Errorf("schedule is at %#x", u64(32))
	}
	comm, _ := os.ReadFile("/proc/self/task/" + itoa(u32(0)) + "/comm")
	if got := cut(b[72:88]); len(comm) > 0 && got != strings.TrimSpace(string(comm)) {
		t.Errorf("comm is %q, want %q", got, comm)
	}
	m, err := l.Map("entries")
	if err != nil {
		t.Fatal(err)
	}
	entry, err := m.Lookup(b[:4])
	if err != nil || binary.NativeEndian.Uint64(entry) != 12 {
		t.Errorf("entry %x, %v", entry, err)
	}
	if m, err = l.Map("second"); err != nil {
		t.Fatal(err)
	}
	if value, err := m.Lookup(make([]byte, 4)); err != nil || value[0] != 11 {
		t.Errorf("element of the second map %x, %v", value, err)
	}
	r.SetDeadline(time.Now().Add(time.Second))
	if rec, err := r.Read(); err != nil || !bytes.HasPrefix(rec, entry) {
		t.Errorf("record %x, %v, want %x", rec, err, entry)
	}
	// A field that there is not is named, with the line that wants it.
	_, err = l.Run("missing")
	var ve *VerifierError
	if !errors.As(err, &ve) || ve.Reason != "the kernel has no field no_such_field in struct task_struct" || !strings.HasSuffix(ve.Where.File, "libbpf.c") || ve.Where.Row == 0 {
		t.Errorf("a missing field: %v", err)
	}
}

func itoa(n uint64) string { return string(appendDecimal(nil, n)) }

// BenchmarkLoad compares with what package ebpf takes for the same object.
func BenchmarkLoad(b *testing.B) {
	needKernel(b)
	big, err := os.ReadFile(built(b).noKsyms)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		elf  []byte
	}{
		{"one tracepoint", elfOf(b, newCounter().program("prog", "tp/syscalls/sys_enter_getsid", false, 0).o)},
		{"typed", elfOf(b, newCounter().program("prog", "tp_btf/sched_switch", false, 0).o)},
		{"libbpf", big},
	} {
		b.Run(c.name+"/skep", func(b *testing.B) {
			for b.Loop() {
				l, err := New().Load(b.Context(), c.elf, machine.LoadOptions{})
				if err != nil {
					b.Fatal(err)
				}
				l.Close()
			}
			cpuTime(b)
		})
		b.Run(c.name+"/ebpf", func(b *testing.B) {
			for b.Loop() {
				spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(c.elf))
				if err != nil {
					b.Fatal(err)
				}
				delete(spec.Programs, "missing")
				coll, err := ebpf.NewCollection(spec)
				if err != nil {
					b.Fatal(err)
				}
				coll.Close()
			}
			cpuTime(b)
		})
	}
}

func cpuTime(b *testing.B) {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	b.ReportMetric(float64(u.Maxrss), "peakKB")
}
