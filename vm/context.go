package vm

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/skep-bpf/skep/abi"
)

// Fields of struct xdp_md (include/uapi/linux/bpf.h).
const (
	xdpData     = 0
	xdpDataEnd  = 4
	xdpDataMeta = 8
	xdpIfindex  = 12
	xdpQueue    = 16
	xdpEgress   = 20
	xdpSize     = 24
)

// Fields of struct __sk_buff.
const (
	skbLen         = 0
	skbMark        = 8
	skbProtocol    = 16
	skbVlanPresent = 20
	skbVlanTCI     = 24
	skbVlanProto   = 28
	skbPriority    = 32
	skbIngress     = 36
	skbIfindex     = 40
	skbCB          = 48
	skbHash        = 68
	skbClassid     = 72
	skbData        = 76
	skbDataEnd     = 80
	skbDataMeta    = 140
	skbTstamp      = 152
	skbWireLen     = 160
	skbGSOSegs     = 164
	skbGSOSize     = 176
	skbHwtstamp    = 184
	skbSize        = 192
)

// Room around packets, as BPF_PROG_TEST_RUN gives it (net/bpf/test_run.c).
const (
	ethLen       = 14
	xdpHeadroom  = 256
	xdpFrameSize = 40 // struct xdp_frame, which adjust_head may not touch
	skbHeadroom  = 64
	tailroom     = 320 // struct skb_shared_info
	pageSize     = 4096
)

var native = binary.NativeEndian

// contextWords is the run's context for reading and writing.
func (r *run) ctxField(off int) []byte { return r.contextBytes(off + 8)[off:] }

func (r *run) setField(off int, v uint32) { native.PutUint32(r.ctxField(off), v) }
func (r *run) getField(off int) uint32    { return native.Uint32(r.ctxField(off)) }

// sync copies where the packet lies into the program's context.
func (r *run) syncPacket() {
	k := &r.packet
	data, end, meta := xdpData, xdpDataEnd, xdpDataMeta
	if k.skb {
		data, end, meta = skbData, skbDataEnd, skbDataMeta
		r.setField(skbLen, uint32(k.end-k.data))
	}
	r.setField(data, k.buf+uint32(k.data))
	r.setField(end, k.buf+uint32(k.end))
	r.setField(meta, k.buf+uint32(k.meta))
}

func prepareXDP(r *run, p *Program, in *input) (uint64, error) {
	if p.attach == abi.AttachXDPDevmap || p.attach == abi.AttachXDPCpumap {
		return 0, fmt.Errorf("it runs behind a devmap or cpumap only: %w", EINVAL)
	}
	meta := 0
	md := make([]byte, xdpSize)
	data := in.data
	if in.context != nil {
		if len(in.context) > xdpSize {
			return 0, fmt.Errorf("a struct xdp_md has %d bytes, and the context %d: %w", xdpSize, len(in.context), EINVAL)
		}
		copy(md, in.context)
		begin, end := int(native.Uint32(md[xdpData:])), int(native.Uint32(md[xdpDataEnd:]))
		if native.Uint32(md[xdpDataMeta:]) != 0 || end > len(data) || begin > end || native.Uint32(md[xdpEgress:]) != 0 {
			return 0, fmt.Errorf("in the context, data is the length of the meta data in front of the packet, data_end that of all, and data_meta and egress_ifindex are 0: %w", EINVAL)
		}
		if begin%4 != 0 || begin > 252 || begin > xdpHeadroom-xdpFrameSize {
			return 0, fmt.Errorf("%d bytes of meta data: %w", begin, EINVAL)
		}
		meta = begin
	}
	if len(data)-meta < ethLen {
		return 0, fmt.Errorf("a packet has at least the %d bytes of an Ethernet header: %w", ethLen, EINVAL)
	}
	room := max(tailroom, pageSize-xdpHeadroom-len(data)+meta)
	if err := r.putPacket(data, xdpHeadroom-meta, room); err != nil {
		return 0, err
	}
	k := &r.packet
	k.xdp, k.data = true, k.data+meta
	k.limit -= tailroom
	b := r.contextBytes(xdpSize)
	copy(b, md)
	r.syncPacket()
	return uint64(r.context), nil
}

