package syntax

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/source"
)

// nobody finds no file.
type nobody struct{}

func (nobody) Include(string, bool, *source.File) (*source.File, error) {
	return nil, errors.New("there are no files here")
}

// files finds what it holds, and leaves <angled> ones it does not hold to the
// target.
type files map[string]string

func (f files) Include(path string, angled bool, _ *source.File) (*source.File, error) {
	text, ok := f[path]
	switch {
	case ok:
		return source.NewFile(path, text), nil
	case angled:
		return nil, nil
	}
	return nil, errors.New("no such file")
}

var exprTests = []struct{ in, want string }{
	{`1 + 2 * 3`, `(Binary + (IntLit 1 "1" "") (Binary * (IntLit 2 "2" "") (IntLit 3 "3" "")))`},
	{`(1 + 2) * 3`, `(Binary * (Binary + (IntLit 1 "1" "") (IntLit 2 "2" "")) (IntLit 3 "3" ""))`},
	{`a - b - c`, `(Binary - (Binary - (Ident "a") (Ident "b")) (Ident "c"))`},
	{`a || b && c | d ^ e & f == g < h << i`, `(Binary || (Ident "a") (Binary && (Ident "b") (Binary | (Ident "c") (Binary ^ (Ident "d") (Binary & (Ident "e") (Binary == (Ident "f") (Binary < (Ident "g") (Binary << (Ident "h") (Ident "i")))))))))`},
	{`a ? b : c ? d : e`, `(Ternary (Ident "a") (Ident "b") (Ternary (Ident "c") (Ident "d") (Ident "e")))`},
	{`a ?: b`, `(Ternary (Ident "a") nil (Ident "b"))`},
	{`a ? : b`, `(Ternary (Ident "a") nil (Ident "b"))`},
	{`-$x++`, `(Unary - (IncDec (Var "x")))`},
	{`- -1`, `(Unary - (Unary - (IntLit 1 "1" "")))`},
	{`--@m[1]`, `(IncDec Dec Prefix (MapIndex (Map "m") [(IntLit 1 "1" "")]))`},
	{`!~*$p`, `(Unary ! (Unary ~ (Unary * (Var "p"))))`},
	{`&$x`, `(Unary & (Var "x"))`},
	{`&@m`, `(Unary & (Map "m"))`},
	{`@[pid, comm]`, `(MapIndex (Map "") [(Ident "pid") (Ident "comm")])`},
	{`@m[1][2]`, `(Index (MapIndex (Map "m") [(IntLit 1 "1" "")]) (IntLit 2 "2" ""))`},
	{`$a->b.c[0].1`, `(TupleField (Index (Field (Field (Var "a") Arrow (Name "b")) (Name "c")) (IntLit 0 "0" "")) 1)`},
	{`$kv.0.1`, `(TupleField (TupleField (Var "kv") 0) 1)`},
	{`args.if`, `(Field (Ident "args") (Name "if"))`},
	{`()`, `(Tuple [])`},
	{`(1,)`, `(Tuple [(IntLit 1 "1" "")])`},
	{`(1, "a")`, `(Tuple [(IntLit 1 "1" "") (StringLit "a" "\"a\"")])`},
	{`(a = 1, b = pid)`, `(Record [(RecordField (Name "a") (IntLit 1 "1" "")) (RecordField (Name "b") (Ident "pid"))])`},
	{`(a == 1)`, `(Binary == (Ident "a") (IntLit 1 "1" ""))`},
	{`(uint64)x`, `(Cast (NamedType "uint64") (Ident "x"))`},
	{`(uint64)-1`, `(Cast (NamedType "uint64") (Unary - (IntLit 1 "1" "")))`},
	{`(foo)-1`, `(Binary - (Ident "foo") (IntLit 1 "1" ""))`},
	{`(foo)$x`, `(Cast (NamedType "foo") (Var "x"))`},
	{`(foo_t)-1`, `(Cast (NamedType "foo_t") (Unary - (IntLit 1 "1" "")))`},
	{`(foo *)-1`, `(Cast (PointerType (NamedType "foo")) (Unary - (IntLit 1 "1" "")))`},
	{`(struct s *)arg0`, `(Cast (PointerType (StructType (Name "s") nil [])) (Ident "arg0"))`},
	{`((struct s *)arg0)->f`, `(Field (Cast (PointerType (StructType (Name "s") nil [])) (Ident "arg0")) Arrow (Name "f"))`},
	{`*(struct s **)$x`, `(Unary * (Cast (PointerType (PointerType (StructType (Name "s") nil []))) (Var "x")))`},
	{`(int8[8])12345`, `(Cast (ArrayType (NamedType "int8") (IntLit 8 "8" "")) (IntLit 12345 "12345" ""))`},
	{`(uint8[])$x`, `(Cast (ArrayType (NamedType "uint8") nil) (Var "x"))`},
	{`(unsigned long)x`, `(Cast (NamedType "unsigned long") (Ident "x"))`},
	{`(const char *)x`, `(Cast (PointerType (NamedType "char" Const)) (Ident "x"))`},
	{`(enum e)3`, `(Cast (EnumType (Name "e") nil nil []) (IntLit 3 "3" ""))`},
	{`(typeof($x))1`, `(Cast (TypeofType nil (Var "x")) (IntLit 1 "1" ""))`},
	{`(typeof((1)))$x`, `(Cast (TypeofType nil (IntLit 1 "1" "")) (Var "x"))`},
	{`(typeof({ $y = 1; $y }))$x`, `(Cast (TypeofType nil (BlockExpr (Block [(Assign (Var "y") = (IntLit 1 "1" "")) (ExprStmt (Var "y"))]))) (Var "x"))`},
	{`(typeof(if (1) { 2 } else { 3 }))$x`, `(Cast (TypeofType nil (IfExpr (If (IntLit 1 "1" "") (Block [(ExprStmt (IntLit 2 "2" ""))]) (Block [(ExprStmt (IntLit 3 "3" ""))])))) (Var "x"))`},
	{`sizeof(struct s)`, `(TypeQuery (StructType (Name "s") nil []) nil)`},
	{`sizeof(uint64)`, `(TypeQuery (NamedType "uint64") nil)`},
	{`sizeof($x)`, `(TypeQuery nil (Var "x"))`},
	{`sizeof(foo)`, `(TypeQuery nil (Ident "foo"))`},
	{`sizeof(a * b)`, `(TypeQuery nil (Binary * (Ident "a") (Ident "b")))`},
	{`typeinfo(int8)`, `(TypeQuery Typeinfo (NamedType "int8") nil)`},
	{`offsetof(struct s, a.b)`, `(Offsetof (StructType (Name "s") nil []) nil [(Name "a") (Name "b")])`},
	{`offsetof(*$p, f)`, `(Offsetof nil (Unary * (Var "p")) [(Name "f")])`},
	{`comptime (1 + 2)`, `(Comptime (Binary + (IntLit 1 "1" "") (IntLit 2 "2" "")))`},
	{`f()`, `(Call (Name "f") [])`},
	{`f(a, g(1)).x`, `(Field (Call (Name "f") [(Ident "a") (Call (Name "g") [(IntLit 1 "1" "")])]) (Name "x"))`},
	{`$1 + $#`, `(Binary + (Param 1) (ParamCount))`},
	{`true && !false`, `(Binary && (BoolLit Value) (Unary ! (BoolLit)))`},
	{`"a\n" "\x41"`, `(StringLit "a\nA" "\"a\\n\" \"\\x41\"")`},
	{`'a'`, `(IntLit 97 "'a'" "")`},
	{`{ let $b = 1; $b }`, `(BlockExpr (Block [(Let (Var "b") nil (IntLit 1 "1" "")) (ExprStmt (Var "b"))]))`},
	{`if (a) { 1 } else { 2 }`, `(IfExpr (If (Ident "a") (Block [(ExprStmt (IntLit 1 "1" ""))]) (Block [(ExprStmt (IntLit 2 "2" ""))])))`},
}

