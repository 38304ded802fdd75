/* What the C programs share: types of the kernel as far as they are read, and
 * the idioms of libbpf's tools. Registers and the numbers of system calls are
 * those of amd64. */
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

typedef __u8 u8;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;
typedef __s64 s64;

char LICENSE[] SEC("license") = "GPL";

#define unlikely(x) __builtin_expect(!!(x), 0)
#define TASK_COMM_LEN 16
#define TS_COMPAT 2
#define MAX_ENTRIES 4096

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct pt_regs {
	unsigned long r10, dx, si, di, orig_ax;
};

struct thread_info {
	u32 status;
};

struct mm_struct {
	unsigned long total_vm, data_vm;
};

struct task_struct {
	struct thread_info thread_info;
	struct mm_struct *mm;
	int pid, tgid;
	struct task_struct *real_parent;
};

#pragma clang attribute pop

/* How often something could not be read or stored, or a map was full, as a
 * script counts it. */
u64 lost, full;

static __always_inline void lose(void)
{
	__sync_fetch_and_add(&lost, 1);
}

static __always_inline void lose_update(long err)
{
	if (err == -7 /* E2BIG */)
		__sync_fetch_and_add(&full, 1);
	else
		lose();
}

/* Whether the first n bytes are equal. Clang calls memcmp, which there is none
 * of; compared by words, text that is constant becomes numbers. */
static __always_inline int equal(const char *a, const char *b, int n)
{
	int i = 0;

#define COMPARE(type)                                      \
	for (; i + (int)sizeof(type) <= n; i += sizeof(type)) { \
		type x, y;                                      \
								\
		__builtin_memcpy(&x, a + i, sizeof(type));      \
		__builtin_memcpy(&y, b + i, sizeof(type));      \
		if (x != y)                                     \
			return 0;                               \
	}
	COMPARE(u64)
	COMPARE(u32)
	COMPARE(__u16)
	COMPARE(u8)
#undef COMPARE
	return 1;
}

/* Whether this is the system call of that number: the kernel's own
 * tracepoints of system calls leave out 32-bit callers too. */
static __always_inline int is_syscall(long id, long number)
{
	if (id != number)
		return 0;
	return !(bpf_get_current_task_btf()->thread_info.status & TS_COMPAT);
}

/* The value of a key, which is put there when it is missing. */
static __always_inline void *lookup_or_init(void *map, const void *key, const void *init)
{
	void *value = bpf_map_lookup_elem(map, key);
	long err;

	if (value)
		return value;
	err = bpf_map_update_elem(map, key, init, BPF_NOEXIST);
	if (err && err != -17 /* EEXIST */) {
		lose_update(err);
		return 0;
	}
	return bpf_map_lookup_elem(map, key);
}

#define HASH(name, kind, key_type, value_type)            \
	struct {                                          \
		__uint(type, BPF_MAP_TYPE_##kind);        \
		__uint(max_entries, MAX_ENTRIES);         \
		__type(key, key_type);                    \
		__type(value, value_type);                \
	} name SEC(".maps")

/* The map of an aggregation without keys. */
#define SINGLE(name, value_type)                          \
	struct {                                          \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);  \
		__uint(max_entries, 1);                   \
		__type(key, u32);                         \
		__type(value, value_type);                \
	} name SEC(".maps")

static __always_inline void *single(void *map)
{
	u32 key = 0;

	return bpf_map_lookup_elem(map, &key);
}

struct sum {
	s64 total;
	u64 set;
};

struct average {
	s64 sum;
	u64 count;
};

struct extreme {
	s64 value;
	u64 set;
};

#define BUCKETS 66

struct hist {
	u64 slots[BUCKETS];
};

static __always_inline u64 log2l(u64 v)
{
	u64 r, shift;

	r = (v > 0xffffffff) << 5; v >>= r;
	shift = (v > 0xffff) << 4; v >>= shift; r |= shift;
	shift = (v > 0xff) << 3; v >>= shift; r |= shift;
	shift = (v > 0xf) << 2; v >>= shift; r |= shift;
	shift = (v > 0x3) << 1; v >>= shift; r |= shift;
	return r | (v >> 1);
}

/* The power of two below v: negative numbers, zero, then 1, 2, 4, ... */
static __always_inline u64 bucket(s64 v)
{
	if (v < 0)
		return 0;
	if (v == 0)
		return 1;
	return 2 + log2l(v);
}

static __always_inline void hist_add(struct hist *h, s64 v)
{
	u64 slot = bucket(v);

	if (slot < BUCKETS)
		h->slots[slot]++;
}
