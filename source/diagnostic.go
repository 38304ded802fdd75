package source

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Severity says how bad a Diagnostic is.
type Severity uint8

// Severities, worst first.
const (
	Error Severity = iota
	Warning
	Info
)

func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	}
	return "info"
}

// MarshalText makes severities read as words in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Note adds a fact to a Diagnostic, in a place of its own when Span is valid.
type Note struct {
	Span    Span
	Message string
}

// A Fix is an edit that would remove the cause.
type Fix struct {
	Span    Span   // what to replace
	Text    string // with what
	Message string // in words, e.g. `did you mean "openat"?`
}

// A Diagnostic is one thing to tell the author of a source.
// It is an error.
type Diagnostic struct {
	Severity Severity
	Code     string // stable, kebab-case, e.g. "unknown-field"
	Span     Span
	Message  string
	Notes    []Note
	Fix      *Fix
}

// Errorf returns an error diagnostic at span.
func Errorf(span Span, code, format string, args ...any) *Diagnostic {
	return &Diagnostic{Code: code, Span: span, Message: fmt.Sprintf(format, args...)}
}

// Notef adds a note without a place and returns d.
func (d *Diagnostic) Notef(format string, args ...any) *Diagnostic {
	d.Notes = append(d.Notes, Note{Message: fmt.Sprintf(format, args...)})
	return d
}

// NoteAt adds a note at span and returns d.
func (d *Diagnostic) NoteAt(span Span, format string, args ...any) *Diagnostic {
	d.Notes = append(d.Notes, Note{Span: span, Message: fmt.Sprintf(format, args...)})
	return d
}

// Suggest adds the fix of replacing the diagnostic's span by text, and
// returns d. An empty text adds nothing, so that the result of [Nearest]
// can be passed as it is.
func (d *Diagnostic) Suggest(text string) *Diagnostic {
	if text != "" {
		d.Fix = &Fix{Span: d.Span, Text: text, Message: fmt.Sprintf("did you mean %q?", text)}
	}
	return d
}

// Error returns the diagnostic on one line: file:line:col: error: message.
func (d *Diagnostic) Error() string {
	var b strings.Builder
	if d.Span.IsValid() {
		p := d.Span.Pos()
		fmt.Fprintf(&b, "%s:%d:%d: ", d.Span.File.Name, p.Line, p.Column)
	}
	fmt.Fprintf(&b, "%s: %s", d.Severity, d.Message)
	return b.String()
}

// A List is the diagnostics of one run, in the order they were found.
type List []*Diagnostic

// Add appends d.
func (l *List) Add(d *Diagnostic) { *l = append(*l, d) }

// HasErrors reports whether any diagnostic is an error.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d *Diagnostic) bool { return d.Severity == Error })
}

// Sort orders l by file and place; diagnostics of the same place keep their order.
func (l List) Sort() {
	slices.SortStableFunc(l, func(a, b *Diagnostic) int {
		var an, bn string
		if a.Span.File != nil {
			an = a.Span.File.Name
		}
		if b.Span.File != nil {
			bn = b.Span.File.Name
		}
		return cmp.Or(cmp.Compare(an, bn), cmp.Compare(a.Span.Start, b.Span.Start))
	})
}

// Err returns l as an error when it holds errors, else nil.
func (l List) Err() error {
	if !l.HasErrors() {
		return nil
	}
	return l
}

// Error joins the one-line forms of all diagnostics.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, d := range l {
		lines[i] = d.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.Is and errors.As the single diagnostics.
func (l List) Unwrap() []error {
	errs := make([]error, len(l))
	for i, d := range l {
		errs[i] = d
	}
	return errs
}

// Diagnostics returns the diagnostics that err is or wraps; an error that is
// none becomes one without a place, so that every failure is shown alike.
func Diagnostics(err error) List {
	if err == nil {
		return nil
	}
	var l List
	if errors.As(err, &l) {
		return l
	}
	var d *Diagnostic
	if errors.As(err, &d) {
		return List{d}
	}
	return List{{Message: err.Error()}}
}
