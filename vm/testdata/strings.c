// The kernel functions on strings, chosen by number.
#include "skep_test.h"

#define __ksym __attribute__((section(".ksyms")))

extern int bpf_strcmp(const char *a, const char *b) __ksym;
extern int bpf_strchr(const char *s, char c) __ksym;
extern int bpf_strchrnul(const char *s, char c) __ksym;
extern int bpf_strnchr(const char *s, u64 count, char c) __ksym;
extern int bpf_strrchr(const char *s, int c) __ksym;
extern int bpf_strlen(const char *s) __ksym;
extern int bpf_strnlen(const char *s, u64 count) __ksym;
extern int bpf_strspn(const char *s, const char *accept) __ksym;
extern int bpf_strcspn(const char *s, const char *reject) __ksym;
extern int bpf_strstr(const char *s, const char *other) __ksym;
extern int bpf_strnstr(const char *s, const char *other, u64 count) __ksym;
extern int bpf_strcasecmp(const char *a, const char *b) __ksym;

struct args { char a[16], b[8]; u32 count, c; u32 what, pad; };

char a[16], b[8];
u64 far; // an address that nothing is at

SEC("syscall") int strings(struct args *in)
{
	__builtin_memcpy(a, in->a, 16);
	__builtin_memcpy(b, in->b, 8);
	a[15] = b[7] = 0;
	const char *first = in->what & 16 ? (char *)far : a;

	switch (in->what & 15) {
	case 0: return bpf_strcmp(first, b);
	case 1: return bpf_strchr(first, in->c);
	case 2: return bpf_strchrnul(first, in->c);
	case 3: return bpf_strnchr(first, in->count, in->c);
	case 4: return bpf_strrchr(first, in->c);
	case 5: return bpf_strlen(first);
	case 6: return bpf_strnlen(first, in->count);
	case 7: return bpf_strspn(first, b);
	case 8: return bpf_strcspn(first, b);
	case 9: return bpf_strstr(first, b);
	case 10: return bpf_strnstr(first, b, in->count);
	case 11: return bpf_strcasecmp(first, b);
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
