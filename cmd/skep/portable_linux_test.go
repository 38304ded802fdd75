package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-bpf/skep"
	"github.com/skep-bpf/skep/facts"
	"github.com/skep-bpf/skep/internal/guest"
	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/object"
	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// What fields gives to its process, which scripts find in the kernel.
const (
	fieldsNice  = 5
	fieldsOOM   = 77
	fieldsUmask = 0o27
	fieldsFiles = 333
)

// fields is a program for scripts: it gives itself properties that the kernel
// keeps in fields of structs, and calls getpgid, maps memory and starts a child;
// or, with arguments, becomes another program, which has the properties then.
func fields() {
	runtime.LockOSThread()
	if err := setFields(); err != nil {
		fmt.Fprintln(os.Stderr, "fields:", err)
		os.Exit(1)
	}
	if len(os.Args) > 1 {
		path, err := exec.LookPath(os.Args[1])
		if err == nil {
			err = syscall.Exec(path, os.Args[1:], os.Environ())
		}
		fmt.Fprintln(os.Stderr, "fields:", err)
		os.Exit(1)
	}
	for range 5 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_GETPGID, 0, 0, 0)
	}
	if m, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON); err == nil {
		m[0] = 1
		_ = unix.Munmap(m)
	}
	self, _ := os.Executable()
	_ = exec.Command(self, "-h").Run()
}

func setFields() error {
	name := append([]byte("fields"), 0)
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(fieldsOOM)), 0); err != nil {
		return err
	}
	unix.Umask(fieldsUmask)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: fieldsFiles, Max: fieldsFiles}); err != nil {
		return err
	}
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return err
	}
	attr.Flags |= 1 // SCHED_FLAG_RESET_ON_FORK
	attr.Nice = fieldsNice
	return unix.SchedSetAttr(0, attr, 0)
}

// fieldsBody reads them. Where they are in memory differs between kernels;
// fieldPaths are their places.
const fieldsBody = `
	@n[1] = $t.static_prio;
	@n[2] = $t.signal.oom_score_adj;
	@n[3] = $t.fs.umask;
	@n[4] = $t.sched_reset_on_fork;
	@n[5] = $t.signal.rlim[7].rlim_cur;
	@n[6] = $t.tgid == pid(init);
	@n[7] = $t.real_parent.tgid == ppid;
	@n[8] = $t.cred.uid.val == uid;
	@n[9] = $t.mm.arg_end > $t.mm.arg_start;
	@comm[1] = $t.comm;
	@host[1] = $t.nsproxy.uts_ns.name.nodename;
	@size[1] = $t.signal.rlim[7].rlim_max;
}
`

var fieldPaths = []string{
	"struct task_struct.static_prio", "struct task_struct.signal", "struct signal_struct.oom_score_adj", "struct fs_struct.umask",
	"struct task_struct.fs", "struct task_struct.sched_reset_on_fork", "struct signal_struct.rlim", "struct task_struct.tgid",
	"struct task_struct.real_parent", "struct cred.uid", "struct task_struct.cred", "struct mm_struct.arg_end", "struct task_struct.comm",
	"struct task_struct.nsproxy", "struct uts_namespace.name",
}

// fieldsWant is what fieldsBody finds, numbers by map and key and text by map.
func fieldsWant(comm, host string) (numbers map[string]int64, text map[string]string) {
	return map[string]int64{
		"n 1": 120 + fieldsNice, "n 2": fieldsOOM, "n 3": fieldsUmask, "n 4": 1, "n 5": fieldsFiles,
		"n 6": 1, "n 7": 1, "n 8": 1, "n 9": 1, "size 1": fieldsFiles,
	}, map[string]string{"comm": comm, "host": host}
}

const (
	fieldsScript = `tracepoint:syscalls:sys_enter_getpgid /comm == "fields"/ { $t = curtask; ` + fieldsBody
	// fieldsIter is about the process that reads the iterator.
	fieldsIter = `iter:task /ctx.task.tgid == pid(init)/ { $t = ctx.task; ` + fieldsBody
)

