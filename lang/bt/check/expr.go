package check

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/source"
	"github.com/skep-bpf/skep/target/typeindex"
)

// describe names a type with its article, for messages.
func describe(t *Type) string {
	switch t.Kind {
	case Invalid:
		return "of an unknown type"
	case None:
		return "a call that gives no value"
	case String:
		return "a string"
	case Int:
		if t.Literal {
			return "an integer"
		}
	case Tuple:
		return "a tuple " + t.String()
	case Record:
		return "a record " + t.String()
	case Pointer:
		return "a pointer (" + t.String() + ")"
	case Mode:
		return "a word that only steers a call"
	case Args:
		return "args as a whole"
	}
	return t.String()
}

// expr checks an expression and returns its type, never nil.
func (c *checker) expr(e syntax.Expr) *Type {
	t := c.exprType(e)
	if t == nil {
		t = tInvalid
	}
	c.info.Types[e] = t
	return t
}

func (c *checker) constant(e syntax.Expr, n int64, t *Type) *Type {
	c.info.Consts[e] = Const{Int: n}
	return t
}

// literal is a constant of the smallest type that holds it.
func (c *checker) literal(e syntax.Expr, n int64, unsigned bool) *Type {
	return c.constant(e, n, literalType(n, unsigned))
}

func (c *checker) str(e syntax.Expr, s string) *Type {
	c.info.Consts[e] = Const{IsString: true, Str: s}
	return stringType(len(s) + 1)
}

func (c *checker) exprType(e syntax.Expr) *Type {
	switch e := e.(type) {
	case *syntax.IntLit:
		return c.literal(e, int64(e.Value), true)
	case *syntax.StringLit:
		return c.str(e, e.Value)
	case *syntax.BoolLit:
		if e.Value {
			return c.constant(e, 1, tBool)
		}
		return c.constant(e, 0, tBool)
	case *syntax.Param:
		return c.param(e)
	case *syntax.ParamCount:
		return c.literal(e, int64(len(c.opts.Args)), false)
	case *syntax.Ident:
		return c.ident(e)
	case *syntax.Var:
		return c.variable(e)
	case *syntax.Map:
		m := c.mapNamed(e)
		c.info.Maps[e] = m
		c.mapKey(m, e.Loc, nil)
		return c.readMap(m, e.Loc)
	case *syntax.MapIndex:
		m := c.mapNamed(e.Map)
		c.info.Maps[e.Map] = m
		c.mapKey(m, e.Loc, e.Keys)
		return c.readMap(m, e.Loc)
	case *syntax.Unary:
		return c.unary(e)
	case *syntax.IncDec:
		return c.incDec(e)
	case *syntax.Binary:
		xt, yt := c.expr(e.X), c.expr(e.Y)
		if text, ok := c.paramTail(e); ok && xt.Kind == String {
			return c.str(e, text)
		}
		if xt.Kind == Invalid || yt.Kind == Invalid {
			return tInvalid
		}
		t := c.binaryType(e.Op, e.OpLoc, e.X, e.Y, xt, yt)
		c.foldBinary(e, t)
		if k, ok := c.info.Consts[e]; ok && t.Kind == Int && xt.Literal && yt.Literal {
			return c.literal(e, k.Int, !t.Signed)
		}
		return t
	case *syntax.Ternary:
		return c.ternary(e)
	case *syntax.Cast:
		return c.cast(e)
	case *syntax.TypeQuery:
		return c.typeQuery(e)
	case *syntax.Field:
		return c.field(e)
	case *syntax.TupleField:
		return c.tupleField(e, e.X, e.Index, e.IndexLoc)
	case *syntax.Index:
		return c.index(e)
	case *syntax.Call:
		return c.call(e)
	case *syntax.Tuple:
		t := &Type{Kind: Tuple}
		for _, x := range e.Elems {
			t.Fields = append(t.Fields, Field{Type: c.part(x)})
		}
		t.Size = layout(t.Fields)
		return t
	case *syntax.Record:
		t := &Type{Kind: Record}
		for _, f := range e.Fields {
			t.Fields = append(t.Fields, Field{Name: f.Name.Text, Type: c.part(f.Value)})
		}
		t.Size = layout(t.Fields)
		return t
	case *syntax.BlockExpr:
		return c.blockExpr(e.Block)
	case *syntax.IfExpr:
		return c.ifExpr(e.If)
	case *syntax.Comptime:
		t := c.expr(e.X)
		if k, ok := c.info.Consts[e.X]; ok {
			c.info.Consts[e] = k
		} else if t.Kind != Invalid {
			c.errorf(e.X.Span(), "not-constant", "this cannot be computed before the program runs")
		}
		return t
	case *syntax.Offsetof:
		return c.offsetof(e)
	}
	return tInvalid
}

