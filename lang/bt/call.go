package bt

import (
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

// call lowers a call whose result, if any, is a scalar.
func (g *gen) call(e *syntax.Call) *ir.Value {
	defer g.at(e.Loc)()
	if inst := g.info.Funcs[e]; inst != nil {
		v, _ := g.callUser(e, inst)
		return v
	}
	switch f := g.info.Calls[e]; f.Name {
	case "printf", "errorf", "warnf":
		g.format(e, map[string]object.EventKind{
			"printf": object.EventPrintf, "errorf": object.EventErrorf, "warnf": object.EventWarnf,
		}[f.Name])
	case "print":
		g.print(e)
	case "clear":
		g.event(object.Event{Kind: object.EventClear, Map: g.mapName(e)}, nil)
	case "zero":
		g.event(object.Event{Kind: object.EventZero, Map: g.mapName(e)}, nil)
	case "exit":
		var args []arg
		if len(e.Args) == 1 {
			args = append(args, g.scalarArg("code", e.Args[0]))
		}
		if !g.pinned() { // who reads its file is not to be ended
			g.event(object.Event{Kind: object.EventExit}, args)
		}
		g.exit()
		// What follows is never run, but has to be lowered somewhere.
		g.b.At(g.block("after.exit"))
	case "time":
		format := "%H:%M:%S\n"
		if len(e.Args) == 1 {
			format = g.info.Consts[e.Args[0]].Str
		}
		g.event(object.Event{Kind: object.EventTime, Format: format}, nil)
	case "delete":
		return g.delete(e)
	case "has_key":
		x, keys := check.MapKeys(e)
		m := g.maps[g.info.Maps[x]]
		p := g.lookup(m, g.key(m, keys))
		return g.b.Resize(g.b.Compare(ir.OpNe, p, g.b.Null(p.Type)), ir.I64, false)
	case "nsecs":
		return g.nsecs(e)
	case "ksym", "kptr", "uptr":
		return g.int(g.value(e.Args[0]))
	default:
		if v, ok := g.libraryCall(e, f.Name); ok {
			return v
		}
		g.errorf(e.Loc, "unsupported", "%s cannot be compiled yet", f.Name)
	}
	return g.const64(0)
}

func (g *gen) mapName(e *syntax.Call) string {
	return g.info.Maps[e.Args[0].(*syntax.Map)].Name
}

func (g *gen) nsecs(e *syntax.Call) *ir.Value {
	mode := "boot"
	if len(e.Args) == 1 {
		mode = g.typeOf(e.Args[0]).Mode
	}
	switch mode {
	case "monotonic":
		return g.helper(hKtimeNS)
	case "tai", "sw_tai":
		// All kernels that skep runs on have the clock itself.
		return g.helper(hKtimeTAINS)
	}
	return g.helper(hKtimeBootNS)
}

// callInto lowers a call whose result lies in memory.
func (g *gen) callInto(dst *ir.Value, e *syntax.Call, t *check.Type) {
	if inst := g.info.Funcs[e]; inst != nil {
		_, out := g.callUser(e, inst)
		g.copyInto(dst, g.b.Offset(out, outResult), inst.Result, t)
		return
	}
	switch f := g.info.Calls[e]; f.Name {
	case "str":
		g.strInto(dst, e, t, padded)
	case "kstack", "ustack":
		g.stackInto(dst, g.typeOf(e))
	case "usym":
		g.usymInto(dst, g.value(e.Args[0]), g.const64(0))
	case "strftime":
		g.b.Store(dst, g.int(g.value(e.Args[1])))
		g.b.Store(g.b.Offset(dst, 8), g.b.Const(ir.I32, 0))
		g.b.Store(g.b.Offset(dst, 12), g.b.Const(ir.I32, int64(g.stringIndex(g.info.Consts[e.Args[0]].Str))))
	default:
		if !g.libraryInto(dst, e, f.Name, t) {
			g.errorf(e.Loc, "unsupported", "%s cannot be compiled yet", f.Name)
		}
	}
}

// A strForm says what is wanted of a string that is read.
type strForm uint8

const (
	padded   strForm = iota // all of it, with zeros behind its end
	unpadded                // all of it; behind its end may be anything
	prefix                  // its beginning, unpadded: more does not matter
)

// strInto reads a string through a pointer into the t.Size bytes at dst.
func (g *gen) strInto(dst *ir.Value, e *syntax.Call, t *check.Type, form strForm) {
	x := e.Args[0]
	xt := g.typeOf(x)
	size := min(g.typeOf(e).Size, t.Size)
	if !xt.IsScalar() {
		p := g.place(x)
		g.stringInto(dst, p.ptr, min(size, xt.Size), t.Size)
		return
	}
	addr := g.value(x)
	n := g.const64(int64(size))
	want := n // what was asked for, with the zero at the end
	if len(e.Args) == 2 {
		if k, ok := g.info.Consts[e.Args[1]]; ok {
			want = g.const64(k.Int + 1)
		} else {
			want = g.b.Binary(ir.OpAdd, g.int(g.value(e.Args[1])), g.const64(1))
			n = g.clamp(want, int64(size))
		}
	}
	if form == padded {
		g.b.MemZero(dst, t.Size)
	}
	read := func(space check.Space) {
		h := hReadKernelStr
		if space == check.UserSpace {
			h = hReadUserStr
		}
		r := g.helper(h, dst, n, g.pointer(g.int(addr), space))
		if form == prefix {
			g.ifThen(g.b.Compare(ir.OpSLt, r, g.const64(0)), func() { g.lose(object.LossFault, "str") })
			return
		}
		// Neither an error nor a string that takes all the room there is.
		g.ifThen(g.b.Compare(ir.OpUGe, r, g.const64(int64(size))), func() {
			g.ifElse(g.b.Compare(ir.OpSLt, r, g.const64(0)),
				func() { g.lose(object.LossFault, "str") },
				func() { g.cutString(dst, want, addr, size, space, len(e.Args) == 1) })
		})
	}
	space := xt.Space
	if xt.Kind != check.Pointer || space != check.UserSpace && g.argumentsOfAnySpace() {
		space = check.AnySpace
	}
	switch space {
	case check.UserSpace, check.KernelSpace:
		read(space)
	case check.AnySpace:
		// Kernel addresses have their highest bit set on all architectures.
		kernel, user, done := g.block("str.kernel"), g.block("str.user"), g.block("str.done")
		g.b.If(g.b.Compare(ir.OpSLt, g.int(addr), g.const64(0)), kernel, user)
		g.b.At(kernel)
		read(check.KernelSpace)
		g.b.Jump(done)
		g.b.At(user)
		read(check.UserSpace)
		g.b.Jump(done)
		g.b.At(done)
	default:
		read(check.KernelSpace)
	}
}

// cutString looks at a string of which size-1 bytes were read. Where it goes on
// and no less was asked for, its next byte takes the place of the zero at its
// end, which is what marks strings that were cut, and it is counted.
func (g *gen) cutString(dst, want, addr *ir.Value, size int, space check.Space, all bool) {
	look := func() {
		last := g.b.Offset(dst, int64(size-1))
		next := g.b.Binary(ir.OpAdd, g.int(addr), g.const64(int64(size-1)))
		g.readSpace(last, g.const64(1), next, space, func() {})
		g.ifThen(g.b.Compare(ir.OpNe, g.b.Load(ir.I8, last), g.b.Const(ir.I8, 0)), func() { g.lose(object.LossString, "str") })
	}
	if all {
		look()
		return
	}
	g.ifThen(g.b.Compare(ir.OpUGt, want, g.const64(int64(size))), look)
}

// isStr reports whether an expression is a call of str that is not known
// before it runs.
func (g *gen) isStr(e syntax.Expr) (*syntax.Call, bool) {
	call, ok := e.(*syntax.Call)
	if !ok || g.info.Funcs[call] != nil || g.info.Calls[call] == nil || g.info.Calls[call].Name != "str" {
		return nil, false
	}
	_, known := g.info.Consts[e]
	return call, !known
}

// argumentsOfAnySpace reports whether the probe is on functions of the kernel,
// whose types do not tell pointers to user memory apart (compilers keep
// __user only in the BTF of some kernels).
func (g *gen) argumentsOfAnySpace() bool {
	switch g.inst.Ctx.Kind {
	case hook.Kprobe, hook.Kretprobe, hook.Fentry, hook.Fexit, hook.RawTracepoint:
		return true
	}
	return false
}

// clamp is n between 0 and limit, in a way that the verifier follows.
func (g *gen) clamp(n *ir.Value, limit int64) *ir.Value {
	inside, out, done := g.block("clamp.in"), g.block("clamp.out"), g.block("clamped")
	result := done.NewParam(ir.I64, "n")
	g.b.If(g.b.Compare(ir.OpULe, n, g.const64(limit)), inside, out)
	g.b.At(inside)
	g.b.Jump(done, n)
	g.b.At(out)
	g.b.Jump(done, g.const64(limit))
	g.b.At(done)
	return result
}

func (g *gen) delete(e *syntax.Call) *ir.Value {
	x, keys := check.MapKeys(e)
	m := g.maps[g.info.Maps[x]]
	if m.vari != nil {
		p := g.b.Global(m.vari)
		g.b.MemZero(p, (m.size+7)/8*8+8)
		return g.const64(1)
	}
	if m.Key == nil {
		p := g.key(m, nil)
		g.found(m, p, func(elem *ir.Value) { g.b.MemZero(elem, m.size) }, nil)
		return g.const64(1)
	}
	r := g.helper(hMapDelete, g.b.Map(m.ir), g.key(m, keys))
	return g.b.Resize(g.b.Compare(ir.OpEq, g.b.Resize(r, ir.I32, false), g.b.Const(ir.I32, 0)), ir.I64, false)
}

// An arg is a part of a record: where it goes is decided by event.
type arg struct {
	name  string
	t     *check.Type
	write func(dst *ir.Value)
	shown *object.Type // when it is not shown as its type is
}

// scalarArg computes a number now and writes it later.
func (g *gen) scalarArg(name string, e syntax.Expr) arg {
	t := g.typeOf(e)
	v := g.int(g.value(e))
	return arg{name: name, t: t, write: func(dst *ir.Value) { g.b.Store(dst, g.b.Resize(v, memType(t), false)) }}
}

// valueArg computes scalars now; what lies in memory is written straight into
// the record.
func (g *gen) valueArg(name string, e syntax.Expr) arg {
	t := g.typeOf(e)
	if t.IsScalar() {
		return g.scalarArg(name, e)
	}
	if r := g.info.PrintedArgs[e]; r != nil {
		e = r
	}
	if g.mayLeave(e) {
		// No record may be held when the program ends.
		src := g.b.Alloca(t.Size, nil, "part")
		g.into(src, e, t)
		return arg{name: name, t: t, write: func(dst *ir.Value) { g.b.MemCopy(dst, src, t.Size) }}
	}
	// Who reads the record ends at the end of a string.
	if call, ok := g.isStr(e); ok {
		return arg{name: name, t: t, write: func(dst *ir.Value) { g.strInto(dst, call, t, unpadded) }}
	}
	if id, ok := e.(*syntax.Ident); ok && id.Name == "comm" && t.Size >= commSize {
		return arg{name: name, t: t, write: func(dst *ir.Value) { g.helper(hComm, dst, g.const64(commSize)) }}
	}
	return arg{name: name, t: t, write: func(dst *ir.Value) { g.into(dst, e, t) }}
}

// mayLeave reports whether the program may end while an expression is computed.
func (g *gen) mayLeave(e syntax.Expr) bool {
	found := false
	syntax.Walk(e, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Return, *syntax.Jump:
			found = true
		case *syntax.Ident:
			found = found || n.Name == "ctx" && g.inst.Ctx.Kind == hook.Iter
		case *syntax.Call:
			if callee := g.info.Funcs[n]; callee != nil {
				found = found || callee.Exits
			} else if f := g.info.Calls[n]; f != nil {
				found = found || f.Name == "exit" || f.Name == "assert"
			}
		}
		return !found
	})
	return found
}

