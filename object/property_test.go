package object

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/source"
)

// A generator makes objects at random, that Marshal must take.
type generator struct {
	*rand.Rand
	o     *Object
	types []btf.Type // of a size
	cores []CORE
}

func (g *generator) name(kind string, n int) string { return fmt.Sprintf("%s_%d", kind, n) }

// makeTypes fills g.types with types over each other, cycles among them.
func (g *generator) makeTypes() {
	g.types = []btf.Type{typeInt, typeU32, typeU64, typeChar, &btf.Float{Name: "double", Size: 8}}
	pick := func() btf.Type { return g.types[g.IntN(len(g.types))] }
	for n := range 12 {
		var t btf.Type
		switch g.IntN(8) {
		case 0:
			t = &btf.Pointer{Target: pick()}
		case 1:
			t = &btf.Array{Index: typeU32, Type: pick(), Nelems: uint32(1 + g.IntN(4))}
		case 2:
			t = &btf.Typedef{Name: g.name("t", n), Type: pick()}
		case 3:
			t = &btf.Const{Type: &btf.Volatile{Type: pick()}}
		case 4:
			t = &btf.Enum{Name: g.name("e", n), Size: 4, Values: []btf.EnumValue{{Name: g.name("A", n)}, {Name: g.name("B", n), Value: 5}}}
			g.cores = append(g.cores, CORE{Kind: COREEnumValue, Type: t, Access: "1"})
		case 5:
			t = &btf.Pointer{Target: &btf.FuncProto{Return: pick(), Params: []btf.FuncParam{{Name: "x", Type: pick()}}}}
		default:
			s := &btf.Struct{Name: g.name("s", n)}
			for m := range 1 + g.IntN(4) {
				mt := pick()
				if g.IntN(4) == 0 {
					mt = &btf.Pointer{Target: s}
				}
				size, _ := btf.Sizeof(mt)
				s.Members = append(s.Members, btf.Member{Name: g.name("m", m), Type: mt, Offset: btf.Bits(8 * s.Size)})
				s.Size += uint32((size + 7) &^ 7)
				g.cores = append(g.cores, CORE{Kind: COREFieldOffset, Type: s, Access: fmt.Sprint("0:", m)})
			}
			t = s
			g.cores = append(g.cores, CORE{Kind: CORETypeSize, Type: t, Access: "0"}, CORE{Kind: CORETypeMatches, Type: t, Access: "0"})
		}
		g.types = append(g.types, t)
	}
}

func (g *generator) typ() btf.Type { return g.types[g.IntN(len(g.types))] }

func randomObject(seed uint64) *Object {
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 0)), o: &Object{License: "GPL", Big: seed%5 == 0}}
	g.makeTypes()
	for n := range g.IntN(4) {
		m := &Map{Name: g.name("map", n), Type: mapHash, MaxEntries: g.Uint32(), Pinned: g.IntN(2) == 0, Flags: g.Uint32N(3)}
		if g.IntN(2) == 0 {
			m.Key, m.Value = g.typ(), g.typ()
		} else {
			m.KeySize, m.ValueSize = 1+g.Uint32N(100), 1+g.Uint32N(100)
		}
		if g.IntN(4) == 0 {
			m.Type, m.Value, m.ValueSize = mapHashOfMaps, nil, 0
			m.Inner = &Map{Type: mapHash, KeySize: 4, Value: g.typ(), MaxEntries: 1}
			m.Values = make([]any, g.IntN(3))
			for i := range m.Values {
				if g.IntN(2) == 0 {
					m.Values[i] = m // nonsense to the kernel, not to a file
				}
			}
			if len(m.Values) > 0 && m.Values[0] == nil {
				m.Values[0] = m
			}
		}
		g.o.Maps = append(g.o.Maps, m)
	}
	sections := []string{".data", ".rodata", ".bss", ".data.x", ".rodata.str"}
	for n := range g.IntN(8) {
		v := &Var{Name: g.name("var", n), Section: sections[g.IntN(len(sections))], Static: g.IntN(3) == 0}
		v.Type = g.typ()
		if g.IntN(2) == 0 && v.Section != ".bss" {
			v.Init = make([]byte, v.Size())
			v.Init[0] = byte(1 + g.IntN(255))
		}
		g.o.Vars = append(g.o.Vars, v)
	}
	for n := range g.IntN(4) {
		x := &Extern{Name: g.name("x", n), Kind: ExternKind(g.IntN(3)), Weak: g.IntN(2) == 0}
		switch x.Kind {
		case ExternKfunc:
			x.Type = &btf.Func{Type: &btf.FuncProto{Return: g.typ()}}
		case ExternKconfig:
			x.Type = g.typ()
		}
		g.o.Externs = append(g.o.Externs, x)
	}
	count := 1 + g.IntN(5)
	for n := range count {
		f := &Func{Name: g.name("f", n), Section: []string{"", "xdp", "raw_tp/x"}[g.IntN(3)]}
		f.Type = &btf.Func{Type: &btf.FuncProto{Return: typeInt, Params: []btf.FuncParam{{Name: "a", Type: g.typ()}}}}
		f.Global = f.Section == "" && g.IntN(2) == 0
		g.o.Funcs = append(g.o.Funcs, f)
	}
	g.o.Funcs = bySection(g.o.Funcs, func(f *Func) string { return f.Section })
	file := source.NewFile("x.bt", "a line\nanother line\n\nthe last")
	for _, f := range g.o.Funcs {
		g.fill(f, file)
	}
	return g.o
}

