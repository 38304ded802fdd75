package codegen

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
)

// Scratch memory is where allocas go that the frame has no room for: elements
// of one per-CPU array, found by a look-up in the function that needs them.
//
// An element must belong to one run at a time. Runs of a program can meet on
// one CPU by nesting (an interrupt's run in the middle of another's) and by
// preemption (the kernel pins a run to its CPU but may run another task there
// in between). Different programs always have different elements, so what
// matters is whether a program can meet itself:
//
//   - tracepoint, kprobe, kretprobe: trace_call_bpf (kernel/trace/bpf_trace.c)
//     raises the per-CPU bpf_prog_active and gives up unless it was 0. So do
//     kprobe.multi (kprobe_multi_link_prog_run) and perf events, NMIs included
//     (bpf_overflow_handler, kernel/events/core.c). Never.
//   - raw_tp, tp_btf: __bpf_trace_run raises prog->active, a per-CPU counter of
//     the program itself. Never.
//   - fentry, fexit, fmod_ret, sleepable ones too: __bpf_prog_enter_recur and
//     __bpf_prog_enter_sleepable_recur (kernel/bpf/trampoline.c) do the same.
//     Never. bpf_prog_check_recur exempts iterators, LSM and struct_ops.
//   - xdp and tc run with softirqs off on their CPU, where no other packet is
//     handled meanwhile. Never, but for a tc program that calls
//     bpf_clone_redirect: the clone goes through the other device's hooks at
//     once, and the same program may sit there.
//   - uprobes, uretprobes and USDT run pinned but preemptible
//     (bpf_prog_run_array_uprobe, include/linux/bpf.h; uprobe_prog_run), and
//     so do iterators (bpf_iter_run_prog), LSM, struct_ops, syscall programs,
//     socket filters (bpf_prog_run_save_cb; a local sender's runs in process
//     context) and cgroup hooks. They can meet themselves.
//
// Those that can meet themselves have scratchSlots elements. The first word of
// an element tells whether it is taken; an exchange takes it, since nothing
// may come between looking and taking, and every exit gives it back. A run
// that finds all taken counts a loss and leaves.
//
// bpf(BPF_PROG_TEST_RUN) enters raw_tp programs, and before Linux 6.10 xdp and
// tc programs, without these guards: a program must not be attached and test-run
// at the same time.

const (
	// maxScratch is the largest element of a per-CPU array (PCPU_MIN_UNIT_SIZE,
	// include/linux/percpu.h).
	maxScratch = 32 << 10
	// scratchSlots is how many runs of a preemptible program one CPU serves at
	// a time: each more is a task preempted in the middle of a run.
	scratchSlots = 4
	// busySize is the word in front of an element that is taken and given back.
	busySize = 8

	mapTypePerCPUArray = 6 // BPF_MAP_TYPE_PERCPU_ARRAY
	helperCloneRedir   = 13
)

// guarded are the beginnings of section names of programs that never meet
// themselves on a CPU.
var guarded = []string{
	"tp", "tracepoint", "raw_tp", "raw_tracepoint", "tp_btf", "fentry", "fexit", "fmod_ret",
	"kprobe", "kretprobe", "ksyscall", "kretsyscall", "perf_event", "xdp", "tc", "tcx", "classifier", "action",
}

// meetsItself reports whether runs of program f may meet on one CPU.
func meetsItself(f *ir.Func, reached []*ir.Func) bool {
	kind, _, _ := strings.Cut(strings.TrimPrefix(f.Section, "?"), "/")
	kind, _, _ = strings.Cut(kind, ".") // .s sleepable, .multi, .frags, .w
	if !slices.Contains(guarded, kind) {
		return true
	}
	for _, r := range reached {
		for _, b := range r.Blocks {
			for _, v := range b.Values {
				if e, ok := v.Aux.(*ir.Extern); ok && v.Op == ir.OpCall && e.Kind == ir.ExternHelper && e.ID == helperCloneRedir {
					return true
				}
			}
		}
	}
	return false
}

// A plan is the scratch memory of one function.
type plan struct {
	allocas []*ir.Value
	offsets []int
	size    int
}

