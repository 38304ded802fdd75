package codegen

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/object"
)

var (
	tInt  = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	tChar = &btf.Int{Name: "char", Size: 1, Encoding: btf.Char}
)

// coreSample is a structure with everything that a path may go through.
func coreSample() (*btf.Struct, *btf.Enum) {
	state := &btf.Enum{Name: "state", Size: 4, Values: []btf.EnumValue{{Name: "A", Value: 1}, {Name: "B", Value: 2}, {Name: "C", Value: 5}}}
	other := &btf.Struct{Name: "other", Size: 16, Members: []btf.Member{{Name: "x", Type: tInt}, {Name: "y", Type: tInt, Offset: 32}}}
	anon := &btf.Union{Size: 8, Members: []btf.Member{
		{Name: "first", Type: tInt},
		{Name: "second", Type: &btf.Pointer{Target: other}},
	}}
	s := &btf.Struct{Name: "sample", Size: 200}
	s.Members = []btf.Member{
		{Name: "unused", Type: tInt},
		{Name: "next", Type: &btf.Pointer{Target: s}, Offset: 64},
		{Type: anon, Offset: 128},
		{Name: "list", Type: &btf.Array{Index: tInt, Type: &btf.Typedef{Name: "other_t", Type: other}, Nelems: 4}, Offset: 192},
		{Name: "state", Type: &btf.Const{Type: state}, Offset: 1024},
		{Name: "bits", Type: tInt, Offset: 1059, BitfieldSize: 5},
		{Name: "comm", Type: &btf.Array{Index: tInt, Type: tChar, Nelems: 16}, Offset: 1088},
	}
	return s, state
}

func TestCoreAccess(t *testing.T) {
	s, state := coreSample()
	typedef := &btf.Typedef{Name: "sample_t", Type: s}
	array := &btf.Array{Index: tInt, Type: s, Nelems: 3}
	uses := []struct {
		use  *coreUse
		want string // access and name of the root
	}{
		{&coreUse{kind: ir.CoreFieldByteOffset, typ: s, path: []int{1}}, "0:0 sample"},
		{&coreUse{kind: ir.CoreFieldByteOffset, typ: typedef, path: []int{2, 1}}, "0:1:0 sample"},
		{&coreUse{kind: ir.CoreFieldByteOffset, typ: s, path: []int{3, 2, 1}}, "0:2:2:0 sample"},
		{&coreUse{kind: ir.CoreFieldByteOffset, typ: array, path: []int{2, 1}}, "2:0 sample"},
		{&coreUse{kind: ir.CoreFieldLShiftU64, typ: s, path: []int{5}}, "0:3 sample"},
		{&coreUse{kind: ir.CoreTypeSize, typ: s}, "0 sample"},
		{&coreUse{kind: ir.CoreTypeExists, typ: typedef}, "0 sample_t"},
		{&coreUse{kind: ir.CoreEnumvalValue, typ: state, path: []int{2}}, "0 state"},
	}
	c := newCoreTypes()
	for _, u := range uses {
		if isFieldKind(u.use.kind) {
			c.note(u.use.typ, u.use.path)
		} else {
			c.noteFact(&ir.CoreRef{Kind: u.use.kind, Type: u.use.typ, Path: u.use.path})
		}
	}
	for _, u := range uses {
		rec := c.record(7, u.use)
		if got := rec.Access + " " + rec.Type.TypeName(); got != u.want || rec.Insn != 7 || rec.Kind != object.COREKind(u.use.kind) {
			t.Errorf("%v %v: %s, want %s", u.use.kind, u.use.path, got, u.want)
		}
	}

	p := c.prune(s).(*btf.Struct)
	if p.Size != 200 || p == s {
		t.Errorf("the pruned structure has %d bytes, want 200", p.Size)
	}
	got := ""
	for _, m := range p.Members {
		got += fmt.Sprintf("%s@%d:%d ", m.Name, m.Offset, m.BitfieldSize)
	}
	if want := "next@64:0 @128:0 list@192:0 bits@1059:5 "; got != want {
		t.Errorf("members %q, want %q", got, want)
	}
	if next := p.Members[0].Type.(*btf.Pointer).Target; next != btf.Type(p) {
		t.Errorf("next points to %v, want the pruned structure itself", next)
	}
	if e := c.prune(state).(*btf.Enum); len(e.Values) != 1 || e.Values[0].Name != "C" {
		t.Errorf("enumerators %v, want C alone", e.Values)
	}
	b, err := btf.NewBuilder([]btf.Type{p}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Marshal(nil, nil); err != nil {
		t.Errorf("the pruned types cannot be written: %v", err)
	}
}

// TestPointeeNotNamed checks that types which are only pointed to do not come
// along.
func TestPointeeNotNamed(t *testing.T) {
	big := &btf.Struct{Name: "big", Size: 8, Members: []btf.Member{{Name: "x", Type: tInt}}}
	s := &btf.Struct{Name: "s", Size: 8, Members: []btf.Member{{Name: "p", Type: &btf.Pointer{Target: big}}}}
	c := newCoreTypes()
	c.note(s, []int{0})
	target := c.prune(s).(*btf.Struct).Members[0].Type.(*btf.Pointer).Target
	if f, ok := target.(*btf.Fwd); !ok || f.Name != "big" {
		t.Errorf("p points to %v, want a forward declaration of big", target)
	}
}
