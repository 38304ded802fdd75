package check

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
)

// Functions whose answer depends on what the machine, the kernel or the traced
// program has.

func init() {
	register(
		&Function{Name: "comm", Min: 0, Max: 1, check: checkComm},
		&Function{Name: "cgroupid", Min: 1, Max: 1, check: checkCgroupID},
		&Function{Name: "uaddr", Min: 1, Max: 1, check: checkUaddr},
		&Function{Name: "kfunc_allowed", Min: 1, Max: 1, check: checkKfuncAllowed},
		&Function{Name: "skboutput", Min: 4, Max: 4, Unsafe: true, check: checkSkboutput},
	)
}

// tracing reports whether the program of the instance is, or can be made, of a
// type for which the kernel opens its functions on tasks.
func (c *checker) tracing() bool {
	switch c.inst.Ctx.Kind {
	case hook.Fentry, hook.Fexit, hook.Iter:
		return true
	case hook.RawTracepoint:
		return c.inst.Ctx.Typed
	case hook.Tracepoint:
		return c.target.Feature(target.FeatureTypedRawTP).Have
	}
	return false
}

// taskFromPID is the kernel function that finds a process, and needs a
// release by the other.
const (
	TaskFromPID = "bpf_task_from_pid"
	TaskRelease = "bpf_task_release"
)

// checkComm is comm(pid).
func checkComm(c *checker, e *syntax.Call, args []*Type) *Type {
	t := stringType(16)
	if len(args) == 0 || !c.wantInt(e, 0, args[0]) {
		return t
	}
	types, err := c.target.Types()
	if err == nil {
		_, err = types.Func(TaskFromPID)
	}
	switch {
	case err != nil:
		c.errorf(e.Func.Loc, "missing-feature", "the names of other processes cannot be had on %s: the kernel has no function %s", c.target.Name(), TaskFromPID).
			Notef("Linux 6.2 has it; comm is the name of the process that runs")
	case !c.tracing():
		c.errorf(e.Func.Loc, "bad-probe-kind", "comm(pid) is only there in fentry, fexit, tracepoint, rawtracepoint and iter probes, this is %s", probeKind(c.inst)).
			Notef("comm is the name of the process that runs")
	default:
		return t
	}
	return tInvalid
}

// checkCgroupID is cgroupid(path): the number is found where the script runs.
func checkCgroupID(c *checker, e *syntax.Call, _ []*Type) *Type {
	path, ok := c.wantString(e, 0)
	if !ok {
		return tInvalid
	}
	if !strings.HasPrefix(path, "/") {
		c.errorf(e.Args[0].Span(), "bad-argument", "cgroupid needs the absolute path of a cgroup, such as /sys/fs/cgroup/system.slice")
		return tInvalid
	}
	if files, err := c.target.Files(0); err == nil {
		name := strings.Trim(path, "/")
		info, err := fs.Stat(files, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.errorf(e.Args[0].Span(), "unknown-file", "there is no cgroup %q on %s", path, c.target.Name())
			return tInvalid
		case err == nil && !info.IsDir():
			c.errorf(e.Args[0].Span(), "bad-argument", "%q is no directory, and so no cgroup", path)
			return tInvalid
		}
	}
	return tUint64
}

// A UserAddr is a symbol of the binary that a probe is in, and where the probe
// is: their distance is the same wherever the image lies.
type UserAddr struct {
	Symbol, Probe uint64 // virtual addresses of the file
}

