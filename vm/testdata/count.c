// Counts packets by the protocol in their Ethernet header, and drops what is
// neither IPv4 nor IPv6.
#include "skep_test.h"

struct { __uint(type, HASH); __uint(max_entries, 64); __type(key, u32); __type(value, u64); } counts SEC(".maps");

SEC("xdp") int count(struct xdp_md *ctx)
{
	u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	u32 key;
	u64 one = 1, *n;

	if (data + 14 > end)
		return XDP_ABORTED;
	key = data[12] << 8 | data[13];
	n = bpf_map_lookup_elem(&counts, &key);
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		bpf_map_update_elem(&counts, &key, &one, ANY);
	if (key != 0x0800 && key != 0x86dd)
		return XDP_DROP;
	data[0] ^= 0xff;
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
