package hook

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

func expand(t target.Target, p Point, o Options) ([]Point, error) {
	var points []Point
	n, err := walk(t, p, o, func(q Point) {
		if o.Max == 0 || len(points) < o.Max {
			points = append(points, q)
		}
	})
	if err == nil && o.Max > 0 && n > o.Max {
		err = &Error{
			Field: wildField(p), Code: "too-many-probes",
			Message: fmt.Sprintf("%s matches %d hooks, more than the limit of %d", p, n, o.Max),
			Hint:    "raise max_probes, or match less",
		}
	}
	if err != nil {
		if o.Missing && errors.Is(err, target.ErrNotFound) {
			if p.HasWildcard() {
				return nil, nil
			}
			return []Point{p}, nil
		}
		var e *Error
		if !errors.As(err, &e) {
			e = &Error{Field: FieldProvider, Code: "target", Message: err.Error(), Err: err}
		}
		if e.Start == 0 && e.End == 0 {
			if start, end, ok := p.FieldRange(e.Field); ok {
				e.Start, e.End = start, end
			} else {
				e.End = len(p.Text)
			}
		}
		return nil, e
	}
	return points, nil
}

// walk hands the points that p stands for to sink, and counts them.
func walk(t target.Target, p Point, o Options, sink func(Point)) (int, error) {
	w := walker{t: t, p: p, sink: sink}
	var err error
	switch p.Kind {
	case Tracepoint:
		err = w.tracepoints()
	case RawTracepoint:
		err = w.rawTracepoints()
	case Kprobe, Kretprobe, Fentry, Fexit, FmodRet, KprobeSession:
		err = w.functions()
	case Uprobe, Uretprobe, UprobeSession, USDT:
		err = w.user(o.PID)
	case Software, Hardware:
		err = w.cpuEvents()
	case Iter:
		err = w.iterators()
	default:
		w.add(p)
	}
	if err == nil && w.n == 0 {
		err = &Error{Field: wildField(p), Code: "no-match", Message: fmt.Sprintf("%s matches nothing on %s", p, t.Name()), Err: target.ErrNotFound}
	}
	return w.n, err
}

type walker struct {
	t    target.Target
	p    Point
	n    int
	sink func(Point)
}

func (w *walker) add(p Point) {
	w.n++
	w.sink(p)
}

// wildField is the field that a failed match is about: the last one with a
// wildcard.
func wildField(p Point) string {
	for _, f := range []struct{ name, value string }{
		{FieldEvent, p.Event},
		{FieldFunc, p.Func},
		{FieldPath, p.Path},
		{FieldNamespace, p.Namespace},
		{FieldSubsystem, p.Subsystem},
		{FieldModule, p.Module},
	} {
		if isWild(f.value) {
			return f.name
		}
	}
	return FieldProvider
}

func notFound(field, format string, args ...any) *Error {
	return &Error{Field: field, Code: "unknown-probe", Message: fmt.Sprintf(format, args...), Err: target.ErrNotFound}
}

func (w *walker) tracepoints() error {
	p := w.p
	if p.Subsystem == "" && p.Event == "" {
		w.add(p) // of a section that names none
		return nil
	}
	if !isWild(p.Subsystem) && !isWild(p.Event) {
		_, err := w.t.Format(p.Subsystem, p.Event)
		switch {
		case err == nil, errors.Is(err, target.ErrUnknown):
			w.add(p)
			return nil
		case !errors.Is(err, target.ErrNotFound):
			return err
		}
		return w.noTracepoint()
	}
	events, err := w.t.Events()
	if err != nil {
		return err
	}
	for _, e := range events {
		if match(p.Subsystem, e.Subsystem) && match(p.Event, e.Name) {
			q := p
			q.Subsystem, q.Event = e.Subsystem, e.Name
			w.add(q)
		}
	}
	return nil
}

