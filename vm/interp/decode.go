package interp

import (
	"encoding/binary"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// An op is what the interpreter's switch looks at: one number for each
// combination of class, operation, size and operand.
type op uint8

const (
	opAdd64R op = iota
	opAdd64K
	opSub64R
	opSub64K
	opMul64R
	opMul64K
	opDiv64R
	opDiv64K
	opOr64R
	opOr64K
	opAnd64R
	opAnd64K
	opLSh64R
	opLSh64K
	opRSh64R
	opRSh64K
	opMod64R
	opMod64K
	opXor64R
	opXor64K
	opMov64R
	opMov64K
	opArSh64R
	opArSh64K
	opNeg64

	opAdd32R
	opAdd32K
	opSub32R
	opSub32K
	opMul32R
	opMul32K
	opDiv32R
	opDiv32K
	opOr32R
	opOr32K
	opAnd32R
	opAnd32K
	opLSh32R
	opLSh32K
	opRSh32R
	opRSh32K
	opMod32R
	opMod32K
	opXor32R
	opXor32K
	opMov32R
	opMov32K
	opArSh32R
	opArSh32K
	opNeg32

	opMovSX64x8
	opMovSX64x16
	opMovSX64x32
	opMovSX32x8
	opMovSX32x16

	opSwap16
	opSwap32
	opSwap64
	opTrunc16
	opNop

	opLoad8
	opLoad16
	opLoad32
	opLoad64
	opLoadS8
	opLoadS16
	opLoadS32
	opStore8
	opStore16
	opStore32
	opStore64
	opStoreK8
	opStoreK16
	opStoreK32
	opStoreK64

	opJmp
	opJEqR
	opJEqK
	opJGTR
	opJGTK
	opJGER
	opJGEK
	opJSetR
	opJSetK
	opJNER
	opJNEK
	opJSGTR
	opJSGTK
	opJSGER
	opJSGEK
	opJLTR
	opJLTK
	opJLER
	opJLEK
	opJSLTR
	opJSLTK
	opJSLER
	opJSLEK

	opJEq32R
	opJEq32K
	opJGT32R
	opJGT32K
	opJGE32R
	opJGE32K
	opJSet32R
	opJSet32K
	opJNE32R
	opJNE32K
	opJSGT32R
	opJSGT32K
	opJSGE32R
	opJSGE32K
	opJLT32R
	opJLT32K
	opJLE32R
	opJLE32K
	opJSLT32R
	opJSLT32K
	opJSLE32R
	opJSLE32K

	opMayGoto
	opCallLocal
	opExit
	opCallCPU

	// What follows leaves the switch of straight.
	opSDiv64R
	opSDiv64K
	opSMod64R
	opSMod64K
	opSDiv32R
	opSDiv32K
	opSMod32R
	opSMod32K
	opAtomic // imm is the operation, see atomic.go
	opCallHost
	opCallTail
	opCallArray
	opCallPerCPUArray
	opPacketAbs
	opPacketInd

	opStop  // no instruction: where a [Stepper] asks
	opSpent // no instruction: the budget is used up
)

// An insn is an instruction made ready. Registers are byte offsets into
// State.Regs, jumps go by the number of instructions from the next one.
type insn struct {
	op       op
	dst, src uint8
	size     uint8
	off      int32 // of a memory access, of a jump
	imm      int64
}

var aluOps = map[isa.ALUOp]op{
	isa.Add: opAdd64R, isa.Sub: opSub64R, isa.Mul: opMul64R, isa.Div: opDiv64R, isa.SDiv: opSDiv64R,
	isa.Or: opOr64R, isa.And: opAnd64R, isa.LSh: opLSh64R, isa.RSh: opRSh64R, isa.Mod: opMod64R,
	isa.SMod: opSMod64R, isa.Xor: opXor64R, isa.Mov: opMov64R, isa.ArSh: opArSh64R,
}

var jumpOps = map[isa.JumpOp]op{
	isa.Eq: opJEqR, isa.GT: opJGTR, isa.GE: opJGER, isa.Set: opJSetR, isa.NE: opJNER, isa.SGT: opJSGTR,
	isa.SGE: opJSGER, isa.LT: opJLTR, isa.LE: opJLER, isa.SLT: opJSLTR, isa.SLE: opJSLER,
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// decode makes instruction i of p ready. Engine.New has checked its form.
func decode(p *engine.Program, i int) insn {
	in := p.Insns[i]
	out := insn{dst: uint8(in.Dst) * 8, src: uint8(in.Src) * 8, off: int32(in.Off), imm: in.Imm}
	fromReg := op(1)
	if in.Op.Source() == isa.SourceReg {
		fromReg = 0
	}
	switch class := in.Class(); class {
	case isa.ClassALU64, isa.ClassALU:
		decodeALU(&out, in, fromReg)
	case isa.ClassJMP, isa.ClassJMP32:
		decodeJump(&out, p, i, fromReg)
	case isa.ClassLD:
		switch in.Op.Mode() {
		case isa.ModeAbs:
			out.op, out.size = opPacketAbs, uint8(in.Op.Size().Bytes())
		case isa.ModeInd:
			out.op, out.size = opPacketInd, uint8(in.Op.Size().Bytes())
		default:
			out.op = opMov64K
		}
	case isa.ClassLDX:
		signed := in.Op.Mode() == isa.ModeMemSX
		out.op = map[isa.Size]op{isa.Byte: opLoad8, isa.Half: opLoad16, isa.Word: opLoad32, isa.Double: opLoad64}[in.Op.Size()]
		if signed {
			out.op += opLoadS8 - opLoad8
		}
	case isa.ClassST:
		out.op = map[isa.Size]op{isa.Byte: opStoreK8, isa.Half: opStoreK16, isa.Word: opStoreK32, isa.Double: opStoreK64}[in.Op.Size()]
	case isa.ClassSTX:
		if in.IsAtomic() {
			out.op, out.size = opAtomic, uint8(in.Op.Size().Bytes())
			break
		}
		out.op = map[isa.Size]op{isa.Byte: opStore8, isa.Half: opStore16, isa.Word: opStore32, isa.Double: opStore64}[in.Op.Size()]
	}
	return out
}

func decodeALU(out *insn, in isa.Instruction, fromReg op) {
	wide := in.Class() == isa.ClassALU64
	switch {
	case in.IsAddrSpaceCast():
		out.op = opMov32R // every space is the cage
	case in.ALUOp() == isa.End:
		// Class ALU64 swaps always; ALU swaps to an order, which may be ours.
		swap := wide || (in.Op.Source() == isa.SourceReg) != bigEndian
		switch {
		case swap:
			out.op = map[int64]op{16: opSwap16, 32: opSwap32, 64: opSwap64}[in.Imm]
		case in.Imm == 16:
			out.op = opTrunc16
		case in.Imm == 32:
			out.op, out.src = opMov32R, out.dst
		default:
			out.op = opNop
		}
	case in.ALUOp() == isa.Neg:
		out.op = opNeg64
		if !wide {
			out.op = opNeg32
		}
	case in.ALUOp() == isa.Mov && fromReg == 0 && in.Off != 0:
		if wide {
			out.op = map[int16]op{8: opMovSX64x8, 16: opMovSX64x16, 32: opMovSX64x32}[in.Off]
		} else {
			out.op = map[int16]op{8: opMovSX32x8, 16: opMovSX32x16}[in.Off]
		}
	default:
		out.op = aluOps[in.ALUOp()] + fromReg
		switch {
		case wide:
		case in.ALUOp() == isa.SDiv || in.ALUOp() == isa.SMod:
			out.op += opSDiv32R - opSDiv64R
		default:
			out.op += opAdd32R - opAdd64R
		}
	}
}

func decodeJump(out *insn, p *engine.Program, i int, fromReg op) {
	in := p.Insns[i]
	if _, ok := in.Jump(); ok {
		out.off = int32(p.Target(i) - i - 1)
	}
	switch in.Op.JumpOp() {
	case isa.Always:
		out.op = opJmp
	case isa.JCond:
		out.op = opMayGoto
	case isa.ExitOp:
		out.op = opExit
	case isa.CallOp:
		if in.Src == isa.CallPseudo {
			// Where the function starts, and what its entry costs.
			fn := p.Target(i)
			out.op, out.imm, out.off = opCallLocal, int64(p.Funcs[fn]), int32(p.EntryCost(fn))
			break
		}
		out.op = map[engine.CallKind]op{
			engine.CallHost: opCallHost, engine.CallTail: opCallTail, engine.CallArray: opCallArray,
			engine.CallPerCPUArray: opCallPerCPUArray, engine.CallCPU: opCallCPU,
		}[p.Calls[in.Imm].Kind]
	default:
		out.op = jumpOps[in.Op.JumpOp()] + fromReg
		if in.Class() == isa.ClassJMP32 {
			out.op += opJEq32R - opJEqR
		}
	}
}
