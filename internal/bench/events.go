//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math"
	"time"
)

func self(v float64) float64 { return v }

// cost is what tracing adds to a system call.
func (b *bencher) cost() error {
	b.head("Nanoseconds added to a system call (getppid)", "script")
	for _, script := range []string{
		`tracepoint:syscalls:sys_enter_getppid { @ = count(); }`,
		`tracepoint:syscalls:sys_enter_getppid { @[comm] = count(); }`,
		`tracepoint:syscalls:sys_enter_getppid { printf("%d %s\n", pid, comm); }`,
		`tracepoint:raw_syscalls:sys_enter { @ = count(); }`,
	} {
		progress("  %s", script)
		all := make([][]float64, len(b.peers))
		for n := range b.dear(2) {
			progress("  run %d of %d", n+1, b.dear(2))
			for i, p := range b.peers {
				ns, err := added(b.dir, p, script, "syscall", 100_000)
				if err != nil {
					return err
				}
				all[i] = append(all[i], ns)
			}
		}
		row(&b.out, "`"+script+"`", medians(all), "%.0f")
	}
	return nil
}

// dear is how often something is measured that takes n times as long as it
// should.
func (b *bencher) dear(n int) int { return max(b.reps/n, 1) }

func medians(all [][]float64) []float64 {
	var values []float64
	for _, list := range all {
		values = append(values, median(list, self))
	}
	return values
}

// rate finds the highest number of printed events a second without loss.
func (b *bencher) rate() error {
	script := `tracepoint:syscalls:sys_enter_getppid /comm == "` + loadName + `"/ { printf("%d %s\n", pid, comm); }`
	b.head("Printed events a second without loss, for a second", "script")
	all := make([][]float64, len(b.peers))
	for n := range b.dear(3) {
		for i, p := range b.peers {
			best, err := b.highest(p, script)
			if err != nil {
				return err
			}
			progress("  run %d of %d: %s %.0f", n+1, b.dear(3), p.name, best)
			all[i] = append(all[i], best)
		}
	}
	row(&b.out, "`"+script+"`", medians(all), "%.0f")
	return nil
}

// highest searches for the highest rate without loss, to 5 %.
func (b *bencher) highest(p peer, script string) (float64, error) {
	low, high := 20_000.0, 4_000_000.0
	for high > low*1.05 {
		rate := math.Sqrt(low * high)
		ok, err := b.lossless(p, script, int(rate))
		if err != nil {
			return 0, err
		}
		if ok {
			low = rate
		} else {
			high = rate
		}
	}
	return low, nil
}

// lossless tells whether a tracer prints all events of a second at a rate, and
// most of them by the end of it: a buffer that is printed later does not count.
func (b *bencher) lossless(p peer, script string, rate int) (bool, error) {
	t, err := start(p, script)
	if err != nil {
		return false, err
	}
	before := t.size()
	ns, err := load(b.dir, "syscall", rate, rate)
	if err != nil {
		return false, err
	}
	time.Sleep(50 * time.Millisecond)
	during := t.size() - before
	_, data, err := t.stop()
	if err != nil {
		return false, err
	}
	lines := bytes.Count(data, []byte(" "+loadName+"\n"))
	kept := ns*float64(rate) < 1.05e9 // the load was as fast as it should
	soon := float64(during) > 0.95*float64(int64(len(data))-before)
	return lines == rate && kept && soon, nil
}

func (b *bencher) attach() error {
	script := `tracepoint:syscalls:sys_enter_* { @[probe] = count(); }`
	b.head("Attaching and detaching all system calls: `"+script+"`", "what")
	on, off := make([][]float64, len(b.peers)), make([][]float64, len(b.peers))
	for n := range b.dear(3) {
		progress("  run %d of %d", n+1, b.dear(3))
		for i, p := range b.peers {
			t, err := start(p, script)
			if err != nil {
				return err
			}
			time.Sleep(200 * time.Millisecond)
			took, data, err := t.stop()
			if err != nil {
				return err
			}
			if !bytes.Contains(data, []byte("sys_enter_nanosleep")) && !bytes.Contains(data, []byte("sys_enter_read")) {
				return fmt.Errorf("%s counted no system call: %.300q", p.name, data)
			}
			on[i] = append(on[i], t.attached.Seconds()*1e3)
			off[i] = append(off[i], took.Seconds()*1e3)
		}
	}
	row(&b.out, "from start to attached, ms", medians(on), "%.0f")
	row(&b.out, "from SIGINT to exit, ms", medians(off), "%.0f")
	return nil
}