// noTracepoint says which half of the name is wrong, and what was meant.
func (w *walker) noTracepoint() error {
	p := w.p
	events, err := w.t.Events()
	if err != nil {
		return notFound(FieldEvent, "there is no tracepoint %s:%s on %s", p.Subsystem, p.Event, w.t.Name())
	}
	var inSubsystem, subsystems []string
	elsewhere := ""
	for _, e := range events {
		if e.Subsystem == p.Subsystem {
			inSubsystem = append(inSubsystem, e.Name)
		}
		if e.Name == p.Event {
			elsewhere = e.Subsystem
		}
		if n := len(subsystems); n == 0 || subsystems[n-1] != e.Subsystem {
			subsystems = append(subsystems, e.Subsystem)
		}
	}
	if inSubsystem == nil {
		err := notFound(FieldSubsystem, "there are no tracepoints of a subsystem %q on %s", p.Subsystem, w.t.Name())
		err.Nearest = elsewhere
		if err.Nearest == "" {
			err.Nearest = source.Nearest(p.Subsystem, slices.Values(subsystems))
		}
		return err
	}
	e := notFound(FieldEvent, "the subsystem %q has no tracepoint %q on %s", p.Subsystem, p.Event, w.t.Name())
	e.Nearest = source.Nearest(p.Event, slices.Values(inSubsystem))
	if e.Nearest == "" && elsewhere != "" {
		e.Hint = "there is " + elsewhere + ":" + p.Event
	}
	return e
}

