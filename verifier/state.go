package verifier

import "slices"

// A slotKind is what a byte of the stack holds (enum bpf_stack_slot_type).
type slotKind uint8

const (
	slotInvalid slotKind = iota
	slotSpill
	slotMisc
	slotZero
	slotDynptr
	slotIter
	slotIRQ
)

// A slot is eight bytes of stack. kind[7] is the byte at the lowest address, as
// in the kernel, so that a spill of n bytes at an aligned address takes the
// last n.
type slot struct {
	reg
	kind [8]slotKind
}

func (s *slot) spilled() bool { return s.kind[7] == slotSpill }

func (s *slot) spilledScalar64() bool { return s.kind[0] == slotSpill && s.typ == scalar }

// special reports whether the slot is more than bytes.
func (s *slot) special() bool {
	return s.kind[7] == slotSpill || s.kind[7] == slotDynptr || s.kind[7] == slotIter || s.kind[7] == slotIRQ
}

// scrub turns what the slot holds into bytes of which nothing is known.
func (s *slot) scrub() {
	for i := range s.kind {
		if s.kind[i] != slotInvalid {
			s.kind[i] = slotMisc
		}
	}
}

const (
	stackSize  = 512 // MAX_BPF_STACK
	stackSlots = stackSize / 8
	maxFrames  = 8 // MAX_CALL_FRAMES
	numRegs    = 11
	fp         = 10
)

// A frame is a function that is being run. stack[i] is the slot at fp-8(i+1).
type frame struct {
	regs     [numRegs]reg
	stack    []slot
	callsite int32 // slot of the call; -1 for the program and asynchronous callbacks
	subprog  int32
	// read and written are the slots (bit i for stack[i]) that were read, here
	// or on paths from here on, and that were wholly written since the state
	// began (REG_LIVE_READ, REG_LIVE_WRITTEN).
	read, written uint64
	// linked: the same call is in the parent state's frame.
	linked        bool
	inCallback    bool
	inAsync       bool
	callbackDepth uint32
	// asyncEntry counts asynchronous callbacks that led here.
	asyncEntry uint32
	// callback says how the frame ends when it is a callback.
	callback callbackKind
	retRange retRange
}

// A ref is a resource that must be given back.
type ref struct {
	id   uint32
	insn int32 // where it was acquired
	kind refKind
	obj  uint32 // of a lock: the map or type it is in
	// frame is the call depth where it was acquired: a callback gives back
	// what it acquires, not what its caller holds.
	frame int
}

type refKind uint8

const (
	refPointer refKind = iota
	refLock
	refIRQ
)

// A hop is what precision tracking has to know of an instruction that was
// gone through: where from, and what of the stack or which linked registers it
// touched (struct bpf_jmp_history_entry).
type hop struct {
	insn, prev int32
	flags      uint16 // stack access: bit 15, frame in bits 6 to 8, slot in 0 to 5
	linked     uint64 // registers that were equal at a branch, see linkedRegs
}

const (
	hopStack  = 1 << 15
	hopDstReg = 1 << 14 // the compared destination is a stack pointer
	hopSrcReg = 1 << 13
)

// A state is everything known at one point of one path.
type state struct {
	frames [maxFrames]*frame
	cur    int // index of the frame that runs
	refs   []ref
	// activeLocks, rcu, preempt and irq are depths of what is being held.
	activeLocks int16
	rcu         int16
	preempt     int16
	speculative bool

	parent   *state
	branches int32 // paths from here that are not yet at their end
	first    int32 // slot of the first instruction
	last     int32 // slot of the last instruction that was looked at
	insn     int32 // of an explored state: where it stands
	history  []hop
	// For loops that converge: see loops.go.
	loopEntry   *state
	depth       int32
	usedAsEntry bool
	mayGoto     uint32
	callbackGen uint32
	// Of an explored state: how often it was looked at and how often it helped.
	hits, misses int32
}

