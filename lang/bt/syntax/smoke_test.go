package syntax

import ("testing";"os";"path/filepath";"github.com/skep-bpf/skep/source";"strings")

func TestSmoke(t *testing.T) {
	fs, _ := filepath.Glob("/usr/sbin/*.bt")
	for _, f := range fs {
		b, _ := os.ReadFile(f)
		for _, defs := range [][]string{nil, {"BPFTRACE_HAVE_BTF"}} {
		p, l := Parse(source.NewFile(f, string(b)), Options{Defines: defs})
		for _, d := range l { var sb strings.Builder; source.Render(&sb, d, source.Style{}); t.Error(sb.String()) }
		_ = p
		}
	}
}
