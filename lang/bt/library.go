package bt

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

var (
	hProbeWriteUser = helper(36, "probe_write_user", ir.I64, volatile)
	hSocketCookie   = helper(46, "get_socket_cookie", ir.I64, volatile)
	hOverride       = helper(58, "override_return", ir.I64, volatile)
	hSendSignal     = helper(109, "send_signal", ir.I64, volatile)
	hSendThread     = helper(117, "send_signal_thread", ir.I64, volatile)
	hDPath          = helper(147, "d_path", ir.I64, fillsMem)
)

// joinMax is how many strings join takes, as bpftrace has it, and joinSize the
// bytes that each may have.
const (
	joinMax  = 16
	joinSize = 1024
)

// libraryCall lowers a call whose result, if any, is a scalar. It reports
// whether it knows the function.
func (g *gen) libraryCall(e *syntax.Call, name string) (*ir.Value, bool) {
	none := g.const64(0)
	scalar := func(i int) *ir.Value { return g.int(g.value(e.Args[i])) }
	switch name {
	case "cat":
		g.format(e, object.EventCat)
	case "system":
		g.format(e, object.EventSystem)
	case "assert":
		ok, bad := g.block("assert.ok"), g.block("assert.failed")
		g.branch(e.Args[0], ok, bad)
		g.b.At(bad)
		g.event(object.Event{Kind: object.EventAssert, Format: g.info.Consts[e.Args[1]].Str}, nil)
		g.exit()
		g.b.At(ok)
	case "static_assert", "fail":
	case "join":
		g.joinStrings(e)
	case "strlen":
		return g.strlen(e.Args[0]), true
	case "strncmp":
		return g.strncmp(e), true
	case "strstr":
		return g.strstr(e), true
	case "strcontains":
		return g.b.Resize(g.b.Compare(ir.OpSGe, g.strstr(e), none), ir.I64, false), true
	case "memcmp":
		return g.memcmp(e), true
	case "strerror", "signal_name", "syscall_name":
		return scalar(0), true
	case "len":
		return g.length(e), true
	case "find":
		return g.find(e), true
	case "bswap":
		t := memType(g.typeOf(e))
		if t == ir.I8 {
			return scalar(0), true
		}
		return g.b.Resize(g.b.Swap(g.b.Resize(scalar(0), t, false)), ir.I64, false), true
	case "kaddr":
		return g.kernelSymbol(g.info.Consts[e.Args[0]].Str), true
	case "percpu_kaddr":
		return g.percpuSymbol(e), true
	case "reg":
		return g.contextRegister(g.info.Consts[e.Args[0]].Str), true
	case "signal":
		g.must(g.helper(hSendSignal, scalar(0)), "signal")
	case "signal_thread":
		g.must(g.helper(hSendThread, scalar(0)), "signal_thread")
	case "override":
		g.helper(hOverride, g.ctx, scalar(0))
	case "write_user":
		src := g.memoryOf(e.Args[1], int(g.info.Consts[e.Args[2]].Int))
		r := g.helper(hProbeWriteUser, g.pointer(scalar(0), check.UserSpace), src, scalar(2))
		return g.b.Resize(g.b.Compare(ir.OpEq, r, none), ir.I64, false), true
	case "socket_cookie":
		return g.helper(hSocketCookie, g.value(e.Args[0])), true
	case "unwatch":
		g.event(object.Event{Kind: object.EventUnwatch}, []arg{g.scalarArg("address", e.Args[0])})
	case "is_err":
		return g.b.Resize(g.b.Compare(ir.OpUGe, scalar(0), g.const64(-4095)), ir.I64, false), true
	case "pid", "tid":
		return g.pidMode(e, name == "tid"), true
	case "cgroupid":
		return g.cgroupID(g.info.Consts[e.Args[0]].Str), true
	case "uaddr":
		return g.uaddr(e), true
	case "skboutput":
		return g.skboutput(e), true
	case "ppid":
		return g.kernelField(g.kernelPointer(e.Args[0]), "task_struct", ir.I32, "real_parent", "tgid"), true
	default:
		return none, false
	}
	return none, true
}