// part checks an element of a tuple or record.
func (c *checker) part(e syntax.Expr) *Type {
	t := c.expr(e)
	switch t.Kind {
	case None, Agg, Mode, Args:
		c.errorf(e.Span(), "type-mismatch", "%s cannot be part of a tuple", describe(t))
		return tInvalid
	}
	return stored(t)
}

func (c *checker) param(e *syntax.Param) *Type {
	if e.N > len(c.opts.Args) {
		// As in the shell: what was not given is empty, and 0 as a number.
		return c.literal(e, 0, false)
	}
	text := c.opts.Args[e.N-1]
	if n, err := strconv.ParseInt(text, 0, 64); err == nil {
		return c.literal(e, n, false)
	}
	if n, err := strconv.ParseUint(text, 0, 64); err == nil {
		return c.literal(e, int64(n), true)
	}
	return c.str(e, text)
}

func (c *checker) variable(e *syntax.Var) *Type {
	v := c.scope.find(e.Name)
	if v == nil && c.hoisted(e) {
		return tInvalid
	}
	if v == nil {
		c.errorf(e.Loc, "undefined-variable", "$%s is used before it has a value", plainName(e.Name)).
			Suggest(nearestVar(c.scope, e.Name))
		// Declared so that the next use says nothing.
		v = c.declare(e)
		v.Type = tInvalid
	}
	c.info.Vars[e] = v
	if v.Type == nil {
		return tInvalid
	}
	return v.Type
}

func nearestVar(s *scope, name string) string {
	near := source.Nearest(name, func(yield func(string) bool) {
		for ; s != nil; s = s.outer {
			for n := range s.vars {
				if !yield(n) {
					return
				}
			}
		}
	})
	if near == "" {
		return ""
	}
	return "$" + near
}

// readMap is the type that the value of m has in an expression.
func (c *checker) readMap(m *Map, span source.Span) *Type {
	if m.Value == nil {
		return tInvalid
	}
	if m.Value.Kind == Agg {
		return c.aggValue(m, span)
	}
	return m.Value
}

func (c *checker) unary(e *syntax.Unary) *Type {
	if e.Op == syntax.OpAddr {
		return c.address(e)
	}
	t := c.expr(e.X)
	if t.Kind == Invalid {
		return t
	}
	if e.Op == syntax.OpDeref {
		if t.Kind != Pointer {
			if t.isInt() {
				// As old scripts have it: an address of 8 bytes.
				return tUint64
			}
			c.errorf(e.OpLoc, "type-mismatch", "only pointers can be followed, this is %s", describe(t))
			return tInvalid
		}
		if t.Elem == nil {
			c.errorf(e.OpLoc, "type-mismatch", "what a void pointer points to has no type").
				Notef("cast it first: *(uint64*)p")
			return tInvalid
		}
		return c.held(t.Elem, t.Space)
	}
	if !t.isInt() && !(e.Op == syntax.OpNot && t.Kind == Pointer) {
		c.errorf(e.OpLoc, "type-mismatch", "%s needs an integer, this is %s", e.Op, describe(t))
		return tInvalid
	}
	k, isConst := c.info.Consts[e.X]
	switch e.Op {
	case syntax.OpNeg:
		switch {
		case isConst && t.Literal:
			return c.literal(e, -k.Int, false)
		case isConst:
			c.constant(e, -k.Int, tInt64)
		}
		return tInt64
	case syntax.OpNot:
		if isConst {
			n := int64(0)
			if k.Int == 0 {
				n = 1
			}
			return c.constant(e, n, tBool)
		}
		return tBool
	case syntax.OpBitNot:
		switch {
		case isConst && t.Literal:
			return c.literal(e, ^k.Int, false)
		case isConst:
			c.constant(e, ^k.Int, tInt64)
		}
		return tInt64
	}
	if isConst {
		c.info.Consts[e] = k
	}
	return t
}

// held is the type of what lies behind a pointer into space.
func (c *checker) held(t *Type, space Space) *Type {
	switch t.Kind {
	case Struct, Array, String:
		n := *t
		n.Space = space
		return &n
	case Pointer:
		if t.Space != space && space != OwnSpace {
			n := *t
			n.Space = pointeeSpace(space)
			return &n
		}
	}
	return t
}

