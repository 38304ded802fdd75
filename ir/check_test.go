package ir_test

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/ir/irtest"
)

// checkHead declares what the bodies in TestCheck speak of.
const checkHead = `module "check"
type $int = int 4 signed
type $s = struct 8 { a: $int @0, b: [1]$int @4 }
type $e = enum 4 { A = 0 }
map @m type 1 key $int keysize 4
global @g section ".data" type $int init "00000000"
extern helper @help id 1 (ptr.map, ptr.mem, i64) -> i64
extern helper @any id 2 -> i64
extern helper @reserve id 131 -> ptr.mem?
extern ksym @sym
func static @sub -> i64 {
^e(%x: i64, %p: ptr.value[8]?):
  return %x
}
func static @nothing {
^e:
  return
}
func program @other -> i64 {
^e:
  %x: i64 = const 0
  return %x
}
`

const checkBody = `func program @main -> i64 section "x" {
^entry(%ctx: ptr.ctx, %k: ptr.kernel, %v: ptr.value[8], %n: ptr.value[8]?, %pkt: ptr.packet, %end: ptr.packet_end, %btf: ptr.btf):
  %a: ptr.stack[16] = alloca 16
  %i: i64 = const 1
  %w: i32 = const 2
  %b: i8 = const 255
  %t: i1 = const 1
  %map: ptr.map = map @m
  BODY
  return %i
}
`

