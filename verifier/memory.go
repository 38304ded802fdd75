package verifier

import (
	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/verifier/domain"
)

// accessBy says who reads or writes.
type accessBy uint8

const (
	direct   accessBy = iota // an instruction
	byHelper                 // a function that is given the pointer
)

// maxSize is the largest size that functions take (BPF_MAX_VAR_SIZ).
const maxSize = 1 << 29

// load does dst = *(size *)(src + off), sign extended or not.
func (v *verifier) load(op isa.Instruction) *Error {
	if err := v.read(op.Src); err != nil {
		return err
	}
	if err := v.writable(op.Dst); err != nil {
		return err
	}
	regs := v.regs()
	typ, fl := regs[op.Src].typ, regs[op.Src].flags
	size := op.Op.Size().Bytes()
	sx := op.Op.Mode() == isa.ModeMemSX
	if err := v.memAccess(&regs[op.Src], int(op.Src), int(op.Off), size, false, &regs[op.Dst], int(op.Dst), op, sx); err != nil {
		return err
	}
	v.sane(&regs[op.Dst])
	return v.sameKind(typ, fl, true)
}

// store does *(size *)(dst + off) = src, or an immediate.
func (v *verifier) store(op isa.Instruction) *Error {
	regs := v.regs()
	var val *reg
	valReg := -1
	if op.Class() == isa.ClassSTX {
		if err := v.read(op.Src); err != nil {
			return err
		}
		val, valReg = &regs[op.Src], int(op.Src)
	}
	if err := v.read(op.Dst); err != nil {
		return err
	}
	typ, fl := regs[op.Dst].typ, regs[op.Dst].flags
	if typ == ptrCtx && valReg < 0 && !v.cfg.constantsToContext() {
		return v.fail("context-constant", int(op.Dst), "Linux %s stores registers to contexts only, no constants", v.cfg.Kernel)
	}
	if err := v.memAccess(&regs[op.Dst], int(op.Dst), int(op.Off), op.Op.Size().Bytes(), true, val, valReg, op, false); err != nil {
		return err
	}
	return v.sameKind(typ, fl, false)
}

// sameKind checks that an instruction goes through the same kind of pointer on
// all paths, where the kernel has to rewrite it for the kind
// (save_aux_ptr_type).
func (v *verifier) sameKind(k kind, f flags, load bool) *Error {
	in := &v.insns[v.insn]
	if !in.hasKind {
		in.memory, in.memFlags, in.hasKind = k, f, true
		return nil
	}
	rewritten := func(k kind) bool {
		return k == ptrCtx || k >= ptrSocket && k <= ptrXDPSock || k == ptrBTF || k == ptrArena
	}
	if in.memory == k && in.memFlags == f || !rewritten(k) && !rewritten(in.memory) {
		return nil
	}
	if load && k == ptrBTF && in.memory == ptrBTF {
		in.memFlags = untrusted
		return nil
	}
	return v.fail("different-pointers", -1, "the instruction goes through pointers of different kinds on different paths: %s and %s",
		kindNames[in.memory], kindNames[k])
}

