package opt

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/skep-bpf/skep/ir"
)

// An address is what is known of where a pointer points.
type address struct {
	root *ir.Value // what the pointer was computed from, at first
	base *ir.Value // what it is a constant number of bytes away from
	off  int64     // from base
}

// addressBook computes addresses once for each value.
type addressBook struct {
	known []address
}

func addresses(f *ir.Func) *addressBook { return &addressBook{make([]address, f.NumValues())} }

func (a *addressBook) of(v *ir.Value) address {
	var chain []*ir.Value
	for {
		for int(v.ID) >= len(a.known) {
			a.known = append(a.known, address{})
		}
		if a.known[v.ID].root != nil {
			break
		}
		if v.Op != ir.OpPtrAdd && v.Op != ir.OpField && v.Op != ir.OpNonNull {
			a.known[v.ID] = address{root: v, base: v}
			break
		}
		chain = append(chain, v)
		v = v.Args[0]
	}
	ad := a.known[v.ID]
	for _, v := range slices.Backward(chain) {
		switch v.Op {
		case ir.OpPtrAdd:
			if c, ok := v.Args[1].IsConst(); ok {
				ad.off += c
			} else {
				ad.base, ad.off = v, 0
			}
		case ir.OpField:
			if ref := v.Aux.(*ir.FieldRef); !ref.Relocate {
				ad.off += int64(ref.Offset)
			} else {
				ad.base, ad.off = v, 0
			}
		}
		a.known[v.ID] = ad
	}
	return ad
}

// allocaUse says what happens to the address of an alloca.
type allocaUse struct {
	other    bool // used by more than loads, stores and memzero
	captured bool // may be known to more than what it is passed to directly
	inexact  bool // moved by more than constants
}

func allocaUses(f *ir.Func, addrs *addressBook) map[*ir.Value]*allocaUse {
	info := map[*ir.Value]*allocaUse{}
	for _, v := range f.Entry().Values {
		if v.Op == ir.OpAlloca {
			info[v] = &allocaUse{}
		}
	}
	if len(info) == 0 {
		return info
	}
	use := func(v *ir.Value) *allocaUse {
		if !v.Type.IsPtr() {
			return nil
		}
		ad := addrs.of(v)
		u := info[ad.root]
		if u != nil && ad.base != ad.root {
			u.inexact = true
		}
		return u
	}
	capture := func(p **ir.Value) {
		if u := use(*p); u != nil {
			u.other, u.captured = true, true
		}
	}
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			for i, a := range v.Args {
				u := use(a)
				if u == nil {
					continue
				}
				if v.IsVolatile() {
					u.other = true
				}
				switch v.Op {
				case ir.OpPtrAdd, ir.OpField, ir.OpNonNull, ir.OpLoad, ir.OpMemZero:
				case ir.OpStore:
					if i == 1 {
						u.other, u.captured = true, true
					}
				case ir.OpMemCopy, ir.OpAtomic, ir.OpEq, ir.OpNe:
					u.other = true
					if v.Op == ir.OpAtomic && i > 0 {
						u.captured = true
					}
				case ir.OpCall:
					u.other = true
					if _, extern := v.Aux.(*ir.Extern); !extern {
						// The subprogram might return it or store it.
						u.captured = true
					}
				default:
					u.other, u.captured = true, true
				}
			}
		}
		b.Operands(capture)
	}
	return info
}

// A fact of memory: size bytes at an address hold val, or zeros.
type fact struct {
	address
	size int64
	val  *ir.Value // nil for zeros
	// found, if not nil, makes this a fact of a map instead: a key with the
	// bytes that were there then was looked up by this call.
	found *ir.Value
}

// maxFacts bounds what is remembered of memory at one place.
const maxFacts = 64

type memory struct {
	f     *ir.Func
	addrs *addressBook
	info  map[*ir.Value]*allocaUse
	keys  map[*ir.Value][]piece // by call that looks them up
}

// private reports whether root is an alloca whose address nothing else knows.
func (m *memory) private(root *ir.Value) bool {
	u := m.info[root]
	return u != nil && !u.captured
}

// mayAlias reports whether n bytes at a and k bytes at b may overlap.
func (m *memory) mayAlias(a address, n int64, b address, k int64) bool {
	if a.base == b.base {
		return a.off < b.off+k && b.off < a.off+n
	}
	if a.root != b.root {
		if m.private(a.root) || m.private(b.root) {
			return false
		}
		own := func(v *ir.Value) bool { return v.Op == ir.OpAlloca || v.Op == ir.OpGlobal }
		if own(a.root) && own(b.root) && (a.root.Op == ir.OpAlloca || b.root.Op == ir.OpAlloca || a.root.Aux != b.root.Aux) {
			return false
		}
	}
	x, y := a.root.Type.Space, b.root.Type.Space
	// Plain memory may be any: a subprogram gets it from its caller. So may be
	// what lies at an address of the kernel: that of a variable, as a number.
	return x == y || x == ir.SpaceMem || y == ir.SpaceMem ||
		x == ir.SpaceKernel && y.Writable() || y == ir.SpaceKernel && x.Writable()
}

