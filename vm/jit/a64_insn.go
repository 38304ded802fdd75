package jit

import (
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// instruction emits the instruction with index i.
func (g *a64gen) instruction(i int) {
	insn := g.p.Insns[i]
	size := insn.Op.Size().Bytes()
	switch class := insn.Class(); {
	case class.IsALU():
		g.alu(insn)
		g.wrote(insn.Dst, false)
	case insn.IsWide():
		g.constant(a64Regs[insn.Dst], uint64(insn.Imm), true)
		g.wrote(insn.Dst, false)
	case class == isa.ClassLD:
		g.packet(i, insn)
	case class == isa.ClassLDX:
		kind := a64Load
		if insn.Op.Mode() == isa.ModeMemSX {
			kind = a64LoadSX
		}
		g.access(kind, size, a64Regs[insn.Dst], insn.Src, int(insn.Off))
		g.wrote(insn.Dst, false)
	case class == isa.ClassST:
		src := xzr
		if insn.Imm != 0 {
			src = a64T2
			g.constant(src, uint64(insn.Imm), false)
		}
		g.access(a64Store, size, src, insn.Dst, int(insn.Off))
	case insn.IsAtomic():
		g.atomic(i, insn, size)
	case class == isa.ClassSTX:
		g.access(a64Store, size, a64Regs[insn.Src], insn.Dst, int(insn.Off))
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

// constant is d = v, where v is a constant of the program. Those of 32 bits are
// blinded by a key of 32 bits, sign extended like them. T3 is lost.
func (g *a64gen) constant(d a64reg, v uint64, wide bool) {
	if !g.o.Blind {
		g.movImm(d, v)
		return
	}
	key := g.key(v, wide)
	g.movImm(d, v^key)
	g.movImm(a64T3, key)
	g.op(true, a64Eor, d, d, a64T3)
}

// key returns a key for v none of whose halfwords gives one of v, or its
// complement, away: moves hold halfwords.
func (g *a64gen) key(v uint64, wide bool) uint64 {
	halves := 2
	if wide {
		halves = 4
	}
	for {
		key := uint64(int64(g.keys.next()))
		if wide {
			key = key<<32 | uint64(uint32(g.keys.next()))
		}
		good := true
		for i := range halves {
			h, x := uint16(key>>(16*i)), uint16((v^key)>>(16*i))
			for j := range halves {
				secret := uint16(v >> (16 * j))
				good = good && h != secret && ^h != secret && x != secret && ^x != secret
			}
		}
		if good {
			return key
		}
	}
}

var a64Ops = map[isa.ALUOp]uint32{
	isa.Add: a64Add, isa.Sub: a64Sub, isa.Or: a64Orr, isa.And: a64And, isa.Xor: a64Eor,
	isa.LSh: a64LslV, isa.RSh: a64LsrV, isa.ArSh: a64AsrV,
	isa.Div: a64UDiv, isa.SDiv: a64SDiv, isa.Mod: a64UDiv, isa.SMod: a64SDiv,
}

func (g *a64gen) alu(insn isa.Instruction) {
	w := insn.Class() == isa.ClassALU64
	d, s := a64Regs[insn.Dst], a64Regs[insn.Src]
	op := insn.ALUOp()
	imm := insn.Op.Source() == isa.SourceImm
	v := insn.Imm
	switch op {
	case isa.Neg:
		g.op(w, a64Sub, d, xzr, d)
		return
	case isa.End:
		g.byteOrder(insn, w)
		return
	case isa.LSh, isa.RSh, isa.ArSh:
		if imm {
			g.shiftImm(w, op, d, uint32(v))
			return
		}
	case isa.Mov:
		g.move(insn, w, d, s)
		return
	}
	if imm {
		if !g.o.Blind && v >= 0 && v < 4096 && (op == isa.Add || op == isa.Sub) {
			if op == isa.Add {
				g.addImm(w, d, d, uint32(v))
			} else {
				g.subImm(w, d, d, uint32(v))
			}
			return
		}
		s = a64T1
		g.constant(s, uint64(v), false)
	}
	switch op {
	case isa.Mul:
		g.mul(w, d, d, s)
	case isa.Mod, isa.SMod:
		// x/0 is 0 here as it is for BPF, and x - 0*0 is x.
		g.op(w, a64Ops[op], a64T2, d, s)
		g.msub(w, d, a64T2, s, d)
	default:
		g.op(w, a64Ops[op], d, d, s)
	}
}

func (g *a64gen) move(insn isa.Instruction, w bool, d, s a64reg) {
	switch {
	case insn.Op.Source() == isa.SourceImm && w:
		g.constant(d, uint64(insn.Imm), false)
	case insn.Op.Source() == isa.SourceImm && !g.o.Blind:
		g.movImm(d, uint64(uint32(insn.Imm)))
	case insn.Op.Source() == isa.SourceImm:
		g.constant(d, uint64(insn.Imm), false)
		g.mov(false, d, d)
	case insn.IsAddrSpaceCast():
		g.mov(false, d, s)
	case insn.Off != 0:
		g.bitfield(w, true, d, s, 0, uint32(insn.Off)-1)
	default:
		g.mov(w, d, s)
	}
}

func (g *a64gen) shiftImm(w bool, op isa.ALUOp, d a64reg, n uint32) {
	top := uint32(31)
	if w {
		top = 63
	}
	n &= top
	switch op {
	case isa.LSh:
		g.bitfield(w, false, d, d, -n&top, top-n)
	case isa.RSh:
		g.bitfield(w, false, d, d, n, top)
	case isa.ArSh:
		g.bitfield(w, true, d, d, n, top)
	}
}

func (g *a64gen) byteOrder(insn isa.Instruction, w bool) {
	d := a64Regs[insn.Dst]
	swap := w || insn.Op.Source() == isa.SourceReg
	bits := int(insn.Imm)
	if swap {
		g.rev(bits, d, d)
	}
	switch {
	case bits == 16:
		g.bitfield(false, false, d, d, 0, 15)
	case bits == 32 && !swap:
		g.mov(false, d, d)
	}
}

// address brings the host address of a cage address into Addr.
func (g *a64gen) address(r isa.Register) {
	if g.scratch != r {
		g.addWord(a64Addr, a64Base, a64Regs[r])
		g.scratch = r
	}
}

// access loads or stores t at a cage address. T1 is lost.
func (g *a64gen) access(kind uint32, size int, t a64reg, r isa.Register, off int) {
	if off == 0 && g.scratch != r {
		g.accessReg(kind, size, t, a64Base, a64Regs[r], true)
		return
	}
	g.address(r)
	if !g.accessImm(kind, size, t, a64Addr, off) {
		g.movImm(a64T1, uint64(int64(off)))
		g.accessReg(kind, size, t, a64Addr, a64T1, false)
	}
}

// aligned brings the host address for an atomic access into Addr; one that is no
// multiple of size ends the run.
func (g *a64gen) aligned(i int, r isa.Register, off, size int) {
	g.scratch = nobody
	g.mov(false, a64Addr, a64Regs[r])
	if off != 0 {
		g.movImm(a64T1, uint64(int64(off)))
		g.op(true, a64Add, a64Addr, a64Addr, a64T1)
	}
	if size > 1 {
		g.testMask(a64Addr, map[int]uint32{2: 1, 4: 2, 8: 3}[size])
		g.bcc(a64NE, g.fault(i, engine.FaultAlign, nil))
	}
	g.op(true, a64Add, a64Addr, a64Base, a64Addr)
}

func (g *a64gen) atomic(i int, insn isa.Instruction, size int) {
	op := insn.AtomicOp()
	if op == isa.LoadAcquireOp {
		g.aligned(i, insn.Src, int(insn.Off), size)
		g.ldar(size, a64Regs[insn.Dst], a64Addr)
		g.wrote(insn.Dst, false)
		return
	}
	w := size == 8
	src := a64Regs[insn.Src]
	g.aligned(i, insn.Dst, int(insn.Off), size)
	if op == isa.StoreReleaseOp {
		g.stlr(size, src, a64Addr)
		return
	}
	again, out := g.label(), g.label()
	g.bind(again)
	g.ldaxr(size, a64T1, a64Addr)
	value := a64T2
	switch op &^ isa.Fetch {
	case isa.AtomicAdd:
		g.op(w, a64Add, value, a64T1, src)
	case isa.AtomicOr:
		g.op(w, a64Orr, value, a64T1, src)
	case isa.AtomicAnd:
		g.op(w, a64And, value, a64T1, src)
	case isa.AtomicXor:
		g.op(w, a64Eor, value, a64T1, src)
	case isa.Xchg &^ isa.Fetch:
		value = src
	case isa.CmpXchg &^ isa.Fetch:
		value = src
		g.op(w, a64Subs, xzr, a64T1, a64Regs[isa.R0])
		g.bcc(a64NE, out)
	}
	g.stlxr(size, a64T3, value, a64Addr)
	g.cbnz(false, a64T3, again)
	g.bind(out)
	result := insn.Src
	switch {
	case op == isa.CmpXchg:
		result = isa.R0
	case op&isa.Fetch == 0:
		return
	}
	g.barrier()
	g.mov(true, a64Regs[result], a64T1)
	g.wrote(result, false)
}

var a64Conditions = map[isa.JumpOp]a64cc{
	isa.Eq: a64EQ, isa.NE: a64NE, isa.Set: a64NE,
	isa.GT: a64HI, isa.GE: a64HS, isa.LT: a64LO, isa.LE: a64LS,
	isa.SGT: a64GT, isa.SGE: a64GE, isa.SLT: a64LT, isa.SLE: a64LE,
}

func (g *a64gen) jump(i int, insn isa.Instruction) {
	target, cost := g.insns[g.p.Target(i)], g.p.JumpCost(i)
	op := insn.Op.JumpOp()
	if op == isa.Always {
		g.jumpCharged(cost, target)
		return
	}
	cc := a64EQ
	if op == isa.JCond {
		g.accessImm(a64Load, 8, a64T2, a64SP, 0)
		g.subsImm(true, xzr, a64T2, 0)
	} else {
		cc = g.compare(op, insn)
	}
	if cost == 0 {
		g.bcc(cc, target)
	} else {
		over := g.label()
		g.bcc(cc^1, over)
		g.jumpCharged(cost, target)
		g.bind(over)
	}
	if op == isa.JCond {
		g.subImm(true, a64T2, a64T2, 1)
		g.accessImm(a64Store, 8, a64T2, a64SP, 0)
	}
}

func (g *a64gen) compare(op isa.JumpOp, insn isa.Instruction) a64cc {
	w := insn.Class() == isa.ClassJMP
	d, s := a64Regs[insn.Dst], a64Regs[insn.Src]
	code := a64Subs
	if op == isa.Set {
		code = a64Ands
	}
	if insn.Op.Source() == isa.SourceImm {
		v := insn.Imm
		if op != isa.Set && v >= 0 && v < 4096 && (v == 0 || !g.o.Blind) {
			g.subsImm(w, xzr, d, uint32(v))
			return a64Conditions[op]
		}
		s = a64T1
		g.constant(s, uint64(v), false)
	}
	g.op(w, code, xzr, d, s)
	return a64Conditions[op]
}

func (g *a64gen) callLocal(i int) {
	fp := a64Regs[isa.R10]
	g.subImm(false, fp, fp, engine.FrameSize)
	g.field(a64Load, 4, a64T1, engine.OffsetStackLimit)
	g.op(false, a64Subs, xzr, fp, a64T1)
	g.bcc(a64LO, g.fault(i, engine.FaultStack, func() { g.addImm(false, fp, fp, engine.FrameSize) }))
	g.bl(g.entries[g.p.Target(i)])
	g.addImm(false, fp, fp, engine.FrameSize)
	g.join()
}

func (g *a64gen) callHost(i int, c *engine.Call) {
	switch c.Kind {
	case engine.CallCPU:
		g.field(a64Load, 4, a64Regs[isa.R0], engine.OffsetCPU)
		g.wrote(isa.R0, false)
		return
	case engine.CallArray, engine.CallPerCPUArray:
		g.lookup(c)
		return
	case engine.CallTail:
		g.where(i, uint32(g.p.Insns[i].Imm))
		g.exit(engine.TailCall)
		failed := g.label()
		g.field(a64Load, 8, a64Addr, engine.OffsetTarget)
		g.subsImm(true, xzr, a64Addr, 0)
		g.bcc(a64EQ, failed)
		g.epilogue()
		g.field(a64Store, 8, xzr, engine.OffsetTarget)
		g.br(a64Addr)
		g.bind(failed)
	default:
		g.where(i, uint32(g.p.Insns[i].Imm))
		g.exit(engine.HostCall)
	}
	g.join()
}

// lookup finds a value of an array.
func (g *a64gen) lookup(c *engine.Call) {
	r0 := a64Regs[isa.R0]
	end := g.label()
	g.access(a64Load, 4, a64T2, isa.R2, 0)
	g.movImm(r0, 0)
	g.movImm(a64T1, uint64(c.Count))
	g.op(false, a64Subs, xzr, a64T2, a64T1)
	g.bcc(a64HS, end)
	g.movImm(a64T1, uint64(c.Size))
	g.mul(false, r0, a64T2, a64T1)
	g.movImm(a64T1, uint64(c.Base))
	g.op(false, a64Add, r0, r0, a64T1)
	if c.Kind == engine.CallPerCPUArray {
		g.field(a64Load, 4, a64T2, engine.OffsetCPU)
		g.movImm(a64T1, uint64(c.Stride))
		g.mul(false, a64T2, a64T2, a64T1)
		g.op(false, a64Add, r0, r0, a64T2)
	}
	g.bind(end)
	g.wrote(isa.R0, false)
}

// packet leaves for a legacy access to the packet.
func (g *a64gen) packet(i int, insn isa.Instruction) {
	r0 := a64Regs[isa.R0]
	g.constant(a64T1, uint64(insn.Imm), false)
	other := xzr
	if insn.Op.Mode() == isa.ModeInd {
		other = a64Regs[insn.Src]
	}
	g.op(false, a64Add, r0, a64T1, other)
	g.bitfield(true, true, r0, r0, 0, 31)
	g.where(i, uint32(insn.Op.Size().Bytes()))
	g.exit(engine.Packet)
	ok := g.label()
	g.field(a64Load, 4, a64T1, engine.OffsetFail)
	g.subsImm(false, xzr, a64T1, 0)
	g.bcc(a64EQ, ok)
	g.field(a64Store, 4, xzr, engine.OffsetFail)
	g.movImm(r0, 0)
	g.epilogue()
	g.ret()
	g.bind(ok)
	g.join()
}
