#include "bench.bpf.h"

HASH(at_, PERCPU_HASH, u64, s64);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	u64 hash = 5381, who;
	s64 init = 0, bits = 0, *sum;

	if (!is_syscall(id, 140))
		return 0;
	who = (s32)regs->si;
	for (int i = 0; i < 16; i++) {
		u64 byte = who >> (4 * (i & 7)) & 15;

		hash = hash * 33 + byte;
		bits += byte > 7;
	}
	hash %= 64;
	sum = lookup_or_init(&at_, &hash, &init);
	if (sum)
		*sum += bits;
	return 0;
}
