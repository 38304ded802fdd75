package jit

import (
	"math/bits"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// instruction emits the instruction with index i.
func (g *x86gen) instruction(i int) {
	insn := g.p.Insns[i]
	switch class := insn.Class(); {
	case class.IsALU() && insn.Src == isa.R10 && insn.ALUOp() == isa.Mov && insn.Off == 0 && class == isa.ClassALU64:
		g.mov64(true, x86Regs[insn.Dst], x86FP)
		g.op64(true, opSub, x86Regs[insn.Dst], x86Base)
		g.wrote(insn.Dst, true)
	case class.IsALU():
		g.asNumber(insn.Src == isa.R10 && insn.Op.Source() == isa.SourceReg, func() { g.alu(insn) })
		g.wrote(insn.Dst, g.result(insn))
	case insn.IsWide():
		g.wide(insn)
		g.wrote(insn.Dst, g.result(insn))
	case class == isa.ClassLD:
		g.packet(i, insn)
	case class == isa.ClassLDX:
		m := g.address(insn.Src, insn.Off)
		g.load(insn.Op.Mode() == isa.ModeMemSX, insn.Op.Size().Bytes(), x86Regs[insn.Dst], m)
		g.wrote(insn.Dst, g.result(insn))
	case class == isa.ClassST:
		g.storeConst(insn)
	case insn.IsAtomic():
		value := insn.Src == isa.R10 && insn.AtomicOp() != isa.LoadAcquireOp
		g.asNumber(value, func() { g.atomic(i, insn) })
	case class == isa.ClassSTX:
		g.asNumber(insn.Src == isa.R10, func() {
			m := g.address(insn.Dst, insn.Off)
			g.store(insn.Op.Size().Bytes(), m, x86Regs[insn.Src])
		})
	case insn.IsExit():
		g.epilogue()
		g.ret()
	case insn.IsCall() && insn.Src == isa.CallPseudo:
		g.callLocal(i)
	case insn.IsCall():
		g.callHost(i, &g.p.Calls[insn.Imm])
	default:
		g.jump(i, insn)
	}
}

// asNumber emits an instruction that uses the number in r10, if it does, with rbp
// as that number.
func (g *x86gen) asNumber(does bool, emit func()) {
	if !does {
		emit()
		return
	}
	g.op64(true, opSub, x86FP, x86Base)
	g.fpCage = true
	emit()
	g.fpCage = false
	g.hostFP()
}

// hostFP makes rbp a host address again. The flags stay.
func (g *x86gen) hostFP() { g.lea(x86FP, x86mem{x86Base, x86FP, 0}) }

// lose forgets what the scratch register holds, because it gets something else.
func (g *x86gen) lose() x86reg {
	g.scratch = nobody
	return x86Scratch
}

// constant brings v, sign extended if w, into the scratch register.
func (g *x86gen) constant(w bool, v int32) x86reg {
	r := g.lose()
	g.constantTo(r, w, v)
	return r
}

func (g *x86gen) constantTo(r x86reg, w bool, v int32) {
	w = w && v < 0
	if !g.o.Blind {
		g.movSigned(w, r, v)
		return
	}
	key := g.keys.next()
	g.movSigned(w, r, v^key)
	g.opImm32(w, opXor, r, key)
}

func (g *x86gen) alu(insn isa.Instruction) {
	w := insn.Class() == isa.ClassALU64
	dst, src := x86Regs[insn.Dst], x86Regs[insn.Src]
	imm := insn.Op.Source() == isa.SourceImm
	v := int32(insn.Imm)
	switch op := insn.ALUOp(); op {
	case isa.Add, isa.Sub, isa.Or, isa.And, isa.Xor:
		x := map[isa.ALUOp]x86op{isa.Add: opAdd, isa.Sub: opSub, isa.Or: opOr, isa.And: opAnd, isa.Xor: opXor}[op]
		switch {
		case !imm:
			g.op64(w, x, dst, src)
		case g.o.Blind:
			g.op64(w, x, dst, g.constant(w, v))
		default:
			g.opImm64(w, x, dst, v)
		}
	case isa.Mul:
		switch {
		case !imm:
			g.imul64(w, dst, src)
		case g.o.Blind:
			g.imul64(w, dst, g.constant(w, v))
		default:
			g.imulImm64(w, dst, dst, v)
		}
	case isa.Div, isa.Mod, isa.SDiv, isa.SMod:
		g.divide(insn, w)
	case isa.LSh, isa.RSh, isa.ArSh:
		x := map[isa.ALUOp]uint8{isa.LSh: opShl, isa.RSh: opShr, isa.ArSh: opSar}[op]
		g.shift(w, x, insn)
	case isa.Neg:
		g.neg64(w, dst)
	case isa.Mov:
		switch {
		case imm && v == 0:
			g.zero(dst)
		case imm && g.o.Blind:
			g.constantTo(dst, w, v)
		case imm && w:
			g.movImm64(dst, int64(v))
		case imm:
			g.movImm64(dst, int64(uint32(v)))
		case insn.IsAddrSpaceCast():
			g.mov64(false, dst, src)
		case insn.Off != 0:
			g.extend(w, true, int(insn.Off)/8, dst, src)
		default:
			g.mov64(w, dst, src)
		}
	case isa.End:
		g.byteOrder(insn, w)
	}
}

func (g *x86gen) byteOrder(insn isa.Instruction, w bool) {
	dst := x86Regs[insn.Dst]
	swap := w || insn.Op.Source() == isa.SourceReg
	switch insn.Imm {
	case 16:
		if swap {
			g.rolWord(dst, 8)
		}
		g.extend(false, false, 2, dst, dst)
	case 32:
		if swap {
			g.bswap64(false, dst)
		} else {
			g.mov64(false, dst, dst)
		}
	case 64:
		if swap {
			g.bswap64(true, dst)
		}
	}
}

func (g *x86gen) shift(w bool, op uint8, insn isa.Instruction) {
	dst, src := x86Regs[insn.Dst], x86Regs[insn.Src]
	switch {
	case insn.Op.Source() == isa.SourceImm:
		n := uint8(insn.Imm) & 31
		if w {
			n = uint8(insn.Imm) & 63
		}
		switch {
		case n != 0:
			g.shiftImm64(w, op, dst, n)
		case !w:
			g.mov64(false, dst, dst)
		}
	case g.o.bmi2:
		g.shiftX64(w, op, dst, dst, src)
	case src == rcx && dst != rcx:
		g.shiftCL64(w, op, dst)
	case src == rcx:
		s := g.lose()
		g.mov64(true, s, rcx)
		g.shiftCL64(w, op, s)
		g.mov64(true, rcx, s)
	case dst == rcx:
		s := g.lose()
		g.mov64(true, s, rcx)
		g.mov64(false, rcx, src)
		g.shiftCL64(w, op, s)
		g.mov64(true, rcx, s)
	default:
		s := g.lose()
		g.mov64(true, s, rcx)
		g.mov64(false, rcx, src)
		g.shiftCL64(w, op, dst)
		g.mov64(true, rcx, s)
	}
}

// divide emits a division or remainder. The machine faults on zero, and on the
// smallest number divided by -1; both are kept from it.
func (g *x86gen) divide(insn isa.Instruction, w bool) {
	dst := x86Regs[insn.Dst]
	op := insn.ALUOp()
	signed := op == isa.SDiv || op == isa.SMod
	modulo := op == isa.Mod || op == isa.SMod
	imm := insn.Op.Source() == isa.SourceImm
	v := int32(insn.Imm)

	byZero := func() {
		if !modulo {
			g.zero(dst)
		} else if !w {
			g.mov64(false, dst, dst)
		}
	}
	byMinusOne := func() {
		if modulo {
			g.zero(dst)
		} else {
			g.neg64(w, dst)
		}
	}
	if imm {
		u := uint64(uint32(v))
		if w {
			u = uint64(int64(v))
		}
		switch {
		case v == 0:
			byZero()
			return
		case signed && v == -1:
			byMinusOne()
			return
		case !signed && bits.OnesCount64(u) == 1 && !g.o.Blind:
			n := uint8(bits.TrailingZeros64(u))
			switch {
			case modulo && v > 0:
				g.opImm64(w, opAnd, dst, v-1)
				return
			case !modulo && n > 0:
				g.shiftImm64(w, opShr, dst, n)
				return
			}
		}
	}
	by := g.lose()
	if imm {
		g.constantTo(by, w, v)
	} else {
		g.mov64(w, by, x86Regs[insn.Src])
	}
	end := g.label()
	if !imm {
		zero := g.label()
		g.test64(w, by, by)
		g.jcc(ccE, zero)
		g.later = append(g.later, func() {
			g.bind(zero)
			byZero()
			g.jmp(end)
		})
		if signed {
			minus := g.label()
			g.opImm64(w, opCmp, by, -1)
			g.jcc(ccE, minus)
			g.later = append(g.later, func() {
				g.bind(minus)
				byMinusOne()
				g.jmp(end)
			})
		}
	}
	saveA, saveD := x86Field(engine.OffsetScratch), x86Field(engine.OffsetScratch+8)
	if dst != rax {
		g.store(8, saveA, rax)
		g.mov64(w, rax, dst)
	}
	if dst != rdx {
		g.store(8, saveD, rdx)
	}
	if signed {
		g.cqo(w)
	} else {
		g.zero(rdx)
	}
	g.div64(w, signed, by)
	result := rax
	if modulo {
		result = rdx
	}
	if result != dst {
		g.mov64(w, dst, result)
	}
	if dst != rax {
		g.reload(isa.R0, saveA)
	}
	if dst != rdx {
		g.reload(isa.R3, saveD)
	}
	g.bind(end)
}

func (g *x86gen) wide(insn isa.Instruction) {
	dst := x86Regs[insn.Dst]
	if !g.o.Blind {
		g.movImm64(dst, insn.Imm)
		return
	}
	if insn.High() == 0 {
		g.constantTo(dst, false, insn.Low())
		return
	}
	g.constantTo(dst, false, insn.High())
	g.shiftImm64(true, opShl, dst, 32)
	g.op64(true, opOr, dst, g.constant(false, insn.Low()))
}

// address returns the operand for an access at a cage address.
func (g *x86gen) address(r isa.Register, off int16) x86mem {
	switch {
	case r == isa.R10 && !g.fpCage:
		return x86mem{x86FP, noReg, int32(off)}
	case g.isClean(r) || g.o.unconfined:
		return x86mem{x86Base, x86Regs[r], int32(off)}
	case g.scratch != r:
		g.mov64(false, x86Scratch, x86Regs[r])
		g.scratch = r
	}
	return x86mem{x86Base, x86Scratch, int32(off)}
}

func (g *x86gen) storeConst(insn isa.Instruction) {
	size := insn.Op.Size().Bytes()
	v := int32(insn.Imm)
	switch {
	case !g.o.Blind:
		g.storeImm(size, g.address(insn.Dst, insn.Off), v)
	case g.isClean(insn.Dst):
		g.constant(true, v)
		g.store(size, g.address(insn.Dst, insn.Off), x86Scratch)
	default:
		m := g.address(insn.Dst, insn.Off)
		g.store(8, x86Field(engine.OffsetBudget), x86Budget)
		g.constantTo(x86Budget, true, v)
		g.store(size, m, x86Budget)
		g.load(false, 8, x86Budget, x86Field(engine.OffsetBudget))
	}
}

// aligned returns the operand for an atomic access; an address that is no
// multiple of size ends the run.
func (g *x86gen) aligned(i int, r isa.Register, off int16, size int) x86mem {
	if size == 1 || r == isa.R10 && int(off)%size == 0 {
		return g.address(r, off)
	}
	undo := func() {}
	if g.fpCage {
		undo = g.hostFP
	}
	misaligned := g.fault(i, engine.FaultAlign, undo)
	if r == isa.R10 {
		g.jmp(misaligned) // as 16 divides r10
		return g.address(r, off)
	}
	if int(off)%size == 0 {
		g.testByte(x86Regs[r], byte(size-1))
		g.jcc(ccNE, misaligned)
		return g.address(r, off)
	}
	s := g.lose()
	g.mov64(false, s, x86Regs[r])
	g.lea(s, x86mem{s, noReg, int32(off)})
	g.testByte(s, byte(size-1))
	g.jcc(ccNE, misaligned)
	return x86mem{x86Base, s, 0}
}

func (g *x86gen) atomic(i int, insn isa.Instruction) {
	size := insn.Op.Size().Bytes()
	w := size == 8
	src := x86Regs[insn.Src]
	op := insn.AtomicOp()
	if op == isa.LoadAcquireOp {
		g.load(false, size, x86Regs[insn.Dst], g.aligned(i, insn.Src, insn.Off, size))
		g.wrote(insn.Dst, g.result(insn))
		return
	}
	m := g.aligned(i, insn.Dst, insn.Off, size)
	switch op {
	case isa.StoreReleaseOp:
		g.store(size, m, src)
	case isa.AtomicAdd:
		g.lockOp64(w, opAdd, m, src)
	case isa.AtomicOr:
		g.lockOp64(w, opOr, m, src)
	case isa.AtomicAnd:
		g.lockOp64(w, opAnd, m, src)
	case isa.AtomicXor:
		g.lockOp64(w, opXor, m, src)
	case isa.FetchAdd:
		g.lockXadd64(w, m, src)
		g.wrote(insn.Src, !w)
	case isa.Xchg:
		g.xchg64(w, m, src)
		g.wrote(insn.Src, !w)
	case isa.CmpXchg:
		g.lockCmpxchg64(w, m, src)
		if !w {
			g.mov64(false, rax, rax) // which success leaves alone
		}
		g.wrote(isa.R0, !w)
	default:
		x := map[isa.AtomicOp]x86op{isa.FetchOr: opOr, isa.FetchAnd: opAnd, isa.FetchXor: opXor}[op]
		g.fetch(w, x, m, src)
		g.wrote(insn.Src, !w)
	}
}

// fetch is src = m; m = m op src for the operations that the machine has not.
func (g *x86gen) fetch(w bool, op x86op, m x86mem, src x86reg) {
	if m.index != x86Scratch && m.index != noReg {
		// rax and rdx may be the index, and are needed.
		g.mov64(false, g.lose(), m.index)
		m.index = x86Scratch
	}
	saveA, saveD := x86Field(engine.OffsetScratch), x86Field(engine.OffsetScratch+8)
	operand := src
	if src == rax {
		g.store(8, saveD, rdx)
		g.mov64(true, rdx, rax)
		operand = rdx
	} else {
		g.store(8, saveA, rax)
	}
	g.store(8, x86Field(engine.OffsetBudget), x86Budget)
	again := g.label()
	size := 4
	if w {
		size = 8
	}
	g.load(false, size, rax, m)
	g.bind(again)
	g.mov64(true, x86Budget, rax)
	g.op64(w, op, x86Budget, operand)
	g.lockCmpxchg64(w, m, x86Budget)
	g.jcc(ccNE, again)
	if !w {
		g.mov64(false, rax, rax)
	}
	g.load(false, 8, x86Budget, x86Field(engine.OffsetBudget))
	if src == rax {
		g.reload(isa.R3, saveD)
	} else {
		g.mov64(true, src, rax)
		g.reload(isa.R0, saveA)
	}
}

// reload gets back a register that was lent out. What was known of it is not
// known any more: a load can run ahead of the store before it.
func (g *x86gen) reload(r isa.Register, m x86mem) {
	g.load(false, 8, x86Regs[r], m)
	g.wrote(r, false)
}

func (g *x86gen) jump(i int, insn isa.Instruction) {
	target, cost := g.insns[g.p.Target(i)], int32(g.p.JumpCost(i))
	w := insn.Class() == isa.ClassJMP
	op := insn.Op.JumpOp()
	var cc x86cc
	switch {
	case op == isa.Always:
		if cost == 0 {
			g.jmp(target)
		} else {
			g.jumpCharged(cost, target)
		}
		return
	case op == isa.JCond:
		g.cmpMem(8, x86mem{rsp, noReg, 0}, 0)
		cc = ccE
	default:
		cc = g.compare(w, op, insn)
	}
	if cost == 0 {
		g.jcc(cc, target)
	} else {
		over := g.label()
		g.jcc(cc.negate(), over)
		g.jumpCharged(cost, target)
		g.bind(over)
	}
	if op == isa.JCond {
		g.decMem(x86mem{rsp, noReg, 0})
	}
}

var x86Conditions = map[isa.JumpOp]x86cc{
	isa.Eq: ccE, isa.NE: ccNE, isa.Set: ccNE,
	isa.GT: ccA, isa.GE: ccAE, isa.LT: ccB, isa.LE: ccBE,
	isa.SGT: ccG, isa.SGE: ccGE, isa.SLT: ccL, isa.SLE: ccLE,
}

func (g *x86gen) compare(w bool, op isa.JumpOp, insn isa.Instruction) x86cc {
	dst, src := x86Regs[insn.Dst], x86Regs[insn.Src]
	imm := insn.Op.Source() == isa.SourceImm
	v := int32(insn.Imm)
	if imm && g.o.Blind && v != 0 {
		src, imm = g.constant(w, v), false
	}
	g.asNumber(insn.Dst == isa.R10 || !imm && src == x86FP, func() { g.compareWith(w, op, dst, src, imm, v) })
	return x86Conditions[op]
}

func (g *x86gen) compareWith(w bool, op isa.JumpOp, dst, src x86reg, imm bool, v int32) {
	switch {
	case op == isa.Set && imm:
		g.testImm64(w, dst, v)
	case op == isa.Set:
		g.test64(w, dst, src)
	case imm && v == 0:
		g.test64(w, dst, dst)
	case imm:
		g.opImm64(w, opCmp, dst, v)
	default:
		g.op64(w, opCmp, dst, src)
	}
}

func (g *x86gen) callLocal(i int) {
	deep := g.fault(i, engine.FaultStack, func() { g.opImm64(true, opAdd, x86FP, engine.FrameSize) })
	number := g.lose()
	g.opImm64(true, opSub, x86FP, engine.FrameSize)
	g.mov64(false, number, x86FP)
	g.op64(false, opSub, number, x86Base)
	g.opLoad64(false, opCmp, number, x86Field(engine.OffsetStackLimit))
	g.jcc(ccB, deep)
	g.call(g.entries[g.p.Target(i)])
	g.opImm64(true, opAdd, x86FP, engine.FrameSize)
	g.join()
}

func (g *x86gen) callHost(i int, c *engine.Call) {
	switch c.Kind {
	case engine.CallCPU:
		g.load(false, 4, rax, x86Field(engine.OffsetCPU))
		g.wrote(isa.R0, true)
		return
	case engine.CallArray, engine.CallPerCPUArray:
		g.lookup(c)
		return
	case engine.CallTail:
		g.where(i, int32(g.p.Insns[i].Imm))
		g.exit(engine.TailCall)
		replaced := g.label()
		g.load(false, 8, x86Scratch, x86Field(engine.OffsetTarget))
		g.test64(true, x86Scratch, x86Scratch)
		g.jcc(ccNE, replaced)
		g.later = append(g.later, func() {
			g.bind(replaced)
			g.epilogue()
			g.load(false, 8, x86Scratch, x86Field(engine.OffsetTarget))
			g.storeImm(8, x86Field(engine.OffsetTarget), 0)
			if g.o.DirectTailCalls {
				g.jmpReg(x86Scratch)
			} else {
				g.jmp(g.retpoline)
			}
		})
	default:
		g.where(i, int32(g.p.Insns[i].Imm))
		g.exit(engine.HostCall)
	}
	g.join()
}

// where notes what leaves, and its argument.
func (g *x86gen) where(i int, arg int32) {
	g.storeImm(4, x86Field(engine.OffsetArg), arg)
	g.storeImm(4, x86Field(engine.OffsetPC), int32(i))
}

// lookup finds a value of an array.
func (g *x86gen) lookup(c *engine.Call) {
	none, end := g.label(), g.label()
	g.load(false, 4, rax, g.address(isa.R2, 0))
	g.opImm64(false, opCmp, rax, int32(c.Count))
	g.jcc(ccAE, none)
	if bits.OnesCount32(c.Size) == 1 {
		g.shiftImm64(false, opShl, rax, uint8(bits.TrailingZeros32(c.Size)))
	} else {
		g.imulImm64(false, rax, rax, int32(c.Size))
	}
	g.opImm64(false, opAdd, rax, int32(c.Base))
	if c.Kind == engine.CallPerCPUArray {
		s := g.lose()
		g.load(false, 4, s, x86Field(engine.OffsetCPU))
		g.imulImm64(false, s, s, int32(c.Stride))
		g.op64(false, opAdd, rax, s)
	}
	g.bind(end)
	g.later = append(g.later, func() {
		g.bind(none)
		g.zero(rax)
		g.jmp(end)
	})
	g.wrote(isa.R0, true)
}

// packet leaves for a legacy access to the packet.
func (g *x86gen) packet(i int, insn isa.Instruction) {
	v := int32(insn.Imm)
	off := g.constant(true, v)
	if insn.Op.Mode() == isa.ModeInd {
		g.asNumber(insn.Src == isa.R10, func() { g.op64(false, opAdd, off, x86Regs[insn.Src]) })
	}
	g.extend(true, true, 4, rax, off)
	g.where(i, int32(insn.Op.Size().Bytes()))
	g.exit(engine.Packet)
	failed := g.label()
	g.cmpMem(4, x86Field(engine.OffsetFail), 0)
	g.jcc(ccNE, failed)
	g.later = append(g.later, func() {
		g.bind(failed)
		g.storeImm(4, x86Field(engine.OffsetFail), 0)
		g.zero(rax)
		g.epilogue()
		g.ret()
	})
	g.join()
}
