package scriptgen

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Computed returns the script of a seed, of begin probes that depend on
// nothing outside, and what it prints: the generator builds each expression
// and statement together with a closure that carries it out, by its own
// reading of the language and not by the compiler's.
//
// Where the language leaves something open, or bpftrace's releases differ, the
// script stays clear of it: operands of one operation have one signedness, and
// variables without a declared type hold 64 bits.
func Computed(seed uint64) (script, want string) {
	c := &computer{r: rand.New(rand.NewPCG(seed, 0x636f6d70))}
	return c.script()
}

// A class is a type of the values that Computed's scripts compute with.
type class struct {
	kind   kind // integer, boolean, text or tuple
	bits   int  // of an integer
	signed bool
	fields []*class
	names  []string // of a record's fields, nil for a tuple
}

var (
	i64  = &class{kind: integer, bits: 64, signed: true}
	u64  = &class{kind: integer, bits: 64}
	flag = &class{kind: boolean}
	word = &class{kind: text}
)

func (t *class) name() string {
	if t.kind == boolean {
		return "bool"
	}
	if t.signed {
		return fmt.Sprintf("int%d", t.bits)
	}
	return fmt.Sprintf("uint%d", t.bits)
}

// fit is what of n remains in an integer of t.
func (t *class) fit(n int64) int64 {
	shift := 64 - t.bits
	if t.signed {
		return n << shift >> shift
	}
	return int64(uint64(n) << shift >> shift)
}

// zero is the value that a map gives for a key it does not have.
func (t *class) zero() any {
	switch t.kind {
	case boolean:
		return false
	case text:
		return ""
	case tuple:
		list := make([]any, len(t.fields))
		for i, f := range t.fields {
			list[i] = f.zero()
		}
		return list
	}
	return int64(0)
}

// show is how print shows a value.
func (t *class) show(v any) string {
	switch t.kind {
	case integer:
		if t.signed {
			return fmt.Sprint(v.(int64))
		}
		return fmt.Sprint(uint64(v.(int64)))
	case tuple:
		var parts []string
		for i, f := range t.fields {
			part := f.show(v.([]any)[i])
			if t.names != nil {
				part = "." + t.names[i] + " = " + part
			}
			parts = append(parts, part)
		}
		if t.names != nil {
			return "{ " + strings.Join(parts, ", ") + " }"
		}
		return "(" + strings.Join(parts, ", ") + ")"
	}
	return fmt.Sprint(v)
}

// A term is an expression with its value.
type term struct {
	text string
	of   *class
	eval func() any
}

func (t term) int() int64   { return t.eval().(int64) }
func (t term) bool() bool   { return t.eval().(bool) }
func (t term) str() string  { return t.eval().(string) }
func (t term) cast() string { return "(" + t.text + ")" }

// A step is a statement's execution; it says how control goes on.
type step func() jump

type jump int

const (
	onward jump = iota
	breaks
	continues
	returns
)

func sequence(list []step) step {
	return func() jump {
		for _, s := range list {
			if j := s(); j != onward {
				return j
			}
		}
		return onward
	}
}

// A slot is a variable.
type slot struct {
	name  string
	of    *class
	value any
	fixed bool // counts a loop: only read
}

// A table is a map.
type table struct {
	name   string
	key    []*class // nil for a map without keys
	of     *class
	agg    string // its aggregation, "" for none
	values map[string]any
	seen   map[string]*tally
}

// A tally is what an aggregation knows.
type tally struct{ count, sum, min, max int64 }

type routine struct {
	name   string
	params []*class
	result *class
	call   func(args []int64) int64
}

type computer struct {
	r         *rand.Rand
	b         strings.Builder
	out       strings.Builder // what the script has printed
	vars      []*slot
	tables    []*table
	routines  []*routine
	names     int
	loops     int // around this place
	indent    int
	budget    int
	inRoutine bool
}

func (c *computer) n(n int) int             { return c.r.IntN(n) }
func (c *computer) chance(percent int) bool { return c.n(100) < percent }
func (c *computer) pick(list ...string) string {
	return list[c.n(len(list))]
}

func (c *computer) line(format string, args ...any) {
	c.b.WriteString(strings.Repeat("\t", c.indent))
	fmt.Fprintf(&c.b, format, args...)
	c.b.WriteByte('\n')
}

func (c *computer) name(prefix string) string {
	c.names++
	return fmt.Sprintf("%s%d", prefix, c.names)
}

// layout is the struct that bytes are read through; see fieldOf.
const layout = `struct view { uint8_t a; unsigned lo : 3; unsigned hi : 5; int16_t b; int32_t c; };
struct words { uint16_t w[4]; };
config = { print_maps_on_exit = false }
macro sum3(x, y, z) { x + y * z }
macro bump($v, by) { $v += by; }
`

