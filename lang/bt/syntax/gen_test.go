package syntax

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/source"
)

// A generator makes random trees as the parser could have made them.
type generator struct{ *rand.Rand }

func (g generator) pick(words ...string) string { return words[g.IntN(len(words))] }

func (g generator) name() string { return g.pick("a", "pid", "foo", "args", "x1", "u32", "uint64") }

func (g generator) exprs(depth, least, most int) []Expr {
	list := []Expr{}
	for range least + g.IntN(most-least+1) {
		list = append(list, g.expr(depth))
	}
	return list
}

func (g generator) target(depth int) Expr {
	switch g.IntN(3) {
	case 0:
		return &Var{Name: g.pick("x", "y")}
	case 1:
		return &Map{Name: g.pick("", "m")}
	}
	return &MapIndex{Map: &Map{Name: g.pick("", "m")}, Keys: g.exprs(depth-1, 1, 3)}
}

func (g generator) lit() Expr {
	switch g.IntN(5) {
	case 0:
		return &StringLit{Value: "s\n", Raw: `"s\n"`}
	case 1:
		return &BoolLit{Value: g.IntN(2) == 0}
	case 2:
		return &Param{N: 1 + g.IntN(9)}
	case 3:
		return &ParamCount{}
	}
	raw := g.pick("0", "1", "0x1F", "5ms", "2e3", "1_000", "7ULL", "'c'")
	if raw[0] == '\'' {
		return &IntLit{Value: 'c', Raw: raw}
	}
	v, suffix, _ := parseInt(raw)
	return &IntLit{Value: v, Raw: raw, Suffix: suffix}
}

func (g generator) typ(depth int) TypeExpr {
	switch n := g.IntN(9); {
	case depth <= 0 || n < 3:
		return &NamedType{Name: g.pick("uint64", "int8", "foo_t", "unsigned long", "string", "bar"), Const: g.IntN(8) == 0}
	case n == 3:
		return &StructType{Name: &Name{Text: "s"}, Union: g.IntN(3) == 0}
	case n == 4:
		return &EnumType{Name: &Name{Text: "e"}}
	case n == 5:
		return &TypeofType{X: &Var{Name: "x"}}
	case n == 6:
		a := &ArrayType{Elem: g.typ(depth - 1)}
		if g.IntN(4) > 0 {
			a.Len = &IntLit{Value: 4, Raw: "4"}
		}
		return a
	}
	return &PointerType{Elem: g.typ(depth - 1), Const: g.IntN(8) == 0}
}

// castType is a type that a cast is told by wherever it stands.
func (g generator) castType(depth int) TypeExpr {
	for {
		t := g.typ(depth)
		base := t
		for {
			a, ok := base.(*ArrayType)
			if !ok {
				break
			}
			base = a.Elem
		}
		if n, ok := base.(*NamedType); !ok || n.Name != "bar" {
			return t
		}
	}
}

func (g generator) expr(depth int) Expr {
	if depth <= 0 {
		switch g.IntN(4) {
		case 0:
			return g.lit()
		case 1:
			return &Var{Name: g.pick("x", "y")}
		case 2:
			return &Map{Name: g.pick("", "m")}
		}
		return &Ident{Name: g.name()}
	}
	d := depth - 1
	switch g.IntN(20) {
	case 0, 1, 2:
		return &Binary{Op: OpMul + Op(g.IntN(int(OpLogOr))), X: g.expr(d), Y: g.expr(d)}
	case 3:
		t := &Ternary{Cond: g.expr(d), Else: g.expr(d)}
		if g.IntN(3) > 0 {
			t.Then = g.expr(d)
		}
		return t
	case 4, 5:
		op := []Op{OpNeg, OpPlus, OpNot, OpBitNot, OpDeref, OpAddr}[g.IntN(6)]
		if op == OpAddr {
			return &Unary{Op: op, X: &Var{Name: "x"}}
		}
		return &Unary{Op: op, X: g.expr(d)}
	case 6:
		return &IncDec{Dec: g.IntN(2) == 0, Prefix: g.IntN(2) == 0, X: g.target(d)}
	case 7, 8:
		return &Cast{Type: g.castType(2), X: g.expr(d)}
	case 9:
		if g.IntN(2) == 0 {
			return &TypeQuery{X: &Binary{Op: OpMul, X: &Ident{Name: "foo"}, Y: g.expr(d)}}
		}
		return &TypeQuery{Type: &PointerType{Elem: g.typ(1)}, Typeinfo: g.IntN(2) == 0}
	case 10:
		return &Offsetof{Type: &StructType{Name: &Name{Text: "s"}}, Path: []*Name{{Text: "a"}, {Text: "b"}}}
	case 11:
		return &Comptime{X: g.expr(d)}
	case 12:
		return &Field{X: g.expr(d), Arrow: g.IntN(2) == 0, Name: &Name{Text: g.pick("a", "if", "x")}}
	case 13:
		x := g.expr(d)
		if isIntLit(x) {
			x = &Var{Name: "x"}
		}
		return &TupleField{X: x, Index: g.IntN(3)}
	case 14:
		return &Index{X: g.expr(d), I: g.expr(d)}
	case 15:
		return &Call{Func: &Name{Text: g.name()}, Args: g.exprs(d, 0, 3)}
	case 16:
		return &Tuple{Elems: g.exprs(d, 0, 3)}
	case 17:
		return &Record{Fields: []*RecordField{{Name: &Name{Text: "k"}, Value: g.expr(d)}, {Name: &Name{Text: "v"}, Value: g.expr(d)}}}
	case 18:
		b := g.block(d)
		b.Stmts = append(b.Stmts, &ExprStmt{X: g.expr(d)})
		if g.IntN(2) == 0 {
			return &BlockExpr{Block: b}
		}
		return &IfExpr{If: &If{Cond: g.expr(d), Then: b, Else: b}}
	}
	return g.target(d)
}

