package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The registers with a meaning, by their numbers in encodings.
const (
	xAX, xCX, xDX, xSP, xBP    = 0, 1, 2, 4, 5
	xBudget, xState, xScratch  = 9, 10, 11
	xBase                      = 12
	xNone                      = -1
	minCageOffset, maxCageOffs = -1 << 15, 1<<15 - 1
)

// Operations of group 1, and of group 2 and 3 below.
const (
	xAdd, xOr, xAnd, xSub, xXor, xCmp = 0, 1, 4, 5, 6, 7
	xShr                              = 5
	xTest, xNeg, xDiv, xIDiv          = 0, 3, 6, 7
)

// form is what the operand bytes of an opcode are, and what it does with them.
type form uint8

const (
	fALU      form = 1 + iota // rm op= reg; writes rm
	fALULoad                  // reg op= rm; writes reg
	fCompare                  // reads both
	fMov                      // rm = reg
	fLoad                     // reg = rm
	fALUImm                   // group 1 (80 to 83)
	fMovImm                   // rm = imm (c6, c7)
	fRegImm                   // reg in the opcode = imm (b8 to bf)
	fShift                    // group 2, by an immediate
	fShiftCL                  // group 2, by cl
	fUnary                    // group 3 (f6, f7)
	fPush                     // 50 to 57
	fPop                      // 58 to 5f
	fPushImm                  // 68
	fLea                      // 8d
	fExchange                 // xchg
	fSignA                    // cdq, cqo
	fIMul                     // reg *= rm
	fIMulImm                  // reg = rm * imm
	fZX                       // movzx
	fSX                       // movsx
	fXadd
	fCmpxchg
	fSwap // bswap
	fShiftX
	fFence
	fPause
	fTrap
	fRet
	fJmpReg
	fCall
	fJmp
	fJcc
)

// xinsn is one decoded instruction.
type xinsn struct {
	size              int // of its encoding
	form              form
	wide, lock, short bool // 64 bits; a lock prefix; 16 bits
	bytes             int  // of the memory operand
	op                int  // the digit in the ModRM byte, or the opcode's own
	alu               int  // which of add, or, ..., cmp, of opcodes below 40
	reg               int
	rm                int // a register, or xNone
	base, index       int // or xNone
	rip               bool
	disp              int64
	imm               int64
	target            int // of branches, and of operands relative to rip
}

func (i *xinsn) memory() bool { return i.rm == xNone }

var errCut = errors.New("the last instruction is cut off")

type xreader struct {
	b   []byte
	pos int
}

func (r *xreader) next() (byte, error) {
	if r.pos >= len(r.b) {
		return 0, errCut
	}
	r.pos++
	return r.b[r.pos-1], nil
}

func (r *xreader) signed(n int) (int64, error) {
	if r.pos+n > len(r.b) {
		return 0, errCut
	}
	b := r.b[r.pos:]
	r.pos += n
	switch n {
	case 1:
		return int64(int8(b[0])), nil
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b))), nil
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b))), nil
	}
	return int64(binary.LittleEndian.Uint64(b)), nil
}

// operands reads a ModRM byte and what follows it.
func (r *xreader) operands(i *xinsn, rex byte) error {
	m, err := r.next()
	if err != nil {
		return err
	}
	i.op = int(m >> 3 & 7)
	i.reg = i.op | int(rex>>2&1)<<3
	i.rm, i.base, i.index = xNone, xNone, xNone
	mod, low := m>>6, int(m&7)
	if mod == 3 {
		i.rm = low | int(rex&1)<<3
		return nil
	}
	i.base = low | int(rex&1)<<3
	if low == 4 {
		sib, err := r.next()
		if err != nil {
			return err
		}
		if sib>>6 != 0 {
			return errors.New("a scaled index")
		}
		i.base = int(sib&7) | int(rex&1)<<3
		i.index = int(sib>>3&7) | int(rex>>1&1)<<3
		if i.index == xSP {
			i.index = xNone
		}
		low = int(sib & 7)
	} else if mod == 0 && low == 5 {
		i.rip, i.base = true, xNone
		i.disp, err = r.signed(4)
		return err
	}
	switch {
	case mod == 0 && low == 5:
		return errors.New("an address without a base")
	case mod == 1:
		i.disp, err = r.signed(1)
	case mod == 2:
		i.disp, err = r.signed(4)
	}
	return err
}