func (w *walker) rawTracepoints() error {
	p := w.p
	if p.Event == "" {
		w.add(p)
		return nil
	}
	if !isWild(p.Event) && p.Module == "" {
		_, err := w.t.RawTracepoint(p.Event)
		if err == nil {
			w.add(p)
			return nil
		}
		if !errors.Is(err, target.ErrNotFound) && !errors.Is(err, target.ErrUnknown) {
			return err
		}
	}
	all, err := w.t.RawTracepoints()
	if errors.Is(err, target.ErrUnknown) && !p.HasWildcard() {
		w.add(p)
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range all {
		if match(p.Event, r.Name) && inModule(p.Module, r.Module) {
			q := p
			q.Event = r.Name
			if q.Module != "" {
				q.Module = r.Module
			}
			w.add(q)
		}
	}
	if w.n > 0 || p.HasWildcard() {
		return nil
	}
	e := notFound(FieldEvent, "there is no raw tracepoint %q on %s", p.Event, w.t.Name())
	e.Nearest = source.Nearest(p.Event, func(yield func(string) bool) {
		for _, r := range all {
			if !yield(r.Name) {
				return
			}
		}
	})
	return e
}

// inModule matches a module against the one asked for: none asks for any, and
// vmlinux for the kernel itself.
func inModule(pattern, module string) bool {
	if pattern == "" {
		return true
	}
	if module == "" {
		module = "vmlinux"
	}
	return match(pattern, module)
}

func (w *walker) functions() error {
	p := w.p
	if p.HasAddress || p.Func == "" || p.BPF && !isWild(p.Func) {
		w.add(p)
		return nil
	}
	if p.BPF {
		return w.programs()
	}
	if !isWild(p.Func) && !isWild(p.Module) {
		found, err := w.t.Function(p.Module, p.Func)
		switch {
		case err == nil:
			q := p
			if len(found) == 1 && p.Module == "" && found[0].Module != "" && p.Kind != Kprobe && p.Kind != Kretprobe {
				q.Module = found[0].Module
			}
			w.add(q)
			return nil
		case errors.Is(err, target.ErrUnknown):
			w.add(p)
			return nil
		case !errors.Is(err, target.ErrNotFound):
			return err
		}
		return w.noFunction()
	}
	all, err := w.t.Functions()
	if err != nil {
		return err
	}
	typed := func(target.Function) bool { return true }
	if p.Kind == Fentry || p.Kind == Fexit || p.Kind == FmodRet {
		types, err := w.t.Types()
		if err != nil {
			return err
		}
		names := make(map[target.Function]struct{})
		for e := range types.Names(typeindex.KindFunc, literalPrefix(p.Func)) {
			names[target.Function{Name: e.Name, Module: e.Module}] = struct{}{}
		}
		typed = func(f target.Function) bool { _, ok := names[f]; return ok }
	}
	for _, f := range all {
		if match(p.Func, f.Name) && inModule(p.Module, f.Module) && typed(f) {
			q := p
			q.Func, q.Module = f.Name, f.Module
			w.add(q)
		}
	}
	return nil
}

// programs finds the BPF programs that others can attach to.
func (w *walker) programs() error {
	all, err := target.Programs(w.t)
	if err != nil {
		return err
	}
	for _, prog := range all {
		if match(w.p.Func, prog.Name) && (w.p.ProgramID == 0 || w.p.ProgramID == prog.ID) {
			q := w.p
			q.ProgramID, q.Func = prog.ID, prog.Name
			w.add(q)
		}
	}
	return nil
}

// literalPrefix is what every match of a pattern starts with.
func literalPrefix(pattern string) string {
	if i := strings.IndexAny(pattern, "*?["); i >= 0 {
		return pattern[:i]
	}
	return pattern
}

func (w *walker) noFunction() error {
	p := w.p
	if p.Module != "" && p.Module != "vmlinux" {
		modules, err := w.t.Modules()
		if err == nil && !slices.Contains(modules, p.Module) {
			e := notFound(FieldModule, "there is no module %q on %s, or it is not loaded", p.Module, w.t.Name())
			e.Nearest = source.Nearest(p.Module, slices.Values(modules))
			return e
		}
	}
	if s, err := w.t.Symbol(p.Func); err == nil && len(s) > 0 {
		e := notFound(FieldFunc, "the kernel has %q, but it cannot be traced", p.Func)
		if s[0].Type != 't' && s[0].Type != 'T' {
			e.Message = fmt.Sprintf("%q is data of the kernel, not a function", p.Func)
		}
		return e
	}
	e := notFound(FieldFunc, "there is no kernel function %q on %s", p.Func, w.t.Name())
	if all, err := w.t.Functions(); err == nil {
		e.Nearest = source.Nearest(p.Func, func(yield func(string) bool) {
			for _, f := range all {
				if !yield(f.Name) {
					return
				}
			}
		})
	} else if types, err := w.t.Types(); err == nil {
		e.Nearest = source.Nearest(p.Func, func(yield func(string) bool) {
			for f := range types.Names(typeindex.KindFunc, "") {
				if !yield(f.Name) {
					return
				}
			}
		})
	}
	if e.Nearest == "" {
		e.Hint = "a function of the kernel's source is not there either where the compiler inlined it into its callers, or where the kernel's release does not have it"
	}
	return e
}

func (w *walker) user(pid int) error {
	p := w.p
	if p.Path == "" {
		w.add(p)
		return nil
	}
	files, err := w.t.Files(pid)
	if errors.Is(err, target.ErrUnknown) && !p.HasWildcard() {
		w.add(p)
		return nil
	}
	if err != nil {
		return &Error{Field: FieldPath, Code: "unreadable-file", Message: fmt.Sprintf("files cannot be looked up: %v", err), Err: err}
	}
	paths := []string{p.Path}
	if isWild(p.Path) {
		found, err := fs.Glob(files, strings.TrimPrefix(p.Path, "/"))
		if err != nil {
			return &Error{Field: FieldPath, Code: "bad-pattern", Message: fmt.Sprintf("the path %q is no pattern: a bracket is not closed", p.Path), Err: err}
		}
		paths = paths[:0]
		for _, f := range found {
			paths = append(paths, "/"+f)
		}
	}
	for _, path := range paths {
		resolved, err := target.ResolveBinary(files, w.t.Arch(), path)
		if err != nil {
			if isWild(p.Path) {
				continue // a directory
			}
			return &Error{Field: FieldPath, Code: "unknown-file", Message: err.Error(), Err: err}
		}
		if err := w.binary(files, resolved); err != nil && !isWild(p.Path) {
			return err
		}
	}
	return nil
}

func (w *walker) binary(files target.Files, path string) error {
	p := w.p
	p.Path = path
	if p.HasAddress || p.Demangled {
		// Demangled names are resolved where symbols are.
		w.add(p)
		return nil
	}
	f, err := files.OpenFile(path)
	if err != nil {
		return &Error{Field: FieldPath, Code: "unreadable-file", Message: err.Error(), Err: err}
	}
	defer f.Close()
	b, err := target.ReadBinary(f)
	if err != nil {
		return &Error{Field: FieldPath, Code: "not-elf", Message: fmt.Sprintf("%s cannot be probed: %v", path, err), Err: err}
	}
	if p.Kind == USDT {
		return w.usdt(b, p)
	}
	if !isWild(p.Func) {
		if _, ok := slices.BinarySearch(b.Functions, p.Func); ok {
			w.add(p)
			return nil
		}
		e := notFound(FieldFunc, "%s has no function %q", path, p.Func)
		e.Nearest = source.Nearest(p.Func, slices.Values(b.Functions))
		if len(b.Functions) == 0 {
			e.Message = fmt.Sprintf("%s has no symbols: it is stripped", path)
			e.Hint = "an address can be probed, or the symbols installed"
		}
		return e
	}
	for _, name := range b.Functions {
		if match(p.Func, name) {
			q := p
			q.Func = name
			w.add(q)
		}
	}
	return nil
}

func (w *walker) usdt(b *target.Binary, p Point) error {
	found := false
	for _, u := range b.Probes {
		if (p.Namespace == "" || match(p.Namespace, u.Namespace)) && match(p.Event, u.Name) {
			q := p
			q.Namespace, q.Event = u.Namespace, u.Name
			w.add(q)
			found = true
		}
	}
	if found || p.HasWildcard() {
		return nil
	}
	if len(b.Probes) == 0 {
		return notFound(FieldPath, "%s has no USDT probes", p.Path)
	}
	e := notFound(FieldEvent, "%s has no USDT probe %q", p.Path, strings.TrimPrefix(p.Namespace+":"+p.Event, ":"))
	e.Nearest = source.Nearest(p.Event, func(yield func(string) bool) {
		for _, u := range b.Probes {
			if !yield(u.Name) {
				return
			}
		}
	})
	return e
}

func (w *walker) cpuEvents() error {
	p := w.p
	if !isWild(p.Event) {
		if _, ok := p.CPUEvent(); ok {
			w.add(p)
			return nil
		}
		e := notFound(FieldEvent, "there is no %s event %q", p.Kind, p.Event)
		e.Nearest = source.Nearest(p.Event, func(yield func(string) bool) {
			for _, c := range CPUEvents(p.Kind) {
				if !yield(c.Name) {
					return
				}
			}
		})
		return e
	}
	for _, c := range CPUEvents(p.Kind) {
		if match(p.Event, c.Name) {
			q := p
			q.Event = c.Name
			w.add(q)
		}
	}
	return nil
}

func (w *walker) iterators() error {
	p := w.p
	if p.Event == "" {
		w.add(p)
		return nil
	}
	names, err := w.t.Iterators()
	if errors.Is(err, target.ErrUnknown) && !isWild(p.Event) {
		w.add(p)
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if match(p.Event, name) {
			q := p
			q.Event = name
			w.add(q)
		}
	}
	if w.n == 0 && !isWild(p.Event) {
		e := notFound(FieldEvent, "%s has no iterator %q", w.t.Name(), p.Event)
		e.Nearest = source.Nearest(p.Event, slices.Values(names))
		return e
	}
	return nil
}

// listed are the kinds that a wildcard provider stands for, in the order of
// the list.
var listed = []Kind{Software, Hardware, Tracepoint, RawTracepoint, Iter, Kprobe, Fentry}

func list(t target.Target, pattern string, details bool, o Options) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		pattern = strings.TrimSpace(pattern)
		for keyword, kind := range typeKeywords {
			if name, ok := strings.CutPrefix(pattern+" ", keyword+" "); ok {
				listTypes(t, keyword, kind, strings.TrimSpace(name), details, yield)
				return
			}
		}
		points, optional, err := listPoints(pattern)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		var failed error
		any, stopped := false, false
		for _, p := range points {
			_, err := walk(t, p, Options{PID: o.PID}, func(q Point) {
				if stopped {
					return
				}
				any = true
				q.Text = ""
				e := Entry{Point: q, Stable: q.Kind.Stable()}
				if details {
					e.Args, e.Return = arguments(t, q)
				}
				stopped = !yield(e, nil)
			})
			switch {
			case stopped:
				return
			case err != nil && !optional:
				_, err = expand(t, p, Options{PID: o.PID})
				yield(Entry{}, err)
				return
			case err != nil && !errors.Is(err, target.ErrNotFound):
				failed = err
			}
		}
		switch {
		case any:
		case failed != nil:
			yield(Entry{}, failed)
		default:
			yield(Entry{}, &Error{
				Field: FieldProvider, End: len(pattern), Code: "no-match",
				Message: fmt.Sprintf("%q matches nothing on %s", pattern, t.Name()), Err: target.ErrNotFound,
			})
		}
	}
}

