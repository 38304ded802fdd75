//go:build ignore

// A firewall in front of a network device: it drops what comes from networks
// that are blocked, lets every other source have a number of packets in each
// second, counts both, and tells of each packet that it drops.

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_ringbuf_output)(void *ring, void *data, __u64 size, __u64 flags) = (void *)130;

enum { XDP_DROP = 1, XDP_PASS = 2 };

struct xdp_md {
	__u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct network {
	__u32 bits;
	__u8 addr[4];
};

struct bucket {
	__u64 second;
	__u64 packets;
};

enum reason { BLOCKED = 1, TOO_MANY = 2 };

struct drop {
	__u8 source[4];
	enum reason reason;
};

struct {
	__uint(type, 11); // BPF_MAP_TYPE_LPM_TRIE
	__uint(max_entries, 1024);
	__uint(map_flags, 1); // BPF_F_NO_PREALLOC
	__type(key, struct network);
	__type(value, __u8);
} blocked SEC(".maps");

struct {
	__uint(type, 9); // BPF_MAP_TYPE_LRU_HASH
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct bucket);
} sources SEC(".maps");

struct {
	__uint(type, 6); // BPF_MAP_TYPE_PERCPU_ARRAY
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, __u64);
} verdicts SEC(".maps");

struct {
	__uint(type, 27); // BPF_MAP_TYPE_RINGBUF
	__uint(max_entries, 65536);
	__type(value, struct drop);
} drops SEC(".maps");

// How many packets a source may send in a second.
const volatile __u64 packets_per_second = 100;

__u64 not_ip;

static __attribute__((noinline)) void count(__u32 verdict)
{
	__u64 *n = bpf_map_lookup_elem(&verdicts, &verdict);
	if (n)
		*n += 1;
}

static __attribute__((noinline)) int drop_from(__u32 source, enum reason why)
{
	struct drop d = {.reason = why};
	__builtin_memcpy(d.source, &source, 4);
	bpf_ringbuf_output(&drops, &d, sizeof d, 0);
	count(XDP_DROP);
	return XDP_DROP;
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct network net = {.bits = 32};
	struct bucket *b, first = {.packets = 1};
	__u64 second = bpf_ktime_get_ns() / 1000000000;
	__u32 source;

	if (data + 14 + 20 > end || data[12] != 0x08 || data[13] != 0x00) {
		__sync_fetch_and_add(&not_ip, 1);
		count(XDP_PASS);
		return XDP_PASS;
	}
	__builtin_memcpy(&source, data + 14 + 12, 4);
	__builtin_memcpy(net.addr, &source, 4);
	if (bpf_map_lookup_elem(&blocked, &net))
		return drop_from(source, BLOCKED);
	b = bpf_map_lookup_elem(&sources, &source);
	if (!b || b->second != second) {
		first.second = second;
		bpf_map_update_elem(&sources, &source, &first, 0);
	} else if (b->packets >= packets_per_second) {
		return drop_from(source, TOO_MANY);
	} else {
		__sync_fetch_and_add(&b->packets, 1);
	}
	count(XDP_PASS);
	return XDP_PASS;
}

char __license[] SEC("license") = "GPL";
