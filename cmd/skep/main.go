package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/ui/text"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	code := 0
	root := &cobra.Command{
		Use: "skep", Short: "program the Linux kernel",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(runCommand(&code))
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root.ExecuteContext(ctx); err != nil {
		source.RenderAll(stderr, source.Diagnostics(err), source.Style{})
		return 1
	}
	return code
}

func runCommand(code *int) *cobra.Command {
	var script string
	cmd := &cobra.Command{
		Use:   "run [-e SCRIPT | FILE] [ARGS...]",
		Short: "compile and run a script",
		RunE: func(cmd *cobra.Command, args []string) error {
			var file *source.File
			if script != "" {
				file = source.NewFile("stdin", script)
			} else {
				if len(args) == 0 {
					return errors.New("nothing to run: give a script with -e, or a file")
				}
				data, err := os.ReadFile(args[0])
				if err != nil {
					return err
				}
				file = source.NewFile(args[0], string(data))
				args = args[1:]
			}
			o := skep.CompileOptions{}
			o.Args = args
			obj, err := skep.Compile(file, o)
			if err != nil {
				return err
			}
			source.RenderAll(cmd.ErrOrStderr(), obj.Warnings, source.Style{})
			p := text.New(cmd.OutOrStdout(), cmd.ErrOrStderr(), false)
			res, err := skep.Run(cmd.Context(), obj, skep.RunOptions{
				Events: p.Event,
				Ready: func(n int) {
					plural := "s"
					if n == 1 {
						plural = ""
					}
					fmt.Fprintf(cmd.ErrOrStderr(), "Attached %d probe%s\n", n, plural)
				},
			})
			*code = res.Code
			return errors.Join(err, p.Flush())
		},
	}
	cmd.Flags().StringVarP(&script, "execute", "e", "", "the script to run")
	return cmd
}
