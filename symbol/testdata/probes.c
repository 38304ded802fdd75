/* A USDT note as <sys/sdt.h> writes it, without needing the header. */
#include <stdint.h>

#define SDT_BASE                                                              \
	".ifndef _.stapsdt.base\n"                                            \
	".pushsection .stapsdt.base,\"aG\",\"progbits\",.stapsdt.base,comdat\n" \
	".weak _.stapsdt.base\n.hidden _.stapsdt.base\n"                      \
	"_.stapsdt.base: .space 1\n.size _.stapsdt.base,1\n.popsection\n.endif\n"

#define PROBE(provider, name, sem, args)                                       \
	"990: nop\n"                                                          \
	".pushsection .note.stapsdt,\"\",\"note\"\n"                          \
	".balign 4\n.4byte 992f-991f,994f-993f,3\n"                           \
	"991: .asciz \"stapsdt\"\n992: .balign 4\n"                           \
	"993: .8byte 990b\n.8byte _.stapsdt.base\n.8byte " sem "\n"           \
	".asciz \"" provider "\"\n.asciz \"" name "\"\n.asciz \"" args "\"\n" \
	"994: .balign 4\n.popsection\n"

__attribute__((section(".probes"), used)) uint16_t my_semaphore;
int counter = 7;

int main(int argc, char **argv)
{
	(void)argv;
	__asm__ volatile(PROBE("skep", "start", "my_semaphore", "-4@%edi 8@%rsi 8@$5") SDT_BASE);
	__asm__ volatile(PROBE("skep", "second", "0", "-4@counter+4(%rip) 1@8(%rsp,%rax,2)") SDT_BASE);
	__asm__ volatile(PROBE("other", "start", "0", "") SDT_BASE);
	return argc == 77;
}
