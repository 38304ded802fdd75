package bt

import (
	"encoding/binary"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

// memory returns the address of the value of an expression that does not fit
// a register, in memory that the program can read directly.
func (g *gen) memory(e syntax.Expr) *ir.Value {
	defer g.at(e.Span())()
	t := g.typeOf(e)
	switch e := e.(type) {
	case *syntax.Var:
		return g.variable(g.info.Vars[e])
	case *syntax.Map, *syntax.MapIndex:
		return g.readMapMemory(e)
	case *syntax.Field, *syntax.Index, *syntax.TupleField, *syntax.Unary, *syntax.Cast:
		if c, ok := e.(*syntax.Cast); ok && t.Kind == check.Array && g.typeOf(c.X).IsScalar() {
			break
		}
		if p := g.place(e); p.ptr != nil && g.direct(p.ptr) && t.Kind != check.String {
			return p.ptr
		}
	}
	tmp := g.b.Alloca(max(t.Size, 1), nil, "tmp") // an empty tuple has none
	g.into(tmp, e, t)
	return tmp
}

// direct reports whether memory at p may be handed to helpers and read as it is.
func (g *gen) direct(p *ir.Value) bool {
	switch p.Type.Space {
	case ir.SpaceStack, ir.SpaceMapValue, ir.SpaceMem:
		return true
	}
	return false
}

// into writes the value of an expression as type t at dst: all t.Size bytes,
// so that equal values are equal as keys.
func (g *gen) into(dst *ir.Value, e syntax.Expr, t *check.Type) {
	defer g.at(e.Span())()
	et := g.typeOf(e)
	if t.IsScalar() {
		g.scalarInto(dst, g.value(e), t)
		return
	}
	if k, ok := g.info.Consts[e]; ok && k.IsString {
		if t.Kind == check.Array {
			g.rawInto(dst, []byte(k.Str)) // of pton: no text
			return
		}
		g.bytesInto(dst, []byte(k.Str), t.Size)
		return
	}
	switch t.Kind {
	case check.Tuple, check.Record:
		switch e := e.(type) {
		case *syntax.Tuple:
			g.fieldsInto(dst, t, e.Elems)
			return
		case *syntax.Record:
			elems := make([]syntax.Expr, len(e.Fields))
			for i, f := range e.Fields {
				elems[i] = f.Value
			}
			g.fieldsInto(dst, t, elems)
			return
		}
	}
	if c, ok := e.(*syntax.Cast); ok && et.Kind == check.Array && g.typeOf(c.X).IsScalar() {
		g.numberInto(dst, c, t)
		return
	}
	switch e := e.(type) {
	case *syntax.Ident:
		g.identInto(dst, e, t)
		return
	case *syntax.Call:
		g.callInto(dst, e, t)
		return
	case *syntax.Ternary:
		then, els, done := g.block("then"), g.block("else"), g.block("chosen")
		g.branch(e.Cond, then, els)
		g.b.At(then)
		if e.Then != nil {
			g.into(dst, e.Then, t)
		}
		g.jump(done)
		g.b.At(els)
		g.into(dst, e.Else, t)
		g.jump(done)
		g.b.At(done)
		return
	case *syntax.Var:
		g.copyInto(dst, g.variable(g.info.Vars[e]), et, t)
		return
	case *syntax.Map, *syntax.MapIndex:
		g.copyInto(dst, g.readMapMemory(e), et, t)
		return
	case *syntax.Field, *syntax.Index, *syntax.TupleField, *syntax.Unary, *syntax.Cast:
		if f, ok := e.(*syntax.Field); ok && g.stringArg(dst, f, t) {
			return
		}
		p := g.place(e)
		if p.value != nil {
			g.scalarInto(dst, p.value, t)
			return
		}
		if !g.direct(p.ptr) {
			g.copied(e, et)
		}
		g.copyInto(dst, p.ptr, et, t)
		return
	case *syntax.Comptime:
		g.into(dst, e.X, t)
		return
	case *syntax.BlockExpr:
		g.blockInto(e.Block, func(x syntax.Expr) { g.into(dst, x, t) })
		return
	case *syntax.IfExpr:
		g.ifInto(e.If, func(x syntax.Expr) { g.into(dst, x, t) })
		return
	}
	g.errorf(e.Span(), "unsupported", "this value cannot be compiled yet")
}

// numberInto writes the bytes of a number as an array, zeros where it has fewer.
func (g *gen) numberInto(dst *ir.Value, e *syntax.Cast, t *check.Type) {
	n := min(t.Size, 8)
	v := g.b.Alloca(8, nil, "number")
	g.b.Store(v, g.int(g.value(e.X)))
	g.b.MemCopy(dst, v, n)
	if t.Size > n {
		g.b.MemZero(g.b.Offset(dst, int64(n)), t.Size-n)
	}
}

// scalarInto writes a scalar as type t.
func (g *gen) scalarInto(dst, v *ir.Value, t *check.Type) {
	g.b.Store(dst, g.b.Resize(g.int(v), memType(t), false))
}

// fieldsInto writes the parts of a tuple, and zeros between them.
func (g *gen) fieldsInto(dst *ir.Value, t *check.Type, elems []syntax.Expr) {
	end := 0
	for i, f := range t.Fields {
		if f.Offset > end {
			g.b.MemZero(g.b.Offset(dst, int64(end)), f.Offset-end)
		}
		g.into(g.b.Offset(dst, int64(f.Offset)), elems[i], f.Type)
		end = f.Offset + f.Type.Size
	}
	if t.Size > end {
		g.b.MemZero(g.b.Offset(dst, int64(end)), t.Size-end)
	}
}

// copyInto copies a value of type from at src to dst as type to.
func (g *gen) copyInto(dst, src *ir.Value, from, to *check.Type) {
	if (to.Kind == check.Tuple || to.Kind == check.Record) && !check.SameLayout(from, to) && len(from.Fields) == len(to.Fields) {
		g.b.MemZero(dst, to.Size)
		for i, f := range to.Fields {
			part := from.Fields[i]
			p, q := g.b.Offset(dst, int64(f.Offset)), g.b.Offset(src, int64(part.Offset))
			if f.Type.IsScalar() {
				g.scalarInto(p, g.b.Resize(g.b.Load(memType(part.Type), q), ir.I64, part.Type.Signed), f.Type)
			} else {
				g.copyInto(p, q, part.Type, f.Type)
			}
		}
		return
	}
	if to.Kind == check.String {
		g.stringInto(dst, src, min(from.Size, to.Size), to.Size)
		return
	}
	n := min(from.Size, to.Size)
	g.b.MemCopy(dst, g.readable(src), n)
	if to.Size > n {
		g.b.MemZero(g.b.Offset(dst, int64(n)), to.Size-n)
	}
}

// readable is p as memory that bulk copies can read: kernel objects that the
// verifier knows are only open to loads of their members.
func (g *gen) readable(p *ir.Value) *ir.Value {
	if p.Type.Space == ir.SpaceBTF {
		return g.b.PtrCast(p, ir.PtrTo(ir.SpaceKernel))
	}
	return p
}

// stringInto copies a string of at most n bytes at src to the size bytes at
// dst, which end in zeros.
func (g *gen) stringInto(dst, src *ir.Value, n, size int) {
	src = g.readable(src)
	switch src.Type.Space {
	case ir.SpaceKernel:
		g.b.MemZero(dst, size)
		g.helper(hReadKernelStr, dst, g.const64(int64(n)), src)
	case ir.SpaceUser:
		g.b.MemZero(dst, size)
		g.helper(hReadUserStr, dst, g.const64(int64(n)), src)
	default:
		g.b.MemCopy(dst, src, n)
		if size > n {
			g.b.MemZero(g.b.Offset(dst, int64(n)), size-n)
		}
	}
}

// bytesInto writes constant bytes, and zeros up to size.
func (g *gen) bytesInto(dst *ir.Value, data []byte, size int) {
	buf := make([]byte, size)
	copy(buf, data)
	if len(data) >= size && size > 0 {
		buf[size-1] = 0
	}
	g.rawInto(dst, buf)
}

// rawInto writes constant bytes.
func (g *gen) rawInto(dst *ir.Value, buf []byte) {
	order := g.target.ByteOrder()
	for i := 0; i < len(buf); {
		rest := buf[i:]
		zeros := 0
		for zeros < len(rest) && rest[zeros] == 0 {
			zeros++
		}
		if zeros > 8 {
			g.b.MemZero(g.b.Offset(dst, int64(i)), zeros)
			i += zeros
			continue
		}
		p := g.b.Offset(dst, int64(i))
		align := alignment(p)
		switch {
		case len(rest) >= 8 && align >= 8:
			g.b.Store(p, g.b.Const(ir.I64, int64(order.Uint64(rest))))
			i += 8
		case len(rest) >= 4 && align >= 4:
			g.b.Store(p, g.b.Const(ir.I32, int64(order.Uint32(rest))))
			i += 4
		case len(rest) >= 2 && align >= 2:
			g.b.Store(p, g.b.Const(ir.I16, int64(order.Uint16(rest))))
			i += 2
		default:
			g.b.Store(p, g.b.Const(ir.I8, int64(rest[0])))
			i++
		}
	}
}

// commSize is the size of the name of a task (TASK_COMM_LEN, include/linux/sched.h).
const commSize = 16

func (g *gen) identInto(dst *ir.Value, e *syntax.Ident, t *check.Type) {
	switch e.Name {
	case "comm":
		// Not every kernel clears what is behind the name: Linux 6.1 does not.
		g.b.MemZero(dst, t.Size)
		g.helper(hComm, dst, g.const64(commSize))
	case "kstack", "ustack":
		g.stackInto(dst, g.typeOf(e))
	case "pcomm", "leader_comm":
		g.kernelString(dst, g.helper(hTaskBTF), t.Size, "task_struct", "group_leader", "comm")
	case "func":
		g.usymInto(dst, g.helper(hFuncIP, g.ctx), g.probeIndex())
	default:
		g.errorf(e.Loc, "unsupported", "%s cannot be compiled yet", e.Name)
	}
}

// compareMemory is the truth value of == or != on values in memory.
func (g *gen) compareMemory(e *syntax.Binary) *ir.Value {
	x, y := e.X, e.Y
	xt, yt := g.typeOf(x), g.typeOf(y)
	if k, ok := g.info.Consts[x]; ok && k.IsString {
		x, y, xt, yt = y, x, yt, xt
	}
	n := min(xt.Size, yt.Size)
	if k, ok := g.info.Consts[y]; ok && k.IsString {
		// A literal is compared with its terminating zero, as far as the
		// other side can hold it.
		want := append([]byte(k.Str), 0)
		if len(want) > xt.Size {
			want = want[:xt.Size]
			if len(k.Str) > xt.Size {
				return g.b.Const(ir.I1, truth(e.Op == syntax.OpNe))
			}
		}
		return g.equalBytes(g.beginning(x, len(want)), want, e.Op == syntax.OpEq)
	}
	if t := check.Join(xt, yt); t != nil && (t.Kind == check.Tuple || t.Kind == check.Record) {
		px, py := g.b.Alloca(t.Size, nil, "left"), g.b.Alloca(t.Size, nil, "right")
		g.into(px, x, t)
		g.into(py, y, t)
		return g.equalWords(px, py, t.Size, e.Op == syntax.OpEq)
	}
	px, py := g.memory(x), g.memory(y)
	if xt.Kind == check.String {
		return g.equalStrings(px, py, n, e.Op == syntax.OpEq)
	}
	return g.equalWords(px, py, n, e.Op == syntax.OpEq)
}

// beginning is the address of a string of which no more than its first n bytes
// are looked at, and no more of them than there are up to its end.
func (g *gen) beginning(e syntax.Expr, n int) *ir.Value {
	call, ok := g.isStr(e)
	if !ok {
		return g.memory(e)
	}
	// One byte more is the zero that ends what is cut off.
	t := *g.typeOf(e)
	t.Size = min(t.Size, n+1)
	tmp := g.b.Alloca(t.Size, nil, "prefix")
	g.strInto(tmp, call, &t, prefix)
	return tmp
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// alignment is what is known of the alignment of p, at most 8 bytes. What it
// leads to begins at a multiple of 8: a variable, a record, a map's value.
func alignment(p *ir.Value) int {
	offset := int64(8)
	for {
		switch p.Op {
		case ir.OpPtrAdd:
			n, ok := p.Args[1].IsConst()
			if !ok {
				return 1
			}
			offset |= n
			p = p.Args[0]
			continue
		case ir.OpPtrCast, ir.OpNonNull:
			p = p.Args[0]
			continue
		case ir.OpField:
			offset |= int64(p.Aux.(*ir.FieldRef).Offset)
			p = p.Args[0]
			continue
		}
		return int(offset & -offset)
	}
}

// words calls f for pieces of n bytes that loads can read from memory of an
// alignment.
func words(n, align int, f func(offset, size int)) {
	for i := 0; i < n; {
		size := align
		for size > n-i {
			size /= 2
		}
		f(i, size)
		i += size
	}
}

// equalBytes compares memory with constant bytes.
func (g *gen) equalBytes(p *ir.Value, want []byte, equal bool) *ir.Value {
	order := g.target.ByteOrder()
	var conds []func() *ir.Value
	words(len(want), alignment(p), func(offset, size int) {
		conds = append(conds, func() *ir.Value {
			t := ir.IntType(8 * size)
			return g.b.Compare(ir.OpEq, g.b.Load(t, g.b.Offset(p, int64(offset))), g.b.Const(t, constant(order, want[offset:offset+size])))
		})
	})
	return g.all(conds, equal)
}

func constant(order binary.ByteOrder, b []byte) int64 {
	switch len(b) {
	case 8:
		return int64(order.Uint64(b))
	case 4:
		return int64(order.Uint32(b))
	case 2:
		return int64(order.Uint16(b))
	}
	return int64(b[0])
}

func (g *gen) equalWords(x, y *ir.Value, n int, equal bool) *ir.Value {
	var conds []func() *ir.Value
	words(n, min(alignment(x), alignment(y)), func(offset, size int) {
		conds = append(conds, func() *ir.Value {
			t := ir.IntType(8 * size)
			return g.b.Compare(ir.OpEq, g.b.Load(t, g.b.Offset(x, int64(offset))), g.b.Load(t, g.b.Offset(y, int64(offset))))
		})
	})
	return g.all(conds, equal)
}

// all is whether all conditions hold (or not, when equal is false). Later
// ones are not computed once one fails.
func (g *gen) all(conds []func() *ir.Value, equal bool) *ir.Value {
	no, done := g.block("differ"), g.block("compared")
	result := done.NewParam(ir.I1, "")
	for _, cond := range conds {
		next := g.block("same")
		g.b.If(cond(), next, no)
		g.b.At(next)
	}
	g.b.Jump(done, g.b.Const(ir.I1, truth(equal)))
	g.b.At(no)
	g.b.Jump(done, g.b.Const(ir.I1, truth(!equal)))
	g.b.At(done)
	return result
}

// unrolledCompare is the number of bytes up to which a comparison is unrolled.
const unrolledCompare = 64

// equalStrings compares two strings of at most n bytes. What lies in the
// program's memory is padded with zeros, so whole words can be compared.
func (g *gen) equalStrings(x, y *ir.Value, n int, equal bool) *ir.Value {
	if n <= unrolledCompare {
		return g.equalWords(x, y, n, equal)
	}
	head, body, more, rest, no, done := g.block("str"), g.block("str.word"), g.block("str.next"), g.block("str.rest"), g.block("differ"), g.block("compared")
	i := head.NewParam(ir.I64, "i")
	result := done.NewParam(ir.I1, "")
	g.b.Jump(head, g.const64(0))
	g.b.At(head)
	g.b.If(g.b.Compare(ir.OpULt, i, g.const64(int64(n/8*8))), body, rest)
	g.b.At(body)
	a := g.b.Load(ir.I64, g.b.PtrAdd(x, i))
	b := g.b.Load(ir.I64, g.b.PtrAdd(y, i))
	g.b.If(g.b.Compare(ir.OpEq, a, b), more, no)
	g.b.At(more)
	g.b.Jump(head, g.b.Binary(ir.OpAdd, i, g.const64(8)))
	g.b.At(rest)
	tail := int64(n / 8 * 8)
	last := g.equalWords(g.b.Offset(x, tail), g.b.Offset(y, tail), n%8, equal)
	g.b.Jump(done, last)
	g.b.At(no)
	g.b.Jump(done, g.b.Const(ir.I1, truth(!equal)))
	g.b.At(done)
	return result
}

// usymInto writes an address of a user program with what is needed to name it.
// probe is the index of the probe whose function it is, or 0.
func (g *gen) usymInto(dst, addr, probe *ir.Value) {
	g.b.Store(dst, g.int(addr))
	g.b.Store(g.b.Offset(dst, 8), g.b.Resize(g.pid(), ir.I32, false))
	g.b.Store(g.b.Offset(dst, 12), g.b.Resize(probe, ir.I32, false))
}

// maxFrames is the number of frames of a kept stack.
const maxFrames = 127

// step returns the function of that name that bpf_loop calls for each round, with
// the index of the round and a state; made is set when it has its body already.
func (g *gen) step(name string) (f *ir.Func, made bool) {
	for _, f := range g.mod.Funcs {
		if f.Name == name {
			return f, true
		}
	}
	f = g.mod.NewFunc(name, ir.Static, []ir.Type{ir.I64, framePtr}, ir.I64)
	f.Pos = g.b.Pos
	return f, false
}

// What the hash of a stack is computed on, offsets in bytes.
const (
	hashFrames = 0
	hashValue  = 8
	hashSize   = 16
)

// stackHasher is the function that takes one frame into the hash of a stack:
// FNV-1a over whole frames, up to the first zero. The verifier looks at it once,
// where a loop would cost it a way out for each frame.
func (g *gen) stackHasher() *ir.Func {
	const name = "hash_stack"
	f, made := g.step(name)
	if made {
		return f
	}
	b := ir.NewBuilder(f)
	i, state := f.Params()[0], f.Params()[1]
	con := func(n int64) *ir.Value { return b.Const(ir.I64, n) }
	frames := b.Load(ir.MemPtr(ir.SpaceStack, 8*(maxFrames+1)), b.Offset(state, hashFrames))
	inside, mix, end := f.NewBlock("inside"), f.NewBlock("mix"), f.NewBlock("end")
	b.If(b.Compare(ir.OpULt, i, con(maxFrames)), inside, end)
	b.At(inside)
	frame := b.Load(ir.I64, b.PtrAdd(frames, b.Binary(ir.OpShl, i, con(3))))
	b.If(b.Compare(ir.OpNe, frame, con(0)), mix, end)
	b.At(mix)
	value := b.Offset(state, hashValue)
	mixed := b.Binary(ir.OpMul, b.Binary(ir.OpXor, b.Load(ir.I64, value), frame), con(1099511628211))
	b.Store(value, b.Binary(ir.OpXor, mixed, b.Binary(ir.OpLShr, mixed, con(29))))
	b.Return(con(0))
	b.At(end)
	b.Return(con(1))
	return f
}

// stackInto takes a stack, keeps its frames by a hash of them, and writes
// the stack value to dst; see object.StackSize.
func (g *gen) stackInto(dst *ir.Value, t *check.Type) {
	const size = 8 * (maxFrames + 1)
	if g.stacks == nil {
		g.stacks = &ir.Map{
			Name: "skep_stacks", Type: mapHash, Key: u64Type, KeySize: 8,
			Value: arrayOf(u64Type, maxFrames+1), ValueSize: size, MaxEntries: 1 << 14, Flags: mapNoPrealloc,
		}
		g.mod.Maps = append(g.mod.Maps, g.stacks)
		g.man.Stacks = g.stacks.Name
	}
	frames := g.b.Alloca(size, nil, "frames")
	g.b.MemZero(frames, size)
	flags := int64(0)
	if t.Kind == check.Ustack {
		flags = 1 << 8 // BPF_F_USER_STACK
	}
	got := g.helper(hStack, g.ctx, frames, g.const64(int64(8*t.Len)), g.const64(flags))
	ok, bad, done := g.block("stack"), g.block("stack.none"), g.block("stack.done")
	id := done.NewParam(ir.I64, "id")
	g.b.If(g.b.Compare(ir.OpSGt, got, g.const64(0)), ok, bad)
	g.b.At(bad)
	// Zero bytes are no loss: a kernel thread has no user stack, and user code
	// that was sampled no kernel stack.
	g.ifThen(g.b.Compare(ir.OpSLt, got, g.const64(0)), func() { g.lose(object.LossStack, "") })
	g.b.Jump(done, g.const64(0))
	g.b.At(ok)

	state := g.b.Alloca(hashSize, nil, "hash")
	g.b.Store(g.b.Offset(state, hashFrames), frames)
	g.b.Store(g.b.Offset(state, hashValue), g.const64(-3750763034362895579))
	g.helper(hLoop, g.const64(int64(t.Len)), g.b.FuncRef(g.stackHasher()), state, g.const64(0))
	h := g.b.Load(ir.I64, g.b.Offset(state, hashValue))
	key := g.b.Alloca(8, nil, "stack")
	g.b.Store(key, h)
	r := g.helper(hMapUpdate, g.b.Map(g.stacks), key, frames, g.const64(1)) // BPF_NOEXIST
	full := g.block("stack.full")
	stored := g.block("stack.stored")
	exists := g.b.Compare(ir.OpEq, g.b.Resize(r, ir.I32, false), g.b.Const(ir.I32, -17))
	fresh := g.block("stack.fresh")
	g.b.If(exists, stored, fresh)
	g.b.At(fresh)
	g.b.If(g.b.Compare(ir.OpEq, r, g.const64(0)), stored, full)
	g.b.At(full)
	g.lose(object.LossStack, "")
	g.b.Jump(stored)
	g.b.At(stored)
	g.b.Jump(done, h)

	g.b.At(done)
	g.b.Store(dst, id)
	// Equal stacks are equal keys: what names no frame stays out.
	tgid := g.b.Const(ir.I32, 0)
	if t.Kind == check.Ustack {
		tgid = g.b.Resize(g.pid(), ir.I32, false)
	}
	g.b.Store(g.b.Offset(dst, 8), tgid)
	g.b.Store(g.b.Offset(dst, 12), g.b.Const(ir.I32, int64(t.Len)))
}