// checkUaddr is uaddr(symbol).
func checkUaddr(c *checker, e *syntax.Call, _ []*Type) *Type {
	name, ok := c.wantString(e, 0)
	if !ok {
		return tInvalid
	}
	pt := c.inst.Points[0]
	switch c.inst.Ctx.Kind {
	case hook.Uprobe, hook.USDT:
	case hook.Uretprobe:
		if !c.target.Feature(target.FeatureUprobeMulti).Have {
			// Where a uretprobe's function begins is known since the same release.
			c.errorf(e.Func.Loc, "missing-feature", "uaddr in uretprobes needs Linux 6.6, this is %s", c.target.Release())
			return tInvalid
		}
	default:
		c.errorf(e.Func.Loc, "bad-probe-kind", "uaddr is only there in uprobe, uretprobe and usdt probes, this is %s", probeKind(c.inst))
		return tInvalid
	}
	addr, size, err := c.userAddr(pt.Point, name)
	if err != nil {
		d := c.errorf(e.Args[0].Span(), "unknown-symbol", "%s has no symbol %q", pt.Path, name)
		if !errors.Is(err, target.ErrNotFound) {
			d.Notef("%v", err)
		}
		return tInvalid
	}
	c.info.UserAddrs[e] = addr
	elem := tUint64
	switch size {
	case 1, 2, 4:
		elem = intType(int(size), false)
	}
	return &Type{Kind: Pointer, Size: 8, Elem: elem, Space: UserSpace}
}

// userAddr finds a symbol of a probe's binary, and the probe's own place.
func (c *checker) userAddr(pt hook.Point, name string) (addr UserAddr, size uint64, err error) {
	b, err := c.binary(pt.Path)
	if err != nil {
		return addr, 0, err
	}
	symbols, err := b.file.Symbols()
	if err != nil {
		return addr, 0, err
	}
	list := symbols.Lookup(name)
	if len(list) == 0 {
		return addr, 0, target.ErrNotFound
	}
	// Data is what is looked for; functions have addresses too.
	s := list[0]
	if i := slices.IndexFunc(list, func(s symbol.Symbol) bool { return s.Kind == symbol.Object }); i >= 0 {
		s = list[i]
	}
	addr.Symbol = s.Addr
	switch {
	case pt.Kind == hook.USDT:
		probes, err := c.usdt(pt)
		if err != nil || len(probes) == 0 {
			return addr, 0, fmt.Errorf("the place of %s is not known: %w", pt, err)
		}
		addr.Probe = probes[0].Addr
	case pt.HasAddress:
		addr.Probe = pt.Address
	default:
		places, err := b.file.Functions(pt.Func, false)
		if err != nil || len(places) == 0 {
			return addr, 0, fmt.Errorf("the place of %s is not known: %w", pt.Func, err)
		}
		addr.Probe = places[0].Symbol.Addr + pt.Offset
	}
	return addr, s.Size, nil
}

// programTypes are the types of programs that probes become, as the kernel
// names them.
var programTypes = map[hook.Kind]string{
	hook.Kprobe: "kprobe", hook.Kretprobe: "kprobe", hook.Uprobe: "kprobe", hook.Uretprobe: "kprobe", hook.USDT: "kprobe",
	hook.Tracepoint: "tracing", hook.Fentry: "tracing", hook.Fexit: "tracing", hook.Iter: "tracing",
	hook.Profile: "perf_event", hook.Software: "perf_event", hook.Hardware: "perf_event", hook.Watchpoint: "perf_event", hook.AsyncWatchpoint: "perf_event",
}

// checkKfuncAllowed is kfunc_allowed(name): whether programs of the type that
// the probe becomes may call a function of the kernel.
func checkKfuncAllowed(c *checker, e *syntax.Call, args []*Type) *Type {
	if t := checkKfuncExist(c, e, args); t.Kind == Invalid {
		return t
	}
	name, _ := c.wantString(e, 0)
	n := c.info.Consts[e].Int
	kind := programTypes[c.inst.Ctx.Kind]
	if c.inst.Ctx.Kind == hook.RawTracepoint && c.inst.Ctx.Typed {
		kind = "tracing"
	}
	k := abi.KfuncByName(name)
	prog, ok := abi.ParseProgType(kind)
	if n != 0 && (k == nil || !ok || !c.kfuncOpen(k, prog, e.Loc)) {
		n = 0
	}
	return c.constant(e, n, tBool)
}

