package bt

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

// Options are what the caller of a script decides.
type Options = check.Options

// A Unit is a compiled script.
type Unit struct {
	Module   *ir.Module
	Manifest *object.Manifest
}

// Compile parses, checks and lowers a script for a target. Warnings come with
// a Unit; when there are errors the Unit is nil.
func Compile(file *source.File, t target.Target, o Options) (*Unit, source.List) {
	prog, diags := syntax.Parse(file, syntax.Options{})
	if diags.HasErrors() {
		return nil, diags
	}
	res, list := check.Program(prog, t, o)
	diags = append(diags, list...)
	if diags.HasErrors() {
		return nil, diags
	}
	l := &lowerer{
		res: res, target: t, opts: o,
		mod: &ir.Module{Name: file.Name, License: res.Config.License},
		man: &object.Manifest{
			Version: object.ManifestVersion,
			Source:  object.Source{Language: "bt", Name: file.Name, Text: file.Text, Args: o.Args, Options: o.Settings},
			Target:  object.Platform{Arch: t.Arch(), Release: t.Release().Text},
		},
		maps: map[*check.Map]*mapInfo{}, probes: map[string]int{}, losses: map[object.Loss]int{},
	}
	arch, ok := abi.ParseArch(t.Arch())
	if l.regs = arch.Registers(); !ok || l.regs == nil {
		return nil, append(diags, &source.Diagnostic{Code: "unknown-architecture", Message: "skep does not compile for " + t.Arch()})
	}
	l.arch = arch
	l.script()
	diags = append(diags, l.diags...)
	if diags.HasErrors() {
		return nil, diags
	}
	return &Unit{l.mod, l.man}, diags
}

// A lowerer turns a checked script into a module and its manifest.
type lowerer struct {
	res    *check.Result
	target target.Target
	arch   abi.Arch
	regs   *abi.Registers
	opts   Options
	mod    *ir.Module
	man    *object.Manifest
	diags  source.List

	maps      map[*check.Map]*mapInfo
	probes    map[string]int // index in the manifest by name
	losses    map[object.Loss]int
	lossVar   *ir.Global
	ring      *ir.Map
	stacks    *ir.Map
	pid       *ir.Global
	literals  int
	funcs     map[*check.Instance]*ir.Func
	loopCount int
	counter   *ir.Func
}

func (l *lowerer) errorf(span source.Span, code, format string, args ...any) *source.Diagnostic {
	d := source.Errorf(span, code, format, args...)
	l.diags.Add(d)
	return d
}

func (l *lowerer) script() {
	for _, m := range l.res.Maps {
		l.declareMap(m)
	}
	l.declareFuncs()
	for _, inst := range l.res.Funcs {
		l.function(inst)
	}
	only := true
	for _, inst := range l.res.Instances {
		l.program(inst)
		if k := inst.Ctx.Kind; k != hook.Begin && k != hook.End {
			only = false
		}
	}
	l.man.ExitAfterBegin = only
	if l.lossVar != nil {
		l.lossVar.Init = make([]byte, 8*len(l.man.Losses))
		l.lossVar.Type = arrayOf(u64Type, len(l.man.Losses))
		l.man.Counters = l.lossVar.Name
	}
	l.man.Settings = map[string]string{
		"print_maps_on_exit": strconv.FormatBool(l.res.Config.PrintMapsOnExit),
		"max_cat_bytes":      strconv.Itoa(l.res.Config.MaxCatBytes),
		"str_trunc_trailer":  l.res.Config.StrTruncTrailer,
		"cpp_demangle":       strconv.FormatBool(l.res.Config.CppDemangle),
		"missing_probes":     l.res.Config.MissingProbes,
		"log_size":           strconv.Itoa(l.res.Config.LogSize),
		"cache_user_symbols": l.res.Config.CacheUserSymbols,
	}
}

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