// movedScript reads arguments that other kernels have elsewhere: those of the
// raw tracepoint come after one more until 6.12, and the text is in the record
// itself until 6.15.
const movedScript = `
rawtracepoint:mmap_lock_acquire_returned /comm == "fields"/ { @write[args.write] = count(); @success[args.success] = count(); }
tracepoint:sched:sched_process_fork /comm == "fields"/ { @parent[args.parent_comm] = count(); }
`

// moduleScript reads fields of types, and hangs on tracepoints, that the module xfs
// brings: what a super block begins with, and files whose data goes to the disk.
const moduleScript = `
rawtracepoint:xfs_file_fsync {
	@magic[args.ip.i_mount.m_sb.sb_magicnum] = count();
	@block[args.ip.i_mount.m_sb.sb_blocksize] = count();
}
tracepoint:xfs:xfs_file_fsync { @inode[args.ino] = count(); }
`

// A scene is a machine on which tests run scripts of sh: this one, or a guest.
type scene struct {
	name string
	host string // its name
	// sh runs a script in an empty directory that has the files, by name.
	sh func(t *testing.T, script string, files map[string][]byte) (stdout, stderr string, code int)
}

func livePlace(t *testing.T) *scene {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	return &scene{"live", host, func(t *testing.T, script string, files map[string][]byte) (string, string, int) {
		t.Helper()
		dir := t.TempDir()
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		var out, diag bytes.Buffer
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &diag
		err := cmd.Run()
		if _, ok := err.(*exec.ExitError); err != nil && !ok {
			t.Fatal(err)
		}
		return out.String(), diag.String(), cmd.ProcessState.ExitCode()
	}}
}

// elsewhere is the guest of the tests of portable objects; there is one for each
// kernel, with bpftool, a program that uses libbpf, and modules.
func elsewhere(t *testing.T, k guest.Kernel) *scene {
	t.Helper()
	cfg := guest.Config{Files: guest.Program(t, "bpftool").Add(guest.Program(t, "mkfs.xfs")), Modules: []string{"loop", "xfs"}, Timeout: 4 * time.Minute}
	s := guest.Shared(t, k, cfg)
	n := 0
	p := &scene{k.Series, "", func(t *testing.T, script string, files map[string][]byte) (string, string, int) {
		t.Helper()
		n++
		dir := t.TempDir()
		cmd := guest.Sh(script)
		cmd.Dir = fmt.Sprintf("/run/skep-%d", n)
		cmd.Files = guest.Files{}
		for name, data := range files {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, data, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd.Files[cmd.Dir+"/"+name] = path
		}
		r, err := s.Run(cmd)
		if err != nil {
			t.Fatal(err)
		}
		return string(r.Stdout), string(r.Stderr), r.Code
	}}
	out, diag, code := p.sh(t, `ln -sf /init /bin/skep; ln -sf /init /bin/fields; hostname`, nil)
	if code != 0 {
		t.Fatalf("%s%s", out, diag)
	}
	p.host = strings.TrimSpace(out)
	return p
}

// must runs a script that has to succeed and returns what it prints.
func (p *scene) must(t *testing.T, script string, files map[string][]byte) string {
	t.Helper()
	out, diag, code := p.sh(t, script, files)
	if code != 0 {
		t.Fatalf("%s: %s: code %d\n%s%s", p.name, script, code, out, diag)
	}
	return out
}

// saved are the machines of guests, by their series, each saved there once.
var saved = map[string]target.Target{}

