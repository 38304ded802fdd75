package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The registers with a meaning.
const (
	aR10, aBase, aState, aBudget = 23, 24, 25, 26
	aAddr, aStack, aLink, aZero  = 9, 15, 30, 31
)

// aWritable are the registers that code may write without a rule of their own.
// x16 to x18 and x27 to x29 belong to the system, the linker and Go.
var aWritable = func() (w [32]bool) {
	for _, r := range []int{0, 1, 2, 3, 4, 7, 9, 10, 11, 12, 19, 20, 21, 22, aBudget, aZero} {
		w[r] = true
	}
	return w
}()

// ARM64 audits code for A64. Its error names the offset of what is wrong.
func ARM64(c Code) error {
	if len(c.Text)%4 != 0 {
		return errCut
	}
	starts := map[int]bool{}
	for at := 0; at < len(c.Text); at += 4 {
		starts[at] = true
	}
	a := &arm64{c}
	var entries []edge
	for _, e := range c.Starts {
		entries = append(entries, edge{e, a.hosts(0)})
	}
	for _, e := range c.Entries {
		entries = append(entries, edge{e, a.fresh(0)})
	}
	return analyse(entries, starts, a.step)
}

type arm64 struct{ c Code }

// fresh is what is known where anything may come from by a call.
func (a *arm64) fresh(depth int) flow {
	f := flow{depth: depth}
	f.regs[aLink] = link
	return f
}

// hosts is what is known where the host enters: that it wants to be returned to.
func (a *arm64) hosts(depth int) flow { return a.fresh(depth) }

// signedField returns the bits of w from shift on, sign extended.
func signedField(w uint32, shift, bits int) int {
	return int(int32(w<<(32-shift-bits)) >> (32 - bits))
}

func (a *arm64) step(at int, f flow) ([]edge, error) {
	w := binary.LittleEndian.Uint32(a.c.Text[at:])
	next := at + 4
	switch {
	case w&0xfc000000 == 0x14000000: // b
		return []edge{{at + 4*signedField(w, 0, 26), f}}, nil
	case w&0xfc000000 == 0x94000000: // bl
		after := a.fresh(f.depth)
		after.regs[aLink] = unknown
		return []edge{{at + 4*signedField(w, 0, 26), a.fresh(0)}, {next, after}}, nil
	case w&0xff000010 == 0x54000000, w&0x7f000000 == 0x35000000: // b.cond, cbnz
		return []edge{{at + 4*signedField(w, 5, 19), f}, {next, f}}, nil
	case w == 0xd65f03c0: // ret
		if f.depth != 0 || f.regs[aLink] != link {
			return nil, errors.New("returns with words on the stack, or to what is no return address")
		}
		return nil, nil
	case w == 0xd61f0000|aAddr<<5: // br
		if f.depth != 0 || f.regs[aAddr] != target || f.regs[aLink] != link {
			return nil, errors.New("jumps to what is not the target of a tail call")
		}
		return nil, nil
	case w == 0xd5033bbf: // dmb ish
		return []edge{{next, f}}, nil
	}
	edges := []edge{{next, f}}
	out := &edges[0].flow
	if w&0x9f000000 == 0x10000000 { // adr, of a place where the run goes on
		to := at + signedField(w, 5, 19)<<2 + int(w>>29&3)
		edges = append(edges, edge{to, a.hosts(f.depth)})
		return edges, a.write(out, int(w&31), unknown)
	}
	var err error
	if w>>25&5 == 4 { // loads and stores
		err = a.memory(w, &f, out)
	} else {
		err = a.data(w, &f, out)
	}
	if err != nil {
		return nil, fmt.Errorf("%08x: %w", w, err)
	}
	return edges, nil
}

func (a *arm64) write(out *flow, r int, k kind) error {
	if !aWritable[r] {
		return fmt.Errorf("writes register %d", r)
	}
	if r != aZero {
		out.regs[r] = k
	}
	return nil
}

