// Programs as people write them, compiled by clang in tests.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define __noinline __attribute__((noinline))

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_trace_printk)(const char *fmt, u32 size, ...) = (void *)6;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_get_current_comm)(void *buf, u32 size) = (void *)16;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static long (*bpf_probe_read_kernel_str)(void *dst, u32 size, const void *src) = (void *)115;
static long (*bpf_loop)(u32 n, void *fn, void *ctx, u64 flags) = (void *)181;
static long (*bpf_for_each_map_elem)(void *map, void *fn, void *ctx, u64 flags) = (void *)164;

struct {
	__uint(type, 1);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u64);
} counts SEC(".maps");

struct {
	__uint(type, 27);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, 6);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, char[256]);
} scratch SEC(".maps");

struct event {
	u32 pid;
	char comm[16];
	u64 when;
};

const volatile u32 only_pid = 0;
u64 total;

SEC("tp/sched/sched_process_exec")
int exec(void *ctx)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	if (only_pid && pid != only_pid)
		return 0;
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return 0;
	e->pid = pid;
	e->when = bpf_ktime_get_ns();
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	bpf_ringbuf_submit(e, 0);
	total++;
	return 0;
}

static __noinline int bump(u32 key, u64 by)
{
	u64 one = by, *v = bpf_map_lookup_elem(&counts, &key);
	if (v) {
		__sync_fetch_and_add(v, by);
		return 1;
	}
	bpf_map_update_elem(&counts, &key, &one, 0);
	return 0;
}

__noinline int clamp(int v)
{
	return v < 0 ? 0 : v > 100 ? 100 : v;
}

__noinline int sum(const struct event *e)
{
	return e ? e->pid + e->comm[3] : 0;
}

SEC("tp/sched/sched_switch")
int sched(u64 *ctx)
{
	struct event e = { .pid = 3 };
	bump(clamp((int)ctx[2]), 1 + sum(&e));
	return 0;
}

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

SEC("xdp")
int count_ports(struct xdp_md *ctx)
{
	u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
	if (data + 34 > end || data[12] != 8 || data[13] != 0)
		return 2;
	u32 ihl = (data[14] & 15) * 4;
	if (ihl < 20)
		return 2;
	u8 *l4 = data + 14 + ihl;
	if (l4 + 4 > end)
		return 2;
	bump(l4[2] << 8 | l4[3], 1);
	return 2;
}

struct loop_ctx {
	u64 sum;
	u32 limit;
};

static int add(u64 i, struct loop_ctx *c)
{
	if (i > c->limit)
		return 1;
	c->sum += i;
	return 0;
}

static int each(void *map, const u32 *key, u64 *value, struct loop_ctx *c)
{
	c->sum += *value + *key;
	return c->sum > 1000;
}

SEC("raw_tp/sys_enter")
int loops(u64 *ctx)
{
	struct loop_ctx c = { .limit = (u32)ctx[1] };
	bpf_loop(1000, add, &c, 0);
	bpf_for_each_map_elem(&counts, each, &c, 0);
	total = c.sum;
	return 0;
}

SEC("kprobe/vfs_open")
int strings(u64 *ctx)
{
	u32 zero = 0;
	char *buf = bpf_map_lookup_elem(&scratch, &zero);
	if (!buf)
		return 0;
	long n = bpf_probe_read_kernel_str(buf, 128, (void *)ctx[14]);
	if (n < 0)
		return 0;
	if (n <= 128)
		buf[n] = 1;
	u32 hash = 5381;
	for (int i = 0; i < 64; i++) {
		if (!buf[i])
			break;
		hash = hash * 33 + buf[i];
	}
	bump(hash, 1);
	char fmt[] = "%d\n";
	bpf_trace_printk(fmt, sizeof(fmt), hash);
	return 0;
}

struct bpf_iter_num {
	u64 opaque[1];
} __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;

SEC("raw_tp/sched_switch")
int numbers(void *ctx)
{
	struct bpf_iter_num it;
	u64 sum = 0;
	int *v;
	bpf_iter_num_new(&it, 0, 1000000);
	while ((v = bpf_iter_num_next(&it)))
		sum += *v;
	bpf_iter_num_destroy(&it);
	total = sum;
	return 0;
}

struct task_struct {
	int pid;
	struct task_struct *real_parent;
} __attribute__((preserve_access_index));

SEC("tp_btf/sched_process_exit")
int parents(u64 *ctx)
{
	struct task_struct *t = (void *)ctx[0];
	int depth = 0;
	for (int i = 0; i < 8 && t->pid; i++) {
		t = t->real_parent;
		depth++;
	}
	bump(depth, t->pid);
	return 0;
}

char _license[] SEC("license") = "GPL";
