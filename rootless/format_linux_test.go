package rootless_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/rootless"
	"github.com/skep-bpf/skep/target"
)

// TestFormats compares the events that there are without privilege, and their
// fields, with those of a kernel.
func TestFormats(t *testing.T) {
	guest.Matrix(t, guest.Config{}, func(t *testing.T) {
		testenv.NeedRoot(t)
		testenv.NeedTracefs(t)
		live, err := kernel.Target()
		if err != nil {
			t.Fatal(err)
		}
		user, err := rootless.Target(live)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := user.Events()
		if err != nil {
			t.Fatal(err)
		}
		have := map[target.Event]bool{}
		compared := 0
		for _, e := range ours {
			have[e] = true
			want, err := live.Format(e.Subsystem, e.Name)
			if errors.Is(err, target.ErrNotFound) {
				continue // newer than this kernel, or configured away
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := user.Format(e.Subsystem, e.Name)
			if err != nil {
				t.Fatal(err)
			}
			if g, w := fields(got), fields(want); g != w && changed[e.Name] != differ(g, w) {
				t.Errorf("%s:\n%swant\n%s", e, g, w)
			}
			compared++
		}
		if compared < 600 {
			t.Errorf("only %d events of this kernel are known", compared)
		}
		all, err := live.Events()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if (e.Subsystem == "syscalls" || e.Subsystem == "raw_syscalls") && !have[e] {
				t.Errorf("%s is not known", e)
			}
		}
	})
}

// changed are fields that kernels of the matrix declare otherwise, by event: as
// the table has them, and as such a kernel has them. Their places are the same.
var changed = map[string]string{
	"sys_enter_name_to_handle_at": "void *mnt_id 40 8 pointer, int *mnt_id 40 8 pointer", // until 6.11
}

// differ is the one line in which two texts differ, in both forms.
func differ(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	if len(x) != len(y) {
		return ""
	}
	found := ""
	for i := range x {
		switch {
		case x[i] == y[i]:
		case found != "":
			return ""
		default:
			found = x[i] + ", " + y[i]
		}
	}
	return found
}

func fields(f *target.Format) string {
	var b strings.Builder
	for _, x := range f.Fields {
		b.WriteString(x.Decl())
		b.WriteString(strings.Join([]string{"", strconv.Itoa(x.Offset), strconv.Itoa(x.Size), x.Kind.String()}, " "))
		if x.Signed {
			b.WriteString(" signed")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
