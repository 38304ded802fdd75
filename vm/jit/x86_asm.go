package jit

import "encoding/binary"

// This file is an assembler for the part of x86-64 that the code generator uses.
// Names of methods are the instruction's, with operands in Intel's order:
// destination first. Methods that end in 64 take a flag w: 64 bits, else 32
// (which clears the upper half of a destination register).

// An x86reg is a general register by its number in encodings.
type x86reg uint8

const (
	rax x86reg = iota
	rcx
	rdx
	rbx
	rsp
	rbp
	rsi
	rdi
	r8
	r9
	r10
	r11
	r12
	r13
	r14
	r15
	noReg // as an index: none
)

// An x86mem is a memory operand: base + index + disp.
type x86mem struct {
	base, index x86reg
	disp        int32
}

// The operations of the instruction group with opcodes 00 to 3f (and 80 to 83),
// by the three bits that tell them apart.
type x86op uint8

const (
	opAdd x86op = 0
	opOr  x86op = 1
	opAnd x86op = 4
	opSub x86op = 5
	opXor x86op = 6
	opCmp x86op = 7
)

// The shifts of opcodes c1 and d3.
const (
	opRol uint8 = 0
	opShl uint8 = 4
	opShr uint8 = 5
	opSar uint8 = 7
)

// An x86cc is a condition code.
type x86cc uint8

const (
	ccB  x86cc = 0x2
	ccAE x86cc = 0x3
	ccE  x86cc = 0x4
	ccNE x86cc = 0x5
	ccBE x86cc = 0x6
	ccA  x86cc = 0x7
	ccS  x86cc = 0x8
	ccNS x86cc = 0x9
	ccL  x86cc = 0xc
	ccGE x86cc = 0xd
	ccLE x86cc = 0xe
	ccG  x86cc = 0xf
)

func (c x86cc) negate() x86cc { return c ^ 1 }

// An x86label is a place in the code, which may still be unknown.
type x86label int

type x86fixup struct {
	at    int // of the distance, which is relative to its own end
	size  int // 1 or 4
	label x86label
}

// An x86asm collects code. Jumps to places that are not known yet are short only
// if a previous pass over the same code, whose distances were no shorter, says so.
type x86asm struct {
	code   []byte
	labels []int // offset, or -1
	fixups []x86fixup
	jumps  []int   // offsets of the jumps that could be short
	before *x86asm // the previous pass
}

func (a *x86asm) label() x86label {
	a.labels = append(a.labels, -1)
	return x86label(len(a.labels) - 1)
}

func (a *x86asm) bind(l x86label) { a.labels[l] = len(a.code) }

// link fills in the distances. It reports false if a short jump turns out to be
// too short.
func (a *x86asm) link() bool {
	for _, f := range a.fixups {
		d := a.labels[f.label] - (f.at + f.size)
		if f.size == 1 {
			if d != int(int8(d)) {
				return false
			}
			a.code[f.at] = byte(d)
			continue
		}
		binary.LittleEndian.PutUint32(a.code[f.at:], uint32(d))
	}
	return true
}

func (a *x86asm) bytes(b ...byte) { a.code = append(a.code, b...) }

func (a *x86asm) imm32(v int32) { a.code = binary.LittleEndian.AppendUint32(a.code, uint32(v)) }

// rex emits a REX prefix if one is needed; force is for byte registers, where the
// prefix tells sil and its like from ah.
func (a *x86asm) rex(w bool, reg, index, base x86reg, force bool) {
	b := byte(0x40)
	if w {
		b |= 8
	}
	b |= byte(reg>>3&1)<<2 | byte(index>>3&1)<<1 | byte(base>>3&1)
	if b != 0x40 || force {
		a.bytes(b)
	}
}

// rr emits op with two registers.
func (a *x86asm) rr(w, force bool, reg, rm x86reg, op ...byte) {
	a.rex(w, reg, 0, rm, force)
	a.bytes(op...)
	a.bytes(0xc0 | byte(reg&7)<<3 | byte(rm&7))
}

