package ir

import (
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/source"
)

// A Builder appends values to a block. The methods compute constants where
// all operands are constant, so front ends need not care.
type Builder struct {
	Func  *Func
	Block *Block
	Pos   source.Span // given to what is built
}

// NewBuilder returns a Builder at the end of the entry block of f.
func NewBuilder(f *Func) *Builder { return &Builder{Func: f, Block: f.Entry(), Pos: f.Pos} }

// At moves the builder to the end of block.
func (b *Builder) At(block *Block) { b.Block = block }

// Terminated reports whether the current block already has its terminator.
func (b *Builder) Terminated() bool { return b.Block.Term != TermNone }

func (b *Builder) add(op Op, t Type, args ...*Value) *Value {
	v := b.Func.NewValue(op, t, b.Pos, args...)
	v.Block = b.Block
	b.Block.Values = append(b.Block.Values, v)
	return v
}

// Const returns the integer n of type t.
func (b *Builder) Const(t Type, n int64) *Value {
	v := b.add(OpConst, t)
	v.Int = Truncate(n, t)
	return v
}

// Null returns the null pointer of type t.
func (b *Builder) Null(t Type) *Value { return b.add(OpConst, t.OrNull()) }

// Truncate returns n as OpConst holds it: zero-extended from the width of t.
func Truncate(n int64, t Type) int64 {
	if t.Kind != Int || t.Bits == 64 {
		return n
	}
	return n & (1<<t.Bits - 1)
}

// SignExtend reads n, the constant of an integer of type t, as a signed number.
func SignExtend(n int64, t Type) int64 {
	shift := 64 - uint(t.Bits)
	return n << shift >> shift
}

// Binary returns x op y.
func (b *Builder) Binary(op Op, x, y *Value) *Value {
	if !op.IsBinary() || x.Type != y.Type || !x.Type.IsInt() {
		panic(fmt.Sprintf("ir: %s of %s and %s", op, x.Type, y.Type))
	}
	if xc, ok := x.IsConst(); ok {
		if yc, ok := y.IsConst(); ok {
			return b.Const(x.Type, EvalBinary(op, x.Type, xc, yc))
		}
	}
	return b.add(op, x.Type, x, y)
}

// Compare returns the truth value of x op y.
func (b *Builder) Compare(op Op, x, y *Value) *Value {
	if !op.IsCompare() || x.Type.Kind != y.Type.Kind || x.Type.IsInt() && x.Type != y.Type {
		panic(fmt.Sprintf("ir: %s of %s and %s", op, x.Type, y.Type))
	}
	if xc, ok := x.IsConst(); ok && x.Type.IsInt() {
		if yc, ok := y.IsConst(); ok {
			return b.Const(I1, EvalCompare(op, x.Type, xc, yc))
		}
	}
	return b.add(op, I1, x, y)
}

// Neg returns -x.
func (b *Builder) Neg(x *Value) *Value {
	if n, ok := x.IsConst(); ok {
		return b.Const(x.Type, -n)
	}
	return b.add(OpNeg, x.Type, x)
}

// Not returns the truth value that x, an I1, is not.
func (b *Builder) Not(x *Value) *Value { return b.Binary(OpXor, x, b.Const(I1, 1)) }

// Swap reverses the bytes of x.
func (b *Builder) Swap(x *Value) *Value { return b.add(OpSwap, x.Type, x) }

// Resize converts the integer x to type t: truncated, or extended by its sign
// when signed is set and by zeros otherwise.
func (b *Builder) Resize(x *Value, t Type, signed bool) *Value {
	if x.Type == t {
		return x
	}
	if n, ok := x.IsConst(); ok {
		if signed {
			n = SignExtend(n, x.Type)
		}
		return b.Const(t, n)
	}
	switch {
	case t.Bits < x.Type.Bits:
		return b.add(OpTrunc, t, x)
	case signed:
		return b.add(OpSExt, t, x)
	}
	return b.add(OpZExt, t, x)
}

// IntToPtr makes a pointer of an I64.
func (b *Builder) IntToPtr(x *Value, t Type) *Value { return b.add(OpIntToPtr, t, x) }

// PtrToInt makes an I64 of a pointer.
func (b *Builder) PtrToInt(x *Value) *Value { return b.add(OpPtrToInt, I64, x) }

// NonNull returns x, known not to be null in this block.
func (b *Builder) NonNull(x *Value) *Value {
	if !x.Type.Nullable {
		return x
	}
	return b.add(OpNonNull, x.Type.NonNull(), x)
}

// PtrCast returns x as a pointer of type t.
func (b *Builder) PtrCast(x *Value, t Type) *Value {
	if x.Type == t {
		return x
	}
	return b.add(OpPtrCast, t, x)
}

// Alloca reserves size bytes in the frame. typ may be nil.
func (b *Builder) Alloca(size int, typ btf.Type, name string) *Value {
	v := b.Func.NewValue(OpAlloca, MemPtr(SpaceStack, uint32(size)), b.Pos)
	v.Int, v.Name = int64(size), name
	if typ != nil {
		v.Aux = typ
	}
	// Allocas stand first in the entry block, in the order they were made.
	entry := b.Func.Entry()
	v.Block = entry
	i := 0
	for i < len(entry.Values) && entry.Values[i].Op == OpAlloca {
		i++
	}
	entry.Values = append(entry.Values, nil)
	copy(entry.Values[i+1:], entry.Values[i:])
	entry.Values[i] = v
	return v
}

