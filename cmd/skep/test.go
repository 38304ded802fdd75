package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/source"
)

// testSuffix ends the names of files that hold tests.
const testSuffix = ".test.json"

// testFlags are the flags of "skep test".
type testFlags struct {
	run     string
	verbose bool
	tap     bool
	junit   string
	verify  bool
}

func (a *app) testCommand() *cobra.Command {
	var t testFlags
	cmd := &cobra.Command{
		Use:   "test [flags] [DIR | FILE]...",
		Short: "run tables of tests of objects in the embedded engine",
		Long: `Test runs the tests in all files below a directory (by default this one) whose
names end in .test.json. Neither root nor a kernel is needed. Each test loads the
object anew, so that no test sees what another did.

A file is a JSON object with

  object    the object file, beside this file; filter.test.json has filter.o
  program   the program, where the object has several; a test may have its own
  tests     a list of tests

A test has a name and any of

  set       what is there before: {"variables": {NAME: VALUE},
            "maps": {NAME: [{"key": KEY, "value": VALUE}]}}
  clock     what bpf_ktime_get_ns returns, in nanoseconds (0)
  random    what bpf_get_prandom_u32 returns (0)
  process   who runs: {"pid": N, "tgid": N, "uid": N, "gid": N, "comm": TEXT}
  packet    the packet, in hex: a text, or a list of texts that are joined
  context   the context, as "skep exec --context" takes it
  repeat    how often to run (1)
  want      what is there afterwards, any of: "return" (a number, or a name like
            "XDP_DROP"), "packet" (hex, or "unchanged"), "context" (the fields to
            look at), "variables", "maps" (all elements of the maps that are named;
            in arrays, those that are not zero), "events" (all, in order:
            [{"map": NAME, "data": VALUE}]), "redirect" ({"kind": "ifindex",
            "ifindex": 2}), "printed" (what bpf_printk wrote), "error" (a part of
            the message with which the run fails)
  then      a list of further runs in what this one left, each with clock,
            packet, context, repeat and want

Values are written as "skep exec" shows them: numbers, texts of characters, lists,
objects with the members of a structure, where those that are missing are zero.
{"hex": "0011"} gives the bytes of anything; so does a text where the type is not
known. A value of a map per CPU is a list, or their sum.`,
		Example: `  skep test
  skep test -v -run 'block|arp' ./bpf
  skep test --tap --junit results.xml ./bpf

  # A test of a filter: filter.test.json beside filter.o
  {"tests": [{
    "name": "a blocked source is dropped",
    "set": {"maps": {"blocked": [{"key": {"addr": [10, 0, 0, 1]}, "value": 1}]}},
    "packet": ["000000000000 000000000000 0800", "45000014 00000000 40060000 0a000001 0a000002"],
    "want": {"return": "XDP_DROP", "packet": "unchanged", "variables": {"drops": 1}}
  }]}`,
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			return a.test(cmd.Context(), &t, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.run, "run", "", "run only the tests whose names match `REGEXP`; -run is the same")
	f.BoolVarP(&t.verbose, "verbose", "v", false, "show tests that pass, too")
	f.BoolVar(&t.tap, "tap", false, "write results in the Test Anything Protocol")
	f.StringVar(&t.junit, "junit", "", "write results to `FILE`, in JUnit's XML")
	f.BoolVar(&t.verify, "verify", false, "fail where the kernel's verifier would not accept the programs")
	return cmd
}

// A testResult is how one test ended.
type testResult struct {
	Type     string   `json:"type"`
	File     string   `json:"file"`
	Name     string   `json:"name"`
	Pass     bool     `json:"pass"`
	Seconds  float64  `json:"seconds"`
	Failures []string `json:"failures,omitempty"`
}

func (a *app) test(ctx context.Context, t *testFlags, args []string) error {
	match := regexp.MustCompile("")
	if t.run != "" {
		var err error
		if match, err = regexp.Compile(t.run); err != nil {
			return usagef("--run: %v", err)
		}
	}
	if t.tap && a.json {
		return usagef("give --tap or --json, not both")
	}
	files, err := testFiles(args)
	if err != nil {
		return err
	}
	var results []testResult
	report := a.reporter(t)
	begin := time.Now()
	for _, name := range files {
		f, err := readTests(name)
		if err != nil {
			return usageError{&source.Diagnostic{Code: "test", Message: err.Error()}}
		}
		for i := range f.Tests {
			c := &f.Tests[i]
			if !match.MatchString(c.Name) {
				continue
			}
			start := time.Now()
			failures := f.test(ctx, c, t.verify)
			if err := ctx.Err(); err != nil {
				return &source.Diagnostic{Code: "test", Message: "the tests were interrupted"}
			}
			r := testResult{
				Type: "test", File: name, Name: c.Name, Pass: len(failures) == 0, Seconds: time.Since(start).Seconds(), Failures: failures,
			}
			results = append(results, r)
			if err := report(len(results), r); err != nil {
				return err
			}
		}
	}
	if len(results) == 0 {
		return usagef("no test matches %q; -v lists the names of those that run", t.run)
	}
	failed := 0
	for _, r := range results {
		if !r.Pass {
			failed++
			a.code = exitFailure
		}
	}
	if t.junit != "" {
		if err := writeJUnit(t.junit, results); err != nil {
			return err
		}
	}
	switch {
	case t.tap:
		_, err = fmt.Fprintf(a.stdout, "1..%d\n", len(results))
	case a.json:
	case failed > 0:
		_, err = fmt.Fprintf(a.stdout, "FAIL: %d of %d tests failed\n", failed, len(results))
	default:
		_, err = fmt.Fprintf(a.stdout, "ok: %d tests in %v\n", len(results), time.Since(begin).Round(time.Millisecond))
	}
	return err
}

// testFiles finds the files of tests that arguments name.
func testFiles(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		info, err := os.Stat(arg)
		if err != nil {
			return nil, usageError{err}
		}
		if !info.IsDir() {
			files = append(files, arg)
			continue
		}
		err = filepath.WalkDir(arg, func(name string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && strings.HasSuffix(name, testSuffix) {
				files = append(files, name)
			}
			return err
		})
		if err != nil {
			return nil, usageError{err}
		}
	}
	if len(files) == 0 {
		return nil, usagef("there are no tests below %s: they are in files called NAME%s (skep test --help shows one)", strings.Join(args, ", "), testSuffix)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// test runs one test, and returns what is not as it should be.
func (f *testFile) test(ctx context.Context, c *testCase, verify bool) []string {
	r, err := f.load(c, verify)
	if err != nil {
		var rejected *skep.RejectedError
		if errors.As(err, &rejected) {
			return []string{rejected.Diagnostics()[0].Message}
		}
		return []string{err.Error()}
	}
	defer r.close()
	failures := r.run(ctx, &c.testRun, "")
	for i := range c.Then {
		failures = append(failures, r.run(ctx, &c.Then[i], fmt.Sprintf("run %d: ", i+2))...)
	}
	return failures
}
