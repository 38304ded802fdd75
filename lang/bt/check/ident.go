package check

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
)

// builtins are the bare names that have a value, with the type it has.
// Those whose type depends on the probe are in ident.
var builtins = map[string]*Type{
	"pid": tUint32, "tid": tUint32, "uid": tUint32, "gid": tUint32, "ppid": tUint32, "leader_tid": tUint32,
	"comm": stringType(16), "pcomm": stringType(16), "leader_comm": stringType(16),
	"nsecs": tUint64, "elapsed": tUint64, "jiffies": tUint64,
	"cpu": tUint32, "ncpus": tUint64, "numaid": tUint32, "cgroup": tUint64, "rand": tUint32,
	"probe": tProbe, "probetype": nil, "func": nil, "curtask": nil, "args": nil, "retval": nil, "ctx": nil,
	"usermode": tUint8, "username": tUsername, "cpid": tUint32, "has_cpid": tBool,
	"kstack": nil, "ustack": nil,
}

// modes are bare words that steer calls.
var modes = map[string]bool{
	"boot": true, "monotonic": true, "tai": true, "sw_tai": true,
	"bpftrace": true, "perf": true, "raw": true, "build_id": true,
	"curr_ns": true, "init": true,
}

func (c *checker) ident(e *syntax.Ident) *Type {
	name := e.Name
	use := func(n int) { c.info.Idents[e] = &Builtin{Name: name, N: n} }
	if t := builtins[name]; t != nil {
		if name == "cpid" && !c.opts.HasCommand {
			c.errorf(e.Loc, "no-command", "cpid is the process of the command given by -c, and there is none")
			return tInvalid
		}
		use(0)
		return t
	}
	switch name {
	case "args":
		use(0)
		return c.args(e)
	case "retval":
		return c.retval(e)
	case "curtask":
		use(0)
		types, err := c.target.Types()
		if err == nil {
			if task, err := types.Struct("task_struct"); err == nil {
				return &Type{Kind: Pointer, Size: 8, Space: BTFSpace, Elem: &Type{Kind: Struct, BTF: task, Size: int(task.Size), Space: BTFSpace}}
			}
		}
		return tUint64
	case "kstack", "ustack":
		use(0)
		return c.stackType(name, nil)
	case "func":
		use(0)
		return c.funcType(e)
	case "probetype":
		kind, _, _ := strings.Cut(c.inst.Points[0].Name, ":")
		return c.str(e, kind)
	case "ctx":
		use(0)
		if c.inst.Ctx.Ctx != nil {
			return c.inst.Ctx.Ctx
		}
		return &Type{Kind: Pointer, Size: 8, Space: CtxSpace}
	}
	for _, prefix := range []string{"arg", "sarg"} {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(rest); err == nil && n >= 0 {
			return c.numberedArg(e, prefix, n)
		}
	}
	if modes[name] {
		c.info.Idents[e] = &Builtin{Name: name}
		return &Type{Kind: Mode, Mode: name}
	}
	if own, ok := c.enums[name]; ok {
		return c.constant(e, own.value, fromBTF(own.enum, KernelSpace, true))
	}
	if arch, ok := abi.ParseArch(c.target.Arch()); ok {
		if n, ok := abi.Constant(arch, name); ok {
			return c.constant(e, n, tLiteral)
		}
	}
	if types, err := c.target.Types(); err == nil {
		if en, err := types.Enumerator(name); err == nil {
			t := fromBTF(en.Enum, KernelSpace, false)
			return c.constant(e, int64(en.Value), t)
		}
	}
	c.errorf(e.Loc, "unknown-name", "%q is neither a builtin nor a constant", name).
		Suggest(source.Nearest(name, slices.Values(slices.Sorted(maps.Keys(builtins)))))
	return tInvalid
}

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
	}
	return tInvalid
}

func probeKind(inst *Instance) string {
	kind, _, _ := strings.Cut(inst.Points[0].Name, ":")
	return kind
}

func (c *checker) retval(e *syntax.Ident) *Type {
	c.info.Idents[e] = &Builtin{Name: "retval"}
	switch c.inst.Ctx.Kind {
	case hook.Kretprobe, hook.Uretprobe:
		return tUint64
	case hook.Fexit:
		if t := c.inst.Ctx.Retval; t != nil {
			return t
		}
		if c.inst.Ctx.Args == nil {
			c.inst.Ctx = c.context(c.inst.Points[0], true)
			if t := c.inst.Ctx.Retval; t != nil {
				return t
			}
		}
		c.errorf(e.Loc, "no-retval", "%s returns nothing", c.inst.Points[0].Func)
		return tInvalid
	}
	c.errorf(e.Loc, "no-retval", "retval is only there in kretprobe, uretprobe and fexit probes, this is %s", probeKind(c.inst))
	return tInvalid
}

func (c *checker) numberedArg(e *syntax.Ident, prefix string, n int) *Type {
	c.info.Idents[e] = &Builtin{Name: prefix, N: n}
	switch c.inst.Ctx.Kind {
	case hook.Kprobe, hook.Uprobe:
		limit := map[string]int{"amd64": 6, "arm64": 8, "riscv64": 8}[c.target.Arch()]
		if prefix == "arg" && limit > 0 && n >= limit {
			c.errorf(e.Loc, "unknown-argument", "arg%d is not passed in a register on %s; there are arg0 to arg%d", n, c.target.Arch(), limit-1).
				Notef("sarg%d is the one on the stack", n-limit)
		}
		return tUint64
	case hook.USDT, hook.RawTracepoint:
		return tUint64
	case hook.Watchpoint, hook.AsyncWatchpoint:
		return tUint64
	}
	c.errorf(e.Loc, "unknown-argument", "%s%d is not there in probes of the kind %s", prefix, n, probeKind(c.inst)).
		Notef("kprobe, uprobe, usdt and rawtracepoint have it; tracepoint and fentry have args.name")
	return tInvalid
}

func (c *checker) funcType(e *syntax.Ident) *Type {
	switch c.inst.Ctx.Kind {
	case hook.Kprobe, hook.Kretprobe:
		return tKsym
	case hook.Uprobe, hook.Uretprobe:
		return tUsym
	case hook.Fentry, hook.Fexit:
		c.info.Consts[e] = Const{IsString: true, Str: c.inst.Points[0].Func}
		return stringType(len(c.inst.Points[0].Func) + 1)
	}
	c.errorf(e.Loc, "no-function", "func is only there in probes on functions, this is %s", probeKind(c.inst))
	return tInvalid
}
