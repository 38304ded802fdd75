//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A hookCost is a kind of hook with a script that counts its events, and the
// operation of the load that is one.
type hookCost struct {
	name, script, op string
	n                int
	guest            bool // the kernel that skep is developed on may lack it
}

// hookCosts are the kinds of hooks that are compared. LOAD is the path of the
// load. BTF knows the function of a system call without arguments by its inner
// name alone.
var hookCosts = []hookCost{
	{"raw tracepoint", `rawtracepoint:sys_enter { @ = count(); }`, "syscall", 100_000, false},
	{"tracepoint of a system call", `tracepoint:syscalls:sys_enter_getppid { @ = count(); }`, "syscall", 100_000, false},
	{"tracepoint whose fields are read", `tracepoint:raw_syscalls:sys_enter /args.id >= 0/ { @ = count(); }`, "syscall", 100_000, false},
	{"fentry", `fentry:__do_sys_getppid { @ = count(); }`, "syscall", 100_000, true},
	{"fexit", `fexit:__do_sys_getppid { @ = count(); }`, "syscall", 100_000, true},
	{"kprobe", `kprobe:__do_sys_getppid { @ = count(); }`, "syscall", 100_000, true},
	{"kretprobe", `kretprobe:__do_sys_getppid { @ = count(); }`, "syscall", 100_000, true},
	{"uprobe", `uprobe:LOAD:function { @ = count(); }`, "function", 20_000, false},
	{"uretprobe", `uretprobe:LOAD:function { @ = count(); }`, "function", 20_000, false},
	{"USDT", `usdt:LOAD:skep:hit { @ = count(); }`, "usdt", 20_000, false},
}

// hookNames lists the kinds of hooks; live leaves out what only guests have.
func hookNames(live bool) []string {
	var names []string
	for _, h := range hookCosts {
		if !live || !h.guest {
			names = append(names, h.name)
		}
	}
	return names
}

// measureHooks returns what an event of each hook costs in nanoseconds, by
// name: medians of reps interleaved runs with the skep of a directory.
// Each run makes as many events as hookCosts says, divided by less.
func measureHooks(dir string, names []string, reps, less int) (map[string]float64, error) {
	all := map[string][]float64{}
	for n := range reps {
		progress("  run %d of %d", n+1, reps)
		for _, h := range hookCosts {
			if !slices.Contains(names, h.name) {
				continue
			}
			script := strings.ReplaceAll(h.script, "LOAD", filepath.Join(dir, loadName))
			ns, err := added(dir, skepIn(dir), script, h.op, h.n/less)
			if err != nil {
				return nil, err
			}
			all[h.name] = append(all[h.name], ns)
		}
	}
	costs := map[string]float64{}
	for name, list := range all {
		costs[name] = median(list, self)
	}
	return costs, nil
}

// Guests measure less often and shorter: their CPUs are emulated, and slow.
const guestReps, guestLess = 2, 5

// printHookCosts is what this program does inside a guest.
func printHookCosts(dir string, names []string) error {
	costs, err := measureHooks(dir, names, guestReps, guestLess)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(costs)
}

// hooks is what an event of each kind of hook costs, here and in guests.
func (b *bencher) hooks() error {
	columns := []string{"here"}
	live, err := measureHooks(b.dir, hookNames(true), b.dear(2), 1)
	if err != nil {
		return err
	}
	costs := []map[string]float64{live}
	progress("  guests (some minutes)")
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkHooksOfGuests$", "-benchtime", "1x", "-timeout", "15m", module+"/internal/bench")
	cmd.Env = append(os.Environ(), toolsEnv+"="+b.dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	for _, g := range guestCosts(string(out)) {
		columns, costs = append(columns, g.kernel), append(costs, g.costs)
	}
	if len(costs) == 1 {
		return fmt.Errorf("%s: no guest measured anything:\n%s", cmd, out)
	}
	fmt.Fprint(&b.out, "\n### What an event costs, by kind of hook\n\nNanoseconds that a script which counts adds to what it traces, and how many times a raw tracepoint that is.\nGuests emulate their CPU: only their ratios tell something.\n\n| hook | script |")
	for _, c := range columns {
		fmt.Fprintf(&b.out, " %s, ns | ratio |", c)
	}
	b.out.WriteString("\n|---|---|" + strings.Repeat("---:|", 2*len(columns)) + "\n")
	for _, h := range hookCosts {
		fmt.Fprintf(&b.out, "| %s | `%s` |", h.name, h.script)
		for _, c := range costs {
			ns, ok := c[h.name]
			if !ok {
				b.out.WriteString(" | |")
				continue
			}
			fmt.Fprintf(&b.out, " %.0f | %.1f |", ns, ns/c[hookCosts[0].name])
		}
		b.out.WriteByte('\n')
	}
	return nil
}

// toolsEnv is the variable that names the directory of what is measured to the
// benchmark that boots guests.
const toolsEnv = "SKEP_BENCH_TOOLS"

// A guestCost is what the hooks of a kernel cost.
type guestCost struct {
	kernel string
	costs  map[string]float64
}

var metric = regexp.MustCompile(`([0-9.e+-]+) ([\w-]+)-ns\b`)

// guestCosts reads the output of the benchmark that boots guests.
func guestCosts(out string) []guestCost {
	var list []guestCost
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(line, "BenchmarkHooksOfGuests/")
		if !ok {
			continue
		}
		kernel, _, _ := strings.Cut(name, " ")
		kernel = strings.TrimSpace(kernel)
		if i := strings.LastIndexByte(kernel, '-'); i > 0 && strings.Count(kernel, "-") > 1 {
			kernel = kernel[:i] // GOMAXPROCS
		}
		g := guestCost{strings.ReplaceAll(kernel, "linux-", "guest with Linux "), map[string]float64{}}
		for _, m := range metric.FindAllStringSubmatch(line, -1) {
			if ns, err := strconv.ParseFloat(m[1], 64); err == nil {
				g.costs[strings.ReplaceAll(m[2], "-", " ")] = ns
			}
		}
		if len(g.costs) > 0 {
			list = append(list, g)
		}
	}
	return list
}
