package domain

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// interesting are numbers at whose neighbours ranges end.
var interesting = []uint64{
	0, 1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 0x7fff, 0x8000, 0xffff, 0x10000,
	0x7ffffffe, 0x7fffffff, 0x80000000, 0x80000001, 0xfffffffe, 0xffffffff, 0x100000000, 0x100000001,
	0x17fffffff, 0x180000000, 1 << 62, 1<<63 - 1, 1 << 63, 1<<63 + 1, ^uint64(0) - 1, ^uint64(0),
	0xffffffff00000000, 0xffffffff7fffffff, 0xffffffff80000000,
}

func number(r *rand.Rand) uint64 {
	switch r.IntN(4) {
	case 0:
		return r.Uint64() >> r.IntN(64)
	case 1:
		return -(r.Uint64() >> r.IntN(64))
	}
	return interesting[r.IntN(len(interesting))] + uint64(r.IntN(5)) - 2
}

// sample returns a scalar and a number in it.
func sample(r *rand.Rand) (Scalar, uint64) {
	v := number(r)
	s := Unknown
	// Facts that hold of v, each with some chance.
	if r.IntN(2) == 0 {
		mask := r.Uint64() & r.Uint64()
		if r.IntN(2) == 0 {
			mask = r.Uint64() >> r.IntN(64)
		}
		s.Bits = Tnum{v &^ mask, mask}
	}
	spread := func() uint64 { return r.Uint64() >> r.IntN(64) }
	if r.IntN(3) == 0 {
		if d := spread(); v-d <= v {
			s.UMin = v - d
		}
		if d := spread(); v+d >= v {
			s.UMax = v + d
		}
	}
	if r.IntN(3) == 0 {
		if d := int64(spread() >> 1); int64(v)-d <= int64(v) {
			s.SMin = int64(v) - d
		}
		if d := int64(spread() >> 1); int64(v)+d >= int64(v) {
			s.SMax = int64(v) + d
		}
	}
	if w := uint32(v); r.IntN(3) == 0 {
		if d := uint32(spread()); w-d <= w {
			s.U32Min = w - d
		}
		if d := uint32(spread()); w+d >= w {
			s.U32Max = w + d
		}
	}
	if w := int32(v); r.IntN(3) == 0 {
		if d := int32(uint32(spread()) >> 1); w-d <= w {
			s.S32Min = w - d
		}
		if d := int32(uint32(spread()) >> 1); w+d >= w {
			s.S32Max = w + d
		}
	}
	if r.IntN(8) == 0 {
		s = Const(v)
	}
	if r.IntN(4) > 0 {
		s.Sync()
	}
	return s, v
}

func TestSync(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300_000 {
		s, v := sample(r)
		before := s
		s.Sync()
		if !s.Contains(v) {
			t.Fatalf("%#x is in %+v, but not in %+v after Sync", v, before, s)
		}
		if s.Contradictory() {
			t.Fatalf("%+v, which holds %#x, is called contradictory", s, v)
		}
	}
}

// binary are the operators with their concrete meaning.
var binary = []struct {
	name     string
	op       func(s, o *Scalar)
	concrete func(a, b uint64) uint64
}{
	{"add", (*Scalar).Add, func(a, b uint64) uint64 { return a + b }},
	{"sub", (*Scalar).Sub, func(a, b uint64) uint64 { return a - b }},
	{"mul", (*Scalar).Mul, func(a, b uint64) uint64 { return a * b }},
	{"and", (*Scalar).And, func(a, b uint64) uint64 { return a & b }},
	{"or", (*Scalar).Or, func(a, b uint64) uint64 { return a | b }},
	{"xor", (*Scalar).Xor, func(a, b uint64) uint64 { return a ^ b }},
	{"neg", func(s, _ *Scalar) { s.Neg() }, func(a, _ uint64) uint64 { return -a }},
}