// machineOf is what the guest of a scene is, saved there and read here.
func machineOf(t *testing.T, p *scene) target.Target {
	t.Helper()
	if saved[p.name] == nil {
		data, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(p.must(t, "skep target save m.skep && base64 m.skep", nil), "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		if saved[p.name], err = skep.LoadTarget(bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		savedBytes[p.name] = data
	}
	return saved[p.name]
}

var savedBytes = map[string][]byte{}

// build is "skep build" with these arguments, in which TARGET stands for the saved machine of a scene.
func build(t *testing.T, script string, args ...string) []byte {
	t.Helper()
	data, diag, code := tryBuild(t, script, args...)
	if code != 0 {
		t.Fatalf("%s\n%s", script, diag)
	}
	return data
}

func tryBuild(t *testing.T, script string, args ...string) (data []byte, diag string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(append([]string{"skep", "build", "--unsafe", "-o", "-", "-"}, args...), strings.NewReader(script), &out, &errs)
	return out.Bytes(), errs.String(), code
}

// loaderProgram compiles testdata/loader.c, once.
var loaderProgram = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "skep-loader")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "loader")
	cmd := exec.Command("gcc", "-O2", "-static", "-o", path, "testdata/loader.c", "-lbpf", "-lelf", "-lz")
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin") // without the "as" of these tests
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("testdata/loader.c: %w\n%s", err, text)
	}
	return os.ReadFile(path)
})

func loader(t *testing.T) []byte {
	t.Helper()
	testenv.NeedTool(t, "gcc")
	if _, err := os.Stat("/usr/include/bpf/libbpf.h"); err != nil {
		testenv.Skip(t, testenv.Tool, "libbpf-dev is not installed: %v", err)
	}
	program, err := loaderProgram()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

var mapLine = regexp.MustCompile(`(?m)^@(\w*)\[(.*)\]: (.*)$`)

// printed are the maps that skep prints, "name key": value.
func printed(out string) map[string]string {
	found := map[string]string{}
	for _, m := range mapLine.FindAllStringSubmatch(out, -1) {
		found[m[1]+" "+m[2]] = m[3]
	}
	return found
}

// checkFields holds what was found against what fields set.
func checkFields(t *testing.T, by, comm, host string, found map[string]string) {
	t.Helper()
	numbers, text := fieldsWant(comm, host)
	for k, want := range numbers {
		if found[k] != strconv.FormatInt(want, 10) {
			t.Errorf("%s: @%s is %q, want %d", by, k, found[k], want)
		}
	}
	for k, want := range text {
		if found[k+" 1"] != want {
			t.Errorf("%s: @%s is %q, want %q", by, k, found[k+" 1"], want)
		}
	}
}

// rawMaps decodes keys and values as their bytes, by the names that script has for the maps.
func rawMaps(t *testing.T, obj []byte, elems map[string][][2][]byte) map[string]string {
	t.Helper()
	o, err := skep.ReadObject(obj)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range o.Manifest.Maps {
		for _, kv := range elems[m.Map] {
			key := rawValue(kv[0], m.Keys[0].Type)
			found[strings.TrimPrefix(m.Name, "@")+" "+key] = rawValue(kv[1], m.Value)
		}
	}
	return found
}

func rawValue(b []byte, t object.Type) string {
	if t.Kind == object.TypeString {
		text, _, _ := bytes.Cut(b, []byte{0})
		return string(text)
	}
	n := make([]byte, 8)
	copy(n, b)
	return strconv.FormatUint(binary.LittleEndian.Uint64(n), 10)
}

// byLibbpf runs an object with libbpf, and "fields" beside it.
func byLibbpf(t *testing.T, p *scene, obj []byte) map[string]string {
	t.Helper()
	out := p.must(t, "./loader x.o fields", map[string][]byte{"x.o": obj, "loader": loader(t)})
	elems := map[string][][2][]byte{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		key, err1 := hex.DecodeString(f[1])
		value, err2 := hex.DecodeString(f[2])
		if err1 != nil || err2 != nil {
			t.Fatalf("%q", line)
		}
		elems[f[0]] = append(elems[f[0]], [2][]byte{key, value})
	}
	return rawMaps(t, obj, elems)
}

// bpffs makes a directory $B of the bpffs for a script of sh, and takes it away with all its pins.
const bpffs = `mkdir -p /sys/fs/bpf && { grep -q " /sys/fs/bpf bpf" /proc/mounts || mount -t bpf bpf /sys/fs/bpf; }
B=/sys/fs/bpf/skep-test-$$
mkdir $B; trap 'rm -rf $B' EXIT
`

// bpftoolLoad loads an object with bpftool.
const bpftoolLoad = bpffs + `bpftool prog loadall x.o $B/p`

// byBpftool attaches an iterator with bpftool, and reads it with the properties of fields.
func byBpftool(t *testing.T, p *scene, obj []byte) map[string]string {
	t.Helper()
	out := p.must(t, bpffs+`bpftool iter pin x.o $B/it 2>log || { cat log >&2; exit 1; }
fields cat $B/it >&2 || exit
prog=$(bpftool -j link show pinned $B/it | sed 's/.*"prog_id":\([0-9]*\).*/\1/')
for id in $(bpftool -j prog show id $prog | sed 's/.*"map_ids":\[\([0-9,]*\)\].*/\1/; s/,/ /g'); do
	bpftool -j map show id $id; bpftool -j map dump id $id
done`, map[string][]byte{"x.o": obj})
	elems := map[string][][2][]byte{}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		var about struct{ Name, Type string }
		if err := json.Unmarshal([]byte(lines[i]), &about); err != nil {
			t.Fatalf("%v: %s", err, lines[i])
		}
		var list []struct{ Key, Value []string }
		if about.Type != "hash" {
			continue
		}
		if err := json.Unmarshal([]byte(lines[i+1]), &list); err != nil {
			t.Fatalf("%v: %s", err, lines[i+1])
		}
		for _, e := range list {
			elems[about.Name] = append(elems[about.Name], [2][]byte{hexBytes(t, e.Key), hexBytes(t, e.Value)})
		}
	}
	return rawMaps(t, obj, elems)
}

