package object

import (
	"encoding/binary"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/isa"
	"github.com/skep-bpf/skep/source"
)

// Numbers of helpers and map types (include/uapi/linux/bpf.h).
const (
	helperMapLookup       = 1
	helperCurrentTask     = 35
	helperProbeReadKernel = 113
	helperLoop            = 181

	mapHash       = 1
	mapArray      = 2
	mapHashOfMaps = 13
	mapRingbuf    = 27
)

var (
	typeInt  = &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	typeU32  = &btf.Int{Name: "unsigned int", Size: 4}
	typeU64  = &btf.Int{Name: "unsigned long long", Size: 8}
	typeChar = &btf.Int{Name: "char", Size: 1, Encoding: btf.Signed}
)

const sampleText = `// counts
BEGIN { @start = nsecs; }
tracepoint:raw_syscalls:sys_enter { @reads[pid] = count(); }
`

func sampleFile() *source.File { return source.NewFile("sample.bt", sampleText) }

func spanOf(f *source.File, start, end int) source.Span {
	return source.Span{File: f, Start: start, End: end}
}

// counterObject is the object of a one-liner: a raw tracepoint that counts
// in an array.
func counterObject() *Object {
	f := sampleFile()
	counts := &Map{Name: "AT_reads", Type: mapArray, Key: typeU32, Value: typeU64, MaxEntries: 4}
	prog := &Func{
		Name: "count_reads", Section: "raw_tp/sys_enter",
		Insns: []isa.Instruction{
			isa.Mov64Imm(isa.R1, 0),
			isa.StoreMem(isa.Word, isa.FP, -4, isa.R1),
			isa.Mov64(isa.R2, isa.FP),
			isa.ALU64Imm(isa.Add, isa.R2, -4),
			isa.LoadMapFD(isa.R1, 0),
			isa.Call(helperMapLookup),
			isa.JumpIfImm(isa.Eq, isa.R0, 0, 2),
			isa.Mov64Imm(isa.R1, 1),
			isa.Atomic(isa.AtomicAdd, isa.Double, isa.R0, 0, isa.R1),
			isa.Mov64Imm(isa.R0, 0),
			isa.Exit(),
		},
		Relocs: []Reloc{{Insn: 4, Kind: RelocMap, Symbol: counts}},
		Lines: []Line{
			{Insn: 0, Span: spanOf(f, 36, 40)},
			{Insn: 4, Span: spanOf(f, 72, 93)},
			{Insn: 9, Span: spanOf(f, 36, 40)},
		},
	}
	return &Object{
		Arch: "amd64", License: "GPL", Funcs: []*Func{prog}, Maps: []*Map{counts},
		Manifest: &Manifest{
			Version:  ManifestVersion,
			Source:   Source{Language: "bt", Name: f.Name, Text: f.Text},
			Target:   Platform{Arch: "amd64", Release: "6.18.0"},
			Programs: []Program{{Name: "count_reads", Kind: KindAttach, Probes: []int{0}, Hook: "rawtracepoint:sys_enter", Line: 3}},
			Probes:   []Probe{{Name: "tracepoint:raw_syscalls:sys_enter"}},
			Maps: []MapShow{{
				Name: "@reads", Map: "AT_reads", KeySize: 4, Present: -1, Agg: AggCount,
				Keys: []Field{{Type: Type{Kind: TypeInt, Size: 4}}}, Value: Type{Kind: TypeInt, Size: 8}, Line: 3,
			}},
		},
	}
}

