#include "bench.bpf.h"

SINGLE(at_web, u64);
SINGLE(at_database, u64);
SINGLE(at_mine, u64);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	char comm[TASK_COMM_LEN] __attribute__((aligned(8)));
	u64 *n;

	if (!is_syscall(id, 140))
		return 0;
	bpf_get_current_comm(comm, sizeof(comm));
	if (equal(comm, "nginx", sizeof("nginx")))
		n = single(&at_web);
	else if (equal(comm, "postgres", sizeof("postgres") - 1))
		n = single(&at_database);
	else if (!equal(comm, "bench-peer", sizeof("bench-peer")))
		n = single(&at_mine);
	else
		return 0;
	if (n)
		(*n)++;
	return 0;
}