// rm emits op with a register and a memory operand.
func (a *x86asm) rm(w, force bool, reg x86reg, m x86mem, op ...byte) {
	index := m.index
	if index == noReg {
		index = rsp // which as an index means none
	}
	a.rex(w, reg, index, m.base, force)
	a.bytes(op...)
	a.modrm(reg, m)
}

func (a *x86asm) modrm(reg x86reg, m x86mem) {
	mod := byte(0x80)
	switch {
	case m.disp == 0 && m.base&7 != rbp:
		mod = 0
	case m.disp == int32(int8(m.disp)):
		mod = 0x40
	}
	if m.index == noReg && m.base&7 != rsp {
		a.bytes(mod | byte(reg&7)<<3 | byte(m.base&7))
	} else {
		index := m.index
		if index == noReg {
			index = rsp
		}
		a.bytes(mod|byte(reg&7)<<3|4, byte(index&7)<<3|byte(m.base&7))
	}
	switch mod {
	case 0x40:
		a.bytes(byte(m.disp))
	case 0x80:
		a.imm32(m.disp)
	}
}

func (a *x86asm) mov64(w bool, dst, src x86reg) {
	a.rr(w, false, src, dst, 0x89)
}

// movImm64 is dst = v by the shortest encoding that leaves the flags alone.
func (a *x86asm) movImm64(dst x86reg, v int64) {
	switch {
	case v == int64(uint32(v)):
		a.rex(false, 0, 0, dst, false)
		a.bytes(0xb8 | byte(dst&7))
		a.imm32(int32(v))
	case v == int64(int32(v)):
		a.movSigned(true, dst, int32(v))
	default:
		a.rex(true, 0, 0, dst, false)
		a.bytes(0xb8 | byte(dst&7))
		a.code = binary.LittleEndian.AppendUint64(a.code, uint64(v))
	}
}

// movSigned is dst = v, sign extended to 64 bits if w, by one encoding for all v.
func (a *x86asm) movSigned(w bool, dst x86reg, v int32) {
	a.rr(w, false, 0, dst, 0xc7)
	a.imm32(v)
}

// zero is dst = 0; it changes the flags.
func (a *x86asm) zero(dst x86reg) { a.rr(false, false, dst, dst, 0x31) }

func (a *x86asm) op64(w bool, op x86op, dst, src x86reg) {
	a.rr(w, false, src, dst, byte(op)<<3|1)
}

func (a *x86asm) opImm64(w bool, op x86op, dst x86reg, v int32) {
	if v == int32(int8(v)) {
		a.rr(w, false, x86reg(op), dst, 0x83)
		a.bytes(byte(v))
		return
	}
	a.opImm32(w, op, dst, v)
}

// opImm32 is opImm64 by one encoding for all v.
func (a *x86asm) opImm32(w bool, op x86op, dst x86reg, v int32) {
	a.rr(w, false, x86reg(op), dst, 0x81)
	a.imm32(v)
}

// opLoad64 is op dst, m.
func (a *x86asm) opLoad64(w bool, op x86op, dst x86reg, m x86mem) {
	a.rm(w, false, dst, m, byte(op)<<3|3)
}

// lockOp64 is lock op m, src.
func (a *x86asm) lockOp64(w bool, op x86op, m x86mem, src x86reg) {
	a.bytes(0xf0)
	a.rm(w, false, src, m, byte(op)<<3|1)
}

func (a *x86asm) test64(w bool, x, y x86reg) { a.rr(w, false, y, x, 0x85) }

func (a *x86asm) testImm64(w bool, x x86reg, v int32) {
	a.rr(w, false, 0, x, 0xf7)
	a.imm32(v)
}

// testByte is test x, v on the low byte of x.
func (a *x86asm) testByte(x x86reg, v byte) {
	a.rr(false, x >= rsp, 0, x, 0xf6)
	a.bytes(v)
}

func (a *x86asm) imul64(w bool, dst, src x86reg) { a.rr(w, false, dst, src, 0x0f, 0xaf) }

func (a *x86asm) imulImm64(w bool, dst, src x86reg, v int32) {
	a.rr(w, false, dst, src, 0x69)
	a.imm32(v)
}

