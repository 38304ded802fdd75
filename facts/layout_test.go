package facts

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target/targettest"
)

func TestLayout(t *testing.T) {
	tgt := targettest.New(t)
	types, err := tgt.Types()
	if err != nil {
		t.Fatal(err)
	}
	task, err := types.Struct("task_struct")
	if err != nil {
		t.Fatal(err)
	}
	pid, ok := findMember(task, "pid")
	if !ok {
		t.Fatal("task_struct has no pid")
	}
	for name, want := range map[string]string{
		"struct task_struct":         fmt.Sprintf("size %d", task.Size),
		"struct task_struct.pid":     fmt.Sprintf("offset %d; 4 bytes, signed", pid.offset/8),
		"struct task_struct.nothing": None,
		"struct nothing":             None,
		"struct nothing.pid":         None,
		"enumerator NOTHING":         None,
		"enum nothing":               None,
	} {
		got, err := Value(tgt, object.Fact{Kind: object.FactLayout, Name: name}, 0)
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]string{"cpus": fmt.Sprint(tgt.CPUs()), "kernel": tgt.Release().Text, "release 2.6": "yes", "release 99.0": "no"} {
		if got, err := Value(tgt, object.Fact{Kind: object.FactMachine, Name: name}, 0); err != nil || got != want {
			t.Errorf("machine %s: %q, %v; want %q", name, got, err, want)
		}
	}
	if v, err := Value(tgt, object.Fact{Kind: object.FactMachine, Name: "colour"}, 0); err == nil {
		t.Errorf("a machine's colour is %q", v)
	}
}

// TestDescribe: whatever moves in a struct changes its description, and nothing
// that is only pointed to.
func TestDescribe(t *testing.T) {
	number := func(size uint32) btf.Type { return &btf.Int{Size: size, Encoding: btf.Signed} }
	inner := func(size uint32) *btf.Struct {
		return &btf.Struct{Name: "in", Size: 8, Members: []btf.Member{{Name: "x", Type: number(size)}}}
	}
	outer := func(in btf.Type, at btf.Bits, name string, to btf.Type) string {
		var b strings.Builder
		describe(&b, &btf.Struct{Name: "out", Size: 32, Members: []btf.Member{
			{Name: name, Type: in, Offset: at}, {Name: "p", Type: &btf.Pointer{Target: to}, Offset: 128},
		}}, 0)
		return b.String()
	}
	same := outer(inner(4), 0, "a", inner(4))
	if got := outer(inner(4), 0, "a", inner(8)); got != same {
		t.Errorf("%q and %q", got, same)
	}
	for _, got := range []string{outer(inner(8), 0, "a", inner(4)), outer(inner(4), 64, "a", inner(4)), outer(inner(4), 0, "b", inner(4)), outer(&btf.Array{Type: inner(4), Nelems: 2}, 0, "a", inner(4))} {
		if got == same {
			t.Errorf("%q does not change", got)
		}
	}
	a, b := &strings.Builder{}, &strings.Builder{}
	describe(a, &btf.Enum{Size: 4, Values: []btf.EnumValue{{Name: "A", Value: 1}}}, 0)
	describe(b, &btf.Enum{Size: 4, Values: []btf.EnumValue{{Name: "A", Value: 2}}}, 0)
	if a.String() == b.String() {
		t.Errorf("%q for two enums", a)
	}
}

func TestGuard(t *testing.T) {
	tgt := targettest.New(t)
	task := &btf.Struct{Name: "task_struct", Size: 64, Members: []btf.Member{
		{Name: "pid", Type: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}},
		{Name: "comm", Type: &btf.Array{Index: &btf.Int{Size: 4}, Type: &btf.Int{Name: "char", Size: 1}, Nelems: 16}, Offset: 32},
		{Name: "bits", Type: &btf.Array{Index: &btf.Int{Size: 4}, Type: &btf.Int{Name: "long", Size: 8}, Nelems: 2}, Offset: 192},
	}}
	o := &object.Object{Manifest: &object.Manifest{}, Funcs: []*object.Func{{CORE: []object.CORE{
		{Kind: object.COREFieldOffset, Type: task, Access: "0:0"},
		{Kind: object.COREFieldOffset, Type: task, Access: "0:0"},
		{Kind: object.COREFieldOffset, Type: task, Access: "0:1"},
		{Kind: object.COREFieldOffset, Type: task, Access: "0:2"},
	}}}}
	rely := func(kind object.FactKind, name string) {
		f := object.Fact{Kind: kind, Name: name}
		v, err := Value(tgt, f, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Value = v
		o.Manifest.Facts = append(o.Manifest.Facts, f)
	}
	rely(object.FactLayout, "struct task_struct")
	rely(object.FactLayout, "struct task_struct.pid")
	rely(object.FactLayout, "struct task_struct {}")
	rely(object.FactMachine, "cpus")
	g, open := Guard(tgt, o)
	var names []string
	for _, f := range open {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, []string{"struct task_struct.bits[]", "struct task_struct {}", "cpus"}) {
		t.Errorf("not seen to: %q", names)
	}
	var kinds []object.COREKind
	for i, c := range g.CORE {
		kinds = append(kinds, c.Kind)
		if mov, jump, call := g.Insns[3*i], g.Insns[3*i+1], g.Insns[3*i+2]; c.Insn != 3*i || mov.Imm != jump.Imm || jump.Off != 1 || call != isa.Call(corePoison) {
			t.Errorf("check %d: %v, %v, %v", i, mov, jump, call)
		}
	}
	want := []object.COREKind{
		object.COREFieldSize, object.COREFieldSigned, object.COREFieldSize, // pid, comm
		object.COREFieldSize, // the elements of bits, whose sign cannot be told
		object.CORETypeSize, object.COREFieldSize, object.COREFieldSigned, object.COREFieldOffset,
	}
	if !slices.Equal(kinds, want) {
		t.Errorf("compares %v, want %v", kinds, want)
	}
	o.Manifest.Facts, o.Funcs = nil, nil
	if g, open := Guard(tgt, o); g != nil || open != nil {
		t.Errorf("%v, %v for an object that relies on nothing", g, open)
	}
}
