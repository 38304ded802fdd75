package symbol

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const mapsText = `55d0c0a00000-55d0c0a01000 r--p 00000000 08:01 1234                       /usr/bin/prog
55d0c0a01000-55d0c0a02000 r-xp 00001000 08:01 1234                       /usr/bin/prog
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000001000 rwxp 00000000 00:00 0 
7f0000002000-7f0000003000 r-xp 00002000 fe:10 99                         /tmp/a b\012c (deleted)
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

func TestParseMaps(t *testing.T) {
	maps, err := ParseMaps(strings.NewReader(mapsText))
	if err != nil || len(maps) != 7 {
		t.Fatalf("%v, %v", maps, err)
	}
	want := Mapping{0x7f0000002000, 0x7f0000003000, "r-xp", 0x2000, 0xfe, 0x10, 99, "/tmp/a b\nc", true}
	if maps[4] != want || !maps[4].IsExecutable() || !maps[4].IsFile() {
		t.Errorf("%+v, want %+v", maps[4], want)
	}
	if maps[3].Path != "" || maps[3].IsFile() || maps[2].IsExecutable() || maps[5].IsFile() {
		t.Errorf("%+v", maps)
	}
	for addr, path := range map[uint64]string{
		0x55d0c0a00fff: "/usr/bin/prog", 0x55d0c0a02000: "", 0x7ffc00000000: "[vdso]", 0: "", 0xffffffffffffffff: "",
	} {
		m := FindMapping(maps, addr)
		if got := ""; m != nil && m.Path != path || m == nil && path != got {
			t.Errorf("FindMapping(%#x) = %v", addr, m)
		}
	}
	if m, err := ParseMaps(strings.NewReader("")); err != nil || m != nil {
		t.Errorf("an exited process: %v, %v", m, err)
	}
	if _, err := ParseMaps(strings.NewReader("what is this\n")); err == nil {
		t.Error("other text is accepted")
	}
}

func FuzzMaps(f *testing.F) {
	f.Add(mapsText, uint64(0x55d0c0a00fff))
	f.Add("0-1 r--p 0 0:0 0", uint64(0))
	f.Fuzz(func(t *testing.T, text string, addr uint64) {
		maps, err := ParseMaps(strings.NewReader(text))
		if err != nil {
			return
		}
		if m := FindMapping(maps, addr); m != nil && (addr < m.Start || addr >= m.End) {
			t.Errorf("%#x is not in %+v", addr, m)
		}
	})
}

func TestPerfMap(t *testing.T) {
	m, err := ParsePerfMap(strings.NewReader(`1000 100 old one
