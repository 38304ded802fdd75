/* Opens, loads and runs an object by way of libbpf, for a test. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

static int print(enum libbpf_print_level level, const char *format, va_list args)
{
	if (level == LIBBPF_WARN)
		return vfprintf(stderr, format, args);
	return 0;
}

/* loader OBJECT PROGRAM MAP: attaches the program and prints element 0. */
int main(int argc, char **argv)
{
	struct bpf_object *object;
	struct bpf_program *program;
	struct bpf_link *link;
	unsigned long long value[64] = {0};
	unsigned int key = 0;

	if (argc != 4)
		return 2;
	libbpf_set_print(print);
	object = bpf_object__open_file(argv[1], NULL);
	if (!object || bpf_object__load(object))
		return 1;
	program = bpf_object__find_program_by_name(object, argv[2]);
	if (!program)
		return 1;
	link = bpf_program__attach(program);
	if (!link)
		return 1;
	for (int i = 0; i < 100; i++)
		getppid();
	bpf_link__destroy(link);
	if (bpf_map_lookup_elem(bpf_object__find_map_fd_by_name(object, argv[3]), &key, value))
		return 1;
	printf("%llu\n", value[0]);
	bpf_object__close(object);
	return 0;
}
