package object

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/skep-bpf/skep/isa"
)

func marshal(t testing.TB, o *Object) []byte {
	t.Helper()
	data, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func unmarshal(t testing.TB, data []byte) *Object {
	t.Helper()
	o, err := Unmarshal(data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func samples() map[string]func() *Object {
	return map[string]func() *Object{"counter": counterObject, "rich": richObject, "big": bigEndianObject, "externs": externObject}
}

func TestDeterministic(t *testing.T) {
	for name, sample := range samples() {
		want := marshal(t, sample())
		for range 20 {
			if !bytes.Equal(marshal(t, sample()), want) {
				t.Fatalf("%s: two objects differ", name)
			}
		}
		var b bytes.Buffer
		if err := Write(&b, sample()); err != nil || !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s: Write does not write what Marshal returns: %v", name, err)
		}
	}
}

func TestWriteChangesNothing(t *testing.T) {
	o := richObject()
	before := describe(o)
	marshal(t, o)
	if diff := cmp.Diff(before, describe(o)); diff != "" {
		t.Error(diff)
	}
}

// TestRoundTrip checks that what is read is what was written, and that
// writing it again gives the same bytes.
func TestRoundTrip(t *testing.T) {
	for name, sample := range samples() {
		o := sample()
		data := marshal(t, o)
		got := unmarshal(t, data)
		if diff := cmp.Diff(describe(o), describe(got)); diff != "" {
			t.Errorf("%s: read differs from written:\n%s", name, diff)
		}
		if again := marshal(t, got); !bytes.Equal(data, again) {
			t.Errorf("%s: written again, it differs:\n%s", name, cmp.Diff(dumpELF(t, data), dumpELF(t, again)))
		}
	}
}

// describe says in text what an object holds, without what writing normalises.
func describe(o *Object) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	say("big %v license %s", isBig(o.byteOrder()), o.License)
	if o.Manifest != nil { // which alone keeps it
		say("arch %s", o.Arch)
	}
	name := func(x any) string {
		switch x := x.(type) {
		case *Func:
			return "func " + x.Name
		case *Map:
			return "map " + x.Name
		case *Var:
			return "var " + x.Name
		case *Extern:
			return "extern " + x.Name
		}
		return fmt.Sprint(x)
	}
	for _, f := range bySection(o.Funcs, func(f *Func) string { return f.Section }) {
		say("func %s section %q global %v weak %v", f.Name, f.Section, f.Global || f.Section != "", f.Weak)
		for i, ins := range f.Insns {
			for _, r := range f.Relocs {
				if r.Insn == i {
					say("  reloc %d %s", r.Kind, name(r.Symbol))
					if r.Kind == RelocMap {
						ins.Src = 0
					}
				}
			}
			say("  %d: %v", i, ins)
		}
		for _, r := range f.CORE {
			steps, err := coreSteps(&r)
			var path []string
			for _, s := range steps {
				switch typ := s.typ.(type) {
				case *btf.Struct:
					path = append(path, typ.Members[s.index].Name)
				case *btf.Enum:
					path = append(path, typ.Values[s.index].Name)
				default:
					path = append(path, fmt.Sprint(s.index))
				}
			}
			say("  core %d kind %d %s %v %v", r.Insn, r.Kind, r.Type.TypeName(), path, err)
		}
		lines, err := lineRecords(f)
		for _, l := range lines {
			say("  line %d %v %v", l.slot, l.Place, err)
		}
		switch {
		case f.Type != nil:
			say("  type %v", f.Type.Type)
		case f.Section != "":
			say("  type FuncProto[args=1 return=Int:\"int\"]")
		}
	}
	var describeMap func(m *Map) string
	describeMap = func(m *Map) string {
		key, value := m.Sizes()
		s := fmt.Sprintf("type %d key %d %v value %d %v entries %d flags %d extra %d numa %d pinned %v", m.Type,
			key, m.Key, value, m.Value, m.MaxEntries, m.Flags, m.Extra, m.NUMANode, m.Pinned)
		for _, v := range m.Values {
			s += " " + name(v)
		}
		if m.Inner != nil {
			s += " inner " + describeMap(m.Inner)
		}
		return s
	}
	for _, m := range o.Maps {
		say("map %s %s", m.Name, describeMap(m))
	}
	for _, v := range bySection(o.Vars, func(v *Var) string { return v.Section }) {
		init := v.Init
		if len(init) == 0 && v.Section != ".bss" {
			init = make([]byte, v.Size())
		}
		say("var %s section %s size %d static %v type %v init %x pointers %v", v.Name, v.Section, v.Size(), v.Static, v.Type, init, len(v.Pointers))
	}
	for _, x := range o.Externs {
		typ := x.Type
		if fn, ok := typ.(*btf.Func); ok {
			typ = fn.Type
		}
		say("extern %s kind %d weak %v type %v", x.Name, x.Kind, x.Weak, typ)
	}
	say("manifest %+v", o.Manifest)
	return out
}

// dumpELF lists the sections of a file for messages.
func dumpELF(t *testing.T, data []byte) []string {
	f, err := parseELF(data)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range f.sections {
		out = append(out, fmt.Sprintf("%s %v %x", s.name, s.typ, s.data))
	}
	for _, s := range f.symbols {
		out = append(out, fmt.Sprintf("%+v", s))
	}
	return out
}

// TestTrim checks that of the types of CO-RE relocations only what they name
// is written, and that its path leads to it.
func TestTrim(t *testing.T) {
	o := unmarshal(t, marshal(t, richObject()))
	var f *Func
	for _, x := range o.Funcs {
		if x.Name == "enter" {
			f = x
		}
	}
	if len(f.CORE) != 2 || f.CORE[0].Access != "0:0" {
		t.Fatalf("got %+v", f.CORE)
	}
	task := f.CORE[0].Type.(*btf.Struct)
	if len(task.Members) != 1 || task.Members[0].Name != "tgid" || task.Members[0].Offset != 12032 || task.Size != 9728 {
		t.Errorf("got %v with %+v", task, task.Members)
	}
	for _, absent := range []string{"mm_struct", "list_head"} {
		if _, err := o.BTF.AnyTypeByName(absent); err == nil {
			t.Errorf("%s was written and is used by nothing", absent)
		}
	}
}

func TestTrimPaths(t *testing.T) {
	inner := &btf.Struct{Name: "inner", Size: 16, Members: []btf.Member{
		{Name: "a", Type: typeU32}, {Name: "b", Type: typeU32, Offset: 32}, {Name: "c", Type: typeU64, Offset: 64},
	}}
	union := &btf.Union{Size: 16, Members: []btf.Member{{Name: "x", Type: typeU64}, {Name: "in", Type: inner}}}
	outer := &btf.Struct{Name: "outer", Size: 64, Members: []btf.Member{
		{Name: "first", Type: typeU64},
		{Type: union, Offset: 64},
		{Name: "list", Type: &btf.Array{Index: typeU32, Type: inner, Nelems: 2}, Offset: 192},
	}}
	enum := &btf.Enum{Name: "state", Size: 4, Values: []btf.EnumValue{{Name: "A"}, {Name: "B", Value: 1}, {Name: "C", Value: 2}}}
	named := &btf.Typedef{Name: "outer_t", Type: &btf.Const{Type: outer}}
	whole := &btf.Struct{Name: "whole", Size: 16, Members: []btf.Member{{Name: "p", Type: typeU64}, {Name: "q", Type: typeU64, Offset: 64}}}
	f := &Func{Name: "f", Section: "raw_tp/sys_enter"}
	for i, c := range []CORE{
		{Kind: COREFieldOffset, Type: outer, Access: "0:1:1:2"},
		{Kind: COREFieldOffset, Type: named, Access: "0:2:1:1"},
		{Kind: COREEnumValue, Type: enum, Access: "2"},
		{Kind: CORETypeExists, Type: outer, Access: "0"},
		{Kind: CORETypeLocal, Type: whole, Access: "0"},
		{Kind: COREFieldExists, Type: whole, Access: "0:1"},
	} {
		c.Insn = i
		f.CORE = append(f.CORE, c)
		f.Insns = append(f.Insns, isa.Mov64Imm(isa.R0, 0))
	}
	f.Insns = append(f.Insns, isa.Exit())
	o := unmarshal(t, marshal(t, &Object{Funcs: []*Func{f}}))
	var got []string
	for _, c := range o.Funcs[0].CORE {
		got = append(got, c.Type.TypeName()+" "+c.Access)
	}
	// outer keeps the union and list; inner keeps b and c.
	want := []string{"outer 0:0:0:1", "outer_t 0:1:1:0", "state 0", "outer 0", "whole 0", "whole 0:1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if e := o.Funcs[0].CORE[2].Type.(*btf.Enum); len(e.Values) != 1 || e.Values[0].Name != "C" {
		t.Errorf("enum was trimmed to %+v", e.Values)
	}
}

// TestCollection checks what package ebpf sees in an object.
func TestCollection(t *testing.T) {
	spec, err := ToCollectionSpec(richObject())
	if err != nil {
		t.Fatal(err)
	}
	prog := spec.Programs["enter"]
	if prog == nil || spec.Programs["exit_"] == nil || len(spec.Programs) != 2 {
		t.Fatalf("programs: %v", spec.Programs)
	}
	if prog.Type != ebpf.RawTracepoint || prog.AttachTo != "sys_enter" || prog.License != "GPL" {
		t.Errorf("program: %v", prog)
	}
	for _, name := range []string{"first", "outer", "table", "events", "records", ".rodata", ".bss", ".data", ".rodata.str1.1"} {
		if spec.Maps[name] == nil {
			t.Errorf("no map %s", name)
		}
	}
	table := spec.Maps["table"]
	if table.Type != ebpf.Hash || table.KeySize != 12 || table.ValueSize != 4 || table.MaxEntries != 100 || table.Flags != 1 {
		t.Errorf("table: %+v", table)
	}
	outer := spec.Maps["outer"]
	if outer.InnerMap == nil || outer.InnerMap.ValueSize != 8 || len(outer.Contents) != 1 || outer.Contents[0].Key != uint32(1) {
		t.Errorf("outer: %+v", outer)
	}
	if n := spec.Maps["records"].Value.(*btf.Struct); n.Members[2].BitfieldSize != 3 || n.Members[3].BitfieldSize != 5 {
		t.Errorf("bit-fields: %+v", n.Members)
	}
	var limit uint32
	if err := spec.Variables["limit"].Get(&limit); err != nil || limit != 42 {
		t.Errorf("limit is %d, %v", limit, err)
	}
	if spec.Variables["last"] != nil || spec.Variables["pair"] == nil {
		t.Errorf("variables: %v", spec.Variables)
	}
	// Places inside variables must not get lost on the way.
	var offsets []uint32
	for _, ins := range prog.Instructions {
		if ins.Reference() == ".data" {
			offsets = append(offsets, uint32(uint64(ins.Constant)>>32))
		}
	}
	if diff := cmp.Diff([]uint32{8, 16}, offsets); diff != "" {
		t.Errorf("offsets into .data: %s", diff)
	}
	lines := 0
	for _, ins := range prog.Instructions {
		if l, ok := ins.Source().(*btf.Line); ok && l.FileName() == "sample.bt" {
			lines++
		}
	}
	if lines != 3 {
		t.Errorf("%d lines, want 3", lines)
	}
}

func TestCollectionRefusals(t *testing.T) {
	typed := externObject()
	typed.Externs[0].Type = typeInt
	typed.Externs[0].Kind = ExternKsym
	for want, o := range map[string]*Object{
		"big-endian and this machine": bigEndianObject(),
		"has a type":                  typed,
	} {
		if _, err := ToCollectionSpec(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestWriteErrors checks that an object that cannot be written says why.
func TestWriteErrors(t *testing.T) {
	tests := []struct {
		want   string
		change func(o *Object)
	}{
		{"function count_reads has no instructions", func(o *Object) { o.Funcs[0].Insns = nil }},
		{`function "count_reads": a function has that name already`, func(o *Object) { o.Funcs = append(o.Funcs, o.Funcs[0]) }},
		{`map "1x"`, func(o *Object) { o.Maps[0].Name = "1x" }},
		{"relocation of instruction 99 of 11", func(o *Object) { o.Funcs[0].Relocs[0].Insn = 99 }},
		{"instruction 4 has two relocations", func(o *Object) { o.Funcs[0].Relocs = append(o.Funcs[0].Relocs, o.Funcs[0].Relocs[0]) }},
		{"not of this object", func(o *Object) { o.Funcs[0].Relocs[0].Symbol = &Map{Name: "other"} }},
		{"not of this object", func(o *Object) { o.Funcs[0].Relocs[0].Symbol = nil }},
		{"does not go with a *object.Map", func(o *Object) { o.Funcs[0].Relocs[0].Kind = RelocVar }},
		{"cannot refer to AT_reads", func(o *Object) { o.Funcs[0].Relocs[0].Insn = 0 }},
		{`section ".maps" is not one for programs`, func(o *Object) { o.Funcs[0].Section = ".maps" }},
		{"its key has 8 bytes, the type of that 4", func(o *Object) { o.Maps[0].KeySize = 8 }},
		{"out of order or range", func(o *Object) { o.Funcs[0].Lines[1].Insn = 50 }},
		{"is global and has no type", func(o *Object) {
			o.Funcs = append(o.Funcs, &Func{Name: "g", Global: true, Insns: []isa.Instruction{isa.Exit()}})
		}},
		{"there are only 11 instructions", func(o *Object) {
			o.Funcs[0].CORE = []CORE{{Insn: 11, Type: taskType(), Access: "0:1"}}
		}},
		{"has no member 9", func(o *Object) {
			o.Funcs[0].CORE = []CORE{{Insn: 1, Type: taskType(), Access: "0:9"}}
		}},
		{"not of the form 0:1:2", func(o *Object) {
			o.Funcs[0].CORE = []CORE{{Insn: 1, Type: taskType(), Access: "-1"}}
		}},
		{"two CO-RE relocations", func(o *Object) {
			o.Funcs[0].CORE = []CORE{{Insn: 1, Type: taskType(), Access: "0:1"}, {Insn: 1, Type: taskType(), Access: "0:1"}}
		}},
		{"register r15 does not exist", func(o *Object) { o.Funcs[0].Insns[0].Dst = 15 }},
		{"cannot be in .bss", func(o *Object) { o.Vars = []*Var{{Name: "v", Section: ".bss", Init: []byte{1}}} }},
		{`section ".bss.x" is not one for variables`, func(o *Object) { o.Vars = []*Var{{Name: "v", Section: ".bss.x", Init: []byte{1}}} }},
		{"its value has 1 bytes and its type 4", func(o *Object) { o.Vars = []*Var{{Name: "v", Section: ".data", Type: typeInt, Init: []byte{1}}} }},
		{"out of range", func(o *Object) { o.Vars = []*Var{{Name: "v", Section: ".data"}} }},
		{"without a signature", func(o *Object) { o.Externs = []*Extern{{Kind: ExternKfunc, Name: "f"}} }},
		{`there is no program "count_read", did you mean "count_reads"?`, func(o *Object) { o.Manifest.Programs[0].Name = "count_read" }},
		{`the manifest is for "arm64"`, func(o *Object) { o.Manifest.Target.Arch = "arm64" }},
		{"its type has no size", func(o *Object) {
			o.Vars = []*Var{{Name: "v", Section: ".data", Type: &btf.Fwd{Name: "x"}}}
		}},
	}
	for _, test := range tests {
		o := counterObject()
		test.change(o)
		if _, err := o.Marshal(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	for name, sample := range samples() {
		o := sample()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				marshal(b, o)
			}
		})
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	data := marshal(b, counterObject())
	b.ReportAllocs()
	for b.Loop() {
		unmarshal(b, data)
	}
}

// A hidden function is static to the verifier.
func TestHiddenFunction(t *testing.T) {
	sub := &Func{Name: "sub", Global: true, Insns: []isa.Instruction{isa.Mov64Imm(isa.R0, 0), isa.Exit()}, Type: &btf.Func{
		Name: "sub", Type: &btf.FuncProto{Return: typeInt},
	}}
	prog := &Func{
		Name: "prog", Section: "raw_tp", Insns: []isa.Instruction{isa.CallLocal(0), isa.Exit()},
		Relocs: []Reloc{{Insn: 0, Kind: RelocCall, Symbol: sub}},
	}
	data, err := (&Object{License: "GPL", Funcs: []*Func{prog, sub}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	global := func() bool {
		o, err := Unmarshal(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range o.Funcs {
			if f.Name == "sub" {
				return f.Global
			}
		}
		t.Fatal("the function is gone")
		return false
	}
	if !global() {
		t.Error("a global function was read as static")
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range symbols {
		if s.Name == "sub" {
			table := f.SectionByType(elf.SHT_SYMTAB)
			data[table.Offset+uint64(i+1)*elf.Sym64Size+5] = byte(elf.STV_HIDDEN)
		}
	}
	if global() {
		t.Error("a hidden function was read as global")
	}
}
