#include "bench.bpf.h"

/* /sys/kernel/tracing/events/task/task_rename/format */
struct record {
	u64 common;
	s32 pid;
	char oldcomm[TASK_COMM_LEN];
	char newcomm[TASK_COMM_LEN];
	short oom_score_adj;
};

struct key {
	char oldcomm[TASK_COMM_LEN];
	char newcomm[TASK_COMM_LEN];
};

HASH(at_, PERCPU_HASH, struct key, u64);

SEC("tracepoint/task/task_rename")
int renamed(struct record *r)
{
	struct key key __attribute__((aligned(8))) = {};
	u64 init = 0, *n;

	bpf_probe_read_kernel_str(key.newcomm, sizeof(key.newcomm), r->newcomm);
	if (!equal(key.newcomm, "skep-bench", 10))
		return 0;
	bpf_probe_read_kernel_str(key.oldcomm, sizeof(key.oldcomm), r->oldcomm);
	n = lookup_or_init(&at_, &key, &init);
	if (n)
		(*n)++;
	return 0;
}
