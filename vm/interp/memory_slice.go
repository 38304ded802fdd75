//go:build !linux || !(amd64 || arm64)

package interp

import (
	"encoding/binary"
	"unsafe"

	"github.com/skep-bpf/skep/vm/cage"
)

// memory is how an access reaches the cage: masked, and byte by byte where it
// crosses the end, beyond which the start follows.
type memory struct {
	base unsafe.Pointer
	mask uint32
}

func newMemory(c *cage.Cage) memory { return memory{c.Base(), c.Mask()} }

func (m memory) at(addr uint64, off int32, n uint32) (unsafe.Pointer, bool) {
	i := (uint32(addr) + uint32(off)) & m.mask
	return unsafe.Add(m.base, i), i <= m.mask-(n-1)
}

func (m memory) load8(addr uint64, off int32) uint8 {
	p, _ := m.at(addr, off, 1)
	return *(*uint8)(p)
}

func (m memory) load16(addr uint64, off int32) uint16 {
	if p, ok := m.at(addr, off, 2); ok {
		return *(*uint16)(p)
	}
	b := m.split(addr, off, 2)
	return binary.NativeEndian.Uint16(b[:])
}

func (m memory) load32(addr uint64, off int32) uint32 {
	if p, ok := m.at(addr, off, 4); ok {
		return *(*uint32)(p)
	}
	b := m.split(addr, off, 4)
	return binary.NativeEndian.Uint32(b[:])
}

func (m memory) load64(addr uint64, off int32) uint64 {
	if p, ok := m.at(addr, off, 8); ok {
		return *(*uint64)(p)
	}
	b := m.split(addr, off, 8)
	return binary.NativeEndian.Uint64(b[:])
}

// split reads n bytes across the end.
func (m memory) split(addr uint64, off int32, n int32) (b [8]byte) {
	for i := range n {
		b[i] = m.load8(addr, off+i)
	}
	return b
}

func (m memory) store8(addr uint64, off int32, v uint8) {
	p, _ := m.at(addr, off, 1)
	*(*uint8)(p) = v
}

func (m memory) store16(addr uint64, off int32, v uint16) {
	if p, ok := m.at(addr, off, 2); ok {
		*(*uint16)(p) = v
		return
	}
	m.join(addr, off, binary.NativeEndian.AppendUint16(nil, v))
}

func (m memory) store32(addr uint64, off int32, v uint32) {
	if p, ok := m.at(addr, off, 4); ok {
		*(*uint32)(p) = v
		return
	}
	m.join(addr, off, binary.NativeEndian.AppendUint32(nil, v))
}

func (m memory) store64(addr uint64, off int32, v uint64) {
	if p, ok := m.at(addr, off, 8); ok {
		*(*uint64)(p) = v
		return
	}
	m.join(addr, off, binary.NativeEndian.AppendUint64(nil, v))
}

// join writes bytes across the end.
func (m memory) join(addr uint64, off int32, b []byte) {
	for i, x := range b {
		m.store8(addr, off+int32(i), x)
	}
}

// aligned returns the place of n bytes, or nil if the address is no multiple.
func (m memory) aligned(addr uint64, off int32, n uint32) unsafe.Pointer {
	p, _ := m.at(addr, off, n)
	if (uint32(addr)+uint32(off))&(n-1) != 0 {
		return nil
	}
	return p
}