// pointeeSpace is where a pointer leads that was itself read from space.
func pointeeSpace(space Space) Space {
	switch space {
	case CtxSpace, OwnSpace:
		return KernelSpace
	}
	return space
}

func (c *checker) address(e *syntax.Unary) *Type {
	// The parser lets no other operand through.
	return &Type{Kind: Pointer, Size: 8, Elem: c.expr(e.X), Space: OwnSpace}
}

func (c *checker) incDec(e *syntax.IncDec) *Type {
	switch x := e.X.(type) {
	case *syntax.Var:
		t := c.expr(x)
		if !t.isInt() && t.Kind != Pointer && t.Kind != Invalid {
			c.errorf(e.OpLoc, "type-mismatch", "only integers and pointers can be counted up or down, $%s is %s", x.Name, describe(t))
			return tInvalid
		}
		if v := c.info.Vars[x]; t.isInt() && t.Size < 8 && !v.Declared {
			c.assignVar(v, x, tInt64)
			return v.Type
		}
		return t
	case *syntax.Map, *syntax.MapIndex:
		m := c.mapTarget(x)
		m.Writers++
		if m.Value == nil || m.Value.isInt() && m.Value.Size < 8 {
			c.mapValue(m, x, tInt64)
		}
		if !m.Value.isInt() {
			c.errorf(e.OpLoc, "type-mismatch", "only integers can be counted up or down, %s holds %s", m.Name, describe(m.Value))
			return tInvalid
		}
		c.info.Types[x] = m.Value
		return m.Value
	}
	c.expr(e.X)
	return tInvalid
}

// binaryType checks x op y and returns its type.
func (c *checker) binaryType(op syntax.Op, opLoc source.Span, x, y syntax.Expr, xt, yt *Type) *Type {
	mismatch := func() *Type {
		c.errorf(opLoc, "type-mismatch", "%s cannot be used on %s and %s", op, describe(xt), describe(yt)).
			NoteAt(x.Span(), "this is %s", describe(xt)).NoteAt(y.Span(), "this is %s", describe(yt))
		return tInvalid
	}
	if op == syntax.OpDiv || op == syntax.OpMod {
		if k, ok := c.info.Consts[y]; ok && !k.IsString && k.Int == 0 {
			c.errorf(y.Span(), "division-by-zero", "this divides by zero")
			return tInvalid
		}
	}
	switch op {
	case syntax.OpLogAnd, syntax.OpLogOr:
		for _, t := range []*Type{xt, yt} {
			if !t.IsScalar() {
				return mismatch()
			}
		}
		return tBool
	case syntax.OpEq, syntax.OpNe:
		if xt.IsScalar() && yt.IsScalar() {
			return tBool
		}
		if xt.Kind == ProbeName && c.isText(y) || yt.Kind == ProbeName && c.isText(x) {
			return tBool
		}
		if j := join(xt, yt); j != nil && (j.Kind == String || j.Kind == Buffer || j.Kind == Array ||
			j.Kind == Tuple || j.Kind == Record || j.Kind == Inet || j.Kind == MAC) {
			return tBool
		}
		if xt.Kind == Array && yt.Kind == Array && xt.Size == yt.Size && xt.Elem.Size == yt.Elem.Size {
			return tBool
		}
		if c.charArray(xt) && yt.Kind == String || xt.Kind == String && c.charArray(yt) {
			return tBool
		}
		return mismatch()
	case syntax.OpLt, syntax.OpGt, syntax.OpLe, syntax.OpGe:
		if xt.IsScalar() && yt.IsScalar() {
			return tBool
		}
		return mismatch()
	}
	if xt.Kind == Pointer || yt.Kind == Pointer {
		switch {
		case op == syntax.OpAdd && xt.Kind == Pointer && yt.isInt(), op == syntax.OpSub && xt.Kind == Pointer && yt.isInt():
			return xt
		case op == syntax.OpAdd && xt.isInt() && yt.Kind == Pointer:
			return yt
		case op == syntax.OpSub && xt.Kind == Pointer && yt.Kind == Pointer:
			return tInt64
		}
		if xt.IsScalar() && yt.IsScalar() && op != syntax.OpMul {
			return tUint64
		}
		return mismatch()
	}
	num := func(t *Type) bool {
		return t.isInt() || t.Kind == Ksym || t.Kind == Username || t.Kind == Errno || t.Kind == Signal
	}
	if !num(xt) || !num(yt) {
		return mismatch()
	}
	if op == syntax.OpShl || op == syntax.OpShr {
		return intType(8, xt.Signed)
	}
	if a, b := c.info.Consts[x], c.info.Consts[y]; op == syntax.OpSub && xt.Literal && yt.Literal && !xt.Signed && !yt.Signed {
		return intType(8, uint64(a.Int) < uint64(b.Int))
	}
	return intType(8, op == syntax.OpSub || xt.Signed || yt.Signed)
}