1010 10 inside, later
2000 80 LazyCompile:~foo /a/b c.js:1:2
0x3000 0x20 with prefixes
1080 100 overlaps the end
garbage
4000 0 empty
4000 10
ffffffffffffff00 200 wraps
1200 80 first
1180 200 covers it all`))
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]string{
		0xfff: "", 0x1000: "old one+0", 0x100f: "old one+15", 0x1010: "inside, later+0", 0x101f: "inside, later+15",
		0x1020: "old one+32", 0x107f: "old one+127", 0x1080: "overlaps the end+0", 0x117f: "overlaps the end+255",
		0x1180: "covers it all+0", 0x1210: "covers it all+144", 0x1380: "",
		0x2001: "LazyCompile:~foo /a/b c.js:1:2+1", 0x3010: "with prefixes+16", 0x4000: "",
	} {
		got := ""
		if name, off, ok := m.Resolve(addr); ok {
			got = fmt.Sprintf("%s+%d", name, off)
		}
		if got != want {
			t.Errorf("%#x is %q, want %q", addr, got, want)
		}
	}
}

// A map of random pieces against painting them one by one.
func TestPerfMapRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		var b strings.Builder
		var paint [256]string
		for i := range rng.IntN(40) {
			start, size := rng.IntN(200), 1+rng.IntN(50)
			fmt.Fprintf(&b, "%x %x f%d\n", start, size, i)
			for a := start; a < start+size; a++ {
				paint[a] = fmt.Sprintf("f%d+%d", i, a-start)
			}
		}
		m, err := ParsePerfMap(strings.NewReader(b.String()))
		if err != nil {
			t.Fatal(err)
		}
		for a, want := range paint {
			got := ""
			if name, off, ok := m.Resolve(uint64(a)); ok {
				got = fmt.Sprintf("%s+%d", name, off)
			}
			if got != want {
				t.Fatalf("%s\n%#x is %q, want %q", b.String(), a, got, want)
			}
		}
	}
}

func FuzzPerfMap(f *testing.F) {
	f.Add([]byte("1000 100 a\n1010 10 b\n"), uint64(0x1015))
	f.Fuzz(func(t *testing.T, data []byte, addr uint64) {
		m, err := ParsePerfMap(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if name, _, ok := m.Resolve(addr); ok && name == "" {
			t.Error("a name is empty")
		}
		for i := 1; i < len(m.entries); i++ {
			if m.entries[i].start < m.entries[i-1].end {
				t.Fatalf("pieces overlap: %v", m.entries)
			}
		}
	})
}

// child is a running program that has printed its addresses.
type child struct {
	pid   int
	addrs map[string]uint64
	stop  func()
}

func start(t *testing.T, file string, args ...string) child {
	t.Helper()
	cmd := exec.Command(file, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := child{pid: cmd.Process.Pid, addrs: map[string]uint64{}}
	c.stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(c.stop)
	r := bufio.NewScanner(out)
	for r.Scan() {
		name, num, _ := strings.Cut(r.Text(), " ")
		if c.addrs[name], err = strconv.ParseUint(num, 0, 64); err != nil {
			t.Fatal(r.Text())
		}
		if name == "getpid" { // the last line
			return c
		}
	}
	t.Fatal("the program printed too little")
	return c
}

func readMaps(t *testing.T, pid int) []Mapping {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Skipf("no memory maps here: %v", err)
	}
	defer f.Close()
	maps, err := ParseMaps(f)
	if err != nil {
		t.Fatal(err)
	}
	return maps
}

func TestProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	for name, flags := range variants {
		t.Run(name, func(t *testing.T) {
			file := compile(t, "gcc", "types.c", flags...)
			// A copy, deleted while it runs and while it is captured.
			gone := t.TempDir() + "/gone"
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(gone, data, 0o755); err != nil {
				t.Fatal(err)
			}
			s := NewSymbolizer(Options{Files: ProcFiles(os.DirFS("/")), Lines: true})
			defer s.Close()
			for _, path := range []string{file, gone} {
				c := start(t, path, "wait")
				if path == gone {
					os.Remove(gone)
				}
				p := s.Capture(c.pid, readMaps(t, c.pid))
				c.stop() // names must be had after the end
				for _, fn := range []string{"static_sum", "inner_static", "getpid"} {
					f := p.Resolve(c.addrs[fn] + 2)
					got := strings.TrimLeft(f.Name, "_")
					if fn != "getpid" && (got != fn && f.Name != "alias_of_sum") || f.Offset != 2 || f.Addr != c.addrs[fn]+2 {
						t.Errorf("%s: %s+2 is %+v", path, fn, f)
					}
					if fn == "getpid" && got != fn {
						t.Logf("getpid is %+v", f)
					}
					if fn == "static_sum" && (!strings.HasSuffix(f.File, "types.c") || f.Line < 35 || f.Line > 45 || f.Module != path) {
						t.Errorf("%s is at %s:%d in %s", fn, f.File, f.Line, f.Module)
					}
					if r := p.ResolveReturn(c.addrs[fn] + 2); r.Name != f.Name || r.Offset != 2 || r.Addr != f.Addr || r.ModuleOffset != f.ModuleOffset {
						t.Errorf("as a return address: %+v", r)
					}
				}
				if f := p.Resolve(8); f.Name != "" || f.Module != "" {
					t.Errorf("address 8 is %+v", f)
				}
			}
			if len(s.tables) == 0 || len(s.tables) > 4 {
				t.Errorf("%d tables for two runs of one build", len(s.tables))
			}
		})
	}
}

func TestProcessSelf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	s := NewSymbolizer(Options{Files: ProcFiles(os.DirFS("/"))})
	p := s.Capture(os.Getpid(), readMaps(t, os.Getpid()))
	pc := uint64(reflect.ValueOf(TestProcessSelf).Pointer())
	if f := p.Resolve(pc + 1); f.Name != "github.com/skep-bpf/skep/symbol.TestProcessSelf" || f.Offset != 1 {
		t.Errorf("%+v", f)
	}
	i := slices.IndexFunc(p.Mappings(), func(m Mapping) bool { return m.Path == "[vdso]" })
	if i < 0 {
		t.Skip("no vdso here")
	}
	vdso := p.Mappings()[i]
	names := map[string]bool{}
	for a := vdso.Start; a < vdso.End; a += 16 {
		names[p.Resolve(a).Name] = true
	}
	if !names["clock_gettime"] && !names["__vdso_clock_gettime"] && !names["__kernel_clock_gettime"] {
		t.Errorf("names in the vdso: %v", names)
	}
	if err := s.Close(); err != nil || s.bytes != 0 || s.open.Len() != 0 {
		t.Errorf("after Close: %v, %d bytes, %d files", err, s.bytes, s.open.Len())
	}
	p.Resolve(pc) // nothing to find, nothing to break
}

// fakeFiles serves one ELF for every mapping and a perf map.
type fakeFiles struct {
	elf     []byte
	opened  int
	perf    string
	missing bool
}

func (f *fakeFiles) OpenMapped(int, *Mapping) (ReadAtCloser, error) {
	if f.missing {
		return nil, fs.ErrNotExist
	}
	f.opened++
	return struct {
		io.ReaderAt
		io.Closer
	}{bytes.NewReader(f.elf), io.NopCloser(nil)}, nil
}

func (f *fakeFiles) OpenPerfMap(int) (io.ReadCloser, error) {
	if f.perf == "" {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(f.perf)), nil
}

func TestSymbolizerBounds(t *testing.T) {
	elf, err := os.ReadFile(compile(t, "gcc", "types.c", variants["pie"]...))
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewBinary(bytes.NewReader(elf))
	if err != nil {
		t.Fatal(err)
	}
	places, err := b.Functions("static_sum", false)
	if err != nil {
		t.Fatal(err)
	}
	files := &fakeFiles{elf: elf, perf: "7f0000000000 10 jitted\n7e0000000000 10 later\n"}
	s := NewSymbolizer(Options{Files: files, MaxFiles: 2, MaxBytes: 1 << 20})
	mapping := func(inode uint64) []Mapping {
		return []Mapping{
			{Start: 0x400000, End: 0x500000, Perms: "r-xp", Inode: inode, Path: "/prog"},
			{Start: 0x7f0000000000, End: 0x7f0000001000, Perms: "rwxp"},
			{Start: 0x7f0000001000, End: 0x7f0000002000, Perms: "rw-p"},
		}
	}
	var all []*Process
	for i := range uint64(5) {
		all = append(all, s.Capture(int(i), mapping(i+1)))
	}
	again := s.Capture(9, mapping(5))
	if files.opened != 5 || s.open.Len() != 2 {
		t.Errorf("%d files opened, %d open", files.opened, s.open.Len())
	}
	files.missing = true
	at := 0x400000 + places[0].Offset
	if f := again.Resolve(at); f.Name != "static_sum" && f.Name != "alias_of_sum" {
		t.Errorf("%+v", f)
	}
	// The same build under another inode: its file is closed and gone, but the build-id is known.
	if f := all[0].Resolve(at); f.Name == "" || len(s.tables) != 1 {
		t.Errorf("%+v, %d tables", f, len(s.tables))
	}
	for addr, want := range map[uint64]string{0x7f0000000004: "jitted", 0x7f0000001004: "", 0x7e0000000001: "later", 0x7f0000000100: ""} {
		if f := again.Resolve(addr); f.Name != want {
			t.Errorf("%#x is %+v, want %q", addr, f, want)
		}
	}
	s.o.MaxBytes = 100
	files.missing = false
	for i := range 3 {
		id := []byte(fmt.Sprintf("%020d", i))
		start, _ := b.FileOffset(b.section(".note.gnu.build-id").Addr)
		files.elf = bytes.Clone(elf)
		copy(files.elf[start+16:], id)
		s.Capture(100+i, mapping(uint64(100+i))).Resolve(at)
		if s.used.Len() > 1 {
			t.Errorf("%d tables of %d bytes kept", s.used.Len(), s.bytes)
		}
	}
	s.Close()
}

func TestProcFiles(t *testing.T) {
	elf := []byte("\x7fELF, nearly")
	root := fstest.MapFS{
		"proc/7/map_files/1000-2000": {Data: elf},
		"proc/7/root/lib/other":      {Data: []byte("of the container")},
		"lib/other":                  {Data: []byte("of the host")},
		"lib/third":                  {Data: []byte("of the host")},
		"proc/7/status":              {Data: []byte("Name:\tx\nNSpid:\t7\t3\n")},
		"proc/7/root/tmp/perf-3.map": {Data: []byte("1 1 inner\n")},
		"tmp/perf-8.map":             {Data: []byte("1 1 outer\n")},
		"tmp/perf-9.map":             {Mode: fs.ModeNamedPipe},
	}
	files := ProcFiles(root)
	for _, c := range []struct {
		m    Mapping
		want string
	}{
		{Mapping{Start: 0x1000, End: 0x2000, Path: "/gone", Deleted: true}, string(elf)},
		{Mapping{Start: 0x3000, End: 0x4000, Path: "/lib/other"}, "of the container"},
		{Mapping{Start: 0x3000, End: 0x4000, Path: "/lib/third"}, "of the host"},
		{Mapping{Start: 0x3000, End: 0x4000, Path: "/lib/third", Deleted: true}, ""},
		{Mapping{Start: 0x3000, End: 0x4000, Path: "/lib"}, ""},
		{Mapping{Start: 0x3000, End: 0x4000, Path: "[vdso]"}, ""},
	} {
		r, err := files.OpenMapped(7, &c.m)
		got := ""
		if err == nil {
			data, _ := io.ReadAll(io.NewSectionReader(r, 0, 100))
			got = string(data)
		}
		if got != c.want {
			t.Errorf("%+v opens %q, %v; want %q", c.m, got, err, c.want)
		}
	}
	for pid, want := range map[int]string{7: "1 1 inner\n", 8: "1 1 outer\n", 9: "", 10: ""} {
		r, err := files.OpenPerfMap(pid)
		got := ""
		if err == nil {
			data, _ := io.ReadAll(r)
			got = string(data)
		}
		if got != want {
			t.Errorf("perf map of %d is %q, %v", pid, got, err)
		}
	}
	if _, err := files.OpenPerfMap(10); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func BenchmarkProcessResolve(b *testing.B) {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		b.Skip(err)
	}
	maps, err := ParseMaps(bytes.NewReader(text))
	if err != nil {
		b.Fatal(err)
	}
	s := NewSymbolizer(Options{Files: ProcFiles(os.DirFS("/"))})
	defer s.Close()
	p := s.Capture(os.Getpid(), maps)
	pc := uint64(reflect.ValueOf(BenchmarkProcessResolve).Pointer())
	b.ReportAllocs()
	for b.Loop() {
		if p.Resolve(pc).Name == "" {
			b.Fatal("no name")
		}
	}
}
