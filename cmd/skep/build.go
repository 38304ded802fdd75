package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
)

func (a *app) buildCommand() *cobra.Command {
	var s scriptFlags
	var out, base string
	var exe, portable bool
	cmd := &cobra.Command{
		Use:   "build [flags] {-e SCRIPT | FILE | -} [ARGS...] [-o OUT] [-- --NAME=VALUE...]",
		Short: "compile a script into an object, or a self-contained executable",
		Long: `Build writes a BPF object that skep run, and mostly bpftool and libbpf, load on
this machine and others. What another machine has elsewhere is adjusted when it
is loaded; what cannot be adjusted is compiled again there from the source that
the object carries. --portable refuses what loaders other than skep could not
get right, and has the kernel refuse the object where fields that it reads are
not what they are here. --exe writes an executable that needs nothing else to run.

Arguments are the script's $1, $2, ...`,
		Example: `  skep build opens.bt -o opens.o && skep run opens.o
  skep build --exe opens.bt -o opens && scp opens server: && ssh root@server ./opens
  skep build --target server.skep --portable opens.bt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = s.parameters(cmd, args)
			in, err := a.read(&s, args)
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
			if portable {
				fit, list := skep.Portable(obj)
				if len(list) > 0 {
					return list
				}
				obj = fit
			}
			if out == "" {
				if in.script == nil || s.execute != "" || args[0] == "-" {
					return usagef("say with -o where to write")
				}
				out = strings.TrimSuffix(filepath.Base(in.script.Name), ".bt")
				if !exe {
					out += ".o"
				}
			}
			if !exe {
				err := a.writeFile(out, 0o644, func(w io.Writer) error {
					_, err := w.Write(obj.ELF)
					return err
				})
				return a.built(err, out, obj)
			}
			if base == "" {
				if obj.Arch != "" && obj.Arch != runtime.GOARCH || runtime.GOOS != "linux" {
					return &source.Diagnostic{Code: "wrong-architecture", Message: fmt.Sprintf(
						"the script was compiled for linux on %s, and this skep runs on %s on %s: name a skep for there with --skep",
						obj.Arch, runtime.GOOS, runtime.GOARCH)}
				}
				if base, err = os.Executable(); err != nil {
					return fmt.Errorf("skep cannot find its own file: %w", err)
				}
			}
			return a.built(a.writeFile(out, 0o755, func(w io.Writer) error { return writeExecutable(w, base, obj.ELF) }), out, obj)
		},
	}
	s.add(cmd)
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "write to `FILE` (- is standard output)")
	f.BoolVar(&exe, "exe", false, "write a self-contained executable")
	f.StringVar(&base, "skep", "", "with --exe: the skep to put the object into, instead of this one")
	f.BoolVar(&portable, "portable", false, "refuse what depends on this machine in ways that other loaders cannot adjust")
	return cmd
}

// built says what was written, where that was asked for.
func (a *app) built(err error, out string, obj *skep.Object) error {
	if err != nil || !a.json || out == "-" {
		return err
	}
	programs := []string{}
	for _, f := range obj.Funcs {
		if f.Section != "" {
			programs = append(programs, f.Name)
		}
	}
	return a.printJSON(struct {
		Type     string   `json:"type"`
		File     string   `json:"file"`
		Bytes    int      `json:"bytes"`
		Programs []string `json:"programs"`
	}{"built", out, len(obj.ELF), programs})
}