func hexBytes(t *testing.T, list []string) []byte {
	t.Helper()
	var b []byte
	for _, s := range list {
		n, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, byte(n))
	}
	return b
}

// TestLoaders has bpftool and libbpf run what "skep build --portable" accepts: the
// values are right, on the kernel that the object was built on and on others.
func TestLoaders(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	testenv.NeedTool(t, "bpftool")
	needNewer(t)
	attached, iterated := build(t, fieldsScript, "--portable"), build(t, fieldsIter, "--portable")
	sized := build(t, `begin { @n[1] = sizeof(struct task_struct); }`, "--portable")
	check := func(t *testing.T, p *scene) {
		checkFields(t, "libbpf", "fields", p.host, byLibbpf(t, p, attached))
		checkFields(t, "bpftool", "cat", p.host, byBpftool(t, p, iterated))
	}
	t.Run("live", func(t *testing.T) {
		p := livePlace(t)
		check(t, p)
		p.must(t, bpftoolLoad, map[string][]byte{"x.o": sized})
	})
	for _, k := range guest.Kernels {
		t.Run(k.String(), func(t *testing.T) {
			p := elsewhere(t, k)
			check(t, p)
			// The size is another here: neither may load what says otherwise.
			for _, load := range []string{bpftoolLoad, "./loader x.o true"} {
				out, diag, code := p.sh(t, load, map[string][]byte{"x.o": sized, "loader": loader(t)})
				if code == 0 || !strings.Contains(diag, facts.GuardName) {
					t.Errorf("%s: code %d\n%s%s", load, code, out, diag)
				}
			}
		})
	}
}

// needNewer returns the live kernel, which these tests want to be another than those of the guests.
func needNewer(t *testing.T) target.Target {
	t.Helper()
	live, err := skep.Target()
	if err != nil {
		t.Fatal(err)
	}
	if !live.Release().AtLeast(6, 15) {
		testenv.Skip(t, testenv.BPF, "the live kernel, %s, is too near to those of the guests", live.Release())
	}
	return live
}

