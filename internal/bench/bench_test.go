//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestBetween(t *testing.T) {
	const (
		head    = "\n\nMedians of interleaved runs on one machine, beside bpftrace. `make bench` makes all of it.\n\n"
		startup = "<!-- bench:startup -->\n\nnew\n\n"
	)
	for _, tt := range []struct {
		page string
		want string
	}{
		{"a\n", "a\n\n## Measurements\n\n" + beginMark + head + startup + endMark + "\n"},
		{"a\n" + beginMark + "\nold\n" + endMark + "\nb\n", "a\n" + beginMark + head + startup + endMark + "\nb\n"},
		{
			// Others stay, and tables are in order.
			beginMark + "<!-- bench:rate -->fast\n<!-- bench:startup -->old<!-- bench:gone -->x" + endMark,
			beginMark + head + startup + "<!-- bench:rate -->\n\nfast\n\n" + endMark,
		},
	} {
		if got, err := between(tt.page, map[string]string{"startup": "new\n"}); err != nil || got != tt.want {
			t.Errorf("%q: got %q, %v", tt.page, got, err)
		}
	}
	for _, page := range []string{beginMark, endMark, endMark + beginMark} {
		if _, err := between(page, nil); err == nil {
			t.Errorf("%q has no place for tables", page)
		}
	}
}

func TestGuestCosts(t *testing.T) {
	got := guestCosts("goos: linux\n" +
		"BenchmarkHooksOfGuests/linux-6.1-2         \t       1\t 5000 ns/op\t      1500 raw-tracepoint-ns\t 1.5e+04 uprobe-ns\n" +
		"BenchmarkHooksOfGuests/linux-6.12 \t 1\t 5000 ns/op\t 20 kprobe-ns\nPASS\n")
	if len(got) != 2 || got[0].kernel != "guest with Linux 6.1" || got[0].costs["raw tracepoint"] != 1500 || got[0].costs["uprobe"] != 15000 ||
		got[1].kernel != "guest with Linux 6.12" || len(got[1].costs) != 1 || got[1].costs["kprobe"] != 20 {
		t.Errorf("got %v", got)
	}
}

func TestMedian(t *testing.T) {
	id := func(d time.Duration) time.Duration { return d }
	for _, tt := range []struct {
		list []time.Duration
		want time.Duration
	}{
		{nil, 0},
		{[]time.Duration{3}, 3},
		{[]time.Duration{9, 1, 2}, 2},
		{[]time.Duration{4, 1, 100, 2}, 3},
	} {
		if got := median(tt.list, id); got != tt.want {
			t.Errorf("median(%v) = %v, want %v", tt.list, got, tt.want)
		}
	}
}

func TestRow(t *testing.T) {
	var b bytes.Buffer
	row(&b, "x", []float64{1, 4}, "%.1f")
	row(&b, "y", []float64{1}, "%.0f")
	if got, want := b.String(), "| x | 1.0 | 4.0 | 0.250 |\n| y | 1 |\n"; got != want {
		t.Errorf("got %q", got)
	}
	if n, err := footprint("/proc/self/exe"); err != nil || n < 1<<20 {
		t.Errorf("footprint: %d, %v", n, err)
	}
	if _, err := measure([]string{"false"}); err == nil || !strings.Contains(err.Error(), "false") {
		t.Errorf("measure(false): %v", err)
	}
}
