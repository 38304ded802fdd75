package symbol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
)

// This file decodes the .xz format (version 1.2.0 of "The .xz File Format")
// as far as .gnu_debugdata needs it: one stream, the filter LZMA2, everything in memory.

var errXZ = errors.New("damaged xz data")

const (
	// maxXZ bounds the output; a mini debug section holds one symbol table.
	maxXZ = 128 << 20
	// xzLZMA2 is the id of the only filter understood.
	xzLZMA2 = 0x21
)

var xzMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}

// unxz decompresses the first stream of data. Checks other than CRC-32 and
// CRC-64 are not verified.
func unxz(data []byte) ([]byte, error) {
	if len(data) < 12 || !bytes.HasPrefix(data, xzMagic) || data[6] != 0 {
		return nil, errXZ
	}
	check := data[7]
	checkSize := map[byte]int{0: 0, 1: 4, 4: 8, 10: 32}
	n, ok := checkSize[check]
	if !ok {
		return nil, fmt.Errorf("%w: unknown check %d", errXZ, check)
	}
	if crc32.ChecksumIEEE(data[6:8]) != binary.LittleEndian.Uint32(data[8:]) {
		return nil, errXZ
	}
	data = data[12:]
	var out []byte
	for {
		if len(data) < 4 {
			return nil, errXZ
		}
		if data[0] == 0 { // the index: no more blocks
			return out, nil
		}
		header := (int(data[0]) + 1) * 4
		if header > len(data) || crc32.ChecksumIEEE(data[:header-4]) != binary.LittleEndian.Uint32(data[header-4:]) {
			return nil, errXZ
		}
		if err := xzBlockHeader(data[:header-4]); err != nil {
			return nil, err
		}
		start := len(out)
		d := lzma2{in: data[header:], out: out, dict: start}
		if err := d.run(); err != nil {
			return nil, err
		}
		out = d.out
		used := len(data) - len(d.in) // header is a multiple of 4 too
		used = (used + 3) &^ 3
		if used+n > len(data) {
			return nil, errXZ
		}
		sum := data[used : used+n]
		switch check {
		case 1:
			ok = crc32.ChecksumIEEE(out[start:]) == binary.LittleEndian.Uint32(sum)
		case 4:
			ok = crc64.Checksum(out[start:], crc64.MakeTable(crc64.ECMA)) == binary.LittleEndian.Uint64(sum)
		}
		if !ok {
			return nil, fmt.Errorf("%w: wrong checksum", errXZ)
		}
		data = data[used+n:]
	}
}

// xzBlockHeader checks that LZMA2 is the block's only filter.
func xzBlockHeader(h []byte) error {
	flags := h[1]
	if flags&0x3f != 0 {
		return fmt.Errorf("%w: more than one filter", errXZ)
	}
	rest := h[2:]
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return 0, false
		}
		rest = rest[n:]
		return v, true
	}
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} {
		if present {
			if _, ok := next(); !ok {
				return errXZ
			}
		}
	}
	id, ok1 := next()
	size, ok2 := next()
	if !ok1 || !ok2 || size != 1 || len(rest) < 1 {
		return errXZ
	}
	if id != xzLZMA2 {
		return fmt.Errorf("%w: filter %#x is not LZMA2", errXZ, id)
	}
	return nil
}

// lzma2 decodes chunks of LZMA2. The output is the dictionary.
type lzma2 struct {
	in, out []byte
	dict    int // where the dictionary starts in out

	// The range decoder, over one chunk.
	chunk      []byte
	rng, code  uint32
	overrun    bool
	lc, lp, pb uint

	state                        int
	reps                         [4]uint32
	isMatch, isRep0Long          [12][16]uint16
	isRep, isRepG0, isRepG1, rG2 [12]uint16
	posSlot                      [4][64]uint16
	special                      [128]uint16
	align                        [16]uint16
	lens, repLens                lengths
	literal                      []uint16
}

type lengths struct {
	choice, choice2 uint16
	low, mid        [16][8]uint16
	high            [256]uint16
}

func half(p []uint16) {
	for i := range p {
		p[i] = 1 << 10
	}
}

