package check

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/abi"
	"github.com/skep-bpf/skep/hook"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// context finds what a body may use at an attach point, as far as it does.
func (c *checker) context(pt Point, u use) Context {
	ctx := Context{Kind: pt.Kind}
	ctx.Kfuncs = u.kfuncs
	ctx.Record = pt.Kind == hook.Tracepoint && u.kstack && !u.kfuncs
	if ctx.Record && pt.Subsystem == "syscalls" {
		// Before, their programs got the registers of the caller, which begin no
		// stack of the kernel (perf_call_bpf_enter in kernel/trace/trace_syscalls.c).
		ctx.Record = c.atLeast(6, 13, pt.Span)
	}
	ctx.Syscall = pt.Kind == hook.Tracepoint && pt.Subsystem == "syscalls" && !ctx.Record
	if u.ctx {
		ctx.Ctx = c.ctxType(pt)
	}
	if pt.Kind == hook.USDT && u.numbered {
		ctx.USDT, ctx.ArgsErr = c.usdt(pt.Point)
	}
	if !u.args && !(u.retval && pt.Kind == hook.Fexit) && !(u.kfuncs && pt.Kind == hook.RawTracepoint) {
		return ctx
	}
	switch pt.Kind {
	case hook.Tracepoint:
		ctx.Format, ctx.ArgsErr = c.target.Format(pt.Subsystem, pt.Event)
		if ctx.ArgsErr == nil {
			ctx.Args, ctx.ArgsErr = c.recordArgs(ctx.Format, pt.Subsystem == "syscalls")
		}
	case hook.RawTracepoint:
		rt, err := c.target.RawTracepoint(pt.Event)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		ctx.Typed = c.target.Feature(target.FeatureTypedRawTP).Have && !nullableTracepoints[pt.Event] && rt.Module == ""
		for _, p := range rt.Args {
			// Some kernels let nothing be read of an argument whose type
			// they do not follow; a plain raw tracepoint reads all.
			ctx.Typed = ctx.Typed && typedPointer(p.Type) != unknownPointer && !strings.HasSuffix(p.Name, "__nullable")
		}
		space := KernelSpace
		if ctx.Typed {
			space = BTFSpace
		}
		ctx.Args = paramArgs(rt.Args, space, 8)
	case hook.Kprobe, hook.Fentry, hook.Fexit:
		proto, err := c.function(pt)
		if err != nil {
			ctx.ArgsErr = err
			return ctx
		}
		if pt.Kind == hook.Kprobe {
			ctx.Args = paramArgs(proto.Params, KernelSpace, 0)
			return ctx
		}
		ctx.Args = paramArgs(proto.Params, BTFSpace, 8)
		if pt.Kind == hook.Fexit {
			if _, void := btf.UnderlyingType(proto.Return).(*btf.Void); !void {
				ctx.Retval = fromBTF(proto.Return, KernelSpace, false)
				ctx.Exit = ctx.Args.Size / 8
			}
		}
	case hook.Uprobe:
		ctx.Args, ctx.ArgsErr = c.userArgs(pt.Point)
	}
	return ctx
}

// recordArgs are the fields of a tracepoint's record.
func (c *checker) recordArgs(f *target.Format, syscall bool) (*Type, error) {
	space := KernelSpace
	if syscall {
		space = UserSpace
	}
	args := &Type{Kind: Args, Size: f.Size(), Space: CtxSpace}
	for _, field := range f.Fields {
		if syscall && field.Common {
			continue
		}
		ft, err := target.FieldType(c.target, field)
		if err != nil {
			return nil, err
		}
		typ := fromBTF(ft, space, false)
		dynamic := field.Kind == target.FieldDataLoc || field.Kind == target.FieldRelLoc
		switch {
		case syscall:
		case field.Kind == target.FieldString:
			typ = &Type{Kind: String, Size: field.Len, Space: KernelSpace}
		case field.IsString():
			typ = &Type{Kind: String, Size: c.res.Config.MaxStrlen, Space: KernelSpace}
		case dynamic && typ.Kind == Array && typ.Len == 0:
			// Of any length: only its beginning is known.
			typ = &Type{Kind: Pointer, Size: 8, Elem: typ.Elem, Space: KernelSpace}
		case typ.Kind == Struct || typ.Kind == Array:
			own := *typ
			own.Space = KernelSpace
			typ = &own
		}
		args.Fields = append(args.Fields, Field{
			Name: field.Name, Type: typ, Offset: field.Offset,
			Arg: &Arg{Field: &field, Type: ft, Index: (field.Offset - 16) / 8},
		})
	}
	return args, nil
}

