#include "bench.bpf.h"

struct key {
	char comm[TASK_COMM_LEN];
};

HASH(at_, PERCPU_HASH, struct key, u64);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct key key;
	u64 init = 0, *n;

	if (!is_syscall(id, 140))
		return 0;
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	n = lookup_or_init(&at_, &key, &init);
	if (n)
		(*n)++;
	return 0;
}