var typeKeywords = map[string]typeindex.Kind{
	"struct": typeindex.KindStruct, "union": typeindex.KindUnion, "enum": typeindex.KindEnum,
}

// listPoints turns a pattern into points with wildcards. optional says that it
// stands for several kinds, some of which may have nothing.
func listPoints(pattern string) (points []Point, optional bool, err error) {
	head, rest, colon := strings.Cut(pattern, ":")
	if prov, ok := providerOf(head); ok {
		if rest == "" {
			for _, p := range everything() {
				if p.Kind == prov.kind || p.Kind == Kprobe && prov.kind == Kretprobe || p.Kind == Fentry && prov.kind == Fexit {
					p.Kind = prov.kind
					return []Point{p}, false, nil
				}
			}
		}
		p, err := Parse(pattern)
		if err == nil {
			return []Point{p}, false, nil
		}
		// "tracepoint:*switch" and the like: a pattern over all that follows.
		for _, p := range everything() {
			if p.Kind == prov.kind && isWild(rest) && !strings.Contains(rest, ":") {
				p.setName(rest)
				return []Point{p}, false, nil
			}
		}
		return nil, false, err
	}
	if colon && !isWild(head) {
		_, err := Parse(pattern)
		return nil, false, err
	}
	if !colon {
		head, rest = "*", pattern
	}
	if pattern == "" {
		rest = "*"
	}
	for _, p := range everything() {
		if !slices.Contains(listed, p.Kind) {
			continue
		}
		if prov, _ := p.Kind.provider(); match(strings.ToLower(head), prov.names[0]) {
			if first, second, two := strings.Cut(rest, ":"); two {
				if !p.setPair(first, second) {
					continue
				}
			} else {
				p.setName(rest)
			}
			points = append(points, p)
		}
	}
	return points, true, nil
}

