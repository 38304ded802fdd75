package target

import (
	"fmt"
	"strconv"
	"strings"
)

// A Flag is a name for bits of a number.
type Flag struct {
	Name string
	Bits uint64
}

// GFPFlags are the names of the kernel's page allocation flags (gfp_t) in the
// order in which it prints them, as its own tracepoints have them: bits differ
// from kernel to kernel.
func GFPFlags(t Target) ([]Flag, error) {
	f, err := t.Format("kmem", "kmalloc")
	if err != nil {
		return nil, err
	}
	return printFlags(f, "gfp_flags", func(name string) (uint64, bool) {
		types, err := t.Types()
		if err != nil {
			return 0, false
		}
		e, err := types.Enumerator(name)
		if err != nil {
			return 0, false
		}
		return e.Value, true
	})
}

// printFlags reads the table of __print_flags(REC->field, ...) in the print
// format of an event. constant knows the values of the kernel's enumerators.
func printFlags(f *Format, field string, constant func(string) (uint64, bool)) ([]Flag, error) {
	_, rest, ok := strings.Cut(f.Print, "__print_flags(REC->"+field+",")
	if !ok {
		return nil, fmt.Errorf("the format of %s:%s does not name the flags of %s: %w", f.Subsystem, f.Name, field, ErrNotFound)
	}
	var flags []Flag
	for {
		// { EXPRESSION, "NAME" }, and a parenthesis after the last.
		open := strings.IndexAny(rest, "{)")
		if open < 0 || rest[open] == ')' {
			break
		}
		entry, after, ok := strings.Cut(rest[open+1:], "}")
		comma := strings.LastIndexByte(entry, ',')
		if !ok || comma < 0 {
			return nil, fmt.Errorf("the flags of %s:%s are not understood", f.Subsystem, f.Name)
		}
		text := strings.TrimSpace(entry[comma+1:])
		if strings.HasSuffix(text, "0)") || text == "NULL" {
			break // the end of the list, as newer kernels write it
		}
		name, err := strconv.Unquote(text)
		if err != nil {
			return nil, fmt.Errorf("the flags of %s:%s are not understood: %w", f.Subsystem, f.Name, err)
		}
		p := &flagParser{text: entry[:comma], constant: constant}
		bits, err := p.parse()
		if err != nil {
			return nil, fmt.Errorf("the flag %s of %s:%s is not understood: %w", name, f.Subsystem, f.Name, err)
		}
		flags = append(flags, Flag{name, bits})
		rest = after
	}
	return flags, nil
}

// A flagParser computes a constant expression of C with the operators that
// flags are made with.
type flagParser struct {
	text     string
	constant func(string) (uint64, bool)
	depth    int
}

func (p *flagParser) parse() (uint64, error) {
	n, err := p.binary(0)
	if err == nil && p.peek() != "" {
		err = fmt.Errorf("unexpected %q", p.peek())
	}
	return n, err
}

// flagOperators by precedence, the loosest first.
var flagOperators = []string{"|", "&", "<<", "+"}

func (p *flagParser) binary(level int) (uint64, error) {
	if level == len(flagOperators) {
		return p.unary()
	}
	x, err := p.binary(level + 1)
	for err == nil && p.peek() == flagOperators[level] {
		p.next()
		var y uint64
		if y, err = p.binary(level + 1); err != nil {
			break
		}
		switch flagOperators[level] {
		case "|":
			x |= y
		case "&":
			x &= y
		case "<<":
			x <<= y & 63
		default:
			x += y
		}
	}
	return x, err
}

// maxFlagDepth bounds how deep expressions nest.
const maxFlagDepth = 200

func (p *flagParser) unary() (uint64, error) {
	if p.depth++; p.depth > maxFlagDepth {
		return 0, fmt.Errorf("it nests too deep")
	}
	defer func() { p.depth-- }()
	switch tok := p.next(); {
	case tok == "~":
		n, err := p.unary()
		return ^n, err
	case tok == "(":
		if p.cast() {
			return p.unary()
		}
		n, err := p.binary(0)
		if err == nil && p.next() != ")" {
			err = fmt.Errorf("a parenthesis is missing")
		}
		return n, err
	case tok != "" && tok[0] >= '0' && tok[0] <= '9':
		return strconv.ParseUint(strings.TrimRight(tok, "uUlL"), 0, 64)
	case tok == "":
		return 0, fmt.Errorf("it ends too early")
	default:
		if n, ok := p.constant(tok); ok {
			return n, nil
		}
		return 0, fmt.Errorf("%q is not known", tok)
	}
}

// cast skips the words of a type and the parenthesis after them, when that is
// what follows.
func (p *flagParser) cast() bool {
	before := p.text
	words := 0
	for {
		tok := p.next()
		if tok == ")" && words > 0 {
			return true
		}
		if tok == "" || !isWord(tok[0]) || tok[0] <= '9' {
			break
		}
		if _, value := p.constant(tok); value {
			break
		}
		words++
	}
	p.text = before
	return false
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (p *flagParser) peek() string {
	before := p.text
	defer func() { p.text = before }()
	return p.next()
}

func (p *flagParser) next() string {
	p.text = strings.TrimLeft(p.text, " \t")
	n := 0
	switch {
	case p.text == "":
		return ""
	case isWord(p.text[0]):
		for n < len(p.text) && isWord(p.text[n]) {
			n++
		}
	case strings.HasPrefix(p.text, "<<"):
		n = 2
	default:
		n = 1
	}
	tok := p.text[:n]
	p.text = p.text[n:]
	return tok
}
