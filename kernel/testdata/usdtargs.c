// A libbpf program that reads the arguments of USDT probes.
#include <linux/bpf.h>
#include <linux/ptrace.h>
#include <linux/errno.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/usdt.bpf.h>

char LICENSE[] SEC("license") = "GPL";

__u64 hits, sum, cookies;

SEC("usdt") int BPF_USDT(prog, long value)
{
	hits++;
	sum += value;
	cookies += bpf_usdt_cookie(ctx);
	return 0;
}
