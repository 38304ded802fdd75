package bt

import (
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
)

// How arguments are found, by kind of hook.

// rawArg is slot i of the context of a raw tracepoint, fentry or fexit.
func (g *gen) rawArg(i int) *ir.Value { return g.b.Load(ir.I64, g.b.Offset(g.ctx, int64(8*i))) }

// callerRegister reads a register of the caller of a system call: the first
// argument of both raw tracepoints is its struct pt_regs, whose layout is ABI.
func (g *gen) callerRegister(name string) *ir.Value {
	r, ok := g.regs.Lookup(name)
	if !ok {
		return g.noRegister(name)
	}
	var p *ir.Value
	if g.typedSyscall() {
		p = g.b.Offset(g.b.Load(ir.PtrTo(ir.SpaceBTF), g.ctx), int64(r.Offset))
	} else {
		p = g.b.IntToPtr(g.b.Binary(ir.OpAdd, g.rawArg(0), g.const64(int64(r.Offset))), ir.PtrTo(ir.SpaceKernel))
	}
	return g.b.Resize(g.b.Load(ir.IntType(8*r.Size), p), ir.I64, false)
}

// contextRegister reads a register out of a context that begins with a struct
// pt_regs.
func (g *gen) contextRegister(name string) *ir.Value {
	r, ok := g.regs.Lookup(name)
	if !ok || r.Offset >= g.regs.Size {
		return g.noRegister(name)
	}
	return g.b.Resize(g.b.Load(ir.IntType(8*r.Size), g.b.Offset(g.ctx, int64(r.Offset))), ir.I64, false)
}

func (g *gen) noRegister(name string) *ir.Value {
	g.errorf(g.b.Pos, "unknown-register", "there is no register %q on %s", name, g.arch)
	return g.const64(0)
}

// argument is argN.
func (g *gen) argument(n int) *ir.Value {
	switch g.inst.Ctx.Kind {
	case hook.RawTracepoint:
		if len(g.inst.Points) == 1 {
			g.rely(object.FactArgs, g.rawName(n), g.b.Pos.Pos().Line)
		}
		if g.inst.Ctx.Typed {
			return g.typedSlot(n)
		}
		return g.rawArg(n)
	case hook.Kprobe, hook.Uprobe:
		if n < len(g.regs.Args) {
			return g.contextRegister(g.regs.Args[n])
		}
	case hook.USDT:
		return g.usdtArgument(g.inst.Ctx.USDT[0], n)
	}
	g.errorf(g.b.Pos, "unsupported", "arg%d cannot be compiled in this kind of probe", n)
	return g.const64(0)
}

// typedSlot is argument n of a typed raw tracepoint as a number.
func (g *gen) typedSlot(n int) *ir.Value {
	for _, f := range g.inst.Ctx.Args.Fields {
		if f.Arg.Index == n && f.Type.Kind == check.Pointer && f.Type.Space == check.BTFSpace {
			return g.b.PtrToInt(g.b.Load(irType(f.Type), g.b.Offset(g.ctx, int64(8*n))))
		}
	}
	return g.rawArg(n)
}

// rawName is the fact about argument n of a raw tracepoint.
func (g *gen) rawName(n int) string {
	pt := g.inst.Points[0]
	if rt, err := g.target.RawTracepoint(pt.Event); err == nil && n < len(rt.Args) {
		return "rawtracepoint:" + pt.Event + ":" + rt.Args[n].Name
	}
	return "rawtracepoint:" + pt.Event + ":" + strconv.Itoa(n)
}

// stackArgument is sargN: the Nth argument that did not fit the registers.
func (g *gen) stackArgument(n int) *ir.Value {
	offset := int64(8 * n)
	if g.regs.LinkRegister == "" {
		offset += 8 // the return address
	}
	space := ir.SpaceUser
	if g.inst.Ctx.Kind == hook.Kprobe {
		space = ir.SpaceKernel
	}
	addr := g.b.Binary(ir.OpAdd, g.contextRegister(g.regs.StackPointer), g.const64(offset))
	return g.b.Load(ir.I64, g.b.IntToPtr(addr, ir.PtrTo(space)))
}

// usdtRegisters are the registers of USDT arguments by the names that package
// abi has for them, where they differ.
var usdtRegisters = map[string]string{
	"rax": "ax", "rbx": "bx", "rcx": "cx", "rdx": "dx", "rsi": "si", "rdi": "di", "rbp": "bp", "rsp": "sp", "rip": "ip",
}

func (g *gen) usdtRegister(name string) *ir.Value {
	if n, ok := usdtRegisters[name]; ok {
		name = n
	} else if rest, ok := strings.CutPrefix(name, "x"); ok && g.arch.String() == "arm64" {
		name = "r" + rest
	}
	return g.contextRegister(name)
}

