package main

import (
	"bytes"
	"errors"
	"fmt"
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

	"github.com/skep-bpf/skep/internal/testenv"
)

// Why what skep prints differs from what bpftrace 0.17 prints, and what turns
// the one into the other.
var (
	lowerCase = difference{
		"the names of `BEGIN` and `END` are written small since 0.25",
		strings.NewReplacer("BEGIN", "begin").Replace,
	}
	booleans = difference{
		"comparisons are of type bool since 0.24",
		strings.NewReplacer("[1]", "[true]", "[1,", "[true,", "(1,", "(true,", ", 1, ", ", true, ", ", 1]", ", true]").Replace,
	}
	emptyLine = difference{
		"newer versions write no empty line after averages and statistics",
		func(s string) string { return blankAfter.ReplaceAllString(s, "$1\n") },
	}
	sign = difference{
		"strncmp says which string comes first, as in C; 0.17 says only that they differ",
		strings.NewReplacer("0 1\n", "0 -1\n").Replace,
	}
	escaped = difference{
		"control characters are escaped, so that traced text does not steer a terminal",
		strings.NewReplacer("\x01", `\x01`).Replace,
	}
	lateNames = difference{
		"0.17 finds no names in processes that have ended",
		func(s string) string { return hexNumber.ReplaceAllLiteralString(s, "getuid") },
	}
)

// A difference from bpftrace is by nature, or by the newer version of the
// language. adapt makes what a newer bpftrace prints of what 0.17 does.
type difference struct {
	why   string
	adapt func(string) string
}

// A form is how outputs are compared: as they are, or else by shape, which is
// the set of their lines after numbers were replaced.
type form int

const shape form = 1