// TestElsewhere runs objects that were built on the live kernel, or here for
// the machine of a guest, in the guests.
func TestElsewhere(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedTracefs(t)
	live := needNewer(t)
	objects := map[string][]byte{
		"fields.o": build(t, fieldsScript),
		"moved.o":  build(t, movedScript),
		"params.o": build(t, `begin { printf("%d %s %d\n", $1, str($2), $#); exit(); }`, "5", "abc"),
		"ksym.o":   build(t, `begin { printf("%llx %s\n", kaddr("schedule"), ksym(kaddr("schedule"))); exit(); }`),
		"sizes.o":  build(t, `begin { printf("%d %d %d\n", sizeof(struct task_struct), offsetof(struct task_struct, comm), ncpus); exit(); }`),
		"module.o": build(t, moduleScript),
	}
	for _, k := range guest.Kernels {
		t.Run(k.String(), func(t *testing.T) {
			p := elsewhere(t, k)
			there := machineOf(t, p)
			t.Run("fields", func(t *testing.T) {
				if moved := differing(t, live, there); len(moved) < 8 {
					t.Fatalf("only these fields are elsewhere: %q", moved)
				}
				found := printed(p.must(t, "skep run --no-source -c fields fields.o", objects))
				checkFields(t, "skep", "fields", p.host, found)
			})
			t.Run("moved", func(t *testing.T) {
				for _, name := range []string{"rawtracepoint:mmap_lock_acquire_returned:write"} {
					f := object.Fact{Kind: object.FactArgs, Name: name}
					a, err1 := facts.Value(live, f, 0)
					b, err2 := facts.Value(there, f, 0)
					if err1 != nil || err2 != nil || a == b {
						t.Fatalf("%s is %q here, and %q there: %v, %v", name, a, b, err1, err2)
					}
				}
				found := printed(p.must(t, "skep run -c fields moved.o", objects))
				t.Logf("%v", found)
				for _, k := range []string{"write false", "write true", "success true", "parent fields"} {
					if n, err := strconv.Atoi(found[k]); err != nil || n == 0 {
						t.Errorf("@%s is %q", k, found[k])
					}
				}
				if len(found) != 4 {
					t.Errorf("found %v", found)
				}
				out, diag, code := p.sh(t, "skep run --no-source -c fields moved.o", objects)
				if code == 0 || !strings.Contains(diag, "mmap_lock_acquire_returned:write") || !strings.Contains(diag, "sched_process_fork:parent_comm") || !strings.Contains(diag, "forbidden") {
					t.Errorf("without the source: code %d\n%s%s", code, out, diag)
				}
			})
			t.Run("parameters", func(t *testing.T) {
				out := p.must(t, "skep run --no-source params.o && skep run params.o 7 xyz more", objects)
				if out != "5 abc 2\n7 xyz 3\n" {
					t.Errorf("printed %q", out)
				}
				if _, diag, code := p.sh(t, "skep run --no-source params.o 7", objects); code == 0 || !strings.Contains(diag, "other parameters") {
					t.Errorf("with other parameters and without the source: code %d\n%s", code, diag)
				}
			})
			t.Run("symbols", func(t *testing.T) {
				out := p.must(t, `skep run --no-source ksym.o; awk '$3 == "schedule" { sub(/^0*/, "", $1); print $1, $3 }' /proc/kallsyms`, objects)
				lines := strings.Split(strings.TrimSpace(out), "\n")
				if len(lines) != 2 || lines[0] != lines[1] {
					t.Errorf("printed, and /proc/kallsyms:\n%s", out)
				}
			})
			t.Run("sizes", func(t *testing.T) {
				out := p.must(t, `skep run sizes.o`, objects)
				want := fmt.Sprintf("%d %d %d\n", sizeOf(t, there, "task_struct"), offsetOf(t, there, "struct task_struct.comm"), there.CPUs())
				if out != want || sizeOf(t, live, "task_struct") == sizeOf(t, there, "task_struct") {
					t.Errorf("printed %q, want %q", out, want)
				}
				if _, diag, code := p.sh(t, "skep run --no-source sizes.o", objects); code == 0 || !strings.Contains(diag, "struct task_struct") {
					t.Errorf("without the source: code %d\n%s", code, diag)
				}
			})
			t.Run("modules", func(t *testing.T) {
				// Built here from what was saved there, and there.
				file := filepath.Join(t.TempDir(), "there.skep")
				if err := os.WriteFile(file, savedBytes[p.name], 0o644); err != nil {
					t.Fatal(err)
				}
				var out, diag bytes.Buffer
				if code := run([]string{"skep", "check", "--target", file, "-"}, strings.NewReader(moduleScript), &out, &diag); code != 0 {
					t.Fatalf("%s%s", &out, &diag)
				}
				files := maps.Clone(objects)
				files["there.o"] = build(t, moduleScript, "--target", file)
				files["kprobe.o"] = build(t, `kprobe:xfs:xfs_file_fsync { @magic[((struct xfs_mount *)((struct file *)arg0).f_inode.i_sb.s_fs_info).m_sb.sb_magicnum] = count(); }`, "--target", file)
				files["module.bt"] = []byte(moduleScript)
				inode := strings.TrimSpace(p.must(t, "mkfs.xfs -q -d file,name=/image,size=300m && mkdir -p /xfs && mount -t xfs -o loop /image /xfs && touch /xfs/file && stat -c %i /xfs/file", nil))
				defer func() { p.must(t, "umount /xfs && rm /image", nil) }()
				const touch = "'dd if=/dev/zero of=/xfs/file bs=1k count=4 conv=fsync'"
				const magic = "magic 1481003842" // XFSB
				for _, what := range []string{"module.o", "--no-source there.o", "module.bt"} {
					found := printed(p.must(t, "skep run -c "+touch+" "+what, files))
					want := map[string]string{magic: "1", "block 4096": "1", "inode " + inode: "1"}
					if !maps.Equal(found, want) {
						t.Errorf("%s: %v, want %v", what, found, want)
					}
				}
				found := printed(p.must(t, "skep run --no-source -c "+touch+" kprobe.o", files))
				if !maps.Equal(found, map[string]string{magic: "1"}) {
					t.Errorf("kprobe.o: %v", found)
				}
			})
			t.Run("module is one", func(t *testing.T) {
				types, err := there.Types()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := types.FindIn("xfs", typeindex.KindStruct, "xfs_mount"); err != nil {
					t.Errorf("the types of xfs are not those of a module: %v", err)
				}
			})
		})
	}
}

