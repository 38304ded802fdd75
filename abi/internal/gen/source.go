package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var prototypeRE = regexp.MustCompile(`(?ms)^ \* ([a-z_][\w ]*[ *]+bpf_\w+\([^)]*\))$`)

// prototypes adds the C prototypes that the comments of bpf.h give helpers.
func (t tree) prototypes(out *records) {
	b, err := os.ReadFile(filepath.Join(t.root, "include/uapi/linux/bpf.h"))
	if err != nil {
		return
	}
	_, text, _ := strings.Cut(string(b), "Start of BPF helper function descriptions:")
	text, _, _ = strings.Cut(text, "*/")
	nameRE := regexp.MustCompile(`\bbpf_(\w+)\(`)
	for _, m := range prototypeRE.FindAllStringSubmatch(text, -1) {
		p := squeeze(strings.ReplaceAll(m[1], "\n *", " "))
		out.add("prototype", nameRE.FindStringSubmatch(p)[1], p)
	}
}

var (
	kfuncSetRE  = regexp.MustCompile(`(?s)(?:BTF_KFUNCS_START|BTF_SET8_START)\((\w+)\)(.*?)(?:BTF_KFUNCS_END|BTF_SET8_END)`)
	kfuncIDRE   = regexp.MustCompile(`BTF_ID_FLAGS\(func,\s*(\w+)(?:,\s*([^)]*))?\)`)
	kfuncListRE = regexp.MustCompile(`struct btf_kfunc_id_set (\w+)\s*=\s*\{`)
	setFieldRE  = regexp.MustCompile(`\.set\s*=\s*&(\w+)`)
	registerRE  = regexp.MustCompile(`register_btf_kfunc_id_set\(\s*(\w+),\s*&(\w+)\)`)
	fmodretRE   = regexp.MustCompile(`register_btf_fmodret_id_set\(\s*&(\w+)\)`)
	kfuncDefRE  = regexp.MustCompile(`(?s)__bpf_kfunc\s+(?:notrace\s+|noinline\s+|static\s+)*([^;{}()]*?\b(\w+)\s*\([^{;]*?\))\s*\{`)
)

// kfuncs adds the kernel functions that programs may call: flags, program
// types (UNSPEC is all) and the definition's prototype, which module BTF would
// be needed for otherwise.
func (t tree) kfuncs(out *records) error {
	type kfunc struct {
		flags string
		types map[string]bool
	}
	all := map[string]*kfunc{}
	sets := map[string][]string{}
	lists := map[string]string{}
	protos := map[string]string{}
	registered := map[string][]string{}
	err := t.each(sourceDirs, "kfunc", func(path, text string) {
		for _, m := range kfuncSetRE.FindAllStringSubmatch(text, -1) {
			for _, id := range kfuncIDRE.FindAllStringSubmatch(m[2], -1) {
				var flags []string
				for _, f := range strings.Split(id[2], "|") {
					if f = strings.TrimSpace(f); f != "" {
						flags = append(flags, strings.TrimPrefix(f, "KF_"))
					}
				}
				sets[path+":"+m[1]] = append(sets[path+":"+m[1]], id[1])
				k := all[id[1]]
				if k == nil {
					k = &kfunc{types: map[string]bool{}}
					all[id[1]] = k
				}
				if k.flags == "" {
					k.flags = strings.Join(flags, ",")
				}
			}
		}
		for _, m := range kfuncListRE.FindAllStringSubmatchIndex(text, -1) {
			body, _ := block(text, m[0], '{', '}')
			if s := setFieldRE.FindStringSubmatch(body); s != nil {
				lists[path+":"+text[m[2]:m[3]]] = path + ":" + s[1]
			}
		}
		for _, m := range registerRE.FindAllStringSubmatch(text, -1) {
			list := path + ":" + m[2]
			registered[list] = append(registered[list], strings.TrimPrefix(m[1], "BPF_PROG_TYPE_"))
		}
		for _, m := range fmodretRE.FindAllStringSubmatch(text, -1) {
			registered[path+":"+m[1]] = append(registered[path+":"+m[1]], "-")
		}
		for _, m := range kfuncDefRE.FindAllStringSubmatch(text, -1) {
			protos[m[2]] = strings.NewReplacer("( ", "(", " )", ")").Replace(squeeze(m[1]))
		}
	})
	if err != nil {
		return err
	}
	for list, types := range registered {
		for _, name := range sets[lists[list]] {
			for _, typ := range types {
				all[name].types[typ] = true
			}
		}
	}
	for _, name := range sortedKeys(all) {
		k := all[name]
		if len(k.types) == 0 {
			continue // an fmodret set, or a set that only a filter names
		}
		flags := k.flags
		if flags == "" {
			flags = "-"
		}
		proto := protos[name]
		if proto == "" {
			proto = "-"
		}
		out.add("kfunc", name, flags, strings.Join(sortedKeys(k.types), ","), proto)
	}
	return nil
}

