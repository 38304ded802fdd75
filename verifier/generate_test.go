package verifier

import (
	"math/rand/v2"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// A generator writes random structured programs: most of what they do is right,
// and a few steps are not quite, or not checked, so that about half are
// accepted and the others are rejected for many reasons.
type generator struct {
	r     *rand.Rand
	p     *Program
	insns []isa.Instruction
	kinds [10]genKind
	// slots are the eight-byte slots of the stack that hold something.
	slots  [8]genKind
	out    []int // jumps that lead to the end
	funcs  [][]isa.Instruction
	calls  []int // calls of funcs[i], by index into insns
	budget int
	fault  int // one in how many choices is wrong
}

// A genKind is what the generator believes a register holds.
type genKind uint8

const (
	genNothing genKind = iota
	genNumber
	genSmall // below 8
	genContext
	genStack
	genValue // of map 0, checked
	genMaybe // of map 0, perhaps null
	genPacket
	genPacketEnd
	genRecord // of a ring buffer, checked
	genMap
)

const (
	genMapArray = iota
	genMapHash
	genMapRing
	genMapData
)

var genTypes = []abi.ProgType{abi.ProgSocketFilter, abi.ProgSchedCls, abi.ProgXDP, abi.ProgTracepoint, abi.ProgKprobe, abi.ProgCgroupSkb}

// genTypesAlone are those that load without CAP_NET_ADMIN and CAP_PERFMON.
var genTypesAlone = []abi.ProgType{abi.ProgSocketFilter, abi.ProgCgroupSkb}

// generate makes the program of a seed, of a type that cfg lets load.
func generate(seed uint64, cfg Config) *Program {
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	g := &generator{r: r, budget: 6 + r.IntN(30), fault: 100 + r.IntN(600)}
	types := genTypes
	if cfg.Caps != CapsAll {
		types = genTypesAlone
	}
	g.p = &Program{Name: "generated", Type: types[r.IntN(len(types))], License: "GPL", Maps: []*Map{
		{Name: "array", Type: abi.MapArray, KeySize: 4, ValueSize: 64, MaxEntries: 4},
		{Name: "hash", Type: abi.MapHash, KeySize: 8, ValueSize: 24, MaxEntries: 4},
		{Name: "ring", Type: abi.MapRingbuf, MaxEntries: 4096},
		{Name: "data", Type: abi.MapArray, KeySize: 4, ValueSize: 32, MaxEntries: 1},
		{Name: "locked", Type: abi.MapArray, KeySize: 4, ValueSize: 32, MaxEntries: 1, Value: specialValue("lock", 32)},
	}}
	if g.p.Type == abi.ProgCgroupSkb {
		g.p.Attach = abi.AttachCgroupInetIngress
	}
	g.kinds[1] = genContext
	g.emit(isa.Mov64(6, 1))
	g.kinds[6] = genContext
	mistakeAt := -1000
	if r.IntN(100) < 48 {
		mistakeAt = r.IntN(g.budget + 1)
	}
	for g.budget > 0 {
		g.step(2)
		if g.budget <= mistakeAt {
			g.mistake()
			mistakeAt = -1000
		}
	}
	g.finish()
	return g.p
}

func (g *generator) emit(i isa.Instruction) int {
	g.insns = append(g.insns, i)
	g.budget--
	return len(g.insns) - 1
}

func (g *generator) wrong() bool { return g.r.IntN(g.fault) == 0 }

func (g *generator) pick(ks ...genKind) (isa.Register, bool) {
	var all []isa.Register
	for i, k := range g.kinds {
		for _, want := range ks {
			if k == want {
				all = append(all, isa.Register(i))
			}
		}
	}
	if g.wrong() {
		return isa.Register(g.r.IntN(11)), true
	}
	if len(all) == 0 {
		return 0, false
	}
	return all[g.r.IntN(len(all))], true
}

// dest picks a register to write, seldom the context's.
func (g *generator) dest() isa.Register {
	for {
		d := isa.Register(g.r.IntN(10))
		if d != 6 || g.r.IntN(30) == 0 {
			return d
		}
	}
}

func (g *generator) set(r isa.Register, k genKind) {
	if r < 10 {
		g.kinds[r] = k
	}
}

var genALU = []isa.ALUOp{isa.Add, isa.Sub, isa.Mul, isa.And, isa.Or, isa.Xor, isa.LSh, isa.RSh, isa.ArSh, isa.Div, isa.Mod, isa.SDiv, isa.SMod}

var genJumps = []isa.JumpOp{isa.Eq, isa.NE, isa.GT, isa.GE, isa.LT, isa.LE, isa.SGT, isa.SGE, isa.SLT, isa.SLE, isa.Set}

func (g *generator) imm() int32 {
	switch g.r.IntN(4) {
	case 0:
		return int32(g.r.IntN(9))
	case 1:
		return int32(g.r.IntN(256)) - 128
	case 2:
		return int32(1)<<g.r.IntN(31) - int32(g.r.IntN(2))
	}
	return int32(g.r.Uint32())
}

// step adds something; depth is how much nesting it may have.
func (g *generator) step(depth int) {
	switch n := g.r.IntN(22); {
	case n < 2:
		g.constant()
	case n < 5:
		g.arithmetic()
	case n < 7:
		g.bound()
	case n == 7:
		g.contextRead()
	case n < 10:
		g.stack()
	case n < 12:
		g.lookup()
	case n < 14:
		g.memory()
	case n == 14:
		g.bound()
	case n == 15:
		g.packet()
	case n == 16:
		g.helper()
	case n == 17:
		g.record()
	case n < 20 && depth > 0:
		g.fork(depth)
	case n == 20 && depth > 0:
		g.loop(depth)
	case n == 21:
		g.function()
	}
}

func (g *generator) constant() {
	d := g.dest()
	switch g.r.IntN(4) {
	case 0:
		g.emit(isa.Mov32Imm(d, g.imm()))
	case 1:
		g.emit(isa.LoadImm64(d, int64(g.r.Uint64())>>g.r.IntN(64)))
	case 2:
		g.emit(isa.LoadMapValue(d, genMapData, uint32(g.r.IntN(5)*8)))
		g.set(d, genNothing)
		if g.r.IntN(2) == 0 {
			g.emit(isa.LoadMem(isa.Double, d, d, 0))
			g.set(d, genNumber)
		}
		return
	default:
		g.emit(isa.Mov64Imm(d, g.imm()))
	}
	g.set(d, genNumber)
}

func (g *generator) arithmetic() {
	d, ok := g.pick(genNumber, genSmall)
	if !ok {
		g.constant()
		return
	}
	op := genALU[g.r.IntN(len(genALU))]
	wide := g.r.IntN(2) == 0
	switch n := g.r.IntN(8); {
	case n == 0:
		bits := []int{8, 16, 32}[g.r.IntN(3)]
		if wide {
			g.emit(isa.MovSX64(d, d, bits))
		} else {
			g.emit(isa.MovSX32(d, d, min(bits, 16)))
		}
	case n == 1:
		to := g.dest()
		if wide {
			g.emit(isa.Mov64(to, d))
		} else {
			g.emit(isa.Mov32(to, d))
		}
		g.set(to, genNumber)
	case n == 2:
		g.emit(isa.Neg64(d))
	case n < 6:
		imm := g.imm()
		if op == isa.LSh || op == isa.RSh || op == isa.ArSh {
			imm &= 31
		}
		if wide {
			g.emit(isa.ALU64Imm(op, d, imm))
		} else {
			g.emit(isa.ALU32Imm(op, d, imm))
		}
	default:
		s, ok := g.pick(genNumber, genSmall)
		if !ok {
			return
		}
		if wide {
			g.emit(isa.ALU64(op, d, s))
		} else {
			g.emit(isa.ALU32(op, d, s))
		}
	}
	g.set(d, genNumber)
}

// bound makes a number small, by a mask or by a branch to the end.
func (g *generator) bound() {
	d, ok := g.pick(genNumber)
	if !ok {
		return
	}
	switch g.r.IntN(5) {
	case 0:
		g.emit(isa.ALU64Imm(isa.And, d, 7))
	case 1:
		g.exitIf(isa.JumpIfImm(isa.GT, d, 7, 0))
	case 2:
		g.emit(isa.Mov32(d, d))
		g.exitIf(isa.JumpIf32Imm(isa.GE, d, 8, 0))
	case 3:
		g.exitIf(isa.JumpIfImm(isa.SGT, d, 7, 0))
		if !g.wrong() {
			g.exitIf(isa.JumpIfImm(isa.SLT, d, 0, 0))
		}
	default:
		g.emit(isa.ALU64Imm(isa.RSh, d, 61))
	}
	g.set(d, genSmall)
}

func (g *generator) exitIf(i isa.Instruction) { g.out = append(g.out, g.emit(i)) }

func (g *generator) contextRead() {
	c, ok := g.pick(genContext)
	if !ok {
		return
	}
	d := g.dest()
	off := []int16{0, 4, 8, 16, 20, 24, 48, 52, 64, 112, 132}[g.r.IntN(11)]
	size := isa.Word
	if g.p.Type == abi.ProgKprobe || g.p.Type == abi.ProgTracepoint {
		off, size = off&^7, isa.Double
	} else if g.p.Type == abi.ProgXDP {
		off = 12 + off%8&^3
	}
	if g.r.IntN(8) == 0 {
		size = isa.Byte
	}
	if g.wrong() {
		g.emit(isa.StoreMem(size, c, off, 6))
		return
	}
	g.emit(isa.LoadMem(size, d, c, off))
	g.set(d, genNumber)
}

// stack spills, fills and pokes.
func (g *generator) stack() {
	k := g.r.IntN(len(g.slots))
	off := int16(-8 * (k + 1))
	switch n := g.r.IntN(6); {
	case n < 2:
		r := isa.Register(g.r.IntN(10))
		if g.kinds[r] == genNothing && !g.wrong() {
			g.emit(isa.StoreImm(isa.Double, 10, off, g.imm()))
			g.slots[k] = genNumber
			return
		}
		g.emit(isa.StoreMem(isa.Double, 10, off, r))
		g.slots[k] = g.kinds[r]
	case n < 4:
		d := g.dest()
		if g.slots[k] == genNothing && !g.wrong() {
			return
		}
		g.emit(isa.LoadMem(isa.Double, d, 10, off))
		g.set(d, g.slots[k])
	case n == 4:
		sizes := []isa.Size{isa.Byte, isa.Half, isa.Word}
		s := sizes[g.r.IntN(3)]
		in := int16(g.r.IntN(8/s.Bytes()) * s.Bytes())
		if g.r.IntN(2) == 0 {
			g.emit(isa.StoreImm(s, 10, off+in, g.imm()&0x7f))
			g.slots[k] = genNumber
		} else if g.slots[k] == genNumber || g.wrong() {
			d := g.dest()
			g.emit(isa.LoadMem(s, d, 10, off+in))
			g.set(d, genNumber)
		}
	default:
		i, ok := g.pick(genSmall)
		if !ok {
			return
		}
		d := g.dest()
		if d == i {
			return
		}
		g.emit(isa.Mov64(d, 10))
		g.emit(isa.ALU64Imm(isa.Add, d, int32(off)-8*int32(g.r.IntN(2))))
		g.emit(isa.ALU64(isa.Add, d, i))
		g.set(d, genNothing)
		if g.r.IntN(2) == 0 {
			g.emit(isa.StoreImm(isa.Byte, d, 0, 1))
			for j := max(0, k-1); j <= min(k+1, len(g.slots)-1); j++ {
				g.slots[j] = genNumber
			}
		} else {
			g.emit(isa.LoadMem(isa.Byte, d, d, 0))
			g.set(d, genNumber)
		}
	}
}

func (g *generator) scratch() {
	for i := 0; i <= 5; i++ {
		g.kinds[i] = genNothing
	}
}

func (g *generator) lookup() {
	m := g.r.IntN(2)
	if g.r.IntN(12) > 0 {
		g.emit(isa.StoreImm(isa.Double, 10, -72, int32(g.r.IntN(6))))
	}
	g.emit(isa.Mov64(2, 10))
	off := int32(-72)
	if g.wrong() {
		off = -int32(g.r.IntN(80))
	}
	g.emit(isa.ALU64Imm(isa.Add, 2, off))
	g.emit(isa.LoadMapFD(1, int32(m)))
	g.emit(isa.Call(helperMapLookup))
	g.scratch()
	g.kinds[0] = genMaybe
	if g.r.IntN(3) == 0 {
		d := isa.Register(7 + g.r.IntN(3))
		g.emit(isa.Mov64(d, 0))
		g.set(d, genMaybe)
	}
	if !g.wrong() {
		g.exitIf(isa.JumpIfImm(isa.Eq, 0, 0, 0))
		for i := range g.kinds {
			if g.kinds[i] == genMaybe {
				g.kinds[i] = genValue
			}
		}
	}
}

// memory goes through a pointer to a value or a record.
func (g *generator) memory() {
	p, ok := g.pick(genValue, genRecord)
	if !ok {
		g.lookup()
		return
	}
	sizes := []isa.Size{isa.Byte, isa.Half, isa.Word, isa.Double}
	s := sizes[g.r.IntN(4)]
	off := int16(g.r.IntN(16))
	if g.wrong() {
		off = int16(g.r.IntN(80) - 8)
	}
	if i, ok := g.pick(genSmall, genNumber); ok && g.r.IntN(2) == 0 {
		if g.kinds[min(i, 9)] != genSmall && !g.wrong() {
			g.emit(isa.ALU64Imm(isa.And, i, 7))
			g.set(i, genSmall)
		}
		d := isa.Register(7 + g.r.IntN(3))
		if d != i {
			g.emit(isa.Mov64(d, p))
			g.emit(isa.ALU64(isa.Add, d, i))
			g.set(d, genNothing)
			p, off = d, off&7
		}
	}
	switch g.r.IntN(4) {
	case 0:
		g.emit(isa.StoreImm(s, p, off, g.imm()))
	case 1:
		if v, ok := g.pick(genNumber, genSmall); ok {
			g.emit(isa.StoreMem(s, p, off, v))
		}
	case 2:
		if v, ok := g.pick(genNumber); ok {
			ops := []isa.AtomicOp{isa.AtomicAdd, isa.FetchOr, isa.Xchg, isa.CmpXchg}
			op := ops[g.r.IntN(4)]
			if op == isa.CmpXchg && g.kinds[0] != genNumber && !g.wrong() {
				op = isa.AtomicXor
			}
			s := []isa.Size{isa.Word, isa.Double}[g.r.IntN(2)]
			g.emit(isa.Atomic(op, s, p, off&^7, v))
		}
	default:
		d := g.dest()
		g.emit(isa.LoadMem(s, d, p, off))
		g.set(d, genNumber)
	}
}

// packet reads from the packet, mostly after a look at its end.
func (g *generator) packet() {
	data, end := int16(76), int16(80)
	switch g.p.Type {
	case abi.ProgXDP:
		data, end = 0, 4
	case abi.ProgSchedCls, abi.ProgCgroupSkb:
	default:
		if !g.wrong() {
			return
		}
	}
	c, ok := g.pick(genContext)
	if !ok {
		return
	}
	a, b, t := isa.Register(7), isa.Register(8), isa.Register(9)
	if c == a || c == b || c == t {
		return
	}
	g.emit(isa.LoadMem(isa.Word, a, c, data))
	g.emit(isa.LoadMem(isa.Word, b, c, end))
	n := int32(1 + g.r.IntN(24))
	if i, ok := g.pick(genSmall); ok && g.r.IntN(3) == 0 && i < 7 {
		g.emit(isa.ALU64(isa.Add, a, i))
	}
	g.emit(isa.Mov64(t, a))
	g.emit(isa.ALU64Imm(isa.Add, t, n))
	op := isa.GT
	if g.r.IntN(3) == 0 {
		op = genJumps[g.r.IntN(10)]
	}
	if g.r.IntN(3) == 0 {
		g.exitIf(isa.JumpIf(op.Swap(), b, t, 0))
	} else {
		g.exitIf(isa.JumpIf(op, t, b, 0))
	}
	s := []isa.Size{isa.Byte, isa.Half, isa.Word}[g.r.IntN(3)]
	off := int16(g.r.IntN(max(1, int(n)-s.Bytes()+1)))
	if g.wrong() {
		off++
	}
	if int(off)+s.Bytes() > int(n) && !g.wrong() {
		off, s = 0, isa.Byte
	}
	if g.r.IntN(4) == 0 {
		g.emit(isa.StoreImm(s, a, off, 1))
	} else {
		g.emit(isa.LoadMem(s, t, a, off))
	}
	g.kinds[7], g.kinds[8], g.kinds[9] = genPacket, genPacketEnd, genNothing
}

func (g *generator) helper() {
	switch g.r.IntN(5) {
	case 0:
		g.emit(isa.Call(7)) // get_prandom_u32
	case 1:
		g.emit(isa.Call(8)) // get_smp_processor_id
	case 2:
		g.emit(isa.Call(5)) // ktime_get_ns
	case 3: // map_update_elem
		g.emit(isa.StoreImm(isa.Double, 10, -72, 1))
		for i := range int16(3) {
			g.emit(isa.StoreImm(isa.Double, 10, -96+8*i, 1))
		}
		g.emit(isa.Mov64(2, 10))
		g.emit(isa.ALU64Imm(isa.Add, 2, -72))
		g.emit(isa.Mov64(3, 10))
		g.emit(isa.ALU64Imm(isa.Add, 3, -96))
		g.emit(isa.Mov64Imm(4, 0))
		g.emit(isa.LoadMapFD(1, genMapHash))
		g.emit(isa.Call(helperMapUpdate))
	default: // skb_load_bytes or probe_read_kernel into the stack
		size, ok := g.pick(genSmall)
		if !ok {
			return
		}
		if g.p.Type == abi.ProgTracepoint || g.p.Type == abi.ProgKprobe {
			g.emit(isa.Mov64(2, size))
			g.emit(isa.Mov64(1, 10))
			g.emit(isa.ALU64Imm(isa.Add, 1, -64))
			g.emit(isa.Mov64Imm(3, 0))
			g.emit(isa.Call(113))
		} else {
			g.emit(isa.Mov64(4, size))
			if g.r.IntN(2) == 0 {
				g.emit(isa.ALU64Imm(isa.Add, 4, 1))
			}
			g.emit(isa.Mov64(3, 10))
			g.emit(isa.ALU64Imm(isa.Add, 3, -64))
			g.emit(isa.Mov64Imm(2, 0))
			c, ok := g.pick(genContext)
			if !ok {
				return
			}
			g.emit(isa.Mov64(1, c))
			g.emit(isa.Call(26))
		}
		g.slots[7] = genNumber
	}
	g.scratch()
	g.kinds[0] = genNumber
}

// record reserves and submits a record of a ring buffer.
func (g *generator) record() {
	g.emit(isa.LoadMapFD(1, genMapRing))
	g.emit(isa.Mov64Imm(2, 32))
	g.emit(isa.Mov64Imm(3, 0))
	g.emit(isa.Call(helperRingbufReserve))
	g.scratch()
	d := isa.Register(7 + g.r.IntN(3))
	g.emit(isa.Mov64(d, 0))
	if !g.wrong() {
		g.exitIf(isa.JumpIfImm(isa.Eq, 0, 0, 0))
	}
	g.set(d, genRecord)
	g.kinds[0] = genRecord
	before := len(g.out)
	for range g.r.IntN(3) {
		g.memory()
		if g.kinds[d] != genRecord {
			break
		}
	}
	// A jump to the end from here would lose the record: take most of them away.
	if len(g.out) > before && !g.wrong() {
		for _, at := range g.out[before:] {
			g.insns[at] = isa.Mov64Imm(5, 0)
		}
		g.out = g.out[:before]
	}
	if g.wrong() {
		return
	}
	g.emit(isa.Mov64(1, d))
	g.emit(isa.Mov64Imm(2, 0))
	g.emit(isa.Call(132)) // ringbuf_submit
	for i := range g.kinds {
		if g.kinds[i] == genRecord {
			g.kinds[i] = genNothing
		}
	}
	g.scratch()
}

// fork branches over some steps; what only they did is forgotten, mostly.
func (g *generator) fork(depth int) {
	var at int
	if d, ok := g.pick(genNumber, genSmall); ok {
		op := genJumps[g.r.IntN(len(genJumps))]
		s, ok := g.pick(genNumber, genSmall)
		switch g.r.IntN(4) {
		case 0:
			at = g.emit(isa.JumpIf32Imm(op, d, g.imm(), 0))
		case 1:
			if !ok {
				return
			}
			at = g.emit(isa.JumpIf(op, d, s, 0))
		case 2:
			if !ok {
				return
			}
			at = g.emit(isa.JumpIf32(op, d, s, 0))
		default:
			at = g.emit(isa.JumpIfImm(op, d, g.imm(), 0))
		}
	} else {
		return
	}
	kinds, slots := g.kinds, g.slots
	for range 1 + g.r.IntN(3) {
		g.step(depth - 1)
	}
	g.link(at)
	for i := range g.kinds {
		if g.kinds[i] != kinds[i] && !g.wrong() {
			g.kinds[i] = genNothing
		}
	}
	for i := range g.slots {
		if g.slots[i] != slots[i] {
			g.slots[i] = genNothing
		}
	}
}

// link makes the jump at lead to what comes next.
func (g *generator) link(at int) {
	d := isa.Slots(g.insns[at+1:])
	_ = g.insns[at].SetJump(d)
}

func (g *generator) loop(depth int) {
	c := isa.Register(8 + g.r.IntN(2))
	g.emit(isa.Mov64Imm(c, 0))
	g.set(c, genNothing) // so that the body leaves it alone, mostly
	start := len(g.insns)
	kinds := g.kinds
	for range 1 + g.r.IntN(2) {
		g.step(depth - 2)
	}
	if g.kinds[c] != genNothing && !g.wrong() {
		return
	}
	g.emit(isa.ALU64Imm(isa.Add, c, 1))
	end := g.emit(isa.JumpIfImm(isa.LT, c, int32(2+g.r.IntN(20)), 0))
	_ = g.insns[end].SetJump(-isa.Slots(g.insns[start:]))
	g.set(c, genNumber)
	for i := range g.kinds {
		if isa.Register(i) != c && g.kinds[i] != kinds[i] && !g.wrong() {
			g.kinds[i] = genNothing
		}
	}
}

// function calls a function that works on its arguments.
func (g *generator) function() {
	a, ok := g.pick(genNumber, genSmall)
	if !ok || len(g.funcs) > 2 {
		return
	}
	g.emit(isa.Mov64(1, a))
	body := []isa.Instruction{isa.Mov64(0, 1)}
	if g.r.IntN(2) == 0 {
		body = append(body, isa.ALU64Imm(isa.And, 0, 15), isa.StoreMem(isa.Double, 10, -8, 0), isa.LoadMem(isa.Double, 0, 10, -8))
	}
	if g.r.IntN(2) == 0 {
		body = append(body, isa.JumpIfImm(isa.GT, 0, 7, 1), isa.Exit(), isa.Mov64Imm(0, 7))
	}
	if g.wrong() {
		body = append(body, isa.Mov64(0, 6))
	}
	body = append(body, isa.Exit())
	g.calls = append(g.calls, g.emit(isa.CallLocal(0)))
	g.funcs = append(g.funcs, body)
	g.scratch()
	g.kinds[0] = genNumber
}

func (g *generator) finish() {
	if !g.wrong() {
		g.emit(isa.Mov64Imm(0, int32(g.r.IntN(2))))
	}
	g.emit(isa.Exit())
	end := len(g.insns)
	g.emit(isa.Mov64Imm(0, 0))
	g.emit(isa.Exit())
	if len(g.out) == 0 {
		g.insns = g.insns[:end]
	}
	for _, at := range g.out {
		_ = g.insns[at].SetJump(isa.Slots(g.insns[at+1 : end]))
	}
	for i, at := range g.calls {
		g.insns[at] = isa.CallLocal(int32(isa.Slots(g.insns[at+1:])))
		g.insns = append(g.insns, g.funcs[i]...)
	}
	g.p.Insns = g.insns
}
