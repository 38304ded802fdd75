package bt

import (
	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
)

// enum bpf_map_type and flags of include/uapi/linux/bpf.h.
const (
	mapHash           = 1
	mapPerfEventArray = 4
	mapPercpuHash     = 5
	mapPercpuArray    = 6
	mapLRUHash        = 9
	mapLRUPercpuHash  = 10
	mapRingbuf        = 27

	mapNoPrealloc = 1
)

// preallocLimit is the size in bytes, over all CPUs, up to which a hash table
// is allocated at once, which makes updates cheap and sure.
const preallocLimit = 8 << 20

// A mapInfo is how a map of the script is kept: an IR map, or for a scalar
// that is not per CPU a variable.
type mapInfo struct {
	*check.Map
	ir   *ir.Map
	vari *ir.Global
	show int // index in the manifest
	size int // bytes of a value
	// reader sums an aggregation up.
	reader *ir.Func
}

var aggNames = map[check.AggKind]object.Agg{
	check.Count: object.AggCount, check.Sum: object.AggSum, check.Min: object.AggMin, check.Max: object.AggMax,
	check.Avg: object.AggAvg, check.Stats: object.AggStats, check.Hist: object.AggHist, check.Lhist: object.AggLhist,
	check.Tseries: object.AggTseries,
}

// aggFields is the layout of an aggregation's value, all fields of 8 bytes.
func aggFields(m *check.Map) btf.Type {
	t := m.Value
	number := btf.Type(u64Type)
	if t.Signed {
		number = s64Type
	}
	pair := func(a, b string) btf.Type {
		return &btf.Struct{Size: 16, Members: []btf.Member{{Name: a, Type: number}, {Name: b, Type: u64Type, Offset: 64}}}
	}
	switch t.Agg {
	case check.Sum:
		if m.Key == nil {
			return pair("total", "set") // the one element is always there
		}
	case check.Min, check.Max:
		return pair("value", "set")
	case check.Avg, check.Stats:
		return pair("total", "count")
	case check.Hist:
		return arrayOf(u64Type, object.HistBuckets(int(t.Params[0])))
	case check.Lhist:
		return arrayOf(u64Type, lhistBuckets(t))
	case check.Tseries:
		return arrayOf(u64Type, tseriesSlot/8*int(t.Params[1]))
	}
	return number
}

func lhistBuckets(t *check.Type) int {
	return int((t.Params[1]-t.Params[0])/t.Params[2]) + 2
}