// decode decodes the instruction at the start of b, at offset at.
func decode(b []byte, at int) (xinsn, error) {
	i, err := decodeBody(&xreader{b: b}, at)
	if err != nil {
		return i, fmt.Errorf("% x: %w", b[:min(len(b), 8)], err)
	}
	return i, nil
}

func decodeBody(r *xreader, at int) (i xinsn, err error) {
	i.rm, i.base, i.index = 0, xNone, xNone
	var rex byte
	var c byte
	pause := false
prefixes:
	for {
		if c, err = r.next(); err != nil {
			return i, err
		}
		switch {
		case c == 0xf0:
			i.lock = true
		case c == 0x66:
			i.short = true
		case c == 0xf3:
			pause = true
		default:
			break prefixes
		}
	}
	if c&0xf0 == 0x40 {
		rex = c
		if c, err = r.next(); err != nil {
			return i, err
		}
	}
	i.wide = rex&8 != 0
	i.bytes = 4
	switch {
	case i.wide:
		i.bytes = 8
	case i.short:
		i.bytes = 2
	}
	immBytes := 4
	if i.short {
		immBytes = 2
	}
	fail := func() (xinsn, error) { return i, errors.New("not an instruction that the JIT uses") }
	branch := func(f form, n int) (xinsn, error) {
		i.form = f
		d, err := r.signed(n)
		i.target = at + r.pos + int(d)
		i.size = r.pos
		return i, err
	}
	imm := 0
	modrm := true
	if pause {
		if c != 0x90 {
			return fail()
		}
		i.form, i.size = fPause, r.pos
		return i, nil
	}
	switch {
	case c < 0x40 && c&7 == 1:
		i.form, i.alu = fALU, int(c>>3)
		if c>>3 == 7 {
			i.form = fCompare
		}
	case c < 0x40 && c&7 == 3:
		i.form, i.alu = fALULoad, int(c>>3)
		if c>>3 == 7 {
			i.form = fCompare
		}
	case c == 0x84 || c == 0x85:
		i.form = fCompare
		if c == 0x84 {
			i.bytes = 1
		}
	case c == 0x81:
		i.form, imm = fALUImm, immBytes
	case c == 0x83:
		i.form, imm = fALUImm, 1
	case c == 0x88:
		i.form, i.bytes = fMov, 1
	case c == 0x89:
		i.form = fMov
	case c == 0x8b:
		i.form = fLoad
	case c == 0x63:
		i.form, i.bytes = fSX, 4
	case c == 0xc6:
		i.form, imm, i.bytes = fMovImm, 1, 1
	case c == 0xc7:
		i.form, imm = fMovImm, immBytes
	case c&0xf8 == 0xb8:
		i.form, modrm, imm = fRegImm, false, 4
		i.reg = int(c&7) | int(rex&1)<<3
		if i.wide {
			imm = 8
		}
	case c == 0xc1:
		i.form, imm = fShift, 1
	case c == 0xd3:
		i.form = fShiftCL
	case c == 0xf6:
		i.form, i.bytes = fUnary, 1
	case c == 0xf7:
		i.form = fUnary
	case c&0xf8 == 0x50, c&0xf8 == 0x58:
		i.form, modrm = fPush, false
		if c >= 0x58 {
			i.form = fPop
		}
		i.reg = int(c&7) | int(rex&1)<<3
	case c == 0x68:
		i.form, modrm, imm = fPushImm, false, 4
	case c == 0x8d:
		i.form = fLea
	case c == 0x87:
		i.form = fExchange
	case c == 0x99:
		i.form, modrm = fSignA, false
	case c == 0x69:
		i.form, imm = fIMulImm, 4
	case c == 0xcc:
		i.form, modrm = fTrap, false
	case c == 0xc3:
		i.form, modrm = fRet, false
	case c == 0xff:
		i.form = fJmpReg
	case c == 0xe8:
		return branch(fCall, 4)
	case c == 0xe9:
		return branch(fJmp, 4)
	case c == 0xeb:
		return branch(fJmp, 1)
	case c&0xf0 == 0x70:
		return branch(fJcc, 1)
	case c == 0xc4:
		return decodeVEX(r, i)
	case c == 0x0f:
		if c, err = r.next(); err != nil {
			return i, err
		}
		switch {
		case c&0xf0 == 0x80:
			return branch(fJcc, 4)
		case c == 0xaf:
			i.form = fIMul
		case c == 0xb6, c == 0xb7:
			i.form, i.bytes = fZX, 1<<(c-0xb6)
		case c == 0xbe, c == 0xbf:
			i.form, i.bytes = fSX, 1<<(c-0xbe)
		case c == 0xc1:
			i.form = fXadd
		case c == 0xb1:
			i.form = fCmpxchg
		case c&0xf8 == 0xc8:
			i.form, modrm = fSwap, false
			i.reg = int(c&7) | int(rex&1)<<3
		case c == 0xae:
			if c, err = r.next(); err != nil || c != 0xe8 {
				return fail()
			}
			i.form, modrm = fFence, false
		default:
			return fail()
		}
	default:
		return fail()
	}
	if modrm {
		if err := r.operands(&i, rex); err != nil {
			return i, err
		}
	}
	if i.form == fUnary && i.op == xTest {
		imm = 4
		if i.bytes == 1 {
			imm = 1
		}
	}
	if imm > 0 {
		if i.imm, err = r.signed(imm); err != nil {
			return i, err
		}
	}
	i.size = r.pos
	if i.rip {
		i.target = at + r.pos + int(i.disp)
	}
	return i, nil
}

