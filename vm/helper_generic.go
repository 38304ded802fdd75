package vm

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/skep-bpf/skep/vm/engine"
)

func init() {
	for id, f := range map[int32]helperFunc{
		4: probeRead(false), 45: probeReadStr(false),
		112: probeRead(true), 113: probeRead(false),
		114: probeReadStr(true), 115: probeReadStr(false),
		148: copyFromUser,
		36:  probeWriteUser,
		6:   tracePrintk, 177: traceVprintk,
		14: func(r *run) uint64 { p := r.vm.host.Process(); return uint64(p.TGID)<<32 | uint64(p.PID) },
		15: func(r *run) uint64 { p := r.vm.host.Process(); return uint64(p.GID)<<32 | uint64(p.UID) },
		16: currentComm,
		35: func(r *run) uint64 { return r.vm.host.Process().Task },
		80: func(r *run) uint64 { return r.vm.host.Process().CgroupID },
		93: spinLockHelper, 94: spinUnlockHelper,
		105: strtol(true), 106: strtol(false),
		130: ringOutput, 131: ringReserve, 132: ringEnd(true), 133: ringEnd(false), 134: ringQuery,
		164: forEachMapElem,
		165: snprintf,
		174: func(r *run) uint64 { return r.vm.host.Cookie() },
		181: loop,
		182: strncmp,
	} {
		helpers[id] = f
	}
}

// tracingHelpers are those of programs without a packet.
var tracingHelpers = map[int32]helperFunc{
	25:  perfOutput(nil),
	27:  stackID,
	67:  getStack,
	183: funcArg,
}

// readMemory reads what the host supplies; addresses below 2^32 are the vm's own
// for reads of the kernel's memory, as a program's pointers are.
func (r *run) readMemory(user bool, addr uint64, dst []byte) bool {
	if user {
		return r.vm.host.ReadUser(addr, dst)
	}
	if addr < 1<<32 {
		if addr < pageSize {
			return false // null, and what is near it
		}
		b, ok := r.bytes(addr, uint64(len(dst)))
		if ok {
			copy(dst, b)
		}
		return ok
	}
	return r.vm.host.ReadKernel(addr, dst)
}

func probeRead(user bool) helperFunc {
	return func(r *run) uint64 {
		dst, ok := r.bytes(r.arg(1), uint64(uint32(r.arg(2))))
		if !ok {
			return r.badMemory(1)
		}
		if !r.readMemory(user, r.arg(3), dst) {
			clear(dst)
			return EFAULT.result()
		}
		return 0
	}
}

func copyFromUser(r *run) uint64 {
	dst, ok := r.bytes(r.arg(1), uint64(uint32(r.arg(2))))
	if !ok {
		return r.badMemory(1)
	}
	if !r.readMemory(true, r.arg(3), dst) {
		clear(dst)
		return EFAULT.result()
	}
	return 0
}

// probeReadStr copies up to a zero, and returns the length with it.
func probeReadStr(user bool) helperFunc {
	return func(r *run) uint64 {
		dst, ok := r.bytes(r.arg(1), uint64(uint32(r.arg(2))))
		if !ok {
			return r.badMemory(1)
		}
		if len(dst) == 0 {
			return 0
		}
		var one [1]byte
		for i := range dst {
			if !r.readMemory(user, r.arg(3)+uint64(i), one[:]) {
				clear(dst)
				return EFAULT.result()
			}
			dst[i] = one[0]
			if one[0] == 0 {
				return uint64(i + 1)
			}
		}
		dst[len(dst)-1] = 0
		return uint64(len(dst))
	}
}

func probeWriteUser(r *run) uint64 {
	src, ok := r.bytes(r.arg(2), uint64(uint32(r.arg(3))))
	if !ok {
		return r.badMemory(2)
	}
	if !r.vm.host.WriteUser(r.arg(1), src) {
		return EPERM.result()
	}
	return 0
}

func currentComm(r *run) uint64 {
	dst, ok := r.bytes(r.arg(1), uint64(uint32(r.arg(2))))
	if !ok {
		return r.badMemory(1)
	}
	if len(dst) == 0 {
		return 0
	}
	clear(dst)
	copy(dst[:len(dst)-1], r.vm.host.Process().Comm)
	return 0
}

