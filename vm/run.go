package vm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/skep-bpf/skep/vm/engine"
)

const (
	// frames is how deep functions may nest (MAX_CALL_FRAMES in
	// include/linux/bpf_verifier.h), callbacks included.
	frames    = 8
	stackSize = frames * engine.FrameSize
	// contextSize is what the largest context takes, and scratch behind it.
	contextSize = 1024
	// maxTailCalls is how many tail calls a run may make (MAX_TAIL_CALL_CNT).
	maxTailCalls = 33
)

// A run is a virtual processor, and the run of a program on it while there is
// one. All that a program must not be able to change is here, outside the cage.
type run struct {
	vm    *VM
	state *engine.State
	cpu   int
	id    uint64 // what it holds locks as; never 0

	// busy is 0, or one more than the epoch in which the run began.
	busy atomic.Uint64
	_    [56]byte

	stack   uint32 // the lowest address of the stack
	top     uint64 // what r10 is at the start
	context uint32 // where contexts are put
	packet  packet

	starts  uint32 // how often a program was started here
	returns uint32 // how often helpers returned to one
	entered int64  // when drive went back to native code, if that is watched, or 0

	// What follows is set once a run has left its program before its end.
	prog      *Program // that was started, or tail-called last
	ctx       context.Context
	done      <-chan struct{}
	err       error // why the run is given up
	tailCalls int
	depth     int // of callbacks
	held      *spinLock
	owned     []owned // what a cancelled run must give back
	redirect  Redirect
	retval    int32  // bpf_get_retval
	timer     *timer // whose callback runs
	dynptrs   dynptrs
	iters     numIters
	_         [64]byte // what lies behind belongs to another processor, perhaps
}

// An owned thing was handed to the program, which has to give it back.
type owned struct {
	addr   uint32
	socket *Socket // if it is one
	end    func(submit bool, flags uint64)
}

func newRun(vm *VM, cpu int) (*run, error) {
	r := &run{vm: vm, cpu: cpu, id: uint64(cpu) + 1, state: engine.NewState(frames + maxNesting)}
	var err error
	if r.stack, err = vm.cage.Alloc(stackSize); err != nil {
		return nil, err
	}
	if r.context, err = vm.cage.Alloc(contextSize); err != nil {
		return nil, err
	}
	r.top = uint64(r.stack) + stackSize
	s := r.state
	s.Base = uintptr(vm.cage.Base())
	s.CPU = uint32(cpu)
	s.StackLimit = r.stack + engine.FrameSize
	return r, nil
}

// hint tells goroutines apart, as each has a stack of its own: a number below
// places.
func hint(place *byte) uint32 {
	return uint32(uintptr(unsafe.Pointer(place))>>11) * 0x9e3779b1 >> (32 - placesLog)
}

const (
	placesLog = 8
	places    = 1 << placesLog
)

// lastRun returns the virtual processor that the goroutine had last, as a rule.
func (vm *VM) lastRun() *run {
	var place byte
	return vm.last[hint(&place)].Load()
}

// idleRun makes an idle virtual processor the caller's, or returns nil.
func (vm *VM) idleRun() *run {
	if r := vm.lastRun(); r.try() {
		return r
	}
	for _, r := range vm.runs {
		if r.try() {
			var place byte
			vm.last[hint(&place)].Store(r)
			return r
		}
	}
	return nil
}

// try makes the processor the caller's if it is idle.
func (r *run) try() bool {
	return r.busy.Load() == 0 && r.busy.CompareAndSwap(0, r.vm.epoch.Load()+1)
}

// release makes the processor idle again.
func (r *run) release() {
	r.busy.Store(0)
	if r.vm.waiting.Load() != 0 {
		r.released()
	}
}

// released does what waited for a processor to become idle.
func (r *run) released() {
	vm := r.vm
	if vm.asleep.Load() != 0 {
		vm.idle.Lock()
		vm.wake.Broadcast()
		vm.idle.Unlock()
	}
	if vm.waiting.Load() != vm.asleep.Load() {
		vm.settle()
	}
}

// A RunError says why a run ended before its program did.
type RunError struct {
	Program string
	// Insn is the index of the instruction, or -1 where it is not known.
	Insn int
	Err  error
}

