package bt

import (
	"fmt"
	"strings"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/object"
)

// probe returns the index of an attach point in the manifest.
func (l *lowerer) probe(p check.Point) int {
	if i, ok := l.probes[p.Name]; ok {
		return i
	}
	i := len(l.man.Probes)
	l.probes[p.Name] = i
	l.man.Probes = append(l.man.Probes, object.Probe{Name: p.Name, Func: p.Func})
	return i
}

// program lowers one instance to one program.
func (l *lowerer) program(inst *check.Instance) {
	p := object.Program{
		Name: fmt.Sprintf("%s_%d", kindName(inst), len(l.man.Programs)+1),
		Kind: object.KindAttach, Line: inst.Points[0].Span.Pos().Line,
		Alternatives: inst.Probe != nil && len(inst.Probe.Points) > 1,
	}
	for _, pt := range inst.Points {
		p.Probes = append(p.Probes, l.probe(pt))
	}
	g := &gen{lowerer: l, inst: inst, info: &inst.Info, vars: map[*check.Var]*ir.Value{}}
	section := ""
	switch pt := inst.Points[0]; inst.Ctx.Kind {
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
		switch {
		case inst.Ctx.Syscall:
			event := "sys_enter"
			if strings.HasPrefix(pt.Event, "sys_exit_") {
				event = "sys_exit"
			}
			section = "raw_tp/" + event
			p.Hook = "rawtracepoint:" + event
			g.syscall = event
		case len(inst.Points) == 1 && !inst.Info.UsesArgs && l.hasRaw(pt.Event):
			section = "raw_tp/" + pt.Event
			p.Hook = "rawtracepoint:" + pt.Event
		default:
			section = "tp/" + pt.Subsystem + "/" + pt.Event
		}
	default:
		name, ok := pt.Section()
		if !ok {
			l.errorf(pt.Span, "unsupported-probe", "%s cannot be compiled yet", pt.Name)
			return
		}
		section = name
	}
	f := l.mod.NewFunc(p.Name, ir.Program, []ir.Type{ctxPtr}, ir.I64)
	f.Section = section
	f.Pos = inst.Points[0].Span
	f.Params()[0].Name = "ctx"
	l.man.Programs = append(l.man.Programs, p)
	g.run(f)
}

// hasRaw reports whether the kernel has a raw tracepoint of that name.
func (l *lowerer) hasRaw(name string) bool {
	_, err := l.target.RawTracepoint(name)
	return err == nil
}

func kindName(inst *check.Instance) string {
	if inst.Probe != nil && inst.Probe.Name != nil {
		return inst.Probe.Name.Text
	}
	kind, _, _ := strings.Cut(inst.Points[0].Name, ":")
	return strings.ToLower(kind)
}
