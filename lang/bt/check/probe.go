package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/lang/bt/syntax"
)

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
