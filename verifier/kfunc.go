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

func (v *verifier) kfuncLoops(id int64) bool {
	return v.isIterNext(isa.CallKfunc(int32(id), 0))
}

func (v *verifier) kfuncUnderLock(int64) bool { return false }

// kfuncSupported are the functions beyond iterators whose rules are all here.
// Others may ask for more than their signature says.
var kfuncSupported = map[string]bool{
	"bpf_rcu_read_lock": true, "bpf_rcu_read_unlock": true, "bpf_preempt_disable": true, "bpf_preempt_enable": true,
	"bpf_task_acquire": true, "bpf_task_release": true, "bpf_task_from_pid": true, "bpf_task_from_vpid": true,
	"bpf_cgroup_acquire": true, "bpf_cgroup_release": true, "bpf_cgroup_from_id": true, "bpf_cgroup_ancestor": true,
	"bpf_task_get_cgroup1": true, "bpf_cpumask_create": true, "bpf_cpumask_release": true, "bpf_cpumask_acquire": true,
	"bpf_cpumask_first": true, "bpf_cpumask_test_cpu": true, "bpf_cpumask_weight": true, "bpf_get_task_exe_file": true, "bpf_put_file": true,
}

// callKfunc does a call of a kernel function (check_kfunc_call).
func (v *verifier) callKfunc(op isa.Instruction) (next, *Error) {
	k, proto, err := v.kfunc(op)
	if err != nil {
		return 0, err
	}
	if !k.ProgTypes.Has(v.prog.Type) {
		return 0, v.fail("helper-not-allowed", -1, "programs of type %s cannot call %s", v.prog.Type, k.Name)
	}
	iter := isIterFunc(k.Name, "new") || isIterFunc(k.Name, "next") || isIterFunc(k.Name, "destroy")
	if !iter && !kfuncSupported[k.Name] {
		return 0, v.unsupported("the kernel function %s", k.Name)
	}
	if k.Flags&abi.KfuncSleepable != 0 && (!v.mayBeAsleep() || v.st.rcu > 0 || v.st.preempt > 0) {
		return 0, v.fail("helper-sleeps", -1, "%s may sleep, and the program may not, here", k.Name)
	}
	switch k.Name {
	case "bpf_rcu_read_lock":
		v.st.rcu++
	case "bpf_rcu_read_unlock":
		if v.st.rcu == 0 {
			return 0, v.fail("lock-not-held", -1, "bpf_rcu_read_unlock is called without bpf_rcu_read_lock")
		}
		v.st.rcu--
		v.endRCU()
	case "bpf_preempt_disable":
		v.st.preempt++
	case "bpf_preempt_enable":
		if v.st.preempt == 0 {
			return 0, v.fail("lock-not-held", -1, "bpf_preempt_enable is called with preemption enabled")
		}
		v.st.preempt--
	}
	call := kfuncCall{k: k, proto: proto}
	for i := range proto.Params {
		if err := v.kfuncArgument(&call, i); err != nil {
			return 0, err
		}
	}
	if call.release != 0 {
		if !v.st.releaseRef(call.release) {
			return 0, v.fail("reference-unknown", -1, "%s gives back a reference that is not held", k.Name)
		}
		v.invalidateRef(call.release)
	}
	if call.destroyed != nil {
		v.destroyIter(&call)
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

// endRCU: what was good under RCU is good no longer.
func (v *verifier) endRCU() {
	if v.inRCU() {
		return
	}
	v.st.regsDo(func(r *reg) {
		if r.has(rcu) {
			r.flags = r.flags&^(rcu|maybeNull) | untrusted
		}
	})
}

// kfuncCall is what is found out about a call while its arguments are checked.
type kfuncCall struct {
	k         *abi.Kfunc
	proto     *btf.FuncProto
	ref       uint32
	release   uint32
	iter      *slot
	iterFrame int
	iterSlot  int
	iterSize  int
	destroyed *slot
}

// kfuncArgument checks an argument by its type and its name (check_kfunc_args).
func (v *verifier) kfuncArgument(c *kfuncCall, i int) *Error {
	at := i + 1
	p := c.proto.Params[i]
	r := &v.regs()[at]
	if strings.HasSuffix(p.Name, "__ign") {
		return nil
	}
	if err := v.read(isa.Register(at)); err != nil {
		return err
	}
	t := btf.UnderlyingType(p.Type)
	ptr, ok := t.(*btf.Pointer)
	if !ok {
		if r.typ != scalar {
			return v.fail("argument-type", at, "%s takes a number in r%d, and it holds a %s", c.k.Name, at, v.typeName(r))
		}
		return nil
	}
	to := asStruct(btf.UnderlyingType(ptr.Target))
	if to == nil {
		return v.unsupported("argument %d of %s", at, c.k.Name)
	}
	if strings.HasPrefix(to.TypeName(), "bpf_iter_") && i == 0 {
		return v.iterArgument(c, r, at, to)
	}
	if r.isNull() || r.has(maybeNull) {
		if !strings.HasSuffix(p.Name, "__nullable") && !strings.HasSuffix(p.Name, "__opt") {
			return v.fail("argument-null", at, "r%d may be null, which %s does not take", at, c.k.Name)
		}
		if r.isNull() {
			return nil
		}
	}
	release := c.k.Flags&abi.KfuncRelease != 0 && i == 0
	if release && r.ref == 0 {
		return v.fail("reference-missing", at, "%s gives back a reference, and r%d is none", c.k.Name, at)
	}
	if r.typ != ptrBTF {
		return v.fail("argument-type", at, "%s takes a struct %s in r%d, and it holds a %s", c.k.Name, to.TypeName(), at, v.typeName(r))
	}
	rcuOK := c.k.Flags&abi.KfuncRCU != 0
	if c.k.Flags&(abi.KfuncTrustedArgs|abi.KfuncRCU|abi.KfuncRelease) != 0 && !isTrusted(r) && !(rcuOK && r.has(rcu)) {
		return v.fail("argument-untrusted", at, "%s takes pointers that are known to be good, and r%d (%s) is not", c.k.Name, at, v.typeName(r))
	}
	if release {
		if err := v.fixedOffset(r, at, false); err != nil {
			return err
		}
		c.release = r.ref
	} else if err := v.fixedOffset(r, at, true); err != nil {
		return err
	}
	if r.ref != 0 {
		c.ref = r.ref
	}
	if !matches(v.types.list[r.obj], to, int(r.off), release) {
		return v.fail("argument-type", at, "%s takes a struct %s in r%d, and it holds a struct %s", c.k.Name, to.TypeName(), at, v.btfName(r.obj))
	}
	return nil
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
					sl.flags = rcu
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
		if i, ok := t.(*btf.Int); ok && i.Size < 8 {
			// The upper bits are what the caller's calling convention leaves.
			v.setUnknown(r0)
		}
		return nil
	}
	to := btf.UnderlyingType(ptr.Target)
	if s := asStruct(to); s != nil {
		*r0 = pointer(ptrBTF, trusted, v.typeIndex(s))
		if c.iter != nil && c.iter.has(rcu) {
			r0.flags = rcu
		}
	} else {
		size, err := btf.Sizeof(to)
		if err != nil || isVoid(to) {
			return v.unsupported("what %s returns", c.k.Name)
		}
		f := flags(0)
		if _, ok := skipTypedefs(ptr.Target).(*btf.Const); ok {
			f = rdonly
		}
		*r0 = pointer(ptrMem, f, uint32(size))
		r0.ref = c.ref
	}
	if c.k.Flags&abi.KfuncRetNull != 0 || isIterFunc(c.k.Name, "next") {
		r0.flags |= maybeNull
		v.ids++
		r0.id = v.ids
	}
	if c.k.Flags&abi.KfuncAcquire != 0 {
		id := v.acquire(refPointer, 0)
		if r0.has(maybeNull) {
			r0.id = id
		}
		r0.ref = id
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
