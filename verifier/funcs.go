package verifier

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

// An argKind is what a function of the program takes.
type argKind uint8

const (
	argNumber argKind = iota
	argContext
	argMemory // of a known size
	argDynptr
	argObject // of the kernel
)

type argument struct {
	kind  argKind
	flags flags
	size  uint32
}

// arguments reads what a function takes from its type
// (btf_prepare_func_args). An error means that calls of it cannot be checked,
// which matters for global functions only.
func (v *verifier) arguments(k int) ([]argument, *Error) {
	s := &v.subprogs[k]
	if s.argsKnown {
		return s.args, nil
	}
	if s.fn == nil || s.fn.Type == nil {
		return nil, v.fail("function-type", -1, "function %d has no type", k)
	}
	name := s.fn.Name
	proto, ok := s.fn.Type.Type.(*btf.FuncProto)
	if !ok {
		return nil, v.fail("function-type", -1, "%s has no signature", name)
	}
	if len(proto.Params) > 5 {
		return nil, v.fail("function-type", -1, "%s has %d arguments, and may have 5", name, len(proto.Params))
	}
	switch btf.UnderlyingType(proto.Return).(type) {
	case *btf.Int, *btf.Enum:
	case *btf.Void:
		if v.cfg.Kernel < linux6_18 || s.global {
			return nil, v.fail("function-type", -1, "%s, a global function, must return a number", name)
		}
	default:
		return nil, v.fail("function-type", -1, "%s, a global function, must return a number", name)
	}
	var args []argument
	for i, p := range proto.Params {
		a, err := v.parameter(s, i, p)
		if err != nil {
			return nil, err
		}
		args = append(args, a)
	}
	s.args, s.argsKnown = args, true
	return args, nil
}

func (v *verifier) parameter(s *subprog, i int, p btf.FuncParam) (argument, *Error) {
	var tags []string
	if i < len(s.fn.Type.ParamTags) {
		tags = s.fn.Type.ParamTags[i]
	}
	tagged := func(name string) bool {
		for _, t := range tags {
			if t == "arg:"+name {
				return true
			}
		}
		return false
	}
	t := btf.UnderlyingType(p.Type)
	ptr, isPtr := t.(*btf.Pointer)
	if !isPtr {
		switch t.(type) {
		case *btf.Int, *btf.Enum:
			return argument{kind: argNumber}, nil
		}
		return argument{}, v.fail("function-type", -1, "argument %d of %s has a type that functions cannot take", i+1, s.fn.Name)
	}
	to := btf.UnderlyingType(ptr.Target)
	name := to.TypeName()
	switch {
	case tagged("ctx"), i == 0 && name != "" && name == v.prog.Type.Context():
		return argument{kind: argContext}, nil
	case name == "bpf_dynptr":
		return argument{kind: argDynptr}, nil
	case tagged("trusted"):
		return argument{}, v.unsupported("functions that take trusted pointers")
	case tagged("arena"):
		return argument{}, v.unsupported("functions that take pointers into arenas")
	case !s.global:
		return argument{}, v.fail("function-type", -1, "argument %d of %s is a pointer", i+1, s.fn.Name)
	}
	size, err := btf.Sizeof(to)
	if _, void := to.(*btf.Void); err != nil || void {
		return argument{}, v.fail("function-type", -1, "the size of what argument %d of %s points to is not known", i+1, s.fn.Name)
	}
	a := argument{kind: argMemory, size: uint32(size), flags: maybeNull}
	if tagged("nonnull") {
		a.flags = 0
	}
	return a, nil
}

// enter sets the registers with which the program, or a global function,
// begins.
func (v *verifier) enter(k int, f *frame) *Error {
	if k == 0 {
		f.regs[1] = pointer(ptrCtx, 0, 0)
		return nil
	}
	args, err := v.arguments(k)
	if err != nil {
		return err
	}
	for i, a := range args {
		r := &f.regs[i+1]
		switch a.kind {
		case argNumber:
			v.setUnknown(r)
		case argContext:
			*r = pointer(ptrCtx, 0, 0)
		case argMemory:
			*r = pointer(ptrMem, a.flags, a.size)
			v.ids++
			r.id = v.ids
		case argDynptr:
			v.ids++
			*r = pointer(constPtrDynptr, 0, 0)
			r.id, r.aux = v.ids, dynptrLocal
		default:
			return v.unsupported("functions that take kernel objects")
		}
	}
	return nil
}