func (l *lowerer) declareMap(m *check.Map) {
	info := &mapInfo{Map: m, show: len(l.man.Maps)}
	l.maps[m] = info
	show := object.MapShow{Name: m.Name, Present: -1, Line: m.Span.Pos().Line}
	name := "at_" + m.Name[1:]
	agg := m.Value.Kind == check.Agg
	var value btf.Type
	if agg {
		value = aggFields(m)
		info.size, _ = btf.Sizeof(value)
		show.Agg, show.PerCPU = aggNames[m.Value.Agg], true
		show.Value = object.Type{Kind: object.TypeInt, Size: 8, Signed: m.Value.Signed}
		switch m.Value.Agg {
		case check.Hist:
			show.Bits = int(m.Value.Params[0])
		case check.Lhist:
			show.Min, show.Max, show.Step = m.Value.Params[0], m.Value.Params[1], m.Value.Params[2]
		case check.Tseries:
			show.Interval, show.Buckets = uint64(m.Value.Params[0]), int(m.Value.Params[1])
			show.Inner = tseriesInner[m.Value.Mode]
		}
	} else {
		value = btfType(m.Value)
		info.size = m.Value.Size
		show.Value = showType(m.Value)
	}
	switch {
	case m.Key == nil && !agg:
		// A variable, with a byte that tells whether it was ever set.
		present := (info.size + 7) / 8 * 8
		info.vari = &ir.Global{Name: name, Section: ".bss", Type: &btf.Struct{
			Name: name, Size: uint32(present + 8), Members: []btf.Member{
				{Name: "value", Type: value}, {Name: "present", Type: u64Type, Offset: btf.Bits(8 * present)},
			},
		}}
		l.mod.Globals = append(l.mod.Globals, info.vari)
		show.Var, show.Present = name, present
	default:
		info.ir = &ir.Map{
			Name: name, Type: mapHash, Value: value, ValueSize: uint32(info.size),
			MaxEntries: uint32(l.res.Config.MaxMapKeys), Pos: m.Span,
		}
		if m.MaxEntries > 0 {
			info.ir.MaxEntries = uint32(m.MaxEntries)
		}
		perCPU := agg
		if m.Key == nil {
			info.ir.Type, info.ir.MaxEntries = mapPercpuArray, 1
			info.ir.Key, info.ir.KeySize = u32Type, 4
		} else {
			info.ir.Key, info.ir.KeySize = btfType(m.Key), uint32(m.Key.Size)
			show.Keys = []object.Field{{Type: showType(m.Key)}}
			if m.Key.Kind == check.Tuple {
				show.Keys = showFields(m.Key.Fields, 0)
			}
			show.KeySize = m.Key.Size
			switch {
			case m.Kind == "lruhash" && !perCPU:
				info.ir.Type = mapLRUHash
			case m.Kind == "lruhash", m.Kind == "percpulruhash":
				info.ir.Type = mapLRUPercpuHash
			case perCPU || m.Kind == "percpuhash":
				info.ir.Type = mapPercpuHash
			}
			cpus := 1
			if info.ir.Type == mapPercpuHash {
				cpus = l.target.CPUs()
			}
			if total := int(info.ir.MaxEntries) * (cpus*info.size + m.Key.Size); total > preallocLimit &&
				(info.ir.Type == mapHash || info.ir.Type == mapPercpuHash) {
				info.ir.Flags = mapNoPrealloc
			}
		}
		show.Map = name
		show.PerCPU = info.ir.Type == mapPercpuArray || info.ir.Type == mapPercpuHash || info.ir.Type == mapLRUPercpuHash
		l.mod.Maps = append(l.mod.Maps, info.ir)
	}
	l.man.Maps = append(l.man.Maps, show)
}

// element is a use of a map: which, and the expressions of its key.
func (g *gen) element(e syntax.Expr) (*mapInfo, []syntax.Expr) {
	switch e := e.(type) {
	case *syntax.Map:
		return g.maps[g.info.Maps[e]], nil
	case *syntax.MapIndex:
		return g.maps[g.info.Maps[e.Map]], e.Keys
	}
	return nil, nil
}

// key writes the key of an element to memory that helpers can read.
func (g *gen) key(m *mapInfo, keys []syntax.Expr) *ir.Value {
	if m.Key == nil {
		k := g.b.Alloca(4, nil, "key")
		g.b.Store(k, g.b.Const(ir.I32, 0))
		return k
	}
	if len(keys) == 1 {
		if m.Key.Kind == check.Tuple || m.Key.Kind == check.Record {
			if !isTupleLiteral(keys[0]) && check.SameLayout(g.typeOf(keys[0]), m.Key) {
				return g.memory(keys[0])
			}
		}
		k := g.b.Alloca(m.Key.Size, nil, "key")
		g.into(k, keys[0], m.Key)
		return k
	}
	k := g.b.Alloca(m.Key.Size, nil, "key")
	g.fieldsInto(k, m.Key, keys)
	return k
}

func isTupleLiteral(e syntax.Expr) bool {
	switch e.(type) {
	case *syntax.Tuple, *syntax.Record:
		return true
	}
	return false
}

// found looks an element up and runs with its address when it is there.
func (g *gen) found(m *mapInfo, key *ir.Value, with func(p *ir.Value), without func()) {
	p := g.lookup(m, key)
	yes, no, done := g.block("found"), g.block("missing"), g.block("done")
	g.b.If(g.b.Compare(ir.OpNe, p, g.b.Null(p.Type)), yes, no)
	g.b.Block.Likely = ir.Then
	g.b.At(yes)
	with(g.b.NonNull(p))
	g.jump(done)
	g.b.At(no)
	if without != nil {
		without()
	}
	g.jump(done)
	g.b.At(done)
}

