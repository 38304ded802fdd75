//go:build linux

package main

import (
	"bytes"
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

func main() {
	file := flag.String("write", "", "put the tables into `FILE`, between its bench markers")
	reps := flag.Int("n", 10, "repetitions, interleaved; medians are shown")
	only := flag.String("only", "", "comma-separated list of tables: startup, list, size, cost, rate, attach, code")
	built := flag.String("skep", "", "measure this `BINARY` of skep instead of building one")
	load := flag.Int("load", 0, "internal: make this many system calls, then say how long they took")
	rate := flag.Int("rate", 0, "internal: with -load, so many a second")
	flag.Parse()
	// Children die with the thread that started them: this one.
	runtime.LockOSThread()
	if *load > 0 {
		generate(*load, *rate)
		return
	}
	if err := bench(*file, *built, *reps, *only); err != nil {
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

type bencher struct {
	self  string
	peers []peer
	reps  int
	out   bytes.Buffer
}

func bench(file, skep string, reps int, only string) error {
	dir, err := os.MkdirTemp("", "skep-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if skep == "" {
		skep = filepath.Join(dir, "skep")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", skep, "./cmd/skep")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", build, err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bencher{self: self, reps: reps, peers: []peer{{
		name: "skep", list: []string{skep, "list", "tracepoint:*"},
		run: func(script string) []string { return []string{skep, "run", "-e", script} },
	}}}
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
	fmt.Fprintf(&b.out, "Measured on Linux %s, %d CPUs, against %s; medians of %d interleaved runs.\nMade by `make bench`.\n",
		release(uts), runtime.NumCPU(), version, reps)
	tables := []struct {
		name string
		make func(dir string) error
	}{
		{"startup", b.startup},
		{"list", b.list},
		{"size", b.size},
		{"cost", b.cost},
		{"rate", b.rate},
		{"attach", b.attach},
		{"code", b.code},
	}
	for _, t := range tables {
		if only != "" && !slices.Contains(strings.Split(only, ","), t.name) {
			continue
		}
		if err := t.make(skep); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	os.Stdout.Write(b.out.Bytes())
	if file == "" {
		return nil
	}
	return insert(file, b.out.String())
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

// insert replaces what stands between the markers of a file, which gets them at
// its end where it has none.
func insert(file, text string) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	result, err := between(string(data), text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(result), 0o644)
}

func between(page, text string) (string, error) {
	if !strings.Contains(page, beginMark) && !strings.Contains(page, endMark) {
		page += "\n## Measurements\n\n" + beginMark + "\n" + endMark + "\n"
	}
	before, rest, ok := strings.Cut(page, beginMark)
	old, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", fmt.Errorf("its markers %s and %s are not in order", beginMark, endMark)
	}
	return before + beginMark + "\n\n" + strings.TrimSpace(merge(old, text)) + "\n\n" + endMark + after, nil
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
	for range b.reps {
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
