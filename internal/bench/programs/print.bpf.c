#include "bench.bpf.h"

struct event {
	u64 id;
	u32 pid;
	char comm[TASK_COMM_LEN];
	s32 size;
	char path[1024];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} skep_events SEC(".maps");

SEC("tp_btf/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct event *e;
	long n;

	if (!is_syscall(id, 267) || (s32)regs->di != 1000)
		return 0;
	e = bpf_ringbuf_reserve(&skep_events, sizeof(*e), 0);
	if (!e) {
		lose();
		return 0;
	}
	e->id = 0;
	e->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	e->size = regs->r10;
	n = bpf_probe_read_user_str(e->path, sizeof(e->path), (void *)regs->si);
	if (n < 0) {
		lose();
	} else if (n == sizeof(e->path)) {
		/* It was cut where it goes on. */
		bpf_probe_read_user(&e->path[n - 1], 1, (void *)regs->si + n - 1);
		if (e->path[n - 1])
			lose();
	}
	bpf_ringbuf_submit(e, 0);
	return 0;
}
