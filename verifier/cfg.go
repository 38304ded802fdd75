package verifier

import (
	"slices"

	"github.com/skep-bpf/skep/isa"
)

// insnInfo is what the verifier knows of a slot, apart from any path.
type insnInfo struct {
	op      isa.Instruction
	target  int32 // of a jump or a local call: the slot; -1 for others
	subprog int16
	// prune: states are compared here (is_prune_point).
	prune bool
	// jump: how the instruction was reached matters to precision tracking.
	jump bool
	// checkpoint: a state is kept here in any case.
	checkpoint bool
	callback   bool // calls a function that calls back
	// live are the registers that are read at or behind the instruction before
	// they are written.
	live uint16
	// memory says what kind of pointer the instruction goes through; paths
	// must agree where the kernel rewrites it.
	memory   kind
	memFlags flags
	hasKind  bool
	// alu is how the instruction is made safe against speculation.
	alu alu
	// noSpec and noSpecResult: speculative paths end before and behind the
	// instruction, where the kernel puts barriers.
	noSpec, noSpecResult bool
}

// A subprog is a function of the program.
type subprog struct {
	start, end int // slots
	global     bool
	fn         *Func
	depth      int  // bytes of stack
	hasTail    bool // calls bpf_tail_call
	hasAbs     bool // has LD_ABS or LD_IND
	isCallback bool
	isAsync    bool
	called     bool
	verified   bool
	args       []argument
	argsKnown  bool
}

func (v *verifier) subprogAt(slot int) int {
	n, ok := slices.BinarySearchFunc(v.subprogs, slot, func(s subprog, at int) int { return s.start - at })
	if !ok {
		return -1
	}
	return n
}

// layout puts instructions into slots, and finds functions.
func (v *verifier) layout() *Error {
	p := v.prog
	v.insns = make([]insnInfo, 0, len(p.Insns)+8)
	for i := range p.Insns {
		in := insnInfo{op: p.Insns[i], target: -1}
		v.insns = append(v.insns, in)
		if in.op.IsWide() {
			v.insns = append(v.insns, insnInfo{target: -1}) // its second slot
		}
	}
	n := len(v.insns)
	if n == 0 {
		return v.failAt(-1, "no-instructions", "the program has no instructions")
	}
	limit := 1_000_000
	if !v.cfg.Caps.bpf() {
		limit = 4096
	}
	if n > limit {
		return v.failAt(-1, "too-many-instructions", "the program has %d instructions, and may have %d", n, limit)
	}
	starts := []int{0}
	for i := 0; i < n; i++ {
		op := v.insns[i].op
		switch {
		case op.IsWide() && op.Src == isa.PseudoFunc, op.IsCall() && op.Src == isa.CallPseudo:
			t := i + int(op.Low()) + 1
			if !v.cfg.Caps.bpf() {
				return v.failAt(i, "calls-need-cap", "functions, and loops by helpers, need CAP_BPF")
			}
			if t < 0 || t >= n {
				return v.failAt(i, "call-out-of-range", "the call leads to slot %d, which the program does not have", t)
			}
			v.insns[i].target = int32(t)
			if !slices.Contains(starts, t) {
				starts = append(starts, t)
			}
		}
	}
	slices.Sort(starts)
	if len(starts) > 256 {
		return v.failAt(-1, "too-many-functions", "the program has %d functions, and may have 256", len(starts))
	}
	for i, s := range starts {
		end := n
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		v.subprogs = append(v.subprogs, subprog{start: s, end: end})
	}
	for i := range p.Funcs {
		f := &p.Funcs[i]
		if k := v.subprogAt(f.Start); k >= 0 {
			v.subprogs[k].fn, v.subprogs[k].global = f, f.Global && k > 0
		}
	}
	return v.checkSubprogs()
}

