package interp

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/skep-bpf/skep/vm/cage"
	"github.com/skep-bpf/skep/vm/engine"
)

// An Engine interprets programs over one cage.
type Engine struct {
	memory memory

	mu    sync.Mutex
	codes atomic.Pointer[[]*code] // by number; closed ones are nil
}

// New returns an engine for programs over c.
func New(c *cage.Cage) *Engine {
	e := &Engine{memory: newMemory(c)}
	e.codes.Store(&[]*code{nil})
	return e
}

// Name implements [engine.Engine].
func (e *Engine) Name() string { return "interp" }

// A code is a program made ready.
type code struct {
	engine  *Engine
	program *engine.Program
	insns   []insn
	// Of a [Stepper], whose insns are stops.
	stepper *Stepper
	real    []insn
	number  uint64 // in Engine.codes; what a frame remembers of its program
}

// Compile implements [engine.Engine].
func (e *Engine) Compile(p *engine.Program, _ engine.Options) (engine.Code, error) {
	c := &code{engine: e, program: p, insns: make([]insn, len(p.Insns))}
	for i := range p.Insns {
		c.insns[i] = decode(p, i)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	old := *e.codes.Load()
	list := append(make([]*code, 0, len(old)+1), old...)
	for n := 1; n < len(list) && c.number == 0; n++ {
		if list[n] == nil {
			c.number, list[n] = uint64(n), c
		}
	}
	if c.number == 0 {
		c.number, list = uint64(len(list)), append(list, c)
	}
	e.codes.Store(&list)
	return c, nil
}

// Close implements [engine.Code].
func (c *code) Close() error {
	e := c.engine
	e.mu.Lock()
	defer e.mu.Unlock()
	list := append([]*code(nil), *e.codes.Load()...)
	if n := c.number; n != 0 && list[n] == c {
		list[n] = nil
		e.codes.Store(&list)
	}
	return nil
}

// Program implements [engine.Code].
func (c *code) Program() *engine.Program { return c.program }

// Size implements [engine.Code].
func (c *code) Size() int { return len(c.insns) * int(unsafe.Sizeof(insn{})) }

// A frame of State.Stack is one activation of a function. State.SP is the index
// of the innermost one, and 0 when nothing runs.
const (
	frameReturn = iota // where the caller goes on, or toHost
	frameR6            // r6 to r9 of the caller
	_
	_
	_
	frameLoops // how often may_goto fell through in this activation
	frameCode  // number of the caller's code
)

// toHost is the return address of a function that Start began.
const toHost = 1<<64 - 1

// Start implements [engine.Code].
func (c *code) Start(s *engine.State, fn int) error {
	if err := s.CheckStart(c.program, fn); err != nil {
		return err
	}
	sp := s.SP
	if sp == 0 {
		sp = uintptr(len(s.Stack))
	}
	if sp <= engine.FrameWords {
		return engine.FaultStack
	}
	sp -= engine.FrameWords
	s.Stack[sp+frameReturn], s.Stack[sp+frameLoops], s.Stack[sp+frameCode] = toHost, 0, 0
	s.SP = sp
	if fn == 0 {
		s.Regs[0], s.Regs[6], s.Regs[7], s.Regs[8], s.Regs[9] = 0, 0, 0, 0, 0
	}
	copy(s.Stack[sp+frameR6:], s.Regs[6:10])
	c.enter(s, fn)
	return nil
}

// Enter implements [engine.Code].
func (c *code) Enter(s *engine.State) engine.Exit {
	if c.Start(s, 0) != nil {
		s.Exit, s.Arg = engine.Fault, uint32(engine.FaultStack)
		return engine.Fault
	}
	if c.stepper != nil {
		return c.stepper.Run(s)
	}
	s.Exit = c.engine.run(s, c)
	return s.Exit
}

// Tail implements [engine.Code].
func (c *code) Tail(s *engine.State) {
	s.Stack[s.SP+frameLoops] = 0
	copy(s.Regs[6:10], s.Stack[s.SP+frameR6:])
	c.enter(s, 0)
}

func (c *code) enter(s *engine.State, fn int) {
	s.Code, s.ResumePC = c, uintptr(c.program.Funcs[fn])
	s.Budget -= int64(c.program.EntryCost(fn))
}

// reg is a register by its offset in State.Regs.
func reg(r unsafe.Pointer, offset uint8) *uint64 { return (*uint64)(unsafe.Add(r, offset)) }

// next is the size of an insn, by which ip goes on.
const next = unsafe.Sizeof(insn{})

// giveUp is what a function goes on with whose packet access failed.
var giveUp = insn{op: opExit}

// Run implements [engine.Engine].
func (e *Engine) Run(s *engine.State) engine.Exit {
	c, ok := s.Code.(*code)
	if !ok || s.SP == 0 {
		panic(fmt.Sprintf("interp: Run without a run that was started here (code %T)", s.Code))
	}
	s.Exit = e.run(s, c)
	return s.Exit
}

// run executes what straight cannot, and goes on with it.
func (e *Engine) run(s *engine.State, c *code) engine.Exit {
	first := unsafe.Pointer(unsafe.SliceData(c.insns))
	ip := unsafe.Add(first, s.ResumePC*next)
	r := unsafe.Pointer(&s.Regs)
	if s.Fail != 0 { // a packet access failed: the function returns 0
		s.Fail = 0
		s.Regs[0] = 0
		ip = unsafe.Pointer(&giveUp)
	}
	if s.Budget < 0 {
		return engine.Budget
	}
	for {
		var why op
		ip, why = straight(s, e.memory, first, c.number, ip)
		in := (*insn)(unsafe.Add(ip, -int(next))) // which straight stopped behind
		switch why {
		case opSpent:
			s.ResumePC = index(first, ip)
			return engine.Budget
		case opAtomic:
			if !doAtomic(e.memory, r, in) {
				s.Arg = uint32(engine.FaultAlign)
				return leave(s, first, ip, engine.Fault)
			}
		case opSDiv64R, opSDiv64K, opSMod64R, opSMod64K, opSDiv32R, opSDiv32K, opSMod32R, opSMod32K:
			divideSigned(r, in)
		case opCallLocal: // which straight refused
			s.Arg = uint32(engine.FaultStack)
			return leave(s, first, ip, engine.Fault)
		case opExit:
			frame := (*[engine.FrameWords]uint64)(s.Stack[s.SP:])
			back := frame[frameReturn]
			s.SP += engine.FrameWords
			if back == toHost {
				if s.SP == uintptr(len(s.Stack)) {
					s.SP = 0
				}
				return engine.Done
			}
			restore(s, frame)
			// A tail call went elsewhere.
			c = (*e.codes.Load())[frame[frameCode]]
			s.Code = c
			first = unsafe.Pointer(unsafe.SliceData(c.insns))
			ip = unsafe.Add(first, uintptr(back)*next)
		case opCallHost:
			s.Arg = uint32(in.imm)
			return leave(s, first, ip, engine.HostCall)
		case opCallTail:
			s.Arg = uint32(in.imm)
			return leave(s, first, ip, engine.TailCall)
		case opCallArray, opCallPerCPUArray:
			call := &c.program.Calls[in.imm]
			s.Regs[0] = 0
			if k := e.memory.load32(s.Regs[2], 0); k < call.Count {
				s.Regs[0] = uint64(call.Base + k*call.Size)
				if why == opCallPerCPUArray {
					s.Regs[0] += uint64(s.CPU * call.Stride)
				}
			}
		case opStop:
			s.ResumePC = index(first, ip) - 1
			return stepped
		case opPacketAbs:
			s.Regs[0] = uint64(in.imm)
			s.Arg = uint32(in.size)
			return leave(s, first, ip, engine.Packet)
		case opPacketInd:
			s.Regs[0] = uint64(int64(int32(uint32(*reg(r, in.src)) + uint32(in.imm))))
			s.Arg = uint32(in.size)
			return leave(s, first, ip, engine.Packet)
		}
	}
}

// divideSigned executes a signed division or remainder.
func divideSigned(r unsafe.Pointer, in *insn) {
	switch in.op {
	case opSDiv64R:
		*reg(r, in.dst) = sdiv64(*reg(r, in.dst), *reg(r, in.src))
	case opSDiv64K:
		*reg(r, in.dst) = sdiv64(*reg(r, in.dst), uint64(in.imm))
	case opSDiv32R:
		*reg(r, in.dst) = uint64(sdiv32(uint32(*reg(r, in.dst)), uint32(*reg(r, in.src))))
	case opSDiv32K:
		*reg(r, in.dst) = uint64(sdiv32(uint32(*reg(r, in.dst)), uint32(in.imm)))
	case opSMod64R:
		*reg(r, in.dst) = smod64(*reg(r, in.dst), *reg(r, in.src))
	case opSMod64K:
		*reg(r, in.dst) = smod64(*reg(r, in.dst), uint64(in.imm))
	case opSMod32R:
		*reg(r, in.dst) = uint64(smod32(uint32(*reg(r, in.dst)), uint32(*reg(r, in.src))))
	case opSMod32K:
		*reg(r, in.dst) = uint64(smod32(uint32(*reg(r, in.dst)), uint32(in.imm)))
	}
}

// restore gives the caller of a function that ends its registers back.
func restore(s *engine.State, frame *[engine.FrameWords]uint64) {
	s.Regs[6], s.Regs[7], s.Regs[8], s.Regs[9] = frame[frameR6], frame[frameR6+1], frame[frameR6+2], frame[frameR6+3]
	s.Regs[10] += engine.FrameSize
}

// straight runs from ip until an instruction that takes more than it can do, or
// until the budget is spent; it returns what follows that instruction. It calls
// nothing: so the compiler keeps everything in registers over the switch.
func straight(s *engine.State, m memory, first unsafe.Pointer, number uint64, ip unsafe.Pointer) (unsafe.Pointer, op) {
	// ip stays within the program because engine.New checked every jump. What
	// moves it elsewhere goes around the loop's step: then the step has one register
	// to count in, and all other cases jump to it, which is next to the switch.
	//
	// On amd64 these stores, which change nothing that counts, make the loop begin 34
	// bytes behind the function, which begins at a multiple of 32: so its first 28
	// bytes, which every instruction goes through, are in one cache line. Over two
	// lines the interpreter takes almost twice as long; which it was would depend on
	// what else is linked. BenchmarkInstructions shows it.
	s.Exit, s.PC, s.Fail = 0, 0, 0
	s.Scratch[0] = number
	r := unsafe.Pointer(&s.Regs)
	for ; ; ip = unsafe.Add(ip, next) {
	here:
		in := (*insn)(ip)
		switch in.op {
		case opAdd64R:
			*reg(r, in.dst) += *reg(r, in.src)
		case opAdd64K:
			*reg(r, in.dst) += uint64(in.imm)
		case opSub64R:
			*reg(r, in.dst) -= *reg(r, in.src)
		case opSub64K:
			*reg(r, in.dst) -= uint64(in.imm)
		case opMul64R:
			*reg(r, in.dst) *= *reg(r, in.src)
		case opMul64K:
			*reg(r, in.dst) *= uint64(in.imm)
		case opOr64R:
			*reg(r, in.dst) |= *reg(r, in.src)
		case opOr64K:
			*reg(r, in.dst) |= uint64(in.imm)
		case opAnd64R:
			*reg(r, in.dst) &= *reg(r, in.src)
		case opAnd64K:
			*reg(r, in.dst) &= uint64(in.imm)
		case opXor64R:
			*reg(r, in.dst) ^= *reg(r, in.src)
		case opXor64K:
			*reg(r, in.dst) ^= uint64(in.imm)
		case opMov64R:
			*reg(r, in.dst) = *reg(r, in.src)
		case opMov64K:
			*reg(r, in.dst) = uint64(in.imm)
		case opLSh64R:
			*reg(r, in.dst) <<= *reg(r, in.src) & 63
		case opLSh64K:
			*reg(r, in.dst) <<= uint64(in.imm) & 63
		case opRSh64R:
			*reg(r, in.dst) >>= *reg(r, in.src) & 63
		case opRSh64K:
			*reg(r, in.dst) >>= uint64(in.imm) & 63
		case opArSh64R:
			*reg(r, in.dst) = uint64(int64(*reg(r, in.dst)) >> (*reg(r, in.src) & 63))
		case opArSh64K:
			*reg(r, in.dst) = uint64(int64(*reg(r, in.dst)) >> (uint64(in.imm) & 63))
		case opNeg64:
			*reg(r, in.dst) = -*reg(r, in.dst)
		case opDiv64R:
			*reg(r, in.dst) = div64(*reg(r, in.dst), *reg(r, in.src))
		case opDiv64K:
			*reg(r, in.dst) = div64(*reg(r, in.dst), uint64(in.imm))
		case opDiv32R:
			*reg(r, in.dst) = uint64(div32(uint32(*reg(r, in.dst)), uint32(*reg(r, in.src))))
		case opDiv32K:
			*reg(r, in.dst) = uint64(div32(uint32(*reg(r, in.dst)), uint32(in.imm)))
		case opMod64R:
			*reg(r, in.dst) = mod64(*reg(r, in.dst), *reg(r, in.src))
		case opMod64K:
			*reg(r, in.dst) = mod64(*reg(r, in.dst), uint64(in.imm))
		case opMod32R:
			*reg(r, in.dst) = uint64(mod32(uint32(*reg(r, in.dst)), uint32(*reg(r, in.src))))
		case opMod32K:
			*reg(r, in.dst) = uint64(mod32(uint32(*reg(r, in.dst)), uint32(in.imm)))
		case opAdd32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) + uint32(*reg(r, in.src)))
		case opAdd32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) + uint32(in.imm))
		case opSub32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) - uint32(*reg(r, in.src)))
		case opSub32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) - uint32(in.imm))
		case opMul32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) * uint32(*reg(r, in.src)))
		case opMul32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) * uint32(in.imm))
		case opOr32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) | uint32(*reg(r, in.src)))
		case opOr32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) | uint32(in.imm))
		case opAnd32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) & uint32(*reg(r, in.src)))
		case opAnd32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) & uint32(in.imm))
		case opXor32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) ^ uint32(*reg(r, in.src)))
		case opXor32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) ^ uint32(in.imm))
		case opMov32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.src)))
		case opMov32K:
			*reg(r, in.dst) = uint64(uint32(in.imm))
		case opLSh32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) << (*reg(r, in.src) & 31))
		case opLSh32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) << (uint32(in.imm) & 31))
		case opRSh32R:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) >> (*reg(r, in.src) & 31))
		case opRSh32K:
			*reg(r, in.dst) = uint64(uint32(*reg(r, in.dst)) >> (uint32(in.imm) & 31))
		case opArSh32R:
			*reg(r, in.dst) = uint64(uint32(int32(*reg(r, in.dst)) >> (*reg(r, in.src) & 31)))
		case opArSh32K:
			*reg(r, in.dst) = uint64(uint32(int32(*reg(r, in.dst)) >> (uint32(in.imm) & 31)))
		case opNeg32:
			*reg(r, in.dst) = uint64(-uint32(*reg(r, in.dst)))
		case opMovSX64x8:
			*reg(r, in.dst) = uint64(int64(int8(*reg(r, in.src))))
		case opMovSX64x16:
			*reg(r, in.dst) = uint64(int64(int16(*reg(r, in.src))))
		case opMovSX64x32:
			*reg(r, in.dst) = uint64(int64(int32(*reg(r, in.src))))
		case opMovSX32x8:
			*reg(r, in.dst) = uint64(uint32(int32(int8(*reg(r, in.src)))))
		case opMovSX32x16:
			*reg(r, in.dst) = uint64(uint32(int32(int16(*reg(r, in.src)))))
		case opSwap16:
			*reg(r, in.dst) = uint64(bits.ReverseBytes16(uint16(*reg(r, in.dst))))
		case opSwap32:
			*reg(r, in.dst) = uint64(bits.ReverseBytes32(uint32(*reg(r, in.dst))))
		case opSwap64:
			*reg(r, in.dst) = bits.ReverseBytes64(*reg(r, in.dst))
		case opTrunc16:
			*reg(r, in.dst) = uint64(uint16(*reg(r, in.dst)))
		case opNop:
		case opLoad8:
			*reg(r, in.dst) = uint64(m.load8(*reg(r, in.src), in.off))
		case opLoad16:
			*reg(r, in.dst) = uint64(m.load16(*reg(r, in.src), in.off))
		case opLoad32:
			*reg(r, in.dst) = uint64(m.load32(*reg(r, in.src), in.off))
		case opLoad64:
			*reg(r, in.dst) = m.load64(*reg(r, in.src), in.off)
		case opLoadS8:
			*reg(r, in.dst) = uint64(int64(int8(m.load8(*reg(r, in.src), in.off))))
		case opLoadS16:
			*reg(r, in.dst) = uint64(int64(int16(m.load16(*reg(r, in.src), in.off))))
		case opLoadS32:
			*reg(r, in.dst) = uint64(int64(int32(m.load32(*reg(r, in.src), in.off))))
		case opStore8:
			m.store8(*reg(r, in.dst), in.off, uint8(*reg(r, in.src)))
		case opStore16:
			m.store16(*reg(r, in.dst), in.off, uint16(*reg(r, in.src)))
		case opStore32:
			m.store32(*reg(r, in.dst), in.off, uint32(*reg(r, in.src)))
		case opStore64:
			m.store64(*reg(r, in.dst), in.off, *reg(r, in.src))
		case opStoreK8:
			m.store8(*reg(r, in.dst), in.off, uint8(in.imm))
		case opStoreK16:
			m.store16(*reg(r, in.dst), in.off, uint16(in.imm))
		case opStoreK32:
			m.store32(*reg(r, in.dst), in.off, uint32(in.imm))
		case opStoreK64:
			m.store64(*reg(r, in.dst), in.off, uint64(in.imm))
		case opJmp:
			goto jump
		case opJEqR:
			if *reg(r, in.dst) == *reg(r, in.src) {
				goto jump
			}
		case opJEqK:
			if *reg(r, in.dst) == uint64(in.imm) {
				goto jump
			}
		case opJGTR:
			if *reg(r, in.dst) > *reg(r, in.src) {
				goto jump
			}
		case opJGTK:
			if *reg(r, in.dst) > uint64(in.imm) {
				goto jump
			}
		case opJGER:
			if *reg(r, in.dst) >= *reg(r, in.src) {
				goto jump
			}
		case opJGEK:
			if *reg(r, in.dst) >= uint64(in.imm) {
				goto jump
			}
		case opJNER:
			if *reg(r, in.dst) != *reg(r, in.src) {
				goto jump
			}
		case opJNEK:
			if *reg(r, in.dst) != uint64(in.imm) {
				goto jump
			}
		case opJLTR:
			if *reg(r, in.dst) < *reg(r, in.src) {
				goto jump
			}
		case opJLTK:
			if *reg(r, in.dst) < uint64(in.imm) {
				goto jump
			}
		case opJLER:
			if *reg(r, in.dst) <= *reg(r, in.src) {
				goto jump
			}
		case opJLEK:
			if *reg(r, in.dst) <= uint64(in.imm) {
				goto jump
			}
		case opJSGTR:
			if int64(*reg(r, in.dst)) > int64(*reg(r, in.src)) {
				goto jump
			}
		case opJSGTK:
			if int64(*reg(r, in.dst)) > in.imm {
				goto jump
			}
		case opJSGER:
			if int64(*reg(r, in.dst)) >= int64(*reg(r, in.src)) {
				goto jump
			}
		case opJSGEK:
			if int64(*reg(r, in.dst)) >= in.imm {
				goto jump
			}
		case opJSLTR:
			if int64(*reg(r, in.dst)) < int64(*reg(r, in.src)) {
				goto jump
			}
		case opJSLTK:
			if int64(*reg(r, in.dst)) < in.imm {
				goto jump
			}
		case opJSLER:
			if int64(*reg(r, in.dst)) <= int64(*reg(r, in.src)) {
				goto jump
			}
		case opJSLEK:
			if int64(*reg(r, in.dst)) <= in.imm {
				goto jump
			}
		case opJSetR:
			if *reg(r, in.dst)&*reg(r, in.src) != 0 {
				goto jump
			}
		case opJSetK:
			if *reg(r, in.dst)&uint64(in.imm) != 0 {
				goto jump
			}
		case opJEq32R:
			if uint32(*reg(r, in.dst)) == uint32(*reg(r, in.src)) {
				goto jump
			}
		case opJEq32K:
			if uint32(*reg(r, in.dst)) == uint32(in.imm) {
				goto jump
			}
		case opJGT32R:
			if uint32(*reg(r, in.dst)) > uint32(*reg(r, in.src)) {
				goto jump
			}
		case opJGT32K:
			if uint32(*reg(r, in.dst)) > uint32(in.imm) {
				goto jump
			}
		case opJGE32R:
			if uint32(*reg(r, in.dst)) >= uint32(*reg(r, in.src)) {
				goto jump
			}
		case opJGE32K:
			if uint32(*reg(r, in.dst)) >= uint32(in.imm) {
				goto jump
			}
		case opJNE32R:
			if uint32(*reg(r, in.dst)) != uint32(*reg(r, in.src)) {
				goto jump
			}
		case opJNE32K:
			if uint32(*reg(r, in.dst)) != uint32(in.imm) {
				goto jump
			}
		case opJLT32R:
			if uint32(*reg(r, in.dst)) < uint32(*reg(r, in.src)) {
				goto jump
			}
		case opJLT32K:
			if uint32(*reg(r, in.dst)) < uint32(in.imm) {
				goto jump
			}
		case opJLE32R:
			if uint32(*reg(r, in.dst)) <= uint32(*reg(r, in.src)) {
				goto jump
			}
		case opJLE32K:
			if uint32(*reg(r, in.dst)) <= uint32(in.imm) {
				goto jump
			}
		case opJSGT32R:
			if int32(*reg(r, in.dst)) > int32(*reg(r, in.src)) {
				goto jump
			}
		case opJSGT32K:
			if int32(*reg(r, in.dst)) > int32(in.imm) {
				goto jump
			}
		case opJSGE32R:
			if int32(*reg(r, in.dst)) >= int32(*reg(r, in.src)) {
				goto jump
			}
		case opJSGE32K:
			if int32(*reg(r, in.dst)) >= int32(in.imm) {
				goto jump
			}
		case opJSLT32R:
			if int32(*reg(r, in.dst)) < int32(*reg(r, in.src)) {
				goto jump
			}
		case opJSLT32K:
			if int32(*reg(r, in.dst)) < int32(in.imm) {
				goto jump
			}
		case opJSLE32R:
			if int32(*reg(r, in.dst)) <= int32(*reg(r, in.src)) {
				goto jump
			}
		case opJSLE32K:
			if int32(*reg(r, in.dst)) <= int32(in.imm) {
				goto jump
			}
		case opJSet32R:
			if uint32(*reg(r, in.dst))&uint32(*reg(r, in.src)) != 0 {
				goto jump
			}
		case opJSet32K:
			if uint32(*reg(r, in.dst))&uint32(in.imm) != 0 {
				goto jump
			}
		case opMayGoto:
			if s.Stack[s.SP+frameLoops] >= engine.MaxLoops {
				goto jump
			}
			s.Stack[s.SP+frameLoops]++
		case opCallLocal:
			sp := s.SP - engine.FrameWords
			if s.SP <= engine.FrameWords || s.SP > uintptr(len(s.Stack)) || s.Regs[10] < uint64(s.StackLimit)+engine.FrameSize {
				return unsafe.Add(ip, next), opCallLocal
			}
			frame := (*[engine.FrameWords]uint64)(unsafe.Pointer(&s.Stack[sp]))
			frame[frameReturn] = uint64(index(first, ip)) + 1
			frame[frameR6], frame[frameR6+1], frame[frameR6+2], frame[frameR6+3] = s.Regs[6], s.Regs[7], s.Regs[8], s.Regs[9]
			frame[frameLoops], frame[frameCode] = 0, number
			s.SP = sp
			s.Regs[10] -= engine.FrameSize
			ip = unsafe.Add(first, uintptr(in.imm)*next)
			if s.Budget -= int64(in.off); s.Budget < 0 {
				return ip, opSpent
			}
			goto here
		case opExit:
			frame := (*[engine.FrameWords]uint64)(unsafe.Pointer(&s.Stack[s.SP]))
			if frame[frameCode] != number { // to the host, or to another program
				return unsafe.Add(ip, next), opExit
			}
			s.SP += engine.FrameWords
			restore(s, frame)
			ip = unsafe.Add(first, uintptr(frame[frameReturn])*next)
			goto here
		case opCallCPU:
			s.Regs[0] = uint64(s.CPU)
		default:
			return unsafe.Add(ip, next), in.op
		}
		continue

	jump:
		ip = unsafe.Add(ip, int(in.off+1)*int(next))
		if in.off < 0 {
			// From the target up to the jump, both included.
			if s.Budget += int64(in.off); s.Budget < 0 {
				return ip, opSpent
			}
		}
		goto here
	}
}

