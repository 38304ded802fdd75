#include "bench.bpf.h"

HASH(at_, PERCPU_HASH, s32, struct hist);

static const struct hist empty;

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct hist *h;
	s32 key;

	if (!is_syscall(id, 140))
		return 0;
	key = regs->di;
	h = lookup_or_init(&at_, &key, &empty);
	if (h)
		hist_add(h, (s32)regs->si);
	return 0;
}
