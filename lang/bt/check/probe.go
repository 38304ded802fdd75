package check

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/symbol"
	"github.com/skep-bpf/skep/target"
)

// A use says what a body looks at: it decides what has to be found out about
// an attach point, and which attach points can share one program.
type use struct {
	args     bool            // args, as a whole or one of them
	fields   map[string]bool // the members of args; nil when all are meant
	retval   bool
	numbered bool // argN or sargN
	probe    bool // which of its probes runs, for its name or a user stack
	ctx      bool
	place    bool // where the probe lies in its binary
	kfuncs   bool // functions of the kernel for tracing programs
	kstack   bool
}

// usesOf looks through a probe, whose macros are expanded.
func usesOf(p *syntax.Probe) use {
	u := use{fields: map[string]bool{}}
	all := false
	inField := map[*syntax.Ident]bool{}
	visit := func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Field:
			if id, ok := n.X.(*syntax.Ident); ok && id.Name == "args" {
				inField[id] = true
				u.fields[n.Name.Text] = true
			}
		case *syntax.Ident:
			switch n.Name {
			case "args":
				u.args = true
				all = all || !inField[n]
			case "retval":
				u.retval = true
			case "probe", "ustack", "kstack":
				u.probe = true
				u.kstack = u.kstack || n.Name == "kstack"
			case "func":
				u.probe = true
			case "ctx":
				u.ctx = true
			default:
				if _, n, ok := argNumber(n.Name); ok && n >= 0 {
					u.numbered = true
				}
			}
		case *syntax.Call:
			switch n.Func.Text {
			case "usym", "ustack", "kstack":
				u.probe = true
				u.kstack = u.kstack || n.Func.Text == "kstack"
			case "uaddr":
				u.place = true
			case "comm":
				u.kfuncs = u.kfuncs || len(n.Args) > 0
			}
		}
		return true
	}
	syntax.Walk(p, visit)
	if all {
		u.fields = nil
	}
	return u
}

// argNumber reads argN and sargN.
func argNumber(name string) (prefix string, n int, ok bool) {
	for _, prefix := range []string{"arg", "sarg"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			if n, err := strconv.ParseUint(rest, 10, 16); err == nil {
				return prefix, int(n), true
			}
		}
	}
	return "", 0, false
}

// probe resolves the attach points of a probe and makes its instances.
func (c *checker) probe(p *syntax.Probe) {
	var points []Point
	failed := false
	u := usesOf(p)
	var texts []string
	for _, ap := range p.Points {
		texts = append(texts, ap.Text)
		list, ok := c.attachPoint(p, ap, u)
		points = append(points, list...)
		failed = failed || !ok
	}
	if len(points) == 0 {
		if !failed && c.res.Config.MissingProbes == "error" {
			c.errorf(p.Loc, "missing-probe", "none of the attach points exists on %s: %s", c.target.Name(), strings.Join(texts, ", "))
		}
		return
	}
	if c.points += len(points); c.points > c.res.Config.MaxProbes && !c.tooMany {
		c.tooMany = true
		c.errorf(p.Loc, "too-many-probes", "the script has %d probes up to here, more than the limit of %d", c.points, c.res.Config.MaxProbes).
			Notef("raise max_probes, or match less")
		return
	}
	groups := map[string]*Instance{}
	for _, pt := range points {
		ctx := c.context(pt, u)
		key := c.groupKey(pt, &ctx, u)
		inst := groups[key]
		if inst == nil {
			inst = &Instance{Probe: p, Pred: p.Pred, Body: p.Body, Ctx: ctx}
			groups[key] = inst
			c.res.Instances = append(c.res.Instances, inst)
		}
		inst.Points = append(inst.Points, pt)
	}
	if n := len(c.res.Instances); n > c.res.Config.MaxPrograms && !c.tooMany {
		c.tooMany = true
		c.errorf(p.Loc, "too-many-programs", "the script needs more than %d programs: the hooks that it matches cannot share one", c.res.Config.MaxPrograms).
			Notef("raise max_bpf_progs, or match less")
	}
}

