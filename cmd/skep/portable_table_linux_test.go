package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/facts"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/lang/bt"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

const (
	portableBegin = "<!-- portable: begin; made by go test ./cmd/skep -run TestPortableTable -update -->\n"
	portableEnd   = "<!-- portable: end -->\n"
)

// A construct is a line of testdata/portable.txt.
type construct struct {
	heading, name, script string
	here                  bool // it is compiled for this machine
}

func constructs(t *testing.T, program string) []construct {
	t.Helper()
	data, err := os.ReadFile("testdata/portable.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []construct
	heading := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = h
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, script, ok := strings.Cut(line, " | ")
		if !ok {
			t.Fatalf("%q has no script", line)
		}
		c := construct{heading: heading, name: name}
		script, c.here = strings.CutPrefix(script, "here: ")
		c.script = strings.ReplaceAll(script, "PROGRAM", program)
		list = append(list, c)
	}
	return list
}

func (c *construct) compile(t target.Target) (*skep.Object, error) {
	return skep.Compile(source.NewFile("construct.bt", c.script), skep.CompileOptions{
		Target: t, Options: bt.Options{Unsafe: true, Args: []string{"5", "sched"}, Named: map[string]string{}},
	})
}

// userProgram compiles the program that scripts of user probes are about.
func userProgram(t *testing.T) string {
	t.Helper()
	testenv.NeedTool(t, "gcc")
	path := filepath.Join(t.TempDir(), "usdt")
	cmd := exec.Command("gcc", "-g", "-O2", "-o", path, "../../kernel/testdata/usdt.c")
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return path
}

var coreWords = map[object.COREKind]string{
	object.COREFieldOffset: "offset", object.COREFieldSize: "size", object.COREFieldSigned: "sign", object.COREFieldExists: "existence",
	object.COREFieldLShift: "shift", object.COREFieldRShift: "shift", object.CORETypeSize: "size of type", object.CORETypeExists: "existence of type",
	object.CORETypeTarget: "type", object.CORETypeLocal: "type", object.COREEnumValue: "enumerator", object.COREEnumExists: "existence of enumerator",
}