// TestCheckTypes has a wrong module for each rule about one operation, and
// what Check says of it; an empty string stands for nothing.
func TestCheckTypes(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{`%x: i64 = add %i, %i`, ``},
		{`%x: i64 = add %i, %w`, `integers of one type, not i64 and i32`},
		{`%x: i32 = add %i, %i`, `the result of add is i64 here, not i32`},
		{`%x: ptr.kernel = add %k, %k`, `integers of one type`},
		{`%x: i64 = add %i`, `add takes 2 operands, here are 1`},
		{`%x: i32 = eq %i, %i`, `the result of eq is i1 here`},
		{`%x: i1 = eq %i, %w`, `integers of one type, or pointers`},
		{`%x: i1 = eq %k, %v`, `compared for equality with null`},
		{`%x: i1 = ult %pkt, %end`, ``},
		{`%x: i1 = ult %pkt, %k`, `compared for equality with null`},
		{`%x: i8 = const 256`, `bits above its width`},
		{`%x: ptr.value = const 0`, `the only constant pointer is null`},
		{`%x: ptr.value? = const 8`, `the only constant pointer is null`},
		{`%x: i64 = neg %w`, `the result of neg is i32`},
		{`%x: ptr.kernel = neg %k`, `is no integer`},
		{`%x: i8 = swap %b`, `bytes to swap`},
		{`%x: i32 = trunc %w`, `makes an integer narrower`},
		{`%x: i8 = zext %w`, `makes an integer wider`},
		{`%x: i64 = sext %k`, `goes between integers`},
		{`%x: i64 = inttoptr %i`, `makes a pointer of an i64`},
		{`%x: ptr.kernel = inttoptr %w`, `makes a pointer of an i64`},
		{`%x: i32 = ptrtoint %k`, `makes an i64 of a pointer`},
		{`%x: ptr.value = nonnull %n`, `the result of nonnull is ptr.value[8]`},
		{`%x: i64 = nonnull %i`, `is no pointer`},
		{`%x: i64 = ptrcast %k`, `goes between pointers`},
		{`%x: ptr.stack[0] = alloca 0`, `reserves 0 bytes`},
		{`%x: ptr.value[8] = alloca 8`, `is a ptr.stack[8]`},
		{`%x: ptr.stack[4] = alloca 4 $s`, `the type that lives there has 8 bytes`},
		{`%x: ptr.value = ptradd %v, %w`, `moved by an i64`},
		{`%x: ptr.kernel = ptradd %v, %i`, `a pointer into the same space`},
		{`%x: ptr.value? = ptradd %n, %i`, `may be null`},
		{`%x: ptr.packet_end = ptradd %end, %i`, `cannot be moved`},
		{`%x: i64 = ptradd %i, %i`, `is no pointer`},
		{`%x: ptr.kernel = field %k, $s[1 0] +4`, ``},
		{`%x: ptr.kernel = field %k, $s[2] +4`, `struct s has 2 members, none is number 2`},
		{`%x: ptr.kernel = field %k, $s[0 1] +0`, `*btf.Int has no members`},
		{`%x: ptr.kernel = field %k, $s[1 2] +0`, `an array of 1 has no element 2`},
		{`%x: ptr.kernel = field %k, $s[1] +0`, `is at byte 4 of its type, Offset says 0`},
		{`%x: ptr.kernel = field %k, nil[] +0`, `the field's struct is missing`},
		{`%x: i64 = core field_exists $s[0] = 1`, ``},
		{`%x: i64 = core field_exists $s[9] = 1`, `struct s has 2 members`},
		{`%x: i64 = core enumval_value $e[1] = 1`, `is not the index of one of 1 enumerators`},
		{`%x: i64 = core enumval_value $s[0] = 1`, `is no enum`},
		{`%x: i64 = core type_size $s[0] = 1`, `has no path`},
		{`%x: i64 = core type_size nil[] = 1`, `the type asked about is missing`},
		{`%x: ptr.kernel = core type_size $s[] = 1`, `is an integer`},
		{`%x: ptr.stack = global @g`, `is a ptr.value`},
		{`%x: ptr.value = map @m`, `the result of map is ptr.map`},
		{`%x: ptr.value = func @sub`, `the result of func is ptr.func`},
		{`%x: i64 = ksym @sym`, `an address is a pointer`},
		{`%x: ptr.kernel = ksym @any`, `of kind ksym or kconfig`},
		{`%x: i64 = load %k`, ``},
		{`%x: i64 = load %i`, `is no pointer but i64`},
		{`%x: i64 = load %n`, `may be null: branch on it and use nonnull first`},
		{`%x: i64 = load %end`, `nothing can be read through`},
		{`%x: ptr.value = nonnull %v` + "\n" + `  %p: ptr.value = ptradd %v, %i` + "\n" + `  %y: i64 = load %p`, `the result of nonnull`},
		{`%c: ptr.stack[4] = alloca 4` + "\n" + `  %y: i64 = load %c`, `reads 8 bytes where %c`},
		{`store %k, %i`, `nothing can be written through`},
		{`store %btf, %i`, `nothing can be written through`},
		{`store %n, %i`, `may be null`},
		{`store %i, %i`, `is no pointer`},
		{`memzero 24 %a`, `writes 24 bytes where`},
		{`memzero 0 %a`, `clears 0 bytes`},
		{`%x: i64 = memcopy 16 %a, %k`, ``},
		{`%x: i64 = memcopy 16 %a, %v`, `reads 16 bytes where`},
		{`%x: i64 = memcopy -1 %a, %v`, `copies -1 bytes`},
		{`%x: i32 = memcopy 8 %a, %v`, `the result of memcopy is i64`},
		{`atomic add %v, %i`, ``},
		{`atomic add %v, %b`, `are on i32 and i64, not i8`},
		{`atomic add %pkt, %i`, `no atomic operation on memory of space packet`},
		{`atomic xchg %v, %i`, `the result of atomic is i64`},
		{`%x: i64 = atomic cmpxchg %v, %i`, `atomic takes 3 operands`},
		{`%x: i64 = atomic cmpxchg %v, %i, %w`, `the expected and the new value have one type`},
		{`%x: i64 = atomic 9 %v, %i`, `atomic operation 9 is not one`},
		{`%x: i64 = call helper @help(%map, %a, %i)`, ``},
		{`%x: ptr.mem[16]? = call helper @reserve(%map, %i, %i)`, ``},
		{`%x: ptr.mem[16] = call helper @reserve(%map, %i, %i)`, `the result of call is ptr.mem[16]? here`},
		{`%x: i64 = call helper @reserve(%map, %i, %i)`, `the result of call is ptr.mem? here`},
		{`%x: i64 = call helper @help(%map, %k, %i)`, `argument 2 is ptr.kernel, the parameter ptr.mem`},
		{`%x: i64 = call helper @help(%map, %a, %w)`, `argument 3 is i32, the parameter i64`},
		{`%x: i64 = call helper @help(%map)`, `1 arguments for 3 parameters`},
		{`%x: i64 = call helper @any(%map, %map)`, ``},
		{`%x: i32 = call helper @any()`, `the result of call is i64`},
		{`%x: i64 = call helper @sym()`, `only helpers and kfuncs can be called`},
		{`%x: i64 = call @sub(%i, %n)`, ``},
		{`%x: i64 = call @sub(%i, %v)`, ``},
		{`%x: i64 = call @sub(%i, %a)`, `argument 2 is ptr.stack[16], the parameter ptr.value[8]?`},
		{`%x: i64 = call @other()`, `which only the kernel runs`},
		{`call.90 @nothing()` + "\n" + `  %x: i64 = add %i, %y` + "\n" + `  %y: i64 = add %i, %i`, `%y.`},
		{`%x: i64 = add %y, %i` + "\n" + `  %y: i64 = const 1`, `is used before it is defined`},
		{`memzero.z 8 %a` + "\n" + `  %x: i64 = add %i, %z`, `has no result`},
	} {
		m, err := ir.Parse(checkHead + strings.Replace(checkBody, "BODY", tt.body, 1))
		if err != nil {
			t.Errorf("%s: %v", tt.body, err)
			continue
		}
		err = ir.Check(m)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.body, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s:\n got %v\nwant %s", tt.body, err, tt.want)
		case tt.want != "" && !strings.HasPrefix(err.Error(), "func @main, block ^entry.0, "):
			t.Errorf("%s: the place is not said: %v", tt.body, err)
		}
	}
}