// CompareSigned reports whether x < y is decided with signs.
func CompareSigned(x, y *Type) bool {
	if x.Kind != Int || y.Kind != Int {
		return false
	}
	if x.Literal != y.Literal {
		if x.Literal {
			x, y = y, x
		}
		return x.Signed || y.Signed && x.Size < 8
	}
	switch {
	case x.Signed == y.Signed:
		return x.Signed
	case x.Size < 8 && y.Size < 8:
		return true // 64 signed bits hold both
	case x.Signed:
		return y.Size < 8
	}
	return x.Size < 8
}

// isText reports whether e is a string that is known now.
func (c *checker) isText(e syntax.Expr) bool {
	k, ok := c.info.Consts[e]
	return ok && k.IsString
}

func (c *checker) charArray(t *Type) bool {
	return t.Kind == Array && t.Elem.Kind == Int && t.Elem.Size == 1
}

func (c *checker) foldBinary(e *syntax.Binary, t *Type) {
	x, ok := c.info.Consts[e.X]
	if !ok {
		return
	}
	y, ok := c.info.Consts[e.Y]
	if !ok {
		return
	}
	truth := func(b bool) {
		n := int64(0)
		if b {
			n = 1
		}
		c.info.Consts[e] = Const{Int: n}
	}
	if x.IsString && y.IsString {
		switch e.Op {
		case syntax.OpEq:
			truth(x.Str == y.Str)
		case syntax.OpNe:
			truth(x.Str != y.Str)
		}
		return
	}
	if x.IsString || y.IsString {
		return
	}
	signed := t.Signed
	if t.Kind == Bool {
		signed = CompareSigned(c.info.Types[e.X], c.info.Types[e.Y])
	}
	a, b := x.Int, y.Int
	ua, ub := uint64(a), uint64(b)
	set := func(n int64) { c.info.Consts[e] = Const{Int: n} }
	switch e.Op {
	case syntax.OpAdd:
		set(a + b)
	case syntax.OpSub:
		set(a - b)
	case syntax.OpMul:
		set(a * b)
	case syntax.OpDiv, syntax.OpMod:
		if b == 0 {
			return // said by binaryType
		}
		switch {
		case e.Op == syntax.OpDiv && signed:
			set(a / b)
		case e.Op == syntax.OpDiv:
			set(int64(ua / ub))
		case signed:
			set(a % b)
		default:
			set(int64(ua % ub))
		}
	case syntax.OpShl:
		set(int64(ua << (ub & 63)))
	case syntax.OpShr:
		if signed {
			set(a >> (ub & 63))
		} else {
			set(int64(ua >> (ub & 63)))
		}
	case syntax.OpAnd:
		set(a & b)
	case syntax.OpOr:
		set(a | b)
	case syntax.OpXor:
		set(a ^ b)
	case syntax.OpEq:
		truth(a == b)
	case syntax.OpNe:
		truth(a != b)
	case syntax.OpLt:
		truth(signed && a < b || !signed && ua < ub)
	case syntax.OpLe:
		truth(signed && a <= b || !signed && ua <= ub)
	case syntax.OpGt:
		truth(signed && a > b || !signed && ua > ub)
	case syntax.OpGe:
		truth(signed && a >= b || !signed && ua >= ub)
	case syntax.OpLogAnd:
		truth(a != 0 && b != 0)
	case syntax.OpLogOr:
		truth(a != 0 || b != 0)
	}
}

func (c *checker) ternary(e *syntax.Ternary) *Type {
	var tt *Type
	if e.Then == nil {
		tt = c.expr(e.Cond)
	} else {
		c.cond(e.Cond)
		tt = c.expr(e.Then)
	}
	et := c.expr(e.Else)
	if tt.Kind == None && et.Kind == None {
		return tNone
	}
	j := join(tt, et)
	if j == nil {
		c.errorf(e.Loc, "type-mismatch", "the two sides of a ternary must agree, they are %s and %s", describe(tt), describe(et))
		return tInvalid
	}
	return j
}