// event reserves a record of the ring buffer, fills it in and submits it.
func (g *gen) event(ev object.Event, args []arg) {
	if g.pinned() {
		g.errorf(g.b.Pos, "unsupported", "a pinned iterator runs when its file is read, where nobody takes what %s asks for", ev.Kind).
			Notef("printf and print write into the file")
		return
	}
	offset := 8
	for _, a := range args {
		align := a.t.Align()
		offset = (offset + align - 1) / align * align
		shown := a.shown
		if shown == nil {
			t := showType(a.t)
			shown = &t
		}
		ev.Args = append(ev.Args, object.Field{Name: a.name, Offset: offset, Type: *shown})
		offset += a.t.Size
	}
	ev.Size = (offset + 7) / 8 * 8
	pos := g.b.Pos.Pos()
	ev.Line, ev.Col = pos.Line, pos.Column
	id := len(g.man.Events)
	g.man.Events = append(g.man.Events, ev)

	record := g.helper(hRingbufReserve, g.b.Map(g.ringBuffer()), g.const64(int64(ev.Size)), g.const64(0))
	record.Type.Size = uint32(ev.Size)
	yes, no, done := g.block("record"), g.block("record.lost"), g.block("submitted")
	g.b.If(g.b.Compare(ir.OpNe, record, g.b.Null(record.Type)), yes, no)
	g.b.Block.Likely = ir.Then
	fill := func(p *ir.Value) {
		g.b.Store(p, g.b.Const(ir.I64, g.eventWord(id)))
		for i, a := range args {
			a.write(g.b.Offset(p, int64(ev.Args[i].Offset)))
		}
	}
	g.b.At(no)
	if ev.Kind == object.EventExit || ev.Kind == object.EventAssert {
		// What ends the run is never lost.
		last := g.b.Global(g.lastRecord(ev.Size))
		fill(g.b.Offset(last, 8))
		g.b.Atomic(ir.AtomicAdd, last, g.const64(1), false)
	} else {
		g.lose(object.LossEvent, string(ev.Kind))
	}
	g.jump(done)
	g.b.At(yes)
	p := g.b.NonNull(record)
	fill(p)
	g.helper(hRingbufSubmit, p, g.const64(0))
	g.jump(done)
	g.b.At(done)
}