// besideScripts are run by both. Those that speak of cpid trace the program
// work, whose events are known, or bash, which calls getuid of libc.
var besideScripts = []struct {
	script string
	form   form
	differ *difference
}{
	{script: `BEGIN { printf("%d %s %5d|%-5d|%05d %x %X %c %u %d\n", 1, "str", 42, 42, 42, 255, 255, 65, 7, -7); exit(); }`},
	{script: `BEGIN { printf("%10s|%-10s|%.2s|%p|%llx|%lld\n", "abc", "abc", "abc", 0x1234, 0xdeadbeef, -1); exit(); }`},
	{script: `BEGIN { @ = 1; @a = "text"; @b[1] = 2; @c["x", 3] = 4; @d = (1, "two", (3, 4)); exit(); }`},
	{script: `BEGIN { @[3] = 1; @[1] = 3; @[2] = 2; @n[-1] = -2; @u = (uint64)-1; exit(); }`},
	{script: `BEGIN { @c = count(); @s = sum(5); @z = sum(0); @mn = min(3); @mx = max(9); @c1[1] = count(); @s1["k"] = sum(-5); exit(); }`},
	{script: `BEGIN { @a = avg(7); @st = stats(4); @k[1] = stats(5); @k[1] = stats(15); @b = avg(-5); @b = avg(-6); exit(); }`, differ: &emptyLine},
	{script: `BEGIN { @h = hist(1); @h = hist(5); @h = hist(0); @h = hist(-1); @h = hist(1000); @h = hist(1048576); exit(); }`},
	{script: `BEGIN { @l = lhist(5, 0, 100, 10); @l = lhist(55, 0, 100, 10); @l = lhist(-5, 0, 100, 10); @l = lhist(500, 0, 100, 10); exit(); }`},
	{script: `BEGIN { @l["a"] = lhist(5, 0, 100, 10); @l["b"] = lhist(105, 0, 100, 10); @h["x", 1] = hist(7); exit(); }`},
	{script: `BEGIN { print(1); print("s"); print((1, "x", 2)); print(-1); @t = (1, (2, "a")); print(@t); exit(); }`},
	{script: `BEGIN { @x[1] = 10; @x[2] = 30; @x[3] = 20; print(@x, 2); print(@x, 1, 10); exit(); }`},
	{script: `BEGIN { @x[1] = 5; @c = count(); @h = hist(5); @s = sum(5); zero(@x); zero(@c); zero(@h); zero(@s); exit(); }`},
	{script: `BEGIN { @x[1] = 5; @x[2] = 6; delete(@x[1]); @y = 1; print(@y); exit(); }`},
	{script: `BEGIN { $i = 0; while ($i < 3) { printf("%d ", $i); $i++; } unroll(3) { printf("x"); } printf("\n"); exit(); }`},
	{script: `BEGIN { printf("%d %d %d %d %d %d %d\n", 7 / 2, 7 % 3, 1 << 4, 255 >> 2, ~0, 5 > 3 ? 1 : 2, !0); exit(); }`},
	{script: `BEGIN { printf("%s %d\n", str($1), $#); exit(); }`},
	{script: `BEGIN { printf("%s %s\n", ntop(0x0100007f), ntop(2, 0x0101a8c0)); exit(); }`},
	{script: `BEGIN { printf("%d %d\n", strncmp("abc", "abd", 2), strncmp("abc", "abd", 3)); exit(); }`, differ: &sign},
	{script: `struct A { int a; char b[4]; }; BEGIN { printf("%d %d\n", sizeof(struct A), sizeof(uint64)); exit(); }`},
	{script: `BEGIN { printf("%s\n", ksym(0)); @u = usym(0); @k[ksym(0)] = 1; exit(); }`},
	{script: `BEGIN { @[probe] = count(); exit(); } END { printf("end\n"); }`, differ: &lowerCase},
	{script: `BEGIN { system("echo hello"); cat("/proc/sys/kernel/ostype"); time("hello\n"); printf("%s\n", strftime("%Y", 0)); exit(); }`},
	{script: `BEGIN { printf("%d %d %d %d\n", (uint8)300, (int8)200, 1_000_000, 1e6); @ = (int8)-1; @a = (uint8)255; exit(); }`},
	{script: `BEGIN { @b = buf("abcdef", 4); printf("%r %d\n", buf("ab\x01c", 4), bswap((uint16)0x1234)); exit(); }`},
	{script: `BEGIN { @x++; @x++; @x += 5; @y--; @z = @z + 1; $a = 5; $b = $a++ + ++$a; printf("%d %d\n", $a, $b); exit(); }`},
	{script: `BEGIN { print("a\x01b"); exit(); }`, differ: &escaped},
	{script: `BEGIN { printf("one"); exit(); printf("after"); } END { printf("two\n"); }`},
	{script: `BEGIN { @start = 1 } interval:ms:50 { @n++; if (@n == 3) { printf("tick\n"); exit(); } }`},
	{script: `BEGIN { $t = (struct task_struct *)curtask; printf("%d %s %d\n", $t->tgid == pid, username, uid + gid); exit(); }`},
	{script: `tracepoint:syscalls:sys_enter_getpgid /pid == cpid/ { @[comm] = count(); @s = sum(args->pid + 3); @p[probe] = count(); }`},
	{script: `tracepoint:syscalls:sys_enter_getpgid /pid == cpid/ { printf("%s %s %d\n", probe, comm, args->pid); @n = @n + 1; if (@n == 5) { exit(); } }`},
	{script: `tracepoint:syscalls:sys_exit_getpgid /pid == cpid/ { @ok[args->ret > 0] = count(); }`, differ: &booleans},
	{script: `tracepoint:syscalls:sys_enter_openat /pid == cpid && str(args->filename) == "/nosuch/file"/ { printf("%s %d %x\n", str(args->filename), (int32)args->dfd, args->flags); @[str(args->filename, 5)] = count(); }`},
	{script: `tracepoint:syscalls:sys_exit_openat /pid == cpid && args->ret < 0/ { @err[args->ret] = count(); }`},
	{script: `tracepoint:raw_syscalls:sys_enter /pid == cpid && args->id == 121/ { @[args->id, probe] = count(); }`},
	{script: `tracepoint:syscalls:sys_enter_setpriority /pid == cpid/ { print((args->which, args->who, args->niceval)); time("%Y\n"); }`},
	{script: `tracepoint:syscalls:sys_enter_getpgid { @start[tid] = nsecs; } tracepoint:syscalls:sys_exit_getpgid /@start[tid] && pid == cpid/ { @ns[comm] = hist(nsecs - @start[tid]); delete(@start[tid]); } END { clear(@start); }`, form: shape},
	{script: `tracepoint:syscalls:sys_enter_getpgid /pid == cpid/ { @ = lhist(@i, 0, 10, 2); @h = hist(args->pid); @i++; @mn = min(@i); @mx = max(@i); }`},
	{script: `tracepoint:syscalls:sys_enter_getpgid /pid == cpid/ { @[kstack(3)] = count(); printf("%s\n", kstack(2)); }`},
	{script: `tracepoint:sched:sched_process_exit /tid == cpid/ { @[args->comm, args->prio] = count(); @k[kstack(2)] = count(); }`},
	{script: `tracepoint:syscalls:sys_enter_getpgi*,tracepoint:syscalls:sys_enter_setpriority /pid == cpid/ { @[comm, uid, cgroup > 0] = count(); }`, differ: &booleans},
	{script: `uprobe:LIBC:getuid /pid == cpid/ { @[func] = count(); @p[probe] = count(); }`, differ: &lateNames},
	{script: `uretprobe:LIBC:getuid /pid == cpid/ { @[comm] = count(); @r = sum(1); }`},
	{script: `tracepoint:syscalls:sys_enter_execve /comm == "nobody"/ { join(args->argv); } interval:ms:30 { exit(); }`},
	{script: `software:cpu-clock:1000000 { @[cpu < 1024] = count(); } interval:ms:200 { exit(); }`, form: shape, differ: &booleans},
	{script: `profile:hz:99 { @[probe] = count(); } i:ms:200 { exit(); }`, form: shape},
}