// clobbers reports whether v may write to memory that e speaks of. What a
// volatile load reads may have been changed by something else.
func (m *memory) clobbers(v *ir.Value, e *fact) bool {
	switch v.Op {
	case ir.OpLoad:
		return v.IsVolatile() && m.mayAlias(e.address, e.size, m.addrs.of(v.Args[0]), int64(v.Type.Bytes()))
	case ir.OpStore:
		return m.mayAlias(e.address, e.size, m.addrs.of(v.Args[0]), int64(v.Args[1].Type.Bytes()))
	case ir.OpMemZero, ir.OpMemCopy:
		return m.mayAlias(e.address, e.size, m.addrs.of(v.Args[0]), v.Int)
	case ir.OpAtomic:
		return m.mayAlias(e.address, e.size, m.addrs.of(v.Args[0]), int64(v.Args[1].Type.Bytes()))
	case ir.OpCall:
		writes := v.Effects().Writes
		for _, a := range v.Args {
			if a.Type.IsPtr() && a.Type.Space == ir.SpaceFunc {
				writes = ir.AnyMemory // it calls back
			}
		}
		if writes == 0 {
			return false
		}
		if e.found != nil {
			// Values of a map change without its keys.
			return !isFill(v)
		}
		if m.private(e.root) {
			if !writes.Has(ir.SpaceStack) && !writes.Has(ir.SpaceMem) {
				return false
			}
			for _, a := range v.Args {
				if a.Type.IsPtr() && m.addrs.of(a).root == e.root {
					return true
				}
			}
			return false
		}
		space := e.root.Type.Space
		if space == ir.SpaceKernel && !writes.Has(space) {
			return slices.ContainsFunc(v.Args, func(a *ir.Value) bool {
				return a.Type.IsPtr() && a.Type.Space.Writable() && !m.private(m.addrs.of(a).root)
			})
		}
		if space == ir.SpaceMem {
			return writes&ir.Spaces(ir.SpaceMem, ir.SpaceStack, ir.SpaceMapValue, ir.SpacePacket) != 0
		}
		return writes.Has(space) || writes.Has(ir.SpaceMem) && space.Writable()
	}
	return false
}

// loads forwards stored values to loads of the same place, merges loads with
// earlier ones, folds loads of read-only variables, and drops stores of what
// is there already.
func loads(p *context) bool {
	f := p.f
	cfg := ir.NewCFG(f)
	m := &memory{f: f, addrs: addresses(f), keys: map[*ir.Value][]piece{}}
	m.info = allocaUses(f, m.addrs)
	writers := loopWriters(cfg)
	sub := ir.NewSubst(f)
	out := make([][]fact, f.NumBlocks())
	done := make([]bool, f.NumBlocks())
	changed := false
	for _, b := range cfg.RPO {
		state := m.join(cfg, b, out, done, writers)
		kept := make([]*ir.Value, 0, len(b.Values))
		for _, v := range b.Values {
			for i, a := range v.Args {
				v.Args[i] = sub.Of(a)
			}
			if v.IsVolatile() {
				state = m.kill(state, v)
				kept = append(kept, v)
				continue
			}
			switch v.Op {
			case ir.OpLoad:
				ad := m.addrs.of(v.Args[0])
				n := int64(v.Type.Bytes())
				if c, ok := readOnly(v, ad); ok {
					become(v, ir.OpConst)
					v.Int = c
					changed = true
					break
				}
				if by, zero := lookup(state, ad, n, v.Type); by != nil {
					if by.Name == "" {
						by.Name = v.Name
					}
					sub.Replace(v, by)
					changed = true
					continue
				} else if zero {
					become(v, ir.OpConst)
					changed = true
					break
				}
				state = remember(state, fact{address: ad, size: n, val: v})
			case ir.OpStore:
				ad := m.addrs.of(v.Args[0])
				x := v.Args[1]
				n := int64(x.Type.Bytes())
				by, zero := lookup(state, ad, n, x.Type)
				if c, ok := x.IsConst(); by == x || ok && c == 0 && zero || by != nil && ok && by.Op == ir.OpConst && by.Int == c {
					changed = true
					continue
				}
				state = m.kill(state, v)
				state = remember(state, fact{address: ad, size: n, val: x})
			case ir.OpMemZero:
				state = m.kill(state, v)
				state = remember(state, fact{address: m.addrs.of(v.Args[0]), size: v.Int})
			case ir.OpMemCopy, ir.OpAtomic, ir.OpCall:
				state = m.kill(state, v)
				key, ok := m.keyOf(state, v)
				if !ok {
					break
				}
				if by := m.found(state, v, key); by != nil {
					sub.Replace(v, by)
					changed = true
					continue
				}
				m.keys[v] = key
				state = remember(state, fact{address: m.addrs.of(v.Args[1]), size: keySize(v), found: v})
			}
			kept = append(kept, v)
		}
		b.Values = kept
		out[b.ID], done[b.ID] = state, true
	}
	sub.Apply(f)
	return changed
}