// attachPoint resolves one attach point of a probe. ok is false when an error
// was reported.
func (c *checker) attachPoint(p *syntax.Probe, ap *syntax.AttachPoint, u use) (points []Point, ok bool) {
	pt, err := hook.Parse(c.attachText(ap))
	if err != nil {
		c.hookError(ap, err)
		return nil, false
	}
	if c.opts.Dir != "" && strings.Contains(pt.Path, "/") && !path.IsAbs(pt.Path) {
		pt.Path = path.Join(c.opts.Dir, pt.Path)
	}
	if pt.HasAddress && (pt.Kind == hook.Kprobe || pt.Kind == hook.Kretprobe) && !c.opts.Unsafe {
		c.fieldErrorf(ap, pt, hook.FieldAddress, "unsafe", "a probe on a raw address of the kernel is only allowed with --unsafe")
		return nil, false
	}
	if (pt.Kind == hook.Watchpoint || pt.Kind == hook.AsyncWatchpoint) && pt.Func != "" {
		c.fieldErrorf(ap, pt, hook.FieldFunc, "unsupported-probe", "watchpoints on what an argument of a function points to are not there").
			Notef("watchpoint:0xADDRESS:%d:%s watches an address; a uprobe on %s shows the argument", pt.Length, pt.Mode, pt.Func)
		return nil, false
	}
	if err := c.hookFeature(pt); err != nil && !c.lacking[pt.Kind] {
		// The code may be meant for another kernel: whether it can be attached
		// shows when it is.
		c.lacking[pt.Kind] = true
		d := c.fieldErrorf(ap, pt, hook.FieldProvider, "missing-feature", "%s cannot be attached on %s", pt.Kind, c.target.Name()).Notef("%v", err)
		d.Severity = source.Warning
	}
	expanded, err := hook.Expand(c.target, pt, hook.Options{Max: c.res.Config.MaxProbes, PID: c.opts.PID})
	if isNotFound(err) {
		if libc, ok := pt.Merged(); ok {
			if found, err2 := hook.Expand(c.target, libc, hook.Options{Max: c.res.Config.MaxProbes, PID: c.opts.PID}); err2 == nil && len(found) > 0 {
				c.warnf(ap.Loc, "merged-library", "%s is found in libc, which has had the functions of %s since glibc 2.34", found[0].Func, pt.Path)
				pt, expanded, err = libc, found, nil
			}
		}
	}
	if err == nil && pt.Demangled {
		expanded, err = c.demangled(expanded)
	}
	if err != nil {
		missing := c.res.Config.MissingProbes
		alternative := len(p.Points) > 1
		if !isNotFound(err) || missing == "error" && !alternative {
			c.hookError(ap, err)
			return nil, false
		}
		c.res.Missing = append(c.res.Missing, Point{Point: pt, Name: pt.String(), Span: ap.Loc})
		if missing == "ignore" {
			return nil, true
		}
		d := c.warnf(ap.Loc, "missing-probe", "%s does not exist on %s and is left out", ap.Text, c.target.Name())
		var he *hook.Error
		if errors.As(err, &he) {
			d.Suggest(he.Nearest)
			if he.Hint != "" {
				d.Notef("%s: %s", he.Message, he.Hint)
			}
		}
		return nil, true
	}
	if pt.HasWildcard() {
		c.res.Matches = append(c.res.Matches, Match{Point: pt, Span: ap.Loc, Found: expanded})
	}
	for _, e := range expanded {
		e.Text = ""
		for _, e := range c.locations(e, u) {
			name := e
			if e.Kind == hook.USDT {
				name.HasAddress, name.Address = false, 0
			}
			points = append(points, Point{Point: e, Name: name.String(), Span: ap.Loc})
		}
	}
	return points, true
}

