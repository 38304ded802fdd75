// Programs with one mistake each; the line that is wrong says which.
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;

struct {
	__uint(type, 1);
	__uint(max_entries, 1024);
	__type(key, u32);
	__type(value, u64[4]);
} values SEC(".maps");

struct {
	__uint(type, 27);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

SEC("xdp")
int unchecked(struct xdp_md *ctx)
{
	u32 key = 7;
	u64 *v = bpf_map_lookup_elem(&values, &key);
	return v[1]; // wrong: null
}

SEC("xdp")
int beyond(struct xdp_md *ctx)
{
	u32 key = 7;
	u64 *v = bpf_map_lookup_elem(&values, &key);
	if (!v)
		return 0;
	u32 i = ctx->ingress_ifindex;
	if (i > 4)
		return 0;
	return v[i]; // wrong: bounds
}

SEC("xdp")
int packet(struct xdp_md *ctx)
{
	u8 *data = (u8 *)(long)ctx->data, *end = (u8 *)(long)ctx->data_end;
	if (data + 14 > end)
		return 1;
	return data[14]; // wrong: bounds
}

SEC("tp/sched/sched_switch")
int lost(void *ctx)
{
	u64 *e = bpf_ringbuf_reserve(&events, 8, 0);
	if (!e)
		return 0;
	*e = 1;
	return 0;
} // wrong: reference

char _license[] SEC("license") = "GPL";
