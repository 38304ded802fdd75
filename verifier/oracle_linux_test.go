package verifier

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/isa"
)

// progLoadAttr is what BPF_PROG_LOAD takes, up to what is used here.
type progLoadAttr struct {
	progType, insnCount uint32
	insns, license      uint64
	logLevel, logSize   uint32
	logBuf              uint64
	kernVersion, flags  uint32
	name                [16]byte
	ifindex, attachType uint32
	progBTF, fiSize     uint32
	funcInfo            uint64
	fiCount, liSize     uint32
	lineInfo            uint64
	liCount, attachBTF  uint32
	attachProg          uint32
	coreCount           uint32
	fdArray             uint64
}

// An answer is what the kernel said of a program.
type answer struct {
	accepted bool
	errno    unix.Errno
	log      string
	category Category // of a rejection; "" if the log names none that is known
	pattern  string   // of the message by which the category is known
	insn     int
	ns       int
	insns    int
	result   uint32 // of a run
}

// kernelOracle loads programs for their verdict.
type kernelOracle struct {
	maps   map[string]*ebpf.Map
	logBuf []byte
	// logLevel is what is asked for: 1 for instructions, 4 for figures.
	logLevel uint32
	cpus     int // see processors
	// run has accepted socket filters run once, over a packet of zeros.
	run     bool
	fds     []int // of maps with types
	license []byte
	// most is how many instructions a program may take by our count to be asked
	// about; 0 is no limit. Guests have no hardware behind them.
	most int
}

func newOracle(t testing.TB) *kernelOracle {
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	o := &kernelOracle{maps: map[string]*ebpf.Map{}, logBuf: make([]byte, 16<<20), logLevel: 5}
	t.Cleanup(func() {
		for _, m := range o.maps {
			m.Close()
		}
		for _, fd := range o.fds {
			unix.Close(fd)
		}
	})
	return o
}

func (o *kernelOracle) mapFD(m *Map, types *btf.Handle, p *Program) (int, error) {
	if types != nil && m.Value != nil && len(p.Locals) > 0 {
		return o.typedMap(m, types, p)
	}
	key := fmt.Sprintf("%v %d %d %d %d %x %v", m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags, m.Contents, m.Inner != nil)
	if m.Value != nil {
		key += m.Value.TypeName() + m.Value.(*btf.Struct).Members[1].Type.TypeName()
	}
	if have := o.maps[key]; have != nil {
		return have.FD(), nil
	}
	spec := &ebpf.MapSpec{
		Name: "skep_verifier", Type: ebpf.MapType(m.Type), KeySize: m.KeySize, ValueSize: m.ValueSize,
		MaxEntries: m.MaxEntries, Flags: m.Flags,
	}
	if m.Value != nil {
		spec.Value = m.Value
		spec.Key = &btf.Int{Name: "unsigned int", Size: m.KeySize}
	}
	if m.Inner != nil {
		spec.InnerMap = &ebpf.MapSpec{Type: ebpf.MapType(m.Inner.Type), KeySize: m.Inner.KeySize, ValueSize: m.Inner.ValueSize, MaxEntries: m.Inner.MaxEntries}
	}
	if m.Contents != nil {
		spec.Contents = []ebpf.MapKV{{Key: uint32(0), Value: m.Contents}}
	}
	km, err := ebpf.NewMap(spec)
	if err != nil {
		return 0, fmt.Errorf("map %s: %w", m.Name, err)
	}
	if m.Contents != nil {
		if err := km.Freeze(); err != nil {
			return 0, err
		}
	}
	o.maps[key] = km
	return km.FD(), nil
}

// capBPF is CAP_BPF in the high word of a set.
var nativeOrder = binary.NativeEndian

const capBPF = 1 << (39 - 32)

// withCaps calls f on a thread that has only what c lets it have.
func withCaps(c Caps, f func()) error {
	if c == CapsAll {
		f()
		return nil
	}
	errc := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&hdr, &data[0])
		if err == nil {
			data[0].Effective, data[1].Effective = 0, 0
			if c == CapsBPF {
				data[1].Effective = capBPF
			}
			err = unix.Capset(&hdr, &data[0])
		}
		if err == nil {
			f()
		}
		errc <- err
	}()
	return <-errc
}

// mapCreateAttr is what BPF_MAP_CREATE takes, up to what is used here.
type mapCreateAttr struct {
	mapType, keySize, valueSize, maxEntries, flags, innerFD, numaNode uint32
	name                                                              [16]byte
	ifindex, btfFD, keyType, valueType                                uint32
}

