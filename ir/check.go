package ir

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// maxCheckErrors is how many faults Check lists before it gives up.
const maxCheckErrors = 10

// Check reports what is wrong with a module: with its structure, with the
// types of operations as each [Op] documents them, with definitions that do
// not dominate their uses. Each fault names the function, block and value.
//
// Blocks that control cannot come to are allowed, since front ends write what
// stands behind a return; but nothing reachable may use their values.
func Check(m *Module) error {
	c := &checker{}
	names := map[string]bool{}
	unique := func(kind, name string) {
		if key := kind + " @" + quoteName(name); names[key] {
			c.add(fmt.Errorf("%s: there are two of this name", key))
		} else {
			names[key] = true
		}
	}
	for _, mp := range m.Maps {
		unique("map", mp.Name)
		c.checkMap(mp)
	}
	for _, g := range m.Globals {
		unique("global", g.Name)
		if len(g.Init) > 0 && g.Type != nil {
			if n, err := btf.Sizeof(g.Type); err == nil && n != len(g.Init) {
				c.add(fmt.Errorf("global @%s: %d initial bytes for a type of %d bytes", quoteName(g.Name), len(g.Init), n))
			}
		}
	}
	for _, e := range m.Externs {
		if int(e.Kind) >= len(externNames) {
			c.add(fmt.Errorf("extern @%s: kind %d is not one", quoteName(e.Name), e.Kind))
			continue
		}
		unique(e.Kind.String(), e.Name)
	}
	for _, f := range m.Funcs {
		unique("func", f.Name)
		if f.Module != m {
			c.add(fmt.Errorf("func @%s: Module is another module", quoteName(f.Name)))
		}
		c.fn(f)
	}
	return c.err()
}

// CheckFunc is [Check] for one function.
func CheckFunc(f *Func) error {
	c := &checker{}
	c.fn(f)
	return c.err()
}

type checker struct {
	errs []error
	f    *Func
	b    *Block
	def  []*Value // by ID
	at   []int32  // by ID: the place in the block, parameters -1
	cfg  *CFG
}

func (c *checker) err() error { return errors.Join(c.errs...) }

func (c *checker) add(err error) {
	if len(c.errs) < maxCheckErrors {
		c.errs = append(c.errs, err)
	}
}

// bad reports a fault of value v, or of the terminator when v is nil, or of
// the function when there is no block either.
func (c *checker) bad(v *Value, format string, args ...any) {
	if len(c.errs) >= maxCheckErrors {
		return
	}
	where := "func @" + quoteName(c.f.Name)
	if c.b != nil {
		where += ", block " + c.b.Label()
	}
	if v != nil {
		where += ", " + v.String()
	}
	c.add(fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...)))
}

func (c *checker) checkMap(m *Map) {
	for _, side := range []struct {
		what string
		t    btf.Type
		size uint32
	}{{"key", m.Key, m.KeySize}, {"value", m.Value, m.ValueSize}} {
		if side.t == nil {
			continue
		}
		if n, err := btf.Sizeof(side.t); err == nil && uint64(n) != uint64(side.size) {
			c.add(fmt.Errorf("map @%s: the %s is of %d bytes, its type of %d", quoteName(m.Name), side.what, side.size, n))
		}
	}
}

func (c *checker) fn(f *Func) {
	c.f, c.b = f, nil
	if len(f.Blocks) == 0 {
		c.bad(nil, "a function needs a block to enter")
		return
	}
	if !c.structure() {
		return // what follows relies on it
	}
	c.cfg = NewCFG(f)
	for _, b := range f.Blocks {
		c.b = b
		for _, v := range b.Values {
			c.operandsDominate(v, v.Args)
			if !c.arity(v) {
				continue
			}
			c.value(v)
		}
		c.term(b)
	}
	c.b = nil
}