// usdtArgument is argument n of a USDT probe, by its note.
func (g *gen) usdtArgument(p symbol.USDTProbe, n int) *ir.Value {
	a := p.Args[n]
	width := ir.IntType(8 * int(a.Size))
	switch a.Kind {
	case symbol.ArgConst:
		return g.const64(a.Value)
	case symbol.ArgRegister:
		v := g.usdtRegister(a.Reg)
		if a.High {
			v = g.b.Binary(ir.OpLShr, v, g.const64(8))
		}
		return g.b.Resize(g.b.Resize(v, width, false), ir.I64, a.Signed)
	}
	addr := g.const64(a.Value)
	switch a.Reg {
	case "":
	case "rip":
		// The image has been moved by as much as the probe itself.
		moved := g.b.Binary(ir.OpSub, g.usdtRegister("rip"), g.const64(int64(p.Addr)))
		addr = g.b.Binary(ir.OpAdd, addr, moved)
	default:
		addr = g.b.Binary(ir.OpAdd, addr, g.usdtRegister(a.Reg))
	}
	if a.Index != "" {
		scale := g.const64(int64(max(a.Scale, 1)))
		addr = g.b.Binary(ir.OpAdd, addr, g.b.Binary(ir.OpMul, g.usdtRegister(a.Index), scale))
	}
	return g.b.Resize(g.b.Load(width, g.b.IntToPtr(addr, ir.PtrTo(ir.SpaceUser))), ir.I64, a.Signed)
}

func (g *gen) retval() *ir.Value {
	ctx := &g.inst.Ctx
	switch ctx.Kind {
	case hook.Kretprobe, hook.Uretprobe:
		return g.contextRegister(g.regs.Return)
	case hook.Fexit:
		pt := g.inst.Points[0]
		g.rely(object.FactArgs, g.function(pt)+":", g.b.Pos.Pos().Line)
		return g.narrow(g.rawArg(ctx.Exit), ctx.Retval)
	}
	return g.const64(0)
}

// function names the kernel function of a point in facts.
func (g *gen) function(pt check.Point) string {
	if pt.Module != "" && pt.Module != "vmlinux" {
		return "fentry:" + pt.Module + ":" + pt.Func
	}
	return "fentry:" + pt.Func
}

// narrow reads a 64-bit slot as a value of type t.
func (g *gen) narrow(v *ir.Value, t *check.Type) *ir.Value {
	if t.Kind == check.Pointer || t.Size == 8 || !t.IsScalar() {
		return v
	}
	return g.b.Resize(g.b.Resize(v, memType(t), false), ir.I64, t.Signed)
}

// argPlace finds an argument of the probe, or a member of an iterator's context.
func (g *gen) argPlace(e *syntax.Field, s *check.Selection) place {
	t := g.typeOf(e)
	line := e.Name.Loc.Pos().Line
	if g.syscall != "" {
		return place{t: t, value: g.syscallArg(s, line)}
	}
	switch kind := g.inst.Ctx.Kind; kind {
	case hook.Iter:
		g.layout("struct bpf_iter__"+g.inst.Points[0].Event+"."+e.Name.Text, line)
		return place{t: t, value: g.members[s.Offset]}
	case hook.Tracepoint:
		for _, pt := range g.inst.Points {
			g.rely(object.FactFormat, pt.Subsystem+":"+pt.Event+":"+s.Arg.Field.Name, line)
		}
		return g.recordPlace(s, t)
	case hook.Kprobe, hook.Uprobe:
		if kind == hook.Kprobe {
			for _, pt := range g.inst.Points {
				g.rely(object.FactArgs, g.function(pt)+":"+e.Name.Text, line)
			}
		}
		if !t.IsScalar() {
			g.errorf(e.Name.Loc, "unsupported", "%s is a struct that is passed by value in registers and cannot be read", e.Name.Text)
			return place{t: t, value: g.const64(0), ptr: g.b.Alloca(max(t.Size, 8), nil, "arg")}
		}
		if s.Arg.Index >= len(g.regs.Args) {
			return place{t: t, value: g.narrow(g.stackArgument(s.Arg.Index-len(g.regs.Args)), t)}
		}
		return place{t: t, value: g.narrow(g.contextRegister(g.regs.Args[s.Arg.Index]), t)}
	case hook.RawTracepoint:
		event := g.inst.Points[0].Event
		g.rely(object.FactArgs, "rawtracepoint:"+event+":"+e.Name.Text, line)
		if g.inst.Ctx.Typed {
			// Of a module's tracepoints the verifier takes any argument to be null
			// perhaps (btf_ctx_access in kernel/bpf/btf.c).
			g.rely(object.FactExists, "builtin "+event, line)
		}
	default:
		g.rely(object.FactArgs, g.function(g.inst.Points[0])+":"+e.Name.Text, line)
	}
	if !t.IsScalar() {
		// A struct by value lies in as many slots as it needs.
		size := (t.Size + 7) / 8 * 8
		copied := g.b.Alloca(size, nil, e.Name.Text)
		for at := 0; at < size; at += 8 {
			g.b.Store(g.b.Offset(copied, int64(at)), g.rawArg(s.Arg.Index+at/8))
		}
		return place{t: t, ptr: copied}
	}
	if t.Kind == check.Pointer {
		return place{t: t, value: g.b.Load(irType(t), g.b.Offset(g.ctx, int64(8*s.Arg.Index)))}
	}
	return place{t: t, value: g.narrow(g.rawArg(s.Arg.Index), t)}
}