// lastRecord is where a record of at most size bytes goes that ends the run and
// did not fit the ring buffer: behind a number that is not 0 once it is there.
func (l *lowerer) lastRecord(size int) *ir.Global {
	if l.last == nil {
		l.last = &ir.Global{Name: object.LastRecordVar, Section: ".bss"}
		l.mod.Globals = append(l.mod.Globals, l.last)
	}
	if n := 8 + size; n > len(l.last.Init) {
		l.last.Init = make([]byte, n)
		l.last.Type = arrayOf(u64Type, n/8)
	}
	return l.last
}

// eventWord is the index of an event as the first 8 bytes of a record, of
// which the index takes the first 4.
func (g *gen) eventWord(id int) int64 {
	if g.target.ByteOrder().String() == "BigEndian" {
		return int64(id) << 32
	}
	return int64(id)
}

func (l *lowerer) ringBuffer() *ir.Map {
	if l.ring == nil {
		l.ring = &ir.Map{Name: "skep_events", Type: mapRingbuf, MaxEntries: uint32(l.ringSize())}
		l.mod.Maps = append(l.mod.Maps, l.ring)
		l.man.RingBuffer = l.ring.Name
	}
	return l.ring
}

// ringSize is the size of the ring buffer in bytes: perf_rb_pages for each
// CPU, rounded up to a power of two.
func (l *lowerer) ringSize() int {
	want := l.res.Config.PerfRingPages * l.target.PageSize() * l.target.CPUs()
	size := l.target.PageSize()
	for size < want && size < 1<<30 {
		size *= 2
	}
	return size
}