// join is what is known of memory where b starts.
func (m *memory) join(cfg *ir.CFG, b *ir.Block, out [][]fact, done []bool, writers map[*ir.Loop][]*ir.Value) []fact {
	var state []fact
	first, back := true, false
	for _, p := range cfg.Preds(b) {
		if !done[p.Block.ID] {
			back = true
			continue
		}
		if first {
			state, first = slices.Clone(out[p.Block.ID]), false
			continue
		}
		other := out[p.Block.ID]
		state = slices.DeleteFunc(state, func(e fact) bool { return !slices.Contains(other, e) })
	}
	if !back {
		return state
	}
	l := cfg.Loop(b)
	if l == nil || l.Header != b {
		return nil // not a natural loop
	}
	return slices.DeleteFunc(state, func(e fact) bool {
		return slices.ContainsFunc(writers[l], func(v *ir.Value) bool { return m.clobbers(v, &e) })
	})
}

// loopWriters lists what writes memory in each loop.
func loopWriters(cfg *ir.CFG) map[*ir.Loop][]*ir.Value {
	w := map[*ir.Loop][]*ir.Value{}
	for _, l := range cfg.Loops() {
		for _, b := range l.Blocks {
			for _, v := range b.Values {
				switch v.Op {
				case ir.OpLoad:
					if v.IsVolatile() {
						w[l] = append(w[l], v)
					}
				case ir.OpStore, ir.OpMemZero, ir.OpMemCopy, ir.OpAtomic, ir.OpCall:
					w[l] = append(w[l], v)
				}
			}
		}
	}
	return w
}

func lookup(state []fact, ad address, n int64, t ir.Type) (val *ir.Value, zero bool) {
	for _, e := range slices.Backward(state) {
		if e.base != ad.base || e.found != nil {
			continue
		}
		if e.val != nil && e.off == ad.off && e.size == n && (e.val.Type == t || t.IsPtr() && ir.Assignable(e.val.Type, t)) {
			return e.val, false
		}
		if e.val == nil && t.IsInt() && e.off <= ad.off && ad.off+n <= e.off+e.size {
			return nil, true
		}
	}
	return nil, false
}

func remember(state []fact, e fact) []fact {
	if len(state) >= maxFacts {
		state = slices.Delete(state, 0, 1)
	}
	return append(state, e)
}

// kill drops what v may have changed from state.
func (m *memory) kill(state []fact, v *ir.Value) []fact {
	if !slices.ContainsFunc(state, func(e fact) bool { return m.clobbers(v, &e) }) {
		return state
	}
	out := make([]fact, 0, len(state)+1)
	for _, e := range state {
		if !m.clobbers(v, &e) {
			out = append(out, e)
			continue
		}
		if e.val != nil || e.found != nil || v.Op != ir.OpStore {
			continue
		}
		// A store into zeroed memory leaves zeros on both sides.
		ad := m.addrs.of(v.Args[0])
		if ad.base != e.base {
			continue
		}
		end := ad.off + int64(v.Args[1].Type.Bytes())
		if n := ad.off - e.off; n > 0 {
			out = append(out, fact{address: e.address, size: n})
		}
		if n := e.off + e.size - end; n > 0 {
			e.off, e.size = end, n
			out = append(out, e)
		}
	}
	return out
}

// readOnly is the value of a load from a variable that never changes.
func readOnly(v *ir.Value, ad address) (int64, bool) {
	g, ok := ad.base.Aux.(*ir.Global)
	if !ok || ad.base.Op != ir.OpGlobal || g.Volatile || !strings.HasPrefix(g.Section, ".rodata") || !v.Type.IsInt() {
		return 0, false
	}
	n := int64(v.Type.Bytes())
	if ad.off < 0 || ad.off+n > int64(len(g.Init)) {
		return 0, false
	}
	var x int64
	for i := range n {
		x |= int64(g.Init[ad.off+i]) << (8 * i)
	}
	return ir.Truncate(x, v.Type), true
}