// data checks an instruction on registers.
func (a *arm64) data(w uint32, in, out *flow) error {
	wide := w>>31 != 0
	d, n, m := int(w&31), int(w>>5&31), int(w>>16&31)
	result := widthKind(wide)
	switch {
	case w&0x1f800000 == 0x12800000: // movn, movz, movk
		hw, v, opc := w>>21&3, w>>5&0xffff, w>>29&3
		if opc != 3 && hw == 0 && v < 1<<15 && wide {
			result = small
		}
		return a.write(out, d, result)
	case w&0x1f000000 == 0x11000000: // add, sub of an immediate
		flags := w>>29&1 != 0
		if d == aR10 {
			if w>>22&1 == 0 && !wide && !flags && n == aR10 && int(w>>10&0xfff) == a.c.State.FrameSize {
				return nil
			}
			return errors.New("moves the frame pointer")
		}
		if !flags && (d == aZero || n == aZero) {
			return errors.New("uses the stack pointer")
		}
		return a.write(out, d, result)
	case w&0x1f800000 == 0x12000000: // and, orr, eor, ands of a mask
		if w>>29&3 != 3 || d != aZero {
			return errors.New("changes a register by a mask")
		}
		return nil
	case w&0x1f800000 == 0x13000000: // sbfm, ubfm
		if w>>29&3 == 1 {
			return errors.New("unknown bit field")
		}
		return a.write(out, d, result)
	case w&0xffe0fc00 == 0x8b204000: // add of a low half
		if n == aBase {
			result = inCage
		}
		return a.write(out, d, result)
	case w&0x1f20fc00 == 0x0b000000: // add, sub
		if wide && w>>29&3 == 0 {
			switch {
			case n == aBase && in.regs[m] == narrow:
				result = inCage
			case n == aBase && in.regs[m] == narrowed:
				result = inCageNear
			case in.regs[n] == narrow && in.regs[m] == small:
				result = narrowed
			}
		}
		return a.write(out, d, result)
	case w&0x1f20fc00 == 0x0a000000: // and, orr, eor, ands
		if wide && w>>29&3 == 1 && n == aZero && m != aLink {
			result = in.regs[m] // a move
		}
		return a.write(out, d, result)
	case w&0x7fe08000 == 0x1b000000, w&0x7fe08000 == 0x1b008000, // madd, msub
		w&0x7fe0f000 == 0x1ac02000 && w>>10&3 != 3, // lslv, lsrv, asrv
		w&0x7fe0f800 == 0x1ac00800,                 // udiv, sdiv
		w&0x7ffff800 == 0x5ac00000 && w>>10&3 != 0 || w&0x7ffff000 == 0x5ac00000 && w>>10&3 != 0: // rev
		return a.write(out, d, result)
	}
	return errors.New("not an instruction that the JIT uses")
}

// memory checks a load or store.
func (a *arm64) memory(w uint32, in, out *flow) error {
	t, n, m := int(w&31), int(w>>5&31), int(w>>16&31)
	size := 1 << (w >> 30)
	opc := w >> 22 & 3
	load := opc != 0
	result := narrow
	if size == 8 || opc == 2 {
		result = unknown
	}
	switch {
	case w&0x3f000000 == 0x39000000: // unsigned offset
		return a.at(in, out, t, n, int(w>>10&0xfff)*size, size, load, result)
	case w&0x3f200c00 == 0x38000000: // small signed offset
		return a.at(in, out, t, n, signedField(w, 12, 9), size, load, result)
	case w == 0xf81f8c00|aStack<<5|uint32(t): // push
		out.push(1)
		return nil
	case w == 0xf8408400|aStack<<5|uint32(t): // pop
		out.push(-1)
		if t == aLink {
			out.regs[aLink] = link
			return nil
		}
		return a.write(out, t, unknown)
	case w&0x3f200c00 == 0x38200800: // a register as offset
		option, scaled := w>>13&7, w>>12&1 != 0
		switch {
		case scaled:
			return errors.New("a scaled index")
		case option == 2 && n == aBase: // uxtw
		case option == 3 && in.regs[n] == inCage && in.regs[m] == small:
		default:
			return fmt.Errorf("registers %d + %d are not confined to the cage", n, m)
		}
	case w&0x3ffffc00 == 0x085ffc00, w&0x3fffffff == 0x08dffc00|uint32(n)<<5|uint32(t): // ldaxr, ldar
		load, result = true, widthKind(size == 8)
		if in.regs[n] != inCage && in.regs[n] != inCageNear {
			return fmt.Errorf("register %d is not confined to the cage", n)
		}
	case w&0x3fe0fc00 == 0x0800fc00, w&0x3fffffff == 0x089ffc00|uint32(n)<<5|uint32(t): // stlxr, stlr
		if in.regs[n] != inCage && in.regs[n] != inCageNear {
			return fmt.Errorf("register %d is not confined to the cage", n)
		}
		if w&0x00800000 == 0 {
			return a.write(out, m, narrow) // the status
		}
		return nil
	default:
		return errors.New("not an access that the JIT uses")
	}
	if load {
		return a.write(out, t, result)
	}
	return nil
}

// at checks an access at register n + off.
func (a *arm64) at(in, out *flow, t, n, off, size int, load bool, result kind) error {
	s := a.c.State
	switch {
	case n == aState:
		if off < 0 || off+size > s.Size {
			return fmt.Errorf("the State has nothing at %d", off)
		}
		if !load || size != 8 {
			break
		}
		switch {
		case t == aR10 && off == s.FP, t == aBase && off == s.Base, t == aStack && off == s.SP:
			return nil
		case t == aLink && off == s.HostSP:
			out.regs[aLink] = link
			out.depth = 0
			return nil
		case t == aAddr && off == s.Target:
			result = target
		}
	case n == aStack && off == 0 && size == 8:
	case in.regs[n] == inCage && off >= minCageOffset && off <= maxCageOffs:
	case in.regs[n] == inCageNear && off == 0:
	default:
		return fmt.Errorf("register %d is not confined to the cage, offset %d", n, off)
	}
	if load {
		return a.write(out, t, result)
	}
	return nil
}
