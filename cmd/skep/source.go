package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
)

func (a *app) dumpCommand() *cobra.Command {
	var s scriptFlags
	var d skep.DumpOptions
	cmd := &cobra.Command{
		Use:   "dump [flags] {-e SCRIPT | FILE | OBJECT | -} [ARGS...]",
		Short: "show a script or an object as source, IR and BPF instructions",
		Long: `Dump shows each line of the source with the IR (behind |) and the instructions
that it became. Objects may be of any compiler; their lines come from their
line info.

--passes follows functions through the passes of the optimiser: a
comma-separated list of FUNCTION, FUNCTION:PASS or :PASS, where either may be *.`,
		Example: `  skep dump -e 'BEGIN { @x = pid * 8; }'
  skep dump --asm program.o
  skep dump --ir -e 'BEGIN { @x = 1; }'
  skep dump --passes ':gvn' -e 'BEGIN { @x = 1; }'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			args = s.parameters(cmd, args)
			in, err := a.read(&s, args)
			if err != nil {
				return err
			}
			var text bytes.Buffer
			if in.object != nil {
				err = skep.Dump(&text, in.object, d)
			} else {
				var o skep.CompileOptions
				if o, err = s.options(in.args); err == nil {
					err = skep.DumpScript(&text, in.script, o, d)
				}
			}
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(struct {
					Type string `json:"type"`
					Text string `json:"text"`
				}{"dump", text.String()})
			}
			_, err = a.stdout.Write(text.Bytes())
			return err
		},
	}
	s.add(cmd)
	f := cmd.Flags()
	f.BoolVar(&d.IR, "ir", false, "show the IR alone")
	f.BoolVar(&d.Assembly, "asm", false, "show the instructions alone")
	f.StringVar(&d.Passes, "passes", "", "show `FUNCTION:PASS` after each such pass")
	cmd.MarkFlagsMutuallyExclusive("ir", "asm", "passes")
	return cmd
}

func (a *app) fmtCommand() *cobra.Command {
	var write, diff bool
	cmd := &cobra.Command{
		Use:   "fmt [flags] [FILE...]",
		Short: "lay out scripts",
		Long: `Fmt lays out scripts in the one usual form, comments kept. Without files it
reads standard input.`,
		Example: `  skep fmt -w tools/*.bt
  skep fmt -d trace.bt
  skep fmt < trace.bt`,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				if write {
					return usagef("-w needs files to write")
				}
				args = []string{"-"}
			}
			var errs []error
			for _, name := range args {
				errs = append(errs, a.formatFile(name, write, diff))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&write, "write", "w", false, "write the result to the files")
	cmd.Flags().BoolVarP(&diff, "diff", "d", false, "show what would change, and exit with 1 if anything would")
	return cmd
}

func (a *app) formatFile(name string, write, diff bool) error {
	var data []byte
	var err error
	shown := name
	if name == "-" {
		shown = "stdin"
		data, err = io.ReadAll(a.stdin)
	} else {
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return err
	}
	text, err := skep.Format(source.NewFile(shown, string(data)))
	if err != nil {
		return err
	}
	changed := text != string(data)
	if diff && changed {
		a.code = exitFailure
		if _, err := io.WriteString(a.stdout, lineDiff(shown, string(data), text)); err != nil {
			return err
		}
	}
	switch {
	case write && changed:
		mode := os.FileMode(0o644)
		if st, err := os.Stat(name); err == nil {
			mode = st.Mode().Perm()
		}
		return a.writeFile(name, mode, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		})
	case !write && !diff:
		_, err := io.WriteString(a.stdout, text)
		return err
	}
	return nil
}

// lineDiff is a unified diff of two texts with all of their lines for context:
// scripts are short.
func lineDiff(name, before, after string) string {
	x, y := lines(before), lines(after)
	// Longest common subsequence from each pair of suffixes.
	common := make([][]int, len(x)+1)
	for i := range common {
		common[i] = make([]int, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n@@ -1,%d +1,%d @@\n", name, name, len(x), len(y))
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			b.WriteString(" " + x[i] + "\n")
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && common[i+1][j] >= common[i][j+1]:
			b.WriteString("-" + x[i] + "\n")
			i++
		default:
			b.WriteString("+" + y[j] + "\n")
			j++
		}
	}
	return b.String()
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
