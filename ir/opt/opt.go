package opt

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/source"
)

// Options tell how to run the passes.
type Options struct {
	// CPU is the version of the BPF instruction set made for; 0 means 3, which
	// every kernel from 6.1 on has. Signed division needs 4.
	CPU int
	// Dump, if not nil, is called with every function before the first pass
	// (after is "start") and after each: "mem2reg", and "gvn#2" for the second
	// round of a pass that is repeated. [Dumper] makes one from a flag.
	Dump func(after string, f *ir.Func)
	// Check runs [ir.CheckFunc] before the first pass and after each; the
	// error names the pass.
	Check bool
	// Skip leaves out passes that are optional, by name.
	Skip func(pass string) bool
}

// context is what a pass works on.
type context struct {
	f *ir.Func
	o *Options
}

// stage says when a pass runs. Between once and again, functions are inlined.
type stage uint8

const (
	once  stage = iota // first, in the order of the table
	again              // then again and again, until nothing changes
	final              // last
)

// A need is another pass that has to stand before or behind one in the table.
type need struct {
	pass string
	why  string
}

type pass struct {
	name  string
	stage stage
	run   func(*context) bool // reports whether it changed the function
	// optional passes make code better but are not needed to lower it.
	optional bool
	after    []need // what has to run before this
	before   []need // what this has to run before
}

// passes are all passes, in the order in which they run. A pass may stand in
// several stages.
var passes = []pass{
	{
		name: "unreachable", stage: once, run: unreachable,
		before: []need{
			{"mem2reg", "edges from code that never runs would need arguments that nobody computes"},
		},
	},
	{
		name: "mem2reg", stage: once, run: promote, optional: true,
		before: []need{
			{"simplify", "what is computed from variables can only be seen when they are values"},
			{"inline", "small functions should look small before their size is judged"},
		},
	},
	{name: "simplify", stage: once, run: simplify, optional: true},
	{
		name: "flow", stage: once, run: flow,
		after: []need{{"simplify", "conditions that are constant become so there"}},
	},
	{name: "dce", stage: once, run: dead, optional: true},

	{
		name: "mem2reg", stage: again, run: promote, optional: true,
		after: []need{{"inline", "a variable whose address was only passed to an inlined function is one no more"}},
	},
	{name: "simplify", stage: again, run: simplify, optional: true},
	{
		name: "gvn", stage: again, run: number, optional: true,
		after: []need{{"simplify", "equal values have to be written in one way"}},
		before: []need{
			{"loads", "addresses that are equal have to be one value"},
			{"known", "comparisons that are equal have to be one value, constants too"},
			{"sink", "sink repeats comparisons at their branches, gvn would merge them again"},
		},
	},
	{name: "loads", stage: again, run: loads, optional: true},
	{
		name: "fills", stage: again, run: fills, optional: true,
		after: []need{{"gvn", "addresses that are read from have to be one value"}},
	},
	{
		name: "dse", stage: again, run: deadStores, optional: true,
		after: []need{{"loads", "a store is dead when its value was forwarded to all loads"}},
	},
	{name: "known", stage: again, run: known, optional: true},
	{name: "narrow", stage: again, run: narrow, optional: true},
	{
		name: "flow", stage: again, run: flow,
		after: []need{{"known", "branches decided there become jumps here"}},
	},
	{
		name: "licm", stage: again, run: hoist, optional: true,
		after: []need{
			{"gvn", "a value that an outer block computes already need not be moved there"},
			{"flow", "flow would take away the blocks in front of loops that nothing was moved to"},
		},
	},
	{name: "dce", stage: again, run: dead, optional: true},

	{
		name: "divide", stage: final, run: signedDivision,
		after: []need{{"simplify", "divisions of numbers that are not negative, or by one, are simpler"}},
	},
	{
		name: "simplify", stage: final, run: simplify, optional: true,
		after: []need{{"divide", "its sequences have constants in them"}},
	},
	{
		name: "gvn", stage: final, run: number, optional: true,
		after: []need{{"divide", "a quotient and a remainder of one division share most of it"}},
	},
	{
		name: "dce", stage: final, run: dead, optional: true,
		before: []need{{"sink", "uses by dead values would hold others where they are"}},
	},
	{
		name: "sink", stage: final, run: sink, optional: true,
		after: []need{{"licm", "sink never moves into loops, so it does not undo it"}},
	},
	{
		name: "tidy", stage: final, run: tidy,
		after: []need{{"sink", "comparisons that were repeated at their branches are dead where they stood"}},
	},
}

// inlining is the one pass that looks at several functions. It runs between
// the first two stages.
const inlining = "inline"

