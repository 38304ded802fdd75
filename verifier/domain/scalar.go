package domain

import (
	"fmt"
	"math"
	"strings"
)

// A Scalar is what is known of a 64-bit number and of its lower half: bits, and
// ranges read as unsigned and as signed. All ranges include both ends. The zero
// value is the number 0.
type Scalar struct {
	Bits           Tnum
	UMin, UMax     uint64
	SMin, SMax     int64
	U32Min, U32Max uint32
	S32Min, S32Max int32
}

// Unknown is the scalar that may be any number.
var Unknown = Scalar{
	Bits: AnyTnum,
	UMax: math.MaxUint64,
	SMin: math.MinInt64, SMax: math.MaxInt64,
	U32Max: math.MaxUint32,
	S32Min: math.MinInt32, S32Max: math.MaxInt32,
}

// Const is the scalar that is v.
func Const(v uint64) Scalar {
	return Scalar{
		Bits: ConstTnum(v), UMin: v, UMax: v, SMin: int64(v), SMax: int64(v),
		U32Min: uint32(v), U32Max: uint32(v), S32Min: int32(v), S32Max: int32(v),
	}
}

// IsConst reports whether s is one number only.
func (s *Scalar) IsConst() bool { return s.Bits.Mask == 0 }

// IsConst32 reports whether the lower half of s is one number only.
func (s *Scalar) IsConst32() bool { return uint32(s.Bits.Mask) == 0 }

// IsUnknown reports whether nothing is known of s.
func (s *Scalar) IsUnknown() bool { return *s == Unknown }

// Contains reports whether v may be what s stands for.
func (s *Scalar) Contains(v uint64) bool {
	return s.Bits.Contains(v) && s.UMin <= v && v <= s.UMax && s.SMin <= int64(v) && int64(v) <= s.SMax &&
		s.U32Min <= uint32(v) && uint32(v) <= s.U32Max && s.S32Min <= int32(v) && int32(v) <= s.S32Max
}

// RangeIn reports whether the ranges of s lie within those of t.
func (s *Scalar) RangeIn(t *Scalar) bool {
	return t.UMin <= s.UMin && t.UMax >= s.UMax && t.SMin <= s.SMin && t.SMax >= s.SMax &&
		t.U32Min <= s.U32Min && t.U32Max >= s.U32Max && t.S32Min <= s.S32Min && t.S32Max >= s.S32Max
}

// In reports whether all that holds of t holds of s too.
func (s *Scalar) In(t *Scalar) bool { return s.RangeIn(t) && s.Bits.In(t.Bits) }

// Contradictory reports whether no number is left in s: such a scalar is only
// reached on paths that no run takes.
func (s *Scalar) Contradictory() bool {
	if s.UMin > s.UMax || s.SMin > s.SMax || s.U32Min > s.U32Max || s.S32Min > s.S32Max {
		return true
	}
	if v := s.Bits.Value; s.IsConst() && (s.UMin != v || s.UMax != v || s.SMin != int64(v) || s.SMax != int64(v)) {
		return true
	}
	v := uint32(s.Bits.Value)
	return s.IsConst32() && (s.U32Min != v || s.U32Max != v || s.S32Min != int32(v) || s.S32Max != int32(v))
}

func (s *Scalar) forget64() {
	s.UMin, s.UMax, s.SMin, s.SMax = 0, math.MaxUint64, math.MinInt64, math.MaxInt64
}

func (s *Scalar) forget32() {
	s.U32Min, s.U32Max, s.S32Min, s.S32Max = 0, math.MaxUint32, math.MinInt32, math.MaxInt32
}

// ForgetRanges drops the ranges and keeps the bits.
func (s *Scalar) ForgetRanges() { s.forget64(); s.forget32() }

// setConst32 makes the lower half v and keeps the rest.
func (s *Scalar) setConst32(v uint32) {
	s.Bits = s.Bits.WithLow32(ConstTnum(uint64(v)))
	s.U32Min, s.U32Max, s.S32Min, s.S32Max = v, v, int32(v), int32(v)
}

