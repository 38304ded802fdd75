package opt

import (
	"testing"

	"github.com/skep-bpf/skep/ir"
)

// TestIntervals tries all i8 values against what two comparisons tell of a third.
func TestIntervals(t *testing.T) {
	ops := []ir.Op{ir.OpEq, ir.OpNe, ir.OpULt, ir.OpULe, ir.OpUGt, ir.OpUGe, ir.OpSLt, ir.OpSLe, ir.OpSGt, ir.OpSGe}
	consts := []int64{0, 1, 2, 100, 126, 127, 128, 129, 200, 254, 255}
	decided := 0
	for _, op1 := range ops {
		for _, c1 := range consts {
			for _, op2 := range ops {
				for _, c2 := range consts {
					r := fullInterval(ir.I8).and(op1, ir.I8, c1).and(op2, ir.I8, c2)
					var inside []int64
					for x := range int64(256) {
						if ir.EvalCompare(op1, ir.I8, x, c1) == 1 && ir.EvalCompare(op2, ir.I8, x, c2) == 1 {
							inside = append(inside, x)
						}
					}
					for _, op3 := range ops {
						for _, c3 := range consts {
							so, ok := r.decides(op3, ir.I8, c3)
							if !ok {
								continue
							}
							decided++
							for _, x := range inside {
								if (ir.EvalCompare(op3, ir.I8, x, c3) == 1) != so {
									t.Fatalf("x %s %d and x %s %d: x %s %d is not always %v, e.g. for %d", op1, c1, op2, c2, op3, c3, so, x)
								}
							}
						}
					}
				}
			}
		}
	}
	// Most pairs are decided or leave it open for good reason; far fewer
	// would mean that the intervals have become blunt.
	if decided < 300_000 {
		t.Errorf("only %d comparisons are decided", decided)
	}
}
