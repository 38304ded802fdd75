package codegen

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand"
	"testing"

	"github.com/skep-bpf/skep/ir"
)

var (
	randomCount = flag.Int("random", 300, "how many random programs TestRandom compiles")
	randomSeed  = flag.Int64("seed", 1, "of the first random program")
)

const (
	ctxInputs  = 8
	ctxOutputs = 8
	ctxSize    = 8 * (ctxInputs + ctxOutputs)
)

// A gen makes random functions that use what the IR has.
type gen struct {
	r     *rand.Rand
	m     *ir.Module
	b     *ir.Builder
	pool  map[ir.Type][]*ir.Value // what may be used here
	mems  []*ir.Value             // pointers to at least memSize initialised bytes
	subs  []*ir.Func
	depth int
	left  int // statements still allowed
}

const memSize = 32

var intTypes = []ir.Type{ir.I1, ir.I8, ir.I16, ir.I32, ir.I64}

func (g *gen) constant(t ir.Type) *ir.Value {
	interesting := []int64{
		0, 1, -1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 0x7fff, 0x8000, 0xffff, 1 << 16,
		0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, -1 << 31, -1 << 63, 1<<63 - 1, 0x123456789abcdef0,
	}
	n := interesting[g.r.Intn(len(interesting))]
	if g.r.Intn(3) == 0 {
		n = int64(g.r.Uint64())
	}
	return g.b.Const(t, n)
}

func (g *gen) some(t ir.Type) *ir.Value {
	list := g.pool[t]
	if len(list) == 0 || g.r.Intn(6) == 0 {
		return g.constant(t)
	}
	// Recent ones mostly, old ones too, so that live ranges are long.
	if g.r.Intn(2) == 0 {
		return list[len(list)-1-g.r.Intn(min(4, len(list)))]
	}
	return list[g.r.Intn(len(list))]
}

func (g *gen) put(v *ir.Value) {
	g.pool[v.Type] = append(g.pool[v.Type], v)
}

func (g *gen) anyType() ir.Type {
	return []ir.Type{ir.I1, ir.I8, ir.I16, ir.I32, ir.I32, ir.I64, ir.I64}[g.r.Intn(7)]
}

// snapshot returns a copy of the pool, to be restored where a block ends.
func (g *gen) snapshot() map[ir.Type][]*ir.Value {
	s := map[ir.Type][]*ir.Value{}
	for t, l := range g.pool {
		s[t] = l[:len(l):len(l)]
	}
	return s
}

func (g *gen) address(size int) *ir.Value {
	p := g.mems[g.r.Intn(len(g.mems))]
	off := g.r.Intn(memSize/size) * size
	return g.b.Offset(p, int64(off))
}

func (g *gen) statement() {
	g.left--
	b := g.b
	switch k := g.r.Intn(30); {
	case k < 11:
		t := g.anyType()
		op := ir.OpAdd + ir.Op(g.r.Intn(int(ir.OpAShr-ir.OpAdd)+1))
		g.put(b.Binary(op, g.some(t), g.some(t)))
	case k < 14:
		t := g.anyType()
		op := ir.OpEq + ir.Op(g.r.Intn(int(ir.OpSGe-ir.OpEq)+1))
		g.put(b.Compare(op, g.some(t), g.some(t)))
	case k < 17:
		from, to := g.anyType(), g.anyType()
		g.put(b.Resize(g.some(from), to, g.r.Intn(2) == 0))
	case k < 18:
		if g.r.Intn(2) == 0 {
			t := g.anyType()
			g.put(b.Neg(g.some(t)))
			return
		}
		t := []ir.Type{ir.I16, ir.I32, ir.I64}[g.r.Intn(3)]
		g.put(b.Swap(g.some(t)))
	case k < 20:
		t := intTypes[1+g.r.Intn(4)]
		b.Store(g.address(t.Bytes()), g.some(t))
	case k < 22:
		t := intTypes[1+g.r.Intn(4)]
		g.put(b.Load(t, g.address(t.Bytes())))
	case k < 23:
		t := []ir.Type{ir.I32, ir.I64}[g.r.Intn(2)]
		op := ir.AtomicOp(g.r.Intn(6))
		// The kernel forbids atomics on the context; the allocas come first.
		p := b.Offset(g.mems[0], int64(g.r.Intn(4)*8))
		if op == ir.AtomicCmpXchg {
			g.put(b.CmpXchg(p, g.some(t), g.some(t)))
			return
		}
		if v := b.Atomic(op, p, g.some(t), g.r.Intn(2) == 0); v.Type.IsInt() {
			g.put(v)
		}
	case k < 24:
		switch g.r.Intn(3) {
		case 0:
			if len(g.mems) > 1 {
				n := g.r.Intn(len(g.mems) - 1)
				b.MemCopy(g.mems[n], g.mems[n+1], 1+g.r.Intn(memSize))
			}
		case 1:
			b.MemZero(g.mems[g.r.Intn(len(g.mems))], 1+g.r.Intn(memSize))
		case 2:
			p := b.Alloca(memSize, nil, "")
			b.MemZero(p, memSize)
			b.Store(b.Offset(p, 8), g.some(ir.I64))
			g.mems = append(g.mems, p)
			g.call()
			g.mems = g.mems[:len(g.mems)-1]
			g.put(b.Load(ir.I64, b.Offset(p, 8)))
		}
	case k < 27:
		if g.depth < 4 {
			g.conditional()
		}
	case k < 28:
		if g.depth < 2 {
			g.loop()
		}
	case k < 29:
		g.call()
	default:
		// A helper, to take r1 to r5 away: bpf_get_smp_processor_id.
		h := g.m.Helper(ir.Extern{
			Kind: ir.ExternHelper, Name: "get_smp_processor_id", ID: 8, Result: ir.I32,
			Effect: ir.Effects{Volatile: true},
		})
		b.CallExtern(h)
	}
}

