package vm

import (
	"encoding/binary"
	"fmt"
)

// packet is where the packet of a run lies. Programs see copies of these
// numbers in their context; changing them there changes nothing here.
type packet struct {
	buf  uint32 // a block of the cage, 0 for none
	room int    // its size
	// Offsets in the block.
	meta, data, end int
	limit           int // how far the end may grow
	xdp             bool
	l3, mac         int // headers of an skb
	skb             bool
}

// maxPacket is the largest packet that a run takes.
const maxPacket = 1 << 20

// put places a packet with room before and behind it.
func (r *run) putPacket(data []byte, headroom, tailroom int) error {
	k := &r.packet
	if len(data) > maxPacket {
		return fmt.Errorf("a packet of %d bytes is above the largest, %d: %w", len(data), maxPacket, EMSGSIZE)
	}
	if err := r.growPacket(headroom + len(data) + tailroom); err != nil {
		return err
	}
	*k = packet{buf: k.buf, room: k.room, meta: headroom, data: headroom, end: headroom + len(data), limit: headroom + len(data) + tailroom}
	b, _ := r.vm.cage.Bytes(k.buf, k.limit)
	clear(b[:headroom])
	copy(b[headroom:], data)
	clear(b[k.end:])
	return nil
}

// growPacket makes the block at least n bytes long. What is in it is kept.
func (r *run) growPacket(n int) error {
	k := &r.packet
	if k.room >= n {
		return nil
	}
	size := max(4096, 2*k.room)
	for size < n {
		size *= 2
	}
	if err := r.vm.charge(int64(size - k.room)); err != nil {
		return err
	}
	buf, err := r.vm.cage.Alloc(size)
	if err != nil {
		return fmt.Errorf("%w: %w", err, ENOMEM)
	}
	if k.buf != 0 {
		from, _ := r.vm.cage.Bytes(k.buf, k.room)
		to, _ := r.vm.cage.Bytes(buf, k.room)
		copy(to, from)
		// Pointers into the old block are dead, and the verifier knows it.
		r.vm.cage.Free(k.buf)
	}
	k.buf, k.room = buf, size
	return nil
}

// bytesOf returns a part of the block.
func (r *run) bytesOf(from, to int) []byte {
	b, _ := r.vm.cage.Bytes(r.packet.buf+uint32(from), to-from)
	return b
}

// payload is the packet from data to its end.
func (r *run) payload() []byte { return r.bytesOf(r.packet.data, r.packet.end) }

// loadPacket answers legacy packet loads (bpf_skb_load_helper_* in
// net/core/filter.c).
func (r *run) loadPacket(offset int32, size int) (uint64, bool) {
	k := &r.packet
	if !k.skb {
		return 0, false
	}
	at := k.data + int(offset)
	if offset < 0 {
		const netOff, linkOff = -0x100000, -0x200000
		switch {
		case offset >= netOff:
			at = k.l3 + int(offset) - netOff
		case offset >= linkOff:
			at = k.mac + int(offset) - linkOff
		default:
			return 0, false
		}
	}
	if at < 0 || at+size > k.end || offset >= 0 && at < k.data {
		return 0, false
	}
	b := r.bytesOf(at, at+size)
	switch size {
	case 1:
		return uint64(b[0]), true
	case 2:
		return uint64(binary.BigEndian.Uint16(b)), true
	case 4:
		return uint64(binary.BigEndian.Uint32(b)), true
	}
	return 0, false
}
