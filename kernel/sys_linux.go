//lint:file-ignore U1000 the kernel reads the fields of these structures

package kernel

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of bpf(2) (enum bpf_cmd, include/uapi/linux/bpf.h).
const (
	cmdMapCreate         = 0
	cmdMapLookup         = 1
	cmdMapUpdate         = 2
	cmdMapDelete         = 3
	cmdMapNextKey        = 4
	cmdProgLoad          = 5
	cmdObjPin            = 6
	cmdObjGet            = 7
	cmdProgAttach        = 8
	cmdProgDetach        = 9
	cmdProgTestRun       = 10
	cmdObjInfo           = 15
	cmdRawTracepointOpen = 17
	cmdBTFLoad           = 18
	cmdBTFFDByID         = 19
	cmdMapFreeze         = 22
	cmdBTFNextID         = 23
	cmdMapLookupBatch    = 24
	cmdLinkCreate        = 28
	cmdLinkUpdate        = 29
	cmdEnableStats       = 32
	cmdIterCreate        = 33
	cmdTokenCreate       = 36
)

// Flags of bpf(2).
const (
	flagSleepable  = 1 << 4  // BPF_F_SLEEPABLE, of programs
	flagXDPFrags   = 1 << 5  // BPF_F_XDP_HAS_FRAGS, of programs
	flagTokenFD    = 1 << 16 // BPF_F_TOKEN_FD, of all that takes a token
	flagNUMANode   = 1 << 2  // BPF_F_NUMA_NODE, of maps
	flagRDOnlyProg = 1 << 7  // BPF_F_RDONLY_PROG, of maps
	flagMmapable   = 1 << 10 // BPF_F_MMAPABLE, of maps
	flagUpdateAny  = 0       // BPF_ANY, of updates
)

// errNotSupp is the kernel's own ENOTSUPP (include/linux/errno.h), which user
// space is not meant to see and does.
const errNotSupp = unix.Errno(524)

const objNameLen = 16 // BPF_OBJ_NAME_LEN, with the final zero

// The structures below are the members of union bpf_attr. Pointers are held as
// pointers so that what they point to lives, and does not move, as long as the
// structure does: all machines that skep knows have 64-bit ones.

type attrMapCreate struct {
	typ, keySize, valueSize, maxEntries, flags uint32
	innerFD, numaNode                          uint32
	name                                       [objNameLen]byte
	ifindex                                    uint32
	btfFD, keyType, valueType, vmlinuxType     uint32
	extra                                      uint64
	valueTypeObjFD, tokenFD                    int32
}

type attrMapElem struct {
	fd    uint32
	_     uint32
	key   unsafe.Pointer
	value unsafe.Pointer // or the next key
	flags uint64
}

type attrMapBatch struct {
	in, out, keys, values unsafe.Pointer
	count, fd             uint32
	elemFlags, flags      uint64
}

type attrProgLoad struct {
	typ, insnCount              uint32
	insns, license              unsafe.Pointer
	logLevel, logSize           uint32
	log                         unsafe.Pointer
	kernVersion, flags          uint32
	name                        [objNameLen]byte
	ifindex, attachType         uint32
	btfFD, funcInfoSize         uint32
	funcInfo                    unsafe.Pointer
	funcInfoCount, lineInfoSize uint32
	lineInfo                    unsafe.Pointer
	lineInfoCount, attachBTFID  uint32
	attachFD, coreCount         uint32 // attachFD is a program or a module's BTF
	fdArray, core               unsafe.Pointer
	coreSize, logTrueSize       uint32
	tokenFD                     int32
	_                           uint32
}

type attrBTFLoad struct {
	btf, log                unsafe.Pointer
	size, logSize, logLevel uint32
	logTrueSize, flags      uint32
	tokenFD                 int32
}

type attrObj struct {
	path      unsafe.Pointer
	fd, flags uint32
	pathFD    int32
	_         uint32
}

type attrAttach struct {
	target, prog, typ, flags, replace, relative uint32
	revision                                    uint64
}

type attrTestRun struct {
	prog, retval          uint32
	dataSize, dataSizeOut uint32
	data, dataOut         unsafe.Pointer
	repeat, duration      uint32
	ctxSize, ctxSizeOut   uint32
	ctx, ctxOut           unsafe.Pointer
	flags, cpu, batch     uint32
	_                     uint32
}

type attrInfo struct {
	fd, size uint32
	info     unsafe.Pointer
}

type attrRawTracepoint struct {
	name   unsafe.Pointer
	prog   uint32
	_      uint32
	cookie uint64
}

// attrLink is BPF_LINK_CREATE; what follows the first four depends on the kind.
type attrLink struct {
	prog, target, typ, flags uint32
	kind                     [48]byte
}

type attrLinkPerf struct {
	prog, target, typ, flags uint32
	cookie                   uint64
}

type attrLinkTracing struct {
	prog, target, typ, flags uint32
	btfID, _                 uint32
	cookie                   uint64
}

type attrLinkIter struct {
	prog, target, typ, flags uint32
	info                     unsafe.Pointer
	size, _                  uint32
}

type attrLinkKprobes struct {
	prog, target, typ, flags uint32
	multiFlags, count        uint32
	syms, addrs, cookies     unsafe.Pointer
}

type attrLinkUprobes struct {
	prog, target, typ, flags         uint32
	path, offsets, counters, cookies unsafe.Pointer
	count, multiFlags, pid, _        uint32
}

type attrLinkNetfilter struct {
	prog, target, typ, flags uint32
	family, hook             uint32
	priority                 int32
	nfFlags                  uint32
}

type attrLinkUpdate struct {
	link, prog, flags, old uint32
}

type attrID struct {
	id, next, flags uint32
}

type attrToken struct {
	flags, bpffs uint32
}

// sysBPF is bpf(2). It tries again when a signal made the verifier give up.
func sysBPF[T any](cmd uintptr, attr *T) (int, error) {
	for range 30 {
		r, _, errno := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		switch {
		case errno == 0:
			runtime.KeepAlive(attr)
			return int(r), nil
		case errno == unix.EINTR, errno == unix.EAGAIN && cmd == cmdProgLoad:
			continue
		}
		return -1, errno
	}
	return -1, unix.EAGAIN
}

// ptr is the address of a slice's first element, nil for an empty one.
func ptr[T any](s []T) unsafe.Pointer {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Pointer(&s[0])
}

// cstring is the address of a zero-terminated copy of s.
func cstring(s string) (unsafe.Pointer, error) {
	b, err := unix.ByteSliceFromString(s)
	if err != nil {
		return nil, errors.New("a name with a zero byte in it")
	}
	return ptr(b), nil
}

// objName is a name as the kernel takes it: the first 15 bytes, with what is
// neither letter, digit, dot nor underscore replaced.
func objName(s string) (name [objNameLen]byte) {
	for i := 0; i < len(s) && i < objNameLen-1; i++ {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_':
		default:
			c = '_'
		}
		name[i] = c
	}
	return name
}
