#include "bench.bpf.h"

struct who {
	char comm[TASK_COMM_LEN];
	u32 pid, tid, uid;
};

struct what {
	s32 which;
	u32 pad;
	u64 low;
};

struct call {
	struct who who;
	u32 pad;
	struct what what;
};

struct reverse {
	struct what what;
	struct who who;
	u32 pad;
};

HASH(at_calls, PERCPU_HASH, struct call, u64);
HASH(at_odd, PERCPU_HASH, struct who, s64);
HASH(at_even, PERCPU_HASH, struct reverse, struct extreme);
HASH(at_last, HASH, u32, struct what);

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct call call = {};
	u64 none = 0, pid_tgid, *n;
	s64 who, *sum;
	long err;
	u32 tid;

	if (!is_syscall(id, 140))
		return 0;
	bpf_get_current_comm(call.who.comm, sizeof(call.who.comm));
	pid_tgid = bpf_get_current_pid_tgid();
	tid = pid_tgid;
	call.who.pid = pid_tgid >> 32;
	call.who.tid = tid;
	call.who.uid = bpf_get_current_uid_gid();
	who = (s32)regs->si;
	call.what.which = regs->di;
	call.what.low = who & 7;
	n = lookup_or_init(&at_calls, &call, &none);
	if (n)
		(*n)++;
	if (who & 1) {
		sum = lookup_or_init(&at_odd, &call.who, &none);
		if (sum)
			*sum += who;
	} else {
		struct reverse key = {.what = call.what, .who = call.who};
		struct extreme init = {}, *e;

		e = lookup_or_init(&at_even, &key, &init);
		if (e && (!e->set || who > e->value)) {
			e->value = who;
			e->set = 1;
		}
	}
	err = bpf_map_update_elem(&at_last, &tid, &call.what, BPF_ANY);
	if (err)
		lose_update(err);
	return 0;
}
