package syntax

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// units are the suffixes of durations, in nanoseconds.
var units = map[string]uint64{
	"ns": 1,
	"us": 1e3,
	"ms": 1e6,
	"s":  1e9,
	"m":  60e9,
	"h":  3600e9,
	"d":  24 * 3600e9,
}

// isCSuffix reports whether s is one of C's suffixes for integers.
func isCSuffix(s string) bool {
	switch strings.ToLower(s) {
	case "u", "l", "ul", "lu":
		return true
	case "ll", "ull", "llu":
		// The two must be alike: lL is no suffix.
		return strings.Contains(s, "ll") || strings.Contains(s, "LL")
	}
	return false
}

// A literalError says what is wrong with the bytes [start, end) of a literal.
type literalError struct {
	start, end int
	msg, note  string
}

// parseInt returns the value of an integer or duration, the latter in
// nanoseconds, and its suffix.
func parseInt(s string) (value uint64, suffix string, err *literalError) {
	fail := func(start, end int, format string, args ...any) (uint64, string, *literalError) {
		return 0, "", &literalError{start: start, end: end, msg: fmt.Sprintf(format, args...)}
	}
	base, i := uint64(10), 0
	switch {
	case len(s) > 1 && s[0] == '0' && s[1]|0x20 == 'x':
		base, i = 16, 2
	case len(s) > 1 && s[0] == '0' && s[1]|0x20 == 'b':
		base, i = 2, 2
	case len(s) > 1 && s[0] == '0' && (isDigit(s[1]) || s[1] == '_'):
		base, i = 8, 1
	}
	start := i
	var overflow bool
	for ; i < len(s); i++ {
		if s[i] == '_' {
			if i == start && base != 8 || i+1 == len(s) || s[i-1] == '_' {
				return fail(i, i+1, "an underscore must stand between two digits")
			}
			continue
		}
		d, ok := digit(s[i], base)
		if !ok {
			break
		}
		if d >= base {
			return fail(i, i+1, "%q is no digit of an octal number, which a leading 0 makes this", s[i])
		}
		hi, lo := bits.Mul64(value, base)
		var carry uint64
		value, carry = bits.Add64(lo, d, 0)
		overflow = overflow || hi != 0 || carry != 0
	}
	if i == start && base != 8 {
		return fail(0, len(s), "number %s has no digits", s)
	}
	if s[i-1] == '_' {
		return fail(i-1, i, "an underscore must stand between two digits")
	}
	if base == 10 && i < len(s) && s[i]|0x20 == 'e' {
		from := i
		exp := 0
		for i++; i < len(s) && (isDigit(s[i]) || s[i] == '_'); i++ {
			if s[i] != '_' {
				exp = min(exp*10+int(s[i]-'0'), 1000)
			}
		}
		if i == from+1 || s[i-1] == '_' {
			return fail(from, i, "the exponent of %s has no digits", s)
		}
		for ; exp > 0 && value != 0; exp-- {
			hi, lo := bits.Mul64(value, 10)
			overflow = overflow || hi != 0
			value = lo
			if overflow {
				break
			}
		}
	}
	suffix = s[i:]
	switch unit, ok := units[suffix]; {
	case suffix == "" || isCSuffix(suffix):
	case ok && base != 10 && (value != 0 || base != 8):
		return fail(i, len(s), "a duration is a decimal number")
	case ok:
		hi, lo := bits.Mul64(value, unit)
		overflow = overflow || hi != 0
		value = lo
	default:
		_, _, err := fail(i, len(s), "%q is no suffix of a number", suffix)
		err.note = "there are the units ns, us, ms, s, m, h, d and the suffixes U, L, LL, UL, ULL of C"
		return 0, "", err
	}
	if overflow {
		return fail(0, len(s), "%s does not fit into 64 bits: the largest number is %d", s, uint64(math.MaxUint64))
	}
	return value, suffix, nil
}

// digit returns the value of c as a digit. Octal numbers take 8 and 9 too, so
// that they can be told from a suffix.
func digit(c byte, base uint64) (uint64, bool) {
	switch {
	case c >= '0' && c <= '9':
		d := uint64(c - '0')
		return d, base != 2 || d < 2
	case base == 16 && c|0x20 >= 'a' && c|0x20 <= 'f':
		return uint64(c|0x20-'a') + 10, true
	}
	return 0, false
}

// unquote resolves the escapes of a literal as written, with its quotes. A
// missing closing quote is no error here.
func unquote(s string) (string, *literalError) {
	quote := s[0]
	body := s[1:]
	if n := len(body); n > 0 && body[n-1] == quote && !escaped(body[:n-1]) {
		body = body[:n-1]
	}
	if strings.IndexByte(body, '\\') < 0 {
		return body, nil
	}
	var b strings.Builder
	b.Grow(len(body))
	var bad *literalError
	fail := func(start, end int, format string, args ...any) {
		if bad == nil {
			bad = &literalError{start: start + 1, end: end + 1, msg: fmt.Sprintf(format, args...)}
		}
	}
	for i := 0; i < len(body); {
		if body[i] != '\\' {
			b.WriteByte(body[i])
			i++
			continue
		}
		start := i
		i++
		if i == len(body) {
			fail(start, i, "a backslash must be followed by what it escapes")
			break
		}
		c := body[i]
		i++
		switch c {
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'a':
			b.WriteByte('\a')
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'v':
			b.WriteByte('\v')
		case 'e':
			b.WriteByte(0x1b)
		case '"', '\\', '\'', '?':
			b.WriteByte(c)
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v := int(c - '0')
			for n := 0; n < 2 && i < len(body) && body[i] >= '0' && body[i] <= '7'; n++ {
				v = v*8 + int(body[i]-'0')
				i++
			}
			if v > 255 {
				fail(start, i, `the octal escape %s is above \377`, body[start:i])
			}
			b.WriteByte(byte(v))
		case 'x', 'X':
			v, n := 0, 0
			for ; n < 2 && i < len(body); n++ {
				d, ok := digit(body[i], 16)
				if !ok {
					break
				}
				v = v*16 + int(d)
				i++
			}
			if n == 0 {
				fail(start, i, `\%c must be followed by one or two hexadecimal digits`, c)
			}
			b.WriteByte(byte(v))
		default:
			_, n := utf8.DecodeRuneInString(body[i-1:])
			i += n - 1
			fail(start, i, `%s is no escape; for a backslash write \\`, body[start:i])
			b.WriteString(body[start:i])
		}
	}
	return b.String(), bad
}

// escaped reports whether what follows s is escaped by a backslash.
func escaped(s string) bool {
	n := 0
	for n < len(s) && s[len(s)-1-n] == '\\' {
		n++
	}
	return n%2 == 1
}

// quote writes s as a string literal that reads back as s.
func quote(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 2)
	b.WriteByte('"')
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c == '\r':
			b.WriteString(`\r`)
		case c < ' ' || c == 0x7f || r == utf8.RuneError && n == 1:
			// Octal always takes three digits, so no digit that follows joins it.
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	b.WriteByte('"')
	return b.String()
}
