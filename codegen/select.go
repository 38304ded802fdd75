package codegen

import (
	"maps"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
)

// A selector chooses instructions for one function.
//
// The invariant: the register of an integer of n bits holds it zero-extended,
// unless demand.clean says that nobody looks above the n bits.
type selector struct {
	g *generator
	f *ir.Func
	d *demand
	m *function

	cur    *block
	regs   []reg // by value ID
	slots  map[*ir.Value]*slot
	blocks map[*ir.Block]*block
	// cache holds addresses and wide constants already loaded in this block.
	cache map[any]reg
	pos   source.Span
	// rets are the blocks that return, one for each constant and one, with
	// the value in retReg, for the rest.
	rets   map[any]*block
	retReg reg
}

func (g *generator) selectFunc(f *ir.Func) *function {
	s := &selector{
		g: g, f: f, d: newDemand(f),
		m: &function{
			ir: f, nregs: firstVirtual,
			pointees: map[reg][]*slot{}, unspillable: map[reg]bool{},
			bounded: map[reg]bool{}, checked: map[reg]bool{},
		},
		regs:   make([]reg, f.NumValues()),
		slots:  map[*ir.Value]*slot{},
		blocks: map[*ir.Block]*block{},
		rets:   map[any]*block{},
	}
	for i := range s.regs {
		s.regs[i] = noReg
	}
	for _, b := range s.d.order {
		s.blocks[b] = s.m.newBlock()
		for _, v := range b.Values {
			if v.Op == ir.OpAlloca && s.d.live[v.ID] {
				s.slots[v] = s.m.newSlot(int(v.Int), v.Name, v.Pos)
			}
		}
	}
	s.findPointees()
	s.findBounded()
	for _, b := range s.d.order {
		s.block(b)
	}
	s.m.annotate()
	return s.m
}

func (s *selector) block(b *ir.Block) {
	s.cur = s.blocks[b]
	s.cache = map[any]reg{}
	s.pos = s.f.Pos
	if b == s.f.Entry() {
		for i, p := range b.Params {
			if s.d.live[p.ID] {
				s.emit(isa.Mov64(0, 0), s.reg(p), reg(i+1))
			}
		}
	}
	for _, v := range b.Values {
		if s.d.live[v.ID] {
			s.value(v)
		}
	}
	if b.Pos.IsValid() {
		s.pos = b.Pos
	}
	s.terminator(b)
}

// emit appends an instruction with the given registers.
func (s *selector) emit(i isa.Instruction, dst, src reg) *inst {
	s.cur.insts = append(s.cur.insts, inst{Instruction: i, dst: dst, src: src, pos: s.pos})
	return &s.cur.insts[len(s.cur.insts)-1]
}

func (s *selector) aluImm(op isa.ALUOp, wide bool, dst reg, imm int32) {
	if wide {
		s.emit(isa.ALU64Imm(op, 0, imm), dst, noReg)
	} else {
		s.emit(isa.ALU32Imm(op, 0, imm), dst, noReg)
	}
}

func (s *selector) alu(op isa.ALUOp, wide bool, dst, src reg) {
	if wide {
		s.emit(isa.ALU64(op, 0, 0), dst, src)
	} else {
		s.emit(isa.ALU32(op, 0, 0), dst, src)
	}
}

func (s *selector) newReg() reg { return s.m.newReg() }

// resolve looks through values that are the same register as their operand.
func (s *selector) resolve(v *ir.Value) *ir.Value {
	for {
		switch v.Op {
		case ir.OpPtrCast, ir.OpNonNull, ir.OpIntToPtr, ir.OpPtrToInt, ir.OpZExt:
		case ir.OpTrunc:
			if s.d.clean[v.ID] {
				return v
			}
		case ir.OpPtrAdd:
			if n, ok := v.Args[1].IsConst(); !ok || n != 0 {
				return v
			}
		default:
			return v
		}
		v = v.Args[0]
	}
}

// reg returns the register that v, a resolved value, lives in.
func (s *selector) reg(v *ir.Value) reg {
	if s.regs[v.ID] == noReg {
		s.regs[v.ID] = s.newReg()
	}
	return s.regs[v.ID]
}

