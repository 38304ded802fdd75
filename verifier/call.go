package verifier

import (
	"slices"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

// callMeta is what is found out about a call while its arguments are checked.
type callMeta struct {
	helper *abi.Helper
	proto  *abi.Proto
	m      int // map, or -1
	uid    int32
	ref    uint32 // the reference among the arguments
	// release is the register whose reference goes, or 0.
	release int
	raw     rawMem
	maxSize uint64 // largest size of memory
	memSize uint32 // constant size of what is allocated
	subprog int
	// dynptr is the dynptr among the arguments: its id, type and reference.
	dynptr     uint32
	dynptrType int32
	dynptrRef  uint32
	cloned     uint32 // the reference of the dynptr that is cloned
	field      *mapField
	retType    uint32 // BTF type of what is returned, by an argument
	changes    bool   // packets may move
	// keyInRange: the key is a constant that the array has.
	keyInRange bool
	// callback is a function that is followed once, when the helper was called.
	callback *frame
}

// protoOf is how the program may call a helper, or nil.
func (v *verifier) protoOf(id int64) *abi.Proto {
	h := abi.HelperByID(int32(id))
	if h == nil {
		return nil
	}
	c, ok := h.Call(v.cfg.Kernel, v.prog.Type)
	if !ok {
		return nil
	}
	if v.prog.Sleepable && c.Sleepable != nil {
		return c.Sleepable
	}
	return c.Proto
}

// call does a call of a helper, a function of the program or of the kernel.
func (v *verifier) call(op isa.Instruction) (next, *Error) {
	if v.st.activeLocks > 0 {
		if op.Src == isa.CallHelper && !lockHelper(op.Imm) || op.Src == isa.CallKernel && !kfuncUnderLock(v.kfuncName(op)) {
			return 0, v.fail("call-under-lock", -1, "no function may be called while a lock is held")
		}
	}
	switch op.Src {
	case isa.CallPseudo:
		return v.callFunction(int(v.insns[v.insns[v.insn].target].subprog))
	case isa.CallKernel:
		return v.callKfunc(op)
	}
	return v.callHelper(op)
}

func lockHelper(id int64) bool {
	return id == helperSpinLock || id == helperSpinUnlock || id == helperKptrXchg
}

// callHelper does a call of a helper (check_helper_call).
func (v *verifier) callHelper(op isa.Instruction) (next, *Error) {
	h := abi.HelperByID(int32(op.Imm))
	if h == nil || h.Since > v.cfg.Kernel {
		return 0, v.fail("unknown-helper", -1, "Linux %s has no helper %d", v.cfg.Kernel, op.Imm)
	}
	c, ok := h.Call(v.cfg.Kernel, v.prog.Type)
	if !ok {
		return 0, v.fail("helper-not-allowed", -1, "programs of type %s cannot call %s", v.prog.Type, h.Name)
	}
	proto := c.Proto
	if v.prog.Sleepable && c.Sleepable != nil {
		proto = c.Sleepable
	}
	if c.Capability != "" {
		has := v.cfg.Caps.bpf()
		if c.Capability == "CAP_PERFMON" {
			has = v.cfg.Caps.perfmon()
		}
		if !has {
			return 0, v.fail("helper-not-allowed", -1, "calling %s needs %s", h.Name, c.Capability)
		}
	}
	if c.Conditional {
		if err := v.conditionalHelper(h); err != nil {
			return 0, err
		}
	}
	if proto.GPLOnly && !gplCompatible(v.prog.License) {
		return 0, v.fail("helper-gpl", -1, "%s can be called by programs under a GPL-compatible licence only, and this one's is %q", h.Name, v.prog.License)
	}
	if proto.MightSleep && !v.mayBeAsleep() {
		return 0, v.fail("helper-sleeps", -1, "%s may sleep, and the program may not", h.Name)
	}
	if proto.MightSleep && v.st.rcu > 0 {
		return 0, v.fail("sleeps-under-rcu", -1, "%s may sleep, and is called between bpf_rcu_read_lock and unlock", h.Name)
	}
	if proto.MightSleep && v.st.preempt > 0 {
		return 0, v.fail("sleeps-under-rcu", -1, "%s may sleep, and is called with preemption disabled", h.Name)
	}
	meta := callMeta{helper: h, proto: proto, m: -1}
	for i := range proto.Args {
		if err := v.argument(i, &meta); err != nil {
			return 0, err
		}
	}
	if err := v.recordMap(&meta); err != nil {
		return 0, err
	}
	if meta.raw.size > 0 {
		if err := v.clobberStack(&meta.raw); err != nil {
			return 0, err
		}
	}
	if meta.release != 0 {
		if err := v.release(&meta); err != nil {
			return 0, err
		}
	}
	meta.changes = changesPacket(h)
	if err := v.helperSpecial(&meta); err != nil {
		return 0, err
	}
	v.scratchCaller(v.st.frame())
	if err := v.helperResult(&meta); err != nil {
		return 0, err
	}
	if err := v.mapFits(&meta); err != nil {
		return 0, err
	}
	if meta.changes {
		v.forgetPackets()
	}
	if f := meta.callback; f != nil {
		st := v.st
		st.cur++
		st.frames[st.cur] = f
		v.insn = v.subprogs[f.subprog].start
		return nextHere, nil
	}
	return nextInsn, nil
}

// mayBeAsleep reports whether the code that runs may sleep.
func (v *verifier) mayBeAsleep() bool { return v.prog.Sleepable && !v.st.frame().inAsync }

// scratchCaller takes from a frame the registers that a call does not keep.
func (v *verifier) scratchCaller(f *frame) {
	for i := range 6 {
		f.regs[i] = reg{}
	}
}

// invalidate makes a register that can no longer be used nothing, or a number.
func (v *verifier) invalidate(r *reg) {
	if v.cfg.Caps.perfmon() {
		v.setUnknown(r)
	} else {
		*r = reg{}
	}
}

// forgetPackets takes all pointers into the packet, which may have moved
// (clear_all_pkt_pointers).
func (v *verifier) forgetPackets() {
	v.st.regsDo(func(r *reg) {
		if r.isPacketAny() || r.typ == ptrMem && r.flags&(dynptrSkb|dynptrXDP) != 0 {
			v.invalidate(r)
		}
	})
}

// release takes the reference that a call gives back (release_reference).
func (v *verifier) release(meta *callMeta) *Error {
	r := &v.regs()[meta.release]
	if meta.proto.Args[meta.release-1].Base() == abi.ArgPtrToDynptr {
		return v.releaseDynptr(r, meta.release)
	}
	switch {
	case meta.ref != 0:
		if !v.st.releaseRef(meta.ref) {
			return v.fail("reference-unknown", meta.release, "%s gives back a reference that is not held", meta.helper.Name)
		}
		v.invalidateRef(meta.ref)
		return nil
	case r.isNull():
		return nil
	}
	return v.fail("reference-unknown", meta.release, "%s gives back a reference that is not held", meta.helper.Name)
}

// invalidateRef takes all pointers that came from a reference.
func (v *verifier) invalidateRef(id uint32) {
	v.st.regsDo(func(r *reg) {
		if r.ref == id {
			v.invalidate(r)
		}
	})
}

// leakedRefs reports references that are held where none may be
// (check_reference_leak).
func (v *verifier) leakedRefs() *Error {
	f := v.st.frame()
	if v.st.cur > 0 && (!f.inCallback || !v.cfg.callbacksGiveBack()) {
		return nil
	}
	for i := range v.st.refs {
		r := &v.st.refs[i]
		if r.kind != refPointer || f.inCallback && r.frame != v.st.cur {
			continue
		}
		return v.fail("reference-leaked", -1, "what instruction %d acquired (reference %d) is not given back", r.insn, r.id)
	}
	return nil
}

// underLock reports what is held where something cannot be done.
func (v *verifier) underLock(what string) *Error {
	return v.held(what, "between bpf_rcu_read_lock and unlock")
}

func (v *verifier) held(what, rcu string) *Error {
	switch {
	case v.st.activeLocks > 0:
		return v.fail("lock-held", -1, "%s while a lock is held", what)
	case v.st.rcu > 0:
		return v.fail("rcu-held", -1, "%s %s", what, rcu)
	case v.st.preempt > 0:
		return v.fail("preemption-disabled", -1, "%s with preemption disabled", what)
	}
	return nil
}

// mapRecorders are the helpers whose maps must be the same on all paths where
// mitigations depend on it.
var mapRecorders = []int32{
	helperTailCall, helperMapLookup, helperMapUpdate, helperMapDelete, helperMapPush, helperMapPop, helperMapPeek,
	helperForEachMapElem, helperRedirectMap, helperMapLookupPercpu,
}

// recordMap checks the map of a call (record_func_map, record_func_key).
func (v *verifier) recordMap(meta *callMeta) *Error {
	id := meta.helper.ID
	if !slices.Contains(mapRecorders, id) {
		return nil
	}
	m := v.maps[meta.m]
	if m.Flags&mapReadOnlyProg != 0 {
		switch id {
		case helperMapUpdate, helperMapDelete, helperMapPush, helperMapPop:
			return v.fail("map-read-only", -1, "programs may not write to map %s", m.Name)
		}
	}
	if id == helperTailCall {
		if m.Type != abi.MapProgArray {
			return v.fail("wrong-map", -1, "bpf_tail_call takes a map of type prog_array, and %s is a %s", m.Name, m.Type)
		}
		if r := &v.regs()[3]; r.IsConst() && r.Bits.Value < uint64(m.MaxEntries) {
			return v.precise(3)
		}
	}
	return nil
}

// helperSpecial is what single helpers ask for beyond their arguments.
func (v *verifier) helperSpecial(meta *callMeta) *Error {
	regs := v.regs()
	switch meta.helper.ID {
	case helperTailCall:
		if err := v.leakedRefs(); err != nil {
			err.Message = "a tail call would leave the program, and " + err.Message
			return err
		}
		return v.underLock("a tail call")
	case helperGetLocalStorage:
		if !regs[2].isNull() {
			return v.fail("argument-flags", 2, "bpf_get_local_storage takes no flags")
		}
		return v.precise(2)
	case helperForEachMapElem:
		return v.pushCallback(meta, callbackMapElem)
	case helperTimerSetCallback:
		return v.pushCallback(meta, callbackTimer)
	case helperFindVMA:
		return v.pushCallback(meta, callbackFindVMA)
	case helperUserRingbufDrain:
		return v.pushCallback(meta, callbackUserRingbuf)
	case helperLoop:
		if err := v.precise(1); err != nil {
			return err
		}
		f := v.st.frame()
		if uint64(f.callbackDepth) < regs[1].UMax || !v.cfg.callbacksRepeat() {
			return v.pushCallback(meta, callbackLoop)
		}
		f.callbackDepth = 0
		return nil
	case helperSnprintf:
		return v.checkFormat(&regs[3], 3, &regs[5])
	case helperDynptrFromMem:
		if regs[1].typ != ptrMapValue {
			return v.fail("argument-type", 1, "bpf_dynptr_from_mem takes a map's value, and r1 is a %s", v.typeName(&regs[1]))
		}
	case helperDynptrWrite:
		return v.dynptrWritten(meta)
	}
	return nil
}

// helperResult is what a helper returns.
func (v *verifier) helperResult(meta *callMeta) *Error {
	r0 := &v.regs()[0]
	ret := meta.proto.Return
	f := flagsOf(uint32(ret))
	switch ret.Base() {
	case abi.RetInteger:
		v.setUnknown(r0)
		v.refineResult(meta, r0)
		return nil
	case abi.RetVoid:
		*r0 = reg{}
		return nil
	case abi.RetPtrToMapValue:
		if meta.keyInRange {
			f &^= maybeNull
		}
		*r0 = pointer(ptrMapValue, f, uint32(meta.m))
		r0.aux = meta.uid
		if f&maybeNull == 0 && v.maps[meta.m].has(fieldSpinLock) {
			v.ids++
			r0.id = v.ids
		}
	case abi.RetPtrToSocket:
		*r0 = pointer(ptrSocket, f, 0)
	case abi.RetPtrToSockCommon:
		*r0 = pointer(ptrSockCommon, f, 0)
	case abi.RetPtrToTCPSock:
		*r0 = pointer(ptrTCPSock, f, 0)
	case abi.RetPtrToMem:
		*r0 = pointer(ptrMem, f, meta.memSize)
	case abi.RetPtrToAllocMem:
		if f&alloc != 0 { // as Linux 6.1 calls records of ring buffers
			f = f&^alloc | ringbufMem
		}
		*r0 = pointer(ptrMem, f, meta.memSize)
	case abi.RetPtrToBTFID, abi.RetPtrToMemOrBTFID:
		if err := v.btfResult(meta, r0, f); err != nil {
			return err
		}
	default:
		return v.unsupported("what %s returns (%#x)", meta.helper.Name, uint32(ret))
	}
	if r0.has(maybeNull) {
		v.ids++
		r0.id = v.ids
	}
	switch {
	case castHelper(meta.helper.ID):
		r0.ref = meta.ref
	case meta.helper.ID == helperDynptrData:
		r0.ref = meta.dynptrRef
		r0.dynptr = meta.dynptr
	case v.acquires(meta):
		id := v.acquire(refPointer, 0)
		r0.id, r0.ref = id, id
	}
	return nil
}

// flagsOf turns the properties of an argument or a result into those of
// pointers.
func flagsOf(t uint32) flags {
	var f flags
	for _, p := range [...]struct {
		bit  uint32
		flag flags
	}{
		{abi.PtrMaybeNull, maybeNull},
		{abi.MemRdonly, rdonly},
		{abi.MemRingbuf, ringbufMem},
		{abi.MemUser, userMem},
		{abi.MemPercpu, percpu},
		{abi.PtrUntrusted, untrusted},
		{abi.PtrTrusted, trusted},
		{abi.MemRCU, rcu},
		{abi.MemAlloc, alloc},
		{abi.NonOwnRef, nonOwning},
	} {
		if t&p.bit != 0 {
			f |= p.flag
		}
	}
	return f
}

const maxErrno = 4095

// refineResult narrows numbers that helpers return (do_refine_retval_range).
func (v *verifier) refineResult(meta *callMeta, r *reg) {
	switch meta.helper.ID {
	case helperGetStack, helperGetTaskStack, helperProbeReadStr, helperProbeReadKernelStr, helperProbeReadUserStr:
		r.SMax, r.S32Max = int64(meta.maxSize), int32(meta.maxSize)
		r.SMin, r.S32Min = -maxErrno, -maxErrno
		v.rules.Sync(&r.Scalar)
		v.sane(r)
	case helperGetSMPProcessorID:
		if v.cfg.Kernel < linux6_12 {
			return
		}
		n := uint64(v.cfg.cpus() - 1)
		r.Scalar = domain.Unknown
		r.UMin, r.UMax, r.U32Min, r.U32Max = 0, n, 0, uint32(n)
		r.SMin, r.SMax, r.S32Min, r.S32Max = 0, int64(n), 0, int32(n)
		v.rules.Sync(&r.Scalar)
	}
}

// acquires reports whether a call returns a reference (is_acquire_function).
func (v *verifier) acquires(meta *callMeta) bool {
	switch meta.helper.ID {
	case helperSkLookupTCP, helperSkLookupUDP, helperSkcLookupTCP, helperRingbufReserve, helperKptrXchg:
		return true
	case helperMapLookup:
		t := v.maps[meta.m].Type
		return t == abi.MapSockmap || t == abi.MapSockhash
	}
	return false
}

// castHelper reports whether a helper returns its argument, seen otherwise.
func castHelper(id int32) bool {
	switch id {
	case helperTCPSock, helperSkFullsock, helperSkcToTCPSock, helperSkcToTCP6Sock, helperSkcToUDP6Sock, helperSkcToMPTCPSock,
		helperSkcToTCPTimewait, helperSkcToTCPRequest, helperSkcToUnixSock:
		return true
	}
	return false
}

// exit leaves the frame, or the program.
func (v *verifier) exit() (next, *Error) {
	if v.st.cur == 0 {
		if err := v.heldAtEnd("the program ends"); err != nil {
			return 0, err
		}
	}
	if err := v.leakedRefs(); err != nil {
		return 0, err
	}
	if v.st.cur > 0 {
		return v.leaveFrame()
	}
	if err := v.checkReturn(); err != nil {
		return 0, err
	}
	return nextDone, nil
}

// heldAtEnd reports what has to be left before the program is.
func (v *verifier) heldAtEnd(what string) *Error { return v.held(what, "without bpf_rcu_read_unlock") }

// leaveFrame returns to the caller (prepare_func_exit).
func (v *verifier) leaveFrame() (next, *Error) {
	st := v.st
	callee, caller := st.frame(), st.frames[st.cur-1]
	r0 := &callee.regs[0]
	if r0.typ == ptrStack {
		return 0, v.fail("stack-pointer-returned", 0, "a pointer into the function's own stack is returned")
	}
	callback := callee.inCallback
	if callback {
		if r0.typ != scalar {
			return 0, v.fail("callback-return-type", 0, "a callback returns a %s, not a number", v.typeName(r0))
		}
		if err := v.precise(0); err != nil {
			return 0, err
		}
		if !callee.retRange.holds(r0, false) {
			return 0, v.fail("callback-return", 0, "a callback returns %v, and may return %v", r0.Scalar, callee.retRange)
		}
		v.insn = int(callee.callsite)
		if !v.cfg.callbacksRepeat() {
			v.insn++
		}
	} else {
		caller.regs[0] = *r0
		v.insn = int(callee.callsite) + 1
	}
	v.freeFrames = append(v.freeFrames, callee)
	st.frames[st.cur] = nil
	st.cur--
	if callback && v.cfg.callbacksRepeat() {
		v.widen(st.previousAt(v.insn), st)
	}
	return nextHere, nil
}

// retRange is what a program or a callback may return.
type retRange struct{ lo, hi int32 }

func (r retRange) holds(x *reg, only32 bool) bool {
	if only32 {
		return r.lo <= x.S32Min && x.S32Max <= r.hi
	}
	return int64(r.lo) <= x.SMin && x.SMax <= int64(r.hi)
}

// checkReturn checks what the program returns.
func (v *verifier) checkReturn() *Error { return v.checkReturnIn(0) }

// checkReturnIn checks what the program returns, in a register
// (check_return_code).
func (v *verifier) checkReturnIn(at isa.Register) *Error {
	f := v.st.frame()
	sub := f.subprog != 0
	p := v.prog
	if !sub && p.Type == abi.ProgLSM && p.Attach != abi.AttachLSMCgroup || p.Type == abi.ProgStructOps && !sub {
		if v.target != nil && isVoid(v.target.Return) {
			return nil
		}
	}
	if err := v.read(at); err != nil {
		return err
	}
	r := &v.regs()[at]
	if v.leaks(r) {
		return v.fail("pointer-returned", int(at), "returning a pointer needs CAP_PERFMON")
	}
	what := "the program returns"
	var want retRange
	only32 := false
	switch {
	case f.inAsync:
		what, want = "an asynchronous callback returns", retRange{0, 0}
	case sub:
		if r.typ != scalar {
			return v.fail("return-type", int(at), "a global function returns a %s, not a number", v.typeName(r))
		}
		return nil
	default:
		var limited bool
		if want, only32, limited = v.returnRange(); !limited {
			return nil
		}
	}
	if r.typ != scalar {
		return v.fail("return-type", int(at), "%s a %s, not a number", what, v.typeName(r))
	}
	if err := v.precise(at); err != nil {
		return err
	}
	if !want.holds(r, only32) {
		return v.fail("return-value", int(at), "%s a value (%v) that may be outside of %d to %d", what, r.Scalar, want.lo, want.hi)
	}
	return nil
}

// returnRange is what the program may return; ok is false where that is
// anything.
func (v *verifier) returnRange() (r retRange, only32, ok bool) {
	p := v.prog
	r = retRange{0, 1}
	switch p.Type {
	case abi.ProgCgroupSockAddr:
		switch p.Attach {
		case abi.AttachCgroupUDP4Recvmsg, abi.AttachCgroupUDP6Recvmsg, abi.AttachCgroupUnixRecvmsg,
			abi.AttachCgroupInet4Getpeername, abi.AttachCgroupInet6Getpeername, abi.AttachCgroupUnixGetpeername,
			abi.AttachCgroupInet4Getsockname, abi.AttachCgroupInet6Getsockname, abi.AttachCgroupUnixGetsockname:
			return retRange{1, 1}, false, true
		case abi.AttachCgroupInet4Bind, abi.AttachCgroupInet6Bind:
			return retRange{0, 3}, false, true
		}
	case abi.ProgCgroupSkb:
		if p.Attach == abi.AttachCgroupInetEgress {
			return retRange{0, 3}, false, true
		}
	case abi.ProgCgroupSock, abi.ProgSockOps, abi.ProgCgroupDevice, abi.ProgCgroupSysctl, abi.ProgCgroupSockopt, abi.ProgSkLookup, abi.ProgNetfilter:
	case abi.ProgTracing:
		switch p.Attach {
		case abi.AttachTraceFentry, abi.AttachTraceFexit:
			return retRange{0, 0}, false, true
		case abi.AttachTraceIter:
			return r, false, true
		}
		return r, false, false
	case abi.ProgKprobe:
		switch p.Attach {
		case abi.AttachTraceKprobeSession, abi.AttachTraceUprobeSession:
			return r, false, true
		}
		return r, false, false
	case abi.ProgLSM:
		if p.Attach == abi.AttachLSMCgroup {
			if v.target != nil && isVoid(v.target.Return) {
				return retRange{1, 1}, false, true
			}
			return r, false, true
		}
		return v.lsmReturn()
	default:
		return r, false, false
	}
	return r, false, true
}

// lsmReturn is what an LSM hook may return: an error or 0, for most.
func (v *verifier) lsmReturn() (retRange, bool, bool) {
	if v.cfg.Kernel < linux6_12 {
		return retRange{}, false, false
	}
	return retRange{-maxErrno, 0}, true, true
}

// mayGoto does may_goto: either the jump, or what follows.
func (v *verifier) mayGoto(target int) (next, *Error) {
	st, err := v.push(v.insn+1, v.insn, false)
	if err != nil {
		return 0, err
	}
	st.mayGoto++
	v.widen(v.st.parent.previousAt(v.insn), st)
	v.insn = target
	return nextHere, nil
}

// previousAt is the last state kept at slot on the way to s, in the same call
// (find_prev_entry).
func (s *state) previousAt(slot int) *state {
	for st := s.parent; st != nil; st = st.parent {
		if int(st.insn) == slot && st.cur == s.cur && sameCallsites(st, s) {
			return st
		}
	}
	return nil
}

// widen forgets numbers that changed since an earlier round of a loop and were
// not found to matter, so that loops converge (widen_imprecise_scalars).
func (v *verifier) widen(old, cur *state) {
	if old == nil {
		return
	}
	v.idmap.reset(v.ids)
	one := func(o, c *reg) {
		if o.typ != scalar || c.typ != scalar {
			return
		}
		if o.precise || c.precise || o.exactly(c) && v.idmap.check(o.id, c.id) {
			return
		}
		v.setUnknown(c)
	}
	for f := 0; f <= cur.cur && f <= old.cur; f++ {
		of, cf := old.frames[f], cur.frames[f]
		for i := range fp {
			one(&of.regs[i], &cf.regs[i])
		}
		for i := range cf.stack {
			if i < len(of.stack) && of.stack[i].spilled() && cf.stack[i].spilled() {
				one(&of.stack[i].reg, &cf.stack[i].reg)
			}
		}
	}
}
