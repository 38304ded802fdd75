package opt

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// A slot is a part of an alloca that is only ever read and written as a
// whole, with one type: it can be a value instead of memory.
type slot struct {
	off, size int64
	typ       ir.Type
	bad       bool // overlaps with another access, or has several types
	index     int
	name      string // of the alloca

	defs []*ir.Block
	live []bool // by Block.ID: read on some way from the start of the block
	ups  []*ir.Block
	phi  map[*ir.Block]int // the index of the parameter made for it
}

// access is one operation on an alloca.
type access struct {
	off, size int64
	typ       ir.Type
	zero      bool // memzero
}

// promote makes values of the parts of allocas whose address goes nowhere but
// into loads and stores.
func promote(p *context) bool {
	f := p.f
	cfg := ir.NewCFG(f)
	addrs := addresses(f)
	slots := make(map[*ir.Value][]*slot)
	at := make(map[*ir.Value]access) // by load, store, memzero
	var list []*slot

	info := allocaUses(f, addrs)
	for _, a := range f.Entry().Values {
		if a.Op == ir.OpAlloca && !info[a].other && !info[a].inexact {
			slots[a] = nil
		}
	}
	if len(slots) == 0 {
		return false
	}
	for _, b := range cfg.RPO {
		for _, v := range b.Values {
			if v.Op != ir.OpLoad && v.Op != ir.OpStore && v.Op != ir.OpMemZero {
				continue
			}
			ad := addrs.of(v.Args[0])
			if _, ok := slots[ad.root]; !ok {
				continue
			}
			acc := access{off: ad.off, typ: v.Type}
			switch v.Op {
			case ir.OpStore:
				acc.typ = v.Args[1].Type
			case ir.OpMemZero:
				acc.zero, acc.size = true, v.Int
				at[v] = acc
				continue
			}
			acc.size = int64(acc.typ.Bytes())
			at[v] = acc
			slots[ad.root] = addSlot(slots[ad.root], acc)
		}
	}
	// A memzero has to cover a slot wholly or not at all.
	for v, acc := range at {
		if !acc.zero {
			continue
		}
		for _, s := range slots[addrs.of(v.Args[0]).root] {
			overlaps := acc.off < s.off+s.size && s.off < acc.off+acc.size
			covers := acc.off <= s.off && s.off+s.size <= acc.off+acc.size
			if overlaps && !covers {
				s.bad = true
			}
		}
	}
	for _, a := range f.Entry().Values {
		for _, s := range slots[a] {
			if !s.bad {
				s.index, s.name = len(list), a.Name
				list = append(list, s)
			}
		}
	}
	if len(list) == 0 {
		return false
	}
	find := func(v *ir.Value) []*slot {
		acc, ok := at[v]
		if !ok {
			return nil
		}
		var out []*slot
		for _, s := range slots[addrs.of(v.Args[0]).root] {
			if !s.bad && acc.off <= s.off && s.off+s.size <= acc.off+acc.size {
				out = append(out, s)
			}
		}
		return out
	}
	pr := &promoter{f: f, cfg: cfg, find: find, list: list}
	return pr.run()
}

// never0 reports whether the slot holds a pointer that cannot be null: there
// is no zero for it.
func (s *slot) never0() bool { return s.typ.IsPtr() && !s.typ.Nullable }

func addSlot(list []*slot, acc access) []*slot {
	fresh := &slot{off: acc.off, size: acc.size, typ: acc.typ}
	for _, s := range list {
		if s.off == acc.off && s.size == acc.size {
			if s.typ != acc.typ {
				s.bad = true
			}
			fresh = nil
		} else if acc.off < s.off+s.size && s.off < acc.off+acc.size {
			s.bad = true
			if fresh != nil {
				fresh.bad = true
			}
		}
	}
	if fresh != nil {
		list = append(list, fresh)
	}
	return list
}

type promoter struct {
	f    *ir.Func
	cfg  *ir.CFG
	find func(*ir.Value) []*slot
	list []*slot
}

