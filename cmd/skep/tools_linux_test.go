package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/kernel"
)

var update = flag.Bool("update", false, "write what was measured into CONFORMANCE.md")

// A tool is one of the scripts that Debian's bpftrace package installs.
type tool struct {
	name string
	// load is a shell script that makes the tool print want. Where it is
	// empty, none says why there is no such load.
	load, want, none string
	// first is run before the tool is started.
	first string
	// wait is how long the tool goes on after the load.
	wait time.Duration
	// missing says, by the series of the kernel ("live" for the live one),
	// what is not there that the tool needs.
	missing map[string]string
	// silent are kernels on which the load cannot be had, and why.
	silent map[string]string
}

const (
	noKprobes = "no kprobes"
	noPoint   = "none of the attach points exists"
	noDisk    = "on the live kernel the test writes to no disk"

	// block writes to a file system on a loop device.
	block = `dd if=/dev/zero of=/tmp/skep-load/mnt/$$ bs=4k count=64 conv=fsync; sync; sleep 0.2; sync`
	// files opens, reads, writes and looks up files.
	files = `echo one > /tmp/skep-$$; cat /tmp/skep-$$ /tmp/skep-none/skep-nosuch /tmp/skep-nosuch; rm /tmp/skep-$$`
	// tcp opens a connection within a network namespace of its own.
	tcp = `unshare -n sh -c 'ip link set lo up; (echo hello | nc -l -p 4444 >/dev/null) & sleep 0.5; echo hi | nc -w 1 127.0.0.1 4444; wait'`
	// unanswered connects to an address that nobody has.
	unanswered = `unshare -n sh -c 'ip link add v0 type veth peer name v1; ip addr add 10.9.9.1/24 dev v0; ip link set v0 up; ip link set v1 up; nc -w 5 10.9.9.2 4444 </dev/null'`
	// tls makes a handshake between two processes.
	tls = `unshare -n sh -c 'ip link set lo up; openssl s_server -accept 4433 -key /tmp/skep-load/key -cert /tmp/skep-load/crt -naccept 1 -quiet & sleep 1.5; (echo hello; sleep 1) | openssl s_client -connect 127.0.0.1:4433 -quiet; wait'`
)