// structure checks blocks, edges and numbers: all that is needed to walk
// over the function.
func (c *checker) structure() bool {
	f := c.f
	before := len(c.errs)
	c.def = make([]*Value, f.NumValues())
	c.at = make([]int32, f.NumValues())
	blocks := make([]*Block, f.NumBlocks())
	for _, b := range f.Blocks {
		c.b = nil
		if b.ID < 0 || int(b.ID) >= len(blocks) {
			c.bad(nil, "block %s has a number that was never given out", b.Label())
			continue
		}
		if blocks[b.ID] != nil {
			c.bad(nil, "blocks %s and %s have the same number", blocks[b.ID].Label(), b.Label())
		}
		blocks[b.ID] = b
		c.b = b
		if b.Func != f {
			c.bad(nil, "the block belongs to another function")
		}
		for _, v := range b.Params {
			c.define(v, -1)
			if v.Op != OpParam {
				c.bad(v, "stands among the parameters and is no param")
			}
			if v.Type.Kind == Void {
				c.bad(v, "a parameter cannot be void")
			}
		}
		for i, v := range b.Values {
			c.define(v, int32(i))
			if v.Op == OpParam {
				c.bad(v, "a param stands among the parameters of its block only")
			}
		}
	}
	for _, b := range f.Blocks {
		c.b = b
		want := 0
		switch b.Term {
		case TermNone:
			c.bad(nil, "the block has no terminator")
			continue
		case TermJump:
			want = 1
		case TermIf:
			want = 2
		case TermReturn, TermUnreachable:
		default:
			c.bad(nil, "terminator %d is not one", b.Term)
			continue
		}
		if len(b.Succs) != want {
			c.bad(nil, "a block that ends by %s has %d successors, not %d", b.Term, want, len(b.Succs))
		}
		for _, e := range b.Succs {
			switch {
			case e.To == nil || e.To.ID < 0 || int(e.To.ID) >= len(blocks) || blocks[e.To.ID] != e.To:
				c.bad(nil, "the edge to %s leads out of the function", e.To.Label())
			case e.To == f.Entry():
				c.bad(nil, "nothing may lead back to the entry %s", e.To.Label())
			case len(e.Args) != len(e.To.Params):
				c.bad(nil, "the edge to %s has %d arguments for %d parameters", e.To.Label(), len(e.Args), len(e.To.Params))
			}
		}
	}
	return len(c.errs) == before
}

func (c *checker) define(v *Value, at int32) {
	switch {
	case v.ID < 0 || int(v.ID) >= len(c.def):
		c.bad(v, "has a number that was never given out")
		return
	case c.def[v.ID] == v:
		c.bad(v, "stands in the function twice")
	case c.def[v.ID] != nil:
		c.bad(v, "has the number of %s", c.def[v.ID].Label())
	case v.Block != c.b:
		c.bad(v, "Block says it stands in %s", v.Block.Label())
	}
	c.def[v.ID] = v
	c.at[v.ID] = at
}

// operandsDominate checks that args are defined where user, or the terminator when
// user is nil, uses them.
func (c *checker) operandsDominate(user *Value, args []*Value) {
	for i, a := range args {
		switch {
		case a == nil:
			c.bad(user, "operand %d is missing", i+1)
		case a.ID < 0 || int(a.ID) >= len(c.def) || c.def[a.ID] != a:
			c.bad(user, "operand %s stands nowhere in the function", a.Label())
		case a.Type.Kind == Void:
			c.bad(user, "operand %s has no result", a.Label())
		case !c.cfg.Reachable(c.b):
		case a.Block == c.b:
			if user != nil && c.at[a.ID] >= c.at[user.ID] {
				c.bad(user, "operand %s is used before it is defined", a.Label())
			}
		case !c.cfg.Reachable(a.Block) || !c.cfg.Dominates(a.Block, c.b):
			c.bad(user, "operand %s is defined in %s, which does not dominate this block", a.Label(), a.Block.Label())
		}
	}
}

