package text

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
)

// A Printer writes events as text. Out gets what the script prints, Err
// diagnostics.
type Printer struct {
	// File is the script's name, which stands before messages of errorf and
	// its kin; "" leaves the place out.
	File string
	// Blank writes the two empty lines that bpftrace writes before the maps
	// it shows at the end.
	Blank bool
	// Quiet leaves out what the script did not print itself: how many probes
	// are attached.
	Quiet bool

	out, err io.Writer
	esc      runner.Escape
	buf      []byte
}

// New returns a Printer. terminal says that out is one: new lines in traced
// text are escaped then, too.
func New(out, err io.Writer, terminal bool) *Printer {
	p := &Printer{out: out, err: err, buf: make([]byte, 0, flushAt+4096)}
	p.esc = func(dst, text []byte) []byte { return AppendEscaped(dst, text, terminal) }
	return p
}

// flushAt is how many bytes are gathered before they are written.
const flushAt = 1 << 16

// Flush writes what is buffered.
func (p *Printer) Flush() error {
	if len(p.buf) == 0 {
		return nil
	}
	_, err := p.out.Write(p.buf)
	p.buf = p.buf[:0]
	return err
}

// Event takes one event. It is written by the next Flush, or when enough has
// come together.
func (p *Printer) Event(e runner.Event) error {
	switch e.Kind {
	case object.EventPrintf:
		p.buf = e.AppendText(p.buf, p.esc)
	case object.EventPrint:
		for i := range e.Values {
			p.buf = append(e.Values[i].Append(p.buf, p.esc), '\n')
		}
	case object.EventPrintMap, object.EventPrintElem:
		if e.Map != nil {
			p.Map(e.Map)
		}
	case object.EventTime:
		p.buf = append(p.buf, e.Text...)
	case object.EventCat:
		p.buf = AppendEscaped(p.buf, []byte(e.Text), false)
	case object.EventJoin:
		p.buf = append(p.esc(p.buf, []byte(e.Text)), '\n')
	case object.EventSystem:
		p.buf = append(AppendEscaped(p.buf, []byte(strings.TrimSuffix(e.Text, "\n")), false), '\n')
	case runner.EventTest:
		result := "ok    "
		if e.Count > 0 {
			result = "FAIL  "
		}
		p.buf = append(AppendEscaped(append(p.buf, result...), []byte(e.Text), true), '\n')
	case runner.EventBench:
		p.buf = AppendEscaped(p.buf, []byte(e.Text), true)
		p.buf = fmt.Appendf(p.buf, "  %d ns\n", e.Count)
	case runner.EventRecord:
		p.buf = append(p.buf, e.Text...)
		p.buf = append(p.buf, ": "...)
		for i := range e.Values {
			p.buf = e.Values[i].Append(p.buf, p.esc)
		}
		p.buf = append(p.buf, '\n')
	case runner.EventFinal:
		if p.Blank {
			p.buf = append(p.buf, "\n\n"...)
		}
	default:
		return p.diagnostic(&e)
	}
	if len(p.buf) >= flushAt {
		return p.Flush()
	}
	return nil
}

// diagnostic writes what goes to standard error, after what came before it.
func (p *Printer) diagnostic(e *runner.Event) error {
	if err := p.Flush(); err != nil {
		return err
	}
	line := p.place(e.Spec)
	switch e.Kind {
	case runner.EventAttached:
		if p.Quiet {
			return nil
		}
		line = fmt.Appendf(nil, "Attached %d probe", e.Count)
		if e.Count != 1 {
			line = append(line, 's')
		}
	case object.EventErrorf, object.EventAssert:
		line = append(line, "ERROR: "...)
		line = e.AppendText(line, p.esc)
	case object.EventWarnf:
		line = append(line, "WARNING: "...)
		line = e.AppendText(line, p.esc)
	case object.EventHelperError:
		code := HelperCode(e)
		line = append(line, "WARNING: "...)
		line = fmt.Appendf(line, "%s\nAdditional Info - helper: %s, retcode: %d", HelperMessage(e), e.Spec.Name, code)
	case object.EventRuntimeError:
		line = append(line, "WARNING: "...)
		line = e.AppendText(append(line, e.Spec.Name...), p.esc)
	case runner.EventWarning:
		line = append(line, "WARNING: "...)
		line = p.esc(line, []byte(e.Text))
	case runner.EventLost:
		line = append(line[:0], "WARNING: "...)
		line = append(line, runner.Describe(e.Loss, e.Count)...)
	default:
		return fmt.Errorf("events of the kind %q cannot be shown", e.Kind)
	}
	if len(line) == 0 || line[len(line)-1] != '\n' {
		line = append(line, '\n')
	}
	_, err := p.err.Write(line)
	return err
}