// scratch moves allocas out of the frame where they are larger than the limit
// or the frame is full.
func (g *generator) scratch() {
	plans := map[*ir.Func]*plan{}
	budgets := g.budgets()
	for _, f := range g.m.Funcs {
		if p := g.plan(f, budgets[f]); p != nil {
			plans[f] = p
		}
	}
	if len(plans) == 0 {
		return
	}
	g.separate(plans)
	size, entries := 0, uint32(0)
	m := &ir.Map{
		Name: "skep_scratch", Type: mapTypePerCPUArray, KeySize: 4,
		Key: &btf.Int{Name: "unsigned int", Size: 4},
	}
	for _, root := range g.m.Funcs {
		if root.Linkage != ir.Program {
			continue
		}
		reached := reachable(root)
		shared := meetsItself(root, reached)
		for _, f := range reached {
			p := plans[f]
			if p == nil {
				continue
			}
			delete(plans, f)
			if p.size+busySize > maxScratch {
				g.fail(tooLarge(f, p.size))
				continue
			}
			size = max(size, p.size+busySize)
			s := &scratcher{g: g, f: f, m: m, plan: p, first: entries}
			if shared {
				entries += scratchSlots
				s.shared()
			} else {
				entries++
				s.own()
			}
		}
	}
	if entries == 0 {
		return
	}
	m.ValueSize, m.MaxEntries = uint32(size+7)&^7, entries
	g.m.Maps = append(g.m.Maps, m)
}

