package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
)

// bpftraceVersion is the release whose language and command line skep has.
const bpftraceVersion = "v0.26.0"

// bpftraceFlags are the flags of bpftrace that are not those of skep run.
type bpftraceFlags struct {
	scriptFlags
	runFlags
	list, help, version, info bool
	format                    bool
	mode                      string
	pidText                   string
	elf                       string
	stages                    []string
	warnings                  int
}

// bpftraceCommand is the command line of bpftrace, for a link of that name.
func (a *app) bpftraceCommand() *cobra.Command {
	var b bpftraceFlags
	cmd := &cobra.Command{
		Use:           "bpftrace [options] {filename | - | -e 'program'} [ARGS...] [-- --NAME=VALUE...]",
		Short:         "trace with scripts",
		SilenceErrors: true, SilenceUsage: true, DisableFlagsInUseLine: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Example: `  bpftrace -l '*sleep*'
  bpftrace -e 'tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }'
  bpftrace -e 'profile:hz:99 { @[kstack] = count(); }' -c 'sleep 5'`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.bpftrace(cmd, &b, args) },
	}
	f := cmd.Flags()
	f.StringVarP(&b.execute, "execute", "e", "", "execute this `'program'`")
	f.BoolVarP(&b.list, "list", "l", false, "list kernel probes that match, or the probes of a program")
	f.CountVarP(&b.warnings, "warnings", "k", "warn as soon as a helper fails; otherwise failures are counted and told at the end")
	f.BoolVarP(&b.verbose, "verbose", "v", false, "tell more; with -l, show arguments")
	f.BoolVarP(&b.help, "help", "h", false, "show this help")
	f.BoolVarP(&b.version, "version", "V", false, "show the version")
	f.BoolVar(&b.info, "info", false, "show what the kernel supports")
	f.StringVarP(&b.pidText, "pid", "p", "", "trace the process `PID` only")
	f.StringVarP(&b.command, "cmd", "c", "", "run `CMD` and trace it")
	f.StringVarP(&b.output, "output", "o", "", "write to `FILE`")
	f.StringVarP(&b.runFlags.format, "format", "f", "text", "output `FORMAT`: text or json")
	f.StringVarP(&b.buffer, "buffer", "B", "line", "buffering `MODE`: line, full or none")
	f.BoolVarP(&b.quiet, "quiet", "q", false, "keep quiet")
	f.BoolVar(&a.noWarnings, "no-warnings", false, "show no warnings")
	f.StringArrayVarP(&b.dirs, "include-dir", "I", nil, "look for included files in `DIR` too")
	f.StringArrayVar(&b.includes, "include", nil, "include `FILE` before the program")
	f.BoolVar(&b.unsafe, "unsafe", false, "allow what changes the system")
	f.BoolVar(&b.dryRun, "dry-run", false, "end once all probes are attached")
	f.StringVar(&b.runFlags.filter, "probe-filter", "", "run only the test and bench probes that match `REGEX`")
	f.StringVar(&b.scriptFlags.traceable, "traceable-functions", "", "read the list of traceable kernel functions from `FILE`")
	f.BoolVar(&b.format, "fmt", false, "lay the program out and print it")
	f.BoolVar(&b.runFlags.test, "test", false, "run the test: probes")
	f.BoolVar(&b.runFlags.bench, "bench", false, "run the bench: probes")
	f.StringVar(&b.mode, "mode", "", "`MODE`: test, bench, format or codegen")
	f.StringArrayVarP(&b.stages, "debug", "d", nil, "show `STAGE`: ast, codegen, codegen-opt, dis, libbpf, verifier or all")
	f.StringVar(&b.elf, "emit-elf", "", "write an object to `FILE` instead of running")
	// What steers parts that skep does not have, or does by itself.
	ignored := cmd.Flags()
	ignored.BoolP("btf", "b", false, "")
	ignored.Bool("usdt-file-activation", false, "")
	ignored.String("no-feature", "", "")
	ignored.StringArray("debuginfo", nil, "")
	for _, name := range []string{"btf", "usdt-file-activation", "no-feature", "debuginfo"} {
		_ = ignored.MarkHidden(name)
	}
	cmd.SetFlagErrorFunc(flagError)
	return cmd
}

