//go:build linux

package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// tables are all that is measured, in the order in which they are shown.
var tables = []table{
	{"startup", (*bencher).startup},
	{"list", (*bencher).list},
	{"size", (*bencher).size},
	{"cost", (*bencher).cost},
	{"rate", (*bencher).rate},
	{"attach", (*bencher).attach},
	{"hooks", (*bencher).hooks},
	{"code", (*bencher).code},
}

// A table is one measurement; make appends it to b.out.
type table struct {
	name string
	make func(b *bencher) error
}

func main() {
	file := flag.String("write", "", "put the tables into `FILE`, between its bench markers; those that -only leaves out stay")
	reps := flag.Int("n", 10, "repetitions, interleaved; medians are shown; dear measurements take fewer")
	var names []string
	for _, t := range tables {
		names = append(names, t.name)
	}
	only := flag.String("only", "", "comma-separated `list` of tables: "+strings.Join(names, ", "))
	costs := flag.String("hook-costs", "", "internal: print what the hooks of this comma-separated `list` cost, as JSON")
	dir := flag.String("tools", "", "internal: the directory of skep and load, for -hook-costs")
	flag.Parse()
	// Children die with the thread that started them, and see its mounts: this
	// one's.
	runtime.LockOSThread()
	var err error
	if *costs != "" {
		err = printHookCosts(*dir, strings.Split(*costs, ","))
	} else {
		err = bench(*file, *reps, *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A peer is a tracer that is measured.
type peer struct {
	name string
	run  func(script string) []string // the command that runs a script
	list []string
}

// skepIn is the skep that build made.
func skepIn(dir string) peer {
	skep := filepath.Join(dir, "skep")
	return peer{
		name: "skep", list: []string{skep, "list", "tracepoint:*"},
		run: func(script string) []string { return []string{skep, "run", "-e", script} },
	}
}

type bencher struct {
	dir   string // with skep, the load and this program
	peers []peer
	reps  int
	out   bytes.Buffer
}

// progress tells on standard error what is being done.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// build makes what is measured, and what measures it, in a directory.
func build(dir string) error {
	if _, err := exec.LookPath("clang"); err != nil {
		return errors.New("clang is missing, which compiles the load: apt-get install clang libc6-dev")
	}
	for _, args := range [][]string{
		{"go", "build", "-trimpath", "-ldflags", "-s -w", "-o", dir, module + "/cmd/skep"},
		{"go", "build", "-trimpath", "-o", dir, module + "/internal/bench"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
	}
	src := filepath.Join(dir, "load.c")
	if err := os.WriteFile(src, loadSource, 0o644); err != nil {
		return err
	}
	cmd := exec.Command("clang", "-O2", "-static", "-o", filepath.Join(dir, loadName), src)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

const module = "github.com/skep-bpf/skep"

func bench(file string, reps int, only string) error {
	for name := range strings.SplitSeq(only, ",") {
		if only != "" && !slices.ContainsFunc(tables, func(t table) bool { return t.name == name }) {
			return fmt.Errorf("there is no table %q", name)
		}
	}
	dir, err := os.MkdirTemp("", "skep-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	progress("building skep")
	if err := build(dir); err != nil {
		return err
	}
	if err := mountTracefs(); err != nil {
		return err
	}
	b := &bencher{dir: dir, reps: max(reps, 1), peers: []peer{skepIn(dir)}}
	version := "no bpftrace in PATH"
	if path, err := exec.LookPath("bpftrace"); err == nil {
		b.peers = append(b.peers, peer{
			name: "bpftrace", list: []string{path, "-l", "tracepoint:*"},
			run: func(script string) []string { return []string{path, "-e", script} },
		})
		if out, err := exec.Command(path, "-V").Output(); err == nil {
			version = strings.TrimSpace(string(out))
		}
	}
	var uts syscall.Utsname
	_ = syscall.Uname(&uts)
	for _, t := range tables {
		if only != "" && !slices.Contains(strings.Split(only, ","), t.name) {
			continue
		}
		began := time.Now()
		progress("%s", t.name)
		b.out.Reset()
		if err := t.make(b); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		fmt.Fprintf(&b.out, "\nLinux %s, %d CPUs, %s; `go run ./internal/bench -only %s -n %d`.\n",
			release(uts), runtime.NumCPU(), version, t.name, b.reps)
		progress("%s took %.0f s", t.name, time.Since(began).Seconds())
		os.Stdout.Write(b.out.Bytes())
		if file != "" {
			if err := insert(file, map[string]string{t.name: b.out.String()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// mountTracefs gives the tracers the tracefs that bpftrace looks for, in a
// mount namespace of this thread and of what it starts.
func mountTracefs() error {
	const dir = "/sys/kernel/tracing"
	if _, err := os.Stat(dir + "/available_events"); err == nil {
		return nil
	}
	if err := syscall.Unshare(syscall.CLONE_NEWNS); err != nil {
		return fmt.Errorf("a mount namespace cannot be made (root is needed): %w", err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("/ cannot be made private: %w", err)
	}
	if err := syscall.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
		return fmt.Errorf("tracefs cannot be mounted at %s: %w", dir, err)
	}
	return nil
}

func release(u syscall.Utsname) string {
	var s []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		s = append(s, byte(c))
	}
	return string(s)
}

const (
	beginMark = "<!-- bench:begin -->"
	endMark   = "<!-- bench:end -->"
)

// insert puts tables between the markers of a file, which gets them at its end
// where it has none.
func insert(file string, made map[string]string) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	result, err := between(string(data), made)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(result), 0o644)
}

// between returns a page with tables in place of those that it has of the same
// names. Each stands behind a marker of its own.
func between(page string, made map[string]string) (string, error) {
	if !strings.Contains(page, beginMark) && !strings.Contains(page, endMark) {
		page += "\n## Measurements\n\n" + beginMark + "\n" + endMark + "\n"
	}
	before, rest, ok := strings.Cut(page, beginMark)
	old, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", fmt.Errorf("its markers %s and %s are not in order", beginMark, endMark)
	}
	text := beginMark + "\n\nMedians of interleaved runs on one machine, beside bpftrace. `make bench` makes all of it.\n"
	for _, t := range tables {
		mark := "<!-- bench:" + t.name + " -->"
		section, ok := made[t.name]
		if !ok {
			_, section, _ = strings.Cut(old, mark)
			section, _, _ = strings.Cut(section, "<!-- bench:")
		}
		if section = strings.TrimSpace(section); section != "" {
			text += "\n" + mark + "\n\n" + section + "\n"
		}
	}
	return before + text + "\n" + endMark + after, nil
}

// A sample is what one run took.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // KiB
}

// measure runs a command to its end.
func measure(args []string) (sample, error) {
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("%q: %w\n%s", args, err, stderr.Bytes())
	}
	wall := time.Since(start)
	use := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return sample{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), use.Maxrss}, nil
}

// compare measures the same thing with every peer, interleaved, and returns
// the medians by peer.
func (b *bencher) compare(args func(peer) []string) ([]sample, error) {
	all := make([][]sample, len(b.peers))
	for n := range b.reps {
		progress("  run %d of %d", n+1, b.reps)
		for i, p := range b.peers {
			s, err := measure(args(p))
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], s)
		}
	}
	medians := make([]sample, len(b.peers))
	for i, samples := range all {
		medians[i] = sample{
			wall: median(samples, func(s sample) time.Duration { return s.wall }),
			cpu:  median(samples, func(s sample) time.Duration { return s.cpu }),
			rss:  median(samples, func(s sample) int64 { return s.rss }),
		}
	}
	return medians, nil
}

func median[S any, T time.Duration | int64 | float64](list []S, of func(S) T) T {
	values := make([]T, len(list))
	for i, s := range list {
		values[i] = of(s)
	}
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// row writes one line of a table: what, then a value of each peer, then the
// ratio of the first to the second.
func row(w *bytes.Buffer, what string, values []float64, format string) {
	fmt.Fprintf(w, "| %s |", what)
	for _, v := range values {
		fmt.Fprintf(w, " "+format+" |", v)
	}
	if len(values) > 1 && values[1] > 0 {
		fmt.Fprintf(w, " %.3f |", values[0]/values[1])
	}
	w.WriteByte('\n')
}

func (b *bencher) head(title, what string) {
	fmt.Fprintf(&b.out, "\n### %s\n\n| %s |", title, what)
	for _, p := range b.peers {
		fmt.Fprintf(&b.out, " %s |", p.name)
	}
	if len(b.peers) > 1 {
		b.out.WriteString(" ratio |")
	}
	b.out.WriteString("\n|---|")
	for range b.peers {
		b.out.WriteString("---:|")
	}
	if len(b.peers) > 1 {
		b.out.WriteString("---:|")
	}
	b.out.WriteByte('\n')
}

func seconds(list []sample, of func(sample) time.Duration) []float64 {
	values := make([]float64, len(list))
	for i, s := range list {
		values[i] = float64(of(s)) / 1e6
	}
	return values
}