func (l *lengths) reset() {
	l.choice, l.choice2 = 1<<10, 1<<10
	for i := range l.low {
		half(l.low[i][:])
		half(l.mid[i][:])
	}
	half(l.high[:])
}

func (d *lzma2) reset() {
	d.state, d.reps = 0, [4]uint32{}
	for i := range d.isMatch {
		half(d.isMatch[i][:])
		half(d.isRep0Long[i][:])
	}
	for _, p := range []*[12]uint16{&d.isRep, &d.isRepG0, &d.isRepG1, &d.rG2} {
		half(p[:])
	}
	for i := range d.posSlot {
		half(d.posSlot[i][:])
	}
	half(d.special[:])
	half(d.align[:])
	d.lens.reset()
	d.repLens.reset()
	if n := 0x300 << (d.lc + d.lp); len(d.literal) != n {
		d.literal = make([]uint16, n)
	}
	half(d.literal)
}

func (d *lzma2) run() error {
	ready, dictReady := false, false
	for {
		if len(d.in) < 1 {
			return errXZ
		}
		control := d.in[0]
		d.in = d.in[1:]
		if control == 0 {
			return nil
		}
		if control < 0x80 {
			if control > 2 || len(d.in) < 2 || control == 2 && !dictReady {
				return errXZ
			}
			size := int(binary.BigEndian.Uint16(d.in)) + 1
			d.in = d.in[2:]
			if size > len(d.in) || len(d.out)+size > maxXZ {
				return errXZ
			}
			if control == 1 {
				d.dict, dictReady = len(d.out), true
			}
			d.out = append(d.out, d.in[:size]...)
			d.in = d.in[size:]
			continue
		}
		if len(d.in) < 5 {
			return errXZ
		}
		size := int(control&0x1f)<<16 + int(binary.BigEndian.Uint16(d.in)) + 1
		packed := int(binary.BigEndian.Uint16(d.in[2:])) + 1
		d.in = d.in[4:]
		reset := control >> 5 & 3
		if reset == 3 {
			d.dict, dictReady = len(d.out), true
		}
		if reset >= 2 {
			props := uint(d.in[0])
			d.in = d.in[1:]
			d.lc, d.lp, d.pb = props%9, props/9%5, props/45
			if d.pb > 4 || d.lc+d.lp > 4 {
				return errXZ
			}
			ready = true
		}
		if !ready || !dictReady || packed > len(d.in) || packed < 5 || len(d.out)+size > maxXZ {
			return errXZ
		}
		if reset >= 1 {
			d.reset()
		}
		d.chunk = d.in[:packed]
		d.in = d.in[packed:]
		if err := d.lzma(len(d.out) + size); err != nil {
			return err
		}
	}
}

func (d *lzma2) normalize() {
	if d.rng < 1<<24 {
		d.rng <<= 8
		d.code <<= 8
		if len(d.chunk) == 0 {
			d.overrun = true
			return
		}
		d.code |= uint32(d.chunk[0])
		d.chunk = d.chunk[1:]
	}
}

func (d *lzma2) bit(p *uint16) uint32 {
	d.normalize()
	bound := d.rng >> 11 * uint32(*p)
	if d.code < bound {
		d.rng = bound
		*p += (1<<11 - *p) >> 5
		return 0
	}
	d.rng -= bound
	d.code -= bound
	*p -= *p >> 5
	return 1
}

// tree decodes n bits, the highest first.
func (d *lzma2) tree(p []uint16, n int) uint32 {
	m := uint32(1)
	for range n {
		m = m<<1 | d.bit(&p[m])
	}
	return m - 1<<n
}

// reverse decodes n bits, the lowest first.
func (d *lzma2) reverse(p []uint16, n int) uint32 {
	m, v := uint32(1), uint32(0)
	for i := range n {
		b := d.bit(&p[m])
		m = m<<1 | b
		v |= b << i
	}
	return v
}

// direct decodes n bits of even odds.
func (d *lzma2) direct(n int) uint32 {
	v := uint32(0)
	for range n {
		d.normalize()
		d.rng >>= 1
		v <<= 1
		if d.code >= d.rng {
			d.code -= d.rng
			v |= 1
		}
	}
	return v
}

