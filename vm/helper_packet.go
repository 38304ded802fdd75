package vm

import (
	"encoding/binary"

	"github.com/skep-bpf/skep/abi"
)

const (
	flagRecomputeCsum  = 1
	flagInvalidateHash = 2
	headersMac         = 0 // BPF_HDR_START_MAC
	headersNet         = 1
	maxSKB             = 3776 + 12288 // SKB_MAX_ALLOC with 4 KiB pages
)

// skbHelpers are those of programs that see a struct __sk_buff
// (net/core/filter.c).
var skbHelpers = map[int32]helperFunc{
	9:   skbStoreBytes,
	10:  l3CsumReplace,
	11:  l4CsumReplace,
	18:  skbVlanPush,
	19:  skbVlanPop,
	23:  redirect("ifindex"),
	25:  perfOutput(packetBytes),
	26:  skbLoadBytes,
	28:  csumDiff,
	32:  skbChangeType,
	34:  func(r *run) uint64 { return uint64(r.getField(skbHash)) },
	38:  skbChangeTail,
	39:  skbPullData,
	40:  func(r *run) uint64 { return ENOTSUPP.result() }, // csum_update: a packet of a run has no complete checksum
	41:  skbInvalidateHash,
	43:  skbChangeHead,
	48:  skbSetHash,
	50:  skbAdjustRoom,
	51:  redirectMap,
	68:  skbLoadBytesRelative,
	152: redirect("neigh"),
	155: redirect("peer"),
}

// xdpHelpers are those of XDP programs.
var xdpHelpers = map[int32]helperFunc{
	23:  redirect("ifindex"),
	25:  perfOutput(packetBytes),
	28:  csumDiff,
	44:  xdpAdjustHead,
	51:  redirectMap,
	54:  xdpAdjustMeta,
	65:  xdpAdjustTail,
	188: func(r *run) uint64 { return uint64(r.packet.end - r.packet.data) },
	189: xdpLoadBytes,
	190: xdpStoreBytes,
}

// packetBytes returns the first n bytes of the packet.
func packetBytes(r *run, n uint64) ([]byte, Errno) {
	if b := r.payload(); n <= uint64(len(b)) {
		return b[:n], 0
	}
	return nil, EFAULT
}

func skbStoreBytes(r *run) uint64 {
	offset, n, flags := uint32(r.arg(2)), uint32(r.arg(4)), r.arg(5)
	from, ok := r.bytes(r.arg(3), uint64(n))
	b := r.payload()
	switch {
	case flags&^(flagRecomputeCsum|flagInvalidateHash) != 0:
		return EINVAL.result()
	case offset > 1<<31-1 || uint64(offset)+uint64(n) > uint64(len(b)):
		return EFAULT.result()
	case !ok:
		return r.badMemory(3)
	}
	copy(b[offset:], from)
	if flags&flagInvalidateHash != 0 {
		r.setField(skbHash, 0)
	}
	return 0
}

func skbLoadBytes(r *run) uint64 {
	offset, n := uint32(r.arg(2)), uint32(r.arg(4))
	to, ok := r.bytes(r.arg(3), uint64(n))
	if !ok {
		return r.badMemory(3)
	}
	b := r.payload()
	if offset > 1<<31-1 || uint64(offset)+uint64(n) > uint64(len(b)) {
		clear(to)
		return EFAULT.result()
	}
	copy(to, b[offset:])
	return 0
}

func skbLoadBytesRelative(r *run) uint64 {
	offset, n := uint32(r.arg(2)), uint32(r.arg(4))
	to, ok := r.bytes(r.arg(3), uint64(n))
	if !ok {
		return r.badMemory(3)
	}
	k := &r.packet
	start := k.mac
	if r.arg(5) == headersNet {
		start = k.l3
	}
	at := start + int(offset)
	if offset > 0xffff || uint32(r.arg(5)) > headersNet || at+int(n) > k.end {
		clear(to)
		return EFAULT.result()
	}
	copy(to, r.bytesOf(at, at+int(n)))
	return 0
}

// Checksums of the Internet are sums in ones' complement (RFC 1071). They do not
// depend on the byte order that the words are read in.