// decodeVEX decodes shlx, shrx and sarx on registers.
func decodeVEX(r *xreader, i xinsn) (xinsn, error) {
	b1, err1 := r.next()
	b2, err2 := r.next()
	op, err3 := r.next()
	m, err4 := r.next()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return i, errCut
	}
	pp := b2 & 3
	if b1&0x1f != 2 || b1&0x40 == 0 || op != 0xf7 || pp == 0 || b2&4 != 0 || m>>6 != 3 {
		return i, errors.New("not an instruction that the JIT uses")
	}
	i.form = fShiftX
	i.wide = b2&0x80 != 0
	i.op = []int{0, 4, 7, 5}[pp] // as in group 2: shl, sar, shr
	i.reg = int(m>>3&7) | int(^b1>>7&1)<<3
	i.rm = int(m&7) | int(^b1>>5&1)<<3
	i.size = r.pos
	return i, nil
}

// AMD64 audits code for x86-64. Its error names the offset of what is wrong.
func AMD64(c Code) error {
	insns := map[int]xinsn{}
	starts := map[int]bool{}
	for at := 0; at < len(c.Text); {
		i, err := decode(c.Text[at:], at)
		if err != nil {
			return fmt.Errorf("%#x: %w", at, err)
		}
		insns[at], starts[at] = i, true
		at += i.size
	}
	a := &amd64{c: c, insns: insns}
	var entries []edge
	for _, e := range c.Starts {
		entries = append(entries, edge{e, a.hosts(0)})
	}
	for _, e := range c.Entries {
		entries = append(entries, edge{e, a.fresh(0)})
	}
	return analyse(entries, starts, a.step)
}

type amd64 struct {
	c     Code
	insns map[int]xinsn
}

// fresh is what is known where anything may come from: that the frame pointer
// leads into the cage, because the host checked it and nothing else writes it.
func (a *amd64) fresh(depth int) flow {
	f := flow{depth: depth}
	f.regs[xBP] = inCage
	return f
}

// hosts is what is known where the host enters: nothing.
func (a *amd64) hosts(depth int) flow { return flow{depth: depth} }

func (a *amd64) step(at int, f flow) ([]edge, error) {
	i := a.insns[at]
	next := at + i.size
	if err := a.operand(&i, &f); err != nil {
		return nil, err
	}
	switch i.form {
	case fTrap:
		return nil, errors.New("a trap can be reached")
	case fRet:
		if f.depth != 0 {
			return nil, errors.New("returns with words left on the stack, or more taken from it than were there")
		}
		return nil, nil
	case fJmp:
		return []edge{{i.target, f}}, nil
	case fJmpReg:
		if i.op != 4 || i.memory() || f.depth != 0 || f.regs[i.rm] != target {
			return nil, errors.New("jumps to what is not the target of a tail call")
		}
		return nil, nil
	case fJcc:
		return []edge{{i.target, f}, {next, f}}, nil
	case fCall:
		return []edge{{i.target, a.fresh(0)}, {next, a.fresh(f.depth)}}, nil
	}
	if i.lock && !(i.memory() && (i.form == fALU || i.form == fXadd || i.form == fCmpxchg)) {
		return nil, errors.New("a lock prefix where none belongs")
	}
	edges := []edge{{next, f}}
	out := &edges[0].flow
	if i.form == fLea && i.rip {
		// The address of a place where the run goes on.
		edges = append(edges, edge{i.target, a.hosts(f.depth)})
	}
	if err := a.effect(&i, &f, out); err != nil {
		return nil, err
	}
	return edges, nil
}

