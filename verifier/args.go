package verifier

import (
	"bytes"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
)

// accepted says which kinds of registers an argument takes: each with its
// flags (compatible_reg_types).
type accepted struct {
	kind  kind
	flags flags
}

var memKinds = []accepted{
	{ptrStack, 0},
	{ptrPacket, 0},
	{ptrPacketMeta, 0},
	{ptrMapKey, 0},
	{ptrMapValue, 0},
	{ptrMem, 0},
	{ptrMem, ringbufMem},
	{ptrBuf, 0},
	{ptrBTF, trusted},
}

var sockKinds = []accepted{{ptrSockCommon, 0}, {ptrSocket, 0}, {ptrTCPSock, 0}, {ptrXDPSock, 0}}

var argKinds = map[abi.ArgType][]accepted{
	abi.ArgPtrToMapKey:          memKinds,
	abi.ArgPtrToMapValue:        memKinds,
	abi.ArgPtrToMem:             memKinds,
	abi.ArgConstSize:            {{scalar, 0}},
	abi.ArgConstSizeOrZero:      {{scalar, 0}},
	abi.ArgConstAllocSizeOrZero: {{scalar, 0}},
	abi.ArgScalar:               {{scalar, 0}},
	abi.ArgConstMapPtr:          {{constPtrMap, 0}},
	abi.ArgPtrToCtx:             {{ptrCtx, 0}},
	abi.ArgPtrToSockCommon:      sockKinds,
	abi.ArgPtrToBTFIDSockCommon: append(append([]accepted(nil), sockKinds...), accepted{ptrBTF, 0}, accepted{ptrBTF, trusted}),
	abi.ArgPtrToSocket:          {{ptrSocket, 0}},
	abi.ArgPtrToBTFID:           {{ptrBTF, 0}, {ptrBTF, trusted}, {ptrBTF, rcu}},
	abi.ArgPtrToSpinLock:        {{ptrMapValue, 0}, {ptrBTF, alloc}},
	abi.ArgPtrToRingbufMem:      {{ptrMem, ringbufMem}},
	abi.ArgPtrToAllocMem:        {{ptrMem, ringbufMem}},
	abi.ArgPtrToPercpuBTFID:     {{ptrBTF, percpu}, {ptrBTF, percpu | rcu}, {ptrBTF, percpu | trusted}},
	abi.ArgPtrToFunc:            {{ptrFunc, 0}},
	abi.ArgPtrToStack:           {{ptrStack, 0}},
	abi.ArgPtrToConstStr:        {{ptrMapValue, 0}},
	abi.ArgPtrToTimer:           {{ptrMapValue, 0}},
	abi.ArgKptrXchgDest:         {{ptrMapValue, 0}, {ptrBTF, alloc}},
	abi.ArgPtrToDynptr:          {{ptrStack, 0}, {constPtrDynptr, 0}},
}

// argument checks one argument of a helper (check_func_arg).
func (v *verifier) argument(i int, meta *callMeta) *Error {
	t := meta.proto.Args[i]
	at := i + 1
	if t == abi.ArgDontcare {
		return nil
	}
	if err := v.read(isa.Register(at)); err != nil {
		return err
	}
	r := &v.regs()[at]
	if t == abi.ArgAnything {
		if v.leaks(r) {
			return v.fail("pointer-argument", at, "passing a pointer (r%d) to %s needs CAP_PERFMON", at, meta.helper.Name)
		}
		return nil
	}
	if r.isPacketAny() && !v.packetAccessible(false, meta.proto) {
		return v.fail("helper-packet-access", at, "%s does not take pointers into packets in programs of type %s", meta.helper.Name, v.prog.Type)
	}
	if t.Base() == abi.ArgPtrToMapValue {
		var err *Error
		if t, err = v.mapArgument(t, meta); err != nil {
			return err
		}
	}
	if r.isNull() && t.Has(abi.PtrMaybeNull) {
		if err := v.precise(isa.Register(at)); err != nil {
			return err
		}
	} else {
		if err := v.argumentType(r, at, t, meta); err != nil {
			return err
		}
		if err := v.argumentOffset(r, at, t); err != nil {
			return err
		}
	}
	if t.Has(abi.ObjRelease) {
		if t.Base() == abi.ArgPtrToDynptr {
			if err := v.releasableDynptr(r, at); err != nil {
				return err
			}
		} else if r.ref == 0 && !r.isNull() {
			return v.fail("reference-missing", at, "%s gives back a reference, and r%d is none", meta.helper.Name, at)
		}
		meta.release = at
	}
	if r.ref != 0 && t.Base() != abi.ArgKptrXchgDest {
		if meta.ref != 0 {
			return v.fail("two-references", at, "%s is given two references", meta.helper.Name)
		}
		meta.ref = r.ref
	}
	return v.argumentValue(r, at, t, meta)
}

