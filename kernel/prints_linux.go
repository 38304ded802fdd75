package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/machine"
	"github.com/skep-bpf/skep/object"
)

// What a print is in the ring buffer: the thread's pid_tgid, the time since
// boot, the CPU, the length that bpf_probe_read_kernel_str returned, the
// thread's name, and the text.
const (
	printTime = 8
	printCPU  = 16
	printLen  = 20
	printComm = 24
	printText = 40
	printSize = printText + 1024 // the kernel's own buffer has as much
)

// printsObject copies what bpf_printk writes into a ring buffer. Its program is
// on the raw tracepoint that every text passes; a perf event on that tracepoint
// would not see what programs on perf events and tracepoints print, since perf
// does not nest.
func printsObject() *object.Object {
	rb := &object.Map{Name: "prints", Type: uint32(abi.MapRingbuf), MaxEntries: 1 << 18}
	lost := &object.Var{Name: "lost", Section: ".bss", Type: &btf.Int{Name: "unsigned long long", Size: 8}}
	call := func(name string) isa.Instruction { return isa.Call(int32(abi.HelperByName(name).ID)) }
	insns := []isa.Instruction{
		isa.Mov64(isa.R6, isa.R1),
		isa.LoadMapFD(isa.R1, 0),
		isa.Mov64Imm(isa.R2, printSize), isa.Mov64Imm(isa.R3, 0), call("ringbuf_reserve"),
		isa.JumpIfImm(isa.NE, isa.R0, 0, 5), // slots, of which the next has two
		isa.LoadMapValue(isa.R1, 0, 0), isa.Mov64Imm(isa.R2, 1), isa.Atomic(isa.AtomicAdd, isa.Double, isa.R1, 0, isa.R2),
		isa.Jump(0), // over the rest, see below
		isa.Mov64(isa.R7, isa.R0),
		call("get_current_pid_tgid"), isa.StoreMem(isa.Double, isa.R7, 0, isa.R0),
		call("ktime_get_ns"), isa.StoreMem(isa.Double, isa.R7, printTime, isa.R0),
		call("get_smp_processor_id"), isa.StoreMem(isa.Word, isa.R7, printCPU, isa.R0),
		isa.Mov64(isa.R1, isa.R7), isa.ALU64Imm(isa.Add, isa.R1, printComm), isa.Mov64Imm(isa.R2, printText-printComm), call("get_current_comm"),
		isa.Mov64(isa.R1, isa.R7), isa.ALU64Imm(isa.Add, isa.R1, printText), isa.Mov64Imm(isa.R2, printSize-printText),
		isa.LoadMem(isa.Double, isa.R3, isa.R6, 0), call("probe_read_kernel_str"), isa.StoreMem(isa.Word, isa.R7, printLen, isa.R0),
		isa.Mov64(isa.R1, isa.R7), isa.Mov64Imm(isa.R2, 0), call("ringbuf_submit"),
		isa.Mov64Imm(isa.R0, 0), isa.Exit(),
	}
	// To the last two.
	insns[9] = isa.Jump(int16(len(insns) - 2 - 10))
	f := &object.Func{Name: "skep_prints", Section: "raw_tp/bpf_trace_printk", Insns: insns, Relocs: []object.Reloc{
		{Insn: 1, Kind: object.RelocMap, Symbol: rb}, {Insn: 6, Kind: object.RelocVar, Symbol: lost},
	}}
	return &object.Object{License: "GPL", Maps: []*object.Map{rb}, Vars: []*object.Var{lost}, Funcs: []*object.Func{f}}
}

// prints reads what bpf_printk writes. Unlike reading trace_pipe that takes
// nothing away from others, and needs no entry in tracefs that could be left
// behind.
type prints struct {
	machine.Records
	l    machine.Loaded
	line []byte
}

func (l *loaded) Prints() (machine.Records, error) {
	elf, err := printsObject().Marshal()
	if err != nil {
		return nil, err
	}
	inner, err := kernelMachine{}.Load(context.Background(), elf, machine.LoadOptions{TokenPath: l.opts.TokenPath})
	if err != nil {
		return nil, fmt.Errorf("what bpf_printk writes cannot be read: %w", err)
	}
	r, err := inner.Records("prints")
	if err == nil {
		_, errs := inner.Attach(context.Background(), []machine.Attach{{
			Program: "skep_prints", Points: []hook.Point{{Kind: hook.RawTracepoint, Event: "bpf_trace_printk"}},
		}})
		if err = errs[0]; err == nil {
			return &prints{Records: r, l: inner}, nil
		}
		r.Close()
	}
	return nil, errors.Join(fmt.Errorf("what bpf_printk writes cannot be read: %w", err), inner.Close())
}

// Read returns a line, as trace_pipe would.
func (p *prints) Read() ([]byte, error) {
	for {
		data, err := p.Records.Read()
		if err != nil {
			return nil, err
		}
		if len(data) < printSize {
			continue
		}
		order := binary.NativeEndian
		n := min(max(int(int32(order.Uint32(data[printLen:])))-1, 0), printSize-printText)
		text := data[printText : printText+n]
		if n > 0 && text[n-1] == '\n' {
			text = text[:n-1]
		}
		ns := order.Uint64(data[printTime:])
		p.line = fmt.Appendf(p.line[:0], "%s-%d [%03d] %d.%06d: %s", cut(data[printComm:printText]),
			uint32(order.Uint64(data)), order.Uint32(data[printCPU:]), ns/1e9, ns/1e3%1e6, text)
		return p.line, nil
	}
}

// Lost is how many texts did not fit.
func (p *prints) Lost() uint64 {
	v, err := p.l.Var("lost")
	if err != nil {
		return 0
	}
	b, err := v.Get()
	if err != nil || len(b) < 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(b)
}

func (p *prints) Close() error { return errors.Join(p.Records.Close(), p.l.Close()) }
