package vm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/vm"
)

// A helperProgram is written call by call: each puts its arguments into r1 to r5,
// and its result at the end of the program's 64 results on the stack.
type helperProgram struct {
	insns   []isa.Instruction
	results int16
}

// Arguments of helperProgram.call besides numbers.
type (
	stackAt int32 // an address on the stack, below r10
	mapAt   int32
	ctxArg  struct{} // the context
)

const resultsAt = -512

func (p *helperProgram) call(helper int32, args ...any) {
	for i, arg := range args {
		reg := isa.R1 + isa.Register(i)
		switch a := arg.(type) {
		case int:
			p.insns = append(p.insns, isa.LoadImm64(reg, int64(a)))
		case stackAt:
			p.insns = append(p.insns, isa.Mov64(reg, isa.R10), isa.ALU64Imm(isa.Add, reg, int32(a)))
		case mapAt:
			p.insns = append(p.insns, isa.LoadMapFD(reg, int32(a)))
		case ctxArg:
			p.insns = append(p.insns, isa.Mov64(reg, isa.R6))
		case isa.Register:
			p.insns = append(p.insns, isa.Mov64(reg, a))
		}
	}
	p.insns = append(p.insns, isa.Call(helper), isa.StoreMem(isa.Double, isa.R10, resultsAt+8*p.results, isa.R0))
	p.results++
}

// run runs the program and returns the results of its calls, and what the run left.
func (p *helperProgram) run(t *testing.T, v *vm.VM, typ abi.ProgType, maps map[int32]*vm.Map, in vm.RunOptions) ([]int64, vm.Result) {
	t.Helper()
	out := newMap(t, v, ebpf.MapSpec{Name: "out", Type: ebpf.Array, KeySize: 4, ValueSize: 256, MaxEntries: 1})
	all := map[int32]*vm.Map{99: out}
	for fd, m := range maps {
		all[fd] = m
	}
	insns := slices.Concat([]isa.Instruction{isa.Mov64(isa.R6, isa.R1)}, p.insns, []isa.Instruction{
		isa.StoreImm(isa.Word, isa.R10, -4, 0), isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, -4), isa.LoadMapFD(isa.R1, 99),
		isa.Mov64(isa.R3, isa.R10), isa.ALU64Imm(isa.Add, isa.R3, resultsAt), isa.Mov64Imm(isa.R4, 0), isa.Call(2),
		isa.Mov64Imm(isa.R0, 1), isa.Exit(),
	})
	prog, err := v.NewProgramFromCode(vm.Code{Name: "test", Type: typ, Insns: insns, Maps: all}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	res, err := prog.RunContext(t.Context(), &in)
	if err != nil {
		t.Fatal(err)
	}
	b, err := out.LookupBytes(uint32(0))
	if err != nil {
		t.Fatal(err)
	}
	list := make([]int64, p.results)
	for i := range list {
		list[i] = int64(binary.NativeEndian.Uint64(b[8*i:]))
	}
	return list, res
}

func wantResults(t *testing.T, got []int64, want ...int64) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("results %d, want %d", got, want)
	}
}