// isOffset reports whether v is a pointer moved by a constant: it is computed
// anew wherever it is used, mostly within a load or store.
func isOffset(v *ir.Value) (int64, bool) {
	if v.Op != ir.OpPtrAdd {
		return 0, false
	}
	n, ok := v.Args[1].IsConst()
	return n, ok && n == int64(int32(n))
}

// use returns a register that holds v.
func (s *selector) use(v *ir.Value) reg {
	v = s.resolve(v)
	switch v.Op {
	case ir.OpGlobal, ir.OpKsym:
		return s.symbol(v)
	case ir.OpConst:
		r, ok := s.cache[v.Int]
		if !ok {
			r = s.newReg()
			s.into(r, v)
			s.cache[v.Int] = r
		}
		return r
	case ir.OpField:
		// Offsets that the loader fills in are added once a block.
		r, ok := s.cache[v]
		if !ok {
			r = s.newReg()
			s.into(r, v)
			s.cache[v] = r
		}
		return r
	case ir.OpAlloca, ir.OpMap, ir.OpFunc:
	case ir.OpPtrAdd:
		if _, ok := isOffset(v); !ok {
			return s.reg(v)
		}
	default:
		return s.reg(v)
	}
	r := s.newReg()
	s.into(r, v)
	return r
}

// fitsMov reports whether one slot can load n.
func fitsMov(n int64) bool { return n == int64(int32(n)) || n == int64(uint32(n)) }

func fits32(n int64) bool { return n == int64(int32(n)) }

// into puts v into dst.
func (s *selector) into(dst reg, v *ir.Value) {
	v = s.resolve(v)
	switch v.Op {
	case ir.OpConst:
		s.constant(dst, v.Int)
	case ir.OpAlloca:
		s.lea(dst, s.slots[v], 0)
	case ir.OpPtrAdd:
		n, ok := isOffset(v)
		if !ok {
			s.emit(isa.Mov64(0, 0), dst, s.reg(v))
			return
		}
		base, sl, off := s.chain(v.Args[0], n)
		if sl != nil {
			s.lea(dst, sl, off)
			return
		}
		s.into(dst, base)
		s.aluImm(isa.Add, true, dst, off)
	case ir.OpField:
		if r, ok := s.cache[v]; ok {
			s.emit(isa.Mov64(0, 0), dst, r)
			return
		}
		ref := v.Aux.(*ir.FieldRef)
		s.into(dst, v.Args[0])
		i := s.emit(isa.ALU64Imm(isa.Add, 0, int32(ref.Offset)), dst, noReg)
		i.core = s.g.core.field(ref)
	case ir.OpMap:
		i := s.emit(isa.LoadImm64(0, 0), dst, noReg)
		i.sym, i.reloc = s.g.maps[v.Aux.(*ir.Map)], object.RelocMap
	case ir.OpFunc:
		i := s.emit(isa.LoadImm64(0, 0), dst, noReg)
		i.Src = isa.PseudoFunc
		i.sym, i.reloc = s.g.funcs[v.Aux.(*ir.Func)], object.RelocFuncAddr
	case ir.OpGlobal, ir.OpKsym:
		s.emit(isa.Mov64(0, 0), dst, s.symbol(v))
	default:
		s.emit(isa.Mov64(0, 0), dst, s.reg(v))
	}
}

func (s *selector) symbol(v *ir.Value) reg {
	if r, ok := s.cache[v.Aux]; ok {
		return r
	}
	r := s.newReg()
	i := s.emit(isa.LoadImm64(0, 0), r, noReg)
	switch a := v.Aux.(type) {
	case *ir.Global:
		i.sym, i.reloc = s.g.vars[a], object.RelocVar
	case *ir.Extern:
		i.sym, i.reloc = s.g.externs[a], object.RelocExtern
	}
	s.cache[v.Aux] = r
	return r
}

func (s *selector) constant(dst reg, n int64) {
	switch {
	case fits32(n):
		s.emit(isa.Mov64Imm(0, int32(n)), dst, noReg)
	case fitsMov(n):
		s.emit(isa.Mov32Imm(0, int32(n)), dst, noReg)
	default:
		s.emit(isa.LoadImm64(0, n), dst, noReg)
	}
}

func (s *selector) lea(dst reg, sl *slot, off int32) {
	i := s.emit(isa.Mov64Imm(0, off), dst, noReg)
	i.lea, i.slot = true, sl
	// A machine register is an argument of a call, which names what it touches.
	if dst >= firstVirtual {
		s.m.pointees[dst] = append(s.m.pointees[dst], sl)
	}
}