func (p *promoter) run() bool {
	// Where slots are written, and where read before that.
	killed := make([]*ir.Block, len(p.list))
	for _, b := range p.cfg.RPO {
		for _, v := range b.Values {
			for _, s := range p.find(v) {
				switch {
				case v.Op == ir.OpLoad:
					if killed[s.index] != b {
						s.ups = append(s.ups, b)
					}
				case v.Op == ir.OpMemZero && s.never0():
				case killed[s.index] != b:
					killed[s.index] = b
					s.defs = append(s.defs, b)
				}
			}
		}
	}
	frontiers := p.cfg.Frontiers()
	entry := p.f.Entry()
	ok := make([]bool, len(p.list))
	some := false
	for _, s := range p.list {
		p.liveness(s)
		// Memory that was never written reads as anything; a pointer that may
		// be anything there is none.
		if s.live[entry.ID] && s.never0() {
			continue
		}
		ok[s.index], some = true, true
		s.phi = map[*ir.Block]int{}
		work := slices.Clone(s.defs)
		for len(work) > 0 {
			b := work[len(work)-1]
			work = work[:len(work)-1]
			for _, d := range frontiers[b.ID] {
				if _, has := s.phi[d]; has || !s.live[d.ID] {
					continue
				}
				s.phi[d] = len(d.Params)
				d.NewParam(s.typ, s.name)
				for _, pred := range p.cfg.Preds(d) {
					e := pred.Edge()
					e.Args = append(e.Args, nil)
				}
				work = append(work, d)
			}
		}
	}
	if !some {
		return false
	}
	p.rename(ok)
	return true
}

func (p *promoter) liveness(s *slot) {
	s.live = make([]bool, p.f.NumBlocks())
	writes := make(map[*ir.Block]bool, len(s.defs))
	for _, b := range s.defs {
		writes[b] = true
	}
	work := slices.Clone(s.ups)
	for _, b := range work {
		s.live[b.ID] = true
	}
	for len(work) > 0 {
		b := work[len(work)-1]
		work = work[:len(work)-1]
		for _, pred := range p.cfg.Preds(b) {
			if !s.live[pred.Block.ID] && !writes[pred.Block] {
				s.live[pred.Block.ID] = true
				work = append(work, pred.Block)
			}
		}
	}
}

func (p *promoter) rename(ok []bool) {
	sub := ir.NewSubst(p.f)
	cur := make([]*ir.Value, len(p.list))
	type undo struct {
		index int
		was   *ir.Value
	}
	var log []undo
	set := func(i int, v *ir.Value) {
		log = append(log, undo{i, cur[i]})
		cur[i] = v
	}
	// Constants for zeros and for what was never written, by type, in the entry.
	zeros := map[ir.Type]*ir.Value{}
	zero := func(t ir.Type) *ir.Value {
		z := zeros[t]
		if z == nil {
			z = p.f.NewConst(t, 0, p.f.Pos)
			zeros[t] = z
		}
		return z
	}
	get := func(s *slot) *ir.Value {
		if cur[s.index] == nil {
			return zero(s.typ)
		}
		return cur[s.index]
	}
	var marks []int
	p.cfg.WalkDom(func(b *ir.Block) {
		marks = append(marks, len(log))
		for _, s := range p.list {
			if i, has := s.phi[b]; has {
				set(s.index, b.Params[i])
			}
		}
		kept := b.Values[:0]
		for _, v := range b.Values {
			drop := false
			for _, s := range p.find(v) {
				if !ok[s.index] {
					continue
				}
				switch v.Op {
				case ir.OpLoad:
					by := get(s)
					if by.Name == "" {
						by.Name = v.Name
					}
					sub.Replace(v, by)
					drop = true
				case ir.OpStore:
					if v.Args[1].Name == "" {
						v.Args[1].Name = s.name
					}
					set(s.index, v.Args[1])
					drop = true
				default:
					// A memzero may clear more than this; when it does not,
					// it is a store that nobody reads.
					if !s.never0() {
						set(s.index, zero(s.typ))
					}
				}
			}
			if !drop {
				kept = append(kept, v)
			}
		}
		clear(b.Values[len(kept):])
		b.Values = kept
		for si := range b.Succs {
			e := &b.Succs[si]
			for _, s := range p.list {
				if i, has := s.phi[e.To]; has {
					e.Args[i] = get(s)
				}
			}
		}
	}, func(*ir.Block) {
		mark := marks[len(marks)-1]
		marks = marks[:len(marks)-1]
		for len(log) > mark {
			u := log[len(log)-1]
			log = log[:len(log)-1]
			cur[u.index] = u.was
		}
	})
	entry := p.f.Entry()
	at := 0
	for at < len(entry.Values) && entry.Values[at].Op == ir.OpAlloca {
		at++
	}
	made := make([]*ir.Value, 0, len(zeros))
	for _, z := range zeros {
		z.Block = entry
		made = append(made, z)
	}
	slices.SortFunc(made, func(a, b *ir.Value) int { return int(a.ID - b.ID) })
	entry.Values = slices.Insert(entry.Values, at, made...)
	sub.Apply(p.f)
}
