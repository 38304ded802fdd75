package ir

import "math/bits"

// EvalBinary computes x op y for constants of type t, by the rules of
// RFC 9669 section 4.1: division by zero gives 0, modulo zero gives x, and
// shift counts are taken modulo the width.
func EvalBinary(op Op, t Type, x, y int64) int64 {
	sx, sy := SignExtend(x, t), SignExtend(y, t)
	ux, uy := uint64(Truncate(x, t)), uint64(Truncate(y, t))
	count := uy & uint64(max(t.Bits, 1)-1)
	var r int64
	switch op {
	case OpAdd:
		r = x + y
	case OpSub:
		r = x - y
	case OpMul:
		r = x * y
	case OpUDiv:
		if uy != 0 {
			r = int64(ux / uy)
		}
	case OpSDiv:
		switch sy {
		case 0:
		case -1: // the most negative number divided by -1 is itself
			r = -sx
		default:
			r = sx / sy
		}
	case OpUMod:
		r = x
		if uy != 0 {
			r = int64(ux % uy)
		}
	case OpSMod:
		switch sy {
		case 0:
			r = x
		case -1:
		default:
			r = sx % sy
		}
	case OpAnd:
		r = x & y
	case OpOr:
		r = x | y
	case OpXor:
		r = x ^ y
	case OpShl:
		r = int64(ux << count)
	case OpLShr:
		r = int64(ux >> count)
	case OpAShr:
		r = sx >> count
	default:
		panic("ir: EvalBinary of " + op.String())
	}
	return Truncate(r, t)
}

// EvalCompare is 1 when x op y holds for constants of type t, else 0.
func EvalCompare(op Op, t Type, x, y int64) int64 {
	sx, sy := SignExtend(x, t), SignExtend(y, t)
	ux, uy := uint64(Truncate(x, t)), uint64(Truncate(y, t))
	var r bool
	switch op {
	case OpEq:
		r = ux == uy
	case OpNe:
		r = ux != uy
	case OpULt:
		r = ux < uy
	case OpULe:
		r = ux <= uy
	case OpUGt:
		r = ux > uy
	case OpUGe:
		r = ux >= uy
	case OpSLt:
		r = sx < sy
	case OpSLe:
		r = sx <= sy
	case OpSGt:
		r = sx > sy
	case OpSGe:
		r = sx >= sy
	default:
		panic("ir: EvalCompare of " + op.String())
	}
	if r {
		return 1
	}
	return 0
}

// EvalSwap reverses the bytes of x, a constant of type t.
func EvalSwap(t Type, x int64) int64 {
	return int64(bits.ReverseBytes64(uint64(x)) >> (64 - uint(t.Bits)))
}
