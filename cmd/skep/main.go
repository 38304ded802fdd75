package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
)

func main() { os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr)) }

// Exit codes. "skep help exit-codes" tells people.
const (
	exitOK       = 0
	exitFailure  = 1  // the script, the object or the run failed
	exitUsage    = 2  // the command line is wrong
	exitInternal = 70 // skep itself is wrong (EX_SOFTWARE of sysexits.h)
)

// An app is one run of the command line.
type app struct {
	name           string // as which it was started
	stdin          io.Reader
	stdout, stderr io.Writer
	json           bool // diagnostics and results are JSON
	noWarnings     bool
	verbose        bool // the log of the kernel's verifier is shown
	code           int  // where a command ends well but not with 0
}

// run is main without the process around it; args begin with the program's name.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	a := &app{name: "skep", stdin: stdin, stdout: stdout, stderr: stderr}
	if len(args) > 0 {
		a.name = strings.TrimSuffix(filepath.Base(args[0]), ".exe")
		args = args[1:]
	}
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "skep: internal error: %v\n\n"+
				"This is a mistake in skep, not in your script. Please report it at\n"+
				"https://github.com/skep-bpf/skep/issues with the command line, the script,\n"+
				"the output of \"skep version\" and \"skep doctor\", and this:\n\n%s", r, debug.Stack())
			code = exitInternal
		}
	}()
	var cmd *cobra.Command
	switch object, err := embedded(); {
	case err != nil:
		return a.fail(err)
	case object != nil:
		cmd = a.embeddedCommand(object)
	case a.name == "bpftrace":
		cmd = a.bpftraceCommand()
	default:
		cmd = a.rootCommand()
		args = goFlags(args)
	}
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	if err := cmd.ExecuteContext(context.Background()); err != nil {
		return a.fail(err)
	}
	return a.code
}

// goFlags lets who tests Go programs write -run for --run, which would otherwise
// be three flags of a letter each.
func goFlags(args []string) []string {
	if len(args) == 0 || args[0] != "test" {
		return args
	}
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "-run" || strings.HasPrefix(arg, "-run=") {
			args[i] = "-" + arg
		}
	}
	return args
}

// interruptible is the context of what ends in order when a signal asks for the
// end: runs. Everything else, such as compiling, ends by the signal as programs
// do.
func interruptible(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	// What ends a run in order may take its time; who asks again means it.
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// A usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{&source.Diagnostic{Code: "usage", Message: fmt.Sprintf(format, args...)}}
}

// fail shows an error and returns the exit code that it means.
func (a *app) fail(err error) int {
	list := skep.Explain(err)
	rejected := skep.Rejections(err)
	if last := len(list) - 1; len(rejected) > 0 && !a.verbose {
		list[last].Notef("-v shows all that the verifier says")
	}
	a.show(list)
	for _, r := range rejected {
		if a.verbose {
			a.showLog(r.Program, r.Log)
		}
	}
	var usage usageError
	if errors.As(err, &usage) && a.name != "bpftrace" {
		return exitUsage
	}
	return exitFailure
}

// show writes diagnostics, as text or as one JSON object a line.
func (a *app) show(list source.List) {
	if a.noWarnings {
		var errs source.List
		for _, d := range list {
			if d.Severity == source.Error {
				errs = append(errs, d)
			}
		}
		list = errs
	}
	if !a.json {
		_ = source.RenderAll(a.stderr, list, source.Style{Color: colors(a.stderr)})
		return
	}
	enc := json.NewEncoder(a.stderr)
	enc.SetEscapeHTML(false)
	for _, d := range list {
		_ = enc.Encode(d)
	}
}

// showLog writes the log of the kernel's verifier.
func (a *app) showLog(program, log string) {
	if a.json {
		_ = encodeLine(a.stderr, struct {
			Type    string `json:"type"`
			Program string `json:"program"`
			Log     string `json:"log"`
		}{"verifier_log", program, log})
		return
	}
	fmt.Fprintf(a.stderr, "\nverifier log of program %s:\n%s", program, log)
}

// printJSON writes one value on a line of standard output.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// colors reports whether text written to w may be coloured: it is a terminal,
// and nobody said no (https://no-color.org).
func colors(w io.Writer) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return isTerminal(w)
}

// readsTerminal reports whether somebody types what is read.
func readsTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && fileIsTerminal(f)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && fileIsTerminal(f)
}