func spinLockHelper(r *run) uint64 {
	if r.held != nil {
		return r.giveUp(fmt.Errorf("a second lock is taken while one is held"))
	}
	l := r.vm.locks.at(uint32(r.arg(1)) & r.vm.cage.Mask())
	for !l.try(r.id) {
		r.charge(64)
		if r.interrupted() {
			return 0
		}
	}
	r.held = l
	return 0
}

func spinUnlockHelper(r *run) uint64 {
	if r.held != nil {
		r.held.release(r.id)
		r.held = nil
	}
	return 0
}

// strtol is bpf_strtol and bpf_strtoul: white space, a sign for the former, a
// base of 0, 8, 10 or 16; it returns how many bytes it read.
func strtol(signed bool) helperFunc {
	return func(r *run) uint64 {
		buf, ok := r.bytes(r.arg(1), r.arg(2))
		if !ok {
			return r.badMemory(1)
		}
		to, ok := r.bytes(r.arg(4), 8)
		if !ok {
			return r.badMemory(4)
		}
		clear(to)
		flags := r.arg(3)
		base := flags & 0x1f
		if len(buf) == 0 || base != 0 && base != 8 && base != 10 && base != 16 || flags&^0x1f != 0 {
			return EINVAL.result()
		}
		i := 0
		for i < len(buf) && strings.IndexByte(" \t\n\v\f\r", buf[i]) >= 0 {
			i++
		}
		negative := signed && i < len(buf) && buf[i] == '-'
		if negative {
			i++
		}
		if i == len(buf) {
			return EINVAL.result()
		}
		hex := i+1 < len(buf) && buf[i] == '0' && buf[i+1]|0x20 == 'x'
		if base == 0 {
			switch {
			case hex && i+2 < len(buf) && digit(buf[i+2]) < 16:
				base = 16
			case buf[i] == '0':
				base = 8
			default:
				base = 10
			}
		}
		if base == 16 && hex {
			i += 2
		}
		start, n := i, uint64(0)
		for ; i < len(buf) && digit(buf[i]) < base; i++ {
			if n > (math.MaxUint64-digit(buf[i]))/base {
				return ERANGE.result()
			}
			n = n*base + digit(buf[i])
		}
		if i == start {
			return EINVAL.result()
		}
		if signed {
			if negative && n > 1<<63 || !negative && n > math.MaxInt64 {
				return ERANGE.result()
			}
			if negative {
				n = -n
			}
		}
		native.PutUint64(to, n)
		return uint64(i)
	}
}

func digit(c byte) uint64 {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return uint64(c|0x20-'a') + 10
	}
	return 99
}

func strncmp(r *run) uint64 {
	a, ok := r.bytes(r.arg(1), uint64(uint32(r.arg(2))))
	if !ok {
		return r.badMemory(1)
	}
	b, ok := r.cString(r.arg(3))
	if !ok {
		return r.badMemory(3)
	}
	b = append(b[:len(b):len(b)], 0)
	for i := range a {
		if i >= len(b) {
			break
		}
		if a[i] != b[i] {
			if a[i] < b[i] {
				return math.MaxUint64
			}
			return 1
		}
		if a[i] == 0 {
			break
		}
	}
	return 0
}

// maxString bounds the strings that helpers read.
const maxString = 4096

// cString returns the bytes up to a zero.
func (r *run) cString(addr uint64) ([]byte, bool) {
	at := uint32(addr) & r.vm.cage.Mask()
	b, ok := r.vm.cage.Bytes(at, min(maxString, r.vm.cage.Size()-int(at)))
	if !ok {
		return nil, false
	}
	n := bytes.IndexByte(b, 0)
	if n < 0 {
		return nil, false
	}
	return b[:n], true
}

// loop is bpf_loop.
func loop(r *run) uint64 {
	n, fn, arg := uint32(r.arg(1)), int(r.arg(2)), r.arg(3)
	if r.arg(4) != 0 {
		return EINVAL.result()
	}
	if n > engine.MaxLoops {
		// The kernel inlines the helper, and its inlined form gives 32 bits.
		return uint64(uint32(E2BIG.result()))
	}
	for i := range n {
		r.charge(1)
		v, ok := r.callback(fn, uint64(i), arg)
		if !ok || r.interrupted() {
			return 0
		}
		if v != 0 {
			return uint64(i) + 1
		}
	}
	return uint64(n)
}

