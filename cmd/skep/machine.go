package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/target"
)

// encodeLine writes a value as one line of JSON.
func encodeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "find out what works on this machine, what does not, why, and what to do",
		Long: `Doctor asks the kernel for everything that skep uses, and tells what this
process may do and how the machine is hardened. Nothing stays changed.`,
		Example: `  sudo skep doctor
  skep doctor --json | jq 'select(.health == "missing")'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return a.doctor() },
	}
}

func (a *app) doctor() error {
	out := bufio.NewWriter(a.stdout)
	group, last := "", skep.Check{}
	paint := func(_ skep.Health, s string) string { return s }
	if colors(a.stdout) {
		paint = func(h skep.Health, s string) string {
			color := map[skep.Health]string{skep.Works: "32", skep.Missing: "31", skep.Unknown: "33", skep.Note: "36"}[h]
			return "\x1b[" + color + "m" + s + "\x1b[0m"
		}
	}
	for _, c := range skep.Doctor() {
		if a.json {
			if err := encodeLine(out, struct {
				Type string `json:"type"`
				skep.Check
			}{"check", c}); err != nil {
				return err
			}
			continue
		}
		if c.Group != group {
			if group != "" {
				fmt.Fprintln(out)
			}
			group = c.Group
			fmt.Fprintln(out, group)
		}
		detail, remedy := c.Detail, c.Remedy
		if remedy != "" && c.Detail == last.Detail && c.Remedy == last.Remedy && c.Health == last.Health {
			detail, remedy = "as above", ""
		}
		last = c
		line := fmt.Sprintf("  %s %-26s %s", paint(c.Health, fmt.Sprintf("%-8s", c.Health)), c.Name, detail)
		fmt.Fprintln(out, strings.TrimRight(line, " "))
		if remedy != "" {
			fmt.Fprintf(out, "           -> %s\n", remedy)
		}
	}
	return out.Flush()
}

func (a *app) targetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "target",
		Short: "save what scripts are compiled with, and look at it",
		Long: `A snapshot holds the types, tracepoints, functions and features of a machine,
so that scripts are compiled and checked for it elsewhere (--target).`,
		Example: `  sudo skep target save server.skep
  skep check --target server.skep trace.bt`,
	}
	save := &cobra.Command{
		Use:     "save FILE",
		Short:   "save a snapshot of this machine",
		Example: "  sudo skep target save $(uname -n).skep",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := skep.Target()
			if err != nil {
				return err
			}
			name, err := os.Hostname()
			if err != nil || name == "" {
				name = t.Release().Text
			}
			err = a.writeFile(args[0], 0o644, func(w io.Writer) error {
				buffered := bufio.NewWriterSize(w, 1<<20)
				if err := skep.SaveTarget(buffered, t, name); err != nil {
					return err
				}
				return buffered.Flush()
			})
			if err != nil || !a.json {
				return err
			}
			return a.printJSON(struct {
				Type string `json:"type"`
				File string `json:"file"`
				Name string `json:"name"`
			}{"saved", args[0], name})
		},
	}
	show := &cobra.Command{
		Use:     "show FILE",
		Short:   "tell what is in a snapshot",
		Example: "  skep target show server.skep",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := loadTarget(args[0])
			if err != nil {
				return err
			}
			return a.showTarget(t)
		},
	}
	cmd.AddCommand(save, show)
	return cmd
}

func (a *app) showTarget(t target.Target) error {
	type summary struct {
		Type     string   `json:"type"`
		Name     string   `json:"name"`
		Arch     string   `json:"arch"`
		Release  string   `json:"release"`
		CPUs     int      `json:"cpus"`
		PageSize int      `json:"page_size"`
		Types    bool     `json:"types"`
		Events   int      `json:"tracepoints"`
		Raw      int      `json:"raw_tracepoints"`
		Features []string `json:"features"`
		Lacks    []string `json:"lacks"`
	}
	s := summary{Type: "target", Name: t.Name(), Arch: t.Arch(), Release: t.Release().Text, CPUs: t.CPUs(), PageSize: t.PageSize()}
	_, err := t.Types()
	s.Types = err == nil
	if events, err := t.Events(); err == nil {
		s.Events = len(events)
	}
	if raw, err := t.RawTracepoints(); err == nil {
		s.Raw = len(raw)
	}
	for info := range target.Features() {
		if t.Feature(info.Name).Have {
			s.Features = append(s.Features, string(info.Name))
		} else {
			s.Lacks = append(s.Lacks, string(info.Name))
		}
	}
	if a.json {
		return a.printJSON(s)
	}
	types := "with types (BTF)"
	if !s.Types {
		types = "without types (BTF)"
	}
	_, err = fmt.Fprintf(a.stdout, "%s: Linux %s on %s, %d CPUs, %s\n%d tracepoints, %d raw tracepoints\nhas   %s\nlacks %s\n",
		s.Name, s.Release, s.Arch, s.CPUs, types, s.Events, s.Raw, strings.Join(s.Features, " "), strings.Join(s.Lacks, " "))
	return err
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "tell which skep this is",
		Example: "  skep version --json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := buildVersion()
			if a.json {
				return a.printJSON(struct {
					Type    string `json:"type"`
					Version string `json:"version"`
					Go      string `json:"go"`
					OS      string `json:"os"`
					Arch    string `json:"arch"`
				}{"version", v, runtime.Version(), runtime.GOOS, runtime.GOARCH})
			}
			_, err := fmt.Fprintf(a.stdout, "skep %s (%s, %s/%s)\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}

// buildVersion is the version that the go command wrote into the binary.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
