package scriptgen

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
)

// term is an expression of a type.
func (c *computer) term(t *class, depth int) term {
	c.budget--
	if c.budget < 0 {
		depth = 0
	}
	switch t.kind {
	case boolean:
		return c.condition(depth)
	case text:
		return c.words(depth)
	case tuple:
		return c.tuple(t, depth)
	}
	if t.bits < 64 {
		x := c.integer(t.signed, depth-1)
		return term{fmt.Sprintf("(%s)%s", t.name(), x.cast()), t, func() any { return t.fit(x.int()) }}
	}
	return c.integer(t.signed, depth)
}

// readable are the variables of a type that can be read here.
func (c *computer) readable(t *class) []*slot {
	var fit []*slot
	for _, v := range c.vars {
		if same(v.of, t) {
			fit = append(fit, v)
		}
	}
	return fit
}

func same(a, b *class) bool {
	return a == b || a.kind == b.kind && a.bits == b.bits && a.signed == b.signed &&
		slices.Equal(a.names, b.names) && slices.EqualFunc(a.fields, b.fields, same)
}

// variable reads one of a type, when there is one.
func (c *computer) variable(t *class) (term, bool) {
	fit := c.readable(t)
	if len(fit) == 0 {
		return term{}, false
	}
	v := fit[c.n(len(fit))]
	return term{v.name, t, func() any { return v.value }}, true
}

// element reads an element of a map of a type.
func (c *computer) element(t *class, depth int) (term, bool) {
	var fit []*table
	for _, m := range c.tables {
		if same(m.of, t) {
			fit = append(fit, m)
		}
	}
	if len(fit) == 0 {
		return term{}, false
	}
	m := fit[c.n(len(fit))]
	key := c.keyOf(m, func(k *class) term { return c.term(k, min(depth-1, 1)) })
	text := m.name + key.text
	if m.agg != "" {
		text = fmt.Sprintf("(%s)%s", t.name(), text)
	}
	return term{text, t, func() any { return m.read(key.eval()) }}, true
}

// atom is an integer of 64 bits without operators.
func (c *computer) atom(signed bool) term {
	t := u64
	if signed {
		t = i64
	}
	if c.chance(60) {
		if v, ok := c.variable(t); ok {
			return v
		}
	}
	if c.chance(30) {
		// A narrow variable widens by itself.
		for _, bits := range []int{8, 16, 32} {
			if v, ok := c.variable(&class{kind: integer, bits: bits, signed: signed}); ok && c.chance(50) {
				return term{fmt.Sprintf("(%s)%s", t.name(), v.text), t, v.eval}
			}
		}
	}
	if c.chance(20) {
		if e, ok := c.element(t, 1); ok {
			return e
		}
	}
	return c.constant(t)
}

