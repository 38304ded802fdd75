//go:build linux

package kernel

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/skep-bpf/skep/target"
	"github.com/skep-bpf/skep/target/typeindex"
)

// live target, or a skip that says why.
func liveTarget(t testing.TB) target.Target {
	t.Helper()
	m, err := Target()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func needTypes(t testing.TB) *typeindex.Types {
	t.Helper()
	types, err := liveTarget(t).Types()
	if errors.Is(err, target.ErrUnknown) {
		t.Skip("needs a kernel with BTF:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func needEvents(t testing.TB) []target.Event {
	t.Helper()
	events, err := liveTarget(t).Events()
	if errors.Is(err, target.ErrUnknown) {
		t.Skip("needs tracefs:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestFacts(t *testing.T) {
	m := liveTarget(t)
	if m.CPUs() < 1 || m.PageSize() < 4096 || m.Release().Major < 4 {
		t.Errorf("CPUs %d, page size %d, release %v", m.CPUs(), m.PageSize(), m.Release())
	}
	if hz := m.HZ(); hz != 0 && (hz < 24 || hz > 1200) {
		t.Errorf("HZ = %d", hz)
	}
}

func TestParseCPUs(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-1": 2, "0-3,8": 9, "0-3,8-11": 12} {
		if n, err := parseCPUs(list); n != want || err != nil {
			t.Errorf("parseCPUs(%q) = %d, %v, want %d", list, n, err, want)
		}
	}
	for _, list := range []string{"", "x", "0-", "-1-", "99999999"} {
		if n, err := parseCPUs(list); err == nil {
			t.Errorf("parseCPUs(%q) = %d, want an error", list, n)
		}
	}
}

func TestLiveTypesAgreeWithCilium(t *testing.T) {
	types := needTypes(t)
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"task_struct", "sock", "file", "sk_buff", "request"} {
		got, err := types.Struct(name)
		if err != nil {
			t.Error(err)
			continue
		}
		var want *btf.Struct
		if err := spec.TypeByName(name, &want); err != nil {
			t.Fatal(err)
		}
		if got.Size != want.Size || len(got.Members) != len(want.Members) {
			t.Errorf("struct %s has size %d and %d members, want %d and %d", name, got.Size, len(got.Members), want.Size, len(want.Members))
			continue
		}
		for i, m := range got.Members {
			w := want.Members[i]
			if m.Name != w.Name || m.Offset != w.Offset || m.BitfieldSize != w.BitfieldSize {
				t.Errorf("struct %s member %d: %+v, want %+v", name, i, m, w)
			}
			gotSize, err1 := btf.Sizeof(m.Type)
			wantSize, err2 := btf.Sizeof(w.Type)
			if gotSize != wantSize || (err1 == nil) != (err2 == nil) {
				t.Errorf("struct %s member %s: size %d, %v, want %d, %v", name, m.Name, gotSize, err1, wantSize, err2)
			}
		}
		wantID, err := spec.TypeID(want)
		if err != nil {
			t.Fatal(err)
		}
		if module, id, ok := types.ID(got); module != "" || id != wantID || !ok {
			t.Errorf("ID of struct %s = %q, %d, %v, want %d", name, module, id, ok, wantID)
		}
	}
}

// Every type of the running kernel can be materialised.
func TestLiveAllTypes(t *testing.T) {
	types := needTypes(t)
	n := 0
	for e := range types.Names(typeindex.KindAny, "") {
		typ, err := types.ByID(e.Module, e.ID)
		if err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		if typ.TypeName() != e.Name {
			t.Fatalf("%+v became %v", e, typ)
		}
		n++
	}
	if n < 10000 {
		t.Errorf("the kernel has only %d named types", n)
	}
}

func TestLiveFormats(t *testing.T) {
	m := liveTarget(t)
	events := needEvents(t)
	if len(events) < 100 || !slices.Contains(events, target.Event{Subsystem: "sched", Name: "sched_switch"}) {
		t.Fatalf("%d events, sched_switch may be missing", len(events))
	}
	for _, e := range events {
		f, err := m.Format(e.Subsystem, e.Name)
		if err != nil {
			t.Errorf("%s: %v", e, err)
			continue
		}
		end := 0
		for i, field := range f.Fields {
			if field.Offset < end {
				t.Errorf("%s: field %s at %d overlaps the one before", e, field.Name, field.Offset)
			}
			end = field.Offset + field.Size
			if field.Common != (i < 4) {
				t.Errorf("%s: field %d %s is common: %v", e, i, field.Name, field.Common)
			}
			typ, err := target.FieldType(m, field)
			if err != nil || typ == nil {
				t.Errorf("%s: field %s: %v", e, field.Decl(), err)
				continue
			}
			if field.Kind == target.FieldDataLoc || field.Kind == target.FieldRelLoc || e.Subsystem == "syscalls" {
				continue
			}
			if size, err := btf.Sizeof(typ); err != nil || size != field.Size {
				t.Errorf("%s: field %s takes %d bytes, its type %d, %v", e, field.Decl(), field.Size, size, err)
			}
		}
	}
	if _, err := m.Format("sched", "sched_swich"); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("a misspelt event gives %v", err)
	}
	if _, err := m.Format("../../..", "etc"); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("an event outside the directory gives %v", err)
	}
}

func TestLiveRawTracepoints(t *testing.T) {
	needTypes(t)
	m := liveTarget(t)
	rt, err := m.RawTracepoint("sched_switch")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, a := range rt.Args {
		names = append(names, a.Name)
	}
	if len(names) < 3 || names[0] != "preempt" || names[1] != "prev" || names[2] != "next" {
		t.Errorf("arguments of sched_switch: %v", names)
	}
	all, err := m.RawTracepoints()
	if err != nil || len(all) < 100 {
		t.Fatalf("%d raw tracepoints, %v", len(all), err)
	}
	for _, r := range all {
		if _, err := m.RawTracepoint(r.Name); err != nil {
			t.Error(err)
		}
	}
	iters, err := m.Iterators()
	if err != nil || !slices.Contains(iters, "task") || slices.Contains(iters, "num") {
		t.Errorf("iterators: %v, %v", iters, err)
	}
}

func TestLiveFunctions(t *testing.T) {
	needTypes(t)
	m := liveTarget(t)
	got, err := m.Function("", "vfs_read")
	if err != nil || len(got) != 1 || got[0].Module != "" {
		t.Errorf("vfs_read: %v, %v", got, err)
	}
	if got, err := m.Function("", "vfs_raed"); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("vfs_raed: %v, %v", got, err)
	}
	all, err := m.Functions()
	if err != nil || len(all) < 1000 || !slices.Contains(all, target.Function{Name: "vfs_read"}) {
		t.Errorf("%d functions, %v", len(all), err)
	}
	s, err := m.Symbol("vfs_read")
	if err != nil || len(s) == 0 || s[0].Name != "vfs_read" {
		t.Errorf("symbol vfs_read: %v, %v", s, err)
	}
	if s, err := m.Symbol("vfs_rea"); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("symbol vfs_rea: %v, %v", s, err)
	}
}

