package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/ui/json"
	"github.com/skep-bpf/skep/ui/text"
)

// runFlags are the flags of everything that runs an object.
type runFlags struct {
	command  string
	pid      int
	output   string
	format   string
	buffer   string
	quiet    bool
	verbose  bool
	dryRun   bool
	pin      string
	replace  bool
	maps     []string
	targets  []string
	token    string
	noSource bool
	engine   string
	noFilter bool
	args     []string // of an object; nil keeps those it was built with
	named    map[string]string
	live     bool // losses are told as they happen
	test     bool
	bench    bool
	filter   string
	blank    bool // see text.Printer
}

func (r *runFlags) add(cmd *cobra.Command, a *app) {
	f := cmd.Flags()
	f.StringVarP(&r.command, "command", "c", "", "run `CMD`, trace it, and end when it ends")
	f.IntVarP(&r.pid, "pid", "p", 0, "trace the process `PID` only")
	f.StringVarP(&r.output, "output", "o", "", "write what the script says to `FILE`")
	f.StringVarP(&r.format, "format", "f", "text", "the `FORMAT` of the output: text or json")
	f.StringVarP(&r.buffer, "buffer", "B", "line", "`WHEN` output is written: line, full or none (at once)")
	f.BoolVarP(&r.quiet, "quiet", "q", false, "say nothing but what the script says")
	f.BoolVarP(&r.verbose, "verbose", "v", false, "tell of each program, and show all that the kernel's verifier says of one that it refuses")
	f.BoolVar(&r.dryRun, "dry-run", false, "end as soon as everything is attached")
	f.StringVar(&r.pin, "pin", "", "keep programs and maps attached after the end, pinned below `DIR` of a bpffs")
	f.BoolVar(&r.replace, "replace", false, "with --pin: take the place of what is pinned there, and keep its maps")
	f.StringArrayVar(&r.maps, "map", nil, "use a pinned map instead of a new one: `NAME=PATH`")
	f.StringArrayVar(&r.targets, "attach", nil, "what a program of an object attaches to, where its section does not say: `PROGRAM=TARGET`, such as xdp_drop=eth0")
	f.StringVar(&r.token, "token", "", "load with a BPF token of the bpffs at `DIR`, in a user namespace")
	f.StringVar(&r.engine, "engine", "auto", "the `ENGINE` that runs it: kernel; user, which takes no privilege and sees one command (-c) or process (-p); auto")
	f.BoolVar(&r.noFilter, "no-filter", false, "with --engine user and -c: stop at every system call, so that CMD and what it leaves survive skep")
	f.BoolVar(&r.noSource, "no-source", false, "refuse an object that does not fit this machine instead of compiling its source again")
	f.BoolVar(&r.live, "live", false, "tell of lost events, failed reads and full maps as they happen; JSON does so always")
	f.BoolVar(&r.test, "test", false, "run the script's test: probes alone")
	f.BoolVar(&r.bench, "bench", false, "run the script's bench: probes alone, and measure them")
	f.StringVar(&r.filter, "probe-filter", "", "with --test and --bench: only the probes whose names match `REGEX`")
	f.BoolVar(&a.noWarnings, "no-warnings", false, "show no warnings")
	fixed(cmd, "format", "text", "json")
	fixed(cmd, "engine", "auto", "kernel", "user")
	fixed(cmd, "buffer", "line", "full", "none")
	_ = cmd.MarkFlagDirname("pin")
	_ = cmd.MarkFlagDirname("token")
}