func finishXDP(r *run, in *input, res *Result) {
	k := &r.packet
	res.Data = append([]byte(nil), r.bytesOf(k.meta, k.end)...)
	md := append([]byte(nil), r.contextBytes(xdpSize)...)
	native.PutUint32(md[xdpData:], uint32(k.data-k.meta))
	native.PutUint32(md[xdpDataEnd:], uint32(k.end-k.meta))
	native.PutUint32(md[xdpDataMeta:], 0)
	res.Context = md
}

// prepareSKB puts a packet where the types want it that see a struct
// __sk_buff: those of TC with its Ethernet header, others behind it.
func prepareSKB(r *run, p *Program, in *input) (uint64, error) {
	if len(in.data) < ethLen {
		return 0, fmt.Errorf("a packet has at least the %d bytes of an Ethernet header: %w", ethLen, EINVAL)
	}
	var skb [skbSize]byte
	if in.context != nil {
		if len(in.context) > skbSize {
			return 0, fmt.Errorf("a struct __sk_buff has %d bytes, and the context %d: %w", skbSize, len(in.context), EINVAL)
		}
		copy(skb[:], in.context)
		for _, zero := range [][2]int{{0, skbMark}, {skbMark + 4, skbPriority}, {skbIfindex + 4, skbCB}, {skbCB + 20, skbTstamp}, {skbGSOSegs + 4, skbGSOSize}, {skbGSOSize + 4, skbHwtstamp}} {
			for i := zero[0]; i < zero[1]; i++ {
				if skb[i] != 0 {
					return 0, fmt.Errorf("byte %d of the context belongs to a field of struct __sk_buff that cannot be given: %w", i, EINVAL)
				}
			}
		}
	}
	if err := r.putPacket(in.data, skbHeadroom, tailroom); err != nil {
		return 0, err
	}
	k := &r.packet
	k.skb, k.mac, k.l3 = true, k.data, k.data+ethLen
	proto := etherType(in.data)
	rest := len(in.data) - ethLen
	switch proto {
	case uint32(native.Uint16([]byte{0x08, 0x00})):
		if rest < 20 {
			return 0, fmt.Errorf("%d bytes are too few for an IPv4 header: %w", rest, EINVAL)
		}
	case uint32(native.Uint16([]byte{0x86, 0xdd})):
		if rest < 40 {
			return 0, fmt.Errorf("%d bytes are too few for an IPv6 header: %w", rest, EINVAL)
		}
	}
	if !isL2(p.typ) {
		k.data = k.l3
	}
	k.meta = k.data
	if native.Uint32(skb[skbWireLen:]) == 0 {
		native.PutUint32(skb[skbWireLen:], uint32(k.end-k.data))
	} else if n := native.Uint32(skb[skbWireLen:]); int(n) < k.end-k.data || n > 65536 {
		return 0, fmt.Errorf("wire_len is %d: %w", n, EINVAL)
	}
	if native.Uint32(skb[skbIfindex:]) == 0 {
		native.PutUint32(skb[skbIfindex:], 1)
	}
	native.PutUint32(skb[skbProtocol:], proto)
	native.PutUint32(skb[4:], packetType(in.data))
	b := r.contextBytes(skbSize)
	copy(b, skb[:])
	r.syncPacket()
	return uint64(r.context), nil
}

// etherType is the protocol of a packet as skb->protocol has it, in network order:
// what is below 0x600 is a length, of IEEE 802.2 or Novell's raw 802.3.
func etherType(data []byte) uint32 {
	if binary.BigEndian.Uint16(data[12:]) >= 0x600 {
		return uint32(native.Uint16(data[12:]))
	}
	if len(data) >= 16 && data[14] == 0xff && data[15] == 0xff {
		return uint32(native.Uint16([]byte{0, 1})) // ETH_P_802_3
	}
	return uint32(native.Uint16([]byte{0, 4})) // ETH_P_802_2
}

