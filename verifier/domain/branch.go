package domain

import "math/bits"

// A Cond is a comparison of two numbers.
type Cond uint8

// The comparisons, unsigned unless they begin with S. NotSet is what holds
// where Set does not; no instruction has it.
const (
	EQ Cond = iota
	NE
	GT
	GE
	LT
	LE
	SGT
	SGE
	SLT
	SLE
	Set // s & o is not 0
	NotSet
)

// Swap is the comparison that holds of o and s where c holds of s and o.
func (c Cond) Swap() Cond {
	return [...]Cond{EQ, NE, LT, LE, GT, GE, SLT, SLE, SGT, SGE, Set, NotSet}[c]
}

// Not is the comparison that holds where c does not.
func (c Cond) Not() Cond {
	return [...]Cond{NE, EQ, LE, LT, GE, GT, SLE, SLT, SGE, SGT, NotSet, Set}[c]
}

// A Truth is what is known of a comparison.
type Truth int8

// The truths.
const (
	Maybe Truth = iota - 1
	Never
	Always
)

// Compare says what is known of "s cond o", of all 64 bits or of the lower 32
// (is_scalar_branch_taken). It does not take NotSet.
func Compare(c Cond, s, o *Scalar, only32 bool) Truth {
	b1, b2 := s.Bits, o.Bits
	ulo1, uhi1, slo1, shi1 := s.UMin, s.UMax, s.SMin, s.SMax
	ulo2, uhi2, slo2, shi2 := o.UMin, o.UMax, o.SMin, o.SMax
	if only32 {
		b1, b2 = b1.Low32(), b2.Low32()
		ulo1, uhi1, slo1, shi1 = uint64(s.U32Min), uint64(s.U32Max), int64(s.S32Min), int64(s.S32Max)
		ulo2, uhi2, slo2, shi2 = uint64(o.U32Min), uint64(o.U32Max), int64(o.S32Min), int64(o.S32Max)
	}
	decide := func(always, never bool) Truth {
		switch {
		case always:
			return Always
		case never:
			return Never
		}
		return Maybe
	}
	switch c {
	case EQ, NE:
		t := Maybe
		switch {
		case b1.IsConst() && b2.IsConst():
			t = decide(b1.Value == b2.Value, b1.Value != b2.Value)
		case !b1.Overlaps(b2), ulo1 > uhi2, uhi1 < ulo2, slo1 > shi2, shi1 < slo2:
			t = Never
		case !only32 && (s.U32Min > o.U32Max || s.U32Max < o.U32Min || s.S32Min > o.S32Max || s.S32Max < o.S32Min):
			t = Never
		}
		if c == NE && t != Maybe {
			t = 1 - t
		}
		return t
	case Set:
		if !b2.IsConst() {
			b1, b2 = b2, b1
		}
		if !b2.IsConst() {
			return Maybe
		}
		return decide(b1.Value&b2.Value != 0, b1.Max()&b2.Value == 0)
	case GT:
		return decide(ulo1 > uhi2, uhi1 <= ulo2)
	case GE:
		return decide(ulo1 >= uhi2, uhi1 < ulo2)
	case LT:
		return decide(uhi1 < ulo2, ulo1 >= uhi2)
	case LE:
		return decide(uhi1 <= ulo2, ulo1 > uhi2)
	case SGT:
		return decide(slo1 > shi2, shi1 <= slo2)
	case SGE:
		return decide(slo1 >= shi2, shi1 < slo2)
	case SLT:
		return decide(shi1 < slo2, slo1 >= shi2)
	case SLE:
		return decide(shi1 <= slo2, slo1 > shi2)
	}
	return Maybe
}

func (s *Scalar) isConst(only32 bool) bool {
	if only32 {
		return s.IsConst32()
	}
	return s.IsConst()
}

// Assume narrows s and o by "s cond o", of all 64 bits or of the lower 32, and
// carries it over to all that is known of them (reg_set_min_max). Afterwards
// either may be [Scalar.Contradictory].
func Assume(c Cond, s, o *Scalar, only32 bool) {
	// Passing on one fact may teach what another direction needs.
	assume(c, s, o, only32)
	s.Sync()
	o.Sync()
}

func assume(c Cond, s, o *Scalar, only32 bool) {
	switch c {
	case GT, GE, SGT, SGE:
		c, s, o = c.Swap(), o, s
	case NE, Set, NotSet:
		if !o.isConst(only32) {
			s, o = o, s
		}
		if !o.isConst(only32) {
			return
		}
	}
	v := o.Bits.Value
	if only32 {
		v = uint64(uint32(v))
	}
	switch c {
	case EQ:
		if only32 {
			s.meetU32(o.U32Min, o.U32Max)
			s.meetS32(o.S32Min, o.S32Max)
			o.U32Min, o.U32Max, o.S32Min, o.S32Max = s.U32Min, s.U32Max, s.S32Min, s.S32Max
			t := s.Bits.Low32().Intersect(o.Bits.Low32())
			s.Bits, o.Bits = s.Bits.WithLow32(t), o.Bits.WithLow32(t)
			return
		}
		s.meetU64(o.UMin, o.UMax)
		s.meetS64(o.SMin, o.SMax)
		o.UMin, o.UMax, o.SMin, o.SMax = s.UMin, s.UMax, s.SMin, s.SMax
		s.Bits = s.Bits.Intersect(o.Bits)
		o.Bits = s.Bits
	case NE:
		s.exclude(v, only32)
	case Set:
		if bits.OnesCount64(v) != 1 {
			return
		}
		if only32 {
			s.Bits = s.Bits.WithLow32(s.Bits.Low32().Or(ConstTnum(v)))
		} else {
			s.Bits = s.Bits.Or(ConstTnum(v))
		}
	case NotSet:
		// The ranges may lie wrong now, and the bits are all they come from.
		s.ForgetRanges()
		if only32 {
			s.Bits = s.Bits.WithLow32(s.Bits.Low32().And(ConstTnum(^v)))
		} else {
			s.Bits = s.Bits.And(ConstTnum(^v))
		}
	case LE, LT:
		if only32 {
			var d uint32
			if c == LT {
				d = 1
			}
			s.U32Max = min(s.U32Max, o.U32Max-d)
			o.U32Min = max(s.U32Min+d, o.U32Min)
			return
		}
		var d uint64
		if c == LT {
			d = 1
		}
		s.UMax = min(s.UMax, o.UMax-d)
		o.UMin = max(s.UMin+d, o.UMin)
	case SLE, SLT:
		if only32 {
			var d int32
			if c == SLT {
				d = 1
			}
			s.S32Max = min(s.S32Max, o.S32Max-d)
			o.S32Min = max(s.S32Min+d, o.S32Min)
			return
		}
		var d int64
		if c == SLT {
			d = 1
		}
		s.SMax = min(s.SMax, o.SMax-d)
		o.SMin = max(s.SMin+d, o.SMin)
	}
}

// exclude moves the ends of ranges that are v.
func (s *Scalar) exclude(v uint64, only32 bool) {
	if only32 {
		if s.U32Min == uint32(v) {
			s.U32Min++
		}
		if s.U32Max == uint32(v) {
			s.U32Max--
		}
		if s.S32Min == int32(v) {
			s.S32Min++
		}
		if s.S32Max == int32(v) {
			s.S32Max--
		}
		return
	}
	if s.UMin == v {
		s.UMin++
	}
	if s.UMax == v {
		s.UMax--
	}
	if s.SMin == int64(v) {
		s.SMin++
	}
	if s.SMax == int64(v) {
		s.SMax--
	}
}
