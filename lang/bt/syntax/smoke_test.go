package syntax

import ("testing";"os";"path/filepath";"github.com/skep-bpf/skep/source";"strings";"fmt")

func TestSmoke(t *testing.T) {
	fs, _ := filepath.Glob("/usr/sbin/*.bt")
	for _, f := range fs {
		b, _ := os.ReadFile(f)
		for _, defs := range [][]string{nil, {"BPFTRACE_HAVE_BTF"}} {
		p, l := Parse(source.NewFile(f, string(b)), Options{Defines: defs})
		for _, d := range l { var sb strings.Builder; source.Render(&sb, d, source.Style{}); t.Error(sb.String()) }
		_ = p
		}
		out, l := Format(source.NewFile(f, string(b)))
		for _, d := range l { var sb strings.Builder; source.Render(&sb, d, source.Style{}); t.Error(sb.String()) }
		out2, l := Format(source.NewFile(f, out))
		if out != out2 { t.Error(f, "not idem") }
		if os.Getenv("SHOW") != "" && strings.Contains(f, os.Getenv("SHOW")) { fmt.Print(out); fmt.Print(Print(p0(f,string(b)))) }
	}
}
func p0(f,s string) *Program {p,_ := Parse(source.NewFile(f, s), Options{});return p}