// libraryInto lowers a call whose result lies in memory. It reports whether it
// knows the function.
func (g *gen) libraryInto(dst *ir.Value, e *syntax.Call, name string, t *check.Type) bool {
	switch name {
	case "buf":
		g.bufInto(dst, e, t)
	case "comm":
		g.commInto(dst, e, t)
	case "ntop":
		g.ntopInto(dst, e)
	case "macaddr":
		g.copyBytes(dst, e.Args[0], 6)
	case "cgroup_path":
		g.b.Store(dst, g.int(g.value(e.Args[0])))
		filter := ""
		if len(e.Args) == 2 {
			filter = g.info.Consts[e.Args[1]].Str
		}
		g.b.Store(g.b.Offset(dst, 8), g.const64(int64(g.stringIndex(filter))))
	case "path":
		size := min(g.typeOf(e).Size, t.Size)
		g.b.MemZero(dst, t.Size)
		p := g.structAddress(e.Args[0])
		r := g.helper(hDPath, p, dst, g.const64(int64(size)))
		g.ifThen(g.b.Compare(ir.OpSLt, r, g.const64(0)), func() { g.lose(object.LossFault, "path") })
	case "pcomm":
		g.kernelString(dst, g.kernelPointer(e.Args[0]), t.Size, "task_struct", "group_leader", "comm")
	default:
		return false
	}
	return true
}

// structAddress is the address of a struct that is given by pointer or by place.
func (g *gen) structAddress(e syntax.Expr) *ir.Value {
	if g.typeOf(e).IsScalar() {
		return g.value(e)
	}
	return g.place(e).ptr
}

func (g *gen) must(r *ir.Value, name string) {
	g.ifThen(g.b.Compare(ir.OpNe, g.b.Resize(r, ir.I32, false), g.b.Const(ir.I32, 0)), func() {
		g.event(object.Event{Kind: object.EventHelperError, Name: name}, []arg{{name: "error", t: check.Int64Type, write: func(dst *ir.Value) { g.b.Store(dst, r) }}})
	})
}

// stringIndex is the index of s in the manifest's strings.
func (l *lowerer) stringIndex(s string) int {
	for i, have := range l.man.Strings {
		if have == s {
			return i
		}
	}
	l.man.Strings = append(l.man.Strings, s)
	return len(l.man.Strings) - 1
}

// kernelSymbol is the address of a symbol, found when the object is loaded.
func (g *gen) kernelSymbol(name string) *ir.Value {
	for _, e := range g.mod.Externs {
		if e.Kind == ir.ExternKsym && e.Name == name {
			return g.b.PtrToInt(g.b.Ksym(e, ir.PtrTo(ir.SpaceKernel)))
		}
	}
	e := &ir.Extern{Kind: ir.ExternKsym, Name: name, Type: &btf.Void{}}
	g.mod.Externs = append(g.mod.Externs, e)
	return g.b.PtrToInt(g.b.Ksym(e, ir.PtrTo(ir.SpaceKernel)))
}

// percpuSymbol is the address of a CPU's own copy of a variable.
func (g *gen) percpuSymbol(e *syntax.Call) *ir.Value {
	cpu := g.low32(g.helper(hProcessorID))
	if len(e.Args) == 2 {
		cpu = g.int(g.value(e.Args[1]))
	}
	table := g.kernelSymbol("__per_cpu_offset")
	slot := g.pointer(g.b.Binary(ir.OpAdd, table, g.b.Binary(ir.OpShl, cpu, g.const64(3))), check.KernelSpace)
	base := g.b.Load(ir.I64, slot)
	addr := g.b.Binary(ir.OpAdd, g.kernelSymbol(g.info.Consts[e.Args[0]].Str), base)
	if len(e.Args) < 2 {
		return addr
	}
	// CPUs that the kernel does not have give null.
	yes, no, done := g.block("cpu"), g.block("cpu.none"), g.block("percpu")
	result := done.NewParam(ir.I64, "")
	g.b.If(g.b.Compare(ir.OpULt, cpu, g.const64(int64(g.cpus()))), yes, no)
	g.b.At(yes)
	g.b.Jump(done, addr)
	g.b.At(no)
	g.b.Jump(done, g.const64(0))
	g.b.At(done)
	return result
}

// kernelPointer is the value of an expression as a pointer to follow.
func (g *gen) kernelPointer(e syntax.Expr) *ir.Value { return g.pointer(g.value(e), check.KernelSpace) }