func (s *state) frame() *frame { return s.frames[s.cur] }

// frameOf returns the frame that a stack pointer points into.
func (s *state) frameOf(r *reg) *frame { return s.frames[r.frame] }

// newFrame returns a frame, from those that are no longer used if there is one.
func (v *verifier) newFrame() *frame {
	if n := len(v.freeFrames); n > 0 {
		f := v.freeFrames[n-1]
		v.freeFrames = v.freeFrames[:n-1]
		stack := f.stack[:0]
		*f = frame{stack: stack}
		return f
	}
	return &frame{}
}

func (v *verifier) newState() *state {
	if n := len(v.freeStates); n > 0 {
		s := v.freeStates[n-1]
		v.freeStates = v.freeStates[:n-1]
		refs, history := s.refs[:0], s.history[:0]
		*s = state{refs: refs, history: history}
		return s
	}
	return &state{}
}

// free gives a state back. No other state may have it as its parent.
func (v *verifier) free(s *state) {
	for i := range s.frames {
		if f := s.frames[i]; f != nil {
			v.freeFrames = append(v.freeFrames, f)
			s.frames[i] = nil
		}
	}
	v.freeStates = append(v.freeStates, s)
}

// copyFrame makes dst as src is.
func copyFrame(dst, src *frame) {
	stack := append(dst.stack[:0], src.stack...)
	*dst = *src
	dst.stack = stack
}

// copyState makes dst as src is.
func (v *verifier) copyState(dst, src *state) {
	refs, history, frames := dst.refs, dst.history, dst.frames
	*dst = *src
	dst.refs = append(refs[:0], src.refs...)
	dst.history = append(history[:0], src.history...)
	dst.frames = frames
	for i := range src.frames {
		switch {
		case i > src.cur || src.frames[i] == nil:
			if dst.frames[i] != nil {
				v.freeFrames = append(v.freeFrames, dst.frames[i])
				dst.frames[i] = nil
			}
		default:
			if dst.frames[i] == nil {
				dst.frames[i] = v.newFrame()
			}
			copyFrame(dst.frames[i], src.frames[i])
		}
	}
}

// regsDo calls f with every register and every spilled register of s.
func (s *state) regsDo(f func(*reg)) {
	for i := 0; i <= s.cur; i++ {
		fr := s.frames[i]
		for j := range fr.regs {
			f(&fr.regs[j])
		}
		for j := range fr.stack {
			if sl := &fr.stack[j]; sl.spilled() {
				f(&sl.reg)
			}
		}
	}
}

// grow makes the stack of f at least n bytes deep.
func (f *frame) grow(n int) {
	want := (n + 7) / 8
	if want <= len(f.stack) {
		return
	}
	f.stack = slices.Grow(f.stack, want-len(f.stack))
	for len(f.stack) < want {
		f.stack = append(f.stack, slot{})
	}
}

// acquire adds a reference and returns its id.
func (v *verifier) acquire(kind refKind, obj uint32) uint32 {
	v.ids++
	v.st.refs = append(v.st.refs, ref{id: v.ids, insn: int32(v.insn), kind: kind, obj: obj, frame: v.st.cur})
	return v.ids
}

// releaseRef takes a reference away; ok is false if there is none with that id.
func (s *state) releaseRef(id uint32) (ok bool) {
	for i := range s.refs {
		if s.refs[i].id == id && s.refs[i].kind == refPointer {
			s.refs = slices.Delete(s.refs, i, i+1)
			return true
		}
	}
	return false
}

// markRead notes that slot i of frame number f was read: the states that the
// path came through need it, back to where it was written.
func (s *state) markRead(f, i int) {
	bit := uint64(1) << i
	for {
		fr := s.frames[f]
		if fr.written&bit != 0 || !fr.linked || s.parent == nil {
			return
		}
		s = s.parent
		if s.frames[f].read&bit != 0 {
			return
		}
		s.frames[f].read |= bit
	}
}
