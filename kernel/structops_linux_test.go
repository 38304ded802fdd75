package kernel

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// congestion is an object that implements a control of TCP congestion. Its
// struct has not half of what the kernel's has, at other places.
func congestion(extra ...btf.Member) *object.Object {
	fn := func(name string, insns ...isa.Instruction) *object.Func {
		return &object.Func{Name: name, Section: "struct_ops/" + name, Insns: insns}
	}
	funcs := []*object.Func{
		fn("skep_ssthresh", isa.Mov64Imm(isa.R0, 2), isa.Exit()),
		fn("skep_undo", isa.Mov64Imm(isa.R0, 2), isa.Exit()),
		fn("skep_avoid", isa.Mov64Imm(isa.R0, 0), isa.Exit()),
	}
	pointer := &btf.Pointer{Target: &btf.FuncProto{Return: typeInt}}
	members := []btf.Member{
		{Name: "name", Type: &btf.Array{Type: coreChar, Index: coreIndex, Nelems: 16}},
		{Name: "ssthresh", Type: pointer, Offset: 16 * 8},
		{Name: "undo_cwnd", Type: pointer, Offset: 24 * 8},
		{Name: "cong_avoid", Type: pointer, Offset: 32 * 8},
	}
	members = append(members, extra...)
	v := &object.Var{
		Name: "ops", Section: ".struct_ops.link",
		Type: &btf.Struct{Name: "tcp_congestion_ops___mine", Size: 48, Members: members},
		Init: append([]byte("skep_test"), make([]byte, 48-9)...),
		Pointers: []object.Pointer{
			{Offset: 16, Func: funcs[0]}, {Offset: 24, Func: funcs[1]}, {Offset: 32, Func: funcs[2]},
		},
	}
	return &object.Object{License: "GPL", Funcs: funcs, Vars: []*object.Var{v}}
}

func TestStructOps(t *testing.T) {
	guest.Each(t, guestConfig(t), func(t *testing.T) {
		needKernel(t)
		available := func() bool {
			text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
			if err != nil {
				t.Fatal(err)
			}
			return strings.Contains(string(text), "skep_test")
		}
		l := loadObject(t, congestion(), machine.LoadOptions{})
		links, errs := l.Attach(t.Context(), []machine.Attach{{Program: "skep_ssthresh"}, {Program: "skep_undo"}, {Program: "skep_avoid"}})
		if !liveTarget(t).Release().AtLeast(6, 4) {
			if errs[0] == nil || !strings.Contains(errs[0].Error(), "since 6.4") || available() {
				t.Errorf("without links of struct_ops: %v", errs[0])
			}
			return
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if !available() {
			t.Error("it is not registered")
		}
		for _, k := range links {
			if err := k.Close(); err != nil {
				t.Error(err)
			}
		}
		if available() {
			t.Error("it is still registered")
		}
		// A member that the kernel does not have may be there if it is not set.
		l = loadObject(t, congestion(btf.Member{Name: "nonesuch", Type: typeU64, Offset: 40 * 8}), machine.LoadOptions{})
		attach(t, l, machine.Attach{Program: "skep_ssthresh"})
		o := congestion(btf.Member{Name: "nonesuch", Type: typeU64, Offset: 40 * 8})
		o.Vars[0].Init[40] = 1
		l = loadObject(t, o, machine.LoadOptions{})
		if _, errs := l.Attach(t.Context(), []machine.Attach{{Program: "skep_ssthresh"}}); errs[0] == nil || !strings.Contains(errs[0].Error(), "no member nonesuch") {
			t.Errorf("a member that is not there: %v", errs[0])
		}
	})
}
