#include "bench.bpf.h"

HASH(at_start, HASH, u32, u64);
SINGLE(at_took, struct hist);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	long err;
	u32 tid;
	u64 now;

	if (!is_syscall(id, 140))
		return 0;
	tid = bpf_get_current_pid_tgid();
	now = bpf_ktime_get_boot_ns();
	err = bpf_map_update_elem(&at_start, &tid, &now, BPF_ANY);
	if (err)
		lose_update(err);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(leave, struct pt_regs *regs, long ret)
{
	u64 *start, now;
	struct hist *h;
	u32 tid;

	if (!is_syscall(regs->orig_ax, 140))
		return 0;
	tid = bpf_get_current_pid_tgid();
	start = bpf_map_lookup_elem(&at_start, &tid);
	if (!start || !*start)
		return 0;
	now = bpf_ktime_get_boot_ns() - *start;
	h = single(&at_took);
	if (h)
		hist_add(h, now);
	bpf_map_delete_elem(&at_start, &tid);
	return 0;
}
