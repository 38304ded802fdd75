package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
)

// Options are what the caller of a script decides.
type Options struct {
	// Args are the positional parameters.
	Args []string
	// Named are the named parameters, for getopt.
	Named map[string]string
	// PID is the process that the run is limited to, 0 for none.
	PID int
	// HasCommand says that there is a command whose process is cpid.
	HasCommand bool
	// Unsafe allows functions that change the system.
	Unsafe bool
	// Settings override the defaults of the configuration, by name.
	Settings map[string]string
}

// Program checks a script for a target. The Result is nil when there are
// errors; warnings come with one.
func Program(p *syntax.Program, t target.Target, o Options) (*Result, source.List) {
	c := &checker{
		target: t, opts: o, structs: map[string]btf.Type{}, aligns: map[btf.Type]int{}, maps: map[string]*Map{},
		res: &Result{Program: p, Config: DefaultConfig()},
	}
	for name, value := range o.Settings {
		if problem := c.res.Config.Set(name, value); problem != "" {
			c.diags.Add(&source.Diagnostic{Code: "bad-setting", Message: fmt.Sprintf("setting %s=%s: %s", name, value, problem)})
		}
	}
	c.config(p.Config())
	c.mapDecls(p.MapDecls())
	c.cDecls(p.CDecls)
	c.declareFuncs(p.Funcs())
	x := c.expander(p.Macros())
	for _, f := range p.Funcs() {
		c.function1(expand(x, f))
	}
	for _, probe := range p.Probes() {
		c.probe(expand(x, probe))
	}
	if len(p.Probes()) == 0 && len(c.diags) == 0 {
		c.diags.Add(source.Errorf(p.Span(), "no-probes", "the script has no probes").
			Notef("a probe looks like this: tracepoint:syscalls:sys_enter_openat { printf(\"%%s\\n\", comm); }"))
	}
	c.infer()
	c.finish()
	c.diags.Sort()
	if c.diags.HasErrors() {
		return nil, c.diags
	}
	return c.res, c.diags
}

type checker struct {
	target  target.Target
	opts    Options
	res     *Result
	diags   source.List
	structs map[string]btf.Type // of the script itself: "struct x", or a typedef's name
	enums   map[string]enumerator
	aligns  map[btf.Type]int // of structs and unions of the script, in bytes
	funcs   map[string]*userFunc
	maps    map[string]*Map

	// State of the instance being checked.
	inst    *Instance
	info    *Info
	scope   *scope
	loops   int
	changed bool
	instNo  int              // of inst; negative for functions
	known   map[string]*Type // types of variables found in earlier rounds
	inner   map[string]bool  // variables of inner blocks that have no let
	hoist   map[string]bool  // variables that live as long as the program, by instance and name
}

// A scope is a block's variables.
type scope struct {
	outer *scope
	vars  map[string]*Var
}

func (s *scope) find(name string) *Var {
	for ; s != nil; s = s.outer {
		if v, ok := s.vars[name]; ok {
			return v
		}
	}
	return nil
}

func (c *checker) errorf(span source.Span, code, format string, args ...any) *source.Diagnostic {
	d := source.Errorf(span, code, format, args...)
	c.res.Program.Explain(d)
	c.diags.Add(d)
	return d
}

func (c *checker) warnf(span source.Span, code, format string, args ...any) *source.Diagnostic {
	d := c.errorf(span, code, format, args...)
	d.Severity = source.Warning
	return d
}

// maxRounds bounds the search for the types of maps and variables. Types only
// widen, so few rounds do.
const maxRounds = 12

// infer checks all instances until the types of maps and variables stand.
func (c *checker) infer() {
	before := c.diags
	c.known, c.hoist = map[string]*Type{}, map[string]bool{}
	for range maxRounds {
		c.diags = slices.Clone(before)
		c.changed = false
		for _, m := range c.res.Maps {
			m.Writers = 0
		}
		for i, inst := range c.res.Funcs {
			c.instance(inst, -1-i)
		}
		for i, inst := range c.res.Instances {
			c.instance(inst, i)
		}
		if !c.changed {
			return
		}
	}
}

