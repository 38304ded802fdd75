package hook

import "strings"

// isWild reports whether a field is a pattern: it has a star, a question mark
// or a class in brackets.
func isWild(s string) bool {
	if strings.ContainsAny(s, "*?") {
		return true
	}
	open := strings.IndexByte(s, '[')
	return open >= 0 && strings.IndexByte(s[open:], ']') > 1
}

func (p Point) hasWildcard() bool {
	switch p.Kind {
	case Uprobe, Uretprobe:
		if p.Demangled {
			// A C++ name may hold stars and brackets of its own; a star also
			// matches itself.
			return isWild(p.Path) || strings.Contains(p.Func, "*")
		}
	case Profile, Interval, Watchpoint, AsyncWatchpoint:
		return false
	}
	for _, s := range []string{p.Module, p.Func, p.Subsystem, p.Event, p.Path, p.Namespace} {
		if isWild(s) {
			return true
		}
	}
	return false
}

// match reports whether name fits a pattern: * stands for any characters, ? for
// one, [a-c] for one of a class and [!a-c] for one outside of it. It takes time
// in proportion to the product of the lengths at worst.
func match(pattern, name string) bool {
	star, mark := -1, 0
	p, n := 0, 0
	for n < len(name) {
		if p < len(pattern) {
			if pattern[p] == '*' {
				star, mark = p, n
				p++
				continue
			}
			if width, ok := matchOne(pattern[p:], name[n]); ok {
				p += width
				n++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, n = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one character and returns how much of the pattern it took.
func matchOne(pattern string, c byte) (width int, ok bool) {
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		end := strings.IndexByte(pattern, ']')
		if end < 2 {
			break // a bracket that opens nothing stands for itself
		}
		class := pattern[1:end]
		negated := class[0] == '!' && len(class) > 1
		if negated {
			class = class[1:]
		}
		found := false
		for i := 0; i < len(class); i++ {
			if i+2 < len(class) && class[i+1] == '-' {
				found = found || class[i] <= c && c <= class[i+2]
				i += 2
				continue
			}
			found = found || class[i] == c
		}
		return end + 1, found != negated
	}
	return 1, pattern[0] == c
}
