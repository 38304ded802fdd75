package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/verifier"
	"github.com/skep-bpf/skep/vm"
)

func (a *app) debugCommand() *cobra.Command {
	var e execFlags
	var kernelName, types string
	cmd := &cobra.Command{
		Use:   "debug [flags] OBJECT",
		Short: "step through a program of an object, beside what the verifier knows",
		Long: `Debug runs a program of any BPF object inside skep, over a packet or a context as
"skep exec" does, and stops before its first instruction. Commands are read from
standard input, one a line: "help" lists them.

Registers are shown with the value they have and with what the verifier knows of
them there. A mark stands between the two:

      the value lies in what the verifier knows
  ~   the verifier did not need the exact value (it is imprecise), so the value may
      lie elsewhere, and here it does
  !   the value lies outside of what the verifier relies on: a mistake in its
      rules, or in the engine; please report it

The program is run even where the verifier would reject it, which is said at the
start.

Commands:

` + debugCmdList(),
		Example: `  skep debug filter.o --packet ffffffffffff0200000000010806
  skep debug filter.o --program count --context '{"mark": 7}'
  printf 'break filter.c:12\ncontinue\nregs\n' | skep debug filter.o --packet @arp.hex`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeObjects,
		RunE: func(cmd *cobra.Command, args []string) error {
			if a.json {
				return usagef("debug talks to people: it has no --json")
			}
			kernel, err := parseKernel(kernelName)
			if err != nil {
				return err
			}
			return a.debug(cmd.Context(), &e, args[0], kernel, types)
		},
	}
	f := cmd.Flags()
	e.inputFlags(cmd)
	f.StringVar(&kernelName, "kernel", "6.18", "what is known by the rules of Linux `VERSION`: 6.1, 6.12 or 6.18")
	f.StringVar(&types, "btf", "", "take the kernel's types from `FILE` instead of this machine")
	_ = cmd.RegisterFlagCompletionFunc("program", completePrograms)
	f.Int64Var(&e.memory, "memory", 0, "memory limit in `BYTES`; 0 is 64 MiB")
	return cmd
}

// debugCmdList lists the debugger's commands, one a line.
func debugCmdList() string {
	var b strings.Builder
	for _, c := range debugCmds {
		fmt.Fprintf(&b, "  %-42s %s\n", strings.TrimSpace(strings.Join(c.names, ", ")+" "+c.args), c.help)
	}
	b.WriteString("\nA command may be shortened as long as it is clear; an empty line repeats the last\nstep, next or continue; # begins a comment.")
	return b.String()
}

// A debugger is one session of "skep debug".
type debugger struct {
	a    *app
	in   *bufio.Scanner
	ask  bool // a person is there, who is prompted
	spec *ebpf.CollectionSpec
	coll *skep.Collection

	programs map[string]*debugProgram
	main     *vm.Program
	opts     vm.RunOptions

	breaks []*breakpoint
	nextID int
	last   string // command, which an empty line repeats
	// until says whether to stop at a step; nil stops only at breakpoints.
	until func(s *vm.Step) bool
	// where the last step was, to see where lines begin.
	prev place
	at   *vm.Step // where the program is stopped; nil while none runs
	quit bool
}

// A debugProgram is a program with what is known of it.
type debugProgram struct {
	*verifier.Program
	trace  verifier.Trace
	result *verifier.Result
	slots  []int // of instructions
	index  map[int]int
}

// A place is where a run is.
type place struct {
	program *debugProgram
	insn    int
	depth   int
}

var errQuit = errors.New("the debugger was left")