func (c *checker) blockExpr(b *syntax.Block) *Type {
	c.scope = &scope{outer: c.scope, vars: map[string]*Var{}}
	defer func() { c.scope = c.scope.outer }()
	value := b.Value()
	for i, s := range b.Stmts {
		if value != nil && i == len(b.Stmts)-1 {
			return c.expr(value)
		}
		c.stmt(s)
	}
	return tNone
}

func (c *checker) ifExpr(s *syntax.If) *Type {
	c.cond(s.Cond)
	t := c.blockExpr(s.Then)
	var et *Type
	switch els := s.Else.(type) {
	case *syntax.Block:
		et = c.blockExpr(els)
	case *syntax.If:
		et = c.ifExpr(els)
	default:
		et = tNone
	}
	if j := join(t, et); j != nil {
		return j
	}
	c.errorf(s.Loc, "type-mismatch", "the branches of an if that is used as a value must agree, they are %s and %s", describe(t), describe(et))
	return tInvalid
}

func (c *checker) cast(e *syntax.Cast) *Type {
	t := c.typeExpr(e.Type)
	xt := c.expr(e.X)
	if t.Kind == Invalid || xt.Kind == Invalid {
		return t
	}
	switch t.Kind {
	case Int, Bool:
		if xt.IsScalar() || xt.Kind == Array && xt.Size <= 8 {
			if k, ok := c.info.Consts[e.X]; ok && !k.IsString {
				c.info.Consts[e] = Const{Int: resize(k.Int, t)}
			}
			return t
		}
	case Pointer:
		if xt.IsScalar() || xt.Kind == Array || xt.Kind == Struct {
			n := *t
			switch {
			case xt.Kind == Pointer && xt.Space != OwnSpace && xt.Space != NoSpace:
				n.Space = xt.Space
				if xt.Space == BTFSpace && !samePointee0(xt.Elem, t.Elem) {
					// The verifier knows the object under its own type only.
					n.Space = KernelSpace
				}
			default:
				n.Space = c.intSpace()
			}
			return &n
		}
	case Struct:
		if xt.IsScalar() {
			// (struct x)addr is how old scripts say *(struct x *)addr.
			n := *t
			n.Space = c.intSpace()
			return &n
		}
		if xt.Kind == Struct {
			n := *t
			n.Space = xt.Space
			return &n
		}
	case Array:
		if xt.isInt() || xt.Kind == Array {
			n := *t
			n.Space = OwnSpace
			if n.Len == 0 {
				n.Len = xt.Size / max(n.Elem.Size, 1)
				n.Size = n.Len * n.Elem.Size
			}
			return &n
		}
	case String:
		if xt.Kind == String {
			return t
		}
	case Buffer, Inet, Username, Ksym:
		if xt.isInt() {
			return t
		}
	}
	c.errorf(e.Parens, "bad-cast", "%s cannot be made of %s", t, describe(xt))
	return tInvalid
}

func samePointee0(a, b *Type) bool {
	return a != nil && b != nil && samePointee(a, b)
}

// intSpace is where an address leads that is only known as a number.
func (c *checker) intSpace() Space { return AnySpace }

func resize(n int64, t *Type) int64 {
	if t.Kind == Bool {
		if n != 0 {
			return 1
		}
		return 0
	}
	shift := uint(64 - 8*t.Size)
	if t.Signed {
		return n << shift >> shift
	}
	return int64(uint64(n) << shift >> shift)
}

func (c *checker) typeQuery(e *syntax.TypeQuery) *Type {
	var t *Type
	if e.Type != nil {
		t = c.typeExpr(e.Type)
	} else {
		if id, ok := e.X.(*syntax.Ident); ok {
			if named, err := c.structType("", id.Name); err == nil {
				t = c.view("", id.Name, named)
			}
		}
		if t == nil {
			t = c.expr(e.X)
		}
	}
	if t.Kind == Invalid {
		return t
	}
	if e.Typeinfo {
		c.errorf(e.Keyword, "not-constant", "typeinfo can only be used in a comparison that is known before the program runs")
		return tInvalid
	}
	size := t.Size
	if t.Kind == Struct {
		full, err := c.complete(t.BTF)
		if err != nil {
			c.errorf(e.Loc, "unknown-type", "the size of %s is not known: %v", t, err)
			return tInvalid
		}
		size, _ = btf.Sizeof(full)
		if name := structName(full); !t.Local && full.TypeName() != "" {
			c.rely("layout", name, e.Loc)
			return c.literal(e, int64(size), true)
		}
	}
	if f, ok := e.X.(*syntax.Field); ok {
		c.relyMember(f, e.Loc)
	}
	return c.literal(e, int64(size), true)
}