// integer is one of 64 bits.
func (c *computer) integer(signed bool, depth int) term {
	if depth <= 0 || c.chance(25) {
		return c.atom(signed)
	}
	t := u64
	if signed {
		t = i64
	}
	sub := func() term { return c.term(t, depth-1) }
	switch c.n(13) {
	case 0, 1, 2:
		x, y := sub(), sub()
		op := c.pick("+", "*", "&", "|", "^")
		if signed && c.chance(25) {
			op = "-"
		}
		return term{fmt.Sprintf("(%s %s %s)", x.text, op, y.text), t, func() any {
			a := x.int()
			return operate(op, signed, a, y.int())
		}}
	case 3:
		// Only a variable may be zero: a constant one is refused.
		x, op := sub(), c.pick("/", "%")
		y, ok := c.variable(t)
		text := y.text
		if !ok || c.chance(70) {
			plain := sub()
			text, y.eval = fmt.Sprintf("(%s | 1)", plain.text), func() any { return plain.int() | 1 }
		}
		return term{fmt.Sprintf("(%s %s %s)", x.text, op, text), t, func() any {
			a := x.int()
			return operate(op, signed, a, y.int())
		}}
	case 4:
		x, op := sub(), c.pick("<<", ">>")
		if c.chance(50) {
			n := int64(c.n(64))
			return term{fmt.Sprintf("(%s %s %d)", x.text, op, n), t, func() any { return operate(op, signed, x.int(), n) }}
		}
		y := c.term(t, depth-2)
		return term{fmt.Sprintf("(%s %s (%s & 63))", x.text, op, y.text), t, func() any {
			a := x.int()
			return operate(op, signed, a, y.int()&63)
		}}
	case 5:
		k, x, y := c.condition(depth-1), sub(), sub()
		return term{fmt.Sprintf("(%s ? %s : %s)", k.text, x.text, y.text), t, func() any {
			if k.bool() {
				return x.eval()
			}
			return y.eval()
		}}
	case 6:
		// Through a narrow type, or the other sign.
		via := &class{kind: integer, bits: 8 << c.n(4), signed: c.chance(50)}
		x := c.integer(c.chance(50), depth-1)
		return term{fmt.Sprintf("(%s)(%s)%s", t.name(), via.name(), x.cast()), t, func() any { return via.fit(x.int()) }}
	case 7:
		x := sub()
		op := "~"
		if signed && c.chance(50) {
			op = "-"
		}
		// Either gives a signed number.
		return term{fmt.Sprintf("((%s)(%s%s))", t.name(), op, x.cast()), t, func() any {
			if op == "-" {
				return -x.int()
			}
			return ^x.int()
		}}
	case 8:
		return c.bytesOf(t, depth-1)
	case 9:
		return c.counted(t, depth-1)
	case 10:
		if r := c.routine(); r != nil {
			return c.invoke(r, t, depth-1)
		}
		x, y, z := sub(), sub(), sub()
		return term{fmt.Sprintf("sum3(%s, %s, %s)", x.text, y.text, z.text), t, func() any {
			a, b := x.int(), y.int()
			return a + b*z.int()
		}}
	case 11:
		// A block, or an if, that has a value.
		if c.chance(50) {
			x, y := sub(), sub()
			v := c.name("$b")
			return term{fmt.Sprintf("{ let %s = %s; %s ^ %s }", v, x.text, v, y.text), t, func() any {
				a := x.int()
				return a ^ y.int()
			}}
		}
		k, x, y := c.condition(depth-1), sub(), sub()
		return term{fmt.Sprintf("(if %s { %s } else { %s })", k.cast(), x.text, y.text), t, func() any {
			if k.bool() {
				return x.eval()
			}
			return y.eval()
		}}
	}
	if e, ok := c.element(t, depth); ok {
		return e
	}
	return c.atom(signed)
}

// operate is what the language computes of two integers of 64 bits. To divide
// by zero gives nothing, and leaves everything, as on the kernel's machine
// (RFC 9669, 4.1).
func operate(op string, signed bool, a, b int64) int64 {
	ua, ub := uint64(a), uint64(b)
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "&":
		return a & b
	case "|":
		return a | b
	case "^":
		return a ^ b
	case "<<":
		return a << (ub & 63)
	case ">>":
		if signed {
			return a >> (ub & 63)
		}
		return int64(ua >> (ub & 63))
	case "/":
		switch {
		case b == 0:
			return 0
		case signed:
			return a / b
		}
		return int64(ua / ub)
	}
	switch {
	case b == 0:
		return a
	case signed:
		return a % b
	}
	return int64(ua % ub)
}