func (a *app) debug(ctx context.Context, e *execFlags, name string, kernel abi.Version, btfFile string) error {
	name, data, err := a.readFile(name)
	if err != nil {
		return err
	}
	d := &debugger{a: a, in: bufio.NewScanner(a.stdin), ask: readsTerminal(a.stdin), programs: map[string]*debugProgram{}}
	fail := func(err error) error {
		return &source.Diagnostic{Code: "load", Message: fmt.Sprintf("%s: %v", name, err)}
	}
	if d.spec, err = object.ReadSpec(data); err != nil {
		return fail(err)
	}
	types, err := kernelTypes(btfFile)
	if err != nil {
		return usageError{err}
	}
	programs, err := verifier.ProgramsOf(d.spec, types)
	if err != nil {
		return fail(err)
	}
	d.coll, err = skep.NewCollectionWithOptions(d.spec, skep.CollectionOptions{
		Trusted: true, KernelTypes: types,
		NewEngine: skep.EngineOptions{CPUs: 1, MemoryLimit: e.memory, Step: d.step, Host: skep.Host{
			Print: func(text string) { d.printf("printk: %s", text) },
		}},
	})
	if err != nil {
		return fail(err)
	}
	defer d.coll.Close()
	if d.main, err = e.choose(d.coll); err != nil {
		return err
	}
	if d.opts, err = a.input(e, d.spec, d.main); err != nil {
		return err
	}
	for _, p := range programs {
		dp := &debugProgram{Program: p, index: map[int]int{}}
		dp.result = verifier.Verify(p, verifier.Config{Kernel: kernel, Types: types, Trace: &dp.trace})
		slot := 0
		for i, in := range p.Insns {
			dp.slots = append(dp.slots, slot)
			dp.index[slot] = i
			slot += in.Size()
		}
		d.programs[p.Name] = dp
	}
	events, err := readEvents(d.coll)
	if err != nil {
		return err
	}
	defer events.close()
	if r := d.programs[d.main.Name()].result; r.Verdict != verifier.Accepted {
		d.printf("The verifier says of %s: %v: %v\nWhat is known is known up to there.\n", d.main.Name(), r.Verdict, r.Err)
	}
	for !d.quit {
		d.begin()
		res, err := d.main.RunContext(ctx, &d.opts)
		d.at = nil
		switch {
		case errors.Is(err, errQuit):
			return nil
		case err != nil && ctx.Err() != nil:
			return &source.Diagnostic{Code: "run", Message: "the run was interrupted"}
		case err != nil:
			d.printf("the run ended: %v\n", err)
			a.code = exitFailure
		default:
			d.printf("%s returned %d (%#x)\n", d.main.Name(), res.Return, res.R0)
			if len(res.Data) > 0 {
				d.printf("packet: %x\n", res.Data)
			}
			for _, e := range events.all() {
				d.printf("event %s: %s\n", e.Map, e.text())
			}
		}
		if !d.prompt() { // until "run", which begins again
			return nil
		}
	}
	return nil
}

// begin makes the next run stop before its first instruction.
func (d *debugger) begin() {
	d.prev = place{}
	d.until = func(*vm.Step) bool { return true }
}

func (d *debugger) printf(format string, args ...any) { fmt.Fprintf(d.a.stdout, format, args...) }

// step is called before each instruction.
func (d *debugger) step(s *vm.Step) error {
	now := d.place(s)
	stop := d.until != nil && d.until(s)
	for _, b := range d.breaks {
		if b.hit(now, d.prev) {
			b.hits++
			d.printf("breakpoint %d\n", b.id)
			stop = true
			break
		}
	}
	d.prev = now
	if !stop {
		return nil
	}
	d.at, d.until = s, nil
	d.showPlace(now)
	if !d.prompt() {
		return errQuit
	}
	d.at = nil
	return nil
}

func (d *debugger) place(s *vm.Step) place {
	return place{d.programs[s.Program().Name()], s.Insn(), s.Callbacks()*100 + len(s.Frames())}
}

// line is the source line of a place.
func (p place) line() (verifier.Line, bool) {
	if p.program == nil {
		return verifier.Line{}, false
	}
	return p.program.LineOf(p.slot())
}

func (p place) slot() int { return p.program.slots[p.insn] }

// sameLine reports whether two places are in one line of one activation.
func (p place) sameLine(o place) bool {
	a, okA := p.line()
	b, okB := o.line()
	return okA && okB && p.program == o.program && p.depth == o.depth && a.File == b.File && a.Row == b.Row
}