func TestLiveFeatures(t *testing.T) {
	m := liveTarget(t)
	for info := range target.Features() {
		f := m.Feature(info.Name)
		t.Logf("%-20s have=%-5v known=%-5v %s", f.Name, f.Have, f.Known, f.Why)
		if os.Geteuid() == 0 && !f.Known {
			t.Errorf("root could not find out about %s: %s", info.Name, f.Why)
		}
		if (f.Err() == nil) != f.Have {
			t.Errorf("%s: have %v, error %v", info.Name, f.Have, f.Err())
		}
	}
}

// A snapshot answers as the machine it was made of.
func TestLiveSnapshot(t *testing.T) {
	needTypes(t)
	needEvents(t)
	if testing.Short() {
		t.Skip("takes a second")
	}
	live := liveTarget(t)
	var file, again bytes.Buffer
	if err := target.Save(&file, live, "here"); err != nil {
		t.Fatal(err)
	}
	saved, err := target.Load(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the snapshot takes %d KiB", file.Len()>>10)
	if err := target.Save(&again, saved, "here"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(file.Bytes(), again.Bytes()) {
		t.Error("saving what was loaded gives other bytes")
	}
	if saved.Name() != "here" || saved.Arch() != live.Arch() || saved.Release() != live.Release() ||
		saved.CPUs() != live.CPUs() || saved.PageSize() != live.PageSize() || saved.HZ() != live.HZ() {
		t.Error("the scalars differ")
	}
	same(t, "events", live.Events, saved.Events)
	same(t, "functions", live.Functions, saved.Functions)
	same(t, "iterators", live.Iterators, saved.Iterators)
	same(t, "modules", live.Modules, saved.Modules)
	events, _ := live.Events()
	for _, e := range events {
		a, err1 := live.Format(e.Subsystem, e.Name)
		b, err2 := saved.Format(e.Subsystem, e.Name)
		if err1 != nil || err2 != nil || a.Print != b.Print || !slices.Equal(a.Fields, b.Fields) {
			t.Errorf("format of %s differs: %v, %v", e, err1, err2)
		}
	}
	lt, _ := live.Types()
	st, err := saved.Types()
	if err != nil {
		t.Fatal(err)
	}
	a, _ := lt.Raw("")
	b, _ := st.Raw("")
	if !bytes.Equal(a, b) {
		t.Error("the BTF differs")
	}
	for info := range target.Features() {
		if live.Feature(info.Name) != saved.Feature(info.Name) {
			t.Errorf("feature %s differs", info.Name)
		}
	}
	s, err := saved.Symbol("vfs_read")
	if err != nil || len(s) == 0 || s[0].Addr != 0 {
		t.Errorf("symbol vfs_read in the snapshot: %v, %v", s, err)
	}
	if _, err := saved.Files(0); !errors.Is(err, target.ErrUnknown) {
		t.Errorf("files of the snapshot: %v", err)
	}
}

func same[T comparable](t *testing.T, what string, a, b func() ([]T, error)) {
	t.Helper()
	x, err1 := a()
	y, err2 := b()
	if (err1 == nil) != (err2 == nil) || !slices.Equal(x, y) {
		t.Errorf("%s differ: %d, %v and %d, %v", what, len(x), err1, len(y), err2)
	}
}

func TestFiles(t *testing.T) {
	m := liveTarget(t)
	files, err := m.Files(os.Getpid())
	if err != nil {
		t.Skip("needs /proc:", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		"absolute": filepath.Join(dir, "file"), "relative": "file", "up": "../" + filepath.Base(dir) + "/file",
		"chain": "absolute", "loop": "loop", "gone": "nothing",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"file", "absolute", "relative", "up", "chain"} {
		f, err := files.OpenFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		var b [4]byte
		if _, err := f.ReadAt(b[:], 0); err != nil || string(b[:]) != "text" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		f.Close()
		host, err := files.HostPath(filepath.Join(dir, name))
		if err != nil || !strings.HasPrefix(host, "/proc/") || filepath.Base(host) != "file" {
			t.Errorf("HostPath(%s) = %q, %v", name, host, err)
		}
	}
	for _, name := range []string{"loop", "gone", "file/x"} {
		if f, err := files.OpenFile(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s opened", name)
			f.Close()
		}
		if host, err := files.HostPath(filepath.Join(dir, name)); err == nil {
			t.Errorf("HostPath(%s) = %q", name, host)
		}
	}
	if f, err := files.OpenFile(dir); err == nil {
		t.Error("a directory opened as a file")
		f.Close()
	}
	if got, err := fs.Glob(files, strings.TrimPrefix(dir, "/")+"/f*"); err != nil || len(got) != 1 {
		t.Errorf("Glob: %v, %v", got, err)
	}
	if _, err := m.Files(1 << 30); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("files of no process: %v", err)
	}
}

func TestDetachedTraceFS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	fd, err := detachedMount("tracefs")
	if err != nil {
		t.Skip("needs a kernel with tracefs and CAP_SYS_ADMIN:", err)
	}
	fsys := &TraceFS{fd}
	text, err := fsys.ReadFile("available_events")
	if err != nil || !bytes.Contains(text, []byte("sched:sched_switch\n")) {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if fsys.Mounted() {
		t.Error("a mount of one's own has a place in the file system")
	}
	if _, err := fsys.ReadFile("no_such_file"); !errors.Is(err, target.ErrNotFound) {
		t.Errorf("a missing file gives %v", err)
	}
}

func BenchmarkTwoFieldsOfTaskStruct(b *testing.B) {
	raw, err := live{}.BTF("")
	if err != nil {
		b.Skip("needs a kernel with BTF:", err)
	}
	b.ReportAllocs()
	for b.Loop() {
		types, err := typeindex.New(raw, nil)
		if err != nil {
			b.Fatal(err)
		}
		task, err := types.Struct("task_struct")
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for _, m := range task.Members {
			if m.Name == "pid" || m.Name == "real_parent" {
				n++
			}
		}
		if n != 2 {
			b.Fatal("fields are missing")
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	needEvents(b)
	for b.Loop() {
		m, err := target.New(live{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Events(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFormat(b *testing.B) {
	needEvents(b)
	raw, err := live{}.Format("sched", "sched_switch")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := target.ParseFormat("sched", raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubset(b *testing.B) {
	raw, err := live{}.BTF("")
	if err != nil {
		b.Skip("needs a kernel with BTF:", err)
	}
	b.ReportAllocs()
	for b.Loop() {
		types, err := typeindex.New(raw, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := types.Subset("task_struct", "file", "sock"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWholeSpecOfCilium(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		spec, err := btf.LoadKernelSpec()
		if err != nil {
			b.Skip("needs a kernel with BTF:", err)
		}
		var task *btf.Struct
		if err := spec.TypeByName("task_struct", &task); err != nil {
			b.Fatal(err)
		}
	}
}