func (d *lzma2) length(l *lengths, pos int) int {
	if d.bit(&l.choice) == 0 {
		return int(d.tree(l.low[pos][:], 3))
	}
	if d.bit(&l.choice2) == 0 {
		return 8 + int(d.tree(l.mid[pos][:], 3))
	}
	return 16 + int(d.tree(l.high[:], 8))
}

func (d *lzma2) distance(length int) uint32 {
	slot := d.tree(d.posSlot[min(length, 3)][:], 6)
	if slot < 4 {
		return slot
	}
	n := int(slot>>1) - 1
	dist := (2 | slot&1) << n
	if slot < 14 {
		return dist + d.reverse(d.special[dist-slot:], n)
	}
	dist += d.direct(n-4) << 4
	return dist + d.reverse(d.align[:], 4)
}

func (d *lzma2) literalByte(pos int) byte {
	prev := byte(0)
	if pos > 0 {
		prev = d.out[len(d.out)-1]
	}
	at := uint(pos)&(1<<d.lp-1)<<d.lc + uint(prev)>>(8-d.lc)
	p := d.literal[0x300*at:][:0x300]
	sym := uint32(1)
	if d.state >= 7 {
		match := uint32(d.out[len(d.out)-1-int(d.reps[0])])
		for sym < 0x100 {
			want := match >> 7 & 1
			match <<= 1
			b := d.bit(&p[(1+want)<<8+sym])
			sym = sym<<1 | b
			if b != want {
				break
			}
		}
	}
	for sym < 0x100 {
		sym = sym<<1 | d.bit(&p[sym])
	}
	return byte(sym)
}

// repeat brings the earlier distance that is used again to the front, and
// reports whether only one byte is copied.
func (d *lzma2) repeat(ps int) (short bool) {
	r := &d.reps
	switch {
	case d.bit(&d.isRepG0[d.state]) == 0:
		return d.bit(&d.isRep0Long[d.state][ps]) == 0
	case d.bit(&d.isRepG1[d.state]) == 0:
		*r = [4]uint32{r[1], r[0], r[2], r[3]}
	case d.bit(&d.rG2[d.state]) == 0:
		*r = [4]uint32{r[2], r[0], r[1], r[3]}
	default:
		*r = [4]uint32{r[3], r[0], r[1], r[2]}
	}
	return false
}

// lzma decodes d.chunk until the output has end bytes.
func (d *lzma2) lzma(end int) error {
	if d.chunk[0] != 0 {
		return errXZ
	}
	d.code, d.rng, d.overrun = binary.BigEndian.Uint32(d.chunk[1:]), 0xffffffff, false
	d.chunk = d.chunk[5:]
	// The next state behind a step, for states that end in a literal (below
	// 7) and others.
	after := func(short, long int) {
		if d.state < 7 {
			d.state = short
		} else {
			d.state = long
		}
	}
	for len(d.out) < end {
		pos := len(d.out) - d.dict
		ps := pos & (1<<d.pb - 1)
		valid := func() bool { return int64(d.reps[0]) < int64(pos) }
		if d.bit(&d.isMatch[d.state][ps]) == 0 {
			if d.state >= 7 && !valid() {
				return errXZ
			}
			d.out = append(d.out, d.literalByte(pos))
			switch {
			case d.state < 4:
				d.state = 0
			case d.state < 10:
				d.state -= 3
			default:
				d.state -= 6
			}
		} else {
			n := 0
			if d.bit(&d.isRep[d.state]) == 0 {
				n = d.length(&d.lens, ps)
				after(7, 10)
				d.reps = [4]uint32{d.distance(n), d.reps[0], d.reps[1], d.reps[2]}
				n += 2
			} else if d.repeat(ps) {
				n = 1
				after(9, 11)
			} else {
				n = 2 + d.length(&d.repLens, ps)
				after(8, 11)
			}
			if !valid() || n > end-len(d.out) {
				return errXZ
			}
			from := len(d.out) - 1 - int(d.reps[0])
			for i := range n { // byte by byte: source and target may overlap
				d.out = append(d.out, d.out[from+i])
			}
		}
		if d.overrun {
			return errXZ
		}
	}
	return nil
}
