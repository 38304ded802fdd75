package json

import (
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
)

// A Printer writes events as JSON, one object a line, always valid UTF-8:
// bytes that are none become the text \xNN. Integers that a floating point
// number of 64 bits cannot hold are written as strings.
type Printer struct {
	// File is the script's name, which errors tell.
	File string

	out io.Writer
	buf []byte
	tmp []byte
}

// New returns a Printer.
func New(out io.Writer) *Printer { return &Printer{out: out} }

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
		p.tmp = e.AppendText(p.tmp[:0], nil)
		p.text("printf", p.tmp)
	case object.EventErrorf, object.EventAssert:
		p.message("errorf", &e)
	case object.EventWarnf:
		p.message("warnf", &e)
	case object.EventPrint:
		for i := range e.Values {
			p.open("value")
			p.value(&e.Values[i])
			p.line()
		}
	case object.EventPrintMap, object.EventPrintElem:
		if e.Map != nil {
			p.Map(e.Map)
		}
	case object.EventTime:
		p.text("time", []byte(e.Text))
	case object.EventCat:
		p.text("cat", []byte(e.Text))
	case object.EventJoin:
		p.text("join", []byte(e.Text))
	case object.EventSystem:
		p.text("syscall", []byte(e.Text))
	case object.EventHelperError:
		code := int64(0)
		if len(e.Values) > 0 {
			code = e.Values[0].Int
		}
		p.raw(`{"type": "helper_error", "msg": `).str([]byte(runner.HelperMessage(e.Spec.Name, code)))
		p.raw(`, "helper": `).str([]byte(e.Spec.Name))
		p.raw(`, "retcode": `).signed(code)
		p.place(e.Spec)
		p.raw("}\n")
	case object.EventRuntimeError:
		p.tmp = e.AppendText(append(p.tmp[:0], e.Spec.Name...), nil)
		p.raw(`{"type": "runtime_error", "msg": `).str(p.tmp)
		p.place(e.Spec)
		p.raw("}\n")
	case runner.EventWarning:
		p.raw(`{"type": "runtime_error", "msg": `).str([]byte(e.Text))
		p.place(e.Spec)
		p.raw("}\n")
	case runner.EventAttached:
		p.counted("attached_probes", "probes", e.Count)
	case runner.EventLost:
		p.lost(&e)
	case runner.EventTest:
		p.raw(`{"type": "test", "data": {"name": `).str([]byte(e.Text))
		p.raw(`, "ok": `).raw(strconv.FormatBool(e.Count == 0)).raw("}}\n")
	case runner.EventBench:
		p.raw(`{"type": "bench", "data": {"name": `).str([]byte(e.Text))
		p.raw(`, "ns": `).signed(int64(e.Count)).raw("}}\n")
	case runner.EventRecord:
		p.raw(`{"type": "value", "name": `).str([]byte(e.Text)).raw(`, "data": `)
		if len(e.Values) > 0 {
			p.value(&e.Values[0])
		} else {
			p.raw("null")
		}
		p.line()
	case runner.EventFinal:
	default:
		p.raw(`{"type": `).str([]byte(e.Kind)).raw(`, "data": null}` + "\n")
	}
	if len(p.buf) >= flushAt {
		return p.Flush()
	}
	return nil
}

func (p *Printer) raw(s string) *Printer {
	p.buf = append(p.buf, s...)
	return p
}

func (p *Printer) open(kind string) { p.raw(`{"type": "`).raw(kind).raw(`", "data": `) }

func (p *Printer) line() { p.raw("}\n") }

func (p *Printer) text(kind string, text []byte) {
	p.open(kind)
	p.str(text)
	p.line()
}

func (p *Printer) message(kind string, e *runner.Event) {
	p.tmp = e.AppendText(p.tmp[:0], nil)
	p.raw(`{"type": "`).raw(kind).raw(`", "msg": `).str(p.tmp)
	p.place(e.Spec)
	p.raw("}\n")
}

func (p *Printer) place(s *object.Event) {
	if s == nil {
		return
	}
	p.raw(`, "filename": `).str([]byte(p.File))
	p.raw(`, "line": `).signed(int64(s.Line))
	p.raw(`, "col": `).signed(int64(s.Col))
}

func (p *Printer) counted(kind, what string, n uint64) {
	p.raw(`{"type": "`).raw(kind).raw(`", "count": `).unsigned(n)
	p.raw(`, "data": {"`).raw(what).raw(`": `).unsigned(n).raw("}}\n")
}

func (p *Printer) lost(e *runner.Event) {
	if e.Loss.Kind == object.LossEvent {
		p.counted("lost_events", "events", e.Count)
		return
	}
	p.raw(`{"type": "runtime_error", "msg": `).str([]byte(runner.Describe(e.Loss, e.Count)))
	p.raw(`, "kind": `).str([]byte(e.Loss.Kind))
	p.raw(`, "name": `).str([]byte(e.Loss.Name))
	p.raw(`, "count": `).unsigned(e.Count)
	p.raw(`, "filename": `).str([]byte(p.File))
	p.raw(`, "line": `).signed(int64(e.Loss.Line)).raw("}\n")
}

// Map writes a snapshot; an empty map is not written.
func (p *Printer) Map(s *runner.Snapshot) {
	if len(s.Entries) == 0 {
		return
	}
	kind := "map"
	switch s.Show.Agg {
	case object.AggHist, object.AggLhist:
		kind = "hist"
	case object.AggStats, object.AggAvg:
		kind = "stats"
	case object.AggTseries:
		kind = "tseries"
	}
	p.open(kind)
	p.raw("{").str([]byte(s.Show.Name)).raw(": ")
	if len(s.Show.Keys) == 0 {
		p.entry(s, &s.Entries[0])
	} else {
		p.raw("{")
		for i := range s.Entries {
			if i > 0 {
				p.raw(", ")
			}
			p.key(s.Entries[i].Key)
			p.raw(": ")
			p.entry(s, &s.Entries[i])
		}
		p.raw("}")
	}
	p.raw("}")
	p.line()
}