// tools is the table. Each works on at least one kernel, except where missing
// names all of them.
var tools = []tool{
	{name: "bashreadline", load: `echo 'echo skep was here' | bash --norc --noprofile -i`, want: `\d\d:\d\d:\d\d  \d+ +echo skep was here`},
	{name: "biolatency", load: block, want: `@usecs: ?\n\[.*\|`, missing: map[string]string{"live": noKprobes, "6.1": noPoint, "6.12": "blk_account_io_start cannot be probed"}},
	{name: "biosnoop", load: block, want: `\n\d+ +loop0 +\S+ +\d+ +\d+\n`, missing: map[string]string{"live": noKprobes, "6.1": noPoint, "6.12": "blk_account_io_start cannot be probed"}},
	{name: "biostacks", load: block, want: `(?s)@usecs\[\n +\w+\+\d+\n.*\]: ?\n\[.*\|`, missing: map[string]string{"live": noKprobes, "6.1": noPoint, "6.12": "blk_account_io_start cannot be probed"}},
	{name: "bitesize", load: block, want: `@\[\S+\]: ?\n\[.*\|`, silent: map[string]string{"live": noDisk}},
	{name: "capable", load: `chown 1 /tmp; chown 0 /tmp`, want: `\d\d:\d\d:\d\d  0 +\d+ +\S+ +\d+ +CAP_\w+ +\d`, missing: map[string]string{"live": noKprobes}},
	{name: "cpuwalk", load: `timeout 0.7 sh -c 'while :; do :; done'`, want: `@cpu: ?\n\[.*\|`},
	{name: "dcsnoop", load: files, want: `cat +R tmp/skep-none/skep-nosuch\n`, missing: map[string]string{"live": noKprobes}},
	{name: "execsnoop", load: `env true skep args`, want: `\n\d+ +\d+ +(\S*/)?true skep args\n`},
	{name: "gethostlatency", load: `bash -c 'exec 3<>/dev/tcp/localhost/1'`, want: `bash +\d+ localhost`},
	{name: "killsnoop", load: `kill -0 $$`, want: `\d\d:\d\d:\d\d  \d+ +\S+ +0 +\d+ +0\n`},
	{name: "loads", load: `true`, wait: 1500 * time.Millisecond, want: `load averages: \d+\.\d{3} \d+\.\d{3} \d+\.\d{3}\n`, missing: map[string]string{"live": `no symbol "avenrun"`}},
	{
		name: "mdflush", first: `[ -e /sys/block/md_skep ] || { echo md_skep > /sys/module/md_mod/parameters/new_array; cd /sys/block/md_skep/md; echo raid1 > level; echo 1 > raid_disks; echo 7:1 > new_dev; echo 16384 > component_size; echo 0 > dev-loop1/slot; echo active > array_state; }`,
		load: `dd if=/dev/zero of=/dev/md_skep bs=4k count=1 conv=fsync`, want: `\d\d:\d\d:\d\d \d+ +dd +md_skep`,
		missing: map[string]string{"live": `no kernel function "md_flush_request"`},
	},
	{name: "naptime", load: `skep-load nanosleep`, want: `\d\d:\d\d:\d\d \d+ +\S+ +\d+ +skep-load +0\.\d{3}`},
	{name: "oomkill", load: `skep-load oom`, want: `Triggered by PID \d+ \(".*"\), OOM kill of PID \d+ \("skep-load.*"\), \d+ pages, loadavg: \d`, missing: map[string]string{"live": noKprobes}},
	{name: "opensnoop", load: files, want: `\n\d+ +cat +-1 +2 /tmp/skep-none/skep-nosuch\n`},
	{name: "pidpersec", load: `true; env true; env true`, wait: 1500 * time.Millisecond, want: `\d\d:\d\d:\d\d PIDs/sec: @: \d+`},
	{name: "runqlat", load: files, want: `@usecs: ?\n\[.*\|`},
	{name: "runqlen", load: `timeout 0.7 sh -c 'while :; do :; done'`, want: `@runqlen: ?\n\[.*\|`, missing: map[string]string{"live": `struct cfs_rq has no field "nr_running"`}},
	{name: "setuids", load: `skep-load setuid`, want: `\d\d:\d\d:\d\d \d+ +skep-load +0 +setuid +uid=0 \(0\)`},
	{name: "ssllatency", load: tls, want: `@(stat|hist)F?\[SSL_(read|write|do_handshake)\]:`},
	{name: "sslsnoop", load: tls, want: `\n\d+ +\d+ +openssl +\d+ +-?\d+ SSL_(read|write)\n`},
	{name: "statsnoop", load: `stat -f /tmp`, want: `\n\d+ +stat +0 /tmp\n`},
	{name: "swapin", load: `skep-load swap`, wait: 1500 * time.Millisecond, want: `@\[skep-load, \d+\]: \d+`, missing: map[string]string{"live": `no kernel function "swap_readpage"`, "6.12": `no kernel function "swap_readpage"`}},
	{name: "syncsnoop", load: `sync /tmp; sync`, want: `\d\d:\d\d:\d\d  \d+ +sync +tracepoint:syscalls:sys_enter_\w*sync`},
	{name: "syscount", load: files, want: `(?s)Top 10 syscalls IDs:\n@syscall\[\d+\]: \d+.*Top 10 processes:\n@process\[\S+\]: \d+`},
	{name: "tcpaccept", load: tcp, want: `\d\d:\d\d:\d\d \d+ +nc +(::ffff:)?127\.0\.0\.1 +\d+ +(::ffff:)?127\.0\.0\.1 +4444 +\d/\d+`, missing: map[string]string{"live": noKprobes}},
	{name: "tcpconnect", load: tcp, want: `\d\d:\d\d:\d\d \d+ +nc +127\.0\.0\.1 +\d+ +127\.0\.0\.1 +4444`, missing: map[string]string{"live": noKprobes}},
	{name: "tcpdrop", load: unanswered, want: `(?s)10\.9\.9\.1:\d+ +10\.9\.9\.2:4444 +SYN_SENT *\n.*\+\d+\n`},
	{name: "tcplife", load: tcp, want: `\n\d+ +nc +127\.0\.0\.1 +\d+ +127\.0\.0\.1 +4444 +\d+ +\d+ \d+\n`, missing: map[string]string{"live": noKprobes}},
	{name: "tcpretrans", load: unanswered, want: `10\.9\.9\.1:\d+ +10\.9\.9\.2:4444 +SYN_SENT`, missing: map[string]string{"live": noKprobes}},
	{name: "tcpsynbl", load: tcp, want: `@backlog\[\d+\]: ?\n\[.*\|`, missing: map[string]string{"live": noKprobes}},
	{name: "threadsnoop", load: `/usr/bin/xz -T2 -c /usr/bin/xz > /dev/null`, want: `\n\d+ +\d+ +xz +\S+\n`},
	{name: "undump", load: `skep-load unix`, want: `skep-load +\d+ +5 +hello`, missing: map[string]string{"live": noKprobes}},
	{name: "vfscount", load: files, want: `@\[vfs_read\]: \d+`, missing: map[string]string{"live": noKprobes}},
	{name: "vfsstat", load: files, wait: 1500 * time.Millisecond, want: `\d\d:\d\d:\d\d\n@\[vfs_\w+\]: \d+`, missing: map[string]string{"live": noKprobes}},
	{name: "writeback", load: block, want: `\d\d:\d\d:\d\d  \S+ +\d+ +\w+ +\d+\.\d{3}`, silent: map[string]string{"live": noDisk}},
	{name: "xfsdist", load: `dd if=/dev/zero of=/tmp/skep-load/xfs/$$ bs=4k count=64 conv=fsync; cat /tmp/skep-load/xfs/* > /dev/null`, want: `@us\[xfs_file_(read_iter|write_iter|open|fsync)\]: ?\n\[.*\|`, missing: map[string]string{"live": noKprobes}},
}

