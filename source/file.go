package source

import (
	"sort"
	"strings"
	"unicode/utf8"
)

// A File is one source text with a name to show for it.
type File struct {
	Name string
	Text string

	lines []int // byte offset of the start of each line
}

// NewFile returns a File over text.
func NewFile(name, text string) *File {
	f := &File{Name: name, Text: text, lines: []int{0}}
	for i := 0; i < len(text); i++ {
		if text[i] == '\n' {
			f.lines = append(f.lines, i+1)
		}
	}
	return f
}

// Position is a place in a file as people count: lines and columns from 1,
// columns in characters (runes).
type Position struct {
	Line, Column int
}

// Position converts a byte offset to a line and column.
// Offsets outside the text are clamped to it.
func (f *File) Position(offset int) Position {
	offset = max(0, min(offset, len(f.Text)))
	line := sort.Search(len(f.lines), func(i int) bool { return f.lines[i] > offset }) - 1
	return Position{
		Line:   line + 1,
		Column: utf8.RuneCountInString(f.Text[f.lines[line]:offset]) + 1,
	}
}

// Line returns the text of line n (from 1) without its line end,
// or "" when there is no such line.
func (f *File) Line(n int) string {
	if n < 1 || n > len(f.lines) {
		return ""
	}
	start, end := f.lines[n-1], len(f.Text)
	if n < len(f.lines) {
		end = f.lines[n] - 1
	}
	return strings.TrimSuffix(f.Text[start:end], "\r")
}

// A Span is a half-open range of bytes [Start, End) in a file.
// The zero Span means "nowhere in particular".
type Span struct {
	File       *File
	Start, End int
}

// IsValid reports whether s lies in a file.
func (s Span) IsValid() bool { return s.File != nil }

// Text returns the bytes that s covers.
func (s Span) Text() string {
	if s.File == nil {
		return ""
	}
	n := len(s.File.Text)
	start := max(0, min(s.Start, n))
	return s.File.Text[start:max(start, min(s.End, n))]
}

// Pos returns where s starts, as people count.
func (s Span) Pos() Position {
	if s.File == nil {
		return Position{}
	}
	return s.File.Position(s.Start)
}

// To returns the span from the start of s to the end of t.
func (s Span) To(t Span) Span {
	switch {
	case s.File == nil:
		return t
	case t.File != s.File || t.End < s.End:
		return s
	}
	return Span{File: s.File, Start: s.Start, End: t.End}
}