// function is the signature of a kernel function or a loaded BPF program.
func (c *checker) function(pt Point) (*btf.FuncProto, error) {
	if pt.BPF {
		return nil, errors.New("the arguments of BPF programs are not known before they are loaded")
	}
	if pt.Offset != 0 {
		return nil, errors.New("arguments are where the function begins, this is in the middle of it")
	}
	if pt.HasAddress {
		return nil, errors.New("an address has no signature")
	}
	types, err := c.target.Types()
	if err != nil {
		return nil, err
	}
	var fn btf.Type
	if pt.Module != "" && pt.Module != "vmlinux" {
		fn, err = types.FindIn(pt.Module, typeindex.KindFunc, pt.Func)
	} else {
		fn, err = types.Func(pt.Func)
	}
	if err != nil {
		return nil, err
	}
	proto, ok := btf.UnderlyingType(fn.(*btf.Func).Type).(*btf.FuncProto)
	if !ok {
		return nil, fmt.Errorf("the signature of %s is not known", pt.Func)
	}
	return proto, nil
}

// pointee says what the kernel lets a typed program do with an argument.
type pointee uint8

const (
	scalarPointer  pointee = iota // a number to it: integers, pointers to integers and void
	objectPointer                 // a struct that may be read directly
	unknownPointer                // cannot be loaded at all before Linux 6.15
)

func typedPointer(t btf.Type) pointee {
	p, ok := btf.UnderlyingType(t).(*btf.Pointer)
	if !ok {
		return scalarPointer
	}
	switch btf.UnderlyingType(p.Target).(type) {
	case *btf.Void, *btf.Int:
		return scalarPointer
	case *btf.Struct, *btf.Union, *btf.Fwd:
		return objectPointer
	}
	return unknownPointer
}

// paramArgs are the parameters of a function. slot is the size of the slots
// that the context has for them, 0 where they are in registers: a struct
// by value takes several.
func paramArgs(params []btf.FuncParam, space Space, slot int) *Type {
	t := &Type{Kind: Args, Space: CtxSpace}
	index := 0
	for _, p := range params {
		s := space
		if s == BTFSpace && typedPointer(p.Type) != objectPointer {
			s = KernelSpace
		}
		typ := fromBTF(p.Type, s, false)
		t.Fields = append(t.Fields, Field{Name: p.Name, Type: typ, Offset: 8 * index, Arg: &Arg{Index: index, Type: p.Type}})
		n := 1
		if size, err := btf.Sizeof(p.Type); err == nil && size > 8 && slot > 0 {
			n = (size + 7) / 8
		}
		index += n
	}
	t.Size = 8 * index
	return t
}

// ctxType is the type of the builtin ctx.
func (c *checker) ctxType(pt Point) *Type {
	types, err := c.target.Types()
	if err != nil {
		return nil
	}
	name := ""
	switch pt.Kind {
	case hook.Iter:
		s, err := types.Struct("bpf_iter__" + pt.Event)
		if err != nil {
			return nil
		}
		return iterArgs(s)
	case hook.Kprobe, hook.Kretprobe, hook.Uprobe, hook.Uretprobe, hook.USDT:
		if arch, ok := abi.ParseArch(c.target.Arch()); ok && arch.Registers() != nil {
			name = arch.Registers().ContextType
		}
	case hook.Profile, hook.Software, hook.Hardware, hook.Watchpoint, hook.AsyncWatchpoint:
		name = "bpf_perf_event_data"
	case hook.Tracepoint:
		name = "trace_event_raw_" + pt.Event
	}
	if name == "" {
		return nil
	}
	s, err := types.Struct(name)
	if err != nil {
		return nil
	}
	return &Type{Kind: Pointer, Size: 8, Space: CtxSpace, Elem: &Type{Kind: Struct, BTF: s, Size: int(s.Size), Space: CtxSpace}}
}

