package bt

import (
	"fmt"
	"strconv"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/lang/bt/check"
	"github.com/skep-bpf/skep/lang/bt/syntax"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
)

var (
	hNSPidTgid = helper(120, "get_ns_current_pid_tgid", ir.I64, fillsMem)
	hSkbOutput = helper(111, "skb_output", ir.I64, volatile)
)

// pidTgid is the process (upper half) and thread (lower half) that runs, as the
// PID namespace of skep numbers them; 0 for those of other namespaces.
func (g *gen) pidTgid() *ir.Value {
	if g.feature(target.FeatureInitialPIDNS) {
		return g.helper(hPidTgid)
	}
	ids := g.b.Alloca(8, nil, "ids") // struct bpf_pidns_info: pid, tgid
	dev := g.b.Load(ir.I64, g.b.Global(g.volatileVar("skep_pidns_dev")))
	ino := g.b.Load(ir.I64, g.b.Global(g.volatileVar("skep_pidns_ino")))
	g.b.Store(ids, g.const64(0))
	g.helper(hNSPidTgid, dev, ino, ids, g.const64(8))
	tid := g.b.Resize(g.b.Load(ir.I32, ids), ir.I64, false)
	tgid := g.b.Resize(g.b.Load(ir.I32, g.b.Offset(ids, 4)), ir.I64, false)
	return g.b.Binary(ir.OpOr, g.b.Binary(ir.OpShl, tgid, g.const64(32)), tid)
}

func (g *gen) pid() *ir.Value { return g.b.Binary(ir.OpLShr, g.pidTgid(), g.const64(32)) }

// pidMode is pid(curr_ns), pid(init) and their like for threads.
func (g *gen) pidMode(e *syntax.Call, thread bool) *ir.Value {
	var both *ir.Value
	if len(e.Args) == 1 && g.typeOf(e.Args[0]).Mode == "init" {
		both = g.helper(hPidTgid)
	} else {
		both = g.pidTgid()
	}
	if thread {
		return g.low32(both)
	}
	return g.b.Binary(ir.OpLShr, both, g.const64(32))
}

// userModes say how the saved registers tell that a program of users ran.
var userModes = map[abi.Arch]struct {
	register   string
	mask, want int64
}{
	abi.AMD64:   {"cs", 3, 3},         // the ring, arch/x86/include/asm/ptrace.h
	abi.ARM64:   {"pstate", 0xf, 0},   // PSR_MODE_MASK, PSR_MODE_EL0t
	abi.RISCV64: {"status", 0x100, 0}, // SR_SPP
}

// usermode is 1 when the registers of the probe are those of user space.
func (g *gen) usermode() *ir.Value {
	m, ok := userModes[g.arch]
	if !ok {
		return g.noRegister("usermode")
	}
	v := g.b.Binary(ir.OpAnd, g.contextRegister(m.register), g.const64(m.mask))
	return g.b.Resize(g.b.Compare(ir.OpEq, v, g.const64(m.want)), ir.I64, false)
}

// kfunc is a function of the kernel by its name.
func (g *gen) kfunc(name string, result ir.Type) ir.Extern {
	e := ir.Extern{Kind: ir.ExternKfunc, Name: name, Result: result, Effect: volatile}
	types, err := g.target.Types()
	if err == nil {
		var fn btf.Type
		if fn, err = types.Func(name); err == nil {
			e.Type = fn
		}
	}
	if err != nil {
		g.errorf(g.b.Pos, "no-types", "the kernel's function %s is not known: %v", name, err)
	}
	return e
}

// commInto writes the name of a process to dst, nothing when there is none.
func (g *gen) commInto(dst *ir.Value, e *syntax.Call, t *check.Type) {
	g.b.MemZero(dst, t.Size)
	if len(e.Args) == 0 {
		g.helper(hComm, dst, g.const64(16))
		return
	}
	pid := g.b.Resize(g.int(g.value(e.Args[0])), ir.I32, false)
	task := g.helper(g.kfunc(check.TaskFromPID, ir.PtrTo(ir.SpaceBTF).OrNull()), pid)
	g.ifThen(g.b.Compare(ir.OpNe, task, g.b.Null(task.Type)), func() {
		p := g.b.NonNull(task)
		g.kernelString(dst, p, t.Size, "task_struct", "comm")
		g.helper(g.kfunc(check.TaskRelease, ir.Type{}), p)
	})
}

