// Generic helpers, with what they give written into the packet.
#include "skep_test.h"

static long (*bpf_strtol)(const char *buf, u64 len, u64 flags, s64 *res) = (void *)105;
static long (*bpf_strtoul)(const char *buf, u64 len, u64 flags, u64 *res) = (void *)106;
static long (*bpf_ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;
static void *(*bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static void (*bpf_ringbuf_discard)(void *data, u64 flags) = (void *)133;
static u64 (*bpf_ringbuf_query)(void *ring, u64 flags) = (void *)134;
static long (*bpf_for_each_map_elem)(void *map, void *fn, void *ctx, u64 flags) = (void *)164;
static long (*bpf_snprintf)(char *str, u32 size, const char *fmt, u64 *data, u32 len) = (void *)165;
static long (*bpf_loop)(u32 n, void *fn, void *ctx, u64 flags) = (void *)181;
static long (*bpf_strncmp)(const char *a, u32 size, const char *b) = (void *)182;
static long (*bpf_dynptr_from_mem)(void *data, u32 size, u64 flags, struct bpf_dynptr *ptr) = (void *)197;
static long (*bpf_ringbuf_reserve_dynptr)(void *ring, u32 size, u64 flags, struct bpf_dynptr *ptr) = (void *)198;
static void (*bpf_ringbuf_submit_dynptr)(struct bpf_dynptr *ptr, u64 flags) = (void *)199;
static void (*bpf_ringbuf_discard_dynptr)(struct bpf_dynptr *ptr, u64 flags) = (void *)200;
static long (*bpf_dynptr_read)(void *dst, u32 len, const struct bpf_dynptr *src, u32 off, u64 flags) = (void *)201;
static long (*bpf_dynptr_write)(const struct bpf_dynptr *dst, u32 off, void *src, u32 len, u64 flags) = (void *)202;
static void *(*bpf_dynptr_data)(const struct bpf_dynptr *ptr, u32 off, u32 len) = (void *)203;
static void (*bpf_spin_lock)(struct bpf_spin_lock *lock) = (void *)93;
static void (*bpf_spin_unlock)(struct bpf_spin_lock *lock) = (void *)94;

struct { __uint(type, RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct locked { u32 before; struct bpf_spin_lock lock; u64 count; };
struct { __uint(type, ARRAY); __uint(max_entries, 8); __type(key, u32); __type(value, u64); } numbers SEC(".maps");
struct { __uint(type, HASH); __uint(max_entries, 8); __type(key, u32); __type(value, struct locked); } locked SEC(".maps");
struct { __uint(type, PROG_ARRAY); __uint(max_entries, 4); __type(key, u32); __type(value, u32); } progs SEC(".maps");
struct inner { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, u64); };
struct inner in0 SEC(".maps"), in1 SEC(".maps");
struct { __uint(type, ARRAY_OF_MAPS); __uint(max_entries, 3); __type(key, u32); __array(values, struct inner); } outer SEC(".maps") = { .values = { &in0, [2] = &in1 } };

u64 total = 5;
u32 zeroed;
const volatile u32 factor = 3;
static u64 hidden = 11;

#define BEGIN(n) \
	u8 *p = (void *)(long)ctx->data + 14; \
	if ((void *)(p + (n)) > (void *)(long)ctx->data_end) \
		return 99

// strtol and strtoul of 16 bytes.
SEC("xdp") int do_strtol(struct xdp_md *ctx)
{
	BEGIN(56);
	char text[16];
	s64 n = 1;
	u64 u = 1;
	int flags = p[16];
	__builtin_memcpy(text, p, 16);
	*(s64 *)(p + 24) = bpf_strtol(text, 16, flags, &n);
	*(s64 *)(p + 32) = n;
	*(s64 *)(p + 40) = bpf_strtoul(text, 16, flags, &u);
	*(s64 *)(p + 48) = u;
	return 0;
}

SEC("xdp") int do_snprintf(struct xdp_md *ctx)
{
	BEGIN(160);
	char out[64] = {};
	u64 args[3];
	static const char f0[] = "%d %u %x", f1[] = "[%5d|%-6u|%08llx]", f2[] = "%lld %llu %c%%", f3[] = "%li %lx %X", f4[] = "%px", f5[] = "plain", f6[] = "%+d %i";
	long r = 0;
	__builtin_memcpy(args, p, 24);
	switch (p[24]) {
	case 0: r = bpf_snprintf(out, 64, f0, args, 24); break;
	case 1: r = bpf_snprintf(out, 64, f1, args, 24); break;
	case 2: r = bpf_snprintf(out, 64, f2, args, 24); break;
	case 3: r = bpf_snprintf(out, 64, f3, args, 24); break;
	case 4: r = bpf_snprintf(out, 64, f4, args, 8); break;
	case 5: r = bpf_snprintf(out, 4, f5, 0, 0); break;
	}
	__builtin_memcpy(p + 32, out, 64);
	return r;
}

SEC("xdp") int do_strncmp(struct xdp_md *ctx)
{
	BEGIN(32);
	char text[8];
	__builtin_memcpy(text, p, 8);
	return bpf_strncmp(text, p[8] & 1 ? 8 : 4, "abcdef");
}

struct sum { u64 n; u32 stop; };
static long add(u32 i, struct sum *s)
{
	s->n += i * factor;
	return i == s->stop;
}
static long each(void *map, u32 *key, u64 *value, struct sum *s)
{
	s->n += *key * 1000 + *value;
	*value += 1;
	return *key == s->stop;
}

SEC("xdp") int do_loop(struct xdp_md *ctx)
{
	BEGIN(48);
	struct sum s = { .stop = p[4] };
	u32 n = *(u32 *)p;
	*(s64 *)(p + 8) = bpf_loop(n & 0x80000000 ? 0x7fffffff : n & 0xff, add, &s, 0);
	*(s64 *)(p + 16) = s.n;
	*(s64 *)(p + 24) = bpf_for_each_map_elem(&numbers, each, &s, 0);
	*(s64 *)(p + 32) = s.n;
	total += s.n;
	hidden++;
	zeroed += hidden;
	return hidden;
}

SEC("xdp") int do_ring(struct xdp_md *ctx)
{
	BEGIN(80);
	u64 *rec, data = *(u64 *)p;
	struct bpf_dynptr ptr;
	char buf[8];
	switch (p[8]) {
	case 0:
		*(s64 *)(p + 16) = bpf_ringbuf_output(&ring, &data, 8, 0);
		break;
	case 1:
		rec = bpf_ringbuf_reserve(&ring, 700, 0);
		*(s64 *)(p + 16) = !!rec;
		if (!rec)
			break;
		rec[0] = data;
		if (p[9] & 1)
			bpf_ringbuf_submit(rec, 0);
		else
			bpf_ringbuf_discard(rec, 0);
		break;
	case 2:
		*(s64 *)(p + 16) = bpf_ringbuf_reserve_dynptr(&ring, 100, 0, &ptr);
		*(s64 *)(p + 24) = bpf_dynptr_write(&ptr, p[9], &data, 8, 0);
		*(s64 *)(p + 32) = bpf_dynptr_read(buf, 8, &ptr, p[9], 0);
		if (p[10] & 1)
			bpf_ringbuf_submit_dynptr(&ptr, 0);
		else
			bpf_ringbuf_discard_dynptr(&ptr, 0);
		break;
	}
	*(u64 *)(p + 40) = bpf_ringbuf_query(&ring, 0);
	*(u64 *)(p + 48) = bpf_ringbuf_query(&ring, 1);
	*(u64 *)(p + 56) = bpf_ringbuf_query(&ring, 3);
	return 0;
}

SEC("xdp") int do_lock(struct xdp_md *ctx)
{
	BEGIN(32);
	u32 key = p[0] & 15;
	struct locked *v, fresh = { .before = 7, .count = 1 };
	v = bpf_map_lookup_elem(&locked, &key);
	if (!v)
		return bpf_map_update_elem(&locked, &key, &fresh, p[1] & 3);
	bpf_spin_lock(&v->lock);
	v->count += v->before;
	bpf_spin_unlock(&v->lock);
	fresh.count = v->count + 1;
	if (p[2] & 1)
		return bpf_map_update_elem(&locked, &key, &fresh, F_LOCK);
	return v->count;
}

// Tail calls: to itself until the kernel says no, and to another.
u32 rounds;
SEC("xdp") int do_again(struct xdp_md *ctx)
{
	rounds++;
	bpf_tail_call(ctx, &progs, 0);
	return rounds;
}
__noinline int sub(struct xdp_md *ctx)
{
	volatile int x = 3;
	bpf_tail_call(ctx, &progs, 1);
	return x;
}
SEC("xdp") int do_tail(struct xdp_md *ctx)
{
	BEGIN(32);
	int again = p[0] & 1, index = p[1] & 7, n = sub(ctx);
	if (again)
		bpf_tail_call(ctx, &progs, 0);
	bpf_tail_call(ctx, &progs, index);
	return 50 + n;
}
SEC("xdp") int leaf(struct xdp_md *ctx) { return 40; }

SEC("xdp") int do_outer(struct xdp_md *ctx)
{
	BEGIN(32);
	u32 key = p[0] & 3, zero = p[1] & 1;
	u64 *v;
	void *in = bpf_map_lookup_elem(&outer, &key);
	if (!in)
		return 1;
	v = bpf_map_lookup_elem(in, &zero);
	if (!v)
		return 2;
	*v += p[2];
	return 3;
}

char _license[] SEC("license") = "GPL";