// chain follows constant offsets from v down to its base: a value, or a frame
// object. off is what was there before.
func (s *selector) chain(v *ir.Value, off int64) (base *ir.Value, sl *slot, total int32) {
	for {
		v = s.resolve(v)
		n, ok := isOffset(v)
		if !ok || !fits32(off+n) {
			break
		}
		off += n
		v = v.Args[0]
	}
	if v.Op == ir.OpAlloca {
		return nil, s.slots[v], int32(off)
	}
	return v, nil, int32(off)
}

// An address is an operand of a load or store.
type address struct {
	base reg
	slot *slot
	off  int16
	core *coreUse
}

// address makes the operand of an access of size bytes at v.
func (s *selector) address(v *ir.Value, size int) address {
	base, sl, off := s.chain(v, 0)
	if off != int32(int16(off)) {
		return address{base: s.use(v)}
	}
	if sl != nil {
		return address{base: noReg, slot: sl, off: int16(off)}
	}
	if base.Op == ir.OpField && off == 0 {
		// A loader may change the width of a load together with its offset,
		// so the record stands at the load only if that is of the field.
		ref := base.Aux.(*ir.FieldRef)
		if ref.Offset < 1<<15 && fieldSize(ref) == size {
			return address{base: s.use(base.Args[0]), off: int16(ref.Offset), core: s.g.core.field(ref)}
		}
	}
	return address{base: s.use(base), off: int16(off)}
}

// fieldSize is the size of a field that is a number or a pointer, else 0.
func fieldSize(ref *ir.FieldRef) int {
	t := ref.Struct
	for _, index := range ref.Path {
		if t = step(t, index); t == nil {
			return 0
		}
	}
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Int:
		return int(t.Size)
	case *btf.Enum:
		return int(t.Size)
	case *btf.Pointer:
		return 8
	}
	return 0
}

func sizeOf(t ir.Type) isa.Size {
	size, _ := isa.SizeOf(t.Bytes())
	return size
}

func mask(t ir.Type) int32 { return int32(1)<<t.Bits - 1 }

// finish clears the bits above the type of v where somebody looks at them.
func (s *selector) finish(v *ir.Value, dst reg) {
	if s.d.clean[v.ID] && v.Type.Bits < 32 {
		s.aluImm(isa.And, false, dst, mask(v.Type))
	}
}

func (s *selector) value(v *ir.Value) {
	if v.Pos.IsValid() {
		s.pos = v.Pos
	}
	switch op := v.Op; {
	case op.IsBinary():
		if !s.d.isJumps(v) && !s.d.tests[v.ID] {
			s.binary(v)
		}
	case op.IsCompare():
		if s.d.uses[v.ID] > s.d.conds[v.ID] {
			s.truth(v)
		}
	default:
		s.other(v)
	}
}

func (s *selector) other(v *ir.Value) {
	switch v.Op {
	case ir.OpNeg:
		dst := s.reg(v)
		s.into(dst, v.Args[0])
		s.aluImm(isa.Neg, v.Type.Bits == 64, dst, 0)
		s.finish(v, dst)
	case ir.OpSwap:
		dst := s.reg(v)
		s.into(dst, v.Args[0])
		// Swapping is conversion to the byte order the machine has not.
		if s.g.bigEndian {
			s.emit(isa.SwapLE(0, int(v.Type.Bits)), dst, noReg)
		} else {
			s.emit(isa.SwapBE(0, int(v.Type.Bits)), dst, noReg)
		}
	case ir.OpTrunc:
		if !s.d.clean[v.ID] {
			return // the same register
		}
		dst := s.reg(v)
		if v.Type.Bits == 32 {
			s.emit(isa.Mov32(0, 0), dst, s.use(v.Args[0]))
			return
		}
		s.into(dst, v.Args[0])
		s.aluImm(isa.And, false, dst, mask(v.Type))
	case ir.OpSExt:
		s.signExtend(v)
	case ir.OpPtrAdd:
		if _, ok := isOffset(v); ok {
			return
		}
		dst := s.reg(v)
		if n, ok := v.Args[1].IsConst(); ok {
			s.constant(dst, n)
			s.alu(isa.Add, true, dst, s.use(v.Args[0]))
			return
		}
		s.into(dst, v.Args[0])
		s.alu(isa.Add, true, dst, s.use(v.Args[1]))
	case ir.OpCore:
		s.coreValue(v)
	case ir.OpLoad:
		a := s.address(v.Args[0], v.Type.Bytes())
		i := s.emit(isa.LoadMem(sizeOf(v.Type), 0, 0, a.off), s.reg(v), a.base)
		i.slot, i.core, i.keep = a.slot, a.core, v.IsVolatile()
	case ir.OpStore:
		s.store(v)
	case ir.OpAtomic:
		s.atomic(v)
	case ir.OpCall:
		s.call(v)
	}
}

