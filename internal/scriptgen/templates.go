package scriptgen

import (
	"fmt"
	"strings"
)

// A template is a piece of a script with holes in braces, such as {int}; see
// [gen.fill].
type template struct {
	text  string
	needs feature
}

// A feature is something that only some probes have.
type feature uint

const (
	registers feature = 1 << iota // reg
	hooked                        // a program of a probe, which functions of the script are not
	opaque                        // the value is for showing and keeping alone
	noKey                         // and cannot be a key
	argv                          // args.argv of execve
	taskFile                      // iter:task_file, whose file has a path
	socket                        // args.sk of a typed program
	kprobeOnly
	function // func
	watched  // a watchpoint
	writing  // a kernel that lets programs write to processes
	injected // a kernel function whose errors may be made up
)

// integers are expressions of integers.
var integers = []template{
	{text: "strlen({text})"},
	{text: "strncmp({text}, {text}, {small})"},
	{text: "strncmp({text}, {text}, {int})"},
	{text: "strstr({text}, {text})"},
	{text: "memcmp(\"abcd\", \"abce\", {three})"},
	{text: "memcmp(buf({text}, 8), buf({text}, 8), 8)"},
	{text: "strcap({text})"},
	{text: "bswap((uint16){int})"},
	{text: "bswap((uint32){int})"},
	{text: "bswap((uint64){int})"},
	{text: "sizeof(struct own)"},
	{text: "sizeof(uint32)"},
	{text: "sizeof(struct task_struct)"},
	{text: "offsetof(struct own, arr)"},
	{text: "offsetof(struct task_struct, pid)"},
	{text: "comptime (3 * 4 + 1)"},
	{text: "len(@byint)"},
	{text: "len(({int}, {text}))"},
	{text: "kaddr(\"vfs_read\")"},
	{text: "nsecs(boot)"},
	{text: "nsecs(monotonic)"},
	{text: "nsecs(tai)"},
	{text: "nsecs(sw_tai)"},
	{text: "pid(init)"},
	{text: "tid(init)"},
	{text: "pid(curr_ns)"},
	{text: "tid(curr_ns)"},
	{text: "ppid"},
	{text: "ppid(curtask)"},
	{text: "leader_tid"},
	{text: "jiffies"},
	{text: "ncpus"},
	{text: "numaid"},
	{text: "getopt(\"number\", {three})"},
	{text: "$1"},
	{text: "$#"},
	{text: "curtask.mm.total_vm"},
	{text: "curtask->real_parent->tgid"},
	{text: "curtask.sched_reset_on_fork"},
	{text: "curtask.cred.uid.val"},
	{text: "((struct task_struct *){int})->flags"},
	{text: "kptr(curtask).prio"},
	{text: "*(uint32 *)uptr({int})"},
	{text: "*(int16 *)kptr({int})"},
	{text: "((struct own *)kptr({int}))->lo"},
	{text: "((struct own *)uptr({int})).in.q"},
	{text: "((struct own *){int})->arr[{int} & 3]"},
	{text: "((uint16 *)kptr({int}))[{small}]"},
	{text: "(int64)((struct own *)uptr({int})).next"},
	{text: "((struct own *)uptr({int}))->next->x"},
	{text: "({int} ?: {int})"},
	{text: "({ let $@ = {int}; $@ * 3 })"},
	{text: "(if {bool} { {int} } else { {int} })"},
	{text: "(if ({bool}) { {int} } else if ({bool}) { 1 } else { 2 })"},
	{text: "(a={int}, b={text}).a"},
	{text: "({int}, ({int}, {text})).1.0"},
	{text: "({int}, {text})[0]"},
	{text: "({ let $@ = {text}; (int64)$@[0] })"},
	{text: "((uint8[8]){int})[{int} & 7]"},
	{text: "pton(\"10.1.2.3\")[{three}]"},
	{text: "twice({int})"},
	{text: "larger({int}, {int})"},
	{text: "rounds({int})"},
	{text: "AF_INET6"},
	{text: "SIGKILL"},
	{text: "BLUE"},
	{text: "(typeof({int})){int}"},
	{text: "(enum color){int}"},
	{text: "SIX"},
	{text: "ADD({int}, 2)"},
	{text: "'c'"},
	{text: "5ms"},
	{text: "(uint64)is_ptr(curtask)"},
	{text: "@count"},
	{text: "(int64)@avg[{text}]"},
	{text: "@sum[{int}]"},
	{text: "@min[{int}]"},
	{text: "@max"},
	{text: "*&@n"},
	{text: "cgroup"},
	{"reg(\"ip\")", registers},
	{"(int64)func", kprobeOnly},
	{"arg1", kprobeOnly},
}

