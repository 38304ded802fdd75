package vm

// A slab hands out values of a map in the cage, from blocks that it takes as
// they are needed. Its caller locks.
type slab struct {
	m      *Map
	blocks []uint32
	free   []uint32
}

// take returns the address of a value, of zeros.
func (s *slab) take() (uint32, error) {
	if len(s.free) == 0 {
		size := s.m.valueStride()
		n := max(1, min(4096/size, int(s.m.maxEntries)))
		block, err := s.m.alloc(uint64(n * size))
		if err != nil {
			return 0, err
		}
		s.blocks = append(s.blocks, block)
		for i := n - 1; i >= 0; i-- {
			s.free = append(s.free, block+uint32(i*size))
		}
	}
	addr := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	clear(s.m.bytes(addr))
	return addr, nil
}

func (s *slab) give(addr uint32) { s.free = append(s.free, addr) }

func (s *slab) close() {
	for _, b := range s.blocks {
		s.m.release(b)
	}
}