func (c *checker) instance(inst *Instance, index int) {
	c.inst, c.info, c.loops, c.instNo, c.inner = inst, &inst.Info, 0, index, map[string]bool{}
	*c.info = Info{
		Types: map[syntax.Expr]*Type{}, Consts: map[syntax.Expr]Const{}, Vars: map[*syntax.Var]*Var{},
		Loops: map[*syntax.For]*Loop{}, Maps: map[*syntax.Map]*Map{}, Fields: map[syntax.Expr]*Selection{},
		Idents: map[*syntax.Ident]*Builtin{}, Calls: map[*syntax.Call]*Function{}, Funcs: map[*syntax.Call]*Instance{},
	}
	c.scope = &scope{vars: map[string]*Var{}}
	if inst.Func != nil {
		c.params(inst.Func)
	}
	if inst.Pred != nil {
		c.cond(inst.Pred)
	}
	c.block(inst.Body)
	for _, v := range c.info.ScratchVars {
		key := c.varKey(v)
		if old, ok := c.known[key]; v.Type != nil && (!ok || !same(old, v.Type)) {
			c.known[key] = v.Type
			c.changed = true
		}
	}
}

// varKey names a variable over all rounds.
func (c *checker) varKey(v *Var) string { return fmt.Sprint(c.instNo, ".", v.Index, v.Name) }

// finish looks at what only shows once all instances are checked.
func (c *checker) finish() {
	for _, m := range c.res.Maps {
		if m.Value == nil && !c.diags.HasErrors() {
			c.errorf(m.Span, "undefined-map", "%s is read but nothing is ever put into it", m.Name).
				Suggest(source.Nearest(m.Name, func(yield func(string) bool) {
					for _, o := range c.res.Maps {
						if o != m && o.Value != nil && !yield(o.Name) {
							return
						}
					}
				}))
		}
	}
}

func (c *checker) mapDecls(decls []*syntax.MapDecl) {
	kinds := []string{"hash", "lruhash", "percpuhash", "percpulruhash"}
	for _, d := range decls {
		m := c.mapNamed(d.Map)
		if !slices.Contains(kinds, d.Kind.Text) {
			c.errorf(d.Kind.Loc, "unknown-map-kind", "there is no kind of map %q; there are %s", d.Kind.Text, strings.Join(kinds, ", ")).
				Suggest(source.Nearest(d.Kind.Text, slices.Values(kinds)))
			continue
		}
		m.Kind = d.Kind.Text
		if len(d.Args) != 1 {
			c.errorf(d.Loc, "wrong-argument-count", "%s takes one argument, the number of entries", d.Kind.Text)
			continue
		}
		lit, ok := d.Args[0].(*syntax.IntLit)
		if !ok || lit.Value == 0 || lit.Value > 1<<30 {
			c.errorf(d.Args[0].Span(), "bad-argument", "the number of entries must be a literal from 1 to 1073741824")
			continue
		}
		m.MaxEntries = int(lit.Value)
	}
}

// mapNamed returns the map of that name, making it at its first use.
func (c *checker) mapNamed(n *syntax.Map) *Map {
	name := "@" + n.Name
	m, ok := c.maps[name]
	if !ok {
		m = &Map{Name: name, Span: n.Loc}
		c.maps[name] = m
		c.res.Maps = append(c.res.Maps, m)
	}
	return m
}