// checkSubprogs resolves jumps, which must stay inside their function
// (check_subprogs).
func (v *verifier) checkSubprogs() *Error {
	for k := range v.subprogs {
		s := &v.subprogs[k]
		for i := s.start; i < s.end; i++ {
			in := &v.insns[i]
			in.subprog = int16(k)
			op := in.op
			if op.Op == 0 {
				if i == s.start {
					return v.failAt(i, "jump-into-wide", "a function begins in the middle of a 64-bit load")
				}
			}
			if op.Class() == isa.ClassLD && (op.Op.Mode() == isa.ModeAbs || op.Op.Mode() == isa.ModeInd) {
				s.hasAbs = true
			}
			if op.IsCall() && op.Src == isa.CallHelper && op.Imm == helperTailCall {
				s.hasTail = true
			}
			if d, ok := op.Jump(); ok {
				t := i + d + 1
				if t < s.start || t >= s.end {
					return v.failAt(i, "jump-out-of-range", "the jump leads to slot %d, outside of its function (slots %d to %d)", t, s.start, s.end-1)
				}
				in.target = int32(t)
			}
			last := i == s.end-1 || op.IsWide() && i == s.end-2
			if last && !op.IsExit() && !isUncond(op) && !(op.Op == 0) {
				return v.failAt(i, "falls-through", "the last instruction of a function is neither an exit nor a jump")
			}
			if i == s.end-1 && op.Op == 0 {
				return v.failAt(i, "falls-through", "the last instruction of a function is neither an exit nor a jump")
			}
		}
	}
	return nil
}

func isUncond(op isa.Instruction) bool {
	_, ok := op.Jump()
	return ok && op.Op.JumpOp() == isa.Always
}

func isCond(op isa.Instruction) bool {
	_, ok := op.Jump()
	return ok && op.Op.JumpOp() != isa.Always
}

// successors calls f with the slots that may run after slot i, those of a call
// without its callee.
func (v *verifier) successors(i int, f func(int)) {
	in := &v.insns[i]
	op := in.op
	switch {
	case op.IsExit():
	case isUncond(op):
		f(int(in.target))
	case isCond(op):
		f(i + 1)
		f(int(in.target))
	default:
		f(i + op.Size())
	}
}

