package targettest

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target"
)

// A Source is a target.Source of plain data. What is nil is unknown.
type Source struct {
	Scalars  target.Facts
	Tick     int
	Blobs    map[string][]byte // raw BTF by module, "" for the kernel's
	Formats  map[target.Event]string
	Funcs    []string // "name" or "name [module]"
	Kallsyms string
	Lacks    map[target.FeatureName]string // why a feature is missing; all others are there
	Root     fs.FS                         // the file system, of all processes
}

var _ target.Source = (*Source)(nil)

// Facts returns s.Scalars.
func (s *Source) Facts() (target.Facts, error) { return s.Scalars, nil }

// HZ returns s.Tick.
func (s *Source) HZ() int { return s.Tick }

// BTF returns one of s.Blobs.
func (s *Source) BTF(module string) ([]byte, error) {
	if raw, ok := s.Blobs[module]; ok {
		return raw, nil
	}
	return nil, target.Unknownf("no BTF of %q", module)
}

// BTFModules lists the modules of s.Blobs.
func (s *Source) BTFModules() ([]string, error) {
	names := slices.Sorted(maps.Keys(s.Blobs))
	return slices.DeleteFunc(names, func(n string) bool { return n == "" }), nil
}

// Events lists s.Formats.
func (s *Source) Events() ([]byte, error) {
	if s.Formats == nil {
		return nil, target.Unknownf("tracefs is not mounted")
	}
	var b strings.Builder
	for e := range s.Formats {
		b.WriteString(e.String() + "\n")
	}
	return []byte(b.String()), nil
}

// Format returns one of s.Formats.
func (s *Source) Format(subsystem, event string) ([]byte, error) {
	if s.Formats == nil {
		return nil, target.Unknownf("tracefs is not mounted")
	}
	e := target.Event{Subsystem: subsystem, Name: event}
	if text, ok := s.Formats[e]; ok {
		return []byte(text), nil
	}
	return nil, fmt.Errorf("tracepoint %s: %w", e, target.ErrNotFound)
}

// Functions returns s.Funcs as lines.
func (s *Source) Functions() ([]byte, error) {
	if s.Funcs == nil {
		return nil, target.Unknownf("functions are not listed")
	}
	return []byte(strings.Join(s.Funcs, "\n") + "\n"), nil
}

// Symbols returns s.Kallsyms.
func (s *Source) Symbols() ([]byte, error) { return []byte(s.Kallsyms), nil }

// Feature looks into s.Lacks.
func (s *Source) Feature(name target.FeatureName) target.Feature {
	why, lacks := s.Lacks[name]
	return target.Feature{Name: name, Have: !lacks, Known: true, Why: why}
}

// Files returns s.Root for every process.
func (s *Source) Files(int) (target.Files, error) {
	if s.Root == nil {
		return nil, target.Unknownf("this machine has no files")
	}
	return files{s.Root}, nil
}

// files makes a plain fs.FS, without symbolic links, a target.Files.
type files struct{ fs.FS }

func (f files) OpenFile(name string) (target.File, error) {
	file, err := f.Open(strings.TrimPrefix(path.Clean(name), "/"))
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", name, target.ErrNotFound)
	}
	info, err := file.Stat()
	at, ok := file.(target.File)
	if err != nil || !ok || !info.Mode().IsRegular() {
		file.Close()
		return nil, fmt.Errorf("%s is no regular file", name)
	}
	return at, nil
}

func (f files) HostPath(name string) (string, error) { return name, nil }

// Kernel is a machine with a handful of types, events and functions, among
// them task_struct, sched:sched_switch, syscalls:sys_enter_openat, vfs_read.
func Kernel(t testing.TB) *Source {
	t.Helper()
	types := kernelTypes()
	return &Source{
		Scalars: target.Facts{
			Name: "the test machine", Arch: "amd64", CPUs: 4, PageSize: 4096,
			Release: target.Release{Major: 6, Minor: 12, Patch: 3, Text: "6.12.3-test"},
		},
		Tick:  250,
		Blobs: map[string][]byte{"": Marshal(t, binary.LittleEndian, types...)},
		Formats: map[target.Event]string{
			{Subsystem: "sched", Name: "sched_switch"}:        schedSwitch,
			{Subsystem: "sched", Name: "sched_wakeup"}:        strings.ReplaceAll(schedSwitch, "sched_switch", "sched_wakeup"),
			{Subsystem: "sched", Name: "sched_process_exec"}:  processExec,
			{Subsystem: "syscalls", Name: "sys_enter_openat"}: enterOpenat,
			{Subsystem: "syscalls", Name: "sys_enter_open"}:   strings.ReplaceAll(enterOpenat, "openat", "open"),
			{Subsystem: "syscalls", Name: "sys_exit_openat"}:  strings.ReplaceAll(exitRead, "read", "openat"),
			{Subsystem: "syscalls", Name: "sys_exit_read"}:    exitRead,
			{Subsystem: "skb", Name: "consume_skb"}:           consumeSKB,
			{Subsystem: "raw_syscalls", Name: "sys_enter"}:    rawEnter,
			{Subsystem: "block", Name: "block_rq_issue"}:      strings.ReplaceAll(processExec, "sched_process_exec", "block_rq_issue"),
		},
		Funcs: []string{"vfs_read", "vfs_write", "vfs_open", "tcp_connect", "no_type", "ext4_sync_file [ext4]"},
		Kallsyms: "ffffffff81000000 T _text\nffffffff81000100 T vfs_read\nffffffff81000200 T vfs_write\n" +
			"ffffffff81000300 t notrace_function\nffffffff82000000 D jiffies\nffffffffc0000000 t ext4_sync_file\t[ext4]\n",
	}
}