var (
	syscallRE = regexp.MustCompile(`\bSYSCALL_DEFINE[0-6]\s*\(`)
	userRE    = regexp.MustCompile(`\b__user\b|\b__capability\b`)
)

// syscallTables are the architectures, their number tables and the ABIs that a
// 64-bit kernel takes from them.
var syscallTables = []struct{ arch, path, abis string }{
	{"amd64", "arch/x86/entry/syscalls/syscall_64.tbl", "common 64"},
	{"386", "arch/x86/entry/syscalls/syscall_32.tbl", "i386"},
	{"arm64", "scripts/syscall.tbl", "common 64 renameat rlimit memfd_secret"},
	{"riscv64", "scripts/syscall.tbl", "common 64 riscv rlimit memfd_secret"},
}

// syscalls adds numbers and arguments. Among definitions of one name the last
// one of a file is the default branch of its conditionals.
func (t tree) syscalls(out *records) error {
	defs := map[string]string{}
	dirs := []string{
		"kernel", "fs", "mm", "ipc", "net", "security", "block", "io_uring", "drivers/char", "drivers/pci", "lib", "virt",
		"arch/arm64/kernel", "arch/riscv/kernel", "arch/x86",
	}
	err := t.each(dirs, "SYSCALL_DEFINE", func(_, text string) {
		for _, m := range syscallRE.FindAllStringIndex(text, -1) {
			body, _ := block(text, m[1]-1, '(', ')')
			parts := split(body)
			if len(parts) == 0 {
				continue
			}
			var args []string
			for n := 1; n+1 < len(parts); n += 2 {
				args = append(args, squeeze(userRE.ReplaceAllString(parts[n], ""))+" "+parts[n+1])
			}
			defs[parts[0]] = strings.Join(args, ", ")
		}
	})
	if err != nil {
		return err
	}
	for _, table := range syscallTables {
		b, err := os.ReadFile(filepath.Join(t.root, table.path))
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(b), "\n") {
			f := strings.Fields(line)
			if len(f) < 3 || strings.HasPrefix(f[0], "#") || !strings.Contains(" "+table.abis+" ", " "+f[1]+" ") {
				continue
			}
			entry := "-"
			if len(f) > 3 {
				entry = strings.TrimPrefix(f[3], "sys_")
			}
			if _, err := strconv.Atoi(f[0]); err != nil {
				return fmt.Errorf("%s: %q", table.path, line)
			}
			out.add("syscall", table.arch, f[0], f[2], entry)
		}
	}
	for _, name := range sortedKeys(defs) {
		out.add("sysargs", name, defs[name])
	}
	return nil
}