func TestExpr(t *testing.T) {
	for _, c := range exprTests {
		x, diags := ParseExpr(source.NewFile("expr", c.in), Options{})
		if len(diags) > 0 {
			t.Errorf("%s:\n%s", c.in, render(diags))
			continue
		}
		if got := dump(x); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.in, got, c.want)
		}
		again, _ := ParseExpr(source.NewFile("printed", PrintExpr(x)), Options{})
		if got := dump(again); got != c.want {
			t.Errorf("%s, printed as %s:\n got %s\nwant %s", c.in, PrintExpr(x), got, c.want)
		}
	}
}

var attachTests = []struct{ in, want string }{
	{`begin`, `begin`},
	{`tracepoint:syscalls:sys_enter_*`, `tracepoint|syscalls|sys_enter_*`},
	{`kprobe:f+0x10`, `kprobe|f+0x10`},
	{`kprobe:0xffffffff81000000`, `kprobe|0xffffffff81000000`},
	{`uprobe:/bin/bash:readline`, `uprobe|/bin/bash|readline`},
	{`uprobe:/usr/lib/*:f`, `uprobe|/usr/lib/*|f`},
	{`uprobe:lib/x.so:f`, `uprobe|lib/x.so|f`},
	{`uprobe:./a:cpp:"ns::f(int, char)"`, `uprobe|./a|cpp|Q(ns::f(int, char))`},
	{`uprobe:"/a b":"operator+"+8`, `uprobe|Q(/a b)|Q(operator+)+8`},
	{`usdt:/x::name`, `usdt|/x||name`},
	{`profile:hz:$1`, `profile|hz|P1($1)`},
	{`uprobe:/bin/$1:f$2`, `uprobe|/bin/P1($1)|fP2($2)`},
	{`watchpoint:0x10:8:rw`, `watchpoint|0x10|8|rw`},
	{`fentry:bpf:12:prog`, `fentry|bpf|12|prog`},
	{`hardware:cache-misses:1e6`, `hardware|cache-misses|1e6`},
	{`iter:task:/sys/fs/bpf/x`, `iter|task|/sys/fs/bpf/x`},
	{`a:b,c:d`, `a|b c|d`},
	{"a:b,\n// comment\nc:d,", `a|b c|d`},
	{`*:*`, `*|*`},
}