// everything is one point for each kind that can be listed, matching all.
func everything() []Point {
	return []Point{
		{Kind: Software, Event: "*"},
		{Kind: Hardware, Event: "*"},
		{Kind: Tracepoint, Subsystem: "*", Event: "*"},
		{Kind: RawTracepoint, Event: "*"},
		{Kind: Iter, Event: "*"},
		{Kind: Kprobe, Func: "*"},
		{Kind: Fentry, Func: "*"},
	}
}

func (p *Point) setName(name string) {
	if p.Func != "" {
		p.Func = name
	} else {
		p.Event = name
	}
}

func (p *Point) setPair(first, second string) bool {
	switch p.Kind {
	case Tracepoint:
		p.Subsystem, p.Event = first, second
	case Kprobe, Fentry:
		p.Module, p.Func = first, second
	case RawTracepoint:
		p.Module, p.Event = first, second
	default:
		return false
	}
	return true
}

func listTypes(t target.Target, keyword string, kind typeindex.Kind, name string, details bool, yield func(Entry, error) bool) {
	types, err := t.Types()
	if err != nil {
		yield(Entry{}, err)
		return
	}
	if name == "" {
		name = "*"
	}
	var found []typeindex.Entry
	for e := range types.Names(kind, literalPrefix(name)) {
		if match(name, e.Name) {
			found = append(found, e)
		}
	}
	slices.SortStableFunc(found, func(a, b typeindex.Entry) int { return strings.Compare(a.Name, b.Name) })
	found = slices.CompactFunc(found, func(a, b typeindex.Entry) bool { return a.Name == b.Name })
	if found == nil {
		err := notFound(FieldEvent, "there is no %s %q on %s", keyword, name, t.Name())
		err.Nearest = source.Nearest(name, func(yield func(string) bool) {
			for e := range types.Names(kind, "") {
				if !yield(e.Name) {
					return
				}
			}
		})
		yield(Entry{}, err)
		return
	}
	for _, e := range found {
		entry := Entry{Type: keyword + " " + e.Name}
		if details {
			typ, err := types.ByID(e.Module, e.ID)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			entry.Def = target.Define(typ)
		}
		if !yield(entry, nil) {
			return
		}
	}
}
