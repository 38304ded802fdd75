package abi

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestSyscallFormats compares the arguments of all system calls with the event
// formats of the running kernel.
func TestSyscallFormats(t *testing.T) {
	formats, _ := filepath.Glob("/sys/kernel/tracing/events/syscalls/sys_enter_*/format")
	if len(formats) == 0 {
		t.Skip("tracefs is not mounted at /sys/kernel/tracing, or not readable")
	}
	arch, ok := ParseArch(runtime.GOARCH)
	if !ok {
		t.Skip("skep does not know " + runtime.GOARCH)
	}
	for _, path := range formats {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		entry := strings.TrimPrefix(filepath.Base(filepath.Dir(path)), "sys_enter_")
		var want []string
		_, fields, _ := strings.Cut(string(text), "__syscall_nr;")
		for _, line := range strings.Split(fields, "\n") {
			if field, ok := strings.CutPrefix(line, "\tfield:"); ok {
				field, _, _ = strings.Cut(field, ";")
				// Linux 6.19 adds the strings that pointers lead to.
				if !strings.HasPrefix(field, "__data_loc") {
					want = append(want, field)
				}
			}
		}
		s := SyscallByEntry(entry)
		if s == nil {
			t.Errorf("no system call enters at %s", entry)
			continue
		}
		params, ok := s.Params(arch)
		var got []string
		for _, p := range params {
			got = append(got, p.Type+" "+p.Name)
		}
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%s takes %q, %v; the kernel says %q", entry, got, ok, want)
		}
	}
}

// TestRegisterLayout compares struct pt_regs with the running kernel's.
func TestRegisterLayout(t *testing.T) {
	arch, ok := ParseArch(runtime.GOARCH)
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil || !ok || arch.Registers() == nil {
		t.Skip("needs the BTF of a running kernel of a 64-bit architecture")
	}
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	var regs, context *btf.Struct
	if err := spec.TypeByName("pt_regs", &regs); err != nil {
		t.Fatal(err)
	}
	r := arch.Registers()
	if err := spec.TypeByName(r.ContextType, &context); err != nil {
		t.Fatal(err)
	}
	if int(context.Size) != r.Size {
		t.Errorf("struct %s has %d bytes, want %d", r.ContextType, context.Size, r.Size)
	}
	offsets := map[string]int{}
	addMembers(offsets, regs.Members, 0)
	for _, m := range r.All {
		name, index, _ := strings.Cut(strings.TrimSuffix(m.Field, "]"), "[")
		n, _ := strconv.Atoi(index)
		if offset, ok := offsets[name]; !ok || offset+8*n != m.Offset {
			t.Errorf("%s lies at %d, %v, want %d", m.Field, offset+8*n, ok, m.Offset)
		}
	}
}

func addMembers(offsets map[string]int, members []btf.Member, base int) {
	for _, m := range members {
		at := base + int(m.Offset.Bytes())
		if m.Name != "" {
			offsets[m.Name] = at
			continue
		}
		switch inner := m.Type.(type) {
		case *btf.Struct:
			addMembers(offsets, inner.Members, at)
		case *btf.Union:
			addMembers(offsets, inner.Members, at)
		}
	}
}

// TestAgainstLibc compares constants and the texts of errors with the C library's.
func TestAgainstLibc(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil || runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("needs a C compiler on linux/amd64")
	}
	var c strings.Builder
	c.WriteString("#define _GNU_SOURCE\n")
	for _, h := range []string{
		"stdio.h", "string.h", "errno.h", "fcntl.h", "signal.h", "sched.h", "poll.h", "sys/mman.h", "sys/socket.h", "sys/stat.h",
		"sys/epoll.h", "sys/resource.h", "sys/mount.h", "sys/prctl.h", "sys/ptrace.h", "sys/wait.h", "sys/inotify.h", "sys/xattr.h",
		"netinet/in.h", "netinet/tcp.h", "netinet/ip_icmp.h", "time.h", "unistd.h", "dirent.h", "linux/futex.h", "linux/capability.h", "linux/if_ether.h",
		"linux/netlink.h", "linux/seccomp.h", "linux/bpf.h", "linux/magic.h", "sys/ioctl.h", "sys/random.h",
	} {
		fmt.Fprintf(&c, "#if __has_include(<%s>)\n#include <%s>\n#endif\n", h, h)
	}
	c.WriteString("int main(void) {\n")
	names := ConstantNames(AMD64)
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&c, "#ifdef %s\nprintf(\"%s %%lld\\n\", (long long)(%s));\n#endif\n", name, name, name)
	}
	c.WriteString("for (int n = 0; n < 200; n++) printf(\"!%d %s\\n\", n, strerror(n));\nreturn 0; }\n")
	dir := t.TempDir()
	source, program := filepath.Join(dir, "a.c"), filepath.Join(dir, "a")
	if err := os.WriteFile(source, []byte(c.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.Command(cc, "-w", "-O0", "-o", program, source).CombinedOutput(); err != nil {
		t.Fatalf("cc: %v\n%.2000s", err, msg)
	}
	run := exec.Command(program)
	run.Env = []string{"LC_ALL=C"}
	out, err := run.Output()
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name, text, _ := strings.Cut(line, " ")
		if number, ok := strings.CutPrefix(name, "!"); ok {
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatal(err)
			}
			if got := Strerror(n); got != text {
				t.Errorf("error %d is %q, the C library says %q", n, got, text)
			}
			continue
		}
		want, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := Constant(AMD64, name); got != want && libcDiffers[name] == "" {
			t.Errorf("%s is %d, the C library says %d", name, got, want)
		}
		compared++
	}
	if compared < 900 {
		t.Errorf("only %d constants were compared", compared)
	}
}

// libcDiffers lists the constants whose value in the C library is not the
// kernel's, and why.
var libcDiffers = map[string]string{
	"MOVE_MOUNT__MASK": "grows with the kernel",
	"MS_NOUSER":        "1<<31 as a signed int in the C library",
	"O_LARGEFILE":      "0 for 64-bit programs, the kernel sets it",
	"SIGRTMIN":         "two signals are taken by the C library",
	"SIGSTKSZ":         "asked of the kernel at run time",
}