// atomic does an atomic operation (check_atomic).
func (v *verifier) atomic(op isa.Instruction) *Error {
	regs := v.regs()
	a := op.AtomicOp()
	size := op.Op.Size().Bytes()
	switch a {
	case isa.LoadAcquireOp:
		saved := regs[op.Src] // the result may replace the pointer
		if saved.typ != notInit {
			if err := v.aligned(&saved, int(op.Src), int(op.Off), size, true); err != nil {
				return err
			}
		}
		if err := v.load(isa.Instruction{Op: isa.Opcode(isa.ClassLDX) | isa.Opcode(isa.ModeMem) | isa.Opcode(op.Op.Size()), Dst: op.Dst, Src: op.Src, Off: op.Off}); err != nil {
			return err
		}
		if !v.atomicOK(&saved) {
			return v.fail("atomic-target", int(op.Src), "an atomic load cannot go through a pointer of type %s", v.typeName(&saved))
		}
		return nil
	case isa.StoreReleaseOp:
		if p := &regs[op.Dst]; p.typ != notInit {
			if err := v.aligned(p, int(op.Dst), int(op.Off), size, true); err != nil {
				return err
			}
		}
		if err := v.store(isa.Instruction{Op: isa.Opcode(isa.ClassSTX) | isa.Opcode(isa.ModeMem) | isa.Opcode(op.Op.Size()), Dst: op.Dst, Src: op.Src, Off: op.Off}); err != nil {
			return err
		}
		if !v.atomicOK(&regs[op.Dst]) {
			return v.fail("atomic-target", int(op.Dst), "an atomic store cannot go through a pointer of type %s", v.typeName(&regs[op.Dst]))
		}
		return nil
	}
	if err := v.read(op.Src); err != nil {
		return err
	}
	if err := v.read(op.Dst); err != nil {
		return err
	}
	if a == isa.CmpXchg {
		if err := v.read(0); err != nil {
			return err
		}
		if v.leaks(&regs[0]) {
			return v.leakedInto(0, "memory")
		}
	}
	if v.leaks(&regs[op.Src]) {
		return v.leakedInto(int(op.Src), "memory")
	}
	if !v.atomicOK(&regs[op.Dst]) {
		return v.fail("atomic-target", int(op.Dst), "an atomic operation cannot go through a pointer of type %s", v.typeName(&regs[op.Dst]))
	}
	result := -1
	if a&isa.Fetch != 0 {
		result = int(op.Src)
		if a == isa.CmpXchg {
			result = 0
		}
		if err := v.writable(isa.Register(result)); err != nil {
			return err
		}
	}
	p := &regs[op.Dst]
	typ, fl := p.typ, p.flags
	if err := v.memAccess(p, int(op.Dst), int(op.Off), size, false, nil, -1, op, false); err != nil {
		return err
	}
	if result >= 0 {
		r := &regs[result]
		saved := *p // the result may replace the pointer
		if err := v.memAccess(&saved, int(op.Dst), int(op.Off), size, false, r, result, op, false); err != nil {
			return err
		}
	}
	if err := v.sameKind(typ, fl, false); err != nil {
		return err
	}
	return v.memAccess(&regs[op.Dst], int(op.Dst), int(op.Off), size, true, nil, -1, op, false)
}

func (v *verifier) atomicOK(p *reg) bool {
	return p.typ != ptrCtx && !p.isPacket() && p.typ != ptrFlowKeys && !p.isSock()
}

func (v *verifier) leakedInto(r int, where string) *Error {
	return v.fail("pointer-leaked", r, "storing a pointer (r%d) in %s needs CAP_PERFMON", r, where)
}

// aligned checks an access where the machine, or the stack, needs it to be
// aligned (check_ptr_alignment).
func (v *verifier) aligned(p *reg, at, off, size int, strict bool) *Error {
	strict = strict || v.cfg.StrictAlignment || p.typ == ptrStack
	if !strict || size == 1 || p.typ == ptrArena {
		return nil
	}
	n := int64(p.off) + int64(off)
	if p.isPacket() {
		n += 2 // NET_IP_ALIGN of the machines that need it
	}
	if p.Bits.Add(domain.ConstTnum(uint64(n))).Aligned(uint64(size)) {
		return nil
	}
	return v.fail("misaligned", at, "%d bytes at an offset (%d) of %s that is no multiple of %d", size, n, v.typeName(p), size)
}