// A bitset is a set of small numbers.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (s bitset) set(from, to int, on bool) {
	for i := from; i < to; i++ {
		if on {
			s[i/64] |= 1 << (i % 64)
		} else {
			s[i/64] &^= 1 << (i % 64)
		}
	}
}

func (s bitset) any(from, to int) bool {
	for i := from; i < to; {
		if i%64 == 0 && s[i/64] == 0 {
			i += 64
			continue
		}
		if s[i/64]&(1<<(i%64)) != 0 {
			return true
		}
		i++
	}
	return false
}

// merge adds t to s and reports whether that changed s.
func (s bitset) merge(t bitset) bool {
	grown := 0
	for i, w := range t {
		grown += bits.OnesCount64(w &^ s[i])
		s[i] |= w
	}
	return grown > 0
}

// maxDeadStoreBytes bounds how much of the frame deadStores looks at.
const maxDeadStoreBytes = 4096

// deadStores drops writes to the frame that nothing reads before they are
// overwritten or the function returns.
func deadStores(p *context) bool {
	f := p.f
	d := &deadStore{addrs: addresses(f), at: map[*ir.Value]int{}}
	d.uses = ir.UseCounts(f)
	info := allocaUses(f, d.addrs)
	for _, v := range f.Entry().Values {
		if u := info[v]; u != nil && !u.captured && d.total+int(v.Int) <= maxDeadStoreBytes {
			d.at[v] = d.total
			d.total += int(v.Int)
		}
	}
	if d.total == 0 {
		return false
	}
	cfg := ir.NewCFG(f)
	in := make([]bitset, f.NumBlocks())
	for i := range in {
		in[i] = newBitset(d.total)
	}
	liveOut := func(b *ir.Block) bitset {
		live := newBitset(d.total)
		for _, e := range b.Succs {
			live.merge(in[e.To.ID])
		}
		return live
	}
	for again := true; again; {
		again = false
		for _, b := range slices.Backward(cfg.RPO) {
			live := liveOut(b)
			for _, v := range slices.Backward(b.Values) {
				d.step(v, live)
			}
			again = in[b.ID].merge(live) || again
		}
	}
	changed := false
	for _, b := range cfg.RPO {
		live := liveOut(b)
		kept := make([]*ir.Value, 0, len(b.Values))
		for _, v := range slices.Backward(b.Values) {
			if d.step(v, live) {
				changed = true
				continue
			}
			kept = append(kept, v)
		}
		slices.Reverse(kept)
		b.Values = kept
	}
	return changed
}

type deadStore struct {
	addrs *addressBook
	at    map[*ir.Value]int // where the bytes of an alloca start in the sets
	total int
	uses  []int32
}

// bytes is the range of n bytes at p, n negative for all. exact tells whether
// it is just these.
func (d *deadStore) bytes(p *ir.Value, n int64) (from, to int, exact, ok bool) {
	if !p.Type.IsPtr() {
		return 0, 0, false, false
	}
	ad := d.addrs.of(p)
	start, ok := d.at[ad.root]
	if !ok {
		return 0, 0, false, false
	}
	if ad.base != ad.root || n < 0 || ad.off < 0 || ad.off+n > ad.root.Int {
		return start, start + int(ad.root.Int), false, true
	}
	return start + int(ad.off), start + int(ad.off+n), true, true
}

// step goes backwards over v: live becomes what is read from before v on.
// It reports whether v writes only what nobody reads.
func (d *deadStore) step(v *ir.Value, live bitset) (dead bool) {
	read := func(p *ir.Value, n int64) {
		if from, to, _, ok := d.bytes(p, n); ok {
			live.set(from, to, true)
		}
	}
	switch v.Op {
	case ir.OpLoad:
		read(v.Args[0], int64(v.Type.Bytes()))
	case ir.OpStore, ir.OpMemZero, ir.OpMemCopy:
		n := v.Int
		if v.Op == ir.OpStore {
			n = int64(v.Args[1].Type.Bytes())
		}
		if from, to, exact, ok := d.bytes(v.Args[0], n); ok {
			if !live.any(from, to) && d.uses[v.ID] == 0 && !v.IsVolatile() {
				return true
			}
			if exact {
				live.set(from, to, false)
			}
		}
		if v.Op == ir.OpMemCopy {
			read(v.Args[1], v.Int)
		}
	case ir.OpAtomic:
		read(v.Args[0], int64(v.Args[1].Type.Bytes()))
	case ir.OpCall:
		for _, a := range v.Args {
			read(a, -1)
		}
	}
	return false
}