// maxRounds bounds how often the repeated passes run over a function.
const maxRounds = 6

// Names lists the passes, in the order of the table, each once.
func Names() []string {
	var names []string
	add := func(s string) {
		if !slices.Contains(names, s) {
			names = append(names, s)
		}
	}
	for _, p := range passes {
		if p.stage != once {
			add(inlining)
		}
		add(p.name)
	}
	return names
}

// Run optimises all functions of m. It gives an error only when
// [Options.Check] is set and finds one.
func Run(m *ir.Module, o Options) error {
	if o.CPU == 0 {
		o.CPU = 3
	}
	r := &runner{o: &o}
	for _, f := range m.Funcs {
		if err := r.done("start", f); err != nil {
			return err
		}
		if _, err := r.stage(f, once, ""); err != nil {
			return err
		}
	}
	if !r.skip(inlining, true) {
		inline(m)
		for _, f := range m.Funcs {
			if err := r.done(inlining, f); err != nil {
				return err
			}
		}
	}
	for _, f := range m.Funcs {
		for round := 1; round <= maxRounds; round++ {
			changed, err := r.stage(f, again, fmt.Sprintf("#%d", round))
			if err != nil {
				return err
			}
			if !changed {
				break
			}
		}
		if _, err := r.stage(f, final, ""); err != nil {
			return err
		}
	}
	return nil
}

// tidy drops what sink has left and puts the blocks in an order in which each
// stands behind those that lead to it.
func tidy(p *context) bool {
	changed := dead(p)
	order := ir.NewCFG(p.f).RPO
	if !slices.Equal(p.f.Blocks, order) {
		p.f.Blocks = order
		changed = true
	}
	return changed
}

type runner struct{ o *Options }

func (r *runner) skip(name string, optional bool) bool {
	return optional && r.o.Skip != nil && r.o.Skip(name)
}

func (r *runner) stage(f *ir.Func, s stage, suffix string) (changed bool, err error) {
	for _, p := range passes {
		if p.stage != s || r.skip(p.name, p.optional) {
			continue
		}
		changed = p.run(&context{f, r.o}) || changed
		if err := r.done(p.name+suffix, f); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// done dumps and checks f after a pass.
func (r *runner) done(after string, f *ir.Func) error {
	if r.o.Dump != nil {
		r.o.Dump(after, f)
	}
	if !r.o.Check {
		return nil
	}
	err := ir.CheckFunc(f)
	if err == nil {
		if p, bad := ir.NewCFG(f).Irreducible(); bad && after != "start" {
			err = fmt.Errorf("func @%s: the edge from %s to %s enters a loop in its middle", f.Name, p.Block.Label(), p.Edge().To.Label())
		}
	}
	if err != nil {
		return fmt.Errorf("after %s: %w", after, err)
	}
	return nil
}

// Dumper makes a function for [Options.Dump] that writes to w, from what a
// person asks for: a comma-separated list of FUNC, FUNC:PASS or :PASS, where
// either may be *. A PASS without a number means every round of it, no PASS
// all of them. A function that a pass left as it was is said to be so, not
// written again.
func Dumper(w io.Writer, spec string) (func(after string, f *ir.Func), error) {
	type want struct{ fn, pass string }
	var wants []want
	names := append([]string{"start", "*"}, Names()...)
	for item := range strings.SplitSeq(spec, ",") {
		fn, pass, ok := strings.Cut(strings.TrimSpace(item), ":")
		if !ok || pass == "" {
			pass = "*"
		}
		if fn == "" {
			fn = "*"
		}
		if base, _, _ := strings.Cut(pass, "#"); !slices.Contains(names, base) {
			hint := ""
			if near := source.Nearest(base, slices.Values(names)); near != "" {
				hint = fmt.Sprintf(", did you mean %q?", near)
			}
			return nil, fmt.Errorf("there is no pass %q%s (passes: %s)", pass, hint, strings.Join(names, " "))
		}
		wants = append(wants, want{fn, pass})
	}
	last := map[*ir.Func]string{}
	return func(after string, f *ir.Func) {
		base, _, _ := strings.Cut(after, "#")
		for _, x := range wants {
			if x.fn != "*" && x.fn != f.Name || x.pass != "*" && x.pass != after && x.pass != base {
				continue
			}
			text := f.String()
			if last[f] == text {
				fmt.Fprintf(w, "; @%s after %s: as before\n", f.Name, after)
			} else {
				fmt.Fprintf(w, "; @%s after %s\n%s\n", f.Name, after, text)
			}
			last[f] = text
			return
		}
	}, nil
}