// memAccess checks a load or store of size bytes at p+off (check_mem_access).
// val is the register that is stored, or gets what is loaded; nil where there
// is none. valReg is its number, or -1.
func (v *verifier) memAccess(p *reg, at, off, size int, write bool, val *reg, valReg int, op isa.Instruction, sx bool) *Error {
	if err := v.aligned(p, at, off, size, op.IsAtomic()); err != nil {
		return err
	}
	off64 := int64(off) + int64(p.off)
	leak := func(where string) *Error {
		if write && val != nil && v.leaks(val) {
			return v.leakedInto(valReg, where)
		}
		return nil
	}
	got := scalarReg(domain.Unknown) // what a load gives
	var err *Error
	switch p.typ {
	case ptrMapKey:
		if write {
			return v.readOnly(p, at)
		}
		err = v.regionAccess(p, at, off64, int64(size), int64(v.maps[p.obj].KeySize), false)
	case ptrMapValue:
		if p.has(maybeNull) {
			return v.invalidAccess(p, at)
		}
		if err := leak("a map"); err != nil {
			return err
		}
		return v.mapValueAccess(p, at, off64, size, write, val, valReg, sx)
	case ptrMem:
		if p.has(maybeNull) {
			return v.invalidAccess(p, at)
		}
		if write && p.has(rdonly) {
			return v.readOnly(p, at)
		}
		if err := leak("memory"); err != nil {
			return err
		}
		if !p.has(untrusted) {
			err = v.regionAccess(p, at, off64, int64(size), int64(p.obj), false)
		}
	case ptrCtx:
		if err := leak("the context"); err != nil {
			return err
		}
		if err := v.fixedOffset(p, at, false); err != nil {
			return err
		}
		got, err = v.ctxAccess(p, at, int(off64), size, write, sx)
	case ptrStack:
		if _, _, err := v.stackBounds(p, at, int(off64), size, write); err != nil {
			return err
		}
		if write {
			return v.stackWrite(p, at, int(off64), size, val, op, valReg)
		}
		if err := v.stackRead(p, at, int(off64), size, val); err != nil {
			return err
		}
		if val != nil {
			v.extend(val, size, sx)
		}
		return nil
	case ptrPacket, ptrPacketMeta:
		if write && !v.packetAccessible(true, nil) {
			return v.fail("packet-read-only", at, "programs of type %s cannot write into packets", v.prog.Type)
		}
		if err := leak("a packet"); err != nil {
			return err
		}
		err = v.packetAccess(p, at, off64, int64(size), false)
	case ptrFlowKeys:
		if err := leak("the flow keys"); err != nil {
			return err
		}
		if off64 < 0 || off64+int64(size) > abi.FlowKeysSize {
			err = v.fail("flow-keys-out-of-bounds", at, "%d bytes at offset %d of the flow keys, which have %d", size, off64, abi.FlowKeysSize)
		}
	case ptrSocket, ptrSockCommon, ptrTCPSock, ptrXDPSock:
		if p.has(maybeNull) {
			return v.invalidAccess(p, at)
		}
		if write {
			return v.readOnly(p, at)
		}
		err = v.sockAccess(p, at, int(off64), size)
	case ptrTPBuffer:
		if err := v.bufferAccess(p, at, off64, "tracepoint buffer"); err != nil {
			return err
		}
	case ptrBTF:
		if p.has(maybeNull) {
			return v.invalidAccess(p, at)
		}
		got, err = v.btfAccess(p, at, int(off64), size, write, val != nil)
	case constPtrMap:
		if p.has(maybeNull) {
			return v.invalidAccess(p, at)
		}
		got, err = v.mapStructAccess(p, at, int(off64), size, write)
	case ptrBuf:
		if p.has(maybeNull) {
			return v.invalidAccess(p, at)
		}
		if write && p.has(rdonly) {
			return v.readOnly(p, at)
		}
		err = v.bufferAccess(p, at, off64, "buffer")
	case ptrArena:
		return v.unsupported("arenas")
	default:
		return v.invalidAccess(p, at)
	}
	if err != nil || write || val == nil {
		return err
	}
	*val = got
	if got.typ == scalar {
		val.precise = !v.cfg.Caps.bpf()
		v.extend(val, size, sx)
	}
	return nil
}

// extend makes a loaded number as wide as what was loaded.
func (v *verifier) extend(r *reg, size int, sx bool) {
	switch {
	case r.typ != scalar || size == 8:
	case sx:
		r.SignExtend(size)
	default:
		v.rules.Truncate(&r.Scalar, size)
	}
}

// invalidAccess is the error for what is no pointer to memory.
func (v *verifier) invalidAccess(p *reg, at int) *Error {
	if p.has(maybeNull) {
		return v.fail("null-access", at, "r%d (%s) may be null here, and is used as an address", at, v.typeName(p))
	}
	return v.fail("not-memory", at, "r%d is used as an address, but holds a %s", at, v.typeName(p))
}

func (v *verifier) readOnly(p *reg, at int) *Error {
	return v.fail("read-only", at, "r%d (%s) points to memory that can be read only", at, v.typeName(p))
}