// rely notes that a constant is a property of the target.
func (c *checker) rely(kind, name string, span source.Span) {
	c.res.Relied = append(c.res.Relied, Reliance{kind, name, span})
}

// relyMember notes that a constant is a property of the member of a struct of
// the kernel.
func (c *checker) relyMember(e *syntax.Field, span source.Span) {
	if s := c.info.Fields[e]; s != nil && s.Arg == nil && s.Struct != nil && !s.Local {
		if name, ok := s.Member(); ok {
			c.rely("layout", name, span)
		}
	}
}

// Member names the struct and the member that s selects, "struct a.b", if the
// struct has a name.
func (s *Selection) Member() (string, bool) {
	if s.Struct.TypeName() == "" {
		return "", false
	}
	name, t := structName(s.Struct), s.Struct
	for _, i := range s.Path {
		list := members(btf.UnderlyingType(t))
		if i >= len(list) {
			return "", false
		}
		if list[i].Name != "" {
			name += "." + list[i].Name
		}
		t = list[i].Type
	}
	return name, true
}

func (c *checker) offsetof(e *syntax.Offsetof) *Type {
	var t *Type
	if e.Type != nil {
		t = c.typeExpr(e.Type)
	} else {
		t = c.expr(e.X)
	}
	if t.Kind == Invalid {
		return t
	}
	offset := btf.Bits(0)
	cur := t.BTF
	for _, name := range e.Path {
		full, err := c.complete(cur)
		if err != nil {
			c.errorf(name.Loc, "unknown-field", "%s has no members: %v", t, err)
			return tInvalid
		}
		_, m, off, ok := findMember(full, name.Text)
		if !ok {
			c.noMember(name, full)
			return tInvalid
		}
		offset += off
		cur = m.Type
	}
	if t.Kind == Struct && !t.Local && t.BTF.TypeName() != "" {
		name := structName(btf.UnderlyingType(t.BTF))
		if full, err := c.complete(t.BTF); err == nil {
			name = structName(full)
		}
		for _, n := range e.Path {
			name += "." + n.Text
		}
		c.rely("layout", name, e.Loc)
	}
	return c.literal(e, int64(offset/8), true)
}

func (c *checker) noMember(name *syntax.Name, t btf.Type) {
	c.errorf(name.Loc, "unknown-field", "%s has no field %q", structName(t), name.Text).
		Suggest(source.Nearest(name.Text, func(yield func(string) bool) { memberNames(t, yield) }))
}

func (c *checker) field(e *syntax.Field) *Type {
	xt := c.expr(e.X)
	deref := false
	if xt.Kind == Pointer && xt.Elem != nil {
		deref = true
		xt = c.held(xt.Elem, xt.Space)
	}
	switch xt.Kind {
	case Invalid:
		return xt
	case Args:
		for _, f := range xt.Fields {
			if f.Name == e.Name.Text {
				c.info.UsesArgs = true
				c.info.Fields[e] = &Selection{Arg: f.Arg, Type: f.Type, Offset: f.Offset}
				return f.Type
			}
		}
		c.errorf(e.Name.Loc, "unknown-field", "the probe %s has no argument %q", c.inst.Points[0].Name, e.Name.Text).
			Suggest(source.Nearest(e.Name.Text, slices.Values(fieldNames(xt.Fields))))
		return tInvalid
	case Record:
		for i, f := range xt.Fields {
			if f.Name == e.Name.Text {
				c.info.Fields[e] = &Selection{Type: f.Type, Offset: f.Offset, Index: i, Deref: deref}
				return f.Type
			}
		}
		c.errorf(e.Name.Loc, "unknown-field", "the record has no field %q; it has %s", e.Name.Text, strings.Join(fieldNames(xt.Fields), ", ")).
			Suggest(source.Nearest(e.Name.Text, slices.Values(fieldNames(xt.Fields))))
		return tInvalid
	case Struct:
		full, err := c.complete(xt.BTF)
		if err != nil {
			c.errorf(e.Name.Loc, "unknown-type", "the fields of %s are not known: %v", xt, err)
			return tInvalid
		}
		path, m, offset, ok := findMember(full, e.Name.Text)
		if !ok {
			c.noMember(e.Name, full)
			return tInvalid
		}
		t := c.held(fromBTF(m.Type, pointeeSpace(xt.Space), xt.Local), xt.Space)
		c.info.Fields[e] = &Selection{
			Path: path, Offset: int(offset / 8), BitOffset: int(offset), Bits: int(m.BitfieldSize),
			Struct: full, Type: t, Deref: deref, Local: xt.Local,
		}
		return t
	}
	d := c.errorf(e.OpLoc, "type-mismatch", "%s has no fields", describe(xt))
	if _, err := c.target.Types(); err != nil && xt.isInt() {
		d.Notef("%v", err)
	} else if xt.isInt() {
		d.Notef("cast the address first: ((struct name *)x)->field")
	}
	return tInvalid
}

