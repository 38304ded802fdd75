package vm_test

import (
	"context"
	"fmt"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

// A server lets a program decide over its requests.
func ExampleHook() {
	type request struct {
		Bytes    uint32
		Priority uint32
	}
	v, err := vm.New(vm.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	hook, err := vm.NewHook[request]("requests")
	if err != nil {
		fmt.Println(err)
		return
	}
	// As clang would compile it: large requests get priority 2, and are let
	// through if they are below a thousand bytes.
	p, err := v.NewProgramFromCode(vm.Code{Name: "limit", Insns: []isa.Instruction{
		isa.LoadMem(isa.Word, isa.R2, isa.R1, 0), isa.Mov64Imm(isa.R0, 1),
		isa.JumpIfImm(isa.LT, isa.R2, 100, 3), isa.StoreImm(isa.Word, isa.R1, 4, 2),
		isa.JumpIfImm(isa.LT, isa.R2, 1000, 1), isa.Mov64Imm(isa.R0, 0),
		isa.Exit(),
	}}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if _, err := hook.Attach(p); err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range []uint32{10, 500, 5000} {
		r := request{Bytes: n}
		ok, err := hook.Fire(context.Background(), &r)
		fmt.Println(n, ok, r.Priority, err)
	}
	// Output:
	// 10 1 0 <nil>
	// 500 1 2 <nil>
	// 5000 0 2 <nil>
}