// TestCheckFlow has a wrong function for each rule about blocks and edges.
func TestCheckFlow(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"^a(%x: i64):\n  return %x\n^b:\n  jump ^b\n", ``}, // unreachable blocks may be
		{"^a(%x: i64):\n", `the block has no terminator`},
		{"^a(%x: i64):\n  return\n", `returns i64, here it returns nothing`},
		{"^a(%x: i32):\n  return %x\n", `returns i64, here it returns i32`},
		{"^a(%x: i64):\n  if %x then ^b else ^b\n^b:\n  return %x\n", `is i64, not i1`},
		{"^a(%x: i64):\n  jump ^b\n^b(%y: i64):\n  return %y\n", `has 0 arguments for 1 parameters`},
		{"^a(%x: i64):\n  jump ^b(%x)\n^b(%y: i32):\n  return %x\n", `argument 1 of the edge to ^b.1 is i64, the parameter i32`},
		{"^a(%x: i64):\n  jump ^a(%x)\n", `nothing may lead back to the entry`},
		{"^a(%x: i1, %y: i64):\n  if %x then ^b else ^c\n^b:\n  %z: i64 = const 1\n  return %z\n^c:\n  return %z\n", `does not dominate this block`},
		{"^a(%y: i64):\n  return %y\n^b:\n  %z: i64 = const 1\n  return %z\n^c:\n  return %z\n", ``},
		{"^a(%y: i64):\n  jump ^b\n^b:\n  %z: ptr.stack[8] = alloca 8\n  return %y\n", `an alloca stands in the entry block`},
	} {
		m, err := ir.Parse("func static @f -> i64 {\n" + tt.text + "}\n")
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if err := ir.Check(m); (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
	m, _ := ir.Parse("func static @f {\n^a(%x: i64):\n  return %x\n}\n")
	if err := ir.Check(m); err == nil || !strings.Contains(err.Error(), "returns nothing, here it returns %x.0") {
		t.Error(err)
	}
}

// TestCheckBroken breaks what the text form cannot say.
func TestCheckBroken(t *testing.T) {
	for _, tt := range []struct {
		name  string
		wreck func(m *ir.Module, f *ir.Func, b *ir.Block, v *ir.Value)
		want  string
	}{
		{"whole", func(*ir.Module, *ir.Func, *ir.Block, *ir.Value) {}, ``},
		{"no block", func(_ *ir.Module, f *ir.Func, _ *ir.Block, _ *ir.Value) { f.Blocks = nil }, `needs a block to enter`},
		{"same ID", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.ID = 0 }, `has the number of`},
		{"large ID", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.ID = 99 }, `was never given out`},
		{"twice", func(_ *ir.Module, _ *ir.Func, b *ir.Block, v *ir.Value) { b.Append(v) }, `stands in the function twice`},
		{"block ID", func(_ *ir.Module, f *ir.Func, _ *ir.Block, _ *ir.Value) { f.NewBlock("x").ID = 0 }, `have the same number`},
		{"block ID range", func(_ *ir.Module, _ *ir.Func, b *ir.Block, _ *ir.Value) { b.ID = -1 }, `was never given out`},
		{"other Block", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.Block = nil }, `Block says it stands in ^nil`},
		{"other Func", func(_ *ir.Module, _ *ir.Func, b *ir.Block, _ *ir.Value) { b.Func = nil }, `belongs to another function`},
		{"other Module", func(_ *ir.Module, f *ir.Func, _ *ir.Block, _ *ir.Value) { f.Module = nil }, `Module is another module`},
		{"nil operand", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.Args[0] = nil }, `operand 1 is missing`},
		{"stray operand", func(_ *ir.Module, f *ir.Func, _ *ir.Block, v *ir.Value) { v.Args[0] = f.NewConst(ir.I64, 1, v.Pos) }, `stands nowhere in the function`},
		{"param in the middle", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.Op, v.Args = ir.OpParam, nil }, `among the parameters of its block only`},
		{"no param", func(_ *ir.Module, f *ir.Func, _ *ir.Block, _ *ir.Value) { f.Params()[0].Op = ir.OpConst }, `is no param`},
		{"void param", func(_ *ir.Module, f *ir.Func, _ *ir.Block, _ *ir.Value) { f.Params()[0].Type = ir.Type{} }, `cannot be void`},
		{"odd width", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.Type.Bits = 7 }, `no integer type of 7 bits`},
		{"stray Int", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.Int = 7 }, `does not use Int`},
		{"stray Aux", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.Aux = "x" }, `does not use Aux`},
		{"bad Op", func(_ *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) { v.Op = 200 }, `is no operation`},
		{"bad Term", func(_ *ir.Module, _ *ir.Func, b *ir.Block, _ *ir.Value) { b.Term = 77 }, `terminator 77 is not one`},
		{"edges", func(_ *ir.Module, _ *ir.Func, b *ir.Block, _ *ir.Value) { b.Succs = []ir.Edge{{}} }, `has 0 successors, not 1`},
		{"edge out", func(_ *ir.Module, _ *ir.Func, b *ir.Block, _ *ir.Value) {
			b.Term, b.Cond, b.Succs = ir.TermJump, nil, []ir.Edge{{To: &ir.Block{}}}
		}, `leads out of the function`},
		{"nil Cond", func(_ *ir.Module, f *ir.Func, b *ir.Block, _ *ir.Value) {
			to := f.NewBlock("x")
			to.Term = ir.TermUnreachable
			b.Term, b.Cond, b.Succs = ir.TermIf, nil, []ir.Edge{{To: to}, {To: to}}
		}, `if needs a condition`},
		{"stray Cond", func(_ *ir.Module, _ *ir.Func, b *ir.Block, _ *ir.Value) { b.Term = ir.TermUnreachable }, `unreachable has no condition`},
		{"two functions", func(m *ir.Module, _ *ir.Func, _ *ir.Block, _ *ir.Value) {
			ir.NewBuilder(m.NewFunc("f", ir.Static, nil, ir.Type{})).Return(nil)
		}, `two of this name`},
		{"two maps", func(m *ir.Module, _ *ir.Func, _ *ir.Block, _ *ir.Value) {
			m.Maps = []*ir.Map{{Name: "a"}, {Name: "a"}}
		}, `map @a: there are two of this name`},
		{"two variables", func(m *ir.Module, _ *ir.Func, _ *ir.Block, _ *ir.Value) {
			m.Globals = []*ir.Global{{Name: "a"}, {Name: "a"}}
		}, `global @a: there are two of this name`},
		{"two externs", func(m *ir.Module, _ *ir.Func, _ *ir.Block, _ *ir.Value) {
			m.Externs = []*ir.Extern{{Name: "a"}, {Name: "a"}}
		}, `helper @a: there are two of this name`},
		{"extern kind", func(m *ir.Module, _ *ir.Func, _ *ir.Block, _ *ir.Value) {
			m.Externs = []*ir.Extern{{Name: "a", Kind: 9}}
		}, `kind 9 is not one`},
		{"map size", func(m *ir.Module, _ *ir.Func, _ *ir.Block, _ *ir.Value) {
			m.Maps = []*ir.Map{{Name: "a", Key: &btf.Int{Size: 4}, KeySize: 8}}
		}, `the key is of 8 bytes, its type of 4`},
		{"init size", func(m *ir.Module, _ *ir.Func, _ *ir.Block, _ *ir.Value) {
			m.Globals = []*ir.Global{{Name: "a", Type: &btf.Int{Size: 4}, Init: []byte{1}}}
		}, `1 initial bytes for a type of 4 bytes`},
		{"stray callee", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args, v.Aux = ir.OpCall, nil, &ir.Extern{Name: "x", Result: ir.I64}
		}, `is not one of the module's externs`},
		{"no callee", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args, v.Aux = ir.OpCall, nil, nil
		}, `Aux of call is a *Func or an *Extern, not <nil>`},
		{"no variable", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args, v.Type = ir.OpGlobal, nil, ir.PtrTo(ir.SpaceMapValue)
		}, `Aux of global is a *Global`},
		{"stray variable", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args, v.Type, v.Aux = ir.OpGlobal, nil, ir.PtrTo(ir.SpaceMapValue), &ir.Global{}
		}, `the variable is not one of the module's`},
		{"stray map", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args, v.Type, v.Aux = ir.OpMap, nil, ir.PtrTo(ir.SpaceMap), &ir.Map{}
		}, `the map is not one of the module's`},
		{"stray function", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args, v.Type, v.Aux = ir.OpFunc, nil, ir.PtrTo(ir.SpaceFunc), &ir.Func{}
		}, `the function is not one of the module's`},
		{"field of nothing", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args = ir.OpField, v.Args[:1]
		}, `Aux of field is a *FieldRef`},
		{"core of nothing", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args = ir.OpCore, nil
		}, `Aux of core is a *CoreRef`},
		{"core of a strange kind", func(m *ir.Module, _ *ir.Func, _ *ir.Block, v *ir.Value) {
			v.Op, v.Args, v.Aux = ir.OpCore, nil, &ir.CoreRef{Kind: 77, Type: &btf.Int{}}
		}, `kind 77 of CO-RE relocation is not one`},
	} {
		m := &ir.Module{}
		f := m.NewFunc("f", ir.Static, []ir.Type{ir.I64}, ir.I64)
		b := ir.NewBuilder(f)
		v := b.Binary(ir.OpAdd, f.Params()[0], f.Params()[0])
		b.Return(v)
		tt.wreck(m, f, f.Blocks[0], v)
		err := ir.Check(m)
		if (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\n got %v\nwant %s", tt.name, err, tt.want)
		}
	}
}

