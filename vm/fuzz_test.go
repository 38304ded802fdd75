package vm_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/vm"
)

// Any bytes are a program that ends, or are refused.
func FuzzBytecode(f *testing.F) {
	for _, insns := range [][]isa.Instruction{
		grow(3),
		{isa.Mov64Imm(isa.R1, 4), isa.Mov64Imm(isa.R2, 0), isa.Call(181), isa.Exit()},
		{isa.LoadImm64(isa.R1, 1<<40), isa.Atomic(isa.CmpXchg, isa.Double, isa.R1, 8, isa.R2), isa.Jump(-2)},
		{isa.CallLocal(1), isa.Exit(), isa.Mov64(isa.R0, isa.R10), isa.Exit()},
	} {
		b, err := isa.Encode(nil, binary.NativeEndian, insns)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte("memory"))
	}
	done, cancel := context.WithCancel(context.Background())
	cancel() // each run has one budget
	var vms []*vm.VM
	for _, interpret := range []bool{true, false} {
		vms = append(vms, newVM(f, vm.Options{Interpret: interpret, CPUs: 1}))
	}
	f.Fuzz(func(t *testing.T, code, mem []byte) {
		insns, err := isa.Decode(code, binary.NativeEndian)
		if err != nil || len(mem) > 4096 {
			return
		}
		for _, v := range vms {
			p, err := v.NewProgramFromCode(vm.Code{Name: "fuzz", Insns: insns}, nil)
			if err != nil {
				return
			}
			_, _ = p.RunContext(done, &vm.RunOptions{Context: mem})
			if err := p.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Any bytes are an object that loads, or are refused.
func FuzzObject(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	o := &object.Object{
		License: "GPL",
		Maps:    []*object.Map{{Name: "m", Type: uint32(abi.MapHash), KeySize: 4, ValueSize: 8, MaxEntries: 4}},
	}
	o.Funcs = []*object.Func{{
		Name: "p", Section: "xdp",
		Insns:  []isa.Instruction{isa.LoadMapFD(isa.R1, 0), isa.Mov64Imm(isa.R0, 2), isa.Exit()},
		Relocs: []object.Reloc{{Insn: 0, Kind: object.RelocMap, Symbol: o.Maps[0]}},
	}}
	data, err := o.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		v := newVM(t, vm.Options{CPUs: 1, Interpret: true})
		if c, err := v.LoadObject(data, nil); err == nil {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
