package vm_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

// loadKernel loads instructions as they are; package ebpf's assembler cannot write
// all of them.
func loadKernel(typ abi.ProgType, insns []isa.Instruction, fds map[int32]int) (*ebpf.Program, string, error) {
	for i := range insns {
		if in := insns[i]; in.IsWide() && in.Src == isa.PseudoMapFD {
			insns[i] = isa.LoadMapFD(in.Dst, int32(fds[in.Low()]))
		}
	}
	code, err := isa.Encode(nil, binary.NativeEndian, insns)
	if err != nil {
		return nil, "", err
	}
	licence := []byte("GPL\x00")
	log := make([]byte, 64<<10)
	attr := struct {
		typ, count      uint32
		insns, licence  uint64
		level, size     uint32
		log             uint64
		version, flags  uint32
		name            [16]byte
		ifindex, attach uint32
	}{
		typ: uint32(typ), count: uint32(len(code) / 8),
		insns: uint64(uintptr(unsafe.Pointer(&code[0]))), licence: uint64(uintptr(unsafe.Pointer(&licence[0]))),
	}
	switch typ {
	case abi.ProgXDP:
		attr.attach = uint32(abi.AttachXDP)
	case abi.ProgSyscall:
		attr.flags = 1 << 4 // BPF_F_SLEEPABLE
	}
	for _, level := range []uint32{0, 1} {
		if attr.level = level; level > 0 {
			attr.log, attr.size = uint64(uintptr(unsafe.Pointer(&log[0]))), uint32(len(log))
		}
		fd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
		if e == 0 {
			p, err := ebpf.NewProgramFromFD(int(fd))
			return p, "", err
		}
		err = e
	}
	runtime.KeepAlive(code)
	runtime.KeepAlive(licence)
	lines := strings.Split(strings.TrimRight(string(log[:max(0, bytes.IndexByte(log, 0))]), "\n"), "\n")
	return nil, strings.Join(lines[max(0, len(lines)-4):], "\n"), err
}

// randomTypes are the types that BPF_PROG_TEST_RUN serves.
var randomTypes = []abi.ProgType{abi.ProgXDP, abi.ProgSchedCls, abi.ProgSocketFilter, abi.ProgRawTracepoint, abi.ProgSyscall}

// Random programs return, write and leave in maps what they do in the kernel.
// SKEP_VM_PROGRAMS and SKEP_VM_SEED run more of them, and others.
func TestRandomProgramsLikeKernel(t *testing.T) {
	n, seed := 80, uint64(1)
	if s := os.Getenv("SKEP_VM_PROGRAMS"); s != "" {
		n, _ = strconv.Atoi(s)
		seed = uint64(time.Now().UnixNano())
	}
	if s := os.Getenv("SKEP_VM_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	for _, typ := range randomTypes {
		for _, interpret := range []bool{true, false} {
			name := "jit"
			if interpret {
				name = "interp"
			}
			t.Run(typ.String()+"/"+name, func(t *testing.T) { randomLikeKernel(t, typ, vm.Options{Interpret: interpret}, n, seed) })
		}
	}
}

func randomLikeKernel(t *testing.T, typ abi.ProgType, o vm.Options, n int, seed uint64) {
	maps := map[string]*ebpf.MapSpec{
		"array": {Name: "array", Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 4},
		"hash":  {Name: "hash", Type: ebpf.Hash, KeySize: 4, ValueSize: 16, MaxEntries: 4},
	}
	onCPU0(t)
	p := loadSpecs(t, &ebpf.CollectionSpec{Maps: maps}, o)
	fds := map[int32]int{genArray: p.kernel.Maps["array"].FD(), genHash: p.kernel.Maps["hash"].FD()}
	user := map[int32]*vm.Map{genArray: p.user.Maps["array"], genHash: p.user.Maps["hash"]}
	inputs := rand.New(rand.NewPCG(seed, 7))
	refused, reasons := 0, map[string]int{}
	for i := range n {
		insns := generate(rand.New(rand.NewPCG(seed, uint64(i))), typ, 5+i%60)
		attach := abi.AttachType(0)
		if typ == abi.ProgXDP {
			attach = abi.AttachXDP
		}
		u, err := p.vm.NewProgramFromCode(vm.Code{Name: "random", Type: typ, Attach: attach, Insns: insns, Maps: user}, nil)
		if err != nil {
			t.Fatalf("program %d of seed %d: %v", i, seed, err)
		}
		text := isa.Sprint(insns)
		k, log, err := loadKernel(typ, insns, fds)
		if err != nil {
			refused++
			last := log[strings.LastIndexByte(log[:max(0, strings.LastIndex(log, "\nprocessed"))], '\n')+1:]
			reasons[strings.Join(strings.Fields(last)[:min(4, len(strings.Fields(last)))], " ")]++
			u.Close()
			continue
		}
		random := func(b []byte, n int) []byte {
			for len(b) < n {
				b = append(b, byte(inputs.Uint32()))
			}
			return b
		}
		p.kernel.Programs, p.user.Programs = map[string]*ebpf.Program{"random": k}, map[string]*vm.Program{"random": u}
		switch typ {
		case abi.ProgXDP:
			p.run(t, "random", random(ethernet(0x0800), 80), nil)
		case abi.ProgSchedCls, abi.ProgSocketFilter:
			p.run(t, "random", random(ethernet(0x0800), 80), make([]byte, 192))
		default:
			p.runContext(t, "random", random(nil, genArgs))
		}
		p.sameMaps(t, "array", "hash")
		k.Close()
		u.Close()
		p.kernel.Programs, p.user.Programs = nil, nil
		if t.Failed() {
			t.Fatalf("program %d of seed %d:\n%s", i, seed, text)
		}
	}
	t.Logf("%d programs of seed %d on %s, %d refused by the kernel: %v", n-refused, seed, p.vm.EngineName(), refused, reasons)
	if refused > n/10 {
		t.Errorf("the kernel refuses too many")
	}
}
