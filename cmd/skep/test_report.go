package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"
)

// reporter returns what is told of each test as it ends; number counts from 1.
func (a *app) reporter(t *testFlags) func(number int, r testResult) error {
	switch {
	case a.json:
		return func(_ int, r testResult) error { return a.printJSON(r) }
	case t.tap:
		fmt.Fprintln(a.stdout, "TAP version 14")
		return func(n int, r testResult) error {
			var b strings.Builder
			word := "ok"
			if !r.Pass {
				word = "not ok"
			}
			// # and a backslash would be read as more than the name.
			name := strings.NewReplacer(`\`, `\\`, "#", `\#`, "\n", " ").Replace(r.Name)
			fmt.Fprintf(&b, "%s %d - %s: %s\n", word, n, r.File, name)
			if !r.Pass {
				b.WriteString("  ---\n  message: |\n")
				for _, line := range strings.Split(strings.Join(r.Failures, "\n"), "\n") {
					fmt.Fprintf(&b, "    %s\n", line)
				}
				b.WriteString("  ...\n")
			}
			_, err := a.stdout.Write([]byte(b.String()))
			return err
		}
	}
	return func(_ int, r testResult) error {
		if r.Pass && !t.verbose {
			return nil
		}
		var b strings.Builder
		word := "ok  "
		if !r.Pass {
			word = "FAIL"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", word, r.File, r.Name)
		for _, f := range r.Failures {
			for _, line := range strings.Split(f, "\n") {
				fmt.Fprintf(&b, "     %s\n", line)
			}
		}
		_, err := a.stdout.Write([]byte(b.String()))
		return err
	}
}

// The XML that JUnit's readers agree on.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit writes results, a suite for each file.
func writeJUnit(name string, results []testResult) error {
	all := junitSuites{Tests: len(results)}
	seconds := 0.0
	for _, r := range results {
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != r.File {
			all.Suites = append(all.Suites, junitSuite{Name: r.File})
			seconds = 0
		}
		s := &all.Suites[len(all.Suites)-1]
		seconds += r.Seconds
		s.Tests++
		s.Time = fmt.Sprintf("%.6f", seconds)
		c := junitCase{Class: strings.TrimSuffix(r.File, testSuffix), Name: r.Name, Time: fmt.Sprintf("%.6f", r.Seconds)}
		if !r.Pass {
			s.Failures++
			all.Failures++
			first, _, _ := strings.Cut(r.Failures[0], "\n")
			c.Failure = &junitFailure{Message: first, Text: strings.Join(r.Failures, "\n")}
		}
		s.Cases = append(s.Cases, c)
	}
	b, err := xml.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append([]byte(xml.Header), append(b, '\n')...), 0o666)
}
