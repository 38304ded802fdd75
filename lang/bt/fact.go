package bt

import (
	"github.com/skep-bpf/skep/facts"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
)

// rely notes that the code relies on a fact of the target that a loader cannot
// adjust, so that it can be compared where the object is loaded.
func (l *lowerer) rely(kind object.FactKind, name string, line int) {
	for _, f := range l.man.Facts {
		if f.Kind == kind && f.Name == name {
			return
		}
	}
	f := object.Fact{Kind: kind, Name: name, Line: line}
	value, err := facts.Value(l.target, f, l.opts.PID)
	if err != nil {
		value = facts.Unknown
	}
	f.Value = value
	l.man.Facts = append(l.man.Facts, f)
}

// feature reports whether the target has a feature, and notes that the object
// relies on the answer.
func (l *lowerer) feature(name target.FeatureName) bool {
	l.rely(object.FactFeature, string(name), 0)
	return l.target.Feature(name).Have
}

// file notes that the object relies on the contents of a user binary.
func (l *lowerer) file(pt hook.Point) {
	l.rely(object.FactFile, pt.Path, 0)
}

// probeFacts notes what the attach points of the script were resolved to.
func (l *lowerer) probeFacts() {
	for _, m := range l.res.Matches {
		l.rely(object.FactMatch, m.Point.String(), m.Span.Pos().Line)
	}
	for _, p := range l.res.Missing {
		l.rely(object.FactExists, p.Point.String(), p.Span.Pos().Line)
	}
}