func TestSockets(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		var asked []vm.SocketQuery
		listener := &vm.Socket{Family: 2, SrcPort: 80, State: 10, Cookie: 7}
		o.Host.LookupSocket = func(q vm.SocketQuery) *vm.Socket {
			if asked = append(asked, q); q.TCP {
				return listener
			}
			return nil
		}
		o.Host.Socket = func() *vm.Socket { return &vm.Socket{Cookie: 42, UID: 1000} }
		v := newVM(t, o)
		var p helperProgram
		for i := range int16(5) {
			p.insns = append(p.insns, isa.StoreImm(isa.Double, isa.R10, -40+8*i, 0x01010101*int32(i+1)))
		}
		p.call(46, ctxArg{})
		p.call(47, ctxArg{})
		p.call(122, ctxArg{})
		p.call(85, ctxArg{}, stackAt(-40), 12, -1, 0) // UDP: none
		p.call(84, ctxArg{}, stackAt(-40), 13, -1, 0) // no such tuple
		p.call(84, ctxArg{}, stackAt(-40), 12, -1, 1) // no such flag
		p.call(84, ctxArg{}, stackAt(-40), 36, 3, 0)
		p.insns = append(p.insns, isa.Mov64(isa.R7, isa.R0), isa.LoadMem(isa.Word, isa.R8, isa.R7, 44))
		p.insns = append(p.insns, isa.StoreMem(isa.Double, isa.R10, resultsAt+8*(p.results-1), isa.R8)) // its port, for the address
		p.call(98, isa.R7)
		p.insns = append(p.insns, isa.ALU64(isa.Sub, isa.R0, isa.R7), isa.StoreMem(isa.Double, isa.R10, resultsAt+8*(p.results-1), isa.R0))
		p.call(124, ctxArg{}, isa.R7, 1)
		p.call(124, ctxArg{}, isa.R7, 0)
		p.call(86, isa.R7)
		got, res := p.run(t, v, abi.ProgSchedCls, nil, vm.RunOptions{Data: ethernet(0x0800)})
		wantResults(t, got, 42, 1000, 1, 0, 0, 0, 80, 0, -22, 0, 0)
		if res.Redirect.Kind != "socket" || res.Redirect.Socket != listener {
			t.Errorf("redirected to %+v", res.Redirect)
		}
		if len(asked) != 2 || asked[0].TCP || asked[0].Netns != -1 || len(asked[0].Tuple) != 12 || !asked[1].TCP || asked[1].Netns != 3 || len(asked[1].Tuple) != 36 {
			t.Errorf("the host was asked %+v", asked)
		}
	})
}

// Sockets that a program keeps, or gives back twice, cost nobody else anything.
func TestSocketsOfHostilePrograms(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		o.Host.LookupSocket = func(vm.SocketQuery) *vm.Socket { return &vm.Socket{State: 1} }
		v := newVM(t, o)
		lookup := []isa.Instruction{
			isa.Mov64(isa.R1, isa.R6), isa.Mov64(isa.R2, isa.R10), isa.ALU64Imm(isa.Add, isa.R2, -40), isa.Mov64Imm(isa.R3, 12), isa.Mov64Imm(isa.R4, -1), isa.Mov64Imm(isa.R5, 0), isa.Call(84),
		}
		load := func(insns ...isa.Instruction) *vm.Program {
			p, err := v.NewProgramFromCode(vm.Code{Name: "hostile", Type: abi.ProgSchedCls, Insns: insns}, nil)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		// A thousand look-ups, of which the last ones fail.
		keep := load(slices.Concat([]isa.Instruction{isa.Mov64(isa.R6, isa.R1), isa.Mov64Imm(isa.R7, 1000)}, lookup,
			[]isa.Instruction{isa.ALU64Imm(isa.Sub, isa.R7, 1), isa.JumpIfImm(isa.NE, isa.R7, 0, -9), isa.Exit()})...)
		for range 50 {
			if ret, err := keep.Run(&vm.RunOptions{Data: ethernet(0x0800)}); err != nil || ret != 0 {
				t.Fatalf("the last of too many look-ups gives %#x, %v", ret, err)
			}
		}
		twice := load(slices.Concat([]isa.Instruction{isa.Mov64(isa.R6, isa.R1)}, lookup,
			[]isa.Instruction{isa.Mov64(isa.R7, isa.R0), isa.Mov64(isa.R1, isa.R7), isa.Call(86), isa.Mov64(isa.R1, isa.R7), isa.Call(86), isa.Exit()})...)
		var fault *vm.RunError
		if _, err := twice.Run(&vm.RunOptions{Data: ethernet(0x0800)}); !errors.As(err, &fault) {
			t.Errorf("a socket is released twice: %v", err)
		}
	})
}

