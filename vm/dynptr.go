package vm

import (
	"fmt"
)

// dynptrs are the dynptrs of a run (struct bpf_dynptr), by the address of what
// stands for them in the program's stack. What stands there means nothing.
type dynptrs map[uint32]*dynptr

type dynptr struct {
	kind     dynptrKind
	addr     uint32 // of local memory or a record
	off, n   uint32 // the part in view
	readOnly bool
	rec      *ringRecord
	ring     *ringTable
}

type dynptrKind uint8

const (
	dynNull dynptrKind = iota
	dynLocal
	dynRing
	dynPacket
)

const dynptrMaxSize = 1<<24 - 1

// maxDynptrs bounds how many a program that was never verified can make.
const maxDynptrs = 4096

func (r *run) dynptr(arg int) *dynptr {
	if d := r.dynptrs[uint32(r.arg(arg))]; d != nil {
		return d
	}
	return &dynptr{}
}

func (r *run) setDynptr(arg int, d *dynptr) {
	if r.dynptrs == nil {
		r.dynptrs = dynptrs{}
	}
	if len(r.dynptrs) >= maxDynptrs {
		clear(r.dynptrs)
	}
	r.dynptrs[uint32(r.arg(arg))] = d
}

// view returns n bytes at offset off of what d shows.
func (r *run) view(d *dynptr, off, n uint32) ([]byte, Errno) {
	if d.kind == dynNull {
		return nil, EINVAL
	}
	if uint64(off)+uint64(n) > uint64(d.n) {
		return nil, E2BIG
	}
	if d.kind == dynPacket {
		b := r.payload()
		from := uint64(d.off) + uint64(off)
		if from+uint64(n) > uint64(len(b)) {
			return nil, EFAULT
		}
		return b[from:][:n], 0
	}
	b, ok := r.bytes(uint64(d.addr)+uint64(d.off)+uint64(off), uint64(n))
	if !ok {
		return nil, EFAULT
	}
	return b, 0
}

func dynptrFromMem(r *run) uint64 {
	n := uint32(r.arg(2))
	if n > dynptrMaxSize {
		r.setDynptr(4, &dynptr{})
		return E2BIG.result()
	}
	if r.arg(3) != 0 {
		r.setDynptr(4, &dynptr{})
		return EINVAL.result()
	}
	r.setDynptr(4, &dynptr{kind: dynLocal, addr: uint32(r.arg(1)), n: n})
	return 0
}

func dynptrRead(r *run) uint64 {
	n := uint32(r.arg(2))
	dst, ok := r.bytes(r.arg(1), uint64(n))
	if !ok {
		return r.badMemory(1)
	}
	d := r.dynptr(3)
	if d.kind == dynNull || r.arg(5) != 0 {
		return EINVAL.result()
	}
	src, e := r.view(d, uint32(r.arg(4)), n)
	if e != 0 {
		return e.result()
	}
	copy(dst, src)
	return 0
}

func dynptrWrite(r *run) uint64 {
	n := uint32(r.arg(4))
	src, ok := r.bytes(r.arg(3), uint64(n))
	if !ok {
		return r.badMemory(3)
	}
	d := r.dynptr(1)
	if d.kind == dynNull || d.readOnly || d.kind != dynPacket && r.arg(5) != 0 {
		return EINVAL.result()
	}
	dst, e := r.view(d, uint32(r.arg(2)), n)
	if e != 0 {
		return e.result()
	}
	copy(dst, src)
	return 0
}

func dynptrData(r *run) uint64 {
	d := r.dynptr(1)
	off, n := uint32(r.arg(2)), uint32(r.arg(3))
	if d.kind == dynNull || d.kind == dynPacket || d.readOnly || uint64(off)+uint64(n) > uint64(d.n) {
		return 0
	}
	return uint64(d.addr + d.off + off)
}

func ringReserveDynptr(r *run) uint64 {
	t := r.ring()
	if t == nil {
		return 0
	}
	n := uint32(r.arg(2))
	r.setDynptr(4, &dynptr{})
	switch {
	case r.arg(3) != 0:
		return EINVAL.result()
	case n > dynptrMaxSize:
		return E2BIG.result()
	}
	rec := t.reserve(uint64(n))
	if rec == nil {
		return EINVAL.result()
	}
	addr := r.ownRecord(t, rec)
	r.setDynptr(4, &dynptr{kind: dynRing, addr: addr, n: n, rec: rec, ring: t})
	return 0
}

func ringEndDynptr(submit bool) helperFunc {
	return func(r *run) uint64 {
		d := r.dynptr(1)
		if d.kind != dynRing {
			return 0 // a reservation that failed is given back like others
		}
		end := r.disown(d.addr)
		r.setDynptr(1, &dynptr{})
		if end == nil {
			return r.giveUp(fmt.Errorf("the record of the dynptr at %#x was given back already", r.arg(1)))
		}
		end(submit, r.arg(2))
		return 0
	}
}

// dynptrFromPacket is bpf_dynptr_from_skb and bpf_dynptr_from_xdp.
func dynptrFromPacket(r *run) uint64 {
	if r.arg(2) != 0 {
		r.setDynptr(3, &dynptr{})
		return EINVAL.result()
	}
	r.setDynptr(3, &dynptr{kind: dynPacket, n: uint32(len(r.payload()))})
	return 0
}

