package jit

import "encoding/binary"

// This file is an assembler for the part of A64 that the code generator uses.
// Operands are in the order of the Arm manual: destination first. A flag w
// stands for 64 bits, else 32 (which clears the upper half of the destination).

// An a64reg is a general register; 31 is the zero register, or the stack pointer
// in addresses, which is not used.
type a64reg uint32

const (
	xzr  a64reg = 31
	a64L a64reg = 30 // the link register
)

// An a64cc is a condition code.
type a64cc uint32

const (
	a64EQ a64cc = 0x0
	a64NE a64cc = 0x1
	a64HS a64cc = 0x2
	a64LO a64cc = 0x3
	a64MI a64cc = 0x4
	a64PL a64cc = 0x5
	a64HI a64cc = 0x8
	a64LS a64cc = 0x9
	a64GE a64cc = 0xa
	a64LT a64cc = 0xb
	a64GT a64cc = 0xc
	a64LE a64cc = 0xd
)

// Opcodes of data processing with three registers, and of two-source operations.
const (
	a64Add  uint32 = 0x0b000000
	a64Sub  uint32 = 0x4b000000
	a64Subs uint32 = 0x6b000000
	a64And  uint32 = 0x0a000000
	a64Ands uint32 = 0x6a000000
	a64Orr  uint32 = 0x2a000000
	a64Eor  uint32 = 0x4a000000
	a64UDiv uint32 = 0x1ac00800
	a64SDiv uint32 = 0x1ac00c00
	a64LslV uint32 = 0x1ac02000
	a64LsrV uint32 = 0x1ac02400
	a64AsrV uint32 = 0x1ac02800
)

type a64fixup struct {
	at, bits, shift int // the field of the distance in words
	label           int
}

// An a64asm collects code.
type a64asm struct {
	code   []byte
	labels []int
	fixups []a64fixup
	far    bool // the code is longer than conditional branches reach
}

func (a *a64asm) label() int {
	a.labels = append(a.labels, -1)
	return len(a.labels) - 1
}

func (a *a64asm) bind(l int) { a.labels[l] = len(a.code) }

// link fills in the distances, and reports whether all fit.
func (a *a64asm) link() bool {
	for _, f := range a.fixups {
		d := (a.labels[f.label] - f.at) / 4
		if limit := 1 << (f.bits - 1); d < -limit || d >= limit {
			return false
		}
		w := binary.LittleEndian.Uint32(a.code[f.at:])
		w |= uint32(d) & (1<<f.bits - 1) << f.shift
		binary.LittleEndian.PutUint32(a.code[f.at:], w)
	}
	return true
}

func (a *a64asm) word(w uint32) { a.code = binary.LittleEndian.AppendUint32(a.code, w) }

func sf(w bool) uint32 {
	if w {
		return 1 << 31
	}
	return 0
}

// op is d = n op m.
func (a *a64asm) op(w bool, op uint32, d, n, m a64reg) {
	a.word(sf(w) | op | uint32(m)<<16 | uint32(n)<<5 | uint32(d))
}

func (a *a64asm) mov(w bool, d, m a64reg) { a.op(w, a64Orr, d, xzr, m) }

// addImm is d = n + v, subsImm d = n - v with flags; v is below 4096.
func (a *a64asm) addImm(w bool, d, n a64reg, v uint32) {
	a.word(sf(w) | 0x11000000 | v<<10 | uint32(n)<<5 | uint32(d))
}

func (a *a64asm) subImm(w bool, d, n a64reg, v uint32) {
	a.word(sf(w) | 0x51000000 | v<<10 | uint32(n)<<5 | uint32(d))
}

func (a *a64asm) subsImm(w bool, d, n a64reg, v uint32) {
	a.word(sf(w) | 0x71000000 | v<<10 | uint32(n)<<5 | uint32(d))
}

// addWord is d = n + the low half of m.
func (a *a64asm) addWord(d, n, m a64reg) {
	a.word(0x8b204000 | uint32(m)<<16 | uint32(n)<<5 | uint32(d))
}

// testMask is tst n, mask for a mask of the lowest bits.
func (a *a64asm) testMask(n a64reg, bits uint32) {
	a.word(0xf2400000 | (bits-1)<<10 | uint32(n)<<5 | uint32(xzr))
}

// movImm is d = v in as few moves as there are halfwords unlike the others.
func (a *a64asm) movImm(d a64reg, v uint64) {
	zeros, ones := 0, 0
	for s := 0; s < 64; s += 16 {
		switch uint16(v >> s) {
		case 0:
			zeros++
		case 0xffff:
			ones++
		}
	}
	first, fill := uint32(0xd2800000), uint16(0) // movz
	if ones > zeros {
		first, fill = 0x92800000, 0xffff // movn
	}
	done := false
	for s := 0; s < 64; s += 16 {
		h := uint16(v >> s)
		field := uint32(s/16)<<21 | uint32(d)
		switch {
		case h == fill:
		case !done:
			a.word(first | field | uint32(h^fill)<<5)
			done = true
		default:
			a.word(0xf2800000 | field | uint32(h)<<5)
		}
	}
	if !done {
		a.word(first | uint32(d))
	}
}