// hookFeature says why the target has no hooks of a kind.
func (c *checker) hookFeature(pt hook.Point) error {
	var name target.FeatureName
	switch pt.Kind {
	case hook.Kprobe, hook.Kretprobe:
		name = target.FeatureKprobe
	case hook.Fentry, hook.Fexit:
		name = target.FeatureFentry
	case hook.Uprobe, hook.Uretprobe, hook.USDT:
		name = target.FeatureUprobe
	case hook.Iter:
		name = target.FeatureIter
	default:
		return nil
	}
	if f := c.target.Feature(name); f.Known {
		return f.Err()
	}
	return nil
}

// fieldErrorf reports a problem with one field of an attach point.
func (c *checker) fieldErrorf(ap *syntax.AttachPoint, pt hook.Point, field, code, format string, args ...any) *source.Diagnostic {
	span := ap.Loc
	if start, end, ok := pt.FieldRange(field); ok && end <= span.End-span.Start && pt.Text == ap.Text {
		span.Start, span.End = span.Start+start, span.Start+end
	}
	return c.errorf(span, code, format, args...)
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
	if he.Err != nil && !isNotFound(he.Err) && !strings.Contains(he.Message, he.Err.Error()) {
		d.Notef("%v", he.Err)
	}
}

// groupKey is equal for attach points at which a body means the same, and
// whose program the kernel lets be shared.
func (c *checker) groupKey(pt Point, ctx *Context, u use) string {
	key := pt.Kind.String()
	switch pt.Kind {
	case hook.Kprobe, hook.Kretprobe:
	case hook.Uprobe, hook.Uretprobe:
		if u.place {
			return key + pt.Name
		}
	case hook.Tracepoint:
		if ctx.Syscall {
			return key + " syscalls " + strings.SplitAfterN(pt.Event, "_", 3)[1] + argsKey(ctx.Args, u.fields)
		}
		if !u.args && !ctx.Record && c.rawOf(pt) {
			if u.kfuncs || u.probe && !c.target.Feature(target.FeatureRawTPCookie).Have {
				return key + pt.Name
			}
			return key + " raw"
		}
	case hook.RawTracepoint:
		if u.args || u.numbered || u.kfuncs || u.probe && !c.target.Feature(target.FeatureRawTPCookie).Have {
			return key + pt.Name
		}
		return key
	case hook.USDT:
		switch {
		case u.place:
			return key + pt.String()
		case u.numbered:
			return key + specKey(ctx.USDT)
		}
		return key
	default:
		// The kernel, or the timer, ties such a program to one hook.
		return key + pt.Name
	}
	return key + argsKey(ctx.Args, u.fields)
}

// rawOf reports whether a tracepoint can be had as a raw tracepoint, which is
// cheaper to run and much cheaper to detach.
func (c *checker) rawOf(pt Point) bool {
	_, err := c.target.RawTracepoint(pt.Event)
	return err == nil && c.target.Feature(target.FeatureRawTracepoint).Have
}

// argsKey is equal for arguments that can be read by the same code; fields are
// those that matter, all when it is nil.
func argsKey(t *Type, fields map[string]bool) string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	for _, f := range t.Fields {
		if fields != nil && !fields[f.Name] {
			continue
		}
		fmt.Fprintf(&b, " %s:%s:%d", f.Name, f.Type, f.Offset)
		if f.Arg != nil {
			fmt.Fprintf(&b, ":%d", f.Arg.Index)
			if f.Arg.Field != nil {
				fmt.Fprintf(&b, ":%s", f.Arg.Field.Kind)
			}
		}
	}
	return b.String()
}

// specKey is equal for USDT probes whose arguments lie in the same places.
func specKey(list []symbol.USDTProbe) string {
	var b strings.Builder
	for _, p := range list {
		fmt.Fprintf(&b, " %s", p.ArgText)
		for _, a := range p.Args {
			if a.Reg == "rip" {
				// Found from the address of the probe itself.
				fmt.Fprintf(&b, "@%#x", p.Addr)
			}
		}
	}
	return b.String()
}