// regionAccess checks an access to memory of a known size
// (check_mem_region_access).
func (v *verifier) regionAccess(p *reg, at int, off, size, memSize int64, zeroOK bool) *Error {
	within := func(at int64) bool {
		return at >= 0 && (size > 0 || size == 0 && zeroOK) && uint64(at)+uint64(size) <= uint64(memSize)
	}
	if p.SMin < 0 && (p.SMin < -1<<62 || !fits32(off+p.SMin) || off+p.SMin < 0) {
		return v.fail("negative-offset", at, "the offset in r%d may be negative (%d)", at, p.SMin)
	}
	if lo := int64(int32(p.SMin + off)); !within(lo) {
		return v.fail("out-of-bounds", at, "%d bytes at offset %d of %s, which has %d", size, lo, v.typeName(p), memSize)
	}
	if p.UMax >= maxOffset {
		return v.fail("offset-unbounded", at, "the offset in r%d has no upper bound", at)
	}
	if hi := int64(p.UMax) + off; !within(hi) {
		return v.fail("out-of-bounds", at, "%d bytes at an offset of up to %d of %s, which has %d", size, hi, v.typeName(p), memSize)
	}
	return nil
}

// Flags of maps that say what programs may do (include/uapi/linux/bpf.h).
const (
	mapReadOnlyProg  = 1 << 7 // BPF_F_RDONLY_PROG
	mapWriteOnlyProg = 1 << 8 // BPF_F_WRONLY_PROG
)

func (v *verifier) mapPermits(p *reg, at int, write bool) *Error {
	m := v.maps[p.obj]
	if write && m.Flags&mapReadOnlyProg != 0 {
		return v.fail("map-read-only", at, "programs may not write to map %s", m.Name)
	}
	if !write && m.Flags&mapWriteOnlyProg != 0 {
		return v.fail("map-write-only", at, "programs may not read map %s", m.Name)
	}
	return nil
}

// mapAccess checks an access to a map's value, which must spare locks, timers
// and the like (check_map_access).
func (v *verifier) mapAccess(p *reg, at int, off, size int64, zeroOK bool, by accessBy) *Error {
	m := v.maps[p.obj]
	if err := v.regionAccess(p, at, off, size, int64(m.ValueSize), zeroOK); err != nil {
		return err
	}
	for i := range m.fields {
		f := &m.fields[i]
		if p.SMin+off >= int64(f.off+f.size) || int64(f.off) >= int64(p.UMax)+off+size {
			continue
		}
		if !f.kind.isKptr() {
			return v.fail("special-field", at, "the %s at offset %d of map %s cannot be read or written by instructions", f.kind, f.off, m.Name)
		}
		switch {
		case by != direct:
			return v.fail("kptr-access", at, "the kernel pointer at offset %d of map %s cannot be accessed by a helper", f.off, m.Name)
		case !p.IsConst():
			return v.fail("kptr-access", at, "a kernel pointer in map %s is accessed at an offset that is not constant", m.Name)
		case int64(f.off) != off+int64(p.Bits.Value):
			return v.fail("kptr-access", at, "the kernel pointer at offset %d of map %s is accessed at %d", f.off, m.Name, off+int64(p.Bits.Value))
		case size != 8:
			return v.fail("kptr-access", at, "the kernel pointer at offset %d of map %s is accessed by %d bytes, not 8", f.off, m.Name, size)
		}
	}
	return nil
}

func (v *verifier) mapValueAccess(p *reg, at int, off int64, size int, write bool, val *reg, valReg int, sx bool) *Error {
	m := v.maps[p.obj]
	if err := v.mapPermits(p, at, write); err != nil {
		return err
	}
	if err := v.mapAccess(p, at, off, int64(size), false, direct); err != nil {
		return err
	}
	if p.IsConst() {
		for i := range m.fields {
			if f := &m.fields[i]; f.kind.isKptr() && int64(f.off) == off+int64(p.Bits.Value) {
				return v.kptrAccess(p, f, write, val, valReg)
			}
		}
	}
	if write || val == nil {
		return nil
	}
	at64 := off + int64(p.Bits.Value)
	if p.IsConst() && m.Contents != nil && m.Flags&mapReadOnlyProg != 0 && at64+int64(size) <= int64(len(m.Contents)) {
		var n uint64
		for i := range size {
			n |= uint64(m.Contents[at64+int64(i)]) << (8 * i)
		}
		v.setConst(val, n)
		v.extend(val, size, sx)
		return nil
	}
	v.setUnknown(val)
	v.extend(val, size, sx)
	return nil
}

// packetAccessible reports whether programs of the type may go through packet
// pointers, themselves or by a helper (may_access_direct_pkt_data).
func (v *verifier) packetAccessible(write bool, proto *abi.Proto) bool {
	switch v.prog.Type {
	case abi.ProgLWTIn, abi.ProgLWTOut, abi.ProgLWTSeg6local, abi.ProgSkReuseport, abi.ProgFlowDissector, abi.ProgCgroupSkb:
		if write {
			return false
		}
		return proto == nil || proto.PacketAccess
	case abi.ProgSchedCls, abi.ProgSchedAct, abi.ProgXDP, abi.ProgLWTXmit, abi.ProgSkSkb, abi.ProgSkMsg:
		return proto == nil || proto.PacketAccess
	case abi.ProgCgroupSockopt:
		return true
	}
	return false
}