func TestRoutesAndDevices(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		o.Host.LookupRoute = func(params []byte, flags uint32) int {
			if flags != 2 || len(params) != 64 {
				return -1
			}
			binary.NativeEndian.PutUint32(params[8:], 77) // ifindex
			return 0
		}
		o.Host.MTU = func(ifindex uint32) uint32 { return map[uint32]uint32{0: 1500, 5: 50}[ifindex] }
		v := newVM(t, o)
		var p helperProgram
		for i := range int16(10) {
			p.insns = append(p.insns, isa.StoreImm(isa.Double, isa.R10, -80+8*i, 0))
		}
		p.call(69, ctxArg{}, stackAt(-80), 64, 2) // no address family
		p.insns = append(p.insns, isa.StoreImm(isa.Byte, isa.R10, -80, 2))
		p.call(69, ctxArg{}, stackAt(-80), 63, 2)
		p.call(69, ctxArg{}, stackAt(-80), 64, 1<<10)
		p.call(69, ctxArg{}, stackAt(-80), 64, 2)
		p.insns = append(p.insns, isa.LoadMem(isa.Word, isa.R1, isa.R10, -72), isa.StoreMem(isa.Double, isa.R10, resultsAt+8*(p.results-1), isa.R1))
		p.call(163, ctxArg{}, 0, stackAt(-8), 0, 0)
		p.call(163, ctxArg{}, 5, stackAt(-16), 0, 0) // 60 bytes, and 64 may be
		p.call(163, ctxArg{}, 5, stackAt(-24), 5, 0)
		p.call(163, ctxArg{}, 6, stackAt(-32), 0, 0)
		p.call(163, ctxArg{}, 5, stackAt(-40), 0, 2)
		got, _ := p.run(t, v, abi.ProgXDP, nil, vm.RunOptions{Data: ethernet(0x0800)})
		wantResults(t, got, -97, -22, -22, 77, 0, 0, 1, -19, -22)
	})
}

func TestSysctl(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		setting := &vm.Sysctl{Name: "net/ipv4/tcp_mem", Current: []byte("1 2 3"), New: []byte("9")}
		o.Host.Sysctl = func() *vm.Sysctl { return setting }
		v := newVM(t, o)
		var p helperProgram
		p.call(101, ctxArg{}, stackAt(-32), 32, 1)
		p.call(101, ctxArg{}, stackAt(-64), 32, 0)
		p.call(101, ctxArg{}, stackAt(-72), 8, 0)
		p.call(102, ctxArg{}, stackAt(-80), 8)
		p.call(102, ctxArg{}, stackAt(-88), 5)
		p.call(103, ctxArg{}, stackAt(-96), 8)
		p.call(104, ctxArg{}, stackAt(-80), 3)
		p.call(104, ctxArg{}, stackAt(-80), 0)
		got, _ := p.run(t, v, abi.ProgCgroupSysctl, nil, vm.RunOptions{})
		wantResults(t, got, 7, 16, -7, 5, -7, 1, 0, -22)
		if !bytes.Equal(setting.New, []byte("1 2")) {
			t.Errorf("the new value is %q", setting.New)
		}
	})
}

func TestProcesses(t *testing.T) {
	engines(t, func(t *testing.T, o vm.Options) {
		o.Host.Process = func() vm.Process {
			return vm.Process{PID: 12, TGID: 10, CgroupID: 300, Ancestors: []uint64{1, 20}, PIDNamespaceDev: 4, PIDNamespace: 4026531836}
		}
		var sent []uint32
		o.Host.Signal = func(number uint32, thread bool) error {
			if sent = append(sent, number); thread {
				return vm.EBUSY
			}
			return nil
		}
		v := newVM(t, o)
		groups := newMap(t, v, ebpf.MapSpec{Name: "groups", Type: ebpf.CGroupArray, KeySize: 4, ValueSize: 4, MaxEntries: 4})
		for key, id := range []uint32{20, 21, 300} {
			if err := groups.Put(uint32(key), id); err != nil {
				t.Fatal(err)
			}
		}
		var p helperProgram
		for i := range 5 {
			p.call(37, mapAt(3), i)
		}
		for level := range 4 {
			p.call(123, level)
		}
		p.call(120, 4, 4026531836, stackAt(-8), 8)
		p.insns = append(p.insns, isa.LoadMem(isa.Double, isa.R0, isa.R10, -8), isa.StoreMem(isa.Double, isa.R10, resultsAt+8*(p.results-1), isa.R0))
		p.call(120, 5, 4026531836, stackAt(-8), 8)
		p.call(109, 15)
		p.call(117, 9)
		p.call(109, 65)
		got, _ := p.run(t, v, abi.ProgRawTracepoint, map[int32]*vm.Map{3: groups}, vm.RunOptions{})
		both := int64(binary.NativeEndian.Uint64(binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, 12), 10)))
		wantResults(t, got, 1, 0, 1, -11, -7, 1, 20, 300, 0, both, -22, 0, -16, -22)
		if !slices.Equal(sent, []uint32{15, 9}) {
			t.Errorf("sent %d", sent)
		}
	})
}