// iterArgs are the members of an iterator's context: what they point to may be
// read directly once it is known not to be null.
func iterArgs(s *btf.Struct) *Type {
	t := &Type{Kind: Args, Space: CtxSpace, Size: int(s.Size)}
	for _, m := range s.Members {
		typ := m.Type
		// Pointers stand in anonymous unions of 8 bytes (__bpf_md_ptr).
		if u, ok := btf.UnderlyingType(typ).(*btf.Union); ok && m.Name == "" && len(u.Members) > 0 {
			m.Name, typ = u.Members[0].Name, u.Members[0].Type
		}
		space := KernelSpace
		if typedPointer(typ) == objectPointer {
			space = BTFSpace
		}
		offset := int(m.Offset / 8)
		t.Fields = append(t.Fields, Field{
			Name: m.Name, Type: fromBTF(typ, space, false), Offset: offset, Arg: &Arg{Index: offset / 8, Type: typ},
		})
	}
	return t
}

// nullableTracepoints are raw tracepoints with arguments that may be null
// (raw_tp_null_args in kernel/bpf/btf.c): newer kernels refuse to follow them
// in typed programs unless they were compared with null, and think so of all
// in modules. Plain raw tracepoints read them by helper instead.
var nullableTracepoints = map[string]bool{
	"afs_flock_ev": true, "afs_make_fs_call": true, "afs_make_fs_call1": true, "afs_make_fs_call2": true,
	"afs_make_fs_calli": true, "afs_protocol_error": true, "break_lease_block": true,
	"break_lease_noblock": true, "break_lease_unblock": true, "cachefiles_io_error": true,
	"cachefiles_lookup": true, "cachefiles_mark_active": true, "cachefiles_mark_failed": true,
	"cachefiles_mark_inactive": true, "cachefiles_ondemand_close": true, "cachefiles_ondemand_copen": true,
	"cachefiles_ondemand_cread": true, "cachefiles_ondemand_fd_release": true,
	"cachefiles_ondemand_fd_write": true, "cachefiles_ondemand_open": true, "cachefiles_ondemand_read": true,
	"cachefiles_prep_read": true, "cachefiles_rename": true, "cachefiles_unlink": true,
	"cachefiles_vfs_error": true, "device_pm_callback_start": true, "ext4_mballoc_discard": true,
	"ext4_mballoc_free": true, "fcntl_setlk": true, "fib_table_lookup": true, "flock_lock_inode": true,
	"folio_wait_writeback": true, "generic_delete_lease": true, "host1x_cdma_push_gather": true,
	"kfree_skb": true, "locks_remove_posix": true, "mm_collapse_huge_page_isolate": true,
	"mm_khugepaged_collapse_file": true, "mm_khugepaged_scan_file": true, "mm_khugepaged_scan_pmd": true,
	"mm_page_alloc": true, "mm_page_alloc_zone_locked": true, "mm_page_pcpu_drain": true, "mr_integ_alloc": true,
	"netfs_failure": true, "posix_lock_inode": true, "qdisc_dequeue": true, "rxrpc_recvdata": true,
	"rxrpc_resend": true, "sched_pi_setprio": true, "sched_process_wait": true, "sched_stick_numa": true,
	"sched_swap_numa": true, "signal_deliver": true, "signal_generate": true, "tcp_send_reset": true,
	"tegra_dma_tx_status": true, "time_out_leases": true, "tmigr_update_events": true,
	"writeback_dirty_folio": true, "xprt_get_cong": true, "xprt_put_cong": true, "xprt_release_cong": true,
	"xprt_reserve_cong": true, "xs_stream_read_data": true,
}