// TestCFG compares dominators and loops with their definitions.
func TestCFG(t *testing.T) {
	for seed := range uint64(60) {
		m := irtest.Random(rng(seed), irtest.Options{Plain: true})
		for _, f := range m.Funcs {
			f.RemoveUnreachable()
			cfg := ir.NewCFG(f)
			reach := func(without *ir.Block) map[*ir.Block]bool {
				seen := map[*ir.Block]bool{}
				var walk func(b *ir.Block)
				walk = func(b *ir.Block) {
					if b == without || seen[b] {
						return
					}
					seen[b] = true
					for _, e := range b.Succs {
						walk(e.To)
					}
				}
				walk(f.Entry())
				return seen
			}
			for _, a := range f.Blocks {
				rest := reach(a)
				for _, b := range f.Blocks {
					if got, want := cfg.Dominates(a, b), !rest[b]; got != want {
						t.Fatalf("seed %d: %s dominates %s: %v", seed, a.Label(), b.Label(), got)
					}
				}
			}
			for _, l := range cfg.Loops() {
				for _, b := range f.Blocks {
					// In the loop: dominated by the header and able to come back to it.
					back := false
					seen := map[*ir.Block]bool{}
					var walk func(x *ir.Block)
					walk = func(x *ir.Block) {
						for _, e := range x.Succs {
							if e.To == l.Header {
								back = true
							} else if !seen[e.To] && cfg.Dominates(l.Header, e.To) {
								seen[e.To] = true
								walk(e.To)
							}
						}
					}
					if cfg.Dominates(l.Header, b) {
						walk(b)
					}
					if got := cfg.Contains(l, b); got != back {
						t.Fatalf("seed %d: loop of %s contains %s: %v\n%s", seed, l.Header.Label(), b.Label(), got, f)
					}
				}
			}
			if p, bad := cfg.Irreducible(); bad {
				t.Fatalf("irreducible: %v", p)
			}
		}
	}
	m, err := ir.Parse("func static @f {\n^a(%c: i1):\n  if %c then ^b else ^c\n^b:\n  jump ^c\n^c:\n  jump ^b\n}\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, bad := ir.NewCFG(m.Funcs[0]).Irreducible(); !bad {
		t.Error("a loop with two entries is not seen")
	}
}

// TestEdit splits edges and clones functions; what they compute stays.
func TestEdit(t *testing.T) {
	for seed := range uint64(60) {
		m := irtest.Random(rng(seed), irtest.Options{Plain: true})
		f := m.Funcs[len(m.Funcs)-1]
		run := func(f *ir.Func) uint64 {
			x, err := irtest.NewMachine(100_000).Run(f, 1, 2, 3)
			if err != nil {
				t.Fatal(err)
			}
			return x
		}
		want := run(f)
		c := f.Clone("copy")
		c.SplitCritical()
		if err := ir.Check(m); err != nil {
			t.Fatal(err)
		}
		for _, b := range c.Blocks {
			for _, e := range b.Succs {
				if len(b.Succs) > 1 && len(ir.NewCFG(c).Preds(e.To)) > 1 {
					t.Fatal("a critical edge is left")
				}
			}
		}
		if got := run(c); got != want {
			t.Fatalf("seed %d: the copy gives %d, not %d", seed, got, want)
		}
		uses := ir.Uses(c)
		for id, n := range ir.UseCounts(c) {
			if len(uses[id]) != int(n) {
				t.Fatal("uses and their counts differ")
			}
		}
	}
}
