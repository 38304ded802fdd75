// Programs of many types with kernel objects, CO-RE and kernel functions,
// compiled by clang in tests.
#include "skep_test.h"

struct task_struct {
	int pid;
	int tgid;
	struct task_struct *real_parent;
	char comm[16];
} __attribute__((preserve_access_index));

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __attribute__((preserve_access_index));

extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

struct slot {
	u64 when;
	struct task_struct __kptr *task;
};

struct {
	__uint(type, 2);
	__uint(max_entries, 4);
	__type(key, u32);
	__type(value, struct slot);
} kept SEC(".maps");

struct {
	__uint(type, 1);
	__uint(max_entries, 64);
	__type(key, u32);
	__type(value, u64);
} seen SEC(".maps");

u64 total;
u32 parents[16];

SEC("tp_btf/sched_switch")
int keep(u64 *ctx)
{
	struct task_struct *next = (void *)ctx[2], *old;
	u32 key = 1;
	struct slot *s = bpf_map_lookup_elem(&kept, &key);

	if (!s)
		return 0;
	next = bpf_task_acquire(next);
	if (!next)
		return 0;
	old = bpf_kptr_xchg(&s->task, next);
	if (old)
		bpf_task_release(old);
	s->when = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/sched_switch")
int look(u64 *ctx)
{
	u32 key = 1;
	struct slot *s = bpf_map_lookup_elem(&kept, &key);
	struct task_struct *t;

	if (!s)
		return 0;
	t = s->task;
	if (t)
		total += t->pid;
	return 0;
}

SEC("tp_btf/sched_process_exec")
int parent(u64 *ctx)
{
	struct task_struct *t = (void *)ctx[0];
	u32 pid = t->real_parent->tgid;

	parents[pid & 15] = pid;
	return 0;
}

SEC("iter/task")
int list(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;
	struct seq_file *seq = ctx->meta->seq;
	u64 arg;

	if (!t)
		return 0;
	arg = t->pid;
	bpf_seq_write(seq, &arg, sizeof(arg));
	return 0;
}

SEC("tc")
int numbers(struct __sk_buff *skb)
{
	struct bpf_iter_num it;
	int *v, sum = 0;

	bpf_iter_num_new(&it, 0, 100);
	while ((v = bpf_iter_num_next(&it)))
		sum += *v;
	bpf_iter_num_destroy(&it);
	total = sum;
	return 0;
}

static __noinline int mix(u32 a, u32 b) { return (a * 2654435761u) ^ (b >> 3); }

__noinline int sum_bytes(struct __sk_buff *skb, int n)
{
	char buf[32];
	int sum = 0;

	if (n < 0 || n > 32)
		return -1;
	if (n && bpf_skb_load_bytes(skb, 0, buf, n))
		return -1;
	for (int i = 0; i < 32; i++)
		if (i < n)
			sum += buf[i];
	return sum;
}

SEC("tc")
int bytes(struct __sk_buff *skb) { return mix(sum_bytes(skb, skb->len & 31), skb->mark) & 1; }

SEC("xdp")
int headers(struct xdp_md *ctx)
{
	u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	u32 off = 14, key;
	u64 *n;

	if (data + off + 20 > end)
		return 2;
	if (data[12] != 8 || data[13] != 0)
		return 2;
	off += (data[14] & 15) * 4;
	if (data + off + 4 > end)
		return 2;
	key = *(u16 *)(data + off);
	n = bpf_map_lookup_elem(&seen, &key);
	if (n) {
		__sync_fetch_and_add(n, 1);
	} else {
		u64 one = 1;
		bpf_map_update_elem(&seen, &key, &one, 0);
	}
	return 2;
}

SEC("cgroup/sysctl")
int sysctl(struct bpf_sysctl *ctx)
{
	char name[32] = {};

	if (ctx->write)
		return 0;
	bpf_sysctl_get_name(ctx, name, sizeof(name), 0);
	return name[0] != 'k';
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	if (ctx->user_port == 0x5000)
		ctx->user_ip4 = 0x0100007f;
	return 1;
}

SEC("sockops")
int ops(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return 0;
	total += sk->family + ctx->remote_port;
	return 1;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_tcp_sock *tp;

	if (!sk)
		return 1;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 1;
	tp = bpf_tcp_sock(sk);
	if (tp)
		total += tp->snd_cwnd;
	return 1;
}

SEC("syscall")
int locked(void *ctx)
{
	u32 key = 1;
	struct slot *s;
	struct task_struct *t;

	bpf_rcu_read_lock();
	s = bpf_map_lookup_elem(&kept, &key);
	if (s) {
		t = s->task;
		if (t)
			total += t->tgid;
	}
	bpf_rcu_read_unlock();
	return 0;
}

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	u64 period = ctx->sample_period;
	u32 key = period & 63;

	bpf_map_update_elem(&seen, &key, &period, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
