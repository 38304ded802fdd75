package codegen

import (
	"encoding/binary"
	"fmt"

	"github.com/skep-bpf/skep/ir"
)

// A cell is a value of the evaluator: a number, or a place in memory.
type cell struct {
	n   int64
	mem []byte
	off int64
}

// evaluate runs f as the language of package ir defines it.
func evaluate(f *ir.Func, args []cell, budget *int) (result cell, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("evaluating %s: %v", f.Name, r)
		}
	}()
	env := make([]cell, f.NumValues())
	b := f.Entry()
	for i, p := range b.Params {
		env[p.ID] = args[i]
	}
	for {
		for _, v := range b.Values {
			if *budget--; *budget < 0 {
				return cell{}, fmt.Errorf("out of steps")
			}
			arg := func(i int) cell { return env[v.Args[i].ID] }
			bytes := func(c cell, n int) []byte { return c.mem[c.off : c.off+int64(n)] }
			get := func(p []byte) int64 {
				var w [8]byte
				copy(w[:], p)
				return int64(binary.LittleEndian.Uint64(w[:]))
			}
			put := func(p []byte, n int64) {
				var w [8]byte
				binary.LittleEndian.PutUint64(w[:], uint64(n))
				copy(p, w[:])
			}
			switch op := v.Op; {
			case op == ir.OpConst:
				env[v.ID] = cell{n: v.Int}
			case op.IsBinary():
				env[v.ID] = cell{n: ir.EvalBinary(op, v.Type, arg(0).n, arg(1).n)}
			case op.IsCompare():
				env[v.ID] = cell{n: ir.EvalCompare(op, v.Args[0].Type, arg(0).n, arg(1).n)}
			case op == ir.OpNeg:
				env[v.ID] = cell{n: ir.Truncate(-arg(0).n, v.Type)}
			case op == ir.OpSwap:
				env[v.ID] = cell{n: ir.EvalSwap(v.Type, arg(0).n)}
			case op == ir.OpTrunc:
				env[v.ID] = cell{n: ir.Truncate(arg(0).n, v.Type)}
			case op == ir.OpZExt, op == ir.OpNonNull, op == ir.OpPtrCast:
				env[v.ID] = arg(0)
			case op == ir.OpSExt:
				env[v.ID] = cell{n: ir.Truncate(ir.SignExtend(arg(0).n, v.Args[0].Type), v.Type)}
			case op == ir.OpAlloca:
				env[v.ID] = cell{mem: make([]byte, v.Int)}
			case op == ir.OpGlobal:
				env[v.ID] = cell{mem: v.Aux.(*ir.Global).Init}
			case op == ir.OpPtrAdd:
				p := arg(0)
				p.off += arg(1).n
				env[v.ID] = p
			case op == ir.OpLoad:
				env[v.ID] = cell{n: get(bytes(arg(0), v.Type.Bytes()))}
			case op == ir.OpStore:
				put(bytes(arg(0), v.Args[1].Type.Bytes()), arg(1).n)
			case op == ir.OpMemCopy:
				copy(bytes(arg(0), int(v.Int)), bytes(arg(1), int(v.Int)))
				env[v.ID] = cell{}
			case op == ir.OpMemZero:
				clear(bytes(arg(0), int(v.Int)))
			case op == ir.OpAtomic:
				p := bytes(arg(0), v.Args[1].Type.Bytes())
				old := get(p)
				x := arg(1).n
				switch ir.AtomicOp(v.Int) {
				case ir.AtomicAdd:
					put(p, old+x)
				case ir.AtomicAnd:
					put(p, old&x)
				case ir.AtomicOr:
					put(p, old|x)
				case ir.AtomicXor:
					put(p, old^x)
				case ir.AtomicXchg:
					put(p, x)
				case ir.AtomicCmpXchg:
					if old == x {
						put(p, arg(2).n)
					}
				}
				env[v.ID] = cell{n: old}
			case op == ir.OpCall:
				callee, ok := v.Aux.(*ir.Func)
				if !ok {
					break // helpers of the tests have no result that is used
				}
				var list []cell
				for i := range v.Args {
					list = append(list, arg(i))
				}
				if env[v.ID], err = evaluate(callee, list, budget); err != nil {
					return cell{}, err
				}
			default:
				panic("no evaluation of " + op.String())
			}
		}
		var e ir.Edge
		switch b.Term {
		case ir.TermJump:
			e = b.Succs[0]
		case ir.TermIf:
			e = b.Succs[1]
			if env[b.Cond.ID].n != 0 {
				e = b.Succs[0]
			}
		case ir.TermReturn:
			if b.Cond == nil {
				return cell{}, nil
			}
			return env[b.Cond.ID], nil
		default:
			panic("unreachable reached")
		}
		values := make([]cell, len(e.Args))
		for i, a := range e.Args {
			values[i] = env[a.ID]
		}
		b = e.To
		for i, p := range b.Params {
			env[p.ID] = values[i]
		}
	}
}