func (s *selector) signExtend(v *ir.Value) {
	x := v.Args[0]
	dst := s.reg(v)
	from, to := int(x.Type.Bits), int(v.Type.Bits)
	if from == 1 {
		s.into(dst, x)
		s.aluImm(isa.Neg, to == 64, dst, 0)
		s.finish(v, dst)
		return
	}
	wide := to == 64
	if s.g.cpu >= 4 {
		if wide {
			s.emit(isa.MovSX64(0, 0, from), dst, s.use(x))
		} else {
			s.emit(isa.MovSX32(0, 0, from), dst, s.use(x))
		}
		s.finish(v, dst)
		return
	}
	s.into(dst, x)
	shift := int32(32 - from)
	if wide {
		shift = int32(64 - from)
	}
	s.aluImm(isa.LSh, wide, dst, shift)
	s.aluImm(isa.ArSh, wide, dst, shift)
	s.finish(v, dst)
}

func (s *selector) coreValue(v *ir.Value) {
	ref := v.Aux.(*ir.CoreRef)
	n := ir.Truncate(ref.Local, v.Type)
	var i *inst
	if ref.Kind == ir.CoreEnumvalValue && v.Type.Bits == 64 {
		i = s.emit(isa.LoadImm64(0, n), s.reg(v), noReg)
	} else {
		i = s.emit(isa.Mov64Imm(0, int32(n)), s.reg(v), noReg)
	}
	i.core = s.g.core.fact(ref)
}

func (s *selector) store(v *ir.Value) {
	a := s.address(v.Args[0], v.Args[1].Type.Bytes())
	x := s.resolve(v.Args[1])
	size := sizeOf(v.Args[1].Type)
	// The verifier of Linux 6.1 refuses to store an immediate to the context.
	if n, ok := x.IsConst(); ok && v.Args[0].Type.Space != ir.SpaceCtx {
		if size != isa.Double {
			n = int64(int32(n))
		}
		if fits32(n) {
			i := s.emit(isa.StoreImm(size, 0, a.off, int32(n)), a.base, noReg)
			i.slot, i.core = a.slot, a.core
			return
		}
	}
	src := s.use(x)
	i := s.emit(isa.StoreMem(size, 0, a.off, 0), a.base, src)
	i.slot, i.core = a.slot, a.core
}

var atomicOps = [...]isa.AtomicOp{
	ir.AtomicAdd: isa.AtomicAdd, ir.AtomicAnd: isa.AtomicAnd, ir.AtomicOr: isa.AtomicOr,
	ir.AtomicXor: isa.AtomicXor, ir.AtomicXchg: isa.Xchg, ir.AtomicCmpXchg: isa.CmpXchg,
}

func (s *selector) atomic(v *ir.Value) {
	op := ir.AtomicOp(v.Int)
	a := s.address(v.Args[0], v.Args[1].Type.Bytes())
	size := sizeOf(v.Args[1].Type)
	code := atomicOps[op]
	used := s.d.uses[v.ID] > 0
	if op == ir.AtomicCmpXchg {
		src := s.use(v.Args[2])
		s.into(0, v.Args[1])
		i := s.emit(isa.Atomic(code, size, 0, a.off, 0), a.base, src)
		i.slot = a.slot
		if used {
			s.emit(isa.Mov64(0, 0), s.reg(v), 0)
		}
		return
	}
	src := s.use(v.Args[1])
	if used || op == ir.AtomicXchg {
		// The operand's register receives the old value.
		dst := s.newReg()
		if used {
			dst = s.reg(v)
		}
		s.emit(isa.Mov64(0, 0), dst, src)
		src = dst
		code |= isa.Fetch
	}
	i := s.emit(isa.Atomic(code, size, 0, a.off, 0), a.base, src)
	i.slot = a.slot
}

