// Command gen makes the tables of package abi in two steps.
//
//	gen summarise [-source DIR] [-btf FILE] [-names FILES] -o kernels/6.12.txt
//	gen tables -kernels kernels -o ../..
//
// The first reads one kernel (its source, its BTF, or both) and writes what skep
// wants to know of it as text. These summaries are checked in, so that the
// second step, which makes Go tables of them, needs no kernel. since.txt and
// newer.txt beside them are written by hand.
//
// 6.12.txt is of Debian's linux-source-6.12, unpacked, and the BTF of the vmlinux
// in linux-image-6.12-cloud-amd64; 6.1.txt likewise of 6.1, with -calls-only;
// 6.18.txt is of a running kernel's BTF. As the older kernels do not mark the
// functions that programs may call, -names takes them from the other summaries.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: gen summarise|tables [flags]")
		return 2
	}
	set := flag.NewFlagSet("gen "+args[0], flag.ContinueOnError)
	source := set.String("source", "", "unpacked kernel source")
	btfFile := set.String("btf", "", "kernel BTF, raw or in a vmlinux")
	names := set.String("names", "", "summaries, comma separated, whose kernel functions to look for in the BTF")
	callsOnly := set.Bool("calls-only", false, "of the source, read only what programs may call")
	kernels := set.String("kernels", "kernels", "directory of summaries")
	out := set.String("o", "", "file or directory to write")
	if err := set.Parse(args[1:]); err != nil {
		return 2
	}
	var err error
	switch args[0] {
	case "summarise":
		var text string
		if text, err = summarise(*source, *btfFile, *names, *callsOnly); err == nil {
			err = os.WriteFile(*out, []byte(text), 0o644)
		}
	case "tables":
		var files map[string][]byte
		if files, err = tables(*kernels); err == nil {
			for name, text := range files {
				if werr := os.WriteFile(*out+"/"+name, text, 0o644); werr != nil {
					err = werr
				}
			}
		}
	default:
		err = fmt.Errorf("unknown command %q", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		return 1
	}
	return 0
}

// summarise returns the summary of the kernel that a source tree, a BTF file, or
// both describe.
func summarise(source, btfFile, namesFrom string, callsOnly bool) (string, error) {
	var out records
	if btfFile != "" {
		var names map[string]bool
		if namesFrom != "" {
			var err error
			if names, err = kfuncNames(strings.Split(namesFrom, ",")); err != nil {
				return "", err
			}
		}
		if err := summariseBTF(btfFile, names, &out); err != nil {
			return "", err
		}
	}
	if source != "" {
		if err := summariseSource(tree{source}, callsOnly, &out); err != nil {
			return "", err
		}
	}
	return strings.Join(out, "\n") + "\n", nil
}

func summariseSource(t tree, callsOnly bool, out *records) error {
	h, err := t.helpers()
	if err != nil {
		return err
	}
	if err := h.summary(t, out); err != nil {
		return err
	}
	if callsOnly {
		return nil
	}
	t.prototypes(out)
	if err := t.kfuncs(out); err != nil {
		return err
	}
	if err := t.syscalls(out); err != nil {
		return err
	}
	t.constants(out)
	return nil
}
