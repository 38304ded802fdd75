// An object in libbpf's style, with a little of everything that loaders have to
// fill in.
#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

char LICENSE[] SEC("license") = "GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct mm_struct;
struct task_struct {
	int pid;
	int tgid;
	char comm[16];
	struct task_struct *group_leader;
	void *no_such_field;
};
struct task_struct___other {
	long no_such_field_either;
};
enum bpf_map_type___here {
	BPF_MAP_TYPE_HASH___here = 99,
	BPF_MAP_TYPE_NONESUCH___here = 98,
};
#pragma clang attribute pop

extern unsigned LINUX_KERNEL_VERSION __kconfig;
extern bool CONFIG_BPF_SYSCALL __kconfig __weak;
extern bool CONFIG_NO_SUCH_THING __kconfig __weak;
#ifndef NO_KSYMS
extern const void schedule __ksym;
extern const void no_such_symbol __ksym __weak;
#endif

struct entry {
	__u64 count;
	char comm[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, struct entry);
} entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} events SEC(".maps");

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} first SEC(".maps"), second SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, struct inner);
} outer SEC(".maps") = {.values = {&first, &second}};

SEC("raw_tp/tail") int tail(void *ctx);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__array(values, int(void *));
} tails SEC(".maps") = {.values = {(void *)&tail}};

struct result {
	__u32 pid, tgid;
	__u32 version;
	bool syscall, nothing;
	bool has_field, has_other;
	__u64 hash, nonesuch;
	__u64 schedule, no_symbol;
	__u64 loops, tailed, size;
	char comm[16];
};

struct result out;
volatile const __u32 rounds = 3;

static __noinline int twice(int x) { return 2 * x; }

__noinline int global(int x) { return twice(x) + 1; }

static long callback(__u32 i, void *ctx)
{
	__u64 *n = ctx;
	*n += global(1);
	return 0;
}

SEC("raw_tp/tail") int tail(void *ctx)
{
	out.tailed++;
	return 5;
}

SEC("raw_tp/all") int all(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u32 zero = 0, one = 1;
	__u64 *value;
	__u64 loops = 0;
	void *map;

	out.pid = BPF_CORE_READ(task, pid);
	out.tgid = BPF_CORE_READ(task, group_leader, tgid);
	bpf_core_read_str(out.comm, sizeof(out.comm), &task->comm);
	out.version = LINUX_KERNEL_VERSION;
	out.syscall = CONFIG_BPF_SYSCALL;
	out.nothing = CONFIG_NO_SUCH_THING;
	out.has_field = bpf_core_field_exists(task->pid);
	out.has_other = bpf_core_field_exists(((struct task_struct___other *)task)->no_such_field_either);
	out.size = bpf_core_type_size(struct task_struct);
	if (bpf_core_enum_value_exists(enum bpf_map_type___here, BPF_MAP_TYPE_HASH___here))
		out.hash = bpf_core_enum_value(enum bpf_map_type___here, BPF_MAP_TYPE_HASH___here);
	if (bpf_core_enum_value_exists(enum bpf_map_type___here, BPF_MAP_TYPE_NONESUCH___here))
		out.nonesuch = bpf_core_enum_value(enum bpf_map_type___here, BPF_MAP_TYPE_NONESUCH___here);
	else
		out.nonesuch = 7;
#ifndef NO_KSYMS
	out.schedule = (__u64)&schedule;
	out.no_symbol = (__u64)&no_such_symbol;
#endif
	bpf_loop(rounds, callback, &loops, 0);
	out.loops = loops;

	map = bpf_map_lookup_elem(&outer, &one);
	if (map && (value = bpf_map_lookup_elem(map, &zero)))
		*value += 11;
	struct entry e = {.count = out.loops};
	bpf_get_current_comm(e.comm, sizeof(e.comm));
	bpf_map_update_elem(&entries, &out.pid, &e, BPF_ANY);
	bpf_perf_event_output(ctx, &events, BPF_F_CURRENT_CPU, &e, sizeof(e));
	bpf_tail_call(ctx, &tails, 0);
	return 1;
}

SEC("?raw_tp/missing") int missing(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	return BPF_CORE_READ(task, no_such_field) != 0;
}
