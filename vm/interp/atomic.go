package interp

import (
	"sync/atomic"
	"unsafe"

	"github.com/skep-bpf/skep/isa"
)

// doAtomic executes an atomic instruction. It returns false where the address
// is no multiple of the size.
func doAtomic(m memory, r unsafe.Pointer, in *insn) bool {
	dst, src := reg(r, in.dst), reg(r, in.src)
	if isa.AtomicOp(in.imm) == isa.LoadAcquireOp {
		p := m.aligned(*src, in.off, uint32(in.size))
		if p == nil {
			return false
		}
		*dst = loadAcquire(p, in.size)
		return true
	}
	p := m.aligned(*dst, in.off, uint32(in.size))
	if p == nil {
		return false
	}
	if isa.AtomicOp(in.imm) == isa.StoreReleaseOp {
		storeRelease(p, in.size, *src)
		return true
	}
	var old uint64
	if in.size == 4 {
		old = uint64(atomic32((*uint32)(p), isa.AtomicOp(in.imm), uint32(*src), uint32(*reg(r, 0))))
	} else {
		old = atomic64((*uint64)(p), isa.AtomicOp(in.imm), *src, *reg(r, 0))
	}
	switch {
	case isa.AtomicOp(in.imm) == isa.CmpXchg:
		*reg(r, 0) = old
	case isa.AtomicOp(in.imm)&isa.Fetch != 0:
		*src = old
	}
	return true
}

func atomic32(p *uint32, op isa.AtomicOp, v, expect uint32) uint32 {
	switch op &^ isa.Fetch {
	case isa.AtomicAdd:
		return atomic.AddUint32(p, v) - v
	case isa.AtomicOr:
		return atomic.OrUint32(p, v)
	case isa.AtomicAnd:
		return atomic.AndUint32(p, v)
	case isa.Xchg &^ isa.Fetch:
		return atomic.SwapUint32(p, v)
	case isa.CmpXchg &^ isa.Fetch:
		for {
			old := atomic.LoadUint32(p)
			if old != expect || atomic.CompareAndSwapUint32(p, old, v) {
				return old
			}
		}
	}
	for { // xor
		old := atomic.LoadUint32(p)
		if atomic.CompareAndSwapUint32(p, old, old^v) {
			return old
		}
	}
}

func atomic64(p *uint64, op isa.AtomicOp, v, expect uint64) uint64 {
	switch op &^ isa.Fetch {
	case isa.AtomicAdd:
		return atomic.AddUint64(p, v) - v
	case isa.AtomicOr:
		return atomic.OrUint64(p, v)
	case isa.AtomicAnd:
		return atomic.AndUint64(p, v)
	case isa.Xchg &^ isa.Fetch:
		return atomic.SwapUint64(p, v)
	case isa.CmpXchg &^ isa.Fetch:
		for {
			old := atomic.LoadUint64(p)
			if old != expect || atomic.CompareAndSwapUint64(p, old, v) {
				return old
			}
		}
	}
	for { // xor
		old := atomic.LoadUint64(p)
		if atomic.CompareAndSwapUint64(p, old, old^v) {
			return old
		}
	}
}

// within returns the aligned word that holds the one or two bytes at p, and how
// far they are shifted in it. Go has no atomics of these sizes.
func within(p unsafe.Pointer, size uint8) (word *uint32, shift uint) {
	i := uint(uintptr(p) & 3)
	shift = i * 8
	if bigEndian {
		shift = (4 - i - uint(size)) * 8
	}
	return (*uint32)(unsafe.Add(p, -int(i))), shift
}

func loadAcquire(p unsafe.Pointer, size uint8) uint64 {
	switch size {
	case 8:
		return atomic.LoadUint64((*uint64)(p))
	case 4:
		return uint64(atomic.LoadUint32((*uint32)(p)))
	}
	word, shift := within(p, size)
	return uint64(atomic.LoadUint32(word)>>shift) & (1<<(8*size) - 1)
}

func storeRelease(p unsafe.Pointer, size uint8, v uint64) {
	switch size {
	case 8:
		atomic.StoreUint64((*uint64)(p), v)
		return
	case 4:
		atomic.StoreUint32((*uint32)(p), uint32(v))
		return
	}
	word, shift := within(p, size)
	mask := uint32(1<<(8*size)-1) << shift
	for {
		old := atomic.LoadUint32(word)
		if atomic.CompareAndSwapUint32(word, old, old&^mask|uint32(v)<<shift&mask) {
			return
		}
	}
}
