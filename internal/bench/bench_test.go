//go:build linux

package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestBetween(t *testing.T) {
	got, err := between("a\n"+beginMark+"\nold\n"+endMark+"\nb\n", "new\n")
	if want := "a\n" + beginMark + "\n\nnew\n\n" + endMark + "\nb\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	got, err = between("a\n", "new")
	if want := "a\n\n## Measurements\n\n" + beginMark + "\n\nnew\n\n" + endMark + "\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, page := range []string{beginMark, endMark, endMark + beginMark} {
		if _, err := between(page, "x"); err == nil {
			t.Errorf("%q has no place for tables", page)
		}
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
