// One program for each kind of map, that does to it what a packet says.
#include "skep_test.h"

#define MAP(name, kind, n, keytype, valtype, fl) \
	struct { __uint(type, kind); __uint(max_entries, n); __type(key, keytype); __type(value, valtype); __uint(map_flags, fl); } name SEC(".maps")

struct lpm_key { u32 bits; u8 data[4]; };
struct big { u64 a; u8 b[21]; };

MAP(hash, HASH, 16, u32, u64, 0);
MAP(hash_big, HASH, 16, struct big, struct big, 0);
MAP(hash_lazy, HASH, 16, u32, u64, 1);
MAP(percpu_hash, PERCPU_HASH, 16, u32, u64, 0);
MAP(lru, LRU_HASH, 16, u32, u64, 0);
MAP(lru_many, LRU_HASH, 600, u32, u64, 0);
MAP(lru_percpu, LRU_PERCPU_HASH, 16, u32, u64, 0);
MAP(lru_own, LRU_HASH, 64, u32, u64, 2);
MAP(array, ARRAY, 16, u32, u64, 0);
MAP(percpu_array, PERCPU_ARRAY, 16, u32, u64, 0);
MAP(lpm, LPM_TRIE, 16, struct lpm_key, u64, 1);

struct { __uint(type, QUEUE); __uint(max_entries, 5); __uint(key_size, 0); __type(value, u64); } queue SEC(".maps");
struct { __uint(type, STACK); __uint(max_entries, 5); __uint(key_size, 0); __type(value, u64); } stack SEC(".maps");
struct { __uint(type, BLOOM_FILTER); __uint(max_entries, 20); __type(value, u64); __uint(map_extra, 3); __uint(map_flags, 64); } bloom SEC(".maps");

static long (*bpf_map_push_elem)(void *map, const void *value, u64 flags) = (void *)87;
static long (*bpf_map_pop_elem)(void *map, void *value) = (void *)88;
static long (*bpf_map_peek_elem)(void *map, void *value) = (void *)89;

#define HEAD(type) \
	type *o = (void *)(long)ctx->data + 14; \
	if ((void *)(o + 1) > (void *)(long)ctx->data_end) \
		return 99

#define OPS(map, keytype, valtype) \
struct map##_op { u32 op, flags; u64 result; keytype key; valtype value; } __attribute__((packed)); \
SEC("xdp") int do_##map(struct xdp_md *ctx) \
{ \
	HEAD(struct map##_op); \
	keytype key; \
	valtype value, *old; \
	__builtin_memcpy(&key, &o->key, sizeof(key)); \
	__builtin_memcpy(&value, &o->value, sizeof(value)); \
	switch (o->op) { \
	case 0: \
		old = bpf_map_lookup_elem(&map, &key); \
		o->result = !!old; \
		if (old) \
			__builtin_memcpy(&o->value, old, sizeof(value)); \
		break; \
	case 1: \
		o->result = bpf_map_update_elem(&map, &key, &value, o->flags); \
		break; \
	case 2: \
		o->result = bpf_map_delete_elem(&map, &key); \
		break; \
	case 3: /* what is looked up stays when the key gets another value */ \
		old = bpf_map_lookup_elem(&map, &key); \
		o->result = bpf_map_update_elem(&map, &key, &value, o->flags); \
		if (old) \
			__builtin_memcpy(&o->value, old, sizeof(value)); \
		break; \
	} \
	return o->op; \
}

OPS(hash, u32, u64)
OPS(hash_big, struct big, struct big)
OPS(hash_lazy, u32, u64)
OPS(percpu_hash, u32, u64)
OPS(lru, u32, u64)
OPS(lru_many, u32, u64)
OPS(lru_percpu, u32, u64)
OPS(lru_own, u32, u64)
OPS(array, u32, u64)
OPS(percpu_array, u32, u64)
OPS(lpm, struct lpm_key, u64)

struct queue_op { u32 op, flags; u64 result, value; } __attribute__((packed));
#define QUEUE_OPS(map) \
SEC("xdp") int do_##map(struct xdp_md *ctx) \
{ \
	HEAD(struct queue_op); \
	u64 value = o->value; \
	switch (o->op) { \
	case 0: \
		o->result = bpf_map_push_elem(&map, &value, o->flags); \
		break; \
	case 1: \
		o->result = bpf_map_pop_elem(&map, &value); \
		break; \
	case 2: \
		o->result = bpf_map_peek_elem(&map, &value); \
		break; \
	} \
	o->value = value; \
	return o->op; \
}
QUEUE_OPS(queue)
QUEUE_OPS(stack)

SEC("xdp") int do_bloom(struct xdp_md *ctx)
{
	HEAD(struct queue_op);
	u64 value = o->value;
	if (o->op == 0)
		o->result = bpf_map_push_elem(&bloom, &value, o->flags);
	else
		o->result = bpf_map_peek_elem(&bloom, &value);
	return o->op;
}

char _license[] SEC("license") = "GPL";
