package domain

import (
	"fmt"
	"math/bits"
)

// A Tnum (tristate number) says of each of 64 bits whether it is 0, 1 or
// unknown: bits set in Mask are unknown, the others are those of Value. Value
// and Mask have no bit in common, save in the empty set that [Tnum.Intersect]
// makes of a contradiction.
type Tnum struct{ Value, Mask uint64 }

// AnyTnum is the tnum of every number.
var AnyTnum = Tnum{Mask: ^uint64(0)}

// ConstTnum is the tnum of v alone.
func ConstTnum(v uint64) Tnum { return Tnum{Value: v} }

// RangeTnum is the least tnum that holds all numbers from lo to hi.
func RangeTnum(lo, hi uint64) Tnum {
	n := bits.Len64(lo ^ hi)
	if n > 63 {
		return AnyTnum
	}
	mask := uint64(1)<<n - 1
	return Tnum{lo &^ mask, mask}
}

// IsConst reports whether t holds one number only.
func (t Tnum) IsConst() bool { return t.Mask == 0 }

// Contains reports whether v may be what t stands for.
func (t Tnum) Contains(v uint64) bool { return v&^t.Mask == t.Value }

// In reports whether every number of t is one of u.
func (t Tnum) In(u Tnum) bool { return t.Mask&^u.Mask == 0 && t.Value&^u.Mask == u.Value }

// Overlaps reports whether t and u may have a number in common.
func (t Tnum) Overlaps(u Tnum) bool {
	known := ^t.Mask & ^u.Mask
	return t.Value&known == u.Value&known
}

// Min returns the smallest number of t, unsigned.
func (t Tnum) Min() uint64 { return t.Value }

// Max returns the largest number of t, unsigned.
func (t Tnum) Max() uint64 { return t.Value | t.Mask }

// Add is t + u.
func (t Tnum) Add(u Tnum) Tnum {
	sm, sv := t.Mask+u.Mask, t.Value+u.Value
	mu := (sm + sv ^ sv) | t.Mask | u.Mask
	return Tnum{sv &^ mu, mu}
}

// Sub is t - u.
func (t Tnum) Sub(u Tnum) Tnum {
	dv := t.Value - u.Value
	mu := (dv + t.Mask ^ (dv - u.Mask)) | t.Mask | u.Mask
	return Tnum{dv &^ mu, mu}
}

// Neg is -t.
func (t Tnum) Neg() Tnum { return Tnum{}.Sub(t) }

// And is t & u.
func (t Tnum) And(u Tnum) Tnum {
	v := t.Value & u.Value
	return Tnum{v, (t.Value | t.Mask) & (u.Value | u.Mask) &^ v}
}

// Or is t | u.
func (t Tnum) Or(u Tnum) Tnum {
	v := t.Value | u.Value
	return Tnum{v, (t.Mask | u.Mask) &^ v}
}

// Xor is t ^ u.
func (t Tnum) Xor(u Tnum) Tnum {
	mu := t.Mask | u.Mask
	return Tnum{(t.Value ^ u.Value) &^ mu, mu}
}

// Mul is t * u, by long multiplication: a bit of t that is unknown adds u or
// nothing, and what holds of both sums is kept (Linux 6.18).
func (t Tnum) Mul(u Tnum) Tnum {
	var acc Tnum
	for t.Value|t.Mask != 0 {
		switch {
		case t.Value&1 != 0:
			acc = acc.Add(u)
		case t.Mask&1 != 0:
			acc = acc.Union(acc.Add(u))
		}
		t, u = t.Rsh(1), u.Lsh(1)
	}
	return acc
}

// Lsh is t << n.
func (t Tnum) Lsh(n uint) Tnum { return Tnum{t.Value << n, t.Mask << n} }

// Rsh is t >> n, logical.
func (t Tnum) Rsh(n uint) Tnum { return Tnum{t.Value >> n, t.Mask >> n} }

// Arsh is t >> n, arithmetic. With 32 for width it takes and gives 32 bits.
func (t Tnum) Arsh(n uint, width int) Tnum {
	if width == 32 {
		return Tnum{uint64(uint32(int32(t.Value) >> n)), uint64(uint32(int32(t.Mask) >> n))}
	}
	return Tnum{uint64(int64(t.Value) >> n), uint64(int64(t.Mask) >> n)}
}

// Union is the least tnum that holds t and u.
func (t Tnum) Union(u Tnum) Tnum {
	mu := (t.Value ^ u.Value) | t.Mask | u.Mask
	return Tnum{t.Value & u.Value &^ mu, mu}
}

// Intersect is what holds of a number that is in t and in u. If there is none
// the result means nothing, but stays well-formed.
func (t Tnum) Intersect(u Tnum) Tnum {
	mu := t.Mask & u.Mask
	return Tnum{(t.Value | u.Value) &^ mu, mu}
}

// Cast is t cut to its low size bytes and zero-extended.
func (t Tnum) Cast(size int) Tnum {
	if size >= 8 {
		return t
	}
	m := uint64(1)<<(8*size) - 1
	return Tnum{t.Value & m, t.Mask & m}
}

// Low32 is the lower half of t.
func (t Tnum) Low32() Tnum { return t.Cast(4) }

// WithLow32 is t with its lower half replaced by that of u.
func (t Tnum) WithLow32(u Tnum) Tnum {
	u = u.Low32()
	return Tnum{t.Value&^0xffffffff | u.Value, t.Mask&^0xffffffff | u.Mask}
}

// Aligned reports whether every number of t is a multiple of size, a power of
// two.
func (t Tnum) Aligned(size uint64) bool { return (t.Value|t.Mask)&(size-1) == 0 }

// String is (value; mask) as the kernel's log has it.
func (t Tnum) String() string { return fmt.Sprintf("(%#x; %#x)", t.Value, t.Mask) }
