package codegen

import (
	"encoding/binary"
	"strings"

	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/source"
)

// Helpers by number (enum bpf_func_id, include/uapi/linux/bpf.h).
const (
	helperMapLookupElem   = 1
	helperProbeReadUser   = 112
	helperProbeReadKernel = 113
)

const (
	// unrollLimit is the most bytes that are copied or cleared without a loop.
	unrollLimit = 256
	// loopStep is how many bytes one turn of a loop copies or clears. The
	// verifier follows every turn, so a turn should do a lot.
	loopStep = 64
)

// helps reports whether a helper may copy or clear size bytes at dst: it costs
// the verifier nothing, but wants a licence and plain memory.
func (e *editor) helps(dst *ir.Value, size int) bool {
	return size > unrollLimit && dst.Type.Space != ir.SpacePacket && dst.Type.Space != ir.SpaceCtx &&
		strings.Contains(e.g.m.License, "GPL")
}

// probeRead returns the helper that reads memory of the given space.
func (e *editor) probeRead(space ir.Space) *ir.Extern {
	x := ir.Extern{
		Kind: ir.ExternHelper, Name: "probe_read_kernel", ID: helperProbeReadKernel, Result: ir.I64,
		Effect: ir.Effects{
			Reads:  ir.Spaces(space),
			Writes: ir.Spaces(ir.SpaceStack, ir.SpaceMapValue, ir.SpaceMem),
		},
	}
	if space == ir.SpaceUser {
		x.Name, x.ID = "probe_read_user", helperProbeReadUser
	}
	return e.g.m.Helper(x)
}

// load reads kernel and user memory through a buffer in the frame; the helpers
// clear it when they fail.
func (e *editor) load(v *ir.Value) {
	p := v.Args[0]
	space := p.Type.Space
	if space != ir.SpaceKernel && space != ir.SpaceUser {
		return
	}
	size := v.Type.Bytes()
	buf := e.b.Alloca(size, nil, "")
	e.b.CallExtern(e.probeRead(space), buf, e.b.Const(ir.I64, int64(size)), p)
	v.Args = []*ir.Value{buf}
}

// arithmetic finds the addresses that are computed with as numbers. For the
// verifier they stay pointers, on which it allows little: for objects of the kernel
// not even what it cannot bound.
func arithmetic(f *ir.Func) map[*ir.Value]bool {
	found := map[*ir.Value]bool{}
	use := func(a *ir.Value, moved bool) {
		if a.Op != ir.OpPtrToInt {
			return
		}
		switch a.Args[0].Type.Space {
		case ir.SpaceBTF:
			found[a] = true
		case ir.SpaceStack, ir.SpaceMapValue, ir.SpaceCtx:
			if !moved {
				found[a] = true
			}
		}
	}
	for _, b := range f.Blocks {
		for _, v := range b.Values {
			switch v.Op {
			case ir.OpPtrToInt, ir.OpIntToPtr, ir.OpStore, ir.OpEq, ir.OpNe, ir.OpCall, ir.OpTrunc:
			default:
				for _, a := range v.Args {
					use(a, v.Op == ir.OpAdd || v.Op == ir.OpSub)
				}
			}
		}
		for _, e := range b.Succs {
			for _, a := range e.Args {
				use(a, true)
			}
		}
	}
	return found
}

// number turns v, the address of something as a number, into one for the
// verifier too: it forgets what a helper copies.
func (e *editor) number(v *ir.Value) {
	slot, copied := e.b.Alloca(8, nil, ""), e.b.Alloca(8, nil, "")
	e.b.Store(slot, v.Args[0])
	e.b.CallExtern(e.probeRead(ir.SpaceKernel), copied, e.b.Const(ir.I64, 8), slot)
	become(v, ir.OpLoad, copied)
}

// memCopy turns v, an OpMemCopy, into loads and stores, a loop or a helper call.
func (e *editor) memCopy(v *ir.Value) {
	b := e.b
	dst, src, size := v.Args[0], v.Args[1], int(v.Int)
	space := src.Type.Space
	byHelper := space == ir.SpaceKernel || space == ir.SpaceUser
	if !byHelper && e.helps(dst, size) {
		// Memory that is read directly is kernel memory too.
		byHelper, space = true, ir.SpaceKernel
	}
	switch {
	case byHelper && (dst.Type.Space == ir.SpacePacket || dst.Type.Space == ir.SpaceCtx):
		buf := b.Alloca(size, nil, "")
		err := b.CallExtern(e.probeRead(space), buf, b.Const(ir.I64, int64(size)), src)
		e.copyDirect(dst, buf, size)
		become(v, ir.OpAdd, err, b.Const(ir.I64, 0))
	case byHelper:
		helper := e.probeRead(space)
		become(v, ir.OpCall, dst, b.Const(ir.I64, int64(size)), src)
		v.Aux = helper
	default:
		e.copyDirect(dst, src, size)
		become(v, ir.OpConst)
	}
}

// constantBytes returns what size bytes at p hold if that never changes.
func constantBytes(p *ir.Value, size int) []byte {
	off := int64(0)
	for {
		switch p.Op {
		case ir.OpPtrAdd:
			n, ok := p.Args[1].IsConst()
			if !ok {
				return nil
			}
			off += n
			p = p.Args[0]
			continue
		case ir.OpPtrCast, ir.OpNonNull:
			p = p.Args[0]
			continue
		}
		break
	}
	if p.Op != ir.OpGlobal {
		return nil
	}
	v := p.Aux.(*ir.Global)
	if v.Volatile || !strings.HasPrefix(v.Section, ".rodata") || off < 0 || off+int64(size) > int64(len(v.Init)) {
		return nil
	}
	return v.Init[off : off+int64(size)]
}

