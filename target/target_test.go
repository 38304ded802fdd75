package target_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/targettest"
)

func TestRelease(t *testing.T) {
	for text, want := range map[string]string{
		"6.18.44-fc-v669": "6.18.44", "6.1.0-9-cloud-amd64": "6.1", "5.4": "5.4", "6.12-rc3": "6.12", "4": "4.0", "6.1.x": "6.1",
	} {
		r, err := target.ParseRelease(text)
		if err != nil || r.Text != text {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
		r.Text = ""
		if r.String() != want {
			t.Errorf("%s has the numbers %s, want %s", text, r, want)
		}
	}
	for _, text := range []string{"", "x6.1", "-1", "99999999999999999999.1"} {
		if r, err := target.ParseRelease(text); err == nil {
			t.Errorf("%q became %v", text, r)
		}
	}
	r, _ := target.ParseRelease("6.1.7")
	if !r.AtLeast(6, 1) || !r.AtLeast(5, 19) || r.AtLeast(6, 2) || r.Code() != 0x060107 {
		t.Errorf("%v compares wrongly, code %#x", r, r.Code())
	}
}

func TestFormat(t *testing.T) {
	m := targettest.New(t)
	f, err := m.Format("sched", "sched_process_exec")
	if err != nil {
		t.Fatal(err)
	}
	if f.ID != 369 || f.Subsystem != "sched" || len(f.Fields) != 8 || len(f.Args()) != 4 || f.Size() != 26 ||
		f.Print != `"filename=%s pid=%d", __get_str(filename), REC->pid` {
		t.Errorf("%+v", f)
	}
	for _, c := range []struct {
		event, field string
		want         target.Field
		decl, typ    string
		isString     bool
	}{
		{
			"sched:sched_process_exec", "filename",
			target.Field{CType: "char", Kind: target.FieldDataLoc, Offset: 8, Size: 4, Dynamic: true},
			"__data_loc char[] filename", "char filename[]", true,
		},
		{
			"sched:sched_process_exec", "list",
			target.Field{CType: "u32", Kind: target.FieldRelLoc, Offset: 16, Size: 4, Dynamic: true},
			"__rel_loc u32[] list", "u32 list[]", false,
		},
		{
			"sched:sched_process_exec", "mac",
			target.Field{CType: "u8", Kind: target.FieldArray, Offset: 20, Size: 6, Len: 6},
			"u8 mac[6]", "u8 mac[6]", false,
		},
		{
			"sched:sched_switch", "prev_comm",
			target.Field{CType: "char", Kind: target.FieldString, Offset: 8, Size: 16, Len: 16},
			"char prev_comm[16]", "char prev_comm[16]", true,
		},
		{
			"sched:sched_switch", "prev_state",
			target.Field{CType: "long", Offset: 32, Size: 8, Signed: true},
			"long prev_state", "long int prev_state", false,
		},
		{
			"syscalls:sys_enter_openat", "filename",
			target.Field{CType: "const char *", Kind: target.FieldPointer, Offset: 24, Size: 8},
			"const char *filename", "char *filename", false,
		},
		{
			"skb:consume_skb", "reason",
			target.Field{CType: "enum skb_drop_reason", Offset: 16, Size: 4},
			"enum skb_drop_reason reason", "enum skb_drop_reason reason", false,
		},
		{
			"skb:consume_skb", "args",
			target.Field{CType: "unsigned long", Kind: target.FieldArray, Offset: 24, Size: 48, Len: 6},
			"unsigned long args[6]", "long unsigned int args[6]", false,
		},
	} {
		subsystem, event, _ := strings.Cut(c.event, ":")
		f, err := m.Format(subsystem, event)
		if err != nil {
			t.Error(err)
			continue
		}
		got, ok := f.Field(c.field)
		c.want.Name = c.field
		if !ok || got != c.want || got.Decl() != c.decl || got.IsString() != c.isString {
			t.Errorf("%s.%s = %+v %q %v, want %+v %q", c.event, c.field, got, got.Decl(), got.IsString(), c.want, c.decl)
		}
		typ, err := target.FieldType(m, got)
		if err != nil || target.Declare(typ, c.field) != c.typ {
			t.Errorf("%s.%s has type %q, %v, want %q", c.event, c.field, target.Declare(typ, c.field), err, c.typ)
		}
	}
	skb, err := m.Format("skb", "consume_skb")
	if err != nil || skb.Print != "\"skbaddr=%p\nmore\", REC->skbaddr" {
		t.Errorf("print fmt over two lines: %q, %v", skb.Print, err)
	}
}

func TestBadFormat(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "no name",
		"ID: 7\n":                          "no name",
		"name: a\nID: x\n":                 "ID is no number",
		"name: a\nfield:int x\n":           "semicolon",
		"name: a\nfield:int x;\tsize:4;\n": "no offset",
		"name: a\nfield:int x;\toffset:0;\tsize:999999999;\n":       "out of bounds",
		"name: a\nfield:int x;\toffset:-1;\tsize:4;\n":              "out of bounds",
		"name: a\nfield:x;\toffset:0;\tsize:4;\n":                   "no name or no type",
		"name: a\nfield:__data_loc char[] x;\toffset:0;\tsize:8;\n": "not 4 bytes",
		"name: a\nwhatever\n":                                       "none of",
	} {
		f, err := target.ParseFormat("s", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, error %v, want %q", text, f, err, want)
		}
	}
}

