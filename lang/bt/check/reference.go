package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/hook"
)

// An entry of the reference: how something is written, and what it is. A test
// holds the entries against the tables that the checker works by.
type entry struct{ form, text string }

// probeTexts say when a probe of a kind runs.
var probeTexts = map[hook.Kind]string{
	hook.Begin: "once, before all others", hook.End: "once, after all others",
	hook.Self: "when skep gets the signal", hook.Test: "with --test", hook.Bench: "with --bench, timed",
	hook.Kprobe:    "a function of the kernel; arg0, args.NAME",
	hook.Kretprobe: "where it returns; retval", hook.Fentry: "a function of the kernel, typed; args.NAME",
	hook.Fexit:      "where it returns; args.NAME, retval",
	hook.Tracepoint: "a tracepoint; args.NAME as skep list -v shows", hook.RawTracepoint: "a tracepoint, without the record; args.NAME, arg0",
	hook.Uprobe: "a function of a program or library; arg0, args.NAME", hook.Uretprobe: "where it returns; retval",
	hook.USDT: "a static probe; arg0, arg1", hook.Profile: "on every CPU, at a rate: hz, s, ms, us",
	hook.Interval: "on one CPU, at a rate: hz, s, ms, us", hook.Software: "every count events of the kernel",
	hook.Hardware: "every count events of the CPU", hook.Watchpoint: "access to an address: r, w, x",
	hook.AsyncWatchpoint: "as watchpoint", hook.Iter: "once for each object; ctx. With a pin, text of a file",
}

var builtinTexts = map[string]string{
	"pid": "process (thread group)", "tid": "thread", "uid": "user", "gid": "group", "ppid": "parent process",
	"leader_tid": "first thread of the process", "comm": "name of the thread", "pcomm": "name of the parent",
	"leader_comm": "name of the first thread", "nsecs": "ns since boot", "elapsed": "ns since the script began",
	"jiffies": "ticks since boot", "cpu": "CPU that runs it", "ncpus": "CPUs there are", "numaid": "NUMA node",
	"cgroup": "ID of the control group (v2)", "rand": "a random number", "probe": "name of the probe",
	"probetype": "kind of the probe", "func": "function it is in", "curtask": "struct task_struct of the thread",
	"args": "arguments by name", "retval": "what the function returns", "ctx": "context of the program",
	"usermode": "1 in user code, 0 in the kernel", "username": "user by name", "cpid": "process of -c",
	"has_cpid": "whether there is one", "kstack": "stack of the kernel", "ustack": "stack of the process",
}