func (a *x86asm) neg64(w bool, dst x86reg) { a.rr(w, false, 3, dst, 0xf7) }

// div64 divides rdx:rax.
func (a *x86asm) div64(w, signed bool, by x86reg) {
	digit := x86reg(6)
	if signed {
		digit = 7
	}
	a.rr(w, false, digit, by, 0xf7)
}

// cqo sign-extends rax into rdx.
func (a *x86asm) cqo(w bool) {
	a.rex(w, 0, 0, 0, false)
	a.bytes(0x99)
}

func (a *x86asm) shiftImm64(w bool, op uint8, dst x86reg, n uint8) {
	a.rr(w, false, x86reg(op), dst, 0xc1)
	a.bytes(n)
}

// shiftCL64 shifts by cl.
func (a *x86asm) shiftCL64(w bool, op uint8, dst x86reg) { a.rr(w, false, x86reg(op), dst, 0xd3) }

// shiftX64 is shlx, shrx, sarx of BMI2: dst = src shifted by the register n.
func (a *x86asm) shiftX64(w bool, op uint8, dst, src, n x86reg) {
	pp := map[uint8]byte{opShl: 1, opSar: 2, opShr: 3}[op]
	b1 := byte(0x42) // x is not used, map 0f38
	if dst < r8 {
		b1 |= 0x80
	}
	if src < r8 {
		b1 |= 0x20
	}
	b2 := pp | byte(^n&15)<<3
	if w {
		b2 |= 0x80
	}
	a.bytes(0xc4, b1, b2, 0xf7, 0xc0|byte(dst&7)<<3|byte(src&7))
}

func (a *x86asm) bswap64(w bool, dst x86reg) {
	a.rex(w, 0, 0, dst, false)
	a.bytes(0x0f, 0xc8|byte(dst&7))
}

// rolWord rotates the low 16 bits by n.
func (a *x86asm) rolWord(dst x86reg, n uint8) {
	a.bytes(0x66)
	a.rr(false, false, x86reg(opRol), dst, 0xc1)
	a.bytes(n)
}

// extend is dst = the low size bytes of src, sign extended to 64 (w) or 32 bits,
// or zero extended to 64.
func (a *x86asm) extend(w, signed bool, size int, dst, src x86reg) {
	switch {
	case size == 4 && signed && w:
		a.rr(true, false, dst, src, 0x63)
	case size == 4:
		a.mov64(false, dst, src)
	case signed:
		a.rr(w, size == 1 && src >= rsp, dst, src, 0x0f, map[int]byte{1: 0xbe, 2: 0xbf}[size])
	default:
		a.rr(false, size == 1 && src >= rsp, dst, src, 0x0f, map[int]byte{1: 0xb6, 2: 0xb7}[size])
	}
}

// load is dst = size bytes at m, zero extended, or sign extended to 64 bits.
func (a *x86asm) load(signed bool, size int, dst x86reg, m x86mem) {
	switch {
	case size == 8:
		a.rm(true, false, dst, m, 0x8b)
	case size == 4 && signed:
		a.rm(true, false, dst, m, 0x63)
	case size == 4:
		a.rm(false, false, dst, m, 0x8b)
	case size == 2 && signed:
		a.rm(true, false, dst, m, 0x0f, 0xbf)
	case size == 2:
		a.rm(false, false, dst, m, 0x0f, 0xb7)
	case signed:
		a.rm(true, false, dst, m, 0x0f, 0xbe)
	default:
		a.rm(false, false, dst, m, 0x0f, 0xb6)
	}
}

func (a *x86asm) store(size int, m x86mem, src x86reg) {
	switch size {
	case 1:
		a.rm(false, src >= rsp, src, m, 0x88)
	case 2:
		a.bytes(0x66)
		a.rm(false, false, src, m, 0x89)
	default:
		a.rm(size == 8, false, src, m, 0x89)
	}
}

