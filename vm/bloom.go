package vm

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync/atomic"

	"github.com/skep-bpf/skep/abi"
)

// A bloomTable is a bloom filter (kernel/bpf/bloom_filter.c).
type bloomTable struct {
	m      *Map
	hashes uint32
	seed   uint32
	mask   uint32
	bits   []atomic.Uint32
}

func newBloom(m *Map) (table, error) {
	const known = 1<<2 | 1<<6 | mapReadOnly | mapWriteOnly | mapReadOnlyProg | mapWriteOnlyPrg
	if m.keySize != 0 || m.valueSize == 0 || m.maxEntries == 0 || m.flags&^known != 0 || m.extra&^0xf != 0 {
		return nil, EINVAL
	}
	t := &bloomTable{m: m, hashes: uint32(m.extra)}
	if t.hashes == 0 {
		t.hashes = 5
	}
	n := uint64(m.maxEntries) * uint64(t.hashes)
	if n > 1<<32-1 || n/5*7 > 1<<31 {
		t.mask = 1<<32 - 1
	} else {
		t.mask = uint32(1)<<bits.Len64(max(n/5*7, 64)-1) - 1
	}
	words := (uint64(t.mask) + 1) / 32
	if err := m.charge(int64(words) * 4); err != nil {
		return nil, err
	}
	t.bits = make([]atomic.Uint32, words)
	if m.flags&(1<<6) == 0 { // BPF_F_ZERO_SEED
		t.seed = rand.Uint32()
	}
	return t, nil
}

func (t *bloomTable) push(value []byte, flags uint64) Errno {
	if flags != 0 {
		return EINVAL
	}
	for i := range t.hashes {
		h := jhash(value, t.seed+i) & t.mask
		t.bits[h/32].Or(1 << (h % 32))
	}
	return 0
}

func (t *bloomTable) peek(value []byte) Errno {
	for i := range t.hashes {
		h := jhash(value, t.seed+i) & t.mask
		if t.bits[h/32].Load()>>(h%32)&1 == 0 {
			return ENOENT
		}
	}
	return 0
}

func (t *bloomTable) take([]byte) Errno                         { return EOPNOTSUPP }
func (t *bloomTable) lookup(int, []byte) uint32                 { return 0 }
func (t *bloomTable) update(int, []byte, []byte, uint64) Errno  { return EINVAL }
func (t *bloomTable) remove([]byte) Errno                       { return EOPNOTSUPP }
func (t *bloomTable) next([]byte) ([]byte, Errno)               { return nil, EOPNOTSUPP }
func (t *bloomTable) read(_, value []byte, _ uint64) Errno      { return t.peek(value) }
func (t *bloomTable) write(_, value []byte, flags uint64) Errno { return t.push(value, flags) }
func (t *bloomTable) close()                                    {}

// jhash is Bob Jenkins' lookup3 hash, as the kernel uses it
// (include/linux/jhash.h).
func jhash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	for len(key) > 12 {
		a += binary.LittleEndian.Uint32(key)
		b += binary.LittleEndian.Uint32(key[4:])
		c += binary.LittleEndian.Uint32(key[8:])
		a = a - c ^ bits.RotateLeft32(c, 4)
		c += b
		b = b - a ^ bits.RotateLeft32(a, 6)
		a += c
		c = c - b ^ bits.RotateLeft32(b, 8)
		b += a
		a = a - c ^ bits.RotateLeft32(c, 16)
		c += b
		b = b - a ^ bits.RotateLeft32(a, 19)
		a += c
		c = c - b ^ bits.RotateLeft32(b, 4)
		b += a
		key = key[12:]
	}
	if len(key) == 0 {
		return c
	}
	var rest [12]byte
	copy(rest[:], key)
	a += binary.LittleEndian.Uint32(rest[:])
	b += binary.LittleEndian.Uint32(rest[4:])
	c += binary.LittleEndian.Uint32(rest[8:])
	c = c ^ b - bits.RotateLeft32(b, 14)
	a = a ^ c - bits.RotateLeft32(c, 11)
	b = b ^ a - bits.RotateLeft32(a, 25)
	c = c ^ b - bits.RotateLeft32(b, 16)
	a = a ^ c - bits.RotateLeft32(c, 4)
	b = b ^ a - bits.RotateLeft32(a, 14)
	return c ^ b - bits.RotateLeft32(b, 24)
}

func init() { mapTypes[abi.MapBloomFilter] = newBloom }
