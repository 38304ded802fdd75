package verifier

import (
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// This file holds what is not there yet: each says so by name.

const (
	dynptrLocal = 1
	iterActive  = 1
)

func (v *verifier) callKfunc(op isa.Instruction) (next, *Error) {
	return 0, v.unsupported("kernel functions")
}

func (v *verifier) kfuncUnderLock(id int64) bool       { return false }
func (v *verifier) kfuncLoops(id int64) bool           { return false }
func (v *verifier) isIterNext(op isa.Instruction) bool { return false }
func (v *verifier) iterActive(st *state) bool          { return false }

func (v *verifier) releaseDynptr(r *reg, at int) *Error    { return v.unsupported("dynptrs") }
func (v *verifier) releasableDynptr(r *reg, at int) *Error { return v.unsupported("dynptrs") }
func (v *verifier) dynptrArgument(r *reg, at int, t abi.ArgType, meta *callMeta) *Error {
	return v.unsupported("dynptrs")
}
func (v *verifier) dynptrWritten(meta *callMeta) *Error { return v.unsupported("dynptrs") }

func (v *verifier) overwriteObject(f *frame, fno, k, off int) *Error { return nil }

func (v *verifier) kptrAccess(p *reg, f *mapField, write bool, val *reg, valReg int) *Error {
	return v.unsupported("kernel pointers in maps")
}

func (v *verifier) kptrArgument(r *reg, at int, meta *callMeta) *Error {
	return v.unsupported("kernel pointers in maps")
}

func (v *verifier) checkFormat(f *reg, at int, size *reg) *Error { return nil }