func FuzzFormat(f *testing.F) {
	for _, text := range targettest.Kernel(f).Formats {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		format, err := target.ParseFormat("s", raw)
		if err != nil {
			return
		}
		for _, field := range format.Fields {
			if field.Name == "" || field.CType == "" || field.Decl() == "" || field.Text() == "" || field.Kind.String() == "" {
				t.Errorf("%+v", field)
			}
		}
	})
}

func TestCType(t *testing.T) {
	types, err := targettest.New(t).Types()
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"int": "int", "unsigned": "unsigned int", "long unsigned int": "long unsigned int", "unsigned long long": "long long unsigned int",
		"short int": "short int", "signed char": "signed char", "const char *const": "char *", "struct file *": "struct file *",
		"struct nowhere * *": "struct nowhere **", "void __seg_gs *": "void *", "u8[16]": "u8 [16]", "enum tcp_state": "enum tcp_state",
		"pid_t": "pid_t", "struct list_head": "struct list_head", "unknown_t *": "void *", "bool": "bool", "int[2][3]": "int [2][3]",
	} {
		got, err := target.ParseCType(types, text)
		if err != nil || target.Declare(got, "") != want {
			if text == "bool" && target.Declare(got, "") == "_Bool" {
				continue
			}
			t.Errorf("%q = %q, %v, want %q", text, target.Declare(got, ""), err, want)
		}
	}
	for _, text := range []string{
		"", "long long long", "unsigned signed", "char int", "float x y", "unknown_t", "struct", "struct nowhere", "enum nowhere",
		"int (", "int [", "int [x]", "int[2] *", "unsigned pid_t", "struct file enum", "* * * * * * * * * * * * * * * * * *int", "short long",
	} {
		if got, err := target.ParseCType(types, text); err == nil {
			t.Errorf("%q = %v", text, got)
		}
	}
	if got, err := target.ParseCType(nil, "u32"); err != nil || target.Declare(got, "") != "u32" {
		t.Errorf("u32 without BTF: %v, %v", got, err)
	}
}

func FuzzCType(f *testing.F) {
	for _, text := range []string{"unsigned long long", "const struct file *const", "u8[16]", "enum x", "unsigned"} {
		f.Add(text)
	}
	types, err := targettest.New(f).Types()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		typ, err := target.ParseCType(types, text)
		if err != nil {
			return
		}
		if again, err := target.ParseCType(types, text); err != nil || target.Declare(again, "x") != target.Declare(typ, "x") {
			t.Errorf("%q is once %v, once %v", text, typ, again)
		}
	})
}

func TestDeclare(t *testing.T) {
	types, err := targettest.New(t).Types()
	if err != nil {
		t.Fatal(err)
	}
	fn, err := types.Func("vfs_write")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := target.Declare(fn, ""), "ssize_t vfs_write(struct file *file, const char *buf, size_t count, loff_t *pos)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := target.Declare(&btf.Pointer{Target: fn.Type}, "op"), "ssize_t (*op)(struct file *file, const char *buf, size_t count, loff_t *pos)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	task, err := types.Struct("task_struct")
	if err != nil {
		t.Fatal(err)
	}
	def := target.Define(task)
	for _, want := range []string{
		"struct task_struct {\n\tunsigned int __state;\n\tunsigned int in_execve : 1;\n", "\tstruct mm_struct *mm;\n",
		"\tchar comm[16];\n", "\tunion {\n\t\tu64 start_time;\n\t\tlong int start_alt;\n\t};\n};\n",
	} {
		if !strings.Contains(def, want) {
			t.Errorf("%q is missing in:\n%s", want, def)
		}
	}
	loop := &btf.Pointer{}
	loop.Target = loop
	if got := target.Declare(loop, ""); len(got) > 200 {
		t.Errorf("a type that has no end takes %d characters", len(got))
	}
}

