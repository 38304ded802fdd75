package skep_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/runner"
	"github.com/skep-bpf/skep/source"
)

// TestObjectElsewhere runs objects that were built on the live kernel in the
// guests: one that CO-RE alone carries over, and one that relies on a field
// which their kernels have elsewhere (parent_comm is text in the record until
// 6.15, and a place of text after).
func TestObjectElsewhere(t *testing.T) {
	testenv.NeedBPF(t)
	scripts := map[string]string{
		"portable.o": `begin { printf("%s %d\n", curtask.comm, curtask.tgid == pid); exit(); }`,
		"moved.o":    `tracepoint:sched:sched_process_fork /args.parent_pid == $1 || $1 == 0/ { printf("%s %s\n", probe, args.parent_comm); exit(); }`,
	}
	files := guest.Files{}
	if testenv.InGuest() == "" {
		testenv.NeedTracefs(t)
		dir := t.TempDir()
		for name, script := range scripts {
			obj, err := skep.Compile(source.NewFile(name, script), skep.CompileOptions{})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, obj.ELF, 0o644); err != nil {
				t.Fatal(err)
			}
			files["/"+name] = path
		}
	}
	guest.Each(t, guest.Config{Files: files}, func(t *testing.T) {
		testenv.NeedTracefs(t)
		for name := range scripts {
			data, err := os.ReadFile("/" + name)
			if err != nil {
				t.Fatal(err)
			}
			obj, err := object.Read(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			var out strings.Builder
			opts := skep.RunOptions{
				Events: func(e runner.Event) error {
					for _, v := range e.Values {
						out.WriteString(v.String() + " ")
					}
					return nil
				},
				Ready: func(int) {
					// A parent to be seen.
					go func() { _ = exec.Command("/bin/busybox", "true").Run() }()
				},
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			res, err := skep.Run(ctx, &skep.Object{Object: obj, ELF: data}, opts)
			cancel()
			if err != nil || !res.Exited {
				t.Errorf("%s: %v, exited %t", name, err, res.Exited)
			}
			t.Logf("%s: %s", name, out.String())
			if name == "portable.o" {
				if !strings.HasSuffix(out.String(), " true ") {
					t.Errorf("%s printed %q", name, out.String())
				}
				continue
			}
			if !strings.HasPrefix(out.String(), "tracepoint:sched:sched_process_fork ") || len(strings.Fields(out.String())) < 2 {
				t.Errorf("%s printed %q", name, out.String())
			}
			opts.NoSource = true
			_, err = skep.Run(t.Context(), &skep.Object{Object: obj, ELF: data}, opts)
			var no *skep.NoSourceError
			if !errors.As(err, &no) || !strings.Contains(err.Error(), "sched:sched_process_fork:parent_comm") {
				t.Errorf("%s without its source: %v", name, err)
			}
		}
	})
}
