// loader OBJECT CMD [ARG...]: loads an object with libbpf, attaches what libbpf
// can attach by itself, runs a command, and prints the hash maps: name, key, value,
// as hexadecimal bytes. It exits with 3 where the object cannot be loaded.
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void hex(const unsigned char *p, size_t n)
{
	putchar(' ');
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
}

static void dump(struct bpf_map *map)
{
	size_t ks = bpf_map__key_size(map), vs = bpf_map__value_size(map);
	void *key = calloc(1, ks), *next = calloc(1, ks), *value = calloc(1, vs);
	int first = 1;

	while (!bpf_map_get_next_key(bpf_map__fd(map), first ? NULL : key, next)) {
		if (!bpf_map_lookup_elem(bpf_map__fd(map), next, value)) {
			printf("%s", bpf_map__name(map));
			hex(next, ks);
			hex(value, vs);
			putchar('\n');
		}
		memcpy(key, next, ks);
		first = 0;
	}
	free(key);
	free(next);
	free(value);
}

int main(int argc, char **argv)
{
	struct bpf_program *prog;
	struct bpf_object *obj;
	struct bpf_map *map;
	int attached = 0, status;

	if (argc < 3) {
		fprintf(stderr, "usage: loader OBJECT CMD [ARG...]\n");
		return 2;
	}
	obj = bpf_object__open_file(argv[1], NULL);
	if (!obj || bpf_object__load(obj)) {
		fprintf(stderr, "loader: cannot load: %s\n", strerror(errno));
		return 3;
	}
	bpf_object__for_each_program(prog, obj) {
		if (bpf_program__attach(prog))
			attached++;
		else if (errno != EOPNOTSUPP) {
			fprintf(stderr, "loader: cannot attach %s: %s\n", bpf_program__name(prog), strerror(errno));
			return 4;
		}
	}
	if (!attached) {
		fprintf(stderr, "loader: nothing was attached\n");
		return 4;
	}
	pid_t pid = fork();
	if (!pid) {
		execvp(argv[2], argv + 2);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0 || status) {
		fprintf(stderr, "loader: %s failed\n", argv[2]);
		return 5;
	}
	bpf_object__for_each_map(map, obj)
		if (bpf_map__type(map) == BPF_MAP_TYPE_HASH)
			dump(map);
	return 0;
}