func (s *selector) call(v *ir.Value) {
	if len(v.Args) > 5 {
		s.g.fail(source.Errorf(s.pos, "too-many-arguments",
			"a call passes %d arguments, but a BPF function takes at most 5", len(v.Args)))
		return
	}
	for i, a := range v.Args {
		s.into(reg(i+1), a)
	}
	var i *inst
	switch e := v.Aux.(type) {
	case *ir.Func:
		i = s.emit(isa.CallLocal(-1), noReg, noReg)
		i.sym, i.reloc = s.g.funcs[e], object.RelocCall
	case *ir.Extern:
		if e.Kind == ir.ExternHelper {
			i = s.emit(isa.Call(e.ID), noReg, noReg)
		} else {
			i = s.emit(isa.CallLocal(-1), noReg, noReg)
			i.sym, i.reloc = s.g.externs[e], object.RelocExtern
		}
	}
	i.nargs = len(v.Args)
	// Small constants are not worth one of the registers that survive.
	maps.DeleteFunc(s.cache, func(key any, _ reg) bool {
		n, ok := key.(int64)
		return ok && fitsMov(n)
	})
	for _, a := range v.Args {
		i.touches = append(i.touches, s.pointeesOf(a)...)
	}
	if s.d.uses[v.ID] == 0 || v.Type.Kind == ir.Void {
		return
	}
	dst := s.reg(v)
	_, local := v.Aux.(*ir.Func)
	switch {
	case v.Type.Bits == 32 && !local && s.d.clean[v.ID]:
		s.emit(isa.Mov32(0, 0), dst, 0)
	default:
		s.emit(isa.Mov64(0, 0), dst, 0)
		if !local && v.Type.IsInt() {
			s.finish(v, dst)
		}
	}
}

var aluOps = map[ir.Op]isa.ALUOp{
	ir.OpAdd: isa.Add, ir.OpSub: isa.Sub, ir.OpMul: isa.Mul, ir.OpUDiv: isa.Div, ir.OpUMod: isa.Mod,
	ir.OpSDiv: isa.SDiv, ir.OpSMod: isa.SMod, ir.OpAnd: isa.And, ir.OpOr: isa.Or, ir.OpXor: isa.Xor,
	ir.OpShl: isa.LSh, ir.OpLShr: isa.RSh, ir.OpAShr: isa.ArSh,
}

func (s *selector) binary(v *ir.Value) {
	x, y := v.Args[0], v.Args[1]
	if v.Op.Commutes() {
		_, xc := x.IsConst()
		_, yc := y.IsConst()
		// The first operand's register becomes the result's: better one that
		// nobody needs any more.
		if xc || !yc && s.d.uses[x.ID] > 1 && s.d.uses[y.ID] == 1 {
			x, y = y, x
		}
	}
	dst := s.reg(v)
	switch v.Op {
	case ir.OpShl, ir.OpLShr, ir.OpAShr:
		s.shift(v, dst, x, y)
		return
	}
	wide := v.Type.Bits == 64
	op := aluOps[v.Op]
	if n, ok := y.IsConst(); ok {
		if s.binaryConst(v, dst, x, n) {
			return
		}
	}
	src := noReg
	if s.resolve(y).Op != ir.OpConst {
		src = s.use(y) // before dst is written
	}
	s.into(dst, x)
	if src == noReg {
		src = s.use(y)
	}
	s.alu(op, wide, dst, src)
	switch v.Op {
	case ir.OpUDiv, ir.OpUMod, ir.OpAnd, ir.OpOr, ir.OpXor:
		// clean when the operands are
	default:
		s.finish(v, dst)
	}
}

