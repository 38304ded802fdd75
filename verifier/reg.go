package verifier

import (
	"fmt"
	"strings"

	"github.com/skep-bpf/skep/verifier/domain"
)

// A kind says what a register holds (enum bpf_reg_type).
type kind uint8

const (
	notInit kind = iota
	scalar
	ptrCtx
	constPtrMap // a map itself
	ptrMapValue
	ptrMapKey
	ptrStack
	ptrPacketMeta
	ptrPacket
	ptrPacketEnd
	ptrFlowKeys
	ptrSocket
	ptrSockCommon
	ptrTCPSock
	ptrXDPSock
	ptrTPBuffer
	ptrBTF // a kernel object with a type
	ptrMem
	ptrArena
	ptrBuf
	ptrFunc
	constPtrDynptr
)

var kindNames = [...]string{
	"uninitialised", "scalar", "ctx", "map_ptr", "map_value", "map_key", "fp", "pkt_meta", "pkt", "pkt_end", "flow_keys",
	"sock", "sock_common", "tcp_sock", "xdp_sock", "tp_buffer", "ptr_", "mem", "arena", "buf", "func", "dynptr_ptr",
}

// flags are properties of pointers (enum bpf_type_flag).
type flags uint16

const (
	maybeNull flags = 1 << iota
	rdonly
	ringbufMem
	userMem
	percpu
	untrusted
	trusted
	rcu
	alloc
	nonOwning
	dynptrSkb
	dynptrXDP
	objRelease
)

// flagNames say flags as the kernel's log does, before or behind the kind.
var flagNames = []struct {
	flag flags
	name string
}{
	{rdonly, "rdonly_"},
	{ringbufMem, "ringbuf_"},
	{userMem, "user_"},
	{percpu, "percpu_"},
	{untrusted, "untrusted_"},
	{trusted, "trusted_"},
	{rcu, "rcu_"},
}

// A reg is what is known of a register, or of a register that was spilled. It
// holds no Go pointers, so that states are cheap to copy and to collect.
//
// For pointers, the Scalar is the variable part of the offset, and off the
// constant part.
type reg struct {
	domain.Scalar
	typ     kind
	frame   uint8 // of ptrStack: which frame
	precise bool
	flags   flags
	off     int32
	id      uint32 // values with the same id are equal, or null together
	ref     uint32 // the reference this is, or was made from
	// obj is by kind: the map (index), the BTF type (index), the bytes of a
	// memory region, the subprogram of a function.
	obj uint32
	// dynptr is the dynptr that memory was taken from, or 0.
	dynptr uint32
	// aux is by kind: the bytes of a packet that were checked, the identity of
	// an inner map (or 0), the type of a dynptr, the state of an iterator.
	aux int32
}

// addConst marks the id of a scalar that is another one plus off.
const addConst = 1 << 31

const (
	beyondPacketEnd = -1 // aux of a packet pointer past the end
	atPacketEnd     = -2
)

// scalarReg is a register that holds s.
func scalarReg(s domain.Scalar) reg { return reg{Scalar: s, typ: scalar} }

func constReg(v uint64) reg { return scalarReg(domain.Const(v)) }

func (r *reg) has(f flags) bool { return r.flags&f != 0 }

func (r *reg) isPointer() bool { return r.typ > scalar }

// isNull reports whether r is the number 0.
func (r *reg) isNull() bool { return r.typ == scalar && r.IsConst() && r.Bits.Value == 0 }

func (r *reg) isPacket() bool { return r.typ == ptrPacket || r.typ == ptrPacketMeta }

func (r *reg) isPacketAny() bool { return r.isPacket() || r.typ == ptrPacketEnd }

// isSock reports whether r points to one of the socket views.
func (r *reg) isSock() bool { return r.typ >= ptrSocket && r.typ <= ptrXDPSock }

// width is the number of low bits that may be set.
func (r *reg) width() int {
	n := 0
	for v := r.UMax; v != 0; v >>= 1 {
		n++
	}
	return n
}

// exactly reports whether r and o are the same but for their ids.
func (r *reg) exactly(o *reg) bool {
	return r.typ == o.typ && r.flags == o.flags && r.off == o.off && r.obj == o.obj && r.aux == o.aux && r.Scalar == o.Scalar
}

func (r *reg) clearID() {
	r.id = 0
	r.off = 0
}

// setUnknown makes r an unknown number.
func (v *verifier) setUnknown(r *reg) {
	*r = reg{Scalar: domain.Unknown, typ: scalar, precise: !v.cfg.Caps.bpf()}
}

// setConst makes r a number.
func (v *verifier) setConst(r *reg, n uint64) {
	*r = reg{Scalar: domain.Const(n), typ: scalar, precise: !v.cfg.Caps.bpf()}
}

// pointer returns a register with a pointer at offset zero.
func pointer(k kind, f flags, obj uint32) reg {
	return reg{Scalar: domain.Const(0), typ: k, flags: f, obj: obj}
}

// describe says r as the kernel's log does, nearly.
func (v *verifier) describe(r *reg) string {
	if r.typ == scalar {
		if r.IsConst() {
			return r.Scalar.String()
		}
		return "scalar(" + r.Scalar.String() + ")"
	}
	if r.typ == ptrStack {
		name := "fp"
		if r.IsConst() {
			if off := int64(r.Bits.Value) + int64(r.off); off != 0 {
				name += fmt.Sprintf("%+d", off)
			}
		} else {
			name += fmt.Sprintf("%+d+(%v)", r.off, r.Scalar)
		}
		if int(r.frame) != v.st.cur {
			name += fmt.Sprintf(" of frame %d", r.frame)
		}
		return name
	}
	var parts []string
	if r.id != 0 {
		parts = append(parts, fmt.Sprintf("id=%d", r.id))
	}
	if r.ref != 0 {
		parts = append(parts, fmt.Sprintf("ref=%d", r.ref))
	}
	if r.off != 0 {
		parts = append(parts, fmt.Sprintf("off=%d", r.off))
	}
	switch {
	case r.isPacket():
		parts = append(parts, fmt.Sprintf("r=%d", max(r.aux, 0)))
	case r.typ == ptrMapValue || r.typ == ptrMapKey || r.typ == constPtrMap:
		m := v.maps[r.obj]
		parts = append(parts, "map="+m.Name)
		if r.typ == ptrMapValue {
			parts = append(parts, fmt.Sprintf("vs=%d", m.ValueSize))
		}
	case r.typ == ptrMem:
		parts = append(parts, fmt.Sprintf("sz=%d", r.obj))
	}
	if !r.IsConst() || r.Bits.Value != 0 {
		parts = append(parts, r.Scalar.String())
	}
	name := v.typeName(r)
	if len(parts) > 0 {
		name += "(" + strings.Join(parts, ",") + ")"
	}
	return name
}

// typeName is the kind with its flags: "map_value_or_null".
func (v *verifier) typeName(r *reg) string {
	var b strings.Builder
	for _, f := range flagNames {
		if r.has(f.flag) {
			b.WriteString(f.name)
		}
	}
	b.WriteString(kindNames[r.typ])
	if r.typ == ptrBTF {
		b.WriteString(v.btfName(r.obj))
	}
	if r.has(maybeNull) {
		b.WriteString("_or_null")
	}
	return b.String()
}
