//go:build linux && (amd64 || arm64)

package interp

import (
	"unsafe"

	"github.com/skep-bpf/skep/vm/cage"
)

// memory is how an access reaches the cage. Every sum of a 32-bit address and
// a 16-bit offset is mapped.
type memory struct{ base unsafe.Pointer }

func newMemory(c *cage.Cage) memory { return memory{c.Base()} }

func at(base unsafe.Pointer, addr uint64, off int32) unsafe.Pointer {
	return unsafe.Add(base, int(uint32(addr))+int(off))
}

func (m memory) load8(addr uint64, off int32) uint8   { return *(*uint8)(at(m.base, addr, off)) }
func (m memory) load16(addr uint64, off int32) uint16 { return *(*uint16)(at(m.base, addr, off)) }
func (m memory) load32(addr uint64, off int32) uint32 { return *(*uint32)(at(m.base, addr, off)) }
func (m memory) load64(addr uint64, off int32) uint64 { return *(*uint64)(at(m.base, addr, off)) }

func (m memory) store8(addr uint64, off int32, v uint8)   { *(*uint8)(at(m.base, addr, off)) = v }
func (m memory) store16(addr uint64, off int32, v uint16) { *(*uint16)(at(m.base, addr, off)) = v }
func (m memory) store32(addr uint64, off int32, v uint32) { *(*uint32)(at(m.base, addr, off)) = v }
func (m memory) store64(addr uint64, off int32, v uint64) { *(*uint64)(at(m.base, addr, off)) = v }

// aligned returns the place of n bytes, or nil if the address is no multiple.
func (m memory) aligned(addr uint64, off int32, n uint32) unsafe.Pointer {
	p := at(m.base, addr, off)
	if uint32(uintptr(p))&(n-1) != 0 {
		return nil
	}
	return p
}