func (g *gen) lookup(m *mapInfo, key *ir.Value) *ir.Value {
	return g.helper(hMapLookup, g.b.Map(m.ir), key)
}

// readMap is the number or pointer that an element holds, 0 when there is none.
func (g *gen) readMap(e syntax.Expr) *ir.Value {
	m, keys := g.element(e)
	t := g.typeOf(e)
	if m.Value.Kind == check.Agg {
		return g.readAgg(m, keys, e)
	}
	if m.vari != nil {
		return g.fromMap(g.b.Global(m.vari), t)
	}
	p := g.lookup(m, g.key(m, keys))
	yes, no, done := g.block("found"), g.block("missing"), g.block("value")
	result := done.NewParam(ir.I64, "")
	g.b.If(g.b.Compare(ir.OpNe, p, g.b.Null(p.Type)), yes, no)
	g.b.At(yes)
	g.b.Jump(done, g.int(g.fromMap(g.b.NonNull(p), m.Value)))
	g.b.At(no)
	g.b.Jump(done, g.const64(0))
	g.b.At(done)
	if want := irType(t); want.IsPtr() {
		return g.b.IntToPtr(result, want)
	}
	return result
}

func (g *gen) fromMap(p *ir.Value, t *check.Type) *ir.Value {
	v := g.b.Resize(g.b.Load(memType(t), p), ir.I64, t.Signed)
	if want := irType(t); want.IsPtr() {
		return g.b.IntToPtr(v, want)
	}
	return v
}

// readMapMemory is the address of a copy of what an element holds, zeros when
// there is none.
func (g *gen) readMapMemory(e syntax.Expr) *ir.Value {
	m, keys := g.element(e)
	if m.vari != nil {
		return g.b.Global(m.vari)
	}
	tmp := g.b.Alloca(m.size, nil, "value")
	g.found(m, g.key(m, keys), func(p *ir.Value) { g.b.MemCopy(tmp, p, m.size) }, func() { g.b.MemZero(tmp, m.size) })
	return tmp
}

func (g *gen) assignMap(s *syntax.Assign) {
	m, keys := g.element(s.Lhs)
	if s.Op != syntax.OpNone {
		g.updateMap(m, keys, func(old *ir.Value) *ir.Value {
			return g.arith(s.Op, g.arithType(s.Op, m.Value, s.Rhs), m.Value, g.typeOf(s.Rhs), old, g.value(s.Rhs))
		}, s.Op == syntax.OpAdd || s.Op == syntax.OpSub)
		return
	}
	if m.Value.Kind == check.Agg {
		call, ok := s.Rhs.(*syntax.Call)
		if !ok {
			g.errorf(s.Rhs.Span(), "unsupported", "only a call of %s can be put into %s", m.Value.Agg, m.Name)
			return
		}
		g.aggregate(m, keys, call)
		return
	}
	if m.vari != nil {
		p := g.b.Global(m.vari)
		g.into(p, s.Rhs, m.Value)
		g.b.Store(g.b.Offset(p, int64((m.size+7)/8*8)), g.const64(1))
		return
	}
	key := g.key(m, keys)
	value := g.b.Alloca(m.size, nil, "value")
	g.into(value, s.Rhs, m.Value)
	if m.Value.IsScalar() {
		v := g.b.Load(memType(m.Value), value)
		g.found(m, key, func(p *ir.Value) { g.b.Store(p, v) }, func() { g.update(m, key, value, 0) })
		return
	}
	g.update(m, key, value, 0)
}

// update puts a value into a map, and counts when that fails.
func (g *gen) update(m *mapInfo, key, value *ir.Value, flags int64) {
	r := g.helper(hMapUpdate, g.b.Map(m.ir), key, value, g.const64(flags))
	code := g.b.Resize(r, ir.I32, false)
	g.ifThen(g.b.Compare(ir.OpNe, code, g.b.Const(ir.I32, 0)), func() { g.loseUpdate(m, code) })
}