var booleans = []template{
	{text: "has_key(@byint, {int})"},
	{text: "has_key(@two, ({int}, {text}))"},
	{text: "strcontains({text}, {text})"},
	{text: "is_err({int})"},
	{text: "kfunc_exist(\"bpf_iter_num_new\")"},
	{text: "is_str({text})"},
	{text: "is_integer({int})"},
	{text: "is_unsigned_integer({int})"},
	{text: "is_array(pton(\"::1\"))"},
	{text: "is_literal(5)"},
	{text: "is_ptr({int})"},
	{text: "(({int}, {text}) == ({int}, {text}))"},
	{text: "((a={int}, b={text}) != (a={int}, b={text}))"},
	{text: "(pton(\"1.2.3.4\") == pton(\"1.2.3.5\"))"},
	{text: "(buf({text}, 4) == buf({text}, 4))"},
	{text: "curtask"},
	{text: "has_cpid"},
	{text: "getopt(\"flag\")"},
	{text: "getopt(\"other\", true)"},
	{text: "delete(@byint, {int})"},
	{text: "delete(@two[{int}, {text}])"},
	{text: "(username == 0)"},
	{text: "(comm == curtask.comm)"},
	{text: "(bool){int}"},
	{"(probe == \"begin\")", hooked},
}

var texts = []template{
	{text: "str({text})"},
	{text: "str(uptr({int}))"},
	{text: "str(kptr({int}), {small})"},
	{text: "str(uptr({int}), ({int} & 31) + 1)"},
	{text: "pcomm"},
	{text: "pcomm(curtask)"},
	{text: "leader_comm"},
	{text: "curtask.group_leader.comm"},
	{text: "str($2)"},
	{text: "getopt(\"text\", \"default\")"},
	{text: "((string[8]){text})"},
	{text: "(if {bool} { {text} } else { {text} })"},
	{text: "(a={int}, b={text}).b"},
	{text: "({int}, ({int}, {text})).1.1"},
	{text: "(str((char *)uptr({int})) == {text} ? \"yes\" : \"no\")"},
	{"probetype", hooked},
	{"str(path(ctx.file.f_path))", taskFile},
}

// values are of types of their own. Each stands in a map and a variable of its
// number.
var values = []template{
	{text: "ntop((uint32){int})"},
	{text: "ntop(AF_INET, (uint32){int})"},
	{text: "ntop(pton(\"fe80::1\"))"},
	{text: "macaddr(uptr({int}))"},
	{text: "ksym({int})"},
	{text: "usym({int})", needs: hooked},
	{"kstack", hooked},
	{"kstack()", hooked},
	{"kstack(3)", hooked},
	{"kstack(perf, 5)", hooked},
	{"ustack", hooked},
	{"ustack(raw, 2)", hooked},
	{"ustack(build_id)", hooked},
	{"strftime(\"%H:%M:%f\", nsecs)", noKey},
	{text: "cgroup_path({int})"},
	{text: "cgroup_path(cgroup, \"unified\")"},
	{text: "username"},
	{text: "strerror({int})"},
	{text: "signal_name({int})"},
	{text: "syscall_name({int})"},
	{text: "buf({text}, {small})"},
	{text: "buf(uptr({int}), {small})"},
	{text: "buf(kptr({int}), tid + {int})"},
	{text: "(enum color){int}"},
	{"probe", hooked},
	{text: "(a={int}, b={text})"},
	{text: "({int}, ({int}, {text}), {bool})"},
	{text: "({int},)"},
	{text: "*(struct own *)uptr({int})"},
	{text: "(uint8[4])((uint32){int})"},
	{text: "curtask"},
	{text: "(struct own *)uptr({int})"},
	{text: "pton(\"1.2.3.4\")"},
	{text: "(ksym({int}), {text})"},
	{text: "(comm, buf({text}, 3), strerror({int}))"},
	{"(ustack(2), kstack(2))", hooked},
	{text: "curtask.comm"},
	{text: "&@n"},
	{text: "(ksym_t){int}"},
}