// packetAccess checks an access to what was checked of a packet
// (check_packet_access).
func (v *verifier) packetAccess(p *reg, at int, off, size int64, zeroOK bool) *Error {
	if p.SMin < 0 {
		return v.fail("negative-offset", at, "the offset in r%d may be negative (%d)", at, p.SMin)
	}
	if off < 0 || size == 0 && !zeroOK || p.aux < 0 || uint64(off)+uint64(size) > uint64(p.aux) {
		return v.fail("packet-out-of-bounds", at, "%d bytes at offset %d of the packet, of which %d are known to be there", size, off, max(p.aux, 0))
	}
	return nil
}

// bufferAccess checks an access to a buffer whose size is found out when the
// program is attached.
func (v *verifier) bufferAccess(p *reg, at int, off int64, what string) *Error {
	if off < 0 {
		return v.fail("negative-offset", at, "offset %d of the %s", off, what)
	}
	if !p.IsConst() || p.Bits.Value != 0 {
		return v.fail("variable-offset", at, "the %s is accessed at an offset that is not constant", what)
	}
	return nil
}

// fixedOffset checks a pointer that must not have been moved
// (__check_ptr_off_reg); offOK says that constants do no harm.
func (v *verifier) fixedOffset(p *reg, at int, offOK bool) *Error {
	switch {
	case p.off < 0:
		return v.fail("moved-pointer", at, "r%d (%s) was moved by %d, and cannot be used like that", at, v.typeName(p), p.off)
	case !offOK && p.off != 0:
		return v.fail("moved-pointer", at, "r%d (%s) was moved by %d, and can be used only as it came", at, v.typeName(p), p.off)
	case !p.IsConst() || p.Bits.Value != 0:
		return v.fail("variable-offset", at, "r%d (%s) was moved by an offset that is not constant", at, v.typeName(p))
	}
	return nil
}

// ctxAccess checks an access to the context, and says what a load gives
// (check_ctx_access).
func (v *verifier) ctxAccess(p *reg, at, off, size int, write, sx bool) (reg, *Error) {
	unknown := scalarReg(domain.Unknown)
	bad := func() (reg, *Error) {
		what := "read"
		if write {
			what = "written"
		}
		return unknown, v.fail("context-access", at, "%d bytes at offset %d of the context (%s) cannot be %s by programs of type %s", size, off, v.ctxName(), what, v.prog.Type)
	}
	if v.typedContext() {
		return v.typedCtxAccess(at, off, size, write)
	}
	a, ok := v.ctx.Access(v.cfg.Kernel, v.prog.Type, v.prog.Attach, off, size, write)
	if !ok || sx && a != abi.ContextScalar {
		return bad()
	}
	// cg_skb_is_valid_access: the packet itself, and when it leaves.
	if v.prog.Type == abi.ProgCgroupSkb && !v.cfg.Caps.bpf() &&
		(a == abi.ContextPacket || a == abi.ContextPacketEnd || write && off >= skbTimestamp && off < skbTimestamp+8) {
		return unknown, v.fail("context-access", at, "%d bytes at offset %d of the context (%s) need CAP_BPF", size, off, v.ctxName())
	}
	if write {
		return unknown, nil
	}
	switch a {
	case abi.ContextPacket:
		return pointer(ptrPacket, 0, 0), nil
	case abi.ContextPacketMeta:
		return pointer(ptrPacketMeta, 0, 0), nil
	case abi.ContextPacketEnd:
		return pointer(ptrPacketEnd, 0, 0), nil
	case abi.ContextFlowKeys:
		return pointer(ptrFlowKeys, 0, 0), nil
	case abi.ContextSockCommon:
		r := pointer(ptrSockCommon, maybeNull, 0)
		v.ids++
		r.id = v.ids
		return r, nil
	case abi.ContextSocket:
		return pointer(ptrSocket, 0, 0), nil
	case abi.ContextSocketOrNull:
		r := pointer(ptrSocket, maybeNull, 0)
		v.ids++
		r.id = v.ids
		return r, nil
	case abi.ContextTPBuffer:
		return pointer(ptrTPBuffer, 0, 0), nil
	}
	return unknown, nil
}

