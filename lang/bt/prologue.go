package bt

import (
	"strings"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/ir"
	"github.com/skep-bpf/skep/target"
)

// prologue is what runs before the filter and the body: it leaves the program
// for what its probes are not about.
func (g *gen) prologue() {
	if g.syscall != "" {
		g.dispatchSyscall()
	}
	g.filterPID()
	if g.inst.Ctx.Kind == hook.Iter {
		g.iterMembers()
	}
}

// filterPID leaves the program when the run is limited to another process.
// The process is a read-only variable, so that an object serves any, and all
// when it is 0; the kernel removes what that makes unreachable.
func (g *gen) filterPID() {
	if g.opts.PID == 0 {
		return
	}
	switch g.inst.Ctx.Kind {
	case hook.Begin, hook.End, hook.Interval, hook.Self, hook.Test, hook.Bench, hook.Iter:
		return
	}
	g.man.UsesPID = true
	want := g.b.Load(ir.I64, g.b.Global(g.volatileVar("skep_pid")))
	limited, ok := g.block("limited"), g.block("process")
	g.b.If(g.b.Compare(ir.OpEq, want, g.const64(0)), ok, limited)
	g.b.At(limited)
	g.b.If(g.b.Compare(ir.OpEq, g.pid(), want), ok, g.leave)
	g.b.At(ok)
}

// syscallNumber is the number of the system call at the raw tracepoints of all.
func (g *gen) syscallNumber() *ir.Value {
	if g.syscall == "sys_enter" {
		return g.rawArg(1)
	}
	nr := g.callerRegister(g.regs.SyscallNumber)
	if r, ok := g.regs.Lookup(g.regs.SyscallNumber); ok && r.Size < 8 {
		nr = g.b.Resize(g.b.Resize(nr, ir.I32, false), ir.I64, true)
	}
	return nr
}

// dispatchSyscall leaves the program for system calls that its probes do not
// name, and finds out which probe it serves.
func (g *gen) dispatchSyscall() {
	nr := g.syscallNumber()
	type entry struct{ nr, probe int }
	var entries []entry
	largest := 0
	for _, pt := range g.inst.Points {
		name := strings.TrimPrefix(strings.TrimPrefix(pt.Event, "sys_enter_"), "sys_exit_")
		call := abi.SyscallByEntry(name)
		if call == nil {
			continue
		}
		n, ok := call.Number(g.arch)
		if !ok {
			// The kernel has the event, but no 64-bit program can cause it.
			continue
		}
		entries = append(entries, entry{n, g.probeOf[pt.String()]})
		largest = max(largest, n)
	}
	if len(entries) == 0 {
		g.errorf(g.inst.Points[0].Span, "unknown-syscall", "no 64-bit program on %s can call %s", g.arch, g.inst.Points[0].Event)
		return
	}
	ok := g.block("syscall")
	if len(entries) == 1 {
		g.b.If(g.b.Compare(ir.OpEq, nr, g.const64(int64(entries[0].nr))), ok, g.leave)
		g.b.At(ok)
		g.index = g.const64(int64(entries[0].probe))
		g.leaveCompat()
		return
	}
	// A table of probe index plus one by number, in read-only data.
	table := make([]byte, 2*(largest+1))
	for _, e := range entries {
		g.target.ByteOrder().PutUint16(table[2*e.nr:], uint16(e.probe+1))
	}
	global := g.rodata("syscalls", table)
	global.Type = arrayOf(u16Type, len(table)/2)
	known := g.block("known")
	g.b.If(g.b.Compare(ir.OpULe, nr, g.const64(int64(largest))), known, g.leave)
	g.b.At(known)
	at := g.b.PtrAdd(g.b.Global(global), g.b.Binary(ir.OpShl, nr, g.const64(1)))
	found := g.b.Resize(g.b.Load(ir.I16, at), ir.I64, false)
	g.b.If(g.b.Compare(ir.OpNe, found, g.const64(0)), ok, g.leave)
	g.b.At(ok)
	g.index = g.b.Binary(ir.OpSub, found, g.const64(1))
	g.leaveCompat()
}

// compatFlags say how a thread tells that it is in a 32-bit system call, whose
// numbers mean other calls: a flag of its thread_info. The kernel's own
// system call tracepoints leave such calls out too.
var compatFlags = map[abi.Arch]struct {
	member string
	bit    int64
}{
	abi.AMD64:   {"status", 1 << 1}, // TS_COMPAT, arch/x86/include/asm/thread_info.h
	abi.ARM64:   {"flags", 1 << 22}, // TIF_32BIT, arch/arm64/include/asm/thread_info.h
	abi.RISCV64: {"flags", 1 << 11}, // TIF_32BIT, arch/riscv/include/asm/thread_info.h
}

// leaveCompat leaves the program in 32-bit system calls, where those come to it.
func (g *gen) leaveCompat() {
	if !g.feature(target.FeatureCompatSyscalls) {
		return
	}
	flag, ok := compatFlags[g.arch]
	types, err := g.target.Types()
	if !ok || err != nil {
		return
	}
	task, err := types.Struct("task_struct")
	if err != nil {
		return
	}
	path, offset, ok := structMember(task, "thread_info", flag.member)
	if !ok {
		return
	}
	p := g.b.Field(g.helper(hTaskBTF), &ir.FieldRef{Struct: task, Path: path, Offset: offset, Relocate: true})
	v := g.b.Resize(g.b.Load(ir.I32, p), ir.I64, false)
	native := g.block("native")
	g.b.If(g.b.Compare(ir.OpEq, g.b.Binary(ir.OpAnd, v, g.const64(flag.bit)), g.const64(0)), native, g.leave)
	g.b.Block.Likely = ir.Then
	g.b.At(native)
}

// probeIndex is the index of the probe that fired.
func (g *gen) probeIndex() *ir.Value {
	if g.index != nil {
		return g.index
	}
	if len(g.inst.Points) == 1 {
		return g.const64(int64(g.probeOf[g.inst.Points[0].String()]))
	}
	if g.raw {
		g.feature(target.FeatureRawTPCookie)
	}
	return g.helper(hAttachCookie, g.ctx)
}