// families are the constants that scripts use without headers, by the header
// that has them. "asm" is the architecture's header and the generic one.
var families = []struct{ header, names string }{
	{"include/uapi/asm-generic/errno-base.h", `E[A-Z0-9]+`},
	{"asm/errno.h", `E[A-Z0-9]+`},
	{"include/linux/errno.h", `E[A-Z0-9]+`},
	{"asm/fcntl.h", `(O|F|AT|FD)_[A-Z0-9_]+`},
	{"include/uapi/linux/fcntl.h", `(O|F|AT|DN|RWH)_[A-Z0-9_]+`},
	{"asm/mman.h", `(PROT|MAP|MADV|MCL|MS|MLOCK)_[A-Z0-9_]+`},
	{"include/uapi/asm-generic/mman-common.h", `(PROT|MAP|MADV|MCL|MS|MLOCK)_[A-Z0-9_]+`},
	{"include/uapi/linux/mman.h", `(MAP|MREMAP|MAP_HUGE)_[A-Z0-9_]+`},
	{"asm/signal.h", `SIG[A-Z0-9]+|SA_[A-Z]+|SIG_[A-Z]+`},
	{"include/uapi/asm-generic/signal-defs.h", `SIG_[A-Z]+|SA_[A-Z]+`},
	{"asm/socket.h", `(SO|SOL|SCM)_[A-Z0-9_]+`},
	{"asm/resource.h", `(RLIMIT|RLIM)_[A-Z]+`},
	{"include/uapi/linux/resource.h", `(RUSAGE|PRIO)_[A-Z]+`},
	{"asm/poll.h", `POLL[A-Z]+`},
	{"asm/ioctls.h", `(TC|TIO|FIO)[A-Z0-9]+`},
	{"include/linux/socket.h", `(AF|PF|MSG|SOL|SCM)_[A-Z0-9_]+`},
	{"include/linux/net.h", `(SOCK|SHUT|SS)_[A-Z]+`},
	{"include/uapi/linux/in.h", `(IPPROTO|IP|INADDR|MCAST)_[A-Z0-9_]+`},
	{"include/uapi/linux/in6.h", `(IPPROTO|IPV6)_[A-Z0-9_]+`},
	{"include/uapi/linux/stat.h", `S_I[A-Z]+|STATX_[A-Z_]+`},
	{"include/uapi/linux/sched.h", `(CLONE|SCHED)_[A-Z0-9_]+`},
	{"include/uapi/linux/eventpoll.h", `EPOLL[A-Z_]*`},
	{"include/uapi/linux/futex.h", `FUTEX2?_[A-Z0-9_]+`},
	{"include/net/tcp_states.h", `TCPF?_[A-Z0-9_]+`},
	{"include/uapi/linux/tcp.h", `TCP_[A-Z0-9_]+`},
	{"include/uapi/linux/udp.h", `UDP_[A-Z0-9_]+`},
	{"include/uapi/linux/ioprio.h", `IOPRIO_[A-Z_]+`},
	{"include/linux/blk_types.h", `REQ_OP_(READ|WRITE|FLUSH|DISCARD|SECURE_ERASE|WRITE_ZEROES|DRV_IN|DRV_OUT)`},
	{"include/linux/sched.h", `(__)?TASK_(RUNNING|INTERRUPTIBLE|UNINTERRUPTIBLE|STOPPED|TRACED|PARKED|DEAD)|PF_(EXITING|KTHREAD|IO_WORKER|WQ_WORKER|FORKNOEXEC|SIGNALED|NOFREEZE)`},
	{"include/uapi/linux/fs.h", `(SEEK|RWF|RENAME)_[A-Z]+`},
	{"include/linux/fs_types.h", `DT_[A-Z]+`},
	{"include/uapi/linux/mount.h", `(MS|MNT|MOUNT|FSMOUNT|OPEN_TREE|MOVE_MOUNT)_[A-Z_]+`},
	{"include/linux/fs.h", `MNT_(FORCE|DETACH|EXPIRE)|UMOUNT_NOFOLLOW`},
	{"include/uapi/linux/prctl.h", `PR_[A-Z0-9_]+`},
	{"include/uapi/linux/ptrace.h", `PTRACE_[A-Z_]+`},
	{"include/uapi/linux/capability.h", `CAP_[A-Z_]+`},
	{"include/uapi/linux/if_ether.h", `ETH_[A-Z0-9_]+`},
	{"include/uapi/linux/wait.h", `W[A-Z]+|P_(ALL|PID|PGID|PIDFD)|__W[A-Z]+`},
	{"include/uapi/linux/time.h", `(CLOCK|ITIMER|TIMER)_[A-Z_]+`},
	{"include/uapi/linux/random.h", `GRND_[A-Z]+`},
	{"include/uapi/linux/memfd.h", `MFD_[A-Z0-9_]+`},
	{"include/uapi/linux/inotify.h", `IN_[A-Z_]+`},
	{"include/uapi/linux/netlink.h", `NETLINK_[A-Z0-9_]+|NLM_F_[A-Z_]+`},
	{"include/uapi/linux/seccomp.h", `SECCOMP_[A-Z0-9_]+`},
	{"include/uapi/linux/xattr.h", `XATTR_(CREATE|REPLACE)`},
	{"include/uapi/linux/icmp.h", `ICMP_[A-Z_]+`},
	{"include/uapi/linux/magic.h", `[A-Z0-9_]+_MAGIC`},
	{"include/uapi/linux/limits.h", `(PATH|NAME)_MAX`},
	{"include/uapi/linux/if.h", `IFNAMSIZ`},
	{"include/uapi/linux/bpf.h", `BPF_F_[A-Z_]+|BPF_(ANY|NOEXIST|EXIST)`},
}

// lock64 names commands that only 32-bit programs use.
var lock64 = regexp.MustCompile(`^F_(OFD_)?(GET|SET)LKW?64$`)

// constants adds those of every architecture; values are those of the C
// preprocessor's first definition, the architecture's header coming first.
func (t tree) constants(out *records) {
	for _, arch := range []struct{ name, dir string }{{"amd64", "x86"}, {"arm64", "arm64"}, {"riscv64", "riscv"}} {
		s := newScope()
		for _, h := range []string{"include/uapi/linux/const.h", "include/uapi/asm-generic/ioctl.h", "include/linux/const.h", "include/vdso/const.h"} {
			s.header(t.read(h))
		}
		s.funcs["BIT"] = function{"nr", "(1 << (nr))"}
		s.funcs["_BITUL"] = s.funcs["BIT"]
		var names []string
		for _, f := range families {
			before := len(s.order)
			if name, ok := strings.CutPrefix(f.header, "asm/"); ok {
				s.header(t.read("arch/" + arch.dir + "/include/uapi/asm/" + name))
				s.header(t.read("include/uapi/asm-generic/" + name))
			} else {
				s.header(t.read(f.header))
			}
			match := regexp.MustCompile(`^(?:` + f.names + `)$`)
			for _, name := range s.order[before:] {
				if match.MatchString(name) && !lock64.MatchString(name) {
					names = append(names, name)
				}
			}
		}
		for _, name := range names {
			if v, ok := s.value(name); ok {
				out.add("const", arch.name, name, v)
			}
		}
	}
}
