package scriptgen

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Options bound a script.
type Options struct {
	Probes     int // at most this many probes, at least one
	Statements int // at most this many in a block
	Depth      int // of nested statements and expressions
	// Kinds are the kinds of probes besides those that every kernel has:
	// "kprobe", "fentry", "perf" (registers of a sample); "write" is for
	// write_user and "inject" for override, which a kernel may be built without.
	Kinds []string
	// Binary is a Go program for probes of user space, "" for none.
	Binary string
}

// DefaultOptions give scripts of a few dozen lines.
var DefaultOptions = Options{Probes: 3, Statements: 5, Depth: 4}

// Script returns the script of a seed. Equal seeds and options give equal
// scripts. They take the parameters 5 and text, and need what is unsafe to be
// allowed: they are to be loaded and never attached, for they may signal, and
// write to, any process of the machine.
func Script(seed uint64, o Options) string {
	g := &gen{r: rand.New(rand.NewPCG(seed, 0x736b6570)), o: o}
	return g.script()
}

// kind is a type of the language as far as the generator tells them apart.
type kind int

const (
	integer kind = iota
	boolean
	text
	pair // (integer, text)
	tuple
	kinds
)

// A variable is one that can be read where the generator is.
type variable struct {
	name string
	kind kind
}

// A probe is a hook with the integers and strings that its body may read.
type probe struct {
	point    string
	integers []string
	strings  []string
	exits    bool // whether the body may call exit
	has      feature
	kind     string // of Options.Kinds, "" when every kernel has it
}

var probes = []probe{
	{point: "begin", exits: true},
	{point: "end"},
	{point: "self:signal:SIGUSR1"},
	{point: "interval:s:100", exits: true},
	{point: "tracepoint:syscalls:sys_enter_openat", integers: []string{"args.flags", "args.dfd", "args.mode"}, strings: []string{"str(args.filename)", "str(args.filename, 20)"}},
	{point: "tracepoint:syscalls:sys_exit_read", integers: []string{"args.ret"}},
	{point: "tracepoint:syscalls:sys_enter_read,tracepoint:syscalls:sys_enter_write", integers: []string{"args.fd", "args.count"}, strings: []string{"str(args.buf, args.count)"}},
	{point: "tracepoint:syscalls:sys_enter_execve", strings: []string{"str(args.filename)", "str(args.argv[0])", "str(args.envp[1])"}, has: argv},
	{point: "tracepoint:syscalls:sys_enter_dup*"},
	{point: "tracepoint:syscalls:sys_enter_connect", integers: []string{"((struct sockaddr *)args.uservaddr)->sa_family", "args.addrlen"}},
	{point: "tracepoint:sched:sched_switch", integers: []string{"args.prev_pid", "args.next_prio", "args.prev_state"}, strings: []string{"args.next_comm", "args.prev_comm"}},
	{point: "tracepoint:sched:sched_process_exec", integers: []string{"args.pid"}, strings: []string{"args.filename"}},
	{point: "tracepoint:raw_syscalls:sys_enter", integers: []string{"args.id", "args.args[1]", "args.args[pid & 3]"}},
	{point: "tracepoint:timer:hrtimer_start", integers: []string{"(int64)args.function", "args.expires"}},
	{point: "tracepoint:sched:sched_process_fork,tracepoint:sched:sched_process_exit,rawtracepoint:sched_switch,profile:hz:49,begin"},
	{point: "rawtracepoint:sched_switch", integers: []string{"args.prev.pid", "args.next->prio", "args.preempt", "arg0", "(uint64)args.next.mm.pgd", "args.prev.se.sum_exec_runtime"}, strings: []string{"args.prev.comm"}},
	{point: "rawtracepoint:sys_enter", integers: []string{"args.id", "arg1", "args.regs.ip", "args.regs.di"}, strings: []string{"str(uptr(args.regs.si))"}},
	{point: "rawtracepoint:sched_process_exec", integers: []string{"args.p.pid", "args.old_pid", "args.bprm.argc"}, strings: []string{"str(args.bprm.filename)"}},
	{point: "iter:task", integers: []string{"ctx.task.pid", "ctx.meta.seq_num"}, strings: []string{"ctx.task.comm"}},
	{point: "iter:task_file", integers: []string{"ctx.fd", "ctx.file.f_inode.i_ino"}, has: taskFile},
	{point: "profile:hz:99", kind: "perf", has: registers},
	{point: "software:page-faults:100", kind: "perf", has: registers, integers: []string{"ctx.addr"}},
	{point: "watchpoint:0xffffffff81000000:4:w", kind: "perf", has: registers | watched},
	{point: "kprobe:vfs_read", kind: "kprobe", has: registers | function | kprobeOnly, integers: []string{"arg0", "arg2", "args.count", "args.file.f_inode.i_ino", "sarg0"}, strings: []string{"str(args.buf)"}},
	{point: "kretprobe:vfs_read,kretprobe:vfs_write", kind: "kprobe", has: registers | function, integers: []string{"retval"}},
	{point: "kprobe:vfs_read,kprobe:vfs_write,tracepoint:sched:sched_switch", kind: "kprobe"},
	{point: "fentry:tcp_connect", kind: "fentry", has: socket, integers: []string{"args.sk.__sk_common.skc_dport", "args.sk.__sk_common.skc_family"}, strings: []string{"func"}},
	{point: "fexit:vfs_read", kind: "fentry", integers: []string{"retval", "args.count", "args.file.f_pos"}},
	{point: "uprobe:BINARY:runtime.mallocgc", kind: "user", has: registers | function, integers: []string{"arg0", "sarg1"}},
	{point: "uretprobe:BINARY:runtime.mallocgc", kind: "user", has: registers | function, integers: []string{"retval"}},
}