// bytesOf reads a part of a variable of 64 bits through a pointer.
func (c *computer) bytesOf(t *class, depth int) term {
	fit := append(c.readable(u64), c.readable(i64)...)
	fit = slices.DeleteFunc(fit, func(v *slot) bool { return v.fixed })
	if len(fit) == 0 || c.inRoutine {
		x := c.term(u64, depth)
		size := 8 << c.n(4)
		return term{fmt.Sprintf("(%s)bswap((uint%d)%s)", t.name(), size, x.cast()), t, func() any {
			return int64(bits.ReverseBytes64(uint64(x.int())) >> (64 - size))
		}}
	}
	v := fit[c.n(len(fit))]
	load := func(shift, width int, signed bool) func() any {
		return func() any {
			part := &class{kind: integer, bits: width, signed: signed}
			return part.fit(v.value.(int64) >> shift)
		}
	}
	view := fmt.Sprintf("((struct view *)&%s)", v.name)
	cast := "(" + t.name() + ")"
	switch c.n(7) {
	case 0:
		return term{cast + view + "->a", t, load(0, 8, false)}
	case 1:
		return term{cast + view + ".lo", t, load(8, 3, false)}
	case 2:
		return term{cast + view + "->hi", t, load(11, 5, false)}
	case 3:
		return term{cast + view + "->b", t, load(16, 16, true)}
	case 4:
		return term{cast + view + ".c", t, load(32, 32, true)}
	case 5:
		i := c.term(u64, depth-1)
		return term{fmt.Sprintf("%s((struct words *)&%s)->w[%s & 3]", cast, v.name, i.text), t, func() any {
			return load(16*int(i.int()&3), 16, false)()
		}}
	}
	i := c.n(8)
	return term{fmt.Sprintf("%s*((uint8 *)&%s + %d)", cast, v.name, i), t, load(8*i, 8, false)}
}

// counted are integers that strings, maps and types give.
func (c *computer) counted(t *class, depth int) term {
	cast := "(" + t.name() + ")"
	switch c.n(7) {
	case 0:
		s := c.words(depth)
		return term{cast + "strlen(" + s.text + ")", t, func() any { return int64(len(s.str())) }}
	case 1:
		x, y := c.words(depth), c.words(depth)
		return term{cast + "strstr(" + x.text + ", " + y.text + ")", t, func() any {
			a := x.str()
			return int64(strings.Index(a, y.str()))
		}}
	case 2:
		x, i := c.words(depth), c.term(u64, depth-1)
		v := c.name("$b")
		// Only what is before its end is the string's.
		return term{fmt.Sprintf("{ let %s = %s; (%s)(strlen(%s) > 0 ? (int64)%s[(%s) %% strlen(%s)] : -1) }", v, x.text, t.name(), v, v, i.text, v), t, func() any {
			s, n := x.str(), uint64(i.int())
			if s == "" {
				return int64(-1)
			}
			return int64(int8(s[n%uint64(len(s))]))
		}}
	case 3:
		m := c.tables[c.n(len(c.tables))]
		if m.key == nil {
			break
		}
		return term{cast + "len(" + m.name + ")", t, func() any { return int64(m.len()) }}
	case 4:
		return term{cast + "sizeof(struct view)", t, func() any { return int64(8) }}
	case 5:
		return term{cast + "offsetof(struct view, c)", t, func() any { return int64(4) }}
	}
	x := c.tuple(pairClass, depth)
	return term{cast + x.text + ".0", t, func() any { return x.eval().([]any)[0] }}
}

