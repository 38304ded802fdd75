package bt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
)

// probe returns the index of an attach point in the manifest. attach is what
// it is attached to, "" when its name says that.
func (l *lowerer) probe(p check.Point, attach string) int {
	if attach == p.Name {
		attach = ""
	}
	key := p.Name + "\x00" + attach
	if i, ok := l.probes[key]; ok {
		return i
	}
	i := len(l.man.Probes)
	l.probes[key] = i
	l.man.Probes = append(l.man.Probes, object.Probe{Name: p.Name, Hook: attach, Func: p.Func})
	return i
}

// program lowers one instance to one program.
func (l *lowerer) program(inst *check.Instance) {
	p := object.Program{
		Name: fmt.Sprintf("%s_%d", kindName(inst), len(l.man.Programs)+1),
		Kind: object.KindAttach, Line: inst.Points[0].Span.Pos().Line,
	}
	if inst.Probe != nil && len(inst.Probe.Points) > 1 {
		same := func(other *check.Instance) bool { return other.Probe == inst.Probe }
		p.Group = 1 + slices.IndexFunc(l.res.Instances, same)
	}
	g := &gen{lowerer: l, inst: inst, info: &inst.Info, vars: map[*check.Var]*ir.Value{}, probeOf: map[string]int{}}
	section := g.attachment(&p)
	f := l.mod.NewFunc(p.Name, ir.Program, []ir.Type{ctxPtr}, ir.I64)
	f.Section = section
	f.Pos = inst.Points[0].Span
	f.Params()[0].Name = "ctx"
	l.man.Programs = append(l.man.Programs, p)
	g.run(f)
}

// attachment says in p where the program of the instance is attached, and
// returns the section that tells loaders its type. Where libbpf has no name
// for all of the attachment, the section is one that libbpf loads and leaves
// alone.
func (g *gen) attachment(p *object.Program) (section string) {
	l, inst := g.lowerer, g.inst
	pt := inst.Points[0]
	attach := func(hook.Point) string { return "" }
	switch inst.Ctx.Kind {
	case hook.Begin:
		p.Kind, section = object.KindBegin, "raw_tp"
	case hook.End:
		p.Kind, section = object.KindEnd, "raw_tp"
	case hook.Interval:
		p.Kind, section = object.KindInterval, "raw_tp"
	case hook.Self:
		p.Kind, section = object.KindSignal, "raw_tp"
	case hook.Test:
		p.Kind, section = object.KindTest, "raw_tp"
	case hook.Bench:
		p.Kind, section = object.KindBench, "raw_tp"
	case hook.Tracepoint:
		section, attach = g.tracepoint(p)
	case hook.RawTracepoint:
		section, g.raw = "raw_tp", true
		if inst.Ctx.Typed {
			g.feature(target.FeatureTypedRawTP)
			section = "tp_btf"
		}
		if len(inst.Points) == 1 {
			section += "/" + pt.Event
		}
	case hook.Kprobe, hook.Kretprobe:
		section = pt.Kind.String()
		if g.multi(target.FeatureKprobeMulti, func(pt hook.Point) bool { return pt.Offset == 0 && !pt.HasAddress }) {
			section += ".multi"
		} else if name, ok := pt.Section(); ok && len(inst.Points) == 1 {
			section = name
		}
	case hook.Uprobe, hook.Uretprobe, hook.USDT:
		// libbpf wants maps of its own for its usdt sections; an argument is
		// found here without them.
		kind := "uprobe"
		if pt.Kind == hook.Uretprobe {
			kind = "uretprobe"
		}
		section = kind
		switch {
		case g.multi(target.FeatureUprobeMulti, func(hook.Point) bool { return true }):
			section += ".multi"
		case pt.Kind != hook.USDT && len(inst.Points) == 1:
			if name, ok := pt.Section(); ok {
				section = name
			}
		}
		for _, pt := range inst.Points {
			g.file(pt)
		}
		if pt.Kind == hook.USDT {
			attach = hook.Point.String
		}
	case hook.Profile, hook.Software, hook.Hardware, hook.Watchpoint, hook.AsyncWatchpoint:
		section = "perf_event"
	default:
		name, ok := pt.Section()
		if !ok {
			l.errorf(pt.Span, "unsupported-probe", "%s cannot be compiled yet", pt.Name)
		}
		section = name
	}
	for _, pt := range inst.Points {
		i := l.probe(pt, attach(pt.Point))
		g.probeOf[pt.String()] = i
		p.Probes = append(p.Probes, i)
	}
	return section
}

// tracepoint chooses how a tracepoint is attached: system calls by the two
// raw tracepoints that all of them share, others by their raw tracepoint when
// no field of their record is read, because those cost less.
func (g *gen) tracepoint(p *object.Program) (section string, attach func(hook.Point) string) {
	pt := g.inst.Points[0]
	none := func(hook.Point) string { return "" }
	raw := func(pt hook.Point) string { return "rawtracepoint:" + pt.Event }
	switch {
	case g.inst.Ctx.Syscall:
		g.syscall = "sys_enter"
		if strings.HasPrefix(pt.Event, "sys_exit_") {
			g.syscall = "sys_exit"
		}
		p.Hook = "rawtracepoint:" + g.syscall
		return g.rawSection() + "/" + g.syscall, none
	case g.inst.Ctx.Args == nil && g.inst.Ctx.ArgsErr == nil && !g.inst.Ctx.Record && g.allRaw():
		g.raw = true
		if len(g.inst.Points) > 1 {
			return "raw_tp", raw
		}
		return g.rawSection() + "/" + pt.Event, raw
	case len(g.inst.Points) > 1:
		return "tp", none
	}
	return "tp/" + pt.Subsystem + "/" + pt.Event, none
}

// rawSection is the type of a program at a raw tracepoint that serves a
// tracepoint.
func (g *gen) rawSection() string {
	if g.inst.Ctx.Kfuncs {
		return "tp_btf"
	}
	if g.syscall != "" && g.typedSyscall() {
		g.feature(target.FeatureTypedRawTP)
		return "tp_btf"
	}
	return "raw_tp"
}

// typedSyscall reports whether a program for system calls reads registers of
// its caller, and runs where the verifier knows the type of the pointer to
// them: reads are loads there instead of calls of a helper.
func (g *gen) typedSyscall() bool {
	reads := g.syscall == "sys_exit" // the number of the call
	for _, s := range g.info.Fields {
		reads = reads || s.Arg != nil
	}
	// The feature is asked for last: to find out takes the kernel's types.
	return reads && g.target.Feature(target.FeatureTypedRawTP).Have
}

// allRaw reports whether the kernel has raw tracepoints of the names of all
// points.
func (g *gen) allRaw() bool {
	if !g.target.Feature(target.FeatureRawTracepoint).Have {
		return false
	}
	for _, pt := range g.inst.Points {
		if _, err := g.target.RawTracepoint(pt.Event); err != nil {
			return false
		}
	}
	return true
}

// multi reports whether the points of the instance are attached by one link of
// many. A machine that cannot do that attaches to them one by one.
func (g *gen) multi(name target.FeatureName, fits func(hook.Point) bool) bool {
	if len(g.inst.Points) < 2 {
		return false
	}
	for _, pt := range g.inst.Points {
		if !fits(pt.Point) {
			return false
		}
	}
	return g.target.Feature(name).Have
}

func kindName(inst *check.Instance) string {
	if inst.Probe != nil && inst.Probe.Name != nil {
		return inst.Probe.Name.Text
	}
	kind, _, _ := strings.Cut(inst.Points[0].Name, ":")
	return strings.ToLower(kind)
}