func (e *RunError) Error() string {
	if e.Insn < 0 {
		return fmt.Sprintf("program %s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("program %s, instruction %d: %v", e.Program, e.Insn, e.Err)
}

// Unwrap returns the reason.
func (e *RunError) Unwrap() error { return e.Err }

// begin sets the registers for a program's start. The context's address is in r1,
// and r2 is for programs that are raw code.
func (r *run) begin(r1, r2 uint64, quantum int64) *engine.State {
	s := r.state
	s.Regs[1], s.Regs[2], s.Regs[3], s.Regs[4], s.Regs[5] = r1, r2, 0, 0, 0
	s.Regs[10], s.Budget = r.top, quantum
	return s
}

// enterWatched starts a program, and notes how long it took to come back.
func (r *run) enterWatched(p *Program) engine.Exit {
	if !r.vm.native {
		return p.code.Enter(r.state)
	}
	budget, before := r.state.Budget, nanotime()
	exit := p.code.Enter(r.state)
	p.pace.ran(nanotime()-before, budget-r.state.Budget)
	return exit
}

// exec runs a program from its start to its end on an acquired processor.
func (r *run) exec(ctx context.Context, p *Program, r1, r2 uint64) (uint64, error) {
	r.begin(r1, r2, p.pace.quantum())
	if r.enterWatched(p) != engine.Done {
		if err := r.finish(ctx, p); err != nil {
			return 0, err
		}
	}
	return r.state.Regs[0], nil
}

// unknownPC is RunError.Insn where it is not known.
const unknownPC = 1<<32 - 1

// finish goes on with a run after its first exit, up to its end.
func (r *run) finish(ctx context.Context, p *Program) error {
	r.prog, r.ctx, r.done, r.tailCalls = p, ctx, ctx.Done(), 0
	err := r.drive()
	if err != nil || r.held != nil || len(r.owned) > 0 || len(r.dynptrs) > 0 || len(r.iters) > 0 {
		r.giveBack()
	}
	if err != nil {
		r.state.Reset()
		return &RunError{Program: p.name, Insn: int(int32(r.state.PC)), Err: err}
	}
	return nil
}

// finishElseRelease is finish, and gives the processor up if the run fails, or a
// function of the host panics.
func (r *run) finishElseRelease(ctx context.Context, p *Program) error {
	done := false
	defer func() {
		if !done {
			r.release()
		}
	}()
	err := r.finish(ctx, p)
	done = err == nil
	return err
}

// drive answers the exits of a run, of which the last is in s.Exit, until
// it is done.
func (r *run) drive() error {
	s := r.state
	budget := s.Budget // when native code was entered
	for {
		now := int64(0)
		if r.entered != 0 {
			now = nanotime()
			r.prog.pace.ran(now-r.entered, budget-s.Budget)
			r.entered = 0
		}
		switch s.Exit {
		case engine.Done:
			return nil
		case engine.HostCall:
			// The program that runs may be a tail-called one, or one returned to.
			call := r.code().hosts[s.Arg]
			s.Regs[0] = call(r)
			if r.err != nil {
				return r.takeError()
			}
			if r.returns++; r.returns%watchReturns == 0 && r.vm.native {
				r.entered = nanotime()
			}
		case engine.TailCall:
			if p := r.tailTarget(); p != nil {
				r.tailCalls++
				p.code.Tail(s)
			} else {
				s.Regs[0] = 0
			}
		case engine.Packet:
			v, ok := r.loadPacket(int32(s.Regs[0]), int(s.Arg))
			s.Regs[0] = v
			if !ok {
				s.Fail = 1
			}
		case engine.Budget:
			if r.err != nil {
				return r.takeError() // of Options.Step
			}
			select {
			case <-r.done:
				s.PC = unknownPC
				return context.Cause(r.ctx)
			default:
			}
			s.Budget = r.prog.pace.quantum()
			if r.vm.native {
				if now == 0 {
					now = nanotime()
				}
				r.entered = now
			}
		case engine.Fault:
			return engine.FaultClass(s.Arg)
		}
		budget = s.Budget
		r.vm.engine.Run(s)
	}
}

// code returns the program whose code runs.
func (r *run) code() *Program {
	if r.prog.code == r.state.Code {
		return r.prog
	}
	return r.vm.programOf(r.state.Code)
}

func (r *run) takeError() error {
	err := r.err
	r.err = nil
	return err
}

// giveUp ends the run with an error once the helper returns.
func (r *run) giveUp(err error) uint64 {
	if r.err == nil {
		r.err = err
	}
	return 0
}

// giveBack returns what the program still holds.
func (r *run) giveBack() {
	if r.held != nil {
		r.held.release(r.id)
		r.held = nil
	}
	for i := len(r.owned) - 1; i >= 0; i-- {
		r.owned[i].end(false, 0)
	}
	r.owned = r.owned[:0]
	r.depth = 0
	clear(r.dynptrs)
	clear(r.iters)
}

// callback runs a function of the program that runs, from a helper. It returns
// false when the run has to be given up.
func (r *run) callback(fn int, args ...uint64) (uint64, bool) {
	if r.depth == maxNesting {
		r.giveUp(errors.New("callbacks nest too deeply"))
		return 0, false
	}
	r.depth++
	defer func() { r.depth-- }()
	s := r.state
	program := s.Code
	saved := s.Suspend()
	copy(s.Regs[1:6], args)
	s.Regs[10] -= engine.FrameSize
	err := program.Start(s, fn)
	if err == nil {
		r.vm.engine.Run(s)
		err = r.drive()
	}
	result := s.Regs[0]
	if err != nil {
		r.giveUp(err)
		return 0, false
	}
	s.Resume(saved)
	return result, true
}

// maxNesting is how many callbacks may be active within each other.
const maxNesting = 8

// charge takes work that a helper does from the budget of the run.
func (r *run) charge(n int) { r.state.Budget -= int64(n) }

// interrupted reports whether a helper that works for long should stop; it
// gives the run up then.
func (r *run) interrupted() bool {
	if r.state.Budget >= 0 {
		return false
	}
	select {
	case <-r.done:
		r.giveUp(context.Cause(r.ctx))
		return true
	default:
		r.state.Budget = engine.Quantum
		return false
	}
}

// arg returns an argument of a helper, from 1.
func (r *run) arg(i int) uint64 { return r.state.Regs[i] }

// bytes returns memory that a program names.
func (r *run) bytes(addr uint64, n uint64) ([]byte, bool) {
	if n > 1<<31 {
		return nil, false
	}
	return r.vm.cage.Bytes(uint32(addr), int(n))
}