// taskType is task_struct as a front end knows it: with members that matter
// to nobody, one of which leads to a type of its own.
func taskType() *btf.Struct {
	task := &btf.Struct{Name: "task_struct", Size: 9728}
	mm := &btf.Struct{Name: "mm_struct", Size: 1024, Members: []btf.Member{{Name: "owner", Type: &btf.Pointer{Target: task}}}}
	list := &btf.Struct{Name: "list_head", Size: 16}
	list.Members = []btf.Member{{Name: "next", Type: &btf.Pointer{Target: list}}, {Name: "prev", Type: &btf.Pointer{Target: list}, Offset: 64}}
	task.Members = []btf.Member{
		{Name: "state", Type: typeU32, Offset: 192},
		{Name: "tasks", Type: list, Offset: 8000},
		{Name: "mm", Type: &btf.Pointer{Target: mm}, Offset: 9600},
		{Name: "pid", Type: &btf.Typedef{Name: "pid_t", Type: typeInt}, Offset: 12000},
		{Name: "tgid", Type: &btf.Typedef{Name: "pid_t", Type: typeInt}, Offset: 12032},
	}
	return task
}

// richObject uses all that an object can express and that every loader takes.
func richObject() *Object {
	f := sampleFile()
	task := taskType()
	inner := &Map{Type: mapArray, Key: typeU32, Value: typeU64, MaxEntries: 1}
	first := &Map{Name: "first", Type: mapArray, Key: typeU32, Value: typeU64, MaxEntries: 1}
	events := &Map{Name: "events", Type: mapRingbuf, MaxEntries: 4096}
	outer := &Map{
		Name: "outer", Type: mapHashOfMaps, Key: typeU32, MaxEntries: 8, Inner: inner,
		Values: []any{nil, first},
	}
	record := &btf.Struct{Name: "record", Size: 24, Members: []btf.Member{
		{Name: "count", Type: typeU64},
		{Name: "task", Type: &btf.Pointer{Target: task}, Offset: 64},
		{Name: "low", Type: typeU32, Offset: 128, BitfieldSize: 3},
		{Name: "high", Type: typeU32, Offset: 131, BitfieldSize: 5},
	}}
	table := &Map{Name: "table", Type: mapHash, KeySize: 12, ValueSize: 4, MaxEntries: 100, Flags: 1}
	records := &Map{Name: "records", Type: mapHash, Key: &btf.Array{Index: typeU32, Type: typeChar, Nelems: 16}, Value: record, MaxEntries: 10}

	limit := &Var{
		Name: "limit", Section: ".rodata", Type: &btf.Const{Type: &btf.Volatile{Type: typeU32}},
		Init: binary.LittleEndian.AppendUint32(nil, 42),
	}
	text := &Var{Name: "text", Section: ".rodata.str1.1", Init: []byte("hello\x00"), Static: true}
	total := &Var{Name: "total", Section: ".bss", Type: typeU64}
	pair := &Var{Name: "pair", Section: ".data", Type: &btf.Array{Index: typeU32, Type: typeU32, Nelems: 2}, Init: []byte{1, 0, 0, 0, 2, 0, 0, 0}}
	flag := &Var{Name: "flag", Section: ".data", Type: typeChar, Init: []byte{1}}
	last := &Var{Name: "last", Section: ".data", Type: typeU64, Init: []byte{9, 0, 0, 0, 0, 0, 0, 0}, Static: true}

	banner := &Extern{Kind: ExternKsym, Name: "schedule"}
	absent := &Extern{Kind: ExternKsym, Name: "no_such_symbol_here", Weak: true}
	version := &Extern{Kind: ExternKconfig, Name: "LINUX_KERNEL_VERSION", Type: typeInt}

	leaf := &Func{
		Name: "leaf",
		Insns: []isa.Instruction{
			isa.Mov64Imm(isa.R0, 1),
			isa.Exit(),
		},
		Type: &btf.Func{Type: &btf.FuncProto{Return: typeInt}},
	}
	body := &Func{
		Name:  "body", // a callback of bpf_loop
		Insns: []isa.Instruction{isa.Mov64Imm(isa.R0, 0), isa.Exit()},
		Type: &btf.Func{Type: &btf.FuncProto{Return: typeInt, Params: []btf.FuncParam{
			{Name: "i", Type: typeU32}, {Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}},
		}}},
	}
	add := &Func{
		Name: "add", Global: true,
		Insns: []isa.Instruction{
			isa.Mov64(isa.R6, isa.R1),
			isa.CallLocal(0),
			isa.ALU64(isa.Add, isa.R0, isa.R6),
			isa.Exit(),
		},
		Relocs: []Reloc{{Insn: 1, Kind: RelocCall, Symbol: leaf}},
		Lines:  []Line{{Insn: 1, Span: spanOf(f, 18, 24)}},
		Type:   &btf.Func{Type: &btf.FuncProto{Return: typeInt, Params: []btf.FuncParam{{Name: "n", Type: typeInt}}}},
	}
	prog := &Func{
		Name: "enter", Section: "raw_tp/sys_enter",
		Insns: []isa.Instruction{
			isa.Call(helperCurrentTask), // 0
			isa.Mov64(isa.R3, isa.R0),
			isa.ALU64Imm(isa.Add, isa.R3, 1504), // offset of tgid
			isa.Mov64(isa.R1, isa.FP),
			isa.ALU64Imm(isa.Add, isa.R1, -8),
			isa.Mov64Imm(isa.R2, 4), // size of tgid
			isa.Call(helperProbeReadKernel),
			isa.LoadMapValue(isa.R7, 0, 0), // total
			isa.LoadMem(isa.Word, isa.R1, isa.FP, -8),
			isa.StoreMem(isa.Double, isa.R7, 0, isa.R1),
			isa.LoadMapValue(isa.R8, 0, 4), // 10: pair[1]
			isa.LoadMem(isa.Word, isa.R1, isa.R8, 0),
			isa.CallLocal(0),               // add
			isa.LoadMapValue(isa.R1, 0, 0), // limit
			isa.LoadMem(isa.Word, isa.R2, isa.R1, 0),
			isa.LoadImm64(isa.R3, 0), // schedule
			isa.LoadImm64(isa.R4, 0), // no_such_symbol_here
			isa.LoadImm64(isa.R5, 0), // version
			isa.LoadMem(isa.Word, isa.R9, isa.R5, 0),
			isa.LoadMapFD(isa.R1, 0),       // outer
			isa.LoadMapFD(isa.R1, 0),       // 20: table
			isa.LoadMapFD(isa.R1, 0),       // events
			isa.LoadMapFD(isa.R1, 0),       // records
			isa.LoadMapValue(isa.R1, 0, 0), // text
			isa.LoadMem(isa.Byte, isa.R1, isa.R1, 1),
			isa.LoadMapValue(isa.R1, 0, 0), // last
			isa.LoadMem(isa.Double, isa.R1, isa.R1, 0),
			isa.Mov64Imm(isa.R1, 3),
			isa.LoadFunc(isa.R2, 0), // body
			isa.Mov64Imm(isa.R3, 0),
			isa.Mov64Imm(isa.R4, 0), // 30
			isa.Call(helperLoop),
			isa.Mov64Imm(isa.R0, 0),
			isa.Exit(),
		},
		Relocs: []Reloc{
			{Insn: 7, Kind: RelocVar, Symbol: total},
			{Insn: 10, Kind: RelocVar, Symbol: pair},
			{Insn: 12, Kind: RelocCall, Symbol: add},
			{Insn: 13, Kind: RelocVar, Symbol: limit},
			{Insn: 15, Kind: RelocExtern, Symbol: banner},
			{Insn: 16, Kind: RelocExtern, Symbol: absent},
			{Insn: 17, Kind: RelocExtern, Symbol: version},
			{Insn: 19, Kind: RelocMap, Symbol: outer},
			{Insn: 20, Kind: RelocMap, Symbol: table},
			{Insn: 21, Kind: RelocMap, Symbol: events},
			{Insn: 22, Kind: RelocMap, Symbol: records},
			{Insn: 23, Kind: RelocVar, Symbol: text},
			{Insn: 25, Kind: RelocVar, Symbol: last},
			{Insn: 28, Kind: RelocFuncAddr, Symbol: body},
		},
		CORE: []CORE{
			{Insn: 2, Kind: COREFieldOffset, Type: task, Access: "0:4"},
			{Insn: 5, Kind: COREFieldSize, Type: task, Access: "0:4"},
		},
		Lines: []Line{{Insn: 0, Span: spanOf(f, 36, 40)}, {Insn: 12, Span: spanOf(f, 72, 93)}},
	}
	second := &Func{
		Name: "exit_", Section: "raw_tp/sys_enter",
		Insns:  []isa.Instruction{isa.Mov64Imm(isa.R1, 1), isa.CallLocal(0), isa.Mov64Imm(isa.R0, 0), isa.Exit()},
		Relocs: []Reloc{{Insn: 1, Kind: RelocCall, Symbol: add}},
	}
	return &Object{
		Arch: "amd64", License: "GPL",
		Funcs:   []*Func{leaf, body, add, prog, second},
		Maps:    []*Map{first, outer, table, events, records},
		Vars:    []*Var{limit, text, total, flag, pair, last},
		Externs: []*Extern{banner, absent, version},
	}
}