// align returns the alignment that is known of p, in bytes, at most 8, and
// whether accesses must respect it. The verifier always insists on it for the
// frame, elsewhere only on machines that do.
func (e *editor) align(p *ir.Value) int {
	if p.Type.Space != ir.SpaceStack && !e.g.strict {
		return 8
	}
	off := int64(0)
	for {
		switch p.Op {
		case ir.OpPtrAdd:
			n, ok := p.Args[1].IsConst()
			if !ok {
				return 1
			}
			off += n
			p = p.Args[0]
			continue
		case ir.OpPtrCast, ir.OpNonNull:
			p = p.Args[0]
			continue
		case ir.OpField:
			off += int64(p.Aux.(*ir.FieldRef).Offset)
			p = p.Args[0]
			continue
		case ir.OpAlloca, ir.OpGlobal, ir.OpCall:
		default:
			// Who knows where a parameter points.
			return 1
		}
		break
	}
	if p.Type.Space == ir.SpacePacket {
		return 1
	}
	if off == 0 {
		return 8
	}
	return int(min(off&-off, 8))
}

func lowBit(n int) int {
	if n == 0 {
		return 8
	}
	return min(n&-n, 8)
}

// chunk is the width of the access at off of size bytes.
func chunk(off, size, align int) int {
	n := 8
	for n > size-off || n > align || n > lowBit(off) && align < 8 || off%n != 0 {
		n /= 2
	}
	return n
}

func (e *editor) copyDirect(dst, src *ir.Value, size int) {
	b := e.b
	align := min(e.align(dst), e.align(src))
	if data := constantBytes(src, size); data != nil && size <= unrollLimit {
		e.storeBytes(dst, data)
		return
	}
	done := 0
	if size > unrollLimit {
		done = size / loopStep * loopStep
		e.loop(done, func(i *ir.Value) {
			e.copyRange(b.PtrAdd(dst, i), b.PtrAdd(src, i), 0, loopStep, align)
		})
	}
	e.copyRange(dst, src, done, size, align)
}

func (e *editor) copyRange(dst, src *ir.Value, from, to, align int) {
	b := e.b
	for off := from; off < to; {
		n := chunk(off, to, align)
		x := b.Load(ir.IntType(8*n), b.Offset(src, int64(off)))
		b.Store(b.Offset(dst, int64(off)), x)
		off += n
	}
}

// storeBytes writes data that is known now.
func (e *editor) storeBytes(dst *ir.Value, data []byte) {
	b := e.b
	align := e.align(dst)
	var order binary.ByteOrder = binary.LittleEndian
	if e.g.bigEndian {
		order = binary.BigEndian
	}
	for off := 0; off < len(data); {
		n := chunk(off, len(data), align)
		var word [8]byte
		copy(word[:], data[off:off+n])
		x := int64(order.Uint64(word[:]))
		if e.g.bigEndian {
			x = int64(uint64(x) >> (64 - 8*n))
		}
		if n == 8 && !fits32(x) {
			// Two stores of an immediate are shorter than loading 64 bits.
			n = 4
			x = int64(order.Uint32(data[off:]))
		}
		b.Store(b.Offset(dst, int64(off)), b.Const(ir.IntType(8*n), x))
		off += n
	}
}

func (e *editor) memZero(v *ir.Value) {
	b := e.b
	dst, size := v.Args[0], int(v.Int)
	if e.helps(dst, size) {
		// A read that fails, as that of null does, clears the buffer
		// (bpf_probe_read_kernel_common, kernel/trace/bpf_trace.c).
		helper := e.probeRead(ir.SpaceKernel)
		null := b.Null(ir.PtrTo(ir.SpaceKernel))
		v.Type = ir.I64
		n := b.Const(ir.I64, int64(size))
		become(v, ir.OpCall, dst, n, null)
		v.Aux = helper
		return
	}
	align := e.align(dst)
	zero := func(p *ir.Value, from, to int) {
		for off := from; off < to; {
			n := chunk(off, to, align)
			b.Store(b.Offset(p, int64(off)), b.Const(ir.IntType(8*n), 0))
			off += n
		}
	}
	done := 0
	if size > unrollLimit {
		done = size / loopStep * loopStep
		e.loop(done, func(i *ir.Value) { zero(b.PtrAdd(dst, i), 0, loopStep) })
	}
	zero(dst, done, size)
	v.Type = ir.I64
	become(v, ir.OpConst)
}

// loop runs body for i from 0 to size in steps of loopStep. The rewriting goes
// on after the loop.
func (e *editor) loop(size int, body func(i *ir.Value)) {
	b := e.b
	head, after := e.f.NewBlock("copy"), e.f.NewBlock("copied")
	i := head.NewParam(ir.I64, "i")
	b.Jump(head, b.Const(ir.I64, 0))
	b.At(head)
	body(i)
	next := b.Binary(ir.OpAdd, i, b.Const(ir.I64, loopStep))
	b.IfEdges(b.Compare(ir.OpULt, next, b.Const(ir.I64, int64(size))),
		ir.Edge{To: head, Args: []*ir.Value{next}}, ir.Edge{To: after})
	b.At(after)
}

// tooLarge is for scratch memory beyond what a per-CPU map can hold.
func tooLarge(f *ir.Func, size int) *source.Diagnostic {
	return source.Errorf(f.Pos, "scratch-too-large",
		"function %q needs %d bytes of memory for its variables, but a per-CPU map element holds %d",
		f.Name, size, maxScratch).
		Notef("lower max_strlen, give str and buf a length, or use fewer of them in one probe")
}