// kernelPlace follows fields of a kernel struct by their names.
func (g *gen) kernelPlace(p *ir.Value, name string, path ...string) *ir.Value {
	types, err := g.target.Types()
	if err != nil {
		g.errorf(g.b.Pos, "no-types", "the kernel's types are not known: %v", err)
		return p
	}
	st, err := types.Struct(name)
	if err != nil {
		g.errorf(g.b.Pos, "no-types", "the kernel's struct %s is not known: %v", name, err)
		return p
	}
	var t btf.Type = st
	for i, field := range path {
		index, m, offset, ok := check.FindMember(t, field)
		if !ok {
			g.errorf(g.b.Pos, "unknown-field", "the kernel's struct %s has no field %s", name, field)
			return p
		}
		p = g.b.Field(p, &ir.FieldRef{Struct: t, Path: index, Offset: uint32(offset / 8), Relocate: true})
		if i+1 == len(path) {
			break
		}
		ptr, ok := btf.UnderlyingType(m.Type).(*btf.Pointer)
		if !ok {
			g.errorf(g.b.Pos, "unknown-field", "the kernel's field %s is no pointer", field)
			return p
		}
		if p.Type.Space == ir.SpaceBTF {
			p = g.b.Load(ir.PtrTo(ir.SpaceBTF), p)
		} else {
			p = g.b.IntToPtr(g.b.Load(ir.I64, p), ir.PtrTo(ir.SpaceKernel))
		}
		if t, err = types.Resolve(ptr.Target); err != nil {
			g.errorf(g.b.Pos, "no-types", "the kernel's types are not known: %v", err)
			return p
		}
		t = btf.UnderlyingType(t)
	}
	return p
}

// kernelField reads a number out of a kernel struct.
func (g *gen) kernelField(p *ir.Value, name string, t ir.Type, path ...string) *ir.Value {
	return g.b.Resize(g.b.Load(t, g.kernelPlace(p, name, path...)), ir.I64, false)
}

// kernelString reads text of 16 bytes out of a kernel struct.
func (g *gen) kernelString(dst, p *ir.Value, size int, name string, path ...string) {
	g.stringInto(dst, g.kernelPlace(p, name, path...), min(16, size), size)
}

// bufInto writes a length and as many bytes to dst.
func (g *gen) bufInto(dst *ir.Value, e *syntax.Call, t *check.Type) {
	limit := int64(g.typeOf(e).Size - 4)
	n := g.const64(limit)
	if len(e.Args) == 2 {
		if _, ok := g.info.Consts[e.Args[1]]; !ok {
			n = g.clamp(g.int(g.value(e.Args[1])), limit)
		}
	}
	g.b.MemZero(dst, t.Size)
	xt := g.typeOf(e.Args[0])
	data := g.b.Offset(dst, 4)
	var src *ir.Value
	space := xt.Space
	if xt.IsScalar() {
		src = g.value(e.Args[0])
		if xt.Kind != check.Pointer {
			space = check.AnySpace
		}
	} else {
		p := g.place(e.Args[0])
		if g.direct(p.ptr) {
			g.b.Store(dst, g.b.Resize(n, ir.I32, false))
			g.b.MemCopy(data, p.ptr, int(limit))
			return
		}
		src = g.readable(p.ptr)
		space = check.KernelSpace
		if p.ptr.Type.Space == ir.SpaceUser {
			space = check.UserSpace
		}
	}
	g.b.Store(dst, g.b.Resize(n, ir.I32, false))
	g.readSpace(data, n, g.int(src), space, func() {
		g.b.Store(dst, g.b.Const(ir.I32, 0))
		g.lose(object.LossFault, "buf")
	})
}

// readSpace reads n bytes at an address of a space that may be known only when
// the program runs; failed runs when they are not there.
func (g *gen) readSpace(dst, n, addr *ir.Value, space check.Space, failed func()) {
	read := func(h ir.Extern, space check.Space) {
		r := g.helper(h, dst, n, g.pointer(addr, space))
		g.ifThen(g.b.Compare(ir.OpNe, g.b.Resize(r, ir.I32, false), g.b.Const(ir.I32, 0)), failed)
	}
	switch space {
	case check.UserSpace:
		read(hReadUser, space)
	case check.AnySpace:
		kernel, user, done := g.block("read.kernel"), g.block("read.user"), g.block("read.done")
		g.b.If(g.b.Compare(ir.OpSLt, addr, g.const64(0)), kernel, user)
		g.b.At(kernel)
		read(hReadKernel, check.KernelSpace)
		g.jump(done)
		g.b.At(user)
		read(hReadUser, check.UserSpace)
		g.jump(done)
		g.b.At(done)
	default:
		read(hReadKernel, check.KernelSpace)
	}
}