// cgroupID is the number of a cgroup, which the runner finds out.
func (g *gen) cgroupID(path string) *ir.Value {
	name := ""
	for _, c := range g.man.Cgroups {
		if c.Path == path {
			name = c.Var
		}
	}
	if name == "" {
		name = "skep_cgroup_" + strconv.Itoa(len(g.man.Cgroups))
		g.man.Cgroups = append(g.man.Cgroups, object.Cgroup{Var: name, Path: path})
	}
	return g.runnerVar(name, fmt.Sprintf("cgroupid(%q)", path))
}

// uaddr is the address of a symbol in the process: as far from the probe as in
// the file.
func (g *gen) uaddr(e *syntax.Call) *ir.Value {
	a := g.info.UserAddrs[e]
	var here *ir.Value
	switch g.inst.Ctx.Kind {
	case hook.Uretprobe:
		here = g.helper(hFuncIP, g.ctx)
	default:
		here = g.contextRegister(g.regs.InstructionPointer)
	}
	return g.b.Binary(ir.OpAdd, here, g.const64(int64(a.Symbol-a.Probe)))
}

// The head of a packet's record, offsets in bytes; the packet follows.
const (
	packetEvent  = 0
	packetTime   = 8
	packetOffset = 16
	packetLength = 24
	packetHead   = 32
)

// maxPacket is the number of bytes that bpf_skb_output takes
// (BPF_F_CTXLEN_MASK, include/uapi/linux/bpf.h).
const maxPacket = 1<<20 - 1

// skboutput hands a packet to the runner, and returns 0 or an error.
func (g *gen) skboutput(e *syntax.Call) *ir.Value {
	if g.packets == nil {
		g.packets = &ir.Map{Name: "skep_packets", Type: mapPerfEventArray, Key: u32Type, KeySize: 4, Value: u32Type, ValueSize: 4}
		g.mod.Maps = append(g.mod.Maps, g.packets)
		g.man.Buffers = append(g.man.Buffers, object.Buffer{Map: g.packets.Name, Packets: true})
	}
	skb := g.value(e.Args[1])
	n := g.clamp(g.int(g.value(e.Args[2])), maxPacket)
	offset := g.int(g.value(e.Args[3]))
	pos := g.b.Pos.Pos()
	id := len(g.man.Events)
	g.man.Events = append(g.man.Events, object.Event{
		Kind: object.EventSkbOutput, Format: g.info.Consts[e.Args[0]].Str, Size: packetHead, Line: pos.Line, Col: pos.Column,
	})
	g.ringBuffer()
	head := g.b.Alloca(packetHead, nil, "packet")
	g.b.Store(head, g.const64(g.eventWord(id)))
	g.b.Store(g.b.Offset(head, packetTime), g.helper(hKtimeBootNS))
	g.b.Store(g.b.Offset(head, packetOffset), offset)
	g.b.Store(g.b.Offset(head, packetLength), n)
	const currentCPU = 1<<32 - 1 // BPF_F_CURRENT_CPU
	flags := g.b.Binary(ir.OpOr, g.b.Binary(ir.OpShl, n, g.const64(32)), g.const64(currentCPU))
	r := g.helper(hSkbOutput, skb, g.b.Map(g.packets), flags, head, g.const64(packetHead))
	return g.low32(r)
}

// gfpFlags are the names of page allocation flags.
func (g *gen) gfpFlags(t *check.Type) object.Type {
	g.rely(object.FactLayout, "gfp_flags", g.b.Pos.Pos().Line)
	o := object.Type{Kind: object.TypeFlags, Size: t.Size, Signed: t.Signed}
	for _, f := range g.res.GFPFlags {
		o.Values = append(o.Values, object.EnumValue{Name: f.Name, Value: int64(f.Bits)})
	}
	return o
}