func TestAttachPoints(t *testing.T) {
	for _, c := range attachTests {
		points, diags := ParseAttachPoints(source.NewFile("list", c.in))
		if len(diags) > 0 {
			t.Errorf("%s:\n%s", c.in, render(diags))
			continue
		}
		var list []string
		for _, a := range points {
			var parts []string
			for _, p := range a.Parts {
				var b strings.Builder
				for _, piece := range p.Pieces {
					switch piece.Kind {
					case QuotedPiece:
						b.WriteString("Q(" + piece.Text + ")")
					case ParamPiece:
						b.WriteString("P" + string(rune('0'+piece.Param)) + "(" + piece.Text + ")")
					default:
						b.WriteString(piece.Text)
						if piece.Loc.Text() != piece.Text {
							t.Errorf("%s: piece %q has span %q", c.in, piece.Text, piece.Loc.Text())
						}
					}
				}
				parts = append(parts, b.String())
			}
			list = append(list, strings.Join(parts, "|"))
		}
		if got := strings.Join(list, " "); got != c.want {
			t.Errorf("%s: got %s, want %s", c.in, got, c.want)
		}
	}
}

// TestProbeHeads tells predicates from paths.
func TestProbeHeads(t *testing.T) {
	for _, c := range []struct{ in, point, pred string }{
		{"BEGIN/pid/{}", "BEGIN", "pid"},
		{"kprobe:f /pid == 1/ {}", "kprobe:f", "pid == 1"},
		{"kprobe:f/pid==1/{}", "kprobe:f", "pid == 1"},
		{"kprobe:f/pid == 1/ {}", "kprobe:f", "pid == 1"},
		{"kprobe:f\n/@a / 2 > 1/\n\n{}", "kprobe:f", "@a / 2 > 1"},
		{"uprobe:bin/foo:bar {}", "uprobe:bin/foo:bar", ""},
		{"uprobe:/bin/foo:bar /1/ {}", "uprobe:/bin/foo:bar", "1"},
		{"iter:task:/sys/fs/bpf/x {}", "iter:task:/sys/fs/bpf/x", ""},
		{"k:f /* why */ /*why*/ /x/ // y\n {}", "k:f", "x"},
	} {
		pr := parseOK(t, c.in, Options{}).Probes()[0]
		pred := ""
		if pr.Pred != nil {
			pred = PrintExpr(pr.Pred)
			if pr.PredLo.Text() != "/" || pr.PredHi.Text() != "/" {
				t.Errorf("%s: slashes at %q and %q", c.in, pr.PredLo.Text(), pr.PredHi.Text())
			}
		}
		if pr.Points[0].Text != c.point || pred != c.pred {
			t.Errorf("%s: %s with %q, want %s with %q", c.in, pr.Points[0].Text, pred, c.point, c.pred)
		}
	}
	named := parseOK(t, "first = kprobe:f {}", Options{}).Probes()[0]
	if named.Name == nil || named.Name.Text != "first" || named.Points[0].Provider() != "kprobe" {
		t.Errorf("%s", dump(named))
	}
	_, diags := Parse(source.NewFile("open.bt", "uprobe:\"/bin/a {\n exit();\n}\nbegin { $x = ; }"), Options{})
	if len(diags) != 2 {
		t.Errorf("%s", render(diags))
	}
}

// TestInstalledTools reads the scripts that the system's bpftrace package
// installs.
func TestInstalledTools(t *testing.T) {
	tools, err := filepath.Glob("/usr/sbin/*.bt")
	if err != nil || len(tools) == 0 {
		t.Skip("needs the scripts of the bpftrace package in /usr/sbin")
	}
	for _, name := range tools {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, defines := range [][]string{nil, {"BPFTRACE_HAVE_BTF"}} {
			p, diags := Parse(source.NewFile(name, string(text)), Options{Defines: defines})
			if len(diags) > 0 {
				t.Errorf("%s", render(diags))
				continue
			}
			if len(p.Probes()) == 0 {
				t.Errorf("%s: no probes", name)
			}
			if err := checkSpans(p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := checkRoundTrip(p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := checkFormat(string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
