package domain

import (
	"math"
	"math/bits"
)

// The operators change s to what holds of the result. Each computes both
// halves of what is known; [Scalar.ZeroExtend32] and [Scalar.Sync] finish the
// work, as in the kernel's adjust_scalar_min_max_vals, and must follow. The
// shifts come in two widths, since they differ in more than the result's.

func addS64(a, b int64) (int64, bool) {
	c := a + b
	return c, (a^c)&(b^c) < 0
}

func subS64(a, b int64) (int64, bool) {
	c := a - b
	return c, (a^b)&(a^c) < 0
}

func fits32(v int64) bool { return v == int64(int32(v)) }

// Add is s + o.
func (s *Scalar) Add(o *Scalar) {
	lo32, hi32 := int64(s.S32Min)+int64(o.S32Min), int64(s.S32Max)+int64(o.S32Max)
	if fits32(lo32) && fits32(hi32) {
		s.S32Min, s.S32Max = int32(lo32), int32(hi32)
	} else {
		s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
	}
	// If both ends wrap, the range in between is whole again.
	ulo32, uhi32 := uint64(s.U32Min)+uint64(o.U32Min), uint64(s.U32Max)+uint64(o.U32Max)
	s.U32Min, s.U32Max = uint32(ulo32), uint32(uhi32)
	if ulo32>>32 != uhi32>>32 {
		s.U32Min, s.U32Max = 0, math.MaxUint32
	}
	lo, o1 := addS64(s.SMin, o.SMin)
	hi, o2 := addS64(s.SMax, o.SMax)
	if o1 || o2 {
		lo, hi = math.MinInt64, math.MaxInt64
	}
	s.SMin, s.SMax = lo, hi
	ulo, c1 := bits.Add64(s.UMin, o.UMin, 0)
	uhi, c2 := bits.Add64(s.UMax, o.UMax, 0)
	if c1 != c2 {
		ulo, uhi = 0, math.MaxUint64
	}
	s.UMin, s.UMax = ulo, uhi
	s.Bits = s.Bits.Add(o.Bits)
}

// Sub is s - o.
func (s *Scalar) Sub(o *Scalar) {
	lo32, hi32 := int64(s.S32Min)-int64(o.S32Max), int64(s.S32Max)-int64(o.S32Min)
	if fits32(lo32) && fits32(hi32) {
		s.S32Min, s.S32Max = int32(lo32), int32(hi32)
	} else {
		s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
	}
	under1, under2 := s.U32Min < o.U32Max, s.U32Max < o.U32Min
	s.U32Min, s.U32Max = s.U32Min-o.U32Max, s.U32Max-o.U32Min
	if under1 != under2 {
		s.U32Min, s.U32Max = 0, math.MaxUint32
	}
	lo, o1 := subS64(s.SMin, o.SMax)
	hi, o2 := subS64(s.SMax, o.SMin)
	if o1 || o2 {
		lo, hi = math.MinInt64, math.MaxInt64
	}
	s.SMin, s.SMax = lo, hi
	under1, under2 = s.UMin < o.UMax, s.UMax < o.UMin
	s.UMin, s.UMax = s.UMin-o.UMax, s.UMax-o.UMin
	if under1 != under2 {
		s.UMin, s.UMax = 0, math.MaxUint64
	}
	s.Bits = s.Bits.Sub(o.Bits)
}

// Neg is -s.
func (s *Scalar) Neg() {
	r := Const(0)
	r.Sub(s)
	r.Bits = s.Bits.Neg()
	*s = r
}

// mulS64 multiplies and reports whether the product fits.
func mulS64(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if a < 0 {
		hi -= uint64(b)
	}
	if b < 0 {
		hi -= uint64(a)
	}
	return int64(lo), hi == uint64(int64(lo)>>63)
}

// Mul is s * o.
func (s *Scalar) Mul(o *Scalar) {
	s.Bits = s.Bits.Mul(o.Bits)
	ulo32, uhi32 := uint64(s.U32Min)*uint64(o.U32Min), uint64(s.U32Max)*uint64(o.U32Max)
	if uhi32 > math.MaxUint32 || ulo32 > math.MaxUint32 {
		ulo32, uhi32 = 0, math.MaxUint32
	}
	s.U32Min, s.U32Max = uint32(ulo32), uint32(uhi32)
	lo32, hi32 := int64(math.MaxInt64), int64(math.MinInt64)
	for _, a := range [2]int32{s.S32Min, s.S32Max} {
		for _, b := range [2]int32{o.S32Min, o.S32Max} {
			p := int64(a) * int64(b)
			lo32, hi32 = min(lo32, p), max(hi32, p)
		}
	}
	if !fits32(lo32) || !fits32(hi32) {
		lo32, hi32 = math.MinInt32, math.MaxInt32
	}
	s.S32Min, s.S32Max = int32(lo32), int32(hi32)

	c1, ulo := bits.Mul64(s.UMin, o.UMin)
	c2, uhi := bits.Mul64(s.UMax, o.UMax)
	if c1|c2 != 0 {
		ulo, uhi = 0, math.MaxUint64
	}
	s.UMin, s.UMax = ulo, uhi
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, a := range [2]int64{s.SMin, s.SMax} {
		for _, b := range [2]int64{o.SMin, o.SMax} {
			p, ok := mulS64(a, b)
			if !ok {
				s.SMin, s.SMax = math.MinInt64, math.MaxInt64
				return
			}
			lo, hi = min(lo, p), max(hi, p)
		}
	}
	s.SMin, s.SMax = lo, hi
}