// probe resolves the attach points of a probe and makes its instances.
func (c *checker) probe(p *syntax.Probe) {
	var points []Point
	for _, ap := range p.Points {
		pt, err := hook.Parse(c.attachText(ap))
		if err != nil {
			c.hookError(ap, err)
			continue
		}
		expanded, err := hook.Expand(c.target, pt, hook.Options{
			Max: c.res.Config.MaxProbes, PID: c.opts.PID, Missing: c.res.Config.MissingProbes != "error",
		})
		if err != nil {
			if len(p.Points) > 1 && isNotFound(err) {
				// One of several alternatives: fine as long as another is there.
				d := c.warnf(ap.Loc, "missing-probe", "%s does not exist here and is left out", ap.Text)
				var he *hook.Error
				if errors.As(err, &he) && he.Nearest != "" {
					d.Notef("did you mean %q?", he.Nearest)
				}
				continue
			}
			c.hookError(ap, err)
			continue
		}
		for _, e := range expanded {
			points = append(points, Point{Point: e, Name: e.String(), Span: ap.Loc})
		}
	}
	if len(points) == 0 {
		if !c.diags.HasErrors() {
			c.errorf(p.Loc, "missing-probe", "none of the attach points exists here")
		}
		return
	}
	uses := usesArgs(p)
	type group struct {
		key  string
		inst *Instance
	}
	var groups []group
	for _, pt := range points {
		ctx := c.context(pt, uses)
		key := c.groupKey(pt, &ctx, uses)
		i := slices.IndexFunc(groups, func(g group) bool { return g.key == key })
		if i < 0 {
			inst := &Instance{Probe: p, Pred: p.Pred, Body: p.Body, Ctx: ctx}
			groups = append(groups, group{key, inst})
			c.res.Instances = append(c.res.Instances, inst)
			i = len(groups) - 1
		}
		groups[i].inst.Points = append(groups[i].inst.Points, pt)
	}
}

// attachText is the attach point with positional parameters put in.
func (c *checker) attachText(ap *syntax.AttachPoint) string {
	if !slices.ContainsFunc(ap.Parts, func(p *syntax.Part) bool {
		return slices.ContainsFunc(p.Pieces, func(pc syntax.Piece) bool { return pc.Kind == syntax.ParamPiece })
	}) {
		return ap.Text
	}
	var b strings.Builder
	for i, part := range ap.Parts {
		if i > 0 {
			b.WriteByte(':')
		}
		for _, pc := range part.Pieces {
			switch pc.Kind {
			case syntax.ParamPiece:
				if pc.Param >= 1 && pc.Param <= len(c.opts.Args) {
					b.WriteString(c.opts.Args[pc.Param-1])
				}
			case syntax.QuotedPiece:
				fmt.Fprintf(&b, "%q", pc.Text)
			default:
				b.WriteString(pc.Text)
			}
		}
	}
	return b.String()
}

func (c *checker) hookError(ap *syntax.AttachPoint, err error) {
	var he *hook.Error
	if !errors.As(err, &he) {
		c.errorf(ap.Loc, "bad-probe", "%s: %v", ap.Text, err)
		return
	}
	span := ap.Loc
	if he.End > he.Start && he.End <= span.End-span.Start {
		span.End = span.Start + he.End
		span.Start += he.Start
	}
	code := he.Code
	if code == "" {
		code = "bad-probe"
	}
	d := c.errorf(span, code, "%s", he.Message).Suggest(he.Nearest)
	if he.Hint != "" {
		d.Notef("%s", he.Hint)
	}
	if he.Err != nil && !isNotFound(he.Err) {
		d.Notef("%v", he.Err)
	}
}

// usesArgs reports whether the body of a probe looks at args, so that what
// they are at each attach point has to be found out.
func usesArgs(p *syntax.Probe) bool {
	uses := false
	look := func(n syntax.Node) bool {
		if id, ok := n.(*syntax.Ident); ok && id.Name == "args" {
			uses = true
		}
		return !uses
	}
	syntax.Walk(p, look)
	return uses
}

