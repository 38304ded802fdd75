package verifier

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/verifier/domain"
)

// maxInsns is how many instructions are processed before a program counts as
// too complex (BPF_COMPLEXITY_LIMIT_INSNS).
const maxInsns = 1_000_000

// maxPending is how many branches may wait (BPF_COMPLEXITY_LIMIT_JMP_SEQ), and
// maxStates how many states are kept at an instruction without CAP_BPF.
const (
	maxPending = 8192
	maxStates  = 64
)

// A verifier is one run of [Verify].
type verifier struct {
	cfg Config
	// rules are those that cfg.Kernel computes by.
	rules domain.Rules
	prog  *Program
	maps  []*Map
	ctx   *abi.Context
	// types are the kernel's types that pointers lead to; target and params are
	// the signature of what a program with BTF attaches to.
	types typeTable
	// objects are the special fields of structures of the program.
	objects map[uint32][]mapField
	target  *btf.FuncProto
	params  []btf.FuncParam

	insns    []insnInfo
	subprogs []subprog

	st      *state
	insn    int // slot that is being looked at
	prev    int // slot that was before
	hop     *hop
	pending []pending
	// explored are the states that were kept, by slot.
	explored [][]*state

	ids        uint32
	processed  int
	jumps      int
	lastJumps  int // at the last state that was kept
	lastInsns  int
	total      int
	kept, peak int
	exploreALU bool // scalars are compared exactly, for the limits of masks

	freeFrames []*frame
	freeStates []*state
	idmap      idMap
	bt         backtracker
	scratch    [2]reg
}

// pending is a branch that is still to be followed.
type pending struct {
	st         *state
	insn, prev int
}

// Verify decides about a program. It fails only where the program is not one:
// everything the kernel would say is in the result.
func Verify(p *Program, c Config) *Result {
	if c.Kernel == 0 {
		c.Kernel = abi.Linux6_18
	}
	if c.limit == 0 {
		c.limit = maxInsns
	}
	v := &verifier{cfg: c, rules: c.rules(), prog: p, maps: p.Maps, insn: -1}
	r := &Result{}
	if err := v.run(); err != nil {
		r.Verdict, r.Err = Rejected, v.explain(err)
		if err.Category == CatUnsupported {
			r.Verdict = Unsupported
		}
	}
	r.Insns, r.States, r.Peak = v.processed, v.total, v.peak
	return r
}

func (v *verifier) failAt(insn int, code Code, format string, args ...any) *Error {
	v.insn = insn
	return v.fail(code, -1, format, args...)
}

func (v *verifier) run() *Error {
	if err := v.checkLoad(); err != nil {
		return err
	}
	if err := v.layout(); err != nil {
		return err
	}
	if err := v.checkForms(); err != nil {
		return err
	}
	if err := v.checkCFG(); err != nil {
		return err
	}
	v.liveRegisters()
	v.explored = make([][]*state, len(v.insns))
	if v.cfg.Trace != nil {
		v.cfg.Trace.begin(v)
	}
	if err := v.checkFunction(0); err != nil {
		return err
	}
	// Global functions are verified apart, and only those that are called
	// (do_check_subprogs).
	for again := true; again; {
		again = false
		for k := 1; k < len(v.subprogs); k++ {
			s := &v.subprogs[k]
			if !s.global || !s.called || s.verified {
				continue
			}
			s.verified, again = true, true
			if err := v.checkFunction(k); err != nil {
				return err
			}
		}
	}
	v.st = nil
	return v.checkStackDepth()
}

// checkFunction explores the program, or a global function (do_check_common).
func (v *verifier) checkFunction(k int) *Error {
	for i := range v.explored {
		v.explored[i] = v.explored[i][:0]
	}
	v.kept = 0
	st := v.newState()
	st.branches = 1
	st.frames[0] = v.newFrame()
	f := st.frames[0]
	f.callsite, f.subprog = -1, int32(k)
	st.first, st.last = int32(v.subprogs[k].start), -1
	f.regs[fp] = pointer(ptrStack, 0, 0)
	v.st = st
	v.insn = v.subprogs[k].start
	v.prev = -1
	v.ids = 0
	if err := v.enter(k, f); err != nil {
		return err
	}
	return v.explore()
}
