package text

import (
	"bufio"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"time"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
)

// A Printer writes events as text. Out gets what the script prints, Err
// diagnostics. Flush after each batch.
type Printer struct {
	out *bufio.Writer
	err io.Writer
	// Terminal escapes new lines in traced text too.
	terminal bool
}

// New returns a Printer. terminal says that out is one.
func New(out, err io.Writer, terminal bool) *Printer {
	return &Printer{out: bufio.NewWriterSize(out, 1<<16), err: err, terminal: terminal}
}

// Flush writes what is buffered.
func (p *Printer) Flush() error { return p.out.Flush() }

// Event shows one event.
func (p *Printer) Event(e runner.Event) error {
	switch e.Kind {
	case object.EventPrintf:
		p.out.WriteString(runner.Format(e.Spec.Format, e.Values, p.Escape))
	case object.EventErrorf, object.EventWarnf:
		word := "ERROR"
		if e.Kind == object.EventWarnf {
			word = "WARNING"
		}
		p.out.Flush()
		fmt.Fprintf(p.err, "%s: %s", word, runner.Format(e.Spec.Format, e.Values, p.Escape))
	case object.EventPrint:
		fmt.Fprintf(p.out, "%s\n", p.Escape(e.Values[0].String()))
	case object.EventTime:
		p.out.WriteString(strftime(e.Spec.Format, time.Now()))
	case object.EventPrintMap, object.EventPrintElem:
		if e.Map != nil {
			p.Map(e.Map)
		}
	case runner.EventLost:
		p.out.Flush()
		fmt.Fprintf(p.err, "WARNING: %s\n", runner.Describe(e.Loss, e.Count))
	default:
		return fmt.Errorf("events of the kind %q cannot be shown yet", e.Kind)
	}
	return p.out.Flush()
}

// Escape makes traced text safe to show: control characters and invalid UTF-8
// become \xNN. New lines are kept unless on a terminal.
func (p *Printer) Escape(s string) string {
	plain := true
	for _, r := range s {
		if r == 0xfffd || r < 0x20 && r != '\t' || r >= 0x7f && r < 0xa0 {
			plain = false
			break
		}
	}
	if plain {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n' && !p.terminal, r == '\t':
			b.WriteRune(r)
		case r == 0xfffd && !strings.HasPrefix(s[i:], "\ufffd"), r < 0x20, r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r >= 0x80 && r < 0xa0:
			fmt.Fprintf(&b, `\x%02x\x%02x`, s[i], s[i+1])
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Map shows a snapshot.
func (p *Printer) Map(s *runner.Snapshot) {
	m := s.Show
	for _, e := range s.Entries {
		p.out.WriteString(m.Name)
		if len(e.Key) > 0 {
			parts := make([]string, len(e.Key))
			for i, k := range e.Key {
				parts[i] = p.Escape(k.String())
			}
			fmt.Fprintf(p.out, "[%s]", strings.Join(parts, ", "))
		}
		p.out.WriteString(": ")
		switch m.Agg {
		case object.AggNone:
			fmt.Fprintf(p.out, "%s\n", p.Escape(e.Value.String()))
		case object.AggHist:
			p.out.WriteString("\n")
			p.histogram(e.Agg.Buckets, func(i int) string { return histLabel(i, m.Bits) })
		case object.AggLhist:
			p.out.WriteString("\n")
			p.histogram(e.Agg.Buckets, func(i int) string { return lhistLabel(i, len(e.Agg.Buckets), m) })
		case object.AggStats:
			fmt.Fprintf(p.out, "count %d, average %s, total %s\n", e.Agg.Count, number(e.Agg.Number, m), number(e.Agg.Total/s.Div, m))
		default:
			fmt.Fprintf(p.out, "%s\n", number(e.Agg.Number/s.Div, m))
		}
	}
	p.out.WriteString("\n")
}

func number(n int64, m *object.MapShow) string {
	if m.Value.Signed {
		return fmt.Sprint(n)
	}
	return fmt.Sprint(uint64(n))
}

const barWidth = 52

func (p *Printer) histogram(buckets []uint64, label func(int) string) {
	first, last, most := -1, -1, uint64(0)
	for i, n := range buckets {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last = i
			most = max(most, n)
		}
	}
	if first < 0 {
		return
	}
	for i := first; i <= last; i++ {
		hi, lo := bits.Mul64(buckets[i], barWidth)
		width, _ := bits.Div64(hi, lo, most)
		fmt.Fprintf(p.out, "%-16s %8d |%-52s|\n", label(i), buckets[i], strings.Repeat("@", int(width)))
	}
	p.out.WriteString("\n")
}

func histLabel(i, k int) string {
	switch {
	case i == 0:
		return "(..., 0)"
	case i <= 1<<k:
		return fmt.Sprintf("[%s]", suffixed(uint64(i-1)))
	}
	i -= 1 + 1<<k
	power, sub := i>>k, uint64(i&(1<<k-1))
	low := (uint64(1)<<k + sub) << power
	high := low + uint64(1)<<power
	if k == 0 && low == 1 {
		return "[1]"
	}
	return fmt.Sprintf("[%s, %s)", suffixed(low), suffixed(high))
}

func suffixed(n uint64) string {
	for i, s := range []string{"", "K", "M", "G", "T", "P", "E"} {
		if n < 1<<(10*(i+1)) || n%(1<<(10*(i+1))) != 0 {
			return fmt.Sprintf("%d%s", n>>(10*i), s)
		}
	}
	return fmt.Sprint(n)
}

func lhistLabel(i, n int, m *object.MapShow) string {
	switch {
	case i == 0:
		return fmt.Sprintf("(..., %s)", suffixed(uint64(m.Min)))
	case i == n-1:
		return fmt.Sprintf("[%s, ...)", suffixed(uint64(m.Max)))
	}
	low := m.Min + int64(i-1)*m.Step
	return fmt.Sprintf("[%s, %s)", suffixed(uint64(low)), suffixed(uint64(low+m.Step)))
}

// strftime formats a time by the C library's conversions.
func strftime(format string, t time.Time) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch format[i] {
		case 'H':
			b.WriteString(t.Format("15"))
		case 'M':
			b.WriteString(t.Format("04"))
		case 'S':
			b.WriteString(t.Format("05"))
		case 'Y':
			b.WriteString(t.Format("2006"))
		case 'm':
			b.WriteString(t.Format("01"))
		case 'd':
			b.WriteString(t.Format("02"))
		case 'F':
			b.WriteString(t.Format("2006-01-02"))
		case 'T':
			b.WriteString(t.Format("15:04:05"))
		case 'f':
			b.WriteString(t.Format("000000"))
		case 's':
			fmt.Fprint(&b, t.Unix())
		case '%':
			b.WriteByte('%')
		default:
			b.WriteByte('%')
			b.WriteByte(format[i])
		}
	}
	return b.String()
}
