package vm

import (
	"context"
	"sync"
	"time"
)

// timers are the timers of a vm (struct bpf_timer), by the address of the field
// that stands for them.
type timers struct {
	vm *VM

	mu     sync.Mutex
	byAddr map[uint32]*timer
	closed bool
}

type timer struct {
	m       *Map
	addr    uint32 // of the value
	fn      int
	prog    *Program // that the callback belongs to, held; nil for none
	stop    func() bool
	round   int // of start, so that a late callback knows that it is not meant
	pending bool
}

// drop ends the timer at an address, whose value goes away.
func (ts *timers) drop(addr uint32) {
	ts.mu.Lock()
	t := ts.byAddr[addr]
	delete(ts.byAddr, addr)
	prog := t.cancel()
	ts.mu.Unlock()
	if prog != nil {
		prog.Close()
	}
}

// cancel stops the timer and returns the program that is to be given up.
func (t *timer) cancel() (prog *Program) {
	if t == nil {
		return nil
	}
	if t.stop != nil {
		t.stop()
	}
	t.round++
	t.pending = false
	prog, t.prog = t.prog, nil
	return prog
}

func (ts *timers) close() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.closed = true
	for _, t := range ts.byAddr {
		t.cancel()
	}
	ts.byAddr = nil
}

func timerInit(r *run) uint64 {
	const monotonicClock, realClock, bootClock = 1, 0, 7
	m := r.vm.mapAt(r.arg(2))
	if m == nil {
		return r.badMap(2)
	}
	flags := r.arg(3)
	if flags != monotonicClock && flags != realClock && flags != bootClock {
		return EINVAL.result()
	}
	f, ok := m.field(fieldTimer)
	if !ok {
		return EINVAL.result()
	}
	addr := uint32(r.arg(1)) & r.vm.cage.Mask()
	ts := &r.vm.timers
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		return EPERM.result()
	}
	if ts.byAddr[addr] != nil {
		return EBUSY.result()
	}
	if ts.byAddr == nil {
		ts.byAddr = map[uint32]*timer{}
	}
	ts.byAddr[addr] = &timer{m: m, addr: addr - uint32(f.offset)}
	return 0
}

// timerAt returns the timer of the first argument, with the lock held.
func (r *run) timerAt() (*timers, *timer) {
	ts := &r.vm.timers
	ts.mu.Lock()
	return ts, ts.byAddr[uint32(r.arg(1))&r.vm.cage.Mask()]
}

func timerSetCallback(r *run) uint64 {
	prog := r.code()
	ts, t := r.timerAt()
	if t == nil {
		ts.mu.Unlock()
		return EINVAL.result()
	}
	old := t.prog
	if fn := int(r.arg(2)); fn < 0 || fn >= len(prog.linked.Funcs) || !prog.hold() {
		ts.mu.Unlock()
		return EINVAL.result()
	} else {
		t.fn, t.prog = fn, prog
	}
	ts.mu.Unlock()
	if old != nil {
		old.Close()
	}
	return 0
}

func timerStart(r *run) uint64 {
	const absolute, pinned = 1, 2
	flags := r.arg(3)
	if flags&^(absolute|pinned) != 0 {
		return EINVAL.result()
	}
	ts, t := r.timerAt()
	defer ts.mu.Unlock()
	if t == nil || t.prog == nil {
		return EINVAL.result()
	}
	d := r.arg(2)
	if flags&absolute != 0 {
		if now := r.vm.host.Monotonic(); d > now {
			d -= now
		} else {
			d = 0
		}
	}
	if t.stop != nil {
		t.stop()
	}
	t.round++
	t.pending = true
	round := t.round
	t.stop = r.vm.host.AfterFunc(time.Duration(min(d, 1<<62)), func() { ts.fire(t, round) })
	return 0
}

func timerCancel(r *run) uint64 {
	ts, t := r.timerAt()
	if t == nil {
		ts.mu.Unlock()
		return EINVAL.result()
	}
	if r.timer == t {
		ts.mu.Unlock()
		return EDEADLK.result()
	}
	was := t.pending
	prog := t.cancel()
	ts.mu.Unlock()
	if prog != nil {
		prog.Close()
	}
	if was {
		return 1
	}
	return 0
}

// fire runs the callback of a timer on a virtual processor.
func (ts *timers) fire(t *timer, round int) {
	vm := ts.vm
	r, err := vm.acquire(context.Background(), -1)
	if err != nil {
		return
	}
	defer r.release()
	ts.mu.Lock()
	prog := t.prog
	if ts.closed || t.round != round || prog == nil || prog.closed.Load() {
		ts.mu.Unlock()
		return
	}
	t.pending = false
	m, addr, fn := t.m, t.addr, t.fn
	ts.mu.Unlock()
	key := m.keyAt(addr)
	if key == nil {
		return
	}
	at, e := r.keySpace(len(key))
	if e != 0 {
		return
	}
	defer r.dropKeySpace(at)
	b, _ := vm.cage.Bytes(at, len(key))
	copy(b, key)
	r.timer = t
	defer func() { r.timer = nil }()
	if err := r.execFunc(prog, fn, uint64(m.handle), uint64(at), uint64(addr)); err != nil {
		vm.host.Print("skep: timer: " + err.Error() + "\n")
	}
}

// execFunc runs a function of a program outside of any run of it.
func (r *run) execFunc(p *Program, fn int, args ...uint64) error {
	r.prog, r.ctx, r.done, r.tailCalls = p, context.Background(), nil, 0
	s := r.state
	clear(s.Regs[:])
	copy(s.Regs[1:6], args)
	s.Regs[10] = r.top
	s.Budget = p.pace.quantum()
	if err := p.code.Start(s, fn); err != nil {
		return err
	}
	r.vm.engine.Run(s)
	err := r.drive()
	r.giveBack()
	if err != nil {
		s.Reset()
		return &RunError{Program: p.name, Insn: int(int32(s.PC)), Err: err}
	}
	return nil
}

// keyAt returns the key of the value at an address, or nil.
func (m *Map) keyAt(addr uint32) []byte {
	switch t := m.table.(type) {
	case *arrayTable:
		return native.AppendUint32(nil, (addr-t.base)/t.stride)
	case *hashTable:
		for i := range t.chunks {
			c := t.chunks[i].Load()
			if c == nil {
				continue
			}
			if k := (addr - c.values) / uint32(m.valueStride()); addr >= c.values && k < uint32(len(c.elems)) {
				return t.keyOf(uint32(i)<<t.shift + k + 1)
			}
		}
	}
	return nil
}

func init() {
	for id, f := range map[int32]helperFunc{169: timerInit, 170: timerSetCallback, 171: timerStart, 172: timerCancel} {
		helpers[id] = f
	}
}