func (s *Scalar) update32() {
	b := s.Bits.Low32()
	s.S32Min = max(s.S32Min, int32(b.Value|b.Mask&0x80000000))
	s.S32Max = min(s.S32Max, int32(b.Value|b.Mask&0x7fffffff))
	s.U32Min = max(s.U32Min, uint32(b.Value))
	s.U32Max = min(s.U32Max, uint32(b.Max()))
}

func (s *Scalar) update64() {
	b := s.Bits
	s.SMin = max(s.SMin, int64(b.Value|b.Mask&(1<<63)))
	s.SMax = min(s.SMax, int64(b.Value|b.Mask&^(1<<63)))
	s.UMin = max(s.UMin, b.Value)
	s.UMax = min(s.UMax, b.Max())
}

// UpdateRanges narrows the ranges by the bits.
func (s *Scalar) UpdateRanges() { s.update32(); s.update64() }

func (s *Scalar) meetU32(lo, hi uint32) { s.U32Min, s.U32Max = max(s.U32Min, lo), min(s.U32Max, hi) }

func (s *Scalar) meetS32(lo, hi int32)  { s.S32Min, s.S32Max = max(s.S32Min, lo), min(s.S32Max, hi) }
func (s *Scalar) meetU64(lo, hi uint64) { s.UMin, s.UMax = max(s.UMin, lo), min(s.UMax, hi) }
func (s *Scalar) meetS64(lo, hi int64)  { s.SMin, s.SMax = max(s.SMin, lo), min(s.SMax, hi) }

// deduce32 narrows the ranges of the lower half by those of the whole, and by
// each other (__reg32_deduce_bounds).
func (s *Scalar) deduce32() {
	ulo, uhi, slo, shi := s.UMin, s.UMax, s.SMin, s.SMax
	if ulo>>32 == uhi>>32 {
		s.meetU32(uint32(ulo), uint32(uhi))
		if int32(ulo) <= int32(uhi) {
			s.meetS32(int32(ulo), int32(uhi))
		}
	}
	if slo>>32 == shi>>32 {
		if uint32(slo) <= uint32(shi) {
			s.meetU32(uint32(slo), uint32(shi))
		}
		if int32(slo) <= int32(shi) {
			s.meetS32(int32(slo), int32(shi))
		}
	}
	// A range that crosses one multiple of 2^32, from negative to positive
	// when cut to 32 bits, is one signed range there.
	if uint32(ulo>>32)+1 == uint32(uhi>>32) && int32(ulo) < 0 && int32(uhi) >= 0 {
		s.meetS32(int32(ulo), int32(uhi))
	}
	if uint32(slo>>32)+1 == uint32(shi>>32) && int32(slo) < 0 && int32(shi) >= 0 {
		s.meetS32(int32(slo), int32(shi))
	}
	if int32(s.U32Min) <= int32(s.U32Max) {
		s.meetS32(int32(s.U32Min), int32(s.U32Max))
	}
	switch {
	case uint32(s.S32Min) <= uint32(s.S32Max):
		s.meetU32(uint32(s.S32Min), uint32(s.S32Max))
	case s.U32Max < uint32(s.S32Min):
		// The signed range is two unsigned ones, and only the lower can hold.
		s.S32Min = int32(s.U32Min)
		s.U32Max = min(s.U32Max, uint32(s.S32Max))
	case uint32(s.S32Max) < s.U32Min:
		s.S32Max = int32(s.U32Max)
		s.U32Min = max(s.U32Min, uint32(s.S32Min))
	}
}

// deduce64 narrows the signed and the unsigned range by each other
// (__reg64_deduce_bounds).
func (s *Scalar) deduce64() {
	if int64(s.UMin) <= int64(s.UMax) {
		s.meetS64(int64(s.UMin), int64(s.UMax))
	}
	switch {
	case uint64(s.SMin) <= uint64(s.SMax):
		s.meetU64(uint64(s.SMin), uint64(s.SMax))
	case s.UMax < uint64(s.SMin):
		s.SMin = int64(s.UMin)
		s.UMax = min(s.UMax, uint64(s.SMax))
	case uint64(s.SMax) < s.UMin:
		s.SMax = int64(s.UMax)
		s.UMin = max(s.UMin, uint64(s.SMin))
	}
}