// copyBytes copies n bytes of an array, or behind a pointer, to dst.
func (g *gen) copyBytes(dst *ir.Value, e syntax.Expr, n int) {
	t := g.typeOf(e)
	if !t.IsScalar() {
		g.b.MemCopy(dst, g.readable(g.place(e).ptr), n)
		return
	}
	space := t.Space
	if t.Kind != check.Pointer {
		space = check.AnySpace
	}
	g.b.MemZero(dst, n)
	g.readSpace(dst, g.const64(int64(n)), g.int(g.value(e)), space, func() { g.lose(object.LossFault, "memory") })
}

// memoryOf is the address of at least n bytes that the program can read
// itself.
func (g *gen) memoryOf(e syntax.Expr, n int) *ir.Value {
	t := g.typeOf(e)
	if !t.IsScalar() && t.Size >= n {
		if p := g.memory(e); g.direct(p) {
			return p
		}
	}
	tmp := g.b.Alloca(max(n, 1), nil, "bytes")
	g.copyBytes(tmp, e, n)
	return tmp
}

// ntopInto writes a network address; see object.TypeInet.
func (g *gen) ntopInto(dst *ir.Value, e *syntax.Call) {
	x := e.Args[len(e.Args)-1]
	t := g.typeOf(x)
	g.b.MemZero(dst, 24)
	family := int64(2) // AF_INET
	data := g.b.Offset(dst, 8)
	switch {
	case t.IsScalar() && t.Kind != check.Pointer:
		g.b.Store(data, g.b.Resize(g.int(g.value(x)), ir.I32, false))
	case t.IsScalar():
		g.copyBytes(data, x, 4)
	default:
		g.copyBytes(data, x, t.Size)
		if t.Size == 16 {
			family = 10 // AF_INET6
		}
	}
	af := g.const64(family)
	if len(e.Args) == 2 {
		af = g.int(g.value(e.Args[0]))
	}
	g.b.Store(dst, af)
}

// joinStrings hands the strings of a char ** to the runner.
func (g *gen) joinStrings(e *syntax.Call) {
	sep := " "
	if len(e.Args) == 2 {
		sep = g.info.Consts[e.Args[1]].Str
	}
	t := g.typeOf(e.Args[0])
	var base *ir.Value
	if t.IsScalar() {
		base = g.int(g.value(e.Args[0]))
	} else {
		base = g.int(g.place(e.Args[0]).ptr)
	}
	space := t.Space
	if t.Kind != check.Pointer && t.Kind != check.Array || space == check.OwnSpace {
		space = check.AnySpace
	}
	size := min(joinSize, g.res.Config.MaxStrlen)
	text := check.StringType(size)
	slot := g.b.Alloca(8, nil, "string")
	var args []arg
	for range joinMax {
		args = append(args, arg{t: text, write: func(dst *ir.Value) { g.b.Store(dst, g.b.Const(ir.I8, 0)) }})
	}
	last := len(args) - 1
	args[last].write = func(dst *ir.Value) {
		g.b.Store(dst, g.b.Const(ir.I8, 0))
		done := g.block("joined")
		for i := range joinMax {
			at := g.b.Binary(ir.OpAdd, base, g.const64(int64(8*i)))
			g.b.Store(slot, g.const64(0))
			g.readSpace(slot, g.const64(8), at, space, func() {})
			next := g.block("join")
			p := g.b.Load(ir.I64, slot)
			g.b.If(g.b.Compare(ir.OpEq, p, g.const64(0)), done, next)
			g.b.At(next)
			g.readText(g.b.Offset(dst, int64((i-last)*size)), g.const64(int64(size)), p, space)
		}
		g.jump(done)
		g.b.At(done)
	}
	g.event(object.Event{Kind: object.EventJoin, Format: sep}, args)
}

