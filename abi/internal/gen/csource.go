package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// tree is an unpacked kernel source.
type tree struct{ root string }

func (t tree) read(path string) string {
	b, err := os.ReadFile(filepath.Join(t.root, path))
	if err != nil {
		return ""
	}
	return stripComments(string(b))
}

// each calls f with every .c file below the given directories that holds the
// needle, in order.
func (t tree) each(dirs []string, needle string, f func(path, text string)) error {
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(t.root, dir), func(path string, d os.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".c") {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !bytes.Contains(b, []byte(needle)) {
				return nil
			}
			rel, err := filepath.Rel(t.root, path)
			if err == nil {
				f(filepath.ToSlash(rel), stripComments(string(b)))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

var comments = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`)

func stripComments(s string) string {
	s = strings.ReplaceAll(s, "\\\n", " ")
	return comments.ReplaceAllString(s, " ")
}

// block returns the text between the bracket at or after pos and its partner.
func block(s string, pos int, open, shut byte) (body string, end int) {
	start := strings.IndexByte(s[pos:], open)
	if start < 0 {
		return "", len(s)
	}
	start += pos
	depth := 0
	for n := start; n < len(s); n++ {
		switch s[n] {
		case open:
			depth++
		case shut:
			if depth--; depth == 0 {
				return s[start+1 : n], n + 1
			}
		}
	}
	return "", len(s)
}

// split cuts s at the commas outside brackets, and trims the parts.
func split(s string) []string {
	var parts []string
	depth, start := 0, 0
	for n := 0; n <= len(s); n++ {
		if n == len(s) || s[n] == ',' && depth == 0 {
			if part := squeeze(s[start:n]); part != "" {
				parts = append(parts, part)
			}
			start = n + 1
			continue
		}
		switch s[n] {
		case '(', '{', '[':
			depth++
		case ')', '}', ']':
			depth--
		}
	}
	return parts
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

// scope evaluates integer expressions over the macros and enumerators of some
// headers. The first definition of a name wins, as it does where generic
// headers ask whether an architecture has defined it.
type scope struct {
	exprs  map[string]string
	funcs  map[string]function
	values map[string]int64
	busy   map[string]bool
	order  []string
}

type function struct{ param, body string }

func newScope() *scope {
	return &scope{
		exprs: map[string]string{}, funcs: map[string]function{},
		values: map[string]int64{}, busy: map[string]bool{},
	}
}

func (s *scope) define(name, expr string) {
	if _, ok := s.exprs[name]; ok || name == "" {
		return
	}
	s.exprs[name] = expr
	s.order = append(s.order, name)
}

var (
	defineRE   = regexp.MustCompile(`(?m)^[ \t]*#[ \t]*define[ \t]+(\w+)(\((\w+)\))?[ \t]+(.+)$`)
	enumRE     = regexp.MustCompile(`\benum\b\s*(\w*)\s*\{`)
	directives = regexp.MustCompile(`(?m)^[ \t]*#.*$`)
)

// header adds the object-like macros, the macros of one parameter and the
// enumerators of a header.
func (s *scope) header(text string) {
	for _, m := range defineRE.FindAllStringSubmatch(text, -1) {
		if m[2] != "" {
			if _, ok := s.funcs[m[1]]; !ok {
				s.funcs[m[1]] = function{m[3], m[4]}
			}
			continue
		}
		if m[1] != squeeze(m[4]) { // enumerators that can be tested for
			s.define(m[1], squeeze(m[4]))
		}
	}
	text = directives.ReplaceAllString(text, "")
	for pos := 0; ; {
		m := enumRE.FindStringIndex(text[pos:])
		if m == nil {
			return
		}
		var body string
		body, pos = block(text, pos+m[0], '{', '}')
		previous := "-1"
		for _, e := range split(body) {
			name, expr, given := strings.Cut(e, "=")
			name = strings.TrimSpace(name)
			if !given {
				expr = "(" + previous + ") + 1"
			}
			s.define(name, squeeze(expr))
			previous = name
		}
	}
}

// value returns the value of name; ok is false when it is no integer constant.
func (s *scope) value(name string) (v int64, ok bool) {
	if v, ok := s.values[name]; ok {
		return v, true
	}
	expr, ok := s.exprs[name]
	if !ok || s.busy[name] {
		return 0, false
	}
	s.busy[name] = true
	defer delete(s.busy, name)
	v, err := s.eval(expr)
	if err != nil {
		return 0, false
	}
	s.values[name] = v
	return v, true
}

var tokenRE = regexp.MustCompile(`^(?:0[xX][0-9a-fA-F]+|[0-9]+|[A-Za-z_]\w*|'[^']'|<<|>>|[-+*/%~!&|^()?:<>])`)

type evaluator struct {
	s      *scope
	tokens []string
	pos    int
	err    error
}

func (s *scope) eval(expr string) (int64, error) {
	e := &evaluator{s: s}
	for rest := strings.TrimSpace(expr); rest != ""; rest = strings.TrimSpace(rest) {
		t := tokenRE.FindString(rest)
		if t == "" {
			return 0, fmt.Errorf("%q is not an expression", expr)
		}
		rest = rest[len(t):]
		if t[0] >= '0' && t[0] <= '9' {
			rest = strings.TrimLeft(rest, "uUlL")
		}
		e.tokens = append(e.tokens, t)
	}
	v := e.binary(0)
	if e.err == nil && e.pos < len(e.tokens) {
		e.fail()
	}
	return v, e.err
}

func (e *evaluator) peek() string {
	if e.pos < len(e.tokens) {
		return e.tokens[e.pos]
	}
	return ""
}

func (e *evaluator) fail() { e.err = fmt.Errorf("unexpected %q", e.peek()) }

var precedence = map[string]int{"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6, "/": 6, "%": 6}

func (e *evaluator) binary(least int) int64 {
	x := e.unary()
	for e.err == nil {
		op := e.peek()
		p, ok := precedence[op]
		if !ok || p <= least {
			break
		}
		e.pos++
		y := e.binary(p)
		switch op {
		case "|":
			x |= y
		case "^":
			x ^= y
		case "&":
			x &= y
		case "<<":
			x <<= uint64(y) & 63
		case ">>":
			x >>= uint64(y) & 63
		case "+":
			x += y
		case "-":
			x -= y
		case "*":
			x *= y
		default:
			if y == 0 {
				e.fail()
				return 0
			}
			if op == "/" {
				x /= y
			} else {
				x %= y
			}
		}
	}
	return x
}

func (e *evaluator) unary() int64 {
	t := e.peek()
	e.pos++
	switch {
	case t == "-":
		return -e.unary()
	case t == "+":
		return e.unary()
	case t == "~":
		return ^e.unary()
	case t == "(":
		switch e.peek() { // a cast
		case "int", "unsigned", "__u32", "u32", "__force", "gfp_t":
			for e.peek() != ")" && e.peek() != "" {
				e.pos++
			}
			e.pos++
			return e.unary()
		}
		v := e.binary(0)
		if e.peek() != ")" {
			e.fail()
		}
		e.pos++
		return v
	case t == "":
		e.fail()
		return 0
	case t[0] == '\'':
		return int64(t[1])
	case t[0] >= '0' && t[0] <= '9':
		v, err := strconv.ParseUint(t, 0, 64)
		if err != nil {
			e.err = err
		}
		return int64(v)
	}
	if e.peek() == "(" {
		f, ok := e.s.funcs[t]
		if !ok {
			e.pos--
			e.fail()
			return 0
		}
		e.pos++
		arg := e.binary(0)
		if e.peek() != ")" {
			e.fail()
		}
		e.pos++
		body := regexp.MustCompile(`\b`+f.param+`\b`).ReplaceAllString(f.body, fmt.Sprintf("(%d)", arg))
		v, err := e.s.eval(body)
		if err != nil {
			e.err = err
		}
		return v
	}
	v, ok := e.s.value(t)
	if !ok {
		e.pos--
		e.fail()
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