// operand checks the memory operand.
func (a *amd64) operand(i *xinsn, f *flow) error {
	switch i.form {
	case fALU, fALULoad, fCompare, fMov, fLoad, fALUImm, fMovImm, fShift, fShiftCL, fUnary, fExchange, fIMul, fIMulImm, fZX, fSX, fXadd, fCmpxchg:
	default:
		return nil
	}
	if !i.memory() {
		return nil
	}
	switch {
	case i.rip:
		return errors.New("data relative to the code")
	case i.base == xState && i.index == xNone:
		if i.disp < 0 || int(i.disp)+i.bytes > a.c.State.Size {
			return fmt.Errorf("the State has nothing at %d", i.disp)
		}
		return nil
	case i.base == xSP && i.index == xNone:
		// The top word: a counter, or the return address of a retpoline.
		if i.disp != 0 || f.depth < 0 {
			return fmt.Errorf("access %d bytes from the top of the stack", i.disp)
		}
		return nil
	case i.base == xBP && i.index == xNone && f.regs[xBP] == inCage && i.disp >= minCageOffset && i.disp <= maxCageOffs:
		return nil
	case i.base == xBase && i.index != xNone:
		switch k := f.regs[i.index]; {
		case k == narrow && i.disp >= minCageOffset && i.disp <= maxCageOffs:
			return nil
		case k == narrowed && i.disp == 0:
			return nil
		default:
			return fmt.Errorf("register %d is not confined to the cage, offset %d", i.index, i.disp)
		}
	}
	return fmt.Errorf("memory at register %d + %d is not the program's", i.base, i.index)
}

// write notes that register r has a value of kind k, and refuses what must not be
// written.
func (a *amd64) write(out *flow, r int, k kind) error {
	switch r {
	case xState, xBase, xSP, xBP:
		return fmt.Errorf("writes register %d", r)
	}
	out.regs[r] = k
	return nil
}

func widthKind(wide bool) kind {
	if wide {
		return unknown
	}
	return narrow
}

// effect is what a plain instruction does to registers.
func (a *amd64) effect(i *xinsn, in, out *flow) error {
	result := widthKind(i.wide)
	if i.short && !i.memory() {
		result = in.regs[i.rm] // the upper bits stay
	}
	switch i.form {
	case fCompare, fFence, fPause:
		return nil
	case fALU:
		if i.memory() {
			if !i.lock {
				return errors.New("changes memory without a lock")
			}
			return nil
		}
		x, y := in.regs[i.rm], in.regs[i.reg]
		if i.wide && i.reg == xBase {
			return a.convert(i, x, out)
		}
		switch {
		case i.wide && i.alu == xAnd && (x == narrow || y == narrow),
			i.wide && (i.alu == xOr || i.alu == xXor) && x == narrow && y == narrow:
			result = narrow
		}
		return a.write(out, i.rm, result)
	case fALULoad:
		return a.write(out, i.reg, result)
	case fMov:
		if i.memory() {
			return nil
		}
		if i.wide {
			result = in.regs[i.reg]
		}
		return a.write(out, i.rm, result)
	case fLoad:
		return a.load(i, out, result)
	case fALUImm:
		return a.immediate(i, in, out, result)
	case fMovImm:
		if i.memory() {
			return nil
		}
		if i.op != 0 {
			return errors.New("unknown move")
		}
		if i.imm >= 0 {
			result = narrow
		}
		return a.write(out, i.rm, result)
	case fRegImm:
		return a.write(out, i.reg, result)
	case fShift, fShiftCL:
		if i.memory() {
			return errors.New("shifts memory")
		}
		if i.wide && i.op == xShr && (in.regs[i.rm] == narrow || i.form == fShift && i.imm&63 >= 32) {
			result = narrow
		}
		return a.write(out, i.rm, result)
	case fShiftX:
		if i.op == xShr && in.regs[i.rm] == narrow {
			result = narrow
		}
		return a.write(out, i.reg, result)
	case fUnary:
		return a.unary(i, out, result)
	case fPush, fPushImm:
		out.push(1)
		return nil
	case fPop:
		out.push(-1)
		return a.write(out, i.reg, unknown)
	case fLea:
		if i.rip {
			return a.write(out, i.reg, unknown)
		}
		if i.reg == xBP && i.base == xBase && i.index == xBP && i.disp == 0 && in.regs[xBP] == narrow {
			out.regs[xBP] = inCage
			return nil
		}
		if i.index == xNone && i.base == i.reg && in.regs[i.base] == narrow && i.wide && i.disp >= minCageOffset && i.disp <= maxCageOffs {
			return a.write(out, i.reg, narrowed)
		}
		return errors.New("an address is computed in an unknown way")
	case fExchange, fXadd:
		if !i.memory() {
			return errors.New("exchanges registers")
		}
		return a.write(out, i.reg, result)
	case fCmpxchg:
		if !i.memory() {
			return errors.New("exchanges registers")
		}
		return a.write(out, xAX, unknown)
	case fSignA:
		return a.write(out, xDX, result)
	case fIMul, fIMulImm, fSX:
		return a.write(out, i.reg, result)
	case fZX:
		return a.write(out, i.reg, narrow)
	case fSwap:
		return a.write(out, i.reg, result)
	}
	return errors.New("unknown effect")
}

