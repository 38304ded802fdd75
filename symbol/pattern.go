package symbol

import (
	"bytes"
	"strings"
)

// A Pattern is a name in which each `*` stands for any run of bytes,
// the empty one included. Nothing else is special: `?` and `[` occur in
// demangled C++ names.
type Pattern struct {
	text  string
	parts []string // text split at '*'
	key   []byte   // the longest part, which every matching name contains
	tight *Pattern // the same without spaces that separate no words
	word  []byte   // an identifier that stands literally in every mangled name of a match
}

// NewPattern compiles text.
func NewPattern(text string) *Pattern {
	p := &Pattern{text: text, parts: strings.Split(text, "*")}
	longest := ""
	for _, part := range p.parts {
		if len(part) > len(longest) {
			longest = part
		}
	}
	p.key = []byte(longest)
	p.word = mangledWord(text)
	p.tight = p
	if tight := squeeze(text); tight != text {
		p.tight = NewPattern(tight)
	}
	return p
}

// IsWildcard reports whether text contains a wildcard.
func IsWildcard(text string) bool { return strings.IndexByte(text, '*') >= 0 }

func (p *Pattern) String() string { return p.text }

// Match reports whether the whole of name matches.
// Its time is linear in len(name) for each part of the pattern.
func (p *Pattern) Match(name string) bool {
	first := p.parts[0]
	if len(p.parts) == 1 {
		return name == first
	}
	last := p.parts[len(p.parts)-1]
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range p.parts[1 : len(p.parts)-1] {
		i := strings.Index(name, part)
		if i < 0 {
			return false
		}
		name = name[i+len(part):]
	}
	return true
}

// mayMatch is a cheap test that is true for every matching name.
func (p *Pattern) mayMatch(name []byte) bool { return bytes.Contains(name, p.key) }