func (c *checker) tupleField(e, x syntax.Expr, index int, loc source.Span) *Type {
	t := c.expr(x)
	if t.Kind == Invalid {
		return t
	}
	if t.Kind != Tuple && t.Kind != Record {
		c.errorf(loc, "type-mismatch", "%s has no numbered fields", describe(t))
		return tInvalid
	}
	if index < 0 || index >= len(t.Fields) {
		c.errorf(loc, "unknown-field", "the tuple has %d fields, the first is 0", len(t.Fields))
		return tInvalid
	}
	f := t.Fields[index]
	c.info.Fields[e] = &Selection{Type: f.Type, Offset: f.Offset, Index: index}
	return f.Type
}

func (c *checker) index(e *syntax.Index) *Type {
	xt := c.expr(e.X)
	it := c.expr(e.I)
	if xt.Kind == Invalid || it.Kind == Invalid {
		return tInvalid
	}
	if !it.isInt() {
		c.errorf(e.I.Span(), "type-mismatch", "an index must be an integer, this is %s", describe(it))
		return tInvalid
	}
	switch xt.Kind {
	case Tuple, Record:
		k, ok := c.info.Consts[e.I]
		if !ok {
			c.errorf(e.I.Span(), "not-constant", "the index of a tuple must be a constant")
			return tInvalid
		}
		return c.tupleField(e, e.X, int(k.Int), e.I.Span())
	case Array:
		if k, ok := c.info.Consts[e.I]; ok && xt.Len > 0 && (k.Int < 0 || k.Int >= int64(xt.Len)) {
			c.errorf(e.I.Span(), "bad-index", "the array has %d elements, the first is 0", xt.Len)
			return tInvalid
		}
		return c.held(xt.Elem, xt.Space)
	case String:
		if k, ok := c.info.Consts[e.I]; ok && (k.Int < 0 || k.Int >= int64(xt.Size)) {
			c.errorf(e.I.Span(), "bad-index", "the string has room for %d bytes, the first is 0", xt.Size)
			return tInvalid
		}
		return tInt8
	case Pointer:
		if xt.Elem == nil {
			c.errorf(e.Brackets, "type-mismatch", "what a void pointer points to has no type")
			return tInvalid
		}
		return c.held(xt.Elem, xt.Space)
	}
	c.errorf(e.Brackets, "type-mismatch", "%s cannot be indexed", describe(xt))
	return tInvalid
}

// typeNames are the types of the language by their names.
var typeNames = map[string]*Type{
	"bool": tBool, "int8": tInt8, "int16": tInt16, "int32": tInt32, "int64": tInt64,
	"uint8": tUint8, "uint16": tUint16, "uint32": tUint32, "uint64": tUint64,
	"int8_t": tInt8, "int16_t": tInt16, "int32_t": tInt32, "int64_t": tInt64,
	"uint8_t": tUint8, "uint16_t": tUint16, "uint32_t": tUint32, "uint64_t": tUint64,
	"s8": tInt8, "s16": tInt16, "s32": tInt32, "s64": tInt64,
	"u8": tUint8, "u16": tUint16, "u32": tUint32, "u64": tUint64,
	"char": tInt8, "signed char": tInt8, "unsigned char": tUint8,
	"short": tInt16, "short int": tInt16, "unsigned short": tUint16, "unsigned short int": tUint16,
	"int": tInt32, "signed int": tInt32, "signed": tInt32, "unsigned int": tUint32, "unsigned": tUint32,
	"long": tInt64, "long int": tInt64, "unsigned long": tUint64, "unsigned long int": tUint64, "long unsigned int": tUint64,
	"long long": tInt64, "long long int": tInt64, "unsigned long long": tUint64, "unsigned long long int": tUint64,
	"size_t": tUint64, "ssize_t": tInt64, "uintptr_t": tUint64, "intptr_t": tInt64,
	"void": tNone, "username": tUsername, "ksym_t": tKsym, "usym_t": tUsym,
}