// dynptrSlice is bpf_dynptr_slice and bpf_dynptr_slice_rdwr: what lies in the
// cage anyway is not copied.
func dynptrSlice(write bool) helperFunc {
	return func(r *run) uint64 {
		d := r.dynptr(1)
		off, n := uint32(r.arg(2)), uint32(r.arg(4))
		if d.kind == dynNull || write && d.readOnly {
			return 0
		}
		if _, e := r.view(d, off, n); e != 0 {
			return 0
		}
		if d.kind == dynPacket {
			return uint64(r.packet.buf) + uint64(r.packet.data) + uint64(d.off) + uint64(off)
		}
		return uint64(d.addr + d.off + off)
	}
}

func dynptrAdjust(r *run) uint64 {
	d := r.dynptr(1)
	start, end := uint32(r.arg(2)), uint32(r.arg(3))
	switch {
	case d.kind == dynNull || start > end:
		return EINVAL.result()
	case start > d.n || end > d.n:
		return ERANGE.result()
	}
	d.off, d.n = d.off+start, end-start
	return 0
}

func dynptrClone(r *run) uint64 {
	d := r.dynptr(1)
	if d.kind == dynNull {
		r.setDynptr(2, &dynptr{})
		return EINVAL.result()
	}
	copied := *d
	r.setDynptr(2, &copied)
	return 0
}

// dynptrCopy is bpf_dynptr_copy; the two may overlap.
func dynptrCopy(r *run) uint64 {
	dst, src := r.dynptr(1), r.dynptr(3)
	if dst.readOnly {
		return EINVAL.result()
	}
	n := uint32(r.arg(5))
	from, e := r.view(src, uint32(r.arg(4)), n)
	to, e2 := r.view(dst, uint32(r.arg(2)), n)
	if e2 != 0 {
		e = e2
	}
	if e != 0 {
		return e.result()
	}
	r.charge(int(n) / 64)
	copy(to, from)
	return 0
}

func dynptrSet(r *run) uint64 {
	d := r.dynptr(1)
	if d.readOnly {
		return EINVAL.result()
	}
	b, e := r.view(d, uint32(r.arg(2)), uint32(r.arg(3)))
	if e != 0 {
		return e.result()
	}
	r.charge(len(b) / 64)
	for i := range b {
		b[i] = byte(r.arg(4))
	}
	return 0
}

// numIters are the number iterators of a run (struct bpf_iter_num), by address.
type numIters map[uint32]*numIter

type numIter struct{ cur, end int64 }

// The iterator of numbers (kernel/bpf/bpf_iter.c): the present number stands
// in the program's own memory, where it may read and change it to no effect.
func iterNumNew(r *run) uint64 {
	start, end := int64(int32(r.arg(2))), int64(int32(r.arg(3)))
	if r.iters == nil || len(r.iters) >= maxDynptrs {
		r.iters = numIters{}
	}
	it := &numIter{}
	r.iters[uint32(r.arg(1))] = it
	switch {
	case start > end:
		return EINVAL.result()
	case end-start > 8<<20: // BPF_MAX_LOOPS
		return E2BIG.result()
	}
	it.cur, it.end = start-1, end
	return 0
}

func iterNumNext(r *run) uint64 {
	it := r.iters[uint32(r.arg(1))]
	if it == nil || it.cur+1 >= it.end {
		if it != nil {
			it.cur, it.end = 0, 0
		}
		return 0
	}
	b, ok := r.bytes(r.arg(1), 4)
	if !ok {
		return r.badMemory(1)
	}
	it.cur++
	native.PutUint32(b, uint32(it.cur))
	return uint64(uint32(r.arg(1)))
}

func iterNumDestroy(r *run) uint64 {
	delete(r.iters, uint32(r.arg(1)))
	return 0
}

func init() {
	for id, f := range map[int32]helperFunc{
		197: dynptrFromMem, 198: ringReserveDynptr, 199: ringEndDynptr(true), 200: ringEndDynptr(false),
		201: dynptrRead, 202: dynptrWrite, 203: dynptrData,
	} {
		helpers[id] = f
	}
	for name, f := range map[string]helperFunc{
		"bpf_dynptr_from_skb": dynptrFromPacket, "bpf_dynptr_from_xdp": dynptrFromPacket,
		"bpf_dynptr_slice": dynptrSlice(false), "bpf_dynptr_slice_rdwr": dynptrSlice(true),
		"bpf_dynptr_adjust": dynptrAdjust, "bpf_dynptr_clone": dynptrClone, "bpf_dynptr_copy": dynptrCopy, "bpf_dynptr_memset": dynptrSet,
		"bpf_dynptr_size": func(r *run) uint64 {
			if d := r.dynptr(1); d.kind != dynNull {
				return uint64(d.n)
			}
			return EINVAL.result()
		},
		"bpf_dynptr_is_null":   func(r *run) uint64 { return truth(r.dynptr(1).kind == dynNull) },
		"bpf_dynptr_is_rdonly": func(r *run) uint64 { return truth(r.dynptr(1).readOnly) },
		"bpf_iter_num_new":     iterNumNew, "bpf_iter_num_next": iterNumNext, "bpf_iter_num_destroy": iterNumDestroy,
		"bpf_rcu_read_lock": func(*run) uint64 { return 0 }, "bpf_rcu_read_unlock": func(*run) uint64 { return 0 },
		"bpf_cast_to_kern_ctx": func(r *run) uint64 { return r.arg(1) }, "bpf_rdonly_cast": func(r *run) uint64 { return r.arg(1) },
		"bpf_local_irq_save": func(*run) uint64 { return 0 }, "bpf_local_irq_restore": func(*run) uint64 { return 0 },
		"bpf_preempt_disable": func(*run) uint64 { return 0 }, "bpf_preempt_enable": func(*run) uint64 { return 0 },
	} {
		kfuncs[name] = f
	}
}

func truth(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
