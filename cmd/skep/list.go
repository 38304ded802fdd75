package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

func (a *app) listCommand() *cobra.Command {
	var s scriptFlags
	var l lister
	cmd := &cobra.Command{
		Use:   "list [flags] [PATTERN...]",
		Short: "list the hooks that match patterns, or types",
		Long: `List shows the hooks of this machine, or of a snapshot, that match a pattern:
an attach point with wildcards. A pattern without a colon matches any part of a
name. "struct NAME" shows kernel types. With -e it lists what a script attaches to.

-v adds arguments and types, and marks hooks as stable (the kernel promises to
keep them: tracepoints, USDT, iterators, perf events) or unstable (any kernel
may change them).`,
		Example: `  skep list 'tracepoint:sched:*'
  skep list -v tracepoint:syscalls:sys_enter_openat
  skep list '*:*sleep*'
  skep list -v 'struct task_struct'
  skep list 'uprobe:/bin/bash:readline*'
  skep list --json 'rawtracepoint:*'`,
		ValidArgsFunction: completeProbes,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = s.parameters(cmd, args)
			if s.execute != "" {
				return a.listScript(&s, args)
			}
			if len(args) == 0 {
				args = []string{""}
			}
			t, err := s.machine()
			if err != nil {
				return err
			}
			l.target = t
			l.marks = true
			for _, pattern := range args {
				if err := a.list(&l, pattern); err != nil {
					return err
				}
			}
			return nil
		},
	}
	s.add(cmd)
	f := cmd.Flags()
	f.BoolVarP(&l.details, "verbose", "v", false, "show arguments, types and stability")
	f.IntVarP(&l.pid, "pid", "p", 0, "look up binaries as the process `PID` sees them")
	return cmd
}

// A lister lists hooks.
type lister struct {
	target  target.Target // nil is this machine
	details bool
	marks   bool
	pid     int
}

// jsonEntry is an entry as JSON.
type jsonEntry struct {
	Type       string    `json:"type"` // "hook" or "type"
	Name       string    `json:"name"`
	Kind       string    `json:"kind,omitempty"`
	Stable     *bool     `json:"stable,omitempty"`
	Args       []jsonArg `json:"args,omitempty"`
	Return     string    `json:"return,omitempty"`
	Definition string    `json:"definition,omitempty"`
}

type jsonArg struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// list writes what matches a pattern. Nothing that matches is an error with
// the nearest name.
func (a *app) list(l *lister, pattern string) error {
	if pattern != "" && !strings.ContainsAny(pattern, ": ") {
		if !strings.Contains(pattern, "*") {
			pattern = "*" + pattern + "*"
		}
		pattern = "*:" + pattern
	}
	out := bufio.NewWriterSize(a.stdout, 64<<10)
	found := false
	for e, err := range skep.List(l.target, pattern, l.details, hook.Options{PID: l.pid}) {
		if err != nil {
			_ = out.Flush()
			return err
		}
		found = true
		if a.json {
			if err := writeEntryJSON(out, e); err != nil {
				return err
			}
			continue
		}
		writeEntry(out, e, l)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if !found && pattern != "" {
		return &source.Diagnostic{Code: "no-match", Message: fmt.Sprintf("nothing matches %q", pattern)}
	}
	return nil
}

func writeEntry(out *bufio.Writer, e hook.Entry, l *lister) {
	if e.Type != "" {
		if e.Def != "" {
			out.WriteString(strings.TrimRight(e.Def, "\n"))
		} else {
			out.WriteString(e.Type)
		}
		out.WriteByte('\n')
		return
	}
	out.WriteString(e.Point.String())
	if l.details && l.marks {
		if e.Stable {
			out.WriteString("  [stable]")
		} else {
			out.WriteString("  [unstable]")
		}
	}
	out.WriteByte('\n')
	for _, arg := range e.Args {
		fmt.Fprintf(out, "    %s\n", declare(arg))
	}
	if e.Return != "" {
		fmt.Fprintf(out, "    %s retval\n", e.Return)
	}
}

// declare is an argument as C writes it.
func declare(a hook.Arg) string {
	if i := strings.IndexByte(a.Type, '['); i > 0 {
		return strings.TrimRight(a.Type[:i], " ") + " " + a.Name + a.Type[i:]
	}
	if strings.HasSuffix(a.Type, "*") {
		return a.Type + a.Name
	}
	return a.Type + " " + a.Name
}

func writeEntryJSON(out *bufio.Writer, e hook.Entry) error {
	v := jsonEntry{Type: "hook", Name: e.Point.String(), Kind: e.Point.Kind.String(), Stable: &e.Stable, Return: e.Return}
	if e.Type != "" {
		v = jsonEntry{Type: "type", Name: e.Type, Definition: e.Def}
	}
	for _, arg := range e.Args {
		v.Args = append(v.Args, jsonArg(arg))
	}
	return encodeLine(out, v)
}

// listScript writes the attach points of a script.
func (a *app) listScript(s *scriptFlags, args []string) error {
	in, err := a.read(s, args)
	if err != nil {
		return err
	}
	obj := in.object
	if obj == nil {
		o, err := s.options(in.args)
		if err != nil {
			return err
		}
		if obj, err = a.compile(in.script, o); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(a.stdout)
	if obj.Manifest != nil {
		for _, p := range obj.Manifest.Probes {
			if !a.json {
				fmt.Fprintln(out, p.Name)
			} else if err := encodeLine(out, jsonEntry{Type: "hook", Name: p.Name}); err != nil {
				return err
			}
		}
	} else {
		for _, f := range obj.Funcs {
			if f.Section != "" {
				fmt.Fprintln(out, f.Section)
			}
		}
	}
	return out.Flush()
}
