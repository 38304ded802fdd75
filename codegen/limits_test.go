package codegen

import (
	"errors"
	"strings"
	"testing"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/source"
)

// pressure keeps n loaded values alive across a call.
func pressure(n int) *ir.Module {
	m := &ir.Module{Name: "pressure", License: "GPL"}
	f := m.NewFunc("main", ir.Program, []ir.Type{ir.PtrTo(ir.SpaceCtx)}, ir.I64)
	f.Section = "syscall"
	f.Pos = source.Span{File: source.NewFile("p.bt", "interval:s:1 { }"), End: 8}
	b := ir.NewBuilder(f)
	var values []*ir.Value
	for i := range n {
		values = append(values, b.Load(ir.I64, b.Offset(f.Params()[0], int64(8*i))))
	}
	b.CallExtern(m.Helper(ir.Extern{
		Kind: ir.ExternHelper, Name: "get_smp_processor_id", ID: 8, Result: ir.I32,
		Effect: ir.Effects{Volatile: true},
	}))
	sum := b.Const(ir.I64, 0)
	for _, v := range values {
		sum = b.Binary(ir.OpAdd, b.Binary(ir.OpMul, sum, b.Const(ir.I64, 3)), v)
	}
	b.Return(sum)
	return m
}

func TestLimits(t *testing.T) {
	deep := &ir.Module{Name: "deep"}
	var callee *ir.Func
	for i := range 9 {
		f := deep.NewFunc("f"+string(rune('a'+i)), ir.Static, nil, ir.I64)
		if i == 8 {
			f.Linkage, f.Section = ir.Program, "xdp"
		}
		b := ir.NewBuilder(f)
		if callee != nil {
			b.Return(b.Call(callee))
		} else {
			b.Return(b.Const(ir.I64, 1))
		}
		callee = f
	}
	wide := &ir.Module{Name: "wide"}
	sixParams := wide.NewFunc("six", ir.Static, []ir.Type{ir.I64, ir.I64, ir.I64, ir.I64, ir.I64, ir.I64}, ir.Type{})
	ir.NewBuilder(sixParams).Return(nil)
	huge := &ir.Module{Name: "huge"}
	f := huge.NewFunc("main", ir.Program, []ir.Type{ir.PtrTo(ir.SpaceCtx)}, ir.I64)
	b := ir.NewBuilder(f)
	b.MemZero(b.Alloca(40_000, nil, ""), 40_000)
	b.Return(b.Const(ir.I64, 0))

	tests := []struct {
		name, want string
		m          *ir.Module
	}{
		{"stack", `p.bt:1:1: error: function "main" needs 568 bytes of stack, but the kernel gives 512`, pressure(75)},
		{"calls", `error: function "fi" calls 8 functions deep, but the kernel allows 7`, deep},
		{"parameters", `error: function "six" has 6 parameters, but a BPF function takes at most 5`, wide},
		{"scratch", `error: function "main" needs 40000 bytes of memory for its variables, but a per-CPU map element holds 32768`, huge},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			obj, err := Generate(test.m, Options{NoOptimise: true})
			var list source.List
			if !errors.As(err, &list) || obj != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v\nwant %s", err, test.want)
			}
		})
	}
}

// TestPressure keeps as much alive as the frame has room for.
func TestPressure(t *testing.T) {
	for _, n := range []int{1, 5, 9, 10, 11, 20, 60} {
		if _, err := Generate(pressure(n), Options{NoOptimise: true}); err != nil {
			t.Errorf("%d values: %v", n, err)
		}
	}
}