func fixed(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// check reports mistakes in the combination of flags.
func (r *runFlags) check(a *app) error {
	if a.json {
		r.format = "json"
	}
	switch {
	case r.format != "text" && r.format != "json":
		return usagef("-f must be text or json, not %q", r.format)
	case r.buffer != "line" && r.buffer != "full" && r.buffer != "none":
		return usagef("-B must be line, full or none, not %q", r.buffer)
	case r.command != "" && r.pid != 0:
		return usagef("-c and -p exclude each other")
	case r.pid < 0:
		return usagef("-p takes the number of a process, not %d", r.pid)
	case r.test && r.bench:
		return usagef("--test and --bench exclude each other")
	case r.filter != "" && !r.test && !r.bench:
		return usagef("--probe-filter chooses among what --test or --bench runs")
	case r.engine != "" && r.engine != "auto" && r.engine != "kernel" && r.engine != "user":
		return usagef("--engine must be auto, kernel or user, not %q", r.engine)
	case r.replace && r.pin == "":
		return usagef("--replace needs --pin, the directory of what is to be replaced")
	}
	return nil
}

func (a *app) runCommand() *cobra.Command {
	var s scriptFlags
	var r runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] {-e SCRIPT | FILE | -} [ARGS...] [-- --NAME=VALUE...]",
		Short: "compile and run a script, or run an object",
		Long: `Run compiles a script and runs it in the kernel until it ends, is interrupted
(Ctrl-C), or the command of -c ends. Then everything is detached and the maps
are shown. FILE is a script, or a BPF object: one that skep built, or any that
libbpf could load. Arguments are $1, $2, ... in the script; those behind --
that begin with -- are for getopt.`,
		Example: `  skep run -e 'tracepoint:syscalls:sys_enter_openat { printf("%s %s\n", comm, str(args.filename)); }'
  skep run -e 'tracepoint:raw_syscalls:sys_enter { @[comm] = count(); } interval:s:5 { exit(); }'
  skep run -c 'ls -l' trace.bt
  skep run --json trace.bt 1000 | jq .
  skep run object.o`,
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := r.check(a); err != nil {
				return err
			}
			in, err := a.read(&s, s.parameters(cmd, args))
			if err != nil {
				return err
			}
			return a.runInput(cmd, &s, &r, in)
		},
	}
	s.add(cmd)
	r.add(cmd, a)
	return cmd
}

// runInput compiles what is a script, and runs it.
func (a *app) runInput(cmd *cobra.Command, s *scriptFlags, r *runFlags, in input) error {
	engine, err := a.chooseEngine(r)
	if err != nil {
		return err
	}
	obj := in.object
	if obj != nil {
		if len(in.args) > 0 {
			r.args = in.args
		}
		r.named = s.named
	}
	if obj == nil {
		o, err := s.options(in.args)
		if err != nil {
			return err
		}
		if s.target != "" {
			return usagef("--target compiles for another machine; run is for this one (skep check and skep build take --target)")
		}
		o.PID, o.HasCommand = r.pid, r.command != ""
		if engine == skep.EngineUser {
			if o.Target, err = skep.UserTarget(); err != nil {
				return err
			}
		}
		if obj, err = a.compile(in.script, o); err != nil {
			return err
		}
	}
	return a.execute(cmd, r, obj)
}

// chooseEngine decides what runs the object, and says so where nobody named it.
func (a *app) chooseEngine(r *runFlags) (skep.EngineName, error) {
	if r.engine == "auto" && (r.token != "" || r.pin != "" || len(r.maps) > 0 || len(r.targets) > 0) {
		r.engine = "kernel" // these are about the kernel's things
	}
	engine, why, err := skep.EngineName(r.engine).Choose()
	if err != nil {
		return "", err
	}
	r.engine = string(engine)
	if why != "" && !r.quiet {
		a.show(source.List{{Severity: source.Info, Code: "engine", Message: why + ": the embedded engine runs this, and sees the process of -p or the command of -c with all that it starts"}})
	}
	return engine, nil
}

// tellWaiting says why skep goes on when a command has ended that left processes.
func (a *app) tellWaiting(r *runFlags, n int) {
	if r.quiet {
		return
	}
	left := "1 process"
	if n != 1 {
		left = fmt.Sprintf("%d processes", n)
	}
	a.show(source.List{{Severity: source.Info, Code: "waiting", Message: "the command has left " + left + ": skep stays until the end of that, since system calls stop for it there; what is left ends with skep (--no-filter leaves it alone)"}})
}