// mapArgument says what a value is for maps that hold something else
// (resolve_map_arg_type).
func (v *verifier) mapArgument(t abi.ArgType, meta *callMeta) (abi.ArgType, *Error) {
	if meta.m < 0 {
		return t, v.fail("argument-map", -1, "there is no map to take the value's size from")
	}
	switch v.maps[meta.m].Type {
	case abi.MapSockmap, abi.MapSockhash:
		if t.Base() == abi.ArgPtrToMapValue && t&^0xff&^abi.MemRdonly == 0 {
			return abi.ArgPtrToBTFIDSockCommon, nil
		}
		return t, v.fail("argument-map", -1, "map %s takes no such value", v.maps[meta.m].Name)
	case abi.MapBloomFilter:
		if meta.helper.ID == helperMapPeek {
			return abi.ArgPtrToMapValue, nil
		}
	}
	return t, nil
}

// argumentType checks what kind of thing an argument is (check_reg_type).
func (v *verifier) argumentType(r *reg, at int, t abi.ArgType, meta *callMeta) *Error {
	kinds, ok := argKinds[t.Base()]
	if !ok {
		return v.unsupported("arguments of type %#x of %s", uint32(t), meta.helper.Name)
	}
	f := r.flags
	if t.Has(abi.MemRdonly) {
		f &^= rdonly
	}
	if t.Has(abi.PtrMaybeNull) {
		f &^= maybeNull
	}
	if t.Base() == abi.ArgPtrToMem {
		f &^= dynptrSkb | dynptrXDP
	}
	if meta.helper.ID == helperKptrXchg && at == 2 {
		f &^= alloc | percpu
	}
	found := false
	for _, k := range kinds {
		if k.kind == r.typ && k.flags == f {
			found = true
			break
		}
	}
	if !found {
		if r.has(maybeNull) {
			for _, k := range kinds {
				if k.kind == r.typ && k.flags == f&^maybeNull {
					return v.fail("argument-null", at, "r%d (%s) may be null, which %s does not take", at, v.typeName(r), meta.helper.Name)
				}
			}
		}
		return v.fail("argument-type", at, "%s takes %s in r%d, and it holds a %s", meta.helper.Name, v.expected(kinds), at, v.typeName(r))
	}
	if r.typ != ptrBTF {
		return nil
	}
	return v.btfArgument(r, at, t, meta)
}

