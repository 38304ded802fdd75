package main

import (
	"strings"
	"testing"
)

const pkg = `"Package":"example.org/m/p"`

const passes = `{"Action":"start",` + pkg + `}
{"Action":"run",` + pkg + `,"Test":"TestA"}
{"Action":"output",` + pkg + `,"Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output",` + pkg + `,"Test":"TestA","Output":"    a_test.go:3: a word\n"}
{"Action":"output",` + pkg + `,"Test":"TestA","Output":"--- PASS: TestA (0.00s)\n"}
{"Action":"pass",` + pkg + `,"Test":"TestA","Elapsed":0}
{"Action":"output",` + pkg + `,"Output":"PASS\n"}
{"Action":"output",` + pkg + `,"Output":"ok  \texample.org/m/p\t0.001s\n"}
{"Action":"pass",` + pkg + `,"Elapsed":0.001}
`

func skip(why string) string {
	return strings.Replace(strings.ReplaceAll(passes, `"pass",`+pkg+`,"Test"`, `"skip",`+pkg+`,"Test"`), "a word", why, 1)
}

func TestReport(t *testing.T) {
	for name, tt := range map[string]struct {
		in     string
		ci     bool
		failed bool
		out    string
	}{
		"pass": {passes, true, false, "ok  \texample.org/m/p\t0.001s\nall 1 tests that ran passed, in 1 packages\n"},
		"fail": {
			strings.ReplaceAll(strings.ReplaceAll(passes, `"pass"`, `"fail"`), "ok  ", "FAIL"), false, true,
			"=== RUN   TestA\n    a_test.go:3: a word\n--- PASS: TestA (0.00s)\nFAIL\texample.org/m/p\t0.001s\nFAIL\n",
		},
		"skip": {
			skip("rain"), false, false,
			"ok  \texample.org/m/p\t0.001s\nskip\tp.TestA\train\nall 0 tests that ran passed, in 1 packages\n",
		},
		"skip in CI": {
			skip("rain"), true, true,
			"ok  \texample.org/m/p\t0.001s\nFAIL: skip without testenv.Skip, which CI forbids\tp.TestA\train\nFAIL\n",
		},
		"allowed skip in CI": {
			skip("skipped for want of kprobe: none"), true, false,
			"ok  \texample.org/m/p\t0.001s\nskip\tp.TestA\tskipped for want of kprobe: none\nall 0 tests that ran passed, in 1 packages\n",
		},
		"killed": {
			strings.Join(strings.SplitAfter(passes, "\n")[:4], "") + `{"Action":"fail",` + pkg + "}\n", false, true,
			"=== RUN   TestA\n    a_test.go:3: a word\nFAIL\n",
		},
		"build": {
			`{"ImportPath":"example.org/m/p","Action":"build-output","Output":"a.go:1: oops\n"}` + "\n" +
				`{"ImportPath":"example.org/m/p","Action":"build-fail"}`, false, true,
			"a.go:1: oops\nFAIL\n",
		},
		"not JSON": {"go: cannot find main module\n", false, true, "go: cannot find main module\nFAIL\n"},
		"nothing":  {"", false, true, ""},
	} {
		var out strings.Builder
		failed, err := report(strings.NewReader(tt.in), &out, tt.ci)
		if failed != tt.failed || out.String() != tt.out || (err != nil) != (name == "nothing") {
			t.Errorf("%s: failed %v, error %v, output:\n%s\nwant %v:\n%s", name, failed, err, &out, tt.failed, tt.out)
		}
	}
}
