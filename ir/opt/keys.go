package opt

import (
	"slices"

	"github.com/skep-bpf/skep/ir"
)

// A piece is a part of a key: size bytes that hold val, or zeros.
type piece struct {
	size int64
	val  *ir.Value
}

// keySize is the size of the key that v looks up in a map, 0 when it does not.
func keySize(v *ir.Value) int64 {
	e, ok := v.Aux.(*ir.Extern)
	if !ok || v.Op != ir.OpCall || !e.Effect.Finds || len(v.Args) < 2 || v.Args[0].Op != ir.OpMap {
		return 0
	}
	return int64(v.Args[0].Aux.(*ir.Map).KeySize)
}

// keyOf is the key that v looks up, if all of its bytes are known.
func (m *memory) keyOf(state []fact, v *ir.Value) ([]piece, bool) {
	size := keySize(v)
	if size == 0 {
		return nil, false
	}
	ad := m.addrs.of(v.Args[1])
	var key []piece
	for at := int64(0); at < size; {
		i := slices.IndexFunc(state, func(e fact) bool {
			return e.found == nil && e.base == ad.base && e.off <= ad.off+at && ad.off+at < e.off+e.size && (e.val == nil || e.off == ad.off+at)
		})
		if i < 0 {
			return nil, false
		}
		e := state[i]
		n := min(e.off+e.size-ad.off-at, size-at)
		if e.val != nil && n < e.size {
			return nil, false
		}
		at += n
		if k := len(key); k > 0 && e.val == nil && key[k-1].val == nil {
			key[k-1].size += n
			continue
		}
		key = append(key, piece{n, e.val})
	}
	return key, true
}

// found is a call that looked up the same key in the same map, of which
// nothing has been changed since.
func (m *memory) found(state []fact, v *ir.Value, key []piece) *ir.Value {
	for _, e := range state {
		c := e.found
		if c == nil || c.Aux != v.Aux || c.Args[0].Aux != v.Args[0].Aux || !slices.Equal(c.Args[2:], v.Args[2:]) {
			continue
		}
		if slices.EqualFunc(m.keys[c], key, func(x, y piece) bool {
			return x.size == y.size && (x.val == y.val || x.val != nil && y.val != nil && equalValues(x.val, y.val))
		}) {
			return c
		}
	}
	return nil
}