// New returns the target of Kernel.
func New(t testing.TB) target.Target {
	t.Helper()
	m, err := target.New(Kernel(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Marshal writes types as raw BTF.
func Marshal(t testing.TB, order binary.ByteOrder, types ...btf.Type) []byte {
	t.Helper()
	b, err := btf.NewBuilder(types, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, &btf.MarshalOptions{Order: order})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func kernelTypes() []btf.Type {
	void := (*btf.Void)(nil)
	i32 := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	u32 := &btf.Int{Name: "unsigned int", Size: 4}
	u64 := &btf.Int{Name: "long unsigned int", Size: 8}
	s64 := &btf.Int{Name: "long int", Size: 8, Encoding: btf.Signed}
	llu := &btf.Int{Name: "long long unsigned int", Size: 8}
	u16 := &btf.Int{Name: "short unsigned int", Size: 2}
	char := &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
	boolean := &btf.Int{Name: "_Bool", Size: 1, Encoding: btf.Bool}
	def := func(name string, typ btf.Type) *btf.Typedef { return &btf.Typedef{Name: name, Type: typ} }
	ptr := func(typ btf.Type) *btf.Pointer { return &btf.Pointer{Target: typ} }

	pid := def("pid_t", def("__kernel_pid_t", i32))
	size := def("size_t", u64)
	ssize := def("ssize_t", s64)
	loff := def("loff_t", def("__kernel_loff_t", &btf.Int{Name: "long long int", Size: 8, Encoding: btf.Signed}))
	umode := def("umode_t", u16)
	qword := def("u64", def("__u64", llu))

	list := &btf.Struct{Name: "list_head", Size: 16}
	list.Members = []btf.Member{{Name: "next", Type: ptr(list)}, {Name: "prev", Type: ptr(list), Offset: 64}}
	inode := &btf.Struct{Name: "inode", Size: 16, Members: []btf.Member{{Name: "i_ino", Type: u64}, {Name: "i_mode", Type: umode, Offset: 64}}}
	file := &btf.Struct{Name: "file", Size: 16, Members: []btf.Member{{Name: "f_inode", Type: ptr(inode)}, {Name: "f_pos", Type: loff, Offset: 64}}}
	mm := &btf.Struct{Name: "mm_struct", Size: 8, Members: []btf.Member{{Name: "pgd", Type: u64}}}
	task := &btf.Struct{Name: "task_struct", Size: 128}
	task.Members = []btf.Member{
		{Name: "__state", Type: u32},
		{Name: "in_execve", Type: u32, Offset: 32, BitfieldSize: 1},
		{Name: "in_iowait", Type: u32, Offset: 33, BitfieldSize: 1},
		{Name: "tasks", Type: list, Offset: 64},
		{Name: "mm", Type: ptr(mm), Offset: 192},
		{Name: "pid", Type: pid, Offset: 256},
		{Name: "tgid", Type: pid, Offset: 288},
		{Name: "real_parent", Type: ptr(&btf.TypeTag{Value: "rcu", Type: task}), Offset: 320},
		{Name: "comm", Type: &btf.Array{Index: u32, Type: char, Nelems: 16}, Offset: 384},
		{Name: "", Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "start_time", Type: qword}, {Name: "start_alt", Type: s64}}}, Offset: 512},
	}
	tcp := &btf.Enum{Name: "tcp_state", Size: 4, Values: []btf.EnumValue{{Name: "TCP_ESTABLISHED", Value: 1}, {Name: "TCP_SYN_SENT", Value: 2}, {Name: "TCP_LISTEN", Value: 10}}}
	sign := &btf.Enum{Name: "sign", Size: 4, Signed: true, Values: []btf.EnumValue{{Name: "MINUS_ONE", Value: ^uint64(0)}}}
	big := &btf.Enum{Name: "big", Size: 8, Values: []btf.EnumValue{{Name: "BIG_ONE", Value: 1 << 40}}}
	reason := &btf.Enum{Name: "skb_drop_reason", Size: 4, Values: []btf.EnumValue{{Name: "SKB_CONSUMED", Value: 1}}}

	readProto := &btf.FuncProto{Return: ssize, Params: []btf.FuncParam{
		{Name: "file", Type: ptr(file)}, {Name: "buf", Type: ptr(char)}, {Name: "count", Type: size}, {Name: "pos", Type: ptr(loff)},
	}}
	writeProto := &btf.FuncProto{Return: ssize, Params: []btf.FuncParam{
		{Name: "file", Type: ptr(file)}, {Name: "buf", Type: ptr(&btf.Const{Type: char})}, {Name: "count", Type: size}, {Name: "pos", Type: ptr(loff)},
	}}
	switchArgs := func(named bool) *btf.FuncProto {
		params := []btf.FuncParam{{Name: "__data", Type: ptr(void)}, {Name: "preempt", Type: boolean}, {Name: "prev", Type: ptr(task)}, {Name: "next", Type: ptr(task)}, {Name: "prev_state", Type: u32}}
		if !named {
			for i := range params {
				params[i].Name = ""
			}
		}
		return &btf.FuncProto{Return: void, Params: params}
	}
	fn := func(name string, proto btf.Type) *btf.Func {
		return &btf.Func{Name: name, Type: proto, Linkage: btf.StaticFunc}
	}
	iterProto := &btf.FuncProto{Return: i32, Params: []btf.FuncParam{{Name: "task", Type: ptr(task)}}}
	runqueues := &btf.Var{Name: "runqueues", Type: list, Linkage: btf.GlobalVar}

	return []btf.Type{
		task, list, file, inode, mm, tcp, sign, big, reason, qword, umode, pid, size, ssize, boolean,
		def("bool", boolean), def("u32", def("__u32", u32)), def("dev_t", u32), def("__data_loc_t", u32),
		fn("vfs_read", readProto), fn("vfs_write", writeProto), fn("vfs_open", readProto), fn("tcp_connect", iterProto),
		def("btf_trace_sched_switch", ptr(switchArgs(false))), fn("__probestub_sched_switch", switchArgs(true)),
		def("btf_trace_sys_enter", ptr(&btf.FuncProto{Return: void, Params: []btf.FuncParam{{Type: ptr(void)}, {Type: ptr(list)}, {Type: s64}}})),
		&btf.Struct{Name: "bpf_iter__task", Size: 16, Members: []btf.Member{
			{Name: "", Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "meta", Type: ptr(void)}}}},
			{Name: "", Type: &btf.Union{Size: 8, Members: []btf.Member{{Name: "task", Type: ptr(task)}}}, Offset: 64},
		}},
		fn("bpf_iter_task", iterProto), fn("bpf_iter_num_new", iterProto),
		&btf.Datasec{Name: ".data..percpu", Size: 16, Vars: []btf.VarSecinfo{{Type: runqueues, Size: 16}}},
	}
}

