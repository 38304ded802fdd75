package vm_test

import (
	"math/rand/v2"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// A generator writes programs that the kernel's verifier accepts: r6 is the
// context, r7 the packet, of which 64 bytes may be touched, r0 to r5, r8 and r9
// are numbers, and the lowest 128 bytes of the stack are initialised.
type generator struct {
	r     *rand.Rand
	insns []isa.Instruction
	typ   abi.ProgType
	sub   bool  // it is a function, with neither context nor packet
	calls []int // indices of local calls to be linked, by function
	want  []int
	depth int
	loops int
}

const (
	genPacket = 64
	genArray  = 3 // descriptors in the generated code
	genHash   = 4
	genStack  = 128
	genArgs   = 64 // bytes of a context that is neither packet nor struct
)

func (g *generator) emit(list ...isa.Instruction) { g.insns = append(g.insns, list...) }

// number is one of the registers that hold numbers.
func (g *generator) number() isa.Register {
	return []isa.Register{isa.R0, isa.R1, isa.R2, isa.R3, isa.R4, isa.R5, isa.R8, isa.R9}[g.r.IntN(8)]
}

func (g *generator) imm() int32 {
	switch g.r.IntN(5) {
	case 0:
		return g.r.Int32N(16) - 8
	case 1:
		return []int32{1<<31 - 1, -1 << 31, -1, 0xff, 0xffff, 0x8000, 1 << 16}[g.r.IntN(7)]
	}
	return int32(g.r.Uint32())
}

func (g *generator) size() isa.Size {
	return []isa.Size{isa.Byte, isa.Half, isa.Word, isa.Double}[g.r.IntN(4)]
}

// refill gives the registers that a call clobbers new numbers.
func (g *generator) refill() {
	for reg := isa.R1; reg <= isa.R5; reg++ {
		switch g.r.IntN(3) {
		case 0:
			g.emit(isa.LoadImm64(reg, int64(g.r.Uint64())))
		case 1:
			g.emit(isa.Mov64Imm(reg, g.imm()))
		default:
			g.emit(isa.Mov64(reg, []isa.Register{isa.R8, isa.R9, isa.R0}[g.r.IntN(3)]))
		}
	}
}

func (g *generator) alu() {
	dst, src := g.number(), g.number()
	ops := []isa.ALUOp{isa.Add, isa.Sub, isa.Mul, isa.Div, isa.Or, isa.And, isa.LSh, isa.RSh, isa.Mod, isa.Xor, isa.Mov, isa.ArSh, isa.SDiv, isa.SMod}
	op := ops[g.r.IntN(len(ops))]
	wide := g.r.IntN(2) == 0
	if g.r.IntN(2) == 0 {
		imm := g.imm()
		switch op {
		case isa.LSh, isa.RSh, isa.ArSh:
			if imm &= 31; wide {
				imm = g.r.Int32N(64)
			}
		case isa.Div, isa.Mod, isa.SDiv, isa.SMod:
			if imm == 0 {
				imm = 7
			}
		}
		if wide {
			g.emit(isa.ALU64Imm(op, dst, imm))
		} else {
			g.emit(isa.ALU32Imm(op, dst, imm))
		}
		return
	}
	if wide {
		g.emit(isa.ALU64(op, dst, src))
	} else {
		g.emit(isa.ALU32(op, dst, src))
	}
}

func (g *generator) unary() {
	dst, src := g.number(), g.number()
	bits := []int{16, 32, 64}[g.r.IntN(3)]
	switch g.r.IntN(8) {
	case 0:
		g.emit(isa.Neg64(dst))
	case 1:
		g.emit(isa.Neg32(dst))
	case 2:
		g.emit(isa.Bswap(dst, bits))
	case 3:
		g.emit(isa.SwapBE(dst, bits))
	case 4:
		g.emit(isa.SwapLE(dst, bits))
	case 5:
		g.emit(isa.MovSX64(dst, src, []int{8, 16, 32}[g.r.IntN(3)]))
	case 6:
		g.emit(isa.MovSX32(dst, src, []int{8, 16}[g.r.IntN(2)]))
	default:
		g.emit(isa.LoadImm64(dst, int64(g.r.Uint64())))
	}
}

// access loads from or stores to memory at base, of which offsets from low to
// high are good.
func (g *generator) access(base isa.Register, low, high int) {
	size := g.size()
	n := size.Bytes()
	off := int16(low + g.r.IntN(high-low-n+1))
	if base != isa.R7 { // the verifier wants others aligned
		off = int16(low + g.r.IntN((high-low)/n)*n)
	}
	reg := g.number()
	switch g.r.IntN(6) {
	case 0, 1:
		if g.r.IntN(3) == 0 && size != isa.Double {
			g.emit(isa.LoadMemSX(size, reg, base, off))
		} else {
			g.emit(isa.LoadMem(size, reg, base, off))
		}
	case 2, 3:
		g.emit(isa.StoreMem(size, base, off, reg))
	case 4:
		g.emit(isa.StoreImm(size, base, off, g.imm()))
	default:
		if base != isa.R10 { // atomics into packets and contexts are refused
			g.emit(isa.LoadMem(size, reg, base, off))
			return
		}
		g.atomic(base, low, high)
	}
}

func (g *generator) atomic(base isa.Register, low, high int) {
	size := []isa.Size{isa.Word, isa.Double}[g.r.IntN(2)]
	n := size.Bytes()
	off := int16(low + g.r.IntN((high-low)/n)*n)
	reg := g.number()
	switch k := g.r.IntN(12); k {
	case 10:
		g.emit(isa.LoadAcquire(size, reg, base, off))
	case 11:
		g.emit(isa.StoreRelease(size, base, off, reg))
	default:
		ops := []isa.AtomicOp{isa.AtomicAdd, isa.AtomicOr, isa.AtomicAnd, isa.AtomicXor, isa.FetchAdd, isa.FetchOr, isa.FetchAnd, isa.FetchXor, isa.Xchg, isa.CmpXchg}
		g.emit(isa.Atomic(ops[k], size, base, off, reg))
		if ops[k] == isa.CmpXchg && size == isa.Word {
			// Linux 6.18 may leave the upper half of r0 as it was if the exchange is
			// made and paths meet behind it: that of RFC 9669 (section 5.3) is zero.
			g.emit(isa.Mov32(isa.R0, isa.R0))
		}
	}
}

func (g *generator) memory() {
	if !g.sub && g.r.IntN(2) == 0 {
		g.context()
		return
	}
	g.access(isa.R10, -genStack, 0)
}

// context is an access to what the program was given.
func (g *generator) context() {
	switch g.typ {
	case abi.ProgRawTracepoint:
		size := g.size()
		g.emit(isa.LoadMem(size, g.number(), isa.R6, int16(g.r.IntN(genArgs/size.Bytes())*size.Bytes())))
	case abi.ProgSyscall:
		g.access(isa.R6, 0, genArgs)
	case abi.ProgSocketFilter:
		g.skb()
	case abi.ProgSchedCls:
		if g.r.IntN(3) == 0 {
			g.skb()
			return
		}
		fallthrough
	default:
		g.access(isa.R7, 0, genPacket)
	}
}

// skb is an access to a packet or its struct __sk_buff that is not by a pointer.
func (g *generator) skb() {
	size := []isa.Size{isa.Byte, isa.Half, isa.Word}[g.r.IntN(3)]
	cb := int16(48 + 4*g.r.IntN(5))
	switch g.r.IntN(6) {
	case 0:
		off := g.r.Int32N(50)
		if g.r.IntN(20) == 0 {
			off = g.r.Int32N(200) - 20
		}
		g.emit(isa.LoadAbs(size, off))
		g.refill()
	case 1:
		reg := g.number()
		g.emit(isa.ALU64Imm(isa.And, reg, 15), isa.LoadInd(size, reg, g.r.Int32N(40)))
		g.refill()
	case 2: // bpf_skb_load_bytes
		g.emit(isa.Mov64(isa.R1, isa.R6), isa.Mov64Imm(isa.R2, g.r.Int32N(90)-4), isa.Mov64(isa.R3, isa.R10), isa.ALU64Imm(isa.Add, isa.R3, -16*(1+g.r.Int32N(8))),
			isa.Mov64Imm(isa.R4, 1+g.r.Int32N(16)), isa.Call(26))
		g.refill()
	case 3:
		g.emit(isa.StoreMem(isa.Word, isa.R6, cb, g.number()))
	case 4:
		g.emit(isa.LoadMem(isa.Word, g.number(), isa.R6, cb))
	default: // len, pkt_type, mark, protocol, vlan_*, priority, ingress_ifindex, ifindex
		off := []int16{0, 4, 8, 16, 20, 24, 28, 32, 36, 40}[g.r.IntN(10)]
		g.emit(isa.LoadMem(isa.Word, g.number(), isa.R6, off))
	}
}

// condition is a jump over what body emits.
func (g *generator) condition() {
	ops := []isa.JumpOp{isa.Eq, isa.GT, isa.GE, isa.Set, isa.NE, isa.SGT, isa.SGE, isa.LT, isa.LE, isa.SLT, isa.SLE}
	op := ops[g.r.IntN(len(ops))]
	dst, src := g.number(), g.number()
	at := len(g.insns)
	switch g.r.IntN(4) {
	case 0:
		g.emit(isa.JumpIf(op, dst, src, 0))
	case 1:
		g.emit(isa.JumpIf32(op, dst, src, 0))
	case 2:
		g.emit(isa.JumpIfImm(op, dst, g.imm(), 0))
	default:
		g.emit(isa.JumpIf32Imm(op, dst, g.imm(), 0))
	}
	g.depth++
	g.block(1 + g.r.IntN(4))
	g.depth--
	if g.r.IntN(3) == 0 { // an else
		over := len(g.insns)
		if g.r.IntN(2) == 0 {
			g.emit(isa.Jump(0))
		} else {
			g.emit(isa.JumpLong(0))
		}
		g.patch(at)
		g.depth++
		g.block(1 + g.r.IntN(3))
		g.depth--
		g.patch(over)
		return
	}
	g.patch(at)
}

// patch makes the jump at an index lead to here.
func (g *generator) patch(at int) {
	if err := g.insns[at].SetJump(isa.Slots(g.insns[at+1:])); err != nil {
		panic(err)
	}
}

// loop repeats a block a fixed number of times; the count is in the stack.
func (g *generator) loop() {
	if g.loops > 1 || g.depth > 1 {
		g.alu()
		return
	}
	g.loops++
	n := 1 + g.r.Int32N(6)
	slot := int16(-genStack - 8*g.loops)
	scratch := isa.R5
	g.emit(isa.StoreImm(isa.Double, isa.R10, slot, 0))
	start := len(g.insns)
	g.depth += 2
	g.block(1 + g.r.IntN(3))
	g.depth -= 2
	g.emit(isa.LoadMem(isa.Double, scratch, isa.R10, slot), isa.ALU64Imm(isa.Add, scratch, 1), isa.StoreMem(isa.Double, isa.R10, slot, scratch))
	back := -isa.Slots(g.insns[start:]) - 1
	g.emit(isa.JumpIfImm(isa.LT, scratch, n, int16(back)))
}

// lookup finds a value of a map and uses it.
func (g *generator) lookup() {
	fd := []int32{genArray, genHash}[g.r.IntN(2)]
	slot := int16(-genStack - 24)
	g.emit(isa.StoreImm(isa.Word, isa.R10, slot, g.r.Int32N(6)),
		isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, int32(slot)), isa.LoadMapFD(isa.R1, fd))
	switch k := g.r.IntN(5); {
	case k == 0 && fd == genHash:
		g.emit(isa.Call(3)) // delete
		g.refill()
	case k == 1:
		g.emit(isa.Mov64(isa.R3, isa.R10), isa.ALU64Imm(isa.Add, isa.R3, -genStack+16*g.r.Int32N(6)), isa.Mov64Imm(isa.R4, g.r.Int32N(3)), isa.Call(2))
		g.refill()
	default:
		g.emit(isa.Call(1))
		g.refillKeep0()
		null := len(g.insns)
		g.emit(isa.JumpIfImm(isa.Eq, isa.R0, 0, 0))
		// The value is in r0: numbers come and go in the other registers.
		for range 1 + g.r.IntN(3) {
			g.valueAccess()
		}
		g.patch(null)
		g.emit(isa.Mov64Imm(isa.R0, g.imm()))
	}
}