// signed32 and signed64 take over the unsigned ranges where they do not cross
// the signs.
func (s *Scalar) signed32() {
	s.S32Min, s.S32Max = int32(s.U32Min), int32(s.U32Max)
	if s.S32Min > s.S32Max {
		s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
	}
}

func (s *Scalar) signed64() {
	s.SMin, s.SMax = int64(s.UMin), int64(s.UMax)
	if s.SMin > s.SMax {
		s.SMin, s.SMax = math.MinInt64, math.MaxInt64
	}
}

// And is s & o.
func (s *Scalar) And(o *Scalar) {
	b := s.Bits.And(o.Bits)
	known32, known := s.IsConst32() && o.IsConst32(), s.IsConst() && o.IsConst()
	s.bitwise(b, known32, known, uint32(b.Value), min(s.U32Max, o.U32Max), b.Value, min(s.UMax, o.UMax))
}

// Or is s | o.
func (s *Scalar) Or(o *Scalar) {
	b := s.Bits.Or(o.Bits)
	known32, known := b.Low32().IsConst() && o.IsConst32(), b.IsConst() && o.IsConst()
	s.bitwise(b, known32, known, max(s.U32Min, o.U32Min), uint32(b.Max()), max(s.UMin, o.UMin), b.Max())
}

// Xor is s ^ o.
func (s *Scalar) Xor(o *Scalar) {
	b := s.Bits.Xor(o.Bits)
	known32, known := b.Low32().IsConst() && o.IsConst32(), b.IsConst() && o.IsConst()
	s.bitwise(b, known32, known, uint32(b.Value), uint32(b.Max()), b.Value, b.Max())
}

func (s *Scalar) bitwise(b Tnum, known32, known bool, lo32, hi32 uint32, lo, hi uint64) {
	s.Bits = b
	if known32 && b.Low32().IsConst() {
		s.setConst32(uint32(b.Value))
	} else {
		s.U32Min, s.U32Max = lo32, hi32
		s.signed32()
	}
	if known && b.IsConst() {
		*s = Const(b.Value)
		return
	}
	s.UMin, s.UMax = lo, hi
	s.signed64()
	s.UpdateRanges()
}

func (s *Scalar) lsh32(lo, hi uint64) {
	s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
	if hi > 31 || uint64(s.U32Max) > 1<<(31-hi) {
		s.U32Min, s.U32Max = 0, math.MaxUint32
		return
	}
	s.U32Min <<= lo
	s.U32Max <<= hi
}

// Lsh32 is the lower half of s << n, for n below 32; the upper half is lost.
func (s *Scalar) Lsh32(n uint) {
	b := s.Bits.Low32()
	s.lsh32(uint64(n), uint64(n))
	s.Bits = b.Lsh(n).Low32()
	s.forget64()
	s.update32()
}

// Lsh is s << n, for n below 64.
func (s *Scalar) Lsh(n uint) {
	if n == 32 { // with a shift back it extends the lower half
		s.SMin, s.SMax = int64(s.S32Min)<<32, int64(s.S32Max)<<32
	} else {
		s.SMin, s.SMax = math.MinInt64, math.MaxInt64
	}
	if s.UMax > 1<<(63-n) {
		s.UMin, s.UMax = 0, math.MaxUint64
	} else {
		s.UMin <<= n
		s.UMax <<= n
	}
	s.lsh32(uint64(n), uint64(n))
	s.Bits = s.Bits.Lsh(n)
	s.UpdateRanges()
}

// Rsh32 is (u32)s >> n, for n below 32.
func (s *Scalar) Rsh32(n uint) {
	s.S32Min, s.S32Max = math.MinInt32, math.MaxInt32
	s.Bits = s.Bits.Low32().Rsh(n)
	s.U32Min >>= n
	s.U32Max >>= n
	s.forget64()
	s.update32()
}

// Rsh is s >> n, logical, for n below 64.
func (s *Scalar) Rsh(n uint) {
	s.SMin, s.SMax = math.MinInt64, math.MaxInt64
	s.Bits = s.Bits.Rsh(n)
	s.UMin >>= n
	s.UMax >>= n
	s.forget32()
	s.UpdateRanges()
}

// Arsh32 is (s32)s >> n, for n below 32.
func (s *Scalar) Arsh32(n uint) {
	s.S32Min >>= n
	s.S32Max >>= n
	s.Bits = s.Bits.Low32().Arsh(n, 32)
	s.U32Min, s.U32Max = 0, math.MaxUint32
	s.forget64()
	s.update32()
}

// Arsh is s >> n, arithmetic, for n below 64.
func (s *Scalar) Arsh(n uint) {
	s.SMin >>= n
	s.SMax >>= n
	s.Bits = s.Bits.Arsh(n, 64)
	s.UMin, s.UMax = 0, math.MaxUint64
	s.forget32()
	s.UpdateRanges()
}