func csumFold(sum uint64) uint16 {
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// csumAdd adds in ones' complement of 32 bits.
func csumAdd(a, b uint32) uint32 {
	s := uint64(a) + uint64(b)
	return uint32(s) + uint32(s>>32)
}

// csumReplace changes a checksum for what was taken away and added.
func csumReplace(sum []byte, remove, add uint32) {
	old := ^uint32(native.Uint16(sum)) & 0xffff
	native.PutUint16(sum, csumFold(uint64(csumAdd(csumAdd(old, ^remove), add))))
}

func l3CsumReplace(r *run) uint64 {
	offset, from, to, flags := uint32(r.arg(2)), r.arg(3), r.arg(4), r.arg(5)
	b := r.payload()
	switch {
	case flags&^0xf != 0:
		return EINVAL.result()
	case offset > 0xffff || offset&1 != 0 || int(offset)+2 > len(b):
		return EFAULT.result()
	}
	sum := b[offset:][:2]
	switch flags & 0xf {
	case 0:
		if from != 0 {
			return EINVAL.result()
		}
		csumReplaceDiff(sum, uint32(to))
	case 2:
		csumReplace(sum, uint32(uint16(from)), uint32(uint16(to)))
	case 4:
		csumReplace(sum, uint32(from), uint32(to))
	default:
		return EINVAL.result()
	}
	return 0
}

func csumReplaceDiff(sum []byte, diff uint32) {
	native.PutUint16(sum, csumFold(uint64(csumAdd(diff, ^uint32(native.Uint16(sum))&0xffff|0xffff0000))))
}

func l4CsumReplace(r *run) uint64 {
	const mangled0, enforce, pseudo, ipv6 = 1 << 5, 1 << 6, 1 << 4, 1 << 7
	offset, from, to, flags := uint32(r.arg(2)), r.arg(3), r.arg(4), r.arg(5)
	b := r.payload()
	switch {
	case flags&^(mangled0|enforce|pseudo|ipv6|0xf) != 0:
		return EINVAL.result()
	case offset > 0xffff || offset&1 != 0 || int(offset)+2 > len(b):
		return EFAULT.result()
	}
	sum := b[offset:][:2]
	if flags&mangled0 != 0 && flags&enforce == 0 && sum[0]|sum[1] == 0 {
		return 0
	}
	switch flags & 0xf {
	case 0:
		if from != 0 {
			return EINVAL.result()
		}
		csumReplaceDiff(sum, uint32(to))
	case 2:
		csumReplace(sum, uint32(uint16(from)), uint32(uint16(to)))
	case 4:
		csumReplace(sum, uint32(from), uint32(to))
	default:
		return EINVAL.result()
	}
	if flags&mangled0 != 0 && sum[0]|sum[1] == 0 {
		sum[0], sum[1] = 0xff, 0xff
	}
	return 0
}

func csumDiff(r *run) uint64 {
	fromSize, toSize := uint32(r.arg(2)), uint32(r.arg(4))
	if (fromSize|toSize)&3 != 0 {
		return EINVAL.result()
	}
	if uint64(fromSize)+uint64(toSize) > maxStackBytes {
		// 6.18 has no scratch pad to be too small for; bound the work here.
		r.charge(int(fromSize/4 + toSize/4))
	}
	from, ok := r.bytes(r.arg(1), uint64(fromSize))
	if !ok {
		return r.badMemory(1)
	}
	to, ok := r.bytes(r.arg(3), uint64(toSize))
	if !ok {
		return r.badMemory(3)
	}
	sum := uint32(r.arg(5))
	// Linux 6.18: the difference of two sums, folded to 16 bits.
	switch {
	case fromSize != 0 && toSize != 0:
		return uint64(fromTo(csumAdd(csumPartial(to, sum), ^csumPartial(from, 0))))
	case toSize != 0:
		return uint64(fromTo(csumPartial(to, sum)))
	case fromSize != 0:
		return uint64(fromTo(csumAdd(sum, ^csumPartial(from, 0))))
	}
	return uint64(fromTo(sum))
}

const maxStackBytes = 512

func csumPartial(b []byte, sum uint32) uint32 {
	for ; len(b) >= 4; b = b[4:] {
		sum = csumAdd(sum, native.Uint32(b))
	}
	return sum
}

// fromTo is csum_from32to16.
func fromTo(sum uint32) uint16 {
	sum = sum&0xffff + sum>>16
	return uint16(sum&0xffff + sum>>16)
}

// roomForPacket moves the packet within its block so that it has at least front
// bytes of room before it and back behind it.
func (r *run) roomForPacket(front, back int) bool {
	k := &r.packet
	if k.data >= front && k.room-k.end >= back {
		return true
	}
	shift := max(0, front-k.data) + skbHeadroom
	if r.growPacket(k.end+shift+back+tailroom) != nil {
		return false
	}
	b := r.bytesOf(0, k.end+shift)
	copy(b[shift:], b[:k.end])
	clear(b[:shift])
	k.data, k.end, k.meta, k.l3, k.mac = k.data+shift, k.end+shift, k.meta+shift, k.l3+shift, k.mac+shift
	k.limit = k.room
	return true
}

// pushPacket opens a gap of n zeros at off bytes from the start.
func (r *run) pushPacket(off, n int) bool {
	if !r.roomForPacket(n, 0) {
		return false
	}
	k := &r.packet
	k.data -= n
	b := r.payload()
	copy(b[:off], b[n:n+off])
	clear(b[off : off+n])
	k.meta = k.data
	return true
}

// popPacket closes a gap of n bytes at off.
func (r *run) popPacket(off, n int) {
	b := r.payload()
	copy(b[n:n+off], b[:off])
	r.packet.data += n
	r.packet.meta = r.packet.data
}

func skbVlanPush(r *run) uint64 {
	proto, tci := uint32(uint16(r.arg(2))), uint32(uint16(r.arg(3)))
	q, ad := uint32(native.Uint16([]byte{0x81, 0})), uint32(native.Uint16([]byte{0x88, 0xa8}))
	if proto != q && proto != ad {
		proto = q
	}
	if r.getField(skbVlanPresent) != 0 {
		// The tag that is there goes into the packet.
		if !r.pushPacket(12, 4) {
			return ENOMEM.result()
		}
		k := &r.packet
		k.mac -= 4
		b := r.payload()
		native.PutUint16(b[12:], uint16(r.getField(skbVlanProto)))
		binary.BigEndian.PutUint16(b[14:], uint16(r.getField(skbVlanTCI)))
		r.setField(skbProtocol, r.getField(skbVlanProto))
		k.l3 = k.mac + ethLen
	}
	r.setField(skbVlanPresent, 1)
	r.setField(skbVlanTCI, tci)
	r.setField(skbVlanProto, proto)
	r.syncPacket()
	return 0
}

func skbVlanPop(r *run) uint64 {
	isVlan := func(proto []byte) bool {
		p := binary.BigEndian.Uint16(proto)
		return p == 0x8100 || p == 0x88a8
	}
	// take moves a tag of the packet into the context.
	take := func() {
		b := r.payload()
		proto, tci := native.Uint16(b[12:]), binary.BigEndian.Uint16(b[14:])
		r.popPacket(12, 4)
		k := &r.packet
		k.mac += 4
		k.l3 = k.mac + ethLen
		r.setField(skbProtocol, etherType(r.payload()))
		r.setField(skbVlanPresent, 1)
		r.setField(skbVlanTCI, uint32(tci))
		r.setField(skbVlanProto, uint32(proto))
	}
	defer r.syncPacket()
	if r.getField(skbVlanPresent) != 0 {
		r.setField(skbVlanPresent, 0)
		r.setField(skbVlanTCI, 0)
		r.setField(skbVlanProto, 0)
	} else {
		b := r.payload()
		if len(b) < ethLen+4 || !isVlan(b[12:]) {
			return 0
		}
		take()
		r.setField(skbVlanPresent, 0)
		r.setField(skbVlanTCI, 0)
		r.setField(skbVlanProto, 0)
	}
	// The next tag, if there is one, becomes the one of the context.
	if b := r.payload(); len(b) >= ethLen+4 && isVlan(b[12:]) {
		take()
	}
	return 0
}

func skbChangeType(r *run) uint64 {
	const host, other = 0, 3
	from, to := r.getField(4), uint32(r.arg(2))
	if from > other || to > other {
		return EINVAL.result()
	}
	r.setField(4, to)
	return 0
}

func skbChangeTail(r *run) uint64 {
	k := &r.packet
	n := int(uint32(r.arg(2)))
	if r.arg(3) != 0 || n > maxSKB || n < max(0, k.l3-k.data) {
		return EINVAL.result()
	}
	if grow := n - (k.end - k.data); grow > 0 {
		if !r.roomForPacket(0, grow) {
			return ENOMEM.result()
		}
		clear(r.bytesOf(k.end, k.end+grow))
	}
	k.end = k.data + n
	r.syncPacket()
	return 0
}

func skbPullData(r *run) uint64 {
	n := uint32(r.arg(2))
	r.syncPacket()
	if uint64(n) > uint64(len(r.payload())) {
		return ENOMEM.result()
	}
	return 0
}

func skbInvalidateHash(r *run) uint64 {
	r.setField(skbHash, 0)
	return 0
}

func skbSetHash(r *run) uint64 {
	r.setField(skbHash, uint32(r.arg(2)))
	return 0
}

func skbChangeHead(r *run) uint64 {
	k := &r.packet
	n := int(uint32(r.arg(2)))
	if r.arg(3) != 0 || n+len(r.payload()) > maxSKB {
		return EINVAL.result()
	}
	if !r.pushPacket(0, n) {
		return ENOMEM.result()
	}
	k.mac = k.data
	r.syncPacket()
	return 0
}

func skbAdjustRoom(r *run) uint64 {
	const (
		fixedGSO           = 1 << 0
		encap4, encap6     = 1 << 1, 1 << 2
		encapGRE, encapUDP = 1 << 3, 1 << 4
		noCsumReset        = 1 << 5
		encapEth           = 1 << 6
		decap4, decap6     = 1 << 7, 1 << 8
		l2Mask             = 0xff << 56
		known              = fixedGSO | encap4 | encap6 | encapGRE | encapUDP | noCsumReset | encapEth | decap4 | decap6 | l2Mask
		modeNet, modeMac   = 0, 1
		shrinkKnown        = fixedGSO | decap4 | decap6 | noCsumReset
	)
	diff, mode, flags := int(int32(r.arg(2))), uint32(r.arg(3)), r.arg(4)
	if flags&^uint64(known) != 0 {
		return EINVAL.result()
	}
	n := max(diff, -diff)
	if n > 0xfff {
		return EFAULT.result()
	}
	ip4, ip6 := uint32(native.Uint16([]byte{0x08, 0x00})), uint32(native.Uint16([]byte{0x86, 0xdd}))
	base := 0
	switch r.getField(skbProtocol) {
	case ip4:
		base = 20
	case ip6:
		base = 40
	default:
		return ENOTSUPP.result()
	}
	k := &r.packet
	off, least := k.l3-k.mac, base
	switch mode {
	case modeNet:
		off += base
	case modeMac:
	default:
		return ENOTSUPP.result()
	}
	shrink := diff < 0
	if flags&(decap4|decap6) != 0 {
		if !shrink {
			return EINVAL.result()
		}
		switch flags & (decap4 | decap6) {
		case decap4:
			least = 20
		case decap6:
			least = 40
		default:
			return EINVAL.result()
		}
	}
	length := k.end - k.l3
	if shrink && (n >= length || length-n < least) || !shrink && k.end-k.data+n > maxSKB {
		return ENOTSUPP.result()
	}
	if shrink {
		if flags&^uint64(shrinkKnown) != 0 {
			return EINVAL.result()
		}
		if off+n > k.end-k.data {
			return ENOMEM.result()
		}
		r.popPacket(off, n)
		k.mac += n
		k.l3 += n
		if flags&decap6 != 0 && base == 20 {
			r.setField(skbProtocol, ip6)
		} else if flags&decap4 != 0 && base == 40 {
			r.setField(skbProtocol, ip4)
		}
	} else {
		inner := int(flags >> 56)
		encap := flags&(encap4|encap6) != 0
		if encap {
			if flags&(encap4|encap6) == encap4|encap6 || flags&(encapGRE|encapUDP) == encapGRE|encapUDP || flags&encapEth != 0 && inner < ethLen || inner > n {
				return EINVAL.result()
			}
		}
		if !r.pushPacket(off, n) {
			return ENOMEM.result()
		}
		macLen := k.l3 - k.mac
		k.mac -= n
		k.l3 -= n
		if encap {
			k.l3 = k.data + macLen
			if flags&encap6 != 0 && base == 20 {
				r.setField(skbProtocol, ip6)
			} else if flags&encap4 != 0 && base == 40 {
				r.setField(skbProtocol, ip4)
			}
		}
	}
	r.syncPacket()
	return 0
}

func xdpAdjustHead(r *run) uint64 {
	k := &r.packet
	offset := int(int32(r.arg(2)))
	meta := k.data - k.meta
	if data := k.data + offset; data < xdpFrameSize+meta || data > k.end-ethLen {
		return EINVAL.result()
	}
	b := r.bytesOf(0, k.end)
	copy(b[k.meta+offset:], b[k.meta:k.data])
	k.meta += offset
	k.data += offset
	r.syncPacket()
	return 0
}

func xdpAdjustTail(r *run) uint64 {
	k := &r.packet
	offset := int(int32(r.arg(2)))
	end := k.end + offset
	if end > k.limit || end < k.data+ethLen {
		return EINVAL.result()
	}
	if offset > 0 {
		clear(r.bytesOf(k.end, end))
	}
	k.end = end
	r.syncPacket()
	return 0
}

func xdpAdjustMeta(r *run) uint64 {
	k := &r.packet
	meta := k.meta + int(int32(r.arg(2)))
	if meta < xdpFrameSize || meta > k.data {
		return EINVAL.result()
	}
	if n := k.data - meta; n%4 != 0 || n > 252 {
		return EACCES.result()
	}
	k.meta = meta
	r.syncPacket()
	return 0
}

func xdpLoadBytes(r *run) uint64 {
	return r.xdpBytes(func(packet, memory []byte) { copy(memory, packet) })
}

func xdpStoreBytes(r *run) uint64 {
	return r.xdpBytes(func(packet, memory []byte) { copy(packet, memory) })
}

// xdpBytes moves bytes between the packet, from the offset in r2, and the memory
// at r3 of the size in r4.
func (r *run) xdpBytes(move func(packet, memory []byte)) uint64 {
	offset, n := uint32(r.arg(2)), uint32(r.arg(4))
	memory, ok := r.bytes(r.arg(3), uint64(n))
	if !ok {
		return r.badMemory(3)
	}
	b := r.payload()
	if offset > 0xffff || n > 0xffff {
		return EFAULT.result()
	}
	if int(offset)+int(n) > len(b) {
		return EINVAL.result()
	}
	move(b[offset:], memory)
	return 0
}

const (
	xdpAborted  = 0
	xdpRedirect = 4
	tcShot      = 2
	tcRedirect  = 7
)

// redirect is bpf_redirect and its like: what the run reports, and the return
// value that makes the packet go there.
func redirect(kind string) helperFunc {
	return func(r *run) uint64 {
		flags := r.arg(2)
		if kind == "neigh" {
			flags = r.arg(4)
		}
		bad := flags != 0
		if kind == "ifindex" && !r.packet.xdp {
			bad = flags&^1 != 0 // BPF_F_INGRESS
		}
		failed, done := uint64(tcShot), uint64(tcRedirect)
		if r.packet.xdp {
			failed, done = xdpAborted, xdpRedirect
		}
		if bad {
			return failed
		}
		r.redirect = Redirect{Kind: kind, Ifindex: uint32(r.arg(1)), Flags: flags}
		return done
	}
}

func redirectMap(r *run) uint64 {
	m := r.vm.mapAt(r.arg(1))
	if m == nil {
		return r.badMap(1)
	}
	t, ok := m.table.(redirectTable)
	if !ok {
		return r.badMap(1)
	}
	const broadcast, excludeIngress = 1 << 3, 1 << 4
	key, flags := uint32(r.arg(2)), r.arg(3)
	allowed := uint64(3)
	if m.typ == abi.MapDevmap || m.typ == abi.MapDevmapHash {
		allowed |= broadcast | excludeIngress
	}
	if flags&^allowed != 0 {
		return xdpAborted
	}
	if flags&broadcast == 0 && !t.has(key) {
		return flags & 3
	}
	r.redirect = Redirect{Kind: "map", Map: m, Key: key, Flags: flags}
	return xdpRedirect
}

// A redirectTable is a devmap, cpumap or xskmap.
type redirectTable interface{ has(key uint32) bool }