// recordPlace finds a field of a tracepoint's record. The kernel lets aligned
// numbers be read there directly; everything else is read as kernel memory.
func (g *gen) recordPlace(s *check.Selection, t *check.Type) place {
	f := s.Arg.Field
	at := func(offset *ir.Value) *ir.Value {
		return g.b.IntToPtr(g.b.Binary(ir.OpAdd, g.b.PtrToInt(g.ctx), offset), ir.PtrTo(ir.SpaceKernel))
	}
	switch f.Kind {
	case target.FieldDataLoc, target.FieldRelLoc:
		// The low half of the word is the offset of the data.
		word := g.b.Resize(g.b.Load(ir.I32, g.b.Offset(g.ctx, int64(f.Offset))), ir.I64, false)
		offset := g.b.Binary(ir.OpAnd, word, g.const64(0xffff))
		if f.Kind == target.FieldRelLoc {
			offset = g.b.Binary(ir.OpAdd, offset, g.const64(int64(f.Offset+f.Size)))
		}
		p := at(offset)
		if t.Kind == check.Pointer {
			return place{t: t, value: g.b.PtrToInt(p)}
		}
		return place{t: t, ptr: p}
	}
	if t.IsScalar() && t.Size > 0 && f.Offset%t.Size == 0 {
		return place{t: t, ptr: g.b.Offset(g.ctx, int64(f.Offset))}
	}
	return place{t: t, ptr: at(g.const64(int64(f.Offset)))}
}

// syscallArg is an argument of a system call tracepoint in a program that
// runs at the raw tracepoint.
func (g *gen) syscallArg(s *check.Selection, line int) *ir.Value {
	switch {
	case s.Arg.Field.Name == "__syscall_nr":
		return g.syscallNumber()
	case g.syscall == "sys_exit":
		return g.rawArg(1)
	}
	for _, pt := range g.inst.Points {
		g.rely(object.FactSyscall, pt.Event+":"+s.Arg.Field.Name, line)
	}
	i := s.Arg.Index
	regs := g.regs.SyscallArgs
	if i < 0 || i >= len(regs) {
		g.errorf(g.b.Pos, "unknown-argument", "argument %d of a system call is in no register", i)
		return g.const64(0)
	}
	return g.narrow(g.callerRegister(regs[i]), s.Type)
}

// iterMembers loads the members of an iterator's context that the body uses,
// and leaves the program when one is null: that is the call after the last
// element.
func (g *gen) iterMembers() {
	g.members = map[int]*ir.Value{}
	ctx := g.inst.Ctx.Ctx
	if ctx == nil {
		return
	}
	used := map[int]bool{}
	for e, s := range g.info.Fields {
		if f, ok := e.(*syntax.Field); ok && s.Arg != nil {
			if id, ok := f.X.(*syntax.Ident); ok && id.Name == "ctx" {
				used[s.Offset] = true
			}
		}
	}
	for _, f := range ctx.Fields {
		if used[f.Offset] {
			g.members[f.Offset] = g.iterMember(f)
		}
	}
}

// iterMember loads a member of an iterator's context, and leaves when it is null.
func (g *gen) iterMember(f check.Field) *ir.Value {
	slot := g.b.Offset(g.ctx, int64(f.Offset))
	if f.Type.Kind != check.Pointer {
		return g.b.Resize(g.b.Load(memType(f.Type), slot), ir.I64, f.Type.Signed)
	}
	p := g.b.Load(ir.PtrTo(ir.SpaceBTF).OrNull(), slot)
	there := g.block("there")
	g.b.If(g.b.Compare(ir.OpNe, p, g.b.Null(p.Type)), there, g.leave)
	g.b.At(there)
	v := g.b.NonNull(p)
	if f.Type.Space != check.BTFSpace {
		v = g.b.PtrToInt(v)
	}
	return v
}

// stringArg copies a text field of a tracepoint's record to dst.
func (g *gen) stringArg(dst *ir.Value, e *syntax.Field, t *check.Type) bool {
	s := g.info.Fields[e]
	if s.Arg == nil || s.Arg.Field == nil || !s.Arg.Field.IsString() || g.syscall != "" {
		return false
	}
	p := g.argPlace(e, s)
	src := p.ptr
	if src.Type.Space != ir.SpaceKernel {
		src = g.b.IntToPtr(g.b.PtrToInt(src), ir.PtrTo(ir.SpaceKernel))
	}
	g.stringInto(dst, src, min(t.Size, max(s.Type.Size, 1)), t.Size)
	return true
}

// structMember finds a path to a member of a struct of the kernel, by names.
func structMember(t btf.Type, names ...string) (path []int, offset uint32, ok bool) {
	for _, name := range names {
		s, isStruct := btf.UnderlyingType(t).(*btf.Struct)
		if !isStruct {
			return nil, 0, false
		}
		found := false
		for i, m := range s.Members {
			if m.Name == name {
				path, offset, t, found = append(path, i), offset+uint32(m.Offset/8), m.Type, true
				break
			}
		}
		if !found {
			return nil, 0, false
		}
	}
	return path, offset, true
}
