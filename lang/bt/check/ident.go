package check

import (
	"maps"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
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

// hookNames are builtins that only the program of a probe has: functions are
// called from several.
var hookNames = map[string]bool{
	"args": true, "retval": true, "usermode": true, "func": true, "probe": true, "probetype": true, "ctx": true, "kstack": true, "ustack": true,
}

// inFunction refuses what only the program of a probe has.
func (c *checker) inFunction(span source.Span, name string) bool {
	if c.inst.Func == nil {
		return false
	}
	c.errorf(span, "not-in-functions", "%s is not there in functions", name).Notef("give it as a parameter, or write a macro")
	return true
}

func (c *checker) ident(e *syntax.Ident) *Type {
	name := e.Name
	if hookNames[name] && c.inFunction(e.Loc, name) {
		return tInvalid
	}
	use := func(n int) { c.info.Idents[e] = &Builtin{Name: name, N: n} }
	if t := builtins[name]; t != nil {
		if name == "cpid" && !c.opts.HasCommand {
			c.errorf(e.Loc, "no-command", "cpid is the process of the command given by -c, and there is none")
			return tInvalid
		}
		if name == "usermode" && !c.hasRegisters(e.Loc) {
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
		return c.ctx(e)
	}
	if prefix, n, ok := argNumber(name); ok {
		if c.inFunction(e.Loc, name) {
			return tInvalid
		}
		return c.numberedArg(e, prefix, n)
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
			return c.literal(e, n, false)
		}
	}
	if types, err := c.target.Types(); err == nil {
		if en, err := types.Enumerator(name); err == nil {
			t := fromBTF(en.Enum, KernelSpace, false)
			c.rely("layout", "enumerator "+name, e.Loc)
			return c.constant(e, int64(en.Value), t)
		}
	}
	c.errorf(e.Loc, "unknown-name", "%q is neither a builtin nor a constant", name).
		Suggest(source.Nearest(name, func(yield func(string) bool) {
			names := slices.Concat(slices.Sorted(maps.Keys(builtins)), slices.Sorted(maps.Keys(modes)), slices.Sorted(maps.Keys(c.enums)))
			if arch, ok := abi.ParseArch(c.target.Arch()); ok {
				names = append(names, abi.ConstantNames(arch)...)
			}
			for _, n := range names {
				if !yield(n) {
					return
				}
			}
			if types, err := c.target.Types(); err == nil {
				types.Enumerators("")(yield)
			}
		}))
	return tInvalid
}
