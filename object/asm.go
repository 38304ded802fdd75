package object

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
)

// FromAsm returns an instruction of package asm as this machine encodes it. What
// it refers to by name is for the caller to resolve.
func FromAsm(in asm.Instruction) (isa.Instruction, error) {
	in.Metadata = asm.Metadata{}
	if in.OpCode.Class() == asm.StClass && in.OpCode.AtomicOp() == asm.InvalidAtomic {
		// Package asm does not marshal a store of 64 bits.
		size, _ := isa.SizeOf(in.OpCode.Size().Sizeof())
		return isa.StoreImm(size, isa.Register(in.Dst), in.Offset, int32(in.Constant)), nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if isBig(binary.NativeEndian) {
		order = binary.BigEndian
	}
	var buf bytes.Buffer
	if _, err := in.Marshal(&buf, order); err != nil {
		return isa.Instruction{}, err
	}
	if in.OpCode.Class() == asm.StXClass && in.OpCode.Mode() == asm.AtomicMode {
		// The operation is what package asm keeps above the opcode.
		order.PutUint32(buf.Bytes()[4:], uint32(in.OpCode.AtomicOp()>>8))
	}
	out, _, err := isa.DecodeOne(buf.Bytes(), order)
	return out, err
}

// Relocate adjusts instructions to the types of a kernel (CO-RE), which are asked
// for only where there is something to adjust. add numbers the types that the
// instructions name by themselves.
func Relocate(insns asm.Instructions, order binary.ByteOrder, types func() (*btf.Spec, error), add func(btf.Type) (btf.TypeID, error)) error {
	var relos []*btf.CORERelocation
	var at []*asm.Instruction
	for i := range insns {
		if r := btf.CORERelocationMetadata(&insns[i]); r != nil {
			relos, at = append(relos, r), append(at, &insns[i])
		}
	}
	if len(relos) == 0 {
		return nil
	}
	spec, err := types()
	if err != nil {
		return err
	}
	fixups, err := btf.CORERelocate(relos, []*btf.Spec{spec}, order, add)
	if err != nil {
		return err
	}
	for i := range fixups {
		if err := fixups[i].Apply(at[i]); err != nil {
			return fmt.Errorf("adjusting to the kernel's types: %w", err)
		}
	}
	return nil
}