func TestRawTracepoints(t *testing.T) {
	m := targettest.New(t)
	rt, err := m.RawTracepoint("sched_switch")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range rt.Args {
		got = append(got, target.Declare(a.Type, a.Name))
	}
	if want := []string{"_Bool preempt", "struct task_struct *prev", "struct task_struct *next", "unsigned int prev_state"}; !slices.Equal(got, want) {
		t.Errorf("arguments %q, want %q", got, want)
	}
	// Without a function that names them.
	if rt, err = m.RawTracepoint("sys_enter"); err != nil || len(rt.Args) != 2 || rt.Args[1].Name != "arg1" {
		t.Errorf("%+v, %v", rt, err)
	}
	if _, err := m.RawTracepoint("nothing"); !errors.Is(err, target.ErrNotFound) {
		t.Error(err)
	}
	if iters, err := m.Iterators(); err != nil || !slices.Equal(iters, []string{"task"}) {
		t.Errorf("%v, %v", iters, err)
	}
	// Without BTF the events have to do.
	src := targettest.Kernel(t)
	src.Blobs = nil
	if m, err = target.New(src); err != nil {
		t.Fatal(err)
	}
	all, err := m.RawTracepoints()
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
	}
	if want := []string{"block_rq_issue", "consume_skb", "sched_process_exec", "sched_switch", "sched_wakeup", "sys_enter", "sys_exit"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v, want %v", names, err, want)
	}
}

func TestFunctions(t *testing.T) {
	m := targettest.New(t)
	for _, c := range []struct {
		module, name string
		want         []target.Function
	}{
		{"", "vfs_read", []target.Function{{Name: "vfs_read"}}},
		{"vmlinux", "vfs_read", []target.Function{{Name: "vfs_read"}}},
		{"", "no_type", []target.Function{{Name: "no_type"}}},
		{"", "ext4_sync_file", []target.Function{{Name: "ext4_sync_file", Module: "ext4"}}},
		{"ext4", "ext4_sync_file", []target.Function{{Name: "ext4_sync_file", Module: "ext4"}}},
		{"vmlinux", "ext4_sync_file", nil},
		{"", "vfs_rea", nil},
		{"", "", nil},
	} {
		got, err := m.Function(c.module, c.name)
		if !slices.Equal(got, c.want) || (c.want == nil) != errors.Is(err, target.ErrNotFound) {
			t.Errorf("Function(%q, %q) = %v, %v, want %v", c.module, c.name, got, err, c.want)
		}
	}
	// Where the list may not be read, code with a type stands in.
	src := targettest.Kernel(t)
	src.Funcs = nil
	m, err := target.New(src)
	if err != nil {
		t.Fatal(err)
	}
	all, err := m.Functions()
	if want := []target.Function{{Name: "vfs_read"}, {Name: "vfs_write"}}; err != nil || !slices.Equal(all, want) {
		t.Errorf("%v, %v, want %v", all, err, want)
	}
}

func TestSymbol(t *testing.T) {
	m := targettest.New(t)
	for name, want := range map[string]target.Symbol{
		"vfs_read":       {Name: "vfs_read", Addr: 0xffffffff81000100, Type: 'T'},
		"_text":          {Name: "_text", Addr: 0xffffffff81000000, Type: 'T'},
		"ext4_sync_file": {Name: "ext4_sync_file", Module: "ext4", Addr: 0xffffffffc0000000, Type: 't'},
	} {
		got, err := m.Symbol(name)
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%s = %+v, %v, want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"", "vfs", "read", "T", "T vfs_read", "[ext4]"} {
		if got, err := m.Symbol(name); !errors.Is(err, target.ErrNotFound) {
			t.Errorf("%q = %+v, %v", name, got, err)
		}
	}
}