// key writes the parts of a key as one string, with commas between.
func (p *Printer) key(parts []runner.Value) {
	p.tmp = p.tmp[:0]
	for i := range parts {
		if i > 0 {
			p.tmp = append(p.tmp, ',')
		}
		p.tmp = runner.AppendKey(p.tmp, parts[i:i+1], nil)
	}
	p.str(p.tmp)
}

func (p *Printer) entry(s *runner.Snapshot, e *runner.Entry) {
	m := s.Show
	switch m.Agg {
	case object.AggNone:
		if m.Value.Kind == object.TypeInt && s.Div > 1 {
			p.number(m.Value.Signed, s.Divided(e.Value.Int))
			return
		}
		p.value(&e.Value)
	case object.AggHist, object.AggLhist:
		p.raw("[")
		for i, b := range s.Histogram(&e.Agg) {
			if i > 0 {
				p.raw(", ")
			}
			p.raw("{")
			if b.HasLow {
				p.raw(`"min": `).bound(m, b.Low).raw(", ")
			}
			if b.HasHigh {
				// The last value that is counted.
				if b.High == 0 || m.Agg == object.AggLhist {
					p.raw(`"max": `).signed(int64(b.High) - 1).raw(", ")
				} else {
					p.raw(`"max": `).unsigned(b.High - 1).raw(", ")
				}
			}
			p.raw(`"count": `).unsigned(b.Count).raw("}")
		}
		p.raw("]")
	case object.AggTseries:
		p.raw("[")
		first := true
		for _, pt := range e.Agg.Series {
			if !pt.Set {
				continue
			}
			if !first {
				p.raw(", ")
			}
			first = false
			p.raw(`{"interval_start": "`).raw(pt.Time.Format("2006-01-02T15:04:05.000000000")).raw(`", "value": `)
			p.number(m.Value.Signed, pt.Value)
			p.raw("}")
		}
		p.raw("]")
	case object.AggStats:
		p.raw(`{"count": `).unsigned(e.Agg.Count)
		p.raw(`, "average": `).number(m.Value.Signed, s.Divided(e.Agg.Number))
		p.raw(`, "total": `).number(m.Value.Signed, e.Agg.Total)
		p.raw("}")
	default:
		p.number(m.Value.Signed, s.Divided(e.Agg.Number))
	}
}

func (p *Printer) bound(m *object.MapShow, n uint64) *Printer {
	if m.Agg == object.AggLhist {
		return p.signed(int64(n))
	}
	return p.unsigned(n)
}

// value writes a value: numbers, truth values, tuples and arrays as those of
// JSON, records as objects, everything else as a string.
func (p *Printer) value(v *runner.Value) {
	if v.Type == nil {
		p.raw("null")
		return
	}
	switch v.Type.Kind {
	case object.TypeNone:
		p.raw("null")
	case object.TypeInt, object.TypeEnum:
		p.number(v.Type.Signed, v.Int)
	case object.TypePointer:
		p.unsigned(v.Uint())
	case object.TypeBool:
		p.buf = strconv.AppendBool(p.buf, v.Int != 0)
	case object.TypeArray:
		p.list(v.Elems)
	case object.TypeTuple, object.TypeRecord:
		if len(v.Type.Fields) == 0 || v.Type.Kind == object.TypeTuple && v.Type.Fields[0].Name == "" {
			p.list(v.Elems)
			return
		}
		p.raw("{")
		for i := range v.Elems {
			if i > 0 {
				p.raw(", ")
			}
			p.str([]byte(v.Type.Fields[i].Name)).raw(": ")
			p.value(&v.Elems[i])
		}
		p.raw("}")
	default:
		p.tmp = v.Append(p.tmp[:0], nil)
		p.str(p.tmp)
	}
}

func (p *Printer) list(list []runner.Value) {
	p.raw("[")
	for i := range list {
		if i > 0 {
			p.raw(",")
		}
		p.value(&list[i])
	}
	p.raw("]")
}

func (p *Printer) number(signed bool, n int64) *Printer {
	if signed {
		return p.signed(n)
	}
	return p.unsigned(uint64(n))
}

// exact is up to which number every integer is a floating point number.
const exact = 1 << 53

func (p *Printer) signed(n int64) *Printer {
	quote := (n > exact || n < -exact) && int64(float64(n)) != n
	return p.quoted(quote, func() { p.buf = strconv.AppendInt(p.buf, n, 10) })
}

func (p *Printer) unsigned(n uint64) *Printer {
	quote := n > exact && (n > 1<<64-1024 || uint64(float64(n)) != n)
	return p.quoted(quote, func() { p.buf = strconv.AppendUint(p.buf, n, 10) })
}

func (p *Printer) quoted(quote bool, f func()) *Printer {
	if quote {
		p.raw(`"`)
	}
	f()
	if quote {
		p.raw(`"`)
	}
	return p
}

// str writes a string of JSON (RFC 8259, section 7).
func (p *Printer) str(s []byte) *Printer {
	const digits = "0123456789abcdef"
	b := append(p.buf, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		case c < 0x80:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRune(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, '\\', '\\', 'x', digits[c>>4], digits[c&15])
			} else {
				b = append(b, s[i:i+n]...)
			}
			i += n
			continue
		}
		i++
	}
	p.buf = append(b, '"')
	return p
}
