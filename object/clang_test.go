//go:build linux

package object

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/skep-bpf/skep/internal/testenv"
	"github.com/skep-bpf/skep/isa"
)

const clangSource = `
typedef unsigned int u32;
typedef unsigned long long u64;
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_trace_printk)(const char *fmt, u32 size, ...) = (void *)6;
static u64 (*bpf_get_current_task)(void) = (void *)35;
static long (*bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static u64 (*bpf_ringbuf_query)(void *ring, u64 flags) = (void *)134;
static long (*bpf_loop)(u32 n, void *fn, void *ctx, u64 flags) = (void *)181;

struct inner { __uint(type, 2); __uint(max_entries, 1); __type(key, u32); __type(value, u64); };
struct inner first SEC(".maps");
struct { __uint(type, 12); __uint(max_entries, 3); __type(key, u32); __array(values, struct inner); } outer SEC(".maps") = { .values = { [2] = &first } };
struct { __uint(type, 1); __uint(max_entries, 10); __type(key, u32); __type(value, u64); __uint(pinning, 1); } pinned SEC(".maps");
struct { __uint(type, 27); __uint(max_entries, 4096); } ring SEC(".maps");

extern int LINUX_KERNEL_VERSION __attribute__((section(".kconfig")));
extern const void schedule __attribute__((section(".ksyms")));

struct pair { u32 a, b; };
struct mm_struct { int unused; } __attribute__((preserve_access_index));
struct task_struct { int pid; int tgid; struct mm_struct *mm; } __attribute__((preserve_access_index));
enum kind { ONE = 1, TWO = 2 };

const volatile u32 limit = 7;
static const volatile char secret[3] = "ab";
u64 total = 0;
u64 start = 99;
static u32 hidden = 5;
struct pair pairs[3] = {{1, 2}, {3, 4}, {5, 6}};

static __attribute__((noinline)) int leaf(int x) { return x * limit; }
__attribute__((noinline)) int shared(int x) { return leaf(x) + (int)hidden; }
static long step(u32 i, void *ctx) { total += i; return 0; }

SEC("tracepoint/syscalls/sys_enter_getppid") int first_prog(void *ctx)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	int tgid = 0;
	u32 key = 0;
	bpf_probe_read_kernel(&tgid, sizeof(tgid), &task->tgid);
	char text[] = "hello from a rather long constant %d\n";
	bpf_trace_printk(text, sizeof(text), tgid);
	u64 *value = bpf_map_lookup_elem(&first, &key);
	if (value)
		__sync_fetch_and_add(value, shared(tgid) + secret[1]);
	pairs[1].b += LINUX_KERNEL_VERSION;
	total += start + (u64)&schedule;
	bpf_loop(3, step, &key, 0);
	bpf_map_lookup_elem(&outer, &key);
	bpf_map_lookup_elem(&pinned, &key);
	hidden++;
	return __builtin_preserve_enum_value(*(enum kind *)TWO, 0) + __builtin_preserve_field_info(task->mm, 2);
}
SEC("tracepoint/syscalls/sys_enter_getppid") int second_prog(void *ctx) { return shared(bpf_ringbuf_query(&ring, 0)); }
SEC("xdp") int packets(void *ctx) { return 2; }
char LICENSE[] SEC("license") = "Dual MIT/GPL";
`

func compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	clang := testenv.NeedTool(t, "clang")
	dir := t.TempDir()
	src, obj := filepath.Join(dir, "prog.c"), filepath.Join(dir, "prog.o")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, clang, append([]string{"-g", "-O2", "-Wno-everything", "-c", src, "-o", obj}, flags...)...)
	return obj
}

