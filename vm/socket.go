package vm

import (
	"errors"
	"unsafe"
)

// A Socket is what programs see of one: struct bpf_sock of
// include/uapi/linux/bpf.h, in the byte orders that it has there, and what helpers
// tell of it besides.
type Socket struct {
	BoundDevIf, Family, Type, Protocol uint32
	Mark, Priority                     uint32
	SrcIP4                             uint32    // network byte order
	SrcIP6                             [4]uint32 // network byte order
	SrcPort                            uint32    // host byte order
	DstPort                            uint16    // network byte order
	_                                  uint16
	DstIP4                             uint32    // network byte order
	DstIP6                             [4]uint32 // network byte order
	State                              uint32    // TCP_ESTABLISHED and so on
	RxQueue                            int32     // -1 is none

	Cookie uint64
	UID    uint32
}

// socketSize is the size of struct bpf_sock: the first fields of Socket.
const socketSize = 80

// A SocketQuery is what bpf_sk_lookup_tcp and its like ask for.
type SocketQuery struct {
	// TCP is whether a TCP socket is looked for, and not one of UDP.
	TCP bool
	// Tuple is a struct bpf_sock_tuple: 12 bytes for IPv4, 36 for IPv6, of the
	// source's address, the destination's, and their ports, in network byte order.
	Tuple []byte
	// Netns is the id of a network namespace, or negative for the own one.
	Netns int64
}

// States of TCP (include/net/tcp_states.h).
const (
	tcpTimeWait   = 6
	tcpListen     = 10
	tcpNewSynRecv = 12
)

// maxSockets is how many sockets a run may hold. Verified programs give each back
// on every path; others are kept from filling the vm's memory.
const maxSockets = 64

// socketLookup is bpf_sk_lookup_tcp, bpf_skc_lookup_tcp and bpf_sk_lookup_udp. The
// program gets a copy of the socket, as a reference that it gives back.
func socketLookup(tcp bool) helperFunc {
	return func(r *run) uint64 {
		n, netns, flags := uint32(r.arg(3)), r.arg(4), r.arg(5)
		if n != 12 && n != 36 || flags != 0 || int32(netns) >= 0 && netns > 1<<31-1 {
			return 0
		}
		tuple, ok := r.bytes(r.arg(2), uint64(n))
		if !ok {
			return r.badMemory(2)
		}
		if len(r.owned) >= maxSockets {
			return 0
		}
		s := r.vm.host.LookupSocket(SocketQuery{TCP: tcp, Tuple: append([]byte(nil), tuple...), Netns: int64(int32(netns))})
		if s == nil {
			return 0
		}
		addr, err := r.vm.cage.Alloc(socketSize)
		if err != nil {
			return 0
		}
		b, _ := r.vm.cage.Bytes(addr, socketSize)
		copy(b, unsafe.Slice((*byte)(unsafe.Pointer(s)), socketSize))
		r.own(addr, func(bool, uint64) { r.vm.cage.Free(addr) })
		r.owned[len(r.owned)-1].socket = s
		return uint64(addr)
	}
}

// socketAt returns the socket that the program holds at an address.
func (r *run) socketAt(addr uint64) *Socket {
	for _, o := range r.owned {
		if o.addr == uint32(addr) {
			return o.socket
		}
	}
	return nil
}

func socketRelease(r *run) uint64 {
	if r.socketAt(r.arg(1)) == nil {
		return r.giveUp(errors.New("a socket is released that the program does not hold"))
	}
	r.disown(uint32(r.arg(1)))(false, 0)
	return 0
}

// socketIf returns the socket of the first argument to the program if is holds.
func socketIf(is func(state uint32) bool) helperFunc {
	return func(r *run) uint64 {
		if s := r.socketAt(r.arg(1)); s != nil && is(s.State) {
			return r.arg(1)
		}
		return 0
	}
}

// socketAssign is bpf_sk_assign: the run reports the socket.
func socketAssign(r *run) uint64 {
	s := r.socketAt(r.arg(2))
	switch {
	case r.arg(3) != 0 || s == nil && r.arg(2) != 0:
		return EINVAL.result()
	case s == nil: // a program of type sk_lookup takes back its choice
		r.redirect = Redirect{}
	default:
		r.redirect = Redirect{Kind: "socket", Socket: s}
	}
	return 0
}

func init() {
	const overflowUID = 65534
	for id, f := range map[int32]helperFunc{
		84: socketLookup(true), 85: socketLookup(false), 99: socketLookup(true),
		86: socketRelease,
		95: socketIf(func(state uint32) bool { return state != tcpTimeWait && state != tcpNewSynRecv }),
		98: socketIf(func(state uint32) bool { return state == tcpListen }),
		46: func(r *run) uint64 {
			if s := r.vm.host.Socket(); s != nil {
				return s.Cookie
			}
			return 0
		},
		47: func(r *run) uint64 {
			if s := r.vm.host.Socket(); s != nil {
				return uint64(s.UID)
			}
			return overflowUID
		},
		122: func(r *run) uint64 { return r.vm.host.NetnsCookie },
		124: socketAssign,
	} {
		helpers[id] = f
	}
}
