//go:build linux && (amd64 || arm64)

package jit

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm/engine"
)

// refEngine is the plainest engine, for comparison.
type refEngine struct{}

type refCode struct{ p *engine.Program }

type refFrame struct {
	code     *refCode
	pc       int
	regs     [4]uint64
	mayGotos int
}

// refFrames holds the frames of states, the current one last.
var refFrames = map[*engine.State][]refFrame{}

func (refEngine) Name() string { return "ref" }

func (refEngine) Compile(p *engine.Program, _ engine.Options) (engine.Code, error) {
	return &refCode{p}, nil
}

func (c *refCode) Start(s *engine.State, fn int) error {
	if err := s.CheckStart(c.p, fn); err != nil {
		return err
	}
	if s.SP == 0 {
		refFrames[s] = nil
	}
	if fn == 0 {
		s.Regs[0] = 0
		clear(s.Regs[6:10])
	}
	s.SP++
	refFrames[s] = append(refFrames[s], refFrame{}, refFrame{code: c, pc: c.p.Funcs[fn], regs: [4]uint64(s.Regs[6:10]), mayGotos: engine.MaxLoops})
	s.ResumePC = 1 // charge first
	s.Budget -= int64(c.p.EntryCost(fn))
	s.Code = c
	return nil
}

func (c *refCode) Tail(s *engine.State) { s.Target, s.Code = 1, c }

func (c *refCode) Program() *engine.Program { return c.p }
func (c *refCode) Size() int                { return 0 }
func (c *refCode) Close() error             { return nil }

func refAt(s *engine.State, addr uint64, off int16, size int) []byte {
	base := *(*unsafe.Pointer)(unsafe.Pointer(&s.Base))
	return unsafe.Slice((*byte)(unsafe.Add(base, int(uint32(addr))+int(off))), size)
}