func (g *gen) format(e *syntax.Call, kind object.EventKind) {
	if kind == object.EventPrintf && g.pinned() {
		g.seqFormat(e)
		return
	}
	format := g.info.Consts[e.Args[0]].Str
	verbs, _ := check.Verbs(format)
	var args []arg
	for i, a := range e.Args[1:] {
		arg := g.valueArg("", a)
		if check.VerbOf(verbs, i) == 'g' {
			shown := g.gfpFlags(arg.t)
			arg.shown = &shown
		} else if e, ok := arg.t.BTF.(*btf.Enum); ok && arg.t.Kind == check.Int && strings.IndexByte("diuxXoc", check.VerbOf(verbs, i)) >= 0 {
			// The names of its constants, which may be others elsewhere, are not shown.
			arg.shown = &object.Type{Kind: object.TypeInt, Size: arg.t.Size, Signed: e.Signed}
		}
		args = append(args, arg)
	}
	g.event(object.Event{Kind: kind, Format: format}, args)
}

func (g *gen) print(e *syntax.Call) {
	switch x := e.Args[0].(type) {
	case *syntax.Map:
		m := g.maps[g.info.Maps[x]]
		var args []arg
		for i, name := range []string{"top", "div"} {
			if i+1 < len(e.Args) {
				args = append(args, g.scalarArg(name, e.Args[i+1]))
			}
		}
		g.event(object.Event{Kind: object.EventPrintMap, Map: m.Name}, args)
	case *syntax.MapIndex:
		m := g.maps[g.info.Maps[x.Map]]
		args := []arg{{name: "key", t: m.Key, write: func(dst *ir.Value) {
			if len(x.Keys) == 1 {
				g.into(dst, x.Keys[0], m.Key)
				return
			}
			g.fieldsInto(dst, m.Key, x.Keys)
		}}}
		if m.Value.Kind != check.Agg {
			args = append(args, arg{name: "value", t: m.Value, write: func(dst *ir.Value) { g.into(dst, x, m.Value) }})
		}
		g.event(object.Event{Kind: object.EventPrintElem, Map: m.Name}, args)
	default:
		if g.pinned() {
			g.seqPrint(x)
			return
		}
		g.event(object.Event{Kind: object.EventPrint}, []arg{g.valueArg("", x)})
	}
}