// An outcome is how a tool fared on a kernel.
type outcome struct {
	Attached bool
	Printed  bool
	// Why is what was missing when it did not attach.
	Why    string
	Output string
}

// installed returns the scripts of the package, by name.
func installed(t *testing.T) map[string]string {
	t.Helper()
	var list []byte
	if testenv.InGuest() == "" {
		testenv.NeedTool(t, "bpftrace")
		var err error
		if list, err = exec.Command("dpkg", "-L", "bpftrace").Output(); err != nil {
			testenv.Skip(t, testenv.Tool, "dpkg does not know the package bpftrace")
		}
	} else {
		names, _ := filepath.Glob("/usr/sbin/*.bt")
		list = []byte(strings.Join(names, "\n"))
	}
	scripts := map[string]string{}
	for path := range strings.Lines(string(list)) {
		path = strings.TrimSpace(path)
		if name, ok := strings.CutSuffix(filepath.Base(path), ".bt"); ok {
			scripts[name] = path
		}
	}
	return scripts
}

// setup makes the surroundings that some loads want.
const setup = `
if [ -n "$SKEP_GUEST" ] && [ ! -d /tmp/skep-load/mnt ]; then
	mkdir -p /tmp/skep-load/mnt
	for i in 0 1 2; do
		dd if=/dev/zero of=/tmp/skep-load/disk$i bs=1M count=24
		losetup /dev/loop$i /tmp/skep-load/disk$i
	done
	mke2fs /dev/loop0 && mount -t ext4 /dev/loop0 /tmp/skep-load/mnt
	mkdir -p /tmp/skep-load/xfs
	truncate -s 320M /tmp/skep-load/disk3
	mkfs.xfs -q /tmp/skep-load/disk3 && mount -o loop -t xfs /tmp/skep-load/disk3 /tmp/skep-load/xfs
	mkswap /dev/loop2 && swapon /dev/loop2
	echo +memory > /sys/fs/cgroup/cgroup.subtree_control
	echo '127.0.0.1 localhost' > /etc/hosts
fi
mkdir -p /tmp/skep-load/mnt
[ -e /tmp/skep-load/crt ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /tmp/skep-load/key -out /tmp/skep-load/crt -days 9 -subj /CN=skep
`