func (v *verifier) expected(kinds []accepted) string {
	var b bytes.Buffer
	for i, k := range kinds {
		switch {
		case i > 0 && i == len(kinds)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		if k.kind == ptrBTF {
			b.WriteString("a kernel object")
			continue
		}
		r := reg{typ: k.kind, flags: k.flags}
		b.WriteString(v.typeName(&r))
	}
	return b.String()
}

// argumentOffset checks how far an argument was moved
// (check_func_arg_reg_off).
func (v *verifier) argumentOffset(r *reg, at int, t abi.ArgType) *Error {
	if t.Has(abi.ObjRelease) {
		if t.Base() == abi.ArgPtrToDynptr && r.typ == ptrStack {
			return nil
		}
		if r.typ != scalar && r.off != 0 {
			return v.fail("moved-pointer", at, "r%d (%s) was moved by %d, and can be given back only as it came", at, v.typeName(r), r.off)
		}
		if r.typ == scalar {
			return nil
		}
		return v.fixedOffset(r, at, false)
	}
	switch r.typ {
	case ptrStack, ptrPacket, ptrPacketMeta, ptrMapKey, ptrMapValue, ptrMem, ptrBuf, ptrArena, scalar:
		if r.typ == ptrMapValue && r.has(maybeNull) || r.typ == ptrMem && r.flags&^(rdonly|ringbufMem) != 0 {
			return v.fixedOffset(r, at, false)
		}
		return nil
	case ptrBTF:
		return v.fixedOffset(r, at, true)
	}
	return v.fixedOffset(r, at, false)
}

// argumentValue checks what an argument refers to.
func (v *verifier) argumentValue(r *reg, at int, t abi.ArgType, meta *callMeta) *Error {
	write := t.Has(abi.MemWrite)
	switch t.Base() {
	case abi.ArgConstMapPtr:
		if meta.m >= 0 && (uint32(meta.m) != r.obj || meta.uid != r.aux) {
			return v.fail("timer-map", at, "the timer in r1 is not in the map in r2")
		}
		meta.m, meta.uid = int(r.obj), r.aux
	case abi.ArgPtrToMapKey:
		if meta.m < 0 {
			return v.fail("argument-map", at, "there is no map to take the key's size from")
		}
		m := v.maps[meta.m]
		if err := v.helperMem(at, int64(m.KeySize), false, false, nil); err != nil {
			return err
		}
		if (m.Type == abi.MapArray || m.Type == abi.MapPercpuArray) && v.cfg.Kernel >= linux6_15 {
			key, ok, err := v.constantKey(r, int(m.KeySize))
			meta.keyInRange = ok && key < uint64(m.MaxEntries)
			return err
		}
	case abi.ArgPtrToMapValue:
		if t.Has(abi.PtrMaybeNull) && r.isNull() {
			return nil
		}
		meta.raw.uninit = t.Has(abi.MemUninit)
		return v.helperMem(at, int64(v.maps[meta.m].ValueSize), write, false, &meta.raw)
	case abi.ArgPtrToMem:
		meta.raw.uninit = t.Has(abi.MemUninit)
		if !t.Has(abi.MemFixedSize) {
			return nil
		}
		size := int(meta.proto.Sizes[at])
		if err := v.helperMem(at, int64(size), write, false, &meta.raw); err != nil {
			return err
		}
		if t.Has(abi.MemAligned) {
			return v.aligned(r, at, 0, size, true)
		}
	case abi.ArgConstSize, abi.ArgConstSizeOrZero:
		before := meta.proto.Args[at-2]
		return v.memSize(r, at, before.Has(abi.MemWrite), t.Base() == abi.ArgConstSizeOrZero, meta)
	case abi.ArgConstAllocSizeOrZero:
		if !r.IsConst() {
			return v.fail("size-not-constant", at, "the size in r%d must be a constant", at)
		}
		meta.memSize = uint32(r.Bits.Value)
		return v.precise(isa.Register(at))
	case abi.ArgPtrToFunc:
		meta.subprog = int(r.obj)
	case abi.ArgPtrToSpinLock:
		return v.spinLock(r, at, meta.helper.ID == helperSpinLock)
	case abi.ArgPtrToTimer:
		return v.timer(r, at, meta)
	case abi.ArgPtrToConstStr:
		return v.constString(r, at)
	case abi.ArgPtrToDynptr:
		return v.dynptrArgument(r, at, t, meta)
	case abi.ArgPtrToPercpuBTFID:
		meta.retType = r.obj
	case abi.ArgKptrXchgDest:
		return v.kptrArgument(r, at, meta)
	}
	return nil
}

// memSize checks the size of memory that the register before points to
// (check_mem_size_reg).
func (v *verifier) memSize(r *reg, at int, write, zeroOK bool, meta *callMeta) *Error {
	meta.maxSize = r.UMax
	raw := &meta.raw
	if !r.IsConst() {
		raw = nil
	}
	if r.SMin < 0 {
		return v.fail("negative-size", at, "the size in r%d may be negative (%d)", at, r.SMin)
	}
	if r.UMin == 0 && !zeroOK {
		return v.fail("zero-size", at, "the size in r%d may be 0, which is not allowed here", at)
	}
	if r.UMax >= maxSize {
		return v.fail("size-unbounded", at, "the size in r%d has no upper bound", at)
	}
	if err := v.helperMem(at-1, int64(r.UMax), write, zeroOK, raw); err != nil {
		return err
	}
	return v.precise(isa.Register(at))
}

// helperMem checks memory that a function reads or writes
// (check_helper_mem_access).
func (v *verifier) helperMem(at int, size int64, write, zeroOK bool, raw *rawMem) *Error {
	r := &v.regs()[at]
	switch r.typ {
	case ptrPacket, ptrPacketMeta:
		return v.packetAccess(r, at, int64(r.off), size, zeroOK)
	case ptrMapKey:
		if write {
			return v.readOnly(r, at)
		}
		return v.regionAccess(r, at, int64(r.off), size, int64(v.maps[r.obj].KeySize), false)
	case ptrMapValue:
		if err := v.mapPermits(r, at, write); err != nil {
			return err
		}
		return v.mapAccess(r, at, int64(r.off), size, zeroOK, byHelper)
	case ptrMem:
		if write && r.has(rdonly) {
			return v.readOnly(r, at)
		}
		return v.regionAccess(r, at, int64(r.off), size, int64(r.obj), zeroOK)
	case ptrBuf:
		if write && r.has(rdonly) {
			return v.readOnly(r, at)
		}
		return v.bufferAccess(r, at, int64(r.off), "buffer")
	case ptrStack:
		return v.stackInit(r, at, int(r.off), int(size), zeroOK, byHelper, write, raw)
	case ptrBTF:
		_, err := v.btfAccess(r, at, int(r.off), int(size), false, false)
		return err
	case ptrCtx:
		// Types whose context is memory as it stands.
		if v.ctx != nil && v.ctx.Name == "syscall" {
			if size == 0 {
				if zeroOK {
					return nil
				}
				return v.fail("zero-size", at, "a size of 0 is not allowed here")
			}
			return v.memAccess(r, at, int(size)-1, 1, write, nil, -1, isa.Instruction{}, false)
		}
	}
	if zeroOK && size == 0 && r.isNull() {
		return nil
	}
	return v.fail("argument-type", at, "r%d holds a %s, which is no memory that the function could use", at, v.typeName(r))
}

// constString checks a format or a name, which must be known when the program
// is loaded (check_reg_const_str).
func (v *verifier) constString(r *reg, at int) *Error {
	_, err := v.stringAt(r, at)
	return err
}

func (v *verifier) stringAt(r *reg, at int) ([]byte, *Error) {
	m := v.maps[r.obj]
	if m.Flags&mapReadOnlyProg == 0 || m.Contents == nil {
		return nil, v.fail("string-not-constant", at, "the string in r%d must lie in read-only data, and map %s can be written", at, m.Name)
	}
	if !r.IsConst() {
		return nil, v.fail("string-not-constant", at, "the address of the string in r%d is not constant", at)
	}
	off := int64(r.off) + int64(r.Bits.Value)
	if off < 0 || off >= int64(len(m.Contents)) {
		return nil, v.fail("out-of-bounds", at, "the string in r%d lies outside of map %s", at, m.Name)
	}
	s := m.Contents[off:]
	n := bytes.IndexByte(s, 0)
	if n < 0 {
		return nil, v.fail("string-unterminated", at, "the string in r%d has no end", at)
	}
	return s[:n], nil
}
