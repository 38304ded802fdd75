package text

import (
	"fmt"
	"strings"
	"time"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
)

// seriesWidth is the width of the graph of a time series, its frame included.
const seriesWidth = 53

// series draws a time series, one interval a line.
func (p *Printer) series(m *object.MapShow, points []runner.Point) {
	if len(points) == 0 {
		p.buf = append(p.buf, "<no data>\n"...)
		return
	}
	value := func(n int64) float64 {
		if m.Value.Signed {
			return float64(n)
		}
		return float64(uint64(n))
	}
	text := func(n int64) string {
		if m.Value.Signed {
			return fmt.Sprint(n)
		}
		return fmt.Sprint(uint64(n))
	}
	var low, high int64
	first := true
	for _, pt := range points {
		if !pt.Set {
			continue
		}
		if first || value(pt.Value) < value(low) {
			low = pt.Value
		}
		if first || value(pt.Value) > value(high) {
			high = pt.Value
		}
		first = false
	}
	if low == high {
		// Leave room on both sides of the only value, where there are numbers.
		if value(low-1) < value(low) {
			low--
		}
		if value(high+1) > value(high) {
			high++
		}
	}
	clock, head := clockFormat(time.Duration(m.Interval))
	indent := strings.Repeat(" ", len(head)+1)
	bounds := fmt.Sprintf("%s%-21s%*s\n", indent, text(low), seriesWidth-21, text(high))
	p.buf = append(p.buf, bounds...)
	p.buf = fmt.Appendf(p.buf, "%s |%s|\n", head, strings.Repeat("_", seriesWidth-2))
	column := func(n float64, width int) int {
		span := value(high) - value(low)
		if span <= 0 {
			return seriesWidth / 2
		}
		return max(0, min(seriesWidth-1, int(float64(width)*(n-value(low))/span)))
	}
	zero := -1
	if value(low) < 0 && value(high) > 0 {
		zero = column(0, seriesWidth-1)
	}
	for _, pt := range points {
		line := []byte("|" + strings.Repeat(" ", seriesWidth-2) + "|")
		if zero > 0 {
			line[zero] = '.'
		}
		shown := "-"
		if pt.Set {
			line[column(value(pt.Value), seriesWidth-1)] = '*'
			shown = text(pt.Value)
		}
		p.buf = fmt.Appendf(p.buf, "%s %s %s\n", pt.Time.Format(clock), line, shown)
	}
	p.buf = fmt.Appendf(p.buf, "%sv%sv\n", indent, strings.Repeat("_", seriesWidth-2))
	p.buf = append(p.buf, bounds...)
}

// clockFormat is how the times of intervals are written, and what stands above
// them.
func clockFormat(interval time.Duration) (format, head string) {
	switch {
	case interval%time.Second == 0:
		return "15:04:05", "hh:mm:ss"
	case interval%time.Millisecond == 0:
		return "15:04:05.000", "hh:mm:ss.ms "
	case interval%time.Microsecond == 0:
		return "15:04:05.000000", "hh:mm:ss.us    "
	}
	return "15:04:05.000000000", "hh:mm:ss.ns       "
}