var runOnly = flag.String("tools", "", "run only the tools whose names match this")

// runTools runs every tool on this kernel.
func runTools(t *testing.T, scripts map[string]string) map[string]outcome {
	dir := t.TempDir()
	env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
	if testenv.InGuest() == "" {
		busybox := testenv.NeedTool(t, "busybox")
		if out, err := exec.Command(busybox, "--install", "-s", dir).CombinedOutput(); err != nil {
			t.Fatalf("busybox: %v\n%s", err, out)
		}
	}
	script := func(s string) {
		cmd := exec.Command("sh", "-c", s)
		cmd.Env, cmd.Dir = env, "/tmp"
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.WaitDelay = time.Second
		if err := cmd.Start(); err != nil {
			t.Error(err)
			return
		}
		timer := time.AfterFunc(30*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		err := cmd.Wait()
		timer.Stop()
		if *runOnly != "" {
			t.Logf("%s: %v\n%s", s, err, out.String())
		}
	}
	script(setup)
	only := regexp.MustCompile(*runOnly)
	results := map[string]outcome{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	free := make(chan bool, 3)
	for _, tool := range tools {
		if !only.MatchString(tool.name) {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			free <- true
			defer func() { <-free }()
			r := runTool(t, tool, scripts[tool.name], env, script)
			mu.Lock()
			results[tool.name] = r
			mu.Unlock()
		}()
	}
	wg.Wait()
	return results
}

// runTool starts a tool, waits until it is attached, makes its load and ends it.
func runTool(t *testing.T, tool tool, path string, env []string, script func(string)) outcome {
	if tool.first != "" && testenv.InGuest() != "" {
		script(tool.first)
	}
	cmd := exec.Command("skep", "run", path)
	cmd.Env = env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Error(err)
		return outcome{}
	}
	cmd.Stderr = pw
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return outcome{}
	}
	pw.Close()
	defer pr.Close()
	// Whatever happens, it ends.
	stop := time.AfterFunc(90*time.Second, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	var stderr strings.Builder
	attached := make(chan bool, 1)
	ended := make(chan bool)
	go func() {
		defer close(ended)
		buf := make([]byte, 4096)
		for {
			n, err := pr.Read(buf)
			stderr.Write(buf[:n])
			if strings.Contains(stderr.String(), "Attached ") {
				select {
				case attached <- true:
				default:
				}
			}
			if err != nil {
				return
			}
		}
	}()
	var r outcome
	select {
	case <-attached:
		r.Attached = true
		if tool.load != "" {
			script(tool.load)
		}
		time.Sleep(tool.wait + 500*time.Millisecond)
		_ = cmd.Process.Signal(os.Interrupt)
		kill := time.AfterFunc(15*time.Second, func() {
			_ = cmd.Process.Signal(syscall.SIGQUIT)
		})
		err = cmd.Wait()
		if !kill.Stop() {
			err = errors.New("it did not end when it was interrupted")
		}
		<-ended
	case <-ended:
		err = cmd.Wait()
	}
	r.Output = stdout.String() + stderr.String()
	r.Printed = tool.want != "" && regexp.MustCompile(tool.want).MatchString(stdout.String())
	if err != nil {
		r.Attached, r.Printed = false, false
		r.Why = err.Error()
		for line := range strings.Lines(stderr.String()) {
			if e, ok := strings.CutPrefix(line, "error: "); ok {
				r.Why = strings.TrimSpace(e)
				break
			}
		}
	}
	return r
}

const opensslConf = "/etc/ssl/openssl.cnf"

const resultFile = "/tmp/skep-tools.json"

// TestTools runs all scripts of Debian's bpftrace package on the live kernel
// and in both guests.
func TestTools(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	scripts := installed(t)
	if testenv.InGuest() != "" {
		data, err := json.Marshal(runTools(t, scripts))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(resultFile, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	known := map[string]bool{}
	for _, tool := range tools {
		known[tool.name] = true
		if scripts[tool.name] == "" {
			t.Errorf("%s is in the table, but the package does not install it", tool.name)
		}
	}
	for name := range scripts {
		if !known[name] {
			t.Errorf("%s is installed, but not in the table", name)
		}
	}
	results := map[string]map[string]outcome{}
	t.Run("live", func(t *testing.T) {
		testenv.NeedRoot(t)
		testenv.NeedBPF(t)
		results["live"] = runTools(t, scripts)
	})
	for _, k := range guest.Kernels {
		t.Run(k.String(), func(t *testing.T) {
			results[k.Series] = inGuest(t, k, scripts)
		})
	}
	for name, byTool := range results {
		for _, tool := range tools {
			r, ok := byTool[tool.name]
			if !ok {
				continue
			}
			t.Logf("%s on %s: attached %v, printed %v: %s", tool.name, name, r.Attached, r.Printed, r.Why)
			if !r.Printed {
				t.Logf("%s", r.Output)
			}
		}
	}
	if *runOnly != "" || t.Failed() || len(results) < 3 {
		return
	}
	judge(t, results)
}

// inGuest runs the tools in a guest.
func inGuest(t *testing.T, k guest.Kernel, scripts map[string]string) map[string]outcome {
	guest.Need(t)
	cfg := guest.Config{
		Files:   guest.Files{},
		Modules: []string{"loop", "ext4", "xfs", "raid1", "md-mod", "veth"},
	}
	for _, path := range scripts {
		cfg.Files[path] = path
	}
	if _, err := os.Stat(opensslConf); err == nil {
		cfg.Files["/usr/lib/ssl/openssl.cnf"] = opensslConf
	}
	for _, p := range []string{"bash", "openssl", "xz", "mkfs.xfs"} {
		cfg.Files.Add(guest.Program(t, p))
	}
	s := guest.Boot(t, k, cfg)
	args := []string{"/init", "-test.run=^TestTools$", "-test.v", "-test.count=1", "-test.timeout=9m"}
	if *runOnly != "" {
		args = append(args, "-tools="+*runOnly)
	}
	r, err := s.Run(guest.Cmd{Args: args, Timeout: 10 * time.Minute, Collect: []string{resultFile}})
	if err != nil {
		t.Fatal(err)
	}
	if *runOnly != "" || r.Code != 0 {
		t.Logf("%s%s", r.Stdout, r.Stderr)
	}
	results := map[string]outcome{}
	if err := json.Unmarshal(r.Files[resultFile], &results); err != nil {
		t.Fatalf("no results: %v\n%s%s", err, r.Stdout, r.Stderr)
	}
	return results
}

// judge holds what was measured against the table of CONFORMANCE.md.
func judge(t *testing.T, results map[string]map[string]outcome) {
	kernels := []string{"6.1", "6.12", "live"}
	liveName := "live"
	if target, err := kernel.Target(); err == nil {
		liveName = fmt.Sprintf("%d.%d", target.Release().Major, target.Release().Minor)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| tool | 6.1 | 6.12 | %s | remarks |\n|---|---|---|---|---|\n", liveName)
	for _, tool := range tools {
		works := false
		fmt.Fprintf(&b, "| `%s.bt` |", tool.name)
		var remarks []string
		for _, k := range kernels {
			r := results[k][tool.name]
			switch {
			case r.Printed:
				b.WriteString(" prints |")
			case r.Attached:
				b.WriteString(" attaches |")
			default:
				b.WriteString(" no |")
				remark := r.Why
				name := k
				if k == "live" {
					name = liveName
				}
				remarks = append(remarks, name+": "+remark)
			}
			works = works || r.Attached
			if !r.Attached && tool.missing[k] == "" || !strings.Contains(r.Why, tool.missing[k]) {
				t.Errorf("%s does not attach on %s: %s\n%s", tool.name, k, r.Why, r.Output)
			}
			if r.Attached && !r.Printed && tool.none == "" && tool.silent[k] == "" {
				t.Errorf("%s prints nothing of the form %s on %s:\n%s", tool.name, tool.want, k, r.Output)
			}
			if why := tool.silent[k]; why != "" && r.Attached && !r.Printed && !slices.Contains(remarks, why) {
				remarks = append(remarks, why)
			}
		}
		if tool.none != "" {
			remarks = append(remarks, tool.none)
		}
		if !works && len(tool.missing) < len(kernels) {
			t.Errorf("%s works on no kernel", tool.name)
		}
		fmt.Fprintf(&b, " %s |\n", strings.Join(remarks, "; "))
	}
	conformance(t, "tools", b.String())
}

// conformance compares a part of CONFORMANCE.md with what was measured, or
// replaces it with -update.
func conformance(t *testing.T, part, want string) {
	t.Helper()
	const path = "../../CONFORMANCE.md"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+part+" -->\n", "<!-- end "+part+" -->"
	before, rest, ok := strings.Cut(string(data), begin)
	old, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no part between %q and %q", path, begin, end)
	}
	if old == want {
		return
	}
	if !*update {
		t.Errorf("%s says of %s:\n%s\nmeasured was:\n%s\n-update writes it", path, part, old, want)
		return
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// load does what no program of busybox does; it is the command skep-load.
func load() {
	if len(os.Args) != 2 {
		os.Exit(2)
	}
	switch os.Args[1] {
	case "nanosleep":
		_ = syscall.Nanosleep(&syscall.Timespec{Nsec: 50e6}, nil)
	case "setuid":
		_, _, _ = syscall.RawSyscall(syscall.SYS_SETUID, 0, 0, 0)
	case "unix":
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			os.Exit(1)
		}
		_, _ = syscall.Write(fds[0], []byte("hello"))
		_, _ = syscall.Read(fds[1], make([]byte, 16))
	case "oom", "swap":
		inCgroup(os.Args[1])
	case "oom-child", "swap-child":
		_, _ = io.ReadAll(os.Stdin) // until it is in its group
		memory := make([]byte, 32<<20)
		for range 3 {
			for i := 0; i < len(memory); i += 4096 {
				memory[i]++
			}
		}
	}
}

// inCgroup runs a process that takes more memory than its group may have.
func inCgroup(kind string) {
	dir := "/sys/fs/cgroup/skep-" + kind
	_ = os.Mkdir(dir, 0o755)
	defer os.Remove(dir)
	_ = os.WriteFile(dir+"/memory.max", []byte("25165824"), 0o600)
	if kind == "oom" {
		_ = os.WriteFile(dir+"/memory.swap.max", []byte("0"), 0o600)
	}
	cmd := exec.Command("skep-load", kind+"-child")
	stdin, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		os.Exit(1)
	}
	_ = os.WriteFile(dir+"/cgroup.procs", fmt.Append(nil, cmd.Process.Pid), 0o600)
	stdin.Close()
	_ = cmd.Wait()
}