// loseUpdate counts that a map was not updated, by the error that the kernel
// gave: E2BIG says that it is full.
func (g *gen) loseUpdate(m *mapInfo, code *ir.Value) {
	const tooBig = -7
	g.ifElse(g.b.Compare(ir.OpEq, code, g.b.Const(ir.I32, tooBig)),
		func() { g.lose(object.LossMapFull, m.Name) },
		func() { g.lose(object.LossMapUpdate, m.Name) })
}

// updateMap changes the number in an element, which is 0 before its first use.
func (g *gen) updateMap(m *mapInfo, keys []syntax.Expr, f func(old *ir.Value) *ir.Value, _ bool) *ir.Value {
	t := m.Value
	if m.vari != nil {
		p := g.b.Global(m.vari)
		now := g.wrap(f(g.fromMap(p, t)), t)
		g.b.Store(p, g.b.Resize(now, memType(t), false))
		g.b.Store(g.b.Offset(p, int64((m.size+7)/8*8)), g.const64(1))
		return now
	}
	key := g.key(m, keys)
	old := g.b.Alloca(8, nil, "old")
	g.b.Store(old, g.const64(0))
	g.found(m, key, func(p *ir.Value) { g.b.Store(old, g.fromMap(p, t)) }, nil)
	now := g.wrap(f(g.b.Load(ir.I64, old)), t)
	value := g.b.Alloca(m.size, nil, "value")
	g.b.Store(value, g.b.Resize(now, memType(t), false))
	g.update(m, key, value, 0)
	return now
}

// incMap is @m++ and its kin: one atomic step.
func (g *gen) incMap(e *syntax.IncDec, delta int64) *ir.Value {
	m, keys := g.element(e.X)
	t := m.Value
	if t.Size < 4 {
		now := g.updateMap(m, keys, func(old *ir.Value) *ir.Value { return g.b.Binary(ir.OpAdd, old, g.const64(delta)) }, true)
		if e.Prefix {
			return now
		}
		return g.b.Binary(ir.OpSub, now, g.const64(delta))
	}
	add := func(p *ir.Value) *ir.Value {
		old := g.b.Atomic(ir.AtomicAdd, p, g.b.Const(memType(t), delta), true)
		return g.b.Resize(old, ir.I64, t.Signed)
	}
	result := g.b.Alloca(8, nil, "count")
	if m.vari != nil {
		p := g.b.Global(m.vari)
		g.b.Store(result, add(p))
		g.b.Store(g.b.Offset(p, int64((m.size+7)/8*8)), g.const64(1))
	} else {
		g.b.Store(result, g.const64(0))
		g.withElement(m, g.key(m, keys), func(p *ir.Value) { g.b.Store(result, add(p)) })
	}
	old := g.b.Load(ir.I64, result)
	if e.Prefix {
		return g.wrap(g.b.Binary(ir.OpAdd, old, g.const64(delta)), t)
	}
	return old
}

// withElement runs with the address of an element, which is made of zeros
// when it is not there yet.
func (g *gen) withElement(m *mapInfo, key *ir.Value, with func(p *ir.Value)) {
	p := g.lookup(m, key)
	have, miss, done := g.block("element"), g.block("insert"), g.block("done")
	elem := have.NewParam(p.Type.NonNull(), "elem")
	yes := g.block("found")
	g.b.If(g.b.Compare(ir.OpNe, p, g.b.Null(p.Type)), yes, miss)
	g.b.Block.Likely = ir.Then
	g.b.At(yes)
	g.b.Jump(have, g.b.NonNull(p))

	g.b.At(miss)
	if m.Key == nil {
		// The one element of an array is always there.
		g.b.Jump(done)
	} else {
		var zero *ir.Value
		if m.size <= 32 {
			zero = g.b.Alloca(m.size, nil, "zero")
			g.b.MemZero(zero, m.size)
		} else {
			zero = g.b.Global(g.zeros(m.size))
		}
		code := g.b.Resize(g.helper(hMapUpdate, g.b.Map(m.ir), key, zero, g.const64(1)), ir.I32, false) // BPF_NOEXIST
		p = g.lookup(m, key)
		again, full := g.block("inserted"), g.block("full")
		g.b.If(g.b.Compare(ir.OpNe, p, g.b.Null(p.Type)), again, full)
		g.b.At(again)
		g.b.Jump(have, g.b.NonNull(p))
		g.b.At(full)
		g.loseUpdate(m, code)
		g.jump(done)
	}
	g.b.At(have)
	with(elem)
	g.jump(done)
	g.b.At(done)
}

