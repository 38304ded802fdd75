//go:build linux

package guest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skep-bpf/skep/internal/testenv"
)

// A Kernel is one that a guest can boot.
type Kernel struct {
	Series  string // "6.1"
	Package string // the Debian metapackage that depends on its current build
}

// The kernels of the matrix: the floor, and the newer one.
var (
	Kernel61  = Kernel{"6.1", "linux-image-cloud-amd64"}
	Kernel612 = Kernel{"6.12", "linux-image-6.12-cloud-amd64"}
	Kernels   = []Kernel{Kernel61, Kernel612}
)

func (k Kernel) String() string { return "linux-" + k.Series }

// Files maps paths in the guest to files or directories of the host; a
// directory brings everything below it. Relative paths, on both sides, start
// at the directory of the test.
type Files map[string]string

// Add adds all of other to f and returns f.
func (f Files) Add(other Files) Files {
	maps.Copy(f, other)
	return f
}

// Config says how a guest is made. The zero value is a good one.
type Config struct {
	Files   Files         // in its file system from the start
	Modules []string      // loaded in this order, each after what it depends on
	Cmdline string        // added to the kernel's; what comes last wins, e.g. "lsm=lockdown,bpf"
	Memory  int           // MiB; 1024 if 0
	CPUs    int           // 2 if 0
	Timeout time.Duration // of each command that sets none; two minutes if 0
}

// key tells configurations apart, so that equal ones share a guest.
func (c Config) key() string {
	var files []string
	for _, p := range slices.Sorted(maps.Keys(c.Files)) {
		files = append(files, p+"="+c.Files[p])
	}
	return fmt.Sprintf("%q %q %q %d %d", files, c.Modules, c.Cmdline, c.Memory, c.CPUs)
}

func (c Config) timeout() time.Duration {
	if c.Timeout != 0 {
		return c.Timeout
	}
	return 2 * time.Minute
}

// Need skips tb where guests cannot run: they want a Linux host on amd64 and
// QEMU. Inside a guest it does nothing.
func Need(tb testing.TB) {
	tb.Helper()
	if testenv.InGuest() != "" {
		return
	}
	if runtime.GOARCH != "amd64" {
		testenv.Skip(tb, testenv.Guest, "guests are amd64, and run this very %s binary", runtime.GOARCH)
	}
	testenv.NeedTool(tb, qemu)
}

// Each runs body, which is part of the test t, on every guest kernel, as a
// subtest named after it. The test binary executes itself inside the guest
// with -test.run set to that subtest; body runs there, as root, and its
// verdict (pass, fail, skip) and log become the subtest's. Guests are shared
// between all tests of a binary that ask for the same cfg, so body cleans up
// after itself as it would on any machine.
//
// Nothing before or after the call to Each may need the guest, and the code
// leading to it runs inside as well.
func Each(t *testing.T, cfg Config, body func(t *testing.T)) {
	t.Helper()
	for _, k := range Kernels {
		t.Run(k.String(), func(t *testing.T) { Test(t, k, cfg, body) })
	}
}

// Matrix runs body on the live kernel, as a subtest named "live", and then
// like [Each]. What only the live kernel lacks may be skipped there with
// [testenv.Skip], since the guests make up for it.
func Matrix(t *testing.T, cfg Config, body func(t *testing.T)) {
	t.Helper()
	t.Run("live", func(t *testing.T) {
		testenv.OnMatrix(t)
		body(t)
	})
	Each(t, cfg, body)
}

// Test is [Each] for one kernel and without a subtest of its own.
func Test(t *testing.T, k Kernel, cfg Config, body func(t *testing.T)) {
	t.Helper()
	if in := testenv.InGuest(); in != "" {
		if in == k.Series {
			body(t)
		}
		return
	}
	s := Shared(t, k, cfg)
	timeout := cfg.timeout()
	args := []string{
		"/init", "-test.run=" + exactly(t.Name()), "-test.v", "-test.count=1",
		// The test's own timeout comes first: it prints all goroutines.
		"-test.timeout=" + (timeout - timeout/10).String(),
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	r, err := s.Run(Cmd{Args: args, Timeout: timeout})
	if err != nil {
		t.Fatalf("%s: %v", k, err)
	}
	log := string(r.Stdout)
	if len(r.Stderr) > 0 {
		log += "stderr:\n" + string(r.Stderr)
	}
	v, reason := verdict(t.Name(), string(r.Stdout))
	switch {
	case r.Code != 0 || v == "FAIL":
		t.Fatalf("%s: %s\n%s", k, r.status(), log)
	case v == "SKIP":
		t.Skipf("%s, inside %s", reason, k)
	case v != "PASS":
		t.Fatalf("%s: the test binary exited with 0 and never ran %s\n%s", k, t.Name(), log)
	}
	t.Logf("%s, %v:\n%s", k, r.Wall.Round(time.Millisecond), log)
}

// exactly returns the -test.run pattern for the one test of that name.
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

var (
	verdictRE  = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+)`)
	locationRE = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)
)

// verdict finds in the output of a test binary under -test.v how the test of
// that name ended ("PASS", "FAIL", "SKIP", or "" if it did not) and, if it was
// skipped, the last thing it logged.
func verdict(name, out string) (v, reason string) {
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if m := verdictRE.FindStringSubmatch(line); m != nil {
			if m[2] == name {
				return m[1], reason
			}
			continue
		}
		if loc := locationRE.FindString(line); loc != "" {
			reason = line[len(loc):]
		}
	}
	return "", ""
}

// Run boots a guest for one command and returns its result. It fails tb where
// the guest or the command could not be run at all; the exit code is for the
// caller to judge.
func Run(tb testing.TB, k Kernel, cfg Config, cmd Cmd) Result {
	tb.Helper()
	s := Boot(tb, k, cfg)
	r, err := s.Run(cmd)
	if err != nil {
		tb.Fatalf("%s: %v", k, err)
	}
	if err := s.Close(); err != nil {
		tb.Fatalf("%s: %v", k, err)
	}
	return r
}

// Program returns the files that running the host's program name (a path, or a
// name in PATH) takes in a guest: itself, its interpreter and its libraries,
// each at its own path. It skips tb where there is no such program. Inside a
// guest it returns nothing, since they are there.
func Program(tb testing.TB, name string) Files {
	tb.Helper()
	if testenv.InGuest() != "" {
		return Files{}
	}
	path := name
	if !strings.ContainsRune(name, filepath.Separator) {
		path = testenv.NeedTool(tb, name)
	}
	files, err := program(path)
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// executable returns the files of the running test binary, which guests have
// at /init.
func executable() (Files, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	files, err := program(exe)
	if err != nil {
		return nil, err
	}
	delete(files, exe)
	files["/init"] = exe
	return files, nil
}
