package verifier

import (
	"fmt"
	"io"
	"strings"
)

// LineOf returns the line of the source that the instruction at slot comes
// from; ok is false where that is not known.
func (p *Program) LineOf(slot int) (line Line, ok bool) {
	for _, l := range p.Lines {
		if l.Slot > slot {
			break
		}
		line, ok = l, true
	}
	// A line ends where the next function begins.
	for _, f := range p.Funcs {
		if f.Start > line.Slot && f.Start <= slot {
			return Line{}, false
		}
	}
	return line, ok
}

// Func returns the name of the function that slot is in.
func (p *Program) Func(slot int) string {
	name := p.Name
	for _, f := range p.Funcs {
		if f.Start <= slot {
			name = f.Name
		}
	}
	return name
}

// insnAt returns the text of the instruction at slot.
func (p *Program) insnAt(slot int) string {
	at := 0
	for i := range p.Insns {
		if at == slot {
			return fmt.Sprint(p.Insns[i])
		}
		at += p.Insns[i].Size()
	}
	return ""
}

// Render writes an error for people: what is wrong, at which line, what was
// known there, how it was reached and what to change.
func Render(w io.Writer, p *Program, e *Error) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", e.Message)
	if e.Insn >= 0 {
		if l, ok := p.LineOf(e.Insn); ok {
			fmt.Fprintf(&b, "  --> %s:%d", l.File, l.Row)
			if l.Col > 0 {
				fmt.Fprintf(&b, ":%d", l.Col)
			}
			fmt.Fprintf(&b, "\n   | %s\n", strings.TrimRight(l.Text, " \t\n"))
		}
		fmt.Fprintf(&b, "   = instruction %d of %s: %s\n", e.Insn, p.Func(e.Insn), p.insnAt(e.Insn))
	}
	for i, k := range e.State {
		lead := "          "
		if i == 0 {
			lead = "   = state "
		}
		fmt.Fprintf(&b, "%s%s is %s\n", lead, k.Place, k.What)
	}
	p.renderPath(&b, e)
	if e.Suggestion != "" {
		fmt.Fprintf(&b, "   = help: %s\n", e.Suggestion)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// maxSteps is how many turns of a path are shown.
const maxSteps = 12

func (p *Program) renderPath(b *strings.Builder, e *Error) {
	if len(e.Path) <= 2 {
		return
	}
	steps := e.Path[1 : len(e.Path)-1]
	b.WriteString("   = path:")
	if n := len(steps) - maxSteps; n > 0 {
		fmt.Fprintf(b, " after %d turns,", n)
		steps = steps[n:]
	}
	for i, s := range steps {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(b, " %s to %s", p.place(s.Insn), p.place(s.Next))
	}
	b.WriteString("\n")
}

// place is a slot, with its line where that is known.
func (p *Program) place(slot int) string {
	if l, ok := p.LineOf(slot); ok {
		return fmt.Sprintf("%d (line %d)", slot, l.Row)
	}
	return fmt.Sprint(slot)
}