func (c *checker) typeExpr(e syntax.TypeExpr) *Type {
	switch e := e.(type) {
	case *syntax.NamedType:
		if t, ok := typeNames[e.Name]; ok {
			return t
		}
		switch e.Name {
		case "string":
			return stringType(c.res.Config.MaxStrlen)
		case "buffer":
			return &Type{Kind: Buffer, Size: c.res.Config.MaxStrlen + 4}
		case "inet":
			return tInet
		case "macaddr", "mac_address":
			return tMAC
		}
		t, err := c.structType("", e.Name)
		if err == nil {
			return c.view("", e.Name, t)
		}
		c.unknownType(e.Loc, e.Name, err)
	case *syntax.StructType:
		if e.Name == nil {
			c.errorf(e.Loc, "unknown-type", "a struct needs a name here")
			return tInvalid
		}
		kind := "struct"
		if e.Union {
			kind = "union"
		}
		t, err := c.structType(kind, e.Name.Text)
		if err == nil {
			return c.view(kind, e.Name.Text, t)
		}
		c.unknownType(e.Name.Loc, kind+" "+e.Name.Text, err)
	case *syntax.EnumType:
		if e.Name == nil {
			return tInt32
		}
		t, err := c.structType("enum", e.Name.Text)
		if err == nil {
			return fromBTF(t, KernelSpace, false)
		}
		c.unknownType(e.Name.Loc, "enum "+e.Name.Text, err)
	case *syntax.PointerType:
		t := c.typeExpr(e.Elem)
		if t.Kind == None {
			return tVoidPtr
		}
		if t.Kind == Invalid {
			return t
		}
		return &Type{Kind: Pointer, Size: 8, Elem: t, Space: AnySpace}
	case *syntax.ArrayType:
		return c.arrayType(e)
	case *syntax.TypeofType:
		if e.Type != nil {
			return c.typeExpr(e.Type)
		}
		return stored(c.expr(e.X))
	case *syntax.TupleType:
		t := &Type{Kind: Tuple}
		for _, x := range e.Elems {
			t.Fields = append(t.Fields, Field{Type: c.typeExpr(x)})
		}
		t.Size = layout(t.Fields)
		return t
	case *syntax.RecordType:
		t := &Type{Kind: Record}
		for _, f := range e.Fields {
			t.Fields = append(t.Fields, Field{Name: f.Name.Text, Type: c.typeExpr(f.Type)})
		}
		t.Size = layout(t.Fields)
		return t
	}
	return tInvalid
}

func (c *checker) arrayType(e *syntax.ArrayType) *Type {
	n := int64(0)
	if e.Len != nil {
		c.expr(e.Len)
		k, ok := c.info.Consts[e.Len]
		if !ok || k.IsString || k.Int < 0 || k.Int > 1<<20 {
			c.errorf(e.Len.Span(), "bad-length", "the length of an array must be a constant from 0 to 1048576")
			return tInvalid
		}
		n = k.Int
	}
	if name, ok := e.Elem.(*syntax.NamedType); ok {
		switch name.Name {
		case "string":
			return stringType(int(n))
		case "buffer":
			return &Type{Kind: Buffer, Size: int(n) + 4}
		case "inet":
			return tInet
		}
	}
	elem := c.typeExpr(e.Elem)
	if elem.Kind == Invalid {
		return elem
	}
	return &Type{Kind: Array, Elem: elem, Len: int(n), Size: elem.Size * int(n), Space: OwnSpace}
}

func (c *checker) unknownType(span source.Span, name string, err error) {
	d := c.errorf(span, "unknown-type", "there is no type %q", name)
	if !isNotFound(err) {
		d.Notef("%v", err)
		return
	}
	// "struct x" for "strct x" helps as little as a struct for an enum.
	kind, bare, tagged := strings.Cut(name, " ")
	if !tagged {
		kind, bare = "", name
	}
	kinds := map[string]typeindex.Kind{"": typeindex.KindTypedef, "struct": typeindex.KindStruct, "union": typeindex.KindUnion, "enum": typeindex.KindEnum}[kind]
	near := source.Nearest(bare, func(yield func(string) bool) {
		if !tagged {
			for _, n := range slices.Sorted(maps.Keys(typeNames)) {
				if !yield(n) {
					return
				}
			}
		}
		types, err := c.target.Types()
		if err != nil {
			return
		}
		for e := range types.Names(kinds, "") {
			if !yield(e.Name) {
				return
			}
		}
	})
	d.Suggest(near)
}

// fieldNames are the names of fields, in their order.
func fieldNames(fields []Field) []string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return names
}
