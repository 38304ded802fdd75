package cage

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"unsafe"
)

const (
	// Space is how much a 32-bit address can reach.
	Space = 1 << 32
	// Slack is mapped below address 0 and above Space, for what the 16-bit
	// offset of an instruction and the width of an access add.
	Slack = 64 << 10
	// MinSize is the least size of a cage's memory. Smaller memory would take
	// more mappings to fill Space, of which a process has some 65,000.
	MinSize = 64 << 20
	// MaxSize is the largest size of a cage's memory.
	MaxSize = 2 << 30
	// First is the lowest address that Alloc gives. What lies below can be
	// touched as well, and is nobody's, so that null leads nowhere.
	First = 64 << 10
)

// ErrFull is returned by Alloc when the memory of the cage is used up.
var ErrFull = errors.New("the vm's memory limit is reached")

// A Cage is memory of a power of two of bytes, repeated over the whole 32-bit
// space: addresses that are equal modulo Size are the same byte. Every 32-bit
// number is thus a good address, and none leads outside.
//
// Methods may be called from several goroutines.
type Cage struct {
	base unsafe.Pointer // of address 0
	size uint32
	sys  mapping

	mu    sync.Mutex
	free  []span            // in the order of addresses, never adjacent
	taken map[uint32]uint32 // the length of what was allocated, by address
	used  int64
}

// A span is a stretch of unused memory, all zeros.
type span struct{ addr, n uint32 }

// New returns a cage of at least limit bytes: the next power of two from
// MinSize to MaxSize.
func New(limit int64) (*Cage, error) {
	size := max(limit, MinSize)
	if size > MaxSize {
		return nil, fmt.Errorf("a vm's memory limit of %d bytes is above the largest, %d", limit, int64(MaxSize))
	}
	size = 1 << bits.Len64(uint64(size-1))
	c := &Cage{size: uint32(size), taken: map[uint32]uint32{}}
	if err := c.sys.open(c); err != nil {
		return nil, fmt.Errorf("cannot reserve memory for a vm: %w", err)
	}
	// The end stays unused as well: it is what lies below address 0.
	c.free = []span{{First, c.size - First - Slack}}
	return c, nil
}

// Close gives the memory back. Nothing may use it any more.
func (c *Cage) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base == nil {
		return nil
	}
	c.base, c.free, c.taken = nil, nil, nil
	return c.sys.close()
}

// Base is where address 0 is in the process.
func (c *Cage) Base() unsafe.Pointer { return c.base }

// Size is the number of bytes there are, a power of two.
func (c *Cage) Size() int { return int(c.size) }

// Mask leads any address to the lowest one of the same byte.
func (c *Cage) Mask() uint32 { return c.size - 1 }

// Used is the number of bytes that are allocated.
func (c *Cage) Used() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// Bytes returns the n bytes at addr. It fails only for what no Alloc can have
// given: more than there is, or beyond the end of the memory.
func (c *Cage) Bytes(addr uint32, n int) ([]byte, bool) {
	addr &= c.size - 1
	if n < 0 || n > int(c.size-addr) {
		return nil, false
	}
	return unsafe.Slice((*byte)(unsafe.Add(c.base, addr)), n), true
}

// At returns the place of addr in the process. No more than Slack bytes may be
// read or written from there.
func (c *Cage) At(addr uint32) unsafe.Pointer { return unsafe.Add(c.base, addr&(c.size-1)) }

// align is the unit of allocation: a cache line, so that what belongs to
// different processors is apart.
const align = 64

// bigBlock is from where freed memory is given back to the system.
const bigBlock = 256 << 10

// Alloc returns the address of n bytes of zeros, aligned to a cache line, or to
// a page for a page and more. It fails with ErrFull.
func (c *Cage) Alloc(n int) (uint32, error) {
	if n <= 0 {
		n = 1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base == nil {
		return 0, errors.New("the vm is closed")
	}
	if n > int(c.size) {
		return 0, ErrFull
	}
	unit := uint32(align)
	if n >= 4096 {
		unit = 4096
	}
	size := (uint32(n) + align - 1) &^ (align - 1)
	for i, s := range c.free {
		addr := (s.addr + unit - 1) &^ (unit - 1)
		skip := addr - s.addr
		if s.n < skip || s.n-skip < size {
			continue
		}
		var rest []span
		if skip > 0 {
			rest = append(rest, span{s.addr, skip})
		}
		if left := s.n - skip - size; left > 0 {
			rest = append(rest, span{addr + size, left})
		}
		c.free = replace(c.free, i, rest)
		c.taken[addr] = size
		c.used += int64(size)
		return addr, nil
	}
	return 0, ErrFull
}

// Free gives back what Alloc returned.
func (c *Cage) Free(addr uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size, ok := c.taken[addr]
	if !ok {
		return
	}
	delete(c.taken, addr)
	c.used -= int64(size)
	if size < bigBlock || !c.sys.discard(addr, size) {
		clear(unsafe.Slice((*byte)(unsafe.Add(c.base, addr)), size))
	}
	// The first free span beyond addr, by bisection.
	lo, hi := 0, len(c.free)
	for lo < hi {
		if mid := (lo + hi) / 2; c.free[mid].addr < addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	s := span{addr, size}
	if lo > 0 && c.free[lo-1].addr+c.free[lo-1].n == addr {
		lo--
		s = span{c.free[lo].addr, c.free[lo].n + s.n}
		c.free = replace(c.free, lo, nil)
	}
	if lo < len(c.free) && s.addr+s.n == c.free[lo].addr {
		s.n += c.free[lo].n
		c.free = replace(c.free, lo, nil)
	}
	c.free = append(c.free, span{})
	copy(c.free[lo+1:], c.free[lo:])
	c.free[lo] = s
}

// replace puts up to two spans in the place of the one at i.
func replace(list []span, i int, with []span) []span {
	switch len(with) {
	case 0:
		return append(list[:i], list[i+1:]...)
	case 1:
		list[i] = with[0]
		return list
	}
	list = append(list, span{})
	copy(list[i+1:], list[i:])
	list[i], list[i+1] = with[0], with[1]
	return list
}