// available are the probes that the options allow.
func (o *Options) available() []probe {
	var list []probe
	for _, p := range probes {
		if p.kind == "" || p.kind == "user" && o.Binary != "" || slices.Contains(o.Kinds, p.kind) {
			p.point = strings.ReplaceAll(p.point, "BINARY", o.Binary)
			p.has |= hooked
			if slices.Contains(o.Kinds, "write") {
				p.has |= writing
			}
			if slices.Contains(o.Kinds, "inject") && p.has&kprobeOnly != 0 {
				p.has |= injected
			}
			list = append(list, p)
		}
	}
	return list
}

// Maps have fixed names and types, so that every use fits every other.
var maps = []struct {
	name  string
	key   []kind
	value kind
}{
	{"@n", nil, integer},
	{"@s", nil, text},
	{"@flag", nil, boolean},
	{"@byint", []kind{integer}, integer},
	{"@bytext", []kind{text}, integer},
	{"@text", []kind{integer}, text},
	{"@two", []kind{integer, text}, integer},
	{"@pair", []kind{integer}, pair},
	{"@lru", []kind{integer}, integer},
	{"@percpu", []kind{text}, integer},
	{"@both", []kind{integer}, text},
	{"@plain", []kind{integer, text}, pair},
}

// Aggregations are written by their function alone.
var aggregations = []struct {
	name string
	key  []kind
	call string // %s is an integer
}{
	{"@count", nil, "count()"},
	{"@counts", []kind{text}, "count()"},
	{"@sum", []kind{integer}, "sum(%s)"},
	{"@min", []kind{integer}, "min(%s)"},
	{"@max", nil, "max(%s)"},
	{"@avg", []kind{text}, "avg(%s)"},
	{"@stats", nil, "stats(%s)"},
	{"@hist", nil, "hist(%s)"},
	{"@hists", []kind{integer, text}, "hist(%s)"},
	{"@hist3", []kind{text}, "hist(%s, 3)"},
	{"@lhist", nil, "lhist(%s, 0, 1000, 100)"},
	{"@lhists", []kind{integer}, "lhist(%s, 0, 100, 10)"},
}