// binaryConst does v = x op n where an instruction has an immediate for it.
func (s *selector) binaryConst(v *ir.Value, dst reg, x *ir.Value, n int64) bool {
	wide := v.Type.Bits == 64
	if !wide {
		n = int64(int32(n))
	}
	pow2 := n > 0 && n&(n-1) == 0
	log := int32(bits.TrailingZeros64(uint64(n)))
	op := aluOps[v.Op]
	switch v.Op {
	case ir.OpSub:
		if n == -n && n != 0 {
			return false
		}
		op, n = isa.Add, -n
	case ir.OpMul:
		if pow2 {
			op, n = isa.LSh, int64(log)
		}
	case ir.OpUDiv:
		switch {
		case n == 0:
			s.constant(dst, 0)
			return true
		case pow2:
			op, n = isa.RSh, int64(log)
		}
	case ir.OpUMod:
		switch {
		case n == 0:
			s.alu(isa.Mov, wide, dst, s.use(x))
			return true
		case pow2:
			op, n = isa.And, n-1
		}
	case ir.OpSDiv, ir.OpSMod:
		if n == 0 {
			return false
		}
	case ir.OpAnd:
		if wide && n == 1<<32-1 {
			s.emit(isa.Mov32(0, 0), dst, s.use(x))
			return true
		}
		if wide && n > 0 && !fits32(n) && fitsMov(n) {
			s.into(dst, x)
			s.aluImm(isa.And, false, dst, int32(n))
			return true
		}
	}
	if !fits32(n) {
		return false
	}
	s.into(dst, x)
	s.aluImm(op, wide, dst, int32(n))
	switch v.Op {
	case ir.OpAnd, ir.OpUDiv, ir.OpUMod:
	case ir.OpOr, ir.OpXor:
	default:
		s.finish(v, dst)
	}
	return true
}

func (s *selector) shift(v *ir.Value, dst reg, x, y *ir.Value) {
	width := int32(v.Type.Bits)
	wide := width == 64
	op := aluOps[v.Op]
	if width == 1 {
		// The only count is 0.
		s.into(dst, x)
		return
	}
	n, constant := y.IsConst()
	count := int32(n) & (width - 1)
	var src reg
	if !constant {
		src = s.use(y)
		if width < 32 {
			t := s.newReg()
			s.emit(isa.Mov64(0, 0), t, src)
			s.aluImm(isa.And, false, t, width-1)
			src = t
		}
	}
	s.into(dst, x)
	if v.Op == ir.OpAShr && width < 32 {
		s.aluImm(isa.LSh, false, dst, 32-width)
		if constant {
			count += 32 - width
		} else {
			s.aluImm(isa.ArSh, false, dst, 32-width)
		}
	}
	if constant {
		s.aluImm(op, wide, dst, count)
	} else {
		s.alu(op, wide, dst, src)
	}
	if v.Op != ir.OpLShr {
		s.finish(v, dst)
	}
}

// findPointees tells the machine function which frame objects its registers
// may point into.
func (s *selector) findPointees() {
	if len(s.slots) == 0 {
		return
	}
	p := findPointees(s.d.order, func(v *ir.Value) bool { return s.d.live[v.ID] })
	for a := range p.escaped {
		s.slots[a].escaped = true
	}
	for v, list := range p.of {
		r := s.reg(s.resolve(v))
		for _, a := range list {
			if sl := s.slots[a]; !slices.Contains(s.m.pointees[r], sl) {
				s.m.pointees[r] = append(s.m.pointees[r], sl)
			}
		}
	}
}

func (s *selector) pointeesOf(v *ir.Value) []*slot {
	v = s.resolve(v)
	for {
		if _, ok := isOffset(v); !ok {
			break
		}
		v = s.resolve(v.Args[0])
	}
	if sl := s.slots[v]; sl != nil {
		return []*slot{sl}
	}
	return s.m.pointees[s.reg(v)]
}

// findBounded marks integers that are compared with something and also used,
// scaled perhaps, as an offset or as a helper's argument.
func (s *selector) findBounded() {
	compared := map[*ir.Value]bool{}
	for _, b := range s.d.order {
		for _, v := range b.Values {
			if v.Op.IsCompare() && v.Args[0].Type.IsInt() {
				compared[s.resolve(v.Args[0])] = true
			}
		}
	}
	for _, b := range s.d.order {
		for _, v := range b.Values {
			if v.Op != ir.OpPtrAdd && v.Op != ir.OpCall {
				continue
			}
			for _, a := range v.Args {
				for a = s.resolve(a); ; a = s.resolve(a.Args[0]) {
					if compared[a] && a.Op != ir.OpConst {
						s.m.bounded[s.reg(a)] = true
					}
					if a.Op != ir.OpShl && a.Op != ir.OpMul {
						break
					}
				}
			}
		}
	}
}
