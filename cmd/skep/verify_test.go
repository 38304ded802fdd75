package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/internal/testenv"
)

// What skep verify is given: a program that is right, one that is not, and one
// that needs what is not there yet.
const verifySource = `
#define SEC(name) __attribute__((section(name), used))
struct { int (*type)[1]; int (*key_size)[4]; int (*value_size)[64]; int (*max_entries)[1]; } values SEC(".maps");
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;

SEC("socket") int right(void *ctx)
{
	int key = 0;
	long *v = bpf_map_lookup_elem(&values, &key);
	return v ? *v & 1 : 0;
}

SEC("socket") int wrong(void *ctx)
{
	int key = 0;
	long *v = bpf_map_lookup_elem(&values, &key);
	return v[1]; // here
}

SEC("freplace/x") int unknown(void *ctx) { return 0; }
char _license[] SEC("license") = "GPL";
`

// verifyJSON runs skep verify --json and returns its exit status and objects by
// the program's name.
func verifyJSON(t *testing.T, args ...string) (int, map[string]map[string]any) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(append([]string{"skep", "verify", "--json"}, args...), nil, &out, &errs)
	programs := map[string]map[string]any{}
	d := json.NewDecoder(&out)
	for d.More() {
		var p map[string]any
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if name, ok := p["program"].(string); ok {
			programs[name] = p
		}
	}
	if code != 0 && len(programs) == 0 {
		t.Logf("%v: %s", args, errs.String())
	}
	return code, programs
}

// TestVerifyContract holds skep verify to its exit status and the keys of its
// JSON, which others rely on.
func TestVerifyContract(t *testing.T) {
	clang := testenv.NeedTool(t, "clang")
	dir := t.TempDir()
	source, obj := filepath.Join(dir, "a.c"), filepath.Join(dir, "a.o")
	if err := os.WriteFile(source, []byte(verifySource), 0o644); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command(clang, "-O2", "-g", "-target", "bpf", "-c", source, "-o", obj).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	code, programs := verifyJSON(t, obj)
	if code != 1 || len(programs) != 3 {
		t.Fatalf("exit status %d with %d programs, want 1 with 3", code, len(programs))
	}
	for name, verdict := range map[string]string{"right": "accepted", "wrong": "rejected", "unknown": "unsupported"} {
		p := programs[name]
		if p["verdict"] != verdict {
			t.Errorf("%s: %v, want %s", name, p["verdict"], verdict)
		}
		for _, key := range []string{"insns_processed", "states", "ns"} {
			if _, ok := p[key].(float64); !ok {
				t.Errorf("%s: %s is %v, not a number", name, key, p[key])
			}
		}
		e, ok := p["error"]
		if !ok || (e == nil) != (verdict == "accepted") {
			t.Errorf("%s: error is %v", name, e)
		}
		if e == nil {
			continue
		}
		for _, key := range []string{"code", "category", "message", "insn", "source", "path", "suggestion"} {
			if _, ok := e.(map[string]any)[key]; !ok {
				t.Errorf("%s: the error has no %s", name, key)
			}
		}
	}
	wrong := programs["wrong"]["error"].(map[string]any)
	line := 1 + strings.Count(verifySource[:strings.Index(verifySource, "// here")], "\n")
	src, _ := wrong["source"].(map[string]any)
	if wrong["category"] != "null" || src == nil || src["line"] != float64(line) || wrong["suggestion"] == "" || len(wrong["path"].([]any)) == 0 {
		t.Errorf("the error of wrong is %v, want one of null at line %d", wrong, line)
	}
	if code, programs := verifyJSON(t, "--program", "right", obj); code != 0 || len(programs) != 1 {
		t.Errorf("exit status %d with %d programs, want 0 with 1", code, len(programs))
	}
	for _, args := range [][]string{{source}, {filepath.Join(dir, "none.o")}, {"--program", "none", obj}, {"--kernel", "5.4", obj}} {
		if code, _ := verifyJSON(t, args...); code != 2 {
			t.Errorf("%v: exit status %d, want 2", args, code)
		}
	}
}