// besideTools are tools of the package that both run at the same time, under
// one load, a shell script. The first lines are compared as they are, then
// those that match only.
var besideTools = []struct {
	name, load, only string
	form             form
	header           int
	differ           *difference
}{
	{name: "bashreadline", load: `echo 'echo skep was here' | bash --norc --noprofile -i`, only: `skep was here`, header: 2, form: shape},
	{name: "cpuwalk", load: `timeout 0.5 sh -c 'while :; do :; done'`, only: `.`, form: shape},
	{name: "execsnoop", load: `env true skep args`, only: `true skep args`, header: 1, form: shape},
	{name: "gethostlatency", load: `bash -c 'exec 3<>/dev/tcp/localhost/1'`, only: `bash +\d+ localhost`, header: 2, form: shape},
	{name: "killsnoop", load: `kill -0 $$`, only: ` skep-beside `, header: 2},
	{name: "opensnoop", load: `: < /tmp/skep-nosuch`, only: ` skep-beside .*skep-nosuch`, header: 2},
	{name: "pidpersec", load: `sleep 1.2`, only: `PIDs`, header: 1, form: shape},
	{name: "setuids", load: `skep-load setuid`, only: ` skep-load `, header: 2},
	{name: "statsnoop", load: `stat -f /tmp`, only: ` stat .*/tmp$`, header: 2},
	{name: "sslsnoop", load: tls, only: ` openssl .*SSL_write`, header: 2, form: shape},
	{name: "syncsnoop", load: `sync /tmp`, only: ` sync +trace`, header: 2, form: shape},
	{name: "syscount", load: `sleep 0.1`, only: `Top`, header: 2},
}

var (
	attaching   = regexp.MustCompile(`(?m)^(Attaching \d+ probes?\.\.\.|__BPFTRACE_NOTIFY_PROBES_ATTACHED)\n`)
	clock       = regexp.MustCompile(`\d\d:\d\d:\d\d`)
	blankAfter  = regexp.MustCompile(`(?m)^(@.*)\n\n`)
	hexNumber   = regexp.MustCompile(`0x[0-9a-f]+`)
	number      = regexp.MustCompile(` *-?\d+(\.\d+)?[KMGT]? *`)
	bucketRange = regexp.MustCompile(`^[\[(].*[\])] *\d+ \|[@ ]*\|$`)
)