// arity checks the number of operands, and that what an operation does not
// use is empty.
func (c *checker) arity(v *Value) bool {
	for _, a := range v.Args {
		if a == nil {
			return false // already reported
		}
	}
	want := -1
	hasInt, hasAux := false, false
	switch v.Op {
	case OpConst:
		want, hasInt = 0, true
	case OpAlloca:
		want, hasInt, hasAux = 0, true, true
	case OpCore, OpGlobal, OpMap, OpFunc, OpKsym:
		want, hasAux = 0, true
	case OpNeg, OpSwap, OpTrunc, OpZExt, OpSExt, OpIntToPtr, OpPtrToInt, OpNonNull, OpPtrCast:
		want = 1
	case OpLoad:
		want, hasInt = 1, true
	case OpField:
		want, hasAux = 1, true
	case OpMemZero:
		want, hasInt = 1, true
	case OpPtrAdd:
		want = 2
	case OpStore:
		want, hasInt = 2, true
	case OpMemCopy:
		want, hasInt = 2, true
	case OpAtomic:
		want, hasInt = 2, true
		if AtomicOp(v.Int) == AtomicCmpXchg {
			want = 3
		}
	case OpCall:
		want, hasAux = len(v.Args), true
	default:
		if !v.Op.IsBinary() && !v.Op.IsCompare() {
			c.bad(v, "%s is no operation", v.Op)
			return false
		}
		want = 2
	}
	switch {
	case len(v.Args) != want:
		c.bad(v, "%s takes %d operands, here are %d", v.Op, want, len(v.Args))
		return false
	case !hasInt && v.Int != 0:
		c.bad(v, "%s does not use Int, which is %d", v.Op, v.Int)
	case !hasAux && v.Aux != nil:
		c.bad(v, "%s does not use Aux, which is a %T", v.Op, v.Aux)
	}
	return true
}

// Assignable reports whether a value of type from may be passed where a
// parameter of type to is: integers of the same width; pointers into the same
// space that promise at least as much (not null, as many bytes).
func Assignable(from, to Type) bool {
	if from.Kind != to.Kind {
		return false
	}
	if from.Kind != Ptr {
		return from == to
	}
	return from.Space == to.Space && (to.Nullable || !from.Nullable) && (to.Size == 0 || from.Size >= to.Size)
}

// passable is Assignable for what the kernel provides: memory of any
// directly readable kind is memory, and kernel objects lie in kernel memory.
// A parameter of type void takes anything.
func passable(arg *Value, to Type) bool {
	from := arg.Type
	if to.Kind == Void || Assignable(from, to) {
		return true
	}
	if from.Kind != Ptr || to.Kind != Ptr || from.Nullable && !to.Nullable {
		return false
	}
	if arg.Op == OpConst {
		return true // null, to what may be null
	}
	if to.Size > 0 && from.Size > 0 && from.Size < to.Size {
		return false
	}
	switch to.Space {
	case SpaceMem:
		return from.Space.Direct() && from.Space != SpaceCtx
	case SpaceKernel:
		return from.Space == SpaceBTF
	}
	return from.Space == to.Space
}

func (c *checker) readable(v, p *Value, size int) {
	switch {
	case !p.Type.IsPtr():
		c.bad(v, "%s is no pointer but %s", p.Label(), p.Type)
	case !p.Type.Space.Direct() && p.Type.Space != SpaceKernel && p.Type.Space != SpaceUser:
		c.bad(v, "nothing can be read through %s, a %s", p.Label(), p.Type)
	case p.Type.Nullable && p.Type.Space.Direct():
		c.bad(v, "%s may be null: branch on it and use nonnull first", p.Label())
	case p.Type.Size > 0 && size > int(p.Type.Size):
		c.bad(v, "reads %d bytes where %s has %d", size, p.Label(), p.Type.Size)
	}
}

func (c *checker) writable(v, p *Value, size int) {
	switch {
	case !p.Type.IsPtr():
		c.bad(v, "%s is no pointer but %s", p.Label(), p.Type)
	case !p.Type.Space.Writable():
		c.bad(v, "nothing can be written through %s, a %s", p.Label(), p.Type)
	case p.Type.Nullable:
		c.bad(v, "%s may be null: branch on it and use nonnull first", p.Label())
	case p.Type.Size > 0 && size > int(p.Type.Size):
		c.bad(v, "writes %d bytes where %s has %d", size, p.Label(), p.Type.Size)
	}
}

