package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/skep-bpf/skep/internal/testenv"
)

// TestExec drives the embedded engine, which needs neither root nor a kernel.
func TestExec(t *testing.T) {
	testenv.NeedTool(t, "clang")
	testscript.Run(t, testscript.Params{Dir: "testdata/exec", RequireExplicitExec: true})
}