// packetType is what eth_type_trans finds on the loopback device, whose address
// is all zeros: for this host, for others, for many, for all.
func packetType(data []byte) uint32 {
	var zero [6]byte
	dst := [6]byte(data[:6])
	switch {
	case dst == zero:
		return 0 // PACKET_HOST
	case dst == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}:
		return 1 // PACKET_BROADCAST
	case dst[0]&1 != 0:
		return 2 // PACKET_MULTICAST
	}
	return 3 // PACKET_OTHERHOST
}

func isL2(t abi.ProgType) bool { return t == abi.ProgSchedCls || t == abi.ProgSchedAct }

func finishSKB(r *run, in *input, res *Result) {
	k := &r.packet
	if isL2(r.prog.typ) {
		res.Data = append([]byte(nil), r.payload()...)
	} else {
		res.Data = append(make([]byte, ethLen), r.payload()...)
	}
	skb := make([]byte, skbSize)
	from := r.contextBytes(skbSize)
	if in.context != nil {
		copy(skb, in.context)
	}
	for _, f := range [][2]int{{skbMark, 4}, {skbPriority, 4}, {skbIngress, 4}, {skbIfindex, 4}, {skbTstamp, 8}, {skbCB, 20}, {skbWireLen, 4}, {skbGSOSegs, 4}, {skbHwtstamp, 8}} {
		copy(skb[f[0]:][:f[1]], from[f[0]:])
	}
	_ = k
	res.Context = skb
}

// prepareBytes gives the program the context as it is.
func prepareBytes(least, most int) func(r *run, p *Program, in *input) (uint64, error) {
	return func(r *run, p *Program, in *input) (uint64, error) {
		if len(in.data) > 0 {
			return 0, fmt.Errorf("programs of type %s take a context, and no packet: %w", p.typ, EINVAL)
		}
		if len(in.context) > most {
			return 0, fmt.Errorf("a context of %d bytes is above the largest for type %s, %d: %w", len(in.context), p.typ, most, EINVAL)
		}
		in.size = max(least, len(in.context))
		if in.size <= contextSize {
			in.at = r.context
			b := r.contextBytes(contextSize)
			clear(b[copy(b, in.context):])
			return uint64(in.at), nil
		}
		if err := r.vm.charge(int64(in.size)); err != nil {
			return 0, err
		}
		defer r.vm.charge(-int64(in.size))
		var err error
		if in.block, err = r.vm.cage.Alloc(in.size); err != nil {
			return 0, errors.Join(err, ENOMEM)
		}
		in.at = in.block
		b, _ := r.vm.cage.Bytes(in.at, in.size)
		copy(b, in.context)
		return uint64(in.at), nil
	}
}

func finishBytes(r *run, in *input, res *Result) {
	b, _ := r.vm.cage.Bytes(in.at, len(in.context))
	res.Context = append([]byte(nil), b...)
}

func init() {
	progKinds[abi.ProgXDP] = &progKind{prepare: prepareXDP, finish: finishXDP, helpers: xdpHelpers}
	for _, t := range []abi.ProgType{abi.ProgSocketFilter, abi.ProgSchedCls, abi.ProgSchedAct, abi.ProgCgroupSkb, abi.ProgLWTIn, abi.ProgLWTOut, abi.ProgLWTXmit} {
		progKinds[t] = &progKind{prepare: prepareSKB, finish: finishSKB, helpers: skbHelpers}
	}
	tracing := func(least int) *progKind {
		return &progKind{prepare: prepareBytes(least, 64<<10), finish: finishBytes, helpers: tracingHelpers, plain: true}
	}
	for _, t := range []abi.ProgType{abi.ProgRawTracepoint, abi.ProgRawTracepointWritable, abi.ProgTracing, abi.ProgLSM} {
		progKinds[t] = tracing(12 * 8) // arguments (MAX_BPF_FUNC_ARGS)
	}
	progKinds[abi.ProgTracepoint] = tracing(64)
	progKinds[abi.ProgKprobe] = tracing(336) // the largest struct pt_regs, arm64's
	progKinds[abi.ProgPerfEvent] = tracing(336 + 16)
	progKinds[abi.ProgSyscall] = &progKind{prepare: prepareBytes(0, 64<<10), finish: finishBytes, helpers: tracingHelpers, plain: true}
}
