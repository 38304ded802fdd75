package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep/abi"
)

// needs are the privileges that an action wants of a process.
type needs struct {
	bpf, perfmon, net, syslog, admin bool
	token                            bool // a BPF token was given
	perf                             bool // perf_event_open(2) is part of it
}

// programNeeds says what loading a program takes (bpf_prog_load in
// kernel/bpf/syscall.c: is_net_admin_prog_type, is_perfmon_prog_type).
func programNeeds(p *program, token bool) needs {
	n := needs{bpf: true, token: token}
	switch p.abi.ProgType {
	case abi.ProgKprobe, abi.ProgTracepoint, abi.ProgPerfEvent, abi.ProgRawTracepoint,
		abi.ProgRawTracepointWritable, abi.ProgTracing, abi.ProgLSM, abi.ProgStructOps, abi.ProgExt:
		n.perfmon = true
	case abi.ProgSyscall, abi.ProgUnspec:
	case abi.ProgSocketFilter:
	default:
		n.net = true
	}
	if p.abi.ProgType == abi.ProgExt || p.abi.ProgType == abi.ProgStructOps {
		n.admin = p.abi.ProgType == abi.ProgStructOps
	}
	return n
}

// capabilities returns the effective capabilities of this process.
func capabilities() (uint64, error) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("CapEff:")); ok {
			return strconv.ParseUint(string(bytes.TrimSpace(rest)), 16, 64)
		}
	}
	return 0, errors.New("/proc/self/status does not tell the capabilities")
}

// MayTrace returns nil where this process may load and attach tracing programs,
// else an error that says what it lacks.
func MayTrace() error {
	if missing := missingCaps(needs{bpf: true, perfmon: true}); missing != "" {
		return errors.New("this process lacks " + missing)
	}
	// Capabilities in a user namespace, or in a container, may be worth nothing.
	if err := (probeProgram{typ: abi.ProgRawTracepoint}).load(); err != nil {
		return errors.New("the kernel lets this process load no programs")
	}
	return nil
}