// access checks what a load or store says of itself.
func (c *checker) access(v *Value) {
	if v.Int != 0 && v.Int != VolatileAccess {
		c.bad(v, "an access is plain or volatile, not %d", v.Int)
	}
}

// result checks that v has the type want.
func (c *checker) result(v *Value, want Type) {
	if v.Type != want {
		c.bad(v, "the result of %s is %s here, not %s", v.Op, want, v.Type)
	}
}

func (c *checker) value(v *Value) {
	if v.Type.Kind == Int {
		switch v.Type.Bits {
		case 1, 8, 16, 32, 64:
		default:
			c.bad(v, "there is no integer type of %d bits", v.Type.Bits)
			return
		}
	}
	switch {
	case v.Op.IsBinary():
		c.binary(v)
		return
	case v.Op.IsCompare():
		c.compare(v)
		return
	}
	var x, y Type
	if len(v.Args) > 0 {
		x = v.Args[0].Type
	}
	if len(v.Args) > 1 {
		y = v.Args[1].Type
	}
	switch v.Op {
	case OpConst:
		switch {
		case v.Type.IsInt() && Truncate(v.Int, v.Type) != v.Int:
			c.bad(v, "the constant has bits above its width")
		case v.Type.IsPtr() && (v.Int != 0 || !v.Type.Nullable):
			c.bad(v, "the only constant pointer is null, of a type that may be null")
		case v.Type.Kind == Void:
			c.bad(v, "a constant needs a type")
		}
	case OpNeg:
		if !x.IsInt() {
			c.bad(v, "%s is no integer but %s", v.Args[0].Label(), x)
		}
		c.result(v, x)
	case OpSwap:
		if !x.IsInt() || x.Bits < 16 {
			c.bad(v, "only i16, i32 and i64 have bytes to swap, not %s", x)
		}
		c.result(v, x)
	case OpTrunc, OpZExt, OpSExt:
		switch {
		case !x.IsInt() || !v.Type.IsInt():
			c.bad(v, "%s goes between integers, not from %s to %s", v.Op, x, v.Type)
		case v.Op == OpTrunc && x.Bits <= v.Type.Bits:
			c.bad(v, "trunc makes an integer narrower, not %s of %s", v.Type, x)
		case v.Op != OpTrunc && x.Bits >= v.Type.Bits:
			c.bad(v, "%s makes an integer wider, not %s of %s", v.Op, v.Type, x)
		}
	case OpIntToPtr:
		if x != I64 || !v.Type.IsPtr() {
			c.bad(v, "inttoptr makes a pointer of an i64, not %s of %s", v.Type, x)
		}
	case OpPtrToInt:
		if v.Type != I64 || !x.IsPtr() {
			c.bad(v, "ptrtoint makes an i64 of a pointer, not %s of %s", v.Type, x)
		}
	case OpNonNull:
		if !x.IsPtr() {
			c.bad(v, "%s is no pointer but %s", v.Args[0].Label(), x)
		}
		c.result(v, x.NonNull())
	case OpPtrCast:
		if !x.IsPtr() || !v.Type.IsPtr() {
			c.bad(v, "ptrcast goes between pointers, not from %s to %s", x, v.Type)
		}
	case OpAlloca:
		c.alloca(v)
	case OpPtrAdd:
		if y != I64 {
			c.bad(v, "a pointer is moved by an i64, not by %s", y)
		}
		c.moved(v, x)
	case OpField:
		c.field(v, x)
	case OpCore:
		c.core(v)
	case OpGlobal:
		g, ok := v.Aux.(*Global)
		switch {
		case !ok || g == nil:
			c.bad(v, "Aux of global is a *Global, not %T", v.Aux)
		case c.f.Module != nil && !contains(c.f.Module.Globals, g):
			c.bad(v, "the variable is not one of the module's")
		case !v.Type.IsPtr() || v.Type.Space != SpaceMapValue:
			c.bad(v, "the address of a variable is a ptr.value, not %s", v.Type)
		}
	case OpMap:
		m, ok := v.Aux.(*Map)
		switch {
		case !ok || m == nil:
			c.bad(v, "Aux of map is a *Map, not %T", v.Aux)
		case c.f.Module != nil && !contains(c.f.Module.Maps, m):
			c.bad(v, "the map is not one of the module's")
		}
		c.result(v, PtrTo(SpaceMap))
	case OpFunc:
		if f, ok := v.Aux.(*Func); !ok || f == nil {
			c.bad(v, "Aux of func is a *Func, not %T", v.Aux)
		} else if c.f.Module != nil && !contains(c.f.Module.Funcs, f) {
			c.bad(v, "the function is not one of the module's")
		}
		c.result(v, PtrTo(SpaceFunc))
	case OpKsym:
		if e, ok := v.Aux.(*Extern); !ok || e == nil || e.Kind != ExternKsym && e.Kind != ExternKconfig {
			c.bad(v, "Aux of ksym is an *Extern of kind ksym or kconfig")
		} else if c.f.Module != nil && !contains(c.f.Module.Externs, e) {
			c.bad(v, "the symbol is not one of the module's externs")
		}
		if !v.Type.IsPtr() {
			c.bad(v, "an address is a pointer, not %s", v.Type)
		}
	case OpLoad:
		c.access(v)
		if v.Type.Kind == Void {
			c.bad(v, "a load needs a type")
		}
		c.readable(v, v.Args[0], v.Type.Bytes())
	case OpStore:
		c.access(v)
		c.result(v, Type{})
		c.writable(v, v.Args[0], y.Bytes())
	case OpMemCopy:
		c.result(v, I64)
		if v.Int <= 0 {
			c.bad(v, "copies %d bytes", v.Int)
		}
		c.writable(v, v.Args[0], int(v.Int))
		c.readable(v, v.Args[1], int(v.Int))
	case OpMemZero:
		c.result(v, Type{})
		if v.Int <= 0 {
			c.bad(v, "clears %d bytes", v.Int)
		}
		c.writable(v, v.Args[0], int(v.Int))
	case OpAtomic:
		c.atomic(v)
	case OpCall:
		c.call(v)
	}
}