// plainOutput is what a script printed, without what only says how far
// bpftrace is, and without the blank that 0.17 leaves before a histogram.
func plainOutput(out []byte) string {
	s := attaching.ReplaceAllString(string(out), "")
	return strings.ReplaceAll(s, ": \n", ":\n")
}

// lineShapes are the lines of a text, numbers replaced, each once.
func lineShapes(s string) string {
	var shapes []string
	for line := range strings.Lines(s) {
		line = strings.TrimSuffix(line, "\n")
		if bucketRange.MatchString(line) {
			line = fmt.Sprintf("a row of %d columns, its bar from %d on", len(line), strings.Index(line, "|"))
		}
		line = hexNumber.ReplaceAllString(clock.ReplaceAllString(line, "TIME"), "HEX")
		shapes = append(shapes, number.ReplaceAllString(line, " N "))
	}
	slices.Sort(shapes)
	return strings.Join(slices.Compact(shapes), "\n") + "\n"
}

// compareOutputs says how the outputs of bpftrace and of skep relate.
func compareOutputs(t *testing.T, f form, d *difference, theirs, ours string) (verdict string) {
	t.Helper()
	adapted := theirs
	if d != nil {
		adapted = d.adapt(theirs)
	}
	if f == shape {
		theirs, adapted, ours = lineShapes(theirs), lineShapes(adapted), lineShapes(ours)
	}
	switch {
	case adapted != ours:
		t.Errorf("bpftrace:\n%s\nskep:\n%s", adapted, ours)
		return "wrong"
	case d != nil && theirs == ours:
		t.Errorf("there is no difference, though %s:\n%s", d.why, ours)
	case d != nil:
		return "differs: " + d.why
	case f == shape:
		return "same form"
	}
	return "same"
}

// bpftraces are the paths of the installed bpftrace, and of skep under that name.
func bpftraces(t *testing.T) (theirs, ours string) {
	t.Helper()
	testenv.NeedTool(t, "bpftrace")
	list, err := exec.Command("dpkg", "-L", "bpftrace").Output()
	if err != nil {
		testenv.Skip(t, testenv.Tool, "dpkg does not know the package bpftrace")
	}
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); filepath.Base(line) == "bpftrace" && strings.HasSuffix(filepath.Dir(line), "bin") {
			theirs = line
		}
	}
	if ours, err = exec.LookPath("bpftrace"); err != nil || theirs == "" || ours == theirs {
		t.Fatalf("bpftrace is %q, skep under that name %q: %v", theirs, ours, err)
	}
	if version, err := exec.Command(theirs, "--version").Output(); err != nil || !strings.Contains(string(version), "v0.17") {
		testenv.Skip(t, testenv.Tool, "the differences are those from bpftrace 0.17, here is %s", version)
	}
	return theirs, ours
}

