package scriptgen

import (
	"regexp"
	"testing"

	"github.com/skep-bpf/skep/lang/bt/check"
)

// notGenerated are the functions of the language that no script calls, and why.
var notGenerated = map[string]string{
	"cgroupid":      "takes a directory that every machine of the matrix would have to have",
	"comm":          "the function, apart from the builtin: not in all probes, and depends on a kfunc of the kernel",
	"kfunc_allowed": "asks the kernel of the compiler, not of the script's target",
	"percpu_kaddr":  "no kernel of the matrix lists the variables",
	"skboutput":     "takes a packet, in fentry and fexit alone",
	"uaddr":         "takes a variable of the probed binary, which a Go program has under names that no script can write",
}

// TestScriptsCoverTheLanguage holds the generator against the checker's table
// of functions, and against the words of the grammar.
func TestScriptsCoverTheLanguage(t *testing.T) {
	o := DefaultOptions
	o.Kinds, o.Binary = []string{"perf", "kprobe", "fentry", "write", "inject"}, "/bin/true"
	called, words := map[string]bool{}, map[string]bool{}
	call := regexp.MustCompile(`\b([a-z_]+)\(`)
	word := regexp.MustCompile(`[a-z_]+|\?:|->|<<=|>>=|[-+*/%&|^]=|\+\+|--|&&|\|\||\.\.|<<|>>`)
	for seed := range uint64(1500) {
		script := Script(seed, o)
		for _, m := range call.FindAllStringSubmatch(script, -1) {
			called[m[1]] = true
		}
		for _, w := range word.FindAllString(script, -1) {
			words[w] = true
		}
	}
	for _, name := range check.FunctionNames() {
		why, excused := notGenerated[name]
		switch {
		case !called[name] && !excused:
			t.Errorf("no script calls %s", name)
		case called[name] && excused:
			t.Errorf("scripts call %s, which is said not to be: %s", name, why)
		}
	}
	for _, w := range []string{
		"let", "if", "else", "for", "while", "unroll", "break", "continue", "return", "fn", "macro", "config", "struct", "union", "enum",
		"sizeof", "offsetof", "typeof", "comptime", "hash", "lruhash", "percpuhash", "percpulruhash",
		"begin", "end", "self", "interval", "profile", "software", "watchpoint", "tracepoint", "rawtracepoint", "iter",
		"kprobe", "kretprobe", "fentry", "fexit", "uprobe", "uretprobe",
		"?:", "->", "..", "&&", "||", "<<", ">>", "++", "--", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=",
	} {
		if !words[w] {
			t.Errorf("no script has %s", w)
		}
	}
}

// TestComputedIsStable: a seed names one script, so that a failure can be had again.
func TestComputedIsStable(t *testing.T) {
	for seed := range uint64(50) {
		script, want := Computed(seed)
		if again, wantAgain := Computed(seed); again != script || wantAgain != want || want == "" {
			t.Fatalf("seed %d gives two scripts, or one that prints nothing", seed)
		}
	}
}