func (g *generator) refillKeep0() {
	for reg := isa.R1; reg <= isa.R5; reg++ {
		g.emit(isa.Mov64(reg, []isa.Register{isa.R8, isa.R9}[g.r.IntN(2)]))
	}
}

// valueAccess is access at r0, with other registers for the numbers.
func (g *generator) valueAccess() {
	size := g.size()
	off := int16(g.r.IntN(16 - size.Bytes() + 1))
	reg := []isa.Register{isa.R1, isa.R2, isa.R3, isa.R4, isa.R5, isa.R8, isa.R9}[g.r.IntN(7)]
	switch g.r.IntN(4) {
	case 0:
		g.emit(isa.LoadMem(size, reg, isa.R0, off))
	case 1:
		g.emit(isa.StoreMem(size, isa.R0, off, reg))
	case 2:
		g.emit(isa.StoreImm(size, isa.R0, off, g.imm()))
	default:
		size := []isa.Size{isa.Word, isa.Double}[g.r.IntN(2)]
		op := []isa.AtomicOp{isa.AtomicAdd, isa.AtomicXor, isa.FetchAdd, isa.FetchOr, isa.Xchg}[g.r.IntN(5)]
		g.emit(isa.Atomic(op, size, isa.R0, int16(g.r.IntN(16/size.Bytes())*size.Bytes()), reg))
	}
}