// TestBeside runs scripts and tools with bpftrace, and with skep under its
// name, and compares what they print. What differs says why.
func TestBeside(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	testenv.NeedRoot(t)
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	theirs, ours := bpftraces(t)
	work, err := exec.LookPath("work")
	if err != nil {
		t.Fatal(err)
	}
	libc, _ := filepath.Glob("/lib/*-linux-gnu/libc.so.6")
	if len(libc) == 0 {
		t.Fatal("there is no libc.so.6 in /lib/*-linux-gnu")
	}
	scripts := installed(t)
	verdicts := make([]string, len(besideScripts)+len(besideTools))
	t.Run("all", func(t *testing.T) {
		for i, c := range besideScripts {
			t.Run(fmt.Sprintf("script%d", i), func(t *testing.T) {
				t.Parallel()
				args := []string{"--unsafe", "-e", strings.ReplaceAll(c.script, "LIBC", libc[0])}
				switch {
				case strings.Contains(c.script, "LIBC"):
					args = append(args, "-c", "/bin/bash -c true")
				case strings.Contains(c.script, "cpid"):
					args = append(args, "-c", work+" 5")
				}
				args = append(args, "one", "2")
				var out [2]string
				for i, program := range []string{theirs, ours} {
					cmd := exec.Command(program, args...)
					var stdout, stderr bytes.Buffer
					cmd.Stdout, cmd.Stderr = &stdout, &stderr
					cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
					if err := cmd.Start(); err != nil {
						t.Fatal(err)
					}
					stop := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
					err := cmd.Wait()
					stop.Stop()
					if err != nil {
						t.Fatalf("%s: %v\n%s", program, err, stderr.String())
					}
					out[i] = plainOutput(stdout.Bytes())
				}
				verdicts[i] = compareOutputs(t, c.form, c.differ, out[0], out[1])
			})
		}
	})
	t.Run("tools", func(t *testing.T) {
		prepareTools(t)
		for i, c := range besideTools {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				out := runBeside(t, []string{theirs, ours}, scripts[c.name], c.load)
				only := regexp.MustCompile(c.only)
				var kept [2]string
				for i := range out {
					text := clock.ReplaceAllString(plainOutput(out[i]), "TIME")
					n := 0
					for line := range strings.Lines(text) {
						if n++; n <= c.header || only.MatchString(strings.TrimSuffix(line, "\n")) {
							kept[i] += line
						}
					}
				}
				if strings.Count(kept[1], "\n") <= c.header {
					t.Errorf("no line matches %s:\n%s", c.only, out[1])
				}
				verdicts[len(besideScripts)+i] = compareOutputs(t, c.form, c.differ, kept[0], kept[1])
			})
		}
	})
	if t.Failed() || slices.Contains(verdicts, "") {
		return // failed, or -run left some out
	}
	var b strings.Builder
	b.WriteString("| script | output |\n|---|---|\n")
	for i, v := range verdicts {
		what := ""
		if i < len(besideScripts) {
			what = strings.ReplaceAll(besideScripts[i].script, "|", `\|`)
		} else {
			what = besideTools[i-len(besideScripts)].name + ".bt"
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", what, v)
	}
	conformance(t, "beside", b.String())
}

// prepareTools makes what the loads of tools want.
func prepareTools(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("sh", "-c", setup).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// runBeside runs a script with several programs at the same time, makes a load
// once all are attached, ends them, and returns what each printed.
func runBeside(t *testing.T, programs []string, script, load string) [][]byte {
	dir := t.TempDir()
	sh := filepath.Join(dir, "skep-beside")
	if err := os.WriteFile(sh, []byte("#!/bin/sh\n"+load+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out := make([][]byte, len(programs))
	errs := make([]error, len(programs))
	var attached, ended sync.WaitGroup
	var cmds []*exec.Cmd
	for i, program := range programs {
		cmd := exec.Command(program, script)
		cmd.Env = append(os.Environ(), "__BPFTRACE_NOTIFY_PROBES_ATTACHED=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var stdout, stderr bytes.Buffer
		cmd.Stdout = &stdout
		pipe, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
		stop := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
		attached.Add(1)
		ended.Add(1)
		go func() {
			defer ended.Done()
			defer stop.Stop()
			said := false
			buf := make([]byte, 4096)
			for {
				n, err := pipe.Read(buf)
				stderr.Write(buf[:n])
				if !said && (err != nil || bytes.Contains(stderr.Bytes(), []byte("__BPFTRACE_NOTIFY_PROBES_ATTACHED"))) {
					said = true
					attached.Done()
				}
				if err != nil {
					break
				}
			}
			if err := cmd.Wait(); err != nil {
				errs[i] = fmt.Errorf("%s: %w\n%s", program, err, stderr.Bytes())
			}
			out[i] = stdout.Bytes()
		}()
	}
	attached.Wait()
	cmd := exec.Command(sh)
	cmd.Dir = "/tmp"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Error(err)
	} else {
		stop := time.AfterFunc(20*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // some loads fail, which is what is traced
		stop.Stop()
	}
	time.Sleep(500 * time.Millisecond)
	// bpftrace misses an interrupt that comes at the wrong moment.
	interrupted := make(chan struct{})
	go func() {
		for {
			for _, cmd := range cmds {
				_ = cmd.Process.Signal(os.Interrupt)
			}
			select {
			case <-interrupted:
				return
			case <-time.After(5 * time.Second):
			}
		}
	}()
	ended.Wait()
	close(interrupted)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return out
}
