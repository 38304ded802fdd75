package verifier

import (
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// kfunc returns the kernel function that a call names, with its signature.
func (v *verifier) kfunc(op isa.Instruction) (*abi.Kfunc, *btf.FuncProto, *Error) {
	n := -1 - int(op.Imm)
	if n < 0 || n >= len(v.prog.Kfuncs) {
		return nil, nil, v.unsupported("kernel functions by BTF id")
	}
	name := v.prog.Kfuncs[n].Name
	if v.cfg.Types == nil {
		return nil, nil, v.unsupported("kernel functions without the kernel's types (%s)", name)
	}
	var f *btf.Func
	if err := v.cfg.Types.TypeByName(name, &f); err != nil {
		return nil, nil, v.unsupported("the kernel function %s, which the kernel's types do not have", name)
	}
	k := abi.KfuncByName(name)
	proto, ok := f.Type.(*btf.FuncProto)
	if k == nil || !ok || k.ProgTypes == 0 {
		return nil, nil, v.unsupported("the kernel function %s", name)
	}
	return k, proto, nil
}

func (v *verifier) kfuncName(op isa.Instruction) string {
	n := -1 - int(op.Imm)
	if !op.IsCall() || op.Src != isa.CallKernel || n < 0 || n >= len(v.prog.Kfuncs) {
		return ""
	}
	return v.prog.Kfuncs[n].Name
}

func isIterFunc(name, step string) bool {
	return strings.HasPrefix(name, "bpf_iter_") && strings.HasSuffix(name, "_"+step)
}

func (v *verifier) isIterNext(op isa.Instruction) bool { return isIterFunc(v.kfuncName(op), "next") }

// kfuncMissing are functions that ask for more than their signature and their
// flags say, which is not here.
func kfuncMissing(name string) bool {
	for _, prefix := range []string{
		"bpf_arena_", "bpf_wq_", "bpf_res_spin_", "bpf_local_irq_", "bpf_percpu_obj_", "bpf_task_work_", "bpf_session_", "bpf_stream_",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return name == "bpf_iter_css_task_new"
}

// underLock reports whether a function may be called while a lock is held
// (kfunc_spin_allowed).
func kfuncUnderLock(name string) bool {
	return graphFuncs[name] || strings.HasPrefix(name, "bpf_iter_num_")
}

// callKfunc does a call of a kernel function (check_kfunc_call).
func (v *verifier) callKfunc(op isa.Instruction) (next, *Error) {
	k, proto, err := v.kfunc(op)
	if err != nil {
		return 0, err
	}
	if !v.cfg.kfuncOpen(k, v.prog.Type) {
		return 0, v.fail("helper-not-allowed", -1, "programs of type %s cannot call %s", v.prog.Type, k.Name)
	}
	if kfuncMissing(k.Name) {
		return 0, v.unsupported("the kernel function %s", k.Name)
	}
	sleeps := k.Flags&abi.KfuncSleepable != 0
	if sleeps && !v.mayBeAsleep() {
		return 0, v.fail("helper-sleeps", -1, "%s may sleep, and the program may not", k.Name)
	}
	call := kfuncCall{k: k, proto: proto, m: -1}
	for i := 0; i < len(proto.Params); i++ {
		pair, err := v.kfuncArgument(&call, i)
		if err != nil {
			return 0, err
		}
		if pair {
			i++
		}
	}
	if k.Flags&abi.KfuncRelease != 0 && call.release == 0 {
		return 0, v.fail("reference-missing", -1, "%s gives back a reference, and is given none", k.Name)
	}
	if k.Name == "bpf_rbtree_add_impl" {
		if err := v.pushCallback(&callMeta{subprog: call.subprog, m: -1, field: call.root}, callbackTreeLess); err != nil {
			return 0, err
		}
	}
	if err := v.sections(&call, sleeps); err != nil {
		return 0, err
	}
	if call.release != 0 {
		ref := v.regs()[call.release].ref
		if !v.st.releaseRef(ref) {
			return 0, v.fail("reference-unknown", call.release, "%s gives back a reference that is not held", k.Name)
		}
		v.invalidateRef(ref)
	}
	if insertsNode(k.Name) {
		v.lend(v.regs()[2].ref)
	}
	if call.destroyed != nil {
		v.destroyIter(&call)
	}
	if k.Name == "bpf_throw" {
		return v.throw()
	}
	v.scratchCaller(v.st.frame())
	if err := v.kfuncResult(&call); err != nil {
		return 0, err
	}
	if isIterFunc(k.Name, "next") {
		return v.iterNext(&call)
	}
	return nextInsn, nil
}

// sections enters and leaves critical sections.
func (v *verifier) sections(c *kfuncCall, sleeps bool) *Error {
	st, name := v.st, c.k.Name
	lock, unlock := name == "bpf_rcu_read_lock", name == "bpf_rcu_read_unlock"
	switch {
	case st.rcu > 0 && (lock || unlock) && st.frame().callback == callbackTreeLess:
		return v.fail("rcu-held", -1, "%s is called by the function that compares nodes of a tree", name)
	case st.rcu > 0 && lock:
		return v.fail("rcu-held", -1, "bpf_rcu_read_lock is called a second time")
	case lock:
		st.rcu++
	case unlock && st.rcu == 0:
		return v.fail("lock-not-held", -1, "bpf_rcu_read_unlock is called without bpf_rcu_read_lock")
	case unlock:
		st.rcu--
		if st.rcu == 0 {
			v.endRCU()
		}
	case c.k.Flags&abi.KfuncRCUProtected != 0 && v.cfg.Kernel >= linux6_18 && !v.inRCU():
		return v.fail("rcu-not-held", -1, "%s is called outside of bpf_rcu_read_lock and unlock", name)
	case st.rcu > 0 && sleeps:
		return v.fail("sleeps-under-rcu", -1, "%s may sleep, and is called between bpf_rcu_read_lock and unlock", name)
	}
	switch {
	case name == "bpf_preempt_disable":
		st.preempt++
	case name == "bpf_preempt_enable" && st.preempt == 0:
		return v.fail("lock-not-held", -1, "bpf_preempt_enable is called with preemption enabled")
	case name == "bpf_preempt_enable":
		st.preempt--
	case st.preempt > 0 && sleeps:
		return v.fail("sleeps-under-rcu", -1, "%s may sleep, and is called with preemption disabled", name)
	}
	return nil
}

// throw leaves the program (bpf_throw): what the program returns is the
// argument.
func (v *verifier) throw() (next, *Error) {
	if err := v.checkReturnIn(1); err != nil {
		return 0, err
	}
	if err := v.heldAtEnd("bpf_throw leaves the program"); err != nil {
		return 0, err
	}
	for i := range v.st.refs {
		if r := &v.st.refs[i]; r.kind == refPointer {
			return 0, v.fail("reference-leaked", -1, "what instruction %d acquired (reference %d) is not given back when bpf_throw leaves the program", r.insn, r.id)
		}
	}
	return nextDone, nil
}

// endRCU: what was good under RCU is good no longer.
func (v *verifier) endRCU() {
	end := func(r *reg) {
		if r.has(rcu) {
			r.flags = r.flags&^(rcu|maybeNull) | untrusted
		}
	}
	v.st.regsDo(end)
	for i := 0; i <= v.st.cur; i++ {
		f := v.st.frames[i]
		for k := range f.stack {
			if sl := &f.stack[k]; sl.kind[7] == slotIter {
				end(&sl.reg)
			}
		}
	}
}

// The states of iterators: aux of their first slot. off counts the rounds, and
// obj is the number of their type.
const (
	iterActive = iota + 1
	iterDrained
)

// iterArgument checks an iterator, or makes one (process_iter_arg).
func (v *verifier) iterArgument(c *kfuncCall, r *reg, at int, t btf.Type) *Error {
	if r.typ != ptrStack {
		return v.fail("argument-type", at, "%s takes an iterator on the stack in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
	}
	size, err := btf.Sizeof(t)
	if err != nil {
		return v.unsupported("iterators of type %s", t.TypeName())
	}
	n := size / 8
	k, fail := v.objectSlot(r, at, n, "iterator")
	if fail != nil {
		return fail
	}
	f := v.st.frameOf(r)
	if isIterFunc(c.k.Name, "new") {
		for i := range n {
			if j := k - i; j < len(f.stack) && f.stack[j].kind[7] == slotIter {
				return v.fail("object-initialised", at, "%s makes an iterator where there is one already", c.k.Name)
			}
		}
		for i := range n {
			if err := v.memAccess(r, at, 8*i, 8, true, nil, -1, isa.Instruction{}, false); err != nil {
				return err
			}
		}
		ref := v.acquire(refPointer, 0)
		for i := range n {
			sl := &f.stack[k-i]
			*sl = slot{}
			if i == 0 {
				sl.reg = pointer(ptrStack, trusted, v.typeIndex(t))
				if c.k.Flags&abi.KfuncRCUProtected != 0 {
					if sl.flags = rcu; !v.inRCU() {
						sl.flags = untrusted
					}
				}
				sl.aux, sl.ref = iterActive, ref
			}
			for j := range sl.kind {
				sl.kind[j] = slotIter
			}
			f.written |= 1 << (k - i)
		}
		return nil
	}
	for i := range n {
		j := k - i
		if j >= len(f.stack) || f.stack[j].kind[7] != slotIter {
			return v.fail("object-uninitialised", at, "r%d points to no iterator", at)
		}
		v.st.markRead(int(r.frame), j)
	}
	sl := &f.stack[k]
	if sl.ref == 0 || !sameType(v.types.list[sl.obj], t) {
		return v.fail("object-uninitialised", at, "r%d points to no iterator of type %s", at, t.TypeName())
	}
	if sl.has(untrusted) && v.cfg.Kernel < linux6_18 {
		return v.fail("rcu-not-held", at, "%s is called outside of the bpf_rcu_read_lock and unlock that the iterator was made in", c.k.Name)
	}
	c.iter, c.iterFrame, c.iterSlot, c.iterSize = sl, int(r.frame), k, n
	c.ref = sl.ref
	if isIterFunc(c.k.Name, "destroy") {
		c.destroyed = sl
	}
	return nil
}

// destroyIter ends an iterator (unmark_stack_slots_iter).
func (v *verifier) destroyIter(c *kfuncCall) {
	ref := c.destroyed.ref
	v.st.releaseRef(ref)
	v.invalidateRef(ref)
	v.clearObject(v.st.frames[c.iterFrame], c.iterSlot-c.iterSize+1, c.iterSize)
}

// kfuncResult is what a kernel function returns.
func (v *verifier) kfuncResult(c *kfuncCall) *Error {
	r0 := &v.regs()[0]
	t := btf.UnderlyingType(c.proto.Return)
	ptr, ok := t.(*btf.Pointer)
	if !ok {
		if isVoid(t) {
			*r0 = reg{}
			return nil
		}
		v.setUnknown(r0)
		return nil
	}
	to := btf.UnderlyingType(ptr.Target)
	s := asStruct(to)
	special, err := v.specialResult(c, r0)
	switch {
	case err != nil:
		return err
	case special:
	case s != nil:
		*r0 = pointer(ptrBTF, 0, v.typeIndex(s))
		if c.k.Flags&abi.KfuncAcquire == 0 {
			switch {
			case c.iter != nil && c.iter.has(rcu):
				r0.flags = rcu
			case c.iter != nil:
				r0.flags = trusted
			}
		}
	case isVoid(to):
		v.setUnknown(r0)
		return nil
	default:
		size, f := c.bufSize, flags(0)
		if c.bufRdonly {
			f = rdonly
		}
		if size == 0 {
			n, err := btf.Sizeof(to)
			if err != nil {
				return v.unsupported("what %s returns", c.k.Name)
			}
			size, f = uint32(n), rdonly
		}
		*r0 = pointer(ptrMem, f, size)
		r0.ref = c.ref
	}
	// Of what the program owns already it always gets another reference.
	owned := c.k.Name == "bpf_refcount_acquire_impl" && c.owned
	if c.k.Flags&abi.KfuncRetNull != 0 && !owned || isIterFunc(c.k.Name, "next") {
		r0.flags |= maybeNull
		v.ids++
		r0.id = v.ids
	}
	switch {
	case c.k.Flags&abi.KfuncAcquire != 0 || popsNode(c.k.Name):
		id := v.acquire(refPointer, 0)
		if r0.has(maybeNull) {
			r0.id = id
		}
		r0.ref = id
	case borrowsNode(c.k.Name):
		v.borrow(r0)
	}
	if r0.id == 0 && v.mayHoldLock(r0) {
		v.ids++
		r0.id = v.ids
	}
	return nil
}

func skipTypedefs(t btf.Type) btf.Type {
	for range 64 {
		d, ok := t.(*btf.Typedef)
		if !ok {
			return t
		}
		t = d.Type
	}
	return t
}

// iterNext follows both what happens when there is another element, later, and
// when there is none (process_iter_next_call).
func (v *verifier) iterNext(c *kfuncCall) (next, *Error) {
	sl := c.iter
	if sl.aux != iterActive && sl.aux != iterDrained {
		return 0, v.fail("object-uninitialised", 1, "the iterator is not one")
	}
	if sl.aux == iterActive {
		st, err := v.push(v.insn+1, v.insn, false)
		if err != nil {
			return 0, err
		}
		q := &st.frames[c.iterFrame].stack[c.iterSlot]
		q.aux = iterActive
		q.off++
		if v.st.parent != nil {
			v.widen(v.st.parent.previousAt(v.insn), st)
		}
		v.setNotNull(&st.frame().regs[0])
	}
	sl.aux = iterDrained
	v.setConst(&v.regs()[0], 0)
	return nextInsn, nil
}

// iterActive reports whether the iterator that is about to be stepped may have
// more elements.
func (v *verifier) iterActive(st *state) bool {
	r := &st.frame().regs[1]
	if r.typ != ptrStack || !r.IsConst() {
		return false
	}
	k, _ := slotOf(int(r.off) + int(int64(r.Bits.Value)))
	f := st.frameOf(r)
	return k >= 0 && k < len(f.stack) && f.stack[k].kind[7] == slotIter && f.stack[k].aux == iterActive
}