var statements = []template{
	{text: "time(\"%H:%M:%S\\n\");"},
	{text: "cat(\"/proc/%d/comm\", {int});"},
	{text: "errorf(\"%d %s\\n\", {int}, {text});"},
	{text: "warnf(\"%s\\n\", {text});"},
	{text: "assert({bool}, \"it does not hold\");"},
	{text: "static_assert(sizeof(uint32) == 4, \"no\");"},
	{text: "if ($# > 9) { fail(\"%d\", $#); }"},
	{text: "system(\"true %d\", {int});"},
	{text: "print(@byint, 3);"},
	{text: "print(@byint, 3, 2);"},
	{text: "print(@byint[{int}]);"},
	{text: "print(@pair[{int}]);"},
	{text: "clear(@two);"},
	{text: "zero(@count);"},
	{text: "delete(@byint[{int}]);"},
	{text: "delete(@n);"},
	{text: "_ = {int};"},
	{text: "signal({small});"},
	{text: "signal(\"SIGUSR1\");"},
	{text: "signal_thread(10);"},
	{"write_user({int}, curtask.comm, 4);", writing},
	{text: "printf(\"%*d|%-5s|%r|%rx|%rh|%c|%o|%X|%hhu|%.3s\\n\", {three}, {int}, {text}, buf({text}, 3), buf({text}, 3), buf({text}, 3), {int}, {int}, {int}, {int}, {text});"},
	{text: "printf(\"%s %d %s %s\\n\", {value}, {int}, {value}, {value});"},
	{text: "print({value});"},
	{text: "if (find(@byint, {int}, $@)) { @n = $@; }"},
	{text: "bump(@n, {int});"},
	{text: "hello({int});"},
	{text: "@tseries = tseries({int}, 1s, 10);"},
	{text: "@tseries2[{text}] = tseries({int}, 100ms, 5, \"max\");"},
	{text: "unroll(2) { print({int}); }"},
	{text: "++@byint[{int}];"},
	{text: "@byint[{int}] <<= {small};"},
	{text: "@n /= {int} | 1;"},
	{text: "@n %= 7;"},
	{text: "@flag = !@flag;"},
	{text: "let $@ : {type} = {int}; $@++; print($@);"},
	{text: "let $@; $@ = {text}; print($@);"},
	{text: "print(*&@n);"},
	{text: "$@ = (struct own *)uptr({int}); print($@->hi); print($@->in.q); print($@->name); @kept = *$@;"},
	{text: "$@ = (a={int}, b={text}); print($@.a); @rec[$@] = $@;"},
	{text: "$@ = (uint8[8]){int}; print($@); print($@[{int} & 7]);"},
	{"join(args.argv);", argv},
	{"join(args.argv, \",\");", argv},
	{"print(func); @func[func] = count();", function},
	{"print(reg(\"sp\"));", registers},
	{"override({int});", injected},
	{"print(path(ctx.file.f_path, 64));", taskFile},
	{"print(socket_cookie(args.sk));", socket},
	{"unwatch({int});", watched},
	{"print(ctx);", registers},
	{"if ({bool}) { return; }", hooked},
	{"@stacks[kstack, ustack(perf), comm] = count();", hooked},
	{"@us[ustack(5)] = sum({int});", hooked},
}

// preamble is what every script begins with: the types, constants, macros and
// functions that templates speak of.
const preamble = `#define SIX 6
#define ADD(a, b) ((a) + (b))
enum color { RED, GREEN = 5, BLUE };
struct own {
	int x;
	unsigned lo : 3;
	unsigned hi : 5;
	union { long d; int e; };
	char name[8];
	int arr[4];
	struct { int q; } in;
	struct own *next;
} __attribute__((aligned(8)));
%sconfig = { %s }
macro twice(x) { x + x }
macro bump(@m, by) { @m += by; }
fn larger($a : int64, $b : int64) : int64 { if $a > $b { return $a; } return $b; }
fn rounds($n : int64) : int64 { $r = 1; for $i : 0..$n & 15 { $r += $r ^ $n; if ($r > 1000) { break; } } return $r; }
fn hello($a : int64) { printf("hello %%d %%s\n", $a, comm); @byint[$a] = larger($a, pid); }
let @lru = lruhash(50);
let @percpu = percpuhash(20);
let @both = percpulruhash(10);
let @plain = hash(5);
`

