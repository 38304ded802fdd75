// A program with USDT probes, written by hand as sys/sdt.h would: one with a
// semaphore that stands at two places, one without. It prints how often the
// semaphore let it through.
#include <stdio.h>

__attribute__((section(".probes"))) volatile unsigned short semaphore;

#define PROBE(name, sem, value)                                                  \
	__asm__ __volatile__("990: nop\n"                                        \
			     ".pushsection .note.stapsdt,\"?\",\"note\"\n"       \
			     ".balign 4\n"                                       \
			     ".4byte 992f-991f, 994f-993f, 3\n"                  \
			     "991: .asciz \"stapsdt\"\n"                         \
			     "992: .balign 4\n"                                  \
			     "993: .8byte 990b, _.stapsdt.base, " sem "\n"       \
			     ".asciz \"skep\"\n"                                 \
			     ".asciz \"" name "\"\n"                             \
			     ".asciz \"8@%0\"\n"                                 \
			     "994: .balign 4\n"                                  \
			     ".popsection\n"                                     \
			     ".ifndef _.stapsdt.base\n"                          \
			     ".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
			     ".weak _.stapsdt.base\n"                            \
			     ".hidden _.stapsdt.base\n"                          \
			     "_.stapsdt.base: .space 1\n"                        \
			     ".size _.stapsdt.base, 1\n"                         \
			     ".popsection\n"                                     \
			     ".endif\n" ::"r"(value))

__attribute__((noinline)) long twice(long n)
{
	__asm__ __volatile__("");
	return 2 * n;
}

int main(int argc, char **argv)
{
	char line[64];

	setvbuf(stdout, 0, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		int open = 0;
		PROBE("always", "0", 7L);
		if (semaphore) {
			open++;
			PROBE("guarded", "semaphore", 11L);
		}
		if (semaphore) {
			open++;
			PROBE("guarded", "semaphore", 12L);
		}
		printf("%d %ld\n", open, twice(argc));
	}
	return 0;
}