// call calls one of the functions that follow.
func (g *generator) call() {
	if g.sub || len(g.want) > 3 {
		g.unary()
		return
	}
	g.calls = append(g.calls, len(g.insns))
	g.want = append(g.want, g.r.IntN(2))
	g.emit(isa.CallLocal(0))
	g.refill()
}

// mayGoto puts a may_goto around a block.
func (g *generator) mayGoto() {
	at := len(g.insns)
	g.emit(isa.MayGoto(0))
	g.depth++
	g.block(1 + g.r.IntN(2))
	g.depth--
	g.patch(at)
}

func (g *generator) block(n int) {
	for range n {
		switch k := g.r.IntN(100); {
		case k < 40:
			g.alu()
		case k < 55:
			g.unary()
		case k < 75:
			g.memory()
		case k < 87 && g.depth < 3:
			g.condition()
		case k < 90 && g.depth < 2:
			g.loop()
		case k < 94 && !g.sub && g.depth < 3:
			g.lookup()
		case k < 97:
			g.call()
		case k < 98 && g.depth < 2:
			g.mayGoto()
		default:
			g.alu()
		}
	}
}

// prologue gives every number a value and every byte of the stack too.
func (g *generator) prologue() {
	for off := -genStack; off < 0; off += 8 {
		g.emit(isa.StoreImm(isa.Double, isa.R10, int16(off), g.imm()))
	}
	if g.sub {
		g.emit(isa.LoadImm64(isa.R0, int64(g.r.Uint64())), isa.Mov64(isa.R8, isa.R1), isa.Mov64(isa.R9, isa.R2))
		return
	}
	g.emit(isa.Mov64(isa.R6, isa.R1), isa.LoadImm64(isa.R0, int64(g.r.Uint64())), isa.LoadImm64(isa.R8, int64(g.r.Uint64())), isa.LoadImm64(isa.R9, int64(g.r.Uint64())))
	g.refill()
}