// bigEndianObject is for a machine of the other byte order.
func bigEndianObject() *Object {
	o := counterObject()
	o.Arch, o.Manifest.Target.Arch = "s390x", "s390x"
	return o
}

// externObject refers to the kernel in ways that package ebpf does not take.
func externObject() *Object {
	runqueues := &Extern{Kind: ExternKsym, Name: "runqueues", Type: &btf.Struct{Name: "rq", Size: 8, Members: []btf.Member{{Name: "n", Type: typeU64}}}}
	get := &Extern{Kind: ExternKfunc, Name: "bpf_get_fsverity_digest", Weak: true, Type: &btf.Func{Type: &btf.FuncProto{
		Return: typeInt, Params: []btf.FuncParam{{Name: "x", Type: typeU64}},
	}}}
	hz := &Extern{Kind: ExternKconfig, Name: "CONFIG_HZ", Type: typeU32, Weak: true}
	ops := &btf.Struct{Name: "some_ops", Size: 16, Members: []btf.Member{
		{Name: "init", Type: &btf.Pointer{Target: &btf.FuncProto{Return: typeInt}}},
		{Name: "flags", Type: typeU64, Offset: 64},
	}}
	init := &Func{Name: "ops_init", Section: "struct_ops/init", Insns: []isa.Instruction{isa.Mov64Imm(isa.R0, 0), isa.Exit()}}
	f := &Func{
		Name: "f", Section: "fentry/vfs_read", Weak: true,
		Insns: []isa.Instruction{
			isa.LoadImm64(isa.R1, 0), isa.LoadImm64(isa.R2, 0), isa.CallKfunc(0, 0), isa.Mov64Imm(isa.R0, 0), isa.Exit(),
		},
		Relocs: []Reloc{
			{Insn: 0, Kind: RelocExtern, Symbol: runqueues},
			{Insn: 1, Kind: RelocExtern, Symbol: hz},
			{Insn: 2, Kind: RelocExtern, Symbol: get},
		},
	}
	return &Object{
		License: "GPL", Funcs: []*Func{init, f}, Externs: []*Extern{runqueues, get, hz},
		Maps: []*Map{
			{Name: "bloom", Type: 30, ValueSize: 4, MaxEntries: 10, Extra: 3, Pinned: true, NUMANode: 1, Flags: 4},
			{Name: "arena", Type: 33, MaxEntries: 100, Extra: 1 << 44, Flags: 1 << 10},
			{Name: "huge", Type: mapHash, KeySize: 4, ValueSize: 4, MaxEntries: 1<<32 - 1},
			{Name: "jumps", Type: bpfMapTypeProgArray, KeySize: 4, MaxEntries: 2, Values: []any{init, nil}},
		},
		Vars: []*Var{{
			Name: "ops", Section: ".struct_ops.link", Type: ops, Init: append(make([]byte, 8), 7, 0, 0, 0, 0, 0, 0, 0),
			Pointers: []Pointer{{0, init}},
		}},
	}
}