var shifts = []struct {
	name     string
	op       func(s *Scalar, n uint)
	concrete func(a uint64, n uint) uint64
	only32   bool
}{
	{"lsh", (*Scalar).Lsh, func(a uint64, n uint) uint64 { return a << n }, false},
	{"rsh", (*Scalar).Rsh, func(a uint64, n uint) uint64 { return a >> n }, false},
	{"arsh", (*Scalar).Arsh, func(a uint64, n uint) uint64 { return uint64(int64(a) >> n) }, false},
	{"lsh32", (*Scalar).Lsh32, func(a uint64, n uint) uint64 { return uint64(uint32(a) << n) }, true},
	{"rsh32", (*Scalar).Rsh32, func(a uint64, n uint) uint64 { return uint64(uint32(a) >> n) }, true},
	{"arsh32", (*Scalar).Arsh32, func(a uint64, n uint) uint64 { return uint64(uint32(int32(a) >> n)) }, true},
}

func TestOperatorsAreSound(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 100_000 {
		a, x := sample(r)
		b, y := sample(r)
		for _, op := range binary {
			for _, only32 := range []bool{false, true} {
				s, want := a, op.concrete(x, y)
				op.op(&s, &b)
				if only32 {
					s.ZeroExtend32()
					want = uint64(uint32(want))
				}
				s.Sync()
				if !s.Contains(want) {
					t.Fatalf("%s (32 bits only: %v) of %+v and %+v is %+v, which lacks %#x of %#x and %#x", op.name, only32, a, b, s, want, x, y)
				}
			}
		}
		for _, op := range shifts {
			n := uint(r.IntN(64))
			if op.only32 {
				n %= 32
			}
			s, want := a, op.concrete(x, n)
			op.op(&s, n)
			if op.only32 {
				s.ZeroExtend32()
			}
			s.Sync()
			if !s.Contains(want) {
				t.Fatalf("%s of %+v by %d is %+v, which lacks %#x of %#x", op.name, a, n, s, want, x)
			}
		}
	}
}

func TestWidths(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 100_000 {
		a, v := sample(r)
		a.Sync()
		check := func(what string, s Scalar, want uint64) {
			t.Helper()
			if !s.Contains(want) {
				t.Fatalf("%s of %+v is %+v, which lacks %#x of %#x", what, a, s, want, v)
			}
		}
		s := a
		s.ZeroExtend32()
		check("zero extension", s, uint64(uint32(v)))
		for size, want := range map[int][3]uint64{
			1: {uint64(uint8(v)), uint64(int64(int8(v))), uint64(uint32(int32(int8(v))))},
			2: {uint64(uint16(v)), uint64(int64(int16(v))), uint64(uint32(int32(int16(v))))},
			4: {uint64(uint32(v)), uint64(int64(int32(v))), 0},
		} {
			s := a
			s.Truncate(size)
			check(fmt.Sprintf("truncation to %d bytes", size), s, want[0])
			s = a
			s.SignExtend(size)
			check(fmt.Sprintf("sign extension from %d bytes", size), s, want[1])
			if size < 4 {
				s = a
				s.SignExtend32(size)
				s.ZeroExtend32()
				check(fmt.Sprintf("32-bit sign extension from %d bytes", size), s, want[2])
			}
		}
	}
}

func holds(c Cond, a, b uint64, only32 bool) bool {
	if only32 {
		a, b = uint64(uint32(a)), uint64(uint32(b))
	}
	x, y := int64(a), int64(b)
	if only32 {
		x, y = int64(int32(a)), int64(int32(b))
	}
	switch c {
	case EQ:
		return a == b
	case NE:
		return a != b
	case GT:
		return a > b
	case GE:
		return a >= b
	case LT:
		return a < b
	case LE:
		return a <= b
	case SGT:
		return x > y
	case SGE:
		return x >= y
	case SLT:
		return x < y
	case SLE:
		return x <= y
	case Set:
		return a&b != 0
	}
	return a&b == 0
}