// configs are settings to choose from.
var configs = []string{"", "max_strlen = 64", "max_strlen = 200; on_stack_limit = 64", "max_map_keys = 100", "print_maps_on_exit = false", "stack_mode = \"perf\"", "on_stack_limit = 0"}

// fits chooses among the templates that a probe can have.
func (g *gen) template(list []template) template {
	for {
		if t := list[g.n(len(list))]; t.needs&^(g.probe.has|opaque|noKey) == 0 {
			return t
		}
	}
}

// fill replaces the holes of a template: {int}, {bool} and {text} are
// expressions, {value} is one of any other type, {small} and {three} are
// constants below 8 and of 3 values, {type} names an integer type. $@ is a new
// variable.
func (g *gen) fill(text string, depth int) string {
	var b strings.Builder
	if strings.Contains(text, "$@") {
		g.names++
		text = strings.ReplaceAll(text, "$@", fmt.Sprintf("$t%d", g.names))
	}
	for {
		i := strings.IndexByte(text, '{')
		if i < 0 {
			break
		}
		j := strings.IndexByte(text[i:], '}') + i
		b.WriteString(text[:i])
		switch hole := text[i+1 : max(j, i+1)]; hole {
		case "int":
			b.WriteString(g.operand(depth))
		case "bool":
			b.WriteString(g.boolean(depth))
		case "text":
			b.WriteString(g.text(depth))
		case "value":
			b.WriteString(g.fill(g.template(values).text, depth))
		case "small":
			b.WriteString(fmt.Sprint(1 + g.n(7)))
		case "three":
			b.WriteString(fmt.Sprint(1 + g.n(3)))
		case "type":
			b.WriteString(g.pick("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"))
		default:
			b.WriteByte('{') // a block's
			text = text[i+1:]
			continue
		}
		text = text[j+1:]
	}
	b.WriteString(text)
	return b.String()
}

// operand is an integer that stands under a cast or operator.
func (g *gen) operand(depth int) string {
	if s := g.integer(depth); strings.HasPrefix(s, "{") {
		return "(" + s + ")"
	} else {
		return s
	}
}

// keep puts a value of its own type into a map, a variable, or both.
func (g *gen) keep(indent, depth int) {
	i := g.n(len(values))
	t := values[i]
	if t.needs&^(g.probe.has|opaque|noKey) != 0 {
		return
	}
	g.names++
	switch x := g.fill(t.text, depth); g.n(4) {
	case 0:
		g.line(indent, "@value%d = %s;", i, x)
		g.line(indent, "print(@value%d);", i)
	case 1:
		g.line(indent, "@values%d[%s] = %s;", i, g.integer(depth), x)
	case 2:
		if t.needs&noKey == 0 {
			g.line(indent, "@keys%d[%s, %s]++;", i, x, g.integer(depth))
		}
	case 3:
		g.line(indent, "$o%d = %s;", g.names, x)
		g.line(indent, "print($o%d);", g.names)
	}
}

// mapLoop runs over a map.
func (g *gen) mapLoop(indent, depth int) {
	over := []struct{ name, number string }{{"@byint", "$kv.1"}, {"@byint", "$kv.0"}, {"@two", "$kv.0.0"}, {"@text", "$kv.0"}, {"@pair", "$kv.1.0"}, {"@sum", "$kv.1"}, {"@counts", "$kv.1"}}[g.n(7)]
	g.names++
	v := fmt.Sprintf("$kv%d", g.names)
	g.line(indent, "for %s : %s {", v, over.name)
	g.loops++
	name := strings.ReplaceAll(over.number, "$kv", v)
	g.vars = append(g.vars, variable{name, integer})
	g.line(indent+1, "print(%s);", v)
	g.block(indent+1, depth-1)
	g.jump(indent + 1)
	g.vars = g.vars[:len(g.vars)-1]
	g.loops--
	g.line(indent, "}")
}
