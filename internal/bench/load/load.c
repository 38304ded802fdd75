// The load of the measurements: load OP COUNT RATE does something COUNT times,
// RATE times a second (0 is as fast as it goes), and prints how many
// nanoseconds one took.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// function is what uprobes and uretprobes are attached to.
__attribute__((noinline)) void function(void) { __asm__ volatile("nop; nop"); }

// usdt has a probe skep:hit without arguments.
__attribute__((noinline)) static void usdt(void) {
	__asm__ volatile("990: nop\n"
		".pushsection .note.stapsdt,\"\",\"note\"\n.balign 4\n"
		".4byte 992f-991f, 994f-993f, 3\n991: .asciz \"stapsdt\"\n992: .balign 4\n"
		"993: .8byte 990b, 0, 0\n.asciz \"skep\"\n.asciz \"hit\"\n.asciz \"\"\n994: .balign 4\n.popsection\n");
}

static void getppid_(void) { syscall(SYS_getppid); }

static long now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

int main(int argc, char **argv) {
	static const struct { const char *name; void (*op)(void); } ops[] = {
		{"syscall", getppid_}, {"function", function}, {"usdt", usdt},
	};
	void (*op)(void) = 0;
	for (unsigned i = 0; argc == 4 && i < sizeof(ops) / sizeof(*ops); i++)
		if (!strcmp(argv[1], ops[i].name))
			op = ops[i].op;
	if (!op) {
		fprintf(stderr, "usage: load syscall|function|usdt COUNT RATE\n");
		return 2;
	}
	long count = atol(argv[2]), rate = atol(argv[3]);
	// One CPU, the last, to which fewer interrupts go.
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &set);
	sched_setaffinity(0, sizeof(set), &set);
	long begin = now();
	if (!rate)
		for (long i = 0; i < count; i++)
			op();
	for (long done = 0; rate && done < count;) {
		long due = (double)(now() - begin) * rate / 1e9;
		for (; done < due && done < count; done++)
			op();
		nanosleep(&(struct timespec){0, 50000}, 0);
	}
	printf("%.2f\n", (double)(now() - begin) / count);
	return 0;
}