// readText reads a string of a space that may be known only when the program
// runs, and returns its length with the terminating zero, or an error.
func (g *gen) readText(dst, n, addr *ir.Value, space check.Space) *ir.Value {
	switch space {
	case check.UserSpace:
		return g.helper(hReadUserStr, dst, n, g.pointer(addr, check.UserSpace))
	case check.AnySpace:
		kernel, user, done := g.block("text.kernel"), g.block("text.user"), g.block("text.done")
		result := done.NewParam(ir.I64, "n")
		g.b.If(g.b.Compare(ir.OpSLt, addr, g.const64(0)), kernel, user)
		g.b.At(kernel)
		g.b.Jump(done, g.helper(hReadKernelStr, dst, n, g.pointer(addr, check.KernelSpace)))
		g.b.At(user)
		g.b.Jump(done, g.helper(hReadUserStr, dst, n, g.pointer(addr, check.UserSpace)))
		g.b.At(done)
		return result
	}
	return g.helper(hReadKernelStr, dst, n, g.pointer(addr, check.KernelSpace))
}

// find is find(@m, key, $out).
func (g *gen) find(e *syntax.Call) *ir.Value {
	m := g.maps[g.info.Maps[e.Args[0].(*syntax.Map)]]
	out := g.info.Vars[e.Args[2].(*syntax.Var)]
	addr := g.variable(out)
	key := g.key(m, check.FindKeys(e))
	result := g.b.Alloca(8, nil, "found")
	g.found(m, key, func(p *ir.Value) {
		switch {
		case m.Value.Kind == check.Agg:
			g.b.Store(addr, g.sumUp(m, key))
		case m.Value.IsScalar():
			g.b.Store(addr, g.wrap(g.int(g.fromMap(p, m.Value)), out.Type))
		default:
			g.copyInto(addr, p, m.Value, out.Type)
		}
		g.b.Store(result, g.const64(1))
	}, func() { g.b.Store(result, g.const64(0)) })
	return g.b.Load(ir.I64, result)
}

// length is the number of a map's elements, or of a stack's frames.
func (g *gen) length(e *syntax.Call) *ir.Value {
	if x, ok := e.Args[0].(*syntax.Map); ok && g.info.Maps[x] != nil && g.maps[g.info.Maps[x]].Key != nil {
		return g.count(g.maps[g.info.Maps[x]])
	}
	t := g.typeOf(e.Args[0])
	if t.Kind == check.String {
		return g.strlen(e.Args[0])
	}
	// The frames are kept under the identifier that the stack begins with.
	id := g.memory(e.Args[0])
	p := g.helper(hMapLookup, g.b.Map(g.stacks), id)
	have, head, body, next, done := g.block("stack"), g.block("frames"), g.block("frame"), g.block("frame.next"), g.block("frames.done")
	i := head.NewParam(ir.I64, "i")
	n := done.NewParam(ir.I64, "n")
	g.b.IfEdges(g.b.Compare(ir.OpNe, p, g.b.Null(p.Type)), ir.Edge{To: have}, ir.Edge{To: done, Args: []*ir.Value{g.const64(0)}})
	g.b.At(have)
	p = g.b.NonNull(p)
	g.b.Jump(head, g.const64(0))
	g.b.At(head)
	g.b.IfEdges(g.b.Compare(ir.OpULt, i, g.const64(int64(t.Len))), ir.Edge{To: body}, ir.Edge{To: done, Args: []*ir.Value{i}})
	g.b.At(body)
	frame := g.b.Load(ir.I64, g.b.PtrAdd(p, g.b.Binary(ir.OpShl, i, g.const64(3))))
	g.b.IfEdges(g.b.Compare(ir.OpNe, frame, g.const64(0)), ir.Edge{To: next}, ir.Edge{To: done, Args: []*ir.Value{i}})
	g.b.At(next)
	g.b.Jump(head, g.b.Binary(ir.OpAdd, i, g.const64(1)))
	g.b.At(done)
	return n
}

// count is how many elements a map has.
func (g *gen) count(m *mapInfo) *ir.Value {
	if g.counter == nil {
		g.counter = g.mod.NewFunc("count_element", ir.Static, []ir.Type{
			ir.PtrTo(ir.SpaceMap), ir.PtrTo(ir.SpaceMapValue), ir.PtrTo(ir.SpaceMapValue), framePtr,
		}, ir.I64)
		b := ir.NewBuilder(g.counter)
		b.Pos = g.b.Pos
		g.counter.Pos = g.b.Pos
		b.Return(b.Const(ir.I64, 0))
	}
	state := g.b.Alloca(8, nil, "state")
	g.b.Store(state, g.const64(0))
	return g.helper(hForEachMapElem, g.b.Map(m.ir), g.b.FuncRef(g.counter), state, g.const64(0))
}