const high = ^uint64(0xffffffff)

// deduceMixed narrows the ranges of the whole by those of the lower half
// (__reg_deduce_mixed_bounds).
func (s *Scalar) deduceMixed() {
	s.meetU64(s.UMin&high|uint64(s.U32Min), s.UMax&high|uint64(s.U32Max))
	s.meetS64(int64(uint64(s.SMin)&high|uint64(s.U32Min)), int64(uint64(s.SMax)&high|uint64(s.U32Max)))
	if lo, hi := uint32(s.S32Min), uint32(s.S32Max); lo <= hi {
		s.meetU64(s.UMin&high|uint64(lo), s.UMax&high|uint64(hi))
		s.meetS64(int64(uint64(s.SMin)&high|uint64(lo)), int64(uint64(s.SMax)&high|uint64(hi)))
	}
	if s.S32Min >= 0 && s.SMin >= math.MinInt32 && s.SMax <= math.MaxInt32 {
		s.SMin, s.SMax = int64(s.S32Min), int64(s.S32Max)
		s.UMin, s.UMax = uint64(s.S32Min), uint64(s.S32Max)
		s.Bits = s.Bits.Intersect(RangeTnum(s.UMin, s.UMax))
	}
}

// Sync carries what bits and ranges know over to each other
// (reg_bounds_sync). The order of the steps, and how often they are done, is
// the kernel's: it decides how much is found.
func (s *Scalar) Sync() {
	if s.Bits.Mask == 0 && s.UMin == s.Bits.Value && s.UMax == s.UMin && s.SMin == int64(s.UMin) && s.SMax == s.SMin &&
		s.U32Min == uint32(s.UMin) && s.U32Max == s.U32Min && s.S32Min == int32(s.UMin) && s.S32Max == s.S32Min {
		return
	}
	s.UpdateRanges()
	for range 3 {
		s.deduce32()
		s.deduce64()
		s.deduceMixed()
	}
	b := s.Bits.Intersect(RangeTnum(s.UMin, s.UMax))
	s.Bits = b.WithLow32(b.Low32().Intersect(RangeTnum(uint64(s.U32Min), uint64(s.U32Max))))
	s.UpdateRanges()
}

// ZeroExtend32 clears the upper half: what a 32-bit operation does to its
// destination.
func (s *Scalar) ZeroExtend32() {
	s.Bits = s.Bits.Low32()
	s.UMin, s.UMax = uint64(s.U32Min), uint64(s.U32Max)
	if s.S32Min >= 0 && s.S32Max >= 0 {
		s.SMin, s.SMax = int64(s.S32Min), int64(s.S32Max)
	} else {
		s.SMin, s.SMax = 0, math.MaxUint32
	}
}

// Truncate cuts s to its low size bytes and zero-extends, as a load of that
// size does (coerce_reg_to_size).
func (s *Scalar) Truncate(size int) {
	if size >= 8 {
		return
	}
	s.cut(size)
	if size < 4 {
		s.forget32()
	}
	s.Sync()
}

// cut is Truncate for the bits and for the ranges of the whole.
func (s *Scalar) cut(size int) {
	s.Bits = s.Bits.Cast(size)
	mask := uint64(1)<<(8*size) - 1
	if s.UMin&^mask == s.UMax&^mask {
		s.UMin &= mask
		s.UMax &= mask
	} else {
		s.UMin, s.UMax = 0, mask
	}
	s.SMin, s.SMax = int64(s.UMin), int64(s.UMax)
}