// skbTimestamp is the offset of tstamp in struct __sk_buff.
const skbTimestamp = 152

func (v *verifier) ctxName() string {
	if v.ctx != nil && v.ctx.Name != "" {
		return v.ctx.Name
	}
	return "its arguments"
}

// sockAccess checks a read of a socket's fields (check_sock_access).
func (v *verifier) sockAccess(p *reg, at, off, size int) *Error {
	if p.SMin < 0 {
		return v.fail("negative-offset", at, "the offset in r%d may be negative (%d)", at, p.SMin)
	}
	var name string
	switch p.typ {
	case ptrSocket:
		name = "bpf_sock"
	case ptrSockCommon:
		name = "bpf_sock_common"
	case ptrTCPSock:
		name = "bpf_tcp_sock"
	default:
		name = "bpf_xdp_sock"
	}
	if a, ok := abi.ContextByName(name).Access(v.cfg.Kernel, 0, 0, off, size, false); !ok || a != abi.ContextScalar {
		return v.fail("socket-access", at, "%d bytes at offset %d of a %s cannot be read", size, off, name)
	}
	return nil
}

// loadImm64 does a 64-bit load of a number, a map, a map's value, a variable of
// the kernel or a function (check_ld_imm).
func (v *verifier) loadImm64(op isa.Instruction) *Error {
	if err := v.writable(op.Dst); err != nil {
		return err
	}
	dst := &v.regs()[op.Dst]
	switch op.Src {
	case 0:
		v.setConst(dst, uint64(op.Imm))
	case isa.PseudoMapFD, isa.PseudoMapIndex:
		*dst = pointer(constPtrMap, 0, uint32(op.Low()))
	case isa.PseudoMapValue, isa.PseudoMapIndexValue:
		m := v.maps[op.Low()]
		if m.Type == mapArena {
			return v.unsupported("arenas")
		}
		*dst = pointer(ptrMapValue, 0, uint32(op.Low()))
		dst.off = op.High()
	case isa.PseudoFunc:
		k := int(v.insns[v.insns[v.insn].target].subprog)
		if f := v.subprogs[k].fn; f == nil || f.Type == nil {
			return v.fail("function-type", -1, "the function whose address is taken has no type")
		}
		if v.subprogs[k].global {
			return v.fail("function-type", -1, "the address of %s is taken, which is a global function; make it static", v.subprogs[k].fn.Name)
		}
		*dst = pointer(ptrFunc, 0, uint32(v.insns[v.insns[v.insn].target].subprog))
	case isa.PseudoBTFID:
		return v.loadKsym(op, dst)
	default:
		return v.fail("invalid-instruction", -1, "unknown kind of 64-bit load: src is %d", op.Src)
	}
	return nil
}

// loadPacket does a legacy load from the packet (check_ld_abs).
func (v *verifier) loadPacket(op isa.Instruction) (next, *Error) {
	switch v.prog.Type {
	case abi.ProgSocketFilter, abi.ProgSchedCls, abi.ProgSchedAct:
	default:
		return 0, v.fail("legacy-packet-access", -1, "programs of type %s have no legacy packet access", v.prog.Type)
	}
	if err := v.read(6); err != nil {
		return 0, err
	}
	if err := v.leakedRefs(); err != nil {
		return 0, err
	}
	if err := v.underLock("a legacy packet access"); err != nil {
		return 0, err
	}
	regs := v.regs()
	if regs[6].typ != ptrCtx {
		return 0, v.fail("legacy-context", 6, "a legacy packet access needs the context in r6")
	}
	if op.Op.Mode() == isa.ModeInd {
		if err := v.read(op.Src); err != nil {
			return 0, err
		}
	}
	if err := v.fixedOffset(&regs[6], 6, false); err != nil {
		return 0, err
	}
	for i := range 6 {
		regs[i] = reg{}
	}
	v.setUnknown(&regs[0])
	if v.st.cur == 0 || v.cfg.Kernel < linux6_18 {
		return nextInsn, nil
	}
	// The access may fail, which returns 0 from the function.
	if _, err := v.push(v.insn+1, v.insn, false); err != nil {
		return 0, err
	}
	v.setConst(&v.regs()[0], 0)
	return v.leaveFrame()
}
