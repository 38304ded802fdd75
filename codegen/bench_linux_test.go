package codegen

import (
	"fmt"
	"math/rand"
	"testing"

	"github.com/skep-bpf/skep/ir"
)

// bigModule is one function of about n random statements.
func bigModule(seed int64, n int) *ir.Module {
	g := &gen{r: rand.New(rand.NewSource(seed)), m: &ir.Module{Name: "big", License: "GPL"}}
	f := g.m.NewFunc("main", ir.Program, []ir.Type{ir.PtrTo(ir.SpaceCtx)}, ir.I32)
	f.Section = "syscall"
	g.function(f, n, nil)
	for i := range ctxOutputs {
		g.b.Store(g.b.Offset(f.Params()[0], int64(8*(ctxInputs+i))), g.some(ir.I64))
	}
	g.b.Return(g.some(ir.I32))
	return g.m
}

func BenchmarkGenerate(b *testing.B) {
	for _, n := range []int{100, 300} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			insns := 0
			for b.Loop() {
				b.StopTimer()
				m := bigModule(1, n)
				b.StartTimer()
				obj, err := Generate(m, Options{})
				if err != nil {
					b.Fatal(err)
				}
				insns = len(obj.Funcs[0].Insns)
			}
			b.ReportMetric(float64(insns), "insns")
		})
	}
}
