package check

import (
	"fmt"
	"maps"
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
	// ReadFile reads a file that a script includes or imports; the error wraps
	// fs.ErrNotExist where there is none. Nil reads none.
	ReadFile func(name string) ([]byte, error)
	// IncludeDirs are directories in which included files are looked for too,
	// and Include are files that are included before the script.
	IncludeDirs, Include []string
	// Dir is where relative paths of binaries begin, "" where there are none.
	Dir string
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
		target: t, opts: o, structs: map[string]btf.Type{}, aligns: map[btf.Type]int{}, maps: map[string]*Map{}, lacking: map[hook.Kind]bool{},
		res: &Result{Program: p, Config: DefaultConfig()},
	}
	c.config(p.Config())
	// What the caller says stands above what the script says.
	for name, value := range o.Settings {
		if problem := c.res.Config.Set(name, value); problem != "" {
			c.diags.Add(&source.Diagnostic{Code: "bad-setting", Message: fmt.Sprintf("setting %s=%s: %s", name, value, problem)})
		}
	}
	c.mapDecls(p.MapDecls())
	defer c.closeBinaries()
	c.cDecls(p.CDecls)
	c.declareFuncs(p.Funcs())
	x := c.expander(p.Macros())
	for _, f := range p.Funcs() {
		c.takeFunction(expand(x, f))
	}
	for _, probe := range p.Probes() {
		c.probe(expand(x, probe))
	}
	if len(p.Probes()) == 0 && len(c.diags) == 0 {
		c.diags.Add(source.Errorf(p.Span(), "no-probes", "the script has no probes").
			Notef("a probe looks like this: tracepoint:syscalls:sys_enter_openat { printf(\"%%s\\n\", comm); }"))
	}
	c.infer()
	c.finishFuncs()
	c.finish()
	c.diags.Sort()
	if c.diags.HasErrors() {
		return nil, c.diags
	}
	return c.res, c.diags
}

type checker struct {
	asked   map[string]bool // named parameters that the script asks for
	target  target.Target
	opts    Options
	res     *Result
	diags   source.List
	structs map[string]btf.Type // of the script itself: "struct x", or a typedef's name
	enums   map[string]enumerator
	aligns  map[btf.Type]int // of structs and unions of the script, in bytes
	funcs   map[string]*userFunc
	maps    map[string]*Map

	points   int                // attach points so far
	tooMany  bool               // which was said
	lacking  map[hook.Kind]bool // kinds of hooks that the target lacks, which was said
	binaries map[string]*userBinary

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
	forgotten := 0
	for left := maxRounds; left > 0; left-- {
		c.diags = slices.Clone(before)
		c.changed = false
		for _, m := range c.res.Maps {
			m.Writers, m.earlier, m.used = 0, m.Value != nil, false
		}
		for i, inst := range c.res.Funcs {
			c.instance(inst, -1-i)
		}
		for i, inst := range c.res.Instances {
			c.instance(inst, i)
		}
		switch {
		case c.changed:
		case forgotten < maxRounds && c.forgetMaps():
			forgotten++
		case c.guess():
			left = maxRounds
		default:
			return
		}
	}
}

// forgetMaps forgets what a map holds when it was written only by code that
// earlier rounds looked at, before a type was known that rules it out. It
// reports whether there was such a map.
func (c *checker) forgetMaps() bool {
	found := false
	c.res.Maps = slices.DeleteFunc(c.res.Maps, func(m *Map) bool {
		if m.Value == nil || m.Writers > 0 {
			return false
		}
		found = true
		m.Key, m.Value, m.noKey = nil, nil, false
		if m.used || m.Kind != "" {
			return false
		}
		delete(c.maps, m.Name)
		return true
	})
	return found
}

// guess gives the first map whose type follows from nothing but itself, as in
// "@n = @n + 1", the type of a number, and reports whether there is one.
func (c *checker) guess() bool {
	if c.diags.HasErrors() {
		return false
	}
	for _, m := range c.res.Maps {
		if m.Value == nil && m.Writers > 0 {
			m.Value, m.valueSpan = tInt64, m.Span
			return true
		}
	}
	return false
}

func (c *checker) instance(inst *Instance, index int) {
	c.inst, c.info, c.loops, c.instNo, c.inner = inst, &inst.Info, 0, index, map[string]bool{}
	*c.info = *newInfo()
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
	for _, name := range slices.Sorted(maps.Keys(c.opts.Named)) {
		if !c.asked[name] {
			d := &source.Diagnostic{Code: "unknown-parameter", Message: fmt.Sprintf("the script has no parameter --%s", name)}
			if near := source.Nearest(name, maps.Keys(c.asked)); near != "" {
				d.Notef("did you mean --%s?", near)
			} else {
				d.Notef("a script asks for it by getopt(%q)", name)
			}
			c.diags.Add(d)
		}
	}
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
	m.used = true
	return m
}

func newInfo() *Info {
	return &Info{
		Types: map[syntax.Expr]*Type{}, Consts: map[syntax.Expr]Const{}, Vars: map[*syntax.Var]*Var{},
		Loops: map[*syntax.For]*Loop{}, Maps: map[*syntax.Map]*Map{}, Fields: map[syntax.Expr]*Selection{},
		Idents: map[*syntax.Ident]*Builtin{}, Calls: map[*syntax.Call]*Function{}, Funcs: map[*syntax.Call]*Instance{},
		UserAddrs: map[*syntax.Call]UserAddr{}, PrintedArgs: map[syntax.Expr]*syntax.Record{},
	}
}