func TestFeatures(t *testing.T) {
	src := targettest.Kernel(t)
	src.Lacks = map[target.FeatureName]string{target.FeatureRingBuf: "it is too old"}
	m, err := target.New(src)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Feature(target.FeatureRingBuf).Err()
	if err == nil || !strings.Contains(err.Error(), "5.8") || !strings.Contains(err.Error(), "ring buffers") || !strings.Contains(err.Error(), "too old") {
		t.Errorf("%v", err)
	}
	if err := m.Feature(target.FeatureLoop).Err(); err != nil {
		t.Error(err)
	}
	seen := make(map[target.FeatureName]bool)
	for f := range target.Features() {
		if f.Since.IsZero() || f.What == "" || seen[f.Name] {
			t.Errorf("%+v", f)
		}
		seen[f.Name] = true
	}
	if g := target.FeatureKprobeMulti.Guess(target.V(5, 17), "x"); g.Have || g.Known {
		t.Errorf("%+v", g)
	}
}

func TestSnapshot(t *testing.T) {
	src := targettest.Kernel(t)
	src.Lacks = map[target.FeatureName]string{target.FeatureFentry: "because"}
	src.Root = fstest.MapFS{}
	m, err := target.New(src)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := target.Save(&file, m, "elsewhere"); err != nil {
		t.Fatal(err)
	}
	saved, err := target.Load(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := target.Save(&again, saved, "elsewhere"); err != nil || !bytes.Equal(again.Bytes(), file.Bytes()) {
		t.Errorf("saving what was loaded gives other bytes, %v", err)
	}
	for what, ask := range map[string]func(target.Target) any{
		"scalars": func(m target.Target) any {
			return fmt.Sprint(m.Arch(), m.ByteOrder(), m.Release(), m.CPUs(), m.PageSize(), m.HZ())
		},
		"events":    func(m target.Target) any { return fmt.Sprint(m.Events()) },
		"functions": func(m target.Target) any { return fmt.Sprint(m.Functions()) },
		"function":  func(m target.Target) any { return fmt.Sprint(m.Function("", "vfs_raed")) },
		"iterators": func(m target.Target) any { return fmt.Sprint(m.Iterators()) },
		"modules":   func(m target.Target) any { return fmt.Sprint(m.Modules()) },
		"format": func(m target.Target) any {
			f, err := m.Format("sched", "sched_switch")
			return fmt.Sprintf("%+v %v", *f, err)
		},
		"no format":   func(m target.Target) any { return fmt.Sprint(m.Format("sched", "x")) },
		"raw":         func(m target.Target) any { return fmt.Sprint(m.RawTracepoints()) },
		"feature":     func(m target.Target) any { return m.Feature(target.FeatureFentry) },
		"other":       func(m target.Target) any { return m.Feature(target.FeatureLoop) },
		"symbol name": func(m target.Target) any { s, err := m.Symbol("vfs_read"); return fmt.Sprint(len(s), err) },
	} {
		if a, b := ask(m), ask(saved); a != b {
			t.Errorf("%s: %v, saved %v", what, a, b)
		}
	}
	if saved.Name() != "elsewhere" {
		t.Errorf("it is called %q", saved.Name())
	}
	if s, err := saved.Symbol("vfs_read"); err != nil || s[0].Addr != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := saved.Files(0); !errors.Is(err, target.ErrUnknown) {
		t.Error(err)
	}
}

// What could not be read stays unknown, in the same words.
func TestSnapshotOfLittle(t *testing.T) {
	src := targettest.Kernel(t)
	src.Blobs, src.Formats, src.Funcs = nil, nil, nil
	m, err := target.New(src)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := target.Save(&file, m, "little"); err != nil {
		t.Fatal(err)
	}
	saved, err := target.Load(&file)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := m.Types()
	_, err2 := saved.Types()
	if !errors.Is(err2, target.ErrUnknown) || err1.Error() != err2.Error() {
		t.Errorf("%v, saved %v", err1, err2)
	}
	_, err1 = m.Events()
	_, err2 = saved.Events()
	if !errors.Is(err2, target.ErrUnknown) || err1.Error() != err2.Error() {
		t.Errorf("%v, saved %v", err1, err2)
	}
	if _, err := saved.Format("sched", "sched_switch"); !errors.Is(err, target.ErrUnknown) {
		t.Error(err)
	}
}

func TestDamagedSnapshot(t *testing.T) {
	var file bytes.Buffer
	if err := target.Save(&file, targettest.New(t), "x"); err != nil {
		t.Fatal(err)
	}
	whole := file.Bytes()
	for _, n := range []int{0, 5, 23, 24, 40, len(whole) / 2, len(whole) - 1} {
		if _, err := target.Load(bytes.NewReader(whole[:n])); err == nil {
			t.Errorf("%d of %d bytes were enough", n, len(whole))
		}
	}
	// A flipped byte is found at the latest when its section is used.
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 0x55
		m, err := target.Load(bytes.NewReader(bad))
		if err != nil {
			continue
		}
		_, err1 := m.Types()
		_, err2 := m.Events()
		_, err3 := m.Functions()
		_, err4 := m.Symbol("_text")
		_, err5 := m.Format("sched", "sched_switch")
		if errors.Join(err1, err2, err3, err4, err5) == nil {
			t.Errorf("byte %d of %d does not matter", i, len(whole))
		}
	}
}

