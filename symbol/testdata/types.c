#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

enum color { RED, GREEN = 5, BLUE = -3 };
enum big { HUGE_VALUE = 0xfffffffffULL };
typedef unsigned char byte_t;
union number {
	int32_t i;
	float f;
	double d;
};
struct inner {
	char c;
	short grid[3][4];
};
struct node {
	struct node *next;
	const volatile byte_t flags;
	unsigned a : 3, b : 7;
	signed int wide : 20;
	uint64_t far : 33;
	enum color color;
	union number n;
	struct inner in;
	struct {
		int anonymous;
	};
	_Bool ok;
	long double ld;
	int (*call)(struct node *, const char *name);
	void *opaque;
	struct hidden *hidden;
	int tail[];
};

__attribute__((noinline)) int static_sum(int first, struct node *n, const char *text, double d)
{
	return first + n->anonymous + (int)d + text[0];
}
__attribute__((noinline)) static int inner_static(byte_t x, enum big e) { return x + (int)e; }
int alias_of_sum(int, struct node *, const char *, double) __attribute__((alias("static_sum")));
int global_counter = 3;

int main(int argc, char **argv)
{
	struct node n = {0};
	printf("size %zu\n", sizeof n);
#define P(m) printf("%s %zu\n", #m, offsetof(struct node, m))
	P(next); P(flags); P(color); P(n); P(in); P(anonymous); P(ok); P(ld); P(call); P(opaque); P(hidden); P(tail);
	printf("static_sum %p\n", (void *)static_sum);
	printf("inner_static %p\n", (void *)inner_static);
	printf("getpid %p\n", (void *)getpid);
	fflush(stdout);
	if (argc > 1)
		sleep(60);
	return static_sum(argc, &n, argv[0], 0) + inner_static(1, HUGE_VALUE) == 0 ? 1 : 0;
}