const common = `format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

`

const schedSwitch = "name: sched_switch\nID: 372\n" + common +
	`	field:char prev_comm[16];	offset:8;	size:16;	signed:0;
	field:pid_t prev_pid;	offset:24;	size:4;	signed:1;
	field:int prev_prio;	offset:28;	size:4;	signed:1;
	field:long prev_state;	offset:32;	size:8;	signed:1;
	field:char next_comm[16];	offset:40;	size:16;	signed:0;
	field:pid_t next_pid;	offset:56;	size:4;	signed:1;
	field:int next_prio;	offset:60;	size:4;	signed:1;

print fmt: "prev_pid=%d ==> next_pid=%d", REC->prev_pid, REC->next_pid
`

const processExec = "name: sched_process_exec\nID: 369\n" + common +
	`	field:__data_loc char[] filename;	offset:8;	size:4;	signed:0;
	field:pid_t pid;	offset:12;	size:4;	signed:1;
	field:__rel_loc u32[] list;	offset:16;	size:4;	signed:0;
	field:u8 mac[6];	offset:20;	size:6;	signed:0;

print fmt: "filename=%s pid=%d", __get_str(filename), REC->pid
`

const enterOpenat = "name: sys_enter_openat\nID: 782\n" + common +
	`	field:int __syscall_nr;	offset:8;	size:4;	signed:1;
	field:int dfd;	offset:16;	size:8;	signed:0;
	field:const char * filename;	offset:24;	size:8;	signed:0;
	field:int flags;	offset:32;	size:8;	signed:0;
	field:umode_t mode;	offset:40;	size:8;	signed:0;

print fmt: "dfd: 0x%08lx, filename: 0x%08lx", ((unsigned long)(REC->dfd)), ((unsigned long)(REC->filename))
`

const exitRead = "name: sys_exit_read\nID: 783\n" + common +
	`	field:int __syscall_nr;	offset:8;	size:4;	signed:1;
	field:long ret;	offset:16;	size:8;	signed:1;

print fmt: "0x%lx", REC->ret
`

const consumeSKB = "name: consume_skb\nID: 1200\n" + common +
	`	field:void * skbaddr;	offset:8;	size:8;	signed:0;
	field:enum skb_drop_reason reason;	offset:16;	size:4;	signed:0;
	field:unsigned long args[6];	offset:24;	size:48;	signed:0;

print fmt: "skbaddr=%p
more", REC->skbaddr
`

const rawEnter = "name: sys_enter\nID: 400\n" + common +
	`	field:long id;	offset:8;	size:8;	signed:1;
	field:unsigned long args[6];	offset:16;	size:48;	signed:0;

print fmt: "NR %ld", REC->id
`
