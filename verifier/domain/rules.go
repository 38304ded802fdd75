package domain

import "math"

// Rules are those by which a kernel computes: an older one finds out less, and
// refuses what the next one takes.
type Rules uint8

// The kernels whose arithmetic differs. The methods of [Scalar] are those of
// Linux 6.18.
const (
	Linux6_18 Rules = iota
	Linux6_12
	Linux6_1
)

// Sync is [Scalar.Sync].
func (r Rules) Sync(s *Scalar) {
	if r != Linux6_1 {
		s.Sync()
		return
	}
	s.UpdateRanges()
	s.learnSign32()
	s.learnSign64()
	b := s.Bits.Intersect(RangeTnum(s.UMin, s.UMax))
	s.Bits = b.WithLow32(b.Low32().Intersect(RangeTnum(uint64(s.U32Min), uint64(s.U32Max))))
	s.UpdateRanges()
}

// learnSign32 is what Linux 6.1 deduces from signed and unsigned ranges
// (__reg32_deduce_bounds): they are one where neither crosses the signs.
func (s *Scalar) learnSign32() {
	switch {
	case s.S32Min >= 0 || s.S32Max < 0:
		s.U32Min, s.U32Max = max(uint32(s.S32Min), s.U32Min), min(uint32(s.S32Max), s.U32Max)
		s.S32Min, s.S32Max = int32(s.U32Min), int32(s.U32Max)
	case int32(s.U32Max) >= 0:
		s.S32Min = int32(s.U32Min)
		s.U32Max = min(uint32(s.S32Max), s.U32Max)
		s.S32Max = int32(s.U32Max)
	case int32(s.U32Min) < 0:
		s.U32Min = max(uint32(s.S32Min), s.U32Min)
		s.S32Min = int32(s.U32Min)
		s.S32Max = int32(s.U32Max)
	}
}

// learnSign64 is learnSign32 for all bits.
func (s *Scalar) learnSign64() {
	switch {
	case s.SMin >= 0 || s.SMax < 0:
		s.UMin, s.UMax = max(uint64(s.SMin), s.UMin), min(uint64(s.SMax), s.UMax)
		s.SMin, s.SMax = int64(s.UMin), int64(s.UMax)
	case int64(s.UMax) >= 0:
		s.SMin = int64(s.UMin)
		s.UMax = min(uint64(s.SMax), s.UMax)
		s.SMax = int64(s.UMax)
	case int64(s.UMin) < 0:
		s.UMin = max(uint64(s.SMin), s.UMin)
		s.SMin = int64(s.UMin)
		s.SMax = int64(s.UMax)
	}
}

// Truncate is [Scalar.Truncate].
func (r Rules) Truncate(s *Scalar, size int) {
	if r != Linux6_1 || size >= 8 {
		s.Truncate(size)
		return
	}
	s.cut(size)
	if size < 4 {
		s.narrow()
	}
}

// narrow takes the ranges of the lower half from those of the whole, where they
// fit (__reg_combine_64_into_32 of Linux 6.1).
func (s *Scalar) narrow() {
	s.forget32()
	fits := func(v int64) bool { return v == int64(int32(v)) }
	if fits(s.SMin) && fits(s.SMax) {
		s.S32Min, s.S32Max = int32(s.SMin), int32(s.SMax)
	}
	if s.UMin <= math.MaxUint32 && s.UMax <= math.MaxUint32 {
		s.U32Min, s.U32Max = uint32(s.UMin), uint32(s.UMax)
	}
	Linux6_1.Sync(s)
}

// widen is the reverse of narrow: what is known of the lower half holds for the
// whole where the upper one is 0 (__reg_combine_32_into_64).
func (s *Scalar) widen() {
	if b := s.Bits; (b.Value|b.Mask)>>32 == 0 {
		s.UMin, s.UMax = uint64(s.U32Min), uint64(s.U32Max)
		s.SMin, s.SMax = 0, math.MaxUint32
		if s.S32Min >= 0 && s.S32Max >= 0 {
			s.SMin, s.SMax = int64(s.S32Min), int64(s.S32Max)
		}
	} else {
		s.forget64()
	}
	Linux6_1.Sync(s)
}

// Add is s + o.
func (r Rules) Add(s, o *Scalar) {
	lo32, hi32, lo, hi := s.U32Min, s.U32Max, s.UMin, s.UMax
	s.Add(o)
	if r == Linux6_18 {
		return
	}
	// A range whose ends both wrap is forgotten.
	if lo32+o.U32Min < lo32 || hi32+o.U32Max < hi32 {
		s.U32Min, s.U32Max = 0, math.MaxUint32
	}
	if lo+o.UMin < lo || hi+o.UMax < hi {
		s.UMin, s.UMax = 0, math.MaxUint64
	}
}

// Sub is s - o.
func (r Rules) Sub(s, o *Scalar) {
	under32, under := s.U32Min < o.U32Max, s.UMin < o.UMax
	s.Sub(o)
	if r == Linux6_18 {
		return
	}
	if under32 {
		s.U32Min, s.U32Max = 0, math.MaxUint32
	}
	if under {
		s.UMin, s.UMax = 0, math.MaxUint64
	}
}

