package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/internal/testenv"
)

func main() { os.Exit(run(os.Stdin, os.Stdout, testenv.CI())) }

func run(in io.Reader, out io.Writer, ci bool) int {
	failed, err := report(in, out, ci)
	if err != nil {
		fmt.Fprintln(out, "report:", err)
	}
	if failed || err != nil {
		return 1
	}
	return 0
}

// event is a line of go test -json; see go doc test2json and go help
// buildjson.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
}

var location = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// report copies what matters from in to out and reports whether the run is to
// count as failed.
func report(in io.Reader, out io.Writer, ci bool) (failed bool, err error) {
	said := map[string][]string{}    // by package and test
	skipped := map[string][]string{} // tests, by reason
	packages, passed := 0, 0
	r := bufio.NewReader(in)
	for {
		line, readErr := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// The go command itself speaks plain text when it gives up early.
				fmt.Fprintf(out, "%s", line)
				failed = true
				continue
			}
			key := e.Package + " " + e.Test
			switch {
			case e.Action == "build-output":
				fmt.Fprint(out, e.Output)
			case e.Action == "build-fail":
				failed = true
			case e.Action == "output" && e.Test == "":
				if e.Output != "PASS\n" {
					fmt.Fprint(out, e.Output)
				}
			case e.Action == "output":
				said[key] = append(said[key], e.Output)
			case e.Test == "":
				if e.Action == "fail" {
					failed = true
				}
				if e.Action == "pass" || e.Action == "fail" {
					packages++
				}
			case e.Action == "fail":
				failed = true
				fmt.Fprint(out, strings.Join(said[key], ""))
				delete(said, key)
			case e.Action == "pass":
				passed++
				delete(said, key)
			case e.Action == "skip":
				why := reason(said[key])
				skipped[why] = append(skipped[why], e.Package[strings.LastIndexByte(e.Package, '/')+1:]+"."+e.Test)
				delete(said, key)
			}
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return true, readErr
		}
	}
	// A test that neither passed nor failed was running when its binary died.
	for _, key := range slices.Sorted(maps.Keys(said)) {
		failed = true
		fmt.Fprint(out, strings.Join(said[key], ""))
	}
	if packages == 0 && !failed {
		return true, errors.New("no package was tested")
	}
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		verdict := "skip"
		if ci && !strings.HasPrefix(why, testenv.SkipMark) {
			verdict, failed = "FAIL: skip without testenv.Skip, which CI forbids", true
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", verdict, strings.Join(skipped[why], " "), why)
	}
	if failed {
		fmt.Fprintln(out, "FAIL")
	} else {
		fmt.Fprintf(out, "all %d tests that ran passed, in %d packages\n", passed, packages)
	}
	return failed, nil
}

// reason returns what a skipped test said last.
func reason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		if loc := location.FindString(l); loc != "" {
			return strings.TrimSpace(l[len(loc):])
		}
	}
	return "no reason given"
}