// place is where in the script an event comes from.
func (p *Printer) place(s *object.Event) []byte {
	if p.File == "" || s == nil || s.Line == 0 {
		return nil
	}
	return fmt.Appendf(nil, "%s:%d:%d: ", p.File, s.Line, s.Col)
}

// HelperCode is what a helper returned.
func HelperCode(e *runner.Event) int64 {
	if len(e.Values) == 0 {
		return 0
	}
	return e.Values[0].Int
}

// HelperMessage says what went wrong in a helper.
func HelperMessage(e *runner.Event) string { return runner.HelperMessage(e.Spec.Name, HelperCode(e)) }

// Map writes a snapshot.
func (p *Printer) Map(s *runner.Snapshot) {
	m := s.Show
	for i := range s.Entries {
		e := &s.Entries[i]
		p.buf = append(p.buf, m.Name...)
		if len(e.Key) > 0 {
			p.buf = append(runner.AppendKey(append(p.buf, '['), e.Key, p.esc), ']')
		}
		p.buf = append(p.buf, ':')
		switch m.Agg {
		case object.AggNone:
			p.buf = append(p.buf, ' ')
			if m.Value.Kind == object.TypeInt && s.Div > 1 {
				p.number(s, e.Value.Int)
			} else {
				p.buf = e.Value.Append(p.buf, p.esc)
			}
		case object.AggHist, object.AggLhist:
			p.buf = append(p.buf, '\n')
			p.histogram(s.Histogram(&e.Agg))
		case object.AggTseries:
			p.buf = append(p.buf, '\n')
			p.series(m, e.Agg.Series)
		case object.AggStats:
			p.buf = fmt.Appendf(p.buf, " count %d, average ", e.Agg.Count)
			p.number(s, e.Agg.Number)
			p.buf = append(p.buf, ", total "...)
			p.number(&runner.Snapshot{Show: m, Div: 1}, e.Agg.Total)
		default:
			p.buf = append(p.buf, ' ')
			p.number(s, e.Agg.Number)
		}
		p.buf = append(p.buf, '\n')
	}
}

// number writes a number of a map, divided as was asked for.
func (p *Printer) number(s *runner.Snapshot, n int64) {
	n = s.Divided(n)
	if s.Show.Value.Signed {
		p.buf = strconv.AppendInt(p.buf, n, 10)
	} else {
		p.buf = strconv.AppendUint(p.buf, uint64(n), 10)
	}
}

const barWidth = 52

const bar = "@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@"

func (p *Printer) histogram(rows []runner.Bucket) {
	most := uint64(1)
	for _, b := range rows {
		most = max(most, b.Count)
	}
	for _, b := range rows {
		width := int(float32(b.Count) / float32(most) * barWidth)
		p.buf = fmt.Appendf(p.buf, "%-16s%8d |%-52s|\n", b.Label(), b.Count, bar[:min(width, barWidth)])
	}
}

// AppendEscaped appends traced text in a form that is safe to show: control
// characters and bytes that are no UTF-8 become \xNN. Tabs stay; new lines
// stay unless newlines are to be escaped, too.
func AppendEscaped(dst, text []byte, newlines bool) []byte {
	for i := 0; i < len(text); {
		// Plain characters are copied together.
		start := i
		for i < len(text) && text[i] >= 0x20 && text[i] < 0x7f {
			i++
		}
		dst = append(dst, text[start:i]...)
		if i == len(text) {
			break
		}
		c := text[i]
		if c < 0x80 {
			if c == '\t' || c == '\n' && !newlines {
				dst = append(dst, c)
			} else {
				dst = appendHex(dst, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && n == 1 || hidden(r) {
			for _, c := range text[i : i+n] {
				dst = appendHex(dst, c)
			}
		} else {
			dst = append(dst, text[i:i+n]...)
		}
		i += n
	}
	return dst
}

// hidden tells whether a character controls a terminal: the C1 controls, and
// those that turn the direction of text around.
func hidden(r rune) bool {
	return r < 0xa0 || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func appendHex(dst []byte, c byte) []byte {
	const digits = "0123456789abcdef"
	return append(dst, '\\', 'x', digits[c>>4], digits[c&15])
}
