//go:build linux

package main

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// startup measures whole runs.
func (b *bencher) startup() error {
	b.head("From start to exit", "script, what")
	for _, script := range []string{
		`BEGIN { exit(); }`,
		`tracepoint:syscalls:sys_enter_openat { @[comm] = count(); } interval:ms:100 { exit(); }`,
		`tracepoint:syscalls:sys_enter_openat { @[str(args->filename)] = count(); } interval:ms:100 { exit(); }`,
		`BEGIN { $t = (struct task_struct *)curtask; printf("%d %d\n", $t->pid, $t->tgid); exit(); }`,
	} {
		progress("  %s", script)
		m, err := b.compare(func(p peer) []string { return p.run(script) })
		if err != nil {
			return err
		}
		name := "`" + strings.ReplaceAll(script, "|", "\\|") + "`"
		row(&b.out, name+" wall, ms", seconds(m, func(s sample) time.Duration { return s.wall }), "%.1f")
		row(&b.out, "CPU, ms", seconds(m, func(s sample) time.Duration { return s.cpu }), "%.1f")
		row(&b.out, "peak memory, MiB", memory(m), "%.1f")
	}
	return nil
}

func memory(list []sample) []float64 {
	values := make([]float64, len(list))
	for i, s := range list {
		values[i] = float64(s.rss) / 1024
	}
	return values
}

func (b *bencher) list() error {
	b.head("Listing all tracepoints", "what")
	m, err := b.compare(func(p peer) []string { return p.list })
	if err != nil {
		return err
	}
	row(&b.out, "`skep list 'tracepoint:*'`, `bpftrace -l 'tracepoint:*'` wall, ms", seconds(m, func(s sample) time.Duration { return s.wall }), "%.1f")
	row(&b.out, "CPU, ms", seconds(m, func(s sample) time.Duration { return s.cpu }), "%.1f")
	row(&b.out, "peak memory, MiB", memory(m), "%.1f")
	return nil
}

// size compares what has to be there for a tracer to run: its file, and the
// libraries that the loader maps.
func (b *bencher) size() error {
	b.head("Size on disk, with libraries", "what")
	var values []float64
	for _, p := range b.peers {
		n, err := footprint(p.list[0])
		if err != nil {
			return err
		}
		values = append(values, float64(n)/1e6)
	}
	row(&b.out, "MB", values, "%.1f")
	return nil
}

func footprint(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	total := st.Size()
	f, err := elf.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if libs, err := f.ImportedLibraries(); err != nil || len(libs) == 0 {
		return total, nil
	}
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return 0, fmt.Errorf("ldd %s: %w", path, err)
	}
	for line := range strings.Lines(string(out)) {
		for field := range strings.FieldsSeq(line) {
			if strings.HasPrefix(field, "/") {
				if st, err := os.Stat(field); err == nil {
					total += st.Size()
				}
			}
		}
	}
	return total, nil
}
