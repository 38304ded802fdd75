package isa

import (
	"fmt"
	"strconv"
	"strings"
)

// Printer writes instructions as the kernel's verifier does, with names where
// its functions give them. The zero Printer names nothing, and [Parse] reads
// back all that it writes.
type Printer struct {
	// Symbol names what the instruction at slot refers to: the target of a
	// call, or the map, variable or function of a wide load. An empty string
	// leaves the number.
	Symbol func(slot int, i Instruction) string
	// Label names the jump target at slot. An empty string leaves the distance.
	Label func(slot int) string
}

// String returns the instruction as the zero [Printer] prints it.
func (i Instruction) String() string { return new(Printer).Instruction(0, i) }

// Sprint returns insns one a line, without slot numbers.
func Sprint(insns []Instruction) string {
	var b strings.Builder
	for _, i := range insns {
		b.WriteString(i.String())
		b.WriteByte('\n')
	}
	return b.String()
}

var aluSigns = map[ALUOp]string{
	Add: "+=", Sub: "-=", Mul: "*=", Div: "/=", Or: "|=", And: "&=", LSh: "<<=", RSh: ">>=",
	Mod: "%=", Xor: "^=", Mov: "=", ArSh: "s>>=", SDiv: "s/=", SMod: "s%=",
}

var jumpSigns = map[JumpOp]string{
	Eq: "==", GT: ">", GE: ">=", Set: "&", NE: "!=", SGT: "s>", SGE: "s>=", LT: "<", LE: "<=", SLT: "s<", SLE: "s<=",
}

var fetchNames = map[AtomicOp]string{
	FetchAdd: "fetch_add", FetchOr: "fetch_or", FetchAnd: "fetch_and", FetchXor: "fetch_xor", Xchg: "xchg", CmpXchg: "cmpxchg",
}

// String returns the sign of the operation's assignment, like "+=".
func (op ALUOp) String() string {
	switch op {
	case Neg:
		return "neg"
	case End:
		return "end"
	}
	if s, ok := aluSigns[op]; ok {
		return s
	}
	return fmt.Sprintf("ALUOp(%#x)", uint8(op))
}

// String returns the sign of the comparison, like "s>=", or the operation's name.
func (op JumpOp) String() string {
	switch op {
	case Always:
		return "goto"
	case CallOp:
		return "call"
	case ExitOp:
		return "exit"
	case JCond:
		return "may_goto"
	}
	if s, ok := jumpSigns[op]; ok {
		return s
	}
	return fmt.Sprintf("JumpOp(%#x)", uint8(op))
}

// String returns the operation's name as the kernel prints it, like "fetch_add".
func (op AtomicOp) String() string {
	switch op {
	case AtomicAdd:
		return "add"
	case AtomicOr:
		return "or"
	case AtomicAnd:
		return "and"
	case AtomicXor:
		return "xor"
	case LoadAcquireOp:
		return "load_acquire"
	case StoreReleaseOp:
		return "store_release"
	}
	if s, ok := fetchNames[op]; ok {
		return s
	}
	return fmt.Sprintf("AtomicOp(%#x)", int32(op))
}

// Instruction returns the text of i, which stands at slot. An instruction that
// [Instruction.Check] refuses is shown by its fields.
func (p *Printer) Instruction(slot int, i Instruction) string {
	if i.Check() != nil {
		return fmt.Sprintf("invalid(op %#02x, dst %d, src %d, off %d, imm %d)", uint8(i.Op), i.Dst, i.Src, i.Off, i.Imm)
	}
	switch i.Class() {
	case ClassALU, ClassALU64:
		return p.alu(i)
	case ClassJMP, ClassJMP32:
		return p.jump(slot, i)
	case ClassLD:
		return p.load(slot, i)
	case ClassLDX:
		typ := i.Op.Size().String()
		if i.Op.Mode() == ModeMemSX {
			typ = "s" + typ[1:]
		}
		return fmt.Sprintf("%v = *%s", i.Dst, address(typ, i.Src, i.Off))
	case ClassST:
		return fmt.Sprintf("*%s = %d", address(i.Op.Size().String(), i.Dst, i.Off), i.Imm)
	}
	if i.IsAtomic() {
		return atomic(i)
	}
	return fmt.Sprintf("*%s = %v", address(i.Op.Size().String(), i.Dst, i.Off), i.Src)
}

func address(typ string, base Register, off int16) string {
	return fmt.Sprintf("(%s *)(%v %+d)", typ, base, off)
}

func atomic(i Instruction) string {
	at := address(i.Op.Size().String(), i.Dst, i.Off)
	prefix := "atomic"
	if i.Op.Size() == Double {
		prefix = "atomic64"
	}
	switch op := i.AtomicOp(); op {
	case LoadAcquireOp:
		return fmt.Sprintf("%v = load_acquire(%s)", i.Dst, address(i.Op.Size().String(), i.Src, i.Off))
	case StoreReleaseOp:
		return fmt.Sprintf("store_release(%s, %v)", at, i.Src)
	case CmpXchg:
		return fmt.Sprintf("r0 = %s_cmpxchg(%s, r0, %v)", prefix, at, i.Src)
	case AtomicAdd, AtomicOr, AtomicAnd, AtomicXor:
		return fmt.Sprintf("lock *%s %s %v", at, aluSigns[ALUOp(op)], i.Src)
	default:
		return fmt.Sprintf("%v = %s_%s(%s, %v)", i.Src, prefix, fetchNames[op], at, i.Src)
	}
}