// execute runs an object and shows its events.
func (a *app) execute(cmd *cobra.Command, r *runFlags, obj *skep.Object) (err error) {
	out := a.stdout
	if r.output != "" {
		f, err := os.Create(r.output)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	terminal := r.output == "" && isTerminal(a.stdout)
	command, err := splitCommand(r.command)
	if err != nil {
		return err
	}
	maps, err := pairs("map", "NAME=PATH", r.maps)
	if err != nil {
		return err
	}
	targets, err := pairs("attach", "PROGRAM=TARGET", r.targets)
	if err != nil {
		return err
	}
	ctx, cancel := interruptible(cmd.Context())
	defer cancel()
	p := a.printer(out, r, obj, terminal)
	opts := skep.RunOptions{
		PID: r.pid, Args: r.args, NoSource: r.noSource, Command: command, Pin: r.pin, Replace: r.replace,
		Maps: maps, Targets: targets, Named: r.named, Engine: skep.EngineName(r.engine), NoFilter: r.noFilter,
		Waiting: func(n int) { a.tellWaiting(r, n) },
		Events:  p.Event, Flush: p.Flush, LiveLosses: r.live || r.format == "json",
		Ready: func(int) {
			a.ready()
			if r.dryRun {
				cancel()
			}
		},
	}
	a.verbose = r.verbose
	opts.Load.TokenPath = r.token
	if r.verbose {
		opts.Started = a.tellPrograms
	}
	if err := r.only(&opts); err != nil {
		return err
	}
	switch r.buffer {
	case "none":
		opts.Events = func(e runner.Event) error { return errors.Join(p.Event(e), p.Flush()) }
	case "full":
		opts.Flush = nil
	}
	res, err := skep.Run(ctx, obj, opts)
	a.code = res.Code
	if flush := p.Flush(); flush != nil && err == nil {
		err = flush
	}
	return err
}

// tellPrograms says how large programs are, and what the verifier had to do.
func (a *app) tellPrograms(h *runner.Handle) {
	for _, p := range h.Manifest().Programs {
		s, err := h.Loaded().Stats(p.Name)
		switch {
		case err != nil:
		case a.json:
			_ = encodeLine(a.stderr, struct {
				Type         string `json:"type"`
				Name         string `json:"name"`
				Instructions int    `json:"instructions"`
				Verified     int    `json:"verified"`
				Native       int    `json:"native_bytes"`
			}{"program", p.Name, s.Instructions, s.Verified, s.JITed})
		default:
			fmt.Fprintf(a.stderr, "program %s: %d instructions, of which the verifier followed %d; %d bytes of native code\n", p.Name, s.Instructions, s.Verified, s.JITed)
		}
	}
}

// only limits a run to tests or benchmarks where that was asked for.
func (r *runFlags) only(opts *skep.RunOptions) error {
	switch {
	case r.test:
		opts.Only = object.KindTest
	case r.bench:
		opts.Only = object.KindBench
	}
	if r.filter == "" {
		return nil
	}
	re, err := regexp.Compile(r.filter)
	if err != nil {
		return usagef("--probe-filter %q is no regular expression: %v", r.filter, err)
	}
	opts.Filter = re.MatchString
	return nil
}

// pairs takes apart the values of a flag that are name=value.
func pairs(flag, form string, list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range list {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" || value == "" {
			return nil, usagef("--%s takes %s, not %q", flag, form, s)
		}
		m[name] = value
	}
	return m, nil
}

// A printer shows events.
type printer interface {
	Event(runner.Event) error
	Flush() error
}

func (a *app) printer(out io.Writer, r *runFlags, obj *skep.Object, terminal bool) printer {
	name := ""
	if obj.Manifest != nil {
		name = obj.Manifest.Source.Name
	}
	if r.format == "json" {
		p := json.New(out)
		p.File = name
		return p
	}
	p := text.New(out, a.stderr, terminal)
	p.File, p.Quiet, p.Blank = name, r.quiet, r.blank
	return p
}

// splitCommand splits a command into words, as a shell does: quotes keep
// spaces, a backslash takes the next character as it is.
func splitCommand(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'':
			if i++; i == len(s) {
				return nil, usagef("the command %q ends with a backslash", s)
			}
			word.WriteByte(s[i])
			in = true
		case quote != 0:
			word.WriteByte(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == ' ' || c == '\t' || c == '\n':
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, usagef("a quote of the command %q is not closed", s)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}

// ready says to whom expects it that everything is attached.
func (a *app) ready() {
	if os.Getenv("__BPFTRACE_NOTIFY_PROBES_ATTACHED") != "" {
		fmt.Fprintln(a.stderr, "__BPFTRACE_NOTIFY_PROBES_ATTACHED")
	}
}

// checkCommand compiles and says what is wrong.
func (a *app) checkCommand() *cobra.Command {
	var s scriptFlags
	cmd := &cobra.Command{
		Use:   "check [flags] {-e SCRIPT | FILE...}",
		Short: "compile scripts without running them, and say what is wrong",
		Example: `  skep check tools/*.bt
  skep check --target server.skep trace.bt
  skep check --json -e 'BEGIN { printf("%d\n", comm); }'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = s.parameters(cmd, args)
			inputs := [][]string{args}
			if s.execute == "" {
				inputs = nil
				for _, name := range args {
					inputs = append(inputs, []string{name})
				}
			}
			if len(inputs) == 0 {
				return usagef("nothing to check: give a script with -e, or files")
			}
			var list source.List
			for _, names := range inputs {
				list = append(list, skep.Explain(a.checkInput(&s, names))...)
			}
			return list.Err()
		},
	}
	s.add(cmd)
	return cmd
}

func (a *app) checkInput(s *scriptFlags, names []string) error {
	in, err := a.read(s, names)
	if err != nil || in.object != nil {
		return err // reading an object checks it
	}
	o, err := s.options(in.args)
	if err != nil {
		return err
	}
	_, err = a.compile(in.script, o)
	return err
}