func (c *computer) condition(depth int) term {
	if v, ok := c.variable(flag); ok && c.chance(20) {
		return v
	}
	if depth <= 0 {
		return c.constant(flag)
	}
	switch c.n(9) {
	case 0, 1, 2:
		signed := c.chance(60)
		x, y := c.integer(signed, depth-1), c.integer(signed, depth-1)
		op := c.pick("==", "!=", "<", "<=", ">", ">=")
		return term{fmt.Sprintf("(%s %s %s)", x.text, op, y.text), flag, func() any {
			a := x.int()
			return compare(op, signed, a, y.int())
		}}
	case 3, 4:
		x, y, op := c.condition(depth-1), c.condition(depth-1), c.pick("&&", "||")
		return term{fmt.Sprintf("(%s %s %s)", x.text, op, y.text), flag, func() any {
			if op == "&&" {
				return x.bool() && y.bool()
			}
			return x.bool() || y.bool()
		}}
	case 5:
		x := c.condition(depth - 1)
		return term{"!" + x.cast(), flag, func() any { return !x.bool() }}
	case 6:
		x, y := c.words(depth-1), c.words(depth-1)
		switch c.n(4) {
		case 0:
			n := c.n(8)
			return term{fmt.Sprintf("(strncmp(%s, %s, %d) == 0)", x.text, y.text, n), flag, func() any {
				a, b := x.str(), y.str()
				return a[:min(n, len(a))] == b[:min(n, len(b))]
			}}
		case 1:
			return term{fmt.Sprintf("strcontains(%s, %s)", x.text, y.text), flag, func() any {
				a := x.str()
				return strings.Contains(a, y.str())
			}}
		case 2:
			return term{fmt.Sprintf("(%s != %s)", x.text, y.text), flag, func() any {
				a := x.str()
				return a != y.str()
			}}
		}
		return term{fmt.Sprintf("(%s == %s)", x.text, y.text), flag, func() any {
			a := x.str()
			return a == y.str()
		}}
	case 7:
		x, y := c.tuple(pairClass, depth-1), c.tuple(pairClass, depth-1)
		return term{fmt.Sprintf("(%s == %s)", x.text, y.text), flag, func() any {
			a := x.eval()
			return fmt.Sprintf("%#v", a) == fmt.Sprintf("%#v", y.eval())
		}}
	}
	m := c.tables[c.n(len(c.tables))]
	if m.key == nil {
		return c.constant(flag)
	}
	key := c.keyOf(m, func(k *class) term { return c.term(k, min(depth-1, 1)) })
	return term{fmt.Sprintf("has_key(%s, %s)", m.name, asTuple(key.text, len(m.key))), flag, func() any { return m.has(key.eval()) }}
}

// asTuple makes a key in brackets an argument.
func asTuple(key string, parts int) string {
	if parts == 1 {
		return key[1 : len(key)-1]
	}
	return "(" + key[1:len(key)-1] + ")"
}

func compare(op string, signed bool, a, b int64) bool {
	less := a < b
	if !signed {
		less = uint64(a) < uint64(b)
	}
	switch op {
	case "==":
		return a == b
	case "!=":
		return a != b
	case "<":
		return less
	case "<=":
		return less || a == b
	case ">":
		return !less && a != b
	}
	return !less
}

func (c *computer) words(depth int) term {
	if v, ok := c.variable(word); ok && c.chance(40) {
		return v
	}
	if depth <= 0 {
		return c.constant(word)
	}
	switch c.n(4) {
	case 0:
		k, x, y := c.condition(depth-1), c.words(depth-1), c.words(depth-1)
		return term{fmt.Sprintf("(%s ? %s : %s)", k.text, x.text, y.text), word, func() any {
			if k.bool() {
				return x.eval()
			}
			return y.eval()
		}}
	case 1:
		if e, ok := c.element(word, depth); ok {
			return e
		}
	case 2:
		x := c.tuple(pairClass, depth-1)
		return term{x.text + ".1", word, func() any { return x.eval().([]any)[1] }}
	}
	return c.constant(word)
}

func (c *computer) tuple(t *class, depth int) term {
	if v, ok := c.variable(t); ok && c.chance(50) {
		return v
	}
	if e, ok := c.element(t, depth); ok && depth > 0 && c.chance(30) {
		return e
	}
	return c.compound(t, func(f *class) term { return c.term(f, min(depth-1, 2)) })
}

// routine is one of the functions of the script, nil when there is none that
// may be called here.
func (c *computer) routine() *routine {
	if len(c.routines) == 0 || c.chance(30) {
		return nil
	}
	return c.routines[c.n(len(c.routines))]
}

func (c *computer) invoke(r *routine, t *class, depth int) term {
	args := make([]term, len(r.params))
	texts := make([]string, len(args))
	for i, p := range r.params {
		args[i] = c.integer(p.signed, depth-1)
		texts[i] = args[i].text
	}
	return term{fmt.Sprintf("(%s)%s(%s)", t.name(), r.name, strings.Join(texts, ", ")), t, func() any {
		values := make([]int64, len(args))
		for i, a := range args {
			values[i] = r.params[i].fit(a.int())
		}
		return r.call(values)
	}}
}