// typedMap makes a map whose value's type is in the program's own BTF, as that
// of lists and trees has to be. It lives as long as the test.
func (o *kernelOracle) typedMap(m *Map, types *btf.Handle, p *Program) (int, error) {
	attr := mapCreateAttr{
		mapType: uint32(m.Type), keySize: m.KeySize, valueSize: m.ValueSize, maxEntries: m.MaxEntries, flags: m.Flags,
		btfFD: uint32(types.FD()),
	}
	for id, t := range p.Locals {
		if t == m.Value {
			attr.valueType = id
		}
		if i, ok := t.(*btf.Int); ok && i.Size == 4 {
			attr.keyType = id
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return 0, fmt.Errorf("map %s: %w", m.Name, errno)
	}
	o.fds = append(o.fds, int(fd))
	return int(fd), nil
}

// kernelID returns the id of a thing in the kernel's BTF.
func (o *kernelOracle) kernelID(name string, t btf.Type) (uint32, error) {
	types, err := kernelSpec()
	if err != nil {
		return 0, err
	}
	switch t := t.(type) {
	case *btf.Func:
		err = types.TypeByName(name, &t)
		if err != nil {
			return 0, err
		}
		id, err := types.TypeID(t)
		return uint32(id), err
	case *btf.Typedef:
		if err := types.TypeByName(name, &t); err != nil {
			return 0, err
		}
		id, err := types.TypeID(t)
		return uint32(id), err
	}
	return 0, fmt.Errorf("%s is nothing that programs name", name)
}

// programBTF makes the BTF of a program, with its functions.
func programBTF(p *Program) (h *btf.Handle, infos []uint32, err error) {
	if len(p.Funcs) == 0 && len(p.Locals) == 0 {
		return nil, nil, nil
	}
	var structs []*btf.Struct
	for id := uint32(1); p.Locals[id] != nil; id++ {
		if s, ok := p.Locals[id].(*btf.Struct); ok {
			structs = append(structs, s)
		}
	}
	b, _, err := corpusBTF(structs)
	if err != nil {
		return nil, nil, err
	}
	if len(structs) > 0 {
		id, err := b.Add(corpusU32)
		if err != nil {
			return nil, nil, err
		}
		p.Locals[uint32(id)] = corpusU32
	}
	for _, f := range p.Funcs {
		id, err := b.Add(f.Type)
		if err != nil {
			return nil, nil, err
		}
		infos = append(infos, uint32(f.Start), uint32(id))
	}
	h, err = btf.NewHandle(b)
	return h, infos, err
}

func (o *kernelOracle) load(p *Program, c Caps, flags uint32) (*answer, error) {
	types, infos, err := programBTF(p)
	if err != nil {
		return nil, err
	}
	if types != nil {
		defer types.Close()
	}
	insns := append([]isa.Instruction(nil), p.Insns...)
	fds := map[int32]int{}
	for i := range insns {
		in := &insns[i]
		if in.IsCall() && in.Src == isa.CallKernel {
			id, err := o.kernelID(p.Kfuncs[-1-in.Imm].Name, &btf.Func{})
			if err != nil {
				return nil, err
			}
			in.Imm = int64(id)
		}
		if !in.IsWide() || in.Src != isa.PseudoMapFD && in.Src != isa.PseudoMapValue {
			continue
		}
		fd, ok := fds[in.Low()]
		if !ok {
			if fd, err = o.mapFD(p.Maps[in.Low()], types, p); err != nil {
				return nil, err
			}
			fds[in.Low()] = fd
		}
		in.Imm = in.Imm&^0xffffffff | int64(fd)
	}
	code, err := isa.Encode(nil, nativeOrder, insns)
	if err != nil {
		return nil, err
	}
	return o.loadRaw(code, p, types, infos, c, flags)
}

func (o *kernelOracle) loadRaw(code []byte, p *Program, types *btf.Handle, infos []uint32, c Caps, flags uint32) (*answer, error) {
	// The kernel's view of it must not move with this goroutine's stack.
	o.license = append([]byte(p.License), 0)
	license := o.license
	if p.Sleepable {
		flags |= unix.BPF_F_SLEEPABLE
	}
	attr := progLoadAttr{
		progType: uint32(p.Type), insnCount: uint32(len(code) / 8), insns: uint64(uintptr(unsafe.Pointer(&code[0]))),
		license: uint64(uintptr(unsafe.Pointer(&license[0]))), logLevel: o.logLevel, logSize: uint32(len(o.logBuf)),
		logBuf: uint64(uintptr(unsafe.Pointer(&o.logBuf[0]))), attachType: uint32(p.Attach), flags: flags,
	}
	if types != nil {
		attr.progBTF, attr.fiSize, attr.fiCount = uint32(types.FD()), 8, uint32(len(p.Funcs))
		attr.funcInfo = uint64(uintptr(unsafe.Pointer(&infos[0])))
	}
	if p.AttachTo != "" {
		name, kind := p.AttachTo, btf.Type(&btf.Func{})
		switch p.Attach {
		case abi.AttachTraceRawTp:
			name, kind = "btf_trace_"+name, &btf.Typedef{}
		case abi.AttachTraceIter:
			name = "bpf_iter_" + name
		case abi.AttachLSMMac:
			name = "bpf_lsm_" + name
		}
		id, err := o.kernelID(name, kind)
		if err != nil {
			return nil, err
		}
		attr.attachBTF = id
	}
	o.logBuf[0] = 0
	a := &answer{insn: -1}
	var runErr error
	err := withCaps(c, func() {
		fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		for range 20 {
			if errno != unix.EAGAIN { // a signal of Go's scheduler came in between
				break
			}
			fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		}
		a.errno = errno
		if errno == 0 {
			a.accepted = true
			if o.run {
				a.result, runErr = testRun(int(fd))
				return
			}
			unix.Close(int(fd))
		}
	})
	runtime.KeepAlive(code)
	runtime.KeepAlive(infos)
	runtime.KeepAlive(license)
	if err == nil {
		err = runErr
	}
	if err != nil {
		return nil, err
	}
	n := bytes.IndexByte(o.logBuf, 0)
	a.log = string(o.logBuf[:max(n, 0)])
	if a.errno != 0 && a.log == "" && errors.Is(a.errno, unix.EPERM) {
		a.category = CatCapability
	}
	a.read()
	return a, nil
}

var logNumbers = regexp.MustCompile(`R\d+|fp-?\d*|-?(0x)?[0-9a-f]*\d[0-9a-f]*|'[^']*'|(map_value|map_ptr|ptr_|pkt|ctx|mem|scalar|inv)\w*`)

// message is what the kernel says was wrong, without the numbers.
func (a *answer) message() string {
	lines := strings.Split(strings.TrimSpace(a.log), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		l := lines[i]
		if l == "" || strings.HasPrefix(l, "verification time") || strings.HasPrefix(l, "stack depth") || strings.HasPrefix(l, "processed ") {
			continue
		}
		return logNumbers.ReplaceAllString(l, "N")
	}
	return a.errno.Error()
}

// testRun runs a program that was loaded, and closes it.
func testRun(fd int) (uint32, error) {
	p, err := ebpf.NewProgramFromFD(fd)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	return p.Run(&ebpf.RunOptions{Data: make([]byte, 64)})
}

var (
	logInsn  = regexp.MustCompile(`^(?:; .*)?(\d+): \([0-9a-f]{2}\)`)
	logTime  = regexp.MustCompile(`(?m)^verification time (\d+) usec`)
	logCount = regexp.MustCompile(`(?m)^processed (\d+) insns`)
	atInsn   = regexp.MustCompile(`insn (\d+)`)
)

// read takes from the log what was wrong, and where.
func (a *answer) read() {
	if m := logTime.FindStringSubmatch(a.log); m != nil {
		n, _ := strconv.Atoi(m[1])
		a.ns = n * 1000
	}
	if m := logCount.FindStringSubmatch(a.log); m != nil {
		a.insns, _ = strconv.Atoi(m[1])
	}
	if a.accepted {
		return
	}
	lines := strings.Split(a.log, "\n")
	for _, l := range lines {
		if m := logInsn.FindStringSubmatch(l); m != nil {
			a.insn, _ = strconv.Atoi(m[1])
		}
	}
	for i := len(lines) - 1; i >= 0; i-- {
		for _, m := range kernelMessages {
			if m.re.MatchString(lines[i]) {
				a.category, a.pattern = m.category, m.re.String()
				if m.insn {
					if n := atInsn.FindStringSubmatch(lines[i]); n != nil {
						a.insn, _ = strconv.Atoi(n[1])
					}
				}
				if m.whole {
					a.insn = -1
				}
				if !m.weak {
					return
				}
			}
		}
	}
}

var update = flag.Bool("update", false, "fill in instructions of the corpus that were left open")

// fillIn writes what the kernel named into the corpus.
func fillIn(t *testing.T, c *corpusCase, category Category, insn int) {
	text, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	at := c.expectLine - 1
	lines[at] = fmt.Sprintf("expect rejected %s %d", category, insn)
	if err := os.WriteFile(c.file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCorpusKernel has the live kernel judge the corpus too.
func TestCorpusKernel(t *testing.T) {
	o := newOracle(t)
	for _, c := range corpus(t) {
		if c.caps == CapsNone {
			continue // this kernel may not let those load anything
		}
		o.logLevel = 5
		if c.long {
			o.logLevel = 4
		}
		o.run = c.r0 != nil
		a, err := o.load(c.program, c.caps, 0)
		if err != nil {
			t.Errorf("%s: %v", c.where(), err)
			continue
		}
		if o.run && a.accepted && a.result != *c.r0 {
			t.Errorf("%s: it returns %d, not %d", c.where(), a.result, *c.r0)
		}
		tail := a.log
		if len(tail) > 700 {
			tail = "..." + tail[len(tail)-700:]
		}
		if c.open && *update && !a.accepted && a.category != "" && (a.category == c.category || c.category == "?") {
			c.category, c.insn = a.category, a.insn
			if e := Verify(c.program, configOf(t, o, c)).Err; a.insn < 0 && e != nil {
				c.insn = e.Insn // the kernel does not say where
			}
			fillIn(t, c, c.category, c.insn)
		}
		switch {
		case c.verdict == Unsupported:
		case a.accepted != (c.verdict == Accepted):
			t.Errorf("%s: the kernel accepts it: %v (%v), want %v\n%s", c.where(), a.accepted, a.errno, c.verdict, tail)
		case c.verdict == Rejected && (a.category != c.category || a.insn >= 0 && a.insn != c.insn):
			t.Errorf("%s: the kernel rejects it for %q at %d, want %s at %d\n%s", c.where(), a.category, a.insn, c.category, c.insn, tail)
		}
	}
}
