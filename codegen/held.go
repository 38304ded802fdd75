package codegen

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// The helpers whose result the program has to give back before it ends, and
// those that take it (acquire_release in kernel/bpf/verifier.c).
var (
	acquiring = []int32{84, 85, 99, 131, 194} // sk_lookup_tcp, sk_lookup_udp, skc_lookup_tcp, ringbuf_reserve, kptr_xchg
	releasing = []int32{86, 132, 133, 194}    // sk_release, ringbuf_submit, ringbuf_discard, kptr_xchg
)

func callsHelper(v *ir.Value, ids []int32) bool {
	e, ok := v.Aux.(*ir.Extern)
	return ok && v.Op == ir.OpCall && e.Kind == ir.ExternHelper && slices.Contains(ids, e.ID)
}

// free moves a place at which the program may end to where it holds nothing
// that it must give back first: before what it holds there was acquired.
func (s *scratcher) free(cfg *ir.CFG, at *ir.Block, index int) (*ir.Block, int) {
	for moved := true; moved; {
		moved = false
		for _, b := range cfg.RPO {
			for i, v := range b.Values {
				if !callsHelper(v, acquiring) || b == at && i >= index || !held(v, b, i, at, index) {
					continue
				}
				if cfg.Dominates(b, at) {
					at, index = b, i
				} else {
					at, index = s.f.Entry(), s.allocas(s.f.Entry())
				}
				moved = true
			}
		}
	}
	return at, index
}

// held reports whether what v acquired, value i of block from, may not be
// given back yet before value index of block at.
func held(v *ir.Value, from *ir.Block, i int, at *ir.Block, index int) bool {
	seen := map[*ir.Block]bool{}
	var walk func(b *ir.Block, i int) bool
	walk = func(b *ir.Block, i int) bool {
		for ; i < len(b.Values); i++ {
			if b == at && i == index {
				return true
			}
			if callsHelper(b.Values[i], releasing) {
				return false
			}
		}
		if b == at && index >= len(b.Values) {
			return true
		}
		for n, e := range b.Succs {
			if c := b.Cond; c != nil && c.Op.IsCompare() && slices.Contains(c.Args, v) {
				// Where it is null nothing was acquired.
				if c.Op == ir.OpNe && n == 1 || c.Op == ir.OpEq && n == 0 {
					continue
				}
			}
			if !seen[e.To] {
				seen[e.To] = true
				if walk(e.To, 0) {
					return true
				}
			}
		}
		return false
	}
	return walk(from, i+1)
}
