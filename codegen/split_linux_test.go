package codegen

import (
	"testing"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/isa"
)

// crowded is a function whose index lives across a call beside more values
// than there are registers for, each of which is dearer to spill; then it is
// checked and used.
func crowded() *ir.Module {
	m := &ir.Module{Name: "crowded", License: "GPL"}
	table := &ir.Global{Name: "table", Section: ".data", Init: make([]byte, 64)}
	m.Globals = append(m.Globals, table)
	clock := &ir.Extern{Kind: ir.ExternHelper, ID: 5, Name: "ktime_get_ns", Result: ir.I64, Effect: ir.Effects{Volatile: true}}
	f := m.NewFunc("main", ir.Program, []ir.Type{ir.PtrTo(ir.SpaceCtx)}, ir.I32)
	f.Section = "syscall"
	b := ir.NewBuilder(f)
	ctx := f.Params()[0]
	index := b.Load(ir.I64, ctx)
	var others []*ir.Value
	for i := range 8 {
		others = append(others, b.Load(ir.I64, b.Offset(ctx, int64(8+8*i))))
	}
	b.CallExtern(clock)
	found, done := f.NewBlock("found"), f.NewBlock("done")
	b.If(b.Compare(ir.OpULt, index, b.Const(ir.I64, 8)), found, done)
	b.At(found)
	p := b.PtrAdd(b.Global(table), b.Binary(ir.OpShl, index, b.Const(ir.I64, 3)))
	b.Store(p, b.Binary(ir.OpAdd, b.Load(ir.I64, p), others[0]))
	b.Jump(done)
	b.At(done)
	sum := b.Const(ir.I64, 0)
	for range 40 {
		for _, v := range others {
			sum = b.Binary(ir.OpXor, b.Binary(ir.OpMul, sum, b.Const(ir.I64, 3)), v)
		}
	}
	b.Store(b.Offset(ctx, 72), sum)
	b.Return(b.Const(ir.I32, 0))
	return m
}

// TestBoundsAreNotReloaded checks that a spilled index is in one register from
// its check to its use.
func TestBoundsAreNotReloaded(t *testing.T) {
	obj, err := Generate(crowded(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	code := obj.Funcs[0].Insns
	checks := 0
	for i, in := range code {
		if !in.Op.Class().IsJump() || in.Imm != 8 && in.Imm != 7 || !in.Op.JumpOp().IsCompare() {
			continue
		}
		checks++
		for _, use := range code[i+1:] {
			if use.Op.Class() == isa.ClassLDX && use.Src == isa.FP {
				t.Errorf("the index is loaded again behind its check: %v", listing(obj))
			}
			if use.Op == isa.Opcode(isa.ClassALU64)|isa.Opcode(isa.LSh)|isa.Opcode(isa.SourceImm) && use.Imm == 3 {
				break
			}
		}
	}
	if checks != 1 {
		t.Errorf("%d checks, want 1:\n%s", checks, listing(obj))
	}
	needKernel(t)
	l, err := load(obj, "main", progSyscall)
	if err != nil {
		t.Fatal(err)
	}
	l.close()
}