func contains[T any](list []*T, x *T) bool {
	for _, y := range list {
		if y == x {
			return true
		}
	}
	return false
}

func (c *checker) binary(v *Value) {
	x, y := v.Args[0].Type, v.Args[1].Type
	if !x.IsInt() || x != y {
		c.bad(v, "the operands have to be integers of one type, not %s and %s", x, y)
	}
	c.result(v, x)
}

func (c *checker) compare(v *Value) {
	x, y := v.Args[0], v.Args[1]
	c.result(v, I1)
	if x.Type.IsInt() && x.Type == y.Type {
		return
	}
	if !x.Type.IsPtr() || !y.Type.IsPtr() {
		c.bad(v, "the operands have to be integers of one type, or pointers, not %s and %s", x.Type, y.Type)
		return
	}
	packet := func(v *Value) bool { return v.Type.Space == SpacePacket || v.Type.Space == SpacePacketEnd }
	if packet(x) && packet(y) {
		return
	}
	if (v.Op == OpEq || v.Op == OpNe) && (x.Op == OpConst || y.Op == OpConst) {
		return
	}
	c.bad(v, "a pointer is compared for equality with null, or a packet pointer with another; for more, make integers of them by ptrtoint")
}

// moved checks the pointer v that was made by moving one of type x.
func (c *checker) moved(v *Value, x Type) {
	switch {
	case !x.IsPtr():
		c.bad(v, "%s is no pointer but %s", v.Args[0].Label(), x)
	case !v.Type.IsPtr() || v.Type.Space != x.Space:
		c.bad(v, "a %s moved is a pointer into the same space, not %s", x, v.Type)
	case x.Nullable && x.Space.Direct():
		c.bad(v, "%s may be null: branch on it and use nonnull first", v.Args[0].Label())
	case x.Nullable && !v.Type.Nullable:
		c.bad(v, "a %s moved may still be null", x)
	case x.Space == SpacePacketEnd || x.Space == SpaceMap || x.Space == SpaceFunc:
		c.bad(v, "a %s cannot be moved", x)
	}
}