// index is the number of the instruction at ip.
func index(first, ip unsafe.Pointer) uintptr { return (uintptr(ip) - uintptr(first)) / next }

// leave notes where the run goes on, and which instruction left.
func leave(s *engine.State, first, ip unsafe.Pointer, exit engine.Exit) engine.Exit {
	s.ResumePC = index(first, ip)
	s.PC = uint32(s.ResumePC) - 1
	return exit
}

// Division as RFC 9669 section 4.1 has it: by zero it gives zero, and the
// remainder is the dividend.

func div64(a, b uint64) uint64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func mod64(a, b uint64) uint64 {
	if b == 0 {
		return a
	}
	return a % b
}

func sdiv64(a, b uint64) uint64 {
	if b == 0 {
		return 0
	}
	return uint64(int64(a) / int64(b)) // Go: the smallest by -1 is itself
}

func smod64(a, b uint64) uint64 {
	if b == 0 {
		return a
	}
	return uint64(int64(a) % int64(b))
}

func div32(a, b uint32) uint32 {
	if b == 0 {
		return 0
	}
	return a / b
}

func mod32(a, b uint32) uint32 {
	if b == 0 {
		return a
	}
	return a % b
}

func sdiv32(a, b uint32) uint32 {
	if b == 0 {
		return 0
	}
	return uint32(int32(a) / int32(b))
}

func smod32(a, b uint32) uint32 {
	if b == 0 {
		return a
	}
	return uint32(int32(a) % int32(b))
}