type gen struct {
	r     *rand.Rand
	o     Options
	b     strings.Builder
	probe *probe
	vars  []variable
	names int
	loops int
	// exprs bounds the expressions of one probe, so that sizes stay sane.
	exprs int
}

func (g *gen) n(n int) int                       { return g.r.IntN(n) }
func (g *gen) chance(percent int) bool           { return g.n(100) < percent }
func (g *gen) pick(list ...string) string        { return list[g.n(len(list))] }
func (g *gen) writef(format string, args ...any) { fmt.Fprintf(&g.b, format, args...) }

func (g *gen) script() string {
	include := ""
	if g.chance(30) {
		include = "#include <linux/sched.h>\n"
	}
	g.writef(preamble, include, configs[g.n(len(configs))])
	list := g.o.available()
	for range 1 + g.n(g.o.Probes) {
		p := list[g.n(len(list))]
		g.probe, g.vars, g.exprs = &p, nil, 0
		g.writef("%s", p.point)
		if g.chance(30) && p.point != "begin" && p.point != "end" {
			g.writef(" /%s/", g.filter())
		}
		g.writef(" {\n")
		g.block(1, g.o.Depth)
		g.writef("}\n")
	}
	g.define()
	return g.b.String()
}

// filter is a condition without blocks, where the body could seem to begin.
func (g *gen) filter() string {
	for {
		if s := g.boolean(2); !strings.Contains(s, "{") {
			return s
		}
	}
}

// define gives every map that the script speaks of a value, since reading one
// that never gets any is a mistake.
func (g *gen) define() {
	script := g.b.String()
	g.writef("end {\n")
	for _, m := range maps {
		if strings.Contains(script, m.name) {
			g.writef("\t%s%s = %s;\n", m.name, plainKey(m.key), plain[m.value])
		}
	}
	for _, a := range aggregations {
		if strings.Contains(script, a.name) {
			g.writef("\t%s%s = %s;\n", a.name, plainKey(a.key), strings.ReplaceAll(a.call, "%s", "1"))
		}
	}
	g.writef("}\n")
}

// plain are values of each kind.
var plain = [kinds]string{integer: "1", boolean: "true", text: `"text"`, pair: `(1, "text")`}