// groupKey is equal for attach points at which a body means the same.
func (c *checker) groupKey(pt Point, ctx *Context, args bool) string {
	key := fmt.Sprint(pt.Kind, ctx.Syscall)
	switch pt.Kind {
	case hook.Begin, hook.End, hook.Self, hook.Test, hook.Bench, hook.Interval, hook.Iter,
		hook.Profile, hook.Software, hook.Hardware, hook.Watchpoint, hook.AsyncWatchpoint, hook.USDT:
		return key + pt.Name
	case hook.Fentry, hook.Fexit:
		// The kernel ties such a program to one function.
		return key + pt.Name
	case hook.RawTracepoint:
		return key + pt.Name
	case hook.Tracepoint:
		if ctx.Syscall {
			return key + pt.Subsystem + strings.SplitAfterN(pt.Event, "_", 3)[1] + argsKey(ctx.Args)
		}
	case hook.Uprobe, hook.Uretprobe:
		key += pt.Path
	}
	if !args {
		return key
	}
	return key + argsKey(ctx.Args)
}

func argsKey(t *Type) string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	for _, f := range t.Fields {
		fmt.Fprintf(&b, "%s:%s:%d ", f.Name, f.Type, f.Offset)
		if f.Arg != nil {
			fmt.Fprintf(&b, "%d ", f.Arg.Index)
		}
	}
	return b.String()
}

// context finds what a body may use at an attach point.
func (c *checker) context(pt Point, args bool) Context {
	ctx := Context{Kind: pt.Kind}
	ctx.Syscall = pt.Kind == hook.Tracepoint && pt.Subsystem == "syscalls"
	if !args {
		return ctx
	}
	switch pt.Kind {
	case hook.Tracepoint:
		f, err := c.target.Format(pt.Subsystem, pt.Event)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		ctx.Format = f
		space := KernelSpace
		if ctx.Syscall {
			space = UserSpace
		}
		ctx.Args = &Type{Kind: Args, Size: f.Size(), Space: CtxSpace}
		for _, field := range f.Fields {
			if ctx.Syscall && field.Common {
				continue
			}
			ft, err := target.FieldType(c.target, field)
			if err != nil {
				ctx.ArgsErr = err
				continue
			}
			typ := fromBTF(ft, space, false)
			if field.IsString() {
				typ = stringType(c.res.Config.MaxStrlen)
				if field.Kind == target.FieldString {
					typ = stringType(field.Len)
				}
			} else if typ.Kind == Struct || typ.Kind == Array {
				own := *typ
				own.Space = CtxSpace
				typ = &own
			}
			ctx.Args.Fields = append(ctx.Args.Fields, Field{
				Name: field.Name, Type: typ, Offset: field.Offset,
				Arg: &Arg{Field: &field, Type: ft, Index: (field.Offset - 16) / 8},
			})
		}
	case hook.RawTracepoint:
		rt, err := c.target.RawTracepoint(pt.Event)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		ctx.Args = paramArgs(rt.Args, BTFSpace)
	case hook.Kprobe, hook.Fentry, hook.Fexit:
		fn, err := c.function(pt)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		space := KernelSpace
		if pt.Kind != hook.Kprobe {
			space = BTFSpace
		}
		proto, ok := fn.Type.(*btf.FuncProto)
		if !ok {
			return ctx
		}
		ctx.Args = paramArgs(proto.Params, space)
		if pt.Kind == hook.Fexit {
			if _, void := btf.UnderlyingType(proto.Return).(*btf.Void); !void {
				ctx.Retval = fromBTF(proto.Return, KernelSpace, false)
				ctx.Args.Fields = append(ctx.Args.Fields, Field{
					Name: "$retval", Type: ctx.Retval, Arg: &Arg{Index: len(proto.Params), Exit: true},
				})
			}
		}
	}
	return ctx
}

func (c *checker) function(pt Point) (*btf.Func, error) {
	types, err := c.target.Types()
	if err != nil {
		return nil, err
	}
	return types.Func(pt.Func)
}

func paramArgs(params []btf.FuncParam, space Space) *Type {
	t := &Type{Kind: Args, Space: CtxSpace, Size: 8 * len(params)}
	for i, p := range params {
		typ := fromBTF(p.Type, space, false)
		t.Fields = append(t.Fields, Field{Name: p.Name, Type: typ, Offset: 8 * i, Arg: &Arg{Index: i, Type: p.Type}})
	}
	return t
}