func TestComparisons(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 200_000 {
		a, x := sample(r)
		b, y := sample(r)
		if r.IntN(3) == 0 {
			b = Const(y)
		}
		a.Sync()
		b.Sync()
		for c := EQ; c <= Set; c++ {
			for _, only32 := range []bool{false, true} {
				is := holds(c, x, y, only32)
				if got := Compare(c, &a, &b, only32); got == Always && !is || got == Never && is {
					t.Fatalf("condition %d (32 bits only: %v) of %+v and %+v is %d, but %v of %#x and %#x", c, only32, a, b, got, is, x, y)
				}
				if holds(c.Swap(), y, x, only32) != is || holds(c.Not(), x, y, only32) == is {
					t.Fatalf("Swap or Not of condition %d is wrong", c)
				}
				if !is {
					continue
				}
				s, o := a, b
				Assume(c, &s, &o, only32)
				if !s.Contains(x) || !o.Contains(y) {
					t.Fatalf("condition %d (32 bits only: %v) assumed of %+v and %+v gives %+v and %+v, which lack %#x or %#x", c, only32, a, b, s, o, x, y)
				}
			}
		}
		if !holds(Set, x, y, false) {
			s, o := a, b
			Assume(NotSet, &s, &o, false)
			if !s.Contains(x) || !o.Contains(y) {
				t.Fatalf("NotSet of %+v and %+v gives %+v and %+v, which lack %#x or %#x", a, b, s, o, x, y)
			}
		}
	}
}

// TestTnumsExhaustively takes every pair of tnums of five bits, and every pair
// of numbers in them.
func TestTnumsExhaustively(t *testing.T) {
	const width = 5
	var all []Tnum
	for v := range uint64(1 << width) {
		for m := range uint64(1 << width) {
			if v&m == 0 {
				all = append(all, Tnum{v, m})
			}
		}
	}
	members := map[Tnum][]uint64{}
	for _, a := range all {
		for v := range uint64(1 << width) {
			if a.Contains(v) {
				members[a] = append(members[a], v)
			}
		}
	}
	for _, a := range all {
		for _, b := range all {
			results := [...]Tnum{a.Add(b), a.Sub(b), a.And(b), a.Or(b), a.Xor(b), a.Mul(b)}
			meet, join, overlap := a.Intersect(b), a.Union(b), false
			for _, x := range members[a] {
				if !join.Contains(x) {
					t.Fatalf("%v in %v lacks %d", join, a, x)
				}
				for _, y := range members[b] {
					for i, want := range [...]uint64{x + y, x - y, x & y, x | y, x ^ y, x * y} {
						if !results[i].Contains(want) {
							t.Fatalf("operator %d of %v and %v is %v, which lacks %#x", i, a, b, results[i], want)
						}
					}
					if x == y {
						overlap = true
						if !meet.Contains(x) {
							t.Fatalf("%v and %v meet in %v, which lacks %d", a, b, meet, x)
						}
					}
				}
			}
			if a.Overlaps(b) != overlap {
				t.Fatalf("Overlaps of %v and %v is wrong", a, b)
			}
			in := true
			for _, x := range members[a] {
				in = in && b.Contains(x)
			}
			if a.In(b) != in {
				t.Fatalf("In of %v and %v is wrong", a, b)
			}
		}
	}
	for lo := range uint64(1 << width) {
		for hi := lo; hi < 1<<width; hi++ {
			r := RangeTnum(lo, hi)
			for v := lo; v <= hi; v++ {
				if !r.Contains(v) {
					t.Fatalf("RangeTnum(%d, %d) lacks %d", lo, hi, v)
				}
			}
		}
	}
}

func FuzzOperators(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) {
		r := rand.New(rand.NewPCG(a, b))
		s, x := sample(r)
		o, y := sample(r)
		for _, op := range binary {
			got := s
			op.op(&got, &o)
			got.Sync()
			if !got.Contains(op.concrete(x, y)) {
				t.Fatalf("%s of %+v and %+v is %+v, which lacks %#x", op.name, s, o, got, op.concrete(x, y))
			}
		}
	})
}

func BenchmarkSync(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	var all [256]Scalar
	for i := range all {
		all[i], _ = sample(r)
	}
	for i := 0; b.Loop(); i++ {
		s := all[i&255]
		s.Sync()
	}
}