// convert checks what is done with the cage's base: a cage address becomes a host
// address in the frame pointer, or the other way around.
func (a *amd64) convert(i *xinsn, was kind, out *flow) error {
	switch {
	case i.alu == xSub && was == inCage && i.rm == xBP:
		out.regs[xBP] = narrow
		return nil
	case i.alu == xSub && was == inCage:
		return a.write(out, i.rm, narrow)
	case i.alu == xAdd && was == narrow && i.rm == xBP:
		out.regs[xBP] = inCage
		return nil
	}
	return errors.New("uses the cage's base in an unknown way")
}

// load checks the loads of registers that only the crossings may load.
func (a *amd64) load(i *xinsn, out *flow, result kind) error {
	s := a.c.State
	field := i.memory() && i.base == xState && i.wide
	switch {
	case !i.memory():
		return errors.New("unknown move")
	case i.reg == xBP && field && int(i.disp) == s.FP:
		out.regs[xBP] = narrow
		return nil
	case i.reg == xBase && field && int(i.disp) == s.Base:
		return nil
	case i.reg == xSP && field && int(i.disp) == s.SP:
		return nil // the words still count from where the caller was
	case i.reg == xScratch && field && int(i.disp) == s.Target:
		out.regs[xScratch] = target
		return nil
	case i.reg == xSP && field && int(i.disp) == s.HostSP:
		out.depth = 0
		return nil
	}
	return a.write(out, i.reg, result)
}

func (a *amd64) immediate(i *xinsn, in, out *flow, result kind) error {
	if i.memory() {
		top := i.base == xSP && i.op == xSub && i.imm == 1
		if i.op == xCmp || top {
			return nil
		}
		return errors.New("changes memory")
	}
	if i.op == xCmp {
		return nil
	}
	if i.rm == xBP {
		if i.wide && (i.op == xAdd || i.op == xSub) && int(i.imm) == a.c.State.FrameSize && in.regs[xBP] == inCage {
			return nil
		}
		return errors.New("moves the frame pointer")
	}
	if i.wide && i.op == xAnd && (i.imm >= 0 || in.regs[i.rm] == narrow) {
		result = narrow
	}
	if i.wide && (i.op == xOr || i.op == xXor) && i.imm >= 0 && in.regs[i.rm] == narrow {
		result = narrow
	}
	return a.write(out, i.rm, result)
}

func (a *amd64) unary(i *xinsn, out *flow, result kind) error {
	if i.memory() {
		return errors.New("changes memory")
	}
	switch i.op {
	case xTest:
		return nil
	case xNeg:
		return a.write(out, i.rm, result)
	case xDiv, xIDiv:
		if err := a.write(out, xAX, result); err != nil {
			return err
		}
		return a.write(out, xDX, result)
	}
	return errors.New("unknown arithmetic")
}
