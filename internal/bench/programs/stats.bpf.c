#include "bench.bpf.h"

SINGLE(at_avg, struct average);
SINGLE(at_min, struct extreme);
SINGLE(at_max, struct extreme);
HASH(at_total, PERCPU_HASH, s32, s64);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	s64 init = 0, who, *total;
	struct average *a;
	struct extreme *e;
	s32 which;

	if (!is_syscall(id, 140))
		return 0;
	who = (s32)regs->si;
	a = single(&at_avg);
	if (a) {
		a->sum += who;
		a->count++;
	}
	e = single(&at_min);
	if (e && (!e->set || who < e->value)) {
		e->value = who;
		e->set = 1;
	}
	e = single(&at_max);
	if (e && (!e->set || who > e->value)) {
		e->value = who;
		e->set = 1;
	}
	which = regs->di;
	total = lookup_or_init(&at_total, &which, &init);
	if (total)
		*total += who;
	return 0;
}