// fill gives f instructions, relocations and lines.
func (g *generator) fill(f *Func, file *source.File) {
	for n := range 1 + g.IntN(20) {
		ins := isa.ALU64Imm(isa.Add, isa.R1, int32(g.Uint32()))
		ref := Reloc{Insn: n, Symbol: nil}
		switch k := g.IntN(7); {
		case k == 0 && len(g.o.Maps) > 0:
			ref.Kind, ref.Symbol, ins = RelocMap, g.o.Maps[g.IntN(len(g.o.Maps))], isa.LoadMapFD(isa.R1, 0)
		case k == 1 && len(g.o.Vars) > 0:
			v := g.o.Vars[g.IntN(len(g.o.Vars))]
			ref.Kind, ref.Symbol, ins = RelocVar, v, isa.LoadMapValue(isa.R1, 0, uint32(g.IntN(v.Size())))
		case k == 2:
			ref.Kind, ref.Symbol, ins = RelocCall, g.o.Funcs[g.IntN(len(g.o.Funcs))], isa.CallLocal(0)
		case k == 3:
			ref.Kind, ref.Symbol, ins = RelocFuncAddr, g.o.Funcs[g.IntN(len(g.o.Funcs))], isa.LoadFunc(isa.R1, 0)
		case k == 4 && len(g.o.Externs) > 0:
			x := g.o.Externs[g.IntN(len(g.o.Externs))]
			ref.Kind, ref.Symbol, ins = RelocExtern, x, isa.LoadImm64(isa.R1, 0)
			if x.Kind == ExternKfunc {
				ins = isa.CallKfunc(0, 0)
			}
		case k == 5 && len(g.cores) > 0:
			c := g.cores[g.IntN(len(g.cores))]
			c.Insn = n
			f.CORE = append(f.CORE, c)
		case k == 6:
			ins = isa.LoadImm64(isa.R2, int64(g.Uint64()))
		}
		if ref.Symbol != nil {
			f.Relocs = append(f.Relocs, ref)
		}
		f.Insns = append(f.Insns, ins)
		if g.IntN(3) == 0 {
			f.Lines = append(f.Lines, Line{Insn: n, Span: source.Span{File: file, Start: g.IntN(len(file.Text)), End: len(file.Text)}})
		}
	}
	f.Insns = append(f.Insns, isa.Exit())
}

// TestRandomRoundTrip is TestRoundTrip over objects made at random.
func TestRandomRoundTrip(t *testing.T) {
	for seed := range uint64(500) {
		o := randomObject(seed)
		data, err := o.Marshal()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got, err := Unmarshal(data)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if diff := cmp.Diff(describe(o), describe(got)); diff != "" {
			t.Fatalf("seed %d: read differs from written:\n%s", seed, diff)
		}
		again, err := got.Marshal()
		if err != nil {
			t.Fatalf("seed %d: written again: %v", seed, err)
		}
		if !bytes.Equal(data, again) {
			t.Fatalf("seed %d: written again, it differs:\n%s", seed, cmp.Diff(dumpELF(t, data), dumpELF(t, again)))
		}
	}
}
