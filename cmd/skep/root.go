package main

import (
	"errors"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
)

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "skep",
		Short: "program the Linux kernel",
		Long: `skep compiles scripts of the bpftrace language into BPF objects, runs them in
the kernel and shows what they say. No compiler and no headers are needed.`,
		Example: `  skep run -e 'tracepoint:syscalls:sys_enter_openat { printf("%s %s\n", comm, str(args.filename)); }'
  skep list 'tracepoint:sched:*'
  skep doctor`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usageError{unknown("command", args[0], commandNames(cmd), "skep help lists them")}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write results and diagnostics as JSON, one object a line")
	root.SetFlagErrorFunc(flagError)
	root.SuggestionsMinimumDistance = 0
	root.DisableSuggestions = true
	root.AddCommand(
		a.runCommand(), a.execCommand(), a.testCommand(), a.debugCommand(), a.buildCommand(), a.checkCommand(), a.verifyCommand(), a.listCommand(), a.doctorCommand(), a.targetCommand(),
		a.dumpCommand(), a.fmtCommand(), a.versionCommand(), languageTopic(), exitCodesTopic(), environmentTopic(),
	)
	root.SetHelpCommand(a.helpCommand(root))
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			cmd.Short = "write the completion script of a shell"
			cmd.Example = "  source <(skep completion bash)"
		}
	}
	wrapArgs(root)
	return root
}

// wrapArgs makes wrong numbers of arguments mistakes of usage.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			var usage usageError
			if err != nil && !errors.As(err, &usage) {
				return usagef("%s (%s --help tells more)", err, cmd.CommandPath())
			}
			return err
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

func commandNames(cmd *cobra.Command) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, c := range cmd.Commands() {
			if !c.Hidden && !yield(c.Name()) {
				return
			}
		}
	}
}

// unknownName is the plain error for a name that is not there, with the nearest
// one, or else those that are.
func unknownName(what, name string, names iter.Seq[string]) error {
	if near := source.Nearest(name, names); near != "" {
		return fmt.Errorf("there is no %s %q: did you mean %q?", what, name, near)
	}
	return fmt.Errorf("there is no %s %q; there are %s", what, name, strings.Join(slices.Sorted(names), ", "))
}

// unknown is the error for a name that is not there, with the nearest one.
func unknown(what, name string, names iter.Seq[string], hint string) error {
	d := &source.Diagnostic{Code: "usage", Message: fmt.Sprintf("there is no %s %q", what, name)}
	if near := source.Nearest(name, names); near != "" {
		d.Notef("did you mean %q?", near)
	} else {
		d.Notef("%s", hint)
	}
	return d
}

var (
	unknownFlag      = regexp.MustCompile(`^unknown flag: --(\S+)`)
	unknownShorthand = regexp.MustCompile(`^unknown shorthand flag: '(.)' in (\S+)`)
)

// flagError puts what pflag says about a flag into our words.
func flagError(cmd *cobra.Command, err error) error {
	names := func(yield func(string) bool) {
		all := map[string]bool{}
		collect := func(f *pflag.Flag) {
			if !f.Hidden {
				all["--"+f.Name] = true
			}
		}
		cmd.Flags().VisitAll(collect)
		cmd.InheritedFlags().VisitAll(collect)
		sorted := make([]string, 0, len(all))
		for n := range all {
			sorted = append(sorted, n)
		}
		slices.Sort(sorted)
		for _, n := range sorted {
			if !yield(n) {
				return
			}
		}
	}
	hint := cmd.CommandPath() + " --help lists them; what is meant for a script goes behind --"
	if m := unknownFlag.FindStringSubmatch(err.Error()); m != nil {
		return usageError{unknown("flag", "--"+m[1], names, hint)}
	}
	if m := unknownShorthand.FindStringSubmatch(err.Error()); m != nil {
		return usageError{unknown("flag", "-"+m[1], func(func(string) bool) {}, hint)}
	}
	return usagef("%s (%s --help tells more)", strings.TrimSuffix(err.Error(), "."), cmd.CommandPath())
}

// helpCommand is cobra's, and writes man pages on request.
func (a *app) helpCommand(root *cobra.Command) *cobra.Command {
	var man string
	cmd := &cobra.Command{
		Use:   "help [COMMAND | TOPIC]",
		Short: "help about a command or a topic, and man pages",
		Example: `  skep help run
  skep help exit-codes
  skep help --man /usr/local/share/man/man1`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if len(args) == 0 {
				for n := range commandNames(root) {
					if strings.HasPrefix(n, prefix) {
						names = append(names, n)
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if man != "" {
				return writeManPages(root, man)
			}
			cmd, rest, err := root.Find(args)
			if cmd == nil || err != nil || len(rest) > 0 {
				name := strings.Join(args, " ")
				return usageError{unknown("command or topic", name, commandNames(root), "skep help lists them")}
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
	cmd.Flags().StringVar(&man, "man", "", "write man pages into `DIR`")
	return cmd
}

func languageTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "language",
		Short: "what scripts may say: probes, builtins, functions (a topic)",
		Long:  skep.LanguageReference(),
	}
}

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "what skep's exit codes mean (a topic)",
		Long: `The exit code of skep says how it ended:

  0    all went well, or the run was ended by SIGINT or SIGTERM
  1    a script or object was refused, something failed while it ran, a test
       failed, or a check found something: the reason is on standard error
  2    the command line is wrong, "skep verify" cannot read the object, or
       "skep test" finds no tests or cannot read them
  70   skep itself failed: please report it
  N    what the script gave exit(N)

Under the name bpftrace a wrong command line gives 1, as with bpftrace.`,
	}
}

func environmentTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "environment",
		Short: "the environment variables that skep looks at (a topic)",
		Long: `  BPFTRACE_NAME   the setting NAME of scripts, e.g. BPFTRACE_MAX_STRLEN=4096; a
                  config block in the script goes before it
  BPFTRACE_COLOR  under the name bpftrace: auto, always or never
  NO_COLOR        where it is not empty, nothing is coloured
  __BPFTRACE_NOTIFY_PROBES_ATTACHED
                  where it is set, a line of that name says on standard error
                  that all probes are attached`,
	}
}
