package main

import (
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
)

func TestMain(m *testing.M) {
	if object, err := embedded(); object != nil || err != nil {
		main() // a copy of this test that "skep build --exe" made
	}
	testscript.Main(m, map[string]func(){
		"skep":         main,
		"bpftrace":     main,
		"skep-load":    load,
		"work":         work,
		"aside":        work, // for scripts that do not hold the lock of trace, whose counts it must not change
		"absent":       absent,
		"tracee":       tracee,
		"as":           as,
		"delegate":     delegate,
		"packet":       packet,
		"skep-capture": showCapture,
		"pidns":        pidns,
		"signalled":    signalled,
		"written":      written,
		"fields":       fields,
	})
}

// TestCommands runs what does not depend on the kernel much, on the live one
// alone: it starts skep a hundred times, which is slow in guests.
func TestCommands(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	testscript.Run(t, testscript.Params{Dir: "testdata/cli", RequireExplicitExec: true})
}

// TestScripts runs the command line as people do, on the live kernel and in
// the guests.
func TestScripts(t *testing.T) {
	guest.Matrix(t, guest.Config{
		Files: guest.Files{"testdata": "testdata"}, Timeout: 10 * time.Minute,
	}, func(t *testing.T) {
		testenv.NeedRoot(t)
		testenv.NeedBPF(t)
		testenv.NeedTracefs(t)
		testscript.Run(t, testscript.Params{
			Dir: "testdata/script", RequireExplicitExec: true,
			Cmds:      map[string]func(*testscript.TestScript, bool, []string){"trace": traceScript},
			Condition: condition,
			Setup:     findWork,
		})
	})
}