// SignExtend extends the low size bytes over all 64 bits
// (coerce_reg_to_size_sx).
func (s *Scalar) SignExtend(size int) {
	if size >= 8 {
		return
	}
	sh := 64 - 8*size
	ext := func(v uint64) int64 { return int64(v<<sh) >> sh }
	if s.IsConst() {
		*s = Const(uint64(ext(s.Bits.Value)))
		return
	}
	bits := 8 * size
	if uint64(s.SMax)>>bits<<bits == uint64(s.SMin)>>bits<<bits {
		lo, hi := ext(uint64(s.SMin)), ext(uint64(s.SMax))
		lo, hi = min(lo, hi), max(lo, hi)
		if (hi >= 0) == (lo >= 0) {
			s.SMin, s.SMax, s.UMin, s.UMax = lo, hi, uint64(lo), uint64(hi)
			s.S32Min, s.S32Max, s.U32Min, s.U32Max = int32(lo), int32(hi), uint32(lo), uint32(hi)
			s.Bits = RangeTnum(uint64(lo), uint64(hi))
			return
		}
	}
	*s = Unknown
	s.SMin, s.SMax = -1<<(bits-1), 1<<(bits-1)-1
	s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
	if size < 4 {
		s.S32Min, s.S32Max = int32(s.SMin), int32(s.SMax)
	}
}

// SignExtend32 extends the low size bytes over the lower half
// (coerce_subreg_to_size_sx); the upper half is left to [Scalar.ZeroExtend32].
func (s *Scalar) SignExtend32(size int) {
	if size >= 4 {
		return
	}
	sh := 32 - 8*size
	ext := func(v uint32) int32 { return int32(v<<sh) >> sh }
	if s.IsConst() {
		v := uint32(ext(uint32(s.Bits.Value)))
		s.Bits = ConstTnum(uint64(v))
		s.U32Min, s.U32Max, s.S32Min, s.S32Max = v, v, int32(v), int32(v)
		return
	}
	bits := 8 * size
	if uint32(s.S32Max)>>bits<<bits == uint32(s.S32Min)>>bits<<bits {
		lo, hi := ext(uint32(s.S32Min)), ext(uint32(s.S32Max))
		lo, hi = min(lo, hi), max(lo, hi)
		if (hi >= 0) == (lo >= 0) {
			s.S32Min, s.S32Max, s.U32Min, s.U32Max = lo, hi, uint32(lo), uint32(hi)
			s.Bits = RangeTnum(uint64(uint32(lo)), uint64(uint32(hi))).Low32()
			return
		}
	}
	s.S32Min, s.S32Max = -1<<(bits-1), 1<<(bits-1)-1
	s.U32Min, s.U32Max = 0, math.MaxUint32
	s.Bits = AnyTnum.Low32()
}

// String names what is known and not obvious: "5", "umax=255,var_off=(0x0; 0xff)".
func (s Scalar) String() string {
	if s.IsConst() {
		return fmt.Sprintf("%d", int64(s.Bits.Value))
	}
	var parts []string
	add := func(name string, v any, shown bool) {
		if shown {
			parts = append(parts, fmt.Sprintf("%s=%v", name, v))
		}
	}
	add("smin", s.SMin, s.SMin != math.MinInt64 && (s.SMin < 0 || uint64(s.SMin) != s.UMin))
	add("smax", s.SMax, s.SMax != math.MaxInt64 && (s.SMax < 0 || uint64(s.SMax) != s.UMax))
	add("umin", s.UMin, s.UMin != 0)
	add("umax", s.UMax, s.UMax != math.MaxUint64)
	add("smin32", s.S32Min, s.S32Min != math.MinInt32 && int64(s.S32Min) != s.SMin)
	add("smax32", s.S32Max, s.S32Max != math.MaxInt32 && int64(s.S32Max) != s.SMax)
	add("umin32", s.U32Min, s.U32Min != 0 && uint64(s.U32Min) != s.UMin)
	add("umax32", s.U32Max, s.U32Max != math.MaxUint32 && uint64(s.U32Max) != s.UMax)
	add("var_off", s.Bits, s.Bits != AnyTnum)
	return strings.Join(parts, ",")
}

// SetLow32 makes the lower half v, and keeps what is known of the rest.
func (s *Scalar) SetLow32(v uint32) { s.setConst32(v) }