func (c *checker) alloca(v *Value) {
	switch {
	case c.b != c.f.Entry():
		c.bad(v, "an alloca stands in the entry block")
	case v.Int <= 0:
		c.bad(v, "reserves %d bytes", v.Int)
	case !v.Type.IsPtr() || v.Type.Space != SpaceStack || int64(v.Type.Size) > v.Int:
		c.bad(v, "the address of %d bytes of frame is a ptr.stack[%d], not %s", v.Int, v.Int, v.Type)
	}
	if v.Aux == nil {
		return
	}
	t, ok := v.Aux.(btf.Type)
	if !ok {
		c.bad(v, "Aux of alloca is a btf.Type, not %T", v.Aux)
		return
	}
	if n, err := btf.Sizeof(t); err == nil && int64(n) > v.Int {
		c.bad(v, "the type that lives there has %d bytes", n)
	}
}

func (c *checker) field(v *Value, x Type) {
	ref, ok := v.Aux.(*FieldRef)
	if !ok || ref == nil {
		c.bad(v, "Aux of field is a *FieldRef, not %T", v.Aux)
		return
	}
	c.moved(v, x)
	if isNilType(ref.Struct) {
		c.bad(v, "the field's struct is missing")
		return
	}
	steps, err := WalkPath(ref.Struct, ref.Path)
	if err != nil {
		c.bad(v, "%v", err)
		return
	}
	var bit uint64
	for _, s := range steps {
		bit += s.Bit
	}
	// A bit field is reached by way of the integer that holds it.
	if n := len(steps); (n == 0 || steps[n-1].BitSize == 0) && bit != uint64(ref.Offset)*8 {
		c.bad(v, "the field is at byte %d of its type, Offset says %d", bit/8, ref.Offset)
	}
}

func (c *checker) core(v *Value) {
	ref, ok := v.Aux.(*CoreRef)
	if !ok || ref == nil {
		c.bad(v, "Aux of core is a *CoreRef, not %T", v.Aux)
		return
	}
	if !v.Type.IsInt() {
		c.bad(v, "a fact of the target is an integer, not %s", v.Type)
	}
	if isNilType(ref.Type) {
		c.bad(v, "the type asked about is missing")
		return
	}
	switch ref.Kind {
	case CoreFieldByteOffset, CoreFieldByteSize, CoreFieldExists, CoreFieldSigned, CoreFieldLShiftU64, CoreFieldRShiftU64:
		if _, err := WalkPath(ref.Type, ref.Path); err != nil {
			c.bad(v, "%v", err)
		}
	case CoreEnumvalExists, CoreEnumvalValue:
		e, ok := underlying(ref.Type).(*btf.Enum)
		switch {
		case !ok:
			c.bad(v, "%T is no enum", ref.Type)
		case len(ref.Path) != 1 || ref.Path[0] < 0 || ref.Path[0] >= len(e.Values):
			c.bad(v, "the path %v is not the index of one of %d enumerators", ref.Path, len(e.Values))
		}
	case CoreTypeIDLocal, CoreTypeIDTarget, CoreTypeExists, CoreTypeSize, CoreTypeMatches:
		if len(ref.Path) > 0 {
			c.bad(v, "a question about a whole type has no path")
		}
	default:
		c.bad(v, "kind %d of CO-RE relocation is not one", ref.Kind)
	}
}

