package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// writeManPages writes a page of section 1 for every command below root.
func writeManPages(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, cmd := range append([]*cobra.Command{root}, descendants(root)...) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(manPage(cmd)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func descendants(cmd *cobra.Command) []*cobra.Command {
	var all []*cobra.Command
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			all = append(append(all, c), descendants(c)...)
		}
	}
	return all
}

// roff escapes text for troff.
func roff(text string) string {
	text = strings.ReplaceAll(text, `\`, `\e`)
	text = strings.ReplaceAll(text, "-", `\-`)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

// manPage is the page of one command, man(7).
func manPage(cmd *cobra.Command) string {
	cmd.InitDefaultHelpFlag()
	var b strings.Builder
	path := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
	fmt.Fprintf(&b, ".TH %s 1 \"\" skep \"skep manual\"\n", strings.ToUpper(roff(path)))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(path), roff(cmd.Short))
	if cmd.Runnable() {
		fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(cmd.UseLine()))
	}
	if long := cmd.Long; long != "" {
		fmt.Fprintf(&b, ".SH DESCRIPTION\n")
		for para := range strings.SplitSeq(long, "\n\n") {
			if strings.Contains(para, "\n  ") || strings.HasPrefix(para, "  ") {
				fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", roff(para))
			} else {
				fmt.Fprintf(&b, ".PP\n%s\n", roff(para))
			}
		}
	}
	flags := func(title string, set *pflag.FlagSet) {
		if !set.HasAvailableFlags() {
			return
		}
		fmt.Fprintf(&b, ".SH %s\n", title)
		set.VisitAll(func(f *pflag.Flag) {
			if f.Hidden {
				return
			}
			value, usage := pflag.UnquoteUsage(f)
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			if value != "" {
				value = ` \fI` + roff(value) + `\fP`
			}
			fmt.Fprintf(&b, ".TP\n\\fB%s\\fP%s\n%s\n", roff(name), value, roff(usage))
		})
	}
	flags("OPTIONS", cmd.NonInheritedFlags())
	flags("GLOBAL OPTIONS", cmd.InheritedFlags())
	if cmd.Example != "" {
		fmt.Fprintf(&b, ".SH EXAMPLES\n.nf\n%s\n.fi\n", roff(cmd.Example))
	}
	var also []string
	if p := cmd.Parent(); p != nil {
		also = append(also, strings.ReplaceAll(p.CommandPath(), " ", "-"))
	}
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			also = append(also, strings.ReplaceAll(c.CommandPath(), " ", "-"))
		}
	}
	if len(also) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, name := range also {
			end := ",\n"
			if i == len(also)-1 {
				end = "\n"
			}
			fmt.Fprintf(&b, ".BR %s (1)%s", roff(name), end)
		}
	}
	return b.String()
}