// checkCFG walks over the program's graph (check_cfg): everything must be
// reached, and without CAP_BPF nothing twice on one path. It finds where
// states are compared.
func (v *verifier) checkCFG() *Error {
	const (
		white = iota
		grey  // on the stack
		black
	)
	n := len(v.insns)
	colour := make([]uint8, n)
	type visit struct {
		slot  int
		edges [3]int32 // what is still to be followed
		n     int
	}
	var stack []visit
	push := func(from, to int) *Error {
		if to >= n {
			return v.failAt(from, "falls-through", "instruction %d leads past the program's end", from)
		}
		switch colour[to] {
		case white:
			colour[to] = grey
			vs := visit{slot: to}
			v.edges(to, func(t int) { vs.edges[vs.n] = int32(t); vs.n++ })
			stack = append(stack, vs)
		case grey:
			op := v.insns[from].op
			recursion := v.cfg.recursionIsBackEdge() && op.IsCall() && op.Src == isa.CallPseudo
			if recursion {
				return v.failAt(from, "recursion", "function %d calls itself, by instruction %d", v.insns[to].subprog, from)
			}
			if !v.cfg.Caps.bpf() {
				return v.failAt(from, "back-edge", "a loop, from instruction %d back to %d, needs CAP_BPF", from, to)
			}
		}
		return nil
	}
	if err := push(0, 0); err != nil {
		return err
	}
	walk := func() *Error {
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if top.n == 0 {
				colour[top.slot] = black
				stack = stack[:len(stack)-1]
				continue
			}
			to := top.edges[0]
			copy(top.edges[:], top.edges[1:])
			top.n--
			if err := push(top.slot, int(to)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(); err != nil {
		return err
	}
	for i := 0; i < n; i++ {
		op := v.insns[i].op
		if colour[i] == white && op.Op != 0 {
			return v.failAt(i, "unreachable", "instruction %d is never reached", i)
		}
		if op.IsWide() && colour[i+1] != white {
			return v.failAt(i, "jump-into-wide", "a jump leads into the middle of the 64-bit load at %d", i)
		}
	}
	v.markPoints()
	return nil
}

// edges are what check_cfg follows from slot i: the kernel pushes the fall
// through first, and the callee of a call.
func (v *verifier) edges(i int, f func(int)) {
	in := &v.insns[i]
	op := in.op
	switch {
	case op.IsWide() && op.Src == isa.PseudoFunc:
		f(i + 2)
		f(int(in.target))
	case op.IsCall() && op.Src == isa.CallPseudo:
		f(i + 1)
		f(int(in.target))
	default:
		v.successors(i, f)
	}
}

// markPoints says at which instructions states are compared and history is
// kept (visit_insn).
func (v *verifier) markPoints() {
	prune := func(i int) {
		if i < len(v.insns) {
			v.insns[i].prune = true
		}
	}
	target := func(i int32) { v.insns[i].prune, v.insns[i].jump = true, true }
	for i := range v.insns {
		in := &v.insns[i]
		op := in.op
		switch {
		case op.Op == 0, op.IsExit():
		case op.IsWide():
			if op.Src == isa.PseudoFunc {
				in.prune = true
				prune(i + 2)
				v.insns[i+2].jump = true
				target(in.target)
			}
		case op.IsCall():
			prune(i + 1)
			if i+1 < len(v.insns) {
				v.insns[i+1].jump = true
			}
			switch op.Src {
			case isa.CallPseudo:
				in.prune = true
				target(in.target)
			case isa.CallHelper:
				if op.Imm == helperTimerSetCallback {
					in.prune = true
				}
				if syncCallbackHelper(op.Imm) {
					in.prune, in.jump, in.checkpoint, in.callback = true, true, v.cfg.callbacksRepeat(), v.cfg.callbacksRepeat()
				}
			case isa.CallKernel:
				switch name := v.kfuncName(op); {
				case isIterFunc(name, "next"):
					in.prune, in.checkpoint = true, true
				case name == "bpf_rbtree_add_impl":
					in.prune, in.jump, in.checkpoint, in.callback = true, true, true, true
				}
			}
		case isUncond(op):
			target(in.target)
		case isCond(op):
			in.prune = true
			target(in.target)
			if op.Op.JumpOp() == isa.JCond {
				in.checkpoint = true
			}
		}
	}
	v.insns[0].prune = true
}

// useDef are the registers that an instruction reads and writes.
func (v *verifier) useDef(i int) (use, def uint16) {
	op := v.insns[i].op
	dst, src := uint16(1)<<op.Dst, uint16(1)<<op.Src
	const args, scratched = 0x3e, 0x3f
	switch op.Class() {
	case isa.ClassLD:
		switch op.Op.Mode() {
		case isa.ModeImm:
			return 0, dst
		case isa.ModeAbs:
			return 1 << 6, scratched
		case isa.ModeInd:
			return 1<<6 | src, scratched
		}
	case isa.ClassLDX:
		return src, dst
	case isa.ClassST:
		return dst, 0
	case isa.ClassSTX:
		if op.IsAtomic() {
			switch a := op.AtomicOp(); {
			case a == isa.CmpXchg:
				return dst | src | 1, 1
			case a == isa.LoadAcquireOp:
				return src, dst
			case a == isa.StoreReleaseOp:
				return dst | src, 0
			case a&isa.Fetch != 0:
				return dst | src, src
			}
		}
		return dst | src, 0
	case isa.ClassALU, isa.ClassALU64:
		switch op.ALUOp() {
		case isa.End, isa.Neg:
			return dst, dst
		case isa.Mov:
			if op.Op.Source() == isa.SourceReg {
				return src, dst
			}
			return 0, dst
		}
		if op.Op.Source() == isa.SourceReg {
			return dst | src, dst
		}
		return dst, dst
	case isa.ClassJMP, isa.ClassJMP32:
		switch {
		case op.IsExit():
			return 1, 0
		case op.IsCall():
			// What is an argument is not known for functions without a
			// type, so all may be.
			return args & v.callArgs(op), scratched
		case isUncond(op), op.Op.JumpOp() == isa.JCond:
			return 0, 0
		}
		if op.Op.Source() == isa.SourceReg {
			return dst | src, 0
		}
		return dst, 0
	}
	return 0, 0
}

// callArgs are the registers that a call may read.
func (v *verifier) callArgs(op isa.Instruction) uint16 {
	if op.Src == isa.CallHelper {
		if proto := v.protoOf(op.Imm); proto != nil {
			return uint16(1)<<(proto.NumArgs()+1) - 2
		}
	}
	return 0x3e
}

// liveRegisters computes which registers matter at each instruction
// (compute_live_registers): states are compared by those only.
func (v *verifier) liveRegisters() {
	type ud struct{ use, def uint16 }
	sets := make([]ud, len(v.insns))
	for i := range v.insns {
		if v.insns[i].op.Op != 0 {
			sets[i].use, sets[i].def = v.useDef(i)
		}
	}
	for changed := true; changed; {
		changed = false
		for i := len(v.insns) - 1; i >= 0; i-- {
			if v.insns[i].op.Op == 0 {
				continue
			}
			var out uint16
			v.successors(i, func(t int) {
				if t < len(v.insns) {
					out |= v.insns[t].live
				}
			})
			in := out&^sets[i].def | sets[i].use
			if in != v.insns[i].live {
				v.insns[i].live = in
				changed = true
			}
		}
	}
}
