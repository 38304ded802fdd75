//go:build linux

package main

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// startup measures whole runs.
func (b *bencher) startup(string) error {
	b.head("From start to exit", "script, what")
	for _, script := range []string{
		`BEGIN { exit(); }`,
		`tracepoint:syscalls:sys_enter_openat { @[comm] = count(); } interval:ms:100 { exit(); }`,
		`BEGIN { $t = (struct task_struct *)curtask; printf("%d %d\n", $t->pid, $t->tgid); exit(); }`,
	} {
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

func (b *bencher) list(string) error {
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
func (b *bencher) size(string) error {
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

// A tracer is a peer that runs a script.
type tracer struct {
	cmd      *exec.Cmd
	stdout   *bufio.Reader
	stderr   bytes.Buffer
	attached time.Duration
}

const notify = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"

// start runs a script until it is attached.
func start(p peer, script string) (*tracer, error) {
	t := &tracer{}
	args := p.run(script)
	t.cmd = exec.Command(args[0], args[1:]...)
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	t.cmd.Env = append(os.Environ(), notify+"=1")
	t.cmd.Stderr = &t.stderr
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	t.stdout = bufio.NewReaderSize(out, 1<<20)
	begin := time.Now()
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	for {
		line, err := t.stdout.ReadString('\n')
		if strings.Contains(line, notify) {
			t.attached = time.Since(begin)
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%q ended before it was attached: %w\n%s", args, errors.Join(err, t.cmd.Wait()), t.stderr.Bytes())
		}
	}
}

// stop interrupts a tracer and waits for its end; what it still prints is
// thrown away.
func (t *tracer) stop() (time.Duration, error) {
	begin := time.Now()
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, t.stdout)
	err := t.cmd.Wait()
	return time.Since(begin), err
}

func (b *bencher) attach(string) error {
	script := `tracepoint:syscalls:sys_enter_* { @[probe] = count(); }`
	b.head("Attaching and detaching all system calls: `"+script+"`", "what")
	type pair struct{ on, off time.Duration }
	all := make([][]pair, len(b.peers))
	for range max(1, b.reps/5) {
		for i, p := range b.peers {
			t, err := start(p, script)
			if err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
			off, err := t.stop()
			if err != nil {
				return err
			}
			all[i] = append(all[i], pair{t.attached, off})
		}
	}
	var on, off []float64
	for _, list := range all {
		on = append(on, float64(median(list, func(p pair) time.Duration { return p.on }))/1e6)
		off = append(off, float64(median(list, func(p pair) time.Duration { return p.off }))/1e6)
	}
	row(&b.out, "from start to attached, ms", on, "%.0f")
	row(&b.out, "from SIGINT to exit, ms", off, "%.0f")
	return nil
}

// generate makes n system calls, at a rate or as fast as it goes, and prints
// the nanoseconds of one.
func generate(n, rate int) {
	begin := time.Now()
	if rate == 0 {
		for range n {
			_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		}
		fmt.Println(time.Since(begin).Nanoseconds() / int64(n))
		return
	}
	for done := 0; done < n; {
		due := int(time.Since(begin).Seconds() * float64(rate))
		for ; done < min(due, n); done++ {
			_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0)
		}
		time.Sleep(100 * time.Microsecond)
	}
	fmt.Println(time.Since(begin).Nanoseconds() / int64(n))
}

// perCall runs the load and returns nanoseconds per system call.
func (b *bencher) perCall(n, rate int) (float64, error) {
	out, err := exec.Command(b.self, "-load", strconv.Itoa(n), "-rate", strconv.Itoa(rate)).Output()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
}

// cost is what tracing adds to a system call.
func (b *bencher) cost(string) error {
	const calls = 300_000
	b.head("Nanoseconds added to a system call (getppid)", "script")
	for _, script := range []string{
		`tracepoint:syscalls:sys_enter_getppid { @ = count(); }`,
		`tracepoint:syscalls:sys_enter_getppid { @[comm] = count(); }`,
		`tracepoint:syscalls:sys_enter_getppid { printf("%d %s\n", pid, comm); }`,
		`rawtracepoint:sys_enter { @ = count(); }`,
	} {
		added := make([][]float64, len(b.peers))
		for range max(3, b.reps/2) {
			for i, p := range b.peers {
				bare, err := b.perCall(calls, 0)
				if err != nil {
					return err
				}
				t, err := start(p, script)
				if err != nil {
					return err
				}
				go func() { _, _ = io.Copy(io.Discard, t.stdout) }()
				traced, err := b.perCall(calls, 0)
				if err != nil {
					return err
				}
				if _, err := t.stop(); err != nil {
					return err
				}
				added[i] = append(added[i], traced-bare)
			}
		}
		var values []float64
		for _, list := range added {
			values = append(values, median(list, func(v float64) float64 { return v }))
		}
		row(&b.out, "`"+script+"`", values, "%.0f")
	}
	return nil
}

// rate finds the highest number of printed events a second without loss.
func (b *bencher) rate(string) error {
	script := `tracepoint:syscalls:sys_enter_getppid /comm == "bench"/ { printf("%d %s\n", pid, comm); }`
	b.head("Printed events a second without loss", "script")
	var values []float64
	for _, p := range b.peers {
		best := 0
		for rate := 25_000; rate <= 3_200_000; rate = rate * 3 / 2 {
			n := rate // one second
			got, took, err := b.printed(p, script, n, rate)
			if err != nil {
				return err
			}
			if got < n || took > 1.2 {
				break
			}
			best = rate
		}
		values = append(values, float64(best))
	}
	row(&b.out, "`"+script+"`", values, "%.0f")
	return nil
}

// printed counts the lines that a tracer prints of n events, and tells how
// many seconds the events took.
func (b *bencher) printed(p peer, script string, n, rate int) (lines int, took float64, err error) {
	t, err := start(p, script)
	if err != nil {
		return 0, 0, err
	}
	counted := make(chan int)
	go func() {
		count := 0
		for {
			line, err := t.stdout.ReadSlice('\n')
			if bytes.HasSuffix(line, []byte(" bench\n")) {
				count++
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		counted <- count
	}()
	ns, err := b.perCall(n, rate)
	if err != nil {
		return 0, 0, err
	}
	time.Sleep(300 * time.Millisecond)
	if err := t.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return 0, 0, err
	}
	lines = <-counted
	return lines, ns * float64(n) / 1e9, t.cmd.Wait()
}
