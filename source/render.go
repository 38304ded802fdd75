package source

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Style chooses how diagnostics are drawn.
type Style struct {
	Color bool // ANSI colours
}

// Render draws d with the line it speaks of and a caret under the very token:
//
//	error: unknown field "filenme" [unknown-field]
//	  --> opens.bt:1:44
//	   |
//	 1 | tracepoint:syscalls:sys_enter_openat { args.filenme }
//	   |                                             ^^^^^^^ did you mean "filename"?
func Render(w io.Writer, d *Diagnostic, style Style) error {
	var b strings.Builder
	p := painter{&b, style.Color}
	p.paint(severityColor(d.Severity), d.Severity.String())
	b.WriteString(": ")
	p.paint(bold, d.Message)
	if d.Code != "" {
		p.paint(dim, " ["+d.Code+"]")
	}
	b.WriteByte('\n')
	label := ""
	if d.Fix != nil && d.Fix.Span == d.Span {
		label = d.Fix.Message
	}
	p.snippet(d.Span, label, severityColor(d.Severity))
	if d.Fix != nil && label == "" {
		fmt.Fprintf(&b, "  = help: %s\n", d.Fix.Message)
	}
	for _, n := range d.Notes {
		fmt.Fprintf(&b, "  = note: %s\n", n.Message)
		p.snippet(n.Span, "", blue)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// RenderAll draws every diagnostic of l, a blank line between two.
func RenderAll(w io.Writer, l List, style Style) error {
	for i, d := range l {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if err := Render(w, d, style); err != nil {
			return err
		}
	}
	return nil
}

const (
	red    = "31;1"
	yellow = "33;1"
	blue   = "34;1"
	bold   = "1"
	dim    = "2"
)

func severityColor(s Severity) string {
	switch s {
	case Error:
		return red
	case Warning:
		return yellow
	}
	return blue
}

type painter struct {
	*strings.Builder
	color bool
}

func (p painter) paint(code, s string) {
	if !p.color {
		p.WriteString(s)
		return
	}
	fmt.Fprintf(p, "\x1b[%sm%s\x1b[0m", code, s)
}

// tabWidth is how many columns a tab takes in a drawn line. Tabs are drawn
// as spaces so that the caret stands right whatever the terminal's stops.
const tabWidth = 4

func (p painter) snippet(s Span, label, color string) {
	if !s.IsValid() {
		return
	}
	pos := s.Pos()
	line := s.File.Line(pos.Line)
	start := min(max(s.Start, 0), len(s.File.Text)) - s.File.lines[pos.Line-1]
	start = min(start, len(line))
	end := min(max(start, start+s.End-s.Start), len(line))

	gutter := len(fmt.Sprint(pos.Line))
	fmt.Fprintf(p, "%*s--> %s:%d:%d\n", gutter+1, "", s.File.Name, pos.Line, pos.Column)
	fmt.Fprintf(p, "%*s |\n", gutter+1, "")
	shown, _ := drawn(line)
	fmt.Fprintf(p, " %d | %s\n", pos.Line, strings.TrimRight(shown, " "))
	_, before := drawn(line[:start])
	_, width := drawn(line[start:end])
	fmt.Fprintf(p, "%*s | %*s", gutter+1, "", before, "")
	marks := strings.Repeat("^", max(width, 1))
	if label != "" {
		marks += " " + label
	}
	p.paint(color, marks)
	p.WriteByte('\n')
}

// drawn returns s as it is safe to put on a terminal, and the number of
// columns it takes there. Control characters and invalid UTF-8 become \xNN.
func drawn(s string) (string, int) {
	var b strings.Builder
	columns := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == '\t':
			b.WriteString(strings.Repeat(" ", tabWidth))
			columns += tabWidth
		case r == utf8.RuneError && n <= 1, unicode.IsControl(r):
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
				columns += 4
			}
		default:
			b.WriteString(s[i : i+n])
			columns += runeWidth(r)
		}
		i += n
	}
	return b.String(), columns
}

// runeWidth is the number of terminal columns r takes: none for combining
// marks, two for the wide East Asian and emoji blocks.
func runeWidth(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3,
		r >= 0xf900 && r <= 0xfaff, r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60,
		r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}