// zeros is constant memory of at least n zero bytes.
func (g *gen) zeros(n int) *ir.Global {
	for _, v := range g.mod.Globals {
		if v.Name == "skep_zeros" {
			if n > len(v.Init) {
				v.Init = make([]byte, n)
				v.Type = arrayOf(u8Type, n)
			}
			return v
		}
	}
	v := &ir.Global{Name: "skep_zeros", Section: ".rodata", Init: make([]byte, n), Type: arrayOf(u8Type, n)}
	g.mod.Globals = append(g.mod.Globals, v)
	return v
}

// contended reports whether an element's bytes of one CPU may be written by two
// programs at a time: by another program, or by this one when it can be
// preempted by itself.
func (g *gen) contended(m *mapInfo) bool {
	if m.Writers > 1 {
		return true
	}
	switch g.inst.Ctx.Kind {
	case hook.Uprobe, hook.Uretprobe, hook.USDT, hook.Iter:
		return true
	}
	return false
}

// add adds to a number of an aggregation.
func (g *gen) add(m *mapInfo, p, n *ir.Value) {
	if g.contended(m) {
		g.b.Atomic(ir.AtomicAdd, p, n, false)
		return
	}
	g.b.Store(p, g.b.Binary(ir.OpAdd, g.b.Load(ir.I64, p), n))
}

// aggregate lowers @m[k] = count() and its kin.
func (g *gen) aggregate(m *mapInfo, keys []syntax.Expr, call *syntax.Call) {
	var n *ir.Value
	if len(call.Args) > 0 {
		n = g.number(g.value(call.Args[0]))
	}
	key := g.key(m, keys)
	t := m.Value
	switch t.Agg {
	case check.Count:
		g.withElement(m, key, func(p *ir.Value) { g.add(m, p, g.const64(1)) })
	case check.Sum:
		g.withElement(m, key, func(p *ir.Value) {
			g.add(m, p, n)
			if m.Key == nil {
				g.b.Store(g.b.Offset(p, 8), g.const64(1))
			}
		})
	case check.Avg, check.Stats:
		g.withElement(m, key, func(p *ir.Value) {
			g.add(m, p, n)
			g.add(m, g.b.Offset(p, 8), g.const64(1))
		})
	case check.Min, check.Max:
		g.withElement(m, key, func(p *ir.Value) {
			set := g.b.Offset(p, 8)
			store, compare, done := g.block("set"), g.block("compare"), g.block("done")
			g.b.If(g.b.Compare(ir.OpEq, g.b.Load(ir.I64, set), g.const64(0)), store, compare)
			g.b.At(compare)
			op := syntax.OpLt
			if t.Agg == check.Max {
				op = syntax.OpGt
			}
			g.b.If(g.b.Compare(operation(op, t.Signed), n, g.b.Load(ir.I64, p)), store, done)
			g.b.At(store)
			g.b.Store(p, n)
			g.b.Store(set, g.const64(1))
			g.b.Jump(done)
			g.b.At(done)
		})
	case check.Hist:
		bucket := g.histBucket(n, int(t.Params[0]))
		g.withElement(m, key, func(p *ir.Value) { g.addBucket(m, p, bucket, object.HistBuckets(int(t.Params[0]))) })
	case check.Lhist:
		bucket := g.lhistBucket(n, t)
		g.withElement(m, key, func(p *ir.Value) { g.addBucket(m, p, bucket, lhistBuckets(t)) })
	case check.Tseries:
		g.withElement(m, key, func(p *ir.Value) { g.tseries(p, n, t) })
	default:
		g.errorf(call.Loc, "unsupported", "%s cannot be compiled yet", t.Agg)
	}
}