func refLoad(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func refStore(b []byte, v uint64) {
	switch len(b) {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	default:
		binary.LittleEndian.PutUint64(b, v)
	}
}

func (refEngine) Run(s *engine.State) engine.Exit {
	frames := refFrames[s]
	defer func() { refFrames[s] = frames }()
	exit := func(e engine.Exit, arg uint32) engine.Exit {
		s.Exit, s.Arg = e, arg
		return e
	}
	r := &s.Regs
	if s.ResumePC == 1 {
		s.ResumePC = 2
		if s.Budget < 0 {
			return exit(engine.Budget, s.Arg)
		}
	}
	if s.Fail != 0 {
		s.Fail, r[0] = 0, 0
		f := &frames[len(frames)-1]
		// The exit that follows is that of the program's end.
		f.pc = -1
	}
	if s.Target != 0 {
		s.Target = 0
		c := s.Code.(*refCode)
		f := &frames[len(frames)-1]
		*f = refFrame{code: c, pc: 0, regs: f.regs, mayGotos: engine.MaxLoops}
		copy(r[6:10], f.regs[:])
		if s.Budget -= int64(c.p.EntryCost(0)); s.Budget < 0 {
			return exit(engine.Budget, s.Arg)
		}
	}
	for {
		f := &frames[len(frames)-1]
		p := f.code.p
		pc := f.pc
		insn := isa.Exit()
		if pc >= 0 {
			insn = p.Insns[pc]
		}
		f.pc++
		at := func(e engine.Exit, arg uint32) engine.Exit {
			s.PC = uint32(pc)
			return exit(e, arg)
		}
		src := uint64(insn.Imm)
		if !insn.IsWide() && insn.Op.Source() == isa.SourceReg && (insn.Class().IsALU() || insn.Class().IsJump()) {
			src = r[insn.Src]
		}
		size := insn.Op.Size().Bytes()
		switch class := insn.Class(); {
		case class.IsALU():
			r[insn.Dst] = refALU(insn, r[insn.Dst], src)
		case insn.IsWide():
			r[insn.Dst] = uint64(insn.Imm)
		case class == isa.ClassLD:
			off := uint32(insn.Imm)
			if insn.Op.Mode() == isa.ModeInd {
				off += uint32(r[insn.Src])
			}
			r[0] = uint64(off)
			return at(engine.Packet, uint32(size))
		case class == isa.ClassLDX:
			v := refLoad(refAt(s, r[insn.Src], insn.Off, size))
			if n := 64 - 8*size; insn.Op.Mode() == isa.ModeMemSX {
				v = uint64(int64(v<<n) >> n)
			}
			r[insn.Dst] = v
		case class == isa.ClassST:
			refStore(refAt(s, r[insn.Dst], insn.Off, size), uint64(insn.Imm))
		case class == isa.ClassSTX && !insn.IsAtomic():
			refStore(refAt(s, r[insn.Dst], insn.Off, size), r[insn.Src])
		case class == isa.ClassSTX:
			if !refAtomic(s, insn, size) {
				return at(engine.Fault, uint32(engine.FaultAlign))
			}
		case insn.IsExit():
			regs := f.regs
			frames = frames[:len(frames)-1]
			if frames[len(frames)-1].code == nil {
				frames = frames[:len(frames)-1]
				s.SP--
				s.ResumePC = 0
				return exit(engine.Done, s.Arg)
			}
			copy(r[6:10], regs[:])
			r[10] += engine.FrameSize
		case insn.IsCall() && insn.Src == isa.CallPseudo:
			fn := p.Target(pc)
			if r[10]-engine.FrameSize < uint64(s.StackLimit) {
				return at(engine.Fault, uint32(engine.FaultStack))
			}
			r[10] -= engine.FrameSize
			nf := refFrame{code: f.code, pc: p.Funcs[fn], mayGotos: engine.MaxLoops}
			copy(nf.regs[:], r[6:10])
			frames = append(frames, nf)
			if s.Budget -= int64(p.EntryCost(fn)); s.Budget < 0 {
				return exit(engine.Budget, s.Arg)
			}
		case insn.IsCall():
			c := p.Calls[insn.Imm]
			switch c.Kind {
			case engine.CallHost:
				return at(engine.HostCall, uint32(insn.Imm))
			case engine.CallTail:
				return at(engine.TailCall, uint32(insn.Imm))
			case engine.CallCPU:
				r[0] = uint64(s.CPU)
			case engine.CallArray, engine.CallPerCPUArray:
				k := uint32(refLoad(refAt(s, r[2], 0, 4)))
				r[0] = 0
				if k < c.Count {
					r[0] = uint64(c.Base) + uint64(k)*uint64(c.Size)
					if c.Kind == engine.CallPerCPUArray {
						r[0] += uint64(s.CPU) * uint64(c.Stride)
					}
				}
			}
		default:
			taken := true
			switch op := insn.Op.JumpOp(); op {
			case isa.Always:
			case isa.JCond:
				if taken = f.mayGotos == 0; !taken {
					f.mayGotos--
				}
			default:
				taken = refCompare(insn, r[insn.Dst], src)
			}
			if taken {
				f.pc = p.Target(pc)
				if s.Budget -= int64(p.JumpCost(pc)); s.Budget < 0 && p.JumpCost(pc) > 0 {
					return exit(engine.Budget, s.Arg)
				}
			}
		}
	}
}

func refALU(insn isa.Instruction, d, s uint64) uint64 {
	w := insn.Class() == isa.ClassALU64
	if !w {
		if insn.ALUOp() != isa.End {
			d = uint64(uint32(d))
			if insn.ALUOp() != isa.Mov {
				s = uint64(uint32(s))
			}
		}
	}
	mask := uint64(31)
	if w {
		mask = 63
	}
	sd, ss := int64(d), int64(s)
	if !w {
		sd, ss = int64(int32(d)), int64(int32(s))
	}
	var v uint64
	switch insn.ALUOp() {
	case isa.Add:
		v = d + s
	case isa.Sub:
		v = d - s
	case isa.Mul:
		v = d * s
	case isa.Div:
		if s != 0 {
			v = d / s
		}
	case isa.Mod:
		v = d
		if s != 0 {
			v = d % s
		}
	case isa.SDiv:
		if ss != 0 {
			v = uint64(sd / ss)
		}
	case isa.SMod:
		v = d
		if ss != 0 {
			v = uint64(sd % ss)
		}
	case isa.Or:
		v = d | s
	case isa.And:
		v = d & s
	case isa.Xor:
		v = d ^ s
	case isa.LSh:
		v = d << (s & mask)
	case isa.RSh:
		v = d >> (s & mask)
	case isa.ArSh:
		v = uint64(sd >> (s & mask))
	case isa.Neg:
		v = -d
	case isa.Mov:
		v = s
		switch {
		case insn.IsAddrSpaceCast():
			v = uint64(uint32(s))
		case insn.Op.Source() == isa.SourceReg && insn.Off != 0:
			n := 64 - insn.Off
			v = uint64(int64(s<<n) >> n)
		}
	case isa.End:
		swap := w || insn.Op.Source() == isa.SourceReg
		n := 64 - insn.Imm
		v = d << n >> n
		if swap {
			v = bits.ReverseBytes64(v) >> n
		}
		return v
	}
	if !w {
		v = uint64(uint32(v))
	}
	return v
}

func refCompare(insn isa.Instruction, d, s uint64) bool {
	sd, ss := int64(d), int64(s)
	if insn.Class() == isa.ClassJMP32 {
		d, s = uint64(uint32(d)), uint64(uint32(s))
		sd, ss = int64(int32(d)), int64(int32(s))
	}
	switch insn.Op.JumpOp() {
	case isa.Eq:
		return d == s
	case isa.NE:
		return d != s
	case isa.Set:
		return d&s != 0
	case isa.GT:
		return d > s
	case isa.GE:
		return d >= s
	case isa.LT:
		return d < s
	case isa.LE:
		return d <= s
	case isa.SGT:
		return sd > ss
	case isa.SGE:
		return sd >= ss
	case isa.SLT:
		return sd < ss
	}
	return sd <= ss
}

func refAtomic(s *engine.State, insn isa.Instruction, size int) bool {
	r := &s.Regs
	op := insn.AtomicOp()
	base := insn.Dst
	if op == isa.LoadAcquireOp {
		base = insn.Src
	}
	addr := uint64(uint32(r[base])) + uint64(int64(insn.Off))
	if addr%uint64(size) != 0 {
		return false
	}
	b := refAt(s, r[base], insn.Off, size)
	old := refLoad(b)
	src := r[insn.Src]
	if size == 4 {
		src = uint64(uint32(src))
	}
	switch op {
	case isa.LoadAcquireOp:
		r[insn.Dst] = old
		return true
	case isa.StoreReleaseOp:
		refStore(b, src)
		return true
	case isa.AtomicAdd, isa.FetchAdd:
		refStore(b, old+src)
	case isa.AtomicOr, isa.FetchOr:
		refStore(b, old|src)
	case isa.AtomicAnd, isa.FetchAnd:
		refStore(b, old&src)
	case isa.AtomicXor, isa.FetchXor:
		refStore(b, old^src)
	case isa.Xchg:
		refStore(b, src)
	case isa.CmpXchg:
		cmp := r[0]
		if size == 4 {
			cmp = uint64(uint32(cmp))
		}
		if old == cmp {
			refStore(b, src)
		}
		r[0] = old
		return true
	}
	if op&isa.Fetch != 0 {
		r[insn.Src] = old
	}
	return true
}
