// The helpers of packets, steered by the packet itself: byte 14 says which, and
// the words behind it are its arguments.
#include "skep_test.h"

static long (*bpf_skb_store_bytes)(void *skb, u32 off, const void *from, u32 len, u64 flags) = (void *)9;
static long (*bpf_l3_csum_replace)(void *skb, u32 off, u64 from, u64 to, u64 flags) = (void *)10;
static long (*bpf_l4_csum_replace)(void *skb, u32 off, u64 from, u64 to, u64 flags) = (void *)11;
static long (*bpf_skb_vlan_push)(void *skb, u16 proto, u16 tci) = (void *)18;
static long (*bpf_skb_vlan_pop)(void *skb) = (void *)19;
static long (*bpf_redirect)(u32 ifindex, u64 flags) = (void *)23;
static long (*bpf_skb_load_bytes)(void *skb, u32 off, void *to, u32 len) = (void *)26;
static long (*bpf_csum_diff)(void *from, u32 from_size, void *to, u32 to_size, u32 seed) = (void *)28;
static long (*bpf_skb_change_type)(void *skb, u32 type) = (void *)32;
static long (*bpf_skb_change_tail)(void *skb, u32 len, u64 flags) = (void *)38;
static long (*bpf_skb_pull_data)(void *skb, u32 len) = (void *)39;
static long (*bpf_skb_change_head)(void *skb, u32 len, u64 flags) = (void *)43;
static long (*bpf_xdp_adjust_head)(void *xdp, int delta) = (void *)44;
static long (*bpf_skb_adjust_room)(void *skb, s32 diff, u32 mode, u64 flags) = (void *)50;
static long (*bpf_redirect_map)(void *map, u32 key, u64 flags) = (void *)51;
static long (*bpf_xdp_adjust_meta)(void *xdp, int delta) = (void *)54;
static long (*bpf_xdp_adjust_tail)(void *xdp, int delta) = (void *)65;
static long (*bpf_skb_load_bytes_relative)(void *skb, u32 off, void *to, u32 len, u32 start) = (void *)68;
static u64 (*bpf_xdp_get_buff_len)(void *xdp) = (void *)188;
static long (*bpf_xdp_load_bytes)(void *xdp, u32 off, void *to, u32 len) = (void *)189;
static long (*bpf_xdp_store_bytes)(void *xdp, u32 off, void *from, u32 len) = (void *)190;

struct op { u8 what, pad; s16 a, b; u16 c; u64 flags; } __attribute__((packed));

// Marks where the packet begins and ends now, and in the first word the result.
SEC("tc") int do_tc(struct __sk_buff *skb)
{
	struct op *o = (void *)(long)skb->data + 14, op;
	char buf[16] = {1, 2, 3, 4, 5, 6, 7, 8};
	long r = 77;

	if ((void *)(o + 1) > (void *)(long)skb->data_end)
		return 99;
	op = *o;
	switch (op.what) {
	case 0: r = bpf_skb_store_bytes(skb, op.a, buf, 8, op.flags); break;
	case 1: r = bpf_l3_csum_replace(skb, op.a, op.b, op.c, op.flags); break;
	case 2: r = bpf_l4_csum_replace(skb, op.a, op.b, op.c, op.flags); break;
	case 3: r = bpf_skb_vlan_push(skb, op.a & 1 ? 0xa888 : 0x0081, op.b); break;
	case 4: r = bpf_skb_vlan_pop(skb); break;
	case 5: r = bpf_skb_load_bytes(skb, op.a, buf, 16); break;
	case 6: r = bpf_csum_diff(op.a & 1 ? buf : 0, op.a & 1 ? 16 : 0, op.a & 2 ? buf + 4 : 0, op.a & 2 ? 8 : 0, op.c); break;
	case 7: r = bpf_skb_change_type(skb, op.a); break;
	case 8: r = bpf_skb_change_tail(skb, op.a, op.flags); break;
	case 9: r = bpf_skb_pull_data(skb, op.a); break;
	case 10: r = bpf_skb_change_head(skb, op.a, op.flags); break;
	case 11: r = bpf_skb_adjust_room(skb, op.a, op.b, op.flags); break;
	case 12: r = bpf_skb_load_bytes_relative(skb, op.a, buf, 16, op.b); break;
	case 13: // a tag pushed on another, both popped
		r = bpf_skb_vlan_push(skb, 0x0081, op.b);
		r = r * 10 + bpf_skb_vlan_push(skb, 0xa888, op.c);
		skb->cb[4] = skb->vlan_tci;
		if (op.a & 1)
			r = r * 10 + bpf_skb_vlan_pop(skb);
		if (op.a & 2)
			r = r * 10 + bpf_skb_vlan_pop(skb);
		break;
	case 14: r = bpf_redirect(op.a, op.flags); break;
	}
	skb->cb[0] = r;
	skb->cb[1] = r >> 32;
	skb->cb[2] = skb->len;
	skb->cb[3] = skb->data_end - skb->data;
	skb->mark = skb->protocol | skb->vlan_present << 16 | skb->pkt_type << 20;
	skb->priority = skb->vlan_tci;
	if (op.what == 5 || op.what == 12) {
		__builtin_memcpy(&skb->cb[2], buf, 4);
		__builtin_memcpy(&skb->cb[3], buf + 12, 4);
	}
	return 0;
}

SEC("xdp") int do_xdp(struct xdp_md *ctx)
{
	struct op *o = (void *)(long)ctx->data + 14, op;
	u32 *at;
	char buf[16] = {1, 2, 3, 4, 5, 6, 7, 8};
	long r = 77;

	if ((void *)(o + 1) > (void *)(long)ctx->data_end)
		return 99;
	op = *o;
	switch (op.what) {
	case 0: r = bpf_xdp_adjust_head(ctx, op.a); break;
	case 1: r = bpf_xdp_adjust_tail(ctx, op.a); break;
	case 2:
		r = bpf_xdp_adjust_meta(ctx, op.a);
		at = (void *)(long)ctx->data_meta;
		if ((void *)(at + 1) <= (void *)(long)ctx->data)
			*at = 0x12345678;
		if (op.b)
			r = r * 1000 + bpf_xdp_adjust_head(ctx, op.b);
		break;
	case 3: r = bpf_xdp_get_buff_len(ctx); break;
	case 4: r = bpf_xdp_load_bytes(ctx, op.a, buf, 16); break;
	case 5: r = bpf_xdp_store_bytes(ctx, op.a, buf, 8); break;
	case 6: r = bpf_redirect(op.a, op.flags); break;
	case 7: r = bpf_csum_diff(0, 0, buf, 16, op.c); break;
	}
	at = (void *)(long)ctx->data;
	if ((void *)(at + 4) <= (void *)(long)ctx->data_end) {
		at[0] = r;
		at[1] = ctx->data_end - ctx->data;
		__builtin_memcpy(&at[2], buf, 4);
	}
	return r;
}

char _license[] SEC("license") = "GPL";
