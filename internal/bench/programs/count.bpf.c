#include "bench.bpf.h"

SINGLE(at_, u64);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	u64 *n;

	if (!is_syscall(id, 140))
		return 0;
	n = single(&at_);
	if (n)
		(*n)++;
	return 0;
}
