package symbol

import (
	"bytes"
	"slices"
	"strings"

	"github.com/ianlancetaylor/demangle"
)

// maxMangled bounds the names that are demangled, and 2^maxDemangledPow the
// result: a short mangled name can stand for an exponentially long one.
const (
	maxMangled      = 4096
	maxDemangledPow = 13
)

// Demangle returns the readable form of a C++ (Itanium ABI) or Rust (v0 and
// legacy) symbol, without parameters and return type when params is false.
// Other names are returned as they are.
func Demangle(name string, params bool) string {
	if !mayBeMangled([]byte(name)) || len(name) > maxMangled {
		return name
	}
	opts := []demangle.Option{demangle.MaxLength(maxDemangledPow)}
	if !params {
		opts = append(opts, demangle.NoParams, demangle.NoEnclosingParams)
	}
	out := name
	// The demangler's own recover covers its parser, not its printer.
	if guard(func() error { out = demangle.Filter(name, opts...); return nil }) != nil {
		return name
	}
	return out
}

// mayBeMangled tells quickly that a name is not mangled.
func mayBeMangled(name []byte) bool {
	name = bytes.TrimPrefix(name, []byte("_"))
	return bytes.HasPrefix(name, []byte("Z")) || bytes.HasPrefix(name, []byte("_Z")) || bytes.HasPrefix(name, []byte("R"))
}

// MatchDemangled reports whether p matches the demangled form of name, with
// or without parameters. Spaces count only where they separate two words, so
// that `f(int,char*)` matches `f(int, char*)`.
func MatchDemangled(p *Pattern, name string) bool {
	short := Demangle(name, false)
	if short == name {
		return false
	}
	if p.Match(short) {
		return true
	}
	if !strings.ContainsAny(p.text, "(*") {
		return false
	}
	full := Demangle(name, true)
	return p.Match(full) || p.tight.Match(squeeze(full))
}

// abbreviated are the identifiers that the C++ ABI has short forms for.
var abbreviated = []string{
	"allocator", "basic_string", "string", "basic_istream", "basic_ostream", "basic_iostream",
	"istream", "ostream", "iostream", "operator",
}

// mangledWord returns the longest scope of a pattern that must also occur in
// the mangled form of what matches, since mangling keeps identifiers as they
// are; nil when there is none for sure. Demangling costs microseconds a name, so
// this makes a search of a large program fast.
func mangledWord(pattern string) []byte {
	path, _, _ := strings.Cut(pattern, "(")
	if strings.ContainsAny(path, " <{[&") {
		return nil
	}
	longest := ""
	for _, word := range strings.Split(path, "::") {
		plain := !strings.ContainsFunc(word, func(r rune) bool {
			return r != '_' && (r < '0' || r > '9') && (r|0x20 < 'a' || r|0x20 > 'z')
		})
		if plain && len(word) > max(3, len(longest)) && !slices.Contains(abbreviated, word) {
			longest = word
		}
	}
	if longest == "" {
		return nil
	}
	return []byte(longest)
}

// squeeze removes spaces that do not separate two words.
func squeeze(s string) string {
	if !strings.Contains(s, " ") {
		return s
	}
	word := func(c byte) bool {
		return c == '_' || c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' && (i == 0 || i+1 == len(s) || !word(s[i-1]) || !word(s[i+1])) {
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
