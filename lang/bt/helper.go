package bt

import "github.com/skep-bpf/skep/ir"

// The helpers that lowered code calls, by the names and numbers of
// include/uapi/linux/bpf.h. Those without effects depend on nothing but the
// run they are called in, so that calls of one run may be merged.
var (
	ctxPtr   = ir.PtrTo(ir.SpaceCtx)
	anyRead  = ir.Effects{Reads: ir.AnyMemory}
	volatile = ir.Effects{Reads: ir.AnyMemory, Writes: ir.AnyMemory, Volatile: true}
	clock    = ir.Effects{Volatile: true}
	ownMem   = ir.Spaces(ir.SpaceStack, ir.SpaceMapValue, ir.SpaceMem)
	fillsMem = ir.Effects{Reads: ir.AnyMemory, Writes: ownMem}
	readsMem = ir.Effects{Reads: ir.AnyMemory, Writes: ownMem, Fills: true}
	// What changes a map may change its values, which programs point to.
	mapWrite = ir.Effects{Reads: ir.AnyMemory, Writes: ir.Spaces(ir.SpaceMapValue), Volatile: true}
)

func helper(id int32, name string, result ir.Type, e ir.Effects) ir.Extern {
	return ir.Extern{Kind: ir.ExternHelper, ID: id, Name: name, Result: result, Effect: e}
}

var (
	hMapLookup      = helper(1, "map_lookup_elem", ir.PtrTo(ir.SpaceMapValue).OrNull(), ir.Effects{Reads: ir.AnyMemory, Volatile: true, Finds: true})
	hMapUpdate      = helper(2, "map_update_elem", ir.I64, mapWrite)
	hMapDelete      = helper(3, "map_delete_elem", ir.I64, mapWrite)
	hKtimeNS        = helper(5, "ktime_get_ns", ir.I64, clock)
	hPrandom        = helper(7, "get_prandom_u32", ir.I64, clock)
	hProcessorID    = helper(8, "get_smp_processor_id", ir.I64, ir.Effects{})
	hPidTgid        = helper(14, "get_current_pid_tgid", ir.I64, ir.Effects{})
	hUIDGID         = helper(15, "get_current_uid_gid", ir.I64, ir.Effects{})
	hComm           = helper(16, "get_current_comm", ir.I64, ir.Effects{Writes: ownMem, Fills: true})
	hNUMANode       = helper(42, "get_numa_node_id", ir.I64, ir.Effects{})
	hStack          = helper(67, "get_stack", ir.I64, fillsMem)
	hCgroupID       = helper(80, "get_current_cgroup_id", ir.I64, ir.Effects{})
	hReadUser       = helper(112, "probe_read_user", ir.I64, readsMem)
	hReadKernel     = helper(113, "probe_read_kernel", ir.I64, readsMem)
	hReadUserStr    = helper(114, "probe_read_user_str", ir.I64, readsMem)
	hReadKernelStr  = helper(115, "probe_read_kernel_str", ir.I64, readsMem)
	hJiffies        = helper(118, "jiffies64", ir.I64, clock)
	hKtimeBootNS    = helper(125, "ktime_get_boot_ns", ir.I64, clock)
	hSeqPrintf      = helper(126, "seq_printf", ir.I64, volatile)
	hSeqWrite       = helper(127, "seq_write", ir.I64, volatile)
	hRingbufReserve = helper(131, "ringbuf_reserve", ir.PtrTo(ir.SpaceMem).OrNull(), ir.Effects{Volatile: true})
	hRingbufSubmit  = helper(132, "ringbuf_submit", ir.Type{}, volatile)
	hForEachMapElem = helper(164, "for_each_map_elem", ir.I64, volatile)
	hFuncIP         = helper(173, "get_func_ip", ir.I64, anyRead)
	hAttachCookie   = helper(174, "get_attach_cookie", ir.I64, anyRead)
	hTaskBTF        = helper(158, "get_current_task_btf", ir.PtrTo(ir.SpaceBTF), ir.Effects{})
	hLoop           = helper(181, "loop", ir.I64, volatile)
	hLookupPercpu   = helper(195, "map_lookup_percpu_elem", ir.PtrTo(ir.SpaceMapValue).OrNull(), ir.Effects{Reads: ir.AnyMemory, Volatile: true})
	hKtimeTAINS     = helper(208, "ktime_get_tai_ns", ir.I64, clock)
)
