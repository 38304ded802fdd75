package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A Feature is something that a test needs and that a machine may lack.
type Feature string

// Features of the surroundings: where they are missing, something can be
// installed or a privilege given, so no skip for them is ever right in CI.
const (
	Linux Feature = "linux" // any Linux at all
	Root  Feature = "root"  // effective user 0
	Tool  Feature = "tool"  // a program in PATH
	Guest Feature = "guest" // QEMU, and a kernel to boot in it
)

// Features of a kernel. Which guest has them is said by the table in this
// file; whether the live one has them is for the test to probe.
const (
	BPF              Feature = "bpf"                 // bpf(2)
	Tracefs          Feature = "tracefs"             // tracefs can be mounted
	Kprobe           Feature = "kprobe"              // kprobe and kretprobe
	KprobeMulti      Feature = "kprobe-multi"        // one link for many functions, since 5.18, CONFIG_FPROBE
	UprobeMulti      Feature = "uprobe-multi"        // since 6.6
	Fentry           Feature = "fentry"              // fentry, fexit, fmod_ret
	LSM              Feature = "lsm"                 // lsm=bpf
	Modules          Feature = "modules"             // loadable modules
	HardwareCounters Feature = "hardware-counters"   // a PMU behind perf_event_open
	Watchpoint       Feature = "hardware-watchpoint" // debug registers behind perf_event_open
	ErrorInjection   Feature = "error-injection"     // bpf_override_return
)

// onGuests names the guests of the matrix (by the value of SKEP_GUEST) that
// have a feature. A feature with no guest is tested up to the verifier's yes
// and skipped after that.
var onGuests = map[Feature][]string{
	Linux:            {"6.1", "6.12"},
	Root:             {"6.1", "6.12"},
	BPF:              {"6.1", "6.12"},
	Tracefs:          {"6.1", "6.12"},
	Kprobe:           {"6.1", "6.12"},
	KprobeMulti:      {"6.12"},
	UprobeMulti:      {"6.12"},
	Fentry:           {"6.1", "6.12"},
	LSM:              {"6.1", "6.12"},
	Modules:          {"6.1", "6.12"},
	HardwareCounters: {},
	Watchpoint:       {"6.1", "6.12"},
	ErrorInjection:   {},
}

// GuestEnv is the environment variable that holds the guest's kernel series
// ("6.1", "6.12") in processes that run inside a guest, and is unset elsewhere.
const GuestEnv = "SKEP_GUEST"

// CI reports whether skips are held against the run: CI=true.
func CI() bool { return os.Getenv("CI") == "true" }

// InGuest returns the series of the guest kernel that this process runs on,
// "6.1" for example, or "" outside guests.
func InGuest() string { return os.Getenv(GuestEnv) }

var matrix sync.Map // names of tests whose body runs on the guests as well

// OnMatrix declares that what tb is about to do on the live kernel is also
// done on every guest of the matrix, so that a feature which only the live
// kernel lacks may be skipped here.
func OnMatrix(tb testing.TB) { matrix.Store(tb.Name(), true) }

func onMatrix(name string) bool {
	for {
		if _, ok := matrix.Load(name); ok {
			return true
		}
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return false
		}
		name = name[:i]
	}
}

// Allowed reports whether a test may be skipped in CI for want of a feature:
// in a guest, if that guest is known to lack it; on the live kernel, if some
// guest has it and the same test runs there (onMatrix); anywhere, if it is a
// kernel feature that no guest has.
func Allowed(f Feature, guest string, onMatrix bool) bool {
	have, isKernel := onGuests[f]
	switch {
	case !isKernel:
		return false
	case len(have) == 0:
		return true
	case guest != "":
		return !slices.Contains(have, guest)
	}
	return onMatrix
}

// SkipMark begins the text of every skip that [Skip] allows; the report of
// the test command counts others as failures in CI.
const SkipMark = "skipped for want of "

// Skip skips tb because f is missing, saying why. Under CI=true it fails tb
// instead, unless [Allowed] says that the skip hides nothing.
func Skip(tb testing.TB, f Feature, format string, args ...any) {
	tb.Helper()
	why := SkipMark + string(f) + ": " + fmt.Sprintf(format, args...)
	if CI() && !Allowed(f, InGuest(), onMatrix(tb.Name())) {
		tb.Fatalf("%s (a failure under CI=true: a kernel of the matrix, or apt, has it)", why)
	}
	tb.Skip(why)
}

// NeedLinux skips tb on other systems.
func NeedLinux(tb testing.TB) {
	tb.Helper()
	if runtime.GOOS != "linux" {
		Skip(tb, Linux, "this is %s", runtime.GOOS)
	}
}

// NeedRoot skips tb unless it runs as root on Linux.
func NeedRoot(tb testing.TB) {
	tb.Helper()
	NeedLinux(tb)
	if uid := os.Geteuid(); uid != 0 {
		Skip(tb, Root, "running as user %d; run the tests as root to include it", uid)
	}
}

// packages names the Debian package of tools whose package is called otherwise.
var packages = map[string]string{
	"aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
	"llvm-objdump":          "llvm",
	"llvm-readelf":          "llvm",
	"llvm-strip":            "llvm",
	"objdump":               "binutils",
	"qemu-aarch64":          "qemu-user",
	"qemu-riscv64":          "qemu-user",
	"qemu-system-x86_64":    "qemu-system-x86",
	"readelf":               "binutils",
	"tc":                    "iproute2",
	"xz":                    "xz-utils",
}

// NeedTool returns the path of the program name, and skips tb where PATH has
// none, saying which Debian package brings it.
func NeedTool(tb testing.TB, name string) string {
	tb.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	// Debian keeps bpftool and friends where ordinary users do not look.
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	pkg := name
	if p, ok := packages[name]; ok {
		pkg = p
	}
	Skip(tb, Tool, "no %s in PATH; apt-get install %s", name, pkg)
	return ""
}