// kfuncOpen reports whether the target's kernel opens a function to programs
// of a type.
func (c *checker) kfuncOpen(k *abi.Kfunc, prog abi.ProgType, at source.Span) bool {
	if !c.atLeast(int(k.Since>>8), int(k.Since&0xff), at) {
		return false
	}
	if k.ProgTypes.Has(prog) {
		return true
	}
	// Programs on tracepoints and perf events count as tracing ones since 6.11.
	tracing, _ := abi.ParseProgType("tracing")
	return prog.String() == "perf_event" && k.ProgTypes.Has(tracing) && c.atLeast(6, 11, at)
}

// atLeast reports whether the target's kernel is as new as that, which the script
// then relies on.
func (c *checker) atLeast(major, minor int, at source.Span) bool {
	c.rely("machine", fmt.Sprintf("release %d.%d", major, minor), at)
	return c.target.Release().AtLeast(major, minor)
}

// checkSkboutput is skboutput(path, skb, length, offset).
func checkSkboutput(c *checker, e *syntax.Call, args []*Type) *Type {
	path, ok := c.wantString(e, 0)
	if !ok {
		return tInvalid
	}
	if path == "" {
		c.errorf(e.Args[0].Span(), "bad-argument", "skboutput needs the name of a file")
		return tInvalid
	}
	if t := args[1]; t.Kind != Pointer || t.Elem == nil || t.Elem.Kind != Struct || structName(t.Elem.BTF) != "struct sk_buff" {
		if t.Kind != Invalid {
			c.errorf(e.Args[1].Span(), "type-mismatch", "skboutput needs a struct sk_buff *, this is %s", describe(t))
		}
		return tInvalid
	}
	if !c.wantInt(e, 2, args[2]) || !c.wantInt(e, 3, args[3]) {
		return tInvalid
	}
	return tUint32
}

// GFPEnum are the names of page allocation flags as an enum.
func (c *checker) gfpFlags(e *syntax.Call, i int) *Type {
	if c.res.GFPFlags == nil {
		flags, err := target.GFPFlags(c.target)
		if err != nil {
			c.errorf(e.Args[0].Span(), "missing-feature", "%%gr cannot be shown: the kernel does not tell the names of its page allocation flags").Notef("%v", err)
			return tInvalid
		}
		c.res.GFPFlags = flags
	}
	t := c.info.Types[e.Args[i]]
	if !t.isInt() {
		c.errorf(e.Args[i].Span(), "type-mismatch", "%%gr shows integers, this is %s", describe(t)).Notef("%s", verbHint(t))
	}
	return t
}

// printedArgs is args as a whole, as a record of its members.
func (c *checker) printedArgs(e *syntax.Ident, t *Type) *Type {
	r := &syntax.Record{Loc: e.Loc}
	for _, f := range t.Fields {
		if f.Name == "" || f.Arg != nil && f.Arg.Field != nil && f.Arg.Field.Common {
			continue
		}
		name := &syntax.Name{Loc: e.Loc, Text: f.Name}
		r.Fields = append(r.Fields, &syntax.RecordField{Name: name, Value: &syntax.Field{Loc: e.Loc, X: e, OpLoc: e.Loc, Name: name}})
	}
	c.info.PrintedArgs[e] = r
	return c.expr(r)
}

// pidModes are what pid and tid may be asked for.
var pidModes = []string{"curr_ns", "init"}

func (c *checker) pidMode(e *syntax.Call, t *Type) bool {
	if t.Kind == Mode && slices.Contains(pidModes, t.Mode) || t.Kind == Invalid {
		return t.Kind == Mode
	}
	c.errorf(e.Args[0].Span(), "bad-argument", "%s takes curr_ns or init", e.Func.Text).
		Suggest(source.Nearest(e.Args[0].Span().Text(), slices.Values(pidModes)))
	return false
}