var functionTexts = map[string]entry{
	"printf":        {"printf(format, ...)", "prints; %d %u %x %o %c %p %s %r %rx %rh %gr"},
	"errorf":        {"errorf(format, ...)", "prints an error, with its line"},
	"warnf":         {"warnf(format, ...)", "prints a warning, with its line"},
	"print":         {"print(x), print(@m [, top [, div]])", "prints a value, or a map"},
	"clear":         {"clear(@m)", "empties a map"},
	"zero":          {"zero(@m)", "sets all values of a map to 0"},
	"delete":        {"delete(@m, key), delete(@m[key])", "removes an element; whether it was there"},
	"has_key":       {"has_key(@m, key)", "whether an element is there"},
	"find":          {"find(@m, key, $x)", "whether it is there; puts it into $x"},
	"len":           {"len(@m), len(stack)", "number of elements or frames"},
	"exit":          {"exit([code])", "ends the script"},
	"count":         {"@ = count()", "how often"},
	"sum":           {"@ = sum(n)", "sum"},
	"min":           {"@ = min(n)", "least"},
	"max":           {"@ = max(n)", "most"},
	"avg":           {"@ = avg(n)", "average"},
	"stats":         {"@ = stats(n)", "count, average, total"},
	"hist":          {"@ = hist(n [, k])", "histogram by powers of two, each in 2^k parts"},
	"lhist":         {"@ = lhist(n, min, max, step)", "histogram by equal steps"},
	"tseries":       {"@ = tseries(n, interval, count [, agg])", "values over time"},
	"str":           {"str(pointer [, length])", "string at an address"},
	"buf":           {"buf(pointer [, length])", "bytes at an address"},
	"strlen":        {"strlen(s)", "length"},
	"strcap":        {"strcap(s)", "bytes that a string may have"},
	"strncmp":       {"strncmp(s, t, n)", "0 if the first n bytes are equal"},
	"strcontains":   {"strcontains(s, t)", "whether t is in s"},
	"strstr":        {"strstr(s, t)", "where t is in s, or -1"},
	"memcmp":        {"memcmp(p, q, n)", "0 if n bytes are equal"},
	"strerror":      {"strerror(n)", "text of an errno"},
	"signal_name":   {"signal_name(n)", "name of a signal"},
	"syscall_name":  {"syscall_name(n)", "name of a system call"},
	"join":          {"join(argv [, between])", "prints an array of strings"},
	"time":          {"time([format])", "prints the time of day"},
	"strftime":      {"strftime(format, nsecs)", "time of day of an event; %f: microseconds"},
	"cat":           {"cat(format, ...)", "prints a file"},
	"system":        {"system(format, ...)", "runs a shell command"},
	"fail":          {"fail(message, ...)", "fails at compile time, if it is not cut away"},
	"assert":        {"assert(condition, message)", "ends the script if it does not hold"},
	"static_assert": {"static_assert(condition, message)", "fails at compile time"},
	"ksym":          {"ksym(address)", "symbol of the kernel"},
	"usym":          {"usym(address)", "symbol of the process"},
	"kaddr":         {"kaddr(\"name\")", "address of a symbol of the kernel"},
	"percpu_kaddr":  {"percpu_kaddr(\"name\" [, cpu])", "address of a CPU's variable"},
	"uaddr":         {"uaddr(\"name\")", "address of a symbol of the binary"},
	"reg":           {"reg(\"name\")", "register"},
	"kptr":          {"kptr(p)", "p as a pointer into the kernel"},
	"uptr":          {"uptr(p)", "p as a pointer into the process"},
	"kstack":        {"kstack([mode,] [n])", "stack: bpftrace, perf, raw"},
	"ustack":        {"ustack([mode,] [n])", "stack: bpftrace, perf, raw, build_id"},
	"nsecs":         {"nsecs(clock)", "boot, monotonic, tai, sw_tai"},
	"pid":           {"pid(namespace)", "curr_ns, init"},
	"tid":           {"tid(namespace)", "curr_ns, init"},
	"ppid":          {"ppid(task)", "parent of a task"},
	"pcomm":         {"pcomm(task)", "name of a task's parent"},
	"comm":          {"comm(pid)", "name of a process"},
	"bswap":         {"bswap(n)", "bytes turned around"},
	"ntop":          {"ntop([family,] address)", "IP address as text"},
	"pton":          {"pton(\"address\")", "IP address as bytes"},
	"macaddr":       {"macaddr(bytes)", "MAC address"},
	"cgroupid":      {"cgroupid(\"path\")", "ID of a control group"},
	"cgroup_path":   {"cgroup_path(id [, filter])", "path of a control group"},
	"path":          {"path(struct path [, length])", "path of a file"},
	"socket_cookie": {"socket_cookie(sock)", "number of a socket"},
	"skboutput":     {"skboutput(file, skb, length, offset)", "writes a packet as pcap"},
	"getopt":        {"getopt(\"name\" [, default [, text]])", "parameter --name=value"},
	"is_err":        {"is_err(pointer)", "whether it is an error number"},
	"kfunc_exist":   {"kfunc_exist(\"name\")", "whether the kernel has it"},
	"kfunc_allowed": {"kfunc_allowed(\"name\")", "whether the probe may call it"},
	"is_ptr":        {"is_ptr(x)", "kind of an expression"},
	"is_str":        {"is_str(x)", "kind of an expression"},
	"is_integer":    {"is_integer(x)", "kind of an expression"},
	"is_unsigned_integer": {
		"is_unsigned_integer(x)", "kind of an expression",
	},
	"is_array":      {"is_array(x)", "kind of an expression"},
	"is_literal":    {"is_literal(x)", "kind of an expression"},
	"unwatch":       {"unwatch(address)", "removes a watchpoint"},
	"signal":        {"signal(\"NAME\" or n)", "sends a signal to the process"},
	"signal_thread": {"signal_thread(\"NAME\" or n)", "sends a signal to the thread"},
	"override":      {"override(n)", "makes a function return n"},
	"write_user":    {"write_user(pointer, value, length)", "writes into the process"},
}

