package scriptgen

import (
	"fmt"
	"slices"
	"strings"
)

func (c *computer) block(depth int) step {
	visible := len(c.vars)
	c.indent++
	var steps []step
	for range 1 + c.n(4) {
		steps = append(steps, c.statement(depth))
	}
	c.indent--
	c.vars = c.vars[:visible]
	return sequence(steps)
}

// writable is a variable of a kind that may be changed here, nil for none.
func (c *computer) writable(k kind) *slot {
	var fit []*slot
	for _, v := range c.vars {
		if v.of.kind == k && !v.fixed {
			fit = append(fit, v)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[c.n(len(fit))]
}

var classes = []*class{
	i64, i64, i64, u64, word, flag, pairClass,
	{kind: integer, bits: 8},
	{kind: integer, bits: 16, signed: true},
	{kind: integer, bits: 32},
	{kind: integer, bits: 32, signed: true},
	{kind: integer, bits: 8, signed: true},
	{kind: tuple, fields: []*class{word, {kind: tuple, fields: []*class{u64, i64}}}},
	{kind: tuple, fields: []*class{i64, word}, names: []string{"num", "txt"}},
}

func (c *computer) statement(depth int) step {
	c.budget--
	n := 11
	if depth <= 0 || c.budget < 0 {
		n = 7
	}
	what := c.n(n)
	if c.inRoutine && (what == 3 || what == 4 || what == 6) {
		// What a function changes would make the order of operands matter.
		what = 0
	}
	switch what {
	case 0, 1:
		return c.define(depth)
	case 2:
		return c.change(depth)
	case 3:
		return c.store(depth)
	case 4:
		return c.count(depth)
	case 5:
		if c.loops == 0 && !c.inRoutine {
			return c.printTerm(c.term(classes[c.n(len(classes))], depth))
		}
		return c.change(depth)
	case 6:
		return c.look(depth)
	case 7:
		return c.branch(depth)
	case 8:
		return c.rangeLoop(depth)
	case 9:
		return c.whileLoop(depth)
	}
	if c.chance(50) {
		c.line("{")
		inner := c.block(depth - 1)
		c.line("}")
		return inner
	}
	times := 1 + c.n(4)
	c.line("unroll(%d) {", times)
	c.loops++
	body := c.block(min(depth-1, 1))
	c.loops--
	c.line("}")
	return repeat(body, func(i int) bool { return i < times })
}

// define makes a variable.
func (c *computer) define(depth int) step {
	t := classes[c.n(len(classes))]
	value := c.term(t, depth)
	v := &slot{name: c.name("$v"), of: t, value: t.zero()}
	switch {
	case t.kind == integer && t.bits < 64:
		wide := c.integer(t.signed, depth)
		c.line("let %s : %s = %s;", v.name, t.name(), wide.text)
		value.eval = func() any { return t.fit(wide.int()) }
	case c.chance(30):
		c.line("let %s = %s;", v.name, value.text)
	default:
		c.line("%s = %s;", v.name, value.text)
	}
	c.vars = append(c.vars, v)
	return func() jump {
		v.value = value.eval()
		return onward
	}
}

// change gives a variable another value.
func (c *computer) change(depth int) step {
	v := c.writable(integer)
	if v == nil || c.chance(20) {
		if v = c.writable([]kind{text, boolean, tuple}[c.n(3)]); v == nil {
			return c.define(depth)
		}
		x := c.term(v.of, depth)
		c.line("%s = %s;", v.name, x.text)
		return func() jump {
			v.value = x.eval()
			return onward
		}
	}
	switch c.n(4) {
	case 0:
		op := c.pick("++", "--")
		before := c.chance(50)
		text := v.name + op
		if before {
			text = op + v.name
		}
		by := int64(1)
		if op == "--" {
			by = -1
		}
		// What it gives is the value before, or the one after.
		if to := c.writable(integer); to != nil && to != v && same(to.of, v.of) && c.chance(50) {
			c.line("%s = %s;", to.name, text)
			return func() jump {
				old := v.value.(int64)
				v.value = v.of.fit(old + by)
				to.value = old
				if before {
					to.value = v.value
				}
				return onward
			}
		}
		c.line("%s;", text)
		return func() jump {
			v.value = v.of.fit(v.value.(int64) + by)
			return onward
		}
	case 1:
		x := c.integer(v.of.signed, depth)
		c.line("%s = %s;", v.name, x.text)
		return func() jump {
			v.value = v.of.fit(x.int())
			return onward
		}
	case 2:
		if v.of == i64 && c.chance(30) {
			x := c.integer(true, depth-1)
			c.line("bump(%s, %s);", v.name, x.text)
			return func() jump {
				v.value = v.value.(int64) + x.int()
				return onward
			}
		}
	}
	op := c.pick("+", "*", "&", "|", "^", "/", "%", "<<", ">>")
	if v.of.signed && c.chance(20) {
		op = "-"
	}
	x := c.integer(v.of.signed, depth)
	if op == "<<" || op == ">>" {
		n := int64(c.n(v.of.bits))
		x = term{fmt.Sprint(n), i64, func() any { return n }}
	}
	if op == "/" || op == "%" {
		// A constant that divides by zero is refused.
		of := x
		x.text, x.eval = fmt.Sprintf("(%s | 1)", of.text), func() any { return of.int() | 1 }
	}
	c.line("%s %s= %s;", v.name, op, x.text)
	return func() jump {
		v.value = v.of.fit(operate(op, v.of.signed, v.value.(int64), x.int()))
		return onward
	}
}

// plainTables are the maps that are no aggregations.
func (c *computer) plainTable(fits func(*table) bool) *table {
	fit := slices.DeleteFunc(slices.Clone(c.tables), func(t *table) bool { return t.agg != "" || !fits(t) })
	return fit[c.n(len(fit))]
}

func (c *computer) key(t *table, depth int) term {
	return c.keyOf(t, func(k *class) term { return c.term(k, min(depth-1, 2)) })
}

// store changes a map.
func (c *computer) store(depth int) step {
	m := c.plainTable(func(*table) bool { return true })
	key := c.key(m, depth)
	if m.of.kind == integer && c.chance(50) {
		if c.chance(40) {
			op := c.pick("++", "--")
			c.line("%s%s%s;", m.name, key.text, op)
			return func() jump {
				k := fmt.Sprint(key.eval())
				by := int64(1)
				if op == "--" {
					by = -1
				}
				m.values[k] = m.read(k).(int64) + by
				return onward
			}
		}
		op := c.pick("+", "*", "&", "|", "^")
		x := c.integer(m.of.signed, depth)
		c.line("%s%s %s= %s;", m.name, key.text, op, x.text)
		return func() jump {
			k := fmt.Sprint(key.eval())
			y := x.int()
			m.values[k] = operate(op, m.of.signed, m.read(k).(int64), y)
			return onward
		}
	}
	x := c.term(m.of, depth)
	c.line("%s%s = %s;", m.name, key.text, x.text)
	return func() jump {
		k := fmt.Sprint(key.eval())
		m.values[k] = x.eval()
		return onward
	}
}

// count feeds an aggregation.
func (c *computer) count(depth int) step {
	fit := slices.DeleteFunc(slices.Clone(c.tables), func(t *table) bool { return t.agg == "" })
	m := fit[c.n(len(fit))]
	key := c.key(m, depth)
	if m.agg == "count" {
		c.line("%s%s = count();", m.name, key.text)
		return func() jump {
			m.add(key.eval(), 1)
			return onward
		}
	}
	x := c.integer(true, depth)
	c.line("%s%s = %s(%s);", m.name, key.text, m.agg, x.text)
	return func() jump {
		k := key.eval()
		m.add(k, x.int())
		return onward
	}
}

// look asks a map for a key, or takes it away.
func (c *computer) look(depth int) step {
	m := c.plainTable(func(t *table) bool { return t.key != nil })
	key := c.key(m, depth)
	arg := asTuple(key.text, len(m.key))
	if c.chance(50) {
		if v := c.writable(boolean); v != nil {
			c.line("%s = delete(%s, %s);", v.name, m.name, arg)
			return func() jump {
				k := fmt.Sprint(key.eval())
				v.value = m.has(k)
				delete(m.values, k)
				return onward
			}
		}
		c.line("delete(%s, %s);", m.name, arg)
		return func() jump {
			delete(m.values, fmt.Sprint(key.eval()))
			return onward
		}
	}
	for _, v := range c.vars {
		if !v.fixed && same(v.of, m.of) {
			by := c.constant(i64)
			c.line("if (find(%s, %s, %s)) { @n ^= %s; }", m.name, arg, v.name, by.text)
			n := c.tables[0]
			return func() jump {
				if k := fmt.Sprint(key.eval()); m.has(k) {
					v.value = m.values[k]
					n.values[""] = n.read("").(int64) ^ by.int()
				}
				return onward
			}
		}
	}
	return c.store(depth)
}

func (c *computer) branch(depth int) step {
	k := c.condition(depth - 1)
	c.line("if (%s) {", k.text)
	then := c.block(depth - 1)
	other := sequence(nil)
	switch c.n(3) {
	case 0:
		k2 := c.condition(depth - 1)
		c.line("} else if %s {", k2.cast())
		second := c.block(depth - 1)
		c.line("} else {")
		third := c.block(depth - 1)
		other = func() jump {
			if k2.bool() {
				return second()
			}
			return third()
		}
	case 1:
		c.line("} else {")
		other = c.block(depth - 1)
	}
	c.line("}")
	return func() jump {
		if k.bool() {
			return then()
		}
		return other()
	}
}

// leave is a jump out of a loop, under a condition.
func (c *computer) leave() step {
	if !c.chance(40) {
		return sequence(nil)
	}
	k, to := c.condition(2), c.n(2)
	c.line("\tif (%s) { %s; }", k.text, []string{"break", "continue"}[to])
	return func() jump {
		if k.bool() {
			return []jump{breaks, continues}[to]
		}
		return onward
	}
}

// repeat carries out a body while more says so.
func repeat(body step, more func(int) bool) step {
	return func() jump {
		for i := 0; more(i); i++ {
			switch body() {
			case breaks:
				return onward
			case returns:
				return returns
			}
		}
		return onward
	}
}

func (c *computer) rangeLoop(depth int) step {
	if c.loops > 1 {
		return c.change(depth)
	}
	v := &slot{name: c.name("$i"), of: i64, value: int64(0), fixed: true}
	from, to := int64(c.n(10)-5), int64(c.n(20))
	hi := term{fmt.Sprint(to), i64, func() any { return to }}
	if c.chance(30) {
		x := c.integer(true, 1)
		hi = term{fmt.Sprintf("(%s & 15)", x.text), i64, func() any { return x.int() & 15 }}
	}
	c.line("for %s : %d..%s {", v.name, from, hi.text)
	c.loops++
	c.vars = append(c.vars, v)
	body := c.block(depth - 1)
	jumped := c.leave()
	c.vars = slices.DeleteFunc(c.vars, func(x *slot) bool { return x == v })
	c.loops--
	c.line("}")
	once := sequence([]step{body, jumped})
	return func() jump {
		end := hi.int()
		return repeat(func() jump {
			return once()
		}, func(i int) bool {
			v.value = from + int64(i)
			return from+int64(i) < end
		})()
	}
}

func (c *computer) whileLoop(depth int) step {
	if c.loops > 1 {
		return c.change(depth)
	}
	v := &slot{name: c.name("$w"), of: i64, value: int64(0), fixed: true}
	times := c.n(20)
	c.line("%s = 0; while (%s < %d) {", v.name, v.name, times)
	c.line("\t%s++;", v.name)
	c.loops++
	c.vars = append(c.vars, v)
	body := c.block(depth - 1)
	jumped := c.leave()
	c.vars = slices.DeleteFunc(c.vars, func(x *slot) bool { return x == v })
	c.loops--
	c.line("}")
	once := sequence([]step{body, jumped})
	return repeat(once, func(i int) bool {
		v.value = int64(i + 1)
		return i < times
	})
}

// makeRoutine writes a function of integers.
func (c *computer) makeRoutine() {
	r := &routine{name: c.name("f")}
	outer := c.vars
	c.vars = nil
	var params []string
	var slots []*slot
	for range 1 + c.n(4) {
		t := &class{kind: integer, bits: 8 << c.n(4), signed: c.chance(60)}
		v := &slot{name: c.name("$p"), of: t, value: int64(0)}
		r.params = append(r.params, t)
		slots = append(slots, v)
		params = append(params, fmt.Sprintf("%s : %s", v.name, t.name()))
	}
	r.result = &class{kind: integer, bits: 8 << c.n(4), signed: c.chance(60)}
	c.vars = slices.Clone(slots)
	c.line("fn %s(%s) : %s {", r.name, strings.Join(params, ", "), r.result.name())
	c.inRoutine, c.budget = true, 40
	c.indent++
	var steps []step
	for range c.n(3) {
		steps = append(steps, c.statement(2))
	}
	result := int64(0)
	if c.chance(50) {
		k, x := c.condition(2), c.integer(r.result.signed, 1)
		c.line("if (%s) { return %s; }", k.text, x.text)
		steps = append(steps, func() jump {
			if !k.bool() {
				return onward
			}
			result = x.int()
			return returns
		})
	}
	x := c.integer(r.result.signed, 2)
	c.line("return %s;", x.text)
	steps = append(steps, func() jump {
		result = x.int()
		return returns
	})
	c.indent--
	c.inRoutine = false
	c.line("}")
	c.vars = outer
	body := sequence(steps)
	r.call = func(args []int64) int64 {
		for i, v := range slots {
			v.value = args[i]
		}
		body()
		return r.result.fit(result)
	}
	c.routines = append(c.routines, r)
}
