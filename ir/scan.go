package ir

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/skep-bpf/skep/source"
)

// lineIndex finds byte offsets by line and column.
type lineIndex map[*source.File][]int

// offset is the byte offset of a position in f, -1 when f has no such place.
func (x lineIndex) offset(f *source.File, pos source.Position) int {
	starts, ok := x[f]
	if !ok {
		starts = []int{0}
		for i := 0; i < len(f.Text); i++ {
			if f.Text[i] == '\n' {
				starts = append(starts, i+1)
			}
		}
		x[f] = starts
	}
	if pos.Line < 1 || pos.Line > len(starts) || pos.Column < 1 {
		return -1
	}
	at := starts[pos.Line-1]
	for range pos.Column - 1 {
		if at >= len(f.Text) || f.Text[at] == '\n' {
			return -1
		}
		_, n := utf8.DecodeRuneInString(f.Text[at:])
		at += n
	}
	return at
}

type tokenKind uint8

const (
	tokEOF    tokenKind = iota
	tokLine             // the end of a line
	tokWord             // letters, digits, underscores, dots
	tokInt              // a number, perhaps negative
	tokString           // text is unquoted
	tokLabel            // % ^ @ $ and a name; text is without the sigil
	tokPos              // text is what follows the !
	tokRaw              // a line of a source text
	tokPunct
)

type token struct {
	kind tokenKind
	// sigil is that of a tokLabel; punctuation has it too ('>' is an arrow).
	sigil byte
	// text identifies a label; name and id are its parts (id -1: none).
	text, name string
	id         int32
	start, end int
}

func (t token) describe() string {
	switch t.kind {
	case tokEOF:
		return "the end of the text"
	case tokLine:
		return "the end of the line"
	case tokString:
		return strconv.Quote(t.text)
	case tokLabel:
		return string(t.sigil) + t.text
	case tokPos:
		return "!" + t.text
	case tokRaw:
		return "a line of source text"
	case tokPunct:
		if t.sigil == '>' {
			return `"->"`
		}
		return strconv.Quote(string(t.sigil))
	}
	return strconv.Quote(t.text)
}

// scan cuts the text of file into tokens.
func scan(file *source.File) ([]token, error) {
	text := file.Text
	var out []token
	fail := func(start, end int, format string, args ...any) error {
		return source.Errorf(source.Span{File: file, Start: start, End: end}, "ir-syntax", format, args...)
	}
	i := 0
	quoted := func() (string, error) {
		start := i
		q, err := strconv.QuotedPrefix(text[i:])
		if err != nil || q[0] != '"' {
			return "", fail(start, start+1, "this string does not end on its line, or has an unknown escape")
		}
		i += len(q)
		s, err := strconv.Unquote(q)
		if err != nil {
			return "", fail(start, i, "this is not a string as Go writes them")
		}
		return s, nil
	}
	lineStart := true
	for i < len(text) {
		c := text[i]
		start := i
		if lineStart && c == '|' {
			end := strings.IndexByte(text[i:], '\n')
			if end < 0 {
				end = len(text) - i
			}
			out = append(out, token{kind: tokRaw, text: text[i+1 : i+end], start: i, end: i + end})
			i = min(i+end+1, len(text))
			continue
		}
		lineStart = false
		switch {
		case c == '\n':
			i++
			lineStart = true
			out = append(out, token{kind: tokLine, start: start, end: i})
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == ';':
			for i < len(text) && text[i] != '\n' {
				i++
			}
		case c == '"':
			s, err := quoted()
			if err != nil {
				return nil, err
			}
			out = append(out, token{kind: tokString, text: s, start: start, end: i})
		case c == '%' || c == '^' || c == '$',
			c == '@' && i+1 < len(text) && (isLetter(text[i+1]) || text[i+1] == '"' || text[i+1] == '#'):
			i++
			t := token{kind: tokLabel, sigil: c, start: start, id: -1}
			if i < len(text) && text[i] == '"' {
				s, err := quoted()
				if err != nil {
					return nil, err
				}
				t.name = s
			}
			j := i
			for i < len(text) && isWordByte(text[i]) {
				i++
			}
			rest := text[j:i]
			if c == '%' || c == '^' {
				dot := strings.LastIndexByte(rest, '.')
				if n, err := strconv.ParseInt(rest[dot+1:], 10, 32); err == nil && n >= 0 {
					t.id = int32(n)
					rest = rest[:max(dot, 0)]
				}
			} else if i < len(text) && text[i] == '#' {
				i++
				for i < len(text) && '0' <= text[i] && text[i] <= '9' {
					i++
				}
			}
			t.name += rest
			t.text, t.end = text[start+1:i], i
			if t.text == "" {
				return nil, fail(start, i, "a name has to follow %q", string(c))
			}
			out = append(out, t)
		case c == '!':
			i++
			for i < len(text) && (isWordByte(text[i]) || strings.IndexByte("/:@-", text[i]) >= 0) {
				i++
			}
			out = append(out, token{kind: tokPos, text: text[start+1 : i], start: start, end: i})
		case c == '-' && i+1 < len(text) && text[i+1] == '>':
			i += 2
			out = append(out, token{kind: tokPunct, sigil: '>', start: start, end: i})
		case c == '-' || '0' <= c && c <= '9':
			i++
			for i < len(text) && (isWordByte(text[i]) && text[i] != '.') {
				i++
			}
			out = append(out, token{kind: tokInt, text: text[start:i], start: start, end: i})
		case isWordByte(c) && c != '.':
			for i < len(text) && isWordByte(text[i]) {
				i++
			}
			out = append(out, token{kind: tokWord, text: text[start:i], start: start, end: i})
		case strings.IndexByte("()[]{},:=*?+@./", c) >= 0:
			i++
			out = append(out, token{kind: tokPunct, sigil: c, start: start, end: i})
		default:
			_, n := utf8.DecodeRuneInString(text[i:])
			return nil, fail(i, i+n, "the character %q has no meaning here", text[i:i+n])
		}
	}
	out = append(out, token{kind: tokLine, start: i, end: i}, token{kind: tokEOF, start: i, end: i})
	return out, nil
}