// storeImm stores size bytes of v, sign extended.
func (a *x86asm) storeImm(size int, m x86mem, v int32) {
	switch size {
	case 1:
		a.rm(false, false, 0, m, 0xc6)
		a.bytes(byte(v))
	case 2:
		a.bytes(0x66)
		a.rm(false, false, 0, m, 0xc7)
		a.bytes(byte(v), byte(v>>8))
	default:
		a.rm(size == 8, false, 0, m, 0xc7)
		a.imm32(v)
	}
}

func (a *x86asm) lea(dst x86reg, m x86mem) { a.rm(true, false, dst, m, 0x8d) }

// leaLabel is dst = the address of l.
func (a *x86asm) leaLabel(dst x86reg, l x86label) {
	a.rex(true, dst, 0, 0, false)
	a.bytes(0x8d, byte(dst&7)<<3|5)
	a.distance(l)
}

func (a *x86asm) lockXadd64(w bool, m x86mem, src x86reg) {
	a.bytes(0xf0)
	a.rm(w, false, src, m, 0x0f, 0xc1)
}

func (a *x86asm) xchg64(w bool, m x86mem, src x86reg) { a.rm(w, false, src, m, 0x87) }

func (a *x86asm) lockCmpxchg64(w bool, m x86mem, src x86reg) {
	a.bytes(0xf0)
	a.rm(w, false, src, m, 0x0f, 0xb1)
}

// decMem is sub m, 1 in 64 bits.
func (a *x86asm) decMem(m x86mem) {
	a.rm(true, false, x86reg(opSub), m, 0x83)
	a.bytes(1)
}

// cmpMem compares size bytes (4 or 8) at m with v.
func (a *x86asm) cmpMem(size int, m x86mem, v int8) {
	a.rm(size == 8, false, x86reg(opCmp), m, 0x83)
	a.bytes(byte(v))
}

func (a *x86asm) push(r x86reg) {
	a.rex(false, 0, 0, r, false)
	a.bytes(0x50 | byte(r&7))
}

func (a *x86asm) pop(r x86reg) {
	a.rex(false, 0, 0, r, false)
	a.bytes(0x58 | byte(r&7))
}

func (a *x86asm) pushImm(v int32) {
	a.bytes(0x68)
	a.imm32(v)
}

func (a *x86asm) ret() { a.bytes(0xc3) }

func (a *x86asm) pause() { a.bytes(0xf3, 0x90) }

func (a *x86asm) lfence() { a.bytes(0x0f, 0xae, 0xe8) }

// distance emits the 32-bit distance to l.
func (a *x86asm) distance(l x86label) {
	a.fixups = append(a.fixups, x86fixup{len(a.code), 4, l})
	a.imm32(0)
}

func (a *x86asm) call(l x86label) {
	a.bytes(0xe8)
	a.distance(l)
}

// short reports whether a jump of two bytes from here reaches l; long is the
// length of the other one.
func (a *x86asm) short(l x86label, long int) bool {
	n := len(a.jumps)
	a.jumps = append(a.jumps, len(a.code))
	var d int
	switch to := a.labels[l]; {
	case to >= 0:
		d = to - (len(a.code) + 2)
	case a.before != nil:
		d = a.before.labels[l] - (a.before.jumps[n] + long)
	default:
		return false
	}
	return d == int(int8(d))
}

func (a *x86asm) jmp(l x86label) {
	if a.short(l, 5) {
		a.bytes(0xeb)
		a.shortDistance(l)
		return
	}
	a.bytes(0xe9)
	a.distance(l)
}

// jmpReg jumps to the address in r.
func (a *x86asm) jmpReg(r x86reg) {
	a.rex(false, 0, 0, r, false)
	a.bytes(0xff, 0xe0|byte(r&7))
}

func (a *x86asm) jcc(c x86cc, l x86label) {
	if a.short(l, 6) {
		a.bytes(0x70 | byte(c))
		a.shortDistance(l)
		return
	}
	a.bytes(0x0f, 0x80|byte(c))
	a.distance(l)
}

func (a *x86asm) shortDistance(l x86label) {
	a.fixups = append(a.fixups, x86fixup{len(a.code), 1, l})
	a.bytes(0)
}