func plainKey(parts []kind) string {
	if len(parts) == 0 {
		return ""
	}
	list := make([]string, len(parts))
	for i, k := range parts {
		list[i] = plain[k]
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func (g *gen) block(indent, depth int) {
	visible := len(g.vars)
	for range 1 + g.n(g.o.Statements) {
		if g.exprs > 60 {
			break
		}
		g.statement(indent, depth)
	}
	g.vars = g.vars[:visible]
}

func (g *gen) line(indent int, format string, args ...any) {
	g.writef("%s", strings.Repeat("\t", indent))
	g.writef(format, args...)
	g.writef("\n")
}

func (g *gen) statement(indent, depth int) {
	simple := 13
	n := simple
	if depth > 0 {
		n += 7
	}
	what := g.n(n)
	switch {
	case what == 19:
		if g.loops < 2 {
			g.mapLoop(indent, depth)
		}
		return
	case what >= 11 && what < 13:
		g.keep(indent, min(depth, 2))
		return
	case what >= 9 && what < 11:
		g.line(indent, "%s", g.fill(g.template(statements).text, min(depth, 2)))
		return
	case what >= 13:
		what -= 4
	}
	switch what {
	case 0: // a new variable
		k := kind(g.n(int(kinds)))
		g.names++
		v := variable{fmt.Sprintf("$v%d", g.names), k}
		value := g.expr(k, depth)
		if g.chance(30) {
			g.line(indent, "let %s = %s;", v.name, value)
		} else {
			g.line(indent, "%s = %s;", v.name, value)
		}
		g.vars = append(g.vars, v)
	case 1: // change a variable
		if v, ok := g.variable(integer); ok {
			switch g.n(3) {
			case 0:
				g.line(indent, "%s %s %s;", v, g.pick("+=", "-=", "*=", "&=", "|=", "^="), g.operand(depth))
			case 1:
				g.line(indent, "%s%s;", v, g.pick("++", "--"))
			case 2:
				g.line(indent, "%s = %s;", v, g.integer(depth))
			}
			return
		}
		g.line(indent, "@n %s %s;", g.pick("=", "+=", "-=", "*=", "&=", "|=", "^="), g.operand(depth))
	case 2: // put into a map
		m := maps[g.n(len(maps))]
		g.line(indent, "%s%s = %s;", m.name, g.key(m.key, depth), g.expr(m.value, depth))
	case 3: // change a number in a map
		m := maps[g.n(len(maps))]
		if m.value != integer {
			g.line(indent, "@byint[%s]++;", g.integer(1))
			return
		}
		switch g.n(2) {
		case 0:
			g.line(indent, "%s%s%s;", m.name, g.key(m.key, depth), g.pick("++", "--"))
		case 1:
			g.line(indent, "%s%s %s %s;", m.name, g.key(m.key, depth), g.pick("+=", "-=", "|="), g.integer(depth))
		}
	case 4, 5: // an aggregation
		a := aggregations[g.n(len(aggregations))]
		call := a.call
		if strings.Contains(call, "%s") {
			call = fmt.Sprintf(call, g.integer(depth))
		}
		g.line(indent, "%s%s = %s;", a.name, g.key(a.key, depth), call)
	case 6: // printf
		g.printf(indent, depth)
	case 7:
		m := maps[3+g.n(len(maps)-3)]
		g.line(indent, "delete(%s, %s);", m.name, g.keyTuple(m.key, depth))
	case 8:
		switch g.n(6) {
		case 0:
			g.line(indent, "print(%s);", g.expr(kind(g.n(int(kinds))), depth))
		case 1:
			g.line(indent, "print(%s);", aggregations[g.n(len(aggregations))].name)
		case 2:
			g.line(indent, "clear(@byint); @byint[0] = 0;")
		case 3:
			g.line(indent, "time();")
		case 4:
			g.line(indent, "zero(@bytext); @bytext[\"\"] = 1;")
		case 5:
			if g.probe.exits && indent == 1 {
				g.line(indent, "if (%s) { exit(); }", g.boolean(1))
			}
		}
	case 9, 10:
		g.line(indent, "if (%s) {", g.boolean(depth-1))
		g.block(indent+1, depth-1)
		if g.chance(50) {
			g.line(indent, "} else {")
			g.block(indent+1, depth-1)
		}
		g.line(indent, "}")
	case 11:
		g.line(indent, "unroll(%d) {", 1+g.n(4))
		g.block(indent+1, min(depth-1, 1))
		g.line(indent, "}")
	case 12: // a counted loop
		if g.loops > 1 {
			return
		}
		g.names++
		v := fmt.Sprintf("$i%d", g.names)
		g.line(indent, "for %s : 0..%d {", v, 1+g.n(20))
		g.loops++
		g.vars = append(g.vars, variable{v, integer})
		g.block(indent+1, depth-1)
		g.jump(indent + 1)
		g.vars = g.vars[:len(g.vars)-1]
		g.loops--
		g.line(indent, "}")
	case 13:
		if g.loops > 1 {
			return
		}
		g.names++
		v := fmt.Sprintf("$w%d", g.names)
		g.line(indent, "%s = 0;", v)
		g.line(indent, "while (%s < %d) {", v, 1+g.n(20))
		g.line(indent+1, "%s++;", v)
		g.loops++
		// Not listed as readable: writes to it could make the loop endless.
		g.block(indent+1, depth-1)
		g.jump(indent + 1)
		g.loops--
		g.line(indent, "}")
	case 14:
		g.line(indent, "{")
		g.block(indent+1, depth-1)
		g.line(indent, "}")
	}
}

func (g *gen) jump(indent int) {
	if g.chance(30) {
		g.line(indent, "if (%s) { %s; }", g.boolean(1), g.pick("break", "continue"))
	}
}

func (g *gen) printf(indent, depth int) {
	var format strings.Builder
	var args []string
	for range g.n(4) {
		switch g.n(5) {
		case 0:
			format.WriteString(g.pick("%d ", "%5d ", "%-8d|", "%x ", "%#x ", "%lu ", "%lld ", "%08x "))
			args = append(args, g.integer(depth))
		case 1:
			format.WriteString(g.pick("%s ", "%-16s|", "%20s "))
			args = append(args, g.text(depth))
		case 2:
			format.WriteString("%c%% ")
			args = append(args, g.integer(1))
		case 3:
			format.WriteString("%s ")
			args = append(args, g.pair(depth))
		case 4:
			format.WriteString("%p ")
			args = append(args, g.integer(1))
		}
	}
	g.line(indent, "printf(\"%s\\n\"%s);", format.String(), prefixed(args))
}

func prefixed(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return ", " + strings.Join(args, ", ")
}

func (g *gen) key(parts []kind, depth int) string {
	if len(parts) == 0 {
		return ""
	}
	return "[" + g.keyParts(parts, depth) + "]"
}

func (g *gen) keyParts(parts []kind, depth int) string {
	list := make([]string, len(parts))
	for i, k := range parts {
		list[i] = g.expr(k, min(depth, 2))
	}
	return strings.Join(list, ", ")
}

func (g *gen) keyTuple(parts []kind, depth int) string {
	if len(parts) == 1 {
		return g.keyParts(parts, depth)
	}
	return "(" + g.keyParts(parts, depth) + ")"
}

// variable returns one of a kind that can be read here.
func (g *gen) variable(k kind) (string, bool) {
	var fit []string
	for _, v := range g.vars {
		if v.kind == k && !strings.HasPrefix(v.name, "$i") && !strings.HasPrefix(v.name, "$kv") {
			fit = append(fit, v.name)
		}
	}
	if len(fit) == 0 {
		return "", false
	}
	return fit[g.n(len(fit))], true
}

// readable is variable with those of loops.
func (g *gen) readable(k kind) (string, bool) {
	var fit []string
	for _, v := range g.vars {
		if v.kind == k {
			fit = append(fit, v.name)
		}
	}
	if len(fit) == 0 {
		return "", false
	}
	return fit[g.n(len(fit))], true
}

func (g *gen) expr(k kind, depth int) string {
	switch k {
	case integer:
		return g.integer(depth)
	case boolean:
		return g.boolean(depth)
	case text:
		return g.text(depth)
	}
	return g.pair(depth)
}

func (g *gen) integer(depth int) string {
	g.exprs++
	if depth <= 0 || g.chance(35) || g.exprs > 60 {
		return g.atom()
	}
	switch g.n(13) {
	case 9, 10, 11, 12:
		return g.fill(g.template(integers).text, depth-1)
	case 0, 1, 2:
		return fmt.Sprintf("(%s %s %s)", g.integer(depth-1), g.pick("+", "-", "*", "&", "|", "^"), g.integer(depth-1))
	case 3:
		return fmt.Sprintf("(%s %s %d)", g.integer(depth-1), g.pick("<<", ">>"), g.n(64))
	case 4:
		return fmt.Sprintf("(%s %s %s)", g.integer(depth-1), g.pick("/", "%"), g.divisor(depth-1))
	case 5:
		return fmt.Sprintf("(%s ? %s : %s)", g.boolean(depth-1), g.integer(depth-1), g.integer(depth-1))
	case 6:
		return fmt.Sprintf("(%s)%s", g.pick("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"), g.atomInParens())
	case 7:
		return fmt.Sprintf("%s%s", g.pick("-", "~"), g.atomInParens())
	}
	m := maps[g.n(len(maps))]
	if m.value != integer {
		return fmt.Sprintf("%s.0", g.pairAtom())
	}
	return m.name + g.key(m.key, depth-1)
}

func (g *gen) atomInParens() string { return "(" + g.atom() + ")" }

// divisor is an integer that is no constant zero.
func (g *gen) divisor(depth int) string {
	if g.chance(60) {
		return fmt.Sprint(1 + g.n(1000))
	}
	return "(uint64)" + g.pick("pid", "tid", "cpu", "rand")
}

func (g *gen) atom() string {
	if v, ok := g.readable(integer); ok && g.chance(40) {
		return v
	}
	if len(g.probe.integers) > 0 && g.chance(30) {
		return g.pick(g.probe.integers...)
	}
	switch g.n(4) {
	case 0:
		return fmt.Sprint(g.n(1000))
	case 1:
		return g.pick("0", "1", "0xff", "65535", "2147483647", "4294967295", "9223372036854775807", "1_000_000", "1e6", "0777")
	}
	return g.pick("pid", "tid", "uid", "gid", "cpu", "nsecs", "elapsed", "rand", "cgroup", "curtask.pid", "curtask.tgid", "curtask.flags", "curtask.prio")
}

func (g *gen) boolean(depth int) string {
	g.exprs++
	if v, ok := g.readable(boolean); ok && g.chance(20) {
		return v
	}
	if depth <= 0 {
		return g.pick("true", "false", "pid == 1", "cpu < 2", "tid != pid")
	}
	switch g.n(9) {
	case 6, 7, 8:
		return g.fill(g.template(booleans).text, depth-1)
	case 0, 1:
		return fmt.Sprintf("(%s %s %s)", g.integer(depth-1), g.pick("==", "!=", "<", "<=", ">", ">="), g.integer(depth-1))
	case 2:
		return fmt.Sprintf("(%s %s %s)", g.boolean(depth-1), g.pick("&&", "||"), g.boolean(depth-1))
	case 3:
		return fmt.Sprintf("!(%s)", g.boolean(depth-1))
	case 4:
		return fmt.Sprintf("(%s %s \"%s\")", g.text(depth-1), g.pick("==", "!="), g.pick("", "a", "bash", "systemd-journald", "a rather long string that is longer than comm"))
	}
	return "@flag"
}

func (g *gen) text(depth int) string {
	g.exprs++
	if v, ok := g.readable(text); ok && g.chance(30) {
		return v
	}
	if len(g.probe.strings) > 0 && g.chance(40) {
		return g.pick(g.probe.strings...)
	}
	switch g.n(9) {
	case 6, 7, 8:
		if depth > 0 {
			return g.fill(g.template(texts).text, depth-1)
		}
	case 0:
		return g.pick(`""`, `"x"`, `"hello"`, `"tab\t and \"quotes\""`, `"0123456789012345678901234567890123456789"`)
	case 1:
		return "@s"
	case 2:
		if depth > 0 {
			return fmt.Sprintf("@text[%s]", g.integer(depth-1))
		}
	case 3:
		if depth > 0 {
			return fmt.Sprintf("(%s ? %s : %s)", g.boolean(depth-1), g.text(depth-1), g.text(depth-1))
		}
	case 4:
		return fmt.Sprintf("%s.1", g.pairAtom())
	}
	return g.pick("comm", "curtask.comm")
}

func (g *gen) pairAtom() string {
	if v, ok := g.readable(pair); ok && g.chance(60) {
		return v
	}
	return fmt.Sprintf("@pair[%d]", g.n(10))
}

func (g *gen) pair(depth int) string {
	g.exprs++
	if g.chance(30) {
		return g.pairAtom()
	}
	return fmt.Sprintf("(%s, %s)", g.integer(min(depth-1, 2)), g.text(min(depth-1, 2)))
}
