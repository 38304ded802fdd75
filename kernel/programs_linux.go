package kernel

import (
	"errors"
	"os"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/target"
)

// eachProgram hands the programs of the kernel to f, which does not keep them.
func eachProgram(f func(ebpf.ProgramID, *ebpf.Program)) error {
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return refusedOr(err, "listing the kernel's BPF programs")
		}
		id = next
		prog, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // gone, or not ours to see
		}
		f(id, prog)
		prog.Close()
	}
}

// Programs lists the BPF programs to which others can attach.
func (live) Programs() ([]target.Program, error) {
	var list []target.Program
	err := eachProgram(func(id ebpf.ProgramID, p *ebpf.Program) {
		info, err := p.Info()
		if err != nil {
			return
		}
		funcs, err := info.FuncInfos()
		if err != nil || len(funcs) == 0 {
			return // without types nothing can attach to it
		}
		list = append(list, target.Program{ID: uint32(id), Name: funcs[0].Func.Name})
	})
	return list, err
}
