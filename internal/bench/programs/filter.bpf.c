#include "bench.bpf.h"

SINGLE(at_, struct sum);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct sum *sum;
	s64 offset;

	if (!is_syscall(id, 8))
		return 0;
	if ((u32)regs->di != 1000 || (u32)regs->dx != 1)
		return 0;
	offset = regs->si;
	if (offset <= 100 || offset >= 5000)
		return 0;
	sum = single(&at_);
	if (sum) {
		sum->total += offset;
		sum->set = 1;
	}
	return 0;
}