func (a *a64asm) mul(w bool, d, n, m a64reg) {
	a.word(sf(w) | 0x1b007c00 | uint32(m)<<16 | uint32(n)<<5 | uint32(d))
}

// msub is d = x - n*m.
func (a *a64asm) msub(w bool, d, n, m, x a64reg) {
	a.word(sf(w) | 0x1b008000 | uint32(m)<<16 | uint32(x)<<10 | uint32(n)<<5 | uint32(d))
}

// bitfield is ubfm, or sbfm if signed.
func (a *a64asm) bitfield(w, signed bool, d, n a64reg, immr, imms uint32) {
	op := uint32(0x53000000)
	if signed {
		op = 0x13000000
	}
	if w {
		op |= 1 << 22
	}
	a.word(sf(w) | op | immr<<16 | imms<<10 | uint32(n)<<5 | uint32(d))
}

// rev reverses bytes: within halfwords (16), the low word (32), all (64).
func (a *a64asm) rev(bits int, d, n a64reg) {
	op := map[int]uint32{16: 0x5ac00400, 32: 0x5ac00800, 64: 0xdac00c00}[bits]
	a.word(op | uint32(n)<<5 | uint32(d))
}

func a64Size(size int) uint32 {
	return map[int]uint32{1: 0, 2: 1 << 30, 4: 2 << 30, 8: 3 << 30}[size]
}

// A64 loads and stores differ in one field.
const (
	a64Store  uint32 = 0
	a64Load   uint32 = 1 << 22
	a64LoadSX uint32 = 2 << 22 // to 64 bits
)

// accessReg accesses n + m, or n + the low half of m if narrow.
func (a *a64asm) accessReg(kind uint32, size int, t, n, m a64reg, narrow bool) {
	option := uint32(0x6000)
	if narrow {
		option = 0x4000
	}
	a.word(a64Size(size) | 0x38200800 | kind | option | uint32(m)<<16 | uint32(n)<<5 | uint32(t))
}

// accessImm accesses n + off, if there is an encoding for off.
func (a *a64asm) accessImm(kind uint32, size int, t, n a64reg, off int) bool {
	switch {
	case off >= 0 && off%size == 0 && off/size < 4096:
		a.word(a64Size(size) | 0x39000000 | kind | uint32(off/size)<<10 | uint32(n)<<5 | uint32(t))
	case off >= -256 && off < 256:
		a.word(a64Size(size) | 0x38000000 | kind | uint32(off)&0x1ff<<12 | uint32(n)<<5 | uint32(t))
	default:
		return false
	}
	return true
}

// push is *--n = t, pop is t = *n++, of 64 bits.
func (a *a64asm) push(t, n a64reg) { a.word(0xf81f8c00 | uint32(n)<<5 | uint32(t)) }

func (a *a64asm) pop(t, n a64reg) { a.word(0xf8408400 | uint32(n)<<5 | uint32(t)) }

// exclusive is ldaxr, stlxr (with status s), ldar and stlr.
func (a *a64asm) ldaxr(size int, t, n a64reg) {
	a.word(a64Size(size) | 0x085ffc00 | uint32(n)<<5 | uint32(t))
}

func (a *a64asm) stlxr(size int, s, t, n a64reg) {
	a.word(a64Size(size) | 0x0800fc00 | uint32(s)<<16 | uint32(n)<<5 | uint32(t))
}

func (a *a64asm) ldar(size int, t, n a64reg) {
	a.word(a64Size(size) | 0x08dffc00 | uint32(n)<<5 | uint32(t))
}

func (a *a64asm) stlr(size int, t, n a64reg) {
	a.word(a64Size(size) | 0x089ffc00 | uint32(n)<<5 | uint32(t))
}

// barrier is dmb ish.
func (a *a64asm) barrier() { a.word(0xd5033bbf) }

func (a *a64asm) branch(op uint32, bits, shift, l int) {
	a.fixups = append(a.fixups, a64fixup{len(a.code), bits, shift, l})
	a.word(op)
}

func (a *a64asm) b(l int) { a.branch(0x14000000, 26, 0, l) }

func (a *a64asm) bl(l int) { a.branch(0x94000000, 26, 0, l) }

func (a *a64asm) bcc(c a64cc, l int) {
	if a.far {
		a.word(0x54000040 | uint32(c^1))
		a.b(l)
		return
	}
	a.branch(0x54000000|uint32(c), 19, 5, l)
}

// cbnz jumps to a near place.
func (a *a64asm) cbnz(w bool, t a64reg, l int) { a.branch(sf(w)|0x35000000|uint32(t), 19, 5, l) }

// adrNext is d = the address n words on.
func (a *a64asm) adrNext(d a64reg, n uint32) { a.word(0x10000000 | n<<5 | uint32(d)) }

func (a *a64asm) ret() { a.word(0xd65f03c0) }

func (a *a64asm) br(n a64reg) { a.word(0xd61f0000 | uint32(n)<<5) }
