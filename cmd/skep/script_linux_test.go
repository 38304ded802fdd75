package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"skep":      func() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		"skep-load": load,
	})
}

// TestScripts runs the command line as people do, on the live kernel and in
// the guests.
func TestScripts(t *testing.T) {
	guest.Matrix(t, guest.Config{Files: guest.Files{"testdata": "testdata"}}, func(t *testing.T) {
		testenv.NeedRoot(t)
		testenv.NeedBPF(t)
		testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireExplicitExec: true})
	})
}