// Mul is s * o.
func (r Rules) Mul(s, o *Scalar) {
	if r == Linux6_18 {
		s.Mul(o)
		return
	}
	s.Bits = s.Bits.mulOlder(o.Bits)
	if o.S32Min < 0 || s.S32Min < 0 || o.U32Max > math.MaxUint16 || s.U32Max > math.MaxUint16 {
		s.forget32()
	} else {
		s.U32Min *= o.U32Min
		s.U32Max *= o.U32Max
		s.S32Min, s.S32Max = int32(s.U32Min), int32(s.U32Max)
		if s.U32Max > math.MaxInt32 {
			s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
		}
	}
	if o.SMin < 0 || s.SMin < 0 || o.UMax > math.MaxUint32 || s.UMax > math.MaxUint32 {
		s.forget64()
		return
	}
	s.UMin *= o.UMin
	s.UMax *= o.UMax
	s.SMin, s.SMax = int64(s.UMin), int64(s.UMax)
	if s.UMax > math.MaxInt64 {
		s.SMin, s.SMax = math.MinInt64, math.MaxInt64
	}
}

// mulOlder is t * u before Linux 6.18: an unknown bit of t leaves every bit of u
// that may be set unknown.
func (t Tnum) mulOlder(u Tnum) Tnum {
	value := t.Value * u.Value
	var acc Tnum
	for t.Value|t.Mask != 0 {
		switch {
		case t.Value&1 != 0:
			acc = acc.Add(Tnum{Mask: u.Mask})
		case t.Mask&1 != 0:
			acc = acc.Add(Tnum{Mask: u.Value | u.Mask})
		}
		t, u = t.Rsh(1), u.Lsh(1)
	}
	return ConstTnum(value).Add(acc)
}

// And is s & o.
func (r Rules) And(s, o *Scalar) {
	before := *s
	s.And(o)
	r.forgetSigns(s, &before, o)
}

// Or is s | o.
func (r Rules) Or(s, o *Scalar) {
	before := *s
	s.Or(o)
	r.forgetSigns(s, &before, o)
}

// Xor is s ^ o.
func (r Rules) Xor(s, o *Scalar) {
	before := *s
	s.Xor(o)
	r.forgetSigns(s, &before, o)
}

// forgetSigns is for the result s of a bitwise operation: Linux 6.1 knows a
// signed range of it only where neither operand is negative.
func (r Rules) forgetSigns(s, a, b *Scalar) {
	if r != Linux6_1 {
		return
	}
	if !(s.IsConst32() && b.IsConst32()) && (a.S32Min < 0 || b.S32Min < 0) {
		s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
	}
	if !(s.IsConst() && b.IsConst()) && (a.SMin < 0 || b.SMin < 0) {
		s.SMin, s.SMax = math.MinInt64, math.MaxInt64
	}
	s.UpdateRanges()
}

// Compare is the function of that name. Linux 6.1 decides by constants only.
func (r Rules) Compare(c Cond, s, o *Scalar, only32 bool) Truth {
	if r != Linux6_1 {
		return Compare(c, s, o, only32)
	}
	if !o.isConst(only32) {
		return Maybe
	}
	if c == EQ || c == NE {
		b, v := s.Bits, o.Bits.Value
		if only32 {
			b, v = b.Low32(), uint64(uint32(v))
		}
		switch {
		case !b.IsConst():
			return Maybe
		case (b.Value == v) == (c == EQ):
			return Always
		}
		return Never
	}
	k := Const(o.Bits.Value)
	return Compare(c, s, &k, only32)
}

// Assume is the function of that name. Linux 6.1 learns from comparisons with
// constants, and from equality of whole numbers.
func (r Rules) Assume(c Cond, s, o *Scalar, only32 bool) {
	if r != Linux6_1 {
		Assume(c, s, o, only32)
		return
	}
	constant := func(x *Scalar) bool { return x.IsConst() || only32 && x.IsConst32() }
	switch {
	case constant(o):
		s.assumeConst(c, o.Bits.Value, only32)
	case constant(s):
		o.assumeConst(c.Swap(), s.Bits.Value, only32)
	case !only32 && c == EQ:
		s.meetU64(o.UMin, o.UMax)
		s.meetS64(o.SMin, o.SMax)
		s.Bits = s.Bits.Intersect(o.Bits)
		o.UMin, o.UMax, o.SMin, o.SMax, o.Bits = s.UMin, s.UMax, s.SMin, s.SMax, s.Bits
		r.Sync(s)
		r.Sync(o)
	}
}

// assumeConst narrows s by a comparison with a constant (reg_set_min_max of
// Linux 6.1).
func (s *Scalar) assumeConst(c Cond, v uint64, only32 bool) {
	k := Const(v)
	switch c {
	case EQ:
		if only32 {
			s.setConst32(uint32(v))
		} else {
			*s = k
		}
	case NE:
	case GT, GE, SGT, SGE:
		other := k
		assume(c, s, &other, only32)
	default:
		assume(c, s, &k, only32)
	}
	if only32 {
		s.widen()
	} else {
		s.narrow()
	}
}
