//go:build !linux || !(amd64 || arm64)

package cage

import "unsafe"

// Mapped says that only addresses below Size are there: those above have to be
// masked first, and an access may not cross the end.
const Mapped = false

// A mapping is an ordinary slice; of words, so that it is aligned.
type mapping struct{ words []uint64 }

func (m *mapping) open(c *Cage) error {
	m.words = make([]uint64, c.size/8)
	c.base = unsafe.Pointer(unsafe.SliceData(m.words))
	return nil
}

func (m *mapping) close() error {
	m.words = nil
	return nil
}

func (m *mapping) discard(addr, n uint32) bool { return false }