func readFile(t *testing.T, path string) *Object {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestReadClang reads what clang writes.
func TestReadClang(t *testing.T) {
	path := compile(t, clangSource, "-target", "bpf")
	o := readFile(t, path)
	compareDisassembly(t, testenv.NeedTool(t, "llvm-objdump"), path)

	funcs := make(map[string]*Func)
	for _, f := range o.Funcs {
		funcs[f.Name] = f
	}
	prog := funcs["first_prog"]
	if prog == nil || prog.Section != "tracepoint/syscalls/sys_enter_getppid" || prog.Type == nil {
		t.Fatalf("first_prog: %+v", prog)
	}
	if !funcs["shared"].Global || funcs["leaf"].Global || o.License != "Dual MIT/GPL" {
		t.Errorf("shared %+v, leaf %+v, license %q", funcs["shared"], funcs["leaf"], o.License)
	}
	refs := make(map[string]bool)
	for _, f := range o.Funcs {
		for _, r := range f.Relocs {
			ins := f.Insns[r.Insn]
			switch s := r.Symbol.(type) {
			case *Map:
				refs[f.Name+" map "+s.Name] = ins == isa.LoadMapFD(ins.Dst, 0)
			case *Func:
				refs[fmt.Sprintf("%s func %s %d", f.Name, s.Name, r.Kind)] = ins == isa.CallLocal(0) || ins == isa.LoadFunc(ins.Dst, 0)
			case *Extern:
				refs[f.Name+" extern "+s.Name] = ins == isa.LoadImm64(ins.Dst, 0)
			case *Var:
				refs[fmt.Sprintf("%s var %s+%d", f.Name, s.Name, ins.High())] = ins.Src == isa.PseudoMapValue && ins.Low() == 0
			}
		}
	}
	for _, want := range []string{
		"first_prog map first", "first_prog map outer", "first_prog map pinned", "second_prog map ring",
		"first_prog func shared 2", "first_prog func step 3", "shared func leaf 2",
		"first_prog extern LINUX_KERNEL_VERSION", "first_prog extern schedule",
		"leaf var limit+0", "shared var hidden+0", "first_prog var total+0", "first_prog var start+0", "first_prog var secret+0",
	} {
		if !refs[want] {
			t.Errorf("no %q, or with another instruction, in %v", want, refs)
		}
	}
	for _, m := range o.Maps {
		switch m.Name {
		case "outer":
			if m.Type != 12 || m.Inner == nil || m.Inner.Type != 2 || len(m.Values) != 3 || m.Values[2] != o.Maps[0] {
				t.Errorf("outer: %+v", m)
			}
		case "pinned":
			if key, value := m.Sizes(); !m.Pinned || key != 4 || value != 8 || m.MaxEntries != 10 {
				t.Errorf("pinned: %+v", m)
			}
		}
	}
	var core []string
	for _, c := range prog.CORE {
		core = append(core, fmt.Sprintf("%d %s %s", c.Kind, c.Type.TypeName(), c.Access))
	}
	if got := strings.Join(core, ", "); got != "0 task_struct 0:1, 2 task_struct 0:2, 10 kind 1" && got != "0 task_struct 0:1, 10 kind 1, 2 task_struct 0:2" {
		t.Errorf("CO-RE relocations: %s", got)
	}
	found := false
	for _, l := range prog.Lines {
		found = found || strings.Contains(l.Where().Text, "pairs[1].b += LINUX_KERNEL_VERSION")
	}
	if !found {
		t.Errorf("lines: %+v", prog.Lines)
	}
	for _, v := range o.Vars {
		if v.Name == "pairs" && (v.Size() != 24 || v.Init[12] != 4 || v.Type == nil) {
			t.Errorf("pairs: %+v", v)
		}
	}
}

// TestRewriteClang writes again what clang wrote: a loader must see the same.
func TestRewriteClang(t *testing.T) {
	for _, flags := range [][]string{
		{"-target", "bpf"}, {"-target", "bpf", "-mcpu=v1"}, {"-target", "bpfeb"}, {"-target", "bpf", "-O1"},
	} {
		// Package ebpf does not know a const void.
		path := compile(t, strings.Replace(clangSource, "extern const void", "extern void", 1), flags...)
		o := readFile(t, path)
		data := marshal(t, o)
		again := unmarshal(t, data)
		if !bytes.Equal(marshal(t, again), data) {
			t.Errorf("%v: written twice, it differs", flags)
		}
		if o.Big {
			continue
		}
		want, err := ebpf.LoadCollectionSpec(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ToCollectionSpec(o)
		if err != nil {
			t.Fatal(err)
		}
		for name, p := range want.Programs {
			g := got.Programs[name]
			if g == nil || fmt.Sprint(g.Instructions) != fmt.Sprint(p.Instructions) {
				t.Errorf("%v: program %s:\n%v\nwritten again:\n%v", flags, name, p.Instructions, g.Instructions)
			}
		}
		for name, m := range want.Maps {
			g := got.Maps[name]
			if g == nil {
				t.Errorf("%v: map %s is lost", flags, name)
				continue
			}
			if m.Type != g.Type || m.KeySize != g.KeySize || m.ValueSize != g.ValueSize || m.MaxEntries != g.MaxEntries ||
				m.Flags != g.Flags || m.Pinning != g.Pinning || fmt.Sprint(m.Contents) != fmt.Sprint(g.Contents) {
				t.Errorf("%v: map %s: %+v, written again %+v", flags, name, m, g)
			}
		}
		for name, v := range want.Variables {
			if g := got.Variables[name]; g == nil || g.Offset != v.Offset || !bytes.Equal(g.Value, v.Value) {
				t.Errorf("%v: variable %s: %+v, written again %+v", flags, name, v, g)
			}
		}
	}
}

func TestRewriteClangLoads(t *testing.T) {
	testenv.NeedBPF(t)
	o := readFile(t, compile(t, clangSource, "-target", "bpf"))
	for _, m := range o.Maps {
		m.Pinned = false
	}
	spec, err := ToCollectionSpec(o)
	if err != nil {
		t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatalf("%+v", err)
	}
	coll.Close()
}

var disassembled = regexp.MustCompile(`^ +(\d+):\t((?:[0-9a-f]{2} ?)+)\t(.*)$`)

// compareDisassembly checks that the instructions read from a file are at the
// places and of the bytes that llvm-objdump shows. What relocations changed in
// reading is left out.
func compareDisassembly(t *testing.T, objdump, path string) {
	t.Helper()
	o := readFile(t, path)
	type slot struct {
		section string
		n       int
	}
	got := make(map[slot]string)
	next := make(map[string]int)
	for _, f := range o.Funcs {
		section := f.Section
		if section == "" {
			section = sectionText
		}
		changed := make(map[int]bool)
		for _, r := range f.Relocs {
			changed[r.Insn] = true
		}
		for i, ins := range f.Insns {
			text := "relocated"
			if !changed[i] {
				b, err := isa.Encode(nil, o.byteOrder(), []isa.Instruction{ins})
				if err != nil {
					t.Fatal(err)
				}
				text = fmt.Sprintf("% x", b[:8])
			}
			got[slot{section, next[section]}] = text
			next[section] += ins.Size()
		}
	}
	section, count := "", 0
	for _, line := range strings.Split(run(t, objdump, "-d", path), "\n") {
		if name, ok := strings.CutPrefix(line, "Disassembly of section "); ok {
			section = strings.TrimSuffix(name, ":")
		}
		m := disassembled.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n, _ := strconv.Atoi(m[1])
		want := strings.TrimSpace(m[2])
		if len(want) > 23 {
			want = want[:23]
		}
		count++
		if have := got[slot{section, n}]; have != want && have != "relocated" {
			t.Errorf("%s slot %d: objdump has %q (%s), read was %q", section, n, want, m[3], have)
		}
	}
	if count < 3 || count != len(got) {
		t.Errorf("objdump shows %d instructions, read were %d", count, len(got))
	}
}