// differing are the places of fieldPaths that are elsewhere on the other machine.
func differing(t *testing.T, a, b target.Target) []string {
	t.Helper()
	var out []string
	for _, name := range fieldPaths {
		f := object.Fact{Kind: object.FactLayout, Name: name}
		x, err1 := facts.Value(a, f, 0)
		y, err2 := facts.Value(b, f, 0)
		if err1 != nil || err2 != nil || x == facts.None || y == facts.None {
			t.Fatalf("%s: %q, %v; %q, %v", name, x, err1, y, err2)
		}
		if x != y {
			out = append(out, name+" ("+x+"; "+y+")")
		}
	}
	slices.Sort(out)
	t.Logf("%q", out)
	return out
}

func sizeOf(t *testing.T, m target.Target, name string) uint32 {
	t.Helper()
	types, err := m.Types()
	if err != nil {
		t.Fatal(err)
	}
	s, err := types.Struct(name)
	if err != nil {
		t.Fatal(err)
	}
	return s.Size
}

func offsetOf(t *testing.T, m target.Target, name string) int {
	t.Helper()
	v, err := facts.Value(m, object.Fact{Kind: object.FactLayout, Name: name}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(v, "offset %d;", &n); err != nil {
		t.Fatalf("%s: %q, %v", name, v, err)
	}
	return n
}
