package main

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

// scriptFlags are the flags of all commands that take a script.
type scriptFlags struct {
	execute  string
	target   string
	dirs     []string
	includes []string
	unsafe   bool
	named    map[string]string // of a script, for getopt
	// traceable is a file with the kernel functions that can be traced, in
	// place of the kernel's own list.
	traceable string
}

func (s *scriptFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&s.execute, "execute", "e", "", "the `SCRIPT` itself, instead of a file")
	f.StringVar(&s.target, "target", "", "compile for the machine in the snapshot `FILE` (skep target save)")
	f.StringArrayVarP(&s.dirs, "include-dir", "I", nil, "look for included files in `DIR` too")
	f.StringArrayVar(&s.includes, "include", nil, "include `FILE` before the script")
	f.BoolVar(&s.unsafe, "unsafe", false, "allow what changes the system: system, signal, override, ...")
	_ = cmd.RegisterFlagCompletionFunc("execute", completeProbes)
	_ = cmd.MarkFlagFilename("target")
	_ = cmd.MarkFlagDirname("include-dir")
}

// parameters takes the named parameters (--NAME or --NAME=VALUE behind --) out
// of a command's arguments, and returns the others.
func (s *scriptFlags) parameters(cmd *cobra.Command, args []string) []string {
	dash := cmd.ArgsLenAtDash()
	if dash < 0 {
		return args
	}
	rest := args[:dash:dash]
	for _, arg := range args[dash:] {
		name, ok := strings.CutPrefix(arg, "--")
		if !ok || name == "" {
			rest = append(rest, arg)
			continue
		}
		if s.named == nil {
			s.named = map[string]string{}
		}
		name, value, _ := strings.Cut(name, "=")
		s.named[name] = value
	}
	return rest
}

// An input is what a command was given to work on.
type input struct {
	script *source.File // or
	object *skep.Object
	args   []string // what followed it
}

// readFile reads a file, or standard input for "-", and returns what to call it
// in messages.
func (a *app) readFile(name string) (string, []byte, error) {
	if name == "-" {
		data, err := io.ReadAll(a.stdin)
		return "stdin", data, err
	}
	data, err := os.ReadFile(name)
	return name, data, err
}

// read reads what the arguments name: -e, a file, or "-" for standard input.
func (a *app) read(s *scriptFlags, args []string) (input, error) {
	if s.execute != "" {
		return input{script: source.NewFile("stdin", s.execute), args: args}, nil
	}
	if len(args) == 0 {
		return input{}, usagef("nothing to work on: give a script with -e, or a file")
	}
	rest := args[1:]
	name, data, err := a.readFile(args[0])
	if err != nil {
		if errors.Is(err, os.ErrNotExist) && strings.ContainsAny(name, " {") {
			err = usagef("there is no file %q; a script on the command line goes behind -e", name)
		}
		return input{}, err
	}
	if !skep.IsObject(data) {
		if looksBinary(data) {
			return input{}, &source.Diagnostic{Code: "file", Message: name + " is neither a script nor an ELF object"}
		}
		return input{script: source.NewFile(name, string(data)), args: rest}, nil
	}
	obj, err := skep.ReadObject(data)
	if err != nil {
		return input{}, &source.Diagnostic{Code: "bad-object", Message: name + ": " + err.Error()}
	}
	return input{object: obj, args: rest}, nil
}

// looksBinary reports whether data has zeros near its start, which no text has.
func looksBinary(data []byte) bool {
	return strings.IndexByte(string(data[:min(len(data), 4096)]), 0) >= 0
}

// options are what scripts are compiled with.
func (s *scriptFlags) options(args []string) (skep.CompileOptions, error) {
	o := skep.CompileOptions{}
	o.Args, o.Named = args, s.named
	o.Unsafe = s.unsafe
	o.IncludeDirs, o.Include = s.dirs, s.includes
	o.Settings = skep.EnvironmentSettings(os.Environ())
	t, err := s.machine()
	o.Target = t
	return o, err
}

// machine is the target that flags name, nil for this machine as it is.
func (s *scriptFlags) machine() (target.Target, error) {
	if s.target != "" {
		return loadTarget(s.target)
	}
	if s.traceable == "" {
		return nil, nil
	}
	text, err := os.ReadFile(s.traceable)
	if err != nil {
		return nil, err
	}
	t, err := skep.Target()
	if err != nil {
		return nil, err
	}
	return target.WithFunctions(t, string(text)), nil
}

func loadTarget(name string) (target.Target, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t, err := skep.LoadTarget(f)
	if err != nil {
		return nil, &source.Diagnostic{Code: "bad-target", Message: name + ": " + err.Error()}
	}
	return t, nil
}

// compile compiles a script and shows the warnings.
func (a *app) compile(file *source.File, o skep.CompileOptions) (*skep.Object, error) {
	obj, err := skep.Compile(file, o)
	if err != nil {
		return nil, err
	}
	a.show(obj.Warnings)
	return obj, nil
}
