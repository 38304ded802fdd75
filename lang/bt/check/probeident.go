package check

import (
	"maps"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

func (c *checker) args(e *syntax.Ident) *Type {
	ctx := &c.inst.Ctx
	if ctx.Args != nil {
		return ctx.Args
	}
	d := c.errorf(e.Loc, "no-args", "the arguments of %s are not known", c.inst.Points[0].Name)
	switch {
	case ctx.ArgsErr != nil:
		d.Notef("%v", ctx.ArgsErr)
	default:
		d.Message = "args is not there in probes of the kind " + probeKind(c.inst)
		switch ctx.Kind {
		case hook.USDT:
			d.Notef("arg0, arg1 and so on are the arguments of a USDT probe")
		case hook.Kretprobe, hook.Uretprobe:
			d.Notef("retval is there; to keep an argument until the return, put it into a map when the function begins: @x[tid] = arg0")
		case hook.Iter:
			d.Notef("ctx has the members of struct bpf_iter__%s", c.inst.Points[0].Event)
		}
	}
	return tInvalid
}

func probeKind(inst *Instance) string {
	kind, _, _ := strings.Cut(inst.Points[0].Name, ":")
	return kind
}

func (c *checker) retval(e *syntax.Ident) *Type {
	c.info.Idents[e] = &Builtin{Name: "retval"}
	ctx := &c.inst.Ctx
	switch ctx.Kind {
	case hook.Kretprobe, hook.Uretprobe:
		return tUint64
	case hook.Fexit:
		if ctx.Retval != nil {
			return ctx.Retval
		}
		if ctx.ArgsErr != nil {
			c.errorf(e.Loc, "no-retval", "what %s returns is not known", c.inst.Points[0].Name).Notef("%v", ctx.ArgsErr)
			return tInvalid
		}
		c.errorf(e.Loc, "no-retval", "%s returns nothing", c.inst.Points[0].Func)
		return tInvalid
	}
	c.errorf(e.Loc, "no-retval", "retval is only there in kretprobe, uretprobe and fexit probes, this is %s", probeKind(c.inst))
	return tInvalid
}

func (c *checker) ctx(e *syntax.Ident) *Type {
	if t := c.inst.Ctx.Ctx; t != nil {
		return t
	}
	if c.inst.Ctx.Kind == hook.Iter {
		_, err := c.target.Types()
		d := c.errorf(e.Loc, "unknown-type", "the members of struct bpf_iter__%s are not known on %s", c.inst.Points[0].Event, c.target.Name())
		if err != nil {
			d.Notef("%v", err)
		}
		return tInvalid
	}
	return &Type{Kind: Pointer, Size: 8, Space: CtxSpace}
}

func (c *checker) numberedArg(e *syntax.Ident, prefix string, n int) *Type {
	c.info.Idents[e] = &Builtin{Name: prefix, N: n}
	ctx := &c.inst.Ctx
	switch ctx.Kind {
	case hook.Kprobe, hook.Uprobe:
		limit := 8
		if arch, ok := abi.ParseArch(c.target.Arch()); ok && arch.Registers() != nil {
			limit = len(arch.Registers().Args)
		}
		if prefix == "arg" && n >= limit {
			c.errorf(e.Loc, "unknown-argument", "arg%d is not passed in a register on %s; there are arg0 to arg%d", n, c.target.Arch(), limit-1).
				Notef("sarg%d is the one on the stack", n-limit)
			return tInvalid
		}
		return tUint64
	case hook.USDT:
		if prefix == "arg" {
			return c.usdtArg(e, n)
		}
	case hook.RawTracepoint:
		if prefix == "arg" {
			return c.rawArg(e, n)
		}
	}
	c.errorf(e.Loc, "unknown-argument", "%s%d is not there in probes of the kind %s", prefix, n, probeKind(c.inst)).
		Notef("kprobe, uprobe, usdt and rawtracepoint have it; tracepoint and fentry have args.name")
	return tInvalid
}

// rawArg checks argN of a raw tracepoint: the kernel refuses to attach a
// program that reads more than there are.
func (c *checker) rawArg(e *syntax.Ident, n int) *Type {
	pt := c.inst.Points[0]
	rt, err := c.target.RawTracepoint(pt.Event)
	if err == nil && rt.Typedef != nil && n >= len(rt.Args) {
		c.errorf(e.Loc, "unknown-argument", "%s has %d arguments, the first is arg0", pt.Name, len(rt.Args))
		return tInvalid
	}
	return tUint64
}

func (c *checker) usdtArg(e *syntax.Ident, n int) *Type {
	ctx := &c.inst.Ctx
	if ctx.ArgsErr != nil {
		c.errorf(e.Loc, "no-args", "the arguments of %s are not known", c.inst.Points[0].Name).Notef("%v", ctx.ArgsErr)
		return tInvalid
	}
	signed := true
	for i, p := range ctx.USDT {
		switch {
		case p.ArgErr != nil:
			c.errorf(e.Loc, "no-args", "the arguments of %s are not understood: %s", c.inst.Points[0].Name, p.ArgText).Notef("%v", p.ArgErr)
			return tInvalid
		case n >= len(p.Args):
			c.errorf(e.Loc, "unknown-argument", "%s has %d arguments, the first is arg0", c.inst.Points[0].Name, len(p.Args))
			return tInvalid
		case p.Args[n].Float:
			c.errorf(e.Loc, "type-mismatch", "arg%d of %s is a floating-point number, which programs in the kernel cannot read", n, c.inst.Points[0].Name)
			return tInvalid
		}
		if i == 0 {
			signed = p.Args[n].Signed
		}
	}
	return intType(8, signed)
}

func (c *checker) funcType(e *syntax.Ident) *Type {
	switch c.inst.Ctx.Kind {
	case hook.Kprobe, hook.Kretprobe:
		return tKsym
	case hook.Uprobe, hook.Uretprobe:
		return tUfunc
	case hook.Fentry, hook.Fexit:
		return c.str(e, c.inst.Points[0].Func)
	}
	c.errorf(e.Loc, "no-function", "func is only there in probes on functions, this is %s", probeKind(c.inst))
	return tInvalid
}

// hasRegisters reports whether the context of the probe begins with registers.
func (c *checker) hasRegisters(span source.Span) bool {
	switch c.inst.Ctx.Kind {
	case hook.Kprobe, hook.Kretprobe, hook.Uprobe, hook.Uretprobe, hook.USDT,
		hook.Profile, hook.Software, hook.Hardware, hook.Watchpoint, hook.AsyncWatchpoint:
		return true
	}
	c.errorf(span, "no-registers", "there are no registers in probes of the kind %s", probeKind(c.inst)).
		Notef("kprobe, uprobe, usdt, profile, software, hardware and watchpoint have them")
	return false
}

// checkReg checks reg("name").
func checkReg(c *checker, e *syntax.Call, _ []*Type) *Type {
	name, ok := c.wantString(e, 0)
	if !ok || !c.hasRegisters(e.Func.Loc) {
		return tInvalid
	}
	arch, ok := abi.ParseArch(c.target.Arch())
	regs := arch.Registers()
	if !ok || regs == nil {
		return tUint64
	}
	if r, ok := regs.Lookup(name); !ok || r.Offset >= regs.Size {
		names := map[string]bool{}
		for _, r := range regs.All {
			if r.Offset < regs.Size {
				names[r.Name] = true
			}
		}
		c.errorf(e.Args[0].Span(), "unknown-register", "there is no register %q on %s", name, c.target.Arch()).
			Suggest(source.Nearest(name, slices.Values(slices.Sorted(maps.Keys(names))))).
			Notef("there are %s", strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		return tInvalid
	}
	return tUint64
}