func (g *gen) addBucket(m *mapInfo, p, bucket *ir.Value, n int) {
	// The very offset that is added is compared, right before: the verifier
	// forgets the bounds of values that went through the stack meanwhile.
	offset := g.b.Binary(ir.OpShl, bucket, g.const64(3))
	g.ifThen(g.b.Compare(ir.OpULe, offset, g.const64(int64(8*n-8))), func() {
		g.add(m, g.b.PtrAdd(p, offset), g.const64(1))
	})
}

// histBucket is the bucket of n in hist(n, k); see object.HistBuckets.
func (g *gen) histBucket(n *ir.Value, k int) *ir.Value {
	small, large, done := g.block("hist.small"), g.block("hist.large"), g.block("hist.bucket")
	result := done.NewParam(ir.I64, "bucket")
	negative, positive := g.block("hist.negative"), g.block("hist.positive")
	g.b.If(g.b.Compare(ir.OpSLt, n, g.const64(0)), negative, positive)
	g.b.At(negative)
	g.b.Jump(done, g.const64(0))
	g.b.At(positive)
	g.b.If(g.b.Compare(ir.OpULt, n, g.const64(1<<k)), small, large)
	g.b.At(small)
	g.b.Jump(done, g.b.Binary(ir.OpAdd, n, g.const64(1)))
	g.b.At(large)
	// The position of the highest bit, by halves and without branches: the
	// sign of limit-x is 1 when x is above the limit.
	x, log := n, g.const64(0)
	for shift := int64(5); shift >= 0; shift-- {
		limit := int64(1)<<(1<<shift) - 1
		above := g.b.Binary(ir.OpLShr, g.b.Binary(ir.OpSub, g.const64(limit), x), g.const64(63))
		s := g.b.Binary(ir.OpShl, above, g.const64(shift))
		x = g.b.Binary(ir.OpLShr, x, s)
		log = g.b.Binary(ir.OpOr, log, s)
	}
	// 1 + 2^k buckets come before; then 2^k for each power of two.
	over := g.b.Binary(ir.OpSub, log, g.const64(int64(k)))
	bucket := g.b.Binary(ir.OpShl, over, g.const64(int64(k)))
	if k > 0 {
		sub := g.b.Binary(ir.OpAnd, g.b.Binary(ir.OpLShr, n, over), g.const64(1<<k-1))
		bucket = g.b.Binary(ir.OpAdd, bucket, sub)
	}
	g.b.Jump(done, g.b.Binary(ir.OpAdd, bucket, g.const64(1+1<<k)))
	g.b.At(done)
	return result
}

func (g *gen) lhistBucket(n *ir.Value, t *check.Type) *ir.Value {
	lo, hi, step := t.Params[0], t.Params[1], t.Params[2]
	below, notBelow, inside, above, done := g.block("lhist.below"), g.block("lhist"), g.block("lhist.inside"), g.block("lhist.above"), g.block("lhist.bucket")
	result := done.NewParam(ir.I64, "bucket")
	g.b.If(g.b.Compare(ir.OpSLt, n, g.const64(lo)), below, notBelow)
	g.b.At(below)
	g.b.Jump(done, g.const64(0))
	g.b.At(notBelow)
	g.b.If(g.b.Compare(ir.OpSLt, n, g.const64(hi)), inside, above)
	g.b.At(above)
	g.b.Jump(done, g.const64(int64(lhistBuckets(t)-1)))
	g.b.At(inside)
	i := g.b.Binary(ir.OpUDiv, g.b.Binary(ir.OpSub, n, g.const64(lo)), g.const64(step))
	g.b.Jump(done, g.b.Binary(ir.OpAdd, i, g.const64(1)))
	g.b.At(done)
	return result
}