// forEachMapElem is bpf_for_each_map_elem. The callback gets a copy of the key.
func forEachMapElem(r *run) uint64 {
	m := r.vm.mapAt(r.arg(1))
	if m == nil {
		return r.badMap(1)
	}
	fn, arg := int(r.arg(2)), r.arg(3)
	if r.arg(4) != 0 {
		return EINVAL.result()
	}
	handle := r.arg(1)
	count := uint64(0)
	key, err := r.keySpace(m.keySize)
	if err != 0 {
		return err.result()
	}
	defer r.dropKeySpace(key)
	step := func(k []byte, value uint32) bool {
		b, _ := r.vm.cage.Bytes(key, m.keySize)
		copy(b, k)
		r.charge(1)
		count++
		v, ok := r.callback(fn, handle, uint64(key), uint64(value), arg)
		return ok && !r.interrupted() && v == 0
	}
	switch t := m.table.(type) {
	case *arrayTable:
		for i := range t.n {
			if !step(native.AppendUint32(nil, i), t.address(r.cpu, i)) {
				break
			}
		}
	case *hashTable:
		t.each(func(k []byte, e uint32) bool { return step(k, t.address(r.cpu, e)) })
	default:
		return EINVAL.result()
	}
	return count
}

// keySpace is memory for a key that callbacks see; they nest.
func (r *run) keySpace(n int) (uint32, Errno) {
	addr, err := r.vm.cage.Alloc(n)
	if err != nil {
		return 0, ENOMEM
	}
	return addr, 0
}

func (r *run) dropKeySpace(addr uint32) { r.vm.cage.Free(addr) }

func tracePrintk(r *run) uint64 {
	format, ok := r.bytes(r.arg(1), uint64(uint32(r.arg(2))))
	if !ok || len(format) == 0 {
		return EINVAL.result()
	}
	args := []uint64{r.arg(3), r.arg(4), r.arg(5)}
	text, e := r.format(string(bytes.TrimRight(format, "\x00")), args)
	if e != 0 {
		return e.result()
	}
	r.vm.host.Print(text)
	return uint64(len(text))
}

func traceVprintk(r *run) uint64 {
	format, ok := r.bytes(r.arg(1), uint64(uint32(r.arg(2))))
	if !ok || len(format) == 0 {
		return EINVAL.result()
	}
	args, e := r.words(3, 4)
	if e != 0 {
		return e.result()
	}
	text, e := r.format(string(bytes.TrimRight(format, "\x00")), args)
	if e != 0 {
		return e.result()
	}
	r.vm.host.Print(text)
	return uint64(len(text))
}

// words returns the arguments that a pointer and a length in bytes give.
func (r *run) words(ptr, length int) ([]uint64, Errno) {
	n := uint32(r.arg(length))
	if n%8 != 0 || n > 12*8 || n != 0 && r.arg(ptr) == 0 {
		return nil, EINVAL
	}
	b, ok := r.bytes(r.arg(ptr), uint64(n))
	if !ok {
		r.badMemory(ptr)
		return nil, EFAULT
	}
	var list []uint64
	for ; len(b) >= 8; b = b[8:] {
		list = append(list, native.Uint64(b))
	}
	return list, 0
}

func snprintf(r *run) uint64 {
	n := uint32(r.arg(2))
	dst, ok := r.bytes(r.arg(1), uint64(n))
	if !ok {
		return r.badMemory(1)
	}
	format, ok := r.cString(r.arg(3))
	if !ok {
		return r.badMemory(3)
	}
	args, e := r.words(4, 5)
	if e != 0 {
		return e.result()
	}
	text, e := r.format(string(format), args)
	if e != 0 {
		return e.result()
	}
	if n > 0 {
		dst[copy(dst[:n-1], text)] = 0
	}
	return uint64(len(text)) + 1
}