func (g *gen) call() {
	if len(g.subs) == 0 {
		return
	}
	f := g.subs[g.r.Intn(len(g.subs))]
	var args []*ir.Value
	for _, p := range f.Params() {
		if p.Type.IsPtr() {
			args = append(args, g.mems[0])
			continue
		}
		args = append(args, g.some(p.Type))
	}
	g.put(g.b.Call(f, args...))
}

func (g *gen) statements(n int) {
	for range n {
		if g.left > 0 {
			g.statement()
		}
	}
}

func (g *gen) conditional() {
	b := g.b
	f := b.Func
	then, els, join := f.NewBlock("then"), f.NewBlock("else"), f.NewBlock("join")
	b.If(g.some(ir.I1), then, els)
	b.Block.Likely = ir.Likely(g.r.Intn(3))
	types := make([]ir.Type, g.r.Intn(4))
	for i := range types {
		types[i] = g.anyType()
	}
	saved := g.snapshot()
	g.depth++
	arm := func(blk *ir.Block) {
		b.At(blk)
		g.statements(g.r.Intn(6))
		var args []*ir.Value
		for _, t := range types {
			args = append(args, g.some(t))
		}
		b.Jump(join, args...)
		g.pool = map[ir.Type][]*ir.Value{}
		for t, l := range saved {
			g.pool[t] = l
		}
	}
	arm(then)
	arm(els)
	g.depth--
	b.At(join)
	for _, t := range types {
		g.put(join.NewParam(t, ""))
	}
}

func (g *gen) loop() {
	b := g.b
	f := b.Func
	head, after := f.NewBlock("loop"), f.NewBlock("after")
	types := make([]ir.Type, g.r.Intn(4))
	init := []*ir.Value{b.Const(ir.I32, 0)}
	for i := range types {
		types[i] = g.anyType()
		init = append(init, g.some(types[i]))
	}
	b.Jump(head, init...)
	saved := g.snapshot()
	b.At(head)
	i := head.NewParam(ir.I32, "i")
	var carried []*ir.Value
	for _, t := range types {
		p := head.NewParam(t, "")
		carried = append(carried, p)
		g.put(p)
	}
	g.depth += 2
	g.statements(1 + g.r.Intn(6))
	g.depth -= 2
	next := []*ir.Value{b.Binary(ir.OpAdd, i, b.Const(ir.I32, 1))}
	for k := range types {
		if g.r.Intn(3) == 0 {
			// Loop-carried values that change places.
			for _, c := range carried {
				if c.Type == types[k] && g.r.Intn(2) == 0 {
					next = append(next, c)
					break
				}
			}
		}
		if len(next) == k+1 {
			next = append(next, g.some(types[k]))
		}
	}
	results := append([]*ir.Value(nil), next[1:]...)
	b.IfEdges(b.Compare(ir.OpULt, next[0], b.Const(ir.I32, int64(1+g.r.Intn(4)))),
		ir.Edge{To: head, Args: next}, ir.Edge{To: after, Args: results})
	g.pool = saved
	b.At(after)
	for _, t := range types {
		g.put(after.NewParam(t, ""))
	}
}