// callFunction calls a function of the program (check_func_call): a static one
// is followed, a global one is taken to do what its type says.
func (v *verifier) callFunction(k int) (next, *Error) {
	s := &v.subprogs[k]
	st := v.st
	caller := st.frame()
	if s.global {
		switch {
		case st.activeLocks > 0:
			return 0, v.fail("call-under-lock", -1, "a global function is called while a lock is held; a static one may be")
		case st.preempt > 0:
			return 0, v.fail("call-under-lock", -1, "a global function is called with preemption disabled; a static one may be")
		}
		if err := v.checkArguments(k); err != nil {
			return 0, err
		}
		if v.changesPackets(k) {
			v.forgetPackets()
		}
		s.called = true
		v.scratchCaller(caller)
		v.setUnknown(&caller.regs[0])
		return nextInsn, nil
	}
	if err := v.pushFrame(st, k, v.insn); err != nil {
		return 0, err
	}
	callee := st.frame()
	for i := 1; i <= 5; i++ {
		callee.regs[i] = caller.regs[i]
	}
	v.scratchCaller(caller)
	v.insn = s.start
	return nextHere, nil
}

// pushFrame adds a frame for function k.
func (v *verifier) pushFrame(st *state, k, callsite int) *Error {
	if st.cur+1 >= maxFrames {
		return v.fail("calls-too-deep", -1, "calls are nested %d deep, and may be %d", st.cur+2, maxFrames)
	}
	f := v.newFrame()
	f.callsite, f.subprog = int32(callsite), int32(k)
	f.regs[fp] = pointer(ptrStack, 0, 0)
	f.regs[fp].frame = uint8(st.cur + 1)
	st.cur++
	st.frames[st.cur] = f
	return nil
}

// checkArguments checks what a global function is given
// (btf_check_func_arg_match).
func (v *verifier) checkArguments(k int) *Error {
	args, err := v.arguments(k)
	if err != nil {
		return err
	}
	name := v.subprogs[k].fn.Name
	for i, a := range args {
		at := i + 1
		r := &v.regs()[at]
		switch a.kind {
		case argNumber:
			if r.typ != scalar {
				return v.fail("function-argument", at, "%s takes a number in r%d, and it holds a %s", name, at, v.typeName(r))
			}
		case argContext:
			if r.typ != ptrCtx {
				return v.fail("function-argument", at, "%s takes the context in r%d, and it holds a %s", name, at, v.typeName(r))
			}
			if err := v.fixedOffset(r, at, false); err != nil {
				return err
			}
		case argMemory:
			if r.typ == notInit {
				return v.read(isa.Register(at))
			}
			if err := v.argumentOffset(r, at, abi.ArgDontcare); err != nil {
				return err
			}
			if r.isNull() {
				if a.flags&maybeNull == 0 {
					return v.fail("function-argument", at, "%s does not take null in r%d", name, at)
				}
				continue
			}
			if r.has(maybeNull) && a.flags&maybeNull == 0 {
				return v.fail("function-argument", at, "%s does not take null in r%d, which it may be", name, at)
			}
			if err := v.memoryArgument(r, at, int64(a.size)); err != nil {
				return err
			}
		default:
			return v.unsupported("functions that take dynptrs or kernel objects")
		}
	}
	return nil
}

// changesPackets reports whether function k, or one that it calls, may move the
// packet.
func (v *verifier) changesPackets(k int) bool {
	seen := make([]bool, len(v.subprogs))
	var look func(int) bool
	look = func(k int) bool {
		if seen[k] {
			return false
		}
		seen[k] = true
		s := &v.subprogs[k]
		for i := s.start; i < s.end; i++ {
			op := v.insns[i].op
			switch {
			case !op.IsCall():
			case op.Src == isa.CallHelper:
				if h := abi.HelperByID(int32(op.Imm)); h != nil && changesPacket(h) {
					return true
				}
			case op.Src == isa.CallPseudo:
				if look(int(v.insns[v.insns[i].target].subprog)) {
					return true
				}
			}
		}
		return false
	}
	return look(k)
}

// A callbackKind says what a callback is given.
type callbackKind uint8

const (
	callbackNone callbackKind = iota
	callbackLoop
	callbackMapElem
	callbackTimer
	callbackFindVMA
	callbackUserRingbuf
	callbackTreeLess
)