func (a *app) bpftrace(cmd *cobra.Command, b *bpftraceFlags, args []string) error {
	args = b.parameters(cmd, args)
	switch {
	case b.help:
		return cmd.Help()
	case b.version:
		_, err := fmt.Fprintf(a.stdout, "bpftrace %s\n", bpftraceVersion)
		return err
	case b.info:
		return a.doctor()
	case b.warnings > 0 && a.noWarnings:
		return usagef("-k and --no-warnings exclude each other")
	}
	b.live = b.warnings > 0
	if b.pidText != "" {
		pid, err := strconv.ParseUint(b.pidText, 0, 22)
		if err != nil {
			return usagef("-p takes the number of a process, not %q", b.pidText)
		}
		b.pid = int(pid)
	}
	switch b.mode {
	case "":
	case "format":
		b.format = true
	case "test":
		b.test = true
	case "bench":
		b.bench = true
	case "codegen":
		b.stages = append(b.stages, "none")
	default:
		return usagef("--mode must be codegen, format, test or bench, not %q", b.mode)
	}
	if err := b.check(a); err != nil {
		return err
	}
	b.blank = !b.test && !b.bench
	a.json = b.runFlags.format == "json"
	if b.list {
		return a.bpftraceList(b, args)
	}
	if b.execute == "" && len(args) == 0 {
		return usagef("bpftrace needs a program: a file name, or -e 'program' (bpftrace -h tells more)")
	}
	in, err := a.read(&b.scriptFlags, args)
	if err != nil {
		return err
	}
	switch {
	case b.format && in.script != nil:
		text, err := skep.Format(in.script)
		if err != nil {
			return err
		}
		if b.output == "" {
			b.output = "-"
		}
		return a.writeFile(b.output, 0o644, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
	case len(b.stages) > 0 && in.script != nil:
		return a.bpftraceDebug(cmd, b, in)
	case b.elf != "" && in.script != nil:
		o, err := b.options(in.args)
		if err != nil {
			return err
		}
		obj, err := a.compile(in.script, o)
		if err != nil {
			return err
		}
		return a.writeFile(b.elf, 0o644, func(w io.Writer) error {
			_, err := w.Write(obj.ELF)
			return err
		})
	}
	return a.runInput(cmd, &b.scriptFlags, &b.runFlags, in)
}

// bpftraceList is -l: a pattern, a file, or the program of -e.
func (a *app) bpftraceList(b *bpftraceFlags, args []string) error {
	if b.execute != "" {
		return a.listScript(&b.scriptFlags, args)
	}
	if len(args) > 1 {
		return usagef("-l takes one pattern or file")
	}
	if len(args) == 1 {
		if _, err := os.Stat(args[0]); err == nil {
			return a.listScript(&b.scriptFlags, args)
		}
	}
	pattern := ""
	if len(args) == 1 && args[0] != "*" {
		pattern = args[0]
	}
	t, err := b.machine()
	if err != nil {
		return err
	}
	l := lister{target: t, details: b.verbose, pid: b.pid}
	for one := range strings.SplitSeq(pattern, ",") {
		err := a.list(&l, strings.TrimSpace(one))
		var d *source.Diagnostic
		if errors.As(err, &d) && d.Code == "no-match" {
			continue // as bpftrace: nothing, and no error
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// bpftraceDebug is -d: compile, show a stage, and run nothing.
func (a *app) bpftraceDebug(cmd *cobra.Command, b *bpftraceFlags, in input) error {
	o, err := b.options(in.args)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for _, list := range b.stages {
		for stage := range strings.SplitSeq(list, ",") {
			var err error
			switch stage {
			case "none":
				_, err = skep.Compile(in.script, o)
			case "ast", "parse":
				var formatted string
				formatted, err = skep.Format(in.script)
				text.WriteString(formatted)
			case "types", "codegen":
				err = skep.DumpScript(&text, in.script, o, skep.DumpOptions{Passes: ":start"})
			case "codegen-opt":
				err = skep.DumpScript(&text, in.script, o, skep.DumpOptions{IR: true})
			case "dis", "libbpf":
				err = skep.DumpScript(&text, in.script, o, skep.DumpOptions{Assembly: true})
			case "verifier":
				a.verbose = true // of what is refused, too
				var obj *skep.Object
				if obj, err = a.compile(in.script, o); err != nil {
					return err
				}
				var logs []skep.ProgramLog
				logs, err = skep.VerifierLogs(cmd.Context(), obj)
				for _, l := range logs {
					a.showLog(l.Program, l.Log)
				}
			case "all":
				err = skep.DumpScript(&text, in.script, o, skep.DumpOptions{})
			default:
				return usagef("-d takes ast, types, codegen, codegen-opt, dis, libbpf, verifier or all, not %q", stage)
			}
			if err != nil {
				return err
			}
		}
	}
	_, err = a.stderr.Write(text.Bytes())
	return err
}
