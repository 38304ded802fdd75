// Kernel functions: a list in an arena, the open-coded iterator of numbers, and
// dynptrs over a packet.
#include "skep_test.h"

#define __ksym __attribute__((section(".ksyms")))

struct { __uint(type, 33 /* ARENA */); __uint(map_flags, 1 << 10 /* MMAPABLE */); __uint(max_entries, 8); } arena SEC(".maps");

struct bpf_iter_num { u64 __opaque[1]; } __attribute__((aligned(8)));

extern void *bpf_arena_alloc_pages(void *map, void *addr, u32 pages, int node, u64 flags) __ksym;
extern void bpf_arena_free_pages(void *map, void *addr, u32 pages) __ksym;
extern int bpf_arena_reserve_pages(void *map, void *addr, u32 pages) __ksym;
extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern int bpf_dynptr_from_xdp(struct xdp_md *xdp, u64 flags, struct bpf_dynptr *ptr) __ksym;
extern u32 bpf_dynptr_size(const struct bpf_dynptr *ptr) __ksym;
extern int bpf_dynptr_copy(struct bpf_dynptr *dst, u32 dst_off, struct bpf_dynptr *src, u32 src_off, u32 size) __ksym;
extern int bpf_dynptr_memset(struct bpf_dynptr *ptr, u32 offset, u32 size, u8 val) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, u32 offset, void *buffer, u32 size) __ksym;

static long (*bpf_dynptr_from_mem)(void *data, u32 size, u64 flags, struct bpf_dynptr *ptr) = (void *)197;

struct node { struct node *next; u64 value; };

struct node *head;
int results[8];

// A list of ten nodes in one page, the last number first.
SEC("syscall") int list(void *ctx)
{
	struct bpf_iter_num it;
	struct node *page = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0);
	int *i;

	if (!page)
		return 1;
	head = 0;
	bpf_iter_num_new(&it, 0, 10);
	while ((i = bpf_iter_num_next(&it))) {
		struct node *n = &page[*i];

		n->value = *i * *i;
		n->next = head;
		head = n;
	}
	bpf_iter_num_destroy(&it);
	return 0;
}

// The sum of the list, which it gives back.
SEC("syscall") int sum(void *ctx)
{
	u64 total = 0;
	struct node *last = head;

	for (struct node *n = head; n; n = n->next) {
		total += n->value;
		last = n;
	}
	bpf_arena_free_pages(&arena, last, 1);
	return total;
}

// Taking, reserving and giving back pages.
SEC("syscall") int pages(void *ctx)
{
	char *first = bpf_arena_alloc_pages(&arena, 0, 2, -1, 0), *rest;

	results[0] = !!bpf_arena_alloc_pages(&arena, 0, 7, -1, 0);             // six are left
	results[1] = bpf_arena_reserve_pages(&arena, first + 4096, 1);         // is taken
	results[2] = bpf_arena_reserve_pages(&arena, first + 2 * 4096, 2);
	results[3] = !!bpf_arena_alloc_pages(&arena, first + 3 * 4096, 1, -1, 0); // is reserved
	rest = bpf_arena_alloc_pages(&arena, 0, 4, -1, 0);
	results[4] = rest - first;
	first[5] = 1;
	bpf_arena_free_pages(&arena, first, 2);
	first = bpf_arena_alloc_pages(&arena, first, 1, -1, 0);
	results[5] = first ? first[5] : -1;                                    // zeros again
	results[6] = !!bpf_arena_alloc_pages(&arena, 0, 1, -1, 1);             // no such flag
	results[7] = bpf_arena_reserve_pages(&arena, first + 7 * 4096, 2);     // beyond the end
	return 0;
}

SEC("xdp") int dynptr(struct xdp_md *ctx)
{
	struct bpf_dynptr p;
	u8 buffer[4], *b;

	if (bpf_dynptr_from_xdp(ctx, 0, &p))
		return 1;
	b = bpf_dynptr_slice(&p, 14, buffer, 4);
	return b ? bpf_dynptr_size(&p) << 8 | b[1] : 2;
}

char bytes[32];

// The packet's bytes 14 to 17, shifted by one, and two more that are the same.
SEC("xdp") int copy(struct xdp_md *ctx)
{
	struct bpf_dynptr p, to;

	if (bpf_dynptr_from_xdp(ctx, 0, &p) || bpf_dynptr_from_mem(bytes, sizeof(bytes), 0, &to))
		return 1;
	if (bpf_dynptr_copy(&to, 0, &p, 14, 4) || bpf_dynptr_copy(&to, 1, &to, 0, 4) || bpf_dynptr_memset(&to, 5, 2, 9))
		return 2;
	if (bpf_dynptr_copy(&to, 30, &p, 0, 3) != -7 || bpf_dynptr_memset(&to, 31, 2, 1) != -7)
		return 3;
	return 0;
}

char _license[] SEC("license") = "GPL";