func (p *Printer) alu(i Instruction) string {
	bank := byte('w')
	if i.Class() == ClassALU64 {
		bank = 'r'
	}
	dst := fmt.Sprintf("%c%d", bank, i.Dst)
	reg := i.Op.Source() == SourceReg
	switch op := i.ALUOp(); {
	case op == Neg:
		return fmt.Sprintf("%s = -%s", dst, dst)
	case op == End:
		name := "le"
		if bank == 'r' {
			name = "bswap"
		} else if reg {
			name = "be"
		}
		return fmt.Sprintf("%v = %s%d %v", i.Dst, name, i.Imm, i.Dst)
	case i.IsAddrSpaceCast():
		return fmt.Sprintf("%s = addr_space_cast(%v, %d, %d)", dst, i.Src, uint32(i.Imm)>>16, uint16(i.Imm))
	case op == Mov && i.Off != 0:
		return fmt.Sprintf("%s = (s%d)%c%d", dst, i.Off, bank, i.Src)
	case reg:
		return fmt.Sprintf("%s %s %c%d", dst, aluSigns[op], bank, i.Src)
	default:
		return fmt.Sprintf("%s %s %d", dst, aluSigns[op], i.Imm)
	}
}

func (p *Printer) target(slot int, i Instruction) string {
	distance, _ := i.Jump()
	if p.Label != nil {
		if l := p.Label(slot + 1 + distance); l != "" {
			return l
		}
	}
	return fmt.Sprintf("pc%+d", distance)
}

func (p *Printer) jump(slot int, i Instruction) string {
	switch op := i.Op.JumpOp(); op {
	case Always:
		if i.Class() == ClassJMP32 {
			return "gotol " + p.target(slot, i)
		}
		return "goto " + p.target(slot, i)
	case JCond:
		return "may_goto " + p.target(slot, i)
	case ExitOp:
		return "exit"
	case CallOp:
		return p.call(slot, i)
	default:
		bank := byte('r')
		if i.Class() == ClassJMP32 {
			bank = 'w'
		}
		operand := "0x" + strconv.FormatUint(uint64(uint32(i.Imm)), 16)
		if i.Op.Source() == SourceReg {
			operand = fmt.Sprintf("%c%d", bank, i.Src)
		}
		return fmt.Sprintf("if %c%d %s %s goto %s", bank, i.Dst, jumpSigns[op], operand, p.target(slot, i))
	}
}

func (p *Printer) symbol(slot int, i Instruction) string {
	if p.Symbol == nil {
		return ""
	}
	return p.Symbol(slot, i)
}

func (p *Printer) call(slot int, i Instruction) string {
	name := p.symbol(slot, i)
	switch i.Src {
	case CallPseudo:
		if name == "" {
			name = fmt.Sprintf("pc%+d", i.Imm)
		}
		return "call " + name
	case CallKernel:
		at := fmt.Sprintf("[btf:%d]", i.Imm)
		if i.Off != 0 {
			at = fmt.Sprintf("[btf:%d,idx:%d]", i.Imm, i.Off)
		}
		if name == "" {
			name = "kfunc"
		}
		return "call " + name + at
	}
	if name != "" {
		return fmt.Sprintf("call %s#%d", name, i.Imm)
	}
	return fmt.Sprintf("call %d", i.Imm)
}

func (p *Printer) load(slot int, i Instruction) string {
	switch i.Op.Mode() {
	case ModeAbs:
		return fmt.Sprintf("r0 = *(%v *)skb[%d]", i.Op.Size(), i.Imm)
	case ModeInd:
		return fmt.Sprintf("r0 = *(%v *)skb[%v %+d]", i.Op.Size(), i.Src, i.Imm)
	}
	if name := p.symbol(slot, i); name != "" {
		if (i.Src == PseudoMapValue || i.Src == PseudoMapIndexValue) && i.High() != 0 {
			name = fmt.Sprintf("%s+%d", name, uint32(i.High()))
		}
		return fmt.Sprintf("%v = %s ll", i.Dst, name)
	}
	var ref string
	switch i.Src {
	case PseudoMapFD:
		ref = fmt.Sprintf("map[fd:%d]", i.Low())
	case PseudoMapValue:
		ref = fmt.Sprintf("map[fd:%d][0]+%d", i.Low(), uint32(i.High()))
	case PseudoMapIndex:
		ref = fmt.Sprintf("map[idx:%d]", i.Low())
	case PseudoMapIndexValue:
		ref = fmt.Sprintf("map[idx:%d][0]+%d", i.Low(), uint32(i.High()))
	case PseudoBTFID:
		ref = fmt.Sprintf("ksym[btf:%d]", i.Low())
		if i.High() != 0 {
			ref = fmt.Sprintf("ksym[btf:%d,fd:%d]", i.Low(), i.High())
		}
	case PseudoFunc:
		ref = fmt.Sprintf("subprog[%+d]", i.Low())
	default:
		ref = "0x" + strconv.FormatUint(uint64(i.Imm), 16)
	}
	return fmt.Sprintf("%v = %s ll", i.Dst, ref)
}