const programText = `A script is a list of probes, with filters and bodies:

  PROBE, PROBE... /FILTER/ { STATEMENTS }

Before them may stand #include, #define, C struct, union and enum definitions, a
block config = { NAME = VALUE; ... } and import "FILE"; among them
  let @m = lruhash(1000);        a map's kind: hash, lruhash, percpuhash, percpulruhash
  macro name($x, @m) { ... }     pasted where it is called
  fn f($a : int64) : int64 { ... return $a; }
$1, $2... are parameters of the command line, $# is their number.
`

const statementsText = `  $x = 1; let $y : uint32 = 2;   scratch variables, of a block
  @m[k1, k2] = v; @n++;          maps; shown at the end, atomic ++
  += -= *= /= %= &= |= ^= <<= >>=  ++ --
  if c { } else if d { } else { }
  for $i : 0..10 { }             for $kv : @m { } has $kv.0 and $kv.1
  while c { }  unroll(3) { }     break; continue; return;
  a.b, a->b, *p, &$x, p[i]       structs of the kernel by BTF, of programs by DWARF
  (struct T *)e, (uint8)e        casts
  c ? a : b   c ?: b             { ...; value }
  (1, "x").0  (a=1, b=2).a       tuples, records
  5ms, 0xff, 1_000, 1e6, "a\n"   literals
  sizeof(T) offsetof(T, m) typeof(e) comptime e
`

// Reference is a page about what scripts may say, made of the tables that they
// are checked by.
func Reference() string {
	var b strings.Builder
	b.WriteString(programText)
	section := func(title string) { fmt.Fprintf(&b, "\n%s\n\n", title) }
	line := func(form, text string) {
		if len(form) > 30 {
			fmt.Fprintf(&b, "  %s\n  %30s  %s\n", form, "", text)
			return
		}
		fmt.Fprintf(&b, "  %-30s  %s\n", form, text)
	}
	section("Probes (skep list finds them; * and ? match; skep list -v shows arguments)")
	for _, s := range hook.Spellings() {
		form := s.Names[0]
		if s.Usage != "" {
			form += ":" + s.Usage
		}
		text := probeTexts[s.Kind]
		if len(s.Names) > 1 {
			text += " (" + strings.Join(s.Names[1:], ", ") + ")"
		}
		line(form, text)
	}
	section("Statements and expressions")
	b.WriteString(statementsText)
	section("Builtins")
	for _, name := range slices.Sorted(maps.Keys(builtins)) {
		form := name
		if t := builtins[name]; t != nil {
			form += " : " + t.String()
		}
		line(form, builtinTexts[name])
	}
	line("arg0, arg1, ... sarg0, ...", "arguments by number, in registers or on the stack")
	section("Functions (! needs --unsafe)")
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		e := functionTexts[name]
		if functions[name].Unsafe {
			e.text = "! " + e.text
		}
		line(e.form, e.text)
	}
	section("Settings: config = { NAME = VALUE }, or BPFTRACE_NAME in the environment")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "  %s\n", name)
	}
	return b.String()
}