// missingCaps names what this process lacks: "CAP_BPF and CAP_PERFMON", or ""
// when it lacks nothing or that cannot be told.
func missingCaps(n needs) string {
	have, err := capabilities()
	if err != nil || have>>unix.CAP_SYS_ADMIN&1 == 1 {
		return ""
	}
	var missing []string
	for _, c := range []struct {
		want bool
		bit  int
		name string
	}{
		{n.bpf, unix.CAP_BPF, "CAP_BPF"},
		{n.perfmon, unix.CAP_PERFMON, "CAP_PERFMON"},
		{n.net, unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
		{n.syslog, unix.CAP_SYSLOG, "CAP_SYSLOG"},
		{n.admin, unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"},
	} {
		if c.want && have>>c.bit&1 == 0 {
			missing = append(missing, c.name)
		}
	}
	switch len(missing) {
	case 0:
		return ""
	case 1:
		return missing[0]
	}
	return strings.Join(missing[:len(missing)-1], ", ") + " and " + missing[len(missing)-1]
}

// refused explains EPERM and EACCES.
func refused(what string, err error, n needs) error {
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s failed: %w", what, named(err))
	}
	e := &PrivilegeError{What: what, Err: named(err), Missing: missingCaps(n)}
	switch {
	case n.token:
		e.Missing = ""
		e.Why = "the BPF token does not allow it; mount the bpf file system with delegate_cmds, delegate_maps, delegate_progs and delegate_attachs that do"
	case e.Missing != "" && unprivilegedDisabled() && n.bpf:
		e.Why = "run as root, or give it (setcap, or AmbientCapabilities of systemd); kernel.unprivileged_bpf_disabled keeps others out"
	case e.Missing != "":
		e.Why = "run as root, or give it (setcap, or AmbientCapabilities of systemd)"
	case inUserNamespace() && n.perf:
		e.Why = "in a user namespace only raw tracepoints, fentry, fexit and iterators can be attached, with a BPF token (--token); what takes a perf event (tracepoints with fields, kprobes, uprobes, profile) has to run outside of it"
	case inUserNamespace():
		e.Why = "the capabilities of a user namespace do not count here: ask whoever runs it for a BPF token (--token), or run outside of it"
	case lockedDown("confidentiality"):
		e.Why = "the kernel is locked down (lockdown=confidentiality), which forbids reading its memory"
	case lockedDown("integrity"):
		e.Why = "the kernel is locked down (lockdown=integrity)"
	case n.perf && perfParanoid() > 2:
		e.Why = fmt.Sprintf("kernel.perf_event_paranoid is %d, at which this kernel lets CAP_SYS_ADMIN alone open perf events; set it to 2, or run as root", perfParanoid())
	default:
		e.Why = "this process has the capabilities, so the kernel's configuration, a security module or a container's seccomp filter forbids it"
	}
	return e
}

func readSys(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func unprivilegedDisabled() bool {
	v := readSys("/proc/sys/kernel/unprivileged_bpf_disabled")
	return v == "1" || v == "2"
}

func perfParanoid() int {
	n, err := strconv.Atoi(readSys("/proc/sys/kernel/perf_event_paranoid"))
	if err != nil {
		return 0
	}
	return n
}

func lockedDown(mode string) bool {
	return strings.Contains(readSys("/sys/kernel/security/lockdown"), "["+mode+"]")
}

// inUserNamespace reports whether this process is in a user namespace other
// than the first, whose map is all identifiers.
func inUserNamespace() bool {
	f := strings.Fields(readSys("/proc/self/uid_map"))
	return len(f) > 0 && !slices.Equal(f, []string{"0", "0", "4294967295"})
}

// memlockHint is what to say of a lack of memory: kernels before 5.11 charge
// maps and programs against a limit of the process.
func memlockHint() string {
	t, err := Target()
	if err != nil || t.Release().AtLeast(5, 11) {
		return ""
	}
	return " (this kernel charges it against RLIMIT_MEMLOCK: raise it, ulimit -l unlimited)"
}

// named gives an errno its name, so that nobody sees a bare number or text.
func named(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		if name := abi.ErrnoName(int(errno)); name != "" && !strings.Contains(err.Error(), name) {
			return &namedError{fmt.Sprintf("%v, %s", err, name), err}
		}
		if errno == errNotSupp {
			return &namedError{"not supported, ENOTSUPP", err}
		}
	}
	return err
}

type namedError struct {
	text string
	err  error
}

func (e *namedError) Error() string { return e.text }
func (e *namedError) Unwrap() error { return e.err }

func durationNS(n uint64) time.Duration { return time.Duration(min(n, 1<<62)) }

// createToken takes a BPF token from a bpf file system that was mounted with
// rights to delegate.
func createToken(path string) (int, error) {
	dir, err := unix.Open(path, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("the BPF token of %s cannot be had: %w", path, named(err))
	}
	defer unix.Close(dir)
	fd, err := sysBPF(cmdTokenCreate, &attrToken{bpffs: uint32(dir)})
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EINVAL) && !isBPFFS(dir):
		return -1, fmt.Errorf("%s is no bpf file system, and so gives no BPF token", path)
	case errors.Is(err, unix.EINVAL):
		if t, err := Target(); err == nil && !t.Release().AtLeast(6, 9) {
			return -1, errors.New("the kernel has no BPF tokens (Linux has them since 6.9)")
		}
		return -1, fmt.Errorf("%s gives no BPF token: %w", path, named(err))
	case errors.Is(err, unix.ENOENT):
		return -1, fmt.Errorf("%s gives no BPF token: it was mounted without delegate_cmds, delegate_maps, delegate_progs or delegate_attachs", path)
	case errors.Is(err, unix.EOPNOTSUPP):
		return -1, fmt.Errorf("%s gives no BPF token: tokens are for user namespaces, and this is the first one, where capabilities do", path)
	case errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("%s gives no BPF token: it must have been mounted for the user namespace of this process, which needs CAP_BPF in it: %w", path, named(err))
	}
	return -1, fmt.Errorf("%s gives no BPF token: %w", path, named(err))
}

const bpfFSMagic = 0xcafe4a11

func isBPFFS(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && uint32(st.Type) == bpfFSMagic
}