// carried is what loaders adjust in an object.
func carried(funcs []*object.Func) []string {
	found := map[string]bool{}
	for _, f := range funcs {
		for _, c := range f.CORE {
			word, ok := coreWords[c.Kind]
			if !ok {
				word = fmt.Sprintf("kind %d", c.Kind)
			}
			found["CO-RE "+word+" of `"+c.Type.TypeName()+"`"] = true
		}
		for _, r := range f.Relocs {
			e, ok := r.Symbol.(*object.Extern)
			switch {
			case ok && f.Insns[r.Insn].Op.Class() == isa.ClassJMP:
				found["kfunc `"+e.Name+"`"] = true
			case ok:
				found["ksym `"+e.Name+"`"] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// TestPortableTable says of every construct in CONFORMANCE.md what carries it to
// another machine, by what its object really has. It holds objects that are said
// to fit another kernel against what is compiled for that, and has bpftool load
// what other loaders may have.
func TestPortableTable(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	testenv.NeedTool(t, "bpftool")
	live, err := skep.Target()
	if err != nil {
		t.Fatal(err)
	}
	program := userProgram(t)
	newer, older := elsewhere(t, guest.Kernel612), elsewhere(t, guest.Kernel61)
	machines := map[string]target.Target{"live": live, "6.12": machineOf(t, newer), "6.1": machineOf(t, older)}
	files, loads := map[string][]byte{}, map[string][]byte{}

	var b strings.Builder
	b.WriteString(portableBegin)
	heading := ""
	for _, c := range constructs(t, program) {
		if c.heading != heading {
			heading = c.heading
			fmt.Fprintf(&b, "\n### %s, elsewhere\n\n| construct | carried by loaders | facts of the manifest | `--portable` |\n|---|---|---|---|\n", heading)
		}
		home := "6.12"
		if c.here {
			home = "live"
		}
		obj, err := c.compile(machines[home])
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var relied []string
		for _, f := range obj.Manifest.Facts {
			relied = append(relied, strings.TrimSpace(string(f.Kind)+" `"+strings.ReplaceAll(f.Name, program, "PROGRAM")+"`"))
		}
		fit, list := skep.Portable(obj)
		verdict := "accepted"
		switch {
		case len(list) > 0:
			verdict = "refused"
			checkRefusal(t, c, obj, list)
		case fit != obj:
			verdict = "accepted, guarded"
		}
		if len(list) == 0 {
			name := "o" + strconv.Itoa(len(files)) + ".o"
			if !c.here {
				files[name] = fit.ELF
			}
			if own, err := c.compile(live); err == nil {
				if own, list := skep.Portable(own); len(list) == 0 {
					loads[name] = own.ELF
				}
			}
		}
		row := []string{c.name, strings.Join(carried(obj.Funcs), ", "), strings.Join(relied, ", "), verdict}
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if !c.here {
			compareElsewhere(t, c, obj, machines)
		}
	}
	b.WriteString("\n" + portableEnd)
	loadAll(t, livePlace(t), loads)
	loadAll(t, newer, files)
	updateTable(t, portableBegin, portableEnd, b.String(), "TestPortableTable")
}

// checkRefusal holds that a message names each fact which others could get wrong.
func checkRefusal(t *testing.T, c construct, obj *skep.Object, list source.List) {
	t.Helper()
	text := list.Error()
	_, open := facts.Guard(nil, obj.Object)
	named := 0
	for _, f := range open {
		if strings.Contains(text, f.Name) || f.Name == string(target.FeatureInitialPIDNS) && strings.Contains(text, "PID namespace") {
			named++
		}
	}
	if named < len(list) {
		t.Errorf("%s: %d of %d refusals name what they are about: %v", c.name, named, len(list), text)
	}
}

// compareElsewhere holds an object that fits another machine against one that is
// compiled there: apart from what loaders adjust they must be the same.
func compareElsewhere(t *testing.T, c construct, obj *skep.Object, machines map[string]target.Target) {
	t.Helper()
	for _, name := range []string{"6.1", "live"} {
		unrelated := &skep.Object{Object: obj.Object, ELF: obj.ELF}
		if _, err := skep.Adapt(unrelated, skep.AdaptOptions{Target: machines[name], NoSource: true}); err != nil {
			continue // compiled again, or refused
		}
		there, err := c.compile(machines[name])
		if err != nil {
			continue // what the kernel lacks, its loader complains of
		}
		if slices.ContainsFunc(there.Funcs, func(f *object.Func) bool { return strings.HasPrefix(f.Section, "tp_btf/") }) &&
			slices.ContainsFunc(obj.Funcs, func(f *object.Func) bool { return strings.HasPrefix(f.Section, "raw_tp/") }) {
			continue // programs without types, as for tracepoints of modules, run where those with types do
		}
		if a, b := unadjusted(obj), unadjusted(there); a != b {
			t.Errorf("%s: the object is said to fit %s, where other code is made\n%s\nthere\n%s", c.name, name, a, b)
		}
	}
}

// unadjusted is the code of an object without what loaders fill in.
func unadjusted(o *skep.Object) string {
	var b strings.Builder
	for _, f := range o.Funcs {
		// One link for many probes and a link for each run the same program.
		fmt.Fprintln(&b, f.Name, strings.Replace(f.Section, ".multi", "", 1))
		core := map[int]object.COREKind{}
		for _, c := range f.CORE {
			core[c.Insn] = c.Kind
		}
		for i, in := range f.Insns {
			if kind, ok := core[i]; ok {
				in.Imm, in.Off = 0, 0
				fmt.Fprint(&b, coreWords[kind], " ")
			}
			fmt.Fprintln(&b, in)
		}
	}
	for _, m := range o.Maps {
		fmt.Fprintln(&b, m.Name, m.Type, m.KeySize, m.ValueSize)
	}
	return b.String()
}

// loadAll has bpftool load objects on a machine.
func loadAll(t *testing.T, p *scene, files map[string][]byte) {
	t.Helper()
	out := p.must(t, bpffs+`for o in *.o; do
	bpftool prog loadall $o $B/${o%.o} 2>log && echo "$o loaded" || { echo "$o refused"; tail -n 12 log | sed 's/^/  /'; }
done`, files)
	loaded := strings.Count(out, " loaded\n")
	t.Logf("bpftool loads %d of %d objects on %s", loaded, len(files), p.name)
	for part := range strings.SplitSeq(out, "\no") {
		name, rest, _ := strings.Cut(part, " ")
		if !strings.HasPrefix(rest, "refused") {
			continue
		}
		obj := files["o"+strings.TrimPrefix(name, "o")]
		if p.name == "live" && (bytes.Contains(obj, []byte("fentry/")) || bytes.Contains(obj, []byte("fexit/"))) {
			continue // that kernel may refuse them to its root
		}
		t.Errorf("%s: bpftool does not load %s", p.name, part)
	}
	if loaded < len(files)*3/4 {
		t.Errorf("bpftool loads %d of %d objects on %s", loaded, len(files), p.name)
	}
}