// PtrAdd moves pointer p by the I64 n. The result knows nothing of its size.
func (b *Builder) PtrAdd(p, n *Value) *Value {
	if c, ok := n.IsConst(); ok && c == 0 {
		return p
	}
	t := p.Type
	t.Size = 0
	return b.add(OpPtrAdd, t, p, n)
}

// Offset moves pointer p by n bytes.
func (b *Builder) Offset(p *Value, n int64) *Value {
	if n == 0 {
		return p
	}
	return b.PtrAdd(p, b.Const(I64, n))
}

// Field returns the address of a field behind p.
func (b *Builder) Field(p *Value, ref *FieldRef) *Value {
	t := p.Type
	t.Size = 0
	v := b.add(OpField, t, p)
	v.Aux = ref
	return v
}

// Core returns a fact of the target as an integer of type t.
func (b *Builder) Core(t Type, ref *CoreRef) *Value {
	v := b.add(OpCore, t)
	v.Aux = ref
	return v
}

// Global returns the address of g.
func (b *Builder) Global(g *Global) *Value {
	size := len(g.Init)
	if size == 0 && g.Type != nil {
		size, _ = btf.Sizeof(g.Type)
	}
	v := b.add(OpGlobal, MemPtr(SpaceMapValue, uint32(size)))
	v.Aux = g
	return v
}

// Map returns m for passing to helpers.
func (b *Builder) Map(m *Map) *Value {
	v := b.add(OpMap, PtrTo(SpaceMap))
	v.Aux = m
	return v
}

// FuncRef returns f for passing to helpers.
func (b *Builder) FuncRef(f *Func) *Value {
	v := b.add(OpFunc, PtrTo(SpaceFunc))
	v.Aux = f
	return v
}

// Ksym returns the address of a kernel symbol or kconfig value.
func (b *Builder) Ksym(e *Extern, t Type) *Value {
	v := b.add(OpKsym, t)
	v.Aux = e
	return v
}

// Load reads a value of type t at p.
func (b *Builder) Load(t Type, p *Value) *Value { return b.add(OpLoad, t, p) }

// Store writes x at p.
func (b *Builder) Store(p, x *Value) *Value { return b.add(OpStore, Type{}, p, x) }

// VolatileLoad is Load with the effect of C's volatile.
func (b *Builder) VolatileLoad(t Type, p *Value) *Value {
	v := b.Load(t, p)
	v.Int = VolatileAccess
	return v
}

// VolatileStore is Store with the effect of C's volatile.
func (b *Builder) VolatileStore(p, x *Value) *Value {
	v := b.Store(p, x)
	v.Int = VolatileAccess
	return v
}

// MemCopy copies size bytes to dst from src.
func (b *Builder) MemCopy(dst, src *Value, size int) *Value {
	v := b.add(OpMemCopy, I64, dst, src)
	v.Int = int64(size)
	return v
}

// MemZero clears size bytes at dst.
func (b *Builder) MemZero(dst *Value, size int) *Value {
	v := b.add(OpMemZero, Type{}, dst)
	v.Int = int64(size)
	return v
}

// Atomic changes memory at p by x; the value before is returned when fetch is set.
func (b *Builder) Atomic(op AtomicOp, p, x *Value, fetch bool) *Value {
	t := Type{}
	if fetch || op == AtomicXchg {
		t = x.Type
	}
	v := b.add(OpAtomic, t, p, x)
	v.Int = int64(op)
	return v
}

// CmpXchg writes x at p if the value there is old, and returns the value before.
func (b *Builder) CmpXchg(p, old, x *Value) *Value {
	v := b.add(OpAtomic, x.Type, p, old, x)
	v.Int = int64(AtomicCmpXchg)
	return v
}

// Call calls f.
func (b *Builder) Call(f *Func, args ...*Value) *Value {
	v := b.add(OpCall, f.Result, args...)
	v.Aux = f
	return v
}

// CallExtern calls a helper or kfunc.
func (b *Builder) CallExtern(e *Extern, args ...*Value) *Value {
	v := b.add(OpCall, e.Result, args...)
	v.Aux = e
	return v
}

func (b *Builder) terminate(t Term, cond *Value, succs ...Edge) {
	if b.Terminated() {
		panic("ir: the block already ends by " + b.Block.Term.String())
	}
	b.Block.Term, b.Block.Cond, b.Block.Succs, b.Block.Pos = t, cond, succs, b.Pos
}

// Jump ends the block by going to another.
func (b *Builder) Jump(to *Block, args ...*Value) { b.terminate(TermJump, nil, Edge{to, args}) }

// If ends the block by going to then when cond is 1, else to els.
func (b *Builder) If(cond *Value, then, els *Block) {
	b.terminate(TermIf, cond, Edge{To: then}, Edge{To: els})
}

// IfEdges is If for targets that have parameters.
func (b *Builder) IfEdges(cond *Value, then, els Edge) { b.terminate(TermIf, cond, then, els) }

// Return ends the block by returning x, or nothing when x is nil.
func (b *Builder) Return(x *Value) { b.terminate(TermReturn, x) }

// Unreachable ends a block that control cannot reach the end of.
func (b *Builder) Unreachable() { b.terminate(TermUnreachable, nil) }