// generate returns a program of about n statements.
func generate(r *rand.Rand, typ abi.ProgType, n int) []isa.Instruction {
	g := &generator{r: r, typ: typ}
	data := map[abi.ProgType]int16{abi.ProgXDP: 0, abi.ProgSchedCls: 76}
	at, hasPacket := data[typ]
	short := 0
	if hasPacket {
		g.emit(isa.LoadMem(isa.Word, isa.R7, isa.R1, at), isa.LoadMem(isa.Word, isa.R2, isa.R1, at+4),
			isa.Mov64(isa.R3, isa.R7), isa.ALU64Imm(isa.Add, isa.R3, genPacket))
		short = len(g.insns)
		g.emit(isa.JumpIf(isa.GT, isa.R3, isa.R2, 0))
	}
	g.prologue()
	g.block(n)
	// What the numbers are in the end becomes the result.
	for _, reg := range []isa.Register{isa.R1, isa.R2, isa.R3, isa.R4, isa.R5, isa.R8, isa.R9} {
		g.emit(isa.ALU64Imm(isa.Mul, isa.R0, 0x01000193), isa.ALU64(isa.Xor, isa.R0, reg))
	}
	g.emit(isa.Mov64(isa.R1, isa.R0), isa.ALU64Imm(isa.RSh, isa.R1, 32), isa.ALU64(isa.Xor, isa.R0, isa.R1), isa.Exit())
	if hasPacket {
		g.patch(short)
		g.emit(isa.Mov64Imm(isa.R0, 1), isa.Exit())
	}
	starts := [2]int{-1, -1}
	for i, at := range g.calls {
		fn := g.want[i]
		if starts[fn] < 0 {
			starts[fn] = len(g.insns)
			s := &generator{r: r, sub: true}
			s.prologue()
			s.block(2 + r.IntN(8))
			s.emit(isa.ALU64(isa.Xor, isa.R0, isa.R9), isa.Exit())
			g.emit(s.insns...)
		}
		g.insns[at] = isa.CallLocal(int32(isa.Slots(g.insns[at+1 : starts[fn]])))
	}
	return g.insns
}