func (c *checker) atomic(v *Value) {
	p, x := v.Args[0], v.Args[1].Type
	c.writable(v, p, x.Bytes())
	if s := p.Type.Space; s == SpaceCtx || s == SpacePacket {
		c.bad(v, "there is no atomic operation on memory of space %s", s)
	}
	if x != I32 && x != I64 {
		c.bad(v, "atomic operations are on i32 and i64, not %s", x)
	}
	op := AtomicOp(v.Int)
	switch {
	case op < 0 || op > AtomicCmpXchg:
		c.bad(v, "atomic operation %d is not one", v.Int)
	case op == AtomicCmpXchg && v.Args[2].Type != x:
		c.bad(v, "the expected and the new value have one type, not %s and %s", x, v.Args[2].Type)
	case op >= AtomicXchg || v.Type.Kind != Void:
		c.result(v, x)
	}
}

func (c *checker) call(v *Value) {
	var params []Type
	var result Type
	checked := true
	switch callee := v.Aux.(type) {
	case *Func:
		if callee == nil || len(callee.Blocks) == 0 {
			c.bad(v, "the function called has no body")
			return
		}
		if c.f.Module != nil && !contains(c.f.Module.Funcs, callee) {
			c.bad(v, "the function called is not one of the module's")
		}
		if callee.Linkage == Program {
			c.bad(v, "@%s is a program, which only the kernel runs", callee.Name)
		}
		result = callee.Result
		params = make([]Type, 0, 5)
		for _, p := range callee.Params() {
			params = append(params, p.Type)
		}
	case *Extern:
		if callee == nil || callee.Kind != ExternHelper && callee.Kind != ExternKfunc {
			c.bad(v, "only helpers and kfuncs can be called")
			return
		}
		if c.f.Module != nil && !contains(c.f.Module.Externs, callee) {
			c.bad(v, "what is called is not one of the module's externs")
		}
		params, result, checked = callee.Params, callee.Result, callee.Params != nil
		if result.IsPtr() && result.Size == 0 {
			// How much memory it gives may depend on its arguments, as of
			// bpf_ringbuf_reserve.
			result.Size = v.Type.Size
		}
	default:
		c.bad(v, "Aux of call is a *Func or an *Extern, not %T", v.Aux)
		return
	}
	c.result(v, result)
	if !checked {
		return
	}
	if len(params) != len(v.Args) {
		c.bad(v, "the call has %d arguments for %d parameters", len(v.Args), len(params))
		return
	}
	_, extern := v.Aux.(*Extern)
	for i, a := range v.Args {
		if ok := Assignable(a.Type, params[i]) || extern && passable(a, params[i]); !ok {
			c.bad(v, "argument %d is %s, the parameter %s", i+1, a.Type, params[i])
		}
	}
}

func (c *checker) term(b *Block) {
	if b.Cond != nil {
		c.operandsDominate(nil, []*Value{b.Cond})
	}
	switch b.Term {
	case TermIf:
		if b.Cond == nil {
			c.bad(nil, "if needs a condition")
		} else if b.Cond.Type != I1 {
			c.bad(nil, "the condition %s is %s, not i1", b.Cond.Label(), b.Cond.Type)
		}
	case TermReturn:
		switch {
		case c.f.Result.Kind == Void && b.Cond != nil:
			c.bad(nil, "the function returns nothing, here it returns %s", b.Cond.Label())
		case c.f.Result.Kind != Void && b.Cond == nil:
			c.bad(nil, "the function returns %s, here it returns nothing", c.f.Result)
		case b.Cond != nil && !Assignable(b.Cond.Type, c.f.Result):
			c.bad(nil, "the function returns %s, here it returns %s", c.f.Result, b.Cond.Type)
		}
	default:
		if b.Cond != nil {
			c.bad(nil, "%s has no condition", b.Term)
		}
	}
	for _, e := range b.Succs {
		c.operandsDominate(nil, e.Args)
		for i, a := range e.Args {
			if a != nil && !Assignable(a.Type, e.To.Params[i].Type) {
				c.bad(nil, "argument %d of the edge to %s is %s, the parameter %s", i+1, e.To.Label(), a.Type, e.To.Params[i].Type)
			}
		}
	}
}
