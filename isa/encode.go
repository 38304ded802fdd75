package isa

import (
	"encoding/binary"
	"fmt"
)

// SlotSize is the length of one encoded slot in bytes.
const SlotSize = 8

// An EncodingError says which instruction is wrong and why.
type EncodingError struct {
	Index int // in the list of instructions
	Slot  int // in 8-byte slots, as jumps and the kernel count
	Err   error
}

func (e *EncodingError) Error() string {
	return fmt.Sprintf("instruction %d (slot %d): %v", e.Index, e.Slot, e.Err)
}

// Unwrap returns the reason.
func (e *EncodingError) Unwrap() error { return e.Err }

// isBig is by behaviour, so that binary.NativeEndian works too.
func isBig(order binary.ByteOrder) bool { return order.Uint16([]byte{0, 1}) == 1 }

func putSlot(dst []byte, order binary.ByteOrder, op Opcode, d, s Register, off int16, imm uint32) []byte {
	regs := byte(d) | byte(s)<<4
	if isBig(order) {
		regs = byte(d)<<4 | byte(s)
	}
	var slot [SlotSize]byte
	slot[0], slot[1] = byte(op), regs
	order.PutUint16(slot[2:], uint16(off))
	order.PutUint32(slot[4:], imm)
	return append(dst, slot[:]...)
}

// Encode appends the encoded insns to dst. It fails with an [*EncodingError] for
// the first instruction that [Instruction.Check] refuses.
func Encode(dst []byte, order binary.ByteOrder, insns []Instruction) ([]byte, error) {
	slot := 0
	for n, i := range insns {
		if err := i.Check(); err != nil {
			return nil, &EncodingError{Index: n, Slot: slot, Err: err}
		}
		dst = putSlot(dst, order, i.Op, i.Dst, i.Src, i.Off, uint32(i.Imm))
		if i.IsWide() {
			dst = putSlot(dst, order, 0, 0, 0, 0, uint32(i.High()))
		}
		slot += i.Size()
	}
	return dst, nil
}

// Decode returns the instructions in data. It fails with an [*EncodingError] for
// the first that is cut off, unknown or uses a reserved field.
func Decode(data []byte, order binary.ByteOrder) ([]Instruction, error) {
	insns := make([]Instruction, 0, len(data)/SlotSize)
	slot := 0
	for len(data) > 0 {
		i, n, err := DecodeOne(data, order)
		if err != nil {
			return nil, &EncodingError{Index: len(insns), Slot: slot, Err: err}
		}
		insns = append(insns, i)
		slot += n
		data = data[n*SlotSize:]
	}
	return insns, nil
}

// DecodeOne returns the first instruction in data and its length in slots.
func DecodeOne(data []byte, order binary.ByteOrder) (Instruction, int, error) {
	if len(data) < SlotSize {
		return Instruction{}, 0, fmt.Errorf("cut off: %d of 8 bytes", len(data))
	}
	d, s := data[1]&0x0f, data[1]>>4
	if isBig(order) {
		d, s = s, d
	}
	i := Instruction{
		Op: Opcode(data[0]), Dst: Register(d), Src: Register(s),
		Off: int16(order.Uint16(data[2:])), Imm: int64(int32(order.Uint32(data[4:]))),
	}
	if i.IsWide() {
		if len(data) < 2*SlotSize {
			return Instruction{}, 0, fmt.Errorf("cut off: a 64-bit immediate needs two slots")
		}
		second := data[SlotSize:]
		if second[0] != 0 || second[1] != 0 || second[2] != 0 || second[3] != 0 {
			return Instruction{}, 0, fmt.Errorf("the second slot of a 64-bit immediate holds more than an immediate")
		}
		i.Imm = int64(uint64(order.Uint32(second[4:]))<<32 | uint64(uint32(i.Imm)))
	}
	if err := i.Check(); err != nil {
		return Instruction{}, 0, err
	}
	return i, i.Size(), nil
}
