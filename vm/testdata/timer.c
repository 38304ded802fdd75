// A timer that sets itself again.
#include "skep_test.h"

static long (*bpf_timer_init)(struct bpf_timer *timer, void *map, u64 flags) = (void *)169;
static long (*bpf_timer_set_callback)(struct bpf_timer *timer, void *fn) = (void *)170;
static long (*bpf_timer_start)(struct bpf_timer *timer, u64 ns, u64 flags) = (void *)171;

struct value { u64 n; struct bpf_timer timer; };
struct { __uint(type, HASH); __uint(max_entries, 4); __type(key, u32); __type(value, struct value); } timers SEC(".maps");

u32 fired, seen;

static int expire(void *map, u32 *key, struct value *v)
{
	fired++;
	seen = *key;
	bpf_timer_start(&v->timer, 1000, 0);
	return 0;
}

SEC("syscall") int start(void *ctx)
{
	u32 key = 9;
	struct value fresh = {}, *v = bpf_map_lookup_elem(&timers, &key);
	long err;

	if (!v) {
		bpf_map_update_elem(&timers, &key, &fresh, ANY);
		v = bpf_map_lookup_elem(&timers, &key);
		if (!v)
			return 1;
	}
	err = bpf_timer_init(&v->timer, &timers, 1);
	if (err)
		return err;
	bpf_timer_set_callback(&v->timer, expire);
	return bpf_timer_start(&v->timer, 1000, 0);
}

char _license[] SEC("license") = "GPL";
