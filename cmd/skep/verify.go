package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf/btf"
	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/verifier"
)

func (a *app) verifyCommand() *cobra.Command {
	var program, kernelName, capsName, types string
	cmd := &cobra.Command{
		Use:   "verify [flags] OBJECT",
		Short: "say what the kernel's verifier would say of an object, and why",
		Long: `Verify applies the rules of the kernel's verifier to the programs of an object,
skep's or any that clang made, without loading them; no privilege is needed. A
program is accepted, or rejected with the reason at the line of its source, what
was known there, how it was reached and what to change. It is unsupported where it
needs a rule that skep does not have yet, which is then named.

The rules are those of Linux 6.18; --kernel 6.1 and 6.12 have rules of their own, not only
other helpers and program types.

The exit code is 0 when all programs are accepted, 1 when some are not, and 2 when
the object cannot be read.`,
		Example: `  skep verify program.o
  skep verify --program handle_exec --kernel 6.1 program.o
  skep verify --caps bpf --json program.o`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o := skep.VerifyOptions{Program: program}
			var ok bool
			if o.Caps, ok = verifier.ParseCaps(capsName); !ok {
				return usagef("--caps is all, bpf or none, not %q", capsName)
			}
			var err error
			if o.Kernel, err = parseKernel(kernelName); err != nil {
				return err
			}
			data, err := a.readObject(args[0])
			if err != nil {
				return usageError{err}
			}
			if o.Types, err = kernelTypes(types); err != nil {
				return usageError{err}
			}
			list, err := skep.Verify(data, o)
			if err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			return a.verified(list)
		},
	}
	f := cmd.Flags()
	f.StringVar(&program, "program", "", "verify the program called `NAME` only")
	f.StringVar(&kernelName, "kernel", "6.18", "by the rules of Linux `VERSION`: 6.1, 6.12 or 6.18")
	f.StringVar(&capsName, "caps", "all", "loaded with the capabilities `SET`: all, bpf (CAP_BPF alone) or none")
	f.StringVar(&types, "btf", "", "take the kernel's types from `FILE` instead of this machine")
	return cmd
}

// parseKernel reads a release whose rules there are.
func parseKernel(name string) (abi.Version, error) {
	v, err := abi.ParseVersion(name)
	if err != nil || v != abi.Linux6_1 && v != abi.Linux6_12 && v != abi.Linux6_18 {
		return 0, usagef("--kernel is 6.1, 6.12 or 6.18, not %q", name)
	}
	return v, nil
}

// readObject reads an object file, or standard input for "-".
func (a *app) readObject(name string) (*skep.Object, error) {
	name, data, err := a.readFile(name)
	if err != nil {
		return nil, err
	}
	o, err := skep.ReadObject(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return o, nil
}

// kernelTypes reads the BTF in a file, or that of this machine, which may have
// none.
func kernelTypes(file string) (*btf.Spec, error) {
	if file != "" {
		spec, err := btf.LoadSpec(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return spec, nil
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		return nil, nil
	}
	return btf.LoadSpec("/sys/kernel/btf/vmlinux")
}

// jsonVerified is one program in the output of verify --json.
type jsonVerified struct {
	Type    string           `json:"type"`
	Program string           `json:"program"`
	Verdict string           `json:"verdict"`
	Insns   int              `json:"insns_processed"`
	States  int              `json:"states"`
	NS      int64            `json:"ns"`
	Error   *jsonVerifyError `json:"error"` // null where it is accepted
}

type jsonVerifyError struct {
	Code       verifier.Code     `json:"code"`
	Category   verifier.Category `json:"category"`
	Message    string            `json:"message"`
	Insn       int               `json:"insn"`
	Register   *int              `json:"register,omitempty"`
	Source     *jsonLine         `json:"source"` // null where the object does not say
	State      map[string]string `json:"state,omitempty"`
	Path       []jsonStep        `json:"path"`
	Suggestion string            `json:"suggestion"`
}

type jsonLine struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"column,omitempty"`
	Text string `json:"text"`
}

type jsonStep struct {
	Insn   int       `json:"insn"`
	Next   int       `json:"next"`
	Source *jsonLine `json:"source,omitempty"`
}

func lineOf(p *verifier.Program, slot int) *jsonLine {
	if slot < 0 {
		return nil
	}
	l, ok := p.LineOf(slot)
	if !ok {
		return nil
	}
	return &jsonLine{l.File, l.Row, l.Col, strings.TrimSpace(l.Text)}
}

func toJSON(v skep.Verified) jsonVerified {
	j := jsonVerified{
		Type: "verified", Program: v.Program.Name, Verdict: v.Verdict.String(), Insns: v.Insns, States: v.States, NS: v.Time.Nanoseconds(),
	}
	e := v.Err
	if e == nil {
		return j
	}
	je := &jsonVerifyError{
		Code: e.Code, Category: e.Category, Message: e.Message, Insn: e.Insn, Source: lineOf(v.Program, e.Insn),
		Path: []jsonStep{}, Suggestion: e.Suggestion,
	}
	if e.Register >= 0 {
		je.Register = &e.Register
	}
	if len(e.State) > 0 {
		je.State = map[string]string{}
		for _, k := range e.State {
			je.State[k.Place] = k.What
		}
	}
	for _, s := range e.Path {
		je.Path = append(je.Path, jsonStep{s.Insn, s.Next, lineOf(v.Program, s.Insn)})
	}
	j.Error = je
	return j
}

// verified shows what was found out.
func (a *app) verified(list []skep.Verified) error {
	for _, v := range list {
		if v.Verdict != verifier.Accepted {
			a.code = exitFailure
		}
		if a.json {
			if err := a.printJSON(toJSON(v)); err != nil {
				return err
			}
			continue
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "%s: %v", v.Program.Name, v.Verdict)
		switch v.Verdict {
		case verifier.Accepted:
			fmt.Fprintf(&b, " (%d instructions processed, %d states, %v)\n", v.Insns, v.States, v.Time.Round(1000))
		case verifier.Unsupported:
			fmt.Fprintf(&b, ": skep cannot judge %s yet\n", v.Err.Message)
		default:
			b.WriteString(": ")
			if err := verifier.Render(&b, v.Program, v.Err); err != nil {
				return err
			}
		}
		if _, err := a.stdout.Write(b.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