// format is the kernel's printf for programs (bpf_bprintf_prepare in
// kernel/bpf/helpers.c): the conversions d i u x X s c p with their sizes, widths
// and the flags 0 and -, and %%. Errors are those of a bad format.
func (r *run) format(format string, args []uint64) (string, Errno) {
	var b strings.Builder
	next := 0
	for i := 0; i < len(format); i++ {
		c := format[i]
		if c >= 0x80 || c < ' ' && !strings.ContainsRune("\t\n\v\f\r", rune(c)) {
			return "", EINVAL
		}
		if c != '%' {
			b.WriteByte(c)
			continue
		}
		i++
		if i == len(format) {
			return "", EINVAL
		}
		if format[i] == '%' {
			b.WriteByte('%')
			continue
		}
		start := i
		for i < len(format) && strings.IndexByte("0+- #", format[i]) >= 0 {
			i++
		}
		flags := format[start:i]
		start = i
		for i < len(format) && format[i] >= '0' && format[i] <= '9' {
			i++
		}
		width, _ := strconv.Atoi(format[start:i])
		if width > 256 || next >= len(args) || i == len(format) {
			return "", EINVAL
		}
		v := args[next]
		next++
		var text string
		size := 0
		for i < len(format) && format[i] == 'l' {
			size++
			i++
		}
		if i == len(format) || size > 2 {
			return "", EINVAL
		}
		if size == 0 && strings.IndexByte("diuxX", format[i]) >= 0 {
			if strings.IndexByte("di", format[i]) >= 0 {
				v = uint64(int64(int32(v)))
			} else {
				v = uint64(uint32(v))
			}
		}
		switch format[i] {
		case 'd', 'i':
			text = strconv.FormatInt(int64(v), 10)
			if strings.Contains(flags, "+") && int64(v) >= 0 {
				text = "+" + text
			}
		case 'u':
			text = strconv.FormatUint(v, 10)
		case 'x', 'X':
			text = strconv.FormatUint(v, 16)
			if format[i] == 'X' {
				text = strings.ToUpper(text)
			}
			if strings.Contains(flags, "#") && v != 0 {
				text = "0" + string(format[i]) + text
			}
		case 'c':
			text = string([]byte{byte(v)})
		case 's':
			text = r.stringAt(v, false)
		case 'p':
			switch {
			case strings.HasPrefix(format[i+1:], "ks"):
				text, i = r.stringAt(v, false), i+2
			case strings.HasPrefix(format[i+1:], "us"):
				text, i = r.stringAt(v, true), i+2
			case strings.HasPrefix(format[i+1:], "x"), strings.HasPrefix(format[i+1:], "K"):
				text, i = fmt.Sprintf("%016x", v), i+1
			default:
				text = fmt.Sprintf("%016x", v)
			}
		default:
			return "", EINVAL
		}
		pad := " "
		if strings.Contains(flags, "0") && !strings.Contains(flags, "-") && strings.IndexByte("diuxX", format[i]) >= 0 {
			pad = "0"
		}
		if n := width - len(text); n > 0 {
			switch {
			case strings.Contains(flags, "-"):
				text += strings.Repeat(" ", n)
			case pad == "0" && (strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+")):
				text = text[:1] + strings.Repeat(pad, n) + text[1:]
			default:
				text = strings.Repeat(pad, n) + text
			}
		}
		b.WriteString(text)
	}
	return b.String(), 0
}

// stringAt reads a string of up to 512 bytes, or nothing.
func (r *run) stringAt(addr uint64, user bool) string {
	var b []byte
	var one [1]byte
	for len(b) < 511 && r.readMemory(user, addr+uint64(len(b)), one[:]) && one[0] != 0 {
		b = append(b, one[0])
	}
	return string(b)
}

// funcArg is bpf_get_func_arg: the arguments of fentry and fexit programs are
// the words of their context, whose number stands before them.
func funcArg(r *run) uint64 {
	to, ok := r.bytes(r.arg(3), 8)
	if !ok {
		return r.badMemory(3)
	}
	n := uint32(r.arg(2))
	if n >= 12 {
		return EINVAL.result()
	}
	from, ok := r.bytes(r.arg(1)+uint64(n)*8, 8)
	if !ok {
		return r.badMemory(1)
	}
	copy(to, from)
	return 0
}

// getStack is bpf_get_stack: addresses of 8 bytes, innermost first.
func getStack(r *run) uint64 {
	const skipMask, userStack = 0xff, 1 << 8
	buf, ok := r.bytes(r.arg(2), uint64(uint32(r.arg(3))))
	if !ok {
		return r.badMemory(2)
	}
	flags := r.arg(4)
	if flags&^(skipMask|userStack|1<<11) != 0 || len(buf)%8 != 0 {
		clear(buf)
		return EINVAL.result()
	}
	stack := r.vm.host.Stack(flags&userStack != 0)
	stack = stack[min(len(stack), int(flags&skipMask)):]
	n := 0
	for _, pc := range stack {
		if n+8 > len(buf) {
			break
		}
		native.PutUint64(buf[n:], pc)
		n += 8
	}
	clear(buf[n:])
	return uint64(n)
}