func randomModule(seed int64, section string) *ir.Module {
	r := rand.New(rand.NewSource(seed))
	g := &gen{r: r, m: &ir.Module{Name: "random", License: "GPL"}}
	for n := range r.Intn(3) {
		params := []ir.Type{ir.MemPtr(ir.SpaceStack, 0)}
		for range r.Intn(5) {
			params = append(params, g.anyType())
		}
		f := g.m.NewFunc(fmt.Sprintf("sub%d", n), ir.Static, params, g.anyType())
		g.function(f, 5+r.Intn(20), f.Params()[:1])
		g.b.Return(g.some(f.Result))
		g.subs = append(g.subs, f)
	}
	f := g.m.NewFunc("main", ir.Program, []ir.Type{ir.PtrTo(ir.SpaceCtx)}, ir.I32)
	f.Section = section
	ctx := f.Params()[0]
	g.function(f, 10+r.Intn(90), nil)
	for i := range ctxOutputs {
		x := g.some(g.anyType())
		g.b.Store(g.b.Offset(ctx, int64(8*(ctxInputs+i))), g.b.Resize(x, ir.I64, r.Intn(2) == 0))
	}
	g.b.Return(g.some(ir.I32))
	return g.m
}

func (g *gen) function(f *ir.Func, statements int, mems []*ir.Value) {
	g.b = ir.NewBuilder(f)
	g.pool = map[ir.Type][]*ir.Value{}
	g.mems = nil
	g.left, g.depth = 3*statements, 0
	for range 1 + g.r.Intn(2) {
		p := g.b.Alloca(memSize, nil, "")
		g.b.MemZero(p, memSize)
		g.mems = append(g.mems, p)
	}
	g.mems = append(g.mems, mems...)
	for _, p := range f.Params() {
		if p.Type.IsInt() {
			g.put(p)
		}
		if p.Type.Space == ir.SpaceCtx {
			for i := range ctxInputs {
				g.put(g.b.Load(ir.I64, g.b.Offset(p, int64(8*i))))
			}
		}
	}
	g.statements(statements)
}

func TestRandom(t *testing.T) {
	needKernel(t)
	total := 0
	for n := range *randomCount {
		seed := *randomSeed + int64(n)
		// Some with all variables in scratch memory, of either kind.
		opts, section := Options{}, "syscall"
		switch seed % 5 {
		case 1:
			opts.OnStackLimit = 16
		case 2:
			opts.OnStackLimit, section = 16, "raw_tp/random"
		case 3:
			opts.CPU = 4
		}
		opts.NoOptimise = seed%4 == 0
		total += oneRandom(t, seed, section, opts)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d instructions", total)
}

func oneRandom(t *testing.T, seed int64, section string, opts Options) int {
	t.Helper()
	m := randomModule(seed, section)
	opts.Optimiser.Check = true
	if err := ir.Check(m); err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, ir.Print(m))
	}
	r := rand.New(rand.NewSource(seed))
	type run struct {
		in, want []byte
		result   uint32
	}
	var runs []run
	text := ir.Print(m)
	for n := range 4 {
		in := make([]byte, ctxSize)
		for i := range ctxInputs {
			x := r.Uint64()
			switch n {
			case 1:
				x = uint64(int64(int32(x)) >> (x % 31))
			case 2:
				x >>= r.Intn(64)
			case 3:
				x = uint64(r.Intn(3) - 1)
			}
			binary.LittleEndian.PutUint64(in[8*i:], x)
		}
		want := bytes.Clone(in)
		budget := 1_000_000
		res, err := evaluate(m.Funcs[len(m.Funcs)-1], []cell{{mem: want}}, &budget)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
		runs = append(runs, run{in, want, uint32(res.n)})
	}
	obj, err := Generate(m, opts)
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, text)
	}
	l, err := load(obj, "main", progSyscall)
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, text)
	}
	defer l.close()
	for _, run := range runs {
		got := bytes.Clone(run.in)
		result, err := l.run(got)
		if err != nil {
			t.Fatalf("seed %d: running: %v", seed, err)
		}
		if result != run.result || !bytes.Equal(got, run.want) {
			t.Errorf("seed %d: for % x\nthe program gave %#x, % x\nthe evaluator   %#x, % x\n%s\n%s", seed, run.in[:8*ctxInputs],
				result, got[8*ctxInputs:], run.result, run.want[8*ctxInputs:], text, listing(obj))
			break
		}
	}
	return len(l.code)
}