func FuzzLoad(f *testing.F) {
	var file bytes.Buffer
	if err := target.Save(&file, targettest.New(f), "x"); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := target.Load(bytes.NewReader(data))
		if err != nil {
			return
		}
		if m.CPUs() < 1 || m.PageSize() < 1 {
			t.Error("impossible scalars")
		}
		_, _ = m.Types()
		_, _ = m.Events()
		_, _ = m.Functions()
		_, _ = m.Symbol("x")
		_, _ = m.Format("sched", "sched_switch")
	})
}

// files is an fs.FS as target.Files.
func testFiles(t *testing.T, root fs.FS) target.Files {
	t.Helper()
	src := targettest.Kernel(t)
	src.Root = root
	f, err := src.Files(0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestReadBinary(t *testing.T) {
	exe, err := os.Executable()
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("needs an ELF file of its own:", err)
	}
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := target.ReadBinary(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Functions) > 0 && !slices.Contains(b.Functions, "runtime.main") {
		t.Errorf("%d functions without runtime.main", len(b.Functions))
	}
	if _, err := target.ReadBinary(strings.NewReader("#!/bin/sh\n")); err == nil {
		t.Error("a script is an ELF file")
	}
}

func TestResolveBinary(t *testing.T) {
	exe, err := os.Executable()
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("needs an ELF file of its own:", err)
	}
	elf, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	arch := runtime.GOARCH
	plain := fstest.MapFS{
		"usr/bin/tool":        {Data: elf},
		"lib/libz.so.1":       {Data: elf},
		"lib/libc.so":         {Data: []byte("GROUP ( libc.so.6 )")},
		"usr/lib64/libc.so.6": {Data: elf},
		"opt/x/app":           {Data: elf},
		"opt/x/dir/file":      {Data: elf},
	}
	cached := fstest.MapFS{"etc/ld.so.cache": {Data: loaderCache("libz.so.1", "/opt/z/libz.so.1.3")}, "opt/z/libz.so.1.3": {Data: elf}, "lib/libz.so.1": {Data: elf}}
	for _, c := range []struct {
		root       fs.FS
		name, want string
	}{
		{plain, "/opt/x/app", "/opt/x/app"},
		{plain, "tool", "/usr/bin/tool"},
		{plain, "libc", "/usr/lib64/libc.so.6"},
		{plain, "c", "/usr/lib64/libc.so.6"},
		{plain, "libc.so.6", "/usr/lib64/libc.so.6"},
		{plain, "z", "/lib/libz.so.1"},
		{cached, "z", "/opt/z/libz.so.1.3"},
		{plain, "/opt/x/dir", ""},
		{plain, "/nowhere", ""},
		{plain, "x/app", ""},
		{plain, "nothing", ""},
	} {
		got, err := target.ResolveBinary(testFiles(t, c.root), arch, c.name)
		if got != c.want || (c.want == "") != (err != nil) {
			t.Errorf("%s = %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

// loaderCache writes an ld.so.cache with one library.
func loaderCache(soname, path string) []byte {
	b := append([]byte("glibc-ld.so.cache1.1"), 1, 0, 0, 0)
	b = append(b, make([]byte, 48-len(b))...)
	strs := 48 + 24
	entry := make([]byte, 24)
	entry[4] = byte(strs)
	entry[8] = byte(strs + len(soname) + 1)
	b = append(b, entry...)
	return append(b, soname+"\x00"+path+"\x00"...)
}

func FuzzReadBinary(f *testing.F) {
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	if paths, _ := filepath.Glob("/usr/lib/*/ld-linux*"); len(paths) > 0 {
		if data, err := os.ReadFile(paths[0]); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := target.ReadBinary(bytes.NewReader(data))
		if err == nil && !slices.IsSorted(b.Functions) {
			t.Error("functions are not sorted")
		}
	})
}