func (g generator) block(depth int) *Block {
	b := &Block{}
	for range g.IntN(4) {
		b.Stmts = append(b.Stmts, g.stmt(depth))
	}
	return b
}

func (g generator) stmt(depth int) Stmt {
	d := depth - 1
	if depth <= 0 {
		return &ExprStmt{X: g.expr(0), Semi: true}
	}
	switch g.IntN(13) {
	case 0:
		op := OpNone
		if g.IntN(2) == 0 {
			op = []Op{OpMul, OpDiv, OpMod, OpAdd, OpSub, OpShl, OpShr, OpAnd, OpXor, OpOr}[g.IntN(10)]
		}
		return &Assign{Lhs: g.target(d), Op: op, Rhs: g.expr(depth)}
	case 1:
		return &Discard{X: g.expr(depth)}
	case 2:
		l := &Let{Var: &Var{Name: "v"}}
		if g.IntN(2) == 0 {
			l.Type = g.typ(2)
		}
		if g.IntN(2) == 0 {
			l.Value = g.expr(depth)
		}
		return l
	case 3:
		return g.block(d)
	case 4, 5:
		s := &If{Cond: g.expr(d), Then: g.block(d)}
		switch g.IntN(3) {
		case 0:
			s.Else = g.block(d)
		case 1:
			s.Else = &If{Cond: g.expr(d), Then: g.block(d)}
		}
		return s
	case 6:
		return &For{Var: &Var{Name: "i"}, Over: &Map{Name: "m"}, Body: g.block(d)}
	case 7:
		return &For{Var: &Var{Name: "i"}, Over: &Range{Lo: g.expr(d), Hi: g.expr(d)}, Body: g.block(d)}
	case 8:
		return &While{Cond: g.expr(d), Body: g.block(d)}
	case 9:
		return &Unroll{Count: g.lit(), Body: g.block(d)}
	case 10:
		return &Jump{Continue: g.IntN(2) == 0}
	case 11:
		r := &Return{}
		if g.IntN(2) == 0 {
			r.X = g.expr(depth)
		}
		return r
	}
	return &ExprStmt{X: g.expr(depth), Semi: true}
}

// shuffle sets text otherwise: with line ends, blanks and comments between
// its words.
func (g generator) shuffle(text string) string {
	items, _ := formatItems(source.NewFile("gen.bt", text))
	var b strings.Builder
	for i, it := range items {
		gap := i > 0 && it.loc.Start > items[i-1].loc.End
		switch g.IntN(12) {
		case 0:
			b.WriteString("\n")
		case 1:
			b.WriteString(" /* c */ ")
		case 2:
			b.WriteString(" // c\n\n\n")
		case 3:
			b.WriteString("  \t")
		default:
			if gap {
				b.WriteString(" ")
			}
		}
		b.WriteString(it.text)
	}
	return b.String()
}

// TestGenerated prints random trees, demands that they read back the same,
// sets them at random and demands that formatting keeps them.
func TestGenerated(t *testing.T) {
	n := 500
	if testing.Short() {
		n = 200
	}
	shuffled := 0
	for seed := range n {
		g := generator{rand.New(rand.NewPCG(uint64(seed), 1))}
		probe := &Probe{Points: []*AttachPoint{{Text: "begin"}}, Body: g.block(4)}
		if g.IntN(2) == 0 {
			probe.Pred = &Binary{Op: OpEq, X: &Ident{Name: "pid"}, Y: &Unary{Op: OpDeref, X: &Var{Name: "x"}}}
		}
		probe.Body.Stmts = append(probe.Body.Stmts, &ExprStmt{X: g.expr(5), Semi: true})
		text := Print(&Program{Decls: []Decl{probe}})
		p, diags := Parse(source.NewFile("gen.bt", text), Options{})
		if diags.HasErrors() {
			t.Fatalf("seed %d:\n%s\n%s", seed, render(diags[:1]), text)
		}
		if got, want := dump(p.Probes()[0].Body), dump(probe.Body); got != want {
			t.Fatalf("seed %d:\n%s\n got %s\nwant %s", seed, text, got, want)
		}
		if err := checkSpans(p); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := checkFormat(text); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		// Some line ends separate statements; those layouts are no scripts.
		mixed := g.shuffle(text)
		m, diags := Parse(source.NewFile("mixed.bt", mixed), Options{})
		if diags.HasErrors() {
			continue
		}
		shuffled++
		formatted, diags := Format(source.NewFile("mixed.bt", mixed))
		if diags.HasErrors() {
			t.Fatalf("seed %d: cannot format:\n%s\n%s", seed, render(diags), mixed)
		}
		if err := checkFormat(mixed); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, mixed)
		}
		if f := parseOK(t, formatted, Options{}); dump(f.Decls) != dump(m.Decls) {
			t.Fatalf("seed %d: formatting changed\n%s\ninto\n%s", seed, mixed, formatted)
		}
	}
	if shuffled < n/2 {
		t.Errorf("only %d of %d layouts could be read", shuffled, n)
	}
}

func BenchmarkOneLiner(b *testing.B) {
	file := source.NewFile("e", `tracepoint:syscalls:sys_enter_openat /pid != 1/ { printf("%-6d %-16s %s\n", pid, comm, str(args.filename)); @[comm] = count(); }`)
	b.ReportAllocs()
	for b.Loop() {
		if _, diags := Parse(file, Options{}); len(diags) > 0 {
			b.Fatal(diags)
		}
	}
}
