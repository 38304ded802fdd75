package skep

import (
	"errors"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/source"
)

// TestRejection breaks a compiled script, which the kernel then refuses: the
// refusal is shown at the line of the script.
func TestRejection(t *testing.T) {
	testenv.NeedBPF(t)
	obj, err := Compile(source.NewFile("count.bt", "rawtracepoint:sys_enter {\n\t@x[pid] = 1;\n\t@y = nsecs;\n}"), CompileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	broken := false
	for _, f := range obj.Funcs {
		for _, l := range f.Lines {
			if l.Where().Row == 3 && !broken {
				f.Insns[l.Insn] = isa.Call(51) // redirect_map, for XDP alone
				broken = true
			}
		}
	}
	if !broken {
		t.Fatal("no instruction comes from line 3")
	}
	if obj.ELF, err = obj.Marshal(); err != nil {
		t.Fatal(err)
	}
	_, err = Run(t.Context(), obj, RunOptions{})
	var rejected *VerifierError
	if !errors.As(err, &rejected) || !strings.Contains(rejected.Log, "bpf_redirect_map") {
		t.Fatalf("%v, and no log of the verifier", err)
	}
	var b strings.Builder
	if err := source.RenderAll(&b, Explain(err), source.Style{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"programs of type raw_tracepoint may not call bpf_redirect_map here [rejected]\n",
		"--> count.bt:3:",
		" 3 |     @y = nsecs;\n",
		"^^",
		"note: the kernel's verifier says of instruction ",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "permission") {
		t.Errorf("a verdict is taken for a lack of privilege:\n%s", b.String())
	}
}

func TestToken(t *testing.T) {
	for _, tt := range []struct {
		line string
		col  int
		want string
	}{
		{"\t*v += 1;", 3, "v"},
		{"\t*v += 1;", 2, "*"},
		{"  call(x, y);", 3, "call"},
		{"  call(x);", 0, "call(x);"},
		{"@map[1]", 1, "@map"},
		{"x", 9, "x"},
		{"", 1, ""},
	} {
		start, end := token(tt.line, tt.col)
		if got := tt.line[start:end]; got != tt.want {
			t.Errorf("at column %d of %q: %q, want %q", tt.col, tt.line, got, tt.want)
		}
	}
}
