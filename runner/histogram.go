package runner

import (
	"strconv"

	"github.com/skep-bpf/skep/object"
)

// A Bucket is one row of a histogram.
type Bucket struct {
	// Low and High bound the values that are counted, High excluded. Without
	// HasLow the bucket reaches down without end, without HasHigh up.
	Low, High       uint64
	HasLow, HasHigh bool
	Count           uint64
	label           string
}

// Label is the range as it is shown: "[4, 8)", "[1K, 2K)", "[3]", "(..., 0)".
func (b Bucket) Label() string { return b.label }

// Histogram returns the rows of an aggregation by hist or lhist that are
// shown, from the first to the last that counted anything.
func (s *Snapshot) Histogram(a *Aggregate) []Bucket {
	first, last := -1, -1
	for i, n := range a.Buckets {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return nil
	}
	rows := make([]Bucket, 0, last-first+1)
	for i := first; i <= last; i++ {
		b := Bucket{Count: a.Buckets[i]}
		if s.Show.Agg == object.AggLhist {
			lhistBucket(&b, s.Show, i, len(a.Buckets))
		} else {
			histBucket(&b, i, s.Show.Bits)
			b.Count /= uint64(max(s.Div, 1))
		}
		rows = append(rows, b)
	}
	return rows
}

// histBucket gives the bounds of bucket i of hist(n, k); see
// object.HistBuckets.
func histBucket(b *Bucket, i, k int) {
	b.HasLow, b.HasHigh = true, true
	if i == 0 {
		b.HasLow = false
		b.label = "(..., 0)"
		return
	}
	i--
	if i < 1<<k {
		b.Low, b.High = uint64(i), uint64(i)+1
		b.label = "[" + strconv.Itoa(i) + "]"
		return
	}
	power, sub := i>>k-1, uint64(i&(1<<k-1))
	b.Low = (uint64(1)<<k + sub) << power
	b.High = b.Low + uint64(1)<<power
	if power == 0 {
		b.label = "[" + strconv.FormatUint(b.Low, 10) + "]"
		return
	}
	high := suffixed(b.High)
	if b.High == 0 { // 2^64
		b.HasHigh, high = false, "16E"
	}
	b.label = "[" + suffixed(b.Low) + ", " + high + ")"
}

// suffixed writes a number with the largest of K, M, G... that divides it.
func suffixed(n uint64) string {
	i := 0
	for n >= 1024 && n%1024 == 0 && i < 6 {
		n /= 1024
		i++
	}
	s := strconv.FormatUint(n, 10)
	if i > 0 {
		s += string("KMGTPE"[i-1])
	}
	return s
}

func lhistBucket(b *Bucket, m *object.MapShow, i, n int) {
	label := func(v int64) string {
		switch {
		case m.Step%1024 != 0 || v == 0:
		case v%(1<<20) == 0:
			return strconv.FormatInt(v>>20, 10) + "M"
		case v%1024 == 0:
			return strconv.FormatInt(v>>10, 10) + "K"
		}
		return strconv.FormatInt(v, 10)
	}
	low := m.Min + int64(i-1)*m.Step
	switch {
	case i == 0:
		b.High, b.HasHigh = uint64(m.Min), true
		b.label = "(..., " + label(m.Min) + ")"
	case i == n-1:
		b.Low, b.HasLow = uint64(m.Max), true
		b.label = "[" + label(m.Max) + ", ...)"
	default:
		b.Low, b.High, b.HasLow, b.HasHigh = uint64(low), uint64(low+m.Step), true, true
		b.label = "[" + label(low) + ", " + label(low+m.Step) + ")"
	}
}