// A breakpoint stops before instructions.
type breakpoint struct {
	id    int
	text  string // what it was made from
	insns map[*debugProgram]map[int]bool
	line  bool // where a line begins: not twice for the same
	hits  int
}

func (b *breakpoint) hit(now, prev place) bool {
	return b.insns[now.program][now.insn] && !(b.line && prev.program != nil && now.sameLine(prev) && now.insn > prev.insn)
}

// parseBreak makes a breakpoint of *INSN, FUNCTION, LINE or FILE:LINE.
func (d *debugger) parseBreak(text string) (*breakpoint, error) {
	b := &breakpoint{text: text, insns: map[*debugProgram]map[int]bool{}}
	add := func(p *debugProgram, slot int) {
		i, ok := p.index[slot]
		if !ok {
			return
		}
		if b.insns[p] == nil {
			b.insns[p] = map[int]bool{}
		}
		b.insns[p][i] = true
	}
	var slot, row int
	switch {
	case strings.HasPrefix(text, "*"):
		p := d.current()
		if _, err := fmt.Sscanf(text, "*%d", &slot); err != nil {
			return nil, fmt.Errorf("%s is no instruction: give its number behind the *, as disassemble shows it", text)
		}
		if add(p, slot); len(b.insns) == 0 {
			return nil, fmt.Errorf("%s has no instruction %d", p.Name, slot)
		}
		return b, nil
	case isLine(text, &row):
		file := ""
		if i := strings.LastIndexByte(text, ':'); i >= 0 {
			file = text[:i]
		} else if p := d.current(); p != nil {
			if l, ok := p.LineOf(d.currentSlot()); ok {
				file = l.File
			}
		}
		b.line = true
		found := d.nearestLine(file, row)
		if found == 0 {
			return nil, fmt.Errorf("no code comes from line %d of %s or behind it; disassemble shows which lines have some", row, orAny(file))
		}
		for _, p := range d.programs {
			for _, l := range p.Lines {
				if l.Row == found && sameFile(l.File, file) {
					add(p, l.Slot)
				}
			}
		}
		b.text = fmt.Sprintf("%s:%d", path.Clean(orAny(file)), found)
		return b, nil
	}
	var names []string
	for _, p := range d.programs {
		for _, f := range p.Funcs {
			names = append(names, f.Name)
			if f.Name == text {
				add(p, f.Start)
			}
		}
	}
	if len(b.insns) == 0 {
		slices.Sort(names)
		names = slices.Compact(names)
		if near := source.Nearest(text, slices.Values(names)); near != "" {
			return nil, fmt.Errorf("there is no function %s: did you mean %s?", text, near)
		}
		return nil, fmt.Errorf("there is no function %s; there are %s. A line is FILE:LINE, an instruction *NUMBER", text, strings.Join(names, ", "))
	}
	return b, nil
}

// isLine reports whether text is LINE or FILE:LINE.
func isLine(text string, row *int) bool {
	_, n, ok := strings.Cut(text, ":")
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		n = text[i+1:]
	} else if !ok {
		n = text
	}
	var rest string
	k, _ := fmt.Sscanf(n, "%d%s", row, &rest)
	return k == 1
}

// nearestLine is the first line from row on that code comes from, or 0.
func (d *debugger) nearestLine(file string, row int) int {
	best := 0
	for _, p := range d.programs {
		for _, l := range p.Lines {
			if sameFile(l.File, file) && l.Row >= row && (best == 0 || l.Row < best) {
				best = l.Row
			}
		}
	}
	return best
}

// sameFile reports whether a name given by a person means a file: its end will
// do.
func sameFile(file, given string) bool {
	return given == "" || file == given || strings.HasSuffix(file, "/"+strings.TrimPrefix(given, "./"))
}

func orAny(file string) string {
	if file == "" {
		return "the source"
	}
	return file
}

// current is the program that is stopped, or that will be run.
func (d *debugger) current() *debugProgram {
	if d.at != nil {
		return d.programs[d.at.Program().Name()]
	}
	return d.programs[d.main.Name()]
}

func (d *debugger) currentSlot() int {
	if d.at == nil {
		return 0
	}
	return d.current().slots[d.at.Insn()]
}
