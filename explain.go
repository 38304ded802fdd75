package skep

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/source"
)

// Explain turns any error of this package into diagnostics for people: what
// happened in plain words, and what to do.
func Explain(err error) source.List {
	if err == nil {
		return nil
	}
	var list source.List
	for _, one := range split(err) {
		list = append(list, explain(one)...)
	}
	return list
}

// split takes apart what errors.Join put together, but no lists of diagnostics.
func split(err error) []error {
	var diags source.List
	if errors.As(err, &diags) {
		return []error{err}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	seen := map[string]bool{}
	for _, e := range joined.Unwrap() {
		for _, one := range split(e) {
			if !seen[one.Error()] {
				seen[one.Error()] = true
				all = append(all, one)
			}
		}
	}
	return all
}

func explain(err error) source.List {
	var diags source.List
	var diag *source.Diagnostic
	if errors.As(err, &diags) || errors.As(err, &diag) {
		return source.Diagnostics(err)
	}
	var path *fs.PathError
	if errors.As(err, &path) && err == error(path) {
		return source.List{{Code: "file", Message: pathWords(path)}}
	}
	// Raising that limit has not helped since Linux 5.11.
	message := strings.ReplaceAll(err.Error(), " (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", "")
	d := &source.Diagnostic{Code: "failed", Message: message}
	if errors.Is(err, fs.ErrPermission) {
		d.Code = "permission"
		for _, n := range privilegeNotes() {
			d.Notef("%s", n)
		}
	}
	return source.List{d}
}

// pathWords says what went wrong with a file.
func pathWords(e *fs.PathError) string {
	what := map[string]string{"open": "open", "read": "read", "write": "write", "close": "write", "rename": "rename", "stat": "look at"}[e.Op]
	if what == "" {
		what = e.Op
	}
	why := e.Err.Error()
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		why = "there is no such file"
	case errors.Is(e.Err, fs.ErrPermission):
		why = "permission denied"
	case errors.Is(e.Err, syscall.ENOSPC):
		why = "the disk is full"
	case errors.Is(e.Err, syscall.EISDIR):
		why = "it is a directory"
	}
	return "cannot " + what + " " + e.Path + ": " + why
}

// privilegeNotes name what a refused process lacks.
func privilegeNotes() []string {
	caps, ok := kernel.Capabilities()
	if !ok {
		return nil
	}
	have := map[string]bool{}
	for _, c := range caps {
		have[c.Name] = c.Have
	}
	var missing []string
	if !have["CAP_SYS_ADMIN"] {
		for _, name := range []string{"CAP_BPF", "CAP_PERFMON"} {
			if !have[name] {
				missing = append(missing, name)
			}
		}
	}
	switch {
	case len(missing) > 0 && os.Geteuid() != 0:
		return []string{"this process lacks " + strings.Join(missing, " and ") + ": run as root (sudo), or give the skep binary these capabilities with setcap"}
	case len(missing) > 0:
		return []string{"this is root without " + strings.Join(missing, " and ") + ": a container gives them with --cap-add"}
	case !have["CAP_SYS_ADMIN"]:
		return []string{"this process has CAP_BPF and CAP_PERFMON but not CAP_SYS_ADMIN, which some hooks and tracefs need"}
	}
	return []string{"the process has the capabilities, so a security module, lockdown or a seccomp filter refuses it: skep doctor tells more"}
}