// callees lists the functions that f calls or passes to helpers.
func callees(f *ir.Func) []*ir.Func {
	var list []*ir.Func
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			if c, ok := v.Aux.(*ir.Func); ok && !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// reachable lists root and all that it calls, directly or not.
func reachable(root *ir.Func) []*ir.Func {
	list := []*ir.Func{root}
	for i := 0; i < len(list); i++ {
		for _, c := range callees(list[i]) {
			if !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	return list
}

// budgets divides the 512 bytes of stack among the functions of each chain of
// calls.
func (g *generator) budgets() map[*ir.Func]int {
	deep := map[*ir.Func]int{}
	var depth func(f *ir.Func, seen int) int
	depth = func(f *ir.Func, seen int) int {
		if d, ok := deep[f]; ok || seen > maxCallDepth {
			return max(d, 1)
		}
		d := 1
		for _, c := range callees(f) {
			d = max(d, 1+depth(c, seen+1))
		}
		deep[f] = d
		return d
	}
	budgets := map[*ir.Func]int{}
	for _, f := range g.m.Funcs {
		if f.Linkage != ir.Program {
			continue
		}
		each := maxFrame / depth(f, 0) &^ 31
		for _, r := range reachable(f) {
			if b, ok := budgets[r]; !ok || each < b {
				budgets[r] = each
			}
		}
	}
	return budgets
}

// spillReserve is kept free in the frame for registers.
const spillReserve = 64

// plan chooses the allocas of f that leave the frame, nil when none has to.
func (g *generator) plan(f *ir.Func, budget int) *plan {
	var chosen, small []*ir.Value
	total := 0
	pinned := callbackContexts(f)
	for _, v := range f.Entry().Values {
		if v.Op != ir.OpAlloca || pinned[v] {
			continue
		}
		if int(v.Int) > g.opts.OnStackLimit {
			chosen = append(chosen, v)
			continue
		}
		small = append(small, v)
		total += int(v.Int+7) &^ 7
	}
	if budget == 0 {
		budget = maxFrame
	}
	for v := range pinned {
		total += int(v.Int+7) &^ 7
	}
	if total+spillReserve > budget {
		// Sharing may make it fit: see what the frame comes to.
		slices.SortStableFunc(small, func(a, b *ir.Value) int { return cmp.Compare(b.Int, a.Int) })
		for len(small) > 0 && small[0].Int > 16 && g.frameWithout(f, chosen)+spillReserve > budget {
			chosen = append(chosen, small[0])
			small = small[1:]
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	p := &plan{allocas: chosen}
	p.offsets, p.size = g.packAllocas(f, chosen)
	return p
}

// callbackContexts are the allocas that a helper hands to a function of ours:
// the kernel takes only stack for that (ARG_PTR_TO_STACK_OR_NULL).
func callbackContexts(f *ir.Func) map[*ir.Value]bool {
	pinned := map[*ir.Value]bool{}
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			if e, ok := v.Aux.(*ir.Extern); !ok || v.Op != ir.OpCall || e.Kind != ir.ExternHelper ||
				!slices.ContainsFunc(v.Args, func(a *ir.Value) bool { return a.Op == ir.OpFunc }) {
				continue
			}
			for _, a := range v.Args {
				if a.Op == ir.OpAlloca {
					pinned[a] = true
				}
			}
		}
	}
	return pinned
}

// frameWithout is the size of f's frame when the given allocas are elsewhere.
func (g *generator) frameWithout(f *ir.Func, without []*ir.Value) int {
	var rest []*ir.Value
	for _, v := range f.Entry().Values {
		if v.Op == ir.OpAlloca && !slices.Contains(without, v) {
			rest = append(rest, v)
		}
	}
	_, size := g.packAllocas(f, rest)
	return size
}

// packAllocas lays out allocas of f so that those share memory that are never
// in use together.
func (g *generator) packAllocas(f *ir.Func, allocas []*ir.Value) (offsets []int, size int) {
	cfg := ir.NewCFG(f)
	d := newDemand(f)
	p := findPointees(cfg.RPO, func(v *ir.Value) bool { return d.live[v.ID] })
	index := map[*ir.Value]int{}
	m := &memory{blocks: make([]memoryBlock, len(cfg.RPO))}
	for i, a := range allocas {
		index[a] = i
		m.sizes = append(m.sizes, int(a.Int))
		m.escaped = append(m.escaped, p.escaped[a])
	}
	for k, b := range cfg.RPO {
		mb := &m.blocks[k]
		touch := func(args []*ir.Value, writes ...write) {
			e := event{writes: writes}
			for _, arg := range args {
				for _, a := range p.of[arg] {
					if i, ok := index[a]; ok && !slices.Contains(e.touches, i) {
						e.touches = append(e.touches, i)
					}
				}
			}
			if len(e.touches) > 0 || len(e.writes) > 0 {
				mb.events = append(mb.events, e)
			}
		}
		for _, v := range b.Values {
			if v.Op == ir.OpAlloca || !d.live[v.ID] || passesPointers(v) {
				continue
			}
			if a, from, to, ok := overwrites(v); ok {
				if i, ok := index[a]; ok {
					touch(v.Args[1:], write{i, from, to})
					continue
				}
			}
			touch(v.Args)
		}
		for _, e := range b.Succs {
			touch(e.Args)
			mb.succs = append(mb.succs, cfg.Index(e.To))
		}
		if b.Cond != nil {
			touch([]*ir.Value{b.Cond})
		}
	}
	offsets, size = m.pack()
	for i := range offsets {
		offsets[i] = max(offsets[i], 0)
	}
	return offsets, size
}

// overwrites reports which bytes of which alloca v fills without reading it.
func overwrites(v *ir.Value) (alloca *ir.Value, from, to int, ok bool) {
	size := 0
	switch v.Op {
	case ir.OpStore:
		size = v.Args[1].Type.Bytes()
	case ir.OpMemZero, ir.OpMemCopy:
		size = int(v.Int)
	default:
		return nil, 0, 0, false
	}
	p, offset := v.Args[0], int64(0)
	for p.Op == ir.OpPtrAdd {
		n, isConst := p.Args[1].IsConst()
		if !isConst {
			return nil, 0, 0, false
		}
		p, offset = p.Args[0], offset+n
	}
	if p.Op != ir.OpAlloca {
		return nil, 0, 0, false
	}
	return p, int(offset), int(offset) + size, true
}

// separate gives each program its own copy of the functions that need scratch
// memory or call such: two programs may be in the same function at once.
func (g *generator) separate(plans map[*ir.Func]*plan) {
	needs := map[*ir.Func]bool{}
	for _, f := range g.m.Funcs {
		for _, r := range reachable(f) {
			needs[f] = needs[f] || plans[r] != nil
		}
	}
	owned := map[*ir.Func]bool{}
	for _, root := range append([]*ir.Func(nil), g.m.Funcs...) {
		if root.Linkage != ir.Program || !needs[root] {
			continue
		}
		copies := map[*ir.Func]*ir.Func{}
		reached := reachable(root)
		for _, f := range reached {
			if f == root || !needs[f] {
				continue
			}
			if !owned[f] {
				owned[f] = true
				continue
			}
			c, values := cloneFunc(f, fmt.Sprintf("%s_%d", f.Name, len(g.m.Funcs)))
			copies[f] = c
			owned[c] = true
			if p := plans[f]; p != nil {
				q := *p
				q.allocas = make([]*ir.Value, len(p.allocas))
				for i, a := range p.allocas {
					q.allocas[i] = values[a]
				}
				plans[c] = &q
			}
		}
		retarget := func(f *ir.Func) {
			for _, b := range f.Blocks {
				for _, v := range b.Values {
					if callee, ok := v.Aux.(*ir.Func); ok && copies[callee] != nil {
						v.Aux = copies[callee]
					}
				}
			}
		}
		retarget(root)
		for _, f := range reached {
			if c := copies[f]; c != nil {
				retarget(c)
			}
		}
	}
}

// cloneFunc adds a copy of f to its module and tells what became of each value.
func cloneFunc(f *ir.Func, name string) (*ir.Func, map[*ir.Value]*ir.Value) {
	c := &ir.Func{
		Name: name, Linkage: f.Linkage, Section: f.Section, Result: f.Result, Proto: f.Proto,
		Module: f.Module, Pos: f.Pos,
	}
	f.Module.Funcs = append(f.Module.Funcs, c)
	blocks := map[*ir.Block]*ir.Block{}
	values := map[*ir.Value]*ir.Value{}
	for _, b := range f.Blocks {
		nb := c.NewBlock(b.Name)
		blocks[b] = nb
		for _, p := range b.Params {
			values[p] = nb.NewParam(p.Type, p.Name)
		}
		for _, v := range b.Values {
			nv := c.NewValue(v.Op, v.Type, v.Pos)
			nv.Block, nv.Int, nv.Aux, nv.Name = nb, v.Int, v.Aux, v.Name
			values[v] = nv
			nb.Values = append(nb.Values, nv)
		}
	}
	list := func(args []*ir.Value) []*ir.Value {
		out := make([]*ir.Value, len(args))
		for i, a := range args {
			out[i] = values[a]
		}
		return out
	}
	for _, b := range f.Blocks {
		nb := blocks[b]
		nb.Term, nb.Likely, nb.Pos = b.Term, b.Likely, b.Pos
		if b.Cond != nil {
			nb.Cond = values[b.Cond]
		}
		for _, e := range b.Succs {
			nb.Succs = append(nb.Succs, ir.Edge{To: blocks[e.To], Args: list(e.Args)})
		}
		for _, v := range b.Values {
			values[v].Args = list(v.Args)
		}
	}
	return c, values
}

// A scratcher rewrites one function to use scratch memory.
type scratcher struct {
	g     *generator
	f     *ir.Func
	m     *ir.Map
	plan  *plan
	first uint32 // element
	key   *ir.Value
}

func (s *scratcher) lookupHelper() *ir.Extern {
	result := ir.PtrTo(ir.SpaceMapValue).OrNull()
	for _, e := range s.g.m.Externs {
		if e.Kind == ir.ExternHelper && e.ID == helperMapLookupElem && e.Result == result && e.Params == nil {
			return e
		}
	}
	e := &ir.Extern{
		Kind: ir.ExternHelper, Name: "scratch_lookup", ID: helperMapLookupElem, Result: result,
		Effect: ir.Effects{Reads: ir.Spaces(ir.SpaceStack), Volatile: true},
	}
	s.g.m.Externs = append(s.g.m.Externs, e)
	return e
}

// lookup finds element index of m and continues in a new block with a pointer
// to it; control goes to missing when there is none.
func (s *scratcher) lookup(b *ir.Builder, m *ir.Map, index uint32, missing ir.Edge) *ir.Value {
	b.Store(s.key, b.Const(ir.I32, int64(index)))
	p := b.CallExtern(s.lookupHelper(), b.Map(m), s.key)
	found := s.f.NewBlock("found")
	b.IfEdges(b.Compare(ir.OpNe, p, b.Null(p.Type)), ir.Edge{To: found}, missing)
	b.Block.Likely = ir.Then
	b.At(found)
	return b.NonNull(p)
}

// point makes the allocas point into the element at base.
func (s *scratcher) point(b *ir.Builder, base *ir.Value) {
	subst := ir.NewSubst(s.f)
	entry := s.f.Entry()
	for i, a := range s.plan.allocas {
		p := b.PtrCast(b.Offset(base, int64(busySize+s.plan.offsets[i])), a.Type)
		subst.Replace(a, p)
		entry.Values = slices.DeleteFunc(entry.Values, func(v *ir.Value) bool { return v == a })
	}
	subst.Apply(s.f)
}

// lose counts that there was no scratch memory and leaves the function.
func (s *scratcher) lose() *ir.Block {
	b := &ir.Builder{Func: s.f, Block: s.f.NewBlock("no_scratch"), Pos: s.f.Pos}
	first := b.Block
	leave := s.f.NewBlock("leave")
	if loss := s.g.opts.Loss; loss.Var != nil {
		b.Atomic(ir.AtomicAdd, b.Offset(b.Global(loss.Var), 8*int64(loss.Index)), b.Const(ir.I64, 1), false)
	}
	b.Jump(leave)
	b.At(leave)
	switch s.f.Result.Kind {
	case ir.Int:
		b.Return(b.Const(s.f.Result, 0))
	case ir.Ptr:
		b.Return(b.Null(s.f.Result))
	default:
		b.Return(nil)
	}
	return first
}

// split cuts block before value index at and returns the block of the rest.
func (s *scratcher) split(block *ir.Block, at int) *ir.Block {
	rest := s.f.NewBlock(block.Name)
	rest.Values = append(rest.Values, block.Values[at:]...)
	for _, v := range rest.Values {
		v.Block = rest
	}
	block.Values = block.Values[:at:at]
	rest.Term, rest.Cond, rest.Succs, rest.Likely, rest.Pos = block.Term, block.Cond, block.Succs, block.Likely, block.Pos
	block.Term, block.Cond, block.Succs, block.Likely = ir.TermNone, nil, nil, ir.Unknown
	return rest
}

// own is for programs that never meet themselves: the element is looked up
// just before it is first needed.
func (s *scratcher) own() {
	b := ir.NewBuilder(s.f)
	s.key = b.Alloca(4, nil, "scratch_key")
	block, at := s.place()
	rest := s.split(block, at)
	lose := s.lose()
	b.At(block)
	p := s.lookup(b, s.m, s.first, ir.Edge{To: lose})
	s.point(b, p)
	b.Jump(rest)
}

// place finds where the memory is needed first: in the closest block that all
// uses have before them, outside of loops, and where a run may end.
func (s *scratcher) place() (*ir.Block, int) {
	cfg := ir.NewCFG(s.f)
	uses := func(args []*ir.Value) bool {
		return slices.ContainsFunc(args, func(a *ir.Value) bool { return slices.Contains(s.plan.allocas, a) })
	}
	var at *ir.Block
	for _, b := range cfg.RPO {
		needed := slices.ContainsFunc(b.Values, func(v *ir.Value) bool { return uses(v.Args) })
		for _, e := range b.Succs {
			needed = needed || uses(e.Args)
		}
		if !needed && !uses([]*ir.Value{b.Cond}) {
			continue
		}
		if at == nil {
			at = b
		} else {
			at = cfg.CommonDom(at, b)
		}
	}
	if at == nil {
		at = s.f.Entry()
	}
	for cfg.LoopDepth(at) > 0 && cfg.Idom(at) != nil {
		at = cfg.Idom(at)
	}
	index := slices.IndexFunc(at.Values, func(v *ir.Value) bool { return uses(v.Args) })
	if index < 0 {
		index = len(at.Values)
	}
	return s.free(cfg, at, max(index, s.allocas(at)))
}

// allocas counts the allocas at the start of the entry block.
func (s *scratcher) allocas(b *ir.Block) int {
	n := 0
	for n < len(b.Values) && b.Values[n].Op == ir.OpAlloca {
		n++
	}
	return n
}

// shared is for programs that may meet themselves: one of several elements is
// taken at entry and given back at every return.
func (s *scratcher) shared() {
	b := ir.NewBuilder(s.f)
	s.key = b.Alloca(4, nil, "scratch_key")
	entry := s.f.Entry()
	rest := s.split(entry, s.allocas(entry))
	var returns []*ir.Block
	for _, blk := range s.f.Blocks {
		if blk.Term == ir.TermReturn {
			returns = append(returns, blk)
		}
	}
	taken := s.f.NewBlock("scratch")
	base := taken.NewParam(ir.MemPtr(ir.SpaceMapValue, uint32(busySize+s.plan.size)), "scratch")
	lose := s.lose()
	b.At(entry)
	for n := range uint32(scratchSlots) {
		p := s.lookup(b, s.m, s.first+n, ir.Edge{To: lose})
		old := b.Atomic(ir.AtomicXchg, p, b.Const(ir.I64, 1), true)
		next := lose
		if n < scratchSlots-1 {
			next = s.f.NewBlock("next")
		}
		b.IfEdges(b.Compare(ir.OpEq, old, b.Const(ir.I64, 0)),
			ir.Edge{To: taken, Args: []*ir.Value{b.PtrCast(p, base.Type)}}, ir.Edge{To: next})
		b.Block.Likely = ir.Then
		b.At(next)
	}
	b.At(taken)
	s.point(b, base)
	b.Jump(rest)
	for _, blk := range returns {
		// Before the return, behind the values.
		back := &ir.Builder{Func: s.f, Block: blk, Pos: blk.Pos}
		back.Store(base, back.Const(ir.I64, 0))
	}
}
