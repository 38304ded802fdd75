package facts

import (
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target/targettest"
)

func TestWidths(t *testing.T) {
	read := func(size uint32) *object.Object {
		task := &btf.Struct{Name: "task_struct___old", Size: 16, Members: []btf.Member{
			{Name: "pid", Type: &btf.Int{Name: "int", Size: size, Encoding: btf.Signed}},
			{Name: "nothing", Type: &btf.Int{Name: "int", Size: 4}, Offset: 64},
		}}
		return &object.Object{Funcs: []*object.Func{{CORE: []object.CORE{
			{Kind: object.COREFieldOffset, Type: task, Access: "0:0"},
			{Kind: object.COREFieldOffset, Type: task, Access: "0:0"},
			{Kind: object.COREFieldOffset, Type: task, Access: "0:1"},
			{Kind: object.COREFieldOffset, Type: task, Access: "0:7"},
			{Kind: object.COREFieldOffset, Type: task, Access: "x"},
			{Kind: object.CORETypeSize, Type: task, Access: "0"},
		}}}}
	}
	tgt := targettest.New(t)
	if d := Widths(tgt, read(4)); len(d) != 0 {
		t.Errorf("%v", d)
	}
	d := Widths(tgt, read(8))
	if len(d) != 1 || d[0].Name != "struct task_struct.pid" || d[0].Value != "8 bytes, signed" || d[0].Here != "4 bytes, signed" {
		t.Errorf("%v", d)
	}
}