// pushCallback puts off the function that a helper calls back
// (push_callback_call). The path goes on as if the helper returned; the
// callback ends at the helper again.
func (v *verifier) pushCallback(meta *callMeta, kind callbackKind) *Error {
	k := meta.subprog
	caller := v.st.frame()
	v.subprogs[k].isCallback = true
	if kind == callbackTimer {
		return v.pushAsync(k, caller)
	}
	st := v.st
	repeat := v.cfg.callbacksRepeat()
	if repeat {
		var err *Error
		if st, err = v.push(v.subprogs[k].start, v.insn, false); err != nil {
			return err
		}
	}
	if err := v.pushFrame(st, k, v.insn); err != nil {
		return err
	}
	from, f := st.frames[st.cur-1], st.frame()
	switch kind {
	case callbackLoop:
		f.regs[1] = scalarReg(domain.Unknown)
		f.regs[2] = from.regs[3]
	case callbackMapElem:
		m := v.maps[meta.m]
		switch m.Type {
		case abi.MapHash, abi.MapLRUHash, abi.MapPercpuHash, abi.MapLRUPercpuHash, abi.MapArray, abi.MapPercpuArray:
		default:
			return v.fail("wrong-map", 1, "bpf_for_each_map_elem does not take map %s, which is a %s", m.Name, m.Type)
		}
		f.regs[1] = from.regs[1]
		f.regs[2] = pointer(ptrMapKey, 0, from.regs[1].obj)
		f.regs[3] = pointer(ptrMapValue, 0, from.regs[1].obj)
		f.regs[2].aux, f.regs[3].aux = from.regs[1].aux, from.regs[1].aux
		f.regs[4] = from.regs[3]
	case callbackUserRingbuf:
		v.ids++
		f.regs[1] = pointer(constPtrDynptr, 0, 0)
		f.regs[1].aux, f.regs[1].id = dynptrLocal, v.ids
		f.regs[2] = from.regs[3]
	case callbackTreeLess:
		for i := 1; i <= 2; i++ {
			f.regs[i] = v.graphNode(meta.field)
			v.borrow(&f.regs[i])
			f.regs[i].id = 0
		}
	case callbackFindVMA:
		obj, err := v.kernelType("vm_area_struct")
		if err != nil {
			return err
		}
		f.regs[1] = from.regs[1]
		f.regs[2] = pointer(ptrBTF, 0, obj)
		f.regs[3] = from.regs[4]
	}
	f.inCallback, f.callback, f.retRange = true, kind, retRange{0, 1}
	if !repeat {
		// The helper's result comes first.
		st.frames[st.cur] = nil
		st.cur--
		meta.callback = f
		return nil
	}
	st.callbackGen++
	from.callbackDepth++
	caller.callbackDepth = 0
	return nil
}

// pushAsync puts off a function that is called later, with nothing known but
// its arguments (push_async_cb).
func (v *verifier) pushAsync(k int, caller *frame) *Error {
	if len(v.pending) >= maxPending {
		return v.fail("too-many-branches", -1, "%d branches wait to be followed, which is too many", len(v.pending))
	}
	v.subprogs[k].isAsync = true
	st := v.newState()
	st.branches = 1
	st.first, st.last = int32(v.subprogs[k].start), -1
	f := v.newFrame()
	f.callsite, f.subprog = -1, int32(k)
	f.regs[fp] = pointer(ptrStack, 0, 0)
	r := &caller.regs[1]
	f.regs[1] = pointer(constPtrMap, 0, r.obj)
	f.regs[2] = pointer(ptrMapKey, 0, r.obj)
	f.regs[3] = pointer(ptrMapValue, 0, r.obj)
	for i := 1; i <= 3; i++ {
		f.regs[i].aux = r.aux
	}
	f.inAsync, f.callback, f.callbackDepth = true, callbackTimer, 0
	f.asyncEntry = caller.asyncEntry + 1
	st.frames[0] = f
	v.pending = append(v.pending, pending{st, v.subprogs[k].start, v.insn})
	return nil
}

// checkStackDepth checks how deep the stack gets over nested calls
// (check_max_stack_depth).
func (v *verifier) checkStackDepth() *Error {
	v.insn = -1
	private := v.privateStack()
	for k := range v.subprogs {
		if k > 0 && !v.subprogs[k].isAsync {
			continue
		}
		var walk func(k, depth, frames int, callback bool) *Error
		walk = func(k, depth, frames int, callback bool) *Error {
			s := &v.subprogs[k]
			callback = callback || s.isCallback
			if s.hasAbs && callback {
				return v.fail("legacy-in-callback", -1, "a callback cannot have legacy packet access")
			}
			if k > 0 && s.hasTail && depth >= 256 {
				return v.fail("tail-call-stack", -1, "a function that makes tail calls is called with %d bytes of stack in use, and 256 are too many", depth)
			}
			size := (s.depth + 15) &^ 15
			if private && size >= 64 {
				if size > stackSize {
					return v.fail("stack-too-deep", -1, "function %d uses %d bytes of stack, and may use %d", k, size, stackSize)
				}
			} else {
				depth += size
				if depth > stackSize {
					return v.fail("stack-too-deep", -1, "%d nested functions use %d bytes of stack together, and may use %d", frames+1, depth, stackSize)
				}
			}
			for i := s.start; i < s.end; i++ {
				in := &v.insns[i]
				call := in.op.IsCall() && in.op.Src == isa.CallPseudo
				if !call && !(in.op.IsWide() && in.op.Src == isa.PseudoFunc) {
					continue
				}
				to := int(v.insns[in.target].subprog)
				if v.subprogs[to].isAsync && !call {
					continue
				}
				if frames+1 >= maxFrames {
					return v.fail("calls-too-deep", -1, "calls are nested more than %d deep", maxFrames)
				}
				if err := walk(to, depth, frames+1, callback); err != nil {
					return err
				}
			}
			return nil
		}
		if err := walk(k, 0, 0, false); err != nil {
			return err
		}
	}
	return nil
}

func isVoid(t btf.Type) bool {
	_, void := btf.UnderlyingType(t).(*btf.Void)
	return void
}