func (c *computer) script() (script, want string) {
	c.b.WriteString(layout)
	c.makeTables()
	for range c.n(4) {
		c.makeRoutine()
	}
	for range 1 + c.n(2) {
		c.vars, c.budget = nil, 120
		c.line("begin {")
		c.indent++
		var steps []step
		for range 4 + c.n(8) {
			steps = append(steps, c.statement(4))
		}
		for _, v := range slices.Clone(c.vars) {
			steps = append(steps, c.show(v))
		}
		for _, t := range c.tables {
			steps = append(steps, c.showTable(t))
		}
		c.indent--
		c.line("}")
		sequence(steps)()
	}
	return c.b.String(), c.out.String()
}

func (c *computer) makeTables() {
	for _, t := range []*table{
		{name: "@n", of: i64},
		{name: "@u", of: u64},
		{name: "@s", of: word},
		{name: "@byint", key: []*class{i64}, of: i64},
		{name: "@bytext", key: []*class{word}, of: i64},
		{name: "@texts", key: []*class{i64}, of: word},
		{name: "@two", key: []*class{i64, word}, of: i64},
		{name: "@pairs", key: []*class{u64}, of: pairClass},
		{name: "@count", agg: "count", of: u64},
		{name: "@sums", agg: "sum", key: []*class{word}, of: i64},
		{name: "@min", agg: "min", of: i64},
		{name: "@max", agg: "max", key: []*class{i64}, of: i64},
		{name: "@avg", agg: "avg", of: i64},
	} {
		t.values, t.seen = map[string]any{}, map[string]*tally{}
		c.tables = append(c.tables, t)
	}
	// Each has its type from the start, wherever it is first used.
	c.line("end { if (false) { @u = (uint64)1; @pairs[(uint64)1] = ((int64)1, \"\"); } }")
	c.line("begin {")
	c.indent++
	for _, t := range c.tables {
		if t.agg != "" {
			arg := "(int64)5"
			if t.agg == "count" {
				arg = ""
			}
			key := c.plainKey(t)
			c.line("%s%s = %s(%s);", t.name, key.text, t.agg, arg)
			t.add(key.eval(), 5)
			continue
		}
		key := c.plainKey(t)
		v := c.constant(t.of)
		c.line("%s%s = %s;", t.name, key.text, v.text)
		t.values[fmt.Sprint(key.eval())] = v.eval()
	}
	c.indent--
	c.line("}")
}

var pairClass = &class{kind: tuple, fields: []*class{i64, word}}

// constant is a value that is written down.
func (c *computer) constant(t *class) term {
	switch t.kind {
	case boolean:
		v := c.chance(50)
		return term{fmt.Sprint(v), t, func() any { return v }}
	case text:
		s := c.pick("", "a", "abc", "hello", "hello world", "0123456789012345678901234567890123456789", "x\\ty")
		v := strings.ReplaceAll(s, `\t`, "\t")
		return term{`"` + s + `"`, t, func() any { return v }}
	case tuple:
		return c.compound(t, func(f *class) term { return c.constant(f) })
	}
	v := t.fit(c.number())
	text := fmt.Sprint(v)
	if !t.signed {
		text = fmt.Sprint(uint64(v))
	} else if v == -1<<63 {
		text = "(-9223372036854775807 - 1)"
	}
	return term{fmt.Sprintf("(%s)%s", t.name(), text), t, func() any { return v }}
}

// number is one near the places where mistakes are made, or small.
func (c *computer) number() int64 {
	switch c.n(6) {
	case 0:
		return int64(c.n(8))
	case 1:
		return 1<<c.n(64) - int64(c.n(3)) + 1
	case 2:
		return -(1 << c.n(63)) + int64(c.n(3)) - 1
	case 3:
		return int64(c.r.Uint64())
	}
	return int64(c.n(1000)) - 200
}

// compound is a tuple or record of what part gives.
func (c *computer) compound(t *class, part func(*class) term) term {
	parts := make([]term, len(t.fields))
	texts := make([]string, len(parts))
	for i, f := range t.fields {
		parts[i] = part(f)
		texts[i] = parts[i].text
		if t.names != nil {
			texts[i] = t.names[i] + "=" + texts[i]
		}
	}
	return term{"(" + strings.Join(texts, ", ") + ")", t, func() any {
		list := make([]any, len(parts))
		for i, p := range parts {
			list[i] = p.eval()
		}
		return list
	}}
}

func (c *computer) plainKey(t *table) term {
	return c.keyOf(t, func(k *class) term { return c.constant(k) })
}

