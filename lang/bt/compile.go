package bt

import (
	"strconv"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
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
	// Losses is the variable that counts what went wrong, nil when nothing
	// can, and ScratchLoss the element for runs that found no scratch memory.
	Losses      *ir.Global
	ScratchLoss int
	// OnStackLimit is what the script says of it, 0 when it says nothing.
	OnStackLimit int
}

// Compile parses, checks and lowers a script for a target. Warnings come with
// a Unit; when there are errors the Unit is nil.
func Compile(file *source.File, t target.Target, o Options) (*Unit, source.List) {
	files := &reader{opts: o, texts: map[string]string{}, files: map[string]*source.File{}}
	prog, diags := files.parse(file)
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
			Source: object.Source{
				Language: "bt", Name: file.Name, Text: file.Text, Args: o.Args, Named: o.Named, Options: o.Settings,
				Includes: files.texts, IncludeDirs: o.IncludeDirs, Include: o.Include,
			},
			Target: object.Platform{Arch: t.Arch(), Release: t.Release().Text},
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
	limit := res.Config.OnStackLimit
	if limit == check.DefaultConfig().OnStackLimit {
		limit = 0
	}
	return &Unit{l.mod, l.man, l.lossVar, l.scratchLoss, limit}, diags
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

	maps        map[*check.Map]*mapInfo
	probes      map[string]int // index in the manifest by name
	losses      map[object.Loss]int
	lossVar     *ir.Global
	ring        *ir.Map
	stacks      *ir.Map
	packets     *ir.Map // where skboutput puts them
	scratchLoss int
	last        *ir.Global // see lastRecord
	literals    int
	funcs       map[*check.Instance]*ir.Func
	loopCount   int
	counter     *ir.Func
	hidden      *ir.Global // see zero
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
	l.probeFacts()
	l.declareFuncs()
	for _, inst := range l.res.Funcs {
		l.function(inst)
	}
	only := true
	for _, inst := range l.res.Instances {
		l.program(inst)
		switch inst.Ctx.Kind {
		case hook.Uprobe, hook.Uretprobe, hook.USDT, hook.Iter:
			// Such a program can be preempted by itself, and scratch memory
			// be taken.
			l.scratchLoss = l.loss(object.LossScratch, "", 0)
		}
		switch inst.Ctx.Kind {
		case hook.Begin, hook.End, hook.Test, hook.Bench:
		default:
			only = false
		}
	}
	l.enums()
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
