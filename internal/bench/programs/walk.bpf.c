#include "bench.bpf.h"

struct key {
	s32 parent, grandparent;
};

HASH(at_, PERCPU_HASH, struct key, u64);

SEC("tp_btf/task_rename")
int BPF_PROG(renamed, struct task_struct *task)
{
	struct task_struct *parent = task->real_parent;
	u64 init = 0, total, *sum;
	struct mm_struct *mm;
	struct key key;

	key.parent = parent->tgid;
	if (key.parent == task->tgid)
		return 0;
	mm = task->mm;
	total = mm->total_vm;
	if (total <= 16)
		return 0;
	total -= mm->data_vm;
	key.grandparent = parent->real_parent->tgid;
	sum = lookup_or_init(&at_, &key, &init);
	if (sum)
		*sum += total;
	return 0;
}