// keyOf is a key with its brackets; its value is what values is indexed by.
func (c *computer) keyOf(t *table, part func(*class) term) term {
	if t.key == nil {
		return term{"", nil, func() any { return "" }}
	}
	parts := make([]term, len(t.key))
	texts := make([]string, len(t.key))
	for i, k := range t.key {
		parts[i] = part(k)
		texts[i] = parts[i].text
	}
	return term{"[" + strings.Join(texts, ", ") + "]", nil, func() any {
		list := make([]string, len(parts))
		for i, p := range parts {
			list[i] = fmt.Sprintf("%q", fmt.Sprint(p.eval()))
		}
		return strings.Join(list, ",")
	}}
}

func (t *table) add(key any, n int64) {
	k := fmt.Sprint(key)
	s := t.seen[k]
	if s == nil {
		s = &tally{min: n, max: n}
		t.seen[k] = s
	}
	s.count++
	s.sum += n
	s.min, s.max = min(s.min, n), max(s.max, n)
}

// read is the value of an element.
func (t *table) read(key any) any {
	k := fmt.Sprint(key)
	if t.agg == "" {
		if v, ok := t.values[k]; ok {
			return v
		}
		return t.of.zero()
	}
	s := t.seen[k]
	if s == nil {
		return int64(0)
	}
	switch t.agg {
	case "count":
		return s.count
	case "sum":
		return s.sum
	case "min":
		return s.min
	case "max":
		return s.max
	}
	return s.sum / s.count
}

// has reports whether there is an element.
func (t *table) has(key any) bool {
	k := fmt.Sprint(key)
	if t.agg != "" {
		return t.seen[k] != nil
	}
	_, ok := t.values[k]
	return ok
}

func (t *table) len() int { return len(t.values) + len(t.seen) }

// show prints a variable in a form for its type.
func (c *computer) show(v *slot) step {
	return c.printTerm(term{v.name, v.of, func() any { return v.value }})
}

// printTerm prints a value, by print or by a conversion of printf.
func (c *computer) printTerm(t term) step {
	format, show := "%s", t.of.show
	switch {
	case t.of.kind == integer && t.of.bits == 64:
		verb := c.pick("d", "5d", "-5d", "05d", "+d", "x", "#x", "X", "o", "20d", "-20d")
		if !t.of.signed {
			verb = c.pick("u", "x", "X", "o", "22u")
		}
		format = "%" + verb
		show = func(v any) string {
			switch verb[len(verb)-1] {
			case 'x':
				if v.(int64) == 0 {
					return "0" // C has no prefix here
				}
				fallthrough
			case 'u', 'X', 'o':
				return fmt.Sprintf("%"+strings.Replace(verb, "u", "d", 1), uint64(v.(int64)))
			}
			return fmt.Sprintf("%"+verb, v)
		}
	case t.of.kind == integer:
		format = map[bool]string{true: "%d", false: "%u"}[t.of.signed]
	case t.of.kind == boolean:
		format = "%d"
		show = func(v any) string { return map[bool]string{true: "1", false: "0"}[v.(bool)] }
	case t.of.kind == text:
		verb := c.pick("s", "10s", "-10s", ".3s")
		format = "%" + verb
		show = func(v any) string { return fmt.Sprintf("%"+verb, v) }
	}
	if c.chance(30) && t.of.kind != text && t.text[0] != '@' {
		c.line("print(%s);", t.text)
		show = t.of.show
	} else {
		c.line("printf(\"%s|\\n\", %s);", format, t.text)
		plain := show
		show = func(v any) string { return plain(v) + "|" }
	}
	return func() jump {
		c.out.WriteString(show(t.eval()) + "\n")
		return onward
	}
}

// showTable prints what can be known of a map without its order.
func (c *computer) showTable(t *table) step {
	if t.key == nil {
		return c.printTerm(term{t.name, t.of, func() any { return t.read("") }})
	}
	if t.of.kind == integer && c.chance(60) {
		sum := c.name("$sum")
		c.line("%s = (int64)0; for $kv : %s { %s += $kv.1; }", sum, t.name, sum)
		c.line("printf(\"%%d %%d\\n\", len(%s), %s);", t.name, sum)
		return func() jump {
			total := int64(0)
			for k := range t.values {
				total += t.values[k].(int64)
			}
			for k := range t.seen {
				total += t.read(k).(int64)
			}
			fmt.Fprintf(&c.out, "%d %d\n", t.len(), total)
			return onward
		}
	}
	c.line("printf(\"%%d\\n\", len(%s));", t.name)
	return func() jump {
		fmt.Fprintf(&c.out, "%d\n", t.len())
		return onward
	}
}
