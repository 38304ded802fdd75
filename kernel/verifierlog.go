package kernel

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/object"
)

// A VerifierError is the kernel's refusal of a program.
type VerifierError struct {
	// Program is its name in the object.
	Program string
	// Log is all that the verifier said.
	Log string
	// Message is the verifier's last word: "invalid mem access 'scalar'".
	Message string
	// Reason says in plain words why, where that is known: which field or helper
	// the kernel does not have, or what Message means. "" otherwise.
	Reason string
	// Slot is the instruction, in 8-byte slots of the program as it was linked;
	// -1 when the log names none.
	Slot int
	// Func is the function that it is in, and Insn its index there.
	Func string
	Insn int
	// Where is the place in the source that it comes from; Row is 0 when that
	// is not known.
	Where object.Place
	// Err is what bpf(2) returned.
	Err error
}

func (e *VerifierError) Error() string {
	var b strings.Builder
	if e.Where.Row > 0 {
		fmt.Fprintf(&b, "%s:%d: ", e.Where.File, e.Where.Row)
	}
	fmt.Fprintf(&b, "the kernel refuses program %s", e.Program)
	switch {
	case e.Reason != "":
		fmt.Fprintf(&b, ": %s", e.Reason)
	case e.Message != "":
		fmt.Fprintf(&b, ": %s", e.Message)
	default:
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Slot >= 0 {
		fmt.Fprintf(&b, " (instruction %d of %s)", e.Insn, e.Func)
	}
	return b.String()
}

// Unwrap returns what bpf(2) returned.
func (e *VerifierError) Unwrap() error { return e.Err }

// verdict finds in a verifier's log which instruction was refused, or -1, and
// the lines that were said of it.
//
// The log has lines of several forms (kernel/bpf/verifier.c, print_verifier_state
// and verbose_linfo):
//
//	0: R1=ctx() R10=fp0
//	; x = *p; @ file.c:12
//	3: (79) r1 = *(u64 *)(r1 +0)          ; R1_w=scalar()
//	R1 invalid mem access 'scalar'
//	processed 4 insns (limit 1000000) ...
func verdict(log string) (slot int, said []string) {
	slot = -1
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		if n, ok := insnLine(line); ok {
			slot, said = n, nil
			continue
		}
		if line != "" && !isChatter(line) {
			said = append(said, line)
		}
	}
	return slot, said
}

// insnLine returns the number of the instruction that a line shows.
func insnLine(line string) (int, bool) {
	head, rest, ok := strings.Cut(line, ": ")
	if !ok || !strings.HasPrefix(rest, "(") || len(rest) < 4 || rest[3] != ')' {
		return 0, false
	}
	n, err := strconv.ParseUint(head, 10, 31)
	return int(n), err == nil
}

// isChatter reports whether a line of the log is no verdict: a state, source
// text, a path, statistics.
func isChatter(line string) bool {
	for _, prefix := range []string{
		"; ", "processed ", "verification time ", "stack depth ", "from ", "mark_precise:", "regs=",
		"last_idx ", "first_idx ", "parent ", "propagating ", "func#", "Live regs before insn:", "caller:", "callee:",
		"frame", "peak_states", "old state:", "cur state:", "arg#", "Validating ", "Func#", "max_states", "mark_read",
	} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	// "12: R0=scalar() ..." and "12: safe" are states.
	head, rest, ok := strings.Cut(line, ": ")
	if !ok {
		return false
	}
	_, err := strconv.ParseUint(head, 10, 31)
	return err == nil && (strings.HasPrefix(rest, "R") || strings.HasPrefix(rest, "safe") || strings.HasPrefix(rest, "frame") || rest == "")
}
