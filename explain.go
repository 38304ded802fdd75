package skep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/skep-bpf/skep/kernel"
	"github.com/skep-bpf/skep/machine"
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
		if err == nil {
			return nil
		}
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

// A VerifierError is the kernel's refusal of a program, with its log.
type VerifierError = kernel.VerifierError

// Rejections returns the refusals of programs that err consists of.
func Rejections(err error) []*VerifierError {
	var list []*VerifierError
	for _, one := range split(err) {
		var e *VerifierError
		if errors.As(one, &e) {
			list = append(list, e)
		}
	}
	return list
}

// A ProgramLog is all that the kernel's verifier says of one program.
type ProgramLog struct{ Program, Log string }

// VerifierLogs loads an object for the verifier's log of each of its programs,
// and attaches nothing. A program that is refused is in the error, with its
// log; see [Rejections].
func VerifierLogs(ctx context.Context, o *Object) ([]ProgramLog, error) {
	l, err := kernel.New().Load(ctx, o.ELF, machine.LoadOptions{Verbose: true})
	if err != nil {
		return nil, err
	}
	var list []ProgramLog
	for _, f := range o.Funcs {
		if log := l.Logs(f.Name); f.Section != "" && log != "" {
			list = append(list, ProgramLog{f.Name, log})
		}
	}
	return list, l.Close()
}

func explain(err error) source.List {
	var diags source.List
	var diag *source.Diagnostic
	if errors.As(err, &diags) || errors.As(err, &diag) {
		return source.Diagnostics(err)
	}
	var refused *RejectedError
	if errors.As(err, &refused) {
		return refused.Diagnostics()
	}
	var rejected *VerifierError
	if errors.As(err, &rejected) {
		return source.List{rejection(rejected)}
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
		var explained *kernel.PrivilegeError
		if errors.As(err, &explained) && explained.Missing == "" {
			return source.List{d} // says itself what forbids it
		}
		for _, n := range privilegeNotes() {
			d.Notef("%s", n)
		}
	}
	return source.List{d}
}

// rejection shows a program's refusal at the line of the source that it comes
// from. What the kernel has of that line suffices, so objects of other
// compilers are shown alike.
func rejection(e *VerifierError) *source.Diagnostic {
	d := &source.Diagnostic{Code: "rejected", Message: "the kernel refuses program " + e.Program}
	switch {
	case e.Reason != "":
		d.Message += ": " + e.Reason
	case e.Message != "":
		d.Message += ": " + e.Message
	default:
		d.Message += ": " + e.Err.Error()
	}
	if w := e.Where; w.Row > 0 {
		text := strings.TrimRight(w.Text, "\n")
		file := source.NewFile(w.File, strings.Repeat("\n", w.Row-1)+text)
		start, end := token(text, w.Col)
		d.Span = source.Span{File: file, Start: w.Row - 1 + start, End: w.Row - 1 + end}
	}
	if e.Message != "" {
		at := ""
		if e.Slot >= 0 {
			at = fmt.Sprintf(" of instruction %d of %s", e.Insn, e.Func)
		}
		d.Notef("the kernel's verifier says%s: %s", at, e.Message)
	}
	return d
}

// token is where the token at a column (from 1, 0 for unknown) of a line
// begins and ends; without a column it is all of the line but its indentation.
func token(line string, col int) (start, end int) {
	if col < 1 || col > len(line) {
		return len(line) - len(strings.TrimLeft(line, " \t")), len(line)
	}
	word := func(c byte) bool {
		return c == '_' || c == '$' || c == '@' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
	}
	start = col - 1
	for end = start + 1; word(line[start]) && end < len(line) && word(line[end]); end++ {
	}
	return start, end
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
